"""What every notebook starts and ends with, here and on Colab, where results outlive the session only on Drive."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

from .config import REPOSITORY

# `raw` is on Drive already, and `yolo` is made again
KEPT = ["interim", "runs", "weights", "weights.pt", "formats", "suspects.csv", "evolved.yaml", "manifest.json",
        "inference.yaml", "answer.csv"]


def start(workspace: str = "data") -> None:
    """Sets the figures' style; on Colab mounts Drive once and copies raw data and earlier results to local disk."""
    # A plain bar does as well where ipywidgets is missing, as it is outside Colab and full Jupyter.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from .plots import use_style

    os.chdir(REPOSITORY)
    use_style()
    if on_colab():
        drive_dir = mount_drive()
        for name in ["raw", *KEPT]:
            copy_new(drive_dir / name, Path(workspace) / name)
        print(f"working on the local disk in {Path(workspace).resolve()}; results are kept in {drive_dir}")


def finish(workspace: str = "data") -> None:
    """On Colab copies what this notebook wrote to Drive; elsewhere there is nothing to do."""
    if on_colab():
        drive_dir = mount_drive()
        n_copied = sum(copy_new(Path(workspace) / name, drive_dir / name) for name in KEPT)
        print(f"{n_copied} new files kept in {drive_dir}")


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
    if not (mount_point / "MyDrive").exists():
        drive.mount(str(mount_point))
    directory = mount_point / "MyDrive" / "livestock"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def copy_new(source: Path, target: Path) -> int:
    """Copies a file or a folder's files unless the target has the same size and is not older; returns how many.

    Each file appears whole: it is written beside its target and renamed. A missing source copies nothing.
    """
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    n_copied = 0
    for file in files:
        copy = target if file == source else target / file.relative_to(source)
        if copy.exists() and copy.stat().st_size == file.stat().st_size and (
            copy.stat().st_mtime >= file.stat().st_mtime - 2  # Drive keeps whole seconds
        ):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        beside = copy.with_name(f".{copy.name}.part")
        shutil.copy2(file, beside)
        os.replace(beside, copy)
        n_copied += 1
    return n_copied
