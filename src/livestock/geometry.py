"""Geometry of boxes, `(N, 4)` arrays of `xyxy`, and of points, `(..., 2)` arrays of `x, y`, in pixels.

One frame for images, boxes and points: x = 0 is the left edge of the first pixel, x = width the right edge of the
last, and the centre of pixel `i` is at i + 0.5. So one affine map, `(2, 3)`, is right for boxes and points alike, and
the mirror image of x is width - x for both: it takes the centre of pixel `i` to that of pixel `width - 1 - i`, which is
where `picture[:, ::-1]` has it. A file that gives the numbers of pixels gets 0.5 added when it is read. OpenCV counts
from the centre of the first pixel, see `to_pixel_centres`.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """Areas in px² of `(N, 4)` xyxy boxes, shape `(N,)`.

    >>> box_area(np.array([[0.0, 0.0, 4.0, 3.0], [1.0, 1.0, 1.0, 5.0]])).tolist()
    [12.0, 0.0]
    """
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def paired_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU row by row of two `(N, 4)` arrays of xyxy boxes, `(N,)`; 0 where they do not overlap.

    In `map_boxes`' order of operations, so that an IoU at the threshold falls on the same side.

    >>> first, second = np.array([[0.0, 0, 10, 10], [0, 0, 10, 10]]), np.array([[0.0, 0, 10, 5], [20, 20, 30, 30]])
    >>> paired_iou(first, second).tolist()  # half of the first box; no overlap
    [0.5, 0.0]
    """
    width = np.minimum(first[:, 2], second[:, 2]) - np.maximum(first[:, 0], second[:, 0])
    height = np.minimum(first[:, 3], second[:, 3]) - np.maximum(first[:, 1], second[:, 1])
    overlap = np.maximum(width, 0) * np.maximum(height, 0)
    union = box_area(first) + box_area(second) - overlap
    return np.divide(overlap, union, out=_zeros_for(overlap), where=overlap > 0)


def xywh_to_xyxy(boxes: np.ndarray) -> np.ndarray:
    """COCO's `(N, 4)` corner-and-size pixel boxes as xyxy.

    >>> xywh_to_xyxy(np.array([[10.0, 20.0, 30.0, 40.0]])).tolist()
    [[10.0, 20.0, 40.0, 60.0]]
    """
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def cxcywhn_to_xyxy(boxes: np.ndarray, width: np.ndarray | float, height: np.ndarray | float) -> np.ndarray:
    """YOLO's `(N, 4)` centre-and-size boxes, relative to the image, as xyxy pixels of `width` x `height`.

    >>> cxcywhn_to_xyxy(np.array([[0.5, 0.5, 0.25, 0.5]]), 400, 200).tolist()
    [[150.0, 50.0, 250.0, 150.0]]
    """
    half = boxes[:, 2:] / 2
    size = np.column_stack([np.broadcast_to(width, len(boxes)), np.broadcast_to(height, len(boxes))])
    return np.concatenate([(boxes[:, :2] - half) * size, (boxes[:, :2] + half) * size], axis=1)


def xyxy_to_cxcywhn(boxes: np.ndarray, width: np.ndarray | float, height: np.ndarray | float) -> np.ndarray:
    """xyxy pixel boxes `(N, 4)` as YOLO's centre-and-size boxes relative to images of `width` x `height`.

    >>> xyxy_to_cxcywhn(np.array([[150.0, 50.0, 250.0, 150.0]]), 400, 200).tolist()
    [[0.5, 0.5, 0.25, 0.5]]
    """
    size = np.column_stack([np.broadcast_to(width, len(boxes)), np.broadcast_to(height, len(boxes))])
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.concatenate([centre / size, (boxes[:, 2:] - boxes[:, :2]) / size], axis=1)


