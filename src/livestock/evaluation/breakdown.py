"""Where the score comes from: by size of box, by boxes an image, along the recall, image by image."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..data.bins import COUNT_BINS, SIZE_BINS, SIZE_BOUNDS, box_counts, count_bins
from ..geometry import box_area
from ..tables import XYXY
from .matching import Matches, match_usual
from .precision import evaluate

COCO_SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}  # px²
ORIGINAL_SIZES = dict(zip(SIZE_BINS, zip([0.0, *SIZE_BOUNDS], [*SIZE_BOUNDS, np.inf], strict=True), strict=True))


def score_sizes(
    truth: pd.DataFrame, answer: pd.DataFrame, iou_threshold: float, sizes: dict[str, tuple[float, float]]
) -> pd.DataFrame:
    """AP of each class among boxes of each size: one row a size and class, `bin, label, ap, n_truth`.

    Both tables in pixels of the original image. As COCO: boxes of another size are neither found nor missed nor false.
    Of bounds in px² the lower belongs to the size and the upper does not, where COCO counts such a box twice. `ap` is
    NaN where there is no truth.
    """
    found = []
    for name, (low, high) in sizes.items():
        true, given = (boxes.assign(ignored=~_between(box_area(boxes[XYXY].to_numpy()), low, high))
                       for boxes in (truth, answer))
        found.append(evaluate(true, given, iou_threshold).per_class.reset_index().assign(bin=name))
    return pd.concat(found, ignore_index=True)[["bin", "label", "ap", "n_truth"]]


def _between(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values >= low) & (values < high)


def score_counts(
    images: pd.DataFrame, truth: pd.DataFrame, answer: pd.DataFrame, iou_threshold: float, bounds: dict[str, list[int]]
) -> pd.DataFrame:
    """AP of each class in images that show few or many of it: one row a count bin and class, as `score_sizes`.

    `bounds` as `bins.count_bounds` gives them. Images without the class (`none`) have no AP and are left out.
    """
    found = []
    for label, own_bounds in bounds.items():
        bins = count_bins(box_counts(images, truth, [label])[label], own_bounds)
        for name in COUNT_BINS[1:]:
            true, given = (boxes[boxes["image_id"].isin(bins.index[bins == name]) & (boxes["label"] == label)]
                           for boxes in (truth, answer))
            result = evaluate(true, given, iou_threshold).per_class
            row = result.loc[label] if label in result.index else {"ap": np.nan, "n_truth": 0}
            found.append({"bin": name, "label": label, "ap": row["ap"], "n_truth": int(row["n_truth"])})
    return pd.DataFrame(found)


def precision_recall(matches: Matches) -> pd.DataFrame:
    """The curve behind the AP: a row a box, `label, confidence, recall, precision`, by class and falling confidence.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}])
    >>> answer = pd.concat([truth.assign(confidence=0.9), truth.assign(confidence=0.8, x_max=99.0)])
    >>> precision_recall(match_usual(truth, answer, 0.75))[["recall", "precision"]].to_numpy().tolist()
    [[1.0, 1.0], [1.0, 0.5]]
    """
    tables = []
    for class_id, label in enumerate(matches.labels):
        mine = matches.label == class_id
        found, n_truth = np.cumsum(matches.is_true[mine]), matches.n_truth[:, class_id].sum()
        tables.append(pd.DataFrame({
            "label": label, "confidence": matches.confidence[mine], "recall": found / max(n_truth, 1),
            "precision": found / np.arange(1, len(found) + 1),
        }))
    columns = ["label", "confidence", "recall", "precision"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def image_errors(
    images: pd.DataFrame, truth: pd.DataFrame, answer: pd.DataFrame, iou_threshold: float, conf_threshold: float = 0.25
) -> pd.DataFrame:
    """Boxes missed and false in each image, counting answers from `conf_threshold`; most errors first.

    Index image_id, columns `n_truth, missed, false, errors`. A class without any truth has only false boxes.

    >>> from livestock.tables import make_boxes
    >>> images = pd.DataFrame({"image_id": ["a.jpg", "b.jpg"]})
    >>> truth = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}])
    >>> image_errors(images, truth, truth.assign(x_max=2.0), 0.75).loc["a.jpg"].to_dict()
    {'n_truth': 1, 'missed': 1, 'false': 1, 'errors': 2}
    """
    sure = answer[answer["confidence"] >= conf_threshold]
    matches = match_usual(truth, sure, iou_threshold)
    n_true = np.bincount(matches.image[matches.is_true], minlength=len(matches.images))
    table = pd.DataFrame({"n_truth": truth["image_id"].value_counts(), "sure": sure["image_id"].value_counts()})
    table = table.reindex(images["image_id"]).fillna(0).astype(int)
    true = pd.Series(n_true, index=matches.images).reindex(table.index, fill_value=0)
    table["missed"], table["false"] = table["n_truth"] - true, table["sure"] - true
    table["errors"] = table["missed"] + table["false"]
    table = table.drop(columns="sure").sort_index()
    return table.sort_values("errors", ascending=False, kind="stable")
