"""Missing labels found, and what silver labels win back of what they cost, on the embedded sample.

python bench/silver.py [--seeds 10] [--jobs 2]    about an hour on 2 cores; cut off, it goes on where it was

30 % of the cow boxes are left out of the training labels; the list of them is the truth. Three teachers, each trained
without a third of the images, look at that third as it is, mirrored and larger; what they agree on is fused. Then the
same training four times: with clean labels, with damaged ones, and with the silver labels of `replace` and `complete`.
Score: usual mAP at IoU 0.75 on 240 test images with complete truth, of the mean of the last five epochs' weights, which
is what 07_final submits. All start from the starter, which has seen none of the images. The ranking of missing labels
is compared with cleanlab's score of overlooked boxes (`pip install -e ".[bench]"`).

python bench/silver.py --data PATH --weights yolov5n.pt [--seeds 3] [--imgsz 224 --epochs 8]

The same on other data in AI Hub's layout with a known test truth, where a third of all boxes is left out. Gains then
have intervals over seeds alone: the test images are the same for all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from common import ONE_THREAD, read_truth_in_pixels, train_forked, warm_up, with_image_ids

REPOSITORY = Path(__file__).resolve().parents[1]
ROOT = REPOSITORY / "data/bench_silver"
MISSING, N_TEST, LARGER = 0.3, 240, 1.2  # the last: times the size, of the third look


class Size(NamedTuple):
    """Of all trainings of a run."""

    imgsz: int
    epochs: int


USUAL = Size(320, 12)
ARMS = ["clean", "damaged", "replace", "complete"]
BAR_AP, BAR_SHARE = 0.8, 0.5


def main() -> None:
    """Runs what has not run yet, then prints the table and the bench lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=2, help="0 and 1 were looked at while the rule was made")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--one", type=int)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--imgsz", type=int, default=USUAL.imgsz)
    parser.add_argument("--epochs", type=int, default=USUAL.epochs)
    parser.add_argument("--starter", action="store_true", help="only rank missing labels, with the starter, at 320 px")
    arguments = parser.parse_args()
    if arguments.starter:
        rank_with_starter()
        return
    size = Size(arguments.imgsz, arguments.epochs)
    root = ROOT.with_name("bench_silver_real") if arguments.data else ROOT
    root = root if size == USUAL else root / f"{size.imgsz}_{size.epochs}"
    if arguments.one is not None:
        run_seed(arguments.one, root, arguments.data, arguments.weights, size)
        return
    of_data = ["--data", str(arguments.data), "--weights", str(arguments.weights)] if arguments.data else []
    of_data += ["--imgsz", str(size.imgsz), "--epochs", str(size.epochs)]
    running: list[subprocess.Popen] = []
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    for seed in seeds:
        if not (root / f"{seed}.json").exists():
            while sum(job.poll() is None for job in running) >= arguments.jobs:
                time.sleep(0.5)
            command = [sys.executable, __file__, "--one", str(seed), *of_data]
            environment = {**os.environ, **ONE_THREAD}  # two seeds share two cores
            running.append(subprocess.Popen(command, env=environment))  # noqa: S603 - this script
    if any([job.wait() for job in running]):  # all of them, so that none is left behind
        raise SystemExit("a seed failed; its error is above")
    report(pd.DataFrame([json.loads((root / f"{seed}.json").read_text()) for seed in seeds]))


def run_seed(seed: int, root: Path, data: Path | None, weights: Path | None, size: Size) -> None:
    """Teachers, suspects, four students on one sample or one draw of missing boxes; writes their figures."""
    from livestock.config import read_competition
    from livestock.data import folds
    from livestock.evaluation import evaluate
    from livestock.labels import silver
    from livestock.labels.missing import fuse_views
    from livestock.models.yolov5.library import STARTER
    from livestock.postprocess import suppress

    warm_up()
    competition, start, runs = read_competition(REPOSITORY / "competition.yaml"), weights or STARTER, root / "runs"
    train, left_out, test_images, truth = read_sample(seed, competition) if data is None else (
        read_real(data, seed, competition))
    images = folds.assign_folds(train.images, train.boxes, competition, seed=seed,
                                groups=folds.near_duplicate_groups(train.images))
    parts = images["fold"] % 3  # three teachers
    views = make_views(size.imgsz)
    looks: list[list[pd.DataFrame]] = [[] for _ in views]
    for part in range(3):
        inside = (parts == part).to_numpy()
        teacher = fit(runs / f"{seed}/teacher{part}", images[~inside], train.boxes, competition, start, seed, size)
        for look, (imgsz, flip) in zip(looks, views, strict=True):
            look.append(see(teacher, images[inside], competition, imgsz, flip))
    members = [pd.concat(look) for look in looks]
    fused = fuse_views(members, images)
    found = rank_missing(left_out, train.boxes, images, {"ours": fused, "plain": suppress(members[0])})
    bands = silver.choose_thresholds(train.boxes, fused, images)
    no_box = train.boxes.iloc[:0]
    labels = {"clean": (pd.concat([train.boxes, left_out]), no_box), "damaged": (train.boxes, no_box)}
    for name in ARMS[2:]:
        try:
            labels[name] = silver.select_silver(name, train.boxes, fused, images, bands)
        except silver.NothingSelected:  # the same training as with the damaged labels, which is not run twice
            labels[name] = labels["damaged"]
    scores, counts = {}, count_right(left_out, labels["complete"][0])
    for name, (boxes, hidden) in labels.items():
        if name != "damaged" and labels[name] is labels["damaged"]:
            scores[name], counts[f"{name}_added"], counts[f"{name}_hidden"] = scores["damaged"], 0, 0
            continue
        student = fit(runs / f"{seed}/{name}", images, boxes, competition, start, seed, size, hidden)
        answer = suppress(see(student, test_images, competition, size.imgsz, False))
        scores[name] = evaluate(truth, answer, competition.metric_iou).mean
        counts[f"{name}_added"], counts[f"{name}_hidden"] = int((boxes["source"] == "silver").sum()), len(hidden)
    (root / f"{seed}.json").write_text(json.dumps({
        "seed": seed, **found, **scores, **counts, "left_out": len(left_out),
        **{f"{label}_{which}": value for label, band in bands.items() for which, value in band._asdict().items()},
    }))


