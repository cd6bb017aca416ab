"""Whatever a Drive does: what was copied is what was there, and what was there is not lost."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from flaky_drive import FlakyDrive
from hypothesis import given, settings
from hypothesis import strategies as st

from livestock.files.drive import CopyError, copy_file, copy_new, missing_bytes

BLOCK = 16


@pytest.fixture(autouse=True, scope="module")
def _small_blocks() -> Iterator[None]:
    """Files of a few bytes take several blocks."""
    with patch("livestock.files.drive.BLOCK_BYTES", BLOCK):
        yield


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    (tmp_path / "drive").mkdir()
    return tmp_path / "drive"


def write(path: Path, content: bytes, seconds: float) -> Path:
    """A file of this content and time of change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (seconds, seconds))
    return path


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), new=st.binary(max_size=100), old=st.none() | st.binary(max_size=100),
       part=st.none() | st.binary(max_size=60) | st.integers(0, 100), p_fault=st.sampled_from([0.0, 0.05, 0.2, 0.5]),
       p_corrupt=st.sampled_from([0.0, 0.1]), room=st.sampled_from([0, 30, 90, 10_000]),
       vanishes=st.sampled_from([(0.0, 0.0), (0.0, 60.0), (1.0, 61.0), (0.5, 10_000.0)]), mount_leaves=st.booleans(),
       to_drive=st.booleans())
