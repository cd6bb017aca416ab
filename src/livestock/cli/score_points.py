"""What `livestock score` prints of keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import typer

from ..config import Competition, Skeleton, read_competition
from ..data import readers
from ..data.point_files import ONE_LABEL, PointFile, read_points
from ..data.submission import differs_little
from ..evaluation.oks import evaluate_oks
from ..evaluation.pixel import (
    GROSS,
    SHARE,
    as_true_objects,
    correct_share,
    find_errors,
    find_lengths,
    find_mean_pose,
    guess_mean_pose,
    mean_error_interval,
    summarise_errors,
)
from ..exceptions import BadData
from ..tables import XYXY
from .score import INDEPENDENT, find_groups

POINTS_IOU = 0.5  # from which a box is that of a true object, where none is named
SEEN = {2: "seen", 1: "hidden"}
FIGURES = ["mean", "median", "sd", "min", "max", "q95"]  # pixels


@dataclass(frozen=True)
class _Judged:
    """An answer as the true objects' points: its `errors`, and the tables of all its objects for OKS."""

    errors: pd.DataFrame
    boxes: pd.DataFrame
    points: pd.DataFrame


def print_point_scores(
    truth_file: Path, answers: Sequence[Path], competition: Path | None = None, images: Path | None = None,
    group_pattern: str | None = None, iou: float = POINTS_IOU,
) -> None:
    """Errors of each answer's points, by keypoint and by whether they are seen, beside those of the mean pose.

    The truth is a file, or a folder of images and labels as `livestock read` takes it, with its competition file.
    Objects are matched by their boxes at this IoU where both files have corners, else by their image, in which there is
    then one. Points that are labelled and were not found are counted as missed: wrong in PCK, and in no mean. Intervals
    are over groups of near-duplicates in the folder `images` and of images that agree in `group_pattern`, over single
    images where neither is given. OKS AP needs the skeleton of a `competition` file and true boxes. With a second
    answer also how far apart their mean errors are.

    Raises BadData for files that are not as `point_files.read_points` takes them, and where it is not clear which
    object is which.
    """
    known = read_competition(competition) if competition else None
    skeleton = known.skeleton if known else None
    if known and skeleton is None:
        raise BadData(f"{competition}: expected a `skeleton` with the keypoints of each class, found none")
    truth = _read_folder(truth_file, known) if truth_file.is_dir() else read_points(truth_file)
    if not (truth.points["visible"] > 0).any():
        raise BadData(f"{truth_file}: expected points with visible 1 or 2, found none that is labelled")
    read = [_as_truth_names(read_points(path), truth, path) for path in answers]
    judged = [_judge(truth, answer, path, iou) for answer, path in zip(read, answers, strict=True)]
    guess = _guess(truth)
    groups = find_groups(sorted(truth.boxes["image_id"].unique()), images, group_pattern)
    for path, answer, own in zip(answers, read, judged, strict=True):
        if len(answers) > 1:
            typer.echo(f"{path}")
        _print_matching(truth, answer, own, iou)
        _print_errors(truth, own.errors, guess)
        _print_interval("mean error", own.errors, groups)
        _print_interval("mean pose less this answer", own.errors, groups, guess)
        _print_oks(truth, own, skeleton)
    if len(judged) > 1:
        _print_interval("first less second answer", judged[1].errors, groups, judged[0].errors)
    typer.echo("The mean pose puts each point where it lies on average in the boxes of this truth, whatever the image "
               "shows: to be beaten." if truth.has_boxes else
               "The mean pose puts each point at its mean place in pixels of this truth, whatever the image shows: to "
               "be beaten. The truth has no boxes: no PCK and no OKS AP.")
    if not (groups["group"] >= 0).any():
        typer.echo(INDEPENDENT)


def _read_folder(folder: Path, competition: Competition | None) -> PointFile:
    """The objects with keypoints of a folder of images and labels; says how much of it is left out."""
    if competition is None:
        raise BadData(f"{folder}: a folder of labels is read with the classes and the skeleton of a competition: add "
                      "--competition FILE (`livestock read` prints a skeleton to paste into it)")
    found = readers.read_data_set("auto", folder, competition).train
    boxes = found.boxes[found.boxes["box_id"].isin(found.keypoints["box_id"])].reset_index(drop=True)
    if boxes.empty:
        raise BadData(f"{folder}: expected objects with keypoints, found {len(found.boxes):,} without any")
    typer.echo(f"{folder}: {len(boxes):,} objects with keypoints in {boxes['image_id'].nunique():,} images; "
               f"left out or changed: {len(found.left_out):,} (`livestock read` lists them)")
    return PointFile(boxes, found.keypoints, pd.Series(dtype=float), True, True)


