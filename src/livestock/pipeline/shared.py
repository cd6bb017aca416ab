"""Trainings that several machines share: each pulls the next one from a queue, see `search.pieces`.

The workspace is a folder that all of them read and write, such as a bucket or a disk of the network; the data set at
training size lies in it too. What is done already is found there by its key, so a piece that comes twice costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..files.hashing import fingerprint, hash_content
from ..models.registry import find_start
from ..search.pieces import share_pieces
from .prepare import read_tables
from .run import OF_A_MACHINE, Run
from .train import hyp_path, train_fold, write_dataset

# Of a profile, what changes no training, or is a path, which each machine has its own of: the content counts.
OF_NO_TRAINING = (*OF_A_MACHINE, "budget_hours", "hyp", "weights", "trials", "trial_epochs", "n_verified", "n_seeds",
                  "search_imgsz", "search_freeze")


def share_folds(run: Run, storage: str, folds: Sequence[int], hyp: str = "") -> list[str]:
    """Trains without each of these folds, here or on another machine; returns what was trained here."""
    images, boxes = read_tables(run)
    by_name = {f"fold {fold}": fold for fold in folds}
    name = name_queue(run, "folds", {"folds": sorted(folds), "hyp": fingerprint(hyp_path(run, hyp))})
    return share_pieces(storage, name, list(by_name), lambda piece: train_fold(
        run, write_dataset(run, images, boxes, by_name[piece]), by_name[piece], hyp))


def name_queue(run: Run, what: str, content: Mapping[str, Any]) -> str:
    """The study's name: what the pieces are, and a hash of all that they are made from, the same on each machine."""
    profile = {name: value for name, value in asdict(run.profile).items() if name not in OF_NO_TRAINING}
    start = find_start(run.profile.family, run.profile.weights, run.workspace.weights_dir)
    files = [fingerprint(run.workspace.interim_dir / f"{name}.parquet") for name in ("folds", "boxes")]
    made_from = {**content, "profile": profile, "seed": run.seed, "files": files,
                 "start": fingerprint(start) if start else run.profile.weights}
    return f"{what}_{hash_content(made_from)[:12]}"
