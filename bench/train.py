"""Images a second in training and AP after equal epochs: our loop against `yolov5.train`, mended only so that it runs.

python bench/train.py                                                           the demo's, some minutes on 2 cores
python bench/train.py --device 0 --size yolov5m6 --imgsz 1280 --batch 16 --images 160 --variants fp16,bf16,compile
python bench/train.py --data shared/data/livestock/fold0.yaml                   other images, a data.yaml
python bench/train.py --variants ours,floor                                     warm-up of 100 batches, or as asked

The same pictures, hyper-parameters, start weights, batch, image size and seeds for both; each run in a process of its
own. The seconds are those from the end of the first epoch to that of the last, each with its validation. Both models
of the last epoch are judged by the same code. Stock warms up for at least 100 batches; the variant `floor` gives ours
the same, to see what it is worth. Prints the difference in AP with its 95 % interval over seeds (Student's t,
pairwise), of each variant to stock, and of each further variant to the first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from common import in_new_process, print_line

from livestock.config import REPOSITORY, get_profile, read_competition
from livestock.data import dataset, readers
from livestock.evaluation import mean_interval
from livestock.models.registry import find_start
from livestock.sample import draw_sample
from livestock.training import TrainConfig

ROOT = REPOSITORY / "data/bench_train"
BAR_CPU, BAR_GPU = 1.0, 1.5
VARIANTS: dict[str, dict[str, Any]] = {
    "ours": {}, "floor": {}, "fp16": {}, "bf16": {"bf16": True}, "compile": {"compiler": "inductor"},
    "bf16 compile": {"bf16": True, "compiler": "inductor"},
}


def main() -> None:
    """Prints a line for each variant of ours."""
    demo = get_profile("demo")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--repeat", type=int, default=1, help="how often each image comes an epoch")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--runs", type=int, default=5, help="seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--imgsz", type=int, default=demo.imgsz)
    parser.add_argument("--batch", type=int, default=demo.batch)
    parser.add_argument("--nominal-batch", type=int, default=64, help="stock has 64")
    parser.add_argument("--hyp", default="demo.yaml")
    parser.add_argument("--size", default="", help="such as yolov5m6, from no weights; without it the starter is tuned")
    parser.add_argument("--weights", default="starter.safetensors", help="start weights: a file, .pt of YOLOv5 too")
    parser.add_argument("--variants", default="ours")
    parser.add_argument("--data", default="", help="a data.yaml in place of the sample")
    arguments = parser.parse_args()
    data_yaml = Path(arguments.data) if arguments.data else write_data(
        arguments.images, arguments.imgsz, arguments.repeat)
    n_images = count_images(data_yaml)
    start = None if arguments.size else find_start("yolov5", arguments.weights, ROOT)
    config = TrainConfig(
        data_yaml=str(data_yaml), weights=str(start or ""), size=arguments.size,
        hyp=str(REPOSITORY / "hyp" / arguments.hyp), imgsz=arguments.imgsz, batch=arguments.batch,
        epochs=arguments.epochs, device=arguments.device, workers=arguments.workers,
        nominal_batch=arguments.nominal_batch)
    names = arguments.variants.split(",")
    found: dict[str, list[tuple[float, dict[str, float]]]] = {name: [] for name in [*names, "stock"]}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.runs):
        for name, runs in found.items():
            own = replace(config, seed=seed, **VARIANTS.get(name, {}))
            if name == "floor":
                own = replace(own, hyp=str(write_floor(Path(own.hyp), n_images, own.batch)))
            runs.append(in_new_process(train_stock if name == "stock" else train_ours, own))
            print(f"# {name}, seed {seed}: {n_images / runs[-1][0]:.1f} images/s, " +
                  ", ".join(f"{score} {value:.3f}" for score, value in runs[-1][1].items()), flush=True)
    for name in names:
        report(name, found[name], found["stock"], n_images, arguments)
    for name in names[1:]:
        print(f"# {name} - {names[0]}: {describe_gains(found[name], found[names[0]])}")


def report(name: str, ours: list, stock: list, n_images: int, arguments: Any) -> None:
    """The bench's line, and one with the gain in AP."""
    pace = [n_images / statistics.median(seconds for seconds, _ in runs) for runs in (ours, stock)]
    print_line(
        "train", 1000 / pace[0], 1000 / pace[1], ratio=BAR_CPU if arguments.device == "cpu" else BAR_GPU,
        more=f" per 1,000 images; {name} {pace[0]:.1f} images/s, stock {pace[1]:.1f}; after {arguments.epochs} epochs "
        f"{name} - stock {describe_gains(ours, stock)}, {len(ours)} seeds; "
        f"{arguments.size or Path(arguments.weights).stem}, {arguments.imgsz} px, batch "
        f"{arguments.batch}, {arguments.workers} workers, {arguments.device}")


