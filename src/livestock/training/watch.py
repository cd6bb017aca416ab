"""How a training comes on, for whoever watches the process that does it: a bar, and the minutes that are left."""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..files.progress import progress_bar

OnEpoch = Callable[[dict[str, float]], None]
logger = logging.getLogger(__name__)


def show_progress(process: subprocess.Popen, progress_path: Path, epochs: int, on_epoch: OnEpoch | None) -> bool:
    """One bar over all epochs, fed by the lines that the training process writes, until one says that it is over.

    Returns False if the process ends without such a line.
    """
    scores: dict[str, str] = {}
    pace = Pace(epochs)
    with progress_bar("training", unit="epoch", total=epochs, bar_format="{l_bar}{bar}| {n:.1f}/{total} epochs "
              "[{elapsed}<{remaining}{postfix}]") as bar, open(progress_path, encoding="utf-8") as lines:
        while True:
            running = process.poll() is None
            for event in read_events(lines):
                if "is_over" in event:
                    return True
                scores |= {key: f"{value:.3f}" for key, value in event["scores"].items() if "_loss" not in key}
                bar.n = event["epochs_done"]
                pace.see(event["epochs_done"])
                bar.set_postfix(scores, refresh=False)
                if on_epoch and "epoch" in event:
                    on_epoch(event["epoch"])
            bar.refresh()
            if not running:
                return False
            time.sleep(0.1)


class Pace:
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


def read_events(lines: Any) -> Iterator[dict[str, Any]]:
    """What has been written to an open file of JSON lines since it was last read."""
    while True:
        position = lines.tell()
        line = lines.readline()
        if not line.endswith("\n"):  # nothing, or half a line: come back for it
            lines.seek(position)
            return
        yield json.loads(line)
