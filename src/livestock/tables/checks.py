"""Tables are checked once, where data enters: against their schema, and against the tables that they refer to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..config import Skeleton
from ..exceptions import BadData
from .columns import BOX_COLUMNS, IMAGE_COLUMNS, KEYPOINT_COLUMNS, XYXY

ROUNDING = 1e-6  # px by which a coordinate may lie outside its image


def check_images(images: pd.DataFrame, origin: str = "images") -> pd.DataFrame:
    """Returns the images table if it is as `schemas.Images` says. Raises BadData naming `origin`, column and row."""
    _check_schema(images, "Images", IMAGE_COLUMNS, origin)
    return images


def check_boxes(boxes: pd.DataFrame, images: pd.DataFrame, labels: list[str], origin: str = "boxes") -> pd.DataFrame:
    """Returns the boxes table if it is as `schemas.Boxes` says: each `box_id` once, labels known, inside its image.

    Raises BadData that names `origin`, column and row.
    """
    _check_schema(boxes, "Boxes", BOX_COLUMNS, origin)
    check = _Rows(boxes, origin)
    check.known("image_id", images["image_id"], "an image of the images table")
    check.known("label", labels, f"one of {labels}")
    sizes, corners = _sizes(boxes, images), boxes[XYXY].to_numpy()
    check.refuse((corners[:, :2] >= corners[:, 2:]).any(1) | (corners[:, 2:] > sizes + ROUNDING).any(1), lambda row: (
        f"expected x_min < x_max <= width and y_min < y_max <= height, found {corners[row].tolist()} in an image of "
        f"{sizes[row].tolist()}"))
    return boxes


def check_keypoints(
    keypoints: pd.DataFrame, boxes: pd.DataFrame, images: pd.DataFrame, skeleton: Skeleton, origin: str = "keypoints"
) -> pd.DataFrame:
    """Returns the keypoints table if it is as `schemas.Keypoints` says, and fits the other tables.

    `boxes` and `images` are checked already. Each point is one of its box's class in `skeleton`, once, inside the image
    of its box; x and y are NaN where it is not labelled and nowhere else. Raises BadData that names `origin`, column
    and row.
    """
    _check_schema(keypoints, "Keypoints", KEYPOINT_COLUMNS, origin)
    check = _Rows(keypoints, origin)
    check.known("box_id", boxes["box_id"], "the number of a box")
    own = boxes.set_index("box_id")[["image_id", "label"]].loc[keypoints["box_id"]]
    check.same("image_id", own["image_id"].to_numpy(object), "its box's")
    known = [name in skeleton.names(label) for name, label in zip(keypoints["keypoint"], own["label"], strict=True)]
    check.refuse(~np.array(known, bool), lambda row: (
        f"column 'keypoint': expected one of {skeleton.names(own['label'].iloc[row])}, which the skeleton has for "
        f"{own['label'].iloc[row]!r}, found {keypoints['keypoint'].iloc[row]!r}"))
    check.refuse(keypoints.duplicated(["box_id", "keypoint"]).to_numpy(), lambda row: (
        f"column 'keypoint': expected each once for a box, found {keypoints['keypoint'].iloc[row]!r} a second time"))
    points, visible = keypoints[["x", "y"]].to_numpy(), keypoints["visible"].to_numpy()
    check.refuse((np.isnan(points) != (visible == 0)[:, None]).any(1), lambda row: (
        f"columns 'x', 'y': expected NaN where visible is 0 and numbers elsewhere, found {points[row].tolist()} with "
        f"visible {visible[row]}"))
    sizes = _sizes(keypoints, images)
    check.refuse((points > sizes + ROUNDING).any(1), lambda row: (
        f"columns 'x', 'y': expected x <= width and y <= height, found {points[row].tolist()} in an image of "
        f"{sizes[row].tolist()}"))
    return keypoints


def _sizes(table: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    """Width and height of each row's image, `(N, 2)`."""
    return images.set_index("image_id").loc[table["image_id"], ["width", "height"]].to_numpy()


class _Rows:
    """Refuses a table for its first row that is wrong."""

    def __init__(self, table: pd.DataFrame, origin: str) -> None:
        self.table, self.origin = table, origin

    def refuse(self, wrong: np.ndarray, describe: Any) -> None:
        """Raises BadData for the first row that is `wrong`, `(N,)` of bool, with what `describe(row)` says of it."""
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise BadData(f"{self.origin}: row {row} ({self.table['image_id'].iloc[row]}): {describe(row)}")

    def known(self, column: str, values: Sequence[Any] | pd.Series, expected: str) -> None:
        """Raises BadData for the first row whose value is none of these."""
        self.refuse(~self.table[column].isin(list(values)).to_numpy(), lambda row: (
            f"column {column!r}: expected {expected}, found {self.table[column].tolist()[row]!r}"))

    def same(self, column: str, values: np.ndarray, whose: str) -> None:
        """Raises BadData for the first row whose value is not this one."""
        self.refuse(self.table[column].to_numpy(object) != values, lambda row: (
            f"column {column!r}: expected {whose}, {values[row]!r}, found {self.table[column].tolist()[row]!r}"))


def _check_schema(table: pd.DataFrame, name: str, columns: list[str], origin: str) -> None:
    """Raises BadData that names `origin`, column and row if a table is not as the schema of this name says."""
    if missing := [column for column in columns if column not in table]:
        raise BadData(f"{origin}: column {missing[0]!r}: expected it, found only {list(table)}")
    if unknown := [column for column in table if column not in columns]:
        raise BadData(f"{origin}: column {unknown[0]!r}: expected only {columns}")
    import pandera.pandas as pa  # half a second to import: only where data enters

    from . import schemas

    try:
        getattr(schemas, name).validate(table.reset_index(drop=True))
    except pa.errors.SchemaError as error:
        raise BadData(f"{origin}: {_describe(error, table)}") from error


def _describe(error: Any, table: pd.DataFrame) -> str:
    """The column, and the first row that a schema refuses, in words."""
    column, cases = error.schema.name, error.failure_cases
    if not isinstance(cases, pd.DataFrame):  # the type of the whole column
        return f"column {column!r}: expected {error.check}, found {cases}"
    row, value = cases["index"].iloc[0], cases["failure_case"].iloc[0]
    if pd.isna(row):  # a row that the failure does not name
        return f"column {column!r}: {error}"
    if error.reason_code is not None and error.reason_code.name == "SERIES_CONTAINS_DUPLICATES":
        again = cases["index"][cases["failure_case"] == value].iloc[1]
        return (f"row {again} ({table['image_id'].iloc[again]}): column {column!r}: expected each value once, found "
                f"{table[column].tolist()[again]!r}, which row {row} has")
    expected = getattr(error.check, "error", None) or error.check
    return (f"row {row} ({table['image_id'].iloc[row]}): column {column!r}: expected {expected}, found "
            f"{table[column].tolist()[row]!r}")
