"""What `livestock check` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import typer

from ..config import read_competition
from ..data.archives import IMAGE_SUFFIXES, image_size, split_name
from ..data.point_files import holds_points
from ..data.readers.report import Report
from ..data.readers.tree import BAD_NAME, NESTED, OTHER_PICTURES, list_files, note_unread, part_name, part_of
from ..data.submission import check_answer, read_answer
from ..exceptions import BadData


def print_check(
    answer: Path,
    images: Path,
    weights: Sequence[Path],
    competition: Path,
    *,
    boxless: Path | None = None,
    pixels: bool = False,
    allow_empty: bool = False,
) -> bool:
    """Says in words what is wrong with a submission, or that all is well; returns whether it is.

    Raises BadData for a table of keypoints, which has no rule here to be checked by.
    """
    if answer.is_file() and holds_points(answer):
        raise BadData(f"{answer}: expected an answer of boxes, found a table of keypoints, for which no rule is known; "
                      "`livestock score` judges it beside the truth")
    asked = read_competition(competition)
    test_images, report = find_images(images)
    faults = _measure(test_images) if pixels else []
    faults += check_answer(answer, images=test_images, competition=asked, weights=weights, pixels=pixels,
                           boxless=read_names(boxless) if boxless else (), allow_empty=allow_empty)
    for path in filter(Path.is_file, weights):
        weights_faults, words = check_content(path)
        faults += weights_faults
        report += words
    for line in report:
        typer.echo(line)
    if faults:
        typer.echo(f"{answer}: not fit to submit")
        for fault in faults:
            typer.echo(f"- {fault}")
        return False
    n_bytes = sum(path.stat().st_size for path in weights)
    size = f"weights {n_bytes / 1e6:.1f} MB" if weights else "weights not checked"
    typer.echo(f"{answer}: all is well: {len(read_answer(answer)):,} rows, {len(test_images):,} images, {size}")
    return True


def check_content(path: Path) -> tuple[list[str], list[str]]:
    """What is wrong with what is in a weights file, and in words what was not looked at; runs nothing of the file."""
    from ..models.checkpoint import load_model  # loads PyTorch, which other commands need not wait for
    from ..models.forward import load_for_inference
    from ..models.wrong_file import describe_wrong_file

    try:
        if path.suffix in (".pt", ".safetensors"):
            load_model(path)
        elif path.suffix == ".onnx":
            load_for_inference(path)
        else:
            if path.suffix == ".torchscript" and (what := describe_wrong_file(path, path.suffix)):
                return [f"{path}: expected a TorchScript file, found {what}"], []
            return [], [f"{path}: only its size is checked; weights are looked into as .pt, .safetensors or .onnx"]
    except ValueError as error:
        return [str(error)], []
    return [], []


def find_images(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """The images to answer, of `list_pictures`; in words also which are not, and which are not read here.

    Another program may have answered for a picture of a kind that is not read here, and without a row it is missing all
    the same.
    """
    images, words = list_pictures(folder)
    is_test = np.array([part_of(image_id) == "test" for image_id in images["image_id"]])
    if is_test.any() and not is_test.all():
        images = images[is_test].reset_index(drop=True)
        words.append(f"{folder}: of {len(is_test):,} images the {len(images):,} below a folder test are checked")
    if len(others := images.loc[~images["readable"], "image_id"]):
        words.append(f"{others.iloc[0]}: a picture of a format that is not read here, {len(others):,} in all; the "
                     "answer needs rows for them all the same")
    return images, words


def list_pictures(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """The images in a folder and its zips, or in one zip, as the readers find them; and in words what is not opened.

    Columns `image_id`, `archive`, `member`, and whether its kind is `readable` here. Raises BadData if there are none.
    """
    folder.stat()  # raises the system's own error for a path that is not there
    base = folder.resolve() if folder.is_dir() else folder.resolve().parent
    before = f"{base.name}/" if part_name(base.name) else ""  # an image's path begins with test/ in the data folder
    report, found = Report(), []
    files = list_files(folder, report)
    for file in files:
        suffix = split_name(file.path)[2]
        if suffix in IMAGE_SUFFIXES | OTHER_PICTURES:
            found.append((before + file.path, file.archive, file.member, suffix in IMAGE_SUFFIXES))
    if not found:
        raise BadData(f"{folder}: expected images or zips of images, found none")
    images = pd.DataFrame(found, columns=["image_id", "archive", "member", "readable"])
    note_unread(files, report)
    left_out = report.table()
    left_out = left_out[left_out["reason"].isin([NESTED, BAD_NAME])]
    return images, [f"{row.file}: {row.reason}" for row in left_out.itertuples()]


def _measure(images: pd.DataFrame) -> list[str]:
    """Adds `width, height` to the images; returns a fault for each that cannot be measured, whose sizes are NaN."""
    sizes, faults = [], []
    for row in images.itertuples():
        try:
            sizes.append(image_size(str(row.archive), str(row.member)) if row.readable else (np.nan, np.nan))
        except ValueError as error:
            sizes.append((np.nan, np.nan))
            faults.append(str(error))
    images[["width", "height"]] = np.array(sizes, float)
    return faults


def read_names(path: Path) -> list[str]:
    """The names in a text file, one per line, with any line ending; blank lines are skipped.

    Raises BadData naming the file if it is no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: expected names in UTF-8, one a line, found {error}") from error
    return [line.strip() for line in lines if line.strip()]
