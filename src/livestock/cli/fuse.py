"""What `livestock fuse` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import typer

from ..config import Workspace
from ..pipeline.answer import images_to_answer, score_known_truth
from ..pipeline.ensemble import compare_members, write_ensemble
from ..pipeline.run import make_run


def write_fused(workspaces: Sequence[Path], out: Path) -> Path:
    """Compares finished runs and their fusion out of fold, prints a line each, and writes the answer of what is chosen.

    Raises BadData for runs of different data, MissingResult for one that has not trained.
    """
    runs = [make_run(workspace=workspace) for workspace in workspaces]
    found = compare_members(runs)
    iou = runs[0].competition.metric_iou
    typer.echo(f"mAP at IoU {iou:g} out of fold, 95 % interval over groups; gain over the first:")
    for number, member in enumerate(found.members, 1):
        typer.echo(f"  {number} is {member.name}")
    for name, row in found.table.iterrows():
        over = "" if row["fits"] else ", over the limit of weights"
        typer.echo(f"  {name}: {row['mAP']:.4f} ({row['low']:.4f} to {row['high']:.4f}), gain {row['gain']:+.4f} "
                   f"({row['gain_low']:+.4f} to {row['gain_high']:+.4f}), {row['MB']:.1f} MB{over}, "
                   f"{row['seconds']:.2g} s an image; {row['point']}")
    typer.echo(f"chosen: {found.choice.method}: {found.choice.reason}")
    path = write_ensemble(found, out)
    typer.echo(f"{path}: fit to submit")
    _, part = images_to_answer(runs[0])
    scores = score_known_truth(replace(runs[0], workspace=Workspace(out)), part) if part == "test" else None
    for row in [] if scores is None else scores.to_dict("records"):
        typer.echo(f"mAP {row['mAP']:.4f} at IoU {row['IoU']:g} on the test images, {row['scorer']} scorer")
    return path
