"""How likely a silver box without a human label is right, and from which confidence it becomes a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from ...evaluation import match_ground_truth
from ...evaluation.causes import RIGHT_IOU
from ...geometry import largest_iou
from ...postprocess import keep_boxes
from ...tables import XYXY
from ..missing import SUSPECT_IOU
from .evidence import count_surest, lower_share, weigh_classes
from .frames import CONFIRMED, share_of_frames

TRUSTED = 0.5, 0.95  # the share of the most confident with a label: below, the model is wrong; above, none is missing
UNSURE = 0.1  # from this confidence a box in a new image is no background, however little its class is trusted


class Thresholds(NamedTuple):
    """Confidences of a class: from `label` a silver box is a label, from `hidden` up to that it is uncertain.

    A box that labels in other frames confirm is a label from `confirmed` on.
    """

    label: float
    hidden: float
    confirmed: float = 1.01


NEVER = Thresholds(1.01, 1.01)


def choose_thresholds(
    truth: pd.DataFrame, silver: pd.DataFrame, images: pd.DataFrame | None = None, *, precision: float = 0.9,
    doubt: float = 0.2, new_images: bool = False, trust_shares: bool = False,
) -> dict[str, Thresholds]:
    """Thresholds of each class from out-of-fold `silver` and the human boxes of the same images.

    `label` is the lowest confidence above which boxes without a human label are right with this `precision` on average,
    and each more likely right than wrong; `confirmed` the same for boxes that labels in other frames confirm; `hidden`
    the lowest from which the others are right with the chance `doubt`. The chances are those of `rank_silver`. A class
    gets thresholds above 1, which select nothing, where they cannot be told: without `images`, or where the frames of
    their groups do not show that people forgot any (see `evidence.weigh_classes`).

    With `trust_shares` the most confident boxes are taken to be right, all of them: what could be added at most, to be
    looked at before it is. Then a class is left out if people labelled less than half of the most confident boxes, or
    all but one in twenty.

    With `new_images` the thresholds are for images that nobody has labelled: there nothing need be missing elsewhere,
    and a class that is not trusted is hidden from `UNSURE`. Raises ValueError for shares outside (0, 1) and if there is
    no human box.
    """
    for name, value in (("precision", precision), ("doubt", doubt)):
        if not 0 < value < 1:
            raise ValueError(f"{name}: expected a share above 0 and below 1, found {value!r}")
    if truth.empty:
        raise ValueError("truth: expected human boxes to judge silver ones by, found none; run 01_eda first")
    by_shares = rank_silver(truth, silver, trust_shares=True) if trust_shares else None
    labels = sorted(truth["label"].unique())
    return thresholds_of(rank_silver(truth, silver, images), labels, by_shares, precision=precision, doubt=doubt,
                    new_images=new_images)


def thresholds_of(
    ranked: pd.DataFrame, labels: Sequence[str], by_shares: pd.DataFrame | None = None, *, precision: float = 0.9,
    doubt: float = 0.2, new_images: bool = False,
) -> dict[str, Thresholds]:
    """As `choose_thresholds`, from what `rank_silver` gives; `by_shares` is the same with `trust_shares`, or None."""
    choose = _choose_new if new_images else _choose_old
    bands = {label: choose(ranked[ranked["label"] == label], precision, doubt) for label in labels}
    if by_shares is None:
        return bands
    by_shares = by_shares.assign(is_confirmed=False)
    for label, guarded in bands.items():
        own = by_shares[by_shares["label"] == label]
        is_trusted = len(own) > 0 and TRUSTED[0] <= own["share"].iloc[0] <= TRUSTED[1]
        most = choose(own, precision, doubt) if is_trusted or new_images else NEVER
        least = min(most.label, guarded.label)
        bands[label] = Thresholds(least, min(most.hidden, guarded.hidden), min(least, guarded.confirmed))
    return bands


def _choose_old(own: pd.DataFrame, precision: float, doubt: float) -> Thresholds:
    """Of one class, for images that people labelled."""
    free = own[~own["is_labelled"]]
    confirmed, rest = free[free["is_confirmed"]], free[~free["is_confirmed"]]
    label = _lowest_label(rest, "chance", precision)
    hidden = min(label, _lowest(rest["confidence"], rest["chance"] >= doubt))
    return Thresholds(label, hidden, min(label, _lowest_label(confirmed, "chance", precision)))


def _choose_new(own: pd.DataFrame, precision: float, doubt: float) -> Thresholds:
    """Of one class, for images that nobody labelled."""
    if own.empty or own["share"].iloc[0] < TRUSTED[0]:
        return Thresholds(NEVER.label, UNSURE)
    label = _lowest_label(own, "chance_new", precision)
    return Thresholds(label, min(label, _lowest(own["confidence"], own["chance_new"] >= doubt)))


def rank_silver(
    truth: pd.DataFrame, silver: pd.DataFrame, images: pd.DataFrame | None = None, *, trust_shares: bool = False
) -> pd.DataFrame:
    """How likely a silver box without a human label is right: a row a box, by class and falling confidence.

    The columns of `match_silver`, and `share`: how many are labelled at about this confidence, `chance`: how likely one
    that is not labelled is right all the same (NaN: it cannot be told), `chance_new`: how likely a box is right in an
    image that nobody has labelled.

    `share` falls with confidence (isotonic regression), and is one for the most confident boxes of a class. Animals are
    taken to be forgotten whatever the model says of them: then, where c is the share of the animals that people
    labelled, `chance_new = share / c` and `chance = (1 - c) / c * share / (1 - share)` (Elkan and Noto 2008, "Learning
    classifiers from only positive and unlabeled data", sections 2 and 3). Elkan and Noto take c from the share of the
    most confident, which are taken to be right: that is done with `trust_shares`, and takes each confident mistake for
    a forgotten animal. Otherwise c is what the frames of the groups say (`evidence.weigh_classes`), one standard error
    on the careful side. With q, the share of the boxes without a label at this confidence that other frames confirm, a
    that of labelled animals and b that of places by chance, confirmed boxes have the chance `a / (a - b) * (1 - b / q)`
    by Bayes' rule, or 0 where `chance_new` is below one half; there most boxes are mistakes or loose. `chance` is NaN
    for confirmed boxes with a label. Where the frames say nothing it is NaN for all, and c is 1.
    """
    matched = match_silver(truth, silver, images)
    return rank_matched(matched, weigh_classes(matched, truth, images), trust_shares=trust_shares)


def rank_matched(matched: pd.DataFrame, evidence: pd.DataFrame, *, trust_shares: bool = False) -> pd.DataFrame:
    """As `rank_silver`, from what `match_silver` and `evidence.weigh_classes` give."""
    tables = [_rank_by_shares(own) if trust_shares else _rank_by_evidence(own, evidence.loc[label])
              for label, own in matched.groupby("label", sort=True)]
    return pd.concat(tables, ignore_index=True) if tables else matched.assign(share=0.0, chance=0.0, chance_new=0.0)


def _rank_by_shares(own: pd.DataFrame) -> pd.DataFrame:
    share = falling_share(own["is_labelled"].to_numpy())
    # One standard error below: luck among the most confident must not say that none is missing.
    known = lower_share(share[0], count_surest(own["is_labelled"].to_numpy()), 1.0)
    return own.assign(share=share, chance=_chance(share, known), chance_new=share / max(share[0], 1e-9))


def _rank_by_evidence(own: pd.DataFrame, evidence: pd.Series) -> pd.DataFrame:
    share, chance = falling_share(own["is_labelled"].to_numpy()), np.full(len(own), np.nan)
    known = 1 - evidence["forgotten_careful"] if evidence["is_shown"] else 1.0
    chance_new = np.minimum(share / known, 1.0)
    if evidence["is_shown"]:
        rest = np.flatnonzero(~own["is_confirmed"])
        of_rest = falling_share(own["is_labelled"].to_numpy()[rest])
        if len(rest) and of_rest[0] >= TRUSTED[0]:
            chance[rest] = _chance(of_rest, 1 - evidence["forgotten_careful"])
        free = np.flatnonzero(~own["is_labelled"] & own["frames"].notna())
        of_free = falling_share(own["is_confirmed"].to_numpy()[free])
        animals, by_chance = evidence["confirmed"], evidence["by_chance"]
        right = animals / (animals - by_chance) * (1 - by_chance / np.maximum(of_free, 1e-9))
        right = np.where(chance_new[free] >= 0.5, np.clip(right, 0, 1), 0.0)
        confirmed = own["is_confirmed"].to_numpy()[free]
        chance[free[confirmed]] = right[confirmed]
    return own.assign(share=share, chance=chance, chance_new=chance_new)


def _chance(share: np.ndarray, known: float) -> np.ndarray:
    return np.minimum((1 - known) / max(known, 1e-9) * share / np.maximum(1 - share, 1e-9), 1.0)


def match_silver(truth: pd.DataFrame, silver: pd.DataFrame, images: pd.DataFrame | None = None) -> pd.DataFrame:
    """The silver boxes that say something about animals without a label, by class and falling confidence.

    A boxes table with `is_labelled`: whether a human box of its class claims it, `frames`: the share of the other
    frames of its group that have a label there (see `frames.share_of_frames`; NaN without `images`), and
    `is_confirmed`, whether it is large enough. Other boxes on labelled animals, loose or of another class, are left
    out, and second ones on one animal: they say nothing about animals without a label, and are never added.
    """
    silver = silver.sort_values("confidence", ascending=False, kind="stable", ignore_index=True)
    tables, alone = [], is_alone(silver, truth)
    for label in sorted(truth["label"].unique()):
        own = silver[silver["label"] == label]
        is_labelled = match_ground_truth(truth[truth["label"] == label], own, RIGHT_IOU) >= 0
        tables.append(own.assign(is_labelled=is_labelled)[is_labelled | alone[own.index]])
    matched = pd.concat(tables, ignore_index=True)
    frames = np.full(len(matched), np.nan) if images is None else share_of_frames(matched, truth, images)
    return matched.assign(frames=frames, is_confirmed=frames >= CONFIRMED)


def is_alone(silver: pd.DataFrame, gold: pd.DataFrame) -> np.ndarray:
    """Whether a silver box lies on no human box, by `SUSPECT_IOU`, and on no more confident silver box: `(N,)`.

    Whatever the class. Two animals side by side overlap by less than `RIGHT_IOU`, two boxes on one by more.

    >>> columns = ["image_id", "label", "confidence", *XYXY]
    >>> gold = pd.DataFrame([["a.jpg", "pig", 1.0, 0.0, 0, 10, 10]], columns=columns)
    >>> silver = pd.DataFrame([["a.jpg", "pig", 0.9, 0.0, 0, 10, 9], ["a.jpg", "pig", 0.8, 50.0, 50, 60, 60],
    ...                        ["a.jpg", "pig", 0.7, 50.0, 50, 60, 59]], columns=columns)
    >>> is_alone(silver, gold).tolist()  # on a human box; alone; on a more confident silver box
    [False, True, False]
    """
    far, alone, corners = largest_iou(silver, gold) < SUSPECT_IOU, np.zeros(len(silver), bool), silver[XYXY].to_numpy()
    order = np.argsort(-silver["confidence"].to_numpy(), kind="stable")
    order = order[far[order]]
    for rows in pd.Series(order).groupby(silver["image_id"].to_numpy()[order]).indices.values():
        own = order[rows]
        alone[own[keep_boxes(corners[own], RIGHT_IOU)]] = True
    return alone


def falling_share(is_labelled: np.ndarray) -> np.ndarray:
    """The share that is labelled at each rank, `(N,)`, falling from that of the most confident (`count_surest`).

    >>> is_labelled = np.array([True] * 20 + [False] * 5 + [False, True])
    >>> falling_share(is_labelled)[[0, 24, 25, 26]].tolist()  # the first 25 share one value, as do the last two
    [0.8, 0.8, 0.5, 0.5]
    """
    n_surest = count_surest(is_labelled)
    values, weights = is_labelled.astype(float), np.ones(len(is_labelled))
    if n_surest:
        values = np.append(values[:n_surest].mean(), values[n_surest:])
        weights = np.append(float(n_surest), weights[n_surest:])
        fitted = isotonic_regression(values, weights=weights, increasing=False).x
        return np.append(np.full(n_surest, fitted[0]), fitted[1:])
    return values


def _lowest_label(rows: pd.DataFrame, column: str, precision: float) -> float:
    average = rows[column].cumsum() / np.arange(1, len(rows) + 1)
    return _lowest(rows["confidence"], (average >= precision) & (rows[column] >= 0.5))


def _lowest(confidence: pd.Series, enough: pd.Series) -> float:
    """The confidence of the last row, from the most confident down, before the first that is not enough."""
    n_first = int(np.argmin(np.append(enough.to_numpy(bool), False)))
    return float(confidence.iloc[n_first - 1]) if n_first else NEVER.label
