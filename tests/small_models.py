"""Networks of every family for tests, with random weights, and drawn images to predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from livestock.config import REPOSITORY, read_competition
from livestock.data import readers
from livestock.data.submission import read_truth
from livestock.models.base import Batch, ModelConfig
from livestock.models.checkpoint import write_checkpoint
from livestock.models.registry import get_family
from livestock.sample import draw_sample
from livestock.tables import XYXY

LABELS = ["pig", "cow"]


@dataclass(frozen=True)
class Sample:
    """Images to calibrate with, images to score, their truth in pixels."""

    train: pd.DataFrame
    test: pd.DataFrame
    truth: pd.DataFrame


def draw_scored_sample(raw: Path) -> Sample:
    """Eight images and four to score, drawn into `raw`."""
    draw_sample(raw, n_train=8, n_test=4)
    competition = read_competition(REPOSITORY / "competition.yaml")
    train, test = readers.read_train_and_test("aihub", raw, competition)
    assert test is not None
    truth = read_truth(raw / "truth_test.csv")
    paths = {image_id.split("/")[-1]: image_id for image_id in test.images["image_id"]}  # it has bare names
    truth["image_id"] = truth["image_id"].map(paths)
    truth[XYXY] *= test.images.set_index("image_id").loc[truth["image_id"], ["width", "height"] * 2].to_numpy()
    return Sample(train.images, test.images, truth)


def build_lively(family: str, imgsz: int, labels: list[str] | None = None) -> tuple[ModelConfig, nn.Module]:
    """A random network in evaluation mode whose outputs differ from place to place, as those of a trained one do.

    As made, batch norm divides by 1 where the layers before it give a hundredth, and after some layers all places look
    alike; and layers that begin with zeros would hide whether an export keeps them. Each time the same numbers.
    """
    known = get_family(family)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        config = known.configure(labels or LABELS, imgsz)
        model = known.build(config).eval()
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train().reset_running_stats()
            norm.momentum = None  # the mean over all batches
        for _ in range(4):
            images = draw_blobs(32 if family == "yolox" else 4, imgsz, imgsz)  # YOLOX is deep, of few channels
            if norms:  # RF-DETR has none, and would take seconds
                known.predict(model, images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval().momentum = momentum
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.copy_(torch.randn(parameter.shape) * 0.1)
    return config, model


def write_lively(family: str, path: Path, imgsz: int = 128, labels: list[str] | None = None) -> Path:
    """The weights of `build_lively` as a file."""
    config, model = build_lively(family, imgsz, labels)
    write_checkpoint(path, config, model.state_dict())
    return path


def draw_squares(*, empty: bool = False) -> Batch:
    """Two images of noise with a bright square, and its box; the second has none if `empty`."""
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 0.3
    images[0, :, 32:80, 16:80] = 0.9
    images[1, 0, 40:104, 40:104] = 0.9
    boxes = [torch.tensor([[16.3, 32.1, 80, 80.9]]), torch.tensor([[40.3, 40.6, 104, 104.5]])]
    class_ids = [torch.tensor([0]), torch.tensor([1])]
    if empty:
        boxes[1], class_ids[1] = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    return Batch(images, boxes, class_ids)


def draw_blobs(batch: int, height: int, width: int) -> torch.Tensor:
    """Images `(B, 3, H, W)` of coloured blobs, other ones each time."""
    coarse = torch.rand(batch, 3, max(height // 16, 1), max(width // 16, 1))
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear")
