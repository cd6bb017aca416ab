"""TOOD: one head whose two tasks, classes and boxes, are aligned by how it is built and by what it is taught.

Paper: Feng et al., TOOD: Task-aligned One-stage Object Detection, ICCV 2021, arXiv:2108.07755, whose equations are
named below. Nobody keeps an implementation that runs on today's PyTorch, so network and loss are ours; the backbone
and the pyramid are torchvision's. Each place of the pyramid predicts one box.

In the first third of a training, boxes are assigned to places by ATSS (Zhang et al., CVPR 2020,
arXiv:1912.02424), which looks at distances alone, with the focal loss. Then task alignment learning takes the places
where the network itself is confident and precise at once. The authors' code differs in two details: its distances are
a scale times an exponential, not the exponential of a scaled number, and its deformable layers are modulated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import DeformConv2d, generalized_box_iou_loss

from ..exceptions import BadData, UnsafeWeights
from .backbones import (
    CLASSIFIERS,
    WIDTH,
    Pyramid,
    as_body,
    download_official,
    is_classifier,
    normalise_for,
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
from .tood_assign import assign_by_alignment, assign_by_distance, find_centrality

BACKBONES = ("resnet18", "resnet50", "resnext50", "resnext101", "lite0")
DEFORMABLE, N_DEFORMABLE = "_dcn", 2  # the end of a size's name with so many deformable layers in the head
PRETRAINED: dict[str, Any] = {f"{name}{end}_imagenet": CLASSIFIERS[f"{name}_imagenet"]
                              for name in BACKBONES for end in ("", DEFORMABLE)}
STRIDES = (8, 16, 32, 64, 128)  # of the levels P3 to P7
N_LAYERS = 6  # N of equation 1
REDUCED = WIDTH * N_LAYERS // 48  # of the layer attention: 1536 - 32 - 6
INNER = WIDTH // 4  # channels between the two convolutions of equations 6 and 7
PRIOR = 0.01  # the first scores
FOCAL_ALPHA, GAMMA = 0.25, 2.0
CLASS_OUTPUTS = "head.classes."


class LayerAttention(nn.Module):
    """Task decomposition: the features of all layers, weighted by what this task needs (equations 2 to 5).

    Takes the features of the layers side by side, `(B, 6 * 256, H, W)`, and gives `(B, 256, H, W)`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(N_LAYERS * WIDTH, REDUCED, 1), nn.Conv2d(REDUCED, N_LAYERS, 1)
        self.reduce = nn.Conv2d(N_LAYERS * WIDTH, WIDTH, 1, bias=False)
        self.norm = nn.GroupNorm(32, WIDTH)

    def forward(self, features: Tensor) -> Tensor:
        """Features of one task `(B, WIDTH, h, w)`, from those of all layers."""
        pooled = features.mean((2, 3), keepdim=True)
        weights = self.excite(functional.relu(self.squeeze(pooled))).sigmoid()
        weighted = features * weights.repeat_interleave(WIDTH, 1)
        return functional.relu(self.norm(self.reduce(weighted)))


