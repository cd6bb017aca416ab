"""The process that trains: `python -m livestock.training.child RUN_DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

from ..files.logs import show_messages
from .process import main

if __name__ == "__main__":
    show_messages()  # into the log of the training
    main(Path(sys.argv[1]))
