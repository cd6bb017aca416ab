"""Writes the images of suspects with their boxes, in a form that an annotation tool imports as it is."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ...config import Workspace
from ...data import pictures
from ...data.archives import read_bytes
from ...exceptions import BadData, MissingResult, StaleResult
from ...files.write import write_bytes, write_text
from ...geometry import clip_xyxy, largest_iou
from ...tables import BOX_COLUMNS, XYXY, make_boxes, new_box_ids
from ..missing import SUSPECT_IOU
from . import cvat, label_studio, yolo
from .changes import SAME_IOU
from .sheets import FORMATS, Sheet, sheet_name, write_manifest
from .store import current_labels, read_data_dir, read_rejected

WRITERS = {"cvat": cvat.write_sheets, "label-studio": label_studio.write_sheets, "yolo": yolo.write_sheets}
SHOWN_BY_BROWSERS = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "WEBP": ".webp"}
JPEG_QUALITY = 95


def export_suspects(workspace: Workspace, labels: list[str], format: str, *, top: int = 200, out: Path | None = None,
                    suspects_path: Path | None = None, again: bool = False) -> tuple[Path, list[Sheet]]:
    """Writes an export into a new folder; returns the folder and what it holds, the most suspicious image first.

    `top` counts suspects: the images of so many are written, each with all its human boxes and those suspects of the
    `top` that it has. `suspects_path` is `suspects.csv` or an edited copy. Suspects that people have rejected in an
    earlier import are left out, but for `again`. Raises ValueError for an unknown format, a
    folder that is not empty, a missing or broken `suspects.csv`, and pictures that are not as notebook 01 read them.
    """
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {FORMATS}, found {format!r}")
    if top < 1:
        raise ValueError(f"top: expected at least 1 suspect, found {top}")
    out = out or workspace.root / f"relabel_{format}"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: exists already; labels may have been edited there, so import them first and remove "
                         "it, or name another folder with --out")
    _check_place(out, workspace)
    images, boxes = current_labels(workspace)
    path = suspects_path or workspace.root / "suspects.csv"
    suspects = read_suspects(path, images, labels)
    is_labelled = largest_iou(suspects, boxes) >= SUSPECT_IOU  # it has got a label since
    is_rejected = largest_iou(suspects, read_rejected(workspace)) >= SAME_IOU
    suspects = suspects[~is_labelled & ~(is_rejected & (not again))]
    if suspects.empty:
        raise ValueError(f"{path}: no suspect is left to look at: {is_labelled.sum():,} have a label by now, "
                         f"{is_rejected.sum():,} were rejected before (--again takes those)")
    beside = out.with_name(f".{out.name}.part")  # half an export must not be taken for one
    shutil.rmtree(beside, ignore_errors=True)
    try:
        sheets = _write_pictures(images, boxes, suspects.head(top), beside / "images")
        WRITERS[format](sheets, labels, beside, out)
        write_text("\n".join(describe_export(format, out, labels)) + "\n", beside / "README.txt")
        write_manifest(sheets, labels, format, beside, workspace)
        if out.exists():
            out.rmdir()
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out, sheets


def _check_place(out: Path, workspace: Workspace) -> None:
    """Raises ValueError for a folder in the raw data, whose copies of images would be read as new ones."""
    if not workspace.data_dir_path.exists():
        return
    data, place = read_data_dir(workspace).resolve(), out.resolve()
    if data.is_dir() and place.is_relative_to(data) and not place.is_relative_to(workspace.root.resolve()):
        raise ValueError(f"{out}: lies in the raw data, {data}: its images would be read as new ones; name another "
                             "folder with --out")


def read_suspects(path: Path, images: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """`suspects.csv` as `05_errors` writes it, as a boxes table, the most suspicious first.

    Raises MissingResult if it is not there, and BadData naming the file, and the line of the first row that is not as
    expected: a column is missing, an image or a class unknown, corners that are no numbers, not in order or outside the
    image.
    """
    if not path.exists():
        raise MissingResult(f"{path}: not there yet; run 05_errors first")
    try:
        table = pd.read_csv(path, dtype={"image_id": str, "label": str})
    except (ValueError, OSError) as error:
        raise BadData(f"{path}: expected a CSV as 05_errors writes it, found: {error}") from error
    if missing := [name for name in ("image_id", "label", *XYXY, "confidence") if name not in table]:
        raise BadData(f"{path}: expected the column {missing[0]!r}, found {list(table)}; run 05_errors again")
    numbers = table[[*XYXY, "confidence"]].apply(pd.to_numeric, errors="coerce")
    sizes = images.set_index("image_id")[["width", "height"]].reindex(table["image_id"]).to_numpy(float)
    corners = numbers[XYXY].to_numpy(float)
    faults = [
        (np.isnan(sizes[:, 0]), "an image that is not in the data: the suspects are of other data"),
        (~table["label"].isin(labels).to_numpy(), f"a class other than {labels}"),
        (~np.isfinite(numbers.to_numpy(float)).all(axis=1), "corners or a confidence that are no numbers"),
        (~(corners[:, :2] < corners[:, 2:]).all(axis=1), "corners that are not x_min < x_max and y_min < y_max"),
        (~((corners[:, :2] >= -0.01) & (corners[:, 2:] <= sizes + 0.01)).all(axis=1), "a box outside its image"),
    ]
    for is_wrong, what in faults:
        if is_wrong.any():
            row = int(np.flatnonzero(is_wrong)[0])
            raise BadData(f"{path}: line {row + 2} ({table['image_id'].iloc[row]!r}): found {what}; run 05_errors "
                          "again, or correct the line")
    numbers[XYXY] = clip_xyxy(corners, *sizes.T)  # the file's are rounded
    table = table.assign(**numbers, source="model", box_id=_suspect_ids(table))
    return table.sort_values("confidence", ascending=False, kind="stable", ignore_index=True)[BOX_COLUMNS]


def _suspect_ids(table: pd.DataFrame) -> np.ndarray:
    """The suspects' numbers as the file has them; new ones where it has none, or a spreadsheet has rounded them."""
    given = table.get("box_id", pd.Series(dtype=object))
    if given.dtype == np.dtype("int64") and given.is_unique:
        return given.to_numpy()
    return new_box_ids(table["image_id"], "suspects")


