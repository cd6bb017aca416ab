"""What a training of keypoints reads: tables of two lists of objects, and the points that are asked for.

A folder with `data.yaml` (labels, names of the points, their mirror images, parts, sigmas and classes) and the tables
`images.parquet`, `boxes.parquet` and `keypoints.parquet`. Pictures stay where they are, since a training sees them
once: each object is cut out of its picture and kept in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ..config import Skeleton
from ..exceptions import BadData
from ..files.write import write_text
from ..tables import XYXY, read_table, write_table
from .archives import read_image
from .training_images import scale_sizes

TABLES = ("images", "boxes", "keypoints")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Points:
    """The keypoints of all classes together: one name is one output of a network, whatever class has it.

    `flips` are the indexes of their mirror images, None where a class must not be mirrored; `parts` upper, lower or "";
    `sigmas` those of OKS. `owners` has the ids of the classes that have each point; it is empty where all have all.
    """

    names: tuple[str, ...]
    flips: tuple[int, ...] | None
    parts: tuple[str, ...]
    sigmas: tuple[float, ...]
    owners: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class TrainingObjects:
    """Objects of one list, a row each: `images` has the `image_id`, archive, member, width and height of its picture.

    `boxes` `(n, 4)` xyxy and `keypoints` `(n, K, 3)`, x, y and visibility, in pixels of the picture; `class_ids` `(n,)`
    count `labels`. `tables` are the images, boxes and keypoints that they come from.
    """

    labels: tuple[str, ...]
    points: Points
    images: pd.DataFrame
    boxes: np.ndarray
    class_ids: np.ndarray
    keypoints: np.ndarray
    tables: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]

    def __len__(self) -> int:
        return len(self.boxes)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Width and height in pixels of each object's picture, `(n, 2)`."""
        return self.images[["width", "height"]].to_numpy(float)

    @cached_property
    def files(self) -> list[tuple[str, str]]:
        """Archive and member of each object's picture."""
        return list(zip(self.images["archive"], self.images["member"], strict=True))

    def box_sizes(self, imgsz: int) -> list[np.ndarray]:
        """Of each object width and height `(1, 2)` once the longer side of its picture is `imgsz` pixels."""
        return scale_sizes(list(self.boxes[:, None]), self.sizes, imgsz)


@dataclass(frozen=True)
class PoseImages:
    """Whole pictures of one list, for models that find objects and their keypoints at once; `tables` as above.

    Of each picture `boxes` has `(n, 4)` xyxy, `keypoints` `(n, K, 3)`, x, y and visibility, in pixels, and `class_ids`
    `(n,)`, which count `labels`; `sizes` `(N, 2)` are widths and heights.
    """

    labels: tuple[str, ...]
    points: Points
    sizes: np.ndarray
    boxes: list[np.ndarray]
    class_ids: list[np.ndarray]
    keypoints: list[np.ndarray]
    tables: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, index: int) -> np.ndarray:
        """The picture of this index `(H, W, 3)` uint8 RGB. Raises BadData for one that cannot be read."""
        image = self.tables[0].iloc[index]
        try:
            return read_image(image["archive"], image["member"])
        except ValueError as error:
            raise BadData(f"{image['archive']}/{image['member']}: expected a picture, found {error}") from error

    def points_of(self, index: int) -> np.ndarray:
        """The keypoints `(n, K, 3)` of a picture's boxes."""
        return self.keypoints[index]

    def box_sizes(self, imgsz: int) -> list[np.ndarray]:
        """Of each picture widths and heights of the boxes, `(n, 2)`, once its longer side is `imgsz` pixels."""
        return scale_sizes(self.boxes, self.sizes, imgsz)


