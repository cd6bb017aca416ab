"""Times `candidates` against `yolov5.detect --save-txt` at 1280 px: the same images, weights and machine.

python bench/candidates.py [--images 60] [--runs 5]                  the embedded sample and the starter
python bench/candidates.py --data PATH [--weights yolov5n.pt]        the test images of data in AI Hub's layout

Both get the images as JPEGs in a folder, enlarged until the longer side has 1920 px, as the competition's have. Each
run is a process of its own, and the two take turns. Timed is from before the first image is read until all is written:
neither the imports nor the loading of the weights nor, on a GPU, one pass to warm up. `process` is the whole process.

stock: `yolov5.detect.run` with `save_txt`, `save_conf`, confidence from 0.001 and `nosave`, which is its fastest: it
reads an image, runs the network on it, suppresses, and writes a line a box into a text file for each image.
ours: `inference.find_candidates`, in half precision on a GPU, then the table of all boxes before suppression to a file,
then `suppress` with detect's IoU and limit, and that table to a file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from common import print_line
from tqdm.auto import tqdm

REPOSITORY = Path(__file__).resolve().parents[1]
BAR, IMGSZ, SIDE = 2, 1280, 1920  # times as fast; pixels
CONF, IOU, MAX_DET = 0.001, 0.45, 1000  # the last two are detect's own


def main() -> None:
    """Prints `bench candidates ours=... stock=... ratio=... bar=2 <ok|short> ...`, medians of the runs."""
    from livestock.models.yolov5.library import STARTER

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60, help="at most so many, evenly chosen")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path, default=STARTER)
    parser.add_argument("--device", default="", help="cpu, or the GPU's number; without it the GPU where there is one")
    parser.add_argument("--one", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as output:
            figures = RUNS[arguments.one](arguments.folder, arguments.weights, arguments.device, Path(output))
        print(json.dumps(figures))
        return
    folder = write_images(arguments.data, arguments.images)
    records = []
    for _ in tqdm(range(arguments.runs), desc="bench", unit="run"):
        records += [{"who": who, **run_alone(who, folder, arguments)} for who in RUNS]
    report(pd.DataFrame(records), len(list(folder.glob("*.jpg"))))


def write_images(data: Path | None, n_images: int) -> Path:
    """Test images as JPEGs with a longer side of `SIDE` pixels, in a folder that is kept."""
    from PIL import Image

    from livestock.config import read_competition
    from livestock.data import archives, readers
    from livestock.data.dataset import file_name
    from livestock.sample import draw_sample

    directory = REPOSITORY / "data/bench_candidates"
    raw, name = data or directory / f"raw_{n_images}", f"images_{'real' if data else 'sample'}_{n_images}"
    if (directory / name).exists():
        return directory / name
    if data is None and not (raw / "truth_test.csv").exists():
        draw_sample(raw, n_train=8, n_test=n_images)
    _, test = readers.read_train_and_test("aihub", raw, read_competition(REPOSITORY / "competition.yaml"))
    rows = np.unique(np.linspace(0, len(test.images) - 1, n_images).round().astype(int))
    with tempfile.TemporaryDirectory(dir=directory.parent) as beside:
        for image in test.images.iloc[rows].itertuples():
            picture = Image.fromarray(archives.read_image(image.archive, image.member))
            scale = SIDE / max(picture.size)
            picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
            picture.save(Path(beside, file_name(image.image_id)), quality=95)
        directory.mkdir(exist_ok=True)
        os.rename(beside, directory / name)
        os.mkdir(beside)  # what the context removes
    return directory / name


def run_alone(who: str, folder: Path, arguments: argparse.Namespace) -> dict:
    """The figures of one run in a new process, with its seconds on the clock and on the processor."""
    command = [sys.executable, __file__, "--one", who, "--folder", str(folder),
               "--weights", str(arguments.weights), "--device", arguments.device]
    before, started = os.times(), time.perf_counter()
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout  # noqa: S603 - this script
    seconds, after = time.perf_counter() - started, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return {**json.loads(answer.splitlines()[-1]), "process": seconds, "processor": processor}


def run_stock(folder: Path, weights: Path, device: str, output: Path) -> dict:
    """yolov5's detect, timed from its first request for an image."""
    import stock

    stock.apply()
    import torch
    from yolov5 import detect

    started = []

    class Images(detect.LoadImages):
        def __iter__(self) -> Images:
            started.append((time.perf_counter(), time.process_time()))
            return super().__iter__()

    detect.LoadImages = Images
    on = "cuda" if torch.cuda.is_available() and device != "cpu" else "cpu"
    start = stock.write_pt(weights, output / "weights.pt")
    detect.run(str(start), source=str(folder), imgsz=(IMGSZ, IMGSZ), save_txt=True, save_conf=True, conf_thres=CONF,
               iou_thres=IOU, max_det=MAX_DET, nosave=True, half=on == "cuda", device=device, project=str(output),
               name="stock")
    seconds, busy = time.perf_counter() - started[0][0], time.process_time() - started[0][1]
    n_boxes = sum(len(path.read_text().splitlines()) for path in (output / "stock/labels").glob("*.txt"))
    return {"seconds": seconds, "busy": busy, "boxes": n_boxes, "device": on}


def run_ours(folder: Path, weights: Path, device: str, output: Path) -> dict:
    """All boxes before suppression and after it, in two files."""
    import pyarrow.parquet  # noqa: F401 - pandas imports it when it first writes
    import torch

    from livestock import inference
    from livestock.data.archives import image_size
    from livestock.models.forward import load_for_inference
    from livestock.postprocess import suppress
    from livestock.tables import make_images, write_table

    on = "cuda" if torch.cuda.is_available() and device != "cpu" else "cpu"
    forward = load_for_inference(weights, on)
    if on == "cuda":
        forward(torch.zeros(1, 3, IMGSZ, IMGSZ))
    started, processor = time.perf_counter(), time.process_time()
    names = sorted(path.name for path in folder.glob("*.jpg"))
    images = make_images([{"image_id": name, "archive": str(folder), "member": name,
                           **dict(zip(("width", "height"), image_size(str(folder), name), strict=True))}
                          for name in names])
    found = inference.find_candidates(forward, images, forward.labels, imgsz=IMGSZ, conf_floor=CONF).boxes
    write_table(found, output / "candidates.parquet")
    boxes = suppress(found, iou_threshold=IOU, conf_threshold=CONF, max_det=MAX_DET)
    write_table(boxes, output / "boxes.parquet")
    seconds, busy = time.perf_counter() - started, time.process_time() - processor
    return {"seconds": seconds, "busy": busy, "boxes": len(boxes), "device": on}


def report(runs: pd.DataFrame, n_images: int) -> None:
    """Each run, then the line."""
    print(runs.round(2).to_string(index=False))
    middle = runs.groupby("who")[["seconds", "busy", "process", "processor", "boxes"]].median()
    ours, stock = middle.loc["ours"], middle.loc["stock"]
    print_line(
        "candidates", ours["seconds"], stock["seconds"], ratio=BAR,
        more=f" images/s={n_images / ours['seconds']:.3g} stock={n_images / stock['seconds']:.3g}, of a core's seconds "
             f"{ours['busy']:.3g} and {stock['busy']:.3g}, whole process {ours['process']:.3g}s and "
             f"{stock['process']:.3g}s; {n_images} images at {IMGSZ} px on {runs['device'].iloc[0]}, "
             f"{ours['boxes']:.0f} and {stock['boxes']:.0f} boxes",
    )


RUNS = {"stock": run_stock, "ours": run_ours}

if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY / "src"))
    main()
