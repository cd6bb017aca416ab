"""Batches of training images: a function of seed, epoch and number of the batch alone, so that a resumed training gets
the same images as an unbroken one.

Decoded pictures stay in the memory of each worker, up to a budget. Where all of them fit, the companions of a picture
in a mosaic are drawn from all, and the number of workers makes no difference. Where they do not, companions are drawn
from the last pictures of the same worker, as many as fit: these hardly ever have to be decoded again, and in the long
run each comes as often as any other.
"""

from __future__ import annotations

import math
import signal
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Generic, Protocol, TypeVar

import cv2
import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..data.pose_set import PoseImages
from ..data.training_images import TrainingImages
from ..data.training_images import read_images as read_images
from ..data.training_images import read_labels as read_labels
from ..exceptions import BadData
from ..files.memory import keep_blocks
from ..geometry import map_boxes
from ..models.base import Batch, Resize
from ..models.prepare import place, prepare, scale_picture
from .augment import Augmentation, Sample, join_labels, place_points
from .settings import Place, TrainConfig

CACHE_BYTES = 2 << 30  # of decoded pictures, in all workers together
LEAST_WINDOW = 64  # pictures to draw companions from, even if fewer fit into memory
ORDER, DRAWS = 1, 2  # what random numbers are for


@dataclass(frozen=True)
class Order:
    """Which images make which batch: every image comes once an epoch. With several GPUs each `rank` has its share.

    >>> order = Order(n_images=5, batch=2, seed=0)
    >>> sorted(index for number in range(order.n_batches) for index in order.find_batch(3, number).tolist())
    [0, 1, 2, 3, 4]
    """

    n_images: int
    batch: int  # of each GPU
    seed: int
    rank: int = 0
    world: int = 1

    @property
    def n_batches(self) -> int:
        """Batches an epoch on each GPU; the last may be smaller."""
        return -(-self.n_images // (self.batch * self.world))

    def find_batch(self, epoch: int, number: int) -> np.ndarray:
        """The indices of a batch, `(n,)`; epochs before the first are -1, -2 ..."""
        share = _shuffle(self.n_images, self.world, self.seed, epoch)[self.rank :: self.world]
        return share[number * self.batch : (number + 1) * self.batch]

    def find_stream(self, epoch: int, number: int, n_streams: int, length: int) -> np.ndarray:
        """The indices of a batch, and before them `length` or more of the batches `n_streams`, twice that ... ago."""
        at, parts, n_missing = epoch * self.n_batches + number, [self.find_batch(epoch, number)], length
        while n_missing > 0:
            at -= n_streams
            parts.append(self.find_batch(*divmod(at, self.n_batches)))
            n_missing -= len(parts[-1])
        return np.concatenate(parts[::-1])


@lru_cache(maxsize=8)
def _shuffle(n_images: int, world: int, seed: int, epoch: int) -> np.ndarray:
    """All images in the order of an epoch, and some again at the end, so that each GPU has as many."""
    shuffled = np.random.default_rng((ORDER, seed, epoch % 2**32)).permutation(n_images)
    return np.resize(shuffled, -(-n_images // world) * world)


class Held(Protocol):
    """What is held in memory: `pixels` `(H, W, 3)` uint8, and what belongs to them."""

    @property
    def pixels(self) -> np.ndarray: ...


Kept = TypeVar("Kept", bound=Held)


class Decoded(Generic[Kept]):
    """Pictures in memory by index; those whose own turn is longest ago go first."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes, self.held = n_bytes, 0
        self.samples: dict[int, Kept] = {}

    def get(self, index: int, read: Callable[[int], Kept], *, is_own: bool = False) -> Kept:
        """The picture of this index, read if it is not held; `is_own` if it is its turn, and not a companion's."""
        if index not in self.samples:
            sample = read(index)
            self.held += sample.pixels.nbytes
            while self.held > self.n_bytes and self.samples:
                self.held -= self.samples.pop(next(iter(self.samples))).pixels.nbytes
            self.samples[index] = sample
        elif is_own:
            self.samples[index] = self.samples.pop(index)
        return self.samples[index]


@dataclass(frozen=True)
class Packed:
    """A batch on its way from a worker: `images` `(B, 3, S, S)` uint8, and arrays, which need no shared memory each.

    `boxes` `(n, 4)` float32 xyxy px and `class_ids` `(n,)` are those of all images, `n_boxes` says how many of each.
    `points` `(n, K, 3)` float32, where there are any, are the boxes' keypoints.
    """

    images: torch.Tensor
    boxes: np.ndarray
    class_ids: np.ndarray
    n_boxes: list[int]
    points: np.ndarray | None = None

    def pin_memory(self) -> Packed:
        """The same with images in page-locked memory, which a GPU copies by itself; called by the DataLoader."""
        return replace(self, images=self.images.pin_memory())

    def unpack(self) -> Batch:
        """The batch for a family's loss, but for the images, which are still uint8: see `Batch.to`."""
        boxes, class_ids = torch.from_numpy(self.boxes), torch.from_numpy(self.class_ids)
        points = None if self.points is None else list(torch.from_numpy(self.points).split(self.n_boxes))
        return Batch(self.images, list(boxes.split(self.n_boxes)), list(class_ids.split(self.n_boxes)), points)


class WholeBatches(Dataset, ABC):
    """A data set whose item of (epoch, number) is a whole batch, of boxes or of keypoints; `order` says of what."""

    order: Order

    def __getitem__(self, which: tuple[int, int]) -> Packed | BadData:
        """An error is returned, not raised: from another process it would come with a page of calls."""
        try:
            return self.make_batch(*which)
        except BadData as error:
            return error

    @abstractmethod
    def make_batch(self, epoch: int, number: int) -> Packed:
        """The batch of this number of an epoch. Raises BadData for a picture that cannot be read."""


class Batches(WholeBatches):
    """The data set whose item of (epoch, number) is a whole batch; `n_bytes` of pictures each worker may hold."""

    def __init__(self, images: TrainingImages | PoseImages, order: Order, augmentation: Augmentation, n_streams: int,
                 n_bytes: int) -> None:
        self.images, self.order, self.augmentation, self.n_streams = images, order, augmentation, n_streams
        self.decoded: Decoded[Sample] = Decoded(n_bytes)  # empty until the workers are forked: then each has its own
        held = np.sort([-3 * np.prod(self._find_size(index)) for index in range(len(images))]).cumsum()
        n_held = int((-held <= n_bytes).sum())  # however large they are
        self.window = 0 if n_held == len(images) else max(n_held, LEAST_WINDOW)  # 0: companions are drawn from all

    def make_batch(self, epoch: int, number: int) -> Packed:
        """Augmented images, each with its boxes, class ids and keypoints in pixels of the network's input."""
        own, read, found = self.order.find_batch(epoch, number), partial(self.decoded.get, read=self._read), []
        stream = self.order.find_stream(epoch, number, self.n_streams, self.window)
        images = make_shared(len(own), 3, self.augmentation.side, self.augmentation.side)
        for position, index in enumerate(own.tolist()):
            end = len(stream) - len(own) + position + 1
            pool = stream[end - self.window : end] if self.window else np.arange(len(self.images))
            rng = np.random.default_rng((DRAWS, self.order.seed, epoch, number, position, self.order.rank))
            read(index, is_own=True)
            draw = partial(_draw, rng, pool)
            found.append(self.augmentation.make_image(index, draw, read, rng, images[position].numpy()))
        boxes, class_ids, points = join_labels(found)
        return Packed(images, boxes.astype(np.float32), class_ids, [len(labels.boxes) for labels in found],
                      None if points is None else points.astype(np.float32))

    def _find_size(self, index: int) -> tuple[int, int]:
        (width, height), rule = self.images.sizes[index].tolist(), self.augmentation
        return place(width, height, rule.imgsz, rule.stride, rule.resize).size

    def _read(self, index: int) -> Sample:
        size, stored = self._find_size(index), self.images.sizes[index]
        pixels, points = scale_picture(self.images.read(index), size), self.images.points_of(index)
        if points is not None:
            points = points * [*(size / stored), 1]
        boxes = self.images.boxes[index] * np.tile(size / stored, 2)
        return Sample(pixels, boxes, self.images.class_ids[index], points)


class Loader:
    """Batches of one epoch after the other; workers go on with the next epoch while this one is evaluated."""

    def __init__(self, dataset: WholeBatches, n_epochs: int, n_workers: int, *, pin_memory: bool = False) -> None:
        self.dataset, self.n_epochs, self.n_workers, self.pin_memory = dataset, n_epochs, n_workers, pin_memory
        self.n_batches = dataset.order.n_batches  # an epoch
        self._packed: Iterator[Packed | BadData] = iter(())
        self._next = (-1, -1)  # epoch and number of the batch that comes next

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, uint8 images; of another epoch than the next one, with new workers.

        Raises BadData for a picture that cannot be read.
        """
        if self._next != (epoch, 0):
            self._start(epoch)
        for number in range(self.n_batches):
            self._next = divmod(epoch * self.n_batches + number + 1, self.n_batches)
            packed = next(self._packed)
            if isinstance(packed, BadData):
                raise packed
            yield packed.unpack()

    def close(self) -> None:
        """Ends the workers."""
        self._packed, self._next = iter(()), (-1, -1)

    def _start(self, epoch: int) -> None:
        if not 0 <= epoch < self.n_epochs:
            raise ValueError(f"epoch: expected one from 0 to {self.n_epochs - 1}, found {epoch}")
        self.close()
        asked: Any = [divmod(at, self.n_batches)
                      for at in range(epoch * self.n_batches, self.n_epochs * self.n_batches)]
        loader = DataLoader(
            self.dataset, batch_size=None, sampler=asked, num_workers=self.n_workers, pin_memory=self.pin_memory,
            worker_init_fn=_set_up_worker, multiprocessing_context="fork" if self.n_workers else None,
            generator=torch.Generator())  # it draws a seed, which must not come out of what the network draws from
        # Workers have one thread of OpenCV each. Set here: in a fork of a process that has used its threads the call
        # would wait for threads that are not there.
        n_threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            with warnings.catch_warnings():  # Python 3.12 warns of forks; workers use nothing that threads have locked
                warnings.simplefilter("ignore", DeprecationWarning)
                self._packed = iter(loader)
        finally:
            cv2.setNumThreads(n_threads)


def make_loader(images: TrainingImages | PoseImages, hyp: Mapping[str, float], config: TrainConfig, resize: Resize,
                stride: int, where: Place) -> Loader:
    """The augmented batches of a training, `config.batch` images in all processes together, in forked workers.

    Raises ValueError for hyper-parameters that augmentation does not take.
    """
    flips = images.points.flips if isinstance(images, PoseImages) else None
    if isinstance(images, PoseImages) and flips is None and (mirrors := hyp.get("fliplr", 0) or hyp.get("flipud", 0)):
        raise ValueError("fliplr, flipud: expected 0, since the skeleton has no `flip` for its keypoints: a mirrored "
                         f"object would have them on the wrong side; found {mirrors}")
    order = Order(len(images), max(config.batch // where.world, 1), config.seed, where.rank, where.world)
    n_streams = max(config.workers, 1)
    n_bytes = min(CACHE_BYTES, psutil.virtual_memory().total // 8) // (n_streams * where.world)
    dataset = Batches(images, order, Augmentation(config.imgsz, stride, resize, hyp, flips), n_streams, n_bytes)
    return Loader(dataset, config.epochs, config.workers, pin_memory=where.device.startswith("cuda"))


def plain_batches(images: TrainingImages | PoseImages, imgsz: int, batch: int, resize: Resize, stride: int
                  ) -> Iterator[Batch]:
    """All images without augmentation, those of one size together, on the smallest inputs; uint8 as in training."""
    for own in _same_size_batches(images.sizes, batch):
        made = [prepare(images.read(i), imgsz, stride, resize) for i in own]
        boxes = [torch.from_numpy(map_boxes(images.boxes[i], matrix)).float()
                 for i, (_, matrix) in zip(own, made, strict=True)]
        pixels = torch.from_numpy(np.stack([picture for picture, _ in made])).permute(0, 3, 1, 2)
        yield Batch(pixels, boxes, [torch.from_numpy(images.class_ids[i]) for i in own],
                    _map_plain_points(images, own, [matrix for _, matrix in made]))


def _map_plain_points(images: TrainingImages | PoseImages, own: np.ndarray, matrices: Sequence[np.ndarray]
                      ) -> list[torch.Tensor] | None:
    """The keypoints of whole pictures under their maps `(2, 3)`; None where there are none."""
    if not isinstance(images, PoseImages):
        return None
    return [torch.from_numpy(place_points(images.keypoints[i], np.vstack([matrix, [0, 0, 1]]), math.inf)).float()
            for i, matrix in zip(own.tolist(), matrices, strict=True)]


def _same_size_batches(sizes: np.ndarray, batch: int) -> list[np.ndarray]:
    """Indices of images of one size, at most `batch` at a time, from their widths and heights `(N, 2)`.

    >>> [own.tolist() for own in _same_size_batches(np.array([[9, 6], [8, 6], [9, 6], [9, 6]]), batch=2)]
    [[1], [0, 2], [3]]
    """
    kinds, kind = np.unique(sizes, axis=0, return_inverse=True)
    groups = [np.flatnonzero(kind == number) for number in range(len(kinds))]
    return [group[start : start + batch] for group in groups for start in range(0, len(group), batch)]


def _draw(rng: np.random.Generator, pool: np.ndarray, n: int) -> list[int]:
    return rng.choice(pool, n).tolist()


def _set_up_worker(number: int) -> None:
    """A worker keeps its memory, and leaves an interrupt to the process that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_blocks(of_any_size=True)


def make_shared(*shape: int) -> torch.Tensor:
    """An empty uint8 tensor, in a worker in memory that the training process reads, as `default_collate` makes it."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(int(np.prod(shape)))
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
