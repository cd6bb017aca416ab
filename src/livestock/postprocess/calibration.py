"""Confidences as probabilities, so that boxes of different model families can be compared and fused.

A confidence of 0.3 may be a safe bet for one family and a poor one for another. On boxes whose truth is known, each
family's confidences are mapped to the share of boxes that were right (isotonic regression, Zadrozny and Elkan 2002).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..evaluation import match_usual
from .methods import EVERY_CLASS

LEAST_BOXES = 10  # of a class, for a curve of its own
OWN_SHARE = 1e-4  # of the confidence that stays in it: where the share is level, boxes keep their order


@dataclass(frozen=True)
class Calibration:
    """By label, and under `EVERY_CLASS` for all others, points of a curve: confidences and shares, both `(K,)`."""

    curves: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def __call__(self, boxes: pd.DataFrame) -> pd.DataFrame:
        """The same boxes with calibrated confidences, in 0..1; the order of the boxes of a class stays the same."""
        confidence = boxes["confidence"].to_numpy(float).copy()
        for label, rows in boxes.groupby("label").indices.items():
            known, share = self.curves.get(str(label), self.curves[EVERY_CLASS])
            own = confidence[rows]
            confidence[rows] = (1 - OWN_SHARE) * np.interp(own, known, share) + OWN_SHARE * own
        return boxes.assign(confidence=confidence.astype(boxes["confidence"].dtype))


def fit_calibration(boxes: pd.DataFrame, truth: pd.DataFrame, metric_iou: float) -> Calibration:
    """The curves of boxes that were suppressed, from images that their model was not trained on.

    A box is right if it is matched with a true box at `metric_iou`, as `evaluation.match_usual` does. A class without a
    true box, or with fewer boxes than `LEAST_BOXES`, is not known: it gets the curve of all classes together. Raises
    ValueError if there is no true box at all.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": name, "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}
    ...                     for name in "abcd"])
    >>> right = truth.assign(confidence=[0.4, 0.4, 0.2, 0.2])
    >>> wrong = right.assign(x_min=50.0, x_max=60.0, confidence=[0.2] * 4)
    >>> calibrate = fit_calibration(pd.concat([right, wrong]), truth, metric_iou=0.75)
    >>> calibrate(right)["confidence"].round(3).tolist()  # 2 of 2 boxes were right at 0.4, 2 of 6 at 0.2
    [1.0, 1.0, 0.333, 0.333]
    """
    if truth.empty:
        raise ValueError("truth: expected at least one true box to calibrate confidences with, found none")
    matches = match_usual(truth, boxes, metric_iou)
    curves = {label: _fit(matches.confidence[mine], matches.is_true[mine])
              for number, label in enumerate(matches.labels) if (mine := matches.label == number).sum() >= LEAST_BOXES}
    return Calibration({EVERY_CLASS: _fit(matches.confidence, matches.is_true), **curves})


def _fit(confidence: np.ndarray, is_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.isotonic import IsotonicRegression

    if not len(confidence):
        return np.array([0.0]), np.array([0.0])  # nothing was seen of it, so nothing is known to be right
    fitted = IsotonicRegression(y_min=0, y_max=1).fit(confidence, is_true)
    return fitted.X_thresholds_, fitted.y_thresholds_


def calibrate_out_of_part(
    boxes: pd.DataFrame, truth: pd.DataFrame, parts: pd.Series, metric_iou: float
) -> pd.DataFrame:
    """The boxes of each part of the images, calibrated on the other parts; `parts` numbers the images, by image_id.

    A part stays as it is where no other has a true box.
    """
    own, other = boxes["image_id"].map(parts), truth["image_id"].map(parts)
    found = []
    for part in sorted(parts.unique()):
        mine, known = boxes[own == part], truth[other != part]
        found.append(fit_calibration(boxes[own != part], known, metric_iou)(mine) if len(known) else mine)
    return pd.concat(found, ignore_index=True)
