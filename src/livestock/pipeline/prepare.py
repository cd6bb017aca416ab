"""What a run is made of, and the steps that turn raw archives into tables with folds."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from ..config import Competition
from ..data.readers.clean import LEFT_OUT_COLUMNS, UNKNOWN_CLASS
from ..exceptions import BadData, MissingResult
from ..files.write import write_json, write_text
from ..labels.relabel import apply_relabels, describe_relabels, read_relabels, relabels_path
from ..tables import write_table
from .reading import Examined, examine
from .run import Run
from .store import run_step

logger = logging.getLogger(__name__)

TRUTH_NAME = "truth_test.csv"  # beside the data, in the scorer's format; only ever read to score once
MISSING_COWS = 0.3  # of the sample that is drawn here: the original found that many cows had no label
POINTS_GONE = "keypoints of boxes that a correction removed or gave another class: left out"
N_WITH_KEYPOINTS = {"smoke": (80, 4), "demo": (128, 8)}  # images of a sample with keypoints: to train on, to answer
VALID_FOLD = 0  # judges what is compared, and is answered where the data has no test set


@dataclass(frozen=True)
class RawTables:
    """What the readers found, by which reader and `why` that one.

    `test_images` is empty where there is no test set, `keypoints` where the competition has no skeleton.
    """

    images: pd.DataFrame
    boxes: pd.DataFrame
    left_out: pd.DataFrame
    test_images: pd.DataFrame
    keypoints: pd.DataFrame
    reader: str = ""
    why: str = ""


def ensure_data(run: Run) -> None:
    """Draws the embedded sample where the `demo` and `smoke` profiles find no data.

    Raises BadData that says where data comes from if other profiles find none.
    """
    if run.data_dir.exists():
        return
    if run.profile.name not in ("demo", "smoke"):
        raise BadData(f"{run.data_dir}: no data there; data/README.md says where to get some, --data where it is")
    draw_whole(run.data_dir, run.profile.name if run.competition.skeleton else "")


def draw_whole(directory: Path, keypoints_for: str = "", *, is_alone: bool = False) -> None:
    """Draws a sample into a folder, whole or not at all; one with keypoints for the profile `keypoints_for`."""
    from ..sample import draw_keypoint_sample, draw_sample

    beside = directory.with_name(directory.name + ".part")  # half a sample must not be taken for one
    shutil.rmtree(beside, ignore_errors=True)
    if keypoints_for:
        n_train, n_test = N_WITH_KEYPOINTS[keypoints_for]
        draw_keypoint_sample(beside, n_train=n_train, n_test=n_test, is_alone=is_alone)
    else:
        draw_sample(beside, missing_cow_fraction=MISSING_COWS)
    beside.rename(directory)


def read_data(run: Run) -> RawTables:
    """Raw archives to `images`, `boxes`, `keypoints`, `left_out`, `test_images` and `hashes` in `interim/`.

    `reading.json` there says how they were read. Images that cannot be decoded are among what is left out. Raises
    ValueError for data that cannot be used (see `reading.examine`), without a single box, or that the workspace lies
    on top of.
    """
    ensure_data(run)
    if run.data_dir.resolve() == run.workspace.root.resolve():
        raise ValueError(f"{run.data_dir}: the data folder is the workspace too, where results would lie among the "
                         "data; name another --workspace")
    names = ["images", "boxes", "left_out", "test_images", "hashes", "keypoints"]
    paths = [run.workspace.interim_dir / f"{name}.parquet" for name in names]
    how_path = run.workspace.interim_dir / "reading.json"
    relabels = relabels_path(run.workspace)

    def action() -> None:
        """Reads the raw data, corrected by people, into the tables."""
        found = _correct(examine(run.reader, run.data_dir, run.competition, skip=[run.workspace.root]), run)
        if found.boxes.empty:
            raise BadData(_no_boxes(run.data_dir, found))
        tables = [found.images, found.boxes, found.left_out, found.test_images, found.hashes.reset_index(),
                  found.keypoints]
        for table, path in zip(tables, paths, strict=True):
            write_table(_below(run.data_dir, table) if "archive" in table else table, path)
        write_json({"reader": found.reader, "why": found.why, "pictures": len(found.pictures)}, how_path)

    run_step(
        "read",
        action,
        inputs=[run.data_dir, *([relabels] if relabels.exists() else [])],
        outputs=[*paths, how_path],
        settings={"reader": run.reader, "competition": asdict(run.competition)},
        workspace=run.workspace.root,
        version=5,  # 2: image_id is a path, every image is decoded; 3: box_id; 4: archives below data; 5: keypoints
        by="01_eda",
    )
    how = json.loads(how_path.read_text(encoding="utf-8"))
    if sentence := describe_relabels(run.workspace, pd.read_parquet(paths[0], columns=["image_id"])):
        logger.info(sentence)
    write_text(f"{run.data_dir.resolve()}\n", run.workspace.data_dir_path)  # tables say what lies where below it
    boxes, left_out, keypoints = (pd.read_parquet(paths[index]) for index in (1, 2, 5))
    return RawTables(read_images(run, "images"), boxes, left_out, read_images(run, "test_images"), keypoints,
                     how["reader"], how["why"])


def _correct(found: Examined, run: Run) -> Examined:
    """What was found with corrected labels in the place of the raw ones."""
    origin = str(relabels_path(run.workspace))
    boxes, left_out = apply_relabels(found.images, found.boxes, found.left_out, read_relabels(run.workspace),
                                     run.competition.labels, origin)
    keypoints, gone = _of_boxes(found.keypoints, found.boxes, boxes, origin)
    return found._replace(boxes=boxes, left_out=pd.concat([left_out, gone], ignore_index=True), keypoints=keypoints)


def _of_boxes(
    keypoints: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame, origin: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The keypoints of boxes that a correction left or moved, and lines of `left_out` on those of the others.

    A box that is gone or of another class has other points or none, and a correction has boxes alone.
    """
    labels = [boxes.set_index("box_id")["label"].reindex(keypoints["box_id"]) for boxes in (before, after)]
    is_kept = labels[0].to_numpy(object) == labels[1].to_numpy(object)
    gone = keypoints[~is_kept].groupby("image_id")["box_id"].nunique()
    lines = [(origin, image_id, POINTS_GONE, f"of {n_boxes} boxes") for image_id, n_boxes in gone.items()]
    return keypoints[is_kept].reset_index(drop=True), pd.DataFrame(lines, columns=LEFT_OUT_COLUMNS, dtype=str)


