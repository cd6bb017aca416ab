"""COCO: a JSON with `images`, `annotations` and `categories`, and the pictures in folders or zips beside it."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from ..config import Competition
from . import clean


def read_coco(path: Path, competition: Competition, *, labelled: bool = True) -> clean.Reading:
    """Reads every JSON below `path` that has COCO's keys; pictures are matched by file name.

    `bbox` is `xywh` in pixels. Boxes with `iscrowd` surround groups and are left out. See `readers.read` for what is
    reported.
    """
    report = clean.Report()
    images = clean.measure_images(clean.find_pictures(path), report)
    if not labelled:
        return clean.Reading(images, clean.clean_boxes([], images, competition, report), report.table())
    boxes: list[clean.RawBox] = []
    known: set[str] = set()
    for file in sorted(path.rglob("*.json")):
        if (content := _read_json(file, report)) is not None:
            known |= _check_images(file, content, images, report)
            boxes += _raw_boxes(file, content, report)
    images = clean.drop_unlabelled(images, known, report)
    clean.report_empty(images, {box.image_id for box in boxes}, report)
    return clean.Reading(images, clean.clean_boxes(boxes, images, competition, report), report.table())


def _read_json(file: Path, report: clean.Report) -> dict[str, Any] | None:
    """A file's content if it is COCO's; other JSON files, results for instance, are noted."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        missing = [key for key in ("images", "annotations", "categories") if not isinstance(content[key], list)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        report.add(clean.UNREADABLE_LABEL, str(file), "", f"{type(error).__name__}: {error}")
        return None
    if missing:
        report.add(clean.UNREADABLE_LABEL, str(file), "", f"expected a list of {missing[0]}")
        return None
    return content


def _check_images(file: Path, content: dict[str, Any], images: Any, report: clean.Report) -> set[str]:
    """The file names that a JSON knows; sizes that are not the picture's are noted."""
    sizes = {row.image_id: (row.width, row.height) for row in images.itertuples()}
    names = set()
    for image in content["images"]:
        name = _file_name(image)
        if name is None:
            report.add(clean.UNREADABLE_LABEL, str(file), "", f"image without file_name: {image!r:.80}")
            continue
        names.add(name)
        stated = (image.get("width"), image.get("height"))
        if name not in sizes:
            report.add(clean.NO_IMAGE, str(file), name)
        elif None not in stated and stated != sizes[name]:
            report.add(clean.OTHER_SIZE, str(file), name, f"label {stated}, image {sizes[name]}")
    return names


def _raw_boxes(file: Path, content: dict[str, Any], report: clean.Report) -> list[clean.RawBox]:
    """Boxes as xyxy; an annotation without an image or a readable box is noted."""
    names = {c.get("id"): str(c.get("name")) for c in content["categories"] if isinstance(c, dict)}
    files = {image["id"]: _file_name(image) for image in content["images"] if isinstance(image, dict) and "id" in image}
    boxes = []
    for annotation in content["annotations"]:
        image_id = files.get(annotation.get("image_id")) if isinstance(annotation, dict) else None
        if image_id is None:
            report.add(clean.NO_IMAGE, str(file), "", f"annotation {annotation!r:.80}")
        elif annotation.get("iscrowd"):
            report.add(clean.CROWD, str(file), image_id, f"{annotation.get('bbox')}")
        else:
            category = annotation.get("category_id")
            source_name = names.get(category, str(category))
            boxes.append(clean.RawBox(str(file), image_id, source_name, _corners(annotation.get("bbox"))))
    return boxes


def _corners(bbox: Any) -> tuple[Any, ...]:
    """xyxy of an xywh, or what was found where it is no four numbers, for `clean_boxes` to note."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(clean.is_number(value) for value in bbox):
        return tuple(bbox) if isinstance(bbox, list) else (bbox,)
    x, y, width, height = bbox
    return x, y, x + width, y + height


def _file_name(image: Any) -> str | None:
    name = image.get("file_name") if isinstance(image, dict) else None
    return PurePosixPath(name).name if isinstance(name, str) else None
