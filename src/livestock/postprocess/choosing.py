"""Choosing among methods honestly: one test over all of them, and a score with the choosing inside.

Images of one group of near-duplicates are right or wrong together, so groups are what is counted, and they are few and
of unequal size. Everything here therefore goes by `GroupScores`: what each group adds to the score.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy.special import expit, logit, stdtrit

from ..evaluation import Matches, match_usual, resample_classes

ALPHA = 0.05  # chance of taking another method than the first where none is better
MIN_EFFECTIVE_GROUPS = 6.0  # with fewer nothing but the first is chosen: five groups give no p below 2 / 2**5
MIN_SHARE = 0.02  # of the true boxes; smaller groups are joined, for a score without so little hardly differs
QUANTILE = 0.99  # of Student's t, for an interval that covers 95 % (see `find_interval`)
N_FLIPS = 10_000
MAX_EXACT = 12  # groups up to which every pattern of signs is tried
SEED = 0


@dataclass(frozen=True)
class GroupScores:
    """A score, and what it is without each block of groups.

    `aps` is `(K,)`, AP by class with truth; `without` `(G, K)`, the same without a block, NaN where no truth is left;
    `shares` `(G, K)`, each block's share of the true boxes of a class.
    """

    aps: np.ndarray
    without: np.ndarray
    shares: np.ndarray

    @property
    def score(self) -> float:
        """mAP; 0 without truth."""
        return float(self.aps.mean()) if len(self.aps) else 0.0

    @property
    def weights(self) -> np.ndarray:
        """Each block's weight in the score, `(G,)`: its share of the true boxes, averaged over classes."""
        return self.shares.mean(axis=1) if len(self.aps) else np.zeros(len(self.shares))

    @property
    def n_effective(self) -> float:
        """The number of equal groups that would tell as much: 1 / sum of squared weights (Kish 1965, section 11.7)."""
        return float(1 / (self.weights**2).sum()) if self.weights.any() else 0.0

    @property
    def residuals(self) -> np.ndarray:
        """How far each block lifts or lowers the score, `(G,)`.

        Of a mean over images it is weight x (own mean - whole mean). In general the jackknife says it: (1 - share) x
        (AP - AP without the block) by class (Busing, Meijer and van der Leeden 1999, "Delete-m jackknife for unequal
        m"), averaged over classes.
        """
        if not len(self.aps):
            return np.zeros(len(self.shares))
        lift = (1 - self.shares) * (self.aps - self.without)
        return np.where(np.isnan(self.without), 0.0, lift).mean(axis=1)

    @property
    def contributions(self) -> np.ndarray:
        """What each block adds to the score, `(G,)`; their sum is the score.

        >>> half = GroupScores(np.array([0.5]), np.array([[0.2], [0.8]]), np.array([[0.5], [0.5]]))
        >>> half.contributions.round(2).tolist()  # .8 and .2, with a weight of a half
        [0.4, 0.1]
        """
        if not len(self.aps):
            return self.residuals
        return (self.shares * self.aps).mean(axis=1) + self.residuals - self.weights * self.residuals.sum()


def score_groups(matches: Matches, blocks: pd.Series) -> GroupScores:
    """Scores matches with and without each block; `blocks` numbers every image from 0 on, by image_id.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": name, "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}
    ...                     for name in ("a.jpg", "b.jpg")])
    >>> scores = score_groups(match_usual(truth, truth[:1], 0.75), pd.Series([0, 1], ["a.jpg", "b.jpg"]))
    >>> scores.score, scores.without.tolist()  # 0 without a.jpg, in which the box was found
    (0.5, [[0.0], [1.0]])
    """
    number = blocks.to_numpy()
    n_blocks = number.max(initial=-1) + 1
    counts = np.vstack([np.ones(len(number), int), (np.arange(n_blocks)[:, None] != number).astype(int)])
    n_truth = np.zeros((n_blocks, len(matches.labels)))
    np.add.at(n_truth, number[blocks.index.get_indexer(matches.images)], matches.n_truth)
    known = n_truth.sum(axis=0) > 0
    aps = resample_classes(matches, blocks.index, counts)[:, known]
    return GroupScores(aps[0], aps[1:], n_truth[:, known] / n_truth.sum(axis=0)[known])


