"""A skeleton is suggested from names: as YAML that is one, with mirror images where both sides are there."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from livestock.config import FoundPoints, suggest_skeleton
from livestock.config.keys import read_keys
from livestock.config.skeleton import NOTHING, read_skeleton
from livestock.config.suggest import mirror_names, unnamed_points

texts = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@pytest.mark.parametrize(("names", "flips"), [
    (["left_ear", "right_ear", "nose"], ["right_ear", "left_ear", "nose"]),
    (["nose", "LeftEar", "RightEar"], ["nose", "RightEar", "LeftEar"]),
    (["ear left", "ear right"], ["ear right", "ear left"]),
    (["front_left_paw", "front_right_paw"], ["front_right_paw", "front_left_paw"]),
    (["l_eye", "r_eye", "tail"], ["r_eye", "l_eye", "tail"]),
    (["eye-L", "eye-R"], ["eye-R", "eye-L"]),
    (["lshoulder", "rshoulder"], ["rshoulder", "lshoulder"]),
    (["hipL", "hipR"], ["hipR", "hipL"]),
    (["LEFT", "RIGHT"], ["RIGHT", "LEFT"]),
    (["leftear", "rightear", "tailbase", "snout"], ["rightear", "leftear", "tailbase", "snout"]),
    (["nail", "leg", "lip"], None),  # an l at an end says no side where no r is
    (["left_ear", "nose"], None), (["left_ear", "right_ear", "left_eye"], None), (["left", "ight"], None),
    (["eye", "mouth"], None), ([], None),
])
def test_mirror_images_are_found_where_both_sides_are_there(names: list[str], flips: list[str] | None) -> None:
    assert mirror_names(names) == flips


def test_what_the_data_say_of_mirror_images_counts() -> None:
    found = {"cat": FoundPoints(("left_1", "right_1", "left_2", "right_2"), flips=(3, 2, 1, 0))}
    points = yaml.safe_load(suggest_skeleton(found))["skeleton"]["keypoints"]
    assert [point["flip"] for point in points] == ["right_2", "left_2", "right_1", "left_1"]
    odd = {"cat": FoundPoints(("left_1", "right_1"), flips=(0, 0))}  # does not lead back
    points = yaml.safe_load(suggest_skeleton(odd))["skeleton"]["keypoints"]
    assert [point["flip"] for point in points] == ["right_1", "left_1"]


def test_points_without_names_are_said_to_be_so() -> None:
    text = suggest_skeleton({"pig": unnamed_points(2)})
    assert "# pig: the data have no names; write yours in this order" in text
    assert [point["keypoint"] for point in yaml.safe_load(text)["skeleton"]["keypoints"]] == ["point_1", "point_2"]
    assert suggest_skeleton({}) == ""


@settings(max_examples=150, deadline=None)
@given(found=st.dictionaries(texts, st.lists(texts, min_size=1, max_size=5, unique=True), min_size=1, max_size=2),
       data=st.data())
def test_every_suggestion_is_a_skeleton_of_these_names(
    found: dict[str, list[str]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    words = [*found, *(name for names in found.values() for name in names)]
    assume(not any(word.strip().casefold() in NOTHING for word in words))  # which a competition's file cannot name
    pairs = {label: tuple(data.draw(st.lists(st.tuples(*[st.sampled_from(names)] * 2), max_size=2)))
             for label, names in found.items()}
    text = suggest_skeleton({label: FoundPoints(tuple(names), pairs[label]) for label, names in found.items()})
    path = tmp_path_factory.mktemp("suggested") / "mine.yaml"
    path.write_text(f"name: x\n{text}\n", encoding="utf-8")
    content, faults = read_keys(path)
    assert not faults
    skeleton = read_skeleton(content["skeleton"])
    assert skeleton is not None
    assert {label: skeleton.names(label) for label in skeleton.labels} == found
    assert [(edge.label, edge.first, edge.second) for edge in skeleton.edges] == [
        (label, *pair) for label in found for pair in pairs[label]]
    for label, names in found.items():
        flips = skeleton.flip_indexes(label)
        assert (None if flips is None else [names[flip] for flip in flips]) == mirror_names(names)
