"""The keys of a competition file, each read leniently where its meaning is clear and refused in words where it is not.

YAML 1.1 turns `no` into False, `0` into a number and leaves `1e8` a text. So a file is read as texts, and each key
makes of its text what it needs.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from reprlib import repr as short  # of bounded length and depth: values in a broken file have neither
from typing import Any

import yaml

from ..exceptions import BadData
from .skeleton import Skeleton, read_skeleton

UNLABELLED = ("leave out", "background")
ANSWER_NAMES = ("name", "stem", "path")
UNITS = {"": 1, "b": 1, "byte": 1, "bytes": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
         "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
SIZE = re.compile(r"([0-9._]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)", re.IGNORECASE)
NOTHING = ("", "~", "null", "none")  # how a YAML file, read as texts, says that a key has no value


class Fault(ValueError):
    """What is wrong with a key's value: what was expected, and what was found."""


class _TextLoader(yaml.BaseLoader):
    """Reads every scalar as text, and reports duplicate keys, of which YAML silently takes the last."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.repeated: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As PyYAML, which takes the last of a repeated key without a word; here it is noted."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    self.repeated.append(f"line {key.start_mark.line + 1}: the key {short(key.value)} is there twice; "
                                         "leave one of them out")
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_keys(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The keys of a YAML file with their values as texts, lists and mappings; and the keys that stand twice, in words.

    Raises BadData naming the file if it is no text, no YAML (with line and column) or no mapping of keys.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: expected a text file in UTF-8, found {error}") from error
    try:
        loader = _TextLoader(text)
        try:
            content = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise BadData(f"{path}: {_describe(error)}") from error
    except RecursionError as error:
        raise BadData(f"{path}: its values are nested too deeply") from error
    if not isinstance(content, dict):
        found = "an empty file" if content is None else short(content)
        raise BadData(f"{path}: expected a mapping of keys such as `metric_iou: 0.75`, found {found}")
    return content, loader.repeated


def _describe(error: yaml.YAMLError) -> str:
    """What YAML could not read, and where, in one line."""
    mark, context = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or error).strip().splitlines()[0]
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
    opened = f" (what is not closed may begin in line {context.line + 1})" if context else ""
    return f"{where}: this cannot be read as YAML: {problem}{opened}; look for a missing bracket, brace or quote"


def clean_keys(content: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """What each key means, and every fault in words; a key that is missing or faulty is not among the values.

    `content` holds texts as `read_keys` gives them, or values as Python has them.

    >>> clean_keys({"name": "x", "classes": {"pig": None}, "weight_limit_bytes": "95 MB"})[0]
    {'name': 'x', 'classes': {'pig': []}, 'weight_limit_bytes': 95000000}
    >>> clean_keys({"name": "x", "classes": ["pig"], "metric_iou": 75})[1]
    ['metric_iou: expected a number above 0 and below 1, found 75; write a percentage as a fraction, such as 0.75']
    """
    values: dict[str, Any] = {}
    faults = [_unknown_key(key) for key in content if not isinstance(key, str) or key not in CLEANERS]
    faults += [f"{key}: this key is missing; {WANTED[key]}" for key in WANTED if key not in content]
    for key, clean in CLEANERS.items():
        if key in content:
            try:
                values[key] = clean(content[key])
            except Fault as fault:
                faults.append(f"{key}: {fault}")
    labels = values.get("classes")
    if labels is not None:
        faults += [f"count_bins: {short(label)} is not one of the classes {_listed(labels)}{_meant(label, labels)}"
                   for label in values.get("count_bins", {}) if label not in labels]
        skeleton = values.get("skeleton")
        faults += [f"skeleton: {short(label)} is not one of the classes {_listed(labels)}{_meant(label, labels)}"
                   for label in (skeleton.labels if skeleton else []) if label not in labels]
    return values, faults


def _unknown_key(key: Any) -> str:
    name = key if isinstance(key, str) else str(short(key))
    return f"unknown key {short(key)}{_meant(name, CLEANERS)}; expected some of {_listed(CLEANERS)}"


def _meant(name: str, known: Any) -> str:
    """`, meant is perhaps 'x'` where a known name is near."""
    by_folded = {str(each).casefold(): str(each) for each in known}
    near = difflib.get_close_matches(name[:80].casefold(), by_folded, n=1, cutoff=0.6)
    return f", meant is perhaps {by_folded[near[0]]!r}" if near else ""


def _listed(names: Any) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:12]) + (f" and {len(listed) - 12} more" if len(listed) > 12 else "")


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().casefold() in NOTHING)


def _name(value: Any) -> str:
    """A text of one line. A number in its place is taken as it is written."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = short(value)
    if not isinstance(value, str) or not value.strip():
        raise Fault(f"expected a name, found {short(value)}")
    name = value.strip()
    if len(name.splitlines()) > 1 or not name.isprintable():
        raise Fault(f"expected a name of one line without control characters, found {short(value)}")
    return name


