"""Answers of several workspaces: compared out of fold, calibrated, fused, chosen and written with all their weights."""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from livestock import inference, training
from livestock.cli import app
from livestock.config import REPOSITORY
from livestock.data.submission import from_rows, read_answer, read_truth, to_rows
from livestock.evaluation import evaluate
from livestock.exceptions import BadData, MissingResult
from livestock.files.write import write_text
from livestock.inference import Candidates
from livestock.models.checkpoint import read_checkpoint, write_checkpoint
from livestock.models.yolov5.library import STARTER
from livestock.pipeline.ensemble import AS_THEY_ARE, CALIBRATED, Ensemble, compare_members, name_of, write_ensemble
from livestock.pipeline.prepare import read_data, split_data
from livestock.pipeline.run import Run, make_run, save_settings
from livestock.pipeline.train import train_fold, write_dataset
from livestock.sample import draw_sample
from livestock.tables import XYXY, make_boxes
from livestock.training import AVERAGED, BEST, HISTORY, TrainConfig

FOLDS = (0, 1, 2, 3, 4)
NAMES = ("suppression", "soft suppression")


@pytest.fixture(scope="module", autouse=True)
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as context:
        yield context


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> list[Run]:
    """Two workspaces with made-up models, of which each sees about two of three animals, on scales of its own."""
    seen: dict[str, pd.DataFrame] = {}
    root = tmp_path_factory.mktemp("work")
    draw_sample(root / "first/raw", n_train=110, n_test=20, scale=0.1)
    shutil.copytree(root / "first", root / "second")

    def train(config: TrainConfig, run_dir: Path, *_: object, **__: object) -> None:
        found = read_checkpoint(STARTER)
        name, tensor = next(iter(found.tensors.items()))
        for file in (BEST, AVERAGED):
            (run_dir / "weights").mkdir(parents=True, exist_ok=True)
            change = 1 if "first" in str(run_dir) else 2
            write_checkpoint(run_dir / "weights" / file, found.config, {**found.tensors, name: tensor + change})
        write_text("", run_dir / HISTORY)

    def predict(model: object, images: pd.DataFrame, *_: object, origin: str = "", **__: object) -> Candidates:
        is_first = "first" in str(model.path)  # type: ignore[attr-defined]
        rng = np.random.default_rng([int(is_first), len(images)])
        boxes = seen["truth"][seen["truth"]["image_id"].isin(images["image_id"])]
        boxes = boxes.iloc[np.flatnonzero(rng.random(len(boxes)) < 0.65)]
        p = rng.uniform(0.05, 0.95, len(boxes))
        shift = np.where(rng.random(len(boxes)) < p, 0.0, 0.4) * (boxes["x_max"] - boxes["x_min"])
        moved = boxes.assign(x_min=boxes["x_min"] - shift, x_max=boxes["x_max"] - shift, source="model",
                             confidence=p ** (0.1 if is_first else 6.0))
        moved[XYXY] = moved[XYXY].clip(lower=0)
        moved = moved[(moved["x_max"] > moved["x_min"] + 0.1)]
        return Candidates(make_boxes(moved.drop(columns="box_id")), pd.Series(dtype=int), 0.1)

    patch.setattr(training, "train", train)
    patch.setattr(inference, "find_candidates", predict)
    made = []
    for name in ("first", "second"):
        run = make_run(competition=str(REPOSITORY / "competition.yaml"), profile="smoke", reader="aihub", seed=42,
                       workspace=str(root / name), data=str(root / name / "raw"), folds=FOLDS)
        save_settings(run)
        tables, images = read_data(run), split_data(run).images
        to_answer = pd.read_parquet(run.workspace.interim_dir / "test_images.parquet")
        ids = {image_id.split("/")[-1]: image_id for image_id in to_answer["image_id"]}
        truth = read_truth(run.data_dir / "truth_test.csv")
        truth["image_id"] = truth["image_id"].map(ids)
        truth[XYXY] *= to_answer.set_index("image_id").loc[truth["image_id"], ["width", "height"] * 2].to_numpy()
        seen["truth"] = pd.concat([tables.boxes, truth], ignore_index=True)
        for fold in FOLDS:
            train_fold(run, write_dataset(run, images, tables.boxes, fold), fold)
        made.append(run)
    return made


