"""The questions of `10_heatmap` and `11_pose`: data, settings, and what is claimed about them.

They are those of two projects. One found the noses of pets by a heat map and had tried coordinates and a one-hot map
before; the other compared settings of top-down pose of cats, in tables whose rows differ in several things. Here each
question has its arms, which differ in what is asked for alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..config import read_competition, resource
from ..data.pose_set import unite_points
from ..exceptions import BadData
from ..training.crops import HALF_BODY_LEAST
from .pose_lab import PoseArm, PoseLab, PoseScale, split_by_group, take_objects
from .prepare import N_WITH_KEYPOINTS, draw_whole, group_images
from .reading import examine
from .run import Run

SIGMA = 7.0  # pixels of the input, whatever its size: the project's
SHOWN = ["pixels", "median", "gross", "PCK", "OKS", "parameters", "seconds", "milliseconds"]  # of a table of arms
JUDGED_SHARE = {"heatmap": 1 / 8, "topdown": 200 / 1328,  # the second as the project on cats: 1,000, 128 and 200
                "yolo_pose": 200 / 1328}
SAMPLE_FILE = "sources.csv"  # in a folder with a drawn sample
EVERY = 1_000_000  # objects: all that there are
SCALES: dict[str, PoseScale] = {
    "smoke": PoseScale(16, 8, imgsz=64, batch=8, epochs=2, n_seeds=1, device="cpu"),
    "demo": PoseScale(96, 48, imgsz=96, batch=8, epochs=8, n_seeds=1, device="cpu", workers=2),
    "cpu": PoseScale(EVERY, EVERY, imgsz=128, batch=16, epochs=20, n_seeds=3, device="cpu", workers=2),
    "colab": PoseScale(EVERY, EVERY, imgsz=256, batch=32, epochs=30, n_seeds=3, workers=2),
}
LARGE = "colab"  # the profile whose networks are the projects' own
logger = logging.getLogger(__name__)


def find_pose_scale(profile: str) -> PoseScale:
    """How big the experiments of a profile are; of an unknown one as big as on a GPU."""
    return SCALES.get(profile, SCALES[LARGE])


def open_pose_lab(run: Run, family: str, changes: Mapping[str, Any] | None = None) -> PoseLab:
    """Reads the data, groups near-duplicates, and sets whole groups aside to judge by.

    `changes` of the scale, such as `{"n_seeds": 3}`, count where they are not None. For `heatmap`, which looks at whole
    pictures, those with exactly one object are taken, and a line says how many that is. The `demo` and `smoke`
    profiles draw a sample where no data are named: for `heatmap` one animal a picture. Raises BadData for a competition
    without a skeleton, for data without keypoints, and for less than 8 images.
    """
    data_dir = find_data(run, family)
    if run.competition.skeleton is None and not run.settings.data and run.profile.name in N_WITH_KEYPOINTS:
        run = replace(run, competition=read_competition(resource("keypoints.yaml")))  # the sample's
    if run.competition.skeleton is None:
        raise BadData(f"competition {run.competition.name}: expected a skeleton, the keypoints of its classes, found "
                      "none; name a file that has one as COMPETITION; `livestock read` suggests one for the data")
    known = {name: value for name, value in (changes or {}).items() if value is not None}
    scale = replace(find_pose_scale(run.profile.name), **known)
    found = examine(run.reader, data_dir, run.competition, skip=[run.workspace.root])
    images, boxes, keypoints = found.images, found.boxes, found.keypoints
    labelled = boxes["box_id"].isin(keypoints.loc[keypoints["visible"] > 0, "box_id"])
    if family == "heatmap":
        n_objects = boxes.groupby("image_id").size()
        alone = n_objects.index[n_objects == 1]
        if len(alone) < len(images):
            logger.info("%s of %s images have exactly one object: the others need boxes first, see 11_pose",
                        f"{len(alone):,}", f"{len(images):,}")
        labelled &= boxes["image_id"].isin(alone)
    if family == "yolo_pose":  # an object without points is there to be found, in a picture that has some
        labelled = boxes["image_id"].isin(boxes.loc[labelled, "image_id"]) & boxes["label"].isin(
            run.competition.skeleton.labels)
    boxes = boxes[labelled].reset_index(drop=True)
    images = images[images["image_id"].isin(boxes["image_id"])].reset_index(drop=True)
    if len(images) < 8:
        raise BadData(f"{run.data_dir}: expected 8 images or more with labelled keypoints, found {len(images)} of "
                      f"{len(found.images)}; `livestock read` says what was left out and why")
    others = set(found.images["image_id"]) - set(images["image_id"]) | set(found.test_images["image_id"])
    groups = group_images(images, found.hashes[images["image_id"]], run.competition, data_dir, others)
    images = images.assign(group=images["image_id"].map(groups).to_numpy())
    if groups.nunique() < 2:
        raise BadData(f"{data_dir}: expected two groups of images or more, one to judge by, found one: all "
                      f"{len(images):,} images are alike, or `group_pattern` or `groups.csv` puts them together")
    train, judged = (take_objects(ids, boxes, n, run.seed) for ids, n in zip(
        split_by_group(images, JUDGED_SHARE[family], run.seed), (scale.objects, scale.judged), strict=True))
    keypoints = keypoints[keypoints["box_id"].isin(boxes["box_id"])].reset_index(drop=True)
    return PoseLab(run.workspace.root, scale, images, boxes, keypoints, run.competition.skeleton, train, judged,
                   run.seed, is_whole=family == "heatmap")


def find_data(run: Run, family: str) -> Path:
    """The folder of the data; where none is named, `demo` and `smoke` draw a sample; single animals for `heatmap`."""
    is_own = run.data_dir.exists() and not (run.data_dir / SAMPLE_FILE).exists()
    if run.profile.name not in N_WITH_KEYPOINTS or run.settings.data or is_own:
        return run.data_dir
    folder = run.data_dir
    if family == "heatmap" or run.competition.skeleton is None:
        folder = folder.with_name(f"{folder.name}_{'alone' if family == 'heatmap' else 'keypoints'}")
    if not folder.exists():
        draw_whole(folder, run.profile.name, is_alone=family == "heatmap")
    return folder


def is_large(profile: str) -> bool:
    """Whether a profile has the projects' own networks; an unknown one is taken for one of a GPU."""
    return profile not in SCALES or profile == LARGE


