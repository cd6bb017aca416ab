"""The data set in the YOLO format: every image written once, at training size, shared by all folds."""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import yaml

from ..files.cores import count_cores
from ..files.memory import keep_blocks
from ..files.progress import progress
from ..files.write import write_bytes, write_text
from ..geometry import xyxy_to_cxcywhn
from ..tables import XYXY
from .archives import read_bytes, read_image, split_name, stamp_members
from .pictures import fit

JPEG_QUALITY = 95
VERSION = "4: known by content, not by place"  # of what is written of the same images; files that stand are kept
GREY = 114  # what inputs are padded with: a network learns that nothing is there


def dataset_dir(images: pd.DataFrame, imgsz: int, yolo_dir: Path, *boxes: pd.DataFrame) -> Path:
    """The folder for these images at this size: other raw data or another size never meet there.

    Labels of a folder are rewritten when human boxes change; tables of other labels or of hidden boxes, given as
    `boxes`, get a folder of their own.
    """
    content = VERSION + hash_pictures(images)
    content += "".join(table[["image_id", "label", *XYXY]].to_csv(index=False) for table in boxes if len(table))
    return yolo_dir / f"{imgsz}_{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def hash_pictures(images: pd.DataFrame) -> str:
    """SHA-256 of the names, sizes and files of images, wherever they lie; see `archives.stamp_members`."""
    stamped = images[["image_id", "member", "width", "height"]].assign(
        stamp=stamp_members(images["archive"].tolist(), images["member"].tolist()))
    return hashlib.sha256(stamped.to_csv(index=False).encode()).hexdigest()


def file_name(image_id: str) -> str:
    """The JPEG's name: what is plain of the image's own name, and a hash of its path, so that no two images share one.

    >>> file_name("train/cam 0/frame 1.png")
    'frame_1-8c538bf3318b51c0.jpg'
    """
    stem = re.sub(r"[^A-Za-z0-9._]+", "_", split_name(image_id)[1])[:60]
    return f"{stem}-{hashlib.sha256(image_id.encode()).hexdigest()[:16]}.jpg"


def write_images(
    images: pd.DataFrame, directory: Path, imgsz: int, *, hidden: pd.DataFrame | None = None,
    boxes: pd.DataFrame | None = None, same: Path | None = None,
) -> None:
    """Writes `directory/images`, longer side at most `imgsz` px; images that stand there are kept (resumable).

    What lies in a box of the table `hidden` is painted grey, but for what `boxes`, the labels, cover: there the model
    learns neither an animal nor background. `same` is a folder that has the images at this size unpainted: those that
    stay as they are become hard links to it, or copies where a disk has none.
    """
    keep_blocks()
    (directory / "images").mkdir(parents=True, exist_ok=True)
    areas = {} if hidden is None else {name: own[XYXY].to_numpy() for name, own in hidden.groupby("image_id")}
    spared = {} if boxes is None else {name: own[XYXY].to_numpy() for name, own in boxes.groupby("image_id")}
    rows = list(images[["image_id", "archive", "member", "width", "height"]].itertuples(index=False))

    def write(row: tuple[str, str, str, int, int]) -> None:
        """One image, unless it is there."""
        target = directory / "images" / file_name(row[0])
        if target.exists():
            return
        if same and row[0] not in areas and (there := same / "images" / target.name).exists():
            _link(there, target)
            return
        _write_image(*row, target=target, imgsz=imgsz, grey=areas.get(row[0]), spared=spared.get(row[0]))

    with ThreadPoolExecutor(count_cores()) as pool:  # decoding and resizing release the interpreter lock
        for _ in progress(pool.map(write, rows), "images at training size", unit="image", total=len(rows)):
            pass


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a disk without hard links
        write_bytes(source.read_bytes(), target, flush=False)


