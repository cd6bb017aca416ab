"""The job as steps: each function reads files, writes new ones and is skipped when done. Notebooks call these."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from . import readers
from .boxes import write_table
from .config import REPOSITORY, Competition, Profile, Workspace, get_profile, read_competition
from .steps import run_step, write_json

TRUTH_NAME = "truth_test.csv"  # beside the data, in the scorer's format; only ever read to score once


@dataclass(frozen=True)
class Run:
    """What one pass over the notebooks is made of."""

    competition: Competition
    profile: Profile
    workspace: Workspace
    data_dir: Path
    reader: str
    seed: int


def make_run(
    *, competition: str, profile: str, workspace: str, data: str, reader: str, seed: int, weights: str = ""
) -> Run:
    """A run from a notebook's parameters. Raises ValueError for an unknown profile, reader or competition key."""
    if reader not in readers.READERS:
        raise ValueError(f"reader: expected one of {sorted(readers.READERS)}, found {reader!r}")
    return Run(
        competition=read_competition(Path(competition)),
        profile=get_profile(profile, weights=weights or None),
        workspace=Workspace(Path(workspace)),
        data_dir=Path(data),
        reader=reader,
        seed=seed,
    )


@dataclass(frozen=True)
class RawTables:
    """What the readers found. `test_images` is empty where the data has no test set."""

    images: pd.DataFrame
    boxes: pd.DataFrame
    left_out: pd.DataFrame
    test_images: pd.DataFrame


def ensure_data(run: Run) -> None:
    """Draws the embedded sample where the `demo` and `smoke` profiles find no data.

    Raises ValueError that says where data comes from if other profiles find none.
    """
    if run.data_dir.exists():
        return
    if run.profile.name not in ("demo", "smoke"):
        raise ValueError(f"{run.data_dir}: no data there; data/README.md says where to get some, --data where it is")
    from .sample import draw_sample

    beside = run.data_dir.with_name(run.data_dir.name + ".part")  # half a sample must not be taken for one
    shutil.rmtree(beside, ignore_errors=True)
    draw_sample(beside)
    beside.rename(run.data_dir)


def read_data(run: Run) -> RawTables:
    """Raw archives to `images`, `boxes`, `left_out` and `test_images` in `interim/`."""
    ensure_data(run)
    names = ["images", "boxes", "left_out", "test_images"]
    paths = [run.workspace.interim_dir / f"{name}.parquet" for name in names]

    def action() -> None:
        train, test = readers.read_train_and_test(run.reader, run.data_dir, run.competition)
        test_images = train.images.iloc[:0] if test is None else test.images
        for table, path in zip([train.images, train.boxes, train.left_out, test_images], paths, strict=True):
            write_table(table, path)

    run_step(
        "read",
        action,
        inputs=[run.data_dir],
        outputs=paths,
        settings={"reader": run.reader, "competition": asdict(run.competition)},
        workspace=run.workspace.root,
    )
    return RawTables(*(pd.read_parquet(path) for path in paths))


# -- training: these import the detector, and with it torch, only when called --------------------------------------


def write_dataset(run: Run, images: pd.DataFrame, boxes: pd.DataFrame, fold: int = 0) -> Path:
    """The YOLO data set of all folds and the lists of one; returns the `data.yaml` that trains without `fold`."""
    from . import yolo_dataset

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
    """Trains on all folds but one; returns the run's folder and writes the weights to submit to `weights.pt`.

    `hyp` is a file of hyper-parameters, such as the search's `evolved.yaml`; without one it is the profile's.
    """
    from . import detector

    weights = detector.find_weights(run.profile.weights, run.workspace.root / "weights")
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

    def action() -> None:
        detector.train(config, run_dir)
        detector.write_weights(run_dir / "weights/best.pt", run.workspace.weights_path)
        write_json({"run_dir": str(run_dir), **asdict(config)}, run.workspace.interim_dir / "training.json")

    run_step(
        f"train_fold{fold}",
        action,
        inputs=inputs,
        outputs=[run_dir / "results.csv", run.workspace.weights_path],
        settings=asdict(config),
        workspace=run.workspace.root,
    )
    return run_dir


def hyp_path(run: Run, hyp: str = "") -> Path:
    """The file of hyper-parameters: the one asked for, or the profile's in the repository."""
    return Path(hyp) if hyp else REPOSITORY / "hyp" / run.profile.hyp


