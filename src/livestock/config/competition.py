"""What a competition asks: its classes, its metric, its limits."""

from __future__ import annotations

import functools
import logging
import re
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..exceptions import BadData
from .keys import clean_keys, read_keys
from .resources import REPOSITORY, resource
from .skeleton import Skeleton
from .words import in_words

FILE_NAME = "competition.yaml"
logger = logging.getLogger(__name__)


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
    skeleton: Skeleton | None = None  # the keypoints of each class; None where boxes are all that is asked for

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


def find_competition(path: str | Path | None = None) -> Path:
    """The competition's file: the one that is named, else `competition.yaml` here, else the one of the package."""
    if path or Path(FILE_NAME).exists():
        return Path(path or FILE_NAME)
    _say_default(Path.cwd())
    return resource(FILE_NAME)


@functools.cache
def _say_default(directory: Path) -> None:
    """Once a process: a run reads its competition more than once."""
    logger.info("competition: none is named and there is no %s in %s, so it is the livestock challenge", FILE_NAME,
                directory)


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
