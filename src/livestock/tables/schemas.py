"""What the columns of each table must hold, as pandera models.

The models check a table by itself. `check_images`, `check_boxes` and `check_keypoints` also check it against the other
tables, and word the errors. pandera takes half a second to import: import this module when data enters, not before.
"""

from __future__ import annotations

import pandera.pandas as pa
from pandera.typing import Series

from .columns import SOURCES


class Images(pa.DataFrameModel):
    """One row an image. `group` and `fold` are -1 until they are assigned."""

    image_id: Series[str] = pa.Field(unique=True, str_length={"min_value": 1})
    archive: Series[str]
    member: Series[str]
    width: Series[pa.Int64] = pa.Field(ge=1)
    height: Series[pa.Int64] = pa.Field(ge=1)
    group: Series[pa.Int64] = pa.Field(ge=-1)
    fold: Series[pa.Int64] = pa.Field(ge=-1)

    class Config:
        strict = True


class Boxes(pa.DataFrameModel):
    """One row an object, in pixels of the image as shown."""

    box_id: Series[pa.Int64] = pa.Field(ge=0, unique=True)
    image_id: Series[str]
    label: Series[str]
    x_min: Series[pa.Float64] = pa.Field(ge=0)
    y_min: Series[pa.Float64] = pa.Field(ge=0)
    x_max: Series[pa.Float64] = pa.Field(ge=0)
    y_max: Series[pa.Float64] = pa.Field(ge=0)
    confidence: Series[pa.Float64] = pa.Field(in_range={"min_value": 0, "max_value": 1})
    source: Series[str] = pa.Field(isin=SOURCES)

    class Config:
        strict = True


class Keypoints(pa.DataFrameModel):
    """One row a point of an object. `visible`: 0 not labelled (x and y are NaN), 1 hidden, 2 seen."""

    box_id: Series[pa.Int64] = pa.Field(ge=0)
    image_id: Series[str]
    keypoint: Series[str]
    x: Series[pa.Float64] = pa.Field(ge=0, nullable=True)
    y: Series[pa.Float64] = pa.Field(ge=0, nullable=True)
    visible: Series[pa.Int64] = pa.Field(isin=[0, 1, 2])
    confidence: Series[pa.Float64] = pa.Field(in_range={"min_value": 0, "max_value": 1})
    source: Series[str] = pa.Field(isin=SOURCES)

    class Config:
        strict = True
