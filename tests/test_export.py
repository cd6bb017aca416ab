"""Every family in every format: the same boxes as PyTorch's; int8 loses little."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import onnx
import pandas as pd
import pytest
import torch
from small_models import LABELS, Sample, draw_blobs, draw_scored_sample, write_lively

from livestock import export
from livestock.export import compare
from livestock.export.convert import find_differences
from livestock.inference import find_candidates, picture_batches, to_tensor
from livestock.models import graph
from livestock.models.base import Predictions
from livestock.models.forward import load_for_inference
from livestock.models.yolov5.library import STARTER
from livestock.tables import XYXY

IMGSZ = 320
SIZES = {"yolov5": 96, "retinanet": 128, "ssd": 128, "tood": 128, "yolox": 128, "dfine": 256, "rfdetr": 288}
Files = Callable[[str], tuple[Path, Path]]
pytestmark = pytest.mark.usefixtures("one_thread", "few_queries")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return draw_scored_sample(tmp_path_factory.mktemp("sample") / "raw")


@pytest.fixture(scope="module")
def table(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    """The edge table, and the folder in which it left a file of each format."""
    folder = tmp_path_factory.mktemp("exports")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("livestock.export.compare.SECONDS", 1.0)
        found = export.edge_table(STARTER, sample.test, sample.truth, LABELS, folder, calibration=sample.train,
                                    imgsz=IMGSZ, metric_iou=0.5)
    assert torch.get_num_threads() == threads
    return found, folder


@pytest.fixture(scope="module")
def folder(table: tuple[pd.DataFrame, Path]) -> Path:
    return table[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The weights of a family and its ONNX file, made when they are first asked for."""

    @functools.cache
    def make(family: str) -> tuple[Path, Path]:
        directory = tmp_path_factory.mktemp(family)
        weights = write_lively(family, directory / "w.safetensors", SIZES[family])
        return weights, export.export_onnx(weights, directory / "w.onnx")

    return make


def test_the_edge_table_has_every_format(table: tuple[pd.DataFrame, Path]) -> None:
    found = table[0].set_index("format")
    assert list(found.columns) == ["MB", "mAP", "ms_1", "ms_2", "note"]
    assert list(found.index) == ["PyTorch float32", "PyTorch half", "ONNX float32", "ONNX int8", "TorchScript float32"]
    runs = found[~found["note"].str.contains("does not run")]  # half precision, on some processors
    assert (runs[["mAP", "ms_1", "ms_2"]] > 0).all(axis=None)
    for exact in ("ONNX float32", "TorchScript float32"):
        assert found.loc[exact, "mAP"] == pytest.approx(found.loc["PyTorch float32", "mAP"], abs=0.005)
    assert found.loc["PyTorch float32", "mAP"] > 0.5
    assert found.loc["ONNX int8", "MB"] < 0.4 * found.loc["ONNX float32", "MB"]


def test_a_format_that_would_take_minutes_is_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"float32": 0.01, "half": 0.2, "slow": 0.05}
    monkeypatch.setattr(compare, "_seconds", lambda name, picture: seconds[name])
    forwards = {name: name for name in seconds}
    assert compare._unusable(forwards, torch.zeros(1), 100) == {}  # type: ignore[arg-type] # 20 s at most
    assert compare._unusable(forwards, torch.zeros(1), 500) == {  # type: ignore[arg-type]
        "half": "20 times as slow as float32 on this CPU"}


def test_int8_loses_little(folder: Path, table: tuple[pd.DataFrame, Path], sample: Sample) -> None:
    found = table[0].set_index("format")
    assert found.loc["ONNX int8", "mAP"] > found.loc["PyTorch float32", "mAP"] - 0.05  # four images: a box is a point
    exact, rough = (load_for_inference(path) for path in (STARTER, folder / "starter.int8.onnx"))
    _, chunk = next(picture_batches(sample.test, IMGSZ, 32, 4))
    first, second = (forward(to_tensor(chunk)) for forward in (exact, rough))
    seen = first.scores.amax(dim=2) > 0.25
    assert seen.sum() > 10
    assert (first.scores[seen] - second.scores[seen]).abs().mean() < 0.03
    assert (first.boxes[seen] - second.boxes[seen]).abs().mean() < 1.5  # pixels


