"""What all readers share: nothing is left out without a line that says what and why."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ...config import Competition, FoundPoints
from ...exceptions import BadData
from ...geometry import clip_xyxy
from ...tables import XYXY, make_boxes, make_images, make_keypoints, new_box_ids
from ..archives import image_size, orientation, split_name
from .pairs import label_place, label_places
from .points import CHANGED, RawPoint
from .report import LEFT_OUT_COLUMNS, Report
from .tree import BAD_NAME, LOOP, NESTED, OTHER_FORMAT, RESULTS, SYSTEM_FILES, UNPACKED, File
from .values import is_number, short, to_number

__all__ = ["BAD_NAME", "LEFT_OUT_COLUMNS", "LOOP", "NESTED", "OTHER_FORMAT", "RESULTS", "SYSTEM_FILES", "UNPACKED",
           "Report"]

NO_LABEL = "image without label: left out"
BACKGROUND = "image without label: kept as background, as `unlabelled` says"
NO_IMAGE = "label without image: left out"
EMPTY = "image with no box: kept"
UNREADABLE_LABEL = "unreadable label: image left out"
UNREADABLE_IMAGE = "unreadable image: left out"
DUPLICATE = "duplicate image name: left out"
DUPLICATE_LABEL = "second label of one image: left out"
OF_TEST = "labels of test images: not read"
OTHER_SIZE = "size in the label is not the image's, nor that turned or scaled: image left out"
TURNED = "label of the image before its EXIF turn: its boxes are turned"
SCALED = "label of the image at another size: its boxes are scaled"
NOT_A_NUMBER = "box with a coordinate that is no number: left out"
SWAPPED = "box with swapped corners: left out"
NO_AREA = "box without area: left out"
OUTSIDE = "box wholly outside the image: left out"
CLIPPED = "box partly outside the image: clipped"
UNKNOWN_CLASS = "box of an unknown class: left out"
CROWD = "box around a group: left out"
ALL_CROWD = "every object is marked as a group, as masks are in some exports: their boxes are used"
OUTLINE = "polygons or masks: the box around each is used"
OTHER_SHAPE = "object of a shape that is not read: left out"
PIXELS = "line in pixels, not in parts of the image: left out"
ODD_LINE = "line that is neither a box nor a polygon: left out"
NOTHING_LEFT = "none of the image's labels can be used: image left out"
SHARED_ID = "one id of several images: they and their boxes are left out"
UNREADABLE_ROW = "unreadable row: left out"

# Reasons of what is changed, not left out.
KEPT = {BACKGROUND, EMPTY, CLIPPED, TURNED, SCALED, ALL_CROWD, OUTLINE, *CHANGED}
# Reasons of objects that are there and cannot be used: without them an image would teach that nothing is there.
LOST = [NOT_A_NUMBER, SWAPPED, NO_AREA, OUTSIDE, CROWD, OTHER_SHAPE, PIXELS, ODD_LINE, UNREADABLE_ROW]
NO_NUMBERS = (np.nan,) * 4
SWAPS_SIDES = {5, 6, 7, 8}  # EXIF orientations that turn the image on its side
NO_POINTS = make_keypoints([])


class Reading(NamedTuple):
    """What a reader returns: the tables, and a `left_out` table with the columns `file, image_id, reason, detail`.

    `left_out` also lists what was kept but changed; its reasons say which. `keypoints` has a row for each point that
    the competition's skeleton has of each box, and none without a skeleton.
    """

    images: pd.DataFrame
    boxes: pd.DataFrame
    left_out: pd.DataFrame
    keypoints: pd.DataFrame = NO_POINTS


class RawBox(NamedTuple):
    """A box as its source has it, in xyxy pixels but otherwise unchecked; `file` is the label's.

    `points` are all that the source names of its class, those that are not labelled too; None where it names none.
    """

    file: str
    image_id: str
    source_name: str
    corners: tuple[Any, ...]
    points: tuple[RawPoint, ...] | None = None


@dataclass
class Source:
    """What a reader of one format looks at: the files, the images found among them, and where to report.

    `test` are the ids of images to be answered; their labels are counted and not read. `unusable` are the paths of
    picture files that cannot be read: their labels are no other image's. `points` is what the labels say of the
    keypoints of each class, by the source's name of it.
    """

    root: Path
    files: list[File]
    images: pd.DataFrame
    test: frozenset[str]
    report: Report
    unusable: tuple[str, ...] = ()
    n_test_labels: int = 0
    points: dict[str, FoundPoints] = field(default_factory=dict)

    def with_suffix(self, suffix: str) -> list[File]:
        """The files whose name ends so, in any case."""
        return [file for file in self.files if split_name(file.path)[2] == suffix]


class Labels(NamedTuple):
    """What a reader of one format found: the ids of images that have a label, and the boxes."""

    known: set[str]
    boxes: list[RawBox]


def match_labels(source: Source, files: Sequence[File]) -> list[tuple[File, Any]]:
    """The label files, one an image, each with the row of its image; the others are noted.

    A label belongs to the image whose path leads to it (see `pairs.label_places`), else to the only image of its stem.
    Raises BadData naming both sides where a label could belong to several images, or an image have several labels.
    """
    by_place: dict[tuple[str, str], list[File]] = defaultdict(list)
    for file in files:
        by_place[label_place(file.path)].append(file)
    claims: dict[str, list[tuple[int, Any]]] = defaultdict(list)  # by the label's path: how directly, and which image
    by_stem: dict[str, list[Any]] = defaultdict(list)
    for row in [*source.images.itertuples(), *map(_Unusable, source.unusable)]:
        by_stem[split_name(row.image_id)[1]].append(row)
        for rank, place in enumerate(label_places(row.image_id)):
            if place in by_place:
                claims[by_place[place][0].path].append((rank, row))
                break
    matched: dict[str, tuple[File, Any]] = {}
    for file in files:
        if found := claims.get(file.path):
            nearest = [row for rank, row in found if rank == min(found, key=lambda claim: claim[0])[0]]
            if len(nearest) > 1:
                raise BadData(_fits_several(file, nearest))
            matched[nearest[0].image_id] = file, nearest[0]
    taken = {file.path for file, _ in matched.values()}
    by_name: dict[str, tuple[File, Any]] = {}
    for file in files:
        if file.path not in taken:
            _match_by_name(file, by_stem.get(split_name(file.path)[1], []), matched, by_name, source.report)
    pairs = []
    for file, row in [*matched.values(), *by_name.values()]:
        if isinstance(row, _Unusable):
            source.report.add(NO_IMAGE, file.place, row.image_id, "its image cannot be read")
        else:
            pairs.append((file, row))
    source.n_test_labels += sum(row.image_id in source.test for _, row in pairs)
    return sorted((pair for pair in pairs if pair[1].image_id not in source.test), key=lambda pair: pair[0].place)


class _Unusable(NamedTuple):
    """A picture file that cannot be read, in the place of an image's row."""

    image_id: str
    archive: str = "."

    @property
    def member(self) -> str:
        return self.image_id


