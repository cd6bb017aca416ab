"""The split: every class in every fold first, then the multilabel stratifier over groups and a polish for balance."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from ...config import Competition
from ..bins import box_counts
from .strata import DISTRIBUTIONS, stratum_counts, stratum_labels

N_STARTS = 10
MAX_REPAIRS = 1000  # moves of the search for a split in which no fold lacks a class
RANDOM_MOVES = 0.1  # share of them that are not the best one, so that the search leaves dead ends
FOLD_0 = 1e6  # how much more a class that the validation fold lacks counts than one that another fold lacks


def assign_folds(
    images: pd.DataFrame,
    boxes: pd.DataFrame,
    competition: Competition,
    *,
    groups: pd.Series,
    n_folds: int = 5,
    seed: int = 42,
) -> pd.DataFrame:
    """The images table, sorted by `image_id`, with `group` and `fold` filled in; no group is divided unless it must be.

    1. `MultilabelStratifiedKFold` (iterative-stratification; Sechidis et al. 2011) over groups: a group's
       labels are those of its images together, and its size on a log2 scale.
    2. Groups are moved until every fold holds every class, as far as the groups allow it (`_hold_classes`): a class in
       fewer groups than folds is in as many folds as it can be, fold 0 and its training images among them. A class in
       one group alone stays out of fold 0, so that it is trained on.
    3. Since the library counts a group of 200 as it counts one image, groups are then moved between folds,
       the best move first, while that brings the folds' shares nearer to the whole and no fold loses its last boxes of
       a class (`_polish`). On 16,455 made-up images in groups of about 8 this takes the mean distance from 0.019 to
       0.002; a random split of images has 0.012. Steps 1 to 3 are done from `N_STARTS` seeds and the best result is
       kept: a tenth better where groups are few.
    4. Fold 0, the validation fold, is the one that lacks fewest classes, and of those most like the whole.

    With fewer groups than folds the largest group is cut into blocks of consecutive images (by the numbers in their
    names), and folds that hold such a block share near-duplicates with others: `leaky_folds` lists them. The other
    groups stay whole, and one of them is fold 0 if it holds what there is to hold and is not tiny. With fewer than
    `n_folds` blocks and groups, as with fewer images than that, there are fewer folds.

    The stratifier gives unrelated folds when rows are reordered, hence the sorting: the result depends on
    what is in the tables and on the seed, not on file order. Raises ValueError for fewer than two images, fewer than
    two folds or an image without a group.
    """
    images = images.sort_values("image_id", ignore_index=True)  # the result must not depend on the order of files
    number = groups.reindex(images["image_id"]).to_numpy()
    if pd.isna(number).any():
        raise ValueError(
            f"groups: expected every image, {images['image_id'][pd.isna(number)].iloc[0]!r} is missing"
        )
    if len(images) < 2 or n_folds < 2:
        raise ValueError(f"folds: expected at least 2 images and 2 folds, to train on one part and to validate on the "
                         f"other; found images: {len(images)}, folds: {n_folds}")
    part = _cut_largest(images["image_id"], number, n_folds)
    n_folds = min(n_folds, int(part.max()) + 1)
    by_part = stratum_counts(images, boxes, competition).groupby(part).sum()
    has = box_counts(images, boxes, competition.labels).gt(0).groupby(part).any().to_numpy()
    has = has[:, has.any(axis=0)]
    sizes = np.bincount(part)
    shares = _as_shares(by_part)
    found = []
    for start in range(N_STARTS):
        fold = _fill_empty(_stratify(by_part > 0, sizes, n_folds, seed + start), sizes, n_folds)
        fold = _hold_classes(has, fold, n_folds, np.random.default_rng(seed + start))
        found.append(_polish(shares, has, fold, n_folds))
    best = min(found, key=lambda fold: (_lack_cost(has, fold, n_folds), _fold_distances(shares, fold, n_folds).sum()))
    group_of_part = pd.Series(number).groupby(part).first().to_numpy()
    fold = _best_first(shares, has, best, group_of_part, sizes, n_folds)[part]
    return images.assign(group=number.astype("int64"), fold=fold.astype("int64"))


def _cut_largest(image_ids: pd.Series, group: np.ndarray, n_folds: int) -> np.ndarray:
    """Numbers of the parts that folds are made of, from 0: the groups, or where they are too few the largest in blocks.

    Only the largest is cut, so that all other folds stay free of leaks.
    """
    part, names = pd.factorize(group, sort=True)
    n_blocks = n_folds - len(names) + 1
    if n_blocks < 2:
        return part
    largest = np.bincount(part).argmax()
    rows = np.flatnonzero(part == largest)
    in_order = sorted(rows, key=lambda row: _by_number(image_ids[row]))
    for block, own in enumerate(np.array_split(in_order, min(n_blocks, len(rows)))):
        part[own] = largest if block == 0 else len(names) + block - 1
    return part


def _by_number(name: str) -> list[tuple[int, str]]:
    """A key that sorts `2.jpg` before `10.jpg`, as a camera counts."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"(\d+)", name)]


