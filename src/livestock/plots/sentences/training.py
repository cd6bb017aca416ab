"""Sentences about trainings: did it learn, did the search find anything, do more labels help?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ...config import join_names
from ..evolution import UNKNOWN_NOISE
from ..training import LAST_EPOCHS, best_epoch, epoch_noise
from .words import NOTHING, count

OVERFIT = 1.02  # a validation loss this far above its lowest has risen; less is noise
FEW_TRIALS = 10  # with fewer, importances are a guess


def describe_losses(history: pd.DataFrame) -> str:
    """Whether training losses fell, and whether a validation loss rose again; `history` of `read_history`.

    >>> describe_losses(pd.DataFrame({"epoch": [0, 1], "train_box_loss": [0.4, 0.3]}))
    'From epoch 0 to 1 the training loss fell by 25%.'
    """
    train, valid = (history.filter(regex=f"^{part}_.*_loss$").sum(axis=1, min_count=1) for part in ("train", "val"))
    train = train.dropna()
    if len(train) < 2:
        return f"With {count(len(train), 'epoch')} nothing can be seen to fall or rise."
    change = train.iloc[-1] / train.iloc[0] - 1 if train.iloc[0] else 0.0
    first, last = (int(history.loc[index, "epoch"]) for index in train.index[[0, -1]])
    words = f"From epoch {first} to {last} the training loss {'fell' if change < 0 else 'rose'} by {abs(change):.0%}"
    if valid.notna().sum() < 2:
        return f"{words}."
    lowest = int(history.loc[valid.idxmin(), "epoch"])
    if valid.iloc[-1] > OVERFIT * valid.min():
        rise = valid.iloc[-1] / valid.min() - 1
        return f"{words}; the validation loss is lowest in epoch {lowest} and ends {rise:.0%} above that: overfitting."
    return f"{words}; the validation loss is lowest in epoch {lowest} and does not rise from there: no overfitting."


def describe_learning(history: pd.DataFrame, kept: float, start: float | None) -> str:
    """Whether the training learned: mAP of the kept weights against that of the start weights, on the same images.

    `kept` and `start` are measured in the same way; `start` is None where the start weights have other classes. The
    noise is twice the standard deviation of the last epochs' AP: the best of many epochs is that much too high by
    chance.

    >>> describe_learning(pd.DataFrame({"epoch": [0, 1, 2], "AP": [0.5, 0.5, 0.5]}), 0.5, 0.6)
    'It does not learn here: the kept epoch 2 has mAP 0.500, 0.100 below the 0.600 of the start weights.'
    """
    best = best_epoch(history)
    if start is None:
        return (f"The start weights were trained for other classes, so they cannot be scored here; AP goes from "
                f"{history['AP'].iloc[0]:.3f} after the first epoch to {history['AP'].max():.3f} in epoch {best}.")
    gain, noise = kept - start, epoch_noise(history)
    against = f"the kept epoch {best} has mAP {kept:.3f}, {abs(gain):.3f} {'above' if gain > 0 else 'below'} the " \
              f"{start:.3f} of the start weights"
    if gain <= 0:
        return f"It does not learn here: {against}."
    if np.isnan(noise):
        return f"Whether it learns cannot be told: {against}, and one epoch shows no noise."
    if gain <= noise:
        return f"It is not shown to learn: {against}, within the noise of the last {LAST_EPOCHS} epochs ({noise:.3f})."
    return f"It learns: {against}, more than the noise of the last {LAST_EPOCHS} epochs ({noise:.3f})."


def describe_trials(trials: pd.DataFrame, noise: tuple[float, float] = UNKNOWN_NOISE) -> str:
    """How much better the best trial is than trial 0, the start values; `trials` of `search.trials_table`.

    `noise` is that of `pipeline.evolve.training_noise`.
    """
    done = trials[trials["state"].isin(["complete", "imported"])].dropna(subset=["fitness"])
    if done.empty:
        return "No trial has finished yet."
    best = done.loc[done["fitness"].idxmax()]
    words = f"Of {count(len(done), 'finished trial')} number {best['trial']} is best with {best['fitness']:.4f}"
    start = done.loc[done["trial"] == 0, "fitness"]
    if best["trial"] == 0:
        return f"{words}: nothing beats the start values."
    if start.empty:
        return f"{words}; the start values have no fitness of their own."
    words = f"{words}, {best['fitness'] - start.iloc[0]:.4f} above the start values"
    deviation, half_width = noise
    if math.isnan(half_width):
        return f"{words}, one seed each: how much of that is luck is not known."
    inside = (done["fitness"] - start.iloc[0]).abs() <= half_width
    return (f"{words}. Another seed alone moves a training by {deviation:.4f} (standard deviation), and two of the same"
            f" values by up to {half_width:.4f}: {inside.sum() - 1} of the {len(done) - 1} other trials are as near.")


def describe_moves(trials: pd.DataFrame, names: Sequence[str], start: Mapping[str, float]) -> str:
    """Where the best trial has each hyper-parameter, as a multiple of its start value."""
    done = trials.dropna(subset=["fitness"])
    if done.empty:
        return "No trial has finished yet."
    best = done.loc[done["fitness"].idxmax()]
    parts = [f"{name} {best[name]:.3g} ({best[name] / start[name]:.2f} times)" if start[name] else
             f"{name} {best[name]:.3g}" for name in names]
    return f"The best trial has, against the start values: {join_names(parts)}."


def describe_importances(importances: pd.Series, n_trials: int) -> str:
    """Which hyper-parameter explains most of the fitness, and whether so few trials can show it."""
    if importances.empty:
        return "There are too few finished trials to tell what mattered."
    name, share = importances.idxmax(), importances.max()
    doubt = f": with {count(n_trials, 'trial')} a guess" if n_trials < FEW_TRIALS else ""
    return f"{name} explains {share:.0%} of the variation in fitness, the most of {len(importances)}{doubt}."


def describe_start_and_best(scores: pd.DataFrame, column: str) -> str:
    """The mean difference of best and start in one column, and whether their ranges over seeds overlap.

    >>> describe_start_and_best(pd.DataFrame({"values": ["start", "best"], "AP": [0.5, 0.6]}), "AP")
    'AP: best is 0.100 above start with one seed each, which shows nothing by itself.'
    """
    start, best = (scores.loc[scores["values"] == name, column].dropna() if len(scores) else scores.iloc[:0]
                   for name in ("start", "best"))
    if start.empty or best.empty:
        return "Start and best are not both judged yet."
    change = best.mean() - start.mean()
    words = f"{column}: best is {abs(change):.3f} {'above' if change > 0 else 'below'} start"
    if min(len(start), len(best)) < 2:
        return f"{words} with one seed each, which shows nothing by itself."
    apart = best.min() > start.max() or best.max() < start.min()
    return f"{words}; over {len(best)} seeds the ranges {'do not overlap' if apart else 'overlap: not a clear gain'}."


def describe_students(students: pd.DataFrame, column: str = "ap_fair") -> str:
    """How many seeds gain by each strategy's labels; `students` of `compare_students`."""
    scores = students.groupby(["strategy", "seed"], sort=False)[column].mean().unstack("strategy")
    if scores.shape[1] < 2:
        return "There is one set of labels, so there is nothing to compare."
    first, parts = scores.columns[0], []
    for name in scores.columns[1:]:
        change = (scores[name] - scores[first]).dropna()
        parts.append(f"{name!r} is above {first} in {int((change > 0).sum())} of {count(len(change), 'seed')} "
                     f"(mean {change.mean():+.3f})" if len(change) else f"{name!r} has no seed in common with {first}")
    return f"{join_names(parts)}{': one seed shows nothing' if len(scores) < 2 else ''}."


def describe_learning_curve(curve: pd.DataFrame) -> str:
    """What the step from the fewest to the most images brought; `curve` of `pipeline.learning_curve`."""
    means = curve.dropna(subset=["mAP"]).groupby("images")["mAP"].mean()
    if len(means) < 2:
        return "All trainings had the same number of images, so no slope can be seen." if len(means) else NOTHING
    few, many, change = int(means.index[0]), int(means.index[-1]), means.iloc[-1] - means.iloc[0]
    range_of = curve.groupby("images")["mAP"].agg(lambda values: values.max() - values.min()).max()
    words = f"From {few:,} to {count(many, 'image')} mAP changes by {change:+.3f}"
    if curve.groupby("images").size().max() < 2:
        return f"{words}, one training each: no noise is known."
    shown = "more" if abs(change) > range_of else "no more"
    return f"{words}, {shown} than trainings with the same number of images differ ({range_of:.3f})."
