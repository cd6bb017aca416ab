"""A method is chosen by one test over all of them, by groups; nothing of a part is known where its method is chosen."""

from __future__ import annotations

import doctest
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sweep import draw_tables

from livestock.evaluation import evaluate, match_usual
from livestock.postprocess import (
    MIN_EFFECTIVE_GROUPS,
    GroupScores,
    block_groups,
    choose_method,
    choosing,
    compare_gains,
    decide,
    find_interval,
    score_groups,
    score_inner,
    split_parts,
    suppress,
)
from livestock.tables import make_images

N_IMAGES = 24
IMAGE_IDS = [f"{index}.jpg" for index in range(N_IMAGES)]


def make_grouped(groups: np.ndarray) -> pd.DataFrame:
    return make_images([{"image_id": f"{index}.jpg", "archive": "", "member": "", "width": 450, "height": 450,
                         "group": group} for index, group in enumerate(groups)])


def equal_groups(values: np.ndarray) -> GroupScores:
    """One class, groups of one size whose own scores are `values`, of a score that is their mean."""
    n = len(values)
    without = (values.sum() - values) / (n - 1)
    return GroupScores(np.array([values.mean()]), without[:, None], np.full((n, 1), 1 / n))


def test_examples() -> None:
    assert doctest.testmod(choosing).failed == 0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_score_without_a_block_is_that_of_the_other_images(seed: int) -> None:
    truth, candidates = draw_tables(np.random.default_rng(seed), 10, 9)
    truth = truth[truth["label"] != "dog"]
    blocks = pd.Series(np.arange(10) % 4, index=IMAGE_IDS[:10])
    scores = score_groups(match_usual(truth, candidates, 0.5), blocks)
    assert scores.score == pytest.approx(evaluate(truth, candidates, 0.5).mean)
    labels = sorted(truth["label"].unique())
    for block in range(4):
        inside = truth["image_id"].map(blocks) == block
        rest = evaluate(truth[~inside], candidates[candidates["image_id"].map(blocks) != block], 0.5).per_class["ap"]
        np.testing.assert_allclose(scores.without[block], rest.reindex(labels), atol=1e-12)
        share = truth.loc[inside, "label"].value_counts() / truth["label"].value_counts()
        np.testing.assert_allclose(scores.shares[block], share.reindex(labels).fillna(0))
    assert scores.contributions.sum() == pytest.approx(scores.score)


def test_contributions_to_a_mean_are_shares_of_it() -> None:
    """A score that is a mean over unequal groups and two classes: each adds its weight times its own."""
    n_truth = np.array([[30, 0], [10, 5], [20, 15]])
    own = np.array([[0.5, 0.0], [0.8, 0.9], [0.2, 0.4]])
    shares = n_truth / n_truth.sum(axis=0)
    total, aps = n_truth * own, (shares * own).sum(axis=0)
    without = (total.sum(axis=0) - total) / (n_truth.sum(axis=0) - n_truth)
    scores = GroupScores(aps, without, shares)
    np.testing.assert_allclose(scores.contributions, (shares * own).mean(axis=1))
    np.testing.assert_allclose(scores.residuals, (shares * (own - aps)).mean(axis=1))
    assert scores.n_effective == pytest.approx(1 / (((30 / 60) / 2) ** 2 + ((1 / 6 + 1 / 4) / 2) ** 2
                                                    + ((1 / 3 + 3 / 4) / 2) ** 2))


def test_small_groups_are_joined_and_large_ones_stay() -> None:
    groups = np.r_[np.zeros(60, int), np.ones(33, int), np.full(7, -1)]
    images = make_grouped(groups)
    truth = pd.DataFrame({"image_id": images["image_id"], "label": "pig"})
    blocks = block_groups(images, truth)
    assert blocks.index.tolist() == images["image_id"].tolist()
    of_group = blocks.groupby(images["group"].to_numpy())
    assert of_group.nunique()[[0, 1]].tolist() == [1, 1] and set(of_group.get_group(-1)).isdisjoint(
        {*of_group.get_group(0), *of_group.get_group(1)})
    assert sorted(of_group.get_group(-1).value_counts()) == [2, 2, 3]
    assert sorted(blocks.unique()) == list(range(5))
    alone = block_groups(images, truth[(images["group"] == 0).to_numpy()])  # without a box a group weighs nothing
    assert alone.nunique() == 1
    assert block_groups(images.iloc[:0], truth.iloc[:0]).empty


