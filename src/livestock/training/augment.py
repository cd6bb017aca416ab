"""Augmentation of training images: mosaic, mixup, a random affine map or perspective, colour, mirror images.

Random numbers have the distribution of YOLOv5 7.0 (`load_mosaic`, `mixup`, `random_perspective`, `box_candidates`,
`augment_hsv`), so that its hyper-parameters keep their meaning. A missing hyper-parameter is 0.

Pictures lie as tiles on a canvas, and a random map takes the canvas to the image. So each tile has one map from its
pixels to the image's, the same for pixels, boxes and points (`map_through`). Without rotation a tile stays a rectangle:
what is seen of it is resized into the image, from whole pixels to whole pixels, three times as fast as a warp. Its map
is made to fit, which moves it by less than a pixel, and its boxes go through that very map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from ..geometry import box_area, clip_xyxy, flip_boxes, flip_keypoints
from ..models.base import Resize
from ..models.prepare import GREY, place

MARGIN = 2  # px around what a warp reads, for its interpolation
LEAST_SIDE, LEAST_AREA, MOST_ASPECT = 2, 0.1, 100  # of a box to be kept: px, share that is still seen, ratio of sides
MIXUP_SHAPE = 32.0  # both parameters of the beta distribution
_rooms: dict[str, np.ndarray] = {}


class Sample(NamedTuple):
    """A picture `(H, W, 3)` uint8 RGB, and the boxes `(n, 4)` xyxy px and class ids `(n,)` of what is in it.

    `points` `(n, K, 3)`, x, y and visibility, are the boxes' keypoints where a model is to find any.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    class_ids: np.ndarray
    points: np.ndarray | None = None


class Tile(NamedTuple):
    """A picture whose upper left corner lies at `left`, `top` of a canvas; what is beyond the canvas is cut off."""

    sample: Sample
    left: int
    top: int


class Labels(NamedTuple):
    """Boxes `(n, 4)` xyxy px of an image, their class ids `(n,)`, and their keypoints `(n, K, 3)` if there are any."""

    boxes: np.ndarray
    class_ids: np.ndarray
    points: np.ndarray | None = None


def join_labels(parts: Sequence[Labels]) -> Labels:
    """The labels of several pictures in one image. `parts` has one at least."""
    points = [part.points for part in parts if part.points is not None]
    return Labels(np.concatenate([part.boxes for part in parts]), np.concatenate([part.class_ids for part in parts]),
                  np.concatenate(points) if points else None)


@dataclass(frozen=True)
class Augmentation:
    """Makes square training images, `imgsz` rounded up to a multiple of `stride`, from hyper-parameters `hyp`.

    Pictures with keypoints are mirrored with the help of `flips`, the index of each point's mirror image. Raises
    ValueError for hyper-parameters that are out of range or not supported.
    """

    imgsz: int
    stride: int
    resize: Resize
    hyp: Mapping[str, float]
    flips: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in ("mosaic", "mixup", "flipud", "fliplr"):
            if not 0 <= self.hyp.get(name, 0) <= 1:
                raise ValueError(f"{name}: expected a probability from 0 to 1, found {self.hyp[name]}")
        if not 0 <= self.hyp.get("scale", 0) < 1:
            raise ValueError(f"scale: expected at least 0 and less than 1, found {self.hyp['scale']}")
        if self.hyp.get("copy_paste", 0):
            raise ValueError("copy_paste: expected 0, since it needs outlines of objects, which are not read; "
                             f"found {self.hyp['copy_paste']}")

    @property
    def side(self) -> int:
        """Width and height of the images in pixels."""
        return place(1, 1, self.imgsz, self.stride, self.resize, square=True).canvas[0]

    def make_image(self, own: int, companions: Callable[[int], Sequence[int]], read: Callable[[int], Sample],
                   rng: np.random.Generator, planes: np.ndarray) -> Labels:
        """Writes an image into `planes`, `(3, side, side)` uint8 RGB, and returns its boxes.

        `own` is the picture that it is for, `companions` draws others for a mosaic, so many as it is told, and `read`
        gives the picture of an index, already scaled as `prepare` does.
        """
        hyp, side, image = self.hyp, self.side, _room("image", self.side, self.side)
        if rng.random() < hyp.get("mosaic", 0):
            labels = self._make_mosaic([own, *companions(3)], read, rng, image)
            if rng.random() < hyp.get("mixup", 0):
                other, share = _room("mixup", side, side), rng.beta(MIXUP_SHAPE, MIXUP_SHAPE)
                labels_too = self._make_mosaic(companions(4), read, rng, other)
                cv2.addWeighted(image, share, other, 1 - share, 0, dst=image)
                labels = join_labels([labels, labels_too])
        else:
            sample = read(own)
            height, width = sample.pixels.shape[:2]
            left, top = place(width, height, self.imgsz, self.stride, self.resize, square=True).offset
            labels = render([Tile(sample, left, top)], side, *draw_warp(hyp, rng, side, side), image)
        change_colours(image, 1 + rng.uniform(-1, 1, 3) * [hyp.get(name, 0) for name in ("hsv_h", "hsv_s", "hsv_v")])
        flips = rng.random(2) < [hyp.get("fliplr", 0), hyp.get("flipud", 0)]
        cv2.split(_mirror(image, *flips), list(planes))
        return _mirror_labels(labels, side, self.flips, *flips)

    def _make_mosaic(self, indices: Sequence[int], read: Callable[[int], Sample], rng: np.random.Generator,
                     image: np.ndarray) -> Labels:
        tiles = lay_mosaic([read(int(index)) for index in rng.permutation(indices)], self.side, rng)
        return render(tiles, 2 * self.side, *draw_warp(self.hyp, rng, 2 * self.side, self.side), image)


