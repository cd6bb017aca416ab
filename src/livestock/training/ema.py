"""Averaged weights: the exponential moving average of a model's weights over the optimizer's steps."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

DECAY, RAMP = 0.9999, 2000  # yolov5's: the average reaches back further and further during the first steps


class Average:
    """Follows a model; `model` is the averaged one, in evaluation mode, and `n_steps` how many it has followed."""

    def __init__(self, model: nn.Module, n_steps: int = 0) -> None:
        self.model, self.n_steps = copy.deepcopy(model).eval(), n_steps
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """After a step: each averaged number moves towards the model's by one minus the decay (yolov5's `ModelEMA`).

        Buffers of whole numbers, such as batch norm's count, are left as they were.
        """
        self.n_steps += 1
        decay, state = DECAY * (1 - math.exp(-self.n_steps / RAMP)), model.state_dict()
        pairs = [(own, state[name].detach()) for name, own in self.model.state_dict().items()
                 if own.dtype.is_floating_point]
        averaged, new = (list(tensors) for tensors in zip(*pairs, strict=True))
        torch._foreach_mul_(averaged, decay)
        torch._foreach_add_(averaged, new, alpha=1 - decay)
