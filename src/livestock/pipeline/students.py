"""The same training with and without silver labels, over seeds, and which labels the final model takes."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..evaluation import evaluate, mean_interval
from ..exceptions import StaleResult
from ..files.hashing import fingerprint, hash_content
from ..files.write import write_json
from ..labels.missing import SUSPECT_CONFIDENCE, find_suspects, fuse_views, set_aside
from ..labels.silver import without_silver
from ..postprocess import suppress
from ..search.pieces import share_pieces
from ..tables import write_table
from .plan import LEAST_SEEDS
from .predict import predict_boxes, read_oof
from .prepare import VALID_FOLD, read_tables
from .run import Run, find_share, read_kept_plan
from .shared import name_queue
from .silver import images_to_train, predict_views, read_labels, silver_files, teacher_training
from .store import find_record, read_records, require_fresh, run_step
from .train import (
    HUMAN,
    Training,
    read_config,
    read_training,
    settings_path,
    train_as_fold,
    weights_named,
    write_lists,
)

GAIN_THAT_MATTERS = 0.005  # of mAP, stated and not measured: a gain below it is not worth another seed's hours
STORAGE_NAME = "LIVESTOCK_STORAGE"  # postgresql://... may hold a password, which no file or notebook should
logger = logging.getLogger(__name__)


def student_training(run: Run, strategy: str, seed: int) -> Training:
    """The training with these labels and this seed: that of `04_train` where it had both."""
    first = Training("fold", VALID_FOLD, seed)
    same = strategy == HUMAN and seed == read_config(run, first).seed
    return first if same else Training("student", seed=seed, labels=strategy)


def train_student(run: Run, strategy: str, seed: int) -> Training:
    """Trains on all but the validation fold with these labels, unless `04_train` has done it.

    The validation fold keeps its human labels alone, whatever the strategy.
    """
    training = student_training(run, strategy, seed)
    if training.role == "fold":
        return training
    _, gold = read_tables(run)
    boxes, hidden = read_labels(run, strategy)
    images = images_to_train(run, strategy)
    is_valid = images["fold"] == VALID_FOLD
    valid_ids, train_ids = images.loc[is_valid, "image_id"], images.loc[~is_valid, "image_id"]
    boxes, hidden = without_silver(boxes, hidden, gold, valid_ids)
    data_yaml = write_lists(run, training.name, images, boxes, train_ids, valid_ids, hidden)
    train_as_fold(run, training, data_yaml, tables=silver_files(run, strategy))
    return training


def suspects_of_validation(run: Run, teacher: pd.Series) -> pd.DataFrame:
    """Likely missing labels of the validation fold: what the models that have not seen it agree on.

    That is every teacher and `04_train`'s model of that fold, each on the images as they are and mirrored.
    """
    images, truth = read_oof(run, [VALID_FOLD])
    trainings = [Training("fold", VALID_FOLD), *(teacher_training(run, number) for number in sorted(set(teacher)))]
    members = [member for training in trainings
               for member in predict_views(run, training, images, ("plain", "flipped"))]
    suspects = find_suspects(truth, fuse_views(members, images))
    return suspects[suspects["confidence"] >= SUSPECT_CONFIDENCE]


def evaluate_training(run: Run, training: Training, suspects: pd.DataFrame | None = None) -> pd.DataFrame:
    """Scores of a training on the validation fold: a row a class, `ap`, and `ap_fair` with boxes on suspects set aside.

    Usual AP at the competition's IoU with suppression as it comes, and the mean of the last epochs' weights: nothing is
    chosen on the images that judge. Raises MissingResult and StaleResult as `read_training`.
    """
    read_training(run, training)
    images, truth = read_oof(run, [VALID_FOLD])
    boxes = suppress(predict_boxes(run, images, weights_named(run, training, averaged=True), "plain"))
    iou = run.competition.metric_iou
    fair_boxes = boxes if suspects is None else set_aside(truth, boxes, suspects, iou)
    fair = evaluate(truth, fair_boxes, iou).per_class["ap"]
    return pd.DataFrame({"ap": evaluate(truth, boxes, iou).per_class["ap"], "ap_fair": fair}).reset_index()


def compare_students(run: Run, strategies: Sequence[str], seeds: Sequence[int], suspects: pd.DataFrame) -> pd.DataFrame:
    """Trains with the labels of each strategy and each seed: a row a training and class, as `evaluate_training`.

    With a budget the comparison stops after a seed where no strategy can gain what matters any more, see `is_settled`,
    and where the next would go beyond its share of the hours.
    Machines with one workspace share the trainings of a seed where the environment names a database (`STORAGE_NAME`).
    """
    storage = os.environ.get(STORAGE_NAME, "")
    rows: list[pd.DataFrame] = []
    for number, seed in enumerate(seeds, 1):
        if storage:
            share_students(run, storage, strategies, seed)
        rows += [evaluate_training(run, train_student(run, strategy, seed), suspects).assign(
            strategy=strategy, seed=seed) for strategy in strategies]
        if run.profile.budget_hours and number < len(seeds) and is_settled(pd.concat(rows, ignore_index=True)):
            logger.info("silver labels: after %d of %d seeds the interval of every strategy excludes a gain of %g; the "
                        "other seeds are not tried", number, len(seeds), GAIN_THAT_MATTERS)
            break
        if number < len(seeds) and is_spent(run, number):
            logger.info("silver labels: their share of the budget is spent after %d of %d seeds; the others are not "
                        "tried", number, len(seeds))
            break
    return pd.concat(rows, ignore_index=True)


def is_spent(run: Run, n_seeds: int) -> bool:
    """Whether the students of one seed more would go beyond their share of a budget; False with one seed."""
    share = find_share(run, "06_silver")
    if share is None or n_seeds < LEAST_SEEDS:
        return False
    spent = sum(record.seconds for step, record in read_records(run.workspace.root).items()
                if step.startswith("train_student") and record.key)
    return spent * (n_seeds + 1) / n_seeds > 3600 * share


def share_students(run: Run, storage: str, strategies: Sequence[str], seed: int) -> list[str]:
    """Trains with the labels of each strategy, here or on another machine; returns what was trained here."""
    files = [path for strategy in strategies for path in silver_files(run, strategy)]
    name = name_queue(run, "students", {"seed": seed, "strategies": sorted(strategies),
                                        "settings": fingerprint(settings_path(run, VALID_FOLD)),
                                        "labels": [fingerprint(path) for path in files]})
    return share_pieces(storage, name, list(strategies), lambda strategy: train_student(run, strategy, seed))


def is_settled(students: pd.DataFrame) -> bool:
    """Whether the 95 % interval of each strategy's gain lies below `GAIN_THAT_MATTERS`: no gain that matters is left.

    False with one seed, which has no interval, and where only human labels are compared. Looking after each seed makes
    the chance of a wrong stop somewhat larger than 2.5 %: of a gain that is there, none is taken by mistake, since
    `choose_labels` asks for an interval above zero.
    """
    highs = compare_labels(students).drop(index=HUMAN)["gain_high"]
    return bool(len(highs)) and bool((highs < GAIN_THAT_MATTERS).all())


def write_recipe(run: Run, strategy: str, students: pd.DataFrame, teacher: pd.Series) -> Path:
    """Writes down which labels the final model trains with and what they gained.

    `interim/recipe.json`, and beside it `students.parquet`, the table of `compare_students`.
    """
    path, table = _recipe_paths(run)
    gains = compare_labels(students).reset_index().astype(object).where(lambda table: table.notna(), None)
    trained = [student_training(run, str(labels), int(seed))
               for labels, seed in students[["strategy", "seed"]].drop_duplicates().itertuples(index=False)]
    weights = [weights_named(run, training, averaged=True) for training in trained]

    def action() -> None:
        write_table(students, table)
        write_json({"labels": strategy, "teachers": int(teacher.nunique()), "gains": gains.to_dict("records")}, path)

    run_step("recipe", action, inputs=weights, outputs=[path, table], workspace=run.workspace.root, by="06_silver",
             settings={"labels": strategy}, content={"students": hash_content(students.to_dict("records"))})
    return path


def _recipe_paths(run: Run) -> tuple[Path, Path]:
    return run.workspace.interim_dir / "recipe.json", run.workspace.interim_dir / "students.parquet"


def read_recipe(run: Run) -> tuple[str, pd.DataFrame, int]:
    """The labels that `06_silver` chose, its students and how many teachers it had.

    Where it has not run: people's labels, the model of `04_train`, and none. The same where what it chose no longer
    holds and a plan leaves it out; without such a plan StaleResult is raised.
    """
    path, table = _recipe_paths(run)
    human = HUMAN, evaluate_training(run, Training("fold", VALID_FOLD)).assign(strategy=HUMAN, seed=run.seed), 0
    if find_record(run.workspace.root, path) is None:
        return human
    try:
        require_fresh(run.workspace.root, path, "06_silver")
    except StaleResult as error:
        if not run.profile.budget_hours or "06_silver" not in read_kept_plan(run).get("skip", []):
            raise
        logger.info("%s; the plan leaves 06_silver out: people's labels are taken", error)
        return human
    recipe = json.loads(path.read_text(encoding="utf-8"))
    return recipe["labels"], pd.read_parquet(table), recipe["teachers"]


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
        if pd.isna(row["gain_low"]):
            words.append(f"With the labels of {strategy!r} mAP changes by {row['gain']:+.3f} with one seed: that shows "
                         "nothing, three seeds (N_SEEDS = 3) would.")
            continue
        words.append(f"With the labels of {strategy!r} mAP changes by {row['gain']:+.3f} ({row['seeds']:.0f} seeds, "
                     f"{row['gain_low']:+.3f} to {row['gain_high']:+.3f}): "
                     f"{'a gain' if strategy == chosen else 'no gain is shown'}.")
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
