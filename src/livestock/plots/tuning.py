"""Figures of choosing thresholds and methods, and of where the score comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ..postprocess import ALPHA
from .common import NEUTRAL, class_palette, frequent_labels, new_axes, new_grid, note, set_title

MARKS = {"chosen": ("o", "white"), "highest": ("x", "black"), "original": ("D", "black")}


def plot_sweep(plateau: pd.DataFrame, chosen: Mapping[str, float], original: Mapping[str, float]) -> Axes:
    """Heat map of the score by suppression IoU and confidence; the plateau is outlined, three points are marked.

    `plateau` of `postprocess.Tuned`, index `iou_threshold, conf_threshold`; the points are dicts of those names, drawn
    at the grid's nearest.
    """
    axes = new_axes(None, width=9, height=4.5)
    if plateau.empty:
        note(axes, "nothing to choose from")
        return axes
    score, level = (plateau[name].unstack("iou_threshold").sort_index() for name in ("score", "on_plateau"))
    sns.heatmap(score, cmap="viridis", ax=axes, cbar_kws={"label": "score"}, linewidths=0)
    axes.invert_yaxis()
    _outline(axes, level.to_numpy(bool))
    highest = dict(zip(plateau.index.names, plateau["score"].idxmax(), strict=True))
    for name, point in (("chosen", chosen), ("highest", highest), ("original", original)):
        marker, colour = MARKS[name]
        axes.scatter(_nearest(score.columns, point["iou_threshold"]) + 0.5,
                     _nearest(score.index, point["conf_threshold"]) + 0.5, marker=marker, s=70, c=colour,
                     edgecolors="black" if marker == "o" else None, zorder=3, label=name)
    handles = [*axes.get_legend_handles_labels()[0], Line2D([], [], color="white", label="plateau")]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), facecolor="#bbbbbb", frameon=True, ncols=4)
    axes.set_xticks(np.arange(0, score.shape[1], 2) + 0.5, [f"{value:g}" for value in score.columns[::2]], rotation=0)
    axes.set_yticks(np.arange(score.shape[0]) + 0.5, [f"{value:g}" for value in score.index], rotation=0)
    axes.set(title="Score by threshold, out of fold", xlabel="IoU above which the less sure box goes",
             ylabel="confidence from which a box counts")
    return axes


def _nearest(values: pd.Index, value: float) -> int:
    return int(np.abs(values.to_numpy(float) - value).argmin())


def _outline(axes: Axes, level: np.ndarray) -> None:
    """A line around the cells `(rows, columns)` that are on the plateau."""
    padded = np.pad(level, 1)
    for row, column in np.argwhere(padded[1:] != padded[:-1]):
        axes.plot([column - 1, column], [row, row], color="white", lw=1.5)
    for row, column in np.argwhere(padded[:, 1:] != padded[:, :-1]):
        axes.plot([column, column], [row - 1, row], color="white", lw=1.5)


def plot_methods(table: pd.DataFrame) -> Axes:
    """The gain of each method over the first with its interval and adjusted p; green where it is shown to be better.

    `table` of `postprocess.Choice`.
    """
    shown = table.iloc[1:][::-1]
    axes = new_axes(None, width=9, height=1.2 + 0.35 * max(len(shown), 2))
    axes.axvline(0, color=NEUTRAL, linestyle=":")
    better = ((shown["p"] <= ALPHA) & (shown["gain"] > 0)).to_numpy()
    for mask, colour in ((better, "#029e73"), (~better, NEUTRAL)):
        rows = np.flatnonzero(mask)
        gain, low, high = shown.loc[mask, ["gain", "gain_low", "gain_high"]].to_numpy(float).T
        axes.errorbar(gain, rows, xerr=np.stack([gain - low, high - gain]), fmt="o", color=colour, capsize=3)
    names = [name if np.isnan(p) else f"{name} (p {p:.2f})" for name, p in shown["p"].items()]
    axes.set_yticks(range(len(shown)), names)
    axes.grid(axis="y", visible=False)
    axes.set(title=f"Gain over {table.index[0]}, p adjusted for all of them",
             xlabel="difference of mAP, 95 % interval over groups of each by itself")
    return axes


def plot_precision_recall(curve: pd.DataFrame, labels: Sequence[str], iou_threshold: float) -> Axes:
    """Precision by recall, a line a class; `curve` of `evaluation.precision_recall`."""
    axes = new_axes(None, width=7, height=4.5)
    palette = class_palette(labels)
    shown, of_how_many = frequent_labels(curve, labels)
    for label, own in curve[curve["label"].isin(shown)].groupby("label", sort=False):
        axes.plot(own["recall"], own["precision"], color=palette[str(label)], label=label, drawstyle="steps-post")
    axes.set(title=f"Precision and recall at IoU {iou_threshold:g}{of_how_many}",
             xlabel="recall: share of animals found", ylabel="precision: share of boxes that are right", xlim=(0, 1),
             ylim=(0, 1.02))
    axes.legend(loc="lower left")
    return axes


def plot_breakdown(tables: Mapping[str, pd.DataFrame], labels: Sequence[str]) -> np.ndarray:
    """Bars of AP by bin and class, one axes a table (`evaluation.score_sizes`, `score_counts`), by title."""
    axes = new_grid(1, len(tables), (4.2 * len(tables), 3.6), sharey=True)
    palette = class_palette(labels)
    labels, of_how_many = frequent_labels(pd.concat(tables.values()), labels, by="n_truth")
    palette = {label: palette[label] for label in labels}
    for ax, (title, table) in zip(axes[0], tables.items(), strict=True):
        known = table[(table["n_truth"] > 0) & table["label"].isin(labels)]
        order = [name for name in table["bin"].unique() if name in set(known["bin"])]
        sns.barplot(known, x="bin", y="ap", hue="label", hue_order=labels, order=order, palette=palette,
                    saturation=1, legend=ax is axes[0, -1], ax=ax)
        ax.set(title=title, xlabel="", ylabel="AP" if ax is axes[0, 0] else "", ylim=(0, 1))
        ax.tick_params(axis="x", rotation=30)
    if legend := axes[0, -1].get_legend():
        legend.set(title="", loc="upper left")
        legend.set_bbox_to_anchor((1, 1))
    set_title(axes, f"Where the score comes from{of_how_many}")
    return axes
