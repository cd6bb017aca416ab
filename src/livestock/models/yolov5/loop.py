"""yolov5's training loop with the same steps, in which the GPU is not kept waiting for the CPU.

yolov5 asks the GPU for numbers some twenty times a step (which anchors a box fits, for each layer; the losses, to print
them; whether a gradient is infinite), and each time the CPU waits until the GPU has done all that it was given, and the
GPU then until it is given more. Here labels stay on the CPU, where they come from, and are matched to anchors there;
losses are read once a second; a fused optimizer keeps the question of infinite gradients on the GPU. The averaged
weights take some operations a step instead of three a tensor. On a CPU the numbers are yolov5's but for the rounding of
fused steps; on a GPU the loss is computed in single precision too, where yolov5 has half.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from .compat import overlay, with_globals

FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
PROGRESS = "%11s" * 2 + "%11.4g" * 5  # of yolov5's bar, once a step


class HostTensor(torch.Tensor):
    """A batch's labels, which yolov5 would move to the GPU: they stay where they are."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Itself."""
        return self


def never_wait(yolov5_train: Any, *, compiler: str = "", bf16: bool = False) -> None:
    """Puts all of it into yolov5's training, in this process.

    `compiler` is a backend of `torch.compile`: "inductor" writes kernels for the model, which fuses what lies between
    convolutions, and takes some minutes at the start. `bf16` is the format of mixed precision: the loss need not be
    scaled, but a GPU must be from 2020 or later.
    """
    torch.set_num_threads(os.cpu_count() or 1)  # yolov5 leaves one idle
    _keep_labels_on_the_host()
    yolov5_train.ComputeLoss = host_loss(yolov5_train.ComputeLoss)
    yolov5_train.ModelEMA = quick_average(yolov5_train.ModelEMA)
    yolov5_train.smart_optimizer = _make_optimizer(yolov5_train.smart_optimizer, compiler)
    _print_no_losses(yolov5_train)
    if bf16:
        _use_bf16(yolov5_train)


