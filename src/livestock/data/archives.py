"""One door to the bytes of images and labels, whether they lie in a zip, read in place, or in a folder."""

from __future__ import annotations

import io
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from ..exceptions import BadData
from ..files.hashing import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from . import pictures
from .zips import (
    ENCRYPTED_FLAGS,
    HEAD_BYTES,
    QUICK_BYTES,
    UTF8_FLAG,
    ZIP_ERRORS,
    Zip,
    open_zip,
    read_head,
    read_quickly,
)


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


def split_name(name: str) -> tuple[str, str, str]:
    """File name, stem, and suffix in lower case: what `PurePosixPath` has, in a tenth of its time.

    >>> split_name("deep/a.b.JPG")
    ('a.b.JPG', 'a.b', '.jpg')
    """
    file_name = name.rpartition("/")[2]
    dot = file_name.rfind(".")
    if dot in (0, len(file_name) - 1):  # also where there is no name
        path = PurePosixPath(name)
        return path.name, path.stem, path.suffix.lower()
    return (file_name, file_name[:dot], file_name[dot:].lower()) if dot > 0 else (file_name, file_name, "")


def find_zips(path: Path) -> list[Path]:
    """The zips below a folder, whatever the case of their suffix, in the order of their names as people read them."""
    zips = (file for file in path.rglob("*") if file.suffix.lower() == ".zip" and file.is_file())
    return sorted(zips, key=lambda file: normalise(str(file)))


def list_members(path: Path, limits: Limits = LIMITS) -> list[Member]:
    """The files of a zip or a folder, in name order.

    Raises BadData naming the archive, and the member where there is one: no zip, data before or after it, two
    members of one name, a link, encrypted, packed by a method other than deflate, over the limits (by its declared
    size), or a name that climbs out (`..`, absolute, a drive letter) or that is no text. Names that differ only in
    Unicode's normal form are two members with equal `name`.
    """
    if (zipped := open_zip(str(path))) is None:
        files = sorted(file for file in path.rglob("*") if file.is_file())
        names = [_check_text(path, file.relative_to(path).as_posix()) for file in files]
        return [Member(normalise(name), name, file.stat().st_size) for name, file in zip(names, files, strict=True)]
    infos = [info for info in zipped.file.infolist() if not info.is_dir()]
    members = []
    for info in infos:
        name = _decode(info)
        if (why := _why_refused(info, name, limits)) is not None:
            raise BadData(f"{path}: member {name!r}{why}")
        members.append(Member(name, info.filename, info.file_size))
    _check_all(path, members, limits)
    return sorted(members, key=lambda member: member.name)


def read_bytes(archive: str, member: str, max_bytes: int = LIMITS.member_bytes) -> bytes:
    """A member's content; `archive` is a zip or a folder, `member` the raw name that `list_members` gave.

    Raises BadData naming both if the member is missing or broken, or not of the size that a zip declares; no more
    than that is unpacked. A zip's members of more than `max_bytes` are refused.
    """
    try:
        if (zipped := open_zip(archive)) is None:
            return Path(archive, member).read_bytes()
        content = read_quickly(zipped, member) if max_bytes >= QUICK_BYTES else None
        return _read_member(zipped.file, member, max_bytes) if content is None else content
    except ZIP_ERRORS as error:
        raise BadData(f"{archive}: {member}: cannot be read: {error}") from error


def stamp_members(archives: Sequence[str], members: Sequence[str]) -> list[int]:
    """A number for each file that changes with its content: CRC-32 from a zip's list, of a file in a folder its size.

    Nothing is read but lists and directories. Raises BadData naming archive and member of a file that is missing.
    """
    stamps = []
    for archive, member in zip(archives, members, strict=True):
        try:
            zipped = open_zip(archive)
            stamps.append(Path(archive, member).stat().st_size if zipped is None else zipped.file.getinfo(member).CRC)
        except ZIP_ERRORS as error:
            raise BadData(f"{archive}: {member}: cannot be read: {error}") from error
    return stamps


def read_image(archive: str, member: str) -> np.ndarray:
    """A picture as `(height, width, 3)` uint8 RGB, turned as its EXIF orientation says.

    Raises BadData naming archive and member if it cannot be decoded to its end.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (4, 2)).save(f"{folder}/a.png")
    ...     print(read_image(folder, "a.png").shape)
    (2, 4, 3)
    """
    content = read_bytes(archive, member)
    try:
        return pictures.decode(io.BytesIO(content))
    except pictures.ERRORS as error:
        raise BadData(f"{archive}: {member}: expected a picture that can be decoded, found: {error}") from error


