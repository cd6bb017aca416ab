"""The file of weights of every model family: safetensors, with all else that is known as JSON in its header.

Reading a stranger's file runs nothing of it: names, shapes and types come from safetensors, the rest is plain JSON that
is checked here, and the network is built by this project, from the config. A `.pt` is read by `foreign`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..exceptions import BadData, UnsafeWeights
from ..files.write import write_bytes
from .base import ModelConfig
from .foreign import MOST_IMGSZ, MOST_STRIDE, USUAL_IMGSZ, read_foreign, usual_stride
from .registry import get_family
from .wrong_file import describe_wrong_file

FORMAT = "livestock-2"
FIRST_FORMAT = "livestock-yolov5-1"  # the header of the first edition: architecture and labels of YOLOv5
MOST_HEADER_BYTES = 1 << 22  # the largest family has less than a tenth of that
FLOATS = (torch.float16, torch.bfloat16, torch.float64, torch.float32)  # what a model is loaded from
DTYPES = {"BOOL", "U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64"}  # none that torch cannot compute with
BUILD_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Checkpoint:
    """A trained network: what builds it, its tensors by name, and what else is known about it as plain JSON."""

    config: ModelConfig
    tensors: dict[str, Tensor]
    header: dict[str, Any]


def write_checkpoint(
    path: Path, config: ModelConfig, tensors: Mapping[str, Tensor], header: Mapping[str, Any] | None = None, *,
    half: bool = False,
) -> None:
    """Writes a checkpoint whole or not at all; equal content gives equal bytes. `half`: floats in half precision.

    Raises UnsafeWeights, and writes nothing, for tensors that are not finite or beyond the range of half precision,
    ValueError for a header that is not plain JSON or too large.
    """
    check_finite(tensors, path)
    state = {name: _as_stored(name, tensor, path, half) for name, tensor in tensors.items()}
    try:
        content = json.dumps({"config": asdict(config), "header": dict(header or {})}, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected a header of plain JSON, found {error}") from error
    if len(content) > MOST_HEADER_BYTES // 2:
        raise ValueError(f"{path}: expected up to {MOST_HEADER_BYTES // 2:,} bytes of header, found {len(content):,}")
    write_bytes(save(state, {FORMAT: content}), path)  # one entry alone: safetensors writes several in random order


def _as_stored(name: str, tensor: Tensor, path: Path, half: bool) -> Tensor:
    """A copy that shares its numbers with no other, as safetensors demands."""
    stored = tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    if not half or not stored.is_floating_point():
        return stored
    found = stored.half()
    if not torch.isfinite(found).all():
        raise UnsafeWeights(f"{path}: {name}: expected finite numbers in half precision, up to "
                            f"{torch.finfo(torch.float16).max:,.0f}, found {float(stored.abs().max()):,.6g}")
    return found


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint of `write_checkpoint`, one of the first edition, or a `.pt` of YOLOv5; runs nothing of it.

    What the architecture says is not checked before a model is built from it, see `load_model`.
    Raises UnsafeWeights naming file and entry for a file that is broken, holds anything else, or infinity or NaN.
    """
    if path.suffix not in (".safetensors", ".pt"):
        raise ValueError(f"{path}: expected weights ending in .safetensors or .pt, found {path.suffix!r}")
    if not path.is_file():
        raise ValueError(f"{path}: expected the weights file, found no such file")
    checkpoint = Checkpoint(*read_foreign(path)) if path.suffix == ".pt" else _read_safetensors(path)
    check_finite(checkpoint.tensors, path)
    return checkpoint


