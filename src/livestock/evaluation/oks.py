"""Object keypoint similarity, and the average precision that COCO makes of it.

OKS = mean over labelled points of exp(-d² / (2 area (2 sigma)²)), d the distance in pixels and area that of the object
(COCO's `computeOks`; Ronchi and Perona, ICCV 2017, arXiv:1707.05388). With a sigma that is far too large everything is
similar: at a distance of a tenth of the object's side sigma .25 gives .98, .05 gives .61.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..config import Skeleton
from ..exceptions import BadData
from ..geometry import box_area
from ..tables import XYXY
from .matching import Matches, Pair, candidate_pairs, encode, match_similar
from .precision import COCO_IOUS, Score, interpolated_precision

BOX_SHARE = 0.53  # of a box that its object fills, where no area is known: COCO's mean over people
MAX_DET = 20  # objects an image that COCO judges by their points
EPSILON = float(np.spacing(1))  # pycocotools adds it to an area


def object_similarity(
    found: np.ndarray, true: np.ndarray, areas: np.ndarray, sigmas: np.ndarray, boxes: np.ndarray | None = None
) -> np.ndarray:
    """OKS of pairs of objects: `(N,)`, 0 to 1.

    `found` `(N, K, 2)` x and y, `true` `(N, K, 3)` x, y and visibility, of which 0 counts neither way, `areas` `(N,)`
    in px², `sigmas` `(N, K)` or `(K,)`, NaN for a point that the class does not have. Where no point of an object is
    labelled, points count by how far they lie outside of its box, `boxes` `(N, 4)` xyxy, made three times as wide and
    high, as COCO has it; without `boxes` it is NaN. Raises BadData for an area that is not above 0: OKS has no scale
    then, and pixel error or PCK is the measure.

    >>> true = np.array([[[10.0, 10.0, 2], [50.0, 10.0, 0]]])  # the second is not labelled
    >>> found = np.array([[[13.0, 14.0], [0.0, 0.0]]])
    >>> object_similarity(found, true, np.array([2500.0]), np.array([0.05, 0.05])).round(4)
    array([0.6065])
    """
    if not (areas > 0).all():
        row = int(np.flatnonzero(~(areas > 0))[0])
        raise BadData(f"OKS: object {row}: expected an area above 0, found {areas[row]:g}; a single point has none: "
                      "use its error in pixels, or PCK")
    labelled = true[..., 2] > 0
    offset = np.where(labelled[..., None], found - true[..., :2], 0.0)
    if boxes is not None and not (has_points := labelled.any(1)).all():
        size = boxes[:, None, 2:] - boxes[:, None, :2]
        outside = np.maximum(boxes[:, None, :2] - size - found, 0) + np.maximum(found - boxes[:, None, 2:] - size, 0)
        offset = np.where(has_points[:, None, None], offset, outside)
        labelled = labelled | (~has_points[:, None] & np.isfinite(sigmas))
    scale = 2 * (2 * np.nan_to_num(sigmas, nan=1.0)) ** 2 * (areas[:, None] + EPSILON)
    similar = np.exp(-(offset**2).sum(-1) / scale)
    n_labelled = labelled.sum(1)
    total = (similar * labelled).sum(1)
    return np.where(n_labelled > 0, total / np.maximum(n_labelled, 1), np.nan)


def points_array(
    boxes: pd.DataFrame, keypoints: pd.DataFrame, skeleton: Skeleton, *, missing: float = 0.0
) -> np.ndarray:
    """The points of each box, in the order of its class's skeleton: `(N, K, 3)`, x, y and visibility, `missing` where
    there is none; K is that of the class with most.

    >>> from livestock.config import Keypoint
    >>> boxes = pd.DataFrame({"box_id": [7], "label": ["pig"]})
    >>> points = pd.DataFrame({"box_id": [7], "keypoint": ["tail"], "x": [3.0], "y": [4.0], "visible": [2]})
    >>> points_array(boxes, points, Skeleton((Keypoint("pig", "snout", 0), Keypoint("pig", "tail", 1)))).tolist()
    [[[0.0, 0.0, 0.0], [3.0, 4.0, 2.0]]]
    """
    most = max(len(skeleton.names(label)) for label in skeleton.labels)
    points = np.full((len(boxes), most, 3), missing)
    places = {(label, name): index for label in skeleton.labels for index, name in enumerate(skeleton.names(label))}
    row = pd.Series(np.arange(len(boxes)), index=boxes["box_id"])
    own = keypoints[keypoints["box_id"].isin(row.index)]
    rows = row.loc[own["box_id"]].to_numpy()
    labels = boxes["label"].to_numpy()[rows]
    columns = np.array([places.get(key, -1) for key in zip(labels, own["keypoint"], strict=True)], int)
    known = columns >= 0
    points[rows[known], columns[known]] = own[["x", "y", "visible"]].to_numpy(float)[known]
    return np.where(np.isnan(points), missing, points)


def match_poses(
    truth: tuple[pd.DataFrame, pd.DataFrame], answer: tuple[pd.DataFrame, pd.DataFrame], skeleton: Skeleton,
    thresholds: Sequence[float], areas: Mapping[int, float] | pd.Series | None = None,
) -> list[Matches]:
    """Which objects of the answer are true, by OKS, at each threshold; `truth` and `answer` are boxes and keypoints.

    As COCO: objects by falling confidence of their box, at most 20 of an image and class, each to the most similar true
    object that is still free; a true object without a labelled point is neither found nor missed. `areas` are px² by
    `box_id`, such as those of segments; an object without one has 0.53 of its box. A point that the answer lacks is
    infinitely far.
    """
    boxes, points = truth
    falling = answer[0].sort_values("confidence", ascending=False, kind="stable")
    falling = falling[falling["label"].isin(boxes["label"])]
    falling = falling[falling.groupby(["image_id", "label"]).cumcount() < MAX_DET]
    true, found = points_array(boxes, points, skeleton), points_array(falling, answer[1], skeleton,
                                                                                  missing=np.inf)
    pair = encode(boxes.assign(ignored=~(true[..., 2] > 0).any(1)), falling, np.float64)
    own = boxes["box_id"].map(areas if areas is not None else {}).to_numpy(float)
    own = np.where(np.isfinite(own), own, BOX_SHARE * box_area(boxes[XYXY].to_numpy(float)))
    if (without := ~(own > 0) & (true[..., 2] > 0).any(1)).any():
        box = boxes[without].iloc[0]
        raise BadData(f"OKS: box {box['box_id']} in {box['image_id']}: expected an area above 0, found "
                      f"{own[without][0]:g}; a single point has none: use its error in pixels, or PCK")
    own = np.where(own > 0, own, 1.0)  # of an object without points, which is neither found nor missed
    return match_similar(pair, *_similar_pairs(pair, found, true, own, _sigmas(pair, skeleton)), thresholds)


def _sigmas(pair: Pair, skeleton: Skeleton) -> np.ndarray:
    """The sigmas of each class's points, `(labels, K)`, NaN where it has fewer."""
    most = max(len(skeleton.names(label)) for label in skeleton.labels)
    own = [skeleton.sigmas(label) for label in pair.labels]
    return np.array([[*sigmas, *[np.nan] * (most - len(sigmas))] for sigmas in own]).reshape(-1, most)


