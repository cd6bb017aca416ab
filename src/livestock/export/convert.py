"""A model as other runtimes take it: ONNX, ONNX in int8, TorchScript; each with the decoding of boxes inside.

int8 is for the CPU. What is quantised was chosen by measurement (LOG.md): convolutions and what moves their outputs
about; not the first three layers, which have few channels and many pixels and are as fast in float, nor the head, whose
outputs are boxes; not SiLU, which as one float kernel is faster and more exact than a table of sigmoids and a product
in int8.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..inference import picture_batches, to_tensor
from ..models.yolov5.forward import METADATA, load_for_inference, load_torch, write_metadata

OPSET = 13  # the first with quantisation by channel; ONNX Runtime is as fast with it as with later ones
BOXES_PX, SCORES = 0.5, 1e-3  # the most by which an export may differ from PyTorch
QUANTISED = ["Conv", "Concat", "MaxPool", "Add", "Resize"]
FLOAT_LAYERS = (0, 1, 2)  # and the head
SILU_FLOOR = -6.0  # below it SiLU is within 0.015 of 0: the 256 steps of int8 go to what lies above


@dataclass(frozen=True)
class Differences:
    """The largest differences of two models: `boxes` in pixels of the letterboxed picture, `scores` in 0..1."""

    boxes: float
    scores: float

    @property
    def small(self) -> bool:
        """Whether an export may differ so much; NaN may not."""
        return self.boxes <= BOXES_PX and self.scores <= SCORES


def export_onnx(weights: Path, target: Path) -> Path:
    """Writes the model of a `.pt` or `.safetensors` file as ONNX in float32, for any batch, height and width.

    Input `images` and output `output` are those of `forward.LoadedModel`. Needs only what is installed with this
    package: no onnxscript, so PyTorch's older exporter. Raises ValueError if the file gives other boxes than PyTorch.
    """
    import onnx

    model = _exportable(weights)
    with _beside(target) as beside:
        with _silence():
            torch.onnx.export(
                model, (_noise(2, 96, 64),), str(beside), dynamo=False, opset_version=OPSET,
                input_names=["images"], output_names=["output"],
                dynamic_axes={"images": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch", 1: "boxes"}},
            )
        content = onnx.load(beside)
        onnx.helper.set_model_props(content, {METADATA: _metadata(model)})
        content.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 5 + len(model.names)  # traced as unknown
        onnx.save(content, beside)
        _check_noise(weights, beside)
    return target


def export_torchscript(weights: Path, target: Path) -> Path:
    """Writes the model of a `.pt` or `.safetensors` file as traced TorchScript, for any batch, height and width.

    Such a file is a program: `load_for_inference` loads it only where the caller says that it is his own (`trusted`).
    Raises ValueError if the file gives other boxes than PyTorch.
    """
    model = _exportable(weights)
    with _beside(target) as beside:
        with _silence(), torch.inference_mode():
            traced = torch.jit.trace(model, _noise(2, 96, 64), check_trace=False)
            torch.jit.save(traced, str(beside), _extra_files={METADATA: _metadata(model)})
        _check_noise(weights, beside)
    return target


def compare_exports(weights: Path, exported: Path, images: pd.DataFrame, *, imgsz: int, batch: int = 16) -> Differences:
    """How far the boxes and scores of `exported`, a file of this run, lie from those of `weights` on real images.

    Boxes that no threshold would let through (a score below 0.001) count too.
    """
    first, second = load_for_inference(weights), load_for_inference(exported, trusted=True)
    found = [
        _differences(first(pictures), second(pictures))
        for _, chunk in picture_batches(images, imgsz, first.stride, batch)
        for pictures in [to_tensor(chunk)]
    ]
    return Differences(max((one.boxes for one in found), default=0.0), max((one.scores for one in found), default=0.0))


def quantize_onnx(
    source: Path, images: pd.DataFrame, target: Path, *, imgsz: int, float_layers: Collection[int] = FLOAT_LAYERS
) -> Path:
    """Writes an ONNX file of `export_onnx` with int8 weights and activations, calibrated on the images of a table.

    Weights have a scale a channel, activations one a tensor, asymmetric, from the smallest to the largest value seen
    on `images`, which are letterboxed as for inference: some 50, none of them scored later. The layers
    `float_layers`, by their number in the model, stay in float, and so does the head. The file is for ONNX Runtime
    alone. Raises ValueError without images or for a file that `export_onnx` did not write.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quant_pre_process, quantize_static
    from onnxruntime.quantization.calibrate import create_calibrator

    if images.empty:
        raise ValueError(f"{source}: expected images to calibrate with, found an empty table")
    forward = load_for_inference(source)
    with _beside(target) as beside, tempfile.TemporaryDirectory() as folder, _silence():
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(str(source), prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        _merge_silu(model)
        onnx.save(model, prepared)
        excluded = _float_nodes(model, float_layers)
        calibrator = create_calibrator(Path(prepared), QUANTISED, str(Path(folder) / "augmented.onnx"))
        calibrator.collect_data(_pictures(images, imgsz, forward.stride))
        quantize_static(
            prepared, str(beside), _pictures(images, imgsz, forward.stride), quant_format=QuantFormat.QDQ,
            calibrate_method=CalibrationMethod.MinMax,  # the others cannot take pictures of several sizes
            op_types_to_quantize=QUANTISED, nodes_to_exclude=excluded, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            extra_options={"TensorQuantOverrides": _raised_floors(model, calibrator.compute_data(), excluded)},
        )
        content = onnx.load(beside)
        onnx.helper.set_model_props(content, {METADATA: write_metadata(forward.labels, forward.stride)})
        onnx.save(content, beside)
        load_for_inference(beside)
    return target


def _exportable(weights: Path) -> Any:
    """The model with what tracing needs: grids made again for each size, nothing written in place, one output."""
    model = load_torch(weights)
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    model.model[-1].export = model.model[-1].dynamic = True
    return model


def _metadata(model: Any) -> str:
    return write_metadata(list(model.names.values()), int(model.stride.max()))


def _check_noise(weights: Path, exported: Path) -> None:
    """Raises ValueError if an export differs on noise of other sizes and batches than it was traced with."""
    first, second = load_for_inference(weights), load_for_inference(exported, trusted=True)
    for shape in ((1, first.stride * 3, first.stride * 5), (3, first.stride * 4, first.stride)):
        with torch.jit.optimized_execution(False):  # which takes seconds, and two passes
            found = _differences(first(_noise(*shape)), second(_noise(*shape)))
        if not found.small:
            raise ValueError(f"{weights}: expected an export that differs by up to {BOXES_PX} px and {SCORES}, found "
                             f"{found} on noise of the shape {shape}")


def _noise(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def _differences(first: torch.Tensor, second: torch.Tensor) -> Differences:
    """Corners and scores of two outputs `(B, N, 5 + n_classes)` of the same pictures."""
    if first.shape != second.shape:
        return Differences(float("inf"), float("inf"))
    corners, scores = [], []
    for output in (first, second):
        centre, size = output[..., :2], output[..., 2:4]
        corners.append(torch.cat([centre - size / 2, centre + size / 2], dim=-1))
        scores.append(output[..., 4:5] * output[..., 5:])
    return Differences(float((corners[0] - corners[1]).abs().max()), float((scores[0] - scores[1]).abs().max()))


def _pictures(images: pd.DataFrame, imgsz: int, stride: int) -> Any:
    """The images one by one, as ONNX Runtime's calibration asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.chunks = picture_batches(images, imgsz, stride, batch=1)

        def get_next(self) -> dict[str, np.ndarray] | None:
            chunk = next(self.chunks, None)
            return None if chunk is None else {"images": to_tensor(chunk[1]).numpy()}

    return Pictures()


def _merge_silu(model: Any) -> None:
    """`x * sigmoid(x)` as one operator of ONNX Runtime, in place.

    ONNX Runtime does so itself, but not any more where `x` comes from int8.
    """
    from onnx import helper

    sigmoids = {node.output[0]: node for node in model.graph.node if node.op_type == "Sigmoid"}
    nodes, merged = [], set()
    for node in model.graph.node:
        gate = next((sigmoids[name] for name in node.input if name in sigmoids), None)
        if node.op_type == "Mul" and gate is not None and gate.input[0] in node.input:
            merged.add(gate.output[0])
            node = helper.make_node("QuickGelu", [gate.input[0]], list(node.output), name=f"{node.name}_silu",
                                    domain="com.microsoft", alpha=1.0)
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(node for node in nodes if not merged & set(node.output))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _raised_floors(model: Any, ranges: Any, excluded: Collection[str]) -> dict[str, list[dict[str, np.float32]]]:
    """The range to quantise of each convolution that SiLU follows, in the form of the quantiser's overrides."""
    floors = {}
    inputs = {node.input[0] for node in model.graph.node if node.op_type == "QuickGelu"}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.name not in excluded and node.output[0] in inputs:
            low, high = (float(np.squeeze(value)) for value in ranges.data[node.output[0]].range_value)
            floors[node.output[0]] = [{"rmin": np.float32(max(low, SILU_FLOOR)), "rmax": np.float32(max(high, 0.1))}]
    return floors


def _float_nodes(model: Any, layers: Collection[int]) -> list[str]:
    """Names of the nodes of some of yolov5's layers and of its last, the head: `/model.0/conv/Conv`."""
    layer_of = {node.name: int(node.name.split("/")[1].removeprefix("model.")) for node in model.graph.node
                if node.name.startswith("/model.")}
    return [name for name, layer in layer_of.items() if layer in {*layers, max(layer_of.values())}]


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A path to write to that becomes `target` if nothing was raised, and else goes. It has the same suffix."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        yield beside
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _silence() -> Iterator[None]:
    """What tracing yolov5 and the quantiser say is known: no user can act on it."""
    with warnings.catch_warnings():
        for message in ("You are using the legacy TorchScript-based ONNX export", "The feature will be removed",
                        r"`torch\.jit\.(trace|trace_method|save)` is deprecated"):
            warnings.filterwarnings("ignore", message=message, category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Constant folding - Only steps=1")  # where a model pads: no matter
        # yolov5 compares shapes; `dynamic` makes these comparisons harmless, and `_check_noise` sees to it.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning, module="yolov5")
        yield
