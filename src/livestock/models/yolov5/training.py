"""Training in a process of its own, watched from here: a crash there leaves the notebook's kernel alive."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from ...exceptions import StaleResult
from ...files.progress import progress_bar
from ...files.write import write_json
from .averaging import average_weights, epoch_weights
from .labels import LabelOf, class_order, move_classes, names_of
from .resuming import PREVIOUS, is_finished, read_epochs
from .weights import load_checkpoint

logger = logging.getLogger(__name__)

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
# yolov5's lines on files that it leaves out or changes
IGNORED = re.compile(r"WARNING[^\w/\\.]*(\S.*?): ((?:ignoring corrupt|corrupt JPEG|\d+ duplicate).*)")
MOST_SHOWN = 10
SCORES = "scores.jsonl"  # beside results.csv: a line an epoch with what yolov5 does not write down
START = "start.pt"  # beside it: the start weights, if their classes are in another order


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
    nominal_batch: int = NOMINAL_BATCH  # images whose gradients make one optimizer step
    save: bool = True  # a trial of a search needs scores alone: no checkpoint, no last validation of the best one
    compiler: str = ""  # such as "inductor", PyTorch's own, which takes minutes at the start
    bf16: bool = False  # mixed precision in bf16: on GPUs from 2020 on, or a CPU
    cfg: str = ""  # a model.yaml such as yolov5n.yaml to train from scratch, with `weights` empty
    metric_iou: float = 0.75  # the competition's: AP at this IoU chooses the best epoch


def train(
    config: TrainConfig, run_dir: Path, on_epoch: Callable[[dict[str, float]], None] | None = None, *,
    label_of: LabelOf | None = None,
) -> pd.DataFrame:
    """Trains into `run_dir` and returns the history (see `read_history`); a training that was cut off resumes.

    After each epoch `on_epoch` gets its scores on the validation list, under the names of the history; whatever it
    raises ends the training. Classes of the start weights that stand in another order than in `data_yaml`, by name or
    by a synonym that `label_of` knows, are moved to their places first: each label starts from what is known of it.

    Writes `weights/best.pt` (highest AP at `metric_iou` on the validation list, the later of equals),
    `weights/last.pt` and `weights/averaged.pt` (mean of the last epochs), all stripped and in half precision,
    `results.csv`, `scores.jsonl` and `train.log`. Weights that are not finite are not written: the training ends there.
    Several GPUs go through torchrun. Says which images and labels yolov5 has ignored, see `read_ignored`.
    Raises RuntimeError with the end of the log if the process fails, UnsafeWeights for start weights that are refused,
    for a `compiler` with several GPUs or `bf16` with one that cannot.
    """
    run_dir = run_dir.resolve()
    _check_precision(config)
    start = _prepare_start(config, label_of)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(asdict(config), run_dir / "config.json")
    (run_dir / START).unlink(missing_ok=True)
    if start is not None:
        torch.save({"model": start, "epoch": -1}, run_dir / START)
    if not is_finished(run_dir, config.epochs):
        _run_child(config, run_dir, on_epoch)
        _report_ignored(run_dir)
    if config.save:
        average_weights(epoch_weights(run_dir / "weights"), run_dir / "weights/averaged.pt")
        (run_dir / "weights" / PREVIOUS).unlink(missing_ok=True)
    return read_history(run_dir)


def _prepare_start(config: TrainConfig, label_of: LabelOf | None) -> Any:
    """The model to start from, where it is not the one that yolov5 would take from the file of start weights.

    That is one with classes in other places than the data set's, and one of a file that has averaged weights alone.
    Raises UnsafeWeights for weights that are refused.
    """
    if not config.weights:
        return None
    path = Path(config.weights)
    checkpoint = load_checkpoint(path)
    model, is_other = checkpoint.get("model"), False
    if model is None:
        model, is_other = checkpoint["ema"], True
    labels = list(yaml.safe_load(Path(config.data_yaml).read_text(encoding="utf-8"))["names"].values())
    found = names_of(model)
    if order := class_order(found, labels, label_of):
        if config.save:  # a search would say so for each trial
            logger.info("%s: its classes %s are moved to the order of this competition, %s, before training", path,
                        found, labels)
        move_classes(model, order, labels)
    return model if order or is_other else None


def _run_child(config: TrainConfig, run_dir: Path, on_epoch: Callable[[dict[str, float]], None] | None) -> None:
    progress_path, log_path = run_dir / "progress.jsonl", run_dir / "train.log"
    progress_path.write_text("")
    with open(log_path, "ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own module, arguments as a list
            [*_launcher(config.device), "-m", CHILD, str(run_dir)],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt from the keyboard is for this process, which ends that one
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *_python_path()])},
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


def read_ignored(run_dir: Path) -> pd.DataFrame:
    """What yolov5 left out of a training, or changed before it, by its log: `file` and `reason`, one row a file.

    It does so without an error: pictures with a side below ten pixels, labels it cannot use, labels twice in a file.
    """
    text = (run_dir / "train.log").read_text(encoding="utf-8", errors="replace")
    found = dict(IGNORED.findall(text))  # the log of a training that was resumed says it again
    return pd.DataFrame({"file": list(found), "reason": list(found.values())}, dtype=object)


def _report_ignored(run_dir: Path) -> None:
    ignored = read_ignored(run_dir)
    for row in ignored.head(MOST_SHOWN).itertuples():
        logger.warning("yolov5 did not train on it as it is: %s: %s", row.file, row.reason)
    if len(ignored) > MOST_SHOWN:
        logger.warning("... and %d more files; models.yolov5.read_ignored(%r) lists them", len(ignored) - MOST_SHOWN,
                       str(run_dir))


def read_history(run_dir: Path) -> pd.DataFrame:
    """One row an epoch: losses, the learning rate, and of the validation list precision, recall and mean APs.

    `AP` is that at the competition's IoU, by which the best epoch is chosen; beside it AP50, AP75 and mAP50_95.
    Raises StaleResult for a training of an older version, which did not write `AP` down.
    """
    history, path = read_epochs(run_dir / "results.csv"), run_dir / SCORES
    history = history[list(HISTORY_COLUMNS)].rename(columns=HISTORY_COLUMNS)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    whole = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]  # a kill leaves halves
    scores = {row["epoch"]: row for row in whole}  # the last of an epoch: it may have been trained again
    if missing := sorted(set(history["epoch"]) - scores.keys()):
        raise StaleResult(f"{path}: expected the scores of epoch {missing[0]}, found none: an older version has "
                          f"trained here; delete {run_dir} and train again")
    return history.assign(**{name: [scores[epoch][name] for epoch in history["epoch"]] for name in ("AP", "AP75")})


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
    pace = _Pace(epochs)
    with progress_bar("training", unit="epoch", total=epochs, bar_format="{l_bar}{bar}| {n:.1f}/{total} epochs "
              "[{elapsed}<{remaining}{postfix}]") as bar, open(progress_path, encoding="utf-8") as lines:
        while True:
            running = process.poll() is None
            for event in _events(lines):
                scores |= {key: f"{value:.3f}" for key, value in event["scores"].items()}
                bar.n = event["epochs_done"]
                pace.see(event["epochs_done"])
                bar.set_postfix(scores, refresh=False)
                if on_epoch and "epoch" in event:
                    on_epoch(event["epoch"])
            bar.refresh()
            if not running:
                return
            time.sleep(0.5)


class _Pace:
    """Says once, after the first whole epoch, how long the others will take: what real steps took, and no guess."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.first, self.is_said = epochs, (0.0, 0.0), False

    def see(self, done: float) -> None:
        """`done` of the epochs are done now, parts of one included."""
        now = time.monotonic()
        if self.first == (0.0, 0.0):
            self.first = now, done  # what came before is the start of the process
        began, at = self.first
        if not self.is_said and done - at >= 1:
            self.is_said = True
            minutes = (now - began) / (done - at) * (self.epochs - done) / 60
            if minutes >= 1:
                logger.info("training: about %.0f minute%s for the other %.0f epochs", minutes, "s" * (minutes >= 1.5),
                            self.epochs - done)


def _events(lines: Any) -> Iterator[dict[str, Any]]:
    while True:
        position = lines.tell()
        line = lines.readline()
        if not line.endswith("\n"):  # nothing, or half a line: come back for it
            lines.seek(position)
            return
        yield json.loads(line)
