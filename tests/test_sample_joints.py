"""The named points of drawn animals: where anatomy has them, in every posture, and moved as the solid is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from posed_animals import SPECIES, posed, random_animals

from livestock.config import REPOSITORY, read_competition
from livestock.sample.animals import Animal, pose
from livestock.sample.build import Joints, rotation
from livestock.sample.joints import POINTS, SIDED, animal_points, facing_points
from livestock.sample.keypoints import livestock_skeleton
from livestock.sample.solids import Camera, Solid

LEFT = {"fl1", "fl2", "bl1", "bl2"}
RIGHT = {"fr1", "fr2", "br1", "br2"}
CREST = ("neck", "body1", "body2", "body3", "body4")


def camera_at(x: float, y: float, z: float) -> Camera:
    """A camera there; where it looks does not matter to the points."""
    return Camera(np.array([x, y, z], float), np.eye(3), focal=100.0, width=200, height=100)


LEFT_CAMERA, RIGHT_CAMERA = camera_at(0, 9, 2), camera_at(0, -9, 2)


def places(animal: Animal, camera: Camera = LEFT_CAMERA) -> dict[str, np.ndarray]:
    return dict(zip(POINTS, animal_points(animal, camera), strict=True))


def surface(solid: Solid, points: np.ndarray) -> np.ndarray:
    """The least (N,) over the ellipsoids of how far a point lies from the middle, 1 on the surface."""
    inverses = np.linalg.inv(solid.axes)
    return np.linalg.norm(np.einsum("pij,npj->npi", inverses, points[:, None] - solid.centres), axis=2).min(1)


def test_the_points_have_the_names_and_the_order_of_the_competition_file() -> None:
    for species in SPECIES:
        assert livestock_skeleton().names(species) == list(POINTS)


def test_a_standing_pig_has_its_points_where_they_were_put() -> None:
    """By hand: the shoulder ends .225 m above the trunk's middle at x = .30; the head nods by -.2 at (.46, 0, .03)."""
    found = places(posed("pig"))
    from_shoulder = {name: (place - found["body1"]).round(4).tolist() for name, place in found.items()}
    assert found["body1"][:2].round(6).tolist() == [0.30, 0.0]
    assert from_shoulder["eye"] == [0.4104, 0.11, -0.1927]
    assert from_shoulder["mouth"] == [0.5783, 0.0, -0.3461]
    assert from_shoulder["body3"] == [-0.62, 0.0, 0.0095]
    assert from_shoulder["F"] == [-0.03, 0.17, -0.395]
    # 35 % of the way from the bend of the leg, at (.364, .12, -.2), to the foot, at (.34, .12, -.4)
    assert from_shoulder["fl1"] == [0.0556, 0.12, -0.495]
    assert found["fl1"][1] == -found["fr1"][1]


@pytest.mark.parametrize("species", SPECIES)
def test_a_standing_animal_is_in_order_from_nose_to_tail_and_from_back_to_toe(species: str) -> None:
    found = places(posed(species))
    assert all(abs(found[f"{leg}2"][2]) < 0.012 for leg in ("fl", "fr", "bl", "br"))  # on the floor, z = 0
    along = [found[name][0] for name in ("mouth", "eye", "neck", "body1", "body2", "body3", "body4")]
    assert along == sorted(along, reverse=True)
    assert all(found[name][1] > 0.05 for name in LEFT | {"eye", "ear", "F", "B"})
    assert all(found[name][1] < -0.05 for name in RIGHT)
    assert all(abs(found[name][1]) < 1e-9 for name in ("mouth", *CREST))
    for front, bend in (("F", "fl"), ("F", "fr"), ("B", "bl"), ("B", "br")):
        chain = [found["body1"][2], found[front][2], found[f"{bend}1"][2], found[f"{bend}2"][2]]
        assert chain == sorted(chain, reverse=True)
        assert abs(found[front][0] - found[f"{bend}1"][0]) < 0.3


@pytest.mark.parametrize("species", SPECIES)
def test_eye_ear_elbow_and_stifle_are_those_that_face_the_camera(species: str) -> None:
    left, right = (places(posed(species), camera) for camera in (LEFT_CAMERA, RIGHT_CAMERA))
    for name in POINTS:
        mirror = [1, -1, 1] if name in SIDED else [1, 1, 1]
        assert np.allclose(left[name], right[name] * mirror)
    turned = places(posed(species, heading=np.pi), LEFT_CAMERA)  # its right side now
    assert turned["eye"][1] > 0
    assert np.allclose(turned["eye"], right["eye"] * [-1, -1, 1])


def test_eye_and_ear_are_always_of_one_side_and_so_are_elbow_and_stifle() -> None:
    rng = np.random.default_rng(0)
    for animal in random_animals(60):
        joints, camera = pose(animal)[1], camera_at(*rng.uniform([-9, -9, 1], [9, 9, 4]))
        found = dict(zip(POINTS, facing_points(joints, camera)[0], strict=True))
        own = dict(zip(joints.names, joints.places, strict=True))
        sides = {name: np.allclose(found[name], own[f"left {name}"]) for name in SIDED}
        assert (sides["eye"], sides["F"]) == (sides["ear"], sides["B"])


@pytest.mark.parametrize("species", SPECIES)
def test_postures_move_the_points(species: str) -> None:
    standing, sitting, lying, eating = (places(posed(species, name)) for name in (
        "standing", "sitting", "lying", "eating"))
    assert sitting["body1"][2] - sitting["body4"][2] > standing["body1"][2] - standing["body4"][2] + 0.3
    assert sitting["bl2"][0] - sitting["bl1"][0] > 0.05  # the hind legs point forward
    assert lying["body2"][2] < standing["body2"][2] - 0.1
    assert eating["mouth"][2] < standing["mouth"][2] - 0.15
    assert all(np.allclose(eating[name], standing[name]) for name in (*LEFT, *RIGHT, "F", "B", "body1", "body4"))


