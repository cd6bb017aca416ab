"""Figures about boxes: counts, shapes, sizes, places and overlaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..config import Competition
from ..data.bins import (
    COUNT_BINS,
    SIZE_BOUNDS,
    SMALL_BOX_AREA,
    box_counts,
    count_bins,
    count_bounds,
    ratio_bins,
    size_bins,
)
from ..geometry import box_area, pairwise_iou
from ..tables import XYXY
from .common import (
    FEW_PERCENT,
    THOUSANDS,
    class_palette,
    frequent_labels,
    new_axes,
    new_grid,
    set_title,
    spread,
    use_log_scale,
)

N_POINTS = 4_000  # more points than this only hide one another
IOU_EDGES = np.linspace(0, 1, 41).tolist()
N_CELLS = 24  # of the density maps, along each side


def plot_box_counts(images: pd.DataFrame, boxes: pd.DataFrame, competition: Competition) -> np.ndarray:
    """How many boxes of a class an image that shows it has, over the bounds of the count bins."""
    palette = class_palette(competition.labels)
    labels, of_how_many = frequent_labels(boxes, competition.labels)
    counts, bounds = box_counts(images, boxes, labels), count_bounds(images, boxes, competition)
    axes = _grid_of_classes(len(labels), 4.5, 3.8)
    for ax, label in zip(axes.flat, labels, strict=False):
        seen = counts.loc[counts[label] > 0, label]
        top = max(seen.max() if len(seen) else 0, bounds[label][1]) + 0.5
        ax.hist(seen, bins=np.arange(0.5, top + 1), color=palette[label])
        edges = [0.5, *(bound - 0.5 for bound in bounds[label]), top + 0.5]
        sizes = count_bins(seen, bounds[label]).value_counts()
        for name, low, high, shade in zip(
            COUNT_BINS[1:], edges[:-1], edges[1:], ["0.96", "0.9", "0.84"], strict=True
        ):
            ax.axvspan(low, high, color=shade, zorder=0, label=f"{name}: {sizes[name]:,}", lw=0)
        for bound in edges[1:-1]:
            ax.axvline(bound, color="0.4", ls="--", lw=1)
        ax.set(title=label, xlabel=f"{label} boxes in an image", ylabel="images", xlim=(0.5, top))
        ax.grid(visible=False, axis="x")
        ax.yaxis.set_major_formatter(THOUSANDS)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, handlelength=1.2, columnspacing=1)
    set_title(axes, f"Boxes per image, over the bounds of the count bins{of_how_many}")
    return axes


def _grid_of_classes(n_labels: int, width: float, height: float) -> np.ndarray:
    """Axes of a class each, at most four beside each other; those that are left over are off."""
    n_columns = min(n_labels, 4)
    n_rows = -(-n_labels // n_columns)
    axes = new_grid(n_rows, n_columns, (width * n_columns, height * n_rows))
    for ax in axes.flat[n_labels:]:
        ax.remove()
    return np.array([axes.flat[:n_labels]]) if n_rows > 1 else axes


def plot_ratio_bins(boxes: pd.DataFrame, labels: Sequence[str], ax: Axes | None = None) -> Axes:
    """Share of each class's boxes that are lying, square and standing; the numbers are boxes."""
    ax = _plot_bins(boxes, ratio_bins(boxes), labels, new_axes(ax))
    ax.set(
        title="Shapes of boxes",
        xlabel="horizontal from w / (w + h) = 0.6, vertical from h / (w + h) = 0.6",
        ylabel="share of the class's boxes",
    )
    return ax


def plot_size_bins(boxes: pd.DataFrame, labels: Sequence[str], ax: Axes | None = None) -> Axes:
    """Share of each class's boxes in each size class; the numbers are boxes."""
    ax = _plot_bins(boxes, size_bins(boxes), labels, new_axes(ax, width=9))
    ax.set(
        title="Sizes of boxes",
        xlabel="size class, by area in px² of the original image",
        ylabel="share of the class's boxes",
    )
    bounds = ["under 100", *(f"from {bound:,}" for bound in SIZE_BOUNDS)]
    names = [text.get_text().replace("_", " ") for text in ax.get_xticklabels()]
    ax.set_xticks(range(len(names)), [f"{name}\n{bound}" for name, bound in zip(names, bounds, strict=True)])
    return ax


