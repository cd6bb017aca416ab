"""What a file, a folder or a value is recognised by: a hash of its content."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

MANIFEST_DIR = "steps"
ZIP_TAIL = 16 << 20  # bytes at the end of a zip: its list of members, each with size and CRC-32; 150,000 fit


def fingerprint(path: Path, workspace: Path | None = None) -> str:
    """SHA-256 of a file's bytes; of a zip, of its size and its end; of a folder, of its files' names and the like.

    A `workspace` that lies in the folder is no part of it.

    A zip ends with the list of its members and their checksums, so that a copy of it is the same and one other member
    is not, without gigabytes being read. A folder counts its zips so, and other files by size and time of change.
    """
    if not path.is_dir():
        return f"sha256:{_hash_file(path)}"
    digest, results = hashlib.sha256(), workspace and workspace.resolve()
    is_inside = results is not None and results != path.resolve() and results.is_relative_to(path.resolve())
    for item in sorted(item for item in path.rglob("*") if item.is_file()):
        if is_inside and results and item.resolve().is_relative_to(results):
            continue
        stat = item.stat()
        content = _hash_file(item) if _is_zip(item) else stat.st_mtime_ns
        digest.update(f"{item.relative_to(path)}\0{stat.st_size}\0{content}\n".encode())
    return f"folder:{digest.hexdigest()}"


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        if _is_zip(path) and (size := path.stat().st_size) > ZIP_TAIL:
            digest.update(str(size).encode())
            file.seek(-ZIP_TAIL, os.SEEK_END)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_content(content: Any) -> str:
    """SHA-256 of what JSON makes of it, without a word on what it is the hash of."""
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()
