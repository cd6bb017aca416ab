"""What `livestock predict` does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import typer

from ..data.archives import image_size
from ..data.readers.tree import IMAGE_SUFFIXES
from ..exceptions import BadData
from ..files.write import write_text
from .check import find_images


def write_predictions(
    weights: Path, images: Path, out: Path, *, iou: float, conf: float, imgsz: int, device: str
) -> pd.DataFrame:
    """Writes the boxes that these weights see in every image of a folder or zip as CSV, and returns them.

    Columns `image_id, label, confidence, x_min, y_min, x_max, y_max`, in pixels of each image, the most confident
    first. Pictures that cannot be read are named and left out. Raises UnsafeWeights for weights that are refused,
    BadData where no picture can be read.
    """
    from ..inference import find_candidates
    from ..models.forward import load_for_inference
    from ..postprocess import suppress

    loaded = load_for_inference(weights, device)
    size = imgsz or loaded.imgsz
    if not size:
        raise BadData(f"{weights}: expected to know the image size that it was trained at, found none; give --imgsz")
    found, report = find_images(images)
    rows = []
    for row in found.itertuples():
        try:
            rows.append(image_size(str(row.archive), str(row.member)))
        except ValueError as error:
            rows.append((0, 0))
            report.append(str(error))
    table = found.assign(**dict(zip(("width", "height"), np.array(rows).T, strict=True)))
    table = table[table["width"] > 0].reset_index(drop=True)
    for line in report:
        typer.echo(line)
    if table.empty:
        raise BadData(f"{images}: expected pictures ending in {', '.join(sorted(IMAGE_SUFFIXES))} that can be decoded, "
                      "found none")
    seen = find_candidates(loaded, table, list(loaded.labels), imgsz=size, conf_floor=conf)
    boxes = suppress(seen.boxes, iou_threshold=iou, conf_threshold=conf)
    boxes = boxes[["image_id", "label", "confidence", "x_min", "y_min", "x_max", "y_max"]]
    write_text(boxes.to_csv(index=False, float_format="%.6g"), out)
    return boxes
