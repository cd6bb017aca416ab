"""ONNX files of strangers: what loops, branches or asks for memory is refused before any of it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from livestock import export
from livestock.models import graph as graph_module
from livestock.models.forward import load_for_inference
from livestock.models.metadata import METADATA, Metadata, write_metadata
from livestock.models.yolov5.library import STARTER, load

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.bad_input]
LABELS = ["pig", "cow"]
MOST_BYTES = 300_000_000


@pytest.fixture(autouse=True)
def _bounded_memory() -> Iterator[None]:
    """Fails a test that takes more than `MOST_BYTES`, where the system tells how much that was."""
    status = Path("/proc/self/status")
    if not Path("/proc/self/clear_refs").exists():
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = int(status.read_text().split("VmRSS:")[1].split()[0])
    yield
    assert int(status.read_text().split("VmHWM:")[1].split()[0]) - before < MOST_BYTES // 1024


def node(kind: str, inputs: str, output: str = "output", **attributes: Any) -> Any:
    """An operator; `inputs` are names with blanks between."""
    return helper.make_node(kind, inputs.split(" ") if inputs else [], [output], **attributes)


def whole(name: str, *values: int) -> Any:
    """A tensor of whole numbers, of one dimension."""
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


def number(name: str, value: int) -> Any:
    """A whole number without a dimension."""
    return helper.make_tensor(name, TensorProto.INT64, [], [value])


def write(path: Path, nodes: Sequence[Any], tensors: Sequence[Any] = ()) -> Path:
    """A file with the metadata of this project, from `images` to `output`."""
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "height", "width"])]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", "boxes", 6])]
    model = helper.make_model(helper.make_graph(nodes, "evil", inputs, outputs, tensors),
                              opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7
    helper.set_model_props(model, {METADATA: write_metadata(Metadata(LABELS, 32))})
    path.write_bytes(model.SerializeToString())
    return path


def loop() -> Any:
    """For ever, as good as: 2^62 rounds."""
    body = helper.make_graph(
        [node("Identity", "go", "on"), node("Identity", "value", "same")], "body",
        [helper.make_tensor_value_info("round", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("value", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("same", TensorProto.FLOAT, None)])
    return node("Loop", "rounds yes images", body=body)


def external() -> Any:
    """A tensor that lies in another file."""
    tensor = helper.make_tensor("weight", TensorProto.FLOAT, [1], [0.0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


ATTACKS: dict[str, tuple[str, list[Any], list[Any]]] = {
    "4 GB of zeros": ("128 numbers in a tensor", [node("ConstantOfShape", "shape")],
                      [whole("shape", 1, 10**9 // 6, 6)]),
    "loops for ever": ("it has the operator Loop", [loop()], [
        number("rounds", 2**62), helper.make_tensor("yes", TensorProto.BOOL, [], [True])]),
    "as many as a pixel says": ("does not follow from the picture's", [
        node("Slice", "images first last", "pixel"), node("Cast", "pixel", "n", to=TensorProto.INT64),
        node("Reshape", "n one", "shape"), node("ConstantOfShape", "shape")],
        [whole("first", 0, 0, 0, 0), whole("last", 1, 1, 1, 1), whole("one", 1)]),
    "expands": ("128 numbers in a tensor", [node("Expand", "images shape")], [whole("shape", 100_000, 3, 1, 1)]),
    "resizes": ("128 numbers in a tensor", [node("Resize", "images  scales")],
                [helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, 100, 100])]),
    "pads": ("128 numbers in a tensor", [node("Pad", "images pads")],
             [whole("pads", 0, 0, 20_000, 20_000, 0, 0, 0, 0)]),
    "looks at millions of neighbours": ("1,000,000 multiplications", [
        node("MaxPool", "images", kernel_shape=[4001, 4001], pads=[2000] * 4)], []),
    "doubles twenty times": ("128 numbers in a tensor", [
        node("Concat", f"{'images' if n == 0 else f'x{n}'} {'images' if n == 0 else f'x{n}'}",
             "output" if n == 19 else f"x{n + 1}", axis=1) for n in range(20)], []),
    "keeps hundreds": ("600 numbers to hold", [
        *(node("Mul", "images images" if n == 0 else f"x{n} images", f"x{n + 1}") for n in range(300)),
        *(node("Add", f"{f'y{n}' if n > 1 else 'x1'} x{n + 1}", "output" if n == 299 else f"y{n + 1}")
          for n in range(1, 300))], []),
    "counts to ten billion": ("does not follow from the picture's", [
        node("Range", "start end step", "range"), node("Cast", "range", to=TensorProto.FLOAT)],
        [number("start", 0), number("end", 10**10), number("step", 1)]),
    "tiles": ("128 numbers in a tensor", [node("Tile", "images shape")], [whole("shape", 1, 1, 9999, 9999)]),
    "tiles as a pixel says": ("does not follow from the picture's", [
        node("Slice", "images first last", "pixel"), node("Cast", "pixel", "n", to=TensorProto.INT64),
        node("Reshape", "n one", "times"), node("Concat", "ones times", "shape", axis=0), node("Tile", "images shape")],
        [whole("first", 0, 0, 0, 0), whole("last", 1, 1, 1, 1), whole("one", 1), whole("ones", 1, 1, 1)]),
    "multiplies large matrices": ("1,000,000 multiplications", [
        node("Slice", "images first last", "pixel"), node("Expand", "pixel shape", "x0"),
        *(node("MatMul", f"x{n} x0", f"x{n + 1}") for n in range(4)), node("Identity", "x4")],
        [whole("first", 0, 0, 0, 0), whole("last", 1, 1, 1, 1), whole("shape", 1, 1, 2896, 2896)]),
    "sums products": ("1,000,000 multiplications", [
        node("Slice", "images first last", "pixel"), node("Expand", "pixel shape", "x0"),
        *(node("Einsum", f"x{n} x0", f"x{n + 1}", equation="abij,cdjk->abik") for n in range(4)),
        node("Identity", "x4")],
        [whole("first", 0, 0, 0, 0), whole("last", 1, 1, 1, 1), whole("shape", 1, 1, 2896, 2896)]),
    "a product of many": ("its operator Einsum .* is no product of two tensors", [
        node("Einsum", "images images", equation="...i,...j->...ij")], []),
    "divides by zero": ("sizes that cannot be computed: a division by 0", [
        node("Shape", "images", "size"), node("Div", "size nothing", "shape"), node("ConstantOfShape", "shape")],
        [whole("nothing", 0, 0, 0, 0)]),
    "divides by a pixel": ("it divides whole numbers by 'n', which is not known to be above 0", [
        node("Cast", "images", "n", to=TensorProto.INT64), node("Div", "n n", "whole"),
        node("Cast", "whole", to=TensorProto.FLOAT)], []),
    "remainders of a division by zero": ("sizes that cannot be computed: a division by 0", [
        node("Shape", "images", "size"), node("Mod", "size nothing", "shape"), node("ConstantOfShape", "shape")],
        [whole("nothing", 0, 0, 0, 0)]),
    "remainders of a division by a pixel": ("it divides whole numbers by 'n', which is not known to be above 0", [
        node("Cast", "images", "n", to=TensorProto.INT64), node("Mod", "n n", "whole"),
        node("Cast", "whole", to=TensorProto.FLOAT)], []),
    "averages millions of neighbours": ("1,000,000 multiplications", [
        node("AveragePool", "images", kernel_shape=[4001, 4001], pads=[2000] * 4)], []),
    "cuts off most of what it convolves": ("128 numbers in a tensor", [  # 400 for each pixel, of which one is left
        node("Expand", "one shape", "weight"), node("ConvTranspose", "images weight", pads=[9, 9, 10, 10])],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]), whole("shape", 3, 1, 20, 20)]),
    "convolves thousands of maps": ("1,000,000 multiplications", [
        node("Expand", "one shape", "x0"), node("Expand", "one square", "weight"),
        *(node("ConvTranspose", f"x{n} weight", f"x{n + 1}") for n in range(5)), node("Identity", "x5")],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]), whole("shape", 1, 2048, 63, 63),
         whole("square", 2048, 2048, 1, 1)]),
    "multiplies and adds large matrices": ("1,000,000 multiplications", [
        node("Expand", "one shape", "x0"), *(node("Gemm", f"x{n} x0", f"x{n + 1}") for n in range(4)),
        node("Identity", "x4")],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]), whole("shape", 2896, 2896)]),
    "another file": ("its tensor 'weight' lies in another file", [node("Mul", "images weight")], [external()]),
    "one name twice": ("two of its tensors have one name", [
        node("Identity", "images"), node("ConstantOfShape", "shape")], [whole("shape", 10**9)]),
    "weights that are no numbers": ("weight: expected finite numbers, found infinity or NaN in 1 of 2", [
        node("Mul", "images weight")], [helper.make_tensor("weight", TensorProto.FLOAT, [2], [1.0, float("nan")])]),
    "a claim of more than there is": ("weight: expected a tensor of", [node("Mul", "images weight")], [
        TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[10**12], raw_data=b"1234")]),
}


@pytest.mark.parametrize(("dims", "value", "passes"), [
    ([], float("-inf"), True), ([], float("inf"), False), ([], float("nan"), False), ([1], float("-inf"), False)])
def test_minus_infinity_may_be_what_a_mask_fills_in_and_nothing_else(
    dims: list[int], value: float, passes: bool, tmp_path: Path
) -> None:
    tensor = helper.make_tensor("fill", TensorProto.FLOAT, dims, [value])
    path = write(tmp_path / "w.onnx", [node("Mul", "images fill")], [tensor])
    if passes:
        assert graph_module.read_graph(path.read_bytes(), path).graph.node
    else:
        with pytest.raises(ValueError, match="fill: expected finite numbers, found infinity or NaN in 1 of 1"):
            graph_module.read_graph(path.read_bytes(), path)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_onnx_file_that_asks_for_all_is_refused(name: str, tmp_path: Path) -> None:
    message, nodes, tensors = ATTACKS[name]
    path = write(tmp_path / "evil.onnx", nodes, tensors)
    assert path.stat().st_size < 30_000
    with pytest.raises(ValueError, match=rf"evil\.onnx: .*{message}"):
        load_for_inference(path)


def test_what_only_some_pictures_would_set_off_is_refused_for_these(tmp_path: Path) -> None:
    """For pictures of a height of 320 px it asks for ten billion numbers; the file passes for others."""
    nodes = [
        node("Shape", "images", "size"), node("Gather", "size two", "height"), node("Equal", "height wanted", "is"),
        node("Cast", "is", "one_or_none", to=TensorProto.INT64), node("Mul", "one_or_none many", "n"),
        node("Concat", "one n six", "shape", axis=0), node("ConstantOfShape", "shape")]
    path = write(tmp_path / "evil.onnx", nodes, [
        whole("two", 2), whole("wanted", 320), whole("many", 10**10), whole("one", 1), whole("six", 6)])
    forward = load_for_inference(path)
    assert forward(torch.zeros(1, 3, 64, 64)).scores.shape == (1, 0, 2)
    with pytest.raises(ValueError, match=r"evil\.onnx: refused, expected up to 128 .* pictures of \(1, 3, 320, 64\)"):
        forward(torch.zeros(1, 3, 320, 64))


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export.export_onnx(STARTER, tmp_path_factory.mktemp("onnx") / "starter.onnx")


def test_our_own_file_passes_and_its_shapes_are_those_of_onnx_runtime(starter: Path) -> None:
    """Every tensor of the graph, for a picture that is not square, is found to be as large as it comes to be."""
    import onnxruntime

    shape = (2, 3, 96, 160)
    model = graph_module.read_graph(starter.read_bytes(), starter)
    skeleton, values = graph_module._make_skeleton(model)
    ranges = [one for one in model.graph.node if one.op_type == "Range"]
    found = graph_module._find_shapes(skeleton, ranges, values, shape, starter)
    names = [name for one in model.graph.node if one.op_type != "Constant" for name in one.output]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    tensors = session.run(None, {"images": np.zeros(shape, np.float32)})
    assert len(tensors) > 250
    assert {name: found[name] for name in names} == {
        name: tensor.shape for name, tensor in zip(names, tensors, strict=True)}


@pytest.mark.filterwarnings("ignore:Constant folding")
def test_every_module_that_a_model_may_have_passes_as_onnx(tmp_path: Path) -> None:
    """In one model; at pictures of another shape than it was traced with."""
    layers = [[-1, 1, "Focus", [64, 3]], [-1, 3, "BottleneckCSP", [64]], [-1, 1, "DWConv", [64, 3, 2]],
              [-1, 1, "nn.ZeroPad2d", [[0, 1, 0, 1]]], [-1, 1, "nn.MaxPool2d", [2, 1, 0]], [-1, 1, "SPP", [64, [3, 5]]],
              [-1, 1, "Bottleneck", [64]], [-1, 1, "C3", [64]], [-1, 1, "SPPF", [64, 5]],
              [-1, 1, "nn.Upsample", [None, 2, "nearest"]], [[-1, -1], 1, "Concat", [1]]]
    model = load().detection_model({
        "nc": 2, "depth_multiple": 0.33, "width_multiple": 0.25, "anchors": [[10, 13, 16, 30]],
        "backbone": layers, "head": [[[-1], 1, "Detect", ["nc", "anchors"]]]})
    model.names = LABELS
    torch.save({"model": model.half(), "epoch": -1}, tmp_path / "odd.pt")
    exported = export.export_onnx(tmp_path / "odd.pt", tmp_path / "odd.onnx")
    picture = torch.rand(1, 3, 160, 96, generator=torch.Generator().manual_seed(0))
    found, expected = (load_for_inference(path, "cpu")(picture) for path in (exported, tmp_path / "odd.pt"))
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-3, atol=1e-3)


def test_a_file_of_this_run_is_not_looked_at_again(starter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_module, "read_graph", lambda *arguments: pytest.fail("it was looked at"))
    assert load_for_inference(starter, trusted=True)(torch.zeros(1, 3, 64, 64)).scores.shape == (1, 252, 2)
