"""Figures of what a model sees: beside the truth, and on images that have none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import BarContainer

from ..data.archives import read_image
from ..data.bins import box_counts
from .common import MOST_CLASSES, class_palette, frequent_labels, new_axes, new_grid, note, set_title, use_log_scale
from .images import draw_boxes, short_name, show_picture


def plot_truth_and_predictions(
    images: pd.DataFrame, truth: pd.DataFrame, predictions: pd.DataFrame, labels: Sequence[str]
) -> np.ndarray:
    """A row an image: its true boxes at the left, the predicted ones with their confidence at the right."""
    n_rows = max(len(images), 1)
    shape = (images["height"] / images["width"]).median() if len(images) else 0.6
    axes = new_grid(n_rows, 2, (12, 0.5 + n_rows * (6 * shape + 0.35)))
    for row, image in zip(axes, images.itertuples(), strict=False):
        picture = read_image(image.archive, image.member)
        for ax, boxes, name in ((row[0], truth, "true"), (row[1], predictions, "predicted")):
            own = boxes[boxes["image_id"] == image.image_id]
            show_picture(ax, picture, f"{short_name(image.image_id)}: {len(own)} {name}")
            draw_boxes(ax, own, labels)
    if not len(images):
        note(axes[0, 0], "no image to show")
    set_title(axes, "True boxes (left) and predicted boxes (right)")
    return axes


def plot_average_precision(scores: pd.DataFrame, labels: Sequence[str]) -> Axes:
    """Bars of AP by class and IoU; `scores` has the columns `label, iou, ap`.

    With the columns `low` and `high` of `evaluation.evaluate_with_intervals` lines show the interval over groups.
    """
    noise = "95 % interval over groups, one seed" if "low" in scores else "one seed"
    if len(labels) > MOST_CLASSES:  # beside each other, a colour an IoU
        axes = new_axes(None, width=min(2 + 0.3 * len(labels), 40), height=4)
        sns.barplot(scores, x="label", y="ap", hue="iou", order=labels, saturation=1, ax=axes)
        axes.tick_params(axis="x", rotation=90, labelsize=7)
        axes.set(title="Average precision by class", xlabel="class", ylabel="AP, one seed", ylim=(0, 1))
        axes.legend(title="IoU from which a box counts as found", loc="upper right", ncols=3)
        return axes
    axes = new_axes(None, width=7, height=3.5)
    palette = class_palette(labels)
    sns.barplot(scores, x="iou", y="ap", hue="label", hue_order=labels, palette=palette, saturation=1, ax=axes)
    for bars in axes.containers:
        if isinstance(bars, BarContainer):
            axes.bar_label(bars, fmt="%.2f", fontsize=8, label_type="center")
    if "low" in scores:
        places = {iou: place for place, iou in enumerate(scores["iou"].unique())}
        offsets = {label: (number + 0.5) * 0.8 / len(labels) - 0.4 for number, label in enumerate(labels)}
        x = scores["iou"].map(places) + scores["label"].map(offsets)
        axes.vlines(x, scores["low"], scores["high"], color="0.2", lw=1.2)
    axes.set(title="Average precision by class", xlabel="IoU from which a box counts as found",
             ylabel=f"AP, {noise}")
    axes.set_ylim(0, 1)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return axes


def plot_confidence(boxes: pd.DataFrame, labels: Sequence[str]) -> Axes:
    """How sure the model is: boxes by confidence and class, counts on a log scale."""
    axes = new_axes(None, width=9)
    shown, of_how_many = frequent_labels(boxes, labels)
    if len(boxes):
        sns.histplot(boxes[boxes["label"].isin(shown)], x="confidence", hue="label", hue_order=shown,
                     palette={label: class_palette(labels)[label] for label in shown},
                     bins=np.linspace(0, 1, 41).tolist(), multiple="dodge", shrink=0.9, ax=axes)
        use_log_scale(axes)
    else:
        note(axes, "no box")
    axes.set(title=f"Predicted boxes by confidence{of_how_many}", xlabel="confidence", ylabel="boxes (log scale)",
             xlim=(0, 1))
    return axes


def plot_count_agreement(
    images: pd.DataFrame, truth: pd.DataFrame, predictions: pd.DataFrame, labels: Sequence[str]
) -> Axes:
    """True against predicted number of boxes an image and class; dots on the diagonal agree."""
    shown, of_how_many = frequent_labels(truth, labels)
    true, predicted = (box_counts(images, boxes, shown) for boxes in (truth, predictions))
    table = true.stack().rename("true").to_frame().assign(predicted=predicted.stack())
    table = table.rename_axis(["image_id", "label"]).reset_index().query("true > 0 or predicted > 0")
    table = table.groupby(["label", "true", "predicted"]).size().rename("images").reset_index()
    axes = new_axes(None, width=7, height=5)
    sns.scatterplot(table, x="true", y="predicted", hue="label", hue_order=shown, size="images", sizes=(20, 200),
                    palette={label: class_palette(labels)[label] for label in shown}, alpha=0.7, ax=axes)
    highest = max(table[["true", "predicted"]].to_numpy().max(initial=1), 1)
    axes.plot([0, highest], [0, highest], color="grey", linestyle=":")
    axes.set(title=f"Boxes an image: true against predicted{of_how_many}", xlabel="true boxes",
             ylabel="predicted boxes")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return axes
