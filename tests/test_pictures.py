"""Pictures at training size: no pixel of the original is left out on the way."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from livestock.data.pictures import BILINEAR_DOWN_TO, fit


@settings(deadline=None)
@given(size=st.integers(20, 2000), imgsz=st.integers(8, 1999), line=st.integers(0, 1999), upright=st.booleans())
def test_every_pixel_of_the_original_is_seen(size: int, imgsz: int, line: int, upright: bool) -> None:
    """One white line across a black picture, wherever it lies, shows after scaling down by anything."""
    imgsz = max(min(imgsz, size - 1), size // 60)
    picture: np.ndarray = np.zeros((8, size, 3), np.uint8)
    picture[:, line % size] = 255
    assert fit(picture.transpose(1, 0, 2).copy() if upright else picture, imgsz).max() > 0


@given(size=st.integers(20, 2000), share=st.floats(BILINEAR_DOWN_TO, 1))
def test_bilinear_reads_each_pixel_with_half_of_the_mean_weight_at_least(size: int, share: float) -> None:
    """By definition, not by OpenCV: each pixel of the result lies between two of the original."""
    smaller = round(size * share)
    centre = (np.arange(smaller) + 0.5) * size / smaller - 0.5
    left = np.floor(centre).astype(int)
    weights: np.ndarray = np.zeros(size + 1)
    np.add.at(weights, left.clip(0), 1 - (centre - left))
    np.add.at(weights, left + 1, centre - left)
    assert weights[1 : size - 1].min(initial=9) * size / smaller > 0.5


@given(width=st.integers(20, 300), height=st.integers(20, 300), imgsz=st.integers(8, 400))
def test_the_longer_side_is_as_asked_for(width: int, height: int, imgsz: int) -> None:
    found = fit(np.full((height, width, 3), 7, np.uint8), imgsz)
    assert max(found.shape[:2]) == imgsz
    assert abs(min(found.shape[:2]) - min(width, height) * imgsz / max(width, height)) <= 0.5
    assert (found == 7).all()


def test_half_the_size_is_the_mean_of_four() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    means = picture.reshape(30, 2, 40, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(fit(picture, 40), means, atol=0.5)


def test_what_is_kept_as_it_is_is_not_copied() -> None:
    picture: np.ndarray = np.zeros((6, 8, 3), np.uint8)
    assert fit(picture, 8) is picture


def test_training_sees_what_averaging_over_areas_would_give() -> None:
    """1920 to 1280 px, the original's case, on smooth pictures: no more than grain of a few grey levels apart."""
    noise = np.random.default_rng(0).integers(0, 256, (27, 48, 3), np.uint8)
    picture = cv2.resize(noise, (960, 540), interpolation=cv2.INTER_CUBIC)
    areas = cv2.resize(picture, (640, 360), interpolation=cv2.INTER_AREA)
    difference = np.abs(fit(picture, 640).astype(int) - areas)
    assert difference.max() <= 4
    assert difference.mean() < 0.6  # 3.1 where the nearest pixel is taken
