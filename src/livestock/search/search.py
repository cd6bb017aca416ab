"""The search: workers that ask the study for values, train with them, and report after each epoch."""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from ..files.drive import retry
from .samplers import PRUNERS, SAMPLERS, StartFirst, make_pruner
from .space import Meta, describe, distributions
from .storage import DATABASE_ERRORS, copy_verified, is_database, one_line, open_storage, restore_journal
from .study import ERROR_KEY, claim, fail_lost_trials, open_study

logger = logging.getLogger(__name__)

FITNESS: dict[str, Callable[[Mapping[str, float]], float]] = {
    "AP": lambda scores: scores["AP"],  # at the competition's IoU, by which it ranks
    "AP75": lambda scores: scores["AP75"],
    "yolov5": lambda scores: 0.1 * scores["AP50"] + 0.9 * scores["mAP50_95"],
}
MAX_FAILURES = 3  # in a row: then it is not the values
SURPLUS = "one more than asked for: several workers began at once"
POLL_SECONDS = 2.0
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
IMPORTED_KEY, SCORES_KEY, SECONDS_KEY = "imported", "scores", "seconds"


class Objective(Protocol):
    """Trains with these values and calls `on_epoch` with the scores of each epoch; what that raises ends it."""

    def __call__(
        self, values: dict[str, float], number: int, device: str, on_epoch: Callable[[Mapping[str, float]], None]
    ) -> None: ...


@dataclass(frozen=True)
class Search:
    """What is searched and how. `identity` is what all trials of a study must share beside the space: data, epochs."""

    study: str
    storage: str = field(repr=False)  # it may hold a password
    meta: Meta
    start: Mapping[str, float]
    identity: Mapping[str, Any]
    n_trials: int
    epochs: int  # of a trial
    sampler: str = "genetic"
    pruner: str = "none"
    fitness: str = "yolov5"
    parent: str = "single"
    seed: int = 0
    budget_minutes: float | None = None
    share_minutes: float | None = None  # of all its trials together, of whichever call
    backup: Path | None = None

    def __post_init__(self) -> None:
        for name, known in (("sampler", SAMPLERS), ("pruner", PRUNERS), ("fitness", list(FITNESS))):
            if (found := getattr(self, name)) not in known:
                raise ValueError(f"{name}: expected one of {known}, found {found!r}")
        if self.sampler == "gp" and self.pruner != "none":
            raise ValueError(f"pruner: expected 'none' with the sampler 'gp', found {self.pruner!r}: it "
                             "learns from finished trials alone, and after a pruned one would ask for the same again")


class OutOfTimeError(Exception):
    """The search must end in the middle of a trial: its budget is spent, or another worker failed."""


class FailedTrialError(Exception):
    """A trial that says nothing about its values."""


class SearchFailedError(ValueError):
    """One trial after the other fails: it is not the values."""


def run_trials(search: Search, objective: Objective, devices: Sequence[str] = ("",)) -> optuna.Study:
    """Runs the search until `n_trials` have ended in all, here and elsewhere, or the budget is spent.

    One worker a device. Calling it again goes on, after a lost session too. Raises ValueError if the study is another
    one's, its storage cannot be used, or three trials in a row fail.
    """
    deadline = time.monotonic() + 60 * search.budget_minutes if search.budget_minutes is not None else math.inf
    first = math.ceil(search.start.get("warmup_epochs", 0.0)) + 1
    if search.pruner == "halving" and first >= search.epochs:
        logger.info("no trial can be stopped early: halving first compares after %d epochs, one past the warm-up, and "
                    "a trial has %d", first, search.epochs)
    study, stop = load(search), threading.Event()
    if len(devices) == 1:  # here, where an interrupt reaches it at once
        _Worker(search, objective, devices[0], deadline, stop).run()
        return study
    with ThreadPoolExecutor(len(devices)) as pool:
        workers = [pool.submit(_Worker(search, objective, device, deadline, stop).run) for device in devices]
        try:
            wait(workers, return_when=FIRST_EXCEPTION)
        finally:  # a failed worker, or the user: the others end after their epoch
            stop.set()
        for worker in workers:
            worker.result()
    return study


