"""One table of what a model becomes on a machine without GPU: size, score and speed of each format."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..evaluation import evaluate
from ..inference import find_candidates, picture_batches, to_tensor
from ..models.checkpoint import read_checkpoint, write_checkpoint
from ..models.forward import load_for_inference
from ..models.labels import check_labels
from ..models.loaded import LoadedModel
from ..postprocess import suppress
from .convert import export_onnx, export_torchscript
from .quantize import quantize_onnx

LEAST, MOST, SECONDS = 3, 12, 6.0  # rounds: at least, and at most while they take no longer than this many seconds
TIMED, WARM = 2, 2  # passes of a round; passes before all
TOO_SLOW, PATIENCE = 4, 30.0  # a format this many times slower than float32 is not scored if that takes longer, in s


@dataclass(frozen=True)
class _Row:
    name: str
    path: Path
    half: bool = False
    note: str = ""


def edge_table(
    weights: Path,
    images: pd.DataFrame,
    truth: pd.DataFrame,
    labels: list[str],
    directory: Path,
    *,
    calibration: pd.DataFrame,
    imgsz: int,
    metric_iou: float = 0.75,
    n_threads: Sequence[int] = (1, 2),
) -> pd.DataFrame:
    """Writes `weights` to `directory` in every format, scores each on `images` and times it on the CPU.

    One row a format: `format`, `MB` of the file, `mAP` (usual, at `metric_iou`, after `suppress`; `truth`
    is a boxes table in pixels), `ms_1`, `ms_2`, ... an image with so many threads, and `note`. Time is the median of a
    forward pass of one image, boxes decoded, without reading and suppression; formats take turns, so that
    other work on the machine meets them all. `calibration` is an images table for int8 that shares none with `images`.
    A format that does not run here, or is so slow that scoring it takes minutes, has NaN and the reason in `note`.

    Raises ValueError for no images, for images to calibrate with that are also scored, for a model of other classes
    than `labels` or in another order, and for what the exports refuse.
    """
    if images.empty or images["image_id"].isin(calibration["image_id"]).any():
        raise ValueError(f"{weights}: expected images to score, none of them to calibrate with, found {len(images)} "
                         f"and {len(calibration)} that share some")
    check_labels(read_checkpoint(weights).config.labels, labels, weights)  # before minutes of exports
    rows = _write_formats(weights, directory, calibration, imgsz)
    loaded = {(row.name, n): load_for_inference(row.path, "cpu", n_threads=n, half=row.half, trusted=True)
              for row in rows for n in n_threads}
    first = loaded[rows[0].name, n_threads[0]]
    _, pictures = next(picture_batches(images.iloc[:1], imgsz, first.stride, 1, first.resize))
    reasons = _unusable({name: forward for (name, n), forward in loaded.items() if n == min(n_threads)},
                        to_tensor(pictures), len(images))
    usable = {key: forward for key, forward in loaded.items() if key[0] not in reasons}
    milliseconds = _time(usable, to_tensor(pictures))
    records = []
    for row in rows:
        mean = np.nan
        if row.name not in reasons:
            found = find_candidates(loaded[row.name, min(n_threads)], images, labels, imgsz=imgsz)
            mean = evaluate(truth, suppress(found.boxes), metric_iou).mean
        records.append({
            "format": row.name, "MB": row.path.stat().st_size / 1e6, "mAP": mean,
            **{f"ms_{n}": milliseconds.get((row.name, n), np.nan) for n in n_threads},
            "note": reasons.get(row.name, row.note),
        })
    return pd.DataFrame(records)


def _write_formats(weights: Path, directory: Path, calibration: pd.DataFrame, imgsz: int) -> list[_Row]:
    halved = directory / f"{weights.stem}.safetensors"
    onnx, int8, script = (directory / f"{weights.stem}{end}" for end in (".onnx", ".int8.onnx", ".torchscript"))
    if not halved.exists() or not halved.samefile(weights):
        found = read_checkpoint(weights)
        write_checkpoint(halved, found.config, found.tensors, found.header, half=True)
    export_onnx(weights, onnx)
    quantize_onnx(onnx, calibration, int8, imgsz=imgsz)
    export_torchscript(weights, script)
    is_half = halved.stat().st_size * 1.3 > weights.stat().st_size
    return [
        _Row("PyTorch float32", weights, note="stored in half precision" if is_half else ""),
        _Row("PyTorch half", halved, half=True),
        _Row("ONNX float32", onnx),
        _Row("ONNX int8", int8),
        _Row("TorchScript float32", script),
    ]


def _unusable(forwards: dict[str, LoadedModel], picture: torch.Tensor, n_images: int) -> dict[str, str]:
    """Why a format does not run here, or not in sensible time, by its name; the first is what others compare with."""
    reasons: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name, forward in forwards.items():
        try:
            passes = [_seconds(forward, picture) for _ in range(WARM + 3)]
        except RuntimeError as error:  # PyTorch has no such kernel on this processor
            reasons[name] = f"does not run on this CPU: {str(error)[:80]}"
            continue
        seconds[name] = min(passes[WARM:])
        first, found = next(iter(seconds.items()))
        if seconds[name] > TOO_SLOW * found and seconds[name] * n_images > PATIENCE:
            reasons[name] = f"{seconds[name] / found:.0f} times as slow as {first} on this CPU"
    return reasons


def _time(forwards: dict[tuple[str, int], LoadedModel], picture: torch.Tensor) -> dict[tuple[str, int], float]:
    """Milliseconds of a pass, the median of at least six."""
    passes: dict[tuple[str, int], list[float]] = {key: [] for key in forwards}
    started = time.perf_counter()
    for nth in range(MOST):
        if nth >= LEAST and time.perf_counter() - started > SECONDS:
            break
        for key, forward in forwards.items():
            forward(picture)  # the one before has left its data in the caches
            passes[key] += [_seconds(forward, picture) for _ in range(TIMED)]
    return {key: float(np.median(seconds)) * 1e3 for key, seconds in passes.items()}


def _seconds(forward: LoadedModel, picture: torch.Tensor) -> float:
    started = time.perf_counter()
    forward(picture)
    return time.perf_counter() - started
