"""Pigs and cows as solids: their build and their postures.

Body frame: metres, x towards the head, y to the animal's left, z up. A posture tilts the trunk and says where
the feet go; the animal is then set down on the floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .build import Build, Joints, rotation
from .coats import Coat, random_coat
from .solids import Array, Solid, Surface

BEHAVIOURS = ["lying", "standing", "sitting", "eating"]
DARK = (0.07, 0.06, 0.06)
PINK = (0.82, 0.55, 0.52)
HORN = (0.78, 0.72, 0.6)
LEGS = ("fl", "fr", "bl", "br")


@dataclass
class Animal:
    """One animal: its position (metres), which way it faces (radians), and how it is built."""

    species: str
    behaviour: str
    x: float
    y: float
    heading: float
    size: float
    girth: float
    side: float
    coat: Coat
    horns: bool
    lop_ears: bool
    gait: float = 0.0
    head_yaw: float = 0.0
    head_pitch: float = 0.0

    @property
    def length(self) -> float:
        """From rump to nose, metres."""
        return (1.5 if self.species == "pig" else 2.6) * self.size


def random_animal(species: str, x: float, y: float, coats: list[int], size: float,
                  rng: np.random.Generator) -> Animal:
    """An animal at (x, y) with everything else drawn from `rng`; `size` 1 is an adult."""
    shares = [0.42, 0.33, 0.05, 0.20] if species == "pig" else [0.30, 0.44, 0.02, 0.24]
    return Animal(
        species, str(rng.choice(BEHAVIOURS, p=shares)), x, y, float(rng.uniform(-np.pi, np.pi)),
        size * float(rng.normal(1, 0.06)), float(rng.uniform(0.88, 1.12)), float(rng.choice([-1, 1])),
        random_coat(species, coats, rng), bool(rng.random() < 0.4), bool(rng.random() < 0.5),
        float(rng.uniform(0, 6.28)), float(rng.normal(0, 0.35)), float(rng.normal(0, 0.12)),
    )


def animal_solid(animal: Animal) -> Solid:
    """The animal as a solid in the world, standing or lying on the floor."""
    return pose(animal)[0]


def pose(animal: Animal) -> tuple[Solid, Joints]:
    """The animal's solid in the world, standing or lying on the floor, and its named points there.

    >>> solid, joints = pose(random_animal("cow", 3.0, 4.0, [0], 1.0, np.random.default_rng(0)))
    >>> round(abs(solid.lowest()), 9), joints.places.shape
    (0.0, (22, 3))
    """
    build = Build()
    (_pig if animal.species == "pig" else _cow)(build, animal)
    solid = build.solid()
    size, turn = animal.size, rotation(animal.heading)
    place = np.array([animal.x, animal.y, -solid.lowest() * size])
    return solid.moved(turn, place, size), build.joints().moved(turn, place, size)


def body_points(animal: Animal, points: Array) -> Array:
    """World points (n, 3) in the animal's body frame, heights counted from the floor.

    >>> animal = random_animal("pig", 3.0, 4.0, [0], 1.0, np.random.default_rng(0))
    >>> body_points(animal, np.array([[3.0, 4.0, 0.5]]))[0, :2].tolist()  # above the animal's place on the floor
    [0.0, 0.0]
    """
    turn = (rotation(animal.heading) / animal.size).astype(np.float32)
    return (points - np.array([animal.x, animal.y, 0], np.float32)) @ turn


def coat_colours(animal: Animal, surface: Surface) -> Array:
    """Colours (n, 3) of the surface without light: the coat, but for muzzle, hooves and eyes."""
    coat = animal.coat.colours(body_points(animal, surface.points))
    return np.where(surface.paint < 0, coat, surface.paint)


def _trunk(build: Build, animal: Animal, height: float, lateral: float) -> None:
    """Tilts the frame as the posture asks."""
    build.joint = np.array([0, 0, height])
    if animal.behaviour == "sitting":
        build.frame = rotation(pitch=0.5)
    elif animal.behaviour == "lying":
        build.frame = rotation(roll=lateral * animal.side)


def _legs(build: Build, animal: Animal, hips: list[tuple[float, float]], drop: float, radius: float,
          folded: bool, wrist: float) -> None:
    """Four legs under the `hips` (x, y of the trunk's frame); `drop` is their length.

    `wrist` is the share of the lower leg above the named wrist or hock while the leg is stretched.
    """
    for number, (x, y) in enumerate(hips):
        hip, front = build.at((x, y, -0.1 * drop)), x > 0
        swing = 0.16 * drop * np.sin(animal.gait + [0, np.pi, np.pi, 0][number])
        tucked = folded or (animal.behaviour == "sitting" and not front)
        if tucked:
            knee = build.at((x + 0.30 * drop, y * 1.5, -0.42 * drop))
            foot = build.at((x + (0.02 if front else 0.62) * drop, y * 1.5, -0.5 * drop))
        elif animal.behaviour == "sitting":
            foot = np.array([hip[0] + 0.05, hip[1], hip[2] - drop * 1.05])
            knee = (hip + foot) / 2
        else:
            knee = build.at((x + swing * 0.6 + (0.06 if front else -0.08) * drop, y, -0.5 * drop))
            foot = build.at((x + swing, y, -drop))
        build.limb(hip, knee, radius * 1.5)
        build.limb(knee, foot, radius)
        build.limb(foot + (knee - foot) * 0.08, foot, radius * 1.05, DARK)
        build.mark(f"{LEGS[number]}1", knee + (foot - knee) * (0 if tucked else wrist), radius * 1.2)
        toe = (foot - knee) / np.linalg.norm(foot - knee) * radius * 0.7
        build.mark(f"{LEGS[number]}2", foot + toe, radius)


def _pig(build: Build, animal: Animal) -> None:
    g = animal.girth
    flat_out = animal.behaviour == "lying" and abs(animal.head_yaw) < 0.4  # on its side, or on its chest
    _trunk(build, animal, 0.45, 1.35 if flat_out else 0.12)
    build.add((-0.34, 0, 0.02), (0.29, 0.205 * g, 0.215 * g))
    build.add((0, 0, -0.015), (0.46, 0.225 * g, 0.235 * g))
    build.add((0.30, 0, 0.01), (0.28, 0.195 * g, 0.215 * g))
    for s in (1, -1):
        build.add((-0.33, 0.12 * s, -0.1), (0.17, 0.09, 0.17))
        build.add((0.32, 0.11 * s, -0.1), (0.13, 0.08, 0.16))
    build.mark_back(neck=0.47, body1=0.30, body2=0.02, body3=-0.32)
    build.mark_back(0.06, body4=-0.60)  # under the tail
    build.mark_pair("F", (0.27, 0.17, -0.17), 0.02)
    folded = animal.behaviour == "lying" and not flat_out
    drawn_up = folded or animal.behaviour == "sitting"  # the thigh, and the stifle with it
    build.mark_pair("B", (-0.20, 0.175, -0.07) if drawn_up else (-0.25, 0.17, -0.17), 0.03)
    # The fat of the shoulder and the ham hangs over the bend of the leg: the wrist is looked for below it.
    _legs(build, animal, [(0.34, 0.12), (0.34, -0.12), (-0.36, 0.13), (-0.36, -0.13)], 0.40, 0.05, folded, 0.35)
    for step in range(4):  # a curl
        y, z = 0.03 * np.sin(2.1 * step), 0.1 + 0.03 * np.cos(2.1 * step)
        build.add((-0.61 - 0.02 * step, y, z), (0.03, 0.014, 0.014))
    _pig_head(build, animal)


def _pig_head(build: Build, animal: Animal) -> None:
    down = {"eating": -0.75, "lying": -0.1}.get(animal.behaviour, -0.2) + animal.head_pitch
    build.joint = build.at((0.46, 0, 0.03))
    build.frame = build.frame @ rotation(animal.head_yaw * 0.8, down)
    build.add((0.1, 0, 0.0), (0.23, 0.15, 0.16))
    build.add((0.22, 0, -0.01), (0.15, 0.105, 0.11))
    build.add((0.32, 0, -0.03), (0.13, 0.062, 0.06))
    build.add((0.44, 0, -0.03), (0.02, 0.06, 0.055), colour=PINK)
    build.pair((0.455, 0.022, -0.03), (0.012, 0.012, 0.018), colour=DARK)
    build.pair((0.24, 0.098, 0.05), (0.018, 0.016, 0.018), colour=DARK)
    if animal.lop_ears:
        build.pair((0.19, 0.145, 0.09), (0.14, 0.075, 0.022), (0.8, 0.45, -0.45))
    else:
        build.pair((0.12, 0.13, 0.19), (0.13, 0.07, 0.022), (0.1, 0.45, 0.8))
    build.mark("mouth", build.at((0.44, 0, -0.065)), 0.05)
    build.mark_pair("eye", (0.245, 0.11, 0.052))
    build.mark_pair("ear", (0.19, 0.145, 0.09) if animal.lop_ears else (0.12, 0.13, 0.19), 0.08)


def _cow(build: Build, animal: Animal) -> None:
    g = animal.girth
    lying = animal.behaviour == "lying"
    _trunk(build, animal, 0.95, 0.25)
    build.add((-0.08, 0, -0.07), (0.72, 0.37 * g, 0.40 * g))
    build.add((-0.64, 0, 0.05), (0.34, 0.29, 0.30))
    build.add((0.5, 0, 0.0), (0.36, 0.27, 0.39))
    build.add((-0.1, 0, 0.2), (0.84, 0.17, 0.14))
    build.add((0.66, 0, -0.24), (0.24, 0.15, 0.2))
    build.pair((-0.6, 0.2, 0.2), (0.15, 0.09, 0.09))
    build.pair((-0.7, 0.16, -0.12), (0.22, 0.14, 0.3))
    build.add((-0.4, 0, -0.38), (0.2, 0.17, 0.13), colour=PINK)
    build.mark_back(body1=0.48, body2=0.05, body3=-0.58)
    build.mark_back(0.04, body4=-0.91)  # under the tail
    build.mark_pair("F", (0.53, 0.22, -0.24), 0.04)
    build.mark_pair("B", (-0.56, 0.24, -0.22), 0.04)
    _legs(build, animal, [(0.56, 0.18), (0.56, -0.18), (-0.7, 0.19), (-0.7, -0.19)], 0.88, 0.068, lying, 0.05)
    root, tip = build.at((-0.94, 0, 0.2)), build.at((-1.02, 0.06 * np.sin(animal.gait), -0.42))
    build.limb(root, tip, 0.028)
    build.limb(tip, tip + (tip - root) * 0.25, 0.05, DARK)
    _cow_head(build, animal)


def _cow_head(build: Build, animal: Animal) -> None:
    down = {"eating": -0.95, "lying": 0.3}.get(animal.behaviour, 0.22) + animal.head_pitch
    build.joint = build.at((0.72, 0, 0.12))
    build.frame = build.frame @ rotation(animal.head_yaw * 0.9, down)
    build.add((0.14, 0, 0.0), (0.38, 0.17, 0.25), (1, 0, 0.05))
    build.mark("neck", build.at((0.12, 0, 0.25)))
    build.joint = build.at((0.42, 0, 0.08))
    nod = -0.1 if animal.behaviour == "eating" else -0.75
    build.frame = build.frame @ rotation(animal.head_yaw * 0.5, nod)
    build.add((0.06, 0, 0.0), (0.21, 0.155, 0.165))
    build.add((0.24, 0, -0.02), (0.27, 0.115, 0.12))
    build.add((0.43, 0, -0.03), (0.11, 0.105, 0.095), colour=DARK if animal.horns else PINK)
    build.pair((0.14, 0.125, 0.06), (0.03, 0.025, 0.03), colour=DARK)
    build.pair((-0.06, 0.25, 0.05), (0.15, 0.035, 0.075), (-0.15, 1, -0.1))
    if animal.horns:
        build.pair((-0.02, 0.15, 0.19), (0.13, 0.03, 0.03), (0.2, 0.6, 0.8), HORN)
    build.mark("mouth", build.at((0.525, 0, -0.065)), 0.08)
    build.mark_pair("eye", (0.15, 0.148, 0.065))
    build.mark_pair("ear", (-0.06, 0.25, 0.05), 0.09)
