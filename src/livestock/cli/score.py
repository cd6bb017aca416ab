"""What `livestock score` prints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import typer
from scipy.special import stdtrit

from ..data.submission import NAMINGS, differs_little, read_answer, read_truth
from ..evaluation import (
    Matches,
    Score,
    describe_missing_classes,
    draw_counts,
    evaluate,
    evaluate_as_competition,
    interval,
    match_competition,
    match_usual,
    resample,
    score,
)
from ..exceptions import BadData
from ..tables import XYXY, by_falling_confidence
from .check import find_images

IOU = 0.75  # from which a box counts as found, where none is named
LOW_SCORE = 0.1  # that a slip may explain
MOST_STRANGE = 100  # names that are compared with the known ones
N_RESAMPLES = 1000  # of images, for intervals
INDEPENDENT = ("The interval takes images as independent of each other. Frames of one camera are not, and then it is "
               "too narrow: --images DIR groups near-duplicates, --group-pattern groups images by their names.")


def print_scores(
    truth: Path, answer: Path, other: Path | None, iou: float, images: Path | None = None,
    group_pattern: str | None = None,
) -> None:
    """Both scorers' mAP and each class's AP for each answer, and what makes a score say less than it seems to.

    With a second answer the interval of the difference: over groups of near-duplicates in the folder `images`, united
    with those that agree in `group_pattern`; over single images where neither is given.
    """
    true = read_truth(truth)
    answers = {path: read_answer(path) for path in (answer, other) if path is not None}
    if other is not None:  # before anything is printed: what is wrong with the images or the pattern says so alone
        ids = sorted(set(true["image_id"]).union(*(boxes["image_id"] for boxes in answers.values())))
        groups = find_groups(ids, images, group_pattern)
    for path, boxes in answers.items():
        if len(answers) > 1:
            typer.echo(f"{path}")
        filed = evaluate_as_competition(true, boxes, iou)
        _print_table({"competition": filed, "usual": evaluate(true, boxes, iou)}, iou)
        _print_strangers(true, boxes)
        _print_slips(true, boxes, iou)
        if len(extra := boxes[~boxes["label"].isin(true["label"])]):
            names = sorted({*true["label"], *extra["label"]} - {"nan"})  # an image without a box has no label
            typer.echo(f"{describe_missing_classes(names, true)}; {len(extra):,} rows count nothing.")
        ordered = evaluate_as_competition(true, by_falling_confidence(boxes), iou)
        if (cost := ordered.mean - filed.mean) > 1e-9:
            typer.echo(
                f"The order of the rows costs {cost:.6f}: the competition's scorer matches boxes in file order. "
                f"By falling confidence this answer scores {ordered.mean:.6f}."
            )
    if other is not None:
        _print_difference(true, answers[other], answers[answer], iou, groups)


def _print_strangers(truth: pd.DataFrame, boxes: pd.DataFrame) -> None:
    """What makes a score of 0 that says nothing: no rows, names that differ, pixels on one side."""
    names = boxes.loc[~boxes["image_id"].isin(truth["image_id"]), "image_id"].unique()
    if boxes.empty:
        typer.echo("The answer has no row.")
    elif len(names):
        typer.echo(f"{len(names):,} of {boxes['image_id'].nunique():,} images of the answer are not in the truth, such "
                   f"as {names[0]!r}; the truth has {truth['image_id'].iloc[0]!r}.")
    in_pixels = [bool((table[XYXY] > 2).any(axis=None)) for table in (truth, boxes)]
    if in_pixels[0] != in_pixels[1]:
        typer.echo(f"The corners of the {'truth' if in_pixels[0] else 'answer'} look like pixels, the others do not.")


def _print_slips(truth: pd.DataFrame, boxes: pd.DataFrame, iou: float) -> None:
    """Slips that the eye does not see: names that differ in case or a blank, boxes without area, corners exchanged."""
    for column in ("image_id", "label"):
        strange = sorted(set(boxes[column]) - set(truth[column]))[:MOST_STRANGE]
        if hint := next(filter(None, (differs_little(name, set(truth[column])) for name in strange)), ""):
            typer.echo(f"In the answer {hint}; it counts as another {column}.")
    size = boxes[["x_max", "y_max"]].to_numpy() - boxes[["x_min", "y_min"]].to_numpy()
    if n_flat := int((size <= 0).any(axis=1).sum()):
        typer.echo(f"{n_flat:,} of {len(boxes):,} boxes of the answer have no area.")
    exchanged = boxes.assign(x_max=boxes["y_min"], y_min=boxes["x_max"])  # xyxy below a header that says x, x, y, y
    exchanged = exchanged[(exchanged["x_max"] > exchanged["x_min"]) & (exchanged["y_max"] > exchanged["y_min"])]
    before = evaluate(truth, boxes, iou).mean
    if before < LOW_SCORE and len(exchanged) and (after := evaluate(truth, exchanged, iou).mean) > before + LOW_SCORE:
        typer.echo(f"With XMax and YMin exchanged this answer would score {after:.6f}: the columns' order is XMin, "
                   "XMax, YMin, YMax.")


def find_groups(names: Sequence[str], folder: Path | None, pattern: str | None) -> pd.DataFrame:
    """The group of each image of a file, -1 where nothing says it: columns `image_id, group` in the order of `names`.

    Images that look alike in the folder share a group, and so do those that agree in the pattern, searched in the path
    below the folder, or in the name where there is no folder. Raises BadData for images that the folder does not
    have, or has twice, and for a pattern that is found in none.
    """
    from ..data import folds

    if folder is None and pattern is None:
        return pd.DataFrame({"image_id": names, "group": -1})
    ids = pd.Series(names, index=names)
    groups = pd.Series(np.arange(len(names)), index=names)
    if folder is not None:
        images = _name_images(names, find_images(folder)[0], folder)
        ids = images["image_id"]
        near = folds.near_duplicate_groups(images.drop_duplicates("image_id"))
        groups = ids.map(near)
    if pattern is not None:
        caught = folds.groups_by_pattern(ids, pattern)
        groups = folds.unite_groups(groups, [pd.Series(caught.to_numpy(), index=groups.index)])
    return pd.DataFrame({"image_id": names, "group": groups.to_numpy()})


def _name_images(names: Sequence[str], images: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The row of the folder's images that each name of a file means, by name: a path, a file name or a stem."""
    found: dict[str, dict[str, list[int]]] = {}
    for naming, shorten in NAMINGS.items():
        found[naming] = defaultdict(list)
        for row, image_id in enumerate(images["image_id"]):
            found[naming][shorten(image_id)].append(row)
    rows = [next((found[naming][name] for naming in ("path", "name", "stem") if name in found[naming]), [])
            for name in names]
    if missing := [name for name, own in zip(names, rows, strict=True) if not own]:
        raise BadData(f"{folder}: {len(missing):,} of {len(names):,} images are not there, such as {missing[0]!r}; "
                      f"the folder has {images['image_id'].iloc[0]!r}")
    for name, own in zip(names, rows, strict=True):
        if len(own) > 1:
            both = images["image_id"].iloc[own[:2]].tolist()
            raise BadData(f"{folder}: {name!r} is the name of {len(own)} images, such as {both[0]} and {both[1]}")
    return images.iloc[[own[0] for own in rows]].set_axis(list(names))


