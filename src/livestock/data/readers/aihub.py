"""AI Hub's livestock behaviour images: zips of pictures and zips of one JSON a picture, as downloaded."""

from __future__ import annotations

import functools
from typing import Any

from ...config import Competition
from ...exceptions import BadData
from . import clean
from .tree import File
from .values import identifier, number, read_json, short


def find_labels(source: clean.Source, competition: Competition) -> clean.Labels:
    """One JSON an image, whose path differs from the image's in AI Hub's words for the two sides at most.

    Its `bbox` is xyxy in pixels; its categories are behaviours, so the class is found by `competition.class_pattern` in
    the file name.
    """
    known: set[str] = set()
    boxes: list[clean.RawBox] = []
    for file, row in clean.match_labels(source, source.with_suffix(".json")):
        if (found := _read_label(file, row, source.report)) is not None:
            known.add(row.image_id)
            boxes += found
    return clean.Labels(known, boxes)


def _read_label(file: File, row: Any, report: clean.Report) -> list[clean.RawBox] | None:
    """The boxes of one JSON, or None if it cannot be read as one or is of another size."""
    try:
        info = read_json(file.read())["label_info"]
        stated = (info["image"]["width"], info["image"]["height"])
        if not isinstance(info["annotations"], list):
            raise BadData(f"expected a list of annotations, found {short(info['annotations'])}")
        names = _category_names(info) if info["annotations"] else {}
        boxes = [_raw_box(file.place, row.image_id, annotation, names) for annotation in info["annotations"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        report.add(clean.UNREADABLE_LABEL, file.place, row.image_id, f"{type(error).__name__}: {error}")
        return None
    if stated == (row.width, row.height):
        return boxes
    change = clean.fit_to_image(stated, row, file.place, report)
    return None if change is None else [box._replace(corners=change(box.corners)) for box in boxes]


def _category_names(info: dict[str, Any]) -> dict[Any, str]:
    return {identifier(category["id"]): _spell(category["name"]) for category in info.get("categories", [])}


def _raw_box(file: str, image_id: str, annotation: dict[str, Any], names: dict[Any, str]) -> clean.RawBox:
    category_id = annotation.get("category_id")
    name = names.get(identifier(category_id))
    return clean.RawBox(file, image_id, _spell(category_id) if name is None else name,
                        tuple(map(number, annotation["bbox"])))


def _spell(value: Any) -> str:
    return _spell_text(value) if isinstance(value, str) else short(value).strip("'")


@functools.lru_cache(maxsize=1024)
def _spell_text(text: str) -> str:
    return short(text).strip("'")
