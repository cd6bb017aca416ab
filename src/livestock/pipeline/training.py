"""The data set at training size and trainings on it; the detector, and torch, are imported when called."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..config import REPOSITORY
from ..data.pictures import LEAST_SIDE, too_thin
from ..files.disk import check_disk_space, images_disk_bytes, training_disk_bytes
from ..files.hashing import fingerprint, hash_content
from ..files.write import write_json
from ..tables import write_table
from .data import VALID_FOLD, Run
from .store import run_step

if TYPE_CHECKING:
    from ..models import yolov5

TRAINED_BY = {"fold": "04_train", "full": "07_final"}  # by how a training's name begins


def write_dataset(run: Run, images: pd.DataFrame, boxes: pd.DataFrame, fold: int = 0) -> Path:
    """The YOLO data set of all folds and the lists of one; returns the `data.yaml` that trains without `fold`."""
    if not (is_valid := images["fold"] == fold).any():
        raise ValueError(f"fold {fold}: no image lies in it; {len(images):,} images have the folds "
                         f"{', '.join(str(number) for number in sorted(images['fold'].unique()))}")
    return write_lists(run, f"fold{fold}", images, boxes, images.loc[~is_valid, "image_id"],
                       images.loc[is_valid, "image_id"])


def write_lists(
    run: Run, name: str, images: pd.DataFrame, boxes: pd.DataFrame, train_ids: pd.Series, valid_ids: pd.Series,
    hidden: pd.DataFrame | None = None,
) -> Path:
    """The YOLO data set of `images` with the labels `boxes`, and the lists of one training; returns its `data.yaml`.

    Trainings with human labels share a folder. With silver ones, hidden boxes or new images the data set is one of its
    own, in which the boxes `hidden` are painted grey. Images that yolov5 would ignore without a word are not in the
    lists; see `read_left_out`. Raises ValueError if that leaves a list empty.
    """
    from ..data import dataset

    thin = images.loc[too_thin(images, run.profile.imgsz), ["image_id", "width", "height"]]
    for part, ids in (("train", train_ids), ("validate", valid_ids)):
        if ids.isin(thin["image_id"]).all():
            raise ValueError(f"{name}: expected images to {part} on, found {len(ids)} and all of them thinner than "
                             f"{LEAST_SIDE} px at {run.profile.imgsz} px; give other data or a larger imgsz")
    thin = thin[thin["image_id"].isin(pd.concat([train_ids, valid_ids]))]
    train_ids, valid_ids = (ids[~ids.isin(thin["image_id"])] for ids in (train_ids, valid_ids))
    known = images[images["fold"] >= 0]  # without new ones, which have silver labels alone
    plain = directory = dataset.dataset_dir(known, run.profile.imgsz, run.workspace.yolo_dir)
    tables = [boxes] if hidden is None else [boxes, hidden]
    is_own = (boxes["source"] == "silver").any() or len(known) < len(images) or (hidden is not None and len(hidden) > 0)
    if is_own:
        directory = dataset.dataset_dir(images, run.profile.imgsz, run.workspace.yolo_dir, *tables)
    data_yaml = directory / f"{name}.yaml"

    def action() -> None:
        painted = images["image_id"].isin([] if hidden is None else hidden["image_id"])
        is_new = ~(_stand_in(directory, images) | (_stand_in(plain, images) & ~painted.to_numpy()))
        check_disk_space(directory, images_disk_bytes(images[is_new], run.profile.imgsz))
        dataset.write_images(images, directory, run.profile.imgsz, hidden=hidden, boxes=boxes,
                                  same=plain if is_own else None)
        dataset.write_labels(images, boxes, run.competition.labels, directory)
        write_table(thin.assign(reason=_describe_thin(thin, run.profile.imgsz)), left_out_path(data_yaml))
        if len(thin):
            print(f"{name}: left out of training, thinner than {LEAST_SIDE} px at {run.profile.imgsz} px: {len(thin)} "
                  f"images, {', '.join(thin['image_id'][:5])}{' ...' if len(thin) > 5 else ''}")
        dataset.write_lists(directory, name, train_ids, valid_ids, run.competition.labels)

    run_step(
        f"dataset_{name}",
        action,
        inputs=[run.workspace.interim_dir / f"{table}.parquet" for table in ("images", "boxes", "folds")],
        outputs=[data_yaml, directory / f"{name}_train.txt", directory / f"{name}_valid.txt",
                 left_out_path(data_yaml)],
        settings={"imgsz": run.profile.imgsz, "labels": run.competition.labels,
                  "lists": hash_content({"train": list(train_ids), "valid": list(valid_ids)})},
        workspace=run.workspace.root,
    )
    return data_yaml


def _describe_thin(thin: pd.DataFrame, imgsz: int) -> list[str]:
    return [f"{width} x {height} px has a side below {LEAST_SIDE} px at {imgsz} px: yolov5 does not train on it"
            for width, height in zip(thin["width"], thin["height"], strict=True)]


def left_out_path(data_yaml: Path) -> Path:
    """The table that `write_lists` leaves beside a training's lists."""
    return data_yaml.with_name(f"{data_yaml.stem}_left_out.parquet")


