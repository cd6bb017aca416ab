"""A very small renderer: smooth bodies made of ellipsoids, seen through a pinhole camera.

Everything that stands in a barn (pigs, cows, troughs) is a `Solid`, a few dozen ellipsoids whose surfaces are
blended where they meet. The silhouette of an ellipsoid under perspective is an ellipse in closed form
(Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 8.6: C* = P Q* P^T), so boxes are exact and
need no pixels. World: metres, x right, y away, z up. Camera frame: x right, y down, z forward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
BLEND = np.float32(0.07)  # depth in metres over which two ellipsoids melt into each other
FAR = np.float32(1e3)  # deeper than any barn, metres
CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 24, endpoint=False)),
                   np.sin(np.linspace(0, 2 * np.pi, 24, endpoint=False))])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: `position` (3,) in metres, `rotation` (3, 3) world to camera, `focal` in pixels."""

    position: Array
    rotation: Array
    focal: float
    width: int
    height: int

    def project(self, points: Array) -> tuple[Array, Array]:
        """Pixels (N, 2) and depths (N,) in metres of world points (N, 3); depth <= 0 is behind the camera."""
        seen = (points - self.position) @ self.rotation.T
        depth = np.where(np.abs(seen[:, 2]) < 1e-6, 1e-6, seen[:, 2])
        return seen[:, :2] / depth[:, None] * self.focal + [self.width / 2, self.height / 2], seen[:, 2]

    def zoomed(self, factor: float) -> Camera:
        """The same view with `factor` times the pixels a side."""
        return replace(self, focal=self.focal * factor, width=round(self.width * factor),
                       height=round(self.height * factor))


@dataclass(frozen=True)
class Solid:
    """P ellipsoids: `centres` (P, 3), `axes` (P, 3, 3), the half axes as columns, `colours` (P, 3) in 0..1.

    A negative colour means the coat.
    """

    centres: Array
    axes: Array
    colours: Array

    def moved(self, rotation: Array, offset: Array, size: float = 1.0) -> Solid:
        """Scaled by `size`, turned by `rotation` (3, 3), then shifted by `offset` (3,)."""
        return Solid(self.centres @ rotation.T * size + offset, rotation @ self.axes * size, self.colours)

    def lowest(self) -> float:
        """The z of the lowest point."""
        return float((self.centres[:, 2] - np.linalg.norm(self.axes[:, 2], axis=1)).min())


def half_axes(radii: Array, directions: Array) -> Array:
    """Axes (P, 3, 3) of ellipsoids with `radii` (P, 3): the first points along `directions` (P, 3), the
    third, as far as that allows, up.

    >>> half_axes(np.array([[3.0, 2.0, 1.0]]), np.array([[1.0, 0.0, 0.0]]))[0].tolist()
    [[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]]
    """
    forward = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    steep = np.abs(forward[:, 2:]) > 0.95
    side = np.cross(np.where(steep, [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]), forward)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return np.stack([forward, side, np.cross(forward, side)], axis=2) * radii[:, None, :]


def outlines(solid: Solid, camera: Camera) -> tuple[Array, Array]:
    """Centres (P, 2) and covariances (P, 2, 2), in pixels, of the ellipses that the ellipsoids project to.

    Parts that reach behind the camera get NaN.

    >>> camera = Camera(np.zeros(3), np.eye(3), focal=100.0, width=200, height=100)
    >>> ball = Solid(np.array([[0.0, 0.0, 10.0]]), np.eye(3)[None], np.zeros((1, 3)))
    >>> outlines(ball, camera)[0].tolist()  # in front of the camera: at the centre of the image
    [[100.0, 50.0]]
    """
    centres = (solid.centres - camera.position) @ camera.rotation.T
    axes = camera.rotation @ solid.axes
    dual = axes @ axes.transpose(0, 2, 1) - centres[:, :, None] * centres[:, None, :]
    behind = (dual[:, 2, 2] >= -1e-4) | (centres[:, 2] <= 0)
    dual = dual / np.where(behind, np.nan, dual[:, 2, 2])[:, None, None]
    means = dual[:, :2, 2]
    spread = means[:, :, None] * means[:, None, :] - dual[:, :2, :2]
    return means * camera.focal + [camera.width / 2, camera.height / 2], spread * camera.focal**2