def _match_by_name(
    file: File, rows: Sequence[Any], matched: dict[str, tuple[File, Any]], by_name: dict[str, tuple[File, Any]],
    report: Report,
) -> None:
    """A label that no image's path leads to: to the only image of its stem, if that has no other."""
    with_label = [row for row in rows if row.image_id in matched]
    if not rows:
        report.add(NO_IMAGE, file.place, split_name(file.path)[1])
    elif with_label:
        report.add(DUPLICATE_LABEL, file.place, with_label[0].image_id, f"its label is "
                   f"{matched[with_label[0].image_id][0].place}")
    elif len(rows) > 1:
        raise BadData(_fits_several(file, rows))
    elif rows[0].image_id in by_name:
        raise BadData(f"{file.place}: expected one label of {rows[0].image_id!r}, found two, this and "
                      f"{by_name[rows[0].image_id][0].place}; lay labels out as their images are, or remove one")
    else:
        by_name[rows[0].image_id] = file, rows[0]


def _fits_several(file: File, rows: Sequence[Any]) -> str:
    places = ", ".join(f"{row.archive}/{row.member}" for row in rows[:4])
    return (f"{file.place}: expected a label of one image, found {len(rows)} of its name: {places}; lay labels out as "
            "their images are (images/x/1.jpg and labels/x/1.txt), or rename them")


