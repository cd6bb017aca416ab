"""What the search found: the table of trials, importances, and YOLOv5's `evolve.csv` in and out."""

from __future__ import annotations

import csv
import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as short

import optuna
import pandas as pd
from optuna.distributions import FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState

from ..exceptions import BadData
from ..files.write import write_text
from .genetic import GENERATION_KEY, PARENTS_KEY
from .search import ENDED, IMPORTED_KEY, SCORES_KEY, SECONDS_KEY, Search
from .space import Meta, distributions
from .storage import exclusive
from .study import ERROR_KEY, OWNER_KEY, is_retry_of

logger = logging.getLogger(__name__)

# YOLOv5's names for the results of a generation, in its order, and ours
CSV_SCORES = {
    "metrics/precision": "precision",
    "metrics/recall": "recall",
    "metrics/mAP_0.5": "AP50",
    "metrics/mAP_0.5:0.95": "mAP50_95",
    "val/box_loss": "val_box_loss",
    "val/obj_loss": "val_obj_loss",
    "val/cls_loss": "val_cls_loss",
}
CMAES_GENERATION_KEY = "cma:generation"  # Optuna's, from 0
COLUMNS = ["trial", "state", "fitness", "epochs", "seconds", "generation", "parents", "changed", "retry_of", "error",
           "worker"]


def trials_table(study: optuna.Study, meta: Meta) -> pd.DataFrame:
    """One row a trial, by number: `state`, `fitness` (of the best epoch so far), `epochs`, `seconds`, `generation`,
    `parents`, `changed` (in words, against the parent if there is one, else the start values), `retry_of`, `error`,
    `worker`, the hyper-parameters of `meta`, and the scores.
    """
    start = study.user_attrs["start"]
    by_number = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    rows = []
    for number, trial in by_number.items():
        parents = trial.system_attrs.get(PARENTS_KEY, [])
        before = by_number[parents[0]].params if len(parents) == 1 else start
        host_and_pid = trial.user_attrs.get(OWNER_KEY, ["", ""])[:2]
        rows.append({
            "trial": number,
            "state": "imported" if IMPORTED_KEY in trial.user_attrs else trial.state.name.lower(),
            "fitness": trial.value if trial.state in ENDED and trial.value is not None else math.nan,
            "epochs": len(trial.intermediate_values),
            "seconds": trial.user_attrs.get(SECONDS_KEY, math.nan),
            "generation": trial.system_attrs.get(GENERATION_KEY, trial.system_attrs.get(CMAES_GENERATION_KEY, -1) + 1),
            "parents": ", ".join(map(str, parents)),
            "changed": _changes(before, trial.params),
            "retry_of": is_retry_of(trial),
            "error": trial.user_attrs.get(ERROR_KEY, "").strip().splitlines()[-1:],
            "worker": ":".join(map(str, host_and_pid)),
            **{name: trial.params.get(name, math.nan) for name in meta},
            **trial.user_attrs.get(SCORES_KEY, {}),
        })
    if not rows:
        return pd.DataFrame(columns=[*COLUMNS, *meta])
    table = pd.DataFrame(rows).drop(columns="epoch", errors="ignore")
    return table.assign(error=table["error"].str.join(""), retry_of=table["retry_of"].astype("Int64"))


