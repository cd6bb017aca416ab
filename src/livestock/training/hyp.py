"""Hyper-parameters of a training: a YAML file of numbers, every one of them known."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from reprlib import repr as short

import yaml

from ..config import in_words
from ..exceptions import BadData
from ..models.base import Family

COMMON = (  # of the loop and of the augmentation; a family adds its own, see `Family.defaults`
    "lr0", "lrf", "momentum", "weight_decay", "warmup_epochs", "warmup_momentum", "warmup_bias_lr", "hsv_h", "hsv_s",
    "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr", "mosaic", "mixup",
    "copy_paste",
)
FURTHER = ("clip_norm", "freeze")  # what a file may have besides
FRACTIONS = ("hsv_h", "hsv_s", "hsv_v", "flipud", "fliplr", "mosaic", "mixup", "copy_paste", "iou_t", "momentum",
             "warmup_momentum", "freeze")


def read_hyp(path: Path, family: Family | None = None) -> dict[str, float]:
    """Reads a `hyp/*.yaml`; a family's own values that it leaves out get that family's defaults.

    Raises BadData naming the file and the key whose value is not a finite number.
    """
    if not path.is_file():
        raise BadData(f"{path}: expected a file of hyper-parameters (--hyp, in a notebook HYP), found none")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        why = " ".join(str(error).split())[:300]
        raise BadData(f"{path}: expected YAML, a line `name: number` for each hyper-parameter: {why}") from error
    if not isinstance(content, dict) or not content:
        raise BadData(f"{path}: expected a mapping of hyper-parameters to numbers, found {type(content).__name__}")
    faults = [f"{name}: expected a finite number, found {short(value)}{_as_yaml_has_it(value)}"
              for name, value in content.items() if not _is_number(value)]
    if faults:
        raise BadData(f"{path}: {in_words(faults)}")
    return {**family.defaults, **content} if family else content


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300  # not NaN either


def _as_yaml_has_it(value: object) -> str:
    """What to write instead of `1e-3`, which YAML reads as a text."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return ""
    return f", a text in YAML; write {number:.12f}".rstrip("0") if math.isfinite(number) else ""


def find_hyp_faults(values: Mapping[str, float], own: Collection[str]) -> list[str]:
    """What of a file of hyper-parameters would stop a training or make it senseless, one sentence a key.

    `own` are the names that the family adds to the common ones.

    >>> find_hyp_faults({**dict.fromkeys(COMMON, 0.5), "momentum": 2.0, "lr": 0.1}, [])
    ['momentum: expected a number from 0 to 1, found 2', "lr: unknown hyper-parameter, meant is perhaps 'lrf'"]
    """
    known = [*COMMON, *own]
    faults = [f"{name}: this hyper-parameter is missing; a training needs each of {', '.join(COMMON)}"
              for name in COMMON if name not in values]
    for name, value in values.items():
        if name not in known and name not in FURTHER:
            near = difflib.get_close_matches(str(name), known, n=1)
            meant = f", meant is perhaps {near[0]!r}" if near else f"; known are {', '.join(known)}"
            faults.append(f"{name}: unknown hyper-parameter{meant}")
        elif value < 0:
            faults.append(f"{name}: expected 0 or more, found {value:g}")
        elif name in FRACTIONS and value > 1:
            faults.append(f"{name}: expected a number from 0 to 1, found {value:g}")
        elif name == "freeze" and value == 1:
            faults.append("freeze: expected less than 1, found 1: nothing would be learned")
        elif name in ("lr0", "anchor_t") and value == 0:
            faults.append(f"{name}: expected more than 0, found 0: nothing would be learned")
    return faults
