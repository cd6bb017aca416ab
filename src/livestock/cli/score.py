"""What `livestock score` prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import typer

from ..boxes import XYXY
from ..metrics import (
    Score,
    competition_map,
    draw_counts,
    interval,
    match_competition,
    match_usual,
    resample,
    score,
    usual_map,
)
from ..submission import by_falling_confidence, read_answer, read_truth

N_RESAMPLES = 1000  # of images, for intervals


def print_scores(truth: Path, answer: Path, other: Path | None, iou: float) -> None:
    """Both scorers' mAP and each class's AP for each answer, and what makes a score say less than it seems to."""
    true = read_truth(truth)
    answers = {path: read_answer(path) for path in (answer, other) if path is not None}
    for path, boxes in answers.items():
        if len(answers) > 1:
            typer.echo(f"{path}")
        filed = competition_map(true, boxes, iou)
        _print_table({"competition": filed, "usual": usual_map(true, boxes, iou)}, iou)
        _print_strangers(true, boxes)
        if len(extra := boxes[~boxes["label"].isin(true["label"])]):
            names = ", ".join(sorted(extra["label"].unique()))
            typer.echo(f"No truth of {names}: the mean is over the other classes, {len(extra):,} rows count nothing.")
        ordered = competition_map(true, by_falling_confidence(boxes), iou)
        if (cost := ordered.mean - filed.mean) > 1e-9:
            typer.echo(
                f"The order of the rows costs {cost:.6f}: the competition's scorer matches boxes in file order. "
                f"By falling confidence this answer scores {ordered.mean:.6f}."
            )
    if other is not None:
        _print_difference(true, answers[other], answers[answer], iou)


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


def _print_difference(truth: pd.DataFrame, second: pd.DataFrame, first: pd.DataFrame, iou: float) -> None:
    """Second minus first by both scorers, with the interval."""
    images = pd.Index(sorted(set(truth["image_id"]) | set(first["image_id"]) | set(second["image_id"])))
    counts = draw_counts(np.random.default_rng(0), len(images), N_RESAMPLES)
    for name, match in (("competition", match_competition), ("usual", match_usual)):
        found = [match(truth, boxes, iou) for boxes in (second, first)]
        gain = score(found[0]).mean - score(found[1]).mean
        low, high = interval(resample(found[0], images, counts) - resample(found[1], images, counts))
        verdict = "" if low > 0 or high < 0 else "; it holds 0: not shown to differ"
        typer.echo(f"second minus first, {name}: {gain:+.6f}, 95 % interval {low:+.6f} to {high:+.6f}{verdict}")


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
