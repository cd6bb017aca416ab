"""One door to the bytes of images and labels, whether they lie in a zip, read in place, or in a folder."""

from __future__ import annotations

import functools
import io
import os
import re
import stat
import struct
import threading
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from . import pictures

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
UTF8_FLAG, ENCRYPTED_FLAGS = 0x800, 0x1 | 0x40 | 0x2000  # weak, strong, and names too
END_RECORD = 22  # bytes of the record a zip ends with, but for its comment
JPEG_START = b"\xff\xd8"
ZIP_ERRORS = (BadZipFile, KeyError, OSError, RuntimeError, EOFError, OverflowError, UnicodeError, struct.error,
              zlib.error)  # what zipfile raises on broken zips
_per_thread = threading.local()


@dataclass(frozen=True)
class Limits:
    """How large a zip may say it is: beyond this it is no data set but a bomb.

    `ratio` is of bytes to bytes packed, of any member and of the whole, and counts from `ratio_from` bytes on: a small
    plain picture packs well and does no harm.
    """

    member_bytes: int = 512 << 20
    total_bytes: int = 4 << 40
    ratio: float = 200
    ratio_from: int = 64 << 20


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: `name` as people read it (decoded, NFC), `raw` as the archive opens it, size in bytes."""

    name: str
    raw: str
    size: int

    @property
    def path(self) -> PurePosixPath:
        """The name as a path, for its stem and suffix."""
        return PurePosixPath(self.name)


def find_zips(path: Path) -> list[Path]:
    """The zips below a folder, whatever the case of their suffix, in the order of their names as people read them."""
    zips = (file for file in path.rglob("*") if file.suffix.lower() == ".zip" and file.is_file())
    return sorted(zips, key=lambda file: normalise(str(file)))


def list_members(path: Path, limits: Limits = LIMITS) -> list[Member]:
    """The files of a zip or a folder, in name order.

    Raises ValueError naming the archive, and the member where there is one: no zip, data before or after it, two
    members of one name, a link, encrypted, packed by a method other than deflate, over the limits (by its declared
    size), or a name that climbs out (`..`, absolute, a drive letter) or that is no text. Names that differ only in
    Unicode's normal form are two members with equal `name`.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        names = [_check_text(path, file.relative_to(path).as_posix()) for file in files]
        return [Member(normalise(name), name, file.stat().st_size) for name, file in zip(names, files, strict=True)]
    infos = [info for info in _open_zip(str(path)).infolist() if not info.is_dir()]
    members = [Member(_decode(info), info.filename, info.file_size) for info in infos]
    for info, member in zip(infos, members, strict=True):
        _check_member(path, info, member, limits)
    _check_all(path, members, limits)
    return sorted(members, key=lambda member: member.name)


def read_bytes(archive: str, member: str, max_bytes: int = LIMITS.member_bytes) -> bytes:
    """A member's content; `archive` is a zip or a folder, `member` the raw name that `list_members` gave.

    Raises ValueError naming both if the member is missing or broken, or not of the size that a zip declares; no more
    than that is unpacked. A zip's members of more than `max_bytes` are refused.
    """
    try:
        if os.path.isdir(archive):
            return Path(archive, member).read_bytes()
        return _read_member(_open_zip(archive), member, max_bytes)
    except ZIP_ERRORS as error:
        raise ValueError(f"{archive}: {member}: cannot be read: {error}") from error


def read_image(archive: str, member: str) -> np.ndarray:
    """A picture as `(height, width, 3)` uint8 RGB, turned as its EXIF orientation says.

    Raises ValueError naming archive and member if it cannot be decoded to its end.
    """
    content = read_bytes(archive, member)
    try:
        return pictures.decode(io.BytesIO(content))
    except pictures.ERRORS as error:
        raise ValueError(f"{archive}: {member}: expected a picture that can be decoded, found: {error}") from error


def image_size(archive: str, member: str) -> tuple[int, int]:
    """Width and height in pixels of what `read_image` returns, from the header alone.

    Raises ValueError naming archive and member if there is no picture's header.
    """
    try:
        with _open_member(archive, member) as file:
            return pictures.measure(file)
    except (*pictures.ERRORS, *ZIP_ERRORS) as error:
        raise ValueError(f"{archive}: {member}: expected a picture, found no readable header: {error}") from error


def normalise(name: str) -> str:
    """Unicode NFC: macOS writes Korean names decomposed (NFD), which look the same and compare unequal."""
    return unicodedata.normalize("NFC", name)


def _open_member(archive: str, member: str) -> IO[bytes]:
    """The start of a JPEG as a stream; other formats whole, which Pillow reads without a bound on what it unpacks."""
    if os.path.isdir(archive):
        return open(Path(archive, member), "rb")
    with _open_zip(archive).open(member) as file:
        is_jpeg = file.read(2) == JPEG_START
    return _open_zip(archive).open(member) if is_jpeg else io.BytesIO(read_bytes(archive, member))


