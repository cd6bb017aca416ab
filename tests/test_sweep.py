"""A point of the sweep is what suppression and the scorer give for it alone; a resample is what copied images give."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestock.evaluation import (
    draw_counts,
    draw_group_counts,
    evaluate,
    interval,
    match_competition,
    match_usual,
    resample,
)
from livestock.postprocess import suppress, sweep
from livestock.tables import BOX_COLUMNS, XYXY, new_box_ids


@pytest.fixture(scope="module", autouse=True)
def small_pieces():
    """Some images at a time, as with millions of candidates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("livestock.postprocess.suppression.PIECE", 50)
        yield


def draw_tables(rng: np.random.Generator, n_images: int, decimals: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Truth of two classes, candidates of three near it and elsewhere; few decimals make ties."""
    truth, candidates = [], []
    for index in range(n_images):
        n_truth = rng.integers(0, 5)
        corner, size = rng.uniform(0, 300, (n_truth, 2)), rng.uniform(20, 120, (n_truth, 2))
        labels = rng.choice(["cow", "pig"], n_truth)
        truth += [(f"{index}.jpg", label, *box, 1.0, "gold")
                  for label, box in zip(labels, np.hstack([corner, corner + size]), strict=True)]
        for _ in range(rng.integers(0, 40)):
            near = rng.integers(n_truth) if n_truth and rng.random() < 0.7 else None
            low = rng.uniform(0, 300, 2) if near is None else corner[near] + rng.normal(0, 6, 2)
            extent = rng.uniform(20, 120, 2) if near is None else size[near] * rng.uniform(0.85, 1.15, 2)
            label = rng.choice(["cow", "pig", "dog"]) if near is None else labels[near]
            candidates.append((f"{index}.jpg", label, *low, *(low + extent), round(rng.random(), decimals), "model"))
    columns = ["image_id", "label", *XYXY, "confidence", "source"]
    tables = [pd.DataFrame(rows, columns=columns) for rows in (truth, candidates)]
    for table, source in zip(tables, ("gold", "model"), strict=True):
        table.insert(0, "box_id", new_box_ids(table["image_id"], source))
    return tables[0][BOX_COLUMNS], tables[1].sample(frac=1, random_state=0)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), agnostic=st.booleans(), decimals=st.sampled_from([1, 2, 9]))
def test_each_point_is_what_it_is_alone(seed: int, agnostic: bool, decimals: int) -> None:
    truth, candidates = draw_tables(np.random.default_rng(seed), 6, decimals)
    found = sweep(truth, candidates, iou_thresholds=[0.0, 0.3, 0.68, 1.0], conf_thresholds=[0.2, 0.0, 0.9],
                  max_dets=[1, 4, 300], metric_ious=[0.5, 0.75], agnostic=agnostic)
    assert len(found) == 4 * 3 * 3 * 2
    for row in found.itertuples():
        alone = suppress(candidates, iou_threshold=row.iou_threshold, conf_threshold=row.conf_threshold,
                         max_det=row.max_det, agnostic=agnostic)
        expected = evaluate(truth, alone, row.metric_iou)
        assert row.mAP == pytest.approx(expected.mean, abs=1e-9)
        for label, ap in expected.per_class["ap"].items():
            assert getattr(row, label) == pytest.approx(ap, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_parts_left_out_do_not_count(seed: int) -> None:
    truth, candidates = draw_tables(np.random.default_rng(seed), 6, 9)
    parts = pd.Series([0, 1, 2, 0, 1, 2], index=[f"{index}.jpg" for index in range(6)])
    found = sweep(truth, candidates, iou_thresholds=[0.5], conf_thresholds=[0.3], metric_ious=[0.5], parts=parts,
                  leave_out=[(), (1,), (0, 2)])
    assert found["left_out"].tolist() == [(), (1,), (0, 2)]
    for row in found.itertuples():
        inside = [table[~table["image_id"].map(parts).isin(row.left_out)] for table in (truth, candidates)]
        expected = evaluate(inside[0], suppress(inside[1], iou_threshold=0.5, conf_threshold=0.3), 0.5)
        assert row.mAP == pytest.approx(expected.mean, abs=1e-9)


def test_an_image_without_a_part_is_refused() -> None:
    truth, candidates = draw_tables(np.random.default_rng(3), 6, 9)
    with pytest.raises(ValueError, match="expected a number for every image, found none for '0.jpg'"):
        sweep(truth, candidates, iou_thresholds=[0.5], leave_out=[(1,)])


def test_no_candidates_score_nothing() -> None:
    truth, candidates = draw_tables(np.random.default_rng(0), 6, 2)
    assert sweep(truth, candidates.iloc[:0], iou_thresholds=[0.5])["mAP"].tolist() == [0]
    assert sweep(truth.iloc[:0], candidates, iou_thresholds=[0.5])["mAP"].tolist() == [0]


@pytest.mark.parametrize("change", [{"iou_thresholds": [1.5]}, {"conf_thresholds": [-0.1]}, {"max_dets": [0]},
                                    {"metric_ious": [0.0]}])
def test_thresholds_out_of_range_are_refused(change: dict) -> None:
    truth, candidates = draw_tables(np.random.default_rng(0), 2, 2)
    with pytest.raises(ValueError, match="expected"):
        sweep(truth, candidates, **{"iou_thresholds": [0.5], **change})


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_resample_scores_as_copied_images_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, candidates = draw_tables(rng, 8, 9)
    images = pd.Index([f"{index}.jpg" for index in range(8)])
    counts = draw_counts(rng, 8, 3)
    assert (counts.sum(axis=1) == 8).all()
    found = resample(match_usual(truth, candidates, 0.5), images, counts)
    for drawn, value in zip(counts, found, strict=True):
        copies = [(image, copy) for image, n in zip(images, drawn, strict=True) for copy in range(n)]
        again = [pd.concat([table[table["image_id"] == name].assign(image_id=f"{name} {nth}") for name, nth in copies])
                 for table in (truth, candidates)]
        assert value == pytest.approx(evaluate(*again, 0.5).mean, abs=1e-9)


def test_images_of_a_group_are_drawn_together() -> None:
    groups = np.array([3, 3, -1, 3, 5, -1, 5])
    counts = draw_group_counts(np.random.default_rng(0), groups, 400)
    assert (counts[:, [0]] == counts[:, [1, 3]]).all() and (counts[:, 4] == counts[:, 6]).all()
    assert (counts[:, 2] != counts[:, 5]).any()
    assert (counts[:, [0, 2, 4, 5]].sum(axis=1) == 4).all()  # four groups are drawn, whatever their size
    assert counts.mean(axis=0) == pytest.approx(np.ones(7), abs=0.2)


def test_what_is_judged_must_be_among_the_images() -> None:
    truth, candidates = draw_tables(np.random.default_rng(1), 8, 9)
    with pytest.raises(ValueError, match="is judged, but not among those to resample"):
        resample(match_competition(truth, candidates, 0.5), pd.Index(["0.jpg"]), np.ones((1, 1), int))


def test_the_interval_holds_its_share() -> None:
    assert interval(np.arange(1001.0)) == pytest.approx((25, 975))
    assert interval(np.arange(1001.0), 0.5) == pytest.approx((250, 750))
