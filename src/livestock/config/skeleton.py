"""The keypoints of each class: their order, mirror images, OKS sigmas, body parts, and the edges to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from reprlib import repr as short
from typing import Any

DEFAULT_SIGMA = 0.05  # in the middle of the 0.025 to 0.107 that COCO measured for the points of people
PARTS = ("upper", "lower")
NOTHING = ("", "~", "null", "none")  # how a YAML file, read as texts, says that a key has no value
EXAMPLE = "{label: pig, keypoint: left_ear, index: 1, flip: right_ear}"


@dataclass(frozen=True)
class Keypoint:
    """One named point of a class. `flip` is the name of its mirror image, or its own name; None: no mirror is known.

    `index` is its place in arrays, from 0; `sigma` the spread in OKS, above 0, None for the default; `part` is `upper`,
    `lower` or None, for the half-body augmentation.
    """

    label: str
    keypoint: str
    index: int
    flip: str | None = None
    sigma: float | None = None
    part: str | None = None


@dataclass(frozen=True)
class Edge:
    """A line that a figure draws between two keypoints of a class."""

    label: str
    first: str
    second: str


@dataclass(frozen=True)
class Skeleton:
    """The keypoints of all classes that have some, and the edges to draw.

    Raises ValueError that names the label and the keypoint for: a name or an index that is there twice, indexes that
    are not 0, 1 ... without gaps, a `flip` that is unknown or whose own `flip` does not lead back, a `flip` that only
    some keypoints of a class have, a sigma that is not above 0, an unknown part, an edge to an unknown keypoint.

    >>> ears = Skeleton((Keypoint("pig", "left_ear", 0, "right_ear"), Keypoint("pig", "right_ear", 1, "left_ear")))
    >>> ears.names("pig"), ears.flip_indexes("pig")
    (['left_ear', 'right_ear'], [1, 0])
    """

    keypoints: tuple[Keypoint, ...]
    edges: tuple[Edge, ...] = ()

    def __post_init__(self) -> None:
        if not self.keypoints:
            raise ValueError(f"keypoints: expected at least one, such as {EXAMPLE}, found none")
        for point in self.keypoints:
            _check_point(point)
        for label in self.labels:
            _check_indexes(label, self.of(label))
            _check_flips(label, self.of(label))
        for edge in self.edges:
            _check_edge(edge, self.names(edge.label))

    @property
    def labels(self) -> list[str]:
        """The classes that have keypoints, in the order in which the file names them."""
        return list(dict.fromkeys(point.label for point in self.keypoints))

    def of(self, label: str) -> list[Keypoint]:
        """The keypoints of a class by index; none for a class without keypoints."""
        return sorted((point for point in self.keypoints if point.label == label), key=lambda point: point.index)

    def names(self, label: str) -> list[str]:
        """The names of a class's keypoints by index."""
        return [point.keypoint for point in self.of(label)]

    def flip_indexes(self, label: str) -> list[int] | None:
        """For each keypoint by index, the index of its mirror image; None where the class must not be mirrored.

        An image that is mirrored shows the left ear where the right one was: row `k` of the mirrored keypoints is row
        `flip_indexes[k]` of the original ones, at its mirrored place.
        """
        names = self.names(label)
        flips = [point.flip for point in self.of(label)]
        return [names.index(flip) for flip in flips if flip is not None] if names and None not in flips else None

    def sigmas(self, label: str) -> list[float]:
        """The OKS sigma of a class's keypoints by index, `DEFAULT_SIGMA` where the file gives none."""
        return [DEFAULT_SIGMA if point.sigma is None else point.sigma for point in self.of(label)]

    def describe_default_sigmas(self) -> list[str]:
        """A sentence for each class with keypoints whose sigma is the default: their OKS is no measured quantity."""
        sentences = []
        for label in self.labels:
            if names := [point.keypoint for point in self.of(label) if point.sigma is None]:
                sentences.append(f"{label}: no sigma is given for {', '.join(names)}; OKS uses the default "
                                 f"{DEFAULT_SIGMA}")
        return sentences


def _check_point(point: Keypoint) -> None:
    where = f"{point.label}: {point.keypoint}"
    if point.sigma is not None and not 0 < point.sigma < math.inf:
        raise ValueError(f"{where}: sigma: expected a number above 0, found {point.sigma!r}")
    if point.part not in (*PARTS, None):
        raise ValueError(f"{where}: part: expected one of {', '.join(PARTS)}, or none, found {point.part!r}")


def _check_indexes(label: str, points: Sequence[Keypoint]) -> None:
    names = [point.keypoint for point in points]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{label}: the keypoint {twice[0]!r} is there twice; leave one of them out")
    indexes = [point.index for point in points]
    if indexes != list(range(len(points))):
        raise ValueError(f"{label}: index: expected 0 to {len(points) - 1}, each once, found {indexes}")


