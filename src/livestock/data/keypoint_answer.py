"""A submission of keypoints, a CSV with a row a point: `image_id,label,keypoint,x,y,confidence`, written and read.

Rows are sorted by image; within one, objects and points stay in the order of their tables, which for the points is the
skeleton's. Where an image has several objects a row also has the box of its own, `x_min,y_min,x_max,y_max` and the
box's `box_confidence`, for nothing else says which points belong together. x and y are empty where a point is not
labelled. There is no column for hidden points: they come back as seen.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ..exceptions import BadData
from ..files.write import write_text
from ..tables import XYXY, make_boxes, make_keypoints, new_box_ids
from .readers.points import CENTRE
from .readers.values import is_number, to_number
from .submission import answer_names

logger = logging.getLogger(__name__)
COLUMNS = ["image_id", "label", "keypoint", "x", "y", "confidence"]
BOX_COLUMNS = [*XYXY, "box_confidence"]


def write_keypoints_csv(
    images: pd.DataFrame, boxes: pd.DataFrame, keypoints: pd.DataFrame, path: Path, *, answer_name: str = "path",
    with_boxes: bool | None = None, from_centre: bool = False,
) -> Path:
    """Writes the keypoints of `boxes` in pixels; `answer_name` is how the competition calls an image.

    `with_boxes` writes the columns of boxes always or never; by default they are there where an image has several
    objects. `from_centre` writes the numbers of pixels, for competitions that count from the centre of the first one,
    as OpenCV does. Boxes without a row in `keypoints` have none here, which is logged. Raises BadData for two images of
    one name, for points of a box or image that is not there, and for several objects without their boxes.
    """
    several = bool(boxes["image_id"].duplicated().any())
    if several and with_boxes is False:
        raise BadData(f"{path}: expected one object an image, found several in "
                      f"{boxes.loc[boxes['image_id'].duplicated(), 'image_id'].iloc[0]!r}: nothing but a box would say "
                      "which points belong together")
    if len(strange := keypoints[~keypoints["box_id"].isin(boxes["box_id"])]):
        raise BadData(f"{path}: expected points of the boxes alone, found one of box {strange['box_id'].iloc[0]} in "
                      f"{strange['image_id'].iloc[0]!r}")
    if n_without := int((~boxes["box_id"].isin(keypoints["box_id"])).sum()):
        logger.warning("%s: %s of %s boxes have no keypoints and are not in it", path, n_without, len(boxes))
    names, order = answer_names(images, answer_name), pd.Series(np.arange(len(boxes)), index=boxes["box_id"])
    if len(unknown := boxes[~boxes["image_id"].isin(names.index)]):
        raise BadData(f"{path}: expected boxes of the images alone, found {unknown['image_id'].iloc[0]!r}")
    own = boxes.rename(columns={"confidence": "box_confidence"})[["box_id", "label", *BOX_COLUMNS]]
    rows = keypoints.assign(order=order.reindex(keypoints["box_id"]).to_numpy()).merge(own, on="box_id", how="left")
    rows = rows.sort_values(["image_id", "order"], kind="stable").assign(image_id=rows["image_id"].map(names))
    shift = CENTRE if from_centre else 0.0
    rows = rows.assign(x=rows["x"] - shift, y=rows["y"] - shift)
    columns = COLUMNS + (BOX_COLUMNS if several or with_boxes else [])
    write_text(rows[columns].to_csv(index=False, lineterminator="\n"), path)
    return path


def read_keypoints_csv(
    path: Path, images: pd.DataFrame, *, answer_name: str = "path", from_centre: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The boxes and keypoints of a file that `write_keypoints_csv` wrote, source `model`.

    Without columns of boxes an image's object is the whole picture. A row begins another object where image, class or
    box change, or where its point was there already. Raises BadData naming file and line for other columns, an image
    that is not there, a row of another length, and what is no number.
    """
    names = answer_names(images, answer_name)
    image_of = {name: image_id for image_id, name in names.items()}
    sizes = images.set_index("image_id")[["width", "height"]]
    boxes: list[dict] = []
    points: list[tuple[int, dict]] = []
    last, seen = None, set[str]()
    for where, row in _rows(path):
        if row["image_id"] not in image_of:
            raise BadData(f"{where}: expected one of the images, found {row['image_id']!r}")
        image_id = image_of[row["image_id"]]
        values = _numbers(row, where)
        box = [values[name] for name in XYXY] if "x_min" in row else [0.0, 0.0, *sizes.loc[image_id].tolist()]
        key = (image_id, row["label"], *box, values.get("box_confidence", 1.0))
        if key != last or row["keypoint"] in seen:
            boxes.append({"image_id": image_id, "label": row["label"], **dict(zip(XYXY, box, strict=True)),
                          "confidence": key[-1], "source": "model"})
            last, seen = key, set()
        seen.add(row["keypoint"])
        shift = CENTRE if from_centre else 0.0
        points.append((len(boxes) - 1, {"image_id": image_id, "keypoint": row["keypoint"], "x": values["x"] + shift,
                                        "y": values["y"] + shift, "confidence": values["confidence"],
                                        "source": "model"}))
    ids = new_box_ids([box["image_id"] for box in boxes], "model").tolist()
    table = make_boxes([{"box_id": box_id, **box} for box_id, box in zip(ids, boxes, strict=True)])
    return table, make_keypoints([{"box_id": ids[index], **point} for index, point in points])


def _rows(path: Path) -> list[tuple[str, Mapping[str, str]]]:
    """Where each row stands, and its fields by column."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if header not in (COLUMNS, COLUMNS + BOX_COLUMNS):
            raise BadData(f"{path}: line 1: expected the columns {','.join(COLUMNS)}, perhaps with "
                          f"{','.join(BOX_COLUMNS)}, found {','.join(header)}")
        lines = [(f"{path}: line {reader.line_num}", line) for line in reader if line]
    for where, line in lines:
        if len(line) != len(header):
            raise BadData(f"{where}: expected {len(header)} fields, found {len(line)}")
    return [(where, dict(zip(header, line, strict=True))) for where, line in lines]


def _numbers(row: Mapping[str, str], where: str) -> dict[str, float]:
    """The numbers of a row; x and y may both be empty, which is NaN."""
    is_unlabelled = row["x"] == row["y"] == ""
    values = {}
    for name in row.keys() - {"image_id", "label", "keypoint"}:
        values[name] = float("nan") if name in ("x", "y") and is_unlabelled else to_number(row[name])
        if not is_number(values[name]) and not (name in ("x", "y") and is_unlabelled):
            raise BadData(f"{where}: column {name!r}: expected a number, found {row[name]!r}")
    return values