def _print_difference(
    truth: pd.DataFrame, second: pd.DataFrame, first: pd.DataFrame, iou: float, groups: pd.DataFrame
) -> None:
    """Second minus first by both scorers, with the interval: over groups, or single images where none has a group."""
    is_grouped = bool((groups["group"] >= 0).any())
    if not is_grouped:
        typer.echo(INDEPENDENT)
    for name, match in (("competition", match_competition), ("usual", match_usual)):
        found = [match(truth, boxes, iou) for boxes in (second, first)]
        gain = score(found[0]).mean - score(found[1]).mean
        low, high, over = _group_interval(found, gain, groups, truth) if is_grouped else _image_interval(found, groups)
        verdict = "" if low > 0 or high < 0 else "; it holds 0: not shown to differ"
        typer.echo(f"second minus first, {name}: {gain:+.6f}, 95 % interval {low:+.6f} to {high:+.6f}{over}{verdict}")


def _image_interval(found: Sequence[Matches], groups: pd.DataFrame) -> tuple[float, float, str]:
    images = pd.Index(groups["image_id"])
    counts = draw_counts(np.random.default_rng(0), len(images), N_RESAMPLES)
    low, high = interval(resample(found[0], images, counts) - resample(found[1], images, counts))
    return low, high, ""


def _group_interval(
    found: Sequence[Matches], gain: float, groups: pd.DataFrame, truth: pd.DataFrame
) -> tuple[float, float, str]:
    """By Student's t over groups: they are few, and a percentile bootstrap over few groups is too narrow."""
    from ..postprocess.choosing import block_groups, find_error, score_groups

    blocks = block_groups(groups, truth[truth["label"] != "nan"])
    second, first = (score_groups(matches, blocks) for matches in found)
    error, freedom = find_error(second.residuals - first.residuals, second.weights)
    half = float(stdtrit(freedom, 0.975)) * error if np.isfinite(error) else np.inf
    n_groups = groups["group"].nunique()
    return gain - half, gain + half, f" over {n_groups:,} groups ({second.n_effective:.1f} effective)"


def _print_table(scores: dict[str, Score], iou: float) -> None:
    """A table: a line a scorer, a column a class."""
    per_class = next(iter(scores.values())).per_class
    lines = [[f"IoU {iou:g}", "mAP", *per_class.index]]
    lines += [[name, *(f"{ap:.6f}" for ap in [it.mean, *it.per_class["ap"]])] for name, it in scores.items()]
    lines += [["truth boxes", *(f"{n:,}" for n in [per_class["n_truth"].sum(), *per_class["n_truth"]])]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *values in lines:
        cells = [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
        typer.echo("  ".join([name.ljust(widths[0]), *cells]))
