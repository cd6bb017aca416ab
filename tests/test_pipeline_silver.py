"""Teachers never label what they saw, students never see silver in the validation fold, what is stale is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from livestock.config import REPOSITORY
from livestock.data.dataset import file_name
from livestock.evaluation import mean_interval
from livestock.exceptions import MissingResult, StaleResult
from livestock.files.hashing import fingerprint
from livestock.files.write import write_bytes, write_json
from livestock.labels.missing import SUSPECT_CONFIDENCE
from livestock.labels.silver import NEVER, Thresholds
from livestock.pipeline import final as final_steps
from livestock.pipeline import silver as silver_steps
from livestock.pipeline import students as steps
from livestock.pipeline.answer import copy_weights, find_answer, images_to_answer, write_inference
from livestock.pipeline.final import read_final, record_final, train_full
from livestock.pipeline.run import Run, make_run
from livestock.pipeline.select import Inference
from livestock.pipeline.silver import (
    judge_silver,
    read_labels,
    read_new,
    read_strategies,
    train_teachers,
    write_silver,
)
from livestock.pipeline.store import Record, add_record, place_of
from livestock.pipeline.students import (
    choose_labels,
    compare_labels,
    describe_choice,
    read_recipe,
    suspects_of_validation,
    write_recipe,
)
from livestock.pipeline.train import HUMAN, Training, read_training, settings_path, weights_named, weights_of
from livestock.tables import make_boxes, make_images, write_table
from livestock.training import TrainConfig

BANDS = {"pig": Thresholds(0.6, 0.3), "cow": Thresholds(0.6, 0.3)}


def box(name: str, x_min: float, confidence: float = 1.0, label: str = "pig") -> dict:
    """30 px wide and high."""
    return {"image_id": name, "label": label, "x_min": x_min, "y_min": 5.0, "x_max": x_min + 30, "y_max": 35.0,
            "confidence": confidence, "source": "gold" if confidence == 1 else "model"}


NAMES = [f"{fold}{letter}.jpg" for fold in range(5) for letter in "ab"]
NAME_OF = {file_name(name): name for name in [*NAMES, *(f"new{number}.jpg" for number in range(6))]}
GOLD = make_boxes([box(name, 0) for name in NAMES])
SILVER = make_boxes([box(name, 100, 0.9) for name in NAMES] + [box(name, 200, 0.4) for name in NAMES])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Five folds of two pictures with a pig each, of which fold 0 has been trained without."""
    run = make_run(
        competition=str(REPOSITORY / "competition.yaml"), profile="smoke", workspace=str(tmp_path / "work"),
        data=str(tmp_path / "raw"), reader="aihub", seed=1,
    )
    images = draw(tmp_path / "images.zip", NAMES).assign(fold=np.repeat(range(5), 2))
    for name, table in (("images", images), ("folds", images), ("boxes", GOLD), ("test_images", images.iloc[:0])):
        write_table(table, run.workspace.interim_dir / f"{name}.parquet")
    hashes = np.random.default_rng(0).integers(0, 2**64, 5, np.uint64).repeat(2)  # a fold is a group
    write_table(pd.DataFrame({"image_id": NAMES, "hash": hashes}), run.workspace.interim_dir / "hashes.parquet")
    record_training(run, FOLD0)
    return run


FOLD0 = Training("fold", 0, 1)
BASIS = ["interim/folds.parquet", "interim/boxes.parquet"]


