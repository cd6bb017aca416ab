"""Open Images: public photographs (CC BY 2.0) with boxes, for those without an AI Hub account; with a downloader."""

from __future__ import annotations

import csv
import io
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from ...config import Competition
from ...exceptions import BadData
from ...files.progress import progress
from ..archives import image_size, split_name
from . import clean
from .tree import File
from .values import is_number, to_number

TABLES_URL = "https://storage.googleapis.com/openimages"
TABLES = {
    "validation": "v5/validation-annotations-bbox.csv",
    "test": "v5/test-annotations-bbox.csv",
    "train": "v6/oidv6-train-annotations-bbox.csv",  # 2.3 GB
}
DESCRIPTIONS = "v5/class-descriptions-boxable.csv"
IMAGES_URL = "https://open-images-dataset.s3.amazonaws.com"
COLUMNS = ["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax", "IsGroupOf"]
BOXES_MARK, DESCRIPTIONS_MARK = "bbox", "class-descriptions"  # in the names of tables
N_TRIES = 4


def find_labels(source: clean.Source, competition: Competition) -> clean.Labels:
    """The box tables (`*bbox*.csv`), whose `ImageID` is the stem of a picture, wherever it lies.

    Corners are relative to the picture; class codes are named by `*class-descriptions*.csv`. Boxes around groups are
    left out. Rows of pictures that are not there are counted in one line of the report. Raises ValueError for a table
    that is none, and naming both for two pictures of a stem that a table has.
    """
    by_id: dict[str, list[Any]] = defaultdict(list)
    for row in source.images.itertuples():
        by_id[split_name(row.image_id)[1]].append(row)
    tables = source.with_suffix(".csv")
    names = _class_names([(file.place, file.read()) for file in tables if DESCRIPTIONS_MARK in _name(file)])
    boxes: list[clean.RawBox] = []
    known: set[str] = set()
    for file in tables:
        if BOXES_MARK in _name(file):
            boxes += _raw_boxes(file, by_id, names, known, source)
    return clean.Labels(known, boxes)


def _name(file: File) -> str:
    return file.path.rpartition("/")[2].lower()


def _raw_boxes(
    file: File, by_id: dict[str, list[Any]], names: dict[str, str], known: set[str], source: clean.Source
) -> list[clean.RawBox]:
    """The boxes of one table; its pictures go into `known`, and what a table before has of one counts."""
    table, boxes, found = _read_table(file.place, file.read()), [], set()
    is_here = table["ImageID"].isin(list(by_id))
    if n_elsewhere := int((~is_here).sum()):
        source.report.add(clean.NO_IMAGE, file.place, "", f"{n_elsewhere} boxes of pictures that are not here")
    for number, box in zip(table.index[is_here] + 2, table[is_here].itertuples(), strict=True):
        row, *others = by_id[box.ImageID]
        name, where = names.get(box.LabelName, box.LabelName), f"{file.place}:{number}"
        if others:
            raise BadData(f"{where}: expected one picture of the id {box.ImageID!r}, found {row.image_id} and "
                          f"{others[0].image_id}; rename or remove one")
        if row.image_id in source.test:
            source.n_test_labels += 1
            continue
        found.add(row.image_id)
        if row.image_id in known:
            source.report.add(clean.DUPLICATE_LABEL, where, row.image_id, name)
        elif box.IsGroupOf not in ("1", "0", "-1"):  # the last column: a row that is cut short lacks it
            source.report.add(clean.UNREADABLE_ROW, where, row.image_id, f"{','.join(tuple(box)[1:]):.200}")
        elif box.IsGroupOf == "1":
            source.report.add(clean.CROWD, where, row.image_id, name)
        else:
            boxes.append(clean.RawBox(where, row.image_id, name, _corners(box, row)))
    known |= found
    return boxes


