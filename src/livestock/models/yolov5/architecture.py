"""A model's architecture, the dictionary that yolov5 builds it from: checked, and built where that is harmless.

yolov5 runs `eval` on its strings, so none gets there that is not on the list below. And a file of a few kilobytes may
ask for any memory: what a pass over a picture would take is found out from shapes alone, before there is a number.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ...exceptions import UnsafeWeights
from . import library

NUMBERS = {"nc": 1_000, "depth_multiple": 4, "width_multiple": 4}  # the most each may be; all must be above 0
REQUIRED = {*NUMBERS, "anchors", "backbone", "head"}
OPTIONAL = {"ch", "inplace"}  # "activation" is code, and not here
MOST_LAYERS, MOST_REPEATS, MOST_UPSAMPLES, MOST_ANCHORS, MOST_ARGUMENT = 100, 300, 5, 20, 64
# Of a pass, by pixel of the picture; about four times the most of a published model (yolov5x6, yolov5-p2, yolov3).
MOST_HELD = 600  # numbers in the outputs of all layers, some of which are kept for later ones
MOST_IN_ONE = 128  # numbers in one tensor
MOST_WORK = 1_000_000  # multiplications
DEMAND_SIZE = 256  # pixels, both sides of the picture that this is found out with
CHANNELS_FIRST = ("Bottleneck", "BottleneckCSP", "C3", "Concat", "Conv", "DWConv", "Focus", "SPP", "SPPF")
MOST_FIRST: dict[Any, int] = {  # the first argument of most modules is a number of channels
    **dict.fromkeys(CHANNELS_FIRST, 8_192), "nn.MaxPool2d": 64, "nn.ZeroPad2d": 64,
}
MODULES = {*MOST_FIRST, "Detect", "nn.Upsample"}
EXACT: dict[str, list[Any]] = {  # all that these may be called with: a factor of 1000 would take all memory
    "Detect": [["nc", "anchors"]],
    "nn.Upsample": [["None", 2, "nearest"], [None, 2, "nearest"]],
}
BUILD_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def check_architecture(architecture: Any, path: Path) -> None:
    """Raises UnsafeWeights naming the first entry of a model's dictionary that is not known to be harmless."""
    for entry, value, expected in _faults(architecture):
        raise UnsafeWeights(f"{path}: architecture: {entry}: refused, expected {expected}, found {str(value)[:80]!r}")


def _faults(architecture: Any) -> Iterator[tuple[str, Any, str]]:
    """Each wrong entry: its name, its value, and what is allowed."""
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


def layers_without_numbers(architecture: dict[str, Any], path: Path) -> Any:
    """The layers of a checked architecture, made without room for a single number, however large the model.

    Raises UnsafeWeights naming `path` if yolov5 cannot build it, or if a pass over a picture would take more than any
    sensible model's.
    """
    try:
        layers = _parse(architecture)
        demands = _find_demands(json.dumps(architecture))
    except BUILD_ERRORS as error:
        raise UnsafeWeights(f"{path}: architecture: expected a model that yolov5 can build, found {error}") from error
    for what, found, most in zip(("numbers to hold", "numbers in a tensor", "multiplications"), demands,
                                 (MOST_HELD, MOST_IN_ONE, MOST_WORK), strict=True):
        if found > most:
            raise UnsafeWeights(f"{path}: architecture: refused, expected up to {most:,} {what} by pixel of a picture, "
                                f"about four times the most of a published model, found {found:,.0f} or more")
    return layers


def _parse(architecture: dict[str, Any]) -> Any:
    library.load()
    from yolov5.models.yolo import parse_model

    with torch.device("meta"):
        return parse_model(deepcopy(architecture), [3])[0]


class _Demands(NamedTuple):
    """What one pass takes, by pixel of the picture; see `MOST_HELD` and the following."""

    held: float
    in_one: float
    work: float


@functools.lru_cache(maxsize=32)
def _find_demands(architecture: str) -> _Demands:
    """Of a checked architecture as JSON: from a pass that has shapes alone. Ends where one is beyond its bound."""
    layers = _parse(json.loads(architecture))
    area = DEMAND_SIZE**2
    held = in_one = work = 0.0

    def count(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        """What this layer's output holds and costs, by pixel of the picture."""
        nonlocal in_one, work
        in_one = max(in_one, output.numel() / area)
        if isinstance(module, torch.nn.Conv2d):
            work += output.numel() * module.weight[0].numel() / area
        elif isinstance(module, torch.nn.MaxPool2d):
            work += output.numel() * float(np.prod(np.broadcast_to(module.kernel_size, 2))) / area

    # Removed again: yolov5's activation is one object that all models of a process share.
    hooks = [module.register_forward_hook(count) for module in layers.modules()
             if module is not layers and module is not layers[-1]]
    try:
        for found in _pass_through(layers):
            held += sum(output.numel() for output in found) / area
            if held > MOST_HELD or in_one > MOST_IN_ONE or work > MOST_WORK:
                break
    finally:
        for hook in hooks:
            hook.remove()
    return _Demands(held, in_one, work)


def _pass_through(layers: Any) -> Iterator[list[torch.Tensor]]:
    """The outputs of each layer for a picture without numbers: one, or of the head one by level before decoding."""
    outputs: list[torch.Tensor] = []
    picture = torch.empty(1, 3, DEMAND_SIZE, DEMAND_SIZE, device="meta")
    for layer in layers:
        sources = [layer.f] if isinstance(layer.f, int) else layer.f
        given = [outputs[source] if source != -1 else (outputs or [picture])[-1] for source in sources]
        if layer is layers[-1]:
            yield [level(one) for level, one in zip(layer.m, given, strict=True)]
        else:
            outputs.append(layer(given[0] if isinstance(layer.f, int) else given))
            yield outputs[-1:]


def build(architecture: dict[str, Any], path: Path) -> Any:
    """The model of a checked architecture. Raises UnsafeWeights naming `path` if yolov5 cannot build it."""
    detection_model = library.load().detection_model
    try:
        # The random start is overwritten at once; the caller's random numbers stay as they would have been.
        with torch.random.fork_rng(devices=[]):
            return detection_model(deepcopy(architecture))
    except BUILD_ERRORS as error:
        raise UnsafeWeights(f"{path}: architecture: expected a model that yolov5 can build, found {error}") from error
