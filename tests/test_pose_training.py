"""Training of keypoints on tiny drawn pictures, for real: it learns, goes on after a kill, ends early, starts well."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from small_poses import FACE, NOSE, draw_pose_set
from test_training import assert_same, train_here

from livestock.config import REPOSITORY, Keypoint, Skeleton
from livestock.data.pose_set import read_objects
from livestock.evaluation.pixel import SHARE, find_errors, find_mean_pose, guess_mean_pose
from livestock.exceptions import BadData
from livestock.models.base import PoseFamily
from livestock.models.checkpoint import load_model, read_checkpoint
from livestock.models.forward import load_for_inference, wrap_model
from livestock.models.heatmap import PROJECT, HeatMapFamily
from livestock.models.registry import get_family
from livestock.models.topdown import DECONV, TopDownFamily
from livestock.poses import find_poses
from livestock.training import TrainConfig, loop, read_history, resume, train
from livestock.training.pose_scores import validate_poses
from livestock.training.start import build_start
from livestock.training.task import BOXES, KEYPOINTS, find_task

FAMILIES = ["heatmap", "topdown"]
TINY = "test_efficientnet"


@pytest.fixture(scope="module", autouse=True)
def narrow_heads() -> Iterator[None]:
    """Heads of the same layers with fewer channels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HeatMapFamily, "usual", {**PROJECT, "channels": [32, 32, 16, 16]})
        patch.setattr(TopDownFamily, "usual", {**DECONV, "channels": [32, 32, 32]})
        yield


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pose_set(tmp_path_factory.mktemp("faces"), n=16, skeleton=FACE)


def make_config(data_yaml: Path, family: str, **changes: object) -> TrainConfig:
    settings = {"data_yaml": str(data_yaml), "weights": "", "hyp": str(REPOSITORY / f"hyp/{family}.yaml"), "imgsz": 64,
                "batch": 5, "nominal_batch": 5, "epochs": 2, "family": family, "size": TINY, "optimizer": "Adam",
                "device": "cpu", "workers": 0}
    return TrainConfig(**{**settings, **changes})  # type: ignore[arg-type]


