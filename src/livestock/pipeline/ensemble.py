"""One answer from the models of several workspaces, which may be of different families: calibrated, fused, compared."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ..exceptions import BadData
from ..files.write import write_bytes, write_text
from ..postprocess import (
    METHODS,
    Choice,
    Method,
    TunedMethod,
    apply,
    calibrate_out_of_part,
    choose_method,
    describe_points,
    fit_calibration,
    score_inner,
    split_parts,
    tune_method,
)
from .answer import competition_for, find_answer, images_to_answer, source_weights
from .final import read_final
from .predict import read_oof, trained_folds
from .prepare import read_tables
from .run import Run
from .select import Inference, try_methods
from .submit import chosen_inference

CALIBRATED = "fused (WBF), calibrated"
AS_THEY_ARE = "fused (WBF), confidences as they are"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A workspace's own best answer: `held_out` are its boxes in images that neither model nor thresholds have seen."""

    name: str
    run: Run
    inference: Inference
    held_out: pd.DataFrame

    @property
    def weights(self) -> list[Path]:
        """The files that it loads."""
        return source_weights(self.run, self.inference)


@dataclass(frozen=True)
class Ensemble:
    """Members alone and fused, compared out of fold: `choice.table` has a row for each, with `MB` and `fits`."""

    members: list[Member]
    fused: dict[str, TunedMethod]
    choice: Choice
    table: pd.DataFrame


def compare_members(runs: Sequence[Run], names: Sequence[str] = tuple(METHODS)) -> Ensemble:
    """Tunes each workspace's answer and their fusion out of fold, and chooses; the first workspace is to be beaten.

    Confidences of two families do not compare, so each member's are calibrated first, those of an image on boxes of
    other parts of the images (`postprocess.calibrate_out_of_part`). The IoU of the fusion is chosen by
    cross-validation. `names` are the methods of `METHODS` that each workspace tries by itself. Raises BadData for
    workspaces of different data, folds or competitions, MissingResult for one without a trained fold.
    """
    _check_same(runs)
    first = runs[0]
    folds = sorted(set.intersection(*(set(trained_folds(run)) for run in runs)))
    if not folds:
        raise BadData("folds: expected at least one that every workspace has trained a model without, found none; give "
                      "each the same --folds")
    images, truth = read_oof(first, folds)
    parts = split_parts(images, np.random.default_rng(first.seed))
    iou = first.competition.metric_iou
    members = [_make_member(run, folds, names) for run in runs]
    tables = {AS_THEY_ARE: [member.held_out for member in members],
              CALIBRATED: [calibrate_out_of_part(member.held_out, truth, parts, iou) for member in members]}
    method = Method("wbf", tuple(member.name for member in members))
    fused = {name: tune_method(method, own, truth, images, parts, iou) for name, own in tables.items()}
    answers = {member.name: member.held_out for member in members} | {
        name: tuned.held_out for name, tuned in fused.items()}
    inner = {name: {part: score_inner(boxes, truth, images, parts, part, iou) for part in sorted(parts.unique())}
             for name, boxes in answers.items()} | {name: tuned.inner for name, tuned in fused.items()}
    more = pd.DataFrame({"MB": [_megabytes([member]) for member in members] + [_megabytes(members)] * len(fused),
                         "point": [member.inference.method for member in members]
                         + [describe_points(tuned.points) for tuned in fused.values()]}, index=list(answers))
    more["fits"] = more["MB"] * 1e6 <= first.competition.weight_limit_bytes
    choice = choose_method(answers, inner, truth, images, parts, iou, allowed=list(more.index[more["fits"]]))
    return Ensemble(members, fused, choice, choice.table.join(more))


