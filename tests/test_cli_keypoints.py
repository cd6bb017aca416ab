"""`livestock predict` and `livestock score` for keypoints: what they write, print and refuse."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_models import write_lively
from typer.testing import CliRunner

from livestock.cli import app
from livestock.export import export_onnx
from livestock.models.checkpoint import write_checkpoint
from livestock.models.forward import load_for_inference
from livestock.models.registry import get_family
from livestock.poses import find_poses
from livestock.tables import XYXY, make_boxes, make_images

SIDE = 64
POINTS, FLIPS = ["nose", "left_ear", "right_ear"], [0, 2, 1]
POINT_COLUMNS = ["image_id", "object", "keypoint", "x", "y", "confidence"]
OBJECT_COLUMNS = ["image_id", "object", "label", "keypoint", "x", "y", "confidence", *XYXY, "object_confidence"]
BOX_HEADER = "image_id,label,confidence,x_min,y_min,x_max,y_max\n"
BOXES = BOX_HEADER + "b.png,pig,0.5,10,10,60,50\nb.png,cow,0.9,40,20,90,80\na.png,pig,0.7,5,5,45,85\n"
pytestmark = pytest.mark.usefixtures("one_thread")


def write_weights(family: str, size: str, path: Path, **changes: Any) -> Path:
    """Random weights that find three points."""
    known = get_family(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = known.configure(["pig", "cow"], SIDE, size)
        config = replace(config, architecture={**config.architecture, "points": POINTS, "flips": FLIPS, **changes})
        model: Any = known.build(config)
        with torch.no_grad():
            model.last.weight.mul_(1000)
    write_checkpoint(path, config, model.state_dict())
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each family, and a detector's."""
    folder = tmp_path_factory.mktemp("weights")
    files = {"heatmap": write_weights("heatmap", "lite0", folder / "heatmap.safetensors"),
             "topdown": write_weights("topdown", "resnet18", folder / "topdown.safetensors"),
             "plain": write_weights("topdown", "resnet18", folder / "plain.safetensors", flips=[]),
             "detector": write_lively("ssd", folder / "detector.safetensors", 128)}
    return {**files, "onnx": export_onnx(files["topdown"], folder / "topdown.onnx")}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three pictures of noise, boxes in two of them, and in it the shell."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 255, (9, 12, 3), np.uint8))
        coarse.resize((120, 90)).save(tmp_path / "pictures" / name)
    (tmp_path / "boxes.csv").write_text(BOXES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def predict(weights: Path, *options: object) -> tuple[list[str], pd.DataFrame]:
    """What it says, and the table that it wrote."""
    code, out, err = call("predict", "--weights", weights, "--images", "pictures", "--out", "found.csv", "--device",
                          "cpu", *options)
    assert code == 0, err
    lines = [line for line in out.splitlines() if not line.endswith((" ...", " s"))]  # without progress
    return lines, pd.read_csv("found.csv")


def find(weights: Path, boxes: pd.DataFrame, *, flip: bool = False) -> pd.DataFrame:
    """The same by `find_poses` itself."""
    names = ["a.png", "b.png", "c.png"]
    images = make_images([{"image_id": name, "archive": "pictures", "member": name, "width": 120, "height": 90}
                          for name in names])
    return find_poses(load_for_inference(weights, "cpu"), images, boxes, flip=flip)


def whole() -> pd.DataFrame:
    return make_boxes([{"image_id": name, "label": "pig", "x_min": 0, "y_min": 0, "x_max": 120, "y_max": 90}
                       for name in ("a.png", "b.png", "c.png")])


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert found["keypoint"].tolist() == expected["keypoint"].tolist()
    assert found["image_id"].tolist() == expected["image_id"].tolist()
    for name in ("x", "y", "confidence"):
        assert found[name].to_numpy() == pytest.approx(expected[name].to_numpy(), rel=1e-4, abs=1e-4)


def test_heat_maps_give_a_row_a_point_of_each_whole_picture(here: Path, weights: dict[str, Path]) -> None:
    for flip in (False, True):
        out, found = predict(weights["heatmap"], *(["--flip"] if flip else []))
        assert out == ["found.csv: 9 points of 3 objects in 3 images"]  # nothing to say of what they are made for
        assert list(found) == POINT_COLUMNS
        assert found["object"].tolist() == [0] * 9
        same(found, find(weights["heatmap"], whole(), flip=flip))
    assert not np.allclose(found["x"], find(weights["heatmap"], whole())["x"])  # the flip counts


def test_places_can_count_from_the_middle_of_the_first_pixel(here: Path, weights: dict[str, Path]) -> None:
    found, moved = (predict(weights["heatmap"], *more)[1] for more in ([], ["--from-centre"]))
    assert moved[["x", "y"]].to_numpy() == pytest.approx(found[["x", "y"]].to_numpy() - 0.5)


def test_top_down_takes_whole_pictures_where_there_is_no_box_and_says_so(here: Path, weights: dict[str, Path]) -> None:
    out, found = predict(weights["topdown"])
    assert out[0] == (f"{weights['topdown']}: without --boxes and --detector each whole picture is taken as the one "
                      "object; topdown was trained on objects cut out by their boxes")
    assert list(found) == POINT_COLUMNS
    same(found, find(weights["topdown"], whole()))


@pytest.mark.parametrize("kind", ["topdown", "onnx"])
def test_boxes_of_a_file_come_back_with_their_points(here: Path, weights: dict[str, Path], kind: str) -> None:
    """All of them, whatever their confidence; a box has the number of its row among those of its picture."""
    out, found = predict(weights[kind], "--boxes", "boxes.csv", "--conf", "0.99")
    assert out == ["1 of 3 pictures have no object and no row, such as c.png",
                   "found.csv: 9 points of 3 objects in 2 images"]
    assert list(found) == OBJECT_COLUMNS
    objects = found.drop_duplicates(["image_id", "object"])
    assert objects[["image_id", "object", "label", "object_confidence", *XYXY]].to_numpy().tolist() == [
        ["a.png", 0, "pig", 0.7, 5, 5, 45, 85], ["b.png", 0, "pig", 0.5, 10, 10, 60, 50],
        ["b.png", 1, "cow", 0.9, 40, 20, 90, 80]]
    boxes = make_boxes(pd.read_csv("boxes.csv"))
    same(found, find(weights[kind], boxes))
    assert found["x"].nunique() > 6


def test_a_detectors_boxes_are_those_that_predict_writes(here: Path, weights: dict[str, Path]) -> None:
    options = ("--conf", "0.02", "--iou", "0.4", "--imgsz", "96")
    _, boxes = predict(weights["detector"], *options)
    assert list(boxes) == ["image_id", "label", "confidence", *XYXY]
    assert len(boxes) > 3
    _, found = predict(weights["topdown"], "--detector", weights["detector"], *options)
    own = found.drop_duplicates(["image_id", "object"]).reset_index(drop=True)
    assert own[["image_id", "label"]].equals(boxes[["image_id", "label"]])
    assert own[XYXY].to_numpy() == pytest.approx(boxes[XYXY].to_numpy(), abs=1e-3)
    assert own["object_confidence"].to_numpy() == pytest.approx(boxes["confidence"].to_numpy(), abs=1e-5)


def test_a_detector_that_sees_nothing_leaves_a_table_without_rows(here: Path, weights: dict[str, Path]) -> None:
    out, found = predict(weights["topdown"], "--detector", weights["detector"], "--conf", "1")
    assert out == ["3 of 3 pictures have no object and no row, such as a.png",
                   "found.csv: 0 points of 0 objects in 0 images"]
    assert list(found) == OBJECT_COLUMNS and found.empty


def test_boxes_that_cannot_be_used_are_counted(here: Path, weights: dict[str, Path]) -> None:
    (here / "more.csv").write_text(BOXES + "z.png,pig,0.5,1,1,9,9\na.png,hen,0.5,1,1,9,9\n")
    out, found = predict(weights["topdown"], "--boxes", "more.csv")
    assert out[:2] == [
        "more.csv: 1 of 3 images are not in pictures, such as 'z.png'; it has 'a.png': their boxes are left out",
        f"1 of 4 boxes are left out: {weights['topdown']} has no keypoints of hen"]
    assert len(found) == 9


@pytest.mark.bad_input
@pytest.mark.parametrize(("kind", "options", "words"), [
    ("detector", ["--flip"], "detector.safetensors: --flip: expected weights that find keypoints, found ssd, "),
    ("detector", ["--boxes", "boxes.csv"], "--boxes: expected weights that find keypoints"),
    ("topdown", ["--detector", "{topdown}"], "expected weights that find boxes, found topdown, which finds "),
    ("topdown", ["--boxes", "boxes.csv", "--detector", "{detector}"], "--boxes and --detector: expected one of them"),
    ("heatmap", ["--boxes", "boxes.csv"], "--boxes: expected weights that cut objects out of their picture, such as "),
    ("heatmap", ["--detector", "{detector}"], "--detector: expected weights that cut objects out of their picture"),
    ("heatmap", ["--imgsz", "96"], "--imgsz: a network of keypoints sees objects at the size of its training alone: "
                                   "expected 64 or nothing, found 96"),
    ("detector", ["--from-centre"], "detector.safetensors: --from-centre: expected weights that find keypoints, found"),
    ("plain", ["--flip"], "flip: expected mirror images of its keypoints, found none"),
    ("topdown", ["--boxes", "none.csv"], "No such file or directory: 'none.csv'"),
    ("topdown", ["--boxes", "hens.csv"], "hens.csv: expected boxes of pig, cow, whose keypoints "),
    ("topdown", ["--boxes", "far.csv"], "far.csv: 1 of 1 images are not in pictures, such as 'z.png'; it has 'a.png'"),
    ("topdown", ["--boxes", "flat.csv"], "flat.csv: line 2 (a.png): expected x_min < x_max and y_min < y_max, found"),
    ("topdown", ["--boxes", "sure.csv"], "sure.csv: line 2 (a.png): expected a confidence of 0 to 1, found"),
    ("topdown", ["--boxes", "text.csv"], "text.csv: line 2 (a.png): y_min: expected a finite number, found 'x'"),
    ("topdown", ["--boxes", "case.csv"], "case.csv: line 1: missing column 'label': 'Label' and 'label' differ in "),
    ("topdown", ["--boxes", "short.csv"], "short.csv: line 2: expected 7 fields, found 2"),
])
def test_what_predict_refuses_is_one_line_and_nothing_is_written(
    here: Path, weights: dict[str, Path], kind: str, options: list[str], words: str
) -> None:
    rows = {"hens": "a.png,hen,1,1,1,9,9", "far": "z.png,pig,1,1,1,9,9", "flat": "a.png,pig,1,1,1,1,9",
            "sure": "a.png,pig,1.5,1,1,9,9", "text": "a.png,pig,1,1,x,9,9", "short": "a.png,pig"}
    for name, row in rows.items():
        (here / f"{name}.csv").write_text(BOX_HEADER + row + "\n")
    (here / "case.csv").write_text(BOX_HEADER.replace("label", "Label"))
    given = [option.format(**weights) for option in options]
    code, _, err = call("predict", "--weights", weights[kind], "--images", "pictures", "--out", "found.csv", *given)
    assert code == 2
    assert len(err.splitlines()) == 1 and words in err
    assert not (here / "found.csv").exists()


def test_the_size_of_its_training_may_be_said(here: Path, weights: dict[str, Path]) -> None:
    assert predict(weights["heatmap"], "--imgsz", SIDE)[1].equals(predict(weights["heatmap"])[1])


SKELETON = """
name: ears
classes: {pig: [pig], cow: [cow]}
metric_iou: 0.75
skeleton:
  keypoints:
  - {label: pig, keypoint: nose, index: 0, sigma: 0.05}
  - {label: pig, keypoint: tail, index: 1, sigma: 0.05}
  - {label: cow, keypoint: nose, index: 0, sigma: 0.05}
  - {label: cow, keypoint: tail, index: 1}
"""


def write_coco(path: Path, objects: list[tuple[str, str, list[float], list[float]]]) -> Path:
    """A truth of these objects: picture, label, bbox and keypoints (nose, tail); the area is a quarter of the box."""
    names = sorted({name for name, *_ in objects})
    categories = [{"id": number, "name": label, "keypoints": ["nose", "tail"]} for number, label in ((1, "pig"),
                                                                                                     (2, "cow"))]
    annotations = [{"id": nth, "image_id": names.index(name), "category_id": 1 if label == "pig" else 2, "bbox": bbox,
                    "area": bbox[2] * bbox[3] / 4, "iscrowd": 0, "keypoints": points}
                   for nth, (name, label, bbox, points) in enumerate(objects)]
    images = [{"id": nth, "file_name": name, "width": 200, "height": 200} for nth, name in enumerate(names)]
    content = {"images": images,
               "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    return path


def write_points(path: Path, header: list[str], rows: list[tuple]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three animals in two pictures, boxes 30 x 40 px (diagonal 50 px); an answer in another folder that has two.

    Errors: a.jpg pig nose 0 px, tail 5 px (hidden); b.jpg pig nose 2 px, its tail is not labelled; the cow is missed.
    """
    write_coco(tmp_path / "truth.json", [
        ("a.jpg", "pig", [10, 10, 30, 40], [20, 20, 2, 30, 40, 1]),
        ("b.jpg", "pig", [50, 10, 30, 40], [60, 30, 2, 0, 0, 0]),
        ("b.jpg", "cow", [100, 100, 30, 40], [110, 110, 2, 120, 130, 2])])
    write_points(tmp_path / "answer.csv", OBJECT_COLUMNS, [
        ("test/a.jpg", 0, "pig", "nose", 20, 20, 0.9, 10, 10, 40, 50, 0.8),
        ("test/a.jpg", 0, "pig", "tail", 33, 44, 0.9, 10, 10, 40, 50, 0.8),
        ("test/b.jpg", 0, "pig", "nose", 60, 32, 0.9, 50, 11, 80, 50, 0.9),
        ("test/b.jpg", 0, "pig", "tail", 1, 1, 0.9, 50, 11, 80, 50, 0.9)])
    (tmp_path / "ears.yaml").write_text(SKELETON)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def score(*words: object) -> list[str]:
    code, out, err = call("score", *words)
    assert code == 0, err
    return out.splitlines()


def cells(lines: list[str], name: str) -> list[str]:
    return next(line for line in lines if line.startswith(f"{name} ")).removeprefix(name).split()


def test_points_are_scored_by_their_boxes_with_exact_figures(scored: Path) -> None:
    lines = score("truth.json", "answer.csv", "--competition", "ears.yaml")
    assert lines[0] == "objects matched by their boxes at IoU 0.5: 2 of 3 with a labelled point; the answer has 2"
    assert lines[1].split() == ["pixels", "points", "missed", "mean", "median", "sd", "min", "max", "q95", ">25", "px",
                                "PCK", ".05", "mean", "pose", "its", "PCK"]
    # Of errors 0, 5, 2 and two that are missed; 2.5 px are 5 % of each diagonal, so 2 of 5 points are right.
    assert " ".join(cells(lines, "all points")[:10]) == "5 2 2.33 2.00 2.52 0.00 5.00 4.70 0.000 0.400"
    assert cells(lines, "seen")[:3] == ["4", "2", "1.00"]
    assert cells(lines, "hidden")[:3] == ["1", "0", "5.00"]
    assert cells(lines, "nose")[:3] == ["3", "1", "1.00"]
    assert cells(lines, "tail")[:3] == ["2", "1", "5.00"]
    # The mean pose of the pig's nose lies at (1/3, 3/8) of the box, 5 px from each of the two; others are alone.
    assert cells(lines, "nose")[10:] == ["3.33", "0.333"]
    assert cells(lines, "all points")[10:] == ["2.00", "0.600"]
    # OKS of the pigs: (1 + exp(-25 / (8 .05² 300))) / 2 and exp(-4 / (8 .05² 300)): both above .5, none above .55.
    assert (round((1 + np.exp(-25 / 6)) / 2, 3), round(np.exp(-4 / 6), 3)) == (0.508, 0.513)
    # So one of ten thresholds finds both pigs; none finds the cow, over which the mean is, too.
    assert next(line for line in lines if "OKS" in line) == (
        "OKS AP 0.0500, at .5 0.5000, at .75 0.0000 (areas of the file)")
    assert "cow: no sigma is given for tail; OKS uses the default 0.05" in lines
    assert "mean error: 2.33 px, 95 % interval 2.00 to 2.50 over 2 images" in lines
    assert any("puts each point where it lies on average in the boxes of this truth" in line for line in lines)
    assert any("images as independent" in line for line in lines)


def test_crowds_and_objects_without_points_are_not_judged(scored: Path) -> None:
    before = score("truth.json", "answer.csv")
    content = json.loads((scored / "truth.json").read_text())
    one = content["annotations"][0]
    content["annotations"] += [{**one, "id": 8, "iscrowd": 1}, {**one, "id": 9, "keypoints": [], "bbox": [0, 0, 0, 0]}]
    (scored / "truth.json").write_text(json.dumps(content))
    assert score("truth.json", "answer.csv") == before


def test_the_threshold_of_boxes_counts(scored: Path) -> None:
    lines = score("truth.json", "answer.csv", "--iou", "0.99")
    assert lines[0].startswith("objects matched by their boxes at IoU 0.99: 1 of 3")
    assert cells(lines, "all points")[1] == "3"
    assert "no OKS AP: it needs sigmas, of the skeleton in --competition FILE" in lines


def test_one_object_a_picture_needs_no_boxes(scored: Path) -> None:
    """As the family heatmap answers: by image; the truth has boxes, or a column `visible` and none."""
    write_coco(scored / "one.json", [("a.jpg", "pig", [0, 0, 60, 80], [10, 10, 2, 20, 20, 1]),
                                     ("b.jpg", "pig", [0, 0, 60, 80], [30, 10, 2, 20, 20, 2])])
    write_points(scored / "one.csv", POINT_COLUMNS, [
        ("a.jpg", 0, "nose", 13, 14, 0.5), ("a.jpg", 0, "tail", 20, 20, 0.5), ("b.jpg", 0, "nose", 30, 10, 0.5),
        ("b.jpg", 0, "tail", 20, 60, 0.5)])
    lines = score("one.json", "one.csv", "--competition", "ears.yaml")
    assert lines[0] == "objects matched by their images: 2 of 2 with a labelled point; the answer has 2"
    assert " ".join(cells(lines, "all points")) == "4 0 11.25 2.50 19.31 0.00 40.00 34.75 0.250 0.750 5.00 0.500"
    assert any(line.startswith("OKS AP 0.") for line in lines)
    write_points(scored / "truth.csv", ["image_id", "keypoint", "x", "y", "visible"], [
        ("a.jpg", "nose", 10, 10, 2), ("a.jpg", "tail", 20, 20, 1), ("b.jpg", "nose", 30, 10, 2),
        ("b.jpg", "tail", "", "", 0)])
    lines = score("truth.csv", "one.csv", "--competition", "ears.yaml")
    assert " ".join(cells(lines, "all points")) == "3 0 1.67 0.00 2.89 0.00 5.00 4.50 0.000 - 6.67 -"
    assert cells(lines, "hidden")[2] == "0.00"
    assert not any("OKS AP 0" in line for line in lines)
    assert any("mean place in pixels of this truth" in line and "no PCK and no OKS AP" in line for line in lines)


def test_a_truth_as_predict_writes_it_says_the_same_as_coco(scored: Path) -> None:
    corners = {"a.jpg0": (10, 10, 40, 50), "b.jpg0": (50, 10, 80, 50), "b.jpg1": (100, 100, 130, 140)}
    write_points(scored / "truth.csv", ["image_id", "object", "label", "keypoint", "x", "y", "visible", *XYXY], [
        (name, nth, label, point, *place, *corners[f"{name}{nth}"]) for name, nth, label, point, place in (
            ("b.jpg", 1, "cow", "nose", (110, 110, 2)), ("b.jpg", 1, "cow", "tail", (120, 130, 2)),
            ("a.jpg", 0, "pig", "nose", (20, 20, 2)), ("b.jpg", 0, "pig", "nose", (60, 30, 2)),
            ("a.jpg", 0, "pig", "tail", (30, 40, 1)), ("b.jpg", 0, "pig", "tail", ("", "", 0)))])
    first, second = (score(truth, "answer.csv") for truth in ("truth.json", "truth.csv"))
    assert {line for line in first if line[:4] != "mean"} == {line for line in second if line[:4] != "mean"}
    assert cells(first, "all points") == cells(second, "all points")


def test_a_folder_of_labels_is_a_truth_with_its_competition(scored: Path) -> None:
    (scored / "raw/images").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (200, 200)).save(scored / "raw/images" / name)
    shutil.copy(scored / "truth.json", scored / "raw/labels.json")
    of_file, of_folder = (score(truth, "answer.csv", "--competition", "ears.yaml") for truth in ("truth.json", "raw"))
    assert of_folder[0].startswith("raw: 3 objects with keypoints in 2 images; left out or changed: 0 (`livestock")
    for name in ("all points", "seen", "hidden", "nose", "tail"):
        assert cells(of_folder, name) == cells(of_file, name)
    (scored / "raw/labels.json").unlink()
    code, out, err = call("score", "raw", "answer.csv")
    assert (code, out) == (2, "") and "raw: a folder of labels is read with the classes and the skeleton" in err
    code, out, err = call("score", "raw", "answer.csv", "--competition", "ears.yaml")
    assert code == 2 and "raw: no label format recognised among 2 files" in err and len(err.splitlines()) == 1


def test_intervals_are_over_groups_where_they_are_known(scored: Path) -> None:
    rows, objects = [], []
    for nth in range(6):
        name, error = f"cam{nth // 3}_{nth}.jpg", 2 if nth < 3 else 8
        objects.append((name, "pig", [0, 0, 60, 80], [20, 20, 2, 30, 30, 2]))
        rows += [(name, 0, "nose", 20 + error, 20, 0.5), (name, 0, "tail", 30, 30 + error, 0.5)]
    write_coco(scored / "cams.json", objects)
    write_points(scored / "cams.csv", POINT_COLUMNS, rows)
    write_points(scored / "better.csv", POINT_COLUMNS, [(*row[:3], *((20, 20) if row[2] == "nose" else (30, 33)), 0.5)
                                                        for row in rows])
    lines = score("cams.json", "cams.csv", "--group-pattern", "(cam.)_")
    assert "mean error: 5.00 px, 95 % interval 2.00 to 8.00 over 2 groups" in lines
    assert not any("independent" in line for line in lines)
    single = next(line for line in score("cams.json", "cams.csv") if line.startswith("mean error"))
    assert single.endswith("over 6 images") and "2.00 to 8.00" not in single
    assert "mean pose less this answer: -5.00 px, 95 % interval -8.00 to -2.00 over 2 groups" in lines
    both = score("cams.json", "cams.csv", "better.csv", "--group-pattern", "(cam.)_")
    assert both[0] == "cams.csv" and "better.csv" in both
    assert "first less second answer: +3.50 px, 95 % interval +0.50 to +6.50 over 2 groups" in both


@pytest.mark.bad_input
@pytest.mark.parametrize(("truth", "answer", "words"), [
    ("truth.json", "boxes.csv", "boxes.csv: line 1: missing column 'keypoint'; expected image_id,keypoint,x,y, found"),
    ("list.json", "answer.csv", "list.json: expected COCO's JSON with the lists images, annotations and categories"),
    ("half.json", "answer.csv", "half.json: expected COCO's JSON with keypoints, found"),
    ("none.json", "answer.csv", "No such file or directory: 'none.json'"),
    ("bare.json", "answer.csv", "bare.json: expected annotations with keypoints, found none in 1"),
    ("two.json", "answer.csv", "two.json: annotations: entry 0: keypoints: expected 6 numbers, x, y and visibility "),
    ("three.json", "answer.csv", "three.json: annotations: entry 0: keypoints: expected a visibility of 0, 1 or 2"),
    ("flat.json", "answer.csv", "flat.json: annotations: entry 0: expected a bbox of x, y, width and height in pixels"),
    ("truth.json", "twice.csv", "twice.csv: line 3 (a.jpg, nose): expected each point of an object once"),
    ("truth.json", "text.csv", "text.csv: line 2 (a.jpg): x: expected a finite number, found 'left'"),
    ("truth.json", "empty.csv", "empty.csv: expected at least one point below the header, found none"),
    ("truth.json", "other.csv", "other.csv: expected images of the truth, such as 'a.jpg', found none of them"),
    ("truth.json", "same.csv", "same.csv: images 'x/a.jpg' and 'y/a.jpg': expected one of the name 'a.jpg'"),
    ("truth.json", "plain.csv", "plain.csv: expected corners of boxes (x_min, y_min, x_max, y_max) in "),
    ("truth.json", "strange.csv", "strange.csv: line 2 (a.jpg, nose): visible: expected 0, 1 or 2"),
    ("truth.json", "moved.csv", "moved.csv: line 3 (a.jpg, tail): x_max: expected one for all points of an object"),
    ("truth.json", "unsure.csv", "unsure.csv: line 3 (a.jpg, tail): object_confidence: expected one for all points"),
    ("again.json", "answer.csv", "again.json: images: expected each file_name once, found 'a.jpg' under several ids"),
    ("unseen.json", "answer.csv", "unseen.json: expected points with visible 1 or 2, found none that is labelled"),
    ("truth.json", "labels.csv", "labels.csv: expected a column label, since the truth has objects of cow, pig"),
])
def test_what_score_refuses_is_one_line(scored: Path, truth: str, answer: str, words: str) -> None:
    (scored / "boxes.csv").write_text(BOXES)
    (scored / "list.json").write_text("[]")
    (scored / "half.json").write_text('{"images": [')
    for name, bbox, points in (("bare", [1, 1, 9, 9], []), ("two", [1, 1, 9, 9], [1, 1, 2]),
                               ("three", [1, 1, 9, 9], [1, 1, 3, 1, 1, 2]), ("flat", [1, 1, 0, 9], [1, 1, 2, 1, 1, 2])):
        write_coco(scored / f"{name}.json", [("a.jpg", "pig", bbox, points)])
    write_coco(scored / "unseen.json", [("a.jpg", "pig", [1, 1, 9, 9], [0, 0, 0, 0, 0, 0])])
    again = json.loads((scored / "truth.json").read_text().replace("b.jpg", "a.jpg"))
    (scored / "again.json").write_text(json.dumps(again))
    row = ("a.jpg", 0, "nose", 1, 1, 0.5)
    write_points(scored / "unsure.csv", [*POINT_COLUMNS, "object_confidence"], [(*row, 0.9), (
        "a.jpg", 0, "tail", 1, 1, 0.5, 0.1)])
    for name, rows in {"twice": [row, row], "text": [("a.jpg", 0, "nose", "left", 1, 0.5)], "empty": [],
                       "other": [("q.jpg", *row[1:])], "plain": [row],
                       "same": [("x/a.jpg", *row[1:]), ("y/a.jpg", *row[1:])]}.items():
        write_points(scored / f"{name}.csv", POINT_COLUMNS, rows)
    write_points(scored / "strange.csv", [*POINT_COLUMNS, "visible"], [(*row, 3)])
    moved = [(*row, 1, 1, 9, 9), ("a.jpg", 0, "tail", 1, 1, 0.5, 1, 1, 8, 9)]
    write_points(scored / "moved.csv", [*POINT_COLUMNS, *XYXY], moved)
    write_points(scored / "labels.csv", [*POINT_COLUMNS, *XYXY], moved[:1])
    code, out, err = call("score", truth, answer)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1 and words in err


@pytest.mark.bad_input
def test_a_competition_without_a_skeleton_is_refused(scored: Path) -> None:
    (scored / "plain.yaml").write_text(SKELETON.partition("skeleton:")[0])
    code, out, err = call("score", "truth.json", "answer.csv", "--competition", "plain.yaml")
    assert (code, out) == (2, "")
    assert "plain.yaml: expected a `skeleton` with the keypoints of each class, found none" in err


@pytest.mark.bad_input
@pytest.mark.parametrize(("options", "words"), [
    (["--out", "."], "expected the name of a file to write, found a folder"),
    (["--out", "p.csv", "--imgsz", "-640"], "--imgsz: expected 32 px or more, found -640")])
def test_what_cannot_be_written_or_seen_is_refused_first(scored: Path, options: list[str], words: str) -> None:
    code, out, err = call("predict", "--weights", "none.safetensors", "--images", "none", *options)
    assert (code, out) == (2, "") and words in err


def test_names_that_only_one_file_has_are_said(scored: Path) -> None:
    text = (scored / "answer.csv").read_text()
    (scored / "odd.csv").write_text(text.replace("tail", "tale") + "z.jpg,0,pig,nose,1,1,1,1,1,9,9,1\n")
    lines = score("truth.json", "odd.csv")
    assert "1 images of the answer are not in the truth, such as 'z.jpg'" in lines
    assert "keypoints of the truth alone: tail" in lines and "keypoints of the answer alone: tale" in lines
    assert cells(lines, "tail")[:3] == ["2", "2", "-"]


def test_labels_that_only_the_answer_has_are_said_with_the_slip(scored: Path) -> None:
    (scored / "upper.csv").write_text((scored / "answer.csv").read_text().replace("pig", "Pig"))
    lines = score("truth.json", "upper.csv")
    assert lines[0].startswith("objects matched by their boxes at IoU 0.5: 0 of 3")
    assert ("labels of the answer alone, whose objects match none: Pig; the truth has cow, pig; 'Pig' and 'pig' differ "
            "in upper and lower case") in lines
    assert not any("labels of the answer" in line for line in score("truth.json", "answer.csv"))


def test_a_header_in_quotes_is_one_of_keypoints(scored: Path) -> None:
    text = (scored / "answer.csv").read_text()
    header = text.splitlines()[0]
    (scored / "quoted.csv").write_text(text.replace(header, ",".join(f'"{name}"' for name in header.split(","))))
    assert score("quoted.csv", "quoted.csv") == [
        line.replace("answer.csv", "quoted.csv") for line in score("answer.csv", "answer.csv")]


def test_what_predict_writes_can_be_scored(scored: Path, weights: dict[str, Path]) -> None:
    """A truth of boxes, points of a network in them: each object is found, each point has an error."""
    shutil.rmtree(scored / "pictures", ignore_errors=True)
    (scored / "pictures").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(np.random.default_rng(1).integers(0, 255, (200, 200, 3), np.uint8)).save(
            scored / "pictures" / name)
    (scored / "true.csv").write_text(BOX_HEADER + "a.jpg,pig,1,10,10,40,50\nb.jpg,pig,1,50,10,80,50\n"
                                                  "b.jpg,cow,1,100,100,130,140\n")
    named = write_weights("topdown", "resnet18", scored / "w.safetensors", points=["nose", "tail"], flips=[])
    predict(named, "--boxes", "true.csv")
    lines = score("truth.json", "found.csv")
    assert lines[0] == "objects matched by their boxes at IoU 0.5: 3 of 3 with a labelled point; the answer has 3"
    assert cells(lines, "all points")[:2] == ["5", "0"]


@pytest.mark.bad_input
def test_check_says_that_it_knows_no_rule_for_keypoints(here: Path, weights: dict[str, Path]) -> None:
    predict(weights["heatmap"])
    code, _, err = call("check", "found.csv", "--images", "pictures")
    assert code == 2
    assert "found.csv: expected an answer of boxes, found a table of keypoints" in err and len(err.splitlines()) == 1
