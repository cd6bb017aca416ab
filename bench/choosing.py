"""Simulates choosing among eleven methods: how often another than the first is taken, and if the interval covers.

python bench/choosing.py [--short] [--runs N] [--seed N]     --short some four minutes on 2 cores, else forty

Boxes are drawn, matched and scored as in the project; only the network is made up. In each group of images every method
is better or worse than itself elsewhere by chance, at placing boxes and at wrong ones, and all of them share how hard
the group is. All methods are draws from one distribution, so none is better, but for `a gain`, where the last three
place boxes better: their true score is the second one. In the settings called `tuned`, thresholds are tuned by
cross-validation as in the project, on a smaller grid, to drop the copies that a network proposes; elsewhere there are
no copies, which is quicker.

`old` is the rule of the first edition: the best of those whose percentile bootstrap interval of the gain over groups
lies above 0, reported with its own out-of-fold score and percentile interval. `taken` is the share of runs that take
another method than the first, `promised` the mean gain that those report, `covered` how often the 95 % interval of what
is reported holds the true score of the chosen method at its thresholds, on 8,000 other groups.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import pandas as pd
from scipy.stats import beta

from livestock.evaluation import Matches, draw_group_counts, evaluate, interval, match_usual, resample, score
from livestock.postprocess import (
    GroupScores,
    block_groups,
    choose_method,
    leave_outs,
    score_groups,
    score_inner,
    split_parts,
    suppress,
    sweep,
    tune,
)
from livestock.tables import XYXY

N_METHODS, N_BETTER, N_RESAMPLES, METRIC_IOU = 11, 3, 200, 0.75
GRID = {"iou_threshold": [0.5, 0.65, 0.8], "conf_threshold": [0.001, 0.2]}
NAMES = list(GRID)
SETTINGS = {  # images of each group
    "9 even groups": [6] * 9,
    "9 groups, one of 61 %": [33, 3, 3, 3, 3, 2, 2, 3, 2],
    "30 even groups": [3] * 30,
    "9 even groups, tuned": [6] * 9,
}


@dataclass(frozen=True)
class World:
    """How groups differ for all methods and for each, on a log scale, and by how much some place boxes better."""

    hardness: float = 0.2
    interaction: float = 0.15
    gain: float = 0.0


WORLDS = {"no gain": World(), "no gain, groups differ much": World(0.3, 0.25), "a gain": World(gain=0.25)}


def draw_truth(sizes: list[int], rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images with their groups, and boxes of two classes in a share of its own in each group."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    images = pd.DataFrame({"image_id": [f"{number:05d}" for number in range(len(group))], "group": group})
    image = np.repeat(np.arange(len(group)), rng.integers(2, 7, len(group)))
    cows = rng.uniform(0.2, 0.8, len(sizes))[group[image]]
    corner, side = rng.uniform(0, 800, (len(image), 2)), rng.uniform(60, 200, (len(image), 2))
    truth = pd.DataFrame(np.hstack([corner, corner + side]), columns=XYXY)
    truth["label"] = np.where(rng.uniform(size=len(image)) < cows, "cow", "pig")
    return images, truth.assign(image_id=images["image_id"].to_numpy()[image], confidence=1.0)


def draw_candidates(
    images: pd.DataFrame, truth: pd.DataFrame, hardness: np.ndarray, world: World, better: bool, copies: bool,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """What one method proposes: true boxes less well placed, with `copies` half of them twice, and wrong ones."""
    group = images["group"].to_numpy()
    own = np.exp(hardness + rng.normal(0, world.interaction, hardness.shape))  # (groups, 2): placing, wrong boxes
    of = pd.Index(images["image_id"]).get_indexer(truth["image_id"])
    twice = np.r_[np.arange(len(truth)), np.flatnonzero(rng.uniform(size=len(truth)) < 0.5 * copies)]
    size = (truth[XYXY].to_numpy()[:, 2:] - truth[XYXY].to_numpy()[:, :2])[twice]
    error = 0.055 * np.exp(-world.gain * better) * own[group[of[twice]], :1]
    placed = truth[XYXY].to_numpy()[twice] + np.tile(size, 2) * error * rng.normal(size=(len(twice), 4))
    sure = rng.normal(1.5, 1, len(twice)) - (np.arange(len(twice)) >= len(truth))
    wrong = np.repeat(np.arange(len(images)), rng.poisson(2.0 * own[group, 1]))
    corner, side = rng.uniform(0, 800, (len(wrong), 2)), rng.uniform(60, 200, (len(wrong), 2))
    table = pd.DataFrame(np.vstack([placed, np.hstack([corner, corner + side])]), columns=XYXY)
    table["image_id"] = np.r_[truth["image_id"].to_numpy()[twice], images["image_id"].to_numpy()[wrong]]
    table["label"] = np.r_[truth["label"].to_numpy()[twice], np.where(rng.uniform(size=len(wrong)) < 0.5, "cow", "pig")]
    return table.assign(confidence=1 / (1 + np.exp(-np.r_[sure, rng.normal(-0.3, 1, len(wrong))])))


@cache
def true_scores(world: World, better: bool, tuned: bool) -> dict[tuple[float, ...], float]:
    """The score of a method at each point of the grid, on 8,000 groups; under () without a grid."""
    rng = np.random.default_rng(987)
    images, truth = draw_truth([1] * 8000, rng)
    candidates = draw_candidates(images, truth, rng.normal(0, world.hardness, (8000, 2)), world, better, tuned, rng)
    if not tuned:
        return {(): evaluate(truth, candidates, METRIC_IOU).mean}
    surface = sweep(truth, candidates, iou_thresholds=GRID[NAMES[0]], conf_thresholds=GRID[NAMES[1]],
                    metric_ious=[METRIC_IOU])
    return surface.set_index(NAMES)["mAP"].to_dict()


def run_once(sizes: list[int], world: World, tuned: bool, seed: int) -> dict[str, float]:
    """One data set: what the old and the new rule take, what they report, and what is true of it."""
    rng = np.random.default_rng(seed)
    images, truth = draw_truth(sizes, rng)
    parts, hardness = split_parts(images, rng), rng.normal(0, world.hardness, (len(sizes), 2))
    blocks = {part: block_groups(*(table[~table["image_id"].map(parts).eq(part)] for table in (images, truth)))
              for part in range(5)}
    answers, matches, inner, points = {}, {}, {}, {}
    for number in range(N_METHODS):
        better, name = number >= N_METHODS - N_BETTER, str(number)
        candidates = draw_candidates(images, truth, hardness, world, better, tuned, rng)
        if tuned:
            answers[name], inner[name], point = settle(candidates, truth, images, parts)
        else:
            answers[name], point = candidates, ()
        matches[name] = match_usual(truth, answers[name], METRIC_IOU)
        if not tuned:
            inner[name] = take_out(matches[name], parts, blocks)
        points[name] = true_scores(world, better, tuned)[point]
    choice = choose_method(answers, inner, truth, images, parts, METRIC_IOU, allowed=list(answers))
    old, old_score, (low, high), promised = choose_as_before(matches, images, rng)
    return {"new": choice.method != "0", "new_right": int(choice.method) >= N_METHODS - N_BETTER,
            "new_promised": choice.score - choice.table.loc["0", "mAP"],
            "new_covered": choice.low <= points[choice.method] <= choice.high, "new_width": choice.high - choice.low,
            "new_bias": choice.score - points[choice.method], "smallest_p": choice.table["p"].min(),
            "old": old != "0", "old_right": int(old) >= N_METHODS - N_BETTER, "old_promised": promised,
            "old_covered": low <= points[old] <= high, "old_width": high - low, "old_bias": old_score - points[old],
            "n_effective": choice.n_effective}


def settle(
    candidates: pd.DataFrame, truth: pd.DataFrame, images: pd.DataFrame, parts: pd.Series
) -> tuple[pd.DataFrame, dict[int, GroupScores], tuple[float, ...]]:
    """A method's boxes out of fold, their scores outside each part, and the point at which it would answer."""
    surface = sweep(truth, candidates, iou_thresholds=GRID[NAMES[0]], conf_thresholds=GRID[NAMES[1]],
                    metric_ious=[METRIC_IOU], parts=parts, leave_out=leave_outs(parts.max() + 1))
    found = tune(surface, NAMES, lambda point: suppress(candidates, **point), parts)
    scores = {part: score_inner(boxes, truth, images, parts, part, METRIC_IOU) for part, boxes in found.inner.items()}
    return found.held_out, scores, tuple(found.point.values())


