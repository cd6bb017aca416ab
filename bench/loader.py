"""Images a second that reach training at 1280 px from sources of 1920 x 1080, with mosaic and two workers.

python bench/loader.py [--images 1200] [--runs 5]     some five minutes on 2 cores

Stock: yolov5's loader on the files as they are. Ours: the loader of our training on the files that `data.dataset`
writes. The end of the line has images a second, also of stock on these files. The embedded sample is drawn at full
size, 64 pictures under as many names as asked for, so that our memory for decoded pictures does not hold them all. Each
run in its own process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from common import in_new_process, print_line

from livestock.config import REPOSITORY, read_competition
from livestock.data import dataset, readers
from livestock.files.memory import keep_blocks
from livestock.sample import draw_sample

ROOT = REPOSITORY / "data/bench_loader"
IMGSZ, BATCH, WORKERS, SKIPPED, BAR = 1280, 16, 2, 13, 3.0  # skipped until our memory for pictures is full
COLUMNS = {"stock, full size": (1920, False), "stock, training size": (1280, False), "ours": (1280, True)}


def main() -> None:
    """Prints the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--batches", type=int, default=20, help="of 16 images, after 13 that are not counted")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    lists = {size: write_data(size, arguments.images) for size in (1920, 1280)}
    seconds: dict[str, list[float]] = {name: [] for name in COLUMNS}
    for _ in range(arguments.runs):
        for name, (size, is_ours) in COLUMNS.items():
            seconds[name].append(in_new_process(measure, lists[size], is_ours, arguments.batches))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    pace = {name: arguments.batches * BATCH / value for name, value in median.items()}
    print_line("loader", median["ours"], median["stock, full size"], ratio=BAR,
               more="".join(f", {name} {value:.0f}/s" for name, value in pace.items()))


def write_data(size: int, n_images: int) -> Path:
    """A list of images, longer side at most `size` px; each picture stands there under many names."""
    folder = ROOT / f"{size}_{n_images}"
    path = folder / "all_train.txt"
    if path.exists():
        return path
    wide, gold = draw_full_size()
    dataset.write_images(wide, folder, size)
    names = {}
    for number in range(n_images):
        source = wide["image_id"].iloc[number % len(wide)]
        names[f"{number:05d}_{source}"] = source
    for name, source in names.items():
        copy = folder / "images" / dataset.file_name(name)
        if not copy.exists():
            os.link(folder / "images" / dataset.file_name(source), copy)
    many = pd.DataFrame({"copy": names.keys(), "image_id": names.values()}).merge(wide, on="image_id")
    boxes = many[["copy", "image_id"]].merge(gold, on="image_id")
    many, boxes = (table.drop(columns="image_id").rename(columns={"copy": "image_id"}) for table in (many, boxes))
    labels = read_competition(REPOSITORY / "competition.yaml").labels
    dataset.write_labels(many, boxes, labels, folder)
    dataset.write_lists(folder, "all", many["image_id"], many["image_id"].iloc[:1], labels)
    return path


def draw_full_size() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images of 1920 x 1080 px of the sample, drawn once, and the boxes on them."""
    if not (ROOT / "raw/truth_test.csv").exists():
        draw_sample(ROOT / "raw", n_train=64, n_test=2, scale=1.0)
    reading = readers.read("aihub", ROOT / "raw/train", read_competition(REPOSITORY / "competition.yaml"))
    wide = reading.images[reading.images["width"] == 1920].reset_index(drop=True)
    return wide, reading.boxes[reading.boxes["image_id"].isin(wide["image_id"])].reset_index(drop=True)


def measure(images: Path, is_ours: bool, n_batches: int) -> float:
    """Seconds for `n_batches` batches of training images, in the steady state."""
    hyp = yaml.safe_load((REPOSITORY / "hyp/baseline.yaml").read_text(encoding="utf-8"))
    batches = start_ours(images, hyp) if is_ours else start_yolov5(images, hyp)
    for _ in range(SKIPPED):
        next(batches)
    started = time.perf_counter()
    for _ in range(n_batches):
        next(batches)
    return time.perf_counter() - started


def start_ours(images: Path, hyp: dict[str, float]) -> Iterator[Any]:
    """Epoch after epoch of our loader, as our training's process has it."""
    from livestock.training.batches import make_loader, read_images
    from livestock.training.settings import Place, TrainConfig

    keep_blocks(of_any_size=True)
    data_yaml = images.parent / "all.yaml"
    config = TrainConfig(data_yaml=str(data_yaml), weights="", hyp="", imgsz=IMGSZ, batch=BATCH, epochs=1000,
                         workers=WORKERS)
    loader = make_loader(read_images(data_yaml), hyp, config, "letterbox", 32, Place("cpu"))
    return (batch for epoch in range(1000) for batch in loader.epoch(epoch))


def start_yolov5(images: Path, hyp: dict[str, float]) -> Iterator[Any]:
    """yolov5's loader as it is."""
    import stock

    stock.apply()
    from yolov5.utils.dataloaders import create_dataloader

    loader, _ = create_dataloader(str(images), IMGSZ, BATCH, 32, hyp=hyp, augment=True, workers=WORKERS, shuffle=True)
    return iter(loader)


if __name__ == "__main__":
    main()
