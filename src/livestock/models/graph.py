"""An ONNX file before anything of it runs: known operators alone, and no more memory and work than a detector takes.

ONNX can loop for ever, and a file of 400 bytes can ask for any memory. So each operator must be on a list, in which
nothing loops or branches, and for each size of picture the shape of every tensor must follow from that size alone.
Whole numbers are divided by sizes alone, never by 0: the processor would end the process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..exceptions import UnsafeWeights
from .checkpoint import check_finite
from .yolov5.architecture import BUILD_ERRORS, MOST_HELD, MOST_IN_ONE, MOST_WORK

OPERATORS = {
    "": {
        # what `export` writes, of the modules that a checkpoint may have
        "Add", "BatchNormalization", "Cast", "Concat", "Constant", "ConstantOfShape", "Conv", "DequantizeLinear",
        "Div", "Equal", "Expand", "Gather", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MaxPool", "Mul",
        "Pad", "Pow", "QuantizeLinear", "Range", "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Split",
        "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
        # RetinaNet: box sizes
        "Clip", "Exp", "Flatten",
        # D-FINE: attention, positions, queries
        "Abs", "And", "Cos", "Einsum", "Erf", "GatherElements", "Greater", "GridSample", "LayerNormalization", "Less",
        "Log", "MatMul", "Neg", "Not", "ReduceMax", "ReduceMean", "ReduceSum", "ScatterND", "Sin", "Softmax", "Tile",
        "TopK",
        # TOOD: group normalisation; SSD: the longer side; RF-DETR: proposals outside of the picture
        "InstanceNormalization", "Max", "Or",
        # networks of keypoints: maps from features, the highest cell of a map, its column; padding of EfficientNet
        "ArgMax", "AveragePool", "Ceil", "ConvTranspose", "Gemm", "LessOrEqual", "Mod", "Sign",
    },
    "com.microsoft": {"QuickGelu"},
}
FOLDED = {  # what lies between the size of a picture and another shape
    "Add", "Cast", "Ceil", "Clip", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Gather", "Identity", "Mod",
    "Mul", "Range", "Reshape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
}
DIVISIONS = {"Div", "Mod"}
MOST_FOLDED = 1 << 12  # numbers in a tensor of sizes, such as the columns of a grid
MOST_NODES, MOST_ROUNDS = 20_000, 30
MOST_TOTAL = 8_000  # numbers in all tensors of a pass, by pixel: about four times those of yolov5x6 in int8
NOMINAL = 256  # pixels, both sides of the picture that a file is checked with before it is loaded
EINSUM = re.compile(rb" *[a-z]+ *, *[a-z]+ *-> *[a-z]+ *")  # of two tensors, each dimension by its letter
TYPES = ("FLOAT", "FLOAT16", "DOUBLE", "INT8", "UINT8", "INT32", "INT64", "BOOL")  # of the tensors in a file


def read_graph(content: bytes, path: Path) -> Any:
    """An ONNX model from the bytes of `path`.

    Raises UnsafeWeights naming what is not known of it, what lies in another file, or weights that are not finite.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise UnsafeWeights(f"{path}: expected an ONNX model, found {error}") from error
    graph = model.graph
    if not graph.node or len(graph.input) != 1 or not graph.output:
        raise UnsafeWeights(f"{path}: expected an ONNX model with one input, found {len(graph.node)} nodes, "
                            f"{len(graph.input)} inputs and {len(graph.output)} outputs")
    for fault in _faults(model):
        raise UnsafeWeights(f"{path}: refused, {fault}; give the weights as .pt or .safetensors, or export them with "
                            "`export.export_onnx`")
    for name, tensor in _tensors(model):
        try:
            numbers = onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise UnsafeWeights(f"{path}: {name}: expected a tensor of {list(tensor.dims)}, found {error}") from error
        is_mask = numbers.shape == () and np.isneginf(numbers)  # the score of a place that RF-DETR rules out
        if numbers.dtype.kind == "f" and not is_mask:
            check_finite({name: torch.from_numpy(np.array(numbers))}, path)
    return model


def _faults(model: Any) -> Iterator[str]:
    """What an ONNX file holds beyond a detector."""
    from onnx import AttributeProto, TensorProto

    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer:
        yield "it has functions, a training or sparse tensors"
    if len(graph.node) > MOST_NODES:
        yield f"it has {len(graph.node):,} nodes, more than {MOST_NODES:,}"
    for node in graph.node:
        if node.op_type not in OPERATORS.get(node.domain, ()):
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            yield f"it has the operator {name}, which no detector of this project has"
        for attribute in node.attribute:
            if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) or attribute.HasField("g"):
                yield f"its operator {node.op_type} has a graph of its own"
        if node.op_type == "Einsum" and not (
                len(node.attribute) == 1 and EINSUM.fullmatch(node.attribute[0].s) and len(node.input) == 2):
            yield f"its operator Einsum {node.name!r} is no product of two tensors"
        if node.op_type == "Constant" and [attribute.name for attribute in node.attribute] != ["value"]:
            yield f"its constant {node.name!r} is no tensor"
    for name, tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            yield f"its tensor {name!r} lies in another file"
        if tensor.data_type not in [TensorProto.DataType.Value(name) for name in TYPES]:
            yield f"its tensor {name!r} is of the type {tensor.data_type}, not one of {TYPES}"
    made = [name for node in graph.node for name in node.output] + [tensor.name for tensor in graph.initializer]
    if len(set(made)) != len(made) or graph.input[0].name in made:
        yield "two of its tensors have one name"


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in model.graph.node:
        for attribute in node.attribute:
            for tensor in [attribute.t, *attribute.tensors] if attribute.HasField("t") or attribute.tensors else []:
                yield node.output[0], tensor


