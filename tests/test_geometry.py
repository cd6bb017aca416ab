"""Boxes and points go through one affine map, and mirror images are where a mirrored picture has them."""

from __future__ import annotations

import doctest

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from livestock import geometry
from livestock.config import Keypoint, Skeleton
from livestock.geometry import (
    affine,
    compose,
    flip_boxes,
    flip_keypoints,
    invert,
    map_boxes,
    map_points,
    mirror_affine,
    paired_iou,
    pairwise_iou,
    to_pixel_centres,
)

COORDINATES = st.floats(-1e4, 1e4, width=32)
POINTS = st.integers(0, 6).flatmap(lambda n: arrays(float, (n, 2), elements=COORDINATES))
BOXES = st.integers(0, 6).flatmap(lambda n: arrays(float, (n, 4), elements=COORDINATES)).map(
    lambda corners: np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]),
                                    np.maximum(corners[:, :2], corners[:, 2:])], axis=1))
WIDTHS = st.integers(1, 4000)
SCALES = st.floats(0.1, 10) | st.floats(-10, -0.1)
MAPS = st.tuples(SCALES, SCALES, st.floats(-3, 3), COORDINATES, COORDINATES).map(
    lambda values: compose(affine(values[:2], values[3:]), rotation(values[2])))
SKELETON = Skeleton((Keypoint("pig", "snout", 0, "snout"), Keypoint("pig", "left_ear", 1, "right_ear"),
                     Keypoint("pig", "right_ear", 2, "left_ear"), Keypoint("cow", "nose", 0)))


def rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])


@settings(max_examples=60, deadline=None)
@given(POINTS, MAPS, MAPS)
def test_maps_compose_and_are_undone(points: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    one_by_one = map_points(map_points(points, first), second)
    np.testing.assert_allclose(map_points(points, compose(second, first)), one_by_one, rtol=1e-9, atol=1e-5)
    np.testing.assert_allclose(map_points(map_points(points, first), invert(first)), points, rtol=1e-9, atol=1e-5)


def test_a_map_that_cannot_be_undone_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a map that can be undone"):
        invert(affine(scale=(0, 1)))
    with pytest.raises(ValueError, match="expected a map that can be undone"):
        invert(affine(shift=(np.nan, 1)))


@settings(max_examples=60, deadline=None)
@given(BOXES, WIDTHS)
def test_a_box_that_is_mirrored_twice_is_the_box(boxes: np.ndarray, width: int) -> None:
    once = flip_boxes(boxes, width)
    assert (once[:, 0] <= once[:, 2]).all() and (once[:, 1] <= once[:, 3]).all()
    np.testing.assert_allclose(flip_boxes(once, width), boxes, atol=1e-9)
    np.testing.assert_allclose(once, map_boxes(boxes, mirror_affine(width)), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(arrays(float, (2, 3, 3), elements=COORDINATES), WIDTHS)
def test_keypoints_that_are_mirrored_twice_are_the_keypoints(keypoints: np.ndarray, width: int) -> None:
    before, flips = keypoints.copy(), SKELETON.flip_indexes("pig")
    once = flip_keypoints(keypoints, width, flips)
    np.testing.assert_allclose(flip_keypoints(once, width, flips), before, atol=1e-9)
    np.testing.assert_array_equal(keypoints, before)  # a copy


def test_left_and_right_swap_and_what_is_not_labelled_goes_with_them() -> None:
    nan = np.nan
    keypoints = np.array([[50.0, 10, 2], [40, 20, 1], [nan, nan, 0]])  # snout, left ear, right ear
    found = flip_keypoints(keypoints, 200, SKELETON.flip_indexes("pig"))
    np.testing.assert_array_equal(found, [[150, 10, 2], [nan, nan, 0], [160, 20, 1]])


def test_a_class_without_mirror_images_is_refused() -> None:
    with pytest.raises(ValueError, match="the skeleton has no `flip` for this class"):
        flip_keypoints(np.zeros((1, 2)), 100, SKELETON.flip_indexes("cow"))
    with pytest.raises(ValueError, match="expected 2, one a keypoint, found 3"):
        flip_keypoints(np.zeros((2, 2)), 100, SKELETON.flip_indexes("pig"))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.data())
def test_a_point_stays_on_its_pixel_when_the_picture_is_mirrored(width: int, data: st.DataObject) -> None:
    """The convention: a picture is mirrored by its columns, and the centre of a pixel is half a pixel from its edge."""
    column, row = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, 7))
    picture = np.zeros((8, width), np.uint8)
    picture[row, column] = 255
    mirrored = picture[:, ::-1]
    point = np.array([[column + 0.5, row + 0.5]])
    (x, y), = flip_keypoints(point, width, [0])
    assert mirrored[int(y), int(x)] == 255
    x_min, y_min, x_max, y_max = flip_boxes(np.array([[column, row, column + 1, row + 1]]), width)[0]
    assert (mirrored[y_min:y_max, x_min:x_max] == 255).all() and x_max - x_min == 1
    warped = cv2.warpAffine(picture, to_pixel_centres(mirror_affine(width)), (width, 8))
    np.testing.assert_array_equal(warped, mirrored)


@settings(max_examples=60, deadline=None)
@given(BOXES, MAPS)
def test_a_mapped_box_encloses_its_corners(boxes: np.ndarray, matrix: np.ndarray) -> None:
    found = map_boxes(boxes, matrix)
    for columns in ([0, 1], [2, 1], [2, 3], [0, 3]):
        points = map_points(boxes[:, columns], matrix)
        assert (points >= found[:, :2] - 1e-9).all() and (points <= found[:, 2:] + 1e-9).all()
    assert found.shape == boxes.shape


def test_a_box_turned_by_a_quarter() -> None:
    found = map_boxes(np.array([[10.0, 0, 30, 20]]), rotation(np.pi / 2))
    np.testing.assert_allclose(found, [[-20, 10, 0, 30]], atol=1e-9)


def test_no_boxes_and_no_points() -> None:
    assert map_boxes(np.zeros((0, 4)), affine()).shape == (0, 4)
    assert flip_boxes(np.zeros((0, 4)), 10).shape == (0, 4)
    assert map_points(np.zeros((0, 5, 2)), affine()).shape == (0, 5, 2)
    assert flip_keypoints(np.zeros((0, 3, 2)), 10, [0, 2, 1]).shape == (0, 3, 2)


def test_the_examples_are_right() -> None:
    assert doctest.testmod(geometry).failed == 0


@pytest.mark.parametrize(("dtype", "found"), [("int64", "float64"), ("float32", "float32"), ("float64", "float64")])
def test_overlaps_of_whole_numbers_are_fractions(dtype: str, found: str) -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2]], dtype)
    for iou in (pairwise_iou(boxes[:1], boxes[1:])[0], paired_iou(boxes[:1], boxes[1:])):
        assert iou.dtype == found
        assert iou.tolist() == pytest.approx([1 / 3])