def block_groups(images: pd.DataFrame, truth: pd.DataFrame) -> pd.Series:
    """Numbers the groups of images, by image_id; small ones are joined at random to blocks of at least `MIN_SHARE`.

    A group's size is its share of the true boxes, averaged over classes. Group -1 is no group: the image is its own.

    >>> images = pd.DataFrame({"image_id": list("abc"), "group": [5, 5, -1]})
    >>> truth = pd.DataFrame({"image_id": list("abc"), "label": "pig"})
    >>> block_groups(images, truth).tolist()
    [0, 0, 1]
    """
    group = images["group"].where(images["group"] >= 0, -1 - np.arange(len(images)))
    codes = pd.Series(pd.factorize(group)[0], index=pd.Index(images["image_id"]), name="block")
    label, labels = pd.factorize(truth["label"])
    counts = np.zeros((codes.max() + 1 if len(codes) else 0, len(labels)))
    np.add.at(counts, (truth["image_id"].map(codes).to_numpy(int), label), 1)
    # Shares by class, so that a group with the only boxes of a rare class counts as large.
    size = (counts / counts.sum(axis=0)).mean(axis=1) if len(labels) else np.zeros(len(counts))
    small = np.random.default_rng(SEED).permutation(np.flatnonzero(size < MIN_SHARE))
    block, filled, current = np.arange(len(size)), 0.0, -1
    for code in small:
        current = code if current < 0 else current
        block[code], filled = current, filled + size[code]
        if filled >= MIN_SHARE:
            filled, current = 0.0, -1
    if current >= 0 and len(others := np.setdiff1d(block, current)):  # what is left over is too small for a block
        smallest = min(others, key=lambda other: size[block == other].sum())
        block[block == current] = smallest
    return pd.Series(np.unique(block, return_inverse=True)[1][codes], index=codes.index, name="block")


def score_inner(
    boxes: pd.DataFrame, truth: pd.DataFrame, images: pd.DataFrame, parts: pd.Series, part: int, metric_iou: float
) -> GroupScores:
    """Scores boxes on the images outside a part, by blocks of their groups."""
    outside = parts.index[parts != part]
    truth, boxes = (table[table["image_id"].isin(outside)] for table in (truth, boxes))
    blocks = block_groups(images[images["image_id"].isin(outside)], truth)
    return score_groups(match_usual(truth, boxes, metric_iou), blocks)


