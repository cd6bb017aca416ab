"""Models that other programs run: ONNX files by ONNX Runtime, and TorchScript."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..exceptions import UnsafeWeights
from .base import Predictions
from .checkpoint import check_finite
from .graph import make_bound, nominal_shape, read_graph
from .loaded import LoadedModel, Run
from .metadata import METADATA, Metadata, read_metadata
from .wrong_file import describe_wrong_file


def load_onnx(path: Path, n_threads: int | None, *, trusted: bool) -> LoadedModel:
    """The model of an ONNX file, on the CPU. Raises UnsafeWeights for what `graph` refuses, unless `trusted`."""
    if what := describe_wrong_file(path, ".onnx"):
        raise UnsafeWeights(f"{path}: expected an ONNX model, found {what}")
    content = path.read_bytes()
    check_shape = None if trusted else _bound(content, path)
    session = _open_session(content, path, n_threads)
    metadata = read_metadata(session.get_modelmeta().custom_metadata_map.get(METADATA, ""), path)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = outputs[0].shape
    if len(inputs) != 1 or len(shape) != 3 or (isinstance(shape[2], int) and shape[2] != metadata.n_columns):
        raise UnsafeWeights(f"{path}: expected one input and an output (B, N, {metadata.n_columns}) for the labels "
                            f"{metadata.labels}, found {len(inputs)} inputs and {shape}")

    def run(images: Tensor) -> Tensor:
        """The output of ONNX Runtime for images `(B, 3, H, W)`."""
        if check_shape:
            check_shape(tuple(images.shape))
        given = images.cpu().contiguous().numpy()
        return torch.from_numpy(session.run([outputs[0].name], {inputs[0].name: given})[0])

    return _make_loaded(path, run, metadata, "cpu", None)


def load_torchscript(path: Path, device: str, n_threads: int | None) -> LoadedModel:
    """The model of a TorchScript file, which is a program: the caller says that it may run."""
    extra = {METADATA: ""}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated", category=DeprecationWarning)
            model = torch.jit.load(str(path), map_location=device, _extra_files=extra).eval()
    except RuntimeError as error:
        what = describe_wrong_file(path, ".torchscript")
        raise UnsafeWeights(f"{path}: expected a TorchScript file, found {what or str(error)[:200]}") from error
    check_finite(model.state_dict(), path)
    metadata = read_metadata(extra[METADATA], path)

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            found = model(images.to(device))
        return found[0] if metadata.has_centres else found  # the first version's have a second output

    return _make_loaded(path, run, metadata, device, n_threads)


def _make_loaded(
    path: Path, run: Callable[[Tensor], Tensor], metadata: Metadata, device: str, n_threads: int | None
) -> LoadedModel:
    return LoadedModel(
        path, _split_output(run, metadata, path), metadata.labels, metadata.stride, metadata.resize,
        metadata.needs_nms, metadata.imgsz, metadata.family, metadata.has_fixed_size, device, n_threads,
        architecture=metadata.architecture)


def _split_output(run: Callable[[Tensor], Tensor], metadata: Metadata, path: Path) -> Run:
    """The function from images to predictions, of one to a single tensor in the order that `Metadata` says."""
    side, n_columns = metadata.imgsz if metadata.has_fixed_size else None, metadata.n_columns

    def predict(images: Tensor) -> Predictions:
        """Predictions for images `(B, 3, H, W)`; raises ValueError for another size than a fixed one."""
        if side and images.shape[2:] != (side, side):
            raise ValueError(f"{path}: expected pictures of {side} x {side} pixels, the only size that this file was "
                             f"exported for, found {images.shape[3]} x {images.shape[2]}")
        found = run(images)
        if found.ndim != 3 or (found.shape[0], found.shape[2]) != (len(images), n_columns):
            raise UnsafeWeights(f"{path}: expected an output ({len(images)}, N, {n_columns}) for the labels "
                                f"{metadata.labels}, found {tuple(found.shape)}")
        if n_points := metadata.n_points:
            first = 4 + len(metadata.labels)
            return Predictions(found[..., :4], found[..., 4:first], found[..., first:].unflatten(-1, (n_points, 3)))
        if not metadata.has_centres:
            return Predictions(found[..., :4], found[..., 4:])
        half = found[..., 2:4] / 2
        corners = torch.cat([found[..., :2] - half, found[..., :2] + half], dim=-1)
        return Predictions(corners, found[..., 4:5] * found[..., 5:])

    return predict


def _open_session(content: bytes, path: Path, n_threads: int | None) -> Any:
    import onnxruntime

    errors = onnxruntime.capi.onnxruntime_pybind11_state
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads or 0
    options.log_severity_level = 3  # errors, not advice on the graph
    options.add_session_config_entry("session.force_spinning_stop", "1")  # between runs the cores are others' too
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf, errors.NoSuchFile,
            errors.NotImplemented, errors.RuntimeException) as error:
        raise UnsafeWeights(f"{path}: expected an ONNX model, found {str(error)[:200]}") from error


def _bound(content: bytes, path: Path) -> Callable[[tuple[int, ...]], None]:
    """A check of pictures' shapes for a stranger's file, which has passed for one shape: see `graph`."""
    model = read_graph(content, path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    stride = read_metadata(metadata.get(METADATA, ""), path).stride
    check_shape = make_bound(model, path)
    check_shape(nominal_shape(model, stride))
    return check_shape