def test_the_test_over_all_methods_is_that_of_every_pattern_of_signs() -> None:
    """Step-down by hand: the largest by all methods, the next without it, and no p below an earlier one."""
    gains = np.random.default_rng(0).normal(0.3, 1, (7, 4))  # p of one is raised to that of an earlier one

    def studentised(table: np.ndarray) -> np.ndarray:
        mean, error = table.mean(axis=0), table.std(axis=0, ddof=1) / np.sqrt(len(table))
        return np.abs(mean / error)

    found, left, before = studentised(gains), list(range(4)), 0.0
    patterns = [np.array([1 if number >> bit & 1 else -1 for bit in range(7)])[:, None] for number in range(2**7)]
    expected = np.zeros(4)
    for method in np.argsort(-found):
        hits = [studentised(gains * signs)[left].max() >= found[method] - 1e-9 for signs in patterns]
        before = max(before, float(np.mean(hits)))
        expected[method] = before
        left.remove(method)
    np.testing.assert_allclose(compare_gains(gains), expected)
    for order in permutations(range(4)):
        np.testing.assert_allclose(compare_gains(gains[:, order]), expected[list(order)])
    assert compare_gains(np.zeros((7, 2))).tolist() == [1, 1]  # the same boxes


def test_more_methods_need_more_evidence() -> None:
    """A gain that is shown alone is not shown as the best of eleven."""
    rng = np.random.default_rng(3)
    real = np.array([3, 2, 4, 3, 2, 1, 3, -0.5, -1.0])[:, None]
    alone, among = compare_gains(real)[0], compare_gains(np.hstack([real, rng.normal(0, 2, (9, 9))]))[0]
    assert alone < 0.05 < among


def test_under_no_gain_five_in_a_hundred_at_most_are_taken() -> None:
    """Exchangeable methods, nine groups. Of 400 draws at 5 % more than 31 are taken once in a hundred times."""
    rng, taken = np.random.default_rng(0), 0
    for _ in range(400):
        methods = {str(number): equal_groups(values) for number, values in
                   enumerate(0.6 + 0.1 * rng.normal(size=(11, 9)) + 0.1 * rng.normal(size=9))}
        taken += decide(methods, list(methods)).method != "0"
    assert taken <= 31


def test_the_best_of_those_shown_to_be_better_is_taken_if_it_is_allowed() -> None:
    base = np.linspace(0.5, 0.7, 9)
    wave = 0.01 * np.cos(np.arange(9))
    methods = {"first": equal_groups(base), "small": equal_groups(base + 0.05 + wave),
               "large": equal_groups(base + 0.1 - wave), "unsure": equal_groups(base + np.r_[np.full(8, -0.05), 1.5]),
               "worse": equal_groups(base - 0.1 + wave)}
    assert methods["unsure"].score > methods["large"].score
    assert decide(methods, list(methods)).method == "large"
    assert decide(methods, ["first", "small", "worse"]).method == "small"
    assert decide(methods, ["worse"]).method == "first"  # shown to differ, and not for the better
    assert decide({"first": methods["first"]}, []).method == "first"
    p = decide(methods, list(methods)).p
    assert list(p.index) == ["small", "large", "unsure", "worse"] and p["unsure"] > 0.05 >= p[["small", "worse"]].max()


def test_too_few_effective_groups_leave_the_simplest() -> None:
    """One group with 61 % of the boxes: it says the same as 2.6 equal ones, whatever the others agree on."""
    share = np.r_[0.61, np.full(8, 0.39 / 8)]
    scores = {}
    for name, level in (("first", 0.5), ("better", 0.7)):
        values = np.full(9, level)
        scores[name] = GroupScores(np.array([level]), ((level - share * values) / (1 - share))[:, None], share[:, None])
    verdict = decide(scores, list(scores))
    gain = scores["better"].contributions - scores["first"].contributions
    assert compare_gains(gain[:, None])[0] == pytest.approx(2 / 2**9) and np.isnan(verdict.p["better"])
    assert verdict.n_effective == pytest.approx(2.5568, abs=1e-4) and verdict.n_effective < MIN_EFFECTIVE_GROUPS
    assert verdict.method == "first"


def test_an_interval_where_all_is_right_or_wrong_or_one_group_judges() -> None:
    assert find_interval(equal_groups(np.ones(9))) == (pytest.approx(0.025 ** (1 / 9)), 1.0)
    assert find_interval(equal_groups(np.zeros(9))) == (0.0, pytest.approx(1 - 0.025 ** (1 / 9)))
    one = GroupScores(np.array([0.4]), np.full((1, 1), np.nan), np.ones((1, 1)))
    assert find_interval(one) == (0.0, 1.0)
    empty = GroupScores(np.zeros(0), np.zeros((3, 0)), np.zeros((3, 0)))
    assert find_interval(empty) == (0.0, 1.0) and empty.score == empty.n_effective == 0


