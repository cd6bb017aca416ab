"""Lengths of drawn scenes: a camera looks at a plane with a card and an object of known length."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestock.evaluation.length import CARD, measure_length
from livestock.exceptions import BadData


def project(points: np.ndarray, tilt: float, turn: float, distance: float = 500.0, focal: float = 1200.0) -> np.ndarray:
    """Pixels `(n, 2)` of points `(n, 2)` in mm on a plane that is tilted and turned under a camera."""
    across, around = cv2.Rodrigues(np.array([np.radians(tilt), 0, 0]))[0], cv2.Rodrigues(np.array([0, 0, turn]))[0]
    seen = np.column_stack([points, np.zeros(len(points))]) @ (across @ around).T + [0, 0, distance]
    return focal * seen[:, :2] / seen[:, 2:] + [960, 540]


def draw_scene(seed: int, tilt: float, turn: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Ends and corners in pixels, and the length in mm, of an object somewhere beside the card."""
    rng = np.random.default_rng(seed)
    start, angle, length = rng.uniform(-80, 80, 2), rng.uniform(0, 2 * np.pi), rng.uniform(20, 150)
    ends = np.array([start, start + length * np.array([np.cos(angle), np.sin(angle)])])
    corners = np.array([[0, 0], [CARD[0], 0], CARD, [0, CARD[1]]]) + rng.uniform(-90, 90, 2)
    return project(ends, tilt, turn), project(corners, tilt, turn), length


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), tilt=st.floats(-35, 35), turn=st.floats(0, 6.28), first=st.integers(0, 3),
       is_backwards=st.booleans())
def test_a_length_is_found_under_any_perspective(seed: int, tilt: float, turn: float, first: int, is_backwards: bool
                                                 ) -> None:
    """Whatever corner is named first, and either way around."""
    ends, corners, length = draw_scene(seed, tilt, turn)
    corners = np.roll(corners, first, axis=0)[:: -1 if is_backwards else 1]
    found = measure_length(ends, corners, ends_sd=0, corners_sd=0)
    assert found == pytest.approx((length,) * 3, rel=1e-4)


def test_a_drawn_picture() -> None:
    """Corners and ends as OpenCV finds them in a picture of a card and a stick of 120 mm, seen from the side."""
    card = project(np.array([[0, 0], [CARD[0], 0], CARD, [0, CARD[1]]]) + [-40, -60], 30, 0.4)
    stick = project(np.array([[-60.0, 20], [60, 20], [60, 26], [-60, 26]]), 30, 0.4)
    picture = np.zeros((1080, 1920), np.uint8)
    for shape, value in ((card, 255), (stick, 120)):
        cv2.fillPoly(picture, [np.round(shape * 16).astype(np.int32)], value, cv2.LINE_AA, shift=4)
    corners = find_corners(picture > 200)
    ends = find_corners((picture > 60) & (picture < 180) & ~cv2.dilate((picture > 200).astype(np.uint8),
                                                                       np.ones((9, 9))).astype(bool))
    lengths = np.hypot(*(np.roll(ends, -1, axis=0) - ends).T)
    middle = [ends[k] / 2 + ends[(k + 1) % 4] / 2 for k in np.argsort(lengths)[:2]]  # of both short sides
    found = measure_length(np.array(middle), corners, ends_sd=0.7, corners_sd=0.7)
    assert found.low < 120 < found.high and found.high - found.low < 6


def find_corners(mask: np.ndarray) -> np.ndarray:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(contours, key=cv2.contourArea)
    for share in np.linspace(0.005, 0.05, 20):
        found = cv2.approxPolyDP(largest, share * cv2.arcLength(largest, True), True)
        if len(found) == 4:
            return found[:, 0].astype(float)
    raise AssertionError("no four corners")