def _plot_bins(boxes: pd.DataFrame, bins: pd.Series, labels: Sequence[str], ax: Axes) -> Axes:
    order, palette = list(bins.cat.categories), class_palette(labels)
    labels, of_how_many = frequent_labels(boxes, labels)
    counts = pd.crosstab(bins, boxes["label"]).reindex(index=order, columns=labels, fill_value=0)
    width = 0.8 / len(labels)
    for number, label in enumerate(labels):
        place = np.arange(len(order)) + (number - (len(labels) - 1) / 2) * width
        bars = ax.bar(
            place, counts[label] / max(counts[label].sum(), 1), width * 0.95, color=palette[label], label=label
        )
        if len(labels) <= 4:  # more would lie over each other
            ax.bar_label(bars, [f"{count:,}" for count in counts[label]], padding=2, fontsize="small")
    ax.set_xticks(range(len(order)), order)
    ax.grid(visible=False, axis="x")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_ylim(0, max(ax.get_ylim()[1] * 1.05, 0.01))
    ax.legend(title=f"class{of_how_many}", ncols=1 + len(labels) // 7)
    return ax


def plot_small_boxes(boxes: pd.DataFrame, labels: Sequence[str], ax: Axes | None = None) -> Axes:
    """Areas of the boxes of at most `SMALL_BOX_AREA` px², which the original solution counted apart."""
    ax = new_axes(ax)
    areas = pd.Series(box_area(boxes[XYXY].to_numpy()), boxes["label"].to_numpy())
    palette = class_palette(labels)
    labels, of_how_many = frequent_labels(boxes, labels)
    small = {label: areas[areas.index == label] for label in labels}
    names = {}
    for label, all_areas in small.items():
        small[label] = all_areas[all_areas <= SMALL_BOX_AREA]
        share = len(small[label]) / max(len(all_areas), 1)
        names[label] = f"{label}: {len(small[label]):,} of {len(all_areas):,} boxes ({share:.1%})"
    ax.hist(
        list(small.values()),
        bins=np.linspace(0, SMALL_BOX_AREA, 41).tolist(),
        stacked=True,
        color=[palette[label] for label in labels],
        label=list(names.values()),
        rwidth=0.92,
    )
    ax.set(
        title=f"Small boxes: at most {SMALL_BOX_AREA:,} px²{of_how_many}",
        xlabel="area in px² of the original image",
        ylabel="boxes",
        xlim=(0, SMALL_BOX_AREA),
    )
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.grid(visible=False, axis="x")
    ax.legend(loc="upper left")
    ax.set_ylim(0, ax.get_ylim()[1] * 1.2)
    return ax


def plot_box_centres(images: pd.DataFrame, boxes: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Where in the image the centres of each class's boxes lie, as a density map over all images."""
    sizes = images.set_index("image_id")[["width", "height"]]
    centres = boxes[XYXY].to_numpy().reshape(-1, 2, 2).mean(axis=1) / sizes.loc[boxes["image_id"]].to_numpy()
    aspect = (sizes["height"] / sizes["width"]).median() if len(sizes) else 1.0
    palette = class_palette(labels)
    labels, of_how_many = frequent_labels(boxes, labels)
    axes = _grid_of_classes(len(labels), 5, 1.2 + 3.6 * aspect)
    edges = np.linspace(0, 1, N_CELLS + 1)
    for ax, label in zip(axes.flat, labels, strict=False):
        colour = palette[label]
        chosen = centres[(boxes["label"] == label).to_numpy()]
        cells = np.histogram2d(chosen[:, 1], chosen[:, 0], bins=N_CELLS, range=[[0, 1], [0, 1]])[0]
        mesh = ax.pcolormesh(edges, edges, cells, cmap=sns.light_palette(colour, as_cmap=True), vmin=0)
        ax.figure.colorbar(mesh, cax=ax.inset_axes((1.03, 0, 0.04, 1)), label="boxes in a cell")
        ax.set(
            title=f"{label}: {len(chosen):,} boxes",
            xlabel="x of the centre / width",
            ylabel="y of the centre / height",
            xlim=(0, 1),
            ylim=(1, 0),
        )
        ax.set_box_aspect(aspect)
        ax.grid(visible=False)
    set_title(axes, f"Where boxes lie in the image{of_how_many}")
    return axes


def plot_count_against_area(
    images: pd.DataFrame, boxes: pd.DataFrame, labels: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Boxes of a class in an image against their median share of its area; a point per image and class."""
    ax = new_axes(ax, height=4.5)
    palette = class_palette(labels)
    labels, of_how_many = frequent_labels(boxes, labels)
    boxes = boxes[boxes["label"].isin(labels)]
    size = images.assign(area=images["width"] * images["height"]).set_index("image_id")["area"]
    share = box_area(boxes[XYXY].to_numpy()) / size.reindex(boxes["image_id"]).to_numpy()
    points = (
        boxes.assign(share=share)
        .groupby(["label", "image_id"])["share"]
        .agg(["size", "median"])
        .reset_index()
    )
    shown = points.iloc[spread(len(points), N_POINTS)].sample(
        frac=1, random_state=0
    )  # so that no class lies on top
    colours = shown["label"].map(palette)
    ax.scatter(shown["size"], shown["median"], c=list(colours), s=18, alpha=0.5, linewidth=0)
    drawn = f" ({len(shown):,} of {len(points):,} points drawn)" if len(shown) < len(points) else ""
    ax.set(
        title=f"Box count against box size{drawn}{of_how_many}",
        xlabel="boxes of the class in the image",
        ylabel="median box area / image area",
    )
    if len(points):
        use_log_scale(ax, FEW_PERCENT)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for label in labels:
        ax.scatter([], [], color=palette[label], s=18, label=label)  # the legend's, as points are mixed
    ax.legend(title="class")
    return ax


def max_overlaps(boxes: pd.DataFrame) -> pd.Series:
    """The largest IoU of each box with another box of its image; 0 where it is alone."""
    found = np.zeros(len(boxes))
    corners = boxes[XYXY].to_numpy()
    for rows in boxes.groupby("image_id").indices.values():
        iou = pairwise_iou(corners[rows], corners[rows])
        np.fill_diagonal(iou, 0)
        found[rows] = iou.max(axis=1)
    return pd.Series(found, index=boxes.index, name="max_iou")


def plot_overlaps(boxes: pd.DataFrame, labels: Sequence[str], ax: Axes | None = None) -> Axes:
    """How much each box is overlapped by the box of its image that overlaps it most, on a log scale."""
    ax = new_axes(ax)
    overlap, palette = max_overlaps(boxes), class_palette(labels)
    labels, of_how_many = frequent_labels(boxes, labels)
    for label in labels:
        colour = palette[label]
        chosen = overlap[boxes["label"] == label]
        if len(chosen):
            name = (
                f"{label}: {(chosen > 0).mean():.0%} overlapped at all, {(chosen > 0.5).mean():.1%} above 0.5"
            )
            weights = np.full(len(chosen), 1 / len(chosen))
            ax.hist(
                chosen,
                bins=IOU_EDGES,
                weights=weights,
                histtype="stepfilled",
                alpha=0.25,
                color=colour,
            )
            ax.hist(
                chosen,
                bins=IOU_EDGES,
                weights=weights,
                histtype="step",
                lw=1.8,
                color=colour,
                label=name,
            )
    if len(boxes):
        use_log_scale(ax, FEW_PERCENT)
        ax.legend(loc="upper right")
    ax.set(
        title=f"Overlap between boxes of one image{of_how_many}",
        xlabel="largest IoU with another box of the image",
        ylabel="share of the class's boxes",
        xlim=(0, 1),
    )
    return ax
