"""What two sets of labels of the same images differ in, box by box."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ...geometry import pairwise_iou
from ...tables import XYXY

SAME_PX = 0.5  # corners that differ by at most this have not been moved: the tools round what they write
SAME_IOU = 0.5  # from which two boxes are of one object
KINDS = ["unchanged", "moved", "class changed", "added", "removed"]
COLUMNS = ["image_id", "kind", "before", "after", "label_before", "label_after"]


def compare_labels(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Every box of two boxes tables of the same images, with what became of it.

    Columns `image_id`, `kind` (one of `KINDS`), `before` and `after` (positions of the rows in the two tables, -1 for
    none), `label_before` and `label_after` ("" for none). Within an image boxes are paired in three rounds, each box
    once, the closest pairs first:

    1. `unchanged`: one class, and no corner differs by more than `SAME_PX`.
    2. `moved`: one class, IoU from `SAME_IOU` on.
    3. `class changed`: IoU from `SAME_IOU` on, wherever the corners are.

    What is left of `before` was `removed`, what is left of `after` was `added`: a box that was dragged to another
    place is one removed and one added.

    >>> from livestock.tables import make_boxes
    >>> before = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}])
    >>> compare_labels(before, before.assign(x_max=9.0))["kind"].tolist()
    ['moved']
    >>> compare_labels(before, before[:0])["kind"].tolist()
    ['removed']
    """
    rows: list[tuple[object, ...]] = []
    of_before, of_after = before.groupby("image_id").indices, after.groupby("image_id").indices
    labels = before["label"].to_numpy(), after["label"].to_numpy()
    none = np.zeros(0, int)
    for image_id in sorted(set(of_before) | set(of_after)):
        left, right = of_before.get(image_id, none), of_after.get(image_id, none)
        for kind, first, second in _pair_boxes(before.iloc[left], after.iloc[right]):
            row, other = (int(left[first]) if first >= 0 else -1), (int(right[second]) if second >= 0 else -1)
            rows.append((image_id, kind, row, other, labels[0][row] if row >= 0 else "",
                         labels[1][other] if other >= 0 else ""))
    return pd.DataFrame(rows, columns=COLUMNS)


def count_changes(changes: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """How many boxes of each class were added, removed, moved, given another class, or left as they were.

    A row a class; a box whose class changed counts in the row of its old class.
    """
    label = changes["label_before"].where(changes["label_before"] != "", changes["label_after"])
    counts = pd.crosstab(label, changes["kind"]) if len(changes) else pd.DataFrame()
    return counts.reindex(index=labels, columns=["added", "removed", "moved", "class changed", "unchanged"],
                          fill_value=0).rename_axis(index="class", columns=None)


def merge_labels(before: pd.DataFrame, after: pd.DataFrame, changes: pd.DataFrame) -> pd.DataFrame:
    """`after` with the exact corners of `before` where a box is unchanged, so that rounding by a tool changes nothing.

    A box that was moved or given another class keeps its `box_id`. The order is that of `before`, followed by what was
    added.
    """
    kept = changes[changes["kind"] == "unchanged"].sort_values("before")
    changed = changes[changes["kind"].isin(["moved", "class changed"])].sort_values("before")
    added = changes[changes["kind"] == "added"].sort_values("after")
    same = after.iloc[changed["after"]].assign(box_id=before["box_id"].to_numpy()[changed["before"]])
    tables = [before.iloc[kept["before"]], same, after.iloc[added["after"]]]
    place = [*kept["before"], *changed["before"], *(len(before) + added["after"])]
    merged = pd.concat(tables).assign(place=place)
    return merged.sort_values(["image_id", "place"]).drop(columns="place").reset_index(drop=True)


def find_same(boxes: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """Whether each row of a boxes table is in `others` too: image and class alike, corners within `SAME_PX`: `(N,)`.

    >>> boxes = pd.DataFrame([["a.jpg", "pig", 0.0, 0, 10, 10], ["a.jpg", "cow", 0.0, 0, 10, 10]],
    ...                      columns=["image_id", "label", *XYXY])
    >>> find_same(boxes, boxes[:1]).tolist()  # the other class at the same place is another box
    [True, False]
    """
    changes = compare_labels(boxes, others)
    found = np.zeros(len(boxes), bool)
    found[changes.loc[changes["kind"] == "unchanged", "before"]] = True
    return found


def _pair_boxes(before: pd.DataFrame, after: pd.DataFrame) -> Iterator[tuple[str, int, int]]:
    """Kind and positions of the pairs within one image, then what has no partner."""
    first, second = before[XYXY].to_numpy(float), after[XYXY].to_numpy(float)
    same_class = before["label"].to_numpy(object)[:, None] == after["label"].to_numpy(object)[None, :]
    distance = np.abs(first[:, None] - second[None]).max(axis=2, initial=0.0)
    iou = pairwise_iou(first, second)
    rounds = [("unchanged", same_class & (distance <= SAME_PX), -distance),
              ("moved", same_class & (iou >= SAME_IOU), iou),
              ("class changed", iou >= SAME_IOU, iou)]
    free_before, free_after = np.ones(len(first), bool), np.ones(len(second), bool)
    for kind, fits, score in rounds:
        pairs = np.argwhere(fits & free_before[:, None] & free_after[None, :])
        for row, other in pairs[np.argsort(-score[tuple(pairs.T)], kind="stable")]:
            if free_before[row] and free_after[other]:
                free_before[row] = free_after[other] = False
                yield kind, int(row), int(other)
    yield from (("removed", int(row), -1) for row in np.flatnonzero(free_before))
    yield from (("added", -1, int(other)) for other in np.flatnonzero(free_after))