def read_left_out(data_yaml: Path) -> pd.DataFrame:
    """The images that are in neither list of a training though they were meant for one: `image_id`, size, `reason`."""
    return pd.read_parquet(left_out_path(data_yaml))


def _stand_in(directory: Path, images: pd.DataFrame) -> np.ndarray:
    """Whether each image is in that data set already: `(N,)`."""
    from ..data.dataset import file_name

    return np.array([(directory / "images" / file_name(image_id)).exists() for image_id in images["image_id"]], bool)


def train_fold(run: Run, data_yaml: Path, fold: int = 0, hyp: str = "") -> Path:
    """Trains on all folds but one; returns the training's folder and writes weights as `weights_of` names them.

    `hyp` is a file of hyper-parameters, such as the search's `evolved.yaml`; without one it is the profile's.
    """
    from ..models import yolov5

    weights = yolov5.find_weights(run.profile.weights, run.workspace.weights_dir)
    config = yolov5.TrainConfig(
        data_yaml=str(data_yaml.resolve()),
        weights=str(weights.resolve()),
        hyp=str(hyp_path(run, hyp).resolve()),
        imgsz=run.profile.imgsz,
        batch=run.profile.batch,
        epochs=run.profile.epochs,
        optimizer=run.profile.optimizer,
        cos_lr=run.profile.cos_lr,
        nominal_batch=run.profile.nominal_batch,
        compiler=run.profile.compiler,
        bf16=run.profile.bf16,
        device=run.profile.device,
        workers=run.profile.workers,
        seed=run.seed,
        metric_iou=run.competition.metric_iou,
    )
    return train(run, f"fold{fold}", config)


def train_as_fold(run: Run, name: str, data_yaml: Path, seed: int, *, selects: bool = True) -> Path:
    """Trains on other lists as `04_train` trained fold 0: the same start weights, hyper-parameters and epochs.

    `selects=False` where the validation list is no judge: the best epoch's weights are not kept. Raises ValueError if
    there is no such training, or if it was at another image size or for another metric than this run's.
    """
    from ..models import yolov5

    settings = read_training(run, f"fold{VALID_FOLD}")["config"]
    if settings["imgsz"] != run.profile.imgsz:
        raise ValueError(f"profile {run.profile.name!r}: {run.profile.imgsz} px, but fold {VALID_FOLD} was trained at "
                         f"{settings['imgsz']} px; run 04_train again with this profile")
    if (trained_for := settings.get("metric_iou")) != run.competition.metric_iou:  # an older version wrote none
        raise ValueError(f"competition {run.competition.name!r}: metric_iou {run.competition.metric_iou:g}, but "
                         f"fold {VALID_FOLD} was trained for {trained_for}; run 04_train again")
    config = replace(yolov5.TrainConfig(**settings), data_yaml=str(data_yaml.resolve()), seed=seed)
    return train(run, name, config, selects=selects)


