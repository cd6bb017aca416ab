"""Boxes in the pixels they belong to, of every family, and workers that share the threads."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial import cKDTree
from small_models import LABELS, Sample, draw_scored_sample, write_lively

from livestock import export
from livestock.geometry import clip_xyxy
from livestock.inference import find_candidates
from livestock.models.base import Predictions
from livestock.models.forward import LoadedModel, load_for_inference, load_fused, wrap_model
from livestock.models.prepare import prepare
from livestock.models.registry import get_family
from livestock.models.yolov5.library import STARTER
from livestock.postprocess import suppress
from livestock.tables import BOX_COLUMNS, XYXY, check_boxes, first_box_id, make_images

IMGSZ = 320
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Twelve grey images in two shapes, each with one bright square."""
    folder = tmp_path_factory.mktemp("pictures")
    records = []
    for index in range(12):
        width, height = (128, 96) if index % 2 else (96, 160)
        picture = np.full((height, width, 3), 60, np.uint8)
        picture[20:60, 30:70] = (40, 200, 90)
        cv2.imwrite(str(folder / f"{index:02d}.jpg"), picture)
        records.append({"image_id": f"{index:02d}.jpg", "archive": str(folder), "member": f"{index:02d}.jpg",
                        "width": width, "height": height})
    return make_images(records)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A yolov5n with random weights."""
    return load_for_inference(write_lively("yolov5", tmp_path_factory.mktemp("yolov5") / "last.safetensors", 64), "cpu")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter as TorchScript, of which one thread runs at a time."""
    return export.export_torchscript(STARTER, tmp_path_factory.mktemp("script") / "starter.torchscript")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return draw_scored_sample(tmp_path_factory.mktemp("sample") / "raw")


def test_what_is_kept_of_each_image_is_what_would_be_kept_of_all(loaded: LoadedModel, images: pd.DataFrame) -> None:
    found = find_candidates(loaded, images, LABELS, imgsz=128, conf_floor=1e-5).boxes
    rare = found.iloc[::7]["confidence"].to_numpy()
    kept = find_candidates(loaded, images, LABELS, imgsz=128, conf_floor=1e-5,
                               keep=lambda boxes: suppress(boxes[boxes["confidence"].isin(rare)], conf_threshold=0))
    expected = suppress(found[found["confidence"].isin(rare)], conf_threshold=0)
    assert 0 < len(expected) < len(found) / 2
    pd.testing.assert_frame_equal(kept.boxes, expected)  # and so have their ids


def test_candidates_of_two_looks_have_different_ids(loaded: LoadedModel, images: pd.DataFrame) -> None:
    """By what the caller names, and otherwise by weights, size and mirroring; the same each time."""
    options: dict = {"imgsz": 64, "conf_floor": 0.0}
    first, again, flipped = (find_candidates(loaded, images[:2], LABELS, flip=flip, **options)
                             .boxes["box_id"] for flip in (False, False, True))
    named = find_candidates(loaded, images[:2], LABELS, origin="plain", **options).boxes
    assert first.tolist() == again.tolist()
    assert pd.concat([first, flipped, named["box_id"]]).is_unique
    of_first = named[named["image_id"] == images["image_id"].iloc[0]]
    assert of_first["box_id"].iloc[0] == first_box_id(images["image_id"].iloc[0], "plain")


@pytest.mark.parametrize(("family", "imgsz"), [
    ("yolov5", 64), ("retinanet", 64), ("ssd", 64), ("tood", 64), ("yolox", 128), ("dfine", 256), ("rfdetr", 288)])
