"""Drawn objects with keypoints for tests: a bright cross at each point, in pictures of a few pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from livestock.config import Keypoint, Skeleton
from livestock.data.pose_set import Points, TrainingObjects, read_objects, write_pose_set
from livestock.tables import make_boxes, make_images, make_keypoints

GREY = 114
NOSE = Skeleton((Keypoint("cat", "nose", 0, "nose"),))
FACE = Skeleton((Keypoint("cat", "nose", 0, "nose"), Keypoint("cat", "left", 1, "right"),
                 Keypoint("cat", "right", 2, "left")))
COLOURS = ((250, 250, 250), (250, 60, 60), (60, 60, 250))  # RGB, of the points


def draw_pose_set(folder: Path, n: int = 16, skeleton: Skeleton = NOSE, side: int = 64, n_valid: int = 4,
                  seed: int = 0) -> Path:
    """`data.yaml` of `n` pictures with an object each, the last `n_valid` for validation (of 0: all for both)."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, records, boxes, points = np.random.default_rng(seed), [], [], []
    for index in range(n):
        picture, name = rng.integers(0, 60, (side, side, 3), np.uint8), f"{index:02d}.png"
        for number, point in enumerate(skeleton.keypoints):
            x, y = map(int, rng.integers(side // 5, side - side // 5, 2))
            cv2.line(picture, (x - 6, y), (x + 6, y), COLOURS[number % 3][::-1], 3)
            cv2.line(picture, (x, y - 6), (x, y + 6), COLOURS[number % 3][::-1], 3)
            points.append({"box_id": index, "image_id": name, "keypoint": point.keypoint, "x": x + 0.5, "y": y + 0.5})
        cv2.imwrite(str(folder / name), picture)
        records.append({"image_id": name, "archive": str(folder), "member": name, "width": side, "height": side})
        boxes.append({"box_id": index, "image_id": name, "label": "cat", "x_min": 2, "y_min": 2, "x_max": side - 2,
                      "y_max": side - 2})
    images = make_images(records)
    ids = images["image_id"].tolist()
    parts = {"train": ids[: n - n_valid], "val": ids[n - n_valid :] if n_valid else ids}
    return write_pose_set(folder / "set", (images, make_boxes(boxes), make_keypoints(points)), skeleton, parts)


def read_pose_set(folder: Path, **options: object) -> TrainingObjects:
    """The training objects of `draw_pose_set`."""
    return read_objects(draw_pose_set(folder, **options))  # type: ignore[arg-type]


def make_object(folder: Path, picture: np.ndarray, box: np.ndarray, keypoints: np.ndarray,
                flips: tuple[int, ...] | None = None, parts: tuple[str, ...] | None = None) -> TrainingObjects:
    """One object `(K, 3)` in one picture `(H, W, 3)`."""
    cv2.imwrite(str(folder / "a.png"), picture)
    height, width = picture.shape[:2]
    images = make_images([{"image_id": "a.png", "archive": str(folder), "member": "a.png", "width": width,
                           "height": height}])
    names = tuple(f"p{number}" for number in range(len(keypoints)))
    points = Points(names, flips, parts or ("",) * len(names), (0.1,) * len(names))
    boxes = make_boxes([{"box_id": 0, "image_id": "a.png", "label": "cat", "x_min": 0, "y_min": 0, "x_max": 9,
                         "y_max": 9}])
    return TrainingObjects(("cat",), points, images, box[None].astype(float), np.zeros(1, np.int64),
                           keypoints[None].astype(float), (images, boxes, make_keypoints([])))


def draw_blob(size: tuple[int, int], place: tuple[float, float], radius: tuple[float, float]) -> np.ndarray:
    """A grey picture of this width and height with a bright Gaussian at a place, the corner at (0, 0)."""
    columns, rows = (np.arange(length) + 0.5 for length in size)
    blob = np.exp(-(((columns - place[0]) / radius[0]) ** 2 + (((rows - place[1]) / radius[1]) ** 2)[:, None]) / 2)
    return np.repeat(np.round(GREY + 140 * blob).astype(np.uint8)[:, :, None], 3, axis=2)


def find_blob(image: np.ndarray) -> np.ndarray:
    """The centre of what is brighter than grey, x and y."""
    weights = np.clip(image[..., 0].astype(float) - GREY - 3, 0, None)
    columns, rows = (np.arange(length) + 0.5 for length in image.shape[1::-1])
    return np.array([(weights.sum(0) * columns).sum(), (weights.sum(1) * rows).sum()]) / weights.sum()
