"""Heat maps: what is encoded comes back, between cells, at borders, and without a drift to any side."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from livestock.models.heatmap_codec import (
    DECODERS,
    decode_argmax,
    decode_dark,
    decode_quarter,
    decode_soft,
    encode_gaussian,
    encode_one_hot,
)

SIZE, STRIDE, SIGMA = (48, 64), 4.0, 2.0


def draw_points(seed: int, n: int, margin: float = 40.0) -> torch.Tensor:
    """Random places, in pixels of an input of 256 x 192."""
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.uniform((margin, margin), (256 - margin, 192 - margin), (n, 2)), dtype=torch.float32)


@pytest.mark.parametrize(("name", "mean_distance"), [("argmax", 0.39), ("quarter", 0.20), ("dark", 0.001),
                                                     ("soft", 0.02)])
def test_decoding_does_not_drift(name: str, mean_distance: float) -> None:
    """Mean signed error below .05 cells on both axes, and the distance that each method is known for.

    A cell's centre is on average .38 away from a random place in it; a quarter towards the neighbour halves that.
    """
    points = draw_points(0, 4000)
    maps = encode_gaussian(points, torch.full((4000,), 2), SIZE, STRIDE, SIGMA)
    found, confidence = DECODERS[name](maps, STRIDE)
    error = (found - points) / STRIDE
    assert error.mean(0).abs().max() < 0.05
    assert error.norm(dim=-1).mean() == pytest.approx(mean_distance, abs=0.02)
    assert confidence.min() > 0.9


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 255.9), st.floats(0, 191.9), st.sampled_from(sorted(DECODERS)))
def test_a_place_anywhere_in_the_picture_comes_back_within_a_cell(x: float, y: float, name: str) -> None:
    maps = encode_gaussian(torch.tensor([x, y]), torch.tensor(2), SIZE, STRIDE, SIGMA)
    found, _ = DECODERS[name](maps, STRIDE)
    bound = 1.0 if name != "soft" else 2.0  # half of a Gaussian at the border has its mean inside
    assert (found - torch.tensor([x, y])).abs().max() <= bound * STRIDE


def test_a_gaussian_is_that_of_its_formula() -> None:
    target = encode_gaussian(torch.tensor([[10.0, 7.0]]), torch.tensor([1]), (4, 5), 2.0, 1.5)[0]
    for row in range(4):
        for column in range(5):
            distance = ((2 * column + 1 - 10) / 2) ** 2 + ((2 * row + 1 - 7) / 2) ** 2
            assert float(target[row, column]) == pytest.approx(np.exp(-distance / (2 * 1.5**2)), rel=1e-5)


def test_points_that_are_not_labelled_have_empty_maps() -> None:
    points = draw_points(1, 3)
    visible = torch.tensor([0, 1, 2])
    for maps in (encode_gaussian(points, visible, SIZE, STRIDE, SIGMA), encode_one_hot(points, visible, SIZE, STRIDE)):
        assert (maps.flatten(1).amax(1) > 0).tolist() == [False, True, True]
    outside = encode_one_hot(torch.tensor([[-1.0, 5.0], [256.0, 5.0]]), torch.tensor([2, 2]), SIZE, STRIDE)
    assert not outside.any()


def test_one_hot_marks_the_cell_of_the_place() -> None:
    points = draw_points(2, 500, margin=0)
    maps = encode_one_hot(points, torch.full((500,), 2), SIZE, STRIDE)
    assert maps.sum((1, 2)).tolist() == [1.0] * 500
    found, _ = decode_argmax(maps, STRIDE)
    assert ((found - points).abs() <= STRIDE / 2).all()


def test_many_maps_at_once_give_what_each_gives_alone() -> None:
    rng = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 5, 12, 9, generator=rng)
    for name, decode in DECODERS.items():
        found, confidence = decode(maps, 4.0)
        assert found.shape == (3, 5, 2) and confidence.shape == (3, 5)
        for image in range(3):
            for point in range(5):
                alone, value = decode(maps[image, point], 4.0)
                torch.testing.assert_close(found[image, point], alone, msg=name)
                assert value == confidence[image, point]


def test_noise_moves_the_exact_decoders_least() -> None:
    """A little noise on each cell: the fitted peak and the mean stay nearer than the quarter."""
    points = draw_points(3, 2000)
    clean = encode_gaussian(points, torch.full((2000,), 2), SIZE, STRIDE, SIGMA)
    noisy = clean + 0.01 * torch.rand(clean.shape, generator=torch.Generator().manual_seed(0))
    distance = {name: float(((decode(noisy, STRIDE)[0] - points) / STRIDE).norm(dim=-1).mean())
                for name, decode in DECODERS.items()}
    assert max(distance["dark"], distance["soft"]) < distance["quarter"] < distance["argmax"]


def test_a_flat_map_is_no_place_and_no_error() -> None:
    for decode in (decode_argmax, decode_quarter, decode_dark, decode_soft):
        one = encode_one_hot(torch.tensor([[10.0, 10.0]]), torch.tensor([2]), (6, 8), 4.0)
        found, _ = decode(one.half(), 4.0)
        assert torch.isfinite(found).all() and (found - 10).abs().max() < 4
        found, confidence = decode(torch.zeros(2, 6, 8), 4.0)
        assert torch.isfinite(found).all()
        assert confidence.tolist() == [0.0, 0.0]
