"""Whether the disk has room for what is about to be written, asked before hours of work rather than after them."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pandas as pd

SPARE_BYTES = 500_000_000  # logs, tables, and what others write meanwhile
BYTES_PER_PIXEL = 0.6  # of a photograph as JPEG at quality 95; half of that is usual
N_COPIES = 10  # weights in half precision: of the last epochs, their mean, the best, copies of both, one being written
# A checkpoint to resume from, in weights files in half precision: the model, its average, the moments, all in float32.
RESUMABLE = {"SGD": 2 + 2 + 2, "Adam": 2 + 2 + 4, "AdamW": 2 + 2 + 4}
N_RESUMABLE = 2  # `previous.safetensors`, and `last.safetensors` while it is written


class DiskSpaceError(OSError):
    """Too little room on a disk: how much is needed, how much there is, and what to do."""


def check_disk_space(directory: Path, needed_bytes: int) -> None:
    """Raises DiskSpaceError unless the disk of `directory`, which need not exist yet, has room and a reserve."""
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed_bytes and free < needed_bytes + SPARE_BYTES:
        raise DiskSpaceError(
            errno.ENOSPC, f"{directory}: expected {(needed_bytes + SPARE_BYTES) / 1e9:.1f} GB of free disk, found "
            f"{free / 1e9:.1f} GB; delete old folders of `runs` and `yolo` in the workspace, or set WORKSPACE to a "
            "larger disk, or take a profile with a smaller model or image size")


def training_disk_bytes(weights_bytes: int, optimizer: str = "SGD") -> int:
    """Bytes of checkpoints that a training writes at most, given the file in half precision it starts from.

    An optimizer that is not known counts like the largest one.
    """
    return weights_bytes * (N_RESUMABLE * RESUMABLE.get(optimizer, max(RESUMABLE.values())) + N_COPIES)


def used_bytes(directory: Path) -> int:
    """Bytes of the files below a folder; 0 if there is none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.txt").write_text("12345")
    ...     used_bytes(Path(folder))
    5
    """
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def images_disk_bytes(images: pd.DataFrame, imgsz: int) -> int:
    """Bytes that these images take at training size, the longer side at most `imgsz` pixels.

    >>> images_disk_bytes(pd.DataFrame({"width": [1920], "height": [1080]}), imgsz=640)
    138240
    """
    scale = (imgsz / images[["width", "height"]].max(axis=1)).clip(upper=1)
    return int((images["width"] * images["height"] * scale**2).sum() * BYTES_PER_PIXEL)
