"""From candidates, every box a model proposes, to the boxes that stay: suppression, fusion, their thresholds."""

from .calibration import Calibration, calibrate_out_of_part, fit_calibration
from .choosing import (
    ALPHA,
    MIN_EFFECTIVE_GROUPS,
    Choice,
    GroupScores,
    block_groups,
    choose_method,
    compare_gains,
    decide,
    find_interval,
    score_groups,
    score_inner,
)
from .fusion import fuse, soft_suppress
from .methods import EVERY_CLASS, METHODS, Method, TunedMethod, apply, describe_points, tune_method
from .suppression import count_capped, keep_boxes, suppress
from .sweep import sweep
from .tune import Point, Tuned, choose, find_plateau, leave_outs, score_points, split_parts, tune

__all__ = [
    "ALPHA",
    "Calibration",
    "EVERY_CLASS",
    "METHODS",
    "MIN_EFFECTIVE_GROUPS",
    "Choice",
    "GroupScores",
    "Method",
    "Point",
    "Tuned",
    "TunedMethod",
    "apply",
    "block_groups",
    "calibrate_out_of_part",
    "choose",
    "choose_method",
    "compare_gains",
    "count_capped",
    "decide",
    "describe_points",
    "find_interval",
    "find_plateau",
    "fit_calibration",
    "fuse",
    "keep_boxes",
    "leave_outs",
    "score_groups",
    "score_inner",
    "score_points",
    "soft_suppress",
    "split_parts",
    "suppress",
    "sweep",
    "tune",
    "tune_method",
]
