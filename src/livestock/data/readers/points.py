"""Keypoints of boxes: which of the skeleton's each is, and what cannot be used of them, with a line that says why.

Points that stand beside boxes are in the boxes' frame (COCO, YOLO, a JSON an image). Points that stand alone are the
numbers of pixels, as OpenCV and matplotlib count them, from the centre of the first one (DeepLabCut, `.cat`, lists):
they get half a pixel added, see `livestock.geometry`. Their object is the whole picture, for no file says more.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ...config import Competition, FoundPoints, Skeleton, suggest_skeleton
from ...config.suggest import unnamed_points
from ...exceptions import BadData
from ...tables import make_keypoints, new_box_ids
from .report import Report
from .values import is_number, number, short

if TYPE_CHECKING:
    from .clean import Change, RawBox, Source

UNASKED = "keypoints that no skeleton asks for: not read"
EXTRA = "keypoints that the skeleton does not name: left out"
WITHOUT = "object without keypoints, of a class that has some: none of them is labelled"
NO_NUMBER = "keypoint with a coordinate that is no number: not labelled"
BEYOND = "keypoint outside its image: not labelled"
ODD_VISIBILITY = "keypoint whose visibility is none of 0, 1 and 2: not labelled"
PLACE_OF_NONE = "keypoint with a place, of visibility 0: not labelled"
ODD_POINTS = "keypoints that are not x, y and visibility for each name: none of the object's is labelled"
ONE_IS_SEEN = "visibilities are 0 and 1 alone: 1 counts as seen"
CSV_BESIDE = "table that lies beside as CSV too: the CSV is read"
CHANGED = {UNASKED, EXTRA, WITHOUT, NO_NUMBER, BEYOND, ODD_VISIBILITY, PLACE_OF_NONE, ODD_POINTS, ONE_IS_SEEN,
           CSV_BESIDE}  # reasons that leave out no image and no box
ROUNDING = 1e-6  # px by which a point may lie outside its image, as `tables.check_keypoints` has it
CENTRE = 0.5  # of the first pixel


class RawPoint(NamedTuple):
    """A keypoint as its source has it, in pixels but otherwise unchecked; a `name` of None: the skeleton's order."""

    name: str | None
    x: Any
    y: Any
    visible: Any


def from_centre(name: str | None, x: Any, y: Any) -> RawPoint:
    """A point of which the file gives the number of a pixel, or no number in either place: not labelled.

    >>> from_centre("nose", 3.0, 4.0), from_centre("nose", None, None).visible
    (RawPoint(name='nose', x=3.5, y=4.5, visible=2), 0)
    """
    if all(value is None or value != value for value in (x, y)):
        return RawPoint(name, None, None, 0)
    x, y = (value + CENTRE if is_number(value) else value for value in (x, y))
    return RawPoint(name, x, y, 2)


def move(points: Sequence[RawPoint] | None, change: Change) -> tuple[RawPoint, ...] | None:
    """Points brought to the size of the image as its corners are; those that are not labelled have no place."""
    if points is None:
        return None
    return tuple(point if point.x is None else point._replace(**_moved(point, change)) for point in points)


def _moved(point: RawPoint, change: Change) -> dict[str, Any]:
    x, y, *_ = change((point.x, point.y, point.x, point.y))  # a box without area
    return {"x": x, "y": y}


def only_label(source: Source, competition: Competition) -> str:
    """The class of objects whose file names none. Raises BadData where the competition does not say which it is."""
    skeleton = competition.skeleton
    labels = competition.labels if skeleton is None else skeleton.labels
    if len(labels) != 1:
        raise BadData(f"{source.root}: these labels name no class: expected a competition, or its skeleton, of one "
                      f"class, found {', '.join(labels)}; write a file with the two lines\n  name: mine\n  classes: "
                      "{object: []}\nwith your names in place of mine and object, and name it with --competition; "
                      "`livestock read` then suggests the skeleton")
    return labels[0]


