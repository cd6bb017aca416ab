"""Figures of a training: what fell, what rose."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .common import new_axes

LOSSES = {"box": "box", "obj": "objectness", "cls": "class"}  # yolov5's; other families have their own names
LAST_EPOCHS = 4  # whose spread is the noise of one epoch
SCORES = ["AP", "precision", "recall", "AP50", "mAP50_95"]


def plot_losses(history: pd.DataFrame) -> Axes:
    """Losses over epochs, colour by part of the loss, dashed on the validation images; `history` of `read_history`.

    Without the columns of the validation losses only the training's are drawn.
    """
    rows = [
        history[["epoch"]].assign(loss=history[column], part=LOSSES.get(part, part), images=images)
        for column in history
        for images, _, part in [column.removesuffix("_loss").partition("_")]
        if column.endswith("_loss") and images in ("train", "val")
    ]
    table = pd.concat(rows, ignore_index=True).replace({"images": {"train": "training", "val": "validation"}})
    axes = new_axes(None, width=9)
    sns.lineplot(table, x="epoch", y="loss", hue="part", style="images", marker="o", markersize=5, ax=axes)
    axes.set(title="Losses by epoch", xlabel="epoch", ylabel="loss, one seed", ylim=(0, None))
    return _finish(axes)


def plot_scores(history: pd.DataFrame, metric_iou: float = 0.75, start: float | None = None) -> Axes:
    """AP at the competition's IoU and the usual scores on the validation images over epochs; the epoch kept is marked.

    `history` of `read_history`; its `AP` is that at `metric_iou`. The band around AP is its noise (`epoch_noise`). The
    dashed line is `start`, the mAP of the start weights on the same images.
    """
    names = {name: name for name in SCORES} | {"AP": f"AP at IoU {metric_iou:g}", "mAP50_95": "AP, IoU 0.5 to 0.95"}
    table = history.rename(columns=names).melt("epoch", list(names.values()), var_name="score", value_name="value")
    axes = new_axes(None, width=9)
    sns.lineplot(table, x="epoch", y="value", hue="score", marker="o", markersize=5, ax=axes)
    if not np.isnan(noise := epoch_noise(history)):
        axes.fill_between(history["epoch"], history["AP"] - noise, history["AP"] + noise, alpha=0.15, lw=0,
                          label=f"noise of AP: {noise:.3f}")
    if start is not None:
        axes.axhline(start, color="black", linestyle="--", lw=1.2, label=f"AP of the start weights: {start:.3f}")
    best = best_epoch(history)
    axes.axvline(best, color="grey", linestyle=":", label=f"kept: epoch {best}")
    axes.set(title="Scores on the validation images by epoch", xlabel="epoch", ylabel="score, one seed", ylim=(0, 1))
    return _finish(axes)


def epoch_noise(history: pd.DataFrame) -> float:
    """Twice the standard deviation of the AP of the last epochs; NaN for fewer than two.

    >>> epoch_noise(pd.DataFrame({"AP": [0.1, 0.5, 0.5, 0.5, 0.5]}))
    0.0
    """
    return float(2 * history["AP"].iloc[-LAST_EPOCHS:].std(ddof=1))


def best_epoch(history: pd.DataFrame) -> int:
    """The epoch whose weights are kept as best: the highest `AP`, the competition's, and the later of equals."""
    return int(history.loc[history["AP"][::-1].idxmax(), "epoch"])


def _finish(axes: Axes) -> Axes:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return axes
