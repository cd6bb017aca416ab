"""Keypoints that are submitted and scored: a CSV with a row a point, written and read, and COCO's JSON, read.

The CSV has `image_id,object,keypoint,x,y,confidence`; `object` counts those of an image from 0. Where an image has
several objects each row also has the `label`, the corners and the `object_confidence` of its own. x and y are empty
where a point is not labelled. There is no column for hidden points: they come back as seen.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..exceptions import BadData
from ..files.write import write_text
from ..tables import XYXY, make_boxes, make_keypoints
from .readers.coco import is_coco
from .readers.points import CENTRE
from .readers.values import identifier, is_number, is_true, number, read_json, short
from .submission import answer_names, differs_little, read_fields

POINT_COLUMNS = ["image_id", "object", "keypoint", "x", "y", "confidence"]
OBJECT_COLUMNS = ["image_id", "object", "label", "keypoint", "x", "y", "confidence", *XYXY, "object_confidence"]
NEEDED = ["image_id", "keypoint", "x", "y"]
NUMBERS = ["x", "y", "visible", "confidence", *XYXY, "object_confidence"]
logger = logging.getLogger(__name__)
ONE_LABEL = "object"  # of objects whose file has none


@dataclass(frozen=True)
class PointFile:
    """Objects with their points: tables of boxes and keypoints that share `box_id`, in pixels.

    Without `has_boxes` the file says nothing of corners, and each box is a square of one pixel at the origin; without
    `has_labels` all are an "object". `areas` are px² by `box_id`, of those whose area the file has.
    """

    boxes: pd.DataFrame
    points: pd.DataFrame
    areas: pd.Series
    has_boxes: bool
    has_labels: bool


def write_points(
    images: pd.DataFrame, boxes: pd.DataFrame, keypoints: pd.DataFrame, path: Path, *, answer_name: str = "path",
    with_boxes: bool | None = None, from_centre: bool = False,
) -> Path:
    """Writes the keypoints of `boxes` in pixels; `answer_name` is how the competition calls an image.

    `with_boxes` writes what is known of objects always or never; by default where an image has several. `from_centre`
    writes the numbers of pixels, for competitions that count from the centre of the first one, as OpenCV does. Boxes
    without a row in `keypoints` have none here, which is logged. Raises BadData for two images of one name, and for
    points of a box or image that is not there.
    """
    if len(strange := keypoints[~keypoints["box_id"].isin(boxes["box_id"])]):
        raise BadData(f"{path}: expected points of the boxes alone, found one of box {strange['box_id'].iloc[0]} in "
                      f"{strange['image_id'].iloc[0]!r}")
    if len(unknown := boxes[~boxes["image_id"].isin(images["image_id"])]):
        raise BadData(f"{path}: expected boxes of the images alone, found {unknown['image_id'].iloc[0]!r}")
    if n_without := int((~boxes["box_id"].isin(keypoints["box_id"])).sum()):
        logger.warning("%s: %s of %s boxes have no keypoints and are not in it", path, n_without, len(boxes))
    nth = boxes.groupby("image_id", sort=False).cumcount()
    own = boxes.assign(object=nth, object_confidence=boxes["confidence"])
    rows = keypoints.merge(own[["box_id", "object", "label", *XYXY, "object_confidence"]], on="box_id", how="left")
    rows = rows.sort_values(["image_id", "object"], kind="stable")
    rows["image_id"] = rows["image_id"].map(answer_names(images, answer_name))
    rows[["x", "y"]] -= CENTRE if from_centre else 0.0
    has_several = bool((nth > 0).any()) if with_boxes is None else with_boxes
    columns = OBJECT_COLUMNS if has_several else POINT_COLUMNS
    write_text(rows[columns].to_csv(index=False, float_format="%.6g", lineterminator="\n"), path)
    return path


def holds_points(path: Path) -> bool:
    """Whether a file of truth or of an answer is one of keypoints: a JSON, or a CSV with a column `keypoint`."""
    if path.suffix.casefold() == ".json":
        return True
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        return "keypoint" in [name.strip() for name in next(csv.reader(file), [])]


def read_points(path: Path) -> PointFile:
    """The objects and points of a file that `holds_points`.

    Raises BadData naming the file and the line, or the annotation: something else than COCO's lists, a missing column,
    what is not a finite number, a visibility other than 0, 1 and 2, a point or an object that is there twice with
    something else.
    """
    return _read_coco(path) if path.suffix.casefold() == ".json" else _read_csv(path)


def read_rows(path: Path, needed: Collection[str]) -> pd.DataFrame:
    """A CSV's fields as text, the index the line of each row. Raises BadData naming file, line and column."""

    def check(header: list[str]) -> None:
        """Refuses a header that lacks a column or has one twice."""
        if missing := [name for name in needed if name not in header]:
            hint = next(filter(None, (differs_little(name, missing) for name in header)), "")
            raise BadData(f"{path}: line 1: missing column {missing[0]!r}{f': {hint}' if hint else ''}; expected "
                          f"{','.join(needed)}, found {','.join(header) or 'an empty file'}")
        if len(set(header)) < len(header):
            raise BadData(f"{path}: line 1: a column is there twice: {','.join(header)}")

    return read_fields(path, check)


