"""Profiles, the single values that a run changes of them, and what a workspace keeps of what its run was told."""

from __future__ import annotations

import doctest
import importlib
from dataclasses import replace
from pathlib import Path

import pytest

from livestock.config import (
    Profile,
    RunSettings,
    Workspace,
    get_profile,
    known_profiles,
    parse_overrides,
    read_settings,
    resource,
    settings_path,
    settings_text,
    split_overrides,
)
from livestock.config.profile import read_profiles
from livestock.exceptions import BadData

WHOLE = "weights: a.pt\n  imgsz: 64\n  batch: 4\n  epochs: 1\n  hyp: demo.yaml\n"


@pytest.mark.parametrize("name", ["overrides", "profile", "resources", "words"])
def test_the_examples_of_the_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"livestock.config.{name}"))
    assert (found.attempted > 0, found.failed) == (True, 0)


def test_the_profiles_that_come_with_the_code() -> None:
    assert list(known_profiles()) == ["smoke", "demo", "cpu", "colab", "colab_best"]
    assert get_profile("smoke") == Profile(
        "smoke", "starter.safetensors", imgsz=64, batch=4, epochs=1, hyp="demo.yaml", device="cpu", workers=0, trials=2,
        trial_epochs=1, n_verified=1, n_seeds=1)
    assert get_profile("colab") == Profile(
        "colab", "yolov5m6.pt", imgsz=1280, batch=10, epochs=20, hyp="competition.yaml", device="", workers=2,
        optimizer="SGD", schedule="linear", nominal_batch=64, compiler="", bf16=False, trials=40, trial_epochs=7,
        n_verified=3, n_seeds=3, family="yolov5", loggers="")
    assert get_profile("cpu").nominal_batch == 16
    assert {profile.hyp for profile in known_profiles().values()} <= {
        path.name for path in resource("hyp").iterdir()}


