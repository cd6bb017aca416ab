"""Clips of barn cameras: which animals there are, how they move, and how the camera renders them.

A clip is some frames of one camera under one light, in which the same animals move a little: near-duplicates,
as the frames of a video are.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from .animals import Animal, animal_solid, coat_colours, random_animal
from .barns import Barn
from .solids import Array, Camera, Solid, Surface, extent, fill_silhouette, paste, shadow_of
from .textures import Image


@dataclass(frozen=True)
class Light:
    """`towards` (3,) is the direction of the lamp, `tint` (3,) multiplies the picture; `saturation` is 0
    for infrared cameras, and 1 for a lens that loses no colour."""

    towards: Array
    tint: Array
    saturation: float
    ambient: float
    vignette: float
    blur: float
    noise: float
    quality: int


@dataclass(frozen=True)
class Frame:
    """One picture before it is drawn."""

    barn: Barn
    light: Light
    animals: list[Animal]
    stamp: str


def random_light(rng: np.random.Generator) -> Light:
    """Daylight, a dim warm lamp, or an infrared camera at night."""
    kind = str(rng.choice(["day", "lamp", "infrared"], p=[0.5, 0.28, 0.22]))
    towards = np.append(rng.normal(0, 0.35, 2), 1.0)
    bright = {"day": (1.0, 1.2), "lamp": (0.78, 1.0), "infrared": (0.9, 1.2)}[kind]
    warm = {"day": (1.0, 1.0, 1.0), "lamp": (1.08, 0.99, 0.82), "infrared": (1.0, 1.0, 1.0)}[kind]
    tint = np.array(warm) * rng.normal(1, 0.025 * (kind != "infrared"), 3) * rng.uniform(*bright)
    dark = kind != "day"
    return Light(
        towards=towards / np.linalg.norm(towards),
        tint=tint.astype(np.float32),
        saturation=0.0 if kind == "infrared" else float(rng.uniform(0.6, 0.95)),
        ambient=float(rng.uniform(0.42, 0.6)),
        vignette=float(rng.uniform(0.1, 0.35)) + 0.3 * dark,
        blur=float(rng.uniform(0.45, 0.9)),
        noise=float(rng.uniform(0.008, 0.02)) * (1 + dark),
        quality=int(rng.integers(72, 93)),
    )


def random_clip(barn: Barn, light: Light, n_frames: int, n_animals: int, name: str,
                rng: np.random.Generator) -> Iterator[Frame]:
    """`n_frames` frames of the same `n_animals` animals; fewer where the pen has no room for more."""
    animals = _herd(barn, n_animals, rng)
    second = int(rng.integers(0, 86_400))
    for _ in range(n_frames):
        clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        stamp = f"CAM {barn.name[-2:]} {clock}"  # the number alone: the species must not be readable
        yield Frame(barn, light, [copy(animal) for animal in animals], stamp)
        second = (second + int(rng.integers(1, 5))) % 86_400
        for animal in animals:
            _move(animal, animals, barn, rng)


def _herd(barn: Barn, count: int, rng: np.random.Generator) -> list[Animal]:
    size = float(rng.uniform(0.7, 1.05))
    coats = rng.integers(0, 8, int(rng.integers(1, 4))).tolist()
    animals: list[Animal] = []
    for _ in range(count * 8):
        if len(animals) == count:
            break
        spot = rng.uniform(-0.5, 0.5, 2) * barn.pen
        animal = random_animal(barn.species, float(spot[0]), float(spot[1]), coats, size, rng)
        if _fits(animal, animals, barn):
            animals.append(animal)
    return animals


def _spine(animal: Animal) -> Array:
    """Points (3, 2) along the animal on the floor."""
    ahead = np.array([np.cos(animal.heading), np.sin(animal.heading)])
    return np.array([animal.x, animal.y]) + np.outer([-0.3, 0.05, 0.4], ahead) * animal.length


def _fits(animal: Animal, others: list[Animal], barn: Barn) -> bool:
    """Whether the animal stays within the pen and does not stand in another."""
    spine = _spine(animal)
    wall = 0.16 * animal.length
    if (np.abs(spine) > np.array(barn.pen) / 2 - wall).any():
        return False
    gap = 0.27 * animal.length
    return all(np.linalg.norm(spine[:, None] - _spine(other)[None], axis=2).min() > gap
               for other in others if other is not animal)


def _move(animal: Animal, animals: list[Animal], barn: Barn, rng: np.random.Generator) -> None:
    """A moment later, in place: a step or a turn if there is room, and the head never still."""
    before = copy(animal)
    if animal.behaviour in ("standing", "eating"):
        step = float(rng.exponential(0.07)) * animal.length * (animal.behaviour == "standing")
        animal.heading += float(rng.normal(0, 0.1))
        animal.x += step * float(np.cos(animal.heading))
        animal.y += step * float(np.sin(animal.heading))
        animal.gait += 4 * step
        if not _fits(animal, animals, barn):
            animal.x, animal.y, animal.heading = before.x, before.y, before.heading
    # A lying pig whose head passed 0.4 would roll over between two frames; keep it on its side.
    limit = 0.39 if abs(before.head_yaw) < 0.4 else 0.9
    if limit < 0.4:
        animal.head_yaw = float(np.clip(animal.head_yaw + rng.normal(0, 0.08), -limit, limit))
    animal.head_pitch += float(rng.normal(0, 0.05))


def label_frame(frame: Frame) -> tuple[list[Animal], list[Solid], Array]:
    """The animals that can be seen, far to near, their solids, and their boxes (N, 4) xyxy in pixels.

    A box holds the whole animal, hidden parts too, clipped to the image, as human labelers draw it. Animals
    of which less than a quarter is visible, or that are hardly in the picture, are left out of the scene.
    """
    camera = frame.barn.camera
    solids = [animal_solid(animal) for animal in frame.animals]
    near_first = np.argsort([np.linalg.norm([a.x, a.y] - camera.position[:2]) for a in frame.animals])
    taken = np.zeros((180, round(180 * camera.width / camera.height)), np.uint8)
    kept: list[int] = []
    boxes = []
    for index in near_first:
        full = extent(solids[index], camera)
        box = np.clip(full, 0, [camera.width, camera.height] * 2)
        if np.isnan(full).any() or (box[2:] - box[:2] < 3).any():
            continue
        inside = float(np.prod(box[2:] - box[:2])) / float(np.prod(full[2:] - full[:2]))
        mask = np.zeros_like(taken)
        fill_silhouette(mask, solids[index], camera)
        seen = np.count_nonzero(mask > taken) / (np.count_nonzero(mask) or 1)
        if inside * seen < 0.25:
            continue
        taken |= mask
        kept.append(int(index))
        boxes.append(box)
    order = range(len(kept) - 1, -1, -1)
    return ([frame.animals[kept[i]] for i in order], [solids[kept[i]] for i in order],
            np.array([boxes[i] for i in order]).reshape(-1, 4))


def draw_frame(frame: Frame, rng: np.random.Generator) -> tuple[Image, Array, list[str]]:
    """The picture (H, W, 3) uint8 RGB, the boxes (N, 4) float xyxy pixels, the behaviour of each box.

    `rng` gives the sensor noise; the scene itself is in `frame`.
    """
    camera, light = frame.barn.camera, frame.light
    animals, solids, boxes = label_frame(frame)
    canvas = frame.barn.view.astype(np.float32) / 255
    _cast_shadows(canvas, solids, camera, light)
    for animal, solid in zip(animals, solids, strict=True):
        paste(canvas, solid, camera, partial(_shade, animal=animal, camera=camera, light=light))
    front = frame.barn.front.astype(np.float32) / 255
    canvas = canvas * (1 - front[..., 3:]) + front[..., :3]
    return _develop(canvas, frame, rng), boxes, [animal.behaviour for animal in animals]


def render_scene(barn: Barn, n_animals: int, rng: np.random.Generator) -> tuple[Image, Array, list[str]]:
    """One picture of `barn` with about `n_animals` animals under a random light; returns as `draw_frame`.

    >>> from livestock.sample.barns import build_barn
    >>> rng = np.random.default_rng(0)
    >>> picture, boxes, behaviours = render_scene(build_barn("pig", "cam1", 320, 180, rng), 3, rng)
    >>> picture.shape, boxes.shape[1], len(behaviours) == len(boxes)
    ((180, 320, 3), 4, True)
    """
    frame = next(random_clip(barn, random_light(rng), 1, n_animals, barn.name, rng))
    return draw_frame(frame, rng)


def _cast_shadows(canvas: Array, solids: list[Solid], camera: Camera, light: Light) -> None:
    """Darkens the floor, in place: a sharp shadow under the body and a wide soft one around it."""
    mask = np.zeros((camera.height // 2, camera.width // 2), np.uint8)
    for solid in solids:
        fill_silhouette(mask, shadow_of(solid, light.towards), camera)
    sharp, wide = (cv2.GaussianBlur(mask, (0, 0), camera.width / part) for part in (500, 110))
    soft = cv2.resize(sharp // 2 + wide // 2, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)
    canvas *= 1 - 0.62 * (soft.astype(np.float32) / 255)[..., None]


def _shade(surface: Surface, animal: Animal, camera: Camera, light: Light) -> Array:
    """Colours (n, 3): wrapped Lambert from the lamp, darker near the floor and at grazing angles."""
    lit = surface.normals @ light.towards.astype(np.float32) * 0.55 + 0.45
    lit = light.ambient + (1.08 - light.ambient) * np.clip(lit, 0, 1)
    low = np.clip(surface.points[:, 2] / (0.4 * animal.size * (1 if animal.species == "pig" else 2)), 0, 1)
    view = camera.position.astype(np.float32) - surface.points
    facing = np.einsum("ij,ij->i", surface.normals, view) / np.linalg.norm(view, axis=1)
    tone = lit * (0.72 + 0.28 * low) * (0.74 + 0.26 * np.clip(facing * 1.6, 0, 1))
    colour = coat_colours(animal, surface)
    if light.saturation == 0:
        # Coats differ less in infrared, and what faces the lamp beside the lens is bright.
        tone = tone * (0.75 + 0.45 * np.clip(facing, 0, 1))
        colour = 0.3 + 0.65 * colour
    return np.clip(colour * tone[:, None], 0, 1)


def _develop(canvas: Array, frame: Frame, rng: np.random.Generator) -> Image:
    """What lens and sensor do: vignette, tint, blur, noise, and the stamp of the recorder."""
    camera, light = frame.barn.camera, frame.light
    grey = np.asarray(cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY), np.float32)[..., None]
    canvas = grey + (canvas - grey) * np.float32(light.saturation)
    across = (np.linspace(-1, 1, camera.width, dtype=np.float32) ** 2)[None, :, None]
    down = (np.linspace(-1, 1, camera.height, dtype=np.float32) ** 2)[:, None, None]
    canvas = canvas * (1 - light.vignette * 0.5 * (across + down))
    blurred = cv2.GaussianBlur(canvas * light.tint, (0, 0), light.blur * camera.width / 640)
    noise = rng.standard_normal((camera.height, camera.width, 1), np.float32) * np.float32(light.noise)
    image = np.clip((blurred + noise) * 255, 0, 255).astype(np.uint8)
    scale = camera.width / 1600
    corner, thickness = (round(24 * scale), round(48 * scale)), max(1, round(2 * scale))
    cv2.putText(image, frame.stamp, corner, cv2.FONT_HERSHEY_SIMPLEX, scale * 1.1, (235, 235, 235), thickness,
                cv2.LINE_AA)
    return image
