"""The two tables that everything is made of, their checks, and geometry on `(N, 4)` arrays.

Boxes are `xyxy`: `x_min, y_min, x_max, y_max` in pixels of the original image, origin at the top left, float.
Other layouts (`xywh` of COCO, `cxcywhn` of YOLO) exist only where a format that needs them is read or written.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from .exceptions import BadData

XYXY = ["x_min", "y_min", "x_max", "y_max"]
IMAGE_COLUMNS = ["image_id", "archive", "member", "width", "height", "group", "fold"]
BOX_COLUMNS = ["image_id", "label", *XYXY, "confidence", "source"]
SOURCES = ["gold", "silver", "model"]
CHUNK = 500_000  # rows that are written at a time
IMAGE_DTYPES = {"image_id": "str", "archive": "str", "member": "str", "width": "int64", "height": "int64",
                "group": "int64", "fold": "int64"}
BOX_DTYPES = {"image_id": "str", "label": "str", **dict.fromkeys(XYXY, "float64"), "confidence": "float64",
              "source": "str"}


def make_images(records: list[dict] | pd.DataFrame) -> pd.DataFrame:
    """An images table from records; `group` and `fold` are -1 until they are assigned."""
    return _in_order(_with_defaults(pd.DataFrame(records, columns=IMAGE_COLUMNS), {"group": -1, "fold": -1},
                                    IMAGE_DTYPES))


def make_boxes(records: list[dict] | pd.DataFrame) -> pd.DataFrame:
    """A boxes table from records; boxes without a `confidence` and `source` are gold with confidence 1."""
    defaults = {"confidence": 1.0, "source": "gold"}
    return _in_order(_with_defaults(pd.DataFrame(records, columns=BOX_COLUMNS), defaults, BOX_DTYPES))


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    if table["image_id"].is_monotonic_increasing:  # millions of candidates need not be copied
        return table.reset_index(drop=True)
    return table.sort_values("image_id", kind="stable", ignore_index=True)


def _with_defaults(table: pd.DataFrame, defaults: dict[str, object], dtypes: dict[str, str]) -> pd.DataFrame:
    """Missing values of some columns filled, and the schema's types; an empty column comes as floats from pandas."""
    filled = {name: table[name].astype(object).where(table[name].notna(), value)
              for name, value in defaults.items() if table[name].isna().any() or table.empty}
    return table.assign(**filled).astype(dtypes)


def check_images(images: pd.DataFrame, origin: str = "images") -> pd.DataFrame:
    """Returns the images table as its schema has it. Raises BadData that names `origin`, column and row."""
    import pandera.pandas as pa  # half a second to import: only where data enters

    schema = pa.DataFrameSchema(
        {
            "image_id": pa.Column(str, pa.Check.str_length(min_value=1), unique=True),
            "archive": pa.Column(str),
            "member": pa.Column(str),
            "width": pa.Column("int64", pa.Check.ge(1)),
            "height": pa.Column("int64", pa.Check.ge(1)),
            "group": pa.Column("int64", pa.Check.ge(-1)),
            "fold": pa.Column("int64", pa.Check.ge(-1)),
        },
        strict=True,
    )
    return _validate(schema, images, origin)


def check_boxes(boxes: pd.DataFrame, images: pd.DataFrame, labels: list[str], origin: str = "boxes") -> pd.DataFrame:
    """Returns the boxes table as its schema has it: labels known, corners ordered, inside their image.

    Raises BadData that names `origin`, column and row.
    """
    import pandera.pandas as pa

    schema = pa.DataFrameSchema(
        {
            "image_id": pa.Column(str, pa.Check.isin(set(images["image_id"]))),
            "label": pa.Column(str, pa.Check.isin(labels)),
            **{name: pa.Column("float64", pa.Check.ge(0)) for name in XYXY},
            "confidence": pa.Column("float64", pa.Check.in_range(0, 1)),
            "source": pa.Column(str, pa.Check.isin(SOURCES)),
        },
        strict=True,
    )
    boxes = _validate(schema, boxes, origin)
    sizes = images.set_index("image_id").loc[boxes["image_id"], ["width", "height"]].to_numpy()
    corners = boxes[XYXY].to_numpy()
    wrong = (corners[:, :2] >= corners[:, 2:]).any(1) | (corners[:, 2:] > sizes + 1e-6).any(1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise BadData(
            f"{origin}: row {row} ({boxes['image_id'].iloc[row]}): expected x_min < x_max <= width and y_min < y_max "
            f"<= height, found {corners[row].tolist()} in an image of {sizes[row].tolist()}"
        )
    return boxes


def _validate(schema: object, table: pd.DataFrame, origin: str) -> pd.DataFrame:
    import pandera.pandas as pa

    assert isinstance(schema, pa.DataFrameSchema)  # noqa: S101 - for the type checker
    try:
        return schema.validate(table)
    except pa.errors.SchemaError as error:
        column = getattr(error.schema, "name", None)
        raise BadData(f"{origin}: column {column!r}: {error}") from error


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """Writes Parquet whole or not at all: beside the target, flushed, then renamed onto it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    if len(table) <= CHUNK:
        table.to_parquet(beside, index=False, use_dictionary=_repeating(table))
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
    with parquet.ParquetWriter(path, schema, use_dictionary=_repeating(table)) as writer:
        for start in range(0, len(table), CHUNK):
            chunk = table.iloc[start : start + CHUNK]
            writer.write_table(pyarrow.Table.from_pandas(chunk, schema=schema, preserve_index=False))


def _repeating(table: pd.DataFrame) -> list[str]:
    """Columns in which values come again. Among coordinates few do: a dictionary of them takes time and room."""
    return [name for name in table if table[name].dtype.kind != "f"]


def by_falling_confidence(boxes: pd.DataFrame) -> pd.DataFrame:
    """The boxes table by image and falling confidence, ties in row order: the order that costs no score."""
    return boxes.sort_values(["image_id", "confidence"], ascending=[True, False], kind="stable", ignore_index=True)
