"""What bodies are put together from: ellipsoids and named points, added in frames that turn and shift them.

Body frame: metres, x towards the head, y to the animal's left, z up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .sight import entries
from .solids import Array, Solid, half_axes

Point = tuple[float, float, float]
COAT = (-1.0, -1.0, -1.0)
ABOVE = 10.0  # metres: higher than any animal


@dataclass(frozen=True)
class Joints:
    """J named points of a body: `names`, `places` (J, 3) and `depths` (J,), how far each lies under the skin; metres.

    What an animal has on both sides is there twice, as `left eye` and `right eye`.
    """

    names: list[str]
    places: Array
    depths: Array

    def moved(self, rotation: Array, offset: Array, size: float = 1.0) -> Joints:
        """Scaled, turned and shifted as `Solid.moved` does."""
        return Joints(self.names, self.places @ rotation.T * size + offset, self.depths * size)


def rotation(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Array:
    """Rz(yaw) Ry(-pitch) Rx(roll): pitch > 0 lifts the head, roll > 0 the left side.

    >>> rotation(yaw=np.pi / 2).round(3).tolist()  # x becomes y
    [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    turn = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    nod = np.array([[cp, 0, -sp], [0, 1, 0], [sp, 0, cp]])
    return turn @ nod @ np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])


class Build:
    """Collects ellipsoids and named points; `frame` and `joint` turn and shift those added next."""

    def __init__(self) -> None:
        self.parts: list[tuple[Array, Array, Point, Point, Point]] = []
        self.marks: dict[str, tuple[Array, float]] = {}
        self.frame: Array = np.eye(3)
        self.joint: Array = np.zeros(3)

    def at(self, point: Point) -> Array:
        """A point of the current frame in the body frame."""
        return self.frame @ np.array(point) + self.joint

    def add(self, centre: Point, radii: Point, axis: Point = (1, 0, 0), colour: Point = COAT) -> None:
        """An ellipsoid in the current frame; the first of its radii points along `axis`."""
        self.parts.append((self.frame, self.at(centre), radii, axis, colour))

    def pair(self, centre: Point, radii: Point, axis: Point = (1, 0, 0), colour: Point = COAT) -> None:
        """The part and its mirror image on the other side."""
        for s in (1, -1):
            self.add((centre[0], s * centre[1], centre[2]), radii, (axis[0], s * axis[1], axis[2]), colour)

    def limb(self, a: Array, b: Array, radius: float, colour: Point = COAT) -> None:
        """A rounded bar from a to b, both in the body frame."""
        radii = (float(np.linalg.norm(b - a)) / 2 + radius * 0.7, radius, radius)
        self.parts.append((np.eye(3), (a + b) / 2, radii, tuple((b - a).tolist()), colour))

    def mark(self, name: str, place: Array, depth: float = 0.0) -> None:
        """Names a point of the body frame that lies `depth` metres under the skin."""
        self.marks[name] = (place, depth)

    def mark_pair(self, name: str, point: Point, depth: float = 0.0) -> None:
        """Names a point of the current frame on the left, and its mirror image on the right."""
        for side, s in (("left", 1), ("right", -1)):
            self.mark(f"{side} {name}", self.at((point[0], s * point[1], point[2])), depth)

    def mark_back(self, depth: float = 0.0, **along: float) -> None:
        """Names points of the midline of the back: where a plumb line of the current frame at x meets the parts so far.

        Parts that are added later may cover it, up to `depth` metres thick.

        >>> build = Build()
        >>> build.add((0, 0, 0), (2, 1, 1))
        >>> build.mark_back(withers=0.0)
        >>> build.marks["withers"][0].tolist()
        [0.0, 0.0, 1.0]
        """
        rays = np.tile(self.frame @ np.array([0, 0, -ABOVE]), (len(along), 1))
        starts = np.array([self.at((x, 0, ABOVE)) for x in along.values()])
        shares = entries(self.solid(), starts, rays).min(1)
        for name, start, ray, share in zip(along, starts, rays, shares, strict=True):
            self.mark(name, start + ray * share, depth)

    def solid(self) -> Solid:
        """The parts so far, in the body frame."""
        columns = (np.array(column, float) for column in zip(*self.parts, strict=True))
        frames, centres, radii, axes, colours = columns
        return Solid(centres, frames @ half_axes(radii, axes), colours)

    def joints(self) -> Joints:
        """The named points so far, in the body frame."""
        places, depths = zip(*self.marks.values(), strict=True)
        return Joints(list(self.marks), np.array(places), np.array(depths))
