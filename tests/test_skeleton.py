"""A skeleton is read from the competition's file, and refused in words where it contradicts itself."""

from __future__ import annotations

import doctest
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from livestock.config import REPOSITORY, Competition, Edge, Keypoint, Skeleton, read_competition, skeleton
from livestock.config.skeleton import DEFAULT_SIGMA, read_skeleton

HEAD = "name: x\nclasses: {pig: [swine], cow: [cattle]}\n"
POINTS = (Keypoint("pig", "snout", 0, "snout", 0.03, "upper"), Keypoint("pig", "left_ear", 1, "right_ear"),
          Keypoint("pig", "right_ear", 2, "left_ear"))
SKELETON = Skeleton((*POINTS, Keypoint("cow", "nose", 0)), (Edge("pig", "snout", "left_ear"),))


def read(folder: Path, block: str) -> Competition:
    path = folder / "mine.yaml"
    path.write_text(HEAD + block, encoding="utf-8")
    return read_competition(path)


def test_the_commented_example_is_a_skeleton(tmp_path: Path) -> None:
    """What `competition.yaml` shows is right once it is no comment any more."""
    text = (REPOSITORY / "competition.yaml").read_text(encoding="utf-8")
    example = re.sub(r"(?m)^# ?", "", text[text.index("# skeleton:"):])
    found = read(tmp_path, example).skeleton
    assert found is not None
    assert found.names("pig") == ["snout", "left_ear", "right_ear", "tail"]
    assert found.flip_indexes("pig") == [0, 2, 1, 3]
    assert found.sigmas("pig") == [0.03, 0.04, 0.04, DEFAULT_SIGMA]
    assert found.describe_default_sigmas() == ["pig: no sigma is given for tail; OKS uses the default 0.05"]
    assert [point.part for point in found.of("pig")] == ["upper", "upper", "upper", "lower"]
    assert found.edges == tuple(Edge("pig", "snout", name) for name in ("left_ear", "right_ear", "tail"))


def test_each_documented_key_is_one() -> None:
    text = (REPOSITORY / "competition.yaml").read_text(encoding="utf-8")
    documented = re.findall(r"(?m)^#   (\w+)  ", text)
    assert documented == list(asdict(POINTS[0]))


def test_no_skeleton_is_none(tmp_path: Path) -> None:
    assert read(tmp_path, "").skeleton is None
    assert read(tmp_path, "skeleton:\n").skeleton is None
    assert read_competition(REPOSITORY / "competition.yaml").skeleton is None


def test_the_file_may_name_keypoints_in_any_order(tmp_path: Path) -> None:
    found = read(tmp_path, "skeleton:\n  keypoints:\n  - {label: cow, keypoint: tail, index: 1}\n"
                           "  - {label: cow, keypoint: nose, index: 0, sigma: .1, part: Upper}\n").skeleton
    assert found is not None
    assert found.names("cow") == ["nose", "tail"]
    assert found.sigmas("cow") == [0.1, DEFAULT_SIGMA]
    assert found.of("cow")[0].part == "upper"
    assert found.names("pig") == []


def test_a_class_without_mirror_images_is_not_mirrored() -> None:
    assert SKELETON.flip_indexes("pig") == [0, 2, 1]
    assert SKELETON.flip_indexes("cow") is None
    assert SKELETON.flip_indexes("goat") is None


