"""Networks of keypoints as ONNX: the points of PyTorch, from a file that passes as a stranger's."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from small_models import draw_blobs, draw_scored_sample

from livestock import export
from livestock.exceptions import BadData, UnsafeWeights
from livestock.export.convert import find_differences
from livestock.inference import find_candidates, to_tensor
from livestock.models import graph
from livestock.models.base import Predictions, load_matching
from livestock.models.checkpoint import read_checkpoint, write_checkpoint
from livestock.models.forward import load_for_inference
from livestock.models.metadata import METADATA, Metadata, read_metadata, write_metadata
from livestock.models.registry import get_family
from livestock.poses import check_pose_model, find_poses
from livestock.tables import make_boxes

IMGSZ = 64
POINTS, FLIPS = ["nose", "left_ear", "right_ear"], [0, 2, 1]
KINDS = [("heatmap", "lite0"), ("heatmap", "resnet18"), ("topdown", "resnet18")]  # soft, argmax, dark
ALL_KINDS = [*KINDS, ("heatmap", "resnet18_places")]
Files = Callable[[str, str], tuple[Path, Path]]
pytestmark = pytest.mark.usefixtures("one_thread")


def write_sharp(family: str, size: str, path: Path, start: str = "", **changes: Any) -> Path:
    """Weights as those of a trained network are: each map has a peak, which lies elsewhere in each picture.

    With the name of official weights as `start` the head alone is random.
    """
    known = get_family(family)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        config = known.configure(["pig", "cow"], IMGSZ, size)
        config = replace(config, architecture={**config.architecture, "points": POINTS, "flips": FLIPS, **changes})
        model: Any = known.build(config).eval()
        if start:
            load_matching(model.body, {name.removeprefix("body."): tensor for name, tensor in read_checkpoint(
                known.find_pretrained(start, path.parent)).tensors.items()})
        norms = [module for module in (model.head if start else model).modules()
                 if isinstance(module, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.train().momentum = None
            norm.reset_running_stats()
        for _ in range(4):
            known.predict(model, draw_blobs(8, IMGSZ, IMGSZ))
        maps = model.eval()(draw_blobs(8, IMGSZ, IMGSZ))
        if config.architecture["output"] != "places":
            model.last.weight.mul_((4.0 if config.architecture["output"] == "softmax" else 1.0) / maps.std())
    write_checkpoint(path, config, model.state_dict())
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The weights of a network and its ONNX file, made when they are first asked for."""

    @functools.cache
    def make(family: str, size: str) -> tuple[Path, Path]:
        directory = tmp_path_factory.mktemp(f"{family}_{size}")
        weights = write_sharp(family, size, directory / "w.safetensors")
        return weights, export.export_onnx(weights, directory / "w.onnx")

    return make


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Drawn pictures, and the true boxes of their animals."""
    sample = draw_scored_sample(tmp_path_factory.mktemp("sample") / "raw")
    return sample.test, sample.truth


@pytest.mark.parametrize(("family", "size"), ALL_KINDS)
def test_an_export_gives_pytorchs_points_of_real_pictures(
    family: str, size: str, files: Files, drawn: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    """In ONNX Runtime, of animals cut out of drawn pictures; also of a mirrored look, and of batches."""
    images, boxes = drawn
    weights, onnx_file = files(family, size)
    first, second = load_for_inference(weights, "cpu"), load_for_inference(onnx_file, "cpu")  # as a stranger's
    for flip in (False, True):
        points, others = (find_poses(one, images, boxes, flip=flip, batch=5) for one in (first, second))
        assert len(points) == 3 * len(boxes) > 30
        sides = boxes.set_index("box_id")[["x_max", "x_min", "y_max", "y_min"]]
        longer = pd.concat([sides["x_max"] - sides["x_min"], sides["y_max"] - sides["y_min"]], axis=1).max(axis=1)
        sizes = images.set_index("image_id").loc[points["image_id"], ["width", "height"]].max(axis=1).to_numpy()
        scale = IMGSZ / (sizes if family == "heatmap" else 1.25 * longer.loc[points["box_id"]].to_numpy())
        apart = np.hypot(points["x"] - others["x"], points["y"] - others["y"]) * scale  # pixels of the input
        assert apart.max() < 0.05
        assert (points["confidence"] - others["confidence"]).abs().max() < 1e-3
        assert points[["x", "y"]].std().min() > 5  # there is something to differ


@pytest.mark.parametrize(("family", "size"), ALL_KINDS)
def test_an_export_says_what_is_needed_of_its_points(family: str, size: str, files: Files) -> None:
    weights, onnx_file = files(family, size)
    first, second = load_for_inference(weights, "cpu"), load_for_inference(onnx_file, "cpu")
    expected = {"points": POINTS, "flips": FLIPS, "owners": [], "crop": "whole" if family == "heatmap" else "fit"}
    assert dict(second.architecture) == expected
    assert check_pose_model(second, flip=True) == expected
    for name in ("family", "labels", "stride", "imgsz", "resize", "needs_nms"):
        assert getattr(second, name) == getattr(first, name)
    assert second.has_fixed_size
    found = second(torch.zeros(3, 3, IMGSZ, IMGSZ))
    assert found.keypoints is not None and found.keypoints.shape == (3, 1, 3, 3)
    assert found.boxes.tolist() == [[[0, 0, IMGSZ, IMGSZ]]] * 3 and found.scores.tolist() == [[[1, 1]]] * 3
    with pytest.raises(ValueError, match=r"expected pictures of 64 x 64 pixels"):
        second(torch.zeros(1, 3, 96, 96))


def test_torchscript_gives_the_same_points(files: Files, tmp_path: Path) -> None:
    weights, _ = files("topdown", "resnet18")
    script = export.export_torchscript(weights, tmp_path / "w.torchscript")
    first, second = load_for_inference(weights, "cpu"), load_for_inference(script, "cpu", trusted=True)
    torch.manual_seed(1)
    images = draw_blobs(5, IMGSZ, IMGSZ)
    found = find_differences(first(images), second(images))
    assert found.points < 0.05 and found.heights < 1e-3
    assert list(second.architecture["points"]) == POINTS


@pytest.mark.parametrize(("family", "size"), ALL_KINDS)
def test_every_shape_in_the_file_is_found(family: str, size: str, files: Files) -> None:
    path = files(family, size)[1]
    model = graph.read_graph(path.read_bytes(), path)
    skeleton, values = graph._make_skeleton(model)
    ranges = [one for one in model.graph.node if one.op_type == "Range"]
    found = graph._find_shapes(skeleton, ranges, values, (4, 3, IMGSZ, IMGSZ), path)
    assert found["output"] == (4, 1, 4 + 2 + 3 * 3)


@pytest.mark.parametrize("decode", ["quarter", "dark", "soft", "argmax"])
def test_each_way_to_read_a_map_is_exported(decode: str, tmp_path: Path) -> None:
    weights = write_sharp("topdown", "resnet18", tmp_path / "w.safetensors", decode=decode)
    loaded = load_for_inference(export.export_onnx(weights, tmp_path / "w.onnx"))
    images = draw_blobs(2, IMGSZ, IMGSZ)
    found = find_differences(load_for_inference(weights, "cpu")(images), loaded(images))
    assert found.points < 0.05 and found.heights < 1e-3


def test_an_export_whose_points_differ_gets_no_name(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livestock.export.convert.POINTS_PX", -1.0)
    with pytest.raises(ValueError, match="expected an export that differs by up to"):
        export.export_onnx(files("topdown", "resnet18")[0], tmp_path / "w.onnx")
    assert list(tmp_path.iterdir()) == []


def test_differences_of_points_are_distances_and_heights() -> None:
    """Three of four points count; and points where the other has none are as far as can be."""
    boxes, scores = torch.zeros(1, 1, 4), torch.ones(1, 1, 1)
    points = torch.tensor([[[[1.0, 1, 0.5], [2, 2, 0.5], [3, 3, 0.5], [4, 4, 0.5], [5, 5, 0.5]]]])
    moved = points.clone()
    moved[0, 0, :3, :2] += torch.tensor([[3.0, 4], [300, 400], [0, 0]])
    moved[0, 0, 4, 2] = 0.25
    first, second = Predictions(boxes, scores, points), Predictions(boxes, scores, moved)
    assert find_differences(first, second) == export.Differences(0.0, 0.0, 5.0, 0.25)
    assert not find_differences(first, second).small
    assert find_differences(first, Predictions(boxes, scores)).points == float("inf")


def test_a_map_whose_size_an_export_computes_is_not_refused(
    files: Files, drawn: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    """EfficientNet pads by what it computes: ONNX does not know the width by which a cell's number is divided."""
    points, others = (find_poses(load_for_inference(path, "cpu"), *drawn) for path in files("heatmap", "lite0_project"))
    assert others["confidence"].to_numpy() == pytest.approx(points["confidence"].to_numpy(), abs=1e-3)