def choose_network(profile: str, family: str) -> tuple[str, str]:
    """Size and start weights of a profile: the projects' own on a GPU, else what a CPU trains in minutes.

    The small one has ImageNet weights that come as a package, so that they are there offline too.
    """
    if is_large(profile):
        return ("resnet18", "resnet18_imagenet") if family == "heatmap" else ("resnet50", "resnet50_imagenet")
    return "lite0", "lite0_imagenet"


def list_targets(profile: str, points: tuple[str, ...] = ()) -> list[PoseArm]:
    """Three targets, on one backbone: a place by a fully connected layer, a one-hot map, a Gaussian map.

    They are asked for these `points`, or for all.
    """
    size, weights = choose_network(profile, "heatmap")
    drawn = size if is_large(profile) else f"{size}_project"
    return [PoseArm("place", "heatmap", f"{size}_places", weights, points=points),
            PoseArm("one-hot map", "heatmap", drawn, weights, hyp={"sigma": 0.0}, points=points),
            PoseArm("Gaussian map", "heatmap", drawn, weights, hyp={"sigma": SIGMA}, points=points)]


def film(arm: PoseArm, lab: PoseLab) -> PoseArm:
    """The arm that leaves its weights behind at four of its epochs, from the first to the last."""
    epochs = max(round(lab.scale.epochs * arm.epochs), 1)
    return replace(arm, filmed=tuple(sorted({round(share * (epochs - 1)) for share in (0, 0.2, 0.5, 1)})))


def list_sigmas(profile: str, points: tuple[str, ...] = ()) -> list[PoseArm]:
    """Gaussians of several widths, in pixels of the input."""
    gaussian = list_targets(profile, points)[-1]
    return [replace(gaussian, name=f"sigma {sigma:g}", hyp={"sigma": sigma}) for sigma in (SIGMA / 2, SIGMA, 2 * SIGMA)]


def list_cures(profile: str) -> list[PoseArm]:
    """What the authors wished for, an adaptive radius, and what one would take today.

    That differs in more than one thing, which its name says: maps at a quarter of the side, learnt by cross-entropy and
    read by their mean place.
    """
    size, weights = choose_network(profile, "heatmap")
    gaussian = list_targets(profile)[-1]
    light = f"{size}_light" if is_large(profile) else size
    return [gaussian, replace(gaussian, name="adaptive radius", hyp={**gaussian.hyp, "adaptive": 1.0}),
            PoseArm("light head, cross-entropy", "heatmap", light, weights, hyp={"sigma": 8.0})]