def _classes(value: Any) -> dict[str, list[str]]:
    """Label to the names under which sources know it; a list of labels has no other names."""
    if isinstance(value, list):
        pairs = [pair for item in value for pair in (item.items() if isinstance(item, dict) else [(item, None)])]
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        pairs = []
    if not pairs:
        raise Fault("expected a mapping of each label to the names under which sources know it, such as "
                    f"`pig: [pig, swine]`, found {short(value)}")
    classes: dict[str, list[str]] = {}
    for label, names in pairs:
        try:
            label = _name(label)
            if label in classes:
                raise Fault("this label is there twice")
            names = [] if names is None or names in NOTHING else names if isinstance(names, list) else [names]
            classes[label] = [_name(name) for name in names]
        except Fault as fault:
            raise Fault(f"{short(label)}: {fault}") from fault
    owners: dict[str, str] = {}
    for label, names in classes.items():
        for name in [label, *names]:
            if (other := owners.setdefault(name.casefold(), label)) != label:
                raise Fault(f"{name!r} belongs to {other!r} and to {label!r}; a name must lead to one class "
                            "(upper and lower case are the same)")
    return classes


def _pattern(value: Any) -> str | None:
    """A regular expression with a group, or None."""
    if _is_nothing(value):
        return None
    if not isinstance(value, str):
        raise Fault(f"expected a regular expression as a text, found {short(value)}")
    try:
        n_groups = re.compile(value).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise Fault(f"expected a regular expression, found {short(value)}: {error}") from error
    if n_groups < 1:
        raise Fault(f"expected a pattern with a group, that is with brackets around the part that counts, found "
                    f"{short(value)}")
    return value


def _number(value: Any) -> float:
    """A number, or a text that is one."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return math.nan
    try:
        return math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # an integer beyond all floats
        return math.inf


def _fraction(value: Any) -> float:
    number = _number(value)
    if 0 < number < 1:
        return number
    percent = f"; write a percentage as a fraction, such as {number / 100:g}" if 1 < number < 100 else ""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)):
        percent = f"; write a percentage as a fraction, such as {float(found[1]) / 100:g}"
    raise Fault(f"expected a number above 0 and below 1, found {short(value)}{percent}")


def _bytes(value: Any) -> int:
    """A size in bytes: a number, or one with a unit. MB are 1,000,000 bytes, MiB are 1,048,576."""
    number, unit = _number(value), ""
    if isinstance(value, str) and (found := SIZE.fullmatch(value.strip())):
        number, unit = _number(found[1]), found[2].casefold()
    if unit not in UNITS or not 1 <= number * UNITS.get(unit, 1) < math.inf:
        raise Fault(f"expected a size of 1 byte or more, such as 100_000_000 or 100 MB (1 TB where there is no limit), "
                    f"found {short(value)}")
    return int(number * UNITS[unit])


def _count_bins(value: Any) -> dict[str, list[int]]:
    """Label to two counts of boxes."""
    if value is None or value in ("", [], {}):
        return {}
    if not isinstance(value, dict):
        raise Fault(f"expected a mapping of a label to two numbers, such as `pig: [8, 13]`, found {short(value)}")
    bins = {}
    for label, bounds in value.items():
        numbers = [_number(bound) for bound in bounds] if isinstance(bounds, list | tuple) else []
        if len(numbers) != 2 or not all(number.is_integer() for number in numbers) or not 1 <= numbers[0] <= numbers[1]:
            raise Fault(f"{short(label)}: expected two whole numbers from 1 on, the smaller one first, such as "
                        f"[8, 13], found {short(bounds)}")
        bins[_name(label)] = [int(number) for number in numbers]
    return bins


def _choice(*known: str) -> Callable[[Any], str]:
    def clean(value: Any) -> str:
        """The known text, however it is spelt."""
        spelt = re.sub(r"[\s_-]+", " ", value.strip().casefold()) if isinstance(value, str) else None
        if spelt not in known:
            raise Fault(f"expected one of {', '.join(map(repr, known))}, found {short(value)}")
        return spelt

    return clean


def _skeleton(value: Any) -> Skeleton | None:
    try:
        return read_skeleton(value)
    except ValueError as error:
        raise Fault(str(error)) from error


CLEANERS: dict[str, Callable[[Any], Any]] = {
    "name": _name,
    "classes": _classes,
    "class_pattern": _pattern,
    "metric_iou": _fraction,
    "weight_limit_bytes": _bytes,
    "count_bins": _count_bins,
    "unlabelled": _choice(*UNLABELLED),
    "group_pattern": _pattern,
    "answer_name": _choice(*ANSWER_NAMES),
    "skeleton": _skeleton,
}
WANTED = {"name": "any text, such as `name: livestock`",
          "classes": "a mapping of each label to its other names, such as `pig: [swine, hog]`"}
