"""The questions of `12_yolo_pose`: what helps a network that finds objects and their keypoints in one look.

They are those of a project that looked for four points of objects without a mirror image, by YOLOv8-pose: mosaic, size,
the loss of places, the optimizer, the weights of the losses. Each question has its arms, which differ in one thing.
"""

from __future__ import annotations

from dataclasses import replace

from ..data.pose_set import unite_points
from .keypoints import is_large
from .pose_lab import PoseArm, PoseLab

WEIGHT = 12.0  # of each loss of places: the package's own for OKS
LOSSES = {"oks_even": "OKS, sigma 1/K", "oks_third": "OKS, sigma 1/(3K)", "oks": "OKS, the skeleton's sigmas",
          "l1": "L1", "euclidean": "Euclidean"}
RATES = {"SGD": 0.01, "Adam": 0.001, "AdamW": 0.001}  # of each optimizer, that of its authors or of the package
FACTS = ["box_AP50", "box_AP75", "parameters", "megabytes", "seconds", "milliseconds"]
SHOWN = ["pixels", "median", "PCK", "OKS", *FACTS]


def choose_base(profile: str) -> PoseArm:
    """The arm that all questions begin with: YOLOv8-pose nano from random weights, no mosaic and no mirror images.

    Adam, since a few epochs from random weights are not enough for SGD.
    """
    hyp = {} if is_large(profile) else {"lr0": RATES["Adam"], "warmup_epochs": 1.0}
    return PoseArm("base", "yolo_pose", "yolov8n", hyp=hyp,
                   settings={} if is_large(profile) else {"optimizer": "Adam"})


def list_questions(profile: str, lab: PoseLab) -> dict[str, list[PoseArm]]:
    """Each question with its arms, the first of which is what the others are compared with.

    Mirror images are asked about only where all points have theirs.
    """
    base = choose_base(profile)
    weights = {name: {**base.hyp, **values} for name, values in (
        ("no loss of boxes", {"box": 0.0, "dfl": 0.0}), ("no loss of classes", {"cls": 0.0}),
        ("no loss of places", {"oks": 0.0}), ("no loss of what is labelled", {"kobj": 0.0}))}
    sizes = ("yolov8s", *(("yolo11n", "yolo26n") if is_large(profile) else ()))
    questions = {
        "mosaic": [base, replace(base, name="mosaic", hyp={**base.hyp, "mosaic": 1.0})],
        "size": [base, *[replace(base, name=size, size=size) for size in sizes]],
        "loss of places": [replace(base, name=words, hyp={**base.hyp, "oks": 0.0, name: WEIGHT})
                           for name, words in LOSSES.items()],
        "optimizer": [replace(base, name=name, hyp={**base.hyp, "lr0": rate}, settings={"optimizer": name})
                      for name, rate in RATES.items()],
        "weights": [base, *[replace(base, name=name, hyp=hyp) for name, hyp in weights.items()]],
    }
    if unite_points(lab.skeleton).flips is not None:
        questions["mirror"] = [base, replace(base, name="mirrored", hyp={**base.hyp, "fliplr": 0.5})]
    return questions
