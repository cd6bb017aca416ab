"""Training in a process of its own, watched from here: a crash there leaves the notebook's kernel alive."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from tqdm.auto import tqdm

from ..metrics import average_precision
from ..steps import write_json
from .averaging import average_weights, epoch_weights, keep_epoch
from .weights import check_checkpoint, load_checkpoint

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
    Raises RuntimeError with the end of the log if the process fails.
    """
    run_dir = run_dir.resolve()
    if config.weights:
        check_checkpoint(Path(config.weights))
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(asdict(config), run_dir / "config.json")
    progress_path, log_path = run_dir / "progress.jsonl", run_dir / "train.log"
    progress_path.write_text("")
    with open(log_path, "ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own module, arguments as a list
            [*_launcher(config.device), "-m", __name__, str(run_dir)],
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
    if config.save:
        average_weights(epoch_weights(run_dir / "weights"), run_dir / "weights/averaged.pt")
    return read_history(run_dir)


def read_history(run_dir: Path) -> pd.DataFrame:
    """One row an epoch: losses, precision, recall, AP50, mAP50_95 of the validation list, and the learning rate."""
    history = pd.read_csv(run_dir / "results.csv", skipinitialspace=True)
    history.columns = history.columns.str.strip()
    return history[list(HISTORY_COLUMNS)].rename(columns=HISTORY_COLUMNS)


def _python_path() -> list[str]:
    return [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []


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


# -- in the training process ------------------------------------------------------------------------------------


def main(run_dir: Path) -> None:
    """Trains as `run_dir/config.json` says; what `train` starts."""
    from .. import yolov5_compat

    yolov5_compat.apply()
    import yolov5.train as yolov5_train
    from yolov5.utils.callbacks import Callbacks

    config = TrainConfig(**json.loads((run_dir / "config.json").read_text()))
    callbacks = Callbacks()
    if int(os.environ.get("RANK", "-1")) in (-1, 0):
        _report_progress(callbacks, run_dir / "progress.jsonl", config, _watch_validation(yolov5_train.validate))
    if config.save:
        callbacks.register_action("on_model_save", callback=lambda last, epoch, *_: keep_epoch(last, epoch))
    else:
        _end_after_last_epoch(callbacks, config.epochs)
    _use_the_processor(yolov5_train)
    if config.nominal_batch != NOMINAL_BATCH:
        _set_nominal_batch(yolov5_train, config.nominal_batch)
    sys.argv = sys.argv[:1]  # yolov5 parses the command line for its defaults
    options = yolov5_train.parse_opt(True)
    for name, value in _options(config, run_dir).items():
        setattr(options, name, value)
    yolov5_train.main(options, callbacks)


def _use_the_processor(yolov5_train: Any) -> None:
    """All cores, where yolov5 leaves one idle, and weights in channels-last order, which convolutions read faster.

    Together 1.36 s to 0.61 s a batch of 16 at 416 px on 2 cores; the numbers that come out are the same but for
    rounding. The order is set just before the optimizer takes hold of the weights, and undone in what is saved, for
    yolov5 cannot fold batch norm into such weights.
    """
    torch.set_num_threads(os.cpu_count() or 1)
    make_optimizer = yolov5_train.smart_optimizer

    def smart_optimizer(model: Any, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        return make_optimizer(model.to(memory_format=torch.channels_last), *args, **kwargs)

    def deepcopy(model: Any) -> Any:  # yolov5 copies models only to save them
        return copy.deepcopy(model).to(memory_format=torch.contiguous_format)

    yolov5_train.smart_optimizer, yolov5_train.deepcopy = smart_optimizer, deepcopy


def _set_nominal_batch(yolov5_train: Any, nominal_batch: int) -> None:
    """Makes one optimizer step of so many images. yolov5 has the number as a constant inside its `train`.

    Raises RuntimeError if that function is no longer the one known.
    """
    code = yolov5_train.train.__code__
    is_nominal = [type(constant) is int and constant == NOMINAL_BATCH for constant in code.co_consts]
    if sum(is_nominal) != 1:
        raise RuntimeError(f"yolov5.train: expected one constant {NOMINAL_BATCH}, found {sum(is_nominal)}")
    constants = zip(code.co_consts, is_nominal, strict=True)
    changed = tuple(nominal_batch if nominal else constant for constant, nominal in constants)
    yolov5_train.train.__code__ = code.replace(co_consts=changed)


def _options(config: TrainConfig, run_dir: Path) -> dict[str, Any]:
    """yolov5's own spellings. An unfinished `last.pt` resumes with the options it was started with."""
    last = run_dir / "weights/last.pt"
    if last.exists() and load_checkpoint(last)["epoch"] >= 0:
        print(f"resuming from {last}")
        return {"resume": str(last)}
    return {
        "data": config.data_yaml,
        "weights": config.weights,
        "cfg": config.cfg,
        "hyp": config.hyp,
        "imgsz": config.imgsz,
        "batch_size": config.batch,
        "epochs": config.epochs,
        "optimizer": config.optimizer,
        "cos_lr": config.cos_lr,
        "device": config.device,
        "workers": config.workers,
        "seed": config.seed,
        "project": str(run_dir.parent),
        "name": run_dir.name,
        "exist_ok": True,
        "noplots": True,
        "nosave": not config.save,
    }


def _watch_validation(yolov5_val: Any) -> dict[str, float]:
    """Keeps `AP75` of the last validation, which yolov5 computes on the way to mAP50-95 and throws away.

    The mean over classes with truth of the area under the precision envelope, from yolov5's own matches at IoU 0.75.
    """
    latest, ap_per_class = {"AP75": 0.0}, yolov5_val.ap_per_class

    def watched(tp: np.ndarray, conf: np.ndarray, pred_cls: np.ndarray, target_cls: np.ndarray, **options: Any) -> Any:
        order, of = np.argsort(-conf, kind="stable"), 5  # columns are IoU 0.5, 0.55 ... 0.95
        found, predicted = tp[order, of], pred_cls[order]
        classes, n_truth = np.unique(target_cls, return_counts=True)
        each = [average_precision(found[predicted == name], n) for name, n in zip(classes, n_truth, strict=True)]
        latest["AP75"] = float(np.mean(each))
        return ap_per_class(tp, conf, pred_cls, target_cls, **options)

    yolov5_val.ap_per_class = watched
    return latest


def _end_after_last_epoch(callbacks: Any, epochs: int) -> None:
    """Leaves when the last epoch is written down: registered late, so that yolov5's own loggers have run."""

    def on_epoch(values: list[Any], epoch: int, best_fitness: Any, fitness: Any) -> None:
        if epoch + 1 == epochs:
            raise SystemExit(0)

    callbacks.register_action(
        "on_train_start", callback=lambda: callbacks.register_action("on_fit_epoch_end", callback=on_epoch)
    )


def _report_progress(callbacks: Any, path: Path, config: TrainConfig, latest: dict[str, float]) -> None:
    """Writes a line a second and one an epoch for the watching process, and ends with it if it dies."""
    parent, started = os.getppid(), {"batches": 0.0, "time": 0.0, "epoch": 0.0}
    n_images = _count_training_images(Path(config.data_yaml))
    n_batches = -(-n_images // min(config.batch, n_images))

    def write(epochs_done: float, scores: dict[str, float], **more: Any) -> None:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"epochs_done": epochs_done, "scores": scores, **more}) + "\n")

    def on_batch(model: Any, step: int, images: Any, targets: Any, paths: Any, losses: list[Any]) -> None:
        if os.getppid() != parent:
            raise SystemExit("the process that watched this training is gone")
        if time.monotonic() - started["time"] > 1:
            started["time"] = time.monotonic()
            write((step + 1) / n_batches, {"box": float(losses[0]), "obj": float(losses[1])})

    def on_epoch(values: list[Any], epoch: int, best_fitness: Any, fitness: Any) -> None:
        named = dict(zip(list(HISTORY_COLUMNS.values())[1:11], map(float, values), strict=False))
        scores = {name: named[name] for name in ("AP50", "mAP50_95")} | latest
        write(epoch + 1, scores, epoch={"epoch": epoch, **named, **latest})
        latest["AP75"] = 0.0  # yolov5 does not come by where nothing was found

    callbacks.register_action("on_train_batch_end", callback=on_batch)
    callbacks.register_action("on_fit_epoch_end", callback=on_epoch)


def _count_training_images(data_yaml: Path) -> int:
    content = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    return len((Path(content["path"]) / content["train"]).read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