def test_a_copy_is_whole_or_the_old_one_stands(
    seed: int, new: bytes, old: bytes | None, part: bytes | int | None, p_fault: float, p_corrupt: float, room: int,
    vanishes: tuple[float, float], mount_leaves: bool, to_drive: bool,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        there, here = Path(name) / "drive", Path(name) / "local"
        there.mkdir(), here.mkdir()
        source, target = (here / "a", there / "a") if to_drive else (there / "a", here / "a")
        write(source, new, 2_000)
        if old is not None:
            write(target, old, 1_000)
        if part is not None:  # any rubbish, or as much as an earlier attempt came to
            write(target.with_name(".a.part"), new[:part] if isinstance(part, int) else part, 1_500)
        drive = FlakyDrive(there, seed, p_fault=p_fault, p_corrupt=p_corrupt, room_bytes=room, vanishes=vanishes,
                           mount_leaves=mount_leaves)
        try:
            copy_file(source, target, mount=there, give_up_seconds=300, files=drive.files())
        except CopyError as error:
            assert str(target) in str(error)
            assert (target.read_bytes() if target.exists() else None) in (old, new)
        else:
            assert target.read_bytes() == new
            assert target.stat().st_mtime == 2_000
        assert source.read_bytes() == new
        if old is not None and target.read_bytes() == new and len(new) < len(old):
            assert (target.with_name("a.previous")).read_bytes() == old
        assert sum(drive.sleeps) <= 300


def test_faults_that_pass_are_waited_out(mount: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write(tmp_path / "a", bytes(range(100)), 2_000)
    drive = FlakyDrive(mount, vanishes=(0.0, 61.0))
    assert copy_file(source, mount / "deep/a", mount=mount, files=drive.files())
    assert (mount / "deep/a").read_bytes() == source.read_bytes()
    assert drive.sleeps == [1, 2, 4, 8, 16, 32]
    lines = caplog.messages
    assert len(lines) == 6
    assert lines[3].startswith(f"{source} to {mount / 'deep/a'}: ")
    assert lines[3].endswith("; tried again in 8 s")
    assert "the Drive that should be mounted here is gone" in lines[3]


def test_a_drive_that_stays_away_is_given_up(mount: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a", b"new", 2_000)
    drive = FlakyDrive(mount, vanishes=(0.0, 1e9), mount_leaves=False)
    with pytest.raises(CopyError, match=r"/a to .*/drive/a: expected to read and write it whole, found .*given up "
                                        r"after waits of up to 100 s; see that Drive is mounted.* run this cell again"):
        copy_file(source, mount / "a", mount=mount, give_up_seconds=100, files=drive.files())
    assert drive.sleeps == [1, 2, 4, 8, 16, 32]  # another 60 would be beyond
    assert not (mount / "a").exists()


def test_nothing_is_made_where_the_mount_should_be(tmp_path: Path) -> None:
    """It would lie on the local disk, under the name of Drive, and go with the session."""
    source, mount = write(tmp_path / "a", b"new", 2_000), tmp_path / "drive"
    drive = FlakyDrive(mount)
    with pytest.raises(CopyError, match="the Drive that should be mounted here is gone"):
        copy_file(source, mount / "deep/er/a", mount=mount, give_up_seconds=10, files=drive.files())
    assert not mount.exists()


@pytest.mark.parametrize("name", ["a", "deep/er/a"])
def test_a_mount_that_leaves_half_way_is_not_made_either(name: str, tmp_path: Path) -> None:
    source, mount = write(tmp_path / "a", b"new", 2_000), tmp_path / "drive"
    files = FlakyDrive(mount).files()
    there = files._replace(stat=lambda path: files.stat(tmp_path if path == mount else path))  # as it was a moment ago
    with pytest.raises(CopyError, match="No such file or directory"):
        copy_file(source, mount / name, mount=mount, give_up_seconds=10, files=there)
    assert not mount.exists()


def test_a_full_drive_is_not_tried_again(mount: Path, tmp_path: Path) -> None:
    source, target = write(tmp_path / "a", bytes(100), 2_000), write(mount / "a", b"old", 1_000)
    drive = FlakyDrive(mount, room_bytes=50)
    with pytest.raises(CopyError, match=r"/drive/a: .*No space left on device.*; free some space there") as caught:
        copy_file(source, target, mount=mount, files=drive.files())
    assert caught.value.errno == errno.ENOSPC
    assert drive.sleeps == []
    assert target.read_bytes() == b"old"
    drive.room_bytes = 50  # what was written stays written: the rest is all that is missing
    assert copy_file(source, target, mount=mount, files=drive.files())
    assert target.read_bytes() == bytes(100)


def test_it_goes_on_where_it_was(mount: Path, tmp_path: Path) -> None:
    content = os.urandom(100)
    source = write(tmp_path / "a", content, 2_000)
    for part, n_written in [(content[:60], 40), (content[:59] + b"?", 100), (content + b"?", 100), (content, 0)]:
        write(mount / ".a.part", part, 1_500)
        drive = FlakyDrive(mount)
        assert copy_file(source, mount / "a", mount=mount, files=drive.files())
        assert drive.bytes_written == n_written
        assert (mount / "a").read_bytes() == content
        assert [path.name for path in mount.iterdir()] == ["a"]
        (mount / "a").unlink()


def test_what_is_read_back_is_compared(mount: Path, tmp_path: Path) -> None:
    source, target = write(tmp_path / "a", bytes(100), 2_000), write(mount / "a", b"old", 1_000)
    drive = FlakyDrive(mount, p_corrupt=1.0)
    with pytest.raises(CopyError, match="read back other bytes than the 100 written, 100 in all"):
        copy_file(source, target, mount=mount, give_up_seconds=5, files=drive.files())
    assert target.read_bytes() == b"old"


def test_what_a_shorter_file_replaces_is_kept(mount: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "a"
    for seconds, content in [(1_000, b"whole one"), (2_000, b"cut off"), (3_000, b"cut"), (4_000, b"whole again")]:
        write(source, content, seconds)
        assert copy_new(source, mount / "a", mount=mount) == 1
    assert {path.name: path.read_bytes() for path in mount.iterdir()} == {
        "a": b"whole again", "a.previous": b"whole one", "a.previous2": b"cut off"}
    assert f"{mount / 'a'}: replaced by a newer but shorter file; the longer one is kept as a.previous" in (
        caplog.messages)
    assert copy_new(mount, tmp_path / "back", mount=mount) == 1  # what is kept is for people
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["a"]


def test_an_attempt_that_fails_keeps_one_copy_of_the_longer_file(mount: Path, tmp_path: Path) -> None:
    source, target = write(tmp_path / "a", b"cut", 2_000), write(mount / "a", b"whole", 1_000)
    write(mount / "a.previous", b"other", 500)
    drive, failed = FlakyDrive(mount), []

    def replace(part: Path, path: Path) -> None:
        if path == target and len(failed) < 3:
            failed.append(path)
            raise OSError(errno.EIO, "not yet")
        os.replace(part, path)

    assert copy_file(source, target, mount=mount, files=drive.files()._replace(replace=replace))
    assert len(failed) == 3
    assert {path.name: path.read_bytes() for path in mount.iterdir()} == {
        "a": b"cut", "a.previous": b"other", "a.previous2": b"whole"}


def test_the_newer_of_two_stands(mount: Path, tmp_path: Path) -> None:
    copies = {"older, longer": (b"longer", 900, 0), "older": (b"other", 900, 0), "same": (b"other", 1_000.5, 0),
              "as old, longer": (b"longer", 1_001, 1), "newer": (b"other", 1_003, 1)}
    for name, (content, seconds, n_copied) in copies.items():
        target = write(mount / name, b"there", 1_000)
        source = write(tmp_path / name, content, seconds)
        assert missing_bytes(source, target, mount=mount) == n_copied * len(content), name
        assert copy_new(source, target, mount=mount) == n_copied, name
        assert target.read_bytes() == (content if n_copied else b"there"), name


def test_listings_may_be_stale(mount: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "deep/c"):
        write(mount / name, name.encode(), 1_000)
    drive = FlakyDrive(mount)
    drive.stale = {mount: ["a", "gone", "gone folder", "deep"]}  # b is there, and not in it yet
    assert copy_new(mount, tmp_path / "local", mount=mount, files=drive.files()) == 2
    assert (tmp_path / "local/deep/c").read_bytes() == b"deep/c"
    assert drive.sleeps == []
    drive.stale = {}
    assert copy_new(mount, tmp_path / "local", mount=mount, files=drive.files()) == 1
    drive.stale = {mount: ["deep"]}  # what a listing lacks is not written again
    assert copy_new(tmp_path / "local", mount, mount=mount, files=drive.files()) == 0


def test_a_folder_that_goes_after_it_was_seen(mount: Path, tmp_path: Path) -> None:
    (mount / "folder").mkdir()

    def listdir(path: Path) -> list[str]:
        (mount / "folder").rmdir()
        return os.listdir(path)

    files = FlakyDrive(mount).files()._replace(listdir=listdir)
    assert copy_new(mount / "folder", tmp_path / "local", mount=mount, files=files) == 0


def test_a_file_that_goes_after_it_was_listed(
    mount: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drive = FlakyDrive(mount)
    assert not copy_file(mount / "gone", tmp_path / "gone", mount=mount, files=drive.files())
    assert caplog.messages == [f"{mount / 'gone'}: listed, but gone; passed over"]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), p_fault=st.sampled_from([0.01, 0.04]))
def test_a_folder_comes_through_many_faults(seed: int, p_fault: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        there, here = Path(name) / "drive", Path(name) / "local"
        there.mkdir()
        for n in range(12):
            write(here / f"{n % 3}/{n}", bytes([n]) * n * 5, 1_000)
        drive = FlakyDrive(there, seed, p_fault=p_fault, p_corrupt=0.05, vanishes=(5.0, 65.0))
        copy_new(here, there / "kept", mount=there, files=drive.files())
        assert {path.name: path.read_bytes() for path in (there / "kept").rglob("*") if path.is_file()} == {
            str(n): bytes([n]) * n * 5 for n in range(12)}
        assert drive.n_faults > 3


def test_a_source_that_changes_is_not_half_copied(mount: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a", b"before", 1_000)
    drive = FlakyDrive(mount)

    def replace(part: Path, target: Path) -> None:
        raise AssertionError("it is not whole")

    longer = os.stat_result((0o100644, 0, 0, 0, 0, 0, 9, 1e3, 1e3, 1e3))
    files = drive.files()._replace(replace=replace, stat=lambda path: longer if path == source else os.stat(path))
    with pytest.raises(CopyError, match="expected 9 bytes, found 6: it changes"):
        copy_file(source, mount / "a", mount=mount, give_up_seconds=5, files=files)
