"""Who proposes the next trial, and who stops a hopeless one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from .genetic import GeneticSampler
from .study import is_retry_of

if TYPE_CHECKING:
    from .search import Search

SAMPLERS = ["cmaes", "genetic", "tpe", "gp", "random"]
PRUNERS = ["none", "median", "halving"]
N_STARTUP = 5  # trials before a model of the fitness, or a median to prune by, is worth anything
CMAES_SIGMA = 0.1  # of each range, on its scale: a factor 2.5 for lr0


def make_pruner(name: str, warmup_epochs: float = 0.0) -> optuna.pruners.BasePruner:
    """`median` stops what is worse than earlier trials' median at the same epoch; `halving` is successive halving.

    Halving first compares trials one whole epoch after the warm-up, during which learning rates say nothing yet, and
    again at twice as many epochs, and so on; each time the better half goes on (Jamieson and Talwalkar 2016).
    """
    if name == "none":
        return optuna.pruners.NopPruner()
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=math.ceil(warmup_epochs) + 1, reduction_factor=2, min_early_stopping_rate=0)
    return optuna.pruners.MedianPruner(n_startup_trials=N_STARTUP, n_min_trials=N_STARTUP)


class StartFirst(BaseSampler):
    """The start values as trial 0, then the sampler asked for, seeded again for each trial.

    A sampler seeded once would, after each lost session, propose again what it proposed at the start of the last.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._inner = self._make(0)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._inner = self._make(10_000 * self._search.seed + trial.number)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {} if self._is_start(trial) else self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {} if self._is_start(trial) else self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The start value in the first trial, else that of the sampler within."""
        if self._is_start(trial):
            return self._search.start[param_name]
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._inner.after_trial(study, trial, state, values)

    @staticmethod
    def _is_start(trial: FrozenTrial) -> bool:
        return trial.number == 0 or is_retry_of(trial) == 0

    def _make(self, seed: int) -> BaseSampler:
        search = self._search
        if search.sampler == "genetic":
            return GeneticSampler(search.meta, search.start, parent=search.parent, seed=search.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            if search.sampler == "tpe":
                return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=N_STARTUP)
            if search.sampler == "gp":
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=N_STARTUP)
            if search.sampler == "cmaes":  # around the start values; Optuna 6 is to drop the two arguments, see LOG.md
                warnings.filterwarnings("ignore", message="`(x0|sigma0)` has been deprecated", category=FutureWarning)
                centre = {name: search.start[name] for name in search.meta}
                return optuna.samplers.CmaEsSampler(x0=centre, sigma0=CMAES_SIGMA, seed=seed, n_startup_trials=1,
                                                    warn_independent_sampling=False)
            return optuna.samplers.RandomSampler(seed=seed)
