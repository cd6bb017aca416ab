"""What a training leaves after each epoch: files that are whole, of the best epoch, and enough to go on from."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from livestock.exceptions import StaleResult, UnsafeWeights
from livestock.models.base import ModelConfig
from livestock.models.checkpoint import read_checkpoint
from livestock.plots.training import best_epoch, plot_scores
from livestock.training import read_history, resume
from livestock.training.ema import Average
from livestock.training.loop import State
from livestock.training.settings import TrainConfig

CONFIG = ModelConfig("fake", ("pig",), 64)
APS = [0.1, 0.4, 0.4, 0.3]
SETTINGS = TrainConfig("data.yaml", "", "hyp.yaml", imgsz=64, batch=2, epochs=1)


class KilledError(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def _fake_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "get_family", lambda name: SimpleNamespace(build=lambda config: nn.Linear(3, 2)))


def make_state(model: nn.Module | None = None) -> State:
    if model is None:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
    return State(model, Average(model), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
                 torch.amp.GradScaler("cpu", enabled=False))


def train_epoch(state: State, ap: float) -> None:
    """One step, whose gradient depends on the epoch alone."""
    generator = torch.Generator().manual_seed(state.epoch)
    for parameter in state.model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    state.optimizer.step()
    state.average.update(state.model)
    state.history = [*state.history, {"epoch": state.epoch, "AP": ap, "val_box_loss": 1 / (3 + state.epoch)}]
    state.epoch += 1


def go_on(run_dir: Path, aps: list[float]) -> None:
    """As `run_training` does: from the files in the folder to the end."""
    if len(resume.read_rows(run_dir)) >= len(aps):
        return resume.finish(run_dir)
    if there := resume.find_checkpoint(run_dir):
        state = make_state(resume.build(there)[1])
        resume.load(state, there, run_dir)
    else:
        state = make_state()
    while state.epoch < len(aps):
        train_epoch(state, aps[state.epoch])
        resume.keep(state, CONFIG, {"lr0": 0.1}, run_dir, saves=True)
    resume.finish(run_dir)


def read_all(run_dir: Path) -> dict[str, Any]:
    """The history, and each file of weights as its header and lists of numbers."""
    files = {path.name: read_checkpoint(path) for path in sorted((run_dir / "weights").glob("*.safetensors"))}
    weights = {name: (file.header, {key: tensor.tolist() for key, tensor in file.tensors.items()})
               for name, file in files.items()}
    return {"history": read_history(run_dir).to_dict("list"), **weights}


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_file_costs_an_epoch_at_most(is_after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                   ) -> None:
    """Killed just before, or just after, each file that a training writes gets its name; then it goes on."""
    replace_file, left = os.replace, [10**9]

    def replace_or_die(source: Path, target: Path) -> None:
        left[0] -= 1
        if left[0] == 0 and not is_after:
            raise KilledError
        replace_file(source, target)
        if left[0] == 0:
            raise KilledError

    monkeypatch.setattr(os, "replace", replace_or_die)
    go_on(tmp_path / "undisturbed", APS)
    n_files = 10**9 - left[0]
    expected = read_all(tmp_path / "undisturbed")
    assert n_files > 4 * len(APS) and len(expected) == 1 + len(APS) + 2
    for n in range(1, n_files + 1):
        run_dir, left[0] = tmp_path / str(n), n
        with pytest.raises(KilledError):
            go_on(run_dir, APS)
        go_on(run_dir, APS)
        assert read_all(run_dir) == expected, n
        assert resume.is_finished(run_dir, replace(SETTINGS, epochs=len(APS)))


def test_the_best_epoch_is_the_later_of_equals_and_the_one_that_the_figure_marks(tmp_path: Path) -> None:
    go_on(tmp_path, APS)
    found = read_all(tmp_path)
    assert found["best.safetensors"] == found["epoch0002.safetensors"]
    assert found["best.safetensors"][0]["epoch"] == best_epoch(read_history(tmp_path)) == 2
    others = [0.9, 0.2, 0.2, 0.9]
    history = pd.DataFrame({"epoch": range(4), "AP": APS, "AP50": others, "mAP50_95": others, "precision": 0.5,
                            "recall": 0.5})
    shown = [text.get_text() for text in plot_scores(history, 0.6).get_legend().get_texts()]
    assert "kept: epoch 2" in shown and "AP at IoU 0.6" in shown


def test_the_weights_of_the_last_epochs_alone_are_kept_and_their_mean_is_theirs(tmp_path: Path) -> None:
    n = resume.N_AVERAGED + 2
    go_on(tmp_path, [0.5] * n)
    assert [path.name for path in resume.epoch_weights(tmp_path)] == [
        f"epoch{epoch:04d}.safetensors" for epoch in range(2, n)]
    each = [read_checkpoint(path).tensors["weight"].double() for path in resume.epoch_weights(tmp_path)]
    mean = read_checkpoint(tmp_path / "weights/averaged.safetensors").tensors["weight"]
    assert torch.equal(mean, torch.stack(each).mean(0).half())
    assert not (tmp_path / "weights/last.safetensors").exists()
    assert not (tmp_path / "weights/previous.safetensors").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_leave_the_files_of_the_epoch_before(value: float, tmp_path: Path) -> None:
    state = make_state()
    for ap in APS[:2]:
        train_epoch(state, ap)
        resume.keep(state, CONFIG, {}, tmp_path, saves=True)
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"last.safetensors", "previous.safetensors", "best.safetensors", "history.jsonl"} < before.keys()
    with torch.no_grad():
        state.model.weight[0, 0] = value
    train_epoch(state, 0.9)
    with pytest.raises(UnsafeWeights, match=r"weight: expected finite numbers, found infinity or NaN in 1 of 6"):
        resume.keep(state, CONFIG, {}, tmp_path, saves=True)
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = make_state()
    train_epoch(state, 0.1)
    resume.keep(state, CONFIG, {}, tmp_path, saves=True)
    before = read_checkpoint(tmp_path / "weights/last.safetensors").tensors
    train_epoch(state, 0.2)

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        resume.keep(state, CONFIG, {}, tmp_path, saves=True)
    there = resume.find_checkpoint(tmp_path)
    assert there is not None and there.header["epoch"] == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in there.tensors.items())


def test_a_loss_on_the_validation_images_that_is_no_number_stops_nothing(tmp_path: Path) -> None:
    """JSON of a header has no NaN; the history may."""
    state = make_state()
    train_epoch(state, 0.1)
    state.history[-1]["val_box_loss"] = float("nan")
    resume.keep(state, CONFIG, {}, tmp_path, saves=True)
    there = resume.find_checkpoint(tmp_path)
    assert there is not None
    again = make_state(resume.build(there)[1])
    resume.load(again, there, tmp_path)
    assert np.isnan(again.history[0]["val_box_loss"]) and again.history[0]["AP"] == 0.1


def test_broken_checkpoints_are_passed_over_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "weights").mkdir()
    assert resume.find_checkpoint(tmp_path) is None
    for name in ("last", "previous"):
        (tmp_path / f"weights/{name}.safetensors").write_bytes(b"half")
    assert resume.find_checkpoint(tmp_path) is None
    assert [record.getMessage().split(": ")[:2] for record in caplog.records] == [
        ["passed over", str(tmp_path / f"weights/{name}.safetensors")] for name in ("last", "previous")]


def test_a_trial_leaves_its_history_alone(tmp_path: Path) -> None:
    state = make_state()
    for ap in APS[:2]:
        train_epoch(state, ap)
        resume.keep(state, CONFIG, {}, tmp_path, saves=False)
    assert [path.name for path in tmp_path.rglob("*")] == ["history.jsonl"]
    assert [json.loads(line)["AP"] for line in (tmp_path / "history.jsonl").read_text().splitlines()] == APS[:2]
    assert resume.is_finished(tmp_path, replace(SETTINGS, epochs=2, save=False))
    assert not resume.is_finished(tmp_path, replace(SETTINGS, epochs=2))


def test_a_folder_without_a_history_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("epoch\n0\n")  # an older version's
    with pytest.raises(StaleResult, match=rf"history\.jsonl: expected the scores .* delete {tmp_path} and train again"):
        read_history(tmp_path)
