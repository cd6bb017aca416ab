"""Draws the embedded sample: barn scenes with pigs and cows in AI Hub's own archive layout.

The real data may not be passed on, so the demo runs on pictures drawn from a seed: pens seen by several
cameras, animals that hide one another, clips of near-duplicate frames, three kinds of light. The archives
carry AI Hub's names and labels (`category_id` is a behaviour; the species is in the file name); equal seeds
give equal bytes.
"""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..files.progress import Bar, progress_bar
from .animals import BEHAVIOURS
from .barns import Barn, build_barn
from .scenes import Frame, draw_frame, label_frame, random_clip, random_light, render_scene
from .solids import Array

__all__ = ["draw_sample", "plan_sample", "annotate", "build_barn", "render_scene"]

Annotation = dict[str, Any]  # id, category_id, bbox
SPECIES = {"cow": "소", "pig": "돼지"}
MAX_ANIMALS = {"cow": 9, "pig": 20}
FRAMES_PER_CAMERA = 16
EMPTY_CLIPS = 0.1  # empty clips are short, so that about one image in 25 has no animal
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # zip members carry a date; a fixed one keeps the bytes equal


@dataclass(frozen=True)
class Shot:
    """A frame with its place in the sample: `stem` without suffix, `split`, `clip` and `number` in it."""

    stem: str
    species: str
    split: str
    clip: str
    number: int
    frame: Frame
    noise: np.random.Generator


def draw_sample(directory: Path, *, seed: int = 0, n_train: int = 240, n_test: int = 60, scale: float = 1 / 3,
                missing_cow_fraction: float = 0.0) -> None:
    """Writes the sample's archives, `truth_test.csv` and `sources.csv` to `directory`.

    Half of the images are of cows, half of pigs. Cow images measure 1920x1080 times `scale`; about a quarter
    of the pig images 1280x960 times `scale`. A `missing_cow_fraction` of the cow boxes is left out of the
    train labels, never of the test truth, and listed in `left_out.csv` (pixels); the pictures stay the same.

    Raises ValueError for n_train < 8, n_test < 2, scale outside (0, 1], missing_cow_fraction outside [0, 1).
    """
    if not 0 <= missing_cow_fraction < 1:
        raise ValueError(f"missing_cow_fraction must be at least 0 and below 1, found {missing_cow_fraction}")
    shots = plan_sample(seed=seed, n_train=n_train, n_test=n_test, scale=scale)
    labels: dict[str, list[Annotation]] = {}
    with progress_bar("drawing the sample", unit="image", total=n_train + n_test) as bar:
        for split in ("train", "test"):
            for species, korean in SPECIES.items():
                path = directory / split / f"[원천]{korean}_bbox.zip"
                chosen = [shot for shot in shots if (shot.species, shot.split) == (species, split)]
                _write_images(path, chosen, labels, bar)
    left_out = _leave_out(labels, shots, missing_cow_fraction, np.random.default_rng([seed, 1]))
    for species, korean in SPECIES.items():
        members = {f"{shot.stem}.json": _label_file(shot, labels[shot.stem]) for shot in shots
                   if shot.split == "train" and shot.species == species}
        _write_zip(directory / "train" / f"[라벨]{korean}_bbox.zip", members.items())
    _write_tables(directory, shots, labels)
    if missing_cow_fraction > 0:
        header = ["image_id", "label", "x_min", "y_min", "x_max", "y_max"]
        _write_csv(directory / "left_out.csv", header, left_out)


