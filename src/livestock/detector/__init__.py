"""The only door to yolov5: train, load and convert weights, and every box a model sees before suppression."""

from .edge import edge_table
from .export import Differences, compare_exports, export_onnx, export_torchscript, quantize_onnx
from .forward import Forward, load_forward
from .inference import Candidates, candidates, find_candidates
from .pace import measure_pace
from .safe import load_safetensors, write_safetensors
from .training import TrainConfig, read_history, read_ignored, train
from .weights import check_checkpoint, find_weights, load_model, trained_bytes, write_weights
from .wrong_file import describe_wrong_file

__all__ = [
    "Candidates",
    "Differences",
    "Forward",
    "TrainConfig",
    "candidates",
    "check_checkpoint",
    "compare_exports",
    "describe_wrong_file",
    "edge_table",
    "export_onnx",
    "export_torchscript",
    "find_candidates",
    "find_weights",
    "load_forward",
    "load_model",
    "load_safetensors",
    "measure_pace",
    "quantize_onnx",
    "read_history",
    "read_ignored",
    "train",
    "trained_bytes",
    "write_safetensors",
    "write_weights",
]