def lay_mosaic(samples: Sequence[Sample], side: int, rng: np.random.Generator) -> list[Tile]:
    """Four pictures, each with a corner at the same random point of a canvas of twice the side."""
    x, y = (int(number) for number in rng.uniform(side / 2, side * 3 / 2, 2))
    sizes = [sample.pixels.shape[:2] for sample in samples]
    return [Tile(sample, x if number % 2 else x - width, y if number > 1 else y - height)
            for number, (sample, (height, width)) in enumerate(zip(samples, sizes, strict=True))]


def draw_warp(hyp: Mapping[str, float], rng: np.random.Generator, canvas: int, side: int) -> tuple[np.ndarray, float]:
    """A random map `(3, 3)` from a square canvas to a square image, homogeneous, and the scale that is part of it."""

    def draw(name: str) -> np.ndarray:
        return rng.uniform(-1, 1, 2) * hyp.get(name, 0)

    scale, angle = 1 + draw("scale")[0], math.radians(draw("degrees")[0])
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    shear = np.tan(np.radians(draw("shear")))
    turned, perspective = np.eye(3), np.eye(3)
    turned[:2, :2] = np.array([[1, shear[0]], [shear[1], 1]]) @ [[cos, sin], [-sin, cos]]
    perspective[2, :2] = draw("perspective")
    middle = (0.5 + draw("translate")) * side
    return _shift(*middle) @ turned @ perspective @ _shift(-canvas / 2, -canvas / 2), scale


def render(tiles: Sequence[Tile], canvas: int, matrix: np.ndarray, scale: float, image: np.ndarray) -> Labels:
    """Draws what a map `(3, 3)` shows of a square canvas into `image`, `(side, side, 3)`; returns the boxes.

    `scale` is the map's, by which a box should have grown.
    """
    if matrix[[0, 1, 2, 2], [1, 0, 0, 1]].any():
        _warp_canvas(tiles, canvas, matrix, image)
        maps: list[np.ndarray | None] = [matrix @ _shift(tile.left, tile.top) for tile in tiles]
    else:
        image[:] = GREY
        maps = [_resize_tile(tile, canvas, matrix, image) for tile in tiles]
    labels = [_map_labels(tile, canvas, own, scale, len(image))
              for tile, own in zip(tiles, maps, strict=True) if own is not None]
    return join_labels([_no_labels(tiles), *labels])


