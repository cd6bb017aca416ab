"""The drawn sample: AI Hub layout, labels that fit the pictures, bytes that depend on the seed alone."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from livestock.sample import annotate, build_barn, draw_sample, plan_sample, render_scene

SMALL = {"n_train": 16, "n_test": 8, "scale": 0.12}
KOREAN = {"cow": "소", "pig": "돼지"}
Boxes = dict[str, list[tuple[int, tuple[float, ...]]]]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sample")
    draw_sample(directory, seed=3, **SMALL)
    return directory


@pytest.fixture(scope="module")
def incomplete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sample with a third of the cows left out of the train labels."""
    directory = tmp_path_factory.mktemp("incomplete")
    draw_sample(directory, seed=3, missing_cow_fraction=0.3, **SMALL)
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def train_labels(directory: Path) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for korean in KOREAN.values():
        for name, content in members(directory / "train" / f"[라벨]{korean}_bbox.zip").items():
            found[name.removesuffix(".json")] = json.loads(content)["label_info"]
    return found


def images(directory: Path, split: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for korean in KOREAN.values():
        found |= members(directory / split / f"[원천]{korean}_bbox.zip")
    return found


def boxes_by_image(directory: Path) -> Boxes:
    return {stem: [(box["category_id"], tuple(box["bbox"])) for box in info["annotations"]]
            for stem, info in train_labels(directory).items()}


def size_of(jpeg: bytes) -> tuple[int, int]:
    height, width = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    return width, height


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(sample: Path, tmp_path: Path) -> None:
    draw_sample(tmp_path / "again", seed=3, **SMALL)
    draw_sample(tmp_path / "other", seed=4, **SMALL)
    first, again, other = (contents(path) for path in (sample, tmp_path / "again", tmp_path / "other"))
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)
    assert not set(images(sample, "train").values()) & set(images(tmp_path / "other", "train").values())


def test_drawing_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    plan_sample(n_train=8, n_test=2, scale=0.05)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_archives_and_members_are_named_as_ai_hub_names_them(sample: Path) -> None:
    archives = {str(path.relative_to(sample)) for path in sample.rglob("*.zip")}
    folders = ("train/[원천]", "train/[라벨]", "test/[원천]")
    assert archives == {f"{folder}{korean}_bbox.zip" for folder in folders for korean in KOREAN.values()}
    for species, korean in KOREAN.items():
        train = list(members(sample / f"train/[원천]{korean}_bbox.zip"))
        test = list(members(sample / f"test/[원천]{korean}_bbox.zip"))
        labels = list(members(sample / f"train/[라벨]{korean}_bbox.zip"))
        assert train + test == [f"livestock_{species}_bbox_{number:06d}.jpg" for number in range(1, 13)]
        assert labels == [name.replace(".jpg", ".json") for name in train]
        assert (len(train), len(test)) == (8, 4)
    assert not list(sample.rglob("*.partial"))


def test_images_are_stored_without_a_second_compression(sample: Path) -> None:
    for path in sample.rglob("*원천*.zip"):
        with zipfile.ZipFile(path) as archive:
            assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
            assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_labels_fit_their_pictures(sample: Path) -> None:
    pictures = images(sample, "train")
    labels = train_labels(sample)
    assert {f"{stem}.jpg" for stem in labels} == set(pictures)
    for stem, info in labels.items():
        assert info["image"]["file_name"] == f"{stem}.jpg"
        size = (info["image"]["width"], info["image"]["height"])
        assert size == size_of(pictures[f"{stem}.jpg"])
        assert size in ({(230, 130)} if "_cow_" in stem else {(230, 130), (154, 115)})
        assert [c["name"] for c in info["categories"]] == ["lying", "standing", "sitting", "eating"]
        for box in info["annotations"]:
            x0, y0, x1, y1 = box["bbox"]
            assert 0 <= x0 < x1 <= size[0]
            assert 0 <= y0 < y1 <= size[1]
            assert box["category_id"] in (1, 2, 3, 4)


def test_truth_lists_every_test_box_divided_by_the_size_of_its_image(sample: Path) -> None:
    rows = read_csv(sample / "truth_test.csv")
    assert list(rows[0]) == ["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"]
    pictures = images(sample, "test")
    expected = []
    for shot in plan_sample(seed=3, **SMALL):
        if shot.split == "test":
            width, height = size_of(pictures[f"{shot.stem}.jpg"])
            expected += [(f"{shot.stem}.jpg", shot.species, x0 / width, x1 / width, y0 / height, y1 / height)
                         for x0, y0, x1, y1 in (box["bbox"] for box in annotate(shot))]
    numbers = ("XMin", "XMax", "YMin", "YMax")
    found = [(row["ImageID"], row["LabelName"], *(float(row[name]) for name in numbers)) for row in rows]
    assert found == expected
    assert {row["LabelName"] for row in rows} == {"cow", "pig"}


