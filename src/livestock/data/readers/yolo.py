"""YOLO: a text file an image, a line a box: `class_id cx cy w h`, relative to the image; and where names stand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import yaml

from ...config import Competition
from ...exceptions import BadData
from ...geometry import cxcywhn_to_xyxy
from ..archives import split_name
from . import clean
from .entries import picture_path
from .masks import polygon_box
from .tree import File
from .values import is_number, read_json, short, to_number
from .yolo_points import PointShape, check_line, check_shapes, find_points, n_points_asked, points_of, read_shape

NAME_FILES = ["data.yaml", "any other .yaml or .yml with `names`", "classes.txt", "obj.names and other .names files",
              "_darknet.labels", "notes.json of Label Studio"]
MOST_PART = 2  # of an image, for a value that is a part of it: boxes at the border reach a little beyond 1
LISTS = {"train", "val", "valid", "test", "trainval", "train2017", "val2017", "autosplit_train", "autosplit_val",
         "autosplit_test", "requirements", "license", "licence"}


def find_labels(source: clean.Source, competition: Competition) -> clean.Labels:
    """One text file an image, found by its path: `images/` to `labels/` as YOLO has it, or beside the image.

    A line of a polygon, class and at least three points, counts as the box around it; where a `kpt_shape` says that
    lines are of keypoints, box and points are used (see `yolo_points`). Raises BadData where classes are numbers and no
    file names them, or two files name them otherwise: the order of classes is not guessed. Where the competition has a
    skeleton it is raised too, by file and line, for a line of another number of values.
    """
    names = find_names(source)
    known: set[str] = set()
    boxes: list[clean.RawBox] = []
    if competition.skeleton is not None:
        check_shapes(names.shapes)
    for file, row in clean.match_labels(source, label_files(source)):
        known.add(row.image_id)
        boxes += _read_lines(file, row, names, competition, source.report)
    source.points |= find_points(names.shape, names.by_id or {box.source_name: box.source_name for box in boxes})
    if names.by_id is None:
        _check_names(boxes, competition, source)
    return clean.Labels(known, boxes)


def label_files(source: clean.Source) -> list[File]:
    """The text files that may be labels: all but lists of images, class names and what is there to be read."""
    stems = {split_name(image_id)[1] for image_id in [*source.images["image_id"], *source.unusable]}
    return [file for file in source.with_suffix(".txt") if not _is_other_text(file, stems)]


def _is_other_text(file: File, stems: set[str]) -> bool:
    """Lists of images, names and what is there to be read; but an image may be called like one of them."""
    stem = split_name(file.path)[1]
    is_named_so = stem.lower() in (*LISTS, "classes", "predefined_classes") or stem.lower().startswith("readme")
    return is_named_so and not (stem in stems and is_label(file))


def is_label(file: File) -> bool:
    """Whether the first line that holds something is a class and numbers; a file without any says nothing against."""
    lines = [line.split() for line in file.read().decode("utf-8-sig", "replace").splitlines() if line.strip()]
    return not lines or len(lines[0]) > 4 and all(is_number(to_number(part)) for part in lines[0][1:])


def _read_lines(
    file: File, row: Any, names: Names, competition: Competition, report: clean.Report
) -> list[clean.RawBox]:
    boxes, n_outlines = [], 0
    for line_number, line in enumerate(file.read().decode("utf-8-sig", "replace").splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        values: tuple[Any, ...] = tuple(to_number(part) for part in parts[1:])
        size, where = (row.width, row.height), f"{file.place}:{line_number}"
        name, points, shape = names.name_of(parts[0]), None, names.shape
        if competition.skeleton is not None:
            check_line(len(values), n_points_asked(competition, name, row.image_id), shape, where)
        if shape is not None and len(values) == 4 + shape.n_all:
            values, points = values[:4], points_of(values[4:], shape, names.key_of(parts[0]), size)
        if len(values) >= 4 and any(is_number(value) and abs(value) > MOST_PART for value in values):
            report.add(clean.PIXELS, where, row.image_id, f"{name} {short(list(values))}")
            continue
        if len(values) > 5 and (outline := polygon_box(list(values))) is not None:
            n_outlines += 1
            values = tuple(round(value * size[index % 2], 6) for index, value in enumerate(outline))
        elif len(values) == 4 and all(is_number(value) for value in values):
            centre = np.array([values], dtype=float)
            with np.errstate(over="ignore", invalid="ignore"):  # what grows beyond all numbers is noted later
                values = tuple(cxcywhn_to_xyxy(centre, *size)[0].round(6).tolist())
        elif len(values) != 4:
            report.add(clean.ODD_LINE, where, row.image_id, f"{name} {short(list(values))}")
            continue
        boxes.append(clean.RawBox(where, row.image_id, name, values, points))
    if n_outlines:
        report.add(clean.OUTLINE, file.place, row.image_id, f"{n_outlines} of {len(boxes)} lines")
    return boxes


class Names:
    """The source's names of classes by their number as text; `by_id` is None where no file has them.

    `shapes` are what YAML files say of keypoints, by file; the one of most values counts.
    """

    def __init__(self, by_id: dict[str, str] | None, shapes: dict[str, PointShape]) -> None:
        self.by_id, self.shapes = by_id, shapes
        self.shape = max(shapes.values(), key=lambda shape: shape.n_all, default=None)

    def name_of(self, class_id: str) -> str:
        """The name of a class as a label's line has it."""
        return (self.by_id or {}).get(self.key_of(class_id), class_id)

    def key_of(self, class_id: str) -> str:
        """A class as a label's line has it: a number, which may be written as 0.0, or a name."""
        found = to_number(class_id)
        return str(int(found)) if is_number(found) and found == int(found) else class_id


