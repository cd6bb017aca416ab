"""What the benchmarks on real images share: the data, one training and its answers, and the judge of all of them."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from common import in_new_process, make_pool, read_truth_in_pixels

from livestock.config import REPOSITORY
from livestock.data import folds
from livestock.evaluation.gains import Judged, draw_gain_counts, judge_boxes
from livestock.pipeline.prepare import TRUTH_NAME, VALID_FOLD, read_data, read_images, split_data
from livestock.pipeline.run import Run, make_run
from livestock.pipeline.train import make_config, write_dataset
from livestock.postprocess import METHODS, Point, apply, choose_method, split_parts, suppress, tune_method
from livestock.postprocess.methods import EVERY_CLASS
from livestock.tables import XYXY, read_table, write_table
from livestock.training import AVERAGED, BEST, TrainConfig

METRIC_IOU = 0.75
MEASURES = ("AP75", "AP50", "mAP50_95")
VIEWS = {"plain": (1.0, False), "flipped": (1.0, True), "larger": (1.25, False)}  # times the image size, mirrored
WIDEST = 0.9  # candidates that overlap more are copies: no threshold that is tried would keep both
N_KEPT = 3000  # candidates of an image; an answer has 300 at most
DETECT: Point = {"iou_threshold": 0.45, "conf_threshold": 0.25}  # of `yolov5 detect`
VALIDATED: Point = {"iou_threshold": 0.6, "conf_threshold": 0.001}  # of `yolov5 val`
N_COCO = 80  # classes of the start weights
OTHER_FOLDS = (1, 2)
SUPPRESSION, PLAIN = "suppression", "plain"  # the first of METHODS; the first of VIEWS
CHOSEN, TUNED, AS_VALIDATED, AS_DETECTED = "chosen", "tuned", "val", "detect"
LAST_TUNED, AVERAGED_TUNED = "last epoch, tuned", "averaged, tuned"


@dataclass(frozen=True)
class Job:
    """One training: by stock or by ours, and in what it differs from the profile `cpu`."""

    name: str
    is_stock: bool = False
    fold: int = VALID_FOLD
    background: int = 0  # percent of the images that it sees
    imgsz: int = 0  # pixels; 0 is the profile's
    settings: Mapping[str, Any] = field(default_factory=dict)
    hyp: Mapping[str, float] = field(default_factory=dict)
    epochs: float = 1.0  # times those of the others
    averages: bool = True
    forgets: bool = False  # the classes that the start weights know: a random last layer, as stock has it
    tries_all: bool = False  # of the methods, which takes a minute; else suppression alone


@dataclass(frozen=True)
class Lab:
    """What all trainings share: a run, its test images with groups, and where results are kept.

    `data` is the data.yaml by the fold that it leaves out and the percent of its images that show no animal;
    `backgrounds` are further such images, which no training has seen.
    """

    run: Run
    images: pd.DataFrame
    test_images: pd.DataFrame
    data: Mapping[tuple[int, int], Path]
    root: Path
    backgrounds: pd.DataFrame | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that all benchmarks on real images have."""
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


def open_lab(arguments: argparse.Namespace) -> Lab:
    """Reads and splits the data, and writes the lists of all folds that are left out.

    Raises SystemExit where the workspace has results of other data or start weights.
    """
    changes = {name: value for name in ("imgsz", "epochs") if (value := getattr(arguments, name))}
    changes |= {"device": arguments.device, "workers": arguments.workers}
    run = make_run(workspace=arguments.workspace, data=arguments.data, profile="cpu", weights=arguments.weights,
                   overrides=changes)
    boxes, images = read_data(run).boxes, split_data(run).images
    test = read_images(run, "test_images")
    test = test.assign(group=test["image_id"].map(folds.near_duplicate_groups(test)).to_numpy())
    root = arguments.workspace / f"results_{run.profile.imgsz}_{run.profile.epochs}"
    check_origin(root, "data", [sorted(images["image_id"]), sorted(test["image_id"]), len(boxes)])
    check_origin(root, "weights", digest_file(Path(arguments.weights)))
    data = {(fold, 0): write_dataset(run, images, boxes, fold) for fold in (VALID_FOLD, *OTHER_FOLDS)}
    return Lab(run, images, test, data, root)


