"""Experiments: what is trained on and judged, what is kept, the arms of the detectors' notebook."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
import yaml

from livestock import training
from livestock.pipeline import detectors, experiment
from livestock.pipeline.experiment import Arm, Lab, Result, Scale
from livestock.pipeline.prepare import split_data
from livestock.pipeline.run import make_run
from livestock.sample import draw_sample
from livestock.tables import make_boxes

SCALE = Scale(images=20, judged=6, imgsz=64, batch=4, epochs=2, n_seeds=2, rates=(1.0, 3.0))
SSD = Arm("SSD", "ssd", "resnet18")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A small sample, read and split."""
    folder = tmp_path_factory.mktemp("lab")
    draw_sample(folder / "raw", n_train=40, n_test=2, scale=0.15)
    run = make_run(workspace=folder / "work", data=folder / "raw", profile="smoke", reader="aihub")
    return experiment.open_lab(run, SCALE)


def group_of(lab: Lab, ids: pd.Series) -> set[int]:
    groups = lab.images.set_index("image_id").loc[ids, "group"]
    return set(groups[groups >= 0])


def test_what_judges_is_in_no_training_and_in_no_group_of_one(lab: Lab) -> None:
    assert (len(lab.train_ids), len(lab.judged_ids)) == (20, 6)
    assert not set(lab.train_ids) & set(lab.judged_ids)
    assert not group_of(lab, lab.train_ids) & group_of(lab, lab.judged_ids)
    labelled, rest = experiment.split_halves(lab)
    assert sorted([*labelled, *rest]) == sorted(lab.train_ids)
    assert 5 <= len(labelled) <= 15
    assert not group_of(lab, labelled) & group_of(lab, rest)


def test_an_experiment_needs_three_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_sample(tmp_path / "raw", n_train=8, n_test=2, scale=0.15)
    run = make_run(workspace=tmp_path / "work", data=tmp_path / "raw", profile="smoke", reader="aihub")
    monkeypatch.setattr(experiment, "split_data", lambda run: replace(
        split_data(run), images=split_data(run).images.assign(fold=lambda images: images["fold"] % 2)))
    with pytest.raises(ValueError, match=r"expected animals in fold 0, .* found them in folds \[0, 1\] of 8 images"):
        experiment.open_lab(run, SCALE)


