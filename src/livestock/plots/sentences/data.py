"""Sentences about the data: classes, sizes, shapes, places, near-duplicates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from ...config import Competition
from ...data.bins import SMALL_BOX_AREA, box_counts, count_bins, count_bounds, ratio_bins, size_bins
from ...geometry import box_area
from ...tables import XYXY
from ..eda_boxes import max_overlaps
from .words import count, extremes

NO_BOX = "There is no box."


def describe_class_counts(boxes: pd.DataFrame, labels: list[str]) -> str:
    """The class with fewest images against the one with most; classes without any are counted.

    >>> boxes = pd.DataFrame({"image_id": ["a", "b", "b"], "label": ["pig", "pig", "cow"]})
    >>> describe_class_counts(boxes, ["pig", "cow"])
    'cow has fewest images, 1, which is 0.50 of those of pig (2).'
    """
    counts = boxes.groupby("label")["image_id"].nunique().reindex(labels, fill_value=0)
    absent = counts[counts == 0]
    if len(absent) == len(counts):
        return NO_BOX
    missing = f" {len(absent)} of {count(len(counts), 'class')} have no box at all." if len(absent) else ""
    found = extremes(counts[counts > 0])
    if found is None:
        label = counts.idxmax()
        return f"{label} is the only class with boxes, in {count(int(counts[label]), 'image')}.{missing}"
    most, high, fewest, low = found
    return (f"{fewest} has fewest images, {low:,.0f}, which is {low / high:.2f} of those of {most} "
            f"({high:,.0f}).{missing}")


def describe_image_sizes(images: pd.DataFrame) -> str:
    """How many sizes there are and the share of the commonest."""
    if images.empty:
        return "There is no image."
    sizes = images.groupby(["width", "height"]).size().sort_values(ascending=False, kind="stable")
    width, height = sizes.index[0]
    return (f"{count(len(sizes), 'size')} in {count(len(images), 'image')}; {sizes.iloc[0] / len(images):.0%} are "
            f"{width} x {height} px.")


def describe_empty_images(images: pd.DataFrame, boxes: pd.DataFrame) -> str:
    """How many images have no box."""
    n_empty = int((~images["image_id"].isin(boxes["image_id"])).sum())
    share = f" ({n_empty / len(images):.1%})" if n_empty else ""
    return f"{n_empty:,} of {count(len(images), 'image')}{share} have no box."


def describe_box_counts(images: pd.DataFrame, boxes: pd.DataFrame, competition: Competition) -> str:
    """The class whose images fall most into one count bin: whether the bounds divide these data."""
    counts, bounds = box_counts(images, boxes, competition.labels), count_bounds(images, boxes, competition)
    shares = {}
    for label in competition.labels:
        seen = counts.loc[counts[label] > 0, label]
        if len(seen):
            of_bin = count_bins(seen, bounds[label]).value_counts(normalize=True)
            shares[label] = (float(of_bin.max()), str(of_bin.idxmax()), float(seen.median()))
    if not shares:
        return NO_BOX
    label = max(shares, key=lambda name: shares[name][0])
    share, name, median = shares[label]
    advice = ": the bounds do not divide it" if share > 0.8 else ", so the bounds divide every class"
    return (f"{label} is the most uneven: {share:.0%} of its images are in the bin {name} (median {median:g} "
            f"boxes){advice}.")


def describe_ratio_bins(boxes: pd.DataFrame) -> str:
    """The commonest shape of boxes, and of which class most."""
    return _describe_bins(boxes, ratio_bins, "shape")


def describe_size_bins(boxes: pd.DataFrame) -> str:
    """The commonest size of boxes, and of which class most."""
    return _describe_bins(boxes, size_bins, "size")


def _describe_bins(boxes: pd.DataFrame, bins_of: Callable[[pd.DataFrame], pd.Series], what: str) -> str:
    if boxes.empty:
        return NO_BOX
    bins = bins_of(boxes).astype(str).str.replace("_", " ")
    name = bins.value_counts().idxmax()
    shares = (bins == name).groupby(boxes["label"]).mean()
    found = extremes(shares)
    words = f"The commonest {what} is {name}, {(bins == name).mean():.0%} of {count(len(boxes), 'box')}"
    return f"{words}." if found is None else f"{words}: {found[1]:.0%} of {found[0]}, {found[3]:.0%} of {found[2]}."


def describe_small_boxes(boxes: pd.DataFrame) -> str:
    """The share of boxes that are small, and of which class most."""
    if boxes.empty:
        return NO_BOX
    small = pd.Series(box_area(boxes[XYXY].to_numpy()) <= SMALL_BOX_AREA, index=boxes.index)
    shares = small.groupby(boxes["label"]).mean()
    words = f"{small.sum():,} of {count(len(boxes), 'box')} ({small.mean():.1%}) have at most {SMALL_BOX_AREA:,} px²"
    return f"{words}." if not small.any() else f"{words}, most of {shares.idxmax()} ({shares.max():.1%})."


def describe_box_centres(images: pd.DataFrame, boxes: pd.DataFrame) -> str:
    """The third of the image's height in which most box centres lie."""
    if boxes.empty:
        return NO_BOX
    height = images.set_index("image_id")["height"].reindex(boxes["image_id"]).to_numpy(float)
    third = np.clip((boxes[["y_min", "y_max"]].mean(axis=1).to_numpy() / height * 3).astype(int), 0, 2)
    shares = np.bincount(third, minlength=3) / len(boxes)
    place = ["upper", "middle", "lower"][int(shares.argmax())]
    return (f"{shares.max():.0%} of box centres lie in the {place} third of the image, {shares.min():.0%} in the "
            f"emptiest.")


