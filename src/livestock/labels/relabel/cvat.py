"""CVAT's own format, "CVAT for images 1.1": one XML for all images.

Written and read as https://docs.cvat.ai/docs/other/xml_format describes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from zipfile import ZIP_STORED, ZipFile

from defusedxml.ElementTree import fromstring

from ...data.readers.values import short, to_number
from ...exceptions import BadData
from ...files.write import write_bytes, write_text
from ...tables import XYXY
from .entries import HUMAN, SUSPECT, Entry, Returned, ReturnedBox, Source, are_numbers, enclose, enclose_turned
from .sheets import Sheet

ORIGIN = "origin"  # the attribute that says who drew a box
COLOURS = ["#33ddff", "#fa3253", "#34d1b7", "#ff6a4d", "#fafa37", "#2a7dd1", "#ff00cc", "#83e070"]
HOW_TO = [
    "CVAT, next steps:",
    "1. Create a task: labels (Raw) from {out}/labels.json, files {out}/images.zip.",
    '2. Open the task, "Upload annotations", format "CVAT 1.1", file {out}/annotations.xml.',
    '3. Boxes with origin "suspect" are guesses. Set origin to "human" if one is right (moving it does the same), or',
    "   delete it. One that is left as it is does not become a label.",
    '4. "Export task dataset", format "CVAT for images 1.1", then: livestock relabel import THE_ZIP',
]
OTHER_SHAPES = {"polyline", "points", "cuboid", "skeleton"}
ROUND = {"mask": ("left", "top", "width", "height"), "ellipse": ("cx", "cy", "rx", "ry")}


def write_sheets(sheets: Sequence[Sheet], labels: list[str], directory: Path, _out: Path) -> None:
    """Writes `images.zip`, `annotations.xml` and `labels.json`, the labels for a task's constructor."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    _write_meta(root, len(sheets), labels)
    for number, sheet in enumerate(sheets):
        image = ElementTree.SubElement(root, "image", id=str(number), name=sheet.name, width=str(sheet.width),
                                       height=str(sheet.height))
        for boxes, origin in ((sheet.human, HUMAN), (sheet.suspects, SUSPECT)):
            for row in boxes.itertuples():
                _write_box(image, row, origin)
    ElementTree.indent(root)
    content = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    write_bytes(content + b"\n", directory / "annotations.xml")
    specification = [{"name": label, "color": COLOURS[number % len(COLOURS)], "type": "rectangle",
                      "attributes": _attributes()} for number, label in enumerate(labels)]
    write_text(json.dumps(specification, indent=1, ensure_ascii=False) + "\n", directory / "labels.json")
    with ZipFile(directory / "images.zip", "w", ZIP_STORED) as archive:
        for sheet in sheets:
            archive.write(directory / "images" / sheet.name, sheet.name)


def _attributes() -> list[dict[str, Any]]:
    return [{"name": ORIGIN, "mutable": False, "input_type": "select", "default_value": HUMAN,
             "values": [HUMAN, SUSPECT]},
            {"name": "confidence", "mutable": False, "input_type": "text", "default_value": "", "values": [""]}]


def _write_meta(root: ElementTree.Element, n_images: int, labels: list[str]) -> None:
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    for name, text in (("name", "suspects"), ("size", str(n_images)), ("mode", "annotation")):
        ElementTree.SubElement(task, name).text = text
    parent = ElementTree.SubElement(task, "labels")
    for label in labels:
        element = ElementTree.SubElement(parent, "label")
        ElementTree.SubElement(element, "name").text = label
        attributes = ElementTree.SubElement(element, "attributes")
        for attribute in _attributes():
            own = ElementTree.SubElement(attributes, "attribute")
            for name in ("name", "mutable", "input_type", "default_value"):
                ElementTree.SubElement(own, name).text = str(attribute[name])
            ElementTree.SubElement(own, "values").text = "\n".join(attribute["values"])


def _write_box(image: ElementTree.Element, row: Any, origin: str) -> None:
    corners = [f"{getattr(row, name):.2f}" for name in XYXY]
    box = ElementTree.SubElement(image, "box", {
        "label": row.label, "source": "manual" if origin == HUMAN else "auto", "occluded": "0",
        **dict(zip(("xtl", "ytl", "xbr", "ybr"), corners, strict=True)), "z_order": "0"})
    values = {ORIGIN: origin, "confidence": "" if origin == HUMAN else f"{row.confidence:.3f}"}
    for name, value in values.items():
        ElementTree.SubElement(box, "attribute", name=name).text = value