@pytest.mark.parametrize(("changes", "moved"), [
    ({"head_yaw": 0.3}, {"mouth", "eye", "ear"}), ({"head_pitch": 0.2}, {"mouth", "eye", "ear"}),
    ({"gait": 0.8}, LEFT | RIGHT), ({"lop_ears": False}, {"ear"}),
])
def test_each_part_of_the_body_moves_its_own_points(changes: dict[str, float], moved: set[str]) -> None:
    before, after = places(posed("pig")), places(posed("pig", **changes))
    lift = after["body2"][2] - before["body2"][2]  # another toe may carry the animal
    assert {name for name in POINTS if not np.allclose(after[name] - [0, 0, lift], before[name])} == moved


def test_a_cow_turns_its_neck_with_its_head() -> None:
    before, after = places(posed("cow")), places(posed("cow", head_yaw=0.4))
    assert after["neck"][1] > before["neck"][1] + 0.02
    assert after["mouth"][1] > 0.3  # yaw > 0 turns to the left


def test_a_pig_on_its_side_has_its_legs_beside_it() -> None:
    for side in (1.0, -1.0):
        found = places(posed("pig", "lying", side=side), camera_at(0, 0, 9))
        legs = np.array([found[name] for name in sorted(LEFT | RIGHT)])
        assert (legs[:, 1] * side > 0.2).all()
        assert found["body2"][1] * side < -0.2
        upper, lower = ("fl2", "fr2") if side > 0 else ("fr2", "fl2")
        assert found[upper][2] > found[lower][2] + 0.1
        assert found["eye"][2] > found["mouth"][2]  # the eye above


def test_heading_size_and_place_act_on_the_points_as_on_the_solid() -> None:
    for animal in random_animals(16):
        plain = pose(replace(animal, heading=0.0, x=0.0, y=0.0, size=1.0))[1]
        solid, found = pose(animal)
        expected = plain.places @ rotation(animal.heading).T * animal.size + [animal.x, animal.y, 0]
        assert np.allclose(found.places, expected)
        assert np.allclose(found.depths, plain.depths * animal.size)
        assert solid.lowest() == pytest.approx(0, abs=1e-9)


def test_a_mirrored_animal_has_mirrored_points_and_left_is_right() -> None:
    flips = livestock_skeleton().flip_indexes("cow")
    for animal in random_animals(24):
        mirrored = replace(animal, y=-animal.y, heading=-animal.heading, head_yaw=-animal.head_yaw,
                           side=-animal.side, gait=animal.gait + np.pi)
        found = animal_points(animal, camera_at(1, -8, 3))
        assert np.allclose(animal_points(mirrored, camera_at(1, 8, 3)), found[flips] * [1, -1, 1])


def test_every_point_lies_in_or_on_its_animal() -> None:
    for animal in random_animals(80):
        solid, joints = pose(animal)
        assert len(joints.names) == len(set(joints.names)) == 22
        assert (surface(solid, joints.places) < 1.03).all()
        on_the_back = [joints.names.index(name) for name in CREST[:-1]]  # the tail lies over the last
        assert (surface(solid, joints.places[on_the_back]) > 0.8).all()


@pytest.mark.parametrize("species", SPECIES)
def test_left_is_the_animals_own_left(species: str) -> None:
    joints = pose(posed(species))[1]
    across = dict(zip(joints.names, joints.places[:, 1], strict=True))
    assert all(across[f"left {name}"] > 0 > across[f"right {name}"] for name in SIDED)


def test_named_points_are_moved_as_a_solid_is() -> None:
    joints = Joints(["toe"], np.array([[1.0, 0.0, 0.0]]), np.array([0.1]))
    found = joints.moved(rotation(yaw=np.pi / 2), np.array([0.0, 0.0, 5.0]), 2.0)
    assert found.places.round(9).tolist() == [[0.0, 2.0, 5.0]]
    assert found.depths.tolist() == [0.2]


def test_the_competition_file_is_read_and_says_what_a_mirror_does() -> None:
    competition = read_competition(REPOSITORY / "keypoints.yaml")
    skeleton = competition.skeleton
    assert (competition.name, competition.labels) == ("livestock_keypoints", ["pig", "cow"])
    assert skeleton is not None
    for label in competition.labels:
        names = skeleton.names(label)
        flips = {names[index]: names[mirror] for index, mirror in enumerate(skeleton.flip_indexes(label) or [])}
        legs = {f"{a}{n}": f"{b}{n}" for a, b in (("fl", "fr"), ("fr", "fl"), ("bl", "br"), ("br", "bl"))
                for n in (1, 2)}
        assert flips == {name: legs.get(name, name) for name in POINTS}
        assert skeleton.sigmas(label) == [0.015, 0.014, 0.020, 0.045, 0.045, 0.045, 0.045, 0.045, 0.045, 0.050, 0.051,
                                          0.050, 0.051, 0.045, 0.050, 0.051, 0.050, 0.051]
        upper = {point.keypoint for point in skeleton.of(label) if point.part == "upper"}
        assert upper == {"mouth", "eye", "ear", "neck", "body1", "F", "fl1", "fl2", "fr1", "fr2"}
        edges = [(edge.first, edge.second) for edge in skeleton.edges if edge.label == label]
        assert len(edges) == 17
        assert {name for edge in edges for name in edge} == set(POINTS)
    assert skeleton.describe_default_sigmas() == []
