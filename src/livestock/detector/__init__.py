"""The only door to yolov5: train, load weights, and every box a model sees before suppression."""

from .inference import Candidates, candidates
from .training import TrainConfig, read_history, train
from .weights import check_checkpoint, find_weights, load_model, write_weights

__all__ = [
    "Candidates",
    "TrainConfig",
    "candidates",
    "check_checkpoint",
    "find_weights",
    "load_model",
    "read_history",
    "train",
    "write_weights",
]