def write_hyp(path: Path, family: str, **changes: float) -> str:
    """The family's file of hyper-parameters with other values."""
    text = (REPOSITORY / f"hyp/{family}.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.split(":")[0] not in changes]
    path.write_text("\n".join([*lines, *(f"{name}: {value}" for name, value in changes.items())]), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module", params=FAMILIES)
def config(request: pytest.FixtureRequest, faces: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """With all that is random but half bodies: this skeleton has no parts."""
    hyp = write_hyp(tmp_path_factory.mktemp("hyp") / "own.yaml", request.param, fliplr=0.5)
    return make_config(faces, request.param, hyp=hyp)


@pytest.fixture(scope="module")
def undisturbed(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    train_here(config, run_dir)
    return run_dir


def stop_after(n_epochs: int) -> Callable[[dict], None]:
    def stop(event: dict) -> None:
        if event.get("epochs_done") == n_epochs and "epoch" in event:
            raise KeyboardInterrupt

    return stop


def test_each_family_has_its_task() -> None:
    assert [find_task(get_family(name)) for name in FAMILIES] == [KEYPOINTS, KEYPOINTS]
    assert find_task(get_family("retinanet")) == BOXES


def test_a_training_leaves_history_and_weights(config: TrainConfig, undisturbed: Path) -> None:
    history = read_history(undisturbed)
    assert history["epoch"].tolist() == [0, 1] and np.isfinite(history).all(axis=None)
    assert {"PCK", "NME", "pixels", "median", "train_maps_loss", "val_maps_loss", "lr"} <= set(history)
    best = read_checkpoint(undisturbed / "weights/best.safetensors")
    assert best.header["NME"] == history["NME"].min() and best.header["epoch"] == history["NME"][::-1].idxmin()
    parts = best.config.architecture
    assert (list(parts["points"]), list(parts["flips"])) == (["nose", "left", "right"], [0, 2, 1])
    loaded = load_for_inference(undisturbed / "weights/averaged.safetensors", "cpu")
    images, boxes, keypoints = read_objects(Path(config.data_yaml), "val").tables
    errors = find_errors(keypoints, find_poses(loaded, images, boxes, flip=True))
    assert len(errors) == 12 and errors["error"].notna().all()


def test_a_training_that_was_cut_off_goes_on_as_if_it_had_not_been(
    config: TrainConfig, undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_here(config, run_dir, stop_after(1))
    assert len(read_history(run_dir)) == 1
    caplog.set_level("INFO")
    train_here(config, run_dir)
    assert "resuming from" in caplog.text
    assert_same(run_dir, undisturbed)


def test_two_workers_and_a_process_of_its_own_give_the_same_numbers(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TopDownFamily, "usual", DECONV)  # that process has no other
    own = make_config(faces, "topdown", epochs=1)
    train_here(own, tmp_path / "here")
    rows: list[dict[str, float]] = []
    history = train(replace(own, workers=2), tmp_path / "there", rows.append)
    pd.testing.assert_frame_equal(pd.DataFrame(rows), history)
    names = ["train_maps_loss", "val_maps_loss", "NME"]
    np.testing.assert_allclose(history[names], read_history(tmp_path / "here")[names], rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_what_it_sees(family: str, tmp_path: Path) -> None:
    """Eight crosses by heart: far nearer than the mean place, which is what a guess is worth."""
    data_yaml = draw_pose_set(tmp_path / "crosses", n=8, n_valid=0)
    hyp = write_hyp(tmp_path / "hyp.yaml", family, lr0=0.005, sigma=6.0, degrees=0, scale=0, translate=0, hsv_h=0,
                    hsv_s=0, hsv_v=0)
    own = make_config(data_yaml, family, hyp=hyp, epochs=30, batch=4, nominal_batch=4, save=False)
    config = get_family(family).configure(["cat"], 64, "lite0")
    light = replace(config, architecture={**config.architecture, "backbone": TINY, "channels": [32, 32]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(get_family(family)), "configure", lambda *_: light)
        train_here(own, tmp_path / "run")
    images, boxes, keypoints = read_objects(data_yaml).tables
    guess = guess_mean_pose(find_mean_pose(boxes, keypoints), boxes)
    history = read_history(tmp_path / "run")
    assert history["pixels"].iloc[-1] < 0.25 * find_errors(keypoints, guess)["error"].mean()
    assert history["PCK"].iloc[-1] > 0.7 > history["PCK"].iloc[0]


def test_patience_ends_a_training_whose_error_no_longer_falls(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors .5 .4 .45 .4 .6: two epochs after the second none was better."""
    errors = iter([0.5, 0.4, 0.45, 0.4, 0.6])
    monkeypatch.setattr(loop, "find_task", lambda family: replace(
        KEYPOINTS, validate=lambda *_: {"NME": next(errors)}))
    own = make_config(faces, "topdown", epochs=9, patience=2)
    train_here(own, tmp_path / "run")
    assert read_history(tmp_path / "run")["NME"].tolist() == [0.5, 0.4, 0.45, 0.4]
    assert resume.is_finished(tmp_path / "run", own)
    assert read_checkpoint(tmp_path / "run/weights/best.safetensors").header["epoch"] == 3  # the later of equals
    assert not (tmp_path / "run/weights/last.safetensors").exists()
    train_here(own, tmp_path / "run")  # nothing is left to do
    assert len(read_history(tmp_path / "run")) == 4


def test_patience_counts_over_a_kill(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = iter([0.5, 0.6, 0.7, 0.8])
    monkeypatch.setattr(loop, "find_task", lambda family: replace(KEYPOINTS, validate=lambda *_: {"NME": next(errors)}))
    own = make_config(faces, "topdown", epochs=9, patience=2)
    with pytest.raises(KeyboardInterrupt):
        train_here(own, tmp_path / "run", stop_after(2))
    train_here(own, tmp_path / "run")
    assert read_history(tmp_path / "run")["NME"].tolist() == [0.5, 0.6, 0.7]
    errors = iter([0.5, 0.6, 0.7, 0.8])
    train_here(replace(own, resumes=False), tmp_path / "short")  # leaves its last weights alone
    assert [path.name for path in sorted((tmp_path / "short/weights").glob("*"))] == [
        "averaged.safetensors", "epoch0002.safetensors"]


@pytest.mark.parametrize(("rows", "patience", "expected"), [
    ([], 1, False), ([0.3], 1, False), ([0.3, 0.3], 1, True), ([0.3, 0.2], 1, False), ([0.3, 0.2, 0.25], 0, False),
    ([0.3, 0.2, 0.25], 2, False), ([0.3, 0.2, 0.25, 0.2], 2, True), ([0.3] * 9, 0, True)])
def test_a_training_is_over_after_so_many_epochs_without_a_better_one(
    rows: list[float], patience: int, expected: bool
) -> None:
    own = TrainConfig("", "", "", imgsz=64, batch=2, epochs=9, patience=patience)
    assert resume.is_over([{"NME": error} for error in rows], own) == expected
    assert resume.is_over([{"AP": 1 - error, "NME": 0.0} for error in rows], own) == expected


# --- what it starts from

def test_start_weights_move_with_the_names_of_the_points(
    undisturbed: Path, config: TrainConfig, tmp_path: Path
) -> None:
    other = Skeleton((Keypoint("cat", "right", 0), Keypoint("cat", "tail", 1), Keypoint("cat", "nose", 2)))
    objects = read_objects(draw_pose_set(tmp_path, n=4, skeleton=other, n_valid=0))
    weights = undisturbed / "weights/best.safetensors"
    family = get_family(config.family)
    found_config, model = build_start(replace(config, weights=str(weights)), family, objects, {})
    assert list(found_config.architecture["points"]) == ["right", "tail", "nose"]
    assert list(found_config.architecture["flips"]) == []
    _, old = load_model(weights)
    before, after = old.state_dict(), model.state_dict()
    for name in ("last.weight", "last.bias"):
        torch.testing.assert_close(after[name][[0, 2]], before[name].float()[[2, 0]])
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items() if not name.startswith("last."))
    history = train_and_read(replace(config, weights=str(weights), epochs=1, data_yaml=str(tmp_path / "set/data.yaml"),
                                     hyp=str(REPOSITORY / f"hyp/{config.family}.yaml")), tmp_path / "run")
    assert len(history) == 1


def train_and_read(config: TrainConfig, run_dir: Path) -> pd.DataFrame:
    train_here(config, run_dir)
    return read_history(run_dir)


def test_weights_of_another_family_are_refused(undisturbed: Path, config: TrainConfig, tmp_path: Path) -> None:
    other = next(name for name in FAMILIES if name != config.family)
    own = replace(config, family=other, weights=str(undisturbed / "weights/best.safetensors"))
    with pytest.raises(BadData, match=f"expected weights of the family {other}, found {config.family}; train with"):
        train_here(own, tmp_path / "run")


def test_mirrors_without_mirror_images_end_the_training(faces: Path, tmp_path: Path) -> None:
    plain = Skeleton((Keypoint("cat", "nose", 0),))
    own = make_config(draw_pose_set(tmp_path / "plain", n=4, skeleton=plain, n_valid=0), "heatmap",
                      hyp=write_hyp(tmp_path / "hyp.yaml", "heatmap", fliplr=0.5))
    with pytest.raises(ValueError, match="fliplr: expected 0, since the skeleton has no `flip`"):
        train_here(own, tmp_path / "run")


# --- scores

@pytest.mark.parametrize("n_points", [1, 18])
def test_scores_are_those_of_a_loop_and_unlabelled_points_are_none(n_points: int, tmp_path: Path) -> None:
    skeleton = Skeleton(tuple(Keypoint("cat", f"p{k}", k) for k in range(n_points)))
    data_yaml = draw_pose_set(tmp_path, n=5, skeleton=skeleton, n_valid=0)
    path = data_yaml.parent / "keypoints.parquet"
    table = pd.read_parquet(path)
    if n_points > 1:  # every third point is not labelled, and lies nowhere
        gone = np.arange(len(table)) % 3 == 0
        table = table.assign(x=table["x"].mask(gone), y=table["y"].mask(gone), visible=table["visible"].mask(gone, 0))
        table.to_parquet(path)
    objects, config = read_objects(data_yaml), make_config(data_yaml, "topdown", batch=2)
    family = get_family("topdown")
    assert isinstance(family, PoseFamily)
    model_config, model = build_start(config, family, objects, {})
    model.eval()
    scores = validate_poses(model, model_config, family, family.make_loss(model, {}), objects, config, "cpu")
    images, boxes, _ = objects.tables
    found = find_poses(wrap_model(family, model_config, model, "cpu"), images, boxes).set_index(["box_id", "keypoint"])
    errors, shares = [], []
    for _, row in table[table["visible"] > 0].iterrows():
        own, box = found.loc[(row["box_id"], row["keypoint"])], boxes.set_index("box_id").loc[row["box_id"]]
        errors.append(np.hypot(own["x"] - row["x"], own["y"] - row["y"]))
        shares.append(errors[-1] / np.hypot(box["x_max"] - box["x_min"], box["y_max"] - box["y_min"]))
    assert scores["pixels"] == pytest.approx(np.mean(errors)) and scores["median"] == pytest.approx(np.median(errors))
    assert scores["NME"] == pytest.approx(np.mean(shares))
    assert scores["PCK"] == pytest.approx(np.mean(np.array(shares) <= SHARE))
    assert len(errors) == (5 if n_points == 1 else 60) and np.isfinite(scores["val_maps_loss"])


def test_one_object_trains(tmp_path: Path) -> None:
    """A batch of one, in an epoch of one batch."""
    own = make_config(draw_pose_set(tmp_path / "one", n=1, skeleton=NOSE, n_valid=0), "heatmap", batch=16,
                      nominal_batch=64, epochs=1)
    assert np.isfinite(train_and_read(own, tmp_path / "run")).all(axis=None)
    assert json.loads((tmp_path / "run/history.jsonl").read_text())["epoch"] == 0
