"""Memory reuse: by default glibc returns a picture's memory to the system and requests it again for the next."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h
LARGEST_BLOCK = 32 << 20  # bytes; glibc takes no more for M_MMAP_THRESHOLD
KEPT_BYTES = 256 << 20  # of each of glibc's heaps, of which threads have their own, of 64 MB each


def keep_blocks(*, of_any_size: bool = False) -> None:
    """Makes this process, and those forked from it, keep freed blocks of up to 32 MB.

    A decoded picture is such a block: without this nearly half of the time that a picture takes goes into its pages.
    Larger blocks are given back as usual, so that a table of a gigabyte is none that stays; `of_any_size` keeps them
    too, for a process that does nothing but train. Other systems than Linux with glibc have no such setting.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is None:
        return
    set_option(M_TRIM_THRESHOLD, 1 << 30 if of_any_size else KEPT_BYTES)
    if of_any_size:
        set_option(M_MMAP_MAX, 0)
    else:
        set_option(M_MMAP_THRESHOLD, LARGEST_BLOCK)


def give_back() -> None:
    """Gives freed blocks back to the system that `keep_blocks` has kept: a process that waits needs none of them."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def reset_peak() -> None:
    """Begins to measure anew what `peak_bytes` tells, where a process may do so: on Linux, not in every sandbox."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> float:
    """The most memory that this process has had at once since `reset_peak`; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), float("nan"))
