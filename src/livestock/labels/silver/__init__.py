"""Silver labels: boxes of models, made labels of images that those models were not trained on.

`rank` says how likely a box without a human label is right, `evidence` whether that can be told at all, by people's
labels in other `frames` or by a person who checks crops; `select` makes the labels.
"""

from .evidence import N_CROPS, describe_evidence, lower_share, lowest_precision, weigh_classes
from .frames import is_confirmed, mirror, number_places, share_of_frames
from .rank import (
    NEVER,
    UNSURE,
    Thresholds,
    choose_thresholds,
    is_alone,
    match_silver,
    rank_matched,
    rank_silver,
    thresholds_of,
)
from .select import (
    STRATEGIES,
    NothingSelected,
    choose_backgrounds,
    draw_crops,
    select_silver,
    without_silver,
)

__all__ = [
    "NEVER", "N_CROPS", "STRATEGIES", "UNSURE", "Thresholds", "NothingSelected", "thresholds_of", "choose_backgrounds",
    "choose_thresholds", "describe_evidence", "draw_crops", "is_alone", "is_confirmed", "lower_share",
    "lowest_precision",
    "match_silver", "mirror", "number_places", "rank_matched", "rank_silver", "select_silver", "share_of_frames",
    "weigh_classes", "without_silver",
]
