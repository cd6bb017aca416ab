"""Training images for a GPU that waits for two cores: yolov5's own augmentation, without the work that nobody sees.

yolov5 decodes four pictures a mosaic, each of which it decoded a moment ago for another one, pastes them on a canvas of
four times the training size, warps that, cuts a quarter out, and copies the result three times on its way to the
training process. Its functions run here as they are, on stand-ins for what they call:

- the canvas only notes which picture goes where; pixels are copied where the warp reads some;
- decoded pictures stay in memory, up to a budget. Where all of them fit, nothing else changes; where they do not, the
  workers draw the three companions of a picture from those in memory, each as often as any other in the long run;
- a batch is written once, into the memory that the training process reads.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from torch.utils.data import default_collate, get_worker_info

from .compat import overlay, with_globals

CACHE_BYTES = 2 << 30  # of decoded pictures, in all workers together
MARGIN = 2  # px around what a warp reads, for its interpolation
SPARE, GRID = 64, 1 / 32  # px
_rooms: dict[str, np.ndarray] = {}


class Canvas:
    """In place of the array `(height, width, 3)` that a mosaic is pasted on."""

    def __init__(self, shape: tuple[int, int, int], grey: int, dtype: type) -> None:
        self.shape, self.grey, self.dtype = shape, grey, dtype
        self.tiles: list[tuple[slice, slice, np.ndarray]] = []

    def __setitem__(self, where: tuple[slice, slice], tile: np.ndarray) -> None:
        self.tiles.append((*where, tile))

    def cut(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """The pixels of rows `top` to `bottom` and columns `left` to `right`, the ends not included."""
        pixels: np.ndarray = np.full((bottom - top, right - left, self.shape[2]), self.grey, self.dtype)
        for rows, columns, tile in self.tiles:
            y_min, y_max = max(rows.start, top), min(rows.stop, bottom)
            x_min, x_max = max(columns.start, left), min(columns.stop, right)
            if y_min < y_max and x_min < x_max:
                pixels[y_min - top : y_max - top, x_min - left : x_max - left] = tile[
                    y_min - rows.start : y_max - rows.start, x_min - columns.start : x_max - columns.start]
        return pixels


def warp(warp_pixels: Callable[..., np.ndarray], image: Any, matrix: np.ndarray, dsize: tuple[int, int],
         **options: Any) -> np.ndarray:
    """`cv2.warpAffine` or `cv2.warpPerspective` of an image or a canvas; only the visible part of a canvas is made.

    `matrix` maps source to result, `(2, 3)` or `(3, 3)`; `dsize` is width and height of the result.
    """
    if not isinstance(image, Canvas):
        return warp_pixels(image, matrix, dsize=dsize, **options)
    if len(matrix) == 2 and matrix[0, 1] == matrix[1, 0] == 0:
        return _scale_tiles(image, matrix, dsize)
    left, top, right, bottom = _seen(image, matrix, dsize)
    moved = matrix @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1]])
    return warp_pixels(image.cut(top, bottom, left, right), moved, dsize=dsize, **options)


def _scale_tiles(canvas: Canvas, matrix: np.ndarray, dsize: tuple[int, int]) -> np.ndarray:
    """Without rotation a tile stays a rectangle: each is scaled by itself, and what no tile covers costs nothing.

    A pixel belongs to the tile that its centre comes from; over the last half pixel the tile's edge goes on.
    """
    result: np.ndarray = np.full((dsize[1], dsize[0], canvas.shape[2]), canvas.grey, canvas.dtype)
    for rows, columns, tile in canvas.tiles:
        edges = [np.ceil(matrix[axis, axis] * (np.array([part.start, part.stop]) - 0.5) + matrix[axis, 2])
                 for axis, part in enumerate((columns, rows))]
        (x_min, x_max), (y_min, y_max) = (edge.clip(0, n).astype(int) for edge, n in zip(edges, dsize, strict=True))
        if x_min < x_max and y_min < y_max:
            own = matrix.copy()
            own[:, 2] += matrix[:, :2] @ [columns.start, rows.start] - [x_min, y_min]
            _scale(tile, own, result[y_min:y_max, x_min:x_max])
    return result


def _scale(tile: np.ndarray, matrix: np.ndarray, result: np.ndarray) -> None:
    """`cv2.warpAffine` into `result`, the tile's edges going on, by `cv2.resize`, three times as fast, where it can."""
    height, width = result.shape[:2]
    part = _resizable(tile, matrix, height, width)
    if part is None:
        cv2.warpAffine(tile, matrix, (width, height), dst=result, borderMode=cv2.BORDER_REPLICATE)
        return
    pixels, size, top, left = part
    scaled = cv2.resize(pixels, None, dst=_room("scaled", *size), fx=matrix[0, 0], fy=matrix[1, 1])
    result[:] = scaled[top : top + height, left : left + width]


