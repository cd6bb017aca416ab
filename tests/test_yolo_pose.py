"""One-stage pose: the package's loss number by number, its points, what is trained on and what is refused."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from typer.testing import CliRunner

if find_spec("ultralytics") is None:
    pytest.skip("pip install --no-deps ultralytics-opencv-headless==8.4.190", allow_module_level=True)

from livestock import export
from livestock.cli import app
from livestock.config import REPOSITORY, Keypoint, Skeleton
from livestock.data.pose_set import read_pose_images, write_pose_set
from livestock.evaluation.oks import evaluate_oks
from livestock.exceptions import BadData, UnsafeWeights
from livestock.inference import find_candidates
from livestock.models.base import Batch, Predictions, load_matching
from livestock.models.checkpoint import read_checkpoint, write_checkpoint
from livestock.models.forward import load_for_inference, wrap_model
from livestock.models.loaded import LoadedModel
from livestock.models.registry import get_family
from livestock.models.yolo_pose import OFFICIAL, SIZES, YoloPoseFamily
from livestock.models.yolov5.library import STARTER
from livestock.poses import find_poses
from livestock.postprocess import suppress
from livestock.tables import make_boxes, make_images, make_keypoints
from livestock.training import TrainConfig, read_history
from livestock.training.loop import run_training
from livestock.training.task import BOTH, find_task

FAMILY = YoloPoseFamily()
NAMES = ["snout", "left", "right"]
SIDE = 128


def configure(size: str = "yolov8n", sigmas: tuple[float, ...] = (0.05, 0.1, 0.2)) -> Any:
    config = FAMILY.configure(["pig", "cow"], SIDE, size)
    own = {"points": NAMES, "flips": [0, 2, 1], "sigmas": sigmas}
    return replace(config, architecture={**config.architecture, **own})


def build(size: str = "yolov8n", **settings: Any) -> Any:
    torch.manual_seed(0)
    return FAMILY.build(configure(size, **settings))


def draw_batch(*, empty: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(1)
    boxes = [torch.tensor([[16.0, 32, 80, 80], [60, 10, 110, 60]]), torch.tensor([[40.0, 40, 104, 104]])]
    points = [torch.rand(len(own), 3, 3, generator=generator) * 60 + 30 for own in boxes]
    for own in points:
        own[..., 2] = 2
    points[0][0, 1, 2] = 0  # not labelled
    if empty:
        boxes[1], points[1] = torch.zeros(0, 4), torch.zeros(0, 3, 3)
    images = torch.rand(2, 3, SIDE, SIDE, generator=generator)
    return Batch(images, boxes, [torch.tensor([0, 1]), torch.tensor([1])[:len(boxes[1])]], points)


@pytest.mark.parametrize("size", ["yolov8n", "yolo11n", "yolo26n"])
@pytest.mark.parametrize("empty", [False, True])
def test_the_loss_is_the_packages(size: str, empty: bool) -> None:
    """With its own sigmas, 1 / K, by which YOLO26 assigns too, and its weights; its loss is summed over the images."""
    from ultralytics.cfg import get_cfg

    batch, model = draw_batch(empty=empty), build(size, sigmas=(1 / 3, 1 / 3, 1 / 3))
    model.train()
    ours = FAMILY.make_loss(model, {"oks": 0.0, "oks_even": 12.0})(model, batch)
    own = build(size)
    own.train()
    del own.kpt_oks_sigmas  # its own are the default
    own.args = get_cfg()
    sizes = torch.tensor([SIDE, SIDE, SIDE, SIDE])
    corners, points = torch.cat(batch.boxes), torch.cat(batch.keypoints or [])
    centres = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
    total, _ = own.loss({
        "img": batch.images, "batch_idx": torch.tensor([0.0, 0, 1][:len(corners)]),
        "cls": torch.cat(batch.class_ids)[:, None].float(), "bboxes": centres / sizes,
        "keypoints": torch.cat([points[..., :2] / SIDE, points[..., 2:]], -1)})
    names = ["box", "pose", "kobj", "cls", *(["l1", "rle"] if size == "yolo26n" else ["dfl"])]
    assert list(ours) == names
    torch.testing.assert_close(torch.stack(list(ours.values())) * len(batch), total)


def test_weights_of_the_losses_are_used_one_by_one() -> None:
    batch, model = draw_batch(), build()
    model.train()

    def find(**weights: float) -> dict[str, float]:
        none = dict.fromkeys(FAMILY.keypoint_losses, 0.0)
        found = FAMILY.make_loss(model, {**none, **weights})(model, batch)
        return {name: float(value.detach()) for name, value in found.items()}

    assert find()["pose"] == 0
    for name in FAMILY.keypoint_losses:
        assert find(**{name: 2.0})["pose"] == pytest.approx(2 * find(**{name: 1.0})["pose"]) != 0
    both = find(oks=1.0, l1=1.0)["pose"]
    assert both == pytest.approx(find(oks=1.0)["pose"] + find(l1=1.0)["pose"])
    for name in ("box", "cls", "dfl", "kobj"):
        usual = FAMILY.defaults[name]
        assert find(**{name: 3 * usual})[name] == pytest.approx(3 * find()[name]) != 0


def test_a_point_that_is_not_labelled_is_nowhere() -> None:
    batch, model = draw_batch(), build()
    model.train()
    compute = FAMILY.make_loss(model, {"l1": 1.0})
    before = compute(model, batch)
    assert batch.keypoints is not None
    batch.keypoints[0][0, 1, :2] = 0
    assert all(torch.equal(value, before[name]) for name, value in compute(model, batch).items())
    batch.keypoints[0][0, 2, :2] = 0  # labelled, so (0, 0) is a place
    assert not torch.equal(compute(model, batch)["pose"], before["pose"])


@pytest.mark.parametrize("size", SIZES)
def test_predictions_are_the_packages(size: str) -> None:
    model, images = build(size).eval(), torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        found, (library, _) = FAMILY.predict(model, images), model(images)
    assert found.keypoints is not None
    half = library[:, 2:4] / 2
    expected = torch.cat([library[:, :2] - half, library[:, :2] + half, library[:, 4:]], 1).transpose(1, 2)
    ours = torch.cat([found.boxes, found.scores, found.keypoints.flatten(-2)], -1)
    torch.testing.assert_close(ours, expected)
    assert found.keypoints.shape[2:] == (3, 3) and found.scores.shape[2] == 2


def test_every_part_learns() -> None:
    for size in SIZES[::2]:
        model = build(size)
        model.train()
        parts = FAMILY.make_loss(model, {})(model, draw_batch())
        torch.stack(list(parts.values())).sum().backward()
        unused = [name for name, parameter in model.named_parameters()
                  if parameter.requires_grad and (parameter.grad is None or not parameter.grad.isfinite().all())]
        assert not unused, size


def test_a_loss_needs_keypoints() -> None:
    model = build()
    with pytest.raises(BadData, match="expected keypoints of its boxes, found none"):
        FAMILY.make_loss(model, {})(model, replace(draw_batch(), keypoints=None))


@pytest.mark.parametrize("changes", [
    {"size": "yolov8x"}, {"points": []}, {"points": ["a", "a", "b"]}, {"flips": [1, 2, 0]}, {"sigmas": [0.1, 0.1]},
    {"sigmas": [0.1, 0.1, 0.0]}, {"sigmas": [0.1, 0.1, float("nan")]}, {"owners": [[0], [1], [2]]}, {"crop": "fit"},
    {"size": ["yolov8n"]}, {"points": [str(number) for number in range(201)]}])
def test_an_impossible_config_is_refused(changes: dict[str, Any]) -> None:
    config = configure()
    name = next(iter(changes))
    with pytest.raises(UnsafeWeights, match=f"yolo_pose: {name}: expected what a network of keypoints has there"):
        FAMILY.build(replace(config, architecture={**config.architecture, **changes}))


def test_an_unknown_size_lists_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="size: expected one of yolov8n, .*, yolov5s, found 'yolov9'"):
        FAMILY.configure(["pig"], 64, "yolov9")
    with pytest.raises(BadData, match="imgsz: expected a multiple of 32"):
        FAMILY.configure(["pig"], 100)
    with pytest.raises(ValueError, match="sizes yolov8n, .*, yolov8n-pose.pt and .* a detector: starter.safe"):
        FAMILY.find_pretrained("yolov9n-pose.pt", tmp_path)


def write_official(path: Path, size: str, **changes: Any) -> dict[str, torch.Tensor]:
    """A checkpoint as the package's trainer writes it, in half precision; returns its tensors."""
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import PoseModel

    torch.manual_seed(3)
    model = PoseModel(f"{size}-pose.yaml", ch=3, nc=1, verbose=False).half()
    model.args, model.names = get_cfg(), {0: "person"}
    torch.save({"model": model, "ema": None, "epoch": -1, "train_args": {"imgsz": 640}, **changes}, path)
    return model.state_dict()