def suggest(source: Source, competition: Competition) -> str:
    """The skeleton that the data would give the competition, as its file has it; "" where it has one, or they none."""
    found: dict[str, FoundPoints] = {}
    for source_name, points in source.points.items():
        if points.names and (label := competition.label_of(source_name)) is not None:
            found.setdefault(label, points)
    return "" if competition.skeleton is not None else suggest_skeleton(found)


def match_names(found: Sequence[str], expected: Sequence[str]) -> dict[str, str]:
    """Which expected name each found one is: the same, else the same but for case, blanks, hyphens and underscores.

    >>> match_names(["Left Ear", "tail", "hoof"], ["left_ear", "tail"])
    {'tail': 'tail', 'Left Ear': 'left_ear'}
    """
    matched = {name: name for name in found if name in expected}
    free = [name for name in expected if name not in matched]
    for name in found:
        same = [other for other in free if _plain(other) == _plain(name)]
        if name not in matched and len(same) == 1:
            matched[name] = same[0]
            free.remove(same[0])
    return matched


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


def clean_points(
    raw: Sequence[RawBox], boxes: pd.DataFrame, images: pd.DataFrame, competition: Competition, source: Source
) -> pd.DataFrame:
    """The keypoints table of the boxes that are kept: a row for each point of the skeleton, labelled or not.

    Without a skeleton there is none, and a line says how many objects have points. Raises BadData naming the file for
    an object that lacks a point of the skeleton, or has one twice.
    """
    skeleton = competition.skeleton
    if skeleton is None:
        _note_unasked(raw, source)
        return make_keypoints([])
    label_of = dict(zip(boxes["box_id"], boxes["label"], strict=True))
    ids = new_box_ids([box.image_id for box in raw], "gold")  # as `clean_boxes` numbers them
    kept = [(box, box_id, label_of[box_id]) for box, box_id in zip(raw, ids, strict=True) if box_id in label_of]
    _note_objects([(box, label) for box, _, label in kept], skeleton, source)
    rows = [(box_id, box.image_id, *point, box.file) for box, box_id, label in kept
            for point in _in_order(box, label, skeleton)]
    return _check(rows, images, source.report)


def _note_unasked(raw: Sequence[RawBox], source: Source) -> None:
    """A line on how many objects have points; classes whose points have no names are noted for `suggest`."""
    with_points = [box for box in raw if any(map(_is_labelled, box.points or ()))]
    for box in with_points:
        if box.points and box.points[0].name is None:
            source.points.setdefault(box.source_name, unnamed_points(len(box.points)))
    if with_points:
        source.report.add(UNASKED, str(source.root), "", f"{len(with_points)} objects; `skeleton` in the competition's "
                          "file would ask for them")


def _is_labelled(point: RawPoint) -> bool:
    return number(point.visible) != 0


def _note_objects(kept: Sequence[tuple[RawBox, str]], skeleton: Skeleton, source: Source) -> None:
    """Lines on objects without points where there should be some, and on points that the skeleton does not name."""
    without = [box.file for box, label in kept if skeleton.names(label) and not box.points]
    if without:
        source.report.add(WITHOUT, str(source.root), "", f"{len(without)} objects, the first in {without[0]}")
    extra: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    for box, label in kept:
        for name in _unknown(box.points or (), tuple(skeleton.names(label))):
            extra[label, name] += 1
            first.setdefault((label, name), box.file)
    for (label, name), n_objects in extra.items():
        source.report.add(EXTRA, first[label, name], "", f"{name} of {n_objects} objects {label}")


def _unknown(points: Sequence[RawPoint], expected: tuple[str, ...]) -> list[str]:
    """The labelled points that the skeleton does not name; of a class that it does not know, points without names."""
    if points and points[0].name is None:
        n_labelled = sum(map(_is_labelled, points))
        return [f"{n_labelled} points without names"] if n_labelled and not expected else []
    matched = _match(tuple(str(point.name) for point in points), expected)
    return [str(point.name) for point in points if point.name not in matched and _is_labelled(point)]


