"""From candidates to `answer.csv`: methods tried out of fold, the files to submit, and where the answer came from."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from ..config import Competition
from ..evaluation import describe_missing_classes
from ..files.hashing import fingerprint
from ..files.progress import progress
from ..files.write import write_bytes, write_text
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
from .predict import VIEWS, predict_boxes, predict_oof, read_oof, seconds_an_image
from .prepare import TRUTH_NAME, VALID_FOLD, read_images, read_tables
from .run import Run
from .store import read_records, run_step
from .train import weights_of

SUBMITTED = "submitted weights"  # the step that copies them
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
    if averaged:
        names = [name for name in names if not any(VIEWS[look].averaged for look in METHODS[name].passes)]
    images, truth = read_oof(run, folds)
    parts = split_parts(images, np.random.default_rng(run.seed))
    wanted = {"plain"}.union(*(METHODS[name].passes for name in names))
    candidates = {look: predict_oof(run, look, folds, averaged=averaged) for look in VIEWS if look in wanted}
    tuned, costs = {}, {}
    for name in progress(names, "methods", unit="method"):
        method = METHODS[name]
        members = [candidates[look] for look in method.passes]
        tuned[name] = tune_method(method, members, truth, images, parts, run.competition.metric_iou)
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


def apply_original(candidates: pd.DataFrame) -> pd.DataFrame:
    """What the original's fixed thresholds keep; not tuned here, so all of it is held out."""
    return suppress(candidates, **ORIGINAL_POINT)


def _megabytes(run: Run, passes: Sequence[str], fold: int) -> float:
    files = {weights_of(run, fold, averaged=VIEWS[name].averaged) for name in passes}
    return sum(path.stat().st_size for path in files) / 1e6


def copy_weights(run: Run, inference: Inference) -> list[Path]:
    """The files to submit, which inference then loads: `weights.pt`, and `weights_1.pt` and so on for more folds.

    Of an earlier answer's files those go that are no longer submitted; a file that this run did not write stays.
    """
    sources, first, root = source_weights(run, inference), run.workspace.weights_path, run.workspace.root
    targets = [first.with_stem(f"{first.stem}_{number}") if number else first for number in range(len(sources))]
    before = read_records(root).get(SUBMITTED)

    def action() -> None:
        for source, target in zip(sources, targets, strict=True):
            write_bytes(source.read_bytes(), target)

    run_step(SUBMITTED, action, inputs=sources, outputs=targets, settings={}, workspace=root, by="08_inference")
    for place, content in (before.outputs if before else {}).items():
        old = root / place
        if old not in targets and old.exists() and fingerprint(old) == content:
            old.unlink()
    return targets


def source_weights(run: Run, inference: Inference) -> list[Path]:
    """The files of the trainings that answer."""
    if inference.final:
        return [run.workspace.root / inference.final]
    averaged = VIEWS[inference.passes[0]].averaged
    return [weights_of(run, fold, averaged=averaged) for fold in inference.folds]


def submitted_weights(run: Run) -> list[Path]:
    """The files that `copy_weights` left."""
    record = read_records(run.workspace.root).get(SUBMITTED)
    return [run.workspace.root / place for place in (record.outputs if record else {})]


def find_answer(
    run: Run, inference: Inference, images: pd.DataFrame, part: str, weights: Sequence[Path]
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """The boxes to submit for the images to answer, and the candidates they are made of, a table a pass and file.

    Raises ValueError if a model would answer for the validation fold that was trained on it.
    """
    if part == "valid" and inference.final:
        raise ValueError(f"{inference.final}: there is no test set, so fold {VALID_FOLD} is answered, and this model "
                         "was trained on it; take the fold's own model")
    if part == "valid" and tuple(inference.folds) != (VALID_FOLD,):
        raise ValueError(f"folds: there is no test set, so fold {VALID_FOLD} is answered, which only the model of fold "
                         f"{VALID_FOLD} was not trained on; found {list(inference.folds)}")
    members = [predict_boxes(run, images, path, name) for name in inference.passes for path in weights]
    return apply(inference.kind, members, images, inference.points), members


def write_inference(run: Run, inference: Inference, weights: Sequence[Path], scores: pd.Series) -> Path:
    """Writes `inference.yaml` to the workspace: what made the answer, and its out-of-fold score in the comments."""
    path = run.workspace.root / "inference.yaml"
    header = [f"out of fold, mAP at IoU {run.competition.metric_iou:g}: {scores['mAP']:.4f}, 95 % interval over groups "
              f"{scores['low']:.4f} to {scores['high']:.4f}, of one fold's model for each image, "
              "with tuning and the choice of a method inside the cross-validation",
              f"written {datetime.now(UTC).date()}, seed {run.seed}"]
    content = {
        "method": inference.method,
        "kind": inference.kind,
        "passes": {name: vars(VIEWS[name]) for name in inference.passes},
        "points": {label or "every class": dict(point) for label, point in inference.points.items()},
        "imgsz": run.profile.imgsz,
        "folds": [] if inference.final else list(inference.folds),
        "final": inference.final,
        "weights": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in weights},
    }
    write_text("".join(f"# {line}\n" for line in header) + yaml.safe_dump(content, sort_keys=False), path)
    return path


