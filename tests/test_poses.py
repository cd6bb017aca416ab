"""Keypoints of objects in boxes: what one object at a time gives, in pixels of the picture, under its box's number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from small_models import draw_blobs
from test_pose_net import EARS, configure
from torch import nn

from livestock.exceptions import BadData, UnsafeWeights
from livestock.geometry import invert, map_points
from livestock.models.base import Predictions
from livestock.models.crops import cut_out, map_crop
from livestock.models.forward import wrap_model
from livestock.models.loaded import LoadedModel
from livestock.models.topdown import TopDownFamily
from livestock.poses import find_poses
from livestock.tables import KEYPOINT_COLUMNS, XYXY, make_boxes, make_images

TOP = TopDownFamily()
N_POINTS = 3


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Four pictures of several sizes, one of them grey, with 0 to 5 objects each, whose rows are mixed."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    records, boxes = [], []
    for index, (width, height, n) in enumerate([(90, 60, 5), (64, 128, 1), (200, 150, 3), (50, 50, 0)]):
        picture = (draw_blobs(1, height, width)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), picture[..., 0] if index == 1 else picture)
        records.append({"image_id": f"i{index}", "archive": str(folder), "member": f"{index}.png", "width": width,
                        "height": height})
        for _ in range(n):
            x, y = rng.uniform(0, width / 2), rng.uniform(0, height / 2)
            boxes.append({"box_id": 100 - 7 * len(boxes), "image_id": f"i{index}", "label": "cat", "x_min": x,
                          "y_min": y, "x_max": x + rng.uniform(5, width / 2), "y_max": y + rng.uniform(5, height / 2)})
    return make_images(records), make_boxes(boxes).sample(frac=1, random_state=1).reset_index(drop=True)


def make_model(crop: str = "fit", flips: bool = True, labels: tuple[str, ...] = ("cat",), owners: list | None = None
               ) -> LoadedModel:
    """A random network whose places differ from object to object."""
    torch.manual_seed(0)
    config = configure(crop=crop, flips=EARS["flips"] if flips else [], owners=owners or [])
    config = replace(config, labels=labels)
    net = TOP.build(config).eval()
    nn.init.normal_(net.last.weight, std=1.0)
    return wrap_model(TOP, config, net, "cpu")


def with_run(model: LoadedModel, run: Callable[[torch.Tensor], Predictions]) -> LoadedModel:
    return LoadedModel(Path("fake"), run, model.labels, 32, imgsz=64, family="topdown", device="cpu",
                       architecture=model.architecture)


def find_one(model: LoadedModel, images: pd.DataFrame, box: pd.Series) -> np.ndarray:
    """The points `(K, 3)` of one object, step by step."""
    image = images[images["image_id"] == box["image_id"]].iloc[0]
    picture = cv2.imread(f"{image['archive']}/{image['member']}", cv2.IMREAD_COLOR_RGB)
    matrix = map_crop(box[XYXY].to_numpy(float), (image["width"], image["height"]), 64, model.architecture["crop"])
    pixels = torch.from_numpy(cut_out(picture, matrix, 64)).permute(2, 0, 1)[None].float() / 255
    keypoints = model(pixels).keypoints
    assert keypoints is not None
    found = keypoints[0, 0].double().numpy()
    found[:, :2] = map_points(found[:, :2], invert(matrix))
    found[:, 0], found[:, 1] = found[:, 0].clip(0, image["width"]), found[:, 1].clip(0, image["height"])
    return found


@pytest.mark.parametrize("crop", ["whole", "stretch", "fit"])
@pytest.mark.parametrize("batch", [1, 4, 32])
def test_it_is_what_one_object_at_a_time_gives(
    crop: str, batch: int, tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    (images, boxes), model = tables, make_model(crop)
    found = find_poses(model, images, boxes, batch=batch)
    assert list(found) == list(KEYPOINT_COLUMNS)
    boxes = boxes.sort_values("image_id", kind="stable")  # as every table of keypoints is
    assert found["box_id"].tolist() == np.repeat(boxes["box_id"], N_POINTS).tolist()
    assert found["image_id"].tolist() == np.repeat(boxes["image_id"], N_POINTS).tolist()
    assert found["keypoint"].tolist() == EARS["points"] * len(boxes)
    assert set(found["source"]) == {"model"} and set(found["visible"]) == {2}
    expected = np.concatenate([find_one(model, images, box) for _, box in boxes.iterrows()])
    np.testing.assert_allclose(found[["x", "y", "confidence"]], expected, atol=1e-2)
    assert expected[:, :2].std(0).min() > 5


def test_points_are_clipped_to_their_picture(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    (images, boxes), model = tables, make_model()

    def beyond(inputs: torch.Tensor) -> Predictions:
        points = torch.tensor([[-900.0, 999, 0.5], [999, -900, 0.25], [32, 32, 1]]).expand(len(inputs), 1, 3, 3)
        return Predictions(torch.zeros(len(inputs), 1, 4), torch.ones(len(inputs), 1, 1), points)

    found = find_poses(with_run(model, beyond), images, boxes)
    boxes = boxes.sort_values("image_id", kind="stable")
    sizes = images.set_index("image_id").loc[boxes["image_id"], ["width", "height"]].to_numpy(float)
    places = found[["x", "y"]].to_numpy().reshape(-1, 3, 2)
    assert (places[:, 0] == sizes * [0, 1]).all() and (places[:, 1] == sizes * [1, 0]).all()
    middle = (boxes[["x_min", "y_min"]].to_numpy() + boxes[["x_max", "y_max"]].to_numpy()) / 2
    np.testing.assert_allclose(places[:, 2], middle.clip(0, sizes), atol=1e-6)


def test_an_object_has_the_points_of_its_class_alone(
    tables: tuple[pd.DataFrame, pd.DataFrame], caplog: pytest.LogCaptureFixture
) -> None:
    """Nose of cats and dogs, left of dogs, right of cats; of birds nothing is known."""
    (images, boxes), model = tables, make_model(labels=("cat", "dog"), owners=[[0, 1], [1], [0]])
    boxes = boxes.assign(label=(["cat", "dog", "bird"] * 3)[: len(boxes)])
    with caplog.at_level("INFO"):
        found = find_poses(model, images, boxes)
    label = found["box_id"].map(boxes.set_index("box_id")["label"])
    own = found["keypoint"].groupby(label).agg(lambda names: sorted(set(names))).to_dict()
    assert own == {"cat": ["nose", "right"], "dog": ["left", "nose"]}
    every = find_poses(make_model(), images, boxes)  # the same places where it has them
    both = found.merge(every, on=["box_id", "keypoint"], suffixes=("", "_every"))
    assert len(both) == len(found) == 2 * (boxes["label"] != "bird").sum()
    assert (both[["x", "y"]].to_numpy() == both[["x_every", "y_every"]].to_numpy()).all()
    assert "the model knows those of cat, dog, and nothing of bird" in caplog.text
    assert len(find_poses(model, images, boxes, has_classes=False)) == len(every)  # as of whole pictures


def test_a_mirror_changes_nothing_where_the_network_is_the_same_for_both(
    tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    """One that is made so: the mean of what it says of the picture and of its mirror image."""
    (images, boxes), model = tables, make_model()

    def fair(inputs: torch.Tensor) -> Predictions:
        found, other = model.run(inputs), model.run(inputs.flip(3))
        assert found.keypoints is not None and other.keypoints is not None
        turned = other.keypoints[:, :, EARS["flips"]].clone()
        turned[..., 0] = 64 - turned[..., 0]
        return Predictions(found.boxes, found.scores, (found.keypoints + turned) / 2)

    own = with_run(model, fair)
    plain, flipped = find_poses(own, images, boxes), find_poses(own, images, boxes, flip=True)
    pd.testing.assert_frame_equal(flipped, plain, atol=2e-3, rtol=0)
    unfair = find_poses(model, images, boxes, flip=True)
    assert (unfair["x"] - find_poses(model, images, boxes)["x"]).abs().max() > 1  # it looks at the mirror image at all


@pytest.mark.parametrize(("apart", "expected"), [(4.0, 22.0), (30.0, 20.0)])
def test_of_places_that_do_not_agree_the_more_confident_counts(
    apart: float, expected: float, tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    """The second picture of each pair is the mirrored one: its places are mirrored back."""
    (images, boxes), model, calls = tables, make_model("whole"), []

    def run(inputs: torch.Tensor) -> Predictions:
        calls.append(len(inputs))
        x, sure = (64 - (20 + apart), 0.5) if len(calls) % 2 == 0 else (20.0, 0.75)
        points = torch.tensor([x, 10.0, sure]).expand(len(inputs), 1, 3, 3)
        return Predictions(torch.zeros(len(inputs), 1, 4), torch.ones(len(inputs), 1, 1), points)

    own = boxes[boxes["image_id"] == "i1"]
    found = find_poses(with_run(model, run), images, own, flip=True)
    np.testing.assert_allclose(found["x"], expected)  # the picture is as wide as the input
    np.testing.assert_allclose(found["confidence"], 0.625 if apart == 4 else 0.75)


def test_what_cannot_be_is_refused(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    (images, boxes), model = tables, make_model(flips=False)
    with pytest.raises(BadData, match="topdown: flip: expected mirror images of its keypoints, found none"):
        find_poses(model, images, boxes, flip=True)
    detector = LoadedModel(Path("a.safetensors"), model.run, ["cat"], 32, family="retinanet")
    with pytest.raises(BadData, match=r"a\.safetensors: expected weights that find keypoints.*found retinanet"):
        find_poses(detector, images, boxes)
    with pytest.raises(BadData, match="boxes: expected images of the images table, found 'i0'"):
        find_poses(model, images[images["image_id"] != "i0"], boxes)
    flat = boxes.assign(y_max=boxes["y_max"].where(boxes["box_id"] != 100, boxes["y_min"]))
    with pytest.raises(BadData, match=r"boxes: box 100 in i0: expected x_min < x_max and y_min < y_max, found \["):
        find_poses(model, images, flat)
    without = with_run(model, lambda inputs: Predictions(torch.zeros(len(inputs), 1, 4), torch.ones(len(inputs), 1, 1)))
    with pytest.raises(UnsafeWeights, match=r"fake: expected keypoints \(9, 1, 3, 3\), found None"):
        find_poses(without, images, boxes)


def test_no_boxes_give_no_points_and_boxes_beyond_the_picture_give_some(
    tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    (images, boxes), model = tables, make_model()
    assert len(find_poses(model, images, boxes.iloc[:0])) == 0
    beyond = boxes.assign(x_min=boxes["x_min"] + 500, x_max=boxes["x_max"] + 500)
    found = find_poses(model, images, beyond)
    assert np.isfinite(found[["x", "y", "confidence"]]).all(axis=None) and len(found) == N_POINTS * len(boxes)


@pytest.mark.parametrize("n_points", [1, 18])
def test_any_number_of_points(n_points: int, tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    images, boxes = tables
    config = configure(points=[f"p{k}" for k in range(n_points)], flips=list(range(n_points)))
    found = find_poses(wrap_model(TOP, config, TOP.build(config).eval(), "cpu"), images, boxes, flip=True)
    assert len(found) == n_points * len(boxes) and not found.duplicated(["box_id", "keypoint"]).any()
