"""Silver labels: boxes of models, made labels of images that those models were not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from .boxes import XYXY, largest_iou, make_boxes
from .errors import RIGHT_IOU, SUSPECT_IOU
from .metrics import claims
from .postprocess import keep_boxes

STRATEGIES = ["complete", "replace", "unlabelled"]
REPLACE_CONFIDENCE, REPLACE_BOXES = 0.05, 4  # the original's: from this confidence, in images with so many boxes
SUREST = 1 / 3  # the share of a class's boxes that is taken to be right, whatever people labelled
LEAST_SUREST = 25  # fewer would say little
TRUSTED = 0.5, 0.95  # the share of them that people labelled: below, the model is wrong; above, nothing is missing
UNSURE = 0.1  # from this confidence a box in a new image is no background, however little its class is trusted


class NothingSelected(ValueError):
    """A strategy found no silver box that was sure enough."""


class Band(NamedTuple):
    """Confidences of a class: from `label` a silver box is a label, from `hidden` up to that it is uncertain."""

    label: float
    hidden: float


NEVER = Band(1.01, 1.01)


def choose_bands(
    truth: pd.DataFrame, silver: pd.DataFrame, *, precision: float = 0.9, doubt: float = 0.2, new_images: bool = False
) -> dict[str, Band]:
    """Thresholds of each class from out-of-fold `silver` and the human boxes of the same images.

    `label` is the lowest confidence above which boxes without a human label are right with this `precision` on average,
    and each more likely right than wrong, `hidden` the lowest from which they are right with the chance `doubt`; the
    chances are those of `rank_silver`. A class gets thresholds above 1, which select nothing, if people labelled less
    than half of the surest boxes, or all but one in twenty: what is left may as well be the model's mistake.

    With `new_images` the thresholds are for images that nobody has labelled: there nothing need be missing elsewhere,
    and a class that is not trusted is hidden from `UNSURE`. Raises ValueError for shares outside (0, 1) and if there is
    no human box.
    """
    for name, value in (("precision", precision), ("doubt", doubt)):
        if not 0 < value < 1:
            raise ValueError(f"{name}: expected a share above 0 and below 1, found {value!r}")
    if truth.empty:
        raise ValueError("truth: expected human boxes to judge silver ones by, found none; run 01_eda first")
    bands, ranked = {}, rank_silver(truth, silver)
    for label in sorted(truth["label"].unique()):
        own = ranked[ranked["label"] == label]
        is_trusted = len(own) > 0 and TRUSTED[0] <= own["share"].iloc[0] <= (1 if new_images else TRUSTED[1])
        if not is_trusted:
            bands[label] = Band(NEVER.label, UNSURE) if new_images else NEVER
            continue
        rows = own if new_images else own[~own["is_labelled"]]
        chance, confidence = rows["chance_new" if new_images else "chance"].to_numpy(), rows["confidence"].to_numpy()
        average = np.cumsum(chance) / np.arange(1, len(rows) + 1)
        lowest = _lowest(confidence, (average >= precision) & (chance >= 0.5))
        bands[label] = Band(lowest, min(lowest, _lowest(confidence, chance >= doubt)))
    return bands


def rank_silver(truth: pd.DataFrame, silver: pd.DataFrame) -> pd.DataFrame:
    """How likely a silver box without a human label is right: a row a box, by class and falling confidence.

    Columns `label, confidence`, `is_labelled`: whether a human box of its class claims it, `share`: how many are at
    about this confidence, `chance`: how likely one that is not labelled is right all the same, `chance_new`: how likely
    a box is right in an image that nobody has labelled. Other boxes on labelled animals, loose or of another class, are
    left out, and second ones on one animal: they say nothing about animals without a label, and are never added.

    `share` falls with confidence (isotonic regression), and is one for the class's surest boxes. These are taken to be
    right, all of them, and animals to be forgotten whatever the model makes of them: then c, the share of the surest,
    is how many animals are labelled anywhere, `chance_new = share / c` and `chance = (1 - c) / c * share / (1 - share)`
    (Elkan and Noto 2008, "Learning classifiers from only positive and unlabeled data", sections 2 and 3).
    """
    tables = []
    silver = silver.sort_values("confidence", ascending=False, kind="stable", ignore_index=True)
    for label in sorted(truth["label"].unique()):
        own = silver[silver["label"] == label]
        is_labelled = claims(truth[truth["label"] == label], own, RIGHT_IOU) >= 0
        counts = is_labelled | is_alone(silver, truth)[own.index]
        own, is_labelled = own[counts], is_labelled[counts]
        share = _falling_share(is_labelled)
        known = _low(share[:1], _count_surest(is_labelled))
        odds = (1 - known) / np.maximum(known, 1e-9)
        tables.append(pd.DataFrame({
            "label": label, "confidence": own["confidence"].to_numpy(), "is_labelled": is_labelled, "share": share,
            "chance": np.minimum(odds * share / np.maximum(1 - share, 1e-9), 1.0),
            "chance_new": share / np.maximum(share[:1], 1e-9),
        }))
    return pd.concat(tables, ignore_index=True)


def is_alone(silver: pd.DataFrame, gold: pd.DataFrame) -> np.ndarray:
    """Whether a silver box lies on no human box, by `SUSPECT_IOU`, and on no surer one of these: `(N,)`.

    Whatever the class. Two animals side by side overlap by less than `RIGHT_IOU`, two boxes on one by more.
    """
    far, alone = largest_iou(silver, gold) < SUSPECT_IOU, np.zeros(len(silver), bool)
    order = np.argsort(-silver["confidence"].to_numpy(), kind="stable")
    order = order[far[order]]
    for rows in pd.Series(order).groupby(silver["image_id"].to_numpy()[order]).indices.values():
        own = order[rows]
        alone[own[keep_boxes(silver[XYXY].to_numpy()[own], RIGHT_IOU)]] = True
    return alone


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
    strategy: str, gold: pd.DataFrame, silver: pd.DataFrame, images: pd.DataFrame, bands: Mapping[str, Band],
    new: pd.DataFrame | None = None, new_bands: Mapping[str, Band] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The boxes to train with, and those to hide from training (see `yolo_dataset.write_images`), as boxes tables.

    `silver` holds fused boxes of models that were not trained on their image; their confidence and the source `silver`
    stay with them. `complete`: human boxes stay, sure silver boxes that overlap none are added, uncertain ones hidden,
    also in `new` images, which nobody has labelled and `new_bands` are for. `unlabelled`: in `new` images only.
    `replace`, the original's rule: in images with at least four silver boxes from a confidence of 0.05 these replace
    the human ones.

    Raises ValueError for an unknown strategy and for silver boxes of other images or classes, NothingSelected, which
    is one, where no silver box is added and none hidden, naming what to do.
    """
    new_ids = [] if new is None else list(new["image_id"])
    _check_silver(strategy, silver, {*images["image_id"], *new_ids}, {*gold["label"], *bands})
    is_new = silver["image_id"].isin(new_ids)
    old, silver = silver[~is_new].assign(source="silver"), silver[is_new].assign(source="silver")
    kept, chosen, hidden = gold, list[pd.DataFrame](), list[pd.DataFrame]()
    if strategy == "replace":
        replacing = old[old["confidence"] >= REPLACE_CONFIDENCE]
        crowded = replacing["image_id"].value_counts().loc[lambda counts: counts >= REPLACE_BOXES].index
        chosen.append(replacing[replacing["image_id"].isin(crowded)])
        kept = gold[~gold["image_id"].isin(crowded)]
    else:
        pairs = [(silver, new_bands or {})] if strategy == "unlabelled" else [(old, bands), (silver, new_bands or {})]
        for table, thresholds in pairs:
            for tables, part in zip((chosen, hidden), _by_band(table[is_alone(table, gold)], thresholds), strict=True):
                tables.append(part)
    found = pd.concat(chosen)
    unsure = pd.concat(hidden) if hidden else gold.iloc[:0]
    if found.empty and unsure.empty:
        raise NothingSelected(f"{strategy}: no silver box was sure enough; lower the precision of `choose_bands`, or "
                              "train the teachers longer")
    return make_boxes(pd.concat([kept, found])), make_boxes(unsure)


