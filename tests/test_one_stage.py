"""Questions of one-stage pose: arms that differ in one thing, what a training leaves, one look beside two."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_yolo_pose import draw_set

if find_spec("ultralytics") is None:
    pytest.skip("pip install --no-deps ultralytics-opencv-headless==8.4.190", allow_module_level=True)

from livestock.config import Keypoint, Skeleton
from livestock.evaluation.pixel import find_errors
from livestock.pipeline import one_stage, pose_lab, pose_results
from livestock.pipeline.pose_lab import PoseArm, PoseLab, PoseResult, PoseScale
from livestock.tables import make_boxes, read_table

NAMES = ("snout", "left", "right")
SKELETON = Skeleton(tuple(Keypoint(label, name, index, flip) for label in ("pig", "cow") for index, (name, flip)
                          in enumerate(zip(NAMES, ("snout", "right", "left"), strict=True))))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> PoseLab:
    folder = draw_set(tmp_path_factory.mktemp("drawn"), n=8).parent
    images, boxes, keypoints = (read_table(folder / f"{name}.parquet") for name in ("images", "boxes", "keypoints"))
    images = images.assign(group=range(8))
    ids = images["image_id"].tolist()
    scale = PoseScale(100, 100, imgsz=64, batch=2, epochs=1, n_seeds=1, device="cpu")
    return PoseLab(tmp_path_factory.mktemp("lab"), scale, images, boxes, keypoints, SKELETON, ids[:5], ids[5:])


def test_arms_differ_from_the_first_in_one_thing(lab: PoseLab) -> None:
    for profile in ("cpu", "colab"):
        questions = one_stage.list_questions(profile, lab)
        for question, arms in questions.items():
            names = [arm.name for arm in arms]
            assert len(set(names)) == len(names) > 1
            values = [pose_lab.read_pose_values(arm) for arm in arms]
            for arm, own in zip(arms[1:], values[1:], strict=True):
                changed = {name for name in own if own[name] != values[0][name]}
                others = [part for part in ("size", "family", "weights", "epochs", "points", "flip")
                          if getattr(arm, part) != getattr(arms[0], part)]
                if question == "loss of places":
                    assert others == [] and changed <= set(one_stage.LOSSES)
                elif question == "optimizer":
                    assert others == [] and changed <= {"lr0"}
                elif question == "size":
                    assert others == ["size", *(["weights"] if profile == "colab" else [])] and not changed
                elif question == "start":
                    assert others == ["weights"] and arm.weights == "" and not changed
                else:
                    assert others == [] and changed
                    assert changed <= {"mosaic", "box", "dfl", "cls", "kobj", "fliplr", *one_stage.LOSSES}
        assert {sum(pose_lab.read_pose_values(arm)[name] for name in one_stage.LOSSES)
                for arm in questions["loss of places"]} == {one_stage.WEIGHT}


def test_mirror_images_are_asked_about_only_where_there_are_any(lab: PoseLab) -> None:
    plain = Skeleton(tuple(replace(point, flip=None) for point in SKELETON.keypoints))
    assert "mirror" in one_stage.list_questions("cpu", lab)
    assert "mirror" not in one_stage.list_questions("cpu", replace(lab, skeleton=plain))


def test_demo_asks_some_of_the_questions_and_weights_can_be_named(lab: PoseLab) -> None:
    every = one_stage.list_questions("smoke", lab, "mine.pt")
    assert list(one_stage.list_questions("demo", lab)) == [name for name in every if name in one_stage.IN_DEMO]
    assert set(one_stage.IN_DEMO) < set(every)
    for arms in every.values():
        assert {arm.weights for arm in arms if "random" not in arm.name} <= {"mine.pt"}
        assert all(arm.weights == "" for arm in arms if "random" in arm.name)


def test_a_training_leaves_objects_and_points(lab: PoseLab) -> None:
    arm = one_stage.choose_base("demo")
    result = pose_lab.train_pose_arm(lab, arm, 0)
    assert result.objects is not None
    boxes, points = result.objects
    assert set(points["box_id"]) == set(boxes["box_id"]) and set(points["keypoint"]) <= set(NAMES)
    assert set(result.keypoints["box_id"]) <= set(lab.judged[1]["box_id"])
    assert {"box_AP50", "box_AP75", "milliseconds", "parameters"} <= set(result.facts)
    again = pose_lab.train_pose_arm(lab, arm, 0)
    assert again.facts == result.facts
    pd.testing.assert_frame_equal(again.keypoints, result.keypoints)
    judged = pose_results.judge_pose_results(lab, [result])
    table = pose_results.tabulate_poses([result], judged)
    assert "OKS" in one_stage.show_tables({"size": table})


def test_runtimes_are_timed(lab: PoseLab) -> None:
    times = one_stage.time_runtimes(lab, lab.root / "exported", ["yolov5n"])
    assert times[["runtime", "threads"]].to_numpy().tolist() == [
        [name, n] for name in ("PyTorch", "ONNX", "ONNX int8") for n in (1, 2)]
    assert (times["milliseconds"] > 0).all()


def see_all(lab: PoseLab, shift: float, *, doubled: bool = False) -> PoseResult:
    """A result in which each true object is found, its points so many pixels to the right; `doubled` with a false one
    each, more confident, somewhere else."""
    _, boxes, keypoints = lab.judged
    found = boxes.assign(box_id=boxes["box_id"] + 1000, confidence=0.5, source="model")
    moved = keypoints.assign(x=keypoints["x"] + shift, source="model", confidence=0.5)
    points = moved.assign(box_id=moved["box_id"] + 1000)
    if doubled:
        wrong = found.assign(box_id=found["box_id"] + 1000, confidence=0.9, y_min=0.0, y_max=8.0)
        found = pd.concat([found, wrong], ignore_index=True)
        points = pd.concat([points, points.assign(box_id=points["box_id"] + 1000, y=4.0)], ignore_index=True)
    arm = PoseArm("seen", "yolo_pose", "yolov8n")
    return PoseResult(arm, 0, moved, pd.DataFrame(), Path("none"), {}, {}, (found, points))


def test_false_objects_cost_oks_and_no_pixels(lab: PoseLab) -> None:
    """COCO's AP of poses is that of all objects that were found; errors are those of the objects that are there."""
    right, doubled = see_all(lab, 0.0), see_all(lab, 0.0, doubled=True)
    scores = [pose_results.judge_pose_results(lab, [result])["seen"][0].scores for result in (right, doubled)]
    assert scores[0]["OKS"] == pytest.approx(1) and scores[1]["OKS"] < 0.6
    assert scores[0]["pixels"] == scores[1]["pixels"] == 0 and scores[0]["PCK"] == scores[1]["PCK"] == 1


