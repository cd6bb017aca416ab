"""What several model families share: optimizer groups, rows of class outputs, checks of configs and batches."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..exceptions import BadData, UnsafeWeights
from .base import Batch, ModelConfig
from .checkpoint import write_checkpoint

logger = logging.getLogger(__name__)
# What safetensors and torch raise on files that are damaged.
BROKEN = (SafetensorError, pickle.UnpicklingError, EOFError, OSError, RuntimeError, LookupError, TypeError, ValueError)


SMALLEST = 64  # pixels of a side: on 32 a last batch of one image has one place, and batch norm no variance
MOST_LABELS = 10_000  # classes of a network; the largest known competition has 7,000


def group_parameters(named: Iterable[tuple[str, nn.Parameter]], hyp: Mapping[str, float],
                     factor: float = 1.0) -> list[dict[str, Any]]:
    """Optimizer groups of the trainable parameters: weights, scales of norms, biases; empty groups are left out.

    Only weights decay: a parameter of one dimension scales or shifts a channel. Of `hyp`, `lr0`, `weight_decay` and
    `warmup_bias_lr` (0 if absent) are read; learning rates are multiplied by `factor`. In the warm-up the biases begin
    at `warmup_bias_lr`, all others at 0.

    >>> groups = group_parameters(nn.Linear(3, 2).named_parameters(), {"lr0": 0.1, "weight_decay": 0.01}, factor=0.5)
    >>> [(len(group["params"]), group["lr"], group["weight_decay"], group["warmup_lr"]) for group in groups]
    [(1, 0.05, 0.01, 0.0), (1, 0.05, 0.0, 0.0)]
    """
    members: dict[str, list[nn.Parameter]] = {"weights": [], "scales": [], "biases": []}
    for name, parameter in named:
        if parameter.requires_grad:
            kind = "biases" if name.endswith("bias") else "weights" if parameter.ndim > 1 else "scales"
            members[kind].append(parameter)
    bias_lr = hyp.get("warmup_bias_lr", 0.0)
    return [
        {"params": parameters, "lr": factor * hyp["lr0"], "weight_decay": hyp["weight_decay"] * (kind == "weights"),
         "warmup_lr": factor * bias_lr * (kind == "biases")}
        for kind, parameters in members.items() if parameters
    ]


def move_classes(rows: Tensor, found: Sequence[str], wanted: Sequence[str]) -> Tensor | None:
    """Rows of a class output `(len(found), ...)` in the order of `wanted`, `(len(wanted), ...)`; None if none is known.

    A label that both have, whatever the case of its letters, keeps its row. Another one gets the mean of all rows of
    the start weights: it begins as an object like any other, without the preference of one known class.
    Raises UnsafeWeights if the number of rows is not that of the labels.

    >>> move_classes(torch.tensor([[1.0], [3.0], [8.0]]), ["cat", "Cow", "dog"], ["pig", "cow"]).tolist()
    [[4.0], [3.0]]
    """
    if len(rows) != len(found):
        raise UnsafeWeights(f"class outputs: expected {len(found)}, one a label, found {len(rows)}")
    index = {label.casefold(): row for row, label in reversed(list(enumerate(found)))}
    if not any(label.casefold() in index for label in wanted):
        return None
    mean = rows.float().mean(0).to(rows.dtype)
    known = [index.get(label.casefold()) for label in wanted]
    return torch.stack([mean if row is None else rows[row] for row in known])


def move_outputs(
    state: Mapping[str, Tensor], prefix: str, move: Callable[[Tensor], Tensor | None]
) -> dict[str, Tensor]:
    """Start weights whose class outputs, the tensors with this `prefix`, have gone through `move`; None leaves one out.

    >>> state = {"body": torch.zeros(1), "head.a": torch.ones(1), "head.b": torch.zeros(1)}
    >>> list(move_outputs(state, "head.", lambda tensor: tensor if tensor.any() else None))
    ['body', 'head.a']
    """
    moved = {name: move(tensor) if name.startswith(prefix) else tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in moved.items() if tensor is not None}


def check_size(imgsz: int, stride: int = 32, smallest: int = 32) -> None:
    """Raises BadData unless the side of a training image in pixels is a multiple of `stride`, at least `smallest`."""
    if imgsz < smallest or imgsz % stride:
        raise BadData(f"imgsz: expected a multiple of {stride} from {smallest}, found {imgsz}")


def check_entries(config: ModelConfig, keys: Iterable[str]) -> Mapping[str, Any]:
    """The architecture of a config, which has exactly these keys, and labels. Raises UnsafeWeights otherwise."""
    if set(config.architecture) != set(keys):
        found = ", ".join(sorted(map(str, config.architecture)))[:80] or "none"
        raise UnsafeWeights(f"{config.family}: architecture: expected the entries {', '.join(sorted(keys))}, "
                            f"found {found}")
    if not config.labels:
        raise UnsafeWeights(f"{config.family}: labels: expected at least one, found none")
    if len(config.labels) > MOST_LABELS:  # a small file can name so many that no memory holds their outputs
        raise UnsafeWeights(f"{config.family}: labels: expected at most {MOST_LABELS:,}, found {len(config.labels):,}")
    return config.architecture


def check_batch(batch: Batch, n_classes: int) -> None:
    """Raises BadData for a box without an area, which has no logarithm of its size, and for an unknown class."""
    for boxes, class_ids in zip(batch.boxes, batch.class_ids, strict=True):
        flat = (boxes[:, 2:] <= boxes[:, :2]).any(1)
        if flat.any():
            raise BadData(f"batch: boxes: expected x_min < x_max and y_min < y_max, found {boxes[flat][0].tolist()}")
        unknown = (class_ids < 0) | (class_ids >= n_classes)
        if unknown.any():
            raise BadData(f"batch: class_ids: expected 0 to {n_classes - 1}, found {int(class_ids[unknown][0])}")


def missing_weights(name: str, url: str, path: Path, error: Exception) -> ValueError:
    """The error for official weights that cannot be downloaded: what to fetch, and where to put it."""
    return ValueError(f"weights {name}: not here and not downloadable ({error.__class__.__name__}). Download {url} "
                      f"on a machine with internet access and put it at {path}")


def download(name: str, url: str, path: Path, sha256: str | None = None) -> Path:
    """`path`, to which official weights are downloaded unless they are there; `sha256` is how their hash begins.

    Raises ValueError that says what to fetch and where to put it where they cannot be downloaded.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    logger.info("%s: downloading %s", name, url)
    try:
        torch.hub.download_url_to_file(url, str(path), sha256, progress=False)
    except (OSError, RuntimeError) as error:
        raise missing_weights(name, url, path, error) from error
    return path