def load(search: Search) -> optuna.Study:
    """The study, brought back from its copy where the disk is new, made where there is none; see `study.open_study`."""
    if search.backup and not is_database(search.storage):
        restore_journal(Path(search.storage), search.backup)
    identity = {**search.identity, "fitness": search.fitness, "space": describe(search.meta),
                "start": {name: float(value) for name, value in sorted(search.start.items())}}
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what happens to trials is said here, and once
    storage, pruner = open_storage(search.storage), make_pruner(search.pruner, search.start.get("warmup_epochs", 0.0))
    return open_study(storage, search.study, identity, StartFirst(search), pruner)


class _Worker:
    """One device's share of the search."""

    def __init__(
        self, search: Search, objective: Objective, device: str, deadline: float, stop: threading.Event
    ) -> None:
        self._search, self._objective, self._device, self._deadline = search, objective, device, deadline
        self._study, self._stop, self._n_failures, self._said_how_long = load(search), stop, 0, False
        self._begun = -1

    def run(self) -> None:
        """Trial after trial; the study's storage may fail at any of them."""
        try:
            while self._has_work():
                self._ask_and_run()
            self._keep_copy()
        except DATABASE_ERRORS as error:
            said = one_line(error, self._search.storage)
            raise ValueError(f"the study's database was lost: {said}; run again to go on") from None

    def _ask_and_run(self) -> None:
        self._begun = -1
        try:
            self._study.optimize(self._run_trial, n_trials=1, catch=(FailedTrialError, OutOfTimeError))
        except (UpdateFinishedTrialError, ValueError):  # what Optuna raises when another worker has failed this trial
            if self._begun < 0 or self._study.trials[self._begun].state != TrialState.FAIL:
                raise
            logger.warning("trial %d: others saw no sign of life from here and run its values again", self._begun)
            return
        self._after_trial(self._study.trials[self._begun])

    def _has_work(self) -> bool:
        """Whether to ask for a trial now; waits while others run the last ones, which may yet fail."""
        while not self._stop.is_set():
            for number in fail_lost_trials(self._study, self._search.storage):
                logger.warning("trial %d: it was cut off; its values are queued again", number)
            n_ended = count(self._study, ENDED)
            if n_ended >= self._search.n_trials:
                return False
            if is_spent(self._search, self._study):
                logger.info("the search's share of the budget, %.0f minutes, is spent after %d of %d trials",
                            self._search.share_minutes, n_ended, self._search.n_trials)
                return False
            if time.monotonic() + self._estimate() > self._deadline:
                logger.info("budget of %g minutes spent after %d of %d trials; run again to go on",
                            self._search.budget_minutes, n_ended, self._search.n_trials)
                return False
            if n_ended + count(self._study, (TrialState.RUNNING,)) < self._search.n_trials:
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _estimate(self) -> float:
        """Seconds a whole trial takes, from what was seen so far here or by others; 0 before the first."""
        seen = _list_seconds(self._study, (TrialState.COMPLETE,))
        return statistics.median(seen) if seen else 0.0

    def _run_trial(self, trial: optuna.Trial) -> float:
        self._begun = trial.number
        claim(trial)
        values = {name: trial.suggest_float(name, space.low, space.high, log=space.log)
                  for name, space in distributions(self._search.meta).items()}
        if _rank(self._study, trial.number) >= self._search.n_trials:
            trial.set_user_attr(ERROR_KEY, SURPLUS)
            raise FailedTrialError(SURPLUS)
        started, best = time.monotonic(), -math.inf

        def on_epoch(scores: Mapping[str, float]) -> None:
            """Reports an epoch to the study, and ends a trial that is lost."""
            nonlocal best
            epoch, fitness = int(scores["epoch"]), FITNESS[self._search.fitness](scores)
            losses = [value for name, value in scores.items() if name.endswith("_loss")]
            if not math.isfinite(fitness) or any(math.isnan(loss) for loss in losses):
                raise FailedTrialError(f"epoch {epoch}: fitness {fitness}, losses {losses}")
            if fitness >= best:
                best = fitness
                trial.set_user_attr(SCORES_KEY, dict(scores))
            trial.set_user_attr(SECONDS_KEY, round(time.monotonic() - started, 2))
            trial.report(best, epoch + 1)
            if epoch + 1 == self._search.epochs:
                return  # all paid for
            if self._stop.is_set() or time.monotonic() > self._deadline:
                raise OutOfTimeError
            if trial.should_prune():
                raise TrialPruned(f"after epoch {epoch}")

        try:
            self._objective({**self._search.start, **values}, trial.number, self._device, on_epoch)
        except UpdateFinishedTrialError:
            raise
        except (RuntimeError, FailedTrialError) as error:  # the training process died, most often of its memory
            trial.set_user_attr(ERROR_KEY, str(error)[-2000:])
            raise FailedTrialError(str(error)) from error
        trial.set_user_attr(SECONDS_KEY, round(time.monotonic() - started, 2))
        return best

    def _after_trial(self, trial: FrozenTrial) -> None:
        """Says what came of it, keeps a copy, and gives up if nothing works any more."""
        study = self._study
        error = trial.user_attrs.get(ERROR_KEY)
        self._n_failures = self._n_failures + 1 if error and error != SURPLUS else 0
        n_ended, n_trials = count(study, ENDED), self._search.n_trials
        if trial.state in ENDED:
            said = f"{trial.state.name.lower()}, fitness {trial.value:.4f}"
        else:
            said = f"failed: {error.strip().splitlines()[-1]}" if error else "cut off; its values will be run again"
        logger.info("trial %d %s; %d of %d, best %.4f", trial.number, said, n_ended, n_trials, best_value(study))
        if trial.state == TrialState.COMPLETE and not self._said_how_long and n_ended < n_trials:
            self._said_how_long = True
            budget = "" if math.isinf(self._deadline) else f"; the budget is {self._search.budget_minutes:g}"
            minutes = self._estimate() / 60
            logger.info("about %.1f minutes a trial, %.0f for the rest with one worker%s", minutes,
                        minutes * (n_trials - n_ended), budget)
        self._keep_copy()
        if self._n_failures >= MAX_FAILURES:
            raise SearchFailedError(f"{MAX_FAILURES} trials in a row failed; the last: {error}")

    def _keep_copy(self) -> None:
        if self._search.backup and not is_database(self._search.storage):
            retry(str(self._search.backup),  # on Drive, which fails now and then
                  partial(copy_verified, Path(self._search.storage), self._search.backup))


