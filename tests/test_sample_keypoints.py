"""The sample with keypoints: COCO files that the usual tools read, on the pictures of the other sample."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from livestock.config import REPOSITORY, read_competition
from livestock.data import readers
from livestock.sample import annotate, draw_keypoint_sample, draw_sample, plan_sample
from livestock.sample.joints import POINTS
from livestock.sample.keypoints import frame_keypoints, livestock_skeleton

SMALL: dict[str, Any] = {"n_train": 16, "n_test": 8, "scale": 0.15}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keypoints")
    draw_keypoint_sample(directory, seed=3, **SMALL)
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def labels(directory: Path, name: str = "train/_annotations.coco.json") -> dict[str, Any]:
    return json.loads((directory / name).read_text(encoding="utf-8"))


def both(directory: Path) -> list[dict[str, Any]]:
    return [labels(directory), labels(directory, "truth_test.json")]


def points_of(annotation: dict[str, Any]) -> np.ndarray:
    return np.array(annotation["keypoints"], float).reshape(-1, 3)


def test_equal_seeds_give_equal_bytes_and_others_give_others(sample: Path, tmp_path: Path) -> None:
    draw_keypoint_sample(tmp_path / "again", seed=3, **SMALL)
    draw_keypoint_sample(tmp_path / "other", seed=4, **SMALL)
    first, again, other = (contents(path) for path in (sample, tmp_path / "again", tmp_path / "other"))
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_the_files_are_those_of_the_layout(sample: Path) -> None:
    names = set(contents(sample))
    shots = plan_sample(seed=3, **SMALL)
    images = {f"{shot.split}/images/{shot.stem}.jpg" for shot in shots}
    assert names == images | {"train/_annotations.coco.json", "truth_test.json", "sources.csv"}


def test_pictures_boxes_and_sources_are_those_of_the_other_sample(sample: Path, tmp_path: Path) -> None:
    draw_sample(tmp_path, seed=3, **SMALL)
    assert (tmp_path / "sources.csv").read_bytes() == (sample / "sources.csv").read_bytes()
    for path in tmp_path.rglob("*원천*.zip"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                assert archive.read(name) == (sample / path.parent.name / "images" / name).read_bytes()
    found = {}
    for content in both(sample):
        stems = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
        for one in content["annotations"]:
            x, y, width, height = one["bbox"]
            found.setdefault(stems[one["image_id"]], []).append([x, y, round(x + width, 2), round(y + height, 2)])
    expected = {shot.stem: [one["bbox"] for one in annotate(shot)] for shot in plan_sample(seed=3, **SMALL)}
    assert found == {stem: boxes for stem, boxes in expected.items() if boxes}


def test_categories_have_the_names_and_the_edges_of_the_skeleton_from_1(sample: Path) -> None:
    skeleton = livestock_skeleton()
    for content in both(sample):
        assert [(c["id"], c["name"]) for c in content["categories"]] == [(1, "pig"), (2, "cow")]
        for category in content["categories"]:
            assert category["keypoints"] == list(POINTS)
            edges = [(POINTS[first - 1], POINTS[second - 1]) for first, second in category["skeleton"]]
            assert edges == [(e.first, e.second) for e in skeleton.edges if e.label == category["name"]]
        species = {image["id"]: image["file_name"].split("_")[1] for image in content["images"]}
        names = {c["id"]: c["name"] for c in content["categories"]}
        assert all(names[a["category_id"]] == species[a["image_id"]] for a in content["annotations"])


def test_annotations_are_whole_and_fit_their_pictures(sample: Path) -> None:
    counts = np.zeros(3, int)
    for content, split in zip(both(sample), ("train", "test"), strict=True):
        images = {image["id"]: image for image in content["images"]}
        assert list(images) == list(range(1, len(images) + 1))
        assert [a["id"] for a in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
        for image in images.values():
            height, width = cv2.imread(str(sample / split / "images" / image["file_name"])).shape[:2]
            assert (image["width"], image["height"]) == (width, height)
        for one in content["annotations"]:
            image, points = images[one["image_id"]], points_of(one)
            assert points.shape == (18, 3)
            assert one["num_keypoints"] == (points[:, 2] > 0).sum() > 0
            assert (points[points[:, 2] == 0] == 0).all()
            assert (points[:, :2] <= [image["width"], image["height"]]).all()
            assert one["behaviour"] in ("lying", "standing", "sitting", "eating")
            assert one["iscrowd"] == 0
            x, y, width, height = one["bbox"]
            inside = points[points[:, 2] > 0, :2]
            assert (inside >= [x - 0.02, y - 0.02]).all()
            assert (inside <= [x + width + 0.02, y + height + 0.02]).all()
            assert 1 <= one["area"] <= 1.1 * (width + 1) * (height + 1)
            counts += [(points[:, 2] == flag).sum() for flag in (0, 1, 2)]
    assert (counts > [5, 300, 600]).all()


def test_points_in_the_file_are_those_of_the_frames(sample: Path) -> None:
    found = [points_of(one) for content in both(sample) for one in content["annotations"]]
    shots = sorted(plan_sample(seed=3, **SMALL), key=lambda shot: shot.split == "test")
    expected = [points for shot in shots for points in frame_keypoints(shot.frame)[2]]
    assert np.allclose(found, np.nan_to_num(expected), atol=0.0051)


@pytest.mark.parametrize("name", ["train/_annotations.coco.json", "truth_test.json"])
def test_coco_tools_read_it_and_find_the_truth_perfect(sample: Path, name: str) -> None:
    content, sigmas = labels(sample, name), np.array(livestock_skeleton().sigmas("pig"))
    answer = [{key: one[key] for key in ("image_id", "category_id", "keypoints", "bbox")} | {"score": 1.0}
              for one in content["annotations"]]
    for reader, evaluate in ((COCO, COCOeval), (FasterCOCO, COCOeval_faster)):
        with contextlib.redirect_stdout(io.StringIO()):
            truth = reader(str(sample / name))
            assert len(truth.getAnnIds()) == len(content["annotations"]) > 10
            kind = {"kpt_oks_sigmas": sigmas} if evaluate is COCOeval_faster else {}
            judge = evaluate(truth, truth.loadRes(answer), "keypoints", **kind)
            judge.params.kpt_oks_sigmas = sigmas
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        assert judge.stats[0] == pytest.approx(1.0)


def test_the_reader_of_coco_finds_the_boxes_and_the_images_to_answer(sample: Path) -> None:
    competition = read_competition(REPOSITORY / "keypoints.yaml")
    train, test = readers.read_train_and_test("auto", sample, competition)
    content = labels(sample)
    assert len(train.boxes) == len(content["annotations"])
    assert len(train.images) == SMALL["n_train"]
    assert set(train.boxes["label"]) == {"pig", "cow"}
    assert test is not None
    assert len(test.images) == SMALL["n_test"]


def test_sources_name_every_image_and_its_clip(sample: Path) -> None:
    with (sample / "sources.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["split"], row["image_id"]) for row in rows} == {
        (path.parent.parent.name, path.name) for path in sample.rglob("*.jpg")}


def test_images_of_another_sample_are_named_and_nothing_is_written(sample: Path, tmp_path: Path) -> None:
    other = tmp_path / "train/images/mine.jpg"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"")
    with pytest.raises(ValueError, match=r"expected no images of another sample, found .*mine\.jpg; choose an empty"):
        draw_keypoint_sample(tmp_path, **SMALL)
    assert list(contents(tmp_path)) == ["train/images/mine.jpg"]


@pytest.mark.parametrize(("name", "value"), [("n_train", 7), ("n_test", 1), ("scale", 0.0)])
def test_a_bad_argument_is_named_before_anything_is_written(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be .* found {value}"):
        draw_keypoint_sample(tmp_path / "none", **{name: value})
    assert not (tmp_path / "none").exists()
