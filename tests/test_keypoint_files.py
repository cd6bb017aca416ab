"""What is written is read again: the same boxes and points, up to what a format has room for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from corpus import jpeg
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from livestock.config import Competition, Edge, Keypoint, Skeleton
from livestock.data import keypoint_files, readers
from livestock.data.keypoint_files import write_coco_keypoints, write_dlc_csv, write_yolo_pose
from livestock.data.point_files import OBJECT_COLUMNS, read_points, write_points
from livestock.evaluation import oks
from livestock.exceptions import BadData
from livestock.tables import XYXY, make_boxes, make_images, make_keypoints

SKELETON = Skeleton((Keypoint("pig", "snout", 0, "snout"), Keypoint("pig", "ear_l", 1, "ear_r"),
                     Keypoint("pig", "ear_r", 2, "ear_l"), Keypoint("cow", "nose, left", 0, "nose, left")),
                    (Edge("pig", "snout", "ear_l"),))
LABELS = ["horse", "pig", "cow"]  # the first has no keypoints
COMPETITION = Competition("t", {label: [] for label in LABELS}, skeleton=SKELETON)
NAMES = ["a/images/1.jpg", "a/images/돼지 2.jpg", "b/1.jpg"]
SIZE = (97, 61)
FAST = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def images_in(folder: Path) -> pd.DataFrame:
    """Three pictures below a folder, and their table."""
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(*SIZE))
    return make_images([{"image_id": name, "archive": str(folder), "member": name, "width": SIZE[0], "height": SIZE[1]}
                        for name in NAMES])


@st.composite
def boxes_and_points(
    draw: st.DrawFn, *, one: bool = False, hidden: bool = True, source: str = "gold", labels: Sequence[str] = LABELS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Boxes and points within the pictures; `one` whole picture with a pig for each, `hidden` points among them."""
    boxes = []
    for name in NAMES:
        for _ in range(1 if one else draw(st.integers(0, 3))):
            x, y = draw(st.floats(0, SIZE[0] - 2)), draw(st.floats(0, SIZE[1] - 2))
            ends = [draw(st.just(side) | st.floats(low + 1, side)) for low, side in ((x, SIZE[0]), (y, SIZE[1]))]
            corners = (0, 0, *SIZE) if one else (x, y, *ends)
            label = "pig" if one else draw(st.sampled_from(labels))
            confidence = draw(st.floats(0, 1)) if source == "model" else 1.0
            boxes.append({"image_id": name, "label": label, **dict(zip(XYXY, corners, strict=True)),
                          "confidence": confidence, "source": source})
    table = make_boxes(boxes)
    places = st.tuples(st.floats(0, SIZE[0]), st.floats(0, SIZE[1]), st.sampled_from([0, 1, 2] if hidden else [0, 2]))
    points = []
    for box in table.itertuples():
        for name in SKELETON.names(box.label):
            x, y, visible = draw(places)
            points.append({"box_id": box.box_id, "image_id": box.image_id, "keypoint": name, "x": x, "y": y,
                           "visible": visible, "source": source,
                           "confidence": draw(st.floats(0, 1)) if source == "model" else 1.0})
    return table, make_keypoints(points)


def check_same(found: tuple[pd.DataFrame, pd.DataFrame], expected: tuple[pd.DataFrame, pd.DataFrame], atol: float
               ) -> None:
    for one, other in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=False, rtol=0, atol=atol)


