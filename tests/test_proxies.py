"""Proxies: scales, and the judgement of their choices, against figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestock.search.proxies import FULL, PROXIES, Proxy, judge_proxies, keep_whole_seeds

COLUMNS = ["setting", "scale", "seed", "AP", "seconds"]


def make_trainings(scores: dict[str, list[list[float]]], seconds: dict[str, float]) -> pd.DataFrame:
    """Rows from the scores of each scale, a list a seed, a number a setting."""
    return pd.DataFrame([(f"s{number}", scale, seed, ap, seconds[scale]) for scale, seeds in scores.items()
                         for seed, aps in enumerate(seeds) for number, ap in enumerate(aps)], columns=COLUMNS)


def test_figures_by_hand() -> None:
    judged = judge_proxies(make_trainings(
        {"full": [[0.5, 0.6, 0.7], [0.6, 0.5, 0.8]], "half": [[0.3, 0.2, 0.1], [0.1, 0.2, 0.3]]},
        {"full": 40.0, "half": 10.0}))
    half, full = judged.loc["half"], judged.loc["full"]
    # Seed 0 is judged by seed 1's full scores .6 .5 .8: one pair of three in order; it takes s0, .2 below s2.
    # Seed 1 is judged by .5 .6 .7: all in order, the best is taken.
    assert half["tau"] == pytest.approx((-1 / 3 + 1) / 2)
    assert half["regret"] == pytest.approx((0.2 + 0) / 2)
    assert half["cost"] == pytest.approx(0.25)
    assert full["tau"] == pytest.approx(1 / 3) and full["regret"] == 0
    assert half["over_full"] == pytest.approx(0.1)
    # Each setting's two full scores lie 0.1 apart: a variance of 0.005.
    assert half["noise"] == pytest.approx(math.sqrt(0.005))
    assert not half["is_within"] and full["is_within"]
    assert list(judged.index) == ["full", "half"]


def test_equal_scores_count_as_the_worst_of_them() -> None:
    judged = judge_proxies(make_trainings({"full": [[0.4, 0.9]] * 2, "flat": [[0.5, 0.5]] * 2},
                                          {"full": 2.0, "flat": 1.0}))
    assert judged.loc["flat", "regret"] == pytest.approx(0.5) and judged.loc["flat", "tau"] == 0


def test_seeds_that_lack_a_training_do_not_count() -> None:
    rows = make_trainings({"full": [[0.1, 0.2]] * 3, "half": [[0.1, 0.2]] * 3}, {"full": 2.0, "half": 1.0})
    rows = rows.drop(index=rows.index[(rows["seed"] == 1) & (rows["scale"] == "half")][0])
    assert sorted(keep_whole_seeds(rows)["seed"].unique()) == [0, 2]


def test_a_training_that_came_again_replaces_the_first() -> None:
    rows = make_trainings({"full": [[0.1, 0.2]] * 2}, {"full": 2.0})
    again = pd.DataFrame([("s0", "full", 0, 0.9, 1.0)], columns=COLUMNS)
    kept = keep_whole_seeds(pd.concat([rows, again]))
    assert len(kept) == 4 and kept["AP"].max() == 0.9


@pytest.mark.parametrize("scores", [{"full": [[0.1, 0.2]]}, {"full": [[0.1], [0.2]]}, {"half": [[0.1, 0.2]] * 2}])
def test_too_little_is_refused(scores: dict[str, list[list[float]]]) -> None:
    with pytest.raises(ValueError, match="proxies: expected two settings or more"):
        judge_proxies(make_trainings(scores, dict.fromkeys(scores, 1.0)))


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=8, unique=True), st.integers(2, 4))
def test_a_proxy_that_orders_alike_has_no_regret(values: list[int], n_seeds: int) -> None:
    aps = np.array(values) / 1000
    judged = judge_proxies(make_trainings({"full": [list(aps)] * n_seeds, "half": [list(aps / 2)] * n_seeds},
                                          {"full": 2.0, "half": 1.0}))
    assert judged.loc["half", "regret"] == 0 and judged.loc["half", "tau"] == pytest.approx(1)
    assert (judged["is_within"]).all()


@given(st.integers(1, 60).map(lambda n: 32 * n), st.integers(1, 100))
def test_a_scale_gives_what_can_be_trained(imgsz: int, epochs: int) -> None:
    for proxy in (FULL, *PROXIES):
        assert proxy.scale_imgsz(imgsz) % 32 == 0 and 32 <= proxy.scale_imgsz(imgsz) <= imgsz
        assert 1 <= proxy.scale_epochs(epochs) <= epochs
    assert FULL.scale_imgsz(imgsz) == imgsz and FULL.scale_epochs(epochs) == epochs


def test_share_is_the_product() -> None:
    assert Proxy("all", imgsz=0.5, data=0.5, epochs=0.25).share == pytest.approx(0.25 * 0.5 * 0.25)