def to_numbers(rows: pd.DataFrame, path: Path, columns: Sequence[str], optional: Collection[str] = ()) -> pd.DataFrame:
    """Some columns of `read_rows` as float, NaN for an empty field of the `optional` ones.

    Raises BadData naming file and line for what is not a finite number.
    """
    numbers = rows[list(columns)].apply(pd.to_numeric, errors="coerce").astype(float)
    for name in columns:
        is_empty = rows[name].str.strip().eq("") if name in optional else np.zeros(len(rows), bool)
        if (wrong := ~np.isfinite(numbers[name]) & ~is_empty).any():
            line = numbers.index[wrong][0]
            raise BadData(f"{path}: line {line} ({rows.at[line, 'image_id']}): {name}: expected a finite number, found "
                          f"{rows.at[line, name]!r}")
    return numbers


def _read_csv(path: Path) -> PointFile:
    rows = read_rows(path, NEEDED)
    if rows.empty:
        raise BadData(f"{path}: expected at least one point below the header, found none")
    numbers = to_numbers(rows, path, [name for name in NUMBERS if name in rows], optional=("x", "y"))
    has_place = numbers[["x", "y"]].notna().all(axis=1)
    visible = numbers.get("visible", has_place * 2.0)
    _refuse(path, rows, ~visible.isin([0, 1, 2]), "visible: expected 0, 1 or 2")
    _refuse(path, rows, (visible > 0) & ~has_place, "expected x and y of a point that is labelled, with visible 1 or 2")
    has_boxes, has_labels = set(XYXY) <= set(rows), "label" in rows
    table = pd.DataFrame({"image_id": rows["image_id"], "object": rows.get("object", "0"),
                          "label": rows.get("label", ONE_LABEL), "keypoint": rows["keypoint"], "visible": visible})
    corners = numbers[XYXY] if has_boxes else pd.DataFrame([[0.0, 0, 1, 1]] * len(rows), rows.index, XYXY)
    table = table.assign(x=numbers["x"], y=numbers["y"], confidence=numbers.get("confidence", 1.0), **corners)
    if "object_confidence" in numbers:
        table["object_confidence"] = numbers["object_confidence"]
    key = ["image_id", "object"]
    _refuse(path, rows, table.duplicated([*key, "keypoint"]), "expected each point of an object once, found it again")
    flat = (table["x_min"] >= table["x_max"]) | (table["y_min"] >= table["y_max"])
    _refuse(path, rows, flat, "expected x_min < x_max and y_min < y_max")
    of_object = table.groupby(key, sort=False)
    for name in ("label", *XYXY, *(["object_confidence"] if "object_confidence" in table else [])):
        _refuse(path, rows, of_object[name].transform("first") != table[name],
                f"{name}: expected one for all points of an object")
    objects = of_object.first().reset_index()
    # COCO's results have one score an object: without one it is the mean of its points'.
    sure = numbers["object_confidence"].groupby([table[name] for name in key], sort=False).first().to_numpy() if (
        "object_confidence" in numbers) else of_object["confidence"].mean().to_numpy()
    boxes = make_boxes(objects[["image_id", "label", *XYXY]].assign(confidence=sure, source="model"), origin=str(path))
    ids = dict(zip(map(tuple, objects.sort_values("image_id", kind="stable")[key].to_numpy()), boxes["box_id"],
                   strict=True))
    points = make_keypoints(table.assign(box_id=[ids[pair] for pair in map(tuple, table[key].to_numpy())],
                                         source="model"))
    return PointFile(boxes, points, pd.Series(dtype=float), has_boxes, has_labels)


