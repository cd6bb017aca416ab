"""From raw archives to a scored `answer.csv`: everything is a table of boxes."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import Any

# ONNX Runtime contacts a telemetry host when it is imported, from native code, unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# PyTorch's threads on a CPU wait for each other after every operation. By default they spin 300,000 times meanwhile,
# and beside another process each spins on the core that the other one needs: a training step took ten times as long.
# 3,000 are enough where they have a core each (`bench/wait_policy.py`). Read when torch is imported, here and in every
# process that is started from here; whoever sets one of the two variables decides.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# Whoever imports the package hears nothing of it until they configure logging, see `livestock.files.logs`.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.2.0.dev0"  # the only place: pyproject.toml reads it here; CHANGELOG.md says what is in it

# The public names and the modules that they are in, which are imported when a name is asked for: `import livestock` and
# `livestock --help` import neither pandas nor torch.
_PUBLIC = {
    "read_competition": "config",
    "make_run": "pipeline.run",
    "read_data": "pipeline.prepare",
    "split_data": "pipeline.prepare",
    "train": "api",
    "predict": "api",
    "tune": "api",
    "write_answer": "api",
    "check_answer": "api",
    "score": "api",
    "run_all": "api",
    "draw_sample": "sample",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_PUBLIC)}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
