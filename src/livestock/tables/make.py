"""Tables from records: missing values filled, the columns' types, rows by image."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .columns import (
    BOX_COLUMNS,
    BOX_DTYPES,
    IMAGE_COLUMNS,
    IMAGE_DTYPES,
    KEYPOINT_COLUMNS,
    KEYPOINT_DTYPES,
)
from .ids import new_box_ids

GOLD = {"confidence": 1.0, "source": "gold"}  # what a row is that does not say otherwise


def make_images(records: list[dict] | pd.DataFrame) -> pd.DataFrame:
    """An images table from records; `group` and `fold` are -1 until they are assigned.

    >>> record = {"image_id": "a.jpg", "archive": "train.zip", "member": "a.jpg", "width": 640, "height": 480}
    >>> images = make_images([record])
    >>> images[["group", "fold"]].to_numpy().tolist()  # neither grouped nor split yet
    [[-1, -1]]
    """
    table = pd.DataFrame(records, columns=IMAGE_COLUMNS)
    return _in_order(_fill(table, {"group": -1, "fold": -1}).astype(IMAGE_DTYPES))


def make_boxes(records: list[dict] | pd.DataFrame, origin: str = "") -> pd.DataFrame:
    """A boxes table from records; boxes without a `confidence` and `source` are gold with confidence 1.

    Records without a `box_id` get one from their image and `origin`, by default their `source` (see `ids`): tables of
    one source that are to be concatenated need an origin each. Raises ValueError if some records have a `box_id` and
    others have none, or if it is no whole number.

    >>> boxes = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}])
    >>> boxes[["image_id", "confidence", "source"]].to_numpy().tolist()  # a human box, unless it says otherwise
    [['a.jpg', 1.0, 'gold']]
    """
    table = _fill(pd.DataFrame(records, columns=BOX_COLUMNS), GOLD)
    return _in_order(_with_box_ids(table, origin).astype(BOX_DTYPES))


def _with_box_ids(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """The table with the numbers that it has, or with new ones where it has none at all."""
    given, is_missing = table["box_id"], table["box_id"].isna()
    if not is_missing.any() and len(table):
        return table.assign(box_id=_whole_numbers(given, "box_id"))
    if not is_missing.all():
        row = int(np.flatnonzero(is_missing)[0])
        raise ValueError(f"box_id: row {row}: expected a number, as other rows have one, found none; call make_boxes "
                         "for each table before they are concatenated")
    ids = np.zeros(len(table), np.int64)
    for source, rows in table.groupby("source", sort=False).indices.items():
        ids[rows] = new_box_ids(table["image_id"].to_numpy()[rows], origin or str(source))
    return table.assign(box_id=ids)


def make_keypoints(records: list[dict] | pd.DataFrame) -> pd.DataFrame:
    """A keypoints table from records, each with the `box_id` of its object, in pixels of the image as shown.

    Points without a `confidence` and `source` are gold with confidence 1. Without `visible` a point that has x and y
    is seen (2), and one that has not is not labelled (0). A point that is not labelled gets x and y NaN, whatever the
    record has there: COCO writes (0, 0), which is not a place. Raises ValueError for a `box_id` that is no whole
    number.
    """
    table = _fill(pd.DataFrame(records, columns=KEYPOINT_COLUMNS), GOLD)
    table = table.assign(box_id=_whole_numbers(table["box_id"], "box_id"), x=table["x"].astype(float),
                         y=table["y"].astype(float))
    has_place = table["x"].notna() & table["y"].notna()
    visible = table["visible"].astype(float).fillna(has_place.map({True: 2.0, False: 0.0}).astype(float))
    places = {name: table[name].where(visible != 0) for name in ("x", "y")}
    return _in_order(table.assign(visible=visible, **places).astype(KEYPOINT_DTYPES))


def _whole_numbers(values: pd.Series, name: str) -> pd.Series:
    """A column as int64. Floats are refused: pandas makes them of a column with gaps, and their last digits are lost.

    Raises ValueError naming the column and the row.
    """
    if pd.api.types.is_integer_dtype(values.dtype):
        return values if values.dtype == np.int64 else values.astype("int64")
    is_whole = np.array([isinstance(value, int | np.integer) for value in values], bool)
    if not is_whole.all():
        row = int(np.flatnonzero(~is_whole)[0])
        raise ValueError(f"{name}: row {row}: expected a whole number, found {values.tolist()[row]!r}")
    return values.astype("int64")


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    if table["image_id"].is_monotonic_increasing:  # millions of candidates need not be copied
        return table.reset_index(drop=True)
    return table.sort_values("image_id", kind="stable", ignore_index=True)


def _fill(table: pd.DataFrame, defaults: dict[str, object]) -> pd.DataFrame:
    """Missing values of some columns filled."""
    filled = {name: table[name].astype(object).where(table[name].notna(), value)
              for name, value in defaults.items() if table[name].isna().any() or table.empty}
    return table.assign(**filled)


def by_falling_confidence(boxes: pd.DataFrame) -> pd.DataFrame:
    """The boxes table by image and falling confidence, ties in row order: the order that costs no score.

    >>> boxes = pd.DataFrame({"image_id": ["b.jpg", "a.jpg", "a.jpg"], "confidence": [0.9, 0.2, 0.8]})
    >>> by_falling_confidence(boxes)["confidence"].tolist()
    [0.8, 0.2, 0.9]
    """
    return boxes.sort_values(["image_id", "confidence"], ascending=[True, False], kind="stable", ignore_index=True)
