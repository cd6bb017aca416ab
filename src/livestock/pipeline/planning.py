"""The plan of a workspace: measured, shown before it runs, and kept as a step of the store.

A run with a budget takes the changes of its profile from the kept plan (`run.make_run`). The plan is made once for a
profile, its overrides and the folds: another machine that goes on with the workspace follows it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from statistics import median
from typing import Any

import pandas as pd
import psutil
import yaml

from ..config import resource, split_overrides
from ..exceptions import BadData, MissingResult
from ..files.hashing import hash_content
from ..files.write import write_json
from ..search.proxies import PROXIES, Proxy
from ..training.resume import read_rows
from ..training.settings import find_place
from .evolve import DEFAULT_STUDY, name_plan, name_study
from .expectation import count_images, expect
from .pace import Pace, guess_pace, measure_pace, read_pace
from .plan import DECIDES, FIXED, Plan, fit, say_too_long
from .prepare import ensure_data, read_data, read_tables, split_data
from .run import Run, plan_path, plan_settings, profile_of, read_kept_plan, with_changes
from .stages import STAGES, VALID_SHARE, Piece, Sizes, cut_sessions, list_pieces, sum_seconds
from .store import read_records, run_step
from .train import guess_start_bytes

logger = logging.getLogger(__name__)
MOST_SESSIONS = 5  # that are listed
PROXIES_FILE = "hyp/proxies.yaml"
TRAINED, N_FOLLOWED = ("fold", "teacher", "student", "final model"), 3
ALL = 1_000_000  # pieces: more than there are
BYTES_A_PARAMETER = 2  # of weights in half precision
TRAINED_WITH = ("family", "imgsz", "epochs", "batch", "nominal_batch", "optimizer", "schedule")  # of a profile
STEPS = {  # the record of the store that says that a piece is done, by how its name begins
    ("01_eda", "reading"): "read", ("02_split", "split"): "split",
    ("04_train", "images at training size"): "dataset_fold",
    ("04_train", "fold"): "train_fold", ("06_silver", "teacher"): "train_teacher", ("06_silver", "passes"): "recipe",
    ("06_silver", "student"): "train_student", ("07_final", "final model"): "train_full",
}


def read_proxies(family: str) -> list[Proxy]:
    """The proxies measured with this family whose regret is within the noise of one training; see `hyp/proxies.yaml`.

    Raises BadData for an unknown proxy or an entry without its numbers.
    """
    content = yaml.safe_load(resource(PROXIES_FILE).read_text(encoding="utf-8")) or {}
    known = {proxy.name: proxy for proxy in PROXIES}
    for name, row in content.items():
        if name not in known or not isinstance(row, dict) or not {"family", "regret", "noise"} <= set(row):
            raise BadData(f"{PROXIES_FILE}: expected some of {list(known)}, each with family, regret and noise, "
                          f"found {name}: {row}")
    return [known[name] for name, row in content.items() if row["family"] == family and row["regret"] <= row["noise"]]


def count_sizes(run: Run) -> Sizes:
    """How many images there are, with labels and to answer; before they are read, those of the folder in all."""
    try:
        images, _ = read_tables(run)
        tests = pd.read_parquet(run.workspace.interim_dir / "test_images.parquet", columns=["image_id"])
    except MissingResult:
        return Sizes(images=len(count_images(run.data_dir, run.workspace.root)), folds=len(run.folds))
    return Sizes(len(images), len(tests) or VALID_SHARE * len(images), len(run.folds), done=find_done(run))


def guess(run: Run) -> Pace:
    """The pace before the first step: see `pace.guess_pace`. Official weights are not downloaded for it."""
    return guess_pace(run.profile, guess_start_bytes(run) / BYTES_A_PARAMETER, psutil.cpu_count(logical=False) or 1,
                      on_gpu=find_place(run.profile.device).device != "cpu")


def find_done(run: Run) -> dict[tuple[str, str], int]:
    """How many pieces of each kind are done with this run's settings, by what the store and the study have."""
    wanted = {name: getattr(run.profile, name) for name in TRAINED_WITH}
    folds = [f"train_fold{fold}" for fold in run.folds]
    records = read_records(run.workspace.root)
    done: dict[tuple[str, str], int] = {}
    for kind, begins in STEPS.items():
        done[kind] = sum(
            bool(record.key) and step.startswith(begins) and (begins != "train_fold" or step in folds)
            and not [name for name, value in wanted.items() if (record.settings or {}).get(name, value) != value]
            for step, record in records.items())
    study = name_study(DEFAULT_STUDY, run.workspace, name_plan(run.profile))
    done["03_evolve", "start and best again"] = sum(
        bool(record.key) and step.startswith(f"{study}_verify_") for step, record in records.items())
    done["03_evolve", "trial"] = len(list(run.workspace.runs_dir.glob(f"evolve/{study}/trial_*/history.jsonl")))
    if run.profile.budget_hours and done["03_evolve", "start and best again"]:
        done["03_evolve", "trial"] = ALL  # its share may have been spent before the last one
    if run.profile.budget_hours and done["06_silver", "student"] and (recipe := records.get("recipe")) and recipe.key:
        done |= {kind: ALL for kind in STEPS if kind[0] == "06_silver"}  # it may have stopped before the last seed
    done["05_errors", "passes"] = int((run.workspace.interim_dir / "errors.parquet").exists())
    done["08_inference", "passes and answer"] = int(run.workspace.answer_path.exists())
    return done


