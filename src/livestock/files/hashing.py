"""What a file, a folder or a value is recognised by: a hash of its content, the same on every machine."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp"}
ZIP_TAIL = 16 << 20  # bytes at the end of a zip: its list of members, each with size and CRC-32; 150,000 fit
REMEMBERED_FROM = 1 << 20  # bytes from which a file that keeps its size and time of change is not read twice
_remembered: dict[tuple[str, int, int], str] = {}


def fingerprint(path: Path, workspace: Path | None = None) -> str:
    """SHA-256 of a file's bytes; of a zip, of its size and its end; of a folder, of its files' names and contents.

    A zip ends with the list of its members and their checksums, so that a copy of it is the same and one other member
    is not, without gigabytes being read. Lines of a YAML file that are comments do not count. Pictures in a folder
    count by name and size. No time of change enters: a copy of a folder on another disk is the same folder. A
    `workspace` inside the folder is left out.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.yaml").write_text("imgsz: 320")
    ...     _ = Path(folder, "b.yaml").write_text("# a comment\\nimgsz: 320")
    ...     fingerprint(Path(folder, "a.yaml")) == fingerprint(Path(folder, "b.yaml"))
    True
    """
    if not path.is_dir():
        return f"sha256:{_hash_file(path)}"
    digest, results = hashlib.sha256(), workspace and workspace.resolve()
    is_inside = results is not None and results != path.resolve() and results.is_relative_to(path.resolve())
    for item in sorted(item for item in path.rglob("*") if item.is_file()):
        if is_inside and results and item.resolve().is_relative_to(results):
            continue
        content = "" if item.suffix.lower() in IMAGE_SUFFIXES else _hash_file(item)
        digest.update(f"{item.relative_to(path).as_posix()}\0{item.stat().st_size}\0{content}\n".encode())
    return f"folder:{digest.hexdigest()}"


def _hash_file(path: Path) -> str:
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _remembered:
        digest = hashlib.sha256()
        if path.suffix.lower() in (".yaml", ".yml"):
            lines = path.read_bytes().splitlines()
            return hashlib.sha256(b"\n".join(line for line in lines if not line.startswith(b"#"))).hexdigest()
        with open(path, "rb") as file:
            if path.suffix.lower() == ".zip" and stat.st_size > ZIP_TAIL:
                digest.update(str(stat.st_size).encode())
                file.seek(-ZIP_TAIL, os.SEEK_END)
            while block := file.read(1 << 20):
                digest.update(block)
        if stat.st_size < REMEMBERED_FROM:  # read in no time, and perhaps rewritten within the clock's step
            return digest.hexdigest()
        _remembered[key] = digest.hexdigest()
    return _remembered[key]


def hash_content(content: Any) -> str:
    """SHA-256 of the JSON serialisation, keys sorted, as 64 hexadecimal digits.

    >>> hash_content({"b": 1, "a": 2}) == hash_content({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
