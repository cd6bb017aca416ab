"""The training loop: one for every family of models.

Read it from the top: what is trained, on what, with which optimizer; then epochs of batches, each followed by
validation and by files that are written whole. What differs between detectors is behind `models.base.Family`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..files.cores import count_cores
from ..files.memory import keep_blocks, peak_bytes, reset_peak
from ..models.base import Batch, Family, Loss
from ..models.registry import get_family
from . import resume
from .ema import Average
from .hyp import read_hyp
from .loggers import make_loggers
from .schedule import Schedule
from .settings import Place, TrainConfig, find_place
from .start import build_start, freeze
from .task import find_task

MOST_GRADIENT = 10.0  # the norm that gradients are clipped to, where the hyper-parameters do not say: yolov5's
REPORT_SECONDS = 1.0
Report = Callable[[dict[str, Any]], None]
logger = logging.getLogger(__name__)


@dataclass
class State:
    """All that changes during a training, and so all that a checkpoint holds."""

    model: nn.Module
    average: Average
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    epoch: int = 0  # the next one
    history: list[dict[str, float]] = field(default_factory=list)


def run_training(config: TrainConfig, run_dir: Path, report: Report, start_labels: list[str] | None = None) -> None:
    """Trains as `config` says, into `run_dir`; goes on where a training that was cut off there had come to.

    `report` is called once a second with `epochs_done` and the losses, and after each epoch with its scores.
    `start_labels` are the classes of the start weights, in their order, in this competition's words. Under torchrun
    each process trains on its share of every batch, and the first one validates and writes.

    Raises FloatingPointError when losses or weights are no longer finite; what was written before stays.
    """
    place, family = find_place(config.device), get_family(config.family)
    task = find_task(family)
    if config.save and resume.is_over(resume.read_rows(run_dir), config):
        if place.is_first:
            resume.finish(run_dir)  # a kill came between the last epoch and the end
        return
    _prepare_process(place)
    hyp = read_hyp(Path(config.hyp), family)
    images, valid = (task.read(Path(config.data_yaml), part) for part in ("train", "val"))

    # What is trained: the network of the last whole checkpoint, or the start weights made ready for these classes.
    there = resume.find_checkpoint(run_dir) if config.save and config.resumes else None
    torch.manual_seed(config.seed)
    model_config, model = resume.build(there) if there else build_start(config, family, images, hyp, start_labels)
    freeze(model, hyp.get("freeze", 0.0))
    model = model.to(place.device).train()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # which convolutions read faster
    state = State(model, Average(model), make_optimizer(config, family, model, hyp), _make_scaler(config, place))
    if there:
        resume.load(state, there, run_dir)
    if config.compiler:
        model.compile(backend=config.compiler, dynamic=False)

    # On what: batches that are a function of seed, epoch and number alone, and how the rates change with them.
    loader = task.make_loader(images, hyp, config, family, model_config.stride, place)
    schedule = Schedule(config.schedule, config.epochs, loader.n_batches, config.nominal_batch / config.batch, hyp)
    loss = family.make_loss(model, hyp)
    steps = Steps(state, schedule, loss, _wrap(model, place), config, family, hyp, place)
    watch = make_loggers(config, run_dir) if place.is_first else []

    for epoch in range(state.epoch, config.epochs):
        started = time.monotonic()
        torch.manual_seed(make_seed(config.seed, epoch, place.rank))  # dropout and the like, whatever came before
        losses = steps.run(epoch, loader.epoch(epoch), report)
        trained = time.monotonic()
        if place.is_first:
            scores = task.validate(state.average.model, model_config, family, loss, valid, config, place.device,
                                   epoch / config.epochs)
            row = {"epoch": epoch, **losses, **scores, "lr": steps.rate, "seconds": time.monotonic() - started,
                   "valid_seconds": time.monotonic() - trained, "gigabytes": _find_peak(place) / 1e9}
            state.epoch, state.history = epoch + 1, [*state.history, row]
            if config.resumes:
                resume.keep(state, model_config, hyp, run_dir, saves=config.save)
            else:
                resume.keep_last(state, model_config, hyp, run_dir, config)
            for log in watch:
                log(row)
            report({"epochs_done": epoch + 1.0, "scores": scores, "epoch": row})
        if _is_over(state.history, config, place):
            break
    if place.is_first and config.save:
        resume.finish(run_dir)
    if place.world > 1:
        torch.distributed.destroy_process_group()


@dataclass
class Steps:
    """The batches of an epoch, and the optimizer's steps that follow from them."""

    state: State
    schedule: Schedule
    loss: Loss
    wrapped: nn.Module  # the model, or what shares its gradients among GPUs
    config: TrainConfig
    family: Family
    hyp: Mapping[str, float]
    place: Place
    rate: float = 0.0  # of the weights, at the last step

    def run(self, epoch: int, batches: Any, report: Report) -> dict[str, float]:
        """Trains on these batches and returns each part of the loss, the mean over the images: `train_box_loss` ..."""
        device, n_images, pending, said = torch.device(self.place.device), 0, 0, time.monotonic()
        sums: dict[str, Any] = {}
        self.state.model.train()
        self.state.optimizer.zero_grad()
        for number, batch in enumerate(batches):
            at = epoch * self.schedule.n_batches + number
            self.schedule.set_rates(self.state.optimizer.param_groups, at)
            parts = self.backward(replace(batch.to(device), progress=epoch / self.config.epochs), at)
            for name, part in parts.items():
                sums[name] = sums.get(name, 0) + part.detach() * len(batch)
            n_images, pending = n_images + len(batch), pending + 1
            # The last batch ends a step too: no image's gradient is thrown away, and none crosses into the next epoch.
            if pending >= self.schedule.accumulate(at) or number + 1 == self.schedule.n_batches:
                self.step()
                pending = 0
            if time.monotonic() - said > REPORT_SECONDS or number + 1 == self.schedule.n_batches:
                said, losses = time.monotonic(), self._means(sums, n_images, epoch)
                report({"epochs_done": epoch + (number + 1) / self.schedule.n_batches, "scores": losses})
        groups = self.state.optimizer.param_groups
        first = min(group["warmup_lr"] for group in groups)  # of weights: biases begin the warm-up at a higher rate
        self.rate = max(group["lr"] for group in groups if group["warmup_lr"] == first)
        return {f"train_{name}_loss": value for name, value in losses.items()}

    def backward(self, batch: Batch, at: int) -> dict[str, Tensor]:
        """Adds the gradients of a batch to those of the step."""
        with autocast(self.place.device, bf16=self.config.bf16):
            parts = self.loss(self.wrapped, batch)
        total = torch.stack([part.float().reshape(()) for part in parts.values()]).sum()
        if self.family.sums_loss:
            scale = float(len(batch) * self.place.world)  # each process has its share, whose gradients are averaged
        else:
            scale = len(batch) * self.place.world / (self.config.batch * self.schedule.accumulate(at))
        self.state.scaler.scale(total * scale).backward()
        return parts

    def step(self) -> None:
        """One step of the optimizer with the gradients so far, clipped, and of the averaged weights."""
        scaler, optimizer = self.state.scaler, self.state.optimizer
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(self.state.model.parameters(), self.hyp.get("clip_norm", MOST_GRADIENT))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        self.state.average.update(self.state.model)

    def _means(self, sums: Mapping[str, Tensor], n_images: int, epoch: int) -> dict[str, float]:
        """Raises FloatingPointError where a part is not finite: from there on nothing would be learnt."""
        means = {name: float(value) / n_images for name, value in sums.items()}
        if wrong := [name for name, value in means.items() if not abs(value) < float("inf")]:
            raise FloatingPointError(
                f"epoch {epoch}: the {wrong[0]} loss is {means[wrong[0]]}: the training diverged and stops here; "
                "weights of earlier epochs are kept. A lower lr0 or a longer warm-up helps, or bf16 in place of fp16")
        return means


