"""Batches of training crops: each object cut out of its picture, turned, scaled, shifted, mirrored by pairs of points.

As in `batches`, a batch is a function of seed, epoch and number alone, and what is decoded stays in memory: of each
object the part of its picture that any crop of it can show, at about the size of the input.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import psutil
import torch

from ..data.archives import read_image
from ..data.pose_set import TrainingObjects
from ..exceptions import BadData
from ..geometry import affine, compose, flip_boxes, invert, map_boxes
from ..models.base import Batch, Crop
from ..models.crops import cut_out, map_crop
from .augment import change_colours, mirror_points, place_points
from .batches import CACHE_BYTES, DRAWS, Decoded, Loader, Order, Packed, WholeBatches, make_shared
from .settings import Place, TrainConfig

REACH = 1.6  # what is kept around an object, in sides of its crop: a scale of 0.5 and a turn show some more as grey
KEPT_SIDE = 1.25  # pixels of the crop's side that are kept, in sides of the input
HALF_BODY_LEAST = 8  # labelled points of an object of which half may be left out (HRNet's own training)
OF_BOXES = ("mosaic", "mixup", "copy_paste", "shear", "perspective", "flipud")  # augmentation that only boxes have
HALF_BODY_PADDING = 1.5  # of the box around half of the points


class Region(NamedTuple):
    """The pixels around an object `(H, W, 3)` uint8 RGB, and the map `(2, 3)` from its picture to them."""

    pixels: np.ndarray
    matrix: np.ndarray


@dataclass(frozen=True)
class CropRule:
    """How objects become training images, `side` pixels a side, by hyper-parameters; a missing one is 0.

    `degrees`: turned by up to so many. `scale`: seen larger or smaller by up to this share. `translate`: moved by up to
    this share of the side. `fliplr`: the chance to be mirrored, for objects whose points all have a mirror image.
    `half_body`: the chance that only the upper or the lower points are shown and labelled, where at least
    `HALF_BODY_LEAST` are. `hsv_h`, `hsv_s`, `hsv_v` as for boxes. Raises ValueError for values out of range, for what
    boxes alone have, for a mirror that the skeleton lacks, and for half a body without parts or without a box.
    """

    side: int
    crop: Crop
    hyp: Mapping[str, float]
    flips: tuple[int, ...] | None
    parts: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in OF_BOXES:
            if self.hyp.get(name, 0):
                raise ValueError(f"{name}: expected 0, since it is there for boxes and not for keypoints; found "
                                 f"{self.hyp[name]}")
        for name in ("fliplr", "half_body"):
            if not 0 <= self.hyp.get(name, 0) <= 1:
                raise ValueError(f"{name}: expected a probability from 0 to 1, found {self.hyp[name]}")
        if not 0 <= self.hyp.get("scale", 0) < 1:
            raise ValueError(f"scale: expected at least 0 and less than 1, found {self.hyp['scale']}")
        if self.hyp.get("fliplr", 0) and self.flips is None:
            raise ValueError("fliplr: expected 0, since the skeleton has no `flip` for its keypoints: a mirrored "
                             f"object would have them on the wrong side; found {self.hyp['fliplr']}")
        if self.hyp.get("half_body", 0) and self.crop == "whole":
            raise ValueError("half_body: expected 0 where whole pictures are seen, since there is no box to cut out; "
                             f"found {self.hyp['half_body']}")
        if self.hyp.get("half_body", 0) and not all(self.parts):
            raise ValueError("half_body: expected 0, or a `part`, upper or lower, of every keypoint in the skeleton; "
                             f"found {self.hyp['half_body']} and {self.parts.count('')} keypoints without one")

    def draw(self, box: np.ndarray, size: tuple[float, float], points: np.ndarray, rng: np.random.Generator
             ) -> tuple[np.ndarray, bool, np.ndarray]:
        """A random map `(2, 3)` from a picture to the input, whether it mirrors, and the points `(K, 3)` that stay."""
        if rng.random() < self.hyp.get("half_body", 0):
            box, points = self._halve(box, points, rng)
        side, hyp = self.side, self.hyp
        scale = 1 + rng.uniform(-1, 1) * hyp.get("scale", 0)
        angle = math.radians(rng.uniform(-1, 1) * hyp.get("degrees", 0))
        shift = side / 2 + rng.uniform(-1, 1, 2) * hyp.get("translate", 0) * side
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        turn = np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])
        matrix = compose(compose(turn, affine(shift=(-side / 2, -side / 2))), map_crop(box, size, side, self.crop))
        return matrix, bool(rng.random() < hyp.get("fliplr", 0)), points

    def _halve(self, box: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The box around the upper or the lower points, and those alone; as they are where there are too few."""
        labelled = points[:, 2] > 0
        part = "upper" if rng.random() < 0.5 else "lower"
        chosen = labelled & (np.array(self.parts) == part)
        if labelled.sum() < HALF_BODY_LEAST or chosen.sum() < 3:
            return box, points
        low, high = points[chosen, :2].min(0), points[chosen, :2].max(0)
        half = np.maximum(high - low, 1) / 2 * HALF_BODY_PADDING
        middle = (low + high) / 2
        return np.concatenate([middle - half, middle + half]), np.where(chosen[:, None], points, 0)


