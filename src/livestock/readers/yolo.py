"""YOLO: a text file an image, a line a box: `class_id cx cy w h`, relative to the image; and where names stand."""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml

from ..archives import split_name
from ..boxes import cxcywhn_to_xyxy
from ..config import Competition
from . import clean
from .masks import polygon_box
from .tree import File
from .values import is_number, read_json, short, to_number

NAME_FILES = ["data.yaml", "any other .yaml or .yml with `names`", "classes.txt", "obj.names and other .names files",
              "_darknet.labels", "notes.json of Label Studio"]
LISTS = {"train", "val", "valid", "test", "trainval", "train2017", "val2017", "autosplit_train", "autosplit_val",
         "autosplit_test", "requirements", "license", "licence"}


def find_labels(source: clean.Source, competition: Competition) -> clean.Labels:
    """One text file an image, found by its path: `images/` to `labels/` as YOLO has it, or beside the image.

    A line of a polygon, class and at least three points, counts as the box around it; where a `kpt_shape` says that
    lines are of keypoints, their box is used. Raises ValueError where classes are numbers and no file names them, or
    two files name them otherwise: the order of classes is not guessed.
    """
    names = find_names(source)
    known: set[str] = set()
    boxes: list[clean.RawBox] = []
    for file, row in clean.match_labels(source, label_files(source)):
        known.add(row.image_id)
        boxes += _read_lines(file, row, names, source.report)
    if names.by_id is None:
        _check_names(boxes, competition, source)
    return clean.Labels(known, boxes)


def label_files(source: clean.Source) -> list[File]:
    """The text files that may be labels: all but lists of images, class names and what is there to be read."""
    return [file for file in source.with_suffix(".txt") if not _is_other_text(split_name(file.path)[1].lower())]


def _is_other_text(stem: str) -> bool:
    return stem in LISTS or stem in ("classes", "predefined_classes") or stem.startswith("readme")


def _read_lines(file: File, row: Any, names: Names, report: clean.Report) -> list[clean.RawBox]:
    boxes, n_outlines = [], 0
    for line_number, line in enumerate(file.read().decode("utf-8-sig", "replace").splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        values: tuple[Any, ...] = tuple(to_number(part) for part in parts[1:])
        if names.n_keypoint_values and len(values) == 4 + names.n_keypoint_values:
            values = values[:4]
        size = row.width, row.height
        if len(values) > 5 and (outline := polygon_box(list(values))) is not None:
            n_outlines += 1
            values = tuple(round(value * size[index % 2], 6) for index, value in enumerate(outline))
        elif len(values) == 4 and all(is_number(value) for value in values):
            centre = np.array([values], dtype=float)
            with np.errstate(over="ignore", invalid="ignore"):  # what grows beyond all numbers is noted later
                values = tuple(cxcywhn_to_xyxy(centre, *size)[0].round(6).tolist())
        boxes.append(clean.RawBox(f"{file.place}:{line_number}", row.image_id, names.name_of(parts[0]), values))
    if n_outlines:
        report.add(clean.OUTLINE, file.place, row.image_id, f"{n_outlines} of {len(boxes)} lines")
    return boxes


class Names:
    """The source's names of classes by their number as text; `by_id` is None where no file has them."""

    def __init__(self, by_id: dict[str, str] | None, n_keypoint_values: int = 0) -> None:
        self.by_id, self.n_keypoint_values = by_id, n_keypoint_values

    def name_of(self, class_id: str) -> str:
        """The name of a class as a label's line has it: a number, which may be written as 0.0, or a name."""
        found = to_number(class_id)
        key = str(int(found)) if is_number(found) and found == int(found) else class_id
        return (self.by_id or {}).get(key, class_id)


def _check_names(boxes: list[clean.RawBox], competition: Competition, source: clean.Source) -> None:
    """Raises ValueError if a class is known by its number alone, and the competition's pattern does not name it."""
    for box in boxes:
        if is_number(to_number(box.source_name)) and not competition.is_named_by(box.image_id):
            raise ValueError(
                f"{box.file}: expected a name for class {box.source_name}, found no file of class names "
                f"below the folder; looked for {', '.join(NAME_FILES)}. Write the names to {source.root}/classes.txt, "
                "one a line in the order of their numbers")


def find_names(source: clean.Source) -> Names:
    """Class names from whatever file an exporter writes them to.

    Raises ValueError naming the file for names that cannot be read, or that another file there has otherwise. A list
    that another one begins with agrees with it: tools that write the names seen so far leave such lists behind.
    """
    found: dict[str, dict[str, str]] = {}
    n_keypoint_values = 0
    for file in source.files:
        name, stem, suffix = split_name(file.path)
        if suffix in (".yaml", ".yml"):
            content = _read_yaml(file, is_expected=stem.lower() == "data")
            if stem.lower() == "data" or isinstance(content, dict) and "names" in content:
                found[file.place] = _names_of_yaml(file, content)
                n_keypoint_values = max(n_keypoint_values, _n_values(content.get("kpt_shape")))
        elif name.lower() == "classes.txt" or suffix == ".names" or name.lower() == "_darknet.labels":
            found[file.place] = _names_of_lines(file)
        elif name.lower() == "notes.json" and (names := _names_of_notes(file)):
            found[file.place] = names
    if not found:
        return Names(None, n_keypoint_values)
    first = max(found, key=lambda place: len(found[place]))
    for place, names in found.items():
        if any(found[first].get(class_id) != name for class_id, name in names.items()):
            raise ValueError(f"{place}: expected the classes of {first}, {found[first]}, found {names}")
    return Names(found[first], n_keypoint_values)


def _read_yaml(file: File, *, is_expected: bool) -> Any:
    """A YAML's content; None for one that cannot be read, unless it is expected to hold the names."""
    try:
        return yaml.safe_load(file.read()) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if is_expected:
            raise ValueError(f"{file.place}: expected `names`, a list or a mapping of class names: {error!s:.300}"
                             ) from error
        return None


def _names_of_yaml(file: File, content: Any) -> dict[str, str]:
    try:
        names = content["names"]
        pairs = dict(names if isinstance(names, dict) else enumerate(names)).items()
        if isinstance(names, str) or not all(isinstance(name, str | int) for pair in pairs for name in pair):
            raise ValueError(f"found {short(names)}")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{file.place}: expected `names`, a list or a mapping of class names: {error!s:.300}"
                         ) from error
    return {str(class_id): str(name) for class_id, name in pairs}


def _n_values(shape: Any) -> int:
    """How many values the keypoints of a line have by Ultralytics' `kpt_shape`: points, and 2 or 3 values each."""
    is_shape = isinstance(shape, list) and len(shape) == 2 and all(type(value) is int and value > 0 for value in shape)
    return shape[0] * shape[1] if is_shape else 0


def _names_of_lines(file: File) -> dict[str, str]:
    try:
        lines = file.read().decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.place}: expected class names in UTF-8: {error}") from error
    return {str(class_id): name.strip() for class_id, name in enumerate(lines)}


def _names_of_notes(file: File) -> dict[str, str]:
    """The categories that Label Studio writes beside its export; nothing for another JSON of this name."""
    try:
        categories = read_json(file.read())["categories"]
        return {str(category["id"]): str(category["name"]) for category in categories}
    except (ValueError, LookupError, TypeError):
        return {}
