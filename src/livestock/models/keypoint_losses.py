"""Losses of the places of keypoints, of one signature: what a one-stage pose model may be trained on.

Each takes places `(M, K, 2)` of M objects as found and as labelled, which points are labelled `(M, K)` bool, and the
objects' areas `(M,)`, in the same unit squared, and gives one number. Points that are not labelled contribute nothing,
an object without any neither, and each object counts alike. Distances are shares of the root of the object's area, so
that a loss is the same however large an object is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SMALLEST_AREA = 1e-6
KeypointLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def make_losses(sigmas: Sequence[float]) -> dict[str, KeypointLoss]:
    """The losses by name: `oks` with the skeleton's sigmas, `oks_even` with 1/K, `oks_third` with a third of that,
    `l1` and `euclidean`.

    >>> losses = make_losses([0.25])
    >>> found, area = torch.tensor([[[3.0, 4.0]]]), torch.tensor([100.0])
    >>> truth, is_labelled = torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool)
    >>> [round(float(losses[name](found, truth, is_labelled, area)), 3) for name in ("oks", "l1", "euclidean")]
    [0.393, 0.7, 0.5]
    """
    n_points = len(sigmas)
    return {"oks": make_oks(sigmas), "oks_even": make_oks([1 / n_points] * n_points),
            "oks_third": make_oks([1 / (3 * n_points)] * n_points), "l1": l1, "euclidean": euclidean}


def make_oks(sigmas: Sequence[float]) -> KeypointLoss:
    """1 - OKS, where OKS = exp(-d^2 / (2 (2 sigma)^2 area)) is that of COCO's evaluation, a mean over points."""
    own = torch.tensor(list(sigmas))

    def oks(found: Tensor, truth: Tensor, is_labelled: Tensor, area: Tensor) -> Tensor:
        squares = _share(found, truth, is_labelled, area).square().sum(-1)
        return _average(1 - torch.exp(-squares / (2 * (2 * own.to(squares)).square())), is_labelled)

    return oks


def l1(found: Tensor, truth: Tensor, is_labelled: Tensor, area: Tensor) -> Tensor:
    """The sum of the distances along x and y."""
    return _average(_share(found, truth, is_labelled, area).abs().sum(-1), is_labelled)


def euclidean(found: Tensor, truth: Tensor, is_labelled: Tensor, area: Tensor) -> Tensor:
    """The distance; its gradient is 0 where both places are the same."""
    squares = _share(found, truth, is_labelled, area).square().sum(-1)
    return _average(torch.where(squares > 0, squares, 1.0).sqrt() * (squares > 0), is_labelled)


def _share(found: Tensor, truth: Tensor, is_labelled: Tensor, area: Tensor) -> Tensor:
    off = torch.where(is_labelled[..., None], found - truth, 0.0)  # what is nowhere has no gradient, NaN neither
    return off / area.clamp(min=SMALLEST_AREA).sqrt()[:, None, None]


def _average(values: Tensor, is_labelled: Tensor) -> Tensor:
    """The mean over the objects of the means over their labelled points, of `(M, K)`; 0 without any."""
    n_points = is_labelled.sum(1)
    sums = torch.where(is_labelled, values, 0.0).sum(1) / n_points.clamp(min=1)
    return sums.sum() / (n_points > 0).sum().clamp(min=1)
