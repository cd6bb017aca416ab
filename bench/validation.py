"""How many images does it take for the validation score to say which weights are best on the test images?

python bench/validation.py --data DIR --weights yolov5n.pt [--seeds 3] [--imgsz 224 --epochs 8]

Trains on folds 3 and 4 of five at four learning rates, and keeps what the weights of each epoch see in the images of
folds 0 to 2 and in the test images. Then sets of validation images of several sizes are drawn from those folds, whole
groups of near-duplicates or single frames, 200 of each. For each set: Spearman's correlation, over all epochs of all
trainings and over the last epochs alone, of AP at 0.75 on the set with that on the test images; and how far the weights
with the best score on the set are from the best there are on the test images. Nothing is trained again for another set.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from common import in_new_process, make_pool, read_truth_in_pixels
from real_lab import PLAIN, VALIDATED, Job, Lab, add_arguments, configure, keep_answers, look, open_lab, result_path
from scipy.stats import spearmanr

from livestock.config import REPOSITORY
from livestock.evaluation.gains import MEASURES, judge_boxes
from livestock.pipeline.prepare import TRUTH_NAME, read_data
from livestock.pipeline.train import write_lists
from livestock.postprocess import suppress
from livestock.tables import read_table
from livestock.training import TrainConfig

POOL = (0, 1, 2)  # folds that no training here has seen
RATES = (0.1, 0.3, 1.0, 3.0)  # times the recipe's
SIZES = (25, 50, 100, 200)
N_DRAWS = 200
SPLIT = -1  # in place of the fold that is left out


def main() -> None:
    """Trains what is not there yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    lab = open_lab(arguments)
    in_pool = lab.images["fold"].isin(POOL)
    ids = lab.images["image_id"]
    lists = write_lists(lab.run, "pool", lab.images, read_data(lab.run).boxes, ids[~in_pool], ids[in_pool])
    lab = replace(lab, data={(SPLIT, 0): lists}, root=lab.root / "validation")
    usual = yaml.safe_load((REPOSITORY / "hyp" / lab.run.profile.hyp).read_text(encoding="utf-8"))["lr0"]
    jobs = [(Job(f"rate {rate:g}", fold=SPLIT, hyp={"lr0": usual * rate}), seed)
            for seed in range(arguments.seeds) for rate in RATES]
    if not arguments.report:
        with make_pool(arguments.at_once) as pool:
            todo = [one for one in jobs if not result_path(lab, *one).exists()]
            for (job, seed), done in [(one, pool.submit(train_one, lab, *one)) for one in todo]:
                print(f"# {job.name}, seed {seed}: {json.dumps(done.result())}", flush=True)
    report(lab, [one for one in jobs if result_path(lab, *one).exists()])


def train_one(lab: Lab, job: Job, seed: int) -> dict[str, Any]:
    """Trains, and keeps what the weights of each epoch see."""
    pool = lab.images[lab.images["fold"].isin(POOL)].reset_index(drop=True)
    images, answers = pd.concat([pool, lab.test_images], ignore_index=True), {}
    with tempfile.TemporaryDirectory() as folder:
        config = configure(lab, job, seed, Path(folder))
        in_new_process(_fit, config, Path(folder))
        for epoch in range(config.epochs):
            found = look(lab, Path(folder) / f"{epoch}.safetensors", images, PLAIN, config.imgsz)
            answers[str(epoch)] = suppress(found, **VALIDATED)
    facts = {"boxes": sum(map(len, answers.values()))}
    result_path(lab, job, seed).parent.mkdir(parents=True, exist_ok=True)
    keep_answers(result_path(lab, job, seed), answers, facts)
    return facts


def _fit(config: TrainConfig, folder: Path) -> None:
    """Trains, and keeps the averaged weights of every epoch in `folder`."""
    from livestock.training import loop

    def report_epoch(event: dict[str, Any]) -> None:
        """Copies them before the training takes them away."""
        if "epoch" in event:
            epoch = int(event["epoch"]["epoch"])
            shutil.copy(folder / f"run/weights/epoch{epoch:04d}.safetensors", folder / f"{epoch}.safetensors")

    loop.run_training(config, folder / "run", report_epoch, None)


