"""CVAT for images 1.1: an XML with an `<image>` for each picture, and boxes and polygons in it."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring

from ..config import Competition
from . import clean
from .entries import Finder, picture_path
from .masks import polygon_box
from .tree import File
from .values import short, to_number

OTHER_SHAPES = ["mask", "ellipse", "polyline", "points", "cuboid", "skeleton"]
NOT_READ = "object of a shape that is not read: left out"


def find_labels(source: clean.Source, competition: Competition) -> clean.Labels:
    """Every XML of CVAT's; an `<image>` belongs to the picture of its `name`, else to the only one of its file name.

    Corners are in pixels, a polygon counts as the box around it, and a box that is turned by `rotation` as the box
    before its turn, as CVAT itself exports it. Raises ValueError naming all where an entry could be of several.
    """
    known: set[str] = set()
    boxes: list[clean.RawBox] = []
    finder, rows = Finder(source.images["image_id"]), {row.image_id: row for row in source.images.itertuples()}
    for file in source.with_suffix(".xml"):
        images = _read_images(file, source.report)
        found = finder.find_all([name for image in images if (name := picture_path(image.get("name")))], file)
        for image in images:
            image_id = found.get(picture_path(image.get("name")) or "")
            if image_id in source.test:
                source.n_test_labels += 1
            elif image_id is None or image_id in known:
                source.report.add(clean.NO_IMAGE if image_id is None else clean.DUPLICATE_LABEL, file.place,
                                  image_id or "", f"image {short(image.get('name'))}")
            elif (own := _read_boxes(file, image, rows[image_id], source.report)) is not None:
                known.add(image_id)
                boxes += own
    return clean.Labels(known, boxes)


def _read_images(file: File, report: clean.Report) -> list[Element]:
    try:
        root = fromstring(file.read(), forbid_dtd=True)  # entities can expand to gigabytes
        if root.tag != "annotations":
            raise ValueError(f"expected <annotations>, found <{root.tag}>")
        if root.find("track") is not None:
            raise ValueError("expected images, found tracks of a video: export it as CVAT for images")
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
        if shape.tag in ("box", "polygon"):
            corners = _corners(shape)
            n_outlines += shape.tag == "polygon"
            boxes.append(clean.RawBox(file.place, row.image_id, shape.get("label") or "", change(corners)))
        elif shape.tag in OTHER_SHAPES:
            report.add(NOT_READ, file.place, row.image_id, f"{shape.tag} {short(shape.get('label'))}")
    if n_outlines:
        report.add(clean.OUTLINE, file.place, row.image_id, f"{n_outlines} of {len(boxes)} objects")
    return boxes


def _corners(shape: Element) -> tuple[Any, ...]:
    if shape.tag == "box":
        return tuple(to_number(shape.get(name)) for name in ("xtl", "ytl", "xbr", "ybr"))
    points = (shape.get("points") or "").replace(";", ",").split(",")
    return polygon_box([to_number(value) for value in points]) or (shape.get("points"),)
