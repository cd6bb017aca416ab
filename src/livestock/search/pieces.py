"""Independent pieces of work, pulled by several machines from one study: folds, seeds, teachers.

The queue is Optuna's own, on the storage that the search already uses: trials that are enqueued, each taken by one
worker under a lock of the database, a sign of life from whoever works, and the piece of a dead worker queued again. It
is there, it is tested here with kills, and a scheduler would be one more server to run. Results do not go through it:
they lie in a folder that all workers read, where a piece that is done is found by its key.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from .storage import DATABASE_ERRORS, exclusive, one_line, open_storage
from .study import ERROR_KEY, MAX_RETRIES, claim, fail_lost_trials, is_given_up, open_study

logger = logging.getLogger(__name__)
PIECE = "piece"
POLL_SECONDS = 1.0
NOT_QUEUED = "another worker took the last piece at the same moment"


class _NotQueuedError(Exception):
    """A trial that stands for no piece."""


def share_pieces(storage: str, name: str, pieces: Sequence[str], work: Callable[[str], object]) -> list[str]:
    """Works on pieces until all are done, here or by others with the same call; returns those that were done here.

    `name` is the study's: workers with the same `name` and `pieces` share them, so it should tell what they are made
    from. Each piece is done once; one whose worker dies is taken over, at the latest half a minute later.

    Raises ValueError for pieces that are not different, for other pieces than the study has, for one whose workers were
    lost again and again, and for one that failed elsewhere, with its error; whatever `work` raises passes through. The
    database may be lost: ValueError too.
    """
    if len(set(pieces)) < len(pieces):
        raise ValueError(f"pieces: expected different ones, found {list(pieces)}")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    identity = {"space": json.dumps({PIECE: sorted(pieces)}), "pieces": sorted(pieces)}
    try:
        study = open_study(open_storage(storage), name, identity, optuna.samplers.RandomSampler(),
                           optuna.pruners.NopPruner())
        with exclusive(storage):
            last = _find_last(study)
            for piece in pieces:  # the fault of an earlier call may be mended
                if piece not in last or _has_failed(last[piece]) or is_given_up(last[piece]):
                    study.enqueue_trial({PIECE: piece})
        return _pull(study, storage, pieces, work)
    except DATABASE_ERRORS as error:
        raise ValueError(f"the queue's database was lost: {one_line(error, storage)}; run again to go on") from None


def _pull(study: optuna.Study, storage: str, pieces: Sequence[str], work: Callable[[str], object]) -> list[str]:
    """One piece after the other, while any is left that may yet come back."""
    mine: list[str] = []
    begun: list[int] = []

    def objective(trial: optuna.Trial) -> float:
        """Does a piece that was pulled from the queue."""
        begun.append(trial.number)
        claim(trial)
        if _piece_of(study.get_trials(deepcopy=False)[trial.number]) is None:
            trial.set_user_attr(ERROR_KEY, NOT_QUEUED)
            raise _NotQueuedError
        piece = trial.suggest_categorical(PIECE, sorted(pieces))
        logger.info("%s: taken from the queue", piece)
        try:
            work(piece)
        except Exception as error:
            trial.set_user_attr(ERROR_KEY, str(error)[-2000:] or type(error).__name__)
            raise
        mine.append(piece)
        return 0.0

    while not _is_over(study, storage, pieces):
        if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            _run_one(study, objective, begun)
        else:
            time.sleep(POLL_SECONDS)
    return mine


def _run_one(study: optuna.Study, objective: Callable[[optuna.Trial], float], begun: list[int]) -> None:
    """The next piece of the queue; nothing where others saw no sign of life from here, and have it queued again."""
    try:
        study.optimize(objective, n_trials=1, catch=(_NotQueuedError,))
    except (UpdateFinishedTrialError, ValueError):  # what Optuna raises when another worker has failed this trial
        trial = study.get_trials(deepcopy=False)[begun[-1]] if begun else None
        if trial is None or trial.state != TrialState.FAIL or _has_failed(trial):
            raise
        logger.warning("%s: others saw no sign of life from here and do it again", _piece_of(trial))


def _is_over(study: optuna.Study, storage: str, pieces: Sequence[str]) -> bool:
    """Whether all pieces are done. Raises ValueError for one that failed and is not tried again."""
    for number in fail_lost_trials(study, storage):
        logger.warning("%s: its worker is gone; it is queued again",
                       _piece_of(study.get_trials(deepcopy=False)[number]))
    last = _find_last(study)
    if failed := [piece for piece in pieces if _has_failed(last[piece])]:
        raise ValueError(f"{failed[0]} failed elsewhere: {last[failed[0]].user_attrs[ERROR_KEY]}; run again to try it "
                         "again")
    if lost := [piece for piece in pieces if is_given_up(last[piece])]:
        raise ValueError(f"{lost[0]}: the worker that had it was lost {MAX_RETRIES + 1} times, so it is not queued "
                         "again; look what ends it (the memory of the machine?), then run again to try it again")
    return all(last[piece].state == TrialState.COMPLETE for piece in pieces)


def _find_last(study: optuna.Study) -> dict[str, FrozenTrial]:
    """The last trial of each piece; a complete one counts, whatever came after it."""
    last: dict[str, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False):
        piece = _piece_of(trial)
        if piece is not None and not (piece in last and last[piece].state == TrialState.COMPLETE):
            last[piece] = trial
    return last


def _has_failed(trial: FrozenTrial) -> bool:
    """Whether its work raised an error; a trial that was merely cut off has none."""
    return trial.state == TrialState.FAIL and ERROR_KEY in trial.user_attrs


def _piece_of(trial: FrozenTrial) -> str | None:
    """The piece that a trial stands for; None where it stands for none."""
    queued: str | None = trial.system_attrs.get("fixed_params", {}).get(PIECE)
    return queued
