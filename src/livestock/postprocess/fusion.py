"""Boxes of several passes made one answer: pooled and suppressed, fused, or softly suppressed (ensemble-boxes)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..tables import XYXY, first_box_id, make_boxes
from .suppression import check_thresholds


def fuse(
    members: Sequence[pd.DataFrame],
    images: pd.DataFrame,
    method: str,
    *,
    iou_threshold: float = 0.6,
    conf_threshold: float = 0.001,
    max_det: int = 300,
) -> pd.DataFrame:
    """Boxes that mean the same animal in several passes, each already suppressed, become one box.

    `wbf`: weighted boxes fusion (Solovyev et al. 2021), corners averaged by confidence, confidence lowered where passes
    are missing. `nmw`: non-maximum weighted (Zhou et al. 2017), corners averaged by confidence and overlap with the
    most confident box, whose confidence is kept. All passes weigh the same. Returns a boxes table by image and falling
    confidence. A fused box is a new box: its `box_id` follows from the method, the IoU and the ids of all boxes that
    were fused in its image, so that another fusion has other ids.

    Raises ValueError for an unknown method, a threshold out of range and a box in none of the `images`.

    >>> from livestock.tables import make_boxes
    >>> images = pd.DataFrame({"image_id": ["a.jpg"], "width": [100], "height": [100]})
    >>> boxes = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 20, "y_max": 20,
    ...                      "confidence": 0.5}])
    >>> fuse([boxes, boxes.assign(x_max=18.0)], images, "wbf")[XYXY].round(3).to_numpy().tolist()  # the mean of both
    [[0.0, 0.0, 19.0, 20.0]]
    """
    from ensemble_boxes import non_maximum_weighted, weighted_boxes_fusion

    methods: dict[str, Callable[..., Any]] = {"wbf": weighted_boxes_fusion, "nmw": non_maximum_weighted}
    if method not in methods:
        raise ValueError(f"method: expected one of {sorted(methods)}, found {method!r}")
    check_thresholds(iou_threshold, conf_threshold, max_det)
    labels = sorted(set().union(*(set(boxes["label"]) for boxes in members)))
    class_of = {label: class_id for class_id, label in enumerate(labels)}
    found = []
    for image_id, size, parts in _by_image(members, images, conf_threshold):
        corners, confidence, class_ids = methods[method](
            [part.corners / size for part in parts],
            [part.confidence for part in parts],
            [[class_of[label] for label in part.labels] for part in parts],
            iou_thr=iou_threshold,
            skip_box_thr=0.0,
        )
        names = [labels[int(class_id)] for class_id in class_ids]
        origin = f"{method} {iou_threshold} {_digest(parts)}"
        box_ids = first_box_id(image_id, origin) + np.arange(len(names))
        corners = np.clip(corners, 0, 1) * size  # float32 inside
        found.append(_most_confident(_Found(image_id, box_ids, np.array(names, object), corners, confidence), max_det))
    return _to_table(found)


def soft_suppress(
    candidates: pd.DataFrame, images: pd.DataFrame, *, sigma: float = 0.5, conf_threshold: float = 0.001,
    max_det: int = 300,
) -> pd.DataFrame:
    """Soft-NMS (Bodla et al. 2017): multiplies the confidence of overlapping boxes by `exp(-iou² / sigma)`.

    ensemble-boxes' own `soft_nms` gives the confidences back as they came in, so its inner function is called, which
    lowers them in place. Returns a boxes table by image and falling confidence, in which each box keeps its
    `box_id`. Raises ValueError for a sigma that is not above 0 and a box in none of the `images`.

    >>> from livestock.tables import make_boxes
    >>> images = pd.DataFrame({"image_id": ["a.jpg"], "width": [100], "height": [100]})
    >>> boxes = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 20, "y_max": y_max,
    ...                      "confidence": confidence} for y_max, confidence in ((20, 0.9), (10, 0.8))])
    >>> soft_suppress(boxes, images, sigma=0.5)["confidence"].round(3).tolist()  # 0.9, and 0.8 exp(-0.5² / 0.5)
    [0.9, 0.485]
    """
    from ensemble_boxes.ensemble_boxes_nms import cpu_soft_nms_float

    if not sigma > 0:
        raise ValueError(f"sigma: expected a number above 0, found {sigma!r}")
    check_thresholds(0, conf_threshold, max_det)
    found = []
    for image_id, _, (boxes,) in _by_image([candidates], images, conf_threshold):
        rows, softened = [], []
        for label in sorted(set(boxes.labels)):
            same = np.flatnonzero(boxes.labels == label)
            corners, confidence = boxes.corners[same], boxes.confidence[same]
            order = cpu_soft_nms_float(corners, confidence, Nt=0.0, sigma=sigma, thresh=conf_threshold, method=2)
            rows.append(same[order])
            softened.append(confidence[confidence > conf_threshold])
        kept = np.concatenate(rows)
        found.append(_most_confident(_Found(image_id, boxes.box_ids[kept], boxes.labels[kept], boxes.corners[kept],
                                            np.concatenate(softened)), max_det))
    return _to_table(found)


class _Found(NamedTuple):
    """An image's boxes: numbers, labels, corners `(N, 4)` and confidences. Arrays: a table an image takes most time."""

    image_id: str
    box_ids: np.ndarray
    labels: np.ndarray
    corners: np.ndarray
    confidence: np.ndarray


