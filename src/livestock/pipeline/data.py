"""What a run is made of, and the steps that turn raw archives into tables with folds."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from .. import readers
from ..boxes import write_table
from ..config import Competition, Profile, Workspace, get_profile, read_competition
from ..steps import run_step

TRUTH_NAME = "truth_test.csv"  # beside the data, in the scorer's format; only ever read to score once
MISSING_COWS = 0.3  # of the sample that is drawn here: the original found that many cows had no label
VALID_FOLD = 0  # judges what is compared, and is answered where the data has no test set


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
    *, competition: str, profile: str, workspace: str, data: str, reader: str, seed: int, weights: str = ""
) -> Run:
    """A run from a notebook's parameters. Raises ValueError for an unknown profile, reader or competition key."""
    if reader not in readers.READERS:
        raise ValueError(f"reader: expected one of {sorted(readers.READERS)}, found {reader!r}")
    return Run(
        competition=read_competition(Path(competition)),
        profile=get_profile(profile, weights=weights or None),
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


def ensure_data(run: Run) -> None:
    """Draws the embedded sample where the `demo` and `smoke` profiles find no data.

    Raises ValueError that says where data comes from if other profiles find none.
    """
    if run.data_dir.exists():
        return
    if run.profile.name not in ("demo", "smoke"):
        raise ValueError(f"{run.data_dir}: no data there; data/README.md says where to get some, --data where it is")
    from ..sample import draw_sample

    beside = run.data_dir.with_name(run.data_dir.name + ".part")  # half a sample must not be taken for one
    shutil.rmtree(beside, ignore_errors=True)
    draw_sample(beside, missing_cow_fraction=MISSING_COWS)
    beside.rename(run.data_dir)


def read_data(run: Run) -> RawTables:
    """Raw archives to `images`, `boxes`, `left_out` and `test_images` in `interim/`."""
    ensure_data(run)
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


def find_groups(run: Run) -> pd.Series:
    """The near-duplicate group of each training image by `image_id`; written to `interim/groups.parquet`."""
    from .. import folds

    images_path, path = (run.workspace.interim_dir / f"{name}.parquet" for name in ("images", "groups"))

    def action() -> None:
        write_table(folds.near_duplicate_groups(pd.read_parquet(images_path)).reset_index(), path)

    run_step(
        "groups",
        action,
        inputs=[run.data_dir, images_path],
        outputs=[path],
        settings={"radius": folds.RADIUS},
        workspace=run.workspace.root,
    )
    return pd.read_parquet(path).set_index("image_id")["group"]


@dataclass(frozen=True)
class SplitTables:
    """`images` with `group` and `fold`; `mini`: whether an image is in the mini set, by `image_id`."""

    images: pd.DataFrame
    mini: pd.Series


def split_data(run: Run) -> SplitTables:
    """Folds to `interim/folds.parquet`, the images table; the mini set's ids to `interim/mini.parquet`.

    The mini set is half of every fold: its training part is what lies outside the validation fold.
    """
    from .. import folds

    groups = find_groups(run)
    names = ["images", "boxes", "groups", "folds", "mini"]
    paths = [run.workspace.interim_dir / f"{name}.parquet" for name in names]

    def action() -> None:
        images, boxes = pd.read_parquet(paths[0]), pd.read_parquet(paths[1])
        images = folds.assign_folds(images, boxes, run.competition, groups=groups, seed=run.seed)
        mini = folds.mini_set(images, boxes, run.competition, seed=run.seed)
        write_table(images, paths[3])
        write_table(images.loc[mini.to_numpy(), ["image_id"]], paths[4])

    run_step(
        "split",
        action,
        inputs=paths[:3],
        outputs=paths[3:],
        settings={"seed": run.seed, "competition": asdict(run.competition)},
        workspace=run.workspace.root,
    )
    images, chosen = pd.read_parquet(paths[3]), pd.read_parquet(paths[4])["image_id"]
    mini = images["image_id"].isin(chosen).set_axis(images["image_id"]).rename("mini")
    return SplitTables(images, mini)


def read_tables(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images with folds, and human boxes, as `split_data` and `read_data` left them. Names what to run if missing."""
    paths = [run.workspace.interim_dir / f"{name}.parquet" for name in ("folds", "boxes")]
    if missing := [path for path in paths if not path.exists()]:
        raise ValueError(f"{missing[0]}: not there yet; run 01_eda and 02_split first")
    images, boxes = (pd.read_parquet(path) for path in paths)
    return images, boxes
