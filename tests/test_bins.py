"""The original's bins: a bound belongs to the larger class, and every bound is exact."""

import numpy as np
import pandas as pd
import pytest

from livestock.config import Competition
from livestock.data.bins import box_counts, count_bins, count_bounds, ratio_bins, size_bins
from livestock.tables import make_boxes, make_images


def boxes_of(*sizes: tuple[float, float]) -> pd.DataFrame:
    rows = [
        {"image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": width, "y_max": height}
        for width, height in sizes
    ]
    return make_boxes(rows)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((60, 40), "horizontal"),
        ((59.9, 40), "square"),
        ((50, 50), "square"),
        ((40, 59.9), "square"),
        ((40, 60), "vertical"),
        ((1, 99), "vertical"),
        ((99, 1), "horizontal"),
    ],
)
def test_ratio_bounds_belong_to_the_longer_shape(size, expected):
    assert ratio_bins(boxes_of(size)).tolist() == [expected]


@pytest.mark.parametrize("unit", [1, 3, 7, 11, 13, 0.1, 1 / 3])
def test_turned_by_a_right_angle_horizontal_becomes_vertical(unit):
    """1 - 0.6 is not 0.4 in floating point, so each side is divided by itself."""
    names = ratio_bins(boxes_of((3 * unit, 2 * unit), (2 * unit, 3 * unit))).tolist()
    assert names in (["horizontal", "vertical"], ["square", "square"])
    if unit == int(unit):
        assert names == ["horizontal", "vertical"]


@pytest.mark.parametrize(
    ("area", "expected"),
    [
        (99, "out"),
        (100, "very_small"),
        (999, "very_small"),
        (1_000, "small"),
        (9_999, "small"),
        (10_000, "medium"),
        (49_999, "medium"),
        (50_000, "large"),
        (99_999, "large"),
        (100_000, "very_large"),
    ],
)
def test_size_bounds_belong_to_the_larger_class(area, expected):
    assert size_bins(boxes_of((area, 1))).tolist() == [expected]


@pytest.mark.parametrize(
    ("bounds", "names"),
    [
        ([8, 13], {0: "none", 1: "little", 7: "little", 8: "medium", 12: "medium", 13: "many", 50: "many"}),
        ([4, 6], {0: "none", 3: "little", 4: "medium", 5: "medium", 6: "many"}),
    ],
)
def test_count_bounds_are_exclusive(bounds, names):
    assert count_bins(pd.Series(list(names)), bounds).tolist() == list(names.values())


def test_box_counts_have_a_row_for_every_image_and_a_column_for_every_label():
    images = make_images(
        [
            {"image_id": name, "archive": "", "member": "", "width": 9, "height": 9}
            for name in ("a.jpg", "b.jpg")
        ]
    )
    counts = box_counts(images, boxes_of((1, 1), (2, 2)), ["pig", "cow"])
    assert counts.loc["a.jpg"].to_dict() == {"pig": 2, "cow": 0}
    assert counts.loc["b.jpg"].tolist() == [0, 0]


def test_bounds_come_from_the_config_and_else_from_terciles():
    ids = [f"{number:02}.jpg" for number in range(1, 10)]
    images = make_images(
        [{"image_id": i, "archive": "", "member": "", "width": 99, "height": 99} for i in ids]
    )
    box = {"x_min": 0, "y_min": 0, "x_max": 1, "y_max": 1}
    boxes = make_boxes(
        [{"image_id": i, "label": "cow", **box} for n, i in enumerate(ids) for _ in range(n + 1)]
    )
    competition = Competition("test", {"pig": [], "cow": []}, count_bins={"pig": [8, 13]})
    bounds = count_bounds(images, boxes, competition)
    assert bounds["pig"] == [8, 13]
    names = count_bins(box_counts(images, boxes, ["cow"])["cow"], bounds["cow"])
    assert np.ptp(names.value_counts()[["little", "medium", "many"]]) <= 2
