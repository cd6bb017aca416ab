"""What `livestock predict` does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import typer

from ..data.archives import IMAGE_SUFFIXES, read_image
from ..exceptions import BadData
from ..files.write import write_text
from .check import list_pictures

COLUMNS = ["image_id", "label", "confidence", "x_min", "y_min", "x_max", "y_max"]
IOU_THRESHOLD = 0.6  # of the suppression, where none is named


def write_predictions(
    weights: Path, images: Path, out: Path, *, iou: float | None, conf: float, imgsz: int, device: str
) -> pd.DataFrame:
    """Writes the boxes that these weights see in every picture of a folder or zip as CSV, and returns them.

    Columns `image_id, label, confidence, x_min, y_min, x_max, y_max`, in pixels of each image. Pictures that cannot be
    read are named and left out. Raises UnsafeWeights for weights that are refused, BadData where no picture can be
    read, before `out` is written. Without `iou` boxes are suppressed at 0.6, and not at all where a network marks an
    object once.
    """
    from ..inference import find_candidates
    from ..models.forward import load_for_inference
    from ..postprocess import suppress

    loaded = load_for_inference(weights, device)
    size = imgsz or loaded.imgsz
    if not size:
        raise BadData(f"{weights}: expected to know the image size that it was trained at, found none; give --imgsz")
    table, report = measure_pictures(images)
    for line in report:
        typer.echo(line)
    if table.empty:
        raise BadData(f"{images}: expected pictures ending in {', '.join(sorted(IMAGE_SUFFIXES))} that can be decoded, "
                      "found none")
    seen = find_candidates(loaded, table, list(loaded.labels), imgsz=size, conf_floor=conf)
    if iou is None:
        iou = IOU_THRESHOLD if loaded.needs_nms else 1.0
    boxes = suppress(seen.boxes, iou_threshold=iou, conf_threshold=conf)[COLUMNS]
    write_text(boxes.to_csv(index=False, float_format="%.6g"), out)
    return boxes


def measure_pictures(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """The pictures below a folder or in a zip with `width, height`, and in words those that cannot be read.

    Each is decoded, not its header alone: one that breaks off would otherwise stop the prediction of all the others.
    """
    pictures, report = list_pictures(folder)
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(_measure, pictures.itertuples()))
    report += [size for size in sizes if isinstance(size, str)]
    is_whole = [not isinstance(size, str) for size in sizes]
    measured = pd.DataFrame([size for size in sizes if not isinstance(size, str)], columns=["width", "height"])
    return pd.concat([pictures[is_whole].reset_index(drop=True), measured], axis=1), report


def _measure(row: Any) -> tuple[int, int] | str:
    """Width and height of a picture, or why it cannot be read."""
    if not row.readable:
        return f"{row.image_id}: a picture of a format that is not read here"
    try:
        height, width = read_image(row.archive, row.member).shape[:2]
    except ValueError as error:
        return str(error)
    return width, height
