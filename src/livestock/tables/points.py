"""Keypoints tables from arrays: what a model finds in each box, of the points that the box's class has."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from .make import make_keypoints

logger = logging.getLogger(__name__)


def list_points(
    boxes: pd.DataFrame, found: np.ndarray, names: Sequence[str], labels: Sequence[str],
    owners: Sequence[Sequence[int]],
) -> pd.DataFrame:
    """A keypoints table of source `model` from the points `(N, K, 3)` of boxes, x, y and confidence, of these `names`.

    `owners` are the places in `labels` of the classes that have each point; without any every box has all. A box of
    another class has none then, which the log says.

    >>> boxes = pd.DataFrame({"box_id": [7], "image_id": ["a.jpg"], "label": ["cow"]})
    >>> points = np.array([[[1.0, 2.0, 0.5], [3.0, 4.0, 0.5]]])
    >>> list_points(boxes, points, ["snout", "muzzle"], ["pig", "cow"], [[0], [1]])["keypoint"].tolist()
    ['muzzle']
    """
    is_own = _has_point(boxes["label"], labels, owners, len(names))
    table = pd.DataFrame({
        "box_id": np.repeat(boxes["box_id"].to_numpy(), len(names)),
        "image_id": np.repeat(boxes["image_id"].to_numpy(object), len(names)),
        "keypoint": np.tile(np.array(names, object), len(boxes)),
        "x": found[..., 0].ravel(), "y": found[..., 1].ravel(), "visible": 2, "confidence": found[..., 2].ravel(),
        "source": "model"})
    return make_keypoints(table[is_own.ravel()].reset_index(drop=True))


def _has_point(labels: pd.Series, known: Sequence[str], owners: Sequence[Sequence[int]], n_points: int) -> np.ndarray:
    """Whether a box of each label has each point, `(N, K)`."""
    if not owners:
        return np.ones((len(labels), n_points), bool)
    if unknown := sorted(set(labels) - set(known)):
        logger.info("%d boxes have no keypoints: the model knows those of %s, and nothing of %s",
                    labels.isin(unknown).sum(), ", ".join(known), ", ".join(unknown))
    return np.column_stack([labels.isin([known[number] for number in own]) for own in owners])
