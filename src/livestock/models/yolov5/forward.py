"""One forward pass, whatever the weights file: `.pt`, `.safetensors`, `.onnx` or `.torchscript`."""

from __future__ import annotations

import copy
import json
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...exceptions import UnsafeWeights
from .labels import names_of
from .safe import load_safetensors
from .weights import check_finite, load_model
from .wrong_file import describe_wrong_file

SUFFIXES = [".pt", ".safetensors", ".onnx", ".torchscript"]
METADATA = "livestock"  # the key, in ONNX and TorchScript files, of the JSON with labels and stride


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model. `labels` is its class order; height and width of pictures are multiples of `stride`, in pixels.

    `run` maps float32 `(B, 3, H, W)`, RGB in 0..1, to float32 `(B, N, 5 + n_classes)`: `cx, cy, w, h` in pixels of the
    picture, objectness, class probabilities. It does so on `device` and with as many threads as PyTorch has there.

    A call gives the same on the CPU, with `n_threads`. If `is_parallel`, several threads may `run` it at a time, and on
    a CPU should: one thread a picture loses nothing by waiting for others.
    """

    path: Path
    run: Callable[[torch.Tensor], torch.Tensor]
    labels: list[str]
    stride: int
    device: str
    n_threads: int | None = None
    is_parallel: bool = False

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """Raises UnsafeWeights as `compute` does."""
        with threads(self.n_threads):
            return self.compute(pictures).cpu()

    def compute(self, pictures: torch.Tensor) -> torch.Tensor:
        """As `run`. Raises UnsafeWeights if the output is not of that shape, or holds NaN: no box."""
        found = self.run(pictures)
        expected = (len(pictures), 5 + len(self.labels))
        if found.ndim != 3 or (found.shape[0], found.shape[2]) != expected:
            raise UnsafeWeights(f"{self.path}: expected an output ({expected[0]}, N, {expected[1]}) for the labels "
                                f"{self.labels}, found {tuple(found.shape)}")
        if found.isnan().any():
            raise UnsafeWeights(f"{self.path}: expected numbers, found NaN in the output for pictures of the shape "
                                f"{tuple(pictures.shape)}: half precision that overflows, or weights that are damaged; "
                                "try the device 'cpu'")
        return found


def load_for_inference(
    path: Path, device: str = "cpu", *, n_threads: int | None = None, half: bool = False, trusted: bool = False
) -> LoadedModel:
    """The model of a weights file by its suffix, on `device`; ONNX always runs on the CPU.

    `n_threads` bounds the threads of its runs on the CPU; without it the libraries choose. `half` computes PyTorch
    models in half precision, all but their head: for GPUs, on CPUs it is slower than float32 and less exact. A
    TorchScript file is a program, whose operators read and write files and which nothing here can check: only with
    `trusted`, for a file that this run wrote itself. The other three are refused where they hold more than a model, or
    would take more memory or time than any sensible one.

    Raises UnsafeWeights for a file that is broken or refused, ValueError for one that is missing or of another suffix.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected weights ending in one of {SUFFIXES}, found {path.suffix!r}")
    if not path.is_file():
        raise ValueError(f"{path}: expected the weights file, found no such file")
    if path.suffix == ".onnx":
        return _load_onnx(path, n_threads, trusted)
    if path.suffix == ".torchscript":
        if not trusted:
            raise UnsafeWeights(f"{path}: refused, a TorchScript file is a program; give the weights as .safetensors "
                                "or .onnx, or say trusted=True if this run has written it")
        return _load_torchscript(path, device, n_threads)
    model = load_torch(path, device)
    if half:
        _halve(model)
    _hasten(model)
    is_parallel = torch.device(device).type == "cpu"
    own = _per_thread(model) if is_parallel else lambda: model
    run = _torch_run(lambda pictures: own()(pictures)[0], device, torch.float16 if half else torch.float32)
    return LoadedModel(path, run, names_of(model), int(model.stride.max()), device, n_threads, is_parallel)


def load_torch(path: Path, device: str = "cpu") -> Any:
    """The PyTorch model of a `.pt` or `.safetensors` file, float32, evaluation mode, batch norm folded in."""
    return load_safetensors(path, device) if path.suffix == ".safetensors" else load_model(path, device)


@contextmanager
def threads(n: int | None) -> Iterator[None]:
    """PyTorch computes with `n` threads; afterwards with as many as before. None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _hasten(model: Any) -> None:
    """What convolutions are faster with, and give the same but for rounding.

    Weights in channels-last order. And where one thread computes convolutions of 1 x 1, PyTorch leaves them to slow
    code unless they are dilated, which is nothing at that size.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
            if module.kernel_size == (1, 1) and module.weight.device.type == "cpu":
                module.dilation = (2, 2)


