"""What a training of keypoints reads: it is what was written, by name and class, and errors say which file is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from small_poses import draw_pose_set

from livestock.config import Keypoint, Skeleton
from livestock.data.pose_set import TABLES, find_places, read_objects, unite_points, write_pose_set
from livestock.exceptions import BadData
from livestock.tables import XYXY, make_boxes, make_images, make_keypoints

SKELETON = Skeleton((
    Keypoint("pig", "snout", 0, "snout", 0.1, "upper"), Keypoint("pig", "l_ear", 1, "r_ear", part="upper"),
    Keypoint("pig", "r_ear", 2, "l_ear", part="upper"), Keypoint("cow", "l_ear", 0, "r_ear", part="upper"),
    Keypoint("cow", "r_ear", 1, "l_ear", part="upper"), Keypoint("cow", "tail", 2, "tail", part="lower")))
UNITED = ("snout", "l_ear", "r_ear", "tail")
Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def make_tables(folder: Path) -> Tables:
    """Three pictures: a pig and a cow in one, a pig without points in the second, a bird and a cow in the third."""
    images = make_images([{"image_id": f"{name}.jpg", "archive": str(folder), "member": f"x/{name}.jpg",
                           "width": 100 + number, "height": 80} for number, name in enumerate("abc")])
    corners = {"x_min": 1.5, "y_min": 2, "x_max": 50, "y_max": 60.25}
    boxes = make_boxes([{"box_id": number, "image_id": f"{name}.jpg", "label": label, **corners} for number, name, label
                        in ((40, "c", "cow"), (7, "a", "pig"), (8, "b", "pig"), (3, "a", "cow"), (5, "c", "bird"))])
    rows = [(7, "a", "snout", 10.5, 20, 2), (7, "a", "l_ear", 11, 21.25, 1), (7, "a", "r_ear", 0, 0, 0),
            (3, "a", "tail", 30, 31, 2), (3, "a", "l_ear", 12, 13, 2), (8, "b", "snout", 0, 0, 0),
            (40, "c", "r_ear", 40, 41, 1)]
    keypoints = make_keypoints([dict(zip(("box_id", "image_id", "keypoint", "x", "y", "visible"),
                                         (box, f"{name}.jpg", *rest), strict=True)) for box, name, *rest in rows])
    return images, boxes, keypoints


@pytest.fixture
def data_yaml(tmp_path: Path) -> Path:
    return write_pose_set(tmp_path / "set", make_tables(tmp_path), SKELETON,
                          {"train": ["b.jpg", "a.jpg"], "val": ["c.jpg"]})


def test_what_is_written_is_read(data_yaml: Path, tmp_path: Path) -> None:
    train, valid = read_objects(data_yaml), read_objects(data_yaml, "val")
    assert train.labels == ("pig", "cow") and train.points == unite_points(SKELETON) == valid.points
    assert train.points.names == UNITED and train.points.flips == (0, 2, 1, 3)
    assert train.points.owners == ((0,), (0, 1), (0, 1), (1,))
    assert train.points.parts == ("upper", "upper", "upper", "lower") and train.points.sigmas[0] == 0.1
    assert len(train) == 2 and len(valid) == 1  # the pig of b has no labelled point, and the bird no keypoints
    assert train.class_ids.tolist() == [0, 1] and valid.class_ids.tolist() == [1]
    nowhere = [0.0, 0, 0]
    assert train.keypoints.tolist() == [[[10.5, 20, 2], [11, 21.25, 1], nowhere, nowhere],
                                        [nowhere, [12, 13, 2], nowhere, [30, 31, 2]]]
    assert train.boxes.tolist() == [[1.5, 2, 50, 60.25]] * 2
    assert train.sizes.tolist() == [[100, 80]] * 2 and valid.sizes.tolist() == [[102, 80]]
    assert valid.files == [(str(tmp_path.resolve()), "x/c.jpg")]
    images, boxes, keypoints = train.tables
    assert images["image_id"].tolist() == ["a.jpg"] and boxes["box_id"].tolist() == [7, 3]
    assert sorted(keypoints["box_id"]) == [3, 3, 7, 7, 7]
    np.testing.assert_allclose(train.box_sizes(50)[0], [[24.25, 29.125]])


def test_two_classes_with_the_same_names_share_outputs(data_yaml: Path) -> None:
    train = read_objects(data_yaml)
    ears = train.keypoints[:, [UNITED.index("l_ear")], 2]
    assert (ears > 0).all()  # of the pig and of the cow
    content = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    assert content["points"] == list(UNITED) and content["names"] == ["pig", "cow"]


def test_a_class_without_keypoints_is_left_out_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write_pose_set(tmp_path / "set", make_tables(tmp_path), SKELETON, {"train": ["a.jpg"], "val": ["c.jpg"]})
    assert "1 boxes of classes without keypoints are left out: bird" in caplog.text
    assert read_objects(tmp_path / "set/data.yaml", "val").tables[1]["label"].tolist() == ["cow"]


def test_the_folder_can_be_read_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images, boxes, keypoints = make_tables(tmp_path)
    path = write_pose_set(Path("set"), (images.assign(archive="pictures.zip"), boxes, keypoints), SKELETON,
                          {"train": ["a.jpg"]})
    assert read_objects(path).files[0] == (os.path.join(tmp_path.resolve(), "pictures.zip"), "x/a.jpg")


@pytest.mark.parametrize("ids", [["b.jpg"], [], ["nowhere.jpg"]])
def test_a_list_without_labelled_objects_is_named(ids: list[str], tmp_path: Path) -> None:
    with pytest.raises(BadData, match=rf"val\.txt: expected images in which .* found none in {len(ids)}"):
        write_pose_set(tmp_path / "set", make_tables(tmp_path), SKELETON, {"train": ["a.jpg"], "val": ids})


@pytest.mark.parametrize(("changes", "message"), [
    ({"flip": "ear2"}, "skeleton: ear: flip: expected one for all classes, found ear of pig and ear2 of cow"),
    ({"part": "lower"}, "ear: part: expected one for all classes, found None of pig and lower of cow"),
    ({"sigma": 0.3}, r"ear: sigma: expected one for all classes, found 0\.\d+ of pig and 0.3 of cow"),
])
def test_a_name_means_the_same_in_every_class(changes: dict[str, object], message: str) -> None:
    own = {"flip": "ear", **changes}
    points = [Keypoint("pig", "ear", 0, "ear"), Keypoint("cow", "ear", 0, **own)]  # type: ignore[arg-type]
    if own["flip"] == "ear2":
        points.append(Keypoint("cow", "ear2", 1, "ear"))
    with pytest.raises(BadData, match=message):
        unite_points(Skeleton(tuple(points)))


def test_without_a_mirror_image_in_one_class_there_is_none_in_any() -> None:
    united = unite_points(Skeleton((Keypoint("pig", "ear", 0, "ear"), Keypoint("cow", "ear", 0))))
    assert united.flips is None and united.names == ("ear",)


def test_places_are_those_of_their_box_and_name_in_any_order() -> None:
    rng, names = np.random.default_rng(0), [f"p{k}" for k in range(18)]
    boxes = pd.DataFrame({"box_id": rng.permutation(50)[:20]})
    rows = pd.DataFrame([(box, name, *rng.uniform(0, 99, 2), rng.integers(1, 3)) for box in range(50)
                         for name in [*names, "other"] if rng.random() < 0.6],
                        columns=["box_id", "keypoint", "x", "y", "visible"]).sample(frac=1, random_state=0)
    expected = np.zeros((20, 18, 3))
    for _, row in rows.iterrows():
        if row["box_id"] in set(boxes["box_id"]) and row["keypoint"] in names:
            at = boxes["box_id"].tolist().index(row["box_id"]), names.index(row["keypoint"])
            expected[at] = row["x"], row["y"], row["visible"]
    np.testing.assert_array_equal(find_places(boxes, rows, names), expected)


@pytest.mark.parametrize("name", ["data.yaml", "train.txt", *[f"{table}.parquet" for table in TABLES]])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe{"])
def test_a_file_that_is_gone_or_damaged_is_bad_data(name: str, content: bytes | None, data_yaml: Path) -> None:
    path = data_yaml.parent / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(BadData, match=r"data\.yaml: expected|train\.txt: expected images"):
        read_objects(data_yaml)


@pytest.mark.parametrize("key", ["names", "points", "flips", "parts", "sigmas", "owners", "train"])
def test_a_key_that_is_missing_is_named(key: str, data_yaml: Path) -> None:
    content = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    del content[key]
    data_yaml.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(BadData, match=f"data.yaml: expected a set of keypoints, .*found no {key}"):
        read_objects(data_yaml)


def test_boxes_without_area_and_of_unknown_pictures_are_named(tmp_path: Path) -> None:
    images, boxes, keypoints = make_tables(tmp_path)
    flat = boxes.assign(x_max=boxes["x_max"].where(boxes["box_id"] != 7, boxes["x_min"]))
    with pytest.raises(BadData, match=r"boxes\.parquet: box 7 in a\.jpg: expected x_min < x_max .*found \[1.5, "):
        write_pose_set(tmp_path / "set", (images, flat, keypoints), SKELETON, {"train": ["a.jpg"]})
    with pytest.raises(BadData, match=r"boxes\.parquet: expected images of images\.parquet, found 'a\.jpg'"):
        write_pose_set(tmp_path / "other", (images.iloc[1:], boxes, keypoints), SKELETON, {"train": ["a.jpg"]})


def test_one_object_is_enough(tmp_path: Path) -> None:
    own = read_objects(draw_pose_set(tmp_path, n=1, n_valid=0))
    assert len(own) == 1 and own.keypoints.shape == (1, 1, 3) and own.points.flips == (0,)
    assert own.tables[1][XYXY].to_numpy().tolist() == own.boxes.tolist()
