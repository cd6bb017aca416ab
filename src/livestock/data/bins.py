"""Classes of ratio, size and count, with the bounds of the original solution."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..config import Competition
from ..geometry import box_area
from ..tables import XYXY

RATIO_BINS = ["horizontal", "square", "vertical"]
SIZE_BINS = ["out", "very_small", "small", "medium", "large", "very_large"]
SIZE_BOUNDS = [100, 1_000, 10_000, 50_000, 100_000]  # px², a bound belongs to the larger bin
COUNT_BINS = ["none", "little", "medium", "many"]
SMALL_BOX_AREA = 4_000  # px², boxes up to this are counted apart


def ratio_bins(boxes: pd.DataFrame) -> pd.Series:
    """`horizontal` where w / (w + h) >= 0.6, `vertical` where h / (w + h) >= 0.6, else `square`; by row.

    >>> boxes = pd.DataFrame([[0, 0, 60, 40], [0, 0, 50, 50], [0, 0, 40, 60]], columns=XYXY)
    >>> ratio_bins(boxes).tolist()
    ['horizontal', 'square', 'vertical']
    """
    width, height = boxes["x_max"] - boxes["x_min"], boxes["y_max"] - boxes["y_min"]
    size = width + height  # each share is divided out by itself: 1 - 0.6 is not 0.4 in floating point
    names = np.select([width / size >= 0.6, height / size >= 0.6], ["horizontal", "vertical"], "square")
    return pd.Series(pd.Categorical(names, RATIO_BINS), index=boxes.index, name="ratio_bin")


def size_bins(boxes: pd.DataFrame) -> pd.Series:
    """The size class of each box by its area in px² of the original image.

    >>> boxes = pd.DataFrame([[0, 0, 9, 9], [0, 0, 100, 100]], columns=XYXY)  # 81 and 10,000 px²
    >>> size_bins(boxes).tolist()
    ['out', 'medium']
    """
    codes = np.searchsorted(SIZE_BOUNDS, box_area(boxes[XYXY].to_numpy()), side="right")
    return pd.Series(pd.Categorical.from_codes(codes, SIZE_BINS), index=boxes.index, name="size_bin")


def count_bounds(images: pd.DataFrame, boxes: pd.DataFrame, competition: Competition) -> dict[str, list[int]]:
    """Per label the bounds of `little` and `medium`: the config's, else terciles of these images."""
    counts = box_counts(images, boxes, competition.labels)
    bounds = {}
    for label in competition.labels:
        seen = counts.loc[counts[label] > 0, label]
        terciles = np.ceil(seen.quantile([1 / 3, 2 / 3])).astype(int).tolist() if len(seen) else [1, 2]
        bounds[label] = competition.count_bins.get(label, terciles)
    return bounds


def box_counts(images: pd.DataFrame, boxes: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Boxes an image and label: index `image_id` in the order of `images`, one column a label.

    >>> images = pd.DataFrame({"image_id": ["a.jpg", "b.jpg"]})
    >>> boxes = pd.DataFrame({"image_id": ["a.jpg", "a.jpg"], "label": ["pig", "pig"]})
    >>> box_counts(images, boxes, ["cow", "pig"])["pig"].to_dict()
    {'a.jpg': 2, 'b.jpg': 0}
    """
    counts = pd.crosstab(boxes["image_id"], boxes["label"])
    return counts.reindex(index=images["image_id"], columns=labels, fill_value=0).astype(int)


def count_bins(counts: pd.Series, bounds: list[int]) -> pd.Series:
    """`none` for 0, `little` below the first bound, `medium` below the second, else `many`.

    >>> count_bins(pd.Series([0, 1, 4, 9]), bounds=[3, 6]).tolist()
    ['none', 'little', 'medium', 'many']
    """
    codes = np.where(counts == 0, 0, 1 + np.searchsorted(bounds, counts, side="right"))
    return pd.Series(pd.Categorical.from_codes(codes, COUNT_BINS), index=counts.index, name="count_bin")
