"""Freed blocks stay with the process: counted by the pages that the system has to find for it. And its cores."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from livestock.files.cores import count_cores

COUNT = """
import ctypes, resource, sys
from livestock.files.memory import keep_blocks
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def use(n_bytes):
    blocks = [libc.malloc(n_bytes) for _ in range(4)]
    for block in blocks:
        libc.memset(block, 1, n_bytes)
    for block in blocks:
        libc.free(block)

if len(sys.argv) > 2:
    keep_blocks(of_any_size=sys.argv[2] == "any")
n_bytes = int(sys.argv[1]) << 20
use(n_bytes)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use(n_bytes)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_pages(megabytes: int, *how: str) -> int:
    """Pages that ten times four blocks, freed before the next four, cost after the first four."""
    command = [sys.executable, "-c", COUNT, str(megabytes), *how]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own text
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's: run on Linux to see it")
def test_freed_blocks_are_used_again() -> None:
    assert count_pages(30) > 300  # without the setting, even if pages are huge
    assert count_pages(30, "usual") < 100
    assert count_pages(100, "usual") > 300  # a large table goes back to the system
    assert count_pages(100, "any") < 100


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds a process to cores")
def test_cores_are_those_that_the_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    assert count_cores() == len(before)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert count_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
