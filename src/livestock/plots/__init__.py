"""Figures: one titled figure with labelled axes per function, which returns its Axes, an array for a grid."""

from . import sentences
from .common import class_palette, use_style
from .eda_boxes import (
    plot_box_centres,
    plot_box_counts,
    plot_count_against_area,
    plot_overlaps,
    plot_ratio_bins,
    plot_size_bins,
    plot_small_boxes,
)
from .eda_images import plot_class_counts, plot_empty_images, plot_image_sizes
from .errors import plot_causes, plot_confusion, plot_error_rates, plot_group_thumbnails, plot_suspects
from .evolution import plot_importances, plot_moves, plot_start_and_best, plot_trials
from .experiment import plot_arms, plot_claims, plot_costs, plot_rates
from .images import choose_images, draw_boxes, plot_groups, plot_images
from .keypoints import (
    plot_by_keypoint,
    plot_errors,
    plot_histories,
    plot_maps,
    plot_objects,
    plot_pose_arms,
)
from .predictions import (
    plot_average_precision,
    plot_confidence,
    plot_count_agreement,
    plot_truth_and_predictions,
)
from .silver import plot_crops, plot_learning_curve, plot_students, plot_thresholds
from .split import plot_distances, plot_group_sizes, plot_shares, style_split_report
from .training import plot_losses, plot_scores
from .tuning import plot_breakdown, plot_methods, plot_precision_recall, plot_sweep

__all__ = [
    "choose_images",
    "class_palette",
    "draw_boxes",
    "plot_arms",
    "plot_average_precision",
    "plot_box_centres",
    "plot_box_counts",
    "plot_breakdown",
    "plot_by_keypoint",
    "plot_causes",
    "plot_claims",
    "plot_class_counts",
    "plot_confidence",
    "plot_confusion",
    "plot_costs",
    "plot_count_against_area",
    "plot_count_agreement",
    "plot_crops",
    "plot_distances",
    "plot_empty_images",
    "plot_error_rates",
    "plot_errors",
    "plot_group_sizes",
    "plot_group_thumbnails",
    "plot_groups",
    "plot_histories",
    "plot_image_sizes",
    "plot_images",
    "plot_importances",
    "plot_learning_curve",
    "plot_losses",
    "plot_maps",
    "plot_methods",
    "plot_moves",
    "plot_objects",
    "plot_overlaps",
    "plot_pose_arms",
    "plot_precision_recall",
    "plot_rates",
    "plot_ratio_bins",
    "plot_scores",
    "plot_shares",
    "plot_size_bins",
    "plot_small_boxes",
    "plot_start_and_best",
    "plot_students",
    "plot_suspects",
    "plot_sweep",
    "plot_thresholds",
    "plot_trials",
    "plot_truth_and_predictions",
    "sentences",
    "style_split_report",
    "use_style",
]
