"""The steps between notebooks: where data comes from, what is answered, how it is scored."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from pyarrow import parquet

from livestock.config import REPOSITORY
from livestock.data.submission import write_answer
from livestock.exceptions import StaleResult
from livestock.files.hashing import fingerprint
from livestock.pipeline.answer import (
    compare_with_estimate,
    competition_for,
    copy_weights,
    find_answer,
    images_to_answer,
    score_known_truth,
    submitted_weights,
    write_inference,
)
from livestock.pipeline.predict import trained_folds
from livestock.pipeline.prepare import read_data, read_tables
from livestock.pipeline.run import Run
from livestock.pipeline.run import make_run as make_pipeline_run
from livestock.pipeline.select import Inference, describe_estimate, try_methods
from livestock.pipeline.store import Record, add_record, place_of
from livestock.pipeline.submit import check_submission
from livestock.pipeline.train import Training, weights_of
from livestock.postprocess import choose_method, score_inner
from livestock.tables import make_boxes, make_images, read_table, write_table

BOX = {"x_min": 10, "y_min": 20, "x_max": 50, "y_max": 80}


def make_run(tmp_path: Path, profile: str = "cpu") -> Run:
    """A run on an empty workspace."""
    return make_pipeline_run(
        competition=str(REPOSITORY / "competition.yaml"), profile=profile, workspace=str(tmp_path / "work"),
        data=str(tmp_path / "raw"), reader="aihub", seed=1,
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose validation fold is one image with one box, found exactly, and a test set of no image."""
    run = make_run(tmp_path)
    images = make_images([{"image_id": name, "archive": "a", "member": name, "width": 100, "height": 200, "fold": fold}
                          for name, fold in (("one.jpg", 0), ("two.jpg", 1))])
    boxes = make_boxes([{"image_id": name, "label": "pig", **BOX} for name in ("one.jpg", "two.jpg")])
    for name, table in (("test_images", images.iloc[:0]), ("folds", images), ("boxes", boxes)):
        write_table(table, run.workspace.interim_dir / f"{name}.parquet")
    found = boxes.iloc[:1].assign(confidence=0.9, source="model")
    write_answer(found, images.iloc[:1], run.workspace.answer_path)
    return run


def test_without_a_test_set_the_validation_fold_is_answered_and_scored(run: Run) -> None:
    images, part = images_to_answer(run)
    assert (images["image_id"].tolist(), part) == (["one.jpg"], "valid")
    scores = score_known_truth(run, part)
    assert scores is not None
    assert scores["mAP"].tolist() == [1.0] * 4
    assert scores[["IoU", "scorer"]].apply(tuple, axis=1).tolist() == [
        (0.75, "competition"), (0.75, "usual"), (0.5, "competition"), (0.5, "usual")]


@pytest.mark.bad_input
def test_a_validation_fold_with_two_images_of_one_name_is_answered_by_path(run: Run) -> None:
    images = make_images([{"image_id": name, "archive": "a", "member": name, "width": 100, "height": 200, "fold": 0}
                          for name in ("cam0/1.jpg", "cam1/1.jpg")])
    boxes = make_boxes([{"image_id": name, "label": "pig", **BOX} for name in images["image_id"]])
    write_table(images, run.workspace.interim_dir / "folds.parquet")
    write_table(boxes, run.workspace.interim_dir / "boxes.parquet")
    asked = competition_for(run, images, "valid")
    assert asked == dataclasses.replace(run.competition, answer_name="path")
    write_answer(boxes.assign(confidence=0.9), images, run.workspace.answer_path, answer_name=asked.answer_name)
    scores = score_known_truth(run, "valid")
    assert scores is not None
    assert scores["mAP"].tolist() == [1.0] * 4
    assert competition_for(run, images, "test").answer_name == "name"  # refused before any training
    assert competition_for(run, images[:1], "valid").answer_name == "name"


def test_a_test_set_is_scored_if_its_truth_lies_beside_the_data(run: Run) -> None:
    assert score_known_truth(run, "test") is None
    run.data_dir.mkdir()
    truth = "ImageID,LabelName,XMin,XMax,YMin,YMax\none.jpg,pig,0.1,0.5,0.1,0.4\n"
    (run.data_dir / "truth_test.csv").write_text(truth)
    scores = score_known_truth(run, "test")
    assert scores is not None
    assert scores["mAP"].tolist() == [1.0] * 4