def test_a_competition_takes_a_skeleton_as_it_is() -> None:
    assert Competition("x", {"pig": [], "cow": []}, skeleton=SKELETON).skeleton == SKELETON


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ((POINTS[0], replace(POINTS[1], flip="snout"), POINTS[2]),
         "the mirror image of 'left_ear' is 'snout', but that of 'snout' is 'snout'"),
        ((POINTS[0], replace(POINTS[1], flip="tail"), POINTS[2]), "left_ear: flip: expected one of snout, left_ear"),
        ((POINTS[0], replace(POINTS[1], flip=None), POINTS[2]),
         "for every keypoint of the class or for none, found none for 'left_ear'"),
        ((replace(POINTS[0], sigma=0.0),), "pig: snout: sigma: expected a number above 0, found 0.0"),
        ((replace(POINTS[0], sigma=float("nan")),), "sigma: expected a number above 0, found nan"),
        ((replace(POINTS[0], part="middle"),), "part: expected one of upper, lower"),
        ((POINTS[0], replace(POINTS[0], index=1)), "the keypoint 'snout' is there twice"),
        ((replace(POINTS[0], index=1),), r"pig: index: expected 0 to 0, each once, found \[1\]"),
        ((POINTS[0], replace(POINTS[0], keypoint="tail", flip="tail")), r"expected 0 to 1, each once, found \[0, 0\]"),
        ((), "expected at least one"),
    ],
)
def test_a_contradiction_is_refused(points: tuple[Keypoint, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Skeleton(points)


def test_an_edge_to_an_unknown_keypoint_is_refused() -> None:
    with pytest.raises(ValueError, match=r"edges: pig: expected keypoints of this class \(snout, .*found 'nose'"):
        Skeleton(POINTS, (Edge("pig", "snout", "nose"),))
    with pytest.raises(ValueError, match="none: the class has no keypoints"):
        Skeleton(POINTS, (Edge("cow", "snout", "nose"),))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("skeleton: 3\n", "skeleton: expected a mapping with the keys keypoints, edges, found '3'"),
        ("skeleton: {points: []}\n", "unknown key 'points'; expected some of keypoints, edges"),
        ("skeleton: {keypoints: snout}\n", "keypoints: expected a list"),
        ("skeleton: {keypoints: []}\n", "expected at least one"),
        ("skeleton: {keypoints: [snout]}\n", "keypoints: entry 1: expected a mapping"),
        ("skeleton: {keypoints: [{label: pig, keypoint: snout, index: 0, side: left}]}\n",
         "entry 1: unknown key 'side'; expected some of label, keypoint, index, flip, sigma, part"),
        ("skeleton: {keypoints: [{label: pig, index: 0}]}\n", "entry 1: keypoint: expected a name, found None"),
        ("skeleton: {keypoints: [{label: pig, keypoint: snout}]}\n", "entry 1: index: expected a whole number"),
        ("skeleton: {keypoints: [{label: pig, keypoint: snout, index: -1}]}\n", "index: expected a whole number"),
        ("skeleton: {keypoints: [{label: pig, keypoint: snout, index: 0, sigma: big}]}\n", "sigma: expected a number"),
        ("skeleton: {keypoints: [{label: pig, keypoint: snout, index: 0, sigma: -1}]}\n", "sigma: expected a number"),
        ("skeleton: {keypoints: [{label: pigg, keypoint: snout, index: 0}]}\n",
         "skeleton: 'pigg' is not one of the classes pig, cow, meant is perhaps 'pig'"),
        ("skeleton: {keypoints: [{label: pig, keypoint: snout, index: 0}], edges: [snout]}\n",
         "edges: expected a mapping of a label to pairs"),
        ("skeleton: {keypoints: [{label: pig, keypoint: snout, index: 0}], edges: {pig: snout}}\n",
         "expected a list of pairs"),
        ("skeleton: {keypoints: [{label: pig, keypoint: snout, index: 0}], edges: {pig: [snout]}}\n",
         "expected pairs of keypoints"),
        ("skeletons: {}\n", "meant is perhaps 'skeleton'"),
    ],
)
def test_a_faulty_block_is_refused_by_name(tmp_path: Path, block: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as refused:
        read(tmp_path, block)
    assert str(refused.value).startswith(str(tmp_path / "mine.yaml"))


def test_the_examples_are_right() -> None:
    assert doctest.testmod(skeleton).failed == 0


def test_values_as_python_has_them() -> None:
    value = {"keypoints": [{"label": "pig", "keypoint": "snout", "index": 0, "sigma": 0.1}], "edges": None}
    assert read_skeleton(value) == Skeleton((Keypoint("pig", "snout", 0, sigma=0.1),))
