"""Figures of mistakes: what they cost, where they happen, and labels that are probably missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from ..data.archives import read_image
from ..data.bins import COUNT_BINS, RATIO_BINS, SIZE_BINS
from .common import NEUTRAL, class_palette, frequent_labels, new_axes, new_grid, note, set_title
from .images import draw_boxes, show_picture

ORDERS = {"size": SIZE_BINS, "ratio": RATIO_BINS, "count": COUNT_BINS, "place": ["far", "middle", "near"]}
AROUND = 0.6  # of the box's longer side is shown on each side of a suspect


def plot_causes(costs: pd.DataFrame) -> Axes:
    """What mAP would gain were all errors of a cause put right; `costs` of `evaluation.causes.cost_of_causes`."""
    axes = new_axes(None, width=9, height=3.6)
    shown = costs.sort_values("gain", ascending=False)
    sns.barplot(x=shown["gain"].to_numpy(), y=shown.index.to_numpy(), color=NEUTRAL, ax=axes)
    for row, (gain, sure) in enumerate(zip(shown["gain"], shown["sure"], strict=True)):
        axes.annotate(f"{gain:+.3f}, {sure:,} sure", (gain, row), xytext=(4, 0), textcoords="offset points",
                      va="center", fontsize="small")
    axes.set(title="What each cause costs", xlabel="mAP that putting it right would gain", ylabel="")
    axes.margins(x=0.25)
    return axes


def plot_error_rates(rates: pd.DataFrame, what: str, labels: Sequence[str]) -> np.ndarray:
    """Share of true boxes missed and false boxes for each true one, by bin and class; `rates` of `error_rates`."""
    palette = class_palette(labels)
    labels, of_how_many = frequent_labels(rates[rates["what"] == what], labels, by="n_truth")
    shown = rates[(rates["what"] == what) & rates["label"].isin(labels)]
    known = set(shown["bin"])
    order = [name for name in ORDERS.get(what, sorted(known)) if name in known]
    axes = new_grid(1, 2, (11, 3.4))
    for ax, (column, words) in zip(axes[0], {"missed": "share of true boxes missed",
                                             "false": "false boxes for each true one"}.items(), strict=True):
        sns.barplot(shown, x="bin", y=column, hue="label", hue_order=labels, order=order, saturation=1,
                    palette={label: palette[label] for label in labels}, legend=ax is axes[0, 1], ax=ax)
        ax.set(xlabel=what, ylabel=words)
    if legend := axes[0, 1].get_legend():
        legend.set(title="", loc="upper left")
        legend.set_bbox_to_anchor((1, 1))
    set_title(axes, f"Mistakes by {what}{of_how_many}")
    return axes


def plot_suspects(
    images: pd.DataFrame, suspects: pd.DataFrame, truth: pd.DataFrame, labels: Sequence[str], n_shown: int = 12
) -> np.ndarray:
    """The most suspicious boxes, each cut out with what is around it; human boxes are dashed."""
    shown, of_image = suspects[:n_shown], images.set_index("image_id")
    n_rows = max(-(-len(shown) // 4), 1)
    axes = new_grid(n_rows, 4, (12, 0.5 + 3.1 * n_rows))
    for ax, box in zip(axes.flat, shown.itertuples(), strict=False):
        image = of_image.loc[box.image_id]
        show_picture(ax, read_image(image["archive"], image["member"]), f"{box.label}, confidence {box.confidence:.2f}")
        near = pd.concat([shown[shown["image_id"] == box.image_id], truth[truth["image_id"] == box.image_id]])
        draw_boxes(ax, near, labels)
        half = (0.5 + AROUND) * max(box.x_max - box.x_min, box.y_max - box.y_min)
        x, y = (box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2
        ax.set(xlim=(x - half, x + half), ylim=(y + half, y - half))
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    if not len(shown):
        note(axes.flat[0], "no suspect")
    set_title(axes, "The most suspicious boxes without a label")
    return axes