def record_training(run: Run, training: Training, content: bytes = b"averaged", more: str = "",
                    hyp: Path | None = None) -> None:
    """What a training leaves."""
    root, hyp = run.workspace.root, hyp or REPOSITORY / "hyp/demo.yaml"
    config = TrainConfig(data_yaml="", weights="", hyp=str(hyp), imgsz=64, batch=4, epochs=1, seed=1)
    write_bytes(b"best", weights_named(run, training))
    write_bytes(content, weights_named(run, training, averaged=True))
    settings = {"imgsz": 64, "epochs": 1, "metric_iou": 0.75, "more": more}
    outputs = [weights_named(run, training, averaged=averaged) for averaged in (False, True)]
    places = [*BASIS, place_of(hyp, root)]
    if training == FOLD0:
        write_json(settings, settings_path(run, 0))
        outputs.append(settings_path(run, 0))
    else:
        places.append(place_of(settings_path(run, 0), root))
    add_record(root, Record(
        f"train_{training.name}", "key", {place_of(path, root): fingerprint(path) for path in outputs},
        {place: fingerprint(root / place) for place in places}, settings=settings, by=training.by,
        notes={"training": asdict(training), "run_dir": "runs/x", "images": 8, "config": asdict(config)}))


def draw(path: Path, names: list[str], picture: np.ndarray | None = None) -> pd.DataFrame:
    """An archive of pictures, 300 by 60 px, grey if not given, and its images table."""
    picture = np.full((60, 300, 3), 200, np.uint8) if picture is None else picture
    with ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, cv2.imencode(".jpg", picture)[1].tobytes())
    return make_images([{"image_id": name, "archive": str(path), "member": name, "width": 300, "height": 60}
                        for name in names])


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict]:
    """What would be trained, by name: the images that train and validate, and the label lines of each image."""
    seen: dict[str, dict] = {}

    def record(
        run: Run, training: Training, data_yaml: Path, *, selects: bool = True,
        tables: Sequence[Path] = (),
    ) -> Path:
        name = training.name
        lists = {part: [NAME_OF[Path(line).name] for line in
                        data_yaml.with_name(f"{name}_{part}.txt").read_text().splitlines()]
                 for part in ("train", "valid")}
        labels = {NAME_OF[path.with_suffix(".jpg").name]: len(path.read_text().splitlines())
                  for path in (data_yaml.parent / "labels").iterdir()}
        pictures = {NAME_OF[path.name]: cv2.imread(str(path)) for path in (data_yaml.parent / "images").iterdir()}
        seen[name] = {**lists, "labels": labels, "pictures": pictures, "seed": training.seed, "selects": selects,
                      "tables": [path.name for path in tables]}
        return data_yaml.parent

    for module in (silver_steps, steps, final_steps):
        monkeypatch.setattr(module, "train_as_fold", record)
    return seen


