"""How good a split is: distance of the folds from the whole, leakage between them, and what they lack, in words."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ...config import Competition, join_names
from .assign import _stratify
from .strata import DISTRIBUTIONS, image_strata, stratum_counts, stratum_labels

if TYPE_CHECKING:
    from sklearn.model_selection import StratifiedKFold

N_RARE = 8  # classes that lack folds and have a sentence of their own
Folds = Iterator[tuple[np.ndarray, np.ndarray]]


def baseline_folds(
    images: pd.DataFrame, boxes: pd.DataFrame, competition: Competition, *, seed: int = 42
) -> dict[str, pd.Series]:
    """Splits to compare with, by name: the fold of each `image_id`, sorted; as many folds as `images` has.

    `random`; `class and count`, the original solution's; `multilabel, ungrouped`, the stratifier on single
    images; and `random, whole groups`, which leaks as little as ours and shows what the stratifying is worth. The last
    is left out where there are fewer groups than folds. `images` carries `group` and `fold`.
    """
    from sklearn.model_selection import KFold, StratifiedKFold  # see `assign._stratify`

    images = images.sort_values("image_id", ignore_index=True)
    n_folds = images["fold"].nunique()
    strata = image_strata(images, boxes, competition)
    strata = strata.where(strata.map(strata.value_counts()) >= n_folds, "rare")
    labels = stratum_labels(images, boxes, competition)
    options = {"n_splits": n_folds, "shuffle": True, "random_state": seed}
    group, names = pd.factorize(images["group"])
    folds = {
        "random": _numbered(KFold(**options).split(strata), len(images)),
        "class and count": _numbered(_stratified(StratifiedKFold(**options), strata), len(images)),
        "multilabel, ungrouped": _stratify(labels, np.ones(len(images)), n_folds, seed),
    }
    if len(names) >= n_folds:
        folds["random, whole groups"] = _numbered(KFold(**options).split(names), len(names))[group]
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
    """Share of images with a near-duplicate (same group) in the training folds when their fold validates.

    >>> groups, fold = pd.Series([0, 0, 1, 2], list("abcd")), pd.Series([0, 1, 1, 0], list("abcd"))
    >>> leakage(groups, fold)  # a and b are alike, and in different folds
    0.5
    """
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


def leaky_folds(images: pd.DataFrame) -> list[int]:
    """The folds that share a group of images with another fold: their scores are too high.

    >>> leaky_folds(pd.DataFrame({"group": [0, 0, 1], "fold": [0, 1, 2]}))
    [0, 1]
    """
    n_folds = images.groupby("group")["fold"].transform("nunique")
    return sorted(int(fold) for fold in images.loc[n_folds > 1, "fold"].unique())


def fold_table(images: pd.DataFrame, boxes: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """What each fold holds: one row a fold, and one for all.

    Groups, images, images without a box, images of a group that another fold has a part of (`leaky images`), each
    label's boxes, and `lacks`: the labels without a box there.
    """
    fold = images.set_index("image_id")["fold"]
    empty = ~images["image_id"].isin(boxes["image_id"])
    leaky = images.groupby("group")["fold"].transform("nunique") > 1
    counted = images.assign(empty=empty, leaky=leaky)
    aggregates = {"groups": ("group", "nunique"), "images": ("image_id", "size"),
                  "images without a box": ("empty", "sum"), "leaky images": ("leaky", "sum")}
    tables = [counted.groupby(key).agg(**aggregates) for key in ("fold", np.full(len(counted), "all"))]
    table = pd.concat(tables).rename_axis("fold")
    n_boxes = pd.crosstab(fold.reindex(boxes["image_id"]).to_numpy(), boxes["label"].to_numpy())
    n_boxes = n_boxes.reindex(index=tables[0].index, columns=labels, fill_value=0)
    n_boxes.loc["all"] = n_boxes.sum()
    lacks = (n_boxes == 0).apply(lambda row: ", ".join(row.index[row]), axis=1)
    return table.join(n_boxes.add_suffix(" boxes")).assign(lacks=lacks)


def describe_split(images: pd.DataFrame, boxes: pd.DataFrame, labels: Sequence[str], n_folds: int = 5) -> str:
    """What a reader of scores has to know of a split, a sentence a line: classes that folds lack, leaks, fewer folds.

    `images` as `assign_folds` gives them, `n_folds` as many as it was asked for.
    """
    folds, lines = sorted(int(fold) for fold in images["fold"].unique()), []
    held = boxes[["image_id", "label"]].merge(images[["image_id", "group", "fold"]], on="image_id")
    of_label = held.groupby("label").agg(groups=("group", "nunique"), folds=("fold", lambda own: sorted(own.unique())))
    if absent := [label for label in labels if label not in of_label.index]:
        lines.append(f"No image has a box of {join_names(absent)}: no model can learn that here.")
    rare = of_label.loc[[label for label in labels if label not in absent]]
    rare = rare[rare["folds"].map(len) < len(folds)]
    for label, n_groups, where in rare[:N_RARE].itertuples():
        lines.append(f"{label} lies in {_count(n_groups, 'group')} of look-alike images: only {_name_folds(where)} of "
                     f"{len(folds)} {'has' if len(where) == 1 else 'have'} boxes of it"
                     + (", so no model is both trained and judged on it." if len(where) == 1 else "."))
    if len(rare) > N_RARE:
        lines.append(f"So do {len(rare) - N_RARE} more classes: `lacks` in the table of folds has them.")
    if unjudged := [str(label) for label, where in rare["folds"].items() if 0 not in where]:
        lines.append(f"Fold 0, which validates, has no box of {join_names(unjudged)}: its scores leave that out.")
    if len(folds) < n_folds:
        lines.append(f"There are {len(folds)} folds instead of {n_folds}: so few images cannot fill more.")
    if leak := describe_leak(images, folds):
        lines.append(f"The images form {_count(images['group'].nunique(), 'group')} of near-duplicate frames (images "
                     "that look alike, mostly one camera's), fewer than there are folds. So the largest group was cut "
                     f"into blocks of consecutive images; {leak}.")
    return "\n".join(lines) or "Every fold holds every class, and no two folds share near-duplicate images."


def describe_leak(images: pd.DataFrame, folds: Sequence[int]) -> str:
    """Which of `folds` share near-duplicate images with others; empty where none does. To be printed beside a score.

    `images` are those of all folds.

    >>> describe_leak(pd.DataFrame({"group": [0, 1], "fold": [0, 1]}), folds=[0, 1])
    ''
    """
    leaky = [str(fold) for fold in leaky_folds(images) if fold in set(folds)]
    if not leaky:
        return ""
    share = "shares" if len(leaky) == 1 else "share"
    return (f"{_name_folds(leaky)} {share} near-duplicate images with other folds, so a model has been trained on "
            "almost the same images, and its scores flatter")


def _name_folds(folds: Sequence[object]) -> str:
    return f"fold{'' if len(folds) == 1 else 's'} {join_names([str(fold) for fold in folds])}"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def group_report(groups: pd.Series, known: pd.Series) -> dict[str, float]:
    """How the pairs that `groups` puts together agree with `known` ones (a camera or clip), both by
    `image_id`.

    Images without a known value are left out. `precision`: pairs of one group that are of one known value;
    `recall`: pairs of one known value that are in one group; 1 where there is no pair to judge.

    >>> found, known = pd.Series([0, 0, 1], list("abc")), pd.Series(["barn"] * 3, list("abc"))
    >>> group_report(found, known)  # of the three known pairs one is found
    {'precision': 1.0, 'recall': 0.3333333333333333}
    """
    known = known.dropna()
    table = pd.crosstab(groups.reindex(known.index).to_numpy(), known.to_numpy()).to_numpy()

    def n_pairs(sizes: np.ndarray) -> float:
        return float((sizes * (sizes - 1) / 2).sum())

    both, ours, theirs = n_pairs(table), n_pairs(table.sum(axis=1)), n_pairs(table.sum(axis=0))
    return {"precision": both / ours if ours else 1.0, "recall": both / theirs if theirs else 1.0}
