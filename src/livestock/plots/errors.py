"""Figures of mistakes: what they cost, where they happen, and labels that are probably missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from ..data.archives import read_image
from ..data.bins import COUNT_BINS, RATIO_BINS, SIZE_BINS
from ..evaluation import BACKGROUND, MISSED
from .common import NEUTRAL, class_palette, frequent_labels, new_axes, new_grid, note, set_title
from .images import draw_boxes, short_name, show_picture

ORDERS = {"size": SIZE_BINS, "ratio": RATIO_BINS, "count": COUNT_BINS, "place": ["far", "middle", "near"]}
AROUND = 0.6  # of the box's longer side is shown on each side of a suspect


def plot_causes(costs: pd.DataFrame, cut: float | None = None) -> Axes:
    """What mAP would gain were all errors of a cause put right; `costs` of `evaluation.causes.cost_of_causes`.

    `cut` is the confidence from which boxes were counted.
    """
    axes = new_axes(None, width=9, height=3.6)
    shown = costs.sort_values("gain", ascending=False)
    sns.barplot(x=shown["gain"].to_numpy(), y=shown.index.to_numpy(), color=NEUTRAL, ax=axes)
    for row, (gain, n_errors) in enumerate(zip(shown["gain"], shown["errors"], strict=True)):
        axes.annotate(f"{gain:+.3f}, {n_errors:,} errors", (gain, row), xytext=(4, 0), textcoords="offset points",
                      va="center", fontsize="small")
    axes.set(title=f"What each cause costs{_from(cut)}", ylabel="",
             xlabel="mAP that putting it right would gain, one seed")
    axes.margins(x=0.25)
    return axes


def _from(cut: float | None) -> str:
    """What a title says of the confidence from which boxes count."""
    return "" if cut is None else f", boxes from confidence {cut:.2f}"


def plot_error_rates(
    rates: pd.DataFrame, what: str, labels: Sequence[str], cut: float | None = None
) -> np.ndarray:
    """Share of true boxes missed and false boxes for each true one, by bin and class; `rates` of `error_rates`.

    The lines on the left are 95 % intervals (Wilson 1927) of a share of so many boxes, as if boxes were independent:
    frames of one camera are not, so true intervals are wider. `cut` is the confidence from which boxes were counted.
    """
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
        if column == "missed":
            _draw_intervals(ax, shown, order, labels)
    if legend := axes[0, 1].get_legend():
        legend.set(title="", loc="upper left")
        legend.set_bbox_to_anchor((1, 1))
    set_title(axes, f"Mistakes by {what}{_from(cut)}{of_how_many}")
    return axes


def _draw_intervals(ax: Axes, rates: pd.DataFrame, order: Sequence[str], labels: Sequence[str]) -> None:
    """Error bars on seaborn's bars, which are 0.8 wide at each bin, the classes side by side."""
    by_place = rates.set_index(["bin", "label"])[["missed", "n_truth"]]
    for number, label in enumerate(labels):
        for place, name in enumerate(order):
            if (name, label) in by_place.index:
                share, n_boxes = by_place.loc[(name, label)]
                low, high = wilson_interval(share, n_boxes)
                ax.vlines(place - 0.4 + 0.8 * (number + 0.5) / len(labels), low, high, color="0.2", lw=1)


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share of `n` independent cases (Wilson 1927, as in Brown, Cai and DasGupta 2001).

    >>> low, high = wilson_interval(0.5, 100)
    >>> round(low, 3), round(high, 3)
    (0.404, 0.596)
    """
    z = 1.959964
    centre, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return float((centre - half) / (1 + z**2 / n)), float((centre + half) / (1 + z**2 / n))


def plot_confusion(confusion: pd.DataFrame, boxes: pd.DataFrame, cut: float | None = None) -> Axes:
    """Counts of true classes (rows) by predicted ones, shaded by their share of the row.

    `confusion` of `evaluation.confusion_matrix`. Of many classes those with most of the true `boxes` are shown.
    """
    every = [label for label in confusion.index if label != BACKGROUND]
    labels, of_how_many = frequent_labels(boxes, every)
    shown = confusion.loc[[*labels, BACKGROUND], [*labels, MISSED]]
    shares = shown.div(confusion.sum(axis=1).loc[shown.index].clip(lower=1), axis=0)
    n = len(labels)
    axes = new_axes(None, width=4 + 0.6 * n, height=2 + 0.5 * n)
    sns.heatmap(shares, annot=shown.to_numpy(), fmt=",d", cmap="Blues", vmin=0, vmax=1, linewidths=1, ax=axes,
                cbar_kws={"label": "share of the row"})
    axes.tick_params(axis="y", rotation=0)
    axes.set(title=f"True and predicted classes{of_how_many}", ylabel="true class",
             xlabel=f"predicted class{_from(cut)}")
    return axes


def plot_group_thumbnails(images: pd.DataFrame, groups: pd.DataFrame, n_shown: int = 12) -> np.ndarray:
    """One picture of each group of near-duplicates, most errors for each true box first, with that rate.

    `groups` of `evaluation.group_errors`; the picture is the group's image with most errors.
    """
    shown, of_image = groups[:n_shown], images.set_index("image_id")
    n_rows = max(-(-len(shown) // 4), 1)
    axes = new_grid(n_rows, 4, (12, 0.5 + 2.1 * n_rows))
    for ax, group in zip(axes.flat, shown.itertuples(), strict=False):
        image = of_image.loc[group.image_id]
        rate = "no true box" if np.isnan(group.rate) else f"{group.rate:.2f} errors a true box"
        picture = read_image(image["archive"], image["member"])
        show_picture(ax, picture, f"{short_name(str(group.name), 14)}: {rate}, images: {group.images}")
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    if not len(shown):
        note(axes.flat[0], "no image")
    more = f" (the {n_shown} worst of {len(groups):,})" if len(groups) > n_shown else ""
    set_title(axes, f"Groups of near-duplicate images by their errors{more}")
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
