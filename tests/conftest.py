"""Shared by the tests: where the real images lie, if they are here, and how many threads PyTorch takes."""

from __future__ import annotations

from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch's threads wait for each other: on a machine with other work two take many times as long as one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
