"""The settings of a run: its arguments, else its workspace's `run.yaml`, else the defaults."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..config import (
    REPOSITORY,
    Competition,
    Profile,
    RunSettings,
    Workspace,
    find_competition,
    get_profile,
    in_words,
    read_competition,
    read_settings,
    resource,
    settings_path,
    settings_text,
    split_overrides,
)
from ..data import readers
from ..exceptions import BadData
from ..files.hashing import hash_content
from ..files.write import write_text

logger = logging.getLogger(__name__)
OF_A_MACHINE = ("device", "workers", "loggers", "session_hours")  # of a profile, what machines and sessions may choose
OF_A_PROFILE = ("weights", "hyp", "overrides")  # what run.yaml says of these is meant for the profile that it names


@dataclass(frozen=True)
class Run:
    """What one pass over the notebooks is made of."""

    competition: Competition
    profile: Profile
    workspace: Workspace
    data_dir: Path
    reader: str
    seed: int
    settings: RunSettings = field(default_factory=RunSettings)

    @property
    def folds(self) -> list[int]:
        """The folds that `04_train` leaves out, one a training."""
        return list(self.settings.folds)


def make_run(
    *,
    workspace: str | Path = "data",
    profile: str = "",
    data: str | Path = "",
    reader: str = "",
    competition: str | Path = "",
    weights: str | Path = "",
    hyp: str | Path = "",
    folds: Sequence[int] = (),
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    fresh: bool = False,
) -> Run:
    """A run of this workspace. What is empty or None is what `run.yaml` there says, else its default.

    With `fresh` it is the default, whatever `run.yaml` says.

    `overrides` change single values, such as `{"epochs": 40, "hyp.lr0": 0.005}`. Relative paths begin at the current
    directory. Raises BadData for an unknown profile, reader or key and for an impossible value, with what was expected.

    >>> make_run(workspace="nowhere", profile="cpu", overrides={"epochs": 40}).profile.epochs
    40
    """
    place = Workspace(from_here(workspace))
    settings = settle(place, {
        "profile": profile, "data": data, "reader": reader, "competition": competition, "weights": weights, "hyp": hyp,
        "folds": folds, "seed": seed, "overrides": overrides}, fresh)
    if settings.reader not in (known := [readers.AUTO, *sorted(readers.READERS)]):
        raise ValueError(f"reader: expected one of {known}, found {settings.reader!r}")
    own = profile_of(settings)
    if changes := hyp_changes(settings):
        own = replace(own, hyp=os.path.abspath(merge_hyp(resource(f"hyp/{own.hyp}"), changes, place, own.family)))
    run = Run(
        competition=read_competition(competition_path(settings)),
        profile=own,
        workspace=place,
        data_dir=from_here(settings.data) if settings.data else place.raw_dir,
        reader=settings.reader,
        seed=settings.seed,
        settings=settings,
    )
    return with_changes(run, read_kept_plan(run).get("changes", {})) if own.budget_hours else run


def plan_path(workspace: Workspace) -> Path:
    """Where the plan of a run with a budget is kept: see `planning.make_plan`."""
    return workspace.interim_dir / "plan.json"


def read_kept_plan(run: Run) -> dict[str, Any]:
    """The kept plan of this profile and its overrides, as `planning.make_plan` writes it; empty where there is none."""
    path = plan_path(run.workspace)
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return kept if kept.get("for") == hash_content(plan_settings(run)) else {}


def find_share(run: Run, stage: str) -> float | None:
    """The hours that a stage that decides may take of the budget; None where the plan has none."""
    share: float | None = read_kept_plan(run).get("shares", {}).get(stage) if run.profile.budget_hours else None
    return share


def plan_settings(run: Run) -> dict[str, Any]:
    """What a plan is made for: the profile before any plan, without what may differ between machines and sessions."""
    profile = {**asdict(profile_of(run.settings)), "folds": run.folds}
    return {name: Path(value).name if name == "weights" else value for name, value in profile.items()
            if name not in OF_A_MACHINE}


def with_changes(run: Run, changes: Mapping[str, Any]) -> Run:
    """The run with some fields of its profile changed, as a plan says."""
    return replace(run, profile=replace(run.profile, **changes))


def settle(workspace: Workspace, given: Mapping[str, Any], fresh: bool = False) -> RunSettings:
    """What is given, else what the workspace's `run.yaml` says unless `fresh`, else the default; paths are whole.

    Weights, hyper-parameters and overrides in `run.yaml` count for the profile that it names, and for no other.
    """
    kept = (None if fresh else read_settings(workspace)) or RunSettings()
    known = [item.name for item in fields(RunSettings)]
    values = {name: given[name] for name in known if name in given and not _is_empty(given[name])}
    if values.get("profile", kept.profile) != kept.profile:
        kept = replace(kept, **{name: getattr(RunSettings(), name) for name in OF_A_PROFILE})
    for name in ("data", "competition", "hyp"):
        if name in values:
            values[name] = os.path.abspath(values[name])
    if "weights" in values and Path(values["weights"]).is_file():  # or an official name
        values["weights"] = os.path.abspath(values["weights"])
    return replace(kept, **values)


def _is_empty(value: Any) -> bool:
    """Whether a parameter leaves the choice to `run.yaml`. A mapping without a key does not: it says no overrides."""
    return value is None or value == "" or value == () or value == []


def from_here(path: str | Path) -> Path:
    """A path as it is seen from the current directory: relative below it, else whole.

    >>> from_here(Path.cwd() / "data")
    PosixPath('data')
    """
    whole, here = Path(os.path.abspath(path)), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) and whole != here else whole


def competition_path(settings: RunSettings) -> Path:
    """The competition's file, see `config.find_competition`."""
    return find_competition(from_here(settings.competition) if settings.competition else None)


