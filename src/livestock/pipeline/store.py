"""The store: a result counts as long as what it was made from is what is there now, by content.

Every result has a record in one file, `lineage.jsonl` in the workspace, a line each: the content of its inputs, the
settings that change its numbers, and the version of the code that makes it. Their hash is its key. No path, device or
time of change enters, so a workspace that moves to another folder or machine makes nothing again. From the records any
result is traced back to the raw data (`trace`), and one rule says whether it still holds (`require_fresh`).
"""

from __future__ import annotations

import glob
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..exceptions import MissingResult, StaleResult
from ..files.hashing import fingerprint, hash_content

LINEAGE = "lineage.jsonl"
LONG = 20  # items of a list in the settings from which a record has their number and hash instead
FOLDER = "folder:"  # how the fingerprint of a folder begins: raw data, which only the step that reads it compares
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """What a result was made from; `inputs` and `outputs` are fingerprints of files by place (see `place_of`)."""

    step: str
    key: str
    outputs: dict[str, str]
    inputs: dict[str, str] = field(default_factory=dict)
    content: dict[str, str] = field(default_factory=dict)  # hashes of what went in and is no file
    settings: Any = None
    version: int = 1
    by: str = ""  # the notebook or command that makes it
    notes: dict[str, Any] = field(default_factory=dict)  # what is known of it and changes nothing: seconds, counts
    seconds: float = 0.0
    finished: str = ""


def run_step(
    step: str,
    action: Callable[[], Mapping[str, Any] | None],
    *,
    inputs: Sequence[Path] = (),
    outputs: Sequence[Path],
    settings: Mapping[str, Any],
    workspace: Path,
    content: Mapping[str, str] | None = None,
    version: int = 1,
    by: str = "",
    says: bool = True,
) -> bool:
    """Runs `action` unless its outputs exist and were made from these inputs with these settings by this version.

    Inputs and outputs are compared by content, so a changed input runs this step again and, through its outputs, what
    follows. `content` holds hashes of what goes in and is no file. Raise `version` when you change the action's code so
    that the same inputs give another result: a hash of the code would throw away hours of training for a comment. What
    the action returns is kept as the record's notes. Logs one line either way, or none if it `says` nothing; returns
    whether the action ran.

    Raises MissingResult for an input that is not there and RuntimeError if the action left an output unwritten.
    """
    for path in inputs:
        if not path.exists():
            raise MissingResult(f"step {step}: {path} is missing; run the notebook that writes it first")
    found = {place_of(path, workspace): fingerprint(path, workspace) for path in inputs}
    made_from = {"inputs": list(found.values()), "content": dict(content or {}), "settings": _plain(settings),
                 "version": version}
    key, names = hash_content(made_from), ", ".join(path.name for path in outputs)
    record, level = read_records(workspace).get(step), logging.INFO if says else logging.DEBUG
    if record and record.key == key and _stand(record, outputs, workspace):
        logger.log(level, "%s: done before, skipped (%s)", step, names)
        return False
    for torn in [torn for path in outputs for torn in path.parent.glob(f".{glob.escape(path.name)}.*")]:
        if torn.suffix[1:].isdigit():  # the number of a process that was killed while it wrote
            torn.unlink()
    started = time.monotonic()
    notes = action()
    if missing := [str(path) for path in outputs if not path.exists()]:
        raise RuntimeError(f"step {step}: expected to write {missing[0]}, which does not exist")
    seconds = round(time.monotonic() - started, 1)
    add_record(workspace, Record(
        step, key, {place_of(path, workspace): fingerprint(path) for path in outputs}, found, dict(content or {}),
        _shorten(_plain(settings)), version, by, dict(notes or {}), seconds))
    logger.log(level, "%s: %g s (%s)", step, seconds, names)
    return True


