"""In the training process: yolov5's own training, with what it lacks set before it starts."""

from __future__ import annotations

import dis
import itertools
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ...evaluation import average_precision
from ...files.logs import show_messages
from ...files.memory import keep_blocks
from . import loop, mosaic
from .averaging import keep_epoch
from .compat import overlay
from .order import make_seed, seed_batches, seed_everything
from .resuming import (
    LAST_STEP,
    Running,
    find_resumable,
    find_unstripped,
    forget_epochs,
    save_whole,
    single_precision,
    write_options,
)
from .training import HISTORY_COLUMNS, NOMINAL_BATCH, SCORES, START, TrainConfig
from .weights import load_checkpoint

logger = logging.getLogger(f"{__package__}.child")  # its own name is __main__

N_IOUS, AT_75 = 10, 5  # of yolov5's validation: 0.5, 0.55 ... 0.95


def main(run_dir: Path) -> None:
    """Trains as `run_dir/config.json` says; what `train` starts."""
    from . import compat

    keep_blocks(of_any_size=True)
    compat.apply()
    mosaic.speed_up()
    import yolov5.train as yolov5_train
    from yolov5.utils.callbacks import Callbacks

    config = TrainConfig(**json.loads((run_dir / "config.json").read_text()))
    running = Running()
    torch.save = save_whole(torch.save, running)
    if unstripped := find_unstripped(run_dir, config.epochs):  # killed after the last epoch
        for path in unstripped:
            yolov5_train.strip_optimizer(path)
        return
    loop.never_wait(yolov5_train, compiler=config.compiler, bf16=config.bf16)
    yolov5_train.deepcopy = single_precision  # yolov5 copies models only to save them
    callbacks = Callbacks()
    if int(os.environ.get("RANK", "-1")) in (-1, 0):
        _report_progress(callbacks, run_dir / "progress.jsonl", config,
                         _choose_by_metric(yolov5_train, config.metric_iou))
        _keep_hold(yolov5_train, callbacks, running)
    if config.save:
        callbacks.register_action("on_model_save", callback=lambda last, epoch, *_: keep_epoch(
            single_precision(running.ema.ema), last.parent, epoch))
    else:
        _end_after_last_epoch(callbacks, config.epochs)
    if config.nominal_batch != NOMINAL_BATCH:
        _set_nominal_batch(yolov5_train, config.nominal_batch)
    checkpoint = find_resumable(run_dir / "weights")
    start_epoch = _prepare_to_resume(yolov5_train, run_dir, checkpoint)
    _seed_epochs(callbacks, config.seed, start_epoch)
    sys.argv = sys.argv[:1]  # yolov5 parses the command line for its defaults
    options = yolov5_train.parse_opt(True)
    for name, value in _options(config, run_dir).items():
        setattr(options, name, value)
    if checkpoint:
        logger.info("resuming from %s", checkpoint)
        # Those in the checkpoint name the folder where it began: it may have been moved since, or be a stranger's.
        write_options({**vars(options), "save_dir": str(run_dir)}, run_dir)
        options.resume = str(checkpoint)
    yolov5_train.main(options, callbacks)


def _keep_hold(yolov5_train: Any, callbacks: Any, running: Running) -> None:
    """Lets `running` know the model, its averaged weights, and when the optimizer takes a step."""
    average = yolov5_train.ModelEMA

    def model_ema(model: Any) -> Any:
        running.model, running.ema = model, average(model)
        return running.ema

    def on_start() -> None:
        running.updates = running.ema.updates  # what a resumed training begins with is no step

    yolov5_train.ModelEMA = model_ema
    callbacks.register_action("on_train_start", callback=on_start)
    callbacks.register_action("on_train_batch_end", callback=lambda model, batch, *_: running.note_step(batch))


def _seed_epochs(callbacks: Any, seed: int, start_epoch: int) -> None:
    """Each epoch, and each batch of images, from a seed of its own, whatever came before."""
    epochs = itertools.count(start_epoch)
    seed_batches(seed, start_epoch)
    callbacks.register_action(
        "on_train_epoch_start", callback=lambda: seed_everything(make_seed(seed, next(epochs))))


def _set_nominal_batch(yolov5_train: Any, nominal_batch: int) -> None:
    """Sets the number of images in one optimizer step. yolov5 has the number as a constant inside its `train`.

    Raises RuntimeError if that function is no longer the one known.
    """
    code = yolov5_train.train.__code__
    is_nominal = [type(constant) is int and constant == NOMINAL_BATCH for constant in code.co_consts]
    if sum(is_nominal) != 1:
        raise RuntimeError(f"yolov5.train: expected one constant {NOMINAL_BATCH}, found {sum(is_nominal)}")
    constants = zip(code.co_consts, is_nominal, strict=True)
    changed = tuple(nominal_batch if nominal else constant for constant, nominal in constants)
    yolov5_train.train.__code__ = code.replace(co_consts=changed)


