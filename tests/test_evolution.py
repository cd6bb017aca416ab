"""The operator is YOLOv5's to the digit; a search survives what sessions, disks and databases do to it."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evolution_worker import START, make, scores_of
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from livestock.config import REPOSITORY
from livestock.exceptions import BadData
from livestock.files.hashing import hash_content
from livestock.files.write import write_text
from livestock.pipeline import evolve
from livestock.pipeline.evolve import (
    gain_interval,
    make_search,
    run_search,
    training_noise,
    verify,
    write_evolved,
    write_search_lists,
)
from livestock.pipeline.prepare import read_data, split_data
from livestock.pipeline.run import Run, make_run, plan_path, plan_settings
from livestock.pipeline.train import write_dataset
from livestock.sample import draw_sample
from livestock.search import (
    GENES,
    SAMPLERS,
    Gene,
    GeneticSampler,
    add_generations,
    choose_parent,
    importances,
    load,
    make_meta,
    mutate,
    read_evolve_csv,
    run_trials,
    trials_table,
    write_evolve_csv,
    write_hyp,
)
from livestock.search import search as search_module
from livestock.search.storage import (
    copy_verified,
    cut_torn_line,
    one_line,
    open_storage,
    resolve_url,
    without_password,
)
from livestock.search.study import claim, fail_lost_trials
from livestock.training import TrainConfig
from livestock.training.hyp import read_hyp

OnEpoch = Callable[[Mapping[str, float]], None]
WORKER = Path(__file__).with_name("evolution_worker.py")


def objective(values: dict[str, float], number: int, device: str, on_epoch: OnEpoch) -> None:
    """Four epochs in no time."""
    for epoch in range(4):
        on_epoch(scores_of(values, epoch))


# -- the operator ---------------------------------------------------------------------------------------------------


def yolov5_child(hyps: list[dict], results: list[float], meta: dict, parent: str, rng: np.random.Generator) -> dict:
    """The formula as YOLOv5 7.0 has it in `train.py --evolve`, on dictionaries, with the generator given."""
    fitness = np.array(results)
    n = min(5, len(hyps))
    order = np.argsort(-fitness)[:n]
    w = fitness[order] - fitness[order].min() + 1e-6
    if parent == "single" or len(hyps) == 1:
        x = hyps[rng.choice(order, p=w / w.sum())]
    else:
        x = {k: sum(hyps[row][k] * weight for row, weight in zip(order, w, strict=True)) / w.sum() for k in meta}
    v = np.ones(len(meta))
    while all(v == 1):
        drawn = [rng.random(len(meta)), rng.standard_normal(len(meta)), rng.random()]
        v = np.array([gain * (drawn[0][i] < 0.8) * drawn[1][i] * drawn[2] * 0.2 + 1
                      for i, (gain, _, _) in enumerate(meta.values())])
        v = np.minimum(np.maximum(v, 0.3), 3.0)
    child = {}
    for i, (k, (_, low, high)) in enumerate(meta.items()):
        child[k] = round(min(max(float(x[k] * v[i]), low), high), 5)
    return child


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32), n=st.integers(1, 9), parent=st.sampled_from(["single", "weighted"]),
    names=st.lists(st.sampled_from(sorted(name for name in GENES if GENES[name].gain)), min_size=1, unique=True),
)
def test_the_operator_is_yolov5s(seed: int, n: int, parent: str, names: list[str]) -> None:
    """Any subset in any order; the same parents and the same generator give the same child."""
    rng = np.random.default_rng(seed)
    meta = {name: GENES[name] for name in names}
    gains, low, high = np.array(list(meta.values())).T
    values, fitness = rng.uniform(low, high, (n, len(names))), rng.random(n)
    expected = yolov5_child([dict(zip(names, row, strict=True)) for row in values], fitness.tolist(), meta, parent,
                            np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    chosen, rows = choose_parent(values, fitness, rng, parent)
    child = mutate(chosen, gains, low, high, rng)
    rounding = 1.1e-5 if parent == "weighted" else 0  # a sum in another order may round the other way
    assert dict(zip(names, child.tolist(), strict=True)) == pytest.approx(expected, abs=rounding, rel=0)
    assert set(rows) <= set(np.argsort(-fitness)[:5])


def test_a_mutation_always_changes_something() -> None:
    parent, gains = np.array([0.5, 0.5]), np.array([0.0, 1.0])
    for seed in range(200):  # with one gain of 0, one draw in five would change nothing
        child = mutate(parent, gains, np.zeros(2), np.ones(2), np.random.default_rng(seed))
        assert child[0] == 0.5
    assert len({mutate(parent, gains, np.zeros(2), np.ones(2), np.random.default_rng(s))[1] for s in range(50)}) > 40


def test_fitter_parents_are_chosen_more_often() -> None:
    """The chance is the fitness above the worst of the five best: 4, 3, 2, 1, 0 of ten here."""
    values, fitness = np.arange(7.0)[:, None], np.array([0.1, 0.7, 0.3, 0.6, 0.4, 0.5, 0.2])
    counts, rng = np.zeros(7), np.random.default_rng(0)
    for _ in range(5000):
        counts[choose_parent(values, fitness, rng)[1][0]] += 1
    assert counts / 5000 == pytest.approx([0, 0.4, 0, 0.3, 0.1, 0.2, 0], abs=0.03)


@pytest.mark.parametrize(("names", "words"), [
    (["lr0", "learning_rate"], "unknown hyper-parameter 'learning_rate'"),
    (["lr0", "shear"], "'shear' is not in the start values"),
    ({"lr0": (1, 0.1, 0.001)}, "lr0: expected the lower limit below the upper one, found 0.1 and 0.001"),
    ({"lr0": (1, 0.02, 0.1)}, "lr0: the start value 0.01 lies outside its limits 0.02 to 0.1"),
    ({"lr0": (0, 1e-5, 0.1), "lrf": (0, 0.01, 1)}, "gains of ['lr0', 'lrf'] are all 0"),
    ({"mixup": (1, 0, 1)}, "mixup: the start value is 0, which a mutation multiplies"),
    ({"lr0": (math.nan, 0, 1)}, "lr0: expected a gain of 0 or more"),
    ([], "at least one"),
])
def test_what_cannot_be_searched_is_refused_by_name(names: object, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        make_meta(names, {**START, "mixup": 0.0})  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_the_sampler_moves_the_subset_alone(tmp_path: Path) -> None:
    seen = []

    def look(values: dict[str, float], number: int, device: str, on_epoch: OnEpoch) -> None:
        seen.append(values)
        objective(values, number, device, on_epoch)

    run_trials(make(str(tmp_path / "journal")), look)
    assert seen[0] == START  # trial 0 is the start values
    for values in seen[1:]:
        assert list(values) == list(START)
        assert values["mosaic"] == START["mosaic"]  # to the last digit
        assert values["lrf"] == START["lrf"]
        assert (values["lr0"], values["momentum"]) != (START["lr0"], START["momentum"])
        assert values["lr0"] == round(values["lr0"], 5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_searches_the_same_space(sampler: str, tmp_path: Path) -> None:
    search = make(str(tmp_path / "journal"), sampler=sampler, n_trials=9)
    study = run_trials(search, objective)
    table = trials_table(study, search.meta)
    assert table.loc[0, ["lr0", "momentum"]].tolist() == [START["lr0"], START["momentum"]]
    for name in search.meta:
        assert table[name].between(search.meta[name].low, search.meta[name].high).all()
    assert not table.duplicated(list(search.meta)).any()
    assert set(importances(study).index) == set(search.meta)
    assert importances(study).sum() == pytest.approx(1)


def test_the_same_seed_finds_the_same_and_survives_a_restart(tmp_path: Path) -> None:
    whole = trials_table(run_trials(make(str(tmp_path / "a"), n_trials=6), objective), make("").meta)
    for n_trials in (2, 4, 6):
        parts = trials_table(run_trials(make(str(tmp_path / "b"), n_trials=n_trials), objective), make("").meta)
    columns = ["fitness", "generation", "parents", "changed", "lr0", "momentum"]
    pd.testing.assert_frame_equal(whole[columns], parts[columns])
    other = trials_table(run_trials(make(str(tmp_path / "c"), n_trials=6, seed=1), objective), make("").meta)
    assert not np.allclose(other["lr0"], whole["lr0"])


def test_the_table_says_whose_child_a_trial_is(tmp_path: Path) -> None:
    search = make(str(tmp_path / "journal"))
    table = trials_table(run_trials(search, objective), search.meta).set_index("trial")
    for trial, row in table.iloc[1:].iterrows():
        parent = table.loc[int(row["parents"])]
        assert row["generation"] == parent["generation"] + 1
        assert parent.name < trial
        assert (f"lr0 {parent['lr0']:.3g} → {row['lr0']:.3g}" in row["changed"]) == (parent["lr0"] != row["lr0"])


def test_the_weighted_parent_has_several(tmp_path: Path) -> None:
    search = make(str(tmp_path / "journal"), parent="weighted")
    assert trials_table(run_trials(search, objective), search.meta)["parents"].iloc[-1].count(",") == 4
    with pytest.raises(ValueError, match="expected 'single' or 'weighted', found 'best'"):
        GeneticSampler(search.meta, START, parent="best")


def test_cmaes_starts_around_the_start_values(tmp_path: Path) -> None:
    search = make(str(tmp_path / "journal"), sampler="cmaes", n_trials=13)
    table = trials_table(run_trials(search, objective), search.meta)[1:]
    assert table["generation"].is_monotonic_increasing and table["generation"].iloc[[0, -1]].tolist() == [1, 2]
    for name, (_, low, high) in search.meta.items():
        scale = np.log if high / low >= 100 else np.asarray
        moves = (scale(table[name]) - scale(START[name])) / (scale(high) - scale(low))
        assert 0.005 < moves.std() < 0.3 and abs(moves.mean()) < 0.15


def test_a_gaussian_process_is_not_pruned(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pruner: expected 'none' with the sampler 'gp', found 'median'"):
        make(str(tmp_path / "journal"), sampler="gp", pruner="median")


@pytest.mark.parametrize("pruner", ["median", "halving"])
def test_the_hopeless_are_stopped(pruner: str, tmp_path: Path) -> None:
    """Trials get worse and worse: from the sixth on the median knows it."""
    def worse_and_worse(values: dict[str, float], number: int, device: str, on_epoch: OnEpoch) -> None:
        for epoch in range(4):
            on_epoch({**scores_of(values, epoch), "AP50": 0.5 / (number + 1), "mAP50_95": 0.5 / (number + 1)})

    search = make(str(tmp_path / "journal"), pruner=pruner, n_trials=10)
    table = trials_table(run_trials(search, worse_and_worse), search.meta)
    pruned = table["state"] == "pruned"
    assert pruned.iloc[6:].all()
    assert (table.loc[pruned, "epochs"] < 4).all()
    assert (~pruned & (table["epochs"] == 4)).iloc[0]


def test_fitness_is_what_was_asked_for(tmp_path: Path) -> None:
    def two_scores(values: dict[str, float], number: int, device: str, on_epoch: OnEpoch) -> None:
        on_epoch({**scores_of(values), "AP50": 0.5, "mAP50_95": 0.25, "AP75": 0.2, "AP": 0.6})

    found = {name: run_trials(make(str(tmp_path / name), fitness=name, n_trials=1), two_scores).best_value
             for name in ("yolov5", "AP75", "AP")}
    assert found == pytest.approx({"yolov5": 0.1 * 0.5 + 0.9 * 0.25, "AP75": 0.2, "AP": 0.6})


# -- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "words"), [
    ({"identity": {"data_hash": "other"}}, "another data_hash: expected other, found abc"),
    ({"meta": make_meta(["lr0"], START)}, "another space"),
    ({"meta": {**make("").meta, "lr0": Gene(1, 1e-4, 1e-1)}}, "another space"),
    ({"start": {**START, "mosaic": 0.2}}, "another start"),
    ({"fitness": "AP75"}, "another fitness: expected AP75, found yolov5"),
])
def test_another_study_is_refused_not_mixed_in(change: dict, words: str, tmp_path: Path) -> None:
    run_trials(make(str(tmp_path / "journal"), n_trials=1), objective)
    with pytest.raises(ValueError, match=words):
        run_trials(make(str(tmp_path / "journal"), **change), objective)


def test_the_order_of_names_is_no_other_space(tmp_path: Path) -> None:
    run_trials(make(str(tmp_path / "journal"), n_trials=1), objective)
    search = make(str(tmp_path / "journal"), n_trials=2, meta=make_meta(["lr0", "momentum"], START))
    assert len(run_trials(search, objective).trials) == 2


def test_a_trial_without_a_number_for_fitness_fails_alone_and_is_shown(tmp_path: Path) -> None:
    def third_fails(values: dict[str, float], number: int, device: str, on_epoch: OnEpoch) -> None:
        on_epoch({**scores_of(values), "AP50": math.nan if number == 2 else 0.5})

    search = make(str(tmp_path / "journal"), n_trials=4)
    table = trials_table(run_trials(search, third_fails), search.meta)
    assert table["state"].tolist() == ["complete", "complete", "fail", "complete", "complete"]
    assert "fitness nan" in table["error"][2]


def test_out_of_memory_fails_alone(tmp_path: Path) -> None:
    def second_is_too_big(values: dict[str, float], number: int, device: str, on_epoch: OnEpoch) -> None:
        if number == 1:
            raise RuntimeError("training ended with exit status 1; the end of train.log:\nCUDA out of memory")
        objective(values, number, device, on_epoch)

    search = make(str(tmp_path / "journal"), n_trials=3)
    table = trials_table(run_trials(search, second_is_too_big), search.meta)
    assert table["state"].tolist() == ["complete", "fail", "complete", "complete"]
    assert table["error"][1] == "CUDA out of memory"


def test_a_search_in_which_everything_fails_ends(tmp_path: Path) -> None:
    def broken(values: dict[str, float], number: int, device: str, on_epoch: OnEpoch) -> None:
        raise RuntimeError("no such file")

    with pytest.raises(ValueError, match=r"3 trials in a row failed; the last: no such file"):
        run_trials(make(str(tmp_path / "journal")), broken)


def test_a_database_that_cannot_be_reached_is_one_line_within_ten_seconds() -> None:
    begun = time.monotonic()
    with pytest.raises(ValueError) as caught:  # nobody listens on port 1
        open_storage("postgresql://me:secret@127.0.0.1:1/none")
    assert time.monotonic() - begun < 10
    assert "127.0.0.1:1/none" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_budget_ends_the_search_and_the_next_call_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def slow(values: dict[str, float], number: int, device: str, on_epoch: OnEpoch) -> None:
        for epoch in range(4):
            time.sleep(0.1)
            on_epoch(scores_of(values, epoch))

    search = make(str(tmp_path / "journal"), n_trials=5, budget_minutes=1 / 60)
    study = run_trials(search, slow)
    assert 1 <= len(study.trials) < 5
    printed = caplog.text
    assert "minutes a trial" in printed
    assert "run again to go on" in printed
    table = trials_table(run_trials(make(str(tmp_path / "journal"), n_trials=5), slow), search.meta)
    assert table["state"].isin(["complete"]).sum() == 5


def test_a_trial_that_the_budget_cuts_is_run_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def slow(values: dict[str, float], number: int, device: str, on_epoch: OnEpoch) -> None:
        time.sleep(0.3)
        on_epoch(scores_of(values, 0))
        on_epoch(scores_of(values, 3))

    journal = str(tmp_path / "journal")
    search = make(journal, n_trials=2, budget_minutes=0.2 / 60)
    assert [trial.state for trial in run_trials(search, slow).trials] == [TrialState.FAIL, TrialState.WAITING]
    assert "trial 0 cut off; its values will be run again; 0 of 2" in caplog.text
    trials = run_trials(make(journal, n_trials=2), slow).trials
    assert [trial.state for trial in trials[1:]] == [TrialState.COMPLETE] * 2
    assert trials[1].params == {name: START[name] for name in search.meta}  # the start values still come first


def test_a_last_epoch_that_the_budget_cuts_is_kept(tmp_path: Path) -> None:
    def slow(values: dict[str, float], number: int, device: str, on_epoch: OnEpoch) -> None:
        time.sleep(0.3)
        on_epoch(scores_of(values, 3))

    search = make(str(tmp_path / "journal"), n_trials=2, budget_minutes=0.2 / 60)
    assert [trial.state for trial in run_trials(search, slow).trials] == [TrialState.COMPLETE]


def test_a_search_stops_at_its_share_and_what_is_there_is_judged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def timed(values: dict[str, float], number: int, device: str, on_epoch: OnEpoch) -> None:
        time.sleep(0.2)
        on_epoch(scores_of(values, 3))

    search = make(str(tmp_path / "journal"), n_trials=5, share_minutes=0.7 / 60)  # two of .2 s and no third beside
    with caplog.at_level("INFO"):
        study = run_trials(search, timed)
        assert len(run_trials(search, timed).trials) == len(study.trials)  # nor in the next session
    assert 1 <= len(study.trials) <= 3 and "share of the budget, 0 minutes, is spent after" in caplog.text
    assert evolve.is_finished(search, study)
    assert not evolve.is_finished(make(str(tmp_path / "journal"), n_trials=5), study)
    assert len(run_trials(make(str(tmp_path / "journal"), n_trials=5), timed).trials) == 5


# -- files ----------------------------------------------------------------------------------------------------------


def test_hyp_files_come_back_as_they_were(tmp_path: Path) -> None:
    values = read_hyp(REPOSITORY / "hyp/competition.yaml")
    write_hyp(values, tmp_path / "x.yaml", ["found by chance", "source: here"])
    assert read_hyp(tmp_path / "x.yaml") == values
    assert list(read_hyp(tmp_path / "x.yaml")) == list(values)
    assert (tmp_path / "x.yaml").read_text().startswith("# found by chance\n# source: here\nlr0: 0.009\n")


@pytest.mark.parametrize("text", ["lr0: fast", "lr0: .nan", "- 1", "lr0: true", ""])
def test_a_bad_hyp_file_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ValueError, match="x.yaml: "):
        read_hyp(tmp_path / "x.yaml")


CSV_NAMES = ["metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95", "val/box_loss",
             "val/obj_loss", "val/cls_loss", "lr0", "lrf", "momentum", "mosaic"]
CSV_ROWS = [[0.61, 0.5, 0.6, 0.4, 0.04, 0.05, 0.01, 0.01, 0.1, 0.9, 0.12346],
            [0.62, 0.5, 0.7, 0.5, 0.04, 0.05, 0.01, 0.013, 0.1, 0.85, 0.12346]]
YOLOV5_CSV = "".join(",".join(f"{cell:>20}" for cell in row) + "\n" for row in [CSV_NAMES, *CSV_ROWS])


def test_generations_of_yolov5_become_parents(tmp_path: Path) -> None:
    (tmp_path / "evolve.csv").write_text(YOLOV5_CSV)
    search = make(str(tmp_path / "journal"), n_trials=2)
    study, generations = load(search), read_evolve_csv(tmp_path / "evolve.csv", search)
    assert add_generations(study, search.storage, generations) == 2
    assert add_generations(study, search.storage, generations) == 0  # once is enough
    assert study.best_value == pytest.approx(0.1 * 0.7 + 0.9 * 0.5)
    table = trials_table(run_trials(search, objective), search.meta)
    assert table["state"].tolist() == ["imported", "imported", "complete", "complete"]  # two more, as asked
    assert table["parents"][2] in ("0", "1")


def test_a_study_is_written_as_yolov5_writes_one(tmp_path: Path) -> None:
    search = make(str(tmp_path / "journal"), n_trials=3)
    study = run_trials(search, objective)
    assert write_evolve_csv(study, tmp_path / "evolve.csv") == 3
    assert (tmp_path / "evolve.csv").read_text().splitlines()[0] == YOLOV5_CSV.splitlines()[0]
    again = load(make(str(tmp_path / "again")))
    assert add_generations(again, str(tmp_path / "again"), read_evolve_csv(tmp_path / "evolve.csv", search)) == 3
    for before, after in zip(study.trials, again.trials, strict=True):
        assert after.params == pytest.approx(before.params, rel=1e-4)
        assert after.value == pytest.approx(before.value, rel=1e-4)


@pytest.mark.bad_input
def test_a_study_of_another_family_is_not_written_as_yolov5_s(tmp_path: Path) -> None:
    def without_objectness(values: dict[str, float], number: int, device: str, on_epoch: OnEpoch) -> None:
        scores = scores_of(values)
        del scores["val_obj_loss"]
        on_epoch(scores)

    study = run_trials(make(str(tmp_path / "journal"), n_trials=1), without_objectness)
    with pytest.raises(BadData, match=r"evolve\.csv: expected the scores of YOLOv5 .* no val_obj_loss in trial 0"):
        write_evolve_csv(study, tmp_path / "evolve.csv")
    assert not (tmp_path / "evolve.csv").exists()


@pytest.mark.parametrize(("change", "words"), [
    (("momentum", "speed"), "column 'momentum' is missing"),
    (("0.85", "0.99"), "row 3: momentum is 0.99, expected 0.6 to 0.98"),
    (("0.13", "nan"), "row 3: lr0 is nan"),
])
def test_a_bad_evolve_csv_is_refused_with_its_row(change: tuple[str, str], words: str, tmp_path: Path) -> None:
    text = YOLOV5_CSV.replace("0.013", "0.13" if change[0] == "0.13" else "0.013")
    (tmp_path / "evolve.csv").write_text(text.replace(*change))
    search = make(str(tmp_path / "journal"))
    with pytest.raises(ValueError) as caught:
        read_evolve_csv(tmp_path / "evolve.csv", search)
    assert words in str(caught.value)


def test_generations_of_other_values_are_refused(tmp_path: Path) -> None:
    (tmp_path / "evolve.csv").write_text(YOLOV5_CSV.replace("0.12346", "1"))
    search = make(str(tmp_path / "journal"))
    with pytest.raises(ValueError, match=r"row 2: mosaic is 1, 0\.123457 in this study"):
        read_evolve_csv(tmp_path / "evolve.csv", search)
    words = r"holds YOLOv5's fitness \(0.1 AP50 \+ 0.9 mAP50-95\), the search's is 'AP'; go on .* --fitness yolov5"
    with pytest.raises(ValueError, match=words):
        read_evolve_csv(tmp_path / "evolve.csv", make(str(tmp_path / "journal"), fitness="AP"))


def in_columns(*rows: list) -> str:
    return "".join(",".join(f"{cell:>20}" for cell in row) + "\n" for row in rows)


@pytest.mark.bad_input
@pytest.mark.parametrize("scores", [[0, 0, "nan", "nan"], [0.1, 0.1, 0.1, "inf"]])
def test_a_generation_that_diverged_is_left_out_with_a_line(
    scores: list, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "evolve.csv"
    path.write_text(in_columns(CSV_NAMES, CSV_ROWS[0], [*scores, *CSV_ROWS[1][4:]], CSV_ROWS[1]))
    found = read_evolve_csv(path, make(str(tmp_path / "journal")))
    assert [trial.params["lr0"] for trial in found] == [0.01, 0.013]
    assert [trial.user_attrs["imported"] for trial in found] == ["evolve.csv:2", "evolve.csv:4"]
    printed = "\n".join(caplog.messages)
    assert printed.startswith(f"{path}, row 3: metrics/mAP_0.5")
    assert printed.endswith(": a training that diverged, left out")


@pytest.mark.bad_input
@pytest.mark.parametrize(("text", "words"), [
    ("", ": expected YOLOv5's evolve.csv, found an empty file"),
    ("\n \n", ": expected YOLOv5's evolve.csv, found an empty file"),
    (in_columns(*CSV_ROWS), ": expected a first row with the names of the columns, metrics/precision, metrics/recall, "
     "metrics/mAP_0.5 and so on, found '0.61, 0.5, "),
    (in_columns(CSV_NAMES, *CSV_ROWS, CSV_NAMES, *CSV_ROWS), ", row 4: the names of the columns again"),
    (in_columns(CSV_NAMES, CSV_ROWS[0], ["fast", *CSV_ROWS[1][1:]]),
     ", row 3: metrics/precision: expected a number, found 'fast'"),
    (in_columns(CSV_NAMES, CSV_ROWS[0], CSV_ROWS[1][:5]),
     ", row 3: expected 11 values, found 5: the file breaks off here; leave this row out"),
    (in_columns(CSV_NAMES, CSV_ROWS[0][:5], CSV_ROWS[1]), ", row 2: expected 11 values, found 5"),
    (in_columns(CSV_NAMES, [*CSV_ROWS[0], 1], CSV_ROWS[1]), ", row 2: expected 11 values, found 12"),
    (in_columns(CSV_NAMES, CSV_ROWS[0], [*CSV_ROWS[1][:8], 0.2, 0.85, 0.3]),
     ", row 3: lrf is 0.2, 0.1 in this study. `yolov5 --evolve` moves every hyper-parameter: search what it moved too, "
     "--meta momentum,lr0,lrf,mosaic, or start from the file's values, --hyp"),
    ("\xff", ": expected YOLOv5's evolve.csv, found"),
])
def test_what_is_wrong_with_an_evolve_csv_is_said_with_its_row(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "evolve.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError) as refusal:
        read_evolve_csv(path, make(str(tmp_path / "journal")))
    assert str(refusal.value).startswith(f"{path}{words}")


@pytest.mark.bad_input
@pytest.mark.parametrize(("storage", "shown"), [
    ("postgresql://me:s3cr%40t@127.0.0.1:1/db", "postgresql://me:***@127.0.0.1:1/db"),
    ("postgresql://me:s3cr@t@127.0.0.1:1/db", "postgresql://me:***@127.0.0.1:1/db"),  # an @ that should be %40
    ("postgresql://me:s3cr@t/x@127.0.0.1:1/db", "postgresql://me:***@127.0.0.1:1/db"),
    ("postgresql://127.0.0.1:1/db?user=me&password=s3cr%40t", "postgresql://127.0.0.1:1/db?user=me&password=***"),
    ("postgresql://me@127.0.0.1:1/db?sslpassword=s3cr%40t&connect_timeout=1",
     "postgresql://me@127.0.0.1:1/db?sslpassword=***&connect_timeout=1"),
    ("nosuch+driver://me:s3cr%40t@127.0.0.1:1/db", "nosuch+driver://me:***@127.0.0.1:1/db"),
    ("postgresql://me:s3cr@t@host:port/db", "postgresql://me:***@host:port/db"),
    ("postgresql://me:x?s3cr@127.0.0.1:1/db", "postgresql://me:***@127.0.0.1:1/db"),
    ("postgresql://me:x@y?s3cr@127.0.0.1:1/db?connect_timeout=1", "postgresql://me:***@127.0.0.1:1/db?connect_timeout=1"),
    ("postgresql://me@127.0.0.1:1/db?connect_timeout=1&options=-c%20password%3Ds3cr",
     "postgresql://me@127.0.0.1:1/db?connect_timeout=1&options=***"),
    ("postgresql://127.0.0.1/db?port=1&user=me@farm&p%61ssword=s3cr",
     "postgresql://127.0.0.1/db?port=1&user=me@farm&p%61ssword=***"),
])
def test_no_message_shows_a_databases_password(storage: str, shown: str) -> None:
    assert without_password(storage) == shown
    with pytest.raises(ValueError, match="this database cannot be used") as refusal:
        open_storage(storage)
    chain, error = [], refusal.value
    while error is not None:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for each in chain:
        assert "s3cr" not in str(each)
        assert "s3cr" not in repr(each)
    assert str(refusal.value).startswith(f"{shown}: this database cannot be used: ")
    assert "s3cr" not in repr(make(storage))


def test_a_password_with_an_at_sign_reaches_the_database_whole() -> None:
    for storage in ("postgresql://me:s3cr@t@host:5/db", "postgresql://me:s3cr%40t@host:5/db"):
        url, _ = resolve_url(storage)
        assert (url.host, url.port, url.username, url.password, url.database) == ("host", 5, "me", "s3cr@t", "db")
    for password in ("s3?cret", "s@3?c@t"):
        url, _ = resolve_url(f"postgresql://me:{password}@host:5/db?sslmode=require")
        assert (url.host, url.port, url.username, url.password, url.database) == ("host", 5, "me", password, "db")
        assert dict(url.query) == {"sslmode": "require"}


def test_words_of_a_database_are_free_of_the_password_however_it_is_spelt() -> None:
    storage = "postgresql://me:a%40b%20c@host/db?password=q%21r"
    said = RuntimeError(f"no host in {storage}, password a@b c or a%40b%20c, q!r or q%21r\nstatement: select 1")
    assert one_line(said, storage) == (
        "no host in postgresql://me:***@host/db?password=***, password *** or ***, *** or ***")
    assert one_line(RuntimeError(""), "journal") == "RuntimeError"
    storage = "postgresql://me:s3?x@host/db?options=-c%20a.password%3Dq7r%20-c%20b%3D1"
    assert one_line(RuntimeError("login s3?x, a.password q7r and b 1"), storage) == "login ***, a.password *** and b 1"


# -- lost sessions ----------------------------------------------------------------------------------------------------


def start_worker(tmp_path: Path, storage: str, **options: object) -> subprocess.Popen:
    """A worker process; its output goes to a file."""
    argument = {"storage": storage, "ledger": str(tmp_path / "ledger"), "n_trials": 8, "epoch_seconds": 0.05, **options}
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{WORKER.parent}"}
    with open(tmp_path / "worker.log", "ab") as log:
        return subprocess.Popen([sys.executable, str(WORKER), json.dumps(argument)], stdout=log, stderr=log,  # noqa: S603
                                env=environment)


def read_ledger(tmp_path: Path) -> pd.DataFrame:
    """What the workers did: `event`, `trial`, `pid`."""
    path = tmp_path / "ledger"
    lines = path.read_text().splitlines() if path.exists() else []
    return pd.DataFrame([json.loads(line) for line in lines], columns=["pid", "event", "trial"])


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Waits for what must come true, and fails if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def test_killed_at_ten_random_moments_nothing_is_lost_or_run_twice(tmp_path: Path) -> None:
    journal, rng, known = str(tmp_path / "local/journal"), np.random.default_rng(0), {}
    for _ in range(10):
        n_before = len(read_ledger(tmp_path))
        worker = start_worker(tmp_path, journal, n_trials=16, backup=str(tmp_path / "drive/journal"))
        wait_until(lambda n=n_before, w=worker: len(read_ledger(tmp_path)) > n or w.poll() is not None, 60)
        time.sleep(rng.uniform(0, 0.5))  # a trial takes 0.2 s
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        finished = {trial.number: (trial.params, trial.value) for trial in load(make(journal)).trials
                    if trial.state == TrialState.COMPLETE}
        assert known.items() <= finished.items()
        known = finished
    worker = start_worker(tmp_path, journal, n_trials=16, backup=str(tmp_path / "drive/journal"))
    assert worker.wait(timeout=60) == 0, (tmp_path / "worker.log").read_text()
    trials, ledger = load(make(journal)).trials, read_ledger(tmp_path)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == 16  # in all
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.FAIL}
    assert not ledger[ledger["event"] == "begun"]["trial"].duplicated().any()
    lost = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert len(lost) >= 5
    retried = {number for trial in trials for number in trial.system_attrs.get("retry_history", [])}
    assert {trial.number for trial in lost} <= retried
    for trial in complete:  # a retry repeats the values of the trial it stands for
        if history := trial.system_attrs.get("retry_history"):
            assert len(trials[history[-1]].params) < 2 or trials[history[-1]].params == trial.params
    assert Path(journal).read_bytes().startswith((tmp_path / "drive/journal").read_bytes())  # opening adds a line


def as_another_machine(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """From here on this machine has another name."""
    monkeypatch.setattr("socket.gethostname", lambda: name)


def test_a_running_trial_in_the_copy_of_a_dead_machine_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two GPUs: the copy that the first makes after its trial holds the second's, still running."""
    search = make(str(tmp_path / "journal"), n_trials=2)
    claim(load(search).ask())
    as_another_machine(monkeypatch, "the next virtual machine")
    states = [trial.state for trial in run_trials(search, objective).trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]