class Deformable(nn.Module):
    """A 3 x 3 convolution that learns where to look (Dai et al., ICCV 2017, arXiv:1703.06211).

    It begins as a plain convolution. On its way into ONNX, which has no such operator that runtimes know, the nine
    places are sampled one by one, which gives the same numbers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.offsets = nn.Conv2d(channels, 18, 3, padding=1)
        self.conv = DeformConv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """The maps, each place looked at where its offsets say."""
        offsets = self.offsets(maps)
        if not torch.onnx.is_in_onnx_export():
            moved: Tensor = self.conv(maps, offsets)
            return moved
        return deform_by_samples(maps, offsets, self.conv.weight)


class Head(nn.Module):
    """The task-aligned head, the same for each level. Its first `n_deformable` layers are deformable convolutions."""

    def __init__(self, n_classes: int, n_deformable: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(Deformable(WIDTH) if number < n_deformable
                          else nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
                          nn.GroupNorm(32, WIDTH), nn.ReLU(inplace=True))
            for number in range(N_LAYERS))
        self.for_classes, self.for_boxes = LayerAttention(), LayerAttention()
        self.classes, self.sides = nn.Conv2d(WIDTH, n_classes, 3, padding=1), nn.Conv2d(WIDTH, 4, 3, padding=1)
        self.alignment, self.offsets = _two_convolutions(1), _two_convolutions(8)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | DeformConv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Deformable):
                nn.init.zeros_(module.offsets.weight)
        for bias in (self.classes.bias, self.alignment[-1].bias):
            nn.init.constant_(bias, math.log(PRIOR / (1 - PRIOR)))  # type: ignore[arg-type]

    def forward(self, level: int, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of the scores `(B, C, H, W)` and boxes in strides `(B, 4, H, W)`, xyxy."""
        features = []
        for layer in self.layers:  # equation 1
            maps = layer(maps)
            features.append(maps)
        interactive = torch.cat(features, 1)
        logits = self.classes(self.for_classes(interactive)).float()
        aligned = self.alignment(interactive).float()
        # The score is the geometric mean of both sigmoids (equation 6); its logarithm stays finite where that is 0.
        log_scores = (functional.logsigmoid(logits) + functional.logsigmoid(aligned)) / 2
        sides = (self.scales[level] * self.sides(self.for_boxes(interactive)).float()).clamp(max=10).exp()
        boxes = _as_boxes(sides)
        moved = move_sides(boxes, self.offsets(interactive).float())
        # Sides of different objects may make no box; then the place's own stay.
        is_box = (moved[:, :2] - moved[:, 2:]).amax(1, keepdim=True) < 0
        return log_scores, torch.where(is_box, moved, boxes)


