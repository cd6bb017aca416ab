"""The memory of the whole data path at the original's size, but for training: bar 2 GB.

python bench/memory.py [--images 16455]      some ten minutes on 2 cores

Small images drawn for it, in AI Hub's archives; each stage in a process of its own, all of whose memory and its
children's is added up every 20 ms (resident, what they share counted more than once). In place of a network stand
random boxes, as many an image as the starter has before suppression; what follows the network is the real thing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from archives import N_COWS, N_PIGS, draw_archives

REPOSITORY = Path(__file__).resolve().parents[1]
ROOT = REPOSITORY / "data/bench_memory"
WEIGHTS = REPOSITORY / "src/livestock/models/yolov5/starter.safetensors"
BAR_MB, N_CANDIDATES = 2000, 2_500  # some 1,700 of them on the picture, the others on what pads it


def main() -> None:
    """Runs the stages one after the other and prints the peak of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=N_COWS + N_PIGS)
    parser.add_argument("stages", nargs="*", default=list(STAGES))
    arguments = parser.parse_args()
    root = ROOT / str(arguments.images)
    draw_archives(root / "raw", arguments.images, arguments.images // 8)
    for name in arguments.stages:
        started = time.perf_counter()
        peak = watch_stage(name, root)
        print(f"bench memory-{name} peak={peak / 1e6:.0f} MB bar={BAR_MB} MB "
              f"{'ok' if peak < BAR_MB * 1e6 else 'short'} ({time.perf_counter() - started:.0f} s)", flush=True)


def watch_stage(name: str, root: Path) -> int:
    """The most bytes that a stage takes, run in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=run_stage, args=(name, root))
    process.start()
    peak = watch(process)
    if process.exitcode:
        raise SystemExit(f"{name}: failed, see above")
    return peak


def watch(process: multiprocessing.context.SpawnProcess) -> int:
    """The most bytes that a process and its children have resident at a time, until it ends."""
    peak = 0
    while process.is_alive():
        try:
            own = psutil.Process(process.pid)
            peak = max(peak, sum(one.memory_info().rss for one in [own, *own.children(recursive=True)]))
        except psutil.Error:  # a child that ended while it was looked at
            pass
        time.sleep(0.02)
    process.join()
    return peak


def run_stage(name: str, root: Path) -> None:
    """In the new process."""
    STAGES[name](root)


def make_run(root: Path, profile: str = "colab"):
    """A run on the drawn archives."""
    from livestock.pipeline.run import make_run

    return make_run(competition=str(REPOSITORY / "competition.yaml"), profile=profile, workspace=str(root),
                    data=str(root / "raw"), reader="aihub", seed=42)


def read(root: Path) -> None:
    """Archives to tables."""
    from livestock.pipeline.prepare import read_data

    read_data(make_run(root))


def split(root: Path) -> None:
    """Near-duplicates, folds, the mini set."""
    from livestock.pipeline.prepare import split_data

    split_data(make_run(root))


def notebook(name: str, root: Path) -> None:
    """One notebook with all its figures."""
    from livestock.pipeline.notebooks import choose_notebooks, run_notebooks

    chosen = choose_notebooks({"PROFILE": "colab", "WORKSPACE": str(root), "DATA": str(root / "raw")})
    run_notebooks({path: own for path, own in chosen.items() if path.stem == name}, root / "runs")


def dataset(root: Path) -> None:
    """Images and labels at training size, and the lists."""
    from livestock.pipeline.prepare import read_tables
    from livestock.pipeline.train import write_dataset

    run = make_run(root)
    write_dataset(run, *read_tables(run))


def candidates(root: Path) -> None:
    """What a network would see in the validation fold, through everything that follows the network, to a file."""
    from livestock.pipeline.predict import predict_boxes, read_oof

    see_at_random()
    run = make_run(root, "smoke")
    images, truth = read_oof(run, [0])
    predict_boxes(run, images, WEIGHTS, "plain")


def answer(root: Path) -> None:
    """Suppression tuned on these, tried on parts, scored, written."""
    from livestock.data.submission import write_answer
    from livestock.pipeline.predict import predict_boxes, read_oof
    from livestock.postprocess import METHODS, split_parts, tune_method

    run = make_run(root, "smoke")
    images, truth = read_oof(run, [0])
    parts = split_parts(images, np.random.default_rng(0))
    members = [predict_boxes(run, images, WEIGHTS, "plain")]  # as the step before has left it
    tuned = tune_method(next(iter(METHODS.values())), members, truth, images, parts, 0.75)
    write_answer(tuned.held_out, images, root / "answer.csv", boxless=images["image_id"], labels=["pig", "cow"])


def silver(root: Path) -> None:
    """Three looks at the images of the other folds, fused; thresholds; labels."""
    from livestock.labels.missing import fuse_views
    from livestock.labels.silver import choose_thresholds, rank_silver, select_silver
    from livestock.pipeline.predict import predict_boxes, read_oof

    see_at_random(300)  # those that are not likely go with their image, and would only take time
    run = make_run(root, "smoke")
    images, truth = read_oof(run, [1, 2, 3, 4])
    views = [predict_boxes(run, images, WEIGHTS, view, likely=True) for view in ("plain", "flipped", "larger")]
    fused = fuse_views(views, images)
    rank_silver(truth, fused, images)
    bands = choose_thresholds(truth, fused, images)
    select_silver("replace", truth, fused, images, bands)  # of random boxes none is sure enough for `complete`


def see_at_random(n_boxes: int = N_CANDIDATES) -> None:
    """In the place of the network: so many boxes an image near some twenty places, unsure as a rule."""
    import torch

    from livestock.models.base import Predictions
    from livestock.models.loaded import LoadedModel
    from livestock.pipeline import predict

    def run(pictures: torch.Tensor) -> Predictions:
        n, _, height, width = pictures.shape
        places = torch.rand(n, 20, 4) * torch.tensor([width, height, width / 4, height / 4])
        boxes = places.repeat(1, n_boxes // 20, 1)
        boxes += 0.08 * boxes[..., 2:].repeat(1, 1, 2) * torch.randn_like(boxes)
        sure = torch.rand(*boxes.shape[:2], 1) ** 8
        halves = boxes[..., 2:] / 2
        return Predictions(torch.cat([boxes[..., :2] - halves, boxes[..., :2] + halves], 2),
                           sure.clamp(min=0.0011) * torch.eye(2)[torch.randint(2, boxes.shape[:2])])

    forward = LoadedModel(WEIGHTS, run, ["pig", "cow"], 32)
    predict.load_for_inference = lambda *arguments, **options: forward


STAGES: dict[str, Callable[[Path], None]] = {
    "read": read, "split": split, **{name: partial(notebook, name) for name in ("01_eda", "02_split")},
    "dataset": dataset, "candidates": candidates, "answer": answer, "silver": silver,
}

if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY / "src"))
    main()
