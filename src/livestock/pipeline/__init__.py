"""The job as steps: each function reads files, writes new ones and is skipped when done. Notebooks call these."""

from .answer import (
    ORIGINAL_POINT,
    Inference,
    apply_original,
    copy_weights,
    find_answer,
    images_to_answer,
    score_known_truth,
    submitted_weights,
    try_methods,
    write_inference,
)
from .data import TRUTH_NAME, RawTables, Run, SplitTables, ensure_data, find_groups, make_run, read_data, split_data
from .passes import PASSES, find_candidates, find_oof, oof_images, trained_folds
from .training import hyp_path, train_fold, weights_of, write_dataset

__all__ = [
    "ORIGINAL_POINT",
    "PASSES",
    "TRUTH_NAME",
    "Inference",
    "RawTables",
    "Run",
    "SplitTables",
    "apply_original",
    "copy_weights",
    "ensure_data",
    "find_answer",
    "find_candidates",
    "find_groups",
    "find_oof",
    "hyp_path",
    "images_to_answer",
    "make_run",
    "oof_images",
    "read_data",
    "score_known_truth",
    "split_data",
    "submitted_weights",
    "train_fold",
    "trained_folds",
    "try_methods",
    "weights_of",
    "write_dataset",
    "write_inference",
]
