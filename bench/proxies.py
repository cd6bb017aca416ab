"""The part `proxies` of bench/plan.py, which says what it does."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from common import _start_children_as_usual
from evolve import perturb_starter

from livestock.config import REPOSITORY, Competition, get_profile, read_competition
from livestock.search.proxies import FULL, PROXIES, Proxy, judge_proxies, keep_whole_seeds
from livestock.training import TrainConfig

ROOT = REPOSITORY / "data/bench_plan"
PERTURBED = str(ROOT / "perturbed.safetensors")
FACTORS = ("lr0", "weight_decay", "box", "cls")  # a setting multiplies these, and replaces all others
SETTINGS: dict[str, dict[str, float]] = {
    "start": {},
    "lr0 x 0.1": {"lr0": 0.1},
    "lr0 x 0.3": {"lr0": 0.3},
    "lr0 x 3": {"lr0": 3.0},
    "lr0 x 10": {"lr0": 10.0},
    "lrf 1": {"lrf": 1.0},
    "momentum 0.8": {"momentum": 0.8},
    "momentum 0.98": {"momentum": 0.98},
    "weight_decay x 10": {"weight_decay": 10.0},
    "box x 2": {"box": 2.0},
    "cls x 0.3": {"cls": 0.3},
    "mosaic 0": {"mosaic": 0.0},
    "scale 0.9": {"scale": 0.9, "translate": 0.2},
    "no colour": {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0},
}
SCALES = {scale.name: scale for scale in (FULL, *PROXIES)}


def add_proxies(parser: argparse.ArgumentParser) -> None:
    """The options of `proxies`."""
    demo = get_profile("demo")
    parser.add_argument("--data", type=Path, help="a folder of raw data, or a data.yaml; without it the sample")
    parser.add_argument("--every", type=int, default=1, help="of the images in --data every so-manieth one")
    parser.add_argument("--images", type=int, default=320, help="of the sample, a fifth of them for validation")
    parser.add_argument("--weights", default=PERTURBED, help="start weights: a file, .pt of YOLOv5 too; without it the "
                        "starter made worse, as in bench/evolve.py: on the sample it has nothing left to learn")
    parser.add_argument("--size", default="", help="such as yolov5n, from random weights in place of --weights")
    parser.add_argument("--hyp", default="demo.yaml")
    parser.add_argument("--imgsz", type=int, default=demo.imgsz)
    parser.add_argument("--batch", type=int, default=demo.batch)
    parser.add_argument("--nominal-batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--settings", default=",".join(SETTINGS), help="some of them, between commas")
    parser.add_argument("--scales", default=",".join(SCALES), help="full and some others, between commas")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="trainings side by side")
    parser.add_argument("--loaders", type=int, default=2, help="processes that prepare images, of each training")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no training begins after so many")
    parser.add_argument("--out", type=Path, default=ROOT / "proxies.jsonl", help="rows, one a training")
    parser.add_argument("--short", action="store_true")


def measure_proxies(arguments: argparse.Namespace) -> None:
    """Trains what is not trained yet, then prints the table."""
    if arguments.short:
        for name, value in {"images": 20, "imgsz": 64, "batch": 4, "epochs": 2, "seeds": 2, "loaders": 0,
                            "settings": "start,lr0 x 10", "out": ROOT / "short.jsonl"}.items():
            setattr(arguments, name, value)
    settings, scales = choose(arguments.settings, SETTINGS), choose(arguments.scales, SCALES)
    config, half_yaml, n_images = prepare(arguments)
    task = {name: value for name, value in asdict(config).items() if name not in ("data_yaml", "device", "workers")}
    task |= {"hyp": yaml.safe_load(Path(config.hyp).read_text(encoding="utf-8")), "loggers": [],
             "weights": Path(config.weights).name, "data": str(arguments.data or "sample"), "images": n_images}
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    wanted = [(name, scale, seed) for seed in seeds for scale in scales for name in settings]
    done = {(row["setting"], row["scale"], row["seed"]) for row in read_rows(arguments.out, task)}
    left = [key for key in wanted if key not in done]
    print(f"# {len(wanted)} trainings, {len(left)} of them are left; rows: {arguments.out}", flush=True)
    jobs = [(name, scale, seed, scale_config(config, half_yaml, scales[scale], settings[name], seed))
            for name, scale, seed in left]
    train_all(jobs, arguments, task)
    rows = [row for row in read_rows(arguments.out, task) if (row["setting"], row["scale"], row["seed"]) in wanted]
    report(pd.DataFrame(rows, columns=["setting", "scale", "seed", "AP", "in_epochs"]), len(wanted))


def choose(names: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Those of these names. Raises ValueError for an unknown one."""
    wanted = [name.strip() for name in names.split(",")]
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"expected some of {list(known)}, found {unknown[0]!r}")
    return {name: known[name] for name in wanted}