def plan_sample(*, seed: int = 0, n_train: int = 240, n_test: int = 60, scale: float = 1 / 3) -> list[Shot]:
    """The frames of a sample before any of them is drawn: cheap enough to count boxes of many.

    Raises ValueError for n_train < 8, n_test < 2 or a scale outside (0, 1].
    """
    for name, value, least in (("n_train", n_train, 8), ("n_test", n_test, 2)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, found {value}")
    if not 0 < scale <= 1:
        raise ValueError(f"scale must be above 0 and at most 1, found {scale}")
    rng = np.random.default_rng(seed)
    shots = []
    for species in SPECIES:
        shots += _plan_species(species, _half(n_train, species), _half(n_test, species), scale, rng)
    return shots


def annotate(shot: Shot) -> list[Annotation]:
    """The annotations of a shot as AI Hub writes them, without drawing it."""
    animals, _, boxes = label_frame(shot.frame)
    return _annotations(boxes, [animal.behaviour for animal in animals])


def _annotations(boxes: Array, behaviours: list[str]) -> list[Annotation]:
    return [{"id": number, "category_id": BEHAVIOURS.index(behaviour) + 1, "bbox": box}
            for number, (box, behaviour) in enumerate(zip(boxes.round(2).tolist(), behaviours, strict=True))]


def _half(count: int, species: str) -> int:
    return count // 2 if species == "pig" else count - count // 2


def _plan_species(species: str, n_train: int, n_test: int, scale: float,
                  rng: np.random.Generator) -> list[Shot]:
    """Clips of random cameras until there are enough frames; the first test clip has a camera of its own."""
    n_cameras = max(3, n_train // FRAMES_PER_CAMERA)
    barns = [_camera(species, number, scale, rng) for number in range(n_cameras)]
    extra = [_camera(species, n_cameras + number, scale, rng) for number in range(max(1, n_test // 20))]
    shots: list[Shot] = []
    for split, cameras, count in (("train", barns, n_train), ("test", extra + barns[::-1], n_test)):
        clip, end = 0, len(shots) + count
        while len(shots) < end:
            barn = cameras[clip % len(cameras)]
            name = f"{species}_{split}_{clip:03d}"
            for number, frame in enumerate(_clip(barn, name, end - len(shots), rng)):
                stem = f"livestock_{species}_bbox_{len(shots) + 1:06d}"
                shots.append(Shot(stem, species, split, name, number, frame, rng.spawn(1)[0]))
            clip += 1
    return shots


def _camera(species: str, number: int, scale: float, rng: np.random.Generator) -> Barn:
    # AI Hub's pigs: 27 % of the images are 1280x960.
    full = (1280, 960) if species == "pig" and number % 11 in (1, 5, 8) else (1920, 1080)
    width, height = (max(1, round(side * scale)) for side in full)
    return build_barn(species, f"{species.upper()} {number + 1:02d}", width, height, rng)


def _clip(barn: Barn, name: str, at_most: int, rng: np.random.Generator) -> Iterator[Frame]:
    empty = bool(rng.random() < EMPTY_CLIPS)
    n_frames = min(int(rng.integers(2, 4) if empty else rng.integers(4, 9)), at_most)
    n_animals = 0 if empty else 1 + int(rng.beta(1.3, 1.2) * MAX_ANIMALS[barn.species])
    return random_clip(barn, random_light(rng), n_frames, n_animals, name, rng)


def _write_images(path: Path, shots: list[Shot], labels: dict[str, list[Annotation]], bar: Bar) -> None:
    """Draws the images of one archive; notes their annotations in `labels`."""

    def members() -> Iterator[tuple[str, bytes]]:
        for shot in shots:
            image, boxes, behaviours = draw_frame(shot.frame, shot.noise)
            labels[shot.stem] = _annotations(boxes, behaviours)
            quality = [cv2.IMWRITE_JPEG_QUALITY, shot.frame.light.quality]
            yield f"{shot.stem}.jpg", cv2.imencode(".jpg", image[..., ::-1], quality)[1].tobytes()
            bar.update()

    _write_zip(path, members(), zipfile.ZIP_STORED)


def _write_zip(path: Path, members: Iterable[tuple[str, bytes]],
               compression: int = zipfile.ZIP_DEFLATED) -> None:
    """Writes pairs of name and bytes beside `path`, then renames it, so that no reader sees half an archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with zipfile.ZipFile(partial, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, LONG_AGO)
            info.create_system = 3  # the same bytes on Windows
            archive.writestr(info, content, compression)
    os.replace(partial, path)


def _write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text.getvalue(), encoding="utf-8")
    os.replace(partial, path)


def _label_file(shot: Shot, annotations: list[Annotation]) -> bytes:
    camera = shot.frame.barn.camera
    image = {"file_name": f"{shot.stem}.jpg", "width": camera.width, "height": camera.height}
    categories = [{"id": number, "name": name} for number, name in enumerate(BEHAVIOURS, 1)]
    content = {"label_info": {"image": image, "categories": categories, "annotations": annotations}}
    return json.dumps(content, ensure_ascii=False).encode()


def _leave_out(labels: dict[str, list[Annotation]], shots: list[Shot], fraction: float,
               rng: np.random.Generator) -> list[list[Any]]:
    """Takes a fraction of the cows' train boxes out of `labels`, in place; returns them as rows."""
    found = [(shot.stem, box) for shot in shots if shot.split == "train" and shot.species == "cow"
             for box in labels[shot.stem]]
    chosen = sorted(rng.permutation(len(found))[: round(fraction * len(found))].tolist())
    for stem, box in (found[index] for index in chosen):
        labels[stem].remove(box)
    return [[f"{found[index][0]}.jpg", "cow", *found[index][1]["bbox"]] for index in chosen]


def _write_tables(directory: Path, shots: list[Shot], labels: dict[str, list[Annotation]]) -> None:
    """The truth of the test images, divided by their size, and where each image comes from."""
    truth: list[list[Any]] = []
    for shot in shots:
        if shot.split == "test":
            width, height = shot.frame.barn.camera.width, shot.frame.barn.camera.height
            for box in labels[shot.stem]:
                x0, y0, x1, y1 = box["bbox"]
                shares = [x0 / width, x1 / width, y0 / height, y1 / height]
                truth.append([f"{shot.stem}.jpg", shot.species, *shares])
    _write_csv(directory / "truth_test.csv", ["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"], truth)
    sources = [[f"{s.stem}.jpg", s.split, s.frame.barn.name, s.clip, s.number] for s in shots]
    _write_csv(directory / "sources.csv", ["image_id", "split", "camera", "clip", "frame"], sources)