def _halve(model: Any) -> None:
    """All but the head in half precision, which counts pixels from 1,024 on in whole ones."""
    model.model[:-1].half()
    model.model[-1].register_forward_pre_hook(lambda head, inputs: ([level.float() for level in inputs[0]],))


def _per_thread(model: Any) -> Callable[[], Any]:
    """Gives each thread a copy of its own, of the same weights: the head keeps a grid of the last picture's size."""
    own = threading.local()
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}

    def get() -> Any:
        if not hasattr(own, "model"):
            own.model = copy.deepcopy(model, dict(shared))
        return own.model

    return get


def _torch_run(
    model: Callable[[torch.Tensor], torch.Tensor], device: str, dtype: torch.dtype
) -> Callable[[torch.Tensor], torch.Tensor]:
    def run(pictures: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model(pictures.to(device, dtype)).float()

    return run


def _load_torchscript(path: Path, device: str, n_threads: int | None) -> LoadedModel:
    extra = {METADATA: ""}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated", category=DeprecationWarning)
            model = torch.jit.load(str(path), map_location=device, _extra_files=extra).eval()
    except RuntimeError as error:
        what = describe_wrong_file(path, ".torchscript")
        raise UnsafeWeights(f"{path}: expected a TorchScript file, found {what or str(error)[:200]}") from error
    check_finite(model.state_dict(), path)
    labels, stride = _read_metadata(extra[METADATA], path)
    run = _torch_run(lambda pictures: model(pictures)[0], device, torch.float32)
    return LoadedModel(path, run, labels, stride, device, n_threads)


def _load_onnx(path: Path, n_threads: int | None, trusted: bool) -> LoadedModel:
    if what := describe_wrong_file(path, ".onnx"):
        raise UnsafeWeights(f"{path}: expected an ONNX model, found {what}")
    content = path.read_bytes()
    check_shape = None if trusted else _bound_onnx(content, path)
    import onnxruntime

    errors = onnxruntime.capi.onnxruntime_pybind11_state
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads or 0
    options.log_severity_level = 3  # errors, not advice on the graph
    options.add_session_config_entry("session.force_spinning_stop", "1")  # between runs the cores are others' too
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf, errors.NoSuchFile,
            errors.NotImplemented, errors.RuntimeException) as error:
        raise UnsafeWeights(f"{path}: expected an ONNX model, found {str(error)[:200]}") from error
    labels, stride = _read_metadata(session.get_modelmeta().custom_metadata_map.get(METADATA, ""), path)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = outputs[0].shape
    if len(inputs) != 1 or len(shape) != 3 or (isinstance(shape[2], int) and shape[2] != 5 + len(labels)):
        raise UnsafeWeights(f"{path}: expected one input and an output (B, N, {5 + len(labels)}) for the labels "
                            f"{labels}, found {len(inputs)} inputs and {shape}")

    def run(pictures: torch.Tensor) -> torch.Tensor:
        if check_shape:
            check_shape(tuple(pictures.shape))
        given = pictures.cpu().contiguous().numpy()
        return torch.from_numpy(session.run([outputs[0].name], {inputs[0].name: given})[0])

    return LoadedModel(path, run, labels, stride, "cpu")


def _bound_onnx(content: bytes, path: Path) -> Callable[[tuple[int, ...]], None]:
    """A check of pictures' shapes for a stranger's file, which has passed for one shape: see `graph`."""
    from .graph import make_bound, nominal_shape, read_graph

    model = read_graph(content, path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    _, stride = _read_metadata(metadata.get(METADATA, ""), path)
    check_shape = make_bound(model, path)
    check_shape(nominal_shape(model, stride))
    return check_shape


def write_metadata(labels: list[str], stride: int) -> str:
    """What ONNX and TorchScript files carry under the key `METADATA`."""
    return json.dumps({"labels": labels, "stride": stride})


def _read_metadata(text: str | bytes, path: Path) -> tuple[list[str], int]:
    try:
        content = json.loads(text)
        labels, stride = content["labels"], content["stride"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UnsafeWeights(f"{path}: expected metadata {METADATA!r} with labels and stride, as `export.export_onnx` "
                            f"writes it, found {text[:80]!r}") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UnsafeWeights(f"{path}: metadata {METADATA!r}: expected a list of labels, found {str(labels)[:80]}")
    if type(stride) is not int or not 1 <= stride <= 1024:
        raise UnsafeWeights(f"{path}: metadata {METADATA!r}: expected a stride in pixels, found {str(stride)[:80]}")
    return labels, stride
