"""What a run will need, said before it starts: trainings and disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.archives import image_size
from ..data.readers.report import Report
from ..data.readers.tree import File, list_files, pictures_among
from ..exceptions import BadData
from ..files.disk import images_disk_bytes, training_disk_bytes
from .detectors import find_scale, list_experiments
from .run import Run
from .stages import STAGES, Sizes, list_pieces

N_MEASURED = 16  # images whose size is taken as typical of all


@dataclass(frozen=True)
class Expectation:
    """What a run with nothing done yet is expected to need."""

    n_images: int
    n_trainings: int
    image_epochs: float
    disk_bytes: int

    def __str__(self) -> str:
        return (f"{self.n_images:,} images, {self.n_trainings} trainings, {self.image_epochs:,.0f} images to train on "
                f"in all, and {self.disk_bytes / 1e9:.1f} GB of disk if nothing is done yet; each training says after "
                "its first epoch how long it will take")


def expect(run: Run, notebooks: Mapping[str, Mapping[str, Any]]) -> Expectation:
    """Trainings and disk of these notebooks, each with its parameters, for the images that lie in the data folder.

    Minutes are the plan's, see `planning`. Raises BadData as the readers do for archives that are refused, and for
    start weights that are a file and not there.
    """
    from .train import guess_start_bytes

    images = count_images(run.data_dir, run.workspace.root)
    trainings, n_images, profile = list_trainings(run, notebooks), len(images), run.profile
    of_experiments = list_experiments(find_scale(profile.name), n_images) if "09_detectors" in notebooks else []
    image_epochs = n_images * sum(share * epochs for share, epochs in trainings)
    image_epochs += sum(n_trained * epochs for n_trained, epochs in of_experiments)
    n_sets = 1 + len(_of(notebooks, "06_silver", "STRATEGIES", []))
    n_kept = sum(epochs == profile.epochs for _, epochs in trainings)  # trials of the search keep no weights
    disk = n_sets * images_disk_bytes(images, profile.imgsz)
    if n_kept:  # else no weights are asked for
        disk += n_kept * training_disk_bytes(guess_start_bytes(run), profile.optimizer)
    return Expectation(n_images, len(trainings) + len(of_experiments), image_epochs, disk)


def count_images(data_dir: Path, workspace: Path) -> pd.DataFrame:
    """A row for each image below a folder and in its zips: `width, height`, the median of some that were measured.

    A `workspace` in the folder is passed over.
    """
    files = pictures_among(list_files(data_dir, Report(), skip=[workspace]))
    if not files:
        raise BadData(f"{data_dir}: expected images or zips of images, found none")
    some = [files[index] for index in np.linspace(0, len(files) - 1, min(N_MEASURED, len(files))).astype(int)]
    sizes = [size for file in some if (size := _size(file)) is not None]
    width, height = np.median(sizes, axis=0) if sizes else (0, 0)  # reading says what is wrong with each
    return pd.DataFrame({"width": width, "height": height}, index=range(len(files)))


def _size(file: File) -> tuple[int, int] | None:
    """None for a picture that cannot be read, which stops no run: the reader leaves it out with a line."""
    try:
        return image_size(file.archive, file.member)
    except ValueError:
        return None


def list_trainings(run: Run, notebooks: Mapping[str, Mapping[str, Any]]) -> list[tuple[float, int]]:
    """The share of the images and the epochs of each training that these notebooks would start."""
    profile = replace(run.profile, n_seeds=_of(notebooks, "06_silver", "N_SEEDS", None) or run.profile.n_seeds)
    sizes = Sizes(images=1.0, folds=len(_of(notebooks, "04_train", "FOLDS", None) or run.folds),
                  strategies=len(_of(notebooks, "06_silver", "STRATEGIES", [])))
    pieces = list_pieces(profile, sizes, [stage for stage in STAGES if stage not in notebooks])
    return [(piece.images, piece.epochs) for piece in pieces if piece.epochs for _ in range(piece.n)]


def _of(notebooks: Mapping[str, Mapping[str, Any]], name: str, parameter: str, otherwise: Any) -> Any:
    """A notebook's parameter; `otherwise` where it is not among them."""
    return notebooks.get(name, {}).get(parameter, otherwise)
