"""Keypoints of objects in boxes: each is cut out of its picture, and its points go back into pixels of the picture."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from .data.archives import read_image
from .exceptions import BadData
from .files.progress import progress_bar
from .geometry import invert, map_points
from .inference import to_tensor
from .models.base import ONE_STAGE
from .models.crops import cut_out, map_crop
from .models.loaded import LoadedModel
from .tables import XYXY, list_points

logger = logging.getLogger(__name__)
BATCH = 32  # objects at a time
SAME_PLACE = 0.1  # of the input's side: a point and that of the mirrored picture nearer than this are averaged


class _Cut(NamedTuple):
    """An object as a network sees it `(S, S, 3)`, and the map `(2, 3)` from its picture."""

    row: int
    pixels: np.ndarray
    matrix: np.ndarray


def find_poses(
    model: LoadedModel, images: pd.DataFrame, boxes: pd.DataFrame, *, flip: bool = False, batch: int = BATCH,
    has_classes: bool = True,
) -> pd.DataFrame:
    """A keypoints table of source `model`: the points of a box's class in every box, in pixels of the original image.

    Where classes have different points, a box whose class the model does not know has none, which the log says; where
    all have the same, or without `has_classes`, the class is not looked at. `boxes` are of any source, truth or a
    detector. Points are clipped to their image. With `flip` the mirrored object is looked at too; places that agree are
    averaged, of others the more confident one counts. Raises BadData for a model that has no keypoints, a flip without
    mirror images, a box without area or whose image is not in `images`.
    """
    parts = check_pose_model(model, flip=flip)
    side = model.imgsz or 256
    if unknown := set(boxes["image_id"]) - set(images["image_id"]):
        raise BadData(f"boxes: expected images of the images table, found {sorted(unknown)[0]!r}")
    corners = boxes[XYXY].to_numpy(float)
    if (flat := ~(corners[:, :2] < corners[:, 2:]).all(1)).any():
        box = boxes[flat].iloc[0]
        raise BadData(f"boxes: box {box['box_id']} in {box['image_id']}: expected x_min < x_max and y_min < y_max, "
                      f"found {corners[flat][0].tolist()}")
    sizes = images.set_index("image_id").loc[boxes["image_id"], ["width", "height"]].to_numpy(float)
    found = np.zeros((len(boxes), len(parts["points"]), 3))
    with progress_bar("keypoints", unit="object", total=len(boxes)) as bar:
        for cuts in _batches(_cut_all(images, boxes, side, parts["crop"]), batch):
            tensor = to_tensor([cut.pixels for cut in cuts], model.device, torch.channels_last)
            points = _look(model, tensor, parts["flips"] if flip else None)
            for cut, own in zip(cuts, points, strict=True):
                places = map_points(own[:, :2], invert(cut.matrix)).clip(0, sizes[cut.row])
                found[cut.row] = np.column_stack([places, own[:, 2]])
            bar.update(len(cuts))
    return list_points(boxes, found, parts["points"], model.labels, parts["owners"] if has_classes else ())


def check_pose_model(model: LoadedModel, *, flip: bool = False) -> dict:
    """What a model says of its keypoints: `points`, `flips`, `owners`, `crop`. Raises BadData where it has none."""
    parts = dict(model.architecture)
    if "points" not in parts:
        raise BadData(f"{model.path}: expected weights that find keypoints, such as those of the families heatmap and "
                      f"topdown, found {model.family or 'a detector'}; its boxes are what `livestock predict` writes, "
                      "and `livestock.inference.find_candidates` finds")
    if parts["crop"] == ONE_STAGE:
        raise BadData(f"{model.path}: expected weights that find the keypoints of objects in boxes, found "
                      f"{model.family}, which finds the objects too: `livestock.inference.find_candidates` has both")
    if flip and not parts["flips"]:
        raise BadData(f"{model.path}: flip: expected mirror images of its keypoints, found none: its skeleton has no "
                      "`flip`, so a mirrored object would have them on the wrong side")
    return parts


def _cut_all(images: pd.DataFrame, boxes: pd.DataFrame, side: int, crop: str) -> Iterator[_Cut]:
    """Every object, picture by picture; pictures are read by two threads, a few ahead."""
    rows_of = boxes.groupby("image_id", sort=False).indices
    own = images[images["image_id"].isin(list(rows_of))]
    corners = boxes[XYXY].to_numpy(float)

    def cut(image: tuple[str, str, str]) -> list[_Cut]:
        """Every object of a picture, cut out."""
        picture = read_image(image[1], image[2])
        size, cuts = picture.shape[1::-1], []
        for row in rows_of[image[0]]:
            matrix = map_crop(corners[row], size, side, crop)  # type: ignore[arg-type]  # checked when it was built
            cuts.append(_Cut(int(row), cut_out(picture, matrix, side), matrix))
        return cuts

    todo = list(own[["image_id", "archive", "member"]].itertuples(index=False, name=None))
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(todo), 2 * BATCH):  # so that memory holds no more
            for cuts in pool.map(cut, todo[start : start + 2 * BATCH]):
                yield from cuts


def _batches(cuts: Iterator[_Cut], size: int) -> Iterator[list[_Cut]]:
    waiting: list[_Cut] = []
    for cut in cuts:
        waiting.append(cut)
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _look(model: LoadedModel, images: torch.Tensor, flips: Sequence[int] | None) -> np.ndarray:
    """The points `(B, K, 3)` of the objects, in pixels of the input."""
    points = _points(model, images)
    if flips is None:
        return points
    other = _points(model, images.flip(3))[:, list(flips)]
    other[..., 0] = images.shape[3] - other[..., 0]
    apart = np.hypot(*np.moveaxis(points[..., :2] - other[..., :2], -1, 0))
    is_same = (apart <= SAME_PLACE * images.shape[3])[..., None]
    better = np.where(points[..., 2:] >= other[..., 2:], points, other)
    return np.where(is_same, (points + other) / 2, better)


def _points(model: LoadedModel, images: torch.Tensor) -> np.ndarray:
    found: Any = model(images).keypoints  # checked there: a model that names points predicts them
    return found[:, 0].numpy().astype(float)
