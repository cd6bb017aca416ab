"""DeepLabCut: a table `CollectedData_*.csv`, or .h5, of the body parts in each labelled frame, beside the frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...config import Competition, FoundPoints
from ...exceptions import BadData
from ..archives import split_name
from . import clean
from .entries import Finder, picture_path
from .points import CSV_BESIDE, RawPoint, from_centre, only_label
from .tree import File
from .values import short, to_number

HEADER = ["scorer", "bodyparts", "coords"]  # the first cells of the three rows above the numbers
INDIVIDUALS = ["scorer", "individuals", "bodyparts"]  # those of a project with several animals a picture
TABLE_NAME = "collecteddata"  # how a table of labels begins; predictions are called otherwise


class _Table(NamedTuple):
    """A table's body parts, and its rows: line, the path of the picture, and the cells behind it."""

    columns: list[tuple[str, str]]  # body part, and x or y
    rows: list[tuple[int, str, list[str]]]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part for part, _ in self.columns))


def find_labels(source: clean.Source, competition: Competition) -> clean.Labels:
    """Every table of labels; a row belongs to the picture of its path, which stands in one cell or in three.

    Numbers are pixels counted from the centre of the first one; empty cells are not labelled. The object is the whole
    picture, of the skeleton's only class. Of a table that lies there as CSV and H5 the CSV is read. Of the rows of one
    picture in several tables the first counts; two in one table raise BadData, as does a body part that is there twice.
    """
    label = only_label(source, competition)
    known: set[str] = set()
    boxes: list[clean.RawBox] = []
    files = table_files(source)
    for file in source.with_suffix(".h5"):
        if _is_named_so(file) and file not in files:
            source.report.add(CSV_BESIDE, file.place)
    tables = [(file, table) for file in files if (table := _read_table(file, source.report)) is not None]
    names = [(file, [path for _, path, _ in table.rows]) for file, table in tables]
    for (file, table), found in zip(tables, Finder(source).find_all(names), strict=True):
        source.points.setdefault(label, FoundPoints(table.names))
        boxes += _read_rows(file, table, found, label, source, known)
    return clean.Labels(known, boxes)


def table_files(source: clean.Source) -> list[File]:
    """The tables of labels: CSV files by their first cell or their name, and H5 files without a CSV beside them."""
    tables = [file for file in source.with_suffix(".csv") if _is_named_so(file) or file.read()[:7] == b"scorer,"]
    beside = {file.path[:-4] for file in tables}
    return tables + [file for file in source.with_suffix(".h5") if _is_named_so(file) and file.path[:-3] not in beside]


def _is_named_so(file: File) -> bool:
    return split_name(file.path)[1].lower().startswith(TABLE_NAME)


def is_dlc(file: File) -> bool:
    """Whether a CSV has DeepLabCut's three rows above its numbers, and they are of labels, not of predictions."""
    lines = file.read()[:1_000_000].decode("utf-8-sig", "replace").splitlines()[:4]
    cells = [line.partition(",")[0] for line in lines]
    n_head = 4 if cells[:3] == INDIVIDUALS else 3
    return cells[:3] in (HEADER, INDIVIDUALS) and "likelihood" not in lines[:n_head][-1]


def _read_table(file: File, report: clean.Report) -> _Table | None:
    try:
        if file.path.lower().endswith(".h5"):
            from .dlc_h5 import read_grid

            grid = read_grid(file)
        else:
            lines = csv.reader(io.StringIO(file.read().decode("utf-8-sig"), newline=""), strict=True)
            grid = [(lines.line_num, line) for line in lines]
        return _table_of(grid)
    except (csv.Error, UnicodeDecodeError) as error:
        report.add(clean.UNREADABLE_LABEL, file.place, "", f"{type(error).__name__}: {error}")
    except _NoTable as error:
        report.add(clean.UNREADABLE_LABEL, file.place, "", str(error))
    except BadData as error:
        raise BadData(f"{file.place}: {error}" if file.place not in str(error) else str(error)) from error
    return None


