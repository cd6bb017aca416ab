"""Networks that see one object and give a map for each of its keypoints: a backbone of timm and what draws the maps.

Heads: `upsample` doubles the last features by bilinear interpolation and convolves them, stage by stage; `deconv` has
transposed convolutions (Xiao et al., Simple Baselines, ECCV 2018, arXiv:1804.06208); `finest` reads HRNet's maps of
highest resolution (Sun et al., CVPR 2019, arXiv:1902.09212); `flat` is a fully connected layer that gives places.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..exceptions import UnsafeWeights
from .backbones import Normalise, require_timm
from .base import Batch, Crop, Loss, ModelConfig, Predictions
from .common import SMALLEST, check_entries
from .heatmap_codec import DECODERS, encode_gaussian, encode_one_hot, window_mass
from .metadata import MOST_POINTS, are_flips, are_owners

HEADS = ("upsample", "deconv", "finest", "flat")
OUTPUTS = ("sigmoid", "linear", "softmax", "places")
KNOWN: dict[str, Container] = {"head": HEADS, "output": OUTPUTS, "crop": get_args(Crop), "decode": DECODERS}
ENTRIES = ("backbone", "head", "channels", "output", "decode", "crop", "mean", "std", "points", "flips", "owners")
MOST_PARAMETERS = 400_000_000
NARROWEST = 0.3  # cells: a Gaussian narrower than that is nearly 0 in all cells where its peak lies between them
SMALLEST_RADIUS = 0.25  # of the widest: of the Gaussian of an object that is small in its picture


class PoseNet(nn.Module):
    """Called with float images `(B, 3, S, S)`, RGB in 0..1, it gives maps `(B, K, S / stride, S / stride)`, float32.

    With the head `flat` it gives places `(B, K, 2)`, x and y as shares of the side.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        import timm

        parts, n_points = config.architecture, len(config.architecture["points"])
        self.normalise = Normalise(tuple(parts["mean"]), tuple(parts["std"]))
        options: dict[str, Any] = {"out_indices": (1,), "feature_location": ""} if parts["head"] == "finest" else {
            "out_indices": (-1,)}
        body: Any = timm.create_model(parts["backbone"], pretrained=False, features_only=True, **options)
        self.body, width = body, body.feature_info.channels()[-1]
        self.head, self.last = _make_head(parts["head"], width, parts["channels"], n_points, config.imgsz)
        self.output, self.decode, self.stride = parts["output"], parts["decode"], find_map_stride(parts)
        self.n_labels = len(config.labels)

    def forward(self, images: Tensor) -> Tensor:
        """Maps `(B, K, h, w)`, or places `(B, K, 2)` in 0..1 where these are the output."""
        maps = self.last(self.head(self.body(self.normalise(images))[-1])).float()
        if self.output == "places":
            places: Tensor = maps.sigmoid().unflatten(1, (-1, 2))
            return places
        if self.output == "sigmoid":
            maps = maps.sigmoid()
        return maps


def find_map_stride(parts: Mapping[str, Any]) -> int:
    """Pixels of the input in a cell of the maps, on each axis."""
    if parts["head"] in ("finest", "flat"):
        return 4 if parts["head"] == "finest" else 1
    return 32 >> len(parts["channels"]) + (parts["head"] == "upsample")


