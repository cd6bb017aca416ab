"""Coats of pigs and cows: plain, shaded or patched. Some colours are worn by both species, on purpose.

A coat is a function of the place on the body, so that a patch stays where it is from frame to frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .solids import Array

# Main colour, second colour, how much of the body the second one takes, and how sharp its edge is.
PIG_COATS = [
    ((0.92, 0.71, 0.65), (0.84, 0.60, 0.55), 0.4, 0.15), ((0.93, 0.80, 0.74), (0.86, 0.69, 0.63), 0.4, 0.15),
    ((0.88, 0.73, 0.65), (0.92, 0.83, 0.77), 0.4, 0.15), ((0.86, 0.67, 0.61), (0.20, 0.18, 0.18), 0.3, 2.5),
    ((0.60, 0.57, 0.55), (0.48, 0.44, 0.43), 0.4, 0.15), ((0.17, 0.16, 0.16), (0.25, 0.21, 0.20), 0.4, 0.15),
    ((0.56, 0.39, 0.29), (0.46, 0.31, 0.23), 0.4, 0.15), ((0.77, 0.61, 0.49), (0.68, 0.51, 0.40), 0.4, 0.15),
]
COW_COATS = [
    ((0.93, 0.91, 0.87), (0.10, 0.09, 0.09), 0.55, 2.5), ((0.92, 0.90, 0.86), (0.12, 0.10, 0.10), 0.75, 2.5),
    ((0.91, 0.87, 0.80), (0.46, 0.27, 0.18), 0.60, 2.5), ((0.42, 0.29, 0.20), (0.33, 0.22, 0.15), 0.4, 0.15),
    ((0.67, 0.49, 0.34), (0.57, 0.39, 0.26), 0.4, 0.15), ((0.76, 0.60, 0.46), (0.84, 0.71, 0.58), 0.4, 0.15),
    ((0.14, 0.12, 0.12), (0.22, 0.18, 0.16), 0.4, 0.15), ((0.83, 0.76, 0.68), (0.72, 0.62, 0.54), 0.4, 0.15),
]


@dataclass(frozen=True)
class Coat:
    """Two colours (3,), and `waves` (8, 3) in rad/m with `phases` (8,) whose sum chooses between them.

    `fur` (16, 16, 16) is the brightness of cells of two centimetres, repeated all over the body.
    """

    main: Array
    second: Array
    waves: Array
    phases: Array
    level: float
    sharpness: float
    fur: Array

    def colours(self, points: Array) -> Array:
        """Colours (n, 3) at points (n, 3) of the body frame."""
        field = np.cos(points @ self.waves.T + self.phases).sum(1, keepdims=True)
        mix = np.clip((field - self.level) * self.sharpness + 0.5, 0, 1)
        cells = (points * 48).astype(np.int16) & 15
        fur = self.fur[cells[:, 0], cells[:, 1], cells[:, 2]]
        return (self.main + (self.second - self.main) * mix) * fur[:, None]


def random_coat(species: str, choices: list[int], rng: np.random.Generator) -> Coat:
    """A coat of one of the `choices` (indices of PIG_COATS or COW_COATS), no two alike."""
    coats = PIG_COATS if species == "pig" else COW_COATS
    main, second, cover, sharpness = coats[int(rng.choice(choices))]
    waves = rng.normal(size=(8, 3)) * ([5, 6, 6] if species == "pig" else [2.6, 2.4, 2.6])
    tone = rng.normal(1, 0.06) * rng.normal(1, 0.015, 3)
    return Coat(
        main=(np.array(main) * tone).astype(np.float32),
        second=(np.array(second) * tone).astype(np.float32),
        waves=waves.astype(np.float32),
        phases=rng.uniform(0, 2 * np.pi, 8).astype(np.float32),
        level=4 * (0.5 - cover),
        sharpness=sharpness,
        fur=1 + np.float32(0.028) * rng.standard_normal((16, 16, 16), np.float32),
    )
