"""How fast a model trains on this machine, measured rather than looked up."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch

from .weights import load_model

N_STEPS = 3  # timed, after one that is not


def measure_pace(weights: Path, imgsz: int, batch: int, device: str = "") -> float:
    """Seconds an image of a training step, forward and backward, on random pictures of `(batch, 3, imgsz, imgsz)`.

    Reading and augmenting are not in it. Raises ValueError for weights that are refused.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(weights).to(device).float().train().requires_grad_(True)
    pictures = torch.rand(batch, 3, imgsz, imgsz, device=device)
    return statistics.median([_step(model, pictures) for _ in range(1 + N_STEPS)][1:]) / batch


def _step(model: torch.nn.Module, pictures: torch.Tensor) -> float:
    started = time.perf_counter()
    with torch.autocast(pictures.device.type, enabled=pictures.is_cuda):
        outputs = model(pictures)
    torch.stack([output.float().square().mean() for output in outputs]).sum().backward()
    if pictures.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
