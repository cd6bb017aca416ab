"""Memory that is used again: glibc gives freed blocks back to the system at once and takes them anew, page by page."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h
LARGEST_BLOCK = 32 << 20  # bytes; glibc takes no more for M_MMAP_THRESHOLD
KEPT_BYTES = 256 << 20


def keep_blocks(*, of_any_size: bool = False) -> bool:
    """Makes this process, and those forked from it, keep freed blocks of up to 32 MB; returns whether it can.

    A decoded picture is such a block: without this half of the time that a picture takes goes into its pages. Larger
    blocks are given back as usual, so that a table of a gigabyte is none that stays; `of_any_size` keeps them too, for
    a process that does nothing but train. Other systems than Linux with glibc have no such setting.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is None:
        return False
    kept = set_option(M_TRIM_THRESHOLD, 1 << 30 if of_any_size else KEPT_BYTES)
    limited = set_option(M_MMAP_MAX, 0) if of_any_size else set_option(M_MMAP_THRESHOLD, LARGEST_BLOCK)
    return bool(kept and limited)
