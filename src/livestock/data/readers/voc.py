"""Pascal VOC: one XML a picture, side by side or in the folders `JPEGImages` and `Annotations`."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring

from ...config import Competition
from ...exceptions import BadData
from . import clean
from .masks import polygon_box
from .tree import File
from .values import is_number, to_number


def find_labels(source: clean.Source, competition: Competition) -> clean.Labels:
    """One XML an image, found by its path; what it says of file and folder is not looked at, for it is often wrong.

    VOC counts pixels from 1 and includes the last one, so a box `1, 1, w, h` covers the picture: `xmin` and `ymin`
    lose 1 here. Tools that count from 0 write 0 there too, and then the box is clipped by one pixel and not reported.
    Polygons and turned boxes count as the box around them. Objects marked difficult are kept.
    """
    known: set[str] = set()
    boxes: list[clean.RawBox] = []
    for file, row in clean.match_labels(source, source.with_suffix(".xml")):
        if (found := _read_xml(file, row, source.report)) is not None:
            known.add(row.image_id)
            boxes += found
    return clean.Labels(known, boxes)


def _read_xml(file: File, row: Any, report: clean.Report) -> list[clean.RawBox] | None:
    try:
        root = fromstring(file.read(), forbid_dtd=True)  # entities can expand to gigabytes
        if root.tag != "annotation":
            raise BadData(f"expected <annotation>, found <{root.tag}>")
        objects = list(root.iter("object"))
    except (ParseError, LookupError, ValueError) as error:  # LookupError: an unknown encoding
        report.add(clean.UNREADABLE_LABEL, file.place, row.image_id, f"{type(error).__name__}: {error}")
        return None
    stated = (_number(root, "size/width"), _number(root, "size/height"))
    if (change := clean.fit_to_image(stated, row, file.place, report)) is None:
        return None
    boxes, n_outlines = [], 0
    for found in objects:
        outline = None if found.find("bndbox") is not None else _outline(found)
        n_outlines += outline is not None
        each = [outline] if outline else [_corners(box) for box in found.findall("bndbox") or [None]]
        boxes += [clean.RawBox(file.place, row.image_id, found.findtext("name") or "", change(corners))
                  for corners in each]
    if n_outlines:
        report.add(clean.OUTLINE, file.place, row.image_id, f"{n_outlines} of {len(objects)} objects")
    return boxes


def _corners(box: Element | None) -> tuple[Any, ...]:
    if box is None:
        return (None,)
    corners = tuple(_number(box, name) for name in ("xmin", "ymin", "xmax", "ymax"))
    return _from_one(corners) if all(is_number(value) for value in corners) else corners


def _from_one(corners: tuple[Any, ...]) -> tuple[Any, ...]:
    """Corners that count from 1 as corners from 0; 0 stays 0."""
    x_min, y_min, x_max, y_max = corners
    return max(x_min - 1, min(x_min, 0)), max(y_min - 1, min(y_min, 0)), x_max, y_max


def _outline(found: Element) -> tuple[Any, ...] | None:
    """The box around an object's polygon (`x1, y1, x2 ...` or points `pt`) or turned box (roLabelImg)."""
    if (turned := found.find("robndbox")) is not None:
        values = [_number(turned, name) for name in ("cx", "cy", "w", "h", "angle")]
        return _box_around(*values) if all(is_number(value) for value in values) else None
    polygon = found.find("polygon") if found.find("polygon") is not None else found.find("segmentation/polygon")
    if polygon is None:
        return None
    points = [_number(point, name) for point in polygon.iter("pt") for name in ("x", "y")]
    tags = sorted((int(tag[1:]), tag[0], to_number(child.text)) for child in polygon
                  if re.fullmatch(r"[xy]\d{1,6}", tag := str(child.tag)))
    box = polygon_box(points or [value for _, _, value in tags])
    return None if box is None else _from_one(box)


def _box_around(x: float, y: float, width: float, height: float, angle: float) -> tuple[float, ...]:
    """xyxy around a box `width` x `height` turned by `angle` radians about its centre."""
    across = (abs(width * math.cos(angle)) + abs(height * math.sin(angle))) / 2
    along = (abs(width * math.sin(angle)) + abs(height * math.cos(angle))) / 2
    return x - across, y - along, x + across, y + along


def _number(element: Element, where: str) -> Any:
    """The number in a tag, or what else is there, or None where the tag is not."""
    return to_number(element.findtext(where))
