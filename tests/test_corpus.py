"""Every bad input of the corpus comes to what is written down beside it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from corpus import NAMES, Case, without_unusable, zipped
from corpus_images import PICTURES, Picture
from corpus_json import AIHUB, COCO
from corpus_text import FILES, OPEN_IMAGES, VOC, YOLO
from fuzz import BASES, COMPETITIONS, READER_OF, fuzz, fuzz_pictures

from livestock.config import REPOSITORY, read_competition
from livestock.data import readers
from livestock.data.archives import read_image
from livestock.tables import XYXY

COMPETITION = read_competition(REPOSITORY / "competition.yaml")
CASES = [without_unusable(case) for case in [*AIHUB, *COCO, *VOC, *YOLO, *OPEN_IMAGES, *FILES]]


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """Writes files by their relative paths."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def assert_left_out(left_out: pd.DataFrame, expected: list[tuple[str, str, str, str]], folder: Path) -> None:
    """Each line is there, no other, and its detail has the words."""
    found = [(file.removeprefix(f"{folder}/"), *rest) for file, *rest in left_out.to_numpy().tolist()]
    assert sorted(line[:3] for line in found) == sorted(line[:3] for line in expected)
    for *line, words in expected:
        details = [detail for *other, detail in found if other == line]
        assert any(words in detail for detail in details), (line, words, details)


@pytest.mark.bad_input
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_labels(case: Case, tmp_path: Path) -> None:
    write_files(tmp_path, case.files)
    if case.refused:
        with pytest.raises(ValueError, match=case.refused):
            readers.read(case.reader, tmp_path, COMPETITION)
        return
    reading = readers.READERS[case.reader](tmp_path, COMPETITION)
    assert {row.image_id: (row.width, row.height) for row in reading.images.itertuples()} == case.images
    assert reading.boxes[["image_id", "label", *XYXY]].to_numpy().tolist() == case.boxes
    assert_left_out(reading.left_out, case.left_out, tmp_path)
    for table in (reading.images, reading.boxes, reading.left_out):
        table.to_parquet(io.BytesIO())


@pytest.mark.bad_input
@pytest.mark.parametrize("picture", PICTURES, ids=[picture.name for picture in PICTURES])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF data")
def test_bad_pictures(picture: Picture, packed: bool, tmp_path: Path) -> None:
    label = {f"{picture.file[:-4]}.txt": b"1 0.5 0.5 0.5 0.5"} | NAMES
    pictures = {picture.file: picture.content}
    write_files(tmp_path, label | ({"a.zip": zipped(pictures)} if packed else pictures))
    archive = tmp_path / "a.zip" if packed else tmp_path
    reading = readers.READERS["yolo"](tmp_path, COMPETITION)
    if picture.unreadable:
        lines = reading.left_out.set_index("reason")["detail"]
        assert sorted(lines.index) == sorted([readers.clean.UNREADABLE_IMAGE, readers.clean.NO_IMAGE])
        assert re.search(rf"{archive}: {picture.file}: .*({picture.unreadable})", lines[readers.clean.UNREADABLE_IMAGE])
        with pytest.raises(ValueError, match=rf"{archive}: {picture.file}: expected a picture that can be decoded"):
            read_image(str(archive), picture.file)
        return
    assert reading.left_out.empty
    width, height = picture.size
    assert reading.images[["width", "height"]].to_numpy().tolist() == [[width, height]]
    assert reading.boxes[XYXY].to_numpy().tolist() == [[width / 4, height / 4, width * 3 / 4, height * 3 / 4]]
    if picture.broken:
        with pytest.raises(ValueError, match=rf"{archive}: {picture.file}: expected a picture.*{picture.broken}"):
            read_image(str(archive), picture.file)
        return
    pixels = read_image(str(archive), picture.file)
    assert (pixels.shape, pixels.dtype) == ((height, width, 3), np.uint8)
    np.testing.assert_allclose(pixels[[0, -1], [0, -1]].astype(int), [picture.first, picture.last], atol=12)


@pytest.mark.parametrize("kind", sorted(BASES))
def test_damaged_files_are_read_or_refused_and_nothing_is_lost(kind: str) -> None:
    counts = fuzz(kind, 50, seed=6)  # `bench/faults.py fuzz` tries more
    assert counts["read"] + counts["refused"] == 50
    assert counts["read"] > 10
    assert counts["boxes"] > (20 if kind in COMPETITIONS else 40)  # formats of points have a box an image
    assert counts["labelled points"] > 20 or kind not in COMPETITIONS


def test_every_reader_is_among_those_whose_files_are_damaged() -> None:
    assert {READER_OF.get(kind, kind) for kind in BASES} == set(readers.READERS)


def test_damaged_pictures_are_read_as_measured_or_refused() -> None:
    counts = fuzz_pictures(1000, seed=6)
    assert counts.total() == 1000
    assert min(counts["refused"], counts["decoded"], counts["measured, not decoded"]) > 30
