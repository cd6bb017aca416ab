"""A step: files in, files out; skipped when done, written whole or not at all, recorded in a manifest."""

from __future__ import annotations

import glob
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..files.hashing import MANIFEST_DIR, fingerprint
from ..files.write import write_json


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


def _is_done(manifest_path: Path, made_from: Mapping[str, Any], outputs: Sequence[Path]) -> bool:
    if not manifest_path.exists() or not all(path.exists() for path in outputs):
        return False
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    same = all({"version": 1, **manifest}.get(key) == value for key, value in made_from.items())
    return same and manifest["outputs"] == {str(path): fingerprint(path) for path in outputs}


def _plain(settings: Mapping[str, Any]) -> Any:
    """Settings as JSON gives them back (tuples become lists), so that comparison is fair."""
    return json.loads(json.dumps(settings, sort_keys=True, default=str))
