"""Lists of points, one an image: lines `name.jpg,"(x, y)"` or `name.jpg,x,y`, with or without a header."""

from __future__ import annotations

import csv
import io
import re
from typing import Any, NamedTuple

from ...config import Competition
from ...exceptions import BadData
from ..archives import IMAGE_SUFFIXES, split_name
from . import clean
from .entries import Finder, picture_path
from .points import from_centre, only_label
from .tree import File
from .values import short, to_number

SUFFIXES = (".txt", ".csv")
PAIR = re.compile(r"[(\[]?\s*([^\s,()\[\]]*)\s*,\s*([^\s,()\[\]]*)\s*[)\]]?")
N_LOOKED_AT = 5  # lines by which a list is known


class _Line(NamedTuple):
    """A line of a list: its number, the path of the picture, its fields, and x and y; None where they are not two."""

    number: int
    path: str
    fields: list[str]
    place: tuple[Any, Any] | None


def find_labels(source: clean.Source, competition: Competition) -> clean.Labels:
    """Every list; a line belongs to the picture of its path, else to the only one of its name.

    Numbers are pixels counted from the centre of the first one; a point without numbers is not labelled. The object is
    the whole picture, of the skeleton's only class, which must have one point. Raises BadData naming file and line for
    a second line of a picture.
    """
    label = only_label(source, competition)
    if competition.skeleton is not None and len(names := competition.skeleton.names(label)) != 1:
        raise BadData(f"{source.root}: a list has one point of each image: expected a skeleton of one, found {names}")
    known: set[str] = set()
    boxes: list[clean.RawBox] = []
    lists = [(file, lines) for file in list_files(source) if (lines := _read_list(file, source.report)) is not None]
    paths = [(file, [line.path for line in lines]) for file, lines in lists]
    for (file, lines), found in zip(lists, Finder(source).find_all(paths), strict=True):
        boxes += _read_lines(file, lines, found, label, source, known)
    return clean.Labels(known, boxes)


def list_files(source: clean.Source) -> list[File]:
    """The text files whose first lines are of pictures and points; those named like a picture are of that one alone."""
    stems = {split_name(image_id)[1] for image_id in source.images["image_id"]}
    return [file for suffix in SUFFIXES for file in source.with_suffix(suffix)
            if split_name(file.path)[1] not in stems and is_list(file)]


def is_list(file: File) -> bool:
    """Whether among the first lines that hold something one names a picture and has two numbers behind it."""
    text = file.read()[:100_000].decode("utf-8-sig", "replace")
    try:
        lines = [fields for fields in csv.reader(io.StringIO(text, newline="")) if fields][: N_LOOKED_AT + 1]
    except csv.Error:
        return False
    order = _order(lines[0]) if lines else (1, 2)
    return order is not None and any(
        _is_picture(fields[0]) and (place := _place(fields, order)) is not None
        and all(isinstance(value, float) for value in place) for fields in lines)


def _is_picture(name: str) -> bool:
    return split_name(name.strip())[2] in IMAGE_SUFFIXES


def _order(header: list[str]) -> tuple[int, int] | None:
    """The columns of x and y: the second and third, or where a header has them; None for a header without them."""
    names = [name.strip().casefold() for name in header]
    if _is_picture(header[0]):
        return 1, 2
    if "x" in names and "y" in names:
        return names.index("x"), names.index("y")
    return None if len(header) > 2 else (1, 2)


def _place(fields: list[str], order: tuple[int, int]) -> tuple[Any, Any] | None:
    """x and y of a line's fields, one text `(x, y)` or two of them; None for another number of fields."""
    if len(fields) == 2 and (pair := PAIR.fullmatch(fields[1].strip())) is not None:
        return _value(pair[1]), _value(pair[2])
    return (_value(fields[order[0]]), _value(fields[order[1]])) if len(fields) == 3 and max(order) < 3 else None


def _value(text: str) -> Any:
    return to_number(text.strip() or None)


def _read_list(file: File, report: clean.Report) -> list[_Line] | None:
    """The lines of a list without its header; None for what is no CSV in UTF-8, which is noted."""
    try:
        reader = csv.reader(io.StringIO(file.read().decode("utf-8-sig"), newline=""), strict=True)
        lines = [(reader.line_num, fields) for fields in reader if fields]
    except (csv.Error, UnicodeDecodeError) as error:
        report.add(clean.UNREADABLE_LABEL, file.place, "", f"{type(error).__name__}: {error}")
        return None
    order = _order(lines[0][1]) or (1, 2)
    first = "".join(lines[0][1])  # words alone, for a line that is damaged must not be taken for a header
    is_header = not _is_picture(lines[0][1][0]) and not any(letter.isdigit() for letter in first)
    return [_Line(number, picture_path(fields[0].strip()) or "", fields, _place(fields, order))
            for number, fields in lines[is_header:]]


def _read_lines(
    file: File, lines: list[_Line], found: dict[str, str | None], label: str, source: clean.Source, known: set[str]
) -> list[clean.RawBox]:
    """An object a line; lines of no picture, of a picture that has one, and those without two numbers are noted."""
    boxes, here = [], dict[str, int]()
    rows = {row.image_id: row for row in source.images.itertuples()}
    for line in lines:
        image_id, where = found.get(line.path), f"{file.place}:{line.number}"
        if image_id in source.test:
            source.n_test_labels += 1
        elif image_id is None or image_id not in rows:
            source.report.add(clean.NO_IMAGE, where, image_id or "", short(line.fields))
        elif image_id in here:
            raise BadData(f"{where}: expected one point of {image_id!r}, found a second one; the first is in line "
                          f"{here[image_id]}")
        elif image_id in known:
            source.report.add(clean.DUPLICATE_LABEL, where, image_id, short(line.fields))
        else:
            here[image_id] = line.number
            if line.place is None:
                source.report.add(clean.UNREADABLE_ROW, where, image_id, f"expected x and y, found "
                                  f"{short(line.fields[1:])}")
                continue
            row, point = rows[image_id], from_centre(None, *line.place)
            boxes.append(clean.RawBox(where, image_id, label, (0, 0, row.width, row.height), (point,)))
    known |= {*here}
    return boxes
