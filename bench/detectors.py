"""One-stage detectors compared with one thing changed at a time: each on its own backbone, then all on the same.

python bench/detectors.py --short                                         the sample, one seed: shows that it works
python bench/detectors.py                                                 the sample, three seeds, an hour or two
python bench/detectors.py --data fold0.yaml --imgsz 416 --epochs 12       other images, a data.yaml
python bench/detectors.py --imgsz 1024 --batch 4 --seed-backbones --device 0   with the backbones of the project that
                                                                          this repeats: VGG-16, Swin-T, ResNeXt-101

All start from random weights and have the same images, epochs, batches, augmentation, optimizer, schedule, averaged
weights and choice of the epoch (the last). What differs is the family, its backbone and its learning rate: of each
detector three rates are tried with the same budget, a third of the epochs on a seed of its own, and the best is shown.
Prints a line for each training, then a table: means over seeds with 95 % intervals (Student's t), and each detector's
difference from RetinaNet on the same seeds. One seed shows nothing, and the table says so.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from common import in_new_process
from train import write_data

from livestock.config import REPOSITORY
from livestock.evaluation import COCO_SIZES, mean_interval, score_sizes
from livestock.training import TrainConfig

ROOT = REPOSITORY / "data/bench_detectors"
COMMON = (("retinanet", "resnet18"), ("ssd", "resnet18"), ("yolox", "resnet18"), ("tood", "resnet18"))
OWN = (("retinanet", "resnet18"), ("ssd", "vgg16"), ("yolox", "yolox_nano"), ("tood", "resnet18"))
SEED_BACKBONES = (("retinanet", "swin_t"), ("ssd", "vgg16"), ("yolox", "yolox_l"), ("tood", "resnext101"))
RATES = (0.3, 1.0, 3.0)  # times the rate in the family's file
SHARED = ("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr",
          "mosaic", "mixup", "copy_paste", "momentum", "lrf", "warmup_epochs", "warmup_momentum", "warmup_bias_lr")
SCORES = ["mAP50_95", "AP50", "AP75", "small", "medium", "large"]


@dataclass(frozen=True)
class Found:
    """What one training came to."""

    detector: str
    seed: int
    scores: dict[str, float]
    parameters: float  # millions
    seconds: float  # an epoch, validation included
    images_per_second: float  # at inference, on the validation images
    gigabytes: float  # the most memory that the process had


def main() -> None:
    """Trains what has been asked for and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="a data.yaml in place of the sample")
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--imgsz", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed-backbones", action="store_true", help="the large ones")
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.images, arguments.imgsz, arguments.epochs, arguments.seeds = 24, 96, 2, 1
    data_yaml = Path(arguments.data) if arguments.data else write_data(arguments.images, arguments.imgsz)
    detectors = list(dict.fromkeys([*COMMON, *(SEED_BACKBONES if arguments.seed_backbones else OWN)]))
    found = []
    for family, size in detectors:
        config = make_config(arguments, data_yaml, family, size)
        rate = find_rate(config, arguments.short)
        for seed in range(arguments.seeds):
            found.append(in_new_process(train_and_judge, replace(config, seed=seed), rate))
            print(f"# {asdict(found[-1])}", flush=True)
    print(tabulate(found).to_string())
    print(f"one machine, {arguments.seeds} seeds, {arguments.epochs} epochs, {arguments.imgsz} px, batch "
          f"{arguments.batch}" + "; one seed shows nothing" * (arguments.seeds == 1))


def make_config(arguments: argparse.Namespace, data_yaml: Path, family: str, size: str) -> TrainConfig:
    """The settings that all have, and the family's own; the hyper-parameters of the loop are RetinaNet's for all."""
    return TrainConfig(
        data_yaml=str(data_yaml), weights="", hyp="", family=family, size=size, imgsz=arguments.imgsz,
        batch=arguments.batch, nominal_batch=arguments.batch, epochs=arguments.epochs, device=arguments.device,
        workers=0 if arguments.device == "cpu" else 2)