def test_candidates_are_what_the_family_predicts(
    family: str, imgsz: int, images: pd.DataFrame, tmp_path: Path
) -> None:
    """The same network on the prepared picture; back by the rule of the family, written out here."""
    weights = write_lively(family, tmp_path / "w.safetensors", imgsz)
    loaded = load_for_inference(weights, "cpu")
    found = find_candidates(loaded, images, LABELS, imgsz=imgsz, conf_floor=0.0, batch=5).boxes
    check_boxes(found, images, LABELS)
    image = images.iloc[1]
    picture: Any = cv2.imread(f"{image['archive']}/{image['member']}")
    picture = picture[..., ::-1]
    assert picture.shape == (96, 128, 3)
    known, _, model = load_fused(weights)
    canvas = prepare(picture, imgsz, 32, known.resize)[0]
    with torch.inference_mode():
        seen = known.predict(model, torch.from_numpy(canvas.transpose(2, 0, 1).copy())[None] / 255)
    corners = seen.boxes[0].double().numpy()
    # Stretched to 256 x 256 or 288 x 288; as it is, grey below; or half the size, 64 x 48, with 8 rows of grey above.
    back = {"dfine": (0, [0.5, 0.375, 0.5, 0.375]), "rfdetr": (0, [4 / 9, 1 / 3, 4 / 9, 1 / 3]),
            "yolox": (0, 1)}.get(family, ([0, 8, 0, 8], 2))
    corners = (corners - back[0]) * back[1]
    corners = clip_xyxy(corners, 128, 96)
    has_area = (corners[:, 0] < corners[:, 2]) & (corners[:, 1] < corners[:, 3])
    for class_id, label in enumerate(LABELS):
        confidence = seen.scores[0, :, class_id].double().numpy()
        mine = found[(found["image_id"] == image["image_id"]) & (found["label"] == label)]
        expected = np.column_stack([corners, 1e4 * confidence])[has_area]  # near-equal confidences may swap their order
        actual = np.column_stack([mine[XYXY], 1e4 * mine["confidence"]])
        assert len(actual) == len(expected) > 20
        distance = np.sort(cKDTree(actual).query(expected)[0])
        n_other = 6 if family == "rfdetr" else 0  # of nearly equal proposals rounding decides which become queries
        assert distance[: len(distance) - n_other].max() < 0.5
        assert mine["confidence"].is_monotonic_decreasing


def test_a_model_of_stride_64_gives_boxes_in_pixels_of_the_image(tmp_path: Path) -> None:
    """yolov5n6: a picture of 128 x 32 is padded to 128 x 64 for it, and would be to 128 x 32 for a stride of 32."""
    family = get_family("yolov5")
    config = family.configure(LABELS, 128, "yolov5n6")
    model = family.build(config).eval()
    picture = np.random.default_rng(0).integers(0, 255, (32, 128, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "wide.png"), picture[..., ::-1])
    image = make_images([{"image_id": "wide.png", "archive": str(tmp_path), "member": "wide.png", "width": 128,
                          "height": 32}])
    found = find_candidates(wrap_model(family, config, model, "cpu"), image, LABELS, imgsz=128, conf_floor=0.0).boxes
    padded = np.full((64, 128, 3), 114, np.uint8)
    padded[16:48] = picture
    with torch.inference_mode():
        boxes = family.predict(model, torch.from_numpy(padded.transpose(2, 0, 1).copy())[None] / 255).boxes[0]
    corners = (boxes.numpy() - [0, 16, 0, 16]).clip(0, [128, 32, 128, 32])
    corners = corners[(corners[:, 0] < corners[:, 2]) & (corners[:, 1] < corners[:, 3])]
    mine = found.loc[found["label"] == "pig", XYXY].to_numpy()
    assert len(mine) == len(corners)
    assert cKDTree(mine).query(corners)[0].max() < 0.1


# The surest boxes of the starter at 320 px as the first version of this module found them (its commit 0aa4630).
FIRST = {False: (4992, [
    ("000005.jpg", "pig", 554.2888, 159.838, 635.0464, 282.0812, 0.8805346),
    ("000006.jpg", "pig", 554.9584, 160.8237, 634.2437, 282.4604, 0.8790051),
    ("000005.jpg", "pig", 434.302, 183.5567, 508.4465, 332.3506, 0.8314145),
    ("000006.jpg", "pig", 551.4308, 159.1076, 632.0348, 292.6024, 0.8222508)]),
    True: (3996, [
    ("000006.jpg", "cow", 138.4997, 170.0075, 226.6853, 286.1786, 0.8225669),
    ("000005.jpg", "cow", 135.9637, 171.9486, 224.1443, 286.119, 0.7966264),
    ("000006.jpg", "cow", 136.481, 155.0917, 223.5388, 298.2236, 0.7948987),
    ("000006.jpg", "cow", 140.7681, 157.1645, 222.1045, 294.7398, 0.78895)])}


