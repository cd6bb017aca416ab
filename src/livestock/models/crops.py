"""How one object of a picture comes onto a network's input: a square cut out by an affine map, and the way back."""

from __future__ import annotations

from typing import get_args

import cv2
import numpy as np

from ..geometry import affine, compose, invert, map_boxes, to_pixel_centres
from .base import Crop
from .prepare import GREY

PADDING = 1.25  # of "fit": the side of the square, in longer sides of the box (Xiao et al., ECCV 2018)
REACH = 2  # pixels of the picture beyond what is seen, for the interpolation
SHRUNK = 0.5  # a picture that a map makes smaller than this is averaged first: a warp reads four pixels and no more


def map_crop(box: np.ndarray, size: tuple[float, float], side: int, crop: Crop) -> np.ndarray:
    """The map `(2, 3)` from pixels of a picture to those of a square input of this `side`.

    `box` `(4,)` is the object's, xyxy; `size` the picture's width and height. "whole" stretches the picture onto the
    input and "stretch" the box; "fit" keeps the shape of things: a square around the middle of the box, `PADDING` times
    its longer side. `geometry.invert` gives the way back. Raises ValueError for an unknown crop, or a box without area.

    >>> map_crop(np.array([10.0, 20, 50, 40]), (640, 480), side=100, crop="fit").tolist()  # 50 px become 100
    [[2.0, 0.0, -10.0], [0.0, 2.0, -10.0]]
    """
    if crop not in get_args(Crop):
        raise ValueError(f"crop: expected one of {', '.join(get_args(Crop))}, found {crop!r}")
    if crop == "whole":
        return affine(scale=(side / size[0], side / size[1]))
    width, height = box[2] - box[0], box[3] - box[1]
    if not (width > 0 and height > 0):
        raise ValueError(f"box: expected x_min < x_max and y_min < y_max, found {box.tolist()}")
    if crop == "stretch":
        return compose(affine(scale=(side / width, side / height)), affine(shift=(-box[0], -box[1])))
    scale = side / (PADDING * max(width, height))
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return affine(scale=(scale, scale), shift=(side / 2 - scale * middle[0], side / 2 - scale * middle[1]))


def cut_out(picture: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """What a map `(2, 3)` shows of a picture `(H, W, 3)` uint8, `(side, side, 3)`; grey beyond the picture's edge."""
    corners, size = map_boxes(np.array([[0.0, 0, side, side]]), invert(matrix))[0], np.array(picture.shape[1::-1])
    left, top = np.floor(corners[:2] - REACH).clip(0, size - 1).astype(int)
    right, bottom = np.ceil(corners[2:] + REACH).clip([left + 1, top + 1], size).astype(int)
    picture, matrix = picture[top:bottom, left:right], compose(matrix, affine(shift=(left, top)))  # what is seen alone
    scales = np.hypot(*matrix[:, :2])  # of each axis: "whole" may shrink one and not the other
    if scales.min() < SHRUNK:
        height, width = picture.shape[:2]
        small = max(round(width * min(scales[0], 1)), 1), max(round(height * min(scales[1], 1)), 1)
        picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        matrix = compose(matrix, affine(scale=(width / small[0], height / small[1])))
    return cv2.warpAffine(picture, to_pixel_centres(matrix), (side, side), flags=cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_CONSTANT, borderValue=(GREY, GREY, GREY))
