"""Single values of label files, which may be anything: numbers, ids, and JSON in which no duplicate key is lost."""

from __future__ import annotations

import json
import math
import re
from reprlib import repr as short  # of bounded length and depth: values in a broken file have neither
from typing import Any

from ...exceptions import BadData

__all__ = ["identifier", "is_number", "is_true", "number", "read_json", "short", "to_number"]


def is_number(value: Any) -> bool:
    """Whether a value from a label file is a finite number; True and False are not numbers.

    >>> [is_number(value) for value in (1, 2.5, True, "3", float("nan"))]
    [True, True, False, False, False]
    """
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 1000  # isfinite fails on larger


def to_number(text: str | None) -> Any:
    """The number that a text is, infinite or NaN too, or the text as it is, for `clean_boxes` to note.

    >>> to_number("2.5"), to_number("pig"), to_number(None)
    (2.5, 'pig', None)
    """
    try:
        return text if text is None else float(text)
    except ValueError:
        return text


def number(value: Any) -> Any:
    """The number that a text in a label file represents; anything else is returned as it is.

    >>> number("2.5"), number(2), number([1])
    (2.5, 2, [1])
    """
    return to_number(value) if isinstance(value, str) else value


def is_true(value: Any) -> bool:
    """Whether a flag is set: 1, true, and the same as texts.

    >>> [is_true(value) for value in (1, "1", "True", 0, "no")]
    [True, True, True, False, False]
    """
    return value is True or identifier(value) == 1 or isinstance(value, str) and value.casefold() == "true"


def identifier(value: Any) -> int | str | None:
    """An id as it can be compared, or None: whole numbers and texts are ids, `true`, `null` and lists are none.

    Some exporters write numbers as texts, in one place or in all: "7" and "007" are 7.

    >>> [identifier(value) for value in ("007", 7.0, "a7", True, None)]
    [7, 7, 'a7', None, None]
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and len(value) < 20 and re.fullmatch(r"-?[0-9]+", value):
        return int(value)
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def read_json(content: bytes) -> Any:
    """What a JSON holds, in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises BadData for what is none, for one nested too deeply, and for a key that occurs twice in an object, of
    which Python's reader would keep the last without a word.

    >>> read_json(b'{"images": []}')
    {'images': []}
    """
    try:
        return _DECODER.decode(content.decode(json.detect_encoding(content), "surrogatepass"))  # as json.loads does
    except RecursionError as error:
        raise BadData("nested too deeply") from error


def _single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise BadData(f"key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_single_keys)  # json.loads makes one a call