def _read_safetensors(path: Path) -> Checkpoint:
    with open(path, "rb") as start:
        n_bytes = int.from_bytes(start.read(8), "little")
    try:
        if n_bytes > MOST_HEADER_BYTES:
            raise SafetensorError(f"a header of {n_bytes:,} bytes, more than {MOST_HEADER_BYTES:,}")
        with safe_open(str(path), framework="pt") as file:
            config, header = _read_header(file.metadata() or {}, path)
            names = list(file.keys())
            for name in names:
                if (dtype := file.get_slice(name).get_dtype()) not in DTYPES:
                    raise UnsafeWeights(f"{path}: {name}: expected one of the types {sorted(DTYPES)}, found {dtype}")
            # Copies: the file's own pages would change or vanish with it.
            return Checkpoint(config, {name: file.get_tensor(name).clone() for name in names}, header)
    except (SafetensorError, OSError) as error:
        what = describe_wrong_file(path, ".safetensors")
        raise UnsafeWeights(f"{path}: expected a safetensors file, found {what or error}") from error


def _read_header(metadata: Mapping[str, str], path: Path) -> tuple[ModelConfig, dict[str, Any]]:
    if metadata.get("format") == FIRST_FORMAT:
        architecture, labels = (_parse(metadata.get(key, ""), key, path) for key in ("architecture", "labels"))
        if not isinstance(labels, list) or not isinstance(architecture, dict) or architecture.get("nc") != len(labels):
            raise UnsafeWeights(f"{path}: header: expected as many labels as its architecture has classes, `nc`, found "
                                f"{str(labels)[:80]}")
        return _check_config({"family": "yolov5", "labels": labels, "imgsz": USUAL_IMGSZ,
                              "stride": usual_stride(architecture), "architecture": architecture}, path), {}
    if FORMAT not in metadata:
        raise UnsafeWeights(f"{path}: expected a header of the format {FORMAT!r} or {FIRST_FORMAT!r}, found "
                            f"{str(metadata)[:80]}")
    content = _parse(metadata[FORMAT], FORMAT, path)
    if not isinstance(content, dict) or content.keys() != {"config", "header"} or (
            not isinstance(content["header"], dict)):
        raise UnsafeWeights(f"{path}: header: expected the entries 'config' and 'header', found {str(content)[:80]}")
    return _check_config(content["config"], path), content["header"]


def _parse(text: str, entry: str, path: Path) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant}, which is no number of JSON")

    def to_float(number: str) -> float:
        if (value := float(number)) in (float("inf"), float("-inf")):
            refuse(number[:20])
        return value

    try:
        return json.loads(text, parse_constant=refuse, parse_float=to_float)
    except (ValueError, RecursionError) as error:
        raise UnsafeWeights(f"{path}: header {entry!r}: expected JSON, found {error}") from error


def _check_config(content: Any, path: Path) -> ModelConfig:
    """A header's config with the types that it should have. Raises UnsafeWeights naming the first wrong entry."""
    names = [field.name for field in fields(ModelConfig)]
    if not isinstance(content, dict) or content.keys() != set(names):
        raise UnsafeWeights(f"{path}: config: expected the entries {names}, found {str(content)[:80]}")
    labels = content["labels"]
    expected = {
        "family": ("a name", isinstance(content["family"], str)),
        "labels": ("a list of names", isinstance(labels, list) and all(isinstance(label, str) for label in labels)),
        "architecture": ("a dictionary", isinstance(content["architecture"], dict)),
        **{key: (f"a whole number from 1 to {most}", type(content[key]) is int and 0 < content[key] <= most)
           for key, most in (("imgsz", MOST_IMGSZ), ("stride", MOST_STRIDE))},
    }
    for key, (what, holds) in expected.items():
        if not holds:
            raise UnsafeWeights(f"{path}: config: {key}: expected {what}, found {str(content[key])[:80]!r}")
    return ModelConfig(**{**content, "labels": tuple(labels)})