def _prepare_to_resume(yolov5_train: Any, run_dir: Path, path: Path | None) -> int:
    """The epoch to begin with, from the checkpoint to resume from if there is one."""
    if path is None:
        return 0
    content = load_checkpoint(path)
    forget_epochs(run_dir, content["epoch"] + 1)
    if LAST_STEP in content:  # not in a checkpoint of yolov5's own
        _set_last_step(yolov5_train, content[LAST_STEP])
    return content["epoch"] + 1


def _set_last_step(yolov5_train: Any, batch: int) -> None:
    """Makes the optimizer's steps come after the batches after which they would have come without a break.

    yolov5 begins with `last_opt_step = -1`, and so takes one right after the first batch. Raises RuntimeError if its
    `train` is no longer the one known.
    """
    code = yolov5_train.train.__code__
    steps = list(dis.get_instructions(code))
    places = [first.offset for first, second in itertools.pairwise(steps) if first.opname == "LOAD_CONST"
              and first.argval == -1 and second.opname == "STORE_FAST" and second.argval == "last_opt_step"]
    if len(places) != 1 or len(code.co_consts) > 255:  # the number of a constant is one byte of the instruction
        raise RuntimeError(f"yolov5.train: expected `last_opt_step = -1` once, found it {len(places)} times")
    changed = bytearray(code.co_code)
    changed[places[0] + 1] = len(code.co_consts)
    yolov5_train.train.__code__ = code.replace(co_code=bytes(changed), co_consts=(*code.co_consts, batch))


def _options(config: TrainConfig, run_dir: Path) -> dict[str, Any]:
    """yolov5's own spellings."""
    return {
        "data": config.data_yaml,
        "weights": str(run_dir / START) if (run_dir / START).exists() else config.weights,
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


def _choose_by_metric(yolov5_train: Any, metric_iou: float) -> dict[str, float]:
    """Makes `AP`, at the competition's IoU, choose the best epoch, and returns where it and `AP75` of the latest stand.

    yolov5 matches boxes at IoU 0.5, 0.55 ... 0.95 and chooses by 0.1 AP50 + 0.9 mAP50-95. It gets `metric_iou` as an
    eleventh, of which only this function knows: precision, recall, AP50 and mAP50-95 stay what they were.
    """
    yolov5_val = yolov5_train.validate
    latest, ap_per_class = dict.fromkeys(("AP", "AP75"), 0.0), yolov5_val.ap_per_class

    def one_more(*arguments: Any, **options: Any) -> torch.Tensor:
        ious = torch.linspace(*arguments, **options)
        return torch.cat([ious, ious.new_tensor([metric_iou])])

    def watched(tp: np.ndarray, conf: np.ndarray, pred_cls: np.ndarray, target_cls: np.ndarray, **options: Any) -> Any:
        order = np.argsort(-conf, kind="stable")
        classes, n_truth = np.unique(target_cls, return_counts=True)
        for name, column in (("AP", N_IOUS), ("AP75", AT_75)):
            found, predicted = tp[order, column], pred_cls[order]
            each = [average_precision(found[predicted == of], n) for of, n in zip(classes, n_truth, strict=True)]
            latest[name] = float(np.mean(each))
        return ap_per_class(tp[:, :N_IOUS], conf, pred_cls, target_cls, **options)

    yolov5_val.torch = overlay(torch, linspace=one_more)
    yolov5_val.ap_per_class = watched
    yolov5_train.fitness = lambda results: np.array([latest["AP"]])
    return latest


def _end_after_last_epoch(callbacks: Any, epochs: int) -> None:
    """Leaves when the last epoch is written down: registered late, so that yolov5's own loggers have run."""

    def on_epoch(values: list[Any], epoch: int, best_fitness: Any, fitness: Any) -> None:
        """The scores of an epoch, to the watching process and to the history."""
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
        """Once a second: how far the epoch is. Ends the training if nobody watches it any more."""
        if os.getppid() != parent:
            raise SystemExit("the process that watched this training is gone")
        if time.monotonic() - started["time"] > 1:
            started["time"] = time.monotonic()
            write((step + 1) / n_batches, {"box": float(losses[0]), "obj": float(losses[1])})

    def on_epoch(values: list[Any], epoch: int, best_fitness: Any, fitness: Any) -> None:
        named = dict(zip(list(HISTORY_COLUMNS.values())[1:11], map(float, values), strict=False))
        with open(path.with_name(SCORES), "a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps({'epoch': epoch, **latest})}\n")  # not behind the half line of a kill
        scores = {name: named[name] for name in ("AP50", "mAP50_95")} | latest
        write(epoch + 1, scores, epoch={"epoch": epoch, **named, **latest})
        latest.update(dict.fromkeys(latest, 0.0))  # yolov5 does not come by where nothing was found

    callbacks.register_action("on_train_batch_end", callback=on_batch)
    callbacks.register_action("on_fit_epoch_end", callback=on_epoch)


def _count_training_images(data_yaml: Path) -> int:
    content = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    return len((Path(content["path"]) / content["train"]).read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    show_messages()  # into the log of the training
    main(Path(sys.argv[1]))
