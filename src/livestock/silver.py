"""Silver labels: boxes of models, made labels of images that those models were not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from .boxes import largest_iou, make_boxes
from .errors import RIGHT_IOU, SUSPECT_IOU
from .metrics import claims

STRATEGIES = ["complete", "replace", "unlabelled"]
REPLACE_CONFIDENCE, REPLACE_BOXES = 0.05, 4  # the original's: from this confidence, in images with so many boxes
SUREST = 0.2  # the share of a class's boxes that is taken to be right, whatever people labelled
TRUSTED = 0.5  # so many of them people must have labelled: people forget some animals, not most
WINDOW = 25  # boxes around a rank whose precision says how sure one is there


class NothingSelected(ValueError):
    """A strategy found no silver box that was sure enough."""


class Band(NamedTuple):
    """Confidences of a class: from `label` a silver box is a label, from `hidden` up to that it is uncertain."""

    label: float
    hidden: float


def choose_bands(
    truth: pd.DataFrame, silver: pd.DataFrame, *, precision: float = 0.9, doubt: float = 0.2
) -> dict[str, Band]:
    """Thresholds of each class from out-of-fold `silver` and the human boxes of the same images.

    `label` is the lowest confidence above which the boxes are right with this `precision` and around which they are
    right rather than wrong, `hidden` the lowest around which they are right with the chance `doubt`. Where labels are
    missing, right boxes count as wrong; therefore these are shares of the precision of the class's surest boxes, which
    are taken to be right all of them. A class of which people labelled fewer than half of these gets thresholds above
    1, which select nothing.
    Raises ValueError for shares outside (0, 1).
    """
    for name, value in (("precision", precision), ("doubt", doubt)):
        if not 0 < value < 1:
            raise ValueError(f"{name}: expected a share above 0 and below 1, found {value!r}")
    bands, ranked = {}, rank_precision(truth, silver)
    for label in sorted(truth["label"].unique()):
        own = ranked[ranked["label"] == label]
        ceiling = float(own["ceiling"].iloc[0]) if len(own) else 0.0
        above, around, confidence = (own[name].to_numpy() for name in ("above", "around", "confidence"))
        n_surest = int(own["is_surest"].sum())
        sure = (above >= precision * ceiling) & (around >= 0.5 * ceiling)
        sure[:n_surest] = True  # the share among the first few is luck
        lowest = _lowest(confidence, sure, ceiling)
        bands[label] = Band(lowest, min(lowest, _lowest(confidence, around >= doubt * ceiling, ceiling)))
    return bands


def rank_precision(truth: pd.DataFrame, silver: pd.DataFrame) -> pd.DataFrame:
    """How often silver boxes are right, by confidence: a row a box, by class and falling confidence.

    Columns `label, confidence`, `above`: the share that is right from the surest to this one, `around`: among the
    `WINDOW` boxes around it, `is_surest`: whether it is one of the class's surest, `ceiling`: the share among these.
    Right is what a human box of its class claims.
    """
    tables = []
    for label in sorted(truth["label"].unique()):
        own = silver[silver["label"] == label].sort_values("confidence", ascending=False, kind="stable")
        is_right = claims(truth[truth["label"] == label], own, RIGHT_IOU) >= 0
        n_surest = max(WINDOW, round(SUREST * np.count_nonzero(is_right)))
        around = pd.Series(is_right.astype(float)).rolling(WINDOW, center=True, min_periods=1).mean().to_numpy()
        tables.append(pd.DataFrame({
            "label": label, "confidence": own["confidence"].to_numpy(),
            "is_surest": np.arange(len(own)) < n_surest,
            "above": np.cumsum(is_right) / np.arange(1, len(own) + 1), "around": around,
            "ceiling": is_right[:n_surest].mean() if len(own) else 0.0,
        }))
    return pd.concat(tables, ignore_index=True)


def _lowest(confidence: np.ndarray, enough: np.ndarray, ceiling: float) -> float:
    """Where, from the surest down, it is first no longer enough: in the tail a few right boxes are luck."""
    n_first = int(np.argmin(np.append(enough, False)))
    return float(confidence[n_first - 1]) if ceiling >= TRUSTED and n_first else 1.01


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