class Tood(nn.Module):
    """Backbone, pyramid and head.

    Called with float images `(B, 3, H, W)`, RGB in 0..1, sides multiples of 32, it gives `log_scores` `(B, N, C)`,
    `boxes` `(B, N, 4)`, xyxy in pixels, and what each place is: `points` `(N, 2)`, x and y of its centre, and `strides`
    `(N,)`; all float32, level by level, row by row.
    """

    def __init__(self, backbone: str, n_classes: int, n_deformable: int) -> None:
        super().__init__()
        self.normalise = normalise_for(backbone)
        self.backbone = Pyramid(backbone, len(STRIDES))
        self.head = Head(n_classes, n_deformable)
        self.n_classes = n_classes

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Log scores, distances to the sides of the boxes, places and their strides, of images `(B, 3, H, W)`."""
        log_scores, boxes, points, strides = [], [], [], []
        for level, maps in enumerate(self.backbone(self.normalise(images)).values()):
            found, sides = self.head(level, maps)
            log_scores.append(found.flatten(2).transpose(1, 2))
            boxes.append(STRIDES[level] * sides.flatten(2).transpose(1, 2))
            points.append(STRIDES[level] * place_centres(maps).flatten(1).T)
            strides.append(torch.full_like(points[-1][:, 0], STRIDES[level]))
        return {"log_scores": torch.cat(log_scores, 1), "boxes": torch.cat(boxes, 1), "points": torch.cat(points),
                "strides": torch.cat(strides)}


class ToodFamily:
    """TOOD; its sizes are backbones, `resnet18` (19 million parameters) to `resnext101` (89), and `lite0` (11).

    With `_dcn` at the end of its name the first two layers of the head are deformable convolutions.
    """

    name = "tood"
    sizes = (*BACKBONES, *(f"{name}{DEFORMABLE}" for name in BACKBONES))
    needs_nms = True
    resize: Resize = "letterbox"
    sums_loss = False
    # The paper's weights of the parts of the loss, and in which share of the epochs places are assigned by distance.
    defaults: Mapping[str, float] = {"cls": 1.0, "box": 2.0, "atss_share": 0.33}

    def configure(self, labels: Sequence[str], imgsz: int, size: str = "") -> ModelConfig:
        """The config of a backbone, `resnet18` by default. Raises BadData for another one or an impossible side."""
        size = size or BACKBONES[0]
        if size not in self.sizes:
            raise BadData(f"tood: size: expected one of {', '.join(self.sizes)}, found {size!r}")
        check_size(imgsz, smallest=SMALLEST)
        backbone = size.removesuffix(DEFORMABLE)
        return ModelConfig(self.name, tuple(labels), imgsz, architecture={
            "backbone": backbone, "deformable": N_DEFORMABLE if size != backbone else 0})

    def build(self, config: ModelConfig) -> nn.Module:
        """A network with random weights, made without network access. Raises UnsafeWeights for an impossible config."""
        entries = check_entries(config, ("backbone", "deformable"))
        if entries["backbone"] not in BACKBONES:
            raise UnsafeWeights(f"tood: backbone: expected one of {', '.join(BACKBONES)}, "
                                f"found {str(entries['backbone'])[:80]!r}")
        n_deformable = entries["deformable"]
        if not (isinstance(n_deformable, int) and 0 <= n_deformable <= N_LAYERS):
            raise UnsafeWeights(f"tood: deformable: expected a number of layers, 0 to {N_LAYERS}, "
                                f"found {str(n_deformable)[:80]!r}")
        return Tood(entries["backbone"], len(config.labels), n_deformable)

    def find_pretrained(self, name: str, directory: Path) -> Path:
        """The checkpoint of a backbone trained on ImageNet, a name in `PRETRAINED`, made in `directory` if not there.

        torchvision's file is downloaded first, or was put there by hand. Raises ValueError for another name; and where
        it cannot be downloaded, one that says what to fetch and where to put it.
        """
        if name not in PRETRAINED:
            raise ValueError(f"weights {name!r}: expected one of {', '.join(PRETRAINED)}")
        config = self.configure(PRETRAINED[name].meta["categories"], 320, name.removesuffix("_imagenet"))
        return keep_official(download_official(name, PRETRAINED[name], directory), config,
                             directory / f"{self.name}_{name}")

    def adapt(self, state: Mapping[str, Tensor], found: ModelConfig, wanted: ModelConfig) -> dict[str, Tensor]:
        """Start weights of another config as far as they fit: classes that both know moved to their new places.

        A class that is not known begins as the mean of all, see `common.move_classes`; where none is known, the class
        outputs are left out and stay random. A classifier's weights become those of the backbone.
        """
        if is_classifier(state):
            return as_body(state, "backbone.body.")
        return move_outputs(state, CLASS_OUTPUTS, lambda rows: move_classes(rows, found.labels, wanted.labels))

    def fit_boxes(self, model: nn.Module, sizes: np.ndarray, imgsz: int, hyp: Mapping[str, float]) -> None:
        """Nothing: boxes are distances from a place, not from anchors of the data."""

    def make_loss(self, model: nn.Module, hyp: Mapping[str, float]) -> Loss:
        """The loss of the classes `cls` and the GIoU loss of the boxes `box`, times `hyp`'s weights.

        In the first `atss_share` of the epochs the focal loss divided by the number of assigned places, and boxes
        weighted by how central a place is; then equations 10 and 12, divided by the sum of the alignments.
        The function raises BadData for a box without an area and for an unknown class.
        """
        settings = {**self.defaults, **hyp}
        tood: Any = model

        def loss(called: nn.Module, batch: Batch) -> dict[str, Tensor]:
            """The parts of the loss of a batch, weighted."""
            check_batch(batch, tood.n_classes)
            outputs = called(batch.images)
            with torch.autocast(batch.images.device.type, enabled=False):
                parts = _compute_loss(outputs, batch, warm=batch.progress < settings["atss_share"])
            return {name: settings[name] * part for name, part in parts.items()}

        return loss

    def predict(self, model: nn.Module, images: Tensor) -> Predictions:
        """The box of every place, `(B, N, 4)`, and its scores `(B, N, C)`: the geometric means of equation 6."""
        outputs = model(images)
        return Predictions(outputs["boxes"], outputs["log_scores"].exp())

    def parameter_groups(self, model: nn.Module, hyp: Mapping[str, float]) -> list[dict[str, Any]]:
        """Weights, which decay, norms and biases, all with `lr0`; see `common.group_parameters`."""
        return group_parameters(model.named_parameters(), hyp)


def move_sides(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Each side of each box taken from a learnt place beside it (equation 7), by bilinear interpolation.

    `boxes` `(B, 4, H, W)`; `offsets` `(B, 8, H, W)` in places, y and x of the first side, of the second and so on.
    Outside the map all sides are 0.

    >>> move_sides(torch.tensor([[[[1.0, 3.0]]] * 4]).reshape(1, 4, 1, 2), torch.full((1, 8, 1, 2), 0.0))[0, 0].tolist()
    [[1.0, 3.0]]
    """
    n_images, n_sides, height, width = boxes.shape
    centres = place_centres(boxes)
    y = centres[1] + offsets[:, 0::2]
    x = centres[0] + offsets[:, 1::2]
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], -1).flatten(0, 1)
    moved = functional.grid_sample(boxes.reshape(n_images * n_sides, 1, height, width), grid, align_corners=False)
    return moved.reshape(boxes.shape)


