"""A process that trains: `python -m livestock.training.child RUN_DIR`, or without one in folders that it is told of."""

from __future__ import annotations

import sys
from pathlib import Path

from ..files.logs import show_messages
from .process import main, serve

if __name__ == "__main__":
    show_messages()  # into the log of the training
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        serve()
