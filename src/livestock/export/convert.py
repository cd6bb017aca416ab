"""A model as other runtimes take it: ONNX, and TorchScript; each with the decoding of boxes inside.

Their output is one tensor `(B, N, 4 + C)`: xyxy in pixels of the input, and scores; of networks of keypoints
`(B, 1, 4 + C + 3 K)`, all ways to read a place from a map inside; see `models.metadata`.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from ..exceptions import BadData
from ..inference import picture_batches, to_tensor
from ..models.base import ONE_STAGE, Family, ModelConfig, PoseFamily, Predictions
from ..models.forward import load_for_inference, load_fused
from ..models.loaded import LoadedModel
from ..models.metadata import KEYPOINTS, METADATA, Metadata, write_metadata

OPSET = 17  # the first with layer normalisation as one operator, and after those with quantisation by channel and grids
BOXES_PX, SCORES = 0.5, 1e-3  # the most by which an export may differ from PyTorch
POINTS_PX = 2.0  # the same of keypoints: untrained maps are so flat that rounding decides between neighbouring cells
ALIKE = 0.75  # of all points: in noise two places of a map are about as high, and rounding decides which is the highest
N_NOISE = 8  # pictures of it for networks of keypoints: with few points one that rounding moves must not count
LEAST_SCORE = 0.01  # of a box of a set that is compared


@dataclass(frozen=True)
class Differences:
    """The largest differences of two models: `boxes` in pixels of the network's input, `scores` in 0..1.

    `points` is the distance in pixels that three quarters of all keypoints do not exceed, see `ALIKE`, and `heights`
    the largest difference of their confidences.
    """

    boxes: float
    scores: float
    points: float = 0.0
    heights: float = 0.0

    @property
    def small(self) -> bool:
        """Whether an export may differ so much; NaN may not."""
        return (self.boxes <= BOXES_PX and self.scores <= SCORES and self.points <= POINTS_PX
                and self.heights <= SCORES)


def export_onnx(weights: Path, target: Path) -> Path:
    """Writes the model of a `.pt` or `.safetensors` file as ONNX in float32, for any batch, height and width.

    Models that stretch pictures (D-FINE), and those of keypoints, are written for squares of their training size alone.
    Needs only what is installed with this package: no onnxscript, so PyTorch's older exporter. Raises ValueError if
    the file gives other boxes or points than PyTorch.
    """
    import onnx

    model, metadata = _exportable(weights)
    axes = {"images": {0: "batch"}, "output": {0: "batch"}}
    if not metadata.has_fixed_size:
        axes = {"images": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch", 1: "boxes"}}
    with beside_target(target) as beside:
        with silence(), torch.inference_mode():
            torch.onnx.export(
                model, (_noise(*_traced_shape(metadata)),), str(beside), dynamo=False, opset_version=OPSET,
                input_names=["images"], output_names=["output"], dynamic_axes=axes)
        content = onnx.load(beside)
        onnx.helper.set_model_props(content, {METADATA: write_metadata(metadata)})
        content.graph.output[0].type.tensor_type.shape.dim[2].dim_value = metadata.n_columns  # traced as unknown
        onnx.save(content, beside)
        _check_noise(weights, beside)
    return target


def export_torchscript(weights: Path, target: Path) -> Path:
    """Writes the model of a `.pt` or `.safetensors` file as traced TorchScript, for the sizes of `export_onnx`.

    Such a file is a program: `load_for_inference` loads it only where the caller says that it is his own (`trusted`).
    Raises ValueError if the file gives other boxes than PyTorch.
    """
    model, metadata = _exportable(weights)
    with beside_target(target) as beside:
        with silence(), torch.inference_mode():
            traced = torch.jit.trace(model, _noise(*_traced_shape(metadata)), check_trace=False)
            torch.jit.save(traced, str(beside), _extra_files={METADATA: write_metadata(metadata)})
        _check_noise(weights, beside)
    return target


def compare_exports(weights: Path, exported: Path, images: pd.DataFrame, *, imgsz: int, batch: int = 16) -> Differences:
    """How far the boxes and scores of `exported`, a file of this run, lie from those of `weights` on real images.

    Boxes that no threshold would let through (a score below 0.001) count too. Raises BadData for networks that find the
    keypoints of objects in boxes: their pictures are objects, see `poses.find_poses`.
    """
    first, second = load_for_inference(weights, "cpu"), load_for_inference(exported, "cpu", trusted=True)
    if first.architecture.get("crop", ONE_STAGE) != ONE_STAGE:
        raise BadData(f"{weights}: expected weights that find boxes, found {first.family}, which finds keypoints; "
                      "compare what `poses.find_poses` gives for both files")
    found = [
        find_differences(first(pictures), second(pictures), ordered=first.needs_nms)
        for _, chunk in picture_batches(images, imgsz, first.stride, batch, first.resize)
        for pictures in [to_tensor(chunk)]
    ]
    return _largest_of(found)


def find_differences(first: Predictions, second: Predictions, *, ordered: bool = True) -> Differences:
    """The largest differences of two models' predictions of the same images; infinite for other shapes.

    Unless `ordered`, as for set prediction, each box is compared with the other model's nearest, both ways. Boxes of
    scores up to `LEAST_SCORE` are then left out: rounding decides which places just become the last queries.

    >>> boxes, scores = torch.tensor([[[0.0, 0, 4, 4], [8, 8, 9, 9]]]), torch.ones(1, 2, 1)
    >>> one, other = Predictions(boxes, scores), Predictions(boxes.flip(1) + 0.25, scores)
    >>> find_differences(one, other, ordered=False)
    Differences(boxes=0.25, scores=0.0, points=0.0, heights=0.0)
    """
    if first.boxes.shape != second.boxes.shape or first.scores.shape != second.scores.shape:
        return Differences(float("inf"), float("inf"))
    if first.keypoints is not None or second.keypoints is not None:
        return _compare_points(first, second)
    if ordered:
        return Differences(_largest(first.boxes - second.boxes), _largest(first.scores - second.scores))
    images = [_compare_sets(*(Predictions(one.boxes[n], one.scores[n]) for one in pair))
              for pair in ((first, second), (second, first)) for n in range(len(first.boxes))]
    return _largest_of(images)


def _compare_points(first: Predictions, second: Predictions) -> Differences:
    """Of predictions in one order, as networks of keypoints give them: one an image."""
    boxes, scores = _largest(first.boxes - second.boxes), _largest(first.scores - second.scores)
    if first.keypoints is None or second.keypoints is None or first.keypoints.shape != second.keypoints.shape:
        return Differences(boxes, scores, float("inf"), float("inf"))
    apart = (first.keypoints - second.keypoints).flatten(0, -2).double()
    distance = torch.hypot(apart[:, 0], apart[:, 1]).quantile(ALIKE) if len(apart) else torch.zeros(())
    return Differences(boxes, scores, float(distance), _largest(apart[:, 2]))


def _compare_sets(found: Predictions, others: Predictions) -> Differences:
    """How far boxes `(N, 4)` with scores `(N, C)` are from the nearest of others, in units of what may differ."""
    sure = found.scores.amax(dim=1) > LEAST_SCORE
    points, other_points = (torch.cat([one.boxes / BOXES_PX, one.scores / SCORES], dim=1).double()
                            for one in (found, others))
    nearest = torch.cdist(points[sure], other_points, p=float("inf")).argmin(dim=1)
    return Differences(_largest(found.boxes[sure] - others.boxes[nearest]),
                       _largest(found.scores[sure] - others.scores[nearest]))


def _largest_of(found: Sequence[Differences]) -> Differences:
    return Differences(max((one.boxes for one in found), default=0.0), max((one.scores for one in found), default=0.0))


def _largest(differences: Tensor) -> float:
    return float(differences.abs().max()) if differences.numel() else 0.0


class _OneOutput(nn.Module):
    """From images `(B, 3, H, W)` to one tensor `(B, N, 4 + C)`, or `(B, N, 4 + C + 3 K)` with K keypoints."""

    def __init__(self, family: Family, model: nn.Module) -> None:
        super().__init__()
        self.family, self.model = family, model

    def forward(self, images: Tensor) -> Tensor:
        found = self.family.predict(self.model, images)
        points = [] if found.keypoints is None else [found.keypoints.flatten(-2)]
        return torch.cat([found.boxes, found.scores, *points], dim=-1)


def _exportable(weights: Path) -> tuple[nn.Module, Metadata]:
    family, config, model = load_fused(weights)
    return _OneOutput(family, model.requires_grad_(False)).eval(), _describe(family, config)


def _describe(family: Family, config: ModelConfig) -> Metadata:
    # A network that is given squares may keep their size where it is traced: D-FINE its positions and box sizes.
    keypoints = {name: config.architecture[name] for name in KEYPOINTS if "points" in config.architecture}
    return Metadata(list(config.labels), config.stride, config.family, family.resize, config.imgsz, family.needs_nms,
                    has_fixed_size=family.resize == "stretch" or isinstance(family, PoseFamily), architecture=keypoints)


def _traced_shape(metadata: Metadata) -> tuple[int, int, int]:
    """Batch, height and width of the noise to trace with."""
    if metadata.has_fixed_size and metadata.imgsz:
        return 2, metadata.imgsz, metadata.imgsz
    return 2, 3 * metadata.stride, 2 * metadata.stride


def _check_noise(weights: Path, exported: Path) -> None:
    """Raises ValueError if an export differs on noise of other sizes and batches than it was traced with."""
    first, second = load_for_inference(weights, "cpu"), load_for_inference(exported, "cpu", trusted=True)
    for shape in _checked_shapes(second):
        with torch.jit.optimized_execution(False):  # which takes seconds, and two passes
            found = find_differences(first(_noise(*shape)), second(_noise(*shape)), ordered=first.needs_nms)
        if not found.small:
            raise ValueError(f"{weights}: expected an export that differs by up to {BOXES_PX} px and {SCORES}, found "
                             f"{found} on noise of the shape {shape}")


def _checked_shapes(model: LoadedModel) -> list[tuple[int, int, int]]:
    if model.has_fixed_size and model.imgsz:
        return [(n, model.imgsz, model.imgsz) for n in ((N_NOISE,) if "points" in model.architecture else (1, 3))]
    return [(1, 3 * model.stride, 5 * model.stride), (3, 4 * model.stride, model.stride)]


def _noise(batch: int, height: int, width: int) -> Tensor:
    """Images `(B, 3, H, W)` of blobs in random colours: of noise from pixel to pixel all places look alike, so that
    rounding would decide which of them become queries."""
    generator = torch.Generator().manual_seed(0)
    coarse, fine = (torch.rand(batch, 3, math.ceil(height / cell), math.ceil(width / cell), generator=generator)
                    for cell in (16, 1))
    return 0.8 * nn.functional.interpolate(coarse, (height, width), mode="bilinear") + 0.2 * fine


@contextmanager
def beside_target(target: Path) -> Iterator[Path]:
    """A path to write to that becomes `target` if nothing was raised, and else goes. It has the same suffix."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        yield beside
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def silence() -> Iterator[None]:
    """What tracing a model and the quantiser say is known: no user can act on it."""
    with warnings.catch_warnings():
        for message in ("You are using the legacy TorchScript-based ONNX export", "The feature will be removed",
                        r"`torch\.jit\.(trace|trace_method|save)` is deprecated"):
            warnings.filterwarnings("ignore", message=message, category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Constant folding - Only steps=1")  # where a model pads: no matter
        # Models compare shapes and keep numbers that follow from them; `_check_noise` sees whether that is harmless.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        yield
