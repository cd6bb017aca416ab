"""A model that is ready to predict, whatever family and file it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..exceptions import UnsafeWeights
from .base import Predictions, Resize

Run = Callable[[Tensor], Predictions]


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode; `path` names it in messages.

    `run` maps float32 images `(B, 3, H, W)`, RGB in 0..1, to their `Predictions`, on `device` and with as many threads
    as PyTorch has there. `labels` is the order of the classes; H and W are multiples of `stride`, in pixels, and
    pictures are laid on the input by the rule `resize`. Without `needs_nms` a network marks an object once, in no
    particular order of its boxes. `imgsz` is the size it was trained at, None where the file does not tell; with
    `has_fixed_size` it takes squares of that size alone.

    `architecture` is that of its config, as far as the file tells: what it says of keypoints is read by `poses`.

    A call uses `n_threads` and gives predictions on the CPU. If `is_parallel`, several threads may `run` it at a time,
    and on a CPU should: one thread per picture never waits for another.
    """

    path: Path
    run: Run
    labels: Sequence[str]
    stride: int
    resize: Resize = "letterbox"
    needs_nms: bool = True
    imgsz: int | None = None
    family: str = ""
    has_fixed_size: bool = False
    device: str = "cpu"
    n_threads: int | None = None
    is_parallel: bool = False
    architecture: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, images: Tensor) -> Predictions:
        """Raises as `compute` does."""
        with threads(self.n_threads):
            return to_cpu(self.compute(images))

    def compute(self, images: Tensor) -> Predictions:
        """As `run`, checked. Raises UnsafeWeights for predictions of another shape, or with NaN, which is no box."""
        found = self.run(images)
        expected = (len(images), found.boxes.shape[1] if found.boxes.ndim == 3 else 0)
        if found.boxes.shape != (*expected, 4) or found.scores.shape != (*expected, len(self.labels)):
            raise UnsafeWeights(f"{self.path}: expected boxes ({expected[0]}, N, 4) and scores ({expected[0]}, N, "
                                f"{len(self.labels)}) for the labels {list(self.labels)}, found "
                                f"{tuple(found.boxes.shape)} and {tuple(found.scores.shape)}")
        n_points = len(self.architecture.get("points", ()))
        if n_points and (found.keypoints is None or found.keypoints.shape != (*expected, n_points, 3)):
            shape = None if found.keypoints is None else tuple(found.keypoints.shape)
            raise UnsafeWeights(f"{self.path}: expected keypoints {(*expected, n_points, 3)}, found {shape}")
        parts = [part for part in (found.boxes, found.scores, found.keypoints) if part is not None]
        if torch.stack([part.isnan().any() for part in parts]).any().item():  # once: the CPU waits for a GPU here
            raise UnsafeWeights(f"{self.path}: expected numbers, found NaN in the output for pictures of the shape "
                                f"{tuple(images.shape)}: half precision that overflows, or weights that are damaged; "
                                "try the device 'cpu'")
        return found


def to_cpu(found: Predictions) -> Predictions:
    """The same predictions on the CPU."""
    points = None if found.keypoints is None else found.keypoints.cpu()
    return replace(found, boxes=found.boxes.cpu(), scores=found.scores.cpu(), keypoints=points)


def is_gpu(device: str) -> bool:
    """Whether a device's name is that of a GPU.

    >>> is_gpu("cuda:0"), is_gpu("cpu")
    (True, False)
    """
    return torch.device(device).type == "cuda"


def find_device(device: str) -> str:
    """A device as torch names it, from what a profile may say: "" is a GPU where there is one, `0` or `0,1` the first
    of these; without a GPU they are the CPU, as in a training. Other names stay. Raises ValueError for a GPU by its
    full name where there is none.

    >>> find_device("cpu"), find_device("mps")
    ('cpu', 'mps')
    """
    numbers = device.split(",")
    if device and not all(number.strip().isdigit() for number in numbers):
        if is_gpu(device) and not torch.cuda.is_available():
            raise ValueError(f"device {device!r}: expected one of this machine, found no GPU that PyTorch can use; "
                             "leave it out for the CPU, or choose a runtime with a GPU")
        return device
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(numbers[0])}" if device else "cuda"


@contextmanager
def threads(n: int | None) -> Iterator[None]:
    """PyTorch computes with `n` threads; afterwards with as many as before. None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