def _write_pictures(images: pd.DataFrame, boxes: pd.DataFrame, suspects: pd.DataFrame, directory: Path
                    ) -> list[Sheet]:
    of_image = images.set_index("image_id")
    human, of_suspect = dict(list(boxes.groupby("image_id"))), dict(list(suspects.groupby("image_id")))
    sheets = []
    for rank, image_id in enumerate(suspects["image_id"].unique(), 1):
        row = of_image.loc[image_id]
        content, suffix = upright_picture(row["archive"], row["member"], (int(row["width"]), int(row["height"])))
        name = sheet_name(rank, image_id, suffix)
        write_bytes(content, directory / name, flush=False)
        own = make_boxes(human.get(image_id, boxes.iloc[:0]))
        sheets.append(Sheet(name, image_id, int(row["width"]), int(row["height"]), own, of_suspect[image_id]))
    return sheets


def upright_picture(archive: str, member: str, size: tuple[int, int]) -> tuple[bytes, str]:
    """A picture's file whose pixels stand as they are shown, and the suffix for it.

    Tools differ in whether they turn a picture as its EXIF says. One that is turned is written again without EXIF, and
    so is one of a format that browsers do not show (TIFF, as PNG); all others keep their bytes. `size` is width and
    height in pixels as notebook 01 read them. Raises StaleResult naming the picture if it is another now,
    and BadData if it cannot be decoded.
    """
    content = read_bytes(archive, member)
    try:
        found = pictures.measure(io.BytesIO(content))
        with Image.open(io.BytesIO(content), formats=pictures.FORMATS) as image:
            kind = str(image.format)
            is_turned = image.getexif().get(pictures.ORIENTATION, 1) in pictures.TURNS
        if found != size:
            raise StaleResult(f"expected {size[0]} x {size[1]} px as 01_eda read it, found {found[0]} x {found[1]}; "
                              "run 01 to 05 again")
        if not is_turned and kind in SHOWN_BY_BROWSERS:
            return content, SHOWN_BY_BROWSERS[kind]
        target, written = ("JPEG" if kind == "JPEG" else "PNG"), io.BytesIO()
        shown = Image.fromarray(pictures.decode(io.BytesIO(content)))
        shown.save(written, target, quality=JPEG_QUALITY, subsampling=0)
        return written.getvalue(), SHOWN_BY_BROWSERS[target]
    except pictures.ERRORS as error:
        refusal = StaleResult if isinstance(error, StaleResult) else BadData
        raise refusal(f"{archive}: {member}: cannot be exported: {error}") from error


def describe_export(format: str, out: Path, labels: list[str]) -> list[str]:
    """What to do with an export in its tool, in lines to print."""
    lines = {"cvat": cvat.HOW_TO, "label-studio": label_studio.HOW_TO, "yolo": yolo.HOW_TO}[format]
    return [line.format(out=out.resolve(), name=out.name, labels=", ".join(labels)) for line in lines]
