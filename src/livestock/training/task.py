"""What trainings of boxes, of keypoints, and of both do in different ways: reading, batches, validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.pose_set import read_objects, read_pose_images
from ..models.base import Family, OneStagePoseFamily, PoseFamily
from .batches import Loader, make_loader, read_images
from .crops import make_crop_loader
from .pose_scores import validate_both, validate_poses
from .scores import validate
from .settings import Place, TrainConfig


@dataclass(frozen=True)
class Task:
    """`read` gives the images of a list, `make_loader` their augmented batches, `validate` the scores of a model."""

    read: Callable[[Path, str], Any]
    make_loader: Callable[[Any, Mapping[str, float], TrainConfig, Any, int, Place], Loader]
    validate: Callable[..., dict[str, float]]


def find_task(family: Family) -> Task:
    """Keypoints for a family that sees one object at a time, both for one that finds both, boxes for all others."""
    if isinstance(family, OneStagePoseFamily):
        return BOTH
    return KEYPOINTS if isinstance(family, PoseFamily) else BOXES


def _load_boxes(
    images: Any, hyp: Mapping[str, float], config: TrainConfig, family: Family, stride: int, place: Place
) -> Loader:
    return make_loader(images, hyp, config, family.resize, stride, place)


def _load_crops(
    objects: Any, hyp: Mapping[str, float], config: TrainConfig, family: PoseFamily, stride: int, place: Place
) -> Loader:
    return make_crop_loader(objects, hyp, config, family.crop, place)


BOXES = Task(read_images, _load_boxes, validate)
KEYPOINTS = Task(read_objects, _load_crops, validate_poses)
BOTH = Task(read_pose_images, _load_boxes, validate_both)
