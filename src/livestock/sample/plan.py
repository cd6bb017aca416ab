"""Which frames a sample has: cameras, clips, and their split into train and test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .barns import Barn, build_barn
from .scenes import Frame, random_clip, random_light

SPECIES = {"cow": "소", "pig": "돼지"}
MAX_ANIMALS = {"cow": 9, "pig": 20}
FRAMES_PER_CAMERA = 16
FRAMES_ALONE = 2  # of an animal that is alone: other animals teach more than the next step of one
EMPTY_CLIPS = 0.1  # empty clips are short, so that about one image in 25 has no animal


@dataclass(frozen=True)
class Shot:
    """A frame with its place in the sample: `stem` without suffix, `split`, `clip` and `number` in it."""

    stem: str
    species: str
    split: str
    clip: str
    number: int
    frame: Frame
    noise: np.random.Generator


def plan_sample(*, seed: int = 0, n_train: int = 240, n_test: int = 60, scale: float = 1 / 3,
                is_alone: bool = False) -> list[Shot]:
    """The frames of a sample before any of them is drawn: cheap enough to count boxes of many.

    If `is_alone` each shows one animal, near or far, in clips of two frames.

    Raises ValueError for n_train < 8, n_test < 2 or a scale outside (0, 1].
    """
    for name, value, least in (("n_train", n_train, 8), ("n_test", n_test, 2)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, found {value}")
    if not 0 < scale <= 1:
        raise ValueError(f"scale must be above 0 and at most 1, found {scale}")
    rng = np.random.default_rng(seed)
    shots = []
    for species in SPECIES:
        clip = _clip_alone if is_alone else _clip
        shots += _plan_species(species, _half(n_train, species), _half(n_test, species), scale, rng, clip)
    return shots


def _half(count: int, species: str) -> int:
    return count // 2 if species == "pig" else count - count // 2


def _plan_species(species: str, n_train: int, n_test: int, scale: float, rng: np.random.Generator,
                  make_clip: Callable[..., Iterator[Frame]]) -> list[Shot]:
    """Clips of random cameras until there are enough frames; the first test clip has a camera of its own."""
    n_cameras = max(3, n_train // FRAMES_PER_CAMERA)
    barns = [_camera(species, number, scale, rng) for number in range(n_cameras)]
    extra = [_camera(species, n_cameras + number, scale, rng) for number in range(max(1, n_test // 20))]
    shots: list[Shot] = []
    for split, cameras, count in (("train", barns, n_train), ("test", extra + barns[::-1], n_test)):
        clip, end = 0, len(shots) + count
        while len(shots) < end:
            barn = cameras[clip % len(cameras)]
            name = f"{species}_{split}_{clip:03d}"
            for number, frame in enumerate(make_clip(barn, name, end - len(shots), rng)):
                stem = f"livestock_{species}_bbox_{len(shots) + 1:06d}"
                shots.append(Shot(stem, species, split, name, number, frame, rng.spawn(1)[0]))
            clip += 1
    return shots


def _camera(species: str, number: int, scale: float, rng: np.random.Generator) -> Barn:
    # AI Hub's pigs: 27 % of the images are 1280x960.
    full = (1280, 960) if species == "pig" and number % 11 in (1, 5, 8) else (1920, 1080)
    width, height = (max(1, round(side * scale)) for side in full)
    return build_barn(species, f"{species.upper()} {number + 1:02d}", width, height, rng)


def _clip(barn: Barn, name: str, at_most: int, rng: np.random.Generator) -> Iterator[Frame]:
    empty = bool(rng.random() < EMPTY_CLIPS)
    n_frames = min(int(rng.integers(2, 4) if empty else rng.integers(4, 9)), at_most)
    n_animals = 0 if empty else 1 + int(rng.beta(1.3, 1.2) * MAX_ANIMALS[barn.species])
    return random_clip(barn, random_light(rng), n_frames, n_animals, name, rng)


def _clip_alone(barn: Barn, name: str, at_most: int, rng: np.random.Generator) -> Iterator[Frame]:
    return random_clip(barn, random_light(rng), min(FRAMES_ALONE, at_most), 1, name, rng)
