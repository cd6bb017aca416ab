"""Trains the starter checkpoint: yolov5n from scratch on other seeds of the embedded sample than the demo draws.

python bench/starter.py [--images 1200] [--epochs 30]     writes starter.safetensors beside the family (3.6 MB)
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pandas as pd

from livestock.config import REPOSITORY, read_competition
from livestock.data import dataset, readers
from livestock.models.checkpoint import read_checkpoint, write_checkpoint
from livestock.models.yolov5.library import STARTER
from livestock.sample import draw_sample
from livestock.training import TrainConfig, train

SEEDS = range(1001, 1009)  # the demo draws seed 0
IMGSZ = 320


def main() -> None:
    """Draws the images, trains, and puts the averaged weights in half precision into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--directory", type=Path, default=Path("data/starter"))
    parser.add_argument("--target", type=Path, default=STARTER)
    arguments = parser.parse_args()
    competition = read_competition(REPOSITORY / "competition.yaml")
    data_yaml = write_data(arguments.directory, arguments.images // len(SEEDS), competition)
    config = TrainConfig(
        data_yaml=str(data_yaml), weights="", size="yolov5n", hyp=str(REPOSITORY / "hyp/baseline.yaml"),
        imgsz=IMGSZ, batch=32, epochs=arguments.epochs, device="cpu",
    )
    history = train(config, arguments.directory / "run")
    print(history.tail(1).T)
    last = read_checkpoint(arguments.directory / f"run/weights/epoch{arguments.epochs - 1:04d}.safetensors")
    write_checkpoint(arguments.target, last.config, last.tensors, {"trained by": "bench/starter.py"}, half=True)
    print(arguments.target, arguments.target.stat().st_size)


def write_data(directory: Path, n_images: int, competition) -> Path:
    """Draws each seed, the last for validation, into one YOLO data set; file names get the seed in front."""
    images, boxes = [], []
    for seed in SEEDS:
        raw = directory / f"raw_{seed}"
        if not (raw / "truth_test.csv").exists():
            shutil.rmtree(raw, ignore_errors=True)
            draw_sample(raw, seed=seed, n_train=n_images, n_test=8)
        reading = readers.read("aihub", raw / "train", competition)
        for table, tables in ((reading.images, images), (reading.boxes, boxes)):
            tables.append(table.assign(image_id=f"{seed}_" + table["image_id"]))
    images_table, boxes_table = pd.concat(images, ignore_index=True), pd.concat(boxes, ignore_index=True)
    dataset.write_images(images_table, directory / "yolo", IMGSZ)
    dataset.write_labels(images_table, boxes_table, competition.labels, directory / "yolo")
    is_valid = images_table["image_id"].str.startswith(f"{SEEDS[-1]}_")
    ids = images_table["image_id"]
    return dataset.write_lists(directory / "yolo", "starter", ids[~is_valid], ids[is_valid], competition.labels)


if __name__ == "__main__":
    main()
