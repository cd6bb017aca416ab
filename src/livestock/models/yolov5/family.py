"""The family yolov5: the networks, loss and anchors of the package yolov5, as they are, behind `Family`.

A network is a `DetectionModel` of the package, with two attributes added: `names`, its labels by class id, and
`imgsz`, the longer side of its input in pixels, by which the loss is scaled.
"""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import cache, partial
from io import StringIO
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...exceptions import BadData, UnsafeWeights
from ..base import Batch, Loss, ModelConfig, Predictions, Resize
from ..labels import class_order
from . import library
from .architecture import build, check_architecture, layers_without_numbers

N_BOX_ROWS = 5  # outputs of an anchor before its classes: centre x and y, width, height, objectness
ANCHOR_SEED = 0


class YoloV5:
    """The published networks of YOLOv5 7.0, `yolov5n` to `yolov5x` (stride 32) and `yolov5n6` to `yolov5x6` (64)."""

    name = "yolov5"
    sizes = library.SIZES
    needs_nms = True
    resize: Resize = "letterbox"
    sums_loss = True
    defaults: Mapping[str, float] = MappingProxyType({
        "box": 0.05, "cls": 0.5, "cls_pw": 1.0, "obj": 1.0, "obj_pw": 1.0, "iou_t": 0.2, "anchor_t": 4.0,
        "fl_gamma": 0.0, "label_smoothing": 0.0,
    })  # of the package's hyp.scratch-low.yaml; it reads iou_t nowhere, which is known for the sake of its files

    def configure(self, labels: Sequence[str], imgsz: int, size: str = "") -> ModelConfig:
        """The config of a published size; "" is `yolov5n`.

        `imgsz` is raised to a multiple of the stride, as yolov5 does. Raises BadData for an unknown size, without
        labels, or for an `imgsz` below 1.
        """
        if not labels or imgsz < 1:
            raise BadData(f"yolov5: expected labels and an imgsz of 1 pixel or more, found {list(labels)} and {imgsz}")
        size = size or library.SIZES[0]
        architecture = {**library.read_architecture(size), "nc": len(labels), "ch": 3}
        stride = 64 if size.endswith("6") else 32
        return ModelConfig(self.name, tuple(labels), math.ceil(imgsz / stride) * stride, stride, architecture)

    def build(self, config: ModelConfig) -> nn.Module:
        """A network with random weights, which follow from PyTorch's seed; the generator itself stays as it was.

        The names in its state_dict are those of the package: `model.0.conv.weight`. Raises UnsafeWeights for an
        architecture that is not known to be harmless, before anything of it is allocated, or one of another stride
        than the config says.
        """
        path = Path("the config of a yolov5 model")
        architecture = {**config.architecture, "nc": len(config.labels)}  # start weights may have had other classes
        check_architecture(architecture, path)
        layers_without_numbers(architecture, path)
        model = build(architecture, path)
        if (stride := float(model.stride.max())) != config.stride:
            raise UnsafeWeights(f"{path}: expected a stride of {stride:g}, as its layers have, found {config.stride}")
        model.names, model.imgsz = dict(enumerate(config.labels)), config.imgsz
        return model

    def find_pretrained(self, name: str, directory: Path) -> Path:
        """See `library.find_pretrained`."""
        return library.find_pretrained(name, directory)

    def adapt(self, state: Mapping[str, Tensor], found: ModelConfig, wanted: ModelConfig) -> dict[str, Tensor]:
        """Start weights whose last layer has the classes of `wanted` where it can; all other tensors are handed on.

        With as many classes as before, those that both know are moved to their new places, and the others take the
        places that are left. With another number, the outputs of boxes, objectness and the known classes are kept and
        the other classes begin as a new network's do; if no class is known, the last layer is left out, as yolov5
        does, and is random. Classes are compared without case. Raises UnsafeWeights where the last layer is not that of
        `found`.
        """
        prefix = f"model.{_n_layers(found) - 1}.m."
        last = {name: tensor for name, tensor in state.items() if name.startswith(prefix)}
        rest = {name: tensor for name, tensor in state.items() if name not in last}
        if len(found.labels) == len(wanted.labels):
            order: Sequence[int | None] | None = class_order(found.labels, wanted.labels)
            if order is None:
                return dict(state)
        else:
            places = {label.strip().casefold(): place for place, label in enumerate(found.labels)}
            order = [places.get(label.strip().casefold()) for label in wanted.labels]
            if all(place is None for place in order):
                return rest
            if min(len(found.labels), len(wanted.labels)) == 1:
                order = [None] * len(order)  # the only class of a network is never trained: all is in its objectness
        n_anchors = _n_anchors(found)
        n_rows = n_anchors * (N_BOX_ROWS + len(found.labels))
        for name, tensor in last.items():
            if len(tensor) != n_rows:
                raise UnsafeWeights(f"{name}: expected {n_rows} rows, {n_anchors} anchors of {N_BOX_ROWS} and "
                                    f"{len(found.labels)} classes, found the shape {tuple(tensor.shape)}")
            rest[name] = _move_rows(tensor, n_anchors, order)
        return rest

    def fit_boxes(self, model: nn.Module, sizes: np.ndarray, imgsz: int, hyp: Mapping[str, float]) -> None:
        """Fits the anchors as yolov5 does before it trains, with `check_anchors`, in place; prints nothing.

        `sizes` are width and height `(n, 2)` of the training boxes in pixels of the input. Anchors stay where at least
        98 % of the boxes are within a factor `anchor_t` of one, each box scaled by a random .9 to 1.1. The random
        numbers have a seed of their own. All weights are then rounded to half precision, as yolov5 does here.
        """
        sizes = np.asarray(sizes, float).reshape(-1, 2)
        if len(sizes):
            # Each box is an image of its own, square: where boxes lie is of no matter, and the scale is an image's.
            labels = np.column_stack([np.tile([0, 0.5, 0.5], (len(sizes), 1)), sizes / imgsz])
            dataset = SimpleNamespace(shapes=np.full((len(sizes), 2), imgsz), labels=list(labels[:, None]))
            # The function behind yolov5's decorator, which prints an error and goes on.
            check_anchors = library.load().check_anchors.__wrapped__
            with _seeded(ANCHOR_SEED), redirect_stderr(StringIO()), warnings.catch_warnings():
                # It draws a progress bar, and divides arrays by tensors in a way that numpy warns of.
                warnings.filterwarnings("ignore", module=r"yolov5\.")
                check_anchors(dataset, model, thr={**self.defaults, **hyp}["anchor_t"], imgsz=imgsz)
        model.half().float()

    def make_loss(self, model: nn.Module, hyp: Mapping[str, float]) -> Loss:
        """yolov5's `ComputeLoss`: the parts `box`, `obj` and `cls`, means over the images of a batch.

        `model` is the bare network on its device; a wrapper of it may be handed to the loss. Gains are scaled as in
        yolov5's `train.py`, by levels, classes and `imgsz`. It is computed in float32, under autocast too.

        yolov5 gives the gradient of the sum alone. So all of it hangs on `box`: the values of all three parts are
        right, and so is the gradient of their sum, but that of a single part is not.
        """
        network: Any = model
        head = network.model[-1]
        gains = SimpleNamespace(hyp=_scale_gains({**self.defaults, **hyp}, head, network.imgsz), model=network.model,
                                parameters=network.parameters)
        compute = _host_loss(library.load().compute_loss)(gains)

        def loss(called: nn.Module, batch: Batch) -> dict[str, Tensor]:
            """The parts of the loss of a batch, weighted."""
            output = called(batch.images)
            levels = output[1] if isinstance(output, tuple) else output  # a tuple in evaluation mode
            if (id(head.anchors), head.anchors._version) != compute.version:  # fitted, loaded or moved since
                compute.take_anchors(head.anchors)
            with torch.autocast(batch.images.device.type, enabled=False):
                total, (box, obj, cls) = compute([level.float() for level in levels], _make_targets(batch))
                mean = total.squeeze(0) / len(batch)
            return {"box": box + (mean - mean.detach()), "obj": obj, "cls": cls}

        return loss

    def predict(self, model: nn.Module, images: Tensor) -> Predictions:
        """Every box of a network in evaluation mode, decoded in float32, also where its layers compute in half.

        Can be traced, for any batch, height and width, and called by several threads at a time. It leaves the last
        layer alone in training mode, in which that only computes: else it would decode too, by a grid and anchors that
        it keeps from the last images. Raises ValueError for a network in training mode.
        """
        network: Any = model
        if network.training:
            raise ValueError("model: expected a network in evaluation mode, call its eval(); found it in training mode")
        head = network.model[-1]
        head.training = True
        levels = network(images)
        decoded = [_decode(level.float(), anchors.float(), stride)
                   for level, anchors, stride in zip(levels, head.anchors, head.stride, strict=True)]
        boxes, scores = (torch.cat(parts, 1) for parts in zip(*decoded, strict=True))
        return Predictions(boxes, scores)

    def fuse(self, model: nn.Module) -> nn.Module:
        """See the function `fuse`."""
        return fuse(model)

    def parameter_groups(self, model: nn.Module, hyp: Mapping[str, float]) -> list[dict[str, Any]]:
        """The groups of yolov5's `smart_optimizer`, in its order: biases, decayed weights, weights of batch norm.

        Biases begin the warm-up at `warmup_bias_lr`, the others at 0. `weight_decay` is as the hyper-parameters have
        it: who trains scales it by the images of a step over the nominal ones, as yolov5 does.
        """
        norms = tuple(kind for name, kind in vars(nn).items() if "Norm" in name)
        biases: list[nn.Parameter] = []
        decayed: list[nn.Parameter] = []
        undecayed: list[nn.Parameter] = []
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                is_norm = name == "weight" and isinstance(module, norms)
                (biases if name == "bias" else undecayed if is_norm else decayed).append(parameter)
        kinds = ((biases, 0.0, hyp["warmup_bias_lr"]), (decayed, hyp["weight_decay"], 0.0), (undecayed, 0.0, 0.0))
        return [{"params": parameters, "lr": hyp["lr0"], "weight_decay": decay, "warmup_lr": warmup_lr}
                for parameters, decay, warmup_lr in kinds]


