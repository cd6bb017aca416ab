"""Further places to watch a training: they get the history's own numbers, and are not touched unless asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from livestock.config import REPOSITORY
from livestock.exceptions import BadData
from livestock.models.yolov5.library import STARTER
from livestock.training import TrainConfig, read_history, train
from livestock.training.loggers import make_loggers

ROWS = [{"epoch": epoch, "AP": 0.25 + epoch, "val_box_loss": 0.125, "lr": 0.5} for epoch in range(3)]


def make_config(data_yaml: Path, *loggers: str) -> TrainConfig:
    return TrainConfig(data_yaml=str(data_yaml), weights=str(STARTER), hyp=str(REPOSITORY / "hyp/demo.yaml"), imgsz=64,
                       batch=4, nominal_batch=8, epochs=2, device="cpu", workers=0, save=False, loggers=loggers)


def read_events(folder: Path) -> pd.DataFrame:
    """What TensorBoard shows of a folder: a row a step, a column a name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return pd.DataFrame({name: {event.step: event.value for event in events.Scalars(name)}
                         for name in events.Tags()["scalars"]})


def test_tensorboard_shows_each_epochs_row_of_a_training(squares: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="no tensorboard: pip install tensorboard")
    train(make_config(squares, "tensorboard"), tmp_path / "run")
    history = read_history(tmp_path / "run")
    assert len(history) == 2 and {"AP", "mAP50_95", "train_box_loss", "val_box_loss", "lr"} <= set(history)
    shown = read_events(tmp_path / "run/tensorboard")
    pd.testing.assert_frame_equal(shown[list(history)].astype(float), history.astype(float), rtol=1e-6)


def test_tensorboard_goes_on_in_the_folder_of_a_training_that_was_cut_off(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="no tensorboard: pip install tensorboard")
    for rows in (ROWS[:2], ROWS[1:]):  # the second epoch again
        [log] = make_loggers(make_config(Path("d.yaml"), "tensorboard"), tmp_path)
        for row in rows:
            log(row)
            assert read_events(tmp_path / "tensorboard")["AP"].iloc[-1] == row["AP"]  # at once, while it is open
    assert read_events(tmp_path / "tensorboard").to_dict("list") == pd.DataFrame(ROWS).to_dict("list")


def test_wandb_gets_settings_and_each_epochs_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a module in its place, which notes how it is called."""
    begun: list[dict[str, Any]] = []
    logged: list[tuple[dict[str, float], int]] = []

    def init(**options: Any) -> SimpleNamespace:
        begun.append(options)
        return SimpleNamespace(log=lambda row, step: logged.append((row, step)))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    config = make_config(Path("d.yaml"), "wandb")
    [log] = make_loggers(config, tmp_path / "train_fold0_ab12cd")
    for row in ROWS:
        log(row)
    assert logged == [(row, row["epoch"]) for row in ROWS]
    [options] = begun
    assert options["config"] == asdict(config)
    assert (options["project"], options["name"]) == ("livestock", "train_fold0_ab12cd")
    assert options["dir"] == str(tmp_path / "train_fold0_ab12cd")


def test_wandb_offline_keeps_the_run_in_its_folder(tmp_path: Path) -> None:
    """The real one, in a process of its own: it starts a service, and ends it with the process."""
    pytest.importorskip("wandb", reason="no wandb: pip install wandb, if need be with --target into a folder that "
                                        "PYTHONPATH names")
    code = f"""
from pathlib import Path
from livestock.training.loggers import make_loggers
from livestock.training.settings import TrainConfig
config = TrainConfig("d.yaml", "", "", imgsz=64, batch=4, epochs=3, loggers=("wandb",))
[log] = make_loggers(config, Path({str(tmp_path)!r}))
for row in {ROWS!r}:
    log(row)
"""
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr[-3000:]
    [file] = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert all(word in content for word in (b"val_box_loss", b"0.125", b"2.25", b"d.yaml"))


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed_says_what_to_install(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("wandb", "tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"logger {name}: it is not installed: pip install {name}"):
        make_loggers(make_config(Path("d.yaml"), name), tmp_path)


def test_an_unknown_logger_is_refused_before_any_begins(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="expected some of tensorboard, wandb, found 'mlflow'"):
        make_loggers(make_config(Path("d.yaml"), "tensorboard", "mlflow"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_loggers_nothing_of_them_is_imported(squares: Path, tmp_path: Path) -> None:
    """A whole training in one process, whose imports are seen, also those of what is not installed."""
    code = f"""
import sys
from pathlib import Path

class Watch:
    asked = []

    def find_spec(self, name, path=None, target=None):
        self.asked.append(name)

sys.meta_path.insert(0, Watch())
from livestock.training.loop import run_training
from livestock.training.settings import TrainConfig
config = TrainConfig(**{asdict(make_config(squares))!r})
events = []
run_training(config, Path({str(tmp_path)!r}), events.append)
assert events[-1]["epochs_done"] == 2.0
print(*[name for name in Watch.asked if name.startswith(("wandb", "tensorboard", "torch.utils.tensorboard"))])
print(len(Watch.asked) > 1000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # noqa: S603
    assert (done.returncode, done.stdout) == (0, "\nTrue\n"), done.stderr[-3000:]
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]