def check_origin(root: Path, name: str, origin: object) -> None:
    """Notes in `root` what results are made from; raises SystemExit where those that lie there have another origin."""
    path, digest = root / f"{name}.origin", sha256(json.dumps(origin).encode()).hexdigest()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(digest, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != digest:
        raise SystemExit(f"{root}: its results come from other {name}; name another --workspace")


def digest_file(path: Path) -> str:
    """What tells the content of a file."""
    return sha256(path.read_bytes()).hexdigest()


def train_all(lab: Lab, jobs: Sequence[tuple[Job, int]], n_at_once: int) -> None:
    """Trains what has no result yet, so many side by side."""
    todo, started = [one for one in jobs if not result_path(lab, *one).exists()], time.perf_counter()
    with make_pool(n_at_once) as pool:
        running = {pool.submit(train_one, lab, job, seed): f"{job.name}, seed {seed}" for job, seed in todo}
        for number, done in enumerate(as_completed(running), 1):
            facts = {name: value for name, value in done.result().items() if not isinstance(value, list)}
            print(f"# {number} of {len(todo)}: {running[done]}: {json.dumps(facts)}, "
                  f"{time.perf_counter() - started:.0f} s", flush=True)


def result_path(lab: Lab, job: Job, seed: int) -> Path:
    """Where the answers of a training are kept."""
    return lab.root / f"{job.name.replace(' ', '_')}_{seed}.parquet"


def read_facts(lab: Lab, job: Job, seed: int) -> dict[str, Any]:
    """What is known of a training but its boxes."""
    return dict(json.loads(result_path(lab, job, seed).with_suffix(".json").read_text(encoding="utf-8")))


def read_answer(lab: Lab, job: Job, seed: int, way: str) -> pd.DataFrame:
    """One of the answers of a training."""
    table = read_table(result_path(lab, job, seed))
    return table[table["answer"] == way].drop(columns="answer").reset_index(drop=True)


def train_one(lab: Lab, job: Job, seed: int) -> dict[str, Any]:
    """Trains, finds the answers of this training for the test images and keeps them; returns what is known of it."""
    started, path = time.perf_counter(), result_path(lab, job, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        config = configure(lab, job, seed, Path(folder))
        weights = in_new_process(fit_stock if job.is_stock else fit_ours, config, Path(folder), job)
        answers, facts = find_answers(lab, job, weights)
        facts["megabytes"] = round(weights["best"].stat().st_size / 1e6, 2)
        history = Path(folder) / "run/history.jsonl"
        if history.exists():
            rows = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
            facts["epoch_seconds"] = round(float(np.median([row["seconds"] - row["valid_seconds"] for row in rows])), 1)
    keep_answers(path, answers, {**facts, "seconds": round(time.perf_counter() - started)})
    return facts


def keep_answers(path: Path, answers: Mapping[str, pd.DataFrame], facts: Mapping[str, Any]) -> None:
    """Writes what a training gave; the table last, since a training that has one is done."""
    path.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")
    write_table(pd.concat([boxes.assign(answer=name) for name, boxes in answers.items()], ignore_index=True), path)


def configure(lab: Lab, job: Job, seed: int, folder: Path) -> TrainConfig:
    """The settings of a training; its hyper-parameters lie in `folder`."""
    hyp = folder / "hyp.yaml"
    values = yaml.safe_load((REPOSITORY / "hyp" / lab.run.profile.hyp).read_text(encoding="utf-8"))
    hyp.write_text(yaml.safe_dump({**values, **job.hyp}), encoding="utf-8")
    config = make_config(replace(lab.run, seed=seed), lab.data[job.fold, job.background], hyp)
    return replace(config, epochs=round(config.epochs * job.epochs), imgsz=job.imgsz or config.imgsz, **job.settings)


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
    see = partial(look, lab, imgsz=job.imgsz or lab.run.profile.imgsz)
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

    answers = {AS_DETECTED: detect(outside[PLAIN]), AS_VALIDATED: suppress(outside[PLAIN], **VALIDATED),
               TUNED: answer(SUPPRESSION), PLAIN: outside[PLAIN]}
    answers |= {kept: answer(name) for kept, name in ((LAST_TUNED, "last epoch"), (AVERAGED_TUNED, "averaged weights"))
                if name in tuned}
    facts: dict[str, Any] = {"fold_tuned": round(score_on(tuned[SUPPRESSION].held_out, truth, own), 4)}
    if lab.backgrounds is not None:
        false = detect(see(weights["best"], lab.backgrounds, PLAIN))
        facts["false_boxes"] = false.groupby("image_id").size().reindex(
            lab.backgrounds["image_id"], fill_value=0).tolist()
    if job.tries_all:
        known = {name: one for name, one in tuned.items() if name in METHODS}
        choice = choose_method({name: one.held_out for name, one in known.items()},
                               {name: one.inner for name, one in known.items()}, truth, own, parts, METRIC_IOU,
                               allowed=list(known))
        answers[CHOSEN] = answer(choice.method)
        facts |= {"method": choice.method, "fold_chosen": round(choice.score, 4),
                  "fused": tuned["flipped too, fused (WBF)"].points[EVERY_CLASS]}
    return answers, facts


def detect(candidates: pd.DataFrame) -> pd.DataFrame:
    """What `yolov5 detect` would show: the best class of each box, at its thresholds."""
    best = candidates.sort_values("confidence", ascending=False, kind="stable").drop_duplicates(["image_id", *XYXY])
    return suppress(best.sort_index(), **DETECT)


def score_on(boxes: pd.DataFrame, truth: pd.DataFrame, images: pd.DataFrame) -> float:
    """AP at the competition's IoU."""
    return judge_boxes(images, truth, boxes, np.ones((1, len(images)), int)).scores["AP75"]


def look(lab: Lab, weights: Path, images: pd.DataFrame, view: str, imgsz: int) -> pd.DataFrame:
    """The candidates of these weights, without copies."""
    from livestock.inference import find_candidates
    from livestock.models.forward import load_for_inference

    scale, flip = VIEWS[view]
    model = load_for_inference(weights, lab.run.profile.device)
    keep = partial(suppress, iou_threshold=WIDEST, conf_threshold=0.001, max_det=N_KEPT)
    return find_candidates(model, images, lab.run.competition.labels, flip=flip, keep=keep,
                           imgsz=round(imgsz * scale / 64) * 64 if scale != 1 else imgsz,
                           label_of=lab.run.competition.label_of, origin=f"{view} {weights.name}").boxes


def make_judge(lab: Lab) -> Callable[[pd.DataFrame], Judged]:
    """What scores an answer on the test images, all with the same resamples."""
    truth = read_truth_in_pixels(lab.run.data_dir / TRUTH_NAME, lab.test_images)
    return partial(judge_boxes, lab.test_images, truth, counts=draw_gain_counts(lab.test_images, seed=0))
