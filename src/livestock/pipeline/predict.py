"""Passes over images: every box before suppression, out of fold and in the images to answer, kept in files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .. import inference
from ..data.dataset import hash_pictures
from ..exceptions import BadData, MissingResult, StaleResult
from ..files.hashing import fingerprint, hash_content
from ..labels.missing import likely_boxes
from ..models.forward import load_for_inference
from ..tables import read_table, write_table
from .prepare import read_tables
from .run import Run
from .store import read_records, run_step
from .train import Training, read_config, read_training, trainings_of, weights_named, weights_of

STRIDE = 64  # of the P6 models; a multiple of every other's
LIKELY = "_likely"  # at the end of the name of a file that holds likely boxes alone
PREDICTION_VERSION = 4  # 3: boxes have ids; 4: found by content
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class View:
    """One look at the images: with the best epoch's weights or the averaged ones, larger, mirrored."""

    averaged: bool = False
    scale: float = 1.0
    flip: bool = False


VIEWS = {"plain": View(), "averaged": View(averaged=True), "flipped": View(flip=True), "larger": View(scale=1.25)}


def trained_folds(run: Run) -> list[int]:
    """The folds with a model that has not seen them, by what `04_train` wrote.

    Raises MissingResult if there is none, StaleResult if what one was trained on has changed since, or if it was
    trained with other settings than the first.
    """
    trainings = trainings_of(run, "fold")
    if not trainings:
        raise MissingResult(f"{run.workspace.weights_dir}: expected weights of a fold, found none; run 04_train first")
    first = read_training(run, trainings[0]).settings
    for training in trainings:
        own = read_training(run, training).settings
        if other := sorted(key for key in own if own[key] != first.get(key)):
            raise StaleResult(f"{weights_named(run, training)}: trained with another {other[0]} than "
                              f"{trainings[0].name}; run 04_train again with both, or delete the file")
    return [training.fold for training in trainings if training.fold is not None]