def train(run: Run, name: str, config: yolov5.TrainConfig, *, selects: bool = True) -> Path:
    """One training; returns its folder and writes its weights as `weights_named` has them, and a record beside."""
    from ..models import yolov5

    data_yaml = Path(config.data_yaml)
    lists = [data_yaml.with_name(f"{data_yaml.stem}_{part}.txt") for part in ("train", "valid")]
    inputs = [data_yaml, *lists, run.workspace.interim_dir / "boxes.parquet", Path(config.weights), Path(config.hyp)]
    made_from = {**asdict(config), "inputs": [fingerprint(path) for path in inputs]}
    key = hash_content(made_from)[:6]  # no other training resumes this one
    run_dir = run.workspace.runs_dir / f"train_{name}_{key}"
    best, averaged = weights_named(run, name), weights_named(run, name, averaged=True)
    record = run.workspace.interim_dir / f"training_{name}.json"

    def action() -> None:
        needed = training_disk_bytes(Path(config.weights).stat().st_size, config.optimizer)
        check_disk_space(run_dir, needed)
        yolov5.train(config, run_dir, label_of=run.competition.label_of)
        if selects:
            yolov5.write_weights(run_dir / "weights/best.pt", best)
        yolov5.write_weights(run_dir / "weights/averaged.pt", averaged)
        n_images = len(lists[0].read_text(encoding="utf-8").splitlines())
        write_json({"run_dir": str(run_dir), "key": key, "images": n_images, **data_basis(run),
                    "config": asdict(config)}, record)

    run_step(
        f"train_{name}",
        action,
        inputs=inputs,
        outputs=[run_dir / "results.csv", *([best] if selects else []), averaged, record],
        settings=asdict(config),
        workspace=run.workspace.root,
    )
    return run_dir


def data_basis(run: Run) -> dict[str, str]:
    """Hashes of the split and of the human labels: what a training, and all that is chosen by it, rests on."""
    return {"split": fingerprint(run.workspace.interim_dir / "folds.parquet"),
            "set of labels": fingerprint(run.workspace.interim_dir / "boxes.parquet")}


def training_basis(run: Run) -> dict[str, str]:
    """`data_basis` and the key of `04_train`'s model of the validation fold, whose settings all later ones take."""
    return {**data_basis(run), "training in 04_train": read_training(run, f"fold{VALID_FOLD}")["key"]}


def check_basis(run: Run, found: dict[str, Any], path: Path, notebook: str) -> None:
    """Raises ValueError, naming what has changed and the notebook to run, if `found` is not the `training_basis`."""
    for what, value in training_basis(run).items():
        if found.get(what) != value:
            raise ValueError(f"{path}: made with another {what} than the present one; run {notebook} again, or delete "
                             "this file")


def read_training(run: Run, name: str) -> dict[str, Any]:
    """What `train` recorded of a training: `run_dir`, `key`, number of `images`, `data_basis` and `config`.

    Raises ValueError that says which notebook trains it if there is none.
    """
    path = run.workspace.interim_dir / f"training_{name}.json"
    if not path.exists():
        raise ValueError(f"{path}: no such training yet; run {TRAINED_BY.get(name[:4], '06_silver')} first")
    return json.loads(path.read_text(encoding="utf-8"))


def run_dir_of(run: Run, name: str) -> Path:
    """The folder of a training: history, log, checkpoints."""
    return Path(read_training(run, name)["run_dir"])


def weights_of(run: Run, fold: int, *, averaged: bool = False) -> Path:
    """The weights of the training that left this fold out: of its best epoch, or the mean of its last ones."""
    return weights_named(run, f"fold{fold}", averaged=averaged)


def weights_named(run: Run, name: str, *, averaged: bool = False) -> Path:
    """The weights of the training of this name: of its best epoch, or the mean of its last ones."""
    return run.workspace.weights_dir / f"{name}{'_averaged' if averaged else ''}.pt"


def hyp_path(run: Run, hyp: str = "") -> Path:
    """The file of hyper-parameters: the one asked for, or the profile's in the repository."""
    return Path(hyp) if hyp else REPOSITORY / "hyp" / run.profile.hyp
