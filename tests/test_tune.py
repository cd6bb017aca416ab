"""The point is chosen from the plateau, and nothing of a part is known when its boxes are chosen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sweep import draw_tables

from livestock.postprocess import choose, find_plateau, leave_outs, score_points, split_parts, suppress, sweep
from livestock.postprocess import tune as tune_thresholds
from livestock.tables import make_images

NAMES = ["iou_threshold", "conf_threshold"]
IMAGE_IDS = [f"{index}.jpg" for index in range(10)]
PARTS = pd.Series(np.arange(10) % 5, index=IMAGE_IDS)


def grid_surface(truth: pd.DataFrame, candidates: pd.DataFrame, parts: pd.Series = PARTS) -> pd.DataFrame:
    return sweep(truth, candidates, iou_thresholds=[0.3, 0.5, 0.7], conf_thresholds=[0.1, 0.4], metric_ious=[0.5],
                 parts=parts, leave_out=leave_outs(5))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_points_scored_one_by_one_make_the_surface_of_the_sweep(seed: int) -> None:
    truth, candidates = draw_tables(np.random.default_rng(seed), 10, 9)
    swept = grid_surface(truth, candidates)
    answers = {(iou, conf): suppress(candidates, iou_threshold=iou, conf_threshold=conf)
               for iou in (0.3, 0.5, 0.7) for conf in (0.1, 0.4)}
    scored = score_points(truth, answers, NAMES, PARTS, 0.5)
    keys = [*NAMES, "left_out"]
    both = swept.merge(scored, on=keys, suffixes=("", "_alone"))
    assert len(both) == len(swept) == len(scored)
    np.testing.assert_allclose(both["mAP"], both["mAP_alone"], atol=1e-9)


def make_surface(scores: dict[float, list[float]]) -> pd.DataFrame:
    """Scores at each IoU: of all images, then without part 0, 1, 2."""
    return pd.DataFrame([{"iou_threshold": iou, "left_out": left_out, "mAP": score} for iou, row in scores.items()
                         for left_out, score in zip([(), (0,), (1,), (2,)], row, strict=True)])


def test_the_plateau_is_what_lies_within_one_jackknife_error() -> None:
    plateau = find_plateau(make_surface({0.4: [0.40, 0.40, 0.40, 0.40], 0.5: [0.50, 0.47, 0.51, 0.53],
                                         0.6: [0.52, 0.53, 0.52, 0.51]}), ["iou_threshold"])
    # The best is 0.6; 0.5 loses 0.02, without a part 0.06, 0.01 and -0.02: mean 1/60, squares about it .003267.
    assert plateau["loss"].tolist() == pytest.approx([0.12, 0.02, 0])
    losses = np.array([0.06, 0.01, -0.02])
    assert plateau["error"].tolist()[1] == pytest.approx(np.sqrt(2 / 3 * ((losses - losses.mean()) ** 2).sum()))
    assert plateau["on_plateau"].tolist() == [False, True, True]


def test_the_middle_of_the_run_around_the_best_is_chosen_at_its_lowest_confidence() -> None:
    level = pd.DataFrame({"score": [1, 5, 5, 5, 6, 5, 1, 5, 6, 6.0], "on_plateau": [0, 1, 1, 1, 1, 1, 0, 1, 1, 1]},
                         index=pd.MultiIndex.from_tuples([*((iou / 10, 0.1) for iou in range(8)), (0.4, 0.5), (0.4, 0)],
                                                         names=NAMES))
    level["on_plateau"] = level["on_plateau"].astype(bool)
    assert choose(level) == {"iou_threshold": 0.4, "conf_threshold": 0.0}  # 0 alone is on the line of the best
    assert choose(level.drop((0.4, 0))) == {"iou_threshold": 0.3, "conf_threshold": 0.1}  # of 0.1 to 0.5, not 0.7


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), part=st.integers(0, 4))
def test_the_boxes_of_a_part_do_not_depend_on_its_truth(seed: int, part: int) -> None:
    rng = np.random.default_rng(seed)
    truth, candidates = draw_tables(rng, 10, 9)
    other = draw_tables(rng, 10, 9)[0]
    inside = [table["image_id"].map(PARTS) == part for table in (truth, other)]
    changed = pd.concat([truth[~inside[0]], other[inside[1]]])

    def boxes_at(point: dict[str, float]) -> pd.DataFrame:
        return suppress(candidates, **point)

    held_out = [tune_thresholds(grid_surface(t, candidates), NAMES, boxes_at, PARTS).held_out for t in (truth, changed)]
    own = [boxes[boxes["image_id"].map(PARTS) == part].reset_index(drop=True) for boxes in held_out]
    pd.testing.assert_frame_equal(own[0], own[1])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), part=st.integers(0, 4))
def test_what_is_tuned_without_a_part_knows_nothing_of_it(seed: int, part: int) -> None:
    """`inner` of a part is what tuning gives where the part does not exist: nothing of it enters."""
    rng = np.random.default_rng(seed)
    truth, candidates = draw_tables(rng, 10, 9)
    outside = PARTS.index[~PARTS.eq(part)]

    def boxes_at(point: dict[str, float]) -> pd.DataFrame:
        return suppress(candidates, **point)

    inner = tune_thresholds(grid_surface(truth, candidates), NAMES, boxes_at, PARTS).inner[part]
    left, parts = truth[truth["image_id"].isin(outside)], PARTS[outside]
    alone = grid_surface(left, candidates[candidates["image_id"].isin(outside)], parts)
    alone = alone[alone["left_out"].map(lambda left_out: part not in left_out)]  # it has no images, so no choice
    expected = tune_thresholds(alone, NAMES, boxes_at, parts).held_out
    pd.testing.assert_frame_equal(inner, expected)


def test_each_point_is_taken_once_and_boxes_are_those_of_their_points() -> None:
    truth, candidates = draw_tables(np.random.default_rng(2), 10, 9)
    surface, asked = grid_surface(truth, candidates), []

    def boxes_at(point: dict[str, float]) -> pd.DataFrame:
        asked.append(tuple(point.values()))
        return suppress(candidates, **point)

    tuned = tune_thresholds(surface, NAMES, boxes_at, PARTS)
    assert len(asked) == len(set(asked)) > 1
    for part in range(5):
        for without, boxes in [((part,), tuned.held_out),
                               *(((part, other), tuned.inner[other]) for other in range(5) if other != part)]:
            point = choose(find_plateau(surface, NAMES, without=tuple(sorted(without))))
            everything = suppress(candidates, **point)
            pd.testing.assert_frame_equal(
                boxes[boxes["image_id"].map(PARTS) == part].reset_index(drop=True),
                everything[everything["image_id"].map(PARTS) == part].reset_index(drop=True))
    assert all(set(boxes["image_id"].map(PARTS)) == set(range(5)) - {part} for part, boxes in tuned.inner.items())


def test_a_sharp_best_point_is_found_and_used_everywhere() -> None:
    """Copies of every true box that overlap it by 0.67 stand after it: only an IoU threshold below that drops them."""
    truth = draw_tables(np.random.default_rng(5), 10, 9)[0]
    shifted = truth.assign(x_min=truth["x_min"] + 0.2 * (truth["x_max"] - truth["x_min"]),
                           x_max=truth["x_max"] + 0.2 * (truth["x_max"] - truth["x_min"]))
    rank = np.arange(len(truth)) / len(truth)
    candidates = pd.concat([truth.assign(confidence=1 - rank / 2), shifted.assign(confidence=0.99 - rank / 2)])
    surface = sweep(truth, candidates, iou_thresholds=[0.6, 0.9], metric_ious=[0.9], parts=PARTS,
                    leave_out=leave_outs(5))
    tuned = tune_thresholds(surface, NAMES, lambda point: suppress(candidates, **point), PARTS)
    assert tuned.point == {"iou_threshold": 0.6, "conf_threshold": 0.001}
    assert tuned.plateau["on_plateau"].tolist() == [True, False]
    alone = suppress(candidates, iou_threshold=0.6)
    pd.testing.assert_frame_equal(
        tuned.held_out.sort_values(["image_id", "confidence"], ignore_index=True),
        alone.sort_values(["image_id", "confidence"], ignore_index=True))


def test_parts_hold_groups_together_and_are_of_a_size() -> None:
    images = make_images([{"image_id": f"{index:03d}.jpg", "archive": "", "member": "", "width": 1, "height": 1}
                          for index in range(100)])
    images["group"] = np.where(np.arange(100) < 30, np.arange(100) // 3, -1)
    parts = split_parts(images, np.random.default_rng(0))
    assert parts.index.tolist() == images["image_id"].tolist()
    assert parts.value_counts().between(19, 21).all() and sorted(parts.unique()) == [0, 1, 2, 3, 4]
    by_group = parts.to_numpy()[:30].reshape(10, 3)
    assert (by_group == by_group[:, :1]).all()
    assert not parts.equals(split_parts(images, np.random.default_rng(1)))
