"""Labels that people corrected, kept beside the raw ones, which are never written; and how reading applies them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ...config import Workspace
from ...data.readers.clean import EMPTY
from ...exceptions import BadData, MissingResult
from ...files.hashing import fingerprint
from ...files.write import write_text
from ...tables import BOX_COLUMNS, BOX_DTYPES, XYXY, check_boxes, make_boxes, new_box_ids, write_table

CORRECTED = "labels corrected by hand: those are used"
NOT_IN_DATA = "corrected labels of an image that is not in the data: not used"


def relabels_path(workspace: Workspace) -> Path:
    """Where corrected labels lie: a boxes table with all boxes of each corrected image.

    An image from which all boxes were removed has one row with an empty label and without corners.
    """
    return workspace.root / "relabels.parquet"


def log_path(workspace: Workspace) -> Path:
    """Where it says what each import changed: JSON, one line an import."""
    return workspace.root / "relabels.jsonl"


def read_relabels(workspace: Workspace) -> pd.DataFrame:
    """The corrected labels as `relabels_path` describes them; an empty table where there are none.

    Raises BadData naming the file if it is not what `write_relabels` wrote.
    """
    path = relabels_path(workspace)
    if not path.exists():
        return make_boxes([])
    try:
        table = pd.read_parquet(path)
        if "box_id" not in table:  # of a time when boxes had none
            table["box_id"] = new_box_ids(table["image_id"], "relabels")
        return table[BOX_COLUMNS].astype(BOX_DTYPES)
    except (ValueError, KeyError, OSError) as error:
        raise BadData(f"{path}: expected corrected labels as `livestock relabel import` writes them, found: "
                      f"{error}; restore the file, or delete it to go back to the raw labels") from error


def relabels_tag(workspace: Workspace) -> str:
    """Six digits that stand for the corrected labels; empty where there are none."""
    path = relabels_path(workspace)
    return fingerprint(path).rpartition(":")[2][:6] if path.exists() else ""


def write_relabels(workspace: Workspace, image_ids: list[str], boxes: pd.DataFrame) -> None:
    """Stores the labels of these images in the place of earlier corrections of them; other images stay as they are.

    `boxes` is a boxes table of all their boxes; an image without a row there has none any more.
    """
    earlier = read_relabels(workspace)
    without = sorted(set(image_ids) - set(boxes["image_id"]))
    empty = pd.DataFrame({"image_id": without, "label": "", **dict.fromkeys(XYXY, float("nan"))})
    kept = earlier[~earlier["image_id"].isin(image_ids)]
    write_table(_concat_boxes(kept, boxes[BOX_COLUMNS], make_boxes(empty, "no box")), relabels_path(workspace))


def log_import(workspace: Workspace, record: Mapping[str, Any]) -> None:
    """Adds a line to the log of imports."""
    path = log_path(workspace)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    write_text(before + json.dumps(record, ensure_ascii=False) + "\n", path)


def read_rejected(workspace: Workspace) -> pd.DataFrame:
    """The suspects that people did not take as labels when they looked at them: a boxes table."""
    path = log_path(workspace)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [row for line in lines for row in json.loads(line)["rejected"]]
    return make_boxes(pd.DataFrame(rows, columns=["image_id", "label", *XYXY]).assign(source="model"), "rejected")


def apply_relabels(
    images: pd.DataFrame, boxes: pd.DataFrame, left_out: pd.DataFrame, relabels: pd.DataFrame, labels: list[str],
    origin: str = "relabels",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The boxes that a reader found, corrected labels in the place of the raw ones, and its report.

    `relabels` as `read_relabels` gives it, `labels` the competition's. The report gains a line for each corrected
    image, and for each that is not among `images`. Raises BadData naming `origin` and the row for labels that are
    not the competition's or boxes that do not fit their image.
    """
    if relabels.empty:
        return boxes, left_out
    corrected = set(relabels["image_id"])
    known = corrected & set(images["image_id"])
    new = relabels[relabels["image_id"].isin(known) & (relabels["label"] != "")].reset_index(drop=True)
    check_boxes(new, images, labels, origin)
    n_before = boxes[boxes["image_id"].isin(known)].groupby("image_id").size()
    n_after = new.groupby("image_id").size()
    boxes = _concat_boxes(boxes[~boxes["image_id"].isin(known)], new)
    lines = [(origin, name, CORRECTED, f"boxes: {n_after.get(name, 0)} in place of {n_before.get(name, 0)}")
             for name in sorted(known)]
    lines += [(origin, name, EMPTY, "") for name in sorted(known - set(new["image_id"]))]
    lines += [(origin, name, NOT_IN_DATA, "") for name in sorted(corrected - known)]
    no_more = (left_out["reason"] == EMPTY) & left_out["image_id"].isin(known)
    report = pd.concat([left_out[~no_more], pd.DataFrame(lines, columns=left_out.columns, dtype=str)])
    return boxes, report.sort_values(["file", "image_id", "reason"], kind="stable", ignore_index=True)


def _concat_boxes(*tables: pd.DataFrame) -> pd.DataFrame:
    return make_boxes(pd.concat([make_boxes(table) for table in tables if len(table)] or [tables[0]]))


def read_data_dir(workspace: Workspace) -> Path:
    """Where the raw data lay when it was last read; the present folder where nothing says so."""
    path = workspace.data_dir_path
    return Path(path.read_text(encoding="utf-8").strip()) if path.exists() else Path()


def current_labels(workspace: Workspace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The images and the human boxes as they are now: as 01_eda read them, and what was imported since.

    Raises MissingResult that says what to run if 01_eda has not read anything yet.
    """
    paths = [workspace.interim_dir / f"{name}.parquet" for name in ("images", "boxes")]
    if missing := [path for path in paths if not path.exists()]:
        raise MissingResult(f"{missing[0]}: not there yet; run 01_eda first, or say with --workspace where it wrote")
    images, boxes = (pd.read_parquet(path) for path in paths)
    data_dir = read_data_dir(workspace)
    images = images.assign(archive=[str(data_dir / archive) for archive in images["archive"]])
    relabels = read_relabels(workspace)
    relabels = relabels[relabels["image_id"].isin(images["image_id"])]
    new = relabels[relabels["label"] != ""]
    return images, _concat_boxes(boxes[~boxes["image_id"].isin(relabels["image_id"])], new)


def describe_relabels(workspace: Workspace, images: pd.DataFrame) -> str:
    """The sentence on how many of `images` have corrected labels; empty where there are no corrections."""
    corrected = set(read_relabels(workspace)["image_id"])
    if not corrected:
        return ""
    n_used = len(corrected & set(images["image_id"]))
    text = f"labels of {n_used:,} of {len(images):,} images were corrected by hand and replace the raw ones"
    if n_used < len(corrected):
        text += f"; {len(corrected) - n_used:,} corrected images are not in this data and are not used"
    return f"{text} ({relabels_path(workspace)}; delete it to go back)"