def report(lab: Lab, jobs: Sequence[tuple[Job, int]]) -> None:
    """Prints how well sets of each size predict the test score."""
    pool = lab.images[lab.images["fold"].isin(POOL)].reset_index(drop=True)
    boxes = read_data(lab.run).boxes
    of_pool = boxes[boxes["image_id"].isin(pool["image_id"])].reset_index(drop=True)
    of_test = read_truth_in_pixels(lab.run.data_dir / TRUTH_NAME, lab.test_images)
    draws = list(draw_sets(pool, np.random.default_rng(0)))
    counts = np.stack([chosen for _, _, chosen in draws]).astype(int)
    measures, whole = {"AP75": MEASURES["AP75"]}, np.ones((1, len(lab.test_images)), int)
    tests, sets, lasts = [], [], []
    for job, seed in jobs:
        table = read_table(result_path(lab, job, seed))
        n_epochs = table["answer"].nunique()
        for epoch, found in table.groupby("answer"):
            lasts.append(int(epoch) == n_epochs - 1)
            inside, outside = (found[found["image_id"].isin(images["image_id"])].drop(columns="answer").reset_index(
                drop=True) for images in (pool, lab.test_images))
            tests.append(judge_boxes(lab.test_images, of_test, outside, whole, measures).scores["AP75"])
            sets.append(judge_boxes(pool, of_pool, inside, counts, measures).resampled["AP75"])
    test, scores = np.array(tests), np.array(sets)
    sizes = np.sort(pool.groupby("group").size())[::-1]
    print(f"{len(pool)} images in folds {POOL}, the largest groups of near-duplicates {sizes[:5].tolist()}")
    print(f"{len(jobs)} trainings, {len(test)} epochs in all, {lab.run.profile.imgsz} px; AP at 0.75 on the "
          f"{len(lab.test_images)} test images {test.min():.3f} to {test.max():.3f}")
    last = np.array(lasts)
    rows = pd.DataFrame([(how, size, spearmanr(column, test).statistic, spearmanr(column[last], test[last]).statistic,
                          test.max() - test[column.argmax()])
                         for (how, size, _), column in zip(draws, scores.T, strict=True)],
                        columns=["drawn", "images", "correlation", "of_last", "lost"])
    for (how, size), own in rows.groupby(["drawn", "images"], sort=False):
        low, high = own["correlation"].quantile([0.025, 0.975])
        print(f"{size} images, {how}: correlation {own['correlation'].mean():.3f} ({low:.3f} to {high:.3f}), "
              f"of last epochs {own['of_last'].mean():.3f}, lost {own['lost'].mean():.3f} "
              f"(in 39 of 40 sets at most {own['lost'].quantile(0.975):.3f})")


def draw_sets(pool: pd.DataFrame, rng: np.random.Generator) -> Iterator[tuple[str, int, np.ndarray]]:
    """Sets of validation images: how they are drawn, how many there are, and which `(len(pool),)` they are.

    Groups are drawn whole until there are enough images, so that such a set may be somewhat larger. The last one is
    all of the pool.
    """
    group = np.where(pool["group"] < 0, pool["group"].max() + 1 + np.arange(len(pool)), pool["group"])
    for size in SIZES:
        for _ in range(N_DRAWS):
            order = rng.permutation(np.unique(group))
            n_images = np.cumsum([np.sum(group == one) for one in order])
            yield "whole groups", size, np.isin(group, order[: int(np.searchsorted(n_images, size)) + 1])
            yield "single frames", size, np.isin(np.arange(len(pool)), rng.permutation(len(pool))[:size])
    yield "all there are", len(pool), np.ones(len(pool), bool)


if __name__ == "__main__":
    main()
