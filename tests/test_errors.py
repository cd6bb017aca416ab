"""Each mistake has the cause that a person would give it, and putting a cause right never costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sweep import draw_tables

from livestock.evaluation import evaluate, match_ground_truth
from livestock.evaluation.causes import CAUSES, cost_of_causes, find_errors
from livestock.labels.missing import find_suspects, fuse_views, likely_boxes, set_aside
from livestock.tables import XYXY, make_boxes, make_images

IMAGES = make_images([{"image_id": name, "archive": "", "member": name, "width": 400, "height": 400}
                      for name in [*(f"{index}.jpg" for index in range(6)), "a.jpg", "b.jpg"]])


def box(x_min: float, label: str = "pig", confidence: float = 1.0, image_id: str = "a.jpg") -> dict:
    """100 px wide and high, at a height that all share."""
    source = "gold" if confidence == 1 else "model"
    return {"image_id": image_id, "label": label, "x_min": x_min, "y_min": 0.0, "x_max": x_min + 100, "y_max": 100.0,
            "confidence": confidence, "source": source}


TRUTH = make_boxes([box(0), box(150), box(280, "cow"), box(0, "cow", image_id="b.jpg"), box(200, image_id="b.jpg")])
ANSWER = make_boxes([
    box(0, confidence=0.9),  # found
    box(5, confidence=0.8),  # the same animal once more
    box(180, confidence=0.7),  # IoU 70 / 130 with the second pig
    box(282, "pig", 0.6),  # on the cow
    box(0, "pig", 0.5, "b.jpg"),  # on the other image's cow
    box(140, "cow", 0.45, "b.jpg"),  # IoU 40 / 160 with its pig
    box(300, "cow", 0.4, "b.jpg"),  # on nothing
])


def test_each_cause_is_recognised() -> None:
    errors = find_errors(TRUTH, ANSWER, 0.75)
    assert errors["row"].tolist() == [1, 2, 3, 4, 5, 6, -1, -1, -1, -1]
    false = errors[errors["source"] == "model"].set_index("confidence")
    assert false["cause"].to_dict() == {0.8: "duplicate", 0.7: "localisation", 0.6: "class", 0.5: "class",
                                        0.45: "both", 0.4: "background"}
    assert false.loc[[0.8, 0.7, 0.6, 0.5, 0.45, 0.4], "target"].tolist() == [0, 1, 2, 3, 4, -1]
    assert false.loc[0.7, "iou"] == pytest.approx(70 / 130)
    assert errors["box_id"].tolist() == [*ANSWER["box_id"][1:], *TRUTH["box_id"][1:]]
    misses = errors[errors["source"] == "gold"].set_index("target")["cause"]
    assert misses.to_dict() == {1: "localisation", 2: "class", 3: "class", 4: "missed"}


def test_a_box_that_several_looks_agree_on_is_a_likely_missing_label() -> None:
    suspects = make_boxes([box(305, "cow", 0.8, "b.jpg")])
    errors = find_errors(TRUTH, ANSWER, 0.75, suspects).query("source == 'model'").set_index("confidence")
    assert errors.loc[0.4, "cause"] == "likely missing label"
    assert (errors["cause"] == "likely missing label").sum() == 1


def test_the_cut_between_localisation_and_duplicate_is_the_metrics_iou() -> None:
    """A second box on a found animal is a duplicate only if it would have been right; TIDE, section 2.2."""
    answer = make_boxes([box(0, confidence=0.9), box(20, confidence=0.8), box(10, confidence=0.7)])  # 80/120, 90/110
    for iou, causes in ((0.75, ["localisation", "duplicate"]), (0.5, ["duplicate", "duplicate"])):
        assert find_errors(TRUTH.iloc[[0]], answer, iou).query("row >= 0")["cause"].tolist() == causes


def test_costs_are_what_the_mended_answer_scores() -> None:
    """By hand, at COCO's recalls 0, 0.01 ... 1: of three pigs one is found, of two cows none."""
    costs = cost_of_causes(TRUTH, ANSWER, find_errors(TRUTH, ANSWER, 0.75), 0.75)
    before = 34 / 101 / 2  # precision 1 up to a recall of 1/3: 34 of 101 recalls
    # The second pig is found by the third box, after a false one: precision 1 up to 1/3, 2/3 up to a recall of 2/3.
    assert costs.loc["localisation", "gain"] == pytest.approx((34 + 33 * 2 / 3) / 101 / 2 - before)
    # Both cows at ranks 1 and 2, before the two false ones; of the pigs still one of three.
    assert costs.loc["class", "gain"] == pytest.approx((1 + 34 / 101) / 2 - before)
    # One pig of two: the one that nothing explains does not count.
    assert costs.loc["missed", "gain"] == pytest.approx(51 / 101 / 2 - before)
    assert costs["errors"].to_dict() == {"localisation": 2, "class": 4, "both": 1, "duplicate": 1, "background": 1,
                                         "likely missing label": 0, "missed": 1}
    assert costs.loc["duplicate", "sure"] == 1
    assert costs.loc[["both", "duplicate", "background"], "gain"].tolist() == [0, 0, 0]


