"""Thresholds chosen by cross-validation over images: from the plateau, not from its lucky peak.

A surface is a table with a row a point and set of images: the point's parameters, `left_out` (parts of the images that
do not count) and scores. Any method has one: of suppression the sweep gives it, of others `score_points`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from ..metrics import interval, match_usual, resample, usual_map

N_PARTS = 5
Point = dict[str, Any]  # parameters by name


@dataclass(frozen=True)
class Tuned:
    """`point` chosen on all images; `plateau`: a row a point, `score, loss, error, on_plateau`, index its parameters.

    `held_out`: every image's boxes at the point that was chosen without its part, so its score flatters nothing.
    """

    point: Point
    plateau: pd.DataFrame
    held_out: pd.DataFrame


def split_parts(images: pd.DataFrame, rng: np.random.Generator, n_parts: int = N_PARTS) -> pd.Series:
    """A part, 0 to `n_parts` - 1, for each image of an images table, by image_id; a `group` stays together.

    Large groups first, in random order among equals, each to the part that has fewest images. Group -1 is no group.
    """
    group = images["group"].where(images["group"] >= 0, -1 - np.arange(len(images)))
    sizes = group.value_counts().sort_index()
    filled, part_of = np.zeros(n_parts, int), {}
    for name in sizes.loc[rng.permutation(sizes.index)].sort_values(ascending=False, kind="stable").index:
        part_of[name] = int(filled.argmin())
        filled[part_of[name]] += sizes[name]
    return pd.Series(group.map(part_of).to_numpy(), index=pd.Index(images["image_id"]), name="part")


def leave_outs(n_parts: int = N_PARTS) -> list[tuple[int, ...]]:
    """Every choice of no part, one or two: what choosing on all images, and on all but one part, looks at."""
    return [left_out for n in range(3) for left_out in combinations(range(n_parts), n)]


def score_points(
    truth: pd.DataFrame, answers: Mapping[tuple[float, ...], pd.DataFrame], names: Sequence[str], parts: pd.Series,
    metric_iou: float,
) -> pd.DataFrame:
    """The surface of a method that has no short cut: `answers` holds its boxes at each point of parameters `names`."""
    subsets = leave_outs(parts.max() + 1)
    counts = np.array([~parts.isin(left_out) for left_out in subsets], int)
    rows = [[*point, left_out, score] for point, boxes in answers.items()
            for left_out, score in zip(subsets, resample(match_usual(truth, boxes, metric_iou), parts.index, counts),
                                       strict=True)]
    return pd.DataFrame(rows, columns=[*names, "left_out", "mAP"])


def find_plateau(surface: pd.DataFrame, names: Sequence[str], *, column: str = "mAP",
                 without: tuple[int, ...] = ()) -> pd.DataFrame:
    """Each point's score, how far it lies below the best (`loss`), that loss's standard error, and if it is level.

    A point is on the plateau where its loss is within one standard error: the best point's lead over it is no larger
    than what a change of images makes of it. The error is the grouped jackknife's over parts (Efron and Tibshirani
    1993, eq. 11.5, with parts for points). `without` names the parts that nothing may be learned from.
    """
    wide = surface.pivot(index=list(names), columns="left_out", values=column).sort_index()
    score = wide[without]
    others = [key for key in wide.columns if len(key) == len(without) + 1 and set(without) <= set(key)]
    jackknife = wide[others]
    best = _best(score)
    losses = jackknife.loc[best] - jackknife
    spread = losses.sub(losses.mean(axis=1), axis=0).pow(2).sum(axis=1)
    error = np.sqrt((len(others) - 1) / max(len(others), 1) * spread)
    loss = score.loc[best] - score
    return pd.DataFrame({"score": score, "loss": loss, "error": error, "on_plateau": loss <= error + 1e-12})


def _best(score: pd.Series) -> Hashable:
    """The highest point; of equal ones the lowest confidence threshold, which cuts nothing that might be found."""
    highest = score[score >= score.max() - 1e-12]
    if "conf_threshold" in highest.index.names:
        highest = highest.sort_index(level="conf_threshold", sort_remaining=False, kind="stable")
    return highest.index[0]


def choose(plateau: pd.DataFrame) -> Point:
    """The middle of the plateau around the best point, along the first parameter, the others as at the best.

    A confidence threshold is thus left as low as it scores best: a cut there removes the end of the ranking and can
    only lower the usual average precision.
    """
    names, best = list(plateau.index.names), _best(plateau["score"])
    table = plateau.reset_index()
    point = {name: float(value) for name, value in
             zip(names, best if isinstance(best, tuple) else (best,), strict=True)}
    line = table[(table[names[1:]] == pd.Series(point)[names[1:]]).all(axis=1)].reset_index(drop=True)
    run = (~line["on_plateau"]).cumsum()
    around = line[line["on_plateau"] & (run == run[line[names[0]] == point[names[0]]].iloc[0])]
    return {**point, names[0]: float(around[names[0]].iloc[(len(around) - 1) // 2])}


def tune(
    surface: pd.DataFrame, names: Sequence[str], boxes_at: Callable[[Point], pd.DataFrame], parts: pd.Series, *,
    column: str = "mAP",
) -> Tuned:
    """Chooses a point on all images and, for the honest score, once more without each part.

    `boxes_at` gives the boxes of all images at a point; `column` is the score to choose by, `mAP` or a class.
    """
    held_out = []
    for part in sorted(parts.unique()):
        boxes = boxes_at(choose(find_plateau(surface, names, column=column, without=(part,))))
        held_out.append(boxes[boxes["image_id"].map(parts) == part])
    plateau = find_plateau(surface, names, column=column)
    return Tuned(choose(plateau), plateau, pd.concat(held_out, ignore_index=True))


def compare(
    truth: pd.DataFrame, answers: Mapping[str, pd.DataFrame], images: pd.Index, metric_iou: float,
    counts: np.ndarray,
) -> pd.DataFrame:
    """Each answer's mAP with its interval over images, and its gain over the first with the paired interval.

    One row an answer: `mAP, low, high, gain, gain_low, gain_high`. `counts` from `metrics.draw_counts`.
    """
    rows: dict[str, dict[str, float]] = {}
    scores = {name: usual_map(truth, boxes, metric_iou).mean for name, boxes in answers.items()}
    resampled = {name: resample(match_usual(truth, boxes, metric_iou), images, counts)
                 for name, boxes in answers.items()}
    first = next(iter(answers))
    for name in answers:
        low, high = interval(resampled[name])
        gain_low, gain_high = interval(resampled[name] - resampled[first])
        rows[name] = {"mAP": scores[name], "low": low, "high": high, "gain": scores[name] - scores[first],
                      "gain_low": gain_low, "gain_high": gain_high}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