@pytest.mark.parametrize("flip", [False, True])
def test_boxes_of_yolov5_are_those_of_the_first_version(flip: bool, sample: Sample) -> None:
    n_boxes, expected = FIRST[flip]
    found = find_candidates(load_for_inference(STARTER, "cpu"), sample.test, LABELS, imgsz=IMGSZ, flip=flip).boxes
    assert abs(len(found) - n_boxes) <= 5  # at the floor, rounding decides
    surest = found.sort_values("confidence", ascending=False).head(4)
    assert [name[-10:] for name in surest["image_id"]] == [row[0] for row in expected]
    assert surest["label"].tolist() == [row[1] for row in expected]
    np.testing.assert_allclose(surest[XYXY], [row[2:6] for row in expected], rtol=0, atol=2e-3)
    np.testing.assert_allclose(surest["confidence"], [row[6] for row in expected], rtol=0, atol=1e-5)


def test_a_mirrored_pass_sees_mirrored_pictures(loaded: LoadedModel, images: pd.DataFrame, tmp_path: Path) -> None:
    """Boxes of a mirrored pass are those of mirrored files, mirrored back."""
    for image in images.itertuples():
        picture: Any = cv2.imread(f"{image.archive}/{image.member}")
        cv2.imwrite(str(tmp_path / f"{image.image_id}.png"), picture)
        cv2.imwrite(str(tmp_path / f"mirrored {image.image_id}.png"), picture[:, ::-1])
    looks = [images.assign(archive=str(tmp_path), member=prefix + images["image_id"] + ".png")
             for prefix in ("", "mirrored ")]
    options: dict[str, Any] = {"imgsz": 64, "conf_floor": 0.0}
    flipped = find_candidates(loaded, looks[0], LABELS, flip=True, **options).boxes
    plain = find_candidates(loaded, looks[1], LABELS, **options).boxes
    widths = plain["image_id"].map(images.set_index("image_id")["width"])
    back = plain.assign(x_min=widths - plain["x_max"], x_max=widths - plain["x_min"])
    columns = [*XYXY, "confidence"]
    for (image_id, label), own in flipped.groupby(["image_id", "label"]):
        expected = back[(back["image_id"] == image_id) & (back["label"] == label)]
        assert len(own) == len(expected)
        assert cKDTree(own[columns]).query(expected[columns])[0].max() < 0.2


def test_what_the_limit_cuts_is_counted(loaded: LoadedModel, images: pd.DataFrame) -> None:
    everything = find_candidates(loaded, images.iloc[:2], LABELS, imgsz=64, conf_floor=0.0)
    cut = find_candidates(loaded, images.iloc[:2], LABELS, imgsz=64, conf_floor=0.0,
                              max_per_image=9)
    assert everything.n_cut.sum() == 0
    assert cut.boxes.groupby("image_id").size().max() <= 9
    assert (cut.n_cut > 0).all()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("labels", "message"),
    [(["pig"], r"expected a model of the 1 classes \['pig'\], found 2: \['pig', 'cow'\]"),
     (["cow", "pig"], r"expected a model with the classes in the order \['cow', 'pig'\], found \['pig', 'cow'\]"),
     (["pig", "cattle"], r"expected a model of the classes \['pig', 'cattle'\], found \['pig', 'cow'\]")])
def test_a_model_of_other_classes_is_refused(
    labels: list[str], message: str, loaded: LoadedModel, images: pd.DataFrame
) -> None:
    with pytest.raises(ValueError, match=rf"last\.safetensors: {message}"):
        find_candidates(loaded, images, labels, imgsz=64)


