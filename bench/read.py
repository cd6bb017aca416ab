"""Tables of images and boxes from AI Hub's archives, at the original's number of images: bar 10 times as fast, 500 MB.

python bench/read.py      one to five minutes on 2 cores, as fast as the disk is

Stock is what one writes in a notebook: unpack the archives to the local disk, list the files, open each picture for
its size, parse each label, append each box to a list, make a table of the list. It checks nothing. Ours also looks for
damage, doubles and boxes that cannot be, reports them, and holds both tables against their schema. Each run is a fresh
process, so imports count for both; what is unpacked is thrown away unmeasured, and the disk has come to rest before
each run.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
RAW = REPOSITORY / "data/bench_memory/16455/raw"
N_RUNS, BAR, BAR_MB = 5, 10, 500


def main() -> None:
    """Runs ours and stock in turn and prints the medians."""
    from archives import draw_archives
    from common import print_line

    draw_archives(RAW)
    runs: dict[str, list[tuple[float, float, int]]] = {name: [] for name in WAYS}
    for _ in range(N_RUNS):
        for name in WAYS:
            runs[name].append(run_fresh(name))
    for name, found in runs.items():
        every = ", ".join(f"{wall:.2f} ({busy:.2f})" for wall, busy, _ in sorted(found))
        print(f"{name}: {every} s, of which the processor was busy for what stands in brackets")
    ours, stock, lazy = (statistics.median(wall for wall, _, _ in runs[name]) for name in WAYS)
    peak = max(peak for _, _, peak in runs["ours"]) / 1e6
    print(f"stock with PIL's Image.open(...).size, which decodes nothing, for cv2.imread: {lazy:.3g} s, "
          f"{lazy / ours:.3g} times as long as ours")
    print_line("read", ours, stock, ratio=BAR, ok=peak < BAR_MB, more=f", peak {peak:.0f} MB of {BAR_MB}, ratio "
               f"{lazy / ours:.3g} where stock opens pictures with PIL, which decodes none")


def run_fresh(name: str) -> tuple[float, float, int]:
    """Seconds, seconds of the processor and peak memory in bytes of one way in a process of its own."""
    from memory import watch

    folder = Path(tempfile.mkdtemp(prefix="bench_read_"))
    os.sync()
    busy = -sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    try:
        process = multiprocessing.get_context("spawn").Process(target=run_way, args=(name, folder))
        started = time.perf_counter()
        process.start()
        peak = watch(process)
        taken = time.perf_counter() - started
    finally:
        shutil.rmtree(folder)
    if process.exitcode:
        raise SystemExit(f"{name}: failed, see above")
    return taken, busy + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]), peak


def run_way(name: str, folder: Path) -> None:
    """In the new process; modules are imported there, as in a notebook."""
    WAYS[name](folder)


def read_ours(_folder: Path) -> None:
    """The archives in place."""
    from livestock.config import read_competition
    from livestock.data import readers

    reading = readers.read("aihub", RAW / "train", read_competition(REPOSITORY / "competition.yaml"))
    print(f"ours: {len(reading.images)} images, {len(reading.boxes)} boxes, {len(reading.left_out)} notes", flush=True)


def read_stock(folder: Path) -> None:
    """Pictures decoded for their size."""
    import cv2

    def measure(path: str) -> tuple[int, int]:
        height, width = cv2.imread(path).shape[:2]
        return width, height

    unpack_and_loop(folder, measure)


def read_stock_lazily(folder: Path) -> None:
    """Headers alone."""
    from PIL import Image

    def measure(path: str) -> tuple[int, int]:
        with Image.open(path) as image:
            return image.size

    unpack_and_loop(folder, measure)


def unpack_and_loop(folder: Path, measure: Callable[[str], tuple[int, int]]) -> None:
    """What the original's notebook did."""
    import glob
    import json
    import zipfile

    import pandas as pd

    for archive in sorted((RAW / "train").glob("*.zip")):
        with zipfile.ZipFile(archive) as file:  # in half the time of the command unzip
            file.extractall(folder)
    sizes, boxes = [], []
    for path in glob.glob(f"{folder}/*.jpg"):
        name = os.path.basename(path)
        sizes.append({"image_id": name, **dict(zip(("width", "height"), measure(path), strict=True))})
        with open(path.replace(".jpg", ".json"), encoding="utf-8") as label:
            info = json.load(label)["label_info"]
        for annotation in info["annotations"]:
            x_min, y_min, x_max, y_max = annotation["bbox"]
            boxes.append({"image_id": name, "label": name.split("_")[1], "x_min": x_min, "y_min": y_min,
                          "x_max": x_max, "y_max": y_max})
    print(f"stock: {len(pd.DataFrame(sizes))} images, {len(pd.DataFrame(boxes))} boxes", flush=True)


WAYS: dict[str, Callable[[Path], None]] = {"ours": read_ours, "stock": read_stock, "lazy": read_stock_lazily}

if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY / "src"))
    main()
