"""Exports as they are downloaded: where pictures, labels and names lie, and that each label finds its own picture."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from corpus import CSV_HEADER, aihub_json, coco_json, jpeg, voc_xml, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from livestock.config import REPOSITORY, Competition, read_competition
from livestock.data import readers
from livestock.data.readers import clean
from livestock.data.readers.masks import outline_box
from livestock.data.readers.pairs import label_place, label_places
from livestock.data.readers.tree import list_files, part_of

COMPETITION = read_competition(REPOSITORY / "competition.yaml")
LINE = {"pig": b"0 0.5 0.5 0.4 0.4", "cow": b"1 0.5 0.5 0.4 0.4", "swapped": b"0 0.5 0.5 0.4 0.4"}
NAMES, SWAPPED = b"names: [pig, cow]", b"names: ['cow', 'pig']"  # exporters sort them by alphabet
PICTURES = [jpeg(100 + 2 * number, 60) for number in range(6)]  # each of a size of its own


def write(folder: Path, files: dict[str, bytes], *, packed: bool = False) -> Path:
    """The files below a folder, or in one zip there."""
    for name, content in ({"download.zip": zipped(files)} if packed else files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def labels_of(reading: readers.Reading) -> dict[str, list[str]]:
    """The labels of each image's boxes."""
    boxes = reading.boxes.groupby("image_id")["label"].agg(list).to_dict()
    return {image_id: boxes.get(image_id, []) for image_id in reading.images["image_id"]}


def coco_of(*names: str) -> bytes:
    """A COCO file with one cow in each of these pictures."""
    entries = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    boxes = [{"image_id": number, "category_id": 1, "bbox": [10, 12, 40, 12]} for number in range(len(names))]
    return coco_json(json.dumps(boxes), json.dumps(entries)).encode()


