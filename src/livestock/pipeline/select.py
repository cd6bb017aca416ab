"""Which method makes the answer: each tuned and compared out of fold, one chosen, and what its score is worth."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..evaluation import describe_missing_classes
from ..files.progress import progress
from ..postprocess import (
    METHODS,
    Choice,
    Point,
    TunedMethod,
    apply,
    choose_method,
    describe_points,
    score_inner,
    split_parts,
    suppress,
    tune_method,
)
from .predict import VIEWS, predict_oof, read_oof, seconds_an_image
from .prepare import read_tables
from .run import Run
from .train import weights_of

ORIGINAL = "suppression at IoU 0.68, as the original"
ORIGINAL_POINT: Point = {"iou_threshold": 0.68, "conf_threshold": 0.001}


@dataclass(frozen=True)
class Inference:
    """What makes the answer: a method of `METHODS`, or `ORIGINAL`, its parameters by class, whose folds' models.

    `final` is the file of `07_final`'s model, below the workspace; with one, no fold's model answers.
    """

    method: str
    points: Mapping[str, Point]
    folds: tuple[int, ...] = (0,)
    final: str = ""

    @property
    def kind(self) -> str:
        """As in `postprocess.Method`."""
        return METHODS[self.method].kind if self.method in METHODS else "nms"

    @property
    def passes(self) -> tuple[str, ...]:
        """Names of `VIEWS`."""
        return METHODS[self.method].passes if self.method in METHODS else ("plain",)


def try_methods(
    run: Run, folds: Sequence[int], names: Sequence[str] = tuple(METHODS), *, n_models: int = 1, averaged: bool = False
) -> tuple[pd.DataFrame, dict[str, TunedMethod], Choice]:
    """Each method tuned by cross-validation over the out-of-fold images and compared with the first.

    One row a method: the columns of `postprocess.Choice.table`, `seconds` an image, `MB` of the weights that it loads
    for `n_models` folds, whether they stay within the limit (`fits`), and its parameters in words (`point`). The
    original's fixed thresholds come second. Intervals and p are over groups of near-duplicate frames. The other results
    hold what was tuned, and what is chosen of the methods that fit, with its score by nested cross-validation.
    `averaged`: all of it with averaged weights, as those of `07_final` are.
    """
    from ..models.registry import get_family

    if averaged:
        names = [name for name in names if not any(VIEWS[look].averaged for look in METHODS[name].passes)]
    marks_once = not get_family(run.profile.family).needs_nms
    images, truth = read_oof(run, folds)
    parts = split_parts(images, np.random.default_rng(run.seed))
    wanted = {"plain"}.union(*(METHODS[name].passes for name in names))
    candidates = {look: predict_oof(run, look, folds, averaged=averaged) for look in VIEWS if look in wanted}
    tuned, costs = {}, {}
    for name in progress(names, "methods", unit="method"):
        method = METHODS[name]
        members = [candidates[look] for look in method.passes]
        tuned[name] = tune_method(method, members, truth, images, parts, run.competition.metric_iou,
                                  marks_once=marks_once)
        started = time.perf_counter()
        apply(method.kind, members, images, tuned[name].points)
        own = (time.perf_counter() - started) / len(images)
        seconds = seconds_an_image(run, method.passes, folds, averaged=averaged)
        costs[name] = {"seconds": own + seconds, "MB": n_models * _megabytes(run, method.passes, folds[0]),
                       "point": describe_points(tuned[name].points)}
    first, *others = names
    costs[ORIGINAL] = {**costs[first], "point": describe_points({"": ORIGINAL_POINT})}
    original = apply_original(candidates["plain"])
    answers = {first: tuned[first].held_out, ORIGINAL: original, **{name: tuned[name].held_out for name in others}}
    inner = {name: own.inner for name, own in tuned.items()}
    inner[ORIGINAL] = {part: score_inner(original, truth, images, parts, part, run.competition.metric_iou)
                       for part in inner[first]}
    more = pd.DataFrame.from_dict(costs, orient="index").loc[list(answers)]
    more["fits"] = more["MB"] * 1e6 <= run.competition.weight_limit_bytes
    choice = choose_method(answers, {name: inner[name] for name in answers}, truth, images, parts,
                           run.competition.metric_iou, allowed=list(more.index[more["fits"]]))
    return choice.table.join(more), tuned, choice


def tune_suppression(run: Run, folds: Sequence[int]) -> TunedMethod:
    """The simplest of the methods, tuned as `try_methods` does it; `held_out` are its boxes out of fold."""
    from ..models.registry import get_family

    images, truth = read_oof(run, folds)
    parts = split_parts(images, np.random.default_rng(run.seed))
    return tune_method(METHODS["suppression"], [predict_oof(run, "plain", folds)], truth, images, parts,
                       run.competition.metric_iou, marks_once=not get_family(run.profile.family).needs_nms)


def apply_original(candidates: pd.DataFrame) -> pd.DataFrame:
    """What the original's fixed thresholds keep; not tuned here, so all of it is held out."""
    return suppress(candidates, **ORIGINAL_POINT)


def _megabytes(run: Run, passes: Sequence[str], fold: int) -> float:
    files = {weights_of(run, fold, averaged=VIEWS[name].averaged) for name in passes}
    return sum(path.stat().st_size for path in files) / 1e6


def describe_estimate(run: Run, choice: Choice, folds: Sequence[int]) -> str:
    """The out-of-fold score of what is chosen in words, and every reason to trust it less: a line each."""
    from ..data.folds import describe_leak

    images, boxes = read_tables(run)
    truth = boxes[boxes["image_id"].isin(images.loc[images["fold"].isin(folds), "image_id"])]
    others = [name for name in choice.by_part.values() if name != choice.method]
    lines = [f"mAP at IoU {run.competition.metric_iou:g} out of fold, with the choosing inside: {choice.score:.4f}, "
             f"95 % interval {choice.low:.4f} to {choice.high:.4f} over {choice.n_groups} "
             f"group{'s' * (choice.n_groups != 1)} ({choice.n_effective:.1f} effective)",
             f"without one part of the images {' and '.join(dict.fromkeys(others))} would have been chosen in "
             f"{len(others)} of {len(choice.by_part)} parts, which the score includes" if others else "",
             describe_missing_classes(run.competition.labels, truth), describe_leak(images, folds)]
    return "\n".join(line for line in lines if line)
