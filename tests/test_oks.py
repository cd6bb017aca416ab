"""OKS and its average precision, compared with pycocotools and faster-coco-eval, and with values by hand."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from livestock.config import Keypoint, Skeleton
from livestock.evaluation.oks import BOX_SHARE, estimate_sigmas, evaluate_oks, object_similarity, points_array
from livestock.exceptions import BadData
from livestock.tables import make_boxes, make_keypoints

Tables = tuple[pd.DataFrame, pd.DataFrame]


def make_skeleton(n_points: int, labels: tuple[str, ...] = ("pig",)) -> Skeleton:
    sigmas = np.linspace(0.02, 0.11, n_points)
    return Skeleton(tuple(Keypoint(label, f"point {number}", number, sigma=float(sigmas[number]))
                          for label in labels for number in range(n_points)))


def draw(rng: np.random.Generator, n_points: int) -> tuple[Tables, Tables, dict[int, float]]:
    """Truth, answer and areas: objects near and far from the true ones, and some without a labelled point."""
    boxes, points, found_boxes, found_points, areas = [], [], [], [], {}
    for image in range(5):
        for number in range(int(rng.integers(0, 5))):
            box_id = 100 * image + number
            corner, size = rng.uniform(0, 300, 2), rng.uniform(20, 200, 2)
            place = corner + rng.uniform(0, 1, (n_points, 2)) * size
            visible = rng.integers(0, 3, n_points) * (rng.uniform() > 0.2)
            box = dict(zip(("x_min", "y_min", "x_max", "y_max"), [*corner, *(corner + size)], strict=True))
            boxes.append({"box_id": box_id, "image_id": f"{image}.jpg", "label": "pig", **box})
            areas[box_id] = float(rng.uniform(0.2, 0.9) * size.prod())
            points += [{"box_id": box_id, "image_id": f"{image}.jpg", "keypoint": f"point {index}", "x": x, "y": y,
                        "visible": visible[index]} for index, (x, y) in enumerate(place)]
            for again in range(int(rng.integers(0, 3))):
                moved = np.abs(place + rng.normal(0, rng.choice([1.0, 5.0, 20.0]), place.shape))
                found_id = 1_000_000 + 10 * box_id + again
                found_boxes.append({"box_id": found_id, "image_id": f"{image}.jpg", "label": "pig", **box,
                                    "confidence": round(float(rng.uniform()), 2), "source": "model"})
                found_points += [{"box_id": found_id, "image_id": f"{image}.jpg", "keypoint": f"point {index}", "x": x,
                                  "y": y, "confidence": 0.5, "source": "model"} for index, (x, y) in enumerate(moved)]
    return ((make_boxes(boxes), make_keypoints(points)), (make_boxes(found_boxes), make_keypoints(found_points)), areas)


def as_coco(truth: Tables, answer: Tables, skeleton: Skeleton, areas: dict[int, float]) -> tuple[dict, list[dict]]:
    """COCO's JSON of both sides."""
    true, found = points_array(*truth, skeleton), points_array(*answer, skeleton)
    images = sorted({*truth[0]["image_id"], *answer[0]["image_id"], "0.jpg"})
    annotations = []
    for number, (box, own) in enumerate(zip(truth[0].itertuples(), true, strict=True), 1):
        corners = [box.x_min, box.y_min, box.x_max - box.x_min, box.y_max - box.y_min]
        annotations.append({
            "id": number, "image_id": images.index(box.image_id), "category_id": 1, "iscrowd": 0, "bbox": corners,
            "area": areas.get(box.box_id, BOX_SHARE * corners[2] * corners[3]), "keypoints": own.ravel().tolist(),
            "num_keypoints": int((own[:, 2] > 0).sum())})
    results = [{"image_id": images.index(box.image_id), "category_id": 1, "score": box.confidence,
                "keypoints": own.ravel().tolist()} for box, own in zip(answer[0].itertuples(), found, strict=True)]
    content = {"info": {}, "images": [{"id": number, "width": 600, "height": 600, "file_name": name}
                                      for number, name in enumerate(images)],
               "categories": [{"id": 1, "name": "pig", "keypoints": skeleton.names("pig"), "skeleton": []}],
               "annotations": annotations}
    return content, results