def take_out(matches: Matches, parts: pd.Series, blocks: dict[int, pd.Series]) -> dict[int, GroupScores]:
    """What `score_inner` finds outside each part, for boxes that do not depend on it: from matches of all images."""
    part_of, scores = parts[matches.images].to_numpy(), {}
    for part, own in blocks.items():
        away = part_of != part
        kept = away[matches.image]
        rows = {name: getattr(matches, name)[kept] for name in ("label", "confidence", "is_true")}
        left = replace(matches, images=matches.images[away], n_truth=matches.n_truth[away],
                       image=(np.cumsum(away) - 1)[matches.image[kept]], **rows)
        scores[part] = score_groups(left, own)
    return scores


def choose_as_before(
    matches: dict[str, Matches], images: pd.DataFrame, rng: np.random.Generator
) -> tuple[str, float, tuple[float, float], float]:
    """The rule of the first edition: the method, its score, the interval of that, its gain."""
    counts = draw_group_counts(rng, images["group"].to_numpy(), N_RESAMPLES)
    scores = {name: score(own).mean for name, own in matches.items()}
    resampled = {name: resample(own, pd.Index(images["image_id"]), counts) for name, own in matches.items()}
    better = [name for name in matches if interval(resampled[name] - resampled["0"])[0] > 0]
    name = max(better, key=scores.__getitem__, default="0")
    return name, scores[name], interval(resampled[name]), scores[name] - scores["0"]