def _lack_weights(has: np.ndarray, n_folds: int) -> np.ndarray:
    """What it costs that a fold lacks a class, `(n_folds, classes)`; `has` is `(groups, classes)`.

    Fold 0 comes first: it validates. A class of one group alone is better trained on than validated on, so for it the
    cost is lower where fold 0 lacks it.
    """
    weights = np.ones((n_folds, has.shape[1]))
    weights[0] = FOLD_0
    weights[:, has.sum(axis=0) == 1] = 0
    weights[0, has.sum(axis=0) == 1] = -FOLD_0
    return weights


def _lack_cost(has: np.ndarray, fold: np.ndarray, n_folds: int) -> float:
    """What all lacking classes cost; one that is in fold 0 alone is never trained on, twice as bad as not validated."""
    held, n_groups = _inside(has, fold, n_folds), has.sum(axis=0)
    untrained = (held[0] == n_groups) & (n_groups > 1)
    return float(_lack_weights(has, n_folds)[held == 0].sum() + 2 * FOLD_0 * untrained.sum())


def _move_costs(has: np.ndarray, fold: np.ndarray, n_folds: int) -> np.ndarray:
    """How much `_lack_cost` changes if a group moves to a fold: `(groups, n_folds)`."""
    weights, held = _lack_weights(has, n_folds), _inside(has, fold, n_folds)
    left = has @ (weights * (held == 1)).T  # what a fold would lack without the group
    costs = left[np.arange(len(fold)), fold][:, None] - has @ (weights * (held == 0)).T
    costs[np.arange(len(fold)), fold] = 0
    return costs


