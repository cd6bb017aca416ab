"""What the competition asks (`Competition`), how big a run is (`Profile`) and where files lie (`Workspace`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..exceptions import BadData
from .keys import clean_keys, read_keys

NAMES_SHOWN = 4  # classes that a sentence names before it counts the others
REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Competition:
    """Classes, metric and limits of one competition; see `competition.yaml`, which documents each key."""

    name: str
    classes: dict[str, list[str]]
    class_pattern: str | None = None
    metric_iou: float = 0.75
    weight_limit_bytes: int = 100_000_000
    count_bins: dict[str, list[int]] = field(default_factory=dict)
    unlabelled: str = "leave out"  # images without a label: "leave out", or "background" to train on them as empty
    group_pattern: str | None = None  # images whose paths agree in its groups (clip, camera, farm) stay in one fold
    answer_name: str = "name"  # how answer.csv calls an image: its file "name", "stem" or "path" below the data

    def __post_init__(self) -> None:
        values, faults = clean_keys({item.name: getattr(self, item.name) for item in fields(self)})
        if faults:
            raise ValueError(in_words(faults))
        for name, value in values.items():  # "100 MB" has become a number
            object.__setattr__(self, name, value)

    @property
    def labels(self) -> list[str]:
        """Labels in class order: `labels[class_id]` is the label of a class."""
        return list(self.classes)

    def label_of(self, source_name: str, image_id: str = "") -> str | None:
        """The label for a source's own class name, else for the file name where `class_pattern` applies; None: unknown.

        A class that the source names itself counts: a folder or a file that is called like another does not change it.
        """
        return self._known(source_name) or self._known(self._name_in(image_id))

    def is_named_by(self, image_id: str) -> bool:
        """Whether `class_pattern` names the class of all boxes in this image."""
        return self._known(self._name_in(image_id)) is not None

    def _known(self, name: str) -> str | None:
        wanted = name.strip().casefold()
        for label, names in self.classes.items():
            if wanted and (wanted == label.casefold() or wanted in (str(known).casefold() for known in names)):
                return label
        return None

    def _name_in(self, image_id: str) -> str:
        """What the first group of `class_pattern` holds of the file name; empty where there is none or it is not."""
        found = re.search(self.class_pattern, image_id.rpartition("/")[2]) if self.class_pattern else None
        return (found.group(1) or "") if found else ""


@dataclass(frozen=True)
class Profile:
    """How big a run is: model, image size and budget. `yolov5m6.pt` and the like are downloaded when online."""

    name: str
    weights: str
    imgsz: int
    batch: int
    epochs: int
    hyp: str
    device: str = ""
    workers: int = 2
    optimizer: str = "SGD"
    cos_lr: bool = False
    nominal_batch: int = 64  # images an optimizer step; less means more steps, which short trainings lack
    compiler: str = ""  # "inductor": PyTorch writes kernels for the model, which takes minutes at the start
    bf16: bool = False  # instead of fp16, on GPUs from 2020 on; these two were not measured on any yet
    trials: int = 40  # of the search, and epochs of each
    trial_epochs: int = 7
    n_verified: int = 3  # seeds with which its best values are trained again, and the start values


PROFILES = {
    # learns nothing: shows within a minute whether everything runs, on these data and this machine
    "smoke": Profile("smoke", "starter.pt", imgsz=64, batch=4, epochs=1, hyp="demo.yaml", device="cpu", workers=0,
                     trials=2, trial_epochs=1, n_verified=1),
    "demo": Profile("demo", "starter.pt", imgsz=320, batch=8, epochs=8, hyp="demo.yaml", device="cpu",
                    trials=6, trial_epochs=2),
    "cpu": Profile("cpu", "yolov5n.pt", imgsz=416, batch=16, epochs=24, hyp="baseline.yaml", device="cpu",
                   nominal_batch=16, trials=12, trial_epochs=3),
    "colab": Profile("colab", "yolov5m6.pt", imgsz=1280, batch=10, epochs=20, hyp="competition.yaml"),
}


def get_profile(name: str, **changes: Any) -> Profile:
    """The profile of this name with some of its fields changed; None leaves a field as it is.

    Raises ValueError for an unknown profile or field.
    """
    if name not in PROFILES:
        raise ValueError(f"profile: expected one of {sorted(PROFILES)}, found {name!r}")
    _reject_unknown("profile", changes, Profile)
    return replace(PROFILES[name], **{key: value for key, value in changes.items() if value is not None})


@dataclass(frozen=True)
class Workspace:
    """Where a run reads and writes. Everything below `root` can be made again from the raw data."""

    root: Path

    @property
    def raw_dir(self) -> Path:
        """Archives as downloaded; never written by a step."""
        return self.root / "raw"

    @property
    def interim_dir(self) -> Path:
        """Tables between steps."""
        return self.root / "interim"

    @property
    def yolo_dir(self) -> Path:
        """The data set at training size."""
        return self.root / "yolo"

    @property
    def runs_dir(self) -> Path:
        """Trainings and executed notebooks."""
        return self.root / "runs"

    @property
    def weights_dir(self) -> Path:
        """Official weights, and those of each fold."""
        return self.root / "weights"

    @property
    def weights_path(self) -> Path:
        """The weights to submit: half precision, stripped; what inference loads."""
        return self.root / "weights.pt"

    @property
    def answer_path(self) -> Path:
        """The submission."""
        return self.root / "answer.csv"


def read_competition(path: Path) -> Competition:
    """Reads a competition file. Raises BadData that names the file and lists every key that is unknown or wrong."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else f"none in {path.absolute().parent}"
        raise BadData(f"{path}: expected a competition file (classes, metric, limits), found {found}; name yours "
                      f"with --competition, in a notebook as COMPETITION, such as {REPOSITORY / 'competition.yaml'}")
    content, faults = read_keys(path)
    values, others = clean_keys(content)
    if faults := [*faults, *others]:
        raise BadData(f"{path}: {in_words(faults)}")
    return Competition(**values)


def in_words(faults: Sequence[str]) -> str:
    """One fault as it is; several as a list, a line each, below how many there are."""
    return faults[0] if len(faults) == 1 else "\n- ".join([f"{len(faults)} things to put right:", *faults])


def _reject_unknown(what: str, content: dict[str, Any], of: type) -> None:
    known = {item.name for item in fields(of)}
    if unknown := sorted(set(content) - known):
        raise ValueError(f"{what}: unknown key {unknown[0]!r}; expected one of {sorted(known)}")


def join_names(names: Sequence[str]) -> str:
    """Names as a sentence has them; of many the first few, and how many others there are.

    >>> join_names(["pig", "cow", "goat"])
    'pig, cow and goat'
    """
    if len(names) > NAMES_SHOWN + 1:
        names = [*names[:NAMES_SHOWN], f"{len(names) - NAMES_SHOWN} others"]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