_match: Callable[[tuple[str, ...], tuple[str, ...]], Mapping[str, str]] = functools.lru_cache(maxsize=256)(match_names)


def _in_order(box: RawBox, label: str, skeleton: Skeleton) -> list[RawPoint]:
    """The points of an object by the skeleton's names, in its order. Raises BadData where they do not fit."""
    expected, points = skeleton.names(label), box.points or ()
    if not expected or not points:
        return [RawPoint(name, None, None, 0) for name in expected]
    where = f"{box.file} ({box.image_id})"
    if points[0].name is None:
        if len(points) < len(expected) or any(map(_is_labelled, points[len(expected) :])):
            raise BadData(f"{where}: expected {len(expected)} keypoints of {label!r}, as the skeleton has: {expected}, "
                          f"found {len(points)} without names")
        return [point._replace(name=name) for point, name in zip(points, expected, strict=False)]
    names = tuple(str(point.name) for point in points)
    if len(set(names)) < len(names):
        raise BadData(f"{where}: expected each keypoint once, found {next(n for n in names if names.count(n) > 1)!r} "
                      "twice")
    matched = _match(names, tuple(expected))
    by_name = {matched[str(point.name)]: point for point in points if point.name in matched}
    if missing := [name for name in expected if name not in by_name]:
        raise BadData(f"{where}: expected the keypoints {expected} of {label!r}, as the skeleton has, found "
                      f"{list(names)}: {', '.join(missing)} is not there")
    return [by_name[name]._replace(name=name) for name in expected]


def _check(rows: Sequence[tuple[Any, ...]], images: pd.DataFrame, report: Report) -> pd.DataFrame:
    """The table; a point that cannot be used is not labelled. `rows`: box, image, name, x, y, visibility and file."""
    size_of = dict(zip(images["image_id"], zip(images["width"], images["height"], strict=True), strict=True))
    sizes = np.array([size_of[row[1]] for row in rows], dtype=float).reshape(-1, 2)
    places = np.array([row[3:5] if all(map(is_number, row[3:5])) else (np.nan, np.nan) for row in rows], dtype=float)
    places = places.reshape(-1, 2)
    visible = np.array([_visibility(row[5]) for row in rows], dtype=int)
    near = np.clip(places, 0, sizes)
    reasons = np.select(
        [
            visible < 0,
            (visible == 0) & (places != 0).any(1) & ~np.isnan(places).any(1),
            visible == 0,
            np.isnan(places).any(1),
            (np.abs(near - places) > ROUNDING).any(1),
        ],
        [ODD_VISIBILITY, PLACE_OF_NONE, "", NO_NUMBER, BEYOND],
        "",
    )
    _note_points(rows, reasons, report)
    seen = np.where(reasons == "", visible, 0)
    table = pd.DataFrame({"box_id": np.array([row[0] for row in rows], np.int64), "image_id": [row[1] for row in rows],
                          "keypoint": [row[2] for row in rows], "x": near[:, 0], "y": near[:, 1], "visible": seen})
    return make_keypoints(table)


def _visibility(value: Any) -> int:
    """0, 1 or 2; -1 for anything else."""
    value = number(value)
    return int(value) if is_number(value) and value in (0, 1, 2) else -1


def _note_points(rows: Sequence[tuple[Any, ...]], reasons: np.ndarray, report: Report) -> None:
    """A line a point, but one a file for places of points that are not labelled: some exporters write all of them."""
    for index in np.flatnonzero((reasons != "") & (reasons != PLACE_OF_NONE)):
        _, image_id, name, x, y, visible, file = rows[index]
        report.add(reasons[index], file, image_id, f"{name} {short([x, y, visible])}")
    for file, n_points in Counter(rows[index][-1] for index in np.flatnonzero(reasons == PLACE_OF_NONE)).items():
        report.add(PLACE_OF_NONE, file, "", f"{n_points} points")