def _write_image(
    image_id: str, archive: str, member: str, width: int, height: int, *, target: Path, imgsz: int,
    grey: np.ndarray | None = None, spared: np.ndarray | None = None,
) -> None:
    scale = imgsz / max(width, height)
    picture = read_image(archive, member)  # whatever is written: a file that ends early is refused here
    content = b""
    if scale >= 1 and grey is None and member.lower().endswith((".jpg", ".jpeg")):
        content = read_bytes(archive, member)  # small enough already: the same bytes, no second compression
    if not content or not _is_same_to_opencv(content, picture):
        if grey is not None:
            picture = paint_grey(picture, grey, spared)
        if scale < 1:
            picture = fit(picture, imgsz)
        turned = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        content = cv2.imencode(".jpg", turned, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    write_bytes(content, target, flush=False)


def _is_same_to_opencv(content: bytes, picture: np.ndarray) -> bool:
    """Whether OpenCV, with which other programs read them, sees this picture in the bytes: colours of CMYK differ."""
    seen = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if seen is None or seen.shape != picture.shape:
        return False
    return float(cv2.absdiff(seen[..., ::-1], picture).mean()) < 1  # versions of libjpeg differ in last bits


def paint_grey(picture: np.ndarray, grey: np.ndarray, spared: np.ndarray | None = None) -> np.ndarray:
    """A copy of `(H, W, 3)` with the xyxy pixel boxes `grey` painted, but not where boxes `spared` lie.

    >>> picture = np.zeros((4, 4, 3), np.uint8)
    >>> paint_grey(picture, np.array([[0, 0, 2, 4]]), spared=np.array([[0, 0, 4, 2]]))[..., 0].tolist()
    [[0, 0, 0, 0], [0, 0, 0, 0], [114, 114, 0, 0], [114, 114, 0, 0]]
    """
    covered = np.zeros(picture.shape[:2], bool)
    for boxes, value in ((grey, True), (spared, False)):
        for x_min, y_min, x_max, y_max in [] if boxes is None else boxes.round().astype(int):
            covered[y_min:y_max, x_min:x_max] = value
    return np.where(covered[..., None], np.uint8(GREY), picture)


def write_labels(images: pd.DataFrame, boxes: pd.DataFrame, labels: list[str], directory: Path) -> None:
    """Writes `directory/labels`: a file an image, a line a box `class_id cx cy w h`, relative to the image.

    The class order is that of `labels`. Label caches of yolov5, which others may have left, are removed: they
    notice new sizes, not new numbers.
    Raises ValueError for a label that is not in `labels`.
    """
    if unknown := sorted(set(boxes["label"]) - set(labels)):
        raise ValueError(f"boxes: expected labels {labels}, found {unknown[0]!r}")
    (directory / "labels").mkdir(parents=True, exist_ok=True)
    for cache in directory.glob("*.cache"):
        cache.unlink()
    table = boxes.merge(images[["image_id", "width", "height"]], on="image_id", validate="many_to_one")
    numbers = xyxy_to_cxcywhn(table[XYXY].to_numpy(), table["width"].to_numpy(), table["height"].to_numpy())
    class_ids = table["label"].map({label: index for index, label in enumerate(labels)}).to_numpy()
    lines = pd.Series(
        [f"{c} {x:.6f} {y:.6f} {w:.6f} {h:.6f}" for c, (x, y, w, h) in zip(class_ids, numbers, strict=True)],
        dtype=object,
    )
    text = lines.groupby(table["image_id"].to_numpy()).agg("\n".join) if len(lines) else pd.Series(dtype=object)
    for image_id in images["image_id"]:
        path = directory / "labels" / Path(file_name(image_id)).with_suffix(".txt").name
        content = text.get(image_id, "")
        path.write_text(content + "\n" if content else "")


def write_lists(
    directory: Path, name: str, train_ids: pd.Series | np.ndarray, valid_ids: pd.Series | np.ndarray, labels: list[str]
) -> Path:
    """Writes `NAME_train.txt`, `NAME_valid.txt` and `NAME.yaml`; returns the last, which is what training takes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_lists(Path(folder), "fold_0", np.array(["b.jpg"]), np.array(["a.jpg"]), ["cow", "pig"])
    ...     print(path.name, (path.parent / "fold_0_train.txt").read_text().strip())
    fold_0.yaml ./images/b-7a11ab9458445452.jpg
    """
    for part, ids in (("train", train_ids), ("valid", valid_ids)):
        text = "".join(f"./images/{file_name(image_id)}\n" for image_id in sorted(ids))
        write_text(text, directory / f"{name}_{part}.txt")
    content = {
        "path": str(directory.resolve()),
        "train": f"{name}_train.txt",
        "val": f"{name}_valid.txt",
        "nc": len(labels),
        "names": dict(enumerate(labels)),
    }
    path = directory / f"{name}.yaml"
    write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), path)
    return path


def hash_lists(data_yaml: Path) -> str:
    """SHA-256 of the image names and labels that the lists of `data_yaml` name, the same on every machine."""
    digest, folder = hashlib.sha256(), data_yaml.parent
    for part in ("train", "valid"):
        for line in (folder / f"{data_yaml.stem}_{part}.txt").read_text(encoding="utf-8").splitlines():
            label = folder / "labels" / Path(line).with_suffix(".txt").name
            digest.update(f"{part} {line}\n".encode() + (label.read_bytes() if label.exists() else b""))
    return digest.hexdigest()