def test_int8_computes_in_int8(folder: Path) -> None:
    nodes = onnx.load(folder / "starter.int8.onnx").graph.node
    into_conv = {node.input[0].removesuffix("_DequantizeLinear_Output") != node.input[0]
                 for node in nodes if node.op_type == "Conv" and not node.name.startswith(
                     ("/model/model.0/", "/model/model.1/", "/model/model.2/", "/model/model.24/"))}
    assert into_conv == {True}


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".torchscript"])
def test_an_export_gives_pytorchs_boxes(suffix: str, folder: Path, sample: Sample) -> None:
    found = export.compare_exports(STARTER, folder / f"starter{suffix}", sample.test, imgsz=IMGSZ)
    assert found.boxes <= 0.5
    assert found.scores <= 1e-3


@pytest.fixture(scope="module")
def expected(sample: Sample) -> pd.DataFrame:
    return find_candidates(load_for_inference(STARTER, "cpu"), sample.test, LABELS, imgsz=IMGSZ, conf_floor=0.3).boxes


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".int8.onnx", ".torchscript"])
def test_candidates_of_every_format(suffix: str, folder: Path, sample: Sample, expected: pd.DataFrame) -> None:
    path = folder / f"starter{suffix}"
    loaded = load_for_inference(path, "cpu", n_threads=1, trusted=True)
    found = find_candidates(loaded, sample.test, LABELS, imgsz=IMGSZ, conf_floor=0.3).boxes
    assert len(expected) > 20
    assert len(found) == pytest.approx(len(expected), rel=0.2 if "int8" in suffix else 0)
    if "int8" not in suffix:
        assert (found[XYXY] - expected[XYXY]).abs().max(axis=None) < 0.5
    with pytest.raises(ValueError, match=r"expected a model of the 3 classes .*, found 2"):
        find_candidates(loaded, sample.test, [*LABELS, "hen"], imgsz=IMGSZ)


@pytest.mark.parametrize("family", SIZES)
def test_every_familys_export_gives_its_boxes(family: str, files: Files, tmp_path: Path) -> None:
    """Of pictures of another shape than was traced, where any shape may be given; both files, and what they say."""
    weights, onnx_file = files(family)
    expected = load_for_inference(weights, "cpu")
    size = (SIZES[family], SIZES[family]) if family in ("dfine", "rfdetr") else (64, 160)
    torch.manual_seed(0)
    images = draw_blobs(3, *size)
    for path in (onnx_file, export.export_torchscript(weights, tmp_path / "w.torchscript")):
        found = load_for_inference(path, "cpu", trusted=path.suffix == ".torchscript")  # ONNX passes as a stranger's
        for name in ("family", "labels", "stride", "resize", "imgsz", "needs_nms"):
            assert getattr(found, name) == getattr(expected, name)
        differences = find_differences(expected(images), found(images), ordered=found.needs_nms)
        assert differences.boxes < 0.05
        assert differences.scores < 1e-4
        assert expected(images).scores.std() > 1e-5  # there is something to differ


@pytest.mark.parametrize("family", ["retinanet", "ssd", "tood", "yolox", "dfine", "rfdetr"])
def test_every_familys_file_passes_and_its_shapes_are_found(family: str, files: Files) -> None:
    """Nothing of what each family's export has is unbounded: the last tensor is found to be as large as it comes."""
    path, imgsz = files(family)[1], SIZES[family]
    model = graph.read_graph(path.read_bytes(), path)
    skeleton, values = graph._make_skeleton(model)
    ranges = [one for one in model.graph.node if one.op_type == "Range"]
    shape = (2, 3, imgsz, imgsz)
    found = graph._find_shapes(skeleton, ranges, values, shape, path)
    output = load_for_inference(path, "cpu", trusted=True)(torch.zeros(shape))
    assert found["output"] == (*output.boxes.shape[:2], 6)