def _resizable(tile: np.ndarray, matrix: np.ndarray, height: int, width: int
               ) -> tuple[np.ndarray, tuple[int, int], int, int] | None:
    """The part of a tile to resize, with its edges going on, its size afterwards, and row and column to begin with.

    `resize` has no offset: it begins in the middle between two pixels of the source. So it begins up to `SPARE` pixels
    early, where that lies on the grid of `warpAffine`, which counts in 1/32 px itself. None where there is no such
    place, or where the size stays the same by rounding, for then `resize` copies.
    """
    begins = [begin for axis in (0, 1) if (begin := _begin(matrix[axis, axis], matrix[axis, 2]))]
    if len(begins) < 2:
        return None
    (x_spare, left), (y_spare, top) = begins
    right, bottom = (start + 2 + math.ceil((spare + n) / matrix[axis, axis]) for axis, start, spare, n in (
        (0, left, x_spare, width), (1, top, y_spare, height)))
    size = (round((bottom - top) * matrix[1, 1]), round((right - left) * matrix[0, 0]))
    if size == (bottom - top, right - left):
        return None
    part = tile[max(top, 0) : bottom, max(left, 0) : right]
    above, below, before, behind = (max(n, 0) for n in (-top, bottom - tile.shape[0], -left, right - tile.shape[1]))
    if above or below or before or behind:
        wider = _room("border", bottom - top, right - left)
        part = cv2.copyMakeBorder(part, above, below, before, behind, cv2.BORDER_REPLICATE, dst=wider)
    return part, size, y_spare, x_spare


def _room(name: str, height: int, width: int) -> np.ndarray:
    """`(height, width, 3)` bytes of memory that is used again each time: new memory would come page by page."""
    room = _rooms.get(name)
    if room is None or room.shape[0] < height or room.shape[1] < width:
        before = (0, 0) if room is None else room.shape
        room = _rooms[name] = np.empty((max(height, before[0]), max(width, before[1]), 3), np.uint8)
    return room[:height, :width]


def _to_hsv_and_back(image: np.ndarray, code: int, dst: np.ndarray | None = None) -> np.ndarray:
    """`cv2.cvtColor`, for yolov5's `augment_hsv`: the first result is gone before the next picture."""
    return cv2.cvtColor(image, code, dst=_room("hsv", *image.shape[:2]) if dst is None else dst)


def _merge(planes: Sequence[np.ndarray]) -> np.ndarray:
    """`cv2.merge`, into what was split."""
    return cv2.merge(planes, dst=_room("hsv", *planes[0].shape))


def _look_up(plane: np.ndarray, table: np.ndarray) -> np.ndarray:
    """`cv2.LUT`, in place."""
    return cv2.LUT(plane, table, dst=plane)


def _begin(scale: float, shift: float) -> tuple[int, int] | None:
    """How many pixels early a resize begins, and at which pixel of the source, to give `x * scale + shift`.

    Early enough that the first pixel to be seen has its source behind that one: before it there is nothing to mix with.
    """
    early = np.arange(max(math.ceil((scale - 1) / 2), 0), SPARE)
    source = 0.5 - (early + shift + 0.5) / scale
    found = np.flatnonzero(np.abs(source - np.round(source)) <= GRID)
    return (int(early[found[0]]), round(source[found[0]])) if len(found) else None


def _seen(canvas: Canvas, matrix: np.ndarray, dsize: tuple[int, int]) -> tuple[int, int, int, int]:
    """The columns and rows of the canvas, `left, top, right, bottom`, that the result shows."""
    height, width = canvas.shape[:2]
    if len(matrix) == 3:  # a horizon may lie between the corners
        return 0, 0, width, height
    corners = np.array([[0, dsize[0], 0, dsize[0]], [0, 0, dsize[1], dsize[1]]]) - matrix[:, 2:]
    sources = np.linalg.inv(matrix[:, :2]) @ corners
    low, high = np.floor(sources.min(axis=1)) - MARGIN, np.ceil(sources.max(axis=1)) + MARGIN
    left, top = low.clip(0, [width - 1, height - 1]).astype(int)
    right, bottom = high.clip([left + 1, top + 1], [width, height]).astype(int)
    return left, top, right, bottom