def test_a_model_may_call_a_class_by_its_synonym(loaded: LoadedModel, images: pd.DataFrame) -> None:
    """Its boxes have the competition's labels."""
    options: dict[str, Any] = {"imgsz": 64, "conf_floor": 0.0}
    found = find_candidates(loaded, images[:1], ["Hog", "cattle"],
                                label_of={"pig": "Hog", "cow": "cattle"}.get, **options).boxes
    plain = find_candidates(loaded, images[:1], LABELS, **options).boxes
    assert found["label"].tolist() == plain["label"].map({"pig": "Hog", "cow": "cattle"}).tolist()


def test_no_images_give_no_boxes(loaded: LoadedModel, images: pd.DataFrame) -> None:
    found = find_candidates(loaded, images.iloc[:0], LABELS, imgsz=64)
    assert found.boxes.empty
    assert list(found.boxes.columns) == BOX_COLUMNS


def test_boxes_are_those_of_one_plain_pass(sample: Sample) -> None:
    """Workers, an image at a time each, and weights in channels-last order change nothing but rounding."""
    family, _, plain = load_fused(STARTER)

    def run(pictures: torch.Tensor) -> Predictions:
        with torch.inference_mode():
            return family.predict(plain, pictures.contiguous())

    forward = LoadedModel(STARTER, run, LABELS, 32)
    assert all(module.weight.is_contiguous() for module in plain.modules() if isinstance(module, torch.nn.Conv2d))
    options: dict[str, Any] = {"imgsz": IMGSZ, "conf_floor": 0.01}
    expected = find_candidates(forward, sample.test, LABELS, batch=4, **options).boxes
    found = find_candidates(load_for_inference(STARTER, "cpu", n_threads=2), sample.test, LABELS, **options).boxes
    assert len(expected) > 200
    for some, others in ((expected, found), (found, expected)):
        sure = some[some["confidence"] > 0.0101]  # at the floor, rounding decides
        for (image_id, label), own in sure.groupby(["image_id", "label"]):
            there = others[(others["image_id"] == image_id) & (others["label"] == label)]
            assert distances(own, there).max() < 1


def distances(boxes: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """How far the nearest of `others` is from each box, in thousandths of a pixel or ten-thousandths of confidence."""
    units = [1e-3] * 4 + [1e-4]
    tree = cKDTree(others[[*XYXY, "confidence"]] / units)
    return tree.query(boxes[[*XYXY, "confidence"]] / units, p=np.inf)[0]


def test_a_broken_picture_ends_the_pass_soon(
    sample: Sample, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def read_image(archive: str, member: str) -> np.ndarray:
        read.append(member)
        raise ValueError(f"{member}: broken")

    monkeypatch.setattr("livestock.inference.read_image", read_image)
    many = pd.concat([sample.test] * 10, ignore_index=True)
    many["image_id"] = [f"{n:02d}.jpg" for n in range(len(many))]
    before = torch.get_num_threads()
    for weights in (STARTER, script):
        read.clear()
        loaded = load_for_inference(weights, "cpu", n_threads=before + 1, trusted=True)
        with pytest.raises(ValueError, match=r": broken"):
            find_candidates(loaded, many, LABELS, imgsz=IMGSZ)
        assert len(read) < len(many) / 2
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == before


@pytest.mark.parametrize("suffix", [".pt", ".torchscript"])
def test_workers_share_the_threads(suffix: str, script: Path, sample: Sample) -> None:
    """Of four threads four workers have one each, or one run at a time has all."""
    path = STARTER if suffix == ".pt" else script
    forward = load_for_inference(path, "cpu", n_threads=4, trusted=True)
    seen: list[tuple[int, bool]] = []
    turn = Lock()

    def run(pictures: torch.Tensor) -> Predictions:
        is_alone = turn.acquire(timeout=0)
        seen.append((torch.get_num_threads(), is_alone))
        time.sleep(0.2)
        if is_alone:
            turn.release()
        return forward.run(pictures)

    find_candidates(replace(forward, run=run), sample.test, LABELS, imgsz=IMGSZ)
    assert len(seen) == len(sample.test)
    assert {n_threads for n_threads, _ in seen} == {1 if suffix == ".pt" else 4}
    assert all(is_alone for _, is_alone in seen) == (suffix != ".pt")