@pytest.fixture(scope="module")
def found(runs: list[Run]) -> Ensemble:
    return compare_members(runs, NAMES)


def test_what_each_misses_is_found_together(runs: list[Run], found: Ensemble, tmp_path: Path) -> None:
    first, second = (member.name for member in found.members)
    assert list(found.table.index) == [first, second, AS_THEY_ARE, CALIBRATED]
    assert found.table["mAP"].idxmax() == CALIBRATED == found.choice.method
    assert found.table.loc[CALIBRATED, "mAP"] > found.table.loc[AS_THEY_ARE, "mAP"]
    assert found.table.loc[CALIBRATED, "MB"] == pytest.approx(found.table.loc[[first, second], "MB"].sum())
    path = write_ensemble(found, tmp_path / "out")
    record = yaml.safe_load((path.parent / "ensemble.yaml").read_text())
    assert record["method"] == CALIBRATED and len(record["members"]) == 2
    files = sorted(file.name for file in path.parent.glob("*.safetensors"))
    assert files == ["weights.safetensors", "weights_1.safetensors"]
    assert [list(member["weights"]) for member in record["members"]] == [[name] for name in files]
    assert [Path(member["workspace"]) for member in record["members"]] == [run.workspace.root for run in runs]
    shares = record["members"][0]["calibration"]["pig"]["share"]
    assert len(shares) > 2 and shares == sorted(shares)
    assert (path.parent / files[0]).read_bytes() != (path.parent / files[1]).read_bytes()
    truth = read_truth(runs[0].data_dir / "truth_test.csv")
    score = evaluate(truth, read_answer(path), 0.75).mean
    for run in runs:  # better than either alone, by the test's own truth
        alone = inference.find_candidates(type("Model", (), {"path": run.workspace.weights_dir}),
                                          pd.read_parquet(run.workspace.interim_dir / "test_images.parquet"),
                                          [], imgsz=64).boxes
        images = pd.read_parquet(run.workspace.interim_dir / "test_images.parquet")
        assert score > evaluate(truth, from_rows(to_rows(alone, images)), 0.75).mean


