"""Weights as safetensors: numbers, and the model's architecture as JSON. Reading a stranger's file runs nothing of it.

yolov5 builds a model from a dictionary by `eval` of its strings, so none gets there that is not on the list below.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .. import yolov5_compat
from .weights import load_checkpoint, quiet

FORMAT = "livestock-yolov5-1"
NUMBERS = {"nc": 1_000, "depth_multiple": 4, "width_multiple": 4}  # the most each may be; all must be above 0
REQUIRED = {*NUMBERS, "anchors", "backbone", "head"}
OPTIONAL = {"ch", "inplace"}  # "activation" is code, and not here
MOST_LAYERS, MOST_REPEATS, MOST_UPSAMPLES, MOST_ANCHORS, MOST_ARGUMENT = 100, 300, 5, 20, 64
MOST_FIRST: dict[Any, int] = {  # the first argument of most modules is a number of channels
    **dict.fromkeys(yolov5_compat.MODEL_CLASSES["common"], 8_192), "nn.MaxPool2d": 64, "nn.ZeroPad2d": 64,
}
MODULES = {*MOST_FIRST, "Detect", "nn.Upsample"}
EXACT: dict[str, list[Any]] = {  # all that these may be called with: a factor of 1000 would take all memory
    "Detect": [["nc", "anchors"]],
    "nn.Upsample": [["None", 2, "nearest"], [None, 2, "nearest"]],
}
BUILD_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def write_safetensors(source: Path, target: Path) -> Path:
    """The averaged weights of a checkpoint in half precision, with the architecture and the labels beside them.

    What was written is loaded again, and its outputs are those of the checkpoint, before the file gets its name.
    Raises ValueError for a checkpoint that is refused or that cannot be built from its dictionary alone.
    """
    checkpoint = load_checkpoint(source)
    model: Any = (checkpoint.get("ema") or checkpoint["model"]).half().eval()
    architecture = {key: value for key, value in model.yaml.items() if key in REQUIRED | OPTIONAL or value}
    check_architecture(architecture, source)
    names = list(model.names.values()) if isinstance(model.names, dict) else list(model.names)
    metadata = {"format": FORMAT, "architecture": json.dumps(architecture), "labels": json.dumps(names)}
    state = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        save_file(state, beside, metadata)
        picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected, found = model.float()(picture)[0], load_safetensors(beside, fuse=False)(picture)[0]
        if not torch.equal(expected, found):
            raise ValueError(f"{source}: expected a model that its architecture describes in full, found one with "
                             "other outputs (another activation?); submit the checkpoint itself")
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    return target


def load_safetensors(path: Path, device: str = "cpu", *, fuse: bool = True) -> torch.nn.Module:
    """The model of a file of `write_safetensors`, as `weights.load_model` returns it: float32, evaluation mode.

    Names, shapes and types of all tensors are compared with the architecture before any is read.
    Raises ValueError naming file and entry for a file that is broken or holds anything else.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            architecture, labels = _read_metadata(file.metadata() or {}, path)
            check_architecture(architecture, path)
            if len(labels) != architecture["nc"]:
                raise ValueError(f"{path}: expected {architecture['nc']} labels, as `nc` says, found {labels}")
            names = list(file.keys())
            found = {name: (file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()) for name in names}
            _check_tensors(found, _expected_shapes(architecture, path), path)
            state = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: expected a safetensors file, found {error}") from error
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: {name}: expected finite numbers, found infinity or NaN")
    model = _build(architecture, path)
    model.load_state_dict(state)
    model.names = dict(enumerate(labels))
    with quiet():
        model = model.to(torch.device(device)).eval()
        return model.fuse() if fuse else model


def _read_metadata(metadata: dict[str, str], path: Path) -> tuple[Any, list[str]]:
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: expected metadata of the format {FORMAT!r}, found {str(metadata)[:80]}")
    values = []
    for key in ("architecture", "labels"):
        try:
            values.append(json.loads(metadata.get(key, "")))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{path}: metadata {key!r}: expected JSON, found {error}") from error
    architecture, labels = values
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"{path}: metadata 'labels': expected a list of names, found {str(labels)[:80]}")
    return architecture, labels


def check_architecture(architecture: Any, path: Path) -> None:
    """Raises ValueError naming the first entry of a model's dictionary that is not known to be harmless."""
    for entry, value, expected in _faults(architecture):
        raise ValueError(f"{path}: architecture: {entry}: refused, expected {expected}, found {str(value)[:80]!r}")


