"""Calibrated confidences are shares of right boxes, keep the order of a class, and make fusion of two scales fair."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestock.evaluation import evaluate
from livestock.postprocess import calibrate_out_of_part, fit_calibration, fuse
from livestock.tables import make_boxes, make_images

N = 400  # images of one animal each
NAMES = [f"{index:03d}.jpg" for index in range(N)]
TRUTH = make_boxes([{"image_id": name, "label": "pig" if index % 3 else "cow", "x_min": 0, "y_min": 0, "x_max": 50,
                     "y_max": 50} for index, name in enumerate(NAMES)])
IMAGES = make_images([{"image_id": name, "archive": "", "member": "", "width": 100, "height": 100} for name in NAMES])


def see(rng: np.random.Generator, power: float) -> pd.DataFrame:
    """One box an image, on the animal with the probability `p`, whose confidence says `p ** power`."""
    p = rng.uniform(0.05, 0.95, N)
    wrong = rng.random(N) > p
    return TRUTH.assign(x_min=np.where(wrong, 55.0, 0.0), x_max=np.where(wrong, 95.0, 50.0), confidence=p**power,
                        source="model")


@pytest.mark.parametrize("power", [1.0, 4.0, 0.25])
def test_a_calibrated_confidence_is_the_share_of_right_boxes(power: float) -> None:
    fitted, fresh = (see(np.random.default_rng(seed), power) for seed in (0, 1))
    found = fit_calibration(fitted, TRUTH, 0.75)(fresh)["confidence"]
    share = fresh["confidence"] ** (1 / power)
    for label in ("pig", "cow"):
        mine = (fresh["label"] == label).to_numpy()
        assert np.abs(found[mine] - share[mine]).mean() < 0.08  # of 130 and 270 boxes
    if power != 1.0:
        assert np.abs(fresh["confidence"] - share).mean() > 0.2


@settings(max_examples=30, deadline=None)
@given(confidence=st.lists(st.sampled_from([0.01, 0.2, 0.21, 0.5, 0.9, 0.99]), min_size=2, max_size=40),
       right=st.randoms(use_true_random=False))
def test_the_order_of_a_class_stays_and_with_it_its_ap(confidence: list[float], right: object) -> None:
    n = len(confidence)
    boxes = TRUTH.iloc[:n].assign(label="pig", confidence=confidence,
                                  x_max=[50.0 if right.random() < 0.5 else 20.0 for _ in range(n)])  # type: ignore[attr-defined]
    truth = TRUTH.iloc[:n].assign(label="pig")
    found = fit_calibration(boxes, truth, 0.75)(boxes)
    assert found["confidence"].between(0, 1).all()
    ranks = (table["confidence"].rank(method="dense").tolist() for table in (boxes, found))
    assert next(ranks) == next(ranks)
    assert evaluate(truth, found, 0.75).mean == evaluate(truth, boxes, 0.75).mean
    pd.testing.assert_frame_equal(found.drop(columns="confidence"), boxes.drop(columns="confidence"))


def test_a_class_without_truth_gets_the_curve_of_all_and_none_at_all_is_an_error() -> None:
    seen = see(np.random.default_rng(0), 1.0)
    pigs = TRUTH[TRUTH["label"] == "pig"]
    calibrate = fit_calibration(seen, pigs, 0.75)
    cows = seen[seen["label"] == "cow"]
    renamed = calibrate(cows.assign(label="goat"))["confidence"]
    assert renamed.tolist() == calibrate(cows)["confidence"].tolist()
    with pytest.raises(ValueError, match="at least one true box"):
        fit_calibration(seen, TRUTH.iloc[:0], 0.75)


def test_a_part_is_calibrated_without_its_own_truth() -> None:
    seen, parts = see(np.random.default_rng(0), 1.0), pd.Series(np.arange(N) % 5, index=NAMES)
    found = calibrate_out_of_part(seen, TRUTH, parts, 0.75)
    assert sorted(found["image_id"]) == sorted(seen["image_id"])
    of_first = parts.index[parts == 0]
    moved = TRUTH.assign(y_max=TRUTH["y_max"].where(~TRUTH["image_id"].isin(of_first), 5.0))
    again = calibrate_out_of_part(seen, moved, parts, 0.75)
    mine = found["image_id"].isin(of_first)
    assert found[mine].equals(again[mine]) and not found[~mine].equals(again[~mine])


def test_a_class_that_was_hardly_seen_keeps_its_boxes_and_a_part_with_all_truth_its_confidences() -> None:
    seen = see(np.random.default_rng(0), 1.0)
    pigs = seen[seen["label"] == "pig"]
    cow = seen[seen["label"] == "cow"].iloc[:1].assign(confidence=0.9)
    found = fit_calibration(pigs, TRUTH, 0.75)(cow)["confidence"].iloc[0]  # no cow was seen, and people know of many
    assert found == pytest.approx(fit_calibration(pigs, TRUTH, 0.75)(cow.assign(label="pig"))["confidence"].iloc[0])
    assert found > 0.5
    parts = pd.Series(np.arange(N) % 5, index=NAMES)
    of_first = TRUTH[TRUTH["image_id"].map(parts) == 0]
    alone = calibrate_out_of_part(seen, of_first, parts, 0.75)
    mine = alone["image_id"].map(parts) == 0
    expected = seen[seen["image_id"].map(parts) == 0]["confidence"]
    assert alone[mine]["confidence"].tolist() == expected.tolist()


def test_two_scales_are_fused_better_when_calibrated() -> None:
    """One member's confidences are all high and the other's all low: fused as they are, the first one decides."""
    loud, quiet = see(np.random.default_rng(0), 0.1), see(np.random.default_rng(1), 6.0)
    parts = pd.Series(np.arange(N) % 5, index=NAMES)
    calibrated = [calibrate_out_of_part(boxes, TRUTH, parts, 0.75) for boxes in (loud, quiet)]
    before, after = (evaluate(TRUTH, fuse(members, IMAGES, "wbf"), 0.75).mean
                     for members in ([loud, quiet], calibrated))
    alone = max(evaluate(TRUTH, boxes, 0.75).mean for boxes in (loud, quiet))
    assert after > before + 0.02 and after > alone