def _changes(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    changed = [f"{name} {before[name]:.3g} → {value:.3g}" for name, value in after.items() if before[name] != value]
    return ", ".join(changed) or "nothing"


def importances(study: optuna.Study) -> pd.Series:
    """The share of the variation in fitness that each hyper-parameter explains (functional ANOVA, Hutter et al.
    2014, over the finished trials), largest first. Empty with fewer than four, which explain nothing."""
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < 4:
        return pd.Series(dtype=float, name="importance")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return pd.Series(found, dtype=float, name="importance").sort_values(ascending=False)


def read_evolve_csv(path: Path, search: Search) -> list[optuna.trial.FrozenTrial]:
    """The generations of YOLOv5's `evolve.csv` as finished trials of this search, columns found by name.

    A generation whose scores or losses are not finite is a training that diverged: it is left out, with a line that
    says so. Raises BadData naming file and row if the file is none of YOLOv5's, a row is cut off, a value is no
    number or lies outside its limits, a hyper-parameter that is not searched differs from the start values, or the
    search's fitness is one that the file does not hold (ValueError).
    """
    if search.fitness != "yolov5":
        raise ValueError(f"{path}: holds YOLOv5's fitness (0.1 AP50 + 0.9 mAP50-95), the search's is "
                         f"{search.fitness!r}; go on from it with --fitness yolov5")
    space, start, trials = distributions(search.meta), search.start, []
    rows = _read_rows(path, [*CSV_SCORES, *start])
    _check_values(path, rows, space, start)
    for row, values in rows.items():
        scores = {ours: values[theirs] for theirs, ours in CSV_SCORES.items()}
        if odd := [theirs for theirs in CSV_SCORES if not math.isfinite(values[theirs])]:
            logger.warning("%s, row %d: %s is %g: a training that diverged, left out", path, row, odd[0],
                           values[odd[0]])
            continue
        trials.append(optuna.create_trial(
            params={name: values[name] for name in space},
            distributions=dict(space),
            value=0.1 * scores["AP50"] + 0.9 * scores["mAP50_95"],
            user_attrs={IMPORTED_KEY: f"{path.name}:{row}", SCORES_KEY: scores},
        ))
    return trials


def _read_rows(path: Path, wanted: list[str]) -> dict[int, dict[str, float]]:
    """The numbers of each row by its line in the file. Raises BadData for what is no row of numbers."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = dict((reader.line_num, [cell.strip() for cell in cells]) for cells in reader
                         if any(cell.strip() for cell in cells))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"{path}: expected YOLOv5's evolve.csv, found {error}") from error
    if not lines:
        raise BadData(f"{path}: expected YOLOv5's evolve.csv, found an empty file")
    header = lines.pop(next(iter(lines)))
    if not set(header) & set(wanted):
        raise BadData(f"{path}: expected a first row with the names of the columns, {', '.join(wanted[:3])} and so "
                      f"on, found {short(', '.join(header))}")
    if missing := sorted(set(wanted) - set(header)):
        raise BadData(f"{path}: column {missing[0]!r} is missing")
    return {row: _to_numbers(f"{path}, row {row}", header, cells, is_last=row == max(lines))
            for row, cells in lines.items()}


def _to_numbers(place: str, header: list[str], cells: list[str], *, is_last: bool) -> dict[str, float]:
    if cells == header:
        raise BadData(f"{place}: the names of the columns again, as in two files put together; read them one after "
                      "the other, or leave this row out")
    if len(cells) != len(header):
        cut = ": the file breaks off here; leave this row out" if is_last and len(cells) < len(header) else ""
        raise BadData(f"{place}: expected {len(header)} values, found {len(cells)}{cut}")
    values = {}
    for name, cell in zip(header, cells, strict=True):
        try:
            values[name] = float(cell)
        except ValueError:
            raise BadData(f"{place}: {name}: expected a number, found {short(cell)}") from None
    return values


def _check_values(
    path: Path, rows: Mapping[int, Mapping[str, float]], space: Mapping[str, FloatDistribution],
    start: Mapping[str, float],
) -> None:
    """Raises BadData for values outside their limits, and for hyper-parameters that vary without being searched."""
    fixed = sorted(set(start) - set(space))
    moved: dict[str, int] = {}  # where first
    for row, values in rows.items():
        for name in fixed:
            if not math.isclose(values[name], start[name], rel_tol=1e-4, abs_tol=1e-12):  # the file has five digits
                moved.setdefault(name, row)
    for row, values in rows.items():
        for name, limits in space.items():
            if not limits.low <= values[name] <= limits.high:
                raise BadData(f"{path}, row {row}: {name} is {values[name]:g}, "
                              f"expected {limits.low:g} to {limits.high:g}")
    if moved:
        row, name = min((row, name) for name, row in moved.items())
        raise BadData(f"{path}, row {row}: {name} is {rows[row][name]:g}, {start[name]:g} in this study. `yolov5 "
                      f"--evolve` moves every hyper-parameter: search what it moved too, --meta "
                      f"{','.join([*space, *(each for each in start if each in moved)])}, or start from the file's "
                      "values, --hyp")


def add_generations(study: optuna.Study, storage: str, trials: list[optuna.trial.FrozenTrial]) -> int:
    """Adds those of the trials that the study lacks; returns how many.

    They become parents, and do not count among the trials that were asked for. Called again, or by several workers at
    once, it adds each once.
    """
    with exclusive(storage):
        known = {trial.user_attrs.get(IMPORTED_KEY) for trial in study.get_trials(deepcopy=False)}
        missing = [trial for trial in trials if trial.user_attrs[IMPORTED_KEY] not in known]
        study.add_trials(missing)
    return len(missing)


def write_evolve_csv(study: optuna.Study, path: Path) -> int:
    """Writes the finished trials as YOLOv5's `evolve.csv`, in its columns and digits; returns how many.

    Raises BadData for trials of another family, whose loss has other parts.
    """
    start = study.user_attrs["start"]
    lines = [",".join(f"{name:>20s}" for name in [*CSV_SCORES, *start])]
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        scores, values = trial.user_attrs[SCORES_KEY], {**start, **trial.params}
        if missing := [name for name in CSV_SCORES.values() if name not in scores]:
            raise BadData(f"{path}: expected the scores of YOLOv5 to write its evolve.csv, found no {missing[0]} in "
                          f"trial {trial.number}, of another family")
        numbers = [*(scores[name] for name in CSV_SCORES.values()), *(values[name] for name in start)]
        lines.append(",".join(f"{number:20.5g}" for number in numbers))
    write_text("\n".join(lines) + "\n", path)
    return len(lines) - 1
