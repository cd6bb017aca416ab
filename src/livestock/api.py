"""From a folder to `answer.csv` in a few calls from Python, each a stage of the pipeline that the notebooks run too.

Everything is kept in the run's workspace: a call that was made before with the same inputs is answered from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .pipeline.answer import images_to_answer, score_known_truth
from .pipeline.final import read_final
from .pipeline.predict import predict_boxes, predict_oof, trained_folds
from .pipeline.preflight import check_training
from .pipeline.prepare import read_data, split_data
from .pipeline.run import Run, choose_hyp
from .pipeline.select import Inference, try_methods
from .pipeline.shared import share_folds
from .pipeline.submit import check_submission, chosen_inference, submit
from .pipeline.train import train_fold, weights_of, write_dataset


@dataclass(frozen=True)
class Tuned:
    """How candidates become boxes, chosen out of fold, and how good that is.

    `table` has a row a method (`mAP, low, high, gain, p, ...`), `scores` are `mAP, low, high` of what was chosen with
    the choice itself cross-validated, and `held_out` are its boxes in images that the models have not seen.
    """

    inference: Inference
    scores: pd.Series
    reason: str
    table: pd.DataFrame
    held_out: pd.DataFrame


def train(run: Run, folds: Sequence[int] = (), *, storage: str = "") -> list[Path]:
    """Trains without each of these folds in turn, by default the run's; returns the weights, a file a fold.

    Machines that give the same `storage`, a database's URL, and a workspace that all of them read and write, share the
    folds: each is trained once. Reads and splits the data first. Raises NotReadyError that lists what is wrong with
    weights and hyper-parameters, and ValueError for a fold that failed on another machine.
    """
    hyp, folds = str(choose_hyp(run)), folds or run.folds
    check_training(run, hyp)
    boxes, images = read_data(run).boxes, split_data(run).images
    if storage:
        share_folds(run, storage, folds, hyp)
    for fold in folds:  # of what was shared there is nothing left to do, unless a file was deleted since
        train_fold(run, write_dataset(run, images, boxes, fold), fold, hyp=hyp)
    return [weights_of(run, fold) for fold in folds]


def predict(run: Run, images: pd.DataFrame | None = None, weights: Path | None = None) -> pd.DataFrame:
    """Every box before suppression in `images` by `weights`: a boxes table in pixels of each image.

    Without images it is out of fold: each trained fold's model in the images that it has not seen. Without weights it
    is the model of the first trained fold. Raises MissingResult before any training.
    """
    folds = trained_folds(run)
    if images is None:
        return predict_oof(run, "plain", folds)
    return predict_boxes(run, images, weights or weights_of(run, folds[0]), "plain")


def tune(run: Run) -> Tuned:
    """Chooses how candidates become boxes (suppression, fusion, views, thresholds) on images out of fold.

    The model of `07_final` answers where there is one and the data has a test set, else the first trained fold's.
    """
    folds = trained_folds(run)
    final = read_final(run) if images_to_answer(run)[1] == "test" else None
    table, tuned, choice = try_methods(run, folds, averaged=bool(final))
    inference = chosen_inference(choice, tuned, folds, final)
    return Tuned(inference, choice.scores, choice.reason, table, choice.held_out)


def write_answer(run: Run, tuned: Tuned) -> Path:
    """Writes `answer.csv`, `weights.safetensors` and `inference.yaml` into the workspace; see `submit`.

    Returns the first.
    """
    return submit(run, tuned.inference, tuned.scores)


def check_answer(run: Run, tuned: Tuned) -> list[str]:
    """What is wrong with the answer and the weights to submit, in words; an empty list if nothing is."""
    return check_submission(run, tuned.inference)


def score(run: Run) -> pd.DataFrame | None:
    """The answer's mAP and each class's AP, a row an IoU and scorer; None where the truth is not known."""
    return score_known_truth(run, images_to_answer(run)[1])


def run_all(*, workspace: str | Path = "data", skip: Sequence[str] = (), **told: Any) -> dict[str, Any]:
    """Runs every notebook in order, as the command `livestock run` does; `told` as `make_run` takes it.

    Returns what `runs/PROFILE/result.json` holds: scores, answer, weights, seconds a notebook.
    """
    from .pipeline import notebooks

    parameters = {"WORKSPACE": str(workspace), **{name.upper(): value for name, value in told.items()}}
    return notebooks.run_all(parameters, skip=skip)