def _by_image(
    members: Sequence[pd.DataFrame], images: pd.DataFrame, conf_threshold: float
) -> Iterator[tuple[str, np.ndarray, list[_Found]]]:
    """Each image that has a box, the size that its corners are divided by, and every member's boxes in it."""
    sizes = dict(zip(images["image_id"], images[["width", "height"]].to_numpy(float), strict=True))
    above = [boxes[boxes["confidence"] > conf_threshold] for boxes in members]
    groups = [boxes.groupby("image_id", sort=False).indices for boxes in above]
    columns = [(boxes["box_id"].to_numpy(), boxes["label"].to_numpy(object), boxes[XYXY].to_numpy(),
                boxes["confidence"].to_numpy()) for boxes in above]
    for image_id in sorted(set().union(*groups)):
        if image_id not in sizes:
            raise ValueError(f"images: expected {image_id!r}, which has boxes, among them")
        rows = [group.get(image_id, np.zeros(0, np.int64)) for group in groups]
        yield image_id, np.tile(sizes[image_id], 2), [
            _Found(image_id, *(column[own] for column in member)) for own, member in zip(rows, columns, strict=True)]


def _digest(parts: Sequence[_Found]) -> str:
    """A hash of the boxes' numbers, member by member."""
    numbers = [part.box_ids.astype(np.int64) for part in parts]
    sizes = np.array([len(own) for own in numbers], np.int64)
    return hashlib.blake2b(np.concatenate([sizes, *numbers]).tobytes(), digest_size=16).hexdigest()


def _most_confident(found: _Found, max_det: int) -> _Found:
    order = np.argsort(-found.confidence, kind="stable")[:max_det]
    return _Found(found.image_id, *(column[order] for column in found[1:]))


def _to_table(found: Sequence[_Found]) -> pd.DataFrame:
    if not found:
        return make_boxes([])
    table = pd.DataFrame(np.concatenate([boxes.corners for boxes in found]), columns=XYXY)
    n_boxes = [len(boxes.confidence) for boxes in found]
    return make_boxes(table.assign(
        image_id=np.repeat(np.array([boxes.image_id for boxes in found], object), n_boxes),
        box_id=np.concatenate([boxes.box_ids for boxes in found]),
        label=np.concatenate([boxes.labels for boxes in found]),
        confidence=np.concatenate([boxes.confidence for boxes in found]), source="model",
    ))