def _make_optimizer(make: Any, compiler: str) -> Any:
    """yolov5's `smart_optimizer` with PyTorch's fused steps, and the model made ready just before.

    Weights in channels-last order are read faster by convolutions, on CPUs as on GPUs: with all cores together 1.36 s
    to 0.61 s a batch of 16 at 416 px on 2 cores. It is undone in what is saved, for yolov5 cannot fold batch norm into
    such weights.
    """
    fused = {kind.__name__: partial(kind, fused=True) for kind in FUSED}
    make_fused = with_globals(make, torch=overlay(torch, optim=overlay(torch.optim, **fused)))

    def smart_optimizer(model: Any, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """In place of yolov5's, with its arguments."""
        if compiler:
            model.compile(backend=compiler, dynamic=False)  # the last batch, a smaller one, gets kernels of its own
        optimizer = make_fused(model.to(memory_format=torch.channels_last), *args, **kwargs)
        if isinstance(optimizer, FUSED):
            _make_ready(optimizer)
            optimizer.register_load_state_dict_post_hook(_make_ready)
            optimizer.register_step_pre_hook(_lay_gradients)
        return optimizer

    return smart_optimizer


def _make_ready(optimizer: torch.optim.Optimizer) -> None:
    """Settings and moments as fused steps need them, after a checkpoint of whatever kind was loaded too.

    Moments lie in memory as their weights do, for steps run over both as if they did. SGD's begin as zeros, which comes
    to the same: made in a first step that mixed precision then skips for an infinite gradient, they would stay unset.
    """
    for group in optimizer.param_groups:
        group["fused"], group["foreach"] = True, None
        for weights in group["params"]:
            state = optimizer.state[weights]
            if isinstance(optimizer, torch.optim.SGD) and state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(weights)
            for name, value in state.items():
                is_moment = value.shape == weights.shape
                state[name] = torch.empty_like(weights).copy_(value) if is_moment else value.to(weights.device)


def _lay_gradients(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Gradients in the order in memory of their weights.

    Autograd keeps to it, but states it otherwise for convolutions of 1 x 1, where it means nothing: an error to fused
    steps on a GPU.
    """
    for weights in (tensor for group in optimizer.param_groups for tensor in group["params"]):
        if weights.grad is not None and weights.grad.stride() != weights.stride():
            weights.grad = torch.empty_like(weights).copy_(weights.grad)


def _keep_labels_on_the_host() -> None:
    from yolov5.utils import dataloaders

    batches = dataloaders.InfiniteDataLoader.__iter__

    def batches_with_labels(self: Any) -> Iterator[tuple]:
        is_training = self.dataset.augment
        for images, labels, *others in batches(self):
            yield images, labels.as_subclass(HostTensor) if is_training else labels, *others

    dataloaders.InfiniteDataLoader.__iter__ = batches_with_labels


def host_loss(compute_loss: Any) -> Any:
    """yolov5's `ComputeLoss`, in single precision, that matches labels to anchors on the CPU if they are there."""

    class HostLoss(compute_loss):
        def __init__(self, model: Any, autobalance: bool = False) -> None:
            super().__init__(model, autobalance)
            host = copy.copy(self)
            host.device, host.anchors = torch.device("cpu"), self.anchors.cpu()
            self.match = partial(compute_loss.build_targets, host)
            # yolov5 indexes with `range(n)`, which would be made on the CPU and sent over
            self.compute = with_globals(compute_loss.__call__, range=partial(torch.arange, device=self.device))

        def __call__(self, p: list[torch.Tensor], targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.compute(self, [layer.float() for layer in p], targets)

        def build_targets(self, p: list[torch.Tensor], targets: torch.Tensor) -> Any:
            """As yolov5's: of each layer classes, boxes, places `(image, anchor, row, column)` and anchors."""
            if not isinstance(targets, HostTensor):
                return super().build_targets(p, targets)
            classes, boxes, places, anchors = self.match(p, targets.as_subclass(torch.Tensor))
            numbers = [_send(torch.stack((*place, class_id)), self.device)
                       for place, class_id in zip(places, classes, strict=True)]
            sizes = [_send(torch.cat(pair, 1), self.device) for pair in zip(boxes, anchors, strict=True)]
            return ([layer[4] for layer in numbers], [layer[:, :4] for layer in sizes],
                    [layer[:4].unbind() for layer in numbers], [layer[:, 4:] for layer in sizes])

    return HostLoss


def _send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """To the GPU, without waiting until it is there."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def quick_average(model_ema: Any) -> Any:
    """yolov5's `ModelEMA`, all tensors at once: the same numbers."""

    class QuickAverage(model_ema):
        def update(self, model: Any) -> None:
            """After a step: each averaged tensor moves towards the model's by one minus the decay."""
            self.updates += 1
            decay, state = self.decay(self.updates), getattr(model, "module", model).state_dict()
            pairs = [(own, state[name].detach()) for name, own in self.ema.state_dict().items()
                     if own.dtype.is_floating_point]
            averaged, new = (list(tensors) for tensors in zip(*pairs, strict=True))
            torch._foreach_mul_(averaged, decay)
            torch._foreach_add_(averaged, torch._foreach_mul(new, 1 - decay))

    return QuickAverage


class _Nothing:
    """In place of a text with blanks: however they are filled, nothing is read and nothing written."""

    def __mod__(self, values: object) -> str:
        return ""


def _print_no_losses(yolov5_train: Any) -> None:
    """Takes the losses out of the bar that yolov5 writes into the log; `progress.jsonl` has them once a second.

    Raises RuntimeError if its `train` is no longer the one known.
    """
    code = yolov5_train.train.__code__
    n_found = code.co_consts.count(PROGRESS)
    if n_found != 1:
        raise RuntimeError(f"yolov5.train: expected the bar's text {PROGRESS!r} once, found it {n_found} times")
    changed = tuple(_Nothing() if constant == PROGRESS else constant for constant in code.co_consts)
    yolov5_train.train.__code__ = code.replace(co_consts=changed)


def _use_bf16(yolov5_train: Any) -> None:
    """Mixed precision in bf16 instead of fp16, on a CPU too; the loss need not be scaled."""

    def autocast(on_gpu: bool) -> Any:
        return torch.autocast("cuda" if on_gpu else "cpu", torch.bfloat16)

    def scaler(enabled: bool) -> Any:
        return torch.amp.GradScaler("cuda", enabled=False)

    amp = overlay(torch.cuda.amp, autocast=autocast, GradScaler=scaler)
    yolov5_train.torch = overlay(torch, cuda=overlay(torch.cuda, amp=amp))
