"""Which boxes are true: matched with the truth once, as the competition's scorer does or as is usual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from ..geometry import paired_iou
from ..tables import XYXY

PAIRS_AT_ONCE = 100_000  # bounds memory, and keeps the arrays of one step in the processor's cache


@dataclass(frozen=True)
class Matches:
    """Which boxes are true positives: everything average precision needs, by class and then by rank.

    `image`, `label`, `confidence` and `is_true` are `(N,)`, one entry a box whose class has truth, sorted by
    class and within it as the scorer ranks (falling confidence). `image` and `label` index `images` and
    `labels`. `n_truth` is `(images, labels)`: truth boxes by image and class.
    """

    images: pd.Index
    labels: list[str]
    n_truth: np.ndarray
    image: np.ndarray
    label: np.ndarray
    confidence: np.ndarray
    is_true: np.ndarray


def match_competition(truth: pd.DataFrame, answer: pd.DataFrame, iou_threshold: float) -> Matches:
    """Matches as `map_boxes` does, quirks included; the module's table lists them.

    A truth row whose label is missing (or "nan") is no box, but puts its image among those that count.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}])
    >>> answer = pd.concat([truth.assign(confidence=0.4), truth.assign(confidence=0.9)])
    >>> matches = match_competition(truth, answer, iou_threshold=0.75)
    >>> matches.is_true.tolist()  # ranked by confidence, but the earlier row took the truth
    [False, True]
    """
    pair = encode(truth, answer, np.float32)
    if (ignored := pair.answer.image >= pair.n_truth_images).any():
        pair = pair.with_answer(~ignored)
    box, target, iou = overlaps(pair, iou_threshold)
    best_first = np.lexsort((target, -iou, box))  # the earlier of two truths that overlap equally
    box, target = box[best_first], target[best_first]
    first = _starts(box)
    is_true = assign(box[first], target[first], pair) >= 0
    as_scored = np.argsort(pair.answer.image, kind="stable")  # images as truth first names them, then rows
    return _rank(pair, is_true, as_scored, ties=None)


def match_usual(truth: pd.DataFrame, answer: pd.DataFrame, iou_threshold: float) -> Matches:
    """Matches as COCO's `evaluateImg`: boxes by falling confidence, each to the best truth still free.

    Rows whose column `ignored`, where a table has one, is true are left out of the score as COCO leaves out boxes of
    other sizes: a truth that is ignored cannot be missed and is claimed only by a box that has no other; that box does
    not count, nor does an ignored one that claims nothing.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}])
    >>> answer = pd.concat([truth.assign(confidence=0.4), truth.assign(confidence=0.9)])
    >>> matches = match_usual(truth, answer, iou_threshold=0.75)
    >>> matches.confidence.tolist(), matches.is_true.tolist()  # the second box on one animal is false
    ([0.9, 0.4], [True, False])
    """
    return match_at_ious(truth, answer, [iou_threshold])[0]


def match_at_ious(truth: pd.DataFrame, answer: pd.DataFrame, iou_thresholds: Sequence[float]) -> list[Matches]:
    """As `match_usual` at several thresholds, one after the other; overlaps are computed once.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}])
    >>> [matches.is_true.tolist() for matches in match_at_ious(truth, truth.assign(x_max=8.0), [0.75, 0.9])]
    [[True], [False]]
    """
    pair = encode(truth, answer, np.float64)
    pair = pair.with_answer(np.argsort(-pair.answer.confidence, kind="stable"))
    return match_similar(pair, *overlaps(pair, min(iou_thresholds)), iou_thresholds)


def match_similar(
    pair: Pair, box: np.ndarray, target: np.ndarray, similarity: np.ndarray, thresholds: Sequence[float]
) -> list[Matches]:
    """Matches at several thresholds of rows of `answer` and `truth` that have this similarity: IoU, or OKS.

    `answer` goes by falling confidence; a pair that is not among `box` and `target`, `(N,)` each, is never a match.
    """
    ignored = pair.truth.ignored
    best_first = np.lexsort((-target, -similarity, ignored[target], box))  # the later of two that are equally similar
    box, target, similarity = box[best_first], target[best_first], similarity[best_first]
    found = []
    for threshold in thresholds:
        enough = similarity >= threshold
        claimed = assign(box[enough], target[enough], pair)
        is_true = claimed >= 0
        counts = ~np.where(is_true, ignored[claimed] if len(ignored) else False, pair.answer.ignored)
        found.append(_rank(pair, is_true, np.flatnonzero(counts), ties="stable"))
    return found


@dataclass(frozen=True)
class _Boxes:
    """One side as arrays `(N,)`, corners `(N, 4)`; only boxes whose class has truth."""

    image: np.ndarray
    label: np.ndarray
    xyxy: np.ndarray
    confidence: np.ndarray
    ignored: np.ndarray

    def take(self, rows: np.ndarray) -> _Boxes:
        return _Boxes(self.image[rows], self.label[rows], self.xyxy[rows], self.confidence[rows], self.ignored[rows])


@dataclass(frozen=True)
class Pair:
    images: pd.Index
    labels: list[str]
    n_truth_images: int  # these come first in `images`
    truth: _Boxes
    answer: _Boxes

    def with_answer(self, rows: np.ndarray) -> Pair:
        return replace(self, answer=self.answer.take(rows))


def encode(truth: pd.DataFrame, answer: pd.DataFrame, dtype: type) -> Pair:
    """Both sides as arrays, images in the order in which truth and then answer name them."""
    image, images = pd.factorize(pd.concat([truth["image_id"], answer["image_id"]]))
    label, names = pd.factorize(pd.concat([truth["label"], answer["label"]]))
    labels = sorted(set(truth["label"].dropna().unique()) - {"nan"})
    class_ids = np.append([labels.index(name) if name in labels else -1 for name in names], -1).astype(int)
    sides = []
    for table, rows in [(truth, slice(len(truth))), (answer, slice(len(truth), None))]:
        xyxy = np.ascontiguousarray(table[XYXY], dtype).astype(np.float64, copy=False)
        ignored = table["ignored"].to_numpy(bool) if "ignored" in table else np.zeros(len(table), bool)
        boxes = _Boxes(image[rows], class_ids[label[rows]], xyxy, table["confidence"].to_numpy(dtype), ignored)
        sides.append(boxes if (boxes.label >= 0).all() else boxes.take(boxes.label >= 0))
        if not np.isfinite(sides[-1].xyxy).all():
            raise ValueError("boxes: expected finite corners, found NaN or infinity")
    return Pair(images, labels, truth["image_id"].nunique(), *sides)


def overlaps(pair: Pair, iou_threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of `answer` and `truth` of one image and class whose IoU reaches the threshold, and that IoU.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}])
    >>> answer = pd.concat([truth.assign(x_max=8.0), truth.assign(x_max=2.0)])
    >>> [values.tolist() for values in overlaps(encode(truth, answer, np.float64), iou_threshold=0.75)]
    [[0], [0], [0.8]]
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold: expected a number above 0 and up to 1, found {iou_threshold!r}")
    found = []
    for box, target in candidate_pairs(pair):
        iou = paired_iou(pair.answer.xyxy[box], pair.truth.xyxy[target])
        enough = iou >= iou_threshold
        found.append((box[enough], target[enough], iou[enough]))
    box, target, iou = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return box, target, iou


def candidate_pairs(pair: Pair) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every (box, truth) of one image and class, a bounded number at a time."""
    wanted, present = (side.image * len(pair.labels) + side.label for side in (pair.answer, pair.truth))
    order = np.argsort(present, kind="stable")
    sizes = np.bincount(present, minlength=len(pair.images) * len(pair.labels))
    start, count = (np.cumsum(sizes) - sizes)[wanted], sizes[wanted]
    total = np.cumsum(count)
    cuts = np.searchsorted(total, np.arange(PAIRS_AT_ONCE, total[-1] if len(total) else 0, PAIRS_AT_ONCE))
    for rows in np.split(np.arange(len(wanted)), cuts):
        box = np.repeat(rows, count[rows])
        nth = np.arange(len(box)) - np.repeat(np.cumsum(count[rows]) - count[rows], count[rows])
        yield box, order[start[box] + nth]


