"""The tables that everything is made of: constructors, checks, Parquet.

Boxes are `xyxy`: `x_min, y_min, x_max, y_max` in pixels of the image as shown, origin at the top left corner of the top
left pixel, float. Keypoints are `x, y` in the same frame. Other layouts (`xywh` of COCO, `cxcywhn` of YOLO) exist only
where a format that needs them is read or written. `schemas` says what each column holds, `ids` what a `box_id` is.
"""

from .checks import check_boxes, check_images, check_keypoints
from .columns import (
    BOX_COLUMNS,
    BOX_DTYPES,
    IMAGE_COLUMNS,
    IMAGE_DTYPES,
    KEYPOINT_COLUMNS,
    KEYPOINT_DTYPES,
    SOURCES,
    XYXY,
)
from .ids import first_box_id, new_box_ids
from .make import by_falling_confidence, make_boxes, make_images, make_keypoints
from .parquet import read_table, write_table
from .points import list_points

__all__ = [
    "BOX_COLUMNS", "BOX_DTYPES", "IMAGE_COLUMNS", "IMAGE_DTYPES", "KEYPOINT_COLUMNS", "KEYPOINT_DTYPES", "SOURCES",
    "XYXY", "by_falling_confidence", "check_boxes", "check_images", "check_keypoints", "first_box_id", "list_points",
    "make_boxes", "make_images", "make_keypoints", "new_box_ids", "read_table", "write_table",
]
