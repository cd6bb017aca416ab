"""From candidates to `answer.csv`: methods tried out of fold, the files to submit, and where the answer came from."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from tqdm.auto import tqdm

from ..metrics import draw_group_counts
from ..postprocess import (
    METHODS,
    Point,
    TunedMethod,
    apply,
    compare,
    describe_points,
    split_parts,
    suppress,
    tune_method,
)
from ..steps import write_bytes, write_text
from .data import TRUTH_NAME, VALID_FOLD, Run
from .passes import PASSES, find_candidates, find_oof, oof_images, seconds_an_image
from .training import weights_of

N_RESAMPLES = 1000
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
        """Names of `PASSES`."""
        return METHODS[self.method].passes if self.method in METHODS else ("plain",)


def try_methods(
    run: Run, folds: Sequence[int], names: Sequence[str] = tuple(METHODS), *, n_models: int = 1, averaged: bool = False
) -> tuple[pd.DataFrame, dict[str, TunedMethod]]:
    """Each method tuned by cross-validation over the out-of-fold images and compared with the first.

    One row a method: the columns of `postprocess.compare`, `seconds` an image, `MB` of the weights that it loads for
    `n_models` folds, whether they stay within the limit (`fits`), and its parameters in words (`point`). The original's
    fixed thresholds come second. Intervals are over groups of near-duplicate frames. The other result holds what was
    tuned. `averaged`: all of it with averaged weights, as those of `07_final` are.
    """
    if averaged:
        names = [name for name in names if not any(PASSES[look].averaged for look in METHODS[name].passes)]
    images, truth = oof_images(run, folds)
    parts = split_parts(images, np.random.default_rng(run.seed))
    wanted = {"plain"}.union(*(METHODS[name].passes for name in names))
    candidates = {look: find_oof(run, look, folds, averaged=averaged) for look in PASSES if look in wanted}
    tuned, costs = {}, {}
    for name in tqdm(names, desc="methods", unit="method"):
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
    answers = {first: tuned[first].held_out,
               ORIGINAL: apply_original(candidates["plain"]),
               **{name: tuned[name].held_out for name in others}}
    counts = draw_group_counts(np.random.default_rng(run.seed), images["group"].to_numpy(), N_RESAMPLES)
    table = compare(truth, answers, pd.Index(images["image_id"]), run.competition.metric_iou, counts)
    table = table.join(pd.DataFrame.from_dict(costs, orient="index"))
    return table.assign(fits=table["MB"] * 1e6 <= run.competition.weight_limit_bytes), tuned


def apply_original(candidates: pd.DataFrame) -> pd.DataFrame:
    """What the original's fixed thresholds keep; not tuned here, so all of it is held out."""
    return suppress(candidates, **ORIGINAL_POINT)


def _megabytes(run: Run, passes: Sequence[str], fold: int) -> float:
    files = {weights_of(run, fold, averaged=PASSES[name].averaged) for name in passes}
    return sum(path.stat().st_size for path in files) / 1e6


def copy_weights(run: Run, inference: Inference) -> list[Path]:
    """The files to submit, which inference then loads: `weights.pt`, and `weights_1.pt` and so on for more folds."""
    averaged = PASSES[inference.passes[0]].averaged
    for old in submitted_weights(run):
        old.unlink()
    sources = [weights_of(run, fold, averaged=averaged) for fold in inference.folds]
    if inference.final:
        sources = [run.workspace.root / inference.final]
    first = run.workspace.weights_path
    targets = [first.with_stem(f"{first.stem}_{number}") if number else first for number in range(len(sources))]
    for source, target in zip(sources, targets, strict=True):
        write_bytes(source.read_bytes(), target)
    return targets


def submitted_weights(run: Run) -> list[Path]:
    """The files that `copy_weights` left."""
    first = run.workspace.weights_path
    return [path for path in [first, *sorted(first.parent.glob(f"{first.stem}_*{first.suffix}"))] if path.exists()]


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
    members = [find_candidates(run, images, path, name, f"{name}_{part}{number or ''}")
               for name in inference.passes for number, path in enumerate(weights)]
    return apply(inference.kind, members, images, inference.points), members


def write_inference(run: Run, inference: Inference, weights: Sequence[Path], scores: pd.Series) -> Path:
    """Writes `inference.yaml` to the workspace: what made the answer, and its out-of-fold score in the comments."""
    path = run.workspace.root / "inference.yaml"
    header = [f"out of fold, mAP at IoU {run.competition.metric_iou:g}: {scores['mAP']:.4f}, 95 % interval over groups "
              f"{scores['low']:.4f} to {scores['high']:.4f}, of one fold's model for each image",
              f"written {datetime.now(UTC).date()}, seed {run.seed}"]
    content = {
        "method": inference.method,
        "kind": inference.kind,
        "passes": {name: vars(PASSES[name]) for name in inference.passes},
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
    test_images = pd.read_parquet(run.workspace.interim_dir / "test_images.parquet")
    if len(test_images):
        return test_images, "test"
    images = pd.read_parquet(run.workspace.interim_dir / "folds.parquet")
    return images[images["fold"] == VALID_FOLD], "valid"


def score_known_truth(run: Run, part: str) -> pd.DataFrame | None:
    """Scores of `answer.csv` by IoU and scorer, with each class's AP; None where the truth is not known.

    For `test` the truth is `truth_test.csv` in the data folder, for `valid` the human boxes of the validation fold.
    """
    from ..metrics import competition_map, usual_map
    from ..submission import from_rows, read_answer, read_truth, to_rows

    if part == "valid":
        images, _ = images_to_answer(run)
        boxes = pd.read_parquet(run.workspace.interim_dir / "boxes.parquet")
        truth = from_rows(to_rows(boxes[boxes["image_id"].isin(images["image_id"])], images))
    elif (run.data_dir / TRUTH_NAME).exists():
        truth = read_truth(run.data_dir / TRUTH_NAME)
    else:
        return None
    answer, rows = read_answer(run.workspace.answer_path), []
    for iou in sorted({run.competition.metric_iou, 0.5}, reverse=True):
        for scorer, score in (("competition", competition_map), ("usual", usual_map)):
            result = score(truth, answer, iou)
            rows.append({"scorer": scorer, "IoU": iou, "mAP": result.mean, **result.per_class["ap"]})
    return pd.DataFrame(rows)