def test_int8_finds_about_the_same_points(
    files: Files, drawn: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    """Behind ImageNet's weights, much nearer than the points of one picture are to those of another."""
    images, boxes = drawn
    for family, size, start in (("topdown", "resnet18", ""), ("topdown", "lite0", "lite0_imagenet"),
                                ("heatmap", "lite0", "lite0_imagenet")):
        weights = write_sharp(family, size, tmp_path / f"{family}_{size}.safetensors", start=start)
        whole = export.export_onnx(weights, weights.with_suffix(".onnx"))
        own = boxes if family == "topdown" else None
        small = export.quantize_onnx(whole, images, tmp_path / f"{family}.onnx", imgsz=IMGSZ, boxes=own)
        assert small.stat().st_size < 0.75 * whole.stat().st_size
        points, others = (find_poses(load_for_inference(path), images, boxes) for path in (whole, small))
        apart = (points["confidence"] - others["confidence"]).abs().mean()
        assert apart < 0.1 and (not start or apart < 0.5 * points["confidence"].std())
        nodes = onnx.load(small).graph.node
        last = max(index for index, node in enumerate(nodes) if node.op_type == "Conv")
        assert not [node.name for node in nodes[last + 1:] if node.op_type == "QuantizeLinear"]
    with pytest.raises(BadData, match=r"expected boxes of these images to calibrate with, .* \(fit\), found none"):
        export.quantize_onnx(files("topdown", "resnet18")[1], images, tmp_path / "q.onnx", imgsz=IMGSZ)


@pytest.mark.bad_input
def test_each_kind_of_weights_says_which_command_takes_it(
    files: Files, drawn: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    from livestock.models.yolov5.library import STARTER

    images, boxes = drawn
    for path in files("topdown", "resnet18"):
        loaded = load_for_inference(path, "cpu")
        with pytest.raises(BadData, match=r"w\.\w+: expected weights that find boxes, found topdown, which finds "
                                          r"keypoints of objects; use `livestock predict"):
            find_candidates(loaded, images, list(loaded.labels), imgsz=IMGSZ)
    with pytest.raises(BadData, match=r"expected weights that find keypoints.* found yolov5; its boxes are what "
                                      r"`livestock predict` writes"):
        find_poses(load_for_inference(STARTER, "cpu"), images, boxes)
    with pytest.raises(BadData, match="expected weights that find boxes, found topdown"):
        export.compare_exports(*files("topdown", "resnet18"), images, imgsz=IMGSZ)


@pytest.mark.bad_input
@pytest.mark.parametrize("changes", [
    {"points": []}, {"points": ["a", "a", "b"]}, {"points": "abc"}, {"flips": [0, 1]}, {"flips": [1, 2, 0]},
    {"flips": [0, 2, True]}, {"owners": [[0]]}, {"owners": [[0], [0], []]}, {"owners": [[0], [0], [-1]]},
    {"owners": [[0], [0], [2]]}, {"owners": [[0], [0], [1, 1]]},
    {"owners": [[0], [0], [True]]}, {"owners": None}, {"crop": "round"}, {"crop": []}, {"more": 1}])
def test_metadata_that_says_something_else_of_keypoints_is_refused(changes: dict[str, Any]) -> None:
    right = {"points": POINTS, "flips": FLIPS, "owners": [[0], [0, 1], [1]], "crop": "fit"}
    text = write_metadata(Metadata(["pig", "cow"], 32, "topdown", architecture=right))
    assert read_metadata(text, Path("w.onnx")).n_columns == 4 + 2 + 9
    content = json.loads(text)
    content["architecture"] = {**right, **changes}
    with pytest.raises(UnsafeWeights, match=r"metadata 'livestock': expected (points, flips, owners, crop of keypoints|"
                                            r"owners that are ids of 2 labels)"):
        read_metadata(json.dumps(content), Path("w.onnx"))


def test_files_of_detectors_say_nothing_of_keypoints() -> None:
    text = write_metadata(Metadata(["pig"], 32))
    assert set(json.loads(text)) == {"labels", "stride", "family", "resize", "imgsz", "needs_nms", "has_fixed_size"}
    assert read_metadata(text, Path("w.onnx")).n_columns == 5


@pytest.mark.bad_input
def test_more_or_fewer_points_than_the_file_says_are_refused(files: Files, tmp_path: Path) -> None:
    model = onnx.load(files("topdown", "resnet18")[1])
    for points in (["one"], [f"point {number}" for number in range(9)]):
        text = write_metadata(Metadata(["pig", "cow"], 32, "topdown", "letterbox", IMGSZ, False, True, architecture={
            "points": points, "flips": [], "owners": [], "crop": "fit"}))
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {METADATA: text})
        onnx.save(model, tmp_path / "other.onnx")
        with pytest.raises(UnsafeWeights, match=re.escape(f"an output (B, N, {6 + 3 * len(points)})")):
            load_for_inference(tmp_path / "other.onnx")


@pytest.mark.bad_input
@pytest.mark.parametrize("keypoints", [None, torch.zeros(1, 1, 2, 3), torch.full((1, 1, 3, 3), torch.nan)])
def test_predictions_without_the_points_they_promise_are_refused(files: Files, keypoints: torch.Tensor | None) -> None:
    loaded = load_for_inference(files("topdown", "resnet18")[0], "cpu")
    odd = replace(loaded, run=lambda images: Predictions(torch.zeros(1, 1, 4), torch.zeros(1, 1, 2), keypoints))
    with pytest.raises(UnsafeWeights, match=r"expected (keypoints \(1, 1, 3, 3\), found|numbers, found NaN)"):
        odd(to_tensor([np.zeros((IMGSZ, IMGSZ, 3), np.uint8)]))


def test_a_box_of_whole_pictures_is_enough_for_heat_maps(files: Files, drawn: tuple[pd.DataFrame, Any]) -> None:
    images = drawn[0]
    whole = make_boxes(pd.DataFrame({"image_id": images["image_id"], "label": "pig", "x_min": 0, "y_min": 0,
                                     "x_max": images["width"], "y_max": images["height"]}))
    found = find_poses(load_for_inference(files("heatmap", "lite0")[1]), images, whole)
    assert found.groupby("image_id").size().tolist() == [3] * len(images)
