"""Style and colours that all figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

NEUTRAL = "#8c8c8c"  # what belongs to no class
THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")

PLAIN = FuncFormatter(lambda value, _: f"{value:g}")  # for a log scale: matplotlib's own is written in mathtext

FEW_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:g} %")  # for a log scale, where 0.1 % matters


MOST_CLASSES = 12  # with axes, bars or a line of the legend each: more cannot be told apart, or fill pages


def use_style() -> None:
    """Sets the project's seaborn theme for all figures that follow; calling it twice changes nothing."""
    rc = {
        "figure.constrained_layout.use": True,
        "figure.dpi": 100,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "grid.color": "#e6e6e6",
        "axes.edgecolor": "#bfbfbf",
        "legend.frameon": False,
        "text.parse_math": False,  # a name with two `$` is a name, and no formula
    }
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", font_scale=0.85, rc=rc)


def class_palette(labels: Sequence[str]) -> dict[str, str]:
    """The colour of each label, as hex: its place in the class order decides, so it is the same in every
    figure.

    Seaborn's colour-blind-safe palette, and evenly spaced hues where there are more than its ten colours.
    """
    name = "colorblind" if len(labels) <= 10 else "husl"
    return dict(zip(labels, sns.color_palette(name, len(labels)).as_hex(), strict=True))


def frequent_labels(
    boxes: pd.DataFrame, labels: Sequence[str], most: int = MOST_CLASSES, *, by: str = ""
) -> tuple[list[str], str]:
    """The labels with most boxes, at most `most`, in class order; and what a title says if that is not all of them.

    `boxes` has a row a box, or a column `by` that says how many a row stands for.
    """
    if len(labels) <= most:
        return list(labels), ""
    counts = boxes.groupby("label")[by].sum() if by else boxes["label"].value_counts()
    counts = counts.reindex(labels, fill_value=0)
    chosen = set(counts.sort_values(ascending=False, kind="stable").index[:most])
    return [label for label in labels if label in chosen], f" (the {most} of {len(labels)} classes with most boxes)"


def use_log_scale(ax: Axes, formatter: FuncFormatter = PLAIN) -> None:
    """A logarithmic y axis with plain numbers at its ticks."""
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(formatter)
    ax.yaxis.set_minor_formatter(NullFormatter())


def bar_height(n_bars: int) -> float:
    """Inches that each of some horizontal bars has: less where there are many."""
    return 0.6 if n_bars <= 10 else max(0.2, 6 / n_bars)


def new_axes(ax: Axes | None, width: float = 8, height: float = 4) -> Axes:
    """The given axes, or those of a new figure of this size in inches."""
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax


def new_grid(n_rows: int, n_columns: int, size: tuple[float, float], **options: Any) -> np.ndarray:
    """Axes of a new figure as a two-dimensional array; `size` in inches is that of the whole figure."""
    return plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, **options)[1]


def set_title(axes: np.ndarray, title: str) -> None:
    """The title of a figure of several axes, in the place and weight that single axes have theirs."""
    figure = axes.flat[0].figure
    figure.suptitle(title, x=0.01, ha="left", weight="bold", size=plt.rcParams["axes.titlesize"])


def note(ax: Axes, text: str) -> None:
    """Words in the middle of axes that have nothing to show."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=NEUTRAL)


def spread(n_items: int, n_wanted: int) -> np.ndarray:
    """Positions of at most `n_wanted` of `n_items`, evenly spaced from first to last, without repeats."""
    return (
        np.unique(np.linspace(0, n_items - 1, min(n_items, n_wanted)).round().astype(int))
        if n_items
        else np.arange(0)
    )