def fuse(model: nn.Module) -> nn.Module:
    """Folds batch norm into the convolutions, in place, and returns the network, in evaluation mode.

    yolov5 cannot do so to weights in channels-last order, so they are put into the usual one. Weights that were not
    finite before may be so afterwards, or the other way round: a negative variance becomes NaN.
    """
    network: Any = model
    network.eval().to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        network.fuse()
    return model


def _n_layers(config: ModelConfig) -> int:
    return len(config.architecture["backbone"]) + len(config.architecture["head"])


def _n_anchors(config: ModelConfig) -> int:
    """Anchors of a level: given as a number, or as widths and heights by level."""
    anchors = config.architecture["anchors"]
    return len(anchors[0]) // 2 if isinstance(anchors, list | tuple) else int(anchors)


def _move_rows(tensor: Tensor, n_anchors: int, order: Sequence[int | None]) -> Tensor:
    """Weights or biases of the last layer, `(anchors * (5 + classes), ...)`, for the classes `order`; None is new.

    >>> _move_rows(torch.arange(7.0), 1, [1, 0]).tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 5.0]
    """
    by_anchor = tensor.reshape(n_anchors, -1, *tensor.shape[1:])
    rows = [by_anchor[:, :N_BOX_ROWS], *(_new_class(by_anchor, index, len(order)) if place is None
                                         else by_anchor[:, N_BOX_ROWS + place, None]
                                         for index, place in enumerate(order))]
    return torch.cat(rows, 1).reshape(-1, *tensor.shape[1:])