class _NoTable(ValueError):
    """What makes a file none of DeepLabCut's tables of labels."""


def _table_of(grid: Sequence[tuple[int, list[str]]]) -> _Table:
    """A table from the cells of its lines.

    Raises BadData for a body part that does not have x and y, each once, and for several animals a picture.
    """
    if [line[0] if line else "" for _, line in grid[:3]] == INDIVIDUALS:
        is_prediction = any("likelihood" in line for _, line in grid[3:4])
        if len(names := sorted({*grid[1][1][1:]} - {""})) > 1 and not is_prediction:
            raise BadData(f"line 2: expected one animal a picture, found the individuals {short(names)}: their boxes "
                          "are not in the file; write COCO keypoints, with a box an animal, in its place")
        grid = [grid[0], *grid[2:]]
    head = [line for _, line in grid[:3]]
    if [line[0] if line else "" for line in head] != HEADER:
        raise _NoTable(f"expected rows that begin with {', '.join(HEADER)}, found {short([line[:1] for line in head])}")
    n_index = next((index for index, cell in enumerate(head[2]) if index and cell), len(head[2]))
    if len({len(line) for line in head}) != 1 or n_index not in (1, 3):
        raise _NoTable(f"expected the picture in one or three columns and {', '.join(HEADER)} of each other one, found "
                       f"{short(head[2][:8])} below {short(head[1][:8])}")
    columns = list(zip(head[1][n_index:], head[2][n_index:], strict=True))
    if not {coord for _, coord in columns} <= {"x", "y"}:
        raise _NoTable(f"expected the columns x and y, found {short(sorted({coord for _, coord in columns}))}: "
                       "predictions are no labels")
    if twice := next((column for column in columns if columns.count(column) > 1), None):
        raise BadData(f"line {grid[1][0]}: expected each body part once, found {' of '.join(reversed(twice))} "
                      "a second time")
    if lonely := next((part for part, _ in columns if not {(part, "x"), (part, "y")} <= {*columns}), None):
        raise BadData(f"line {grid[2][0]}: expected x and y of each body part, found one of {lonely!r} alone")
    rows = [(number, picture_path("/".join(line[:n_index])) or "", line[n_index:]) for number, line in grid[3:] if line]
    return _Table(columns, rows)


def _read_rows(
    file: File, table: _Table, found: dict[str, str | None], label: str, source: clean.Source, known: set[str]
) -> list[clean.RawBox]:
    """An object a row; rows of no picture, of a picture that has one, and those cut short are noted."""
    boxes, here = [], dict[str, int]()
    rows = {row.image_id: row for row in source.images.itertuples()}
    for number, path, cells in table.rows:
        image_id, where = found.get(path), f"{file.place}:{number}"
        if image_id in source.test:
            source.n_test_labels += 1
        elif image_id is None or image_id not in rows:
            source.report.add(clean.NO_IMAGE, where, image_id or "", path)
        elif image_id in here:
            raise BadData(f"{where}: expected one row of {image_id!r}, found a second one; the first is line "
                          f"{here[image_id]}")
        elif image_id in known:
            source.report.add(clean.DUPLICATE_LABEL, where, image_id, path)
        else:
            here[image_id] = number
            if len(cells) != len(table.columns):
                source.report.add(clean.UNREADABLE_ROW, where, image_id, f"expected {len(table.columns)} numbers, "
                                  f"found {len(cells)}")
                continue
            row = rows[image_id]
            boxes.append(clean.RawBox(where, image_id, label, (0, 0, row.width, row.height), _points(table, cells)))
    known |= {*here}
    return boxes


def _points(table: _Table, cells: Sequence[str]) -> tuple[RawPoint, ...]:
    values = {column: _value(cell) for column, cell in zip(table.columns, cells, strict=True)}
    return tuple(from_centre(name, values[name, "x"], values[name, "y"]) for name in table.names)


def _value(cell: str) -> Any:
    return to_number(cell.strip() or None)
