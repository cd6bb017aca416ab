"""The questions of `09_detectors`: which one-stage detector, mosaic, pseudo-labels, deformable convolutions.

They are those of a project that compared SSD, RetinaNet, YOLOX and TOOD, each on another backbone and trained once, and
then changed one thing after the other with unequal numbers of epochs. Here each question has its arms, which differ in
what is asked for alone, and its claims, which are what that project concluded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..evaluation.gains import Judged, decide, find_gain
from .experiment import Arm, Lab, Scale, as_teacher

NAMES = {"ssd": "SSD", "retinanet": "RetinaNet", "yolox": "YOLOX", "tood": "TOOD"}
EVERY = 1_000_000  # images: all that there are
SCALES: dict[str, Scale] = {
    "smoke": Scale(images=12, judged=4, imgsz=64, batch=6, epochs=4, n_seeds=1, rates=(1.0,)),
    "demo": Scale(images=24, judged=32, imgsz=96, batch=4, epochs=4, n_seeds=1, rates=(1.0, 3.0)),
    "cpu": Scale(images=120, judged=100, imgsz=160, batch=8, epochs=8, n_seeds=3),
    "colab": Scale(images=EVERY, judged=EVERY, imgsz=1024, batch=4, epochs=12, n_seeds=3, resumes=True),
}
# The smallest of their kinds; of VGG there is but one, ten times as slow as this ResNet on a CPU.
SMALL = {"ssd": "resnet50", "retinanet": "swin_t", "yolox": "yolox_s", "tood": "resnext50"}
# The project's own; where classifiers are published, they start as such. YOLOX's backbone was never one.
LARGE = {"ssd": "vgg16_imagenet", "retinanet": "swin_t_imagenet", "yolox": "yolox_l", "tood": "resnext101_imagenet"}
ONE_BACKBONE = {False: "lite0_imagenet", True: "resnet50_imagenet"}  # on a CPU, and on a GPU
MOSAIC_IMAGES = 4  # in one picture


@dataclass(frozen=True)
class Claim:
    """What is claimed: that the arm `better` is above each arm of `worse` in a measure of `evaluation.gains`."""

    words: str
    better: str
    worse: Sequence[str]
    measure: str


def find_scale(profile: str) -> Scale:
    """How big the experiments of a profile are; of an unknown one as big as on a GPU."""
    return SCALES.get(profile, SCALES["colab"])


def list_detectors(*, own: bool, on_gpu: bool) -> list[Arm]:
    """The four detectors, each on its `own` backbone, or all on one; smaller ones on a CPU."""
    sizes = (LARGE if on_gpu else SMALL) if own else dict.fromkeys(NAMES, ONE_BACKBONE[on_gpu])
    return [Arm(f"{NAMES[family]} {_short(size)}" if own else NAMES[family], family, size)
            for family, size in sizes.items()]


def _short(size: str) -> str:
    return size.removesuffix("_imagenet")


def claim_detectors(arms: Sequence[Arm]) -> list[Claim]:
    """What the project concluded from its four trainings: TOOD is ahead, most of all for small and medium animals."""
    tood = next(arm.name for arm in arms if arm.family == "tood")
    others = [arm.name for arm in arms if arm.name != tood]
    return [Claim(f"TOOD is better than the other three ({words})", tood, others, measure)
            for words, measure in (("all animals", "mAP50_95"), ("small", "small"), ("medium", "medium"))]


def list_mosaic(arm: Arm) -> list[Arm]:
    """Without mosaic, with it for as many epochs, and with it for as many images seen: four make one picture.

    The epochs of every scale are a multiple of four, so that as many images are.
    """
    mosaic = {**arm.hyp, "mosaic": 1.0}
    return [replace(arm, name="no mosaic"), replace(arm, name="mosaic, as many epochs", hyp=mosaic),
            replace(arm, name="mosaic, as many images", hyp=mosaic, epochs=arm.epochs / MOSAIC_IMAGES)]


def claim_mosaic() -> list[Claim]:
    """The project saw a little more in all and a little less for small animals, with three times the minutes."""
    return [Claim(f"mosaic is better in all ({words})", f"mosaic, as many {words}", ["no mosaic"], "mAP50_95")
            for words in ("epochs", "images")] + [
            Claim(f"mosaic is worse for small animals ({words})", "no mosaic", [f"mosaic, as many {words}"], "small")
            for words in ("epochs", "images")]


def list_silver(lab: Lab, arm: Arm) -> list[Arm]:
    """Half of the images with people's labels; the same and pseudo-labels for the other half; people's labels for all.

    All see as many images, but for what rounding to whole epochs changes.
    """
    return [replace(as_teacher(lab, arm), name="half"), replace(arm, name="half and pseudo-labels", images="silver"),
            replace(arm, name="all labels")]


def claim_silver() -> list[Claim]:
    """The project saw a gain, with images trained on that judged; what people's labels would gain is the most."""
    return [Claim("pseudo-labels for the other half gain", "half and pseudo-labels", ["half"], "mAP50_95"),
            Claim("people's labels for the other half gain", "all labels", ["half"], "mAP50_95")]


