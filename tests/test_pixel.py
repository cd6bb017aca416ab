"""Errors of keypoints in pixels: means, shares, a guess that looks at nothing, calibration, intervals over groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestock.evaluation.pixel import (
    as_true_objects,
    calibration_error,
    calibration_table,
    correct_share,
    find_errors,
    find_lengths,
    find_mean_pose,
    guess_mean_pose,
    mean_error_interval,
    normalised_mean_error,
    summarise_errors,
)
from livestock.exceptions import BadData
from livestock.tables import make_boxes, make_keypoints


def draw(seed: int, n_images: int = 8) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Images in groups of two, a box each, and three points of it, some of them not labelled."""
    rng = np.random.default_rng(seed)
    images = pd.DataFrame({"image_id": [f"{number}.jpg" for number in range(n_images)],
                           "group": np.arange(n_images) // 2})
    boxes = make_boxes([{"box_id": number, "image_id": f"{number}.jpg", "label": "pig", "x_min": 10 * number,
                         "y_min": 20, "x_max": 10 * number + 60 + number, "y_max": 100} for number in range(n_images)])
    points = make_keypoints([{"box_id": number, "image_id": f"{number}.jpg", "keypoint": name,
                              "x": rng.uniform(0, 100), "y": rng.uniform(0, 100), "visible": rng.integers(0, 3)}
                             for number in range(n_images) for name in ("nose", "ear", "tail")])
    return images, boxes, points


def move(points: pd.DataFrame, rng: np.random.Generator, spread: float = 3.0) -> pd.DataFrame:
    """Every point found, somewhere near, labelled or not."""
    x, y = (points[axis].fillna(50.0) + rng.normal(0, spread, len(points)) for axis in "xy")
    return points.assign(x=x.abs(), y=y.abs(), visible=2, confidence=rng.uniform(size=len(points)), source="model")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_errors_are_those_of_a_loop_over_labelled_points(seed: int) -> None:
    _, boxes, points = draw(seed)
    rng = np.random.default_rng(seed)
    found = move(points, rng).sample(frac=0.7, random_state=seed)
    errors = find_errors(points, found)
    expected = {}
    for row in points.itertuples():
        if row.visible > 0:
            own = found[(found["box_id"] == row.box_id) & (found["keypoint"] == row.keypoint)]
            expected[row.box_id, row.keypoint] = (
                np.sqrt((own["x"].iloc[0] - row.x) ** 2 + (own["y"].iloc[0] - row.y) ** 2) if len(own) else np.nan)
    assert errors.set_index(["box_id", "keypoint"])["error"].to_dict() == pytest.approx(expected, nan_ok=True)

    lengths = find_lengths(boxes)
    right = [error <= 0.05 * np.hypot(60 + box_id, 80) for (box_id, _), error in expected.items()]
    if right:
        assert correct_share(errors, lengths).iloc[0] == pytest.approx(np.mean(right))
    ratios = [error / np.hypot(60 + box_id, 80) for (box_id, _), error in expected.items() if np.isfinite(error)]
    if ratios:
        assert normalised_mean_error(errors, lengths) == pytest.approx(np.mean(ratios))


def test_a_summary_has_all_that_is_asked_for() -> None:
    errors = pd.DataFrame({"keypoint": ["nose"] * 5 + ["tail"], "visible": [2, 2, 2, 1, 1, 2],
                           "error": [1.0, 2.0, 3.0, 30.0, np.nan, 7.0]})
    row = summarise_errors(errors).iloc[0]
    known = np.array([1.0, 2.0, 3.0, 30.0, 7.0])
    assert row.to_dict() == pytest.approx({
        "n": 6, "missed": 1, "mean": known.mean(), "median": 3.0, "sd": known.std(ddof=1), "min": 1.0, "max": 30.0,
        "q95": np.quantile(known, 0.95), "gross": 0.2})
    assert summarise_errors(errors, "keypoint")["mean"].to_dict() == {"nose": 9.0, "tail": 7.0}
    assert summarise_errors(errors, "visible")["missed"].to_dict() == {2: 0, 1: 1}
    assert summarise_errors(errors, gross=1.5)["gross"].iloc[0] == 0.8


def test_missed_points_are_wrong_and_objects_without_a_length_do_not_count() -> None:
    errors = pd.DataFrame({"box_id": [1, 1, 2], "keypoint": ["nose", "tail", "nose"], "visible": [2, 1, 2],
                           "error": [1.0, np.nan, 0.0]})
    lengths = pd.Series({1: 100.0, 2: np.nan})
    assert correct_share(errors, lengths).tolist() == [0.5]
    assert correct_share(errors, lengths, by="keypoint").to_dict() == {"nose": 1.0, "tail": 0.0}
    assert correct_share(errors, lengths, by="visible").to_dict() == {2: 1.0, 1: 0.0}


@pytest.mark.bad_input
def test_a_point_that_is_found_twice_is_refused() -> None:
    _, _, points = draw(0)
    with pytest.raises(BadData, match=r"found 'nose' of box 0 in 0\.jpg a second time"):
        find_errors(points, pd.concat([points, points[points["box_id"] == 0]]))


def test_a_length_may_be_that_between_two_points() -> None:
    boxes = make_boxes([{"box_id": number, "image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 9,
                         "y_max": 9} for number in (1, 2)])
    points = make_keypoints([{"box_id": box_id, "image_id": "a.jpg", "keypoint": name, "x": x, "y": y, "visible": v}
                             for box_id, name, x, y, v in ((1, "nose", 0, 0, 2), (1, "tail", 3, 4, 1),
                                                           (2, "nose", 0, 0, 2), (2, "tail", 5, 5, 0))])
    found = find_lengths(boxes, points, ("nose", "tail"))
    assert found[1] == 5.0
    assert np.isnan(found[2])
    with pytest.raises(BadData, match=r"expected two keypoints of \['nose', 'tail'\], found 'hoof'"):
        find_lengths(boxes, points, ("nose", "hoof"))


def test_the_mean_pose_is_where_points_lie_in_their_boxes() -> None:
    boxes = make_boxes([{"box_id": number, "image_id": "a.jpg", "label": "pig", "x_min": x, "y_min": 0,
                         "x_max": x + 100, "y_max": 50} for number, x in ((1, 0), (2, 200))])
    points = make_keypoints([{"box_id": 1, "image_id": "a.jpg", "keypoint": "nose", "x": 20, "y": 10},
                             {"box_id": 2, "image_id": "a.jpg", "keypoint": "nose", "x": 240, "y": 20},
                             {"box_id": 2, "image_id": "a.jpg", "keypoint": "tail", "x": 7, "y": 7, "visible": 0}])
    pose = find_mean_pose(boxes, points)
    assert pose.to_numpy().tolist() == [["pig", "nose", pytest.approx(0.3), pytest.approx(0.3)]]
    guess = guess_mean_pose(pose, boxes.assign(x_min=boxes["x_min"] + 100, x_max=boxes["x_max"] + 300))
    assert guess[["box_id", "x", "y"]].to_numpy() == pytest.approx(np.array([[1, 190, 15], [2, 390, 15]]))
    assert set(guess["source"]) == {"model"}


def test_found_objects_are_judged_under_the_true_one_that_they_overlap() -> None:
    _, truth, points = draw(1)
    boxes = truth.assign(box_id=truth["box_id"] + 1000, confidence=0.9, source="model")
    false = boxes[:1].assign(box_id=5000, x_min=400.0, x_max=500.0)
    found = pd.concat([points.assign(box_id=points["box_id"] + 1000),
                       points[points["box_id"] == 0].assign(box_id=5000)])
    own = as_true_objects(truth, pd.concat([boxes, false], ignore_index=True), found)
    assert set(own["box_id"]) == set(truth["box_id"])
    assert find_errors(points, own)["error"].max() == 0


def test_a_confidence_that_is_a_chance_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=20_000)
    errors = pd.DataFrame({"box_id": 1, "error": np.where(rng.uniform(size=20_000) < confidence, 1.0, 9.0),
                           "confidence": confidence})
    table = calibration_table(errors, 5.0)
    assert table["n"].tolist() == [2000] * 10
    assert calibration_error(table) < 0.02
    assert calibration_error(calibration_table(errors.assign(confidence=1.0), 5.0)) == pytest.approx(0.5, abs=0.02)
    assert calibration_table(errors, pd.Series({1: 0.5}))["right"].max() == 0


def test_an_interval_goes_over_groups_and_pairs() -> None:
    images, _, points = draw(3, 40)
    points = points.assign(visible=2, x=points["x"].fillna(5.0), y=points["y"].fillna(5.0))
    rng = np.random.default_rng(0)
    by_group = pd.Series(rng.normal(0, 4, 20)).abs()
    group = points["image_id"].map(images.set_index("image_id")["group"])
    far, near = (find_errors(points, points.assign(x=points["x"] + scale * group.map(by_group).to_numpy()))
                 for scale in (2.0, 1.0))
    mean, low, high = mean_error_interval(far, images)
    assert mean == pytest.approx(2 * by_group.mean())
    deviation = 2 * by_group.std() / np.sqrt(20)
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.25)  # of 20 groups, not of 120 points
    gain, gain_low, gain_high = mean_error_interval(near, images, far)
    assert gain == pytest.approx(by_group.mean())
    assert 0 < gain_low < gain < gain_high
    alone = images.assign(group=0)
    assert np.isnan(mean_error_interval(far, alone)[1:]).all()