def map_through(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points `(..., 2)` of `x, y`, corners of boxes or keypoints, under a homogeneous map `(3, 3)`.

    >>> map_through(np.array([[1.0, 2.0]]), np.diag([3.0, 3.0, 1.0])).tolist()
    [[3.0, 6.0]]
    """
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped[..., :2] / mapped[..., 2:]


def is_kept(before: np.ndarray, after: np.ndarray, scale: float) -> np.ndarray:
    """Which boxes `(n, 4)` still show enough of their objects, `(n,)`: of the canvas before, of the image after.

    >>> before, after = np.array([[0.0, 0, 10, 10]] * 3), np.array([[0.0, 0, 5, 5], [0, 0, 2, 9], [0, 0, 3, 3]])
    >>> is_kept(before, after, 1.0).tolist()  # the second is too thin, of the third less than a tenth is left
    [True, False, False]
    """
    width, height = after[:, 2] - after[:, 0], after[:, 3] - after[:, 1]
    short, long = np.minimum(width, height), np.maximum(width, height)
    is_seen = box_area(after) > LEAST_AREA * scale**2 * box_area(before)
    return (short > LEAST_SIDE) & (long < MOST_ASPECT * short) & is_seen


def change_colours(image: np.ndarray, gains: np.ndarray) -> None:
    """Multiplies hue, saturation and value of an RGB image `(H, W, 3)` uint8 by `(3,)` factors, in place."""
    if (gains == 1).all():
        return
    table = np.arange(256)[:, None] * gains
    table[:, 0] %= 180  # half degrees
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV, dst=_room("hsv", *image.shape[:2]))
    table = table.clip(0, 255).astype(np.uint8)
    cv2.merge([cv2.LUT(plane, table[:, axis], dst=plane) for axis, plane in enumerate(cv2.split(hsv))], dst=hsv)
    cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=image)


def _mirror(image: np.ndarray, left_right: bool, up_down: bool) -> np.ndarray:
    if not left_right and not up_down:
        return image
    code = -1 if left_right and up_down else int(left_right)  # OpenCV's number of the axes
    return cv2.flip(image, code, dst=_room("mirrored", *image.shape[:2]))


def _mirror_labels(labels: Labels, side: int, flips: Sequence[int] | None, left_right: bool, up_down: bool) -> Labels:
    boxes, points = labels.boxes, labels.points
    if left_right:
        boxes = flip_boxes(boxes, side)
        points = points if points is None else mirror_points(points, side, flips)
    if up_down:
        boxes = flip_boxes(boxes[:, [1, 0, 3, 2]], side)[:, [1, 0, 3, 2]]
        points = points if points is None else mirror_points(points[..., [1, 0, 2]], side, flips)[..., [1, 0, 2]]
    return Labels(boxes, labels.class_ids, points)


def mirror_points(points: np.ndarray, side: int, flips: Sequence[int] | None) -> np.ndarray:
    """Points `(..., K, 3)` in the mirrored image; one that is not labelled is nowhere, not at the edge."""
    mirrored = flip_keypoints(points, side, flips)
    return np.where(mirrored[..., 2:] > 0, mirrored, 0.0)


def place_points(points: np.ndarray, matrix: np.ndarray, side: float) -> np.ndarray:
    """Points `(..., K, 3)` under a homogeneous map `(3, 3)`; one beyond a square of this side is not labelled any more.

    >>> place_points(np.array([[1.0, 2.0, 2.0], [9.0, 2.0, 1.0]]), np.diag([3.0, 3.0, 1.0]), 20).tolist()
    [[3.0, 6.0, 2.0], [0.0, 0.0, 0.0]]
    """
    places = map_through(points[..., :2], matrix)
    is_there = (points[..., 2] > 0) & (places >= 0).all(-1) & (places < side).all(-1)
    return np.where(is_there[..., None], np.concatenate([places, points[..., 2:]], axis=-1), 0.0)


def _map_labels(tile: Tile, canvas: int, matrix: np.ndarray, scale: float, side: int) -> Labels:
    """A tile's boxes in the image, those that are kept; `matrix` `(3, 3)` maps the tile's pixels to the image's."""
    corner = np.tile([tile.left, tile.top], 2)
    before = clip_xyxy(tile.sample.boxes + corner, canvas, canvas) - corner
    corners = map_through(before[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2), matrix)
    after = clip_xyxy(np.hstack([corners.min(axis=1), corners.max(axis=1)]), side, side)
    kept, points = is_kept(before, after, scale), tile.sample.points
    if points is not None:  # those beyond the canvas are cut off with the picture
        on_canvas = place_points(points[kept], _shift(tile.left, tile.top), canvas)
        points = place_points(on_canvas, matrix @ _shift(-tile.left, -tile.top), side)
    return Labels(after[kept], tile.sample.class_ids[kept], points)


def _no_labels(tiles: Sequence[Tile]) -> Labels:
    points = tiles[0].sample.points
    return Labels(np.zeros((0, 4)), np.zeros(0, np.int64), None if points is None else points[:0])


def _resize_tile(tile: Tile, canvas: int, matrix: np.ndarray, image: np.ndarray) -> np.ndarray | None:
    """Draws a tile under a map without rotation; returns the map `(3, 3)` that it got, None if nothing is seen."""
    pixels = tile.sample.pixels
    spans = [_find_span(start, size, canvas, matrix[axis, axis], matrix[axis, 2], len(image))
             for axis, (start, size) in enumerate([(tile.left, pixels.shape[1]), (tile.top, pixels.shape[0])])]
    if None in spans:
        return None
    (x, x_end, left, right), (y, y_end, top, bottom) = (span for span in spans if span)
    cv2.resize(pixels[y:y_end, x:x_end], (right - left, bottom - top), dst=image[top:bottom, left:right])
    x_scale, y_scale = (right - left) / (x_end - x), (bottom - top) / (y_end - y)
    return np.array([[x_scale, 0, left - x * x_scale], [0, y_scale, top - y * y_scale], [0, 0, 1]])


def _find_span(start: int, size: int, canvas: int, scale: float, shift: float, side: int
               ) -> tuple[int, int, int, int] | None:
    """On one axis: first and end of a tile's pixels that are seen, and of the image's that show them, or None.

    The tile begins at `start` of the canvas, of which `place` comes to `place * scale + shift` of the image.
    """
    begin, end = max(-start, 0), min(canvas - start, size)
    low, high = (scale * (start + place) + shift for place in (begin, end))
    first, last = round(max(low, 0)), round(min(high, side))
    if begin >= end or first >= last:
        return None
    if low < 0:  # the image's edge cuts it
        begin = min(round(-shift / scale) - start, end - 1)
    if high > side:
        end = max(round((side - shift) / scale) - start, begin + 1)
    return begin, end, first, last


def _warp_canvas(tiles: Sequence[Tile], canvas: int, matrix: np.ndarray, image: np.ndarray) -> None:
    """Draws a canvas under any map `(3, 3)`; only the part of the canvas that is seen is put together."""
    left, top, right, bottom = _find_seen(canvas, matrix, len(image))
    pixels = _room("canvas", bottom - top, right - left)
    pixels[:] = GREY
    for sample, x, y in tiles:
        height, width = sample.pixels.shape[:2]
        x_min, x_max, y_min, y_max = max(x, left), min(x + width, right), max(y, top), min(y + height, bottom)
        if x_min < x_max and y_min < y_max:
            pixels[y_min - top : y_max - top, x_min - left : x_max - left] = sample.pixels[
                y_min - y : y_max - y, x_min - x : x_max - x]
    moved = _shift(-0.5, -0.5) @ matrix @ _shift(left + 0.5, top + 0.5)  # OpenCV counts from the first pixel's centre
    size = image.shape[1::-1]
    if matrix[2, :2].any():
        cv2.warpPerspective(pixels, moved, size, dst=image, borderValue=(GREY, GREY, GREY))
    else:
        cv2.warpAffine(pixels, moved[:2], size, dst=image, borderValue=(GREY, GREY, GREY))


def _find_seen(canvas: int, matrix: np.ndarray, side: int) -> tuple[int, int, int, int]:
    """The part of the canvas, `left, top, right, bottom`, that an image of this side shows."""
    if matrix[2, :2].any():  # a horizon may lie between the corners
        return 0, 0, canvas, canvas
    corners = map_through(np.array([[0, 0], [side, 0], [0, side], [side, side]]), np.linalg.inv(matrix))
    left, top = (np.floor(corners.min(axis=0)) - MARGIN).clip(0, canvas - 1).astype(int)
    right, bottom = (np.ceil(corners.max(axis=0)) + MARGIN).clip([left + 1, top + 1], canvas).astype(int)
    return left, top, right, bottom


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def _room(name: str, height: int, width: int) -> np.ndarray:
    """`(height, width, 3)` bytes of memory that is used again for each image: new memory would come page by page."""
    room = _rooms.get(name)
    if room is None or room.shape[0] < height or room.shape[1] < width:
        before = (0, 0) if room is None else room.shape
        room = _rooms[name] = np.empty((max(height, before[0]), max(width, before[1]), 3), np.uint8)
    return room[:height, :width]
