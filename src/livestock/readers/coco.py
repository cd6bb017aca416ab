"""COCO: a JSON with `images`, `annotations` and `categories`, and the pictures in folders or zips beside it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from ..archives import normalise
from ..config import Competition
from . import clean
from .values import identifier, is_number, read_json, short


def read_coco(path: Path, competition: Competition, *, labelled: bool = True) -> clean.Reading:
    """Reads every JSON below `path` that has COCO's keys; pictures are matched by file name.

    `bbox` is `xywh` in pixels. Boxes with `iscrowd` surround groups and are left out. See `readers.read` for what is
    reported.
    """
    report = clean.Report()
    images = clean.measure_images(clean.find_pictures(path, report), report)
    if not labelled:
        return clean.Reading(images, clean.clean_boxes([], images, competition, report), report.table())
    sizes = {row.image_id: (row.width, row.height) for row in images.itertuples()}
    boxes: list[clean.RawBox] = []
    known: set[str] = set()
    for file in sorted(path.rglob("*.json")):
        if (content := _read_json(file, report)) is not None:
            boxes += _raw_boxes(file, content, _match_images(file, content, sizes, known, report), report)
    images = clean.drop_unlabelled(images, known, report)
    clean.report_empty(images, {box.image_id for box in boxes}, report)
    return clean.Reading(images, clean.clean_boxes(boxes, images, competition, report), report.table())


def _read_json(file: Path, report: clean.Report) -> dict[str, Any] | None:
    """A file's content if it is COCO's; other JSON files, results for instance, are noted."""
    try:
        content = read_json(file.read_bytes())
        for key in ("images", "annotations", "categories"):
            if not isinstance(content[key], list):
                raise ValueError(f"expected a list of {key}, found {short(content[key])}")
        _category_names(content)
    except (ValueError, KeyError, TypeError) as error:
        report.add(clean.UNREADABLE_LABEL, str(file), "", f"{type(error).__name__}: {error}")
        return None
    return content


def _category_names(content: dict[str, Any]) -> dict[Any, str]:
    """Category id to name. Raises ValueError for an id of two names."""
    names: dict[Any, str] = {}
    for category in content["categories"]:
        if isinstance(category, dict) and (key := identifier(category.get("id"))) is not None:
            name = str(category.get("name"))
            if names.setdefault(key, name) != name:
                raise ValueError(f"category id {key!r} of two names, {names[key]!r} and {name!r}")
    return names


def _match_images(
    file: Path, content: dict[str, Any], sizes: dict[str, tuple[int, int]], known: set[str], report: clean.Report
) -> dict[Any, tuple[str, str | None]]:
    """Image id to file name, and why its boxes are left out if they are; pictures with a label go into `known`.

    The first entry of a picture counts, over all files. Sizes that are not the picture's are noted.
    """
    entries = [(image, _image_id(image), _file_name(image)) for image in content["images"]]
    names_of: dict[Any, set[str | None]] = defaultdict(set)
    for _, key, name in entries:
        names_of[key].add(name)
    matched: dict[Any, tuple[str, str | None]] = {}
    for image, key, name in entries:
        if key is None or name is None:
            report.add(clean.UNREADABLE_LABEL, str(file), "", f"image without id or file_name: {short(image)}")
            continue
        reason = _why_not(name, len(names_of[key]), sizes, known)
        matched.setdefault(key, (name, reason))
        if reason:
            report.add(reason, str(file), name, f"image id {key!r}")
            continue
        known.add(name)
        stated = (image.get("width"), image.get("height"))
        if None not in stated and stated != sizes[name]:
            report.add(clean.OTHER_SIZE, str(file), name, f"label {short(stated)}, image {sizes[name]}")
    return matched


def _why_not(name: str, n_names: int, sizes: dict[str, tuple[int, int]], known: set[str]) -> str | None:
    if n_names > 1:
        return clean.SHARED_ID
    if name not in sizes:
        return clean.NO_IMAGE
    return clean.DUPLICATE_LABEL if name in known else None


def _raw_boxes(
    file: Path, content: dict[str, Any], matched: dict[Any, tuple[str, str | None]], report: clean.Report
) -> list[clean.RawBox]:
    """Boxes as xyxy; an annotation without an image or a readable box is noted."""
    names = _category_names(content)
    boxes = []
    for found in content["annotations"]:
        annotation = found if isinstance(found, dict) else {}
        image_id, reason = matched.get(identifier(annotation.get("image_id")), ("", clean.NO_IMAGE))
        if reason is not None:
            report.add(reason, str(file), image_id, f"annotation {short(found)}")
        elif annotation.get("iscrowd"):
            report.add(clean.CROWD, str(file), image_id, short(annotation.get("bbox")))
        else:
            category = annotation.get("category_id")
            source_name = names.get(identifier(category), f"category_id {short(category)}")
            boxes.append(clean.RawBox(str(file), image_id, source_name, _corners(annotation.get("bbox"))))
    return boxes


def _corners(bbox: Any) -> tuple[Any, ...]:
    """xyxy of an xywh, or what was found where it is no four numbers, for `clean_boxes` to note."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(is_number(value) for value in bbox):
        return tuple(bbox) if isinstance(bbox, list) else (bbox,)
    x, y, width, height = bbox
    return x, y, x + width, y + height


def _image_id(image: Any) -> int | str | None:
    return identifier(image.get("id")) if isinstance(image, dict) else None


def _file_name(image: Any) -> str | None:
    """The picture's name without folders, as `list_members` spells it."""
    name = image.get("file_name") if isinstance(image, dict) else None
    return PurePosixPath(normalise(name).replace("\\", "/")).name if isinstance(name, str) else None