def _hold_classes(has: np.ndarray, fold: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Moves groups until no fold lacks a class that it could have; the best state met, if there is no such split.

    A local search in the manner of WalkSAT (Selman, Kautz and Cohen 1994): take a fold and a class that it lacks, and
    give it the group of that class that costs the other folds least, or now and then any.
    """
    fold, n_groups = fold.copy(), has.sum(axis=0)
    best, lowest = fold.copy(), _lack_cost(has, fold, n_folds)
    for _ in range(MAX_REPAIRS):
        held = _inside(has, fold, n_folds)
        can_spread = (held > 0).sum(axis=0) < np.minimum(n_groups, n_folds)
        lacking = (held == 0) & can_spread & (n_groups > 1)
        lacking[0] = ((held[0] == 0) & (n_groups > 1)) | ((held[0] > 0) & (n_groups == 1))
        if not lacking.any():
            return fold
        where = np.argwhere(lacking[:1] if lacking[0].any() else lacking)
        target, of_class = where[rng.integers(len(where))]
        if n_groups[of_class] == 1:  # it has to leave fold 0
            target = rng.integers(1, n_folds)
        giving = np.flatnonzero(has[:, of_class] & (fold != target))
        spare = giving[held[fold[giving], of_class] > 1]
        _move(has, fold, n_folds, spare if len(spare) else giving, target, rng)
        if (cost := _lack_cost(has, fold, n_folds)) < lowest:
            best, lowest = fold.copy(), cost
    return best


def _move(
    has: np.ndarray, fold: np.ndarray, n_folds: int, choices: np.ndarray, target: int, rng: np.random.Generator
) -> None:
    """Moves one of some groups to a fold; if that empties its own, one comes back."""
    source = fold[chosen := _choose(_move_costs(has, fold, n_folds)[choices, target], choices, rng)]
    fold[chosen] = target
    if not (fold == source).any():
        others = np.setdiff1d(np.flatnonzero(fold == target), [chosen])
        fold[_choose(_move_costs(has, fold, n_folds)[others, source], others, rng)] = source


def _choose(costs: np.ndarray, choices: np.ndarray, rng: np.random.Generator) -> int:
    """One of the cheapest choices, or now and then any."""
    allowed = choices if rng.random() < RANDOM_MOVES else choices[costs == costs.min()]
    return int(rng.choice(allowed))


def _stratify(labels: pd.DataFrame, sizes: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """The library's fold of each row; `sizes` (rows of each group) enter as one more one-hot label."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold  # a second to import, and few commands split

    octave = np.log2(sizes).astype(int)
    one_hot = octave[:, None] == np.arange(octave.max() + 2)
    labels = np.concatenate([labels.to_numpy(), one_hot], axis=1).astype(int)
    fold = np.empty(len(labels), dtype=int)
    splitter = MultilabelStratifiedKFold(n_splits=n_folds, shuffle=True, random_state=seed)
    for number, (_, chosen) in enumerate(splitter.split(labels, labels)):
        fold[chosen] = number
    return fold


def _as_shares(by_group: pd.DataFrame) -> np.ndarray:
    """Counts divided by their distribution's total, so that boxes do not outweigh images; without empty bins."""
    parts = [by_group[name] / max(by_group[name].to_numpy().sum(), 1) for name in DISTRIBUTIONS]
    shares = np.concatenate([part.to_numpy() for part in parts], axis=1)
    return shares[:, shares.sum(axis=0) > 0]


def _fill_empty(fold: np.ndarray, sizes: np.ndarray, n_folds: int) -> np.ndarray:
    """Gives a fold that was left empty (possible with few groups) the smallest group of the fullest."""
    fold = fold.copy()
    while len(empty := np.setdiff1d(np.arange(n_folds), fold)):
        fullest = np.flatnonzero(fold == np.bincount(fold).argmax())
        fold[fullest[sizes[fullest].argmin()]] = empty[0]
    return fold


def _polish(
    shares: np.ndarray, has: np.ndarray, fold: np.ndarray, n_folds: int, max_moves: int = 10_000
) -> np.ndarray:
    """Moves single groups, best first, while Pearson's chi-square of folds against equal parts falls.

    With d the folds' surplus `(n_folds, bins)`, moving a group v from fold a to b changes sum(d² / total) by
    2 v (d_b - d_a + v) / total, so all moves are priced at once. A fold keeps at least one group, and no move makes a
    fold lack a class.
    """
    fold, rows = fold.copy(), np.arange(len(fold))
    total = shares.sum(axis=0)
    weighted = shares / total
    own = (weighted * shares).sum(axis=1)
    for _ in range(max_moves):
        surplus = _inside(shares, fold, n_folds) - total / n_folds
        pull = weighted @ surplus.T
        change = pull - pull[rows, fold][:, None] + own[:, None]
        if (_inside(has, fold, n_folds) == 1).any():  # else no move can cost a fold a class
            change[_move_costs(has, fold, n_folds) > 0] = 0
        change[np.bincount(fold, minlength=n_folds)[fold] == 1] = 0
        change[rows, fold] = 0
        group, target = np.unravel_index(change.argmin(), change.shape)
        if change[group, target] > -1e-9:
            break
        fold[group] = target
    return fold


def _best_first(
    shares: np.ndarray, has: np.ndarray, fold: np.ndarray, group: np.ndarray, sizes: np.ndarray, n_folds: int
) -> np.ndarray:
    """Renumbers folds so that the first is the best to validate on.

    That is the one that lacks fewest classes; where a group was cut, one that shares no group with others and is not
    tiny; then the nearest to an equal part of the whole.
    """
    held = _inside(has, fold, n_folds)
    untrained = held == has.sum(axis=0)  # worse than a class that is not validated
    lacks = (held == 0).sum(axis=1) + 2 * untrained.sum(axis=1)
    unfit = np.zeros(n_folds, bool)
    if len(np.unique(group)) < len(group):
        n_folds_of = pd.Series(fold).groupby(group).transform("nunique").to_numpy()
        is_leaky = np.bincount(fold, n_folds_of > 1, n_folds) > 0
        unfit = is_leaky | (np.bincount(fold, sizes, n_folds) < sizes.sum() / n_folds / 2)
    far = _fold_distances(shares, fold, n_folds).round(12)
    rank = np.empty(n_folds, int)
    rank[np.lexsort((far, unfit, lacks))] = np.arange(n_folds)
    return rank[fold]


def _fold_distances(shares: np.ndarray, fold: np.ndarray, n_folds: int) -> np.ndarray:
    """Each fold's part of Pearson's chi-square against equal parts of the whole, `(n_folds,)`."""
    total = shares.sum(axis=0)
    return ((_inside(shares, fold, n_folds) - total / n_folds) ** 2 / total).sum(axis=1)


def _inside(shares: np.ndarray, fold: np.ndarray, n_folds: int) -> np.ndarray:
    return np.stack([shares[fold == k].sum(axis=0) for k in range(n_folds)])


def mini_set(
    images: pd.DataFrame, boxes: pd.DataFrame, competition: Competition, *, share: float = 0.5, seed: int = 42
) -> pd.Series:
    """Whether an image is in the mini set: boolean, index `image_id`, sorted.

    A stratified `share` of every fold, so that whichever fold validates, the mini set has that share of the
    others to train on; validation always takes the whole fold. Groups may be divided: both halves are
    training data. A class that would lose all its images of a fold keeps one. Raises ValueError for a share outside
    (0, 1).
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    if not 0 < share < 1:
        raise ValueError(f"share: expected a number between 0 and 1, found {share!r}")
    images = images.sort_values("image_id", ignore_index=True)
    labels = stratum_labels(images, boxes, competition).to_numpy().astype(int)
    has = box_counts(images, boxes, competition.labels).to_numpy() > 0
    chosen = np.zeros(len(images), dtype=bool)
    for fold in sorted(images["fold"].unique()):
        rows = np.flatnonzero(images["fold"] == fold)
        splitter = MultilabelStratifiedShuffleSplit(
            n_splits=1, train_size=share, test_size=1 - share, random_state=seed
        )
        # too few images to divide are all kept, rather than leaving a fold out
        kept = next(splitter.split(rows, labels[rows]))[0] if len(rows) * min(share, 1 - share) >= 1 else slice(None)
        chosen[rows[kept]] = True
        for own in has[rows].T:
            if own.any() and not (own & chosen[rows]).any():
                chosen[rows[own.argmax()]] = True
    return pd.Series(chosen, index=pd.Index(images["image_id"], name="image_id"), name="mini")
