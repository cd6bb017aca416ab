"""SSD: default boxes on six maps of falling size, classes by softmax with a background, built from torchvision's parts.

Paper: Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016, arXiv:1512.02325. Default boxes, matching, heads and
the loss with its hard negatives are torchvision's. What differs: the input has any size, and boxes are handed over
before any are suppressed. On other classifiers than the paper's the three last maps are made as the paper's are.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import SSD300_VGG16_Weights, ssd300_vgg16
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from ..exceptions import BadData, UnsafeWeights
from .backbones import (
    CHANNELS,
    CLASSIFIERS,
    COLOURS,
    MEAN,
    STD,
    Normalise,
    as_body,
    build_body,
    download_official,
    find_maps,
    is_classifier,
    place_centres,
)
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

BACKBONES = ("resnet18", "resnet50", "vgg16", "lite0")
# Default boxes of the six maps: ratios of their sides besides 1, and sizes as shares of the image (page 6; for the
# smallest sizes the paper's authors and torchvision take 0.07).
ASPECT_RATIOS = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
SCALES = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
EXTRA = ((256, 512), (128, 256), (128, 256))  # of a classifier's further maps: channels inside a block and after it
SMALLEST_VGG = 288  # pixels; on less, VGG's last maps would have no place
OFFICIAL = "ssd300_vgg16_coco"
# torchvision's SSD300 was trained on pixels of 0 to 255 less the mean of these.
OFFICIAL_MEAN, OFFICIAL_STD = (0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255)
PRETRAINED: dict[str, Any] = {
    **{name: CLASSIFIERS[name] for name in (f"{backbone}_imagenet" for backbone in BACKBONES)},
    OFFICIAL: SSD300_VGG16_Weights.COCO_V1,
}
CLASS_OUTPUTS = "head.classification_head."
VGG_FEATURES = 23  # layers of VGG-16 before its fourth pooling


class ClassifierMaps(nn.Module):
    """The three maps of a classifier and three more, each of half the size of the one before."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.body = build_body(name)
        blocks, channels = [], CHANNELS[name][-1]
        for inside, after in EXTRA:
            blocks.append(nn.Sequential(  # without batch norm: a map of one place in a batch of one has no variance
                nn.Conv2d(channels, inside, 1), nn.ReLU(inplace=True),
                nn.Conv2d(inside, after, 3, stride=2, padding=1), nn.ReLU(inplace=True)))
            channels = after
        self.extra = nn.ModuleList(blocks)
        for module in self.extra.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        self.out_channels = [*CHANNELS[name], *(after for _, after in EXTRA)]

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """The maps of all levels, the largest first."""
        maps = list(find_maps(self.body, images).values())
        for block in self.extra:
            maps.append(block(maps[-1]))
        return OrderedDict((str(number), level) for number, level in enumerate(maps))


class VggMaps(nn.Module):
    """The six maps of torchvision's SSD300; an image that is too small for them has grey added right and below."""

    def __init__(self) -> None:
        super().__init__()
        whole = ssd300_vgg16(weights=None, weights_backbone=None)
        self.features, self.extra = whole.backbone.features, whole.backbone.extra
        self.scale_weight = whole.backbone.scale_weight
        self.out_channels = [512, 1024, 512, 256, 256, 256]

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """The maps of all levels, the largest first, those of conv4_3 normalised."""
        maps = self.features(images)
        found = [self.scale_weight.view(1, -1, 1, 1) * functional.normalize(maps)]
        for block in self.extra:
            maps = block(maps)
            found.append(maps)
        return OrderedDict((str(number), level) for number, level in enumerate(found))


