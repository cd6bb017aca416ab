"""Real images: does this pipeline make a better answer than `yolov5 train` and `detect`, and what is it that helps?

python bench/real.py stock --data DIR --weights yolov5n.pt        ours against stock, and ours without one ingredient
python bench/real.py optimizer --data DIR --weights yolov5n.pt    SGD, Adam, AdamW, each with its own learning rate
python bench/real.py start --data DIR --weights yolov5n.pt        COCO weights against random ones and more epochs
python bench/real.py size --data DIR --weights yolov5n.pt         a larger network on smaller images, at the same pace
python bench/real.py background --backgrounds PICTURES --data DIR --weights yolov5n.pt
                                                                  0, 5, 10 and 20 % of images without an animal

`DIR` is what `livestock run --data` takes, with `truth_test.csv` of its test images. All trainings of a part have the
same images, image size and epochs but for what is asked about (images without an animal are further ones, with their
steps); fold 0 chooses epoch, method, thresholds and learning rates, and the test images judge. Each training's answers
are kept as it finishes, so that a run that was cut off goes on; `--at-once N` trains N side by side. Prints the scores
of each answer, and gains with 95 % intervals over seeds and groups of near-duplicate test images together. `PICTURES`
are a folder of pictures of anything else: those that no training sees count the false boxes that `yolov5 detect` would
show, from a confidence of .25.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from common import read_truth_in_pixels
from real_lab import (
    AS_DETECTED,
    AS_VALIDATED,
    AVERAGED_TUNED,
    CHOSEN,
    LAST_TUNED,
    MEASURES,
    METRIC_IOU,
    OTHER_FOLDS,
    PLAIN,
    TUNED,
    Job,
    Lab,
    add_arguments,
    check_origin,
    make_judge,
    open_lab,
    read_answer,
    read_facts,
    result_path,
    train_all,
)

from livestock.data.archives import read_image
from livestock.evaluation.gains import Gain, Judged, decide, find_gain, judge_boxes
from livestock.pipeline.prepare import TRUTH_NAME, VALID_FOLD, read_data
from livestock.pipeline.train import write_lists
from livestock.postprocess import apply
from livestock.postprocess.methods import EVERY_CLASS

STOCK_FLOOR, RECIPE_WARMUP = 100, 3.0  # batches of warm-up at least, and epochs of it
STOCK_NOMINAL = 64  # images a step of stock
RATES = {"SGD": (0.0033, 0.01, 0.03), "Adam": (0.0003, 0.001, 0.003), "AdamW": (0.0003, 0.001, 0.003)}
BACKGROUNDS = (0, 5, 10, 20)  # percent of the training images
N_UNSEEN = 200  # background images that judge
SLOWER = 3.67  # times the operations of yolov5n that yolov5s takes, at the same size
N_DRAWS = 200  # resamples of background images


def list_jobs(part: str, n_batches: int, imgsz: int) -> list[Job]:
    """The trainings of a part; `n_batches` are those of an epoch, `imgsz` is in pixels."""
    if part == "stock":
        longer = STOCK_FLOOR / n_batches  # epochs of warm-up; where the recipe's 3 are no less, both are the same
        return [Job("ours", tries_all=True), Job("stock", is_stock=True),
                *[Job("stock's warm-up", hyp={"warmup_epochs": longer})] * (longer > RECIPE_WARMUP),
                Job("stock's steps", settings={"nominal_batch": STOCK_NOMINAL}),
                Job("stock's last layer", forgets=True),
                Job("stock's steps and last layer", settings={"nominal_batch": STOCK_NOMINAL}, forgets=True),
                Job("no moving average", averages=False),
                *[Job(f"fold {fold}", fold=fold) for fold in OTHER_FOLDS]]
    if part == "optimizer":
        return [Job(f"{name} {rate:g}", settings={"optimizer": name},
                    hyp={"lr0": rate} | ({} if name == "SGD" else {"warmup_bias_lr": rate}))
                for name, rates in RATES.items() for rate in rates]
    if part == "background":
        return [Job(f"background {percent} %", background=percent) for percent in BACKGROUNDS]
    random = {"weights": "", "size": "yolov5n"}
    if part == "size":
        smaller = round(imgsz / SLOWER**0.5 / 32) * 32
        return [Job(f"yolov5n, {imgsz} px", settings=random, epochs=3.0),
                Job(f"yolov5s, {smaller} px", settings={**random, "size": "yolov5s"}, imgsz=smaller, epochs=3.0)]
    return [Job("ours", tries_all=True),
            *[Job(f"random weights, {times:g} times the epochs", settings=random, epochs=times)
              for times in (1.0, 3.0, 10.0)]]


def main() -> None:
    """Trains what is not there yet, and prints the tables of the part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["stock", "optimizer", "start", "size", "background"])
    parser.add_argument("--backgrounds", type=Path, help="a folder of pictures without an animal of any class")
    add_arguments(parser)
    arguments = parser.parse_args()
    lab = open_lab(arguments)
    if arguments.part == "background":
        lab = add_backgrounds(lab, arguments.backgrounds)
    n_batches = -(-int((lab.images["fold"] != VALID_FOLD).sum()) // lab.run.profile.batch)
    jobs, seeds = list_jobs(arguments.part, n_batches, lab.run.profile.imgsz), range(arguments.seeds)
    if not arguments.report:
        train_all(lab, [(job, seed) for seed in seeds for job in jobs], arguments.at_once)
    report(lab, arguments.part, jobs, seeds)


def add_backgrounds(lab: Lab, folder: Path) -> Lab:
    """The same with pictures without an animal: lists with a share of them, and others that judge.

    The shares are of all training images; each larger share has the pictures of the smaller ones too.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    paths = [paths[number] for number in np.random.default_rng(0).permutation(len(paths))]
    heights, widths = zip(*(read_image(str(folder), path.name).shape[:2] for path in paths), strict=True)
    check_origin(lab.root, "backgrounds", [path.name for path in paths])
    found = pd.DataFrame({"image_id": [f"background/{path.name}" for path in paths], "archive": str(folder),
                          "member": [path.name for path in paths], "width": widths, "height": heights, "group": -1,
                          "fold": -1})
    unseen, rest = found[:N_UNSEEN].reset_index(drop=True), found[N_UNSEEN:]
    boxes, is_valid = read_data(lab.run).boxes, lab.images["fold"] == VALID_FOLD
    data = dict(lab.data)
    for percent in BACKGROUNDS[1:]:
        n = round((~is_valid).sum() * percent / (100 - percent))
        if n > len(rest):
            raise SystemExit(f"{folder}: expected {N_UNSEEN + n} pictures or more, found {len(paths)}")
        images = pd.concat([lab.images, rest[:n]], ignore_index=True)
        seen = pd.concat([lab.images.loc[~is_valid, "image_id"], rest["image_id"][:n]])
        data[VALID_FOLD, percent] = write_lists(lab.run, f"background{percent}", images, boxes, seen,
                                                lab.images.loc[is_valid, "image_id"])
    return replace(lab, data=data, backgrounds=unseen)


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
    print(f"effective groups of test images: {next(iter(judged.values()))[0].n_groups:.1f}")
    for name, runs in judged.items():
        print(f"{name:45}" + ", ".join(f"{measure} {np.mean([run.scores[measure] for run in runs]):.3f}"
                                       for measure in MEASURES))
    for first, second in list_pairs(part, list(judged)):
        gains = {measure: find_gain(judged[first], judged[second], measure) for measure in MEASURES}
        print(f"{first} over {second}: " + "; ".join(f"{measure} {gain}" for measure, gain in gains.items())
              + f"; at {METRIC_IOU:g} {decide([gains['AP75']])}")
    if part == "background":
        print_false(lab, jobs, seeds)
    if part == "size":
        paces = {job.name: np.mean([read_facts(lab, job, seed)["epoch_seconds"] for seed in seeds]) for job in jobs}
        print("seconds an epoch: " + ", ".join(f"{name} {pace:.1f}" for name, pace in paces.items()))
    if part == "stock":
        print_sources(lab, {name: answers[name] for name in ("stock, detect", "stock, val", "ours, chosen")})


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


def fuse_folds(lab: Lab, jobs: Sequence[Job], seed: int) -> pd.DataFrame:
    """What the models of three folds find, fused at the IoU that was tuned for two looks of the first."""
    members = [job for job in jobs if job.name == "ours" or job.fold != VALID_FOLD]
    facts = read_facts(lab, members[0], seed)
    tables = [read_answer(lab, job, seed, PLAIN) for job in members]
    return apply("wbf", tables, lab.test_images, {EVERY_CLASS: facts["fused"]})


def choose_rates(lab: Lab, jobs: Sequence[Job], seeds: Sequence[int]) -> dict[str, str]:
    """By optimizer and rate the training with the best mean score on the fold that was left out; says them all."""
    scores = {job.name: np.mean([read_facts(lab, job, seed)["fold_tuned"] for seed in seeds]) for job in jobs}
    print("on the fold: " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))
    best = {}
    for optimizer in RATES:
        own = {name: score for name, score in scores.items() if name.split()[0] == optimizer}
        name = max(own, key=lambda key: own[key])
        best[name] = name
    return best


def print_false(lab: Lab, jobs: Sequence[Job], seeds: Sequence[int]) -> None:
    """False boxes in 100 pictures without an animal, and by how many each share of such pictures has fewer."""
    draws = np.random.default_rng(0).integers(N_UNSEEN, size=(N_DRAWS, N_UNSEEN))
    judged: dict[str, list[Judged]] = {}
    for job in jobs:
        counts = [100 * np.array(read_facts(lab, job, seed)["false_boxes"], float) for seed in seeds]
        judged[job.name] = [Judged({"false": float(own.mean())}, {"false": own[draws].mean(axis=1)}, len(own))
                            for own in counts]
        print(f"{job.name}: false boxes in 100 pictures without an animal "
              + ", ".join(f"{one.scores['false']:.1f}" for one in judged[job.name]))
    for job in jobs[1:]:
        fewer: Gain = find_gain(judged[jobs[0].name], judged[job.name], "false")
        print(f"{job.name} has fewer by {fewer.mean:.1f} ({fewer.low:.1f} to {fewer.high:.1f}): {decide([fewer])}")


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
