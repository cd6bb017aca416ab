"""Real images: does this pipeline make a better answer than `yolov5 train` and `detect`, and what is it that helps?

python bench/real.py stock --data DIR --weights yolov5n.pt        ours against stock, and ours without one ingredient
python bench/real.py optimizer --data DIR --weights yolov5n.pt    SGD, Adam, AdamW, each with its own learning rate
python bench/real.py start --data DIR --weights yolov5n.pt        COCO weights against random ones and more epochs

`DIR` is what `livestock run --data` takes, with `truth_test.csv` of its test images. All trainings of a part have the
same images, image size and epochs; fold 0 chooses epoch, method, thresholds and learning rates, and the test images
judge. Each training's answers are kept as it finishes, so that a run that was cut off goes on; `--at-once N` trains N
side by side on a large GPU. Prints the scores of each answer, and gains with 95 % intervals over seeds and groups of
near-duplicate test images together.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from common import in_new_process, make_pool, read_truth_in_pixels

from livestock.config import REPOSITORY
from livestock.data import folds
from livestock.evaluation.gains import Judged, decide, draw_gain_counts, find_gain, judge_boxes
from livestock.pipeline.prepare import TRUTH_NAME, VALID_FOLD, read_data, read_images, split_data
from livestock.pipeline.run import Run, make_run
from livestock.pipeline.train import make_config, write_dataset
from livestock.postprocess import METHODS, Point, apply, choose_method, split_parts, suppress, tune_method
from livestock.postprocess.methods import EVERY_CLASS
from livestock.tables import read_table, write_table
from livestock.training import AVERAGED, BEST, TrainConfig

METRIC_IOU = 0.75
MEASURES = ("AP75", "AP50", "mAP50_95")
VIEWS = {"plain": (1.0, False), "flipped": (1.0, True), "larger": (1.25, False)}  # times the image size, mirrored
WIDEST = 0.9  # candidates that overlap more are copies: no threshold that is tried would keep both
N_KEPT = 300  # boxes of an image
DETECT: Point = {"iou_threshold": 0.45, "conf_threshold": 0.25}  # of `yolov5 detect`
VALIDATED: Point = {"iou_threshold": 0.6, "conf_threshold": 0.001}  # of `yolov5 val`
STOCK_FLOOR, RECIPE_WARMUP = 100, 3.0  # batches of warm-up at least, and epochs of it
STOCK_NOMINAL = 64  # images a step of stock
N_COCO = 80  # classes of the start weights
OTHER_FOLDS = (1, 2)
RATES = {"SGD": (0.0033, 0.01, 0.03), "Adam": (0.0003, 0.001, 0.003), "AdamW": (0.0003, 0.001, 0.003)}
SUPPRESSION, PLAIN = "suppression", "plain"  # the first of METHODS; the first of VIEWS
CHOSEN, TUNED, AS_VALIDATED, AS_DETECTED = "chosen", "tuned", "val", "detect"
LAST_TUNED, AVERAGED_TUNED = "last epoch, tuned", "averaged, tuned"


@dataclass(frozen=True)
class Job:
    """One training: by stock or by ours, and in what it differs from the profile `cpu`."""

    name: str
    is_stock: bool = False
    fold: int = VALID_FOLD
    settings: Mapping[str, Any] = field(default_factory=dict)
    hyp: Mapping[str, float] = field(default_factory=dict)
    epochs: float = 1.0  # times those of the others
    averages: bool = True
    forgets: bool = False  # the classes that the start weights know: a random last layer, as stock has it
    tries_all: bool = False  # of the methods, which takes a minute; else suppression alone


def list_jobs(part: str, n_batches: int) -> list[Job]:
    """The trainings of a part; `n_batches` are those of an epoch."""
    if part == "stock":
        longer = STOCK_FLOOR / n_batches  # epochs of warm-up; where the recipe's 3 are no less, both are the same
        return [Job("ours", tries_all=True), Job("stock", is_stock=True),
                *[Job("stock's warm-up", hyp={"warmup_epochs": longer})] * (longer > RECIPE_WARMUP),
                Job("stock's steps", settings={"nominal_batch": STOCK_NOMINAL}),
                Job("stock's last layer", forgets=True),
                Job("no moving average", averages=False),
                *[Job(f"fold {fold}", fold=fold) for fold in OTHER_FOLDS]]
    if part == "optimizer":
        return [Job(f"{name} {rate:g}", settings={"optimizer": name},
                    hyp={"lr0": rate} | ({} if name == "SGD" else {"warmup_bias_lr": rate}))
                for name, rates in RATES.items() for rate in rates]
    random = {"weights": "", "size": "yolov5n"}
    return [Job("ours"), *[Job(f"random weights, {times:g} times the epochs", settings=random, epochs=times)
                           for times in (1.0, 3.0, 10.0)]]


@dataclass(frozen=True)
class Lab:
    """What all trainings share: a run, its test images with groups, their truth, and where results are kept."""

    run: Run
    images: pd.DataFrame
    test_images: pd.DataFrame
    data: Mapping[int, Path]  # data.yaml by the fold that it leaves out
    root: Path


def main() -> None:
    """Trains what is not there yet, and prints the tables of the part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["stock", "optimizer", "start"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--workspace", type=Path, default=REPOSITORY / "data/bench_real")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--imgsz", type=int, default=0, help="without it, and without those below: the profile's")
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="print what is there, and train nothing")
    arguments = parser.parse_args()
    changes = {name: value for name in ("imgsz", "epochs") if (value := getattr(arguments, name))}
    lab = open_lab(arguments, {**changes, "device": arguments.device, "workers": arguments.workers})
    n_batches = -(-int((lab.images["fold"] != VALID_FOLD).sum()) // lab.run.profile.batch)
    jobs, seeds = list_jobs(arguments.part, n_batches), range(arguments.seeds)
    if not arguments.report:
        train_all(lab, [(job, seed) for seed in seeds for job in jobs], arguments.at_once)
    report(lab, arguments.part, jobs, seeds)


def open_lab(arguments: argparse.Namespace, changes: dict[str, Any]) -> Lab:
    """Reads and splits the data, and writes the lists of all folds that are left out."""
    run = make_run(workspace=arguments.workspace, data=arguments.data, profile="cpu", weights=arguments.weights,
                   overrides=changes)
    boxes, images = read_data(run).boxes, split_data(run).images
    test = read_images(run, "test_images")
    test = test.assign(group=test["image_id"].map(folds.near_duplicate_groups(test)).to_numpy())
    data = {fold: write_dataset(run, images, boxes, fold) for fold in (VALID_FOLD, *OTHER_FOLDS)}
    root = arguments.workspace / f"results_{run.profile.imgsz}_{run.profile.epochs}"
    return Lab(run, images, test, data, root)


def train_all(lab: Lab, jobs: Sequence[tuple[Job, int]], n_at_once: int) -> None:
    """Trains what has no result yet, so many side by side."""
    todo, started = [one for one in jobs if not result_path(lab, *one).exists()], time.perf_counter()
    with make_pool(n_at_once) as pool:
        running = {pool.submit(train_one, lab, job, seed): f"{job.name}, seed {seed}" for job, seed in todo}
        for number, done in enumerate(as_completed(running), 1):
            print(f"# {number} of {len(todo)}: {running[done]}: {json.dumps(done.result())}, "
                  f"{time.perf_counter() - started:.0f} s", flush=True)


def result_path(lab: Lab, job: Job, seed: int) -> Path:
    """Where the answers of a training are kept."""
    return lab.root / f"{job.name.replace(' ', '_')}_{seed}.parquet"


def train_one(lab: Lab, job: Job, seed: int) -> dict[str, Any]:
    """Trains, finds the answers of this training for the test images and keeps them; returns what is known of it."""
    started, path = time.perf_counter(), result_path(lab, job, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        config = configure(lab, job, seed, Path(folder))
        weights = in_new_process(fit_stock if job.is_stock else fit_ours, config, Path(folder), job)
        answers, facts = find_answers(lab, job, weights)
    facts["seconds"] = round(time.perf_counter() - started)
    path.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")
    write_table(pd.concat([boxes.assign(answer=name) for name, boxes in answers.items()], ignore_index=True), path)
    return facts


def configure(lab: Lab, job: Job, seed: int, folder: Path) -> TrainConfig:
    """The settings of a training; its hyper-parameters lie in `folder`."""
    hyp = folder / "hyp.yaml"
    values = yaml.safe_load((REPOSITORY / "hyp" / lab.run.profile.hyp).read_text(encoding="utf-8"))
    hyp.write_text(yaml.safe_dump({**values, **job.hyp}), encoding="utf-8")
    config = make_config(replace(lab.run, seed=seed), lab.data[job.fold], hyp)
    return replace(config, epochs=round(config.epochs * job.epochs), **job.settings)


def fit_ours(config: TrainConfig, folder: Path, job: Job) -> dict[str, Path]:
    """Trains by ours in this process; the weights of the best epoch, of the last, and the mean of the last ones."""
    from livestock.training import ema, loop

    if not job.averages:
        ema.DECAY = 0.0
    unknown = [f"class {number}" for number in range(N_COCO)] if job.forgets else None
    loop.run_training(config, folder / "run", lambda event: None, unknown)
    kept = folder / "run/weights"
    last = kept / f"epoch{config.epochs - 1:04d}.safetensors"
    return {"best": kept / BEST, "last": last, "averaged": kept / AVERAGED}


def fit_stock(config: TrainConfig, folder: Path, job: Job) -> dict[str, Path]:
    """Trains by `yolov5.train` with its own defaults; the weights of its best epoch and of the last."""
    import stock

    start = Path(config.weights)
    if start.suffix == ".safetensors":
        start = stock.write_pt(start, folder / "start.pt")
    stock.train({"data": config.data_yaml, "weights": str(start), "imgsz": config.imgsz, "batch_size": config.batch,
                 "epochs": config.epochs, "device": config.device, "workers": config.workers, "seed": config.seed,
                 "project": str(folder), "name": "run", "noplots": True}, lambda: None)
    return {"best": folder / "run/weights/best.pt", "last": folder / "run/weights/last.pt"}


def find_answers(lab: Lab, job: Job, weights: Mapping[str, Path]) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """The boxes for the test images by each way from candidates to an answer, and the facts of the choosing.

    Whatever is tuned or chosen, it is by the images of the fold that was left out, by `livestock.postprocess` as the
    pipeline does it. Of other folds than the first only the candidates are kept, to be fused with the first's.
    """
    see = partial(look, lab)
    if job.fold != VALID_FOLD:
        return {PLAIN: see(weights["best"], lab.test_images, PLAIN)}, {}
    own = lab.images[lab.images["fold"] == job.fold].reset_index(drop=True)
    boxes = read_data(lab.run).boxes
    truth = boxes[boxes["image_id"].isin(own["image_id"])].reset_index(drop=True)
    parts = split_parts(own, np.random.default_rng(lab.run.seed))
    passes = {view: (weights["best"], view) for view in (VIEWS if job.tries_all else [PLAIN])}
    passes |= {name: (weights[name], PLAIN) for name in ("last", "averaged") if name in weights}
    inside, outside = ({name: see(path, images, view) for name, (path, view) in passes.items()}
                       for images in (own, lab.test_images))
    methods = {name: method for name, method in METHODS.items()
               if job.tries_all or name in (SUPPRESSION, "averaged weights")}
    methods["last epoch"] = replace(METHODS[SUPPRESSION], passes=("last",))
    tuned = {name: tune_method(method, [inside[look] for look in method.passes], truth, own, parts, METRIC_IOU)
             for name, method in methods.items() if set(method.passes) <= set(inside)}

    def answer(name: str) -> pd.DataFrame:
        """By one of the methods, tuned."""
        return apply(methods[name].kind, [outside[look] for look in methods[name].passes], lab.test_images,
                     tuned[name].points)

    answers = {AS_DETECTED: suppress(outside[PLAIN], **DETECT), AS_VALIDATED: suppress(outside[PLAIN], **VALIDATED),
               TUNED: answer(SUPPRESSION), PLAIN: outside[PLAIN], LAST_TUNED: answer("last epoch")}
    if "averaged weights" in tuned:
        answers[AVERAGED_TUNED] = answer("averaged weights")
    facts: dict[str, Any] = {"fold_tuned": round(score_on(tuned[SUPPRESSION].held_out, truth, own), 4)}
    if job.tries_all:
        known = {name: one for name, one in tuned.items() if name in METHODS}
        choice = choose_method({name: one.held_out for name, one in known.items()},
                               {name: one.inner for name, one in known.items()}, truth, own, parts, METRIC_IOU,
                               allowed=list(known))
        answers[CHOSEN] = answer(choice.method)
        facts |= {"method": choice.method, "fold_chosen": round(choice.score, 4),
                  "fused": tuned["flipped too, fused (WBF)"].points[EVERY_CLASS]}
    return answers, facts


def score_on(boxes: pd.DataFrame, truth: pd.DataFrame, images: pd.DataFrame) -> float:
    """AP at the competition's IoU."""
    return judge_boxes(images, truth, boxes, np.ones((1, len(images)), int)).scores["AP75"]


def look(lab: Lab, weights: Path, images: pd.DataFrame, view: str) -> pd.DataFrame:
    """The candidates of these weights, without copies."""
    from livestock.inference import find_candidates
    from livestock.models.forward import load_for_inference

    scale, flip = VIEWS[view]
    model = load_for_inference(weights, lab.run.profile.device)
    imgsz = round(lab.run.profile.imgsz * scale / 64) * 64 if scale != 1 else lab.run.profile.imgsz
    keep = partial(suppress, iou_threshold=WIDEST, conf_threshold=0.001, max_det=N_KEPT)
    return find_candidates(model, images, lab.run.competition.labels, imgsz=imgsz, flip=flip, keep=keep,
                           label_of=lab.run.competition.label_of, origin=f"{view} {weights.name}").boxes


def report(lab: Lab, part: str, jobs: Sequence[Job], seeds: Sequence[int]) -> None:
    """Prints scores and gains of a part, for the seeds that all its trainings have."""
    seeds = [seed for seed in seeds if all(result_path(lab, job, seed).exists() for job in jobs)]
    if not seeds:
        raise SystemExit(f"{lab.root}: no seed with all of {len(jobs)} trainings yet")
    judge = make_judge(lab)
    profile = lab.run.profile
    print(f"{part}: {profile.imgsz} px, batch {profile.batch}, {profile.epochs} epochs, seeds {list(seeds)}; "
          f"{len(lab.test_images)} test images")
    answers = {name: [read_answer(lab, job, seed, way) for seed in seeds]
               for name, job, way in list_answers(part, jobs)}
    if part == "stock":
        answers["ours, three folds fused"] = [fuse_folds(lab, jobs, seed) for seed in seeds]
    if part == "optimizer":
        answers = {name: answers[best] for name, best in choose_rates(lab, jobs, seeds).items()}
    judged = {name: [judge(boxes) for boxes in tables] for name, tables in answers.items()}
    for name, runs in judged.items():
        print(f"{name:45}" + ", ".join(f"{measure} {np.mean([run.scores[measure] for run in runs]):.3f}"
                                       for measure in MEASURES))
    for first, second in list_pairs(part, list(judged)):
        gains = {measure: find_gain(judged[first], judged[second], measure) for measure in MEASURES}
        print(f"{first} over {second}: " + "; ".join(f"{measure} {gain}" for measure, gain in gains.items())
              + f"; at {METRIC_IOU:g} {decide([gains['AP75']])}")
    if part == "stock":
        print_sources(lab, {name: answers[name] for name in ("stock, detect", "stock, val", "ours, chosen")})


def make_judge(lab: Lab) -> Callable[[pd.DataFrame], Judged]:
    """What scores an answer on the test images, all with the same resamples."""
    truth = read_truth_in_pixels(lab.run.data_dir / TRUTH_NAME, lab.test_images)
    return partial(judge_boxes, lab.test_images, truth, counts=draw_gain_counts(lab.test_images, seed=0))


def list_answers(part: str, jobs: Sequence[Job]) -> Iterator[tuple[str, Job, str]]:
    """The answers that a part compares: a name, the training, and the way from candidates to boxes."""
    for job in jobs:
        if job.fold != VALID_FOLD:
            continue
        ways: tuple[str, ...] = (TUNED,)
        if part == "stock" and job.is_stock:
            ways = (AS_DETECTED, AS_VALIDATED, TUNED)
        elif part == "stock" and job.name == "ours":
            ways = (AS_DETECTED, AS_VALIDATED, TUNED, CHOSEN, LAST_TUNED, AVERAGED_TUNED)
        for way in ways:
            yield (f"{job.name}, {way}" if part == "stock" else job.name), job, way


def list_pairs(part: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """What is compared with what."""
    if part != "stock":
        return [(names[0], other) for other in names[1:]]
    ours = f"ours, {TUNED}"
    return [(f"ours, {CHOSEN}", "stock, detect"), (f"ours, {CHOSEN}", "stock, val"), ("ours, val", "stock, val"),
            (f"stock, {TUNED}", "stock, val"), (f"stock, {TUNED}", "stock, detect"), (ours, f"stock, {TUNED}"),
            *[(ours, name) for name in names if name.startswith(("stock's", "no moving")) or name in (
                "ours, val", f"ours, {LAST_TUNED}", f"ours, {AVERAGED_TUNED}")],
            (f"ours, {CHOSEN}", ours), ("ours, three folds fused", ours),
            ("ours, three folds fused", f"ours, {CHOSEN}")]


def read_answer(lab: Lab, job: Job, seed: int, way: str) -> pd.DataFrame:
    """One of the answers of a training."""
    table = read_table(result_path(lab, job, seed))
    return table[table["answer"] == way].drop(columns="answer").reset_index(drop=True)


def fuse_folds(lab: Lab, jobs: Sequence[Job], seed: int) -> pd.DataFrame:
    """What the models of three folds find, fused at the IoU that was tuned for two looks of the first."""
    members = [job for job in jobs if job.name == "ours" or job.fold != VALID_FOLD]
    facts = json.loads(result_path(lab, members[0], seed).with_suffix(".json").read_text(encoding="utf-8"))
    tables = [read_answer(lab, job, seed, PLAIN) for job in members]
    return apply("wbf", tables, lab.test_images, {EVERY_CLASS: facts["fused"]})


def choose_rates(lab: Lab, jobs: Sequence[Job], seeds: Sequence[int]) -> dict[str, str]:
    """By optimizer and rate the training with the best mean score on the fold that was left out; says them all."""
    scores = {job.name: np.mean([json.loads(result_path(lab, job, seed).with_suffix(".json").read_text())["fold_tuned"]
                                 for seed in seeds]) for job in jobs}
    print("on the fold: " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))
    best = {}
    for optimizer in RATES:
        own = {name: score for name, score in scores.items() if name.split()[0] == optimizer}
        name = max(own, key=lambda key: own[key])
        best[name] = name
    return best


def print_sources(lab: Lab, answers: Mapping[str, Sequence[pd.DataFrame]]) -> None:
    """AP at 0.75 of each source of test images, where `sources.csv` of the data says which it is; mean over seeds."""
    path = lab.run.data_dir / "sources.csv"
    if not path.exists():
        return
    source_of = pd.read_csv(path).set_index("image_id")["source"]
    names = lab.test_images["image_id"].str.rpartition("/")[2].map(source_of)
    truth = read_truth_in_pixels(lab.run.data_dir / TRUTH_NAME, lab.test_images)
    for source, images in lab.test_images.groupby(names.to_numpy()):
        ids, counts = images["image_id"], np.ones((1, len(images)), int)
        scores = {name: np.mean([judge_boxes(images, truth[truth["image_id"].isin(ids)],
                                             table[table["image_id"].isin(ids)], counts).scores["AP75"]
                                 for table in tables]) for name, tables in answers.items()}
        print(f"{source} ({len(images)} images): " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))


if __name__ == "__main__":
    main()
