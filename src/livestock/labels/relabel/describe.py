"""What an import changed, in words."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ...config import Workspace
from .changes import count_changes
from .importing import SHOWN, Imported
from .store import read_relabels, relabels_path


def describe_import(imported: Imported, workspace: Workspace, labels: Sequence[str], *, dry_run: bool = False
                    ) -> list[str]:
    """What an import changed, in lines to print: by class, what was lost, left out or undecided, what to run next."""
    lines = [*_shorten(imported.notes), count_changes(imported.changes, list(labels)).to_string()]
    lines += _describe_class_changes(imported.changes)
    n_same = len(imported.image_ids) - len(imported.changed_ids)
    lines.append(f"{len(imported.image_ids):,} images in the file: {len(imported.changed_ids):,} changed, {n_same:,} "
                 "as they were")
    if imported.unreviewed:
        lines.append(f"{len(imported.unreviewed):,} images were not reviewed and stay as they were")
    if sum(imported.suspects.values()):
        lines.append("suspects: " + ", ".join(f"{n:,} {kind}" for kind, n in imported.suspects.items()))
    if imported.suspects["undecided"]:
        lines.append(f"{imported.suspects['undecided']:,} suspects came back as they were and are no labels; if you "
                     "deleted the wrong ones and the rest is right, import again with --accept-suspects")
    if len(imported.emptied):
        lost = [f"{name} ({n} boxes)" for name, n in imported.emptied.items()]
        lines.append(f"WARNING: images without any box from now on: {len(lost):,}: " + ", ".join(lost[:SHOWN])
                     + (" ..." if len(lost) > SHOWN else ""))
    if imported.stale:
        lines.append(f"WARNING: the labels of {len(imported.stale):,} images changed after the export, such as "
                     f"{imported.stale[0]!r}; those in the file replace them")
    return lines + _describe_next(imported, workspace, dry_run)


def _describe_class_changes(changes: pd.DataFrame) -> list[str]:
    own = changes[changes["kind"] == "class changed"]
    return [f"{before} -> {after}: {n:,} boxes" for (before, after), n in
            own.groupby(["label_before", "label_after"]).size().items()]


def _describe_next(imported: Imported, workspace: Workspace, dry_run: bool) -> list[str]:
    if not imported.changed_ids:
        return ["no label changed: nothing to run again"]
    if dry_run:
        return ["nothing was stored (--dry-run)"]
    n_corrected = read_relabels(workspace)["image_id"].nunique()
    return [
        f"stored in {relabels_path(workspace)}: corrected labels of {n_corrected:,} images; the raw ones are untouched",
        "next: run 01 to 08 again, or `livestock run` with the same options. What rests on labels runs again: the "
        "split, trainings, errors, silver labels, the answer. Images at training size and near-duplicate groups stay.",
        "03_evolve begins a new study, for trials with other labels do not compare; --skip 03_evolve leaves it out.",
    ]


def _shorten(notes: Sequence[str]) -> list[str]:
    more = [f"... and {len(notes) - SHOWN:,} more"] if len(notes) > SHOWN else []
    return [*notes[:SHOWN], *more]


