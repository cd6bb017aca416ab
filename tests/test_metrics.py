"""The competition's score against `map_boxes`, the usual one against `faster_coco_eval` and plain loops."""

import numpy as np
import pandas as pd
import pytest
from map_boxes import mean_average_precision_for_boxes

from livestock.data.submission import ANSWER_COLUMNS, TRUTH_COLUMNS, from_rows
from livestock.evaluation import (
    COCO_SIZES,
    Matches,
    average_precision,
    describe_missing_classes,
    evaluate,
    evaluate_as_coco,
    evaluate_as_competition,
    image_errors,
    match_usual,
    precision_recall,
    score_counts,
    score_sizes,
)
from livestock.evaluation.precision import interpolated_precision
from livestock.geometry import box_area, pairwise_iou
from livestock.tables import XYXY, by_falling_confidence

REGIMES = ["plain", "ties", "grid", "missing classes", "few", "shuffled ties"]


def draw_case(rng: np.random.Generator, regime: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Truth and answer as rows of files; what is hard about them depends on the regime."""
    n_images = rng.integers(1, 7)
    n_truth, n_answer = rng.integers([0, 0], [3, 3]) if regime == "few" else rng.integers([1, 0], [20, 70])
    rows = pd.DataFrame({"ImageID": [f"{i}.jpg" for i in rng.integers(0, n_images, n_truth + n_answer)]})
    rows["LabelName"] = rng.choice(["cow", "pig"], len(rows))
    if regime == "missing classes":
        rows.loc[: n_truth - 1, "LabelName"] = rng.choice(["cow", "pig"], n_truth)
        rows.loc[n_truth:, "LabelName"] = rng.choice(["cow", "goat"], n_answer)
    rows["Conf"] = rng.uniform(0, 1, len(rows))
    if "ties" in regime:
        rows["Conf"] = rng.choice([0.1, 0.5, 0.9], len(rows))
    if regime == "grid":  # equal overlaps, duplicates, boxes without area, swapped corners
        corners = rng.integers(0, 4, (len(rows), 4)) / 4
    else:
        corners = np.repeat(rng.uniform(0, 0.2, (len(rows), 2)), 2, axis=1) + [0, 0.5, 0, 0.5]
    rows[["XMin", "XMax", "YMin", "YMax"]] = corners
    truth, answer = rows.iloc[:n_truth], rows.iloc[n_truth:]
    if regime != "shuffled ties":
        answer = answer.sort_values("ImageID", kind="stable")
    return truth[TRUTH_COLUMNS].astype({"LabelName": object}), answer.astype({"LabelName": object})


@pytest.mark.parametrize("regime", REGIMES)
def test_competition_equals_map_boxes(regime):
    rng = np.random.default_rng(REGIMES.index(regime))
    for _ in range(170):  # 1,020 cases in all
        truth, answer = draw_case(rng, regime)
        iou_threshold = rng.choice([0.2, 0.5, 0.75, 1.0])
        expected, per_class = mean_average_precision_for_boxes(truth, answer, iou_threshold, verbose=False)
        found = evaluate_as_competition(from_rows(truth), from_rows(answer), iou_threshold)
        assert found.mean == pytest.approx(expected, abs=1e-9)
        assert list(found.per_class.index) == list(per_class)
        for label, (ap, n_truth) in per_class.items():
            assert found.per_class.loc[label].tolist() == pytest.approx([ap, n_truth], abs=1e-9)


def test_competition_rounds_to_float32_as_map_boxes():
    truth = make_rows([("a", "cow", 0, 1, 0, 1)], TRUTH_COLUMNS)
    answer = make_rows([("a", "cow", 0.9, 0, 1, 0, 0.75 - 1e-10)])  # 0.75 once it is a float32
    expected, _ = mean_average_precision_for_boxes(truth, answer, 0.75, verbose=False)
    assert evaluate_as_competition(from_rows(truth), from_rows(answer)).mean == expected == 1
    assert evaluate(from_rows(truth), from_rows(answer)).mean == 0


def test_an_image_listed_without_a_box_counts():
    truth = make_rows([("a", "cow", *LEFT), ("b", np.nan, *[np.nan] * 4)], TRUTH_COLUMNS)
    answer = make_rows([("a", "cow", 0.5, *LEFT), ("b", "cow", 0.9, *LEFT)])
    expected, _ = mean_average_precision_for_boxes(truth.astype({"LabelName": object}), answer, verbose=False)
    assert evaluate_as_competition(from_rows(truth), from_rows(answer)).mean == expected == 0.5
    assert evaluate_as_competition(from_rows(truth.iloc[:1]), from_rows(answer)).mean == 1


def test_usual_by_hand():
    """Three cows, four boxes: true, false (second on a found cow), true, false (image without truth).

    By confidence true .9, false .8 (stray), false .7 (again), true .6. Precision 1, 1/2, 1/3, 1/2; recall 1/3
    and 2/3 at the true ones. Envelope there 1 and 1/2: AP = 1/3 * 1 + 1/3 * 1/2 = 1/2. The scorer of the
    competition does not see the stray: 1, 1/2, 2/3 gives 1/3 + 1/3 * 2/3 = 5/9.
    """
    cows = [("a", LEFT), ("a", RIGHT), ("b", LEFT)]
    truth = make_rows([(i, "cow", *box) for i, box in cows], TRUTH_COLUMNS)
    found = [("a", 0.9, LEFT), ("stray", 0.8, LEFT), ("a", 0.7, LEFT), ("b", 0.6, LEFT)]
    answer = make_rows([(i, "cow", conf, *box) for i, conf, box in found])
    usual = evaluate(from_rows(truth), from_rows(answer), 0.75)
    assert usual.mean == pytest.approx(1 / 2)
    assert usual.per_class.loc["cow", "n_truth"] == 3
    assert evaluate_as_competition(from_rows(truth), from_rows(answer), 0.75).mean == pytest.approx(5 / 9)


def test_row_order_counts_for_the_competition_alone():
    """Lowest confidence first, the worse of two boxes claims the truth; the better one is then false."""
    truth = from_rows(make_rows([("a", "cow", *LEFT), ("b", "cow", *LEFT)], TRUTH_COLUMNS))
    rows = [("a", "cow", 0.2, *LEFT), ("a", "cow", 0.9, *LEFT), ("b", "cow", 0.5, *LEFT)]
    rising = from_rows(make_rows(rows))
    falling = by_falling_confidence(rising)
    assert evaluate_as_competition(truth, rising).mean == pytest.approx(2 / 3)
    assert evaluate_as_competition(truth, falling).mean == 1
    assert evaluate(truth, rising).mean == evaluate(truth, falling).mean == 1


def test_only_classes_with_truth_are_in_the_mean():
    truth = from_rows(make_rows([("a", "cow", *LEFT), ("a", "pig", *RIGHT)], TRUTH_COLUMNS))
    answer = from_rows(make_rows([("a", "cow", 0.9, *LEFT), ("a", "goat", 0.9, *LEFT)]))
    for scorer in [evaluate_as_competition, evaluate]:
        assert scorer(truth, answer).per_class["ap"].to_dict() == {"cow": 1, "pig": 0}
        assert scorer(truth, answer).mean == 0.5


def test_nothing_scores_nothing():
    truth = from_rows(make_rows([("a", "cow", *LEFT)], TRUTH_COLUMNS))
    answer = from_rows(make_rows([("a", "cow", 0.9, *LEFT)]))
    for scorer in [evaluate_as_competition, evaluate]:
        assert scorer(truth, answer.iloc[:0]).mean == 0
        assert scorer(truth.iloc[:0], answer).mean == 0
        assert scorer(truth.iloc[:0], answer).per_class.empty
    assert np.isnan(average_precision(np.array([True]), 0))


@pytest.mark.parametrize("iou_threshold", [0, -0.5, 1.01, float("nan")])
def test_threshold_out_of_range(iou_threshold):
    truth = from_rows(make_rows([("a", "cow", *LEFT)], TRUTH_COLUMNS))
    with pytest.raises(ValueError, match="iou_threshold: expected"):
        evaluate(truth, truth, iou_threshold)


def test_corners_must_be_finite():
    truth = from_rows(make_rows([("a", "cow", *LEFT)], TRUTH_COLUMNS))
    with pytest.raises(ValueError, match="finite corners"):
        evaluate_as_competition(truth, truth.assign(x_max=np.nan))


@pytest.mark.parametrize("regime", REGIMES)
def test_usual_equals_plain_loops(regime):
    rng = np.random.default_rng(10 + REGIMES.index(regime))
    for _ in range(40):
        truth, answer = map(from_rows, draw_case(rng, regime))
        iou_threshold = rng.choice([0.2, 0.5, 0.75])
        expected = {label: loop_ap(truth, answer, label, iou_threshold) for label in set(truth["label"])}
        found = evaluate(truth, answer, iou_threshold).per_class["ap"].to_dict()
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_matching_equals_cocos(seed):
    truth, answer = draw_pixel_boxes(np.random.default_rng(seed), n_images=40)
    matches = match_usual(truth, answer, 0.75)
    assert [coco_ap(matches, k) for k in range(2)] == pytest.approx(run_coco(truth, answer, 0.75), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_map50_95_equals_cocos(seed):
    truth, answer = draw_pixel_boxes(np.random.default_rng(seed), n_images=20)
    crowded = answer["image_id"] == answer["image_id"].iloc[0]
    more = [answer[crowded].assign(confidence=answer["confidence"] * (0.9 + 0.001 * k)) for k in range(40)]
    answer = pd.concat([answer, *more], ignore_index=True)  # over 100 boxes of a class in an image
    assert answer.groupby(["image_id", "label"]).size().max() > 100
    found = evaluate_as_coco(truth, answer).per_class["ap"]
    assert found.tolist() == pytest.approx(run_coco(truth, answer, None), abs=1e-12)


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_sizes_are_left_out_as_coco_does(size):
    truth, answer = draw_pixel_boxes(np.random.default_rng(1), n_images=40)
    scale = np.random.default_rng(2).choice([0.3, 1, 3], 40)  # so that there are some of each size
    truth, answer = (boxes.assign(**boxes[XYXY].mul(scale[pd.factorize(boxes["image_id"], sort=True)[0]], axis=0))
                     for boxes in (truth, answer))
    low, high = COCO_SIZES[size]
    areas = [box_area(boxes[XYXY].to_numpy()) for boxes in (truth, answer)]
    sides = [boxes.assign(ignored=(area < low) | (area >= high))
             for boxes, area in zip((truth, answer), areas, strict=True)]
    matches = match_usual(*sides, 0.5)
    expected = run_coco(truth, answer, 0.5, ["all", *COCO_SIZES].index(size))
    assert 0 < min(expected) < 1
    assert [coco_ap(matches, k) for k in range(2)] == pytest.approx(expected, abs=1e-12)
    table = score_sizes(truth, answer, 0.5, COCO_SIZES).query("bin == @size")
    assert table["ap"].tolist() == pytest.approx([average_precision(matches.is_true[matches.label == k], n)
                                                  for k, n in enumerate(matches.n_truth.sum(axis=0))])
    assert table["n_truth"].tolist() == [(~sides[0]["ignored"] & (truth["label"] == name)).sum()
                                         for name in ["cow", "pig"]]


def test_counts_are_scored_image_by_image():
    truth, answer = draw_pixel_boxes(np.random.default_rng(4), n_images=40)
    images = pd.DataFrame({"image_id": sorted({*truth["image_id"], *answer["image_id"]})})
    table = score_counts(images, truth, answer, 0.5, {"cow": [2, 4], "pig": [3, 5]}).set_index(["label", "bin"])
    few = truth[truth["label"] == "cow"].groupby("image_id").size()
    chosen = few.index[few == 1]
    inside = [boxes[boxes["image_id"].isin(chosen) & (boxes["label"] == "cow")] for boxes in (truth, answer)]
    assert table.loc[("cow", "little"), "ap"] == pytest.approx(loop_ap(*inside, "cow", 0.5))
    assert table.loc[("cow", "little"), "n_truth"] == len(chosen)
    assert table["n_truth"].sum() == len(truth)


def test_the_curve_ends_where_recall_does_and_its_envelope_is_the_ap():
    truth, answer = draw_pixel_boxes(np.random.default_rng(0), n_images=40)
    matches = match_usual(truth, answer, 0.5)
    curve = precision_recall(matches)
    for label, own in curve.groupby("label"):
        envelope = own["precision"][::-1].cummax()[::-1]
        area = (np.diff(own["recall"], prepend=0) * envelope).sum()
        assert area == pytest.approx(evaluate(truth, answer, 0.5).per_class.loc[label, "ap"])
        assert (own["confidence"].diff().dropna() <= 0).all()


def test_errors_of_an_image_are_its_missed_and_its_false_boxes():
    columns = ["image_id", "label", *XYXY, "confidence"]
    truth = pd.DataFrame([("a", "cow", 0, 0, 10, 10, 1.0), ("a", "cow", 20, 0, 30, 10, 1.0),
                          ("b", "cow", 0, 0, 10, 10, 1.0)], columns=columns)
    answer = pd.DataFrame([("a", "cow", 0, 0, 10, 10, 0.9), ("b", "cow", 0, 0, 10, 10, 0.1),
                           ("c", "pig", 0, 0, 10, 10, 0.9), ("c", "cow", 0, 0, 10, 10, 0.9)], columns=columns)
    table = image_errors(pd.DataFrame({"image_id": list("abcd")}), truth, answer, 0.5)
    assert table.reset_index().to_numpy().tolist() == [
        ["c", 0, 0, 2, 2], ["a", 2, 1, 0, 1], ["b", 1, 1, 0, 1], ["d", 0, 0, 0, 0]]


@pytest.mark.parametrize("second", [0, 10])
def test_of_two_truths_overlapped_equally_cocos_is_taken(second):
    """The first box lies across two truths; whether the second box still finds one tells which was taken."""
    columns = ["image_id", "label", *XYXY, "confidence"]
    corners = [(0, 0, 10, 10), (10, 0, 20, 10)]
    rows = [("a", label, *each, 1.0) for label in ["cow", "pig"] for each in corners]
    truth = pd.DataFrame(rows, columns=columns)
    across, on_one = ("a", "cow", 5, 0, 15, 10, 0.9), ("a", "cow", second, 0, second + 10, 10, 0.8)
    answer = pd.DataFrame([across, on_one], columns=columns)
    matches = match_usual(truth, answer, 0.3)
    assert matches.is_true.tolist() == [True, second == 0]
    assert coco_ap(matches, 0) == pytest.approx(run_coco(truth, answer, 0.3)[0], abs=1e-12)


def test_matches_carry_what_resampling_needs():
    truth, answer = draw_pixel_boxes(np.random.default_rng(0), n_images=40)
    matches = match_usual(truth, answer, 0.75)
    counts = pd.crosstab(truth["image_id"], truth["label"]).reindex(matches.images, fill_value=0)
    assert (matches.n_truth == counts[matches.labels].to_numpy()).all()
    assert (np.diff(matches.label) >= 0).all()
    assert (np.diff(matches.confidence)[np.diff(matches.label) == 0] <= 0).all()
    hits = pd.crosstab(matches.image[matches.is_true], matches.label[matches.is_true]).to_numpy()
    assert 0 < hits.sum() <= matches.n_truth.sum()


@pytest.mark.parametrize(
    ("labels", "present", "words"),
    [
        (["pig", "cow"], ["pig", "cow"], ""),
        (["pig", "cow"], ["pig", "goat"], "cow has no true box here: the mean is over pig alone"),
        (["a", "b", "c", "d"], ["d", "a"], "b and c have no true box here: the mean is over a and d"),
        (["pig", "cow"], [], "no class has a true box here: there is nothing to score"),
        ([str(n) for n in range(9)], ["0", "1", "2"],
         "3, 4, 5, 6 and 2 others have no true box here: the mean is over 0, 1 and 2"),
    ],
)
def test_classes_without_truth_are_named(labels, present, words):
    assert describe_missing_classes(labels, pd.DataFrame({"label": present})) == words


LEFT, RIGHT = (0.0, 0.4, 0.0, 1.0), (0.6, 1.0, 0.0, 1.0)  # XMin, XMax, YMin, YMax


def make_rows(rows: list[tuple], columns: list[str] = ANSWER_COLUMNS) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns)


def loop_ap(truth: pd.DataFrame, answer: pd.DataFrame, label: str, iou_threshold: float) -> float:
    """AP by the textbook: one box after the other, then a step for every box."""
    truth, answer = truth[truth["label"] == label], answer[answer["label"] == label]
    free = {image_id: list(boxes[XYXY].to_numpy()) for image_id, boxes in truth.groupby("image_id")}
    flags = []
    for row in answer.sort_values("confidence", ascending=False, kind="stable").itertuples():
        there = free.get(row.image_id, [])
        corners = np.array([[row.x_min, row.y_min, row.x_max, row.y_max]])
        ious = pairwise_iou(corners, np.array(there).reshape(-1, 4))[0]
        best = len(ious) - 1 - int(np.argmax(ious[::-1])) if len(ious) else -1  # the later of equals
        flags.append(best >= 0 and ious[best] >= iou_threshold)
        if flags[-1]:
            del there[best]
    area = 0.0
    for n in range(1, len(flags) + 1):
        if flags[n - 1]:
            area += max(sum(flags[:m]) / m for m in range(n, len(flags) + 1)) / len(truth)
    return area


def draw_pixel_boxes(rng: np.random.Generator, n_images: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Crowded truth and an answer of jittered copies, in whole pixels; some images on one side only."""
    n = n_images * 12
    corner, size = rng.integers(0, 60, (n, 2)), rng.integers(30, 60, (n, 2))
    boxes = np.hstack([corner, corner + size]).astype(float)
    image = np.sort(rng.integers(0, n_images, n))
    truth = pd.DataFrame(boxes, columns=XYXY).assign(image_id=[f"{i:03d}" for i in image], confidence=1.0)
    truth["label"] = rng.choice(["cow", "pig"], n)
    answer = pd.concat([truth] * 3, ignore_index=True)
    answer[XYXY] += rng.integers(-3, 4, (len(answer), 4))
    answer["confidence"] = rng.integers(1, 50, len(answer)) / 50
    answer = answer.sort_values("image_id", kind="stable", ignore_index=True)
    return truth[truth["image_id"] > "002"], answer[answer["image_id"] < f"{n_images - 3:03d}"]


def coco_ap(matches: Matches, label: int) -> float:
    """COCO's 101-point AP of one class from our flags."""
    return interpolated_precision(matches.is_true[matches.label == label], matches.n_truth[:, label].sum())


def run_coco(truth: pd.DataFrame, answer: pd.DataFrame, iou_threshold: float | None, area: int = 0) -> list[float]:
    """AP of cow and pig from faster_coco_eval, of all, small, medium or large boxes; no IoU: its own mAP50-95."""
    from faster_coco_eval import COCO, COCOeval_faster

    images = {name: i for i, name in enumerate(sorted({*truth["image_id"], *answer["image_id"]}), start=1)}

    def annotations(boxes: pd.DataFrame) -> list[dict]:
        size = boxes[["x_max", "y_max"]].to_numpy() - boxes[["x_min", "y_min"]].to_numpy()
        return [
            {
                "id": n,
                "image_id": images[row.image_id],
                "category_id": ["cow", "pig"].index(row.label) + 1,
                "bbox": [row.x_min, row.y_min, *size[n - 1]],
                "area": float(size[n - 1].prod()),
                "score": row.confidence,
                "iscrowd": 0,
            }
            for n, row in enumerate(boxes.itertuples(), start=1)
        ]

    gold = COCO(
        {
            "images": [{"id": i, "width": 999, "height": 999} for i in images.values()],
            "annotations": annotations(truth),
            "categories": [{"id": 1, "name": "cow"}, {"id": 2, "name": "pig"}],
        }
    )
    run = COCOeval_faster(gold, gold.loadRes(annotations(answer)), "bbox")
    if iou_threshold is not None:
        run.params.iouThrs, run.params.maxDets = np.array([iou_threshold]), [1, 10, 1000]
    run.evaluate()
    run.accumulate()
    return run.eval["precision"][:, :, :, area, -1].mean(axis=(0, 1)).tolist()