def extent(solid: Solid, camera: Camera) -> Array:
    """The box (4,) around the silhouette, xyxy pixels, not clipped; NaN if it reaches the camera.

    >>> camera = Camera(np.zeros(3), np.eye(3), focal=100.0, width=200, height=100)  # looks along z
    >>> ball = Solid(np.array([[0.0, 0.0, 10.0]]), np.eye(3)[None], np.zeros((1, 3)))
    >>> extent(ball, camera).round(1).tolist()  # radius 1 at distance 10: a little over 10 px
    [89.9, 39.9, 110.1, 60.1]
    """
    means, spread = outlines(solid, camera)
    half = np.sqrt(np.maximum(np.diagonal(spread, axis1=1, axis2=2), 0))
    return np.concatenate([(means - half).min(0), (means + half).max(0)])


def fill_silhouette(mask: NDArray[np.uint8], solid: Solid, camera: Camera) -> None:
    """Sets the silhouette in `mask` (H, W) to 255, in place; it may be smaller than the image.

    >>> camera = Camera(np.zeros(3), np.eye(3), focal=100.0, width=200, height=100)
    >>> ball = Solid(np.array([[0.0, 0.0, 10.0]]), np.eye(3)[None], np.zeros((1, 3)))
    >>> mask = np.zeros((100, 200), np.uint8)
    >>> fill_silhouette(mask, ball, camera)
    >>> mask[50, [50, 100, 150]].tolist()
    [0, 255, 0]
    """
    means, spread = outlines(solid, camera)
    # A Cholesky factor in closed form, safe for the flat ellipses of shadows.
    a = np.sqrt(np.maximum(spread[:, 0, 0], 1e-6))
    b = spread[:, 0, 1] / a
    c = np.sqrt(np.maximum(spread[:, 1, 1] - b**2, 1e-6))
    xs = means[:, :1] + a[:, None] * CIRCLE[0]
    ys = means[:, 1:] + b[:, None] * CIRCLE[0] + c[:, None] * CIRCLE[1]
    rings = np.stack([xs * mask.shape[1] / camera.width, ys * mask.shape[0] / camera.height], axis=2)
    for ring in rings[np.isfinite(rings).all((1, 2))]:
        cv2.fillConvexPoly(mask, np.clip(ring * 16, -1e6, 1e6).astype(np.int32), (255,), cv2.LINE_AA, 4)


def shadow_of(solid: Solid, light: Array) -> Solid:
    """The solid flattened onto the floor along `light` (3,), the direction towards the lamp.

    >>> ball = Solid(np.array([[0.0, 0.0, 2.0]]), np.eye(3)[None], np.zeros((1, 3)))
    >>> shadow_of(ball, np.array([1.0, 0.0, 1.0])).centres.tolist()  # light at 45 degrees from +x
    [[-2.0, 0.0, 0.0]]
    """
    onto_floor = np.eye(3) - np.outer(light, [0, 0, 1]) / light[2]
    return Solid(solid.centres @ onto_floor.T, onto_floor @ solid.axes, solid.colours)


@dataclass(frozen=True)
class Surface:
    """What the camera sees of a solid in a window: `inside` (h, w) bool, and for its n True pixels in order
    `points`, `normals` and `paint` (n, 3); paint is the colour of the part, negative where the coat shows."""

    inside: NDArray[np.bool_]
    points: Array
    normals: Array
    paint: Array


def trace(solid: Solid, camera: Camera, window: tuple[int, int, int, int]) -> Surface:
    """Casts a ray through each pixel of `window` (xyxy) and blends the depths of the ellipsoids it meets."""
    x0, y0, x1, y1 = window
    xs = ((np.arange(x0, x1) + 0.5 - camera.width / 2) / camera.focal).astype(np.float32)
    ys = ((np.arange(y0, y1) + 0.5 - camera.height / 2) / camera.focal).astype(np.float32)
    depth = np.full((len(ys), len(xs)), FAR, np.float32)
    part = np.zeros(depth.shape, np.int16)
    means, spread = outlines(solid, camera)
    half = np.sqrt(np.maximum(np.diagonal(spread, axis1=1, axis2=2), 0)) + 1
    low = np.floor(np.nan_to_num(means - half) - [x0, y0]).astype(int).clip(0, [len(xs), len(ys)])
    high = np.ceil(np.nan_to_num(means + half) - [x0, y0]).astype(int).clip(0, [len(xs), len(ys)])
    centres = (solid.centres - camera.position) @ camera.rotation.T
    inverses = np.linalg.inv(camera.rotation @ solid.axes)
    for number, ((u0, v0), (u1, v1)) in enumerate(zip(low, high, strict=True)):
        if u0 >= u1 or v0 >= v1:
            continue
        old = depth[v0:v1, u0:u1]
        new = _depth(xs[u0:u1], ys[v0:v1, None], centres[number], inverses[number])
        np.copyto(part[v0:v1, u0:u1], number, where=new < old)
        # The smooth minimum of two depths: min(a, b) - max(k - |a - b|, 0)^2 / 4k.
        melt = np.maximum(BLEND - np.abs(old - new), 0)
        old[:] = np.minimum(old, new) - melt * melt * (0.25 / BLEND)
    return _surface(camera, depth, solid.colours.astype(np.float32), part, xs, ys)