def follow_trainings(run: Run, pace: Pace) -> Pace:
    """The pace as the epochs of the last trainings have it, the median of three: other processes come and go.

    Only those count that ended after the pace was measured here.
    """
    records = read_records(run.workspace.root)
    pieces = {STEPS[piece.stage, piece.what]: replace(piece, seen=0.0)
              for piece in list_pieces(run.profile, count_sizes(run)) if piece.epochs and piece.what in TRAINED}
    later = sorted((record for record in records.values() if record.step.startswith("train_") and record.key
                    and record.settings["epochs"] == run.profile.epochs
                    and record.finished >= records["pace"].finished), key=lambda record: record.finished)
    ratios = [sum(row["seconds"] for row in read_rows(run.workspace.root / record.notes["run_dir"]))
              / (piece.seconds(pace) - pace.again) for record in later[-N_FOLLOWED:]
              for begins, piece in pieces.items() if record.step.startswith(begins)]
    ratios = [ratio for ratio in ratios if ratio]  # 0: its folder was removed to save room
    return pace.slow_down(median(ratios)) if ratios else pace


def make_plan(run: Run, pace: Pace) -> Plan:
    """The plan of this run, kept in the lineage; the kept one where profile and overrides are the same.

    With a budget `run` has the profile as it was told, before any plan: see `run.make_run`.
    """
    path, chosen = plan_path(run.workspace), sorted(split_overrides(run.settings.overrides)[0])
    settings, kept = plan_settings(run), find_fixed(run, chosen)
    found = fit(replace(profile_of(run.settings), **kept), count_sizes(with_changes(run, kept)), pace,
                read_proxies(run.profile.family), [*chosen, *kept])
    reasons = [f"{name} stays {value}, with which an earlier plan has trained" for name, value in kept.items()]
    found = replace(found, changes={**kept, **found.changes}, reasons=[*reasons, *found.reasons])
    content = {"changes": found.changes, "skip": found.skip, "reasons": found.reasons, "shares": found.shares}

    def action() -> dict[str, Any]:
        hours = round(sum_seconds(found.pieces, pace) / 3600, 3)
        write_json({"for": hash_content(settings), **content, "hours": hours}, path)
        return {"pace": asdict(pace), "hours": hours, **content}

    run_step("plan", action, outputs=[path], settings={"profile": settings, "chosen": chosen},
             workspace=run.workspace.root, by="livestock plan", says=False)
    return follow_plan(run, read_kept_plan(run))


def find_fixed(run: Run, chosen: Collection[str]) -> dict[str, Any]:
    """Profile fields that an earlier plan changed and finished trainings depend on, without those in `chosen`."""
    path = plan_path(run.workspace)
    before = json.loads(path.read_text(encoding="utf-8")).get("changes", {}) if path.exists() else {}
    done = find_done(with_changes(run, before))
    return {name: before[name] for kind, names in FIXED.items() if done.get(kind)
            for name in names if name in before and name not in chosen}


def follow_plan(run: Run, kept: Mapping[str, Any]) -> Plan:
    """A kept plan with the pieces that it leads to, and what of them is done."""
    planned = with_changes(run, kept["changes"])
    pieces = list_pieces(planned.profile, count_sizes(planned), kept["skip"])
    return Plan(pieces, kept["changes"], kept["skip"], kept["reasons"], kept.get("shares", {}))


def plan_run(run: Run, *, measures: bool = True) -> tuple[Run, Plan, Pace]:
    """The run as its plan has it, the plan with what is done, and the pace: measured now or earlier, or a guess.

    Only a pace that is measured makes a plan that is kept. Raises MissingResult where it is to be measured and the data
    are not read yet.
    """
    pace = measure_pace(run) if measures else read_pace(run) or guess(run)
    pace = follow_trainings(run, pace) if pace.is_measured else pace
    if not run.profile.budget_hours:
        return run, Plan(list_pieces(run.profile, count_sizes(run))), pace
    if measures:
        plan = make_plan(run, pace)
    elif kept := read_kept_plan(run):
        plan = follow_plan(run, kept)
    else:
        return run, fit(run.profile, count_sizes(run), pace, read_proxies(run.profile.family),
                        list(run.settings.overrides)), pace
    return with_changes(run, plan.changes), plan, pace


def show_plan(run: Run) -> Run:
    """Logs the plan at the start of a notebook; the run as it has it. A first one with a budget measures and keeps it.

    Without a budget nothing rests on it: where it cannot be told, as of start weights that are gone, it says why.
    """
    ensure_data(run)
    if not run.profile.budget_hours:
        try:
            logger.info(describe_plan(*plan_run(run, measures=False)))
        except BadData as error:
            logger.info("no plan: %s", error)
        return run
    read_data(run)
    split_data(run)
    run, plan, pace = plan_run(run, measures=not read_kept_plan(run))
    logger.info(describe_plan(run, plan, pace))
    return run