class CropBatches(WholeBatches):
    """The data set whose item of (epoch, number) is a whole batch; `n_bytes` of regions each worker may hold."""

    def __init__(self, objects: TrainingObjects, order: Order, rule: CropRule, n_bytes: int) -> None:
        self.objects, self.order, self.rule = objects, order, rule
        self.decoded: Decoded[Region] = Decoded(n_bytes)  # empty until the workers are forked: then each has its own

    def make_batch(self, epoch: int, number: int) -> Packed:
        """Augmented crops of one object each, with its box and keypoints in pixels of the crop."""
        own = self.order.find_batch(epoch, number)
        images = make_shared(len(own), 3, self.rule.side, self.rule.side)
        found = []
        for position, index in enumerate(own.tolist()):
            rng = np.random.default_rng((DRAWS, self.order.seed, epoch, number, position, self.order.rank))
            region = self.decoded.get(index, self._read, is_own=True)
            found.append(make_crop(self.objects, index, region, self.rule, rng, images[position].numpy()))
        boxes, points = (np.stack(parts) for parts in zip(*found, strict=True))
        return Packed(images, boxes.astype(np.float32), self.objects.class_ids[own], [1] * len(own),
                      points.astype(np.float32))

    def _read(self, index: int) -> Region:
        return read_region(self.objects, index, self.rule.side, self.rule.crop)


def read_region(objects: TrainingObjects, index: int, side: int, crop: Crop) -> Region:
    """The part of a picture that crops of an object show. Raises BadData for a picture that cannot be read."""
    picture = _read_picture(*objects.files[index])
    height, width = picture.shape[:2]
    matrix = map_crop(objects.boxes[index], (width, height), side, crop)
    middle = side / 2
    corners = np.array([[middle - REACH * middle] * 2 + [middle + REACH * middle] * 2])
    x_min, y_min, x_max, y_max = map_boxes(corners, invert(matrix))[0]
    left, top = min(max(int(x_min), 0), width - 1), min(max(int(y_min), 0), height - 1)  # a pixel at least
    right, bottom = max(min(math.ceil(x_max), width), left + 1), max(min(math.ceil(y_max), height), top + 1)
    part = picture[top:bottom, left:right]
    scales = np.minimum(KEPT_SIDE * matrix.diagonal(), 1)
    size = max(round(part.shape[1] * scales[0]), 1), max(round(part.shape[0] * scales[1]), 1)
    kept = affine(scale=(size[0] / part.shape[1], size[1] / part.shape[0]))
    if size != part.shape[1::-1]:
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return Region(part.copy(), compose(kept, affine(shift=(-left, -top))))


@lru_cache(maxsize=2)
def _read_picture(archive: str, member: str) -> np.ndarray:
    """The last pictures: objects of one picture lie side by side in a list that is read in order."""
    try:
        return read_image(archive, member)
    except ValueError as error:
        raise BadData(f"{archive}/{member}: expected a picture, found {error}") from error


def make_crop(
    objects: TrainingObjects, index: int, region: Region, rule: CropRule, rng: np.random.Generator, planes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Writes a random crop of an object into `planes` `(3, S, S)`; returns its box `(4,)` and points `(K, 3)` there.

    A point that lies outside of the crop is not labelled any more.
    """
    side, (width, height) = rule.side, objects.sizes[index]
    matrix, is_mirrored, points = rule.draw(objects.boxes[index], (width, height), objects.keypoints[index], rng)
    image = cut_out(region.pixels, compose(matrix, invert(region.matrix)), side)
    gains = 1 + rng.uniform(-1, 1, 3) * [rule.hyp.get(name, 0) for name in ("hsv_h", "hsv_s", "hsv_v")]
    change_colours(image, gains)
    box, points = _map_labels(objects.boxes[index], points, matrix, side)
    if is_mirrored:
        image = cv2.flip(image, 1)
        box = flip_boxes(box[None], side)[0]
        points = mirror_points(points, side, rule.flips)
    cv2.split(image, list(planes))
    return box, points


def _map_labels(box: np.ndarray, points: np.ndarray, matrix: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    return map_boxes(box[None], matrix)[0], place_points(points, np.vstack([matrix, [0, 0, 1]]), side)


def make_crop_loader(objects: TrainingObjects, hyp: Mapping[str, float], config: TrainConfig, crop: Crop, where: Place
                     ) -> Loader:
    """The augmented batches of a training, `config.batch` objects in all processes together, in forked workers.

    Raises ValueError for hyper-parameters that augmentation does not take, and BadData where whole pictures are seen
    for one with several objects: its map could not say whose point is meant.
    """
    if crop == "whole" and (of_image := objects.images["image_id"].value_counts()).max() > 1:
        raise BadData(f"{of_image.index[0]}: expected one object in a picture that is seen whole, found "
                      f"{of_image.iloc[0]}; take the family topdown, which sees each in its box")
    order = Order(len(objects), max(config.batch // where.world, 1), config.seed, where.rank, where.world)
    n_bytes = min(CACHE_BYTES, psutil.virtual_memory().total // 8) // (max(config.workers, 1) * where.world)
    rule = CropRule(config.imgsz, crop, hyp, objects.points.flips, objects.points.parts)
    return Loader(CropBatches(objects, order, rule, n_bytes), config.epochs, config.workers,
                  pin_memory=where.device.startswith("cuda"))


def plain_crops(objects: TrainingObjects, side: int, batch: int, crop: Crop) -> Iterator[Batch]:
    """All objects without augmentation; uint8 as in training."""
    rule = CropRule(side, crop, {}, objects.points.flips, objects.points.parts)
    order, rng = np.arange(len(objects)), np.random.default_rng(0)
    for start in range(0, len(order), batch):
        own = order[start : start + batch]
        images = torch.empty((len(own), 3, side, side), dtype=torch.uint8)
        found = [make_crop(objects, index, read_region(objects, index, side, crop), rule, rng, images[at].numpy())
                 for at, index in enumerate(own.tolist())]
        boxes, points = (torch.from_numpy(np.stack(parts)).float() for parts in zip(*found, strict=True))
        yield Batch(images, list(boxes[:, None]), [torch.tensor([objects.class_ids[index]]) for index in own],
                    list(points[:, None]))
