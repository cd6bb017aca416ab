"""From matches to numbers: average precision by class and its mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..config import join_names
from .matching import Matches, match_at_ious, match_competition, match_usual

COCO_IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Score:
    """`mean` over the classes with truth, 0 without any; `per_class`: columns `ap, n_truth` by `label`."""

    mean: float
    per_class: pd.DataFrame


def evaluate_as_competition(truth: pd.DataFrame, answer: pd.DataFrame, iou_threshold: float = 0.75) -> Score:
    """The competition's score: what `map_boxes.mean_average_precision_for_boxes` (1.0.6) returns.

    Raises ValueError for a threshold outside (0, 1] and for corners that are not finite.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}])
    >>> answer = pd.concat([truth.assign(image_id="b.jpg"), truth])  # a box in an image without truth comes first
    >>> evaluate_as_competition(truth, answer).mean, evaluate(truth, answer).mean
    (1.0, 0.5)
    """
    return score(match_competition(truth, answer, iou_threshold))


def evaluate(truth: pd.DataFrame, answer: pd.DataFrame, iou_threshold: float = 0.75) -> Score:
    """The usual mAP: matched as COCO does, without its crowds, areas and cap of 100 boxes; area as VOC does.

    Raises ValueError for a threshold outside (0, 1] and for corners that are not finite.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": name, "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}
    ...                     for name in ("a.jpg", "b.jpg")])
    >>> evaluate(truth, truth[:1]).mean  # one of two animals is found
    0.5
    """
    return score(match_usual(truth, answer, iou_threshold))


def evaluate_as_coco(truth: pd.DataFrame, answer: pd.DataFrame, max_det: int = 100) -> Score:
    """COCO's mAP50-95: the mean over IoU 0.5, 0.55 ... 0.95, envelope at 101 recalls, 100 boxes an image and class.

    Raises ValueError for corners that are not finite.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 100, "y_max": 10}])
    >>> round(evaluate_as_coco(truth, truth.assign(x_max=77.0)).mean, 3)  # IoU 0.77: true at 6 of the 10 thresholds
    0.6
    """
    falling = answer.sort_values("confidence", ascending=False, kind="stable")
    capped = falling[falling.groupby(["image_id", "label"]).cumcount() < max_det]
    at_ious = match_at_ious(truth, capped, COCO_IOUS.tolist())
    tables = [_per_class(matches, interpolated_precision) for matches in at_ious]
    per_class = tables[0].assign(ap=np.mean([table["ap"] for table in tables], axis=0))
    return Score(_mean(per_class), per_class)


def score(matches: Matches) -> Score:
    """Average precision of each class and their mean.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}])
    >>> score(match_usual(truth, truth, iou_threshold=0.75)).per_class.loc["pig"].to_dict()
    {'ap': 1.0, 'n_truth': 1.0}
    """
    per_class = _per_class(matches, average_precision)
    return Score(_mean(per_class), per_class)


def _per_class(matches: Matches, average: Callable[[np.ndarray, int], float]) -> pd.DataFrame:
    bounds = np.searchsorted(matches.label, np.arange(len(matches.labels) + 1))
    n_truth = matches.n_truth.sum(axis=0)
    ap = [average(matches.is_true[bounds[k] : bounds[k + 1]], n) for k, n in enumerate(n_truth)]
    return pd.DataFrame({"ap": ap, "n_truth": n_truth}, index=pd.Index(matches.labels, name="label"))


def _mean(per_class: pd.DataFrame) -> float:
    """Over the classes with truth; 0 without any."""
    return float(per_class["ap"].mean()) if per_class["ap"].notna().any() else 0.0


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


def interpolated_precision(is_true: np.ndarray, n_truth: int) -> float:
    """As `average_precision`, but the mean of the envelope at the recalls 0, 0.01 ... 1 (COCO's `accumulate`).

    >>> is_true = np.array([True, False, True])
    >>> round(interpolated_precision(is_true, 3), 4)  # precision 1 at 34 recalls, 2/3 at 33 and 0 at 34
    0.5545
    """
    if n_truth == 0:
        return float("nan")
    found = np.cumsum(is_true)
    envelope = np.maximum.accumulate((found / np.arange(1, len(found) + 1))[::-1])[::-1]
    # The first rank that reaches each recall; recalls that are never reached count as precision 0.
    reached = np.searchsorted(found / n_truth, RECALLS, side="left")
    return float(envelope[reached[reached < len(found)]].sum() / len(RECALLS))


def describe_missing_classes(labels: Sequence[str], truth: pd.DataFrame) -> str:
    """Says which of `labels` have no box in `truth` and are not in the mean; empty if none is missing.

    A mean AP silently leaves such a class out: with cows in one group of frames alone, the score of a fold may be
    the score of pigs.

    >>> describe_missing_classes(["pig", "cow"], pd.DataFrame({"label": ["pig", "pig"]}))
    'cow has no true box here: the mean is over pig alone'
    """
    present = set(truth["label"].dropna())
    missing, scored = ([label for label in labels if (label in present) is there] for there in (False, True))
    if not missing:
        return ""
    if not scored:
        return "no class has a true box here: there is nothing to score"
    over = f"{scored[0]} alone" if len(scored) == 1 else join_names(scored)
    return f"{join_names(missing)} {'has' if len(missing) == 1 else 'have'} no true box here: the mean is over {over}"
