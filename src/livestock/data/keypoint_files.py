"""Keypoints written in the formats that are read: COCO, YOLO pose, DeepLabCut's CSV. Each is the inverse of its reader.

A format keeps what it has room for: none has `confidence` and `source`, which are those of labels (1, gold) when a file
is read again, and a box without rows in the keypoints table comes back with its points not labelled. Images are named
by their `image_id`, the path below the data folder, so a file belongs there.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ..config import Skeleton
from ..exceptions import BadData
from ..files.write import write_text
from ..geometry import box_area, xyxy_to_cxcywhn
from ..tables import XYXY
from .archives import split_name
from .readers.pairs import LABEL_FOLDERS
from .readers.points import CENTRE

BOX_SHARE = 0.53  # of a box that its object fills, for COCO's `area`: what OKS takes where none is known


def arrange_points(boxes: pd.DataFrame, keypoints: pd.DataFrame, skeleton: Skeleton) -> list[np.ndarray]:
    """The points of each box in the order of its class's skeleton, `(K, 3)` of x, y and visibility, 0, 0, 0 for none.

    K is 0 for a class without keypoints. Raises BadData naming the box for a point that its class does not have.
    """
    names = {label: skeleton.names(label) for label in boxes["label"].unique()}
    of_box = {box_id: own for box_id, own in keypoints.groupby("box_id")}
    arranged = []
    for box in boxes.itertuples():
        points = np.zeros((len(names[box.label]), 3))
        for name, *point in of_box.get(box.box_id, keypoints.iloc[:0])[["keypoint", "x", "y", "visible"]].itertuples(
                index=False):
            if name not in names[box.label]:
                raise BadData(f"box {box.box_id} in {box.image_id}: expected keypoints of {names[box.label]}, which "
                              f"the skeleton has for {box.label!r}, found {name!r}")
            points[names[box.label].index(name)] = point if point[2] > 0 else 0
        arranged.append(points)
    return arranged


def write_coco_keypoints(
    images: pd.DataFrame, boxes: pd.DataFrame, keypoints: pd.DataFrame, skeleton: Skeleton, labels: Sequence[str],
    path: Path,
) -> Path:
    """Writes a COCO file with all `labels` as categories, those without keypoints too; in full precision.

    `area` is .53 of the box, as OKS has it here where no outline is known: pycocotools and `evaluation.oks` then agree.
    """
    number = {image_id: index for index, image_id in enumerate(images["image_id"], 1)}
    category = {label: index for index, label in enumerate(labels, 1)}
    corners = boxes[XYXY].to_numpy(float)
    bbox = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
    areas = (BOX_SHARE * box_area(corners)).tolist()
    annotations = [
        {"id": index, "image_id": number[box.image_id], "category_id": category[box.label], "bbox": bbox[index - 1],
         "area": areas[index - 1], "iscrowd": 0, **_flat(points)}
        for index, (box, points) in enumerate(zip(boxes.itertuples(), arrange_points(boxes, keypoints, skeleton),
                                                  strict=True), 1)]
    entries = [{"id": number[row.image_id], "file_name": row.image_id, "width": row.width, "height": row.height}
               for row in images.itertuples()]
    content = {"images": entries, "annotations": annotations,
               "categories": [_category(label, category[label], skeleton) for label in labels]}
    write_text(json.dumps(content, ensure_ascii=False) + "\n", path)  # a line a number would be long
    return path


def _flat(points: np.ndarray) -> dict[str, Any]:
    """COCO's `keypoints` and `num_keypoints`, or neither for a class without."""
    values = [value for x, y, visible in points.tolist() for value in (x, y, int(visible))]
    return {"keypoints": values, "num_keypoints": int((points[:, 2] > 0).sum())} if values else {}


def _category(label: str, number: int, skeleton: Skeleton) -> dict[str, Any]:
    names = skeleton.names(label)
    edges = [[names.index(edge.first) + 1, names.index(edge.second) + 1] for edge in skeleton.edges
             if edge.label == label]
    return {"id": number, "name": label} | ({"keypoints": names, "skeleton": edges} if names else {})


