"""Ways from candidates to an answer, each tuned on the same images and judged on images it was not tuned on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..tables import by_falling_confidence
from .choosing import GroupScores, score_inner
from .fusion import fuse, soft_suppress
from .suppression import suppress
from .sweep import sweep
from .tune import Point, Tuned, leave_outs, score_points, tune

IOU_THRESHOLDS = [round(0.40 + 0.025 * step, 3) for step in range(21)]  # 0.4 to 0.9
LOOSE_IOUS = [0.7, 0.8, 0.9, 1.0]  # where a network marks an object once: copies are all there is to drop, or nothing
CONF_THRESHOLDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5]
SIGMAS = [0.05, 0.1, 0.2, 0.3, 0.5, 0.8]
FUSION_IOUS = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8]
PASS_IOU = 0.65  # each pass is suppressed so before it is fused with others
FUSION_CONFIDENCE = 0.01  # below it nothing is fused: its time grows with the square of what is left in an image
COPIES_IOU = 0.9  # what overlaps more is a copy: dropped before soft suppression, whose time grows with the square
MAX_DET = 300  # boxes of an image, before soft suppression too
EVERY_CLASS = ""


@dataclass(frozen=True)
class Method:
    """`kind`: `nms`, `nms_by_class`, `nms_agnostic`, `soft_nms`, `wbf` or `nmw`; `passes`: over the images, by name."""

    kind: str
    passes: tuple[str, ...]


# The first is what the others must beat. Names of passes as in `pipeline`.
METHODS = {
    "suppression": Method("nms", ("plain",)),
    "suppression, thresholds by class": Method("nms_by_class", ("plain",)),
    "suppression across classes": Method("nms_agnostic", ("plain",)),
    "soft suppression": Method("soft_nms", ("plain",)),
    "averaged weights": Method("nms", ("averaged",)),
    "larger": Method("nms", ("larger",)),
    "flipped too, pooled": Method("nms", ("plain", "flipped")),
    "flipped too, fused (WBF)": Method("wbf", ("plain", "flipped")),
    "flipped too, fused (NMW)": Method("nmw", ("plain", "flipped")),
    "larger too, fused (WBF)": Method("wbf", ("plain", "larger")),
    "flipped and larger too, fused (WBF)": Method("wbf", ("plain", "flipped", "larger")),
}


@dataclass(frozen=True)
class TunedMethod:
    """`points`: parameters by class, or under `EVERY_CLASS` for all; `surface`, `plateau` and `held_out` as `Tuned`.

    `inner`: by part the score of the images outside it, tuned without it; what `choose_method` needs.
    """

    points: dict[str, Point]
    surface: pd.DataFrame
    plateau: pd.DataFrame
    held_out: pd.DataFrame
    inner: dict[int, GroupScores]


def tune_method(
    method: Method, members: Sequence[pd.DataFrame], truth: pd.DataFrame, images: pd.DataFrame, parts: pd.Series,
    metric_iou: float, *, marks_once: bool = False,
) -> TunedMethod:
    """Chooses the method's parameters by cross-validation over images; `members` are the passes' candidates.

    A network that `marks_once`, as set prediction does, leaves suppression little to do: `LOOSE_IOUS` are tried.
    """
    if method.kind in ("nms", "nms_agnostic", "nms_by_class"):
        pooled = pd.concat(members) if len(members) > 1 else members[0]  # millions of rows
        ious = LOOSE_IOUS if marks_once and len(members) == 1 else IOU_THRESHOLDS  # two passes mark it twice
        points, surface, tuned = _tune_suppression(method.kind, pooled, truth, parts, metric_iou, ious)
    else:
        points, surface, tuned = _tune_other(method.kind, members, truth, images, parts, metric_iou)
    inner = {part: score_inner(boxes, truth, images, parts, part, metric_iou) for part, boxes in tuned.inner.items()}
    return TunedMethod(points, surface, tuned.plateau, tuned.held_out, inner)


def _tune_other(
    kind: str, members: Sequence[pd.DataFrame], truth: pd.DataFrame, images: pd.DataFrame, parts: pd.Series,
    metric_iou: float,
) -> tuple[dict[str, Point], pd.DataFrame, Tuned]:
    prepared = _prepare(kind, members)
    name, values = ("sigma", SIGMAS) if kind == "soft_nms" else ("iou_threshold", FUSION_IOUS)
    answers: dict[tuple[float, ...], pd.DataFrame] = {
        (value,): _settle(kind, prepared, images, {name: value}) for value in values
    }
    surface = score_points(truth, answers, [name], parts, metric_iou)
    tuned = tune(surface, [name], lambda point: answers[(point[name],)], parts)
    return {EVERY_CLASS: tuned.point}, surface, tuned


def _tune_suppression(
    kind: str, pooled: pd.DataFrame, truth: pd.DataFrame, parts: pd.Series, metric_iou: float, ious: Sequence[float]
) -> tuple[dict[str, Point], pd.DataFrame, Tuned]:
    agnostic, names = kind == "nms_agnostic", ["iou_threshold", "conf_threshold"]
    surface = sweep(
        truth, pooled, iou_thresholds=ious, conf_thresholds=CONF_THRESHOLDS, metric_ious=[metric_iou],
        agnostic=agnostic, parts=parts, leave_out=leave_outs(parts.max() + 1),
    )
    tuned = tune(surface, names, lambda point: suppress(pooled, agnostic=agnostic, **point), parts)
    if kind != "nms_by_class":
        return {EVERY_CLASS: tuned.point}, surface, tuned
    by_class = {label: _tune_class(surface, names, pooled[pooled["label"] == label], parts, label)
                for label in sorted(truth["label"].unique())}

    def join(every: pd.DataFrame, own: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """The boxes of each class at its own point; a class without truth has nothing of its own."""
        return _cap(pd.concat([*own, every[~every["label"].isin(by_class)]]))

    held_out = join(tuned.held_out, [own.held_out for own in by_class.values()])
    inner = {part: join(every, [own.inner[part] for own in by_class.values()]) for part, every in tuned.inner.items()}
    points = {EVERY_CLASS: tuned.point, **{label: own.point for label, own in by_class.items()}}
    return points, surface, Tuned(tuned.point, tuned.plateau, held_out, inner)


def _tune_class(surface: pd.DataFrame, names: Sequence[str], own: pd.DataFrame, parts: pd.Series, label: str) -> Tuned:
    level = surface.fillna({label: 0.0})  # without some parts there may be no truth of it: all points are equal
    return tune(level, names, lambda point: suppress(own, **point), parts, column=label)


def apply(
    kind: str, members: Sequence[pd.DataFrame], images: pd.DataFrame, points: Mapping[str, Point]
) -> pd.DataFrame:
    """The boxes that are left of the passes' candidates when a kind of method is applied at its parameters.

    Raises ValueError for an unknown kind.
    """
    if kind == "nms_by_class":
        pooled = pd.concat(members)
        kept = [suppress(own, **points.get(str(label), points[EVERY_CLASS])) for label, own in pooled.groupby("label")]
        return _cap(pd.concat([pooled.iloc[:0], *kept]))
    return _settle(kind, _prepare(kind, members), images, points[EVERY_CLASS])


def _cap(boxes: pd.DataFrame) -> pd.DataFrame:
    """The boxes that suppression of all classes together would leave an image."""
    ordered = by_falling_confidence(boxes)
    return ordered[ordered.groupby("image_id").cumcount() < MAX_DET].reset_index(drop=True)


def _prepare(kind: str, members: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """What does not depend on the parameters: done once for all of them."""
    if kind in ("wbf", "nmw"):
        return [suppress(boxes, iou_threshold=PASS_IOU, conf_threshold=FUSION_CONFIDENCE) for boxes in members]
    pooled = pd.concat(members)
    return [suppress(pooled, iou_threshold=COPIES_IOU, max_det=MAX_DET) if kind == "soft_nms" else pooled]


def _settle(kind: str, prepared: Sequence[pd.DataFrame], images: pd.DataFrame, point: Point) -> pd.DataFrame:
    if kind in ("nms", "nms_agnostic"):
        return suppress(prepared[0], agnostic=kind == "nms_agnostic", **point)
    if kind == "soft_nms":
        return soft_suppress(prepared[0], images, **point)
    if kind in ("wbf", "nmw"):
        return fuse(prepared, images, kind, **point)
    raise ValueError(f"kind: expected one of {sorted({method.kind for method in METHODS.values()})}, found {kind!r}")


def describe_points(points: Mapping[str, Point]) -> str:
    """Parameters in words: `IoU 0.6, confidence 0.001`, with the class before where each has its own.

    >>> describe_points({EVERY_CLASS: {"iou_threshold": 0.6, "conf_threshold": 0.001}})
    'IoU 0.6, confidence 0.001'
    """
    words = {"iou_threshold": "IoU", "conf_threshold": "confidence", "sigma": "sigma"}
    several = len(points) > 1
    each = [(f"{label}: " if label else "others: " * several) + ", ".join(f"{words[name]} {np.round(value, 3):g}"
                                                        for name, value in point.items())
            for label, point in points.items()]
    return "; ".join(each)