def describe_gains(ours: list, others: list) -> str:
    """Each score of ours, and what it gains over the others with the same seeds, with the interval over seeds."""
    scores = {score: [np.array([run[1][score] for run in who]) for who in (ours, others)]
              for score in ("AP75", "AP50", "mAP50_95")}
    return "; ".join("{} {:.3f}, {:+.4f} ({:+.4f} to {:+.4f})".format(score, own.mean(), *mean_interval(own - other))
                     for score, (own, other) in scores.items())


def write_floor(source: Path, n_images: int, batch: int) -> Path:
    """These hyper-parameters with the 100 batches that stock warms up for at least."""
    values = yaml.safe_load(source.read_text(encoding="utf-8"))
    n_batches = -(-n_images // batch)
    path = ROOT / f"floor_{n_batches}_{source.name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    values["warmup_epochs"] = max(values["warmup_epochs"], 100 / n_batches)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def write_data(n_images: int, imgsz: int, repeat: int = 1) -> Path:
    """The sample at this size, a fifth of it for validation; each training image is there `repeat` times."""
    raw, folder = ROOT / f"raw_{n_images}_{imgsz > 640}", ROOT / f"{imgsz}_{n_images}"
    competition = read_competition(REPOSITORY / "competition.yaml")
    if not (raw / "truth_test.csv").exists():
        draw_sample(raw, seed=7, n_train=n_images, n_test=2, scale=1 if imgsz > 640 else 1 / 3)
    reading = readers.read("aihub", raw / "train", competition)
    dataset.write_images(reading.images, folder, imgsz)
    dataset.write_labels(reading.images, reading.boxes, competition.labels, folder)
    is_valid = np.arange(len(reading.images)) % 5 == 0
    ids = reading.images["image_id"]
    data_yaml = dataset.write_lists(folder, "all", ids[~is_valid], ids[is_valid], competition.labels)
    images = folder / "all_train.txt"
    names = images.read_text(encoding="utf-8").splitlines()
    for number in range(1, repeat):  # files of their own: stock trains once on a name that is listed twice
        for name in names:
            copy_image(folder / name, number)
    copies = [rename(name, number) for number in range(1, repeat) for name in names]
    images.write_text("".join(f"{name}\n" for name in [*names, *copies]), encoding="utf-8")
    return data_yaml


def rename(name: str, number: int) -> str:
    """The name of a copy."""
    return name.replace(".jpg", f"_copy{number}.jpg")


def copy_image(path: Path, number: int) -> None:
    """A link to an image under another name, and one to its labels."""
    labels = path.parents[1] / "labels" / path.with_suffix(".txt").name
    for source, target in ((path, Path(rename(str(path), number))),
                           (labels, labels.with_name(rename(path.name, number)).with_suffix(".txt"))):
        if not target.exists():
            os.link(source, target)


def count_images(data_yaml: Path) -> int:
    """How many images are trained on."""
    content = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    return len((Path(content["path"]) / content["train"]).read_text(encoding="utf-8").splitlines())


def train_ours(config: TrainConfig) -> tuple[float, dict[str, float]]:
    """Seconds an epoch, without the first, and the scores of the last one's weights."""
    from livestock.training import train

    stamps: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder, "run"), lambda row: stamps.append(time.perf_counter()))
        last = Path(folder, f"run/weights/epoch{config.epochs - 1:04d}.safetensors")
        return (stamps[-1] - stamps[0]) / max(config.epochs - 1, 1), judge(last, config)


def train_stock(config: TrainConfig) -> tuple[float, dict[str, float]]:
    """The same of `yolov5.train`."""
    import stock

    stamps: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        start = str(stock.write_pt(Path(config.weights), Path(folder, "start.pt"))) if config.weights else ""
        stock.train({
            "data": config.data_yaml, "weights": start, "cfg": f"{config.size}.yaml" if config.size else "",
            "hyp": config.hyp, "imgsz": config.imgsz, "batch_size": config.batch, "epochs": config.epochs,
            "device": config.device, "workers": config.workers, "seed": config.seed, "project": folder, "name": "run",
            "noplots": True}, lambda: stamps.append(time.perf_counter()))
        return ((stamps[config.epochs - 1] - stamps[0]) / max(config.epochs - 1, 1),
                in_new_process(judge, Path(folder, "run/weights/last.pt"), config))


def judge(weights: Path, config: TrainConfig) -> dict[str, float]:
    """The scores of these weights on the validation images; the same code for both."""
    from livestock.inference import find_candidates
    from livestock.models.forward import load_for_inference
    from livestock.postprocess import suppress
    from livestock.training.batches import read_images
    from livestock.training.scores import score_boxes

    images, truth = read_images(Path(config.data_yaml), "val").to_tables()
    loaded = load_for_inference(weights, "cpu" if config.device == "cpu" else "cuda:0")
    found = find_candidates(loaded, images, loaded.labels, imgsz=config.imgsz, keep=suppress)
    return score_boxes(truth, found.boxes, config.metric_iou)


if __name__ == "__main__":
    main()
