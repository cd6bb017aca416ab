"""Whether people forgot animals or a model is mistaken: evidence from other frames, or from a person's check."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .frames import is_confirmed, mirror, number_places

SUREST = 1 / 3  # of a class's labelled boxes: with those as confident that nobody labelled, these are judged
LEAST_SUREST = 25  # fewer would say little
FORGOTTEN = 0.05  # people must have forgotten more than this share, or a rare slip of the evidence would pass for it
TELLING = 0.3  # labelled places by how much more often labelled places must be confirmed than mirrored ones
ONE_SIDED = 1.645  # standard errors of a one-sided bound with 95 % confidence
N_CROPS = 12
WHY = {
    "shown": "people forgot some",
    "all labelled": "people labelled all of them",
    "few": f"fewer than {LEAST_SUREST} boxes lie in groups of frames",
    "no contrast": "labels in other frames confirm labelled places hardly more often than others",
    "not shown": "labels of other frames do not show it",
}


def weigh_classes(matched: pd.DataFrame, gold: pd.DataFrame, images: pd.DataFrame | None) -> pd.DataFrame:
    """Whether people forgot animals of a class, by their labels in other frames: a row a `label`.

    `matched` is what `rank.match_silver` gives. A forgotten animal lies where people labelled one in other frames of
    the group about as often as a labelled animal does; a mistake does so by chance. Of the most confident boxes in
    groups of frames `labelled` and `unlabelled` are counts, `confirmed` and `unlabelled_confirmed` the shares that
    other frames confirm (`frames.is_confirmed`), `by_chance` that of the labelled boxes mirrored. Then the share
    `(unlabelled_confirmed - by_chance) / (confirmed - by_chance)` of the unlabelled are animals, which makes
    `forgotten` their share of all animals; `forgotten_low` bounds it from below with 95 % confidence,
    `forgotten_careful` is one standard error lower (Wilson 1927), with places instead of boxes as what is counted.

    `why` is a key of `WHY`; `is_shown` where that is "shown": more than `FORGOTTEN` of the animals have no label.
    """
    rows = {label: _weigh_class(own, gold, images) for label, own in matched.groupby("label", sort=True)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("label")


def _weigh_class(own: pd.DataFrame, gold: pd.DataFrame, images: pd.DataFrame | None) -> dict[str, object]:
    pool = own[own["frames"].notna()]
    pool = pool.iloc[: count_surest(pool["is_labelled"].to_numpy())]
    labelled, free = pool[pool["is_labelled"]], pool[~pool["is_labelled"]]
    found = {"labelled": len(labelled), "unlabelled": len(free), "confirmed": np.nan, "by_chance": np.nan,
             "unlabelled_confirmed": np.nan, "forgotten": 0.0, "forgotten_careful": 0.0, "forgotten_low": 0.0}
    if images is None or len(pool) < LEAST_SUREST or labelled.empty:
        return {**found, "is_shown": False, "why": "few"}
    if free.empty:
        return {**found, "is_shown": False, "why": "all labelled"}
    share, chance = labelled["is_confirmed"].mean(), is_confirmed(mirror(labelled, images), gold, images).mean()
    of_free, n_places = free["is_confirmed"].mean(), _count_places(free, images)
    found |= {"confirmed": share, "by_chance": chance, "unlabelled_confirmed": of_free}
    if share - chance < TELLING:
        return {**found, "is_shown": False, "why": "no contrast"}
    for name, n_errors in (("", 0.0), ("_careful", 1.0), ("_low", ONE_SIDED)):
        right = np.clip((lower_share(of_free, n_places, n_errors) - chance) / (share - chance), 0, 1)
        found[f"forgotten{name}"] = right * len(free) / (right * len(free) + len(labelled))
    is_shown = bool(found["forgotten_low"] > FORGOTTEN)
    return {**found, "is_shown": is_shown, "why": "shown" if is_shown else "not shown"}


def _count_places(boxes: pd.DataFrame, images: pd.DataFrame) -> float:
    """How many places would say as much if each held one box (Kish 1965, effective sample size)."""
    sizes = np.bincount(number_places(boxes, images))
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def count_surest(is_labelled: np.ndarray) -> int:
    """How many of the boxes, by falling confidence, are the most confident that the rest are judged by.

    >>> count_surest(np.ones(300, bool)), count_surest(np.ones(30, bool)), count_surest(np.ones(10, bool))
    (100, 25, 10)
    """
    return min(max(LEAST_SUREST, round(SUREST * np.count_nonzero(is_labelled))), len(is_labelled))


def lower_share(share: float, n: float, n_errors: float) -> float:
    """The lower bound of a `share` of `n`, `n_errors` standard errors below it (score interval of Wilson 1927).

    >>> round(lower_share(1.0, 12, 1.0), 3)
    0.923
    """
    if not n:
        return share
    spread = np.sqrt(share * (1 - share) / n + n_errors**2 / (4 * n**2))
    return float((share + n_errors**2 / (2 * n) - n_errors * spread) / (1 + n_errors**2 / n))


def lowest_precision(right: int, shown: int, total: int) -> float:
    """The share of `total` boxes that is right at least, where a person found `right` of the `shown` ones right.

    One standard error below (see `lower_share`), or the very share where all of them are shown. With twelve crops .9
    asks for twelve: that happens by luck in 28 % of the draws from boxes with nine in ten right, in 3 % with
    three in four right. Raises ValueError if `right` is not from 0 to `shown`.

    >>> lowest_precision(11, shown=12, total=12)
    0.9166666666666666
    >>> round(lowest_precision(11, shown=12, total=80), 3)
    0.802
    """
    if not 0 <= right <= shown:
        raise ValueError(f"ACCEPT: expected how many of {shown} crops are right, from 0 to {shown}, found {right!r}")
    if not shown or shown == total:
        return right / max(shown, 1)
    return lower_share(right / shown, shown, 1.0)


def describe_evidence(evidence: pd.DataFrame) -> list[str]:
    """What `weigh_classes` found, a sentence a class."""
    if evidence.empty:
        return ["the models found no box that could be added"]
    return [f"{label}: {_describe(row)}" for label, row in evidence.iterrows()]


def _describe(row: pd.Series) -> str:
    if row["why"] == "all labelled":
        return f"people labelled all of the {row['labelled']} most confident boxes; nothing is added"
    shares = "" if np.isnan(row["confirmed"]) else (
        f" Labels in other frames confirm {row['unlabelled_confirmed']:.0%} of the {row['unlabelled']} most confident "
        f"boxes without a label, {row['confirmed']:.0%} of those with one, {row['by_chance']:.0%} by chance.")
    if row["is_shown"]:
        return f"people forgot about {row['forgotten']:.0%} of them, at least {row['forgotten_low']:.0%}.{shares}"
    return (f"forgotten animals and confident mistakes cannot be told apart, so nothing is added: {WHY[row['why']]}; "
            f"look at the crops and set ACCEPT.{shares}")