def _refuse(path: Path, rows: pd.DataFrame, wrong: pd.Series, words: str) -> None:
    """Raises BadData for the first row that is wrong."""
    if wrong.any():
        row = rows[wrong.to_numpy()].iloc[0]
        raise BadData(f"{path}: line {row.name} ({row['image_id']}, {row['keypoint']}): {words}, found {row.to_dict()}")


def _read_coco(path: Path) -> PointFile:
    try:
        content = read_json(path.read_bytes())
    except ValueError as error:
        raise BadData(f"{path}: expected COCO's JSON with keypoints, found {error}") from error
    if not is_coco(content):
        raise BadData(f"{path}: expected COCO's JSON with the lists images, annotations and categories, found "
                      f"{short(content)}")
    names = {identifier(image.get("id")): image.get("file_name") for image in content["images"]
             if isinstance(image, dict)}
    if twice := [name for name, n in Counter(names.values()).items() if n > 1 and name is not None]:
        raise BadData(f"{path}: images: expected each file_name once, found {short(twice[0])} under several ids; name "
                      "them by their paths")
    categories = {identifier(category.get("id")): category for category in content["categories"]
                  if isinstance(category, dict)}
    boxes: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    areas: dict[int, float] = {}
    for nth, annotation in enumerate(content["annotations"]):
        entry = annotation if isinstance(annotation, dict) else {}
        if is_true(entry.get("iscrowd")) or not entry.get("keypoints"):
            continue  # a group, or an object without points: nothing to judge
        where = f"{path}: annotations: entry {nth}"
        image_id, category = names.get(identifier(entry.get("image_id"))), categories.get(
            identifier(entry.get("category_id")))
        if not isinstance(image_id, str) or category is None:
            raise BadData(f"{where}: expected the id of an image with a file_name and that of a category, found "
                          f"{short(entry.get('image_id'))} and {short(entry.get('category_id'))}")
        x, y, width, height = _four(entry.get("bbox"), where)
        boxes.append({"box_id": nth, "image_id": image_id, "label": str(category.get("name")), "x_min": x, "y_min": y,
                      "x_max": x + width, "y_max": y + height})
        points += [{"box_id": nth, "image_id": image_id, **point} for point in _points_of(entry, category, where)]
        if is_number(area := number(entry.get("area"))) and area > 0:
            areas[nth] = float(area)
    if not points:
        raise BadData(f"{path}: expected annotations with keypoints, found none in {len(content['annotations']):,}")
    return PointFile(make_boxes(boxes), make_keypoints(points), pd.Series(areas, dtype=float), True, True)


def _four(bbox: Any, where: str) -> list[float]:
    """x, y, width and height of a box that has an area."""
    values = list(map(number, bbox)) if isinstance(bbox, list) else []
    if len(values) != 4 or not all(map(is_number, values)) or min(values[2:]) <= 0:
        raise BadData(f"{where}: expected a bbox of x, y, width and height in pixels, found {short(bbox)}")
    return [float(value) for value in values]


def _points_of(entry: dict[str, Any], category: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """The points of an annotation by the names of its category: x, y, visible."""
    known, values = category.get("keypoints"), entry["keypoints"]
    if not isinstance(known, list) or not isinstance(values, list) or len(values) != 3 * len(known) or not all(
            map(is_number, values)):
        n = len(known) if isinstance(known, list) else 0
        raise BadData(f"{where}: keypoints: expected {3 * n} numbers, x, y and visibility of the {n} keypoints of its "
                      f"category, found {short(values)}")
    triples = np.array(values, float).reshape(-1, 3)
    if not np.isin(triples[:, 2], (0, 1, 2)).all():
        raise BadData(f"{where}: keypoints: expected a visibility of 0, 1 or 2, found {short(triples[:, 2].tolist())}")
    return [{"keypoint": str(name), "x": x, "y": y, "visible": int(visible)}
            for name, (x, y, visible) in zip(known, triples, strict=True)]
