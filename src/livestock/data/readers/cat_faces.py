"""`.cat` files: `n x1 y1 x2 y2 ...` beside `x.jpg` in `x.jpg.cat`, nine points of a cat's face."""

from __future__ import annotations

from ...config import Competition, FoundPoints
from ...exceptions import BadData
from . import clean
from .points import RawPoint, from_centre, only_label
from .tree import File
from .values import short, to_number

SUFFIX = ".cat"
NAMES = ("left_eye", "right_eye", "mouth", "left_ear_1", "left_ear_2", "left_ear_3", "right_ear_1", "right_ear_2",
         "right_ear_3")
FLIPS = (1, 0, 2, 8, 7, 6, 5, 4, 3)  # both ears are numbered from left to right: 1 of the left is 3 of the right


def find_labels(source: clean.Source, competition: Competition) -> clean.Labels:
    """One `.cat` file a picture, found by its path; the sides are those of the viewer, as the data have them.

    Numbers are pixels counted from the centre of the first one. The object is the whole picture, of the skeleton's only
    class.
    """
    label = only_label(source, competition)
    known: set[str] = set()
    boxes: list[clean.RawBox] = []
    files = [file._replace(path=file.path[: -len(SUFFIX)]) for file in source.with_suffix(SUFFIX)]
    for file, row in clean.match_labels(source, files):
        try:
            points = _read(file)
        except ValueError as error:
            source.report.add(clean.UNREADABLE_LABEL, file.place, row.image_id, str(error))
            continue
        known.add(row.image_id)
        boxes.append(clean.RawBox(file.place, row.image_id, label, (0, 0, row.width, row.height), points))
    if boxes:
        source.points[label] = FoundPoints(NAMES, flips=FLIPS)
    return clean.Labels(known, boxes)


def _read(file: File) -> tuple[RawPoint, ...]:
    """The points of one file. Raises BadData for another number of values than nine points have."""
    values = [to_number(part) for part in file.read().decode("utf-8-sig", "replace").split()]
    if len(values) != 1 + 2 * len(NAMES) or values[0] != len(NAMES):
        raise BadData(f"expected {len(NAMES)} and x and y of as many points, {1 + 2 * len(NAMES)} values, found "
                      f"{len(values)}: {short(values[:6])}")
    return tuple(from_centre(name, x, y) for name, x, y in zip(NAMES, values[1::2], values[2::2], strict=True))


def is_label(file: File) -> bool:
    """Whether a file begins with a whole number and holds two numbers a point."""
    values = [to_number(part) for part in file.read()[:10_000].decode("utf-8-sig", "replace").split()]
    return bool(values) and all(isinstance(value, float) for value in values) and len(values) == 1 + 2 * values[0]
