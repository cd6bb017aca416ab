"""Crops of objects: pixels and points go through the same maps, to a tenth of a pixel, and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_poses import FACE, GREY, draw_blob, find_blob, make_object, read_pose_set

from livestock.exceptions import BadData
from livestock.geometry import affine, compose, invert, map_boxes, map_points, mirror_affine
from livestock.models.base import Crop
from livestock.models.crops import PADDING, cut_out, map_crop
from livestock.training.batches import Order
from livestock.training.crops import (
    HALF_BODY_LEAST,
    CropBatches,
    CropRule,
    _read_picture,
    make_crop,
    make_crop_loader,
    plain_crops,
    read_region,
)
from livestock.training.settings import Place, TrainConfig

CROPS = list(get_args(Crop))
TURNS = {"degrees": 40.0, "scale": 0.4, "translate": 0.1, "fliplr": 0.5}
OFF = 0.1  # px


@settings(max_examples=200, deadline=None)
@given(crop=st.sampled_from(CROPS), x=st.floats(-50, 500), y=st.floats(-50, 500), width=st.floats(1, 900),
       height=st.floats(1, 900), point=st.tuples(st.floats(-100, 1000), st.floats(-100, 1000)),
       side=st.sampled_from([64, 256, 512]))
def test_points_come_back_from_the_input(
    crop: Crop, x: float, y: float, width: float, height: float, point: tuple[float, float], side: int
) -> None:
    matrix = map_crop(np.array([x, y, x + width, y + height]), (640, 480), side, crop)
    there = map_points(np.array([point]), matrix)
    np.testing.assert_allclose(map_points(there, invert(matrix)), [point], atol=1e-9)


def test_each_rule_shows_what_it_says() -> None:
    box, size = np.array([100.0, 40, 200, 80]), (640, 480)
    assert map_boxes(np.array([[0.0, 0, 640, 480]]), map_crop(box, size, 64, "whole")).tolist() == [[0, 0, 64, 64]]
    np.testing.assert_allclose(map_boxes(box[None], map_crop(box, size, 64, "stretch")), [[0, 0, 64, 64]], atol=1e-9)
    found = map_boxes(box[None], map_crop(box, size, 100, "fit"))[0]
    assert found[2] - found[0] == pytest.approx(100 / PADDING) and (found[:2] + found[2:]).tolist() == [100, 100]
    assert (found[2] - found[0]) / (found[3] - found[1]) == pytest.approx(100 / 40)


def test_boxes_without_area_and_unknown_rules_are_refused() -> None:
    for crop in ("stretch", "fit"):
        for box in ([5.0, 5, 5, 9], [5.0, 9, 9, 5], [np.nan, 5, 9, 9]):
            with pytest.raises(ValueError, match="box: expected x_min < x_max and y_min < y_max, found"):
                map_crop(np.array(box), (64, 64), 64, crop)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="crop: expected one of whole, stretch, fit, found 'round'"):
        map_crop(np.zeros(4), (64, 64), 64, "round")  # type: ignore[arg-type]


CASES = [  # size of the picture, box, place of the blob: enlarged, about as large, shrunk, far below half
    ((60, 44), (12.0, 9, 40, 35), (27.3, 20.8)), ((150, 120), (20.0, 20, 120, 100), (64.4, 55.9)),
    ((400, 300), (60.0, 30, 350, 280), (190.2, 170.6)), ((1500, 1100), (201.5, 90, 1299, 1000), (703.7, 600.1)),
    ((1601, 403), (100.0, 30, 1500, 390), (850.4, 200.3)), ((333, 1301), (30.0, 100, 300, 1201), (150.4, 700.3)),
]


def find_radius(box: tuple[float, ...], size: tuple[int, int], crop: Crop, side: int) -> tuple[float, float]:
    """Of a blob in the picture, so that it has some three pixels in the crop and two in the picture at least."""
    matrix = map_crop(np.array(box), size, side, crop)
    return max(3 / matrix[0, 0], 2), max(3 / matrix[1, 1], 2)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize(("size", "box", "place"), CASES)
def test_pixels_lie_where_the_map_takes_their_points(
    crop: Crop, size: tuple[int, int], box: tuple[float, ...], place: tuple[float, float]
) -> None:
    picture, matrix = draw_blob(size, place, find_radius(box, size, crop, 96)), map_crop(np.array(box), size, 96, crop)
    for angle in (0.0, 0.5, -1.0):
        turn = np.array([[np.cos(angle), -np.sin(angle), 48], [np.sin(angle), np.cos(angle), 48]])
        turned = compose(compose(turn, affine(shift=(-48, -48))), matrix)
        expected = map_points(np.array([place]), turned)[0]
        assert np.abs(find_blob(cut_out(picture, turned, 96)) - expected).max() < OFF
    mirrored = cut_out(np.ascontiguousarray(picture[:, ::-1]), compose(matrix, mirror_affine(size[0])), 96)
    assert np.abs(mirrored.astype(int) - cut_out(picture, matrix, 96)).max() <= 3  # the same, but for rounding


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize(("size", "box", "place"), CASES)
def test_random_crops_move_pixels_and_points_alike(
    crop: Crop, size: tuple[int, int], box: tuple[float, ...], place: tuple[float, float], tmp_path: Path
) -> None:
    """Through the region that stays in memory; a half of a pixel anywhere would be seen."""
    side = 96
    picture = draw_blob(size, place, find_radius(box, size, crop, side))
    objects = make_object(tmp_path, picture, np.array(box), np.array([[*place, 2]]), flips=(0,))
    region = read_region(objects, 0, side, crop)
    assert np.abs(find_blob(region.pixels) - map_points(np.array([place]), region.matrix)).max() < OFF
    seen, errors = 0, []
    for seed in range(40):
        planes, rng = np.empty((3, side, side), np.uint8), np.random.default_rng(seed)
        _, points = make_crop(objects, 0, region, CropRule(side, crop, TURNS, (0,), ("",)), rng, planes)
        if (np.abs(points[0, :2] - side / 2) < side / 2 - 16).all():  # not cut off by the edge
            errors.append(find_blob(planes.transpose(1, 2, 0)) - points[0, :2])
            seen += 1
    assert seen > 15
    assert np.abs(errors).max() < OFF


def test_a_picture_is_averaged_on_the_axis_that_shrinks_and_stays_sharp_on_the_other() -> None:
    """Noise: ten columns become one, their mean, while rows keep their places."""
    noise = np.random.default_rng(0).integers(0, 255, 640)
    across = np.tile(noise[None, :, None], (64, 1, 3)).astype(np.uint8)
    down = np.tile(noise[:64, None, None], (1, 640, 3)).astype(np.uint8)
    matrix = map_crop(np.zeros(4), (640, 64), 64, "whole")
    assert np.abs(cut_out(across, matrix, 64)[..., 0] - noise.reshape(64, 10).mean(1)).max() <= 1
    assert (cut_out(down, matrix, 64)[..., 0] == noise[:64, None]).all()


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("box", [(-500.0, 10, -400, 60), (900.0, 10, 990, 60), (10.0, -300, 60, -200),
                                 (10.0, 400, 60, 500), (-50.0, -50, 200, 200), (30.0, 30, 31, 30.5)])
def test_a_box_beyond_the_picture_gives_a_crop_all_the_same(
    crop: Crop, box: tuple[float, ...], tmp_path: Path
) -> None:
    objects = make_object(tmp_path, draw_blob((80, 60), (40, 30), (5, 5)), np.array(box), np.array([[40.0, 30, 2]]))
    image = next(plain_crops(objects, 64, 4, crop)).images
    assert image.shape == (1, 3, 64, 64)
    is_shown = crop == "whole" or (box[0] < 80 and box[1] < 60 and box[2] > 0 and box[3] > 0)
    assert is_shown or np.abs(image.numpy().astype(int) - GREY).max() <= 1


def test_a_grey_file_and_a_picture_that_is_gone(tmp_path: Path) -> None:
    objects = make_object(tmp_path, draw_blob((80, 60), (40, 30), (5, 5)), np.array([0.0, 0, 80, 60]), np.zeros((1, 3)))
    cv2.imwrite(str(tmp_path / "a.png"), np.full((60, 80), 77, np.uint8))
    assert (read_region(objects, 0, 64, "whole").pixels == 77).all()
    (tmp_path / "a.png").unlink()
    found = make_crop_loader(objects, {}, TrainConfig("", "", "", 64, 2, 1, workers=0), "whole", Place("cpu"))
    _read_picture.cache_clear()
    with pytest.raises(ValueError, match=r"a\.png"):
        next(found.epoch(0))


# --- labels

def draw(objects: object, rule: CropRule, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    planes = np.empty((3, rule.side, rule.side), np.uint8)
    region = read_region(objects, 0, rule.side, rule.crop)  # type: ignore[arg-type]
    box, points = make_crop(objects, 0, region, rule, np.random.default_rng(seed), planes)  # type: ignore[arg-type]
    return box, points, planes


def test_mirrored_left_and_right_change_places_and_nothing_is_labelled_that_was_not(tmp_path: Path) -> None:
    points = np.array([[30.0, 10, 2], [20, 20, 1], [0, 0, 0], [50, 40, 2], [0, 0, 0]])
    flips = (0, 2, 1, 4, 3)
    rng = np.random.default_rng(0)
    objects = make_object(tmp_path, rng.integers(0, 255, (64, 64, 3), np.uint8), np.array([0.0, 0, 50, 60]), points,
                          flips)
    plain = draw(objects, CropRule(64, "whole", {}, flips, ("",) * 5), 0)
    mirrored = draw(objects, CropRule(64, "whole", {"fliplr": 1.0}, flips, ("",) * 5), 0)
    np.testing.assert_allclose(plain[1], points, atol=1e-9)
    assert (plain[1][2] == 0).all() and (plain[1][4] == 0).all()
    expected = [[34, 10, 2], [0, 0, 0], [44, 20, 1], [0, 0, 0], [14, 40, 2]]
    np.testing.assert_allclose(mirrored[1], expected, atol=1e-9)
    assert (mirrored[2] == plain[2][:, :, ::-1]).all()
    np.testing.assert_allclose(mirrored[0], [14, 0, 64, 60], atol=1e-9)
    again = make_object(tmp_path, objects_picture(mirrored[2]), np.array([0.0, 0, 64, 64]), mirrored[1], flips)
    _read_picture.cache_clear()
    back = draw(again, CropRule(64, "whole", {"fliplr": 1.0}, flips, ("",) * 5), 0)
    np.testing.assert_allclose(back[1], points, atol=1e-9)
    assert (back[2] == plain[2]).all()


def objects_picture(planes: np.ndarray) -> np.ndarray:
    """What OpenCV writes: rows of pixels, blue first."""
    return np.ascontiguousarray(planes[::-1].transpose(1, 2, 0))


@pytest.mark.parametrize(("hyp", "flips", "parts", "message"), [
    ({"fliplr": 0.5}, None, ("",), "fliplr: expected 0, since the skeleton has no `flip` .*wrong side; found 0.5"),
    ({"fliplr": 1.5}, (0,), ("",), "fliplr: expected a probability from 0 to 1, found 1.5"),
    ({"half_body": -1}, (0,), ("upper",), "half_body: expected a probability"),
    ({"half_body": 0.3}, (0,), ("",), "half_body: expected 0, or a `part`.* found 0.3 and 1 keypoints without one"),
    ({"scale": 1.0}, (0,), ("",), "scale: expected at least 0 and less than 1, found 1.0"),
])
def test_impossible_hyper_parameters_are_refused(
    hyp: dict[str, float], flips: tuple[int, ...] | None, parts: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CropRule(64, "fit", hyp, flips, parts)


def test_points_that_are_cut_off_are_not_labelled(tmp_path: Path) -> None:
    points = np.array([[32.0, 32, 2], [0.5, 0.5, 2], [64, 32, 1], [63.9, 63.9, 2], [70, 32, 2]])
    objects = make_object(tmp_path, draw_blob((80, 64), (32, 32), (3, 3)), np.array([0.0, 0, 64, 64]), points)
    _, found, _ = draw(objects, CropRule(64, "stretch", {}, None, ("",) * 5), 0)
    np.testing.assert_allclose(found, [points[0], points[1], [0, 0, 0], points[3], [0, 0, 0]], atol=1e-9)


def test_half_a_body_is_shown_where_enough_points_are_labelled(tmp_path: Path) -> None:
    parts = ("upper",) * 5 + ("lower",) * 5
    points = np.array([[10.0 + 5 * k, 10 + k, 2] for k in range(5)] + [[10.0 + 5 * k, 80 + k, 2] for k in range(5)])
    rule = CropRule(64, "fit", {"half_body": 1.0}, None, parts)
    own = make_object(tmp_path, draw_blob((100, 100), (50, 50), (5, 5)), np.array([0.0, 0, 100, 100]), points)
    shown = set()
    for seed in range(12):
        _, found, _ = draw(own, rule, seed)
        is_shown = found[:, 2] > 0
        assert is_shown.tolist() in ([True] * 5 + [False] * 5, [False] * 5 + [True] * 5)
        assert (found[~is_shown] == 0).all()
        assert np.ptp(found[is_shown, 0]) > 30  # as large as it can be
        shown.add(bool(is_shown[0]))
    assert shown == {True, False}
    few = points * (np.arange(10) < HALF_BODY_LEAST - 1)[:, None]
    few_objects = make_object(tmp_path, draw_blob((100, 100), (50, 50), (5, 5)), np.array([0.0, 0, 100, 100]), few)
    lame = make_object(tmp_path, draw_blob((100, 100), (50, 50), (5, 5)), np.array([0.0, 0, 100, 100]),
                       np.concatenate([points, points[:1]])[[0, 1, 2, 3, 4, 10, 5, 6]])
    its_rule = CropRule(64, "fit", {"half_body": 1.0}, None, ("upper",) * 6 + ("lower",) * 2)
    assert {int((draw(lame, its_rule, seed)[1][:, 2] > 0).sum()) for seed in range(8)} == {6, 8}  # never two alone
    for seed in range(6):
        assert (draw(few_objects, rule, seed)[1][:, 2] > 0).sum() == HALF_BODY_LEAST - 1


# --- batches

def test_batches_are_a_function_of_seed_epoch_and_number_alone(tmp_path: Path) -> None:
    objects = read_pose_set(tmp_path, n=9, skeleton=FACE, n_valid=2)
    config = TrainConfig("", "", "", imgsz=64, batch=4, epochs=2, workers=0)
    each = {}
    for workers in (0, 2):
        loader = make_crop_loader(objects, TURNS, replace(config, workers=workers), "fit", Place("cpu"))
        each[workers] = [batch for epoch in range(2) for batch in loader.epoch(epoch)]
    assert [len(batch) for batch in each[0]] == [4, 3, 4, 3]
    for one, other in zip(each[0], each[2], strict=True):
        assert torch.equal(one.images, other.images) and one.keypoints is not None and other.keypoints is not None
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(one.keypoints, other.keypoints, strict=True))
        assert all(points.shape == (1, 3, 3) for points in one.keypoints)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(one.boxes, other.boxes, strict=True))
    assert not torch.equal(each[0][0].images, each[0][2].images)
    second = make_crop_loader(objects, TURNS, config, "fit", Place("cpu")).epoch(1)  # as a resumed training begins
    assert torch.equal(next(second).images, each[0][2].images)


@pytest.mark.parametrize("n", [1, 3])
def test_a_batch_that_is_larger_than_the_data_has_all_of_it(n: int, tmp_path: Path) -> None:
    objects = read_pose_set(tmp_path, n=n, n_valid=0)
    config = TrainConfig("", "", "", imgsz=64, batch=16, epochs=1, workers=0)
    batches = list(make_crop_loader(objects, {}, config, "whole", Place("cpu")).epoch(0))
    assert [len(batch) for batch in batches] == [n]


def test_plain_crops_are_the_objects_as_they_are_predicted(tmp_path: Path) -> None:
    objects = read_pose_set(tmp_path, n=5, skeleton=FACE, n_valid=0)
    batches = list(plain_crops(objects, 96, 2, "fit"))
    images, points = torch.cat([batch.images for batch in batches]), torch.cat(
        [own for batch in batches for own in batch.keypoints or []])
    assert [len(batch) for batch in batches] == [2, 2, 1] and images.dtype == torch.uint8
    for index, box in enumerate(objects.boxes):
        picture = cv2.imread(str(tmp_path / f"{index:02d}.png"), cv2.IMREAD_COLOR_RGB)
        matrix = map_crop(box, (64, 64), 96, "fit")
        expected = cut_out(picture, matrix, 96).transpose(2, 0, 1).astype(int)
        assert np.abs(images[index].numpy() - expected).max() <= 2
        np.testing.assert_allclose(points[index, :, :2], map_points(objects.keypoints[index, :, :2], matrix), atol=1e-3)


def test_regions_stay_in_memory_up_to_a_budget(tmp_path: Path) -> None:
    objects = read_pose_set(tmp_path, n=6, n_valid=0)
    rule = CropRule(64, "fit", {}, None, ("",))
    batches = CropBatches(objects, Order(6, 2, 0), rule, n_bytes=40_000)
    for number in range(3):
        batches[0, number]
    held = sum(region.pixels.nbytes for region in batches.decoded.samples.values())
    assert held == batches.decoded.held <= 40_000 and 1 <= len(batches.decoded.samples) < 6
    assert all(region.pixels.base is None for region in batches.decoded.samples.values())  # no view of a whole picture


@pytest.mark.bad_input
@pytest.mark.parametrize(("crop", "hyp", "words"), [
    ("fit", {"mosaic": 0.5}, "mosaic: expected 0, since it is there for boxes and not for keypoints; found 0.5"),
    ("whole", {"half_body": 0.3}, "half_body: expected 0 where whole pictures are seen"),
])
def test_what_keypoints_have_no_use_for_is_refused(crop: str, hyp: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CropRule(64, crop, hyp, None, ("upper",))  # type: ignore[arg-type]


@pytest.mark.bad_input
def test_a_whole_picture_of_several_objects_is_refused(tmp_path: Path) -> None:
    objects = read_pose_set(tmp_path, n=4, n_valid=0)
    config = TrainConfig("data.yaml", "", "hyp.yaml", imgsz=64, batch=2, epochs=1, workers=0)
    twice = replace(objects, images=objects.images.assign(image_id="a.png"))
    with pytest.raises(BadData, match=r"^a.png: expected one object in a picture that is seen whole, found 4; take"):
        make_crop_loader(twice, {}, config, "whole", Place("cpu"))
    make_crop_loader(twice, {}, config, "fit", Place("cpu")).close()
