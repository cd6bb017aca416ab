"""CVAT for images 1.1: an XML with an `<image>` for each picture, and boxes and polygons in it."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring

from ...config import Competition
from ...exceptions import BadData
from . import clean
from .entries import Finder, picture_path
from .masks import polygon_box
from .tree import File
from .values import is_number, short, to_number

BOXED = {"box": ("xtl", "ytl", "xbr", "ybr"), "mask": ("left", "top", "width", "height"),
         "ellipse": ("cx", "cy", "rx", "ry")}
OTHER_SHAPES = ["polyline", "points", "cuboid", "skeleton"]


def find_labels(source: clean.Source, competition: Competition) -> clean.Labels:
    """Every XML of CVAT's; an `<image>` belongs to the picture of its `name`, else to the only one of its file name.

    Corners are in pixels; polygons, masks and ellipses count as the box around them, and a box that is turned by
    `rotation` as the box before its turn, as CVAT itself exports it. Raises BadData as `entries.Finder`.
    """
    known: set[str] = set()
    boxes: list[clean.RawBox] = []
    rows = {row.image_id: row for row in source.images.itertuples()}
    lists = [(file, _read_images(file, source.report)) for file in source.with_suffix(".xml")]
    names = [(file, [name for image in images if (name := picture_path(image.get("name")))]) for file, images in lists]
    for (file, images), found in zip(lists, Finder(source).find_all(names), strict=True):
        for image in images:
            image_id = found.get(picture_path(image.get("name")) or "")
            if image_id in source.test:
                source.n_test_labels += 1
            elif image_id is None or image_id not in rows or image_id in known:
                source.report.add(clean.DUPLICATE_LABEL if image_id in known else clean.NO_IMAGE, file.place,
                                  image_id or "", f"image {short(image.get('name'))}")
            elif (own := _read_boxes(file, image, rows[image_id], source.report)) is not None:
                known.add(image_id)
                boxes += own
    return clean.Labels(known, boxes)


def _read_images(file: File, report: clean.Report) -> list[Element]:
    try:
        root = fromstring(file.read(), forbid_dtd=True)  # entities can expand to gigabytes
        if root.tag != "annotations":
            raise BadData(f"expected <annotations>, found <{root.tag}>")
        if root.find("track") is not None:
            raise BadData("expected images, found tracks of a video: export it as CVAT for images")
    except (ParseError, LookupError, ValueError) as error:  # LookupError: an unknown encoding
        report.add(clean.UNREADABLE_LABEL, file.place, "", f"{type(error).__name__}: {error}")
        return []
    return list(root.iter("image"))


def _read_boxes(file: File, image: Element, row: Any, report: clean.Report) -> list[clean.RawBox] | None:
    stated = to_number(image.get("width")), to_number(image.get("height"))
    if (change := clean.fit_to_image(stated, row, file.place, report)) is None:
        return None
    boxes, n_outlines = [], 0
    for shape in image:
        if shape.tag in (*BOXED, "polygon"):
            corners = _corners(shape)
            n_outlines += shape.tag != "box"
            boxes.append(clean.RawBox(file.place, row.image_id, shape.get("label") or "", change(corners)))
        elif shape.tag in OTHER_SHAPES:
            report.add(clean.OTHER_SHAPE, file.place, row.image_id, f"{shape.tag} {short(shape.get('label'))}")
    if n_outlines:
        report.add(clean.OUTLINE, file.place, row.image_id, f"{n_outlines} of {len(boxes)} objects")
    return boxes


def _corners(shape: Element) -> tuple[Any, ...]:
    if shape.tag in BOXED:
        values = tuple(to_number(shape.get(name)) for name in BOXED[shape.tag])
        if shape.tag == "box" or not all(is_number(value) for value in values):
            return values
        x, y, across, along = values
        return (x, y, x + across, y + along) if shape.tag == "mask" else (x - across, y - along, x + across, y + along)
    points = (shape.get("points") or "").replace(";", ",").split(",")
    return polygon_box([to_number(value) for value in points]) or (shape.get("points"),)