def _new_class(by_anchor: Tensor, index: int, n_classes: int) -> Tensor:
    """The row of each anchor for a class that the start weights do not know, from a seed of its own.

    Weights are small random numbers, as PyTorch's; a bias is yolov5's for a class that is right in .6 of n cases.
    """
    new = torch.empty_like(by_anchor[:, :1], dtype=torch.float32)
    if new.ndim == 2:
        return new.fill_(math.log(0.6 / (n_classes - 0.99999))).to(by_anchor.dtype)
    most = 1 / math.sqrt(new[0, 0].numel())
    return new.uniform_(-most, most, generator=torch.Generator().manual_seed(index)).to(by_anchor.dtype)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Python's and numpy's global random numbers, which yolov5 draws from, from a seed; afterwards as before."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _scale_gains(hyp: Mapping[str, float], head: Any, imgsz: int) -> dict[str, float]:
    """The hyper-parameters of the loss, for levels, classes and size as yolov5's `train.py` scales them."""
    by_level = 3 / head.nl
    return {**hyp, "box": hyp["box"] * by_level, "cls": hyp["cls"] * (head.nc / 80 * 3 / head.nl),
            "obj": hyp["obj"] * ((imgsz / 640) ** 2 * 3 / head.nl)}


def _make_targets(batch: Batch) -> Tensor:
    """The boxes of a batch `(n, 6)`: image, class, and centre x, y, width, height over the input's; on the CPU."""
    height, width = batch.images.shape[2:]
    boxes, counts = torch.cat(batch.boxes).float(), torch.tensor([len(boxes) for boxes in batch.boxes])
    images = torch.arange(len(batch)).repeat_interleave(counts)
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    ids = torch.stack([images, torch.cat(batch.class_ids)], 1)
    return torch.cat([ids.float(), torch.cat([centres, sizes], 1) / torch.tensor([width, height] * 2)], 1)


