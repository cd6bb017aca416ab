"""Teachers, their silver labels, and what these change: the same training with and without them, over seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .. import readers
from ..boxes import write_table
from ..errors import SUSPECT_CONFIDENCE, find_suspects, fuse_looks, set_aside
from ..metrics import mean_interval, usual_map
from ..postprocess import suppress
from ..silver import Band, NothingSelected, choose_backgrounds, select_silver, without_silver
from ..steps import fingerprint, write_json
from .data import VALID_FOLD, Run, read_tables
from .passes import find_candidates, oof_images, trained_folds
from .training import train_as_fold, weights_named, write_lists

LOOKS = ("plain", "flipped", "larger")
HUMAN = "human labels"
NEW_FOLD = -1  # of images that came without labels: in no fold


def train_teachers(run: Run, n_teachers: int = 2) -> pd.Series:
    """Trains each teacher without its part of the training folds; returns the teacher's number by `image_id`.

    Like `04_train`'s model of fold 0, whose settings they take, none has seen the validation fold: what their labels
    change can be judged there. Their weights are the mean of the last epochs, so that nothing is chosen on the images
    that they label. Raises ValueError for fewer than two teachers, for more than there are folds to leave out, and if
    there is no model of the validation fold yet.
    """
    if VALID_FOLD not in (known := trained_folds(run)):
        raise ValueError(f"teachers: expected a model that left fold {VALID_FOLD} out, found those of {known}; run "
                         f"04_train with FOLDS = [{VALID_FOLD}] first")
    images, boxes = read_tables(run)
    teacher = assign_teachers(images, n_teachers)
    for number in range(n_teachers):
        own = teacher.index[teacher == number].to_series()
        others = teacher.index[teacher != number].to_series()
        name = f"teacher{number}"
        train_as_fold(run, name, write_lists(run, name, images, boxes, others, own), run.seed)
    return teacher


def assign_teachers(images: pd.DataFrame, n_teachers: int) -> pd.Series:
    """The number of the teacher that is not trained on an image, by `image_id`, for all but the validation fold.

    Whole folds, which keep near-duplicates together. Raises ValueError as `train_teachers`.
    """
    folds = sorted(set(images["fold"]) - {VALID_FOLD})
    if not 2 <= n_teachers <= len(folds):
        raise ValueError(f"teachers: expected from 2 to {len(folds)}, the number of training folds, found {n_teachers}")
    parts = np.array_split(folds, n_teachers)
    of_fold = {fold: number for number, part in enumerate(parts) for fold in part}
    trained = images[images["fold"] != VALID_FOLD]
    return trained["fold"].map(of_fold).set_axis(trained["image_id"]).rename("teacher")


def find_silver(run: Run, teacher: pd.Series, unlabelled: pd.DataFrame | None = None) -> pd.DataFrame:
    """What the teachers see in images they were not trained on, as it is, mirrored and larger, fused: a boxes table.

    Images of the training folds are looked at by their own teacher, those of the validation fold by the model of
    `04_train` that left it out, new ones (`unlabelled`, an images table) by every teacher. Written to
    `interim/silver.parquet`.
    """
    images, _ = read_tables(run)
    watched = [(f"teacher{number}", images[images["image_id"].isin(teacher.index[teacher == number])])
               for number in sorted(set(teacher))]
    watched.append((f"fold{VALID_FOLD}", images[images["fold"] == VALID_FOLD]))
    tables = [fuse_looks([_look(run, name, own, look) for look in LOOKS], own) for name, own in watched]
    if unlabelled is not None and len(unlabelled):
        names = [name for name, _ in watched[:-1]]
        tables.append(fuse_looks([_look(run, name, unlabelled, look, "_new") for name in names for look in LOOKS],
                                 unlabelled))
    silver = pd.concat(tables, ignore_index=True).assign(source="silver")
    write_table(silver, run.workspace.interim_dir / "silver.parquet")
    return silver


def _look(run: Run, name: str, images: pd.DataFrame, look: str, suffix: str = "") -> pd.DataFrame:
    weights = weights_named(run, name, averaged=name.startswith("teacher"))
    return find_candidates(run, images, weights, look, f"{look}_{name}{suffix}")


def read_unlabelled(run: Run, folder: str) -> pd.DataFrame:
    """New images without labels, a folder in the reader's layout, as an images table with a fold of none.

    Written to `interim/unlabelled.parquet`. Raises ValueError for images that the data has already.
    """
    images, _ = read_tables(run)
    found = readers.read(run.reader, Path(folder), run.competition, labelled=False).images.assign(fold=NEW_FOLD)
    if len(known := found[found["image_id"].isin(images["image_id"])]):
        raise ValueError(f"{folder}: expected new images, found {known['image_id'].iloc[0]!r}, which has labels; "
                         f"{len(known):,} of {len(found):,} are not new")
    write_table(found, run.workspace.interim_dir / "unlabelled.parquet")
    return found


def write_silver(
    run: Run, strategies: Sequence[str], silver: pd.DataFrame, bands: dict[str, Band],
    unlabelled: pd.DataFrame | None = None, background_share: float = 0.1,
) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """`silver.select_silver` by each strategy: boxes and hidden ones, by strategy, `HUMAN` first.

    A strategy that selects nothing is left out, with a line that says so. Of new images those train that get a box, and
    as backgrounds some in which the teachers see nothing (see `silver.choose_backgrounds`). Written to
    `interim/silver_{strategy}_boxes`, `_hidden` and `_new.parquet`, the last an images table.
    """
    images, gold = read_tables(run)
    new = images.iloc[:0] if unlabelled is None else unlabelled
    every, labels = pd.concat([images, new], ignore_index=True), {HUMAN: (gold, gold.iloc[:0])}
    for strategy in strategies:
        try:
            boxes, hidden = select_silver(strategy, gold, silver, every, bands)
        except NothingSelected as reason:
            print(f"left out: {reason}")
            continue
        backgrounds = choose_backgrounds(new, boxes, hidden, background_share, np.random.default_rng(run.seed))
        added = new[new["image_id"].isin(boxes["image_id"]) | new["image_id"].isin(backgrounds)]
        for name, table in (("boxes", boxes), ("hidden", hidden), ("new", added)):
            write_table(table, _silver_path(run, strategy, name))
        labels[strategy] = boxes, hidden
    return labels


def _silver_path(run: Run, strategy: str, name: str) -> Path:
    return run.workspace.interim_dir / f"silver_{strategy}_{name}.parquet"


def read_labels(run: Run, strategy: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The boxes to train with and those to hide, as `write_silver` left them; for `HUMAN` people's and none.

    Raises ValueError naming the notebook to run if they are not there.
    """
    if strategy == HUMAN:
        gold = read_tables(run)[1]
        return gold, gold.iloc[:0]
    paths = [_silver_path(run, strategy, name) for name in ("boxes", "hidden")]
    if missing := [path for path in paths if not path.exists()]:
        raise ValueError(f"{missing[0]}: no silver labels by {strategy!r} yet; run 06_silver with it first")
    return pd.read_parquet(paths[0]), pd.read_parquet(paths[1])


