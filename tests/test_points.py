"""Every format gives the same keypoints table; what cannot be used of it has a line, or is refused by file and row."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from corpus import jpeg
from typer.testing import CliRunner

from livestock.cli import app
from livestock.config import Competition, Edge, Keypoint, Skeleton, read_competition
from livestock.data import readers
from livestock.data.readers import clean, points
from livestock.data.readers.cat_faces import NAMES as CAT_NAMES
from livestock.exceptions import BadData
from livestock.tables import XYXY


def skeleton_of(*names: str, label: str = "pig") -> Skeleton:
    return Skeleton(tuple(Keypoint(label, name, index) for index, name in enumerate(names)))


PIG = Competition("t", {"pig": ["swine"], "cow": []}, skeleton=skeleton_of("snout", "tail"))
BOXES_ALONE = Competition("t", {"pig": ["swine"], "cow": []})
CAT = Competition("t", {"cat": []}, skeleton=skeleton_of(*CAT_NAMES, label="cat"))
NOSE = Competition("t", {"pig": []}, skeleton=skeleton_of("snout"))
A = jpeg()  # 100 wide, 60 high


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def rows(reading: readers.Reading) -> list[list[Any]]:
    """Image, name, x, y and visibility of each point; x and y None where it is not labelled."""
    table = reading.keypoints[["image_id", "keypoint", "x", "y", "visible"]]
    return [[None if value != value else value for value in row] for row in table.to_numpy(object).tolist()]


def reasons(reading: readers.Reading) -> list[str]:
    return reading.left_out["reason"].tolist()


def coco(annotations: list[dict[str, Any]], categories: Any = None, **image: Any) -> str:
    """One image, a.jpg, and a category of two points beside a stub."""
    categories = categories if categories is not None else [
        {"id": 0, "name": "animals"},
        {"id": 1, "name": "swine", "keypoints": ["snout", "tail"], "skeleton": [[1, 2]]}]
    boxes = [{"image_id": 7, "category_id": 1, "bbox": [10, 12, 40, 12], **annotation} for annotation in annotations]
    return json.dumps({"images": [{"id": 7, "file_name": "a.jpg"} | image], "annotations": boxes,
                       "categories": categories})


def read_coco(folder: Path, annotations: list[dict[str, Any]], competition: Competition = PIG, *, picture: bytes = A,
              categories: Any = None, **image: Any) -> readers.Reading:
    write(folder, {"a.jpg": picture, "l.json": coco(annotations, categories, **image)})
    return readers.read("coco", folder, competition)


def read_yolo(folder: Path, lines: str, more: str = "kpt_shape: [2, 3]", competition: Competition = PIG
              ) -> readers.Reading:
    write(folder, {"a.jpg": A, "a.txt": lines, "data.yaml": f"names: [pig, cow]\n{more}\n"})
    return readers.read("yolo", folder, competition)


def read_dlc(folder: Path, table: str, competition: Competition = PIG) -> readers.Reading:
    write(folder, {"labeled-data/x/img1.png": A, "labeled-data/x/img2.png": jpeg(50, 40),
                   "labeled-data/x/CollectedData_me.csv": table})
    return readers.read("dlc", folder, competition)


HEAD = "scorer,me,me,me,me\nbodyparts,snout,snout,tail,tail\ncoords,x,y,x,y\n"

# ---------------------------------------------------------------- COCO


def test_coco_points_have_names_from_their_category(tmp_path: Path) -> None:
    reading = read_coco(tmp_path, [{"keypoints": [11.5, 13, 2, 0, 0, 0]}, {"keypoints": [20, 14, 1, 30, "15", 2]}])
    assert rows(reading) == [["a.jpg", "snout", 11.5, 13, 2], ["a.jpg", "tail", None, None, 0],
                             ["a.jpg", "snout", 20, 14, 1], ["a.jpg", "tail", 30, 15, 2]]
    assert reading.keypoints["box_id"].tolist() == np.repeat(reading.boxes["box_id"], 2).tolist()
    assert set(reading.keypoints["confidence"]) == {1.0} and set(reading.keypoints["source"]) == {"gold"}
    assert reading.left_out.empty


@pytest.mark.parametrize("area", [{}, {"area": 480}, {"area": None}, {"num_keypoints": 9}])
def test_coco_needs_neither_area_nor_count(area: dict[str, Any], tmp_path: Path) -> None:
    reading = read_coco(tmp_path, [{"keypoints": [11, 13, 2, 30, 14, 2], **area}])
    assert rows(reading)[0] == ["a.jpg", "snout", 11, 13, 2]


def test_points_are_in_the_skeletons_order_whatever_the_files(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "pig", "keypoints": ["TAIL", "hoof", "Snout "]}]
    own = [30, 14, 2, 5, 5, 2, 11, 13, 1]
    reading = read_coco(tmp_path, [{"keypoints": own}, {"keypoints": [0] * 9}], categories=categories)
    assert rows(reading)[:2] == [["a.jpg", "snout", 11, 13, 1], ["a.jpg", "tail", 30, 14, 2]]
    assert reading.left_out[["reason", "detail"]].to_numpy().tolist() == [[points.EXTRA, "hoof of 1 objects pig"]]


@pytest.mark.bad_input
def test_a_name_that_the_data_lack_is_refused_with_both_lists(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "pig", "keypoints": ["nose", "tail"]}]
    words = (r"l\.json \(a\.jpg\): expected the keypoints \['snout', 'tail'\] of 'pig', .* found \['nose', 'tail'\]: "
             "snout is not there")
    with pytest.raises(BadData, match=words):
        read_coco(tmp_path, [{"keypoints": [11, 13, 2, 30, 14, 2]}], categories=categories)


@pytest.mark.bad_input
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "pig", "keypoints": ["snout", "tail", "snout"]}]
    with pytest.raises(BadData, match=r"l\.json .*expected each keypoint once, found 'snout' twice"):
        read_coco(tmp_path, [{"keypoints": [11, 13, 2, 30, 14, 2, 1, 1, 2]}], categories=categories)


def test_categories_without_names_have_the_skeletons(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "pig"}]
    reading = read_coco(tmp_path, [{"keypoints": [11, 13, 2, 30, 14, 2]}], categories=categories)
    assert [row[1:3] for row in rows(reading)] == [["snout", 11], ["tail", 30]]
    with pytest.raises(BadData, match="expected 2 keypoints of 'pig', as the skeleton has.* found 1 without names"):
        read_coco(tmp_path, [{"keypoints": [11, 13, 2]}], categories=categories)


@pytest.mark.bad_input
@pytest.mark.parametrize(("values", "reason", "words"), [
    ([11, 13, 2, 100.5, 14, 2], points.BEYOND, "tail [100.5, 14, 2]"),
    ([11, 13, 2, 30, -1, 1], points.BEYOND, "tail [30, -1, 1]"),
    ([11, 13, 2, float("nan"), 14, 2], points.NO_NUMBER, "tail [nan, 14, 2]"),
    ([11, 13, 2, None, 14, 1], points.NO_NUMBER, "tail [None, 14, 1]"),
    ([11, 13, 2, 30, 14, 3], points.ODD_VISIBILITY, "tail [30, 14, 3]"),
    ([11, 13, 2, 30, 14, True], points.ODD_VISIBILITY, "tail [30, 14, True]"),
    ([11, 13, 2, 30, 14, 0.5], points.ODD_VISIBILITY, "tail [30, 14, 0.5]"),
    ([11, 13, 2, 30, 14, 0], points.PLACE_OF_NONE, "1 points"),
])
def test_a_point_that_cannot_be_used_is_not_labelled_and_has_a_line(
    values: list[Any], reason: str, words: str, tmp_path: Path
) -> None:
    reading = read_coco(tmp_path, [{"keypoints": values}])
    assert rows(reading) == [["a.jpg", "snout", 11, 13, 2], ["a.jpg", "tail", None, None, 0]]
    assert reading.left_out[["reason", "detail"]].to_numpy().tolist() == [[reason, words]]
    assert reason in clean.KEPT  # the box and its image stay


def test_a_point_at_the_border_is_in_its_image(tmp_path: Path) -> None:
    reading = read_coco(tmp_path, [{"keypoints": [100, 60, 2, -1e-9, 0, 2]}])
    assert [row[2:] for row in rows(reading)] == [[100, 60, 2], [0, 0, 2]]
    assert reading.left_out.empty


@pytest.mark.bad_input
@pytest.mark.parametrize("values", [[11, 13, 2], [11, 13, 2, 30, 14], "abc", 7])
def test_points_that_do_not_fit_their_names_leave_the_box(values: Any, tmp_path: Path) -> None:
    reading = read_coco(tmp_path, [{"keypoints": values}])
    assert [row[2:] for row in rows(reading)] == [[None, None, 0]] * 2
    assert reasons(reading) == [points.WITHOUT, points.ODD_POINTS]


def test_an_object_without_points_has_its_points_not_labelled(tmp_path: Path) -> None:
    reading = read_coco(tmp_path, [{}, {"keypoints": [11, 13, 2, 30, 14, 2]}, {"category_id": 0, "keypoints": []}])
    assert [row[-1] for row in rows(reading)] == [0, 0, 2, 2]
    assert sorted(reasons(reading)) == sorted([points.WITHOUT, clean.UNKNOWN_CLASS])
    assert reading.left_out.set_index("reason").loc[points.WITHOUT, "detail"].startswith("1 objects, the first in ")


def test_a_box_that_is_left_out_takes_its_points_with_it(tmp_path: Path) -> None:
    """The second box of four keeps its number: points are those of their own box."""
    own = [11, 13, 2, 30, 14, 2]
    reading = read_coco(tmp_path, [{"bbox": [50, 12, -40, 12], "keypoints": own}, {"keypoints": [1, 2, 2, 3, 4, 2]},
                                   {"iscrowd": 1, "keypoints": own}, {"category_id": 5, "keypoints": own}])
    assert [row[1:4] for row in rows(reading)] == [["snout", 1, 2], ["tail", 3, 4]]
    assert reading.keypoints["box_id"].tolist() == reading.boxes["box_id"].tolist() * 2
    assert sorted(reasons(reading)) == sorted([clean.SWAPPED, clean.CROWD, clean.UNKNOWN_CLASS])


def test_points_are_scaled_with_their_box(tmp_path: Path) -> None:
    reading = read_coco(tmp_path, [{"keypoints": [20, 40, 2, 0, 0, 0]}], width=200, height=120)
    assert rows(reading) == [["a.jpg", "snout", 10, 20, 2], ["a.jpg", "tail", None, None, 0]]
    assert reasons(reading) == [clean.SCALED]


@pytest.mark.parametrize(("orientation", "place"), [(5, (13, 11)), (6, (47, 11)), (7, (47, 89)), (8, (13, 89))])
def test_points_are_turned_with_their_box(orientation: int, place: tuple[int, int], tmp_path: Path) -> None:
    """The corner pixel of the stored picture is marked, and lies where the point is that labels it."""
    from PIL import Image, ImageOps

    reading = read_coco(tmp_path, [{"keypoints": [11, 13, 2, 0, 0, 0]}], picture=jpeg(orientation=orientation),
                        width=100, height=60)
    assert rows(reading)[0] == ["a.jpg", "snout", *place, 2]
    assert reasons(reading) == [clean.TURNED]
    pixels = np.zeros((60, 100), np.uint8)
    pixels[13, 11] = 255  # its centre is at (11.5, 13.5)
    stored = Image.fromarray(pixels)
    stored.getexif()[0x0112] = orientation
    y, x = np.argwhere(np.asarray(ImageOps.exif_transpose(stored)))[0]
    assert max(abs(x + 0.5 - place[0]), abs(y + 0.5 - place[1])) == 0.5


def test_without_a_skeleton_points_are_counted_and_the_rest_is_as_ever(tmp_path: Path) -> None:
    annotations = [{"keypoints": [11, 13, 2, 0, 0, 0]}, {"keypoints": [0] * 6}, {"keypoints": "odd"}, {}]
    reading = read_coco(tmp_path, annotations, BOXES_ALONE)
    assert reading.keypoints.empty and list(reading.keypoints) == list(clean.NO_POINTS)
    assert reasons(reading) == [points.UNASKED]
    assert reading.left_out["detail"][0].startswith("1 objects; ")
    for annotation in annotations:
        annotation.pop("keypoints", None)
    plain = read_coco(tmp_path, annotations, BOXES_ALONE)
    pd.testing.assert_frame_equal(plain.boxes, reading.boxes)
    assert plain.left_out.empty


# ---------------------------------------------------------------- YOLO


def test_yolo_points_are_parts_of_the_image(tmp_path: Path) -> None:
    reading = read_yolo(tmp_path, "0 .5 .5 .4 .4 .25 .5 2 0 0 0\n0 .5 .5 .2 .2 .1 .1 1 1 1 2\n"
                                  "1 .5 .5 .4 .4 0 0 0 0 0 0\n")
    assert rows(reading) == [["a.jpg", "snout", 25, 30, 2], ["a.jpg", "tail", None, None, 0],
                             ["a.jpg", "snout", 10, 6, 1], ["a.jpg", "tail", 100, 60, 2]]
    assert reading.boxes["label"].tolist() == ["pig", "pig", "cow"]
    assert reading.left_out.empty


def test_yolo_points_of_two_values_are_seen_but_for_the_corner(tmp_path: Path) -> None:
    reading = read_yolo(tmp_path, "0 .5 .5 .4 .4 .25 .5 0 0\n", "kpt_shape: [2, 2]")
    assert [row[2:] for row in rows(reading)] == [[25, 30, 2], [None, None, 0]]


@pytest.mark.parametrize("names", ["{0: [tail, snout]}", "[tail, snout]", "{0: ['Tail', snout], 1: [x, y]}"])
def test_yolo_names_come_from_the_yaml_where_it_has_them(names: str, tmp_path: Path) -> None:
    reading = read_yolo(tmp_path, "0 .5 .5 .4 .4 .25 .5 2 .5 .5 1\n", f"kpt_shape: [2, 3]\nkpt_names: {names}")
    assert [row[1:3] for row in rows(reading)] == [["snout", 50], ["tail", 25]]


@pytest.mark.bad_input
@pytest.mark.parametrize(("line", "more", "words"), [
    ("0 .5 .5 .4 .4 .25 .5 2 .5 .5", "kpt_shape: [2, 3]", r"a\.txt:2: .*10 values behind the class, found 9"),
    ("0 .5 .5 .4 .4 .25 .5 2 .5 .5 2 1", "kpt_shape: [2, 3]", r"a\.txt:2: .*found 11"),
    ("0 .5 .5 .4 .4 .25 .5 2 .5 .5 2", "", r"a\.txt:2: 10 values .*or a polygon; expected `kpt_shape: \[2, 3\]`"),
    ("0 .5 .5 .4 .4 .2", "kpt_shape: [1, 1]", r"data\.yaml: `kpt_shape`: expected 2 or 3 values a point, found 1"),
    ("0 .5 .5 .4 .4 .25 .5 2", "kpt_shape: [1, 3]", r"a\.txt:2 \(a\.jpg\): expected 2 keypoints of 'pig'.* found 1"),
    ("0 .5 .5 .4 .4 1 1 2 1 1 2 1 1 2", "kpt_shape: [3, 3]", r"a\.txt:2 .*expected 2 keypoints of 'pig'.* found 3"),
])
def test_a_ragged_line_is_refused_by_file_and_line(line: str, more: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=words):
        read_yolo(tmp_path, f"0 .5 .5 .4 .4\n{line}\n", more)


def test_a_line_of_a_box_alone_is_an_object_without_points(tmp_path: Path) -> None:
    reading = read_yolo(tmp_path, "0 .5 .5 .4 .4\n0 .5 .5 .4 .4 .25 .5 2 .5 .5 2\n")
    assert [row[-1] for row in rows(reading)] == [0, 0, 2, 2]
    assert reasons(reading) == [points.WITHOUT]


def test_zeros_behind_the_points_of_a_class_with_fewer_are_padding(tmp_path: Path) -> None:
    reading = read_yolo(tmp_path, "0 .5 .5 .4 .4 .25 .5 2 .5 .5 2 0 0 0\n", "kpt_shape: [3, 3]")
    assert [row[1:3] for row in rows(reading)] == [["snout", 25], ["tail", 50]]
    assert reading.left_out.empty


@pytest.mark.bad_input
def test_two_shapes_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"b/data.yaml": "names: [pig, cow]\nkpt_shape: [2, 2]"})
    with pytest.raises(BadData, match=r"data\.yaml: expected the keypoints of .*/data\.yaml"):
        read_yolo(tmp_path, "0 .5 .5 .4 .4\n")


def test_without_a_skeleton_ragged_lines_are_what_they_were(tmp_path: Path) -> None:
    lines = "0 .5 .5 .4 .4 .25 .5 2 .5 .5 2\n0 .1 .1 .2 .1 .2 .2\n0 .5 .5 .4 .4 .9\n"
    reading = read_yolo(tmp_path, lines, competition=BOXES_ALONE)
    assert reading.boxes[XYXY].to_numpy().tolist() == [[30, 18, 70, 42], [10, 6, 20, 12]]
    assert sorted(reasons(reading)) == sorted([clean.OUTLINE, clean.ODD_LINE, points.UNASKED])


# ---------------------------------------------------------------- DeepLabCut


def test_dlc_rows_are_whole_pictures_with_points(tmp_path: Path) -> None:
    reading = read_dlc(tmp_path, f"{HEAD}labeled-data/x/img1.png,10,12.25,,\nlabeled-data/x/img2.png,0,0,1,nan\n")
    first, second = "labeled-data/x/img1.png", "labeled-data/x/img2.png"
    assert reading.boxes[["image_id", "label", *XYXY]].to_numpy().tolist() == [
        [first, "pig", 0, 0, 100, 60], [second, "pig", 0, 0, 50, 40]]
    assert rows(reading) == [[first, "snout", 10.5, 12.75, 2], [first, "tail", None, None, 0],
                             [second, "snout", 0.5, 0.5, 2], [second, "tail", None, None, 0]]
    assert reading.left_out[["reason", "detail"]].to_numpy().tolist() == [[points.NO_NUMBER, "tail [1.5, nan, 2]"]]
    assert reading.left_out["file"][0].endswith("CollectedData_me.csv:5")


def test_dlc_may_have_the_picture_in_three_columns(tmp_path: Path) -> None:
    head = HEAD.replace("scorer,", "scorer,,,").replace("bodyparts,", "bodyparts,,,").replace("coords,", "coords,,,")
    reading = read_dlc(tmp_path, f"{head}labeled-data,x,img1.png,10,12,3,4\n")
    assert [row[:3] for row in rows(reading)] == [["labeled-data/x/img1.png", "snout", 10.5],
                                                  ["labeled-data/x/img1.png", "tail", 3.5]]
    assert reasons(reading) == [clean.NO_LABEL]  # of the other picture


@pytest.mark.bad_input
@pytest.mark.parametrize(("table", "words"), [
    (HEAD + "labeled-data/x/img1.png,1,2,3,4\nlabeled-data/x/img1.png,1,2,3,4\n",
     r"csv:5: expected one row of 'labeled-data/x/img1\.png', found a second one; the first is line 4"),
    (HEAD.replace("tail", "snout"), r"csv: line 2: expected each body part once, found x of snout a second time"),
    (HEAD.replace("x,y,x,y", "x,y,x,x"), r"csv: line 2: expected each body part once, found x of tail"),
    (HEAD.replace(",tail,tail", ",tail,ear"), "csv: line 3: expected x and y of each body part, found one of 'tail'"),
    (HEAD.replace("tail", "ear") + "labeled-data/x/img1.png,1,2,3,4\n", r"csv:4 .*tail is not there"),
])
def test_a_dlc_table_that_contradicts_itself_is_refused(table: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=words):
        read_dlc(tmp_path, table)


@pytest.mark.bad_input
@pytest.mark.parametrize(("table", "words"), [
    ("scorer,me\n", "expected rows that begin with scorer, bodyparts, coords"),
    (HEAD.replace("bodyparts", "individuals"), "found .*individuals"),
    ("scorer,m,m,m\nbodyparts,snout,snout,snout\ncoords,x,y,likelihood\n", "predictions are no labels"),
    (HEAD.encode("utf-16").decode("latin-1"), "expected rows"),
])
def test_a_table_that_is_none_has_a_line(table: str, words: str, tmp_path: Path) -> None:
    write(tmp_path, {"b/labeled-data/y/img3.png": A, "b/labeled-data/y/CollectedData_me.csv":
                     HEAD + "labeled-data/y/img3.png,1,2,3,4\n"})
    reading = read_dlc(tmp_path, table)
    line = reading.left_out[reading.left_out["reason"] == clean.UNREADABLE_LABEL].iloc[0]
    assert re.search(words, line["detail"]) and line["file"].endswith("x/CollectedData_me.csv")
    assert len(reading.boxes) == 1


@pytest.mark.bad_input
def test_dlc_rows_that_cannot_be_used_have_lines(tmp_path: Path) -> None:
    reading = read_dlc(tmp_path, f"{HEAD}labeled-data/x/img1.png,1,2,3\nlabeled-data/x/gone.png,1,2,3,4\n"
                                 "labeled-data/x/img2.png,1,2,3,4\n")
    assert reading.left_out[["image_id", "reason"]].to_numpy().tolist() == [
        ["labeled-data/x/img1.png", clean.UNREADABLE_ROW], ["", clean.NO_IMAGE],
        ["labeled-data/x/img1.png", clean.NOTHING_LEFT]]
    assert len(reading.images) == 1


# ---------------------------------------------------------------- .cat, lists, a JSON an image

CAT_LINE = "9 10 11 20 21 30 31 1 2 3 4 5 6 7 8 9 10 11 12 "


def test_cat_files_have_nine_points(tmp_path: Path) -> None:
    write(tmp_path, {"x/a.jpg": A, "x/a.jpg.cat": CAT_LINE, "b.jpg": A,
                     "b.jpg.cat": CAT_LINE.replace("11 12", "-11 12")})
    reading = readers.read("auto", tmp_path, CAT)
    own = [row for row in rows(reading) if row[0] == "x/a.jpg"]
    assert own[:3] == [["x/a.jpg", "left_eye", 10.5, 11.5, 2], ["x/a.jpg", "right_eye", 20.5, 21.5, 2],
                       ["x/a.jpg", "mouth", 30.5, 31.5, 2]]
    assert [row[1] for row in own] == list(CAT_NAMES)
    assert reading.boxes[XYXY].to_numpy().tolist() == [[0, 0, 100, 60]] * 2
    assert reading.left_out[["image_id", "reason", "detail"]].to_numpy().tolist() == [
        ["b.jpg", points.BEYOND, "right_ear_3 [-10.5, 12.5, 2]"]]


@pytest.mark.bad_input
@pytest.mark.parametrize("content", ["", "8" + CAT_LINE[1:], CAT_LINE[:-4], CAT_LINE + "1", "nine"])
def test_a_cat_file_of_other_points_has_a_line(content: str, tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": A, "a.jpg.cat": content, "b.jpg": A, "b.jpg.cat": CAT_LINE})
    reading = readers.read("cat_faces", tmp_path, CAT)
    assert reading.images["image_id"].tolist() == ["b.jpg"]
    assert reasons(reading) == [clean.UNREADABLE_LABEL]
    assert "expected 9 and x and y of as many points, 19 values, found" in reading.left_out["detail"][0]


@pytest.mark.parametrize("text", [
    'a.jpg,"(10, 12)"\nb.jpg,"(3, 4.5)"\n', "a.jpg,10,12\nb.jpg,3,4.5\n", "image,x,y\na.jpg,10,12\nb.jpg,3,4.5",
    "name,y,x\na.jpg,12,10\nb.jpg,4.5,3", 'file,nose\r\nimgs/a.jpg,"[10,12]"\r\nimgs/b.jpg,"[3,4.5]"\r\n',
])
@pytest.mark.parametrize("name", ["noses.txt", "train.csv"])
def test_lists_have_a_point_an_image(text: str, name: str, tmp_path: Path) -> None:
    write(tmp_path, {"imgs/a.jpg": A, "imgs/b.jpg": A, name: text})
    found = readers.read_data_set("auto", tmp_path, NOSE)
    assert found.reader == "points_list"
    assert rows(found.train) == [["imgs/a.jpg", "snout", 10.5, 12.5, 2], ["imgs/b.jpg", "snout", 3.5, 5, 2]]
    assert found.train.boxes[XYXY].to_numpy().tolist() == [[0, 0, 100, 60]] * 2
    assert found.train.left_out.empty


@pytest.mark.bad_input
def test_lines_of_a_list_that_cannot_be_used(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": A, "b.jpg": A, "c.jpg": A, "noses.txt":
                     'a.jpg,"(10, 12)"\ngone.jpg,"(1, 2)"\nb.jpg,"10"\nc.jpg,"(ten, 12)"\n'})
    reading = readers.read("points_list", tmp_path, NOSE)
    assert [row[0::4] for row in rows(reading)] == [["a.jpg", 2], ["c.jpg", 0]]
    assert [reason for reason in reasons(reading) if reason != clean.NOTHING_LEFT] == [
        clean.NO_IMAGE, clean.UNREADABLE_ROW, points.NO_NUMBER]
    write(tmp_path, {"noses.txt": 'a.jpg"(10 12)"\nb.jpg,1,2\n'})  # damaged, and no header
    lost = readers.read("points_list", tmp_path, NOSE).left_out
    assert lost.loc[lost["file"].str.endswith("noses.txt:1"), "reason"].tolist() == [clean.NO_IMAGE]
    write(tmp_path, {"noses.txt": 'a.jpg,"(10, 12)"\nb.jpg,1,2\na.jpg,1,2\n'})
    with pytest.raises(BadData, match=r"noses\.txt:3: expected one point of 'a\.jpg', found a second .* in line 1"):
        readers.read("points_list", tmp_path, NOSE)
    with pytest.raises(BadData, match=r"one point of each image: expected a skeleton of one, found \['snout"):
        readers.read("points_list", tmp_path, PIG)


def test_a_json_an_image_has_boxes_and_points(tmp_path: Path) -> None:
    content = {"bboxes": [[10, 12, 50, 24], [1, 2, 9, 9]],
               "keypoints": [[[11, 13, 1], [0, 0, 0]], [[2, 3, 2], [4, 5, 1]]]}
    write(tmp_path, {"images/a.jpg": A, "annotations/a.json": json.dumps(content)})
    reading = readers.read("auto", tmp_path, PIG)
    assert reading.boxes[XYXY].to_numpy().tolist() == content["bboxes"]
    assert [row[2:] for row in rows(reading)] == [[11, 13, 1], [None, None, 0], [2, 3, 2], [4, 5, 1]]
    assert reading.left_out.empty


def test_where_no_visibility_is_two_one_is_seen(tmp_path: Path) -> None:
    content = {"bboxes": [[10, 12, 50, 24]], "keypoints": [[[11, 13, 1], [0, 0, 0]]]}
    write(tmp_path, {"a.jpg": A, "a.json": json.dumps(content)})
    reading = readers.read("pose_json", tmp_path, PIG)
    assert [row[2:] for row in rows(reading)] == [[11, 13, 2], [None, None, 0]]
    assert reasons(reading) == [points.ONE_IS_SEEN]


@pytest.mark.bad_input
@pytest.mark.parametrize(("content", "words"), [
    ('{"bboxes": [[1, 2, 9, 9]], "keypoints": []}', "BadData: expected a list of bboxes and one of the"),
    ('{"bboxes": [[1, 2, 9, 9]], "keypoints": [[[1, 2]]]}', "expected x, y and visibility of each keypoint, found"),
    ('{"bboxes": 3, "keypoints": [[]]}', "found 3"), ('{"bboxes": []}', "KeyError: 'keypoints'"), ("[", "JSONDecode"),
])
def test_a_json_that_cannot_be_read_has_a_line(content: str, words: str, tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": A, "a.json": content, "b.jpg": A, "b.json": '{"bboxes": [], "keypoints": []}'})
    reading = readers.read("pose_json", tmp_path, PIG)
    assert reasons(reading) == [clean.UNREADABLE_LABEL, clean.EMPTY]
    assert words in reading.left_out["detail"][0]


@pytest.mark.bad_input
def test_a_json_of_another_number_of_points_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": A, "a.json": '{"bboxes": [[1, 2, 9, 9]], "keypoints": [[[1, 2, 2]]]}'})
    with pytest.raises(BadData, match=r"a\.json \(a\.jpg\): expected 2 keypoints of 'pig'.* found 1 without names"):
        readers.read("pose_json", tmp_path, PIG)


@pytest.mark.bad_input
def test_several_animals_a_picture_are_refused_by_name(tmp_path: Path) -> None:
    table = ("scorer,me,me,me,me\nindividuals,ann,ann,bob,bob\nbodyparts,snout,snout,snout,snout\ncoords,x,y,x,y\n"
             "a.jpg,1,2,3,4\n")
    write(tmp_path, {"a.jpg": A, "CollectedData_me.csv": table})
    with pytest.raises(BadData, match=r"CollectedData_me\.csv: line 2: expected one animal a picture, found the "
                                      r"individuals .*ann.*bob.*COCO keypoints"):
        readers.read_data_set("auto", tmp_path, PIG)
    write(tmp_path, {"CollectedData_me.csv": "".join(table.splitlines(keepends=True)[:3])})  # cut off
    with pytest.raises(BadData, match="expected one animal a picture"):
        readers.read("dlc", tmp_path, PIG)
    write(tmp_path, {"CollectedData_me.csv": "scorer,me\nindividuals,ann\nbodyparts,snout\n"})
    with pytest.raises(BadData, match="1 x unreadable label"):
        readers.read("dlc", tmp_path, PIG)


def test_a_path_that_says_likelihood_is_no_prediction(tmp_path: Path) -> None:
    table = "scorer,me,me,me,me\nbodyparts,snout,snout,tail,tail\ncoords,x,y,x,y\nlikelihood/a.jpg,1,2,3,4\n"
    write(tmp_path, {"likelihood/a.jpg": A, "table.csv": table})
    assert len(readers.read_data_set("auto", tmp_path, PIG).train.boxes) == 1


def test_a_single_individual_is_a_table_as_any_other_and_predictions_are_no_labels(tmp_path: Path) -> None:
    head = "scorer,me,me,me,me\nindividuals,ann,ann,ann,ann\nbodyparts,snout,snout,tail,tail\n"
    net = "scorer,n,n,n\nindividuals,ann,ann,ann\nbodyparts,snout,snout,snout\ncoords,x,y,likelihood\na.jpg,1,2,.9\n"
    write(tmp_path, {"a.jpg": A, "CollectedData_me.csv": f"{head}coords,x,y,x,y\na.jpg,10,12,3,4\n", "net.csv": net})
    reading = readers.read_data_set("auto", tmp_path, PIG)
    assert reading.reader == "dlc"
    assert rows(reading.train) == [["a.jpg", "snout", 10.5, 12.5, 2], ["a.jpg", "tail", 3.5, 4.5, 2]]


@pytest.mark.bad_input
@pytest.mark.parametrize("reader", ["dlc", "cat_faces", "points_list", "pose_json"])
def test_labels_without_a_class_need_a_competition_of_one(reader: str, tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": A})
    both = Skeleton((Keypoint("pig", "snout", 0), Keypoint("cow", "nose", 0)))
    for competition in (BOXES_ALONE, Competition("t", {"pig": [], "cow": []}, skeleton=both)):
        with pytest.raises(BadData, match=r"name no class: expected .* of one class, found pig, cow; write a file"):
            readers.read(reader, tmp_path, competition)


def test_a_list_of_sizes_beside_labels_is_no_second_format(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": A, "a.txt": "0 .5 .5 .4 .4", "classes.txt": "pig", "sizes.csv": "a.jpg,100,60\n"})
    assert readers.read_data_set("auto", tmp_path, BOXES_ALONE).reader == "yolo"


# ---------------------------------------------------------------- the command and 01


def test_read_suggests_a_skeleton_that_can_be_pasted(tmp_path: Path) -> None:
    write(tmp_path / "data", {"a.jpg": A, "l.json": coco([{"keypoints": [11, 13, 2, 30, 14, 1]}, {}])})
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: x\nclasses: {pig: [swine], cow: []}\n")
    arguments = ["read", str(tmp_path / "data"), "--competition", str(mine), "--out", str(tmp_path / "out")]
    printed = CliRunner().invoke(app, arguments).stdout
    block = printed[printed.index("skeleton:\n") : printed.index("left out or changed:")]
    assert f"1 x {points.UNASKED}" in printed
    assert pd.read_parquet(tmp_path / "out/keypoints.parquet").empty
    mine.write_text(mine.read_text() + block)
    found = read_competition(mine).skeleton
    assert found is not None and found.names("pig") == ["snout", "tail"]
    assert found.edges == (Edge("pig", "snout", "tail"),)
    printed = CliRunner().invoke(app, arguments).stdout
    lines = [line.split() for line in printed.splitlines()]
    assert ["pig", "snout", "1", "0", "1"] in lines and ["tail", "0", "1", "1"] in lines
    assert "skeleton:" not in printed
    table = pd.read_parquet(tmp_path / "out/keypoints.parquet")
    assert table["visible"].tolist() == [2, 1, 0, 0]


@pytest.mark.parametrize(("reader", "files", "words"), [
    ("coco", {"l.json": coco([{"keypoints": [1, 2, 2, 3, 4, 2]}], [{"id": 1, "name": "swine"}])}, "point_2, index: 1}"),
    ("points_list", {"noses.txt": "a.jpg,1,2\n"}, "point_1, index: 0}"),
    ("pose_json", {"a.json": '{"bboxes": [[1, 2, 9, 9]], "keypoints": [[[1, 2, 1], [3, 4, 1]]]}'}, "point_2"),
    ("yolo", {"a.txt": "0 .5 .5 .4 .4 .2 .2 .3 .3", "data.yaml": "names: [pig]\nkpt_shape: [2, 2]\nflip_idx: [1, 0]"},
     "point_2, index: 1, flip: point_1}"),
    ("yolo", {"a.txt": "0 .5 .5 .4 .4 .2 .2", "data.yaml": "names: [pig]\nkpt_shape: [1, 2]\nkpt_names: {0: [nose]}"},
     "nose, index: 0}"),
    ("dlc", {"CollectedData_me.csv": HEAD + "a.jpg,1,2,3,4\n"}, "tail, index: 1}"),
    ("cat_faces", {"a.jpg.cat": CAT_LINE}, "left_ear_1, index: 3, flip: right_ear_3}"),
])
def test_each_format_suggests_its_points(reader: str, files: dict[str, str], words: str, tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": A, **files})
    asking = Competition("t", {"pig": ["swine"]})
    found = readers.read_data_set("auto", tmp_path, asking)
    assert found.reader == reader
    assert f"{{label: pig, keypoint: {words}" in found.suggestion
    assert reasons(found.train) == [points.UNASKED]
    assert found.train.keypoints.empty
    assert readers.read_data_set("auto", tmp_path, asking).suggestion == found.suggestion


def test_01_writes_the_keypoints_of_the_images_that_can_be_decoded(tmp_path: Path) -> None:
    from corpus_images import encode, half, noise

    from livestock.pipeline.prepare import read_data
    from livestock.pipeline.run import make_run

    lines = "0 .5 .5 .4 .4 .25 .5 2 0 0 0\n"
    write(tmp_path / "data", {"data.yaml": "names: [pig]\nkpt_shape: [2, 3]", "a.jpg": A, "a.txt": lines,
                              "b.jpg": half(encode(noise())), "b.txt": lines})
    mine = tmp_path / "mine.yaml"
    head = "name: x\nclasses: {pig: []}\n"
    asked = head + "skeleton:\n  keypoints:\n" + "".join(
        f"  - {{label: pig, keypoint: {name}, index: {index}}}\n" for index, name in enumerate(["snout", "tail"]))
    for text, visible in ((asked, [2, 0]), (head, [])):
        mine.write_text(text)
        run = make_run(competition=str(mine), profile="smoke", seed=1, reader="auto", workspace=str(tmp_path / "work"),
                       data=str(tmp_path / "data"))
        tables = read_data(run)
        assert tables.images["image_id"].tolist() == ["a.jpg"]
        assert tables.keypoints["visible"].tolist() == visible
        written = pd.read_parquet(run.workspace.interim_dir / "keypoints.parquet")
        pd.testing.assert_frame_equal(tables.keypoints, written)


def test_a_correction_keeps_the_points_of_the_boxes_that_a_correction_leaves(tmp_path: Path) -> None:
    from livestock.pipeline.prepare import POINTS_GONE, _of_boxes

    reading = read_coco(tmp_path, [{"keypoints": [11, 13, 2, 30, 14, 2]}] * 3)
    after = reading.boxes.assign(label=["pig", "cow", "pig"]).iloc[:2]  # one left, one of another class, one removed
    kept, lines = _of_boxes(reading.keypoints, reading.boxes, after, "relabels")
    assert kept["box_id"].tolist() == [reading.boxes["box_id"][0]] * 2
    assert lines.to_numpy().tolist() == [["relabels", "a.jpg", POINTS_GONE, "of 2 boxes"]]
