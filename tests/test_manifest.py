"""The manifest leads from `answer.csv` to what made it, and to nothing else."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from livestock import pipeline
from livestock.cli import app
from livestock.config import REPOSITORY
from livestock.files.hashing import fingerprint
from livestock.files.write import write_json, write_text
from livestock.pipeline import manifest, training
from livestock.pipeline.store import run_step

SCORES = pd.Series({"mAP": 0.5, "low": 0.4, "high": 0.6})
SETTINGS = {"epochs": 3, "imgsz": 64, "weights": "starter.pt", "hyp": "hyp/demo.yaml", "seed": 42}
BOXES = "ImageID,LabelName,Conf,XMin,XMax,YMin,YMax\na.jpg,pig,0.9,0.1,0.2,0.1,0.2\n"


def write_step(run: pipeline.Run, name: str, inputs: list[Path], output: Path, settings: dict | None = None) -> None:
    """A step that writes its own name."""
    run_step(name, lambda: write_text(name, output), inputs=inputs, outputs=[output], settings=settings or {},
             workspace=run.workspace.root)


@pytest.fixture
def run(tmp_path: Path) -> pipeline.Run:
    """Two trainings on one table, the first of which answers; `answer.csv` with a row."""
    run = pipeline.make_run(
        competition=str(REPOSITORY / "competition.yaml"), profile="smoke", workspace=str(tmp_path / "work"),
        data=str(tmp_path / "raw"), reader="aihub", seed=42)
    raw, table, interim = run.data_dir / "a.txt", run.workspace.interim_dir / "boxes.parquet", run.workspace.interim_dir
    for path in (raw, interim / "folds.parquet"):
        write_text("raw", path)
    write_step(run, "read", [raw], table)
    for fold in (0, 1):
        weights = pipeline.weights_of(run, fold)
        write_step(run, f"train_fold{fold}", [table], weights, SETTINGS)
        write_json({**training.data_basis(run), "config": {}}, interim / f"training_fold{fold}.json")
        for part in (f"fold{fold}", "test")[:2 - fold]:
            write_step(run, f"candidates_plain_{part}", [weights], interim / f"candidates_plain_{part}.parquet",
                       {"image_ids": ["a.jpg"] * 1000})
    write_text(BOXES, run.workspace.answer_path)
    return run


def record(run: pipeline.Run) -> dict:
    """The manifest of an answer by fold 0's model."""
    inference = pipeline.Inference("suppression", {"every class": {"iou_threshold": 0.6, "conf_threshold": 0.001}})
    weights = pipeline.copy_weights(run, inference)
    pipeline.write_inference(run, inference, weights, SCORES)
    return json.loads(pipeline.record_answer(run, inference, weights, "test", SCORES).read_text())["answer"]


def test_hashes_lead_from_the_answer_to_the_raw_data(run: pipeline.Run) -> None:
    answer = record(run)
    weights = answer["weights"]["weights.pt"]
    training = answer["steps"][weights["step"]]
    table = next(iter(training["inputs"].values()))
    assert answer["sha256"] == fingerprint(run.workspace.answer_path)
    assert weights["sha256"] in training["outputs"].values()
    assert table in answer["steps"]["read"]["outputs"].values()
    assert list(answer["steps"]["read"]["inputs"].values()) == [fingerprint(run.data_dir / "a.txt")]
    assert answer["inference"]["points"] == {"every class": {"iou_threshold": 0.6, "conf_threshold": 0.001}}
    assert answer["run"]["data_hash"] == fingerprint(run.data_dir)
    assert (answer["rows"], answer["run"]["seed"], training["settings"]) == (1, 42, SETTINGS)


def test_steps_that_led_elsewhere_are_not_in_it(run: pipeline.Run) -> None:
    write_step(run, "another", [run.workspace.interim_dir / "boxes.parquet"], run.workspace.root / "other.txt")
    pipeline.weights_of(run, 1).unlink()
    assert set(record(run)["steps"]) == {"read", "train_fold0", "candidates_plain_fold0", "candidates_plain_test"}


def test_long_lists_are_there_as_their_hash(run: pipeline.Run) -> None:
    settings = record(run)["steps"]["candidates_plain_test"]["settings"]["image_ids"]
    assert settings["n"] == 1000
    assert len(settings["sha256"]) == 64


def test_it_says_which_code_made_it(run: pipeline.Run) -> None:
    code = record(run)["code"]
    assert code["packages"]["torch"] == version("torch")
    assert code["packages"]["psycopg"] == version("psycopg")  # "psycopg[binary]>=3.1" in the requirements
    if (REPOSITORY / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True)  # noqa: S607
        assert code["commit"] == head.stdout.strip()


def test_the_final_model_stays_in_it(run: pipeline.Run) -> None:
    manifest.record(run.workspace, "final", {"name": "full"})
    record(run)
    assert manifest.read_manifest(run.workspace)["final"] == {"name": "full"}


def test_the_command_says_it_in_words(run: pipeline.Run) -> None:
    record(run)
    done = CliRunner().invoke(app, ["trace", "--workspace", str(run.workspace.root)])
    assert done.exit_code == 0, done.output
    for words in ("answer.csv: 1 rows, 1 test images", "iou_threshold 0.6", "0.5000, 95 % interval 0.4000 to 0.6000",
                  "weights.pt: sha256:", "written by train_fold0", "3 epochs at 64 px from starter.pt, demo.yaml"):
        assert words in done.output


@pytest.mark.parametrize("name", ["answer.csv", "weights.pt"])
@pytest.mark.parametrize("how", ["another", "none"])
def test_another_file_is_not_traced(run: pipeline.Run, name: str, how: str) -> None:
    record(run)
    path = run.workspace.root / name
    path.unlink()
    if how == "another":
        path.write_text(BOXES + "more")
    done = CliRunner().invoke(app, ["trace", "--workspace", str(run.workspace.root)])
    assert done.exit_code == 2
    assert f"{path}: expected the one that manifest.json is of, found {how}; run 08_inference again" in done.output


def test_without_an_answer_it_says_what_to_run(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["trace", "--workspace", str(tmp_path)])
    assert done.exit_code == 2
    assert "says nothing of an answer yet; run 08_inference first" in done.output
