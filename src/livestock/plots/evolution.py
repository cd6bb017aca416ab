"""Figures of a search: how good, where to, what mattered, and whether it was worth it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .common import NEUTRAL, new_axes, new_grid, set_title, use_log_scale

STATES = {"complete": "finished", "pruned": "stopped early", "imported": "read from evolve.csv"}
UNKNOWN_NOISE = (math.nan, math.nan)
LOG_RATIO = 100  # as in the search: limits this far apart are drawn on a logarithmic scale


def plot_trials(trials: pd.DataFrame, noise: tuple[float, float] = UNKNOWN_NOISE) -> Axes:
    """Fitness of each trial and the best finished one so far; `trials` of `search.trials_table`.

    `noise` is that of `pipeline.evolve.training_noise`: in the band around trial 0, the start values, lies another
    training of the same values in 95 % of cases. Where it is not known, or without that trial, there is no band.
    """
    shown = trials[trials["state"].isin(STATES)].assign(what=lambda table: table["state"].map(STATES))
    axes = new_axes(None, width=9)
    colours = dict(zip(STATES.values(), sns.color_palette("colorblind", 3), strict=True))
    sns.scatterplot(shown, x="trial", y="fitness", hue="what", style="what", palette=colours, s=60, ax=axes)
    finished = shown[shown["state"] != "pruned"]
    start = finished.loc[finished["trial"] == 0, "fitness"].dropna()
    if len(start) and not math.isnan(noise[1]):
        axes.axhspan(start.iloc[0] - noise[1], start.iloc[0] + noise[1], color=NEUTRAL, alpha=0.15,
                     label="start values, another seed\n(95 %, from the fresh fold)")
    axes.step(finished["trial"], finished["fitness"].cummax(), where="post", color=NEUTRAL, label="best so far")
    axes.set(title="Fitness by trial", xlabel="trial; 0 is the start values", ylabel="fitness")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return axes


def plot_moves(
    trials: pd.DataFrame, limits: Mapping[str, tuple[float, float]], start: Mapping[str, float]
) -> np.ndarray:
    """Each hyper-parameter's value by trial, coloured by fitness, in its limits; the start value is the dashed line.

    `limits` maps name to (low, high) and decides which columns are drawn.
    """
    shown = trials[trials["state"].isin(STATES)].dropna(subset=["fitness", *limits])
    axes = new_grid(len(limits), 1, (9, 1.2 + 1.5 * len(limits)), sharex=True)
    for ax, (name, (low, high)) in zip(axes[:, 0], limits.items(), strict=True):
        points = ax.scatter(shown["trial"], shown[name], c=shown["fitness"], cmap="viridis", s=45, zorder=3)
        ax.axhline(start[name], color=NEUTRAL, linestyle="--", linewidth=1)
        if low > 0 and high / low >= LOG_RATIO:
            use_log_scale(ax)
        ax.set(ylabel=name, ylim=(low, high))
    axes[-1, 0].set_xlabel("trial; 0 is the start values")
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].figure.colorbar(points, ax=axes[:, 0].tolist(), label="fitness")
    set_title(axes, "Where each hyper-parameter went, within its limits")
    return axes


def plot_importances(importances: pd.Series) -> Axes:
    """Share of the variation in fitness that each hyper-parameter explains; of `search.importances`."""
    axes = new_axes(None, height=1 + 0.4 * max(len(importances), 2))
    sns.barplot(x=importances.to_numpy(), y=importances.index.to_numpy(), color=NEUTRAL, ax=axes)
    axes.set(title="What mattered", xlabel="share of the variation in fitness", ylabel="", xlim=(0, 1))
    if importances.empty:
        axes.text(0.5, 0.5, "fewer than four finished trials", ha="center", transform=axes.transAxes)
    return axes


def plot_start_and_best(scores: pd.DataFrame, columns: Sequence[str], title: str, ylabel: str) -> Axes:
    """Bars of start and best beside each other for each of `columns`; `scores` has a column `values` that says which,
    and a row a seed: bars are means, lines their range."""
    axes = new_axes(None)
    if scores.empty:
        axes.text(0.5, 0.5, "nothing is judged yet", ha="center", transform=axes.transAxes)
        axes.set(title=title, xlabel="", ylabel=ylabel)
        return axes
    table = scores.melt("values", list(columns), var_name="what", value_name="value")
    sns.barplot(table, x="what", y="value", hue="values", hue_order=["start", "best"], palette=[NEUTRAL, "#0173b2"],
                errorbar=("pi", 100), capsize=0.15, err_kws={"linewidth": 1.2}, ax=axes)
    axes.set(title=title, xlabel="", ylabel=ylabel)
    axes.legend(title="", loc="upper left", bbox_to_anchor=(1, 1))
    return axes