def measure_images(found: Sequence[File], report: Report) -> pd.DataFrame:
    """The images table with sizes from the headers; `image_id` is the path below the data folder."""
    sizes: dict[str, tuple[File, tuple[int, int]]] = {}
    for file in found:
        if file.path in sizes:  # two spellings of one name: composed and decomposed letters
            report.add(DUPLICATE, file.place, file.path)
            continue
        try:
            sizes[file.path] = file, image_size(file.archive, file.member)
        except ValueError as error:
            report.add(UNREADABLE_IMAGE, file.place, file.path, str(error))
    rows = [(*file, *size) for file, size in sizes.values()]
    return make_images(pd.DataFrame(rows, columns=["image_id", "archive", "member", "width", "height"]))


def keep_labelled(images: pd.DataFrame, labels: Labels, competition: Competition, report: Report) -> pd.DataFrame:
    """The images that have a label, and where the competition says so the others as background; notes the others."""
    has_label = images["image_id"].isin(list(labels.known))
    # A list that cannot be read may hold the labels of any image: none of them is taken for background then.
    as_background = competition.unlabelled == "background" and not any(
        reason == UNREADABLE_LABEL and not image_id for _, image_id, reason, _ in report.rows)
    noted = {row[1] for row in report.rows if row[2] in (UNREADABLE_LABEL, OTHER_SIZE)}
    is_noted = images["image_id"].isin(noted) & ~has_label
    for row in images[~has_label & ~is_noted].itertuples():
        report.add(BACKGROUND if as_background else NO_LABEL, f"{row.archive}/{row.member}", row.image_id,
                   "" if as_background else "`unlabelled: background` in the competition's file would keep it")
    kept = has_label | (~is_noted if as_background else False)
    return images[kept].reset_index(drop=True)


def drop_unusable(images: pd.DataFrame, boxes: pd.DataFrame, known: set[str], report: Report) -> pd.DataFrame:
    """The images without those whose labels are all unusable; notes them, and those without any box."""
    lost = {row[1] for row in report.rows if row[2] in LOST}
    empty = images["image_id"].isin(list(known)) & ~images["image_id"].isin(boxes["image_id"])
    is_unusable = empty & images["image_id"].isin(list(lost))
    for row in images[empty].itertuples():
        report.add(NOTHING_LEFT if row.image_id in lost else EMPTY, f"{row.archive}/{row.member}", row.image_id)
    return images[~is_unusable].reset_index(drop=True)


Change = Callable[[tuple[Any, ...]], tuple[Any, ...]]  # of xyxy corners


def fit_to_image(stated: tuple[Any, Any], row: Any, file: str, report: Report) -> Change | None:
    """What brings corners from the size that a label states to the image as it is shown; None if nothing can.

    A size that is missing or 0 says nothing. Labels of the stored image, before its EXIF turn, are turned with it;
    labels of the image at another size of the same shape are scaled. Both are noted, and so is what fits neither.
    """
    size = (row.width, row.height)
    width, height = (to_number(value) if isinstance(value, str) else value for value in stated)
    if (width, height) == size or not width or not height:
        return lambda corners: corners
    words = f"label {short(width)} x {short(height)}, image {row.width} x {row.height}"
    if not all(is_number(value) and value > 0 for value in (width, height)):
        report.add(OTHER_SIZE, file, row.image_id, words)
        return None
    turn, is_scaled = orientation(row.archive, row.member), _same_shape((width, height), size)
    is_stored = (width, height) == size[::-1] or not is_scaled and _same_shape((width, height), size[::-1])
    if turn in SWAPS_SIDES and is_stored:
        report.add(TURNED, file, row.image_id, words)
        return lambda corners: _turn(_scale(corners, row.height / width, row.width / height), turn, size)
    if is_scaled:
        report.add(SCALED, file, row.image_id, words)
        return lambda corners: _scale(corners, row.width / width, row.height / height)
    report.add(OTHER_SIZE, file, row.image_id, words)
    return None


