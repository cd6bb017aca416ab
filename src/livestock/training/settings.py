"""What a training depends on, as plain values: what the process that trains reads, and the store hashes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

NOMINAL_BATCH = 64  # yolov5's own
SCHEDULES = ("linear", "cosine", "step")
OPTIMIZERS = ("SGD", "Adam", "AdamW")
LOGGERS = ("tensorboard", "wandb")


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training depends on. `data_yaml`, `weights` and `hyp` are paths; `imgsz` is in pixels."""

    data_yaml: str
    weights: str  # start weights; "" starts from random ones
    hyp: str
    imgsz: int
    batch: int
    epochs: int
    family: str = "yolov5"
    size: str = ""  # such as yolov5n, of a model with random weights; weights know theirs, but backbones no keypoints
    optimizer: str = "SGD"
    schedule: str = "linear"
    device: str = ""
    workers: int = 2
    seed: int = 0
    nominal_batch: int = NOMINAL_BATCH  # images whose gradients make one optimizer step
    save: bool = True  # a trial of a search needs scores alone: no weights are written
    resumes: bool = True  # False: a training of a minute, cut off, begins again, and writes its last weights alone
    compiler: str = ""  # such as "inductor", PyTorch's own, which takes minutes at the start
    bf16: bool = False  # mixed precision in bf16: on GPUs from 2020 on, or a CPU
    patience: int = 0  # epochs without a better one after which a training ends; 0: it never ends early
    metric_iou: float = 0.75  # the competition's: AP at this IoU chooses the best epoch
    loggers: tuple[str, ...] = field(default=())  # further places to watch it: see `LOGGERS`


@dataclass(frozen=True)
class Place:
    """Where this process trains: one of `world` processes, each with a GPU of its own, or the only one."""

    device: str
    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that validates, writes and reports."""
        return self.rank == 0


def find_place(device: str) -> Place:
    """The device for `TrainConfig.device` ("" the first GPU, else the CPU; `cpu`; `0`), under torchrun its share."""
    import torch

    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if device == "cpu" or not torch.cuda.is_available():
        return Place("cpu", rank, world)
    numbers = [int(number) for number in device.split(",")] if device else range(torch.cuda.device_count())
    return Place(f"cuda:{numbers[int(os.environ.get('LOCAL_RANK', '0'))]}", rank, world)