def image_size(archive: str, member: str) -> tuple[int, int]:
    """Width and height in pixels of what `read_image` returns, from the header alone.

    Raises BadData naming archive and member if there is no picture's header.
    """
    try:
        zipped = open_zip(archive)
        head = _read_file_head(archive, member) if zipped is None else read_head(zipped, member)
        if (size := pictures.jpeg_size(head)) is not None:
            return size
        with _open_member(archive, zipped, member) as file:
            return pictures.measure(file)
    except (*pictures.ERRORS, *ZIP_ERRORS) as error:
        raise BadData(f"{archive}: {member}: expected a picture, found no readable header: {error}") from error


def orientation(archive: str, member: str) -> int:
    """The EXIF orientation of a picture, 1 where it has none; `read_image` has undone it.

    Raises BadData naming archive and member if there is no picture's header.
    """
    try:
        return pictures.orientation(io.BytesIO(read_bytes(archive, member)))
    except pictures.ERRORS as error:
        raise BadData(f"{archive}: {member}: expected a picture, found no readable header: {error}") from error


def normalise(name: str) -> str:
    """Unicode NFC: macOS writes Korean names decomposed (NFD), which look the same and compare unequal.

    >>> len("\\u1112\\u1161\\u11ab"), len(normalise("\\u1112\\u1161\\u11ab"))  # three parts of one Korean syllable
    (3, 1)
    """
    return unicodedata.normalize("NFC", name)


def _read_file_head(folder: str, name: str) -> bytes:
    with open(Path(folder, name), "rb", buffering=0) as file:
        return file.read(HEAD_BYTES)


def _open_member(archive: str, zipped: Zip | None, member: str) -> IO[bytes]:
    """The start of a JPEG as a stream; other formats whole, which Pillow reads without a bound on what it unpacks."""
    if zipped is None:
        return open(Path(archive, member), "rb")
    with zipped.file.open(member) as file:
        is_jpeg = file.read(2) == pictures.JPEG_START
    return zipped.file.open(member) if is_jpeg else io.BytesIO(read_bytes(archive, member))


def _read_member(archive: ZipFile, name: str, max_bytes: int) -> bytes:
    size = archive.getinfo(name).file_size
    if size > max_bytes:
        raise BadZipFile(f"{size:,} bytes, more than {max_bytes:,}; refused")
    with archive.open(name) as file:
        content = file.read(size + 1)  # `read()` would unpack all that is there, whatever size is declared
    if len(content) != size:
        raise BadZipFile(f"expected {size:,} bytes, found {len(content):,}")
    return content


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
    return (name if name.isascii() else normalise(name)).replace("\\", "/")


def _check_text(path: Path, name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise BadData(f"{path}: file {name!a}: its name is not UTF-8; rename it") from error
    return name


def _why_refused(info: ZipInfo, name: str, limits: Limits) -> str | None:
    """What follows the member's name in the message, or None."""
    if name.startswith("/") or name[1:2] == ":" and re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        return ": its name leaves the archive's folder; refused"
    if stat.S_ISLNK(info.external_attr >> 16):
        return " is a link; refused"
    if info.flag_bits & ENCRYPTED_FLAGS:
        return " is encrypted; unpack it with its password first"
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):  # zipfile unpacks others without a bound
        return f": expected it stored or deflated, found method {info.compress_type}; pack it again"
    if info.file_size > limits.member_bytes:
        return f": {info.file_size:,} bytes, more than {limits.member_bytes:,}; refused"
    return _why_a_bomb(info.file_size, info.compress_size, limits)


def _check_all(path: Path, members: Sequence[Member], limits: Limits) -> None:
    """What the members are together: the names single, the sizes no more than a file of that length can hold."""
    name, count = next(iter(Counter(member.raw for member in members).most_common(1)), ("", 0))
    if count > 1:
        raise BadData(f"{path}: member {name!r} is there {count} times; only the last could be read; refused")
    total = sum(member.size for member in members)
    if total > limits.total_bytes:
        raise BadData(f"{path}: {total:,} bytes in all, more than {limits.total_bytes:,}; refused")
    if (why := _why_a_bomb(total, os.path.getsize(path), limits)) is not None:
        raise BadData(f"{path}: its members{why}")


def _why_a_bomb(size: int, packed: int, limits: Limits) -> str | None:
    if size <= limits.ratio_from or size <= limits.ratio * packed:
        return None
    return f": {size:,} bytes in {packed:,}, more than {limits.ratio:g} times as many; refused"
