"""How good a split is: distance of the folds from the whole, and leakage between them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold, StratifiedKFold

from ..config import Competition
from .assign import _stratify
from .strata import DISTRIBUTIONS, image_strata, stratum_counts, stratum_labels

Folds = Iterator[tuple[np.ndarray, np.ndarray]]


def baseline_folds(
    images: pd.DataFrame, boxes: pd.DataFrame, competition: Competition, *, n_folds: int = 5, seed: int = 42
) -> dict[str, pd.Series]:
    """Splits to compare with, by name: the fold of each `image_id`, sorted.

    `random`; `class and count`, the original solution's; `multilabel, ungrouped`, the stratifier on single
    images; and `random, whole groups`, which leaks as little as ours and shows what the stratifying is worth.
    `images` carries `group`.
    """
    images = images.sort_values("image_id", ignore_index=True)
    strata = image_strata(images, boxes, competition)
    strata = strata.where(strata.map(strata.value_counts()) >= n_folds, "rare")
    labels = stratum_labels(images, boxes, competition)
    options = {"n_splits": n_folds, "shuffle": True, "random_state": seed}
    group, names = pd.factorize(images["group"])
    of_group = _numbered(KFold(**options).split(names), len(names))
    folds = {
        "random": _numbered(KFold(**options).split(strata), len(images)),
        "class and count": _numbered(_stratified(StratifiedKFold(**options), strata), len(images)),
        "multilabel, ungrouped": _stratify(labels, np.ones(len(images)), n_folds, seed),
        "random, whole groups": of_group[group],
    }
    index = pd.Index(images["image_id"], name="image_id")
    return {name: pd.Series(fold, index=index, name="fold") for name, fold in folds.items()}


def _stratified(splitter: StratifiedKFold, strata: pd.Series) -> Folds:
    with warnings.catch_warnings():  # a "rare" stratum of fewer images than folds cannot be in every fold
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        yield from splitter.split(strata, strata)


def _numbered(splits: Folds, n_images: int) -> np.ndarray:
    fold = np.empty(n_images, dtype=int)
    for number, (_, chosen) in enumerate(splits):
        fold[chosen] = number
    return fold


def split_distances(counts: pd.DataFrame, fold: pd.Series) -> pd.DataFrame:
    """Total variation distance of each fold from all images: one row a fold, one column a distribution.

    `counts` as from `stratum_counts`, `fold` by the same `image_id`. 0: the same shares; 1: nothing in
    common. A fold without a box has distance 1 in what is counted in boxes.
    """
    inside = counts.groupby(fold.reindex(counts.index).to_numpy()).sum()
    distances = {}
    for name in DISTRIBUTIONS:
        whole = _shares(counts[name].to_numpy().sum(axis=0, keepdims=True))
        part = inside[name].to_numpy()
        far = np.abs(_shares(part) - whole).sum(axis=1) / 2
        distances[name] = np.where((part.sum(axis=1) == 0) & (whole.sum() > 0), 1.0, far)
    return pd.DataFrame(distances, index=inside.index.rename("fold"))


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def leakage(groups: pd.Series, fold: pd.Series) -> float:
    """Share of images with a near-duplicate (same group) in the training folds when their fold validates."""
    n_folds = fold.groupby(groups.reindex(fold.index).to_numpy()).transform("nunique")
    return float((n_folds > 1).mean()) if len(fold) else 0.0


def split_report(
    images: pd.DataFrame, boxes: pd.DataFrame, competition: Competition, splits: dict[str, pd.Series]
) -> pd.DataFrame:
    """One row a split: distances from the whole (`count`, `ratio`, `size`; `_mean`, `_max` over folds),
    sizes, leakage.

    `images` carries the `group` by which `leakage` is judged; `splits` maps a name to folds by `image_id`.
    """
    counts = stratum_counts(images, boxes, competition)
    groups = images.set_index("image_id")["group"]
    rows = {}
    for name, fold in splits.items():
        far, sizes = split_distances(counts, fold), fold.value_counts()
        rows[name] = {
            **{
                f"{column}_{how}": far[column].agg(how) for column in DISTRIBUTIONS for how in ("mean", "max")
            },
            "smallest_fold": int(sizes.min()),
            "largest_fold": int(sizes.max()),
            "leakage": leakage(groups, fold),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("split")


def fold_table(images: pd.DataFrame, boxes: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Groups, images, images without a box and each label's boxes: one row a fold, and one for all."""
    fold = images.set_index("image_id")["fold"]
    empty = ~images["image_id"].isin(boxes["image_id"])
    table = (
        images.assign(empty=empty)
        .groupby("fold")
        .agg(groups=("group", "nunique"), images=("image_id", "size"), without_box=("empty", "sum"))
    )
    n_boxes = pd.crosstab(fold.reindex(boxes["image_id"]).to_numpy(), boxes["label"].to_numpy())
    n_boxes = n_boxes.reindex(index=table.index, columns=labels, fill_value=0).add_suffix(" boxes")
    table = table.join(n_boxes).rename(columns={"without_box": "images without a box"})
    table.loc["all"] = table.sum()
    return table


def group_report(groups: pd.Series, known: pd.Series) -> dict[str, float]:
    """How the pairs that `groups` puts together agree with `known` ones (a camera or clip), both by
    `image_id`.

    Images without a known value are left out. `precision`: pairs of one group that are of one known value;
    `recall`: pairs of one known value that are in one group; 1 where there is no pair to judge.
    """
    known = known.dropna()
    table = pd.crosstab(groups.reindex(known.index).to_numpy(), known.to_numpy()).to_numpy()

    def n_pairs(sizes: np.ndarray) -> float:
        return float((sizes * (sizes - 1) / 2).sum())

    both, ours, theirs = n_pairs(table), n_pairs(table.sum(axis=1)), n_pairs(table.sum(axis=0))
    return {"precision": both / ours if ours else 1.0, "recall": both / theirs if theirs else 1.0}
