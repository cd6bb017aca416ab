"""The data set at training size and the training of a fold; the detector, and torch, are imported when called."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from ..config import REPOSITORY
from ..steps import fingerprint, run_step, write_json
from .data import Run


def write_dataset(run: Run, images: pd.DataFrame, boxes: pd.DataFrame, fold: int = 0) -> Path:
    """The YOLO data set of all folds and the lists of one; returns the `data.yaml` that trains without `fold`."""
    from .. import yolo_dataset

    directory = yolo_dataset.dataset_dir(images, run.profile.imgsz, run.workspace.yolo_dir)
    data_yaml = directory / f"fold{fold}.yaml"

    def action() -> None:
        yolo_dataset.write_images(images, directory, run.profile.imgsz)
        yolo_dataset.write_labels(images, boxes, run.competition.labels, directory)
        is_valid = images["fold"] == fold
        train_ids, valid_ids = images.loc[~is_valid, "image_id"], images.loc[is_valid, "image_id"]
        yolo_dataset.write_lists(directory, f"fold{fold}", train_ids, valid_ids, run.competition.labels)

    run_step(
        f"dataset_fold{fold}",
        action,
        inputs=[run.workspace.interim_dir / name for name in ("images.parquet", "boxes.parquet", "folds.parquet")],
        outputs=[data_yaml, directory / f"fold{fold}_train.txt", directory / f"fold{fold}_valid.txt"],
        settings={"imgsz": run.profile.imgsz, "labels": run.competition.labels},
        workspace=run.workspace.root,
    )
    return data_yaml


def train_fold(run: Run, data_yaml: Path, fold: int = 0, hyp: str = "") -> Path:
    """Trains on all folds but one; returns the training's folder and writes weights as `weights_of` names them.

    `hyp` is a file of hyper-parameters, such as the search's `evolved.yaml`; without one it is the profile's.
    """
    from .. import detector

    weights = detector.find_weights(run.profile.weights, run.workspace.weights_dir)
    config = detector.TrainConfig(
        data_yaml=str(data_yaml.resolve()),
        weights=str(weights.resolve()),
        hyp=str(hyp_path(run, hyp).resolve()),
        imgsz=run.profile.imgsz,
        batch=run.profile.batch,
        epochs=run.profile.epochs,
        optimizer=run.profile.optimizer,
        cos_lr=run.profile.cos_lr,
        nominal_batch=run.profile.nominal_batch,
        device=run.profile.device,
        workers=run.profile.workers,
        seed=run.seed,
    )
    inputs = [data_yaml, data_yaml.with_name(f"fold{fold}_train.txt"), run.workspace.interim_dir / "boxes.parquet",
              Path(config.weights), Path(config.hyp)]
    content = json.dumps(asdict(config)) + "".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in inputs)
    key = hashlib.sha256(content.encode()).hexdigest()[:6]  # another config never resumes this one's checkpoint
    run_dir = run.workspace.runs_dir / f"train_fold{fold}_{key}"

    best, averaged = weights_of(run, fold), weights_of(run, fold, averaged=True)
    record = run.workspace.interim_dir / f"training_fold{fold}.json"

    def action() -> None:
        detector.train(config, run_dir)
        detector.write_weights(run_dir / "weights/best.pt", best)
        detector.write_weights(run_dir / "weights/averaged.pt", averaged)
        split = fingerprint(run.workspace.interim_dir / "folds.parquet")
        write_json({"run_dir": str(run_dir), "split": split, **asdict(config)}, record)

    run_step(
        f"train_fold{fold}",
        action,
        inputs=inputs,
        outputs=[run_dir / "results.csv", best, averaged, record],
        settings=asdict(config),
        workspace=run.workspace.root,
    )
    return run_dir


def weights_of(run: Run, fold: int, *, averaged: bool = False) -> Path:
    """The weights of the training that left this fold out: of its best epoch, or the mean of its last ones."""
    return run.workspace.weights_dir / f"fold{fold}{'_averaged' if averaged else ''}.pt"


def hyp_path(run: Run, hyp: str = "") -> Path:
    """The file of hyper-parameters: the one asked for, or the profile's in the repository."""
    return Path(hyp) if hyp else REPOSITORY / "hyp" / run.profile.hyp