def make_bound(model: Any, path: Path) -> Callable[[tuple[int, ...]], None]:
    """A function that raises UnsafeWeights if a pass over pictures of a shape `(B, 3, H, W)` would take too much.

    `model` is of `read_graph`. The function remembers the shapes that it has passed.
    """
    skeleton, values = _make_skeleton(model)
    ranges = [node for node in model.graph.node if node.op_type == "Range"]
    passed: set[tuple[int, ...]] = set()

    def check(shape: tuple[int, ...]) -> None:
        """Raises UnsafeWeights for a shape `(B, 3, H, W)` that would take too much."""
        if shape in passed:
            return
        shapes = _find_shapes(skeleton, ranges, dict(values), shape, path)
        _check_demands(model.graph, shapes, shape, path)
        passed.add(shape)

    return check


def nominal_shape(model: Any, stride: int) -> tuple[int, ...]:
    """A shape to check a file with before it is loaded: its own, where that is fixed."""
    side = math.ceil(NOMINAL / stride) * stride
    given = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return tuple(own or usual for own, usual in zip(given, (1, 3, side, side), strict=False))


def _make_skeleton(model: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """The model without its weights and the shapes that it claims, on which nothing may rest here; its small tensors.

    Each `Range` becomes an input of unknown length: `onnx` would count to any number.
    """
    import onnx

    graph, values = onnx.GraphProto(), {}
    graph.name = "skeleton"
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= MOST_FOLDED:
            values[tensor.name] = onnx.numpy_helper.to_array(tensor)
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
            if math.prod(tensor.dims) <= MOST_FOLDED:
                values[tensor.name] = onnx.numpy_helper.to_array(tensor)
            continue
        if node.op_type == "Range":
            graph.input.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.INT64, [None]))
            continue
        graph.node.append(node)
        if node.domain == "com.microsoft":  # of one input's shape, and unknown to `onnx`
            del graph.node[-1].attribute[:]
            graph.node[-1].op_type, graph.node[-1].domain = "Identity", ""
    for output in model.graph.output:
        graph.output.append(onnx.helper.make_tensor_value_info(output.name, output.type.tensor_type.elem_type, None))
    graph.input.append(model.graph.input[0])
    version = max((entry.version for entry in model.opset_import if not entry.domain), default=1)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)]), values


def _find_shapes(
    skeleton: Any, ranges: list[Any], values: dict[str, np.ndarray], shape: tuple[int, ...], path: Path
) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor for pictures of one shape.

    `onnx` infers shapes from shapes, but for those that a file computes through tensors of sizes, such as a grid's:
    these are computed here, and put into its place as constants, until nothing is unknown. Raises
    UnsafeWeights otherwise.
    """
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(skeleton)
    graph = model.graph
    picture = graph.input[-1]
    picture.CopyFrom(onnx.helper.make_tensor_value_info(picture.name, picture.type.tensor_type.elem_type, shape))
    wanted = {name for node in [*graph.node, *ranges] for name in node.output if name}
    shapes: dict[str, tuple[int, ...]] = {}
    for _ in range(MOST_ROUNDS):
        try:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except BUILD_ERRORS as error:
            raise UnsafeWeights(f"{path}: expected an ONNX model, found {str(error)[:200]}") from error
        infos = [*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input]
        shapes |= {info.name: found for info in infos if (found := _read_shape(info)) is not None}
        shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        if wanted <= shapes.keys():
            _check_divisions(inferred.graph, values, path)
            return shapes
        try:
            folded = _fold([*graph.node, *ranges], values, shapes)
        except BUILD_ERRORS as error:
            raise UnsafeWeights(f"{path}: expected an ONNX model, found sizes that cannot be computed: "
                                f"{error}") from error
        if not folded:
            break
        nodes = [node for node in graph.node if not set(node.output) <= folded.keys()]
        inputs = [given for given in graph.input if given.name not in folded]
        ranges = [node for node in ranges if node.output[0] not in folded]
        del graph.node[:], graph.input[:]
        graph.node.extend(nodes)
        graph.input.extend(inputs)
        graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in folded.items())
        values |= folded
    unknown = sorted(wanted - shapes.keys())
    raise UnsafeWeights(f"{path}: refused, the shape of its tensor {unknown[0]!r} does not follow from the picture's, "
                        f"{shape}: it could take any memory")


def _check_divisions(graph: Any, values: dict[str, np.ndarray], path: Path) -> None:
    """Raises UnsafeWeights for a division of whole numbers by something that is not known to be above 0."""
    from onnx import TensorProto

    infos = [*graph.value_info, *graph.output, *graph.input]
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in DIVISIONS and types.get(node.input[1]) not in (
                TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
            divisor = values.get(node.input[1])
            if divisor is None or (divisor <= 0).any():
                raise UnsafeWeights(f"{path}: refused, it divides whole numbers by {node.input[1]!r}, which is not "
                                    "known to be above 0")


def _read_shape(info: Any) -> tuple[int, ...] | None:
    if not info.type.tensor_type.HasField("shape"):
        return None
    dims = info.type.tensor_type.shape.dim
    is_known = all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims)
    return tuple(dim.dim_value for dim in dims) if is_known else None


def _fold(nodes: list[Any], values: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The nodes whose small outputs are known from shapes and small constants alone, by the name of the output."""
    from onnx.reference import ReferenceEvaluator

    known, folded = dict(values), {}
    for node in nodes:
        if len(node.output) != 1:
            continue
        name, inputs = node.output[0], [one for one in node.input if one]
        if node.op_type == "Shape" and inputs[0] in shapes:
            part = {attribute.name: attribute.i for attribute in node.attribute}
            folded[name] = known[name] = np.array(shapes[inputs[0]][part.get("start"):part.get("end")], np.int64)
        elif node.op_type in FOLDED and all(one in known for one in inputs) and (
                _is_short_range([known[one] for one in inputs]) if node.op_type == "Range"
                else math.prod(shapes.get(name, (MOST_FOLDED + 1,))) <= MOST_FOLDED):
            if node.op_type in DIVISIONS and known[inputs[1]].dtype.kind != "f" and (known[inputs[1]] <= 0).any():
                raise ValueError(f"a division by {known[inputs[1]].min()}")
            outputs: Any = ReferenceEvaluator(node).run(None, {one: known[one] for one in inputs})
            folded[name] = known[name] = np.asarray(outputs[0])
    return folded


