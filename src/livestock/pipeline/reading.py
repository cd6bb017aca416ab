"""Raw data examined: read, every image decoded once, and what cannot be used left out with a line that says why."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ..config import Competition
from ..data import readers
from ..data.readers import clean
from ..exceptions import BadData

UNDECODABLE = "image that cannot be decoded to its end: left out"


class Examined(NamedTuple):
    """What raw data holds: the tables, the perceptual hash of each training image by `image_id`, and how it was read.

    `why` says why that `reader` was taken; `pictures` are the paths of all picture files found. Each of them is in one
    of the images tables or has a line in `left_out`. `keypoints` are those of the boxes, none where the competition has
    no skeleton; `suggestion` is then the one that the data would give it (see `config.suggest_skeleton`).
    """

    images: pd.DataFrame
    boxes: pd.DataFrame
    left_out: pd.DataFrame
    test_images: pd.DataFrame
    hashes: pd.Series
    reader: str
    why: str
    pictures: list[str]
    keypoints: pd.DataFrame = clean.NO_POINTS
    suggestion: str = ""


def examine(reader: str, data_dir: Path, competition: Competition, *, skip: Collection[Path] = ()) -> Examined:
    """Reads raw data (see `readers.read_data_set`) and decodes every image, so that none stops a run later.

    Images are decoded at a small size, to the end of the file, for their perceptual hashes. Raises BadData for data
    that cannot be read, or of which no image can be used.
    """
    from ..data.folds import hash_images

    found = readers.read_data_set(reader, data_dir, competition, skip=skip)
    test_images = found.train.images.iloc[:0] if found.test is None else found.test.images
    left_out = [found.train.left_out] + ([] if found.test is None else [found.test.left_out])
    hashes, faults = hash_images(pd.concat([found.train.images, test_images], ignore_index=True))
    reasons = {(archive, member): reason for archive, member, reason in faults}
    images, lines = _drop_broken(found.train.images, reasons)
    test_images, test_lines = _drop_broken(test_images, reasons)
    boxes, keypoints = (table[table["image_id"].isin(images["image_id"])].reset_index(drop=True)
                        for table in (found.train.boxes, found.train.keypoints))
    if images.empty:
        raise BadData(f"{data_dir}: none of {len(found.train.images):,} images can be decoded; the first: "
                      f"{lines['file'].iloc[0]}: {lines['detail'].iloc[0]}")
    tables = [*left_out, lines, test_lines]
    return Examined(images, boxes, pd.concat(tables, ignore_index=True), test_images, hashes[images["image_id"]],
                    found.reader, found.why, found.pictures, keypoints, found.suggestion)


def _drop_broken(images: pd.DataFrame, reasons: dict[tuple[str, str], str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The images without those that have a reason, and the lines of those."""
    keys = list(zip(images["archive"], images["member"], strict=True))
    is_broken = pd.Series([key in reasons for key in keys], index=images.index, dtype=bool)
    broken = images[is_broken]
    lines = pd.DataFrame({
        "file": broken["archive"] + "/" + broken["member"], "image_id": broken["image_id"], "reason": UNDECODABLE,
        "detail": [reasons[key] for key in keys if key in reasons]}, columns=clean.LEFT_OUT_COLUMNS, dtype=str)
    return images[~is_broken].reset_index(drop=True), lines