def make_optimizer(
    config: TrainConfig, family: Family, model: nn.Module, hyp: Mapping[str, float]
) -> torch.optim.Optimizer:
    """SGD with Nesterov's momentum, Adam or AdamW over the family's groups, as yolov5's `smart_optimizer` makes them.

    Weight decay is that of the hyper-parameters for a step of the nominal batch, and in proportion for another.
    """
    n_each = max(round(config.nominal_batch / config.batch), 1)
    share = config.batch * n_each / config.nominal_batch
    groups = [{**group, "first_lr": group["lr"], "weight_decay": group.get("weight_decay", 0.0) * share}
              for group in family.parameter_groups(model, hyp)]
    if config.optimizer == "SGD":
        return torch.optim.SGD(groups, lr=hyp["lr0"], momentum=hyp["momentum"], nesterov=True)
    kind = torch.optim.Adam if config.optimizer == "Adam" else torch.optim.AdamW
    return kind(groups, lr=hyp["lr0"], betas=(hyp["momentum"], 0.999))


def make_seed(*numbers: int) -> int:
    """32 bits from seed, epoch and so on, such that close numbers give far seeds.

    >>> make_seed(0, 1) == make_seed(0, 1), make_seed(0, 1) == make_seed(1, 0)
    (True, False)
    """
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def autocast(device: str, *, bf16: bool) -> torch.autocast:
    """Mixed precision: fp16 on a GPU, bf16 where it is asked for, none on a CPU otherwise."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16 if bf16 or kind == "cpu" else torch.float16,
                          enabled=bf16 or kind == "cuda")


def _make_scaler(config: TrainConfig, place: Place) -> torch.amp.GradScaler:
    """fp16 has few small numbers: its loss is scaled up before the backward pass."""
    return torch.amp.GradScaler("cuda", enabled=place.device.startswith("cuda") and not config.bf16)


def _wrap(model: nn.Module, place: Place) -> nn.Module:
    return DistributedDataParallel(model) if place.world > 1 else model


def _is_over(history: Sequence[Mapping[str, float]], config: TrainConfig, place: Place) -> bool:
    """Whether the training ends here, which the first process knows, and all others are told."""
    is_over = [resume.is_over(history, config)]
    if place.world > 1:
        torch.distributed.broadcast_object_list(is_over, src=0, device=torch.device(place.device))
    return is_over[0]


def _find_peak(place: Place) -> float:
    """The most bytes that this training has had at once: of the GPU's memory, or of the process."""
    return float(torch.cuda.max_memory_allocated()) if place.device.startswith("cuda") else peak_bytes()


def _prepare_process(place: Place) -> None:
    reset_peak()
    keep_blocks(of_any_size=True)
    torch.set_num_threads(max(count_cores() // place.world, 1))
    if place.device == "cpu":
        # Else the gradients of many boxes at one place are added by several threads in the order in which they come.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # no stub has it
    if place.device.startswith("cuda"):
        torch.cuda.set_device(place.device)
        torch.cuda.reset_peak_memory_stats()
        torch.backends.cudnn.benchmark = True  # all batches have one size
    if place.world > 1:
        torch.distributed.init_process_group("nccl" if place.device.startswith("cuda") else "gloo")
