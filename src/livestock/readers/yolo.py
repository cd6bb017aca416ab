"""YOLO: a text file a picture, a line a box: `class_id cx cy w h`, relative to the image."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from ..boxes import cxcywhn_to_xyxy
from ..config import Competition
from . import clean

NOT_LABELS = {"classes.txt", "readme.txt", "train.txt", "val.txt", "valid.txt", "test.txt"}


def read_yolo(path: Path, competition: Competition, *, labelled: bool = True) -> clean.Reading:
    """Reads every picture below `path` and the text file of its stem.

    Class names come from a `data.yaml` below `path`, else from `classes.txt`, else the class ids are the competition's.
    A line with other than five numbers (a polygon, say) is noted. See `readers.read` for what else is reported.
    """
    report = clean.Report()
    images = clean.measure_images(clean.find_pictures(path), report)
    if not labelled:
        return clean.Reading(images, clean.clean_boxes([], images, competition, report), report.table())
    by_stem = {PurePosixPath(row.image_id).stem: row for row in images.itertuples()}
    names = _class_names(path, competition)
    boxes: list[clean.RawBox] = []
    known = set()
    for file in sorted(path.rglob("*.txt")):
        row = by_stem.get(file.stem)
        if row is not None:
            known.add(row.image_id)
            boxes += _read_lines(file, row, names, report)
        elif file.name.lower() not in NOT_LABELS:
            report.add(clean.NO_IMAGE, str(file), file.stem)
    images = clean.drop_unlabelled(images, known, report)
    clean.report_empty(images, {box.image_id for box in boxes}, report)
    return clean.Reading(images, clean.clean_boxes(boxes, images, competition, report), report.table())


def _read_lines(file: Path, row: Any, names: dict[str, str], report: clean.Report) -> list[clean.RawBox]:
    boxes = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        values: tuple[Any, ...] = tuple(_number(part) for part in parts[1:])
        if len(values) == 4 and None not in values:
            centre = np.array([values], dtype=float)
            values = tuple(cxcywhn_to_xyxy(centre, row.width, row.height)[0].round(6).tolist())
        boxes.append(clean.RawBox(f"{file}:{number}", row.image_id, names.get(parts[0], parts[0]), values))
    return boxes


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _class_names(path: Path, competition: Competition) -> dict[str, str]:
    """Class id as it stands in the files to the source's class name."""
    for file in sorted([*path.rglob("data.yaml"), *path.rglob("data.yml")]):
        names = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("names", [])
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {str(class_id): str(name) for class_id, name in pairs}
    for file in sorted(path.rglob("classes.txt")):
        return {str(class_id): name for class_id, name in enumerate(file.read_text(encoding="utf-8").splitlines())}
    return {str(class_id): label for class_id, label in enumerate(competition.labels)}
