"""What every notebook starts and ends with, here and on Colab, where results outlive the session only on Drive."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from .config import CHECKOUT
from .files.disk import check_disk_space
from .files.drive import copy_new, missing_bytes, retry
from .files.logs import show_messages

if TYPE_CHECKING:
    from .pipeline.run import Run

logger = logging.getLogger(__name__)

# `raw` is on Drive already, and `yolo` is made again
KEPT = ["interim", "runs", "weights", "weights.safetensors", "formats", "suspects.csv", "relabels.parquet",
        "relabels.jsonl", "run.yaml", "evolved.yaml", "lineage.jsonl", "inference.yaml", "answer.csv",
        "claims.csv"]


def start(workspace: str = "data") -> None:
    """Shows messages, sets the figures' style; on Colab mounts Drive and copies data and earlier results to local disk.

    Raises DiskSpaceError before it copies what would not fit, and CopyError when Drive stays away, see `drive`.
    """
    show_messages()
    # A plain bar does as well where ipywidgets is missing, as it is outside Colab and full Jupyter.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from .plots import use_style

    if CHECKOUT and not Path(workspace).is_absolute():  # a notebook by hand; `livestock run` gives whole paths
        os.chdir(CHECKOUT)
    use_style()
    if on_colab():
        drive_dir = mount_drive()
        pairs = [(drive_dir / name, Path(workspace) / name) for name in ["raw", *KEPT]]
        check_disk_space(Path(workspace), sum(missing_bytes(*pair, mount=drive_dir) for pair in pairs))
        for source, target in pairs:
            copy_new(source, target, mount=drive_dir)
        logger.info("working on the local disk in %s; results are kept in %s", Path(workspace).resolve(), drive_dir)


def finish(workspace: str = "data", run: Run | None = None) -> None:
    """On Colab copies what this notebook wrote to Drive; with a `run` says what of its plan the next session will do.

    Raises CopyError when Drive stays away or is full; run again, it goes on where it stopped.
    """
    if on_colab():
        drive_dir = mount_drive()
        n_copied = sum(copy_new(Path(workspace) / name, drive_dir / name, mount=drive_dir) for name in KEPT)
        logger.info("%d new files kept in %s", n_copied, drive_dir)
    if run is not None:
        from .pipeline.planning import show_next

        show_next(run)


def backup_path(name: str) -> Path | None:
    """Where on Drive a file of a long step is copied while the step runs; None where nothing is lost, off Colab."""
    return mount_drive() / "backup" / name if on_colab() else None


def on_colab() -> bool:
    """Whether this kernel runs on Google Colab, which sets this variable."""
    return "COLAB_RELEASE_TAG" in os.environ


def mount_drive() -> Path:
    """Mounts Google Drive unless it is mounted, and returns the folder `livestock` in it, made if it is missing."""
    from google.colab import drive

    mount_point = Path(os.environ.get("LIVESTOCK_CONTENT", "/content")) / "drive"

    def attempt() -> Path:
        """Mounts once; `drive.retry` calls it again while Drive fails."""
        if not (mount_point / "MyDrive").exists():
            drive.mount(str(mount_point))
        directory = mount_point / "MyDrive" / "livestock"
        directory.mkdir(exist_ok=True)  # without its parents: on the local disk it would go with the session
        return directory

    return retry(str(mount_point), attempt)
