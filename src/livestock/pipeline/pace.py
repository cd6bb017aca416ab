"""Seconds an image on this machine: from real steps of a short training, or, before the first step, from the sizes.

The short training is one as `04_train` starts it, in a process of its own, with this run's settings, on a few of its
images. What else the machine does meanwhile slows it as it will slow the trainings.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psutil

from ..config import Profile
from ..files.hashing import fingerprint
from ..files.write import write_json
from .prepare import read_tables
from .run import Run
from .store import read_records, run_step

if TYPE_CHECKING:
    from ..training import TrainConfig

PACE_EPOCHS = 3  # the first one, with decoding and the start of everything, is not counted as a step's time
N_BATCHES, N_VALID = 6, 24  # of an epoch of the short training; images that it validates on, and that are predicted
N_SEEN = 12  # images of full size that go through the network
CACHE_SHARE, CACHE_BYTES = 8, 2 << 30  # decoded pictures that a training holds: see `training.batches`
STEP_FIELDS = ("family", "weights", "imgsz", "batch", "device", "workers", "optimizer", "compiler", "bf16")
# What a step is taken to cost before one was measured: floating-point operations a parameter at 640 px, forward and
# backward, and operations a second. YOLOv5's sizes need 2,250 to 2,400 forward; a backward pass twice that.
FORWARD_FLOP, TRAIN_FACTOR = 2300.0, 3.0
# A T4 in fp16, from the twelve hours that 20 epochs of the challenge's m6 are said to take; a core of a CPU, from
# bench/train.py.
FLOP_A_SECOND = {"cuda": 5.8e12, "cpu": 1.8e10}


@dataclass(frozen=True)
class Pace:
    """Seconds: of each image in training, in validation, in prediction; `write` to bring it to training size.

    `once` is what the first training of a notebook takes besides, the start of its process and the first decoding, and
    `again` what each further one does: on a CPU the process stays. `gigabytes` is the most memory of a training (of the
    GPU's, or of the process) and `of_gigabytes` what there is; both 0 if not measured.
    """

    train: float
    valid: float
    seen: float
    write: float
    once: float
    again: float = 0.0
    gigabytes: float = 0.0
    of_gigabytes: float = 0.0
    is_measured: bool = False

    def slow_down(self, factor: float) -> Pace:
        """The pace of a machine on which all of it takes so many times as long.

        >>> Pace(train=0.4, valid=0.2, seen=0.2, write=0.01, once=5).slow_down(2).once
        10
        """
        return replace(self, **{name: factor * getattr(self, name)
                                for name in ("train", "valid", "seen", "write", "once", "again")})

    def scale(self, share: float) -> Pace:
        """The pace for images with this share of the pixels.

        >>> Pace(train=0.4, valid=0.2, seen=0.2, write=0.01, once=5).scale(0.25).train
        0.1
        """
        return replace(self, train=self.train * share, valid=self.valid * share, seen=self.seen * share)


def guess_pace(profile: Profile, n_parameters: float, n_cores: int, *, on_gpu: bool) -> Pace:
    """What is to be expected before the first step: from the network's parameters and the pixels. Wrong by a factor.

    >>> from livestock.config import get_profile
    >>> small = guess_pace(get_profile("demo"), 1.8e6, 2, on_gpu=False)
    >>> guess_pace(get_profile("demo"), 3.6e6, 2, on_gpu=False).train == 2 * small.train
    True
    """
    speed = FLOP_A_SECOND["cuda"] if on_gpu else FLOP_A_SECOND["cpu"] * n_cores
    forward = n_parameters * FORWARD_FLOP * (profile.imgsz / 640) ** 2 / speed
    return Pace(train=TRAIN_FACTOR * forward, valid=forward, seen=forward + 0.02, write=0.02 / n_cores, once=8.0,
                again=8.0 if on_gpu else 1.0)


def measure_pace(run: Run) -> Pace:
    """The pace of this machine with this run's settings; measured once for them, see `run_step`.

    Raises MissingResult where the data are not read and split yet, RuntimeError if the short training fails: then the
    others would too.
    """
    from .train import hyp_path, make_config

    path = pace_path(run)
    images, boxes = read_tables(run)
    config = make_config(run, path, hyp_path(run))
    run_step("pace", lambda: write_json(asdict(_measure(run, images, boxes, config)), path), outputs=[path],
             settings=_list_settings(run), workspace=run.workspace.root, says=False)
    return Pace(**json.loads(path.read_text(encoding="utf-8")))


def read_pace(run: Run) -> Pace | None:
    """What was measured with these settings on this machine; None where nothing was."""
    record, path = read_records(run.workspace.root).get("pace"), pace_path(run)
    if record is None or record.settings != _list_settings(run) or not path.exists():
        return None
    return Pace(**json.loads(path.read_text(encoding="utf-8")))


def pace_path(run: Run) -> Path:
    """Where the pace is kept."""
    return run.workspace.interim_dir / "pace.json"


def _list_settings(run: Run) -> dict[str, Any]:
    """What the pace depends on: of the profile what changes a step, and the machine."""
    from .train import hyp_path

    hyp = fingerprint(hyp_path(run))  # mosaics, and what is frozen, change a step's time
    return {**{name: getattr(run.profile, name) for name in STEP_FIELDS}, "hyp": hyp, "machine": describe_machine()}


def describe_machine() -> str:
    """The GPU's name, else the processor's architecture, and the number of cores."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return f"{gpu}, {psutil.cpu_count()} cores"


def _measure(run: Run, images: pd.DataFrame, boxes: pd.DataFrame, config: TrainConfig) -> Pace:
    """Writes some images at training size, trains on them, and predicts with what came out."""
    from ..data import dataset
    from ..training import end_waiting, train

    histories: list[pd.DataFrame] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = choose_images(images, boxes, N_BATCHES * config.batch + N_VALID)
        started = time.monotonic()
        dataset.write_images(chosen, folder, config.imgsz)
        write = (time.monotonic() - started) / len(chosen)
        dataset.write_labels(chosen, boxes[boxes["image_id"].isin(chosen["image_id"])], run.competition.labels, folder)
        ids = chosen["image_id"]
        n_valid = min(N_VALID, len(ids) // 2)
        data_yaml = dataset.write_lists(folder, "pace", ids[n_valid:], ids[:n_valid], run.competition.labels)
        short, seconds = replace(config, data_yaml=str(data_yaml), resumes=False, loggers=()), []
        for epochs in (PACE_EPOCHS, 1):
            started = time.monotonic()
            histories.append(train(replace(short, epochs=epochs), folder / f"run{epochs}",
                                   label_of=run.competition.label_of))
            seconds.append(time.monotonic() - started)
        end_waiting()  # whoever trains next has a process of its own, in a notebook's kernel most often
        seen = _time_prediction(run, chosen, folder / f"run{PACE_EPOCHS}")
        decode = _time_decoding(folder, chosen)
    return find_pace(histories[0], *seconds, n_train=len(ids) - n_valid, n_valid=n_valid, seen=seen, write=write,
                     decode=0.0 if _fits(images, config.imgsz) else decode / max(config.workers, 1),
                     of_gigabytes=_find_memory(config.device))


def find_pace(
    history: pd.DataFrame, whole: float, second: float, *, n_train: int, n_valid: int, seen: float, write: float,
    decode: float = 0.0, of_gigabytes: float = 0.0,
) -> Pace:
    """The pace from the history of a training on `n_train` images that took `whole` seconds with its process.

    Epochs after the first give the seconds of an image, the median; what else it took comes once. `second` are the
    seconds of another such training, of one epoch. `decode` is added to each image's step: of images that do not fit
    into memory, which a short training's do.

    >>> history = pd.DataFrame({"seconds": [9.0, 6.0, 6.0], "valid_seconds": [2.0, 2.0, 2.0], "gigabytes": 1.5})
    >>> pace = find_pace(history, 30.0, 7.0, n_train=8, n_valid=4, seen=0.1, write=0.01)
    >>> pace.train, pace.valid, pace.once, pace.again
    (0.5, 0.5, 12.0, 1.0)
    """
    warm = history.iloc[1:]
    train = float((warm["seconds"] - warm["valid_seconds"]).median()) / n_train
    valid = float(warm["valid_seconds"].median()) / n_valid
    epoch = train * n_train + valid * n_valid
    once, again = max(whole - len(history) * epoch, 0.0), max(second - epoch, 0.0)
    return Pace(train + decode, valid, seen, write, once, again, float(history["gigabytes"].max()), of_gigabytes, True)


def choose_images(images: pd.DataFrame, boxes: pd.DataFrame, n: int) -> pd.DataFrame:
    """So many images with boxes, or all, evenly spread over the table.

    >>> images = pd.DataFrame({"image_id": list("abcdef")})
    >>> choose_images(images, pd.DataFrame({"image_id": list("abdf")}), 2)["image_id"].tolist()
    ['a', 'f']
    """
    labelled = images[images["image_id"].isin(boxes["image_id"])]
    spread = np.linspace(0, len(labelled) - 1, min(n, len(labelled))).astype(int)
    return labelled.iloc[spread].reset_index(drop=True)


def _time_prediction(run: Run, images: pd.DataFrame, run_dir: Path) -> float:
    """Seconds an image of full size, with the weights that the short training left; the first one does not count."""
    from .. import inference
    from ..models.forward import load_for_inference
    from ..training import AVERAGED

    loaded = load_for_inference(run_dir / "weights" / AVERAGED, run.profile.device)
    some = images.iloc[:N_SEEN]

    def see(which: pd.DataFrame) -> float:
        """Seconds that these images take."""
        started = time.monotonic()
        inference.find_candidates(loaded, which, run.competition.labels, imgsz=run.profile.imgsz,
                                  label_of=run.competition.label_of, origin="pace")
        return time.monotonic() - started

    see(some[:1])
    return see(some) / len(some)


def _time_decoding(folder: Path, images: pd.DataFrame) -> float:
    from ..data.dataset import file_name
    from ..data.pictures import decode

    paths: Sequence[Path] = [folder / "images" / file_name(image_id) for image_id in images["image_id"][:N_SEEN]]
    started = time.monotonic()
    for path in paths:
        with path.open("rb") as file:
            decode(file)
    return (time.monotonic() - started) / len(paths)


def _fits(images: pd.DataFrame, imgsz: int) -> bool:
    """Whether a training holds all decoded images in memory: see `training.batches.make_loader`."""
    scale = imgsz / images[["width", "height"]].max(axis=1)
    n_bytes = 3 * (images["width"] * images["height"] * scale**2).sum()
    return bool(n_bytes <= min(CACHE_BYTES, psutil.virtual_memory().total // CACHE_SHARE))


def _find_memory(device: str) -> float:
    import torch

    from ..training.settings import find_place

    place: Any = find_place(device).device
    if place.startswith("cuda"):
        return float(torch.cuda.get_device_properties(place).total_memory) / 1e9
    return psutil.virtual_memory().total / 1e9
