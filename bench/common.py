"""What the benchmarks share: the line that each prints, and made-up candidates."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from livestock.tables import XYXY

T = TypeVar("T")
N_IMAGES, N_TRUTH = 3_291, 5  # the original's validation fold, boxes an image


def print_line(name: str, ours: float, stock: float | None, *, ratio: float | None = None,
               seconds: float | None = None, more: str = "", ok: bool = True) -> None:
    """`bench <name> ours=... stock=... ratio=... bar=... <ok|short>`; the bar is a ratio or a number of seconds.

    `ok` says whether what else is asked for holds; `stock` is None where there is none.
    """
    found = stock / ours if stock is not None else float("nan")
    ok = ok and (found >= ratio if ratio is not None else ours <= (seconds or 0))
    bar = f"{ratio:g}" if ratio is not None else f"{seconds:g}s"
    other = f"stock={stock:.3g}s ratio={found:.3g}" if stock is not None else "stock=none ratio=none"
    print(f"bench {name} ours={ours:.3g}s {other} bar={bar} {'ok' if ok else 'short'}{more}", flush=True)


def in_new_process(function: Callable[..., T], *arguments: Any) -> T:
    """What the function returns, run in a process of its own that starts from nothing."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, _start_children_as_usual) as pool:
        return pool.submit(function, *arguments).result()


def _start_children_as_usual() -> None:
    """A process that was spawned would spawn its own, whatever the system's way is."""
    multiprocessing.set_start_method(None, force=True)


def draw_boxes(n_images: int, n_candidates: int, n_truth: int = N_TRUTH) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Truth of two classes in images of 1920 x 1080, and candidates as a network gives them, in boxes tables.

    Two thirds of the candidates lie around a true box, the surer the closer; the rest lie anywhere, unsure.
    """
    rng = np.random.default_rng(0)
    size = rng.uniform(60, 400, (n_images, n_truth, 2))
    centre = rng.uniform(0, 1, (n_images, n_truth, 2)) * [1920, 1080]
    label = rng.integers(0, 2, (n_images, n_truth))
    n_near = n_candidates * 2 // 3
    of = rng.integers(0, n_truth, (n_images, n_near))
    image = np.arange(n_images)[:, None]
    noise = rng.exponential(0.12, (n_images, n_near, 1))
    near = centre[image, of] + rng.normal(0, 1, (n_images, n_near, 2)) * noise * size[image, of]
    near_size = size[image, of] * np.exp(rng.normal(0, 1, (n_images, n_near, 2)) * noise)
    n_far = n_candidates - n_near
    far, far_size = rng.uniform(0, 1, (n_images, n_far, 2)) * [1920, 1080], rng.uniform(20, 300, (n_images, n_far, 2))
    confidence = np.hstack([np.exp(-6 * noise[..., 0]) * rng.uniform(0.3, 1, (n_images, n_near)),
                            rng.uniform(0.001, 0.05, (n_images, n_far))]).clip(0.0011, 1)
    labels = np.hstack([label[image, of], rng.integers(0, 2, (n_images, n_far))])
    truth = _table(centre, size, label, np.ones(label.shape), "gold")
    return truth, _table(np.hstack([near, far]), np.hstack([near_size, far_size]), labels, confidence, "model")


def _table(centre: np.ndarray, size: np.ndarray, label: np.ndarray, confidence: np.ndarray, source: str
           ) -> pd.DataFrame:
    corners = np.concatenate([centre - size / 2, centre + size / 2], axis=2)
    corners = corners.clip(0, [1920, 1080, 1920, 1080]).reshape(-1, 4)
    table = pd.DataFrame(corners, columns=XYXY)
    table.insert(0, "image_id", np.repeat([f"image_{n:05d}.jpg" for n in range(len(label))], label.shape[1]))
    table.insert(1, "label", np.array(["pig", "cow"])[label.ravel()])
    table = table.assign(confidence=confidence.ravel(), source=source)
    return table[(corners[:, 0] < corners[:, 2]) & (corners[:, 1] < corners[:, 3])].reset_index(drop=True)
