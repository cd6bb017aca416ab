"""The questions of `12_yolo_pose`: what helps a network that finds objects and their keypoints in one look.

They are those of a project that looked for four points of objects without a mirror image, by YOLOv8-pose: mosaic, size,
the loss of places, the optimizer, the weights of the losses. Each question has its arms, which differ in one thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pandas as pd

from ..data.pose_set import unite_points
from ..evaluation.pixel import as_true_objects, find_errors
from ..tables import make_boxes
from .keypoints import EVERY, LARGE, choose_network, is_large, open_pose_lab
from .pose_lab import PoseArm, PoseLab, PoseResult, PoseScale, find_objects, time_each
from .run import Run

SCALES: dict[str, PoseScale] = {
    "smoke": PoseScale(16, 8, imgsz=64, batch=8, epochs=2, n_seeds=1, device="cpu"),
    "demo": PoseScale(EVERY, 64, imgsz=128, batch=8, epochs=8, n_seeds=1, device="cpu"),
    "cpu": PoseScale(EVERY, EVERY, imgsz=224, batch=8, epochs=60, n_seeds=3, device="cpu"),
    "colab": PoseScale(EVERY, EVERY, imgsz=640, batch=16, epochs=100, n_seeds=3, workers=2),
}
WEIGHT = 12.0  # of each loss of places: the package's own for OKS
LOSSES = {"oks_even": "OKS, sigma 1/K", "oks_third": "OKS, sigma 1/(3K)", "oks": "OKS, own sigmas",
          "l1": "L1", "euclidean": "Euclidean"}
RATES = {"SGD": 0.01, "Adam": 0.001, "AdamW": 0.001}  # of each optimizer, that of its authors or of the package
STARTER = "starter.safetensors"
IN_DEMO = ("start", "mosaic", "loss of places", "optimizer")
N_CALIBRATING = 50  # pictures, for int8
PACE_SIZES = ("yolov5n", "yolov8n", "yolov8s")  # nano and small are what the project had
FACTS = ["box_AP50", "box_AP75", "parameters", "megabytes", "seconds", "milliseconds"]
SHOWN = ["pixels", "median", "PCK", "OKS", *FACTS]


def open_lab(run: Run, changes: Mapping[str, int | None] | None = None) -> PoseLab:
    """The data of `keypoints.open_pose_lab`, all objects of its pictures, at the scale of this notebook's profile."""
    scale = asdict(SCALES.get(run.profile.name, SCALES[LARGE]))
    return open_pose_lab(run, "yolo_pose", {**scale, **{name: value for name, value in (changes or {}).items()
                                                        if value is not None}})


def choose_base(profile: str, weights: str = "") -> PoseArm:
    """The arm that all questions begin with, without mosaic and mirror images; `weights` stand in for its own.

    With SGD. On a GPU YOLOv8-pose nano from its authors' weights and OKS, as in the project. On a CPU what learns in
    few steps: a YOLOv5 detector with the head of that network, and L1; the sample has a detector of its animals.
    """
    if is_large(profile):
        return PoseArm("base", "yolo_pose", "yolov8n", weights or "yolov8n-pose.pt")
    return PoseArm("base", "yolo_pose", "yolov5n", weights or ("yolov5n.pt" if profile == "cpu" else STARTER),
                   hyp={"warmup_epochs": 1.0, "warmup_bias_lr": 0.0, "oks": 0.0, "l1": WEIGHT})


def list_questions(profile: str, lab: PoseLab, weights: str = "") -> dict[str, list[PoseArm]]:
    """Each question with its arms, the first of which is what the others are compared with.

    `weights` as in `choose_base`. Mirror images are asked about only where all points have theirs; `demo` has no time
    for sizes, parts of the loss, and mirror images.
    """
    base = choose_base(profile, weights)
    parts = {name: {**base.hyp, **values} for name, values in (
        ("no loss of boxes", {"box": 0.0, "dfl": 0.0}), ("no loss of classes", {"cls": 0.0}),
        ("no loss of places", dict.fromkeys(LOSSES, 0.0)), ("no loss of what is labelled", {"kobj": 0.0}))}
    untrained = replace(base, name=f"{base.size}, random weights", weights="")
    sizes = [replace(base, name=size, size=size, weights=f"{size}-pose.pt")
             for size in ("yolov8s", "yolo11n", "yolo26n")]
    if not is_large(profile):  # nobody has weights of all of them offline
        sizes = [replace(untrained, name=f"{size}, random weights", size=size) for size in ("yolov8n", "yolov8s")]
    questions = {
        "start": [base, untrained],
        "size": [base if is_large(profile) else untrained, *sizes],
        "mosaic": [base, replace(base, name="mosaic", hyp={**base.hyp, "mosaic": 1.0})],
        "loss of places": [replace(base, name=words, hyp={**base.hyp, **dict.fromkeys(LOSSES, 0.0), name: WEIGHT})
                           for name, words in LOSSES.items()],
        "optimizer": [replace(base, name=name, hyp={**base.hyp, "lr0": rate, "warmup_bias_lr": 0.0},
                              settings={"optimizer": name}) for name, rate in RATES.items()],
        "weights": [base, *[replace(base, name=name, hyp=hyp) for name, hyp in parts.items()]],
    }
    if unite_points(lab.skeleton).flips is not None:
        questions["mirror"] = [base, replace(base, name="mirrored", hyp={**base.hyp, "fliplr": 0.5})]
    return {name: arms for name, arms in questions.items() if profile != "demo" or name in IN_DEMO}