class SsdDetector(SSD):
    """torchvision's SSD, its tensors under the same names, that returns what its heads say.

    Called with float images `(B, 3, H, W)`, RGB in 0..1, it gives `cls_logits` `(B, N, C + 1)`, the background first,
    `bbox_regression` `(B, N, 4)`, which is relative to the default boxes, and these as `anchors` `(N, 4)`, xyxy in
    pixels; all float32.
    """

    def __init__(self, backbone: nn.Module, n_classes: int, normalise: Normalise, smallest: int) -> None:
        boxes = DefaultBoxGenerator(ASPECT_RATIOS, scales=SCALES)
        super().__init__(backbone, boxes, (300, 300), n_classes + 1)
        self.normalise, self.smallest = normalise, smallest

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Scores and offsets of all default boxes, and these boxes, of images `(B, 3, H, W)`."""
        pixels = self.normalise(images)
        if self.smallest:
            pixels = functional.pad(pixels, [0, _missing(self.smallest, images.shape[-1]),
                                             0, _missing(self.smallest, images.shape[-2])])
        features = list(self.backbone(pixels).values())
        outputs = {name: output.float() for name, output in self.head(features).items()}
        boxes = [place_default_boxes(maps, level, *pixels.shape[-2:]) for level, maps in enumerate(features)]
        return {**outputs, "anchors": torch.cat(boxes)}


class SsdFamily:
    """SSD; its sizes are backbones: `resnet18` (14 million parameters), `resnet50` (28), the paper's `vgg16` (24),
    `lite0` (5).
    """

    name = "ssd"
    sizes = tuple(BACKBONES)
    needs_nms = True
    resize: Resize = "letterbox"
    sums_loss = False
    defaults: Mapping[str, float] = {"cls": 1.0, "box": 1.0}  # weights of the two parts of the loss

    def configure(self, labels: Sequence[str], imgsz: int, size: str = "") -> ModelConfig:
        """The config of a backbone, `resnet18` by default. Raises BadData for another one or an impossible side."""
        backbone = size or BACKBONES[0]
        if backbone not in BACKBONES:
            raise BadData(f"ssd: size: expected one of {', '.join(BACKBONES)}, found {size!r}")
        check_size(imgsz, smallest=SMALLEST)
        mean, std = COLOURS.get(backbone, (MEAN, STD))
        architecture = {"backbone": backbone, "mean": list(mean), "std": list(std)}
        return ModelConfig(self.name, tuple(labels), imgsz, architecture=architecture)

    def build(self, config: ModelConfig) -> nn.Module:
        """A network with random weights, made without network access. Raises UnsafeWeights for an impossible config."""
        entries = check_entries(config, ("backbone", "mean", "std"))
        name = entries["backbone"]
        if name not in BACKBONES:
            raise UnsafeWeights(f"ssd: backbone: expected one of {', '.join(BACKBONES)}, found {str(name)[:80]!r}")
        colours = [entries[key] for key in ("mean", "std")]
        if not all(isinstance(row, list | tuple) and len(row) == 3 and all(
                isinstance(value, int | float) and 0 < value < 1 for value in row) for row in colours):
            raise UnsafeWeights(f"ssd: mean and std: expected three numbers in 0..1 each, found {str(colours)[:80]}")
        backbone, smallest = (VggMaps(), SMALLEST_VGG) if name == "vgg16" else (ClassifierMaps(name), 0)
        return SsdDetector(backbone, len(config.labels), Normalise(*map(tuple, colours)), smallest)

    def find_pretrained(self, name: str, directory: Path) -> Path:
        """The checkpoint of official start weights, a name in `PRETRAINED`, made in `directory` if it is not there.

        torchvision's file is downloaded first, or was put there by hand. Raises ValueError for another name; and where
        it cannot be downloaded, one that says what to fetch and where to put it.
        """
        config = self.describe_pretrained(name)
        return keep_official(download_official(name, PRETRAINED[name], directory), config,
                             directory / f"{self.name}_{name}")

    def describe_pretrained(self, name: str) -> ModelConfig:
        """The config of official start weights, as `adapt` needs it. Raises ValueError for a name that is not known."""
        if name not in PRETRAINED:
            raise ValueError(f"weights {name!r}: expected one of {', '.join(PRETRAINED)}")
        labels = PRETRAINED[name].meta["categories"]
        if name in CLASSIFIERS:
            return self.configure(labels, 320, name.removesuffix("_imagenet"))
        architecture = {"backbone": "vgg16", "mean": list(OFFICIAL_MEAN), "std": list(OFFICIAL_STD)}
        return ModelConfig(self.name, tuple(labels[1:]), 320, architecture=architecture)  # less the background

    def adapt(self, state: Mapping[str, Tensor], found: ModelConfig, wanted: ModelConfig) -> dict[str, Tensor]:
        """Start weights of another config as far as they fit: classes that both know moved to their new places.

        A class that is not known begins as the mean of all, see `common.move_classes`; where none is known, the class
        outputs are left out and stay random. A classifier's weights become those of the backbone.
        """
        if is_classifier(state):
            return _place_vgg(state) if found.architecture["backbone"] == "vgg16" else as_body(state, "backbone.body.")
        return move_outputs(state, CLASS_OUTPUTS, lambda rows: _move_outputs(rows, found, wanted))

    def fit_boxes(self, model: nn.Module, sizes: np.ndarray, imgsz: int, hyp: Mapping[str, float]) -> None:
        """Nothing: the default boxes, 0.07 to 1.05 of the image in up to five ratios, stay as they are."""

    def make_loss(self, model: nn.Module, hyp: Mapping[str, float]) -> Loss:
        """The softmax loss of the classes `cls` and the smooth L1 loss of the boxes `box`, times `hyp`'s weights.

        As in the paper's equation 1, both are divided by the number of matched default boxes of the batch, and of the
        background's boxes three times as many count as are matched, those with the highest loss. An image without a
        box adds nothing. The function raises BadData for a box without an area and for an unknown class.
        """
        weights = {**self.defaults, **hyp}
        detector: Any = model
        n_classes = detector.head.classification_head.num_columns - 1

        def loss(called: nn.Module, batch: Batch) -> dict[str, Tensor]:
            """The parts of the loss of a batch, weighted."""
            check_batch(batch, n_classes)
            outputs = called(batch.images)
            device, anchors = batch.images.device, outputs["anchors"]
            targets = [{"boxes": boxes.to(device, torch.float32), "labels": class_ids.to(device) + 1}
                       for boxes, class_ids in zip(batch.boxes, batch.class_ids, strict=True)]
            matched = [detector.proposal_matcher(box_iou(target["boxes"], anchors)) if len(target["boxes"])
                       else torch.full((len(anchors),), -1, device=device) for target in targets]
            parts = detector.compute_loss(targets, outputs, [anchors] * len(batch), matched)
            return {"cls": weights["cls"] * parts["classification"], "box": weights["box"] * parts["bbox_regression"]}

        return loss

    def predict(self, model: nn.Module, images: Tensor) -> Predictions:
        """Every default box as the network moves it, `(B, N, 4)`, not clipped, and its scores `(B, N, C)`."""
        detector: Any = model
        outputs = detector(images)
        shifts = outputs["bbox_regression"]
        anchors = outputs["anchors"].expand_as(shifts).reshape(-1, 4)
        boxes = detector.box_coder.decode_single(shifts.reshape(-1, 4), anchors)
        return Predictions(boxes.reshape(shifts.shape), outputs["cls_logits"].softmax(-1)[..., 1:])

    def parameter_groups(self, model: nn.Module, hyp: Mapping[str, float]) -> list[dict[str, Any]]:
        """Weights, which decay, norms and biases, all with `lr0`; see `common.group_parameters`."""
        return group_parameters(model.named_parameters(), hyp)


def place_default_boxes(maps: Tensor, level: int, height: int, width: int) -> Tensor:
    """The default boxes of a map `(B, K, H, W)`, `(H * W * A, 4)` xyxy, in an image of this height and width in pixels.

    Of a square those of torchvision's `DefaultBoxGenerator`. The paper knows squares alone; here sizes are shares of
    the longer side, so that a box that was learnt on a square is the same where grey has been cut off. Of a place the
    box with the size of the level comes first, then the one between it and the next level's, then each ratio and its
    inverse.

    >>> place_default_boxes(torch.zeros(1, 1, 1, 1), 0, 100, 200)[0].tolist()
    [93.0, 43.0, 107.0, 57.0]
    """
    side, next_side = SCALES[level], SCALES[level + 1]
    pairs = [(side, side), (math.sqrt(side * next_side), math.sqrt(side * next_side))]
    for ratio in ASPECT_RATIOS[level]:
        long, short = side * math.sqrt(ratio), side / math.sqrt(ratio)
        pairs += [(long, short), (short, long)]
    sizes = torch.tensor(pairs, device=maps.device).clamp(0, 1)
    x, y = place_centres(maps).flatten(1)[:, :, None]
    x, y = x * width / maps.shape[-1], y * height / maps.shape[-2]
    longer = torch.maximum(height, width) if isinstance(height, Tensor) else max(height, width)
    half_width, half_height = (sizes * longer / 2).T
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], -1).flatten(0, 1)


def _missing(smallest: int, side: int) -> Any:
    """Pixels that a side lacks; on its way into another format it is a tensor."""
    return (smallest - side).clamp(min=0) if isinstance(side, Tensor) else max(smallest - side, 0)


def _move_outputs(tensor: Tensor, found: ModelConfig, wanted: ModelConfig) -> Tensor | None:
    """Class outputs, weight `(A * (C + 1), K, 3, 3)` or bias of A default boxes, for other classes.

    The background, which comes first, stays.
    """
    by_box = tensor.unflatten(0, (-1, len(found.labels) + 1))
    moved = move_classes(by_box[:, 1:].transpose(0, 1), found.labels, wanted.labels)
    if moved is None:
        return None
    return torch.cat([by_box[:, :1], moved.transpose(0, 1)], 1).flatten(0, 1).contiguous()


def _place_vgg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A VGG-16's convolutions under the names that they have in SSD, those after the fourth pooling in an own block.

    >>> list(_place_vgg({"features.0.bias": torch.zeros(1), "features.24.bias": torch.zeros(1),
    ...                  "classifier.0.bias": torch.zeros(1)}))
    ['backbone.features.0.bias', 'backbone.extra.0.1.bias']
    """
    placed = {}
    for name, tensor in state.items():
        part, number, *rest = name.split(".")
        if part == "features":
            layer = int(number)
            where = f"features.{layer}" if layer < VGG_FEATURES else f"extra.0.{layer - VGG_FEATURES}"
            placed[".".join(["backbone", where, *rest])] = tensor
    return placed
