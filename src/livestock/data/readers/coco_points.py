"""The keypoints of COCO's annotations, and their names, which stand in its categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...config import FoundPoints
from .points import RawPoint
from .values import identifier, is_number, number


def points_by_category(categories: Sequence[Any]) -> dict[Any, FoundPoints]:
    """Names and edges by category id; categories without keypoints, as exporters write stubs, have none.

    >>> points_by_category([{"id": 1, "name": "pig", "keypoints": ["snout", "tail"], "skeleton": [[1, 2]]},
    ...                     {"id": 0, "name": "animals"}])[1].edges
    (('snout', 'tail'),)
    """
    found = {}
    for category in categories:
        key = identifier(category.get("id")) if isinstance(category, dict) else None
        if key is not None and (names := _names(category.get("keypoints"))):
            found[key] = FoundPoints(names, _edges(category.get("skeleton"), names))
    return found


def _names(value: Any) -> tuple[str, ...]:
    is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return tuple(value) if is_list else ()


def _edges(value: Any, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Pairs of names; COCO counts them from 1. What is no pair of them is passed over: edges are only drawn."""
    pairs = [pair for pair in value if isinstance(pair, list) and len(pair) == 2 and all(
        type(index) is int and 0 < index <= len(names) for index in pair)] if isinstance(value, list) else []
    return tuple((names[first - 1], names[second - 1]) for first, second in pairs)


def points_of(annotation: Mapping[str, Any], found: FoundPoints | None) -> tuple[RawPoint, ...] | None:
    """The points of an annotation, of which the names may be unknown; None for none.

    `0, 0, 0` is not labelled. Raises ValueError for what is not x, y and visibility for each name.

    >>> points_of({"keypoints": [4, 5, 2, 0, 0, 0]}, FoundPoints(("snout", "tail")))[1]
    RawPoint(name='tail', x=None, y=None, visible=0)
    """
    values = annotation.get("keypoints")
    if values is None or values == []:
        return None
    if not isinstance(values, list):
        raise ValueError("expected a list")
    names: Sequence[str | None] = [None] * (len(values) // 3) if found is None else found.names
    if len(values) != 3 * len(names):
        raise ValueError(f"expected {3 * len(names)} values, found {len(values)}")
    triples = zip(names, *(map(number, values[start::3]) for start in range(3)), strict=True)
    return tuple(_point(*triple) for triple in triples)


def _point(name: str | None, x: Any, y: Any, visible: Any) -> RawPoint:
    is_none = is_number(visible) and visible == 0 and all(is_number(value) and value == 0 for value in (x, y))
    return RawPoint(name, None, None, 0) if is_none else RawPoint(name, x, y, visible)