def _make_head(kind: str, width: int, channels: list[int], n_points: int, side: int) -> tuple[nn.Module, nn.Module]:
    """What comes after features of this width, and the last layer, whose rows belong to the points."""
    if kind == "flat":
        return nn.Flatten(), nn.Linear(width * (side // 32) ** 2, 2 * n_points)
    layers: list[nn.Module] = []
    for out in channels:
        layers += [*_double(kind, width, out), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
        width = out
    if kind != "upsample":
        return nn.Sequential(*layers), _start_low(nn.Conv2d(width, n_points, 1))
    return nn.Sequential(*layers, _bilinear()), _start_low(nn.Conv2d(width, n_points, 3, padding=1))


def _double(kind: str, width: int, out: int) -> list[nn.Module]:
    """Layers that double the side of maps of `width` channels and give `out`."""
    if kind == "deconv":
        return [nn.ConvTranspose2d(width, out, 4, stride=2, padding=1, bias=False)]
    return [_bilinear(), nn.Conv2d(width, out, 3, padding=1, bias=False)]


def _bilinear() -> nn.Module:
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)


def _start_low(last: nn.Conv2d) -> nn.Conv2d:
    """Small weights, so that the first maps are almost flat, as Xiao et al. begin."""
    nn.init.normal_(last.weight, std=0.001)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return last


def build_net(config: ModelConfig) -> PoseNet:
    """A network with random weights, made without network access.

    Raises UnsafeWeights for a config that is impossible or too large, ImportError that says what to install where timm
    is not there.
    """
    check_pose_config(config)
    parts, side = config.architecture, config.imgsz
    where = f"{config.family}: backbone {parts['backbone']}"
    stride = find_map_stride(parts)
    expected = (1, len(parts["points"]), *([2] if parts["head"] == "flat" else [side // stride] * 2))
    try:
        with torch.device("meta"):  # sizes and shapes without memory
            plan = PoseNet(config).eval()
            n = sum(parameter.numel() for parameter in plan.parameters())
            found = tuple(plan(torch.empty(1, 3, side, side)).shape)
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UnsafeWeights(f"{where}: expected one of timm that gives features for the head {parts['head']!r}, found "
                            f"{str(error)[:120]}") from error
    if n > MOST_PARAMETERS:
        raise UnsafeWeights(f"{where}: expected up to {MOST_PARAMETERS:,} parameters with its head, found {n:,}")
    if found != expected:
        raise UnsafeWeights(f"{where}: expected features of the stride that the head {parts['head']!r} is for, and so "
                            f"an output {expected}, found {found}")
    return PoseNet(config)


def is_backbone(name: str) -> bool:
    """Whether timm has a network of this name; without what timm puts after a dot, the name of some weights."""
    import timm

    return re.fullmatch(r"[a-z0-9_]{1,60}", name) is not None and bool(timm.is_model(name))


def check_pose_config(config: ModelConfig) -> None:
    """Raises UnsafeWeights naming the first entry that is not as it should be."""
    parts = check_entries(config, ENTRIES)
    points, backbone, channels = parts["points"], parts["backbone"], parts["channels"]
    is_names = isinstance(points, list | tuple) and all(isinstance(name, str) for name in points)
    require_timm(f"the model family {config.family}")
    wrong = {
        "backbone": not (isinstance(backbone, str) and is_backbone(backbone)),
        **{name: not isinstance(parts[name], str) or parts[name] not in known for name, known in KNOWN.items()},
        "channels": not (isinstance(channels, list | tuple) and len(channels) <= _most_doublings(parts["head"])
                         and all(type(width) is int and 1 <= width <= 2048 for width in channels)),
        "mean": not _are_colours(parts["mean"], least=0.0), "std": not _are_colours(parts["std"], least=1e-3),
        "points": not (is_names and 1 <= len(points) <= MOST_POINTS and len(set(points)) == len(points)),
    }
    wrong["flips"] = wrong["points"] or not are_flips(parts["flips"], len(points))
    wrong["owners"] = wrong["points"] or not are_owners(parts["owners"], len(points), len(config.labels))
    if names := [name for name, is_wrong in wrong.items() if is_wrong]:
        raise UnsafeWeights(f"{config.family}: {names[0]}: expected what a network of keypoints has there, found "
                            f"{str(parts[names[0]])[:80]!r}")
    if config.imgsz < SMALLEST or config.imgsz % 32:
        raise UnsafeWeights(f"{config.family}: imgsz: expected a multiple of 32 from {SMALLEST}, found {config.imgsz}")
    if (parts["head"] == "flat") != (parts["output"] == "places"):
        raise UnsafeWeights(f"{config.family}: output: expected places of the head 'flat' and maps of others, found "
                            f"{parts['output']!r} of {parts['head']!r}")


def _most_doublings(head: object) -> int:
    """How many stages a head may have: a map has at most a cell a pixel, and two heads have none."""
    return {"upsample": 4, "deconv": 5}.get(str(head), 0)


def _are_colours(values: object, least: float) -> bool:
    return isinstance(values, list | tuple) and len(values) == 3 and all(
        isinstance(value, int | float) and least <= value <= 1 for value in values)


def make_map_loss(model: nn.Module, hyp: Mapping[str, float]) -> Loss:
    """The loss of maps, or of places, over the points that are labelled: `maps`, a mean over them.

    Maps of `sigmoid` and `linear` have the mean squared distance from a Gaussian of `sigma` pixels of the input (at
    least 0.3 cells) and height 1; with `sigma` 0 from a map that is 1 in one cell. Of `softmax` it is the cross-entropy
    against that Gaussian with sum 1. With `adaptive` above 0, `sigma` shrinks with the object's share of its picture,
    to a quarter at most.
    """
    net: Any = model

    def loss(called: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch over its labelled points."""
        found = called(batch.images)
        points = torch.stack([own[0] for own in batch.keypoints or []]).to(found.device, torch.float32)
        visible, side = points[..., 2], batch.images.shape[-1]
        weight = (visible > 0).float()
        if net.output == "places":
            each = ((found - points[..., :2] / side) ** 2).mean(-1)
        else:
            each = _compare_maps(found, _draw_targets(found, points, batch, hyp, net.stride), net.output)
        return {"maps": hyp["map"] * (each * weight).sum() / weight.sum().clamp(min=1)}

    return loss


def _draw_targets(found: Tensor, points: Tensor, batch: Batch, hyp: Mapping[str, float], stride: int) -> Tensor:
    size, place, visible = (found.shape[-2], found.shape[-1]), points[..., :2], points[..., 2]
    if not hyp["sigma"]:
        return encode_one_hot(place, visible, size, stride)
    sigma = torch.full((1, 1, 1, 1), hyp["sigma"] / stride, device=found.device)
    if hyp["adaptive"]:
        boxes = torch.stack([own[0] for own in batch.boxes]).to(found.device)
        share = ((boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt() / batch.images.shape[-1]).clamp(SMALLEST_RADIUS, 1)
        sigma = sigma * share[:, None, None, None]
    return encode_gaussian(place, visible, size, stride, sigma.clamp(min=NARROWEST))


def _compare_maps(found: Tensor, target: Tensor, output: str) -> Tensor:
    """The loss of each map, `(B, K)`."""
    if output != "softmax":
        return ((found - target) ** 2).mean((-2, -1))
    chances = target.flatten(-2) / target.flatten(-2).sum(-1, keepdim=True).clamp(min=1e-6)
    return -(chances * found.flatten(-2).log_softmax(-1)).sum(-1)


def predict_points(model: nn.Module, images: Tensor) -> Predictions:
    """The points of the object that each image `(B, 3, S, S)` shows: one prediction an image, whose box is all of it.

    The confidence of a point is the height of its map there; of `softmax` the share of the map that lies around it.
    """
    net: Any = model
    maps, side = net(images), images.shape[-1]
    n_images = images.shape[0]  # not `len` nor `ones_like`, of which an export would keep the traced number
    if net.output == "places":
        place, confidence = maps * side, images.new_ones(n_images, maps.shape[1])
    else:
        if net.output == "softmax":
            maps = maps.flatten(-2).softmax(-1).unflatten(-1, maps.shape[-2:])
        place, confidence = DECODERS[net.decode](maps, net.stride)
        if net.output == "softmax":
            confidence = window_mass(maps)
    points = torch.cat([place, confidence.clamp(0, 1)[..., None]], -1)[:, None]
    box = images.new_tensor([0, 0, side, side]).expand(n_images, 1, 4)
    return Predictions(box, images.new_ones(n_images, 1, net.n_labels), points)

