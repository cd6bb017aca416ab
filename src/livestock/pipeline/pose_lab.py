"""Experiments with keypoints: settings that differ in one thing, several seeds, judged on images that none has seen.

As `experiment` is for boxes: a `PoseArm` is a setting, all arms of a `PoseLab` share images, size, epochs and schedule
but for what an arm says itself, and the averaged weights of the last epochs are judged, so that nothing is chosen on
the images that judge. What a training found is kept by all that it depends on.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from ..config import REPOSITORY, Skeleton
from ..data.archives import stamp_members
from ..data.pose_set import write_pose_set
from ..evaluation.matching import match_at_ious
from ..evaluation.pixel import as_true_objects
from ..evaluation.precision import score
from ..files.hashing import fingerprint, hash_content
from ..files.progress import one_bar
from ..files.write import write_bytes
from ..postprocess import suppress
from ..tables import make_boxes, make_keypoints, read_table, write_table
from .experiment import DIVERGED
from .store import read_records, run_step
from .train import MACHINE, PLACES

if TYPE_CHECKING:
    from ..inference import Candidates
    from ..models.loaded import LoadedModel
    from ..training import TrainConfig

logger = logging.getLogger(__name__)
N_TIMED = 24  # objects whose prediction is timed, each by itself
NOTEBOOKS = {"heatmap": "10_heatmap", "topdown": "11_pose", "yolo_pose": "12_yolo_pose"}  # of each family
PARTS = {"yolo_pose": "pose"}  # the part of the loss that is about places, where it is not `maps`
N_WATCHED = 8  # images of a training that it is validated on
VERSION = 1  # of what a training's result means
POINTS_VERSION = 1  # of what its points mean


@dataclass(frozen=True)
class PoseScale:
    """How big an experiment is: objects to train on and to judge by, at most; pixels of the input; objects a batch;
    epochs; trainings of each arm."""

    objects: int
    judged: int
    imgsz: int
    batch: int
    epochs: int
    n_seeds: int
    device: str = ""
    workers: int = 0


@dataclass(frozen=True)
class PoseArm:
    """One setting: a network, what it starts from, and in what it differs from the others.

    `weights` is a file or an official name, "" for random ones. `epochs` is a share of the scale's; `settings` are
    fields of `TrainConfig`, such as `batch`; `flip` looks at the mirrored object too. With `points` these alone are
    asked for. `filmed` epochs leave their weights behind.
    """

    name: str
    family: str
    size: str
    weights: str = ""
    hyp: Mapping[str, float] = field(default_factory=dict)
    epochs: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    flip: bool = False
    points: tuple[str, ...] = ()
    filmed: tuple[int, ...] = ()


@dataclass(frozen=True)
class PoseLab:
    """Where an experiment takes place: its tables, and the ids of the images that train and of those that judge.

    `images` has groups. Points are looked for in true boxes, or in whole pictures if `is_whole`.
    """

    root: Path
    scale: PoseScale
    images: pd.DataFrame
    boxes: pd.DataFrame
    keypoints: pd.DataFrame
    skeleton: Skeleton
    train_ids: Sequence[str]
    judged_ids: Sequence[str]
    seed: int = 0
    is_whole: bool = False

    @property
    def judged(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Images, boxes and keypoints that judge."""
        return self._part(self.judged_ids)

    @property
    def trained(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Images, boxes and keypoints that train."""
        return self._part(self.train_ids)

    def _part(self, ids: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        images, boxes, keypoints = (table[table["image_id"].isin(list(ids))].reset_index(drop=True)
                                    for table in (self.images, self.boxes, self.keypoints))
        return images, boxes, keypoints


@dataclass(frozen=True)
class PoseResult:
    """What one training came to: its points in the boxes that judge, its history, weights, and what is known of it.

    `facts`: `parameters` (millions), `megabytes` in half precision, `seconds` an epoch, `gigabytes`, `epochs`, and
    `milliseconds` an object at prediction, from the file to its points. `film` has weights by epoch. A training that
    diverged found no point and has `epochs` alone: its files of weights have no bytes.

    Of a network that finds the objects too, `objects` has all boxes and keypoints that it found; `keypoints` are those
    of boxes that match a true one at an IoU of 0.5. `milliseconds` are those of a picture then, and `box_AP50` and
    `box_AP75` are facts.
    """

    arm: PoseArm
    seed: int
    keypoints: pd.DataFrame
    history: pd.DataFrame
    weights: Path
    facts: dict[str, float]
    film: dict[int, Path]
    objects: tuple[pd.DataFrame, pd.DataFrame] | None = None


def split_by_group(images: pd.DataFrame, share: float, seed: int) -> tuple[list[str], list[str]]:
    """Image ids to train on and, of up to this `share`, to judge by: whole groups, drawn with a seed, as many as fit.

    >>> images = pd.DataFrame({"image_id": list("abcd"), "group": [0, 0, 1, -1]})
    >>> train, judged = split_by_group(images, 0.5, seed=0)
    >>> sorted(train + judged), ("a" in train) == ("b" in train)
    (['a', 'b', 'c', 'd'], True)
    """
    alone = np.where(images["group"] >= 0, images["group"], -1 - np.arange(len(images)))
    names = np.random.default_rng(seed).permutation(np.unique(alone))
    sizes, chosen, n_left = pd.Series(alone).value_counts(), [], share * len(images)
    for name in names:
        if sizes[name] <= n_left:
            chosen.append(name)
            n_left -= sizes[name]
    if n_left > share * len(images) / 2:
        logger.warning("%d of %d images can judge, where %.0f were wanted: groups of images that are alike stay whole",
                       np.isin(alone, chosen).sum(), len(images), share * len(images))
    is_judged = np.isin(alone, chosen or sizes.index[-1:])
    return images.loc[~is_judged, "image_id"].tolist(), images.loc[is_judged, "image_id"].tolist()


def take_objects(ids: Sequence[str], boxes: pd.DataFrame, most: int, seed: int) -> list[str]:
    """Some of these image ids, drawn with a seed, that have up to so many objects together; one image at least.

    >>> boxes = pd.DataFrame({"image_id": ["a", "a", "b", "c"]})
    >>> len(take_objects(["a", "b", "c"], boxes, most=4, seed=0)), len(take_objects(["a"], boxes, most=1, seed=0))
    (3, 1)
    """
    drawn = np.random.default_rng(seed).permutation(np.array(ids, object))
    total = boxes["image_id"].value_counts().reindex(drawn).fillna(0).cumsum()
    return sorted(drawn[: max(int((total <= most).sum()), 1)])


def run_pose_arms(lab: PoseLab, arms: Sequence[PoseArm]) -> list[PoseResult]:
    """Trains each arm with each seed; what was trained before is read.

    A session that ends early has one seed of every arm rather than three of the first.
    """
    results = []
    seeds = [lab.seed + number for number in range(lab.scale.n_seeds)]
    with one_bar("trainings", unit="training", total=len(arms) * len(seeds)) as bar:
        for seed in seeds:
            for arm in arms:
                bar.set_postfix({"now": f"{arm.name}, seed {seed}"})
                results.append(train_pose_arm(lab, arm, seed))
                bar.update()
    order = [arm.name for arm in arms]
    return sorted(results, key=lambda result: order.index(result.arm.name))


def train_pose_arm(lab: PoseLab, arm: PoseArm, seed: int) -> PoseResult:
    """One training, or what is kept of it."""
    made_from, config = _describe(lab, arm, seed)
    key = hash_content(made_from)[:16]
    looks = {"training": key, "flip": arm.flip, "tables": _stamp(*lab.judged[:2])}
    found = f"{key}_{hash_content(looks)[:8]}"
    folder, by, finds_objects = lab.root / "interim/poses", NOTEBOOKS[arm.family], arm.family == "yolo_pose"
    kept = [folder / f"{key}_history.parquet", folder / f"{key}.safetensors",
            *[folder / f"{key}_{epoch}.safetensors" for epoch in arm.filmed]]
    points = [folder / f"{found}{name}.parquet" for name in ("", *(("_boxes", "_points") if finds_objects else ()))]
    run_step(f"pose_{key}", lambda: _train(lab, arm, config, kept), outputs=kept, settings=made_from,
             workspace=lab.root, by=by, says=False)
    run_step(f"points_{found}", lambda: _predict(lab, arm, kept[1], points), inputs=[kept[1]], outputs=points,
             settings=looks, workspace=lab.root, version=POINTS_VERSION, by=by, says=False)
    records = read_records(lab.root)
    return PoseResult(arm, seed, read_table(points[0]), read_table(kept[0]), kept[1],
                      {**records[f"pose_{key}"].notes, **records[f"points_{found}"].notes},
                      dict(zip(arm.filmed, kept[2:], strict=True)),
                      (read_table(points[1]), read_table(points[2])) if finds_objects else None)


def find_training(lab: PoseLab, arm: PoseArm, seed: int) -> str:
    """What a training is kept by: arms of one key are one training, whatever their names."""
    return hash_content(_describe(lab, arm, seed)[0])[:16]


def _describe(lab: PoseLab, arm: PoseArm, seed: int) -> tuple[dict[str, Any], TrainConfig]:
    """All that a training depends on, and its settings."""
    config = _configure(lab, arm, seed)
    own = {name: value for name, value in asdict(config).items() if name not in (*PLACES, *MACHINE)}
    return {**own, "start": fingerprint(Path(config.weights)) if config.weights else "",
            "values": read_pose_values(arm), "points": list(arm.points), "filmed": list(arm.filmed),
            "tables": _stamp(*lab.trained),
            "skeleton": [[one.label, one.keypoint, one.flip, one.part] for one in lab.skeleton.keypoints],
            "version": VERSION}, config


def _stamp(images: pd.DataFrame, *tables: pd.DataFrame) -> str:
    """What pictures and tables of them are known by."""
    said = [table.drop(columns=["archive", "member", "group", "fold"], errors="ignore").to_dict("list")
            for table in (images, *tables)]
    return hash_content([said, stamp_members(images["archive"].tolist(), images["member"].tolist())])


def read_pose_values(arm: PoseArm) -> dict[str, float]:
    """The hyper-parameters of an arm: its family's file, and what it changes."""
    values = yaml.safe_load((REPOSITORY / f"hyp/{arm.family}.yaml").read_text(encoding="utf-8"))
    return {**values, **arm.hyp}


def _configure(lab: PoseLab, arm: PoseArm, seed: int) -> TrainConfig:
    from ..models.registry import find_start
    from ..training import TrainConfig

    start = find_start(arm.family, arm.weights, lab.root / "weights") if arm.weights else None
    scale = lab.scale
    settings = {"imgsz": scale.imgsz, "batch": scale.batch, "nominal_batch": scale.batch,
                "optimizer": "SGD" if arm.family == "yolo_pose" else "Adam",
                "epochs": max(round(scale.epochs * arm.epochs), 1), "schedule": "cosine",
                "device": scale.device, "workers": scale.workers, **arm.settings}
    if "batch" in arm.settings:
        settings["nominal_batch"] = arm.settings["batch"]
    return TrainConfig("data.yaml", str(start or ""), "hyp.yaml", family=arm.family, size=arm.size, seed=seed,
                       **settings)


def _train(lab: PoseLab, arm: PoseArm, config: TrainConfig, kept: Sequence[Path]) -> dict[str, float]:
    """Trains an arm and writes its history, weights and film; returns the facts. Its folder is deleted then.

    A training that diverges would do so again on this device: it is kept, with weights of no bytes.
    """
    from ..models.checkpoint import read_checkpoint
    from ..search.space import write_hyp
    from ..training import train

    values = read_pose_values(arm)
    run_dir = lab.root / "runs" / kept[1].stem  # a training that was cut off goes on there
    run_dir.mkdir(parents=True, exist_ok=True)
    write_hyp(values, run_dir / "hyp.yaml", [f"{arm.name}, seed {config.seed}"])
    skeleton = keep_points(lab.skeleton, arm.points)
    # A training needs images for its validation, by which nothing is chosen here: a few of its own are enough.
    points = lab.trained[2]
    has_point = (points["visible"] > 0) & points["keypoint"].isin([point.keypoint for point in skeleton.keypoints])
    watched = list(points.loc[has_point, "image_id"].unique()[:N_WATCHED])
    data_yaml = write_pose_set(run_dir / "data", lab.trained, skeleton, {"train": list(lab.train_ids), "val": watched})
    kept[0].parent.mkdir(parents=True, exist_ok=True)
    film = dict(zip(arm.filmed, kept[2:], strict=True))

    def keep_film(row: Mapping[str, float]) -> None:
        if (epoch := int(row["epoch"])) in film:
            shutil.copyfile(run_dir / f"weights/epoch{epoch:04d}.safetensors", film[epoch])

    config = replace(config, data_yaml=str(data_yaml.resolve()), hyp=str((run_dir / "hyp.yaml").resolve()))
    try:
        history = train(config, run_dir, on_epoch=keep_film)
    except RuntimeError as error:
        if DIVERGED not in str(error):
            raise
        logger.warning("%s, seed %d: the training diverged, so it finds nothing: lr0 %g", arm.name, config.seed,
                       values["lr0"])
        write_table(pd.DataFrame([{"epoch": 0, f"train_{PARTS.get(arm.family, 'maps')}_loss": np.nan}]), kept[0])
        for path in kept[1:]:
            write_bytes(b"", path)
        shutil.rmtree(run_dir)
        return {"epochs": float(config.epochs)}
    write_table(history, kept[0])
    shutil.copyfile(run_dir / "weights/averaged.safetensors", kept[1])
    facts = {"parameters": sum(tensor.numel() for tensor in read_checkpoint(kept[1]).tensors.values()) / 1e6,
             "megabytes": kept[1].stat().st_size / 1e6, "seconds": float(history["seconds"].median()),
             "gigabytes": float(history["gigabytes"].max()), "epochs": float(len(history))}
    shutil.rmtree(run_dir)
    return facts


def _predict(lab: PoseLab, arm: PoseArm, weights: Path, paths: Sequence[Path]) -> dict[str, float]:
    """Writes the points that an arm finds in the objects that judge, and the objects too; returns the facts of that."""
    if not weights.stat().st_size:  # it diverged
        for path, table in zip(paths, (make_keypoints([]), make_boxes([]), make_keypoints([])), strict=False):
            write_table(table, path)
        return {}
    if len(paths) > 1:
        return _predict_objects(lab, arm, weights, paths)
    found, milliseconds = predict_judged(lab, weights, lab.scale.device, flip=arm.flip)
    write_table(found, paths[0])
    return {"milliseconds": milliseconds}


def _predict_objects(lab: PoseLab, arm: PoseArm, weights: Path, paths: Sequence[Path]) -> dict[str, float]:
    """Writes the points of found objects that match a true one, all boxes, all points."""
    from ..models.forward import load_for_inference

    find = partial(find_objects, load_for_inference(weights, lab.scale.device), lab.scale.imgsz, flip=arm.flip)
    images, truth, _ = lab.judged
    found = find(images)
    points = make_keypoints([]) if found.keypoints is None else found.keypoints
    milliseconds = time_each(images, find, "image")
    for table, path in zip((as_true_objects(truth, found.boxes, points), found.boxes, points), paths, strict=True):
        write_table(table, path)
    boxes = {f"box_{name}": score(one).mean for name, one in zip(
        ("AP50", "AP75"), match_at_ious(truth, found.boxes, [0.5, 0.75]), strict=True)}
    return {"milliseconds": milliseconds, **boxes}


def find_objects(model: LoadedModel, imgsz: int, images: pd.DataFrame, *, flip: bool = False) -> Candidates:
    """Objects and their points in some images, suppressed with fixed thresholds that no arm can tune."""
    from ..inference import find_candidates

    keep = partial(suppress, iou_threshold=0.6, conf_threshold=0.001)
    return find_candidates(model, images, list(model.labels), imgsz=imgsz, flip=flip, keep=keep)


def time_each(table: pd.DataFrame, find: Callable[[pd.DataFrame], object], unit: str) -> float:
    """Milliseconds of a row of a table: the median over the last `N_TIMED`, one after the other."""
    seconds, timed = [], table.tail(N_TIMED)
    with one_bar("milliseconds", unit=unit, total=len(timed)) as bar:
        for row in range(len(timed)):
            started = time.perf_counter()
            find(timed.iloc[[row]])
            seconds.append(time.perf_counter() - started)
            bar.update()
    return 1000 * float(np.median(seconds))


def keep_points(skeleton: Skeleton, names: Sequence[str]) -> Skeleton:
    """A skeleton of these points alone, without edges; all of it where none is named. Mirrors that are gone are lost.

    Raises ValueError for a name that it does not have.
    """
    if not names:
        return skeleton
    known = {point.keypoint for point in skeleton.keypoints}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"points: expected some of {', '.join(sorted(known))}, found {unknown[0]!r}")
    kept = []
    for label in skeleton.labels:
        own = [point for point in skeleton.of(label) if point.keypoint in names]
        has_all = all(point.flip in names for point in own)
        kept += [replace(point, index=index, flip=point.flip if has_all else None) for index, point in enumerate(own)]
    return Skeleton(tuple(kept))


def predict_judged(lab: PoseLab, weights: Path, device: str, *, flip: bool = False) -> tuple[pd.DataFrame, float]:
    """The points that a model finds in the objects that judge, and milliseconds an object, its picture read and all.

    That is the median over the last `N_TIMED` objects, one after the other, after all have been predicted once.
    """
    from ..models.forward import load_for_inference
    from ..poses import find_poses

    model = load_for_inference(weights, device)
    images, boxes, _ = lab.judged
    found = find_poses(model, images, boxes, flip=flip)
    return found, time_each(boxes, lambda one: find_poses(model, images, one, flip=flip, batch=1), "object")
