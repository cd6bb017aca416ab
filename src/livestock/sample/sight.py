"""What the camera sees of named points: rays against ellipsoids, in closed form.

The picture is painted from far to near, one animal over the other, and the near rails over all of them. So an animal
hides a point of another one if it is painted later, and a point of its own if the ray meets its skin well before.
Trough, panels and far rails are painted before any animal: no point is behind them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .solids import Array, Camera, Solid, extent, fill_silhouette, outlines

OUTSIDE, HIDDEN, SEEN = 0, 1, 2  # COCO's flags: not labelled, labelled and hidden, labelled and seen
SLACK = 0.03  # metres that a point may lie behind the skin beside its own depth: ellipsoids melt into each other
SLANT = 1.5  # rays that meet the skin at an angle go further in before they reach the point
OPAQUE = 127  # alpha of a rail, of 255
FINE = 2  # areas are counted on pixels of half the size: a filled outline takes the pixels that it touches


def entries(solid: Solid, starts: Array, rays: Array) -> Array:
    """How far along each ray it enters each ellipsoid, (N, P): 0 at `starts` (3,) or (N, 3), 1 at `starts + rays`.

    `rays` are (N, 3) of any length. Ellipsoids that a ray misses or has behind it get infinity; one that it starts in
    gets a share below 0.

    >>> ball = Solid(np.array([[0.0, 0.0, 10.0]]), np.eye(3)[None], np.zeros((1, 3)))
    >>> entries(ball, np.zeros(3), np.array([[0.0, 0.0, 18.0], [0.0, 5.0, 5.0]])).tolist()
    [[0.5], [inf]]
    """
    inverses = np.linalg.inv(solid.axes)
    starts = np.broadcast_to(starts, rays.shape)
    origin = np.einsum("pij,npj->npi", inverses, starts[:, None] - solid.centres)
    along = np.einsum("pij,nj->npi", inverses, rays)
    square, cross = (along * along).sum(2), (origin * along).sum(2)
    root = cross * cross - square * ((origin * origin).sum(2) - 1)
    half = np.sqrt(np.where(root > 0, root, 0))
    return np.where((root > 0) & (half > cross), (-cross - half) / square, np.inf)


def behind_itself(points: Array, depths: Array, solid: Solid, camera: Camera) -> NDArray[np.bool_]:
    """Which points (N, 3) of a body lie behind another part of it, (N,).

    `depths` (N,) metres say how far each lies under the skin; the skin over it does not hide it.

    >>> camera = Camera(np.zeros(3), np.eye(3), focal=100.0, width=200, height=100)  # looks along z
    >>> ball = Solid(np.array([[0.0, 0.0, 10.0]]), np.eye(3)[None], np.zeros((1, 3)))
    >>> behind_itself(np.array([[0, 0, 9.0], [0, 0, 9.5], [0, 0, 11.0]]), np.array([0, 0.5, 0]), ball, camera).tolist()
    [False, False, True]
    """
    rays = points - camera.position
    margin = (SLANT * depths + SLACK) / np.linalg.norm(rays, axis=1)
    return entries(solid, camera.position, rays).min(1) < 1 - margin


def in_silhouette(pixels: Array, solid: Solid, camera: Camera) -> NDArray[np.bool_]:
    """Which pixels (N, 2) lie on the solid, (N,): their ray meets one of its ellipsoids, at whatever depth.

    >>> camera = Camera(np.zeros(3), np.eye(3), focal=100.0, width=200, height=100)
    >>> ball = Solid(np.array([[0.0, 0.0, 10.0]]), np.eye(3)[None], np.zeros((1, 3)))
    >>> in_silhouette(np.array([[100.0, 59.0], [100.0, 61.0]]), ball, camera).tolist()
    [True, False]
    """
    x0, y0, x1, y1 = extent(solid, camera)
    found = (pixels >= [x0, y0]).all(1) & (pixels <= [x1, y1]).all(1)
    if found.any():
        means, spread = outlines(solid, camera)
        offset = pixels[found, None] - means
        found[found] = (np.einsum("npi,pij,npj->np", offset, np.linalg.inv(spread), offset) < 1).any(1)
    return found


def see_points(points: Array, depths: Array, solids: list[Solid], camera: Camera, front: NDArray[np.uint8]) -> Array:
    """Where the points of N animals are in the picture and whether they are seen: (N, K, 3), x, y and a flag.

    `points` (N, K, 3) in metres, `depths` (N, K) under the skin, `solids` of the N animals, and more if there are, from
    far to near as they are painted, `front` (H, W, 4) the near rails. A point outside the picture or behind the camera
    is NaN, NaN, 0; one behind an animal or a rail has flag 1; one that is seen 2.

    >>> camera = Camera(np.zeros(3), np.eye(3), focal=100.0, width=200, height=100)
    >>> ball = Solid(np.array([[0.0, 0.0, 10.0]]), np.eye(3)[None], np.zeros((1, 3)))
    >>> places = np.array([[[0.0, 0.0, 9.0], [0.0, 0.0, 11.0], [30.0, 0.0, 10.0]]])
    >>> see_points(places, np.zeros((1, 3)), [ball], camera, np.zeros((100, 200, 4), np.uint8)).tolist()
    [[[100.0, 50.0, 2.0], [100.0, 50.0, 1.0], [nan, nan, 0.0]]]
    """
    found = np.full(points.shape, np.nan)
    for number in range(len(points)):
        pixels, depth = camera.project(points[number])
        inside = (depth > 0) & (pixels >= 0).all(1) & (pixels < [camera.width, camera.height]).all(1)
        hidden = behind_itself(points[number], depths[number], solids[number], camera)
        for later in solids[number + 1:]:
            hidden |= in_silhouette(pixels, later, camera)
        columns, rows = np.where(inside[:, None], pixels, 0).astype(int).T
        hidden |= front[rows, columns, 3] > OPAQUE
        found[number, :, :2] = np.where(inside[:, None], pixels, np.nan)
        found[number, :, 2] = np.where(inside, np.where(hidden, HIDDEN, SEEN), OUTSIDE)
    return found


def visible_areas(solids: list[Solid], camera: Camera, front: NDArray[np.uint8]) -> Array:
    """How many pixels show each solid, (N,), in quarters; `solids` from far to near, `front` (H, W, 4) the near rails.

    >>> camera = Camera(np.zeros(3), np.eye(3), focal=100.0, width=200, height=100)
    >>> ball = Solid(np.array([[0.0, 0.0, 10.0]]), np.eye(3)[None], np.zeros((1, 3)))
    >>> near = ball.moved(np.eye(3), np.zeros(3), 0.5)
    >>> visible_areas([ball, near], camera, np.zeros((100, 200, 4), np.uint8)).round(-1).tolist()  # one behind
    [0.0, 330.0]
    """
    taken = (front[..., 3] > OPAQUE).repeat(FINE, axis=0).repeat(FINE, axis=1)
    areas = np.zeros(len(solids))
    for number in reversed(range(len(solids))):
        mask = np.zeros(taken.shape, np.uint8)
        fill_silhouette(mask, solids[number], camera)
        own = (mask > OPAQUE) & ~taken
        areas[number] = np.count_nonzero(own) / FINE**2
        taken |= own
    return areas
