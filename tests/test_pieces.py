"""The queue of pieces: each once, errors passed on, and on a real PostgreSQL with workers that die and come late."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from livestock.config import REPOSITORY
from livestock.search.pieces import _is_over, share_pieces
from livestock.search.storage import open_storage
from livestock.search.study import MAX_RETRIES

WORKER = Path(__file__).with_name("pieces_worker.py")
PIECES = [f"fold {number}" for number in range(12)]


def start_worker(folder: Path, storage: str, host: str, seconds: float) -> subprocess.Popen:
    given = {"storage": storage, "pieces": PIECES, "folder": str(folder), "seconds": seconds, "host": host}
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    with open(folder / "log", "ab") as log:
        return subprocess.Popen([sys.executable, str(WORKER), json.dumps(given)], stdout=log, stderr=log,  # noqa: S603
                                env=environment)


def read_ledger(folder: Path) -> pd.DataFrame:
    path = folder / "ledger"
    lines = path.read_text().splitlines() if path.exists() else []
    return pd.DataFrame([json.loads(line) for line in lines], columns=["pid", "event", "piece"])


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def test_each_piece_is_done_once_in_order_and_a_second_call_does_nothing(tmp_path: Path) -> None:
    storage, done = str(tmp_path / "journal"), list[str]()
    assert share_pieces(storage, "some", ["b", "a", "c"], done.append) == ["b", "a", "c"] == done
    assert share_pieces(storage, "some", ["b", "a", "c"], done.append) == []
    assert done == ["b", "a", "c"]


def test_an_error_passes_through_is_known_to_others_and_a_new_call_tries_again(tmp_path: Path) -> None:
    storage, calls = str(tmp_path / "journal"), list[str]()

    def fail(piece: str) -> None:
        calls.append(piece)
        if calls.count("b") == 1 and piece == "b":
            raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="the disk is full"):
        share_pieces(storage, "some", ["a", "b", "c"], fail)
    assert calls == ["a", "b"]
    assert sorted(share_pieces(storage, "some", ["a", "b", "c"], fail)) == ["b", "c"]
    assert sorted(calls) == ["a", "b", "b", "c"]


@pytest.mark.bad_input
def test_other_pieces_under_the_same_name_are_refused(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal")
    with pytest.raises(ValueError, match="pieces: expected different ones"):
        share_pieces(storage, "some", ["a", "a"], print)
    share_pieces(storage, "some", ["a"], str)
    with pytest.raises(ValueError, match="has another"):
        share_pieces(storage, "some", ["a", "b"], str)


def test_a_piece_whose_worker_is_lost_again_and_again_is_named_and_tried_again_when_asked(tmp_path: Path) -> None:
    storage, done = str(tmp_path / "journal"), list[str]()

    def lose(piece: str) -> None:
        """What is left of a worker that died each time: failed trials without an error, each the last one's repeat."""
        study = optuna.load_study(study_name="some", storage=open_storage(storage))
        attrs = {"fixed_params": {"piece": piece}, "retry_history": list(range(MAX_RETRIES))}
        study.add_trial(optuna.create_trial(state=TrialState.FAIL, system_attrs=attrs))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        share_pieces(storage, "some", ["a"], lose)
    with pytest.raises(ValueError, match="a: the worker that had it was lost 11 times.*run again to try it again"):
        _is_over(optuna.load_study(study_name="some", storage=open_storage(storage)), storage, ["a"])
    assert share_pieces(storage, "some", ["a"], done.append) == ["a"] == done


def test_four_workers_on_a_database_one_killed_one_late(database: str, tmp_path: Path) -> None:
    workers = [start_worker(tmp_path, database, f"machine {index}", 0.7) for index in range(3)]
    wait_until(lambda: (read_ledger(tmp_path)["event"] == "ended").sum() >= 2, 90)
    killed = workers.pop(0)
    wait_until(lambda: (read_ledger(tmp_path)["pid"] == killed.pid).sum() % 2 == 1, 30)  # in the middle of a piece
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    workers.append(start_worker(tmp_path, database, "a late one", 0.7))
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0], (tmp_path / "log").read_text()
    ledger = read_ledger(tmp_path)
    ended = ledger.loc[ledger["event"] == "ended", "piece"]
    assert sorted(ended) == sorted(PIECES)  # each once
    assert all((tmp_path / piece).read_text() == piece for piece in PIECES)
    begun = ledger.loc[ledger["event"] == "begun", "piece"].value_counts()
    lost = ledger[ledger["pid"] == killed.pid].groupby("piece")["event"].agg(list)
    (again,) = lost[lost.map(lambda events: "ended" not in events)].index
    assert begun[again] == 2 and (begun.drop(again) == 1).all()  # the dead worker's piece was taken over, and no other
