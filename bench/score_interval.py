"""How often the interval that `livestock score A B` prints holds the true difference, which is 0 here.

python bench/score_interval.py [runs]     400 take a minute

Two answers are drawn from one distribution: in each group of images both find animals more or less easily, and each of
them is better or worse by chance there. Printed is the share of runs whose 95 % interval holds 0, with the binomial
interval of that share: over single images (what is printed without --images), over groups by the percentile bootstrap,
and over groups by Student's t (what is printed with --images or --group-pattern).
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from scipy.stats import beta

from livestock.cli.score import _group_interval
from livestock.evaluation import Matches, draw_counts, draw_group_counts, interval, resample, score

SETTINGS = {"9 even groups": [6] * 9, "9 groups, one of 61 %": [33, 3, 3, 3, 3, 2, 2, 3, 2], "30 even groups": [3] * 30,
            "60 images, each its own group": [1] * 60}
N_RESAMPLES, N_TRUTH = 200, 6


def draw_answer(rng: np.random.Generator, group: np.ndarray, ease: np.ndarray) -> Matches:
    """The matches of one answer in images of these groups, six animals in each."""
    own = ease + rng.normal(0, 0.5, len(ease))
    n_found = rng.binomial(N_TRUTH, 1 / (1 + np.exp(-own[group])))
    n_false = rng.poisson(2 * np.exp(-own[group] / 2))
    image = np.concatenate([np.repeat(np.arange(len(group)), n) for n in (n_found, n_false)])
    is_true = np.arange(len(image)) < n_found.sum()
    confidence = np.where(is_true, rng.beta(4, 2, len(image)), rng.beta(2, 4, len(image)))
    order = np.argsort(-confidence)
    return Matches(images=pd.Index([f"{number}.jpg" for number in range(len(group))]), labels=["pig"],
                   n_truth=np.full((len(group), 1), N_TRUTH), image=image[order], label=np.zeros(len(image), int),
                   confidence=confidence[order], is_true=is_true[order])


def find_intervals(rng: np.random.Generator, sizes: list[int]) -> dict[str, tuple[float, float]]:
    """The three intervals of one difference."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    ease = rng.normal(0.5, 1, len(sizes))
    found = [draw_answer(rng, group, ease) for _ in range(2)]
    images = found[0].images
    truth = pd.DataFrame({"image_id": np.repeat(images, N_TRUTH), "label": "pig"})
    gain = score(found[0]).mean - score(found[1]).mean
    drawn = {"images": draw_counts(rng, len(group), N_RESAMPLES),
             "groups, percentile": draw_group_counts(rng, group, N_RESAMPLES)}
    intervals = {name: interval(resample(found[0], images, counts) - resample(found[1], images, counts))
                 for name, counts in drawn.items()}
    low, high, _ = _group_interval(found, gain, pd.DataFrame({"image_id": images, "group": group}), truth)
    return {**intervals, "groups, t": (low, high)}


def main() -> None:
    """A line a setting and way."""
    n_runs = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    for name, sizes in SETTINGS.items():
        rng = np.random.default_rng(0)
        runs = [find_intervals(rng, sizes) for _ in range(n_runs)]
        for way in runs[0]:
            n = sum(run[way][0] <= 0 <= run[way][1] for run in runs)
            width = np.mean([run[way][1] - run[way][0] for run in runs])
            low, high = beta.ppf([0.025, 0.975], [n, n + 1], [n_runs - n + 1, max(n_runs - n, 1e-9)])
            print(f"{name}; {way}: {n / n_runs:.1%} hold 0 ({low:.1%} to {high:.1%}), mean width {width:.3f}",
                  flush=True)


if __name__ == "__main__":
    main()
