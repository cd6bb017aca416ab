"""Weights as safetensors: numbers, and the model's architecture as JSON. Reading a stranger's runs nothing of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ...exceptions import UnsafeWeights
from .architecture import build, check_architecture, layers_without_numbers
from .contents import known_entries
from .labels import names_of
from .quiet import quiet
from .weights import check_finite, load_checkpoint
from .wrong_file import describe_wrong_file

FORMAT = "livestock-yolov5-1"


def write_safetensors(source: Path, target: Path) -> Path:
    """The averaged weights of a checkpoint in half precision, with the architecture and the labels beside them.

    What was written is loaded again, and its outputs are those of the checkpoint, before the file gets its name.
    Raises UnsafeWeights for a checkpoint that is refused or that cannot be built from its dictionary alone.
    """
    checkpoint = load_checkpoint(source)
    model: Any = (checkpoint.get("ema") or checkpoint["model"]).half().eval()
    architecture = known_entries(model.yaml)
    metadata = {"format": FORMAT, "architecture": json.dumps(architecture), "labels": json.dumps(names_of(model))}
    state = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        save_file(state, beside, metadata)
        picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected, found = model.float()(picture)[0], load_safetensors(beside, fuse=False)(picture)[0]
        if not torch.equal(expected, found):
            raise UnsafeWeights(f"{source}: expected a model that its architecture describes in full, found one with "
                                "other outputs (another activation?); submit the checkpoint itself")
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    return target


def load_safetensors(path: Path, device: str = "cpu", *, fuse: bool = True) -> torch.nn.Module:
    """The model of a file of `write_safetensors`, as `weights.load_model` returns it: float32, evaluation mode.

    Names, shapes and types of all tensors are compared with the architecture before any is read.
    Raises UnsafeWeights naming file and entry for a file that is broken or holds anything else.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            architecture, labels = _read_metadata(file.metadata() or {}, path)
            check_architecture(architecture, path)
            if len(labels) != architecture["nc"]:
                raise UnsafeWeights(f"{path}: expected {architecture['nc']} labels, as `nc` says, found {labels}")
            names = list(file.keys())
            found = {name: (file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()) for name in names}
            _check_tensors(found, _expected_shapes(architecture, path), path)
            state = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        what = describe_wrong_file(path, ".safetensors") if path.is_file() else ""
        raise UnsafeWeights(f"{path}: expected a safetensors file, found {what or error}") from error
    check_finite(state, path)
    model = build(architecture, path)
    model.load_state_dict(state)
    model.names = dict(enumerate(labels))
    with quiet(), torch.no_grad():
        model = model.to(torch.device(device)).eval()
        model = model.fuse() if fuse else model
    check_finite(model.state_dict(), path)
    return model


def _read_metadata(metadata: dict[str, str], path: Path) -> tuple[Any, list[str]]:
    if metadata.get("format") != FORMAT:
        raise UnsafeWeights(f"{path}: expected metadata of the format {FORMAT!r}, found {str(metadata)[:80]}")
    values = []
    for key in ("architecture", "labels"):
        try:
            values.append(json.loads(metadata.get(key, "")))
        except (json.JSONDecodeError, RecursionError) as error:
            raise UnsafeWeights(f"{path}: metadata {key!r}: expected JSON, found {error}") from error
    architecture, labels = values
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UnsafeWeights(f"{path}: metadata 'labels': expected a list of names, found {str(labels)[:80]}")
    return architecture, labels


def _expected_shapes(architecture: dict[str, Any], path: Path) -> dict[str, tuple[str, list[int]]]:
    return {f"model.{name}": ("F16" if tensor.is_floating_point() else "I64", list(tensor.shape))
            for name, tensor in layers_without_numbers(architecture, path).state_dict().items()}


def _check_tensors(
    found: dict[str, tuple[str, list[int]]], expected: dict[str, tuple[str, list[int]]], path: Path
) -> None:
    for what, names in (("missing", expected.keys() - found.keys()), ("unexpected", found.keys() - expected.keys())):
        if names:
            raise UnsafeWeights(f"{path}: {what} tensor {min(names)!r}, and {len(names) - 1} more; expected "
                                f"the {len(expected)} tensors of its architecture")
    for name, (dtype, shape) in expected.items():
        if found[name] != (dtype, shape):
            raise UnsafeWeights(f"{path}: {name}: expected {dtype} of shape {shape}, found {found[name][0]} of shape "
                                f"{found[name][1]}")
