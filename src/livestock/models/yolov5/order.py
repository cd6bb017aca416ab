"""Which images make which batch, and with what augmentation: a function of seed, epoch and number of the batch alone.

yolov5 draws both from generators that run on from epoch to epoch, in each worker its own, so that a training that is
resumed gets other images than one that nobody disturbed, and so does one with another number of workers.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler


class Batch(NamedTuple):
    """What a worker is asked for."""

    seed: int  # of all that augmentation draws
    indices: list[int]


class SeededBatches:
    """In place of yolov5's sampler, which repeats `batches` for ever: a pass an epoch, each from its own seed."""

    def __init__(self, batches: BatchSampler, seed: int, start_epoch: int) -> None:
        self.sampler, self.seed, self.start_epoch = batches, seed, start_epoch  # yolov5 asks `sampler` for the length

    def __iter__(self) -> Iterator[Batch]:
        epoch, order = self.start_epoch, cast(Any, self.sampler.sampler)
        while True:
            if isinstance(order, RandomSampler):
                order.generator.manual_seed(make_seed(self.seed, epoch))
            else:
                order.set_epoch(epoch)  # several GPUs, each with its share
            for number, indices in enumerate(self.sampler):
                yield Batch(make_seed(self.seed, epoch, number), indices)
            epoch += 1


def make_seed(*numbers: int) -> int:
    """32 bits from seed, epoch and so on, other ones on each GPU."""
    rank = max(int(os.environ.get("RANK", "-1")), 0)
    return int(np.random.SeedSequence([rank, *numbers]).generate_state(1)[0])


def seed_everything(seed: int) -> None:
    """Sets every generator that training and augmentation draw from."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - yolov5 draws from the global one
    torch.manual_seed(seed)


def seed_batches(seed: int, start_epoch: int) -> None:
    """Makes yolov5's training loaders of this process, and their workers, draw as above from `start_epoch` on."""
    from yolov5.utils import dataloaders

    repeat, images = dataloaders._RepeatSampler, dataloaders.LoadImagesAndLabels

    def repeat_seeded(batches: BatchSampler) -> Any:
        is_fixed = isinstance(batches.sampler, SequentialSampler)  # validation's
        return repeat(batches) if is_fixed else SeededBatches(batches, seed, start_epoch)

    def get_items(self: Any, batch: Batch | list[int]) -> list[Any]:
        if isinstance(batch, Batch):
            seed_everything(batch.seed)
            batch = batch.indices
        return [self[index] for index in batch]

    dataloaders._RepeatSampler, images.__getitems__ = repeat_seeded, get_items
