"""From matches to numbers: average precision by class and its mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .matching import Matches, match_competition, match_usual


@dataclass(frozen=True)
class Score:
    """`mean` over the classes with truth, 0 without any; `per_class`: columns `ap, n_truth` by `label`."""

    mean: float
    per_class: pd.DataFrame


def competition_map(truth: pd.DataFrame, answer: pd.DataFrame, iou_threshold: float = 0.75) -> Score:
    """The competition's score: what `map_boxes.mean_average_precision_for_boxes` (1.0.6) returns.

    Raises ValueError for a threshold outside (0, 1] and for corners that are not finite.
    """
    return score(match_competition(truth, answer, iou_threshold))


def usual_map(truth: pd.DataFrame, answer: pd.DataFrame, iou_threshold: float = 0.75) -> Score:
    """The usual mAP: matched as COCO does, without its crowds, areas and cap of 100 boxes; area as VOC does.

    Raises ValueError for a threshold outside (0, 1] and for corners that are not finite.
    """
    return score(match_usual(truth, answer, iou_threshold))


def score(matches: Matches) -> Score:
    """Average precision of each class and their mean."""
    bounds = np.searchsorted(matches.label, np.arange(len(matches.labels) + 1))
    n_truth = matches.n_truth.sum(axis=0)
    ap = [average_precision(matches.is_true[bounds[k] : bounds[k + 1]], n) for k, n in enumerate(n_truth)]
    per_class = pd.DataFrame({"ap": ap, "n_truth": n_truth}, index=pd.Index(matches.labels, name="label"))
    return Score(float(per_class["ap"].mean()) if ap else 0.0, per_class)


def average_precision(is_true: np.ndarray, n_truth: int) -> float:
    """Area under the precision envelope at every recall reached, from `(N,)` flags by falling confidence.

    As PASCAL VOC since 2010 (development kit, section 3.4.1; py-faster-rcnn's `voc_ap`). COCO instead
    averages the same envelope at the 101 recalls 0, 0.01 ... 1, which differs by at most 0.01. NaN if there
    is no truth.

    >>> round(average_precision(np.array([True, False, True]), 3), 4)  # 1/3 * 1 + 1/3 * 2/3
    0.5556
    """
    if n_truth == 0:
        return float("nan")
    found = np.cumsum(is_true)
    precision = found / np.arange(1, len(found) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[np.asarray(is_true, bool)].sum() / n_truth)  # a true box adds 1 / n_truth to recall
