"""The plan of a workspace: guessed, measured, kept in the lineage, taken up by the run, and what of it is done."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest
from typer.testing import CliRunner

from livestock.cli import app
from livestock.colab import finish
from livestock.config import REPOSITORY, get_profile
from livestock.exceptions import BadData, MissingResult, StaleResult
from livestock.files.hashing import hash_content
from livestock.pipeline import planning, shared, students
from livestock.pipeline.evolve import at_search_size, name_plan, name_study
from livestock.pipeline.pace import Pace, find_pace, measure_pace, read_pace
from livestock.pipeline.planning import (
    describe_plan,
    find_done,
    follow_trainings,
    make_plan,
    plan_run,
    plan_table,
    read_proxies,
    say_next,
)
from livestock.pipeline.prepare import read_data, split_data
from livestock.pipeline.run import Run, make_run, plan_path, plan_settings, read_kept_plan
from livestock.pipeline.shared import name_queue
from livestock.pipeline.stages import sum_seconds
from livestock.pipeline.store import Record, add_record, read_records
from livestock.pipeline.students import HUMAN, is_settled
from livestock.pipeline.train import Training, guess_start_bytes, settings_path
from livestock.sample import draw_sample
from livestock.search.samplers import make_pruner
from livestock.training import HISTORY

SLOW = Pace(train=2.0, valid=1.0, seen=1.0, write=0.01, once=10.0, again=5.0, is_measured=True)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "raw"
    draw_sample(folder, n_train=16, n_test=2, scale=0.1)
    return folder


@pytest.fixture(scope="module")
def ready(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the data are read and split."""
    workspace = tmp_path_factory.mktemp("ready") / "ws"
    start(drawn, workspace)
    return workspace


