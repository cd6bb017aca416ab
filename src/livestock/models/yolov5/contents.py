"""Whether the model in a checkpoint is the one that its architecture describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...exceptions import UnsafeWeights
from .architecture import OPTIONAL, REQUIRED, check_architecture, layers_without_numbers
from .stand_ins import Module, Tensor

MODEL_CLASS = "DetectionModel"
ACTIVATIONS = {"Hardswish", "Identity", "LeakyReLU", "ReLU", "SiLU"}
ROUTES = ("f", "i", "d", "add")  # of yolov5's modules: which layers' outputs it takes, its own number, what it joins
SIZES = ("kernel_size", "stride", "padding", "dilation", "groups", "size", "scale_factor", "padding_mode")


def check_contents(checkpoint: Any, path: Path) -> None:
    """Raises UnsafeWeights, naming file and entry, unless each model of a checkpoint is whole and what it says.

    `checkpoint` is of stand-ins, see `screening.read_stand_ins`: nothing has been made yet.
    """
    if not isinstance(checkpoint, dict) or "model" not in checkpoint:
        found = f"the keys {list(checkpoint)[:8]}" if isinstance(checkpoint, dict) else type(checkpoint).__name__
        if isinstance(checkpoint, dict) and checkpoint and all(isinstance(one, Tensor) for one in checkpoint.values()):
            found += ": a state_dict, weights without their model; save the model itself, as yolov5 does"
        raise UnsafeWeights(f"{path}: expected a yolov5 checkpoint with a 'model', found {found}")
    models = {key: model for key in ("ema", "model") if (model := checkpoint.get(key)) is not None}
    if not models:
        raise UnsafeWeights(f"{path}: expected a yolov5 checkpoint with a 'model', found None")
    for key, model in models.items():
        if not isinstance(model, Module) or model.original.__name__ != MODEL_CLASS:
            raise UnsafeWeights(f"{path}: {key!r}: expected a {MODEL_CLASS}, found {type(model).__name__}")
        _check_model(_state(model, path), path)


def known_entries(architecture: Any) -> Any:
    """An architecture without what is unknown and empty, which older versions wrote."""
    if not isinstance(architecture, dict):
        return architecture
    return {key: value for key, value in architecture.items() if key in REQUIRED | OPTIONAL or value}


def _state(module: Any, path: Path) -> dict[str, Any]:
    state = getattr(module, "state", None)
    if not isinstance(state, dict) or not all(isinstance(state.get(name), dict)
                                              for name in ("_modules", "_parameters", "_buffers")):
        raise UnsafeWeights(f"{path}: {type(module).__name__}: expected modules, parameters and buffers, found none")
    return state


def _check_model(state: dict[str, Any], path: Path) -> None:
    architecture = known_entries(state.get("yaml"))
    check_architecture(architecture, path)
    names, n_classes = state.get("names"), architecture["nc"]
    words = list(names.values()) if isinstance(names, dict) else names
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words) or (
            len(words) != n_classes or state.get("nc", n_classes) != n_classes):
        raise UnsafeWeights(f"{path}: expected {n_classes} classes, as its architecture says, found nc "
                            f"{state.get('nc')} and the names {str(names)[:80]}")
    _check_module("model", state["_modules"].get("model"), layers_without_numbers(architecture, path), path)


def _check_module(name: str, found: Any, built: torch.nn.Module, path: Path) -> None:
    """Compares class, sizes and tensors, then the modules within: as deep as the built one, whatever the file has."""
    expected = type(built)
    if not isinstance(found, Module) or found.original is not expected and not (
            name.endswith(".act") and {found.original.__name__, expected.__name__} <= ACTIVATIONS):
        raise UnsafeWeights(f"{path}: {name}: expected {expected.__name__}, found {type(found).__name__}")
    state = _state(found, path)
    if found.original is not expected:
        return  # another activation has nothing in it
    for size in (*SIZES, *ROUTES) if expected.__module__.startswith("torch.") else ROUTES:
        if size in vars(built) and state.get(size, vars(built)[size]) != vars(built)[size]:
            raise UnsafeWeights(f"{path}: {name}: expected {size} {vars(built)[size]}, found {state[size]}")
    for key, tensor in [*built.named_parameters(recurse=False), *built.named_buffers(recurse=False)]:
        there = state["_parameters"].get(key, state["_buffers"].get(key))
        if not isinstance(there, Tensor) or there.shape != tuple(tensor.shape):
            raise UnsafeWeights(f"{path}: {name}.{key}: expected a tensor of shape {list(tensor.shape)}, found "
                                f"{list(there.shape) if isinstance(there, Tensor) else 'none'}")
    inner = {key: module for key, module in state["_modules"].items() if module is not None}
    wrong = inner.keys() ^ built._modules.keys()
    if wrong or (isinstance(built, torch.nn.Sequential) and list(inner) != list(built._modules)):
        raise UnsafeWeights(f"{path}: {name}: expected the modules {list(built._modules)}, found {list(inner)}: "
                            f"{wrong}")
    for key, module in built._modules.items():
        if module is not None:
            _check_module(f"{name}.{key}", inner[key], module, path)
