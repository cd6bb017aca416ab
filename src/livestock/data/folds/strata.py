"""What an image holds, as numbers that folds are balanced by."""

from __future__ import annotations

import pandas as pd

from ...config import Competition
from ..bins import (
    COUNT_BINS,
    RATIO_BINS,
    SIZE_BINS,
    box_counts,
    count_bins,
    count_bounds,
    ratio_bins,
    size_bins,
)

DISTRIBUTIONS = ["count", "ratio", "size"]


def stratum_counts(images: pd.DataFrame, boxes: pd.DataFrame, competition: Competition) -> pd.DataFrame:
    """How much each image adds to each distribution: index `image_id` as in `images`, columns (distribution,
    label, bin).

    `count`: 1 at the count bin of each label the image shows, or 1 at ("none", "none") if it has no box.
    `ratio` and `size`: the number of its boxes of that label and bin. Summed over images and divided by the
    total of a distribution, these are the shares that `split_distances` compares.
    """
    parts = [_images_by_count(images, boxes, competition)]
    for name, bins, order in [
        ("ratio", ratio_bins(boxes), RATIO_BINS),
        ("size", size_bins(boxes), SIZE_BINS),
    ]:
        columns = pd.MultiIndex.from_product([competition.labels, order])
        found = boxes.groupby(["image_id", "label", bins], observed=True).size().unstack(["label", bins.name])
        found = found.reindex(index=images["image_id"], columns=columns).fillna(0).astype("int64")
        parts.append(pd.concat({name: found}, axis=1))
    return pd.concat(parts, axis=1).rename_axis(columns=["distribution", "label", "bin"])


def _images_by_count(images: pd.DataFrame, boxes: pd.DataFrame, competition: Competition) -> pd.DataFrame:
    counts = box_counts(images, boxes, competition.labels)
    bounds = count_bounds(images, boxes, competition)
    bins = {label: count_bins(counts[label], bounds[label]) for label in competition.labels}
    found = {
        ("count", label, name): bins[label] == name for label in competition.labels for name in COUNT_BINS[1:]
    }
    found["count", "none", "none"] = counts.sum(axis=1) == 0
    return pd.DataFrame(found).astype("int64")


def stratum_labels(images: pd.DataFrame, boxes: pd.DataFrame, competition: Competition) -> pd.DataFrame:
    """The multilabel indicator matrix of the images, boolean, as `stratum_counts` lays it out.

    True for each class x count bin the image is in, and for each class x ratio bin and class x size bin of
    which it holds at least one box: an image has many boxes, so ratio and size enter as what it contains.
    """
    return stratum_counts(images, boxes, competition) > 0


def image_strata(images: pd.DataFrame, boxes: pd.DataFrame, competition: Competition) -> pd.Series:
    """One name an image for its classes and count bins (`pig many`): the original solution's stratum."""
    counts = _images_by_count(images, boxes, competition)["count"]
    names = [" ".join(dict.fromkeys(column)) for column in counts.columns]
    return pd.Series(
        counts.to_numpy(dtype=bool) @ pd.array([f"{n}, " for n in names], dtype=object), counts.index
    )
