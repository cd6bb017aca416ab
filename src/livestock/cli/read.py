"""What `livestock read` prints: what lies in a data folder, and what would be left out or changed and why."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import typer

from ..config import Competition, Skeleton
from ..data.readers.clean import KEPT
from ..data.readers.tree import part_of
from ..files.write import write_bytes
from ..pipeline.reading import Examined, examine
from ..tables import write_table

N_SHOWN = 4  # images in the picture
N_EXAMPLES = 3  # lines of a reason that are printed


def print_reading(path: Path, reader: str, competition: Competition, out: Path | None, picture: Path) -> bool:
    """Reads and prints; whether every picture file found a decision: it is used, or a line says why not.

    With `out` writes `images.parquet` (test images have their path in the part `test`), `boxes.parquet`,
    `keypoints.parquet` and `left_out.csv` there; four images with their boxes and keypoints go to `picture`. Where the
    data have keypoints and the competition no skeleton, prints one to paste. Raises ValueError for data that is
    refused, and if any of this would be written into the data.
    """
    for target in (out, picture):
        if target is not None and path.is_dir() and target.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"{target}: lies in the data {path}, where it would be read as data; name another place")
    found = examine(reader, path, competition)
    typer.echo(f"{path}: read as {found.reader}, {found.why}")
    typer.echo(_counts(found, competition.labels).to_string())
    typer.echo(f"image sizes: {_sizes(found)}")
    _print_points(found, competition.skeleton)
    _print_left_out(found.left_out)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_table(pd.concat([found.images, found.test_images], ignore_index=True), out / "images.parquet")
        write_table(found.boxes, out / "boxes.parquet")
        write_table(found.keypoints, out / "keypoints.parquet")
        write_bytes(found.left_out.to_csv(index=False).encode(), out / "left_out.csv")
        typer.echo(f"tables: {out / 'images.parquet'}, boxes.parquet, keypoints.parquet and left_out.csv beside it")
    if len(found.boxes):
        _draw(found, competition, picture)
        typer.echo(f"{min(N_SHOWN, len(found.images))} images with their boxes: {picture}")
    else:
        typer.echo("no box of any class: nothing could be trained on this")
    decided = {*found.images["image_id"], *found.test_images["image_id"], *found.left_out["image_id"]}
    if undecided := [image_id for image_id in found.pictures if image_id not in decided]:
        typer.echo(f"{len(undecided):,} picture files are neither used nor listed, such as {_one_line(undecided[0])}: "
                   "a fault of this program; please report it with the folder's layout")
    return not undecided and len(found.boxes) > 0


def _counts(found: Examined, labels: list[str]) -> pd.DataFrame:
    """Images, images without a box and boxes of each class: a row a part."""
    images = found.images.assign(part=found.images["image_id"].map(part_of).replace("", "train"))
    boxes = pd.crosstab(found.boxes["image_id"], found.boxes["label"]).reindex(columns=labels, fill_value=0)
    table = images.set_index("image_id")[["part"]].join(boxes).fillna(0)
    rows = table.groupby("part")[labels].sum().astype(int).add_suffix(" boxes")
    rows.insert(0, "images", images["part"].value_counts())
    rows.insert(1, "without box", (table[labels].sum(axis=1) == 0).groupby(table["part"]).sum())
    if len(found.test_images):
        rows.loc["test, to be answered", "images"] = len(found.test_images)
    return rows.rename_axis(None).astype("Int64").astype(object).where(lambda cells: cells.notna(), "-")


def _print_points(found: Examined, skeleton: Skeleton | None) -> None:
    """How many of each keypoint are seen, hidden and not labelled; without a skeleton the one that the data suggest."""
    if skeleton is not None:
        typer.echo(f"keypoints:\n{count_points(found.boxes, found.keypoints, skeleton).to_string()}")
    elif found.suggestion:
        typer.echo("the data have keypoints and the competition's file has no skeleton; one to begin with, without "
                   f"sigmas, to be read through before it is used:\n{found.suggestion}")


def count_points(boxes: pd.DataFrame, keypoints: pd.DataFrame, skeleton: Skeleton) -> pd.DataFrame:
    """How many keypoints are `seen`, `hidden` and `not labelled`: a row a class and point, in the skeleton's order."""
    rows = pd.MultiIndex.from_tuples([(label, name) for label in skeleton.labels for name in skeleton.names(label)])
    labels = boxes.set_index("box_id")["label"].reindex(keypoints["box_id"]).to_numpy(object)
    counts = keypoints.assign(label=labels).groupby(["label", "keypoint", "visible"]).size().unstack()
    columns = {2: "seen", 1: "hidden", 0: "not labelled"}
    counts = counts.reindex(index=rows, columns=list(columns)).fillna(0).astype(int)
    return counts.set_axis(list(columns.values()), axis=1)


def _sizes(found: Examined) -> str:
    sizes = pd.concat([found.images, found.test_images])[["width", "height"]].value_counts()
    first = ", ".join(f"{width} x {height} ({n:,})" for (width, height), n in sizes.head(5).items())
    return first + (f" and {len(sizes) - 5} others" if len(sizes) > 5 else "")


def _print_left_out(left_out: pd.DataFrame) -> None:
    if left_out.empty:
        typer.echo("nothing was left out or changed")
        return
    typer.echo("left out or changed:")
    for reason, lines in sorted(left_out.groupby("reason"), key=lambda group: (group[0] in KEPT, -len(group[1]))):
        typer.echo(f"{len(lines):7,} x {reason}")
        for row in lines.head(N_EXAMPLES).itertuples():
            detail = f": {row.detail}" if row.detail else ""
            typer.echo(f"            {_one_line(row.file)}{_one_line(detail)}")
        if len(lines) > N_EXAMPLES:
            typer.echo(f"            and {len(lines) - N_EXAMPLES:,} more")


def _one_line(text: str) -> str:
    """A file's name may hold line breaks and what moves a terminal's cursor."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "?", text)[:200]


def _draw(found: Examined, competition: Competition, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from ..plots import choose_images, plot_images, use_style

    use_style()
    labels = competition.labels
    shown = choose_images(found.images, found.boxes, labels, N_SHOWN, np.random.default_rng(0))
    plot_images(shown, found.boxes, labels, keypoints=found.keypoints, skeleton=competition.skeleton)
    path.parent.mkdir(parents=True, exist_ok=True)
    pyplot.savefig(path, dpi=110, bbox_inches="tight")
    pyplot.close("all")