def _is_short_range(bounds: list[np.ndarray]) -> bool:
    start, limit, step = (float(np.ravel(bound)[0]) if bound.size == 1 else math.nan for bound in bounds)
    return bool(step) and abs(limit - start) / abs(step) <= MOST_FOLDED  # NaN is no number of steps


def _check_demands(graph: Any, shapes: dict[str, tuple[int, ...]], shape: tuple[int, ...], path: Path) -> None:
    """Raises UnsafeWeights if the tensors of a pass are too large, one, all, or those that are needed at a time."""
    area = shape[0] * max(math.prod(shape[2:]), NOMINAL**2)
    last_use = {name: index for index, node in enumerate(graph.node) for name in node.input}
    held: dict[str, float] = {}
    most_held = total = work = in_one = 0.0
    for index, node in enumerate(graph.node):
        if node.op_type == "Constant":
            continue  # in the file
        made = {name: math.prod(shapes[name]) / area for name in node.output if name}
        held |= made
        columns = _columns_of(node, shapes) / area
        in_one = max(in_one, columns, *made.values())
        most_held = max(most_held, sum(held.values()) + columns)
        total += sum(made.values()) + columns
        work += columns * shapes[node.input[1]][0] if columns else sum(made.values()) * _work_of(node, shapes)
        held = {name: size for name, size in held.items() if last_use.get(name, -1) > index}
    for what, found, most in (("numbers in a tensor", in_one, MOST_IN_ONE), ("numbers to hold", most_held, MOST_HELD),
                              ("numbers in all", total, MOST_TOTAL), ("multiplications", work, MOST_WORK)):
        if found > most:
            raise UnsafeWeights(f"{path}: refused, expected up to {most:,} {what} by pixel of a picture, some times "
                                f"the most of a published model, found {found:,.0f} for pictures of {shape}")


def _columns_of(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """Numbers that a transposed convolution makes before it adds them up, whatever of them it then cuts off; else 0."""
    if node.op_type != "ConvTranspose":
        return 0
    pictures, weight = (shapes[name] for name in node.input[:2])
    return pictures[0] * math.prod(pictures[2:]) * math.prod(weight[1:])


def _work_of(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """Multiplications for each number that a node makes."""
    if node.op_type == "Conv":
        return math.prod(shapes[node.input[1]][1:])
    if node.op_type == "MatMul":
        return shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        return max(shapes[node.input[0]])  # either side may be the one that is summed over
    if node.op_type == "Einsum":
        return _summed_of(node, shapes)
    kernels = [attribute.ints for attribute in node.attribute if attribute.name == "kernel_shape"]
    return math.prod(kernels[0]) if node.op_type in ("MaxPool", "AveragePool") and kernels else 1


def _summed_of(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """Products that each number of an Einsum is the sum of; `_faults` has seen its equation."""
    terms, made = node.attribute[0].s.decode().replace(" ", "").split("->")
    size_of = {letter: size for term, name in zip(terms.split(","), node.input, strict=True)
               for letter, size in zip(term, shapes[name], strict=True)}
    return math.prod(size for letter, size in size_of.items() if letter not in made)
