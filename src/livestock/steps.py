"""A step: files in, files out; skipped when done, written whole or not at all, recorded in a manifest."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MANIFEST_DIR = "steps"
ZIP_TAIL = 16 << 20  # bytes at the end of a zip: its list of members, each with size and CRC-32; 150,000 fit


def run_step(
    name: str,
    action: Callable[[], None],
    *,
    inputs: Sequence[Path],
    outputs: Sequence[Path],
    settings: Mapping[str, Any],
    workspace: Path,
    version: int = 1,
) -> bool:
    """Runs `action` unless its outputs stand and were made from these inputs with these settings by this version.

    Inputs and outputs are compared by content (see `fingerprint`), so a changed input reruns this step and, through
    its outputs, what follows. `version` is raised by whoever changes what the action's code makes of the same inputs:
    a hash of the code would throw away hours of training for a comment. Prints one line either way. Returns whether
    the action ran.

    Raises FileNotFoundError for a missing input and RuntimeError if the action left an output unwritten.
    """
    for path in inputs:
        if not path.exists():
            raise FileNotFoundError(f"step {name}: {path} is missing; run the notebook that writes it first")
    made_from = {"version": version, "inputs": {str(path): fingerprint(path, workspace) for path in inputs},
                 "settings": _plain(settings)}
    manifest_path = workspace / "interim" / MANIFEST_DIR / f"{name}.json"
    if _is_done(manifest_path, made_from, outputs):
        print(f"{name}: done before, skipped ({', '.join(path.name for path in outputs)})")
        return False
    manifest_path.unlink(missing_ok=True)  # from here on the step is unfinished
    for torn in [torn for path in outputs for torn in path.parent.glob(f".{glob.escape(path.name)}.*")]:
        torn.unlink()  # of a process that was killed while it wrote
    started = time.monotonic()
    action()
    if missing := [str(path) for path in outputs if not path.exists()]:
        raise RuntimeError(f"step {name}: expected to write {missing[0]}, which does not exist")
    seconds = round(time.monotonic() - started, 1)
    write_json(
        {
            "step": name,
            **made_from,
            "outputs": {str(path): fingerprint(path) for path in outputs},
            "seconds": seconds,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        manifest_path,
    )
    print(f"{name}: {seconds:g} s ({', '.join(path.name for path in outputs)})")
    return True


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


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Writes JSON whole or not at all."""
    write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Writes UTF-8 text whole or not at all."""
    write_bytes(text.encode("utf-8"), path)


def write_bytes(content: bytes, path: Path, *, flush: bool = True) -> None:
    """Writes a file whole or not at all: beside the target, flushed, then renamed onto it.

    `flush=False` leaves the disk its time: for thousands of files that can be made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(beside, "wb") as file:
        file.write(content)
        if flush:
            file.flush()
            os.fsync(file.fileno())
    os.replace(beside, path)


def _is_done(manifest_path: Path, made_from: Mapping[str, Any], outputs: Sequence[Path]) -> bool:
    if not manifest_path.exists() or not all(path.exists() for path in outputs):
        return False
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    same = all({"version": 1, **manifest}.get(key) == value for key, value in made_from.items())
    return same and manifest["outputs"] == {str(path): fingerprint(path) for path in outputs}


def _plain(settings: Mapping[str, Any]) -> Any:
    """Settings as JSON gives them back (tuples become lists), so that comparison is fair."""
    return json.loads(json.dumps(settings, sort_keys=True, default=str))
