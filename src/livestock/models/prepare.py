"""How a picture is laid on a network's input. The way back is one affine map, the same for boxes and points.

There are three rules, see `base.Resize`; what the picture does not cover is grey:

- "letterbox": the longer side becomes `imgsz`, the picture lies in the middle (YOLOv5);
- "top_left": the longer side becomes `imgsz`, the picture lies in the upper left corner (YOLOX);
- "stretch": both sides become `imgsz`, whatever the picture's shape (D-FINE).
"""

from __future__ import annotations

from typing import NamedTuple, get_args

import cv2
import numpy as np

from ..data.pictures import BILINEAR_DOWN_TO, fitted_size
from ..geometry import affine
from .base import Resize

GREY = 114  # what YOLOv5 pads with


class Placement(NamedTuple):
    """Where a picture lies on a network's input; pairs of x and y in pixels.

    `size` is the scaled picture's, `offset` that of its upper left corner, `canvas` the whole input's size.
    """

    size: tuple[int, int]
    offset: tuple[int, int]
    canvas: tuple[int, int]


def place(width: int, height: int, imgsz: int, stride: int, resize: Resize, *, square: bool = False) -> Placement:
    """Where a picture of `width` x `height` pixels goes, without touching pixels.

    The canvas has sides that are multiples of `stride`: the smallest that hold the scaled picture or, if `square`, both
    `imgsz` rounded up. Raises ValueError for an unknown rule.

    >>> place(640, 480, imgsz=320, stride=64, resize="letterbox")
    Placement(size=(320, 240), offset=(0, 8), canvas=(320, 256))
    >>> place(640, 480, imgsz=320, stride=64, resize="top_left", square=True)
    Placement(size=(320, 240), offset=(0, 0), canvas=(320, 320))
    """
    if resize not in get_args(Resize):
        raise ValueError(f"resize: expected one of {', '.join(get_args(Resize))}, found {resize!r}")
    side = _round_up(imgsz, stride)
    size = (side, side) if resize == "stretch" else fitted_size(width, height, imgsz)
    canvas = (side, side) if square else (_round_up(size[0], stride), _round_up(size[1], stride))
    if resize == "letterbox":
        return Placement(size, ((canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2), canvas)
    return Placement(size, (0, 0), canvas)


def scale_picture(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture `(H, W, 3)` at another width and height, interpolated as `data.pictures.fit` does.

    >>> scale_picture(np.zeros((480, 640, 3), np.uint8), (320, 240)).shape
    (240, 320, 3)
    """
    height, width = picture.shape[:2]
    if size == (width, height):
        return picture
    is_small = max(size) < BILINEAR_DOWN_TO * max(width, height)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if is_small else cv2.INTER_LINEAR)


def prepare(
    picture: np.ndarray, imgsz: int, stride: int, resize: Resize, *, square: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The input `(H', W', 3)` for an RGB picture `(H, W, 3)` uint8, and the map `(2, 3)` from pixels to input pixels.

    Boxes and points of the input go back through `geometry.invert` of the map. Raises ValueError as `place` does.

    >>> canvas, matrix = prepare(np.zeros((480, 640, 3), np.uint8), imgsz=320, stride=64, resize="letterbox")
    >>> canvas.shape, matrix.tolist()
    ((256, 320, 3), [[0.5, 0.0, 0.0], [0.0, 0.5, 8.0]])
    """
    height, width = picture.shape[:2]
    size, (left, top), canvas = place(width, height, imgsz, stride, resize, square=square)
    padded = cv2.copyMakeBorder(
        scale_picture(picture, size), top, canvas[1] - size[1] - top, left, canvas[0] - size[0] - left,
        cv2.BORDER_CONSTANT, value=(GREY, GREY, GREY))
    return padded, affine(scale=(size[0] / width, size[1] / height), shift=(left, top))


def _round_up(number: int, multiple: int) -> int:
    return number + -number % multiple