def draw_farm(seed: int, n_images: int = 30) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Truth and answer with every kind of error in plenty; no two boxes have one confidence."""
    rng, truth, answer = np.random.default_rng(seed), [], []
    for number in range(n_images):
        corner, size = rng.uniform(0, 250, (6, 2)), rng.uniform(40, 90, (6, 2))
        true = pd.DataFrame(np.hstack([corner, corner + size]), columns=XYXY)
        true = true.assign(image_id=f"{number:02}.jpg", label=rng.choice(["pig", "cow"], 6))
        near = pd.concat([true[rng.random(6) < 0.85], true[rng.random(6) < 0.6], true[rng.random(6) < 0.4]])
        near[XYXY] += rng.normal(0, 1, (len(near), 4)) * rng.choice([2.0, 8.0, 20.0], (len(near), 1))
        swapped = rng.random(len(near)) < 0.2
        near.loc[swapped, "label"] = near.loc[swapped, "label"].map({"pig": "cow", "cow": "pig"})
        far = rng.uniform(0, 300, (4, 2))
        stray = pd.DataFrame(np.hstack([far, far + 30]), columns=XYXY)
        stray = stray.assign(image_id=f"{number:02}.jpg", label=rng.choice(["pig", "cow"], 4))
        truth.append(true)
        answer.append(pd.concat([near, stray]))
    found = pd.concat(answer, ignore_index=True)
    found[["x_max", "y_max"]] = np.maximum(found[["x_max", "y_max"]], found[["x_min", "y_min"]].to_numpy() + 5)
    confidence = rng.permutation(len(found)) / len(found)
    return make_boxes(pd.concat(truth)), make_boxes(found.assign(confidence=confidence, source="model"))


# What tidecv 1.0.1 gives for `draw_farm(0)`, by `bench/tide.py`: errors, and dAP in points of mAP.
TIDE = {
    0.5: {"class": (28, 5.595491706236743), "localisation": (111, 15.81652336285488), "both": (28, 1.2658980572473908),
          "duplicate": (57, 1.964089771747446), "background": (97, 8.087167537299408),
          "missed": (14, 2.6469933746764482)},
    0.75: {"class": (15, 2.763290497337465), "localisation": (201, 36.70422338577787), "both": (39, 0.8518868715496808),
           "duplicate": (18, 0.21396426830552429), "background": (97, 3.3711331238094573),
           "missed": (15, 1.2523805065593265)},
}


@pytest.mark.parametrize("iou", [0.5, 0.75])
def test_causes_and_costs_are_those_of_the_authors_package(iou: float) -> None:
    truth, answer = draw_farm(0)
    errors = find_errors(truth, answer, iou)
    costs = cost_of_causes(truth, answer, errors, iou)
    of_tide = errors[(errors["row"] >= 0) | (errors["cause"] == "missed")]  # others that were not found are no extra
    for cause, (n_errors, points) in TIDE[iou].items():
        assert (of_tide["cause"] == cause).sum() == n_errors
        assert 100 * costs.loc[cause, "gain"] == pytest.approx(points, abs=1e-6)


def test_classes_without_truth_and_boxes_that_are_equal_count_once() -> None:
    """Two boxes alike in everything are two rows; a goat, of which there is no true box, is not in the mean."""
    answer = make_boxes([box(0, confidence=0.9), box(5, confidence=0.8), box(5, confidence=0.8), box(0, "goat", 0.7)])
    errors = find_errors(TRUTH.iloc[[0]], answer, 0.75)
    assert errors[["cause", "row"]].to_numpy().tolist() == [["duplicate", 1], ["duplicate", 2], ["class", 3]]
    costs = cost_of_causes(TRUTH.iloc[[0]], answer, errors, 0.75)
    assert costs["gain"].eq(0).all()  # the only pig is found first


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), iou=st.sampled_from([0.3, 0.5, 0.75]))
def test_every_error_has_one_cause_and_mending_never_costs(seed: int, iou: float) -> None:
    truth, answer = draw_tables(np.random.default_rng(seed), 6, 9)
    errors = find_errors(truth, answer, iou)
    claimed = match_ground_truth(truth, answer, iou)
    assert (errors["source"] == "model").sum() == (claimed < 0).sum()
    assert (errors["source"] == "gold").sum() == len(truth) - (claimed >= 0).sum()
    assert set(errors["cause"]) <= set(CAUSES)
    score = evaluate(truth, answer, iou)
    n_true = pd.Series(claimed >= 0).groupby(answer["label"].to_numpy()).sum()
    for label, n_truth in score.per_class["n_truth"].items():
        assert n_true.get(label, 0) <= n_truth
    assert (cost_of_causes(truth, answer, errors, iou)["gain"] >= -1e-12).all()


def test_an_empty_answer_has_missed_all() -> None:
    errors = find_errors(TRUTH, ANSWER.iloc[:0], 0.75)
    assert errors["cause"].tolist() == ["missed"] * 5
    assert find_errors(TRUTH.iloc[:0], ANSWER, 0.75)["cause"].unique().tolist() == ["background"]


def test_suspects_are_agreed_on_and_far_from_human_boxes() -> None:
    seen_twice, seen_once, human = box(300, "cow", 0.8, "b.jpg"), box(20, "pig", 0.7), box(10, "cow", 0.9, "b.jpg")
    looks = [make_boxes([seen_twice, seen_once, human]), make_boxes([{**seen_twice, "x_min": 306.0}, human])]
    truth = TRUTH[TRUTH["image_id"] == "b.jpg"]
    found = find_suspects(truth, fuse_views(looks, IMAGES))
    assert found[["image_id", "label"]].to_numpy().tolist() == [["b.jpg", "cow"], ["a.jpg", "pig"]]
    fused = fuse_views(looks, IMAGES)
    assert found["box_id"].tolist() == [fused["box_id"][fused["x_min"].round() == x].item() for x in (303, 20)]
    assert found["confidence"].tolist() == pytest.approx([0.8, 0.35])  # one look of two saw the second
    assert found.loc[0, XYXY].tolist() == pytest.approx([303, 0, 400, 100], abs=1e-3)
    assert find_suspects(truth, fuse_views([look.iloc[:0] for look in looks], IMAGES)).empty


def test_boxes_on_suspects_are_set_aside_unless_they_are_right() -> None:
    """Of ANSWER's boxes the one on nothing lies on a suspect, and so does the first, which finds its pig."""
    suspects = make_boxes([box(310, "cow", 0.8, "b.jpg"), box(0, "pig", 0.9), box(180, "cow", 0.9)])
    left = set_aside(TRUTH, ANSWER, suspects, 0.75)
    gone = sorted(set(ANSWER["confidence"]) - set(left["confidence"]))
    assert gone == [0.4, 0.8]  # the second box on the pig too, but not a pig on a cow
    assert left["box_id"].tolist() == ANSWER.loc[~ANSWER["confidence"].isin(gone), "box_id"].tolist()
    assert evaluate(TRUTH, left, 0.75).mean >= evaluate(TRUTH, ANSWER, 0.75).mean
    pd.testing.assert_frame_equal(set_aside(TRUTH, ANSWER, suspects.iloc[:0], 0.75), ANSWER)


def test_what_is_likely_of_a_look_is_all_that_is_fused() -> None:
    """A second time nothing changes, so that a look may be kept as its likely boxes alone."""
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 80, (400, 2))
    corners = np.hstack([start, start + rng.uniform(5, 60, (400, 2))]).clip(0, 100)
    table = make_boxes(pd.DataFrame(corners, columns=XYXY).assign(
        image_id="a.jpg", label=rng.choice(["pig", "cow"], 400), confidence=rng.random(400) ** 4, source="model"))
    images = make_images([{"image_id": "a.jpg", "archive": "", "member": "", "width": 100, "height": 100}])
    likely = likely_boxes(table)
    assert 0 < len(likely) < len(table) and likely["confidence"].min() > 0.01
    pd.testing.assert_frame_equal(likely_boxes(likely), likely)
    pd.testing.assert_frame_equal(fuse_views([likely, table], images), fuse_views([table, table], images))