def list_deformable(arm: Arm) -> list[Arm]:
    """TOOD's head as it is, and with two deformable layers."""
    end = arm.size.removeprefix(_short(arm.size))  # of start weights
    return [replace(arm, name="plain"), replace(arm, name="deformable", size=f"{_short(arm.size)}_dcn{end}")]


def claim_deformable() -> list[Claim]:
    """The project saw small animals gain most, after unequal epochs; thin ones are what such layers are made for."""
    return [Claim(f"deformable layers gain ({words})", "deformable", ["plain"], measure)
            for words, measure in (("all animals", "mAP50_95"), ("small", "small"), ("thin", "thin"))]


def list_experiments(scale: Scale, n_images: int) -> list[tuple[int, float]]:
    """The images and epochs of each training of `09_detectors`, where there are so many; each asks about TOOD."""
    n_trained = min(scale.images, n_images)
    arms = [arm for own in (True, False) for arm in list_detectors(own=own, on_gpu=False)]
    rates = [(n_trained, scale.epochs / 3)] * (len(arms) * len(scale.rates))
    tood = arms[-1]
    silver = [replace(tood, images="half", epochs=2.0), tood]  # about as many images for both
    asked = [*arms, *list_mosaic(tood)[1:], *silver, list_deformable(tood)[-1]]
    return rates + [(n_trained // 2 if arm.images == "half" else n_trained, scale.epochs * arm.epochs)
                    for arm in asked] * scale.n_seeds


def decide_claims(judged: Mapping[str, Sequence[Judged]], claims: Sequence[Claim]) -> pd.DataFrame:
    """A row a claim: `claim`, `rival`, the `gain` over it, `low`, `high`, `seeds`, `verdict`.

    The rival is the one that decides: of those that a claim is about, that with the highest bound that is below zero if
    there is one, else that with the lowest bound of all; without intervals that with the smallest gain. `judged` are
    the scores of each arm's trainings, by seed (`experiment.judge_results`).
    """
    rows = []
    for claim in claims:
        gains = [find_gain(judged[claim.better], judged[other], claim.measure) for other in claim.worse]
        verdict = decide(gains)
        bound = "mean" if np.isnan(gains[0].low) else "high" if verdict == "shown to be wrong" else "low"
        rival, gain = min(zip(claim.worse, gains, strict=True), key=lambda pair: getattr(pair[1], bound))
        rows.append({"claim": claim.words, "measure": claim.measure, "rival": rival, "gain": gain.mean, "low": gain.low,
                     "high": gain.high, "seeds": gain.n_seeds, "verdict": verdict})
    return pd.DataFrame(rows)


def find_winner(judged: Mapping[str, Sequence[Judged]], measure: str = "mAP50_95") -> tuple[str, str, pd.Series]:
    """The arm with the highest mean, whether it is shown to be better than every other, and its gain over the second.

    The winner is chosen by the scores that judge it: the intervals are as much wider as for that many possible winners
    (Bonferroni). The gain has `other`, `gain`, `low`, `high`, and the winner's own `score`.
    """
    if len(judged) < 2:
        raise ValueError(f"winner: expected two settings or more, found {list(judged)}")
    means = pd.Series({arm: pd.Series([one.scores[measure] for one in runs]).mean() for arm, runs in judged.items()})
    first, second = means.sort_values(ascending=False, kind="stable").index[:2]
    level = 1 - 0.05 / len(means)
    gains = {other: find_gain(judged[first], judged[other], measure, level) for other in means.index if other != first}
    nearest = gains[second]
    return first, decide(list(gains.values())), pd.Series(
        {"other": second, "score": means[first], "gain": nearest.mean, "low": nearest.low, "high": nearest.high})
