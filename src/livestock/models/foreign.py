"""A checkpoint of YOLOv5 from anyone, a `.pt`: read once, and nothing in it is called or imported.

It is unpickled with inert stand-ins, see `inert`. Tensors, class names and the architecture are taken from these, and
go into a model that this project builds. Numbers are read from the zip here; `torch.load` never sees the file.
"""

from __future__ import annotations

import math
import reprlib
import zipfile
from collections.abc import Callable, Collection
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from ..exceptions import UnsafeWeights
from .base import ModelConfig
from .inert import BROKEN, Module, RefusedError, Stored, is_count, unpickle
from .wrong_file import describe_wrong_file

MOST_PICKLE_BYTES = 1 << 23  # the largest published model has less than a tenth of that
MOST_NESTED = 20  # values in each other, of an architecture; a published one has five
MOST_ENTRIES = 10_000  # modules, tensors, or values of an architecture
MOST_NAME = 200  # characters of a tensor's name
MOST_STRIDE, MOST_IMGSZ = 1024, 8192  # pixels
USUAL_IMGSZ = 640  # what the official weights are trained at
MODELS = ("DetectionModel", "Model")  # the second is the name until version 6
POSE_MODELS = ("PoseModel",)
# What a model built from the architecture has: another value in the file would give other outputs than here.
FIXED: dict[str, dict[str, Any]] = {
    "BatchNorm2d": {"eps": 0.001}, "Upsample": {"size": None, "scale_factor": 2.0, "mode": "nearest"},
    "Conv2d": {"padding_mode": "zeros"},
}
ENTRIES = {"nc", "depth_multiple", "width_multiple", "anchors", "backbone", "head", "ch", "inplace"}


def read_foreign(path: Path) -> tuple[ModelConfig, dict[str, torch.Tensor], dict[str, Any]]:
    """The config, the tensors by name and the epoch (where there is one) of a `.pt` of YOLOv5: of `ema`, else `model`.

    The architecture is plain JSON and no more is known of it: who builds from it checks it. Raises UnsafeWeights
    naming the file and what is refused: code, tensors beyond the file's bytes, a broken file, one of another kind.
    """
    config, tensors, checkpoint = _read(path, _read_model)
    epoch = checkpoint.get("epoch")
    return config, tensors, {"epoch": epoch} if is_count(epoch) else {}


def read_pose_tensors(path: Path) -> tuple[list[str], dict[str, torch.Tensor]]:
    """The labels and the tensors by name of a `.pt` of a pose model of ultralytics, whatever it computes with them.

    Raises UnsafeWeights as `read_foreign` does. Who loads them into a network of his own checks names and shapes.
    """
    labels, tensors, _ = _read(path, _read_pose_model)
    return labels, tensors


def _read(path: Path, read: Callable[[Any, Callable[[Stored], torch.Tensor]], tuple[Any, dict[str, Stored]]]
          ) -> tuple[Any, dict[str, torch.Tensor], dict[str, Any]]:
    """What `read` finds in a checkpoint of stand-ins, the tensors that it names, and the checkpoint."""
    expected = f"{path}: expected a checkpoint written by torch.save (a zip), found"
    if what := describe_wrong_file(path):
        raise UnsafeWeights(f"{expected} {what}")
    try:
        with zipfile.ZipFile(path) as archive:
            prefix, sizes = _find_records(archive, path.stat().st_size)
            checkpoint = unpickle(archive.read(f"{prefix}data.pkl"), sizes)
            record = lru_cache(1)(lambda key: bytearray(archive.read(f"{prefix}data/{key}")))
            found, stored = read(checkpoint, partial(_read_tensor, record))
            if sum(tensor.n_bytes for tensor in stored.values()) > path.stat().st_size:
                raise RefusedError("refused, its tensors have more numbers than the file")
            by_record = sorted(stored, key=lambda name: stored[name].storage.key)  # each is read once
            tensors = {name: _read_tensor(record, stored[name]) for name in by_record}
    except RefusedError as error:
        raise UnsafeWeights(f"{path}: {error}") from error
    except (*BROKEN, zipfile.BadZipFile, OSError, RuntimeError) as error:
        raise UnsafeWeights(f"{expected} {error}") from error
    return found, {name: tensors[name] for name in stored}, checkpoint


# -- the zip ---------------------------------------------------------------------------------------------------------


def _find_records(archive: zipfile.ZipFile, n_bytes: int) -> tuple[str, dict[str, int]]:
    """The folder of all entries, and the bytes of each; none is compressed, so that all that they hold is in the file.

    Raises ValueError for what torch.save does not write.
    """
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(entries) != len(archive.infolist()) or len(pickles) != 1:
        raise ValueError(f"{len(pickles)} entries data.pkl, or entries of one name")
    prefix = pickles[0].removesuffix("data.pkl")
    if not all(name.startswith(prefix) for name in entries):
        raise ValueError(f"entries outside its folder {prefix}")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size
           for entry in entries.values()):
        raise ValueError("compressed entries")
    if sum(entry.file_size for entry in entries.values()) > n_bytes:
        raise ValueError("entries that lie over each other")
    sizes = {name.removeprefix(prefix): entry.file_size for name, entry in entries.items()}
    if sizes["data.pkl"] > MOST_PICKLE_BYTES:
        raise ValueError(f"{sizes['data.pkl']} bytes of pickle, more than {MOST_PICKLE_BYTES}")
    if "byteorder" in sizes and archive.read(f"{prefix}byteorder") != b"little":
        raise ValueError("numbers of a machine with another order of bytes")
    return prefix, sizes


