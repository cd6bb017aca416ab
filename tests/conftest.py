"""Shared by the tests: where the real images lie, how many threads PyTorch takes, and what processes inherit."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest

# Tests run side by side: a thread of PyTorch that waits for another one spins on the core that the other one needs, so
# it sleeps instead. OpenMP reads both when torch is imported, here and in the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# One thread for the same reason: with two, tests side by side take a tenth more of the processor in all.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from livestock.data import dataset
from livestock.files.logs import show_messages
from livestock.tables import make_boxes, make_images

matplotlib.use("Agg")

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@contextmanager
def _unnamed_test() -> Iterator[None]:
    """Processes that are started in the block do not inherit the running test's name, which is pytest's own."""
    name = os.environ.pop("PYTEST_CURRENT_TEST", None)
    try:
        yield
    finally:
        if name is not None:
            os.environ["PYTEST_CURRENT_TEST"] = name


# A process that has trained trains again if its environment is still the same, as that of a session is; with the name
# of a test in it, each test that trains would wait seconds for a process of its own.
@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """Around each test."""
    with _unnamed_test():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Generator[None, object, object]:
    """Around each fixture."""
    with _unnamed_test():
        return (yield)


@pytest.fixture(autouse=True)
def messages() -> Iterator[None]:
    """Shows messages as notebooks and commands do, on standard output, and lets `caplog` have them too."""
    logger = logging.getLogger("livestock")
    before = logger.handlers[:], logger.level, logger.propagate
    show_messages()
    logger.propagate = True
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """RF-DETR with ten queries, which it takes by rank: of 300 of a random network two are level but for rounding, and
    where they change places both give another box."""
    monkeypatch.setattr("livestock.models.rfdetr.N_QUERIES", 10)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; they have no clear licence, so they are not in the repository."""
    if not REAL_DATA.exists():
        pytest.skip(f"no real images at {REAL_DATA}: put some there in the layout of `livestock run --data`")
    return REAL_DATA


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training takes: sixteen pictures of 64 x 64 px with one bright square each, four for validation."""
    folder = tmp_path_factory.mktemp("squares")
    rng, records, boxes = np.random.default_rng(0), [], []
    for index in range(16):
        picture = rng.integers(0, 90, (64, 64, 3), np.uint8)
        x, y = map(int, rng.integers(0, 34, 2))
        picture[y : y + 30, x : x + 30] = (40, 200, 90)
        name = f"{index:02d}.jpg"
        cv2.imwrite(str(folder / name), picture)
        records.append({"image_id": name, "archive": str(folder), "member": name, "width": 64, "height": 64})
        boxes.append({"image_id": name, "label": "pig", "x_min": x, "y_min": y, "x_max": x + 30, "y_max": y + 30})
    images = make_images(records)
    dataset.write_images(images, folder / "yolo", imgsz=64)
    dataset.write_labels(images, make_boxes(boxes), ["pig"], folder / "yolo")
    ids = images["image_id"]
    return dataset.write_lists(folder / "yolo", "tiny", ids[:12], ids[12:], ["pig"])


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch's threads wait for each other: on a machine with other work two take many times as long as one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def find_postgresql() -> Path | None:
    """The folder of PostgreSQL's programs."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), Path(shutil.which("initdb") or "/nowhere/x").parent]
    return next((folder for folder in found if (folder / "initdb").exists()), None)


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """The URL of a database on a real PostgreSQL, started for these tests and stopped after them."""
    if (programs := find_postgresql()) is None:
        pytest.skip("PostgreSQL is not installed; on Debian: apt install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="livestock-pg-"))  # pytest closes its own to other users when it starts anew
    # PostgreSQL refuses to run as root: there, as in most containers, Debian's own user runs it
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    control = [*as_user, str(programs / "pg_ctl"), "-D", str(folder / "data"), "-w", "-l", str(folder / "log")]
    options = ["-o", f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"]
    make_cluster = [*as_user, str(programs / "initdb"), "-D", str(folder / "data"), "-A", "trust", "-U", "livestock"]
    subprocess.run(make_cluster, check=True, capture_output=True, cwd=folder)  # noqa: S603
    subprocess.run([*control, *options, "start"], check=True, stdout=subprocess.DEVNULL, cwd=folder)  # noqa: S603
    yield f"postgresql://livestock@127.0.0.1:{port}/postgres"
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd=folder)  # noqa: S603
    shutil.rmtree(folder)
