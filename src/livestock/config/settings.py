"""The settings of a run, kept in the workspace's `run.yaml`: the defaults of every notebook's own parameters.

Single values of a profile or of the hyper-parameters are overrides: `epochs`, `hyp.lr0`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from reprlib import repr as short
from typing import Any

from ..exceptions import BadData
from .keys import Fault, read_keys
from .overrides import clean_overrides, to_number
from .profile import known_profiles
from .words import in_words, meant
from .workspace import Workspace

PATHS = ("data", "competition", "weights", "hyp")
N_FOLDS = 5


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run; an empty text means the default, which `run.yaml` names in a comment."""

    profile: str = "demo"
    data: str = ""
    reader: str = "auto"
    competition: str = ""
    weights: str = ""
    hyp: str = ""
    folds: tuple[int, ...] = (0,)
    seed: int = 42
    overrides: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values, faults = clean_settings({item.name: getattr(self, item.name) for item in fields(self)})
        if faults:
            raise BadData(in_words(faults))
        for name, value in values.items():
            object.__setattr__(self, name, value)


def settings_path(workspace: Workspace) -> Path:
    """Where a workspace keeps the settings of its run."""
    return workspace.root / "run.yaml"


def read_settings(workspace: Workspace) -> RunSettings | None:
    """What the workspace's `run.yaml` says, with whole paths; None where there is none.

    Raises BadData that names the file and lists every key that is unknown or wrong.
    """
    path = settings_path(workspace)
    if not path.exists():
        return None
    content, faults = read_keys(path)
    values, others = clean_settings(content)
    known, name = known_profiles(), values.get("profile")
    if name and name not in known:
        others.append(f"profile: expected one of {sorted(known)}, found {name!r}{meant(name, known)}")
    if faults := [*faults, *others]:
        raise BadData(f"{path}: {in_words(faults)}")
    root = Path(os.path.abspath(workspace.root))
    for name in PATHS:
        if (below := values.get(name)) and (name != "weights" or (root / below).is_file()):  # or an official name
            values[name] = str(root / below)
    return RunSettings(**values)


def clean_settings(content: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """What each key of `run.yaml` means, and every fault in words."""
    values: dict[str, Any] = {}
    faults = [f"unknown key {short(name)}{meant(str(name), CLEANERS)}; expected some of {', '.join(CLEANERS)}"
              for name in content if name not in CLEANERS]
    for name, value in content.items():
        try:
            if name in CLEANERS:
                values[name] = CLEANERS[name](value)
        except Fault as fault:
            faults.append(f"{name}: {fault}")
    return values, faults


def settings_text(settings: RunSettings, workspace: Workspace) -> str:
    """The content of `run.yaml`: a line a key, with what may stand there. Paths below the workspace begin there."""
    values = {name: _below(getattr(settings, name), workspace) for name in PATHS}
    overrides = "".join(f"  {name}: {json.dumps(value)}\n" for name, value in settings.overrides.items())
    return RUN_YAML.format(
        profile=settings.profile, reader=settings.reader, seed=settings.seed, folds=list(settings.folds),
        overrides=f"\n{overrides}" if overrides else " {}\n",
        **{name: json.dumps(value, ensure_ascii=False) for name, value in values.items()})


def _below(value: str, workspace: Workspace) -> str:
    """A path from the workspace on if it lies in it, else whole; what is no path, an official name, stays."""
    if not value or not os.path.isabs(value):
        return value
    root, path = Path(os.path.abspath(workspace.root)), Path(value)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else value


RUN_YAML = """\
# What this workspace's run was told. A notebook takes from here what its own parameters leave empty; `livestock run`
# writes this file again from its options. Change a line, or delete the file to begin with the defaults.
profile: {profile}  # smoke, demo, cpu, colab, colab_best
data: {data}  # a folder or a zip; "": raw in this folder; a path that is not whole begins in this folder
reader: {reader}
competition: {competition}  # "": competition.yaml where the command runs, else the one that comes with the code
weights: {weights}  # start weights; "": the profile's
hyp: {hyp}  # hyper-parameters to train with; "": the profile's
folds: {folds}  # trainings of 04_train, each without one of these
seed: {seed}
# Single values of the profile and of the hyper-parameters, a line each, such as `epochs: 40` or `hyp.lr0: 0.005`.
overrides:{overrides}"""


def _text(value: Any) -> str:
    if not isinstance(value, str | os.PathLike) or len(str(value).splitlines()) > 1:
        raise Fault(f"expected a text of one line, found {short(value)}")
    return str(value).strip()


def _reader(value: Any) -> str:
    return _text(value) or "auto"  # the readers are known above, where the name is checked


def _seed(value: Any) -> int:
    number = to_number(value)
    if number is None or not number.is_integer() or not 0 <= number < 2**32:
        raise Fault(f"expected a whole number from 0 to 4294967295, found {short(value)}")
    return int(number)


def _folds(value: Any) -> tuple[int, ...]:
    numbers = [to_number(item) for item in value] if isinstance(value, list | tuple) else []
    folds = {int(number) for number in numbers if number is not None and number in range(N_FOLDS)}
    if not folds or len(folds) < len(numbers):
        raise Fault(f"expected different folds from 0 to {N_FOLDS - 1} such as [0, 1], found {short(value)}")
    return tuple(int(number) for number in numbers if number is not None)


def _overrides(value: Any) -> dict[str, Any]:
    if value is None or value == "":
        return {}
    if not isinstance(value, Mapping):
        raise Fault(f"expected a mapping such as `epochs: 40`, found {short(value)}")
    values, faults = clean_overrides(value)
    if faults:
        raise Fault("; ".join(faults))
    return values


CLEANERS: dict[str, Callable[[Any], Any]] = {
    "profile": _text,
    "data": _text,
    "reader": _reader,
    "competition": _text,
    "weights": _text,
    "hyp": _text,
    "folds": _folds,
    "seed": _seed,
    "overrides": _overrides,
}