@pytest.mark.parametrize("moment", ["before it is queued again", "after"])
def test_dying_while_a_lost_trial_is_queued_again_loses_and_doubles_nothing(moment: str, tmp_path: Path) -> None:
    search = make(str(tmp_path / "journal"), n_trials=2)
    study = load(search)
    study.ask()
    study._storage.set_trial_state_values(study.trials[0]._trial_id, TrialState.FAIL)  # the process died right here
    if moment == "after":
        assert fail_lost_trials(study, search.storage) == [0]
    states = [trial.state for trial in run_trials(search, objective).trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert load(search).trials[1].params == {name: START[name] for name in search.meta}  # the start values, once


def test_a_trial_that_others_gave_up_does_not_end_this_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    search = make(str(tmp_path / "journal"), n_trials=2)

    def given_up(values: dict[str, float], number: int, device: str, on_epoch: OnEpoch) -> None:
        if number == 0:  # another worker saw no sign of life from here
            other = load(search)
            other._storage.set_trial_state_values(other.trials[0]._trial_id, TrialState.FAIL)
        objective(values, number, device, on_epoch)

    states = [trial.state for trial in run_trials(search, given_up).trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert "trial 0: others saw no sign of life from here and run its values again" in caplog.text


def test_two_gpus_share_the_trials_and_stop_together(tmp_path: Path) -> None:
    seen = []

    def look(values: dict[str, float], number: int, device: str, on_epoch: OnEpoch) -> None:
        seen.append(device)
        for epoch in range(4):
            time.sleep(0.02)
            on_epoch(scores_of(values, epoch))

    study = run_trials(make(str(tmp_path / "journal"), n_trials=10), look, devices=["0", "1"])
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 10
    assert set(seen) == {"0", "1"}

    def broken_on_one(values: dict[str, float], number: int, device: str, on_epoch: OnEpoch) -> None:
        if device == "1":
            raise KeyError("a mistake in the code")
        look(values, number, device, on_epoch)

    begun = time.monotonic()
    with pytest.raises(KeyError):
        run_trials(make(str(tmp_path / "other"), n_trials=1000), broken_on_one, devices=["0", "1"])
    assert time.monotonic() - begun < 30  # the other did not run its thousand


def test_a_session_that_lost_its_disk_goes_on_from_the_copy(tmp_path: Path) -> None:
    backup = tmp_path / "drive/journal"
    run_trials(make(str(tmp_path / "local/journal"), n_trials=3, backup=backup), objective)
    shutil.rmtree(tmp_path / "local")
    study = run_trials(make(str(tmp_path / "local/journal"), n_trials=5, backup=backup), objective)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 5
    assert backup.read_bytes() == (tmp_path / "local/journal").read_bytes()


def test_a_drive_that_fails_for_a_moment_ends_no_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backup, calls = tmp_path / "drive/journal", []

    def fail_once(journal: Path, copy: Path) -> None:
        calls.append(copy)
        if len(calls) == 1:
            raise OSError(errno.EIO, "Input/output error")
        copy_verified(journal, copy)

    monkeypatch.setattr(search_module, "copy_verified", fail_once)
    study = run_trials(make(str(tmp_path / "local/journal"), n_trials=2, backup=backup), objective)
    assert len(study.trials) == 2
    assert backup.read_bytes() == (tmp_path / "local/journal").read_bytes()
    assert f"{backup}: [Errno 5] Input/output error; tried again in 1 s" in caplog.text


def test_below_a_drive_that_has_gone_no_folder_is_made(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"{}\n")
    with pytest.raises(FileNotFoundError):
        copy_verified(tmp_path / "journal", tmp_path / "drive/MyDrive/journal")
    assert not (tmp_path / "drive").exists()


def test_two_sessions_that_ran_apart_are_not_mixed(tmp_path: Path) -> None:
    backup = tmp_path / "drive/journal"
    run_trials(make(str(tmp_path / "a/journal"), n_trials=2, backup=backup), objective)
    run_trials(make(str(tmp_path / "b/journal"), n_trials=2), objective)
    with pytest.raises(ValueError, match="have both gone on"):
        run_trials(make(str(tmp_path / "b/journal"), n_trials=3, backup=backup), objective)


def test_a_copy_with_anothers_trials_is_not_overwritten(tmp_path: Path) -> None:
    backup = tmp_path / "drive/journal"
    run_trials(make(str(tmp_path / "a/journal"), n_trials=2, backup=backup), objective)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    run_trials(make(str(tmp_path / "a/journal"), n_trials=3, backup=backup), objective)
    kept = backup.read_bytes()
    run_trials(make(str(tmp_path / "b/journal"), n_trials=5), objective)  # longer, and without a's third trial
    with pytest.raises(ValueError, match="have both gone on"):
        copy_verified(tmp_path / "b/journal", backup)
    assert backup.read_bytes() == kept


def test_a_torn_last_line_is_survived(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    run_trials(make(str(journal), n_trials=2), objective)
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":5,"worker_id":"half a li')
    assert len(run_trials(make(str(journal), n_trials=4), objective).trials) == 4
    assert journal.read_bytes().startswith(whole + b'{"op_code"')
    assert [json.loads(line) for line in journal.read_bytes().splitlines()]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"")), max_size=6), st.binary(max_size=9))
