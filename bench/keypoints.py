"""Keypoints on real images: errors in pixels with intervals, beside a guess that looks at no picture.

python bench/keypoints.py noses --data DIR     one point an image; an eighth of the groups of near-duplicates judges
python bench/keypoints.py cattle --data A B    trained on farm A and judged on farm B, and the other way round
python bench/keypoints.py tubes --data DIR     several objects an image: a detector first, then points in its boxes
python bench/keypoints.py one-stage --data DIR objects and points in one look: each question of 12_yolo_pose
python bench/keypoints.py pace --data DIR      of such networks: from a file to its points at 640 px, 1 and 2 threads
python bench/keypoints.py speed                training crops and decoding, against plain code

`--data` takes what `livestock read` reads with `--competition`, by default the part's in `bench/competitions`.
`--epochs`, `--seeds`, `--imgsz`, `--size` and `--weights` change the scale. Of two folders `one-stage` trains on the
first and judges on the second; `--questions` names some of its questions, `--hyp mosaic=1` changes all arms.
`--at-once N` trains N networks side by side, on a GPU that one leaves idle, each with `--workers` processes. Cut off,
it goes on where it was; `one-stage --report` prints the tables of what all seeds have trained so far. Prints the mean
over seeds of each measure, and the gain over the mean pose with its 95 % interval over seeds and groups of images.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import make_pool
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.io import decode_image
from torchvision.transforms import v2

import livestock
from livestock.config import Competition, Skeleton, read_competition, resource
from livestock.data.pose_set import TrainingObjects, read_objects, write_pose_set
from livestock.evaluation.pixel import (
    as_true_objects,
    correct_share,
    find_errors,
    find_lengths,
    summarise_errors,
)
from livestock.files.logs import show_messages
from livestock.models.forward import load_for_inference
from livestock.models.heatmap_codec import decode_dark
from livestock.pipeline.keypoints import EVERY
from livestock.pipeline.one_stage import SHOWN, list_questions, time_runtimes
from livestock.pipeline.pose_lab import (
    PoseArm,
    PoseLab,
    PoseResult,
    PoseScale,
    find_training,
    run_pose_arms,
    split_by_group,
    train_pose_arm,
)
from livestock.pipeline.pose_results import GUESS, find_pose_gain, judge_pose_results, list_errors, tabulate_poses
from livestock.pipeline.prepare import VALID_FOLD, group_images, read_data, split_data
from livestock.pipeline.reading import examine
from livestock.pipeline.store import read_records
from livestock.poses import find_poses
from livestock.postprocess import suppress
from livestock.sample import draw_keypoint_sample
from livestock.sample.keypoints import livestock_skeleton
from livestock.tables import XYXY
from livestock.training.crops import make_crop_loader
from livestock.training.settings import Place, TrainConfig

JUDGED_SHARE = 1 / 8
SQUARE = 256  # pixels
N_DRAWN, N_EPOCHS, BATCH = 24, 3, 32  # of `speed`
TIMED_SIDE, TIMED_SIZES = 640, ("yolov8n", "yolov8s", "yolo11n", "yolo26n", "yolov5n")
COLUMNS = ["pixels", "median", "q95", "gross", "PCK", "NME", "OKS", "OKS50", "OKS75", "parameters", "megabytes",
           "seconds", "epochs", "milliseconds"]
Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def main() -> None:
    """Trains what has not been trained yet, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["noses", "cattle", "tubes", "one-stage", "pace", "speed"])
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--competition", type=Path)
    parser.add_argument("--workspace", type=Path, default=Path("data/bench_keypoints"))
    parser.add_argument("--size", default="lite0")
    parser.add_argument("--weights", default="lite0_imagenet")
    parser.add_argument("--detector", default="", help="what `tubes` and `one-stage` begin with: a YOLOv5n")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--imgsz", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--hyp", nargs="*", default=[], metavar="KEY=VALUE",
                        help="of `one-stage`: of all arms, but where it is what a question is about")
    parser.add_argument("--questions", nargs="*", default=[], help="of `one-stage`; without it all")
    parser.add_argument("--report", action="store_true", help="of `one-stage`: trains nothing")
    arguments = parser.parse_args()
    show_messages(logging.INFO)
    if arguments.part == "speed":
        return measure_speed()
    file = "tubes" if arguments.part in ("one-stage", "pace") else arguments.part
    arguments.competition = arguments.competition or Path(__file__).parent / f"competitions/{file}.yaml"
    competition = read_competition(arguments.competition)
    if competition.skeleton is None:
        raise SystemExit(f"{arguments.competition}: expected a skeleton, found none")
    scale = PoseScale(EVERY, EVERY, arguments.imgsz, arguments.batch, arguments.epochs, arguments.seeds,
                      device=arguments.device, workers=arguments.workers)
    if arguments.part == "tubes":
        return find_in_boxes(arguments, scale, competition)
    tables = [read_tables(path, competition) for path in arguments.data]
    if arguments.part in ("one-stage", "pace"):
        whole, train, judged = tables[0], *split_by_group(tables[0][0], JUDGED_SHARE, seed=0)
        if len(tables) > 1:
            whole, (train, judged) = join(*tables), (list(images["image_id"]) for images, _, _ in tables)
        lab = make_lab(arguments.workspace, scale, whole, competition.skeleton, train, judged)
        if arguments.part == "pace":
            return measure_pace(lab)
        questions = list_questions("cpu", lab, arguments.detector)
        if unknown := set(arguments.questions) - set(questions):
            raise SystemExit(f"--questions: expected some of {list(questions)}, found {sorted(unknown)}")
        asked = {name: arms for name, arms in questions.items() if name in (arguments.questions or questions)}
        changes = {name: float(value) for name, value in (word.split("=") for word in arguments.hyp)}
        asked = {name: [replace(arm, hyp={**changes, **arm.hyp}) for arm in arms] for name, arms in asked.items()}
        return ask_one_stage(lab, asked, arguments.at_once, reports=arguments.report)
    has_flip = competition.skeleton.flip_indexes(competition.skeleton.labels[0]) is not None
    if arguments.part == "noses":
        train, judged = split_by_group(tables[0][0], JUDGED_SHARE, seed=0)
        arm = PoseArm("heat map", "heatmap", arguments.size, arguments.weights,
                      hyp={"sigma": 8.0, "fliplr": 0.5 * has_flip}, flip=has_flip)
        lab = make_lab(arguments.workspace, scale, tables[0], competition.skeleton, train, judged)
        print("in pixels of the pictures")
        results = report(lab, arm, arguments.at_once)
        print(f"in pixels of pictures stretched to {SQUARE} x {SQUARE}")
        print_scores(*stretch(lab, results), arm)
        return None
    for first, second in ((0, 1), (1, 0)):
        both = join(tables[0], tables[1])
        train, judged = (list(tables[number][0]["image_id"]) for number in (first, second))
        arm = PoseArm("top-down", "topdown", arguments.size, arguments.weights, hyp={"fliplr": 0.5 * has_flip},
                      flip=has_flip)
        print(f"\ntrained on {arguments.data[first].name}, judged on {arguments.data[second].name}")
        lab = make_lab(arguments.workspace, scale, both, competition.skeleton, train, judged)
        print_parts(lab, report(lab, arm, arguments.at_once))
    return None


