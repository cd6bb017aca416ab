"""D-FINE: a transformer that predicts a set of boxes, each as distributions of its edges; built by transformers.

Paper: Peng et al., D-FINE: Redefine Regression Task in DETRs as Fine-grained Distribution Refinement, ICLR 2025,
arXiv:2410.13842. Network and loss are those of transformers 5.15, with three settings of ours. Batch norm of the
backbone is trained: frozen, random weights give constant features. The first scores are 0.01: otherwise the first loss
is twenty times larger. And the loss of the last layer is computed without the denoising queries, see
`loss_without_denoising`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from ..exceptions import BadData
from .base import Batch, Loss, ModelConfig, Predictions, Resize
from .common import check_batch, check_size, group_parameters, keep_official, move_classes
from .dfine_sizes import PRETRAINED, SIZES, make_config, smallest_side
from .hub import download_from_hub, make_targets, require_transformers, to_pixels
from .label_sets import OBJECTS365

PARTS = ("vfl", "bbox", "giou", "fgl", "ddf")
# The names of official files and those of transformers 5: it renames when it loads, which we do ourselves.
RENAMED = (
    (r"out_proj", r"o_proj"),
    (r"layers\.(\d+)\.fc1", r"layers.\1.mlp.layers.0"),
    (r"layers\.(\d+)\.fc2", r"layers.\1.mlp.layers.1"),
    (r"encoder\.encoder\.(\d+)\.layers", r"encoder.aifi.\1.layers"),
)
CLASS_OUTPUTS = re.compile(r"(model\.decoder\.)?class_embed\.|model\.(enc_score_head|denoising_class_embed)\.")
SHARED = re.compile(r"(?:model\.decoder\.)?((?:class|bbox)_embed\..*)")  # the same modules under two names


class DFineFamily:
    """D-FINE in the sizes `dfine_n`, `_s`, `_m` and `_l`: 4, 10, 19 and 31 million parameters.

    Raises ImportError that says what to install if transformers is not there.
    """

    name = "dfine"
    sizes = tuple(SIZES)
    needs_nms = False
    resize: Resize = "stretch"
    sums_loss = False
    # Factors of the parts of the loss, whose own weights (1, 5, 2, 0.15 and 1.5) are in already; and of the backbone's
    # learning rate, which the authors' recipes have as 0.5 for n and s, 0.1 for m, 0.05 for l. Not 0, `freeze_norms`
    # leaves the backbone's first layers and its norms as the start weights have them, as the authors do for l.
    defaults: Mapping[str, float] = {**dict.fromkeys(PARTS, 1.0), "backbone_lr": 0.5, "freeze_norms": 0.0}

    def __init__(self) -> None:
        require_transformers(self.name)

    def configure(self, labels: Sequence[str], imgsz: int, size: str = "") -> ModelConfig:
        """The config of a size, `dfine_n` by default. Raises BadData for another one or an impossible side."""
        size = size or "dfine_n"
        if size not in SIZES:
            raise BadData(f"dfine: size: expected one of {', '.join(SIZES)}, found {size!r}")
        check_size(imgsz, smallest=smallest_side(size))
        architecture = {"size": size, "num_queries": 300, "num_denoising": 100}
        return ModelConfig(self.name, tuple(labels), imgsz, architecture=architecture)

    def build(self, config: ModelConfig) -> nn.Module:
        """A network with random weights, made without network access. Raises UnsafeWeights for an impossible config."""
        from transformers import DFineForObjectDetection

        model: nn.Module = DFineForObjectDetection(make_config(config))
        model.loss_function = loss_without_denoising  # type: ignore[assignment]
        return model

    def find_pretrained(self, name: str, directory: Path) -> Path:
        """The checkpoint of official start weights, a name in `PRETRAINED`, made in `directory` if it is not there.

        The hub's file, `NAME_official.safetensors`, is downloaded first, or was put there by hand. Raises ValueError
        for another name; and where it cannot be downloaded, as with `HF_HUB_OFFLINE=1`, one that says what to fetch and
        where to put it.
        """
        source = download_from_hub(name, f"ustc-community/{self._official(name)}", directory)
        return keep_official(source, self.describe_pretrained(name), directory / name)

    def describe_pretrained(self, name: str) -> ModelConfig:
        """The config of official start weights, as `adapt` needs it. Raises ValueError for a name that is not known."""
        self._official(name)
        categories = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]  # with ids that COCO does not use
        coco = [label for label in categories if label not in ("__background__", "N/A")]
        return self.configure(OBJECTS365 if name.endswith("obj365") else coco, 640, name[:len("dfine_n")])

    def adapt(self, state: Mapping[str, Tensor], found: ModelConfig, wanted: ModelConfig) -> dict[str, Tensor]:
        """Start weights of another config as far as they fit: classes that both know moved to their new places.

        A class that is not known begins as the mean of all, see `common.move_classes`; where none is known, the class
        outputs are left out and stay random. Names of official files become those of transformers 5.
        """
        adapted: dict[str, Tensor] = {}
        for name, tensor in state.items():
            moved = _move_rows(name, tensor, found, wanted) if CLASS_OUTPUTS.match(name) else tensor
            for present in _present_names(name) if moved is not None else []:
                adapted[present] = moved  # type: ignore[assignment]
        return adapted

    def fit_boxes(self, model: nn.Module, sizes: np.ndarray, imgsz: int, hyp: Mapping[str, float]) -> None:
        """Nothing: boxes are predicted from queries, not from anchors of the data."""

    def make_loss(self, model: nn.Module, hyp: Mapping[str, float]) -> Loss:
        """The parts of the loss, summed over the decoder's layers and the denoising queries, times `hyp`'s factors.

        `vfl` the varifocal loss of the classes; `bbox` L1 and `giou` GIoU of the boxes; `fgl` the localisation by
        distributions and `ddf` its distillation. All are divided by the number of boxes of the batch.
        The function raises BadData for a box without an area and for an unknown class.
        """
        factors = {**self.defaults, **hyp}
        config: Any = model.config
        frozen = find_norms(model) if factors["freeze_norms"] else []
        for module in (*frozen, *(find_stem(model) if frozen else [])):
            module.requires_grad_(False)  # their gradients would count when all are clipped

        def loss(called: nn.Module, batch: Batch) -> dict[str, Tensor]:
            """The parts of the loss of a batch, weighted, each summed over what the network gives of it."""
            check_batch(batch, config.num_labels)
            for norm in frozen:  # which the loop has put into training mode with all others
                norm.eval()
            parts = called(pixel_values=batch.images, labels=make_targets(batch)).loss_dict
            return {kind: factors[kind] * part for kind, part in sum_parts(parts).items()}

        return loss

    def predict(self, model: nn.Module, images: Tensor) -> Predictions:
        """The boxes of the queries, `(B, 300, 4)`, and their scores `(B, 300, C)`; each object is to be marked once."""
        outputs = model(pixel_values=images)
        return Predictions(to_pixels(outputs.pred_boxes, images), outputs.logits.float().sigmoid())

    def parameter_groups(self, model: nn.Module, hyp: Mapping[str, float]) -> list[dict[str, Any]]:
        """Weights, which decay, norms and biases; those of the backbone with `lr0` times `backbone_lr`.

        With `freeze_norms` those of the backbone's stem and norms are in no group. The authors train with AdamW,
        `weight_decay` 1e-4, gradients clipped to a norm of 0.1, and batches of 32 (128 for n) with `lr0` 2e-4 to 8e-4.
        See `common.group_parameters`.
        """
        values, prefix, frozen = {**self.defaults, **hyp}, "model.backbone.", set[int]()
        if values["freeze_norms"]:
            frozen = {id(parameter) for module in (*find_norms(model), *find_stem(model))
                      for parameter in module.parameters()}
        named = [pair for pair in model.named_parameters() if id(pair[1]) not in frozen]
        backbone = [pair for pair in named if pair[0].startswith(prefix)]
        rest = [pair for pair in named if not pair[0].startswith(prefix)]
        return [*group_parameters(rest, hyp), *group_parameters(backbone, hyp, values["backbone_lr"])]

    def _official(self, name: str) -> str:
        if name not in PRETRAINED:
            raise ValueError(f"weights {name!r}: expected one of {', '.join(PRETRAINED)}")
        return PRETRAINED[name]


def find_norms(model: nn.Module) -> list[nn.Module]:
    """The batch norms of a network's backbone, whose statistics few images of one kind would spoil."""
    backbone: nn.Module = model.get_submodule("model.backbone")
    return [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]