@pytest.mark.bad_input
@pytest.mark.parametrize(("text", "words"), [
    (WHOLE.replace("epochs: 1", "epochs: 0"), "epochs: expected a whole number, 1 or more, found '0'"),
    (WHOLE.replace("epochs: 1", "epochs: 1.5"), "epochs: expected a whole number, 1 or more, found '1.5'"),
    (WHOLE.replace("epochs: 1", "epochs: many"), "epochs: expected a whole number, 1 or more, found 'many'"),
    (WHOLE.replace("imgsz: 64", "imgsz: 65"), "imgsz: expected a multiple of 32, 32 or more, found '65'"),
    (WHOLE.replace("imgsz: 64", "imgsz: 0"), "imgsz: expected a multiple of 32, 32 or more, found '0'"),
    (WHOLE.replace("imgsz: 64", "imgsz: -64"), "imgsz: expected a multiple of 32, 32 or more, found '-64'"),
    (WHOLE.replace("batch: 4", "batch: 0"), "batch: expected a whole number, 1 or more, found '0'"),
    (WHOLE.replace("  batch: 4\n", ""), "batch: this key is missing"),
    (WHOLE.replace("weights: a.pt", "weights: ''"), "weights: expected a name, found an empty text"),
    (WHOLE + "  workers: -1\n", "workers: expected a whole number, 0 or more, found '-1'"),
    (WHOLE + "  optimizer: Lion\n", "optimizer: expected one of 'SGD', 'Adam', 'AdamW', found 'Lion'"),
    (WHOLE + "  search_freeze: 1\n", "search_freeze: expected a share from 0 to below 1, found '1'"),
    (WHOLE + "  search_freeze: half\n", "search_freeze: expected a share from 0 to below 1, found 'half'"),
    (WHOLE + "  bf16: 1\n", "bf16: expected true or false, found '1'"),
    (WHOLE + "  schedule: cos\n", "schedule: expected one of 'linear', 'cosine', 'step', found 'cos'"),
    (WHOLE + "  family: yolov8\n",
     "family: expected one of 'yolov5', 'retinanet', 'ssd', 'tood', 'yolox', 'dfine', 'rfdetr', found 'yolov8'"),
    (WHOLE + "  family: topdown\n", "found 'topdown', which finds keypoints and no boxes: the notebooks 10_heatmap"),
    (WHOLE + "  family: yolo_pose\n", "found 'yolo_pose', which finds keypoints for experiments: the notebook 12_yolo"),
    (WHOLE + "  loggers: tensorboard, comet\n", "loggers: expected one of 'tensorboard', 'wandb', found 'comet'"),
    (WHOLE + "  compiler: gcc\n", "compiler: expected one of '', 'inductor', found 'gcc'"),
    (WHOLE + "  device: [0]\n", "device: expected a text of one line, found ['0']"),
    (WHOLE + "  epoch: 3\n", "unknown key 'epoch', meant is perhaps 'epochs'; expected one of ['batch', 'bf16', "),
    (WHOLE + "  epochs: 3\n", "the key 'epochs' is there twice"),
])
def test_a_wrong_profile_is_refused_by_file_and_key(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "profiles.yaml"
    path.write_text(f"mine:\n  {text}")
    with pytest.raises(BadData) as refusal:
        read_profiles(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert words in str(refusal.value)


@pytest.mark.bad_input
def test_all_faults_of_the_profiles_are_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "profiles.yaml"
    path.write_text(f"mine:\n  {WHOLE.replace('batch: 4', 'batch: 0')}yours: 7\n")
    with pytest.raises(BadData) as refusal:
        read_profiles(path)
    assert str(refusal.value).splitlines() == [
        f"{path}: 2 things to put right:", "- mine: batch: expected a whole number, 1 or more, found '0'",
        "- yours: expected a mapping of keys such as `epochs: 20`, found '7'"]


@pytest.mark.bad_input
def test_a_profile_made_in_python_is_checked_too() -> None:
    with pytest.raises(BadData, match="profile cpu: epochs: expected a whole number, 1 or more, found 0"):
        get_profile("cpu", epochs=0)
    with pytest.raises(BadData, match="profile mine: imgsz: expected a multiple of 32, 32 or more, found 100"):
        Profile("mine", "a.pt", imgsz=100, batch=1, epochs=1, hyp="demo.yaml")
    with pytest.raises(BadData, match=r"expected one of \['colab', .*found 'clab', meant is perhaps 'colab'"):
        get_profile("clab")


def test_another_family_brings_weights_hyper_parameters_and_optimizer_of_its_own() -> None:
    demo = get_profile("demo")
    assert get_profile("demo", family="yolov5") == demo  # the profile's own stay
    retinanet = get_profile("demo", family="retinanet")
    assert retinanet == replace(demo, family="retinanet", weights="resnet18", hyp="retinanet.yaml", optimizer="SGD")
    dfine = get_profile("demo", family="dfine")
    assert dfine == replace(demo, family="dfine", weights="dfine_n", hyp="dfine.yaml", optimizer="AdamW")
    named = get_profile("demo", family="dfine", weights="mine.safetensors", optimizer="SGD", hyp="mine.yaml")
    assert named == replace(dfine, weights="mine.safetensors", optimizer="SGD", hyp="mine.yaml")
    assert get_profile("demo", family="dfine", weights=None).weights == "dfine_n"  # None names nothing


def test_overrides_are_typed_and_parted() -> None:
    found = parse_overrides(["epochs=40", "imgsz = 960", "hyp.lr0=5e-3", "bf16=yes", "optimizer=adamw", "device=0,1",
                             "schedule=Cosine", "family=RetinaNet", "loggers= WandB,,tensorboard "])
    assert found == {"epochs": 40, "imgsz": 960, "hyp.lr0": 0.005, "bf16": True, "optimizer": "AdamW",
                     "device": "0,1", "schedule": "cosine", "family": "retinanet", "loggers": "wandb,tensorboard"}
    assert split_overrides(found)[1] == {"lr0": 0.005}
    assert "hyp.lr0" not in split_overrides(found)[0]


@pytest.mark.bad_input
def test_all_wrong_overrides_are_listed_at_once() -> None:
    with pytest.raises(BadData) as refusal:
        parse_overrides(["epochs", "epochs=0", "epoch=3", "hyp.lr0=fast", "weights=a.pt", "imgsz=100", "hyp.lrf=nan"])
    first, *faults = str(refusal.value).splitlines()
    assert first == "7 things to put right:"
    for fault, words in zip(faults, (
        "--set epochs: expected NAME=VALUE such as epochs=40, found no '='",
        "--set epochs: expected a whole number, 1 or more, found '0'",
        "--set unknown key 'epoch', meant is perhaps 'epochs'; expected one of ['batch', ",
        "--set hyp.lr0: expected a finite number, found 'fast'",
        "--set weights: this has an option of its own, --weights",
        "--set imgsz: expected a multiple of 32, 32 or more, found '100'",
        "--set hyp.lrf: expected a finite number, found 'nan'",
    ), strict=True):
        assert fault.startswith(f"- {words}")


def test_settings_come_back_as_they_were_written(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert read_settings(workspace) is None
    (tmp_path / "mine.pt").write_bytes(b"")
    for settings in (
        RunSettings(),
        RunSettings("cpu", data=str(tmp_path / "raw"), reader="yolo", competition='/x/ä "b".yaml',
                    weights=str(tmp_path / "mine.pt"), hyp=str(tmp_path / "evolved.yaml"), folds=(1, 0), seed=7,
                    overrides={"epochs": 40, "hyp.lr0": 1e-5, "bf16": True, "family": "dfine", "device": "0,1"}),
        RunSettings("colab", weights="yolov5m6.pt"),
    ):
        settings_path(workspace).write_text(settings_text(settings, workspace), encoding="utf-8")
        assert read_settings(workspace) == settings


def test_settings_move_with_their_workspace(tmp_path: Path) -> None:
    before, after = Workspace(tmp_path / "a"), Workspace(tmp_path / "b")
    after.root.mkdir()
    text = settings_text(RunSettings(data=str(before.root / "raw"), hyp=str(tmp_path / "mine.yaml")), before)
    settings_path(after).write_text(text)
    found = read_settings(after)
    assert found is not None
    assert (found.data, found.hyp) == (str(after.root / "raw"), str(tmp_path / "mine.yaml"))


@pytest.mark.bad_input
@pytest.mark.parametrize(("text", "words"), [
    ("profile: clab\n",
     "profile: expected one of ['colab', 'colab_best', 'cpu', 'demo', 'smoke'], found 'clab', meant is perhaps"),
    ("folds: [5]\n", "folds: expected different folds from 0 to 4 such as [0, 1], found ['5']"),
    ("folds: [1, 1]\n", "folds: expected different folds from 0 to 4 such as [0, 1], found ['1', '1']"),
    ("folds: 0\n", "folds: expected different folds from 0 to 4 such as [0, 1], found '0'"),
    ("seed: -1\n", "seed: expected a whole number from 0 to 4294967295, found '-1'"),
    ("data: [a]\n", "data: expected a text of one line, found ['a']"),
    ("epochs: 40\n", "unknown key 'epochs'; expected some of profile, data, reader"),
    ("overrides: {epochs: 0}\n", "overrides: epochs: expected a whole number, 1 or more, found '0'"),
    ("overrides: 40\n", "overrides: expected a mapping such as `epochs: 40`, found '40'"),
    ("seed: 1\nseed: 2\n", "the key 'seed' is there twice"),
])
def test_a_wrong_run_yaml_is_refused_by_file_and_key(text: str, words: str, tmp_path: Path) -> None:
    settings_path(Workspace(tmp_path)).write_text(text)
    with pytest.raises(BadData) as refusal:
        read_settings(Workspace(tmp_path))
    assert str(refusal.value).startswith(f"{tmp_path / 'run.yaml'}: ")
    assert words in str(refusal.value)


@pytest.mark.bad_input
def test_what_does_not_come_with_the_code_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml: expected to come with the package, found nothing"):
        resource("hyp/nothing.yaml")
