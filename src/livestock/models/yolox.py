"""YOLOX: boxes without anchors, assigned by what they cost; network and loss of the package pixeltable-yolox.

Paper: Ge et al., YOLOX: Exceeding YOLO Series in 2021, arXiv:2107.08430. The networks (CSPDarknet and its pyramid), the
head, SimOTA's assignment and the loss are the package's, as they are. On a classifier, as the paper has none, its head
stands on torchvision's pyramid. The L1 loss that the authors add in the last epochs is left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights
from torchvision.ops import box_convert

from ..exceptions import BadData, UnsafeWeights
from .backbones import CLASSIFIERS, WIDTH, Pyramid, as_body, download_official, is_classifier, normalise_for
from .base import Batch, Loss, ModelConfig, Predictions, Resize
from .common import (
    SMALLEST,
    check_batch,
    check_entries,
    check_size,
    download,
    group_parameters,
    keep_official,
    move_classes,
    move_outputs,
)

DARKNETS = ("yolox_nano", "yolox_tiny", "yolox_s", "yolox_m", "yolox_l", "yolox_x")
CLASSIFIED = ("resnet18", "resnet50", "lite0")
PRETRAINED = (*(f"{size}_coco" for size in DARKNETS), *(f"{name}_imagenet" for name in CLASSIFIED))
RELEASE = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"
INSTALL = "pip install --no-deps pixeltable-yolox==0.4.3 && pip install loguru tabulate pycocotools"
PRIOR = 0.01  # the first scores
LARGEST = 1e5  # pixels: sizes are exponentials, which in a network that has learnt nothing overflow
OFFICIAL_BOX = 5.0  # the package's own weight of the loss of the boxes
CLASS_OUTPUTS = "head.cls_preds."


@cache
def _load() -> Any:
    """The package's `models` and `YoloxConfig`. Raises ImportError that says what to install where it is missing."""
    try:
        from yolox import models
        from yolox.config import YoloxConfig
    except ImportError as error:
        raise ImportError(f"the model family yolox needs {error.name}, which is not installed: {INSTALL}") from error
    return models, YoloxConfig