def unite_points(skeleton: Skeleton) -> Points:
    """The points of all classes in the order of the file, each name once.

    Raises BadData where two classes have another mirror image, part or sigma for one name.

    >>> from livestock.config import Keypoint
    >>> ears = Skeleton((Keypoint("pig", "l", 0, "r"), Keypoint("pig", "r", 1, "l"), Keypoint("cow", "l", 0)))
    >>> unite_points(ears).names, unite_points(ears).flips, unite_points(ears).owners
    (('l', 'r'), None, ((0, 1), (0,)))
    """
    first: dict[str, Any] = {}
    for label in skeleton.labels:
        for point, sigma in zip(skeleton.of(label), skeleton.sigmas(label), strict=True):
            known = first.setdefault(point.keypoint, (point, sigma))
            for what, own, other in (("part", point.part, known[0].part), ("sigma", sigma, known[1]),
                                     ("flip", point.flip, known[0].flip)):
                if own != other and (what != "flip" or None not in (own, other)):
                    raise BadData(f"skeleton: {point.keypoint}: {what}: expected one for all classes, found {other} of "
                                  f"{known[0].label} and {own} of {label}; give the point another name in one of them")
    names = tuple(first)
    flips = {name: {point.flip for label in skeleton.labels for point in skeleton.of(label) if point.keypoint == name}
             for name in names}
    owners = tuple(tuple(number for number, label in enumerate(skeleton.labels)
                         if name in {point.keypoint for point in skeleton.of(label)}) for name in names)
    is_shared = all(len(own) == len(skeleton.labels) for own in owners)
    has_mirror = all(len(each) == 1 and None not in each for each in flips.values())
    return Points(names, tuple(names.index(flips[name].pop()) for name in names) if has_mirror else None,
                  tuple(point.part or "" for point, _ in first.values()), tuple(sigma for _, sigma in first.values()),
                  () if is_shared else owners)


def write_pose_set(
    directory: Path, tables: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame], skeleton: Skeleton,
    parts: dict[str, Sequence[str]],
) -> Path:
    """Writes images, boxes and keypoints, and the image ids of each of `parts`, `train` and `val`; returns data.yaml.

    Boxes of classes without keypoints are left out, which the log says. Archives are written as they are: with whole
    paths the folder can be read from anywhere. Raises BadData where a list has no object with a labelled point, naming
    it.
    """
    images, boxes, keypoints = tables
    is_left_out = ~boxes["label"].isin(skeleton.labels)
    if is_left_out.any():
        logger.info("%d boxes of classes without keypoints are left out: %s", is_left_out.sum(),
                    ", ".join(sorted(set(boxes.loc[is_left_out, "label"]))))
    boxes = boxes[~is_left_out].reset_index(drop=True)
    images = images.assign(archive=[str(Path(archive).resolve()) for archive in images["archive"]])
    for name, table in zip(TABLES, (images, boxes, keypoints), strict=True):
        write_table(table, directory / f"{name}.parquet")
    united = unite_points(skeleton)
    content: dict[str, Any] = {"names": skeleton.labels, "points": list(united.names),
               "flips": None if united.flips is None else list(united.flips), "parts": list(united.parts),
               "sigmas": list(united.sigmas), "owners": [list(own) for own in united.owners]}
    for part, ids in parts.items():
        write_text("".join(f"{image_id}\n" for image_id in ids), directory / f"{part}.txt")
        content[part] = f"{part}.txt"
    path = directory / "data.yaml"
    write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), path)
    for part in parts:
        read_objects(path, part)
    return path


def read_objects(data_yaml: Path, part: str = "train") -> TrainingObjects:
    """The objects of a list that have a labelled point, as `write_pose_set` left them.

    Raises BadData for a file that is missing or says something else, and for a list without such an object.
    """
    labels, points, (images, own, keypoints) = _read_list(data_yaml, part)
    array = find_places(own, keypoints, points.names)
    has_point = (array[..., 2] > 0).any(1)
    own, array = own[has_point].reset_index(drop=True), array[has_point]
    of_object = images.set_index("image_id").loc[own["image_id"]].reset_index()
    kept = images[images["image_id"].isin(own["image_id"])].reset_index(drop=True)
    return TrainingObjects(labels, points, of_object, own[XYXY].to_numpy(float), _number_labels(own, labels), array,
                           (kept, own, keypoints[keypoints["box_id"].isin(own["box_id"])].reset_index(drop=True)))