def evaluate_by(library: str, content: dict, results: list[dict], sigmas: list[float]) -> np.ndarray:
    """AP, AP50 and AP75 of a library."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco: Any = COCO() if library == "pycocotools" else FasterCOCO(content)
        if library == "pycocotools":
            coco.dataset = content
            coco.createIndex()
        found = coco.loadRes(results)
        kind: Any = COCOeval if library == "pycocotools" else COCOeval_faster
        judge = kind(coco, found, "keypoints")
        judge.params.kpt_oks_sigmas = np.array(sigmas)
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, 0, 0, 0]
    return np.array([precision.mean(), precision[0].mean(), precision[5].mean()])


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 4, 17, 18]), st.booleans(),
       st.sampled_from(["pycocotools", "faster_coco_eval"]))
def test_average_precision_is_that_of_coco(seed: int, n_points: int, has_areas: bool, library: str) -> None:
    skeleton, rng = make_skeleton(n_points), np.random.default_rng(seed)
    truth, answer, areas = draw(rng, n_points)
    if not has_areas:
        areas = {}
    assume(len(truth[0]) and len(answer[0]) and (truth[1]["visible"] > 0).any())
    expected = evaluate_by(library, *as_coco(truth, answer, skeleton, areas), skeleton.sigmas("pig"))
    found = [evaluate_oks(truth, answer, skeleton, areas, thresholds).mean
             for thresholds in (np.linspace(0.5, 0.95, 10), [0.5], [0.75])]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("sigma", "expected"), [
    (0.25, (0.995, 0.980, 0.923)), (0.25 / 3, (0.956, 0.835, 0.487)), (0.05, (0.882, 0.607, 0.135)),
    (0.025, (0.607, 0.135, 0.000))])
def test_similarity_at_known_distances(sigma: float, expected: tuple[float, ...]) -> None:
    """Distances of .05, .1 and .2 of the root of the area: a sigma that is too large cannot tell them apart."""
    true = np.zeros((3, 1, 3))
    true[..., 2] = 2
    found = np.array([[[5.0, 0.0]], [[10.0, 0.0]], [[0.0, 20.0]]])
    assert object_similarity(found, true, np.full(3, 100.0**2), np.array([sigma])).round(3).tolist() == list(expected)


def test_points_that_are_not_labelled_count_neither_way() -> None:
    true = np.array([[[10.0, 10.0, 2], [0.0, 0.0, 0], [30.0, 10.0, 1]]])
    found = np.array([[[10.0, 10.0], [500.0, 500.0], [30.0, 10.0]]])
    assert object_similarity(found, true, np.array([900.0]), np.full(3, 0.05)).tolist() == [1.0]
    nothing = np.zeros((1, 3, 3))
    assert np.isnan(object_similarity(found, nothing, np.array([900.0]), np.full(3, 0.05))).all()


def test_similarity_needs_an_area() -> None:
    true = np.array([[[10.0, 10.0, 2]]])
    for area in (0.0, -1.0, np.nan):
        with pytest.raises(BadData, match="object 0: expected an area above 0, .* use its error in pixels, or PCK"):
            object_similarity(true[..., :2], true, np.array([area]), np.array([0.05]))


@pytest.mark.bad_input
def test_a_box_without_an_area_is_named_and_one_without_points_is_passed_over() -> None:
    skeleton = make_skeleton(1)
    boxes = make_boxes([{"box_id": number, "image_id": "a.jpg", "label": "pig", "x_min": 10, "y_min": 10,
                         "x_max": 10 if number == 7 else 40, "y_max": 40} for number in (3, 7)])
    points = make_keypoints([{"box_id": number, "image_id": "a.jpg", "keypoint": "point 0", "x": 20, "y": 20,
                              "visible": visible} for number, visible in ((3, 2), (7, 0))])
    assert evaluate_oks((boxes, points), (boxes[:1], points[:1]), skeleton).mean == 1.0
    labelled = points.assign(visible=2, x=20.0, y=20.0)
    with pytest.raises(BadData, match=r"OKS: box 7 in a\.jpg: expected an area above 0, found 0; .* PCK"):
        evaluate_oks((boxes, labelled), (boxes[:1], points[:1]), skeleton)


def test_a_point_that_was_not_found_is_nowhere() -> None:
    """Not at (0, 0), where an object in the picture's corner would have it."""
    skeleton = make_skeleton(2)
    boxes = make_boxes([{"box_id": 0, "image_id": "a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 40,
                         "y_max": 40}])
    points = make_keypoints([{"box_id": 0, "image_id": "a.jpg", "keypoint": f"point {number}", "x": 1, "y": 1,
                              "visible": 2} for number in range(2)])
    for lost in (points.iloc[:0], points.assign(x=np.nan, y=np.nan, visible=0)):
        assert evaluate_oks((boxes, points), (boxes, lost), skeleton).mean == 0.0
    assert evaluate_oks((boxes, points), (boxes, points[:1]), skeleton, thresholds=[0.4, 0.6]).mean == 0.5


