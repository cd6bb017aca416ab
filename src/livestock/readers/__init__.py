"""Readers of label formats: each takes a path and gives the two tables and a report of what it left out and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..boxes import check_boxes, check_images
from ..config import Competition
from .aihub import read_aihub
from .clean import Reading
from .coco import read_coco
from .open_images import read_open_images
from .voc import read_voc
from .yolo import read_yolo

READERS: dict[str, Callable[..., Reading]] = {
    "aihub": read_aihub,
    "coco": read_coco,
    "open_images": read_open_images,
    "voc": read_voc,
    "yolo": read_yolo,
}


def read(name: str, path: Path, competition: Competition, *, labelled: bool = True) -> Reading:
    """Images, boxes and what was left out, read from `path` by the reader of this name and checked.

    `labelled=False` reads images alone. Raises ValueError for an unknown reader, a path that does not exist, or
    one without any image, and for archives that are refused (see `archives.list_members`).
    """
    if name not in READERS:
        raise ValueError(f"reader: expected one of {sorted(READERS)}, found {name!r}")
    if not path.exists():
        raise ValueError(f"{path}: expected raw data for the reader {name!r}, found no such path")
    reading = READERS[name](path, competition, labelled=labelled)
    if reading.images.empty:
        reasons = "; ".join(f"{n} x {reason}" for reason, n in reading.left_out["reason"].value_counts().items())
        raise ValueError(f"{path}: the reader {name!r} found no image to use there ({reasons or 'no image file'})")
    check_images(reading.images, str(path))
    check_boxes(reading.boxes, reading.images, competition.labels, str(path))
    return reading


def read_train_and_test(name: str, path: Path, competition: Competition) -> tuple[Reading, Reading | None]:
    """The training data and the test images: the folders `train` and `test` of `path`, else all is for training."""
    if (path / "train").is_dir() and (path / "test").is_dir():
        test = read(name, path / "test", competition, labelled=False)
        return read(name, path / "train", competition), test
    return read(name, path, competition), None
