"""Folds: near-duplicate groups, strata, the stratified split over groups, the mini set, and a report."""

from .assign import assign_folds, mini_set
from .duplicates import RADIUS, Undecodable, hash_images, near_duplicate_groups, near_pairs, perceptual_hashes
from .groups import GROUPS_NAME, groups_by_pattern, read_groups, unite_groups
from .report import (
    baseline_folds,
    describe_leak,
    describe_split,
    fold_table,
    group_report,
    leakage,
    leaky_folds,
    split_distances,
    split_report,
)
from .strata import stratum_counts, stratum_labels

__all__ = [
    "GROUPS_NAME",
    "RADIUS",
    "Undecodable",
    "assign_folds",
    "baseline_folds",
    "describe_leak",
    "describe_split",
    "fold_table",
    "group_report",
    "groups_by_pattern",
    "hash_images",
    "leakage",
    "leaky_folds",
    "mini_set",
    "near_duplicate_groups",
    "near_pairs",
    "perceptual_hashes",
    "read_groups",
    "split_distances",
    "split_report",
    "stratum_counts",
    "stratum_labels",
    "unite_groups",
]
