"""Images once, at training size; labels and lists exactly as yolov5 reads them."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from livestock.data.dataset import dataset_dir, file_name, hash_lists, write_images, write_labels, write_lists
from livestock.tables import make_boxes, make_images

SIZES = {"big.jpg": (640, 360), "small.jpg": (100, 80), "drawing.png": (50, 200)}


def label_name(image_id: str) -> str:
    """The label's file beside `file_name`."""
    return file_name(image_id).replace(".jpg", ".txt")


@pytest.fixture
def images(tmp_path: Path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    with ZipFile(tmp_path / "images.zip", "w") as archive:
        for name, (width, height) in SIZES.items():
            picture = cv2.GaussianBlur(rng.integers(0, 255, (height, width, 3), np.uint8), (0, 0), 8)
            archive.writestr(name, cv2.imencode(Path(name).suffix, picture)[1].tobytes())
    return make_images(
        [{"image_id": name, "archive": str(tmp_path / "images.zip"), "member": name, "width": w, "height": h}
         for name, (w, h) in SIZES.items()]
    )


@pytest.fixture
def boxes() -> pd.DataFrame:
    return make_boxes(
        [{"image_id": "big.jpg", "label": "cow", "x_min": 64, "y_min": 36, "x_max": 320, "y_max": 180},
         {"image_id": "big.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 640, "y_max": 360},
         {"image_id": "drawing.png", "label": "pig", "x_min": 10, "y_min": 20, "x_max": 20, "y_max": 40}]
    )


def test_images_are_at_training_size_and_small_ones_untouched(images: pd.DataFrame, tmp_path: Path) -> None:
    write_images(images, tmp_path / "yolo", imgsz=320)
    written = {path.name: path for path in (tmp_path / "yolo/images").iterdir()}
    assert sorted(written) == sorted(map(file_name, SIZES))
    assert cv2.imread(str(written[file_name("big.jpg")])).shape == (180, 320, 3)
    assert written[file_name("small.jpg")].read_bytes() == ZipFile(tmp_path / "images.zip").read("small.jpg")
    original = cv2.imdecode(np.frombuffer(ZipFile(tmp_path / "images.zip").read("drawing.png"), np.uint8), 1)
    difference = cv2.imread(str(written[file_name("drawing.png")])).astype(int) - original
    assert np.abs(difference).mean() < 3  # the colours are not swapped; JPEG costs a little


def test_what_opencv_would_read_otherwise_is_not_handed_on(tmp_path: Path) -> None:
    """yolov5 reads the files with OpenCV: half a picture is refused, CMYK is written anew, in the right colours."""
    red = np.zeros((40, 60, 3), np.uint8) + np.array([200, 30, 30], np.uint8)
    whole, cmyk = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(whole, "JPEG")
    Image.fromarray(red).convert("CMYK").save(cmyk, "JPEG")
    (tmp_path / "half.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) * 9 // 10])
    (tmp_path / "cmyk.jpg").write_bytes(cmyk.getvalue())
    rows = {name: make_images([{"image_id": name, "archive": str(tmp_path), "member": name, "width": 60, "height": 40}])
            for name in ("half.jpg", "cmyk.jpg")}
    with pytest.raises(ValueError, match=r"half\.jpg: expected a picture that can be decoded, found: truncated"):
        write_images(rows["half.jpg"], tmp_path / "yolo", imgsz=320)
    assert not (tmp_path / "yolo/images" / file_name("half.jpg")).exists()
    write_images(rows["cmyk.jpg"], tmp_path / "yolo", imgsz=320)
    written = tmp_path / "yolo/images" / file_name("cmyk.jpg")
    assert written.read_bytes() != cmyk.getvalue()
    np.testing.assert_allclose(cv2.imread(str(written))[20, 30, ::-1].astype(int), red[20, 30], atol=5)


def test_images_that_stand_are_kept(images: pd.DataFrame, tmp_path: Path) -> None:
    write_images(images, tmp_path, imgsz=320)
    kept = tmp_path / "images" / file_name("big.jpg")
    os.utime(kept, (1, 1))
    (tmp_path / "images" / file_name("small.jpg")).unlink()
    write_images(images, tmp_path, imgsz=320)
    assert kept.stat().st_mtime == 1
    assert (tmp_path / "images" / file_name("small.jpg")).exists()


def test_labels_by_hand(images: pd.DataFrame, boxes: pd.DataFrame, tmp_path: Path) -> None:
    write_labels(images, boxes, ["pig", "cow"], tmp_path)
    read = {path.name: path.read_text() for path in (tmp_path / "labels").iterdir()}
    assert read == {
        label_name("big.jpg"): "1 0.300000 0.300000 0.400000 0.400000\n0 0.500000 0.500000 1.000000 1.000000\n",
        label_name("drawing.png"): "0 0.300000 0.150000 0.200000 0.100000\n",
        label_name("small.jpg"): "",
    }


def test_the_class_order_is_the_configs(images: pd.DataFrame, boxes: pd.DataFrame, tmp_path: Path) -> None:
    write_labels(images, boxes, ["cow", "pig"], tmp_path)
    assert (tmp_path / "labels" / label_name("big.jpg")).read_text().startswith("0 0.3")
    with pytest.raises(ValueError, match="found 'pig'"):
        write_labels(images, boxes, ["cow"], tmp_path)


def test_no_boxes_at_all(images: pd.DataFrame, boxes: pd.DataFrame, tmp_path: Path) -> None:
    write_labels(images, boxes.iloc[:0], ["pig"], tmp_path)
    assert {path.read_text() for path in (tmp_path / "labels").iterdir()} == {""}


def test_a_label_cache_is_removed(images: pd.DataFrame, boxes: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "fold0_train.cache").touch()
    write_labels(images, boxes, ["pig", "cow"], tmp_path)
    assert not (tmp_path / "fold0_train.cache").exists()


def test_lists_and_data_yaml(tmp_path: Path) -> None:
    data_yaml = write_lists(tmp_path, "fold0", np.array(["b.jpg", "a.png"]), np.array(["c.jpg"]), ["pig", "cow"])
    expected = "".join(f"./images/{file_name(name)}\n" for name in ("a.png", "b.jpg"))
    assert (tmp_path / "fold0_train.txt").read_text() == expected
    assert (tmp_path / "fold0_valid.txt").read_text() == f"./images/{file_name('c.jpg')}\n"
    content = yaml.safe_load(data_yaml.read_text())
    assert content["names"] == {0: "pig", 1: "cow"}
    assert (Path(content["path"]) / content["val"]).exists()


def test_other_data_or_size_goes_elsewhere(images: pd.DataFrame, tmp_path: Path) -> None:
    first = dataset_dir(images, 320, tmp_path)
    assert dataset_dir(images, 320, tmp_path) == first
    assert dataset_dir(images, 640, tmp_path) != first
    assert dataset_dir(images.iloc[1:], 320, tmp_path) != first
    os.utime(tmp_path / "images.zip", (1, 1))  # a copy is the same data
    assert dataset_dir(images, 320, tmp_path) == first
    with ZipFile(tmp_path / "other.zip", "w") as archive:  # the same names and sizes, other bytes
        for name in images["member"]:
            archive.writestr(name, b"other")
    assert dataset_dir(images.assign(archive=str(tmp_path / "other.zip")), 320, tmp_path) != first


def test_no_two_images_share_a_file_and_names_are_plain() -> None:
    names = ["a.jpg", "a.png", "a.JPG", "b/a.jpg", "b_a.jpg", "b/a\n.jpg", "소/1.jpg", "돼/1.jpg", "a\u2028b.jpg",
             "$x$.jpg", f"{'long' * 60}.jpg"]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(set(map(str.lower, files))) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,90}\.jpg", file) for file in files)


def test_unpainted_images_of_another_data_set_take_no_disk(images: pd.DataFrame, tmp_path: Path) -> None:
    write_images(images, tmp_path / "plain", imgsz=320)
    hidden = make_boxes([{"image_id": "big.jpg", "label": "cow", "x_min": 0, "y_min": 0, "x_max": 640, "y_max": 360}])
    write_images(images, tmp_path / "silver", imgsz=320, hidden=hidden, same=tmp_path / "plain")
    plain, silver = ({path.name: path for path in (tmp_path / name / "images").iterdir()} for name in
                     ("plain", "silver"))
    assert sorted(silver) == sorted(plain)
    assert silver[file_name("small.jpg")].samefile(plain[file_name("small.jpg")])
    hidden_big, whole_big = (cv2.imread(str(files[file_name("big.jpg")])) for files in (silver, plain))
    assert np.ptp(hidden_big) < 3 < np.ptp(whole_big)


def test_the_hash_of_lists_is_of_names_and_labels(images: pd.DataFrame, boxes: pd.DataFrame, tmp_path: Path) -> None:
    ids = images["image_id"]
    hashes = []
    for folder, table, trained in (("a", boxes, ids), ("b", boxes, ids), ("c", boxes[1:], ids), ("d", boxes, ids[1:])):
        write_labels(images, table, ["pig", "cow"], tmp_path / folder)
        hashes.append(hash_lists(write_lists(tmp_path / folder, "all", trained, ids[:1], ["pig", "cow"])))
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3  # wherever it lies
