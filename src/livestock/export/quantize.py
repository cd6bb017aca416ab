"""int8, for the CPU.

What is quantised was chosen by measurement with yolov5 (LOG.md): convolutions and what moves their outputs about; not
those at a quarter of the picture's size or more, which have few channels and many pixels and are as fast in float; not
the last ones, nor what follows, where boxes and scores are computed and would share one scale; not SiLU, which as one
float kernel is faster and more exact than a table of sigmoids and a product in int8.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.archives import read_image
from ..exceptions import BadData
from ..inference import picture_batches, to_tensor
from ..models.base import ONE_STAGE
from ..models.crops import cut_out, map_crop
from ..models.forward import load_for_inference
from ..models.loaded import LoadedModel
from ..models.metadata import METADATA
from ..tables import XYXY
from .convert import beside_target, silence

QUANTISED = ["Conv", "Concat", "MaxPool", "Add", "Resize"]
FLOAT_STRIDE = 4  # pixels of the picture by pixel of a feature map, up to which all stays in float
SILU_FLOOR = -6.0  # below it SiLU is within 0.015 of 0: the 256 steps of int8 go to what lies above


def quantize_onnx(
    source: Path, images: pd.DataFrame, target: Path, *, imgsz: int, float_stride: int = FLOAT_STRIDE,
    boxes: pd.DataFrame | None = None,
) -> Path:
    """Writes an ONNX file of `export_onnx` with int8 weights and activations, calibrated on the images of a table.

    Weights have a scale a channel, activations one a tensor, asymmetric, from the smallest to the largest value seen
    on `images`, which are prepared as for inference: some 50, none of them scored later. Feature maps of up to
    `float_stride` pixels of the picture by pixel stay in float, and so do the last convolutions and all that follows
    them. The file is for ONNX Runtime alone. A network of keypoints is calibrated on the objects in `boxes`, a table,
    as it cuts them out; those that see whole pictures need none. Raises ValueError without
    images, BadData without such boxes, and UnsafeWeights for a file that `export_onnx` did not write.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quant_pre_process, quantize_static
    from onnxruntime.quantization.calibrate import create_calibrator

    if images.empty:
        raise ValueError(f"{source}: expected images to calibrate with, found an empty table")
    loaded = load_for_inference(source)
    pictures = _find_pictures(images, boxes, imgsz, loaded)
    metadata = {entry.key: entry.value for entry in onnx.load(source).metadata_props}[METADATA]
    with beside_target(target) as beside, tempfile.TemporaryDirectory() as folder, silence():
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(str(source), prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        _merge_silu(model)
        onnx.save(model, prepared)
        excluded = _find_float_nodes(model, float_stride)
        calibrator = create_calibrator(Path(prepared), QUANTISED, str(Path(folder) / "augmented.onnx"))
        calibrator.collect_data(_reader(pictures))
        quantize_static(
            prepared, str(beside), _reader(pictures), quant_format=QuantFormat.QDQ,
            calibrate_method=CalibrationMethod.MinMax,  # the others cannot take pictures of several sizes
            op_types_to_quantize=QUANTISED, nodes_to_exclude=excluded, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            extra_options={"TensorQuantOverrides": _raised_floors(model, calibrator.compute_data(), excluded)},
        )
        content = onnx.load(beside)
        onnx.helper.set_model_props(content, {METADATA: metadata})
        onnx.save(content, beside)
        load_for_inference(beside)
    return target


def _find_pictures(
    images: pd.DataFrame, boxes: pd.DataFrame | None, imgsz: int, loaded: LoadedModel
) -> Callable[[], Iterator[list[np.ndarray]]]:
    """A function that gives what the network sees, a picture at a time: whole pictures, or objects in boxes."""
    crop = loaded.architecture.get("crop", "whole")
    if crop in ("whole", ONE_STAGE):
        return lambda: (chunk for _, chunk in picture_batches(images, imgsz, loaded.stride, 1, loaded.resize))
    if boxes is None or not (own := boxes[boxes["image_id"].isin(images["image_id"])].to_dict("records")):
        raise BadData(f"{loaded.path}: expected boxes of these images to calibrate with, since this network sees "
                      f"objects cut out of them ({crop}), found none")
    rows = images.set_index("image_id")

    def cut() -> Iterator[list[np.ndarray]]:
        """Each object, cut out of its picture."""
        for box in own:
            picture = read_image(rows.at[box["image_id"], "archive"], rows.at[box["image_id"], "member"])
            corners = np.array([box[name] for name in XYXY])
            yield [cut_out(picture, map_crop(corners, picture.shape[1::-1], imgsz, crop), imgsz)]

    return cut


def _reader(pictures: Callable[[], Iterator[list[np.ndarray]]]) -> Any:
    """The pictures one by one, as ONNX Runtime's calibration asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.chunks = pictures()

        def get_next(self) -> dict[str, np.ndarray] | None:
            chunk = next(self.chunks, None)
            return None if chunk is None else {"images": to_tensor(chunk).numpy()}

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


def _find_float_nodes(model: Any, float_stride: int) -> list[str]:
    """Names of the nodes at the picture's size, of the last convolutions and all behind them, and of those of sizes."""
    return sorted({*_find_early(model, float_stride), *_find_late(model), *_find_sizes(model)})


def _find_early(model: Any, float_stride: int) -> list[str]:
    """Names of the nodes whose outputs have a pixel for up to so many of the picture, before anything is enlarged."""
    stride_of, names = {model.graph.input[0].name: 1}, []
    for node in model.graph.node:  # in the order of computation
        known = [stride_of[name] for name in node.input if name in stride_of]
        if not known:
            continue
        steps = [attribute.ints for attribute in node.attribute if attribute.name == "strides"]
        stride = max(known) * max(steps[0] if steps else [1])
        stride_of |= dict.fromkeys(node.output, stride)
        if stride <= float_stride:
            names.append(node.name)
    return names


def _find_late(model: Any) -> list[str]:
    """Names of the nodes behind which there is no other convolution."""
    before_conv: set[str] = set()  # tensors
    names = []
    for node in reversed(model.graph.node):
        is_before = not before_conv.isdisjoint(node.output)
        if is_before or node.op_type == "Conv":
            before_conv |= set(node.input)
        if not is_before:
            names.append(node.name)
    return names


def _find_sizes(model: Any) -> list[str]:
    """Names of the nodes that compute with sizes, such as how far EfficientNet pads: in int8 it would pad otherwise."""
    fixed = {tensor.name for tensor in model.graph.initializer} | {
        node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    sizes: set[str] = set()
    names = []
    for node in model.graph.node:  # in the order of computation
        inputs = {name for name in node.input if name} - fixed
        if node.op_type == "Shape" or (inputs and inputs <= sizes):
            sizes |= set(node.output)
            names.append(node.name)
    return names
