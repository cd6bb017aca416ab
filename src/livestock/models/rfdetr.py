"""RF-DETR: a set of boxes, predicted on a DINOv2 backbone that knows much of the world; built by transformers.

Paper: Robinson et al., RF-DETR: Neural Architecture Search for Real-Time Detection Transformers, 2025,
arXiv:2511.09554. Network and loss are those of transformers 5.15, with four settings of ours: the first scores of the
proposals are 0.01 like those of the boxes; position embeddings have the size of the input, which ONNX needs; the token
of masked patches, which nothing trains, is left out; and logarithms of the loss stay finite, see `finite_loss`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from ..exceptions import BadData, UnsafeWeights
from .backbones import MEAN, STD
from .base import Batch, Loss, ModelConfig, Predictions, Resize
from .common import check_batch, check_entries, check_size, group_parameters, keep_official, move_classes
from .hub import download_from_hub, make_targets, require_transformers, to_pixels

# Layers of the decoder, and the side in pixels of the official weights. The backbone is the same for all.
SIZES = {"rfdetr_n": (2, 384), "rfdetr_s": (3, 512), "rfdetr_m": (4, 576), "rfdetr_l": (4, 704)}
PRETRAINED = {"rfdetr_n_coco": "rf-detr-nano", "rfdetr_s_coco": "rf-detr-small", "rfdetr_m_coco": "rf-detr-medium",
              "rfdetr_l_coco": "rf-detr-large"}  # below huggingface.co/Roboflow
PATCH, N_WINDOWS = 16, 2  # pixels of a patch, and windows that an image's side is cut into
N_QUERIES, N_GROUPS = 300, 13  # boxes, and how often each box of the truth is learnt (group DETR)
SMALLEST = 288  # pixels of a side: 18 x 18 patches have a place for every query
N_LAYERS = 12  # of the backbone
PRIOR = 0.01
MOST_LOGIT = 15.0  # beyond it a score is 0 or 1 in float32, and its logarithm infinite
WEIGHTS = {"ce": 1.0, "bbox": 5.0, "giou": 2.0}  # of the parts of the loss, the authors'
CLASS_OUTPUTS = re.compile(r"class_embed\.|model\.enc_out_class_embed\.")
POSITIONS = "model.backbone.backbone.embeddings.position_embeddings"
LAYER = re.compile(r"model\.backbone\.backbone\.encoder\.layer\.(\d+)\.")


class RfDetrFamily:
    """RF-DETR in the sizes `rfdetr_n`, `_s`, `_m` and `_l`: 30 to 34 million parameters.

    Raises ImportError that says what to install if transformers is not there.
    """

    name = "rfdetr"
    sizes = tuple(SIZES)
    needs_nms = False
    resize: Resize = "stretch"
    sums_loss = False
    # Factors of the parts of the loss, whose own weights are in already; of the backbone's learning rate, and by how
    # much less each of its layers learns than the one above it: the authors' 1.5 and 0.8.
    defaults: Mapping[str, float] = {**dict.fromkeys(WEIGHTS, 1.0), "backbone_lr": 1.5, "layer_decay": 0.8}

    def __init__(self) -> None:
        require_transformers(self.name)

    def configure(self, labels: Sequence[str], imgsz: int, size: str = "") -> ModelConfig:
        """The config of a size, `rfdetr_n` by default. Raises BadData for another one or an impossible side."""
        size = size or "rfdetr_n"
        if size not in SIZES:
            raise BadData(f"rfdetr: size: expected one of {', '.join(SIZES)}, found {size!r}")
        check_size(imgsz, smallest=SMALLEST)
        return ModelConfig(self.name, tuple(labels), imgsz, architecture={"size": size, "groups": N_GROUPS})

    def build(self, config: ModelConfig) -> nn.Module:
        """A network with random weights, made without network access. Raises UnsafeWeights for an impossible config."""
        from transformers import RfDetrForObjectDetection

        model: Any = RfDetrForObjectDetection(make_config(config))
        backbone = model.model.backbone.backbone
        backbone.embeddings = _make_embeddings(backbone.config)
        for outputs in model.model.enc_out_class_embed:
            nn.init.constant_(outputs.bias, math.log(PRIOR / (1 - PRIOR)))
        model.loss_function = finite_loss
        built: nn.Module = model
        return built

    def find_pretrained(self, name: str, directory: Path) -> Path:
        """The checkpoint of official start weights, a name in `PRETRAINED`, made in `directory` if it is not there.

        Raises ValueError for another name, and as `hub.download_from_hub`.
        """
        config = self.describe_pretrained(name)
        return keep_official(download_from_hub(name, f"Roboflow/{PRETRAINED[name]}", directory), config,
                             directory / name)

    def describe_pretrained(self, name: str) -> ModelConfig:
        """The config of official start weights, as `adapt` needs it. Raises ValueError for a name that is not known."""
        if name not in PRETRAINED:
            raise ValueError(f"weights {name!r}: expected one of {', '.join(PRETRAINED)}")
        categories = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]  # by COCO's ids, 0 to 90, as theirs
        labels = [f"unused {number}" if label in ("__background__", "N/A") else label
                  for number, label in enumerate(categories)]
        size = name.removesuffix("_coco")
        return self.configure(labels, SIZES[size][1], size)

    def adapt(self, state: Mapping[str, Tensor], found: ModelConfig, wanted: ModelConfig) -> dict[str, Tensor]:
        """Start weights of another config as far as they fit: classes that both know moved to their new places.

        See `common.move_classes`; where no class is known the class outputs stay random. Position embeddings are
        resampled for another size of the input.
        """
        adapted: dict[str, Tensor] = {}
        for name, tensor in state.items():
            moved: Tensor | None = tensor
            if CLASS_OUTPUTS.match(name):
                moved = move_classes(tensor, found.labels, wanted.labels)
            elif name == POSITIONS:
                moved = resample_positions(tensor, wanted.imgsz // PATCH)
            if moved is not None:
                adapted[name] = moved
        return adapted

    def fit_boxes(self, model: nn.Module, sizes: np.ndarray, imgsz: int, hyp: Mapping[str, float]) -> None:
        """Nothing: boxes are predicted from queries, not from anchors of the data."""

    def make_loss(self, model: nn.Module, hyp: Mapping[str, float]) -> Loss:
        """The parts of the loss, summed over the decoder's layers and the proposals, times `hyp`'s factors.

        `ce` the cross-entropy of the classes, whose targets are IoU; `bbox` L1 and `giou` GIoU of the boxes. All are
        divided by the number of boxes of the batch. The function raises BadData for a box without an area and for an
        unknown class.
        """
        factors = {name: weight * {**self.defaults, **hyp}[name] for name, weight in WEIGHTS.items()}
        config: Any = model.config

        def loss(called: nn.Module, batch: Batch) -> dict[str, Tensor]:
            """The parts of the loss of a batch, weighted, those of all decoder layers added up."""
            check_batch(batch, config.num_labels)
            parts = called(pixel_values=_normalise(batch.images), labels=make_targets(batch)).loss_dict
            return {kind: factor * torch.stack([part for name, part in parts.items()
                                                if name.split("_")[1] == kind]).sum()
                    for kind, factor in factors.items()}

        return loss

    def predict(self, model: nn.Module, images: Tensor) -> Predictions:
        """The boxes of the queries, `(B, 300, 4)`, and their scores `(B, 300, C)`; each object is to be marked once."""
        outputs = model(pixel_values=_normalise(images))
        return Predictions(to_pixels(outputs.pred_boxes, images), outputs.logits.float().sigmoid())

    def parameter_groups(self, model: nn.Module, hyp: Mapping[str, float]) -> list[dict[str, Any]]:
        """Weights, which decay, norms and biases; those of the backbone with `lr0` times `backbone_lr` and, from its
        last layer downwards, once more times `layer_decay` a layer.

        The authors train with AdamW, `lr0` and `weight_decay` 1e-4, batches of 16. See `common.group_parameters`.
        """
        values = {**self.defaults, **hyp}
        members: dict[int, list[tuple[str, nn.Parameter]]] = {}
        for pair in model.named_parameters():
            members.setdefault(_find_depth(pair[0]), []).append(pair)
        groups = []
        for depth, named in sorted(members.items()):
            factor = 1.0 if depth > N_LAYERS else values["backbone_lr"] * values["layer_decay"] ** (N_LAYERS - depth)
            groups += group_parameters(named, hyp, factor)
        return groups


def make_config(config: ModelConfig) -> Any:
    """The `RfDetrConfig` of a config of the family. Raises UnsafeWeights for an impossible one."""
    from transformers import RfDetrConfig
    from transformers.models.rf_detr.configuration_rf_detr import RfDetrDinov2Config

    entries = check_entries(config, ("size", "groups"))
    size, n_groups = entries["size"], entries["groups"]
    if str(size) not in SIZES:
        raise UnsafeWeights(f"rfdetr: size: expected one of {', '.join(SIZES)}, found {str(size)[:80]!r}")
    if type(n_groups) is not int or not 1 <= n_groups <= N_GROUPS:
        raise UnsafeWeights(f"rfdetr: groups: expected 1 to {N_GROUPS}, found {str(n_groups)[:80]!r}")
    if config.imgsz < SMALLEST or config.imgsz % (PATCH * N_WINDOWS):
        raise UnsafeWeights(f"rfdetr: imgsz: expected a multiple of {PATCH * N_WINDOWS} from {SMALLEST}, found "
                            f"{config.imgsz}")
    backbone: dict[str, Any] = {
        "hidden_size": 384, "num_attention_heads": 6, "num_hidden_layers": N_LAYERS, "patch_size": PATCH,
        "num_windows": N_WINDOWS, "image_size": config.imgsz, "use_mask_token": False,
        "out_features": [f"stage{number}" for number in (3, 6, 9, 12)]}
    rest: dict[str, Any] = {
        "backbone_config": RfDetrDinov2Config(**backbone), "num_labels": len(config.labels),
        "decoder_layers": SIZES[size][0], "decoder_n_points": 2, "num_queries": N_QUERIES, "group_detr": n_groups}
    return RfDetrConfig(**rest)


def finite_loss(logits: Tensor, labels: list[dict[str, Tensor]], device: torch.device, pred_boxes: Tensor, config: Any,
                *layers: Tensor, **more: Any) -> tuple[Tensor, dict[str, Tensor], Any]:
    """transformers' loss of RF-DETR, in float32 under mixed precision, from logits that are not beyond 15.

    It takes logarithms of scores and of one less them: beyond 16 one of them is infinite, and the loss with it.
    """
    from transformers.loss.loss_lw_detr import LwDetrForObjectDetectionLoss

    classes, boxes, proposed, proposed_boxes = layers
    bounded = [value.float().clamp(-MOST_LOGIT, MOST_LOGIT) for value in (logits, classes, proposed)]
    with torch.autocast(logits.device.type, enabled=False):
        result: tuple[Tensor, dict[str, Tensor], Any] = LwDetrForObjectDetectionLoss(
            bounded[0], labels, device, pred_boxes.float(), config, bounded[1], boxes.float(), bounded[2],
            proposed_boxes.float(), **more)
    return result


def resample_positions(positions: Tensor, side: int) -> Tensor:
    """Position embeddings `(1, 1 + n * n, K)`, the first of no place, for `side * side` patches.

    Bicubic with antialiasing, as the network itself does for inputs of another size.

    >>> resample_positions(torch.ones(1, 1 + 4, 8), 3).shape
    torch.Size([1, 10, 8])
    """
    first, places = positions[:, :1], positions[:, 1:]
    n = math.isqrt(places.shape[1])
    if n * n != places.shape[1]:
        raise UnsafeWeights(f"rfdetr: position embeddings: expected a square of them, found {places.shape[1]}")
    if n == side:
        return positions
    grid = places.reshape(1, n, n, -1).permute(0, 3, 1, 2).float()
    moved = functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([first, moved.flatten(2).transpose(1, 2).to(first.dtype)], 1)


def _make_embeddings(config: Any) -> nn.Module:
    """transformers' embeddings of patches; where the input has the size that they were made for, nothing is resampled.

    Theirs always resample when they are traced for ONNX, which has no such operator.
    """
    from transformers.models.rf_detr.modeling_rf_detr import RfDetrDinov2Embeddings

    class Embeddings(RfDetrDinov2Embeddings):
        def interpolate_pos_encoding(self, embeddings: Tensor, height: int, width: int) -> Tensor:
            """The position embeddings `(1, 1 + places, K)` of an input of this size."""
            if int(height) == int(width) == config.image_size:
                own: Tensor = self.position_embeddings
                return own
            resampled: Tensor = super().interpolate_pos_encoding(embeddings, height, width)
            return resampled

    made = Embeddings(config)
    nn.init.trunc_normal_(made.position_embeddings, std=config.initializer_range)
    nn.init.trunc_normal_(made.cls_token, std=config.initializer_range)
    return made


def _find_depth(name: str) -> int:
    """How far up in the backbone a parameter is: 0 before its layers, 1 to 12 in one; 13 outside of it."""
    if layer := LAYER.match(name):
        return int(layer[1]) + 1
    if name.startswith("model.backbone.backbone."):
        return 0 if ".embeddings." in name else N_LAYERS
    return N_LAYERS + 1


def _normalise(images: Tensor) -> Tensor:
    """Pixels `(B, 3, H, W)` in 0..1 less ImageNet's mean, divided by its standard deviation."""
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std
