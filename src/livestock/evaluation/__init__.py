"""Average precision twice: as the competition's scorer has it, and as is usual.

Both take boxes tables (see `livestock.tables`; `submission.read_truth` and `read_answer` make them from files) in any
one unit, and both go two steps: `match_*` decides once which boxes are true (`Matches`), `score` makes
average precision of that. Resampling repeats only the second.

| | competition | usual |
|---|---|---|
| boxes of an image are matched | in row order | by falling confidence |
| a box claims | the truth it overlaps most, taken or not | the truth still free that it overlaps most |
| boxes in images without any truth row | ignored | false positives |
| numbers | rounded to float32 | float64 |
| equal confidences rank | as `numpy.argsort` leaves them | in row order |
"""

from ..config import join_names
from .bootstrap import draw_counts, draw_group_counts, interval, mean_interval, resample, resample_classes
from .breakdown import COCO_SIZES, ORIGINAL_SIZES, image_errors, precision_recall, score_counts, score_sizes
from .confusion import BACKGROUND, MISSED, confusion_matrix, f1_threshold, group_errors
from .intervals import evaluate_with_intervals
from .matching import Matches, match_at_ious, match_competition, match_ground_truth, match_usual
from .precision import (
    COCO_IOUS,
    Score,
    average_precision,
    describe_missing_classes,
    evaluate,
    evaluate_as_coco,
    evaluate_as_competition,
    interpolated_precision,
    score,
)

__all__ = [
    "BACKGROUND",
    "COCO_IOUS",
    "COCO_SIZES",
    "ORIGINAL_SIZES",
    "MISSED",
    "Matches",
    "Score",
    "average_precision",
    "match_ground_truth",
    "evaluate_as_coco",
    "evaluate_as_competition",
    "confusion_matrix",
    "describe_missing_classes",
    "draw_counts",
    "draw_group_counts",
    "evaluate_with_intervals",
    "f1_threshold",
    "group_errors",
    "image_errors",
    "interpolated_precision",
    "interval",
    "join_names",
    "match_at_ious",
    "match_competition",
    "match_usual",
    "mean_interval",
    "precision_recall",
    "resample",
    "resample_classes",
    "score",
    "score_counts",
    "score_sizes",
    "evaluate",
]
