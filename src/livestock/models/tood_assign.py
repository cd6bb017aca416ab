"""Which places of TOOD's pyramid learn which box: by distance at first (ATSS), then by task alignment learning.

Papers: Zhang et al., Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample
Selection, CVPR 2020, arXiv:1912.02424; Feng et al., TOOD, ICCV 2021, arXiv:2108.07755, whose equations are named below.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

ALPHA, BETA, N_ALIGNED = 1.0, 6.0, 13  # of equation 8, and how many places an object is assigned to at most
N_NEAREST, ANCHOR_SIDE = 9, 8  # of ATSS: places a level, and the side of a place's box in strides
LEAST_INSIDE = 0.01  # pixels that a place must be inside a box


def assign_by_distance(points: Tensor, strides: Tensor, truth: Tensor) -> Tensor:
    """ATSS: for each place `(N,)` the number of its box among `truth` `(M, 4)`, or -1.

    Of each level the nine places nearest to the centre of a true box are candidates. A place stands for a square of
    eight strides; taken are candidates whose square overlaps the box by at least the mean plus one standard deviation
    of all candidates' IoU, and whose centre is inside the box. A place of several boxes goes to the one that it
    overlaps most.

    >>> points, strides = torch.tensor([[4.0, 4.0], [12.0, 4.0], [4.0, 12.0]]), torch.tensor([8.0, 8.0, 8.0])
    >>> assign_by_distance(points, strides, torch.tensor([[-28.0, -28.0, 36.0, 36.0]])).tolist()
    [0, -1, -1]
    """
    if not len(truth):
        return torch.full((len(points),), -1, device=points.device)
    half = (ANCHOR_SIDE / 2 * strides)[:, None]
    iou = box_iou(torch.cat([points - half, points + half], 1), truth)
    distance = torch.cdist(points, (truth[:, :2] + truth[:, 2:]) / 2)
    is_candidate = torch.zeros_like(iou, dtype=torch.bool)
    for stride in strides.unique():
        [of_level] = torch.where(strides == stride)
        nearest = distance[of_level].topk(min(N_NEAREST, len(of_level)), 0, largest=False).indices
        is_candidate.scatter_(0, of_level[nearest], True)
    n_candidates = is_candidate.sum(0)
    mean = (iou * is_candidate).sum(0) / n_candidates
    variance = ((iou - mean).square() * is_candidate).sum(0) / (n_candidates - 1).clamp(min=1)
    taken = is_candidate & (iou >= mean + variance.sqrt()) & _is_inside(points, truth)
    return _to_one_box(taken, iou)


def assign_by_alignment(log_scores: Tensor, boxes: Tensor, points: Tensor, truth: Tensor,
                        class_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Task alignment learning: the box of each place `(N,)`, or -1, and the target of its score, 0 without a box.

    `log_scores` `(N, C)` and `boxes` `(N, 4)` are what the network says, of places with these centres. The alignment
    of a place and a box is t = s^alpha * u^beta (equation 8), s the score of the box's class, u the IoU. Of all places
    a box takes the thirteen with the highest, less those whose centre is outside it, so it may get none; a place of
    several boxes goes to the one with the highest IoU. The targets are alignments, scaled so that the highest of a box
    is the highest IoU of its places.
    """
    if not len(truth):
        return torch.full((len(points),), -1, device=points.device), torch.zeros(len(points), device=points.device)
    iou = box_iou(boxes, truth)
    alignment = (ALPHA * log_scores[:, class_ids]).exp() * iou**BETA
    best = alignment.topk(min(N_ALIGNED, len(points)), 0).indices
    taken = torch.zeros_like(iou, dtype=torch.bool).scatter_(0, best, True)
    taken &= _is_inside(points, truth) & (alignment > 0)
    assigned = _to_one_box(taken, iou)
    mine = assigned[:, None] == torch.arange(len(truth), device=assigned.device)
    highest, most = (alignment * mine).amax(0), (iou * mine).amax(0)
    scaled = alignment * (most / highest.clamp(min=torch.finfo(highest.dtype).tiny))
    return assigned, (scaled * mine).sum(1)


def find_centrality(points: Tensor, truth: Tensor) -> Tensor:
    """Centerness of places `(n, 2)` in their boxes `(n, 4)`: 1 in the middle, 0 at a side (FCOS, equation 3)."""
    before, after = points - truth[:, :2], truth[:, 2:] - points
    ratio = torch.minimum(before, after) / torch.maximum(before, after)
    return ratio.clamp(min=0).prod(1).sqrt()


def _is_inside(points: Tensor, truth: Tensor) -> Tensor:
    """Whether each place `(N, 2)` is inside each box `(M, 4)`: `(N, M)`."""
    sides = torch.cat([points[:, None] - truth[:, :2], truth[:, 2:] - points[:, None]], 2)
    return sides.amin(2) > LEAST_INSIDE


def _to_one_box(taken: Tensor, iou: Tensor) -> Tensor:
    """For each place the one box of those that took it, `(N, M)`, with the highest IoU; -1 for none."""
    best = iou.masked_fill(~taken, -1).max(1)
    return torch.where(best.values >= 0, best.indices, -1)
