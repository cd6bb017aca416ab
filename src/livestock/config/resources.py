"""Where the files lie that come with the code: `hyp/`, `notebooks/`, `competition.yaml`."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
