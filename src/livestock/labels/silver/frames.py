"""What people's labels in the other frames of a group say about a box: evidence that comes from no model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...evaluation.causes import RIGHT_IOU
from ...geometry import pairwise_iou
from ...tables import XYXY

CONFIRMED = 1 / 3  # of the other frames; animals lie and stand for a while, and people forget some in every frame


def share_of_frames(boxes: pd.DataFrame, gold: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    """The share of the other frames of a box's group with a human box of its class at its place: `(N,)` in 0..1.

    At its place: IoU of at least 0.5. `images` holds the groups; NaN for a box whose group has no other frame, for
    group -1, and for images that are not in `images`. Labels in the box's own frame do not count.

    >>> images = pd.DataFrame({"image_id": ["1.jpg", "2.jpg", "3.jpg"], "group": [0, 0, 0]})
    >>> box = pd.DataFrame([["1.jpg", "pig", 0.0, 0, 10, 10]], columns=["image_id", "label", *XYXY])
    >>> share_of_frames(box, box.assign(image_id="2.jpg"), images).tolist()  # labelled in one of the two other frames
    [0.5]
    """
    group = images.set_index("image_id")["group"]
    n_frames = group[group >= 0].value_counts()
    own = group.reindex(boxes["image_id"]).to_numpy(float)
    others = pd.Series(n_frames.reindex(own).to_numpy(float) - 1).where(lambda n: n >= 1).to_numpy()
    found = np.where(np.isnan(others), np.nan, 0.0)
    known = gold.sort_values("image_id", kind="stable")  # the boxes of a frame together
    frame_of, corners_of, corners = known["image_id"].to_numpy(), known[XYXY].to_numpy(), boxes[XYXY].to_numpy()
    of_group = known.groupby([group.reindex(frame_of).to_numpy(float), known["label"].to_numpy()]).indices
    keys = [np.where(np.isnan(others), np.nan, own), boxes["label"].to_numpy(), boxes["image_id"].to_numpy()]
    for (number, label, name), rows in boxes.groupby(keys).indices.items():
        elsewhere = of_group.get((number, label), np.empty(0, int))
        elsewhere = elsewhere[frame_of[elsewhere] != name]
        if len(elsewhere):
            hits = pairwise_iou(corners[rows], corners_of[elsewhere]) >= RIGHT_IOU
            frames = frame_of[elsewhere]
            starts = np.flatnonzero(np.append(True, frames[1:] != frames[:-1]))
            found[rows] = np.logical_or.reduceat(hits, starts, axis=1).sum(axis=1) / others[rows]
    return found


def is_confirmed(boxes: pd.DataFrame, gold: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    """Whether people labelled the class at a box's place in a third or more of the other frames of its group: `(N,)`.

    False where there are no other frames; see `share_of_frames`.

    >>> images = pd.DataFrame({"image_id": ["1.jpg", "2.jpg"], "group": [0, 0]})
    >>> box = pd.DataFrame([["1.jpg", "pig", 0.0, 0, 10, 10]], columns=["image_id", "label", *XYXY])
    >>> is_confirmed(box, box.assign(image_id="2.jpg"), images).tolist()
    [True]
    >>> is_confirmed(box, box, images).tolist()  # its own frame says nothing
    [False]
    """
    return share_of_frames(boxes, gold, images) >= CONFIRMED


def mirror(boxes: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The boxes where they would be in the mirrored image: places of the same size and height that say nothing.

    >>> images = pd.DataFrame({"image_id": ["1.jpg"], "width": [100]})
    >>> box = pd.DataFrame([["1.jpg", 10.0, 0.0, 30.0, 20.0]], columns=["image_id", *XYXY])
    >>> mirror(box, images)[XYXY].to_numpy().tolist()
    [[70.0, 0.0, 90.0, 20.0]]
    """
    width = images.set_index("image_id").loc[boxes["image_id"], "width"].to_numpy()
    return boxes.assign(x_min=width - boxes["x_max"].to_numpy(), x_max=width - boxes["x_min"].to_numpy())


def number_places(boxes: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    """The number of each box's place, `(N,)`: boxes of one class, group and place (IoU of at least 0.5) share one.

    Something that a model takes for an animal in each frame of a still camera is one mistake, not one a frame.

    >>> images = pd.DataFrame({"image_id": ["1.jpg", "2.jpg"], "group": [0, 0]})
    >>> rows = [["1.jpg", "pig", 0.9, 0.0, 0, 10, 10], ["2.jpg", "pig", 0.8, 1.0, 0, 11, 10],
    ...         ["2.jpg", "pig", 0.7, 50.0, 50, 60, 60]]
    >>> boxes = pd.DataFrame(rows, columns=["image_id", "label", "confidence", *XYXY])
    >>> number_places(boxes, images).tolist()
    [0, 0, 1]
    """
    group = images.set_index("image_id")["group"].reindex(boxes["image_id"]).to_numpy()
    of = np.where(group >= 0, group.astype(str).astype(object), boxes["image_id"].to_numpy(object))
    places, n_places = np.full(len(boxes), -1), 0
    # The most confident box of a place comes first, and the others are compared with it, as in suppression.
    order = np.argsort(-boxes["confidence"].to_numpy(), kind="stable")
    for rows in boxes.iloc[order].groupby([of[order], boxes["label"].to_numpy()[order]]).indices.values():
        left = order[rows]
        while len(left):
            corners = boxes[XYXY].to_numpy()[left]
            here = pairwise_iou(corners[:1], corners)[0] >= RIGHT_IOU
            here[0] = True
            places[left[here]], n_places, left = n_places, n_places + 1, left[~here]
    return places