def _similar_pairs(
    pair: Pair, found: np.ndarray, true: np.ndarray, areas: np.ndarray, sigmas: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the answer and the truth of one image and class, and their OKS."""
    kept = []
    for box, target in candidate_pairs(pair):
        similarity = object_similarity(found[box][..., :2], true[target], areas[target],
                                       sigmas[pair.truth.label[target]], pair.truth.xyxy[target])
        kept.append((box, target, similarity))
    box, target, similarity = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return box, target, similarity


def evaluate_oks(
    truth: tuple[pd.DataFrame, pd.DataFrame], answer: tuple[pd.DataFrame, pd.DataFrame], skeleton: Skeleton,
    areas: Mapping[int, float] | pd.Series | None = None, thresholds: Sequence[float] = tuple(COCO_IOUS),
) -> Score:
    """COCO's AP of poses: the mean over OKS .5, .55 ... .95, or over other `thresholds`; see `match_poses`.

    Raises BadData for an object without an area.
    """
    each = [_per_class(matches) for matches in match_poses(truth, answer, skeleton, thresholds, areas)]
    per_class = each[0].assign(ap=np.mean([table["ap"] for table in each], axis=0))
    known = per_class["ap"].dropna()
    return Score(float(known.mean()) if len(known) else 0.0, per_class)


def _per_class(matches: Matches) -> pd.DataFrame:
    bounds, n_truth = np.searchsorted(matches.label, np.arange(len(matches.labels) + 1)), matches.n_truth.sum(axis=0)
    ap = [interpolated_precision(matches.is_true[bounds[k] : bounds[k + 1]], n) for k, n in enumerate(n_truth)]
    return pd.DataFrame({"ap": ap, "n_truth": n_truth}, index=pd.Index(matches.labels, name="label"))


def estimate_sigmas(first: np.ndarray, second: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """The sigma of each point from labels of two annotators: `(K,)`, NaN for a point that they never both labelled.

    `first` and `second` `(N, K, 3)` of the same objects, x, y and visibility. sigma² is half the mean squared distance
    over the area: two annotators are twice as far apart in squares as each is from the place itself.

    >>> first = np.array([[[10.0, 10.0, 2]], [[20.0, 20.0, 2]]])
    >>> estimate_sigmas(first, first + [3.0, 4.0, 0.0], np.array([2500.0, 2500.0])).round(4)
    array([0.0707])
    """
    both = (first[..., 2] > 0) & (second[..., 2] > 0)
    squared = ((first[..., :2] - second[..., :2]) ** 2).sum(-1) / areas[:, None]
    n_both = both.sum(0)
    return np.sqrt(np.where(n_both > 0, (squared * both).sum(0) / np.maximum(n_both, 1), np.nan) / 2)