def describe_count_against_area(images: pd.DataFrame, boxes: pd.DataFrame) -> str:
    """The class whose boxes in an image and their median area correlate most, by Spearman's rank correlation."""
    size = (images["width"] * images["height"]).set_axis(images["image_id"])
    share = box_area(boxes[XYXY].to_numpy()) / size.reindex(boxes["image_id"]).to_numpy(float)
    points = boxes.assign(share=share).groupby(["label", "image_id"])["share"].agg(["size", "median"])
    values = {str(label): own["size"].rank().corr(own["median"].rank()) for label, own in points.groupby(level="label")
              if own["size"].nunique() > 1 and own["median"].nunique() > 1}
    if not values:
        return "No class has images of different counts, so there is nothing to correlate."
    label = max(values, key=lambda name: abs(values[name]))
    value = values[label]
    trend = "smaller where there are more" if value < -0.3 else "larger where there are more" if value > 0.3 else (
        "of about the same size however many there are")
    return (f"Boxes of {label} are {trend} (rank correlation {value:+.2f}, the strongest of "
            f"{count(len(values), 'class')}).")


def describe_overlaps(boxes: pd.DataFrame) -> str:
    """The share of true boxes that suppression at an IoU of 0.5 would lose, and at 0.7."""
    if boxes.empty:
        return NO_BOX
    overlap = max_overlaps(boxes)
    if not (overlap > 0.5).any():
        return f"No true box overlaps another by more than 0.5; the largest overlap is {overlap.max():.2f}."
    by_class = (overlap > 0.5).groupby(boxes["label"]).mean()
    return (f"{(overlap > 0.5).mean():.1%} of true boxes overlap another by more than 0.5, "
            f"{(overlap > 0.7).mean():.1%} by "
            f"more than 0.7; most of {by_class.idxmax()} ({by_class.max():.1%} above 0.5).")


def describe_group_sizes(groups: pd.Series) -> str:
    """How many images have a near-duplicate, and how many images the largest group has."""
    if groups.empty:
        return "There is no image."
    sizes = groups.value_counts()
    many = int(sizes[sizes > 1].sum())
    return (f"{many / len(groups):.0%} of {count(len(groups), 'image')} have a near-duplicate; the largest group has "
            f"{sizes.max():,}, so there are {count(len(sizes), 'scene')} rather than {count(len(groups), 'image')}.")
