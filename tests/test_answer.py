"""Which images may be without a row in the answer: those whose candidates are all below what the method asks for."""

from __future__ import annotations

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


@pytest.mark.parametrize("points", [
    {EVERY_CLASS: {"iou_threshold": 0.6, "conf_threshold": 0.001}},
    {EVERY_CLASS: {"iou_threshold": 0.6, "conf_threshold": 0.05}},
    {EVERY_CLASS: {"iou_threshold": 0.6, "conf_threshold": 0.04}},
    {EVERY_CLASS: {"iou_threshold": 0.6, "conf_threshold": 0.95}},
])
def test_images_without_a_row_are_those_without_a_candidate_that_counts(points: dict[str, dict[str, float]]) -> None:
    """A tuned confidence may leave an image without any box; such an answer is as it should be, and is not refused."""
    boxes = apply("nms", [CANDIDATES], IMAGES, points)
    assert find_boxless(IMAGES, [CANDIDATES], points) == sorted(set(IMAGES["image_id"]) - set(boxes["image_id"]))


def test_an_image_is_boxless_only_if_no_pass_sees_anything_in_it() -> None:
    points = {EVERY_CLASS: {"iou_threshold": 0.6}}  # fusion has no confidence of its own
    assert find_boxless(IMAGES, [CANDIDATES[:1], CANDIDATES[2:]], points) == ["empty.jpg"]
    by_class = {"pig": {"conf_threshold": 0.01}, "cow": {"conf_threshold": 0.5}}
    assert find_boxless(IMAGES, [CANDIDATES], by_class) == ["doubtful.jpg", "empty.jpg"]  # may be without a row
