"""What a training starts from: weights of another training or an official one, made ready for these classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..data.pose_set import PoseImages, TrainingObjects
from ..data.training_images import TrainingImages
from ..exceptions import BadData, UnsafeWeights
from ..models.base import Family, ModelConfig, OneStagePoseFamily, load_matching
from ..models.checkpoint import read_checkpoint
from .settings import TrainConfig

logger = logging.getLogger(__name__)


def build_start(
    config: TrainConfig, family: Family, images: TrainingImages | PoseImages | TrainingObjects,
    hyp: Mapping[str, float],
    start_labels: list[str] | None = None,
) -> tuple[ModelConfig, nn.Module]:
    """The network before its first step: start weights as far as they fit, the rest random.

    Raises UnsafeWeights for start weights that are refused, BadData for those of another family, and where `freeze`
    reaches a tensor that is random.
    """
    labels = tuple(images.labels)
    if not config.weights:
        model_config = _name_points(family.configure(labels, config.imgsz, config.size), images)
        model = family.build(model_config)
        random = list(model.state_dict())
    else:
        found = read_checkpoint(Path(config.weights))
        is_detector = isinstance(family, OneStagePoseFamily) and found.config.family in family.starts_from
        if found.config.family != config.family and not is_detector:
            raise BadData(f"{config.weights}: expected weights of the family {config.family}, found "
                          f"{found.config.family}; train with that family, or name other weights")
        own_size = found.config.architecture.get("size", config.size)
        if isinstance(family, OneStagePoseFamily) and not is_detector and config.size not in ("", own_size):
            raise BadData(f"{config.weights}: expected weights of the size {config.size}, found {own_size}; train that "
                          "size, or name other weights")
        known = replace(found.config, labels=tuple(start_labels or found.config.labels))
        wanted = replace(known, labels=labels, imgsz=config.imgsz)
        if is_detector or config.size and isinstance(images, TrainingObjects):  # all but the head that they had
            wanted = family.configure(labels, config.imgsz, config.size)
        model_config = _name_points(wanted, images)
        model = family.build(model_config)
        try:
            adapted = family.adapt(found.tensors, known, model_config)
        except (ValueError, RuntimeError, TypeError, LookupError) as error:  # tensors of other shapes or names
            raise UnsafeWeights(f"{config.weights}: expected tensors of a {config.family} model, found others: {error}"
                                ) from error
        report = load_matching(model, adapted)
        if not report.loaded:
            raise UnsafeWeights(f"{config.weights}: expected tensors of a {config.family} model, found none that fits")
        random = report.random
        dropped = [*report.unused, *sorted(found.tensors.keys() - adapted.keys())]
        logger.info("%s: %d tensors fit this model, %s stay random, %s of the file are dropped", config.weights,
                    len(report.loaded), _name_few(report.random), _name_few(dropped))
    names = [name for name, _ in model.named_parameters()]
    if wrong := [name for name in names[: int(hyp.get("freeze", 0.0) * len(names))] if name in set(random)]:
        raise BadData(f"freeze {hyp['freeze']:g}: expected to reach tensors of the start weights alone, found "
                      f"{wrong[0]!r}, which is random and would stay so; at most "
                      f"{names.index(wrong[0]) / len(names):.2f}")
    family.fit_boxes(model, np.concatenate([np.zeros((0, 2)), *images.box_sizes(config.imgsz)]), config.imgsz, hyp)
    return model_config, model


def freeze(model: nn.Module, share: float) -> int:
    """Freezes this share of a network's parameter tensors, the first ones in its own order; returns how many.

    No gradients are computed for them, so a step takes less time. The statistics of batch norm are still updated, as
    with yolov5's `--freeze`.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    >>> freeze(model, 0.5), [name for name, tensor in model.named_parameters() if tensor.requires_grad]
    (3, ['1.bias', '2.weight', '2.bias'])
    """
    tensors = list(model.parameters())
    n_frozen = int(share * len(tensors))
    for tensor in tensors[:n_frozen]:
        tensor.requires_grad_(False)
    return n_frozen


def _name_points(config: ModelConfig, images: TrainingImages | PoseImages | TrainingObjects) -> ModelConfig:
    """The config for the keypoints of a training: names, mirror images, classes; as it is where there are none."""
    if not isinstance(images, PoseImages | TrainingObjects):
        return config
    points = images.points
    own: dict[str, Any] = {"points": list(points.names), "flips": list(points.flips or []),
           "owners": [list(ids) for ids in points.owners]}
    if "sigmas" in config.architecture:
        own["sigmas"] = list(points.sigmas)
    return replace(config, architecture={**config.architecture, **own})


def _name_few(names: list[str]) -> str:
    """How many there are, and the first of them.

    >>> _name_few([]), _name_few(["a", "b"]), _name_few(list("abcdef"))
    ('0', '2 (a, b)', '6 (a, b, c, d, ...)')
    """
    shown = ", ".join([*names[:4], *["..."] * (len(names) > 4)])
    return f"{len(names)} ({shown})" if names else "0"
