"""Pictures at training size: no pixel of the original is left out on the way."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from livestock.pictures import fit


@given(size=st.integers(20, 300), imgsz=st.integers(8, 299), column=st.integers(0, 299))
def test_every_pixel_of_the_original_is_seen(size: int, imgsz: int, column: int) -> None:
    """One white column in black, wherever it lies, shows after scaling down by anything."""
    imgsz = max(min(imgsz, size - 1), size // 60)
    picture: np.ndarray = np.zeros((8, size, 3), np.uint8)
    picture[:, column % size] = 255
    assert fit(picture, imgsz).max() > 0


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