def _as_truth_names(answer: PointFile, truth: PointFile, path: Path) -> PointFile:
    """The answer with the truth's names of images, by their path or else by their file name.

    Raises BadData where a name could be that of several images, or where no image of the answer is in the truth.
    """
    known, found = truth.boxes["image_id"].unique(), answer.boxes["image_id"].unique()
    names: dict[str, str] = {}
    for image_id in found:
        same = [image_id] if image_id in set(known) else [
            name for name in known if PurePosixPath(name).name == PurePosixPath(image_id).name]
        if len(same) > 1:
            raise BadData(f"{path}: image {image_id!r}: expected the name of one image of the truth, found {same[0]!r} "
                          f"and {same[1]!r}")
        names[image_id] = same[0] if same else image_id
    if len(set(names.values())) < len(names):
        twice = next(name for name in names.values() if list(names.values()).count(name) > 1)
        both = [image_id for image_id, name in names.items() if name == twice]
        raise BadData(f"{path}: images {both[0]!r} and {both[1]!r}: expected one of the name {twice!r}, which the "
                      "truth has once")
    if not set(names.values()) & set(known):
        raise BadData(f"{path}: expected images of the truth, such as {known[0]!r}, found none of them: it has "
                      f"{found[0]!r}")
    boxes, points = (table.assign(image_id=table["image_id"].map(names)) for table in (answer.boxes, answer.points))
    return PointFile(boxes, points, answer.areas, answer.has_boxes, answer.has_labels)


def _judge(truth: PointFile, answer: PointFile, path: Path, iou: float) -> _Judged:
    """The errors of an answer's points, matched with true objects by boxes or by images."""
    boxes, true = answer.boxes, truth.boxes
    if truth.has_boxes and answer.has_boxes:
        if not answer.has_labels and true["label"].nunique() > 1:
            raise BadData(f"{path}: expected a column label, since the truth has objects of "
                          f"{', '.join(sorted(set(true['label'])))}")
        if not (answer.has_labels and truth.has_labels):  # all are one class then
            only = true["label"].iloc[0] if truth.has_labels else ONE_LABEL
            boxes, true = boxes.assign(label=only), true.assign(label=only)
        points = as_true_objects(true, boxes, answer.points, iou)
        return _Judged(find_errors(truth.points, points), boxes, answer.points)
    for name, table in (("the truth", true), (str(path), boxes)):
        if len(twice := table.loc[table.duplicated("image_id"), "image_id"]):
            raise BadData(f"{path}: expected corners of boxes ({', '.join(XYXY)}) in truth and answer, by which "
                          f"objects are told apart, since {name} has several in {twice.iloc[0]!r}; `livestock predict` "
                          "writes them with --boxes or --detector")
    true_row = true.set_index("image_id")
    own = boxes[boxes["image_id"].isin(true_row.index)]
    ids = dict(zip(own["box_id"], true_row.loc[own["image_id"], "box_id"], strict=True))
    points = answer.points[answer.points["box_id"].isin(ids)]
    points = points.assign(box_id=points["box_id"].map(ids))
    placed = true.merge(own[["image_id", "confidence"]], on="image_id", suffixes=("_true", ""))
    return _Judged(find_errors(truth.points, points), placed.drop(columns="confidence_true"), points)


def _guess(truth: PointFile) -> pd.DataFrame:
    """The errors of the mean pose of the truth itself."""
    return find_errors(truth.points, guess_mean_pose(find_mean_pose(truth.boxes, truth.points), truth.boxes))


