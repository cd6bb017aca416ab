"""Losses of places: values by hand, gradients by finite differences, and nothing from points that are not labelled."""

from __future__ import annotations

import pytest
import torch

from livestock.models.keypoint_losses import euclidean, l1, make_losses, make_oks

SIGMAS = (0.05, 0.25, 0.1)
LOSSES = make_losses(SIGMAS)


def draw(n: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    found, truth = (torch.rand(n, 3, 2, generator=generator, dtype=torch.float64) * 10 for _ in range(2))
    is_labelled = torch.rand(n, 3, generator=generator) < 0.6
    is_labelled[0], is_labelled[1] = True, False
    return found, truth, is_labelled, torch.rand(n, generator=generator, dtype=torch.float64) * 90 + 10


@pytest.mark.parametrize(("sigma", "expected"), [
    (0.25, (0.995, 0.980, 0.923)), (0.25 / 3, (0.956, 0.835, 0.487)), (0.05, (0.882, 0.607, 0.135)),
    (0.025, (0.607, 0.135, 0.000))])
def test_oks_as_cocos_formula_has_it(sigma: float, expected: tuple[float, ...]) -> None:
    """At .05, .1 and .2 of the root of the area."""
    area, truth = torch.tensor([400.0]), torch.zeros(1, 1, 2)
    for share, oks in zip((0.05, 0.1, 0.2), expected, strict=True):
        found = torch.tensor([[[0.6, 0.8]]]) * share * 20
        assert 1 - float(make_oks([sigma])(found, truth, torch.ones(1, 1, dtype=torch.bool), area)) == pytest.approx(
            oks, abs=5e-4)


def test_values_by_hand() -> None:
    """Two objects, of which the second has one labelled point: each counts alike."""
    found = torch.tensor([[[3.0, 4.0], [0, 0]], [[6.0, 8.0], [99, 99]]])
    is_labelled, area = torch.tensor([[True, True], [True, False]]), torch.tensor([100.0, 25.0])
    assert float(l1(found, torch.zeros(2, 2, 2), is_labelled, area)) == pytest.approx((0.7 / 2 + 14 / 5) / 2)
    assert float(euclidean(found, torch.zeros(2, 2, 2), is_labelled, area)) == pytest.approx((0.5 / 2 + 10 / 5) / 2)


def test_sigmas_of_each_loss() -> None:
    found, truth, is_labelled, area = draw()
    even, third = make_oks([1 / 3] * 3), make_oks([1 / 9] * 3)
    given = (found, truth, is_labelled, area)
    assert LOSSES["oks_even"](*given) == even(*given) and LOSSES["oks_third"](*given) == third(*given)
    assert LOSSES["oks"](*given) == make_oks(SIGMAS)(*given) != even(*given)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_by_finite_differences(name: str) -> None:
    found, truth, is_labelled, area = draw()
    assert torch.autograd.gradcheck(lambda places: LOSSES[name](places, truth, is_labelled, area),
                                    (found.requires_grad_(),))


@pytest.mark.parametrize("name", LOSSES)
def test_points_that_are_not_labelled_contribute_nothing(name: str) -> None:
    found, truth, is_labelled, area = draw()
    found.requires_grad_()
    value = LOSSES[name](found, truth, is_labelled, area)
    value.backward()
    assert found.grad is not None and (found.grad[~is_labelled] == 0).all() and (found.grad[is_labelled] != 0).all()
    elsewhere = torch.where(is_labelled[..., None], truth, truth + 1e6)
    assert LOSSES[name](found, elsewhere, is_labelled, area) == value
    nowhere = torch.where(is_labelled[..., None], truth, torch.nan)
    found.grad = None
    LOSSES[name](found, nowhere, is_labelled, area).backward()
    assert found.grad is not None and (found.grad[~is_labelled] == 0).all() and found.grad.isfinite().all()
    has_point = is_labelled.any(1)
    kept = LOSSES[name](*(part[has_point] for part in (found, truth, is_labelled, area)))
    torch.testing.assert_close(kept, value)


@pytest.mark.parametrize("name", LOSSES)
def test_right_places_cost_nothing_and_have_a_gradient(name: str) -> None:
    _, truth, is_labelled, area = draw()
    found = truth.clone().requires_grad_()
    value = LOSSES[name](found, truth, is_labelled, area)
    value.backward()
    assert value == 0 and found.grad is not None and (found.grad == 0).all()
    nothing = LOSSES[name](truth, truth, torch.zeros_like(is_labelled), area)
    assert nothing == 0
