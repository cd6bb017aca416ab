"""Errors of keypoints in pixels of the original image: what no loss here is trained on, so what models are ranked by.

A point that is not labelled is no error and no success. One that is labelled and was not found is counted as missed;
it is wrong in the share of correct keypoints (PCK), and in no mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..exceptions import BadData
from ..tables import XYXY, make_keypoints
from .bootstrap import draw_group_counts, interval
from .matching import match_ground_truth

SHARE = 0.05  # of an object's length, such as the diagonal of its box, within which a point is right
GROSS = 25.0  # pixels: an error beyond it found another place altogether
KEY = ["box_id", "keypoint"]


def find_errors(truth: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """A row for each labelled point of a keypoints table: `image_id, box_id, keypoint, visible, error, confidence`.

    `found` has the points of the same objects, by `box_id`; `error` is the distance in pixels, NaN where a point is
    missed. Raises BadData for a point that is found twice.

    >>> from livestock.tables import make_keypoints
    >>> point = {"box_id": 1, "image_id": "a.jpg", "keypoint": "nose", "x": 10.0, "y": 10.0}
    >>> truth = make_keypoints([point, {**point, "keypoint": "tail"}])
    >>> find_errors(truth, make_keypoints([{**point, "x": 13.0, "y": 14.0}]))["error"].tolist()
    [5.0, nan]
    """
    if (twice := found[found.duplicated(KEY)]).size:
        raise BadData(f"keypoints: expected each point of an object once, found {twice['keypoint'].iloc[0]!r} of box "
                      f"{twice['box_id'].iloc[0]} in {twice['image_id'].iloc[0]} a second time")
    labelled = truth.loc[truth["visible"] > 0, ["image_id", *KEY, "visible", "x", "y"]]
    both = labelled.merge(found[[*KEY, "x", "y", "confidence"]], how="left", on=KEY, suffixes=("", "_found"))
    error = np.hypot(both["x_found"] - both["x"], both["y_found"] - both["y"])
    return both.assign(error=error)[["image_id", *KEY, "visible", "error", "confidence"]]


def as_true_objects(
    truth: pd.DataFrame, boxes: pd.DataFrame, keypoints: pd.DataFrame, iou_threshold: float = 0.5
) -> pd.DataFrame:
    """The found `keypoints` of those `boxes` that match a true one, under its `box_id`; the others are left out.

    Boxes are matched by falling confidence at this IoU, as `matching.match_usual`.
    """
    matched = match_ground_truth(truth, boxes, iou_threshold)
    is_true = matched >= 0
    names = pd.Series(truth["box_id"].to_numpy()[matched[is_true]], index=boxes["box_id"].to_numpy()[is_true])
    own = keypoints[keypoints["box_id"].isin(names.index)]
    return own.assign(box_id=own["box_id"].map(names).astype(np.int64)).reset_index(drop=True)


def summarise_errors(errors: pd.DataFrame, by: str | Sequence[str] = (), gross: float = GROSS) -> pd.DataFrame:
    """Errors in pixels, a row a group of `by`, such as `keypoint` or `visible`, or one row of all.

    Columns: `n` labelled points, `missed` of them, then of those found `mean`, `median`, `sd`, `min`, `max`, `q95`
    (95 % lie below) and `gross`, the share beyond so many pixels.

    >>> errors = pd.DataFrame({"keypoint": ["nose"] * 3, "error": [1.0, 2.0, 60.0]})
    >>> summarise_errors(errors)[["n", "mean", "median", "gross"]].round(2).to_numpy().tolist()
    [[3.0, 21.0, 2.0, 0.33]]
    """
    names = [by] if isinstance(by, str) else list(by)
    groups = errors.groupby(names, sort=False) if names else errors.groupby(lambda _: "all points")
    return groups["error"].agg(
        n="size", missed=lambda values: values.isna().sum(), mean="mean", median="median", sd="std", min="min",
        max="max", q95=lambda values: values.quantile(0.95),
        gross=lambda values: (values.dropna() > gross).mean())


def find_lengths(
    boxes: pd.DataFrame, keypoints: pd.DataFrame | None = None, between: tuple[str, str] | None = None
) -> pd.Series:
    """A length in pixels for each object, by `box_id`, against which its errors are small or large.

    The diagonal of its box, or the distance `between` two of its labelled keypoints, NaN where one is not labelled.

    >>> boxes = pd.DataFrame({"box_id": [7], "x_min": [0.0], "y_min": [0.0], "x_max": [30.0], "y_max": [40.0]})
    >>> find_lengths(boxes).to_dict()
    {7: 50.0}
    """
    if keypoints is None or between is None:
        corners = boxes[XYXY].to_numpy(float)
        return pd.Series(np.hypot(*(corners[:, 2:] - corners[:, :2]).T), index=boxes["box_id"].to_numpy())
    known = set(keypoints["keypoint"])
    if missing := [name for name in between if name not in known]:
        raise BadData(f"length: expected two keypoints of {sorted(known)}, found {missing[0]!r}")
    ends = [keypoints[(keypoints["keypoint"] == name) & (keypoints["visible"] > 0)].set_index("box_id")[["x", "y"]]
            for name in between]
    apart = (ends[0] - ends[1]).reindex(boxes["box_id"])
    return pd.Series(np.hypot(apart["x"], apart["y"]).to_numpy(), index=boxes["box_id"].to_numpy())


def correct_share(errors: pd.DataFrame, lengths: pd.Series, share: float = SHARE, by: str = "") -> pd.Series:
    """PCK: the share of labelled points that lie within `share` of their object's length; missed ones do not.

    By `keypoint` or `visible` or another column, or of all points. Points of an object without a length do not count.
    (Yang and Ramanan, TPAMI 2013, section 5: there the length is the longer side of the box.)

    >>> errors = pd.DataFrame({"box_id": [7, 7], "keypoint": ["nose", "tail"], "error": [2.0, np.nan]})
    >>> correct_share(errors, pd.Series({7: 50.0})).tolist(), correct_share(errors, pd.Series({7: 30.0})).tolist()
    ([0.5], [0.0])
    """
    length = errors["box_id"].map(lengths).to_numpy(float)
    judged = errors.assign(right=errors["error"].to_numpy(float) <= share * length)[np.isfinite(length)]
    groups = judged.groupby(by, sort=False) if by else judged.groupby(lambda _: "all points")
    return groups["right"].mean()


def normalised_mean_error(errors: pd.DataFrame, lengths: pd.Series) -> float:
    """NME: the mean of error over length, of points that were found and objects that have a length.

    >>> normalised_mean_error(pd.DataFrame({"box_id": [7], "error": [2.5]}), pd.Series({7: 50.0}))
    0.05
    """
    return float((errors["error"] / errors["box_id"].map(lengths)).mean())


def find_mean_pose(boxes: pd.DataFrame, keypoints: pd.DataFrame) -> pd.DataFrame:
    """Where each point lies on average: `label, keypoint, x, y`, x and y as shares of the box's width and height.

    What a guess that looks at no image is worth: to be beaten, and printed beside every result.
    """
    labelled = keypoints[keypoints["visible"] > 0]
    own = boxes.set_index("box_id").loc[labelled["box_id"]]
    shares = {axis: (labelled[axis].to_numpy() - own[f"{axis}_min"].to_numpy())
              / (own[f"{axis}_max"] - own[f"{axis}_min"]).to_numpy() for axis in "xy"}
    table = pd.DataFrame({"label": own["label"].to_numpy(), "keypoint": labelled["keypoint"].to_numpy(), **shares})
    return table.groupby(["label", "keypoint"], sort=False)[["x", "y"]].mean().reset_index()


def guess_mean_pose(pose: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """A keypoints table of source `model` that puts each point of `find_mean_pose` into each box, all alike."""
    both = boxes.drop(columns="confidence").merge(pose, on="label")
    places = {axis: both[f"{axis}_min"] + both[axis] * (both[f"{axis}_max"] - both[f"{axis}_min"]) for axis in "xy"}
    return make_keypoints(both[["box_id", "image_id", "keypoint"]].assign(
        **{axis: place.clip(lower=0) for axis, place in places.items()}, confidence=1.0, source="model"))


def calibration_table(errors: pd.DataFrame, tolerances: pd.Series | float, n_bins: int = 10) -> pd.DataFrame:
    """Whether confidences of points are chances: a row a bin, `confidence` (mean), `right` (share), `n`.

    Right is a point within `tolerances`: pixels, or pixels by `box_id`. Bins hold about as many points each; those that
    were not found have no confidence and are in none.
    """
    found = errors.dropna(subset=["error", "confidence"])
    limit = found["box_id"].map(tolerances) if isinstance(tolerances, pd.Series) else tolerances
    judged = found.assign(right=found["error"] <= limit).sort_values("confidence", kind="stable")
    bins = np.minimum(np.arange(len(judged)) * n_bins // max(len(judged), 1), n_bins - 1)
    return judged.groupby(bins).agg(confidence=("confidence", "mean"), right=("right", "mean"), n=("right", "size"))


def calibration_error(table: pd.DataFrame) -> float:
    """The mean distance of confidence and share over the points of a `calibration_table` (Guo et al., ICML 2017).

    >>> calibration_error(pd.DataFrame({"confidence": [0.5, 0.9], "right": [0.5, 0.5], "n": [10, 30]})).__round__(3)
    0.3
    """
    return float(np.average((table["confidence"] - table["right"]).abs(), weights=table["n"])) if len(table) else np.nan


def mean_error_interval(
    errors: pd.DataFrame, images: pd.DataFrame, other: pd.DataFrame | None = None, *, seed: int = 0,
    n_resamples: int = 1000,
) -> tuple[float, float, float]:
    """The mean error and its 95 % interval over groups of images; with `other` of `other` less `errors`, pairwise.

    Groups are drawn again with replacement (cluster bootstrap); a pair counts where both have found the point. NaN
    bounds for fewer than two groups. Positive: `errors` are smaller than `other`'s.
    """
    value = errors.set_index(KEY)["error"]
    values = value if other is None else other.set_index(KEY)["error"].reindex(value.index) - value
    counts = draw_group_counts(np.random.default_rng(seed), images["group"].to_numpy(), n_resamples)
    drawn = resample_mean(errors["image_id"], values, images["image_id"], counts)
    drawn = drawn[np.isfinite(drawn)]
    own_groups = images.loc[images["image_id"].isin(errors["image_id"][values.notna().to_numpy()]), "group"]
    n_groups = own_groups[own_groups >= 0].nunique() + int((own_groups < 0).sum())
    low, high = interval(drawn) if n_groups > 1 else (float("nan"), float("nan"))
    return float(values.mean()), low, high


def resample_mean(image_ids: pd.Series, values: pd.Series, images: pd.Series, counts: np.ndarray) -> np.ndarray:
    """The mean of values, one a point, in each resample of `images`, `(n_resamples,)`; NaN where it has none.

    `image_ids` are those of the values; `counts` `(n_resamples, len(images))` is how often each image is drawn.

    >>> names, values = pd.Series(["a", "a", "b"]), pd.Series([1.0, 3.0, 8.0])
    >>> resample_mean(names, values, pd.Series(["a", "b"]), np.array([[1, 1], [2, 0]])).tolist()
    [4.0, 2.0]
    """
    table = pd.DataFrame({"image_id": image_ids.to_numpy(), "value": values.to_numpy(float)}).dropna()
    per_image = table.groupby("image_id")["value"].agg(["sum", "size"]).reindex(images).fillna(0)
    total, n_points = counts @ per_image["sum"].to_numpy(), counts @ per_image["size"].to_numpy()
    return np.divide(total, n_points, out=np.full(len(counts), np.nan), where=n_points > 0)
