"""Whether a training image that was resized beforehand costs accuracy: mAP both ways, over seeds.

python bench/resized.py --data PATH --weights yolov5n.pt [--seeds 3]     some fifteen minutes on 2 cores

`full`: training reads the files as they are and resizes them each time, as yolov5 does. `resized`: it reads what
`data.dataset` writes at training size. All else is equal: images, folds, seeds, and the test images, which are read as
they are. Data in AI Hub's layout with `truth_test.csv`; without `--data` the embedded sample and the starter.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from common import read_truth_in_pixels
from scipy import stats

from livestock import inference
from livestock.config import REPOSITORY, read_competition
from livestock.data import dataset, folds, readers
from livestock.evaluation import evaluate
from livestock.models.forward import load_for_inference
from livestock.models.yolov5.library import STARTER
from livestock.postprocess import suppress
from livestock.sample import draw_sample
from livestock.training import AVERAGED, TrainConfig, train

ROOT = REPOSITORY / "data/bench_resized"
LARGEST = 1 << 14  # px, of no image: written as they are
METRICS = {"test AP75": 0.75, "test AP50": 0.5}


def main() -> None:
    """Prints a row a training and, for each score, the mean difference with its 95 % interval over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path, default=STARTER)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--imgsz", type=int, default=320)
    arguments = parser.parse_args()
    lists, tests, truth = write_data(arguments.data, arguments.imgsz)
    rows = []
    for seed in range(arguments.seeds):
        for way, data_yaml in lists.items():
            config = TrainConfig(
                data_yaml=str(data_yaml), weights=str(arguments.weights), hyp=str(REPOSITORY / "hyp/baseline.yaml"),
                imgsz=arguments.imgsz, batch=16, nominal_batch=16, epochs=arguments.epochs, device="cpu", seed=seed)
            rows.append({"seed": seed, "way": way, **score_training(config, tests, truth)})
            print(pd.DataFrame(rows[-1:]).round(4).to_string(index=False, header=len(rows) == 1), flush=True)
    wide = pd.DataFrame(rows).pivot(index="seed", columns="way")
    for name in wide.columns.unique(0):
        gain = wide[name]["resized"] - wide[name]["full"]
        reach = stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain))
        print(f"{name}: full {wide[name]['full'].mean():.4f}, resized {wide[name]['resized'].mean():.4f}, difference "
              f"{gain.mean():+.4f} ({gain.mean() - reach:+.4f} to {gain.mean() + reach:+.4f}), {len(gain)} seeds")


def write_data(data: Path | None, imgsz: int) -> tuple[dict[str, Path], pd.DataFrame, pd.DataFrame]:
    """For each way what training takes; the test images and their truth in pixels. Fold 0 is for validation."""
    competition, raw = read_competition(REPOSITORY / "competition.yaml"), data or ROOT / "raw"
    if not (raw / "truth_test.csv").exists():
        draw_sample(raw)
    train, test = readers.read_train_and_test("aihub", raw, competition)
    assert test is not None  # noqa: S101 - both have one
    groups = folds.near_duplicate_groups(train.images)
    images = folds.assign_folds(train.images, train.boxes, competition, groups=groups, seed=42)
    truth = read_truth_in_pixels(raw / "truth_test.csv", test.images)
    lists = {}
    for way, side in (("full", LARGEST), ("resized", imgsz)):
        folder = ROOT / f"{way}_{len(images)}_{imgsz}"
        dataset.write_images(images, folder, side)
        dataset.write_labels(images, train.boxes, competition.labels, folder)
        ids, is_valid = images["image_id"], images["fold"] == 0
        lists[way] = dataset.write_lists(folder, "all", ids[~is_valid], ids[is_valid], competition.labels)
    return lists, test.images, truth


def score_training(config: TrainConfig, tests: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Usual mAP of the averaged weights on the test images, and of the last epoch on the validation list."""
    labels = read_competition(REPOSITORY / "competition.yaml").labels
    with tempfile.TemporaryDirectory() as folder:
        history = train(config, Path(folder, "run"))
        weights = Path(folder, "run/weights", AVERAGED)
        model = load_for_inference(weights, "cpu")
        answer = suppress(inference.find_candidates(model, tests, labels, imgsz=config.imgsz).boxes)
    scores = {name: evaluate(truth, answer, iou).mean for name, iou in METRICS.items()}
    return {**scores, "valid AP50-95": history["mAP50_95"].iloc[-1]}


if __name__ == "__main__":
    main()