def profile_of(settings: RunSettings) -> Profile:
    """The profile with its overrides and the start weights that were named."""
    changes, _ = split_overrides(settings.overrides)
    weights = str(from_here(settings.weights)) if os.path.isabs(settings.weights) else settings.weights
    return get_profile(settings.profile, **changes, weights=weights or None)


def hyp_changes(settings: RunSettings) -> dict[str, float]:
    """The hyper-parameters that are overridden, by name."""
    return split_overrides(settings.overrides)[1]


def choose_hyp(run: Run, hyp: str | Path = "") -> Path:
    """The file of hyper-parameters to train with, overrides in it.

    It is the file `hyp`, else the one that `run.yaml` names, else the profile's.
    """
    named = hyp or run.settings.hyp
    if not named:
        return REPOSITORY / "hyp" / run.profile.hyp  # which has the overrides in it already
    changes = hyp_changes(run.settings)
    return merge_hyp(from_here(named), changes, run.workspace, run.profile.family) if changes else from_here(named)


def merge_hyp(path: Path, changes: Mapping[str, float], workspace: Workspace, family: str) -> Path:
    """A copy of a file of hyper-parameters with some values changed, in `interim/` by a name that tells its content.

    Raises BadData for a name that no hyper-parameter has, or an impossible value.
    """
    from ..models.registry import get_family
    from ..search.space import write_hyp
    from ..training.hyp import find_hyp_faults, read_hyp

    values = {**read_hyp(path), **changes}
    faults = [fault for fault in find_hyp_faults(values, get_family(family).defaults) if fault.split(":")[0] in changes]
    if faults:
        raise BadData(in_words([f"overrides: hyp.{fault}" for fault in faults]))
    target = workspace.interim_dir / f"hyp_{path.stem}_{hash_content(values)[:6]}.yaml"
    if not target.exists():
        said = ", ".join(f"{name} {value:g}" for name, value in changes.items())
        target.parent.mkdir(parents=True, exist_ok=True)
        write_hyp(values, target, [f"{path.name} with {said}"])
    return target


def save_settings(run: Run) -> Path:
    """Writes `run.yaml`, from which the notebooks of this workspace take what their own parameters leave empty."""
    path = settings_path(run.workspace)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(settings_text(run.settings, run.workspace), path)
    return path


def keep_settings(run: Run) -> None:
    """Logs the settings of this run in one line; the first notebook of a workspace saves them for the others."""
    kept = read_settings(run.workspace)
    if kept is None:
        save_settings(run)
    logger.info(describe_settings(run, kept))


def describe_settings(run: Run, kept: RunSettings | None = None) -> str:
    """The settings of a run, and where `run.yaml` differs (`kept`), in a sentence or two."""
    profile, path = run.profile, settings_path(run.workspace)
    said = [f"profile {profile.name}", f"seed {run.seed}", f"data {run.data_dir}", f"reader {run.reader}",
            f"competition {run.competition.name}", f"weights {profile.weights}", f"{profile.imgsz} px",
            f"{profile.epochs} epochs", *(f"{name} {value}" for name, value in run.settings.overrides.items()
                                           if name not in ("imgsz", "epochs"))]
    others = [] if kept is None else [
        f"{item.name} {value or 'not set'}" for item in fields(RunSettings)
        if (value := getattr(kept, item.name)) != getattr(run.settings, item.name)]
    wins = f"; {path} has {', '.join(others)}, and what this notebook says itself wins" if others else ""
    return f"{', '.join(said)}; the rest is in {path}{wins}"
