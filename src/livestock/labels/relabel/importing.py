"""Reads what comes back from an annotation tool as human labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...config import Competition, Workspace
from ...data.readers.values import short
from ...exceptions import BadData
from ...files.hashing import fingerprint
from ...geometry import clip_xyxy
from ...tables import XYXY, make_boxes
from . import cvat, label_studio, yolo
from .changes import SAME_PX, compare_labels, find_same, merge_labels
from .entries import HUMAN, Entry, Returned, ReturnedBox, Source
from .sheets import MANIFEST, Exported, boxes_sha256, find_exported, read_manifests
from .store import current_labels, log_import, write_relabels

SHOWN = 20  # faults of a file that are listed
SUSPECT_KINDS = ["accepted", "rejected", "undecided"]


@dataclass(frozen=True)
class Imported:
    """What an import found: the new labels of its images, and every box that changed (see `changes.compare_labels`).

    `before` and `after` are boxes tables of the images in `image_ids`; `suspects` counts suspects by what became of
    them, `rejected` is a boxes table of those that are not there any more; `unreviewed` are images that the file names
    and that nobody has looked at; `stale` are those whose labels changed between export and import.
    """

    format: str
    image_ids: list[str]
    before: pd.DataFrame
    after: pd.DataFrame
    changes: pd.DataFrame
    suspects: dict[str, int]
    rejected: pd.DataFrame
    unreviewed: list[str]
    stale: list[str]
    notes: list[str]

    @property
    def changed_ids(self) -> list[str]:
        """The images in which a box changed."""
        return sorted(self.changes.loc[self.changes["kind"] != "unchanged", "image_id"].unique())

    @property
    def emptied(self) -> pd.Series:
        """The images that lost all their boxes, with how many they had."""
        lost = self.before[~self.before["image_id"].isin(self.after["image_id"])]
        return lost.groupby("image_id").size()


def import_labels(path: Path, workspace: Workspace, competition: Competition, *, accept_suspects: bool | None = None,
                  dry_run: bool = False, exported: Path | None = None) -> Imported:
    """Reads a file, a zip or a folder from CVAT, Label Studio or a YOLO tool, and stores its labels in the workspace.

    Nothing is stored with `dry_run`, or if anything in the file is at fault; images that are not in it stay as they
    are. `exported` is the export's folder, for where neither the workspace nor `path` has its manifest.
    `accept_suspects` says whether a suspect that came back as it was is a label. By default it is one in Label Studio's
    files, whose tasks are submitted one by one, and none in others, where nothing shows that it was looked at.

    Raises BadData that lists what is at fault, by file and entry: an image that was not exported, or occurs twice,
    or has another size now; a class that is not the competition's; a box whose corners are no numbers or not in order.
    """
    if exported is not None and not (exported / MANIFEST).is_file():
        raise BadData(f"{exported}: expected an export's folder with {MANIFEST}, found none")
    known = read_manifests(workspace, exported or path)
    source = Source(path)
    format, read = find_format(source)
    returned = read(source)
    found, exported_of = _resolve(returned, known, competition, f"import {fingerprint(path)}")
    _raise_faults(path, returned.faults)
    if accept_suspects is None:
        accept_suspects = format == "label-studio"
    image_ids = sorted(exported_of)
    images, labels = current_labels(workspace)
    if gone := sorted(set(image_ids) - set(images["image_id"])):
        raise BadData(f"{path}: nothing was imported: {len(gone)} of its images are not in the data any more, such "
                      f"as {gone[0]!r}")
    before = labels[labels["image_id"].isin(image_ids)].reset_index(drop=True)
    answered = _find_answered(exported_of, found, format)
    after, rejected, counts = _decide_suspects(found, before, _suspects_of(answered.values()), _suspects_of(
        export for newest in exported_of.values() for export in newest.exports), accept_suspects)
    changes = compare_labels(before, after)
    imported = Imported(format, image_ids, before, merge_labels(before, after, changes), changes, counts, rejected,
                        sorted(set(returned.unreviewed)), _find_stale(before, answered), returned.notes)
    if not dry_run:
        store_import(imported, path, workspace)
    return imported


def _raise_faults(path: Path, faults: Sequence[str]) -> None:
    if faults:
        more = f"\n... and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise BadData(f"{path}: nothing was imported: {len(faults)} faults\n"
                      + "\n".join(f"- {fault}" for fault in faults[:SHOWN]) + more)


def _find_answered(exported_of: dict[str, Exported], found: pd.DataFrame, format: str) -> dict[str, Exported]:
    """The export that each image comes back from, by `image_id`: its suspects are those that a person has seen.

    It is that of the folder that was named, or one of the file's own format, and of several the one most of whose
    suspects are still as they were, the last one if that is equal.
    """
    of_image = dict(list(found.groupby("image_id")))
    answered = {}
    for image_id, newest in exported_of.items():
        own = [export for export in newest.exports if export.format == format] or newest.exports
        boxes = of_image.get(image_id, found.iloc[:0])
        answered[image_id] = newest if newest.is_named else max(
            own, key=lambda export: find_same(export.suspects, boxes).sum() / max(len(export.suspects), 1))
    return answered


def _suspects_of(exports: Iterable[Exported]) -> pd.DataFrame:
    return make_boxes(pd.concat([make_boxes([]), *(export.suspects for export in exports)]))


def _find_stale(before: pd.DataFrame, answered: dict[str, Exported]) -> list[str]:
    """The images whose labels are others now than those that were exported."""
    of_image = dict(list(before.groupby("image_id")))
    return [name for name, export in sorted(answered.items())
            if boxes_sha256(of_image.get(name, before.iloc[:0])) != export.human_sha256]


def find_format(source: Source) -> tuple[str, Callable[[Source], Returned]]:
    """The format of a file by what is in it, and its reader. Raises BadData that says what was looked for."""
    if source.with_suffix(".xml") and not source.named("labelling_config.xml"):
        return "cvat", cvat.read_returned
    if label_studio.task_files(source):
        return "label-studio", label_studio.read_returned
    if source.with_suffix(".txt"):
        return ("label-studio" if source.named("notes.json") else "yolo"), yolo.read_returned
    raise BadData(f"{source.path}: expected labels from an annotation tool, found none: an XML of CVAT (\"CVAT for "
                  "images 1.1\"), a JSON of Label Studio, or YOLO's text files; also in a zip or a folder")


def _resolve(returned: Returned, known: dict[str, Exported], competition: Competition, file: str
             ) -> tuple[pd.DataFrame, dict[str, Exported]]:
    """A boxes table with the column `origin` of all entries, and what was exported of each image by `image_id`.

    `file` stands for the file's content: boxes that it adds have other numbers than those of earlier files. What is at
    fault goes to `returned.faults`, what is changed or left out to `returned.notes`.
    """
    rows: list[dict[str, Any]] = []
    exported_of: dict[str, Exported] = {}
    places: dict[str, str] = {}
    for entry in returned.entries:
        exported = find_exported(entry.name, known)
        if exported is None:
            returned.faults.append(f"{entry.where}: an image that was not exported from this workspace")
        elif exported.image_id in places:
            returned.faults.append(f"{entry.where}: the image {exported.image_id!r} a second time, after "
                                   f"{places[exported.image_id]}")
        elif entry.size is not None and entry.size != (exported.width, exported.height):
            returned.faults.append(f"{entry.where}: expected a picture of {exported.width} x {exported.height} px, as "
                                   f"exported, found {entry.size[0]:g} x {entry.size[1]:g}")
        else:
            places[exported.image_id] = entry.where
            exported_of[exported.image_id] = exported
            rows += [row for box in entry.boxes
                     if (row := _resolve_box(box, entry, exported, competition, returned)) is not None]
    for name in returned.unreviewed:
        if find_exported(name, known) is None:
            returned.notes.append(f"{name}: an image that was not exported from this workspace")
    table = make_boxes(pd.DataFrame(rows, columns=["image_id", "label", *XYXY]), file)
    return table.assign(origin=[row["origin"] for row in sorted(rows, key=lambda row: row["image_id"])]), exported_of


def _resolve_box(box: ReturnedBox, entry: Entry, exported: Exported, competition: Competition, returned: Returned
                 ) -> dict[str, Any] | None:
    """A row of a boxes table, clipped to the image, or None for a box without area there or at fault."""
    scale = np.array([exported.width, exported.height] * 2) if entry.is_relative else 1.0
    corners = np.array(box.corners, float) * scale
    if (label := competition.label_of(box.label)) is None:
        returned.faults.append(f"{box.where}: class {short(box.label)}: expected one of {competition.labels}")
        return None
    if not np.isfinite(corners).all() or (corners[:2] > corners[2:]).any():
        returned.faults.append(f"{box.where}: expected corners in order, found {corners.round(2).tolist()} px")
        return None
    clipped = clip_xyxy(corners[None], exported.width, exported.height)[0]
    if (clipped[:2] >= clipped[2:]).any():
        returned.notes.append(f"{box.where}: no area inside the image ({corners.round(2).tolist()} px): left out")
        return None
    if np.abs(clipped - corners).max() > SAME_PX:
        returned.notes.append(f"{box.where}: partly outside the image ({corners.round(2).tolist()} px): clipped")
    return {"image_id": exported.image_id, "label": label, "origin": box.origin,
            **dict(zip(XYXY, clipped.tolist(), strict=True))}


def _decide_suspects(found: pd.DataFrame, before: pd.DataFrame, suspects: pd.DataFrame, ever: pd.DataFrame,
                     accept: bool) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """The boxes that are labels, the suspects that were rejected, and how many of each of `SUSPECT_KINDS` there are.

    A suspect that came back as it was, and that nobody marked as human, is a label only with `accept`; one that was
    moved or given another class was accepted by that; one that is not there any more was rejected. `ever` are the
    suspects of all exports: one that stands as any of them had it was not touched, whichever export it is from.
    """
    untouched = find_same(found, ever) & ~find_same(found, before)
    undecided = untouched & (found["origin"] != HUMAN).to_numpy() & (not accept)
    fate = compare_labels(suspects, found)
    rejected = suspects.iloc[sorted(fate.loc[fate["kind"] == "removed", "before"])]
    kept = fate.loc[(fate["before"] >= 0) & (fate["after"] >= 0), "after"].to_numpy(int)
    counts = dict(zip(SUSPECT_KINDS, (int((~undecided[kept]).sum()), len(rejected), int(undecided.sum())), strict=True))
    return found[~undecided].drop(columns="origin").reset_index(drop=True), rejected, counts


def store_import(imported: Imported, path: Path, workspace: Workspace) -> None:
    """Writes the labels of the images that changed, and a line in the log."""
    if changed := imported.changed_ids:
        write_relabels(workspace, changed, imported.after[imported.after["image_id"].isin(changed)])
    kinds = imported.changes["kind"].value_counts()
    log_import(workspace, {
        "file": str(path), "sha256": fingerprint(path), "format": imported.format,
        "imported": datetime.now(UTC).isoformat(timespec="seconds"), "images": len(imported.image_ids),
        "changed": imported.changed_ids, "emptied": sorted(imported.emptied.index),
        "boxes": {str(kind): int(n) for kind, n in kinds.items()}, "suspects": imported.suspects,
        "unreviewed": len(imported.unreviewed),
        "rejected": imported.rejected[["image_id", "label", *XYXY]].to_numpy().tolist(),
    })
