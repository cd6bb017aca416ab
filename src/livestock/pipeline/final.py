"""The final model: the chosen recipe on every image, and the file that inference takes it from."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..evaluation import mean_interval
from ..exceptions import StaleResult
from ..files.write import write_json
from .prepare import VALID_FOLD
from .run import Run
from .silver import images_to_train, read_labels, silver_files, teacher_training
from .store import require_fresh, run_step
from .students import evaluate_training, train_student
from .train import HUMAN, Training, choose_watched, read_training, train_as_fold, weights_named, write_lists

FINAL = "final.json"


def train_full(run: Run, strategy: str) -> Training:
    """Trains on every image with these labels.

    Nothing is left to choose an epoch on, so the weights are the mean of the last ones, and no best epoch is kept.
    """
    boxes, hidden = read_labels(run, strategy)
    images = images_to_train(run, strategy)
    training = Training("full", seed=run.seed, labels=strategy)
    train_ids = images["image_id"]
    data_yaml = write_lists(run, training.name, images, boxes, train_ids, choose_watched(run, images), hidden)
    train_as_fold(run, training, data_yaml, selects=False, tables=silver_files(run, strategy))
    return training


def record_final(run: Run, training: Training) -> Path:
    """Writes `interim/final.json`: which training answers, with which labels, chosen by what, trained on how much."""
    record, path = read_training(run, training), run.workspace.interim_dir / FINAL
    boxes, hidden = read_labels(run, training.labels)
    weights = weights_named(run, training, averaged=True)
    content = {
        "name": training.name,
        "weights": weights.relative_to(run.workspace.root).as_posix(),
        "chosen_by": "mean of the last epochs: no image was left to choose one on",
        "labels": training.labels,
        "boxes": {source: int(n) for source, n in boxes["source"].value_counts().items()},
        "hidden": len(hidden),
        "images": record.notes["images"],
        "imgsz": record.settings["imgsz"],
    }
    run_step("final", lambda: write_json(content, path), inputs=[weights], outputs=[path], settings=content,
             workspace=run.workspace.root, by="07_final")
    return path


def read_final(run: Run) -> dict[str, Any] | None:
    """The final model as `record_final` left it; None where `07_final` has not run.

    Raises StaleResult if its weights are others, if what they were trained on has changed since, or if this run's
    images are of another size.
    """
    path = run.workspace.interim_dir / FINAL
    if not path.exists():
        return None
    require_fresh(run.workspace.root, path, "07_final")
    final = json.loads(path.read_text(encoding="utf-8"))
    if final["imgsz"] != run.profile.imgsz:
        raise StaleResult(f"{path}: its model was trained at {final['imgsz']} px, this profile has "
                          f"{run.profile.imgsz}; run 07_final again, or delete it")
    return final


def learning_curve(run: Run, students: pd.DataFrame, n_teachers: int) -> pd.DataFrame:
    """What more images bring with human labels: a row a training, `model`, `images` and `mAP` on the
    validation fold.

    The teachers saw a part of the training folds, the students of `06_silver` all of them; what the validation fold
    would add is where the line leads.
    """
    teachers = [{"model": "teachers", "images": read_training(run, training).notes["images"],
                 "mAP": evaluate_training(run, training)["ap"].mean()}
                for training in (teacher_training(run, number) for number in range(n_teachers))]
    own = students[students["strategy"] == HUMAN].groupby("seed")["ap"].mean()
    n_images = read_training(run, Training("fold", VALID_FOLD)).notes["images"]
    return pd.DataFrame([*teachers, *({"model": "students", "images": n_images, "mAP": value} for value in own)])


def compare_recipes(run: Run, students: pd.DataFrame, full: Sequence[str]) -> pd.DataFrame:
    """A table like the original's: with and without silver labels, trained on the split and on everything.

    A row a recipe: `images`, `boxes` and `silver` ones it was trained on, mAP on the `validation` fold, its mean over
    seeds with the interval from `low` to `high`; NaN for what was trained on everything, which nothing here can judge.
    Usual mAP at the competition's IoU, suppression as it comes. `full` are strategies. The truth of test images is not
    looked at: `08_inference` does that, once.
    """
    rows = []
    for strategy, own in students.groupby("strategy", sort=False):
        training = train_student(run, str(strategy), run.seed)
        mean, low, high = mean_interval(own.groupby("seed")["ap"].mean().to_numpy())
        rows.append({"trained on": "split", **_describe(run, training), "validation": mean, "low": low,
                     "high": high})
    for strategy in full:
        training = train_full(run, strategy)
        rows.append({"trained on": "everything", **_describe(run, training), "validation": math.nan,
                     "low": math.nan, "high": math.nan})
    return pd.DataFrame(rows)


def _describe(run: Run, training: Training) -> dict[str, Any]:
    images = images_to_train(run, training.labels)
    boxes, _ = read_labels(run, training.labels)
    if training.role != "full":
        boxes = boxes[~boxes["image_id"].isin(images.loc[images["fold"] == VALID_FOLD, "image_id"])]
    return {"labels": training.labels, "images": read_training(run, training).notes["images"], "boxes": len(boxes),
            "silver": int((boxes["source"] == "silver").sum())}
