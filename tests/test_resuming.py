"""A training killed at any moment goes on as if it had not been; half a checkpoint is never loaded."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch

from livestock.config import REPOSITORY
from livestock.models import yolov5
from livestock.models.yolov5.resuming import (
    Running,
    find_resumable,
    forget_epochs,
    is_finished,
    read_epochs,
    save_whole,
)
from livestock.models.yolov5.weights import STARTER, load_checkpoint
from livestock.plots.training import best_epoch

EPOCHS = 4


@pytest.fixture(scope="module")
def config(squares: Path) -> yolov5.TrainConfig:
    """Four epochs of twelve pictures."""
    return yolov5.TrainConfig(
        data_yaml=str(squares), weights=str(STARTER), imgsz=64, batch=4,
        nominal_batch=128,  # the optimizer's steps, more batches apart as training warms up, do not end with an epoch
        epochs=EPOCHS, hyp=str(REPOSITORY / "hyp/demo.yaml"), device="cpu", workers=2)


@pytest.fixture(scope="module")
def undisturbed(config: yolov5.TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    yolov5.train(config, run_dir)
    return run_dir


def assert_same(run_dir: Path, expected: Path) -> None:
    """Number by number: losses and scores of each epoch, and the weights."""
    pd.testing.assert_frame_equal(yolov5.read_history(run_dir), yolov5.read_history(expected), check_exact=True)
    for name in ("last", "best", "averaged"):
        ours, theirs = (load_checkpoint(folder / f"weights/{name}.pt")["model"].state_dict()
                        for folder in (run_dir, expected))
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
        if name == "best":  # chosen by the competition's metric, of epochs before the break too
            kept = f"weights/epoch{best_epoch(yolov5.read_history(run_dir)):04d}.pt"
            chosen = load_checkpoint(run_dir / kept)["model"].state_dict()
            assert all(torch.equal(tensor, ours[key]) for key, tensor in chosen.items())
        # in the usual order: another one is computed with other rounding
        assert all(tensor.stride() == torch.empty(tensor.shape).stride() for tensor in ours.values())


def train_and_die(config: yolov5.TrainConfig, run_dir: Path, n_epochs: int) -> None:
    """Trains, and kills its own process, and with it the training, after so many epochs."""

    def kill(scores: dict[str, float]) -> None:
        if scores["epoch"] + 1 == n_epochs:
            os.kill(os.getpid(), signal.SIGKILL)

    yolov5.train(config, run_dir, kill)


def train_until(config: yolov5.TrainConfig, run_dir: Path, n_epochs: int) -> None:
    """Trains in a process that kills itself, and with it the training, after so many epochs; gone when this returns.

    Not in a fork: PyTorch's threads of the process that forks are not in it, and it would wait for them for ever.
    """
    process = multiprocessing.get_context("spawn").Process(target=train_and_die, args=(config, run_dir, n_epochs))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    for orphan in psutil.process_iter(["cmdline"]):
        if str(run_dir) in " ".join(orphan.info["cmdline"] or []):
            orphan.wait(60)  # until it has seen that nobody watches it


def test_a_killed_training_goes_on_as_if_it_had_not_been(
    config: yolov5.TrainConfig, undisturbed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    train_until(config, run_dir, 2)
    done = len(read_epochs(run_dir / "results.csv"))
    assert 2 <= done < EPOCHS
    history = yolov5.train(config, run_dir)
    assert "resuming from" in (run_dir / "train.log").read_text()
    assert history["epoch"].tolist() == list(range(EPOCHS))
    assert_same(run_dir, undisturbed)


def test_half_a_checkpoint_is_never_loaded_and_the_one_before_is(
    config: yolov5.TrainConfig, undisturbed: Path, tmp_path: Path
) -> None:
    """Killed after the third epoch, moved, and `last.pt` cut short, as a Drive may leave it: the second goes on."""
    train_until(config, tmp_path / "began here", 3)
    run_dir = (tmp_path / "began here").rename(tmp_path / "run")
    last = run_dir / "weights/last.pt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    previous = load_checkpoint(run_dir / "weights/previous.pt")["epoch"]
    history = yolov5.train(config, run_dir)
    log = (run_dir / "train.log").read_text()
    assert "passed over: " in log and f"resuming from {run_dir / 'weights/previous.pt'}" in log
    assert history["epoch"].tolist() == list(range(EPOCHS)) and previous < EPOCHS - 1
    assert_same(run_dir, undisturbed)
    assert not (run_dir / "weights/previous.pt").exists()  # not needed any more
    assert not (tmp_path / "began here").exists()


def die_while_stripping(run_dir: Path, n_stripped: int) -> None:
    """Trains as `run_dir/config.json` says, and dies when all epochs are done and so many weights stripped."""
    from livestock.models.yolov5 import child, compat

    compat.apply()
    import yolov5.train as yolov5_train

    strip, left = yolov5_train.strip_optimizer, [None] * n_stripped

    def strip_or_die(path: Path) -> None:
        if not left:
            os._exit(9)
        left.pop()
        strip(path)

    yolov5_train.strip_optimizer = strip_or_die
    child.main(run_dir)


@pytest.mark.parametrize("n_stripped", [0, 1])
def test_a_training_killed_after_its_last_epoch_comes_to_its_end(
    config: yolov5.TrainConfig, tmp_path: Path, n_stripped: int
) -> None:
    run_dir, short = tmp_path / "run", replace(config, epochs=2, workers=0)
    run_dir.mkdir()
    (run_dir / "config.json").write_text(json.dumps(asdict(short)))
    process = multiprocessing.get_context("spawn").Process(target=die_while_stripping, args=(run_dir, n_stripped))
    process.start()
    process.join()
    before = read_epochs(run_dir / "results.csv")
    assert process.exitcode == 9 and len(before) == 2 and not is_finished(run_dir, 2)
    yolov5.train(short, run_dir)
    assert is_finished(run_dir, 2) and (run_dir / "weights/averaged.pt").exists()
    assert all(load_checkpoint(run_dir / f"weights/{name}.pt")["epoch"] == -1 for name in ("last", "best"))
    pd.testing.assert_frame_equal(read_epochs(run_dir / "results.csv"), before)


def test_a_finished_training_is_not_begun_anew(config: yolov5.TrainConfig, tmp_path: Path) -> None:
    """The session ended between the last epoch and what follows it."""
    run_dir = tmp_path / "run"
    short = replace(config, epochs=1)
    yolov5.train(short, run_dir)
    (run_dir / "weights/averaged.pt").unlink()
    log = (run_dir / "train.log").read_bytes()
    assert is_finished(run_dir, 1) and not is_finished(run_dir, 2)
    yolov5.train(short, run_dir)
    assert (run_dir / "train.log").read_bytes() == log
    assert (run_dir / "weights/averaged.pt").exists()
    assert find_resumable(run_dir / "weights") is None  # stripped: no optimizer to go on with


def test_a_checkpoint_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """Saving fails half-way: what was there before is still there, whole."""

    def fails(content: dict, file, *arguments: object) -> None:
        file.write(b"half")
        if content["n"] == 3:
            raise OSError(28, "No space left on device")
        torch.save(content, file)

    for n in (1, 2):
        save_whole(torch.save, Running())({"n": n}, tmp_path / "last.pt")
    with pytest.raises(OSError, match="No space left"):
        save_whole(fails, Running())({"n": 3}, tmp_path / "last.pt")
    found = [torch.load(tmp_path / name, weights_only=True)["n"] for name in ("previous.pt", "last.pt")]
    assert found == [1, 2]


def test_history_is_one_row_an_epoch_whatever_a_kill_left(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("  epoch,  x/lr0\n 0, 0.1\n 1, 0.2\n 1, 0.3\n 2, 0.4\n 3, 0.")
    table = read_epochs(path)
    assert table.to_numpy().tolist() == [[0, 0.1], [1, 0.3], [2, 0.4]]
    forget_epochs(tmp_path, 2)
    assert read_epochs(path)["epoch"].tolist() == [0, 1]