def print_parts(lab: PoseLab, results: list[PoseResult]) -> None:
    """Errors of all seeds by keypoint, and of visible (2) and hidden points (1) apart."""
    errors, lengths = list_errors(lab, results)[results[0].arm.name], find_lengths(lab.judged[1])
    for by in ("keypoint", "visible"):
        table = summarise_errors(errors, by).assign(PCK=correct_share(errors, lengths, by=by))
        print(table[["n", "mean", "median", "q95", "PCK"]].round(3).to_string(), flush=True)


def train_at_once(lab: PoseLab, arms: Sequence[PoseArm], n_at_once: int) -> None:
    """Trains what has not been trained yet in processes side by side, each training once; their results are kept."""
    seeds = range(lab.seed, lab.seed + lab.scale.n_seeds)
    todo = {find_training(lab, arm, seed): (lab, arm, seed) for arm in arms for seed in seeds}
    if n_at_once > 1:
        started = time.perf_counter()
        with make_pool(n_at_once) as pool:
            for number, job in enumerate(as_completed([pool.submit(train_one, *one) for one in todo.values()]), 1):
                print(f"# {number} of {len(todo)}: {job.result()}, {time.perf_counter() - started:.0f} s", flush=True)


def train_one(lab: PoseLab, arm: PoseArm, seed: int) -> str:
    """Trains an arm in this process, and says what it was; the result is read from where it is kept."""
    facts = train_pose_arm(lab, arm, seed).facts
    return f"{arm.name}, seed {seed}, {facts.get('seconds', 0.0):.1f} s an epoch"


