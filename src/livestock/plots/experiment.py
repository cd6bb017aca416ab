"""Figures of experiments: what learning rates gave, scores and costs of each setting, and what is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from .common import NEUTRAL, PLAIN, new_axes, note

MEASURE_WORDS = {"mAP50_95": "all", "AP75": "all,\nIoU 0.75", "small": "small", "medium": "medium", "large": "large",
                 "thin": "thin"}
VERDICTS = {"shown": "#029e73", "not shown": NEUTRAL, "shown to be wrong": "#d55e00"}


def plot_rates(rates: pd.DataFrame) -> Axes:
    """mAP by learning rate, a line an arm, the chosen rate filled; `rates` of `experiment.choose_rates`."""
    axes = new_axes(None, width=7.5, height=3.6)
    palette = _palette(rates["arm"])
    for arm, own in rates.groupby("arm", sort=False):
        own = own.sort_values("lr0")
        axes.plot(own["lr0"], own["mAP50_95"], color=palette[arm], marker="o", mfc="white", label=arm)
        best = own[own["chosen"]]
        axes.plot(best["lr0"], best["mAP50_95"], "o", color=palette[arm])
    axes.set_xscale("log")
    axes.set_xticks(sorted(rates["lr0"].unique()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(title="Learning rates, each tried once with the same budget", xlabel="learning rate (log scale)",
             ylabel="mAP, IoU 0.5 to 0.95,\non the tuning fold, one seed", ylim=(0, None))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title="filled: chosen")
    return axes


def plot_arms(scores: pd.DataFrame, title: str, measures: Sequence[str] = tuple(MEASURE_WORDS)) -> Axes:
    """Scores of each arm by kind of animal: a dot a seed, a bar their mean; `scores` of `list_scores`."""
    shown = [name for name in measures if scores[name].notna().any()]
    table = scores.melt(["arm", "seed"], shown, var_name="measure", value_name="score")
    axes = new_axes(None, width=2 + 1.5 * max(len(shown), 3), height=3.8)
    if not shown:
        note(axes, "no animal to score by")
        return axes
    palette = _palette(scores["arm"])
    sns.barplot(table, x="measure", y="score", hue="arm", errorbar=None, palette=palette, saturation=1, alpha=0.55,
                ax=axes)
    sns.stripplot(table, x="measure", y="score", hue="arm", dodge=True, palette=palette, edgecolor="0.2", linewidth=0.6,
                  jitter=False, legend=False, size=4, ax=axes)
    axes.set_xticks(range(len(shown)), [MEASURE_WORDS.get(name, name) for name in shown])
    n_seeds = scores["seed"].nunique()
    axes.set(title=title, xlabel="animals", ylim=(0, None),
             ylabel=f"AP, IoU 0.5 to 0.95\n({'one seed' if n_seeds == 1 else f'dots: {n_seeds} seeds'})")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return axes


def plot_costs(table: pd.DataFrame, title: str) -> Axes:
    """mAP against the seconds of an epoch, an arm a circle whose area is its size in half precision.

    `table` has a row an arm: `mAP50_95`, `seconds`, `megabytes`.
    """
    axes = new_axes(None, width=8, height=3.8)
    palette = _palette(table.index)
    for arm, row in table.iterrows():
        axes.scatter(row["seconds"], row["mAP50_95"], s=6 * row["megabytes"], color=palette[arm], alpha=0.7)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(PLAIN)
    axes.xaxis.set_minor_formatter(PLAIN)
    axes.set(title=title, xlabel="seconds an epoch on this machine (log scale)", ylim=(0, None),
             ylabel="mAP, IoU 0.5 to 0.95,\nmean over seeds")
    axes.margins(x=0.15, y=0.25)
    for arm, row in table.iterrows():  # of one size in the legend, whatever their size in the figure
        axes.scatter([], [], s=40, color=palette[arm], alpha=0.7, label=f"{arm}: {row['megabytes']:.0f} MB")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return axes


def plot_claims(claims: pd.DataFrame, title: str) -> Axes:
    """The gain of each claim with its 95 % interval, its colour the verdict; `claims` of `detectors.decide_claims`.

    Without an interval (one seed) a hollow circle stands alone.
    """
    axes = new_axes(None, width=9, height=1.2 + 0.45 * len(claims))
    for row, claim in enumerate(claims.itertuples()):
        colour, has_interval = VERDICTS[claim.verdict], np.isfinite(claim.low)
        axes.plot(claim.gain, row, "o", color=colour, mfc=colour if has_interval else "white")
        if has_interval:
            axes.hlines(row, claim.low, claim.high, color=colour, lw=2)
    axes.axvline(0, color="0.3", lw=1)
    axes.set_yticks(range(len(claims)), [f"{claim.claim}: {claim.verdict}" for claim in claims.itertuples()])
    axes.set(title=title, ylim=(len(claims) - 0.5, -0.5), ylabel="",
             xlabel="gain in AP, 95 % interval over seeds and groups" if claims["low"].notna().any() else
             "difference in AP of one seed: no interval, so nothing is shown")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.2)
    return axes


def _palette(arms: Sequence[str] | pd.Series | pd.Index) -> Mapping[str, str]:
    names = list(dict.fromkeys(arms))
    return dict(zip(names, sns.color_palette("colorblind", len(names)).as_hex(), strict=True))