def deform_by_samples(maps: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """What torchvision's `deform_conv2d` with a padding of 1 gives, by bilinear interpolation at each of nine places.

    `maps` `(B, K, H, W)`, `offsets` `(B, 18, H, W)`, y and x of each place, `weight` `(K', K, 3, 3)`.
    """
    height, width = maps.shape[-2:]
    centres, sampled = place_centres(maps), []
    for place in range(9):
        y = centres[1] + offsets[:, 2 * place] + (place // 3 - 1)
        x = centres[0] + offsets[:, 2 * place + 1] + (place % 3 - 1)
        grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], -1)
        sampled.append(functional.grid_sample(maps, grid, align_corners=False))
    by_place = weight.flatten(2).permute(0, 2, 1).reshape(len(weight), -1, 1, 1)
    return functional.conv2d(torch.cat(sampled, 1), by_place)


def _compute_loss(outputs: Mapping[str, Tensor], batch: Batch, *, warm: bool) -> dict[str, Tensor]:
    """The parts of the loss of a batch, not weighted; `warm` is before task alignment learning begins."""
    log_scores, boxes, points = outputs["log_scores"], outputs["boxes"], outputs["points"]
    targets, weights, overlaps = torch.zeros_like(log_scores), [], []
    for image, (truth, class_ids) in enumerate(zip(batch.boxes, batch.class_ids, strict=True)):
        truth, class_ids = truth.to(boxes), class_ids.to(boxes.device)
        if warm:
            assigned = assign_by_distance(points, outputs["strides"], truth)
            aligned = (assigned >= 0).float()
        else:
            assigned, aligned = assign_by_alignment(log_scores[image].detach(), boxes[image].detach(), points, truth,
                                                    class_ids)
        [places] = torch.where(assigned >= 0)
        wanted = truth[assigned[places]]
        targets[image, places, class_ids[assigned[places]]] = aligned[places]
        weights.append(find_centrality(points[places], wanted) if warm else aligned[places])
        overlaps.append(generalized_box_iou_loss(boxes[image, places], wanted))
    weight, overlap = torch.cat(weights), torch.cat(overlaps)
    # 1 - exp(log p) loses all digits where p is nearly 0; expm1 does not. Neither logarithm falls below -100, as in
    # PyTorch's own binary cross-entropy.
    log_rest = torch.log(-torch.expm1(log_scores.clamp(max=-1e-7))).clamp(min=-100)
    entropy = -(targets * log_scores.clamp(min=-100) + (1 - targets) * log_rest)
    factor = (targets - log_scores.exp()).abs() ** GAMMA  # of the focal loss, and of the quality focal loss
    if warm:
        factor = factor * torch.where(targets > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    return {"cls": (factor * entropy).sum() / targets.sum().clamp(min=1),
            "box": (weight * overlap).sum() / weight.sum().clamp(min=1)}


def _as_boxes(sides: Tensor) -> Tensor:
    """Boxes `(B, 4, H, W)` xyxy of the distances of places to their four sides, all in strides."""
    centres = place_centres(sides)
    return torch.cat([centres - sides[:, :2], centres + sides[:, 2:]], 1)


def _two_convolutions(channels: int) -> nn.Sequential:
    """Of the features of all layers: a 1 x 1 convolution, ReLU, a 3 x 3 convolution."""
    return nn.Sequential(nn.Conv2d(N_LAYERS * WIDTH, INNER, 1), nn.ReLU(inplace=True),
                         nn.Conv2d(INNER, channels, 3, padding=1))
