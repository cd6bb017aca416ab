"""Which points are seen: against rays that are marched in small steps, against the renderer, and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from posed_animals import posed

from livestock.sample import plan_sample
from livestock.sample.animals import pose
from livestock.sample.joints import POINTS, facing_points
from livestock.sample.keypoints import frame_keypoints, livestock_skeleton
from livestock.sample.scenes import Frame, label_frame
from livestock.sample.sight import (
    HIDDEN,
    OUTSIDE,
    SEEN,
    SLACK,
    SLANT,
    behind_itself,
    entries,
    in_silhouette,
    see_points,
    visible_areas,
)
from livestock.sample.solids import Camera, Solid, Surface, paste

STEP = 0.004  # metres between two samples of a marched ray


def looking_from(x: float, y: float, z: float, width: int = 640, height: int = 360) -> Camera:
    """A camera there that looks at (0, 0, .5)."""
    position = np.array([x, y, z], float)
    ahead = np.array([0, 0, 0.5]) - position
    ahead /= np.linalg.norm(ahead)
    right = np.cross(ahead, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    return Camera(position, np.stack([right, np.cross(ahead, right), ahead]), 1.3 * width, width, height)


def nothing_before(camera: Camera) -> np.ndarray:
    return np.zeros((camera.height, camera.width, 4), np.uint8)


def flags(solids: list[Solid], points: np.ndarray, depths: np.ndarray, camera: Camera) -> np.ndarray:
    return see_points(points, depths, solids, camera, nothing_before(camera))[..., 2]


def seen_of(species: str, behaviour: str, camera: Camera) -> dict[str, int]:
    """The flag of each point of an animal that is alone."""
    solid, joints = pose(replace(posed(species, behaviour), lop_ears=False))  # which hang over the eyes
    points, depths = facing_points(joints, camera)
    found = flags([solid], points[None], depths[None], camera)[0]
    return dict(zip(POINTS, found.astype(int).tolist(), strict=True))


def frames(count: int, seed: int) -> list[Frame]:
    """Frames of both species with three to eight animals, from different clips."""
    shots = plan_sample(seed=seed, n_train=96, n_test=2, scale=0.2)
    several = [shot for shot in shots if shot.number == 0 and 3 <= len(shot.frame.animals) <= 8]
    both = [[shot.frame for shot in several if shot.species == species] for species in ("pig", "cow")]
    found = [frame for pair in zip(*both, strict=False) for frame in pair][:count]
    assert len(found) == count
    return found


def march(points: np.ndarray, ends: np.ndarray, solid: Solid, camera: Camera, swell: float) -> np.ndarray:
    """Whether the rays to `points` (N, 3), up to `ends` (N,) metres, are anywhere inside the solid, made `swell` thick.

    Slow, and without any root: samples along the ray, each tried against every ellipsoid. Only the stretch within the
    ball around the solid is sampled.
    """
    inverses = np.linalg.inv(solid.axes * swell)
    middle = solid.centres.mean(0)
    reach = (np.linalg.norm(solid.centres - middle, axis=1) + np.linalg.norm(solid.axes, axis=1).max(1)).max() * swell
    far = float(np.linalg.norm(middle - camera.position))
    hit = np.zeros(len(points), bool)
    for number, (point, end) in enumerate(zip(points, ends, strict=True)):
        ray = (point - camera.position) / np.linalg.norm(point - camera.position)
        steps = np.append(np.arange(max(0, far - reach), min(end, far + reach), STEP), min(end, far + reach))
        samples = camera.position + steps[:, None] * ray
        inside = np.einsum("pij,npj->npi", inverses, samples[:, None] - solid.centres)
        hit[number] = ((inside**2).sum(2) < 1).any()
    return hit


def test_hidden_points_are_those_whose_marched_ray_meets_a_body_first() -> None:
    """Bodies 2 % thinner and thicker bound what a step can miss; in between either answer is right."""
    n_hidden, n_by_others, n_open, n_points = 0, 0, 0, 0
    for frame in frames(6, seed=1):
        camera = frame.barn.camera
        animals, solids, _ = label_frame(frame)
        for number, animal in enumerate(animals):
            points, depths = facing_points(pose(animal)[1], camera)
            ends = np.linalg.norm(points - camera.position, axis=1) - SLANT * depths - SLACK
            sure, possible = (march(points, ends, solids[number], camera, swell) for swell in (0.98, 1.02))
            by_others = np.zeros(len(points), bool)
            for later in solids[number + 1:]:
                sure |= (thin := march(points, np.full(len(points), np.inf), later, camera, 0.98))
                possible |= march(points, np.full(len(points), np.inf), later, camera, 1.02)
                by_others |= thin
            found = flags(solids[number:], points[None], depths[None], camera)[0]
            inside = found != OUTSIDE
            assert (found[sure & inside] == HIDDEN).all()
            assert (found[~possible & inside] == SEEN).all()
            n_points += int(inside.sum())
            n_hidden += int((sure & inside).sum())
            n_by_others += int((by_others & inside).sum())
            n_open += int((sure != possible).sum())
    assert n_points > 400
    assert n_hidden > 0.2 * n_points
    assert n_by_others > 5
    assert n_open < 0.06 * n_points


def test_points_behind_other_animals_are_those_that_the_renderer_paints_over() -> None:
    """Animals painted in white over the one in question: its points on white are hidden, the others are not."""
    agree, hidden = [], 0
    for frame in frames(8, seed=2):
        camera = frame.barn.camera.zoomed(2)
        animals, solids, _ = label_frame(frame)
        for number, animal in enumerate(animals[:-1]):
            canvas = np.zeros((camera.height, camera.width, 3), np.float32)
            for later in solids[number + 1:]:
                paste(canvas, later, camera, lambda surface: np.ones_like(surface.points))
            points, depths = facing_points(pose(animal)[1], camera)
            found = flags(solids[number:], points[None], np.full((1, 18), 99.0), camera)[0]  # never behind itself
            pixels, _ = camera.project(points)
            inside = found != OUTSIDE
            columns, rows = pixels[inside].astype(int).T
            agree += ((canvas[rows, columns, 0] > 0.5) == (found[inside] == HIDDEN)).tolist()
            hidden += int((found == HIDDEN).sum())
    assert hidden > 20
    assert np.mean(agree) > 0.995  # a pixel at an edge has both


def test_what_hides_a_point_of_its_own_animal_is_the_first_surface_of_the_renderer() -> None:
    """The renderer's depth at a point's pixel, and the rule applied to it."""
    agree = []
    for species in ("pig", "cow"):
        for behaviour in ("standing", "lying", "sitting", "eating"):
            for x, y in ((0, 7), (5, -5), (-6, 3)):
                camera = looking_from(x, y, 4, 1280, 720)
                solid, joints = pose(posed(species, behaviour, head_yaw=0.2))
                points, depths = facing_points(joints, camera)
                nearest = np.full((camera.height, camera.width, 3), 1e3, np.float32)

                def distance(surface: Surface, camera: Camera = camera) -> np.ndarray:
                    away = np.linalg.norm(surface.points - camera.position.astype(np.float32), axis=1)
                    return np.repeat(away[:, None], 3, axis=1)

                paste(nearest, solid, camera, distance)
                columns, rows = camera.project(points)[0].astype(int).T
                gap = np.linalg.norm(points - camera.position, axis=1) - nearest[rows, columns, 0]
                sharp = np.abs(gap - SLANT * depths - SLACK) > 0.03  # melted surfaces lie up to some 2 cm further out
                hidden = behind_itself(points, depths, solid, camera)
                agree += (hidden == (gap > SLANT * depths + SLACK))[sharp].tolist()
    assert len(agree) > 300
    assert np.mean(agree) > 0.98


@pytest.mark.parametrize("species", ["pig", "cow"])
def test_from_its_left_a_standing_animal_shows_its_left_side_and_its_back(species: str) -> None:
    found = seen_of(species, "standing", looking_from(0, 9, 3))
    near = {"mouth", "eye", "ear", "neck", "body1", "body2", "body3", "F", "fl1", "fl2", "B", "bl1", "bl2"}
    assert {name for name in near if found[name] != SEEN} == set()
    assert {found["fr1"], found["br1"]} == {HIDDEN}  # behind the near leg or the belly


@pytest.mark.parametrize("species", ["pig", "cow"])
def test_from_behind_the_head_is_hidden_and_from_above_the_feet(species: str) -> None:
    behind = seen_of(species, "standing", looking_from(-9, 0.3, 1))
    assert behind["mouth"] == HIDDEN
    assert {behind["body4"], behind["bl2"], behind["br2"]} == {SEEN}
    above = seen_of(species, "standing", looking_from(0, 0.5, 9))
    assert {above[name] for name in ("fl1", "fr1", "bl1", "br1", "fl2", "fr2")} == {HIDDEN}
    assert {above[name] for name in ("body1", "body2", "body3", "neck")} == {SEEN}


def test_a_pig_on_its_side_shows_its_back_or_its_belly() -> None:
    """Rolled with its left side up, its belly lies to its left."""
    belly, back = (seen_of("pig", "lying", looking_from(0, y, 3)) for y in (9, -9))
    assert {back[name] for name in ("body1", "body2", "body3")} == {SEEN}
    assert {belly[name] for name in ("body1", "body2", "body3")} == {HIDDEN}
    assert {belly[name] for name in ("fl2", "fr2", "bl2", "br2")} == {SEEN}


def test_a_mirrored_scene_is_seen_alike() -> None:
    left, right = looking_from(3, 8, 4), looking_from(3, -8, 4)
    animal = posed("cow", "lying", heading=0.7, head_yaw=0.3, gait=1.0)
    mirrored = replace(animal, heading=-0.7, head_yaw=-0.3, side=-1.0, gait=1.0 + np.pi)
    found = []
    for each, camera in ((animal, left), (mirrored, right)):
        solid, joints = pose(each)
        points, depths = facing_points(joints, camera)
        found.append(see_points(points[None], depths[None], [solid], camera, nothing_before(camera))[0])
    swap = livestock_skeleton().flip_indexes("cow")
    assert np.allclose(found[1][:, 0], 640 - found[0][swap, 0])
    assert np.allclose(found[1][:, 1:], found[0][swap, 1:])


def ball(x: float, y: float, z: float, radius: float = 1.0) -> Solid:
    return Solid(np.array([[x, y, z]], float), radius * np.eye(3)[None], np.zeros((1, 3)))


CAMERA = Camera(np.zeros(3), np.eye(3), focal=100.0, width=200, height=100)  # looks along z


def test_a_point_outside_the_picture_or_behind_the_camera_is_not_labelled() -> None:
    points = np.array([[[0, 0, 9], [-10.1, 0, 10], [0, 5.1, 10], [9.9, 4.9, 10], [0, 0, -9], [10, 0, 10]]], float)
    found = see_points(points, np.zeros((1, 6)), [ball(0, 0, 10)], CAMERA, nothing_before(CAMERA))[0]
    assert found[:, 2].tolist() == [2, 0, 0, 2, 0, 0]
    assert np.isnan(found[found[:, 2] == 0, :2]).all()
    assert found[3, :2].tolist() == pytest.approx([199, 99])


def test_the_skin_over_a_point_does_not_hide_it_but_what_is_deeper_does() -> None:
    points = np.array([[0, 0, 9.0], [0, 0, 9.02], [0, 0, 9.04], [0, 0, 9.17], [0, 0, 9.19]])
    depths = np.array([0, 0, 0, 0.1, 0.1])
    assert behind_itself(points, depths, ball(0, 0, 10), CAMERA).tolist() == [False, False, True, False, True]


def test_an_animal_that_is_painted_later_hides_and_one_painted_before_does_not() -> None:
    two = np.array([[[0.0, 0.0, 9.0]], [[0.0, 0.0, 4.5]]])
    solids = [ball(0, 0, 10), ball(0, 0, 5, 0.5)]
    assert flags(solids, two, np.zeros((2, 1)), CAMERA).tolist() == [[HIDDEN], [SEEN]]
    beside = [ball(0, 0, 10), ball(2, 0, 5, 0.5)]
    assert flags(beside, two, np.zeros((2, 1)), CAMERA)[0].tolist() == [SEEN]


def test_a_rail_before_the_pen_hides_the_pixels_that_it_covers() -> None:
    front = nothing_before(CAMERA)
    front[48:52, :, 3] = 255
    front[60:62, :, 3] = 100  # the soft edge of one
    points = np.array([[[0, 0, 9], [0, -0.4, 10], [0, 1.1, 10]]], float)
    found = see_points(points, np.full((1, 3), 9.0), [ball(0, 0, 10)], CAMERA, front)
    assert found[0, :, 2].tolist() == [HIDDEN, SEEN, SEEN]


def test_a_ray_enters_what_lies_before_it_and_nothing_behind_it() -> None:
    """It enters a ball of radius 1 at a distance of 10 after 9; one that it starts in it has entered before."""
    rays = np.array([[0, 0, 2.0], [0, 0, -2.0], [2.0, 0, 0]])
    assert entries(ball(0, 0, 10), np.zeros(3), rays)[:, 0].tolist() == [4.5, np.inf, np.inf]
    assert entries(ball(0, 0, 0.5), np.zeros(3), rays)[0, 0] == pytest.approx(-0.25)


def test_a_pixel_is_in_a_silhouette_as_far_as_its_outline_goes() -> None:
    edge = 100 / np.sqrt(99)  # of a ball of radius 1 at a distance of 10
    pixels = np.array([[100 + side * share * edge, 50.0] for side in (1, -1) for share in (0.999, 1.001)])
    assert in_silhouette(pixels, ball(0, 0, 10), CAMERA).tolist() == [True, False, True, False]


def test_areas_are_what_is_left_of_each_silhouette() -> None:
    whole = np.pi * 100**2 / 99
    front = nothing_before(CAMERA)
    assert visible_areas([ball(0, 0, 10)], CAMERA, front)[0] == pytest.approx(whole, rel=0.06)
    far, near = visible_areas([ball(0, 0, 10), ball(0.5, 0, 5, 0.5)], CAMERA, front)
    assert near == pytest.approx(whole, rel=0.06)
    assert far == pytest.approx(whole * 0.6090, rel=0.06)  # two discs of one radius, their middles a radius apart
    front[:50, :, 3] = 255
    assert visible_areas([ball(0, 0, 10)], CAMERA, front)[0] == pytest.approx(whole / 2, rel=0.1)
    assert visible_areas([], CAMERA, front).shape == (0,)


def test_a_frame_without_animals_has_no_points() -> None:
    frame = replace(frames(1, seed=1)[0], animals=[])
    animals, boxes, points, areas = frame_keypoints(frame)
    assert (animals, boxes.shape, points.shape, areas.shape) == ([], (0, 4), (0, 18, 3), (0,))