def read_returned(source: Source) -> Returned:
    """Every XML of an export of a task or a project. Raises BadData naming a file that is no such XML."""
    returned = Returned()
    for member in source.with_suffix(".xml"):
        where = source.where(member)
        try:
            root = fromstring(source.read(member), forbid_dtd=True)  # entities can expand to gigabytes
        except (ElementTree.ParseError, LookupError, ValueError) as error:
            raise BadData(f"{where}: expected XML as CVAT writes it, found: {error}") from error
        if root.tag != "annotations":
            raise BadData(f"{where}: expected <annotations>, as in the format \"CVAT for images 1.1\", found "
                          f"<{root.tag}>")
        if root.find("track") is not None:
            raise BadData(f"{where}: expected images, found tracks of a video, which have no image names; export "
                          "the task as \"CVAT for images 1.1\"")
        for image in root.findall("image"):
            returned.entries.append(_read_image(image, where, returned))
    return returned


def _read_image(image: ElementTree.Element, where: str, returned: Returned) -> Entry:
    name = image.get("name") or ""
    where = f"{where}: image {name!r}"
    size = tuple(to_number(image.get(side)) for side in ("width", "height"))
    boxes = []
    for number, shape in enumerate(image, 1):
        place = f"{where}, shape {number} ({shape.tag})"
        if (corners := _read_shape(shape, place, returned)) is not None:
            boxes.append(ReturnedBox(place, shape.get("label") or "", corners, _origin(shape)))
    return Entry(where, name, boxes, (size[0], size[1]) if are_numbers(*size) else None)


def _origin(shape: ElementTree.Element) -> str:
    values = {element.get("name"): (element.text or "").strip() for element in shape.findall("attribute")}
    return values[ORIGIN] if values.get(ORIGIN) in (HUMAN, SUSPECT) else ""


def _read_shape(shape: ElementTree.Element, place: str, returned: Returned) -> tuple[float, float, float, float] | None:
    """The corners of a box or around a polygon, a mask or an ellipse, None for others; what cannot be read is a fault.
    """
    if shape.tag == "polygon":
        points = [tuple(map(to_number, pair.split(","))) for pair in (shape.get("points") or "").split(";")]
        if not all(len(point) == 2 and are_numbers(*point) for point in points):
            returned.faults.append(f"{place}: expected points x,y;x,y, found {short(shape.get('points'))}")
            return None
        returned.notes.append(f"{place}: its bounding box is used")
        return enclose([(point[0], point[1]) for point in points])
    if shape.tag in ROUND:
        return _read_round(shape, place, returned)
    if shape.tag != "box":
        if shape.tag in OTHER_SHAPES:
            returned.notes.append(f"{place}: not a box: left out")
        return None
    values = tuple(to_number(shape.get(name)) for name in ("xtl", "ytl", "xbr", "ybr"))
    turn = to_number(shape.get("rotation", "0"))
    if not are_numbers(*values, turn):
        returned.faults.append(f"{place}: expected numbers xtl, ytl, xbr, ybr, found {short(dict(shape.attrib))}")
        return None
    corners = (values[0], values[1], values[2], values[3])
    if not turn:
        return corners
    returned.notes.append(f"{place}: turned by {turn:g} degrees: its bounding box is used")
    return enclose_turned(corners, turn, ((corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2))


def _read_round(shape: ElementTree.Element, place: str, returned: Returned) -> tuple[float, float, float, float] | None:
    """The corners around a mask, whose extent the file gives, or around an ellipse, turned by `rotation`."""
    names = ROUND[shape.tag]
    values = tuple(to_number(shape.get(name)) for name in names)
    turn = to_number(shape.get("rotation", "0"))
    if not are_numbers(*values, turn):
        returned.faults.append(f"{place}: expected numbers {', '.join(names)}, found "
                               f"{short({name: shape.get(name) for name in names})}")
        return None
    returned.notes.append(f"{place}: its bounding box is used")
    x, y, width, height = values
    if shape.tag == "mask":
        return x, y, x + width, y + height
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    half_width, half_height = math.hypot(width * cos, height * sin), math.hypot(width * sin, height * cos)
    return x - half_width, y - half_height, x + half_width, y + half_height
