"""Teachers, and tables of silver labels: each strategy's choice among the teachers' boxes in images new to them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data import readers
from ..data.folds import hash_images, near_duplicate_groups
from ..labels.missing import fuse_views, likely_boxes
from ..labels.silver import (
    NEVER,
    UNSURE,
    NothingSelected,
    Thresholds,
    choose_backgrounds,
    describe_evidence,
    draw_crops,
    lowest_precision,
    match_silver,
    rank_matched,
    select_silver,
    share_of_frames,
    thresholds_of,
    weigh_classes,
)
from ..tables import write_table
from .predict import predict_boxes, silver_paths, trained_folds
from .prepare import VALID_FOLD, read_tables
from .run import Run
from .store import forget, read_records, require_fresh, run_step
from .train import HUMAN, Training, choose_watched, train_as_fold, weights_named, write_lists

SILVER_VIEWS = ("plain", "flipped", "larger")
NEW_FOLD = -1  # of images that came without labels: in no fold
NEW_PREFIX = "new/"  # before their ids, which must differ from those of the data
TABLES = ("boxes", "hidden", "new")
logger = logging.getLogger(__name__)


def train_teachers(run: Run, n_teachers: int = 2) -> pd.Series:
    """Trains each teacher without its part of the training folds; returns the teacher's number by `image_id`.

    Like `04_train`'s model of fold 0, whose settings they take, none has seen the validation fold: what their labels
    change can be judged there. Their weights are the mean of the last epochs, so that nothing is chosen on the images
    that they label, and only a few of these are watched. Raises ValueError for fewer than two teachers, for more than
    there are folds to leave out, and if there is no model of the validation fold yet.
    """
    if VALID_FOLD not in (known := trained_folds(run)):
        raise ValueError(f"teachers: expected a model that left fold {VALID_FOLD} out, found those of {known}; run "
                         f"04_train with FOLDS = [{VALID_FOLD}] first")
    images, boxes = read_tables(run)
    teacher = assign_teachers(images, n_teachers)
    for number in range(n_teachers):
        own = teacher.index[teacher == number].to_series()
        others = teacher.index[teacher != number].to_series()
        training = teacher_training(run, number)
        watched = choose_watched(run, images[images["image_id"].isin(own)])
        data_yaml = write_lists(run, training.name, images, boxes, others, watched)
        train_as_fold(run, training, data_yaml, selects=False)
    return teacher


def teacher_training(run: Run, number: int) -> Training:
    """The training of the teacher of this number."""
    return Training("teacher", number, run.seed)


def assign_teachers(images: pd.DataFrame, n_teachers: int) -> pd.Series:
    """The number of the teacher that is not trained on an image, by `image_id`, for all but the validation fold.

    Whole folds, which keep near-duplicates together. Raises ValueError as `train_teachers`.

    >>> images = pd.DataFrame({"image_id": list("abcde"), "fold": [0, 1, 2, 3, 4]})
    >>> assign_teachers(images, n_teachers=2).to_dict()  # fold 0 validates; teacher 0 does not see b and c
    {'b': 0, 'c': 0, 'd': 1, 'e': 1}
    """
    folds = sorted(set(images["fold"]) - {VALID_FOLD})
    if len(folds) < 2:
        raise ValueError(f"teachers: each leaves out a part of the training folds, and {len(images):,} images fill "
                         f"only {len(folds)} beside the validation fold; leave 06_silver out (--skip 06_silver)")
    if not 2 <= n_teachers <= len(folds):
        raise ValueError(f"teachers: expected from 2 to {len(folds)}, the number of training folds, found {n_teachers}")
    parts = np.array_split(folds, n_teachers)
    of_fold = {fold: number for number, part in enumerate(parts) for fold in part}
    trained = images[images["fold"] != VALID_FOLD]
    return trained["fold"].map(of_fold).set_axis(trained["image_id"]).rename("teacher")


def find_silver(run: Run, teacher: pd.Series, new: pd.DataFrame | None = None) -> pd.DataFrame:
    """What the teachers see in images they were not trained on, as it is, mirrored and larger, fused: a boxes table.

    Images of the training folds are looked at by their own teacher, those of the validation fold by the model of
    `04_train` that left it out, `new` ones by every teacher.
    """
    images, _ = read_tables(run)
    tables = [fuse_views([member for watched in seen for member in predict_views(run, *watched)], seen[0][1])
              for seen in who_sees(run, images, teacher, new)]
    return pd.concat(tables, ignore_index=True).assign(source="silver")


def who_sees(
    run: Run, images: pd.DataFrame, teacher: pd.Series, new: pd.DataFrame | None = None
) -> list[list[tuple[Training, pd.DataFrame]]]:
    """Which trainings label which images, none of those that it was trained on: a list for each part of the images."""
    teachers = [teacher_training(run, number) for number in sorted(set(teacher))]
    watched = [[(training, images[images["image_id"].isin(teacher.index[teacher == training.fold])])]
               for training in teachers]
    watched.append([(Training("fold", VALID_FOLD), images[images["fold"] == VALID_FOLD])])
    if new is not None and len(new):
        watched.append([(training, new) for training in teachers])
    return watched


def predict_views(
    run: Run, training: Training, images: pd.DataFrame, views: Sequence[str] = SILVER_VIEWS
) -> list[pd.DataFrame]:
    """What is likely of a training's candidates, a table a pass of `VIEWS`, see `labels.missing.likely_boxes`.

    Averaged weights always: a best epoch would have been chosen on the very images that are looked at. Of the
    validation fold all candidates are kept, for its students are judged by them.
    """
    weights, few = weights_named(run, training, averaged=True), bool((images["fold"] == VALID_FOLD).all())
    tables = [predict_boxes(run, images, weights, view, likely=not few) for view in views]
    return [likely_boxes(table) for table in tables] if few else tables


def read_strategies(run: Run, strategies: Sequence[str]) -> tuple[list[str], pd.DataFrame | None]:
    """The names of strategies, and the new images of the folder that one of them gives (`unlabelled:FOLDER`), or None.

    Raises ValueError if `unlabelled` names no folder, if two folders are named, and as `read_new`.
    """
    parts = [strategy.partition(":") for strategy in strategies]
    names, folders = [name for name, _, _ in parts], sorted({folder for _, _, folder in parts if folder})
    if len(folders) > 1:
        raise ValueError(f"strategies: expected one folder of new images, found {folders}")
    if "unlabelled" in names and not folders:
        raise ValueError("strategies: expected 'unlabelled:FOLDER', new images without labels in the layout of the "
                         "data, found 'unlabelled' without a folder")
    return names, read_new(run, folders[0]) if folders else None


def read_new(run: Run, folder: str) -> pd.DataFrame:
    """New images without labels, a folder or a zip, as an images table; their ids begin with `new/`.

    Near-duplicates of the validation fold are left out, with a line that says so: they would be silver labels for it;
    and so are images that cannot be decoded. Raises ValueError for images that the data has already, or its test set:
    of one file name and size, and alike.
    """
    images, _ = read_tables(run)
    tests = pd.read_parquet(run.workspace.interim_dir / "test_images.parquet")
    found = readers.read(run.reader, Path(folder), run.competition, labelled=False).images
    found = found.assign(fold=NEW_FOLD, image_id=NEW_PREFIX + found["image_id"])
    hashes, faults = hash_images(pd.concat([images, tests, found], ignore_index=True))
    if faults:
        logger.warning("left out: %d images cannot be decoded: %s/%s: %s", len(faults), *faults[0])
        images, tests, found = (table[table["image_id"].isin(hashes.index)] for table in (images, tests, found))
    for what, table in (("has labels", images), ("is to be answered", tests)):
        if (known := _look_of(found, hashes).isin(_look_of(table, hashes))).any():
            first = found.loc[known, "member"].iloc[0]
            raise ValueError(f"{folder}: expected new images, found {first!r}, which {what}; {known.sum():,} of "
                             f"{len(found):,} are not new")
    groups = near_duplicate_groups(pd.concat([images, found], ignore_index=True), hashes=hashes)
    of_valid = groups[images.loc[images["fold"] == VALID_FOLD, "image_id"]]
    leaks = groups[found["image_id"]].isin(of_valid[of_valid >= 0]).to_numpy()
    if leaks.any():
        logger.warning("left out: %d new images are near-duplicates of the validation fold's", leaks.sum())
    return found[~leaks].reset_index(drop=True)


def _look_of(images: pd.DataFrame, hashes: pd.Series) -> pd.Series:
    """File name, size and perceptual hash of each image as one text."""
    size = images["width"].astype(str) + "x" + images["height"].astype(str)
    hashed = images["image_id"].map(hashes).astype("uint64").astype(str)
    return images["image_id"].map(lambda image_id: image_id.rpartition("/")[2]) + " " + size + " " + hashed


@dataclass(frozen=True)
class Guard:
    """What is known about silver boxes before any becomes a label; each of `bands` for known and for new images.

    `ranked` and `evidence`: the tables of `silver.rank_silver` and `silver.weigh_classes`. `bands`: thresholds by what
    labels in other frames show. `most`: thresholds for what may be added at most if a person accepts it. `proposed`:
    the boxes that those would add. `crops`: some of them to look at, with `frames` (`silver.share_of_frames`).
    """

    ranked: pd.DataFrame
    evidence: pd.DataFrame
    bands: tuple[dict[str, Thresholds], dict[str, Thresholds]]
    most: tuple[dict[str, Thresholds], dict[str, Thresholds]]
    proposed: pd.DataFrame
    crops: pd.DataFrame


def judge_silver(
    run: Run, silver: pd.DataFrame, teacher: pd.Series, new: pd.DataFrame | None = None, *, precision: float = 0.9
) -> Guard:
    """What is known about `silver`, and what a person should look at; `precision` is that of the boxes to add.

    Thresholds come from the images of the teachers alone, not from the validation fold. Frames are near-duplicates,
    also where `group_pattern` makes larger groups. The crops are the same whenever this runs on the same boxes.
    """
    images, gold = read_tables(run)
    frames = _group_frames(run, images)
    new = images.iloc[:0] if new is None else new
    known, judged = (table[table["image_id"].isin(teacher.index)] for table in (gold, silver))
    matched = match_silver(known, judged, frames)
    evidence = weigh_classes(matched, known, frames)
    ranked, by_shares = (rank_matched(matched, evidence, trust_shares=trust_shares) for trust_shares in (False, True))
    by_frames, at_most = (
        [thresholds_of(ranked, sorted(set(known["label"])), shares, precision=precision, new_images=is_new)
         for is_new in (False, True)] for shares in (None, by_shares))
    try:
        boxes, _ = select_silver("complete", gold, silver, frames, at_most[0], new, at_most[1])
    except NothingSelected:
        boxes = gold
    proposed = boxes[boxes["source"] == "silver"]
    crops = draw_crops(proposed, run.seed)
    return Guard(ranked, evidence, (by_frames[0], by_frames[1]), (at_most[0], at_most[1]), proposed,
                 crops.assign(frames=share_of_frames(crops, gold, frames)))


def _group_frames(run: Run, images: pd.DataFrame) -> pd.DataFrame:
    """The images table with groups of near-duplicates alone: frames of a camera that does not move."""
    hashes = pd.read_parquet(run.workspace.interim_dir / "hashes.parquet").set_index("image_id")["hash"]
    groups = near_duplicate_groups(images, hashes=hashes)
    return images.assign(group=groups.loc[images["image_id"]].to_numpy())


def decide_silver(
    guard: Guard, accept: int | None, *, precision: float = 0.9
) -> tuple[dict[str, Thresholds], dict[str, Thresholds], list[str]]:
    """Thresholds for known and for new images, and why, in sentences.

    `accept` is how many of the crops a person found right: all that is proposed is added if that makes `precision`
    likely (`silver.lowest_precision`), and otherwise nothing. With None labels in other frames decide. Raises
    ValueError for a number that is not from 0 to the number of crops.
    """
    if accept is None:
        return *guard.bands, describe_evidence(guard.evidence)
    n_crops, total = len(guard.crops), len(guard.proposed)
    lowest = lowest_precision(accept, n_crops, total)
    words = (f"ACCEPT: {accept} of {n_crops} crops are right, so of all {total:,} boxes at least {lowest:.0%} are; "
             f"asked for are {precision:.0%}: ")
    if lowest >= precision:
        return *guard.most, [f"{words}all of them are added"]
    old, new = guard.most
    return dict.fromkeys(old, NEVER), dict.fromkeys(new, Thresholds(NEVER.label, UNSURE)), [f"{words}nothing is added"]


def write_silver(
    run: Run, strategies: Sequence[str], silver: pd.DataFrame, teacher: pd.Series, new: pd.DataFrame | None = None,
    background_share: float = 0.1, *, accept: int | None = None, precision: float = 0.9,
) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """`silver.select_silver` by each strategy: boxes and hidden ones, by strategy, `HUMAN` first.

    Thresholds are those of `judge_silver` and `decide_silver`, whose reasons are printed. A strategy that selects
    nothing is left out, with a line that says so. Of new images those train that get a box, and as backgrounds some in
    which the teachers see nothing (see `silver.choose_backgrounds`). Written to `interim/silver_{strategy}_boxes`,
    `_hidden` and `_new.parquet`, the last an images table; what was chosen from earlier ones is void.
    """
    guard = judge_silver(run, silver, teacher, new, precision=precision)
    bands, new_bands, reasons = decide_silver(guard, accept, precision=precision)
    logger.info("%s", "\n".join(reasons))
    images, gold = read_tables(run)
    frames, new = _group_frames(run, images), images.iloc[:0] if new is None else new
    seen = silver_paths(run, who_sees(run, images, teacher, new), SILVER_VIEWS)
    labels, has_changed = {HUMAN: (gold, gold.iloc[:0])}, False
    for strategy in strategies:
        try:
            boxes, hidden = select_silver(strategy, gold, silver, frames, bands, new, new_bands)
        except NothingSelected as reason:
            logger.warning("left out: %s", reason)
            has_changed |= forget(run.workspace.root, f"silver_{strategy}")
            continue
        backgrounds = choose_backgrounds(new, silver, boxes["image_id"].nunique(), background_share,
                                         np.random.default_rng(run.seed))
        added = new[new["image_id"].isin(boxes["image_id"]) | new["image_id"].isin(backgrounds)]
        decided = {"strategy": strategy, "accept": accept, "precision": precision, "seed": run.seed,
                   "background_share": background_share,
                   "thresholds": [list(band) for each in (bands, new_bands) for band in each.values()]}
        has_changed |= _write_labels(run, strategy, (boxes, hidden, added), seen, decided, reasons)
        labels[strategy] = boxes, hidden
    chosen = read_records(run.workspace.root).get("recipe")
    if has_changed or (chosen and chosen.key and chosen.settings["labels"] not in labels):
        forget(run.workspace.root, "recipe")  # a kill before this does no harm: it rests on the old labels' trainings
    return labels


def _write_labels(
    run: Run, strategy: str, tables: Sequence[pd.DataFrame], seen: Sequence[Path], decided: Mapping[str, Any],
    reasons: Sequence[str],
) -> bool:
    """The tables of a strategy, with what they were made from: predictions, human labels, thresholds.

    Returns whether they are new.
    """
    paths = silver_files(run, strategy)

    def action() -> dict[str, Any]:
        for path, table in zip(paths, tables, strict=True):
            write_table(table, path)
        return {"boxes": int((tables[0]["source"] == "silver").sum()), "reasons": list(reasons)}

    content = {path.stem: hashlib.sha256(table.to_csv().encode()).hexdigest()
               for path, table in zip(paths, tables, strict=True)}
    return run_step(
        f"silver_{strategy}", action, outputs=paths, settings=decided, workspace=run.workspace.root, content=content,
        inputs=[*seen, *(run.workspace.interim_dir / f"{name}.parquet" for name in ("folds", "boxes"))],
        by="06_silver")


def silver_files(run: Run, strategy: str) -> list[Path]:
    """The files of a strategy's labels, by `TABLES`; none of human labels."""
    return [] if strategy == HUMAN else [run.workspace.interim_dir / f"silver_{strategy}_{name}.parquet"
                                         for name in TABLES]


def read_labels(run: Run, strategy: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The boxes to train with and those to hide, as `write_silver` left them; for `HUMAN` people's and none.

    Raises MissingResult if they are not there, StaleResult if they were made with other human labels, another split or
    other teachers; both name the notebook to run.
    """
    if strategy == HUMAN:
        gold = read_tables(run)[1]
        return gold, gold.iloc[:0]
    files = silver_files(run, strategy)
    require_fresh(run.workspace.root, files[0], "06_silver with this strategy")
    boxes, hidden = (pd.read_parquet(path) for path in files[:2])
    return boxes, hidden


def images_to_train(run: Run, strategy: str) -> pd.DataFrame:
    """The images table with the new images that the strategy's labels name; those have fold -1."""
    images, _ = read_tables(run)
    return images if strategy == HUMAN else pd.concat(
        [images, pd.read_parquet(silver_files(run, strategy)[-1])], ignore_index=True)
