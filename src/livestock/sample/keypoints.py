"""The sample with keypoints: the same frames as JPEG files with labels in COCO's keypoint layout.

A COCO annotation has the box as the other sample has it (the whole animal, hidden parts too), `keypoints` as x, y and
flag of each point, `num_keypoints` that are labelled, hidden ones among them, and as `area` the pixels that show the
animal. COCO writes 0, 0, 0 for a point that is not labelled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Skeleton, read_competition, resource
from ..files.progress import progress_bar
from ..files.write import write_bytes, write_text
from .animals import Animal, pose
from .joints import POINTS, facing_points
from .output import encode_jpeg, write_sources
from .plan import Shot, plan_sample
from .scenes import Frame, draw_frame, label_frame
from .sight import see_points, visible_areas
from .solids import Array

KEYPOINTS_FILE = "keypoints.yaml"
LABELS_FILE = "train/_annotations.coco.json"
TRUTH_FILE = "truth_test.json"
Entry = dict[str, Any]


def draw_keypoint_sample(directory: Path, *, seed: int = 0, n_train: int = 240, n_test: int = 60,
                         scale: float = 1 / 3, is_alone: bool = False) -> None:
    """Writes the frames of a sample with keypoints to `directory`.

    They are `train/images/*.jpg` with `train/_annotations.coco.json`, `test/images/*.jpg` without labels, their truth
    as `truth_test.json` beside, and `sources.csv`. Arguments and frames are those of `draw_sample`: equal seeds give
    the same pictures there and here. If `is_alone` each shows one animal. `keypoints.yaml` is the competition's file.

    Raises ValueError for n_train < 8, n_test < 2, a scale outside (0, 1], and images of another sample in the folder.
    """
    shots = plan_sample(seed=seed, n_train=n_train, n_test=n_test, scale=scale, is_alone=is_alone)
    _refuse_others(directory, shots)
    with progress_bar("drawing the sample", unit="image", total=len(shots)) as bar:
        for shot in shots:
            image = draw_frame(shot.frame, shot.noise)[0]
            jpeg = encode_jpeg(image, shot.frame.light.quality)
            write_bytes(jpeg, _image_path(directory, shot), flush=False)
            bar.update()
    skeleton = livestock_skeleton()
    for split, name in (("train", LABELS_FILE), ("test", TRUTH_FILE)):
        content = coco_labels([shot for shot in shots if shot.split == split], skeleton)
        write_text(json.dumps(content, ensure_ascii=False) + "\n", directory / name)
    write_sources(directory, shots)


def livestock_skeleton() -> Skeleton:
    """The skeleton of `keypoints.yaml`, which comes with the package.

    >>> livestock_skeleton().names("pig")[:4]
    ['mouth', 'eye', 'ear', 'neck']
    """
    skeleton = read_competition(resource(KEYPOINTS_FILE)).skeleton
    if skeleton is None:
        raise ValueError(f"{KEYPOINTS_FILE}: expected a skeleton, found none; install the package again")
    return skeleton


def frame_keypoints(frame: Frame) -> tuple[list[Animal], Array, Array, Array]:
    """The N animals that a frame shows, far to near, their boxes (N, 4) xyxy, points (N, 18, 3) and areas (N,).

    Nothing is drawn. Points are x, y in pixels and a flag: 0 outside the picture (x and y NaN), 1 hidden, 2 seen; see
    `sight`. An area is the number of pixels that show the animal, at least 1.
    """
    camera, front = frame.barn.camera, frame.barn.front
    animals, solids, boxes = label_frame(frame)
    placed = [facing_points(pose(animal)[1], camera) for animal in animals]
    points = np.array([places for places, _ in placed]).reshape(len(animals), len(POINTS), 3)
    depths = np.array([depth for _, depth in placed]).reshape(points.shape[:2])
    seen = see_points(points, depths, solids, camera, front)
    areas = np.maximum(visible_areas(solids, camera, front), 1)
    return animals, boxes, seen, areas


def coco_labels(shots: Iterable[Shot], skeleton: Skeleton) -> Entry:
    """COCO's `images`, `annotations` and `categories` of some frames, with ids from 1; nothing is drawn.

    Each annotation has the animal's posture, too, as `behaviour`.
    """
    ids = {label: number for number, label in enumerate(skeleton.labels, 1)}
    images: list[Entry] = []
    annotations: list[Entry] = []
    for shot in shots:
        camera = shot.frame.barn.camera
        images.append({"id": len(images) + 1, "file_name": f"{shot.stem}.jpg", "width": camera.width,
                       "height": camera.height})
        for animal in _animals(shot.frame, ids):
            annotations.append({"id": len(annotations) + 1, "image_id": len(images), **animal})
    return {"info": {"description": "drawn pigs and cows, as livestock.sample has them"}, "images": images,
            "annotations": annotations, "categories": [_category(label, ids[label], skeleton) for label in ids]}


def _animals(frame: Frame, ids: dict[str, int]) -> list[Entry]:
    """What COCO says of each animal of a frame."""
    entries = []
    for animal, box, points, area in zip(*frame_keypoints(frame), strict=True):
        x0, y0, x1, y1 = box.round(2).tolist()
        entries.append({
            "category_id": ids[animal.species], "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
            "area": float(area), "iscrowd": 0, "num_keypoints": int((points[:, 2] > 0).sum()),
            "keypoints": _flat(points), "behaviour": animal.behaviour})
    return entries


def _flat(points: Array) -> list[float]:
    """Points (K, 3) as COCO lists them: x, y, flag, x, y, flag ..., the flags whole."""
    return [value for x, y, flag in np.nan_to_num(points).round(2).tolist() for value in (x, y, int(flag))]


def _category(label: str, number: int, skeleton: Skeleton) -> Entry:
    names = skeleton.names(label)
    edges = [[names.index(edge.first) + 1, names.index(edge.second) + 1] for edge in skeleton.edges
             if edge.label == label]
    return {"id": number, "name": label, "supercategory": "livestock", "keypoints": names, "skeleton": edges}


def _image_path(directory: Path, shot: Shot) -> Path:
    return directory / shot.split / "images" / f"{shot.stem}.jpg"


def _refuse_others(directory: Path, shots: list[Shot]) -> None:
    """Raises ValueError for images that would not be written over: they would seem to be of this sample."""
    own = {_image_path(directory, shot) for shot in shots}
    for path in sorted(directory.glob("*/images/*")):
        if path not in own:
            raise ValueError(f"{directory}: expected no images of another sample, found {path}; choose an empty folder")
