"""Draws the embedded sample: barn scenes with pigs and cows in AI Hub's own archive layout.

The real data may not be passed on, so the demo runs on pictures drawn from a seed: pens seen by several
cameras, animals that hide one another, clips of near-duplicate frames, three kinds of light. The archives
carry AI Hub's names and labels (`category_id` is a behaviour; the species is in the file name); equal seeds
give equal bytes. `draw_keypoint_sample` writes the same frames with keypoints, as COCO has them.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..files.progress import Bar, progress_bar
from .animals import BEHAVIOURS
from .barns import build_barn
from .keypoints import draw_keypoint_sample
from .output import encode_jpeg, write_csv, write_sources
from .plan import SPECIES, Shot, plan_sample
from .scenes import draw_frame, label_frame, render_scene
from .solids import Array

__all__ = ["draw_sample", "draw_keypoint_sample", "plan_sample", "annotate", "build_barn", "render_scene"]

Annotation = dict[str, Any]  # id, category_id, bbox
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # zip members carry a date; a fixed one keeps the bytes equal


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
        write_csv(directory / "left_out.csv", header, left_out)


def annotate(shot: Shot) -> list[Annotation]:
    """The annotations of a shot as AI Hub writes them, without drawing it."""
    animals, _, boxes = label_frame(shot.frame)
    return _annotations(boxes, [animal.behaviour for animal in animals])


def _annotations(boxes: Array, behaviours: list[str]) -> list[Annotation]:
    return [{"id": number, "category_id": BEHAVIOURS.index(behaviour) + 1, "bbox": box}
            for number, (box, behaviour) in enumerate(zip(boxes.round(2).tolist(), behaviours, strict=True))]


def _write_images(path: Path, shots: list[Shot], labels: dict[str, list[Annotation]], bar: Bar) -> None:
    """Draws the images of one archive; notes their annotations in `labels`."""

    def members() -> Iterator[tuple[str, bytes]]:
        """Each image with its name, as it is drawn."""
        for shot in shots:
            image, boxes, behaviours = draw_frame(shot.frame, shot.noise)
            labels[shot.stem] = _annotations(boxes, behaviours)
            yield f"{shot.stem}.jpg", encode_jpeg(image, shot.frame.light.quality)
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
    write_csv(directory / "truth_test.csv", ["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"], truth)
    write_sources(directory, shots)
