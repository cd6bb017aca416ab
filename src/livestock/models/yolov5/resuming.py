"""What a training that was cut off needs to go on as if it had not been, number by number.

yolov5 writes `last.pt` in place, so that a kill in the middle leaves half a file and nothing before it; it rounds the
weights to half precision there, and forgets when the optimizer last took a step; and it cannot tell a finished
training, whose `last.pt` is stripped, from one that never began. (For the order of images see `order`.)
"""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from ...files.write import write_text
from .weights import check_finite, load_checkpoint

logger = logging.getLogger(__name__)

LAST, BEST, PREVIOUS = "last.pt", "best.pt", "previous.pt"
LAST_STEP = "last_step"  # in the checkpoint: the batch, counted from the first epoch, of the optimizer's last step


@dataclass
class Running:
    """The parts of the running training that yolov5 saves rounded, or not at all."""

    model: Any = None
    ema: Any = None  # holds the averaged weights
    updates: int = 0  # of the averaged weights: one each time the optimizer takes a step
    last_step: int = -1

    def note_step(self, batch: int) -> None:
        """To be called after each batch, with its number counted from the first epoch."""
        if self.ema.updates != self.updates:
            self.updates, self.last_step = self.ema.updates, batch

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold for the next epoch to come out the same; nothing where nothing is running."""
        models = {"model": self.model, "ema": self.ema and self.ema.ema}
        return {name: single_precision(model) for name, model in models.items() if model} | {LAST_STEP: self.last_step}


def single_precision(model: Any) -> Any:
    """A copy with each tensor whole in memory and in the usual order, in which yolov5 can fold batch norm."""

    def in_order(tensor: torch.Tensor) -> torch.Tensor:
        # `contiguous` would leave weights of 1 x 1 in the order they have, with which PyTorch rounds otherwise
        return tensor.clone(memory_format=torch.contiguous_format)

    return copy.deepcopy(model)._apply(in_order)  # yolov5's own also goes over the grids


def save_whole(save: Callable[..., None], running: Running) -> Callable[..., None]:
    """`torch.save` that writes beside, flushed, and renames; the `last.pt` before stays as `previous.pt`.

    Weights that are not finite are an error, so that the file before them stays. What becomes `last.pt` gets the state
    of `running` while there is an epoch to go on from; stripped at the end, it stays in half precision like the other
    files.
    """

    def saved(content: Any, target: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(target, (str, Path)):
            return save(content, target, *args, **kwargs)
        path = Path(target)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        if path.name == LAST and isinstance(content, dict) and content.get("epoch", -1) >= 0:
            content = {**content, **running.state()}
        if path.name in (LAST, BEST):
            _check_models(content, path)
        with open(beside, "wb") as file:
            save(content, file, *args, **kwargs)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may keep the new name and lose the content
        if path.name == LAST and path.exists():
            os.replace(path, path.with_name(PREVIOUS))
        os.replace(beside, path)
        return None

    return saved


def _check_models(content: Any, path: Path) -> None:
    for model in ([content.get("model"), content.get("ema")] if isinstance(content, dict) else []):
        if isinstance(model, torch.nn.Module):
            check_finite(model.state_dict(), path)


def find_resumable(weights_dir: Path) -> Path | None:
    """The checkpoint to go on from: `last.pt`, or `previous.pt` if that is missing or broken; None to start again.

    Says why a file was passed over.
    """
    for path in (weights_dir / LAST, weights_dir / PREVIOUS):
        if not path.exists():
            continue
        try:
            checkpoint = load_checkpoint(path)
        except ValueError as error:
            logger.warning("passed over: %s", error)
            continue
        if checkpoint["epoch"] >= 0:
            return path
    return None


def is_finished(run_dir: Path, epochs: int) -> bool:
    """Whether all epochs were trained and their weights stripped: nothing is left to do but what follows training."""
    return find_unstripped(run_dir, epochs) == []


def find_unstripped(run_dir: Path, epochs: int) -> list[Path] | None:
    """Of a training whose last epoch is in `last.pt` the weights that are still to be stripped; None of any other.

    A kill may come between the last epoch and the end: no epoch is left to go on with, and yolov5 fails if asked to.
    """
    last, history = run_dir / "weights" / LAST, run_dir / "results.csv"
    if not last.exists() or not history.exists() or len(read_epochs(history)) < epochs:
        return None
    found = []
    for path in (last, last.with_name(BEST)):
        try:
            epoch = load_checkpoint(path)["epoch"] if path.exists() else -1
        except ValueError:
            return None  # broken: `find_resumable` says so
        if path == last and 0 <= epoch < epochs - 1:
            return None
        if epoch >= 0:
            found.append(path)
    return found


def read_epochs(path: Path) -> pd.DataFrame:
    """`results.csv` with its own column names, a row an epoch: the last one written, without a half written line."""
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1].splitlines()
    rows = [[cell.strip() for cell in line.split(",")] for line in whole]
    table = pd.DataFrame([row for row in rows[1:] if len(row) == len(rows[0])], columns=rows[0]).apply(pd.to_numeric)
    return table.drop_duplicates("epoch", keep="last").sort_values("epoch", ignore_index=True)


def write_options(options: dict[str, Any], run_dir: Path) -> None:
    """The `opt.yaml` that yolov5 resumes with; without one it would take the options that the checkpoint holds."""
    write_text(yaml.safe_dump(json.loads(json.dumps(options, default=str))), run_dir / "opt.yaml")


def forget_epochs(run_dir: Path, from_epoch: int) -> None:
    """Takes epochs that will be trained again out of `results.csv`."""
    path = run_dir / "results.csv"
    if path.exists():
        table = read_epochs(path)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        table[table["epoch"] < from_epoch].to_csv(beside, index=False)
        os.replace(beside, path)
