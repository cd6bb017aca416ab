"""Figures of silver labels: how sure they are, what they change, and what more images bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ..data.archives import read_image
from ..labels.silver import NEVER, Thresholds
from .common import NEUTRAL, THOUSANDS, class_palette, frequent_labels, new_axes, new_grid, note, set_title
from .images import draw_boxes, show_picture

AROUND = 0.6  # of the box's longer side is shown on each side of a crop


def plot_thresholds(ranked: pd.DataFrame, bands: Mapping[str, Thresholds], labels: Sequence[str]) -> np.ndarray:
    """How likely silver boxes are right by their confidence, axes a class; `ranked` of `silver.rank_silver`.

    Solid: the share that people labelled, dashed and dotted: the chance of one that they did not, dotted if labels in
    other frames confirm it; no line where it cannot be told. From the vertical line of the same kind on a box is a
    label, in the grey band before it is hidden.
    """
    palette = class_palette(labels)
    labels, of_how_many = frequent_labels(ranked, labels, 8)
    axes = new_grid(1, len(labels), (1 + 4.5 * len(labels), 3.8), sharey=True)
    for ax, label in zip(axes[0], labels, strict=True):
        own = ranked[ranked["label"] == label]
        rest, confirmed = own[~own["is_confirmed"]], own[own["is_confirmed"]]
        lines = ((own, "share", "-", "labelled by people"), (rest, "chance", "--", "right though not labelled"),
                 (confirmed, "chance", ":", "the same, confirmed by other frames"))
        for rows, column, style, words in lines:
            rows = rows[rows[column].notna()]
            ax.plot(rows["confidence"], rows[column], style, color=palette[label], lw=2, label=words)
        band = bands.get(label, NEVER)
        if band.hidden <= 1:
            ax.axvspan(band.hidden, min(band.label, 1), color="#cccccc", alpha=0.6, lw=0)
        parts = []
        for word, value, style in (("label", band.label, "--"), ("confirmed", band.confirmed, ":"),
                                   ("hidden", band.hidden, "")):
            if value <= 1:
                parts.append(f"{word} from {value:.2f}")
            if value <= 1 and style:
                ax.axvline(value, color=NEUTRAL, ls=style)
        ax.set_title(f"{label}: {', '.join(parts) or 'none sure enough'}", fontsize="small", weight="normal")
        ax.set(xlim=(0, 1), ylim=(0, 1.03), xlabel="confidence of the fused box", ylabel="share of boxes")
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    set_title(axes, f"How likely silver boxes are right{of_how_many}")
    return axes


def plot_crops(images: pd.DataFrame, crops: pd.DataFrame, gold: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Boxes that would be added, each cut out with what is around it; `crops` as `pipeline.judge_silver` gives them.

    The box in question is solid, human boxes are dashed. The title is its number, class and confidence, and in how many
    of the other frames of its group people labelled the class at this place.
    """
    of_image, n_rows = images.set_index("image_id"), max(-(-len(crops) // 6), 1)
    axes = new_grid(n_rows, 6, (13, 0.5 + 2.5 * n_rows))
    for number, (ax, box) in enumerate(zip(axes.flat, crops.itertuples(), strict=False), 1):
        image = of_image.loc[box.image_id]
        frames = "no other frames" if np.isnan(box.frames) else f"in {box.frames:.0%} of other frames"
        show_picture(ax, read_image(image["archive"], image["member"]),
                     f"{number}: {box.label} {box.confidence:.2f}\n{frames}")
        draw_boxes(ax, pd.concat([crops.iloc[[number - 1]], gold[gold["image_id"] == box.image_id]]), labels)
        half = (0.5 + AROUND) * max(box.x_max - box.x_min, box.y_max - box.y_min)
        x, y = (box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2
        ax.set(xlim=(x - half, x + half), ylim=(y + half, y - half))
    for ax in axes.flat[len(crops) :]:
        ax.set_axis_off()
    if crops.empty:
        note(axes.flat[0], "no box would be added")
    set_title(axes, "What would be added: how many of these are right?")
    return axes


def plot_students(students: pd.DataFrame, column: str = "ap_fair") -> Axes:
    """The score of each training, a line a seed through its strategies; `students` of `pipeline.compare_students`."""
    scores = students.groupby(["strategy", "seed"], sort=False)[column].mean().unstack("seed")
    axes = new_axes(None, width=8, height=3.6)
    palette = sns.color_palette("crest", max(scores.shape[1], 1))
    places = np.arange(len(scores))
    for colour, (seed, values) in zip(palette, scores.items(), strict=False):
        axes.plot(places, values.to_numpy(), "o-", color=colour, lw=1, label=f"seed {seed}")
    axes.plot(places, scores.mean(axis=1), "_", color="black", ms=34, mew=2, label="mean")
    axes.set_xticks(places, scores.index)
    axes.margins(x=0.25)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), markerscale=0.5)
    axes.set(title="The same training with each set of labels", xlabel="labels",
             ylabel=f"mAP, validation fold, {_seeds(scores.shape[1])}")
    return axes


def _seeds(n: int) -> str:
    """How many seeds an axis says it shows."""
    return "one seed" if n == 1 else f"{n} seeds"


def plot_learning_curve(curve: pd.DataFrame) -> Axes:
    """mAP by number of training images; `curve` of `pipeline.learning_curve`."""
    axes = new_axes(None, width=7, height=3.6)
    means = curve.groupby("model")[["images", "mAP"]].mean().sort_values("images")
    axes.plot(means["images"], means["mAP"], color=NEUTRAL)
    sns.scatterplot(curve, x="images", y="mAP", style="model", s=60, ax=axes)
    axes.legend(title="", loc="upper left", bbox_to_anchor=(1, 1))
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.set_xlim(0, curve["images"].max() * 1.3)
    axes.set(title="What more images bring", xlabel="images trained on", ylabel="mAP, validation fold")
    return axes
