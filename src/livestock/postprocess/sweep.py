"""Every threshold at once: one pass over the candidates gives the score of each point of a grid.

Three things are free. Greedy suppression at a higher confidence is a prefix of that at a lower one, and so is the
greedy matching of what is left: per suppression IoU both run once, and each confidence is a cut. A cap on the boxes of
an image is a cut by rank. And average precision needs the ranks of the true boxes only, which are few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pandas as pd

from ..evaluation.matching import Pair, assign, encode, overlaps
from ..tables import XYXY
from .suppression import check_thresholds, image_pieces

N_THREADS = 2


def sweep(
    truth: pd.DataFrame,
    candidates: pd.DataFrame,
    *,
    iou_thresholds: Sequence[float],
    conf_thresholds: Sequence[float] = (0.001,),
    max_dets: Sequence[int] = (300,),
    metric_ious: Sequence[float] = (0.75,),
    agnostic: bool = False,
    parts: pd.Series | None = None,
    leave_out: Sequence[tuple[int, ...]] = ((),),
) -> pd.DataFrame:
    """The usual mAP of `suppress(candidates, ...)` at every point of the grid: what `evaluate` gives for each alone.

    One row a point, metric IoU and entry of `leave_out`: `iou_threshold, conf_threshold, max_det, metric_iou, left_out,
    mAP`, then a column a class with truth, its AP (NaN where the images that count have none). Both tables hold the
    images that are judged and no others. `parts` numbers the images, by image_id; each entry of `leave_out` is scored
    without the parts that it names, which costs only another pass over the ranks.

    Raises ValueError for thresholds out of range, corners that are not finite and an image without a part.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}])
    >>> boxes = pd.concat([truth.assign(x_max=7.0, confidence=0.9), truth.assign(confidence=0.8)])
    >>> sweep(truth, boxes, iou_thresholds=[0.5, 0.9])[["iou_threshold", "mAP"]].to_numpy().tolist()
    [[0.5, 0.0], [0.9, 0.5]]
    """
    for iou, conf, max_det in [(iou, conf, m) for iou in iou_thresholds for conf in conf_thresholds for m in max_dets]:
        check_thresholds(iou, conf, max_det)
    ever, masks = _kept_at_any(candidates, iou_thresholds, min(conf_thresholds), max(max_dets), agnostic)
    ranked = np.argsort(-candidates["confidence"].to_numpy(float)[ever], kind="stable")  # as a scorer ranks them
    answer = candidates.iloc[ever[ranked]]
    pair = encode(truth, answer, np.float64)
    known = answer["label"].isin(pair.labels).to_numpy()  # the others are no class of the truth
    found = overlaps(pair, min(metric_ious))
    subsets = [_subset(pair, parts, left_out) for left_out in leave_out]
    image, rows = pd.factorize(candidates["image_id"].to_numpy()[ever], sort=True)[0], []
    for iou_threshold, kept in zip(iou_thresholds, masks, strict=True):
        place = _place_in_image(kept, image)[ranked][known]
        for metric_iou in metric_ious:
            is_true = _match(pair, found, kept[ranked][known], metric_iou)
            for max_det in max_dets:
                taken = kept[ranked][known] & (place < max_det)
                for left_out, (counts, n_truth) in zip(leave_out, subsets, strict=True):
                    aps = _average_precisions(pair, is_true, taken & counts, n_truth, conf_thresholds)
                    rows += [[iou_threshold, conf, max_det, metric_iou, left_out, _mean(ap), *ap]
                             for conf, ap in zip(conf_thresholds, aps, strict=True)]
    names = ["iou_threshold", "conf_threshold", "max_det", "metric_iou", "left_out", "mAP"]
    return pd.DataFrame(rows, columns=[*names, *pair.labels])


def _kept_at_any(
    candidates: pd.DataFrame, iou_thresholds: Sequence[float], conf_threshold: float, max_det: int, agnostic: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that suppression keeps at any IoU, as `suppress` orders them, and at which: `(n_thresholds, N)`.

    Most are dropped at every one, and need no memory from here on.
    """
    found, masks = [], []
    for rows in image_pieces(candidates, conf_threshold):
        piece = candidates.iloc[rows]
        image = pd.factorize(piece["image_id"], sort=True)[0]
        order = np.lexsort((-piece["confidence"].to_numpy(float), image))
        label = np.zeros_like(image) if agnostic else pd.factorize(piece["label"])[0]
        group = image[order] * (label.max(initial=0) + 1) + label[order]
        kept = _keep(piece[XYXY].to_numpy(float), order, group, iou_thresholds)
        for row in kept:
            row &= _place_in_image(row, image[order]) < max_det
        ever = kept.any(axis=0)
        found.append(rows[order[ever]])
        masks.append(kept[:, ever])
    return np.concatenate(found), np.hstack(masks)


