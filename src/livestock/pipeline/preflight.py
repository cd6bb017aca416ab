"""Everything that can be known before the first training, checked before it and listed at once."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import pandas as pd

from ..config import Competition, Profile, RunSettings, Workspace, in_words, read_competition, resource
from ..data.submission import answer_names
from ..exceptions import BadData
from .prepare import RawTables, read_data, split_data
from .run import Run, competition_path, from_here, hyp_changes, make_run, profile_of, settle

T = TypeVar("T")
NEED_THREE_FOLDS = ("03_evolve", "06_silver")  # they hold out a fold more, or a part for each of two teachers
SURELY_MB = 10_000  # a limit below so many bytes was meant in MB: no detector is that small
# The parameters that `make_run` takes, in the notebooks' letters.
RUN_NAMES = ("COMPETITION", "PROFILE", "WORKSPACE", "DATA", "READER", "SEED", "WEIGHTS", "HYP", "FOLDS", "OVERRIDES")


class NotReadyError(ValueError):
    """What would stop a run, all of it; nothing was trained yet."""


def prepare_run(parameters: Mapping[str, Any], skip: Sequence[str] = ()) -> tuple[Run, RawTables]:
    """The run of these parameters and its data, read: nothing that can be known before a training stops it later.

    Checks the competition file, profile, reader, start weights and the size of what they become, hyper-parameters, the
    workspace, the data and its split; `skip` names the notebooks that are left out. What `run.yaml` says of an earlier
    run does not count. Raises NotReadyError that lists everything that is wrong with any of them.
    """
    faults: list[str] = []
    given = {name.lower(): parameters[name] for name in RUN_NAMES if name in parameters}
    workspace = Workspace(from_here(given["workspace"]))
    settings = _attempt(lambda: settle(workspace, given, fresh=True), faults)
    run = tables = None
    if settings is not None:
        _check_parts(settings, workspace, bool(parameters.get("ENSEMBLE")), faults)
    if not faults:
        run = _attempt(lambda: make_run(**given, fresh=True), faults)
    may_write = len(faults)
    _attempt(lambda: check_writable(workspace.root), faults)
    if run is not None and len(faults) == may_write:
        ready = run
        tables = _attempt(lambda: read_data(ready), faults)
        if tables is not None:
            faults += find_data_faults(ready, tables)
            split = _attempt(lambda: split_data(ready), faults)
            faults += [] if split is None else find_split_faults(split.images, ready.folds, skip)
    if run is None or tables is None or faults:
        raise NotReadyError(in_words(faults))
    return run, tables


def _check_parts(settings: RunSettings, workspace: Workspace, is_ensemble: bool, faults: list[str]) -> None:
    """Adds what is wrong with the competition's file, profile, start weights and hyper-parameters to the faults.

    What is given is checked whatever else is wrong.
    """
    competition = _attempt(lambda: read_competition(competition_path(settings)), faults)
    profile = _attempt(lambda: profile_of(settings), faults)
    n_models = len(settings.folds) if is_ensemble else 1
    if weights := settings.weights if profile is None else profile.weights:
        _attempt(lambda: check_weights_file(
            weights, workspace, competition, n_models, **({} if profile is None else _network(profile))), faults)
    if profile is not None or settings.hyp:
        hyp = str(from_here(settings.hyp)) if settings.hyp else ""
        _attempt(lambda: check_hyp_file(profile, hyp, hyp_changes(settings)), faults)
    faults += find_logger_faults(profile)


def _attempt(action: Callable[[], T], faults: list[str]) -> T | None:
    """What the action returns, or None with its error among the faults: an ImportError says what to install."""
    try:
        return action()
    except (ValueError, OSError, ImportError) as error:
        faults.append(str(error))
        return None


def check_training(run: Run, hyp: str = "") -> None:
    """Raises NotReadyError that lists what is wrong with the start weights and the hyper-parameters of a training."""
    faults: list[str] = []
    _attempt(lambda: check_weights_file(
        run.profile.weights, run.workspace, run.competition, **_network(run.profile)), faults)
    _attempt(lambda: check_hyp_file(run.profile, hyp), faults)
    faults += find_logger_faults(run.profile)
    if faults:
        raise NotReadyError(in_words(faults))


def _network(profile: Profile) -> dict[str, Any]:
    return {"family": profile.family, "imgsz": profile.imgsz}


def check_weights_file(
    weights: str, workspace: Workspace, competition: Competition | None = None, n_models: int = 1, *,
    family: str = "yolov5", imgsz: int = 640,
) -> Path | None:
    """The start weights' file, downloaded if it is an official one; None where training starts from random weights.

    Raises ValueError if it would be refused, or if what `n_models` trainings from it submit cannot be within the
    competition's limit, however they go.
    """
    from ..models.checkpoint import read_checkpoint, trained_bytes
    from ..models.registry import find_start, get_family

    path = find_start(family, weights, workspace.weights_dir)
    config = read_checkpoint(path).config if path else None
    if config and config.family != family:
        raise BadData(f"{path}: expected weights of the family {family}, found {config.family}; name that "
                      f"one: --family {config.family}")
    if competition is None:
        return path
    labels, limit = tuple(competition.labels), competition.weight_limit_bytes
    config = config or get_family(family).configure(labels, imgsz, weights)
    needed = n_models * trained_bytes(replace(config, labels=labels))
    if needed > limit:
        models = "a model" if n_models == 1 else f"the {n_models} models of an ensemble"
        advice = f"meant is perhaps {limit}MB" if limit < SURELY_MB else "start from smaller weights" + (
            " or answer with fewer folds" if n_models > 1 else "")
        raise ValueError(f"weight_limit_bytes: {models} trained from {path or weights} in half precision takes "
                         f"{needed / 1e6:.1f} MB ({needed:,} bytes), over the limit of {limit / 1e6:g} MB ({limit:,} "
                         f"bytes); {advice}")
    return path


def check_hyp_file(profile: Profile | None, hyp: str = "", changes: Mapping[str, float] = MappingProxyType({})) -> Path:
    """The file of hyper-parameters, the profile's where `hyp` names none; `changes` are values in place of the file's.

    Raises ValueError naming the file and each key that is missing, unknown or impossible.
    """
    from ..models.registry import get_family
    from ..training.hyp import find_hyp_faults, read_hyp

    if not hyp and profile is None:
        raise ValueError("hyper-parameters: expected a file or a profile that names one, found neither")
    path = Path(hyp) if hyp or profile is None else resource("hyp") / profile.hyp
    family = get_family(profile.family if profile else "yolov5")
    found = find_hyp_faults({**read_hyp(path), **changes}, family.defaults)
    faults = [fault if fault.split(":")[0] not in changes else f"overrides: hyp.{fault}" for fault in found]
    if faults:
        raise BadData(f"{path}: {in_words(faults)}")
    return path


def find_logger_faults(profile: Profile | None) -> list[str]:
    """Which of the profile's loggers are not installed, in words."""
    names = filter(None, profile.loggers.split(",")) if profile else ()
    return [f"loggers: {name} is not installed: pip install {name}" for name in names
            if importlib.util.find_spec(name) is None]


