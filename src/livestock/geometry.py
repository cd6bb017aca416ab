"""Geometry of boxes on `(N, 4)` arrays, `xyxy` in pixels: conversions, areas, clipping, IoU."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .tables import XYXY


def clip_xyxy(boxes: np.ndarray, width: np.ndarray | float, height: np.ndarray | float) -> np.ndarray:
    """Clips `(N, 4)` xyxy pixel boxes to images of `width` x `height` pixels (numbers or `(N,)`); returns a copy.

    >>> clip_xyxy(np.array([[-5.0, 2.0, 50.0, 90.0]]), 40, 80).tolist()
    [[0.0, 2.0, 40.0, 80.0]]
    """
    clipped = np.array(boxes, dtype=float).reshape(-1, 4)
    clipped[:, [0, 2]] = np.clip(clipped[:, [0, 2]], 0, np.reshape(width, (-1, 1)))
    clipped[:, [1, 3]] = np.clip(clipped[:, [1, 3]], 0, np.reshape(height, (-1, 1)))
    return clipped


def box_area(boxes: np.ndarray) -> np.ndarray:
    """Areas in px² of `(N, 4)` xyxy boxes, shape `(N,)`."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def paired_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU row by row of two `(N, 4)` arrays of xyxy boxes, `(N,)`; 0 where they do not overlap.

    In `map_boxes`' order of operations, so that an IoU at the threshold falls on the same side.
    """
    width = np.minimum(first[:, 2], second[:, 2]) - np.maximum(first[:, 0], second[:, 0])
    height = np.minimum(first[:, 3], second[:, 3]) - np.maximum(first[:, 1], second[:, 1])
    overlap = np.maximum(width, 0) * np.maximum(height, 0)
    union = box_area(first) + box_area(second) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)


def xywh_to_xyxy(boxes: np.ndarray) -> np.ndarray:
    """COCO's `(N, 4)` corner-and-size pixel boxes as xyxy."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def cxcywhn_to_xyxy(boxes: np.ndarray, width: np.ndarray | float, height: np.ndarray | float) -> np.ndarray:
    """YOLO's `(N, 4)` centre-and-size boxes, relative to the image, as xyxy pixels of `width` x `height`."""
    half = boxes[:, 2:] / 2
    size = np.column_stack([np.broadcast_to(width, len(boxes)), np.broadcast_to(height, len(boxes))])
    return np.concatenate([(boxes[:, :2] - half) * size, (boxes[:, :2] + half) * size], axis=1)


def xyxy_to_cxcywhn(boxes: np.ndarray, width: np.ndarray | float, height: np.ndarray | float) -> np.ndarray:
    """xyxy pixel boxes `(N, 4)` as YOLO's centre-and-size boxes relative to images of `width` x `height`."""
    size = np.column_stack([np.broadcast_to(width, len(boxes)), np.broadcast_to(height, len(boxes))])
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.concatenate([centre / size, (boxes[:, 2:] - boxes[:, :2]) / size], axis=1)


def largest_iou(boxes: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """The largest IoU of each row of a boxes table with any of `others` in its image, whatever the class: `(N,)`."""
    corners, other_corners, found = boxes[XYXY].to_numpy(), others[XYXY].to_numpy(), np.zeros(len(boxes))
    of_image = others.groupby("image_id").indices
    for name, rows in boxes.groupby("image_id").indices.items():
        if name in of_image:
            iou = pairwise_iou(corners[rows], other_corners[of_image[name]])
            found[rows] = iou.max(axis=1, initial=0.0)
    return found


def pairwise_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of every pair of xyxy boxes, `(N, 4)` and `(M, 4)` to `(N, M)`; 0 where both areas are 0."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    union = box_area(first)[:, None] + box_area(second)[None, :] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
