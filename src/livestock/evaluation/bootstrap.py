"""Intervals of a score: over resampled images with their matches kept (paired bootstrap), and over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from .matching import Matches

VALUES_AT_ONCE = 20_000  # of small tables many resamples go at once; one of a large table fills the cache by itself


def resample(matches: Matches, images: pd.Index, counts: np.ndarray) -> np.ndarray:
    """mAP of each resample of images: `(n_resamples,)`.

    `counts` is `(n_resamples, len(images))`: how often each image is drawn.

    Matches stay as they are, for boxes are matched within their image: an image drawn twice counts twice. The mean is
    over the classes with truth in a resample. `images` must hold all that the matches name.

    >>> from livestock.evaluation import match_usual
    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": name, "label": "pig", "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}
    ...                     for name in ("a.jpg", "b.jpg")])
    >>> matches = match_usual(truth, truth[:1], 0.75)  # found in a.jpg, missed in b.jpg
    >>> resample(matches, pd.Index(["a.jpg", "b.jpg"]), np.array([[1, 1], [2, 0], [0, 2]])).tolist()
    [0.5, 1.0, 0.0]
    """
    aps = resample_classes(matches, images, counts)
    known = np.isfinite(aps)
    return np.where(known, aps, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def resample_classes(matches: Matches, images: pd.Index, counts: np.ndarray) -> np.ndarray:
    """AP of each class of `matches.labels` in each resample, `(n_resamples, n_labels)`; arguments as in `resample`.

    NaN where a resample has no truth of the class.

    >>> from livestock.evaluation import match_usual
    >>> from livestock.tables import make_boxes
    >>> truth = make_boxes([{"image_id": name, "label": label, "x_min": 0, "y_min": 0, "x_max": 10, "y_max": 10}
    ...                     for name, label in (("a.jpg", "pig"), ("b.jpg", "cow"))])
    >>> matches = match_usual(truth, truth, 0.75)
    >>> resample_classes(matches, pd.Index(["a.jpg", "b.jpg"]), np.array([[1, 1], [2, 0]])).tolist()  # cow, pig
    [[1.0, 1.0], [nan, 1.0]]
    """
    where = images.get_indexer(matches.images)
    if (where < 0).any():
        raise ValueError(f"images: {matches.images[where < 0][0]!r} is judged, but not among those to resample")
    # `matches` are sorted by class, so each class is a slice.
    drawn, bounds = counts[:, where], np.searchsorted(matches.label, np.arange(len(matches.labels) + 1))
    n_truth, result = drawn @ matches.n_truth, np.full((len(counts), len(matches.labels)), np.nan)
    for class_id in range(len(matches.labels)):
        mine = slice(bounds[class_id], bounds[class_id + 1])
        image, is_true = matches.image[mine], np.flatnonzero(matches.is_true[mine])
        known = np.flatnonzero(n_truth[:, class_id])
        for rows in np.array_split(known, -(-len(known) * max(len(image), 1) // VALUES_AT_ONCE) or 1):
            weight = drawn[rows].take(image, axis=1)
            found = weight.take(is_true, axis=1)
            # The precision after a true box drawn n times; its n copies have no other boxes between them.
            precision = np.cumsum(found, axis=1) / np.maximum(np.cumsum(weight, axis=1).take(is_true, axis=1), 1)
            envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            result[rows, class_id] = (envelope * found).sum(axis=1) / n_truth[rows, class_id]
    return result


def draw_counts(rng: np.random.Generator, n_images: int, n_resamples: int) -> np.ndarray:
    """How often each image is drawn in each bootstrap resample (Efron 1979): `(n_resamples, n_images)`.

    >>> counts = draw_counts(np.random.default_rng(0), n_images=4, n_resamples=2)
    >>> counts.sum(axis=1).tolist()  # each resample draws four images
    [4, 4]
    """
    return rng.multinomial(n_images, np.full(n_images, 1 / max(n_images, 1)), size=n_resamples)


def draw_group_counts(rng: np.random.Generator, groups: np.ndarray, n_resamples: int) -> np.ndarray:
    """As `draw_counts`, but images of one group, `(n_images,)`, are drawn together; -1 means no group.

    Frames of one camera are wrong together: drawn one by one they would make an interval too narrow (cluster bootstrap,
    Davison and Hinkley 1997, section 3.8).

    >>> counts = draw_group_counts(np.random.default_rng(0), np.array([7, 7, -1]), n_resamples=50)
    >>> bool((counts[:, 0] == counts[:, 1]).all()), bool((counts[:, 0] == counts[:, 2]).all())
    (True, False)
    """
    # An image without a group gets a negative number of its own, which no group has.
    alone = np.where(groups >= 0, groups, -1 - np.arange(len(groups)))
    names, codes = np.unique(alone, return_inverse=True)
    return draw_counts(rng, len(names), n_resamples)[:, codes]


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled values.

    >>> tuple(round(bound, 3) for bound in interval(np.linspace(0, 1, 101)))
    (0.025, 0.975)
    """
    tail = (1 - level) / 2
    return float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))


def mean_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """The mean of a few values, one a seed, and its interval by Student's t; NaN for the bounds of a single value.

    >>> tuple(round(value, 3) for value in mean_interval(np.array([0.50, 0.52, 0.54])))
    (0.52, 0.47, 0.57)
    """
    mean = float(np.mean(values)) if len(values) else float("nan")
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = stdtrit(len(values) - 1, (1 + level) / 2) * np.std(values, ddof=1) / np.sqrt(len(values))
    return mean, float(mean - half), float(mean + half)
