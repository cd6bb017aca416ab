"""The only door to the package yolov5: train, load and convert its models."""

from .forward import LoadedModel, load_for_inference
from .safe import load_safetensors, write_safetensors
from .training import TrainConfig, read_history, read_ignored, train
from .weights import check_checkpoint, find_weights, load_model, trained_bytes, write_weights
from .wrong_file import describe_wrong_file

__all__ = [
    "LoadedModel",
    "TrainConfig",
    "check_checkpoint",
    "describe_wrong_file",
    "find_weights",
    "load_for_inference",
    "load_model",
    "load_safetensors",
    "read_history",
    "read_ignored",
    "train",
    "trained_bytes",
    "write_safetensors",
    "write_weights",
]
