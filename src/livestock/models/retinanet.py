"""RetinaNet: a backbone, a feature pyramid and two heads over anchors, built from torchvision's parts.

Paper: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002. Anchors, matching, the focal loss
and the L1 loss of the boxes are torchvision's. What differs: batch norm is trained, since the weights may be random,
and boxes are handed over before torchvision suppresses any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet, RetinaNet_ResNet50_FPN_Weights
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from ..exceptions import BadData, UnsafeWeights
from .backbones import CLASSIFIERS, Pyramid, as_body, download_official, is_classifier, normalise_for
from .base import Batch, Loss, ModelConfig, Predictions, Resize
from .common import (
    SMALLEST,
    check_batch,
    check_entries,
    check_size,
    group_parameters,
    keep_official,
    move_classes,
    move_outputs,
)

BACKBONES = ("resnet18", "resnet50", "swin_t", "lite0")
LEVELS = 5  # P3 to P7
MOST_ANCHORS = 18  # of a place; the paper has 9
ANCHOR_SIZES = [[side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))] for side in (32, 64, 128, 256, 512)]
ASPECT_RATIOS = [0.5, 1.0, 2.0]  # height / width
# Official start weights: a backbone trained as a classifier on ImageNet, or the whole detector trained on COCO.
PRETRAINED: dict[str, Any] = {
    **{name: CLASSIFIERS[name] for name in (f"{backbone}_imagenet" for backbone in BACKBONES)},
    "retinanet_resnet50_fpn_coco": RetinaNet_ResNet50_FPN_Weights.COCO_V1,
}
CLASS_OUTPUTS = "head.classification_head.cls_logits."


class RetinaNetDetector(RetinaNet):
    """torchvision's RetinaNet, its tensors under the same names, that returns what its heads say.

    Called with float images `(B, 3, H, W)`, RGB in 0..1, sides multiples of 32, it gives `cls_logits` `(B, N, C)`,
    `bbox_regression` `(B, N, 4)`, which is relative to the anchors, and `anchors` `(N, 4)`, xyxy in pixels; float32.
    """

    def __init__(self, backbone: str, n_classes: int, anchors: AnchorGenerator) -> None:
        super().__init__(Pyramid(backbone, LEVELS), n_classes, anchor_generator=anchors)
        self.normalise = normalise_for(backbone)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Scores and offsets of all anchors, and the anchors, of images `(B, 3, H, W)`."""
        features = list(self.backbone(self.normalise(images)).values())
        outputs = {name: output.float() for name, output in self.head(features).items()}
        # Anchors take the type of the features, and half precision has no number between 2048 and 2050.
        [anchors] = self.anchor_generator(ImageList(images, [(0, 0)]), [level.float() for level in features])
        return {**outputs, "anchors": anchors}