def test_images_without_truth_have_no_score() -> None:
    skeleton = make_skeleton(2)
    truth, answer, _ = draw(np.random.default_rng(0), 2)
    nothing = (truth[0].iloc[:0], truth[1].iloc[:0])
    assert evaluate_oks(nothing, answer, skeleton).mean == 0.0
    assert evaluate_oks(truth, (answer[0].iloc[:0], answer[1].iloc[:0]), skeleton).mean == 0.0


def test_classes_with_other_numbers_of_points_are_judged_by_their_own() -> None:
    skeleton = Skeleton((Keypoint("cow", "nose", 0, sigma=0.05),
                         *(Keypoint("pig", f"point {index}", index, sigma=0.05) for index in range(3))))
    boxes = make_boxes([{"box_id": number, "image_id": "a.jpg", "label": label, "x_min": 0, "y_min": 0, "x_max": 100,
                         "y_max": 100} for number, label in enumerate(("cow", "pig"))])
    rows = [(0, "nose", 5, 5), *((1, f"point {index}", 50, 10 * index) for index in range(3))]
    points = make_keypoints([{"box_id": box_id, "image_id": "a.jpg", "keypoint": name, "x": x, "y": y}
                             for box_id, name, x, y in rows])
    score = evaluate_oks((boxes, points), (boxes, points), skeleton)
    assert score.per_class["ap"].to_dict() == {"cow": 1.0, "pig": 1.0}
    far = points.assign(x=points["x"].where(points["box_id"] == 0, points["x"] + 40))
    assert evaluate_oks((boxes, points), (boxes, far), skeleton).per_class["ap"].to_dict() == {"cow": 1.0, "pig": 0.0}


def test_sigmas_come_back_from_two_annotators() -> None:
    """Each draws around the place with the sigma of the point, x and y together: their estimate is that sigma."""
    rng, n_objects, sigmas = np.random.default_rng(0), 20_000, np.array([0.02, 0.05, 0.1])
    areas = rng.uniform(1_000, 50_000, n_objects)
    place = rng.uniform(100, 900, (n_objects, 3, 2))
    spread = sigmas[None, :, None] * np.sqrt(areas)[:, None, None] / np.sqrt(2)  # sigma² = E[dx² + dy²] / area
    visible = np.full((n_objects, 3, 1), 2.0)
    first, second = (np.concatenate([place + rng.normal(0, 1, place.shape) * spread, visible], 2) for _ in range(2))
    assert estimate_sigmas(first, second, areas) == pytest.approx(sigmas, rel=0.02)
    first[:, 1, 2] = 0
    assert np.isnan(estimate_sigmas(first, second, areas)).tolist() == [False, True, False]