def show_next(run: Run) -> None:
    """Logs what the next session does; where a run without a budget cannot tell, as of lost start weights, why."""
    try:
        run, plan, pace = plan_run(run, measures=False)
    except BadData as error:
        if run.profile.budget_hours:
            raise
        logger.info("no plan: %s", error)
    else:
        logger.info(say_next(plan, pace, run.profile.session_hours))


def plan_table(plan: Plan, pace: Pace) -> pd.DataFrame:
    """A row a stage: its pieces, how many are done, the minutes that are left of it, and what it decides."""
    rows = []
    for stage in STAGES:
        own = [piece for piece in plan.pieces if piece.stage == stage]
        words = ", ".join(piece.what if piece.n == 1 else f"{piece.n} x {piece.what}" for piece in own)
        rows.append({"stage": stage, "pieces": words or "not tried", "done": _say_done(own),
                     "minutes": round(sum_seconds(own, pace, [stage]) / 60, 1), "decides": DECIDES.get(stage, "")})
    return pd.DataFrame(rows).set_index("stage")


def _say_done(pieces: list[Piece]) -> str:
    n, done = sum(piece.n for piece in pieces), sum(piece.done for piece in pieces)
    return f"{done} of {n}" if n else ""


def describe_plan(run: Run, plan: Plan, pace: Pace) -> str:
    """The table, and in sentences: total, sessions, disk, memory, and what the budget could not afford."""
    about = "" if pace.is_measured else "about "
    hours = sum_seconds(plan.pieces, pace) / 3600
    lines = [plan_table(plan, pace).to_string(), ""]
    lines.append(f"{about}{say_hours(hours)} are left, from "
                 + (f"real steps here: {pace.train * 1000:.0f} ms an image in training, {pace.valid * 1000:.0f} in "
                    f"validation, {pace.seen * 1000:.0f} in prediction" if pace.is_measured else
                    "images, size and model alone; `livestock plan` measures it"))
    lines += [f"- {reason}" for reason in plan.reasons]
    if too_long := say_too_long(plan.pieces, pace, run.profile):
        lines.append(f"- 03_evolve: {too_long}: take a smaller search_imgsz, fewer trial_epochs or --skip 03_evolve")
    sessions = cut_sessions(plan.pieces, pace, run.profile.session_hours)
    lines += [f"session {number} of {len(sessions)} ({run.profile.session_hours:g} h each): {say_session(session)}"
              for number, session in enumerate(sessions[:MOST_SESSIONS], 1)]
    if len(sessions) > MOST_SESSIONS:
        lines.append(f"... and {len(sessions) - MOST_SESSIONS} more" + (
            "" if run.profile.budget_hours else "; more than you have? `--set budget_hours=24` plans so many hours, "
            "`livestock run --skip 03_evolve --skip 06_silver` leaves out what takes longest"))
    lines.append(_say_needs(run, pace))
    return "\n".join(lines)


def say_session(session: Mapping[tuple[str, str], float]) -> str:
    """What a session does, in words, by stage; a share below 1 is a part of a training.

    >>> say_session({("03_evolve", "split"): 1.0, ("03_evolve", "trial"): 4.0, ("04_train", "fold"): 0.5})
    '03_evolve: split, 4 x trial; 04_train: 0.5 x fold'
    """
    by_stage: dict[str, list[str]] = {}
    for (stage, what), n in session.items():
        by_stage.setdefault(stage, []).append(what if n == 1 else f"{n:.3g} x {what}")
    return "; ".join(f"{stage}: {', '.join(words)}" for stage, words in by_stage.items())


def say_next(plan: Plan, pace: Pace, session_hours: float) -> str:
    """One line at the end of a session: what the next one will do, and how long that takes."""
    sessions = cut_sessions(plan.pieces, pace, session_hours)
    if not sessions:
        return "everything of the plan is done"
    of = {(piece.stage, piece.what): piece.seconds(pace) for piece in plan.pieces}
    hours = sum(n * of[kind] for kind, n in sessions[0].items()) / 3600
    return f"the next session, about {say_hours(hours)}: {say_session(sessions[0])}"


def say_hours(hours: float) -> str:
    """Hours in words, below one as minutes.

    >>> say_hours(2.54), say_hours(0.31), say_hours(0.02)
    ('2.5 hours', '19 minutes', '1 minute')
    """
    if (minutes := round(60 * hours)) < 60:
        return f"{minutes} minute" + "s" * (minutes != 1)
    return f"{hours:.1f} hours"


def _say_needs(run: Run, pace: Pace) -> str:
    notebooks: dict[str, dict[str, Any]] = {
        "03_evolve": {}, "04_train": {"FOLDS": run.folds}, "06_silver": {"N_SEEDS": None, "STRATEGIES": ["complete"]},
        "07_final": {}}
    memory = (f"; memory: a training takes {pace.gigabytes:.1f} of {pace.of_gigabytes:.1f} GB" if pace.is_measured
              else "")
    return f"disk: {expect(run, notebooks).disk_bytes / 1e9:.1f} GB in all{memory}"
