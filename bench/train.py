"""Images a second in training and AP after equal epochs: `yolov5.train` as it is against `yolov5.train`.

python bench/train.py                                                           the demo's, ten minutes on 2 cores
python bench/train.py --device 0 --cfg yolov5m6.yaml --imgsz 1280 --batch 16 --images 600           on a GPU
                      ... --compiler inductor --bf16       with what is no default, for it was not measured yet

The embedded sample, the same files, hyper-parameters, batch and seeds for both; each run in a process of its own. The
seconds are those from the end of the first epoch to that of the last, each with its validation. On a GPU a line more
for each: the share of its runs, from start to end, in which some kernel ran; how often a step of one more epoch made
the CPU wait for a number, and at which lines of code.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import in_new_process, print_line

from livestock.config import REPOSITORY, get_profile, read_competition
from livestock.data import dataset, readers
from livestock.models import yolov5
from livestock.sample import draw_sample

ROOT = REPOSITORY / "data/bench_train"
BAR_CPU, BAR_GPU = 1.0, 1.5


def main() -> None:
    """Prints the line, with the difference in AP and its spread over seeds."""
    demo = get_profile("demo")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--runs", type=int, default=5, help="seeds")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--imgsz", type=int, default=demo.imgsz)
    parser.add_argument("--batch", type=int, default=demo.batch)
    parser.add_argument("--cfg", default="", help="a model to train from no weights; without it the starter is tuned")
    parser.add_argument("--compiler", default="")
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    data_yaml, n_images = write_data(arguments.images, arguments.imgsz)
    weights = "" if arguments.cfg else str(yolov5.find_weights("starter.pt", ROOT))
    config = yolov5.TrainConfig(
        data_yaml=str(data_yaml), weights=weights, cfg=arguments.cfg, hyp=str(REPOSITORY / "hyp/demo.yaml"),
        imgsz=arguments.imgsz, batch=arguments.batch, epochs=arguments.epochs, device=arguments.device, workers=2,
        compiler=arguments.compiler, bf16=arguments.bf16)
    on_gpu = arguments.device != "cpu"
    busy: dict[str, list[float]] = {"ours": [], "stock": []}
    runs: dict[str, list[tuple[float, float]]] = {"ours": [], "stock": []}
    for seed in range(arguments.runs):
        for who, found in runs.items():
            with watch_gpu(busy[who], arguments.device):
                found.append(in_new_process(RUNS[who], config, seed))
    pace = {who: n_images / statistics.median(seconds for seconds, _ in found) for who, found in runs.items()}
    gains = np.subtract(*([ap for _, ap in runs[who]] for who in ("ours", "stock")))
    error = gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    print_line(
        "train", 1000 / pace["ours"], 1000 / pace["stock"], ratio=BAR_GPU if on_gpu else BAR_CPU,
        more=f" per 1,000 images; ours {pace['ours']:.1f} images/s, stock {pace['stock']:.1f}; AP50-95 after "
        f"{arguments.epochs} epochs {np.mean([ap for _, ap in runs['ours']]):.3f}, ours - stock {gains.mean():+.4f} "
        f"(standard error {error:.4f}, {len(gains)} seeds); {arguments.imgsz} px, batch {arguments.batch}, "
        f"{arguments.device}")
    for who in RUNS if on_gpu else ():
        waits = in_new_process(count_waits, who, replace(config, epochs=1))
        n_steps = -(-n_images // arguments.batch)
        print(f"{who}: a kernel ran in {np.mean(busy[who]):.0f} % of the time; {sum(waits.values()) / n_steps:.1f} "
              f"waits a step, {dict(waits.most_common(8))}")


@contextmanager
def watch_gpu(found: list[float], device: str) -> Iterator[None]:
    """Adds the percentage of each second in which a kernel ran on that GPU, as the driver counts it."""
    if device == "cpu":
        yield
        return
    command = ["nvidia-smi", f"--id={device}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits",
               "--loop=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            yield
        finally:
            process.terminate()
            found += [float(line) for line in process.communicate()[0].split() if line.isdigit()]


def count_waits(who: str, config: Any) -> Counter[str]:
    """In the steps of one epoch: how often which line made the CPU wait for the GPU."""
    import torch

    from livestock.models.yolov5 import compat

    compat.apply()
    from yolov5.utils.callbacks import Callbacks

    run, modes = Callbacks.run, {"on_train_epoch_start": "warn", "on_train_epoch_end": "default"}

    def run_and_watch(self: Any, hook: str, *args: Any, **options: Any) -> None:
        run(self, hook, *args, **options)
        if hook in modes and config.device != "cpu":
            torch.cuda.set_sync_debug_mode(modes[hook])

    Callbacks.run = run_and_watch
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        if who == "stock":
            train_stock(config, 0)
        else:
            train_here(config)
    return Counter(f"{Path(warning.filename).name}:{warning.lineno}" for warning in found
                   if "synchronizing" in str(warning.message))


def train_here(config: Any) -> None:
    """Ours, in this process."""
    from livestock.models.yolov5 import child

    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder, "run")
        run_dir.mkdir()
        (run_dir / "config.json").write_text(json.dumps(asdict(config)))
        child.main(run_dir)


def write_data(n_images: int, imgsz: int) -> tuple[Path, int]:
    """The sample at this size, a fifth of it for validation; also how many images are trained on."""
    raw, folder = ROOT / f"raw_{n_images}", ROOT / f"{imgsz}_{n_images}"
    competition = read_competition(REPOSITORY / "competition.yaml")
    if not (raw / "truth_test.csv").exists():
        draw_sample(raw, seed=7, n_train=n_images, n_test=2, scale=1 if imgsz > 640 else 1 / 3)
    reading = readers.read("aihub", raw / "train", competition)
    dataset.write_images(reading.images, folder, imgsz)
    dataset.write_labels(reading.images, reading.boxes, competition.labels, folder)
    is_valid = np.arange(len(reading.images)) % 5 == 0
    ids = reading.images["image_id"]
    return dataset.write_lists(folder, "all", ids[~is_valid], ids[is_valid], competition.labels), sum(~is_valid)


def train_ours(config: Any, seed: int) -> tuple[float, float]:
    """Seconds an epoch, without the first, and AP50-95 after the last."""
    stamps: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        history = yolov5.train(replace(config, seed=seed), Path(folder, "run"),
                                 lambda scores: stamps.append(time.perf_counter()))
    return (stamps[-1] - stamps[0]) / (config.epochs - 1), float(history["mAP50_95"].iloc[-1])


def train_stock(config: Any, seed: int) -> tuple[float, float]:
    """The same of `yolov5.train.run`, mended only so that it runs at all."""
    from livestock.models.yolov5 import compat

    compat.apply()
    import yolov5.train as yolov5_train

    stamps: list[float] = []
    scores: list[float] = []
    callbacks = yolov5_train.Callbacks()

    def on_epoch(values: list[Any], *_: Any) -> None:
        stamps.append(time.perf_counter())
        scores.append(float(values[6]))

    callbacks.register_action("on_fit_epoch_end", callback=on_epoch)
    sys.argv = sys.argv[:1]  # yolov5 parses the command line for its defaults
    options = yolov5_train.parse_opt(True)
    with tempfile.TemporaryDirectory() as folder:
        for name, value in {
            "data": config.data_yaml, "weights": config.weights, "cfg": config.cfg, "hyp": config.hyp,
            "imgsz": config.imgsz, "batch_size": config.batch, "epochs": config.epochs, "device": config.device,
            "workers": config.workers, "seed": seed, "project": folder, "name": "run", "noplots": True,
        }.items():
            setattr(options, name, value)
        yolov5_train.main(options, callbacks)
    return (stamps[config.epochs - 1] - stamps[0]) / max(config.epochs - 1, 1), scores[config.epochs - 1]


RUNS = {"ours": train_ours, "stock": train_stock}

if __name__ == "__main__":
    main()
