"""Single values that a run changes: fields of its profile by their names, hyper-parameters as `hyp.NAME`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from reprlib import repr as short
from typing import Any

from ..exceptions import BadData
from .profile import CLEANERS, clean_fields
from .words import in_words, meant

HYP = "hyp."  # how the name of a hyper-parameter begins
ELSEWHERE = {"name": "--profile", "weights": "--weights", "hyp": "--hyp"}  # fields that have an option of their own


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Overrides from `NAME=VALUE` texts. Raises BadData that lists every one that is unknown or impossible.

    >>> parse_overrides(["epochs=40", "hyp.lr0=5e-3"])
    {'epochs': 40, 'hyp.lr0': 0.005}
    """
    pairs = [text.partition("=") for text in texts]
    faults = [f"--set {text}: expected NAME=VALUE such as epochs=40, found no '='"
              for text, (_, sign, _) in zip(texts, pairs, strict=True) if not sign]
    values, others = clean_overrides({name.strip(): value.strip() for name, sign, value in pairs if sign})
    if faults := [*faults, *(f"--set {fault}" for fault in others)]:
        raise BadData(in_words(faults))
    return values


def clean_overrides(content: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of overrides, and every fault in words. The names behind `hyp.` are checked where they are applied.

    >>> clean_overrides({"epochs": "0"})[1]
    ["epochs: expected a whole number, 1 or more, found '0'"]
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    for name, value in content.items():
        if name in ELSEWHERE:
            faults.append(f"{name}: this has an option of its own, {ELSEWHERE[name]}, and a key in run.yaml")
        elif name in CLEANERS:
            own, found = clean_fields({name: value})
            values |= own
            faults += found
        elif str(name).startswith(HYP):
            if (number := to_number(value)) is None:
                faults.append(f"{name}: expected a finite number, found {short(value)}")
            else:
                values[name] = number
        else:
            known = [each for each in CLEANERS if each not in ELSEWHERE]
            faults.append(f"unknown key {short(name)}{meant(str(name), known)}; expected one of {sorted(known)} or "
                          f"{HYP}NAME with the name of a hyper-parameter, such as {HYP}lr0")
    return values, faults


def split_overrides(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """Overrides of the profile, and those of hyper-parameters by their names.

    >>> split_overrides({"epochs": 40, "hyp.lr0": 0.005})
    ({'epochs': 40}, {'lr0': 0.005})
    """
    of_hyp = {name.removeprefix(HYP): value for name, value in overrides.items() if name.startswith(HYP)}
    return {name: value for name, value in overrides.items() if not name.startswith(HYP)}, of_hyp


def to_number(value: Any) -> float | None:
    """A finite number, or None.

    >>> to_number("5e-3"), to_number("nan"), to_number(True)
    (0.005, None, None)
    """
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