def largest_iou(boxes: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """The largest IoU of each row of a boxes table with any of `others` in its image, whatever the class: `(N,)`.

    >>> boxes = pd.DataFrame([["a.jpg", 0.0, 0, 10, 10], ["b.jpg", 0.0, 0, 10, 10]], columns=["image_id", *XYXY])
    >>> others = pd.DataFrame([["a.jpg", 0.0, 0, 10, 5], ["a.jpg", 0.0, 0, 10, 8]], columns=["image_id", *XYXY])
    >>> largest_iou(boxes, others).tolist()  # the second image has no other box
    [0.8, 0.0]
    """
    corners, other_corners, found = boxes[XYXY].to_numpy(), others[XYXY].to_numpy(), np.zeros(len(boxes))
    of_image = others.groupby("image_id").indices
    for name, rows in boxes.groupby("image_id").indices.items():
        if name in of_image:
            iou = pairwise_iou(corners[rows], other_corners[of_image[name]])
            found[rows] = iou.max(axis=1, initial=0.0)
    return found


def pairwise_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of every pair of xyxy boxes, `(N, 4)` and `(M, 4)` to `(N, M)`; 0 where both areas are 0.

    >>> others = np.array([[0.0, 0, 10, 5], [0, 0, 10, 10], [20, 20, 30, 30]])
    >>> pairwise_iou(np.array([[0.0, 0, 10, 10]]), others).tolist()
    [[0.5, 1.0, 0.0]]
    """
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    union = box_area(first)[:, None] + box_area(second)[None, :] - overlap
    return np.divide(overlap, union, out=_zeros_for(overlap), where=union > 0)


def affine(scale: Sequence[float] = (1.0, 1.0), shift: Sequence[float] = (0.0, 0.0)) -> np.ndarray:
    """The map `(2, 3)` that multiplies x and y by `scale` and then adds `shift`, each given as x, y.

    >>> affine(scale=(2, 3), shift=(10, 0)).tolist()
    [[2.0, 0.0, 10.0], [0.0, 3.0, 0.0]]
    """
    return np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]], float)


def mirror_affine(width: float) -> np.ndarray:
    """The map `(2, 3)` that mirrors an image of this width, left to right.

    >>> map_points(np.array([[30.0, 10.0]]), mirror_affine(100)).tolist()
    [[70.0, 10.0]]
    """
    return affine(scale=(-1, 1), shift=(width, 0))


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The map `(2, 3)` that applies `first` and then `second`.

    >>> compose(affine(scale=(2, 2)), affine(shift=(1, 0))).tolist()  # first a shift, which is then doubled
    [[2.0, 0.0, 2.0], [0.0, 2.0, 0.0]]
    """
    return second[:, :2] @ first + np.pad(second[:, 2:], ((0, 0), (2, 0)))


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse of the map `(2, 3)`. Raises ValueError if it has none.

    >>> invert(affine(scale=(2, 2), shift=(10, 0))).tolist()
    [[0.5, 0.0, -5.0], [0.0, 0.5, 0.0]]
    """
    if not np.isfinite(matrix).all() or np.linalg.det(matrix[:, :2]) == 0:
        raise ValueError(f"matrix: expected a map that can be undone, found {matrix.tolist()}")
    linear = np.linalg.inv(matrix[:, :2])
    return np.hstack([linear, -linear @ matrix[:, 2:]]) + 0.0  # no -0


def to_pixel_centres(matrix: np.ndarray) -> np.ndarray:
    """The same map for `cv2.warpAffine`, in whose frame the centre of the first pixel is (0, 0).

    >>> to_pixel_centres(mirror_affine(100)).tolist()  # pixel 0 becomes pixel 99
    [[-1.0, 0.0, 99.0], [0.0, 1.0, 0.0]]
    """
    return compose(affine(shift=(-0.5, -0.5)), compose(matrix, affine(shift=(0.5, 0.5))))


def map_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points `(..., 2)` of `x, y` under the map `(2, 3)`; NaN stays NaN.

    >>> map_points(np.array([[1.0, 2.0]]), affine(scale=(2, 2), shift=(10, 0))).tolist()
    [[12.0, 4.0]]
    """
    return points @ matrix[:, :2].T + matrix[:, 2]


def map_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The axis-aligned boxes `(N, 4)` xyxy around the four corners of each box after the map `(2, 3)`.

    >>> map_boxes(np.array([[10.0, 0.0, 30.0, 20.0]]), mirror_affine(100)).tolist()
    [[70.0, 0.0, 90.0, 20.0]]
    """
    corners = map_points(np.reshape(boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]], (-1, 4, 2)), matrix)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def flip_boxes(boxes: np.ndarray, width: float) -> np.ndarray:
    """Boxes `(N, 4)` xyxy as they lie in the mirrored image, `width` in pixels.

    >>> flip_boxes(np.array([[10.0, 0.0, 30.0, 20.0]]), 100).tolist()
    [[70.0, 0.0, 90.0, 20.0]]
    """
    return np.column_stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]])


def flip_keypoints(keypoints: np.ndarray, width: float, flip_indexes: Sequence[int] | None) -> np.ndarray:
    """Keypoints `(..., K, C)` of one class, `x, y` and anything else, as they are in the mirrored image of this width.

    `flip_indexes`, `(K,)`, are `Skeleton.flip_indexes` of the class: the left ear of the mirrored animal is the right
    ear of the animal. What is beside x and y, such as visibility, goes with its point. Raises ValueError without them:
    a class whose keypoints have no mirror images must not be mirrored; and for another number of keypoints.

    >>> ears = np.array([[10.0, 5.0, 2.0], [30.0, 5.0, 1.0]])  # left and right, seen and hidden
    >>> flip_keypoints(ears, 100, [1, 0]).tolist()
    [[70.0, 5.0, 1.0], [90.0, 5.0, 2.0]]
    """
    if flip_indexes is None:
        raise ValueError("flip_indexes: expected the mirror image of each keypoint, found none: the skeleton has no "
                         "`flip` for this class, which must not be mirrored")
    if len(flip_indexes) != keypoints.shape[-2]:
        raise ValueError(f"flip_indexes: expected {keypoints.shape[-2]}, one a keypoint, found {len(flip_indexes)}")
    flipped = keypoints[..., list(flip_indexes), :]
    flipped[..., 0] = width - flipped[..., 0]
    return flipped


def _zeros_for(overlap: np.ndarray) -> np.ndarray:
    """Zeros to divide into: float32 stays float32, whole numbers become float."""
    return np.zeros(overlap.shape, np.result_type(overlap, np.float16))