class RetinaNetFamily:
    """RetinaNet; its sizes are backbones: `resnet18` (19 million parameters), `resnet50` (32), `swin_t` (36),
    `lite0` (11).
    """

    name = "retinanet"
    sizes = tuple(BACKBONES)
    needs_nms = True
    resize: Resize = "letterbox"
    sums_loss = False
    defaults: Mapping[str, float] = {"cls": 1.0, "box": 1.0}  # weights of the two parts of the loss

    def configure(self, labels: Sequence[str], imgsz: int, size: str = "") -> ModelConfig:
        """The config of a backbone, `resnet18` by default. Raises BadData for another one or an impossible side."""
        backbone = size or BACKBONES[0]
        if backbone not in BACKBONES:
            raise BadData(f"retinanet: size: expected one of {', '.join(BACKBONES)}, found {size!r}")
        check_size(imgsz, smallest=SMALLEST)
        architecture = {"backbone": backbone, "anchor_sizes": ANCHOR_SIZES, "aspect_ratios": ASPECT_RATIOS}
        return ModelConfig(self.name, tuple(labels), imgsz, architecture=architecture)

    def build(self, config: ModelConfig) -> nn.Module:
        """A network with random weights, made without network access. Raises UnsafeWeights for an impossible config."""
        backbone, sizes, ratios = _check_architecture(config)
        anchors = AnchorGenerator(sizes, (ratios,) * len(sizes))
        return RetinaNetDetector(backbone, len(config.labels), anchors)

    def find_pretrained(self, name: str, directory: Path) -> Path:
        """The checkpoint of official start weights, a name in `PRETRAINED`, made in `directory` if it is not there.

        torchvision's file is downloaded first, or was put there by hand. Raises ValueError for another name; and where
        it cannot be downloaded, one that says what to fetch and where to put it.
        """
        source = download_official(name, self._official(name), directory)
        return keep_official(source, self.describe_pretrained(name), directory / f"{self.name}_{name}")

    def describe_pretrained(self, name: str) -> ModelConfig:
        """The config of official start weights, as `adapt` needs it. Raises ValueError for a name that is not known."""
        official = self._official(name)
        labels = official.meta["categories"]  # of a detector with the background and the unused ids of COCO
        return self.configure(labels, 800, name.removesuffix("_imagenet") if name in CLASSIFIERS else "resnet50")

    def adapt(self, state: Mapping[str, Tensor], found: ModelConfig, wanted: ModelConfig) -> dict[str, Tensor]:
        """Start weights of another config as far as they fit: classes that both know moved to their new places.

        A class that is not known begins as the mean of all, see `common.move_classes`; where none is known, the class
        outputs are left out and stay random. A classifier's weights become those of the backbone.
        """
        if is_classifier(state):
            return as_body(state, "backbone.body.")
        moved = move_outputs(state, CLASS_OUTPUTS, lambda rows: _move_outputs(rows, found, wanted))
        return {_present_name(name): tensor for name, tensor in moved.items()}

    def fit_boxes(self, model: nn.Module, sizes: np.ndarray, imgsz: int, hyp: Mapping[str, float]) -> None:
        """Nothing: the anchors, 32 to 813 px in three ratios, stay as they are."""

    def make_loss(self, model: nn.Module, hyp: Mapping[str, float]) -> Loss:
        """The focal loss of the classes `cls` and the L1 loss of the boxes `box`, torchvision's, times `hyp`'s weights.

        Both are divided by the number of matched anchors of an image, and means over the images are taken.
        The function raises BadData for a box without an area and for an unknown class.
        """
        weights = {**self.defaults, **hyp}
        detector: Any = model

        def loss(called: nn.Module, batch: Batch) -> dict[str, Tensor]:
            """The parts of the loss of a batch, weighted."""
            check_batch(batch, detector.head.classification_head.num_classes)
            outputs = called(batch.images)
            device = batch.images.device
            targets = [{"boxes": boxes.to(device, torch.float32), "labels": class_ids.to(device)}
                       for boxes, class_ids in zip(batch.boxes, batch.class_ids, strict=True)]
            parts = detector.compute_loss(targets, outputs, [outputs["anchors"]] * len(batch))
            return {"cls": weights["cls"] * parts["classification"], "box": weights["box"] * parts["bbox_regression"]}

        return loss

    def predict(self, model: nn.Module, images: Tensor) -> Predictions:
        """Every anchor's box `(B, N, 4)`, not clipped, and its scores `(B, N, C)`, before any selection."""
        detector: Any = model
        outputs = detector(images)
        shifts = outputs["bbox_regression"]
        anchors = outputs["anchors"].expand_as(shifts).reshape(-1, 4)
        boxes = detector.box_coder.decode_single(shifts.reshape(-1, 4), anchors)
        return Predictions(boxes.reshape(shifts.shape), outputs["cls_logits"].sigmoid())

    def parameter_groups(self, model: nn.Module, hyp: Mapping[str, float]) -> list[dict[str, Any]]:
        """Weights, which decay, norms and biases, all with `lr0`; see `common.group_parameters`."""
        return group_parameters(model.named_parameters(), hyp)

    def _official(self, name: str) -> Any:
        if name not in PRETRAINED:
            raise ValueError(f"weights {name!r}: expected one of {', '.join(PRETRAINED)}")
        return PRETRAINED[name]


def _check_architecture(config: ModelConfig) -> tuple[str, tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """Backbone, anchor sides of each level in pixels and ratios of height to width. Raises UnsafeWeights."""
    entries = check_entries(config, ("backbone", "anchor_sizes", "aspect_ratios"))
    if entries["backbone"] not in BACKBONES:
        raise UnsafeWeights(f"retinanet: backbone: expected one of {', '.join(BACKBONES)}, "
                            f"found {str(entries['backbone'])[:80]!r}")
    sizes, ratios = entries["anchor_sizes"], entries["aspect_ratios"]
    if not (_is_row(ratios) and isinstance(sizes, list | tuple) and len(sizes) == LEVELS and all(map(_is_row, sizes))
            and len({len(row) for row in sizes}) == 1 and len(sizes[0]) * len(ratios) <= MOST_ANCHORS):
        raise UnsafeWeights(f"retinanet: anchors: expected {LEVELS} lists of 1 to 9 sides above 0, all of one length, "
                            f"and such a list of ratios, {MOST_ANCHORS} anchors a place at most, "
                            f"found {str(sizes)[:80]} and {str(ratios)[:80]}")
    return entries["backbone"], tuple(map(tuple, sizes)), tuple(ratios)


def _is_row(values: object) -> bool:
    """Whether this is a list of one to nine numbers that an anchor can have."""
    return isinstance(values, list | tuple) and 1 <= len(values) <= 9 and all(
        isinstance(value, int | float) and 0 < value < 1e4 for value in values)


def _move_outputs(tensor: Tensor, found: ModelConfig, wanted: ModelConfig) -> Tensor | None:
    """Class outputs, weight `(A * C, 256, 3, 3)` or bias `(A * C,)` of A anchors by C classes, for other classes."""
    ratios, [sides, *_] = found.architecture["aspect_ratios"], found.architecture["anchor_sizes"]
    by_anchor = tensor.unflatten(0, (len(ratios) * len(sides), -1))
    moved = move_classes(by_anchor.transpose(0, 1), found.labels, wanted.labels)
    return None if moved is None else moved.transpose(0, 1).flatten(0, 1).contiguous()


def _present_name(name: str) -> str:
    """The name of a tensor today; official files count the ReLUs between the convolutions of a head.

    >>> _present_name("head.regression_head.conv.4.weight")
    'head.regression_head.conv.2.0.weight'
    """
    numbered = re.fullmatch(r"(head\.\w+\.conv)\.(\d)\.(\w+)", name)
    return f"{numbered[1]}.{int(numbered[2]) // 2}.0.{numbered[3]}" if numbered else name