def count(study: optuna.Study, states: Sequence[TrialState]) -> int:
    """Trials of the search in these states, not those read in from elsewhere."""
    trials = study.get_trials(deepcopy=False, states=tuple(states))
    return sum(IMPORTED_KEY not in trial.user_attrs for trial in trials)


def is_spent(search: Search, study: optuna.Study) -> bool:
    """Whether one more trial would go beyond the search's share of a budget; False while none is complete."""
    whole = _list_seconds(study, (TrialState.COMPLETE,))
    if search.share_minutes is None or not whole:
        return False
    return sum(_list_seconds(study)) + statistics.median(whole) > 60 * search.share_minutes


def _list_seconds(study: optuna.Study, states: Sequence[TrialState] | None = None) -> list[float]:
    """Seconds of the trials in these states, of all without them, that said how long they took."""
    trials = study.get_trials(deepcopy=False, states=states and tuple(states))
    return [trial.user_attrs[SECONDS_KEY] for trial in trials if SECONDS_KEY in trial.user_attrs]


def best_value(study: optuna.Study) -> float:
    """The highest fitness of a finished trial; NaN while there is none."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max((trial.value for trial in finished if trial.value is not None), default=math.nan)


def _rank(study: optuna.Study, number: int) -> int:
    """How many trials that count were begun before this one."""
    wanted = (*ENDED, TrialState.RUNNING)
    trials = study.get_trials(deepcopy=False, states=wanted)
    return sum(trial.number < number and IMPORTED_KEY not in trial.user_attrs for trial in trials)