def find_error(residuals: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Standard error over groups of a score, or of a difference of two, and its degrees of freedom.

    A block's residual divided by its weight varies as a whole group does. Its variance s2 is taken to be the same for
    every block, so that of the score is s2 / n_effective. With w the weights and P = I - 1w', the sum of squares has
    trace(P'P) = G - 2 + G / n_effective, with eigenvalues 1 (G - 2 times) and G / n_effective, from which come its
    degrees of freedom (Satterthwaite 1946; for clusters Bell and McCaffrey 2002). Infinite with fewer than two blocks.

    >>> error, freedom = find_error(np.array([0.3, 0.0, -0.3]) / 3, np.full(3, 1 / 3))
    >>> (error * np.sqrt(3)).round(4).item(), freedom  # of equal groups that are .3 apart
    (0.3, 2.0)
    """
    used = weights > 0
    n_blocks = int(used.sum())
    if n_blocks < 2:
        return float("inf"), 1.0
    n_effective = 1 / (weights**2).sum()
    last = n_blocks / n_effective
    trace = n_blocks - 2 + last
    error = np.sqrt(((residuals[used] / weights[used]) ** 2).sum() / trace / n_effective)
    return float(error), float(trace**2 / (n_blocks - 2 + last**2))


def find_interval(scores: GroupScores) -> tuple[float, float]:
    """The 95 % interval of a score over groups: Student's t on the scale of log(score / (1 - score)).

    Scores of groups are skewed: one bad group in ten lowers the score, and where it was not drawn the others say
    nothing of it. So the bounds are unequal, and t's quantile is that of 99 %, with which 95 % are covered in
    simulation (`bench/choosing.py`). Where all is right, or nothing, the bound is that of as many whole groups without
    one exception (Clopper and Pearson 1934).

    >>> halves = np.full((3, 1), 1 / 3)
    >>> low, high = find_interval(GroupScores(np.array([0.5]), np.array([[0.52], [0.5], [0.48]]), halves))
    >>> round(low, 3), round(high, 3)  # groups of .46, .5 and .54: logit 0 -+ 9.9248 x .04 / sqrt(3) / .25
    (0.286, 0.714)
    """
    score, (error, freedom) = scores.score, find_error(scores.residuals, scores.weights)
    if not np.isfinite(error):
        return 0.0, 1.0
    if not 0 < score < 1:
        bound = 0.025 ** (1 / scores.n_effective)
        return (bound, 1.0) if score else (0.0, 1 - bound)
    half = stdtrit(freedom, (1 + QUANTILE) / 2) * error / (score * (1 - score))
    low, high = expit(logit(score) + np.array([-half, half]))
    return float(low), float(high)


def compare_gains(gains: np.ndarray) -> np.ndarray:
    """For each method the adjusted two-sided p that it is as good: `(M,)` from what blocks add to its gain, `(G, M)`.

    If no gain is real, a block's contributions are as likely to be of the opposite signs, those to all methods
    together. So signs are flipped at random (every pattern up to `MAX_EXACT` blocks) and the largest studentised gain
    is compared with what flipping gives; its step-down form (Westfall and Young 1993, algorithm 4.1; Romano and Wolf
    2005) adjusts the p of the others. That is exact, for any number and size of groups, if they are independent and
    contributions symmetric; those to an AP are so only nearly, hence the simulation in `bench/choosing.py`. Sum / root
    of the sum of squares ranks as Student's t does, and flipping leaves the root as it is (Efron 1969).

    >>> compare_gains(np.array([[0.1], [0.2], [0.1], [0.3], [0.2], [0.1]])).tolist()  # 2 patterns of 64 are as far
    [0.03125]
    """
    n_blocks, n_methods = gains.shape
    if n_blocks <= MAX_EXACT:
        signs = np.array(list(product([1.0, -1.0], repeat=n_blocks)))
    else:
        signs = np.random.default_rng(SEED).choice([1.0, -1.0], (N_FLIPS, n_blocks))
        signs[0] = 1  # what was observed is one of the patterns
    size = np.sqrt((gains**2).sum(axis=0))
    flipped = np.divide(np.abs(signs @ gains), size, out=np.zeros((len(signs), n_methods)), where=size > 0)
    order = np.argsort(-flipped[0], kind="stable")
    highest = np.maximum.accumulate(flipped[:, order[::-1]], axis=1)[:, ::-1]  # of each method and those after it
    p = (highest >= flipped[0, order] - 1e-9).mean(axis=0)
    adjusted = np.ones(n_methods)
    adjusted[order] = np.maximum.accumulate(p)
    return adjusted


@dataclass(frozen=True)
class Verdict:
    """`method` to take; `p` by method other than the first, adjusted for how many they are, NaN with too few groups."""

    method: str
    p: pd.Series
    n_effective: float


def decide(scores: Mapping[str, GroupScores], allowed: Collection[str]) -> Verdict:
    """The first method unless others are shown to be better (`compare_gains`), then the best of those.

    Nothing but the first is chosen with fewer effective groups than `MIN_EFFECTIVE_GROUPS`. `scores` are of the same
    blocks; of the other methods only those that are `allowed` can be chosen, and they alone are tested.

    >>> groups = np.full((8, 1), 1 / 8)
    >>> scores = {name: GroupScores(np.array([ap]), np.full((8, 1), ap), groups)
    ...           for name, ap in (("nms", 0.7), ("wbf", 0.8))}
    >>> decide(scores, allowed=["nms", "wbf"]).method, decide(scores, allowed=["nms"]).method
    ('wbf', 'nms')
    """
    first, *others = scores
    tested, n_effective = [name for name in others if name in allowed], scores[first].n_effective
    p = pd.Series(np.nan, index=tested, dtype=float)
    if tested and n_effective >= MIN_EFFECTIVE_GROUPS:
        p[:] = compare_gains(np.column_stack([scores[name].contributions - scores[first].contributions
                                              for name in tested]))
    better = [name for name in tested if p[name] <= ALPHA and scores[name].score > scores[first].score]
    return Verdict(max(better, key=lambda name: scores[name].score, default=first), p, n_effective)


@dataclass(frozen=True)
class Choice:
    """The method to take, and how good what this procedure chooses is on images that it has not seen.

    `table`, a row a method: `mAP, low, high`, `gain` over the first with `gain_low, gain_high`, and adjusted `p`.
    `score` with `low` and `high` is that of `held_out`, the boxes of each part of the images by the method that was
    chosen without that part (`by_part`). `reason` is the choice in words.
    """

    method: str
    table: pd.DataFrame
    reason: str
    held_out: pd.DataFrame
    by_part: dict[int, str]
    score: float
    low: float
    high: float
    n_groups: int
    n_effective: float

    @property
    def scores(self) -> pd.Series:
        """`mAP, low, high` of what is chosen."""
        return pd.Series({"mAP": self.score, "low": self.low, "high": self.high})


def choose_method(
    answers: Mapping[str, pd.DataFrame], inner: Mapping[str, Mapping[int, GroupScores]], truth: pd.DataFrame,
    images: pd.DataFrame, parts: pd.Series, metric_iou: float, *, allowed: Collection[str],
) -> Choice:
    """Chooses among methods, and scores the choosing by nested cross-validation over parts of the images.

    `answers` holds each method's boxes, those of a part at parameters chosen without it; the simplest method comes
    first. `inner` has by method and part the scores of the other parts, tuned without it too (`score_inner`), so
    nothing of a part is known where its method is chosen. The choice to submit is made on all images. With fewer of
    them a real gain is missed more often, so the score can be too low for the method chosen, never too high by the
    choosing; the upper bound is therefore at least that of this method itself.
    """
    blocks = block_groups(images, truth)
    scores = {name: score_groups(match_usual(truth, boxes, metric_iou), blocks) for name, boxes in answers.items()}
    verdict = decide(scores, allowed)
    by_part = {part: decide({name: own[part] for name, own in inner.items()}, allowed).method
               for part in sorted(parts.unique())}
    held_out = pd.concat([answers[name][answers[name]["image_id"].map(parts) == part]
                          for part, name in by_part.items()], ignore_index=True)
    nested = score_groups(match_usual(truth, held_out, metric_iou), blocks)
    (low, high), table = find_interval(nested), _tabulate(scores, verdict)
    high = max(high, float(table.loc[verdict.method, "high"]))
    n_groups = images["group"][images["group"] >= 0].nunique() + int((images["group"] < 0).sum())
    return Choice(verdict.method, table, explain(verdict, table), held_out, by_part, nested.score, low, high,
                  n_groups, verdict.n_effective)


def _tabulate(scores: Mapping[str, GroupScores], verdict: Verdict) -> pd.DataFrame:
    first, rows = next(iter(scores.values())), {}
    for name, own in scores.items():
        (low, high), gain = find_interval(own), own.score - first.score
        error, freedom = find_error(own.residuals - first.residuals, own.weights) if own is not first else (0.0, 1.0)
        half = stdtrit(freedom, 0.975) * error
        rows[name] = {"mAP": own.score, "low": low, "high": high, "gain": gain, "gain_low": max(gain - half, -1.0),
                      "gain_high": min(gain + half, 1.0)}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
    return table.assign(p=verdict.p.reindex(table.index))


def explain(verdict: Verdict, table: pd.DataFrame) -> str:
    """Why this method is chosen, in words; `table` as in `Choice`."""
    if verdict.n_effective < MIN_EFFECTIVE_GROUPS:
        return (f"too few groups to show that a method is better ({verdict.n_effective:.1f} effective ones of at least "
                f"{MIN_EFFECTIVE_GROUPS:g}): the simplest stays")
    first, groups = table.index[0], f"{verdict.n_effective:.1f} effective groups"
    if verdict.method != first:
        better = table.index[(table["p"] <= ALPHA) & (table["gain"] > 0)]
        which = "alone is" if len(better) == 1 else f"is the best of {len(better)} that are"
        row = table.loc[verdict.method]
        return (f"{verdict.method} {which} shown to be better than {first}: {row['gain']:+.4f}, adjusted p "
                f"{row['p']:.3f}, {groups}")
    higher = table.loc[(table["gain"] > 0) & table["p"].notna(), "p"]
    found = f"smallest adjusted p {higher.min():.3f}, {ALPHA:g} is asked for" if len(higher) else "none scores higher"
    return f"none is shown to be better than {first} ({found}; {groups}): the simplest stays"
