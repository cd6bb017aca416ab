"""A `skeleton:` block to begin with, from the names and edges that data have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}
SIDES = [  # where a name says its side, the plainest first; the last two only count where the other side is there too
    re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE),
    re.compile(r"^(left|right)|(left|right)$", re.IGNORECASE),
    re.compile(r"^[lr](?=[\W_])|(?<=[\W_])[lr]$|^[lr]$", re.IGNORECASE),
    re.compile(r"^[lr](?=\w)", re.IGNORECASE),
    re.compile(r"(?<=\w)[lr]$", re.IGNORECASE),
]
N_PLAIN = 3  # of these patterns say a side by themselves


class FoundPoints(NamedTuple):
    """What data say of the keypoints of a class: names by index, pairs of names, and the index of each mirror image.

    `flips` is None where the data do not say it; `are_named` is False where the names are made up, `point_1` and so on.
    """

    names: tuple[str, ...]
    edges: tuple[tuple[str, str], ...] = ()
    flips: tuple[int, ...] | None = None
    are_named: bool = True


def unnamed_points(n_points: int, flips: tuple[int, ...] | None = None) -> FoundPoints:
    """Points of which data say how many there are alone.

    >>> unnamed_points(2).names
    ('point_1', 'point_2')
    """
    return FoundPoints(tuple(f"point_{number}" for number in range(1, n_points + 1)), (), flips, are_named=False)


def suggest_skeleton(found: Mapping[str, FoundPoints]) -> str:
    """The `skeleton:` block of a competition's file, ready to paste, for the points found of each label; "" for none.

    Mirror images are those that the data name, else see `mirror_names`.

    >>> print(suggest_skeleton({"pig": FoundPoints(("snout", "ear_l", "ear_r"), (("snout", "ear_l"),))}))
    skeleton:
      keypoints:
      - {label: pig, keypoint: snout, index: 0, flip: snout}
      - {label: pig, keypoint: ear_l, index: 1, flip: ear_r}
      - {label: pig, keypoint: ear_r, index: 2, flip: ear_l}
      edges:
        pig: [[snout, ear_l]]
    """
    lines = [line for label, points in found.items() for line in _point_lines(label, points)]
    edges = [f"    {_flow(label)}: {_flow([list(pair) for pair in points.edges])}"
             for label, points in found.items() if points.edges]
    if not lines:
        return ""
    return "\n".join(["skeleton:", "  keypoints:", *lines, *(["  edges:", *edges] if edges else [])])


def _point_lines(label: str, points: FoundPoints) -> list[str]:
    names = points.names
    flips = [names[index] for index in points.flips or ()] if _is_mirror(points) else mirror_names(names)
    comments = [] if points.are_named else [f"  # {label}: the data have no names; write yours in this order"]
    entries = [{"label": label, "keypoint": name, "index": index} | ({} if flips is None else {"flip": flips[index]})
               for index, name in enumerate(names)]
    return [*comments, *(f"  - {_flow(entry)}" for entry in entries)]


def _is_mirror(points: FoundPoints) -> bool:
    """Whether the data's mirror images are some, and lead back."""
    flips = points.flips or ()
    return len(flips) == len(points.names) > 0 and all(
        0 <= flip < len(flips) and flips[flip] == index for index, flip in enumerate(flips))


def mirror_names(names: Sequence[str]) -> list[str] | None:
    """The mirror image of each name, by left and right, or l and r at its beginning or end; None if none has a side.

    A name without a side is its own mirror image. Where one side of a pair is missing nothing is known of its mirror
    image, and so of none: a class has a `flip` everywhere or nowhere.

    >>> mirror_names(["leftear", "rightear", "tailbase"]), mirror_names(["eye", "tail"])
    (['rightear', 'leftear', 'tailbase'], None)
    >>> mirror_names(["left_ear", "right_ear", "left_eye"]) is None
    True
    """
    flips = {}
    for name in names:
        others = [other for other in _other_sides(name, SIDES) if other in names and name in _other_sides(other, SIDES)]
        flips[name] = others[0] if others else name
    pairs = {name: flip for name, flip in flips.items() if flip != name}
    is_lonely = any(name not in pairs and any(_other_sides(name, SIDES[:N_PLAIN])) for name in names)
    return None if not pairs or is_lonely or any(flips[flip] != name for name, flip in flips.items()) else [
        flips[name] for name in names]


def _other_sides(name: str, patterns: Sequence[re.Pattern[str]]) -> Iterator[str]:
    """The name with its side changed, in each way that it can be read, the plainest first."""
    for pattern in patterns:
        if (found := pattern.search(name)) is not None:
            yield name[: found.start()] + _in_case(OTHER_SIDE[found[0].lower()], found[0]) + name[found.end() :]


def _in_case(word: str, like: str) -> str:
    if like.islower():
        return word
    return word.upper() if like.isupper() else word.capitalize()


def _flow(value: Any) -> str:
    """A value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf"))
    return text.removesuffix("...\n").strip()
