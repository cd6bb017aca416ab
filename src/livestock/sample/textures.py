"""What floors and walls are made of: flat pictures, later laid into the scene in perspective."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .solids import Array

Image = NDArray[np.uint8]
FLOORS = {
    "concrete": (148, 142, 132),
    "slats": (128, 124, 118),
    "straw": (186, 158, 104),
    "earth": (118, 96, 74),
    "mat": (74, 78, 80),
}
WALLS = {
    "boards": (126, 98, 70),
    "blocks": (158, 156, 150),
    "metal": (172, 182, 186),
    "plaster": (196, 190, 176),
}


def clouds(height: int, width: int, rng: np.random.Generator, coarsest: int = 6) -> Array:
    """Noise (height, width) float32 of several octaves, about -1 to 1.

    >>> clouds(4, 6, np.random.default_rng(0)).shape
    (4, 6)
    """
    total: Array = np.zeros((height, width), np.float32)
    for octave in range(4):
        cells = coarsest * 2**octave
        rows, columns = (max(2, cells * side // max(height, width)) for side in (height, width))
        grain = rng.standard_normal((rows, columns), np.float32) / np.float32(1.6**octave)
        total = total + np.asarray(cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    return total / 2


def finish(tone: Array, base: tuple[int, int, int], rng: np.random.Generator) -> Image:
    """A texture (H, W, 3) from brightness factors (H, W) and a base colour, with a fine grain.

    >>> finish(np.ones((4, 6)), (120, 100, 80), np.random.default_rng(0)).shape
    (4, 6, 3)
    """
    grain = tone + rng.normal(0, 0.035, tone.shape)
    tint = np.array(base) * rng.normal(1, 0.05) * rng.normal(1, 0.03, 3)
    return np.clip(grain[..., None] * tint, 0, 255).astype(np.uint8)


def floor_texture(kind: str, width: int, height: int, density: int, rng: np.random.Generator) -> Image:
    """A floor (height, width, 3) of a kind in FLOORS, `density` pixels a metre, with wet places."""
    tone = 1 + 0.13 * clouds(height, width, rng)
    if kind == "slats":
        period, beam = round(density * rng.uniform(0.11, 0.16)), round(density * rng.uniform(0.9, 1.4))
        across = (np.arange(width) % period < 0.26 * period)[None, :]
        tone = np.where(across & (np.arange(height) % beam > 0.12 * beam)[:, None], 0.3, tone)
    if kind in ("concrete", "mat"):
        slab = round(density * rng.uniform(1.2, 2.4))
        tone[::slab] *= 0.7
        tone[:, ::slab] *= 0.7
    wet = np.clip(clouds(height, width, rng, 3) * 2 - 0.9, 0, 1)
    texture = finish(tone * (1 - 0.42 * wet), FLOORS[kind], rng)
    if kind == "straw" or rng.random() < 0.4:
        _strew(texture, density, 1.0 if kind == "straw" else float(rng.uniform(0.05, 0.3)), rng)
    return texture


def _strew(texture: Image, density: int, cover: float, rng: np.random.Generator) -> None:
    """Straws of all directions; fewer where the floor is thinly covered, and then only in drifts."""
    height, width = texture.shape[:2]
    count = int(cover * 260 * height * width / density**2)
    starts = rng.uniform(0, 1, (count, 2)) * [width, height]
    if cover < 1:
        starts = rng.normal(rng.uniform(0.1, 0.9, 2), [0.22, 0.16], (count, 2)) * [width, height]
    angles, lengths = rng.uniform(0, np.pi, count), density * rng.uniform(0.06, 0.22, count)
    ends = starts + np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths[:, None]
    shades = np.array([206, 176, 116]) * rng.uniform(0.55, 1.15, (12, 1))
    for number, shade in enumerate(shades):
        lines = np.stack([starts, ends], axis=1)[number::12].astype(np.int32)
        cv2.polylines(texture, list(lines), False, np.clip(shade, 0, 255).tolist(), 1, cv2.LINE_AA)


def wall_texture(kind: str, width: int, height: int, rng: np.random.Generator) -> Image:
    """A wall (height, width, 3) of a kind in WALLS, dirtier towards the floor."""
    tone = 1 + 0.08 * clouds(height, width, rng)
    if kind == "boards":
        board = max(6, height // int(rng.integers(9, 14)))
        columns = np.arange(width) // board
        tone *= rng.normal(1, 0.09, columns[-1] + 1)[columns]
        tone[:, ::board] *= 0.45
    elif kind == "blocks":
        course = max(6, height // int(rng.integers(10, 15)))
        tone[::course] *= 0.8
        for row in range(0, height, course):
            tone[row:row + course, (row // course % 2) * course::2 * course] *= 0.8
    elif kind == "metal":
        tone *= 1 + 0.1 * np.sin(np.arange(width) * (2 * np.pi / max(6, height / 14)))
    dirt = np.clip(np.linspace(-0.7, 1, height)[:, None] + 0.3 * clouds(height, width, rng), 0, 1)
    return finish(tone * (1 - 0.45 * dirt), WALLS[kind], rng)