def _print_matching(truth: PointFile, answer: PointFile, own: _Judged, iou: float) -> None:
    """How objects were told apart and what of either file has nothing in the other."""
    by = f"their boxes at IoU {iou:g}" if truth.has_boxes and answer.has_boxes else "their images"
    n_found = own.errors.loc[own.errors["error"].notna(), "box_id"].nunique()
    n_judged = own.errors["box_id"].nunique()
    typer.echo(f"objects matched by {by}: {n_found:,} of {n_judged:,} with a labelled point; the answer has "
               f"{len(answer.boxes):,}")
    strangers = sorted(set(answer.boxes["image_id"]) - set(truth.boxes["image_id"]))
    if strangers:
        typer.echo(f"{len(strangers):,} images of the answer are not in the truth, such as {strangers[0]!r}")
    known, names = set(truth.points["keypoint"]), set(answer.points["keypoint"])
    for whose, only in (("the truth", known - names), ("the answer", names - known)):
        if only:
            typer.echo(f"keypoints of {whose} alone: {', '.join(sorted(only))}")
    true, found = set(truth.boxes["label"]), set(answer.boxes["label"])
    if truth.has_labels and answer.has_labels and (strange := sorted(found - true)):
        hint = next(filter(None, (differs_little(name, true) for name in strange)), "")
        typer.echo(f"labels of the answer alone, whose objects match none: {', '.join(strange)}; the truth has "
                   f"{', '.join(sorted(true))}{f'; {hint}' if hint else ''}")


def _print_errors(truth: PointFile, errors: pd.DataFrame, guess: pd.DataFrame) -> None:
    """A line of all points, of those that are seen and hidden, and of each keypoint."""
    lengths = find_lengths(truth.boxes) if truth.has_boxes else None
    lines = [["pixels", "points", "missed", *FIGURES, f">{GROSS:g} px", f"PCK {SHARE:.2f}".replace("0.", "."),
              "mean pose", "its PCK"]]
    for by in ("", "visible", "keypoint"):
        found, guessed = summarise_errors(errors, by or ()), summarise_errors(guess, by or ())
        shares = [None if lengths is None else correct_share(table, lengths, SHARE, by) for table in (errors, guess)]
        order = sorted(found.index, reverse=True) if by == "visible" else list(found.index)
        for key in order:
            row = found.loc[key]
            right = ["-" if share is None else f"{share.loc[key]:.3f}" for share in shares]
            lines.append([SEEN.get(key, str(key)), f"{int(row['n']):,}", f"{int(row['missed']):,}",
                          *(_number(row[name]) for name in FIGURES), _number(row["gross"], 3), right[0],
                          _number(guessed.loc[key, "mean"]), right[1]])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *values in lines:
        cells = [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
        typer.echo("  ".join([name.ljust(widths[0]), *cells]))


def _number(value: float, digits: int = 2) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def _print_interval(
    name: str, errors: pd.DataFrame, groups: pd.DataFrame, other: pd.DataFrame | None = None
) -> None:
    """The mean error, or how far another's lies above it, with its interval over groups."""
    value, low, high = mean_error_interval(errors, groups, other)
    n = groups.loc[groups["group"] >= 0, "group"].nunique() + int((groups["group"] < 0).sum())
    over = f"{n:,} {'groups' if (groups['group'] >= 0).any() else 'images'}"
    sign = "" if other is None else "+"
    verdict = "; it holds 0: not shown to differ" if other is not None and low <= 0 <= high else ""
    bounds = "no interval" if np.isnan(low) else f"95 % interval {low:{sign}.2f} to {high:{sign}.2f}"
    typer.echo(f"{name}: {value:{sign}.2f} px, {bounds} over {over}{verdict}")


def _print_oks(truth: PointFile, own: _Judged, skeleton: Skeleton | None) -> None:
    """OKS AP as COCO has it, or why there is none."""
    if not truth.has_boxes:
        return
    if skeleton is None:
        typer.echo("no OKS AP: it needs sigmas, of the skeleton in --competition FILE")
        return
    known = truth.boxes["label"].isin(skeleton.labels)
    named = truth.points["keypoint"].isin([point.keypoint for point in skeleton.keypoints])
    if not truth.has_labels or not known.all() or not named.all():
        strange = sorted({*truth.boxes.loc[~known, "label"], *truth.points.loc[~named, "keypoint"]})
        typer.echo("no OKS AP: the truth has no column label" if not truth.has_labels else
                   f"no OKS AP: the skeleton does not know {', '.join(strange)}")
        return
    scores = [evaluate_oks((truth.boxes, truth.points), (own.boxes, own.points), skeleton, truth.areas,
                           *([thresholds] if thresholds else [])).mean for thresholds in ((), (0.5,), (0.75,))]
    area = "areas of the file" if len(truth.areas) == len(truth.boxes) else "0.53 of the box where the file has no area"
    typer.echo(f"OKS AP {scores[0]:.4f}, at .5 {scores[1]:.4f}, at .75 {scores[2]:.4f} ({area})")
    for sentence in skeleton.describe_default_sigmas():
        typer.echo(sentence)
