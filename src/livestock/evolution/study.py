"""The study: where it is stored, how it is opened, and what happens to trials whose process died."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

MAX_RETRIES = 10  # of one trial: sessions are lost often, but a trial that kills its machine must not do so for ever
CLAIM_SECONDS = 10.0  # a running trial that nobody has claimed for so long lost its process before it could
HEARTBEAT_SECONDS, GRACE_SECONDS = 10, 40  # a worker writes a sign of life; without one it counts as dead
CONNECT_SECONDS = 5
ADVISORY_LOCK = 0x11FE57  # any number that other programs on the same database do not use
OWNER_KEY = "owner"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on `path`, a file made for it, which the kernel gives back when the process dies."""
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class FileLock(JournalFileOpenLock):
    """A journal's lock, that the kernel gives back when its process dies, and that mends the journal when taken.

    Optuna's own file locks are files: a killed process leaves them behind for 30 seconds. A process that died while
    writing, or a full disk, leaves half a line; what is appended to it would make the journal unreadable. The half
    line was never acknowledged to anyone, so it is cut off. For a local disk: a Drive mount need not honour locks.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), grace_period=None)
        self._path, self._held = path, ExitStack()

    def acquire(self) -> bool:
        """Waits for the lock."""
        self._held.enter_context(locked(self._path.with_name(f"{self._path.name}.lock")))
        cut_torn_line(self._path)
        return True

    def release(self) -> None:
        """Gives the lock back."""
        self._held.close()


def cut_torn_line(path: Path) -> int:
    """Cuts off what follows the last line break and returns how many bytes that was."""
    with open(path, "rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(end - 65536, 0)
            file.seek(start)
            if (found := file.read(end - start).rfind(b"\n")) >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            file.truncate(end)
    return size - end


def open_storage(storage: str) -> BaseStorage:
    """A database for a URL such as `postgresql://user@host/name`, a journal file for anything else.

    Raises ValueError with one line if the database cannot be reached within a few seconds.
    """
    if "://" not in storage:
        path = Path(storage)
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=FileLock(path)))
    import sqlalchemy

    url = sqlalchemy.make_url(storage)
    try:
        if url.get_backend_name() != "postgresql":
            return _open_database(url, {})
        url = url.set(drivername="postgresql+psycopg")
        options = {"connect_args": {"connect_timeout": CONNECT_SECONDS}}
        engine = sqlalchemy.create_engine(url, **options)
        with engine.connect() as connection:  # several workers that start at once must not all make the tables
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
            return _open_database(url, options)
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(f"{url.render_as_string()}: this database cannot be used: {reason}") from error


def _open_database(url: Any, options: dict[str, Any]) -> RDBStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats are still called experimental
        return RDBStorage(
            url.render_as_string(hide_password=False),
            engine_kwargs={"pool_pre_ping": True, **options},
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=requeue,
        )


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


def fail_lost_trials(study: optuna.Study) -> list[int]:
    """Marks running trials whose process is gone as failed and queues them again; returns their numbers.

    Processes of this machine are looked up, for a journal has no heartbeat. Machines that share a database have one:
    what has shown no sign of life for long is failed and queued by Optuna. Waits up to ten seconds for a trial that
    nobody has claimed yet.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    lost = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _is_lost(study, trial) and give_up(study, trial.number):
            lost.append(trial.number)
    return lost


def give_up(study: optuna.Study, number: int) -> bool:
    """Marks a running trial as failed and queues it again; False if another process was first."""
    trial = study.trials[number]
    try:
        if not study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL):
            return False
    except UpdateFinishedTrialError:
        return False
    requeue(study, trial)
    return True


def requeue(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queues a failed trial's values once more, at most ten times; whoever asks next runs them."""
    history = [*trial.system_attrs.get("retry_history", []), trial.number]
    if len(history) > MAX_RETRIES:
        return
    attrs = {**trial.system_attrs, "failed_trial": history[0], "retry_history": history}
    whole = set(trial.params) == set(json.loads(study.user_attrs["space"]))  # it may have died while asking
    params, distributions = (trial.params, trial.distributions) if whole else ({}, {})
    study.add_trial(optuna.create_trial(
        state=TrialState.WAITING, params=params, distributions=distributions, system_attrs=attrs
    ))


def is_retry_of(trial: FrozenTrial) -> int | None:
    """The number of the trial that this one repeats, after whatever happened to it."""
    return trial.system_attrs.get("failed_trial")


def _is_lost(study: optuna.Study, trial: FrozenTrial) -> bool:
    deadline = time.monotonic() + CLAIM_SECONDS
    while (owner := trial.user_attrs.get(OWNER_KEY)) is None and time.monotonic() < deadline:
        time.sleep(0.2)
        trial = study.get_trials(deepcopy=False)[trial.number]
        if trial.state != TrialState.RUNNING:
            return False
    if owner is None:
        return True
    host, pid, created = owner
    if host != socket.gethostname():
        return False
    try:
        return psutil.Process(pid).create_time() != created
    except psutil.NoSuchProcess:
        return True


# -- a copy that outlives the machine -----------------------------------------------------------------------------


def restore_journal(journal: Path, backup: Path) -> None:
    """Brings the journal back from its copy where the local one is missing or older.

    Raises ValueError if both have trials that the other lacks: two sessions ran apart, and one must be chosen.
    """
    if not backup.exists():
        return
    if not journal.exists():
        journal.parent.mkdir(parents=True, exist_ok=True)
        copy_verified(backup, journal)
        return
    local, kept = journal.read_bytes(), backup.read_bytes()
    if kept.startswith(local):
        copy_verified(backup, journal)
    elif not local.startswith(kept):
        raise ValueError(
            f"{journal} and its copy {backup} have both gone on since they were last equal; "
            "remove the one whose trials you can do without"
        )


def copy_verified(source: Path, target: Path) -> None:
    """Copies whole lines of a journal, reads them back, and puts them in place only if they are the same bytes.

    Raises OSError if what was read back differs or if the copy would be shorter than what it replaces.
    """
    with locked(source.with_name(f"{source.name}.copying")):
        _copy_verified(source, target)


def _copy_verified(source: Path, target: Path) -> None:
    content = source.read_bytes()
    content = content[: content.rfind(b"\n") + 1]  # another process may be in the middle of a line
    if target.exists() and target.stat().st_size > len(content):
        raise OSError(f"{target} is longer than {source}: it holds trials that would be lost")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    with open(beside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if hashlib.sha256(beside.read_bytes()).digest() != hashlib.sha256(content).digest():
        raise OSError(f"{beside}: what was read back is not what was written; the copy was not put in place")
    shutil.move(beside, target)