def train_student(run: Run, strategy: str, seed: int) -> str:
    """Trains on all but the validation fold with these labels; returns the training's name (see `weights_named`).

    The validation fold keeps its human labels alone, whatever the strategy. With `HUMAN` labels and the run's seed that
    is the training of `04_train`.
    """
    if strategy == HUMAN and seed == run.seed:
        return f"fold{VALID_FOLD}"
    _, gold = read_tables(run)
    boxes, hidden = read_labels(run, strategy)
    images = images_to_train(run, strategy)
    is_valid = images["fold"] == VALID_FOLD
    valid_ids, train_ids = images.loc[is_valid, "image_id"], images.loc[~is_valid, "image_id"]
    boxes, hidden = without_silver(boxes, hidden, gold, valid_ids)
    name = f"{'human' if strategy == HUMAN else strategy}_{seed}"
    train_as_fold(run, name, write_lists(run, name, images, boxes, train_ids, valid_ids, hidden), seed)
    return name


def images_to_train(run: Run, strategy: str) -> pd.DataFrame:
    """The images table with the new images that the strategy's labels name; those have fold -1."""
    images, _ = read_tables(run)
    return images if strategy == HUMAN else pd.concat(
        [images, pd.read_parquet(_silver_path(run, strategy, "new"))], ignore_index=True)


