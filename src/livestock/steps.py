"""A step: files in, files out; skipped when done, written whole or not at all, recorded in a manifest."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MANIFEST_DIR = "steps"


def run_step(
    name: str,
    action: Callable[[], None],
    *,
    inputs: Sequence[Path],
    outputs: Sequence[Path],
    settings: Mapping[str, Any],
    workspace: Path,
) -> bool:
    """Runs `action` unless its outputs stand and were made from these inputs with these settings.

    Inputs and outputs are compared by content (see `fingerprint`), so a changed input reruns this step and, through
    its outputs, what follows. Prints one line either way. Returns whether the action ran.

    Raises FileNotFoundError for a missing input and RuntimeError if the action left an output unwritten.
    """
    for path in inputs:
        if not path.exists():
            raise FileNotFoundError(f"step {name}: {path} is missing; run the notebook that writes it first")
    made_from = {"inputs": {str(path): fingerprint(path) for path in inputs}, "settings": _plain(settings)}
    manifest_path = workspace / "interim" / MANIFEST_DIR / f"{name}.json"
    if _is_done(manifest_path, made_from, outputs):
        print(f"{name}: done before, skipped ({', '.join(path.name for path in outputs)})")
        return False
    manifest_path.unlink(missing_ok=True)  # from here on the step is unfinished
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


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's bytes; of a folder, the hash of its files' names, sizes and times of change.

    Raw archives and image folders are gigabytes: reading them to see whether they changed would cost more than most
    steps. Tables, configs and weights are hashed by content.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        for item in sorted(item for item in path.rglob("*") if item.is_file()):
            stat = item.stat()
            digest.update(f"{item.relative_to(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return f"folder:{digest.hexdigest()}"
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


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
    same = all(manifest.get(key) == made_from[key] for key in ("inputs", "settings"))
    return same and manifest["outputs"] == {str(path): fingerprint(path) for path in outputs}


def _plain(settings: Mapping[str, Any]) -> Any:
    """Settings as JSON gives them back (tuples become lists), so that comparison is fair."""
    return json.loads(json.dumps(settings, sort_keys=True, default=str))