def read_again(reader: str, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    found = readers.read_data_set("auto", folder, COMPETITION)
    assert found.reader == reader
    assert found.train.images["image_id"].tolist() == NAMES
    return found.train.boxes, found.train.keypoints


@FAST
@given(tables=boxes_and_points())
def test_coco_comes_back(tables: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    images = images_in(tmp_path)
    write_coco_keypoints(images, *tables, SKELETON, LABELS, tmp_path / "labels.json")
    reading = readers.read("coco", tmp_path, COMPETITION)
    check_same((reading.boxes, reading.keypoints), tables, 1e-9)
    assert set(reading.left_out["reason"]) <= {readers.clean.EMPTY}  # nothing is clipped by a rounding


@FAST
@given(tables=boxes_and_points())
def test_yolo_comes_back(tables: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    write_yolo_pose(images_in(tmp_path), *tables, SKELETON, LABELS, tmp_path)
    check_same(read_again("yolo", tmp_path), tables, 1e-6 * max(SIZE))


@FAST
@given(tables=boxes_and_points(one=True, hidden=False))
def test_dlc_comes_back(tables: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    pigs = Skeleton(tuple(SKELETON.of("pig")))
    write_dlc_csv(images_in(tmp_path), *tables, pigs, tmp_path / "CollectedData_me.csv")
    found = readers.read_data_set("auto", tmp_path, Competition("t", {"pig": []}, skeleton=pigs)).train
    check_same((found.boxes, found.keypoints), tables, 1e-9)
    assert found.left_out.empty


@FAST
@given(tables=boxes_and_points(hidden=False, source="model", labels=["pig", "cow"]), from_centre=st.booleans())
def test_a_submission_comes_back(tables: tuple[pd.DataFrame, pd.DataFrame], from_centre: bool, tmp_path: Path) -> None:
    assume(len(tables[1]))
    path = write_points(images_in(tmp_path), *tables, tmp_path / "answer.csv", with_boxes=True, from_centre=from_centre)
    found = read_points(path)
    shift = 0.5 if from_centre else 0.0
    boxes = tables[0][tables[0]["box_id"].isin(tables[1]["box_id"])]
    points = found.points.assign(x=found.points["x"] + shift, y=found.points["y"] + shift)
    expected = boxes.reset_index(drop=True), tables[1]
    new = dict(zip(expected[0]["box_id"], found.boxes["box_id"], strict=True))  # the file has no numbers of boxes
    check_same((found.boxes, points), tuple(table.assign(box_id=table["box_id"].map(new)) for table in expected), 1e-3)


def one_pig(folder: Path, n_boxes: int = 1) -> Tables:
    images = images_in(folder)
    boxes = make_boxes([{"image_id": NAMES[2], "label": "pig", "x_min": 1, "y_min": 2, "x_max": 31, "y_max": 22}]
                       * n_boxes)
    point = {"image_id": NAMES[2], "box_id": boxes["box_id"][0]}
    points = make_keypoints([{**point, "keypoint": "ear_r", "x": 3.5, "y": 4, "visible": 1},
                             {**point, "keypoint": "snout", "x": 9, "y": 8.25}])
    return images, boxes, points


def test_two_objects_of_one_box_stay_two(tmp_path: Path) -> None:
    images, boxes, points = one_pig(tmp_path, 2)
    both = make_keypoints(pd.concat([points, points.assign(box_id=boxes["box_id"][1], x=7.0)]))
    found = read_points(write_points(images, boxes, both, tmp_path / "answer.csv"))
    assert len(found.boxes) == 2
    assert found.points.groupby("box_id")["x"].agg(list).tolist() == [[3.5, 9], [7, 7]]


def test_a_coco_file_is_as_pycocotools_takes_it(tmp_path: Path) -> None:
    """Points in the skeleton's order though the table has them otherwise, and those it lacks not labelled."""
    content = json.loads(write_coco_keypoints(*one_pig(tmp_path), SKELETON, LABELS, tmp_path / "l.json").read_text())
    assert content["categories"] == [
        {"id": 1, "name": "horse"}, {"id": 2, "name": "pig", "keypoints": ["snout", "ear_l", "ear_r"],
                                     "skeleton": [[1, 2]]},
        {"id": 3, "name": "cow", "keypoints": ["nose, left"], "skeleton": []}]
    assert content["annotations"] == [{
        "id": 1, "image_id": 3, "category_id": 2, "bbox": [1, 2, 30, 20], "area": 0.53 * 600, "iscrowd": 0,
        "keypoints": [9, 8.25, 2, 0, 0, 0, 3.5, 4, 1], "num_keypoints": 2}]
    assert content["images"][2] == {"id": 3, "file_name": NAMES[2], "width": 97, "height": 61}


def test_the_area_is_the_one_of_oks() -> None:
    assert keypoint_files.BOX_SHARE == oks.BOX_SHARE


def test_yolo_lines_stand_where_yolo_looks_for_them(tmp_path: Path) -> None:
    path = write_yolo_pose(*one_pig(tmp_path), SKELETON, LABELS, tmp_path)
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.txt")) == [
        "a/labels/1.txt", "a/labels/돼지 2.txt", "b/1.txt"]
    assert (tmp_path / "b/1.txt").read_text() == (
        "1 0.164948 0.196721 0.309278 0.327869 0.092784 0.135246 2 0.000000 0.000000 0 0.036082 0.065574 1\n")
    assert path.read_text(encoding="utf-8").splitlines()[:4] == ["names:", "  0: horse", "  1: pig", "  2: cow"]
    assert "flip_idx" not in path.read_text()  # a cow's points have other mirror images
    pigs = Skeleton(tuple(SKELETON.of("pig")))
    assert "flip_idx:\n- 0\n- 2\n- 1\n" in write_yolo_pose(*one_pig(tmp_path), pigs, LABELS, tmp_path).read_text()


def test_a_dlc_table_is_as_deeplabcut_writes_it(tmp_path: Path) -> None:
    pigs = Skeleton(tuple(SKELETON.of("pig")))
    path = write_dlc_csv(*one_pig(tmp_path), pigs, tmp_path / "CollectedData_me.csv", scorer="me")
    assert path.read_text() == (
        "scorer,me,me,me,me,me,me\nbodyparts,snout,snout,ear_l,ear_l,ear_r,ear_r\ncoords,x,y,x,y,x,y\n"
        "b/1.jpg,8.5,7.75,,,3.0,3.5\n")


def test_a_submission_has_a_row_a_point(tmp_path: Path) -> None:
    images, boxes, points = one_pig(tmp_path)
    path = write_points(images, boxes, points, tmp_path / "answer.csv")
    assert path.read_text() == ("image_id,object,keypoint,x,y,confidence\nb/1.jpg,0,ear_r,3.5,4,1\n"
                                "b/1.jpg,0,snout,9,8.25,1\n")
    text = write_points(images, boxes, points, path, with_boxes=True, from_centre=True).read_text()
    assert text.splitlines()[1] == "b/1.jpg,0,pig,ear_r,3,3.5,1,1,2,31,22,1"
    assert write_points(*one_pig(tmp_path, 2), path).read_text().splitlines()[0] == ",".join(OBJECT_COLUMNS)
    with pytest.raises(BadData, match="two test images would both be called '1.jpg'"):
        write_points(images, boxes, points, path, answer_name="name")


def test_boxes_without_points_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images, boxes, points = one_pig(tmp_path, 3)
    write_points(images, boxes, points, tmp_path / "answer.csv")
    assert "2 of 3 boxes have no keypoints" in caplog.text


@pytest.mark.parametrize(("write", "words"), [
    (lambda i, b, k, at: write_dlc_csv(i, b, k, SKELETON, at), r"one object an image, found several in 'b/1\.jpg'"),
    (lambda i, b, k, at: write_points(i, b.iloc[1:], k, at), "expected points of the boxes alone, found one"),
    (lambda i, b, k, at: write_points(i.iloc[:1], b, k, at), r"expected boxes of the images alone, found 'b/1"),
    (lambda i, b, k, at: write_dlc_csv(i, b.iloc[:2].assign(image_id=NAMES[:2], label=["pig", "cow"]), k, SKELETON, at),
     "table has no classes, found pig, cow"),
    (lambda i, b, k, at: write_coco_keypoints(i, b, k.assign(keypoint="hoof"), SKELETON, LABELS, at),
     r"expected keypoints of \['snout', .* found 'hoof'"),
    (lambda i, b, k, at: write_yolo_pose(i.assign(image_id=["b/1.png", "c.jpg", "b/1.jpg"]), b, k, SKELETON, LABELS,
                                         at.parent), r"b/1\.txt: expected to be the label of one image, found b/1\.p"),
])
def test_what_a_format_has_no_room_for_is_refused(write: Callable[..., Path], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=words):
        write(*one_pig(tmp_path, 2), tmp_path / "file.csv")


def test_the_points_of_a_box_are_arranged_by_the_skeleton(tmp_path: Path) -> None:
    _, boxes, points = one_pig(tmp_path, 2)
    none = points.iloc[:1].assign(keypoint="ear_l", x=np.nan, y=np.nan, visible=0)
    first, second = keypoint_files.arrange_points(boxes, pd.concat([points, none]), SKELETON)
    assert first.tolist() == [[9, 8.25, 2], [0, 0, 0], [3.5, 4, 1]]
    assert second.tolist() == np.zeros((3, 3)).tolist()
