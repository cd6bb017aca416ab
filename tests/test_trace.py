"""The lineage leads from a result to what made it, and to nothing else."""

from __future__ import annotations

import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from livestock.cli import app
from livestock.config import REPOSITORY
from livestock.files.hashing import fingerprint
from livestock.files.write import write_text
from livestock.pipeline.answer import copy_weights, images_to_answer, write_inference
from livestock.pipeline.predict import answer_paths, prediction_paths
from livestock.pipeline.run import Run, make_run
from livestock.pipeline.select import Inference
from livestock.pipeline.store import Record, add_record, place_of, read_records, trace
from livestock.pipeline.trace import record_answer
from livestock.pipeline.train import Training, weights_named, weights_of
from livestock.tables import make_boxes, make_images, write_table

SCORES = pd.Series({"mAP": 0.5, "low": 0.4, "high": 0.6})
SETTINGS = {"epochs": 3, "imgsz": 64, "weights": "starter.safetensors", "hyp": "hyp/demo.yaml", "seed": 42}
BOXES = "ImageID,LabelName,Conf,XMin,XMax,YMin,YMax\na.jpg,pig,0.9,0.1,0.2,0.1,0.2\n"
INFERENCE = Inference("suppression", {"every class": {"iou_threshold": 0.6, "conf_threshold": 0.001}})


def add(run: Run, step: str, inputs: list[Path], outputs: list[Path], **more: Any) -> None:
    """A step with its files, each of which holds the step's name unless it is there."""
    root = run.workspace.root
    for path in outputs:
        if not path.exists():
            write_text(step, path)
    add_record(root, Record(step, "key", {place_of(path, root): fingerprint(path) for path in outputs},
                            {place_of(path, root): fingerprint(path) for path in inputs}, **more))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Raw data, tables, two trainings of which the first answers, its predictions, and `answer.csv` with a row."""
    run = make_run(
        competition=str(REPOSITORY / "competition.yaml"), profile="smoke", workspace=str(tmp_path / "work"),
        data=str(tmp_path / "raw"), reader="aihub", seed=42)
    tables = [run.workspace.interim_dir / f"{name}.parquet" for name in ("folds", "boxes", "test_images")]
    write_text("raw", run.data_dir / "a.jpg")
    images = make_images([{"image_id": "a.jpg", "archive": ".", "member": "a.jpg", "width": 9, "height": 9,
                           "fold": 0}])
    boxes = make_boxes([{"image_id": "a.jpg", "label": "pig", "x_min": 1, "y_min": 1, "x_max": 5, "y_max": 5}])
    for path, table in zip(tables, (images, boxes, images), strict=True):
        write_table(table, path)
    add(run, "read", [run.data_dir], tables)
    for fold in (0, 1):
        training = Training("fold", fold, 42)
        weights = [weights_named(run, training, averaged=averaged) for averaged in (False, True)]
        add(run, f"train_fold{fold}", tables[:2], weights, settings=SETTINGS,
            notes={"training": asdict(training), "config": SETTINGS})
    weights_named(run, Training("fold", 1), averaged=True).unlink()
    write_text(BOXES, run.workspace.answer_path)
    return run


def record(run: Run) -> Record:
    """The record of an answer by fold 0's model."""
    weights = copy_weights(run, INFERENCE)
    write_inference(run, INFERENCE, weights, SCORES)
    to_answer, part = images_to_answer(run)
    seen = [*answer_paths(run, ["plain"], to_answer, weights), *prediction_paths(run, ["plain"], [0])]
    for path in dict.fromkeys(seen):
        add(run, f"predict_{path.stem}", [weights_of(run, 0)], [path], settings={"imgsz": 64})
    record_answer(run, INFERENCE, weights, part, SCORES)
    return read_records(run.workspace.root)["answer"]


def test_the_answer_leads_to_the_raw_data_and_to_nothing_else(run: Run) -> None:
    answer, root = record(run), run.workspace.root
    other = run.workspace.root / "other.txt"
    add(run, "another", [run.workspace.interim_dir / "boxes.parquet"], [other])
    assert answer.outputs["answer.csv"] == fingerprint(run.workspace.answer_path)
    assert answer.outputs["weights.safetensors"] == answer.inputs["weights/fold0.safetensors"]
    steps = [step.step for step in trace(root, ["answer.csv"])]
    assert steps[:2] == ["answer", "train_fold0"] and steps[2] == "read"
    assert len(steps) == 4 and steps[3].startswith("predict_")  # one for both: the images to answer are the same
    assert trace(root, ["answer.csv"])[2].inputs == {str(run.data_dir): fingerprint(run.data_dir)}
    assert answer.settings["points"] == {"every class": {"iou_threshold": 0.6, "conf_threshold": 0.001}}
    assert (answer.notes["rows"], answer.notes["run"]["seed"]) == (1, 42)


def test_a_model_trained_on_silver_labels_leads_to_table_teachers_and_raw_data(run: Run) -> None:
    interim = run.workspace.interim_dir
    teacher = weights_named(run, Training("teacher", 0), averaged=True)
    seen, silver = interim / "predictions/abc.parquet", interim / "silver_complete_boxes.parquet"
    student = weights_named(run, Training("student", seed=43, labels="complete"), averaged=True)
    add(run, "train_teacher0", [interim / "boxes.parquet"], [teacher])
    add(run, "predict_abc", [teacher], [seen])
    add(run, "silver_complete", [seen], [silver])
    add(run, "train_student_complete_43", [silver], [student])
    done = CliRunner().invoke(app, ["trace", str(student), "--workspace", str(run.workspace.root)])
    assert done.exit_code == 0, done.output
    assert [line.partition(":")[0] for line in done.output.splitlines()] == [
        "train_student_complete_43", "silver_complete", "predict_abc", "train_teacher0", "read"]
    assert str(run.data_dir) in done.output.splitlines()[-1]


def test_it_says_which_code_made_it(run: Run) -> None:
    code = record(run).notes["code"]
    assert code["packages"]["torch"] == version("torch")
    assert code["packages"]["psycopg"] == version("psycopg")  # "psycopg[binary]>=3.1" in the requirements
    if (REPOSITORY / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True)  # noqa: S607
        assert code["commit"] == head.stdout.strip()


def test_the_command_says_it_in_words(run: Run) -> None:
    record(run)
    done = CliRunner().invoke(app, ["trace", "--workspace", str(run.workspace.root)])
    assert done.exit_code == 0, done.output
    for words in ("answer.csv: 1 rows, 1 test images", "iou_threshold 0.6", "0.5000, 95 % interval 0.4000 to 0.6000",
                  "train_fold0: weights/fold0.safetensors (sha256:",
                  "3 epochs at 64 px from starter.safetensors, demo.yaml",
                  f"from {run.data_dir} (folder:"):
        assert words in done.output


@pytest.mark.parametrize("name", ["answer.csv", "weights.safetensors"])
@pytest.mark.parametrize("how", ["another", "none"])
def test_another_file_is_not_traced(run: Run, name: str, how: str) -> None:
    record(run)
    path = run.workspace.root / name
    path.unlink()
    if how == "another":
        path.write_text(BOXES + "more")
    done = CliRunner().invoke(app, ["trace", "--workspace", str(run.workspace.root)])
    assert done.exit_code == 2
    assert f"{path}: expected the one that lineage.jsonl is of, found {how}; run 08_inference again" in done.output


def test_without_an_answer_it_says_what_to_run(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["trace", "--workspace", str(tmp_path)])
    assert done.exit_code == 2
    assert "says nothing of answer.csv yet; run 08_inference first" in done.output
