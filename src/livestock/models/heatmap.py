"""Heat maps of keypoints: what the authors of a nose finder built, for any number of points and any backbone of timm.

Their network is ResNet-18 without its pooling, five stages of bilinear doubling and convolution, and a sigmoid; the
picture is squashed to 256 x 256, a map has as many pixels. The sizes that end in `_places` and a `sigma` of 0 are the
two targets that they tried before. `lite0` is what does better here: EfficientNet-Lite0, maps at a quarter of the side,
cross-entropy instead of squares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..exceptions import BadData
from .backbones import MEAN, STD, require_timm
from .base import Crop, Loss, ModelConfig, Predictions, Resize
from .common import check_size, group_parameters, move_outputs
from .pose_net import build_net, is_backbone, make_map_loss, predict_points
from .timm_weights import download_backbone, read_mean_std

PROJECT = {"head": "upsample", "channels": [256, 128, 64, 32], "output": "sigmoid", "decode": "argmax"}
LIGHT = {"head": "upsample", "channels": [128, 128], "output": "softmax", "decode": "soft"}
PLACES = {"head": "flat", "channels": [], "output": "places", "decode": "argmax"}


class HeatMapFamily:
    """Keypoints of one object a picture; its sizes are networks, and so is the name of any backbone of timm.

    The picture is stretched onto the input. Such a name gets the head of the project, see `PROJECT`.
    """

    name = "heatmap"
    crop: Crop = "whole"
    known: Mapping[str, Mapping[str, Any]] = {
        "lite0": {"backbone": "tf_efficientnet_lite0", **LIGHT},
        "resnet18": {"backbone": "resnet18", **PROJECT},
        "resnet18_light": {"backbone": "resnet18", **LIGHT},
        "resnet18_places": {"backbone": "resnet18", **PLACES},
        "lite0_project": {"backbone": "tf_efficientnet_lite0", **PROJECT},
        "lite0_places": {"backbone": "tf_efficientnet_lite0", **PLACES},
    }
    usual: Mapping[str, Any] = PROJECT  # the head of a backbone that is not among them
    sizes: Sequence[str] = tuple(known)
    needs_nms = False
    resize: Resize = "stretch"
    sums_loss = False
    defaults: Mapping[str, float] = {"map": 1.0, "sigma": 7.0, "adaptive": 0.0}

    def configure(self, labels: Sequence[str], imgsz: int, size: str = "") -> ModelConfig:
        """The config of one of the sizes, "" the first, or of a backbone of timm, for one point: see `training.start`.

        Raises BadData for a side that is no multiple of 32, and for a name that timm does not have.
        """
        check_size(imgsz, smallest=64)
        require_timm(f"the model family {self.name}")
        size = size or self.sizes[0]
        if size not in self.known and not is_backbone(size):
            raise BadData(f"{self.name}: size: expected one of {', '.join(self.sizes)}, or a backbone of timm, found "
                          f"{size!r}")
        parts = {**self.known.get(size, {"backbone": size, **self.usual})}
        mean, std = read_mean_std(parts["backbone"], (MEAN, STD))
        architecture = {**parts, "crop": self.crop, "mean": list(mean), "std": list(std), "points": ["point"],
                        "flips": [], "owners": []}
        return ModelConfig(self.name, tuple(labels), imgsz, architecture=architecture)

    def build(self, config: ModelConfig) -> nn.Module:
        """A network with random weights, made without network access. Raises UnsafeWeights for an impossible config."""
        return build_net(config)

    def find_pretrained(self, name: str, directory: Path) -> Path:
        """The checkpoint of a backbone that timm has official weights of, such as `resnet18_imagenet`.

        Downloaded into `directory` if it is not there; `lite0_imagenet` comes from a package too. Raises ValueError
        that says what to fetch and where to put it.
        """
        size = name.removesuffix("_imagenet")
        if size == name:
            raise ValueError(f"weights {name!r}: expected a file, one of the sizes {', '.join(self.sizes)}, or one of "
                             f"them and _imagenet, such as {self.sizes[0]}_imagenet")
        return download_backbone(name, self.configure(["object"], 256, size), directory)

    def adapt(self, state: Mapping[str, Tensor], found: ModelConfig, wanted: ModelConfig) -> dict[str, Tensor]:
        """Start weights of another config as far as they fit: the last layer's rows move with the names of the points.

        A point that the start weights do not know stays random.
        """
        names = list(found.architecture["points"])
        rows = [names.index(name) if name in names else -1 for name in wanted.architecture["points"]]
        return move_outputs(state, "last.", lambda tensor: _move_rows(tensor, rows, len(names)))

    def fit_boxes(self, model: nn.Module, sizes: np.ndarray, imgsz: int, hyp: Mapping[str, float]) -> None:
        """Nothing: a map has no anchors."""

    def make_loss(self, model: nn.Module, hyp: Mapping[str, float]) -> Loss:
        """See `pose_net.make_map_loss`."""
        return make_map_loss(model, {**self.defaults, **hyp})

    def predict(self, model: nn.Module, images: Tensor) -> Predictions:
        """The points of the one object in each image; see `pose_net.predict_points`."""
        return predict_points(model, images)

    def parameter_groups(self, model: nn.Module, hyp: Mapping[str, float]) -> list[dict[str, Any]]:
        """Weights, which decay, norms and biases, all with `lr0`; see `common.group_parameters`."""
        return group_parameters(model.named_parameters(), hyp)


def _move_rows(tensor: Tensor, rows: Sequence[int], n_points: int) -> Tensor:
    """Rows of a last layer by the point that they are for, -1 for a new one, which is as small as new layers begin."""
    by_point = tensor.unflatten(0, (n_points, -1))
    return torch.stack([by_point[row] if row >= 0 else torch.randn_like(by_point[0]) * 0.001 for row in rows]
                       ).flatten(0, 1)