def place_of(path: Path, workspace: Path) -> str:
    """A path as records have it: below the workspace, or whole where it lies elsewhere.

    >>> place_of(Path("work/interim/boxes.parquet"), Path("work"))
    'interim/boxes.parquet'
    """
    path, root = path.resolve(), workspace.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def read_records(workspace: Path) -> dict[str, Record]:
    """The last record of each step. A line that a killed process left unfinished counts as not written."""
    path, records = workspace / LINEAGE, {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line.startswith("{") and line.endswith("}"):
                record = Record(**json.loads(line))
                records[record.step] = record
    return records


def add_record(workspace: Path, record: Record) -> None:
    """Appends a line to the lineage; it begins with a line's end, which ends one that a killed process left."""
    workspace.mkdir(parents=True, exist_ok=True)
    finished = record.finished or datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({**asdict(record), "finished": finished}, ensure_ascii=False)
    with open(workspace / LINEAGE, "ab") as file:
        file.write(f"\n{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def forget(workspace: Path, step: str) -> bool:
    """Makes the results of a step void: they count as not made, though their files stay. Returns whether any were."""
    record = read_records(workspace).get(step)
    if record is None or not record.key:
        return False
    add_record(workspace, Record(step, "", {}))
    return True


def find_record(workspace: Path, path: Path) -> Record | None:
    """The last record that has this file among its outputs."""
    place = place_of(path, workspace)
    return next((record for record in reversed(list(read_records(workspace).values())) if place in record.outputs),
                None)


def require_fresh(workspace: Path, path: Path, by: str) -> Record:
    """The record of a result that is there and still holds; `by` is the notebook or command that makes it.

    A result holds if its file is the one that was recorded, and every file that it was made from is still the same and
    holds in turn. Raises MissingResult if it was never made, StaleResult that names what has changed.
    """
    record = find_record(workspace, path)
    if record is None or not path.exists():
        raise MissingResult(f"{path}: not there yet; run {record.by if record and record.by else by} first")
    if fingerprint(path) != record.outputs[place_of(path, workspace)]:
        raise StaleResult(f"{path}: expected the one that {record.by or by} wrote, found another; run it again")
    if change := find_change(workspace, record):
        changed, maker = change
        raise StaleResult(f"{path}: made from another {changed} than the present one; run {maker or by} again")
    return record


def find_change(workspace: Path, record: Record) -> tuple[str, str] | None:
    """A file that this record, or what it rests on, was made from and that is another now, and who has to run again.

    Files that are gone say nothing: predictions may be deleted to save room, start weights lie on another machine.
    """
    makers = {place: other for other in read_records(workspace).values() for place in other.outputs}
    seen: set[str] = set()

    def search(of: Record) -> tuple[str, str] | None:
        """The first file that changed among what a record rests on, and who has to run again."""
        seen.add(of.step)
        for place, known in of.inputs.items():
            path = workspace / place  # a whole path stays what it is
            if known.startswith(FOLDER):
                continue
            if path.exists() and fingerprint(path) != known:
                return place, of.by
            maker = makers.get(place)
            if maker and maker.step not in seen and (change := search(maker)):
                return change[0], of.by or change[1]
        return None

    return search(record)


def trace(workspace: Path, places: Sequence[str]) -> list[Record]:
    """The records that led to these files, from the last step back to the raw data, each once."""
    makers = {place: record for record in read_records(workspace).values() for place in record.outputs}
    found: dict[str, Record] = {}

    def follow(wanted: Sequence[str]) -> Iterator[Record]:
        """What made these, and what made their inputs."""
        for place in wanted:
            record = makers.get(place)
            if record and record.step not in found:
                found[record.step] = record
                yield record
                yield from follow(list(record.inputs))

    return list(follow(places))


def _stand(record: Record, outputs: Sequence[Path], workspace: Path) -> bool:
    return all(path.exists() and record.outputs.get(place_of(path, workspace)) == fingerprint(path) for path in outputs)


def _plain(settings: Mapping[str, Any]) -> Any:
    """Settings as JSON gives them back (tuples become lists), so that comparison is fair."""
    return json.loads(json.dumps(settings, sort_keys=True, default=str))


def _shorten(settings: Any) -> Any:
    """Settings without long lists, such as the names of 16,000 images."""
    if isinstance(settings, dict):
        return {key: _shorten(value) for key, value in settings.items()}
    if isinstance(settings, list) and len(settings) > LONG:
        return {"n": len(settings), "sha256": hash_content(settings)}
    return settings