def list_ablations(profile: str, lab: PoseLab) -> dict[str, list[PoseArm]]:
    """Questions about top-down pose, each with arms that differ from its first in one thing.

    Half a body is asked about only where each keypoint has a part and some object enough labelled points, a mirror only
    where all have their mirror images.
    """
    points, labelled = unite_points(lab.skeleton), lab.trained[2].query("visible > 0").groupby("box_id").size()
    size, weights = choose_network(profile, "topdown")
    base = PoseArm("base", "topdown", size, weights)
    questions = {
        "pretraining": [base, replace(base, name="random weights", weights="")],
        "rotation and scale": [base, replace(base, name="10 degrees, 0.2", hyp={"degrees": 10.0, "scale": 0.2})],
    }
    if all(points.parts) and labelled.max() >= HALF_BODY_LEAST:
        questions["half body"] = [base, replace(base, name="half body 0.3", hyp={"half_body": 0.3})]
    if points.flips is not None:
        mirrored = replace(base, name="mirrored", hyp={"fliplr": 0.5})
        questions["mirror"] = [base, mirrored]
        questions["flip test"] = [mirrored, replace(mirrored, name="mirrored, flip test", flip=True)]
    if profile == "cpu" or is_large(profile):
        questions["learning rate"] = [base, replace(base, name="a third", hyp={"lr0": 0.001 / 3}),
                                      replace(base, name="three times", hyp={"lr0": 0.003})]
        questions["heat-map size"] = [base, replace(base, name="half of the side", size=f"{size}_fine")]
        questions["epochs"] = [base, replace(base, name="half the epochs", epochs=0.5)]
    if is_large(profile):
        questions["batch"] = [base, replace(base, name="64", settings={"batch": 64})]
        questions["warm-up"] = [base, replace(base, name="no warm-up", hyp={"warmup_epochs": 0.0})]
        questions["schedule"] = [base, replace(base, name="steps", settings={"schedule": "step"})]
        questions["input size"] = [base, replace(base, name="384 px", settings={"imgsz": 384})]
        questions["architecture"] = [base, *[
            replace(base, name=name, size=name, weights=f"{name}_imagenet")
            for name in ("resnet101", "resnet152", "resnest50", "resnest101", "hrnet_w32", "hrnet_w48")]]
    return questions


def describe_arms(arms: list[PoseArm]) -> pd.DataFrame:
    """A row an arm: network, start weights and what it changes."""
    rows = [{"arm": arm.name, "family": arm.family, "network": arm.size, "start": arm.weights or "random",
             "changes": ", ".join(f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}"
                                  for name, value in {**arm.hyp, **arm.settings}.items())
             + (", flip test" if arm.flip else "")} for arm in arms]
    return pd.DataFrame(rows).set_index("arm")


def measure_colours(lab: PoseLab, n_images: int = 64) -> pd.DataFrame:
    """Mean and deviation of the colours of some pictures that train, 0..1, beside ImageNet's; a row each."""
    from ..data.archives import read_image
    from ..models.backbones import MEAN, STD

    images = lab.trained[0]
    chosen = images.sample(min(n_images, len(images)), random_state=lab.seed)
    pixels = np.concatenate([read_image(row.archive, row.member)[::8, ::8].reshape(-1, 3)
                             for row in chosen.itertuples()]) / 255
    rows = {"mean here": pixels.mean(0), "mean of ImageNet": MEAN, "deviation here": pixels.std(0),
            "deviation of ImageNet": STD}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["red", "green", "blue"])


def measure_costs(lab: PoseLab, arms: Sequence[PoseArm]) -> pd.DataFrame:
    """A row a network: `parameters` in millions and `gflops`, multiply-adds of one picture, counted by PyTorch."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ..models.registry import get_family

    rows, points = [], unite_points(lab.skeleton).names
    for arm in arms:
        family, side = get_family(arm.family), int(arm.settings.get("imgsz", lab.scale.imgsz))
        config = family.configure(lab.skeleton.labels, side, arm.size)
        net = family.build(replace(config, architecture={**config.architecture, "points": list(points)})).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.zeros(1, 3, side, side))
        n_parameters = sum(parameter.numel() for parameter in net.parameters())
        rows.append({"network": arm.size, "imgsz": side, "parameters": n_parameters / 1e6,
                     "gflops": counter.get_total_flops() / 2e9})
    return pd.DataFrame(rows).set_index("network")


def show_tables(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of all questions, one below the other, the columns of `SHOWN` that there are."""
    every = pd.concat(tables)
    return every[[name for name in SHOWN if name in every]].round(3)
