"""The contract of a model family: what differs between detectors. Everything else exists once, for all of them.

A family says how pictures are laid on its input, builds the network, computes the loss of a batch, and turns raw output
into boxes. All coordinates are pixels of the network's input, `xyxy`, the upper left corner of the picture at (0, 0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

Resize = Literal["letterbox", "stretch", "top_left"]
Crop = Literal["whole", "stretch", "fit"]  # how an object is cut out of its picture: see `crops`
ONE_STAGE = ""  # in place of a crop: a network that finds objects and their points in whole pictures
Loss = Callable[[nn.Module, "Batch"], dict[str, Tensor]]


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build a network, as plain values that JSON can hold.

    `labels` in the order of the class ids. Sides of the input are multiples of `stride`. `architecture` is what the
    family alone understands, such as the name of a backbone.
    """

    family: str
    labels: tuple[str, ...]
    imgsz: int
    stride: int = 32
    architecture: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Training images and what is in them.

    `images` are float `(B, 3, H, W)`, RGB in 0..1, on the model's device. Of each image `boxes` has `(n, 4)` float and
    `class_ids` `(n,)` int64, on the CPU: families move what they need. `keypoints`, where there are any, are
    `(n, K, 3)`: x, y and visibility (0 not labelled, 1 hidden, 2 seen). `progress` is the share of a training's epochs
    that are done, 0 in the first, for families that assign boxes in another way at first.
    """

    images: Tensor
    boxes: list[Tensor]
    class_ids: list[Tensor]
    keypoints: list[Tensor] | None = None
    progress: float = 0.0

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> Batch:
        """The same batch with 8-bit images moved to a device and scaled to 0..1; the CPU need not wait for it."""
        images = self.images.to(device, non_blocking=True)
        return replace(self, images=images.to(torch.float32, memory_format=torch.channels_last).div_(255))


@dataclass(frozen=True)
class Predictions:
    """What a network sees in a batch of images, before suppression.

    `boxes` `(B, N, 4)`; `scores` `(B, N, C)` in 0..1, without background, objectness multiplied in; `keypoints`
    `(B, N, K, 3)`: x, y, confidence. Boxes may reach beyond the image. All float32 on the model's device.
    """

    boxes: Tensor
    scores: Tensor
    keypoints: Tensor | None = None


@dataclass(frozen=True)
class Report:
    """Which tensors of start weights fitted a model, by name; `random` are the model's that stay as they were made."""

    loaded: list[str]
    random: list[str]
    unused: list[str]


class Family(Protocol):
    """One kind of detector. Its instance holds no state: models, losses and settings are handed to it."""

    name: str
    sizes: Sequence[str]  # names of networks that it can build with random weights, the smallest first
    needs_nms: bool  # False for set prediction, which marks an object once; a loose suppression is tried all the same
    resize: Resize  # how a picture is laid on the input, in training and in prediction
    sums_loss: bool  # the recipe's learning rate is for losses summed over the images of a step, not for their mean
    defaults: Mapping[str, float]  # hyper-parameters of its own, such as weights of the loss; the loop's are common

    def configure(self, labels: Sequence[str], imgsz: int, size: str = "") -> ModelConfig:
        """The config of one of its `sizes`; "" is the smallest."""

    def build(self, config: ModelConfig) -> nn.Module:
        """A network with random weights for as many classes as `config.labels` has, made without network access.

        Raises UnsafeWeights for a config that is impossible or too large, before anything is allocated.
        """

    def find_pretrained(self, name: str, directory: Path) -> Path:
        """The file of start weights with this official name, downloaded into `directory` if it is not there."""

    def adapt(self, state: Mapping[str, Tensor], found: ModelConfig, wanted: ModelConfig) -> dict[str, Tensor]:
        """Start weights of another config as far as they fit: classes that both know moved to their new places."""

    def fit_boxes(self, model: nn.Module, sizes: np.ndarray, imgsz: int, hyp: Mapping[str, float]) -> None:
        """Adapts a network to the training boxes before the first step: width and height `(n, 2)` at training size."""

    def make_loss(self, model: nn.Module, hyp: Mapping[str, float]) -> Loss:
        """The function of (model, batch) that gives the named parts of the loss, weighted, means over the images.

        Their sum is minimised. It runs the model once, so that a wrapper for several GPUs may be handed in.
        """

    def predict(self, model: nn.Module, images: Tensor) -> Predictions:
        """What a model in evaluation mode sees in float images `(B, 3, H, W)`, RGB in 0..1; can be exported."""

    def parameter_groups(self, model: nn.Module, hyp: Mapping[str, float]) -> list[dict[str, Any]]:
        """Groups for the optimizer: `params`, `lr`, `weight_decay`, and `warmup_lr`, with which the warm-up begins."""


@runtime_checkable
class PoseFamily(Family, Protocol):
    """A family whose networks see one object at a time, cut out of its picture, and find its keypoints.

    Each image of a `Batch` shows one object, the first of its boxes; `Predictions` have one box an image, all of it.
    The architecture has `points`, their names in order, `flips`, the index of each one's mirror image, and `owners`,
    the ids of the classes that have each; `flips` is empty without mirror images, `owners` where all classes have all.
    """

    crop: Crop


@runtime_checkable
class OneStagePoseFamily(Family, Protocol):
    """A family whose networks find objects in whole pictures and the keypoints of each at once.

    The `keypoints` of a `Batch` belong to its boxes, those of `Predictions` too. The architecture has `points`, `flips`
    and `owners` as that of a `PoseFamily`; its `crop` is empty.
    """

    keypoint_losses: Sequence[str]  # names of hyper-parameters, the weights of the losses of places
    starts_from: Sequence[str]  # families of detectors whose weights fit most of its networks, see `adapt`


def load_matching(model: nn.Module, state: Mapping[str, Tensor]) -> Report:
    """Loads the tensors whose name and shape the model has; the others are reported, not an error."""
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in state.items() if name in own and own[name].shape == tensor.shape}
    model.load_state_dict(fitting, strict=False)
    return Report(sorted(fitting), sorted(own.keys() - fitting.keys()), sorted(state.keys() - fitting.keys()))