class Decoded:
    """Pictures in memory by index, with their sizes, as `load_image` of yolov5 gives them; the oldest go first."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes, self.held, self.is_full = n_bytes, 0, False
        self.pictures: dict[int, tuple[np.ndarray, Any, Any]] = {}

    def get(self, index: int, load: Callable[[int], tuple[np.ndarray, Any, Any]]) -> tuple[np.ndarray, Any, Any]:
        """The picture of this index, decoded with `load` if it is not held."""
        if index not in self.pictures:
            picture = load(index)
            self.held += picture[0].nbytes
            while self.held > self.n_bytes and self.pictures:
                self.held -= self.pictures.pop(next(iter(self.pictures)))[0].nbytes
                self.is_full = True
            self.pictures[index] = picture
        return self.pictures[index]

    def choose(self, indices: Sequence[int], k: int) -> list[int]:
        """`k` of `indices`, drawn with replacement; once not all fit, of those that are held.

        Without workers always of `indices`: such a training goes on, resumed, with the very same images.
        """
        of_held = self.is_full and get_worker_info() is not None
        return random.choices(list(self.pictures) if of_held else indices, k=k)  # noqa: S311 - augmentation


def cache_bytes() -> int:
    """What this process may hold: its share of `CACHE_BYTES`, or of an eighth of the memory if that is less."""
    worker, n_gpus = get_worker_info(), int(os.environ.get("WORLD_SIZE", "1"))
    n_processes = n_gpus * (worker.num_workers if worker else 1)
    return min(CACHE_BYTES, psutil.virtual_memory().total // 8) // n_processes


def to_planes(picture: np.ndarray) -> np.ndarray:
    """`np.ascontiguousarray` of a `(3, H, W)` view of a `(H, W, 3)` picture, its channels turned around.

    >>> picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    >>> to_planes(picture.transpose(2, 0, 1)[::-1])[0].tolist()  # the last channel comes first
    [[2, 5], [8, 11]]
    """
    pixels = picture[::-1].transpose(1, 2, 0)
    if not pixels.flags.c_contiguous:
        return np.ascontiguousarray(picture)
    planes = np.empty(picture.shape, picture.dtype)
    cv2.split(pixels, list(planes[::-1]))
    return planes


def speed_up() -> None:
    """Puts the stand-ins into yolov5's training set, in this process and the workers that are forked from it.

    Workers that are spawned, not forked, as on macOS, run yolov5's own: the same, but slower.
    """
    from yolov5.utils import augmentations, dataloaders

    images = dataloaders.LoadImagesAndLabels
    load_image, load_mosaic = images.load_image, images.load_mosaic
    warps = {name: partial(warp, getattr(cv2, name)) for name in ("warpAffine", "warpPerspective")}
    random_perspective = with_globals(augmentations.random_perspective, cv2=overlay(cv2, **warps))

    def load_image_once(self: Any, index: int) -> tuple[np.ndarray, Any, Any]:
        return _decoded(self).get(index, partial(load_image, self)) if self.augment else load_image(self, index)

    def load_mosaic_lazily(self: Any, index: int) -> tuple[np.ndarray, np.ndarray]:
        return with_globals(
            load_mosaic, np=overlay(np, full=Canvas), random_perspective=random_perspective,
            random=overlay(random, choices=_decoded(self).choose),
        )(self, index)

    flips = {"fliplr": partial(cv2.flip, flipCode=1), "flipud": partial(cv2.flip, flipCode=0)}
    images.load_image, images.load_mosaic = load_image_once, load_mosaic_lazily
    augment_hsv = with_globals(augmentations.augment_hsv, cv2=overlay(cv2, cvtColor=_to_hsv_and_back, merge=_merge,
                                                                      LUT=_look_up))
    images.__getitem__ = with_globals(
        images.__getitem__, np=overlay(np, ascontiguousarray=to_planes, **flips), random_perspective=random_perspective,
        augment_hsv=augment_hsv)
    images.collate_fn = staticmethod(with_globals(images.collate_fn, torch=overlay(torch, stack=_stack)))


def _stack(pictures: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    """A batch, in a worker straight into memory that the training process shares; `dim` is 0."""
    return default_collate(list(pictures))


def _decoded(dataset: Any) -> Decoded:
    if "decoded" not in vars(dataset):  # in each worker its own: before the workers start, nothing is loaded
        dataset.decoded = Decoded(cache_bytes())
    return dataset.decoded
