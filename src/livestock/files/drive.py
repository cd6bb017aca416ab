"""Copies to and from a mounted Drive, which is slow, fails now and then, lists what is gone and vanishes for a minute.

Which of two files wins: the newer one, by more than the two seconds to which Drive keeps time; of the same time and
size they count as equal. A newer file that is shorter may be one that a crash cut off, so what it replaces is kept
beside it as `NAME.previous` (then `NAME.previous2` and so on), which is for people: it is never copied itself.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from stat import S_ISDIR
from typing import Any, NamedTuple, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

logger = logging.getLogger(__name__)

GIVE_UP_SECONDS = 900.0  # of waiting, for one file
LONGEST_WAIT_SECONDS = 60.0
TIME_SECONDS = 2.0  # Drive keeps whole seconds
BLOCK_BYTES = 1 << 22
FULL = {errno.ENOSPC, errno.EDQUOT}
LASTING = {*FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EFBIG,
           errno.EINVAL}  # the next attempt would end the same
NOT_COPIED = re.compile(r"\..*\.part|.*\.previous\d*", re.DOTALL)

T = TypeVar("T")


class CopyError(OSError):
    """A copy that was given up: which file, why, and what to do."""


class Files(NamedTuple):
    """The calls that reach a disk, and the one that waits."""

    open: Callable[..., Any] = open
    listdir: Callable[[Path], list[str]] = os.listdir
    stat: Callable[[Path], os.stat_result] = os.stat
    mkdir: Callable[[Path], None] = os.mkdir
    replace: Callable[[Path, Path], None] = os.replace
    utime: Callable[[Path, tuple[float, float]], None] = os.utime
    fsync: Callable[[int], None] = os.fsync
    sleep: Callable[[float], None] = time.sleep


FILES = Files()


def copy_new(
    source: Path, target: Path, *, mount: Path | None = None, give_up_seconds: float = GIVE_UP_SECONDS,
    files: Files = FILES,
) -> int:
    """Copies a file, or a folder's files, where the copy is missing or not as new; returns how many.

    See `copy_file` for each. A missing source copies nothing. What a listing shows though it is gone is passed over;
    what it does not show yet comes along the next time.
    """
    every = _walk(source, mount, give_up_seconds, files)
    return sum(copy_file(file, target / file.relative_to(source), mount=mount, give_up_seconds=give_up_seconds,
                         files=files) for file in every)


def copy_file(
    source: Path, target: Path, *, mount: Path | None = None, give_up_seconds: float = GIVE_UP_SECONDS,
    files: Files = FILES,
) -> bool:
    """Copies a file with its time unless the copy is kept (see the module); returns whether it did.

    The copy is written beside its target, continues what an earlier attempt left there, is read back and compared by
    size and SHA-256, and then renamed: the target is whole at every moment. What fails is tried again after growing
    waits. `mount` is a folder without which nothing is there, such as Drive's: it is waited for and never made.
    Raises CopyError naming both files when the waits add up to `give_up_seconds`, or at once when the disk is full.
    """

    def attempt() -> bool:
        """One try; returns whether a file was copied."""
        there, copy = _stat(source, mount, files), _stat(target, mount, files)
        if there is None:
            logger.warning("%s: listed, but gone; passed over", source)
        if there is None or (copy is not None and _stands(there, copy)):
            return False
        _make_folder(target.parent, mount, files)
        if copy is not None and there.st_size < copy.st_size:
            _keep_previous(target, copy, mount, files)
        _carry(source, target, there, files)
        logger.debug("%s: copied to %s, %d bytes", source, target, there.st_size)
        return True

    return retry(f"{source} to {target}", attempt, give_up_seconds, files)


def missing_bytes(source: Path, target: Path, *, mount: Path | None = None, files: Files = FILES) -> int:
    """How many bytes `copy_new` would write. Raises CopyError where the source stays out of reach."""
    n_bytes = 0
    for file in _walk(source, mount, GIVE_UP_SECONDS, files):
        there, copy = (retry(str(path), partial(_stat, path, mount, files), GIVE_UP_SECONDS, files)
                       for path in (file, target / file.relative_to(source)))
        if there is not None and (copy is None or not _stands(there, copy)):
            n_bytes += there.st_size
    return n_bytes


def retry(
    what: str, attempt: Callable[[], T], give_up_seconds: float = GIVE_UP_SECONDS, files: Files = FILES
) -> T:
    """What `attempt` returns; after an OSError that may pass it is called again, with a line that says so and when.

    The waits grow from 1 to 60 seconds. Raises CopyError naming `what` when they would add up to more than
    `give_up_seconds`, or at once for an error that lasts, such as a full disk.
    """
    def announce(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.warning("%s: %s; tried again in %.0f s", what, error, state.upcoming_sleep)

    retrying = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, OSError) and error.errno not in LASTING),
        wait=wait_exponential(max=LONGEST_WAIT_SECONDS),
        stop=lambda state: state.idle_for + state.upcoming_sleep > give_up_seconds,
        before_sleep=announce, sleep=files.sleep, reraise=True,
    )
    try:
        return retrying(attempt)
    except OSError as error:
        advice = f"given up after waits of up to {give_up_seconds:g} s; see that Drive is mounted and reachable"
        if error.errno in LASTING:
            advice = "free some space there" if error.errno in FULL else "this will not pass by itself"
        raise CopyError(error.errno, f"{what}: expected to read and write it whole, found {error}; {advice}, then run "
                        "this cell again: it goes on where it stopped") from error


def _walk(path: Path, mount: Path | None, give_up_seconds: float, files: Files) -> Iterator[Path]:
    there = retry(str(path), partial(_stat, path, mount, files), give_up_seconds, files)
    if there is None or NOT_COPIED.fullmatch(path.name):
        return
    if not S_ISDIR(there.st_mode):
        yield path
        return
    for name in sorted(retry(str(path), partial(_list, path, mount, files), give_up_seconds, files)):
        yield from _walk(path / name, mount, give_up_seconds, files)


def _stat(path: Path, mount: Path | None, files: Files) -> os.stat_result | None:
    """None where there is no such file; raises OSError where that is so because the whole mount is gone."""
    try:
        return files.stat(path)
    except FileNotFoundError:
        _check_mount(mount, files)
        return None


def _list(path: Path, mount: Path | None, files: Files) -> list[str]:
    try:
        return files.listdir(path)
    except FileNotFoundError:
        _check_mount(mount, files)
        return []


def _check_mount(mount: Path | None, files: Files) -> None:
    if mount is not None:
        try:
            files.stat(mount)
        except FileNotFoundError as error:
            raise OSError(errno.ENOTCONN, "the Drive that should be mounted here is gone", str(mount)) from error


def _stands(source: os.stat_result, copy: os.stat_result) -> bool:
    newer_by = source.st_mtime - copy.st_mtime
    return newer_by < -TIME_SECONDS or (newer_by <= TIME_SECONDS and source.st_size == copy.st_size)


def _make_folder(folder: Path, mount: Path | None, files: Files) -> None:
    """Makes a folder and those above it, but not the mount: what went there would stay on the local disk."""
    if folder == mount:
        return
    try:
        files.mkdir(folder)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_folder(folder.parent, mount, files)
        files.mkdir(folder)


def _keep_previous(target: Path, copy: os.stat_result, mount: Path | None, files: Files) -> None:
    """Copies, not renames, so that the target is never away; an earlier attempt may have done it."""
    for n in itertools.count(1):
        previous = target.with_name(f"{target.name}.previous{n if n > 1 else ''}")
        kept = _stat(previous, mount, files)
        if kept is None:
            break
        if kept.st_size == copy.st_size and _sha256(previous, files) == _sha256(target, files):
            return
    _carry(target, previous, copy, files)
    logger.warning("%s: replaced by a newer but shorter file; the longer one is kept as %s", target, previous.name)


def _carry(source: Path, target: Path, there: os.stat_result, files: Files) -> None:
    part = target.with_name(f".{target.name}.part")
    n_bytes, digest = _continued(source, part, files)
    with files.open(source, "rb") as reader, files.open(part, "ab" if n_bytes else "wb") as writer:
        reader.seek(n_bytes)
        while block := reader.read(BLOCK_BYTES):
            writer.write(block)
            digest.update(block)
            n_bytes += len(block)
        writer.flush()
        files.fsync(writer.fileno())
    if n_bytes != there.st_size:
        raise OSError(errno.EAGAIN, f"expected {there.st_size} bytes, found {n_bytes}: it changes", str(source))
    found = files.stat(part).st_size
    if found != n_bytes or _sha256(part, files) != digest.hexdigest():
        raise OSError(errno.EIO, f"read back other bytes than the {n_bytes} written, {found} in all", str(part))
    files.utime(part, (there.st_atime, there.st_mtime))
    files.replace(part, target)


def _continued(source: Path, part: Path, files: Files) -> tuple[int, Any]:
    """How many bytes of a part stand, all or none, and their digest: all if they are how the source begins."""
    n_bytes, digest = 0, hashlib.sha256()
    try:
        mine = files.open(part, "rb")
    except FileNotFoundError:
        return 0, digest
    with mine, files.open(source, "rb") as whole:
        while block := mine.read(BLOCK_BYTES):
            if block != whole.read(len(block)):
                return 0, hashlib.sha256()
            digest.update(block)
            n_bytes += len(block)
    return n_bytes, digest


def _sha256(path: Path, files: Files) -> str:
    with files.open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
        return digest.hexdigest()