@pytest.fixture
def workspace(ready: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(ready, tmp_path / "ws")


def start(drawn: Path, workspace: Path, **overrides: object) -> Run:
    run = make_run(workspace=workspace, profile="demo", data=drawn, reader="aihub", fresh=True,
                   competition=REPOSITORY / "competition.yaml", overrides=overrides)
    read_data(run)
    split_data(run)
    return run


def test_before_the_first_step_it_says_about_and_writes_nothing(drawn: Path, tmp_path: Path) -> None:
    run = make_run(workspace=tmp_path / "ws", profile="demo", data=drawn, competition=REPOSITORY / "competition.yaml")
    same, plan, pace = plan_run(run, measures=False)
    words = describe_plan(same, plan, pace)
    assert same == run and "minutes are left" in words and "images, size and model alone" in words
    assert not (tmp_path / "ws").exists()
    long = describe_plan(same, plan, SLOW.scale(1000)).splitlines()
    listed = [line for line in long if line.startswith("session")]
    assert [line.split(" of ")[0] for line in listed] == [f"session {number}" for number in range(1, 6)]
    n_all = int(listed[0].split(" of ")[1].split()[0])
    assert any(line.startswith(f"... and {n_all - 5} more; more than you have? `--set budget_h") for line in long)
    with pytest.raises(MissingResult, match="run 01_eda"):
        plan_run(run)


def test_a_plan_is_kept_in_the_lineage_and_the_run_takes_it_up(drawn: Path, workspace: Path) -> None:
    run = start(drawn, workspace, budget_hours=0.08)
    plan = make_plan(run, SLOW)
    assert plan.skip == ["03_evolve", "06_silver"] and set(plan.changes) == {"epochs"}
    record = read_records(run.workspace.root)["plan"]
    assert record.notes["changes"] == plan.changes and record.settings["profile"]["budget_hours"] == 0.08
    taken = start(drawn, workspace, budget_hours=0.08)
    assert taken.profile == replace(run.profile, **plan.changes)
    # Another machine's pace changes nothing of it, another budget does.
    assert make_plan(taken, SLOW.scale(0.01)).changes == plan.changes
    assert start(drawn, workspace, budget_hours=0.09).profile.epochs == 4
    assert make_plan(start(drawn, workspace, budget_hours=50), SLOW).changes == {}


def test_what_an_earlier_plan_has_trained_is_not_trained_again_with_another_budget(
    drawn: Path, workspace: Path
) -> None:
    first = make_plan(start(drawn, workspace, budget_hours=0.08), SLOW)
    epochs = first.changes["epochs"]
    planned = start(drawn, workspace, budget_hours=0.08)
    known = {name: getattr(planned.profile, name) for name in planning.TRAINED_WITH}
    add_record(workspace, Record("train_fold0", "key", {}, settings=known))
    more = make_plan(start(drawn, workspace, budget_hours=50), SLOW)
    assert more.changes["epochs"] == epochs < 4 and "03_evolve" not in more.skip
    assert f"epochs stays {epochs}, with which an earlier plan has trained" in more.reasons
    fold = next(piece for piece in more.pieces if piece.what == "fold")
    assert (fold.done, fold.epochs) == (1, epochs)
    assert "epochs" not in make_plan(start(drawn, workspace, budget_hours=50, epochs=4), SLOW).changes


def test_a_run_without_a_budget_is_as_before(drawn: Path, workspace: Path) -> None:
    run = start(drawn, workspace, budget_hours=0.08)
    make_plan(run, SLOW)
    plain = start(drawn, workspace)
    assert plain.profile == get_profile("demo")
    assert name_plan(plain.profile) == "" and at_search_size(plain) is plain
    assert plan_path(plain.workspace).exists()


def test_trials_of_another_size_are_another_study(drawn: Path, tmp_path: Path) -> None:
    run = make_run(workspace=tmp_path, profile="demo", data=drawn,
                   overrides={"budget_hours": 1, "search_imgsz": 160, "trial_epochs": 1})
    assert at_search_size(run).profile.imgsz == 160 and run.profile.imgsz == 320
    assert name_study("evolve", run.workspace, name_plan(run.profile)) == "evolve_160px_1epochs"
    assert name_study("mine", run.workspace, name_plan(run.profile)) == "mine"


def test_what_is_done_is_found_and_costs_nothing_more(drawn: Path, workspace: Path) -> None:
    run = start(drawn, workspace)
    trial = run.workspace.runs_dir / "evolve/evolve/trial_0000"
    trial.mkdir(parents=True)
    (trial / "history.jsonl").write_text("{}")
    add_record(run.workspace.root, Record("evolve_160px_1epochs_verify_1_abc", "key", {}))
    planned = start(drawn, workspace, budget_hours=1, search_imgsz=160, trial_epochs=1)
    assert find_done(planned)["03_evolve", "start and best again"] == 1
    assert find_done(planned)["03_evolve", "trial"] >= 4  # the best is judged, so the search is over, share or not
    add_record(run.workspace.root, Record("evolve_160px_1epochs_verify_1_abc", "", {}))
    assert find_done(planned)["03_evolve", "trial"] == 0  # the trial that is there is of another study
    done = find_done(run)
    assert done["01_eda", "reading"] == done["02_split", "split"] == done["03_evolve", "trial"] == 1
    assert done["04_train", "fold"] == 0
    _, plan, pace = plan_run(run, measures=False)
    table = plan_table(plan, pace)
    assert list(table.loc[["01_eda", "03_evolve", "04_train"], "done"]) == ["1 of 1", "1 of 8", "0 of 2"]
    assert table.loc["01_eda", "minutes"] == 0
    assert table["minutes"].sum() == pytest.approx(sum_seconds(plan.pieces, pace) / 60, abs=0.5)
    assert "03_evolve: 3 x trial, 4 x start and best again; 04_train: images at training" in say_next(plan, pace, 12)
    assert say_next(replace(plan, pieces=[]), pace, 12) == "everything of the plan is done"


def test_proxies_within_the_noise_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "proxies.yaml"
    monkeypatch.setattr(planning, "resource", lambda name: path)
    path.write_text("imgsz: {family: yolov5, regret: 0.002, noise: 0.004}\n"
                    "epochs: {family: yolov5, regret: 0.01, noise: 0.004}\n"
                    "all: {family: tood, regret: 0.002, noise: 0.004}\n")
    assert [proxy.name for proxy in read_proxies("yolov5")] == ["imgsz"]
    assert [proxy.name for proxy in read_proxies("tood")] == ["all"]
    for entry in ("size: {family: yolov5, regret: 0.002, noise: 0.004}", "imgsz: {regret: 0.002, noise: 0.004}"):
        path.write_text(entry)
        with pytest.raises(BadData, match="expected some of .'imgsz', 'data'.*each with family, regret and noise"):
            read_proxies("yolov5")
    path.write_text("{}")
    assert read_proxies("yolov5") == []


def test_the_proxies_that_come_with_the_code_can_be_read() -> None:
    assert isinstance(read_proxies("yolov5"), list)


def test_pace_from_a_history_by_hand() -> None:
    """The first epoch starts everything; the median of the others counts, and decoding comes on top."""
    history = pd.DataFrame({"seconds": [50.0, 6.0, 8.0, 100.0], "valid_seconds": [9.0, 2.0, 2.0, 2.0],
                            "gigabytes": [1.0, 1.5, 1.2, 1.2]})
    pace = find_pace(history, 200.0, 9.0, n_train=12, n_valid=4, seen=0.1, write=0.01, decode=0.25, of_gigabytes=16)
    assert (pace.train, pace.valid, pace.once, pace.again) == (0.75, 0.5, 200 - 4 * 8, 1.0)
    assert (pace.gigabytes, pace.of_gigabytes, pace.is_measured) == (1.5, 16, True)


def test_pace_is_measured_by_real_steps_once(drawn: Path, workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = start(drawn, workspace, imgsz=64, batch=2)
    assert read_pace(run) is None
    pace = measure_pace(run)
    assert pace.is_measured and min(pace.train, pace.valid, pace.seen, pace.write) > 0
    assert pace.once >= pace.again >= 0 and 0 < pace.gigabytes < pace.of_gigabytes
    written = (run.workspace.interim_dir / "pace.json").stat().st_mtime_ns
    assert measure_pace(run) == pace == read_pace(run)
    assert (run.workspace.interim_dir / "pace.json").stat().st_mtime_ns == written
    assert read_pace(start(drawn, workspace, imgsz=96, batch=2)) is None
    frozen = start(drawn, workspace, **{"imgsz": 64, "batch": 2, "hyp.freeze": 0.5})
    assert read_pace(frozen) is None  # its steps take less
    assert not any(run.workspace.root.glob("runs/*"))


def test_the_pace_follows_the_trainings_that_ended_after_it_was_measured(drawn: Path, workspace: Path) -> None:
    """An epoch of a fold is 12.8 images at 2 s and 3.2 at 1 s: 28.8 s; those of the later one took twice that.

    The last call of it, which the record has the seconds of, trained one of them alone.
    """
    run = start(drawn, workspace)
    known = {"epochs": 4, "imgsz": 320}
    for step, seconds, finished in [("train_fold1", 1.0, "2026-01-01"), ("pace", 1.0, "2026-01-02"),
                                    ("train_fold0", 57.6, "2026-01-03")]:
        add_record(run.workspace.root, Record(step, "key", {}, settings=known, seconds=seconds, finished=finished,
                                              notes={"run_dir": f"runs/{step}"}))
    history = run.workspace.runs_dir / "train_fold0" / HISTORY
    history.parent.mkdir(parents=True)
    history.write_text("".join(json.dumps({"epoch": epoch, "seconds": 57.6}) + "\n" for epoch in range(4)))
    followed = follow_trainings(run, SLOW)
    assert followed == replace(SLOW.slow_down(2), is_measured=True)
    assert (followed.train, followed.once) == (pytest.approx(4), pytest.approx(20))
    history.unlink()  # as when somebody makes room: nothing is known, and not that it takes no time
    assert follow_trainings(run, SLOW) == SLOW


def test_halving_stops_the_worse_half_past_the_warm_up() -> None:
    study = optuna.create_study(direction="maximize", pruner=make_pruner("halving", warmup_epochs=1.5))
    stopped: list[tuple[int, int]] = []
    for number, score in enumerate([0.9, 0.1, 0.95, 0.2]):
        trial = study.ask()
        for epoch in range(1, 9):
            trial.report(score, epoch)
            if trial.should_prune():
                stopped.append((number, epoch))
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, score)
    assert {number for number, _ in stopped} == {1, 3}
    assert min(epoch for _, epoch in stopped) == 3  # the first whole epoch after a warm-up of one and a half


def make_students(gains: list[float]) -> pd.DataFrame:
    return pd.DataFrame([{"strategy": strategy, "seed": seed, "label": "cow", "ap": 0.5 + extra, "ap_fair": 0.5 + extra}
                         for seed, gain in enumerate(gains) for strategy, extra in ((HUMAN, 0.0), ("complete", gain))])


@pytest.mark.parametrize(("gains", "settled"), [
    ([-0.02], False),  # one seed has no interval
    ([-0.020, -0.021, -0.022], True),  # mean -.021, half an interval .0025
    ([-0.02, 0.02, -0.02], False),
    ([0.01, 0.011, 0.012], False),  # a gain
    ([0.001, 0.0012, 0.0014], True),  # shown to be a gain, but none that matters
])
def test_a_comparison_ends_once_no_gain_that_matters_is_left(gains: list[float], settled: bool) -> None:
    assert is_settled(make_students(gains)) is settled


def test_without_strategies_nothing_is_settled() -> None:
    assert not is_settled(make_students([0.0, 0.0]).query("strategy == @HUMAN"))


def test_machines_share_a_queue_by_what_its_pieces_are_made_from(drawn: Path, workspace: Path) -> None:
    run = start(drawn, workspace)
    names = {name_queue(each, "folds", {"folds": [0, 1]}) for each in
             (run, start(drawn, workspace, device="0", workers=3, session_hours=5))}
    assert len(names) == 1
    assert name_queue(start(drawn, workspace, epochs=3), "folds", {"folds": [0, 1]}) not in names
    assert name_queue(run, "folds", {"folds": [0]}) not in names


def test_machines_share_folds_and_students_by_a_queue(
    drawn: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[object] = []
    monkeypatch.setattr(shared, "write_dataset", lambda run, images, boxes, fold: f"fold{fold}.yaml")
    monkeypatch.setattr(shared, "train_fold", lambda run, data_yaml, fold, hyp: trained.append((data_yaml, fold)))
    run, storage = start(drawn, workspace), str(workspace / "journal")
    assert shared.share_folds(run, storage, [2, 0]) == ["fold 2", "fold 0"]
    assert shared.share_folds(run, storage, [2, 0]) == []  # as another machine finds it
    assert trained == [("fold2.yaml", 2), ("fold0.yaml", 0)]


def test_students_stop_with_a_budget_alone_and_are_shared_where_a_database_is_named(
    drawn: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, int]] = []
    monkeypatch.setattr(students, "silver_files", lambda run, strategy: [])

    def train_student(run: Run, strategy: str, seed: int) -> Training:
        trained.append((strategy, seed))
        return Training("student", seed=seed, labels=strategy)

    def evaluate(run: Run, training: Training, suspects: object) -> pd.DataFrame:
        score = 0.5 - 0.02 * (training.labels != HUMAN)
        return pd.DataFrame({"label": ["cow"], "ap": score, "ap_fair": score})

    monkeypatch.setattr(students, "train_student", train_student)
    monkeypatch.setattr(students, "evaluate_training", evaluate)
    plain = students.compare_students(start(drawn, workspace), [HUMAN, "complete"], range(4), pd.DataFrame())
    assert sorted(plain["seed"].unique()) == [0, 1, 2, 3]
    planned = start(drawn, workspace, budget_hours=9)
    settings_path(planned, 0).write_text("{}")  # what 04_train leaves
    cut = students.compare_students(planned, [HUMAN, "complete"], range(4), pd.DataFrame())
    assert sorted(cut["seed"].unique()) == [0, 1]  # after two equal losses no gain is left
    monkeypatch.setattr(students, "is_settled", lambda rows: False)
    for number in range(2):
        add_record(workspace, Record(f"train_student_complete_{number}", "key", {}, seconds=1800.0))
    for hours, n_seeds in ((1.4, 2), (2.1, 4)):  # two seeds took an hour
        kept = {"for": hash_content(plan_settings(planned)), "shares": {"06_silver": hours}}
        plan_path(planned.workspace).write_text(json.dumps(kept))
        spent = students.compare_students(planned, [HUMAN, "complete"], range(4), pd.DataFrame())
        assert spent["seed"].nunique() == n_seeds
    plan_path(planned.workspace).unlink()
    trained.clear()
    monkeypatch.setenv(students.STORAGE_NAME, str(workspace / "journal"))
    assert students.share_students(planned, str(workspace / "journal"), [HUMAN, "complete"], 0) == [HUMAN, "complete"]
    students.compare_students(planned, [HUMAN, "complete"], [0], pd.DataFrame())
    assert trained == [(HUMAN, 0), ("complete", 0)] * 2  # by the queue once; then asked for, and found in the store


def test_labels_that_no_longer_hold_are_not_taken_where_the_plan_leaves_06_out(
    drawn: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(students, "evaluate_training", lambda run, training: pd.DataFrame({"ap": [0.5]}))
    recipe = workspace / "interim/recipe.json"
    recipe.write_text('{"labels": "complete", "teachers": 2}')
    add_record(workspace, Record("recipe", "key", {"interim/recipe.json": "another"}, by="06_silver"))
    with pytest.raises(StaleResult, match="06_silver"):
        students.read_recipe(start(drawn, workspace))
    monkeypatch.setattr(planning, "measure_pace", lambda run: SLOW)
    with caplog.at_level(logging.INFO):
        labels, _, n_teachers = students.read_recipe(planning.show_plan(start(drawn, workspace, budget_hours=0.05)))
    assert (labels, n_teachers) == (HUMAN, 0) and "the plan leaves 06_silver out" in caplog.text


def test_a_kept_plan_is_followed_without_another_step_and_belongs_to_its_folds(
    drawn: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "measure_pace", lambda run: SLOW)
    planned = planning.show_plan(start(drawn, workspace, budget_hours=0.08))

    def refuse(run: Run) -> Pace:
        """On a machine without the first one's GPU steps may take half an hour."""
        raise AssertionError("measured")

    monkeypatch.setattr(planning, "measure_pace", refuse)
    assert planning.show_plan(start(drawn, workspace, budget_hours=0.08)).profile == planned.profile
    others = make_run(workspace=workspace, profile="demo", data=drawn, reader="aihub", fresh=True, folds=[0, 1],
                      competition=REPOSITORY / "competition.yaml", overrides={"budget_hours": 0.08})
    assert read_kept_plan(others) == {} != read_kept_plan(planned)


def test_a_comparison_that_stopped_early_is_done(drawn: Path, workspace: Path) -> None:
    run = start(drawn, workspace, n_seeds=3, budget_hours=50)
    known = {"epochs": run.profile.epochs, "imgsz": run.profile.imgsz}
    add_record(workspace, Record("train_student_complete_1", "key", {}, settings=known))
    assert find_done(run)["06_silver", "teacher"] == 0
    add_record(workspace, Record("recipe", "key", {}))
    left = [piece for piece in plan_run(run, measures=False)[1].pieces if piece.stage == "06_silver"]
    assert [piece.done for piece in left] == [piece.n for piece in left] == [2, 1, 5]
    assert find_done(start(drawn, workspace, n_seeds=3))["06_silver", "student"] == 1  # without a budget all count


def test_what_another_family_batch_or_fold_has_done_is_not_done(drawn: Path, workspace: Path) -> None:
    run = start(drawn, workspace)
    known = {name: getattr(run.profile, name) for name in planning.TRAINED_WITH}
    add_record(workspace, Record("train_fold3", "key", {}, settings=known))
    assert find_done(run)["04_train", "fold"] == 0  # the run wants fold 0
    add_record(workspace, Record("train_fold0", "key", {}, settings=known))
    assert find_done(run)["04_train", "fold"] == 1
    for other in ({"family": "retinanet"}, {"batch": 2}, {"epochs": 9}, {"imgsz": 64}, {"optimizer": "Adam"}):
        assert find_done(start(drawn, workspace, **other))["04_train", "fold"] == 0


def test_a_budget_that_changes_no_trial_keeps_the_study(drawn: Path, workspace: Path) -> None:
    for settings, name in (
            ({}, ""), ({"budget_hours": 9}, ""), ({"budget_hours": 9, "trial_epochs": 1}, "320px_1epochs"),
            ({"search_imgsz": 160}, "160px_2epochs"), ({"search_freeze": 0.5}, "320px_2epochs_frozen0.5")):
        assert name_plan(start(drawn, workspace, **settings).profile) == name


def test_the_end_of_a_notebook_says_what_comes_next(
    drawn: Path, workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        finish(str(workspace), start(drawn, workspace))
    assert "the next session, about" in caplog.text and "03_evolve: 4 x trial" in caplog.text


def test_the_command_says_about_before_a_step(drawn: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["plan", "--about", "--data", str(drawn), "--workspace", str(tmp_path / "ws"),
                                    "--set", "budget_hours=0.001"])
    assert said.exit_code == 0, said.output
    assert "06_silver: not tried" in said.output and "the next session, about" in said.output
    wrong = CliRunner().invoke(app, ["plan", "--about", "--data", str(drawn), "--set", "budget_hours=soon"])
    assert wrong.exit_code == 2 and "budget_hours: expected a number of hours, 0 or more, found 'soon'" in wrong.output


def test_a_plan_is_shown_where_a_notebook_starts(drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "measure_pace", lambda run: SLOW)
    run = make_run(workspace=tmp_path / "ws", profile="demo", data=drawn, reader="aihub", fresh=True,
                   competition=REPOSITORY / "competition.yaml", overrides={"budget_hours": 0.08})
    with caplog.at_level(logging.INFO):
        planned = planning.show_plan(run)
    assert planned.profile.epochs == json.loads(plan_path(run.workspace).read_text())["changes"]["epochs"] < 4
    assert "not tried" in caplog.text and "disk: " in caplog.text


def test_start_weights_that_are_gone_stop_no_notebook(
    drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(workspace=tmp_path, profile="cpu", data=drawn, weights="gone.pt", fresh=True)
    with caplog.at_level(logging.INFO):
        assert planning.show_plan(run) == run
        finish(str(tmp_path), run)
    assert caplog.text.count("no plan: ") == 2 and "gone.pt" in caplog.text


def test_nothing_needs_to_be_there_where_a_notebook_starts(tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livestock.pipeline.prepare.draw_whole",
                        lambda folder, keypoints: draw_sample(folder, n_train=8, n_test=2, scale=0.1))
    run = make_run(workspace=tmp_path / "ws", profile="smoke", fresh=True, competition=REPOSITORY / "competition.yaml")
    with caplog.at_level(logging.INFO):
        assert planning.show_plan(run) == run
    assert run.data_dir.is_dir() and "minutes are left, from images, size and model alone" in caplog.text


@pytest.mark.parametrize(("family", "weights", "millions"), [
    ("yolov5", "yolov5m6.pt", 35.3), ("yolov5", "yolov5n.pt", 1.9), ("yolov5", "yolov5n", 1.8),
    ("dfine", "dfine_n_coco", 3.8),
])
def test_official_weights_are_not_downloaded_for_a_guess(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, weights: str, millions: float
) -> None:
    def refuse(*args: object, **kwargs: object) -> Path:
        """Nobody asks for it."""
        raise AssertionError("downloaded, or built")

    monkeypatch.setattr("livestock.models.registry.find_start", refuse)
    if weights != "yolov5n":  # a size alone is in no table
        monkeypatch.setattr("livestock.models.checkpoint._build", refuse)  # nor is a network built, in a gigabyte
    run = make_run(workspace=tmp_path, profile="cpu", fresh=True, competition=REPOSITORY / "competition.yaml",
                   weights=weights, overrides={"family": family}, data=drawn)
    assert planning.show_plan(run) == run
    assert guess_start_bytes(run) / 2e6 == pytest.approx(millions, rel=0.03)  # of parameters, as published