def write_hyp(config: TrainConfig, rate: float, folder: Path) -> Path:
    """The family's file with the shared values of RetinaNet's, and its learning rate times `rate`."""
    read = {name: yaml.safe_load((REPOSITORY / f"hyp/{name}.yaml").read_text(encoding="utf-8"))
            for name in ("retinanet", config.family)}
    values = {**read[config.family], **{name: read["retinanet"][name] for name in SHARED}, "warmup_epochs": 2.0}
    values["lr0"] *= rate
    path = folder / "hyp.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def find_rate(config: TrainConfig, short: bool) -> float:
    """The multiple of the family's learning rate with the highest AP after a third of the epochs."""
    if short:
        return 1.0
    tried = {}
    for rate in RATES:
        brief = replace(config, epochs=max(config.epochs // 3, 2), seed=1000)
        try:
            tried[rate] = in_new_process(train_and_judge, brief, rate).scores["mAP50_95"]
        except FloatingPointError:
            tried[rate] = float("-inf")  # it diverged
    best = max(tried, key=lambda rate: tried[rate])
    print(f"# {config.family} {config.size}: " + ", ".join(f"{rate:g} times its rate: {score:.4f}"
                                                           for rate, score in tried.items()), flush=True)
    return best


def train_and_judge(config: TrainConfig, rate: float) -> Found:
    """Trains in this process and scores the averaged weights of the last epoch."""
    from livestock.inference import find_candidates
    from livestock.models.checkpoint import read_checkpoint
    from livestock.models.forward import load_for_inference
    from livestock.postprocess import suppress
    from livestock.training import loop
    from livestock.training.batches import read_images
    from livestock.training.scores import score_boxes

    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        own = replace(config, hyp=str(write_hyp(config, rate, Path(folder))))
        loop.run_training(own, Path(folder, "run"), lambda event: rows.extend(filter(None, [event.get("epoch")])))
        weights = Path(folder, f"run/weights/epoch{config.epochs - 1:04d}.safetensors")
        n_parameters = sum(tensor.numel() for tensor in read_checkpoint(weights).tensors.values())
        loaded = load_for_inference(weights, "cpu" if config.device == "cpu" else "cuda:0")
        images, truth = read_images(Path(config.data_yaml), "val").to_tables()
        started = time.perf_counter()
        boxes = find_candidates(loaded, images, loaded.labels, imgsz=config.imgsz, keep=suppress).boxes
        seconds = time.perf_counter() - started
    sizes = score_sizes(truth, boxes, 0.5, COCO_SIZES).groupby("bin")["ap"].mean()
    scores = {**score_boxes(truth, boxes, config.metric_iou), **sizes.to_dict()}
    return Found(f"{config.family} {config.size}", config.seed,
                 {name: float(scores.get(name, np.nan)) for name in SCORES}, n_parameters / 1e6,
                 float(np.median([row["seconds"] for row in rows])), len(images) / seconds,
                 resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def tabulate(found: list[Found]) -> pd.DataFrame:
    """A row a detector: means over seeds, half the width of AP's interval, and its difference from the first one's."""
    by_detector: dict[str, list[Found]] = {}
    for one in found:
        by_detector.setdefault(one.detector, []).append(one)
    first = [one.scores["mAP50_95"] for one in next(iter(by_detector.values()))]
    rows: dict[str, dict[str, Any]] = {}
    for name, runs in by_detector.items():
        mean, low, high = mean_interval(np.array([one.scores["mAP50_95"] for one in runs]))
        gain, gain_low, gain_high = mean_interval(np.array([one.scores["mAP50_95"] for one in runs]) - first)
        rows[name] = {
            **{score: np.nanmean([one.scores[score] for one in runs]) if any(
                not np.isnan(one.scores[score]) for one in runs) else np.nan for score in SCORES},
            "+-": (high - low) / 2, "gain": gain, "gain_low": gain_low, "gain_high": gain_high,
            "M": runs[0].parameters, "MB half": 2 * runs[0].parameters,
            "s an epoch": np.mean([one.seconds for one in runs]),
            "images/s": np.mean([one.images_per_second for one in runs]),
            "GB": max(one.gigabytes for one in runs)}
    return pd.DataFrame.from_dict(rows, orient="index").round(4)


if __name__ == "__main__":
    main()
