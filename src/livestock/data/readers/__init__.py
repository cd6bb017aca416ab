"""Readers of label formats: each takes a path and gives the tables and a report of what it left out and why."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...config import Competition
from ...exceptions import BadData
from ...tables import check_boxes, check_images, check_keypoints
from . import aihub, cat_faces, clean, coco, cvat, dlc, open_images, points, points_list, pose_json, tree, voc, yolo
from .clean import Reading
from .recognise import recognise
from .report import Report

__all__ = ["AUTO", "READERS", "DataSet", "Reading", "read", "read_data_set", "read_train_and_test"]

AUTO = "auto"  # in place of a reader's name: the layout is recognised
FORMATS: dict[str, Callable[[clean.Source, Competition], clean.Labels]] = {
    "aihub": aihub.find_labels,
    "cat_faces": cat_faces.find_labels,
    "coco": coco.find_labels,
    "cvat": cvat.find_labels,
    "dlc": dlc.find_labels,
    "open_images": open_images.find_labels,
    "points_list": points_list.find_labels,
    "pose_json": pose_json.find_labels,
    "voc": voc.find_labels,
    "yolo": yolo.find_labels,
}


class DataSet(NamedTuple):
    """A data folder as it was read: by which reader and `why`, the training data, and the images to be answered.

    `test` is None where there are none. `pictures` are the paths of all picture files found, used or not. `suggestion`
    is the skeleton that the data would give a competition that has none, as its file has it, or "".
    """

    reader: str
    why: str
    train: Reading
    test: Reading | None
    pictures: list[str]
    suggestion: str = ""


def read(
    name: str, path: Path, competition: Competition, *, labelled: bool = True, skip: Collection[Path] = ()
) -> Reading:
    """The tables and what was left out, all that lies below `path` or in a zip, read by the reader of this name.

    `labelled=False` reads images alone; folders in `skip` are passed over. Raises ValueError for an unknown reader, a
    path that does not exist or has no image, and for archives that are refused (see `archives.list_members`).
    """
    _check(name, path)
    return _finish(_read(name, path, competition, labelled=labelled, skip=skip), name, path, competition)


def _read(
    name: str, path: Path, competition: Competition, *, labelled: bool = True, skip: Collection[Path] = ()
) -> Reading:
    report = Report()
    source = _look(path, report, skip, is_test=lambda _: False)
    if not labelled:
        return Reading(source.images, clean.clean_boxes([], source.images, competition, report), report.table())
    return _label(recognise(source)[0] if name == AUTO else name, source, competition)


READERS: dict[str, Callable[..., Reading]] = {name: partial(_read, name) for name in FORMATS}  # not checked


def read_train_and_test(
    name: str, path: Path, competition: Competition, *, skip: Collection[Path] = ()
) -> tuple[Reading, Reading | None]:
    """The training data and the test images; see `read_data_set`."""
    found = read_data_set(name, path, competition, skip=skip)
    return found.train, found.test


def read_data_set(name: str, path: Path, competition: Competition, *, skip: Collection[Path] = ()) -> DataSet:
    """A data folder or a zip of one, as downloaded: what lies in a folder `test` is to be answered, the rest trains.

    So does what a YAML of class names has under `test`. Folders of other parts, `train`, `valid` and the like at any
    depth, are training data. Where all images lie in
    `test`, they are training data too. Labels of test images are not read. Raises ValueError as `read`.
    """
    _check(name, path)
    report = Report()
    source = _look(path, report, skip, is_test=_is_test)
    pictures = [*source.images["image_id"], *(row[1] for row in report.rows if row[2] == clean.UNREADABLE_IMAGE)]
    name, why = recognise(source) if name == AUTO else (name, "as asked for")
    in_test = source.images["image_id"].isin(list(source.test))
    test_images = source.images[in_test].reset_index(drop=True)
    train = _label(name, source, competition)
    of_test = train.left_out["image_id"].map(_is_test).astype(bool) & bool(len(test_images))
    test = Reading(test_images, train.boxes.iloc[:0], train.left_out[of_test].reset_index(drop=True))
    train = train._replace(left_out=train.left_out[~of_test].reset_index(drop=True))
    train = _finish(train, name, path, competition)
    return DataSet(name, why, train, _finish(test, name, path, competition) if len(test_images) else None,
                   pictures, points.suggest(source, competition))


def _check(name: str, path: Path) -> None:
    if name not in (*FORMATS, AUTO):
        raise ValueError(f"reader: expected one of {[AUTO, *sorted(FORMATS)]}, found {name!r}")
    if not path.exists():
        raise BadData(f"{path}: expected raw data for the reader {name!r}, found no such path")


def _is_test(image_id: str) -> bool:
    return tree.part_of(image_id) == "test"


def _look(path: Path, report: Report, skip: Collection[Path], is_test: Callable[[str], bool]) -> clean.Source:
    """The files below a path, and the images among them; where all are test images none is."""
    files = tree.list_files(path, report, skip)
    tree.note_unread(files, report)
    images = clean.measure_images(tree.pictures_among(files), report)
    named = yolo.find_test_images(files, images["image_id"]) if is_test is _is_test else set()
    test = frozenset(image_id for image_id in images["image_id"] if is_test(image_id)) | named
    unusable = tuple(row[1] for row in report.rows if row[2] in (clean.UNREADABLE_IMAGE, clean.OTHER_FORMAT))
    return clean.Source(path, files, images, test if len(test) < len(images) else frozenset(), report,
                        unusable=unusable)


def _label(name: str, source: clean.Source, competition: Competition) -> Reading:
    """The labelled images that are not to be answered, their boxes and the points of these."""
    labels, report = FORMATS[name](source, competition), source.report
    images = source.images[~source.images["image_id"].isin(list(source.test))]
    images = clean.keep_labelled(images, labels, competition, report)
    if source.n_test_labels:
        report.add(clean.OF_TEST, str(source.root), "", f"{source.n_test_labels} labels")
    boxes = clean.clean_boxes(labels.boxes, images, competition, report)
    keypoints = points.clean_points(labels.boxes, boxes, images, competition, source)
    images = clean.drop_unusable(images, boxes, labels.known, report)
    return Reading(images, boxes, report.table(), keypoints)


def _finish(reading: Reading, name: str, path: Path, competition: Competition) -> Reading:
    """The tables checked. Raises ValueError where there is no image."""
    if reading.images.empty:
        reasons = "; ".join(f"{n} x {reason}" for reason, n in reading.left_out["reason"].value_counts().items())
        raise BadData(f"{path}: the reader {name!r} found no image to use there ({reasons or 'no image file'})")
    check_images(reading.images, str(path))
    check_boxes(reading.boxes, reading.images, competition.labels, str(path))
    if competition.skeleton is not None:
        check_keypoints(reading.keypoints, reading.boxes, reading.images, competition.skeleton, str(path))
    return reading