@pytest.fixture
def bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thresholds by hand: so few boxes choose none."""
    monkeypatch.setattr(silver_steps, "thresholds_of", lambda *tables, **options: BANDS)


TEACHER = pd.Series([0] * 4 + [1] * 4, index=NAMES[2:])


def test_no_teacher_labels_what_it_was_trained_on_and_none_sees_the_validation_fold(
    run: Run, trained: dict
) -> None:
    teacher = train_teachers(run, 2)
    assert sorted(teacher.index) == NAMES[2:]
    for number in (0, 1):
        own = teacher.index[teacher == number].tolist()
        assert trained[f"teacher{number}"]["valid"] == own
        assert trained[f"teacher{number}"]["train"] == sorted(set(NAMES[2:]) - set(own))
    folds = teacher.index.str[0].to_series(index=teacher.index)
    assert teacher.groupby(folds.to_numpy()).nunique().eq(1).all()  # whole folds, or near-duplicates would leak
    with pytest.raises(ValueError, match="teachers: expected from 2 to 4, the number of training folds, found 5"):
        train_teachers(run, 5)


def test_teachers_need_the_model_of_the_validation_fold(run: Run) -> None:
    record_training(run, Training("fold", 3))
    for averaged in (False, True):
        weights_of(run, 0, averaged=averaged).unlink()
    with pytest.raises(ValueError, match=r"left fold 0 out, found those of \[3\]; run 04_train with FOLDS = \[0\]"):
        train_teachers(run)


@pytest.mark.usefixtures("bands")
def test_silver_never_enters_the_validation_fold(run: Run, trained: dict) -> None:
    labels = write_silver(run, ["complete"], SILVER, TEACHER)
    assert list(labels) == [HUMAN, "complete"]
    assert steps.train_student(run, "complete", 7).name == "student_complete_7"
    student = trained["student_complete_7"]
    assert student["tables"] == [f"silver_complete_{name}.parquet" for name in ("boxes", "hidden", "new")]
    assert (student["valid"], student["train"], student["seed"]) == (NAMES[:2], NAMES[2:], 7)
    assert student["labels"] == {name: 1 if name[0] == "0" else 2 for name in NAMES}
    where = int(215 * 64 / 300)  # the uncertain box is grey, but in the validation fold
    greys = {name: abs(int(picture[4, where].mean()) - 114) < 12 for name, picture in student["pictures"].items()}
    assert greys == {name: name[0] != "0" for name in NAMES}


def test_human_labels_with_the_runs_seed_are_the_training_that_is_there(run: Run, trained: dict) -> None:
    assert steps.train_student(run, HUMAN, run.seed).name == "fold0"
    assert steps.train_student(run, HUMAN, 9).name == "student_human_9"
    assert list(trained) == ["student_human_9"] and set(trained["student_human_9"]["labels"].values()) == {1}


@pytest.mark.usefixtures("bands")
def test_new_images_train_with_silver_or_as_backgrounds(run: Run, trained: dict, tmp_path: Path) -> None:
    new = draw(tmp_path / "new.zip", [f"new{number}.jpg" for number in range(6)]).assign(fold=-1)
    silver = pd.concat([SILVER, make_boxes([box("new0.jpg", 50, 0.9), box("new1.jpg", 50, 0.4)])])
    labels = write_silver(run, ["unlabelled"], silver, TEACHER, new, background_share=0.2)
    boxes, hidden = labels["unlabelled"]
    assert boxes.loc[boxes["source"] == "silver", "image_id"].tolist() == ["new0.jpg"]
    assert hidden["image_id"].tolist() == ["new1.jpg"]  # unsure: neither a label nor a background
    steps.train_student(run, "unlabelled", 1)
    added = sorted(set(trained["student_unlabelled_1"]["train"]) - set(NAMES))
    assert added[0] == "new0.jpg" and len(added) == 3 and "new1.jpg" not in added  # 11 images with boxes, 2 without
    labels = trained["student_unlabelled_1"]["labels"]
    assert labels == dict.fromkeys([*NAMES, "new0.jpg"], 1) | dict.fromkeys(added[1:], 0)


def test_a_strategy_that_selects_nothing_is_left_out_with_a_line(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    labels = write_silver(run, ["complete", "replace"], SILVER.assign(confidence=0.04), TEACHER)
    assert list(labels) == [HUMAN]
    assert "left out: replace: no silver box was sure enough; lower the precision" in caplog.text
    with pytest.raises(MissingResult, match=r"silver_complete_boxes\.parquet: not there yet; run 06_silver with"):
        read_labels(run, "complete")


@pytest.fixture
def at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other frames show nothing; shares alone would add each box of .9 and hide each of .4."""
    never = dict.fromkeys(BANDS, NEVER)
    monkeypatch.setattr(silver_steps, "thresholds_of",
                        lambda ranked, labels, by_shares, **options: never if by_shares is None else BANDS)


