"""Learning rates, momentum and accumulation at every step, as functions of the step alone.

yolov5's recipe (its `train.py`), but for the length of the warm-up: as long as `warmup_epochs` says, where yolov5 makes
it at least 100 batches, which was the whole of a short training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

STEPS = (0.7, 0.9)  # of the epochs, after which the schedule `step` falls to a tenth


def decay(schedule: str, epoch: float, epochs: int, lrf: float) -> float:
    """By what the first learning rate is multiplied in an epoch: from 1 at the start to `lrf` after the last one.

    >>> [round(decay("linear", epoch, 10, 0.1), 2) for epoch in (0, 5, 10)]
    [1.0, 0.55, 0.1]
    >>> [round(decay("cosine", epoch, 10, 0.1), 2) for epoch in (0, 5, 10)]
    [1.0, 0.55, 0.1]
    >>> [decay("step", epoch, 10, 0.1) for epoch in (0, 6, 7, 9)]
    [1.0, 1.0, 0.1, 0.01]
    """
    if schedule == "cosine":
        return 1 + (1 - math.cos(epoch * math.pi / epochs)) / 2 * (lrf - 1)
    if schedule == "step":
        return round(0.1 ** sum(epoch >= share * epochs for share in STEPS), 3)
    return (1 - epoch / epochs) * (1 - lrf) + lrf


@dataclass(frozen=True)
class Schedule:
    """Of a training of `epochs` with `n_batches` each; `steps_each` batches make an optimizer step after the warm-up.

    `ratio` is the nominal batch over the batch, which the number of batches in a step rises to during the warm-up.
    """

    name: str
    epochs: int
    n_batches: int
    ratio: float
    hyp: Mapping[str, float]

    @property
    def n_warmup(self) -> int:
        """Batches of the warm-up."""
        return round(self.hyp.get("warmup_epochs", 0) * self.n_batches)

    def accumulate(self, batch: int) -> int:
        """How many batches make an optimizer step at this batch, counted from the first epoch."""
        if batch < self.n_warmup:
            return max(1, round(float(np.interp(batch, [0, self.n_warmup], [1, self.ratio]))))
        return max(round(self.ratio), 1)

    def set_rates(self, groups: list[dict[str, Any]], batch: int) -> None:
        """Sets `lr` and `momentum` of an optimizer's groups, which have `first_lr` and `warmup_lr`.

        A group without momentum, such as Adam's, keeps its betas.
        """
        factor = decay(self.name, batch // self.n_batches, self.epochs, self.hyp["lrf"])
        is_warm = batch >= self.n_warmup
        reach = [0, self.n_warmup]
        for group in groups:
            rate = group["first_lr"] * factor
            group["lr"] = rate if is_warm else float(np.interp(batch, reach, [group["warmup_lr"], rate]))
            if "momentum" in group:
                momentum = self.hyp["momentum"]
                group["momentum"] = momentum if is_warm else float(
                    np.interp(batch, reach, [self.hyp["warmup_momentum"], momentum]))