def _read_member(archive: ZipFile, name: str, max_bytes: int) -> bytes:
    size = archive.getinfo(name).file_size
    if size > max_bytes:
        raise BadZipFile(f"{size:,} bytes, more than {max_bytes:,}; refused")
    with archive.open(name) as file:
        content = file.read(size + 1)  # `read()` would unpack all that is there, whatever size is declared
    if len(content) != size:
        raise BadZipFile(f"expected {size:,} bytes, found {len(content):,}")
    return content


def _open_zip(path: str) -> ZipFile:
    """An open zip, one handle a thread and process: handles share a file position, and forks share handles."""
    if getattr(_per_thread, "pid", None) != os.getpid():
        _per_thread.pid, _per_thread.open = os.getpid(), functools.lru_cache(maxsize=16)(_new_zip)
    return _per_thread.open(path, os.stat(path).st_mtime_ns)


def _new_zip(path: str, _changed: int) -> ZipFile:
    try:
        archive = ZipFile(path)
        _check_edges(path, archive)
    except ZIP_ERRORS as error:
        raise ValueError(f"{path}: expected a zip archive, found: {error}") from error
    return archive


def _check_edges(path: str, archive: ZipFile) -> None:
    """What zipfile passes over: of two zips in one file it lists only the last, and of a damaged list only a part."""
    first = min(archive.infolist(), key=lambda info: info.header_offset, default=None)
    if first is not None and first.header_offset != 0:
        raise BadZipFile(f"its first member {first.filename!r} at byte {first.header_offset:,} instead of 0: something "
                         "before it, or its start is missing")
    with open(path, "rb") as file:
        file.seek(-END_RECORD - len(archive.comment), os.SEEK_END)
        record = file.read(END_RECORD)
    if not record.startswith(b"PK\5\6"):
        raise BadZipFile("bytes after the end of the archive")
    stated, found = int.from_bytes(record[10:12], "little"), len(archive.infolist())
    if stated not in (0xFFFF, found & 0xFFFF):  # 16 bits, all set where another record (ZIP64) has the number
        raise BadZipFile(f"a list of {found} members that says it has {stated}")


def _decode(info: ZipInfo) -> str:
    """The member's name: zipfile decodes cp437 where the UTF-8 flag is not set; Korean zips mean cp949 or UTF-8.

    Some Windows tools write `\\` between folders.
    """
    name = info.filename
    if not (info.flag_bits & UTF8_FLAG or name.isascii()):
        for encoding in ("utf-8", "cp949"):
            try:
                name = info.filename.encode("cp437").decode(encoding)
                break
            except UnicodeError:
                continue
    return normalise(name).replace("\\", "/")


def _check_text(path: Path, name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{path}: file {name!a}: its name is not UTF-8; rename it") from error
    return name


def _check_member(path: Path, info: ZipInfo, member: Member, limits: Limits) -> None:
    where, parts = f"{path}: member {member.name!r}", member.name.split("/")
    if ".." in parts or member.name.startswith("/") or re.match(r"[A-Za-z]:", member.name):
        raise ValueError(f"{where}: its name leaves the archive's folder; refused")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise ValueError(f"{where} is a link; refused")
    if info.flag_bits & ENCRYPTED_FLAGS:
        raise ValueError(f"{where} is encrypted; unpack it with its password first")
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):  # zipfile unpacks others without a bound
        raise ValueError(f"{where}: expected it stored or deflated, found method {info.compress_type}; pack it anew")
    if info.file_size > limits.member_bytes:
        raise ValueError(f"{where}: {info.file_size:,} bytes, more than {limits.member_bytes:,}; refused")
    _check_ratio(where, info.file_size, info.compress_size, limits)


def _check_all(path: Path, members: Sequence[Member], limits: Limits) -> None:
    """What the members are together: the names single, the sizes no more than a file of that length can hold."""
    name, count = next(iter(Counter(member.raw for member in members).most_common(1)), ("", 0))
    if count > 1:
        raise ValueError(f"{path}: member {name!r} is there {count} times; only the last could be read; refused")
    total = sum(member.size for member in members)
    if total > limits.total_bytes:
        raise ValueError(f"{path}: {total:,} bytes in all, more than {limits.total_bytes:,}; refused")
    _check_ratio(f"{path}: its members", total, os.path.getsize(path), limits)


def _check_ratio(where: str, size: int, packed: int, limits: Limits) -> None:
    if size > limits.ratio_from and size > limits.ratio * packed:
        raise ValueError(f"{where}: {size:,} bytes in {packed:,}, more than {limits.ratio:g} times as many; refused")
