"""A competition file is read strictly, and finds classes as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from livestock.config import REPOSITORY, Competition, get_profile, read_competition


def test_the_repositorys_competition() -> None:
    competition = read_competition(REPOSITORY / "competition.yaml")
    assert competition.labels == ["pig", "cow"]
    assert competition.metric_iou == 0.75
    assert competition.weight_limit_bytes == 100_000_000


@pytest.mark.parametrize(
    ("source_name", "file_name", "expected"),
    [
        ("lying", "livestock_cow_bbox_000001.jpg", "cow"),  # the category is a behaviour, the file name counts
        ("Cattle", "photo.jpg", "cow"),
        ("돼지", "photo.jpg", "pig"),
        ("sheep", "photo.jpg", None),
        ("pig", "livestock_horse_bbox_1.jpg", None),
    ],
)
def test_how_a_class_is_found(source_name: str, file_name: str, expected: str | None) -> None:
    competition = read_competition(REPOSITORY / "competition.yaml")
    assert competition.label_of(source_name, file_name) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nclasses: {pig: [pig]}\nmetric: 0.5\n", "unknown key 'metric'"),
        ("name: x\nclasses: {}\n", "classes: expected a mapping"),
        ("name: x\nclasses: {pig: [pig]}\nmetric_iou: 75\n", "metric_iou: expected a number between 0 and 1"),
        ("name: x\nclasses: {pig: [pig]}\ncount_bins: {hen: [1, 2]}\n", "'hen' is not one of the classes"),
        ("name: x\nclasses: {pig: [pig]}\nclass_pattern: no_group\n", "expected a pattern with a group"),
        ("just text", "expected a mapping"),
        ("name: x\n", "classes"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="mine.yaml.*" + message):
        read_competition(path)


def test_profiles() -> None:
    assert get_profile("colab").weights == "yolov5m6.pt"
    assert get_profile("colab").imgsz == 1280
    assert get_profile("cpu", weights="mine.pt", epochs=None).weights == "mine.pt"
    with pytest.raises(ValueError, match="expected one of"):
        get_profile("laptop")
    with pytest.raises(ValueError, match="unknown key 'epoch'"):
        get_profile("cpu", epoch=3)


def test_labels_keep_the_order_of_the_file() -> None:
    assert Competition("x", {"zebra": ["z"], "ant": ["a"]}).labels == ["zebra", "ant"]
