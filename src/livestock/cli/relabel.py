"""`livestock relabel`: labels out to an annotation tool and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Takes suspects to an annotation tool, and corrected labels back.", no_args_is_help=True)


@app.command("export")
def export_command(
    format: Annotated[str, typer.Option(help="the tool: cvat, label-studio or yolo")],
    top: Annotated[int, typer.Option(help="how many of the most suspicious boxes, with the images they are in")] = 200,
    workspace: Annotated[Path, typer.Option(help="where the run wrote")] = Path("data"),
    out: Annotated[Path | None, typer.Option(help="a new folder; default: relabel_FORMAT in the workspace")] = None,
    suspects: Annotated[Path | None, typer.Option(help="an edited copy of suspects.csv")] = None,
    again: Annotated[bool, typer.Option("--again", help="also suspects that were rejected in an import")] = False,
    competition: Annotated[Path, typer.Option(help="classes")] = Path("competition.yaml"),
) -> None:
    """Writes images with human boxes and suspects as pre-annotations, for CVAT, Label Studio or a YOLO tool."""
    from ..config import Workspace, read_competition
    from ..labels.relabel import describe_export, export_suspects

    labels = read_competition(competition).labels
    folder, sheets = export_suspects(
        Workspace(workspace), labels, format, top=top, out=out, suspects_path=suspects, again=again
    )
    n_human, n_suspects = sum(len(sheet.human) for sheet in sheets), sum(len(sheet.suspects) for sheet in sheets)
    typer.echo(f"{folder}: {len(sheets):,} images with {n_human:,} human boxes and {n_suspects:,} suspects")
    typer.echo("\n".join(describe_export(format, folder, labels)))


@app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="what the tool exported: an XML, a JSON, a zip or a folder")],
    workspace: Annotated[Path, typer.Option(help="the one that was exported from")] = Path("data"),
    competition: Annotated[Path, typer.Option(help="classes")] = Path("competition.yaml"),
    exported: Annotated[Path | None, typer.Option(help="the export's folder, if it is not in the workspace")] = None,
    accept_suspects: Annotated[
        bool | None,
        typer.Option(help="whether suspects that came back untouched are labels; default: only from Label Studio"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would change, store nothing")] = False,
) -> None:
    """Reads corrected labels back, shows what changed, and stores them beside the raw ones, which stay as they are."""
    from ..config import Workspace, read_competition
    from ..labels.relabel import describe_import, import_labels

    asked = read_competition(competition)
    imported = import_labels(
        file, Workspace(workspace), asked, accept_suspects=accept_suspects, dry_run=dry_run, exported=exported
    )
    typer.echo("\n".join(describe_import(imported, Workspace(workspace), asked.labels, dry_run=dry_run)))
