"""A worker of a search as a process of its own, to be killed: trials of four short epochs, written to a ledger."""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from livestock.search import Search, make_meta, run_trials
from livestock.search import storage as places

START = {"lr0": 0.01, "lrf": 0.1, "momentum": 0.9, "mosaic": 0.123456789012345}
EPOCHS = 4


def scores_of(values: Mapping[str, float], epoch: int = EPOCHS - 1) -> dict[str, float]:
    """Scores with one summit, at lr0 = 0.003 and momentum = 0.8, that rise with the epochs."""
    height = 0.9 - 0.1 * (math.log10(values["lr0"]) + 2.5) ** 2 - (values["momentum"] - 0.8) ** 2
    score = max(height, 0.0) * (epoch + 1) / EPOCHS
    losses = dict.fromkeys(["val_box_loss", "val_obj_loss", "val_cls_loss"], 0.1)
    names = ["AP", "AP50", "AP75", "mAP50_95", "precision", "recall"]
    return {"epoch": epoch, **dict.fromkeys(names, score), **losses}


def make(storage: str, **options: object) -> Search:
    """A search of `lr0` and `momentum`, in another order than the start values have."""
    meta = make_meta(["momentum", "lr0"], START)
    usual = {"study": "test", "storage": storage, "meta": meta, "start": START, "n_trials": 8, "epochs": EPOCHS,
             "sampler": "genetic", "identity": {"data_hash": "abc"}}
    return Search(**{**usual, **options})  # type: ignore[arg-type]


def main() -> None:
    """Runs a search as `sys.argv` says, in JSON: `storage`, `n_trials`, `ledger`, `epoch_seconds`, `host`, `backup`."""
    given = json.loads(sys.argv[1])
    if "host" in given:  # as if on a machine of its own, where nobody can look up its process
        socket.gethostname = lambda: given["host"]
        places.HEARTBEAT_SECONDS, places.GRACE_SECONDS = 1, 5

    def write(line: dict[str, object]) -> None:
        with open(given["ledger"], "a") as file:
            file.write(json.dumps({"pid": os.getpid(), **line}) + "\n")

    def objective(
        values: dict[str, float], number: int, device: str, on_epoch: Callable[[Mapping[str, float]], None]
    ) -> None:
        write({"event": "begun", "trial": number})
        for epoch in range(EPOCHS):
            time.sleep(given["epoch_seconds"])
            on_epoch(scores_of(values, epoch))
        write({"event": "ended", "trial": number})

    backup = Path(given["backup"]) if "backup" in given else None
    run_trials(make(given["storage"], n_trials=given["n_trials"], backup=backup), objective)


if __name__ == "__main__":
    main()
