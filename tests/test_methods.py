"""Each method is tuned, judged on what it was not tuned on, and gives at its parameters what its parts give."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_sweep import draw_tables

from livestock.evaluation import evaluate
from livestock.postprocess import (
    EVERY_CLASS,
    METHODS,
    apply,
    describe_points,
    fuse,
    soft_suppress,
    split_parts,
    suppress,
    tune_method,
)
from livestock.postprocess.methods import (
    COPIES_IOU,
    FUSION_CONFIDENCE,
    IOU_THRESHOLDS,
    LOOSE_IOUS,
    PASS_IOU,
    Method,
)
from livestock.tables import XYXY, make_images

IMAGES = make_images([{"image_id": f"{index}.jpg", "archive": "", "member": "", "width": 450, "height": 450}
                      for index in range(10)])
PARTS = split_parts(IMAGES, np.random.default_rng(0))


@pytest.fixture(scope="module")
def tables() -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Truth, and the candidates of three passes that see it a little differently."""
    truth, candidates = draw_tables(np.random.default_rng(3), 10, 9)
    candidates[XYXY] = candidates[XYXY].clip(0, 450)
    candidates = candidates[candidates["label"] != "dog"]
    rng = np.random.default_rng(4)
    return truth, [candidates.assign(**(candidates[XYXY] + rng.normal(0, 2, (len(candidates), 4))).clip(0, 450))
                   for _ in range(3)]


@pytest.mark.parametrize("name", list(METHODS))
def test_a_tuned_method_holds_out_a_box_table_of_all_images(name: str, tables: tuple) -> None:
    truth, passes = tables
    method = METHODS[name]
    members = passes[: len(method.passes)]
    tuned = tune_method(method, members, truth, IMAGES, PARTS, 0.5)
    assert set(tuned.points) == ({EVERY_CLASS, "cow", "pig"} if method.kind == "nms_by_class" else {EVERY_CLASS})
    final = apply(method.kind, members, IMAGES, tuned.points)
    assert set(final["image_id"]) == set(tuned.held_out["image_id"]) == set(members[0]["image_id"])
    assert (final.groupby("image_id")["confidence"].diff().dropna() <= 0).all()
    assert 0.2 < evaluate(truth, tuned.held_out, 0.5).mean <= 1
    assert set(tuned.inner) == set(range(5)) and all(0.1 < own.score <= 1 for own in tuned.inner.values())
    best = tuned.plateau["score"].max()
    assert tuned.plateau.loc[tuned.plateau["on_plateau"], "score"].min() > best - 0.2


def test_suppression_of_a_network_that_marks_once_is_loose_for_one_pass_alone(tables: tuple) -> None:
    truth, passes = tables
    for n_passes, expected in ((1, LOOSE_IOUS), (2, IOU_THRESHOLDS)):
        method = Method("nms", ("plain", "flipped")[:n_passes])
        tuned = tune_method(method, passes[:n_passes], truth, IMAGES, PARTS, 0.5, marks_once=True)
        assert sorted(tuned.surface["iou_threshold"].unique()) == expected
    once = passes[0].drop_duplicates(["image_id", "label"])
    tuned = tune_method(Method("nms", ("plain",)), [once], truth, IMAGES, PARTS, 0.5, marks_once=True)
    nothing = tuned.surface[(tuned.surface["iou_threshold"] == 1) & (tuned.surface["left_out"] == ())]
    assert nothing["mAP"].max() == pytest.approx(evaluate(truth, once, 0.5).mean)


@pytest.mark.parametrize("name", list(METHODS))
def test_no_candidate_scores_nothing(name: str, tables: tuple) -> None:
    truth, passes = tables
    members = [passes[0].iloc[:0]] * len(METHODS[name].passes)
    tuned = tune_method(METHODS[name], members, truth, IMAGES, PARTS, 0.5)
    assert tuned.held_out.empty and list(tuned.held_out) == list(truth)
    assert evaluate(truth, tuned.held_out, 0.5).mean == 0


