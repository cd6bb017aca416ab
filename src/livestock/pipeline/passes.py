"""Passes over images: every box before suppression, out of fold and in the images to answer, kept in files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .. import inference
from ..files.write import write_json
from ..labels.missing import likely_boxes
from ..tables import read_table, write_table
from .data import Run
from .store import run_step
from .training import data_basis, weights_of

STRIDE = 64  # of the P6 models; a multiple of every other's


@dataclass(frozen=True)
class Pass:
    """One look at the images: with the best epoch's weights or the averaged ones, larger, mirrored."""

    averaged: bool = False
    scale: float = 1.0
    flip: bool = False


PASSES = {"plain": Pass(), "averaged": Pass(averaged=True), "flipped": Pass(flip=True), "larger": Pass(scale=1.25)}


def trained_folds(run: Run) -> list[int]:
    """The folds with a model that has not seen them, by what `04_train` wrote.

    Raises ValueError if there is none, if one was trained on another split or other labels than the present ones, or
    with other settings than the first.
    """
    folds = [fold for fold in range(100) if weights_of(run, fold).exists()]
    if not folds:
        raise ValueError(f"{run.workspace.weights_dir}: expected weights of a fold, found none; run 04_train first")
    settings: dict[str, Any] = {}
    for fold in folds:
        path = run.workspace.interim_dir / f"training_fold{fold}.json"
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for what, value in data_basis(run).items():
            if record.get(what) != value:
                raise ValueError(f"{weights_of(run, fold)}: trained on another {what} than the present one; run "
                                 f"04_train again with fold {fold}, or delete it")
        own = {key: value for key, value in record["config"].items() if key != "data_yaml"}
        settings = settings or own
        if other := sorted(key for key in own if own[key] != settings.get(key)):
            raise ValueError(f"{weights_of(run, fold)}: trained with another {other[0]} than fold {folds[0]}; run "
                             "04_train again with both, or delete the file")
    return folds


def oof_images(run: Run, folds: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The images of these folds and their human boxes: what their models have not seen."""
    images = pd.read_parquet(run.workspace.interim_dir / "folds.parquet")
    boxes = pd.read_parquet(run.workspace.interim_dir / "boxes.parquet")
    images = images[images["fold"].isin(folds)].reset_index(drop=True)
    return images, boxes[boxes["image_id"].isin(images["image_id"])].reset_index(drop=True)


def find_oof(run: Run, name: str, folds: Sequence[int], *, averaged: bool = False) -> pd.DataFrame:
    """Every box before suppression that each fold's model sees in its own fold, in the pass of this name.

    With the weights of the best epoch, or `averaged` ones, whatever the pass asks for: what `07_final`'s model has.
    """
    averaged = averaged or PASSES[name].averaged
    tables = [
        find_candidates(run, oof_images(run, [fold])[0], weights_of(run, fold, averaged=averaged), name,
                        oof_file(name, fold, averaged))
        for fold in folds
    ]
    return pd.concat(tables, ignore_index=True)


def oof_file(name: str, fold: int, averaged: bool) -> str:
    """What `candidates_path` calls the table of a fold's own images in this pass."""
    return f"{name}_fold{fold}{'_averaged' if averaged and not PASSES[name].averaged else ''}"


def candidates_path(run: Run, file: str) -> Path:
    """The table that `find_candidates` keeps."""
    return run.workspace.interim_dir / f"candidates_{file}.parquet"


def find_candidates(
    run: Run, images: pd.DataFrame, weights: Path, name: str, file: str, *, likely: bool = False
) -> pd.DataFrame:
    """Every box before suppression that these weights see in `images`, in the pass of this name.

    With `likely` only `labels.missing.likely_boxes`: of 13,000 images all would not fit into memory.

    Kept as `candidates_path` says; beside it, as JSON, the seconds it took and how many boxes of which
    image were over the limit of `inference.candidates`.
    """
    look, profile = PASSES[name], run.profile
    imgsz = round(profile.imgsz * look.scale / STRIDE) * STRIDE if look.scale != 1 else profile.imgsz
    path = candidates_path(run, file)

    def action() -> None:

        found = inference.candidates(
            weights, images, run.competition.labels, imgsz=imgsz, flip=look.flip, device=profile.device,
            keep=likely_boxes if likely else None, label_of=run.competition.label_of, origin=path.stem,
        )
        n_cut = {image_id: int(n) for image_id, n in found.n_cut.items() if n}
        if n_cut:
            print(f"candidates: {sum(n_cut.values())} boxes of {len(n_cut)} images were over the limit")
        write_json({"seconds": found.seconds, "images": len(images), "cut": n_cut}, path.with_suffix(".json"))
        write_table(found.boxes, path)

    run_step(
        path.stem,
        action,
        inputs=[weights, *(Path(archive) for archive in sorted(set(images["archive"])))],
        outputs=[path, path.with_suffix(".json")],
        settings={"imgsz": imgsz, "flip": look.flip, "image_ids": images["image_id"].tolist(),
                  **({"likely": True} if likely else {})},
        workspace=run.workspace.root,
        version=3,  # 2: pictures are scaled down to 0.6 by bilinear interpolation; 3: box_id
    )
    return read_table(path)


def seconds_an_image(run: Run, names: Sequence[str], folds: Sequence[int], *, averaged: bool = False) -> float:
    """What these passes took out of fold: reading and decoding the image and the network, without loading the model."""
    total = 0.0
    for name in names:
        files = [oof_file(name, fold, averaged or PASSES[name].averaged) for fold in folds]
        records = [json.loads((run.workspace.interim_dir / f"candidates_{file}.json").read_text()) for file in files]
        total += sum(record["seconds"] for record in records) / max(sum(record["images"] for record in records), 1)
    return total