def read_oof(run: Run, folds: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The images of these folds and their human boxes: what their models have not seen."""
    images, boxes = read_tables(run)
    images = images[images["fold"].isin(folds)].reset_index(drop=True)
    return images, boxes[boxes["image_id"].isin(images["image_id"])].reset_index(drop=True)


def predict_oof(run: Run, name: str, folds: Sequence[int], *, averaged: bool = False) -> pd.DataFrame:
    """Every box before suppression that each fold's model sees in its own fold, in the pass of this name.

    With the weights of the best epoch, or `averaged` ones, whatever the pass asks for: what `07_final`'s model has.
    """
    tables = [predict_boxes(run, read_oof(run, [fold])[0],
                              weights_of(run, fold, averaged=averaged or VIEWS[name].averaged), name)
              for fold in folds]
    return pd.concat(tables, ignore_index=True)


def predict_start(run: Run, fold: int) -> pd.DataFrame | None:
    """Every box before suppression that the start weights of this fold's training see in the fold.

    None where there are none, or their classes are not the competition's, in its order: official weights of 80, say.
    """
    from ..models.checkpoint import read_checkpoint
    from ..models.labels import check_labels

    competition, started = run.competition, read_config(run, Training("fold", fold)).weights
    if not started:
        return None
    weights = Path(started)
    try:
        check_labels(read_checkpoint(weights).config.labels, competition.labels, weights, competition.label_of)
    except BadData:
        return None
    return predict_boxes(run, read_oof(run, [fold])[0], weights, "plain")


def predict_boxes(run: Run, images: pd.DataFrame, weights: Path, name: str, *, likely: bool = False) -> pd.DataFrame:
    """Every box before suppression that these weights see in `images`, in the pass of this name.

    With `likely` only `labels.missing.likely_boxes`: of 13,000 images all would not fit into memory. Whoever asks for
    the same weights, images, pass and size gets the same file, so that nothing is predicted twice.
    """
    settings = _settings(run, name)
    path = _predictions_path(run, images, weights, settings, likely=False)
    if likely and not path.exists():
        path = _predictions_path(run, images, weights, settings, likely=True)

    def action() -> dict[str, Any]:
        """Looks at the images, and keeps the candidates."""
        found = inference.find_candidates(
            load_for_inference(weights, run.profile.device), images, run.competition.labels, imgsz=settings["imgsz"],
            flip=settings["flip"], keep=likely_boxes if likely else None, label_of=run.competition.label_of,
            origin=path.stem.removesuffix(LIKELY),  # the same ids, whichever of the two files holds them
        )
        n_cut = {image_id: int(n) for image_id, n in found.n_cut.items() if n}
        if n_cut:
            logger.warning("predictions: %d boxes of %d images were over the limit", sum(n_cut.values()), len(n_cut))
        write_table(found.boxes, path)
        return {"seconds": found.seconds, "images": len(images), "cut": n_cut, "view": name,
                "weights": weights.name}

    run_step(f"predict_{path.stem}", action, inputs=[weights], outputs=[path],
             settings={**settings, "likely": path.stem.endswith(LIKELY)},
             content={"pictures": hash_pictures(images)}, workspace=run.workspace.root, version=PREDICTION_VERSION)
    boxes = read_table(path)
    return likely_boxes(boxes) if likely and not path.stem.endswith(LIKELY) else boxes


def _settings(run: Run, name: str) -> dict[str, Any]:
    """What of a prediction's settings changes its boxes."""
    look, imgsz = VIEWS[name], run.profile.imgsz
    return {"imgsz": round(imgsz * look.scale / STRIDE) * STRIDE if look.scale != 1 else imgsz, "flip": look.flip,
            "labels": run.competition.labels, "conf_floor": inference.CONF_FLOOR,
            "max_per_image": inference.MAX_PER_IMAGE}


def _predictions_path(run: Run, images: pd.DataFrame, weights: Path, settings: dict[str, Any], *, likely: bool) -> Path:
    """The file of a prediction, named by all that it is made from."""
    key = hash_content({"weights": fingerprint(weights), "pictures": hash_pictures(images), "settings": settings,
                        "version": PREDICTION_VERSION})
    return run.workspace.interim_dir / "predictions" / f"{key[:16]}{LIKELY if likely else ''}.parquet"


def prediction_paths(run: Run, names: Sequence[str], folds: Sequence[int], *, averaged: bool = False) -> list[Path]:
    """The files that `predict_oof` keeps of these passes."""
    return [_predictions_path(run, read_oof(run, [fold])[0],
                              weights_of(run, fold, averaged=averaged or VIEWS[name].averaged), _settings(run, name),
                              likely=False)
            for name in names for fold in folds]


def answer_paths(run: Run, names: Sequence[str], images: pd.DataFrame, weights: Sequence[Path]) -> list[Path]:
    """The files of what these weights see in the images to answer, in these passes."""
    return [_predictions_path(run, images, path, _settings(run, name), likely=False)
            for name in names for path in weights]


def silver_paths(
    run: Run, seen: Sequence[Sequence[tuple[Training, pd.DataFrame]]], names: Sequence[str]
) -> list[Path]:
    """The weights of these trainings and what they see in these images, in these passes, as far as it is there."""
    paths = []
    for training, images in (watched for part in seen for watched in part):
        weights = weights_named(run, training, averaged=True)
        if weights.exists():
            paths += [weights, *(_predictions_path(run, images, weights, _settings(run, name), likely=likely)
                                 for name in names for likely in (False, True))]
    return list(dict.fromkeys(path for path in paths if path.exists()))


def seconds_an_image(run: Run, names: Sequence[str], folds: Sequence[int], *, averaged: bool = False) -> float:
    """What these passes took out of fold: reading and decoding the image and the network, without loading the model."""
    total, records = 0.0, read_records(run.workspace.root)
    for name in names:
        notes = [records[f"predict_{path.stem}"].notes
                 for path in prediction_paths(run, [name], folds, averaged=averaged)]
        total += sum(note["seconds"] for note in notes) / max(sum(note["images"] for note in notes), 1)
    return total