def download_open_images(
    directory: Path,
    competition: Competition,
    *,
    split: str = "validation",
    limit: int = 500,
    tables_url: str = TABLES_URL,
    images_url: str = IMAGES_URL,
    n_threads: int = 8,
) -> pd.DataFrame:
    """Downloads pictures that show the competition's classes, and their boxes; returns those it could not get.

    Takes the first `limit` pictures in order of their ids; what is there already is kept, so a second call goes on.
    The returned table (`image_id, reason`) is also written to `not_downloaded.csv`.
    Raises ValueError for an unknown split, classes that Open Images does not have, or tables that cannot be had.
    """
    if split not in TABLES:
        raise ValueError(f"split: expected one of {sorted(TABLES)}, found {split!r}")
    for name in (DESCRIPTIONS, TABLES[split]):
        if not (target := directory / Path(name).name).exists() and (why := _download(f"{tables_url}/{name}", target)):
            raise ValueError(f"{tables_url}/{name}: cannot be downloaded: {why}")
    names = _class_names([_place_and_bytes(directory / Path(DESCRIPTIONS).name)])
    codes = {code for code, name in names.items() if competition.label_of(name)}
    if not codes:
        raise ValueError(f"Open Images has no class of these names: {competition.classes}")
    table = _read_table(*_place_and_bytes(directory / Path(TABLES[split]).name))
    wanted = sorted(table.loc[table["LabelName"].isin(list(codes)), "ImageID"].unique())[:limit]

    def fetch(image_id: str) -> tuple[str, str]:
        return image_id, _download_picture(f"{images_url}/{split}/{image_id}.jpg", directory / f"images/{image_id}.jpg")

    with ThreadPoolExecutor(n_threads) as pool:
        results = list(progress(pool.map(fetch, wanted), "Open Images", unit="image", total=len(wanted)))
    missing = pd.DataFrame([row for row in results if row[1]], columns=["image_id", "reason"])
    missing.to_csv(directory / "not_downloaded.csv", index=False)
    return missing


def _download_picture(url: str, target: Path) -> str:
    """Downloads one picture unless it is there; why it could not, or an empty string."""
    if target.exists():
        return ""
    if why := _download(url, target):
        return why
    try:
        image_size(str(target.parent), target.name)
    except ValueError as error:
        target.unlink()
        return str(error)
    return ""


def _download(url: str, target: Path) -> str:
    """Downloads a file whole, beside its place and then renamed, with growing waits between tries; why not, or ''."""
    import requests

    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.part")
    why = ""
    for attempt in range(N_TRIES):
        try:
            with requests.get(url, stream=True, timeout=30) as answer:
                if 400 <= answer.status_code < 500:  # it will not be there next time either
                    return f"status {answer.status_code}"
                answer.raise_for_status()
                with open(beside, "wb") as file:
                    for block in answer.iter_content(1 << 20):
                        file.write(block)
            stated = answer.headers.get("Content-Length")
            if stated is None or int(stated) == beside.stat().st_size:
                os.replace(beside, target)
                return ""
            why = f"expected {stated} bytes, got {beside.stat().st_size}"
        except requests.RequestException as error:
            why = f"{type(error).__name__}: {error}"
        time.sleep(0.5 * 2**attempt)
    beside.unlink(missing_ok=True)
    return why


def _place_and_bytes(path: Path) -> tuple[str, bytes]:
    return str(path), path.read_bytes()


def _class_names(tables: Sequence[tuple[str, bytes]]) -> dict[str, str]:
    """Class code such as /m/01xq0k1 to name such as Cattle, from tables without a header: their names and bytes."""
    names: dict[str, str] = {}
    for place, content in tables:
        table = _read_csv(place, content, header=None)
        if len(table.columns) != 2:
            raise BadData(f"{place}: expected two columns, code and name, found {len(table.columns)}")
        names |= dict(zip(table[0], table[1], strict=True))
    return names


def _read_csv(place: str, content: bytes, **options: Any) -> pd.DataFrame:
    """All values as text. Raises ValueError naming the file for what is no CSV or has rows longer than its first."""
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8-sig", **options)
    except ValueError as error:  # pandas' own are among them, and they do not name the file
        raise BadData(f"{place}: expected a CSV: {error}") from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes what is too much for row names
        raise BadData(f"{place}: expected {len(table.columns)} fields a row as in its header, found more")
    return table


def _read_table(place: str, content: bytes) -> pd.DataFrame:
    # Nothing is quoted there: a stray quote must not swallow rows.
    table = _read_csv(place, content, quoting=csv.QUOTE_NONE)
    if missing := [name for name in COLUMNS if name not in table]:
        raise BadData(f"{place}: expected the columns {COLUMNS}, {missing[0]!r} is missing")
    if doubled := [name for name in COLUMNS if f"{name}.1" in table]:  # pandas numbers them
        raise BadData(f"{place}: expected the columns {COLUMNS}, {doubled[0]!r} is there twice")
    return table[COLUMNS]


def _corners(box: Any, row: Any) -> tuple[Any, ...]:
    values = [(to_number(box.XMin), row.width), (to_number(box.YMin), row.height),
              (to_number(box.XMax), row.width), (to_number(box.YMax), row.height)]
    return tuple(value * size if is_number(value) else value for value, size in values)
