"""What a model of keypoints is worth on the validation objects of a training: errors in pixels, and shares of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from ..data.pose_set import TrainingObjects
from ..evaluation.pixel import correct_share, find_errors, find_lengths, normalised_mean_error
from ..models.base import Loss, ModelConfig, PoseFamily
from ..models.forward import wrap_model
from ..poses import find_poses
from .crops import plain_crops
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
    names = list(objects.points.names)
    errors = find_errors(keypoints[keypoints["keypoint"].isin(names)], found)
    lengths = find_lengths(boxes)
    scores = {"PCK": float(correct_share(errors, lengths).iloc[0]),
              "NME": normalised_mean_error(errors, lengths), "pixels": float(errors["error"].mean()),
              "median": float(errors["error"].median())}
    return {**scores, **_losses(model, loss, objects, config, family, device, progress)}


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