def test_only_the_torn_part_is_cut(lines: list[bytes], torn: bytes) -> None:
    import tempfile

    torn = torn.replace(b"\n", b"")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        path.write_bytes(b"".join(line + b"\n" for line in lines) + torn)
        assert cut_torn_line(path) == len(torn)
        assert path.read_bytes() == b"".join(line + b"\n" for line in lines)


def test_two_processes_share_one_file(tmp_path: Path) -> None:
    journal = str(tmp_path / "journal")
    workers = [start_worker(tmp_path, journal, n_trials=20) for _ in range(2)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0], (tmp_path / "worker.log").read_text()
    trials, ledger = load(make(journal)).trials, read_ledger(tmp_path)
    assert sum(trial.state == TrialState.COMPLETE for trial in trials) == 20
    ended = ledger[ledger["event"] == "ended"]
    assert sorted(ended["trial"]) == [trial.number for trial in trials if trial.state == TrialState.COMPLETE]
    assert ended["pid"].nunique() == 2


# -- many machines ------------------------------------------------------------------------------------------------


def test_four_workers_on_a_database_one_killed_one_late(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"n_trials": 24, "epoch_seconds": 0.4}
    workers = [start_worker(tmp_path, database, host=f"machine {index}", **options) for index in range(3)]
    wait_until(lambda: (read_ledger(tmp_path)["event"] == "ended").sum() >= 3, 90)
    killed = workers.pop(0)
    wait_until(lambda: (read_ledger(tmp_path)["pid"] == killed.pid).sum() % 2 == 1, 30)  # in the middle of a trial
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    workers.append(start_worker(tmp_path, database, host="a late one", **options))
    assert [worker.wait(timeout=180) for worker in workers] == [0, 0, 0], (tmp_path / "worker.log").read_text()
    trials, ledger = load(make(database)).trials, read_ledger(tmp_path)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == 24
    assert sorted(ledger[ledger["event"] == "ended"]["trial"]) == [trial.number for trial in complete]  # each once
    assert set(ledger["pid"]) == {worker.pid for worker in [killed, *workers]}  # the late one worked too
    lost = ledger[(ledger["pid"] == killed.pid)].groupby("trial")["event"].agg(list)
    (number,) = lost[lost.map(lambda events: "ended" not in events)].index
    assert trials[number].state == TrialState.FAIL  # its heartbeat stopped
    (again,) = [trial for trial in complete if trial.system_attrs.get("failed_trial") == number]
    assert again.params == trials[number].params


