"""Weights in other formats: ONNX, int8 and TorchScript, and how they compare."""

from .compare import edge_table
from .convert import Differences, compare_exports, export_onnx, export_torchscript, find_differences
from .quantize import quantize_onnx

__all__ = ["Differences", "compare_exports", "edge_table", "export_onnx", "export_torchscript", "find_differences",
           "quantize_onnx"]
