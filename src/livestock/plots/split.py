"""Figures about the split: shares in each part, distances from the whole, groups."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from pandas.io.formats.style import Styler

from ..config import Competition
from ..data.folds import stratum_counts
from ..data.folds.strata import DISTRIBUTIONS
from .common import THOUSANDS, new_axes, new_grid, note, set_title

NAMES = {
    "count": "images by class and count",
    "ratio": "boxes by class and ratio",
    "size": "boxes by class and size",
}


MOST_ROWS = 24  # of a distribution: more do not fit a page


def plot_shares(
    images: pd.DataFrame,
    boxes: pd.DataFrame,
    competition: Competition,
    parts: Mapping[str, pd.Series],
    *,
    title: str = "What each fold holds",
) -> np.ndarray:
    """Each distribution in all images and in each part: the number is the share in %, the colour how far it
    is off.

    `parts` maps a name to a boolean series by `image_id`. Bins that occur nowhere are left out, and where there are
    many all but the `MOST_ROWS` with the largest shares.
    """
    counts = stratum_counts(images, boxes, competition)
    chosen = {f"all\n{len(images):,}": counts.index == counts.index}
    for name, part in parts.items():
        inside = part.reindex(counts.index).to_numpy(dtype=bool)
        chosen[f"{name}\n{inside.sum():,}"] = inside
    whole = {name: _shares(counts[name], chosen) for name in DISTRIBUTIONS}
    shares = {name: table[table.iloc[:, 0].rank(ascending=False, method="first") <= MOST_ROWS]
              for name, table in whole.items()}
    heights = [max(len(table), 1) for table in shares.values()]
    axes = new_grid(
        3, 1, (3 + 0.95 * len(chosen), 1.8 + 0.3 * sum(heights)), sharex=True, height_ratios=heights
    )
    scale = max(
        1,
        *(
            table.sub(table.iloc[:, 0], axis=0).abs().max(axis=None)
            for table in shares.values()
            if len(table)
        ),
        1,
    )
    for ax, (name, table) in zip(axes.flat, shares.items(), strict=True):
        if len(table):
            _heat_map(ax, table, scale)
        else:
            note(ax, "nothing to show")
        more = f" (the {len(table)} of {len(whole[name])} largest)" if len(table) < len(whole[name]) else ""
        ax.set(title=f"{NAMES[name].capitalize()}, %{more}", xlabel="", ylabel="class and bin")
    axes.flat[-1].set_xlabel("part and its number of images")
    set_title(axes, title)
    return axes


def _shares(counts: pd.DataFrame, chosen: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Shares in % of the bins (rows, those that occur) in each part (columns)."""
    sums = pd.DataFrame({name: counts[inside].sum() for name, inside in chosen.items()})
    sums = sums[sums.iloc[:, 0] > 0]
    sums.index = [" ".join(dict.fromkeys(names)).replace("_", " ") for names in sums.index]
    return 100 * sums / sums.sum().clip(lower=1)


def _heat_map(ax: Axes, shares: pd.DataFrame, scale: float) -> None:
    off = shares.sub(shares.iloc[:, 0], axis=0)
    sns.heatmap(
        off,
        annot=shares,
        fmt=".1f",
        cmap="vlag",
        center=0,
        vmin=-scale,
        vmax=scale,
        cbar=False,
        ax=ax,
        linewidths=1,
        annot_kws={"fontsize": "small"},
    )
    ax.axvline(1, color="0.3", lw=1.5)  # the whole stands apart from its parts
    ax.tick_params(rotation=0, length=0)


