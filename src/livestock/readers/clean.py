"""What all readers share: nothing is left out without a line that says what and why."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..archives import IMAGE_SUFFIXES, Member, find_zips, image_size, list_members, normalise, split_name
from ..boxes import XYXY, clip_xyxy, make_boxes, make_images
from ..config import Competition
from .values import is_number, short

LEFT_OUT_COLUMNS = ["file", "image_id", "reason", "detail"]

NO_LABEL = "image without label: left out"
NO_IMAGE = "label without image: left out"
EMPTY = "image with no box: kept"
UNREADABLE_LABEL = "unreadable label: image left out"
UNREADABLE_IMAGE = "unreadable image: left out"
DUPLICATE = "duplicate image name: left out"
DUPLICATE_LABEL = "second label of one image: left out"
OTHER_SIZE = "size in the label is not the image's: the image's is used"
NOT_A_NUMBER = "box with a coordinate that is no number: left out"
SWAPPED = "box with swapped corners: left out"
NO_AREA = "box without area: left out"
OUTSIDE = "box wholly outside the image: left out"
CLIPPED = "box partly outside the image: clipped"
UNKNOWN_CLASS = "box of an unknown class: left out"
CROWD = "box around a group: left out"
SHARED_ID = "one id of several images: they and their boxes are left out"
UNREADABLE_ROW = "unreadable row: left out"
OTHER_FORMAT = "picture of a format that is not read: left out"
NESTED = "archive that is not read: unpack it first"

NO_NUMBERS = (np.nan,) * 4

OTHER_PICTURES = {".gif", ".heic", ".heif", ".avif", ".jfif", ".jp2", ".psd", ".raw", ".dng"}
OTHER_ARCHIVES = {".7z", ".rar", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".alz", ".egg"}


class Reading(NamedTuple):
    """What a reader returns: the two tables, and a `left_out` table with the columns `file, image_id, reason, detail`.

    `left_out` also lists what was kept but changed; its reasons say which.
    """

    images: pd.DataFrame
    boxes: pd.DataFrame
    left_out: pd.DataFrame


class RawImage(NamedTuple):
    """A picture found: `image_id` is its file name, `archive` and `member` where its bytes are."""

    image_id: str
    archive: str
    member: str


class RawBox(NamedTuple):
    """A box as its source has it, in xyxy pixels but otherwise unchecked; `file` is the label's."""

    file: str
    image_id: str
    source_name: str
    corners: tuple[Any, ...]


class Report:
    """Collects the lines of `left_out`."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []

    def add(self, reason: str, file: str, image_id: str = "", detail: str = "") -> None:
        """Notes one file, image or box. Half surrogates, which JSON can hold and Parquet cannot, are spelt out."""
        row = (text.encode("utf-8", "backslashreplace").decode() for text in (file, image_id, reason, detail))
        self.rows.append((*row,))

    def table(self) -> pd.DataFrame:
        """All lines in order of file and reason."""
        table = pd.DataFrame(self.rows, columns=LEFT_OUT_COLUMNS, dtype=str)
        return table.sort_values(["file", "image_id", "reason"], kind="stable", ignore_index=True)


def find_pictures(path: Path, report: Report) -> list[RawImage]:
    """Every picture file below a folder, in name order, and every picture in its zips."""
    pictures = []
    for archive in [path, *find_zips(path)]:
        for member in list_members(archive):
            file_name, _, suffix = split_name(member.name)
            if suffix in IMAGE_SUFFIXES:
                pictures.append(RawImage(file_name, str(archive), member.raw))
            note_unread(archive, member, report)
    return pictures


def note_unread(archive: Path, member: Member, report: Report) -> None:
    """Notes a picture or an archive of a kind that no reader opens; zips within zips are among them."""
    file_name, _, suffix = split_name(member.name)
    if suffix in OTHER_PICTURES:
        report.add(OTHER_FORMAT, f"{archive}/{member.raw}", file_name)
    elif suffix in OTHER_ARCHIVES or (suffix == ".zip" and archive.is_file()):
        report.add(NESTED, f"{archive}/{member.raw}")


def match_labels(files: Iterable[Path], images: pd.DataFrame, report: Report) -> list[tuple[Path, Any]]:
    """The label files, one a picture, each with the row of the picture of its stem; the others are noted."""
    rows = {PurePosixPath(row.image_id).stem: row for row in images.itertuples()}
    matched: dict[str, tuple[Path, Any]] = {}
    for file in sorted(files):
        stem = normalise(file.stem)
        if stem not in rows:
            report.add(NO_IMAGE, str(file), stem)
        elif stem in matched:
            report.add(DUPLICATE_LABEL, str(file), stem)
        else:
            matched[stem] = file, rows[stem]
    return list(matched.values())


def drop_unlabelled(images: pd.DataFrame, labelled: Collection[str], report: Report) -> pd.DataFrame:
    """The images that have a label file; the others are noted."""
    is_labelled = images["image_id"].isin(list(labelled))
    for row in images[~is_labelled].itertuples():
        report.add(NO_LABEL, f"{row.archive}/{row.member}", row.image_id)
    return images[is_labelled].reset_index(drop=True)


def report_empty(images: pd.DataFrame, with_boxes: Collection[str], report: Report) -> None:
    """Notes images whose label holds no box; they are kept."""
    for row in images[~images["image_id"].isin(list(with_boxes))].itertuples():
        report.add(EMPTY, f"{row.archive}/{row.member}", row.image_id)


def measure_images(found: Sequence[RawImage], report: Report) -> pd.DataFrame:
    """The images table with sizes from the headers; the first of several images of one name counts."""
    sizes: dict[str, tuple[RawImage, tuple[int, int]]] = {}
    for image in found:
        if image.image_id in sizes:
            report.add(DUPLICATE, f"{image.archive}/{image.member}", image.image_id)
            continue
        try:
            sizes[image.image_id] = image, image_size(image.archive, image.member)
        except ValueError as error:
            report.add(UNREADABLE_IMAGE, f"{image.archive}/{image.member}", image.image_id, str(error))
    rows = [(*image, *size) for image, size in sizes.values()]
    return make_images(pd.DataFrame(rows, columns=[*RawImage._fields, "width", "height"]))


def clean_boxes(raw: Sequence[RawBox], images: pd.DataFrame, competition: Competition, report: Report) -> pd.DataFrame:
    """The boxes table: numbers, corners in order, clipped to their image, classes known; the rest goes to `report`.

    Boxes of images that are not in `images` are noted as `NO_IMAGE`.
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
    table.insert(0, "image_id", [raw[row].image_id for row in kept])
    table.insert(1, "label", [labels[row] for row in kept])
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


def _are_numbers(corners: Sequence[Any]) -> bool:
    return len(corners) == 4 and all(map(is_number, corners))
