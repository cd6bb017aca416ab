"""From the chosen method to files: weights to submit, boxes for the images to answer, their score where it is known."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import yaml

from ..config import Competition
from ..evaluation import describe_missing_classes
from ..files.hashing import fingerprint
from ..files.write import write_bytes, write_text
from ..postprocess import apply
from .predict import VIEWS, predict_boxes
from .prepare import TRUTH_NAME, VALID_FOLD, read_images
from .run import Run
from .select import Inference
from .store import read_records, run_step
from .train import weights_of

logger = logging.getLogger(__name__)
SUBMITTED = "submitted weights"  # the step that copies them


def copy_weights(run: Run, inference: Inference) -> list[Path]:
    """The files to submit, which inference then loads: `weights.safetensors`, and `weights_1.safetensors` for a second.

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
) -> pd.DataFrame:
    """The boxes to submit for the images to answer, by the chosen method from the candidates of each pass and file.

    Raises ValueError if a model would answer for the validation fold that was trained on it.
    """
    if part == "valid" and inference.final:
        raise ValueError(f"{inference.final}: there is no test set, so fold {VALID_FOLD} is answered, and this model "
                         "was trained on it; take the fold's own model")
    if part == "valid" and tuple(inference.folds) != (VALID_FOLD,):
        raise ValueError(f"folds: there is no test set, so fold {VALID_FOLD} is answered, which only the model of fold "
                         f"{VALID_FOLD} was not trained on; found {list(inference.folds)}")
    members = [predict_boxes(run, images, path, name) for name in inference.passes for path in weights]
    return apply(inference.kind, members, images, inference.points)


def find_boxless(images: pd.DataFrame, boxes: pd.DataFrame) -> list[str]:
    """The ids of images in which the method leaves no box, which so have no row in the answer; says how many there are.

    A tuned confidence may leave some without one, and so does fusion where only one of several passes sees something.
    """
    boxless = sorted(set(images["image_id"]) - set(boxes["image_id"]))
    if boxless:
        logger.warning("answer: %d of %d images have no box: %s", len(boxless), len(images),
                       ", ".join(boxless[:5]) + ", ..." * (len(boxless) > 5))
    return boxless


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
