"""Stochastic weight averaging (Izmailov et al. 2018): the mean of the last epochs' weights, free at inference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from ...exceptions import BadData
from .weights import load_checkpoint, save_weights

N_AVERAGED = 5  # epochs; the paper has a constant rate, here the schedule has almost ended and they lie close


def keep_epoch(model: torch.nn.Module, directory: Path, epoch: int) -> None:
    """Keeps an epoch's weights; those long past go. The model is changed: see `save_weights`."""
    save_weights(model, directory / f"epoch{epoch:04d}.pt")
    for path in epoch_weights(directory)[:-N_AVERAGED]:
        path.unlink()


def epoch_weights(directory: Path) -> list[Path]:
    """The epochs' weights that `keep_epoch` left, first to last."""
    return sorted(path for path in directory.glob("epoch*.pt") if re.fullmatch(r"epoch\d{4,}\.pt", path.name))


def average_weights(sources: Sequence[Path], target: Path) -> Path:
    """Writes the mean of several weights files of one model, in half precision like `write_weights`.

    Batch norm's running statistics are averaged too, which stands in for another pass over the data. Raises ValueError
    if there is no file, or if the files are not of one model, naming the first that differs.
    """
    if not sources:
        raise ValueError(f"{target}: expected weights to average, found none")
    model = load_checkpoint(sources[0])["model"].float()
    state = model.state_dict()
    for path in sources[1:]:
        other = load_checkpoint(path)["model"].float().state_dict()
        if {key: value.shape for key, value in other.items()} != {key: value.shape for key, value in state.items()}:
            raise BadData(f"{path}: expected the tensors of {sources[0]}, found another model")
        for key, value in other.items():
            state[key] = state[key] + value if value.is_floating_point() else value
    mean = {key: value / len(sources) if value.is_floating_point() else value for key, value in state.items()}
    model.load_state_dict(mean)
    return save_weights(model, target)
