"""What experiments with keypoints come to: scores by arm, errors, and what a network sees.

Results are those of `pose_lab`; the guess that looks at no picture, the mean pose, is beside every one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..evaluation.gains import Gain, Judged, draw_gain_counts, find_gain
from ..evaluation.pixel import find_errors, find_mean_pose, guess_mean_pose, summarise_errors
from ..evaluation.pose_gains import FEWER_IS_BETTER, judge_poses
from .pose_lab import PoseLab, PoseResult, keep_points

GUESS = "mean pose"  # the guess that looks at no picture, beside every result


def judge_pose_results(lab: PoseLab, results: Sequence[PoseResult]) -> dict[str, list[Judged]]:
    """The scores of trainings by arm, seeds in order, all on the same resampled groups; the mean pose as `GUESS`.

    An arm that asks for some of the points is judged by those, and the guess by what all arms ask for.
    """
    images, boxes, keypoints = lab.judged
    counts = draw_gain_counts(images, lab.seed)
    judged: dict[str, list[Judged]] = {}
    for result in sorted(results, key=lambda result: result.seed):
        skeleton = keep_points(lab.skeleton, result.arm.points)
        own = keypoints[keypoints["keypoint"].isin([point.keypoint for point in skeleton.keypoints])]
        judged.setdefault(result.arm.name, []).append(
            judge_poses(images, (boxes, own), (boxes, result.keypoints), skeleton, counts, objects=result.objects))
    by_arm = {arm: judged[arm] for arm in dict.fromkeys(result.arm.name for result in results)}
    skeleton = keep_points(lab.skeleton, _shared_points(results))
    own = keypoints[keypoints["keypoint"].isin([point.keypoint for point in skeleton.keypoints])]
    guess = judge_poses(images, (boxes, own), (boxes, guess_points(lab)), skeleton, counts)
    return {**by_arm, GUESS: [guess] * max(map(len, by_arm.values()), default=1)}


def _shared_points(results: Sequence[PoseResult]) -> tuple[str, ...]:
    """The points that all these arms ask for; () for all of the skeleton."""
    asked = {result.arm.points for result in results}
    return asked.pop() if len(asked) == 1 else ()


def guess_points(lab: PoseLab) -> pd.DataFrame:
    """The mean pose of the objects that train, put into every box that judges; or into every picture."""
    parts = [(images, boxes) for images, boxes, _ in (lab.trained, lab.judged)]
    train, judged = (_whole_pictures(*part) if lab.is_whole else part[1] for part in parts)
    return guess_mean_pose(find_mean_pose(train, lab.trained[2]), judged)


def _whole_pictures(images: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """The boxes with the corners of their pictures."""
    sizes = images.set_index("image_id").loc[boxes["image_id"], ["width", "height"]].to_numpy(float)
    return boxes.assign(x_min=0.0, y_min=0.0, x_max=sizes[:, 0], y_max=sizes[:, 1])


def tabulate_poses(results: Sequence[PoseResult], judged: Mapping[str, Sequence[Judged]]) -> pd.DataFrame:
    """A row an arm: means over seeds of every measure and of the facts of its trainings; index `arm`.

    Errors are NaN where a seed found nothing, since those of the others would make the arm look better than it is.
    """
    scores = pd.DataFrame([{"arm": arm, **one.scores} for arm, runs in judged.items() for one in runs])
    facts = pd.DataFrame([{"arm": result.arm.name, **result.facts} for result in results])
    return scores.groupby("arm", sort=False).agg(lambda own: own.mean(skipna=False)).join(facts.groupby("arm").mean())


def find_pose_gain(judged: Mapping[str, Sequence[Judged]], better: str, worse: str, measure: str) -> Gain:
    """By how much one arm is better than another: of errors, by how much they fall."""
    sides = (worse, better) if measure in FEWER_IS_BETTER else (better, worse)
    return find_gain(judged[sides[0]], judged[sides[1]], measure)


def see_maps(weights: Path, images: pd.DataFrame, boxes: pd.DataFrame, keypoint: str
             ) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What a network sees of some objects, `(S, S, 3)` each, and its map of a keypoint `(H, W)`, heights in 0..1.

    Raises ValueError for a network that gives places and no maps, or does not know the keypoint, and for none at all.
    """
    import torch

    from ..data.archives import read_image
    from ..inference import to_tensor
    from ..models.crops import cut_out, map_crop
    from ..models.forward import load_fused

    if not weights.stat().st_size:
        raise ValueError(f"{weights}: expected a network, found a training that diverged; a lower lr0 helps")
    _, config, net = load_fused(weights)
    parts = config.architecture
    if keypoint not in parts["points"] or parts["output"] == "places":
        raise ValueError(f"{weights}: expected maps of {keypoint}, found {parts['output']} of "
                         f"{', '.join(parts['points'])}")
    place, pictures = images.set_index("image_id"), []
    for box in boxes.itertuples():
        picture = read_image(place.loc[box.image_id, "archive"], place.loc[box.image_id, "member"])
        corners = np.array([box.x_min, box.y_min, box.x_max, box.y_max])
        matrix = map_crop(corners, picture.shape[1::-1], config.imgsz, parts["crop"])
        pictures.append(cut_out(picture, matrix, config.imgsz))
    with torch.inference_mode():
        maps = net(to_tensor(pictures))[:, list(parts["points"]).index(keypoint)]
        if parts["output"] == "softmax":
            maps = maps.flatten(1).softmax(1).view(maps.shape)
    return pictures, list(maps.clamp(0, 1).numpy())


def choose_extremes(errors: pd.DataFrame, n_each: int = 4) -> tuple[list[int], dict[int, str]]:
    """The objects with the smallest and the largest mean error, `box_id` from best to worst, and that error in words.

    >>> errors = pd.DataFrame({"box_id": [1, 2, 3], "error": [5.0, 1.0, 9.0]})
    >>> choose_extremes(errors, n_each=1)
    ([2, 3], {2: '1.0 px', 3: '9.0 px'})
    """
    mean = errors.groupby("box_id")["error"].mean().dropna().sort_values(kind="stable")
    chosen = list(dict.fromkeys([*mean.index[:n_each], *mean.index[-n_each:]]))
    return chosen, {int(box_id): f"{mean[box_id]:.1f} px" for box_id in chosen}


def list_errors(lab: PoseLab, results: Sequence[PoseResult]) -> dict[str, pd.DataFrame]:
    """The errors of each arm, all seeds together, of `pixel.find_errors`; the mean pose as `GUESS`."""
    truth = lab.judged[2]
    errors: dict[str, list[pd.DataFrame]] = {}
    for result in results:
        names = [point.keypoint for point in keep_points(lab.skeleton, result.arm.points).keypoints]
        own = truth[truth["keypoint"].isin(names)]
        errors.setdefault(result.arm.name, []).append(find_errors(own, result.keypoints))
    by_arm = {arm: pd.concat(tables, ignore_index=True) for arm, tables in errors.items()}
    shared = _shared_points(results)
    return {**by_arm, GUESS: find_errors(truth[truth["keypoint"].isin(shared)] if shared else truth, guess_points(lab))}


def summarise_by_keypoint(errors: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Errors by `keypoint`, in the order of `names`, and `visible`; see `pixel.summarise_errors`."""
    table = summarise_errors(errors, ["keypoint", "visible"]).reset_index()
    return table.sort_values("keypoint", key=lambda own: own.map(list(names).index), kind="stable", ignore_index=True)