@pytest.mark.parametrize("size", OFFICIAL)
def test_official_weights_are_read_without_running_anything(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = write_official(tmp_path / f"{size}-pose.pt", size)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("the pickle was loaded"))
    found = read_checkpoint(FAMILY.find_pretrained(f"{size}-pose.pt", tmp_path))
    assert found.config.labels == ("person",) and len(found.config.architecture["points"]) == 17
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())
    config = configure(size)
    report = load_matching(build(size), FAMILY.adapt(found.tensors, found.config, config))
    assert len(report.loaded) > 0.6 * len(tensors)
    assert all("cv3" in name or "cv4" in name or "flow" in name for name in report.random)


@pytest.mark.bad_input
def test_files_that_are_not_official_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "yolov8n-pose.pt"
    for content, message in (({"model": print}, "refused, it would run or load|expected a PoseModel"),
                             ({"model": torch.nn.Linear(2, 2)}, "expected a PoseModel, found Linear")):
        torch.save(content, path)
        with pytest.raises(UnsafeWeights, match=message):
            FAMILY.find_pretrained("yolov8n-pose.pt", tmp_path)
    write_official(path, "yolov8s")
    with pytest.raises(UnsafeWeights, match=r"yolov8n-pose.pt: model.0.conv.weight: expected \(16, 3, 3, 3\), found"):
        FAMILY.find_pretrained("yolov8n-pose.pt", tmp_path)


