"""Drawn animals for tests: one with nothing left to chance, and many at random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from livestock.sample.animals import BEHAVIOURS, Animal, random_animal

SPECIES = ("pig", "cow")


def posed(species: str, behaviour: str = "standing", **changes: float) -> Animal:
    """An animal with nothing left to chance, at the origin, its head along x."""
    animal = random_animal(species, 0.0, 0.0, [0], 1.0, np.random.default_rng(0))
    still = replace(animal, behaviour=behaviour, heading=0.0, size=1.0, girth=1.0, side=1.0, horns=False,
                    lop_ears=True, gait=0.0, head_yaw=0.0, head_pitch=0.0)
    return replace(still, **changes)  # type: ignore[arg-type]


def random_animals(count: int, seed: int = 0) -> list[Animal]:
    """Animals of both species in all postures, anywhere."""
    rng = np.random.default_rng(seed)
    drawn = [random_animal(SPECIES[number % 2], *rng.uniform(-3, 3, 2).tolist(), [0, 1], 0.9, rng)
             for number in range(count)]
    return [replace(animal, behaviour=BEHAVIOURS[number // 2 % 4]) for number, animal in enumerate(drawn)]