@pytest.mark.usefixtures("at_most")
def test_a_person_decides_by_crops_where_frames_do_not(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Ten boxes would be added and all are shown, so their share is known."""
    caplog.set_level(logging.INFO)
    guard = judge_silver(run, SILVER, TEACHER)
    assert guard.crops.equals(judge_silver(run, SILVER, TEACHER).crops)
    assert sorted(guard.crops["image_id"]) == NAMES and set(guard.crops["confidence"]) == {0.9}
    assert guard.crops["frames"].tolist() == [0] * 10  # each has another frame, without a label there
    for accept, n_added in ((None, 0), (10, 10), (9, 10), (8, 0), (0, 0)):
        labels = write_silver(run, ["complete"], SILVER, TEACHER, accept=accept)
        assert list(labels) == [HUMAN, *(["complete"] if n_added else [])]
        assert (pd.concat([boxes for boxes, _ in labels.values()])["source"] == "silver").sum() == n_added
    printed = caplog.text
    assert "pig: forgotten animals and confident mistakes cannot be told apart, so nothing is added: fewer" in printed
    assert ("ACCEPT: 9 of 10 crops are right, so of all 10 boxes at least 90% are; asked for are 90%: all of them are "
            "added") in printed
    assert "at least 80% are; asked for are 90%: nothing is added" in printed


@pytest.mark.usefixtures("at_most")
@pytest.mark.bad_input
def test_more_right_crops_than_were_shown_are_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="ACCEPT: expected how many of 10 crops are right, from 0 to 10, found 12"):
        write_silver(run, ["complete"], SILVER, TEACHER, accept=12)


@pytest.mark.usefixtures("at_most")
def test_new_images_are_hidden_from_training_where_a_person_found_mistakes(run: Run, tmp_path: Path) -> None:
    """They are no background either."""
    new = draw(tmp_path / "new.zip", ["new0.jpg"]).assign(fold=-1)
    silver = pd.concat([SILVER, make_boxes([box("new0.jpg", 50, 0.9)])])
    labels = write_silver(run, ["complete"], silver, TEACHER, new, accept=3)
    boxes, hidden = labels["complete"]
    assert set(boxes["source"]) == {"gold"} and hidden["image_id"].tolist() == ["new0.jpg"]


def test_frames_are_near_duplicates_even_where_groups_are_larger(run: Run) -> None:
    images = pd.read_parquet(run.workspace.interim_dir / "folds.parquet").assign(group=0)
    write_table(images, run.workspace.interim_dir / "folds.parquet")
    gold = make_boxes([box(name, 0) for name in NAMES] + [box("1a.jpg", 100), box("3a.jpg", 100)])
    write_table(gold, run.workspace.interim_dir / "boxes.parquet")
    silver = make_boxes([box("1b.jpg", 100, 0.9), box("2b.jpg", 100, 0.9)])
    ranked = judge_silver(run, silver, TEACHER).ranked.set_index("image_id")
    assert ranked["frames"].to_dict() == {"1b.jpg": 1, "2b.jpg": 0}  # in one group of all each would have 2 of 9


def test_new_images_are_not_known_and_do_not_show_the_validation_fold(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All pictures of the fixture are grey, so that a grey one would be a near-duplicate of the validation fold's."""
    path = tmp_path / "[원천]돼지_bbox.zip"
    draw(path, ["pig_1.jpg"])
    assert read_new(run, str(path)).empty
    assert "left out: 1 new images are near-duplicates of the validation fold's" in caplog.text
    other = np.random.default_rng(0).integers(0, 255, (60, 300, 3), np.uint8)
    draw(path, ["pig_1.jpg"], other)
    assert read_new(run, str(path))[["image_id", "fold"]].to_numpy().tolist() == [["new/pig_1.jpg", -1]]
    images = pd.read_parquet(run.workspace.interim_dir / "folds.parquet")
    for name, words in (("folds", "has labels"), ("test_images", "is to be answered")):
        kept = pd.read_parquet(run.workspace.interim_dir / f"{name}.parquet")
        same = images.assign(image_id=["train/pig_1.jpg", *NAMES[1:]], archive=[str(path), *images["archive"][1:]],
                             member=["pig_1.jpg", *images["member"][1:]], width=300, height=60)
        write_table(same, run.workspace.interim_dir / f"{name}.parquet")
        with pytest.raises(ValueError, match=f"expected new images, found 'pig_1.jpg', which {words}; 1 of 1 are not"):
            read_new(run, str(path))
        write_table(kept, run.workspace.interim_dir / f"{name}.parquet")


def test_suspects_of_the_validation_fold_come_from_models_that_have_not_seen_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def find(
        run: Run, images: pd.DataFrame, weights: Path, look: str, *, likely: bool
    ) -> pd.DataFrame:
        assert not likely  # students are judged on all candidates of these images: nothing is predicted twice
        asked.append((weights.name, look))
        assert set(images["fold"]) == {0}
        seen = [box("0a.jpg", 100, 0.9), box("0b.jpg", 0, 0.9)]  # the second is on the human pig
        return make_boxes(seen + ([box("0b.jpg", 200, 0.9)] if "teacher1" in weights.name else []))

    monkeypatch.setattr(silver_steps, "predict_boxes", find)
    suspects = suspects_of_validation(run, pd.Series([0, 1], index=["1a.jpg", "2a.jpg"]))
    assert asked == [(f"{name}_averaged.safetensors", look) for name in ("fold0", "teacher0", "teacher1")
                     for look in ("plain", "flipped")]
    assert suspects["image_id"].tolist() == ["0a.jpg"]  # one teacher of three models is not enough
    assert suspects["confidence"].min() >= SUSPECT_CONFIDENCE


STUDENTS = pd.DataFrame(
    [(strategy, seed, label, value + 0.1 * seed, value + 0.1 * seed)
     for strategy, values in ((HUMAN, (0.50, 0.52, 0.49)), ("complete", (0.54, 0.55, 0.54)),
                              ("replace", (0.40, 0.62, 0.45)))
     for seed, value in enumerate(values) for label in ("pig", "cow")],
    columns=["strategy", "seed", "label", "ap", "ap_fair"])


def test_gains_are_paired_by_seed_and_only_what_is_shown_is_chosen() -> None:
    gains = compare_labels(STUDENTS)
    assert gains.index.tolist() == [HUMAN, "complete", "replace"]
    each = np.array([0.04, 0.03, 0.05])
    low, high = stats.t.interval(0.95, 2, each.mean(), stats.sem(each))
    assert gains.loc["complete", ["gain", "gain_low", "gain_high"]].tolist() == pytest.approx([0.04, low, high])
    assert choose_labels(STUDENTS) == "complete"
    without = STUDENTS[STUDENTS["strategy"] != "complete"]
    assert choose_labels(without) == HUMAN  # its interval holds zero
    assert choose_labels(STUDENTS[STUDENTS["seed"] == 0]) == HUMAN  # a single seed shows nothing
    forgiven = STUDENTS.assign(ap=STUDENTS["ap"] - 0.1 * (STUDENTS["strategy"] == "complete"))
    assert choose_labels(forgiven) == HUMAN  # a gain by what teachers set aside alone
    assert mean_interval(np.array([0.3]))[0] == 0.3 and np.isnan(mean_interval(np.array([0.3]))[1:]).all()


def test_what_silver_labels_changed_is_said() -> None:
    each = np.array([0.04, 0.03, 0.05])
    low, high = stats.t.interval(0.95, 2, each.mean(), stats.sem(each))
    words = describe_choice(STUDENTS)
    assert f"labels of 'complete' mAP changes by +0.040 (3 seeds, {low:+.3f} to {high:+.3f}): a gain. With" in words
    assert "'replace' mAP changes by -0.013 (3 seeds, " in words and "): no gain is shown. The final" in words
    assert words.endswith("The final model takes the labels of complete.")
    alone = STUDENTS[STUDENTS["strategy"] == HUMAN]
    assert describe_choice(alone) == (
        "No silver label was made, so there is nothing to compare. The final model takes the human labels.")


@pytest.mark.bad_input
def test_new_images_are_named_with_their_strategy(run: Run, tmp_path: Path) -> None:
    other = np.random.default_rng(0).integers(0, 255, (60, 300, 3), np.uint8)
    path = tmp_path / "[원천]돼지_bbox.zip"
    draw(path, ["pig_1.jpg"], other)
    assert read_strategies(run, ["complete", "replace"]) == (["complete", "replace"], None)
    names, new = read_strategies(run, ["complete", f"unlabelled:{path}"])
    assert names == ["complete", "unlabelled"] and new is not None and len(new) == 1
    with pytest.raises(ValueError, match="expected 'unlabelled:FOLDER', .* found 'unlabelled' without a folder"):
        read_strategies(run, ["unlabelled"])
    with pytest.raises(ValueError, match=r"expected one folder of new images, found \['a', 'b'\]"):
        read_strategies(run, ["unlabelled:a", "complete:b"])


def test_the_recipe_holds_for_what_it_was_chosen_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "evaluate_training", lambda run, training: pd.DataFrame({"label": ["pig"], "ap": [0.3]}))
    assert read_recipe(run)[0] == HUMAN  # 06_silver was left out
    for strategy, seed in STUDENTS[["strategy", "seed"]].drop_duplicates().itertuples(index=False):
        record_training(run, Training("student", seed=seed, labels=strategy), f"{strategy}{seed}".encode())
    write_recipe(run, "complete", STUDENTS, TEACHER)
    labels, students, n_teachers = read_recipe(run)
    assert (labels, len(students), n_teachers) == ("complete", len(STUDENTS), 2)
    for change, place in CHANGES.items():
        undo = change(run)
        with pytest.raises(StaleResult, match=rf"recipe\.json: made from another {place} than the present one; run 06"):
            read_recipe(run)
        undo()
    write_silver(run, [], SILVER, TEACHER)  # what was chosen among earlier labels is void
    assert read_recipe(run)[0] == HUMAN


