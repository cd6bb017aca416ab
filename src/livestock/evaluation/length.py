"""The length of an object from two points, beside a card of known size in the same plane.

Four corners of the card say how the plane lies to the camera: a homography takes the picture to millimetres (Hartley
and Zisserman, Multiple View Geometry, 2nd edition, section 4.1). What lies above the plane, nearer to the camera, comes
out too long, by its height over the camera's distance; the interval knows nothing of that, nor of a lens that bends.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..exceptions import BadData

CARD = (85.6, 53.98)  # mm: of bank cards, ISO/IEC 7810 ID-1
N_DRAWS = 4000


class Length(NamedTuple):
    """A length in millimetres and its 95 % interval."""

    mm: float
    low: float
    high: float


def measure_length(
    ends: np.ndarray, corners: np.ndarray, *, ends_sd: float | np.ndarray = 1.0, corners_sd: float | np.ndarray = 1.0,
    card: tuple[float, float] = CARD, seed: int = 0,
) -> Length:
    """The distance of two points `(2, 2)`, x and y in pixels, in the plane of a card whose `corners` `(4, 2)` are seen.

    The corners go around the card, from any of them and either way; of both pairs of sides the longer one in the
    picture is taken for the longer one of the `card`, whose sides are in millimetres. `ends_sd` and `corners_sd` are
    standard deviations in pixels of each coordinate, one number or one a point, `(2,)` and `(4,)`: the interval holds
    95 % of the lengths of points drawn with them, and has no end where more of these lie beyond the horizon than it
    leaves out. Raises BadData for corners that do not go around a card, for points beyond the horizon of its plane, and
    for deviations that are negative.

    >>> corners = np.array([[0.0, 0], [856, 0], [856, 539.8], [0, 539.8]])
    >>> measure_length(np.array([[0.0, 0], [300, 400]]), corners, ends_sd=0, corners_sd=0)
    Length(mm=50.0, low=50.0, high=50.0)
    """
    ends, corners = np.asarray(ends, float), np.asarray(corners, float)
    _check(ends, corners)
    deviations = np.concatenate([np.broadcast_to(ends_sd, 2), np.broadcast_to(corners_sd, 4)])
    if not ((deviations >= 0) & np.isfinite(deviations)).all():
        raise BadData(f"length: expected standard deviations of 0 px or more, found {deviations.tolist()}")
    if not (np.isfinite(card).all() and min(card) > 0):
        raise BadData(f"length: expected a card with sides in mm above 0, found {card}")
    places = np.concatenate([ends, corners])
    noise = np.random.default_rng(seed).normal(size=(N_DRAWS, 6, 2)) * deviations[:, None]
    lengths = _find_lengths(np.concatenate([places[None], places + noise]), card)
    if not np.isfinite(lengths[0]):
        raise BadData("length: expected both points on the same side of the horizon as the card, found one beyond it")
    drawn = np.where(np.isnan(lengths[1:]), np.inf, lengths[1:])  # beyond the horizon there is no longest one
    low, high = np.quantile(drawn, (0.025, 0.975), method="nearest")
    mm = lengths[0]  # of points nearer than their noise all draws are longer
    return Length(*(round(float(value), 6) for value in (mm, min(low, mm), max(high, mm))))


def _check(ends: np.ndarray, corners: np.ndarray) -> None:
    """Raises BadData for shapes, numbers and corners that make no card."""
    if ends.shape != (2, 2) or corners.shape != (4, 2) or not np.isfinite(np.concatenate([ends, corners])).all():
        raise BadData(f"length: expected two points and four corners, x and y of each, found {ends.tolist()} and "
                      f"{corners.tolist()}")
    sides = np.roll(corners, -1, axis=0) - corners
    after = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * after[:, 1] - sides[:, 1] * after[:, 0]
    if not ((turns > 0).all() or (turns < 0).all()):
        raise BadData("length: expected corners one after the other around the card, found some that cross or lie on a "
                      f"line: {corners.tolist()}")


def _find_lengths(places: np.ndarray, card: tuple[float, float]) -> np.ndarray:
    """Lengths `(n,)` of points and corners `(n, 6, 2)`; NaN where a point lies beyond the horizon."""
    middle, spread = places[0, 2:].mean(axis=0), np.ptp(places[0, 2:])
    places = (places - middle) / spread  # the last entry of the map is 1: the origin must not lie on the horizon
    ends, corners = places[:, :2], places[:, 2:]
    width, height = sorted(card, reverse=True)
    sides = np.hypot(*np.moveaxis(np.roll(corners[0], -1, axis=0) - corners[0], -1, 0))
    if sides[0] + sides[2] < sides[1] + sides[3]:
        width, height = height, width
    plane = np.array([[0, 0], [width, 0], [width, height], [0, height]])
    matrix = _find_homography(corners, plane)
    mapped = np.einsum("nij,nkj->nki", matrix, np.concatenate([places, np.ones((*places.shape[:2], 1))], axis=2))
    depth = mapped[..., 2]
    on_side = np.sign(depth) == np.sign(depth[:, 2:3])  # as the card's first corner
    found = mapped[:, :2, :2] / np.where(on_side, depth, np.nan)[:, :2, None]
    return np.hypot(*np.moveaxis(found[:, 1] - found[:, 0], -1, 0)) if len(ends) else np.zeros(0)


def _find_homography(corners: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Maps `(n, 3, 3)` that take four corners `(n, 4, 2)` to those of a plane `(4, 2)`, the last entry 1."""
    x, y = corners[..., 0], corners[..., 1]
    u, v = np.broadcast_to(plane[:, 0], x.shape), np.broadcast_to(plane[:, 1], x.shape)
    one, none = np.ones_like(x), np.zeros_like(x)
    rows = np.concatenate([np.stack([x, y, one, none, none, none, -u * x, -u * y], -1),
                           np.stack([none, none, none, x, y, one, -v * x, -v * y], -1)], axis=1)
    solved = np.linalg.solve(rows, np.concatenate([u, v], axis=1)[..., None])[..., 0]
    return np.concatenate([solved, np.ones((len(solved), 1))], axis=1).reshape(-1, 3, 3)
