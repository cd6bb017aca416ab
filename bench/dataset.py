"""From archives to images at training size on the local disk, against the original's way over Drive.

python bench/dataset.py [--images 600] [--runs 5]     some three minutes on 2 cores

Stock unpacks the archives, copies images and labels into a folder a split, tars these to Drive, as a session that ends
makes necessary, and untars them to the local disk; its images keep their 1920 x 1080 px. Ours reads each image in its
archive and writes it at 1280 px. Drive is a folder here, and what it takes is counted: 65 MB/s, the fastest that people
report of one large file (39 GB in 10 minutes), for stock's tar in both directions and for the archives that ours has to
fetch again in the next session. The line's end says what ours takes where the archives are on the local disk already,
and what stock takes without Drive. Both have the tables already. All runs of ours must write the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import statistics
import tarfile
import tempfile
import time
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
from common import print_line
from loader import IMGSZ, draw_full_size

from livestock.config import REPOSITORY, read_competition
from livestock.data import archives, dataset

ROOT = REPOSITORY / "data/bench_loader"
DRIVE_BYTES_A_SECOND, VALID_SHARE, BAR = 65e6, 0.2, 3.0


def main() -> None:
    """Prints the line; fails if two runs write different bytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    archive, images, boxes = write_archive(arguments.images)
    ours, local, size, written = [], [], 0, set()
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory(dir=ROOT) as folder:
            seconds, size = time_stock(archive, images, Path(folder))
            local.append(seconds)
        with tempfile.TemporaryDirectory(dir=ROOT) as folder:
            ours.append(time_ours(images, boxes, Path(folder)))
            written.add(hash_folder(Path(folder, "images")))
    if len(written) != 1:
        raise SystemExit("two runs wrote different images")
    tars, zips = (n_bytes / DRIVE_BYTES_A_SECOND for n_bytes in (2 * size, archive.stat().st_size))
    stock, median = statistics.median(local), statistics.median(ours)
    print_line("dataset", median + zips, stock + tars, ratio=BAR, more=f", ours from archives on the local disk "
               f"{median:.3g}s ({(stock + tars) / median:.2f} times), stock without Drive {stock:.3g}s; {len(images)} "
               f"images of {size / len(images) / 1e3:.0f} kB, the same bytes each time")


def write_archive(n_images: int) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """A zip of pictures of 1920 x 1080 px and labels, and its tables."""
    wide, boxes = draw_full_size()
    path = ROOT / f"{n_images}.zip"
    picked = wide.iloc[np.arange(n_images) % len(wide)].reset_index(drop=True)
    names = pd.Series([f"{number:05d}_{name}" for number, name in enumerate(picked["image_id"])])
    if not path.exists():
        with ZipFile(path.with_suffix(".part"), "w") as content:
            for row, name in zip(picked.itertuples(), names, strict=True):
                content.writestr(name, archives.read_bytes(row.archive, row.member))
                content.writestr(str(Path(name).with_suffix(".txt")), "0 0.5 0.5 0.1 0.1\n" * 5)
        path.with_suffix(".part").rename(path)
    own = picked[["image_id"]].assign(new=names).merge(boxes, on="image_id")
    images = picked.assign(image_id=names, archive=str(path), member=names)
    return path, images, own.drop(columns="image_id").rename(columns={"new": "image_id"})


def time_stock(archive: Path, images: pd.DataFrame, folder: Path) -> tuple[float, int]:
    """Seconds on this disk, and the bytes that would go to Drive and come back."""
    is_valid = dict(zip(images["image_id"], np.random.default_rng(0).random(len(images)) < VALID_SHARE, strict=True))
    started = time.perf_counter()
    with ZipFile(archive) as content:
        content.extractall(folder / "raw")  # noqa: S202 - written above
    for kind in ("images", "labels"):
        for part in ("train", "valid"):
            (folder / "split" / kind / part).mkdir(parents=True)
    for name, valid in is_valid.items():
        part, label = "valid" if valid else "train", Path(name).with_suffix(".txt").name
        shutil.copy(folder / "raw" / name, folder / "split/images" / part / name)
        shutil.copy(folder / "raw" / label, folder / "split/labels" / part / label)
    with tarfile.open(folder / "drive.tar", "w") as tar:
        tar.add(folder / "split", arcname="split")
    with tarfile.open(folder / "drive.tar") as tar:
        tar.extractall(folder / "session", filter="data")
    return time.perf_counter() - started, (folder / "drive.tar").stat().st_size


def time_ours(images: pd.DataFrame, boxes: pd.DataFrame, folder: Path) -> float:
    """Seconds for images, labels and lists."""
    labels = read_competition(REPOSITORY / "competition.yaml").labels
    started = time.perf_counter()
    dataset.write_images(images, folder, IMGSZ)
    dataset.write_labels(images, boxes, labels, folder)
    dataset.write_lists(folder, "all", images["image_id"], images["image_id"].iloc[::5], labels)
    return time.perf_counter() - started


def hash_folder(folder: Path) -> str:
    """Of the names and bytes of its files."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