def test_boxes_lie_where_the_animals_are() -> None:
    """A pig changes the picture of the empty barn inside its box, and nowhere but for its shadow outside."""
    rng = np.random.default_rng(5)
    barn = build_barn("pig", "PIG 01", 320, 180, rng)
    empty, with_pigs = (render_scene(barn, count, np.random.default_rng(11)) for count in (0, 1))
    assert len(empty[1]) == 0
    assert empty[0].shape == (180, 320, 3)
    assert empty[0].dtype == np.uint8
    (box,), (behaviour,) = with_pigs[1], with_pigs[2]
    assert behaviour in ("lying", "standing", "sitting", "eating")
    x0, y0, x1, y1 = box.round().astype(int)
    difference = cv2.GaussianBlur(with_pigs[0], (0, 0), 2).astype(int) - cv2.GaussianBlur(empty[0], (0, 0), 2)
    inside = np.abs(difference).max(2)[y0:y1, x0:x1]
    outside = np.abs(difference).max(2)
    outside[max(0, y0 - 40):y1 + 40, max(0, x0 - 40):x1 + 40] = 0
    assert np.median(inside) > 25
    assert outside.max() < 25


def test_sources_tell_where_each_image_comes_from(sample: Path) -> None:
    rows = read_csv(sample / "sources.csv")
    assert list(rows[0]) == ["image_id", "split", "camera", "clip", "frame"]
    for split in ("train", "test"):
        assert [row["image_id"] for row in rows if row["split"] == split] == list(images(sample, split))


def test_clips_stay_in_their_split_and_some_test_cameras_are_new() -> None:
    """Planned at a size at which every train camera is used; else any camera might be new to the test set."""
    shots = plan_sample(seed=2, n_train=96, n_test=32, scale=0.06)
    for species in KOREAN:
        seen = {split: [shot for shot in shots if (shot.species, shot.split) == (species, split)]
                for split in ("train", "test")}
        clips = {split: {shot.clip for shot in found} for split, found in seen.items()}
        cameras = {split: {shot.frame.barn.name for shot in found} for split, found in seen.items()}
        assert not clips["train"] & clips["test"]
        assert len(cameras["train"]) == 3
        assert len(cameras["test"] - cameras["train"]) == 1
        assert cameras["test"] & cameras["train"]


def test_left_out_cows_are_listed_and_nothing_else_changes(sample: Path, incomplete: Path) -> None:
    whole, part = boxes_by_image(sample), boxes_by_image(incomplete)
    rows = read_csv(incomplete / "left_out.csv")
    n_cows = sum(len(found) for stem, found in whole.items() if "_cow_" in stem)
    assert len(rows) == round(0.3 * n_cows) > 0
    assert {row["label"] for row in rows} == {"cow"}
    left_out: dict[str, list[tuple[float, ...]]] = {}
    for row in rows:
        box = tuple(float(row[name]) for name in ("x_min", "y_min", "x_max", "y_max"))
        left_out.setdefault(row["image_id"].removesuffix(".jpg"), []).append(box)
    for stem, found in whole.items():
        kept = [box for _, box in part[stem]]
        assert sorted(kept + left_out.get(stem, [])) == sorted(box for _, box in found)
    before, after = contents(sample), contents(incomplete)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"train/[라벨]소_bbox.zip", "left_out.csv"}


def test_counts_are_about_those_of_the_real_data() -> None:
    """A larger sample, planned and not drawn: some images are empty, few cows, up to twenty pigs."""
    counts: dict[str, list[int]] = {"cow": [], "pig": []}
    sizes = []
    for shot in plan_sample(seed=1, n_train=320, n_test=2, scale=0.06):
        counts[shot.species].append(len(annotate(shot)))
        sizes += [shot.frame.barn.camera.height] if shot.species == "pig" else []
    both = counts["cow"] + counts["pig"]
    assert 0.01 <= both.count(0) / len(both) <= 0.12
    assert 6 <= max(counts["cow"]) <= 9
    assert 13 <= max(counts["pig"]) <= 20
    assert np.mean(counts["pig"]) > np.mean(counts["cow"]) + 2
    assert 0.6 < np.mean(np.array(sizes) == round(1080 * 0.06)) < 0.9


@pytest.mark.parametrize(("name", "value"), [
    ("n_train", 7), ("n_test", 1), ("scale", 0.0), ("scale", 1.01), ("scale", float("nan")),
    ("missing_cow_fraction", -0.1), ("missing_cow_fraction", 1.0), ("missing_cow_fraction", float("nan")),
])
def test_a_bad_argument_is_named_before_anything_is_written(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=re.escape(name) + r" must be .* found " + re.escape(str(value))):
        draw_sample(tmp_path / "none", **{name: value})
    assert not (tmp_path / "none").exists()