def keep_official(source: Path, config: ModelConfig, target: Path) -> Path:
    """A checkpoint of ours, `target` with the suffix `.safetensors`, of a library's file of tensors, made once.

    `source` is a `.safetensors` file without our header, or a `.pth` of torchvision's, of which tensors alone are read.
    Raises UnsafeWeights for a file that is broken or holds anything else.
    """
    path = target.with_name(f"{target.name}.safetensors")
    if path.exists():
        return path
    try:
        state: Any = (load_file(source) if source.suffix == ".safetensors"
                      else torch.load(source, weights_only=True, map_location="cpu"))
    except BROKEN as error:
        raise UnsafeWeights(f"{source}: expected official weights, found {str(error)[:200]}; delete it and start again"
                            ) from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]  # YOLOX's authors keep other things beside it
    if not (isinstance(state, dict) and state and all(map(_is_plain, state.items()))):
        raise UnsafeWeights(f"{source}: expected official weights, tensors by name, found something else; delete it "
                            "and start again")
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if n_bytes > source.stat().st_size:  # a tensor can be a view that is larger than all that the file holds
        raise UnsafeWeights(f"{source}: expected official weights, found tensors of {n_bytes:,} bytes in a file of "
                            f"{source.stat().st_size:,}; delete it and start again")
    write_checkpoint(path, config, state, {"official": target.name})
    return path


def _is_plain(item: tuple[object, object]) -> bool:
    """Whether this is a name and a tensor whose numbers lie in this machine's memory, one after the other."""
    name, tensor = item
    return (isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout is torch.strided
            and tensor.device.type == "cpu" and not tensor.is_quantized)
