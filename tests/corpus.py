"""What a bad input is, and short ways to write one down; the inputs are in `corpus_json`, `_text` and `_images`."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from PIL import Image

from livestock.data.readers import clean


@dataclass(frozen=True)
class Case:
    """Files below a folder, read by a reader, and what comes of them.

    Either `refused`, words of the ValueError, or the tables: `images` by name with width and height, `boxes` as
    `[image_id, label, x_min, y_min, x_max, y_max]`, and `left_out` as `(file, image_id, reason, words of the detail)`.
    """

    name: str
    reader: str
    files: dict[str, bytes]
    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    boxes: list[list[Any]] = field(default_factory=list)
    left_out: list[tuple[str, str, str, str]] = field(default_factory=list)
    refused: str = ""


def jpeg(width: int = 100, height: int = 60, orientation: int = 1) -> bytes:
    """A black picture, as it is stored; an orientation from 5 on shows it on its side."""
    content, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} if orientation > 1 else {}
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(content, "JPEG", **options)
    return content.getvalue()


JPEG = jpeg()
SIZE = {"a.jpg": (100, 60)}
COW = "livestock_cow_a"  # the class of AI Hub's pictures stands in their name
COW_SIZE = {f"{COW}.jpg": (100, 60)}
BOX_REASONS = {clean.NOT_A_NUMBER, clean.SWAPPED, clean.NO_AREA, clean.OUTSIDE, clean.CLIPPED, clean.UNKNOWN_CLASS}

BOX = [10, 12, 50, 24]
NAMES = {"classes.txt": b"pig\ncow\n"}  # without which a YOLO label says nothing
DEEP = 100_000
HUGE = "1" + "0" * 400  # a whole number that no float holds


def aihub_json(annotations: str = '[{"id": 0, "category_id": 1, "bbox": [10, 12, 50, 24]}]',
               image: str = '{"width": 100, "height": 60}') -> str:
    """A label as AI Hub writes it."""
    categories = '[{"id": 1, "name": "lying"}]'
    return f'{{"label_info": {{"image": {image}, "categories": {categories}, "annotations": {annotations}}}}}'


def coco_json(annotations: str = '[{"image_id": 7, "category_id": 1, "bbox": [10, 12, 40, 12]}]',
              images: str = '[{"id": 7, "file_name": "a.jpg", "width": 100, "height": 60}]',
              categories: str = '[{"id": 1, "name": "cow"}]') -> str:
    """A small COCO file."""
    return f'{{"images": {images}, "annotations": {annotations}, "categories": {categories}}}'


def voc_xml(boxes: str = "<bndbox><xmin>11</xmin><ymin>13</ymin><xmax>50</xmax><ymax>24</ymax></bndbox>",
            size: str = "<size><width>100</width><height>60</height></size>") -> str:
    """A VOC label of one object."""
    return f"<annotation>{size}<object><name>cow</name>{boxes}</object></annotation>"


CSV_HEADER = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf"
CSV_ROW = "a,cow,0.1,0.5,0.2,0.4,0"


def aihub(name: str, label: str | bytes, reason: str = "", words: str = "", boxes: list[Any] | None = None,
          kept: bool | None = None) -> Case:
    """One picture and its JSON; `kept` is whether the picture is, by default where the label can be read."""
    kept = reason != clean.UNREADABLE_LABEL if kept is None else kept
    return _one("aihub", name, f"{COW}.json", label, f"{COW}.jpg", reason, words, boxes, kept)


def coco(name: str, label: str | bytes, *left_out: tuple[str, str, str, str], kept: bool = True,
         boxes: list[Any] | None = None, size: tuple[int, int] = (100, 60), **files: bytes) -> Case:
    """One picture, its JSON, and other files."""
    images = {"a.jpg": size} if kept else {}
    content = {"a.jpg": JPEG, "l.json": _bytes(label)} | files
    return Case(f"coco: {name}", "coco", content, images, [["a.jpg", "cow", *box] for box in boxes or []], [*left_out])


def voc(name: str, label: str | bytes, reason: str = "", words: str = "", boxes: list[Any] | None = None) -> Case:
    """One picture and its XML."""
    kept = reason not in (clean.UNREADABLE_LABEL, clean.OTHER_SIZE)
    return _one("voc", name, "a.xml", label, "a.jpg", reason, words, boxes, kept)


def yolo(name: str, label: str | bytes, reason: str = "", words: str = "", boxes: list[Any] | None = None) -> Case:
    """One picture and its text file of one line."""
    case = _one("yolo", name, "a.txt", label, "a.jpg", reason, words, boxes, kept=True)
    box_lines = [(f"{file}:1", image_id, why, words) for file, image_id, why, words in case.left_out[:1]]
    case.left_out[:1] = box_lines
    return case


def open_images(name: str, table: str, reason: str = "", words: str = "", boxes: list[Any] | None = None,
                refused: str = "") -> Case:
    """One picture and its table of one row."""
    left_out = [("t-bbox.csv:2", "a.jpg", reason, words)] if reason else []
    if not boxes and not refused and reason not in BOX_REASONS:
        left_out.append(("a.jpg", "a.jpg", clean.EMPTY, ""))
    rows = [["a.jpg", "cow", *box] for box in boxes or []]
    images = {} if refused else SIZE
    files = {"a.jpg": JPEG, "t-bbox.csv": table.encode()}
    return Case(f"open_images: {name}", "open_images", files, images, rows, left_out, refused)


def _one(reader: str, name: str, file: str, label: str | bytes, image_id: str, reason: str, words: str,
         boxes: list[Any] | None, kept: bool) -> Case:
    left_out = [(file, image_id, reason, words)] if reason else []
    if kept and not boxes and reader in ("aihub", "voc", "yolo") and reason not in BOX_REASONS:
        left_out.append((image_id, image_id, clean.EMPTY, ""))
    rows = [[image_id, "cow", *box] for box in boxes or []]
    files = {image_id: JPEG, file: _bytes(label)} | (NAMES if reader == "yolo" else {})
    return Case(f"{reader}: {name}", reader, files, {image_id: (100, 60)} if kept else {}, rows, left_out)


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content




def without_unusable(case: Case) -> Case:
    """The case with images left out of which a label was lost and no box is kept: a rule that holds in all formats."""
    lost = {image_id for _, image_id, reason, _ in case.left_out if reason in clean.LOST}
    unusable = sorted((lost & case.images.keys()) - {row[0] for row in case.boxes})
    lines = [(name, name, clean.NOTHING_LEFT, "") for name in unusable]
    unknown = {image_id for _, image_id, reason, _ in case.left_out if reason == clean.UNKNOWN_CLASS}
    lines += [(name, name, clean.EMPTY, "") for name in sorted((unknown & case.images.keys()) - lost)
              if name not in {row[0] for row in case.boxes}]
    left_out = [line for line in case.left_out if not (line[1] in unusable and line[2] == clean.EMPTY)]
    return replace(case, images={name: size for name, size in case.images.items() if name not in unusable},
                   left_out=[*left_out, *lines])


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip of these files."""
    content = io.BytesIO()
    with ZipFile(content, "w", ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()
