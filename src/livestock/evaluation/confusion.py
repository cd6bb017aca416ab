"""Which errors matter: the confidence at the F1 optimum, classes that are confused, errors by group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .matching import Matches, match_ground_truth

MISSED, BACKGROUND = "missed", "background"
SAME_OBJECT_IOU = 0.5  # from which a box is taken to be of the same animal, whatever its class
CUTS = np.linspace(0.001, 1, 1000)


def f1_threshold(matches: Matches) -> float:
    """The confidence from which boxes count where F1, averaged over the classes with truth, is highest.

    F1 is 2 TP / (boxes + true boxes), at each of 1,000 cuts from 0.001 to 1; of equal ones the lowest cut. 0.001, which
    leaves out nothing that was predicted, where no box is right.

    >>> f1_threshold(Matches(pd.Index(["a"]), ["pig"], np.array([[1]]), np.zeros(2, int), np.zeros(2, int),
    ...                      np.array([0.9, 0.2]), np.array([True, False])))
    0.201
    """
    n_truth, totals = matches.n_truth.sum(axis=0), np.zeros(len(CUTS))
    for class_id in np.flatnonzero(n_truth):
        mine = matches.label == class_id
        falling, found = matches.confidence[mine], np.cumsum(matches.is_true[mine])
        n_boxes = np.searchsorted(-falling, -CUTS, side="right")
        n_right = np.concatenate([[0], found])[n_boxes]
        totals += 2 * n_right / (n_boxes + n_truth[class_id])
    return round(float(CUTS[totals.argmax()]), 3)


def confusion_matrix(
    truth: pd.DataFrame, boxes: pd.DataFrame, labels: Sequence[str], iou_threshold: float = SAME_OBJECT_IOU
) -> pd.DataFrame:
    """Counts of true classes (rows) by predicted ones (columns).

    Boxes are matched with the truth whatever their class, by falling confidence, each with the free true box that it
    overlaps most, by `iou_threshold` or more. The last row, `background`, holds boxes that match nothing, second boxes
    on one animal included; the last column, `missed`, true boxes that nothing matches. Boxes below a confidence are
    left out by the caller. Both tables in pixels, of the same images.
    """
    n, ids = len(labels), {label: index for index, label in enumerate(labels)}
    one = [table.assign(label="any") for table in (truth, boxes)]
    claimed = match_ground_truth(one[0], one[1], iou_threshold) if len(truth) else np.full(len(boxes), -1)
    true, predicted = (table["label"].map(ids).to_numpy(int) for table in (truth, boxes))
    table = np.zeros((n + 1, n + 1), int)
    np.add.at(table, (np.where(claimed >= 0, true[claimed] if len(true) else n, n), predicted), 1)
    np.add.at(table, (true[~np.isin(np.arange(len(true)), claimed)], n), 1)
    return pd.DataFrame(table, [*labels, BACKGROUND], [*labels, MISSED]).rename_axis(index="true", columns="predicted")


def group_errors(images: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    """Errors by group of near-duplicates, most errors for each true box first.

    Columns `name, images, n_truth, errors, rate, image_id`, of which the last is the group's image with most errors;
    `rate` is errors for each true box, NaN without one. An image without a group (-1) is a group of its own, by its
    name. `errors` of `image_errors`.
    """
    group = images.set_index("image_id")["group"]
    name = group.astype(str).where(group >= 0, group.index.to_series())
    own = errors.assign(name=name.reindex(errors.index)).rename_axis("image_id").reset_index()
    own = own.sort_values("errors", ascending=False, kind="stable")
    table = own.groupby("name", sort=False).agg(images=("image_id", "size"), n_truth=("n_truth", "sum"),
                                                errors=("errors", "sum"), image_id=("image_id", "first"))
    table.insert(3, "rate", (table["errors"] / table["n_truth"]).where(table["n_truth"] > 0))
    return table.reset_index().sort_values("rate", ascending=False, kind="stable", ignore_index=True)
