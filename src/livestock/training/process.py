"""Training in a process of its own, watched from here: a crash there leaves the notebook's kernel alive.

Such a process takes seconds to start, as long as an epoch of a trial on a CPU. There it stays when its training is
over, and waits for the next one.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import select
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch

from ..exceptions import StaleResult
from ..files.memory import give_back
from ..files.write import write_json
from ..models.checkpoint import read_checkpoint
from ..models.labels import LabelOf
from .batches import read_labels
from .loop import run_training
from .resume import HISTORY, is_finished, read_rows
from .settings import TrainConfig, find_place
from .watch import OnEpoch, show_progress

SETTINGS, PROGRESS, LOG = "config.json", "progress.jsonl", "train.log"
WATCHER = "LIVESTOCK_WATCHER"  # in the environment: the process that shows the progress
LINES_SHOWN = 15  # of the log's end, when a training fails
logger = logging.getLogger(__name__)


def train(
    config: TrainConfig, run_dir: Path, on_epoch: OnEpoch | None = None, *, label_of: LabelOf | None = None,
) -> pd.DataFrame:
    """Trains into `run_dir` and returns the history (see `read_history`); a training that was cut off resumes.

    After each epoch `on_epoch` gets its row of the history; whatever it raises ends the training. Classes of the start
    weights that stand in another order than in `data_yaml`, by name or by a synonym that `label_of` knows, are moved to
    their places first: each label starts from what is known of it.

    Writes `weights/best.safetensors` (highest AP at `metric_iou` on the validation images, of keypoints the lowest NME,
    the later of equals) and `weights/averaged.safetensors` (mean of the last epochs), in half precision,
    `history.jsonl` and `train.log`. Several GPUs go through torchrun. Raises RuntimeError with the end of the log if
    the process fails, UnsafeWeights for start weights that are refused, ValueError for a `compiler` with several GPUs
    or `bf16` with one that cannot.
    """
    run_dir = run_dir.resolve()
    _check_precision(config)
    start_labels = _name_start_classes(config, label_of)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json({"config": asdict(config), "start_labels": start_labels}, run_dir / SETTINGS)
    if not is_finished(run_dir, config):
        _run_child(config, run_dir, on_epoch)
    return read_history(run_dir)


def read_history(run_dir: Path) -> pd.DataFrame:
    """One row an epoch: each part of the loss (`train_...`, `val_...`), scores, learning rate, seconds.

    `AP` is that at the competition's IoU, by which the best epoch is chosen; beside it AP50, AP75, mAP50_95, precision
    and recall. Of keypoints it is `NME`, beside PCK, pixels and median: see `pose_scores.validate_poses`. Raises
    StaleResult for a training of an older version.
    """
    rows = read_rows(run_dir)
    if not rows:
        raise StaleResult(f"{run_dir / HISTORY}: expected the scores of a training, found none: an older version has "
                          f"trained here, or none; delete {run_dir} and train again")
    return pd.DataFrame(rows)


def main(run_dir: Path) -> None:
    """Trains as `run_dir/config.json` says, in this process; what `train` starts."""
    content = json.loads((run_dir / SETTINGS).read_text(encoding="utf-8"))
    content["config"]["loggers"] = tuple(content["config"]["loggers"])
    watcher = _find_watcher()

    def report(event: dict[str, Any]) -> None:
        """A line for the watching process; the training ends if nobody watches it any more."""
        if not _is_alive(watcher):
            raise SystemExit("the process that watched this training is gone")
        _tell(run_dir, event)

    run_training(TrainConfig(**content["config"]), run_dir, report, content["start_labels"])


def serve() -> None:
    """Trains in each folder that comes on standard input, in a line of JSON, until that ends or a training fails."""
    watcher = _find_watcher()
    while _is_alive(watcher):
        if not select.select([sys.stdin], [], [], 1.0)[0]:
            continue
        line = sys.stdin.readline()
        if not line:
            return
        run_dir = Path(json.loads(line))
        with open(run_dir / LOG, "ab") as log:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
                os.dup2(log.fileno(), stream.fileno())
        main(run_dir)
        give_back()
        _tell(run_dir, {"is_over": True})


def _find_watcher() -> int:
    return int(os.environ.get(WATCHER, os.getppid()))  # torchrun lies between, and would outlive it


def _tell(run_dir: Path, event: dict[str, Any]) -> None:
    with open(run_dir / PROGRESS, "a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _name_start_classes(config: TrainConfig, label_of: LabelOf | None) -> list[str] | None:
    """The classes of the start weights in their own order, synonyms as this competition names them."""
    if not config.weights:
        return None
    start = read_checkpoint(Path(config.weights))
    found, is_backbone = list(start.config.labels), str(start.header.get("official", "")).endswith("_imagenet")
    labels = read_labels(Path(config.data_yaml))
    named = [(label_of(name) if label_of else None) or name for name in found]
    # A backbone has no outputs for classes to be moved, and a search would say so for each trial.
    if config.save and not is_backbone and set(named) & set(labels) and named != labels:
        logger.info("%s: its classes %s are moved to the order of this competition, %s, before training",
                    config.weights, found, labels)
    return named


def _check_precision(config: TrainConfig) -> None:
    on_gpus = config.device != "cpu" and torch.cuda.is_available()
    n_gpus = config.device.count(",") + 1 if config.device else torch.cuda.device_count()
    if config.compiler and on_gpus and n_gpus > 1:
        raise ValueError(f"compiler {config.compiler!r}: expected one GPU, found {n_gpus}; name one as device, or "
                         "leave the compiler out")
    if config.bf16 and on_gpus and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError(f"bf16: {torch.cuda.get_device_name()} has no such arithmetic; leave it out for fp16")


def _launcher(device: str) -> list[str]:
    n_gpus = device.count(",") + 1 if device else torch.cuda.device_count()
    return [sys.executable] if device == "cpu" or n_gpus < 2 else launch_side_by_side(n_gpus)


def launch_side_by_side(n_processes: int) -> list[str]:
    """The torchrun command, without its module, for distributed training in `n_processes` processes on this machine.

    The rendezvous uses the loopback address: with the host name, a name server that does not answer blocks it for 30
    minutes.
    """
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
            f"--nproc_per_node={n_processes}"]


@dataclass(frozen=True)
class _Child:
    """A process that trains, and what it was started with: the environment and folder, and the process that owns it."""

    process: subprocess.Popen
    started_with: tuple[dict[str, str], str]
    owner: int


_waiting: list[_Child] = []  # a process that has trained and waits for more: one at most


def _run_child(config: TrainConfig, run_dir: Path, on_epoch: OnEpoch | None) -> None:
    progress_path, log_path = run_dir / PROGRESS, run_dir / LOG
    progress_path.write_text("")
    log_path.touch()
    # A GPU's memory would not be free while it waits, a logger may take one training a process for granted, and a
    # compiler counts what it has compiled.
    stays = find_place(config.device).device == "cpu" and not config.loggers and not config.compiler
    child: _Child | None = None
    try:
        child = _start_child(config.device, run_dir, stays=stays)
        is_over = show_progress(child.process, progress_path, config.epochs, on_epoch)
    except BaseException:
        if child:
            _end(child)
        raise
    if is_over and not _waiting:
        _waiting.append(child)
        return
    status = 0 if is_over else child.process.returncode
    _end(child)
    if status:
        tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-LINES_SHOWN:])
        raise RuntimeError(f"training ended with exit status {status}; the end of {log_path}:\n{tail}")


def _start_child(device: str, run_dir: Path, *, stays: bool) -> _Child:
    """A process that trains in `run_dir`; one that `stays` reads so on its standard input, and may be there already."""
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), WATCHER: str(os.getpid())}
    child = _take_waiting() if stays else None
    if child and not (child.started_with == (environment, os.getcwd()) and _hand_over(child, run_dir)):
        _end(child)
        child = None
    if child is None:
        with open(run_dir / LOG, "ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own module, arguments as a list
                [*_launcher(device), "-m", f"{__package__}.child", *[str(run_dir)] * (not stays)],
                stdin=subprocess.PIPE if stays else subprocess.DEVNULL,
                bufsize=0,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt from the keyboard is for this process, which ends that one
                env=environment,
            )
        child = _Child(process, (environment, os.getcwd()), os.getpid())
        _hand_over(child, run_dir)
    return child


def _hand_over(child: _Child, run_dir: Path) -> bool:
    """Says where to train, to a process that reads it; False if that is gone."""
    if child.process.stdin is None:
        return True
    try:
        child.process.stdin.write(f"{json.dumps(str(run_dir))}\n".encode())
    except BrokenPipeError:
        return False
    return child.process.poll() is None


def _take_waiting() -> _Child | None:
    """The process that waits. A fork of this process has a copy of the list, and nothing to do with what is in it."""
    with suppress(IndexError):  # another thread may have been quicker
        child = _waiting.pop()
        return child if child.owner == os.getpid() else None
    return None


def _end(child: _Child) -> None:
    if child.process.poll() is None:
        child.process.terminate()
        child.process.wait()
    if child.process.stdin:
        child.process.stdin.close()


@atexit.register
def end_waiting() -> None:
    """Ends the process that waits for another training, if there is one, and gives its memory back."""
    while child := _take_waiting():
        _end(child)
