"""Pascal VOC: one XML a picture, side by side or in the folders `JPEGImages` and `Annotations`."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path, PurePosixPath
from typing import Any

from ..config import Competition
from . import clean


def read_voc(path: Path, competition: Competition, *, labelled: bool = True) -> clean.Reading:
    """Reads every XML below `path`; it belongs to the picture of the same stem.

    VOC counts pixels from 1 and includes the last one, so a box `1, 1, w, h` covers the picture: `xmin` and `ymin`
    lose 1 here. Tools that count from 0 write 0 there too, and then the box is clipped by one pixel and not reported.
    Objects marked difficult are kept. See `readers.read` for what is reported.
    """
    report = clean.Report()
    images = clean.measure_images(clean.find_pictures(path), report)
    if not labelled:
        return clean.Reading(images, clean.clean_boxes([], images, competition, report), report.table())
    by_stem = {PurePosixPath(row.image_id).stem: row for row in images.itertuples()}
    boxes: list[clean.RawBox] = []
    known = set()
    for file in sorted(path.rglob("*.xml")):
        row = by_stem.get(file.stem)
        if row is None:
            report.add(clean.NO_IMAGE, str(file), file.stem)
        elif (found := _read_xml(file, row.image_id, (row.width, row.height), report)) is not None:
            known.add(row.image_id)
            boxes += found
    images = clean.drop_unlabelled(images, known, report)
    clean.report_empty(images, {box.image_id for box in boxes}, report)
    return clean.Reading(images, clean.clean_boxes(boxes, images, competition, report), report.table())


def _read_xml(file: Path, image_id: str, size: tuple[int, int], report: clean.Report) -> list[clean.RawBox] | None:
    content = file.read_bytes()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:  # entities can expand to gigabytes
        report.add(clean.UNREADABLE_LABEL, str(file), image_id, "it declares entities; refused")
        return None
    try:
        root = ElementTree.fromstring(content)  # noqa: S314 - no entities, see above
    except ElementTree.ParseError as error:
        report.add(clean.UNREADABLE_LABEL, str(file), image_id, str(error))
        return None
    stated = (_number(root, "size/width"), _number(root, "size/height"))
    if stated != size:
        report.add(clean.OTHER_SIZE, str(file), image_id, f"label {stated}, image {size}")
    return [
        clean.RawBox(str(file), image_id, found.findtext("name", ""), _corners(found)) for found in root.iter("object")
    ]


def _corners(found: ElementTree.Element) -> tuple[Any, ...]:
    x_min, y_min, x_max, y_max = (_number(found, f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax"))
    if None in (x_min, y_min, x_max, y_max):
        return x_min, y_min, x_max, y_max
    return max(x_min - 1, min(x_min, 0)), max(y_min - 1, min(y_min, 0)), x_max, y_max  # 0 stays 0


def _number(element: ElementTree.Element, where: str) -> Any:
    """The number in a tag, or None where there is none."""
    try:
        return float(element.findtext(where, ""))
    except ValueError:
        return None