def _faults(architecture: Any) -> Iterator[tuple[str, Any, str]]:
    """Each wrong entry: its name, what stands there, and what is allowed."""
    if not isinstance(architecture, dict) or not REQUIRED <= set(architecture) <= REQUIRED | OPTIONAL:
        yield "keys", list(architecture) if isinstance(architecture, dict) else architecture, f"{sorted(REQUIRED)}"
        return
    for key, most in NUMBERS.items():
        whole = key == "nc"
        if not _is_number(architecture[key], 0, most, whole=whole) or not architecture[key]:
            yield key, architecture[key], f"{'a whole number' if whole else 'a number'} above 0, up to {most}"
    if not _is_number(architecture.get("ch", 3), 3, 3, whole=True):
        yield "ch", architecture["ch"], "3"
    if not isinstance(architecture.get("inplace", True), bool):
        yield "inplace", architecture["inplace"], "true or false"
    yield from _anchor_faults(architecture["anchors"])
    for key in ("backbone", "head"):
        if not isinstance(architecture[key], list):
            yield key, architecture[key], "a list of layers"
            return
    layers = [*architecture["backbone"], *architecture["head"]]
    if not 2 <= len(layers) <= MOST_LAYERS:
        yield "layers", len(layers), f"2 to {MOST_LAYERS}"
        return
    for index, layer in enumerate(layers):
        yield from ((f"layer {index}: {entry}", *fault) for entry, *fault in _layer_faults(layer, index))
    if sum(layer[1] for layer in layers) > MOST_REPEATS:
        yield "repeats of layers", sum(layer[1] for layer in layers), f"up to {MOST_REPEATS}"
    modules = [layer[2] for layer in layers]
    if modules.count("nn.Upsample") > MOST_UPSAMPLES:
        yield "layers", modules.count("nn.Upsample"), f"up to {MOST_UPSAMPLES} of nn.Upsample"
    if modules.count("Detect") != 1 or modules[-1] != "Detect":
        yield "layers", modules[-1], "Detect as the last layer and nowhere else"


def _anchor_faults(anchors: Any) -> Iterator[tuple[str, Any, str]]:
    if isinstance(anchors, list) and 0 < len(anchors) <= 6:
        for level in anchors:
            if not (isinstance(level, list) and len(level) in range(2, 2 * MOST_ANCHORS + 1, 2)
                    and len(level) == len(anchors[0]) and all(_is_number(value, 0, 1e5) for value in level)):
                yield "anchors", level, "equally many pairs of numbers for each level"
    elif not _is_number(anchors, 1, MOST_ANCHORS, whole=True):
        yield "anchors", anchors, "a number of anchors or a list of levels"


def _layer_faults(layer: Any, index: int) -> Iterator[tuple[str, Any, str]]:
    if not isinstance(layer, list) or len(layer) != 4:
        yield "shape", layer, "[from, number, module, arguments]"
        return
    sources, number, module, arguments = layer
    most_first = MOST_FIRST.get(module) if isinstance(module, str) else None
    for source in sources if isinstance(sources, list) and 0 < len(sources) <= MOST_LAYERS else [sources]:
        if not _is_number(source, -max(index, 1), index - 1, whole=True):
            yield "from", source, f"an earlier layer of the {index}"
    if not _is_number(number, 1, MOST_REPEATS, whole=True):
        yield "number", number, f"a whole number from 1 to {MOST_REPEATS}"
    if not isinstance(module, str) or module not in MODULES:
        yield "module", module, f"one of {sorted(MODULES)}"
    elif most_first is None:
        if arguments not in (allowed := EXACT[module]):
            yield "arguments", arguments, f"one of {allowed}"
    elif not isinstance(arguments, list) or len(arguments) > 8:
        yield "arguments", arguments, "a list of up to 8"
    else:
        for position, value in enumerate(arguments):
            most = MOST_ARGUMENT if position else most_first
            values = value if isinstance(value, list) and len(value) <= 8 else [value]
            if not all(isinstance(one, bool) or _is_number(one, -most, most) for one in values):
                yield f"argument {position}", value, f"numbers up to {most}, true or false"


def _is_number(value: Any, least: float, most: float, *, whole: bool = False) -> bool:
    kinds = (int,) if whole else (int, float)
    return type(value) in kinds and math.isfinite(value) and least <= value <= most


def _expected_shapes(architecture: dict[str, Any], path: Path) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of each tensor by name; made without room for a single number, however large the model."""
    yolov5_compat.apply()
    from yolov5.models.yolo import parse_model

    try:
        with quiet(), torch.device("meta"):
            layers, _ = parse_model(deepcopy(architecture), [3])
    except BUILD_ERRORS as error:
        raise ValueError(f"{path}: architecture: expected a model that yolov5 can build, found {error}") from error
    return {f"model.{name}": ("F16" if tensor.is_floating_point() else "I64", list(tensor.shape))
            for name, tensor in layers.state_dict().items()}


def _check_tensors(
    found: dict[str, tuple[str, list[int]]], expected: dict[str, tuple[str, list[int]]], path: Path
) -> None:
    for what, names in (("missing", expected.keys() - found.keys()), ("unexpected", found.keys() - expected.keys())):
        if names:
            raise ValueError(f"{path}: {what} tensor {min(names)!r}, and {len(names) - 1} more; expected "
                             f"the {len(expected)} tensors of its architecture")
    for name, (dtype, shape) in expected.items():
        if found[name] != (dtype, shape):
            raise ValueError(f"{path}: {name}: expected {dtype} of shape {shape}, found {found[name][0]} of shape "
                             f"{found[name][1]}")


def _build(architecture: dict[str, Any], path: Path) -> Any:
    from yolov5.models.yolo import DetectionModel

    try:
        # The random start is overwritten at once; the caller's random numbers stay as they would have been.
        with quiet(), torch.random.fork_rng(devices=[]):
            return DetectionModel(deepcopy(architecture))
    except BUILD_ERRORS as error:
        raise ValueError(f"{path}: architecture: expected a model that yolov5 can build, found {error}") from error