@pytest.fixture(scope="module")
def answers() -> tuple[pd.DataFrame, pd.DataFrame, pd.Series, dict[str, pd.DataFrame]]:
    """Images in eight groups, truth, parts, and methods: all candidates, half of them, and truth itself."""
    images = make_grouped(np.arange(N_IMAGES) // 3)
    truth, candidates = draw_tables(np.random.default_rng(1), N_IMAGES, 9)
    truth, candidates = (table[table["label"] != "dog"] for table in (truth, candidates))
    boxes = suppress(candidates, iou_threshold=0.5)
    perfect = truth.assign(confidence=0.9)
    parts = split_parts(images, np.random.default_rng(0))
    return images, truth, parts, {"plain": boxes, "half": boxes.iloc[::2], "perfect": perfect}


def choose_of(truth: pd.DataFrame, images: pd.DataFrame, parts: pd.Series, answers: dict[str, pd.DataFrame],
              **more: object) -> choosing.Choice:
    inner = {name: {part: score_inner(boxes, truth, images, parts, part, 0.5) for part in range(5)}
             for name, boxes in answers.items()}
    return choose_method(answers, inner, truth, images, parts, 0.5, **{"allowed": list(answers), **more})


def test_what_is_better_in_every_group_is_chosen(answers: tuple) -> None:
    images, truth, parts, boxes = answers
    choice = choose_of(truth, images, parts, boxes)
    assert choice.method == "perfect" and choice.table.loc["perfect", "p"] == pytest.approx(2 / 2**8)
    assert choice.reason.startswith("perfect alone is shown to be better than plain: +")
    assert choice.n_groups == 8 and 6 < choice.n_effective <= 8
    assert choice.table.loc["plain", ["gain", "gain_low", "gain_high"]].tolist() == [0, 0, 0]
    assert choice.table["mAP"].tolist() == pytest.approx([evaluate(truth, own, 0.5).mean for own in boxes.values()])
    no_better = choose_of(truth, images, parts, boxes, allowed=["plain", "half"])
    assert no_better.method == "plain" and set(no_better.by_part.values()) == {"plain"}
    assert no_better.score == pytest.approx(no_better.table.loc["plain", "mAP"])
    assert no_better.reason.startswith("none is shown to be better than plain")
    alone = choose_of(truth, images, parts, {"plain": boxes["plain"]})
    assert alone.method == "plain" and "none scores higher" in alone.reason


def test_the_score_includes_what_would_have_been_chosen_without_each_part(answers: tuple) -> None:
    """With a part left out fewer groups are left: the first method answers for it, and the score says so."""
    images, truth, parts, boxes = answers
    choice = choose_of(truth, images, parts, boxes)
    n_left = {part: score_inner(boxes["plain"], truth, images, parts, part, 0.5).n_effective for part in range(5)}
    expected = {part: "perfect" if n >= MIN_EFFECTIVE_GROUPS else "plain" for part, n in n_left.items()}
    assert choice.by_part == expected and len(set(expected.values())) == 2
    mixed = pd.concat([boxes[name][boxes[name]["image_id"].map(parts) == part] for part, name in expected.items()])
    assert choice.score == pytest.approx(evaluate(truth, mixed, 0.5).mean)
    nested = find_interval(score_groups(match_usual(truth, mixed, 0.5), block_groups(images, truth)))
    assert choice.low == pytest.approx(nested[0]) and nested[1] < choice.high == choice.table.loc["perfect", "high"]
    assert choice.low < choice.score < choice.table.loc["perfect", "mAP"]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), part=st.integers(0, 4))
def test_the_method_for_a_part_does_not_depend_on_its_truth(seed: int, part: int) -> None:
    rng = np.random.default_rng(seed)
    images = make_grouped(np.arange(N_IMAGES) // 2)
    parts = split_parts(images, rng)
    truth, candidates = draw_tables(rng, N_IMAGES, 9)
    other = draw_tables(rng, N_IMAGES, 9)[0]
    answers = {"plain": suppress(candidates, iou_threshold=0.5), "perfect": truth.assign(confidence=0.9)}
    changed = pd.concat([truth[truth["image_id"].map(parts) != part], other[other["image_id"].map(parts) == part]])
    choices = [choose_of(own, images, parts, answers) for own in (truth, changed)]
    assert choices[0].by_part[part] == choices[1].by_part[part]


def test_images_without_any_truth_or_group_are_no_error() -> None:
    images = make_grouped(np.full(4, -1))
    truth, candidates = draw_tables(np.random.default_rng(1), 4, 9)
    parts = split_parts(images, np.random.default_rng(0))
    for known in (truth, truth.iloc[:0]):
        choice = choose_of(known, images, parts, {"plain": candidates, "half": candidates.iloc[::2]})
        assert choice.method == "plain" and choice.n_groups == 4 and "too few groups" in choice.reason
        assert 0 <= choice.low <= choice.score <= choice.high <= 1