def make_views(imgsz: int) -> list[tuple[int, bool]]:
    """How teachers look: at which size, and whether mirrored."""
    return [(imgsz, False), (imgsz, True), (round(LARGER * imgsz / 32) * 32, False)]


def read_sample(seed, competition):
    """Damaged training data, the boxes that were left out, test images and their truth in pixels."""
    from livestock.data import readers
    from livestock.pipeline.prepare import TRUTH_NAME
    from livestock.sample import draw_sample

    raw = ROOT / f"raw_{seed}"
    if not (raw / "left_out.csv").exists():
        draw_sample(raw, seed=seed, n_test=N_TEST, missing_cow_fraction=MISSING)
    train, test = readers.read_train_and_test("aihub", raw, competition)
    left_out = read_left_out(raw / "left_out.csv", train.images)
    return train, left_out, test.images, read_truth_in_pixels(raw / TRUTH_NAME, test.images)


def read_left_out(path, images):
    """The boxes that were left out, as a boxes table of its own."""
    from livestock.tables import make_boxes

    return make_boxes(with_image_ids(pd.read_csv(path), images), origin="left out")


def read_real(data, seed, competition):
    """The same from data whose labels are all there, as far as people drew them: a third of the boxes is taken out."""
    from livestock.data import readers
    from livestock.pipeline.prepare import TRUTH_NAME

    train, test = readers.read_train_and_test("aihub", data, competition)
    is_out = np.random.default_rng(seed).permutation(len(train.boxes)) < len(train.boxes) // 3
    left_out, damaged = train.boxes[is_out], train.boxes[~is_out].reset_index(drop=True)
    return train._replace(boxes=damaged), left_out, test.images, read_truth_in_pixels(data / TRUTH_NAME, test.images)


def rank_missing(left_out, truth, images, answers) -> dict[str, float]:
    """Average precision (IoU 0.5) of rankings of missing labels: ours and cleanlab's, of fused and of plain boxes."""
    from livestock.evaluation import evaluate
    from livestock.labels.missing import find_suspects

    figures = {}
    for name, boxes in answers.items():
        rankings = {"AP": find_suspects(truth, boxes)}
        rankings |= {f"cleanlab {least}": overlooked(truth, boxes, images, least) for least in (0.01, 0.25, 0.5, 0.95)}
        for how, suspects in rankings.items():
            of_class = suspects["label"].isin(left_out["label"])
            figures[f"{how} {name}"] = evaluate(left_out, suspects[of_class], 0.5).mean
    return figures | found_at(left_out, find_suspects(truth, answers["ours"]))


def count_right(left_out, boxes) -> dict[str, int]:
    """How many of the added boxes are on a missing one, and how many tightly."""
    from livestock.evaluation import match_ground_truth

    added, left_out = (table.reset_index(drop=True) for table in (boxes[boxes["source"] == "silver"], left_out))
    return {f"complete_right at {iou}": int((match_ground_truth(left_out, added, iou) >= 0).sum())
            for iou in (0.5, 0.75)}


def found_at(left_out, suspects) -> dict[str, float]:
    """The curve in a few numbers: the share of the missing boxes found where so many of the suspects are right."""
    from livestock.evaluation import match_usual, precision_recall

    suspects = suspects[suspects["label"].isin(left_out["label"])]
    curve = precision_recall(match_usual(left_out, suspects, 0.5))
    levels = {level: curve[curve["precision"] >= level].groupby("label")["recall"].max()
              for level in (0.95, 0.9, 0.8, 0.5)}
    return {f"found at {level}": found.reindex(left_out["label"].unique(), fill_value=0.0).mean()
            for level, found in levels.items()}