def test_without_a_network_it_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(ValueError, match=f"Download https://github.com/.*/yolo26n-pose.pt on a machine .*{tmp_path}/"):
        FAMILY.find_pretrained("yolo26n-pose.pt", tmp_path)


@pytest.mark.parametrize("size", ["yolov8n", "yolo26n"])
def test_start_weights_for_other_points_or_classes(size: str) -> None:
    """What is for points or classes stays random where these differ, and nothing else does."""
    state, config = build(size).state_dict(), configure(size)
    same = load_matching(build(size), FAMILY.adapt(state, config, config))
    assert not same.random and not same.unused
    other = replace(config, labels=("pig", "hen"))
    left_out = set(state) - set(FAMILY.adapt(state, config, other))
    assert left_out and all("cv3" in name for name in left_out)
    turned = replace(config, architecture={**config.architecture, "points": NAMES[::-1]})
    left_out = set(state) - set(FAMILY.adapt(state, config, turned))
    assert left_out and all("cv4" in name for name in left_out)


def test_a_detector_starts_all_but_the_last_layer() -> None:
    """What the last layer is given is what the detector's own last layer is given, of the same picture."""
    path = FAMILY.find_pretrained(STARTER.name, Path())
    found, config = read_checkpoint(path), configure("yolov5n")
    pose = build("yolov5n")
    report = load_matching(pose, FAMILY.adapt(found.tensors, found.config, config))
    assert not report.unused and all(name.startswith("model.24.") for name in report.random)
    detector = get_family("yolov5").build(found.config)
    detector.load_state_dict(found.tensors)
    given: list[list[torch.Tensor]] = []
    for model in (pose, detector):
        model.get_submodule("model.24").register_forward_pre_hook(lambda _, inputs: given.append(list(inputs[0])))
    images = torch.rand(1, 3, 96, 64)
    with torch.inference_mode():
        for model in (pose, detector):
            model.eval()(images)
    assert [value.shape[-2:] for value in given[0]] == [(12, 8), (6, 4), (3, 2)]
    torch.testing.assert_close(given[0], given[1])


