"""Names and types of the tables' columns."""

from __future__ import annotations

XYXY = ["x_min", "y_min", "x_max", "y_max"]
SOURCES = ["gold", "silver", "model"]
IMAGE_COLUMNS = ["image_id", "archive", "member", "width", "height", "group", "fold"]
BOX_COLUMNS = ["box_id", "image_id", "label", *XYXY, "confidence", "source"]
KEYPOINT_COLUMNS = ["box_id", "image_id", "keypoint", "x", "y", "visible", "confidence", "source"]
IMAGE_DTYPES = {"image_id": "str", "archive": "str", "member": "str", "width": "int64", "height": "int64",
                "group": "int64", "fold": "int64"}
BOX_DTYPES = {"box_id": "int64", "image_id": "str", "label": "str", **dict.fromkeys(XYXY, "float64"),
              "confidence": "float64", "source": "str"}
KEYPOINT_DTYPES = {"box_id": "int64", "image_id": "str", "keypoint": "str", "x": "float64", "y": "float64",
                   "visible": "int64", "confidence": "float64", "source": "str"}
