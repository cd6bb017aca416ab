"""The box around a polygon or a mask, as COCO writes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .values import is_number, number

MOST_RUNS = 10_000_000  # of a mask; a picture of 100 megapixels of noise has fewer


def polygon_box(values: list[Any]) -> tuple[float, float, float, float] | None:
    """xyxy around the points `x, y, x, y ...`; None for what is no polygon of at least three points.

    >>> polygon_box([10, 12, 50, 12, 30, 24])
    (10, 12, 50, 24)
    """
    if len(values) < 6 or len(values) % 2 or not all(map(is_number, values)):
        return None
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])


def outline_box(segmentation: Any) -> tuple[float, float, float, float] | None:
    """xyxy around COCO's segmentation, a list of polygons or a run-length mask; None for what is neither.

    >>> outline_box([[10, 12, 50, 12, 30, 24]])
    (10.0, 12.0, 50.0, 24.0)
    >>> outline_box({"size": [4, 6], "counts": [5, 2, 17]})  # 4 high, 6 wide; pixels 5 and 6, counted down the columns
    (1.0, 1.0, 2.0, 3.0)
    """
    if isinstance(segmentation, list):
        polygons = segmentation if all(isinstance(part, list) for part in segmentation) else [segmentation]
        found = [polygon_box([number(value) for value in polygon]) for polygon in polygons]
        boxes = np.array([box for box in found if box is not None], dtype=float)
        if not len(boxes) or len(boxes) < len(found):
            return None
        return (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    return _mask_box(segmentation) if isinstance(segmentation, dict) else None


def _mask_box(mask: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """The box of a run-length mask: runs of 0 and 1 in turn, down the columns one after the other (COCO's maskApi)."""
    counts, size = mask.get("counts"), mask.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(is_number(value) and value >= 1 for value in size):
        return None
    runs = _unpack_runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or len(runs) > MOST_RUNS or not all(is_number(run) and run >= 0 for run in runs):
        return None
    height, width = int(size[0]), int(size[1])
    ends = np.cumsum(np.array(runs, dtype=float))
    if not len(ends) or ends[-1] > height * width:
        return None
    starts, stops = np.append(0, ends)[1:-1:2], ends[1::2]  # of the runs of 1
    starts, stops = starts[stops > starts], stops[stops > starts] - 1
    if not len(starts):
        return None
    spans_columns = starts // height != stops // height
    top = 0.0 if spans_columns.any() else float((starts % height).min())
    bottom = float(height) if spans_columns.any() else float((stops % height).max()) + 1
    return float(starts.min() // height), top, float(stops.max() // height) + 1, bottom


def _unpack_runs(text: str) -> list[int] | None:
    """Runs from COCO's compressed text: numbers in base 32, five bits a letter from "0" on, a sixth bit where more
    follows; from the third on each is the difference to the run before the last."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs if not shift else None