def prepare(arguments: argparse.Namespace) -> tuple[TrainConfig, Path, int]:
    """The training at full scale, the `data.yaml` of the stratified half of its images, how many it trains on."""
    from livestock.models.registry import find_start

    ROOT.mkdir(parents=True, exist_ok=True)
    if arguments.weights == PERTURBED and not Path(PERTURBED).exists():
        perturb_starter(Path(PERTURBED))
    data_yaml = arguments.data.resolve() if arguments.data and arguments.data.is_file() else write_data(arguments)
    start = None if arguments.size else find_start("yolov5", arguments.weights, ROOT)
    config = TrainConfig(
        data_yaml=str(data_yaml), weights=str(start.resolve()) if start else "", size=arguments.size,
        hyp=str(REPOSITORY / "hyp" / arguments.hyp), imgsz=arguments.imgsz, batch=arguments.batch,
        epochs=arguments.epochs, device=arguments.device, workers=arguments.loaders,
        nominal_batch=arguments.nominal_batch, save=False)
    return config, *write_half(data_yaml.resolve())


def write_data(arguments: argparse.Namespace) -> Path:
    """The images at training size, and the lists that leave fold 0 out to validate; returns the `data.yaml`."""
    from livestock.pipeline.prepare import read_data, split_data
    from livestock.pipeline.run import make_run
    from livestock.pipeline.train import write_dataset
    from livestock.sample import draw_sample

    raw = arguments.data or ROOT / f"raw_{arguments.images}_{arguments.imgsz > 640}"
    if not arguments.data and not (raw / "truth_test.csv").exists():
        draw_sample(raw, seed=7, n_train=arguments.images, n_test=2, scale=1 if arguments.imgsz > 640 else 1 / 3)
    run = make_run(workspace=ROOT / f"work_{raw.name}_{arguments.every}", data=raw, profile="demo", seed=0, fresh=True,
                   overrides={"imgsz": arguments.imgsz})
    tables, split = read_data(run), split_data(run)
    images = split.images.iloc[:: arguments.every]
    return write_dataset(run, images, tables.boxes[tables.boxes["image_id"].isin(images["image_id"])])


def write_half(data_yaml: Path) -> tuple[Path, int]:
    """The `data.yaml` of a stratified half of the training images, as the search trains on, and how many all are."""
    from livestock.data.folds import mini_set
    from livestock.training.batches import read_images

    images, boxes = read_images(data_yaml, "train").to_tables()
    labels = [str(label) for label in sorted(boxes["label"].unique())]
    bins = read_competition(REPOSITORY / "competition.yaml").count_bins
    competition = Competition(name="bench", classes={label: [] for label in labels},
                              count_bins={label: bins[label] for label in labels if label in bins})
    chosen = mini_set(images.assign(fold=0), boxes, competition)
    content = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    half = data_yaml.parent / f"{data_yaml.stem}_half.yaml"
    names = half.with_suffix(".txt")
    names.write_text("".join(f"{name}\n" for name in chosen.index[chosen]), encoding="utf-8")
    half.write_text(yaml.safe_dump({**content, "train": str(names)}), encoding="utf-8")
    return half, len(images)


def scale_config(config: TrainConfig, half_yaml: Path, scale: Proxy, changes: Mapping[str, float], seed: int
                 ) -> tuple[TrainConfig, dict[str, float]]:
    """A training at this scale, and its hyper-parameters."""
    hyp = yaml.safe_load(Path(config.hyp).read_text(encoding="utf-8"))
    hyp |= {name: hyp[name] * value if name in FACTORS else value for name, value in changes.items()}
    hyp |= {"freeze": scale.freeze} if scale.freeze else {}
    return replace(config, data_yaml=str(half_yaml) if scale.data < 1 else config.data_yaml, seed=seed,
                   imgsz=scale.scale_imgsz(config.imgsz), epochs=scale.scale_epochs(config.epochs)), hyp