@cache
def _host_loss(compute_loss: Any) -> Any:
    """yolov5's `ComputeLoss`, matching boxes to anchors on the CPU, where the boxes are.

    On the GPU that asks it for numbers several times a level, and each time the CPU waits for all that it was given.
    """

    class HostLoss(compute_loss):
        def __init__(self, model: Any) -> None:
            super().__init__(model)
            self.take_anchors(model.model[-1].anchors)

        def take_anchors(self, anchors: Tensor) -> None:
            """Matches to these from now on."""
            host = copy.copy(self)
            host.device, host.anchors = torch.device("cpu"), anchors.cpu().clone()
            self.anchors: Tensor = anchors
            self.version = id(anchors), anchors._version  # which counts changes in place
            self.match = partial(compute_loss.build_targets, host)

        def build_targets(self, p: list[Tensor], targets: Tensor) -> Any:
            """As yolov5's: of each level classes, boxes, places `(image, anchor, row, column)` and anchors.

            Two tensors a level are sent to the GPU, whole numbers and others.
            """
            classes, boxes, places, anchors = self.match(p, targets)
            numbers = [_send(torch.stack((*place, class_ids)), self.device)
                       for place, class_ids in zip(places, classes, strict=True)]
            sizes = [_send(torch.cat(pair, 1), self.device) for pair in zip(boxes, anchors, strict=True)]
            return ([level[4] for level in numbers], [level[:, :4] for level in sizes],
                    [level[:4].unbind() for level in numbers], [level[:, 4:] for level in sizes])

    return HostLoss


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """To the GPU, without waiting until it is there."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _decode(level: Tensor, anchors: Tensor, stride: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes `(B, N, 4)` xyxy and scores `(B, N, C)` of one level's raw output `(B, anchors, rows, columns, 5 + C)`.

    With s the sigmoid of the output, a box of the cell (i, j) has its centre at (2 s - .5 + (j, i)) * stride and the
    size (2 s)² * anchor, in YOLOv5's release 5.0 and later; the score of a class is objectness times its probability.
    `anchors` are `(anchors, 2)` in cells.
    """
    found = level.sigmoid()
    rows, columns = (torch.arange(level.shape[axis], device=level.device, dtype=level.dtype) for axis in (2, 3))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    centres = (found[..., :2] * 2 + (torch.stack([x, y], 2) - 0.5)) * stride
    halves = (found[..., 2:4] * 2) ** 2 * (anchors * stride * 0.5)[:, None, None]
    boxes, scores = torch.cat([centres - halves, centres + halves], -1), found[..., 4:5] * found[..., 5:]
    return boxes.flatten(1, 3), scores.flatten(1, 3)
