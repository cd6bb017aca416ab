"""Files go to and from Drive whole, and only when they have to."""

from __future__ import annotations

import os
from pathlib import Path

from livestock.notebook import copy_new


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