def write_yolo_pose(
    images: pd.DataFrame, boxes: pd.DataFrame, keypoints: pd.DataFrame, skeleton: Skeleton, labels: Sequence[str],
    directory: Path,
) -> Path:
    """Writes a text file an image where YOLO looks for it below `directory`, and `data.yaml` there, which it returns.

    A line is `class cx cy w h` and x, y and visibility of each point, relative to the image, to six decimals; classes
    with fewer points than others have zeros behind theirs. `flip_idx` is written where all classes agree on it.
    Raises BadData for two images whose labels would have one name.
    """
    n_points = max(len(skeleton.names(label)) for label in skeleton.labels)
    table = boxes.merge(images[["image_id", "width", "height"]], on="image_id", how="left", validate="many_to_one")
    sizes = table[["width", "height"]].to_numpy(float)
    numbers = xyxy_to_cxcywhn(table[XYXY].to_numpy(float), sizes[:, 0], sizes[:, 1])
    lines: dict[str, list[str]] = {image_id: [] for image_id in images["image_id"]}
    for box, centre, size, points in zip(table.itertuples(), numbers, sizes, arrange_points(boxes, keypoints, skeleton),
                                         strict=True):
        padded = np.zeros((n_points, 3))
        padded[: len(points)] = points
        texts = [f"{x:.6f} {y:.6f} {visible:.0f}" for x, y, visible in padded / [*size, 1]]
        box_text = " ".join(f"{value:.6f}" for value in centre)
        lines[box.image_id].append(" ".join([f"{labels.index(box.label)} {box_text}", *texts]))
    written: dict[Path, str] = {}
    for image_id, own in lines.items():
        path = directory / _label_path(image_id)
        if path in written:
            raise BadData(f"{path}: expected to be the label of one image, found {written[path]} and {image_id}")
        written[path] = image_id
        write_text("".join(f"{line}\n" for line in own), path)
    return _write_pose_yaml(skeleton, labels, n_points, directory)


def _label_path(image_id: str) -> str:
    """Beside the image, or where it lies in a folder of images in that of labels beside it."""
    *folders, name = image_id.split("/")
    at = next((at for at in reversed(range(len(folders))) if folders[at].casefold() in LABEL_FOLDERS), None)
    if at is not None:
        folders[at] = LABEL_FOLDERS[folders[at].casefold()][0]
    return "/".join([*folders, f"{split_name(name)[1]}.txt"])


def _write_pose_yaml(skeleton: Skeleton, labels: Sequence[str], n_points: int, directory: Path) -> Path:
    content: dict[str, Any] = {"names": dict(enumerate(labels)), "kpt_shape": [n_points, 3],
                               "kpt_names": {labels.index(label): skeleton.names(label) for label in skeleton.labels}}
    flips = [skeleton.flip_indexes(label) for label in skeleton.labels]
    if flips[0] is not None and len(flips[0]) == n_points and all(other == flips[0] for other in flips):
        content["flip_idx"] = flips[0]
    path = directory / "data.yaml"
    write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), path)
    return path


def write_dlc_csv(
    images: pd.DataFrame, boxes: pd.DataFrame, keypoints: pd.DataFrame, skeleton: Skeleton, path: Path,
    scorer: str = "livestock",
) -> Path:
    """Writes DeepLabCut's CSV of the images that have an object, pixels counted from the centre of the first one.

    The format has no box, no class and no hidden points: an object comes back as the whole picture, its hidden points
    as seen. Call the file `CollectedData_SCORER.csv`. Raises BadData for several objects in an image, or classes.
    """
    if (twice := boxes["image_id"].duplicated()).any():
        raise BadData(f"{path}: DeepLabCut's table has one object an image, found several in "
                      f"{boxes['image_id'][twice].iloc[0]!r}")
    if len(found := boxes["label"].unique()) > 1:
        raise BadData(f"{path}: DeepLabCut's table has no classes, found {', '.join(found)}")
    names = skeleton.names(found[0]) if len(found) else skeleton.names(skeleton.labels[0])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for first, cells in (("scorer", [scorer] * 2 * len(names)), ("bodyparts", np.repeat(names, 2).tolist()),
                         ("coords", ["x", "y"] * len(names))):
        writer.writerow([first, *cells])
    of_image = dict(zip(boxes["image_id"], arrange_points(boxes, keypoints, skeleton), strict=True))
    for image_id in images["image_id"]:
        if image_id in of_image:
            writer.writerow([image_id, *(_cell(value, visible) for x, y, visible in of_image[image_id].tolist()
                                         for value in (x, y))])
    write_text(text.getvalue(), path)
    return path


def _cell(value: float, visible: float) -> str:
    return repr(value - CENTRE) if visible > 0 else ""
