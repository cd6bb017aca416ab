"""Cheap stand-ins for a whole training, and how far their choices can be trusted.

A proxy trains smaller images, the stratified part of the data, fewer epochs, or the later layers alone. It deserves
trust where what it puts first is as good at full scale as what one full training puts first. `judge_proxies` measures
that on trainings of the same settings at every scale; `bench/plan.py proxies` runs them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from ..evaluation import mean_interval

IMGSZ_STEP = 32  # image sizes are multiples of it


def unfrozen_share(freeze: float) -> float:
    """Time of a training step with this share frozen: the backward pass, two thirds of a step, skips frozen tensors.

    >>> unfrozen_share(0.0), round(unfrozen_share(0.5), 3)
    (1.0, 0.667)
    """
    return 1 - freeze * 2 / 3


@dataclass(frozen=True)
class Proxy:
    """A scale to train at: shares, from above 0 to 1, of the image's longer side, of the images and of the epochs.

    `freeze` is the share of the network's tensors, from 0 to below 1, that stay as they were: `training.start.freeze`.
    """

    name: str
    imgsz: float = 1.0
    data: float = 1.0
    epochs: float = 1.0
    freeze: float = 0.0

    @property
    def share(self) -> float:
        """What it takes of a whole training, if the time goes with pixels, images and epochs.

        >>> Proxy("half the size", imgsz=0.5).share
        0.25
        """
        return self.imgsz**2 * self.data * self.epochs * unfrozen_share(self.freeze)

    def scale_imgsz(self, imgsz: int) -> int:
        """The image size in pixels, a multiple of 32.

        >>> Proxy("half the size", imgsz=0.5).scale_imgsz(1280), Proxy("half the size", imgsz=0.5).scale_imgsz(416)
        (640, 224)
        """
        return max(IMGSZ_STEP, math.floor(imgsz * self.imgsz / IMGSZ_STEP + 0.5) * IMGSZ_STEP)

    def scale_epochs(self, epochs: int) -> int:
        """The epochs, one at least.

        >>> Proxy("a third of the epochs", epochs=1 / 3).scale_epochs(20)
        7
        """
        return max(1, math.floor(epochs * self.epochs + 0.5))


FULL = Proxy("full")
SMALL, PART, SHORT = Proxy("imgsz", imgsz=0.5), Proxy("data", data=0.5), Proxy("epochs", epochs=1 / 3)
# A trial of the search is smaller than a whole training in data and epochs as it is: these three are what it can be.
TRIAL = Proxy("data+epochs", data=0.5, epochs=1 / 3)
ALL = Proxy("all", imgsz=0.5, data=0.5, epochs=1 / 3)
FROZEN = Proxy("data+epochs+freeze", data=0.5, epochs=1 / 3, freeze=0.5)
PROXIES = (SMALL, PART, SHORT, Proxy("imgsz+data", imgsz=0.5, data=0.5), TRIAL, ALL, FROZEN)


def judge_proxies(trainings: pd.DataFrame) -> pd.DataFrame:
    """How well each scale orders settings: one row a scale, the index, the dearest first.

    `trainings` has a row for each `setting`, `scale` (a name, `full` among them) and `seed`, with its `AP` and
    `seconds`; only seeds for which every setting was trained at every scale count. The truth of a setting, for a seed,
    is the mean AP of its full trainings with the other seeds: so a full training is judged as a proxy is, and neither
    by itself. Columns, each mean with a 95 % interval over seeds (`_low`, `_high`, Student's t):

    - `tau`: Kendall's rank correlation (tau-b) of the AP at this scale with the truth;
    - `regret`: the AP of the truth's best setting less that of the setting that this scale puts first;
    - `over_full`: its regret less that of one full training with the same seed;
    - `noise`: the standard deviation of one full training over seeds, pooled over settings;
    - `cost`: its seconds as a share of those at full scale;
    - `is_within`: whether the mean regret is at most the noise.

    Raises ValueError for fewer than two whole seeds or two settings, and where no training is at full scale.

    >>> rows = [(setting, scale, seed, ap, 10.0 if scale == "full" else 1.0)
    ...         for scale, seed, aps in [("full", 0, (0.5, 0.6)), ("full", 1, (0.5, 0.6)), ("half", 0, (0.2, 0.1)),
    ...                                  ("half", 1, (0.1, 0.3))] for setting, ap in zip("ab", aps)]
    >>> judged = judge_proxies(pd.DataFrame(rows, columns=["setting", "scale", "seed", "AP", "seconds"]))
    >>> judged[["tau", "regret", "cost"]].round(2).to_dict("index")
    {'full': {'tau': 1.0, 'regret': 0.0, 'cost': 1.0}, 'half': {'tau': 0.0, 'regret': 0.05, 'cost': 0.1}}
    """
    whole = keep_whole_seeds(trainings)
    n_seeds, n_settings = whole["seed"].nunique(), whole["setting"].nunique()
    if FULL.name not in set(whole["scale"]) or n_seeds < 2 or n_settings < 2:
        raise ValueError(f"proxies: expected two settings or more, each trained at the scale {FULL.name!r} and others "
                         f"with two seeds or more, found {n_settings} settings with {n_seeds} whole seeds at "
                         f"{sorted(set(whole['scale']))}")
    full = whole[whole["scale"] == FULL.name].pivot(index="seed", columns="setting", values="AP")
    noise = float(np.sqrt(full.var(axis=0, ddof=1).mean()))
    truth = (full.sum(axis=0) - full) / (n_seeds - 1)
    seconds = whole.groupby("scale")["seconds"].sum()
    of_full, rows = _by_seed(full, truth, _find_regret), {}
    for scale, own in whole.groupby("scale"):
        scores = own.pivot(index="seed", columns="setting", values="AP")
        taus, regrets = _by_seed(scores, truth, _find_tau), _by_seed(scores, truth, _find_regret)
        rows[scale] = {**_interval("tau", taus), **_interval("regret", regrets),
                       **_interval("over_full", regrets - of_full), "noise": noise,
                       "cost": seconds[scale] / seconds[FULL.name], "is_within": bool(regrets.mean() <= noise)}
    return pd.DataFrame.from_dict(rows, orient="index").sort_values("cost", ascending=False)


def keep_whole_seeds(trainings: pd.DataFrame) -> pd.DataFrame:
    """The rows of the seeds that have a training of every setting at every scale, the last of equal ones."""
    last = trainings.drop_duplicates(["setting", "scale", "seed"], keep="last")
    n_each = last.groupby("seed").size()
    wanted = last["setting"].nunique() * last["scale"].nunique()
    return last[last["seed"].isin(n_each.index[n_each == wanted])]


def _by_seed(scores: pd.DataFrame, truth: pd.DataFrame, measure: Callable[[np.ndarray, np.ndarray], float]
             ) -> np.ndarray:
    """A number for each seed, from the scores of all settings and their truth."""
    return np.array([measure(scores.loc[seed].to_numpy(), truth.loc[seed].to_numpy()) for seed in truth.index])


def _find_tau(scores: np.ndarray, truth: np.ndarray) -> float:
    """0 where one of both has a single value, which orders nothing."""
    tau = float(kendalltau(scores, truth).statistic)
    return 0.0 if math.isnan(tau) else tau


def _find_regret(scores: np.ndarray, truth: np.ndarray) -> float:
    """Of equal scores the one counts that is worst in truth: nothing speaks for the others."""
    return float(truth.max() - truth[scores == scores.max()].min())


def _interval(name: str, values: np.ndarray) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), mean_interval(values), strict=True))
