"""What a training that was cut off needs to go on as if it had not been: whole checkpoints and the random state.

yolov5 writes `last.pt` in place, so that a kill in the middle leaves half a file and nothing before it; it keeps the
optimizer and the averaged weights but not the random state; and it cannot tell a finished training, whose `last.pt` is
stripped, from one that never began.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from ..steps import write_text
from .weights import load_checkpoint

LAST, BEST, PREVIOUS = "last.pt", "best.pt", "previous.pt"
RANDOM = "random_state"  # in the checkpoint
_loaders: list[Any] = []  # the training's own, once yolov5 has made it


def save_whole(save: Callable[..., None]) -> Callable[..., None]:
    """`torch.save` that writes beside, flushed, and renames; the `last.pt` before stays as `previous.pt`.

    Adds the random state to what becomes `last.pt`.
    """

    def saved(content: Any, target: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(target, (str, Path)):
            return save(content, target, *args, **kwargs)
        path = Path(target)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        if path.name == LAST and isinstance(content, dict):
            content = {**content, RANDOM: random_state()}
        with open(beside, "wb") as file:
            save(content, file, *args, **kwargs)
            file.flush()
            os.fsync(file.fileno())
        if path.name == LAST and path.exists():
            os.replace(path, path.with_name(PREVIOUS))
        os.replace(beside, path)
        return None

    return saved


def find_resumable(weights_dir: Path) -> Path | None:
    """The checkpoint to go on from: `last.pt`, or `previous.pt` if that is missing or broken; None to begin anew.

    Prints why a file was passed over.
    """
    for path in (weights_dir / LAST, weights_dir / PREVIOUS):
        if not path.exists():
            continue
        try:
            checkpoint = load_checkpoint(path)
        except ValueError as error:
            print(f"passed over: {error}")
            continue
        if checkpoint["epoch"] >= 0:
            return path
    return None


def is_finished(run_dir: Path, epochs: int) -> bool:
    """Whether all epochs were trained and their weights stripped: nothing is left to do but what follows training."""
    return find_unstripped(run_dir, epochs) == []


def find_unstripped(run_dir: Path, epochs: int) -> list[Path] | None:
    """Of a training whose last epoch is in `last.pt` the weights that are still to be stripped; None of any other.

    A kill may come between the last epoch and the end: no epoch is left to go on with, and yolov5 fails if asked to.
    """
    last, history = run_dir / "weights" / LAST, run_dir / "results.csv"
    if not last.exists() or not history.exists() or len(read_epochs(history)) < epochs:
        return None
    found = []
    for path in (last, last.with_name(BEST)):
        try:
            epoch = load_checkpoint(path)["epoch"] if path.exists() else -1
        except ValueError:
            return None  # broken: `find_resumable` says so
        if path == last and 0 <= epoch < epochs - 1:
            return None
        if epoch >= 0:
            found.append(path)
    return found


def read_epochs(path: Path) -> pd.DataFrame:
    """`results.csv` with its own column names, a row an epoch: the last one written, without a half written line."""
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1].splitlines()
    rows = [[cell.strip() for cell in line.split(",")] for line in whole]
    table = pd.DataFrame([row for row in rows[1:] if len(row) == len(rows[0])], columns=rows[0]).apply(pd.to_numeric)
    return table.drop_duplicates("epoch", keep="last").sort_values("epoch", ignore_index=True)


def write_options(options: dict[str, Any], run_dir: Path) -> None:
    """The `opt.yaml` that yolov5 resumes with; without one it would take the options that the checkpoint holds."""
    write_text(yaml.safe_dump(json.loads(json.dumps(options, default=str))), run_dir / "opt.yaml")


def forget_epochs(run_dir: Path, from_epoch: int) -> None:
    """Takes epochs that will be trained again out of `results.csv`."""
    path = run_dir / "results.csv"
    if path.exists():
        table = read_epochs(path)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        table[table["epoch"] < from_epoch].to_csv(beside, index=False)
        os.replace(beside, path)


def random_state() -> dict[str, Any]:
    """The state of every generator that training draws from, in types that a safe load allows."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - yolov5 draws from the global one
    return {
        "python": random.getstate(),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), *(rest[0:2]), float(rest[2])),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "order": [loader.generator.get_state() for loader in _loaders],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Sets the generators as `random_state` found them; the order of images only where no worker drew it ahead."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002 - yolov5 draws from the global one
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
    for loader, order in zip(_loaders, state["order"], strict=False):
        if loader.num_workers == 0:
            loader.generator.set_state(order)
            if len(loader.dataset) % loader.batch_size == 0:
                # torch's sampler draws once more after its last image; with full batches alone only when asked for the
                # next epoch, which the iterator that was saved had not been yet
                torch.randperm(len(loader.dataset), generator=loader.generator)


def watch_loader(create: Callable[..., Any], start_epoch: int) -> Callable[..., Any]:
    """yolov5's `create_dataloader` that remembers the training's loader.

    Workers begin anew when a training resumes, from seeds of their own: these are moved by the epoch, or images would
    come in the order and with the augmentations of the first epochs once more.
    """

    def created(*args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("shuffle"):
            return create(*args, **kwargs)
        loader, dataset = create(*args, **{**kwargs, "seed": kwargs.get("seed", 0) + 1009 * start_epoch})
        _loaders[:] = [loader]
        return loader, dataset

    return created
