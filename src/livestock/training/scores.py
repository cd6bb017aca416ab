"""What a model is worth on the validation images of a training: the competition's metric and the usual ones."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import nn

from ..data.pose_set import PoseImages
from ..data.training_images import TrainingImages
from ..evaluation import COCO_IOUS, f1_threshold, match_at_ious, score
from ..inference import Keep, find_candidates
from ..models.base import Family, Loss, ModelConfig
from ..models.forward import wrap_model
from ..postprocess import suppress
from .batches import plain_batches
from .settings import TrainConfig

IOU_THRESHOLD, CONF_FLOOR = 0.6, 0.001  # of the suppression in validation: yolov5's


def validate(
    model: nn.Module, model_config: ModelConfig, family: Family, loss: Loss, images: TrainingImages,
    config: TrainConfig, device: str, progress: float = 0.0,
) -> dict[str, float]:
    """`AP` at the competition's IoU, AP50, AP75, mAP50_95, precision, recall and each part of the loss (`val_...`).

    Boxes are found as at inference, each picture as the family lays it on its input, and suppressed with fixed
    thresholds; for set prediction nothing is suppressed. Precision and recall are those at IoU 0.5 of the confidence
    with the highest F1.
    """
    table, truth = images.to_tables()
    loaded = wrap_model(family, model_config, model, device)
    found = find_candidates(loaded, table, list(model_config.labels), imgsz=config.imgsz, keep=make_keep(family))
    losses = find_losses(model, loss, images, config, family, model_config.stride, device, progress)
    return {**score_boxes(truth, found.boxes, config.metric_iou), **losses}


def make_keep(family: Family) -> Keep:
    """Suppression with fixed thresholds; for set prediction nothing is suppressed."""
    iou_threshold = IOU_THRESHOLD if family.needs_nms else 1.0
    return partial(suppress, iou_threshold=iou_threshold, conf_threshold=CONF_FLOOR)


def score_boxes(truth: pd.DataFrame, boxes: pd.DataFrame, metric_iou: float) -> dict[str, float]:
    """The scores of boxes that were suppressed: `AP` at `metric_iou`, AP50, AP75, mAP50_95, precision and recall.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 100, "y_max": 10}])
    >>> found = score_boxes(truth, truth.assign(x_max=78.0), metric_iou=0.75)  # of IoU 0.78
    >>> found["AP"], found["AP50"], found["mAP50_95"], found["recall"]
    (1.0, 1.0, 0.6, 1.0)
    """
    ious = [*COCO_IOUS, metric_iou]
    matches = match_at_ious(truth, boxes, ious)
    each = np.array([score(found).mean for found in matches])
    at_50, n_truth = matches[0], int(matches[0].n_truth.sum())
    counted = at_50.is_true[at_50.confidence >= f1_threshold(at_50)] if len(at_50.is_true) else np.zeros(0, bool)
    return {
        "AP": float(each[-1]), "AP50": float(each[0]), "AP75": float(each[5]),
        "mAP50_95": round(float(each[:-1].mean()), 6),
        "precision": float(counted.mean()) if len(counted) else 0.0,
        "recall": float(counted.sum() / n_truth) if n_truth else 0.0,
    }


@torch.no_grad()
def find_losses(
    model: nn.Module, loss: Loss, images: TrainingImages | PoseImages, config: TrainConfig, family: Family, stride: int,
    device: str, progress: float,
) -> dict[str, float]:
    """Each part of the loss on the validation images, without augmentation: `val_box_loss` ..."""
    sums: dict[str, torch.Tensor] = {}
    for batch in plain_batches(images, config.imgsz, config.batch, family.resize, stride):
        for name, part in loss(model, replace(batch.to(torch.device(device)), progress=progress)).items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + part.detach().reshape(()) * len(batch)
    return {f"val_{name}_loss": float(total) / len(images) for name, total in sums.items()}