def _below(data_dir: Path, images: pd.DataFrame) -> pd.DataFrame:
    """The images table with archives by their place below the data folder, which may move."""
    whole = data_dir.resolve()
    places = {archive: os.path.relpath(Path(archive).resolve(), whole) for archive in images["archive"].unique()}
    return images.assign(archive=images["archive"].map(places).astype("str"))


def read_images(run: Run, name: str) -> pd.DataFrame:
    """An images table of `interim/`, its archives as they lie in this run's data folder now."""
    images = pd.read_parquet(run.workspace.interim_dir / f"{name}.parquet")
    places = {archive: str(run.data_dir / archive) for archive in images["archive"].unique()}
    return images.assign(archive=images["archive"].map(places).astype("str"))


def _no_boxes(data_dir: Path, found: Examined) -> str:
    reasons = found.left_out["reason"].value_counts()
    unknown = found.left_out.loc[found.left_out["reason"] == UNKNOWN_CLASS, "detail"].unique()
    words = "; ".join(f"{n:,} x {reason}" for reason, n in reasons.items())
    names = f"; classes that the competition's file does not know: {', '.join(unknown[:8])}" if len(unknown) else ""
    return (f"{data_dir}: no box of any class in {len(found.images):,} images, read as {found.reader}: there is "
            f"nothing to train on ({words}{names})")


def group_images(
    images: pd.DataFrame, hashes: pd.Series, competition: Competition, data_dir: Path, others: Iterable[str] = ()
) -> pd.Series:
    """The group of each image by `image_id`: near-duplicates, `group_pattern` and `groups.csv` of the data united.

    `hashes` are perceptual ones by `image_id`; `others` are images that `groups.csv` may list too.
    """
    from ..data import folds

    known, listed = [], data_dir / folds.GROUPS_NAME
    if competition.group_pattern is not None:
        known.append(caught := folds.groups_by_pattern(images["image_id"], competition.group_pattern))
        if (n_others := int(caught.isna().sum())):
            logger.warning("groups: group_pattern is not found in %s of %s images, such as %r: they go by "
                           "near-duplicates alone", f"{n_others:,}", f"{len(images):,}",
                           caught.index[caught.isna()][0])
    if listed.is_file():
        known.append(folds.read_groups(listed, [*images["image_id"], *others]))
    return folds.unite_groups(folds.near_duplicate_groups(images, hashes=hashes), known)


def find_groups(run: Run) -> pd.Series:
    """The group of each training image by `image_id`; written to `interim/groups.parquet`.

    Near-duplicates share a group, and so do images whose paths agree in the competition's `group_pattern` or that
    `groups.csv` in the data folder puts together.
    """
    from ..data import folds

    images_path, hashes_path, test_path, path = (run.workspace.interim_dir / f"{name}.parquet"
                                                 for name in ("images", "hashes", "test_images", "groups"))
    listed = run.data_dir / folds.GROUPS_NAME

    def action() -> None:
        """Assigns folds and the mini set."""
        images, hashes = pd.read_parquet(images_path), pd.read_parquet(hashes_path).set_index("image_id")["hash"]
        groups = group_images(images, hashes, run.competition, run.data_dir, pd.read_parquet(test_path)["image_id"])
        write_table(groups.reset_index(), path)

    run_step(
        "groups",
        action,
        inputs=[images_path, hashes_path, test_path, *([listed] if listed.is_file() else [])],
        outputs=[path],
        settings={"radius": folds.RADIUS, "group_pattern": run.competition.group_pattern},
        by="02_split",
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
    from ..data import folds

    groups = find_groups(run)
    names = ["images", "boxes", "groups", "folds", "mini"]
    paths = [run.workspace.interim_dir / f"{name}.parquet" for name in names]

    def action() -> None:
        """Assigns the folds, and chooses the images of the search."""
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
        version=4,  # 2: folds with every class come first; 3: archives below the data; 4: no class in fold 0 alone
        by="02_split",
    )
    images, chosen = read_images(run, "folds"), pd.read_parquet(paths[4])["image_id"]
    mini = images["image_id"].isin(chosen).set_axis(images["image_id"]).rename("mini")
    return SplitTables(images, mini)


def read_tables(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images with folds, and human boxes, as `split_data` and `read_data` left them. Names what to run if missing."""
    paths = [run.workspace.interim_dir / f"{name}.parquet" for name in ("folds", "boxes")]
    if missing := [path for path in paths if not path.exists()]:
        raise MissingResult(f"{missing[0]}: not there yet; run 01_eda and 02_split first")
    return read_images(run, "folds"), pd.read_parquet(paths[1])