def test_a_test_set_is_what_is_answered(run: Run) -> None:
    table = make_images([{"image_id": "new.jpg", "archive": "a", "member": "b", "width": 1, "height": 1}])
    write_table(table, run.workspace.interim_dir / "test_images.parquet")
    images, part = images_to_answer(run)
    assert (images["image_id"].tolist(), part) == (["new.jpg"], "test")


def write_trained(run: Run, fold: int, content: bytes, settings: dict | None = None) -> None:
    """What `04_train` leaves of a fold."""
    root, training = run.workspace.root, Training("fold", fold)
    paths = [weights_of(run, fold, averaged=averaged) for averaged in (False, True)]
    for path, more in zip(paths, (b"", b"averaged"), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content + more)
    inputs = [run.workspace.interim_dir / f"{name}.parquet" for name in ("folds", "boxes")]
    add_record(root, Record(
        f"train_{training.name}", "key", {place_of(path, root): fingerprint(path) for path in paths},
        {place_of(path, root): fingerprint(path) for path in inputs}, settings=settings or {}, by="04_train",
        notes={"training": dataclasses.asdict(training)}))


def test_folds_with_a_model_are_those_trained_on_the_present_split(run: Run) -> None:
    with pytest.raises(ValueError, match="weights: expected weights of a fold, found none; run 04_train first"):
        trained_folds(run)
    for fold in (0, 2):
        write_trained(run, fold, b"weights")
    assert trained_folds(run) == [0, 2]
    write_trained(run, 2, b"weights", {"imgsz": 640})
    write_trained(run, 0, b"weights", {"imgsz": 320})
    with pytest.raises(StaleResult, match=r"fold2\.safetensors: trained with another imgsz than fold0; run 04_train"):
        trained_folds(run)
    images = pd.read_parquet(run.workspace.interim_dir / "folds.parquet")
    write_table(images.assign(fold=1), run.workspace.interim_dir / "folds.parquet")
    with pytest.raises(StaleResult, match=r"fold0_averaged\.safetensors: made from another interim/folds\.parquet"):
        trained_folds(run)


def test_the_files_to_submit_are_those_that_inference_loads(run: Run) -> None:
    for fold in (0, 1):
        write_trained(run, fold, f"fold {fold}".encode())
    both = Inference("suppression", {"": {"iou_threshold": 0.6}}, folds=(0, 1))
    first, second = copy_weights(run, both)
    assert (first.name, second.name) == ("weights.safetensors", "weights_1.safetensors")
    assert (first.read_bytes(), second.read_bytes()) == (b"fold 0", b"fold 1")
    assert submitted_weights(run) == [first, second]
    (alone,) = copy_weights(run, Inference("averaged weights", both.points, folds=(1,)))
    assert (alone, alone.read_bytes()) == (first, b"fold 1averaged")
    assert submitted_weights(run) == [first] and not second.exists()


def test_weights_that_the_run_did_not_write_stay(run: Run) -> None:
    write_trained(run, 0, b"fold 0")
    of_a_user = run.workspace.root / "weights_best_of_last_year.safetensors"
    of_a_user.write_bytes(b"precious")
    one = Inference("suppression", {"": {"iou_threshold": 0.6}}, folds=(0,))
    for _ in range(2):
        assert copy_weights(run, one) == [run.workspace.weights_path]
    assert of_a_user.read_bytes() == b"precious"


def test_a_model_never_answers_for_images_it_was_trained_on(run: Run) -> None:
    images, part = images_to_answer(run)
    for folds in ((1,), (0, 1)):
        inference = Inference("suppression", {"": {"iou_threshold": 0.6}}, folds=folds)
        with pytest.raises(ValueError, match="fold 0 is answered, which only the model of fold 0 was not trained on"):
            find_answer(run, inference, images, part, [Path("a.safetensors")] * len(folds))


def test_what_made_the_answer_is_written_down(run: Run) -> None:
    write_trained(run, 0, b"weights")
    points = {"": {"iou_threshold": 0.65}}
    inference = Inference("larger too, fused (WBF)", points)
    path = write_inference(run, inference, copy_weights(run, inference),
                                    pd.Series({"mAP": 0.5, "low": 0.4, "high": 0.6}))
    assert path.read_text().startswith(
        "# out of fold, mAP at IoU 0.75: 0.5000, 95 % interval over groups 0.4000 to 0.6000, of one fold's model for "
        "each image, with tuning and the choice of a method inside the cross-validation\n# written 2")
    content = yaml.safe_load(path.read_text())
    assert content["points"] == {"every class": {"iou_threshold": 0.65}}
    assert content["passes"]["larger"] == {"averaged": False, "scale": 1.25, "flip": False}
    assert content["weights"] == {"weights.safetensors": hashlib.sha256(b"weights").hexdigest()}


