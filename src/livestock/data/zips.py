"""Open zips, and a quick way to the bytes of a plain member; whatever is not plain is left to zipfile to judge."""

from __future__ import annotations

import functools
import os
import stat
import struct
import threading
import zlib
from dataclasses import dataclass
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from ..exceptions import BadData

UTF8_FLAG, ENCRYPTED_FLAGS = 0x800, 0x1 | 0x40 | 0x2000  # weak, strong, and names too
ODD_FLAGS = ENCRYPTED_FLAGS | 0x20  # patches of other data
END_RECORD = 22  # bytes of the record a zip ends with, but for its comment
LOCAL_HEADER = struct.Struct("<4s2xH18xHH")  # of each member: signature, flags, lengths of its name and of what follows
EXTRA_BYTES = 64  # that may stand between a member's name and its content
HEAD_BYTES = 4096  # zipfile reads at least this much, and checks the sum of members that end there
QUICK_BYTES = 1 << 20  # members up to this size are read at once
ZIP_ERRORS = (BadZipFile, KeyError, OSError, RuntimeError, EOFError, OverflowError, UnicodeError, struct.error,
              zlib.error)  # what zipfile raises on broken zips
_per_thread = threading.local()


@dataclass(frozen=True)
class Zip:
    """An open zip, and by the place of each member's header the place of what comes next."""

    file: ZipFile
    following: dict[int, int]


def open_zip(path: str) -> Zip | None:
    """An open zip, one handle a thread and process: handles share a file position, and forks share handles.

    None for a folder.
    """
    if getattr(_per_thread, "pid", None) != os.getpid():
        _per_thread.pid, _per_thread.open = os.getpid(), functools.lru_cache(maxsize=16)(_new_zip)
    found = os.stat(path)
    return None if stat.S_ISDIR(found.st_mode) else _per_thread.open(path, found.st_mtime_ns)


def _new_zip(path: str, _changed: int) -> Zip:
    try:
        archive = ZipFile(path)
        _check_edges(path, archive)
    except ZIP_ERRORS as error:
        raise BadData(f"{path}: expected a zip archive, found: {error}") from error
    places = sorted(info.header_offset for info in archive.infolist())
    ends = [*places[1:], archive.start_dir]
    return Zip(archive, dict(reversed([*zip(places, ends, strict=False)])))  # of two at one place the first counts


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


def read_quickly(zipped: Zip, name: str) -> bytes | None:
    """A member's content in a fifth of zipfile's time; None where anything is unusual, for zipfile to say what."""
    info = zipped.file.getinfo(name)
    if max(info.file_size, info.compress_size) > QUICK_BYTES:
        return None
    content, is_whole = _unpack(info, _read_packed(zipped, info, info.compress_size), info.file_size + 1)
    return content if is_whole and len(content) == info.file_size and zlib.crc32(content) == info.CRC else None


def read_head(zipped: Zip, name: str) -> bytes:
    """How a member starts; empty where anything is unusual, or so short that zipfile would check its sum too."""
    info = zipped.file.getinfo(name)
    if min(info.file_size, info.compress_size) <= HEAD_BYTES:
        return b""
    head, is_whole = _unpack(info, _read_packed(zipped, info, HEAD_BYTES), HEAD_BYTES)
    return b"" if is_whole else head


def _unpack(info: ZipInfo, packed: bytes | None, n: int) -> tuple[bytes, bool]:
    """No more than `n` bytes of what is packed, and whether the member ends there; nothing if it cannot be unpacked."""
    if packed is None:
        return b"", False
    if info.compress_type == ZIP_STORED:
        return packed, len(packed) == info.compress_size
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return unpacker.decompress(packed, n), unpacker.eof
    except zlib.error:  # zipfile meets it again and says so
        return b"", False


def _read_packed(zipped: Zip, info: ZipInfo, n: int) -> bytes | None:
    """The first `n` bytes of a member as packed, read at once; None unless its header is as zipfile wants it."""
    name = info.orig_filename.encode("utf-8" if info.flag_bits & UTF8_FLAG else "cp437")
    if info.flag_bits & ODD_FLAGS or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED) or zipped.file.fp is None:
        return None
    data = os.pread(zipped.file.fp.fileno(), LOCAL_HEADER.size + len(name) + EXTRA_BYTES + n, info.header_offset)
    if len(data) < LOCAL_HEADER.size:
        return None
    signature, flags, n_name, n_extra = LOCAL_HEADER.unpack_from(data)
    start = LOCAL_HEADER.size + n_name + n_extra
    is_plain = (
        signature == b"PK\3\4"
        and data[LOCAL_HEADER.size : LOCAL_HEADER.size + n_name] == name
        and (flags ^ info.flag_bits) & UTF8_FLAG == 0
        and start + n <= len(data)
        and info.header_offset + start + info.compress_size <= zipped.following[info.header_offset]
    )
    return data[start : start + n] if is_plain else None