def check_writable(directory: Path) -> None:
    """Raises OSError naming the folder if nothing can be written there."""
    directory.mkdir(parents=True, exist_ok=True)
    beside = directory / f".writable.{os.getpid()}"
    beside.write_bytes(b"x")
    beside.unlink()


def find_data_faults(run: Run, tables: RawTables) -> list[str]:
    """What of the data would stop the run after its trainings, in words: names that the answer cannot tell apart."""
    faults: list[str] = []
    if len(tables.test_images):
        _attempt(lambda: answer_names(tables.test_images, run.competition.answer_name), faults)
    return faults


def find_split_faults(images: pd.DataFrame, folds: Sequence[int], skip: Sequence[str]) -> list[str]:
    """What a handful of images do not suffice for, in words: folds to train without, and notebooks not left out."""
    known = sorted(images["fold"].unique().tolist())
    faults = []
    if missing := sorted(set(folds) - set(known)):
        faults.append(f"folds: {missing} to train without, but {len(images):,} images fill only the folds {known}")
    if len(known) < 3 and (asked := [name for name in NEED_THREE_FOLDS if name not in skip]):
        faults.append(f"folds: {len(images):,} images fill only {len(known)}, and {' and '.join(asked)} "
                      f"{'needs' if len(asked) == 1 else 'need'} three; leave out what cannot be done: "
                      + " ".join(f"--skip {name}" for name in asked))
    return faults
