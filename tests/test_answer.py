"""Which images may be without a row in the answer: those in which the method leaves no box."""

from __future__ import annotations

import logging

import pytest

from livestock.pipeline.answer import find_boxless
from livestock.postprocess import EVERY_CLASS, apply
from livestock.tables import make_boxes, make_images

IMAGES = make_images([{"image_id": name, "archive": "", "member": name, "width": 100, "height": 100}
                      for name in ("sure.jpg", "doubtful.jpg", "empty.jpg")])
CANDIDATES = make_boxes([
    {"image_id": name, "label": label, "x_min": x, "y_min": 10, "x_max": x + 20, "y_max": 40, "confidence": confidence,
     "source": "model"}
    for name, label, x, confidence in (
        ("sure.jpg", "pig", 10, 0.9), ("sure.jpg", "cow", 60, 0.02), ("doubtful.jpg", "pig", 30, 0.04),
        ("doubtful.jpg", "cow", 60, 0.02))])


@pytest.mark.parametrize(("conf_threshold", "boxless"), [
    (0.001, ["empty.jpg"]), (0.05, ["doubtful.jpg", "empty.jpg"]), (0.95, sorted(IMAGES["image_id"]))])
def test_a_tuned_confidence_may_leave_images_without_a_box(
    conf_threshold: float, boxless: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Such an answer is as it should be, and is not refused; how many images it concerns is said."""
    boxes = apply("nms", [CANDIDATES], IMAGES, {EVERY_CLASS: {"iou_threshold": 0.6, "conf_threshold": conf_threshold}})
    with caplog.at_level(logging.WARNING):
        assert find_boxless(IMAGES, boxes) == boxless
    assert f"answer: {len(boxless)} of 3 images have no box: {boxless[0]}" in caplog.text


def test_what_is_too_doubtful_to_be_fused_leaves_no_box() -> None:
    """Fusion has a confidence of its own, 0.01, which stands in none of its parameters."""
    points = {EVERY_CLASS: {"iou_threshold": 0.6}}
    faint = CANDIDATES.assign(confidence=CANDIDATES["confidence"].where(CANDIDATES["confidence"] > 0.5, 0.009))
    assert find_boxless(IMAGES, apply("nms", [faint], IMAGES, points)) == ["empty.jpg"]
    assert find_boxless(IMAGES, apply("wbf", [faint, faint], IMAGES, points)) == ["doubtful.jpg", "empty.jpg"]
