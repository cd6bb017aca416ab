"""Progress of long loops: a bar where somebody watches, two lines where nobody does.

Somebody watches a terminal and a notebook. A log file would get hundreds of half bars, and so would the copy of a
notebook that `livestock run` executes: they get a line at the start and a line at the end, with the seconds.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

logger = logging.getLogger(__name__)

UNWATCHED = "LIVESTOCK_UNWATCHED"  # `livestock run` sets it: its notebooks' kernels look like those that people watch
_is_inner: ContextVar[bool] = ContextVar("is_inner", default=False)

T = TypeVar("T")


class Bar(Protocol):
    """What a loop may do with its bar; `n` counts what is done."""

    n: float

    def update(self, n: float = 1) -> Any: ...

    def set_postfix(self, ordered_dict: Any = None, refresh: bool = True, **kwargs: Any) -> Any: ...

    def refresh(self) -> Any: ...


class _Count:
    """Counts, and draws nothing."""

    n: float = 0

    def update(self, n: float = 1) -> None:
        self.n += n

    def set_postfix(self, ordered_dict: Any = None, refresh: bool = True, **kwargs: Any) -> None: ...

    def refresh(self) -> None: ...


def progress(iterable: Iterable[T], desc: str, *, unit: str, total: int | None = None) -> Iterator[T]:
    """The items of `iterable`, each counted once the loop is done with it. `total` is its length where it has none.

    `unit` is the word for one item.

    >>> [name.upper() for name in progress(["cow", "pig"], "names", unit="name")]
    ['COW', 'PIG']
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with progress_bar(desc, unit=unit, total=total) as bar:
        for item in iterable:
            yield item
            bar.update()


@contextmanager
def progress_bar(desc: str, *, unit: str, total: int | None = None, **options: Any) -> Iterator[Bar]:
    """A bar to be updated by hand, with tqdm's `options`; without one lines go to the log, see `logs`."""
    if _is_inner.get() or not logger.isEnabledFor(logging.INFO):  # nobody has asked for messages, or only for warnings
        yield _Count()
    elif is_watched():
        from tqdm.auto import tqdm  # a tenth of a second to import

        with tqdm(total=total, desc=desc, unit=unit, **options) as bar:
            yield bar
    else:
        with _lines(desc, unit, total) as count:
            yield count


@contextmanager
def _lines(desc: str, unit: str, total: int | None) -> Iterator[_Count]:
    count, started = _Count(), time.monotonic()
    _say(f"{desc}: {_amount(total, unit)} ..." if total is not None else f"{desc} ...")
    try:
        yield count
    finally:
        of = f"{_number(count.n)} of " if total is not None and count.n < total else ""
        _say(f"{desc}: {of}{_amount(count.n if total is None else total, unit)}, {time.monotonic() - started:.1f} s")


def _amount(n: float, unit: str) -> str:
    return f"{_number(n)} {unit}{'s' * (n != 1)}"


def _number(n: float) -> str:
    return f"{n:,.1f}".removesuffix(".0")  # a training counts parts of an epoch


def _say(line: str) -> None:
    logger.info(line, extra={"is_progress": True})


@contextmanager
def one_bar(desc: str, *, unit: str, total: int | None = None) -> Iterator[Bar]:
    """As `progress_bar`, for a loop of long steps: bars of the steps themselves are not shown in the block."""
    with progress_bar(desc, unit=unit, total=total) as bar:
        token = _is_inner.set(True)
        try:
            yield bar
        finally:
            _is_inner.reset(token)


@contextmanager
def unwatched() -> Iterator[None]:
    """Processes that start in the block, such as the kernels of notebooks, draw no bars."""
    before = os.environ.get(UNWATCHED)
    os.environ[UNWATCHED] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[UNWATCHED]
        else:
            os.environ[UNWATCHED] = before


def is_watched() -> bool:
    """Whether standard error is a terminal, or a notebook that is not executed by `livestock run`."""
    if os.environ.get(UNWATCHED):
        return False
    return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel.")
