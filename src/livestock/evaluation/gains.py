"""Whether one setting of an experiment beats another: gains with intervals over seeds and groups of images together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from ..geometry import box_area
from ..tables import XYXY
from .bootstrap import draw_group_counts, resample
from .matching import Matches, match_at_ious
from .precision import COCO_IOUS, score

Verdict = Literal["shown", "not shown", "shown to be wrong"]
N_RESAMPLES = 200  # of groups of images: their deviation is then known within 5 %
THIN = 2.0  # the longer side of a thin box is so many times the shorter


@dataclass(frozen=True)
class Measure:
    """A score: mean AP at these IoUs among the boxes that `keeps` takes, `(N,)` of a boxes table; None takes all."""

    ious: Sequence[float] = tuple(COCO_IOUS)
    keeps: Callable[[pd.DataFrame], np.ndarray] | None = None


def is_thin(boxes: pd.DataFrame) -> np.ndarray:
    """Whether the longer side of each box is at least twice the shorter: `(N,)`.

    >>> is_thin(pd.DataFrame({"x_min": [0.0, 0.0], "y_min": [0.0, 0.0], "x_max": [20.0, 15.0], "y_max": [10.0, 10.0]}))
    array([ True, False])
    """
    width, height = (boxes[f"{axis}_max"].to_numpy() - boxes[f"{axis}_min"].to_numpy() for axis in "xy")
    return np.maximum(width, height) >= THIN * np.minimum(width, height)


MEASURES: dict[str, Measure] = {
    "mAP50_95": Measure(), "AP50": Measure((0.5,)), "AP75": Measure((0.75,)), "thin": Measure(keeps=is_thin)}
SIZES = ("small", "medium", "large")


def measure_sizes(scales: pd.Series, bounds: Sequence[float]) -> dict[str, Measure]:
    """Measures of small, medium and large boxes, told apart by two bounds of the square root of their area.

    That is in pixels of the network's input: `scales` says by `image_id` how much an image is scaled for it. A box on a
    bound is the larger.

    >>> boxes = pd.DataFrame({"image_id": ["a"], "x_min": [0.0], "y_min": [0.0], "x_max": [40.0], "y_max": [10.0]})
    >>> measures = measure_sizes(pd.Series({"a": 0.5}), [10, 20])
    >>> {name: measure.keeps(boxes).tolist() for name, measure in measures.items()}
    {'small': [False], 'medium': [True], 'large': [False]}
    """
    edges = [0.0, *bounds, np.inf]

    def make(low: float, high: float) -> Measure:
        """Of one size."""

        def keeps(boxes: pd.DataFrame) -> np.ndarray:
            """Whether each box is of it."""
            sides = scaled_sides(boxes, scales)
            return (sides >= low) & (sides < high)

        return Measure(keeps=keeps)

    return {name: make(low, high) for name, low, high in zip(SIZES, edges[:-1], edges[1:], strict=True)}


def scaled_sides(boxes: pd.DataFrame, scales: pd.Series) -> np.ndarray:
    """The square root of each box's area, `(N,)`, times the scale of its image.

    >>> boxes = pd.DataFrame({"image_id": ["a"], "x_min": [0.0], "y_min": [0.0], "x_max": [40.0], "y_max": [10.0]})
    >>> scaled_sides(boxes, pd.Series({"a": 0.5})).tolist()
    [10.0]
    """
    return np.sqrt(box_area(boxes[XYXY].to_numpy(float))) * boxes["image_id"].map(scales).to_numpy(float)


@dataclass(frozen=True)
class Judged:
    """The scores of one training: `scores` by measure, and `resampled`, each measure's over `N_RESAMPLES` resamples.

    `n_groups` is the effective number of the groups of images that have been resampled, see `count_groups`.
    """

    scores: dict[str, float]
    resampled: dict[str, np.ndarray]
    n_groups: float


def judge_boxes(
    images: pd.DataFrame, truth: pd.DataFrame, boxes: pd.DataFrame, counts: np.ndarray,
    measures: Mapping[str, Measure] = MEASURES,
) -> Judged:
    """Every measure of a training's boxes on these images; NaN where no true box is of the kind.

    `counts` `(n_resamples, len(images))` is how often each image is drawn (`draw_gain_counts`): the same for all
    trainings that are to be compared. Boxes of another kind than the measure's are neither found nor missed nor false,
    as COCO treats sizes.
    """
    scores, resampled = {}, {}
    for name, measure in measures.items():
        matches = _match(truth, boxes, measure)
        if not sum(found.n_truth.sum() for found in matches):
            scores[name], resampled[name] = float("nan"), np.full(len(counts), np.nan)
            continue
        scores[name] = float(np.mean([score(found).mean for found in matches]))
        resampled[name] = np.mean([resample(found, pd.Index(images["image_id"]), counts) for found in matches], axis=0)
    return Judged(scores, resampled, count_groups(images, truth))


def count_groups(images: pd.DataFrame, objects: pd.DataFrame) -> float:
    """The effective number of groups of these images (Kish 1965), at most their number; 0 without objects.

    A group's size is its share of the `objects`, averaged over their labels: a video with most of the pigs counts for
    most of the score. An image in no group, -1, is one by itself.

    >>> images = pd.DataFrame({"image_id": list("abcd"), "group": [3, 3, -1, -1]})
    >>> count_groups(images, pd.DataFrame({"image_id": list("acd"), "label": "pig"}))
    3.0
    >>> count_groups(images, pd.DataFrame({"image_id": list("aabc"), "label": "pig"}))  # 3 of 4 in one group
    1.6
    """
    group = images["group"].where(images["group"] >= 0, -1 - np.arange(len(images)))
    of_object = objects["image_id"].map(pd.Series(group.to_numpy(), images["image_id"]))
    shares = pd.crosstab(of_object, objects["label"].to_numpy(), normalize="columns").mean(axis=1)
    return round(float(1 / (shares**2).sum()), 9) if len(shares) else 0.0


def _match(truth: pd.DataFrame, boxes: pd.DataFrame, measure: Measure) -> list[Matches]:
    if measure.keeps is None:
        return match_at_ious(truth, boxes, measure.ious)
    true, given = (table.assign(ignored=~measure.keeps(table)) for table in (truth, boxes))
    if true["ignored"].all():
        return []
    return match_at_ious(true, given, measure.ious)


def draw_gain_counts(images: pd.DataFrame, seed: int, n_resamples: int = N_RESAMPLES) -> np.ndarray:
    """How often each image is drawn in each resample of groups of near-duplicates: `(n_resamples, len(images))`."""
    return draw_group_counts(np.random.default_rng(seed), images["group"].to_numpy(), n_resamples)


@dataclass(frozen=True)
class Gain:
    """By how much one setting is better than another: the mean over seeds, from `low` to `high` with 95 % confidence.

    The bounds are NaN with a single seed, or a single group of images: what another would change is not known then.
    """

    mean: float
    low: float
    high: float
    n_seeds: int

    def __str__(self) -> str:
        if np.isnan(self.mean):
            return "no animal to score by"
        if np.isnan(self.low):
            return f"{self.mean:+.3f} ({'one seed' if self.n_seeds < 2 else 'one group of images'})"
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f}, {self.n_seeds} seeds)"


def find_gain(better: Sequence[Judged], worse: Sequence[Judged], measure: str, level: float = 0.95) -> Gain:
    """The gain in a measure, both sides trained with the same seeds in the same order.

    Two things vary that have nothing to do with each other, so their half widths are added in squares: the seed, whose
    part is Student's t over the paired differences, and the images, whose part is Student's t, with one degree of
    freedom less than the effective number of groups, times the deviation of the mean difference over resampled groups
    (paired bootstrap), corrected for how much too small it is with few of them. Raises ValueError for unequal numbers.

    >>> low, high = (Judged({"AP75": value}, {"AP75": np.full(9, value)}, 8) for value in (0.5, 0.6))
    >>> str(find_gain([high, high], [low, low], "AP75"))
    '+0.100 (+0.100 to +0.100, 2 seeds)'
    """
    if len(better) != len(worse):
        raise ValueError(f"gain: expected as many trainings on both sides, found {len(better)} and {len(worse)}")
    by_seed = np.array([one.scores[measure] - other.scores[measure]
                        for one, other in zip(better, worse, strict=True)])
    n_seeds, mean = len(by_seed), float(np.mean(by_seed)) if len(by_seed) else float("nan")
    n_groups = min((one.n_groups for one in (*better, *worse)), default=0)
    if n_seeds < 2 or n_groups <= 1 or np.isnan(mean):
        return Gain(mean, float("nan"), float("nan"), n_seeds)
    of_groups = np.mean([one.resampled[measure] - other.resampled[measure]
                         for one, other in zip(better, worse, strict=True)], axis=0)
    of_groups = np.nanstd(of_groups, ddof=1)  # a resample may have nothing to score
    of_groups *= np.sqrt(n_groups / (n_groups - 1))
    tail = (1 + level) / 2
    half = np.hypot(stdtrit(n_seeds - 1, tail) * by_seed.std(ddof=1) / np.sqrt(n_seeds),
                    stdtrit(n_groups - 1, tail) * of_groups)
    return Gain(mean, float(mean - half), float(mean + half), n_seeds)


def decide(gains: Sequence[Gain]) -> Verdict:
    """Whether a claim that one setting is better than each of some others is shown by these gains.

    Shown, if every interval lies above zero, which needs no correction for their number; shown to be wrong, if any lies
    below. An interval is needed: one seed shows nothing.

    >>> decide([Gain(0.1, 0.05, 0.15, 3)]), decide([Gain(0.1, 0.05, 0.15, 3), Gain(0.1, -0.05, 0.25, 3)])
    ('shown', 'not shown')
    >>> decide([Gain(-0.1, -0.15, -0.05, 3)])
    'shown to be wrong'
    """
    if gains and all(gain.low > 0 for gain in gains):
        return "shown"
    return "shown to be wrong" if any(gain.high < 0 for gain in gains) else "not shown"
