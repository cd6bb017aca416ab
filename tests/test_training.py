"""The training loop on tiny pictures, for real: what it leaves, how it goes on after a kill, and how it fails."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from livestock.config import REPOSITORY
from livestock.exceptions import BadData, UnsafeWeights
from livestock.models.checkpoint import load_model, read_checkpoint, write_checkpoint
from livestock.models.registry import find_start, get_family
from livestock.plots.training import best_epoch
from livestock.training import TrainConfig, loop, read_history, resume, train
from livestock.training.process import PROGRESS, SETTINGS, WATCHER, launch_side_by_side
from livestock.training.resume import PREVIOUS, is_finished
from livestock.training.scores import score_boxes
from livestock.training.settings import Place

FAMILIES: dict[str, dict[str, Any]] = {  # two epochs, one before and one after a cut, where one takes seconds
    "yolov5": {"weights": "starter.safetensors", "hyp": "demo.yaml", "epochs": 3},
    "retinanet": {"size": "resnet18", "hyp": "retinanet.yaml", "epochs": 2},
    "dfine": {"size": "dfine_n", "hyp": "dfine.yaml", "optimizer": "AdamW", "imgsz": 256, "epochs": 2},
}


def make_config(data_yaml: Path, family: str, **changes: object) -> TrainConfig:
    own = dict(FAMILIES[family])
    own["hyp"] = str(REPOSITORY / "hyp" / own["hyp"])
    if "weights" in own:
        own["weights"] = str(find_start(family, own["weights"], data_yaml.parent))
    settings = {"data_yaml": str(data_yaml), "weights": "", "family": family, "imgsz": 64, "batch": 4,
                "nominal_batch": 8, "device": "cpu", "workers": 0, **own}
    return TrainConfig(**{**settings, **changes})


@pytest.fixture(scope="module", params=FAMILIES)
def config(request: pytest.FixtureRequest, squares: Path) -> TrainConfig:
    return make_config(squares, request.param)


@pytest.fixture(scope="module")
def yolo(squares: Path) -> TrainConfig:
    return make_config(squares, "yolov5")


@pytest.fixture(scope="module")
def undisturbed(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "a run"  # a path with a space
    train_here(config, run_dir)
    return run_dir


def train_here(config: TrainConfig, run_dir: Path, report: Callable[[dict], None] = lambda event: None) -> None:
    """Trains in this process, whose threads stay as they are: what a process that trains does, without its start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_prepare_process", lambda place: None)
        loop.run_training(config, run_dir, report)


