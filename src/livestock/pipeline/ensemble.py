"""One answer from the models of several workspaces, which may be of different families: calibrated, fused, compared."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ..config import Workspace
from ..exceptions import BadData
from ..files.progress import progress
from ..files.write import write_bytes, write_text
from ..postprocess import (
    EVERY_CLASS,
    METHODS,
    Calibration,
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
from ..postprocess.methods import FUSION_CONFIDENCE
from .answer import competition_for, find_answer, find_boxless, images_to_answer, source_weights
from .final import read_final
from .predict import read_oof, trained_folds
from .prepare import VALID_FOLD, read_tables
from .run import Run, settings_path
from .select import Inference, try_methods
from .submit import chosen_inference

# Fusion passes over what is less confident than `FUSION_CONFIDENCE`, which is meant for a network's own confidences. So
# what is below goes before calibration, and a probability is laid into the range above.
LEAST = 1.1 * FUSION_CONFIDENCE
CALIBRATED = "fused (WBF), calibrated"
RECORD = "ensemble.yaml"
AS_THEY_ARE = "fused (WBF), confidences as they are"
MOST_MEMBERS = 5  # of which there are 26 subsets, each fused in two ways


@dataclass(frozen=True)
class Member:
    """A workspace's own best answer: `held_out` are its boxes in images that neither model nor thresholds have seen.

    `of_method` are such boxes too, all by the method that answers, where the choice of the method is not held out.
    """

    name: str
    run: Run
    inference: Inference
    held_out: pd.DataFrame
    of_method: pd.DataFrame
    seconds: float  # an image, all passes of its method

    @property
    def weights(self) -> list[Path]:
        """The files that it loads."""
        return source_weights(self.run, self.inference)


@dataclass(frozen=True)
class Fusion:
    """Some of the members fused, their confidences calibrated first or as they are."""

    members: list[Member]
    calibrated: bool
    tuned: TunedMethod


@dataclass(frozen=True)
class Ensemble:
    """Members alone and fused, compared out of these folds.

    `table` has a row each, of the columns of `Choice.table`, `MB`, `seconds` an image, `point` and `fits`.
    """

    folds: list[int]
    members: list[Member]
    fused: dict[str, Fusion]
    choice: Choice
    table: pd.DataFrame


def compare_members(runs: Sequence[Run], names: Sequence[str] = tuple(METHODS)) -> Ensemble:
    """Tunes each workspace's answer and the fusions of some of them out of fold; the first workspace is to be beaten.

    Fused are all, to show what that would bring, and each subset whose files stay within the limit of weights together.
    Confidences of two families do not compare, so each member's are calibrated first, those of an image on boxes of
    other parts of the images (`postprocess.calibrate_out_of_part`). The IoU of the fusion is chosen by
    cross-validation, once, on boxes so calibrated: what a part's truth does to the others' curves is not held out. A
    `07_final` model is taken to be as confident as those of the folds. `names` are the methods of `METHODS` that each
    workspace tries by itself. Raises BadData for workspaces of different data, folds, seeds or competitions, and for
    more than `MOST_MEMBERS`; MissingResult for one without a trained fold.
    """
    _check_same(runs)
    first = runs[0]
    folds = sorted(set.intersection(*(set(trained_folds(run)) for run in runs)))
    if not folds:
        raise BadData("folds: expected at least one that every workspace has trained a model without, found none; give "
                      "each the same --folds")
    if images_to_answer(first)[1] == "valid" and VALID_FOLD not in folds:
        raise BadData(f"folds: there is no test set, so fold {VALID_FOLD} is answered; expected a model of it in each "
                      f"workspace, found those of {folds}")
    images, truth = read_oof(first, folds)
    parts = split_parts(images, np.random.default_rng(first.seed))
    iou = first.competition.metric_iou
    members = [_make_member(run, folds, names) for run in runs]
    limit = first.competition.weight_limit_bytes / 1e6
    if (size := _megabytes(members[:1])) > limit:
        raise BadData(f"{members[0].name}: expected weights of at most {limit:g} MB together, found {size:.1f}; it is "
                      "to be beaten and answers if nothing else does: name one that fits first")
    fused = _fuse_subsets(members, truth, images, parts, iou, limit)
    answers = {member.name: member.held_out for member in members} | {
        name: fusion.tuned.held_out for name, fusion in fused.items()}
    inner = {member.name: {part: score_inner(member.held_out, truth, images, parts, part, iou)
                           for part in sorted(parts.unique())} for member in members} | {
        name: fusion.tuned.inner for name, fusion in fused.items()}
    used = [[member] for member in members] + [fusion.members for fusion in fused.values()]
    more = pd.DataFrame({"MB": [_megabytes(some) for some in used],
                         "seconds": [sum(member.seconds for member in some) for some in used],
                         "point": [member.inference.method for member in members]
                         + [describe_points(fusion.tuned.points) for fusion in fused.values()]}, index=list(answers))
    more["fits"] = more["MB"] <= limit
    choice = choose_method(answers, inner, truth, images, parts, iou, allowed=list(more.index[more["fits"]]))
    return Ensemble(folds, members, fused, choice, choice.table.join(more))


def _fuse_subsets(members: Sequence[Member], truth: pd.DataFrame, images: pd.DataFrame, parts: pd.Series, iou: float,
                  limit: float) -> dict[str, Fusion]:
    """The fusions of all members, and of each subset of at most `limit` megabytes, in two ways each, by their names.

    Confidences are calibrated on boxes of other parts, or stay as they are; the IoU is tuned by cross-validation.
    """
    boxes = {AS_THEY_ARE: [member.held_out for member in members],
             CALIBRATED: [_lift(calibrate_out_of_part(_above(member.held_out), truth, parts, iou))
                          for member in members]}
    n, fused = len(members), {}
    subsets = [some for size in range(n, 1, -1) for some in combinations(range(n), size)
               if size == n or _megabytes([members[index] for index in some]) <= limit]
    for some, kind in progress([(some, kind) for some in subsets for kind in boxes], "fusions", unit="fusion"):
        which = "" if len(some) == n else f": {' + '.join(str(index + 1) for index in some)}"
        method = Method("wbf", tuple(members[index].name for index in some))
        tuned = tune_method(method, [boxes[kind][index] for index in some], truth, images, parts, iou)
        fused[f"{kind}{which}"] = Fusion([members[index] for index in some], kind == CALIBRATED, tuned)
    return fused


def write_ensemble(ensemble: Ensemble, out: Path) -> Path:
    """Writes `answer.csv`, the weights and `ensemble.yaml`, what made them, to a folder; returns the first.

    Weights that an earlier ensemble left there go. Raises BadData for a folder that is a workspace, for weights over
    the limit, for an answer that is not fit to submit, and for a damaged record of an earlier ensemble there.
    """
    from ..data.submission import check_weights, write_answer

    if settings_path(Workspace(out)).exists():
        raise BadData(f"{out}: expected a folder for the answer alone, found a workspace; give another --out")
    earlier = _earlier_weights(out)
    run, method = ensemble.members[0].run, ensemble.choice.method
    fusion = ensemble.fused.get(method)
    chosen = fusion.members if fusion else [member for member in ensemble.members if member.name == method]
    check_weights([path for member in chosen for path in member.weights], run.competition.weight_limit_bytes)
    images, part = images_to_answer(run)
    competition = competition_for(run, images, part)
    found = [find_answer(member.run, member.inference, images, part, member.weights) for member in chosen]
    curves = []
    if fusion and fusion.calibrated:
        truth = read_oof(run, ensemble.folds)[1]
        curves = [fit_calibration(_above(member.of_method), truth, competition.metric_iou) for member in chosen]
        found = [_lift(calibrate(_above(own))) for calibrate, own in zip(curves, found, strict=True)]
    boxes = apply("wbf", found, images, fusion.tuned.points) if fusion else found[0]
    path = write_answer(boxes, images, out / "answer.csv", boxless=find_boxless(images, boxes),
                        labels=competition.labels, answer_name=competition.answer_name)
    for name in earlier:
        (out / name).unlink(missing_ok=True)
    targets = (out / f"weights{f'_{number}' if number else ''}.safetensors" for number in count())
    weights = [{target.name: _copy(source, target) for source, target in zip(member.weights, targets, strict=False)}
               for member in chosen]
    _write_record(ensemble, chosen, weights, curves, out / RECORD)
    return path


def _copy(source: Path, target: Path) -> str:
    """Copies a file and returns its SHA-256."""
    content = source.read_bytes()
    write_bytes(content, target)
    return hashlib.sha256(content).hexdigest()


def _above(boxes: pd.DataFrame) -> pd.DataFrame:
    return boxes[boxes["confidence"] > FUSION_CONFIDENCE]


def _lift(boxes: pd.DataFrame) -> pd.DataFrame:
    """Probabilities laid from 0..1 into `LEAST`..1."""
    return boxes.assign(confidence=LEAST + (1 - LEAST) * boxes["confidence"])


def _earlier_weights(out: Path) -> list[str]:
    """The files of weights that the record of an earlier ensemble in this folder names; bare names alone.

    Raises BadData for a record that is not as `_write_record` writes it: which files are ours cannot be said then.
    """
    path = out / RECORD
    if not path.exists():
        return []
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = [str(name) for member in content["members"] for name in member["weights"]]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise BadData(f"{path}: expected the record of an earlier ensemble, found something else ({error!r}); give "
                      "another --out, or delete it") from error
    return [name for name in names if re.fullmatch(r"weights(_\d+)?\.safetensors", name)]


def _make_member(run: Run, folds: Sequence[int], names: Sequence[str]) -> Member:
    final = read_final(run) if images_to_answer(run)[1] == "test" else None
    methods, tuned, choice = try_methods(run, folds, names, averaged=bool(final))
    of_method = tuned[choice.method].held_out if choice.method in tuned else choice.held_out
    return Member(name_of(run), run, chosen_inference(choice, tuned, folds, final), choice.held_out, of_method,
                  float(methods.loc[choice.method, "seconds"]))


def name_of(run: Run) -> str:
    """A workspace in words: its family and folder."""
    return f"{run.profile.family} in {run.workspace.root}"


def _megabytes(members: Sequence[Member]) -> float:
    return sum(path.stat().st_size for member in members for path in member.weights) / 1e6


def _check_same(runs: Sequence[Run]) -> None:
    """Raises BadData that says in what two workspaces differ: their out-of-fold boxes would be of other images."""
    if len(runs) > MOST_MEMBERS:
        raise BadData(f"workspaces: expected at most {MOST_MEMBERS}, found {len(runs)}: their subsets would take "
                      "hours; leave out the weakest")
    if len({run.workspace.root.resolve() for run in runs}) < max(len(runs), 2):
        raise BadData(f"workspaces: expected at least two, each named once, found {[name_of(run) for run in runs]}")
    first, *others = runs
    for other in others:
        for what, ours, theirs in (("competition", first.competition, other.competition),
                                   ("seed", first.seed, other.seed),
                                   *zip(("images and folds", "labels", "images to answer"), _content(first),
                                        _content(other), strict=True)):
            if ours != theirs:
                raise BadData(f"{name_of(other)}: expected the {what} of {name_of(first)}, found others; run both on "
                              "the same data with the same --seed")


def _content(run: Run) -> list[Any]:
    images, boxes = read_tables(run)
    to_answer, _ = images_to_answer(run)
    return [table[columns].sort_values(columns).to_csv(index=False) for table, columns in (
        (images, ["image_id", "width", "height", "group", "fold"]),
        (boxes, ["image_id", "label", "x_min", "y_min", "x_max", "y_max"]),
        (to_answer, ["image_id", "width", "height"]))]


def _write_record(
    ensemble: Ensemble, chosen: Sequence[Member], weights: Sequence[dict[str, str]], curves: Sequence[Calibration],
    path: Path,
) -> None:
    """Everything that the answer was made with: each member's models, method and curve, and how they were fused."""
    choice, members = ensemble.choice, []
    for number, member in enumerate(chosen):
        curve = curves[number].curves if curves else {}
        members.append({
            "workspace": str(member.run.workspace.root.resolve()), "family": member.run.profile.family,
            "imgsz": member.run.profile.imgsz, "method": member.inference.method,
            "passes": list(member.inference.passes), "folds": list(member.inference.folds),
            "final": member.inference.final,
            "points": {label or "every class": dict(point) for label, point in member.inference.points.items()},
            "calibration": {label or "other classes": {"confidence": known.tolist(), "share": share.tolist()}
                            for label, (known, share) in curve.items()},
            "weights": weights[number]})
    header = (f"# out of fold, mAP {choice.score:.4f}, 95 % interval over groups {choice.low:.4f} to "
              f"{choice.high:.4f},\n# with tuning and the choice inside the cross-validation\n")
    fusion = ensemble.fused.get(choice.method)
    points = dict(fusion.tuned.points[EVERY_CLASS]) if fusion else {}
    content = {"method": choice.method, "reason": choice.reason, "points": points, "members": members}
    write_text(header + yaml.safe_dump(content, sort_keys=False), path)
