"""Where a study is stored: a journal file that survives lost sessions, or a database for many machines."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS, GRACE_SECONDS = 10, 40  # a worker writes a sign of life; without one it counts as dead
CONNECT_SECONDS, LOCK_SECONDS = 3, 5
ADVISORY_LOCK = 0x11FE57  # any number that other programs on the same database do not use
QUERY_PART = re.compile(r"((?:^|[?&])[^=&?]*=)([^&]*)")
SECRET_WORD = re.compile(r"(?:pass|pwd|secret|token)[^=\s]*(?:\s*=\s*(\S+))?", re.IGNORECASE)
DATABASE_ERRORS = (sqlalchemy.exc.SQLAlchemyError, StorageInternalError)


def is_database(storage: str) -> bool:
    """Whether `storage` is the URL of a database rather than the path of a journal.

    >>> is_database("postgresql://host/name"), is_database("data/study.journal")
    (True, False)
    """
    return "://" in storage


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on `path`, a file made for it, which the kernel gives back when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def exclusive(storage: str) -> Iterator[None]:
    """Holds what only one worker of a study may do at a time, on this machine or, with a database, on any."""
    if not is_database(storage):
        with locked(Path(f"{storage}.one")):
            yield
        return
    url, options = resolve_url(storage)
    engine = sqlalchemy.create_engine(url, **options)
    try:
        with engine.connect() as connection:
            if url.get_backend_name() == "postgresql":
                connection.execute(sqlalchemy.text(f"SET lock_timeout = '{LOCK_SECONDS}s'"))
                connection.execute(sqlalchemy.text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
            yield
    finally:
        engine.dispose()


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
        with ExitStack() as held:  # gives the lock back if mending fails
            held.enter_context(locked(_lock_path(self._path)))
            cut_torn_line(self._path)
            self._held = held.pop_all()
        return True

    def release(self) -> None:
        """Gives the lock back."""
        self._held.close()


def _lock_path(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}.lock")


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
    if not is_database(storage):
        path = Path(storage)
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=FileLock(path)))
    try:
        url, options = resolve_url(storage)
        with exclusive(storage), warnings.catch_warnings():  # workers that start at once must not all make the tables
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats are still called experimental
            return _Database(
                url.render_as_string(hide_password=False),
                engine_kwargs={"pool_pre_ping": True, **options},
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
            )
    except (*DATABASE_ERRORS, ValueError) as error:  # a port that is no number, say
        said = one_line(error, storage)
        # without the original, whose words may hold the password
        raise ValueError(f"{without_password(storage)}: this database cannot be used: {said}") from None


class _Database(RDBStorage):
    """Optuna's, whose thread for signs of life would end for good at the first that is lost on the way."""

    def record_heartbeat(self, trial_id: int) -> None:
        """A sign of life; one that is lost on the way is logged, and the next one tried."""
        try:
            super().record_heartbeat(trial_id)
        except DATABASE_ERRORS as error:
            said = one_line(error, self.url)
            logger.warning("no sign of life could be written, tried again in %s s: %s", HEARTBEAT_SECONDS, said)


def one_line(error: BaseException, storage: str) -> str:
    """The first line of a database's error, without the SQL statement and the password in its URL."""
    lines = str(error.__cause__ or error).strip().splitlines()
    return hide_secrets(lines[0] if lines else type(error).__name__, storage)


def resolve_url(storage: str) -> tuple[sqlalchemy.URL, dict[str, Any]]:
    """A database's URL and the arguments of an engine for it. A password with an `@` in it is taken as it is."""
    scheme, user, password, rest = _split(storage)
    if "@" in password:  # as it is, where a URL would have %40
        storage = f"{scheme}://{user}:{quote(password, safe='')}@{rest}"
    url = sqlalchemy.make_url(storage)
    if url.get_backend_name() != "postgresql":
        return url, {}
    return url.set(drivername="postgresql+psycopg"), {"connect_args": {"connect_timeout": CONNECT_SECONDS}}


