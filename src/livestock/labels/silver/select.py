"""Which silver boxes become labels, which are hidden from training, and which a person checks first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ...tables import make_boxes
from .evidence import N_CROPS
from .frames import is_confirmed
from .rank import NEVER, UNSURE, Thresholds, is_alone

STRATEGIES = ["complete", "replace", "unlabelled"]
REPLACE_CONFIDENCE, REPLACE_BOXES = 0.05, 4  # the original's: minimum confidence, and boxes an image must have


class NothingSelected(ValueError):
    """A strategy found no silver box that was sure enough."""


def select_silver(
    strategy: str, gold: pd.DataFrame, silver: pd.DataFrame, images: pd.DataFrame, bands: Mapping[str, Thresholds],
    new: pd.DataFrame | None = None, new_bands: Mapping[str, Thresholds] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The boxes to train with, and those to hide from training (see `yolo_dataset.write_images`), as boxes tables.

    `silver` holds fused boxes of models that were not trained on their image; their confidence and the source `silver`
    stay with them. `complete`: human boxes stay, sure silver boxes that overlap none are added, uncertain ones hidden,
    also in `new` images, which nobody has labelled and `new_bands` are for. A box is sure from the confidence `label`
    of its class, or from `confirmed` if labels in other frames of its group confirm it. `unlabelled`: in `new` images
    only. `replace`, the original's rule: in images with at least four silver boxes from a confidence of 0.05 these
    replace the human ones.

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
            alone = table[is_alone(table, gold)]
            parts = _by_band(alone, is_confirmed(alone, gold, images), thresholds)
            for tables, part in zip((chosen, hidden), parts, strict=True):
                tables.append(part)
    found = pd.concat(chosen)
    unsure = pd.concat(hidden) if hidden else gold.iloc[:0]
    if found.empty and unsure.empty:
        raise NothingSelected(f"{strategy}: no silver box was sure enough; lower the precision of `choose_thresholds`, "
                              "train the teachers longer, or look at the crops and set ACCEPT")
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


def _by_band(
    boxes: pd.DataFrame, confirmed: np.ndarray, bands: Mapping[str, Thresholds]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Those that become labels, and those to hide."""
    table = pd.DataFrame.from_dict(dict(bands), orient="index", columns=Thresholds._fields)
    label, hide, if_confirmed = table.reindex(boxes["label"]).fillna(NEVER.label).to_numpy(float).T
    is_label = boxes["confidence"] >= np.where(confirmed, np.minimum(label, if_confirmed), label)
    return boxes[is_label], boxes[(boxes["confidence"] >= hide) & ~is_label]


def draw_crops(proposed: pd.DataFrame, seed: int, n_crops: int = N_CROPS) -> pd.DataFrame:
    """At most `n_crops` of the boxes that would be added, each as likely as the others: a boxes table in drawn order.

    No place is favoured: a mistake that comes again in twenty frames would be twenty wrong labels.
    """
    rows = np.random.default_rng(seed).permutation(len(proposed))[:n_crops]
    return proposed.iloc[rows].reset_index(drop=True)


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
