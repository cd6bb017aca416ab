"""Files are written whole or not at all."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Writes JSON whole or not at all."""
    write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Writes UTF-8 text whole or not at all.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_text("epochs: 8", Path(folder) / "run.yaml")
    ...     print([path.name for path in Path(folder).iterdir()])
    ['run.yaml']
    """
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
    if flush:
        logger.debug("%s: written, %d bytes", path, len(content))