@pytest.mark.usefixtures("bands")
def test_the_same_silver_labels_again_leave_the_recipe_as_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """06_silver that runs again, after a kill say, makes nothing void that it would only write once more."""
    monkeypatch.setattr(steps, "evaluate_training", lambda run, training: pd.DataFrame({"label": ["pig"], "ap": [0.3]}))
    for strategy, seed in STUDENTS[["strategy", "seed"]].drop_duplicates().itertuples(index=False):
        record_training(run, Training("student", seed=seed, labels=strategy), f"{strategy}{seed}".encode())
    write_silver(run, ["complete"], SILVER, TEACHER)
    write_recipe(run, "complete", STUDENTS, TEACHER)
    before = (run.workspace.root / "lineage.jsonl").read_bytes()
    write_silver(run, ["complete"], SILVER, TEACHER)
    assert (run.workspace.root / "lineage.jsonl").read_bytes() == before
    write_silver(run, ["complete"], SILVER.assign(confidence=0.97), TEACHER)  # other labels
    assert read_recipe(run)[0] == HUMAN


def change_table(name: str, column: str, value: object):
    """A change of one table of the workspace, which returns what undoes it."""

    def change(run: Run):
        path = run.workspace.interim_dir / f"{name}.parquet"
        before = path.read_bytes()
        write_table(pd.read_parquet(path).assign(**{column: value}), path)
        return lambda: path.write_bytes(before)

    return change


