"""Files of a training: two whole checkpoints to go on from, weights worth keeping, and the history.

A checkpoint holds all that the next epoch depends on, in full precision: weights, averaged weights, the optimizer's
state. With seeds that depend on the epoch alone, a training that was cut off goes on as if it had not been.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .. import __version__
from ..files.write import write_text
from ..models.base import ModelConfig
from ..models.checkpoint import Checkpoint, average_checkpoints, read_checkpoint, write_checkpoint
from ..models.registry import get_family

if TYPE_CHECKING:
    from .loop import State
    from .settings import TrainConfig

LAST, PREVIOUS, BEST, AVERAGED = "last.safetensors", "previous.safetensors", "best.safetensors", "averaged.safetensors"
HISTORY = "history.jsonl"
N_AVERAGED = 5  # epochs; Izmailov et al. 2018 have a constant rate, here the schedule has almost ended: they lie close
logger = logging.getLogger(__name__)


def read_rows(run_dir: Path) -> list[dict[str, float]]:
    """The history so far, a row an epoch."""
    path = run_dir / HISTORY
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def is_over(rows: Sequence[Mapping[str, float]], config: TrainConfig) -> bool:
    """Whether a training with this history has trained all its epochs, or was patient for long enough.

    >>> from livestock.training.settings import TrainConfig
    >>> config = TrainConfig("data.yaml", "", "hyp.yaml", imgsz=64, batch=2, epochs=9, patience=2)
    >>> [is_over([{"AP": score} for score in scores], config) for scores in ([0.3, 0.2], [0.3, 0.2, 0.1])]
    [False, True]
    """
    if len(rows) >= config.epochs or not config.patience or not rows:
        return len(rows) >= config.epochs
    ranks = [rank(row) for row in rows]
    return len(rows) - 1 - ranks.index(max(ranks)) >= config.patience


def rank(row: Mapping[str, float]) -> float:
    """By which epochs are compared, the higher the better: `AP`, or of keypoints less the error over the box, `NME`."""
    return row["AP"] if "AP" in row else -row["NME"]


def is_finished(run_dir: Path, config: TrainConfig) -> bool:
    """Whether all epochs were trained and, if there is to be any, the averaged weights written."""
    return is_over(read_rows(run_dir), config) and (not config.save or (run_dir / "weights" / AVERAGED).exists())


def find_checkpoint(run_dir: Path) -> Checkpoint | None:
    """The checkpoint to go on from: the last, or the one before if that is missing or broken; None to start again.

    Says why a file was passed over.
    """
    for path in (run_dir / "weights" / LAST, run_dir / "weights" / PREVIOUS):
        if not path.exists():
            continue
        try:
            checkpoint = read_checkpoint(path)
        except ValueError as error:
            logger.warning("passed over: %s", error)
            continue
        logger.info("resuming from %s, after epoch %d", path, checkpoint.header["epoch"])
        return checkpoint
    return None


def build(checkpoint: Checkpoint) -> tuple[ModelConfig, nn.Module]:
    """The network of a checkpoint, with its weights."""
    model = get_family(checkpoint.config.family).build(checkpoint.config)
    model.load_state_dict(_part(checkpoint, "model."))
    return checkpoint.config, model


def load(state: State, checkpoint: Checkpoint, run_dir: Path) -> None:
    """Puts a checkpoint into a training that was set up for its network."""
    header, device = checkpoint.header, next(state.model.parameters()).device
    # A kill may have come between the checkpoint and the history, so the row of its epoch is in the checkpoint too.
    before = read_rows(run_dir)[: header["epoch"]]
    state.epoch, state.history = header["epoch"] + 1, [*before, json.loads(header["row"])]
    _write_history(state.history, run_dir)
    state.average.model.load_state_dict(_part(checkpoint, "average."))
    state.average.n_steps = header["n_steps"]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _part(checkpoint, "optimizer.").items():
        number, key = name.split(".", 1)
        moments.setdefault(int(number), {})[key] = tensor.to(device) if tensor.ndim else tensor
    groups = state.optimizer.state_dict()["param_groups"]  # rates follow from the step, the rest from the settings
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    if header["scaler"]:
        state.scaler.load_state_dict(header["scaler"])


def keep_last(
    state: State, config: ModelConfig, hyp: Mapping[str, float], run_dir: Path, settings: TrainConfig
) -> None:
    """Writes the history and, after the last epoch, its averaged weights: of a training that would not be resumed."""
    if is_over(state.history, settings):
        _write_epoch(state, config, hyp, run_dir)
    _write_history(state.history, run_dir)


def keep(state: State, config: ModelConfig, hyp: Mapping[str, float], run_dir: Path, *, saves: bool) -> None:
    """Writes what an epoch leaves: the checkpoint, its averaged weights, the best so far, and then the history.

    The best epoch is that of the highest `rank`, the later of equals. Raises UnsafeWeights, and keeps the files of the
    epoch before, if a weight is not finite.
    """
    row, weights = state.history[-1], run_dir / "weights"
    if saves:
        averaged, header = state.average.model.state_dict(), _write_epoch(state, config, hyp, run_dir)
        tensors = {
            **{f"model.{name}": tensor for name, tensor in state.model.state_dict().items()},
            **{f"average.{name}": tensor for name, tensor in averaged.items()},
            **{f"optimizer.{number}.{key}": value for number, moments in state.optimizer.state_dict()["state"].items()
               for key, value in moments.items() if isinstance(value, Tensor)},
        }
        if rank(row) >= max(map(rank, state.history)):
            write_checkpoint(weights / BEST, config, averaged, header, half=True)
        if (weights / LAST).exists():
            os.replace(weights / LAST, weights / PREVIOUS)
        # The row as text: a header's JSON has no NaN, which the loss on the validation images may be.
        write_checkpoint(weights / LAST, config, tensors, {
            **header, "row": json.dumps(row), "n_steps": state.average.n_steps, "scaler": state.scaler.state_dict()})
        for path in epoch_weights(run_dir)[:-N_AVERAGED]:
            path.unlink()
    _write_history(state.history, run_dir)


def _write_epoch(state: State, config: ModelConfig, hyp: Mapping[str, float], run_dir: Path) -> dict[str, Any]:
    """Writes the averaged weights of the epoch that has just ended; returns the header."""
    row = state.history[-1]
    measure = "AP" if "AP" in row else "NME"
    header = {"epoch": int(row["epoch"]), "hyp": dict(hyp), measure: row[measure], "livestock": __version__}
    path = run_dir / f"weights/epoch{row['epoch']:04d}.safetensors"
    write_checkpoint(path, config, state.average.model.state_dict(), header, half=True)
    return header


def _write_history(rows: list[dict[str, float]], run_dir: Path) -> None:
    write_text("".join(f"{json.dumps(row)}\n" for row in rows), run_dir / HISTORY)


def epoch_weights(run_dir: Path) -> list[Path]:
    """The averaged weights of the last epochs, first to last."""
    return sorted((run_dir / "weights").glob("epoch[0-9]*.safetensors"))


def finish(run_dir: Path) -> None:
    """Writes the mean of the last epochs' weights, and takes away what was there to go on from."""
    mean = average_checkpoints(epoch_weights(run_dir))
    write_checkpoint(run_dir / "weights" / AVERAGED, mean.config, mean.tensors, mean.header, half=True)
    for name in (LAST, PREVIOUS):
        (run_dir / "weights" / name).unlink(missing_ok=True)


def _part(checkpoint: Checkpoint, prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in checkpoint.tensors.items() if name.startswith(prefix)}