def find_stem(model: nn.Module) -> list[nn.Module]:
    """The first layers of a network's backbone, which see edges and colours."""
    return [model.get_submodule("model.backbone.model.embedder")]


def loss_without_denoising(logits: Tensor, labels: list[dict[str, Tensor]], device: torch.device, pred_boxes: Tensor,
                           config: Any, *layers: Tensor, **more: Any) -> tuple[Tensor, dict[str, Tensor], Any]:
    """transformers' loss of D-FINE, the last layer's without the denoising queries; in float32 under mixed precision.

    In training the denoising queries, made from the true boxes, come before the others. transformers 5.15 splits them
    off in all layers but the last, where they are matched with the true boxes and take these from the real queries.
    """
    from transformers.loss.loss_d_fine import DFineForObjectDetectionLoss

    def full(value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

    denoising = more.get("denoising_meta_values")
    if denoising is not None:
        logits, pred_boxes = (value.split(denoising["dn_num_split"], dim=1)[1] for value in (logits, pred_boxes))
    with torch.autocast(logits.device.type, enabled=False):
        result: tuple[Tensor, dict[str, Tensor], Any] = DFineForObjectDetectionLoss(
            full(logits), labels, device, full(pred_boxes), config, *map(full, layers),
            **{name: full(value) for name, value in more.items()})
    return result


def sum_parts(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sums of transformers' parts of the loss, such as `loss_vfl_aux_0`, by their kind, such as `vfl`.

    Raises ValueError for a part of an unknown kind.

    >>> sums = sum_parts({"loss_vfl": torch.tensor(1.0), "loss_vfl_dn_2": torch.tensor(2.0)})
    >>> {kind: float(part) for kind, part in sums.items()}
    {'vfl': 3.0}
    """
    kinds: dict[str, list[Tensor]] = {}
    for name, part in parts.items():
        kinds.setdefault(name.split("_")[1], []).append(part)
    if not kinds.keys() <= set(PARTS):
        raise ValueError(f"loss of D-FINE: expected the parts {', '.join(PARTS)}, found {', '.join(parts)}")
    return {kind: torch.stack(kinds[kind]).sum() for kind in PARTS if kind in kinds}


def _move_rows(name: str, tensor: Tensor, found: ModelConfig, wanted: ModelConfig) -> Tensor | None:
    """A class output for other classes; the embedding of the denoising labels has a last row that stands for none."""
    if "denoising" not in name:
        return move_classes(tensor, found.labels, wanted.labels)
    moved = move_classes(tensor[:-1], found.labels, wanted.labels)
    return None if moved is None else torch.cat([moved, tensor[-1:]])


def _present_names(name: str) -> list[str]:
    """The names of a tensor in transformers 5: two for what the decoder shares with the model, which a file has once.

    >>> _present_names("model.decoder.layers.0.fc1.weight")
    ['model.decoder.layers.0.mlp.layers.0.weight']
    >>> _present_names("class_embed.0.bias")
    ['class_embed.0.bias', 'model.decoder.class_embed.0.bias']
    """
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    shared = SHARED.fullmatch(name)
    return [shared[1], f"model.decoder.{shared[1]}"] if shared else [name]