def change_training(run: Run):
    """04_train has run again with other settings."""
    record_training(run, FOLD0, b"of other settings", more="other")
    return lambda: record_training(run, FOLD0)


CHANGES = {change_table("folds", "fold", 1): "interim/folds.parquet",
           change_table("boxes", "x_max", 40.0): "interim/boxes.parquet",
           change_training: "(weights/fold0_averaged.safetensors|interim/settings_fold0.json)"}


@pytest.mark.usefixtures("bands")
def test_silver_labels_hold_for_what_they_were_made_of(run: Run) -> None:
    write_silver(run, ["complete"], SILVER, TEACHER)
    for change, place in CHANGES.items():
        undo = change(run)
        with pytest.raises(StaleResult, match=rf"made from another {place} than the present one; run 06_silver again"):
            read_labels(run, "complete")
        undo()
    assert len(read_labels(run, "complete")[0]) == 20
    write_silver(run, ["complete"], SILVER.assign(confidence=0.04), TEACHER)  # selects nothing now
    with pytest.raises(MissingResult, match=r"silver_complete_boxes\.parquet: not there yet; run 06_silver with"):
        read_labels(run, "complete")


def test_hyper_parameters_that_change_after_04_stop_06_and_07(run: Run) -> None:
    evolved = run.workspace.root / "evolved.yaml"
    evolved.write_text("# found today\nlr0: 0.01\n")
    record_training(run, FOLD0, hyp=evolved)
    full = Training("full")
    record_training(run, full)
    evolved.write_text("# found later, the same\nlr0: 0.01\n")
    assert read_training(run, full).step == "train_full_human"
    evolved.write_text("lr0: 0.02\n")
    for stopped in (lambda: train_teachers(run), lambda: read_recipe(run),
                    lambda: train_full(run, HUMAN), lambda: read_training(run, full)):
        with pytest.raises(StaleResult, match=r"made from another evolved\.yaml than the present one; run 0[47]"):
            stopped()