def assign(box: np.ndarray, target: np.ndarray, pair: Pair) -> np.ndarray:
    """The row of `truth` that each row of `answer` gets, or -1; the earlier row chooses first.

    `box` ascends, its `target`s go from first choice to last. The result is that of a loop over boxes, found
    by deferred acceptance (Gale and Shapley 1962) in a few rounds over arrays: all ask for their first
    choice, every truth keeps the earliest row that asked, the others go on to their next.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": x, "y_min": 0, "x_max": x + 10, "y_max": 10}
    ...                     for x in (0, 2)])
    >>> pair = encode(truth, truth, np.float64)
    >>> assign(np.array([0, 1, 1]), np.array([0, 0, 1]), pair).tolist()  # both want truth 0: box 1 gets truth 1
    [0, 1]
    """
    asking = _starts(box)
    while True:
        keeper = np.full(len(pair.truth.image), len(pair.answer.image))
        np.minimum.at(keeper, target[asking], box[asking])
        turned_away = keeper[target[asking]] != box[asking]
        if not turned_away.any():
            break
        following = asking[turned_away] + 1
        following = following[following < len(box)]
        asking = np.concatenate([asking[~turned_away], following[box[following] == box[following - 1]]])
    claimed = np.full(len(pair.answer.image), -1)
    claimed[box[asking]] = target[asking]
    return claimed


