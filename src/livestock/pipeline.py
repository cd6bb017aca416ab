"""The job as steps: each function reads files, writes new ones and is skipped when done. Notebooks call these."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from . import readers
from .boxes import write_table
from .config import Competition, Profile, Workspace, get_profile, read_competition
from .steps import run_step


@dataclass(frozen=True)
class Run:
    """What one pass over the notebooks is made of."""

    competition: Competition
    profile: Profile
    workspace: Workspace
    data_dir: Path
    reader: str
    seed: int


def make_run(
    *, competition: str, profile: str, workspace: str, data: str, reader: str, seed: int, weights: str | None = None
) -> Run:
    """A run from a notebook's parameters. Raises ValueError for an unknown profile, reader or competition key."""
    if reader not in readers.READERS:
        raise ValueError(f"reader: expected one of {sorted(readers.READERS)}, found {reader!r}")
    return Run(
        competition=read_competition(Path(competition)),
        profile=get_profile(profile, weights=weights),
        workspace=Workspace(Path(workspace)),
        data_dir=Path(data),
        reader=reader,
        seed=seed,
    )


@dataclass(frozen=True)
class RawTables:
    """What the readers found. `test_images` is empty where the data has no test set."""

    images: pd.DataFrame
    boxes: pd.DataFrame
    left_out: pd.DataFrame
    test_images: pd.DataFrame


def read_data(run: Run) -> RawTables:
    """Raw archives to `images`, `boxes`, `left_out` and `test_images` in `interim/`."""
    names = ["images", "boxes", "left_out", "test_images"]
    paths = [run.workspace.interim_dir / f"{name}.parquet" for name in names]

    def action() -> None:
        train, test = readers.read_train_and_test(run.reader, run.data_dir, run.competition)
        test_images = train.images.iloc[:0] if test is None else test.images
        for table, path in zip([train.images, train.boxes, train.left_out, test_images], paths, strict=True):
            write_table(table, path)

    run_step(
        "read",
        action,
        inputs=[run.data_dir],
        outputs=paths,
        settings={"reader": run.reader, "competition": asdict(run.competition)},
        workspace=run.workspace.root,
    )
    return RawTables(*(pd.read_parquet(path) for path in paths))
