"""Shared by the tests: where the real images lie, if they are here."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest

matplotlib.use("Agg")

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; they have no clear licence, so they are not in the repository."""
    if not REAL_DATA.exists():
        pytest.skip(f"no real images at {REAL_DATA}: put some there in the layout of `livestock run --data`")
    return REAL_DATA
