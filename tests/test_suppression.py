"""Suppression: exactly torchvision's, and nothing on the way."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from livestock.geometry import pairwise_iou
from livestock.postprocess import keep_boxes, suppress
from livestock.postprocess.suppression import count_capped
from livestock.tables import XYXY, make_boxes


def draw_candidates(rng: np.random.Generator, n: int, n_images: int = 5) -> pd.DataFrame:
    """Clustered boxes, so that suppression has work; row order is random."""
    centre = rng.uniform(0, 1000, (12, 2))[rng.integers(0, 12, n)] + rng.normal(0, 12, (n, 2))
    half = rng.uniform(40, 60, (n, 2))
    table = pd.DataFrame(np.hstack([centre - half, centre + half]), columns=XYXY)
    table["image_id"] = [f"{i}.jpg" for i in rng.integers(0, n_images, n)]
    table["label"] = rng.choice(["cow", "pig"], n)
    table["confidence"], table["source"] = rng.uniform(0, 1, n), "model"
    return table[["image_id", "label", *XYXY, "confidence", "source"]]


def by_torchvision(table: pd.DataFrame, iou_threshold: float, agnostic: bool) -> pd.DataFrame:
    """The same by `batched_nms`, with image and label as its class."""
    classes = table["image_id"] if agnostic else table["image_id"] + table["label"]
    codes = torch.tensor(pd.factorize(classes)[0])
    corners, confidence = (torch.tensor(table[name].to_numpy(float)) for name in [XYXY, "confidence"])
    # Up to 1,000 boxes torchvision shifts classes apart, which rounds: hence float64.
    kept = batched_nms(corners, confidence, codes, iou_threshold).numpy()
    by = {"by": ["image_id", "confidence"], "ascending": [True, False]}
    return table.iloc[kept].sort_values(**by, ignore_index=True)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("iou_threshold", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("n", [40, 3000])
@pytest.mark.parametrize("piece", [1, 700, 250_000])  # boxes at a time: an image, some images, all
def test_equals_torchvision(n, iou_threshold, agnostic, piece, monkeypatch):
    monkeypatch.setattr("livestock.postprocess.suppression.PIECE", piece)
    table = draw_candidates(np.random.default_rng(n), n)
    found = suppress(table, iou_threshold=iou_threshold, conf_threshold=0, max_det=n, agnostic=agnostic)
    pd.testing.assert_frame_equal(found, by_torchvision(table, iou_threshold, agnostic))


@settings(max_examples=200, deadline=None)
@given(
    corners=st.lists(st.tuples(*[st.integers(0, 12)] * 4), min_size=1, max_size=60),
    scale=st.sampled_from([1.0, 1 / 3, 1e-3, 700.0]), shift=st.sampled_from([0.0, 0.1, 5000.0]),
    iou_threshold=st.sampled_from([0.0, 0.25, 1 / 3, 0.45, 0.5, 1.0]), most=st.integers(1, 61),
)
def test_near_the_threshold_every_box_is_settled_exactly(corners, scale, shift, iou_threshold, most):
    """On a grid many IoUs are the threshold itself; boxes without an area, far out and tiny ones are there too."""
    boxes = np.array([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in corners]) * scale + shift
    ious, kept = pairwise_iou(boxes, boxes), []
    for row in range(len(boxes)):
        if not any(ious[row, other] > iou_threshold for other in kept):
            kept.append(row)
    assert keep_boxes(boxes, iou_threshold).tolist() == kept
    assert keep_boxes(boxes, iou_threshold, most).tolist() == kept[:most]


def test_no_pair_near_the_threshold_is_lost():
    """Two boxes each, far from the corner of the picture, whose IoU is a hair above the threshold, and below it."""
    rng = np.random.default_rng(0)
    for hair, n_kept in ((1e-8, 1), (-1e-8, 2)):
        iou = 0.45 * (1 + hair)
        for _ in range(300):
            (x, y), (width, height) = rng.uniform(4000, 8000, 2), rng.uniform(2, 300, 2)
            moved = width * (1 - iou) / (1 + iou)
            pair = np.array([[x, y, x + width, y + height], [x + moved, y, x + moved + width, y + height]])
            assert len(keep_boxes(pair, 0.45)) == n_kept


def test_a_box_goes_only_above_the_threshold_and_only_to_a_kept_box():
    chain = [(0, 10), (4, 14), (8, 18)]  # neighbours overlap by 6 / 14, the ends by 2 / 18
    rows = [box("a", 0.9 - x_min / 100, x_min, x_max) for x_min, x_max in chain]
    assert suppress(make_boxes(rows), iou_threshold=6 / 14)["x_min"].tolist() == [0, 4, 8]
    assert suppress(make_boxes(rows), iou_threshold=0.4)["x_min"].tolist() == [0, 8]


def test_a_chain_longer_than_a_block():
    n = 389
    rows = [box("a", 1 - i / 1000, 4 * i, 4 * i + 10) for i in range(n)]
    assert suppress(make_boxes(rows), iou_threshold=0.4)["x_min"].tolist() == list(range(0, 4 * n, 8))


def test_labels_do_not_suppress_each_other_unless_agnostic():
    table = make_boxes([box("a", 0.9, 0, 10), box("a", 0.8, 0, 10, "pig"), box("b", 0.7, 0, 10)])
    assert len(suppress(table)) == 3
    assert suppress(table, agnostic=True)["confidence"].tolist() == [0.9, 0.7]


def test_most_confident_of_an_image_over_all_labels():
    rows = [box("a", 0.1 * i, 100 * i, 100 * i + 10, "cow" if i % 2 else "pig") for i in range(1, 7)]
    table = make_boxes([*rows, box("b", 0.01, 0, 10)])
    assert suppress(table, max_det=3)["confidence"].round(3).tolist() == [0.6, 0.5, 0.4, 0.01]


def test_confidence_must_be_above_the_threshold():
    table = make_boxes([box("a", 0.5, 0, 10), box("a", 0.25, 50, 60)])
    assert suppress(table, conf_threshold=0.25)["confidence"].tolist() == [0.5]


def test_equal_confidences_keep_row_order():
    table = make_boxes([box("a", 0.5, 100, 110, "pig"), box("a", 0.5, 2, 12), box("a", 0.5, 0, 10)])
    assert suppress(table)["x_min"].tolist() == [100, 2]


def test_input_is_left_alone():
    table = draw_candidates(np.random.default_rng(0), 50)
    before = table.copy()
    suppress(table)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize("conf_threshold", [0.001, 1])
def test_nothing_in_nothing_out(conf_threshold):
    table = make_boxes([box("a", 0.5, 0, 10)]).iloc[: int(conf_threshold)]
    found = suppress(table, conf_threshold=conf_threshold)
    assert found.empty
    assert found.dtypes.equals(table.dtypes)


@pytest.mark.parametrize("wrong", [{"iou_threshold": 1.1}, {"conf_threshold": -0.1}, {"max_det": 0}])
def test_arguments_out_of_range(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        suppress(make_boxes([]), **wrong)


def box(image_id: str, confidence: float, x_min: float, x_max: float, label: str = "cow") -> dict:
    corners = {"x_min": x_min, "y_min": 0, "x_max": x_max, "y_max": 10}
    return {"image_id": image_id, "label": label, **corners, "confidence": confidence, "source": "model"}


def test_what_the_cap_cuts_is_counted():
    candidates = draw_candidates(np.random.default_rng(0), 400)
    at = {"iou_threshold": 0.5, "conf_threshold": 0.1}
    capped = suppress(candidates, **at, max_det=10)
    assert count_capped(candidates, capped, **at, max_det=10) == len(suppress(candidates, **at)) - len(capped) > 0
    assert count_capped(candidates.iloc[:0], capped.iloc[:0], **at) == 0