def read_pose_images(data_yaml: Path, part: str = "train") -> PoseImages:
    """The pictures of a list with all their objects, also those without a labelled point. Raises as `read_objects`."""
    labels, points, tables = _read_list(data_yaml, part)
    images, boxes, keypoints = tables
    array, class_ids, corners = find_places(boxes, keypoints, points.names), _number_labels(boxes, labels), boxes[XYXY]
    rows_of = boxes.groupby("image_id", sort=False).indices
    rows = [rows_of.get(image_id, np.zeros(0, int)) for image_id in images["image_id"]]
    return PoseImages(labels, points, images[["width", "height"]].to_numpy(float),
                      [corners.to_numpy(float)[own] for own in rows], [class_ids[own] for own in rows],
                      [array[own] for own in rows], tables)


def _read_list(
    data_yaml: Path, part: str
) -> tuple[tuple[str, ...], Points, tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]]:
    """Labels and points of a set; images, boxes and keypoints of a list, which has a labelled point at least."""
    content = _read_yaml(data_yaml, part)
    folder = data_yaml.parent
    try:
        images, boxes, keypoints = (read_table(folder / f"{name}.parquet") for name in TABLES)
        ids = (folder / content[part]).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise BadData(f"{data_yaml}: expected what `write_pose_set` wrote beside it, found {error}") from error
    images, boxes, keypoints = (table[table["image_id"].isin(ids)].reset_index(drop=True)
                                for table in (images, boxes, keypoints))
    corners = boxes[XYXY].to_numpy(float)
    if (flat := ~(corners[:, :2] < corners[:, 2:]).all(1)).any():
        box = boxes[flat].iloc[0]
        raise BadData(f"{folder / 'boxes.parquet'}: box {box['box_id']} in {box['image_id']}: expected x_min < x_max "
                      f"and y_min < y_max, found {corners[flat][0].tolist()}")
    if unknown := set(boxes["image_id"]) - set(images["image_id"]):
        raise BadData(f"{folder / 'boxes.parquet'}: expected images of images.parquet, found {min(unknown)!r}")
    points = Points(tuple(content["points"]), None if content["flips"] is None else tuple(content["flips"]),
                    tuple(content["parts"]), tuple(content["sigmas"]), tuple(map(tuple, content["owners"])))
    if not (find_places(boxes, keypoints, points.names)[..., 2] > 0).any():
        raise BadData(f"{folder / content[part]}: expected images in which an object has a labelled keypoint, found "
                      f"none in {len(ids):,}")
    return tuple(content["names"]), points, (images, boxes, keypoints)


def _number_labels(boxes: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """The class ids of boxes, which have no other labels than these."""
    return np.array([list(labels).index(label) for label in boxes["label"]], np.int64)


def find_places(boxes: pd.DataFrame, keypoints: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Of each box the points of these names, `(N, K, 3)`: x, y and visibility, all 0 where a point is not labelled.

    >>> boxes = pd.DataFrame({"box_id": [7]})
    >>> points = pd.DataFrame({"box_id": [7], "keypoint": ["tail"], "x": [3.0], "y": [4.0], "visible": [2]})
    >>> find_places(boxes, points, ["snout", "tail"]).tolist()
    [[[0.0, 0.0, 0.0], [3.0, 4.0, 2.0]]]
    """
    found = np.zeros((len(boxes), len(names), 3))
    row = pd.Series(np.arange(len(boxes)), index=boxes["box_id"].to_numpy())
    own = keypoints[keypoints["box_id"].isin(row.index) & keypoints["keypoint"].isin(names)]
    place = {name: index for index, name in enumerate(names)}
    rows, columns = row.loc[own["box_id"]].to_numpy(), own["keypoint"].map(place).to_numpy(int)
    found[rows, columns] = own[["x", "y", "visible"]].to_numpy(float)
    return np.nan_to_num(found)


def _read_yaml(data_yaml: Path, part: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadData(f"{data_yaml}: expected what `write_pose_set` wrote, found {error}") from error
    expected = ("names", "points", "flips", "parts", "sigmas", "owners", part)
    if not isinstance(content, dict) or (missing := [key for key in expected if key not in content]):
        found = f"no {missing[0]}" if isinstance(content, dict) else repr(content)[:80]
        raise BadData(f"{data_yaml}: expected a set of keypoints, as `write_pose_set` writes it, with the keys "
                      f"{', '.join(expected)}; found {found}")
    return content
