"""Groups that people know (a clip, a camera, a farm), from paths or a file, united with groups of near-duplicates."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ...exceptions import BadData

GROUPS_NAME = "groups.csv"  # in the data folder: which images belong together, where their paths do not say it
COLUMNS = ["image_id", "group"]
N_FAULTS = 20  # of a file are shown


def groups_by_pattern(image_ids: Iterable[str], pattern: str) -> pd.Series:
    """What the groups of a regular expression catch in each image's path: a tuple by `image_id`, None where nothing.

    Images with equal tuples belong together. Raises ValueError for what is no pattern, for one without a group, or one
    that is found in no image.

    >>> groups_by_pattern(["farm1/cam2/0001.jpg", "other.jpg"], "(farm[0-9]+)/(cam[0-9]+)/").tolist()
    [('farm1', 'cam2'), None]
    """
    try:
        searched = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"group_pattern: expected a regular expression, found {pattern!r}: {error}") from error
    if searched.groups < 1:
        raise ValueError(f"group_pattern: expected a pattern with a group in round brackets, found {pattern!r}")
    ids = list(image_ids)
    found = [match.groups() if (match := searched.search(image_id)) else None for image_id in ids]
    found = [None if caught is None or not any(caught) else caught for caught in found]
    if ids and not any(found):
        raise ValueError(f"group_pattern: {pattern!r} is found in none of {len(ids):,} images, such as {ids[0]!r}")
    return pd.Series(found, index=pd.Index(ids, name="image_id"), name="group", dtype=object)


def read_groups(path: Path, image_ids: Iterable[str]) -> pd.Series:
    """The group of each image that a CSV with the columns `image_id,group` lists: a text by `image_id`.

    An image is named by its path below the data folder, or by its file name where only one of `image_ids` has it. A
    row without a group says nothing. Raises BadData with line and reason of all rows that are wrong: an image that
    is not there, is listed twice, or whose file name several images have.
    """
    ids = list(image_ids)
    known, by_name = set(ids), defaultdict(list)
    for image_id in ids:
        by_name[image_id.rpartition("/")[2]].append(image_id)
    found: dict[str, str] = {}
    first_line: dict[str, int] = {}
    faults = []
    for line, name, group in _read_rows(path):
        matches = [name] if name in known else by_name.get(name, [])
        if len(matches) != 1:
            faults.append(f"line {line}: no image {name!r}" if not matches else
                          f"line {line}: {len(matches)} images are called {name!r}, such as {matches[0]} and "
                          f"{matches[1]}: write the path")
        elif matches[0] in first_line:
            faults.append(f"line {line}: {name!r} is in line {first_line[matches[0]]} already")
        else:
            first_line[matches[0]] = line
            if group:
                found[matches[0]] = group
    if faults:
        more = [f"and {len(faults) - N_FAULTS:,} more"] if len(faults) > N_FAULTS else []
        example = f"; an image is named like {ids[0]!r}" if ids else ""
        raise BadData("\n".join([f"{path}: rows that do not fit the images: {len(faults):,}{example}",
                                 *faults[:N_FAULTS], *more]))
    return pd.Series(found, dtype=object, name="group").rename_axis("image_id")


def _read_rows(path: Path) -> list[tuple[int, str, str]]:
    """Line, image and group of each row that is not blank."""
    rows = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if missing := [name for name in COLUMNS if name not in header]:
                raise BadData(f"{path}: line 1: missing column {missing[0]!r}; expected {','.join(COLUMNS)}, found "
                              f"{','.join(header)!r}")
            places = [header.index(name) for name in COLUMNS]
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) <= max(places):
                    raise BadData(f"{path}: line {reader.line_num}: expected {len(header)} values, found {len(row)}")
                rows.append((reader.line_num, row[places[0]].strip(), row[places[1]].strip()))
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: expected UTF-8 text: {error}") from error
    except csv.Error as error:
        raise BadData(f"{path}: expected comma-separated values: {error}") from error
    return rows


def unite_groups(groups: pd.Series, others: Sequence[pd.Series]) -> pd.Series:
    """Groups joined wherever another series by `image_id` has one value for images of two of them.

    Index as `groups`; numbered from 0 in order of first image. What `others` leave out or have as None joins nothing.

    >>> unite_groups(pd.Series([0, 0, 1, 2], list("abcd")), [pd.Series(["barn", "barn"], list("bd"))]).tolist()
    [0, 0, 1, 0]
    """
    own, n_nodes = pd.factorize(groups)[0], groups.nunique()
    pairs = [np.zeros((0, 2), int)]
    for other in others:
        codes, names = pd.factorize(other.reindex(groups.index))  # -1 for what is missing
        pairs.append(np.column_stack([own, n_nodes + codes])[codes >= 0])
        n_nodes += len(names)
    first, second = np.concatenate(pairs).T
    links = coo_matrix((np.ones(len(first)), (first, second)), shape=(n_nodes, n_nodes))
    _, component = connected_components(links, directed=False)
    numbers, _ = pd.factorize(component[own])
    return pd.Series(numbers.astype("int64"), index=groups.index, name="group")