def _read_tensor(record: Callable[[str], bytearray], tensor: Stored) -> torch.Tensor:
    """The numbers of a tensor, in order; its bounds were checked when it was unpickled."""
    if not math.prod(tensor.shape):
        return torch.empty(tensor.shape, dtype=tensor.storage.dtype)
    numbers = torch.frombuffer(record(tensor.storage.key), dtype=tensor.storage.dtype)
    view = torch.as_strided(numbers, tensor.shape, tensor.strides, tensor.offset)
    return view.clone(memory_format=torch.contiguous_format)


# -- the model -------------------------------------------------------------------------------------------------------


def _read_model(
    checkpoint: Any, read: Callable[[Stored], torch.Tensor]
) -> tuple[ModelConfig, dict[str, Stored]]:
    """Config and tensors of the model in a checkpoint of stand-ins; `read` gives a tensor's numbers."""
    state = _state("model", _find_model(checkpoint))
    architecture = _to_architecture(state.get("yaml"))
    labels = _read_labels(state, architecture.get("nc"))
    layers = state["_modules"].get("model")
    _check_layers(_state("model", layers)["_modules"], architecture)
    stride = _read_stride(state.get("stride"), architecture, read)
    config = ModelConfig("yolov5", tuple(labels), _read_imgsz(checkpoint.get("opt"), stride), stride, architecture)
    return config, _find_tensors(layers)


def _read_pose_model(checkpoint: Any, read: Callable[[Stored], torch.Tensor]) -> tuple[list[str], dict[str, Stored]]:
    """Labels and tensors; what the modules compute is not looked at, since none of them is built."""
    state = _state("model", _find_model(checkpoint, POSE_MODELS))
    names = state.get("names")
    n_labels = len(names) if isinstance(names, dict | list) else 0
    return _read_labels({**state, "nc": n_labels}, n_labels), _find_tensors(state["_modules"].get("model"), check=None)


def _find_model(checkpoint: Any, kinds: Collection[str] = MODELS) -> Any:
    if not isinstance(checkpoint, dict) or "model" not in checkpoint:
        found = f"the keys {reprlib.repr(list(checkpoint))}" if isinstance(checkpoint, dict) else (
            type(checkpoint).__name__)
        if isinstance(checkpoint, dict) and checkpoint and all(isinstance(one, Stored) for one in checkpoint.values()):
            found += ": a state_dict, weights without their model; save the model itself, as yolov5 does"
        raise RefusedError(f"expected a yolov5 checkpoint with a 'model', found {found}")
    key = "ema" if checkpoint.get("ema") is not None else "model"
    if checkpoint[key] is None:
        raise RefusedError("expected a yolov5 checkpoint with a 'model', found None")
    if type(checkpoint[key]).__name__ not in kinds or not isinstance(checkpoint[key], Module):
        raise RefusedError(f"{key!r}: expected a {min(kinds)}, found {type(checkpoint[key]).__name__}")
    return checkpoint[key]


def _state(name: str, module: Any) -> dict[str, Any]:
    state = getattr(module, "state", None)
    if not isinstance(state, dict) or not all(isinstance(state.get(part), dict)
                                              for part in ("_modules", "_parameters", "_buffers")):
        raise RefusedError(f"{name}: {type(module).__name__}: expected modules, parameters and buffers, found none")
    return state