A, B, C = PICTURES[:3]
LAYOUTS: dict[str, tuple[str, dict[str, bytes], dict[str, list[str]], list[str]]] = {
    "Roboflow YOLO": ("yolo", {
        "data.yaml": SWAPPED, "README.roboflow.txt": b"x", "README.dataset.txt": b"# x",
        "train/images/a.jpg": A, "train/labels/a.txt": LINE["swapped"],
        "valid/images/b.jpg": B, "valid/labels/b.txt": LINE["swapped"],
        "test/images/c.jpg": C, "test/labels/c.txt": LINE["swapped"],
    }, {"train/images/a.jpg": ["cow"], "valid/images/b.jpg": ["cow"]}, ["test/images/c.jpg"]),
    "Ultralytics, names in another yaml": ("yolo", {
        "farm.yaml": b"path: x\nnames:\n  0: cow\n  1: pig", "images/train2017/a.jpg": A, "images/val2017/b.JPG": B,
        "labels/train2017/a.txt": LINE["swapped"], "labels/val2017/b.TXT": LINE["swapped"],
    }, {"images/train2017/a.jpg": ["cow"], "images/val2017/b.JPG": ["cow"]}, []),
    "CVAT YOLO 1.1": ("yolo", {
        "obj.names": b"cow\npig\n", "obj.data": b"classes = 2", "train.txt": b"data/obj_train_data/a.PNG",
        "obj_train_data/a.PNG": A, "obj_train_data/a.txt": LINE["swapped"],
    }, {"obj_train_data/a.PNG": ["cow"]}, []),
    "Roboflow Darknet": ("yolo", {
        "train/_darknet.labels": b"cow\npig", "valid/_darknet.labels": b"cow\npig", "train/a.jpg": A, "valid/a.jpg": B,
        "train/a.txt": LINE["swapped"], "valid/a.txt": LINE["pig"] + b"\n" + LINE["cow"],
    }, {"train/a.jpg": ["cow"], "valid/a.jpg": ["cow", "pig"]}, []),
    "Label Studio YOLO": ("yolo", {
        "classes.txt": b"cow\npig",
        "notes.json": b'{"categories": [{"id": 0, "name": "cow"}, {"id": 1, "name": "pig"}]}',
        "images/8f3a-a.jpg": A, "labels/8f3a-a.txt": LINE["swapped"],
    }, {"images/8f3a-a.jpg": ["cow"]}, []),
    "pictures and labels in folders of other names": ("yolo", {
        "classes.txt": b"pig\ncow", "train/0.jpg": A, "val/0.jpg": B, "labels/train/0.txt": LINE["pig"],
        "labels/val/0.txt": LINE["cow"],
    }, {"train/0.jpg": ["pig"], "val/0.jpg": ["cow"]}, []),
    "pictures of one name in two folders": ("yolo", {
        "data.yaml": NAMES, "images/empty/1.jpg": A, "images/pigs/1.jpg": B, "labels/pigs/1.txt": LINE["pig"],
    }, {"images/pigs/1.jpg": ["pig"]}, []),
    "labels of an earlier version beside": ("yolo", {
        "data.yaml": NAMES, "images/a.jpg": A, "backup/labels/a.txt": LINE["cow"], "labels/a.txt": LINE["pig"],
        "old/labels/a.txt": LINE["cow"],
    }, {"images/a.jpg": ["pig"]}, []),
    "names that grow as they are seen": ("yolo", {
        "a/classes.txt": b"pig\n", "b/classes.txt": b"pig\ncow\n", "a/1.jpg": A, "a/1.txt": LINE["pig"], "b/1.jpg": B,
        "b/1.txt": LINE["cow"],
    }, {"a/1.jpg": ["pig"], "b/1.jpg": ["cow"]}, []),
    "lines of keypoints": ("yolo", {
        "data.yaml": b"names: [pig, cow]\nkpt_shape: [2, 3]", "a.jpg": A, "a.txt": LINE["cow"] + b" .4 .4 2 .6 .6 2",
    }, {"a.jpg": ["cow"]}, []),
    "COCO 2017": ("coco", {
        **{f"annotations/instances_{part}2017.json": coco_of("0.jpg") for part in ("train", "val", "test")},
        "train2017/0.jpg": A, "val2017/0.jpg": B, "test2017/0.jpg": C,
    }, {"train2017/0.jpg": ["cow"], "val2017/0.jpg": ["cow"]}, ["test2017/0.jpg"]),
    "Roboflow COCO": ("coco", {
        **{f"{part}/_annotations.coco.json": coco_of("0.jpg") for part in ("train", "valid", "test")},
        "train/0.jpg": A, "valid/0.jpg": B, "test/0.jpg": C,
    }, {"train/0.jpg": ["cow"], "valid/0.jpg": ["cow"]}, ["test/0.jpg"]),
    "CVAT COCO": ("coco", {
        "annotations/instances_default.json": coco_of("cam0/0.jpg", "cam1/0.jpg"), "images/default/cam1/0.jpg": A,
        "images/default/cam0/0.jpg": B,
    }, {"images/default/cam0/0.jpg": ["cow"], "images/default/cam1/0.jpg": ["cow"]}, []),
    "CVAT for images": ("cvat", {
        "annotations.xml": b"""<?xml version="1.0" encoding="utf-8"?>
            <annotations><version>1.1</version><image id="0" name="cam0/0.jpg" width="100" height="60">
            <box label="cow" xtl="10" ytl="12" xbr="50" ybr="24"/><polygon label="pig" points="1,1;20,1;9,9"/></image>
            <image id="1" name="cam1/0.jpg" width="102" height="60">
            <mask label="pig" rle="1, 2" left="10" top="12" width="20" height="9"/></image></annotations>""",
        "images/cam0/0.jpg": A, "images/cam1/0.jpg": B,
    }, {"images/cam0/0.jpg": ["cow", "pig"], "images/cam1/0.jpg": ["pig"]}, []),
    "VOC devkit": ("voc", {
        **{f"VOCdevkit/VOC{year}/JPEGImages/0.jpg": picture for year, picture in ((2007, A), (2012, B))},
        **{f"VOCdevkit/VOC{year}/Annotations/0.xml": voc_xml(size="").encode() for year in (2007, 2012)},
        "VOCdevkit/VOC2007/ImageSets/Main/train.txt": b"0",
    }, {"VOCdevkit/VOC2007/JPEGImages/0.jpg": ["cow"], "VOCdevkit/VOC2012/JPEGImages/0.jpg": ["cow"]}, []),
    "Roboflow VOC": ("voc", {
        "train/a.jpg": A, "train/a.xml": voc_xml(size="").encode(), "valid/a.jpg": B,
        "valid/a.xml": voc_xml(size="").encode(), "test/a.jpg": C, "test/a.xml": voc_xml(size="").encode(),
    }, {"train/a.jpg": ["cow"], "valid/a.jpg": ["cow"]}, ["test/a.jpg"]),
    "AI Hub, folders of both sides": ("aihub", {
        "1.Training/원천데이터/TS_pig/0001.jpg": jpeg(), "1.Training/원천데이터/TS_cow/0001.jpg": jpeg(),
        "1.Training/라벨링데이터/TL_pig/0001.json": aihub_json().replace("lying", "돼지").encode(),
        "1.Training/라벨링데이터/TL_cow/0001.json": aihub_json().replace("lying", "소").encode(),
    }, {"1.Training/원천데이터/TS_pig/0001.jpg": ["pig"], "1.Training/원천데이터/TS_cow/0001.jpg": ["cow"]}, []),
    "Open Images": ("open_images", {
        "images/a.jpg": jpeg(), "t-bbox.csv": f"{CSV_HEADER}\na,/m/c,0.1,0.5,0.2,0.4,0\n".encode(),
        "class-descriptions.csv": b"/m/c,Cattle\n",
    }, {"images/a.jpg": ["cow"]}, []),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_an_export_is_recognised_and_read_as_downloaded(name: str, packed: bool, tmp_path: Path) -> None:
    reader, files, labels, test_ids = LAYOUTS[name]
    path = write(tmp_path, files, packed=packed)
    for asked in ("auto", reader):
        found = readers.read_data_set(asked, path, COMPETITION)
        assert found.reader == reader
        assert labels_of(found.train) == labels
        assert ([] if found.test is None else found.test.images["image_id"].tolist()) == test_ids
        left_out = found.train.left_out["image_id"].tolist()
        pictures = {file for file in files if file.lower().endswith((".jpg", ".png"))}
        assert pictures == {*labels, *test_ids, *left_out} & pictures


@pytest.mark.bad_input
def test_a_zip_is_read_by_its_own_path(tmp_path: Path) -> None:
    write(tmp_path, LAYOUTS["Roboflow YOLO"][1], packed=True)
    found = readers.read_data_set("auto", tmp_path / "download.zip", COMPETITION)
    assert labels_of(found.train) == LAYOUTS["Roboflow YOLO"][2]


@pytest.mark.bad_input
def test_zips_that_share_names_are_told_apart(tmp_path: Path) -> None:
    label = aihub_json().replace("lying", "돼지").encode()
    write(tmp_path, {"TS_cow.zip": zipped({"0001.jpg": jpeg(90, 60)}), "TS_pig.zip": zipped({"0001.jpg": jpeg()}),
                     "TL_pig.zip": zipped({"0001.json": label})})
    reading = readers.read("aihub", tmp_path, COMPETITION)
    assert labels_of(reading) == {"TS_pig/0001.jpg": ["pig"]}
    assert reading.left_out[["image_id", "reason"]].to_numpy().tolist() == [["TS_cow/0001.jpg", clean.NO_LABEL]]


@pytest.mark.bad_input
def test_a_zip_downloaded_twice_is_read_once(tmp_path: Path) -> None:
    files = {"data.yaml": NAMES, "images/a.jpg": A, "labels/a.txt": LINE["pig"]}
    write(tmp_path, {"farm.zip": zipped(files), "farm (1).zip": zipped(files)})
    reading = readers.read("yolo", tmp_path, COMPETITION)
    assert labels_of(reading) == {"images/a.jpg": ["pig"]}
    assert reading.left_out["reason"].tolist() == [clean.UNPACKED]


@pytest.mark.bad_input
@pytest.mark.parametrize(("files", "words"), [
    ({"a/1.jpg": A, "b/1.jpg": B, "x/1.txt": LINE["pig"]},
     r"x/1\.txt: expected a label of one image, found 2 .*a/1\.jpg.*b/1"),
    ({"a/1.jpg": A, "x/1.txt": LINE["pig"], "y/1.txt": LINE["cow"]},
     r"y/1\.txt: expected one label of 'a/1\.jpg', found two.*x/1"),
    ({"1.jpg": A, "1.png": B, "1.txt": LINE["pig"]},
     r"1\.txt: expected a label of one image, found 2 .*1\.jpg.*1\.png"),
])
def test_a_label_of_several_images_is_refused(files: dict[str, bytes], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        readers.read("yolo", write(tmp_path, {"classes.txt": b"pig\ncow", **files}), COMPETITION)


@pytest.mark.bad_input
def test_an_entry_that_could_be_of_several_pictures_is_refused(tmp_path: Path) -> None:
    files = {"l.json": coco_of("1.jpg"), "a/1.jpg": A, "b/1.jpg": B}
    words = r"l\.json: expected file_name '1\.jpg' to mean one picture, found 2: a/1\.jpg, b/1"
    with pytest.raises(ValueError, match=words):
        readers.read("coco", write(tmp_path, files), COMPETITION)


@pytest.mark.bad_input
def test_an_entry_never_takes_the_picture_of_another(tmp_path: Path) -> None:
    files = {"l.json": coco_of("gone/0.jpg", "here/0.jpg"), "here/0.jpg": A}
    reading = readers.read("coco", write(tmp_path, files), COMPETITION)
    assert labels_of(reading) == {"here/0.jpg": ["cow"]}
    assert reading.left_out["reason"].tolist() == [clean.NO_IMAGE] * 2  # the entry and its box


COW_IN = {"cam0": coco_of("1.jpg"), "voc": voc_xml(size="").encode()}
BROKEN = b"no picture"


@pytest.mark.bad_input
@pytest.mark.parametrize(("reader", "files"), [
    ("yolo", {"classes.txt": b"pig", "images/cam0/1.jpg": BROKEN, "labels/cam0/1.txt": LINE["pig"],
              "images/cam1/1.jpg": A}),
    ("yolo", {"classes.txt": b"pig", "valid/images/1.heic": b"x", "valid/labels/1.txt": LINE["pig"],
              "train/images/1.jpg": A}),
    ("voc", {"VOC2007/JPEGImages/1.jpg": BROKEN, "VOC2007/Annotations/1.xml": COW_IN["voc"],
             "VOC2012/JPEGImages/1.jpg": A}),
    ("coco", {"l.json": coco_of("cam0/1.jpg"), "images/cam0/1.jpg": BROKEN, "images/cam1/1.jpg": A}),
    ("coco", {"test/l.json": coco_of("1.jpg"), "test/2.jpg": B, "train/1.jpg": A}),
    ("coco", {"l.json": coco_of("/home/u/cam0/1.jpg"), "images/cam0/1.jpg": BROKEN, "images/cam1/1.jpg": A}),
])
def test_the_label_of_a_picture_that_cannot_be_used_is_no_others(reader: str, files: dict[str, bytes], tmp_path: Path
                                                                 ) -> None:
    reading = readers.READERS[reader](write(tmp_path, files), COMPETITION)
    assert not len(reading.boxes)
    assert clean.NO_IMAGE in set(reading.left_out["reason"])


@pytest.mark.bad_input
@pytest.mark.parametrize("prefix", ["/home/u/farm/", "C:\\farm\\", "/data/local-files/?d=farm/", "https://x.y/z/"])
def test_entries_with_longer_paths_mean_the_picture_that_agrees_best(prefix: str, tmp_path: Path) -> None:
    names = [f"{prefix}cam0/1.jpg", f"{prefix}cam1/1.jpg"]
    entries = json.dumps([{"id": number, "file_name": name} for number, name in enumerate(names)])
    boxes = json.dumps([{"image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4]},
                        {"image_id": 1, "category_id": 1, "bbox": [5, 6, 7, 8]}])
    files = {"l.json": coco_json(boxes, entries).encode(), "images/cam0/1.jpg": A, "images/cam1/1.jpg": B}
    reading = readers.read("coco", write(tmp_path, files), COMPETITION)
    assert dict(zip(reading.boxes["image_id"], reading.boxes["x_min"], strict=True)) == {
        "images/cam0/1.jpg": 1, "images/cam1/1.jpg": 5}
    (tmp_path / "images/cam0/1.jpg").unlink()
    reading = readers.read("coco", tmp_path, COMPETITION)
    assert dict(zip(reading.boxes["image_id"], reading.boxes["x_min"], strict=True)) == {"images/cam1/1.jpg": 5}


@pytest.mark.bad_input
def test_two_entries_that_agree_equally_little_are_refused(tmp_path: Path) -> None:
    files = {"l.json": coco_of("a/1.jpg", "b/1.jpg"), "x/1.jpg": A}
    with pytest.raises(ValueError, match=r"expected one entry of the picture 'x/1\.jpg', found 2: .*a/1\.jpg, .*b/1"):
        readers.read("coco", write(tmp_path, files), COMPETITION)


@pytest.mark.bad_input
@pytest.mark.parametrize("name", ["a%20b.jpg", "A B.JPG"])
def test_pictures_are_found_whatever_the_case_and_the_escapes(name: str, tmp_path: Path) -> None:
    files = {"l.json": coco_of("a%20b.jpg" if "%" in name else "a b.jpg"), f"images/{name}": A}
    assert labels_of(readers.read("coco", write(tmp_path, files), COMPETITION)) == {f"images/{name}": ["cow"]}


@pytest.mark.bad_input
@pytest.mark.parametrize(("label", "reason"), [
    (b"0 48 32 20 20", clean.PIXELS), (b"0 0.5 0.5 0.2 0.2 0.9", clean.ODD_LINE),
    (b"0,0.5,0.5,0.2,0.2", clean.ODD_LINE),
    (b"0 100 100 200 100 200 200", clean.PIXELS), ("0 0.5 0.5 0.2 0.2".encode("utf-16"), clean.NOT_A_NUMBER),
])
def test_an_image_none_of_whose_labels_can_be_used_teaches_nothing(label: bytes, reason: str, tmp_path: Path) -> None:
    competition = Competition("t", {"pig": []}, unlabelled="background")
    files = {"classes.txt": b"pig", "a.jpg": A, "a.txt": label, "b.jpg": B, "b.txt": LINE["pig"]}
    reading = readers.read("yolo", write(tmp_path, files), competition)
    assert labels_of(reading) == {"b.jpg": ["pig"]}
    assert set(reading.left_out["reason"]) == {reason, clean.NOTHING_LEFT}


@pytest.mark.bad_input
def test_a_list_that_cannot_be_read_makes_no_background(tmp_path: Path) -> None:
    competition = Competition("t", {"cow": []}, unlabelled="background")
    files = {"a.json": coco_of("a.jpg"), "b.json": b"{", "a.jpg": A, "b.jpg": B}
    reading = readers.read("coco", write(tmp_path, files), competition)
    assert labels_of(reading) == {"a.jpg": ["cow"]}
    assert sorted(reading.left_out["reason"]) == sorted([clean.UNREADABLE_LABEL, clean.NO_LABEL])


@pytest.mark.bad_input
@pytest.mark.parametrize("names", [["test", "train", "license"], ["val", "readme", "requirements"]])
def test_images_may_be_called_like_lists(names: list[str], tmp_path: Path) -> None:
    files = {f"images/{name}.jpg": picture for name, picture in zip(names, PICTURES, strict=False)}
    files |= {f"labels/{name}.txt": LINE["pig"] for name in names} | {"data.yaml": NAMES, "train.txt": b"images/a.jpg"}
    found = readers.read_data_set("auto", write(tmp_path, files), COMPETITION)
    assert labels_of(found.train) == {f"images/{name}.jpg": ["pig"] for name in names}


@pytest.mark.bad_input
@pytest.mark.parametrize("files", [
    {"train_images/a.jpg": A, "test_images/b.jpg": B},
    {"obj_Train_data/a.jpg": A, "obj_Test_data/b.jpg": B},
    {"images/a.jpg": A, "holdout/images/b.jpg": B, "data.yaml": b"names: [pig]\ntest: ../holdout/images"},
    {"images/a.jpg": A, "images/b.jpg": B, "farm.yaml": b"names: [pig]\ntest: lists/t.txt",
     "lists/t.txt": b"./images/b.jpg"},
])
def test_what_is_to_be_answered_is_found_by_other_names(files: dict[str, bytes], tmp_path: Path) -> None:
    labels = {f"{path.rpartition('.')[0]}.txt": LINE["pig"] for path in files if path.endswith(".jpg")}
    found = readers.read_data_set("auto", write(tmp_path, {"classes.txt": b"pig"} | labels | files), COMPETITION)
    assert [image_id.rpartition("/")[2] for image_id in found.train.images["image_id"]] == ["a.jpg"]
    assert found.test is not None
    assert [image_id.rpartition("/")[2] for image_id in found.test.images["image_id"]] == ["b.jpg"]


@pytest.mark.bad_input
@pytest.mark.parametrize("folder", ["livestock_cow_pig_v1", "livestock_farm_v1"])
def test_the_name_of_a_folder_changes_no_class(folder: str, tmp_path: Path) -> None:
    files = {f"{folder}/data.yaml": NAMES, f"{folder}/livestock_cow_1.jpg": A,
             f"{folder}/livestock_cow_1.txt": LINE["pig"]}
    assert labels_of(readers.read("yolo", write(tmp_path, files), COMPETITION)) == {
        f"{folder}/livestock_cow_1.jpg": ["pig"]}


@pytest.mark.bad_input
def test_a_folder_that_is_a_workspace_is_read_without_its_results(tmp_path: Path) -> None:
    files = {"interim/steps/read.json": b"{}", "yolo/64_x/images/a-1.jpg": A, "yolo/64_x/labels/a-1.txt": LINE["pig"],
             "raw/classes.txt": b"pig", "raw/a.jpg": A, "raw/a.txt": LINE["pig"]}
    assert labels_of(readers.read("yolo", write(tmp_path, files), COMPETITION)) == {"raw/a.jpg": ["pig"]}


@pytest.mark.bad_input
@pytest.mark.parametrize(("files", "words"), [
    ({"a.jpg": A}, "no label format recognised among 1 files, 1 of them images; looked for aihub .*open_images"),
    ({"a.jpg": A, "_annotations.createml.json": b"[]"}, "Found CreateML, which is not read: export it as COCO"),
    ({"a.jpg": A, "a.json": b'{"shapes": [], "imagePath": "a.jpg"}'}, "Found LabelMe"),
    ({"a.jpg": A, "a.txt": LINE["pig"], "b.jpg": B, "b.xml": voc_xml().encode()},
     "labels of 2 formats .voc: 1 .*yolo: 1 .*--reader"),
    ({"a.jpg": A, "a.txt": b"a note about a.jpg"}, "no label format recognised"),
])
def test_a_layout_that_is_not_recognised_says_what_was_looked_for(files: dict[str, bytes], words: str, tmp_path: Path
                                                                  ) -> None:
    with pytest.raises(ValueError, match=words):
        readers.read_data_set("auto", write(tmp_path, files), COMPETITION)


@pytest.mark.bad_input
def test_what_lies_about_is_not_taken_for_data(tmp_path: Path) -> None:
    files = {"classes.txt": b"pig\ncow", "a.jpg": A, "a.txt": LINE["pig"], "._a.jpg": b"mac",
             "__MACOSX/._b.jpg": b"mac", ".ipynb_checkpoints/a.jpg": B,
             "z.zip": zipped({"b.jpg": B, "__MACOSX/._b.jpg": b"mac", "b.txt": b""}),
             "out/interim/steps/read.json": b"{}", "out/yolo/images/a-1.jpg": A, "out/yolo/labels/a-1.txt": LINE["pig"],
             "new/yolo/images/a-1.jpg": A, "data.zip.part0": b"x"}
    reading = readers.read("yolo", write(tmp_path, files), COMPETITION, skip=[tmp_path / "new"])
    assert labels_of(reading) == {"a.jpg": ["pig"], "b.jpg": []}
    reasons = sorted(reading.left_out["reason"])
    assert reasons == sorted([clean.SYSTEM_FILES] * 2 + [clean.RESULTS] * 2 + [clean.NESTED, clean.EMPTY])


@pytest.mark.bad_input
def test_a_name_that_is_no_text_is_left_out_and_links_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "real", {"classes.txt": b"pig\ncow", "a.jpg": A, "a.txt": LINE["pig"]})
    Path(os.fsdecode(bytes(tmp_path / "real") + b"/\xff.jpg")).write_bytes(B)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/link").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "real/loop").symlink_to(tmp_path / "real", target_is_directory=True)
    reading = readers.read("yolo", tmp_path / "data", COMPETITION)
    assert labels_of(reading) == {"link/a.jpg": ["pig"]}
    assert sorted(reading.left_out["reason"]) == sorted([clean.LOOP, clean.BAD_NAME])


@pytest.mark.bad_input
@pytest.mark.parametrize(("unlabelled", "n_images", "reason"), [
    ("leave out", 1, clean.NO_LABEL), ("background", 2, clean.BACKGROUND)])
def test_images_without_label_are_what_the_competition_says(unlabelled: str, n_images: int, reason: str, tmp_path: Path
                                                            ) -> None:
    files = {"classes.txt": b"pig", "images/a.jpg": A, "labels/a.txt": LINE["pig"], "images/b.jpg": B}
    competition = Competition("t", {"pig": []}, unlabelled=unlabelled)
    reading = readers.read("yolo", write(tmp_path, files), competition)
    assert (len(reading.images), len(reading.boxes)) == (n_images, 1)
    assert reading.left_out[["image_id", "reason"]].to_numpy().tolist() == [["images/b.jpg", reason]]


@pytest.mark.bad_input
def test_test_pictures_that_are_not_answered_have_a_line(tmp_path: Path) -> None:
    files = {"classes.txt": b"pig", "train/a.jpg": A, "train/a.txt": LINE["pig"], "test/cam0/0.jpg": B,
             "test/cam1/0.jpg": C, "test/1.heic": b"x", "test/2.jpg": b"no picture"}
    train, test = readers.read_train_and_test("auto", write(tmp_path, files), COMPETITION)
    assert test is not None
    assert test.images["image_id"].tolist() == ["test/cam0/0.jpg", "test/cam1/0.jpg"]
    assert test.left_out[["image_id", "reason"]].to_numpy().tolist() == [
        ["test/1.heic", clean.OTHER_FORMAT], ["test/2.jpg", clean.UNREADABLE_IMAGE]]
    assert train.left_out.empty


@pytest.mark.parametrize(("path", "part"), [
    ("train/a.jpg", "train"), ("x/VALID/images/a.jpg", "valid"), ("images/test2017/a.jpg", "test"), ("test.jpg", ""),
    ("1.Training/a.jpg", "train"), ("2.Validation/a.jpg", "valid"), ("testing_ground/a.jpg", ""),
    ("train/test/a.jpg", "train"),
])
def test_parts_are_named_by_folders(path: str, part: str) -> None:
    assert part_of(path) == part


folders = st.lists(st.sampled_from(["images", "a", "b", "train", "Images", "JPEGImages", "원천데이터"]), max_size=3)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(images=st.lists(st.tuples(folders, st.sampled_from(["0", "1"])), min_size=1, max_size=6, unique_by=str),
       data=st.data())
def test_each_label_finds_the_image_whose_path_it_was_made_from(
    images: list[tuple[list[str], str]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Labels lie where YOLO looks for them; an image without one gets none of another's."""
    files, expected = {"classes.txt": b"pig\ncow"}, {}
    taken: dict[tuple[str, str], str] = {}
    for number, (names, stem) in enumerate(images):
        image = "/".join([*names, f"{stem}.jpg"])
        place = label_places(image)[0]
        files[image] = jpeg(40 + number, 30)
        if any(place in label_places(other) for other in taken.values()) or any(
                known in label_places(image) for known in taken):
            continue  # two folders that stand for one another: refused, or the nearer image's
        if data.draw(st.booleans()):
            swap = {"images": "labels", "Images": "labels", "JPEGImages": "Annotations", "원천데이터": "라벨데이터"}
            at = next((index for index in reversed(range(len(names))) if names[index] in swap), None)
            label = [*names[:at], swap[names[at]], *names[at + 1 :]] if at is not None else names
            taken[label_place("/".join([*label, stem]))] = image
            files["/".join([*label, f"{stem}.txt"])] = f"{number % 2} 0.5 0.5 0.4 0.4".encode()
            expected[image] = [["pig", "cow"][number % 2]]
    folder = write(tmp_path_factory.mktemp("pairs"), files)
    try:
        found = labels_of(readers.READERS["yolo"](folder, COMPETITION))
    except ValueError as error:
        assert "expected a label of one image" in str(error) or "expected one label" in str(error)
        return
    assert {image: labels for image, labels in found.items() if labels} == expected


@settings(max_examples=80, deadline=None)
@given(mask=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=9))
def test_the_box_of_a_mask_is_the_one_of_its_pixels(mask: list[list[bool]]) -> None:
    """Packed by COCO's own code, and as runs."""
    from faster_coco_eval.core import mask as coco_mask

    pixels = np.array(mask, np.uint8)
    packed = coco_mask.encode(np.asfortranarray(pixels))
    rows, columns = np.nonzero(pixels)
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None
    found = outline_box({"size": [*pixels.shape], "counts": packed["counts"].decode()})
    assert found == expected
    down = pixels.T.reshape(-1)
    edges = np.flatnonzero(np.diff(down, prepend=0))
    runs = np.diff(np.concatenate([[0], edges, [len(down)]])).tolist()
    assert outline_box({"size": [*pixels.shape], "counts": runs}) == found


def test_files_have_paths_as_if_unpacked(tmp_path: Path) -> None:
    write(tmp_path, {"train/[원천]소.zip": zipped({"deep/a.jpg": A}), "b.jpg": B})
    assert [file.path for file in list_files(tmp_path, clean.Report())] == ["b.jpg", "train/deep/a.jpg"]