def find_candidates(run: Run, images: pd.DataFrame, part: str) -> pd.DataFrame:
    """Every box that the weights to submit see in `images`, before suppression; `part` names the file."""
    path = run.workspace.interim_dir / f"candidates_{part}.parquet"

    def action() -> None:
        from . import detector

        found = detector.candidates(
            run.workspace.weights_path,
            images,
            run.competition.labels,
            imgsz=run.profile.imgsz,
            device=run.profile.device,
        )
        if found.n_cut.any():
            print(f"candidates: {found.n_cut.sum()} boxes of {(found.n_cut > 0).sum()} images were over the limit")
        write_table(found.boxes, path)

    run_step(
        f"candidates_{part}",
        action,
        inputs=[run.workspace.weights_path, *(Path(name) for name in sorted(set(images["archive"])))],
        outputs=[path],
        settings={"imgsz": run.profile.imgsz, "image_ids": images["image_id"].tolist()},
        workspace=run.workspace.root,
    )
    return pd.read_parquet(path)


def images_to_answer(run: Run) -> tuple[pd.DataFrame, str]:
    """The test images, or where the data has none the validation fold, and which of the two: `test` or `valid`."""
    test_images = pd.read_parquet(run.workspace.interim_dir / "test_images.parquet")
    if len(test_images):
        return test_images, "test"
    images = pd.read_parquet(run.workspace.interim_dir / "folds.parquet")
    return images[images["fold"] == 0], "valid"


def score_known_truth(run: Run, part: str) -> pd.DataFrame | None:
    """Scores of `answer.csv` by IoU and scorer, with each class's AP; None where the truth is not known.

    For `test` the truth is `truth_test.csv` in the data folder, for `valid` the human boxes of the validation fold.
    """
    from .metrics import competition_map, usual_map
    from .submission import from_rows, read_answer, read_truth, to_rows

    if part == "valid":
        images, _ = images_to_answer(run)
        boxes = pd.read_parquet(run.workspace.interim_dir / "boxes.parquet")
        truth = from_rows(to_rows(boxes[boxes["image_id"].isin(images["image_id"])], images))
    elif (run.data_dir / TRUTH_NAME).exists():
        truth = read_truth(run.data_dir / TRUTH_NAME)
    else:
        return None
    answer, rows = read_answer(run.workspace.answer_path), []
    for iou in sorted({run.competition.metric_iou, 0.5}, reverse=True):
        for scorer, score in (("competition", competition_map), ("usual", usual_map)):
            result = score(truth, answer, iou)
            rows.append({"scorer": scorer, "IoU": iou, "mAP": result.mean, **result.per_class["ap"]})
    return pd.DataFrame(rows)


def find_groups(run: Run) -> pd.Series:
    """The near-duplicate group of each training image by `image_id`; written to `interim/groups.parquet`."""
    from . import folds

    images_path, path = (run.workspace.interim_dir / f"{name}.parquet" for name in ("images", "groups"))

    def action() -> None:
        write_table(folds.near_duplicate_groups(pd.read_parquet(images_path)).reset_index(), path)

    run_step(
        "groups",
        action,
        inputs=[run.data_dir, images_path],
        outputs=[path],
        settings={"radius": folds.RADIUS},
        workspace=run.workspace.root,
    )
    return pd.read_parquet(path).set_index("image_id")["group"]


@dataclass(frozen=True)
class SplitTables:
    """`images` with `group` and `fold`; `mini`: whether an image is in the mini set, by `image_id`."""

    images: pd.DataFrame
    mini: pd.Series


def split_data(run: Run) -> SplitTables:
    """Folds to `interim/folds.parquet`, the images table; the mini set's ids to `interim/mini.parquet`.

    The mini set is half of every fold: its training part is what lies outside the validation fold.
    """
    from . import folds

    groups = find_groups(run)
    names = ["images", "boxes", "groups", "folds", "mini"]
    paths = [run.workspace.interim_dir / f"{name}.parquet" for name in names]

    def action() -> None:
        images, boxes = pd.read_parquet(paths[0]), pd.read_parquet(paths[1])
        images = folds.assign_folds(images, boxes, run.competition, groups=groups, seed=run.seed)
        mini = folds.mini_set(images, boxes, run.competition, seed=run.seed)
        write_table(images, paths[3])
        write_table(images.loc[mini.to_numpy(), ["image_id"]], paths[4])

    run_step(
        "split",
        action,
        inputs=paths[:3],
        outputs=paths[3:],
        settings={"seed": run.seed, "competition": asdict(run.competition)},
        workspace=run.workspace.root,
    )
    images, chosen = pd.read_parquet(paths[3]), pd.read_parquet(paths[4])["image_id"]
    mini = images["image_id"].isin(chosen).set_axis(images["image_id"]).rename("mini")
    return SplitTables(images, mini)