def overlooked(truth, boxes, images, least):
    """The boxes from a confidence of `least` (its default is 0.95) that cleanlab takes for overlooked, by its score."""
    from cleanlab.object_detection.rank import compute_overlooked_box_scores

    from livestock.tables import XYXY

    labels = sorted(truth["label"].unique())
    of_truth, of_boxes = dict(list(truth.groupby("image_id"))), dict(list(boxes.groupby("image_id")))
    names = [name for name in images["image_id"] if name in of_truth and name in of_boxes]
    numbers = {label: number for number, label in enumerate(labels)}
    given = [{"bboxes": of_truth[name][XYXY].to_numpy(), "labels": of_truth[name]["label"].map(numbers).to_numpy()}
             for name in names]
    seen = [np.empty(len(labels), object) for _ in names]
    for own, arrays in zip((of_boxes[name] for name in names), seen, strict=True):
        for number, label in enumerate(labels):
            arrays[number] = own.loc[own["label"] == label, [*XYXY, "confidence"]].to_numpy()
    scores = compute_overlooked_box_scores(labels=given, predictions=seen, high_probability_threshold=least)
    ordered = [pd.concat([of_boxes[name][of_boxes[name]["label"] == label] for label in labels]).assign(
        confidence=1 - score) for name, score in zip(names, scores, strict=True)]
    return pd.concat(ordered).dropna(subset="confidence")


def rank_with_starter() -> None:
    """Prints how well the starter, which has seen none of the images, ranks the missing labels of seed 0."""
    from livestock.config import read_competition
    from livestock.data import readers
    from livestock.evaluation import evaluate
    from livestock.labels.missing import find_suspects, fuse_views
    from livestock.models.yolov5.library import STARTER
    from livestock.sample import draw_sample

    competition, raw = read_competition(REPOSITORY / "competition.yaml"), ROOT / "raw_starter"
    if not (raw / "left_out.csv").exists():
        draw_sample(raw, missing_cow_fraction=MISSING)
    train, _ = readers.read_train_and_test("aihub", raw, competition)
    left_out = read_left_out(raw / "left_out.csv", train.images)
    looks = [see(STARTER, train.images, competition, imgsz, flip) for imgsz, flip in ((320, 0), (320, 1), (384, 0))]
    suspects = find_suspects(train.boxes, fuse_views(looks, train.images))
    found = evaluate(left_out, suspects[suspects["label"] == "cow"], 0.5).mean
    print(f"average precision {found:.3f} for {len(left_out)} missing cow boxes")


def fit(run_dir, images, boxes, competition, start, seed, size, hidden=None) -> Path:
    """Trains on these images and labels; returns the mean of the last epochs' weights, as `07_final` takes it."""
    from livestock.data import dataset
    from livestock.training import AVERAGED, TrainConfig

    averaged = run_dir / "weights" / AVERAGED
    if averaged.exists():
        return averaged
    boxes = boxes[boxes["image_id"].isin(images["image_id"])]
    directory = run_dir / "yolo"
    dataset.write_images(images, directory, size.imgsz, hidden=hidden, boxes=boxes)
    dataset.write_labels(images, boxes, competition.labels, directory)
    data_yaml = dataset.write_lists(directory, "all", images["image_id"], images["image_id"][:8],
                                         competition.labels)
    config = TrainConfig(
        data_yaml=str(data_yaml), weights=str(start), hyp=str(REPOSITORY / "hyp/baseline.yaml"), imgsz=size.imgsz,
        batch=8, nominal_batch=16, epochs=size.epochs, device="cpu", workers=0, seed=seed,
    )
    train_forked(config, run_dir, lambda scores: None)
    return averaged


def see(weights, images, competition, imgsz, flip):
    """Candidates of a look."""
    from livestock import inference
    from livestock.models.forward import load_for_inference

    model = load_for_inference(weights, "cpu")
    return inference.find_candidates(model, images, competition.labels, imgsz=imgsz, flip=flip).boxes


def report(table: pd.DataFrame) -> None:
    """The figures of each seed, medians, the gains with their intervals over seeds, and the bench lines."""
    from scipy import stats

    print(table.set_index("seed").round(3).T.to_string())
    lows = {}
    for name in ("clean", "replace", "complete"):
        gain = table[name] - table["damaged"]
        lows[name], high = stats.t.interval(0.95, len(gain) - 1, gain.mean(), stats.sem(gain))
        words = f"{gain.mean():+.4f} ({lows[name]:+.4f} to {high:+.4f}), median {gain.median():+.4f}"
        print(f"{name} minus damaged: {words}")
    damage, won = ((table[name] - table["damaged"]).median() for name in ("clean", "complete"))
    found, share = table["AP ours"].median(), won / damage
    verdict = "ok" if found >= BAR_AP else "short"
    print(f"bench missing-labels ours={found:.3f} bar={BAR_AP} {verdict} (average precision of the ranking)")
    ok = won >= BAR_SHARE * damage and lows["complete"] > 0
    print(f"bench silver-complete ours={table['complete'].median():.4f} stock={table['damaged'].median():.4f} "
          f"ratio={share:.2f} bar={BAR_SHARE} {'ok' if ok else 'short'} (share of the damage won back)")


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY / "src"))
    main()