def _check_flips(label: str, points: Sequence[Keypoint]) -> None:
    flips = {point.keypoint: point.flip for point in points}
    without = [name for name, flip in flips.items() if flip is None]
    if without and len(without) < len(flips):
        raise ValueError(f"{label}: flip: expected one for every keypoint of the class or for none, found none for "
                         f"{without[0]!r}; a point on the axis of the body is its own mirror image")
    for name, flip in flips.items():
        if flip is not None and flip not in flips:
            raise ValueError(f"{label}: {name}: flip: expected one of {', '.join(flips)}, found {flip!r}")
        if flip is not None and flips[flip] != name:
            raise ValueError(f"{label}: flip: the mirror image of {name!r} is {flip!r}, but that of {flip!r} is "
                             f"{flips[flip]!r}; expected {name!r}")


def _check_edge(edge: Edge, names: Sequence[str]) -> None:
    for name in (edge.first, edge.second):
        if name not in names:
            known = ", ".join(names) or "none: the class has no keypoints"
            raise ValueError(f"edges: {edge.label}: expected keypoints of this class ({known}), found {name!r}")


def read_skeleton(value: Any) -> Skeleton | None:
    """The skeleton that a competition file describes, or None where it has none; see `competition.yaml`.

    `value` holds texts as YAML is read here, or values as Python has them. Raises ValueError that names the key and
    what is wrong with it.

    >>> read_skeleton({"keypoints": [{"label": "pig", "keypoint": "snout", "index": "0"}]}).names("pig")
    ['snout']
    """
    if isinstance(value, Skeleton) or value is None or value in NOTHING:
        return value if isinstance(value, Skeleton) else None
    known = [item.name for item in fields(Skeleton)]
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a mapping with the keys {', '.join(known)}, found {short(value)}")
    _refuse_unknown(value, known, "")
    points = value.get("keypoints")
    if not isinstance(points, list | tuple):
        raise ValueError(f"keypoints: expected a list of keypoints such as {EXAMPLE}, found {short(points)}")
    return Skeleton(tuple(_keypoint(number, point) for number, point in enumerate(points, 1)),
                    _edges(value.get("edges")))


def _refuse_unknown(value: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    for key in value:
        if key not in known:
            raise ValueError(f"{where}unknown key {short(key)}; expected some of {', '.join(known)}")


def _keypoint(number: int, value: Any) -> Keypoint:
    where = f"keypoints: entry {number}: "
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}expected a mapping such as {EXAMPLE}, found {short(value)}")
    _refuse_unknown(value, [item.name for item in fields(Keypoint)], where)
    return Keypoint(
        label=_text(value.get("label"), f"{where}label"),
        keypoint=_text(value.get("keypoint"), f"{where}keypoint"),
        index=_index(value.get("index"), f"{where}index"),
        flip=None if _is_nothing(value.get("flip")) else _text(value["flip"], f"{where}flip"),
        sigma=None if _is_nothing(value.get("sigma")) else _sigma(value["sigma"], f"{where}sigma"),
        part=None if _is_nothing(value.get("part")) else _text(value["part"], f"{where}part").casefold(),
    )


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().casefold() in NOTHING)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or _is_nothing(value) or not value.strip().isprintable():
        raise ValueError(f"{where}: expected a name, found {short(value)}")
    return value.strip()


def _index(value: Any, where: str) -> int:
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ValueError(f"{where}: expected a whole number from 0 on, found {short(value)}")
    return int(text)


def _sigma(value: Any, where: str) -> float:
    try:
        return float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: expected a number above 0, found {short(value)}") from error


def _edges(value: Any) -> tuple[Edge, ...]:
    """Edges from a mapping of a label to pairs of keypoints."""
    if value is None or value in ([], {}) or _is_nothing(value):
        return ()
    if not isinstance(value, Mapping):
        raise ValueError(f"edges: expected a mapping of a label to pairs of keypoints, such as "
                         f"`pig: [[snout, left_ear]]`, found {short(value)}")
    return tuple(_edge(label, pair) for label, pairs in value.items() for pair in _pairs(label, pairs))


def _pairs(label: Any, pairs: Any) -> Sequence[Any]:
    if not isinstance(pairs, list | tuple):
        raise ValueError(f"edges: {short(label)}: expected a list of pairs of keypoints, found {short(pairs)}")
    return pairs


def _edge(label: Any, pair: Any) -> Edge:
    where = f"edges: {short(label)}"
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise ValueError(f"{where}: expected pairs of keypoints such as [snout, left_ear], found {short(pair)}")
    return Edge(_text(label, where), _text(pair[0], where), _text(pair[1], where))