def _split(storage: str) -> tuple[str, str, str, str]:
    """Scheme, user, password and the rest of a database's URL; the password may hold `@` and `?`.

    A `?` belongs to it where no `@` has ended it before but one comes later, or a database only comes later.
    """
    scheme, _, after = storage.partition("://")
    before, mark, query = after.partition("?")
    login, at, place = before.rpartition("@")
    goes_on = "/" not in place and "/" in query.rpartition("@")[2] if at else re.match("[^:/]*:", before)
    if "@" in query and goes_on:
        login, _, rest = after.rpartition("@")
    else:
        rest = f"{place}{mark}{query}"
    user, _, password = login.partition(":")
    return scheme, user, password, rest


def without_password(storage: str) -> str:
    """A database's URL as it may be shown: `***` for its password, wherever it occurs; a path is not changed.

    >>> without_password("postgresql://me:p@ss@host/db?password=x&sslmode=require")
    'postgresql://me:***@host/db?password=***&sslmode=require'
    >>> without_password("postgresql://me:s3?cret@host/db?options=-c%20password%3Dx")
    'postgresql://me:***@host/db?options=***'
    """
    if not is_database(storage):
        return storage
    scheme, user, password, rest = _split(storage)
    login = f"{user}{':***' if password else ''}@" if user or password else ""
    return f"{scheme}://{login}{QUERY_PART.sub(_mask, rest)}"


def _mask(part: re.Match[str]) -> str:
    return f"{part[1]}***" if SECRET_WORD.search(unquote_plus(part[0])) else part[0]


def hide_secrets(text: str, storage: str) -> str:
    """A text without the password in a database's URL, as written there or decoded.

    >>> url = "postgresql://user:secret@host/name"
    >>> hide_secrets(f"cannot connect to {url}", url)
    'cannot connect to postgresql://user:***@host/name'
    """
    if not is_database(storage):
        return text
    _, _, password, rest = _split(storage)
    secrets = [password]
    for part in QUERY_PART.finditer(rest):
        words = SECRET_WORD.findall(unquote_plus(part[2]))  # options=-c password=x, as %20 and %3D
        secrets += [part[2], *words] if SECRET_WORD.search(unquote_plus(part[0])) else []
    spelt = {form for secret in secrets for form in (secret, unquote(secret), unquote_plus(secret), quote(secret))}
    text = text.replace(storage, without_password(storage))
    for secret in sorted(spelt - {""}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def restore_journal(journal: Path, backup: Path) -> None:
    """Brings the journal back from its copy where the local one is missing or older.

    Raises ValueError if both have trials that the other lacks: two sessions ran apart, and one must be chosen.
    """
    for path in (journal, backup):  # not while copying: below a Drive that has gone folders would be local ones
        path.parent.mkdir(parents=True, exist_ok=True)
    if not backup.exists():
        return
    with locked(_lock_path(journal)):
        local = journal.read_bytes() if journal.exists() else b""
        kept = backup.read_bytes()
        if kept.startswith(local) and kept != local:
            _replace(journal, kept)
        elif not local.startswith(kept):
            raise ValueError(_ran_apart(journal, backup))


def copy_verified(journal: Path, backup: Path) -> None:
    """Copies the whole lines of a journal, reads them back, and puts them in place only if they are the same bytes.

    Raises OSError if what was read back differs, and ValueError if the copy holds trials that the journal lacks.
    """
    with locked(journal.with_name(f"{journal.name}.copying")):
        content = journal.read_bytes()
        content = content[: content.rfind(b"\n") + 1]  # another process may be in the middle of a line
        if backup.exists() and not content.startswith(backup.read_bytes()):
            raise ValueError(_ran_apart(journal, backup))
        _replace(backup, content)


def _ran_apart(journal: Path, backup: Path) -> str:
    return (f"{journal} and its copy {backup} have both gone on since they were last equal, in two sessions say; "
            "remove the one whose trials you can do without, or use a database")


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(beside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if beside.read_bytes() != content:
        raise OSError(f"{beside}: what was read back is not what was written; it was not put in place of {path}")
    os.replace(beside, path)
