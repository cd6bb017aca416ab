"""One door to the bytes of images and labels, whether they lie in a zip, read in place, or in a folder."""

from __future__ import annotations

import functools
import os
import re
import threading
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from zipfile import BadZipFile, ZipFile, ZipInfo

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
MAX_MEMBER_BYTES = 512 << 20  # a declared size above this is no image and no label
UTF8_FLAG, ENCRYPTED_FLAG = 0x800, 0x1
ROTATED = {5, 6, 7, 8}  # EXIF orientations that swap width and height
_per_thread = threading.local()


@dataclass(frozen=True)
class Member:
    """A file in an archive: `name` as people read it (decoded, NFC), `raw` as the archive opens it, size in bytes."""

    name: str
    raw: str
    size: int

    @property
    def path(self) -> PurePosixPath:
        """The name as a path, for its stem and suffix."""
        return PurePosixPath(self.name)


def list_members(path: Path, max_bytes: int = MAX_MEMBER_BYTES) -> list[Member]:
    """The files of a zip or a folder, in name order.

    Raises ValueError naming the archive, and the member where there is one: no zip, encrypted, over `max_bytes`
    (declared), or a name that climbs out (`..`, absolute, a drive letter).
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        names = [file.relative_to(path).as_posix() for file in files]
        return [Member(normalise(name), name, file.stat().st_size) for name, file in zip(names, files, strict=True)]
    infos = [info for info in _open_zip(str(path)).infolist() if not info.is_dir()]
    members = [Member(_decode(info), info.filename, info.file_size) for info in infos]
    for info, member in zip(infos, members, strict=True):
        _check_member(path, info, member, max_bytes)
    return sorted(members, key=lambda member: member.name)


def read_bytes(archive: str, member: str) -> bytes:
    """A member's content; `archive` is a zip or a folder, `member` the raw name that `list_members` gave.

    Raises ValueError naming both if the member is missing or broken.
    """
    try:
        if os.path.isdir(archive):
            return Path(archive, member).read_bytes()
        return _open_zip(archive).read(member)
    except (BadZipFile, KeyError, OSError, RuntimeError, EOFError) as error:
        raise ValueError(f"{archive}: {member}: cannot be read: {error}") from error


def read_image(archive: str, member: str) -> np.ndarray:
    """A picture as `(height, width, 3)` uint8 RGB, turned as its EXIF orientation says.

    Raises ValueError naming archive and member if it cannot be decoded.
    """
    picture = cv2.imdecode(np.frombuffer(read_bytes(archive, member), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{archive}: {member}: expected a picture that can be decoded")
    return np.ascontiguousarray(picture[..., ::-1])


def image_size(archive: str, member: str) -> tuple[int, int]:
    """Width and height in pixels of what `read_image` returns, from the header alone.

    Raises ValueError naming archive and member if there is no picture's header.
    """
    try:
        with _open_member(archive, member) as file, Image.open(file) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112) in ROTATED
    except (UnidentifiedImageError, OSError, BadZipFile, KeyError, RuntimeError, ValueError, SyntaxError) as error:
        raise ValueError(f"{archive}: {member}: expected a picture, found no readable header: {error}") from error
    return (height, width) if turned else (width, height)


def normalise(name: str) -> str:
    """Unicode NFC: macOS writes Korean names decomposed (NFD), which look the same and compare unequal."""
    return unicodedata.normalize("NFC", name)


def _open_member(archive: str, member: str) -> IO[bytes]:
    if os.path.isdir(archive):
        return open(Path(archive, member), "rb")
    return _open_zip(archive).open(member)


def _open_zip(path: str) -> ZipFile:
    """An open zip, one handle a thread and process: handles share a file position, and forks share handles."""
    if getattr(_per_thread, "pid", None) != os.getpid():
        _per_thread.pid, _per_thread.open = os.getpid(), functools.lru_cache(maxsize=16)(_new_zip)
    return _per_thread.open(path, os.stat(path).st_mtime_ns)


def _new_zip(path: str, _changed: int) -> ZipFile:
    try:
        return ZipFile(path)
    except BadZipFile as error:
        raise ValueError(f"{path}: expected a zip archive, found: {error}") from error


def _decode(info: ZipInfo) -> str:
    """The member's name: zipfile decodes cp437 where the UTF-8 flag is not set; Korean zips mean cp949 or UTF-8."""
    if info.flag_bits & UTF8_FLAG or info.filename.isascii():
        return normalise(info.filename)
    raw = info.filename.encode("cp437")
    for encoding in ("utf-8", "cp949"):
        try:
            return normalise(raw.decode(encoding))
        except UnicodeDecodeError:
            continue
    return normalise(info.filename)


def _check_member(path: Path, info: ZipInfo, member: Member, max_bytes: int) -> None:
    parts = re.split(r"[/\\]", member.name)
    if ".." in parts or member.name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", member.name):
        raise ValueError(f"{path}: member {member.name!r}: its name leaves the archive's folder; refused")
    if info.flag_bits & ENCRYPTED_FLAG:
        raise ValueError(f"{path}: member {member.name!r} is encrypted; unpack it with its password first")
    if info.file_size > max_bytes:
        raise ValueError(f"{path}: member {member.name!r}: {info.file_size:,} bytes, more than {max_bytes:,}; refused")