def images_to_answer(run: Run) -> tuple[pd.DataFrame, str]:
    """The test images, or where the data has none the validation fold, and which of the two: `test` or `valid`."""
    test_images = read_images(run, "test_images")
    if len(test_images):
        return test_images, "test"
    images = read_images(run, "folds")
    return images[images["fold"] == VALID_FOLD], "valid"


def competition_for(run: Run, images: pd.DataFrame, part: str) -> Competition:
    """What the answer for these images must be like: as the competition asks.

    Where there is no test set the answer for the validation fold is nobody's submission: if two of its images have one
    name there, images are called by their path.
    """
    from ..data.submission import answer_names

    if part == "test":
        return run.competition
    try:
        answer_names(images, run.competition.answer_name)
    except ValueError:
        return replace(run.competition, answer_name="path")
    return run.competition


def score_known_truth(run: Run, part: str) -> pd.DataFrame | None:
    """Scores of `answer.csv` by IoU and scorer, with each class's AP; None where the truth is not known.

    For `test` the truth is `truth_test.csv` in the data folder, for `valid` the human boxes of the validation fold.
    """
    from ..data.submission import from_rows, read_answer, read_truth, to_rows
    from ..evaluation import evaluate, evaluate_as_competition

    if part == "valid":
        images, _ = images_to_answer(run)
        boxes = pd.read_parquet(run.workspace.interim_dir / "boxes.parquet")
        naming = competition_for(run, images, part).answer_name
        truth = from_rows(to_rows(boxes[boxes["image_id"].isin(images["image_id"])], images, answer_name=naming))
    elif (run.data_dir / TRUTH_NAME).exists():
        truth = read_truth(run.data_dir / TRUTH_NAME)
    else:
        return None
    answer, rows = read_answer(run.workspace.answer_path), []
    for iou in sorted({run.competition.metric_iou, 0.5}, reverse=True):
        for scorer, score in (("competition", evaluate_as_competition), ("usual", evaluate)):
            result = score(truth, answer, iou)
            rows.append({"scorer": scorer, "IoU": iou, "mAP": result.mean, **result.per_class["ap"]})
    return pd.DataFrame(rows)


def describe_estimate(run: Run, choice: Choice, folds: Sequence[int]) -> str:
    """The out-of-fold score of what is chosen in words, with what makes it less than it looks: a line each."""
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


WIDE = 0.3  # an interval in which most answers would lie
BELOW = ("other cameras, light or sizes of animals than in the folds",
         "settings that were chosen on the same fold: the epoch, hyper-parameters, labels",
         "frames of one camera in training and in the fold, though not near-duplicates",
         "labels missing in training but not in the test images: the model has learned to leave animals out")
ABOVE = ("labels missing in the folds but not in the test images: out of fold, boxes on animals that nobody labelled "
         "count as wrong",
         "a final model that was trained on more images than those of the folds",
         "easier images than those of the folds")


def compare_with_estimate(run: Run, scores: pd.DataFrame, part: str, estimate: pd.Series) -> str:
    """In words, whether the score of the answer lies inside the interval of the out-of-fold estimate.

    `scores` of `score_known_truth`; `estimate` with `mAP, low, high`, as `postprocess.Choice.scores`. The usual score
    is compared, which the estimate is too. Outside the interval possible causes are listed.
    """
    iou, known = run.competition.metric_iou, scores.columns.drop(["scorer", "IoU", "mAP"])
    found = scores.loc[(scores["scorer"] == "usual") & (scores["IoU"] == iou), "mAP"].iloc[0]
    missing = describe_missing_classes(run.competition.labels, pd.DataFrame({"label": known}))
    place = "below" if found < estimate["low"] else "above" if found > estimate["high"] else "inside"
    text = (f"{part} mAP at IoU {iou:g} is {found:.4f}, {place} the 95 % interval of the out-of-fold estimate "
            f"{estimate['mAP']:.4f}, {estimate['low']:.4f} to {estimate['high']:.4f}")
    if estimate["high"] - estimate["low"] > WIDE:
        text += ", which is wide: few groups judge"
    if part == "valid":
        text += " (no comparison: these images are among those that the estimate is made on)"
    elif place != "inside":
        worse = "worse" if place == "below" else "better"
        causes = "; ".join(BELOW if place == "below" else ABOVE)
        text += f": the answer is {worse} than the folds let one expect. Possible causes: {causes}"
    return text + (f"; {missing}" if missing else "")
