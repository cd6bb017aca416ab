"""What each stage is made of, and how long its pieces take.

A stage is a notebook, and a piece of it one training or one pass over images.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..config import Profile
from ..search.proxies import unfrozen_share
from .pace import Pace

STAGES = ("01_eda", "02_split", "03_evolve", "04_train", "05_errors", "06_silver", "07_final", "08_inference")
TRAINING_SHARE, VALID_SHARE = 0.8, 0.2  # of the images: all folds but one, and that one
LARGER = 1.25**2  # pixels of the pass `larger`
NOTEBOOK_SECONDS = 12.0  # to start a notebook, import what it needs and draw its figures
TRIAL_DATA = 0.5  # of the training images, which a trial sees: `SplitTables.mini`
# Passes over images that a notebook makes, as shares of the pixels of plain ones.
ERROR_PASSES, SILVER_PASSES, METHOD_PASSES = 1 + LARGER, 2 + LARGER, 3 + LARGER
# Seconds an image on two cores, from what the notebooks say of 16,000 images: to read and hash it, to split and draw;
# and of an image out of fold to try every method with its thresholds.
READING_SECONDS, SPLIT_SECONDS, TUNING_SECONDS = 0.02, 0.011, 0.5


@dataclass(frozen=True)
class Sizes:
    """What the pieces depend on besides the profile: images with labels and to answer, trainings of 04, strategies.

    `done` says how many pieces of a stage and kind are done.
    """

    images: float
    test: float = 0.0
    folds: int = 1
    strategies: int = 1
    done: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """So many equal pieces of a stage: trainings on `images` for `epochs`, or a pass that sees `seen` images.

    `area` is the share of the pixels that its images have of those of the run's size, `frozen` that of the network's
    tensors that are not trained.
    """

    stage: str
    what: str
    n: int = 1
    images: float = 0.0
    epochs: int = 0
    valid: float = 0.0
    seen: float = 0.0
    written: float = 0.0
    area: float = 1.0
    frozen: float = 0.0
    other: float = 0.0  # seconds
    done: int = 0

    def seconds(self, pace: Pace) -> float:
        """Seconds of one of the pieces, after the first."""
        own = pace.scale(self.area)
        epoch = self.images * own.train * unfrozen_share(self.frozen) + self.valid * own.valid
        training = own.again + self.epochs * epoch if self.epochs else 0.0
        return training + self.seen * own.seen + self.written * own.write + self.other

    def left(self, pace: Pace) -> float:
        """Seconds of those that are not done."""
        return max(self.n - self.done, 0) * self.seconds(pace)


def list_pieces(profile: Profile, sizes: Sizes, skip: Collection[str] = ()) -> list[Piece]:
    """The pieces of the notebooks 01 to 08 without those in `skip`."""
    n, epochs = sizes.images, profile.epochs
    training, valid = TRAINING_SHARE * n, VALID_SHARE * n
    area = (profile.search_imgsz / profile.imgsz) ** 2 if profile.search_imgsz else 1.0
    n_students = (1 + sizes.strategies) * profile.n_seeds - 1  # one of them is 04_train's
    trial = Piece("03_evolve", "trial", profile.trials, TRIAL_DATA * training, profile.trial_epochs, valid, area=area,
                  frozen=profile.search_freeze)
    pieces = [
        Piece("01_eda", "reading", other=READING_SECONDS * (n + sizes.test)),
        Piece("02_split", "split", other=SPLIT_SECONDS * n),
        *([Piece("03_evolve", "images at search size", written=n)] if area != 1 else []),
        trial,
        replace(trial, what="start and best again", n=2 * profile.n_verified),
        Piece("04_train", "images at training size", written=n),  # by whichever notebook comes first
        Piece("04_train", "fold", sizes.folds, training, epochs, valid, seen=2 * valid),
        Piece("05_errors", "passes", seen=ERROR_PASSES * valid * sizes.folds),
        Piece("06_silver", "teacher", 2, training / 2, epochs, seen=SILVER_PASSES * training / 2),
        Piece("06_silver", "passes", seen=(SILVER_PASSES + 4) * valid),
        Piece("06_silver", "student", n_students, training, epochs, valid, seen=valid),
        Piece("07_final", "final model", 1, n, epochs),
        Piece("08_inference", "passes and answer", seen=METHOD_PASSES * (valid + sizes.test),
              other=TUNING_SECONDS * valid * sizes.folds),
    ]
    return [replace(piece, done=min(sizes.done.get((piece.stage, piece.what), 0), piece.n))
            for piece in pieces if piece.stage not in skip]


def sum_seconds(pieces: Sequence[Piece], pace: Pace, stages: Collection[str] = STAGES) -> float:
    """Seconds of what is left of these stages, their notebooks included while anything of them is left."""
    seconds = {stage: sum(piece.left(pace) for piece in pieces if piece.stage == stage) for stage in stages}
    begun = {piece.stage for piece in pieces if piece.done < piece.n}
    trains = {piece.stage for piece in pieces if piece.done < piece.n and piece.epochs}
    return (sum(seconds.values()) + NOTEBOOK_SECONDS * len(begun & set(stages))
            + max(pace.once - pace.again, 0.0) * len(trains & set(stages)))


def cut_sessions(pieces: Sequence[Piece], pace: Pace, session_hours: float) -> list[dict[tuple[str, str], float]]:
    """What each session does: of each stage and piece how many, in order.

    A training that is cut off goes on, but for a trial, which `say_too_long` is for.

    >>> pieces = [Piece("04_train", "fold", n=3, other=3600.0)]
    >>> cut_sessions(pieces, Pace(1, 1, 1, 1, 1), session_hours=2)
    [{('04_train', 'fold'): 2.0}, {('04_train', 'fold'): 1.0}]
    """
    sessions: list[dict[tuple[str, str], float]] = [{}]
    free = 3600 * session_hours
    for piece in pieces:
        left, seconds = float(piece.n - piece.done), piece.seconds(pace)
        while left > 1e-9:
            if free <= 1e-6:
                sessions.append({})
                free = 3600 * session_hours
            part = min(left, free / seconds) if seconds else left
            # A piece that fits into the next session whole is not begun in the rest of this one.
            whole = math.floor(part + 1e-9) if seconds <= 3600 * session_hours and part < left else part
            if whole:
                sessions[-1][piece.stage, piece.what] = sessions[-1].get((piece.stage, piece.what), 0.0) + whole
            left, free = left - whole, (free - whole * seconds) if whole == part else 0.0
    return [session for session in sessions if session]
