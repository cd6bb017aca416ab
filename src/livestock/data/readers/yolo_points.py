"""The keypoints of YOLO's lines: `kpt_shape`, `flip_idx` and `kpt_names` of the data's YAML, and what follows a box.

`kpt_shape: [K, D]` says that K points follow a box, of D values each: x, y and with 3 the visibility, 0, 1 or 2. With 2
values a point at (0, 0) is not labelled. Coordinates are relative to the image. Where classes have different points,
those with fewer have points of zeros behind their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

from ...config import Competition, FoundPoints
from ...config.suggest import unnamed_points
from ...exceptions import BadData
from .points import RawPoint
from .values import is_number


class PointShape(NamedTuple):
    """How many points a line has, and of how many values; the names of each class by its number as text, where it has.

    `names` has the key "" for names of every class; `flips` are the indexes of the mirror images.
    """

    n_points: int
    n_values: int
    names: dict[str, tuple[str, ...]]
    flips: tuple[int, ...] | None = None

    @property
    def n_all(self) -> int:
        """How many values all points of a line have."""
        return self.n_points * self.n_values

    def of(self, class_id: str) -> FoundPoints:
        """What is known of the points of a class."""
        names = self.names.get(class_id, self.names.get("", ()))
        if not names:
            return unnamed_points(self.n_points, self.flips)
        return FoundPoints(names, (), self.flips if len(names) == self.n_points else None)


def read_shape(content: dict[str, Any]) -> PointShape | None:
    """The points that a data YAML speaks of; None for a YAML of boxes.

    >>> read_shape({"kpt_shape": [2, 3], "kpt_names": {0: ["snout", "tail"]}}).names
    {'0': ('snout', 'tail')}
    """
    shape = content.get("kpt_shape")
    if not _are(shape, int) or len(shape) != 2 or min(shape) < 1:
        return None
    flips, names = content.get("flip_idx"), content.get("kpt_names")
    by_class = names if isinstance(names, dict) else {"": names}
    named = {str(key): tuple(own) for key, own in by_class.items() if _are(own, str) and len(own) <= shape[0]}
    return PointShape(shape[0], shape[1], named, tuple(flips) if _are(flips, int) else None)


def _are(values: Any, kind: type) -> TypeGuard[list[Any]]:
    return isinstance(values, list) and len(values) > 0 and all(type(value) is kind for value in values)


def check_shapes(shapes: dict[str, PointShape]) -> None:
    """Raises BadData naming the file, a key of `shapes`, for points of other than 2 or 3 values or that differ."""
    for place, shape in shapes.items():
        if shape.n_values not in (2, 3):
            raise BadData(f"{place}: `kpt_shape`: expected 2 or 3 values a point, found {shape.n_values}")
        first = next(iter(shapes))
        if shape != shapes[first]:
            raise BadData(f"{place}: expected the keypoints of {first}, {shapes[first]}, found {shape}")


def check_line(n_values: int, n_own: int, shape: PointShape | None, where: str) -> None:
    """Refuses a line of `n_values` behind its class in data that are asked for `n_own` keypoints of its class.

    A line of a box alone is one of an object without points. Raises BadData naming file and line for a ragged one, and
    for one that looks like keypoints where no file gives their shape.
    """
    if shape is not None and n_values not in (4, 4 + shape.n_all):
        raise BadData(f"{where}: expected a box and {shape.n_points} keypoints of {shape.n_values} values, as "
                      f"`kpt_shape` says, {4 + shape.n_all} values behind the class, found {n_values}")
    fitting = [size for size in (2, 3) if n_own and n_values == 4 + n_own * size]
    if shape is None and fitting:
        raise BadData(f"{where}: {n_values} values behind the class may be a box and {n_own} keypoints or a polygon; "
                      f"expected `kpt_shape: [{n_own}, {fitting[0]}]` in the data's YAML to say that it is the former")


def points_of(values: Sequence[Any], shape: PointShape, class_id: str, size: tuple[int, int]) -> tuple[RawPoint, ...]:
    """The points of a line, in pixels of an image of this width and height.

    >>> points_of((0.5, 0.25, 0, 0), PointShape(2, 2, {}), "0", (100, 60))[1].visible
    0
    """
    if shape.n_values not in (2, 3):  # nobody can say what they are; refused where somebody asks
        return ()
    found = shape.of(class_id)
    names: list[str | None] = [*found.names] if found.are_named else [None] * shape.n_points
    points = [_point(values[start : start + shape.n_values], size) for start in range(0, shape.n_all, shape.n_values)]
    n_own = len(names) if not any(point.visible != 0 for point in points[len(names) :]) else len(points)
    names += [f"point_{number}" for number in range(len(names) + 1, n_own + 1)]
    return tuple(point._replace(name=name) for point, name in zip(points, names, strict=False))


def _point(values: Sequence[Any], size: tuple[int, int]) -> RawPoint:
    place = [round(value * side, 6) if is_number(value) else value
             for value, side in zip(values[:2], size, strict=True)]
    is_zero = all(is_number(value) and value == 0 for value in place)
    visible = values[2] if len(values) > 2 else 2 * (not is_zero)
    if is_zero and visible == 0:
        return RawPoint(None, None, None, 0)
    return RawPoint(None, place[0], place[1], visible)


def find_points(shape: PointShape | None, classes: dict[str, str]) -> dict[str, FoundPoints]:
    """What a shape says of each of these classes, by name; `classes` has their names by number."""
    return {} if shape is None else {name: shape.of(class_id) for class_id, name in classes.items()}


def n_points_asked(competition: Competition, source_name: str, image_id: str) -> int:
    """How many points the competition's skeleton has of a class."""
    label = competition.label_of(source_name, image_id) if competition.skeleton is not None else None
    return 0 if label is None or competition.skeleton is None else len(competition.skeleton.names(label))
