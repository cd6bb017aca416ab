"""Files go to and from Drive whole, and only when they have to."""

from __future__ import annotations

import os
import shutil
import sys
from collections import namedtuple
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from flaky_drive import FlakyDrive

from livestock.colab import copy_new, finish, mount_drive, start
from livestock.config import Workspace
from livestock.files.disk import DiskSpaceError
from livestock.files.drive import retry
from livestock.labels.relabel import read_relabels, write_relabels
from livestock.tables import make_boxes, make_images


def test_a_folder_is_copied_once(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deep").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "deep/b.txt").write_text("b")
    assert copy_new(source, target) == 2
    assert (target / "deep/b.txt").read_text() == "b"
    assert copy_new(source, target) == 0


def test_what_changed_is_copied_again(tmp_path: Path) -> None:
    source, target = tmp_path / "a.txt", tmp_path / "kept/a.txt"
    source.write_text("first")
    assert copy_new(source, target) == 1
    source.write_text("longer now")
    assert copy_new(source, target) == 1
    source.write_text("same size!")
    os.utime(source, (source.stat().st_atime, target.stat().st_mtime + 60))
    assert copy_new(source, target) == 1
    assert target.read_text() == "same size!"


def test_a_newer_copy_is_not_taken_back(tmp_path: Path) -> None:
    source, target = tmp_path / "drive.txt", tmp_path / "local.txt"
    source.write_text("12345")
    target.write_text("67890")
    os.utime(source, (1, 1))
    assert copy_new(source, target) == 0
    assert target.read_text() == "67890"


def test_a_missing_source_copies_nothing(tmp_path: Path) -> None:
    assert copy_new(tmp_path / "nothing", tmp_path / "target") == 0
    assert not (tmp_path / "target").exists()


@pytest.fixture
def drive_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A session on Colab; what mounts Drive makes a link, as a mount appears."""
    (tmp_path / "behind/MyDrive/livestock/raw").mkdir(parents=True)
    drive = ModuleType("google.colab.drive")
    drive.mount = lambda path: Path(path).symlink_to(tmp_path / "behind")  # type: ignore[attr-defined]
    colab = ModuleType("google.colab")
    colab.drive = drive  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "stand-in")
    monkeypatch.setenv("LIVESTOCK_CONTENT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "behind/MyDrive/livestock"


def test_a_crash_does_not_cost_what_drive_has(drive_dir: Path, tmp_path: Path) -> None:
    (drive_dir / "raw/a.zip").write_bytes(b"raw")
    start(str(tmp_path / "data"))
    assert (tmp_path / "data/raw/a.zip").read_bytes() == b"raw"
    (tmp_path / "data/weights.safetensors").write_bytes(b"whole weights")
    finish(str(tmp_path / "data"))
    (tmp_path / "data/weights.safetensors").write_bytes(b"who")  # and the session is gone
    finish(str(tmp_path / "data"))
    assert (drive_dir / "weights.safetensors.previous").read_bytes() == b"whole weights"
    shutil.rmtree(tmp_path / "data")
    start(str(tmp_path / "data"))
    assert sorted(path.name for path in (tmp_path / "data").rglob("*.*")) == ["a.zip", "weights.safetensors"]


def test_corrected_labels_outlive_the_session(drive_dir: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "data")
    workspace.root.mkdir()
    images = make_images([{"image_id": "1.jpg", "archive": "a", "member": "1.jpg", "width": 9, "height": 9}])
    write_relabels(workspace, list(images["image_id"]), make_boxes([]))
    finish(str(workspace.root))
    shutil.rmtree(workspace.root)
    start(str(workspace.root))
    assert list(read_relabels(workspace)["image_id"]) == ["1.jpg"]


def test_a_local_disk_too_small_for_the_raw_data_is_told_of_first(
    drive_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (drive_dir / "raw/a.zip").write_bytes(b"raw")
    usage = namedtuple("usage", ["free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(400_000_000))
    with pytest.raises(DiskSpaceError, match=r"data: expected 0\.5 GB of free disk, found 0\.4 GB"):
        start(str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_a_mount_that_hangs_is_waited_for(
    drive_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faults, exists = [OSError(107, "Transport endpoint is not connected")] * 2, Path.exists

    def failing(path: Path) -> bool:
        if faults and path.name == "MyDrive":
            raise faults.pop()
        return exists(path)

    monkeypatch.setattr(Path, "exists", failing)
    monkeypatch.setattr("livestock.colab.retry", partial(retry, files=FlakyDrive(drive_dir).files()))  # its clock
    assert mount_drive().resolve() == drive_dir.resolve()
    assert capsys.readouterr().out.count("tried again in") == 2
