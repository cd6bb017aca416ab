"""The data set at training size and trainings on it; the detector, and torch, are imported when called."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..config import REPOSITORY
from ..config.models import read_models
from ..data.pictures import LEAST_SIDE, too_thin
from ..exceptions import MissingResult, StaleResult
from ..files.disk import check_disk_space, images_disk_bytes, training_disk_bytes
from ..files.hashing import fingerprint, hash_content
from ..files.write import write_bytes, write_json
from ..tables import write_table
from .prepare import VALID_FOLD
from .run import Run
from .store import Record, place_of, read_records, require_fresh, run_step

if TYPE_CHECKING:
    from ..training import TrainConfig

HUMAN = "human labels"
TRAINED_BY = {"fold": "04_train", "teacher": "06_silver", "student": "06_silver", "full": "07_final"}
PLACES = ("data_yaml", "weights", "hyp")  # of a training's settings those that are paths
MACHINE = ("device", "workers", "loggers", "resumes")  # and those that do not change its numbers
N_WATCHED = 8  # images of a validation list, which every training has, where nothing is chosen by them
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """What a training is for; its files are named after it.

    `role` is `fold` (without `fold`), `teacher` (without its part of the training folds, which `fold` numbers),
    `student` (with `labels`, human or silver ones of a strategy, judged on fold 0) or `full` (on every image).
    """

    role: str
    fold: int | None = None
    seed: int = 0
    labels: str = HUMAN

    @property
    def name(self) -> str:
        """Without the seed where there is one training of its kind.

        >>> Training("teacher", fold=1).name, Training("student", seed=43).name, Training("full", labels="some").name
        ('teacher1', 'student_human_43', 'full_some')
        """
        if self.fold is not None:
            return f"{self.role}{self.fold}"
        labels = "human" if self.labels == HUMAN else self.labels
        return f"{self.role}_{labels}" + (f"_{self.seed}" if self.role == "student" else "")

    @property
    def by(self) -> str:
        """The notebook that trains it."""
        return TRAINED_BY[self.role]


def write_dataset(run: Run, images: pd.DataFrame, boxes: pd.DataFrame, fold: int = 0) -> Path:
    """The YOLO data set of all folds and the lists of one; returns the `data.yaml` that trains without `fold`."""
    if not (is_valid := images["fold"] == fold).any():
        raise ValueError(f"fold {fold}: no image lies in it; {len(images):,} images have the folds "
                         f"{', '.join(str(number) for number in sorted(images['fold'].unique()))}")
    return write_lists(run, f"fold{fold}", images, boxes, images.loc[~is_valid, "image_id"],
                       images.loc[is_valid, "image_id"])


def write_lists(
    run: Run, name: str, images: pd.DataFrame, boxes: pd.DataFrame, train_ids: pd.Series, valid_ids: pd.Series,
    hidden: pd.DataFrame | None = None, *, is_own: bool = False, says: bool = True,
) -> Path:
    """The YOLO data set of `images` with the labels `boxes`, and the lists of one training; returns its `data.yaml`.

    Trainings with human labels share a folder: `boxes` are all of those of `images` then. With silver ones, hidden
    boxes or new images, or if asked for (`is_own`), the data set is one of its own, in which the boxes `hidden` are
    painted grey. Images that are too thin to learn from are not in the lists; see `read_left_out`. Raises ValueError if
    that leaves a list empty.
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
    is_own |= bool((boxes["source"] == "silver").any()) or len(known) < len(images)
    is_own |= hidden is not None and len(hidden) > 0
    if is_own:
        directory = dataset.dataset_dir(images, run.profile.imgsz, run.workspace.yolo_dir, *tables)
    data_yaml = directory / f"{name}.yaml"

    def action() -> None:
        """Writes images and labels that are not there yet, and the lists."""
        painted = images["image_id"].isin([] if hidden is None else hidden["image_id"])
        is_new = ~(_stand_in(directory, images) | (_stand_in(plain, images) & ~painted.to_numpy()))
        check_disk_space(directory, images_disk_bytes(images[is_new], run.profile.imgsz))
        dataset.write_images(images, directory, run.profile.imgsz, hidden=hidden, boxes=boxes,
                             same=plain if is_own else None)
        dataset.write_labels(images, boxes, run.competition.labels, directory)
        write_table(thin.assign(reason=_describe_thin(thin, run.profile.imgsz)), left_out_path(data_yaml))
        if len(thin):
            logger.warning("%s: left out of training, thinner than %d px at %d px: %d images, %s", name, LEAST_SIDE,
                        run.profile.imgsz, len(thin), ", ".join(thin["image_id"][:5]) + " ..." * (len(thin) > 5))
        dataset.write_lists(directory, name, train_ids, valid_ids, run.competition.labels)

    run_step(
        f"dataset_{name}",
        action,
        inputs=[run.workspace.interim_dir / f"{table}.parquet" for table in ("images", "boxes", "folds")],
        outputs=[data_yaml, directory / f"{name}_train.txt", directory / f"{name}_valid.txt",
                 left_out_path(data_yaml)],
        settings={"imgsz": run.profile.imgsz, "labels": run.competition.labels,
                  "place": str(directory.resolve()),  # which the data.yaml names
                  "lists": hash_content({"train": list(train_ids), "valid": list(valid_ids)})},
        workspace=run.workspace.root,
        says=says,
    )
    return data_yaml