def test_the_interval_holds_the_length_in_95_of_100_pictures() -> None:
    rng, n_inside, n_scenes = np.random.default_rng(0), 0, 300
    for seed in range(n_scenes):
        ends, corners, length = draw_scene(seed, 20, 1.0)
        found = measure_length(ends + rng.normal(0, 2.0, (2, 2)), corners + rng.normal(0, 1.0, (4, 2)), ends_sd=2.0,
                               corners_sd=1.0, seed=seed)
        n_inside += found.low <= length <= found.high
    assert 0.91 < n_inside / n_scenes < 0.985  # 300 draws at .95 have a standard deviation of .013


def test_more_doubt_gives_a_wider_interval() -> None:
    ends, corners, _ = draw_scene(1, 10, 0.2)
    widths = [found.high - found.low for found in (
        measure_length(ends, corners, ends_sd=sd, corners_sd=corner_sd) for sd, corner_sd in
        ((1, 0), (2, 0), (2, 2), (np.array([2, 4]), 2)))]
    assert widths == sorted(widths) and widths[1] == pytest.approx(2 * widths[0], rel=0.05)


def test_beside_the_horizon_a_length_has_no_upper_end() -> None:
    """The long sides of this card meet at (45, 30): what is 1 px below may lie anywhere."""
    corners = np.array([[0.0, 0], [90, 0], [60, 20], [30, 20]])
    found = measure_length(np.array([[45.0, 5], [45, 29]]), corners, ends_sd=2, corners_sd=0)
    assert found.low < found.mm < found.high == np.inf
    assert np.isfinite(measure_length(np.array([[45.0, 5], [45, 15]]), corners, ends_sd=2, corners_sd=0)).all()


@settings(max_examples=40, deadline=None)
@given(x=st.integers(-2000, 2000), y=st.integers(-2000, 2000))
def test_a_length_is_the_same_wherever_the_origin_lies(x: int, y: int) -> None:
    """On the horizon of the card's plane too: its sides meet at (500, 0)."""
    corners = np.array([[420.0, 340], [580, 340], [660, 680], [340, 680]])
    ends, moved = np.array([[450.0, 500], [560, 520]]), np.array([x, y])
    found = [measure_length(ends + shift, corners + shift) for shift in (0, moved)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_an_interval_holds_its_own_length() -> None:
    corners = np.array([[0.0, 0], [856, 0], [856, 539.8], [0, 539.8]])
    found = measure_length(np.array([[5.0, 5], [5, 5]]), corners)
    assert found.low == found.mm == 0 < found.high


@pytest.mark.bad_input
@pytest.mark.parametrize("card", [(-85.6, 53.98), (0, 53.98), (np.nan, 53.98), (np.inf, 53.98)])
def test_a_card_has_two_sides(card: tuple[float, float]) -> None:
    with pytest.raises(BadData, match="expected a card with sides in mm above 0"):
        measure_length(np.zeros((2, 2)), np.array([[0.0, 0], [9, 0], [9, 5], [0, 5]]), card=card)


@pytest.mark.bad_input
@pytest.mark.parametrize(("ends", "corners", "message"), [
    ([[0, 0]], [[0, 0], [9, 0], [9, 5], [0, 5]], "expected two points and four corners"),
    ([[0, 0], [1, np.nan]], [[0, 0], [9, 0], [9, 5], [0, 5]], "expected two points and four corners"),
    ([[0, 0], [1, 1]], [[0, 0], [9, 5], [9, 0], [0, 5]], "expected corners one after the other around the card"),
    ([[0, 0], [1, 1]], [[0, 0], [4, 0], [9, 0], [0, 5]], "expected corners one after the other around the card"),
    ([[0, 0], [45, 900]], [[0, 0], [90, 0], [60, 20], [30, 20]], "found one beyond it")])
def test_what_makes_no_length(ends: list, corners: list, message: str) -> None:
    with pytest.raises(BadData, match=message):
        measure_length(np.array(ends, float), np.array(corners, float))
    with pytest.raises(BadData, match="deviations of 0 px or more"):
        measure_length(np.zeros((2, 2)), np.array([[0.0, 0], [9, 0], [9, 5], [0, 5]]), ends_sd=-1)
