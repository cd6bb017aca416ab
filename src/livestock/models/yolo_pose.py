"""One-stage pose: objects and the keypoints of each in one look at a picture; networks and loss of ultralytics.

YOLOv8-pose (Maji et al., YOLO-Pose, CVPR Workshops 2022, arXiv:2204.06806, is the idea), YOLO11 and YOLO26. Network,
assignment and the loss of boxes and classes are the package's, as they are; places of keypoints are trained on the
losses of `keypoint_losses`, each with a weight of its own. YOLO26 is read by the head that is trained with many places
an object, so that all sizes are suppressed alike.

`yolov5n` and `yolov5s` are ours: YOLOv5's layers up to its neck, which any YOLOv5 detector of that size starts, with
the head of YOLOv8-pose. A detector of the same animals is at hand more often than a network that knows their joints.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from ..exceptions import BadData, UnsafeWeights
from .base import ONE_STAGE, Batch, Loss, ModelConfig, Predictions, Resize
from .checkpoint import write_checkpoint
from .common import SMALLEST, check_batch, check_entries, check_size, download, group_parameters
from .foreign import read_pose_tensors
from .keypoint_losses import KeypointLoss, make_losses
from .metadata import are_flips, are_owners
from .quiet import kept_settings
from .registry import get_family

OFFICIAL = ("yolov8n", "yolov8s", "yolo11n", "yolo11s", "yolo26n", "yolo26s")  # sizes with weights of their authors
WIDTHS = {"yolov5n": 16, "yolov5s": 32}  # channels of the first layer of those that begin as a YOLOv5 detector
SIZES = (*OFFICIAL, *WIDTHS)
DETECTOR = "yolov5"  # the family of such a detector
DETECTORS = ("starter.safetensors", *(f"{size}.pt" for size in WIDTHS))  # its weights that fit
LAST = "model.24."  # its last layer, which finds boxes by anchors
KEYPOINT_LOSSES = ("oks", "oks_even", "oks_third", "l1", "euclidean")
INSTALL = "pip install --no-deps ultralytics-opencv-headless==8.4.190"
RELEASE, N_OFFICIAL = "https://github.com/ultralytics/assets/releases/download/v8.4.0", 17  # points of a person
LARGEST_SIGMA = 10.0
MOST = 200  # points: the layers before them have three channels for each


@cache
def _load() -> tuple[Any, Any, Any]:
    """The package's `PoseModel`, its settings, and what reads its networks. Raises ImportError: what to install.

    It would look up names of hosts and write its settings into the user's folder: it is told that there is no network,
    and to write into a folder that is deleted.
    """
    try:
        with tempfile.TemporaryDirectory() as folder, kept_settings(
                {"YOLO_OFFLINE": "1", "YOLO_CONFIG_DIR": folder, "YOLO_VERBOSE": "false"}):
            from ultralytics.cfg import get_cfg
            from ultralytics.nn.tasks import PoseModel, yaml_model_load
    except ImportError as error:
        raise ImportError(f"the model family yolo_pose needs {error.name}, which is not installed: {INSTALL}"
                          ) from error
    return PoseModel, get_cfg, yaml_model_load


class PlaceLoss(nn.Module):
    """What the package calls for the places of keypoints: the weighted sum of the losses of `keypoint_losses`."""

    def __init__(self, losses: Mapping[str, KeypointLoss], weights: Mapping[str, float], sigmas: Tensor) -> None:
        super().__init__()
        self.parts = [(weights[name], losses[name]) for name in KEYPOINT_LOSSES if weights[name]]
        self.sigmas = sigmas  # by which YOLO26 assigns

    def forward(self, found: Tensor, truth: Tensor, is_labelled: Tensor, area: Tensor) -> Tensor:
        """Of `(M, K, 2)` or more values a point, `(M, K)` and areas `(M, 1)`, in strides."""
        places = found[..., :2]
        total = places.sum() * 0
        for weight, loss in self.parts:
            total = total + weight * loss(places, truth[..., :2], is_labelled, area[:, 0])
        return total


class YoloPoseFamily:
    """YOLOv8-pose, YOLO11-pose and YOLO26-pose, nano and small, and YOLOv5 with such a head: 2.6 to 11 million
    parameters.

    Raises ImportError that says what to install if the package is not there.
    """

    name = "yolo_pose"
    sizes = SIZES
    needs_nms = True
    resize: Resize = "letterbox"
    sums_loss = True
    starts_from: Sequence[str] = (DETECTOR,)
    keypoint_losses: Sequence[str] = KEYPOINT_LOSSES
    # The package's, but for OKS, which has the skeleton's sigmas; `rle` is for YOLO26, the only one that has it.
    defaults: Mapping[str, float] = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "kobj": 1.0, "rle": 1.0, "oks": 12.0,
                                     "oks_even": 0.0, "oks_third": 0.0, "l1": 0.0, "euclidean": 0.0}

    def __init__(self) -> None:
        _load()

    def configure(self, labels: Sequence[str], imgsz: int, size: str = "") -> ModelConfig:
        """The config of a size, `yolov8n` by default, for one point: see `training.start`. Raises BadData."""
        size = size or SIZES[0]
        if size not in SIZES:
            raise BadData(f"yolo_pose: size: expected one of {', '.join(SIZES)}, found {size!r}")
        check_size(imgsz, smallest=SMALLEST)
        return ModelConfig(self.name, tuple(labels), imgsz, architecture={
            "size": size, "points": ["point"], "flips": [], "owners": [], "sigmas": [0.05], "crop": ONE_STAGE})

    def build(self, config: ModelConfig) -> nn.Module:
        """A network with random weights, made without network access. Raises UnsafeWeights for an impossible config."""
        parts = _check_architecture(config)
        pose_model, get_cfg, read_network = _load()
        size, shape = parts["size"], [len(parts["points"]), 3]
        described = read_network(f"{size}{'' if size in WIDTHS else '-pose'}.yaml")
        if size in WIDTHS:
            described["head"][-1][2:] = ["Pose", ["nc", "kpt_shape"]]
        network = pose_model({**described, "kpt_shape": shape}, ch=3, nc=len(config.labels), verbose=False)
        network.args, network.kpt_oks_sigmas = get_cfg(), list(parts["sigmas"])
        network.model[-1].dynamic = True  # places are computed for each picture, in the precision that is asked for
        return network

    def find_pretrained(self, name: str, directory: Path) -> Path:
        """The checkpoint of official weights such as `yolov8n-pose.pt`, made in `directory` if it is not there.

        They know people, and their 17 points by number. The authors' file is downloaded, or was put there by hand; of
        its pickle tensors and labels alone are read, see `foreign`. Those of `DETECTORS` are as their family has them.
        Raises ValueError for another name, and one that says what to fetch and where to put it; UnsafeWeights for a
        file whose tensors are not those of the network.
        """
        if name in DETECTORS:
            return get_family(DETECTOR).find_pretrained(name, directory)
        size = name.removesuffix("-pose.pt")
        if f"{size}-pose.pt" != name or size not in OFFICIAL:
            raise ValueError(f"weights {name!r}: expected a file, one of the sizes {', '.join(SIZES)}, "
                             f"{SIZES[0]}-pose.pt and the like, or a detector: {', '.join(DETECTORS)}")
        path, source = directory / f"{self.name}_{size}.safetensors", directory / name
        if path.exists():
            return path
        download(name, f"{RELEASE}/{name}", source)
        labels, tensors = read_pose_tensors(source)
        config = self.configure(labels, 640, size)
        points = {"points": [f"point {number}" for number in range(N_OFFICIAL)], "sigmas": [0.05] * N_OFFICIAL}
        config = replace(config, architecture={**config.architecture, **points})
        wanted = self.build(config).state_dict()
        for place, tensor in wanted.items():
            if place not in tensors or tensors[place].shape != tensor.shape:
                raise UnsafeWeights(f"{source}: {place}: expected {tuple(tensor.shape)}, found "
                                    f"{tuple(tensors[place].shape) if place in tensors else 'no such tensor'}")
        write_checkpoint(path, config, {place: tensors[place] for place in wanted}, {"official": name})
        return path

    def adapt(self, state: Mapping[str, Tensor], found: ModelConfig, wanted: ModelConfig) -> dict[str, Tensor]:
        """Start weights of another config as far as they fit: class outputs and points that are the same in both.

        Where labels or points differ, the outputs for them stay random. Of a YOLOv5 detector all but its last layer
        fits. Raises ValueError for a detector of another size.
        """
        if found.family == DETECTOR:
            return _take_detector(state, wanted.architecture["size"])
        changed = [*(["cv3"] if found.labels != wanted.labels else []),
                   *(["cv4"] if list(found.architecture["points"]) != list(wanted.architecture["points"]) else [])]
        return {name: tensor for name, tensor in state.items()
                if not any(f".{part}." in name or f"_{part}." in name or f".{part}_" in name or f"_{part}_" in name
                           for part in changed)}

    def fit_boxes(self, model: nn.Module, sizes: np.ndarray, imgsz: int, hyp: Mapping[str, float]) -> None:
        """Nothing: boxes are distances from a place, not from anchors of the data."""

    def make_loss(self, model: nn.Module, hyp: Mapping[str, float]) -> Loss:
        """The package's loss with `hyp`'s weights: IoU of the boxes, their distribution `dfl`, classes, whether a point
        is labelled `kobj`, places of points `pose`, and `rle` of YOLO26.

        The function raises BadData for a box without an area, an unknown class, and a batch without keypoints.
        """
        network: Any = model
        weights = {**self.defaults, **hyp}
        network.args = SimpleNamespace(**{**vars(network.args), **{name: weights[name] for name in (
            "box", "cls", "dfl", "kobj", "rle")}, "pose": 1.0})
        criterion, losses = network.init_criterion(), make_losses(network.kpt_oks_sigmas)
        branches = [criterion.one2many, criterion.one2one] if hasattr(criterion, "one2many") else [criterion]
        for branch in branches:
            branch.keypoint_loss = PlaceLoss(losses, weights, branch.keypoint_loss.sigmas)
        names = [name.removesuffix("_loss") for name in branches[0].loss_names]
        n_classes = network.model[-1].nc

        def loss(called: nn.Module, batch: Batch) -> dict[str, Tensor]:
            """The parts of the loss of a batch, as the package weights them."""
            check_batch(batch, n_classes)
            outputs = called(batch.images)
            with torch.autocast(batch.images.device.type, enabled=False):
                values, _ = criterion(_as_float(outputs), _make_targets(batch))
            return {name: value / len(batch) for name, value in zip(names, values, strict=True)}

        return loss

    def predict(self, model: nn.Module, images: Tensor) -> Predictions:
        """Every box of a network in evaluation mode and its points, decoded in float32. Can be traced for any size."""
        network: Any = model
        head, n_classes = network.model[-1], network.model[-1].nc
        _, raw = network(images)
        with torch.autocast(images.device.type, enabled=False):
            found = head._inference(_as_float(raw.get("one2many", raw))).transpose(1, 2)
        boxes = box_convert(found[..., :4], "cxcywh", "xyxy")
        points = found[..., 4 + n_classes:].unflatten(-1, (-1, 3))
        return Predictions(boxes, found[..., 4 : 4 + n_classes], points)

    def parameter_groups(self, model: nn.Module, hyp: Mapping[str, float]) -> list[dict[str, Any]]:
        """Weights, which decay, norms and biases, all with `lr0`; see `common.group_parameters`."""
        return group_parameters(model.named_parameters(), hyp)


def _take_detector(state: Mapping[str, Tensor], size: str) -> dict[str, Tensor]:
    """The tensors of a YOLOv5 detector up to its last layer. Raises ValueError if it is not one of this size."""
    first = state.get("model.0.conv.weight")
    if first is None or len(first) != WIDTHS.get(size) or f"{LAST}m.0.weight" not in state:
        raise ValueError(f"those of a YOLOv5 detector start {' and '.join(WIDTHS)}, each its own size, not this {size}")
    return {name: tensor for name, tensor in state.items() if not name.startswith(LAST)}


def _as_float(outputs: Any) -> Any:
    """The network's outputs, a dictionary or a tuple with one, in float32."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    if isinstance(outputs, dict):
        return {name: _as_float(value) for name, value in outputs.items()}
    return type(outputs)(map(_as_float, outputs))


