"""yolov5's recipe in our loop, number by number: schedules, warm-up, averaged weights, weight decay."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from livestock.models.yolov5.library import load_library
from livestock.training.ema import Average
from livestock.training.schedule import Schedule, decay

HYP = {"lr0": 0.01, "lrf": 0.1, "momentum": 0.937, "warmup_epochs": 3.0, "warmup_momentum": 0.8, "warmup_bias_lr": 0.1}


def make_groups() -> list[dict]:
    return [{"first_lr": 0.01, "warmup_lr": 0.1, "momentum": 0.0}, {"first_lr": 0.01, "warmup_lr": 0.0, "momentum": 0.0}]


def rates_of_yolov5(batch: int, n_batches: int, epochs: int, hyp: dict) -> tuple[float, float, float, int]:
    """Learning rate of biases and weights, momentum and accumulation, written down from the description of its loop."""
    n_warmup, epoch = round(hyp["warmup_epochs"] * n_batches), batch // n_batches
    factor = (1 - epoch / epochs) * (1 - hyp["lrf"]) + hyp["lrf"]
    if batch > n_warmup:
        return hyp["lr0"] * factor, hyp["lr0"] * factor, hyp["momentum"], 4
    share = batch / n_warmup
    return (0.1 + share * (hyp["lr0"] * factor - 0.1), share * hyp["lr0"] * factor,
            0.8 + share * (hyp["momentum"] - 0.8), max(1, round(1 + share * 3)))


@pytest.mark.parametrize("batch", [0, 1, 44, 89, 90, 91, 150, 449])
def test_rates_are_those_of_yolov5(batch: int) -> None:
    schedule, groups = Schedule("linear", 15, 30, 4.0, HYP), make_groups()
    schedule.set_rates(groups, batch)
    bias, weights, momentum, n_each = rates_of_yolov5(batch, 30, 15, HYP)
    assert groups[0]["lr"] == pytest.approx(bias, abs=1e-12)
    assert groups[1]["lr"] == pytest.approx(weights, abs=1e-12)
    assert groups[0]["momentum"] == pytest.approx(momentum)
    assert schedule.accumulate(batch) == n_each


@given(st.integers(1, 200), st.floats(0, 5), st.integers(0, 2000))
def test_warm_up_lasts_as_long_as_the_file_says(n_batches: int, warmup_epochs: float, batch: int) -> None:
    schedule, groups = Schedule("linear", 10, n_batches, 1.0, {**HYP, "warmup_epochs": warmup_epochs}), make_groups()
    schedule.set_rates(groups, batch)
    is_warm = batch >= round(warmup_epochs * n_batches)
    assert (groups[0]["momentum"] == HYP["momentum"]) == is_warm
    assert is_warm <= (groups[0]["lr"] == groups[1]["lr"])


@pytest.mark.parametrize("epoch", [0, 1, 7, 19])
def test_the_cosine_is_that_of_yolov5(epoch: int) -> None:
    one_cycle = load_library().one_cycle(1, 0.1, 20)
    assert decay("cosine", epoch, 20, 0.1) == pytest.approx(one_cycle(epoch))


def test_the_step_schedule_falls_twice() -> None:
    assert [decay("step", epoch, 20, 0.5) for epoch in (0, 13, 14, 17, 18, 19)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


def test_averaged_weights_are_those_of_yolov5() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    own, library = Average(model), load_library().ModelEMA(copy.deepcopy(model))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        model(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        own.update(model)
        library.update(model)
    expected = library.ema.state_dict()
    for name, tensor in own.model.state_dict().items():
        if tensor.dtype.is_floating_point:
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-7)
    assert own.n_steps == library.updates == 5
    assert not own.model.training


def test_averaged_weights_move_by_the_decay() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    average = Average(model)
    torch.nn.init.constant_(model.weight, 3.0)
    average.update(model)
    share = 1 - 0.9999 * (1 - np.exp(-1 / 2000))
    assert average.model.weight.item() == pytest.approx(1 + 2 * share, rel=1e-6)
