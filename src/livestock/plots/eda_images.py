"""Figures about images: classes, sizes, images without a box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..config import Competition
from ..data.bins import box_counts
from .common import NEUTRAL, THOUSANDS, bar_height, class_palette, new_axes, note

N_SIZES = 10  # image sizes shown one by one
NO_BOX = "no box"


def plot_class_counts(boxes: pd.DataFrame, labels: Sequence[str], ax: Axes | None = None) -> Axes:
    """Images that show each class; an image that shows two classes counts for both."""
    ax = new_axes(ax, height=1.2 + bar_height(len(labels)) * len(labels))
    n_images = boxes.groupby("label")["image_id"].nunique().reindex(labels, fill_value=0)
    n_boxes = boxes["label"].value_counts().reindex(labels, fill_value=0)
    bars = ax.barh(labels, n_images, color=list(class_palette(labels).values()), height=0.6)
    texts = [f"{n_images[label]:,} images, {n_boxes[label]:,} boxes" for label in labels]
    ax.bar_label(bars, texts, padding=4, fontsize=_text_size(len(labels)))
    ax.tick_params(axis="y", labelsize=_text_size(len(labels)))
    ax.set(title="Images per class", xlabel="images that show the class", ylabel="class")
    ax.invert_yaxis()
    return _horizontal(ax, n_images.max())


def plot_image_sizes(
    images: pd.DataFrame, boxes: pd.DataFrame, labels: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Images of each size, the most frequent first, coloured by the class most of their boxes have."""
    names = images["width"].astype(str) + " x " + images["height"].astype(str)
    frequent = names.value_counts()
    n_others = len(frequent) - N_SIZES
    if n_others > 0:
        names = names.where(names.isin(frequent.index[:N_SIZES]), f"{n_others:,} other sizes")
    shown = pd.crosstab(names, _main_label(images, boxes, labels).to_numpy())
    order = [*frequent.index[:N_SIZES], *([f"{n_others:,} other sizes"] if n_others > 0 else [])]
    shown = shown.reindex(index=order[::-1], columns=[*labels, NO_BOX], fill_value=0)
    n_classes = int(shown.any().sum())
    ax = new_axes(ax, height=1.4 + 0.35 * max(len(shown), 3))
    left = np.zeros(len(shown))
    for label, colour in {**class_palette(labels), NO_BOX: NEUTRAL}.items():
        if shown[label].any():
            bars = ax.barh(shown.index, shown[label], left=left, color=colour, label=label, height=0.7)
            left += shown[label].to_numpy()
    if len(shown):
        ax.bar_label(bars, [f"{value:,.0f}" for value in left], padding=4)
        ax.legend(loc="lower right", ncols=1 + n_classes // 12, fontsize=_text_size(n_classes))
    ax.set(title="Image sizes in pixels", xlabel="images", ylabel="width x height")
    return _horizontal(ax, left.max(initial=0))


def plot_empty_images(
    images: pd.DataFrame, boxes: pd.DataFrame, competition: Competition, ax: Axes | None = None
) -> Axes:
    """Images without a box by the class that their file name states (`class_pattern`), if it states one."""
    stated = [competition.label_of("", image_id) or "not stated" for image_id in images["image_id"]]
    empty = ~images["image_id"].isin(boxes["image_id"])
    table = empty.groupby(np.array(stated, dtype=object)).agg(["sum", "size"])
    rows = [name for name in [*competition.labels, "not stated"] if name in table.index]
    table = table.reindex(rows)
    ax = new_axes(ax, height=1.2 + bar_height(len(table)) * max(len(table), 1))
    colours = {**class_palette(competition.labels), "not stated": NEUTRAL}
    bars = ax.barh(table.index, table["sum"], color=[colours[name] for name in rows], height=0.6)
    texts = [
        f"{row['sum']:,} of {row['size']:,} ({row['sum'] / row['size']:.1%})" for _, row in table.iterrows()
    ]
    ax.bar_label(bars, texts, padding=4, fontsize=_text_size(len(table)))
    ax.tick_params(axis="y", labelsize=_text_size(len(table)))
    ax.set(title="Images without a box", xlabel="images without a box", ylabel="class in file name")
    ax.invert_yaxis()
    return _horizontal(ax, table["sum"].max() if len(table) else 0)


def _text_size(n_bars: int) -> str:
    return "small" if n_bars <= 20 else "xx-small"


def _main_label(images: pd.DataFrame, boxes: pd.DataFrame, labels: Sequence[str]) -> pd.Series:
    counts = box_counts(images, boxes, list(labels))
    main = counts.idxmax(axis=1) if len(counts) else pd.Series(dtype=object)
    return main.where(counts.sum(axis=1) > 0, NO_BOX)


def _horizontal(ax: Axes, longest: float) -> Axes:
    """Room for the numbers beside horizontal bars, and grid lines along one axis only."""
    ax.set_xlim(0, max(longest, 1) * 1.35)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.grid(visible=False, axis="y")
    if not ax.patches:
        note(ax, "nothing to show")
    return ax
