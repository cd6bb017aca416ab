"""The starter in every format, on drawn images: the same boxes, and no file of a stranger's runs anything."""

from __future__ import annotations

import copy
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier, Lock
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.spatial import cKDTree

from livestock import export, inference
from livestock.config import REPOSITORY, read_competition
from livestock.data import readers
from livestock.data.submission import read_truth
from livestock.export import compare
from livestock.inference import picture_batches, to_tensor
from livestock.models import yolov5
from livestock.models.yolov5 import safe
from livestock.models.yolov5.forward import load_torch
from livestock.models.yolov5.weights import STARTER, load_checkpoint
from livestock.sample import draw_sample
from livestock.tables import XYXY

IMGSZ, LABELS = 320, ["pig", "cow"]


@dataclass(frozen=True)
class Sample:
    """Images to calibrate with, images to score, their truth in pixels."""

    train: pd.DataFrame
    test: pd.DataFrame
    truth: pd.DataFrame


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    raw = tmp_path_factory.mktemp("sample") / "raw"
    draw_sample(raw, n_train=8, n_test=4)
    competition = read_competition(REPOSITORY / "competition.yaml")
    train, test = readers.read_train_and_test("aihub", raw, competition)
    assert test is not None
    truth = read_truth(raw / "truth_test.csv")
    paths = {image_id.split("/")[-1]: image_id for image_id in test.images["image_id"]}  # it has bare names
    truth["image_id"] = truth["image_id"].map(paths)
    truth[XYXY] *= test.images.set_index("image_id").loc[truth["image_id"], ["width", "height"] * 2].to_numpy()
    return Sample(train.images, test.images, truth)


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
def pictures(sample: Sample) -> list[torch.Tensor]:
    """An image in two sizes, `(1, 3, H, W)`."""
    return [to_tensor(chunk) for size in (IMGSZ, 256) for _, chunk in picture_batches(sample.train[:1], size, 32, 1)]


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
    exact, rough = (yolov5.load_for_inference(path) for path in (STARTER, folder / "starter.int8.onnx"))
    _, chunk = next(picture_batches(sample.test, IMGSZ, 32, 4))
    first, second = (forward(to_tensor(chunk)) for forward in (exact, rough))
    seen = first[..., 4] > 0.25
    assert seen.sum() > 10
    assert (first[seen][:, 4:] - second[seen][:, 4:]).abs().mean() < 0.03
    assert (first[seen][:, :4] - second[seen][:, :4]).abs().mean() < 1.5  # pixels


def test_int8_computes_in_int8(folder: Path) -> None:
    nodes = onnx.load(folder / "starter.int8.onnx").graph.node
    into_conv = {node.input[0].removesuffix("_DequantizeLinear_Output") != node.input[0]
                 for node in nodes if node.op_type == "Conv" and not node.name.startswith(
                     ("/model.0/", "/model.1/", "/model.2/", "/model.24/"))}
    assert into_conv == {True}


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".torchscript"])
def test_an_export_gives_pytorchs_boxes(suffix: str, folder: Path, sample: Sample) -> None:
    found = export.compare_exports(STARTER, folder / f"starter{suffix}", sample.test, imgsz=IMGSZ)
    assert found.boxes <= 0.5
    assert found.scores <= 1e-3


def test_safetensors_are_the_checkpoint_exactly(folder: Path, pictures: list[torch.Tensor]) -> None:
    first, second = yolov5.load_for_inference(STARTER), yolov5.load_for_inference(folder / "starter.safetensors")
    assert all(torch.equal(first(picture), second(picture)) for picture in pictures)
    assert (second.labels, second.stride) == (LABELS, 32)