class Bgr(nn.Module):
    """Pixels RGB in 0..1 as blue, green, red in 0..255, which the official weights were trained on."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flip(1) * 255


class YoloxDetector(nn.Module):
    """A pyramid and the package's head, their tensors under the same names as in official files.

    Called with float images `(B, 3, H, W)`, RGB in 0..1, sides multiples of 32, it gives `(B, N, 5 + C)`: centre x and
    y, width, height in pixels, objectness, scores. With `targets` `(B, M, 5)`, class, centre, width and height, rows of
    0 for none, it gives the parts of the loss, `box`, `obj` and `cls`.
    """

    def __init__(self, prepare: nn.Module, backbone: nn.Module, head: Any) -> None:
        super().__init__()
        self.prepare, self.backbone, self.head = prepare, backbone, head

    def forward(self, images: Tensor, targets: Tensor | None = None) -> Any:
        """What the head gives: its loss where there are targets, else predictions of all places."""
        features = self.backbone(self.prepare(images))
        levels = features.values() if isinstance(features, dict) else features
        # By this flag alone the head decides whether it computes its loss, also on validation images; the flags of its
        # batch norms stay. Half precision has too few digits for pixels.
        was, self.head.training = self.head.training, targets is not None
        with torch.autocast(images.device.type, enabled=False), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the package asks for autocast by its former name
            found = self.head([level.float() for level in levels], targets, images)
        self.head.training = was
        if targets is None:
            return found
        _, box, objectness, classes, *_ = found
        return {"box": box, "obj": objectness, "cls": classes}


class YoloxFamily:
    """YOLOX: the published sizes, `yolox_nano` (0.9 million parameters) to `yolox_x` (99); its head on `resnet18` (20),
    `resnet50` (33) and `lite0` (12).

    Raises ImportError that says what to install if the package is not there.
    """

    name = "yolox"
    sizes = (*DARKNETS, *CLASSIFIED)
    needs_nms = True
    resize: Resize = "top_left"
    sums_loss = False
    defaults: Mapping[str, float] = {"box": OFFICIAL_BOX, "obj": 1.0, "cls": 1.0}  # weights of the parts of the loss

    def __init__(self) -> None:
        _load()

    def configure(self, labels: Sequence[str], imgsz: int, size: str = "") -> ModelConfig:
        """The config of a size, `yolox_nano` by default. Raises BadData for another one or an impossible side."""
        size = size or DARKNETS[0]
        if size not in self.sizes:
            raise BadData(f"yolox: size: expected one of {', '.join(self.sizes)}, found {size!r}")
        check_size(imgsz, smallest=SMALLEST)
        return ModelConfig(self.name, tuple(labels), imgsz, architecture={"size": size})

    def build(self, config: ModelConfig) -> nn.Module:
        """A network with random weights, made without network access. Raises UnsafeWeights for an impossible config."""
        size = check_entries(config, ("size",))["size"]
        if size not in self.sizes:
            raise UnsafeWeights(f"yolox: size: expected one of {', '.join(self.sizes)}, found {str(size)[:80]!r}")
        modules, configs = _load()
        if size in DARKNETS:
            official = configs.get_named_config(size)
            official.num_classes = len(config.labels)
            network = official.get_model()
            return YoloxDetector(Bgr(), network.backbone, network.head)
        head = modules.YoloxHead(len(config.labels), in_channels=[WIDTH] * 3)
        head.initialize_biases(PRIOR)
        return YoloxDetector(normalise_for(size), Pyramid(size, 3), head)

    def find_pretrained(self, name: str, directory: Path) -> Path:
        """The checkpoint of official start weights, a name in `PRETRAINED`, made in `directory` if it is not there.

        The file of the authors or of torchvision is downloaded first, or was put there by hand. Raises ValueError for
        another name; and where it cannot be downloaded, one that says what to fetch and where to put it.
        """
        config = self.describe_pretrained(name)
        file = f"{name.removesuffix('_coco')}.pth"
        source = (download_official(name, CLASSIFIERS[name], directory) if name in CLASSIFIERS
                  else download(name, f"{RELEASE}/{file}", directory / file))
        return keep_official(source, config, directory / f"{self.name}_{name}")

    def describe_pretrained(self, name: str) -> ModelConfig:
        """The config of official start weights, as `adapt` needs it. Raises ValueError for a name that is not known."""
        if name not in PRETRAINED:
            raise ValueError(f"weights {name!r}: expected one of {', '.join(PRETRAINED)}")
        if name in CLASSIFIERS:
            return self.configure(CLASSIFIERS[name].meta["categories"], 640, name.removesuffix("_imagenet"))
        categories = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]  # with ids that COCO does not use
        coco = [label for label in categories if label not in ("__background__", "N/A")]
        return self.configure(coco, 640, name.removesuffix("_coco"))

    def adapt(self, state: Mapping[str, Tensor], found: ModelConfig, wanted: ModelConfig) -> dict[str, Tensor]:
        """Start weights of another config as far as they fit: classes that both know moved to their new places.

        A class that is not known begins as the mean of all, see `common.move_classes`; where none is known, the class
        outputs are left out and stay random. A classifier's weights become those of the backbone.
        """
        if is_classifier(state):
            return as_body(state, "backbone.body.")
        return move_outputs(state, CLASS_OUTPUTS, lambda rows: move_classes(rows, found.labels, wanted.labels))

    def fit_boxes(self, model: nn.Module, sizes: np.ndarray, imgsz: int, hyp: Mapping[str, float]) -> None:
        """Nothing: boxes are predicted from places, not from anchors of the data."""

    def make_loss(self, model: nn.Module, hyp: Mapping[str, float]) -> Loss:
        """The parts of the package's loss, times `hyp`'s weights: IoU of the boxes, objectness, classes.

        All are divided by the number of places that SimOTA assigned in the batch. The function raises BadData for a
        box without an area and for an unknown class.
        """
        weights = {**self.defaults, **hyp}
        detector: Any = model

        def loss(called: nn.Module, batch: Batch) -> dict[str, Tensor]:
            """The parts of the loss of a batch, weighted."""
            check_batch(batch, detector.head.num_classes)
            parts = called(batch.images, make_targets(batch))
            return {"box": weights["box"] / OFFICIAL_BOX * parts["box"],
                    **{name: weights[name] * parts[name] for name in ("obj", "cls")}}

        return loss

    def predict(self, model: nn.Module, images: Tensor) -> Predictions:
        """The box of every place, `(B, N, 4)`, not clipped, and its scores `(B, N, C)`, objectness multiplied in."""
        found = model(images)
        sizes = found[..., 2:4].clamp(max=LARGEST)
        boxes = box_convert(torch.cat([found[..., :2], sizes], -1), "cxcywh", "xyxy")
        return Predictions(boxes, found[..., 4:5] * found[..., 5:])

    def parameter_groups(self, model: nn.Module, hyp: Mapping[str, float]) -> list[dict[str, Any]]:
        """Weights, which decay, norms and biases, all with `lr0`; see `common.group_parameters`."""
        return group_parameters(model.named_parameters(), hyp)


def make_targets(batch: Batch) -> Tensor:
    """The package's targets: `(B, M, 5)`, class, centre x and y, width and height in pixels; rows of 0 for none.

    >>> batch = Batch(torch.zeros(2, 3, 64, 64), [torch.tensor([[0.0, 8, 16, 24]]), torch.zeros(0, 4)],
    ...               [torch.tensor([1]), torch.zeros(0, dtype=torch.int64)])
    >>> make_targets(batch).tolist()
    [[[1.0, 8.0, 16.0, 16.0, 16.0]], [[0.0, 0.0, 0.0, 0.0, 0.0]]]
    """
    targets = torch.zeros(len(batch), max(1, *map(len, batch.boxes)), 5)
    for row, boxes, class_ids in zip(targets, batch.boxes, batch.class_ids, strict=True):
        row[:len(boxes), 0], row[:len(boxes), 1:] = class_ids, box_convert(boxes.float(), "xyxy", "cxcywh")
    return targets.to(batch.images.device)