def _starts(values: np.ndarray) -> np.ndarray:
    """Where runs of equal values begin."""
    return np.flatnonzero(np.diff(values, prepend=-1))


def match_ground_truth(truth: pd.DataFrame, answer: pd.DataFrame, iou_threshold: float) -> np.ndarray:
    """The row of `truth`, by position, that each row of `answer` matches as in `match_usual`, or -1.

    Every row of `truth` must have a label.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}])
    >>> answer = pd.concat([truth, truth.assign(x_max=8.0)], ignore_index=True).assign(confidence=[0.4, 0.9])
    >>> match_ground_truth(truth, answer, iou_threshold=0.75).tolist()  # the more confident box takes the truth
    [-1, 0]
    """
    known = np.flatnonzero(answer["label"].isin(truth["label"]))
    falling = known[np.argsort(-answer["confidence"].to_numpy(float)[known], kind="stable")]
    pair = encode(truth, answer.iloc[falling], np.float64)
    box, target, iou = overlaps(pair, iou_threshold)
    best_first = np.lexsort((-target, -iou, box))
    found = np.full(len(answer), -1)
    found[falling] = assign(box[best_first], target[best_first], pair)
    return found


def _rank(pair: Pair, is_true: np.ndarray, rows: np.ndarray, ties: Literal["stable"] | None) -> Matches:
    """Orders `rows` of `answer` by class and falling confidence."""
    boxes, n_labels = pair.answer, len(pair.labels)
    label = boxes.label[rows]
    by_class = [rows[label == class_id] for class_id in range(n_labels)]
    # Each class by itself, because where an unstable sort leaves ties depends on everything it sorts.
    ranked = [mine[np.argsort(-boxes.confidence[mine], kind=ties)] for mine in by_class]
    order = np.concatenate([np.zeros(0, int), *ranked])
    cell = (pair.truth.image * n_labels + pair.truth.label)[~pair.truth.ignored]
    n_truth = np.bincount(cell, minlength=len(pair.images) * n_labels).reshape(len(pair.images), n_labels)
    return Matches(
        images=pair.images,
        labels=pair.labels,
        n_truth=n_truth,
        image=boxes.image[order],
        label=boxes.label[order],
        confidence=boxes.confidence[order],
        is_true=is_true[order],
    )
