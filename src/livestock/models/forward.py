"""A model ready to predict, from a weights file of any kind and family, or from memory."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..exceptions import UnsafeWeights
from .base import Family, ModelConfig, Predictions
from .checkpoint import check_finite, load_model
from .loaded import LoadedModel, find_device, is_gpu, threads
from .registry import get_family

__all__ = ["SUFFIXES", "CanFuse", "LoadedModel", "is_gpu", "load_for_inference", "load_fused", "threads", "wrap_model"]
SUFFIXES = [".pt", ".safetensors", ".onnx", ".torchscript"]


@runtime_checkable
class CanFuse(Protocol):
    """What a family may offer beyond `Family`: batch norm folded into the convolutions before it."""

    def fuse(self, model: nn.Module) -> nn.Module:
        """The same function in evaluation mode, but for rounding, with less work; `model` may be changed."""


def load_for_inference(
    path: Path, device: str = "", *, n_threads: int | None = None, half: bool | None = None, trusted: bool = False
) -> LoadedModel:
    """The model of a weights file by its suffix, on `device` (see `find_device`; ONNX on the CPU).

    `n_threads` bounds the threads of its runs on the CPU; without it the libraries choose. `half` computes PyTorch
    models in half precision where that is safe (autocast): by default on GPUs; on CPUs it is slower than float32 and
    less exact. A TorchScript file is a program, whose operators read and write files and which nothing here can check:
    only with `trusted`, for a file that this run wrote itself. The other three are refused where they hold more than a
    model, or would take more memory or time than any sensible one; an ONNX file that is `trusted` is not looked at.

    Raises UnsafeWeights for a file that is broken or refused, ValueError for one that is missing or of another suffix.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected weights ending in one of {SUFFIXES}, found {path.suffix!r}")
    if not path.is_file():
        raise ValueError(f"{path}: expected the weights file, found no such file")
    device = find_device(device)
    if path.suffix in (".onnx", ".torchscript"):
        from .runtimes import load_onnx, load_torchscript

        if path.suffix == ".onnx":
            return load_onnx(path, n_threads, trusted=trusted)
        if not trusted:
            raise UnsafeWeights(f"{path}: refused, a TorchScript file is a program; give the weights as .safetensors "
                                "or .onnx, or say trusted=True if this run has written it")
        return load_torchscript(path, device, n_threads)
    family, config, model = load_fused(path, device)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):  # faster in this order, and the same but for rounding
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return wrap_model(family, config, model, device, path=path, n_threads=n_threads, half=half)


def load_fused(path: Path, device: str = "cpu") -> tuple[Family, ModelConfig, nn.Module]:
    """The model of a `.pt` or `.safetensors` file: float32, evaluation mode, batch norm folded in where possible."""
    config, model = load_model(path, device)
    family = get_family(config.family)
    if isinstance(family, CanFuse):
        with torch.no_grad():
            model = family.fuse(model)
        check_finite(model.state_dict(), path)  # folded, a negative variance becomes NaN
    return family, config, model


def wrap_model(
    family: Family, config: ModelConfig, model: nn.Module, device: str, *,
    path: Path | None = None, n_threads: int | None = None, half: bool | None = None,
) -> LoadedModel:
    """A model in memory, on `device` and in evaluation mode, for prediction; later changes of its weights count.

    `half` as for `load_for_inference`; `path` names the model in messages. Raises ValueError in training mode.
    """
    if model.training:
        raise ValueError(f"{path or config.family}: expected a model in evaluation mode, call model.eval() first")
    is_half = is_gpu(device) if half is None else half
    is_parallel = torch.device(device).type == "cpu"
    own = _per_thread(model) if is_parallel else lambda: model
    kind = torch.device(device).type

    def run(images: Tensor) -> Predictions:
        """Predictions for images `(B, 3, H, W)`, in float32 whatever they were computed in."""
        with torch.inference_mode(), torch.autocast(kind, torch.float16, enabled=is_half):
            found = family.predict(own(), images.to(device, torch.float32))
        points = None if found.keypoints is None else found.keypoints.float()
        return Predictions(found.boxes.float(), found.scores.float(), points)

    return LoadedModel(
        path or Path(config.family), run, list(config.labels), config.stride, family.resize, family.needs_nms,
        config.imgsz, config.family, device=device, n_threads=n_threads, is_parallel=is_parallel,
        architecture=config.architecture)


def _per_thread(model: nn.Module) -> Callable[[], nn.Module]:
    """Gives each thread a copy of its own, of the same weights: a model may keep what the last picture's size needs."""
    own = threading.local()
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}

    def get() -> nn.Module:
        """This thread's copy, made when it first asks."""
        if not hasattr(own, "model"):
            own.model = copy.deepcopy(model, dict(shared))
        model_here: nn.Module = own.model
        return model_here

    return get