@pytest.mark.bad_input
def test_a_detector_of_another_size_is_refused(data_yaml: Path, tmp_path: Path) -> None:
    for size in ("yolov8n", "yolov5s"):
        with pytest.raises(UnsafeWeights, match=f"YOLOv5 detector start yolov5n and yolov5s, .* not this {size}"):
            run_training(make_config(data_yaml, size=size, weights=str(STARTER)), tmp_path / size, lambda event: None)
    write_checkpoint(tmp_path / "own.safetensors", configure("yolov8n"), build("yolov8n").state_dict())
    with pytest.raises(BadData, match="expected weights of the size yolov5n, found yolov8n"):
        run_training(make_config(data_yaml, size="yolov5n", weights=str(tmp_path / "own.safetensors")),
                     tmp_path / "own", lambda event: None)
    large = get_family("yolov5").configure(["pig"], 64, "yolov5n6")  # as wide, with other layers
    state = get_family("yolov5").build(large).state_dict()
    with pytest.raises(ValueError, match="not this yolov5n"):
        FAMILY.adapt(state, large, configure("yolov5n"))


def test_a_training_begins_with_a_detector(data_yaml: Path, tmp_path: Path) -> None:
    """Its weights, and names of points and classes of its own."""
    config = make_config(data_yaml, size="yolov5n", weights=str(STARTER), hyp=write_hyp(
        tmp_path / "hyp.yaml", lr0=0.0001, warmup_bias_lr=0.0), epochs=1)
    run_training(config, tmp_path / "run", lambda event: None)
    found = read_checkpoint(tmp_path / "run/weights/averaged.safetensors")
    name = "model.17.cv3.conv.weight"
    torch.testing.assert_close(found.tensors[name].float(), read_checkpoint(STARTER).tensors[name].float(), atol=0.01,
                               rtol=0.0)
    assert found.config.architecture["points"] == NAMES and found.config.labels == ("pig", "cow")
    assert found.config.architecture["size"] == "yolov5n"


def test_importing_changes_no_setting_and_no_function_of_others() -> None:
    """In a process of its own, in which nothing is imported yet; no name of a host is looked up, no file is left."""
    code = """
import json, os, socket, sys, tempfile, warnings
import cv2, numpy as np, PIL.Image, torch, livestock.models.yolo_pose
def refuse(*args, **kwargs): raise AssertionError(f"asked for {args}")
socket.getaddrinfo = socket.socket.connect = refuse
def look(): return [dict(os.environ), id(torch.save), id(torch.load), id(cv2.imread), id(PIL.Image.open), sys.path[:],
    cv2.getNumThreads(), torch.get_num_threads(), str(np.get_printoptions()), len(warnings.filters), str(torch.ones(1))]
before = look()
from livestock.models.registry import get_family
family = get_family("yolo_pose")
family.build(family.configure(["pig"], 64))
assert look() == before, [pair for pair in zip(look(), before) if pair[0] != pair[1]]
print("unchanged")
"""
    home = Path(os.environ.get("TMPDIR", "/tmp")) / f"home_{os.getpid()}"  # noqa: S108
    home.mkdir()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,  # noqa: S603
                          env={**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "2"})
    files = [str(path) for path in home.rglob("*") if path.is_file() and "matplotlib" not in path.parts]
    assert done.stdout == "unchanged\n", done.stderr[-2000:]
    assert not files


# -- training --------------------------------------------------------------------------------------------------------


