"""YOLO's text files, as this project, CVAT ("YOLO 1.1", "Ultralytics YOLO Detection 1.0") and Label Studio write them.

See https://docs.cvat.ai/docs/dataset_management/formats/format-yolo for CVAT's layouts.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ...data.archives import IMAGE_SUFFIXES
from ...data.readers.values import read_json, short, to_number
from ...exceptions import BadData
from ...files.write import write_text
from ...geometry import cxcywhn_to_xyxy, xyxy_to_cxcywhn
from ...tables import XYXY
from .entries import Entry, Returned, ReturnedBox, Source, are_numbers, enclose
from .sheets import Sheet

NOT_LABELS = {"classes.txt", "obj.names", "readme.txt", "readme.dataset.txt", "readme.roboflow.txt", "train.txt",
              "val.txt", "valid.txt", "validation.txt", "test.txt"}
MAX_NAMES_BYTES = 1 << 20  # of a file with the names of the classes
HOW_TO = [
    "YOLO, next steps:",
    "1. Open {out}/images in a tool that reads labels/ and classes.txt (classes: {labels}).",
    "2. This format cannot tell suspects from human boxes: {out}/suspects.csv lists them, by file and line.",
    "   Delete those that are wrong, mend the others. An image without boxes keeps an empty text file.",
    "3. livestock relabel import {out} --accept-suspects",
    "   Without --accept-suspects, suspects that are as they were do not become labels.",
]


def write_sheets(sheets: Sequence[Sheet], labels: list[str], directory: Path, _out: Path) -> None:
    """Writes `labels/`, the class names in every form that tools look for, and `suspects.csv`.

    A line of `suspects.csv` names the text file, the line in it, the class and the confidence.
    """
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["file", "line", "label", "confidence"])
    for sheet in sheets:
        boxes = pd.concat([table for table in (sheet.human, sheet.suspects) if len(table)])
        numbers = xyxy_to_cxcywhn(boxes[XYXY].to_numpy(), sheet.width, sheet.height)
        lines = [f"{labels.index(label)} " + " ".join(f"{value:.8f}" for value in values)
                 for label, values in zip(boxes["label"], numbers, strict=True)]
        write_text("".join(f"{line}\n" for line in lines), directory / "labels" / f"{sheet.stem}.txt")
        for number, row in enumerate(sheet.suspects.itertuples(), len(sheet.human) + 1):
            writer.writerow([f"labels/{sheet.stem}.txt", number, row.label, f"{row.confidence:.3f}"])
    write_text(rows.getvalue(), directory / "suspects.csv")
    names = "".join(f"{label}\n" for label in labels)
    for path in ("classes.txt", "obj.names", "labels/classes.txt"):  # labelImg looks for the last
        write_text(names, directory / path)
    content = {"path": ".", "train": "images", "val": "images", "nc": len(labels), "names": dict(enumerate(labels))}
    write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), directory / "data.yaml")


def read_returned(source: Source) -> Returned:
    """Every text file of labels. Raises BadData if the classes' names are not there, or differ from file to file.

    Label Studio writes an empty text file for a task without annotation too: with its `notes.json` there, an empty
    file says nothing, and its image counts as not reviewed.
    """
    returned, names = Returned(), _class_names(source)
    is_label_studio = bool(source.named("notes.json"))
    texts = {member: source.text(member) for member in source.with_suffix(".txt")
             if member.path.name.lower() not in NOT_LABELS}
    files = {member: text for member, text in texts.items() if not _is_list(text)}
    for member, text in files.items():
        boxes = _read_lines(source.where(member), text, names, returned)
        if not boxes and is_label_studio:
            returned.unreviewed.append(member.path.stem)
            returned.notes.append(f"{source.where(member)}: empty, which Label Studio writes for tasks without "
                                  "annotation too: left as it was; export as JSON if its boxes were removed")
        else:
            returned.entries.append(Entry(source.where(member), member.path.stem, boxes, is_relative=True))
    with_labels = {member.path.stem for member in files}
    pictures = {member.path.stem for member in source.members if member.path.suffix.lower() in IMAGE_SUFFIXES}
    returned.unreviewed += sorted(pictures - with_labels)
    return returned


def _is_list(text: str) -> bool:
    """Whether a text file lists images, as `train.txt` does under whatever name."""
    lines = text.split("\n") if text.strip() else []
    return bool(lines) and all(PurePosixPath(line.strip()).suffix.lower() in IMAGE_SUFFIXES for line in lines
                               if line.strip())


def _read_lines(file: str, text: str, names: dict[str, str], returned: Returned) -> list[ReturnedBox]:
    boxes = []
    for number, line in enumerate(text.splitlines(), 1):
        parts, where = line.split(), f"{file}: line {number}"
        values = [to_number(part) for part in parts[1:]]
        if not parts:
            continue
        if not are_numbers(*values) or not (len(values) == 4 or len(values) >= 6 and len(values) % 2 == 0):
            returned.faults.append(f"{where}: expected `class cx cy w h`, found {short(line)}")
            continue
        if parts[0] not in names:
            returned.faults.append(f"{where}: class {parts[0]} has no name: expected one of {names}")
            continue
        if len(values) == 4:
            corners = cxcywhn_to_xyxy(np.array([values], float), 1, 1)[0].tolist()
        else:
            corners = list(enclose(list(zip(values[::2], values[1::2], strict=True))))
            returned.notes.append(f"{where}: a polygon: its bounding box is used")
        boxes.append(ReturnedBox(where, names[parts[0]], (corners[0], corners[1], corners[2], corners[3])))
    return boxes


def _class_names(source: Source) -> dict[str, str]:
    """Class number to name. Raises BadData where no file says it, or two differ."""
    readers = {"data.yaml": _names_of_yaml, "data.yml": _names_of_yaml, "obj.names": _names_of_lines,
               "classes.txt": _names_of_lines, "notes.json": _names_of_notes}
    found: dict[str, dict[str, str]] = {}
    for member in source.named(*readers):
        where = source.where(member)
        try:
            names = readers[member.path.name.lower()](source.read(member, MAX_NAMES_BYTES))
        except (ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError, RecursionError) as error:
            raise BadData(f"{where}: expected the names of the classes, found {type(error).__name__}: "
                          f"{error!s:.200}") from error
        first = next(iter(found), where)
        if found.setdefault(where, names) != found[first]:
            raise BadData(f"{where}: expected the classes of {first}, {found[first]}, found {names}; the numbers of "
                          "the classes are not sure; keep the right file")
    if not found:
        raise BadData(f"{source.path}: expected {', '.join(readers)} with the names of the classes, found none; put "
                      "the one that the tool wrote beside the labels")
    return next(iter(found.values()))


def _names_of_yaml(content: bytes) -> dict[str, str]:
    names: Any = yaml.safe_load(content)["names"]
    pairs = dict(names if isinstance(names, dict) else enumerate(names)).items()
    if isinstance(names, str) or not all(isinstance(name, str | int) for pair in pairs for name in pair):
        raise BadData(short(names))
    return {str(number): str(name) for number, name in pairs}


def _names_of_lines(content: bytes) -> dict[str, str]:
    lines = [line.strip() for line in content.decode("utf-8-sig").rstrip().splitlines()]
    return {str(number): name for number, name in enumerate(lines)}


def _names_of_notes(content: bytes) -> dict[str, str]:
    return {str(category["id"]): str(category["name"]) for category in read_json(content)["categories"]}
