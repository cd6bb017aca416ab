"""What `livestock predict` does: boxes of a detector, or keypoints of objects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import typer

from ..data.archives import IMAGE_SUFFIXES, read_image
from ..data.point_files import read_rows, to_numbers, write_points
from ..exceptions import BadData
from ..files.write import write_text
from ..tables import XYXY, make_boxes
from .check import list_pictures

if TYPE_CHECKING:
    from ..models.loaded import LoadedModel

COLUMNS = ["image_id", "label", "confidence", "x_min", "y_min", "x_max", "y_max"]
LEAST_IMGSZ = 32  # pixels: the stride of most networks
IOU_THRESHOLD = 0.6  # of the suppression, where none is named


@dataclass(frozen=True)
class Objects:
    """Where the objects lie whose keypoints are asked for; without `boxes` and `detector` a picture is one object.

    `boxes` is a CSV as `livestock predict` of a detector writes it, `detector` are weights that find them. With `flip`
    the mirrored objects are looked at too; with `from_centre` places count from the centre of the first pixel.
    """

    boxes: Path | None = None
    detector: Path | None = None
    flip: bool = False
    from_centre: bool = False


def write_predictions(
    weights: Path, images: Path, out: Path, *, iou: float | None, conf: float, imgsz: int, device: str,
    objects: Objects | None = None,
) -> str:
    """Writes what these weights see in every picture of a folder or zip as CSV, and returns in words how much that is.

    Boxes: columns `image_id, label, confidence, x_min, y_min, x_max, y_max`, in pixels of each image. Without `iou`
    they are suppressed at 0.6, and not at all where a network marks an object once.

    Keypoints: a row a point, `image_id, object, keypoint, x, y, confidence`, in pixels of each image. Where `objects`
    says which boxes they belong to, `label` is that of the box and its corners and `object_confidence` come last;
    `object` is the box's place among those of its image, from 0. Boxes of a file all count, those of a detector as
    above. `imgsz` is that of the network that sees whole pictures. Of a network that finds objects and their keypoints
    at once there is a row a point too, with the object's box.

    Pictures that cannot be read are named and left out. Raises UnsafeWeights for weights that are refused, BadData
    where no picture can be read, for what these weights cannot do, and for boxes that cannot be used, all before `out`
    is written.
    """
    from ..models.base import ONE_STAGE
    from ..models.forward import load_for_inference

    _check_first(out, imgsz)
    objects, loaded = objects or Objects(), load_for_inference(weights, device)
    finds_points = loaded.architecture.get("crop", ONE_STAGE) != ONE_STAGE
    finds_both = "points" in loaded.architecture and not finds_points
    if finds_points:
        _check_options(loaded, objects, imgsz)
    else:
        _refuse_options(weights, loaded, objects, finds_both=finds_both)
    detector = load_for_inference(objects.detector, device) if objects.detector else loaded
    size = 0 if finds_points and not objects.detector else _find_size(detector, imgsz)
    table, report = measure_pictures(images)
    for line in report:
        typer.echo(line)
    if table.empty:
        raise BadData(f"{images}: expected pictures ending in {', '.join(sorted(IMAGE_SUFFIXES))} that can be decoded, "
                      "found none")
    if objects.boxes:
        boxes = _find_known(read_boxes(objects.boxes), table, objects.boxes, images)
    elif size:
        boxes, points = _find_boxes(detector, table, size, iou, conf, flip=finds_both and objects.flip)
    else:
        boxes = _whole_pictures(loaded, table)
    if finds_both and points is not None:
        _say_empty(table, boxes)
        write_points(table, boxes, points, out, with_boxes=True, from_centre=objects.from_centre)
        return f"{len(points):,} points of {len(boxes):,} objects in {boxes['image_id'].nunique():,} images"
    if finds_points:
        return _write_poses(loaded, table, boxes, out, objects)
    write_text(boxes[COLUMNS].to_csv(index=False, float_format="%.6g"), out)
    return f"{len(boxes):,} boxes in {boxes['image_id'].nunique():,} images"


def _check_first(out: Path, imgsz: int) -> None:
    """Raises BadData for what would be found out after all the work."""
    if out.is_dir():
        raise BadData(f"{out}: expected the name of a file to write, found a folder")
    if imgsz and imgsz < LEAST_IMGSZ:
        raise BadData(f"--imgsz: expected {LEAST_IMGSZ} px or more, found {imgsz}")


def _find_size(detector: LoadedModel, imgsz: int) -> int:
    """Pixels of the longer side of a picture."""
    if not (size := imgsz or detector.imgsz):
        raise BadData(f"{detector.path}: expected to know the image size that it was trained at, found none; give "
                      "--imgsz")
    return size


def _find_boxes(
    detector: LoadedModel, images: pd.DataFrame, size: int, iou: float | None, conf: float, *, flip: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """A boxes table of what a detector sees, suppressed, and their keypoints where it finds them too.

    With `flip` the mirrored pictures are looked at too, and of what both looks see the surer one is kept.
    """
    from ..inference import find_candidates
    from ..postprocess import suppress

    if iou is None:
        iou = IOU_THRESHOLD if detector.needs_nms else 1.0
    keep = partial(suppress, iou_threshold=iou, conf_threshold=conf)
    look = partial(find_candidates, detector, images, list(detector.labels), imgsz=size, conf_floor=conf, keep=keep)
    plain = look(flip=False)
    mirrored = look(flip=True) if flip else None
    if mirrored is None or plain.keypoints is None or mirrored.keypoints is None:
        return plain.boxes, plain.keypoints
    shift = int(plain.boxes["box_id"].max()) + 1 if len(plain.boxes) else 0
    boxes, points = (pd.concat([first, second.assign(box_id=second["box_id"] + shift)], ignore_index=True) for
                     first, second in ((plain.boxes, mirrored.boxes), (plain.keypoints, mirrored.keypoints)))
    kept = suppress(boxes, iou_threshold=min(iou, IOU_THRESHOLD), conf_threshold=conf)
    return kept, points[points["box_id"].isin(kept["box_id"])].reset_index(drop=True)


def _refuse_options(weights: Path, loaded: LoadedModel, objects: Objects, *, finds_both: bool) -> None:
    """Raises BadData for options of keypoints in boxes, which a network that finds objects itself has no use for."""
    if finds_both and (objects.boxes or objects.detector):
        raise BadData(f"{weights}: --{'boxes' if objects.boxes else 'detector'}: expected weights that find keypoints "
                      f"in boxes, found {loaded.family}, which finds the objects itself: leave the option out")
    if not finds_both and (given := [name for name, value in vars(objects).items() if value]):
        raise BadData(f"{weights}: --{given[0].replace('_', '-')}: expected weights that find keypoints, found "
                      f"{loaded.family}, which finds boxes")


def _check_options(loaded: LoadedModel, objects: Objects, imgsz: int) -> None:
    """Raises BadData for options that contradict each other, or that weights of keypoints cannot do."""
    from ..poses import check_pose_model

    crop = check_pose_model(loaded, flip=objects.flip)["crop"]
    if objects.boxes and objects.detector:
        raise BadData("--boxes and --detector: expected one of them, found both")
    if crop == "whole" and (objects.boxes or objects.detector):
        raise BadData(f"{loaded.path}: --{'boxes' if objects.boxes else 'detector'}: expected weights that cut objects "
                      f"out of their picture, such as those of topdown, found {loaded.family}, which looks at the "
                      "whole picture: leave the option out")
    if imgsz and not objects.detector and imgsz != loaded.imgsz:
        raise BadData(f"{loaded.path}: --imgsz: a network of keypoints sees objects at the size of its training alone: "
                      f"expected {loaded.imgsz} or nothing, found {imgsz}")


def _whole_pictures(loaded: LoadedModel, images: pd.DataFrame) -> pd.DataFrame:
    """A boxes table in which each picture is one object; said where these weights are made for objects in boxes."""
    if loaded.architecture["crop"] != "whole":
        typer.echo(f"{loaded.path}: without --boxes and --detector each whole picture is taken as the one object; "
                   f"{loaded.family} was trained on objects cut out by their boxes")
    corners = {"x_min": 0, "y_min": 0, "x_max": images["width"], "y_max": images["height"]}
    return make_boxes(pd.DataFrame({"image_id": images["image_id"], "label": loaded.labels[0], **corners,
                                    "source": "model"}))


def _write_poses(
    loaded: LoadedModel, images: pd.DataFrame, boxes: pd.DataFrame, out: Path, objects: Objects
) -> str:
    """Finds and writes the keypoints in these boxes, and says which pictures and boxes have none."""
    from ..poses import find_poses

    strange = boxes[~boxes["label"].isin(loaded.labels)]
    if len(strange):
        known, found = ", ".join(loaded.labels), ", ".join(sorted(set(strange["label"])))
        if len(strange) == len(boxes):
            raise BadData(f"{objects.boxes or objects.detector}: expected boxes of {known}, whose keypoints "
                          f"{loaded.path} finds, found {found} alone")
        typer.echo(f"{len(strange):,} of {len(boxes):,} boxes are left out: {loaded.path} has no keypoints of {found}")
        boxes = boxes.drop(strange.index)
    _say_empty(images, boxes)
    are_named = bool(objects.boxes or objects.detector)
    points = find_poses(loaded, images, boxes, flip=objects.flip, has_classes=are_named)
    write_points(images, boxes, points, out, with_boxes=are_named, from_centre=objects.from_centre)
    return f"{len(points):,} points of {len(boxes):,} objects in {boxes['image_id'].nunique():,} images"


def _say_empty(images: pd.DataFrame, boxes: pd.DataFrame) -> None:
    """Says which pictures have no object, and so no row."""
    if len(empty := images.loc[~images["image_id"].isin(boxes["image_id"]), "image_id"]):
        typer.echo(f"{len(empty):,} of {len(images):,} pictures have no object and no row, such as {empty.iloc[0]}")


def read_boxes(path: Path) -> pd.DataFrame:
    """The boxes of a CSV as `write_predictions` writes it; further columns are ignored.

    Raises BadData naming file and line: a missing column, something that is not a finite number, a box without area,
    a confidence outside of 0..1.
    """
    rows = read_rows(path, COLUMNS)
    numbers = to_numbers(rows, path, COLUMNS[2:])
    corners = numbers[XYXY].to_numpy()
    for is_wrong, expected in (
            ((corners[:, :2] >= corners[:, 2:]).any(1), "x_min < x_max and y_min < y_max"),
            (~numbers["confidence"].between(0, 1).to_numpy(), "a confidence of 0 to 1")):
        if is_wrong.any():
            row = numbers[is_wrong].iloc[0]
            raise BadData(f"{path}: line {row.name} ({rows.at[row.name, 'image_id']}): expected {expected}, found "
                          f"{row.to_dict()}")
    return make_boxes(rows[["image_id", "label"]].assign(**numbers, source="model"), origin=str(path))


def _find_known(boxes: pd.DataFrame, images: pd.DataFrame, path: Path, folder: Path) -> pd.DataFrame:
    """The boxes of pictures that are there; which are not is said. Raises BadData where there is none of them."""
    is_known = boxes["image_id"].isin(images["image_id"])
    if (~is_known).any():
        strange = boxes.loc[~is_known, "image_id"]
        words = (f"{path}: {strange.nunique():,} of {boxes['image_id'].nunique():,} images are not in {folder}, such "
                 f"as {strange.iloc[0]!r}; it has {images['image_id'].iloc[0]!r}")
        if not is_known.any():
            raise BadData(words)
        typer.echo(f"{words}: their boxes are left out")
    return boxes[is_known].reset_index(drop=True)


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