def test_a_file_for_one_size_refuses_another(files: Files) -> None:
    loaded = load_for_inference(files("dfine")[1], "cpu")
    assert loaded.has_fixed_size
    with pytest.raises(ValueError, match=r"w\.onnx: expected pictures of 256 x 256 pixels.* found 288 x 256"):
        loaded(torch.zeros(1, 3, 256, 288))


@pytest.mark.parametrize("family", ["retinanet", "ssd", "tood", "yolox", "dfine", "rfdetr"])
def test_int8_keeps_the_decoding_in_float(family: str, files: Files, sample: Sample, tmp_path: Path) -> None:
    """No tensor behind the last convolutions is in int8, and most convolutions are."""
    whole = files(family)[1]
    small = export.quantize_onnx(whole, sample.train[:2], tmp_path / "w.int8.onnx", imgsz=SIZES[family])
    nodes = onnx.load(small).graph.node
    in_int8 = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    n_int8 = sum(node.input[0] in in_int8 and node.input[1] in in_int8 for node in convolutions)
    assert n_int8 > len(convolutions) / 2
    reached = {name for node in convolutions if node.input[1] not in in_int8 for name in node.output} - {
        name for node in convolutions for name in node.input}
    last = max(index for index, node in enumerate(nodes) if node.op_type == "Conv")
    assert not [node.name for node in nodes[last + 1:] if node.op_type == "QuantizeLinear"]
    assert reached
    share = 1.0 if family == "rfdetr" else 0.6  # products of matrices stay as they are, and it is little else
    assert small.stat().st_size < share * whole.stat().st_size


def test_sets_are_compared_by_the_nearest() -> None:
    """In another order nothing differs; a box that the other lacks does, whichever of the two has it."""
    torch.manual_seed(0)
    first = Predictions(torch.rand(2, 9, 4) * 100, torch.rand(2, 9, 2) + 0.1)
    order = torch.randperm(9)
    second = Predictions(first.boxes[:, order], first.scores[:, order])
    assert find_differences(first, second, ordered=False) == export.Differences(0.0, 0.0)
    assert not find_differences(first, second).small
    twice = Predictions(first.boxes.clone(), first.scores.clone())
    twice.boxes[1, 3], twice.scores[1, 3] = twice.boxes[1, 4], twice.scores[1, 4]
    for pair in ((first, twice), (twice, first)):
        assert find_differences(*pair, ordered=False).boxes > 1


def test_a_box_of_a_set_that_nobody_would_see_is_left_out() -> None:
    first = Predictions(torch.zeros(1, 2, 4), torch.tensor([[[0.5], [0.009]]]))
    second = Predictions(torch.tensor([[[0.0] * 4, [9.0] * 4]]), torch.tensor([[[0.5], [0.009]]]))
    assert find_differences(first, second, ordered=False) == export.Differences(0.0, 0.0)
    assert find_differences(first, second).boxes == 9


def test_an_export_that_differs_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livestock.export.convert.BOXES_PX", -1.0)
    with pytest.raises(ValueError, match="expected an export that differs by up to"):
        export.export_onnx(STARTER, tmp_path / "w.onnx")
    assert list(tmp_path.iterdir()) == []


def test_calibration_images_are_not_scored(folder: Path, sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of them to calibrate with"):
        export.edge_table(STARTER, sample.test, sample.truth, LABELS, tmp_path, calibration=sample.test, imgsz=IMGSZ)
    with pytest.raises(ValueError, match="expected images to calibrate with, found an empty table"):
        export.quantize_onnx(folder / "starter.onnx", sample.train.iloc[:0], tmp_path / "q.onnx", imgsz=IMGSZ)