def test_a_training_runs_once_and_leaves_its_boxes_and_facts(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(lab, scale=replace(SCALE, n_seeds=1))
    [first] = experiment.run_arms(small, [SSD])
    assert set(first.facts) == {"parameters", "megabytes", "seconds", "gigabytes", "epochs", "lr0", "images_per_second"}
    assert first.facts["megabytes"] == pytest.approx(2 * first.facts["parameters"], rel=0.02)
    assert first.facts["gigabytes"] > 0.1
    assert set(first.boxes["image_id"]) <= set(lab.judged_ids)
    assert not list(lab.run.workspace.runs_dir.glob("*"))  # its weights are gone

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("it was trained already")

    monkeypatch.setattr(training, "train", refuse)
    [again] = experiment.run_arms(small, [replace(SSD, name="another name")])
    assert again.boxes.equals(first.boxes)
    assert again.facts == first.facts
    with pytest.raises(AssertionError, match="trained already"):
        experiment.run_arms(small, [replace(SSD, hyp={"mosaic": 1.0})])


def test_lists_hold_what_an_arm_trains_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The half has its images alone; with silver the other half has the boxes that its model found."""
    labelled, rest = experiment.split_halves(lab)
    seen = {}

    def look(config: training.TrainConfig, *arguments: object, **options: object) -> None:
        data_yaml = Path(config.data_yaml)
        names = data_yaml.with_name(f"{data_yaml.stem}_train.txt").read_text().split()
        texts = [(data_yaml.parent / "labels" / Path(name).with_suffix(".txt").name).read_text() for name in names]
        seen["images"], seen["boxes"] = len(names), sum(text.count("\n") for text in texts)
        raise InterruptedError

    monkeypatch.setattr(training, "train", look)
    n_people = {name: lab.boxes["image_id"].isin(ids).sum() for name, ids in
                (("all", lab.train_ids), ("half", labelled))}
    half = replace(SSD, images="half")
    for arm, n_images, n_boxes in ((SSD, 20, n_people["all"]), (half, len(labelled), n_people["half"]),
                                   (SSD, 20, n_people["all"])):  # what the half left out is not lost for the others
        with pytest.raises(InterruptedError):
            experiment.train_arm(lab, arm, 7)
        assert seen == {"images": n_images, "boxes": n_boxes}

    found = lab.boxes[lab.boxes["image_id"].isin(rest)].iloc[:3].assign(source="model", confidence=0.9)
    whole = experiment.train_arm

    def teach(lab: Lab, arm: Arm, seed: int) -> Result:
        assert (arm.images, arm.epochs) == ("half", 20 / len(labelled))
        return Result(arm, seed, found, {})

    monkeypatch.setattr(experiment, "train_arm", teach)
    for n_found in (3, 0):  # the second teacher finds nothing: the other half shows no animal then
        found = found.iloc[:n_found]
        with pytest.raises(InterruptedError):
            whole(lab, replace(SSD, images="silver"), 7)
        assert seen == {"images": 20, "boxes": n_people["half"] + n_found}
    with pytest.raises(InterruptedError):
        whole(lab, SSD, 7)
    assert seen == {"images": 20, "boxes": n_people["all"]}


def test_silver_is_as_many_boxes_an_image_as_people_drew() -> None:
    def boxes(rows: list[tuple[str, float]]) -> pd.DataFrame:
        return make_boxes([{"image_id": "a.jpg", "label": label, "x_min": 0, "y_min": 0, "x_max": 9, "y_max": 9,
                            "confidence": confidence} for label, confidence in rows])

    people = boxes([("cow", 1), ("cow", 1), ("pig", 1)])
    found = boxes([("cow", 0.1), ("cow", 0.8), ("cow", 0.7), ("cow", 0.2), ("pig", 0.3), ("pig", 0.4), ("goat", 0.9)])
    silver = experiment.choose_silver(found, people, 1.5)
    assert silver["label"].value_counts().to_dict() == {"cow": 3, "pig": 2}  # round(1.5) is 2
    assert set(found.loc[silver.index, "confidence"]) == {0.8, 0.7, 0.2, 0.3, 0.4}
    assert set(silver["source"]) == {"silver"}
    assert set(silver["confidence"]) == {1.0}


def test_the_best_rate_is_taken_and_a_training_that_diverges_scores_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = lab.images.set_index("image_id")["fold"]
    asked = []

    def train(lab: Lab, arm: Arm, seed: int) -> Result:
        assert set(lab.judged_ids.map(fold)) == {experiment.TUNING_FOLD}
        assert not set(lab.train_ids.map(fold)) & {experiment.TUNING_FOLD, experiment.VALID_FOLD}
        asked.append((arm.name, round(arm.hyp["lr0"], 6), seed, arm.epochs))
        if arm.hyp["lr0"] == pytest.approx(0.03) and arm.family == "ssd":
            return Result(arm, seed, lab.truth.iloc[:0], {})  # it diverged
        return Result(arm, seed, lab.truth.iloc[: 3 if arm.hyp["lr0"] > 0.01 else 1], {})

    monkeypatch.setattr(experiment, "train_arm", train)
    other = Arm("RetinaNet", "retinanet", "resnet18")
    [ssd, retinanet], table = experiment.choose_rates(lab, [SSD, other])
    assert (ssd.hyp["lr0"], retinanet.hyp["lr0"]) == pytest.approx((0.01, 0.03))
    assert table["chosen"].tolist() == [True, False, False, True]
    assert table["mAP50_95"].iloc[1] == 0
    assert {(seed, epochs) for _, _, seed, epochs in asked} == {(experiment.RATE_SEED, 1 / 3)}

    monkeypatch.setattr(experiment, "train_arm", lambda lab, arm, seed: Result(arm, seed, lab.truth.iloc[:0], {}))
    [nothing], _ = experiment.choose_rates(lab, [SSD])
    assert nothing.hyp["lr0"] == pytest.approx(0.01)  # where nothing is learnt, the family's own


def test_a_training_that_diverges_finds_nothing_and_is_not_tried_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would stop all others, at each start again. Another error is an error."""
    n_tried = 0

    def diverge(*arguments: object, **options: object) -> None:
        nonlocal n_tried
        n_tried += 1
        raise RuntimeError("training ended with exit status 1; the end of its log: the training diverged")

    monkeypatch.setattr(training, "train", diverge)
    before = set(lab.run.workspace.runs_dir.glob("*"))
    wild = replace(SSD, hyp={"lr0": 1e6})
    for _ in range(2):
        result = experiment.train_arm(lab, wild, 3)
        assert (len(result.boxes), result.facts) == (0, {"epochs": 2, "lr0": 1e6})
    assert n_tried == 1
    assert set(lab.run.workspace.runs_dir.glob("*")) == before  # nothing is left of it
    assert "SSD, seed 3: the training diverged, so it finds nothing: lr0 1e+06" in caplog.text
    table = experiment.tabulate([result], experiment.judge_results(lab, [result]))
    assert table.loc["SSD", "mAP50_95"] == 0

    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("no space left on device")

    monkeypatch.setattr(training, "train", fail)
    with pytest.raises(RuntimeError, match="no space left"):
        experiment.train_arm(lab, wild, 4)


def test_another_schedule_or_precision_is_another_training(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def look(config: training.TrainConfig, *arguments: object, **options: object) -> None:
        asked.append((config.schedule, config.bf16))
        raise RuntimeError("the training diverged")

    monkeypatch.setattr(training, "train", look)
    for changes in ({}, {"schedule": "cosine"}, {"bf16": True}, {"device": ""}):  # the last changes no number
        run = replace(lab.run, profile=replace(lab.run.profile, **changes))
        experiment.train_arm(replace(lab, run=run), SSD, 11)
    assert asked == [("linear", False), ("cosine", False), ("linear", True)]


def test_an_experiment_needs_labelled_animals(lab: Lab) -> None:
    bare = replace(lab, boxes=lab.boxes[lab.boxes["image_id"].isin(lab.judged_ids)])
    with pytest.raises(ValueError, match="expected labelled animals among the images to train on, found none"):
        experiment.find_size_bounds(bare)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_arms_differ_in_what_is_asked_for_alone(lab: Lab, on_gpu: bool) -> None:
    """Augmentation, momentum and schedule of all detectors are the same values; the loss keeps its own."""
    arms = [arm for own in (True, False) for arm in detectors.list_detectors(own=own, on_gpu=on_gpu)]
    values = [experiment.read_values(arm) for arm in arms]
    for name in (*experiment.SHARED, "mosaic"):
        assert len({each[name] for each in values}) == 1, name
    assert values[0]["mosaic"] == 0
    assert len({arm.size for arm in arms[4:]}) == 1
    tood = arms[-1]
    plain, deformable = detectors.list_deformable(tood)
    assert replace(deformable, name=plain.name, size=plain.size) == plain
    assert deformable.size == ("resnet50_dcn_imagenet" if on_gpu else "lite0_dcn_imagenet")
    without, epochs, images = detectors.list_mosaic(replace(tood, hyp={"lr0": 0.02}))
    assert epochs.hyp == images.hyp == {"lr0": 0.02, "mosaic": 1.0}
    assert (without.hyp, epochs.epochs, images.epochs) == ({"lr0": 0.02}, 1.0, 0.25)
    half, silver, every = detectors.list_silver(lab, tood)
    assert (half.images, silver.images, every.images) == ("half", "silver", "all")
    n_half = len(experiment.split_halves(lab)[0])
    assert half.epochs * n_half == pytest.approx(20 * silver.epochs) == pytest.approx(20 * every.epochs)
    for scale in detectors.SCALES.values():
        assert scale.epochs % detectors.MOSAIC_IMAGES == 0


@pytest.mark.parametrize("on_gpu", [False, True])
def test_every_arm_can_be_built(on_gpu: bool) -> None:
    from livestock.config.profile import FAMILIES
    from livestock.models.registry import get_family

    for own in (True, False):
        arms = detectors.list_detectors(own=own, on_gpu=on_gpu)
        for arm in [*arms, *detectors.list_deformable(arms[-1])]:
            assert arm.family in FAMILIES
            family, size = get_family(arm.family), arm.size.removesuffix("_imagenet")
            assert family.configure(["cow"], 128, size).labels == ("cow",), arm
            if size != arm.size:  # official weights of that name are known
                assert arm.size in import_module(type(family).__module__).PRETRAINED, arm


def test_claims_are_about_arms_that_are_there(lab: Lab) -> None:
    for own in (True, False):
        arms = detectors.list_detectors(own=own, on_gpu=False)
        tood = arms[-1]
        asked = [(arms, detectors.claim_detectors(arms)), (detectors.list_mosaic(tood), detectors.claim_mosaic()),
                 (detectors.list_silver(lab, tood), detectors.claim_silver()),
                 (detectors.list_deformable(tood), detectors.claim_deformable())]
        for of, claims in asked:
            names = {arm.name for arm in of}
            assert len(names) == len(of)
            assert all({claim.better, *claim.worse} <= names for claim in claims)


def test_the_control_table_says_what_is_equal(lab: Lab) -> None:
    arms = detectors.list_detectors(own=False, on_gpu=False)
    table = experiment.describe_lab(lab, arms)
    assert table.loc["backbone or start weights"].tolist() == ["lite0_imagenet", True]
    assert not table.loc["family", "equal"]
    assert yaml.safe_load(table.loc["epochs", "value"]) == SCALE.epochs
