"""The study: how it is opened, and what happens to trials whose process died."""

from __future__ import annotations

import json
import math
import os
import socket
import time
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
import psutil
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from .storage import exclusive

MAX_RETRIES = 10  # of one trial: sessions are lost often, but a trial that kills its machine must not do so for ever
CLAIM_SECONDS = 10.0  # a running trial that nobody has claimed for so long lost its process before it could
SAME_START_SECONDS = 5  # a clock that is set moves the times at which processes began
OWNER_KEY, ERROR_KEY = "owner", "error"


def open_study(
    storage: BaseStorage,
    name: str,
    identity: Mapping[str, Any],
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
) -> optuna.Study:
    """The study of this name, made if it is new; `identity` is what all of its trials must share.

    Raises ValueError that names what differs if the study has another identity: its trials cannot be compared.
    """
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", sampler=sampler, pruner=pruner
        )
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage, sampler=sampler, pruner=pruner)
    known = study.user_attrs
    for key, value in identity.items():
        if key not in known:  # new, or its maker died in between
            study.set_user_attr(key, value)
        elif known[key] != value:
            raise ValueError(
                f"study {name!r} has another {key}: expected {value}, found {known[key]}; its trials cannot be "
                "compared with new ones, so choose another study name"
            )
    return study


def claim(trial: optuna.Trial) -> None:
    """Writes which process runs this trial, so that others can see when it is gone."""
    trial.set_user_attr(OWNER_KEY, [socket.gethostname(), os.getpid(), psutil.Process().create_time()])


def fail_lost_trials(study: optuna.Study, storage: str) -> list[int]:
    """Marks running trials whose process is gone as failed, queues every lost trial again, returns their numbers.

    A journal has no heartbeat, so processes of this machine are looked up. With a database Optuna fails what has shown
    no sign of life. Then every failed trial without an error is lost, whoever failed it and however far they got, and
    is queued again unless it was: so a process may die between any two of these steps.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _is_lost(study, trial):
            _fail(study, trial)
    if not _lost(study):
        return []
    with exclusive(storage):
        lost = _lost(study)
        for trial in lost:
            _queue_again(study, trial)
    return [trial.number for trial in lost]


def _lost(study: optuna.Study) -> list[FrozenTrial]:
    """Failed trials without an error that nothing in the queue or after it stands for."""
    trials = study.get_trials(deepcopy=False)
    repeated = {number for trial in trials for number in _retry_history(trial)}
    return [trial for trial in trials
            if trial.state == TrialState.FAIL and ERROR_KEY not in trial.user_attrs
            and trial.number not in repeated and len(_retry_history(trial)) < MAX_RETRIES]


def is_given_up(trial: FrozenTrial) -> bool:
    """Whether a trial was cut off so often, `MAX_RETRIES` times after the first, that it is not queued again."""
    return (trial.state == TrialState.FAIL and ERROR_KEY not in trial.user_attrs
            and len(_retry_history(trial)) >= MAX_RETRIES)


def _fail(study: optuna.Study, trial: FrozenTrial) -> None:
    try:
        study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
    except UpdateFinishedTrialError:  # another process saw it first
        return


def _queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    history = [*_retry_history(trial), trial.number]
    attrs = {**trial.system_attrs, "failed_trial": history[0], "retry_history": history}
    whole = set(trial.params) == set(json.loads(study.user_attrs["space"]))  # it may have died while asking
    params, distributions = (trial.params, trial.distributions) if whole else ({}, {})
    study.add_trial(optuna.create_trial(
        state=TrialState.WAITING, params=params, distributions=distributions, system_attrs=attrs
    ))


def _retry_history(trial: FrozenTrial) -> list[int]:
    return trial.system_attrs.get("retry_history", [])


def is_retry_of(trial: FrozenTrial) -> int | None:
    """The number of the trial that this one repeats, after whatever happened to it."""
    return trial.system_attrs.get("failed_trial")


def _is_lost(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Waits up to ten seconds for a trial that nobody has claimed yet."""
    deadline = time.monotonic() + CLAIM_SECONDS
    while (owner := trial.user_attrs.get(OWNER_KEY)) is None and time.monotonic() < deadline:
        time.sleep(0.2)
        trial = study.get_trials(deepcopy=False)[trial.number]
        if trial.state != TrialState.RUNNING:
            return False
    if owner is None:
        return True
    if not isinstance(study._storage, JournalStorage):
        return False  # machines may share a name; the heartbeat tells
    host, pid, created = owner
    if host != socket.gethostname():
        return True  # a journal lives on one machine: this one came back from a copy, with a new name
    try:
        process = psutil.Process(pid)
        same = math.isclose(process.create_time(), created, abs_tol=SAME_START_SECONDS)
        return not same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# -- a copy that outlives the machine -----------------------------------------------------------------------------
