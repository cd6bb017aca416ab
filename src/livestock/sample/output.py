"""Files that every sample has, whatever its layout: JPEG pictures, tables, and where each image comes from."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import cv2

from ..files.write import write_text
from .plan import Shot
from .textures import Image


def encode_jpeg(image: Image, quality: int) -> bytes:
    """A JPEG of an image (H, W, 3) RGB, with OpenCV's quality of 0 to 100.

    >>> import numpy as np
    >>> encode_jpeg(np.zeros((4, 6, 3), np.uint8), 90)[:2].hex()
    'ffd8'
    """
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    """Writes a table as CSV, whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(text.getvalue(), path)


def write_sources(directory: Path, shots: list[Shot]) -> None:
    """Writes `sources.csv`: the split, camera and clip of each image, and its number in the clip."""
    sources: list[list[Any]] = [[f"{s.stem}.jpg", s.split, s.frame.barn.name, s.clip, s.number] for s in shots]
    write_csv(directory / "sources.csv", ["image_id", "split", "camera", "clip", "frame"], sources)
