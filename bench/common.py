"""What the benchmarks share: the line that each prints, processes to run in, and made-up candidates."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np
import pandas as pd

from livestock.tables import XYXY

if TYPE_CHECKING:
    from livestock.training import TrainConfig

T = TypeVar("T")
# In the environment of a process that shares the machine with others of its kind; see also `train_forked`.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
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


def make_pool(n_at_once: int) -> ProcessPoolExecutor:
    """Processes for work side by side, each with its share of the cores, on which what it starts stays too.

    As many threads as the machine has cores in each of them would wait for one another most of the time.
    """
    spawn, cores = multiprocessing.get_context("spawn"), sorted(os.sched_getaffinity(0))
    shares = spawn.Queue()
    for number in range(n_at_once):
        shares.put(cores[number::n_at_once] or [cores[number % len(cores)]])
    return ProcessPoolExecutor(n_at_once, spawn, _pin, (shares,))


def _pin(shares: Any) -> None:
    _start_children_as_usual()
    os.sched_setaffinity(0, shares.get())


def _start_children_as_usual() -> None:
    """A process that was spawned would spawn its own, whatever the system's way is."""
    multiprocessing.set_start_method(None, force=True)


def warm_up() -> None:
    """Imports all that a training of the family yolov5 does, for forks of this process; to be called first in it.

    OpenCV gets one thread: a fork would wait for ever for others that its parent had.
    """
    import cv2
    import torch._dynamo  # noqa: F401 - seconds, on an optimizer's first step

    from livestock.models.yolov5 import library
    from livestock.training import loop  # noqa: F401

    library.load()
    cv2.setNumThreads(1)


def train_forked(config: TrainConfig, run_dir: Path, on_epoch: Callable[[Mapping[str, float]], None]) -> None:
    """What `livestock.training.train` does, in a fork of this process, which has called `warm_up`.

    It computes with one thread, so that two trainings side by side do not wait for each other's cores.
    `on_epoch` gets each epoch's row of the history; whatever it raises ends the training. Raises RuntimeError with the
    end of the log if the training fails.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reads)
        _train_and_exit(config, run_dir, writes)
    os.close(writes)
    status = 0
    try:
        with open(reads, encoding="utf-8") as lines:
            for line in lines:  # until the training ends: nobody else has the other end
                on_epoch(json.loads(line))
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError((run_dir / "train.log").read_text(encoding="utf-8", errors="replace")[-1000:])


def _train_and_exit(config: TrainConfig, run_dir: Path, writes: int) -> NoReturn:
    """In the fork. Nothing of its parent's, such as what is yet to be written, is done a second time."""
    status = 1
    with open(run_dir / "train.log", "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        import torch

        from livestock.training import loop

        loop._prepare_process = lambda place: torch.set_num_threads(1)  # which would take all cores

        def report(event: dict[str, Any]) -> None:
            """Fails once nobody reads it any more: the training ends with the process that watches it."""
            if "epoch" in event:
                os.write(writes, f"{json.dumps(event['epoch'])}\n".encode())

        loop.run_training(config, run_dir, report, None)
        status = 0
    except BaseException:  # noqa: BLE001 - into the log, whatever it is, where the parent reads it
        traceback.print_exc()
    os._exit(status)


def with_image_ids(boxes: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Boxes of a file that names images by their bare names, with the ids that these have in an images table."""
    from livestock.data.submission import answer_names

    ids = {name: image_id for image_id, name in answer_names(images).items()}
    return boxes.assign(image_id=boxes["image_id"].map(ids))


def read_truth_in_pixels(path: Path, images: pd.DataFrame) -> pd.DataFrame:
    """The boxes of a truth file in the scorer's format, in pixels of `images` and with their ids."""
    from livestock.data.submission import read_truth

    truth = with_image_ids(read_truth(path), images)
    truth[XYXY] *= images.set_index("image_id").loc[truth["image_id"], ["width", "height"] * 2].to_numpy()
    return truth


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