def test_kinds_are_what_their_parts_are(tables: tuple) -> None:
    _, passes = tables
    pooled = pd.concat(passes[:2])
    at = {"iou_threshold": 0.6, "conf_threshold": 0.1}
    every = {EVERY_CLASS: at}
    pd.testing.assert_frame_equal(apply("nms", passes[:2], IMAGES, every), suppress(pooled, **at))
    pd.testing.assert_frame_equal(apply("nms_agnostic", passes[:2], IMAGES, every),
                                  suppress(pooled, agnostic=True, **at))
    by_class = apply("nms_by_class", passes[:1], IMAGES, {EVERY_CLASS: at, "pig": {**at, "iou_threshold": 0.3}})
    for label, iou in (("cow", 0.6), ("pig", 0.3)):
        alone = suppress(passes[0][passes[0]["label"] == label], iou_threshold=iou, conf_threshold=0.1)
        pd.testing.assert_frame_equal(by_class[by_class["label"] == label].reset_index(drop=True), alone)
    thinned = suppress(passes[0], iou_threshold=COPIES_IOU)
    pd.testing.assert_frame_equal(apply("soft_nms", passes[:1], IMAGES, {EVERY_CLASS: {"sigma": 0.3}}),
                                  soft_suppress(thinned, IMAGES, sigma=0.3))
    each = [suppress(boxes, iou_threshold=PASS_IOU, conf_threshold=FUSION_CONFIDENCE) for boxes in passes]
    pd.testing.assert_frame_equal(apply("wbf", passes, IMAGES, {EVERY_CLASS: {"iou_threshold": 0.7}}),
                                  fuse(each, IMAGES, "wbf", iou_threshold=0.7))
    with pytest.raises(ValueError, match="kind: expected one of .*, found 'vote'"):
        apply("vote", passes, IMAGES, every)


def test_a_class_whose_truth_lies_in_one_part_is_tuned_without_it(tables: tuple) -> None:
    """When that part judges, nothing is known of the class: all thresholds are level, and the middle one is taken."""
    truth, passes = tables
    truth = truth[(truth["label"] == "pig") | (truth["image_id"].map(PARTS) == 2)]
    tuned = tune_method(Method("nms_by_class", ("plain",)), passes[:1], truth, IMAGES, PARTS, 0.5)
    inside = tuned.held_out[(tuned.held_out["label"] == "cow") & (tuned.held_out["image_id"].map(PARTS) == 2)]
    cows = passes[0][(passes[0]["label"] == "cow") & (passes[0]["image_id"].map(PARTS) == 2)]
    middle = suppress(cows, iou_threshold=IOU_THRESHOLDS[(len(IOU_THRESHOLDS) - 1) // 2])
    pd.testing.assert_frame_equal(inside.reset_index(drop=True), middle)


def test_class_thresholds_without_a_part_are_tuned_without_its_truth(
    tables: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inner scores of each class at its own point are the same whatever is true in the part."""
    monkeypatch.setattr("livestock.postprocess.methods.IOU_THRESHOLDS", IOU_THRESHOLDS[::3])
    monkeypatch.setattr("livestock.postprocess.methods.CONF_THRESHOLDS", [0.001, 0.2])
    truth, passes = tables
    method, moved = METHODS["suppression, thresholds by class"], 0
    known = tune_method(method, passes[:1], truth, IMAGES, PARTS, 0.5)
    for part in range(5):
        changed = truth[truth["image_id"].map(PARTS) != part]
        without = tune_method(method, passes[:1], changed, IMAGES, PARTS, 0.5)
        assert known.inner[part].contributions.tolist() == without.inner[part].contributions.tolist()
        moved += not known.held_out.equals(without.held_out)
    assert moved  # elsewhere that truth does count


def test_points_are_said_in_words() -> None:
    at = {"iou_threshold": 0.65, "conf_threshold": 0.001}
    assert describe_points({EVERY_CLASS: at}) == "IoU 0.65, confidence 0.001"
    assert describe_points({EVERY_CLASS: at, "pig": {"sigma": 0.3}}) == (
        "others: IoU 0.65, confidence 0.001; pig: sigma 0.3")


def test_a_class_without_any_truth_is_answered_all_the_same(tables: tuple) -> None:
    truth, passes = tables
    for known in (truth[truth["label"] == "cow"], truth.iloc[:0]):
        tuned = tune_method(METHODS["suppression, thresholds by class"], passes[:1], known, IMAGES, PARTS, 0.5)
        assert set(tuned.held_out["label"]) == {"cow", "pig"}
        assert set(apply("nms_by_class", passes[:1], IMAGES, tuned.points)["label"]) == {"cow", "pig"}