def draw_set(folder: Path, n: int = 6) -> Path:
    """Pictures of other shapes with two animals each: a bright box with a cross at each point."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, images, boxes, points = np.random.default_rng(0), [], [], []
    for index in range(n):
        picture, name = rng.integers(0, 60, (96, 128, 3), np.uint8), f"{index}.png"
        for number, left in enumerate((4, 68)):
            picture[20:80, left : left + 52] += 90
            box_id = 2 * index + number
            for place, keypoint in enumerate(NAMES):
                x, y = left + 10 + 15 * place, int(rng.integers(30, 70))
                cv2.circle(picture, (x, y), 4, [(250, 250, 250), (250, 20, 20), (20, 20, 250)][place], -1)
                points.append({"box_id": box_id, "image_id": name, "keypoint": keypoint, "x": x + 0.5, "y": y + 0.5})
            boxes.append({"box_id": box_id, "image_id": name, "label": ["pig", "cow"][number], "x_min": left,
                          "y_min": 20, "x_max": left + 52, "y_max": 80})
        PIL.Image.fromarray(picture).save(folder / name)
        images.append({"image_id": name, "archive": str(folder), "member": name, "width": 128, "height": 96})
    skeleton = Skeleton(tuple(Keypoint(label, name, index, flip) for label in ("pig", "cow") for index, (name, flip)
                              in enumerate(zip(NAMES, ("snout", "right", "left"), strict=True))))
    keypoints = make_keypoints(points)
    ids = [image["image_id"] for image in images]
    return write_pose_set(folder / "set", (make_images(images), make_boxes(boxes), keypoints), skeleton,
                          {"train": ids[:-2], "val": ids[-2:]})


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_set(tmp_path_factory.mktemp("pose"))


def make_config(data_yaml: Path, **changes: object) -> TrainConfig:
    settings = {"data_yaml": str(data_yaml), "weights": "", "hyp": str(REPOSITORY / "hyp/yolo_pose.yaml"),
                "imgsz": 96, "batch": 2, "nominal_batch": 2, "epochs": 2, "family": "yolo_pose", "size": "yolov8n",
                "device": "cpu", "workers": 0}
    return TrainConfig(**{**settings, **changes})  # type: ignore[arg-type]


def write_hyp(path: Path, **changes: float) -> str:
    text = (REPOSITORY / "hyp/yolo_pose.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.split(":")[0] not in changes]
    path.write_text("\n".join([*lines, *(f"{name}: {value}" for name, value in changes.items())]), encoding="utf-8")
    return str(path)


def test_the_list_has_whole_pictures_with_all_their_objects(data_yaml: Path) -> None:
    images = read_pose_images(data_yaml)
    assert len(images) == 4 and [len(own) for own in images.boxes] == [2] * 4
    assert images.points.names == tuple(NAMES) and images.points.flips == (0, 2, 1)
    assert [own.tolist() for own in images.class_ids] == [[0, 1]] * 4
    for index in range(4):
        pixels = images.read(index)
        for point in images.keypoints[index].reshape(-1, 3):
            assert pixels[int(point[1]), int(point[0])].max() == 250 and point[2] == 2
    assert find_task(get_family("yolo_pose")) == BOTH


def test_a_training_finds_boxes_and_points_and_goes_on_as_if_it_had_not_been_cut_off(
    data_yaml: Path, tmp_path: Path
) -> None:
    config = make_config(data_yaml, hyp=write_hyp(tmp_path / "hyp.yaml", fliplr=0.5, mosaic=0.5))
    run_training(config, tmp_path / "whole", lambda event: None)

    def stop(event: dict[str, Any]) -> None:
        if "epoch" in event:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(config, tmp_path / "cut", stop)
    run_training(config, tmp_path / "cut", lambda event: None)
    machine = ["seconds", "valid_seconds", "gigabytes"]
    whole, cut = (read_history(tmp_path / name).drop(columns=machine) for name in ("whole", "cut"))
    pd.testing.assert_frame_equal(whole, cut)
    assert {"AP", "PCK", "pixels", "train_pose_loss", "val_pose_loss"} <= set(whole)
    paths = [tmp_path / name / "weights/averaged.safetensors" for name in ("whole", "cut")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    loaded = load_for_inference(paths[0], "cpu")
    assert list(loaded.architecture["points"]) == NAMES and loaded.architecture["sigmas"]


def test_without_mirror_images_a_mirror_is_refused(tmp_path: Path) -> None:
    path = draw_set(tmp_path / "data")
    text = path.read_text().replace("flips:\n- 0\n- 2\n- 1\n", "flips: null\n")
    path.write_text(text)
    config = make_config(path, hyp=write_hyp(tmp_path / "hyp.yaml", fliplr=0.5))
    with pytest.raises(ValueError, match="fliplr, flipud: expected 0, since the skeleton has no `flip`"):
        run_training(config, tmp_path / "run", lambda event: None)


# -- prediction ------------------------------------------------------------------------------------------------------


def make_model(points: torch.Tensor, flips: list[int], owners: list[list[int]]) -> LoadedModel:
    """Sees one pig and, with less confidence, the same as a cow, whatever the picture is: `points` `(K, 3)`."""
    def run(images: torch.Tensor) -> Predictions:
        n = len(images)
        return Predictions(torch.tensor([[[10.0, 10, 50, 40]]]).repeat(n, 1, 1),
                           torch.tensor([[[0.9, 0.4]]]).repeat(n, 1, 1), points.repeat(n, 1, 1, 1))

    return LoadedModel(Path("drawn"), run, ["pig", "cow"], 32, imgsz=64, family="yolo_pose", architecture={
        "points": NAMES, "flips": flips, "owners": owners, "crop": ""})


@pytest.fixture
def images(tmp_path: Path) -> pd.DataFrame:
    """A picture of twice the side of the input."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (128, 128)).save(buffer, "png")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    return make_images([{"image_id": "a.png", "archive": str(tmp_path), "member": "a.png", "width": 128,
                         "height": 128}])


