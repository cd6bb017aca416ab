"""What comes back from an annotation tool, before it is matched to the images that were exported."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...data.archives import Member, list_members, read_bytes
from ...data.readers.values import is_number
from ...exceptions import BadData

HUMAN, SUSPECT = "human", "suspect"  # who drew a box, where a tool keeps that
MAX_BYTES = 64 << 20  # of one file of labels: some 200,000 boxes; parsed it takes many times as much memory


class ReturnedBox(NamedTuple):
    """A box as a tool has it: `where` it is in the file, the tool's name of its class, xyxy corners, and who drew it.

    `origin` is `HUMAN`, `SUSPECT`, or "" where the tool does not keep that.
    """

    where: str
    label: str
    corners: tuple[float, float, float, float]
    origin: str = ""


class Entry(NamedTuple):
    """An image as a tool has it: its name there, its boxes, and its size in pixels where the tool says it.

    Corners are pixels, or parts of width and height where `is_relative`.
    """

    where: str
    name: str
    boxes: list[ReturnedBox]
    size: tuple[float, float] | None = None
    is_relative: bool = False


@dataclass
class Returned:
    """Everything read from a file: entries to import, and in words what is not imported and why.

    `unreviewed` names images that nobody has looked at; `notes` are boxes that were changed or left out; `faults` are
    what makes the whole file unfit.
    """

    entries: list[Entry] = field(default_factory=list)
    unreviewed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Source:
    """A file, a folder or a zip that came from a tool, and its files. Nothing in it is unpacked or run."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise BadData(f"{path}: no such file or folder")
        self.path = path
        if path.is_dir() or path.suffix.lower() == ".zip":
            self.archive, self.members = path, list_members(path)
        else:
            self.archive, self.members = path.parent, [Member(path.name, path.name, path.stat().st_size)]

    def named(self, *names: str) -> list[Member]:
        """The members whose file name is one of these, whatever its case."""
        return [member for member in self.members if member.path.name.lower() in names]

    def with_suffix(self, suffix: str) -> list[Member]:
        """The members of this suffix, whatever its case."""
        return [member for member in self.members if member.path.suffix.lower() == suffix]

    def where(self, member: Member) -> str:
        """The member's name for messages."""
        return str(self.path) if self.path.is_file() and len(self.members) == 1 else f"{self.path}/{member.name}"

    def read(self, member: Member, max_bytes: int = MAX_BYTES) -> bytes:
        """The member's bytes. Raises BadData for more than `max_bytes`."""
        if member.size > max_bytes:
            raise BadData(f"{self.where(member)}: {member.size:,} bytes, more than {max_bytes:,}; refused")
        return read_bytes(str(self.archive), member.raw, max_bytes)

    def text(self, member: Member) -> str:
        """The member's text. Raises BadData unless it is UTF-8."""
        try:
            return self.read(member).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadData(f"{self.where(member)}: expected text in UTF-8: {error}") from error


def are_numbers(*values: Any) -> bool:
    """Whether all are finite numbers.

    >>> are_numbers(1, 2.5), are_numbers(1, "2.5")
    (True, False)
    """
    return all(map(is_number, values))


def enclose(points: list[tuple[float, float]]) -> tuple[float, float, float, float]:
    """The smallest upright box, xyxy, around points.

    >>> enclose([(1, 5), (3, 2), (0, 4)])
    (0, 2, 3, 5)
    """
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def enclose_turned(
    corners: tuple[float, float, float, float], degrees: float, pivot: tuple[float, float]
) -> tuple[float, float, float, float]:
    """The smallest upright box around an xyxy box that is turned clockwise about a point; all in pixels.

    >>> [round(value, 6) for value in enclose_turned((0, 0, 4, 2), 90, (0, 0))]
    [-2.0, 0.0, 0.0, 4.0]
    """
    cos, sin, (x_0, y_0) = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), pivot
    points = [(x - x_0, y - y_0) for x in corners[::2] for y in corners[1::2]]
    return enclose([(x_0 + x * cos - y * sin, y_0 + x * sin + y * cos) for x, y in points])