def _to_architecture(value: Any) -> dict[str, Any]:
    """A model's dictionary as plain JSON, without what is unknown and empty, which older versions wrote."""
    if not isinstance(value, dict):
        raise RefusedError(f"architecture: keys: refused, expected a dictionary, found {reprlib.repr(value)}")
    n_values = 0

    def convert(value: Any, depth: int) -> Any:
        """One value and all below it; raises RefusedError where it is nested too deep or has too many."""
        nonlocal n_values
        n_values += 1
        # Lists that hold one list twice, and so on, are small in a file and without end where each is followed.
        if depth > MOST_NESTED or n_values > MOST_ENTRIES:
            raise RefusedError("refused, its values are nested without end")
        if isinstance(value, dict) and all(type(key) is str for key in value):
            return {key: convert(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list):
            return [convert(inner, depth + 1) for inner in value]
        if value is not None and type(value) not in (bool, int, float, str) or (
                type(value) is float and not math.isfinite(value)):
            raise RefusedError(f"architecture: refused, expected plain values, found {reprlib.repr(value)}")
        return value

    architecture: dict[str, Any] = convert(
        {key: inner for key, inner in value.items() if key in ENTRIES or inner}, 0)
    layers = [architecture.get("backbone"), architecture.get("head")]
    if not all(isinstance(part, list) and all(isinstance(layer, list) and len(layer) == 4 for layer in part)
               for part in layers) or not layers[1]:
        raise RefusedError("architecture: keys: refused, expected a backbone and a head, lists of layers "
                           f"[from, number, module, arguments], found the keys {reprlib.repr(list(architecture))}")
    return architecture


def _read_labels(state: dict[str, Any], n_classes: Any) -> list[str]:
    names = state.get("names")
    words = [names.get(n) for n in range(len(names))] if isinstance(names, dict) else names
    if not isinstance(words, list) or not all(type(word) is str for word in words) or (
            len(words) != n_classes or state.get("nc", n_classes) != n_classes):
        raise RefusedError(f"expected {n_classes} classes, as its architecture says, found nc "
                           f"{reprlib.repr(state.get('nc'))} and the names {reprlib.repr(names)}")
    return words


def usual_stride(architecture: dict[str, Any]) -> int:
    """The stride of a published architecture of YOLOv5: 64 for four detection layers, else 32."""
    head = architecture.get("head")
    detect = head[-1] if isinstance(head, list) and head else None
    sources = detect[0] if isinstance(detect, list) and detect else None
    return 64 if isinstance(sources, list) and len(sources) == 4 else 32


def _read_stride(stride: Any, architecture: dict[str, Any], read: Callable[[Stored], torch.Tensor]) -> int:
    """The largest step of the detection layers, where the file says it."""
    if not isinstance(stride, Stored):
        return usual_stride(architecture)
    found = read(stride).flatten().tolist() if math.prod(stride.shape) <= MOST_NESTED else []
    if not found or not all(0 < step <= MOST_STRIDE and step == int(step) for step in found):
        raise RefusedError(f"expected strides of up to {MOST_STRIDE} pixels, found {found}")
    return int(max(found))


def _read_imgsz(options: Any, stride: int) -> int:
    """What the model was trained at, as a multiple of its stride, where the file says it."""
    imgsz = options.get("imgsz") if isinstance(options, dict) else None
    known = imgsz if type(imgsz) is int and 0 < imgsz <= MOST_IMGSZ else USUAL_IMGSZ
    return math.ceil(known / stride) * stride


def _check_layers(layers: dict[Any, Any], architecture: dict[str, Any]) -> None:
    """Raises RefusedError unless kind and inputs of each layer are the architecture's, from which it will be built."""
    described = [*architecture["backbone"], *architecture["head"]]
    if list(layers) != [str(n) for n in range(len(described))]:
        raise RefusedError(f"model: expected the modules '0' to '{len(described) - 1}' of its architecture, found "
                           f"{reprlib.repr(list(layers))}")
    for (n, layer), (sources, number, kind, arguments) in zip(layers.items(), described, strict=True):
        expected = str(kind).removeprefix("nn.")
        state, found = _state(f"model.{n}", layer), type(layer).__name__
        if found != expected and (found != "Sequential" or number == 1):  # a layer that is repeated
            raise RefusedError(f"model.{n}: expected {expected}, found {found}")
        routes = {"f": sources, **({"d": arguments[0]} if kind == "Concat" and isinstance(arguments, list)
                                   and arguments else {})}
        _check_values(f"model.{n}", state, routes)


def _check_values(name: str, state: dict[str, Any], expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        if state.get(key, value) != value:
            raise RefusedError(f"{name}: expected {key} {value}, found {reprlib.repr(state[key])}")


def _check_module(name: str, kind: str, state: dict[str, Any]) -> None:
    """Raises RefusedError for a module that would compute something else than one built from the architecture."""
    if name.endswith(".act") and kind != "SiLU":
        raise RefusedError(f"{name}: expected SiLU, found {kind}: models with another activation are not read")
    _check_values(name, state, FIXED.get(kind, {}))
    if kind == "Conv2d":
        kernel, padding = state["kernel_size"], state["padding"]
        if len(padding) != len(kernel) or any(p > k // 2 for p, k in zip(padding, kernel, strict=True)):
            raise RefusedError(f"{name}: expected padding of up to half the kernel {reprlib.repr(kernel)}, found "
                               f"{reprlib.repr(padding)}")


def _find_tensors(root: Any, check: Callable[[str, str, dict[str, Any]], None] | None = _check_module
                  ) -> dict[str, Stored]:
    """The tensors of a model's layers by name, as a state_dict has them. Modules may hold each other: that ends."""
    tensors: dict[str, Stored] = {}
    waiting = [("model", root)]
    for name, module in waiting:  # which grows
        state = _state(name, module)
        if check is not None:
            check(name, type(module).__name__, state)
        for key, value in [*state["_parameters"].items(), *state["_buffers"].items(), *state["_modules"].items()]:
            if type(key) is not str or len(inner := f"{name}.{key}") > MOST_NAME or (
                    max(len(waiting), len(tensors)) > MOST_ENTRIES):
                raise RefusedError("refused, its values are nested without end")
            if isinstance(value, Stored):
                tensors[inner] = value
            elif value is not None:
                waiting.append((inner, value))
    # Until version 5 a buffer; it follows from the anchors, and depends on the size of the image.
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(".anchor_grid")}
