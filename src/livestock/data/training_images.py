"""Reading of the data set that `dataset` writes: paths, sizes and boxes of the training images, and their pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ..exceptions import BadData
from ..geometry import cxcywhn_to_xyxy
from ..tables import XYXY, make_boxes, make_images
from .pictures import ERRORS, decode, jpeg_size, measure

HEADER_BYTES = 4096  # most JPEG headers are shorter


@dataclass(frozen=True)
class TrainingImages:
    """Images of one list; `sizes` are width and height in pixels of the stored picture, `(n, 2)`.

    Of each image `boxes` has `(k, 4)` xyxy in pixels of the stored picture, and `class_ids` `(k,)` int64, which count
    `labels`.
    """

    labels: tuple[str, ...]
    paths: list[Path]
    sizes: np.ndarray
    boxes: list[np.ndarray]
    class_ids: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> np.ndarray:
        """The picture of this index `(H, W, 3)` uint8 RGB. Raises BadData as `read_picture` does."""
        return read_picture(self.paths[index], self.sizes[index])

    def points_of(self, index: int) -> None:
        """There are no keypoints: see `pose_set.PoseImages`."""

    def box_sizes(self, imgsz: int) -> list[np.ndarray]:
        """Of each image widths and heights of the boxes, `(k, 2)`, once its longer side is `imgsz` pixels."""
        return scale_sizes(self.boxes, self.sizes, imgsz)

    def to_tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The images table and the boxes table of the stored pictures; `image_id` is a picture's path."""
        names = np.array([str(path) for path in self.paths], object)
        images = pd.DataFrame({"image_id": names, "archive": [str(path.parent) for path in self.paths],
                               "member": [path.name for path in self.paths], "width": self.sizes[:, 0],
                               "height": self.sizes[:, 1]})
        boxes = pd.DataFrame(np.concatenate(self.boxes), columns=XYXY)
        boxes["image_id"] = np.repeat(names, [len(own) for own in self.boxes])
        boxes["label"] = np.array(self.labels, object)[np.concatenate(self.class_ids)]
        return make_images(images), make_boxes(boxes)


def scale_sizes(boxes: Sequence[np.ndarray], sizes: np.ndarray, imgsz: int) -> list[np.ndarray]:
    """Widths and heights `(n, 2)` of the boxes of each image, `(n, 4)`, once its longer side is `imgsz` pixels.

    >>> scale_sizes([np.array([[10.0, 10, 30, 20]])], np.array([[200, 100]]), 100)[0].tolist()
    [[10.0, 5.0]]
    """
    scales = imgsz / sizes.max(axis=1)
    return [(own[:, 2:] - own[:, :2]) * scale for own, scale in zip(boxes, scales, strict=True)]


def read_labels(data_yaml: Path) -> list[str]:
    """The names of the classes in the order of their ids. Raises BadData for a YAML without them."""
    names = _read_yaml(data_yaml, "names")["names"]
    return [str(names[key]) for key in sorted(names)] if isinstance(names, dict) else list(map(str, names))


def read_images(data_yaml: Path, part: str = "train") -> TrainingImages:
    """Reads the list `part`, `train` or `val`, of a data.yaml, and headers and labels of the images that it names.

    Raises BadData, with file and line, for a list that is missing or empty, a picture or a label file that is missing,
    a picture without a readable header, and a label line that is not `class_id cx cy w h`, relative to the image.
    """
    data, labels = _read_yaml(data_yaml, part), tuple(read_labels(data_yaml))
    path = Path(data.get("path") or data_yaml.parent) / data[part]
    if not path.is_file():
        raise BadData(f"{path}: expected a list of images, which {data_yaml} names, found no such file")
    paths = [path.parent / line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not paths:
        raise BadData(f"{path}: expected the path of an image in each line, found no line")
    sizes = np.array([_read_size(picture, path) for picture in paths])
    rows = [_read_labels(_find_labels(picture), len(labels)) for picture in paths]
    boxes = [cxcywhn_to_xyxy(row[:, 1:], *size) for row, size in zip(rows, sizes, strict=True)]
    return TrainingImages(labels, paths, sizes, boxes, [row[:, 0].astype(np.int64) for row in rows])


def read_picture(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The picture `(H, W, 3)` uint8 RGB. Raises BadData if it cannot be read or has not the width and height `size`."""
    try:
        with path.open("rb") as file:
            picture = decode(file)
    except ERRORS as error:
        raise BadData(f"{path}: expected a picture, found {error}") from error
    if picture.shape[1::-1] != tuple(size):
        raise BadData(f"{path}: expected {size[0]} x {size[1]} px as its header said when training began, found "
                      f"{picture.shape[1]} x {picture.shape[0]}")
    return picture


def _read_yaml(data_yaml: Path, key: str) -> Mapping[str, Any]:
    try:
        data = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadData(f"{data_yaml}: expected a data set's YAML, found {error}") from error
    kind: Any = (list, dict) if key == "names" else str
    if not isinstance(data, dict) or not isinstance(data.get(key), kind) or not data[key]:
        raise BadData(f"{data_yaml}: expected `names`, the classes, and `train` and `val`, files that list images; "
                      f"found {key}: {data.get(key) if isinstance(data, dict) else data!r}")
    return data


def _read_size(path: Path, listed_in: Path) -> tuple[int, int]:
    try:
        with path.open("rb") as file:
            size = jpeg_size(file.read(HEADER_BYTES))
            file.seek(0)
            return size or measure(file)
    except ERRORS as error:
        raise BadData(f"{path}: expected a picture, which {listed_in} names, found {error}") from error


def _find_labels(picture: Path) -> Path:
    """`labels/a.txt` of `images/a.jpg`; of several folders `images` the innermost counts."""
    parts = list(picture.with_suffix(".txt").parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if not places:
        raise BadData(f"{picture}: expected a picture in a folder `images`, beside which `labels` lies, found none")
    parts[places[-1]] = "labels"
    return Path(*parts)


def _read_labels(path: Path, n_classes: int) -> np.ndarray:
    """`(n, 5)` of class id and relative centre and size; a line that is there twice counts once."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise BadData(f"{path}: expected the labels of an image, found {error}") from error
    rows = {_read_line(line, f"{path} line {number}", n_classes): None
            for number, line in enumerate(lines, 1) if line.strip()}
    return np.array(list(rows), float).reshape(-1, 5)


def _read_line(line: str, where: str, n_classes: int) -> tuple[float, ...]:
    try:
        row = tuple(map(float, line.split()))
    except ValueError:
        row = ()
    is_class = bool(row) and row[0] in range(n_classes)
    if len(row) != 5 or not is_class or not all(0 <= number <= 1 for number in row[1:]):
        raise BadData(f"{where}: expected `class_id cx cy w h`, a class id from 0 to {n_classes - 1} and four numbers "
                      f"from 0 to 1, found {line.strip()!r}")
    return row