def test_another_number_of_teachers_makes_other_lists(run: Run, trained: dict) -> None:
    for n_teachers in (3, 2):
        teacher = train_teachers(run, n_teachers)
        for number in range(n_teachers):
            assert set(trained[f"teacher{number}"]["train"]).isdisjoint(teacher.index[teacher == number])


def test_another_profile_is_refused(run: Run) -> None:
    run = replace(run, profile=replace(run.profile, imgsz=128))
    with pytest.raises(ValueError, match="profile 'smoke': 128 px, but fold 0 was trained at 64 px; run 04"):
        train_teachers(run)


@pytest.mark.usefixtures("bands")
def test_the_final_model_is_trained_on_everything_and_chooses_nothing(run: Run, trained: dict) -> None:
    write_silver(run, ["complete"], SILVER, TEACHER)
    assert train_full(run, "complete").name == "full_complete"
    student = trained["full_complete"]
    assert (student["train"], student["selects"]) == (NAMES, False)
    assert set(student["labels"].values()) == {2}  # silver in the fold that judged before, too


def write_final(run: Run) -> Path:
    """What `07_final` leaves."""
    full = Training("full", seed=run.seed)
    record_training(run, full, b"final")
    return record_final(run, full)


def test_inference_takes_the_final_model_from_its_file(run: Run) -> None:
    assert read_final(run) is None
    content = json.loads(write_final(run).read_text())
    assert (content["labels"], content["images"], content["boxes"]) == (HUMAN, 8, {"gold": 10})
    found = read_final(run)
    assert found == content
    inference = Inference("suppression", {"": {"iou_threshold": 0.6}}, final=found["weights"])
    (copy,) = copy_weights(run, inference)
    assert (copy.name, copy.read_bytes()) == ("weights.safetensors", b"final")
    scores = pd.Series({"mAP": 0.5, "low": 0.4, "high": 0.6})
    assert f"final: {found['weights']}" in write_inference(run, inference, [copy], scores).read_text()
    images, part = images_to_answer(run)
    with pytest.raises(ValueError, match="no test set, so fold 0 is answered, and this model was trained on it"):
        find_answer(run, inference, images, part, [copy])


def test_a_final_model_of_other_weights_or_another_split_is_refused(run: Run) -> None:
    write_final(run)
    weights = weights_named(run, Training("full"), averaged=True)
    weights.write_bytes(b"other")
    words = r"final\.json: made from another weights/full_human_averaged\.safetensors .*; run 07"
    with pytest.raises(StaleResult, match=words):
        read_final(run)
    weights.write_bytes(b"final")
    for change, place in CHANGES.items():
        undo = change(run)
        with pytest.raises(StaleResult, match=rf"final\.json: made from another {place} than the present one; run 07"):
            read_final(run)
        undo()
    larger = replace(run, profile=replace(run.profile, imgsz=128))
    with pytest.raises(StaleResult, match="its model was trained at 64 px, this profile has 128; run 07_final again"):
        read_final(larger)
    assert read_final(run) is not None


def test_a_training_that_is_missing_names_its_notebook(run: Run) -> None:
    for training, notebook in ((Training("fold", 3), "04_train"), (Training("full"), "07_final"),
                               (Training("teacher", 0), "06_silver")):
        words = rf"{training.name}_averaged\.safetensors: not there yet; run {notebook} first"
        with pytest.raises(MissingResult, match=words):
            read_training(run, training)
