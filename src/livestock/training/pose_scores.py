"""What a model of keypoints is worth on the validation images of a training: errors in pixels, and shares of them."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import torch
from torch import nn

from ..data.pose_set import PoseImages, TrainingObjects
from ..evaluation.pixel import as_true_objects, correct_share, find_errors, find_lengths, normalised_mean_error
from ..inference import find_candidates
from ..models.base import Family, Loss, ModelConfig, PoseFamily
from ..models.forward import wrap_model
from ..poses import find_poses
from ..tables import make_keypoints
from .crops import plain_crops
from .scores import find_losses, make_keep, score_boxes
from .settings import TrainConfig


def validate_poses(
    model: nn.Module, model_config: ModelConfig, family: PoseFamily, loss: Loss, objects: TrainingObjects,
    config: TrainConfig, device: str, progress: float = 0.0,
) -> dict[str, float]:
    """`PCK` (share of points within 0.05 of their box's diagonal), `NME`, `pixels` (mean error), `median`, `val_...`.

    Errors are in pixels of the original images, over points that are labelled; boxes are the true ones.
    """
    images, boxes, keypoints = objects.tables
    found = find_poses(wrap_model(family, model_config, model, device), images, boxes)
    scores = _score_points(boxes, keypoints[keypoints["keypoint"].isin(objects.points.names)], found)
    return {**scores, **_losses(model, loss, objects, config, family, device, progress)}


def validate_both(
    model: nn.Module, model_config: ModelConfig, family: Family, loss: Loss, images: PoseImages, config: TrainConfig,
    device: str, progress: float = 0.0,
) -> dict[str, float]:
    """The scores of `scores.validate`, and those of the points: of all labelled ones, those of objects that are not
    found at an IoU of 0.5 are missed. Then they are wrong in `PCK`, and in no mean.
    """
    table, boxes, keypoints = images.tables
    loaded = wrap_model(family, model_config, model, device)
    found = find_candidates(loaded, table, list(model_config.labels), imgsz=config.imgsz, keep=make_keep(family))
    points = make_keypoints([]) if found.keypoints is None else found.keypoints
    own = as_true_objects(boxes, found.boxes, points)
    losses = find_losses(model, loss, images, config, family, model_config.stride, device, progress)
    return {**score_boxes(boxes, found.boxes, config.metric_iou),
            **_score_points(boxes, keypoints[keypoints["keypoint"].isin(images.points.names)], own), **losses}


def _score_points(boxes: pd.DataFrame, keypoints: pd.DataFrame, found: pd.DataFrame) -> dict[str, float]:
    errors, lengths = find_errors(keypoints, found), find_lengths(boxes)
    return {"PCK": float(correct_share(errors, lengths).iloc[0]), "NME": normalised_mean_error(errors, lengths),
            "pixels": float(errors["error"].mean()), "median": float(errors["error"].dropna().median())}


@torch.no_grad()
def _losses(
    model: nn.Module, loss: Loss, objects: TrainingObjects, config: TrainConfig, family: PoseFamily, device: str,
    progress: float,
) -> dict[str, float]:
    """Each part of the loss on the validation objects, without augmentation: `val_maps_loss`."""
    sums: dict[str, float] = {}
    for batch in plain_crops(objects, config.imgsz, config.batch, family.crop):
        for name, part in loss(model, replace(batch.to(torch.device(device)), progress=progress)).items():
            sums[name] = sums.get(name, 0.0) + float(part) * len(batch)
    return {f"val_{name}_loss": total / len(objects) for name, total in sums.items()}
