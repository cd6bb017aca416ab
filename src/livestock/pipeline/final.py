"""The final model: the chosen recipe on every image, its weights, and the manifest that inference takes it from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ..evaluation import mean_interval
from .data import VALID_FOLD, Run
from .manifest import manifest_path, read_manifest, record
from .silver import HUMAN, images_to_train, read_labels
from .students import judge, train_student
from .training import check_basis, read_training, train_as_fold, training_basis, weights_named, write_lists

N_WATCHED = 8  # images that stand in for a validation list, which yolov5 asks for; they are trained on too


def train_full(run: Run, strategy: str) -> str:
    """Trains on every image with these labels; returns the training's name (see `weights_named`).

    Nothing is left to choose an epoch on, so the weights are the mean of the last ones, and no best epoch is kept.
    """
    boxes, hidden = read_labels(run, strategy)
    images, name = images_to_train(run, strategy), f"full_{'human' if strategy == HUMAN else strategy}"
    train_ids = images["image_id"]
    data_yaml = write_lists(run, name, images, boxes, train_ids, train_ids[:N_WATCHED], hidden)
    train_as_fold(run, name, data_yaml, run.seed, selects=False)
    return name


def record_final(run: Run, name: str, strategy: str) -> Path:
    """Writes the final model into the manifest: what it is, what made it, what it was trained on."""
    from ..data.dataset import hash_lists

    training, weights = read_training(run, name), weights_named(run, name, averaged=True)
    boxes, hidden = read_labels(run, strategy)
    content = {
        "name": name,
        "weights": weights.relative_to(run.workspace.root).as_posix(),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "chosen_by": "mean of the last epochs: no image was left to choose one on",
        "labels": strategy,
        "boxes": {source: int(n) for source, n in boxes["source"].value_counts().items()},
        "hidden": len(hidden),
        "images": training["images"],
        "data_hash": hash_lists(Path(training["config"]["data_yaml"])),
        "hyp": yaml.safe_load(Path(training["config"]["hyp"]).read_text(encoding="utf-8")),
        "training": training["config"],
        "basis": training_basis(run),
    }
    return record(run.workspace, "final", content)


def read_final(run: Run) -> dict[str, Any] | None:
    """The final model as `record_final` left it; None where `07_final` has not run.

    Raises ValueError if its weights are not those, or if the split, the human labels or the training in 04 that it took
    its settings from have changed since.
    """
    path, final = manifest_path(run.workspace), read_manifest(run.workspace).get("final")
    if final is None:
        return None
    weights = run.workspace.root / final["weights"]
    if not weights.exists() or hashlib.sha256(weights.read_bytes()).hexdigest() != final["sha256"]:
        raise ValueError(f"{path}: expected its model in {weights}, found {'another' if weights.exists() else 'none'}; "
                         "run 07_final again")
    check_basis(run, final["basis"], path, "07_final")
    if final["training"]["imgsz"] != run.profile.imgsz:
        raise ValueError(f"{path}: its model was trained at {final['training']['imgsz']} px, this profile has "
                         f"{run.profile.imgsz}; run 07_final again, or delete it")
    return final


def learning_curve(run: Run, students: pd.DataFrame, n_teachers: int) -> pd.DataFrame:
    """What more images bring with human labels: a row a training, `model`, `images` and `mAP` on the
    validation fold.

    The teachers saw a part of the training folds, the students of `06_silver` all of them; what the validation fold
    would add is where the line leads.
    """
    teachers = [{"model": "teachers", "images": read_training(run, name)["images"],
                 "mAP": judge(run, name)["ap"].mean()}
                for name in (f"teacher{number}" for number in range(n_teachers))]
    own = students[students["strategy"] == HUMAN].groupby("seed")["ap"].mean()
    n_images = read_training(run, f"fold{VALID_FOLD}")["images"]
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
        name = train_student(run, str(strategy), run.seed)
        mean, low, high = mean_interval(own.groupby("seed")["ap"].mean().to_numpy())
        rows.append({"trained on": "split", **_describe(run, name, str(strategy)), "validation": mean, "low": low,
                     "high": high})
    for strategy in full:
        name = train_full(run, strategy)
        rows.append({"trained on": "everything", **_describe(run, name, strategy), "validation": math.nan,
                     "low": math.nan, "high": math.nan})
    return pd.DataFrame(rows)


def _describe(run: Run, name: str, strategy: str) -> dict[str, Any]:
    images = images_to_train(run, strategy)
    boxes, _ = read_labels(run, strategy)
    if not name.startswith("full"):
        boxes = boxes[~boxes["image_id"].isin(images.loc[images["fold"] == VALID_FOLD, "image_id"])]
    return {"labels": strategy, "images": read_training(run, name)["images"], "boxes": len(boxes),
            "silver": int((boxes["source"] == "silver").sum())}
