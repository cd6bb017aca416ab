"""Pascal VOC: one XML a picture, side by side or in the folders `JPEGImages` and `Annotations`."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring

from ..config import Competition
from . import clean
from .values import is_number, to_number


def read_voc(path: Path, competition: Competition, *, labelled: bool = True) -> clean.Reading:
    """Reads every XML below `path`; it belongs to the picture of the same stem.

    VOC counts pixels from 1 and includes the last one, so a box `1, 1, w, h` covers the picture: `xmin` and `ymin`
    lose 1 here. Tools that count from 0 write 0 there too, and then the box is clipped by one pixel and not reported.
    Objects marked difficult are kept. See `readers.read` for what is reported.
    """
    report = clean.Report()
    images = clean.measure_images(clean.find_pictures(path, report), report)
    if not labelled:
        return clean.Reading(images, clean.clean_boxes([], images, competition, report), report.table())
    boxes: list[clean.RawBox] = []
    known = set()
    for file, row in clean.match_labels(path.rglob("*.xml"), images, report):
        if (found := _read_xml(file, row.image_id, (row.width, row.height), report)) is not None:
            known.add(row.image_id)
            boxes += found
    images = clean.drop_unlabelled(images, known, report)
    clean.report_empty(images, {box.image_id for box in boxes}, report)
    return clean.Reading(images, clean.clean_boxes(boxes, images, competition, report), report.table())


def _read_xml(file: Path, image_id: str, size: tuple[int, int], report: clean.Report) -> list[clean.RawBox] | None:
    try:
        root = fromstring(file.read_bytes(), forbid_dtd=True)  # entities can expand to gigabytes
        if root.tag != "annotation":
            raise ValueError(f"expected <annotation>, found <{root.tag}>")
        objects = list(root.iter("object"))
    except (ParseError, LookupError, ValueError) as error:  # LookupError: an unknown encoding
        report.add(clean.UNREADABLE_LABEL, str(file), image_id, f"{type(error).__name__}: {error}")
        return None
    stated = (_number(root, "size/width"), _number(root, "size/height"))
    if stated != size:
        report.add(clean.OTHER_SIZE, str(file), image_id, f"label {stated}, image {size}")
    return [
        clean.RawBox(str(file), image_id, found.findtext("name") or "", _corners(box))
        for found in objects
        for box in found.findall("bndbox") or [None]
    ]


def _corners(box: Element | None) -> tuple[Any, ...]:
    if box is None:
        return (None,)
    corners = x_min, y_min, x_max, y_max = tuple(_number(box, name) for name in ("xmin", "ymin", "xmax", "ymax"))
    if not all(is_number(value) for value in corners):
        return corners
    return max(x_min - 1, min(x_min, 0)), max(y_min - 1, min(y_min, 0)), x_max, y_max  # 0 stays 0


def _number(element: Element, where: str) -> Any:
    """The number in a tag, or what else is there, or None where the tag is not."""
    return to_number(element.findtext(where))
