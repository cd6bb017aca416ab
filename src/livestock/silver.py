"""Silver labels: boxes of models, made labels of images that those models were not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from .boxes import largest_iou, make_boxes
from .errors import RIGHT_IOU, SUSPECT_IOU
from .metrics import claims

STRATEGIES = ["complete", "replace", "unlabelled"]
REPLACE_CONFIDENCE, REPLACE_BOXES = 0.05, 4  # the original's: from this confidence, in images with so many boxes
SUREST = 1 / 3  # the share of a class's boxes that is taken to be right, whatever people labelled
LEAST_SUREST = 25  # fewer would say little
TRUSTED = 0.5  # so many of them people must have labelled: people forget some animals, not most


class NothingSelected(ValueError):
    """A strategy found no silver box that was sure enough."""


class Band(NamedTuple):
    """Confidences of a class: from `label` a silver box is a label, from `hidden` up to that it is uncertain."""

    label: float
    hidden: float


NEVER = Band(1.01, 1.01)


def choose_bands(
    truth: pd.DataFrame, silver: pd.DataFrame, *, precision: float = 0.9, doubt: float = 0.2
) -> dict[str, Band]:
    """Thresholds of each class from out-of-fold `silver` and the human boxes of the same images.

    `label` is the lowest confidence above which boxes without a human label are right with this `precision` on average,
    and each more likely right than wrong, `hidden` the lowest from which they are right with the chance `doubt`; the
    chances are those of `rank_silver`. A class of which people labelled fewer than half of the surest boxes gets
    thresholds above 1, which select nothing. Raises ValueError for shares outside (0, 1).
    """
    for name, value in (("precision", precision), ("doubt", doubt)):
        if not 0 < value < 1:
            raise ValueError(f"{name}: expected a share above 0 and below 1, found {value!r}")
    bands, ranked = {}, rank_silver(truth, silver)
    for label in sorted(truth["label"].unique()):
        own = ranked[ranked["label"] == label]
        alone = own[~own["is_labelled"]]
        if alone.empty or own["share"].iloc[0] < TRUSTED:
            bands[label] = NEVER
            continue
        chance, confidence = alone["chance"].to_numpy(), alone["confidence"].to_numpy()
        average = np.cumsum(chance) / np.arange(1, len(alone) + 1)
        lowest = _lowest(confidence, (average >= precision) & (chance >= 0.5))
        bands[label] = Band(lowest, min(lowest, _lowest(confidence, chance >= doubt)))
    return bands


def rank_silver(truth: pd.DataFrame, silver: pd.DataFrame) -> pd.DataFrame:
    """How likely a silver box without a human label is right: a row a box, by class and falling confidence.

    Columns `label, confidence`, `is_labelled`: whether a human box of its class claims it, `share`: how many are at
    about this confidence, `chance`: how likely one that is not labelled is right all the same. Other boxes on labelled
    animals, loose or of another class, are left out: they say nothing about animals without a label, and are never
    added.

    `share` falls with confidence (isotonic regression), and is one for the class's surest boxes. These are taken to be
    right, all of them, and animals to be forgotten whatever the model makes of them: then c, the share of the surest,
    is how many animals are labelled anywhere, and `chance = (1 - c) / c * share / (1 - share)` (Elkan and Noto 2008,
    "Learning classifiers from only positive and unlabeled data", section 2 and the weights of section 3).
    """
    tables = []
    for label in sorted(truth["label"].unique()):
        own = silver[silver["label"] == label].sort_values("confidence", ascending=False, kind="stable")
        is_labelled = claims(truth[truth["label"] == label], own, RIGHT_IOU) >= 0
        counts = is_labelled | (largest_iou(own, truth) < SUSPECT_IOU)
        own, is_labelled = own[counts], is_labelled[counts]
        share = _falling_share(is_labelled)
        n_surest = _count_surest(is_labelled)
        known = _low(share[:1], n_surest)
        odds = (1 - known) / np.maximum(known, 1e-9)
        chance = np.minimum(odds * share / np.maximum(1 - share, 1e-9), 1.0)
        tables.append(pd.DataFrame({"label": label, "confidence": own["confidence"].to_numpy(),
                                    "is_labelled": is_labelled, "share": share, "chance": chance}))
    return pd.concat(tables, ignore_index=True)


def _falling_share(is_labelled: np.ndarray) -> np.ndarray:
    """The share that is labelled at each rank, falling from that of the surest."""
    n_surest = _count_surest(is_labelled)
    values, weights = is_labelled.astype(float), np.ones(len(is_labelled))
    if n_surest:
        values = np.append(values[:n_surest].mean(), values[n_surest:])
        weights = np.append(float(n_surest), weights[n_surest:])
        fitted = isotonic_regression(values, weights=weights, increasing=False).x
        return np.append(np.full(n_surest, fitted[0]), fitted[1:])
    return values


def _count_surest(is_labelled: np.ndarray) -> int:
    return min(max(LEAST_SUREST, round(SUREST * np.count_nonzero(is_labelled))), len(is_labelled))


def _low(share: np.ndarray, n: int) -> np.ndarray:
    """One standard error below a share of n (Wilson 1927): luck among the surest must not say that none is missing."""
    return (share + 0.5 / n - np.sqrt(share * (1 - share) / n + 0.25 / n**2)) / (1 + 1 / n) if n else share


def _lowest(confidence: np.ndarray, enough: np.ndarray) -> float:
    """The confidence of the last row, from the surest down, before the first that is not enough."""
    n_first = int(np.argmin(np.append(enough, False)))
    return float(confidence[n_first - 1]) if n_first else NEVER.label


def select_silver(
    strategy: str, gold: pd.DataFrame, silver: pd.DataFrame, images: pd.DataFrame, bands: Mapping[str, Band]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The boxes to train with, and those to hide from training (see `yolo_dataset.write_images`), as boxes tables.

    `silver` holds fused boxes of models that were not trained on their image; their confidence and the source `silver`
    stay with them. `complete`: human boxes stay, sure silver boxes that overlap none are added, uncertain ones hidden.
    `replace`, the original's rule: in images with at least four silver boxes from a confidence of 0.05 these replace
    the human ones. `unlabelled`: silver boxes of `images` without any human box only.

    Raises ValueError for an unknown strategy and for silver boxes of other images or classes, NothingSelected, which
    is one, for a selection without any silver box, naming what to do.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy: expected one of {STRATEGIES}, found {strategy!r}")
    if len(other := silver[~silver["image_id"].isin(images["image_id"])]):
        raise ValueError(f"silver: expected boxes of the given images, found {other['image_id'].iloc[0]!r}")
    if strategy != "replace" and (unknown := sorted(set(silver["label"]) - set(bands))):
        raise ValueError(f"silver: expected classes with thresholds, {sorted(bands)}, found {unknown[0]!r}; give "
                         "`choose_bands` images that show it, or leave its boxes out")
    silver = silver.assign(source="silver")
    if strategy == "replace":
        chosen = silver[silver["confidence"] >= REPLACE_CONFIDENCE]
        crowded = chosen["image_id"].value_counts().loc[lambda counts: counts >= REPLACE_BOXES].index
        chosen, hidden = chosen[chosen["image_id"].isin(crowded)], silver.iloc[:0]
        kept = gold[~gold["image_id"].isin(crowded)]
    else:
        if strategy == "unlabelled":
            silver = silver[~silver["image_id"].isin(gold["image_id"])]
        alone = silver[largest_iou(silver, gold) < SUSPECT_IOU]
        label, hide = (alone["label"].map({name: band[which] for name, band in bands.items()}) for which in (0, 1))
        chosen = alone[alone["confidence"] >= label]
        hidden = alone[(alone["confidence"] >= hide) & (alone["confidence"] < label)]
        kept = gold
    if chosen.empty:
        raise NothingSelected(f"{strategy}: no silver box was sure enough; lower the precision of `choose_bands`, or "
                              "train the teachers longer")
    return make_boxes(pd.concat([kept, chosen])), make_boxes(hidden)


def without_silver(
    boxes: pd.DataFrame, hidden: pd.DataFrame, gold: pd.DataFrame, image_ids: pd.Series
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What `select_silver` gave, but for these images, the validation fold's: human boxes alone, nothing hidden."""
    inside, of_gold = boxes["image_id"].isin(image_ids), gold["image_id"].isin(image_ids)
    return make_boxes(pd.concat([boxes[~inside], gold[of_gold]])), hidden[~hidden["image_id"].isin(image_ids)]


def choose_backgrounds(
    images: pd.DataFrame, boxes: pd.DataFrame, hidden: pd.DataFrame, share: float, rng: np.random.Generator
) -> pd.Index:
    """Names of images without any box or hidden one, drawn so that they make up at most `share` of all that train.

    Raises ValueError for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"share: expected a number from 0 to below 1, found {share!r}")
    names = pd.Index(sorted(set(images["image_id"]) - set(boxes["image_id"]) - set(hidden["image_id"])))
    n_wanted = int(share / (1 - share) * boxes["image_id"].nunique())
    return pd.Index(sorted(rng.choice(names, min(n_wanted, len(names)), replace=False)))