def _subset(pair: Pair, parts: pd.Series | None, left_out: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of `answer` count without these parts, and the true boxes of each class that do."""
    counts = np.ones(len(pair.images), bool)
    if left_out:
        known = pd.Series(dtype=int) if parts is None else parts
        if len(missing := pair.images.difference(known.index)):
            raise ValueError(f"parts: expected a number for every image, found none for {missing[0]!r}")
        counts = ~known.reindex(pair.images).isin(left_out).to_numpy()
    n_truth = np.bincount(pair.truth.label[counts[pair.truth.image]], minlength=len(pair.labels))
    return counts[pair.answer.image], n_truth


def _mean(aps: np.ndarray) -> float:
    """The mean over classes with truth, 0 without any."""
    return float(np.nanmean(aps)) if np.isfinite(aps).any() else 0.0


def _keep(xyxy: np.ndarray, order: np.ndarray, group: np.ndarray, iou_thresholds: Sequence[float]) -> np.ndarray:
    """What greedy suppression keeps of `xyxy[order]` at each IoU: `(n_thresholds, N)`.

    `group`, of the boxes in that order, by falling confidence in each.
    """
    import torch
    from torchvision.ops import nms

    by_group = np.argsort(group, kind="stable")
    bounds = np.flatnonzero(np.diff(group[by_group], prepend=-1, append=-1))
    corners = torch.from_numpy(np.ascontiguousarray(xyxy[order[by_group]]))
    kept = np.zeros((len(iou_thresholds), len(group)), bool)

    def settle(runs: Sequence[tuple[int, int]]) -> None:
        """Marks what each threshold keeps in these runs of boxes of one image and class."""
        for start, end in runs:
            falling = torch.arange(end - start, 0, -1, dtype=corners.dtype)
            for row, iou_threshold in enumerate(iou_thresholds):
                kept[row, by_group[start + nms(corners[start:end], falling, iou_threshold).numpy()]] = True

    runs = list(pairwise(bounds))
    with ThreadPoolExecutor(N_THREADS) as pool:  # nms leaves the interpreter to the other threads
        for _ in pool.map(settle, (runs[first::N_THREADS] for first in range(N_THREADS))):
            pass
    return kept


def _place_in_image(kept: np.ndarray, image: np.ndarray) -> np.ndarray:
    """How many kept boxes of its image stand before each box; `image` is sorted."""
    before = np.cumsum(kept) - kept
    return before - before[np.searchsorted(image, image)] if len(image) else before


def _match(
    pair: Pair, found: tuple[np.ndarray, np.ndarray, np.ndarray], kept: np.ndarray, metric_iou: float
) -> np.ndarray:
    """As `evaluation.match_usual`, of the kept boxes alone. A cap cuts an image's last boxes, which choose last."""
    box, target, iou = found
    wanted = kept[box] & (iou >= metric_iou)
    box, target, iou = box[wanted], target[wanted], iou[wanted]
    best_first = np.lexsort((-target, -iou, box))
    return assign(box[best_first], target[best_first], pair) >= 0


def _average_precisions(
    pair: Pair, is_true: np.ndarray, taken: np.ndarray, n_truth: np.ndarray, conf_thresholds: Sequence[float]
) -> Iterator[np.ndarray]:
    """For each confidence threshold the AP of each class, `(n_labels,)`; see `evaluation.average_precision`."""
    curves = []
    for class_id in range(len(pair.labels)):
        mine = np.flatnonzero((pair.answer.label == class_id) & taken)
        rank = np.flatnonzero(is_true[mine]) + 1
        curves.append((rank, np.arange(1, len(rank) + 1) / rank, -pair.answer.confidence[mine]))
    for conf_threshold in conf_thresholds:
        aps = []
        for rank, precision, falling in curves:
            n_above = np.searchsorted(falling, -conf_threshold, side="left")
            cut = precision[: np.searchsorted(rank, n_above, side="right")]
            aps.append(np.maximum.accumulate(cut[::-1])[::-1].sum())
        yield np.divide(aps, n_truth, out=np.full(len(aps), np.nan), where=n_truth > 0)
