"""How many processor cores this process may use."""

from __future__ import annotations

import os
import sys


def count_cores() -> int:
    """The cores that this process may run on: a container or `taskset` can leave it fewer than the machine has.

    With more threads than cores, PyTorch's wait for one another on a core that a third needs, and a training among
    others takes many times as long.
    """
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
