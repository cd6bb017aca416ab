"""What is searched: names with gain and limits around the start values of a `hyp/*.yaml`."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import NamedTuple

import yaml
from optuna.distributions import FloatDistribution

from ..config import in_words
from ..exceptions import BadData
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

FURTHER = ("anchors",)  # what yolov5 takes beside those
FRACTIONS = ("hsv_h", "hsv_s", "hsv_v", "flipud", "fliplr", "mosaic", "mixup", "copy_paste", "iou_t", "momentum",
             "warmup_momentum")

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


def read_hyp(path: Path) -> dict[str, float]:
    """Reads a `hyp/*.yaml`. Raises BadData naming the file and the key whose value is not a finite number."""
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
    return content


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300  # not NaN either


def _as_yaml_has_it(value: object) -> str:
    """What to write instead of `1e-3`, which YAML, and with it yolov5, reads as a text."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return ""
    return f", a text in YAML; write {number:.12f}".rstrip("0") if math.isfinite(number) else ""


def find_hyp_faults(values: Mapping[str, float]) -> list[str]:
    """What of a file of hyper-parameters would stop yolov5's training or make it senseless, one sentence a key.

    >>> find_hyp_faults({**dict.fromkeys(GENES, 0.5), "momentum": 2.0, "lr": 0.1})
    ['momentum: expected a number from 0 to 1, found 2', "lr: unknown hyper-parameter, meant is perhaps 'lrf'"]
    """
    faults = [f"{name}: this hyper-parameter is missing; yolov5 needs each of {', '.join(GENES)}"
              for name in GENES if name not in values]
    for name, value in values.items():
        if name not in GENES and name not in FURTHER:
            near = difflib.get_close_matches(str(name), GENES, n=1)
            meant = f", meant is perhaps {near[0]!r}" if near else ""
            faults.append(f"{name}: unknown hyper-parameter{meant}")
        elif value < 0:
            faults.append(f"{name}: expected 0 or more, found {value:g}")
        elif name in FRACTIONS and value > 1:
            faults.append(f"{name}: expected a number from 0 to 1, found {value:g}")
        elif name in ("lr0", "anchor_t") and value == 0:
            faults.append(f"{name}: expected more than 0, found 0: nothing would be learned")
    return faults


def write_hyp(values: Mapping[str, float], path: Path, header: list[str]) -> None:
    """Writes a `hyp/*.yaml`; `header` are its first lines, without the comment sign: where the values come from."""
    comments = "".join(f"# {line}\n" for line in header)
    write_text(comments + yaml.safe_dump(dict(values), sort_keys=False), path)
