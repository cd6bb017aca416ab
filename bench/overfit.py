"""Whether a family learns at all: from random weights on a few images, validated on the same, not augmented.

python bench/overfit.py --device 0                                        RetinaNet, 20 images, 5 minutes on a GPU
python bench/overfit.py --family dfine --size dfine_n --images 4 --imgsz 256 --epochs 200 --minutes 10

The images are of the embedded sample, those with animals. Ends when the time is over, when AP at IoU 0.5 has passed
the aim, or with the last epoch. Prints AP at 0.5 of each epoch in which it rises, and a line at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path

import yaml

from livestock.config import REPOSITORY, read_competition
from livestock.data import dataset, readers
from livestock.models.registry import get_family
from livestock.sample import draw_sample
from livestock.training import TrainConfig, train
from livestock.training.hyp import read_hyp

ROOT = REPOSITORY / "data/bench_overfit"
AUGMENTATION = ("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr",
                "mosaic", "mixup", "copy_paste")


class EnoughError(Exception):
    """The time is over, or the aim is reached."""


def main() -> None:
    """Prints how far it came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="retinanet")
    parser.add_argument("--size", default="resnet18")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--aim", type=float, default=0.9, help="AP at IoU 0.5")
    parser.add_argument("--lr", type=float, help="the first learning rate; default: the family's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started, best = time.monotonic(), 0.0

    def watch(row: dict[str, float]) -> None:
        nonlocal best
        seconds = time.monotonic() - started
        if row["AP50"] > best:
            best = row["AP50"]
            losses = ", ".join(f"{name} {value:.3f}" for name, value in row.items() if name.startswith("train_"))
            print(f"# {seconds:.0f} s, epoch {row['epoch'] + 1}: AP50 {best:.3f}, AP75 {row['AP75']:.3f}; {losses}",
                  flush=True)
        if best > arguments.aim or seconds > 60 * arguments.minutes:
            raise EnoughError

    with tempfile.TemporaryDirectory() as folder:
        config = make_config(arguments, Path(folder))
        started = time.monotonic()
        with contextlib.suppress(EnoughError):
            train(config, Path(folder, "run"), watch)
    seconds = time.monotonic() - started
    print(f"bench overfit-{arguments.family} AP50={best:.3f} aim={arguments.aim:g} seconds={seconds:.0f} "
          f"of={60 * arguments.minutes:.0f} {'ok' if best > arguments.aim else 'short'}; {arguments.size}, "
          f"{arguments.images} images, {arguments.imgsz} px, batch {arguments.batch}, seed {arguments.seed}")


def make_config(arguments: argparse.Namespace, folder: Path) -> TrainConfig:
    """The settings of a training on the first images of the sample that have animals."""
    family = get_family(arguments.family)
    file = "baseline" if arguments.family == "yolov5" else arguments.family
    own = read_hyp(REPOSITORY / f"hyp/{file}.yaml")
    hyp = {**family.defaults, **own, **dict.fromkeys(AUGMENTATION, 0.0)}
    if arguments.lr:
        hyp["lr0"] = arguments.lr
    (folder / "hyp.yaml").write_text(yaml.safe_dump(hyp), encoding="utf-8")
    return TrainConfig(
        data_yaml=str(write_data(arguments.images, arguments.imgsz)), weights="", size=arguments.size,
        hyp=str(folder / "hyp.yaml"), imgsz=arguments.imgsz, batch=arguments.batch, epochs=arguments.epochs,
        family=arguments.family, optimizer="AdamW" if arguments.family == "dfine" else "SGD",
        device=arguments.device, workers=0, seed=arguments.seed, nominal_batch=arguments.batch, save=False)


def write_data(n_images: int, imgsz: int) -> Path:
    """A data set whose validation images are those that it trains on."""
    raw, folder = ROOT / f"raw_{n_images}", ROOT / f"{imgsz}_{n_images}"
    competition = read_competition(REPOSITORY / "competition.yaml")
    if not (raw / "truth_test.csv").exists():
        draw_sample(raw, seed=7, n_train=max(2 * n_images, 16), n_test=2)
    reading = readers.read("aihub", raw / "train", competition)
    ids = reading.images["image_id"]
    ids = ids[ids.isin(reading.boxes["image_id"])]
    ids = ids.iloc[:: max(len(ids) // n_images, 1)][:n_images]
    dataset.write_images(reading.images, folder, imgsz)
    dataset.write_labels(reading.images, reading.boxes, competition.labels, folder)
    return dataset.write_lists(folder, "same", ids, ids, competition.labels)


if __name__ == "__main__":
    main()