def test_missing_data_says_where_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"raw: no data there; data/README\.md says"):
        read_data(make_run(tmp_path))


def test_an_unknown_reader_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="expected one of .*'aihub'.*found 'kaggle'"):
        make_pipeline_run(competition="", profile="cpu", workspace="", data="", reader="kaggle", seed=1)


def test_reading_real_data_twice_reads_it_once(
    tmp_path: Path, real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_pipeline_run(
        competition=str(REPOSITORY / "competition.yaml"), profile="cpu", workspace=str(tmp_path),
        data=str(real_data / "livestock_small"), reader="aihub", seed=1,
    )
    first, second = read_data(run), read_data(run)
    pd.testing.assert_frame_equal(first.boxes, second.boxes)
    assert (len(first.images), len(first.test_images)) == (84, 15)
    assert "read: done before, skipped" in capsys.readouterr().out


@pytest.mark.parametrize("chunk", [3, 500_000])
@pytest.mark.parametrize("n", [0, 1, 10])
def test_a_table_comes_back_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, n: int
                                              ) -> None:
    monkeypatch.setattr("livestock.tables.parquet.CHUNK", chunk)
    table = make_boxes([{"image_id": f"{row % 4}.jpg", "label": "pig", **BOX, "x_min": row / 3} for row in range(n)])
    path = write_table(table.assign(known=True, n=7), tmp_path / "new/boxes.parquet")
    pd.testing.assert_frame_equal(read_table(path), table.assign(known=True, n=7))
    columns = [parquet.read_metadata(path).row_group(0).column(index) for index in range(11)] if n else []
    repeating = {"image_id", "label", "source", "n"}  # the others are coordinates, counted numbers and bits
    assert all(("DICTIONARY" in str(column.encodings)) == (column.path_in_schema in repeating) for column in columns)


ESTIMATE = pd.Series({"mAP": 0.6, "low": 0.5, "high": 0.7})


@pytest.mark.parametrize(("found", "part", "expected"), [
    (0.5, "test", "test mAP at IoU 0.75 is 0.5000, inside the 95 % interval of the out-of-fold estimate 0.6000, 0.5000 "
                  "to 0.7000"),
    (0.4, "test", ", below the 95 % interval .*: the answer is worse than .*other cameras.*the epoch.*learned"),
    (0.8, "test", ", above the 95 % interval .*: the answer is better than the folds .*labels missing in the folds"),
    (0.8, "valid", "no comparison: these images are among those that the estimate is made on"),
])
def test_the_test_score_is_compared_with_the_estimate_in_words(
    run: Run, found: float, part: str, expected: str
) -> None:
    """The usual score at the competition's IoU is compared, not the scorer's nor that at 0.5."""
    scores = pd.DataFrame({"scorer": ["competition", "usual"] * 2, "IoU": [0.75, 0.75, 0.5, 0.5],
                           "mAP": [0.99, found, 0.01, 0.99], "cow": 0.5, "pig": 0.5})
    text = compare_with_estimate(run, scores, part, ESTIMATE)
    assert re.search(expected, text) and "no true box" not in text
    assert ("causes" in text) == (part == "test" and found in (0.4, 0.8))
    wide = compare_with_estimate(run, scores, part, ESTIMATE.where(ESTIMATE != 0.5, 0.3))
    assert "which is wide: few groups judge" in wide and "wide" not in text
    alone = compare_with_estimate(run, scores.drop(columns="cow"), part, ESTIMATE)
    assert alone == text + "; cow has no true box here: the mean is over pig alone"


