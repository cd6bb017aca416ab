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

from ..evaluation import match_usual, resample

N_PARTS = 5
Point = dict[str, Any]  # parameters by name


@dataclass(frozen=True)
class Tuned:
    """`point` chosen on all images; `plateau`: a row a point, `score, loss, error, on_plateau`, index its parameters.

    `held_out`: every image's boxes at the point that was chosen without its part, so its score flatters nothing.
    `inner`: the same of the images outside a part, by that part, chosen without it too: what it would be if that part
    did not exist.
    """

    point: Point
    plateau: pd.DataFrame
    held_out: pd.DataFrame
    inner: dict[int, pd.DataFrame]


def split_parts(images: pd.DataFrame, rng: np.random.Generator, n_parts: int = N_PARTS) -> pd.Series:
    """A part, 0 to `n_parts` - 1, for each image of an images table, by image_id; a `group` stays together.

    Large groups first, in random order among equals, each to the part that has fewest images. Group -1 is no group.

    >>> images = pd.DataFrame({"image_id": list("abcd"), "group": [0, 0, 0, -1]})
    >>> split_parts(images, np.random.default_rng(0), n_parts=2).tolist()
    [0, 0, 0, 1]
    """
    group = images["group"].where(images["group"] >= 0, -1 - np.arange(len(images)))
    sizes = group.value_counts().sort_index()
    filled, part_of = np.zeros(n_parts, int), {}
    for name in sizes.loc[rng.permutation(sizes.index)].sort_values(ascending=False, kind="stable").index:
        part_of[name] = int(filled.argmin())
        filled[part_of[name]] += sizes[name]
    return pd.Series(group.map(part_of).to_numpy(), index=pd.Index(images["image_id"]), name="part")


def leave_outs(n_parts: int = N_PARTS) -> list[tuple[int, ...]]:
    """Every choice of up to three parts: all that is needed to choose on all images, all but one part and all but two.

    >>> leave_outs(2)
    [(), (0,), (1,), (0, 1)]
    """
    return [left_out for n in range(4) for left_out in combinations(range(n_parts), n)]


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
    than it varies with the images. The error is the grouped jackknife's over parts (Efron and Tibshirani
    1993, eq. 11.5, with parts for points). `without` names the parts that nothing may be learned from.

    >>> scores = {(): [0.70, 0.80, 0.81], (0,): [0.72, 0.82, 0.79], (1,): [0.68, 0.78, 0.83]}
    >>> rows = [(iou, left_out, score) for left_out, own in scores.items()
    ...         for iou, score in zip([0.4, 0.5, 0.6], own, strict=True)]
    >>> surface = pd.DataFrame(rows, columns=["iou_threshold", "left_out", "mAP"])
    >>> find_plateau(surface, ["iou_threshold"])[["loss", "error", "on_plateau"]].round(2).to_numpy().tolist()
    [[0.11, 0.04, False], [0.01, 0.04, True], [0.0, 0.0, True]]
    """
    return _plateau(_widen(surface, names, column), without)


def _widen(surface: pd.DataFrame, names: Sequence[str], column: str) -> pd.DataFrame:
    """A row a point, a column for each choice of parts that are left out."""
    return surface.pivot(index=list(names), columns="left_out", values=column).sort_index()


def _plateau(wide: pd.DataFrame, without: tuple[int, ...]) -> pd.DataFrame:
    keys = list(wide.columns)
    others = [n for n, key in enumerate(keys) if len(key) == len(without) + 1 and set(without) <= set(key)]
    values = wide.to_numpy(float)
    score, jackknife = values[:, keys.index(without)], values[:, others]
    best = wide.index.get_loc(_best(pd.Series(score, wide.index)))
    losses = jackknife[best] - jackknife
    spread = ((losses - losses.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) if others else np.zeros(len(score))
    error = np.sqrt(max(len(others) - 1, 0) / max(len(others), 1) * spread)
    loss = score[best] - score  # 1e-12 below: equal scores may differ in their last bits
    table = {"score": score, "loss": loss, "error": error, "on_plateau": loss <= error + 1e-12}
    return pd.DataFrame(table, index=wide.index)


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

    >>> index = pd.Index([0.4, 0.5, 0.6, 0.7], name="iou_threshold")
    >>> choose(pd.DataFrame({"score": [0.5, 0.8, 0.79, 0.81], "on_plateau": [False, True, True, True]}, index))
    {'iou_threshold': 0.6}
    """
    names, best = list(plateau.index.names), _best(plateau["score"])
    values = best if isinstance(best, tuple) else (best,)
    points = np.array([plateau.index.get_level_values(name) for name in names])
    line = np.flatnonzero((points[1:] == np.array(values[1:])[:, None]).all(axis=0))
    level, along = plateau["on_plateau"].to_numpy()[line], points[0, line]
    run = (~level).cumsum()
    around = along[level & (run == run[along == values[0]][0])]
    point = {name: float(value) for name, value in zip(names, values, strict=True)}
    return {**point, names[0]: float(around[(len(around) - 1) // 2])}


def tune(
    surface: pd.DataFrame, names: Sequence[str], boxes_at: Callable[[Point], pd.DataFrame], parts: pd.Series, *,
    column: str = "mAP",
) -> Tuned:
    """Chooses a point on all images, once more without each part for the honest score, and without each two parts.

    `boxes_at` gives the boxes of all images at a point; `column` is the score to choose by, `mAP` or a class.
    """
    numbers = sorted(int(part) for part in parts.unique())
    wide = _widen(surface, names, column)
    points = {without: choose(_plateau(wide, without)) for n in range(3) for without in combinations(numbers, n)}
    pieces = _divide(boxes_at, points, parts)
    held_out = pd.concat([pieces[part, (part,)] for part in numbers], ignore_index=True)
    inner = {part: pd.concat([held_out.iloc[:0], *(pieces[other, tuple(sorted((part, other)))] for other in numbers
                                                   if other != part)], ignore_index=True) for part in numbers}
    return Tuned(points[()], _plateau(wide, ()), held_out, inner)


def _divide(
    boxes_at: Callable[[Point], pd.DataFrame], points: Mapping[tuple[int, ...], Point], parts: pd.Series
) -> dict[tuple[int, tuple[int, ...]], pd.DataFrame]:
    """The boxes of each part that is left out where a point is chosen, at that point, by part and what is left out.

    Few points are ever chosen, and boxes of all images take seconds, so each point is taken once.
    """
    pieces: dict[tuple[int, tuple[int, ...]], pd.DataFrame] = {}
    for point in {tuple(point.values()): point for point in points.values()}.values():
        chosen = [without for without, own in points.items() if own == point and without]
        if chosen:
            boxes = boxes_at(point)
            part_of = boxes["image_id"].map(parts).to_numpy()
            own_boxes = {part: boxes[part_of == part] for without in chosen for part in without}
            pieces.update({(part, without): own_boxes[part] for without in chosen for part in without})
    return pieces