def test_one_result_a_row(lab: PoseLab) -> None:
    ids = lab.judged[1]["box_id"].tolist()[:2]
    results = [see_all(lab, 0.0), see_all(lab, 5.0)]
    shown, truth, found, notes = one_stage.lay_side_by_side(lab, results, ids)
    assert shown["box_id"].tolist() == [0, 1, 2, 3] and notes == {0: "seen", 1: "seen", 2: "seen", 3: "seen"}
    assert len(truth) == len(found) == 12
    errors = find_errors(truth, found)
    np.testing.assert_allclose(errors.groupby("box_id")["error"].mean(), [0, 0, 5, 5])


def test_top_down_in_the_boxes_that_one_look_found(lab: PoseLab) -> None:
    two = pose_lab.train_pose_arm(lab, PoseArm("two", "topdown", "mobilenetv3_small_050"), 0)
    one = see_all(lab, 3.0)
    errors = one_stage.compare_with_topdown(lab, one, two)
    assert list(errors) == ["one look", "top-down, in its boxes", "top-down, in true boxes"]
    np.testing.assert_allclose(errors["one look"]["error"], 3)
    np.testing.assert_allclose(errors["top-down, in its boxes"]["error"], errors["top-down, in true boxes"]["error"])
    blind = replace(one, objects=(make_boxes([]), one.keypoints.iloc[:0]))
    assert one_stage.compare_with_topdown(lab, blind, two)["top-down, in its boxes"]["error"].isna().all()
