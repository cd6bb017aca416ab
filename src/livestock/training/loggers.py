"""Further places to watch a training, for those who ask for them; nothing is imported or sent otherwise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..exceptions import BadData
from .settings import LOGGERS, TrainConfig

Log = Callable[[Mapping[str, float]], None]


def make_loggers(config: TrainConfig, run_dir: Path) -> list[Log]:
    """Functions that take each epoch's row of the history, one for each name in `config.loggers`.

    `tensorboard` writes below `run_dir/tensorboard`, which Colab shows with `%tensorboard --logdir`. `wandb` follows
    WANDB_MODE and keeps its files in `run_dir`. Raises BadData for an unknown name, ImportError that says what to
    install.
    """
    known = {"tensorboard": _tensorboard, "wandb": _wandb}
    if unknown := [name for name in config.loggers if name not in known]:
        raise BadData(f"loggers: expected some of {', '.join(LOGGERS)}, found {unknown[0]!r}")
    return [known[name](config, run_dir) for name in config.loggers]


def run_id(run_dir: Path) -> str:
    """The same for a training and for what resumes it, another for a training elsewhere."""
    return hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:16]


def _tensorboard(config: TrainConfig, run_dir: Path) -> Log:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("logger tensorboard: it is not installed: pip install tensorboard") from error
    writer: Any = SummaryWriter(str(run_dir / "tensorboard"))

    def log(row: Mapping[str, float]) -> None:
        for name, value in row.items():
            writer.add_scalar(name, value, int(row["epoch"]))
        writer.flush()

    return log


def _wandb(config: TrainConfig, run_dir: Path) -> Log:
    try:
        import wandb
    except ImportError as error:
        raise ImportError("logger wandb: it is not installed: pip install wandb") from error
    run = wandb.init(project="livestock", name=run_dir.name, dir=str(run_dir), config=asdict(config),
                     resume="allow", id=run_id(run_dir))

    def log(row: Mapping[str, float]) -> None:
        run.log(dict(row), step=int(row["epoch"]))

    return log
