"""From candidates, every box a model proposes, to the boxes that stay: suppression, fusion, their thresholds."""

from .fusion import fuse, soft_suppress
from .methods import EVERY_CLASS, METHODS, Method, TunedMethod, apply, describe_points, take_best, tune_method
from .suppression import count_capped, keep_boxes, suppress
from .sweep import sweep
from .tune import Point, Tuned, choose, compare, find_plateau, leave_outs, score_points, split_parts, tune

__all__ = [
    "EVERY_CLASS",
    "METHODS",
    "Method",
    "Point",
    "Tuned",
    "TunedMethod",
    "apply",
    "choose",
    "compare",
    "count_capped",
    "describe_points",
    "find_plateau",
    "fuse",
    "keep_boxes",
    "leave_outs",
    "score_points",
    "soft_suppress",
    "split_parts",
    "suppress",
    "sweep",
    "take_best",
    "tune",
    "tune_method",
]
