"""What kind of mistake each box is, what each kind costs, and which labels are probably missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..data.bins import box_counts, count_bins, ratio_bins, size_bins
from ..geometry import pairwise_iou
from ..tables import BOX_COLUMNS, XYXY
from . import interpolated_precision, match_ground_truth

CAUSES = ["localisation", "class", "both", "duplicate", "background", "likely missing label", "missed"]
BACKGROUND_IOU = 0.1  # TIDE's t_b: a box that overlaps every true one by less lies on nothing
RIGHT_IOU = 0.5  # from which a box is taken to be of the same animal as another
COLUMNS = [*BOX_COLUMNS, "cause", "target", "iou", "row"]


def find_errors(
    truth: pd.DataFrame, boxes: pd.DataFrame, iou_threshold: float, suspects: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Every false box and every true box that was not found, each with one cause.

    One row an error: the columns of its boxes table, `cause`, `target`, the row of `truth` it is about (-1 for none),
    `iou`, its overlap with that, and `row`, which row of `boxes` it is (-1 for a true box that was not found). Both
    tables in pixels, of the same images; matched as `evaluation.evaluate` does.

    The causes of a false box are those of TIDE (Bolya, Foley, Hays and Hoffman, "TIDE: A General Toolbox for
    Identifying Object Detection Errors", ECCV 2020, section 2.2); where several apply, the first in the order of the
    authors' package, tidecv 1.0.1. With t_f = `iou_threshold` and t_b = 0.1:

    `localisation`: a true box of its class is overlapped by t_b or more, none by t_f. `class`: one of another class by
    t_f or more. `duplicate`: one of its class by t_f or more, which another box has found. `both`: one of another class
    by t_b or more. `background`: none by t_b; of these `likely missing label`, which TIDE does not set apart, overlaps
    one of `suspects` (see `find_suspects`). A true box that was not found is due to the most confident box that
    localisation or class made false on it, else `missed`.

    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}])
    >>> boxes = pd.concat([truth.assign(x_max=5.0), truth.assign(x_min=50.0, x_max=60.0)]).assign(source="model")
    >>> find_errors(truth, boxes, 0.75)[["source", "cause"]].to_numpy().tolist()  # the gold row is the missed animal
    [['model', 'localisation'], ['model', 'background'], ['gold', 'localisation']]
    """
    truth, boxes = truth.reset_index(drop=True), boxes.reset_index(drop=True)
    claimed = match_ground_truth(truth, boxes, iou_threshold)
    found = np.isin(np.arange(len(truth)), claimed)
    of_truth = dict(list(truth.groupby("image_id")))
    of_suspect = dict(list(suspects.groupby("image_id"))) if suspects is not None else {}
    tables = [
        _causes_in_image(own, of_truth.get(name, truth.iloc[:0]), of_suspect.get(name), iou_threshold)
        for name, own in boxes[claimed < 0].groupby("image_id")
    ]
    false = pd.concat(tables) if tables else boxes.iloc[:0].assign(cause="", target=0, iou=0.0)
    false = false.assign(row=false.index)
    cause = _most_confident(false)["cause"]
    misses = truth[~found].assign(target=np.flatnonzero(~found), iou=0.0, row=-1)
    misses = misses.assign(cause=misses["target"].map(cause).fillna("missed"))
    return pd.concat([false, misses], ignore_index=True)[COLUMNS]


def _most_confident(false: pd.DataFrame) -> pd.DataFrame:
    """Of the boxes that localisation or class made false on a true one the most confident, by `target`."""
    on_target = false[false["cause"].isin(["localisation", "class"])]
    falling = on_target.sort_values("confidence", ascending=False, kind="stable")
    return falling.drop_duplicates("target").set_index("target")


def _causes_in_image(
    boxes: pd.DataFrame, truth: pd.DataFrame, suspects: pd.DataFrame | None, iou_threshold: float
) -> pd.DataFrame:
    same, same_row = _best_overlap(boxes, truth, same_class=True)
    other, other_row = _best_overlap(boxes, truth, same_class=False)
    suspected = np.zeros(len(boxes), bool)
    if suspects is not None:
        suspected = _best_overlap(boxes, suspects, same_class=True)[0] >= RIGHT_IOU
    rules = {
        "localisation": (same >= BACKGROUND_IOU) & (same < iou_threshold),
        "class": other >= iou_threshold,
        "duplicate": same >= iou_threshold,  # and found by another box, or this one would not be false
        "both": other >= BACKGROUND_IOU,
        "likely missing label": suspected,
    }
    cause = np.select(list(rules.values()), list(rules), "background")
    about_other, about_same = np.isin(cause, ["class", "both"]), np.isin(cause, ["duplicate", "localisation"])
    target = np.select([about_other, about_same], [other_row, same_row], -1)
    return boxes.assign(cause=cause, target=target, iou=np.select([about_other, about_same], [other, same], 0.0))


def _best_overlap(boxes: pd.DataFrame, truth: pd.DataFrame, *, same_class: bool) -> tuple[np.ndarray, np.ndarray]:
    """The largest IoU of each box with a row of `truth` of its class, or of another, and that row's index or -1."""
    if truth.empty or boxes.empty:
        return np.zeros(len(boxes)), np.full(len(boxes), -1)
    iou = pairwise_iou(boxes[XYXY].to_numpy(), truth[XYXY].to_numpy())
    is_same = boxes["label"].to_numpy()[:, None] == truth["label"].to_numpy()
    iou = np.where(is_same == same_class, iou, 0.0)
    best = iou.argmax(axis=1)
    highest = iou[np.arange(len(iou)), best]
    return highest, np.where(highest > 0, truth.index.to_numpy()[best], -1)