def choose_watched(run: Run, images: pd.DataFrame) -> pd.Series:
    """The ids of a few images for a validation list by which nothing is chosen: the first that are not too thin."""
    fit = images.loc[~too_thin(images, run.profile.imgsz), "image_id"]
    return (fit if len(fit) else images["image_id"])[:N_WATCHED]


def _describe_thin(thin: pd.DataFrame, imgsz: int) -> list[str]:
    return [f"{width} x {height} px has a side below {LEAST_SIDE} px at {imgsz} px: nothing to learn from"
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
    config = make_config(run, data_yaml, hyp_path(run, hyp))
    return train(run, Training("fold", fold, run.seed), config, settings_path(run, fold))


def make_config(run: Run, data_yaml: Path, hyp: Path) -> TrainConfig:
    """The settings of a training with this run's profile."""
    from ..models.registry import find_start
    from ..training import TrainConfig

    profile = run.profile
    start = find_start(profile.family, profile.weights, run.workspace.weights_dir)
    return TrainConfig(
        data_yaml=str(data_yaml.resolve()),
        weights=str(start.resolve()) if start else "",
        hyp=str(hyp.resolve()),
        family=profile.family,
        size="" if start else profile.weights,
        imgsz=profile.imgsz,
        batch=profile.batch,
        epochs=profile.epochs,
        optimizer=profile.optimizer,
        schedule=profile.schedule,
        nominal_batch=profile.nominal_batch,
        compiler=profile.compiler,
        bf16=profile.bf16,
        device=profile.device,
        workers=profile.workers,
        seed=run.seed,
        metric_iou=run.competition.metric_iou,
        loggers=tuple(filter(None, profile.loggers.split(","))),
    )


def start_bytes(start: Path | None, run: Run) -> int:
    """Bytes of the start weights in half precision; of random ones, what such a network would take."""
    from ..models.checkpoint import trained_bytes
    from ..models.registry import get_family

    if start:
        return start.stat().st_size
    return trained_bytes(get_family(run.profile.family).configure(run.competition.labels, run.profile.imgsz,
                                                                  run.profile.weights))


def guess_start_bytes(run: Run) -> int:
    """As `start_bytes`, and nothing is downloaded: an official name's are those of the table of models.

    Of a name that is not in it, the size that it begins with is built. Raises BadData for a file that is not there.
    """
    from ..models.registry import find_start, get_family

    profile, weights, known = run.profile, run.profile.weights, read_models().set_index(["family", "name"])["MB"]
    sizes = get_family(profile.family).sizes
    if weights in sizes or Path(weights).is_file():
        return start_bytes(None if weights in sizes else Path(weights), run)
    if (profile.family, Path(weights).name) in known.index:  # building it would take a library's memory and seconds
        return round(known[profile.family, Path(weights).name] * 1e6)
    if named := [size for size in sizes if Path(weights).name.startswith(size)]:
        return start_bytes(None, replace(run, profile=replace(profile, weights=max(named, key=len))))
    return start_bytes(find_start(profile.family, weights, run.workspace.weights_dir), run)


def train_as_fold(
    run: Run, training: Training, data_yaml: Path, *, selects: bool = True, tables: Sequence[Path] = ()
) -> Path:
    """Trains on other lists as `04_train` trained fold 0: the same start weights, hyper-parameters and epochs.

    `tables` are files of labels that it trains with beside the human ones. `selects=False` where the validation list is
    no judge: the best epoch's weights are not kept. Raises MissingResult if there is no such training, StaleResult if
    its data or hyper-parameters have changed since, or if it was at another image size or for another metric than this
    run's.
    """
    settings = read_config(run, Training("fold", VALID_FOLD))
    if settings.imgsz != run.profile.imgsz:
        raise StaleResult(f"profile {run.profile.name!r}: {run.profile.imgsz} px, but fold {VALID_FOLD} was trained at "
                          f"{settings.imgsz} px; run 04_train again with this profile")
    if settings.metric_iou != run.competition.metric_iou:
        raise StaleResult(f"competition {run.competition.name!r}: metric_iou {run.competition.metric_iou:g}, but "
                          f"fold {VALID_FOLD} was trained for {settings.metric_iou}; run 04_train again")
    config = replace(settings, data_yaml=str(data_yaml.resolve()), seed=training.seed)
    return train(run, training, config, selects=selects, tables=[settings_path(run, VALID_FOLD), *tables])


def settings_path(run: Run, fold: int) -> Path:
    """What `04_train` trained this fold with, without paths: later trainings that take it over know if it changes."""
    return run.workspace.interim_dir / f"settings_fold{fold}.json"


def train(
    run: Run, training: Training, config: TrainConfig, settings_to: Path | None = None, *, selects: bool = True,
    tables: Sequence[Path] = (),
) -> Path:
    """One training; returns its folder and writes its weights as `weights_named` has them, its settings if asked to."""
    from .. import training as trainings
    from ..data import dataset
    from ..training import AVERAGED, BEST, HISTORY

    workspace, data_yaml = run.workspace.root, Path(config.data_yaml)
    files = [Path(path) for path in (config.weights, config.hyp) if path]
    settings = {key: value for key, value in asdict(config).items() if key not in (*PLACES, *MACHINE)}
    content = {"labels and lists": dataset.hash_lists(data_yaml), "pictures": data_yaml.parent.name}
    key = hash_content({**settings, **content, "files": [fingerprint(path) for path in files]})
    run_dir = run.workspace.runs_dir / f"train_{training.name}_{key[:6]}"  # no other training resumes this one
    best, averaged = weights_named(run, training), weights_named(run, training, averaged=True)

    def action() -> dict[str, Any]:
        """Trains, and puts the weights where they are looked for."""
        size = start_bytes(Path(config.weights) if config.weights else None, run)
        check_disk_space(run_dir, training_disk_bytes(size, config.optimizer))
        trainings.train(config, run_dir, label_of=run.competition.label_of)
        for name, target in [(BEST, best)] * selects + [(AVERAGED, averaged)]:
            write_bytes((run_dir / "weights" / name).read_bytes(), target)
        if settings_to:
            write_json({**settings, "files": [fingerprint(path) for path in files]}, settings_to)
        train_list = data_yaml.with_name(f"{data_yaml.stem}_train.txt")
        places = {name: place_of(Path(getattr(config, name)), workspace) for name in PLACES if getattr(config, name)}
        return {"training": asdict(training), "run_dir": place_of(run_dir, workspace),
                "images": len(train_list.read_text(encoding="utf-8").splitlines()),
                "config": {**asdict(config), **places}}

    run_step(
        f"train_{training.name}",
        action,
        inputs=[*files, *(run.workspace.interim_dir / f"{name}.parquet" for name in ("folds", "boxes")), *tables],
        outputs=[path for path in (run_dir / HISTORY, averaged, best if selects else None, settings_to) if path],
        settings=settings,
        content=content,
        workspace=workspace,
        by=training.by,
    )
    return run_dir


def read_training(run: Run, training: Training) -> Record:
    """What is known of a training that still holds: the notes are its `run_dir`, number of `images` and `config`.

    Raises MissingResult that says which notebook trains it if there is none, StaleResult if what it was trained on has
    changed since.
    """
    return require_fresh(run.workspace.root, weights_named(run, training, averaged=True), training.by)


def read_config(run: Run, training: Training) -> TrainConfig:
    """The settings of a training that still holds, its paths as they are on this machine."""
    from ..models.registry import find_start
    from ..training import TrainConfig

    record = read_training(run, training)
    config = dict(record.notes["config"])
    present = {"weights": lambda: find_start(run.profile.family, run.profile.weights, run.workspace.weights_dir),
               "hyp": lambda: hyp_path(run)}
    for name, find in present.items():
        if not config[name]:
            continue  # random start weights
        path = run.workspace.root / config[name]
        if not path.exists() and ((path := find()) is None or fingerprint(path) != record.inputs[config[name]]):
            raise MissingResult(f"{config[name]}: {training.name} was trained with it, and it is not there any more; "
                                f"put it back, or run {training.by} again")
        config[name] = str(path.resolve())
    config["data_yaml"] = str(run.workspace.root / config["data_yaml"])
    return TrainConfig(**{**config, "loggers": tuple(config["loggers"])})


def trainings_of(run: Run, role: str) -> list[Training]:
    """The trainings of this role that were recorded and whose weights are there, in the order of their folds."""
    found = [Training(**record.notes["training"]) for step, record in read_records(run.workspace.root).items()
             if step.startswith("train_") and record.notes["training"]["role"] == role]
    there = [training for training in found if weights_named(run, training, averaged=True).exists()]
    return sorted(there, key=lambda training: (training.fold is None, training.fold))


def run_dir_of(run: Run, training: Training) -> Path:
    """The folder of a training: history, log, checkpoints."""
    return run.workspace.root / read_training(run, training).notes["run_dir"]


def weights_of(run: Run, fold: int, *, averaged: bool = False) -> Path:
    """The weights of the training that left this fold out: of its best epoch, or the mean of its last ones."""
    return weights_named(run, Training("fold", fold), averaged=averaged)


def weights_named(run: Run, training: Training, *, averaged: bool = False) -> Path:
    """The weights of a training: of its best epoch, or the mean of its last ones."""
    return run.workspace.weights_dir / f"{training.name}{'_averaged' if averaged else ''}.safetensors"


def hyp_path(run: Run, hyp: str = "") -> Path:
    """The file of hyper-parameters: the one asked for, or the profile's in the repository."""
    return Path(hyp) if hyp else REPOSITORY / "hyp" / run.profile.hyp