def choose_topdown(profile: str) -> PoseArm:
    """Top-down pose as 11 begins with it, for the same pictures; with `demo`, which is short, for half the epochs."""
    size, weights = choose_network(profile, "topdown")
    return PoseArm("top-down", "topdown", size, weights, epochs=0.5 if profile == "demo" else 1.0)


def show_tables(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of all questions, one below the other, the columns of `SHOWN` that there are."""
    every = pd.concat(tables)
    return every[[name for name in SHOWN if name in every]].round(3)


def time_runtimes(lab: PoseLab, directory: Path, sizes: Sequence[str] = PACE_SIZES) -> pd.DataFrame:
    """A row a network, runtime and number of threads: `MB`, and `milliseconds` a picture, from its file to its points.

    The networks are untrained, which takes as long. They are written to `directory`, as ONNX and as int8 too, which is
    calibrated on pictures that train.
    """
    from ..export import export_onnx, quantize_onnx
    from ..models.forward import load_for_inference

    rows, (images, _, _) = [], lab.judged
    for size in sizes:
        own = write_untrained(lab, size, directory / f"{size}.safetensors")
        whole = export_onnx(own, directory / f"{size}.onnx")
        small = quantize_onnx(whole, lab.trained[0].head(N_CALIBRATING), directory / f"{size}.int8.onnx",
                              imgsz=lab.scale.imgsz)
        for runtime, path in (("PyTorch", own), ("ONNX", whole), ("ONNX int8", small)):
            for n_threads in (1, 2):
                find = partial(find_objects, load_for_inference(path, "cpu", n_threads=n_threads), lab.scale.imgsz)
                rows.append({"network": size, "runtime": runtime, "threads": n_threads,
                             "MB": path.stat().st_size / 1e6, "milliseconds": time_each(images, find, "image")})
    return pd.DataFrame(rows, columns=["network", "runtime", "threads", "MB", "milliseconds"])


def write_untrained(lab: PoseLab, size: str, path: Path) -> Path:
    """Writes a network of this size with random weights, for the points of these data."""
    import torch

    from ..models.checkpoint import write_checkpoint
    from ..models.registry import get_family

    family, names = get_family("yolo_pose"), list(unite_points(lab.skeleton).names)
    config = family.configure(lab.skeleton.labels, lab.scale.imgsz, size)
    config = replace(config, architecture={**config.architecture, "points": names, "sigmas": [0.05] * len(names)})
    torch.manual_seed(lab.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, config, family.build(config).state_dict())
    return path


def compare_with_topdown(lab: PoseLab, one: PoseResult, topdown: PoseResult) -> dict[str, pd.DataFrame]:
    """Errors on the same pictures: of one look, of top-down pose in the boxes that it found, and in the true boxes."""
    from ..models.forward import load_for_inference
    from ..poses import find_poses

    images, truth, points = lab.judged
    boxes, _ = one.objects or (make_boxes([]), None)
    cut = find_poses(load_for_inference(topdown.weights, lab.scale.device), images, boxes)
    found = {"one look": one.keypoints, "top-down, in its boxes": as_true_objects(truth, boxes, cut),
             "top-down, in true boxes": topdown.keypoints}
    return {name: find_errors(points, own) for name, own in found.items()}


def lay_side_by_side(
    lab: PoseLab, results: Sequence[PoseResult], box_ids: Sequence[int]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[int, str]]:
    """The same true objects once for each result: boxes, true keypoints, found ones and notes, with ids of their own.

    A row of objects a result, as `plots.plot_objects` shows them with as many columns as there are objects.
    """
    _, boxes, points = lab.judged
    parts, notes = [], dict[int, str]()
    for row, result in enumerate(results):
        ids = {box_id: row * len(box_ids) + place for place, box_id in enumerate(box_ids)}
        own = boxes.set_index("box_id", drop=False).loc[list(box_ids)]
        kept = [table[table["box_id"].isin(list(ids))] for table in (own, points, result.keypoints)]
        parts.append([table.assign(box_id=table["box_id"].map(ids)) for table in kept])
        notes |= dict.fromkeys(ids.values(), result.arm.name)
    shown, truth, found = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    return shown, truth, found, notes
