"""Scores of one training of keypoints, and the same over resampled groups of images, for `gains.find_gain`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..config import Skeleton
from .bootstrap import resample
from .gains import Judged, count_groups
from .oks import match_poses
from .pixel import GROSS, SHARE, correct_share, find_errors, find_lengths, resample_mean, summarise_errors
from .precision import COCO_IOUS, score

FEWER_IS_BETTER = ("pixels", "NME", "gross")  # a gain in these is by how much they fall


def judge_poses(
    images: pd.DataFrame, truth: tuple[pd.DataFrame, pd.DataFrame], found: tuple[pd.DataFrame, pd.DataFrame],
    skeleton: Skeleton, counts: np.ndarray, areas: Mapping[int, float] | pd.Series | None = None,
    objects: tuple[pd.DataFrame, pd.DataFrame] | None = None,
) -> Judged:
    """Errors and shares of the points that were found, `truth` and `found` are boxes and keypoints by `box_id`.

    `objects` are all boxes and keypoints of a model that finds the boxes too, under numbers of their own: by these OKS
    is judged, and `found` has those that match a true object.

    `pixels` (mean error in the original image), `median`, `q95`, `gross` (share beyond 25 px), `NME` (error over the
    diagonal of the box), `PCK` (share within 0.05 of it), and of objects with more than one point `OKS` (AP at .5 to
    .95), `OKS50`, `OKS75`. `counts` `(n_resamples, len(images))` are those of `gains.draw_gain_counts`.
    """
    boxes, keypoints = truth
    errors, lengths = find_errors(keypoints, found[1]), find_lengths(boxes)
    summary = summarise_errors(errors).iloc[0]
    scores = {"pixels": float(summary["mean"]), "median": float(summary["median"]), "q95": float(summary["q95"]),
              "gross": float(summary["gross"]), "PCK": float(correct_share(errors, lengths).iloc[0])}
    share = errors["error"] / errors["box_id"].map(lengths)
    scores["NME"] = float(share.mean())
    is_gross = (errors["error"] > GROSS).where(errors["error"].notna())
    values = {"pixels": errors["error"], "NME": share, "gross": is_gross, "PCK": (share <= SHARE).astype(float)}
    resampled = {name: resample_mean(errors["image_id"], value, images["image_id"], counts)
                 for name, value in values.items()}
    if max(len(skeleton.names(label)) for label in skeleton.labels) > 1:
        boxes, points = objects or found
        matches = match_poses(truth, (_by_points(boxes, points), points), skeleton, tuple(COCO_IOUS), areas)
        each = [score(one).mean for one in matches]
        scores |= {"OKS": float(np.mean(each)), "OKS50": each[0], "OKS75": each[5]}
        resampled["OKS"] = np.mean([resample(one, pd.Index(images["image_id"]), counts)
                                    for one in matches], axis=0)
    with_point = keypoints.loc[keypoints["visible"] > 0, ["image_id"]]
    return Judged(scores, resampled, count_groups(images, with_point.assign(label="any")))


def _by_points(boxes: pd.DataFrame, keypoints: pd.DataFrame) -> pd.DataFrame:
    """The boxes that have points, with their mean confidence times their own: by it COCO's AP ranks poses."""
    boxes = boxes[boxes["box_id"].isin(keypoints["box_id"])]
    mean = keypoints.groupby("box_id")["confidence"].mean()
    return boxes.assign(confidence=boxes["confidence"] * boxes["box_id"].map(mean).fillna(0.0))
