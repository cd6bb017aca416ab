"""Which labels are probably missing: boxes that several models agree on and no human box is near."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ..evaluation import match_ground_truth
from ..evaluation.causes import RIGHT_IOU
from ..geometry import largest_iou
from ..postprocess import fuse, suppress

SUSPECT_IOU = 0.3  # a box that overlaps a human one by this much may be of the same animal
VIEWS_IOU = 0.55  # two boxes of a look, and of several, that overlap by more are one
SUSPECT_CONFIDENCE = 0.5  # fused over passes, from which a box without a label is called a likely missing label


def likely_boxes(candidates: pd.DataFrame) -> pd.DataFrame:
    """What of a look's candidates is fused: suppressed, from a confidence of 0.01. A second time it changes nothing."""
    return suppress(candidates, iou_threshold=VIEWS_IOU, conf_threshold=0.01)


def fuse_views(members: Sequence[pd.DataFrame], images: pd.DataFrame) -> pd.DataFrame:
    """One boxes table of several TTA views of the same images: mirrored, larger, by models of other folds.

    `members` are the candidates of the views, or their `likely_boxes`, each out of fold. They are fused (WBF), which
    lowers the confidence of what not all of them see.
    """
    return fuse([likely_boxes(boxes) for boxes in members], images, "wbf", iou_threshold=VIEWS_IOU)


def find_suspects(truth: pd.DataFrame, fused: pd.DataFrame) -> pd.DataFrame:
    """Boxes that several views of an image agree on and no human box is near: probably labels that are missing.

    `fused` is what `fuse_views` gives for images that their models have not seen; what overlaps a human box by
    `SUSPECT_IOU`, whatever its class, is left out. A boxes table, the most suspicious first: by confidence, which ranks
    missing labels better than cleanlab's score of overlooked boxes does (LOG.md, `bench/silver.py`).

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}])
    >>> fused = pd.concat([truth.assign(x_max=9.0), truth.assign(x_min=50.0, x_max=60.0)])
    >>> find_suspects(truth, fused)["x_min"].tolist()  # the first one overlaps a human box
    [50.0]
    """
    alone = fused[largest_iou(fused, truth) < SUSPECT_IOU]
    return alone.sort_values("confidence", ascending=False, kind="stable", ignore_index=True)


def set_aside(truth: pd.DataFrame, boxes: pd.DataFrame, suspects: pd.DataFrame, iou_threshold: float) -> pd.DataFrame:
    """The boxes without those that are false only because a label is probably missing there.

    A box goes that finds no true one at `iou_threshold` and overlaps a box of `suspects` of its class by `RIGHT_IOU`:
    it counts neither for nor against a model, as a crowd region of COCO.
    """
    boxes = boxes.reset_index(drop=True)
    counts = match_ground_truth(truth.reset_index(drop=True), boxes, iou_threshold) >= 0
    for label, own in boxes.groupby("label").groups.items():
        counts[own] |= largest_iou(boxes.loc[own], suspects[suspects["label"] == label]) < RIGHT_IOU
    return boxes[counts]