@pytest.mark.parametrize(("epochs", "is_said"), [(3, True), (4, True), (5, False)])
def test_where_halving_can_stop_nothing_it_is_said(
    epochs: int, is_said: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    search = make(str(tmp_path / "journal"), n_trials=1, pruner="halving", epochs=epochs,
                  start={**START, "warmup_epochs": 3.0})
    with caplog.at_level("INFO"):
        run_trials(search, objective)
    assert ("no trial can be stopped early: halving first compares after 4 epochs" in caplog.text) == is_said


# -- on a run's data ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sample in AI Hub's layout."""
    folder = tmp_path_factory.mktemp("drawn") / "raw"
    draw_sample(folder, n_train=16, n_test=2, scale=0.1)
    return folder


def prepare(drawn: Path, workspace: Path, **more: object) -> tuple[Run, Path]:
    """A run at `smoke` and the data that its trials train with."""
    run = make_run(workspace=workspace, profile="smoke", data=drawn, reader="aihub",
                   competition=REPOSITORY / "competition.yaml", **more)  # type: ignore[arg-type]
    tables, split = read_data(run), split_data(run)
    write_dataset(run, split.images, tables.boxes)
    return run, write_search_lists(run, split)[0]


def test_a_search_starts_from_the_family_s_own_values_and_is_of_that_family_alone(drawn: Path, tmp_path: Path) -> None:
    run, data_yaml = prepare(drawn, tmp_path / "ws", overrides={"family": "retinanet"})
    storage = str(tmp_path / "journal")
    search = make_search(run, data_yaml, storage=storage)
    assert search.start == read_hyp(REPOSITORY / "hyp/retinanet.yaml")
    assert list(search.meta) == ["lr0", "lrf", "momentum"]
    training = search.identity["training"]
    assert {name: training[name] for name in ("family", "size", "optimizer", "epochs", "save")} == {
        "family": "retinanet", "size": "resnet18", "optimizer": "SGD", "epochs": 1, "save": False}
    assert search.identity["weights_hash"] == "resnet18"
    study = run_trials(search, objective)
    assert len(study.trials) == run.profile.trials
    with pytest.raises(ValueError, match="another "):
        load(make_search(prepare(drawn, tmp_path / "ws")[0], data_yaml, storage=storage))
    with pytest.raises(ValueError, match="meta: 'obj' is not in the start values; expected some of"):
        make_search(run, data_yaml, storage=storage, meta=["lr0", "obj"])


def test_where_and_how_a_study_is_watched_is_no_other_study(drawn: Path, tmp_path: Path) -> None:
    run, data_yaml = prepare(drawn, tmp_path / "ws")
    other, _ = prepare(drawn, tmp_path / "ws", overrides={"workers": 3, "device": "0", "loggers": "tensorboard"})
    longer, _ = prepare(drawn, tmp_path / "ws", overrides={"trial_epochs": 2})
    found = [make_search(each, data_yaml, storage=str(tmp_path / "journal")).identity for each in (run, other, longer)]
    assert found[0] == found[1] != found[2]


def test_a_search_has_its_share_of_the_kept_plan(drawn: Path, tmp_path: Path) -> None:
    run, data_yaml = prepare(drawn, tmp_path / "ws", overrides={"budget_hours": 9})
    write_text(json.dumps({"for": hash_content(plan_settings(run)), "shares": {"03_evolve": 1.5}}),
               plan_path(run.workspace))
    assert make_search(run, data_yaml, storage=str(tmp_path / "journal")).share_minutes == 90
    plain, _ = prepare(drawn, tmp_path / "ws", overrides={"budget_hours": 0})
    assert make_search(plain, data_yaml, storage=str(tmp_path / "journal")).share_minutes is None


def test_what_a_plan_freezes_in_trials_is_another_study_and_not_among_the_values_found(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data_yaml = prepare(drawn, tmp_path / "ws", overrides={"search_freeze": 0.5})
    plain, _ = prepare(drawn, tmp_path / "ws")
    search, other = (make_search(each, data_yaml, storage=str(tmp_path / "journal")) for each in (run, plain))
    assert (search.study, other.study) == ("evolve_64px_1epochs_frozen0.5", "evolve")
    assert search.identity["training"] == {**other.identity["training"], "freeze": 0.5}
    trained = []

    def train(config: TrainConfig, run_dir: Path, on_epoch: Callable[[Mapping[str, float]], None], **_: object) -> None:
        trained.append(read_hyp(Path(config.hyp)))
        on_epoch({"epoch": 0, "AP": 0.1 * len(trained), "AP50": 0.6, "AP75": 0.5, "mAP50_95": 0.4})

    monkeypatch.setattr(evolve, "train", train)
    study = run_search(run, search, data_yaml)
    verify(run, search, study, data_yaml)
    assert len(trained) == run.profile.trials + 2 * run.profile.n_verified
    assert all(values["freeze"] == 0.5 for values in trained)
    found = write_evolved(run, search, study, (math.nan,) * 3)
    assert found and "freeze" not in read_hyp(found) and "freeze" not in search.start


# -- with real trainings --------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_command_survives_a_kill_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    draw_sample(tmp_path / "raw", seed=7, n_train=40, n_test=4, scale=0.12)
    command = [sys.executable, "-m", "livestock", "evolve", "--data", str(tmp_path / "raw"), "--profile", "smoke",
               "--workspace", str(tmp_path / "work"), "--trials", "2"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    first = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL,  # noqa: S603
                             stderr=subprocess.DEVNULL)
    progress = tmp_path / "work/runs/evolve/evolve/trial_0001/progress.jsonl"
    wait_until(lambda: progress.exists() and "box" in progress.read_text(), 180)  # a batch of the second trial is done
    first.send_signal(signal.SIGKILL)
    first.wait()
    again = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    copy = tmp_path / "work/runs/evolve/evolve.journal"  # the journal itself lies on the local disk
    assert b"trial_id" in copy.read_bytes()
    assert "trial 1: it was cut off; its values are queued again" in again.stdout
    assert "trial 2 complete" in again.stdout
    assert "trial 0 " not in again.stdout  # it was not run twice
    assert "on a fold the search never saw:" in again.stdout
    best = read_hyp(tmp_path / "work/evolved.yaml")
    assert set(best) == set(read_hyp(REPOSITORY / "hyp/demo.yaml"))
    assert (tmp_path / "work/evolved.yaml").read_text().startswith("# Found by `livestock evolve`")
    lists = sorted((tmp_path / "work/yolo").glob("*/evolve*_*.txt"))
    names = {path.stem: set(path.read_text().split()) for path in lists}
    assert not names["evolve_train"] & (names["evolve_valid"] | names["evolve_fresh_valid"])
    assert not names["evolve_valid"] & names["evolve_fresh_valid"]
    assert names["evolve_fresh_train"] == names["evolve_train"]


def test_the_interval_is_students(tmp_path: Path) -> None:
    """Gains 0.01, 0.02, 0.03: mean 0.02, standard error 0.01 / sqrt(3), t of two degrees of freedom 4.3027."""
    rows = [{"values": values, "seed": seed, "fitness": 0.5 + (0.01 * seed if values == "best" else 0)}
            for values in ("start", "best") for seed in (1, 2, 3)]
    mean, low, high = gain_interval(pd.DataFrame(rows))
    assert (mean, high - mean, mean - low) == pytest.approx((0.02, 0.0248414, 0.0248414), abs=1e-6)


def test_the_noise_of_a_training_is_pooled_over_seeds() -> None:
    """Distances from the two means: -.02, 0, .02 and -.01, 0, .01; squares .0008 and .0002 over 6 - 2; t is 2.7764."""
    verified = pd.DataFrame({"values": ["start"] * 3 + ["best"] * 3, "fitness": [0.48, 0.50, 0.52, 0.59, 0.60, 0.61]})
    deviation = (0.0010 / 4) ** 0.5
    assert training_noise(verified) == pytest.approx((deviation, 2.776445 * 2**0.5 * deviation))
    failed = pd.concat([verified, verified[:1].assign(fitness=math.nan)])
    assert training_noise(failed) == training_noise(verified)  # a training that diverged says nothing
    assert np.isnan([*training_noise(verified.iloc[[0, 3]]), *training_noise(verified[:0])]).all()
