"""The empty barn: a camera on the wall, the floor and walls it sees, and the rails of the pen."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .solids import Array, Camera, Solid, Surface, half_axes, paste
from .textures import FLOORS, WALLS, Image, clouds, finish, floor_texture, wall_texture

UP = np.array([0.0, 0.0, 1.0])
ROOM_HEIGHT = {"pig": 2.6, "cow": 4.5}


@dataclass(frozen=True)
class Barn:
    """What one camera sees without animals: `view`, and `front` (premultiplied RGBA), the rails before them.

    `pen` is the (width, depth) in metres of the rectangle around the origin in which the animals live.
    """

    species: str
    name: str
    camera: Camera
    pen: tuple[float, float]
    view: Image
    front: Image


def aim(pen: tuple[float, float], species: str, width: int, height: int, rng: np.random.Generator) -> Camera:
    """A camera that looks at the pen: from a corner, from above, or along the barn."""
    kind = rng.choice(["corner", "above", "low"], p=[0.45, 0.25, 0.30])
    pitch = np.deg2rad(rng.uniform(*{"corner": (33, 50), "above": (58, 82), "low": (19, 30)}[str(kind)]))
    yaw = rng.uniform(-0.65, 0.65)
    ahead = np.array([np.sin(yaw) * np.cos(pitch), np.cos(yaw) * np.cos(pitch), -np.sin(pitch)])
    right = np.array([np.cos(yaw), -np.sin(yaw), 0])
    roll = rng.normal(0, 0.03)
    down = np.cross(ahead, right)
    right, down = right * np.cos(roll) + down * np.sin(roll), down * np.cos(roll) - right * np.sin(roll)
    reach = float(np.hypot(*pen)) * rng.uniform(0.85, 1.15)
    target = np.array([0.06 * pen[0] * rng.normal(), -0.04 * pen[1], 0.3])
    # The pen's diagonal fills a little more than the picture, so that some animals are cut by the border.
    focal = width * rng.uniform(0.82, 1.2) * reach / (np.hypot(*pen) * (0.92 + 0.1 * np.sin(pitch)))
    return Camera(target - ahead * reach, np.stack([right, down, ahead]), float(focal), width, height)


def build_barn(species: str, name: str, width: int, height: int, rng: np.random.Generator) -> Barn:
    """A barn for `species` seen by camera `name`, in an image of `width` x `height` pixels."""
    pen = (float(rng.uniform(3.6, 5.6)), float(rng.uniform(3.0, 5.0)))
    if species == "cow":
        pen = (float(rng.uniform(7.5, 10.5)), float(rng.uniform(6.0, 9.0)))
    camera = aim(pen, species, width, height, rng)
    fine = camera.zoomed(2)  # drawn at twice the size against jagged edges
    canvas = np.full((fine.height, fine.width, 3), rng.integers(18, 40), np.uint8)
    margin = rng.uniform(0.3, 0.9, 2) * (1 if species == "pig" else 2)
    room = (pen[0] + 2 * margin[0], pen[1] + 2 * margin[1])
    _floor(canvas, fine, pen, room, species, rng)
    _walls(canvas, fine, room, ROOM_HEIGHT[species], rng)
    front = np.zeros((fine.height, fine.width, 4), np.uint8)
    _fences(canvas, front, fine, pen, species, rng)
    small = (width, height)
    view = _shrink(canvas, small)
    if rng.random() < 0.7:
        _furnish(view, camera, pen, species, rng)
    return Barn(species, name, camera, pen, view, _shrink(front, small))


def _shrink(image: Image, size: tuple[int, int]) -> Image:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def paint_plane(canvas: Image, camera: Camera, texture: Image, origin: Array, along: Array,
                up: Array) -> None:
    """Lays a texture on the parallelogram origin, origin + along, origin + up of the world; in place."""
    focal = camera.focal
    intrinsics = np.array([[focal, 0, camera.width / 2], [0, focal, camera.height / 2], [0, 0, 1]])
    plane = intrinsics @ camera.rotation @ np.stack([along, up, origin - camera.position], axis=1)
    inverse = np.linalg.inv(plane).astype(np.float32)
    xs, ys = np.arange(camera.width, dtype=np.float32), np.arange(camera.height, dtype=np.float32)[:, None]
    u, v, w = (inverse[i, 0] * xs + inverse[i, 1] * ys + inverse[i, 2] for i in range(3))
    # w is one over the depth: pixels that see the plane behind the camera are left alone.
    w = np.where(w > 1e-6, w, np.float32(np.nan))
    u, v = u / w, v / w
    inside = (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
    u = np.where(inside, u * (texture.shape[1] - 1), 0)
    v = np.where(inside, (1 - v) * (texture.shape[0] - 1), 0)
    seen = cv2.remap(texture, u, v, cv2.INTER_LINEAR)
    np.copyto(canvas, seen, where=inside[..., None])


def _floor(canvas: Image, camera: Camera, pen: tuple[float, float], room: tuple[float, float], species: str,
           rng: np.random.Generator) -> None:
    density = 60 if species == "pig" else 32  # texture pixels a metre
    # The aisle goes on under the camera, far beyond the walls that will stand on it.
    aisle = 0.72 + 0.12 * clouds(round(room[1] * density), round(room[0] * density), rng)
    wide = np.array([3.0 * room[0], 3.0 * room[1], 0.0])
    texture = finish(aisle, FLOORS["concrete"], rng)
    paint_plane(canvas, camera, texture, -wide / 2, wide * [1.0, 0.0, 0.0], wide * [0.0, 1.0, 0.0])
    weights = [0.25, 0.4, 0.25, 0.0, 0.1] if species == "pig" else [0.3, 0.1, 0.3, 0.2, 0.1]
    kind = str(rng.choice(list(FLOORS), p=weights))
    texture = floor_texture(kind, round(pen[0] * density), round(pen[1] * density), density, rng)
    corner = np.array([-pen[0] / 2, -pen[1] / 2, 0])
    paint_plane(canvas, camera, texture, corner, np.array([pen[0], 0, 0]), np.array([0, pen[1], 0]))


def _edges(size: tuple[float, float]) -> list[tuple[Array, Array, Array]]:
    """Start, run and outward normal of the sides of a rectangle around the origin, counter-clockwise."""
    x, y = size[0] / 2, size[1] / 2
    corners = [np.array(c, float) for c in [(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0)]]
    runs = [corners[(i + 1) % 4] - corners[i] for i in range(4)]
    return [(corners[i], runs[i], np.cross(runs[i], UP) / np.linalg.norm(runs[i])) for i in range(4)]


def _faces(start: Array, normal: Array, camera: Camera) -> bool:
    """Whether the camera stands on the inner side, so that what is inside hides the wall."""
    return bool(normal @ (start - camera.position) > 0)


def _walls(canvas: Image, camera: Camera, room: tuple[float, float], height: float,
           rng: np.random.Generator) -> None:
    kind = str(rng.choice(list(WALLS)))
    windows = rng.random() < 0.5
    for start, run, normal in _edges(room):
        wide, high = round(float(np.linalg.norm(run)) * 240 / height), 240
        texture = wall_texture(kind, wide, high, rng)
        if windows:
            for left in range(wide // 8, wide - 60, max(90, wide // 4)):
                texture[40:100, left:left + 58] = rng.integers(190, 240)
                texture[40:100, left + 28:left + 30] = 70
                texture[69:71, left:left + 58] = 70
        if _faces(start, normal, camera):
            paint_plane(canvas, camera, texture, start, run, UP * height)


def _fences(canvas: Image, front: Image, camera: Camera, pen: tuple[float, float], species: str,
            rng: np.random.Generator) -> None:
    """Solid panels or rails around the pen; those between camera and animals are always rails."""
    height = float(rng.uniform(0.75, 1.0) if species == "pig" else rng.uniform(1.1, 1.4))
    panels = rng.random() < (0.7 if species == "pig" else 0.25)
    steel = np.array([150, 156, 160]) * rng.uniform(0.6, 1.25)
    heights = np.linspace(0, height, int(rng.integers(3, 6)))[1:]
    kind = str(rng.choice(list(WALLS)))
    for start, run, normal in _edges(pen):
        far = _faces(start, normal, camera)
        if panels and far:
            texture = wall_texture(kind, round(float(np.linalg.norm(run)) * 90), round(height * 90), rng)
            paint_plane(canvas, camera, texture, start, run, UP * height)
            heights_here = heights[-1:]
        else:
            heights_here = heights
        if far or not panels:
            _rails(canvas if far else front, camera, start, run, heights_here, steel)


def _rails(canvas: Image, camera: Camera, start: Array, run: Array, heights: Array, steel: Array) -> None:
    """Tubes along `run` at the given heights, with posts: a dark line under a light one, thick when near."""
    length = float(np.linalg.norm(run))
    steps = np.linspace(0, 1, 1 + max(2, round(length / 0.7)))[:, None]
    bars = [(start + run * a + UP * z, start + run * b + UP * z)
            for z in heights for a, b in zip(steps[:-1], steps[1:], strict=True)]
    bars += [(start + run * a, start + run * a + UP * heights[-1]) for a in steps[::3]]
    for a, b in bars:
        ends, depth = camera.project(np.stack([a, b]))
        if depth.min() < 0.4 or np.abs(ends).max() > 8000:
            continue
        thick = max(2.0, 0.045 * camera.focal / float(depth.mean()))
        for shade, part, shift in ((0.45, 1.0, 0.0), (1.0, 0.65, -0.1), (1.35, 0.25, -0.2)):
            colour = [*np.clip(steel * shade, 0, 255).tolist(), 255][: canvas.shape[2]]
            (x0, y0), (x1, y1) = np.round(ends + [0, shift * thick]).astype(int).tolist()
            cv2.line(canvas, (x0, y0), (x1, y1), colour, max(1, round(thick * part)))


def _furnish(view: Image, camera: Camera, pen: tuple[float, float], species: str,
             rng: np.random.Generator) -> None:
    """A trough with feed along a far side of the pen, where no animal can come behind it."""
    unit = 1.0 if species == "pig" else 1.7
    sides = [side for side in _edges(pen) if _faces(side[0], side[2], camera)]
    start, run, normal = sides[int(rng.integers(len(sides)))]
    ahead = run / np.linalg.norm(run)
    middle = start + run * rng.uniform(0.3, 0.7) - normal * 0.14 * unit + UP * 0.14 * unit
    length = min(float(np.linalg.norm(run)) * 0.24, float(rng.uniform(0.4, 0.9)) * unit)
    offsets = np.array([[0, 0.0], [0, 0.07], [-0.5, 0.09], [0.5, 0.09]])
    centres = middle + np.outer(offsets[:, 0] * length, ahead) + np.outer(offsets[:, 1] * unit, UP)
    radii = np.array([[length, 0.17 * unit, 0.16 * unit], [length * 0.85, 0.11 * unit, 0.12 * unit],
                      [length * 0.3, 0.09 * unit, 0.13 * unit], [length * 0.35, 0.1 * unit, 0.13 * unit]])
    shells = np.array([(0.5, 0.53, 0.56), (0.75, 0.6, 0.25), (0.25, 0.35, 0.5), (0.62, 0.6, 0.55)])
    shell = shells[rng.integers(4)]
    feed = np.array([0.62, 0.5, 0.28]) * rng.uniform(0.6, 1.1)
    solid = Solid(centres, half_axes(radii, np.tile(ahead, (4, 1))), np.array([shell, feed, feed, feed]))
    canvas = view.astype(np.float32) / 255

    def shade(surface: Surface) -> Array:
        return surface.paint * (0.55 + 0.45 * surface.normals[:, 2:])

    paste(canvas, solid, camera, shade)
    view[:] = np.clip(canvas * 255, 0, 255)
