"""What a run is told wins over its workspace's run.yaml, and that over the defaults."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from livestock.config import REPOSITORY, RunSettings, Workspace, get_profile, read_settings, settings_text
from livestock.pipeline import notebooks
from livestock.pipeline.preflight import NotReadyError, prepare_run
from livestock.pipeline.run import choose_hyp, describe_settings, from_here, keep_settings, make_run, save_settings
from livestock.pipeline.train import hyp_path
from livestock.sample import draw_sample
from livestock.training.hyp import read_hyp


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, without anything in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(workspace: Path, **values: Any) -> None:
    """A run.yaml with these values."""
    workspace.mkdir(exist_ok=True)
    (workspace / "run.yaml").write_text(settings_text(RunSettings(**values), Workspace(workspace)))


def test_without_anything_said_the_defaults_hold(here: Path) -> None:
    run = make_run()
    assert run.profile == get_profile("demo")
    assert (run.workspace.root, run.data_dir, run.reader, run.seed) == (Path("data"), Path("data/raw"), "auto", 42)
    assert run.folds == [0]
    assert run.competition.labels == ["pig", "cow"]  # of the file that comes with the package
    assert not list(here.iterdir())


def test_a_competition_file_here_comes_before_the_package_s(here: Path) -> None:
    (here / "competition.yaml").write_text("name: birds\nclasses: [gull, tern]\n")
    assert make_run().competition.labels == ["gull", "tern"]


def test_run_yaml_says_what_is_not_said(here: Path) -> None:
    (here / "birds.yaml").write_text("name: birds\nclasses: [gull, tern]\n")
    write(here / "ws", profile="cpu", data="/far/raw", reader="yolo", competition=str(here / "birds.yaml"),
          weights="yolov5s.pt", folds=(1, 2), seed=7, overrides={"epochs": 40})
    run = make_run(workspace="ws")
    assert run.profile == get_profile("cpu", weights="yolov5s.pt", epochs=40)
    assert (run.data_dir, run.reader, run.folds, run.seed) == (Path("/far/raw"), "yolo", [1, 2], 7)
    assert run.competition.labels == ["gull", "tern"]


def test_what_is_said_wins_over_run_yaml(here: Path) -> None:
    write(here / "ws", data="/far/raw", reader="yolo", weights="yolov5s.pt", folds=(1, 2), seed=7,
          overrides={"epochs": 40})
    run = make_run(workspace="ws", profile="demo", data="near", reader="voc", weights="yolov5m.pt", folds=[3], seed=8,
                   overrides={"imgsz": 640})
    assert run.profile == get_profile("demo", weights="yolov5m.pt", imgsz=640)
    assert (run.data_dir, run.reader, run.folds, run.seed) == (Path("near"), "voc", [3], 8)
    assert make_run(workspace="ws", overrides={}).profile.epochs == get_profile("demo").epochs


def test_what_run_yaml_says_of_another_profile_does_not_count(here: Path) -> None:
    write(here / "ws", profile="colab", data="/far/raw", weights="yolov5s.pt", hyp="/far/hyp.yaml",
          overrides={"imgsz": 1536})
    run = make_run(workspace="ws", profile="smoke")
    assert run.profile == get_profile("smoke")
    assert run.settings.hyp == ""
    assert run.data_dir == Path("/far/raw")


def test_a_fresh_run_passes_over_run_yaml(here: Path) -> None:
    write(here / "ws", profile="cpu", weights="yolov5s.pt", seed=7, overrides={"epochs": 40})
    run = make_run(workspace="ws", fresh=True)
    assert (run.profile, run.seed) == (get_profile("demo"), 42)


def test_paths_begin_at_the_current_directory(here: Path) -> None:
    assert from_here("data") == from_here(here / "data") == Path("data")
    assert from_here("../x") == here.parent / "x"
    assert from_here(here) == here
    (here / "mine.pt").write_bytes(b"")
    run = make_run(data="raw", weights="mine.pt", hyp="mine.yaml")
    assert run.settings.data == str(here / "raw")
    assert (run.settings.weights, run.profile.weights) == (str(here / "mine.pt"), "mine.pt")
    assert run.settings.hyp == str(here / "mine.yaml")


def test_single_hyper_parameters_are_changed_in_a_copy(here: Path) -> None:
    plain = make_run(profile="smoke")
    assert hyp_path(plain) == choose_hyp(plain) == REPOSITORY / "hyp/demo.yaml"
    run = make_run(profile="smoke", overrides={"hyp.lr0": 0.005, "hyp.mosaic": 0})
    expected = {**read_hyp(REPOSITORY / "hyp/demo.yaml"), "lr0": 0.005, "mosaic": 0}
    assert read_hyp(hyp_path(run)) == read_hyp(choose_hyp(run)) == expected
    assert hyp_path(run).parent == here / "data/interim"
    assert hyp_path(run).read_text().startswith("# demo.yaml with lr0 0.005, mosaic 0\n")
    other = make_run(profile="smoke", overrides={"hyp.lr0": 0.006})
    assert hyp_path(other).name != hyp_path(run).name  # a training that goes on keeps its own
    assert read_hyp(hyp_path(run)) == expected


def test_the_file_to_train_with_is_the_one_named_with_the_overrides_in_it(here: Path) -> None:
    for number, name in enumerate(("evolved.yaml", "own.yaml"), 1):
        values = {**read_hyp(REPOSITORY / "hyp/demo.yaml"), "box": number / 10}
        (here / name).write_text(yaml.safe_dump(values))
    assert choose_hyp(make_run(hyp="evolved.yaml")) == Path("evolved.yaml")
    run = make_run(hyp="evolved.yaml", overrides={"hyp.lr0": 0.005})
    assert [read_hyp(choose_hyp(run, hyp))["box"] for hyp in ("", "own.yaml")] == [0.1, 0.2]
    assert [read_hyp(choose_hyp(run, hyp))["lr0"] for hyp in ("", "own.yaml")] == [0.005, 0.005]
    assert read_hyp(hyp_path(run))["box"] == read_hyp(REPOSITORY / "hyp/demo.yaml")["box"]  # where a search starts


@pytest.mark.bad_input
@pytest.mark.parametrize(("said", "words"), [
    ({"overrides": {"hyp.boxx": 0.1}}, "overrides: hyp.boxx: unknown hyper-parameter, meant is perhaps 'box'"),
    ({"overrides": {"hyp.fliplr": 2.0}}, "overrides: hyp.fliplr: expected a number from 0 to 1, found 2"),
    ({"overrides": {"epochs": 0}}, "overrides: epochs: expected a whole number, 1 or more, found 0"),
    ({"overrides": {"epoch": 3}}, "overrides: unknown key 'epoch', meant is perhaps 'epochs'"),
    ({"profile": "clab"}, "profile: expected one of ['colab', 'colab_best', 'cpu', 'demo', 'smoke'], found 'clab'"),
    ({"folds": [7]}, "folds: expected different folds from 0 to 4 such as [0, 1], found [7]"),
    ({"reader": "coc"}, "reader: expected one of ['auto', "),
])
def test_what_cannot_be_is_refused(said: dict[str, Any], words: str, here: Path) -> None:
    with pytest.raises(ValueError) as refusal:
        make_run(**said)
    assert words in str(refusal.value)


@pytest.mark.bad_input
def test_a_wrong_override_is_listed_with_everything_else(here: Path) -> None:
    draw_sample(here / "raw", n_train=8, n_test=2, scale=0.1)
    parameters = {"PROFILE": "smoke", "WORKSPACE": "ws", "DATA": "raw", "OVERRIDES": {"hyp.boxx": 0.1}}
    with pytest.raises(NotReadyError) as refusal:
        prepare_run({**parameters, "WEIGHTS": "mine.pt"})
    words = str(refusal.value)
    assert words.startswith("2 things to put right:\n- weights 'mine.pt': no such file")
    assert "overrides: hyp.boxx: unknown hyper-parameter, meant is perhaps 'box'" in words
    write(here / "ws", profile="smoke", weights="nothing.pt")  # of an earlier run
    assert prepare_run({**parameters, "OVERRIDES": {"epochs": 2}})[0].profile == get_profile("smoke", epochs=2)


def test_the_first_notebook_writes_run_yaml_and_no_other_changes_it(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keep_settings(make_run(profile="cpu", data="raw", overrides={"epochs": 40, "hyp.lr0": 0.005}))
    kept = read_settings(Workspace(here / "data"))
    assert kept == RunSettings("cpu", data=str(here / "raw"), overrides={"epochs": 40, "hyp.lr0": 0.005})
    assert caplog.messages[-1] == (
        "profile cpu, seed 42, data raw, reader auto, competition livestock, weights yolov5n.pt, 416 px, 40 epochs, "
        "hyp.lr0 0.005; the rest is in data/run.yaml")
    other = make_run(profile="cpu", data="other", seed=7)
    keep_settings(other)
    assert read_settings(Workspace(here / "data")) == kept
    wins = "and what this notebook says itself wins"
    assert caplog.messages[-1].endswith(f"; data/run.yaml has data {here / 'raw'}, seed 42, {wins}")
    assert other.profile.epochs == 40
    save_settings(other)
    kept = read_settings(other.workspace)
    assert describe_settings(make_run(seed=42), kept).endswith(f"; data/run.yaml has seed 7, {wins}")
    assert describe_settings(make_run(), kept).endswith("the rest is in data/run.yaml")


def test_notebooks_that_are_run_get_whole_paths(here: Path) -> None:
    run = make_run(workspace="ws", profile="smoke", data="raw", hyp="mine.yaml", folds=[1, 2], seed=7, fresh=True)
    save_settings(run)
    told = notebooks.notebook_parameters(run)
    assert told == {"PROFILE": "smoke", "SEED": 7, "WORKSPACE": str(here / "ws"), "DATA": str(here / "raw"),
                    "READER": "auto", "COMPETITION": "", "WEIGHTS": "", "HYP": "", "FOLDS": [1, 2]}
    names = ("PROFILE", "SEED", "WORKSPACE", "DATA", "READER", "COMPETITION", "WEIGHTS")
    assert make_run(**{name.lower(): told[name] for name in names}) == run  # with what run.yaml adds
