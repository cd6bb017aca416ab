"""YOLOv5's mutation operator, restricted to a meta subset, as a formula on arrays and as an Optuna sampler.

The formula is that of YOLOv5 7.0's `train.py --evolve`. Two things differ on purpose: hyper-parameters are found by
name and not by their place in a file, and the generator is given and not seeded from the clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from .space import Meta, distributions

N_PARENTS = 5
MUTATION_PROBABILITY = 0.8
SIGMA = 0.2
MULTIPLIER_LIMITS = (0.3, 3.0)
DECIMALS = 5

PARENTS_KEY, GENERATION_KEY = "genetic:parents", "genetic:generation"


def choose_parent(
    values: np.ndarray, fitness: np.ndarray, rng: np.random.Generator, parent: str = "single"
) -> tuple[np.ndarray, list[int]]:
    """The values to mutate, `(n_names,)`, and the rows they come from, among the five fittest of `values`.

    `values` is `(n, n_names)`, `fitness` is `(n,)`. `single` draws one row with a chance that grows with its fitness;
    `weighted` is the mean of the rows with those weights.

    >>> values, fitness = np.array([[0.01], [0.02], [0.03]]), np.array([0.1, 0.9, 0.1])
    >>> choose_parent(values, fitness, np.random.default_rng(0), "single")
    (array([0.02]), [1])
    """
    best = np.argsort(-fitness)[:N_PARENTS]
    weights = fitness[best] - fitness[best].min() + 1e-6
    if parent == "single" or len(best) == 1:
        row = int(rng.choice(best, p=weights / weights.sum()))
        return values[row], [row]
    return (values[best] * weights[:, None]).sum(0) / weights.sum(), best.tolist()


def mutate(
    parent: np.ndarray, gains: np.ndarray, low: np.ndarray, high: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A child of `parent`, all arrays `(n_names,)`: multiplied, redrawn until something changes, clipped, rounded.

    Gains that are all 0 would never change anything: `check_meta` refuses them.

    >>> child = mutate(np.array([0.01, 0.9]), np.array([1.0, 0.0]), np.array([0.001, 0.6]), np.array([0.1, 0.98]),
    ...             np.random.default_rng(0))
    >>> bool(child[0] != 0.01), float(child[1])  # a gain of 0 leaves a value as it is
    (True, 0.9)
    """
    n = len(parent)
    factor = np.ones(n)
    while (factor == 1).all():
        chosen = rng.random(n) < MUTATION_PROBABILITY
        factor = (gains * chosen * rng.standard_normal(n) * rng.random() * SIGMA + 1).clip(*MULTIPLIER_LIMITS)
    child = np.round((parent * factor).clip(low, high), DECIMALS)
    return child.clip(low, high)  # a limit of more than five decimals must hold after rounding too


class GeneticSampler(BaseSampler):
    """YOLOv5's genetic search over `meta`: each trial mutates one of the five best finished ones, or `start`.

    With the same seed, trial number and finished trials it gives the same child, also after a restart. Each trial
    keeps the numbers of its parents and its generation, the length of its line, as system attributes.
    """

    def __init__(self, meta: Meta, start: Mapping[str, float], *, parent: str = "single", seed: int = 0) -> None:
        if parent not in ("single", "weighted"):
            raise ValueError(f"parent: expected 'single' or 'weighted', found {parent!r}")
        self._meta, self._start, self._parent, self._seed = dict(meta), start, parent, seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole space, for all hyper-parameters mutate together."""
        return dict(distributions(self._meta))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The child for this trial."""
        rng, names = np.random.default_rng([self._seed, trial.number]), list(self._meta)
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        params: list[Mapping[str, float]] = [parent.params for parent in finished] or [self._start]
        values = np.array([[each[name] for name in names] for each in params], float)
        fitness = np.array([parent.value for parent in finished] or [0.0])
        chosen, rows = choose_parent(values, fitness, rng, self._parent)
        gains, low, high = np.array([self._meta[name] for name in names], float).T
        child = mutate(chosen, gains, low, high, rng)
        remember(study, trial, [finished[row] for row in rows if finished])
        return dict(zip(names, child.tolist(), strict=True))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Raises ValueError: whatever is not in the space is not searched."""
        raise ValueError(f"genetic: {param_name!r} is not in the meta subset {sorted(self._meta)}")


def remember(study: Study, trial: FrozenTrial, parents: Sequence[FrozenTrial]) -> None:
    """Writes parents and generation into the trial, where `report` finds them."""
    generation = 1 + max((parent.system_attrs.get(GENERATION_KEY, 0) for parent in parents), default=0)
    for key, value in ((PARENTS_KEY, [parent.number for parent in parents]), (GENERATION_KEY, generation)):
        study._storage.set_trial_system_attr(trial._trial_id, key, value)  # as Optuna's own genetic samplers do