POINTS = torch.tensor([[12.0, 14.0, 0.5], [20, 30, 0.6], [90, -5, 0.7]])


def test_points_lie_in_the_original_image(images: pd.DataFrame) -> None:
    """Twice as large, and clipped to it; each box has its own, and those of a class alone where classes differ."""
    found = find_candidates(make_model(POINTS, [], []), images, ["pig", "cow"], imgsz=64)
    assert found.keypoints is not None
    assert found.boxes["label"].tolist() == ["pig", "cow"] and len(found.keypoints) == 6
    one = found.keypoints[found.keypoints["box_id"] == found.boxes["box_id"][0]]
    np.testing.assert_allclose(one[["x", "y"]], [[24, 28], [40, 60], [128, 0]])
    np.testing.assert_allclose(one["confidence"], [0.5, 0.6, 0.7])
    own = find_candidates(make_model(POINTS, [], [[0], [0, 1], [1]]), images, ["pig", "cow"], imgsz=64)
    assert own.keypoints is not None
    by_box = own.keypoints.groupby("box_id", sort=False)["keypoint"].agg(list)
    assert by_box.loc[own.boxes["box_id"]].tolist() == [["snout", "left"], ["left", "right"]]


def test_points_of_a_mirrored_look_are_swapped(images: pd.DataFrame) -> None:
    found = find_candidates(make_model(POINTS, [0, 2, 1], []), images, ["pig", "cow"], imgsz=64, flip=True)
    assert found.keypoints is not None
    one = found.keypoints[found.keypoints["box_id"] == found.boxes["box_id"][0]].set_index("keypoint")
    np.testing.assert_allclose(one.loc[NAMES, ["x", "y"]], [[104, 28], [0, 0], [88, 60]])
    with pytest.raises(BadData, match="flip: expected mirror images of its keypoints, found none"):
        find_candidates(make_model(POINTS, [], []), images, ["pig", "cow"], imgsz=64, flip=True)


def test_dropped_boxes_have_no_points(images: pd.DataFrame) -> None:
    found = find_candidates(make_model(POINTS, [], []), images, ["pig", "cow"], imgsz=64,
                            keep=lambda boxes: suppress(boxes, conf_threshold=0.5))
    assert found.keypoints is not None
    assert found.boxes["label"].tolist() == ["pig"] and set(found.keypoints["box_id"]) == set(found.boxes["box_id"])
    none = find_candidates(make_model(POINTS, [], []), images, ["pig", "cow"], imgsz=64,
                           keep=lambda boxes: boxes.iloc[:0])
    assert none.keypoints is not None and none.keypoints.empty


def test_a_picture_in_which_nothing_is_found(images: pd.DataFrame) -> None:
    found = find_candidates(make_model(POINTS, [], []), images, ["pig", "cow"], imgsz=64, conf_floor=0.95)
    assert found.boxes.empty and found.keypoints is not None and found.keypoints.empty


def test_points_in_given_boxes_need_another_model(images: pd.DataFrame) -> None:
    box = make_boxes([{"image_id": "a.png", "label": "pig", "x_min": 1, "y_min": 1, "x_max": 9, "y_max": 9}])
    with pytest.raises(BadData, match="expected weights that find the keypoints of objects in boxes, found yolo_pose"):
        find_poses(make_model(POINTS, [], []), images, box)


