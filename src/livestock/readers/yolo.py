"""YOLO: a text file a picture, a line a box: `class_id cx cy w h`, relative to the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..boxes import cxcywhn_to_xyxy
from ..config import Competition
from . import clean
from .values import is_number, short, to_number

NOT_LABELS = {"classes.txt", "readme.txt", "train.txt", "val.txt", "valid.txt", "test.txt"}


def read_yolo(path: Path, competition: Competition, *, labelled: bool = True) -> clean.Reading:
    """Reads every picture below `path` and the text file of its stem.

    Class names come from a `data.yaml` below `path`, else from `classes.txt`, else the class ids are the competition's.
    A line with other than five numbers (a polygon, say) is noted. See `readers.read` for what else is reported.
    """
    report = clean.Report()
    images = clean.measure_images(clean.find_pictures(path, report), report)
    if not labelled:
        return clean.Reading(images, clean.clean_boxes([], images, competition, report), report.table())
    names = _class_names(path, competition)
    boxes: list[clean.RawBox] = []
    known = set()
    files = [file for file in path.rglob("*.txt") if file.name.lower() not in NOT_LABELS]
    for file, row in clean.match_labels(files, images, report):
        known.add(row.image_id)
        boxes += _read_lines(file, row, names)
    images = clean.drop_unlabelled(images, known, report)
    clean.report_empty(images, {box.image_id for box in boxes}, report)
    return clean.Reading(images, clean.clean_boxes(boxes, images, competition, report), report.table())


def _read_lines(file: Path, row: Any, names: dict[str, str]) -> list[clean.RawBox]:
    boxes = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        values: tuple[Any, ...] = tuple(to_number(part) for part in parts[1:])
        if len(values) == 4 and all(is_number(value) for value in values):
            centre = np.array([values], dtype=float)
            with np.errstate(over="ignore", invalid="ignore"):  # what grows beyond all numbers is noted later
                values = tuple(cxcywhn_to_xyxy(centre, row.width, row.height)[0].round(6).tolist())
        boxes.append(clean.RawBox(f"{file}:{number}", row.image_id, names.get(parts[0], parts[0]), values))
    return boxes


def _class_names(path: Path, competition: Competition) -> dict[str, str]:
    """Class id as it stands in the files to the source's class name.

    Raises ValueError naming the file for names that cannot be read, or that another file there has otherwise.
    """
    found = {file: _read_yaml(file) for file in sorted([*path.rglob("data.yaml"), *path.rglob("data.yml")])}
    found = found or {file: _read_classes(file) for file in sorted(path.rglob("classes.txt"))}
    for file, names in found.items():
        if names != (first := next(iter(found.values()))):
            raise ValueError(f"{file}: expected the classes of {next(iter(found))}, {first}, found {names}")
    return next(iter(found.values()), {str(class_id): label for class_id, label in enumerate(competition.labels)})


def _read_yaml(file: Path) -> dict[str, str]:
    try:
        names = (yaml.safe_load(file.read_bytes()) or {})["names"]
        pairs = dict(names if isinstance(names, dict) else enumerate(names)).items()
        if isinstance(names, str) or not all(isinstance(name, str | int) for pair in pairs for name in pair):
            raise ValueError(f"found {short(names)}")
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{file}: expected `names`, a list or a mapping of class names: {error!s:.300}") from error
    return {str(class_id): str(name) for class_id, name in pairs}


def _read_classes(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected class names in UTF-8: {error}") from error
    return {str(class_id): name for class_id, name in enumerate(lines)}