def suspects_of_validation(run: Run, teacher: pd.Series) -> pd.DataFrame:
    """Likely missing labels of the validation fold: what the models that have not seen it agree on.

    That is every teacher and `04_train`'s model of that fold, each on the images as they are and mirrored.
    """
    images, truth = oof_images(run, [VALID_FOLD])
    names = [f"fold{VALID_FOLD}", *(f"teacher{number}" for number in sorted(set(teacher)))]
    members = [_look(run, name, images, look, "_valid" if name.startswith("teacher") else "")
               for name in names for look in ("plain", "flipped")]
    suspects = find_suspects(truth, fuse_looks(members, images))
    return suspects[suspects["confidence"] >= SUSPECT_CONFIDENCE]


def judge(run: Run, name: str, suspects: pd.DataFrame | None = None) -> pd.DataFrame:
    """Scores of a training on the validation fold: a row a class, `ap`, and `ap_fair` with boxes on suspects set aside.

    Usual AP at the competition's IoU with suppression as it comes, and the mean of the last epochs' weights: nothing is
    chosen on the images that judge.
    """
    images, truth = oof_images(run, [VALID_FOLD])
    weights = weights_named(run, name, averaged=True)
    boxes = suppress(find_candidates(run, images, weights, "plain", f"averaged_{name}_valid"))
    iou = run.competition.metric_iou
    fair_boxes = boxes if suspects is None else set_aside(truth, boxes, suspects, iou)
    fair = usual_map(truth, fair_boxes, iou).per_class["ap"]
    return pd.DataFrame({"ap": usual_map(truth, boxes, iou).per_class["ap"], "ap_fair": fair}).reset_index()


def compare_students(run: Run, strategies: Sequence[str], seeds: Sequence[int], suspects: pd.DataFrame) -> pd.DataFrame:
    """Trains with the labels of each strategy and each seed: a row a training and class, the columns of `judge`.

    Written to `interim/students.parquet`.
    """
    rows = [judge(run, train_student(run, strategy, seed), suspects).assign(strategy=strategy, seed=seed)
            for seed in seeds for strategy in strategies]
    table = pd.concat(rows, ignore_index=True)
    write_table(table, run.workspace.interim_dir / "students.parquet")
    return table


def write_recipe(run: Run, strategy: str, gains: pd.DataFrame) -> Path:
    """Writes down which labels the final model trains with and what they gained, to `interim/recipe.json`."""
    path = run.workspace.interim_dir / "recipe.json"
    split = fingerprint(run.workspace.interim_dir / "folds.parquet")
    write_json({"labels": strategy, "split": split, "gains": gains.reset_index().to_dict("records")}, path)
    return path


def read_recipe(run: Run) -> tuple[str, pd.DataFrame]:
    """The labels that `06_silver` chose, and its students; where it has not run people's, and `04_train`'s model.

    Raises ValueError if the split has changed since.
    """
    path = run.workspace.interim_dir / "recipe.json"
    if not path.exists():
        return HUMAN, judge(run, f"fold{VALID_FOLD}").assign(strategy=HUMAN, seed=run.seed)
    recipe = json.loads(path.read_text(encoding="utf-8"))
    if recipe["split"] != fingerprint(run.workspace.interim_dir / "folds.parquet"):
        raise ValueError(f"{path}: chosen on another split than the present one; run 06_silver again, or delete it")
    return recipe["labels"], pd.read_parquet(run.workspace.interim_dir / "students.parquet")


def compare_labels(students: pd.DataFrame, column: str = "ap_fair") -> pd.DataFrame:
    """What each strategy changes, over seeds: a row a strategy, `HUMAN` first.

    `mAP` is the mean over seeds of the mean over classes; `gain` that of the difference to `HUMAN` with the same seed,
    from `gain_low` to `gain_high` with 95 % confidence (Student's t over seeds; NaN for a single one).
    """
    by_seed = students.groupby(["strategy", "seed"], sort=False)[column].mean().unstack("strategy")
    rows = {}
    for strategy in by_seed.columns:
        gain, low, high = mean_interval((by_seed[strategy] - by_seed[HUMAN]).to_numpy())
        rows[strategy] = {"mAP": by_seed[strategy].mean(), "gain": gain, "gain_low": low, "gain_high": high,
                          "seeds": by_seed[strategy].count()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("labels")


def choose_labels(gains: pd.DataFrame) -> str:
    """The strategy of `compare_labels` with the highest gain of those shown to gain; `HUMAN` if there is none."""
    shown = gains[gains["gain_low"] > 0]
    return str(shown["gain"].idxmax()) if len(shown) else HUMAN