def write_ensemble(ensemble: Ensemble, out: Path) -> Path:
    """Writes `answer.csv`, the weights and `ensemble.yaml`, what made them, to a folder; returns the first.

    Raises BadData for weights over the limit, and for an answer that is not fit to submit.
    """
    from ..data.submission import check_weights, write_answer

    run, method = ensemble.members[0].run, ensemble.choice.method
    chosen = ensemble.members if method in ensemble.fused else [
        member for member in ensemble.members if member.name == method]
    sources = [path for member in chosen for path in member.weights]
    check_weights(sources, run.competition.weight_limit_bytes)
    images, part = images_to_answer(run)
    competition, found = competition_for(run, images, part), []
    for member in chosen:
        found.append(find_answer(member.run, member.inference, images, part, member.weights)[0])
    boxes = found[0]
    if method in ensemble.fused:
        if method == CALIBRATED:
            folds = sorted(set.intersection(*(set(trained_folds(member.run)) for member in chosen)))
            truth = read_oof(run, folds)[1]
            found = [fit_calibration(member.held_out, truth, competition.metric_iou)(own)
                     for member, own in zip(chosen, found, strict=True)]
        boxes = apply("wbf", found, images, ensemble.fused[method].points)
    boxless = sorted(set(images["image_id"]) - set(boxes["image_id"]))
    path = write_answer(boxes, images, out / "answer.csv", boxless=boxless, labels=competition.labels,
                        answer_name=competition.answer_name)
    weights = {}
    for number, source in enumerate(sources):
        target = out / f"weights{f'_{number}' if number else ''}.safetensors"
        write_bytes(source.read_bytes(), target)
        weights[target.name] = hashlib.sha256(target.read_bytes()).hexdigest()
    _write_record(ensemble, chosen, weights, out / "ensemble.yaml")
    return path


def _make_member(run: Run, folds: Sequence[int], names: Sequence[str]) -> Member:
    final = read_final(run) if images_to_answer(run)[1] == "test" else None
    _, tuned, choice = try_methods(run, folds, names, averaged=bool(final))
    return Member(name_of(run), run, chosen_inference(choice, tuned, folds, final), choice.held_out)


def name_of(run: Run) -> str:
    """A workspace in words: its family and folder."""
    return f"{run.profile.family} in {run.workspace.root}"


def _megabytes(members: Sequence[Member]) -> float:
    return sum(path.stat().st_size for member in members for path in member.weights) / 1e6


def _check_same(runs: Sequence[Run]) -> None:
    """Raises BadData that says in what two workspaces differ: their out-of-fold boxes would be of other images."""
    if len({name_of(run) for run in runs}) < max(len(runs), 2):
        raise BadData(f"workspaces: expected at least two, each named once, found {[name_of(run) for run in runs]}")
    first, *others = runs
    for other in others:
        for what, ours, theirs in (("competition", first.competition, other.competition),
                                   *zip(("images and folds", "labels", "images to answer"), _content(first),
                                        _content(other), strict=True)):
            if ours != theirs:
                raise BadData(f"{name_of(other)}: expected the {what} of {name_of(first)}, found others; run both on "
                              "the same data with the same --seed")


def _content(run: Run) -> list[Any]:
    images, boxes = read_tables(run)
    to_answer, _ = images_to_answer(run)
    return [table[columns].sort_values(columns).to_csv(index=False) for table, columns in (
        (images, ["image_id", "width", "height", "fold"]),
        (boxes, ["image_id", "label", "x_min", "y_min", "x_max", "y_max"]),
        (to_answer, ["image_id", "width", "height"]))]


def _write_record(ensemble: Ensemble, chosen: Sequence[Member], weights: dict[str, str], path: Path) -> None:
    choice = ensemble.choice
    header = (f"# out of fold, mAP {choice.score:.4f}, 95 % interval over groups {choice.low:.4f} to "
              f"{choice.high:.4f}, with tuning, calibration and the choice inside the cross-validation\n")
    content = {
        "method": choice.method,
        "reason": choice.reason,
        "members": [{"workspace": str(member.run.workspace.root), "family": member.run.profile.family,
                     "imgsz": member.run.profile.imgsz, "method": member.inference.method,
                     "points": describe_points(member.inference.points)} for member in chosen],
        "points": dict(ensemble.fused[choice.method].points[""]) if choice.method in ensemble.fused else {},
        "weights": weights,
    }
    write_text(header + yaml.safe_dump(content, sort_keys=False), path)