def test_writing_safetensors_leaves_random_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    yolov5.write_safetensors(STARTER, tmp_path / "w.safetensors")
    assert torch.equal(torch.rand(3), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_another_activation_is_not_lost_in_silence(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(STARTER)
    checkpoint["model"].model[0].act = torch.nn.ReLU()
    torch.save(checkpoint, tmp_path / "relu.pt")
    with pytest.raises(ValueError, match=r"relu\.pt: expected a model that its architecture describes in full"):
        yolov5.write_safetensors(tmp_path / "relu.pt", tmp_path / "relu.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["relu.pt"]


@pytest.fixture(scope="module")
def expected(sample: Sample) -> pd.DataFrame:
    return inference.candidates(STARTER, sample.test, LABELS, imgsz=IMGSZ, conf_floor=0.3, device="cpu").boxes


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".int8.onnx", ".torchscript"])
def test_candidates_of_every_format(suffix: str, folder: Path, sample: Sample, expected: pd.DataFrame) -> None:
    path = folder / f"starter{suffix}"
    found = inference.candidates(path, sample.test, LABELS, imgsz=IMGSZ, conf_floor=0.3, device="cpu", n_threads=1,
                                trusted=True).boxes
    assert len(expected) > 20
    assert len(found) == pytest.approx(len(expected), rel=0.2 if "int8" in suffix else 0)
    if "int8" not in suffix:
        assert (found[XYXY] - expected[XYXY]).abs().max(axis=None) < 0.5
    with pytest.raises(ValueError, match=r"expected a model of the 3 classes .*, found 2"):
        inference.candidates(path, sample.test, [*LABELS, "hen"], imgsz=IMGSZ, device="cpu", trusted=True)


def test_torchscript_is_loaded_only_where_it_is_ours(folder: Path, sample: Sample) -> None:
    with pytest.raises(ValueError, match=r"starter\.torchscript: refused, a TorchScript file is a program"):
        inference.candidates(folder / "starter.torchscript", sample.test, LABELS, imgsz=IMGSZ)


def test_boxes_are_those_of_one_plain_pass(sample: Sample) -> None:
    """Workers, an image at a time each, and weights in channels-last order change nothing but rounding."""
    plain = load_torch(STARTER)
    forward = yolov5.LoadedModel(STARTER, lambda pictures: plain(pictures.contiguous())[0], LABELS, 32, "cpu")
    assert plain.model[0].conv.weight.is_contiguous()
    options: dict[str, Any] = {"imgsz": IMGSZ, "conf_floor": 0.01}
    expected = inference.find_candidates(forward, sample.test, LABELS, batch=4, **options).boxes
    found = inference.candidates(STARTER, sample.test, LABELS, n_threads=2, device="cpu", **options).boxes
    assert len(expected) > 200
    for some, others in ((expected, found), (found, expected)):
        sure = some[some["confidence"] > 0.0101]  # at the floor, rounding decides
        for (image_id, label), own in sure.groupby(["image_id", "label"]):
            there = others[(others["image_id"] == image_id) & (others["label"] == label)]
            assert distances(own, there).max() < 1


def distances(boxes: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """How far the nearest of `others` is from each box, in thousandths of a pixel or ten-thousandths of confidence."""
    units = [1e-3] * 4 + [1e-4]
    tree = cKDTree(others[[*XYXY, "confidence"]] / units)
    return tree.query(boxes[[*XYXY, "confidence"]] / units, p=np.inf)[0]


def test_each_thread_has_a_head_of_its_own_and_shares_the_weights(pictures: list[torch.Tensor]) -> None:
    """The head keeps a grid of the last picture's size, which another thread's picture may not have."""
    forward, both = yolov5.load_for_inference(STARTER), Barrier(2)
    heads: list[Any] = []

    def watch(module: Any, inputs: Any) -> None:
        if hasattr(module, "anchor_grid"):
            heads.append(module)
            both.wait(60)  # both threads are between the network's last layer and its grid

    handle = torch.nn.modules.module.register_module_forward_pre_hook(watch)
    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(forward, pictures))
    handle.remove()
    assert heads[0] is not heads[1]
    assert heads[0].m[0].weight is heads[1].m[0].weight
    for picture, found in zip(pictures, at_once, strict=True):
        torch.testing.assert_close(found, forward(picture))


def test_half_precision_counts_pixels_in_fractions() -> None:
    """From 1,024 on the numbers of half precision are whole ones."""
    picture = torch.rand(1, 3, 64, 1280, generator=torch.Generator().manual_seed(0))
    exact, half = (yolov5.load_for_inference(STARTER, half=half)(picture) for half in (False, True))
    assert half.dtype == torch.float32
    right = exact[..., 0] > 1100
    assert (half - exact)[right][:, 0].abs().mean() < 0.05


def test_a_broken_picture_ends_the_pass_soon(
    sample: Sample, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def read_image(archive: str, member: str) -> np.ndarray:
        read.append(member)
        raise ValueError(f"{member}: broken")

    monkeypatch.setattr("livestock.inference.read_image", read_image)
    many = pd.concat([sample.test] * 10, ignore_index=True)
    many["image_id"] = [f"{n:02d}.jpg" for n in range(len(many))]
    before = torch.get_num_threads()
    for weights in (STARTER, folder / "starter.torchscript"):
        read.clear()
        with pytest.raises(ValueError, match=r": broken"):
            inference.candidates(weights, many, LABELS, imgsz=IMGSZ, device="cpu", n_threads=before + 1, trusted=True)
        assert len(read) < len(many) / 2
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == before


@pytest.mark.parametrize("suffix", [".pt", ".torchscript"])
def test_workers_share_the_threads(suffix: str, folder: Path, sample: Sample) -> None:
    """Of four threads four workers have one each, or one run at a time has all."""
    path = STARTER if suffix == ".pt" else folder / f"starter{suffix}"
    forward = yolov5.load_for_inference(path, n_threads=4, trusted=True)
    seen: list[tuple[int, bool]] = []
    turn = Lock()

    def run(pictures: torch.Tensor) -> torch.Tensor:
        is_alone = turn.acquire(timeout=0)
        seen.append((torch.get_num_threads(), is_alone))
        time.sleep(0.2)
        if is_alone:
            turn.release()
        return forward.run(pictures)

    inference.find_candidates(replace(forward, run=run), sample.test, LABELS, imgsz=IMGSZ)
    assert len(seen) == len(sample.test)
    assert {n_threads for n_threads, _ in seen} == {1 if suffix == ".pt" else 4}
    assert all(is_alone for _, is_alone in seen) == (suffix != ".pt")


def test_threads_are_as_before(pictures: list[torch.Tensor]) -> None:
    before = torch.get_num_threads()
    during: list[int] = []
    forward = yolov5.load_for_inference(STARTER, n_threads=before + 1)
    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: during.append(torch.get_num_threads()))
    forward(pictures[0])
    handle.remove()
    assert set(during) == {before + 1}
    assert torch.get_num_threads() == before


# -- refused ---------------------------------------------------------------------------------------------------------


@dataclass
class Parts:
    """What a safetensors file is made of, to change and write again."""

    state: dict[str, torch.Tensor]
    architecture: dict[str, Any]
    metadata: dict[str, str]

    def write(self, path: Path) -> Path:
        save_file(self.state, path, {**self.metadata, "architecture": json.dumps(self.architecture)})
        return path


@pytest.fixture
def parts(folder: Path) -> Parts:
    with safe_open(folder / "starter.safetensors", framework="pt") as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
    return Parts(state, json.loads(metadata["architecture"]), metadata)


def test_a_tensor_that_is_missing_unexpected_or_wrong_is_named(parts: Parts, tmp_path: Path) -> None:
    name = "model.3.conv.weight"
    whole = parts.state
    cases = [
        ({key: value for key, value in whole.items() if key != name}, rf"missing tensor '{name}'"),
        ({**whole, "model.99.weight": torch.zeros(1)}, r"unexpected tensor 'model\.99\.weight'"),
        ({**whole, name: torch.zeros(64, 32, 3, 4).half()}, rf"{name}: expected F16 of shape .*, found F16 of shape"),
        ({**whole, name: whole[name].float()}, rf"{name}: expected F16 .*, found F32"),
        ({**whole, name: whole[name] * float("nan")}, rf"{name}: expected finite numbers"),
    ]
    for state, message in cases:
        with pytest.raises(ValueError, match=rf"bad\.safetensors: {message}"):
            path = Parts(state, parts.architecture, parts.metadata).write(tmp_path / "bad.safetensors")
            yolov5.load_for_inference(path)


EVIL = "__import__('pathlib').Path('{}').touch()"


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("layer 0: module", lambda a, evil: a["backbone"][0].__setitem__(2, evil)),
        ("layer 0: argument 1", lambda a, evil: a["backbone"][0][3].__setitem__(1, evil)),
        ("layer 2: argument 0", lambda a, evil: a["backbone"][2][3].__setitem__(0, [evil])),
        ("layer 11: arguments", lambda a, evil: a["head"][1][3].__setitem__(0, evil)),
        ("layer 24: arguments", lambda a, evil: a["head"][-1][3].__setitem__(0, evil)),
        ("layer 0: from", lambda a, evil: a["backbone"][0].__setitem__(0, evil)),
        ("layer 0: number", lambda a, evil: a["backbone"][0].__setitem__(1, evil)),
        ("keys", lambda a, evil: a.__setitem__("activation", evil)),
        ("nc", lambda a, evil: a.__setitem__("nc", evil)),
        ("width_multiple", lambda a, evil: a.__setitem__("width_multiple", evil)),
        ("anchors", lambda a, evil: a.__setitem__("anchors", evil)),
        ("layer 0: argument 0", lambda a, evil: a["backbone"][0][3].__setitem__(0, 10**9)),
        ("layer 11: arguments", lambda a, evil: a["head"][1][3].__setitem__(1, 1000)),
        ("repeats of layers", lambda a, evil: a["backbone"][2].__setitem__(1, 300)),
        ("layers", lambda a, evil: a["head"].pop()),
        ("depth_multiple", lambda a, evil: a.__setitem__("depth_multiple", float("nan"))),
    ],
)
def test_an_architecture_that_would_run_code_is_refused(entry: str, change: Any, parts: Parts, tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    architecture = copy.deepcopy(parts.architecture)
    change(architecture, EVIL.format(trace))
    path = Parts(parts.state, architecture, parts.metadata).write(tmp_path / "evil.safetensors")
    with pytest.raises(ValueError, match=rf"evil\.safetensors: architecture: {entry}: refused, expected"):
        yolov5.load_for_inference(path)
    assert not trace.exists()


def test_an_architecture_of_another_size_allocates_nothing(parts: Parts, tmp_path: Path) -> None:
    """Two thousand times the channels: terabytes, if the model were built before its shapes are compared."""
    parts.architecture["backbone"][7][3][0] = 8192
    parts.architecture["width_multiple"] = 4.0
    with pytest.raises(ValueError, match=r"big\.safetensors: architecture: refused, expected up to .* multiplications"):
        yolov5.load_for_inference(parts.write(tmp_path / "big.safetensors"))


def test_an_architecture_of_other_channels_allocates_nothing(parts: Parts, tmp_path: Path) -> None:
    """Within the bounds of a pass, but not the model of these tensors."""
    parts.architecture["backbone"][7][3][0] *= 2
    with pytest.raises(ValueError, match=r"expected F16 of shape \[.*, found F16 of shape \["):
        yolov5.load_for_inference(parts.write(tmp_path / "other.safetensors"))


def test_a_model_that_cannot_be_built_is_refused(parts: Parts, tmp_path: Path) -> None:
    parts.architecture["backbone"][0][3] = [64, 6, 2, 2, 7]  # groups that do not divide the channels
    with pytest.raises(ValueError, match="architecture: expected a model that yolov5 can build"):
        yolov5.load_for_inference(parts.write(tmp_path / "bad.safetensors"))


def test_metadata_that_is_no_json_or_names_other_classes(parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    for change, message in [
        ({"labels": '["pig"'}, "metadata 'labels': expected JSON"),
        ({"labels": '["pig", 3]'}, "metadata 'labels': expected a list of names"),
        ({"labels": '["pig"]'}, "expected 2 labels"),
        ({"architecture": "[" * 100_000}, "metadata 'architecture': expected JSON"),
        ({"format": "pt"}, "expected metadata of the format"),
    ]:
        save_file(parts.state, path, {**parts.metadata, **change})
        with pytest.raises(ValueError, match=message):
            yolov5.load_for_inference(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".onnx", ".int8.onnx", ".torchscript"])
def test_a_file_that_is_cut_or_no_model_is_refused(suffix: str, folder: Path, tmp_path: Path) -> None:
    whole = (STARTER if suffix == ".pt" else folder / f"starter{suffix}").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no model at all"):
        (tmp_path / f"cut{suffix}").write_bytes(content)
        with pytest.raises(ValueError, match=r"cut(\.int8)?\.\w+: "):
            yolov5.load_for_inference(tmp_path / f"cut{suffix}", trusted=True)
    with pytest.raises(ValueError, match="found no such file"):
        yolov5.load_for_inference(tmp_path / f"missing{suffix}", trusted=True)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    shutil.copy(STARTER, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth: expected weights ending in one of .*, found '\.pth'"):
        yolov5.load_for_inference(tmp_path / "weights.pth")


def test_onnx_of_other_classes_or_of_another_hand_is_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    for metadata, message in [
        ({}, "expected metadata 'livestock' with labels and stride"),
        ({"livestock": '{"labels": ["pig"], "stride": 32}'}, r"output \(.*, N, 6\) for the labels \['pig'\], found"),
        ({"livestock": '{"labels": "pig", "stride": 32}'}, "expected a list of labels"),
        ({"livestock": '{"labels": ["pig", "cow"], "stride": 1e9}'}, "expected a stride"),
    ]:
        model = onnx.load(folder / "starter.onnx")
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, path)
        with pytest.raises(ValueError, match=message):
            yolov5.load_for_inference(path)


def test_an_output_of_another_shape_is_refused() -> None:
    """Where a file does not declare the shape of its output, the first pass tells."""
    forward = yolov5.LoadedModel(Path("odd.onnx"), lambda pictures: torch.zeros(len(pictures), 10, 85), LABELS, 32,
                                 "cpu")
    with pytest.raises(ValueError, match=r"odd\.onnx: expected an output \(2, N, 7\) .*, found \(2, 10, 85\)"):
        forward(torch.zeros(2, 3, 64, 64))


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


def test_every_published_architecture_is_known() -> None:
    """What yolov5's own files of detection models hold passes, but for those with modules that no checkpoint may."""
    import yaml
    from yolov5.models import yolo

    for name in [*"nsmlx", *(f"hub/yolov5{size}6" for size in "nsmlx")]:
        path = Path(yolo.__file__).with_name("hub") / f"{name[4:]}.yaml" if "/" in name else \
            Path(yolo.__file__).with_name(f"yolov5{name}.yaml")
        safe.check_architecture(yaml.safe_load(path.read_text()), path)
