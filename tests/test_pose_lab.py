"""Experiments with keypoints: scores by hand, groups kept whole, trainings found again, and their figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

import livestock.training
from livestock import plots
from livestock.config import Edge, Keypoint, Skeleton
from livestock.evaluation.gains import draw_gain_counts
from livestock.evaluation.pixel import find_errors
from livestock.evaluation.pose_gains import judge_poses
from livestock.exceptions import BadData
from livestock.pipeline import keypoints, pose_lab, pose_results
from livestock.pipeline.pose_lab import PoseArm, PoseLab, PoseScale
from livestock.pipeline.pose_results import GUESS
from livestock.pipeline.run import make_run
from livestock.tables import make_boxes, make_images, make_keypoints

matplotlib.use("Agg")
SIDE = 64
NAMES = ("head", "tail")
SKELETON = Skeleton(tuple(Keypoint("pig", name, index, name, 0.05) for index, name in enumerate(NAMES)),
                    (Edge("pig", "head", "tail"),))
ONE = Skeleton(SKELETON.keypoints[:1])
SCALE = PoseScale(20, 20, imgsz=SIDE, batch=4, epochs=2, n_seeds=1, device="cpu")
TINY = PoseArm("tiny", "topdown", "mobilenetv3_small_050")


def draw_tables(folder: Path, n_images: int = 8) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Pictures of one object each: a bright square at its head, a dark one at its tail."""
    rng, images, boxes, points = np.random.default_rng(0), [], [], []
    for number in range(n_images):
        name = f"{number}.png"
        pixels = rng.integers(100, 130, (SIDE, SIDE, 3), dtype=np.uint8)
        head, tail = rng.integers(12, SIDE - 12, (2, 2))
        for (x, y), value in ((head, 255), (tail, 0)):
            pixels[y - 3 : y + 3, x - 3 : x + 3] = value
        Image.fromarray(pixels).save(folder / name)
        images.append({"image_id": name, "archive": str(folder), "member": name, "width": SIDE, "height": SIDE,
                       "group": number // 2})
        boxes.append({"image_id": name, "label": "pig", "x_min": 0, "y_min": 0, "x_max": SIDE, "y_max": SIDE})
        points += [{"image_id": name, "keypoint": point, "x": float(x), "y": float(y)}
                   for point, (x, y) in zip(NAMES, (head, tail), strict=True)]
    table = make_boxes(boxes)
    ids = table.set_index("image_id")["box_id"]
    return make_images(images), table, make_keypoints([{**point, "box_id": int(ids[point["image_id"]])}
                                                       for point in points])


@pytest.fixture
def lab(tmp_path: Path) -> PoseLab:
    (tmp_path / "pictures").mkdir()
    images, boxes, points = draw_tables(tmp_path / "pictures")
    train, judged = pose_lab.split_by_group(images, 0.25, seed=0)
    return PoseLab(tmp_path / "ws", SCALE, images, boxes, points, SKELETON, train, judged)


def shift(points: pd.DataFrame, pixels: float) -> pd.DataFrame:
    return points.assign(x=points["x"] + pixels, source="model", confidence=0.9)


def test_scores_are_those_that_are_counted_by_hand(tmp_path: Path) -> None:
    images, boxes, points = draw_tables(tmp_path, 2)
    found = shift(points, 3.0)
    found.loc[0, "x"] = points.loc[0, "x"] + 30.0  # one of four is gross
    counts = np.array([[1, 1], [2, 0], [0, 2]])
    judged = judge_poses(images, (boxes, points), (boxes, found), SKELETON, counts)
    diagonal = np.hypot(SIDE, SIDE)
    assert judged.scores["pixels"] == pytest.approx((30 + 3 * 3) / 4)
    assert judged.scores["gross"] == 0.25 and judged.scores["median"] == pytest.approx(3.0)
    assert judged.scores["PCK"] == 0.75  # .05 of the diagonal are 4.5 px
    assert judged.scores["NME"] == pytest.approx((30 + 9) / 4 / diagonal)
    assert judged.resampled["pixels"] == pytest.approx([39 / 4, 33 / 2, 3.0])
    assert judged.resampled["PCK"] == pytest.approx([0.75, 0.5, 1.0])
    assert judged.n_groups == 1
    # OKS of the second object: both points 3 px off, area .53 of the box, sigma .05.
    oks = np.exp(-9 / (2 * (2 * 0.05) ** 2 * 0.53 * SIDE**2))
    assert 0.8 <= oks < 0.85 and judged.resampled["OKS"][2] == pytest.approx(0.7)  # true at .5, .55 ... .8


def test_one_point_has_no_oks(tmp_path: Path) -> None:
    images, boxes, points = draw_tables(tmp_path, 2)
    own = points[points["keypoint"] == "head"]
    judged = judge_poses(images, (boxes, own), (boxes, shift(own, 1.0)), ONE, draw_gain_counts(images, 0))
    assert "OKS" not in judged.scores and judged.scores["pixels"] == pytest.approx(1.0)


def test_a_gain_in_errors_is_by_how_much_they_fall(tmp_path: Path) -> None:
    images, boxes, points = draw_tables(tmp_path)
    counts = draw_gain_counts(images, 0)
    judged = {name: [judge_poses(images, (boxes, points), (boxes, shift(points, by)), SKELETON, counts)] * 3
              for name, by in (("near", 1.0), ("far", 4.0))}
    assert pose_results.find_pose_gain(judged, "near", "far", "pixels").mean == pytest.approx(3.0)
    assert pose_results.find_pose_gain(judged, "near", "far", "PCK").mean == pytest.approx(
        judged["near"][0].scores["PCK"] - judged["far"][0].scores["PCK"])


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_whole_and_the_share_is_not_exceeded(seed: int) -> None:
    images = pd.DataFrame({"image_id": [str(number) for number in range(20)], "group": [0] * 12 + [1] * 3 + [-1] * 5})
    train, judged = pose_lab.split_by_group(images, 0.25, seed)
    assert sorted(train + judged) == sorted(images["image_id"]) and 1 <= len(judged) <= 5
    own = images.set_index("image_id")["group"]
    assert not ({own[name] for name in judged} & {own[name] for name in train}) - {-1}


def test_a_training_is_kept_and_found_again(lab: PoseLab, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = replace(TINY, filmed=(0,))
    first = pose_lab.train_pose_arm(lab, arm, seed=0)
    assert set(first.keypoints["box_id"]) == set(lab.judged[1]["box_id"]) and len(first.history) == 2
    assert first.film[0].exists() and first.weights.exists() and not list((lab.root / "runs").iterdir())
    monkeypatch.setattr(livestock.training, "train", lambda *args, **options: pytest.fail("trained again"))
    again = pose_lab.train_pose_arm(lab, arm, seed=0)
    pd.testing.assert_frame_equal(first.keypoints, again.keypoints)
    assert first.facts == again.facts
    pictures, maps = pose_results.see_maps(first.weights, lab.images, lab.judged[1].head(1), "tail")
    assert pictures[0].shape == (SIDE, SIDE, 3) and 0 <= maps[0].min() <= maps[0].max() <= 1
    with pytest.raises(ValueError, match="expected maps of snout, found linear of head, tail"):
        pose_results.see_maps(first.weights, lab.images, lab.judged[1], "snout")


def test_what_an_arm_says_makes_it_another_training(lab: PoseLab) -> None:
    brief = replace(lab, scale=replace(SCALE, epochs=1))
    arms = [TINY, replace(TINY, hyp={"degrees": 5.0}), replace(TINY, points=("head",))]
    assert len({pose_lab.train_pose_arm(brief, arm, 0).weights.stem for arm in arms}) == len(arms)


def test_a_training_that_diverges_finds_nothing_and_stops_no_other(
    lab: PoseLab, caplog: pytest.LogCaptureFixture
) -> None:
    two = replace(lab, scale=replace(SCALE, n_seeds=2, epochs=1))
    wild = replace(TINY, name="wild", hyp={"lr0": 1e12, "warmup_epochs": 0.0})
    results = pose_lab.run_pose_arms(two, [TINY, wild])
    assert [result.arm.name for result in results] == ["tiny", "tiny", "wild", "wild"]
    assert results[2].keypoints.empty and "wild, seed 0: the training diverged, so it finds nothing" in caplog.text
    judged = pose_results.judge_pose_results(two, results)
    assert judged["wild"][0].scores["PCK"] == judged["wild"][0].scores["OKS"] == 0
    assert np.isnan(judged["wild"][0].scores["pixels"])
    errors = pose_results.list_errors(two, results)
    assert errors["wild"]["error"].isna().all() and len(errors["wild"]) == len(errors["tiny"])
    table = pose_results.tabulate_poses(results, judged)
    half = {**judged, "half": [judged["tiny"][0], judged["wild"][1]]}
    assert np.isnan(pose_results.tabulate_poses(results, half).loc["half", "pixels"])
    assert table.loc["wild", "PCK"] == 0 < table.loc["tiny", "parameters"]
    gain = pose_results.find_pose_gain(judged, "wild", "tiny", "pixels")
    assert np.isnan(gain.mean) and plots.sentences.describe_pose_gains({"wild": gain}).startswith("wild: not shown")
    histories = {arm: [one.history for one in results if one.arm.name == arm] for arm in ("tiny", "wild")}
    plots.plot_histories(histories, "train_maps_loss", title="", label="")
    plt.close("all")
    assert "tiny: to" in plots.sentences.describe_histories(histories)


def test_two_ways_to_look_share_a_training(lab: PoseLab, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Skeleton((Keypoint("pig", "head", 0, "tail", 0.05), Keypoint("pig", "tail", 1, "head", 0.05)))
    mirrored = replace(lab, skeleton=pair, scale=replace(SCALE, epochs=1))
    plain = pose_lab.train_pose_arm(mirrored, TINY, 0)
    monkeypatch.setattr(livestock.training, "train", lambda *args, **options: pytest.fail("trained again"))
    other = pose_lab.train_pose_arm(mirrored, replace(TINY, flip=True), 0)
    assert other.weights == plain.weights and not other.keypoints[["x", "y"]].equals(plain.keypoints[["x", "y"]])
    fewer = replace(mirrored, judged_ids=list(lab.judged_ids)[:1])
    assert set(pose_lab.train_pose_arm(fewer, TINY, 0).keypoints["image_id"]) == set(fewer.judged_ids)


def test_points_that_stay_lose_a_mirror_that_is_gone() -> None:
    pair = Skeleton((Keypoint("pig", "left", 0, "right"), Keypoint("pig", "right", 1, "left"),
                     Keypoint("pig", "tail", 2, "tail")))
    assert pose_lab.keep_points(pair, ()).flip_indexes("pig") == [1, 0, 2]
    assert pose_lab.keep_points(pair, ("left", "tail")).flip_indexes("pig") is None
    assert pose_lab.keep_points(pair, ("left", "right")).flip_indexes("pig") == [1, 0]
    with pytest.raises(ValueError, match="expected some of left, right, tail, found 'nose'"):
        pose_lab.keep_points(pair, ("nose",))


def test_the_guess_looks_at_no_picture(lab: PoseLab) -> None:
    _, boxes, points = lab.trained
    mean = points.groupby("keypoint")[["x", "y"]].mean()
    found = pose_results.guess_points(lab)
    assert found.loc[found["keypoint"] == "head", "x"].unique() == pytest.approx([mean.loc["head", "x"]])


def test_arms_differ_from_the_first_in_one_thing(lab: PoseLab) -> None:
    for profile in ("demo", "cpu", "colab"):
        for question, arms in keypoints.list_ablations(profile, lab).items():
            for arm in arms[1:]:
                differing = [name for name in ("family", "size", "hyp", "epochs", "settings", "points", "flip")
                             if getattr(arm, name) != getattr(arms[0], name)]
                if arm.weights != arms[0].weights and "size" not in differing:
                    differing.append("weights")  # a network comes with weights of its own
                assert len(differing) == 1, (profile, question, arm)


def test_what_the_skeleton_has_not_is_not_asked(lab: PoseLab) -> None:
    assert {"mirror", "flip test"} <= set(keypoints.list_ablations("demo", lab)) and (
        "half body" not in keypoints.list_ablations("demo", lab))  # it has no parts
    plain = Skeleton(tuple(replace(point, flip=None) for point in SKELETON.keypoints))
    assert set(keypoints.list_ablations("demo", replace(lab, skeleton=plain))) == {"pretraining", "rotation and scale"}


def test_the_guess_is_judged_by_the_points_that_are_asked_for(lab: PoseLab) -> None:
    result = pose_lab.PoseResult(replace(TINY, points=("head",)), 0, shift(lab.judged[2], 0.0), pd.DataFrame(),
                                 Path("w"), {}, {})
    truth = lab.judged[2][lab.judged[2]["keypoint"] == "head"]
    expected = find_errors(truth, pose_results.guess_points(lab))["error"].mean()
    assert pose_results.judge_pose_results(lab, [result])[GUESS][0].scores["pixels"] == pytest.approx(expected)


def test_poses_are_ranked_by_their_points_and_not_by_their_order(tmp_path: Path) -> None:
    images, boxes, points = draw_tables(tmp_path, 4)
    wrong = points["image_id"].isin(["0.png", "1.png"])
    found = shift(points, 0.0).assign(x=points["x"] + np.where(wrong, 40.0, 0.0),
                                      confidence=np.where(wrong, 0.2, 0.9))
    scores = [judge_poses(images, (boxes, points), (order, found), SKELETON, draw_gain_counts(images, 0)).scores["OKS"]
              for order in (boxes, boxes.iloc[::-1])]
    assert scores == pytest.approx([0.5] * 2)  # the two right ones first: recall .5 at precision 1


def test_other_pictures_are_another_training_and_other_judges_are_not(
    lab: PoseLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []
    monkeypatch.setattr(pose_lab, "run_step", lambda step, *args, **options: keys.append(step))
    monkeypatch.setattr(pose_lab, "read_table", lambda path: pd.DataFrame())
    monkeypatch.setattr(pose_lab, "read_records", lambda root: pytest.fail("nothing was trained"))
    archive = Path(lab.images["archive"][0])
    for changed in (None, lab.train_ids[0], lab.judged_ids[0]):
        if changed:
            Image.new("RGB", (SIDE, SIDE)).save(archive / changed)
        with pytest.raises(pytest.fail.Exception):
            pose_lab.train_pose_arm(lab, TINY, 0)
    trainings, points = keys[::2], keys[1::2]
    assert trainings[0] != trainings[1] == trainings[2] and len(set(points)) == 3


def test_arms_of_one_training_have_one_key(lab: PoseLab) -> None:
    key = pose_lab.find_training(lab, TINY, 0)
    assert key == pose_lab.find_training(lab, replace(TINY, name="another", flip=True), 0)
    others = [replace(TINY, hyp={"degrees": 5.0}), replace(TINY, epochs=0.5), replace(TINY, settings={"batch": 2})]
    assert key not in [pose_lab.find_training(lab, TINY, 1), *(pose_lab.find_training(lab, arm, 0) for arm in others)]


def test_points_are_found_again_where_weights_are_others(lab: PoseLab, monkeypatch: pytest.MonkeyPatch) -> None:
    brief = replace(lab, scale=replace(SCALE, epochs=1))
    first = pose_lab.train_pose_arm(brief, TINY, 0)
    first.weights.unlink()
    other = pose_lab.train_pose_arm(brief, replace(TINY, name="other", hyp={"degrees": 5.0}), 0).weights.read_bytes()

    def put(lab: PoseLab, arm: PoseArm, config: object, kept: list[Path]) -> dict[str, float]:
        kept[1].write_bytes(other)
        return {}

    monkeypatch.setattr(pose_lab, "_train", put)
    again = pose_lab.train_pose_arm(brief, TINY, 0)
    assert not again.keypoints[["x", "y"]].equals(first.keypoints[["x", "y"]])


def test_a_competition_without_a_skeleton_is_refused_where_data_are_named(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    run = make_run(workspace=tmp_path / "ws", profile="demo", data=tmp_path / "raw")
    with pytest.raises(BadData, match="expected a skeleton, the keypoints of its classes, found none"):
        keypoints.open_pose_lab(run, "topdown")


def test_figures_have_a_title_and_labels(lab: PoseLab) -> None:
    images, boxes, points = lab.judged
    errors = find_errors(points, shift(points, 2.0))
    chosen, notes = pose_results.choose_extremes(errors, 1)
    history = pd.DataFrame({"epoch": [0, 1], "train_maps_loss": [0.2, 0.1]})
    scores = pd.DataFrame({"arm": ["a", "b"], "seed": [0, 0], "pixels": [3.0, 4.0]})
    pictures = [np.zeros((SIDE, SIDE, 3), np.uint8)]
    figures = [
        plots.plot_objects(images, boxes, points, SKELETON, title="objects", found=shift(points, 2.0), notes=notes),
        plots.plot_objects(images, boxes.head(0), points, SKELETON, title="nothing"),
        plots.plot_maps(pictures, [np.zeros((16, 16))], ["epoch 1"], title="maps"),
        plots.plot_errors({"arm": errors}, title="errors"),
        plots.plot_histories({"arm": [history]}, "train_maps_loss", title="losses", label="loss"),
        plots.plot_pose_arms(scores, "pixels", title="arms", label="px"),
        plots.plot_by_keypoint(pose_results.summarise_by_keypoint(errors, NAMES), title="by keypoint")]
    for drawn in figures:
        axes = drawn.flat[0] if isinstance(drawn, np.ndarray) else drawn
        axes.figure.canvas.draw()
        assert axes.get_title(loc="left") or axes.get_title() or axes.figure.get_suptitle()
        assert isinstance(drawn, np.ndarray) or axes.get_xlabel()
    plt.close("all")
    assert notes[chosen[0]] == "2.0 px" and GUESS in pose_results.list_errors(lab, [])


def test_found_points_are_drawn_where_they_are(lab: PoseLab) -> None:
    images, boxes, points = lab.judged
    axes = plots.plot_objects(images, boxes.head(1), points, SKELETON, title="one", found=shift(points, 2.0))
    own = points[points["box_id"] == boxes["box_id"].iloc[0]]
    crosses = [line.get_xydata()[0] for line in axes.flat[0].lines if line.get_marker() == "x"]
    # The picture's first pixel has its middle at (0, 0) in a figure.
    assert np.array(crosses) == pytest.approx(own[["x", "y"]].to_numpy() + [2.0 - 0.5, -0.5])
    plt.close("all")
