"""How big a run is: model, image size and budget, read from `hyp/profiles.yaml`; every value is checked."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from reprlib import repr as short
from typing import Any

from ..exceptions import BadData
from .keys import Fault, read_keys
from .resources import resource
from .words import in_words, meant

PROFILES_FILE = "hyp/profiles.yaml"
OPTIMIZERS = ("SGD", "Adam", "AdamW")
COMPILERS = ("", "inductor")
SCHEDULES = ("linear", "cosine", "step")
FAMILIES = ("yolov5", "retinanet", "ssd", "tood", "yolox", "dfine", "rfdetr")
POSE_FAMILIES = ("heatmap", "topdown", "yolo_pose")  # of keypoints; no profile trains them
LOGGERS = ("tensorboard", "wandb")
# What a family starts with where a profile was written for another one: networks small enough for a CPU.
FAMILY_STARTS: dict[str, dict[str, Any]] = {
    "yolov5": {"weights": "starter.safetensors", "hyp": "baseline.yaml", "optimizer": "SGD"},
    "retinanet": {"weights": "resnet18", "hyp": "retinanet.yaml", "optimizer": "SGD"},
    "ssd": {"weights": "resnet18", "hyp": "ssd.yaml", "optimizer": "SGD"},
    "tood": {"weights": "resnet18", "hyp": "tood.yaml", "optimizer": "SGD"},
    "yolox": {"weights": "yolox_nano", "hyp": "yolox.yaml", "optimizer": "SGD"},
    "dfine": {"weights": "dfine_n", "hyp": "dfine.yaml", "optimizer": "AdamW"},
    "rfdetr": {"weights": "rfdetr_n", "hyp": "rfdetr.yaml", "optimizer": "AdamW"},
}


@dataclass(frozen=True)
class Profile:
    """How big a run is; `hyp/profiles.yaml` says what each field means. Raises BadData for an impossible value."""

    name: str
    weights: str
    imgsz: int
    batch: int
    epochs: int
    hyp: str
    device: str = ""
    workers: int = 2
    optimizer: str = "SGD"
    schedule: str = "linear"
    nominal_batch: int = 64
    compiler: str = ""
    bf16: bool = False
    trials: int = 40
    trial_epochs: int = 7
    n_verified: int = 3
    n_seeds: int = 3
    family: str = "yolov5"
    loggers: str = ""
    budget_hours: float = 0.0
    session_hours: float = 12.0
    search_imgsz: int = 0
    search_freeze: float = 0.0

    def __post_init__(self) -> None:
        values, faults = clean_fields({item.name: getattr(self, item.name) for item in fields(self)})
        if faults:
            raise BadData(f"profile {self.name}: {in_words(faults)}")
        for name, value in values.items():  # texts of a file have become numbers
            object.__setattr__(self, name, value)


def clean_fields(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of some fields of a profile, and every fault in words: an unknown name, an impossible value.

    `content` holds texts as a file or `--set` has them, or values as Python has them.

    >>> clean_fields({"epochs": "40", "bf16": "true"})
    ({'epochs': 40, 'bf16': True}, [])
    >>> clean_fields({"imgsz": 100})[1]
    ['imgsz: expected a multiple of 32, 32 or more, found 100']
    """
    values: dict[str, Any] = {}
    faults = [f"unknown key {short(name)}{meant(str(name), CLEANERS)}; expected one of {sorted(CLEANERS)}"
              for name in content if name not in CLEANERS]
    for name, value in content.items():
        if name in CLEANERS:
            try:
                values[name] = CLEANERS[name](value)
            except Fault as fault:
                faults.append(f"{name}: {fault}")
    return values, faults


def read_profiles(path: Path) -> dict[str, Profile]:
    """The profiles of a file by name. Raises BadData that names the file and lists all that is wrong in it."""
    content, faults = read_keys(path)
    profiles = {}
    for name, entries in content.items():
        own = _find_faults(entries)
        faults += [f"{name}: {fault}" for fault in own]
        if not own:
            profiles[name] = Profile(**{**entries, "name": name})
    if faults:
        raise BadData(f"{path}: {in_words(faults)}")
    return profiles


def _find_faults(entries: Any) -> list[str]:
    if not isinstance(entries, dict):
        return [f"expected a mapping of keys such as `epochs: 20`, found {short(entries)}"]
    needed = [item.name for item in fields(Profile) if item.default is MISSING and item.name != "name"]
    missing = [f"{name}: this key is missing" for name in needed if name not in entries]
    return [*missing, *clean_fields(entries)[1]]


@functools.cache
def known_profiles() -> dict[str, Profile]:
    """The profiles that come with the code."""
    return read_profiles(resource(PROFILES_FILE))