def find_children(pid: int | None = None) -> list[psutil.Process]:
    """The processes that train for this process, or for another that may be gone."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "livestock.training.child" in (process.info["cmdline"] or []):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.environ().get(WATCHER) == str(pid or os.getpid()):
                    found.append(process)
    return found


def train_and_die(config: TrainConfig, run_dir: Path, n_epochs: int) -> None:
    """Trains, and kills its own process, and with it the training, after so many epochs."""

    def kill(row: dict[str, float]) -> None:
        if row["epoch"] + 1 == n_epochs:
            os.kill(os.getpid(), signal.SIGKILL)

    train(config, run_dir, kill)


def watch_until(config: TrainConfig, run_dir: Path, n_epochs: int) -> None:
    """Trains in a process that is killed after so many epochs; returns when what it has started is gone too."""
    process = multiprocessing.get_context("spawn").Process(target=train_and_die, args=(config, run_dir, n_epochs))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    for orphan in find_children(process.pid):
        orphan.wait(60)  # until it has seen that nobody watches it


def assert_same(run_dir: Path, expected: Path) -> None:
    """Number by number: losses and scores of each epoch, and the weights."""
    machine = ["seconds", "valid_seconds", "gigabytes"]
    ours, theirs = (read_history(folder).drop(columns=machine) for folder in (run_dir, expected))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    for name in ("best", "averaged"):
        found, wanted = (read_checkpoint(folder / f"weights/{name}.safetensors").tensors
                         for folder in (run_dir, expected))
        assert found.keys() == wanted.keys() and all(torch.equal(tensor, wanted[key]) for key, tensor in found.items())


def test_a_training_leaves_history_and_weights(config: TrainConfig, undisturbed: Path) -> None:
    history = read_history(undisturbed)
    assert history["epoch"].tolist() == list(range(config.epochs))
    assert np.isfinite(history).all(axis=None)
    assert {"AP", "AP50", "AP75", "mAP50_95", "precision", "recall", "lr", "seconds"} <= set(history)
    train_parts, valid_parts = ({name.removeprefix(kind) for name in history if name.startswith(kind)}
                                for kind in ("train_", "val_"))
    assert valid_parts and valid_parts <= train_parts  # D-FINE has parts in training alone
    best = read_checkpoint(undisturbed / "weights/best.safetensors")
    assert best.config.labels == ("pig",) and best.config.family == config.family
    assert best.config.imgsz == config.imgsz
    assert best.header["epoch"] == best_epoch(history)
    assert {tensor.dtype for tensor in best.tensors.values() if tensor.is_floating_point()} == {torch.float16}
    model_config, model = load_model(undisturbed / "weights/averaged.safetensors")
    assert not model.training and model_config == best.config
    assert not (undisturbed / "weights/last.safetensors").exists()


def test_the_averaged_weights_are_the_mean_of_the_last_epochs(config: TrainConfig, undisturbed: Path) -> None:
    weights = undisturbed / "weights"
    epochs = [read_checkpoint(weights / f"epoch{number:04d}.safetensors").tensors for number in range(config.epochs)]
    mean = read_checkpoint(weights / "averaged.safetensors").tensors
    changed = 0
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            each = torch.stack([epoch[name].float() for epoch in epochs])
            torch.testing.assert_close(tensor, each.mean(dim=0).half(), rtol=1e-3, atol=1e-6)
            changed += not torch.equal(each[0], each[-1])
    assert changed


def test_a_training_that_was_cut_off_goes_on_as_if_it_had_not_been(
    config: TrainConfig, undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the family; that a process is killed, and what it then leaves, is another test's."""
    run_dir = tmp_path / "run"

    def end(event: dict) -> None:
        if "epoch" in event:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_here(config, run_dir, end)
    assert len(read_history(run_dir)) == 1
    caplog.set_level("INFO")
    train_here(config, run_dir)
    assert "resuming from" in caplog.text
    assert_same(run_dir, undisturbed)


def test_frozen_tensors_stay_as_they_were_and_a_cut_changes_nothing(yolo: TrainConfig, tmp_path: Path) -> None:
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text(f"{Path(yolo.hyp).read_text()}\nfreeze: 0.5\n")
    config = replace(yolo, hyp=str(hyp), epochs=2)
    train_here(config, tmp_path / "whole")

    def end(event: dict) -> None:
        if "epoch" in event:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_here(config, tmp_path / "cut", end)
    train_here(config, tmp_path / "cut")
    assert_same(tmp_path / "cut", tmp_path / "whole")
    before, after = (list(load_model(path)[1].parameters()) for path in (
        Path(config.weights), tmp_path / "whole/weights/best.safetensors"))
    is_same = [first.shape == second.shape and torch.equal(first.half(), second.half())
               for first, second in zip(before, after, strict=True)]
    half = len(before) // 2
    assert all(is_same[:half]) and is_same[half:].count(False) > half // 2  # few steps leave some halves as they were


@pytest.mark.bad_input
def test_what_is_random_is_not_frozen(squares: Path, tmp_path: Path) -> None:
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text(f"{(REPOSITORY / 'hyp/retinanet.yaml').read_text()}\nfreeze: 0.5\n")
    with pytest.raises(BadData, match="freeze 0.5: expected to reach tensors of the start weights alone, found 'back"):
        train_here(make_config(squares, "retinanet", hyp=str(hyp)), tmp_path / "run")


