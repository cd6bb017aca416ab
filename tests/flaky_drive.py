"""A Drive to test with: real files behind calls that are slow, fail by a seeded chance, run full and vanish."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

from livestock.files.drive import Files

PASSING = [errno.EIO, errno.ENOTCONN]


class FlakyDrive:
    """What lies below `root` fails; other paths are a good local disk. Seconds are of a clock that only calls move."""

    def __init__(
        self, root: Path, seed: int = 0, *, p_fault: float = 0.0, p_corrupt: float = 0.0,
        room_bytes: float = float("inf"), vanishes: tuple[float, float] = (0.0, 0.0), mount_leaves: bool = True,
    ) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - faults, no secrets
        self.root, self.p_fault, self.p_corrupt = root, p_fault, p_corrupt
        self.room_bytes, self.vanishes, self.mount_leaves = room_bytes, vanishes, mount_leaves
        self.seconds, self.n_faults, self.bytes_written = 0.0, 0, 0
        self.sleeps: list[float] = []
        self.stale: dict[Path, list[str]] = {}  # what a listing says, whatever there is

    def files(self) -> Files:
        """The calls that `livestock.files.drive` takes."""
        return Files(
            open=self.open, listdir=self.listdir, stat=lambda path: self.call(os.stat, path),
            mkdir=lambda path: self.call(os.mkdir, path), replace=self.replace,
            utime=lambda path, times: self.call(os.utime, path, times), fsync=lambda number: None, sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        """Moves the clock."""
        self.sleeps.append(seconds)
        self.seconds += seconds

    def fail(self, path: Path, chance: float | None = None) -> None:
        """Takes its time, and raises if the mount is away now or chance will have it."""
        if not path.is_relative_to(self.root):
            return
        self.seconds += 0.1
        if self.vanishes[0] <= self.seconds < self.vanishes[1]:
            self.n_faults += 1
            code = errno.ENOENT if self.mount_leaves else errno.ENOTCONN
            raise OSError(code, os.strerror(code), str(path))
        if self.rng.random() < (self.p_fault if chance is None else chance):
            self.n_faults += 1
            code = self.rng.choice(PASSING)
            raise OSError(code, os.strerror(code), str(path))

    def call(self, function: Any, path: Path, *arguments: Any) -> Any:
        """A call that fails before it does anything."""
        self.fail(path)
        return function(path, *arguments)

    def replace(self, source: Path, target: Path) -> None:
        """Fails before it is done, or after."""
        self.fail(target, self.p_fault / 2)
        os.replace(source, target)
        self.fail(target, self.p_fault / 2)

    def listdir(self, path: Path) -> list[str]:
        """What there is, or what there was."""
        self.fail(path)
        return self.stale.get(path) or os.listdir(path)

    def open(self, path: Path, mode: str) -> Any:
        """A file whose reads and writes fail too."""
        self.fail(path)
        return FlakyFile(self, path, open(path, mode))


class FlakyFile:
    """A write that fails has written some of it; one that lies has written another byte."""

    def __init__(self, drive: FlakyDrive, path: Path, file: Any) -> None:
        self.drive, self.path, self.file = drive, path, file

    def __enter__(self) -> FlakyFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def read(self, size: int = -1) -> bytes:
        """Fails now and then."""
        self.drive.fail(self.path)
        return self.file.read(size)

    def write(self, content: bytes) -> int:
        """Fails half-way, at the end of the room, or in silence."""
        drive = self.drive
        if not self.path.is_relative_to(drive.root):
            return self.file.write(content)
        try:
            drive.fail(self.path)
        except OSError:
            self.file.write(content[: drive.rng.randrange(len(content) + 1)])
            raise
        fits = content[: int(min(drive.room_bytes, len(content)))]
        drive.room_bytes -= len(fits)
        drive.bytes_written += len(fits)
        if fits and drive.rng.random() < drive.p_corrupt:
            position = drive.rng.randrange(len(fits))
            fits = fits[:position] + bytes([fits[position] ^ 1]) + fits[position + 1 :]
        self.file.write(fits)
        if len(fits) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        return len(content)