def binomial(hits: pd.Series) -> str:
    """A rate with its exact 95 % interval (Clopper and Pearson 1934)."""
    n, k = len(hits), int(hits.sum())
    low, high = beta.ppf(0.025, k, n - k + 1) if k else 0.0, beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
    return f"{k / n:.3f} ({low:.3f} to {high:.3f})"


def print_rates(title: str, table: pd.DataFrame) -> None:
    """A line for the setting and one for each rule."""
    print(f"{title}: {table['n_effective'].mean():.1f} effective groups, {len(table)} runs")
    for rule in ("old", "new"):
        own = table.filter(regex=f"^{rule}_").rename(columns=lambda name: name.split("_")[1])
        print(f"  {rule}: taken {binomial(table[rule])}, a better one {binomial(own['right'])}, promised "
              f"{own.loc[table[rule], 'promised'].mean():+.3f}; covered {binomial(own['covered'])}, width "
              f"{own['width'].mean():.3f}, bias {own['bias'].mean():+.3f}", flush=True)


def main() -> None:
    """Prints three lines a setting; exit code 1 if a rate without gain is above 5 % by more than chance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="what and settings, as they are printed, that hold this")
    parser.add_argument("--keep", help="a CSV file for the outcome of each run")
    given = parser.parse_args()
    jobs = [(what, name) for what in WORLDS for name in SETTINGS if given.only in f"{what}, {name}"]
    for what, name in jobs:  # before there are processes, which inherit them
        for better in (False, True):
            true_scores(WORLDS[what], better, name.endswith("tuned"))
    tables = []
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork")) as pool:
        for what, name in jobs:
            tuned = name.endswith("tuned")
            n_runs = (given.runs or (100 if given.short else 1000)) // (5 if tuned else 1)
            run = partial(run_once, SETTINGS[name], WORLDS[what], tuned)
            table = pd.DataFrame(pool.map(run, given.seed + np.arange(n_runs), chunksize=5))
            true = [max(true_scores(WORLDS[what], better, tuned).values()) for better in (False, True)]
            print_rates(f"{what}, {name}, true scores {true[0]:.3f} and {true[1]:.3f}", table)
            tables.append(table.assign(what=what, setting=name))
    every = pd.concat(tables)
    if given.keep:
        every.to_csv(given.keep, index=False)
    without = every[every["what"].str.startswith("no gain")].groupby(["what", "setting"])["new"]
    if (without.mean() > 0.05 + 2 * np.sqrt(0.05 * 0.95 / without.size())).any():
        raise SystemExit("another method is taken in more than 5 % of runs")


if __name__ == "__main__":
    main()
