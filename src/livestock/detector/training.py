"""Training in a process of its own, watched from here: a crash there leaves the notebook's kernel alive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from ..steps import write_json
from .averaging import average_weights, epoch_weights
from .resuming import PREVIOUS, is_finished, read_epochs
from .weights import check_checkpoint

HISTORY_COLUMNS = {
    "epoch": "epoch",
    "train/box_loss": "train_box_loss",
    "train/obj_loss": "train_obj_loss",
    "train/cls_loss": "train_cls_loss",
    "metrics/precision": "precision",
    "metrics/recall": "recall",
    "metrics/mAP_0.5": "AP50",
    "metrics/mAP_0.5:0.95": "mAP50_95",
    "val/box_loss": "val_box_loss",
    "val/obj_loss": "val_obj_loss",
    "val/cls_loss": "val_cls_loss",
    "x/lr0": "lr",
}

NOMINAL_BATCH = 64  # yolov5's own
CHILD = f"{__package__}.child"


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training depends on. `data_yaml`, `weights` and `hyp` are paths; `imgsz` is in pixels."""

    data_yaml: str
    weights: str
    hyp: str
    imgsz: int
    batch: int
    epochs: int
    optimizer: str = "SGD"
    cos_lr: bool = False
    device: str = ""
    workers: int = 2
    seed: int = 0
    nominal_batch: int = NOMINAL_BATCH  # gradients of so many images make one optimizer step
    save: bool = True  # a trial of a search needs scores alone: no checkpoint, no last validation of the best one
    compiler: str = ""  # such as "inductor", PyTorch's own, which takes minutes at the start
    bf16: bool = False  # mixed precision in bf16: on GPUs from 2020 on, or a CPU
    cfg: str = ""  # a model.yaml such as yolov5n.yaml to train from scratch, with `weights` empty


def train(
    config: TrainConfig, run_dir: Path, on_epoch: Callable[[dict[str, float]], None] | None = None
) -> pd.DataFrame:
    """Trains into `run_dir` and returns the history (see `read_history`); a training that was cut off resumes.

    After each epoch `on_epoch` gets its scores on the validation list, under the names of the history and `AP75`;
    whatever it raises ends the training.

    Writes `weights/best.pt` (highest 0.1 AP50 + 0.9 mAP50-95 on the validation list), `weights/last.pt` and
    `weights/averaged.pt` (mean of the last epochs), all stripped and in half precision, `results.csv` and `train.log`.
    Several GPUs go through torchrun.
    Raises RuntimeError with the end of the log if the process fails, and ValueError for a `compiler` with several GPUs
    or `bf16` with one that cannot.
    """
    run_dir = run_dir.resolve()
    _check_precision(config)
    if config.weights:
        check_checkpoint(Path(config.weights))
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(asdict(config), run_dir / "config.json")
    if not is_finished(run_dir, config.epochs):
        _run_child(config, run_dir, on_epoch)
    if config.save:
        average_weights(epoch_weights(run_dir / "weights"), run_dir / "weights/averaged.pt")
        (run_dir / "weights" / PREVIOUS).unlink(missing_ok=True)
    return read_history(run_dir)


def _run_child(config: TrainConfig, run_dir: Path, on_epoch: Callable[[dict[str, float]], None] | None) -> None:
    progress_path, log_path = run_dir / "progress.jsonl", run_dir / "train.log"
    progress_path.write_text("")
    with open(log_path, "ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own module, arguments as a list
            [*_launcher(config.device), "-m", CHILD, str(run_dir)],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt from the keyboard is for this process, which ends that one
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *_python_path()])},
        )
        try:
            _show_progress(process, progress_path, config.epochs, on_epoch)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"training ended with exit status {process.returncode}; the end of {log_path}:\n{tail}")


def read_history(run_dir: Path) -> pd.DataFrame:
    """One row an epoch: losses, precision, recall, AP50, mAP50_95 of the validation list, and the learning rate."""
    history = read_epochs(run_dir / "results.csv")
    return history[list(HISTORY_COLUMNS)].rename(columns=HISTORY_COLUMNS)


def _python_path() -> list[str]:
    return [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []


def _check_precision(config: TrainConfig) -> None:
    on_gpus = config.device != "cpu" and torch.cuda.is_available()
    n_gpus = config.device.count(",") + 1 if config.device else torch.cuda.device_count()
    if config.compiler and on_gpus and n_gpus > 1:
        raise ValueError(f"compiler {config.compiler!r}: expected one GPU, found {n_gpus}; name one as device, or "
                         "leave the compiler out")
    if config.bf16 and on_gpus and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError(f"bf16: {torch.cuda.get_device_name()} has no such arithmetic; leave it out for fp16")


def _launcher(device: str) -> list[str]:
    n_gpus = torch.cuda.device_count()
    if device or n_gpus < 2:
        return [sys.executable]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n_gpus}"]


def _show_progress(
    process: subprocess.Popen, progress_path: Path, epochs: int, on_epoch: Callable[[dict[str, float]], None] | None
) -> None:
    """One bar over all epochs, fed by the lines that the training process writes."""
    scores: dict[str, str] = {}
    with tqdm(total=epochs, desc="training", unit="epoch", bar_format="{l_bar}{bar}| {n:.1f}/{total} epochs "
              "[{elapsed}<{remaining}{postfix}]") as bar, open(progress_path, encoding="utf-8") as lines:
        while True:
            running = process.poll() is None
            for event in _events(lines):
                scores |= {key: f"{value:.3f}" for key, value in event["scores"].items()}
                bar.n = event["epochs_done"]
                bar.set_postfix(scores, refresh=False)
                if on_epoch and "epoch" in event:
                    on_epoch(event["epoch"])
            bar.refresh()
            if not running:
                return
            time.sleep(0.5)


def _events(lines: Any) -> Iterator[dict[str, Any]]:
    while True:
        position = lines.tell()
        line = lines.readline()
        if not line.endswith("\n"):  # nothing, or half a line: come back for it
            lines.seek(position)
            return
        yield json.loads(line)