def check_finite(tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Raises UnsafeWeights naming the first tensor with infinity or NaN: with it a model sees nothing, in silence."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not (is_finite := torch.isfinite(tensor)).all():
            raise UnsafeWeights(f"{path}: {name}: expected finite numbers, found infinity or NaN in "
                                f"{int((~is_finite).sum()):,} of {tensor.numel():,}: a training that diverged, or a "
                                "damaged file; take weights of an earlier epoch, or train with a lower lr0")


def load_model(source: Path | Checkpoint, device: str = "cpu") -> tuple[ModelConfig, nn.Module]:
    """The config of a checkpoint and its network, float32 and in evaluation mode, on `device`.

    The random numbers of the caller stay as they are. Raises UnsafeWeights for a file that is refused, a config that
    its family cannot build, or other tensors than the network's.
    """
    checkpoint, where = (source, "checkpoint") if isinstance(source, Checkpoint) else (read_checkpoint(source), source)
    config = checkpoint.config
    model = _build(config, where).float()
    _check_tensors(checkpoint.tensors, model.state_dict(), where)
    model.load_state_dict(checkpoint.tensors)
    check_finite(model.state_dict(), where)  # float64 may hold more than float32
    return config, model.to(torch.device(device)).eval()


def trained_bytes(config: ModelConfig) -> int:
    """Bytes of the numbers of a network of this config in half precision, as `write_checkpoint` writes it.

    The file has these and, in some hundred kB, their names. Raises UnsafeWeights as `load_model` for such a config.
    """
    state = _build(config, "config").state_dict()
    return 2 * sum(tensor.numel() for tensor in state.values() if tensor.is_floating_point())


def _build(config: ModelConfig, where: Path | str) -> nn.Module:
    try:
        with torch.random.fork_rng(devices=[]):
            return get_family(config.family).build(config)
    except (UnsafeWeights, BadData) as error:
        raise UnsafeWeights(f"{where}: {error}") from error
    except BUILD_ERRORS as error:
        raise UnsafeWeights(f"{where}: architecture: expected a model that the family {config.family} can build, found "
                            f"{error}") from error


def _check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: Path | str) -> None:
    """Raises UnsafeWeights unless names and shapes are equal, and types too but for the precision of floats."""
    for what, names in (("missing", expected.keys() - found.keys()), ("unexpected", found.keys() - expected.keys())):
        if names:
            raise UnsafeWeights(f"{where}: {what} tensor {min(names)!r}, and {len(names) - 1} more; expected the "
                                f"{len(expected)} tensors of its architecture")
    for name, tensor in expected.items():
        dtypes = FLOATS if tensor.is_floating_point() else (tensor.dtype,)
        if found[name].dtype not in dtypes or found[name].shape != tensor.shape:
            raise UnsafeWeights(f"{where}: {name}: expected {dtypes[-1]} of shape {list(tensor.shape)}, found "
                                f"{found[name].dtype} of shape {list(found[name].shape)}")
        if name.endswith(".running_var") and (found[name] < 0).any():
            raise UnsafeWeights(f"{where}: {name}: expected variances of 0 or more, found {float(found[name].min())}")


def average_checkpoints(paths: Sequence[Path]) -> Checkpoint:
    """The mean of several checkpoints of one model: stochastic weight averaging (Izmailov et al. 2018).

    Floats are added in float64 and come as float32; whole numbers and the header are the last file's. Running
    statistics of batch norm are averaged too, which stands in for another pass over the data. Raises ValueError for no
    file, BadData naming the first file that has another config or other tensors.
    """
    if not paths:
        raise ValueError("expected weights to average, found none")
    first = last = read_checkpoint(paths[0])
    total = {name: tensor.double() for name, tensor in first.tensors.items() if tensor.is_floating_point()}
    for path in paths[1:]:
        last = read_checkpoint(path)
        if last.config != first.config or _shapes(last) != _shapes(first):
            raise BadData(f"{path}: expected the tensors of {paths[0]}, found another model")
        for name, summed in total.items():
            summed += last.tensors[name]
    mean = {name: (summed / len(paths)).float() for name, summed in total.items()}
    return Checkpoint(last.config, {**last.tensors, **mean}, last.header)


def _shapes(checkpoint: Checkpoint) -> dict[str, tuple[Any, bool]]:
    return {name: (tensor.shape, tensor.is_floating_point()) for name, tensor in checkpoint.tensors.items()}