def cost_of_causes(
    truth: pd.DataFrame, boxes: pd.DataFrame, errors: pd.DataFrame, iou_threshold: float
) -> pd.DataFrame:
    """What mAP would gain if all errors of a cause were corrected: a row a cause, `errors, sure, gain`.

    TIDE's dAP (section 2.3), and the numbers of tidecv 1.0.1 divided by 100: a true box that localisation or class cost
    is found by the most confident box that either made false on it, if its cause is the one corrected; all other false
    boxes of the cause go; missed true boxes no longer count. AP is COCO's, the mean of the envelope at 101 recalls,
    and no gain is below 0. Classes without a true box are left out of the mean, where tidecv counts them as 0; all
    boxes of an image count, where tidecv takes the first 100.

    `sure` counts false boxes of a confidence from 0.25, and misses. `errors` is what `find_errors` gave for these
    tables.
    """
    labels = sorted(truth["label"].dropna().unique())
    n_truth = truth["label"].value_counts().reindex(labels).to_numpy()
    confidence, label = boxes["confidence"].to_numpy(), boxes["label"].to_numpy(object)
    is_true = match_ground_truth(truth, boxes, iou_threshold) >= 0
    before, rows = _mean_precision(labels, n_truth, label, confidence, is_true), {}
    is_miss = (errors["row"] < 0).to_numpy()
    finders = _most_confident(errors[~is_miss])
    finders = finders[finders.index.isin(errors.loc[is_miss, "target"])]  # else another box has found the true one
    for cause in CAUSES:
        own = errors[errors["cause"] == cause]
        keep, right, as_label, left = np.ones(len(boxes), bool), is_true.copy(), label.copy(), n_truth
        if cause == "missed":
            left = n_truth - own["label"].value_counts().reindex(labels, fill_value=0).to_numpy()
        else:
            keep[own.loc[own["row"] >= 0, "row"]] = False
            fixed = finders[finders["cause"] == cause]
            keep[fixed["row"]], right[fixed["row"]] = True, True
            as_label[fixed["row"]] = truth["label"].to_numpy(object)[fixed.index]
        after = _mean_precision(labels, left, as_label[keep], confidence[keep], right[keep])
        sure = (own["row"] < 0) | (own["confidence"] >= 0.25)
        rows[cause] = {"errors": len(own), "sure": int(sure.sum()), "gain": max(after - before, 0.0)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cause")


def _mean_precision(
    labels: Sequence[str], n_truth: np.ndarray, label: np.ndarray, confidence: np.ndarray, is_true: np.ndarray
) -> float:
    """COCO's AP at one IoU from flags, mean over classes; one with false boxes and no true one left counts as 0."""
    found, order = [], np.argsort(-confidence, kind="stable")
    for name, n in zip(labels, n_truth, strict=True):
        flags = is_true[order][label[order] == name]
        if n or len(flags):
            found.append(interpolated_precision(flags, n) if n else 0.0)
    return float(np.mean(found)) if found else 0.0


def error_rates(
    images: pd.DataFrame, truth: pd.DataFrame, errors: pd.DataFrame, bounds: dict[str, list[int]],
    conf_threshold: float = 0.25,
) -> pd.DataFrame:
    """Where the model errs: a row a class and bin of `size`, `ratio`, `count`, `place` and `group`.

    Columns `what, bin, label, n_truth, missed, false`: true boxes, the share of them not found, and false boxes from
    `conf_threshold` for each true one. A false box has the bin of its own shape and place. `place` is the third of the
    image in which a box ends below: `far`, `middle`, `near`. `group`: images that look alike or belong together, the
    twelve largest by true boxes. `bounds` as `bins.count_bounds` gives them.
    """
    sure = errors[(errors["source"] == "gold") | (errors["confidence"] >= conf_threshold)]
    sides = [_with_bins(table, images, truth, bounds) for table in (truth, sure)]
    rows = []
    for what in ("size", "ratio", "count", "place", "group"):
        true, wrong = (side.groupby([what, "label", "is_miss"], observed=True).size() for side in sides)
        for (name, label), n_truth in true.groupby(level=[0, 1], observed=True).sum().items():
            missed, false = wrong.get((name, label, True), 0), wrong.get((name, label, False), 0)
            rows.append({"what": what, "bin": str(name), "label": label, "n_truth": int(n_truth),
                         "missed": missed / n_truth, "false": false / n_truth})
    return pd.DataFrame(rows)


def _with_bins(
    boxes: pd.DataFrame, images: pd.DataFrame, truth: pd.DataFrame, bounds: dict[str, list[int]]
) -> pd.DataFrame:
    of_image = images.set_index("image_id").loc[boxes["image_id"]]
    counts = box_counts(images, truth, list(bounds))
    by_count = {label: count_bins(counts[label], own).astype(str) for label, own in bounds.items()}
    depth = boxes["y_max"].to_numpy() / of_image["height"].to_numpy()
    largest = truth["image_id"].map(images.set_index("image_id")["group"]).value_counts().index[:12]
    group = of_image["group"].to_numpy()
    return boxes.assign(
        is_miss=boxes["source"] == "gold",
        size=size_bins(boxes).astype(str),
        ratio=ratio_bins(boxes).astype(str),
        count=[by_count[label][image_id] for label, image_id in zip(boxes["label"], boxes["image_id"], strict=True)],
        place=np.select([depth < 1 / 3, depth < 2 / 3], ["far", "middle"], "near"),
        group=np.where(np.isin(group, largest), group.astype(str), "other"),
    )
