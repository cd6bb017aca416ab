"""Every format gives the same two tables, and every box and image that is missing there has a line that says why."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from livestock.config import REPOSITORY, read_competition
from livestock.data import readers
from livestock.data.readers import clean
from livestock.data.readers.values import is_number, short
from livestock.tables import XYXY, make_images

COMPETITION = read_competition(REPOSITORY / "competition.yaml")
JPEG = cv2.imencode(".jpg", np.zeros((60, 100, 3), np.uint8))[1].tobytes()  # 100 wide, 60 high
BOX_REASONS = [clean.NOT_A_NUMBER, clean.SWAPPED, clean.NO_AREA, clean.OUTSIDE, clean.UNKNOWN_CLASS]


def aihub_label(boxes: list[Any], **changes: Any) -> dict[str, Any]:
    """A label as AI Hub writes it; categories are behaviours."""
    info = {"image": {"width": 100, "height": 60}, "categories": [{"id": 1, "name": "lying"}],
            "annotations": [{"id": i, "category_id": 1, "bbox": box} for i, box in enumerate(boxes)]}
    return {"label_info": info | changes}


def write_aihub(folder: Path, labels: dict[str, Any], extra_images: tuple[str, ...] = ()) -> Path:
    """Zips of pictures and labels by stem; a label that is bytes is written as it is, None leaves it out."""
    with ZipFile(folder / "[원천]소_bbox.zip", "w") as sources, ZipFile(folder / "[라벨]소_bbox.zip", "w") as targets:
        for stem in (*labels, *extra_images):
            sources.writestr(f"{stem}.jpg", JPEG)
        for stem, label in labels.items():
            if label is not None:
                targets.writestr(f"{stem}.json", label if isinstance(label, bytes) else json.dumps(label))
    return folder


def reasons(reading: readers.Reading) -> dict[str, int]:
    """How often each reason is given."""
    return dict(Counter(reading.left_out["reason"]))


COW = "livestock_cow_bbox_000001"


def test_aihub_boxes_are_cows_by_file_name(tmp_path: Path) -> None:
    write_aihub(tmp_path, {COW: aihub_label([[10, 20, 30.5, 40]])})
    reading = readers.read("aihub", tmp_path, COMPETITION)
    assert reading.boxes[["label", *XYXY]].to_numpy().tolist() == [["cow", 10, 20, 30.5, 40]]
    row = reading.images.iloc[0]
    assert (row["image_id"], row["member"], row["width"], row["height"]) == (f"{COW}.jpg", f"{COW}.jpg", 100, 60)
    assert row["archive"].endswith("[원천]소_bbox.zip")
    assert reading.left_out.empty


@pytest.mark.parametrize(
    ("box", "reason", "kept"),
    [
        ([-5, 20, 30, 99], clean.CLIPPED, [0, 20, 30, 60]),
        ([200, 20, 300, 40], clean.OUTSIDE, None),
        ([30, 20, 10, 40], clean.SWAPPED, None),
        ([10, 40, 30, 20], clean.SWAPPED, None),
        ([10, 20, 10, 40], clean.NO_AREA, None),
        ([10, 20, 30, 20], clean.NO_AREA, None),
        ([10, 20, math.nan, 40], clean.NOT_A_NUMBER, None),
        ([10, 20, math.inf, 40], clean.NOT_A_NUMBER, None),
        ([10, 20, "thirty", 40], clean.NOT_A_NUMBER, None),
        ([10, 20, True, 40], clean.NOT_A_NUMBER, None),
        ([10, 20, 30], clean.NOT_A_NUMBER, None),
    ],
)
def test_a_wrong_box_is_reported(tmp_path: Path, box: list[Any], reason: str, kept: list[float] | None) -> None:
    write_aihub(tmp_path, {COW: aihub_label([box])})
    reading = readers.READERS["aihub"](tmp_path, COMPETITION)
    assert reading.boxes[XYXY].to_numpy().tolist() == ([] if kept is None else [kept])
    assert reasons(reading) == {reason: 1} | ({} if kept else {clean.NOTHING_LEFT: 1})
    assert set(reading.left_out["image_id"]) == {f"{COW}.jpg"}
    assert len(reading.images) == (kept is not None)  # it would teach that nothing is there
    of_box = reading.left_out.loc[reading.left_out["reason"] == reason, "file"]
    assert of_box.iloc[0].endswith(f"[라벨]소_bbox.zip/{COW}.json")


@pytest.mark.parametrize(
    ("label", "reason", "n_images"),
    [
        (aihub_label([]), clean.EMPTY, 1),
        (None, clean.NO_LABEL, 0),
        (b"{not json", clean.UNREADABLE_LABEL, 0),
        (b"[]", clean.UNREADABLE_LABEL, 0),
        (b"\xff\xfe", clean.UNREADABLE_LABEL, 0),
        (b"[" * 100_000, clean.UNREADABLE_LABEL, 0),
        (aihub_label([], annotations=None), clean.UNREADABLE_LABEL, 0),
        (aihub_label([[1, 2, 3, 4]], image={"width": 9, "height": 9}), clean.OTHER_SIZE, 0),
        (b"\xef\xbb\xbf" + json.dumps(aihub_label([[1, 2, 3, 4]])).encode(), None, 1),
    ],
)
def test_a_wrong_label_is_reported(tmp_path: Path, label: Any, reason: str | None, n_images: int) -> None:
    write_aihub(tmp_path, {COW: label, "livestock_pig_bbox_000002": aihub_label([[1, 2, 3, 4]])})
    reading = readers.read("aihub", tmp_path, COMPETITION)
    assert len(reading.images) == 1 + n_images
    assert reasons(reading) == ({} if reason is None else {reason: 1})


def test_an_unknown_class_is_reported(tmp_path: Path) -> None:
    write_aihub(tmp_path, {"livestock_horse_bbox_1": aihub_label([[1, 2, 3, 4]])})
    reading = readers.read("aihub", tmp_path, COMPETITION)
    assert (len(reading.images), len(reading.boxes), reasons(reading)) == (
        1, 0, {clean.UNKNOWN_CLASS: 1, clean.EMPTY: 1})


def test_a_wrong_box_of_an_unknown_class_is_reported_for_what_is_wrong(tmp_path: Path) -> None:
    write_aihub(tmp_path, {"livestock_horse_bbox_1": aihub_label([[30, 2, 3, 4]])})
    reading = readers.READERS["aihub"](tmp_path, COMPETITION)
    assert reasons(reading) == {clean.SWAPPED: 1, clean.NOTHING_LEFT: 1}


def test_labels_and_images_without_a_partner_and_doubles_are_reported(tmp_path: Path) -> None:
    write_aihub(tmp_path, {COW: aihub_label([[1, 2, 3, 4]])})
    with ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr(f"{COW}.jpg", JPEG)
        archive.writestr("broken.jpg", b"no picture")
        archive.writestr("alone.json", "{}")
        archive.writestr(f"{COW}.json", json.dumps(aihub_label([])))
    reading = readers.read("aihub", tmp_path, COMPETITION)
    assert reasons(reading) == dict.fromkeys([clean.UNREADABLE_IMAGE, clean.NO_IMAGE, clean.EMPTY], 1)
    more, first = "more/livestock_cow_bbox_000001.jpg", "[원천]소_bbox/livestock_cow_bbox_000001.jpg"
    assert reading.images["image_id"].tolist() == [first, more]  # each with the label of its own archive
    assert reading.boxes["image_id"].tolist() == [first]


def test_unpacked_folders_and_unlabelled_images(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / f"a/b/{COW}.jpg").write_bytes(JPEG)
    (tmp_path / f"a/{COW}.json").write_text(json.dumps(aihub_label([[1, 2, 3, 4]])))
    assert len(readers.read("aihub", tmp_path, COMPETITION).boxes) == 1
    unlabelled = readers.read("aihub", tmp_path, COMPETITION, labelled=False)
    assert (len(unlabelled.images), len(unlabelled.boxes), len(unlabelled.left_out)) == (1, 0, 0)


def write_coco(folder: Path, annotations: list[dict[str, Any]]) -> Path:
    """One picture, its annotations, and the categories 1 pig, 2 sheep."""
    (folder / "images").mkdir()
    (folder / "images/a.jpg").write_bytes(JPEG)
    categories = [{"id": 1, "name": "pig"}, {"id": 2, "name": "sheep"}]
    image = {"id": 7, "file_name": "deep/a.jpg", "width": 100, "height": 60}
    content = {"images": [image], "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def test_coco_boxes_are_corner_and_size(tmp_path: Path) -> None:
    write_coco(tmp_path, [
        {"image_id": 7, "category_id": 1, "bbox": [10, 20, 30, 15]},
        {"image_id": 7, "category_id": 2, "bbox": [1, 1, 5, 5]},
        {"image_id": 7, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 1},
        {"image_id": 8, "category_id": 1, "bbox": [1, 1, 5, 5]},
        {"image_id": 7, "category_id": 1, "bbox": None},
    ])
    reading = readers.read("coco", tmp_path, COMPETITION)
    assert reading.boxes[["label", *XYXY]].to_numpy().tolist() == [["pig", 10, 20, 40, 35]]
    assert reasons(reading) == {clean.UNKNOWN_CLASS: 1, clean.CROWD: 1, clean.NO_IMAGE: 1, clean.NOT_A_NUMBER: 1}


def test_voc_boxes_count_from_one(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    box = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
    boxes = [box.format(1, 1, 100, 60), box.format(0, 11, 50, 30), box.format("x", 1, 2, 3)]
    objects = "".join(f"<object><name>cow</name>{found}</object>" for found in boxes)
    size = "<size><width>100</width><height>60</height></size>"
    (tmp_path / "a.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    (tmp_path / "lonely.xml").write_text("<annotation/>")
    reading = readers.read("voc", tmp_path, COMPETITION)
    assert reading.boxes[["label", *XYXY]].to_numpy().tolist() == [["cow", 0, 0, 100, 60], ["cow", 0, 10, 50, 30]]
    assert reasons(reading) == {clean.NOT_A_NUMBER: 1, clean.NO_IMAGE: 1}


@pytest.mark.parametrize("text", ["<annotation>", '<!DOCTYPE a [<!ENTITY b "b">]><annotation/>'])
def test_voc_xml_that_is_broken_or_declares_entities_is_reported(tmp_path: Path, text: str) -> None:
    for stem in ("a", "b"):
        (tmp_path / f"{stem}.jpg").write_bytes(JPEG)
    (tmp_path / "a.xml").write_text(text)
    (tmp_path / "b.xml").write_text("<annotation><size><width>100</width><height>60</height></size></annotation>")
    reading = readers.read("voc", tmp_path, COMPETITION)
    assert reasons(reading) == {clean.UNREADABLE_LABEL: 1, clean.EMPTY: 1}


@pytest.mark.parametrize("names", ["data.yaml", "farm.yml", "classes.txt", "obj.names", "_darknet.labels",
                                   "notes.json"])
def test_yolo_boxes_are_centre_and_size(tmp_path: Path, names: str) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    (tmp_path / "images/a.jpg").write_bytes(JPEG)
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.2 0.5\n\n5 0.5 0.5 0.2 0.5\n0 0.1 x 0.2 0.2\n0 1 2 3\n")
    notes = {"categories": [{"id": 0, "name": "cattle"}, {"id": 1, "name": "hog"}]}
    texts = {"data.yaml": "names: [cattle, hog]", "farm.yml": "names: {0: cattle, 1: hog}",
             "notes.json": json.dumps(notes)}
    (tmp_path / names).write_text(texts.get(names, "cattle\nhog\n"))
    reading = readers.read("yolo", tmp_path, COMPETITION)
    assert reading.boxes[["label", *XYXY]].to_numpy().tolist() == [["cow", 40, 15, 60, 45]]
    assert reasons(reading) == {clean.UNKNOWN_CLASS: 1, clean.NOT_A_NUMBER: 1, clean.ODD_LINE: 1}
    assert reading.left_out["file"].str[-2:].tolist() == [":3", ":4", ":5"]


def test_a_size_that_is_not_the_images_is_reported(tmp_path: Path) -> None:
    for folder in ("coco", "voc"):
        (tmp_path / folder).mkdir()
    write_coco(tmp_path / "coco", [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}])
    instances = tmp_path / "coco/instances.json"
    instances.write_text(instances.read_text().replace('"width": 100', '"width": 90'))
    (tmp_path / "voc/a.jpg").write_bytes(JPEG)
    box = "<object><name>cow</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>4</xmax><ymax>6</ymax></bndbox></object>"
    size = "<size><width>100</width><height>70</height></size>"
    (tmp_path / "voc/a.xml").write_text(f"<annotation>{size}{box}</annotation>")
    for reader in ("coco", "voc"):
        reading = readers.READERS[reader](tmp_path / reader, COMPETITION)
        assert set(reasons(reading)) == {clean.OTHER_SIZE}
        assert (len(reading.images), len(reading.boxes)) == (0, 0)


def test_a_yolo_label_without_its_image_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.5\n")
    (tmp_path / "classes.txt").write_text("pig\n")
    (tmp_path / "lonely.txt").write_text("0 0.5 0.5 0.2 0.5\n")
    assert reasons(readers.read("yolo", tmp_path, COMPETITION)) == {clean.NO_IMAGE: 1}


numbers = st.one_of(st.floats(-50, 150), st.integers(-50, 150), st.sampled_from([math.nan, math.inf, None, "7"]))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(boxes=st.lists(st.lists(numbers, min_size=3, max_size=5), max_size=8))
def test_no_box_is_ever_lost_in_silence(tmp_path_factory: pytest.TempPathFactory, boxes: list[list[Any]]) -> None:
    folder = write_aihub(tmp_path_factory.mktemp("raw"), {COW: aihub_label(boxes)})
    reading = readers.READERS["aihub"](folder, COMPETITION)
    n_left_out = int(reading.left_out["reason"].isin(BOX_REASONS).sum())
    assert len(reading.boxes) + n_left_out == len(boxes)
    folder = write_coco(tmp_path_factory.mktemp("coco"),
                        [{"image_id": 7, "category_id": 1, "bbox": box} for box in boxes])
    reading = readers.READERS["coco"](folder, COMPETITION)
    assert len(reading.boxes) + int(reading.left_out["reason"].isin(BOX_REASONS).sum()) == len(boxes)


def clean_one(box: clean.RawBox, size: tuple[int, int] | None, report: clean.Report) -> list[Any] | None:
    """What `clean_boxes` does to all at once, for one box as one reads it."""
    label, detail = COMPETITION.label_of(box.source_name, box.image_id), f"{box.source_name} {short(list(box.corners))}"
    if size is None:
        return report.add(clean.NO_IMAGE, box.file, box.image_id, detail)
    if len(box.corners) != 4 or not all(is_number(value) for value in box.corners):
        return report.add(clean.NOT_A_NUMBER, box.file, box.image_id, detail)
    x_min, y_min, x_max, y_max = map(float, box.corners)
    clipped = [min(max(x_min, 0), size[0]), min(max(y_min, 0), size[1]),
               min(max(x_max, 0), size[0]), min(max(y_max, 0), size[1])]
    if x_min > x_max or y_min > y_max:
        return report.add(clean.SWAPPED, box.file, box.image_id, detail)
    if x_min == x_max or y_min == y_max:
        return report.add(clean.NO_AREA, box.file, box.image_id, detail)
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        return report.add(clean.OUTSIDE, box.file, box.image_id, detail)
    if label is None:
        return report.add(clean.UNKNOWN_CLASS, box.file, box.image_id, box.source_name)
    if clipped != [x_min, y_min, x_max, y_max]:
        report.add(clean.CLIPPED, box.file, box.image_id, detail)
    return [box.image_id, label, *clipped]


corners = st.one_of(
    st.sampled_from([[1, 2, 30, 40], [0, 0, 100, 60], [-1, 2, 30, 70], [-9, 5, 0, 9], [100, 2, 130, 40], [5, 5, 5, 9]]),
    st.lists(st.one_of(st.integers(-3, 105), st.floats(-3, 105), st.sampled_from(
        [0, 60, 100, math.nan, math.inf, None, True, "7", [], 1e308, 10**290, 10**305, 10**320, -(10**400)])),
        min_size=3, max_size=5),
)


@settings(max_examples=300, deadline=None)
@given(found=st.lists(st.tuples(st.sampled_from([COW, "barn", "other", "gone"]), st.sampled_from(["pig", "?", ""]),
                                corners), max_size=12))
def test_boxes_are_cleaned_together_as_one_by_one(found: list[tuple[str, str, list[Any]]]) -> None:
    sizes = {COW: (100, 60), "barn": (60, 100), "other": (7, 100)}
    images = make_images([{"image_id": name, "archive": "", "member": "", "width": width, "height": height}
                          for name, (width, height) in sizes.items()])
    raw = [clean.RawBox(f"{number}.json", name, source, tuple(box)) for number, (name, source, box) in enumerate(found)]
    one_by_one, together = clean.Report(), clean.Report()
    rows = [row for box in raw if (row := clean_one(box, sizes.get(box.image_id), one_by_one)) is not None]
    boxes = clean.clean_boxes(raw, images, COMPETITION, together)
    assert together.rows == one_by_one.rows
    assert boxes[["image_id", "label", *XYXY]].to_numpy().tolist() == sorted(rows, key=lambda row: row[0])


def test_a_box_has_its_id_however_often_it_is_read_and_whatever_is_left_out(tmp_path: Path) -> None:
    """The second of three boxes gets no number, so nothing else may change."""
    folder = tmp_path / "data"
    (folder / "labels").mkdir(parents=True)
    cv2.imwrite(str(folder / "labels/a.png"), np.zeros((100, 200, 3), np.uint8))
    (folder / "data.yaml").write_text("names: [pig, cow]\n")
    lines = ["0 .5 .5 .2 .2", "1 .5 .5 .4 .4", "0 .2 .2 .2 .2"]
    found = []
    for middle in (lines[1], lines[1], "1 .5 .5 x .4"):
        (folder / "labels/a.txt").write_text("\n".join([lines[0], middle, lines[2]]))
        found.append(readers.read("yolo", folder, COMPETITION).boxes["box_id"].tolist())
    assert found[0] == found[1] and len(set(found[0])) == 3
    assert found[2] == [found[0][0], found[0][2]]


def test_errors_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of .*'aihub'.*found 'kaggle'"):
        readers.read("kaggle", tmp_path, COMPETITION)
    with pytest.raises(ValueError, match="found no such path"):
        readers.read("aihub", tmp_path / "nothing", COMPETITION)
    with pytest.raises(ValueError, match="found no image to use there"):
        readers.read("coco", tmp_path, COMPETITION)


def test_train_and_test_folders(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        write_aihub(tmp_path / part, {COW: aihub_label([[1, 2, 3, 4]])})
    train, test = readers.read_train_and_test("aihub", tmp_path, COMPETITION)
    assert test is not None
    assert (len(train.boxes), len(test.images), len(test.boxes)) == (1, 1, 0)
    assert readers.read_train_and_test("aihub", tmp_path / "train", COMPETITION)[1] is None


def test_real_archives_hold_what_their_list_says(real_data: Path) -> None:
    sources = pd.read_csv(real_data / "livestock_small/sources.csv").set_index("image_id").sort_index()
    train, test = readers.read_train_and_test("aihub", real_data / "livestock_small", COMPETITION)
    assert test is not None
    both = pd.concat([train.images, test.images])
    both = both.assign(image_id=both["image_id"].str.rpartition("/")[2]).set_index("image_id").sort_index()
    pd.testing.assert_frame_equal(both[["width", "height"]], sources[["width", "height"]])
    counts = train.boxes.groupby(train.boxes["image_id"].str.rpartition("/")[2]).size()
    listed = sources.loc[sources["split"] == "train", "n_boxes"]
    assert counts.reindex(listed.index, fill_value=0).tolist() == listed.tolist()


def test_real_files_of_other_formats(real_data: Path, tmp_path: Path) -> None:
    coco = json.loads((real_data / "coco_cows/instances.json").read_text())
    reading = readers.read("coco", real_data / "coco_cows", COMPETITION)
    assert (len(reading.images), len(reading.boxes)) == (len(coco["images"]), len(coco["annotations"]))
    reading = readers.read("voc", real_data / "voc_cattle", COMPETITION)
    n_objects = sum(path.read_text().count("<object>") for path in (real_data / "voc_cattle").glob("*.xml"))
    assert (len(reading.images), len(reading.boxes)) == (60, n_objects)
    with pytest.raises(ValueError, match="expected a name for class 0, found no file of class names"):
        readers.read("yolo", real_data / "yolo_chute", COMPETITION)
    shutil.copytree(real_data / "yolo_chute", tmp_path / "chute")
    (tmp_path / "chute/classes.txt").write_text("cow\ncalf\n")
    reading = readers.read("yolo", tmp_path / "chute", COMPETITION)
    lines = [line for path in (real_data / "yolo_chute/labels").rglob("*.txt") for line in path.read_text().split("\n")]
    assert len(reading.boxes) == sum(bool(line.strip()) for line in lines) - reasons(reading)[clean.UNKNOWN_CLASS]
    assert len(reading.images) == len(list((real_data / "yolo_chute/images").rglob("*.jpg")))