def plot_distances(report: pd.DataFrame) -> np.ndarray:
    """A split report as a figure: mean distance over folds, with a line to the worst fold, and leakage."""
    axes = new_grid(1, 2, (11, 1.6 + 0.3 * 3 * max(len(report), 1)), width_ratios=[3, 1.3])
    left, right = axes.flat
    colours = dict(zip(report.index, sns.color_palette("Greys_r", len(report) + 2), strict=False))
    colours |= {report.index[0]: sns.color_palette("colorblind")[2]} if len(report) else {}
    for number, name in enumerate(report.index):
        place = np.arange(3) + (number - (len(report) - 1) / 2) * 0.8 / len(report)
        means = report.loc[name, [f"{column}_mean" for column in DISTRIBUTIONS]].to_numpy(dtype=float)
        worst = report.loc[name, [f"{column}_max" for column in DISTRIBUTIONS]].to_numpy(dtype=float)
        left.barh(place, means, 0.72 / len(report), color=colours[name], label=name)
        left.hlines(place, means, worst, color="0.25", lw=1)
        left.plot(worst, place, "|", color="0.25", ms=6)
    left.set_yticks(range(3), [NAMES[column].replace(" by ", "\nby ") for column in DISTRIBUTIONS])
    left.set(
        title="Distance of folds from the whole",
        ylabel="distribution",
        ylim=(2.5, -0.5),
        xlabel="total variation distance: bar is the mean, tick the worst fold",
    )
    left.figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=len(report))
    bars = right.barh(report.index, report["leakage"], color=[colours[name] for name in report.index])
    right.bar_label(bars, [f"{value:.1%}" for value in report["leakage"]], padding=4)
    right.set(
        title="Leakage",
        xlim=(0, 1.45),
        xlabel="validation images with\na near-duplicate in training",
        ylabel="split",
    )
    right.xaxis.set_major_formatter(PercentFormatter(1))
    right.set_xticks([0, 0.5, 1])
    right.invert_yaxis()
    for ax in axes.flat:
        ax.grid(visible=False, axis="y")
    set_title(axes, "Splits compared")
    return axes


def style_split_report(report: pd.DataFrame) -> Styler:
    """The split report as a table to read: three places, leakage in per cent, worse is darker."""
    distances = [f"{column}_{how}" for column in DISTRIBUTIONS for how in ("mean", "max")]
    names = {
        f"{column}_{how}": (NAMES[column], f"{how} distance")
        for column in DISTRIBUTIONS
        for how in ("mean", "max")
    }
    names |= {"smallest_fold": ("images", "smallest fold"), "largest_fold": ("images", "largest fold")}
    names["leakage"] = ("leakage", "validation images")
    table = report.set_axis(pd.MultiIndex.from_tuples([names[column] for column in report.columns]), axis=1)
    shades = [names[column] for column in [*distances, "leakage"]]
    formats = {names[column]: "{:.3f}" for column in distances} | {names["leakage"]: "{:.1%}"}
    style = Styler(table, uuid="split").format(formats)  # a fixed id, so that a rerun changes nothing
    return style.background_gradient("Oranges", subset=shades, vmin=0, vmax=1)


def plot_group_sizes(groups: pd.Series, ax: Axes | None = None) -> Axes:
    """How many images lie in near-duplicate groups of each size; sizes double from bar to bar."""
    ax = new_axes(ax)
    sizes = groups.map(groups.value_counts())
    octave = np.log2(sizes.to_numpy(dtype=float)).astype(int)
    n_images = np.bincount(octave) if len(octave) else np.zeros(1, dtype=int)
    n_groups = [groups[octave == power].nunique() for power in range(len(n_images))]
    bars = ax.bar(range(len(n_images)), n_images, color=sns.color_palette("colorblind")[2], width=0.7)
    ax.bar_label(bars, [_n_groups(count) for count in n_groups], padding=3)
    names = ["alone", *(f"{2**power} to {2 ** (power + 1) - 1}" for power in range(1, len(n_images)))]
    ax.set_xticks(range(len(names)), ["2 or 3" if name == "2 to 3" else name for name in names])
    ax.set(
        title="Near-duplicate frames",
        xlabel="images in the group",
        ylabel="images",
        ylim=(0, max(n_images.max(), 1) * 1.12),
    )
    ax.yaxis.set_major_formatter(THOUSANDS)
    ax.grid(visible=False, axis="x")
    return ax


def _n_groups(count: int) -> str:
    return "" if count == 0 else "1 group" if count == 1 else f"{count:,} groups"