def test_of_three_the_best_subset_within_the_limit_is_taken(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third workspace, the first one's twin, makes the limit too small for all: two of the three are fused."""
    twin = tmp_path / "twin"
    shutil.copytree(runs[0].workspace.root, twin)
    text = (REPOSITORY / "competition.yaml").read_text()
    two = re.sub(r"weight_limit_bytes: \S+", f"weight_limit_bytes: {int(STARTER.stat().st_size * 2.5)}", text)
    (tmp_path / "two.yaml").write_text(two)
    three = [make_run(workspace=folder, competition=tmp_path / "two.yaml")
             for folder in (runs[0].workspace.root, runs[1].workspace.root, twin)]
    found = compare_members(three, NAMES[:1])
    first, second, third = (member.name for member in found.members)
    subsets = [f"{kind}: {some}" for some in ("1 + 2", "1 + 3", "2 + 3") for kind in (AS_THEY_ARE, CALIBRATED)]
    assert list(found.table.index) == [first, second, third, AS_THEY_ARE, CALIBRATED, *subsets]
    fits = found.table["fits"]
    assert not fits[[AS_THEY_ARE, CALIBRATED]].any() and fits[[first, second, third, *subsets]].all()
    assert found.choice.method in (f"{CALIBRATED}: 1 + 2", f"{CALIBRATED}: 2 + 3")
    seconds = found.table["seconds"]
    assert seconds[found.choice.method] == pytest.approx(
        sum(seconds[member.name] for member in found.fused[found.choice.method].members))
    path = write_ensemble(found, tmp_path / "out")
    record = yaml.safe_load((path.parent / "ensemble.yaml").read_text())
    families = {Path(member["workspace"]).name for member in record["members"]}
    assert len(record["members"]) == 2 and "second" in families
    with pytest.raises(BadData, match="expected at most 5, found 6"):
        compare_members([*three, *three])
    (tmp_path / "none.yaml").write_text(re.sub(r"weight_limit_bytes: \S+", "weight_limit_bytes: 1000000", text))
    small = [make_run(workspace=run.workspace.root, competition=tmp_path / "none.yaml") for run in three[:2]]
    with pytest.raises(BadData, match="at most 1 MB together, found 3.6; .*name one that fits first"):
        compare_members(small, NAMES[:1])


def test_a_workspace_is_not_written_into(runs: list[Run], found: Ensemble) -> None:
    with pytest.raises(BadData, match="expected a folder for the answer alone, found a workspace"):
        write_ensemble(found, runs[1].workspace.root)
    assert not (runs[1].workspace.root / "answer.csv").exists()


@pytest.mark.parametrize("record", ["{}", "members: 3", "members: [[weights.safetensors]]", "a: [", "\x00"])
def test_a_damaged_record_of_an_earlier_ensemble_is_named(found: Ensemble, tmp_path: Path, record: str) -> None:
    """Nothing is written or deleted then: which weights are an earlier ensemble's cannot be said."""
    (tmp_path / "ensemble.yaml").write_text(record)
    (tmp_path / "weights.safetensors").touch()
    with pytest.raises(BadData, match=r"ensemble\.yaml: expected the record of an earlier ensemble"):
        write_ensemble(found, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ensemble.yaml", "weights.safetensors"]


def test_what_is_over_the_limit_is_not_chosen(runs: list[Run], found: Ensemble, tmp_path: Path) -> None:
    """The limit counts the files of all members together; weights of an earlier answer go, other files stay."""
    write_ensemble(found, tmp_path / "out")
    (tmp_path / "out/notes.txt").touch()
    text = (REPOSITORY / "competition.yaml").read_text()
    small = re.sub(r"weight_limit_bytes: \S+", f"weight_limit_bytes: {int(STARTER.stat().st_size * 1.5)}", text)
    assert small != text
    (tmp_path / "small.yaml").write_text(small)
    limited = [make_run(workspace=run.workspace.root, competition=tmp_path / "small.yaml") for run in runs]
    small_found = compare_members(limited, NAMES)
    assert small_found.choice.method == small_found.members[0].name
    assert small_found.table["fits"].tolist() == [True, True, False, False]
    path = write_ensemble(small_found, tmp_path / "out")
    assert sorted(file.name for file in path.parent.iterdir()) == ["answer.csv", "ensemble.yaml", "notes.txt",
                                                                   "weights.safetensors"]


def test_the_command_prints_each_and_what_is_chosen(
    runs: list[Run], found: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compared is what `found` says; here it is that the command does it, prints it and writes it."""
    def compare(asked: list[Run]) -> Ensemble:
        assert [name_of(run) for run in asked] == [name_of(run) for run in runs]
        return found

    monkeypatch.setattr(importlib.import_module("livestock.cli.fuse"), "compare_members", compare)
    out = CliRunner().invoke(app, ["fuse", *(str(run.workspace.root) for run in runs), "--out", str(tmp_path / "out")])
    assert out.exit_code == 0, out.output
    assert f"chosen: {CALIBRATED}" in out.output and "fit to submit" in out.output
    assert "at IoU 0.75 on the test images, competition scorer" in out.output


def test_other_data_or_another_split_is_refused(runs: list[Run]) -> None:
    first, second = runs
    with pytest.raises(BadData, match="expected at least two, each named once"):
        compare_members([first, first])
    with pytest.raises(BadData, match="expected at least two"):
        compare_members([first])
    link = first.workspace.root.with_name("link")
    link.symlink_to(first.workspace.root)
    with pytest.raises(BadData, match="each named once"):
        compare_members([first, make_run(workspace=link)])
    with pytest.raises(BadData, match="expected the seed of .*first, found others"):
        compare_members([first, replace(second, seed=7)])
    path = second.workspace.interim_dir / "folds.parquet"
    folds = pd.read_parquet(path)
    folds["fold"] = (folds["fold"] + 1) % 5
    folds.to_parquet(path)
    with pytest.raises((BadData, MissingResult), match="expected the images and folds of .*first, found others|again"):
        compare_members(runs)
