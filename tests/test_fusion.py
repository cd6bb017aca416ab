"""Fused boxes against sums done by hand, soft suppression against a loop written from the paper."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sweep import draw_tables

from livestock.geometry import pairwise_iou
from livestock.postprocess import fuse, soft_suppress, suppress
from livestock.tables import XYXY, make_boxes, make_images

IMAGES = make_images([{"image_id": name, "archive": "", "member": name, "width": 500, "height": 450}
                      for name in [*(f"{index}.jpg" for index in range(6)), "a.jpg"]])


def one_box(x_min: float, confidence: float, label: str = "pig") -> pd.DataFrame:
    return make_boxes([{"image_id": "a.jpg", "label": label, "x_min": x_min, "y_min": 100.0, "x_max": x_min + 100,
                        "y_max": 200.0, "confidence": confidence, "source": "model"}])


def test_wbf_averages_corners_and_confidence() -> None:
    (found,) = fuse([one_box(100, 0.9), one_box(110, 0.3)], IMAGES, "wbf", iou_threshold=0.5).itertuples()
    x_min = (0.9 * 100 + 0.3 * 110) / 1.2  # the paper's equations 1 to 4
    assert (found.x_min, found.x_max, found.y_min, found.y_max) == pytest.approx((x_min, x_min + 100, 100, 200),
                                                                                abs=1e-3)
    assert found.confidence == pytest.approx(0.6, abs=1e-6)
    assert (found.image_id, found.label, found.source) == ("a.jpg", "pig", "model")


def test_wbf_believes_half_of_what_one_of_two_passes_saw() -> None:
    found = fuse([one_box(100, 0.8), one_box(100, 0.8).iloc[:0]], IMAGES, "wbf")
    assert found["confidence"].tolist() == pytest.approx([0.4])


def test_nmw_weighs_corners_by_confidence_and_overlap() -> None:
    (found,) = fuse([one_box(100, 0.9), one_box(110, 0.3)], IMAGES, "nmw", iou_threshold=0.5).itertuples()
    weight = 0.3 * 90 / 110  # its overlap with the surest, whose own is 1
    assert found.x_min == pytest.approx((0.9 * 100 + weight * 110) / (0.9 + weight), abs=1e-3)
    assert found.confidence == pytest.approx(0.9, abs=1e-6)


def test_a_fused_box_is_a_new_box() -> None:
    """Its id is the same each time, and another one for other boxes, another method or another IoU."""
    first, second = one_box(100, 0.9), one_box(110, 0.3).assign(box_id=7)
    ids = [fuse(members, IMAGES, method, iou_threshold=iou)["box_id"].item()
           for members, method, iou in [([first, second], "wbf", 0.5), ([first, second], "nmw", 0.5),
                                        ([first, second], "wbf", 0.6), ([first, first], "wbf", 0.5),
                                        ([second, first], "wbf", 0.5), ([first], "wbf", 0.5)]]
    assert len({*ids, first["box_id"].item(), 7}) == len(ids) + 2
    assert fuse([first, second], IMAGES, "wbf", iou_threshold=0.5)["box_id"].item() == ids[0]


def test_fused_boxes_of_an_image_differ() -> None:
    found = fuse([one_box(100, 0.9), one_box(300, 0.8), one_box(102, 0.7, "cow")], IMAGES, "wbf", iou_threshold=0.5)
    assert found["box_id"].nunique() == 3


def test_a_box_that_is_softly_suppressed_keeps_its_id() -> None:
    rows = [one_box(100, 0.9).assign(box_id=3), one_box(110, 0.8).assign(box_id=2), one_box(300, 0.85).assign(box_id=1),
            one_box(100, 0.7, "cow").assign(box_id=4)]
    found = soft_suppress(pd.concat(rows), IMAGES, sigma=0.5)
    assert found.set_index("box_id")["x_min"].to_dict() == {3: 100, 1: 300, 2: 110, 4: 100}
    assert found["confidence"].is_monotonic_decreasing


@pytest.mark.parametrize("method", ["wbf", "nmw"])
def test_what_does_not_overlap_or_is_of_another_class_stays(method: str) -> None:
    found = fuse([one_box(100, 0.9), one_box(300, 0.8), one_box(102, 0.7, "cow")], IMAGES, method, iou_threshold=0.5)
    assert sorted(found["label"]) == ["cow", "pig", "pig"]
    assert found["x_min"].sort_values().tolist() == pytest.approx([100, 102, 300], abs=1e-3)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), method=st.sampled_from(["wbf", "nmw"]))
def test_one_pass_without_overlaps_is_left_alone(seed: int, method: str) -> None:
    inside = draw_tables(np.random.default_rng(seed), 6, 9)[1]
    inside[XYXY] = inside[XYXY].clip(lower=0)
    kept = suppress(inside, iou_threshold=0.4, conf_threshold=0.1)
    found = fuse([kept], IMAGES, method, iou_threshold=0.4, conf_threshold=0.1)
    assert found[["image_id", "label"]].equals(kept[["image_id", "label"]])
    np.testing.assert_allclose(found[[*XYXY, "confidence"]], kept[[*XYXY, "confidence"]], rtol=1e-5, atol=1e-3)


def soften(corners: np.ndarray, confidence: np.ndarray, sigma: float, floor: float) -> list[tuple[float, ...]]:
    """Figure 2 of Bodla et al.: take the surest, lower all that are left, again until none is above the floor."""
    boxes, scores, kept = list(corners), list(confidence), []
    while boxes and max(scores) > floor:
        surest = int(np.argmax(scores))
        box, score = boxes.pop(surest), scores.pop(surest)
        kept.append((*box, score))
        scores = [s * np.exp(-pairwise_iou(box[None], b[None])[0, 0] ** 2 / sigma)
                  for b, s in zip(boxes, scores, strict=True)]
    return kept


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), sigma=st.sampled_from([0.1, 0.5, 2.0]))
def test_soft_suppression_is_the_papers_loop(seed: int, sigma: float) -> None:
    candidates = draw_tables(np.random.default_rng(seed), 6, 9)[1]
    found = soft_suppress(candidates, IMAGES, sigma=sigma, conf_threshold=0.05)
    above = candidates[candidates["confidence"] > 0.05]
    assert set(found["image_id"]) == set(above["image_id"])
    for (image_id, label), own in above.groupby(["image_id", "label"]):
        expected = soften(own[XYXY].to_numpy(), own["confidence"].to_numpy(), sigma, 0.05)
        mine = found[(found["image_id"] == image_id) & (found["label"] == label)]
        np.testing.assert_allclose(mine[[*XYXY, "confidence"]], np.array(expected).reshape(-1, 5), rtol=1e-9)
    assert (found.groupby("image_id")["confidence"].diff().dropna() <= 0).all()


def test_no_box_gives_no_box_and_the_cap_holds() -> None:
    none = one_box(100, 0.9).iloc[:0]
    assert fuse([none, none], IMAGES, "wbf").empty and soft_suppress(none, IMAGES).empty
    two = pd.concat([one_box(100, 0.9), one_box(300, 0.8)])
    assert fuse([two], IMAGES, "wbf", max_det=1)["confidence"].tolist() == pytest.approx([0.9])
    assert soft_suppress(two, IMAGES, max_det=1)["confidence"].tolist() == pytest.approx([0.9])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method: expected one of \['nmw', 'wbf'\], found 'nms'"):
        fuse([one_box(100, 0.9)], IMAGES, "nms")
    with pytest.raises(ValueError, match="iou_threshold: expected a number from 0 to 1, found 2"):
        fuse([one_box(100, 0.9)], IMAGES, "wbf", iou_threshold=2)
    with pytest.raises(ValueError, match="sigma: expected a number above 0, found 0"):
        soft_suppress(one_box(100, 0.9), IMAGES, sigma=0)
    with pytest.raises(ValueError, match="images: expected 'a.jpg', which has boxes, among them"):
        fuse([one_box(100, 0.9)], IMAGES.iloc[:0], "wbf")
