"""Intervals of AP by class over groups of near-duplicate images."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .bootstrap import draw_group_counts, resample_classes
from .matching import match_usual
from .precision import score


def evaluate_with_intervals(
    images: pd.DataFrame, truth: pd.DataFrame, answer: pd.DataFrame, iou_threshold: float, rng: np.random.Generator,
    n_resamples: int = 500,
) -> pd.DataFrame:
    """AP of each class with its 95 % interval over groups: columns `label, ap, low, high`.

    As `evaluate`; groups of `images` are drawn again with replacement (cluster bootstrap), since frames of one camera
    are right and wrong together. `low` and `high` are NaN where fewer than two groups show the class.
    """
    matches = match_usual(truth, answer, iou_threshold)
    table = score(matches).per_class.reset_index()
    groups = images["group"].to_numpy()
    aps = resample_classes(matches, pd.Index(images["image_id"]), draw_group_counts(rng, groups, n_resamples))
    of_image = images.set_index("image_id")["group"].reindex(truth["image_id"])
    of_image = of_image.astype(str).where(of_image >= 0, of_image.index.to_series())
    n_groups = of_image.groupby(truth["label"].to_numpy()).nunique().reindex(table["label"]).to_numpy()
    for name, share in (("low", 0.025), ("high", 0.975)):
        values = [np.nanquantile(column, share) if np.isfinite(column).any() else np.nan for column in aps.T]
        table[name] = np.where(n_groups >= 2, np.array(values, float), np.nan)
    return table[["label", "ap", "low", "high"]]
