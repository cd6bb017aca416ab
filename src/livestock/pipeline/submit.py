"""The last stage: what was chosen answers the test images, and the answer is written, recorded and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..config import Competition
from ..postprocess import EVERY_CLASS
from ..postprocess.choosing import Choice
from ..postprocess.methods import TunedMethod
from .answer import (
    competition_for,
    copy_weights,
    find_answer,
    find_boxless,
    images_to_answer,
    submitted_weights,
    write_inference,
)
from .run import Run
from .select import ORIGINAL_POINT, Inference
from .trace import record_answer


class _Answer(NamedTuple):
    """`asked` is what the answer must be like; `boxless` names the images without a box that counts."""

    images: pd.DataFrame
    part: str
    weights: list[Path]
    boxes: pd.DataFrame
    boxless: list[str]
    asked: Competition


def chosen_inference(
    choice: Choice, tuned: Mapping[str, TunedMethod], folds: Sequence[int], final: Mapping[str, Any] | None,
    *, ensemble: bool = False,
) -> Inference:
    """The chosen method with its parameters, and what answers: the final model, all folds' models or the first's."""
    points = tuned[choice.method].points if choice.method in tuned else {EVERY_CLASS: ORIGINAL_POINT}
    answering = tuple(folds) if ensemble else (folds[0],)
    return Inference(choice.method, points, answering, final["weights"] if final else "")


def submit(run: Run, inference: Inference, scores: pd.Series) -> Path:
    """Writes `answer.csv`, the weights to submit and `inference.yaml`, and records what made them; returns the first.

    `scores` are the out-of-fold ones of what was chosen: `mAP, low, high`. Rows go by image and falling confidence, for
    the competition's scorer matches the boxes of an image in file order. Raises BadData for weights over the limit, and
    for an answer that `check_submission` would complain of. An answer without any box is one at the `smoke` profile
    alone, which learns nothing.
    """
    from ..data.submission import check_weights, write_answer

    found = _find(run, inference, copy_weights(run, inference))
    check_weights(found.weights, run.competition.weight_limit_bytes)
    path = write_answer(
        found.boxes, found.images, run.workspace.answer_path, boxless=found.boxless, labels=found.asked.labels,
        answer_name=found.asked.answer_name, allow_empty=_may_be_empty(run))
    write_inference(run, inference, found.weights, scores)
    record_answer(run, inference, found.weights, found.part, scores)
    return path


def check_submission(run: Run, inference: Inference) -> list[str]:
    """What is wrong with `answer.csv` and the weights beside it, in words; an empty list if nothing is."""
    from ..data.submission import check_answer

    found = _find(run, inference, submitted_weights(run))  # as they are: a check writes no weights
    return check_answer(run.workspace.answer_path, images=found.images, competition=found.asked, weights=found.weights,
                        boxless=found.boxless, allow_empty=_may_be_empty(run))


def _find(run: Run, inference: Inference, weights: list[Path]) -> _Answer:
    images, part = images_to_answer(run)
    boxes = find_answer(run, inference, images, part, weights)
    return _Answer(images, part, weights, boxes, find_boxless(images, boxes), competition_for(run, images, part))


def _may_be_empty(run: Run) -> bool:
    return run.profile.name == "smoke"