def get_profile(name: str, **changes: Any) -> Profile:
    """The profile of this name with some of its fields changed; None leaves a field as it is.

    Raises BadData for an unknown profile or field, and for an impossible value.

    >>> get_profile("colab", epochs=40).epochs
    40
    """
    known = known_profiles()
    if name not in known:
        raise BadData(f"profile: expected one of {sorted(known)}, found {name!r}{meant(name, known)}")
    values, faults = clean_fields({key: value for key, value in changes.items() if value is not None})
    if faults:
        raise BadData(f"profile {name}: {in_words(faults)}")
    if (family := values.get("family", known[name].family)) != known[name].family:
        values = {**FAMILY_STARTS[family], **values}
    return replace(known[name], **values)


def _text(value: Any) -> str:
    """A name or a path of one line."""
    if isinstance(value, int) and not isinstance(value, bool):  # a GPU's number
        value = str(value)
    if not isinstance(value, str) or not value.isprintable():
        raise Fault(f"expected a text of one line, found {short(value)}")
    return value.strip()


def _name(value: Any) -> str:
    if not (name := _text(value)):
        raise Fault("expected a name, found an empty text")
    return name


def _whole(least: int) -> Callable[[Any], int]:
    def clean(value: Any) -> int:
        """The whole number; raises Fault for anything else."""
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise Fault(f"expected a whole number, {least} or more, found {short(value)}")
        return number

    return clean


def _imgsz(value: Any) -> int:
    """The largest step by which the models here shrink an image is a multiple of 32."""
    try:
        number = _whole(32)(value)
    except Fault:
        number = 1
    if number % 32:
        raise Fault(f"expected a multiple of 32, 32 or more, found {short(value)}")
    return number


def _search_imgsz(value: Any) -> int:
    """As `_imgsz`, or 0 for the training's own."""
    return 0 if value in (0, "0") and value is not False else _imgsz(value)


def _share(value: Any) -> float:
    """From 0 to below 1."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < 1:
        raise Fault(f"expected a share from 0 to below 1, found {short(value)}")
    return number


def _hours(least: float) -> Callable[[Any], float]:
    def clean(value: Any) -> float:
        """The hours; raises Fault for anything else."""
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not least <= number < math.inf:
            raise Fault(f"expected a number of hours, {least:g} or more, found {short(value)}")
        return number

    return clean


def _choice(*known: str) -> Callable[[Any], str]:
    def clean(value: Any) -> str:
        """The known text, in any case; raises Fault for another."""
        by_folded = {name.casefold(): name for name in known}
        if not isinstance(value, str) or value.strip().casefold() not in by_folded:
            raise Fault(f"expected one of {', '.join(map(repr, known))}, found {short(value)}")
        return by_folded[value.strip().casefold()]

    return clean


def _family(value: Any) -> str:
    """A family that finds boxes; raises Fault for another name, with what trains those that find keypoints."""
    if isinstance(value, str) and value.strip().casefold() in POSE_FAMILIES:
        by = ("for experiments: the notebook 12_yolo_pose trains it" if value.strip().casefold() == "yolo_pose" else
              "and no boxes: the notebooks 10_heatmap and 11_pose train it")
        raise Fault(f"expected one of {', '.join(map(repr, FAMILIES))}, found {short(value)}, which finds keypoints "
                    f"{by}")
    return _choice(*FAMILIES)(value)


def _loggers(value: Any) -> str:
    """Names between commas, each a known one."""
    names = [name.strip() for name in _text(value).split(",") if name.strip()]
    return ",".join(_choice(*LOGGERS)(name) for name in names)


def _flag(value: Any) -> bool:
    spelt = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    found = spelt.get(value.strip().casefold()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise Fault(f"expected true or false, found {short(value)}")
    return found


CLEANERS: dict[str, Callable[[Any], Any]] = {
    "name": _name,
    "weights": _name,
    "imgsz": _imgsz,
    "batch": _whole(1),
    "epochs": _whole(1),
    "hyp": _name,
    "device": _text,
    "workers": _whole(0),
    "optimizer": _choice(*OPTIMIZERS),
    "schedule": _choice(*SCHEDULES),
    "nominal_batch": _whole(1),
    "compiler": _choice(*COMPILERS),
    "bf16": _flag,
    "trials": _whole(1),
    "trial_epochs": _whole(1),
    "n_verified": _whole(1),
    "n_seeds": _whole(1),
    "family": _family,
    "loggers": _loggers,
    "budget_hours": _hours(0),
    "session_hours": _hours(0.1),
    "search_imgsz": _search_imgsz,
    "search_freeze": _share,
}
