"""What is searched: names with gain and limits around the start values of a `hyp/*.yaml`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from optuna.distributions import FloatDistribution

from ..files.write import write_text

LOG_RATIO = 100  # limits this far apart are searched by their logarithm


class Gene(NamedTuple):
    """How one hyper-parameter may move: `gain` scales its mutations, `low` and `high` are inclusive."""

    gain: float
    low: float
    high: float


# Gains and limits of YOLOv5 7.0's evolution; a gain of 0 is one it never mutates.
GENES = {
    "lr0": Gene(1, 1e-5, 1e-1),
    "lrf": Gene(1, 0.01, 1.0),
    "momentum": Gene(0.3, 0.6, 0.98),
    "weight_decay": Gene(1, 0.0, 0.001),
    "warmup_epochs": Gene(1, 0.0, 5.0),
    "warmup_momentum": Gene(1, 0.0, 0.95),
    "warmup_bias_lr": Gene(1, 0.0, 0.2),
    "box": Gene(1, 0.02, 0.2),
    "cls": Gene(1, 0.2, 4.0),
    "cls_pw": Gene(1, 0.5, 2.0),
    "obj": Gene(1, 0.2, 4.0),
    "obj_pw": Gene(1, 0.5, 2.0),
    "iou_t": Gene(0, 0.1, 0.7),
    "anchor_t": Gene(1, 2.0, 8.0),
    "fl_gamma": Gene(0, 0.0, 2.0),
    "hsv_h": Gene(1, 0.0, 0.1),
    "hsv_s": Gene(1, 0.0, 0.9),
    "hsv_v": Gene(1, 0.0, 0.9),
    "degrees": Gene(1, 0.0, 45.0),
    "translate": Gene(1, 0.0, 0.9),
    "scale": Gene(1, 0.0, 0.9),
    "shear": Gene(1, 0.0, 10.0),
    "perspective": Gene(0, 0.0, 0.001),
    "flipud": Gene(1, 0.0, 1.0),
    "fliplr": Gene(0, 0.0, 1.0),
    "mosaic": Gene(1, 0.0, 1.0),
    "mixup": Gene(1, 0.0, 1.0),
    "copy_paste": Gene(1, 0.0, 1.0),
}

Meta = Mapping[str, Gene]


def make_meta(
    names: Sequence[str] | Mapping[str, tuple[float, float, float]], start: Mapping[str, float]
) -> dict[str, Gene]:
    """The meta subset: names, for which YOLOv5's gains and limits hold, or a mapping of name to (gain, low, high).

    Raises ValueError for what cannot be searched from `start`, with the name (see `check_meta`).

    >>> make_meta(["lr0"], start={"lr0": 0.01})
    {'lr0': Gene(gain=1.0, low=1e-05, high=0.1)}
    """
    if not isinstance(names, Mapping):
        if unknown := [name for name in names if name not in GENES]:
            raise ValueError(f"meta: unknown hyper-parameter {unknown[0]!r}; expected some of {sorted(GENES)}")
        names = {name: GENES[name] for name in names}
    meta = {name: Gene(*(float(number) for number in gene)) for name, gene in names.items()}
    check_meta(meta, start)
    return meta


def check_meta(meta: Meta, start: Mapping[str, float]) -> None:
    """Raises ValueError that names the hyper-parameter which is unknown, has its limits the wrong way round, starts
    outside them, or could never change."""
    if not meta:
        raise ValueError("meta: expected at least one hyper-parameter, found none")
    for name, (gain, low, high) in meta.items():
        if name not in start:
            raise ValueError(f"meta: {name!r} is not in the start values; expected some of {sorted(start)}")
        if not all(map(math.isfinite, (gain, low, high))) or gain < 0:
            raise ValueError(f"{name}: expected a gain of 0 or more and finite limits, found {(gain, low, high)}")
        if not low < high:
            raise ValueError(f"{name}: expected the lower limit below the upper one, found {low:g} and {high:g}")
        if not low <= start[name] <= high:
            raise ValueError(f"{name}: the start value {start[name]:g} lies outside its limits {low:g} to {high:g}")
        if start[name] == 0:
            raise ValueError(f"{name}: the start value is 0, which a mutation multiplies and so can never move; "
                             "start from a small number instead")
    if not any(gene.gain for gene in meta.values()):
        raise ValueError(f"meta: the gains of {sorted(meta)} are all 0, so that nothing could ever change")


def distributions(meta: Meta) -> dict[str, FloatDistribution]:
    """The space as Optuna has it, on a logarithmic scale where the limits lie a factor of 100 or more apart.

    >>> distributions({"momentum": Gene(0.3, 0.6, 0.98)})
    {'momentum': FloatDistribution(high=0.98, log=False, low=0.6, step=None)}
    """
    return {name: FloatDistribution(low, high, log=low > 0 and high / low >= LOG_RATIO)
            for name, (_, low, high) in meta.items()}


def describe(meta: Meta) -> str:
    """The space as text that is equal for equal spaces, whatever the order of names.

    >>> describe({"lr0": Gene(1.0, 1e-5, 0.1)})
    '{"lr0": [1.0, 1e-05, 0.1]}'
    """
    return json.dumps({name: list(meta[name]) for name in sorted(meta)})


def write_hyp(values: Mapping[str, float], path: Path, header: list[str]) -> None:
    """Writes a `hyp/*.yaml`; `header` are its first lines, without the comment sign: where the values come from."""
    comments = "".join(f"# {line}\n" for line in header)
    write_text(comments + yaml.safe_dump(dict(values), sort_keys=False), path)
