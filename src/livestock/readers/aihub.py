"""AI Hub's livestock behaviour images: zips of pictures and zips of one JSON a picture, as downloaded."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from ..archives import IMAGE_SUFFIXES, find_zips, list_members, read_bytes, split_name
from ..config import Competition
from . import clean
from .values import identifier, read_json, short


def read_aihub(path: Path, competition: Competition, *, labelled: bool = True) -> clean.Reading:
    """Reads every archive below `path` in place; zips, or folders of the same files already unpacked.

    A JSON belongs to the picture of the same stem. Its `bbox` is xyxy in pixels; its categories are behaviours, so
    the class is found by `competition.class_pattern` in the file name. See `readers.read` for what is reported.
    """
    report, pictures = clean.Report(), []
    labels: dict[str, tuple[str, str]] = {}
    for archive in find_archives(path):
        folder = str(archive)
        for member in list_members(archive):
            file_name, stem, suffix = split_name(member.name)
            if suffix in IMAGE_SUFFIXES:
                pictures.append(clean.RawImage(file_name, folder, member.raw))
            elif suffix == ".json" and labelled:
                if stem in labels:
                    report.add(clean.DUPLICATE_LABEL, f"{folder}/{member.raw}", stem)
                labels.setdefault(stem, (folder, member.raw))
            clean.note_unread(archive, member, report)
    images = clean.measure_images(pictures, report)
    if not labelled:
        return clean.Reading(images, clean.clean_boxes([], images, competition, report), report.table())
    readings = {}
    for row in images.itertuples():
        if (label := labels.pop(split_name(row.image_id)[1], None)) is None:
            report.add(clean.NO_LABEL, f"{row.archive}/{row.member}", row.image_id)
        elif (content := _read_label(*label, row.image_id, (row.width, row.height), report)) is not None:
            readings[row.image_id] = content
    for stem, (label_archive, raw_name) in labels.items():
        report.add(clean.NO_IMAGE, f"{label_archive}/{raw_name}", stem)
    images = images[images["image_id"].isin(list(readings))].reset_index(drop=True)
    boxes = clean.clean_boxes([box for found in readings.values() for box in found], images, competition, report)
    return clean.Reading(images, boxes, report.table())


def find_archives(path: Path) -> list[Path]:
    """All zips below a folder, then the folder itself, where files may lie open; `path` may be one zip."""
    return [*find_zips(path), path]


def _read_label(
    archive: str, member: str, image_id: str, size: tuple[int, int], report: clean.Report
) -> list[clean.RawBox] | None:
    """The boxes of one JSON, or None if it cannot be read as one."""
    file = f"{archive}/{member}"
    try:
        info = read_json(read_bytes(archive, member))["label_info"]
        stated = (info["image"]["width"], info["image"]["height"])
        if not isinstance(info["annotations"], list):
            raise ValueError(f"expected a list of annotations, found {short(info['annotations'])}")
        names = _category_names(info) if info["annotations"] else {}
        boxes = [_raw_box(file, image_id, annotation, names) for annotation in info["annotations"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        report.add(clean.UNREADABLE_LABEL, file, image_id, f"{type(error).__name__}: {error}")
        return None
    if stated != size:
        report.add(clean.OTHER_SIZE, file, image_id, f"label {short(stated)}, image {size}")
    if not boxes:
        report.add(clean.EMPTY, file, image_id)
    return boxes


def _category_names(info: dict[str, Any]) -> dict[Any, str]:
    return {identifier(category["id"]): _spell(category["name"]) for category in info.get("categories", [])}


def _raw_box(file: str, image_id: str, annotation: dict[str, Any], names: dict[Any, str]) -> clean.RawBox:
    category_id = annotation.get("category_id")
    name = names.get(identifier(category_id))
    return clean.RawBox(file, image_id, _spell(category_id) if name is None else name, tuple(annotation["bbox"]))


def _spell(value: Any) -> str:
    return _spell_text(value) if isinstance(value, str) else short(value).strip("'")


@functools.lru_cache(maxsize=1024)
def _spell_text(text: str) -> str:
    return short(text).strip("'")