def test_half_a_checkpoint_is_never_loaded_and_the_one_before_is(yolo: TrainConfig, tmp_path: Path) -> None:
    """Nobody watches it after the third epoch; moved, and the last checkpoint cut short, as a Drive may leave it."""
    longer = replace(yolo, epochs=4)
    train(longer, tmp_path / "undisturbed")
    watch_until(longer, tmp_path / "began here", 3)
    run_dir = (tmp_path / "began here").rename(tmp_path / "run")
    last = run_dir / "weights/last.safetensors"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    train(longer, run_dir)
    log = (run_dir / "train.log").read_text()
    assert "passed over: " in log and f"resuming from {run_dir / 'weights' / PREVIOUS}" in log
    assert_same(run_dir, tmp_path / "undisturbed")
    assert not (tmp_path / "began here").exists()
    events = [json.loads(line) for line in (run_dir / PROGRESS).read_text().splitlines()]
    assert events[-2]["epochs_done"] == 4 and events[-1] == {"is_over": True}


def test_a_finished_training_is_not_begun_again(yolo: TrainConfig, tmp_path: Path) -> None:
    """The session ended between the last epoch and what follows it: only that is done."""
    run_dir, short = tmp_path / "run", replace(yolo, epochs=1)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(resume, "finish", Mock(side_effect=KeyboardInterrupt))
        train_here(short, run_dir)
    before = read_history(run_dir)
    assert not is_finished(run_dir, short) and not is_finished(run_dir, replace(short, epochs=2))
    train(short, run_dir)
    assert is_finished(run_dir, short)
    pd.testing.assert_frame_equal(read_history(run_dir), before)
    log = (run_dir / "train.log").read_bytes()
    train(short, run_dir)
    assert (run_dir / "train.log").read_bytes() == log


