"""Gains of one setting over another: scores, intervals over seeds and groups, verdicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestock.evaluation import COCO_IOUS, COCO_SIZES, score_sizes
from livestock.evaluation.gains import (
    MEASURES,
    Gain,
    Judged,
    count_groups,
    decide,
    draw_gain_counts,
    find_gain,
    is_thin,
    judge_boxes,
    measure_sizes,
)
from livestock.pipeline.detectors import Claim, decide_claims, find_winner
from livestock.tables import XYXY
from livestock.training.scores import score_boxes


def draw_boxes(seed: int, n_images: int = 6) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Images in groups of two, true boxes of all sizes, and found ones: some of them moved, some elsewhere."""
    rng = np.random.default_rng(seed)
    true, found = [], []
    for number in range(n_images):
        for _ in range(6):
            corner, sides = rng.uniform(0, 300, 2), np.exp(rng.uniform(3.2, 5.5, 2))
            box = np.concatenate([corner, corner + sides])
            label = rng.choice(["cow", "pig"])
            true.append([f"{number}.jpg", label, *box, 1.0])
            found.append([f"{number}.jpg", label, *(box + rng.normal(0, 4, 4)), rng.uniform()])
            found.append([f"{number}.jpg", label, *(box + rng.uniform(30, 60)), rng.uniform(0, 0.5)])
    columns = ["image_id", "label", *XYXY, "confidence"]
    images = pd.DataFrame({"image_id": [f"{number}.jpg" for number in range(n_images)],
                           "group": np.arange(n_images) // 2})
    return images, pd.DataFrame(true, columns=columns), pd.DataFrame(found, columns=columns)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_scores_are_those_of_the_usual_functions(seed: int) -> None:
    images, truth, boxes = draw_boxes(seed)
    measures = {**MEASURES, **measure_sizes(pd.Series(0.5, images["image_id"]), [16.0, 48.0])}
    judged = judge_boxes(images, truth, boxes, np.ones((1, len(images)), int), measures)
    usual = score_boxes(truth, boxes, 0.75)
    assert judged.scores["mAP50_95"] == pytest.approx(usual["mAP50_95"], abs=1e-6)
    assert (judged.scores["AP50"], judged.scores["AP75"]) == pytest.approx((usual["AP50"], usual["AP75"]))
    for name, bounds in COCO_SIZES.items():  # at half the scale 32 and 96 pixels are 16 and 48
        each = [score_sizes(truth, boxes, iou, {name: bounds})["ap"].mean() for iou in COCO_IOUS]
        assert judged.scores[name] == pytest.approx(np.mean(each), nan_ok=True), name
    for name, values in judged.resampled.items():  # every image once: the score itself
        assert values == pytest.approx([judged.scores[name]], nan_ok=True), name


def test_a_kind_without_animals_has_no_score() -> None:
    images, truth, boxes = draw_boxes(0)
    square = truth.assign(x_max=truth["x_min"] + 200, y_max=truth["y_min"] + 200)
    measures = {**MEASURES, **measure_sizes(pd.Series(1.0, images["image_id"]), [32.0, 96.0])}
    judged = judge_boxes(images, square, boxes, draw_gain_counts(images, 0, 3), measures)
    assert np.isnan([judged.scores["small"], judged.scores["thin"]]).all()
    assert np.isnan(judged.resampled["small"]).all()
    assert np.isfinite(judged.scores["large"])


def test_thin_is_twice_as_long_as_wide_in_either_direction() -> None:
    boxes = pd.DataFrame([[0, 0, 10, 20], [0, 0, 20, 10], [0, 0, 10, 19.9], [5, 5, 5, 5]], columns=XYXY, dtype=float)
    assert is_thin(boxes).tolist() == [True, True, False, True]


def test_groups_are_drawn_together() -> None:
    images, _, _ = draw_boxes(0)
    counts = draw_gain_counts(images, 0)
    assert counts.shape == (200, 6)
    assert (counts[:, 0::2] == counts[:, 1::2]).all()
    assert (draw_gain_counts(images, 0) == counts).all()  # the same for every training that is compared


def judged_as(score: float, resampled: object, n_groups: float = 1000) -> Judged:
    return Judged({"AP": score}, {"AP": np.asarray(resampled, float)}, n_groups)


def test_an_interval_adds_seeds_and_groups_in_squares() -> None:
    """By hand: differences .1, .2, .3 have deviation .1; t of 2 degrees of freedom is 4.3027; groups' deviation .1."""
    better = [judged_as(score, [score - 0.1, score, score + 0.1]) for score in (0.4, 0.5, 0.6)]
    worse = [judged_as(0.3, [0.3] * 3) for _ in range(3)]
    half = np.sqrt((4.302653 * 0.1 / np.sqrt(3)) ** 2 + (1.959964 * 0.1) ** 2)
    gain = find_gain(better, worse, "AP")
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=5e-4)
    assert gain.n_seeds == 3
    few = [replace(one, n_groups=5) for one in better]  # t of 4 degrees of freedom is 2.7764
    half = np.sqrt((4.302653 * 0.1 / np.sqrt(3)) ** 2 + (2.776445 * 0.1 * np.sqrt(5 / 4)) ** 2)
    assert find_gain(few, worse, "AP").low == pytest.approx(0.2 - half, abs=1e-6)
    alone = [replace(one, n_groups=1) for one in better]
    assert str(find_gain(alone, worse, "AP")) == "+0.200 (one group of images)"
    assert decide([find_gain(alone, worse, "AP")]) == "not shown"


def test_groups_on_which_both_sides_move_alike_do_not_widen_the_interval() -> None:
    moves = [-0.2, 0.1, 0.1]
    better, worse = ([judged_as(score, np.add(moves, score)) for _ in range(2)] for score in (0.5, 0.4))
    gain = find_gain(better, worse, "AP")
    assert (gain.low, gain.high) == pytest.approx((0.1, 0.1))


def test_one_seed_has_a_difference_and_no_interval() -> None:
    gain = find_gain([judged_as(0.5, [0.5, 0.6])], [judged_as(0.4, [0.4, 0.4])], "AP")
    assert gain.mean == pytest.approx(0.1)
    assert np.isnan([gain.low, gain.high]).all()
    assert decide([gain]) == "not shown"
    assert "one seed" in str(gain)
    unknown = find_gain([judged_as(np.nan, [np.nan])] * 3, [judged_as(0.4, [0.4])] * 3, "AP")
    assert str(unknown) == "no animal to score by"
    with pytest.raises(ValueError, match="expected as many trainings on both sides, found 1 and 2"):
        find_gain([judged_as(0.5, [0.5])], [judged_as(0.4, [0.4])] * 2, "AP")


def test_intervals_cover_the_true_gain() -> None:
    """Groups and seeds both vary: in 95 of 100 experiments the true gain lies inside, or in a few more or less."""
    rng, n_inside, n_runs, n_groups, true = np.random.default_rng(0), 0, 400, 20, 0.05
    for _ in range(n_runs):
        groups = rng.normal(true, 0.1, n_groups)  # what each group of images gains
        draws = rng.integers(0, n_groups, (200, n_groups))
        seeds = rng.normal(0, 0.03, 3)
        better = [judged_as(groups.mean() + seed, groups[draws].mean(axis=1) + seed, n_groups) for seed in seeds]
        gain = find_gain(better, [judged_as(0, np.zeros(200))] * 3, "AP")
        n_inside += gain.low <= true <= gain.high
    assert 0.93 <= n_inside / n_runs <= 0.995


def test_a_training_is_judged_by_its_effective_groups() -> None:
    images, truth, found = draw_boxes(0)
    counts = draw_gain_counts(images, 0)
    expected = count_groups(images, truth)
    assert expected < images["group"].nunique() and judge_boxes(images, truth, found, counts).n_groups == expected


def test_intervals_cover_the_true_gain_where_one_video_has_most_animals() -> None:
    """As above, with groups of very different sizes: by their mere number too few experiments would hold it."""
    sizes = np.array([25, 12, 6, 4, 3, 2, *[1] * 14])
    images = pd.DataFrame({"image_id": np.arange(20), "group": np.arange(20)})
    n_groups = count_groups(images, pd.DataFrame({"image_id": np.repeat(np.arange(20), sizes), "label": "pig"}))
    assert n_groups == pytest.approx(sizes.sum() ** 2 / (sizes**2).sum()) == pytest.approx(5.137, abs=1e-3)
    rng, inside, n_runs, true = np.random.default_rng(0), {n_groups: 0, 20.0: 0}, 400, 0.05
    for _ in range(n_runs):
        groups = rng.normal(true, 0.1, 20)
        draws = rng.integers(0, 20, (200, 20))
        resampled = (groups * sizes)[draws].sum(axis=1) / sizes[draws].sum(axis=1)
        score = (groups * sizes).sum() / sizes.sum()
        for number in inside:
            gain = find_gain([judged_as(score, resampled, number)] * 2, [judged_as(0, np.zeros(200))] * 2, "AP")
            inside[number] += gain.low <= true <= gain.high
    assert inside[20.0] / n_runs < 0.9 <= inside[n_groups] / n_runs <= 0.995


def gain_of(low: float, high: float) -> Gain:
    return Gain((low + high) / 2, low, high, 3)


def test_a_claim_about_several_needs_all_of_them_and_falls_with_one() -> None:
    above, across, below = gain_of(0.1, 0.2), gain_of(-0.1, 0.2), gain_of(-0.2, -0.1)
    assert decide([above, above]) == "shown"
    assert decide([above, across]) == "not shown"
    assert decide([above, across, below]) == "shown to be wrong"
    assert decide([]) == "not shown"


def test_the_gain_that_is_shown_is_the_one_that_decides() -> None:
    """A rival with a larger mean gain but a wider interval is why a claim is not shown."""
    first = [judged_as(score, [score] * 2) for score in (0.50, 0.50, 0.50)]
    near = [judged_as(score, [score] * 2) for score in (0.481, 0.480, 0.479)]
    unsure = [judged_as(score, [score] * 2) for score in (0.30, 0.45, 0.52)]
    table = decide_claims({"a": first, "near": near, "unsure": unsure},
                          [Claim("a beats both", "a", ["near", "unsure"], "AP")])
    row = table.iloc[0]
    assert (row["rival"], row["verdict"]) == ("unsure", "not shown")
    assert row["low"] < 0 < row["gain"]
    above = [judged_as(score, [score] * 2) for score in (0.53, 0.54, 0.55)]
    row = decide_claims({"a": first, "above": above, "unsure": unsure},
                        [Claim("a beats both", "a", ["unsure", "above"], "AP")]).iloc[0]
    assert (row["rival"], row["verdict"]) == ("above", "shown to be wrong")
    assert row["high"] < 0


def test_claims_name_the_nearest_rival() -> None:
    judged = {"a": [judged_as(0.5, [0.5] * 2)] * 3, "b": [judged_as(0.45, [0.45] * 2)] * 3,
              "c": [judged_as(0.1, [0.1] * 2)] * 3}
    table = decide_claims(judged, [Claim("a beats both", "a", ["b", "c"], "AP"), Claim("c beats a", "c", ["a"], "AP")])
    assert table["gain"].tolist() == pytest.approx([0.05, -0.4])
    assert table["verdict"].tolist() == ["shown", "shown to be wrong"]


def test_the_best_of_several_needs_a_wider_interval() -> None:
    """A winner that was chosen among twelve by luck is rarely shown to be the best."""
    rng, n_shown = np.random.default_rng(1), 0
    for _ in range(200):
        judged = {str(arm): [judged_as(rng.normal(0.5, 0.02), [0.5, 0.5]) for _ in range(3)] for arm in range(4)}
        winner, verdict, nearest = find_winner(judged, "AP")
        means = {arm: np.mean([one.scores["AP"] for one in runs]) for arm, runs in judged.items()}
        assert winner == max(means, key=means.__getitem__)
        assert nearest["gain"] == pytest.approx(sorted(means.values())[-1] - sorted(means.values())[-2])
        n_shown += verdict == "shown"
    assert n_shown / 200 <= 0.05
    sure = {"a": [judged_as(score, [score] * 2) for score in (0.50, 0.51, 0.52)],
            "b": [judged_as(score, [score] * 2) for score in (0.40, 0.41, 0.42)]}
    assert find_winner(sure, "AP")[:2] == ("a", "shown")
