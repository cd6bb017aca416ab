"""The H5 that DeepLabCut writes: a pandas table in the fixed format, read without PyTables and without `pickle`.

`df.to_hdf(path, key="df_with_missing", mode="w")` keeps columns and rows as levels and codes: `axis0_level1` holds the
body parts' names, `axis0_label1` the number of the name of each column; `axis1` is the pictures, with levels where
their path has three parts. Numbers are in blocks of columns, `block0_values`, whose columns have levels of their own.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from ...exceptions import BadData
from .tree import File

KEY = "df_with_missing"
N_LEVELS = 3  # scorer, bodyparts, coords
MOST_VALUES = 50_000_000
ADVICE = "use the CSV that DeepLabCut writes beside it"


def read_grid(file: File) -> list[tuple[int, list[str]]]:
    """The lines of the CSV that DeepLabCut would write of an H5, each with its number: three of names, one a picture.

    Raises BadData naming the file without h5py, and for one that is damaged or of pandas' other format.
    """
    try:
        import h5py
    except ImportError as error:
        raise BadData(f"{file.place}: expected h5py to read it: pip install h5py, or {ADVICE}") from error
    try:
        with h5py.File(io.BytesIO(file.read()), "r") as content:
            return _read(content)
    except (OSError, KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError) as error:
        raise BadData(f"{file.place}: expected a table {KEY!r} as pandas writes it in its fixed format, found "
                      f"{type(error).__name__}: {error!s:.200}; {ADVICE}") from error


def _read(content: Any) -> list[tuple[int, list[str]]]:
    group = content[KEY]
    kind = _text(group.attrs["pandas_type"])
    if kind != "frame":  # a `frame_table` has its columns' names in pickles
        raise BadData(f"pandas' format {kind!r}, whose names are pickled")
    columns, rows = _index(group, "axis0"), _index(group, "axis1")
    if len(columns) * len(rows) > MOST_VALUES:
        raise BadData(f"{len(columns)} columns of {len(rows)} rows")
    if any(len(column) != N_LEVELS for column in columns):
        raise BadData(f"columns of {len(columns[0])} names: tables of several animals an image are not read")
    values = np.full((len(rows), len(columns)), np.nan)
    for number in range(int(group.attrs["nblocks"])):
        places = [columns.index(name) for name in _index(group, f"block{number}_items", N_LEVELS)]
        block = group[f"block{number}_values"]
        values[:, places] = np.asarray(block if block.attrs.get("transposed") else block[()].T, float)
    blank = [""] * (len(rows[0]) - 1 if rows else 0)
    names = [(name, [name, *blank, *(column[level] for column in columns)])
             for level, name in enumerate(["scorer", "bodyparts", "coords"])]
    lines = [line for _, line in names] + [
        [*path, *("" if math.isnan(value) else repr(float(value)) for value in line)]
        for path, line in zip(rows, values, strict=True)]
    return list(enumerate(lines, 1))


def _index(group: Any, name: str, n_levels: int = 0) -> list[tuple[str, ...]]:
    """The entries of an index, each as many texts as it has levels; `n_levels` where no attribute says it."""
    if name in group:
        return [(_text(value),) for value in group[name][()]]
    n_levels = int(group.attrs.get(f"{name}_nlevels", n_levels))
    if not 0 < n_levels < 10:
        raise BadData(f"an index {name} of {n_levels} levels")
    levels = [["" if value is None else _text(value) for value in group[f"{name}_level{level}"][()]]
              for level in range(n_levels)]
    codes = [group[f"{name}_label{level}"][()].tolist() for level in range(n_levels)]
    return [tuple(level[code] if code >= 0 else "" for level, code in zip(levels, entry, strict=True))
            for entry in zip(*codes, strict=True)]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
