"""The same training with and without silver labels, over seeds, and which labels the final model takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..evaluation import mean_interval, usual_map
from ..files.write import write_json
from ..labels.missing import SUSPECT_CONFIDENCE, find_suspects, fuse_looks, set_aside
from ..labels.silver import without_silver
from ..postprocess import suppress
from ..tables import write_table
from .data import VALID_FOLD, Run, read_tables
from .passes import find_candidates, oof_images
from .silver import HUMAN, images_to_train, look_at, read_labels
from .training import (
    check_basis,
    data_basis,
    read_training,
    train_as_fold,
    training_basis,
    weights_named,
    write_lists,
)


def train_student(run: Run, strategy: str, seed: int) -> str:
    """Trains on all but the validation fold with these labels; returns the training's name (see `weights_named`).

    The validation fold keeps its human labels alone, whatever the strategy. With `HUMAN` labels and the seed of
    `04_train` that is its training.
    """
    if strategy == HUMAN and seed == read_training(run, f"fold{VALID_FOLD}")["config"]["seed"]:
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


def suspects_of_validation(run: Run, teacher: pd.Series) -> pd.DataFrame:
    """Likely missing labels of the validation fold: what the models that have not seen it agree on.

    That is every teacher and `04_train`'s model of that fold, each on the images as they are and mirrored.
    """
    images, truth = oof_images(run, [VALID_FOLD])
    names = [f"fold{VALID_FOLD}", *(f"teacher{number}" for number in sorted(set(teacher)))]
    members = [look_at(run, name, images, look, "valid") for name in names for look in ("plain", "flipped")]
    suspects = find_suspects(truth, fuse_looks(members, images))
    return suspects[suspects["confidence"] >= SUSPECT_CONFIDENCE]


def judge(run: Run, name: str, suspects: pd.DataFrame | None = None) -> pd.DataFrame:
    """Scores of a training on the validation fold: a row a class, `ap`, and `ap_fair` with boxes on suspects set aside.

    Usual AP at the competition's IoU with suppression as it comes, and the mean of the last epochs' weights: nothing is
    chosen on the images that judge. Raises ValueError for a training on another split or other human labels.
    """
    record = read_training(run, name)
    if any(record.get(what) != value for what, value in data_basis(run).items()):
        raise ValueError(f"{weights_named(run, name, averaged=True)}: trained on another split or other labels than "
                         "the present ones; run 04_train and 06_silver again")
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


def write_recipe(run: Run, strategy: str, students: pd.DataFrame, teacher: pd.Series) -> Path:
    """Writes down which labels the final model trains with and what they gained, to `interim/recipe.json`."""
    path = run.workspace.interim_dir / "recipe.json"
    gains = compare_labels(students).reset_index().astype(object).where(lambda table: table.notna(), None)
    write_json({"labels": strategy, "teachers": int(teacher.nunique()), "gains": gains.to_dict("records"),
                **training_basis(run)}, path)
    return path


def read_recipe(run: Run) -> tuple[str, pd.DataFrame, int]:
    """The labels that `06_silver` chose, its students and how many teachers it had.

    Where it has not run: people's labels, the model of `04_train`, and none. Raises ValueError if the split, the labels
    or that model have changed since.
    """
    path = run.workspace.interim_dir / "recipe.json"
    if not path.exists():
        return HUMAN, judge(run, f"fold{VALID_FOLD}").assign(strategy=HUMAN, seed=run.seed), 0
    recipe = json.loads(path.read_text(encoding="utf-8"))
    check_basis(run, recipe, path, "06_silver")
    return recipe["labels"], pd.read_parquet(run.workspace.interim_dir / "students.parquet"), recipe["teachers"]


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


def describe_choice(students: pd.DataFrame) -> str:
    """What each strategy changed and which labels are taken, in a sentence each."""
    gains, chosen = compare_labels(students), choose_labels(students)
    words = []
    for strategy, row in gains.drop(index=HUMAN).iterrows():
        interval = "" if pd.isna(row["gain_low"]) else f", {row['gain_low']:+.3f} to {row['gain_high']:+.3f}"
        words.append(f"With the labels of {strategy!r} mAP changes by {row['gain']:+.3f} ({row['seeds']:.0f} seeds"
                     f"{interval}): {'a gain' if strategy == chosen else 'no gain is shown'}.")
    if not words:
        words = ["No silver label was made, so there is nothing to compare."]
    return " ".join([*words, f"The final model takes {'the ' if chosen == HUMAN else 'the labels of '}{chosen}."])


def choose_labels(students: pd.DataFrame) -> str:
    """The strategy that gains most of those shown to gain; `HUMAN` if there is none.

    Shown is a gain whose interval is above zero with suspects set aside, and that is no loss as people labelled: a
    student that repeats its teachers' mistakes is forgiven by the first, since suspects are what teachers agree on.
    """
    gains, strict = compare_labels(students), compare_labels(students, "ap")
    shown = gains[(gains["gain_low"] > 0) & (strict["gain"] >= 0)]
    return str(shown["gain"].idxmax()) if len(shown) else HUMAN