def train_all(jobs: Sequence[tuple[str, str, int, tuple[TrainConfig, dict[str, float]]]],
              arguments: argparse.Namespace, task: Mapping[str, Any]) -> None:
    """Trains side by side, each in a process, and adds a row as each ends. What fails ends it, the rows stay."""
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "LIVESTOCK_UNWATCHED": "1"}  # threads that wait leave their cores
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    deadline, waiting, running = time.monotonic() + 60 * arguments.minutes, list(jobs), set()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, spawn, _start_children_as_usual) as pool:
        while running or (waiting and time.monotonic() < deadline):
            while waiting and len(running) < arguments.workers and time.monotonic() < deadline:
                running.add(pool.submit(train_one, *waiting.pop(0)))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for row in [job.result() for job in done]:
                with open(arguments.out, "ab", buffering=0) as file:  # whole, whoever else writes
                    file.write(f"{json.dumps({**row, 'task': task})}\n".encode())
                print(f"# {row['setting']}, {row['scale']}, seed {row['seed']}: AP {row['AP']:.4f}, "
                      f"{row['seconds']:.0f} s{row['error']}", flush=True)


def train_one(name: str, scale: str, seed: int, what: tuple[TrainConfig, dict[str, float]]) -> dict[str, Any]:
    """A row: the best epoch's AP, as a search has it, that of each epoch, and seconds with the process's start."""
    from livestock.search import write_hyp
    from livestock.training import train

    config, hyp = what
    epochs: list[dict[str, float]] = []
    error, started = "", time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        write_hyp(hyp, Path(folder, "hyp.yaml"), [f"{name} of bench/plan.py"])
        try:
            train(replace(config, hyp=str(Path(folder, "hyp.yaml"))), Path(folder, "run"), epochs.append)
        except RuntimeError as failure:
            if "diverged" not in str(failure):
                raise
            error = ", diverged"
    aps = [row["AP"] for row in epochs]
    return {"setting": name, "scale": scale, "seed": seed, "AP": 0.0 if error else max(aps), "epochs": aps,
            "seconds": round(time.monotonic() - started, 2), "in_epochs": round(sum(r["seconds"] for r in epochs), 2),
            "imgsz": config.imgsz, "error": error}


def read_rows(path: Path, task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of this task; a line that a kill left unfinished does not count."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}}")]
    return [row for row in rows if row["task"] == json.loads(json.dumps(task))]


def report(trainings: pd.DataFrame, n_wanted: int) -> None:
    """The table, a line of the bench for each proxy, and one that `hyp/proxies.yaml` takes."""
    if len(trainings) < n_wanted:
        print(f"# {len(trainings)} of {n_wanted} trainings are there: seeds that are whole count; run again to go on")
    if keep_whole_seeds(trainings)["seed"].nunique() < 2:
        print("# nothing to judge yet: two whole seeds are needed")
        return
    judged = judge_proxies(trainings.rename(columns={"in_epochs": "seconds"}))  # the start is none of the scale's
    with pd.option_context("display.width", 250, "display.max_columns", 30):
        print(judged.round(4).to_string())
    for name, row in judged.iterrows():
        print(f"bench plan-{name} tau={row['tau']:.3f} ({row['tau_low']:.3f} to {row['tau_high']:.3f}) "
              f"regret={row['regret']:.4f} ({row['regret_low']:.4f} to {row['regret_high']:.4f}) "
              f"noise={row['noise']:.4f} cost={row['cost']:.3f} {'within' if row['is_within'] else 'beyond'} the noise")
    print("# for hyp/proxies.yaml, each with its origin:")
    for name, row in judged.drop(index=FULL.name).iterrows():
        print(f"# {name}: {{family: yolov5, tau: {row['tau']:.3f}, regret: {row['regret']:.4f}, "
              f"noise: {row['noise']:.4f}, cost: {row['cost']:.3f}, origin: \"...\"}}")
