"""Tables as Parquet files: written whole or not at all, and read without a second copy of millions of rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

CHUNK = 500_000  # rows that are written at a time


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """Writes Parquet whole or not at all: beside the target, flushed, then renamed onto it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    if len(table) <= CHUNK:
        table.to_parquet(beside, index=False, **_encodings(table))
    else:
        _write_in_chunks(table, beside)
    with open(beside, "rb") as file:
        os.fsync(file.fileno())
    os.replace(beside, path)
    return path


def read_table(path: Path) -> pd.DataFrame:
    """Reads Parquet a column at a time: with millions of rows, reading all at once takes three times their memory."""
    import pyarrow
    from pyarrow import parquet

    columns = {}
    for name in parquet.read_schema(path).names:
        columns[name] = pd.read_parquet(path, columns=[name])[name]
        pyarrow.default_memory_pool().release_unused()
    return pd.DataFrame(columns, copy=False)


def _write_in_chunks(table: pd.DataFrame, path: Path) -> None:
    """Without a second copy of millions of rows."""
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.Schema.from_pandas(table.iloc[:1], preserve_index=False)
    with parquet.ParquetWriter(path, schema, **_encodings(table)) as writer:
        for start in range(0, len(table), CHUNK):
            chunk = table.iloc[start : start + CHUNK]
            writer.write_table(pyarrow.Table.from_pandas(chunk, schema=schema, preserve_index=False))


def _encodings(table: pd.DataFrame) -> dict[str, Any]:
    """How columns are written, as Parquet's writer takes it.

    A dictionary where values come again: among coordinates few do, and it would only take time and room. Numbers of
    boxes are counted up, so their differences take hardly any room.
    """
    repeating = [name for name in table if table[name].dtype.kind != "f" and name != "box_id"]
    counted = {name: "DELTA_BINARY_PACKED" for name in ("box_id",) if name in table}
    return {"use_dictionary": repeating, "column_encoding": counted or None}
