"""Greedy non-maximum suppression of a boxes table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from ..files.cores import count_cores
from ..tables import XYXY

PIECE = 250_000  # boxes that are copied at a time


def suppress(
    candidates: pd.DataFrame,
    *,
    iou_threshold: float = 0.6,
    conf_threshold: float = 0.001,
    max_det: int = 300,
    agnostic: bool = False,
) -> pd.DataFrame:
    """Greedy non-maximum suppression of a boxes table, by image and, unless `agnostic`, by label.

    Candidates above `conf_threshold` are taken by falling confidence (ties: row order); each that is still
    there drops the later ones that overlap it by more than `iou_threshold`. Of the rest an image keeps its
    `max_det` most confident. Exact, as `torchvision.ops.batched_nms`, and never cut short by a clock. Returns
    a table of the same columns, by image and falling confidence. Raises ValueError for an argument out of
    range.

    >>> from livestock.tables import make_boxes
    >>> boxes = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": x_max, "y_max": 10,
    ...                      "confidence": confidence} for x_max, confidence in ((10, 0.9), (9, 0.8), (3, 0.7))])
    >>> suppress(boxes, iou_threshold=0.6)["confidence"].tolist()  # the second overlaps the first by 0.9
    [0.9, 0.7]
    """
    check_thresholds(iou_threshold, conf_threshold, max_det)
    kept = [rows[_keep_rows(candidates.iloc[rows], iou_threshold, max_det, agnostic)]
            for rows in image_pieces(candidates, conf_threshold)]
    return candidates.iloc[np.concatenate([np.zeros(0, int), *kept])].reset_index(drop=True)


def image_pieces(boxes: pd.DataFrame, conf_threshold: float) -> list[np.ndarray]:
    """Row numbers of the boxes above a confidence, by image_id, some whole images to an array.

    Of millions of candidates copies are made a piece at a time: what stays of them is little.

    >>> boxes = pd.DataFrame({"image_id": ["b.jpg", "a.jpg", "b.jpg"], "confidence": [0.9, 0.8, 0.001]})
    >>> [rows.tolist() for rows in image_pieces(boxes, conf_threshold=0.01)]  # few boxes: all in one piece
    [[1, 0]]
    """
    rows, ids = np.flatnonzero(boxes["confidence"].to_numpy() > conf_threshold), boxes["image_id"]
    if not ids.is_monotonic_increasing:
        rows = rows[np.argsort(pd.factorize(ids, sort=True)[0][rows], kind="stable")]
    names = ids.to_numpy()[rows]
    starts = np.flatnonzero(names[1:] != names[:-1]) + 1
    return np.split(rows, starts[np.flatnonzero(np.diff(starts // PIECE, prepend=0))])


def _keep_rows(above: pd.DataFrame, iou_threshold: float, max_det: int, agnostic: bool) -> np.ndarray:
    """Rows that suppression keeps of whole images, by image and falling confidence."""
    confidence = above["confidence"].to_numpy()
    image = pd.factorize(above["image_id"], sort=True)[0]
    label = np.zeros_like(image) if agnostic else pd.factorize(above["label"])[0]
    order = np.lexsort((-confidence, label, image))
    group = image[order] * (label.max(initial=0) + 1) + label[order]
    corners = above[XYXY].to_numpy(float)[order]
    bounds = np.flatnonzero(np.diff(group, prepend=-1, append=-1))
    with ThreadPoolExecutor(count_cores()) as pool:
        groups = list(pairwise(bounds))
        found = pool.map(lambda group: keep_boxes(corners[slice(*group)], iou_threshold, max_det), groups)
        kept = [start + rows for (start, _), rows in zip(groups, found, strict=True)]
    rows = order[np.concatenate([np.zeros(0, int), *kept])]
    # By row number last: equal confidences keep the order of the table, whatever the number of threads.
    rows = rows[np.lexsort((rows, -confidence[rows], image[rows]))]
    return rows[_nth_in_run(image[rows]) < max_det]


def count_capped(candidates: pd.DataFrame, boxes: pd.DataFrame, **thresholds: Any) -> int:
    """How many boxes `max_det` cut from `boxes`, which is `suppress(candidates, **thresholds)`."""
    return len(suppress(candidates, **{**thresholds, "max_det": max(len(candidates), 1)})) - len(boxes)


def keep_boxes(corners: np.ndarray, iou_threshold: float, most: int | None = None) -> np.ndarray:
    """Rows that greedy suppression keeps of `(N, 4)` xyxy boxes by falling confidence, ascending; the first `most`.

    `torchvision.ops.nms` in double precision.

    >>> boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])  # the most confident first
    >>> keep_boxes(boxes, iou_threshold=0.6).tolist()
    [0, 2]
    """
    import torch
    from torchvision.ops import nms  # a second to import, which `livestock --help` need not wait for

    falling = torch.arange(len(corners), 0, -1, dtype=torch.float64)
    return nms(torch.from_numpy(np.ascontiguousarray(corners, float)), falling, iou_threshold).numpy()[:most]


def _nth_in_run(values: np.ndarray) -> np.ndarray:
    """How many equal values come directly before each value of a sorted array."""
    return np.arange(len(values)) - np.searchsorted(values, values)


def check_thresholds(iou_threshold: float, conf_threshold: float, max_det: int) -> None:
    """Raises ValueError for an argument out of range, naming it."""
    for name, value in [("iou_threshold", iou_threshold), ("conf_threshold", conf_threshold)]:
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: expected a number from 0 to 1, found {value!r}")
    if max_det < 1:
        raise ValueError(f"max_det: expected at least 1, found {max_det!r}")