def test_a_trial_reports_each_epoch_and_saves_nothing(yolo: TrainConfig, tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    history = train(replace(yolo, save=False, epochs=2), tmp_path / "run", rows.append)
    pd.testing.assert_frame_equal(pd.DataFrame(rows), history)
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_what_on_epoch_raises_ends_the_training(yolo: TrainConfig, tmp_path: Path) -> None:
    class EnoughError(Exception):
        pass

    def stop(row: dict[str, float]) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        train(replace(yolo, epochs=50), tmp_path / "run", stop)
    assert not find_children()


def test_a_process_that_has_trained_trains_again_unless_its_environment_changes(
    yolo: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers come out, whatever it has trained before; it ends with its last training's failure."""
    own = replace(yolo, epochs=1)
    train(replace(own, seed=1), tmp_path / "before")
    [process] = find_children()
    train(own, tmp_path / "second")
    assert find_children() == [process]
    monkeypatch.setenv("LIVESTOCK_TEST", "another")
    train(own, tmp_path / "first")
    assert not process.is_running() and len(find_children()) == 1
    assert_same(tmp_path / "second", tmp_path / "first")
    [waiting] = find_children()
    waiting.kill()  # the next training starts another
    waiting.wait(10)
    with pytest.raises(RuntimeError, match="exit status 1"):
        train(replace(own, hyp=str(tmp_path / "missing.yaml")), tmp_path / "broken")
    assert not find_children()


def test_a_loss_that_is_not_finite_ends_the_training_with_what_to_do(yolo: TrainConfig, tmp_path: Path) -> None:
    """Weights of before stay, and nothing is written of what diverged."""
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text(Path(yolo.hyp).read_text().replace("lr0: 0.0003", "lr0: 1000000000000"))
    with pytest.raises(RuntimeError, match=r"the \w+ loss is nan.*diverged(.|\n)*lower lr0|expected finite numbers"):
        train(replace(yolo, hyp=str(hyp), epochs=6, nominal_batch=4), tmp_path / "run")
    for path in (tmp_path / "run").rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in read_checkpoint(path).tensors.values())
    assert not (tmp_path / "run/weights/averaged.safetensors").exists()


def test_start_weights_that_are_not_finite_are_refused(yolo: TrainConfig, tmp_path: Path) -> None:
    start = read_checkpoint(Path(yolo.weights))
    path = tmp_path / "start.safetensors"
    write_checkpoint(path, start.config, start.tensors, half=True)
    name = next(name for name, tensor in start.tensors.items() if tensor.is_floating_point())
    from safetensors.torch import load_file, save_file

    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        metadata = json.loads(file.read(length))["__metadata__"]
    tensors = load_file(path)
    tensors[name].view(-1)[0] = math.nan
    save_file(tensors, path, metadata)
    with pytest.raises(UnsafeWeights, match=f"{name}: expected finite numbers"):
        train(replace(yolo, weights=str(path)), tmp_path / "run")


@pytest.mark.parametrize("family", FAMILIES)
def test_any_family_starts_from_a_file_or_from_random_weights(family: str, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    own.touch()
    assert find_start(family, str(own), tmp_path / "weights") == own
    size = get_family(family).sizes[0]
    assert find_start(family, size, tmp_path / "weights") is None
    other = next(name for name in FAMILIES if name != family)
    with pytest.raises(BadData, match=f"found a size of {other}: add --family {other}"):
        find_start(family, get_family(other).sizes[0], tmp_path / "weights")
    with pytest.raises(ValueError, match=r"missing\.safetensors': "):
        find_start(family, "missing.safetensors", tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_start_weights_that_would_run_code_are_refused_before_training(yolo: TrainConfig, tmp_path: Path) -> None:
    torch.save({"model": print}, tmp_path / "evil.pt")
    with pytest.raises(UnsafeWeights, match=r"evil\.pt: refused, .*print"):
        train(replace(yolo, weights=str(tmp_path / "evil.pt")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_code_in_the_architecture_of_start_weights_does_not_run(yolo: TrainConfig, tmp_path: Path) -> None:
    """It is refused where the network would be built, in the process that trains."""
    start = read_checkpoint(Path(yolo.weights))
    architecture = json.loads(json.dumps(start.config.architecture))
    architecture["backbone"][0][2] = f"[__import__('pathlib').Path({str(tmp_path / 'it ran')!r}).touch(), Conv][1]"
    path = tmp_path / "evil.safetensors"
    write_checkpoint(path, replace(start.config, architecture=architecture), start.tensors)
    with pytest.raises(RuntimeError, match="architecture: layer 0: module: refused"):
        train(replace(yolo, weights=str(path)), tmp_path / "run")
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(("changes", "rtol"), [
    pytest.param({"compiler": "aot_eager"}, 1e-4, marks=pytest.mark.long),  # it compiles for a minute
    ({"bf16": True}, 0.02),
])
def test_compiled_or_in_bf16_it_is_the_same_training(
    yolo: TrainConfig, tmp_path: Path, changes: dict[str, object], rtol: float
) -> None:
    """Three steps, the last of a smaller batch; the compiler is one that is there everywhere."""
    own = replace(yolo, epochs=1, batch=5, nominal_batch=5, save=False)
    expected, found = train(own, tmp_path / "plain"), train(replace(own, **changes), tmp_path / "changed")
    losses = [name for name in expected if name.startswith("train_")]
    np.testing.assert_allclose(found[losses], expected[losses], rtol=rtol, atol=1e-6)
    if "bf16" in changes:
        assert not found[losses].equals(expected[losses])  # it was in bf16 at all


def test_a_crash_leaves_this_process_alive_and_shows_the_log(yolo: TrainConfig, tmp_path: Path) -> None:
    broken = replace(yolo, hyp=str(tmp_path / "missing.yaml"))
    with pytest.raises(RuntimeError, match=r"exit status 1; the end of .*train\.log:\n(.|\n)*missing\.yaml"):
        train(broken, tmp_path / "run")


def test_classes_of_the_start_weights_go_to_their_places(
    yolo: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The starter knows pig and cow: as the second class of other data, pig still starts from what is known of it."""
    text = Path(yolo.data_yaml).read_text()
    data_yaml = Path(yolo.data_yaml).with_name("two.yaml")
    data_yaml.write_text(text.replace("nc: 1", "nc: 2").replace("0: pig", "0: Rind\n  1: pig"))
    own = replace(yolo, data_yaml=str(data_yaml), epochs=1)
    train(own, tmp_path / "run", label_of={"cow": "Rind", "pig": "pig"}.get)
    assert "its classes ['pig', 'cow'] are moved to the order of this competition, ['Rind', 'pig']" in caplog.text
    config, model = load_model(tmp_path / "run/weights/best.safetensors")
    assert config.labels == ("Rind", "pig")
    start = read_checkpoint(Path(yolo.weights))
    assert start.config.labels == ("pig", "cow")
    head = [name for name in start.tensors if name.startswith("model.24.m.") or ".m.0.bias" in name][-1]
    rows = start.tensors[head].float().reshape(3, 7, -1), model.state_dict()[head].reshape(3, 7, -1)
    torch.testing.assert_close(rows[1][:, 5], rows[0][:, 6], rtol=0.05, atol=0.05)  # it has trained a little since
    torch.testing.assert_close(rows[1][:, 6], rows[0][:, 5], rtol=0.05, atol=0.05)


def test_two_processes_train_as_one(yolo: TrainConfig, tmp_path: Path) -> None:
    """torchrun with two processes on the CPU: both halves of each batch count, one writes, and the loss is the same."""
    own = replace(yolo, epochs=2)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / SETTINGS).write_text(json.dumps({"config": asdict(own), "start_labels": None}))
    process = subprocess.Popen(  # noqa: S603
        [*launch_side_by_side(2), "-m", "livestock.training.child", str(run_dir)], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"})
    try:
        _, said = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        agent = psutil.Process(process.pid)
        for one in [*agent.children(recursive=True), agent]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGABRT)  # each says where it waits
        pytest.fail(f"not done after 5 minutes: {process.communicate(timeout=60)[1][-20_000:]}")
    assert process.returncode == 0, said[-2000:]
    history = read_history(run_dir)
    train(own, tmp_path / "alone")
    alone = read_history(tmp_path / "alone")
    assert history["epoch"].tolist() == [0, 1]
    assert (run_dir / "weights/averaged.safetensors").exists()
    losses = [name for name in alone if name.startswith("train_")]
    np.testing.assert_allclose(history[losses], alone[losses], rtol=0.5)  # other crops, the same pictures


def test_the_scores_of_boxes_are_those_of_an_independent_count() -> None:
    from livestock.tables import make_boxes

    corners = {"y_min": 0.0, "y_max": 10.0, "label": "pig", "image_id": "a.jpg"}
    truth = make_boxes([{**corners, "x_min": 100.0 * n, "x_max": 100.0 * n + 100} for n in range(4)])
    found = truth.iloc[:3].assign(x_max=[100, 185, 255], confidence=[0.9, 0.8, 0.7])  # IoU 1, .85 and .55
    scores = score_boxes(truth, found, metric_iou=0.8)
    assert scores["AP50"] == pytest.approx(3 / 4) and scores["AP75"] == scores["AP"] == pytest.approx(2 / 4)
    each = [3 / 4] * 2 + [2 / 4] * 6 + [1 / 4] * 2
    assert scores["mAP50_95"] == pytest.approx(np.mean(each))
    assert (scores["precision"], scores["recall"]) == (1.0, 0.75)


def test_start_weights_of_another_family_are_refused(yolo: TrainConfig, tmp_path: Path) -> None:
    hyp = str(REPOSITORY / "hyp/retinanet.yaml")
    with pytest.raises(RuntimeError, match="expected weights of the family retinanet, found yolov5"):
        train(replace(yolo, family="retinanet", hyp=hyp), tmp_path / "run")


def test_gradients_of_many_boxes_are_the_same_each_time() -> None:
    """What a loss picks out of its maps by place gets its gradient by place, and many boxes have the same one."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randint(0, 4, (60_000,), generator=generator) for _ in range(2))
    weights, threads = torch.randn(60_000, 7, generator=generator), torch.get_num_threads()

    def find() -> torch.Tensor:
        maps = torch.zeros(52, 52, 7, requires_grad=True)
        (maps[rows, columns] * weights).sum().backward()
        assert maps.grad is not None
        return maps.grad

    try:
        loop._prepare_process(Place("cpu"))
        first = find()
        assert all(torch.equal(find(), first) for _ in range(20))
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
