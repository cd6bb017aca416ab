"""Keypoints as heat maps and back: targets to learn, and four ways to read a place from a map.

Coordinates are pixels of the network's input, the upper left corner of the picture at (0, 0), so the centre of the cell
in row i and column j of a map with `stride` pixels a cell is at ((j + 0.5) * stride, (i + 0.5) * stride). A point that
is not labelled has an empty map, and no weight in the loss.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SMOOTHED = 1e-10  # below it a logarithm says nothing
WINDOW = 3.0  # standard deviations to each side, over which the expectation is taken


def encode_gaussian(
    points: Tensor, visible: Tensor, size: tuple[int, int], stride: float, sigma: Tensor | float
) -> Tensor:
    """A Gaussian of height 1 around each point: `(..., H, W)` of `points` `(..., 2)`, x and y.

    `visible` `(...)`, 0 for a point that is not labelled; `size` is H and W; `sigma` is in cells, one number
    or one that goes with `(..., H, W)`. The peak lies at the
    point itself, between cells too, so that a map says more than its highest cell.

    >>> target = encode_gaussian(torch.tensor([[6.0, 2.0]]), torch.tensor([2]), (2, 4), stride=4.0, sigma=1.0)
    >>> print(target[0].numpy().round(2))
    [[0.61 1.   0.61 0.14]
     [0.37 0.61 0.37 0.08]]
    """
    height, width = size
    x, y = (points[..., axis, None, None] / stride - 0.5 for axis in (0, 1))
    columns = torch.arange(width, device=points.device, dtype=torch.float32)
    rows = torch.arange(height, device=points.device, dtype=torch.float32)[:, None]
    target = torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return target * (visible > 0)[..., None, None]


def encode_one_hot(points: Tensor, visible: Tensor, size: tuple[int, int], stride: float) -> Tensor:
    """1 in the cell that holds each point and 0 elsewhere: `(..., H, W)`; a point outside of the map has no cell.

    >>> encode_one_hot(torch.tensor([[6.0, 2.0]]), torch.tensor([2]), (2, 4), stride=4.0).tolist()
    [[[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]
    """
    height, width = size
    column, row = (torch.floor(points[..., axis, None, None] / stride) for axis in (0, 1))
    is_here = (torch.arange(width, device=points.device) == column) & (
        torch.arange(height, device=points.device)[:, None] == row)
    return is_here.float() * (visible > 0)[..., None, None]


def decode_argmax(maps: Tensor, stride: float) -> tuple[Tensor, Tensor]:
    """The centre of the highest cell of maps `(..., H, W)`: `(..., 2)`, x and y, and its value `(...)`.

    >>> point, confidence = decode_argmax(torch.tensor([[0.0, 0.9], [0.1, 0.0]]), stride=4.0)
    >>> point.tolist(), round(float(confidence), 1)
    ([6.0, 2.0], 0.9)
    """
    column, row, value = _find_peak(maps)
    return _to_pixels(column.float(), row.float(), stride), value


def decode_quarter(maps: Tensor, stride: float) -> tuple[Tensor, Tensor]:
    """As `decode_argmax`, a quarter of a cell towards the higher neighbour on each axis (Newell et al., ECCV 2016)."""
    column, row, value = _find_peak(maps)
    (left, right), (above, below) = _neighbours(maps, row, column)
    return _to_pixels(column + 0.25 * torch.sign(right - left), row + 0.25 * torch.sign(below - above), stride), value


def decode_dark(maps: Tensor, stride: float) -> tuple[Tensor, Tensor]:
    """The peak of the Gaussian through the highest cell and its neighbours (Zhang et al., CVPR 2020, equation 7).

    The logarithm of a Gaussian is a parabola: first and second differences of it say where its peak is. Where the
    second do not fall on both sides, as at a border, and where a step would be longer than a cell, it stays.
    """
    column, row, value = _find_peak(maps)
    logs = maps.float().clamp(min=SMOOTHED).log()  # half precision has no number so small
    (left, right), (above, below) = _neighbours(logs, row, column)
    middle = _at(logs, row, column)
    dx, dy, dxx, dyy = (right - left) / 2, (below - above) / 2, right + left - 2 * middle, below + above - 2 * middle
    corners = [_at(logs, row + step, column + aside) for step in (-1, 1) for aside in (-1, 1)]
    dxy = (corners[3] - corners[2] - corners[1] + corners[0]) / 4
    determinant = dxx * dyy - dxy**2
    is_peak = (dxx < 0) & (dyy < 0) & (determinant > 0) & _is_inside(maps, row, column)
    safe = torch.where(is_peak, determinant, torch.ones_like(determinant))
    shift_x, shift_y = (dxy * dy - dyy * dx) / safe, (dxy * dx - dxx * dy) / safe
    is_peak = is_peak & (shift_x.abs() <= 1) & (shift_y.abs() <= 1)  # not in place: ONNX has no such operator
    x, y = (torch.where(is_peak, shift, torch.zeros_like(shift)) for shift in (shift_x, shift_y))
    return _to_pixels(column + x, row + y, stride), value


def decode_soft(maps: Tensor, stride: float, sigma: float = 2.0) -> tuple[Tensor, Tensor]:
    """The mean place of the cells around the highest one, weighted by their values; up to three `sigma` away, in cells.

    A mean over the whole map would be drawn to its middle by all that is not quite zero there. A window of whole cells
    around the highest is lopsided by up to half a cell, so it is laid around the mean once more.
    """
    column, row, value = _find_peak(maps)
    x, y = column.float(), row.float()
    rows, columns = (torch.arange(side, device=maps.device, dtype=torch.float32) for side in maps.shape[-2:])
    for _ in range(2):
        # Cells at the window's edge count in part, so that it can lie between cells.
        near = [(WINDOW * sigma + 0.5 - (cells - place[..., None]).abs()).clamp(0, 1)
                for cells, place in ((rows, y), (columns, x))]
        weights = maps.float().clamp(min=0) * near[0][..., :, None] * near[1][..., None, :]
        total = weights.sum((-2, -1)).clamp(min=SMOOTHED)
        x, y = (weights.sum(-2) * columns).sum(-1) / total, (weights.sum(-1) * rows).sum(-1) / total
    return _to_pixels(x, y, stride), value


def window_mass(maps: Tensor, radius: int = 4) -> Tensor:
    """The most that a square of `2 radius + 1` cells a side holds of maps `(..., H, W)` that have the sum 1: `(...)`.

    A network that is sure puts all into one place; one that wavers between two, half into each.

    >>> maps = torch.zeros(1, 1, 8, 16)
    >>> maps[0, 0, 2, 2], maps[0, 0, 2, 13] = 0.75, 0.25
    >>> window_mass(maps, radius=1).tolist()
    [[0.75]]
    """
    side = 2 * radius + 1
    summed = torch.nn.functional.avg_pool2d(maps.float(), side, stride=1, padding=radius) * side**2
    return summed.flatten(-2).amax(-1)


DECODERS: dict[str, Callable[[Tensor, float], tuple[Tensor, Tensor]]] = {
    "argmax": decode_argmax, "quarter": decode_quarter, "dark": decode_dark, "soft": decode_soft}


def _find_peak(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Column, row and value of the highest cell of each map; the first of equals."""
    value, place = maps.flatten(-2).max(-1)
    width = int(maps.shape[-1])  # a number in an export too, where a shape is a tensor that might be 0
    return place % width, place // width, value


def _at(maps: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """The value of each map in this cell, or in the nearest one that it has."""
    height, width = maps.shape[-2:]
    place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    return maps.flatten(-2).gather(-1, place[..., None])[..., 0]


def _neighbours(maps: Tensor, row: Tensor, column: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Values to the left and right of a cell, and above and below it; beyond the border that of the cell itself."""
    return ((_at(maps, row, column - 1), _at(maps, row, column + 1)),
            (_at(maps, row - 1, column), _at(maps, row + 1, column)))


def _is_inside(maps: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Whether a cell has neighbours on all sides."""
    height, width = maps.shape[-2:]
    return (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)


def _to_pixels(column: Tensor, row: Tensor, stride: float) -> Tensor:
    return (torch.stack([column, row], -1) + 0.5) * stride