def ask_one_stage(lab: PoseLab, questions: dict[str, list[PoseArm]], n_at_once: int, *, reports: bool) -> None:
    """Each question of `pipeline.one_stage`: its table, and by how much each arm is better than the first."""
    if reports:
        questions = {question: arms for question, every in questions.items()
                     if (arms := keep_trained(lab, every))[:1] == every[:1]}
    train_at_once(lab, [arm for arms in questions.values() for arm in arms], n_at_once)
    for question, arms in questions.items():
        results = run_pose_arms(lab, arms)
        judged = judge_pose_results(lab, results)
        table = tabulate_poses(results, judged)
        print(f"\n{question}, {lab.scale.n_seeds} seeds")
        print(table[[name for name in SHOWN if name in table]].round(3).to_string())
        for arm in arms[1:]:
            gains = [f"{measure} by {find_pose_gain(judged, arm.name, arms[0].name, measure)}"
                     for measure in ("PCK", "pixels")]
            print(f"{arm.name} better than {arms[0].name}: {', '.join(gains)}", flush=True)


def keep_trained(lab: PoseLab, arms: Sequence[PoseArm]) -> list[PoseArm]:
    """The arms that every seed has trained."""
    records, seeds = read_records(lab.root), range(lab.seed, lab.seed + lab.scale.n_seeds)
    return [arm for arm in arms if all(f"pose_{find_training(lab, arm, seed)}" in records for seed in seeds)]


def measure_pace(lab: PoseLab) -> None:
    """Milliseconds from a file to its points: PyTorch, ONNX and int8, one and two threads."""
    lab = replace(lab, scale=replace(lab.scale, imgsz=TIMED_SIDE))
    with tempfile.TemporaryDirectory() as folder:
        print(time_runtimes(lab, Path(folder), TIMED_SIZES).round(1).to_string(index=False))


def find_in_boxes(arguments: argparse.Namespace, scale: PoseScale, competition: Competition) -> None:
    """Trains a detector and top-down pose without fold 0, and finds points in the detector's boxes there.

    The detector is that of the profile `cpu`. A true object that it misses has no points and counts as missed.
    """
    run = livestock.make_run(data=arguments.data[0], competition=arguments.competition, profile="cpu",
                             workspace=arguments.workspace / "tubes", weights=arguments.detector)
    livestock.train(run)
    boxes, images = livestock.predict(run), split_data(run).images
    found = suppress(boxes, iou_threshold=0.6, conf_threshold=0.05)  # each is cut out and looked at
    tables = read_data(run)
    is_judged = images["fold"] == VALID_FOLD
    lab = PoseLab(arguments.workspace, scale, images, tables.boxes, tables.keypoints, competition.skeleton,  # type: ignore[arg-type]
                  list(images.loc[~is_judged, "image_id"]), list(images.loc[is_judged, "image_id"]))
    arm = PoseArm("top-down", "topdown", arguments.size, arguments.weights)
    results = report(lab, arm, arguments.at_once)
    judged, truth, points = lab.judged
    for result in results:
        model = load_for_inference(result.weights, scale.device)
        own = as_true_objects(truth, found, find_poses(model, judged, found))
        errors = find_errors(points, own)
        print(f"seed {result.seed}, in the detector's boxes:\n{summarise_errors(errors).round(2).to_string()}\n"
              f"PCK {correct_share(errors, find_lengths(truth)).iloc[0]:.3f}", flush=True)