def _check_silver(strategy: str, silver: pd.DataFrame, image_ids: set[str], labels: set[str]) -> None:
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy: expected one of {STRATEGIES}, found {strategy!r}")
    if len(other := silver[~silver["image_id"].isin(image_ids)]):
        raise ValueError(f"silver: expected boxes of the given images, found {other['image_id'].iloc[0]!r}; run "
                         "06_silver with the present data")
    if unknown := sorted(set(silver["label"]) - labels):
        raise ValueError(f"silver: expected classes that people labelled, {sorted(labels)}, found {unknown[0]!r}; take "
                         "teachers of these classes")


def _by_band(boxes: pd.DataFrame, bands: Mapping[str, Band]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Those that become labels, and those to hide."""
    label, hide = (boxes["label"].map({name: band[which] for name, band in bands.items()}).fillna(NEVER.label)
                   for which in (0, 1))
    is_label = boxes["confidence"] >= label
    return boxes[is_label], boxes[(boxes["confidence"] >= hide) & ~is_label]


def without_silver(
    boxes: pd.DataFrame, hidden: pd.DataFrame, gold: pd.DataFrame, image_ids: pd.Series
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What `select_silver` gave, but for these images, the validation fold's: human boxes alone, nothing hidden."""
    inside, of_gold = boxes["image_id"].isin(image_ids), gold["image_id"].isin(image_ids)
    return make_boxes(pd.concat([boxes[~inside], gold[of_gold]])), hidden[~hidden["image_id"].isin(image_ids)]


def choose_backgrounds(
    new: pd.DataFrame, silver: pd.DataFrame, n_with_animals: int, share: float, rng: np.random.Generator
) -> pd.Index:
    """Names of `new` images without any silver box from `UNSURE` on, drawn so that they are at most `share` of all.

    `n_with_animals` is how many images train beside them. Raises ValueError for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"share: expected a number from 0 to below 1, found {share!r}")
    seen = silver.loc[silver["confidence"] >= UNSURE, "image_id"]
    names = pd.Index(sorted(set(new["image_id"]) - set(seen)))
    n_wanted = int(share / (1 - share) * n_with_animals)
    return pd.Index(sorted(rng.choice(names, min(n_wanted, len(names)), replace=False)))