def test_the_command_writes_objects_and_points(images: pd.DataFrame, tmp_path: Path) -> None:
    weights, folder = tmp_path / "w.safetensors", tmp_path / "pictures"
    write_checkpoint(weights, configure(), build().state_dict())
    folder.mkdir()
    (tmp_path / "a.png").rename(folder / "a.png")
    words = ["predict", "--weights", str(weights), "--images", str(folder), "--out", str(tmp_path / "k.csv"),
             "--conf", "0.0001", "--device", "cpu"]
    frames: dict[bool, pd.DataFrame] = {}
    for flip in ([], ["--flip"]):
        done = CliRunner().invoke(app, [*words, *flip])
        assert done.exit_code == 0, done.output
        found = pd.read_csv(tmp_path / "k.csv")
        assert found["keypoint"].tolist() == NAMES * (len(found) // 3) and len(found) > 3
        frames = {**frames, bool(flip): found}
        assert {"label", "x_min", "y_max", "object_confidence", "x", "y", "confidence"} <= set(found)
        assert found[["x", "y"]].to_numpy().min() >= 0 and found[["x", "y"]].to_numpy().max() <= 128
        assert "pictures have no object" not in done.output
    none = CliRunner().invoke(app, [*words[:-3], "1", "--device", "cpu"])  # no confidence is above 1
    assert none.exit_code == 0 and "1 of 1 pictures have no object and no row, such as a.png" in none.output
    # Of two looks the surest of each is there, so what is surest of the plain one is found by both together.
    surest = [frame["object_confidence"].max() for frame in (frames[False], frames[True])]
    assert surest[1] >= surest[0] and len(frames[True].merge(frames[False], on=["object_confidence", "x", "y"]))
    (tmp_path / "boxes.csv").write_text("")
    refused = CliRunner().invoke(app, [*words, "--boxes", str(tmp_path / "boxes.csv")])
    assert refused.exit_code == 2 and "which finds the objects itself: leave the option out" in refused.output


def test_int8_finds_about_the_same(images: pd.DataFrame, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    write_checkpoint(weights, configure(), build().state_dict())
    whole = export.export_onnx(weights, tmp_path / "w.onnx")
    small = export.quantize_onnx(whole, images, tmp_path / "w8.onnx", imgsz=SIDE)
    assert small.stat().st_size < 0.5 * whole.stat().st_size
    one, other = (load_for_inference(path)(torch.rand(1, 3, SIDE, SIDE)) for path in (whole, small))
    assert one.keypoints is not None and other.keypoints is not None and one.keypoints.shape == other.keypoints.shape
    differences = export.compare_exports(weights, whole, images, imgsz=SIDE)
    assert differences.boxes < 0.05 and differences.points < 0.05


def test_onnx_gives_the_same_points(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    for size in ("yolov8n", "yolo26n"):
        model = build(size)
        write_checkpoint(weights, configure(size), model.state_dict())
        export.export_onnx(weights, tmp_path / f"{size}.onnx")
        one, other = load_for_inference(weights, "cpu"), load_for_inference(tmp_path / f"{size}.onnx")
        assert other.architecture["crop"] == "" and list(other.architecture["points"]) == NAMES
        for shape in ((1, 3, 128, 128), (2, 3, 64, 96)):
            pictures = torch.rand(shape)
            found, expected = other(pictures), one(pictures)
            assert found.keypoints is not None and expected.keypoints is not None
            torch.testing.assert_close(found.keypoints[..., :2], expected.keypoints[..., :2], atol=0.05, rtol=0)
            torch.testing.assert_close(found.keypoints[..., 2], expected.keypoints[..., 2], atol=1e-3, rtol=0)


def test_validation_scores_boxes_and_points(data_yaml: Path) -> None:
    """A model that sees what is true has all points right; one that sees them 3 px to the right has that error."""
    from livestock.training.pose_scores import validate_both

    images, model, config = read_pose_images(data_yaml, "val"), build().eval(), configure()

    class Seer(YoloPoseFamily):
        shift = 0.0

        def predict(self, model: Any, pictures: torch.Tensor) -> Predictions:
            boxes = torch.tensor(images.boxes[0]).float()
            points = torch.tensor(images.keypoints[0]).float() + torch.tensor([self.shift, 0, 0])
            return Predictions(boxes[None].repeat(len(pictures), 1, 1), torch.eye(2)[None].repeat(len(pictures), 1, 1),
                               points[None].repeat(len(pictures), 1, 1, 1))

    family = Seer()
    one = replace(images, tables=tuple(table[table["image_id"] == "4.png"].reset_index(drop=True)
                                       for table in images.tables))
    one = replace(one, sizes=one.sizes[:1], boxes=one.boxes[:1], class_ids=one.class_ids[:1],
                  keypoints=one.keypoints[:1])
    loss = FAMILY.make_loss(model, {})
    settings = make_config(data_yaml, imgsz=128)
    scores = validate_both(model, config, family, loss, one, settings, "cpu")
    assert (scores["AP"], scores["PCK"], scores["pixels"]) == (1.0, 1.0, pytest.approx(0, abs=1e-4))
    assert {"val_pose_loss", "val_box_loss"} <= set(scores)
    family.shift = 3.0
    assert validate_both(model, config, family, loss, one, settings, "cpu")["pixels"] == pytest.approx(3)
    assert wrap_model(family, config, model, "cpu").labels == ["pig", "cow"]


def test_average_precision_is_that_of_the_packages_own_validation() -> None:
    """Of the same predictions, by its similarity and its matching. Of the 101 precisions of a curve it counts the first
    and the last by half, COCO all alike. All objects have a labelled point: without one it counts them as missed."""
    from ultralytics.engine.validator import BaseValidator
    from ultralytics.utils.metrics import ap_per_class, kpt_iou

    rng, validator = np.random.default_rng(5), SimpleNamespace(iouv=torch.linspace(0.5, 0.95, 10))
    sigmas = [0.04, 0.05, 0.07, 0.09]
    skeleton = Skeleton(tuple(Keypoint("pig", f"{number}", number, sigma=sigma) for number, sigma in enumerate(sigmas)))
    boxes, points, found_boxes, found_points, hits, scores = [], [], [], [], [], []
    for image in range(600):
        name, n = f"{image}.jpg", int(rng.integers(1, 5))
        corner, size = rng.uniform(0, 300, (n, 2)), rng.uniform(20, 200, (n, 2))
        true = np.dstack([corner[:, None] + rng.uniform(0, 1, (n, 4, 2)) * size[:, None], rng.integers(0, 3, (n, 4))])
        true[:, 0, 2] = 2
        which = rng.integers(0, n, int(rng.integers(0, 2 * n + 1)))
        places = np.abs(true[which][..., :2] + rng.normal(0, 1, (len(which), 4, 2)) * rng.choice([0.5, 2, 8]))
        confidence = np.sort(rng.uniform(size=len(which)))[::-1]
        similar = kpt_iou(torch.tensor(true), torch.tensor(places), torch.tensor(0.53 * size.prod(1)), sigmas)
        classes = torch.zeros(len(which)), torch.zeros(n)
        hits.append(BaseValidator.match_predictions(validator, *classes, similar).numpy())  # type: ignore[arg-type]
        scores.append(confidence)
        for number in range(n):
            corners = [*corner[number], *(corner + size)[number]]
            boxes.append({"box_id": 10 * image + number, "image_id": name, "label": "pig",
                          **dict(zip(("x_min", "y_min", "x_max", "y_max"), corners, strict=True))})
            points += [{"box_id": 10 * image + number, "image_id": name, "keypoint": f"{index}", "x": x, "y": y,
                        "visible": visible} for index, (x, y, visible) in enumerate(true[number])]
        for number, (place, sure) in enumerate(zip(places, confidence, strict=True)):
            own = {"box_id": 100_000 + 10 * image + number, "image_id": name, "source": "model", "confidence": sure}
            found_boxes.append({**own, "label": "pig", "x_min": 0.0, "y_min": 0.0, "x_max": 9.0, "y_max": 9.0})
            found_points += [{**own, "keypoint": f"{index}", "x": x, "y": y} for index, (x, y) in enumerate(place)]
    theirs = ap_per_class(np.concatenate(hits), np.concatenate(scores), np.zeros(len(found_boxes)),
                          np.zeros(len(boxes)))
    ours = evaluate_oks((make_boxes(boxes), make_keypoints(points)),
                        (make_boxes(found_boxes), make_keypoints(found_points)), skeleton).mean
    assert 0.2 < ours < 0.9
    ends = 0.5  # the first is 1, the last 0
    assert ours == pytest.approx((100 * theirs[5].mean() + ends) / 101, abs=1e-3)