def read_tables(path: Path, competition: Competition) -> Tables:
    """Images with groups of near-duplicates, boxes and keypoints of a folder; ids begin with the folder's name."""
    found = examine("auto", path, competition)
    groups = group_images(found.images, found.hashes, competition, path, found.test_images["image_id"])
    images = found.images.assign(group=found.images["image_id"].map(groups).to_numpy())
    return images, found.boxes, found.keypoints


def join(first: Tables, second: Tables) -> Tables:
    """The tables of two folders; groups of the second are counted on."""
    shift = int(first[0]["group"].max()) + 1
    moved = second[0].assign(group=second[0]["group"].where(second[0]["group"] < 0, second[0]["group"] + shift))
    images, boxes, keypoints = (pd.concat(pair, ignore_index=True)
                                for pair in zip(first, (moved, *second[1:]), strict=True))
    return images, boxes, keypoints


def make_lab(workspace: Path, scale: PoseScale, tables: Tables, skeleton: Skeleton, train: list[str],
             judged: list[str]) -> PoseLab:
    """The lab of some tables."""
    images, boxes, keypoints = tables
    return PoseLab(workspace, scale, images, boxes, keypoints, skeleton, train, judged)


def stretch(lab: PoseLab, results: list[PoseResult]) -> tuple[PoseLab, list[PoseResult]]:
    """The same as if every picture were a square of this size, in which others have given their errors."""
    scales = SQUARE / lab.images.set_index("image_id")[["width", "height"]]

    def move(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
        own = scales.loc[table["image_id"]].to_numpy()
        return table.assign(**{name: table[name] * own[:, "xy".index(name[0])] for name in columns})

    whole = replace(lab, images=lab.images.assign(width=SQUARE, height=SQUARE), boxes=move(lab.boxes, XYXY),
                    keypoints=move(lab.keypoints, ["x", "y"]))
    return whole, [replace(result, keypoints=move(result.keypoints, ["x", "y"])) for result in results]


def report(lab: PoseLab, arm: PoseArm, n_at_once: int = 1) -> list[PoseResult]:
    """Trains an arm with its seeds and prints its table and its gain over the guess; returns what was trained."""
    train_at_once(lab, [arm], n_at_once)
    results = run_pose_arms(lab, [arm])
    print_scores(lab, results, arm)
    return results


def print_scores(lab: PoseLab, results: list[PoseResult], arm: PoseArm) -> None:
    """The table of an arm, and its gain over the guess."""
    judged = judge_pose_results(lab, results)
    table = tabulate_poses(results, judged)
    print(f"{len(lab.train_ids)} images to train on, {len(lab.judged_ids)} that judge, in "
          f"{judged[arm.name][0].n_groups} groups; {lab.scale.n_seeds} seeds, {lab.scale.imgsz} px, "
          f"{lab.scale.epochs} epochs")
    print(table[[name for name in COLUMNS if name in table]].round(4).to_string())
    for measure in ("pixels", "PCK"):
        print(f"{measure}: better than the {GUESS} by {find_pose_gain(judged, arm.name, GUESS, measure)}", flush=True)
    each = ", ".join(f"{run.scores['pixels']:.2f}" for run in judged[arm.name])
    print(f"mean error of each seed: {each} px", flush=True)


def measure_speed() -> None:
    """Training crops a second against plain torchvision, and decoding of 1,000 x 18 maps against a loop."""
    with tempfile.TemporaryDirectory() as folder:
        draw_keypoint_sample(Path(folder), n_train=N_DRAWN, n_test=2)
        found = examine("auto", Path(folder), read_competition(resource("keypoints.yaml")))
        ids = list(found.images["image_id"])
        skeleton = livestock_skeleton()
        data = write_pose_set(Path(folder) / "set", (found.images, found.boxes, found.keypoints), skeleton,
                              {"train": ids, "val": ids[:4]})
        objects = read_objects(data)
        hyp = {"degrees": 40.0, "scale": 0.4, "translate": 0.05, "hsv_h": 0.015, "hsv_s": 0.4, "hsv_v": 0.3,
               "fliplr": 0.5}
        config = TrainConfig(str(data), "", "", imgsz=256, batch=BATCH, epochs=N_EPOCHS, workers=2, device="cpu")
        loader = make_crop_loader(objects, hyp, config, "fit", Place("cpu"))
        ours = [count_rate(loader.epoch(epoch), len(objects)) for epoch in range(N_EPOCHS)]
        loader.close()
        plain = DataLoader(PlainCrops(objects), BATCH, shuffle=True, num_workers=2)
        theirs = [count_rate(plain, len(objects)) for _ in range(N_EPOCHS)]
    print(f"bench keypoints-crops first={ours[0]:.0f}/s ours={max(ours[1:]):.0f}/s torchvision={max(theirs):.0f}/s "
          f"times={max(ours[1:]) / max(theirs):.1f}")
    maps = torch.rand(1000, 18, 64, 64)
    seconds = []
    for decode in (decode_all, decode_one_by_one):
        started = time.perf_counter()
        decode(maps)
        seconds.append(time.perf_counter() - started)
    print(f"bench keypoints-decode vectorised={seconds[0]:.3f} s loop={seconds[1]:.3f} s "
          f"times={seconds[1] / seconds[0]:.1f}")


class PlainCrops(Dataset):
    """What one would write: each time the file decoded, the object cut out, then torchvision's transforms."""

    def __init__(self, objects: TrainingObjects) -> None:
        self.objects = objects
        self.change = v2.Compose([v2.RandomAffine(40, translate=(0.05, 0.05), scale=(0.6, 1.4)),
                                  v2.RandomHorizontalFlip(), v2.ColorJitter(0.3, 0.0, 0.4, 0.015)])

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        row, box = self.objects.images.iloc[index], self.objects.boxes[index]
        image = decode_image(str(Path(row["archive"], row["member"])))
        side = int(1.25 * max(box[2] - box[0], box[3] - box[1]))
        left, top = int((box[0] + box[2] - side) / 2), int((box[1] + box[3] - side) / 2)
        points = tv_tensors.BoundingBoxes(
            torch.tensor(np.hstack([self.objects.keypoints[index, :, :2], np.ones((18, 2))])), format="CXCYWH",
            canvas_size=image.shape[-2:])
        both = v2.functional.resized_crop(image, top, left, side, side, [256, 256]), v2.functional.resized_crop(
            points, top, left, side, side, [256, 256])
        changed: tuple[torch.Tensor, torch.Tensor] = self.change(*both)
        return changed[0], torch.as_tensor(changed[1])


def count_rate(batches: Iterable[object], n_objects: int) -> float:
    """Objects a second."""
    started = time.perf_counter()
    for _ in batches:
        pass
    return n_objects / (time.perf_counter() - started)


def decode_all(maps: torch.Tensor) -> None:
    """As the families do."""
    decode_dark(maps, 4.0)


def decode_one_by_one(maps: torch.Tensor) -> None:
    """A map at a time, in Python."""
    for one in maps.flatten(0, 1):
        decode_dark(one, 4.0)


if __name__ == "__main__":
    main()