def _check_names(boxes: list[clean.RawBox], competition: Competition, source: clean.Source) -> None:
    """Raises BadData if a class is known by its number alone, and the competition's pattern does not name it."""
    for box in boxes:
        if is_number(to_number(box.source_name)) and not competition.is_named_by(box.image_id):
            raise BadData(
                f"{box.file}: expected a name for class {box.source_name}, found no file of class names "
                f"below the folder; looked for {', '.join(NAME_FILES)}. Write the names to {source.root}/classes.txt, "
                "one a line in the order of their numbers")


def find_names(source: clean.Source) -> Names:
    """Class names from whatever file an exporter writes them to.

    Raises BadData naming the file for names that cannot be read, or that another file there has otherwise. A list
    that another one begins with agrees with it: tools that write the names seen so far leave such lists behind.
    """
    found: dict[str, dict[str, str]] = {}
    shapes: dict[str, PointShape] = {}
    for file in source.files:
        name, stem, suffix = split_name(file.path)
        if suffix in (".yaml", ".yml"):
            content = _read_yaml(file, is_expected=stem.lower() == "data")
            if stem.lower() == "data" or isinstance(content, dict) and "names" in content:
                found[file.place] = _names_of_yaml(file, content)
                if (shape := read_shape(content)) is not None:
                    shapes[file.place] = shape
        elif name.lower() == "classes.txt" or suffix == ".names" or name.lower() == "_darknet.labels":
            found[file.place] = _names_of_lines(file)
        elif name.lower() == "notes.json" and (names := _names_of_notes(file)):
            found[file.place] = names
    if empty := next((place for place, names in found.items() if not names), None):
        raise BadData(f"{empty}: expected names of classes, found none")
    if not found:
        return Names(None, shapes)
    first = max(found, key=lambda place: len(found[place]))
    for place, names in found.items():
        if any(found[first].get(class_id, "").casefold() != name.casefold() for class_id, name in names.items()):
            raise BadData(f"{place}: expected the classes of {first}, {found[first]}, found {names}")
    return Names(found[first], shapes)


def find_test_images(files: Sequence[File], image_ids: Iterable[str]) -> set[str]:
    """The images that a YAML of class names puts under `test`: a folder, several, or a text file that lists them.

    Where `train` or `val` say the same, `test` is not meant to be one.
    """
    found: set[str] = set()
    ids = list(image_ids)
    by_path = {file.path: file for file in files}
    for file in files:
        content = _read_yaml(file, is_expected=False) if split_name(file.path)[2] in (".yaml", ".yml") else None
        if not isinstance(content, dict) or "names" not in content or not content.get("test"):
            continue
        parts = {key: content[key] if isinstance(content.get(key), list) else [content.get(key)]
                 for key in ("train", "val", "test")}
        for path in parts["test"]:
            if isinstance(path, str) and path not in parts["train"] + parts["val"]:
                found |= _images_at(path, file.path.rpartition("/")[0], ids, by_path)
    return found


def _images_at(path: str, folder: str, image_ids: Sequence[str], files: dict[str, File]) -> set[str]:
    """The images in a folder or a list that a file in `folder` names; exporters write one ../ too many."""
    plain = "/".join(part for part in path.replace("\\", "/").split("/") if part not in ("", ".", ".."))
    place = f"{folder}/{plain}" if folder else plain
    if place in files and place.lower().endswith(".txt"):
        lines = files[place].read().decode("utf-8-sig", "replace").splitlines()
        ends = {picture for line in lines if (picture := picture_path(line.strip()))}
        return {image_id for image_id in image_ids for end in ends if f"/{image_id}".endswith(f"/{end}")}
    return {image_id for image_id in image_ids if image_id.startswith(f"{place}/")}


def _read_yaml(file: File, *, is_expected: bool) -> Any:
    """A YAML's content; None for one that cannot be read, unless it is expected to hold the names."""
    try:
        return yaml.safe_load(file.read()) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if is_expected:
            raise BadData(f"{file.place}: expected `names`, a list or a mapping of class names: {error!s:.300}"
                          ) from error
        return None


def _names_of_yaml(file: File, content: Any) -> dict[str, str]:
    try:
        names = content["names"]
        pairs = dict(names if isinstance(names, dict) else enumerate(names)).items()
        if isinstance(names, str) or not all(isinstance(name, str | int) for pair in pairs for name in pair):
            raise BadData(f"found {short(names)}")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise BadData(f"{file.place}: expected `names`, a list or a mapping of class names: {error!s:.300}"
                      ) from error
    return {str(class_id): str(name) for class_id, name in pairs}


def _names_of_lines(file: File) -> dict[str, str]:
    try:
        lines = file.read().decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise BadData(f"{file.place}: expected class names in UTF-8: {error}") from error
    return {str(class_id): name.strip() for class_id, name in enumerate(lines)}


def _names_of_notes(file: File) -> dict[str, str]:
    """The categories that Label Studio writes beside its export; nothing for another JSON of this name."""
    try:
        categories = read_json(file.read())["categories"]
        return {str(category["id"]): str(category["name"]) for category in categories}
    except (ValueError, LookupError, TypeError):
        return {}
