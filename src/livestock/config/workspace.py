"""Where a run reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
    def data_dir_path(self) -> Path:
        """A file that says where the raw data lay when it was last read: archives in tables are named below it."""
        return self.root / "interim" / "data_dir.txt"

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
        return self.root / "weights.safetensors"

    @property
    def answer_path(self) -> Path:
        """The submission."""
        return self.root / "answer.csv"