def _same_shape(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether one size is the other scaled and rounded to whole pixels."""
    scale = second[0] / first[0]
    return abs(first[1] * scale - second[1]) <= max(scale, 1)


def _scale(corners: tuple[Any, ...], x: float, y: float) -> tuple[Any, ...]:
    if not _are_numbers(corners):
        return corners
    return corners[0] * x, corners[1] * y, corners[2] * x, corners[3] * y


def _turn(corners: tuple[Any, ...], turn: int, size: tuple[int, int]) -> tuple[Any, ...]:
    """Corners in the stored image as they are in the image turned by its EXIF orientation to `size`.

    The stored image is `size[1]` wide and `size[0]` high: its x runs along the height of what is shown. Of the four
    orientations that swap sides (EXIF 2.32, section 4.6.4), 6 and 7 begin at the right, 7 and 8 at the bottom.
    """
    if not _are_numbers(corners):
        return corners
    across, along = (corners[1], corners[3]), (corners[0], corners[2])
    if turn in (6, 7):
        across = size[0] - across[1], size[0] - across[0]
    if turn in (7, 8):
        along = size[1] - along[1], size[1] - along[0]
    return across[0], along[0], across[1], along[1]


def clean_boxes(raw: Sequence[RawBox], images: pd.DataFrame, competition: Competition, report: Report) -> pd.DataFrame:
    """The boxes table: numbers, corners in order, clipped to their image, classes known; the rest goes to `report`.

    Boxes of images that are not in `images` are noted as `NO_IMAGE`. A `box_id` counts all boxes that the files have of
    an image, so that it stays what it is when others are left out or no more.
    """
    label_of = functools.cache(competition.label_of)
    labels = [label_of(box.source_name, box.image_id) for box in raw]
    corners, reasons = _check_corners(raw, images)
    is_good = (reasons == "") | (reasons == CLIPPED)
    is_known = np.array([label is not None for label in labels], dtype=bool)
    for row in np.flatnonzero((reasons != "") | ~is_known):
        box = raw[row]
        if is_good[row] and not is_known[row]:
            report.add(UNKNOWN_CLASS, box.file, box.image_id, box.source_name)
        else:
            report.add(reasons[row], box.file, box.image_id, f"{box.source_name} {short(list(box.corners))}")
    kept = np.flatnonzero(is_good & is_known)
    table = pd.DataFrame(corners[kept], columns=XYXY)
    table.insert(0, "box_id", new_box_ids([box.image_id for box in raw], "gold")[kept])
    table.insert(1, "image_id", [raw[row].image_id for row in kept])
    table.insert(2, "label", [labels[row] for row in kept])
    return make_boxes(table)


def _check_corners(raw: Sequence[RawBox], images: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The corners `(N, 4)` clipped to their images, and what is to be noted about each box, the first that holds."""
    size_of = dict(zip(images["image_id"], zip(images["width"], images["height"], strict=True), strict=True))
    sizes = np.array([size_of.get(box.image_id, (-1, -1)) for box in raw], dtype=float).reshape(-1, 2)
    corners = np.array([box.corners if _are_numbers(box.corners) else NO_NUMBERS for box in raw], dtype=float)
    corners = corners.reshape(-1, 4)
    clipped = clip_xyxy(corners, *sizes.clip(0).T)
    reasons = np.select(
        [
            sizes[:, 0] < 0,
            np.isnan(corners[:, 0]),
            (corners[:, :2] > corners[:, 2:]).any(axis=1),
            (corners[:, :2] == corners[:, 2:]).any(axis=1),
            (clipped[:, :2] >= clipped[:, 2:]).any(axis=1),
            (clipped != corners).any(axis=1),
        ],
        [NO_IMAGE, NOT_A_NUMBER, SWAPPED, NO_AREA, OUTSIDE, CLIPPED],
        "",
    )
    return clipped, reasons


def _are_numbers(corners: Collection[Any]) -> bool:
    return len(corners) == 4 and all(map(is_number, corners))