def _depth(xs: Array, ys: Array, centre: Array, inverse: Array) -> Array:
    """Depth (h, w) at which rays (xs, ys, 1) enter an ellipsoid of the camera frame; 2 FAR for a miss."""
    origin = -inverse @ centre
    a = (inverse.T @ inverse).astype(np.float32)
    b = (inverse.T @ origin).astype(np.float32)
    square = (a[0, 0] * xs * xs + 2 * a[0, 2] * xs + a[2, 2]) + ((a[1, 1] * ys + 2 * a[1, 2]) * ys)
    square += (2 * a[0, 1] * ys) * xs
    cross = (b[0] * xs + b[2]) + b[1] * ys
    root = cross * cross - square * np.float32(origin @ origin - 1)
    hit = root > 0
    depth = (-cross - np.sqrt(np.where(hit, root, 0))) / square
    return np.where(hit, depth, 2 * FAR)


def _surface(camera: Camera, depth: Array, colours: Array, part: NDArray[np.int16], xs: Array,
             ys: Array) -> Surface:
    """Points and normals from the blended depth: n ~ P_x x P_y for P = t (x, y, 1)."""
    inside = depth < FAR
    if not inside.any():
        none = np.zeros((0, 3), np.float32)
        return Surface(inside, none, none, none)
    depth = np.where(inside, depth, depth[inside].max())
    slope_x = (cv2.Sobel(depth, cv2.CV_32F, 1, 0, ksize=3) * (camera.focal / 8))[inside]
    slope_y = (cv2.Sobel(depth, cv2.CV_32F, 0, 1, ksize=3) * (camera.focal / 8))[inside]
    rows, columns = np.nonzero(inside)
    x, y, t = xs[columns], ys[rows], depth[inside]
    normals = np.stack([slope_x, slope_y, -(t + x * slope_x + y * slope_y)], axis=1)
    normals /= np.sqrt(np.einsum("ij,ij->i", normals, normals))[:, None]
    points = np.stack([x * t, y * t, t], axis=1)
    turn = camera.rotation.astype(np.float32)
    points = points @ turn + camera.position.astype(np.float32)
    return Surface(inside, points, normals @ turn, colours[part[inside]])


def paste(canvas: Array, solid: Solid, camera: Camera, shade: Callable[[Surface], Array]) -> None:
    """Draws the solid on `canvas` (H, W, 3) float32 in place; `shade` gives the colours (n, 3) of a surface.

    Small solids are traced at twice the resolution; the pixels of large ones are left to the lens blur.
    """
    limits = [canvas.shape[1], canvas.shape[0]] * 2
    box = extent(solid, camera)
    if np.isnan(box).any():
        return
    x0, y0, x1, y1 = (int(v) for v in np.clip(np.round(box + [-2, -2, 2, 2]), 0, limits))
    if x0 >= x1 or y0 >= y1:
        return
    fine = 2 if (x1 - x0) * (y1 - y0) < 9_000 else 1
    surface = trace(solid, camera.zoomed(fine), (x0 * fine, y0 * fine, x1 * fine, y1 * fine))
    layer: np.ndarray = np.zeros((*surface.inside.shape, 4), np.float32)
    layer[surface.inside, :3] = shade(surface)
    layer[surface.inside, 3] = 1
    layer = cv2.resize(layer, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    under = canvas[y0:y1, x0:x1]
    under *= 1 - layer[..., 3:]
    under += np.asarray(layer[..., :3], np.float32)