def test_the_estimate_says_what_makes_it_less_than_it_looks(run: Run) -> None:
    images, boxes = read_tables(run)
    images = images.assign(group=[0, 1])
    write_table(images, run.workspace.interim_dir / "folds.parquet")
    mine = images[images["fold"] == 0]
    known = boxes[boxes["image_id"].isin(mine["image_id"])]
    parts = pd.Series(0, index=pd.Index(mine["image_id"]))
    answers = {"suppression": known.assign(confidence=0.9)}
    inner = {"suppression": {0: score_inner(answers["suppression"], known, mine, parts, 0, 0.75)}}
    choice = choose_method(answers, inner, known, mine, parts, 0.75, allowed=["suppression"])
    assert describe_estimate(run, choice, [0]).splitlines() == [
        "mAP at IoU 0.75 out of fold, with the choosing inside: 1.0000, 95 % interval 0.0000 to 1.0000 over 1 group "
        "(1.0 effective)", "cow has no true box here: the mean is over pig alone"]
    other = dataclasses.replace(choice, by_part={0: "suppression", 1: "larger", 2: "larger"})
    assert "without one part of the images larger would have been chosen in 2 of 3 parts" in (
        describe_estimate(run, other, [0]))
    write_table(images.assign(group=0), run.workspace.interim_dir / "folds.parquet")
    assert "fold 0 shares near-duplicate images with other folds" in describe_estimate(run, choice, [0])


def test_methods_over_the_limit_are_tried_and_not_chosen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`larger` finds every box, plain looks miss a third; it is chosen if its weights fit. p is of those that fit."""
    monkeypatch.setattr("livestock.postprocess.methods.IOU_THRESHOLDS", [0.5, 0.7])
    monkeypatch.setattr("livestock.postprocess.methods.CONF_THRESHOLDS", [0.001])
    images = make_images([{"image_id": f"{number:02d}.jpg", "archive": "a", "member": "", "width": 450, "height": 450,
                           "fold": 0, "group": number // 3} for number in range(30)])
    boxes = make_boxes([{"image_id": name, "label": label, "x_min": 50 * place, "y_min": 9, "x_max": 50 * place + 40,
                         "y_max": 70} for name in images["image_id"] for place, label in enumerate(["pig", "cow"] * 3)])
    for name, table in (("folds", images), ("boxes", boxes)):
        write_table(table, run.workspace.interim_dir / f"{name}.parquet")
    found = boxes.assign(confidence=0.9, source="model")
    seen = {"plain": found[np.random.default_rng(0).uniform(size=len(found)) < 2 / 3], "larger": found}
    sizes = {("plain",): 50.0, ("larger",): 120.0}
    monkeypatch.setattr("livestock.pipeline.select.predict_oof", lambda _, look, folds, averaged: seen[look])
    monkeypatch.setattr("livestock.pipeline.select.seconds_an_image", lambda *_, **more: 0.1)
    monkeypatch.setattr("livestock.pipeline.select._megabytes", lambda run, passes, fold: sizes[tuple(passes)])
    table, tuned, choice = try_methods(run, [0], ["suppression", "larger"])
    original = "suppression at IoU 0.68, as the original"
    assert list(table.index) == ["suppression", original, "larger"] and set(tuned) == {"suppression", "larger"}
    assert table["fits"].tolist() == [True, True, False] and table["mAP"].iloc[-1] == 1
    assert choice.method == "suppression" and table["p"].isna().tolist() == [True, False, True]
    sizes["larger",] = 60.0
    table, _, choice = try_methods(run, [0], ["suppression", "larger"])
    assert choice.method == "larger" and set(choice.by_part.values()) == {"larger"} and table.loc["larger", "p"] < 0.05
    assert choice.scores["mAP"] == 1 and len(choice.held_out) == len(boxes)


def test_only_the_last_notebook_looks_at_the_truth_of_the_test_images() -> None:
    modules = {path.name: path.read_text() for path in (REPOSITORY / "src/livestock/pipeline").glob("*.py")}
    assert [name for name, text in modules.items() if "read_truth" in text] == ["answer.py"]
    notebooks = {path.name: path.read_text() for path in (REPOSITORY / "notebooks").glob("*.ipynb")}
    assert [name for name, text in notebooks.items() if "score_known_truth" in text] == ["08_inference.ipynb"]


def test_a_check_leaves_the_weights_as_they_are(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_trained(run, 0, b"fold 0")
    inference = Inference("suppression", {"": {"iou_threshold": 0.6}}, folds=(0,))
    (weights,) = copy_weights(run, inference)
    weights.write_bytes(b"damaged since")
    monkeypatch.setattr("livestock.pipeline.submit.find_answer", lambda *_: make_boxes([]))
    check_submission(run, inference)
    assert weights.read_bytes() == b"damaged since"
