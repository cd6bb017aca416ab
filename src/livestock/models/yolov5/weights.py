"""Weights files: found, refused if they would run code, loaded, stripped."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
import torch

from ...exceptions import UnsafeWeights
from . import compat
from .architecture import layers_without_numbers
from .contents import check_contents, known_entries
from .quiet import quiet
from .screening import read_stand_ins

STARTER = Path(__file__).resolve().with_name("starter.pt")
RELEASE = "https://github.com/ultralytics/yolov5/releases/download/v7.0"
MOST_STRIDE = 1024  # pictures are padded to a multiple of it
OFFICIAL = [f"yolov5{size}{suffix}.pt" for size in "nsmlx" for suffix in ("", "6")]


def find_weights(name: str, directory: Path) -> Path:
    """The file for a path, for `starter.pt` (comes with the package) or for an official name.

    Official weights are downloaded once into `directory` and kept there.
    Raises ValueError that says what to do when the file is not there and cannot be downloaded.
    """
    path = Path(name)
    if path.exists():
        return path
    if name == STARTER.name:
        return STARTER
    kept = directory / path.name
    if kept.exists():
        return kept
    if name not in OFFICIAL:
        raise ValueError(f"weights {name!r}: no such file; expected a path, {STARTER.name} or one of {OFFICIAL}")
    return _download(f"{RELEASE}/{name}", kept)


def _download(url: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with requests.get(url, stream=True, timeout=30) as answer:
            answer.raise_for_status()
            with open(beside, "wb") as file:
                for block in answer.iter_content(1 << 20):
                    file.write(block)
    except requests.RequestException as error:
        beside.unlink(missing_ok=True)
        raise ValueError(
            f"weights {path.name}: not here and not downloadable ({error.__class__.__name__}). Download {url} on a "
            f"machine with internet access and put it at {path}, or name a file with --weights"
        ) from error
    os.replace(beside, path)
    return path


def check_checkpoint(path: Path) -> None:
    """Raises UnsafeWeights naming what a checkpoint would run, lacks or claims, or why it cannot be read.

    Runs nothing of it: see `screening` for the file and `contents` for the model in it. Weights must be finite.
    """
    load_checkpoint(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's dictionary on the CPU, read with `weights_only=True` and yolov5's model classes allowed.

    Raises UnsafeWeights for a checkpoint that would run code, is broken, holds no model, or one with infinity or NaN.
    """
    compat.apply()
    try:
        check_contents(read_stand_ins(path), path)
    except RecursionError as error:
        raise UnsafeWeights(f"{path}: refused, its values are nested without end") from error
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise UnsafeWeights(f"{path}: refused, it cannot be read as weights: {error}") from error
    for key in ("ema", "model"):
        if checkpoint.get(key) is not None:
            check_finite(checkpoint[key].state_dict(), path)
    return checkpoint


def trained_bytes(path: Path, n_classes: int) -> int:
    """Bytes of the numbers of a model that is trained from a checkpoint for `n_classes` classes, in half precision.

    The file of `write_weights` has these and, in some hundred kB, their names. Raises as `load_checkpoint`.
    """
    checkpoint = load_checkpoint(path)
    model: Any = checkpoint.get("ema") or checkpoint["model"]
    layers = layers_without_numbers({**known_entries(model.yaml), "nc": n_classes}, path)
    return 2 * sum(tensor.numel() for tensor in layers.state_dict().values() if tensor.is_floating_point())


def check_finite(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raises UnsafeWeights naming the first tensor with infinity or NaN: with it a model sees nothing, in silence."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not (is_finite := torch.isfinite(tensor)).all():
            raise UnsafeWeights(f"{path}: {name}: expected finite numbers, found infinity or NaN in "
                                f"{int((~is_finite).sum()):,} of {tensor.numel():,}: a training that diverged, or a "
                                "damaged file; take weights of an earlier epoch, or train with a lower lr0")


def load_model(path: Path, device: str = "cpu") -> torch.nn.Module:
    """A detection model in float32 and evaluation mode, batch norm folded in, on `device`.

    Its weights hang on nothing that they were computed from, whether or not those in the file ask for gradients.
    Raises UnsafeWeights for a checkpoint that is refused, see `check_checkpoint`.
    """
    check_checkpoint(path)
    from yolov5.models.experimental import attempt_load

    with quiet(), torch.no_grad():
        model: Any = attempt_load(str(path), device=torch.device(device), fuse=True)
    check_finite(model.state_dict(), path)  # folded, a negative variance becomes NaN
    strides = torch.as_tensor(model.stride).flatten().tolist()
    if not strides or not all(0 < stride <= MOST_STRIDE for stride in strides):
        raise UnsafeWeights(f"{path}: expected strides of up to {MOST_STRIDE} pixels, found {strides[:8]}")
    return model.eval()


def write_weights(source: Path, target: Path) -> Path:
    """The averaged weights of a checkpoint in half precision, without the optimizer: the file to submit."""
    checkpoint = load_checkpoint(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    return save_weights(checkpoint.get("ema") or checkpoint["model"], target)


def save_weights(model: torch.nn.Module, target: Path) -> Path:
    """Writes a model as `load_checkpoint` reads it, and returns the path; the model itself becomes half precision.

    Raises ValueError, and writes nothing, for weights that are not finite, or no longer in half precision.
    """
    check_finite(model.half().state_dict(), target)
    for parameter in model.parameters():
        parameter.requires_grad = False
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    torch.save({"model": model, "epoch": -1}, beside)
    os.replace(beside, target)
    return target