def _make_targets(batch: Batch) -> dict[str, Tensor]:
    """The labels of the package: which image each box is of, its class, its box and points relative to the image."""
    if batch.keypoints is None:
        raise BadData("batch: expected keypoints of its boxes, found none")
    height, width = batch.images.shape[-2:]
    device, scale = batch.images.device, torch.tensor([width, height], dtype=torch.float32)
    boxes, points = torch.cat(batch.boxes).float(), torch.cat(batch.keypoints).float()
    counts = torch.tensor([len(own) for own in batch.boxes])
    return {"batch_idx": torch.arange(len(batch)).repeat_interleave(counts).float().to(device),
            "cls": torch.cat(batch.class_ids).float()[:, None].to(device),
            "bboxes": box_convert(boxes / scale.repeat(2), "xyxy", "cxcywh").to(device),
            "keypoints": torch.cat([points[..., :2] / scale, points[..., 2:]], -1).to(device)}


def _check_architecture(config: ModelConfig) -> Mapping[str, Any]:
    """Raises UnsafeWeights naming the first entry that is not as it should be."""
    parts = check_entries(config, ("size", "points", "flips", "owners", "sigmas", "crop"))
    points, sigmas = parts["points"], parts["sigmas"]
    is_names = isinstance(points, list | tuple) and all(isinstance(name, str) for name in points)
    wrong = {"size": parts["size"] not in SIZES, "crop": parts["crop"] != ONE_STAGE,
             "points": not (is_names and 1 <= len(points) <= MOST and len(set(points)) == len(points))}
    wrong["flips"] = wrong["points"] or not are_flips(parts["flips"], len(points))
    wrong["owners"] = wrong["points"] or not are_owners(parts["owners"], len(points), len(config.labels))
    wrong["sigmas"] = wrong["points"] or not (isinstance(sigmas, list | tuple) and len(sigmas) == len(points) and all(
        isinstance(sigma, int | float) and 0 < sigma <= LARGEST_SIGMA for sigma in sigmas))
    if names := [name for name, is_wrong in wrong.items() if is_wrong]:
        raise UnsafeWeights(f"yolo_pose: {names[0]}: expected what a network of keypoints has there, found "
                            f"{str(parts[names[0]])[:80]!r}")
    return parts
