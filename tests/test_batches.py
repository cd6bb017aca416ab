"""Training images have yolov5's distribution, their boxes lie where the pixels do, and a seed says which they are."""

from __future__ import annotations

import colorsys
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from livestock.config import REPOSITORY
from livestock.exceptions import BadData
from livestock.geometry import map_boxes
from livestock.models.base import Batch, Resize
from livestock.models.prepare import prepare
from livestock.training import augment, batches
from livestock.training.augment import Augmentation, Sample
from livestock.training.batches import Batches, Loader, Order, TrainingImages, make_loader, plain_batches, read_images
from livestock.training.settings import Place, TrainConfig

SIZES = [(160, 90), (160, 120), (120, 160), (100, 57)]  # wide, high, smaller than the training size
SIDE, N = 160, 40


@pytest.fixture(scope="module")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of soft spots, each with three boxes, of several shapes, from dark to bright."""
    folder, rng = tmp_path_factory.mktemp("yolo"), np.random.default_rng(0)
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for number in range(N):
        width, height = SIZES[number % len(SIZES)]
        spots = rng.integers(3 * number, 3 * number + 130, (height // 16, width // 16, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"images/{number:02d}.png"), cv2.resize(spots, (width, height)))
        size = rng.uniform(0.05, 0.3, (3, 2))
        centre = size / 2 + rng.random((3, 2)) * (1 - size)
        rows = np.column_stack([rng.integers(0, 2, 3), centre, size])
        np.savetxt(folder / f"labels/{number:02d}.txt", rows, fmt=["%d", *["%.6f"] * 4])
    return write_yaml(folder, N)


def write_yaml(folder: Path, n: int) -> Path:
    (folder / "list.txt").write_text("".join(f"./images/{number:02d}.png\n" for number in range(n)))
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"path": str(folder), "train": "list.txt", "names": {0: "cow", 1: "pig"}}))
    return path


@pytest.fixture(scope="module")
def images(data_yaml: Path) -> TrainingImages:
    return read_images(data_yaml)


def read_hyp(**changes: float) -> dict[str, Any]:
    return {**yaml.safe_load((REPOSITORY / "hyp/baseline.yaml").read_text(encoding="utf-8")), **changes}


def open_loader(images: TrainingImages, *, workers: int = 0, seed: int = 3, world: int = 1, rank: int = 0,
                batch: int = 16, hyp: dict[str, Any] | None = None, resize: Resize = "letterbox") -> Loader:
    config = TrainConfig(data_yaml="", weights="", hyp="", imgsz=SIDE, batch=batch, epochs=4, workers=workers,
                         seed=seed)
    hyp = read_hyp(mosaic=0.5) if hyp is None else hyp
    return make_loader(images, hyp, config, resize, 32, Place("cpu", rank, world))


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours.images, theirs.images) and len(ours.boxes) == len(theirs.boxes) == len(ours)
        assert all(map(torch.equal, ours.boxes + ours.class_ids, theirs.boxes + theirs.class_ids))


# --- what is read

def test_boxes_are_pixels_of_the_stored_picture(images: TrainingImages, data_yaml: Path) -> None:
    assert images.labels == ("cow", "pig") and len(images) == N
    assert images.sizes[:4].tolist() == [list(size) for size in SIZES]
    rows = np.loadtxt(data_yaml.parent / "labels/03.txt")
    (width, height), centre, size = SIZES[3], rows[:, 1:3], rows[:, 3:]
    expected = np.hstack([centre - size / 2, centre + size / 2]) * [width, height, width, height]
    np.testing.assert_allclose(images.boxes[3], expected, atol=1e-9)
    assert images.class_ids[3].tolist() == rows[:, 0].tolist()
    np.testing.assert_allclose(images.box_sizes(320)[3], size * [width, height] * 3.2)
    table, boxes = images.to_tables()
    assert len(table) == N and len(boxes) == 3 * N
    np.testing.assert_allclose(boxes[boxes["image_id"].str.endswith("03.png")][["x_min", "y_max"]], expected[:, [0, 3]])


def make_one(folder: Path, label: str | None = "0 0.5 0.5 0.25 0.5\n") -> Path:
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    cv2.imwrite(str(folder / "images/00.png"), np.zeros((20, 40, 3), np.uint8))
    if label is not None:
        (folder / "labels/00.txt").write_text(label)
    return write_yaml(folder, 1)


@pytest.mark.parametrize("line", ["0 0.5 0.5 0.2", "2 0.5 0.5 0.2 0.2", "0.5 0.5 0.5 0.2 0.2", "pig 0.5 0.5 0.2 0.2",
                                  "0 0.5 1.5 0.2 0.2", "0 nan 0.5 0.2 0.2", "-1 0.5 0.5 0.2 0.2", "0 0.1 0.1 -0.1 0.1"])
def test_a_broken_label_names_file_and_line(tmp_path: Path, line: str) -> None:
    path = make_one(tmp_path, f"0 0.5 0.5 0.2 0.2\n\n{line}\n")
    with pytest.raises(BadData, match=r"labels/00\.txt line 3: expected `class_id cx cy w h`.* found '"):
        read_images(path)


def test_labels_that_are_empty_or_there_twice(tmp_path: Path) -> None:
    path = make_one(tmp_path, "1 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.25 0.5\n1 0.5 0.5 0.5 0.5\n")
    assert read_images(path).boxes[0].tolist() == [[10, 5, 30, 15], [15, 5, 25, 15]]
    (tmp_path / "labels/00.txt").write_text("")
    assert read_images(path).boxes[0].shape == (0, 4)
    (batch,) = open_loader(read_images(path)).epoch(0)
    assert batch.boxes[0].shape == (0, 4) and batch.class_ids[0].dtype == torch.int64


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    path = make_one(tmp_path, label=None)
    with pytest.raises(BadData, match=r"labels/00\.txt: expected the labels of an image"):
        read_images(path)
    with pytest.raises(BadData, match=r"data\.yaml: expected .* found val: None"):
        read_images(path, "val")
    (tmp_path / "labels/00.txt").write_text("")
    loaded = read_images(path)
    content = (tmp_path / "images/00.png").read_bytes()
    (tmp_path / "images/00.png").write_bytes(content[:45])  # the header is whole
    for workers in (0, 1):
        with pytest.raises(BadData, match=r"^/.*images/00\.png: expected a picture, found"):
            next(open_loader(loaded, workers=workers).epoch(0))
    (tmp_path / "images/00.png").unlink()
    with pytest.raises(BadData, match=r"images/00\.png: expected a picture, which .*list\.txt names"):
        read_images(path)
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(BadData, match=r"list\.txt: expected the path of an image in each line"):
        read_images(path)
    (tmp_path / "list.txt").unlink()
    with pytest.raises(BadData, match=r"list\.txt: expected a list of images"):
        read_images(path)


# --- which images

def test_batches_depend_on_seed_epoch_and_number_alone(images: TrainingImages) -> None:
    loader = open_loader(images, workers=2)
    expected = [list(loader.epoch(epoch)) for epoch in range(4)]
    loader.close()
    assert [len(batch) for batch in expected[0]] == [16, 16, 8]
    for workers in (0, 1):
        resumed = open_loader(images, workers=workers)
        assert_same(list(resumed.epoch(2)), expected[2])
        assert_same(list(resumed.epoch(3)), expected[3])
        next(resumed.epoch(1))  # left in the middle
        assert_same(list(resumed.epoch(1)), expected[1])
        resumed.close()
    means = {float(image.float().mean()) for epoch in expected for batch in epoch for image in batch.images}
    assert len(means) == 4 * N
    other = next(open_loader(images, seed=4).epoch(0))
    assert not torch.equal(other.images, expected[0][0].images)
    with pytest.raises(ValueError, match="epoch: expected one from 0 to 3, found 4"):
        next(resumed.epoch(4))


@pytest.mark.parametrize("workers", [0, 2])
def test_with_too_many_for_memory_batches_depend_on_the_number_alone(
    images: TrainingImages, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CACHE_BYTES", max(workers, 1) * 12 * 3 * 160 * 160)
    monkeypatch.setattr(batches, "LEAST_WINDOW", 4)
    loader = open_loader(images, workers=workers, batch=7)
    assert loader.dataset.window > 10
    expected = [list(loader.epoch(epoch)) for epoch in range(3)]
    loader.close()
    resumed = open_loader(images, workers=workers, batch=7)
    assert_same(list(resumed.epoch(2)), expected[2])
    resumed.close()


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 50), batch=st.integers(1, 20), world=st.integers(1, 4), epoch=st.integers(-3, 9))
def test_every_image_comes_once_an_epoch_whatever_the_gpus(n: int, batch: int, world: int, epoch: int) -> None:
    shares = []
    for rank in range(world):
        order = Order(n, batch, seed=1, rank=rank, world=world)
        parts = [order.find_batch(epoch, number).tolist() for number in range(order.n_batches)]
        assert all(len(part) == batch for part in parts[:-1]) and 0 < len(parts[-1]) <= batch
        shares.append(sum(parts, []))
    assert len({len(share) for share in shares}) == 1
    together = sorted(sum(shares, []))
    assert set(together) == set(range(n)) and 0 <= len(together) - n < world  # some twice, so that all have as many


def test_each_epoch_and_each_seed_has_an_order_of_its_own() -> None:
    orders = {tuple(Order(50, 50, seed).find_batch(epoch, 0).tolist()) for seed in (0, 1) for epoch in (-1, 0, 1)}
    assert len(orders) == 6


def test_gpus_draw_by_themselves(images: TrainingImages) -> None:
    """Two have the one image that there is, and make different ones of it."""
    one = TrainingImages(images.labels, images.paths[:1], images.sizes[:1], images.boxes[:1], images.class_ids[:1])
    first, second = (next(open_loader(one, world=2, rank=rank).epoch(1)) for rank in (0, 1))
    assert len(first) == len(second) == 1 and not torch.equal(first.images, second.images)
    halves = [list(open_loader(images, world=2, rank=rank).epoch(1)) for rank in (0, 1)]
    assert [[len(batch) for batch in half] for half in halves] == [[8, 8, 4]] * 2  # 16 in both together


@settings(max_examples=100, deadline=None)
@given(n=st.integers(3, 60), batch=st.integers(1, 9), n_streams=st.integers(1, 4), length=st.integers(0, 90),
       epoch=st.integers(0, 3), data=st.data())
def test_a_stream_is_what_one_worker_has_had(n: int, batch: int, n_streams: int, length: int, epoch: int,
                                             data: st.DataObject) -> None:
    order = Order(n, batch, seed=0)
    number = data.draw(st.integers(0, order.n_batches - 1))
    past = n_streams * (length + batch) // order.n_batches + 2  # epochs that hold so many images of each stream
    everything = [order.find_batch(e, m).tolist() for e in range(-past, epoch + 1) for m in range(order.n_batches)]
    last = (epoch + past) * order.n_batches + number
    expected = sum(everything[last % n_streams : last + 1 : n_streams], [])
    found = order.find_stream(epoch, number, n_streams, length).tolist()
    assert expected[-len(found) :] == found and len(found) >= length + len(everything[last])


def test_companions_are_drawn_from_what_the_worker_still_has(images: TrainingImages) -> None:
    """Of three times as many pictures as fit hardly any is decoded twice an epoch, and all are companions as often."""
    order = Order(N, 4, seed=0)
    dataset = Batches(images, order, Augmentation(SIDE, 32, "letterbox", {"mosaic": 1.0}), 1, 14 * 3 * 160 * 160)
    assert dataset.window == batches.LEAST_WINDOW
    dataset.window = 14  # 64 do not fit here
    reads, read, drawn, draw = [], dataset._read, [], batches._draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "_read", lambda index: reads.append(index) or read(index))
        patch.setattr(batches, "_draw", lambda *given: drawn.append(draw(*given)) or drawn[-1])
        for epoch in range(20):
            for number in range(order.n_batches):
                assert isinstance(dataset[epoch, number], batches.Packed)
            if epoch == 0:
                reads.clear()  # the first pictures had companions that were not there yet
    assert len(reads) <= 19 * N
    assert 10 * 3 * 160 * 90 < dataset.decoded.held <= dataset.decoded.n_bytes
    counts = np.bincount(np.concatenate(drawn), minlength=N)
    assert counts.sum() == 20 * N * 3 and counts.min() > 30 and counts.max() < 100  # 60 each


@settings(max_examples=100, deadline=None)
@example(sizes=[40, 40, 40], budget=100, asked=[(0, True), (1, True), (0, True), (2, False), (0, False)])
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=12), budget=st.integers(1, 150),
       asked=st.lists(st.tuples(st.integers(0, 11), st.booleans()), max_size=60))
def test_what_is_held_stays_within_the_budget(sizes: list[int], budget: int, asked: list[tuple[int, bool]]) -> None:
    store, loads = batches.Decoded(budget), []

    def read(index: int) -> Sample:
        loads.append(index)
        return Sample(np.full(sizes[index], index, np.uint8), np.zeros((0, 4)), np.zeros(0, int))

    for index, is_own in ((index % len(sizes), is_own) for index, is_own in asked):
        before = list(store.samples)
        assert (store.get(index, read, is_own=is_own).pixels == index).all()
        assert loads == ([] if index in before else [index])
        assert store.held == sum(sample.pixels.nbytes for sample in store.samples.values())
        assert store.held <= budget or len(store.samples) == 1
        if is_own:
            assert list(store.samples)[-1] == index  # the last to go
        elif index in before:
            assert list(store.samples) == before
        loads.clear()


# --- pixels and boxes

@pytest.mark.parametrize("resize", list(get_args(Resize)))
def test_without_hyper_parameters_it_is_the_prepared_picture(images: TrainingImages, resize: Resize) -> None:
    found = [(image, boxes, ids) for batch in open_loader(images, hyp={}, resize=resize, batch=3).epoch(1)
             for image, boxes, ids in zip(batch.images, batch.boxes, batch.class_ids, strict=True)]
    order = np.concatenate([Order(N, 3, seed=3).find_batch(1, number) for number in range(14)])
    for index, (image, boxes, class_ids) in zip(order, found, strict=True):
        pixels = cv2.imread(str(images.paths[index]), cv2.IMREAD_COLOR_RGB)
        expected, matrix = prepare(pixels, SIDE, 32, resize, square=True)
        assert (image.permute(1, 2, 0).numpy() == expected).all()
        expected_boxes = map_boxes(images.boxes[index], matrix)
        np.testing.assert_allclose(boxes, expected_boxes, atol=1e-4)
        assert class_ids.tolist() == images.class_ids[index].tolist()


@pytest.mark.parametrize("resize", list(get_args(Resize)))
def test_plain_batches_hold_each_image_once_as_it_is_prepared_for_inference(
    images: TrainingImages, resize: Resize
) -> None:
    expected = [prepare(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), SIDE, 32, resize) for path in images.paths]
    left = list(range(N))
    for batch in plain_batches(images, SIDE, 7, resize, 32):
        assert 0 < len(batch) <= 7
        for image, boxes, class_ids in zip(batch.images, batch.boxes, batch.class_ids, strict=True):
            pixels = image.permute(1, 2, 0).numpy()
            index = next(i for i in left if np.array_equal(expected[i][0], pixels))
            left.remove(index)
            np.testing.assert_allclose(boxes, map_boxes(images.boxes[index], expected[index][1]), atol=1e-4)
            assert class_ids.tolist() == images.class_ids[index].tolist()
    assert not left


@pytest.mark.parametrize(("fliplr", "flipud"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_mirror_images(images: TrainingImages, mosaic: float, fliplr: float, flipud: float) -> None:
    hyp = read_hyp(mosaic=mosaic, fliplr=0.0, flipud=0.0)
    plain = next(open_loader(images, hyp=hyp).epoch(0))
    found = next(open_loader(images, hyp={**hyp, "fliplr": fliplr, "flipud": flipud}).epoch(0))
    axes = [3] * bool(fliplr) + [2] * bool(flipud)
    assert torch.equal(found.images, plain.images.flip(axes))
    for ours, before in zip(found.boxes, plain.boxes, strict=True):
        expected = before.clone()
        if fliplr:
            expected[:, [0, 2]] = SIDE - before[:, [2, 0]]
        if flipud:
            expected[:, [1, 3]] = SIDE - before[:, [3, 1]]
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


@settings(max_examples=150, deadline=None)
@given(hyp=st.fixed_dictionaries({
    "mosaic": st.sampled_from([0.0, 1.0]), "scale": st.floats(0, 0.7), "translate": st.floats(0, 0.4),
    "degrees": st.sampled_from([0.0, 30.0]), "shear": st.sampled_from([0.0, 8.0]),
    "perspective": st.sampled_from([0.0, 0.0005]), "fliplr": st.just(0.5), "flipud": st.just(0.5)}),
    seed=st.integers(0, 2**32), width=st.integers(60, SIDE), x=st.integers(0, 40), y=st.integers(0, 60))
def test_a_drawn_rectangle_stays_inside_its_box(hyp: dict[str, float], seed: int, width: int, x: int, y: int) -> None:
    """Bright on black. However little of it is left, its box is kept here, so nothing bright lies outside of boxes."""
    pixels = np.zeros((SIDE, width, 3), np.uint8)
    pixels[y : y + 80, x : x + 20] = 255
    sample = Sample(pixels, np.array([[x, y, x + 20.0, y + 80]]), np.zeros(1, np.int64))
    planes, rng = np.empty((3, SIDE, SIDE), np.uint8), np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "LEAST_AREA", -1)
        patch.setattr(augment, "LEAST_SIDE", -1)
        patch.setattr(augment, "MOST_ASPECT", 1e9)
        boxes, _, _ = Augmentation(SIDE, 32, "letterbox", hyp).make_image(0, lambda k: [0] * k, lambda _: sample, rng,
                                                                          planes)
    bright, centres = planes.min(axis=0) > 200, np.arange(SIDE) + 0.5
    is_upright = not (hyp["degrees"] or hyp["shear"] or hyp["perspective"])
    for left, top, right, bottom in boxes:
        columns, rows = (centres > left - 1) & (centres < right + 1), (centres > top - 1) & (centres < bottom + 1)
        if is_upright:  # the box is full, up to the edges, which are smeared over two pixels
            inside = np.ix_((centres > top + 2) & (centres < bottom - 2), (centres > left + 2) & (centres < right - 2))
            assert planes[:, inside[0], inside[1]].min(initial=255) > 200
        bright[np.ix_(rows, columns)] = False
    assert not bright.any()


@settings(max_examples=200, deadline=None)
@example(scale=0.9916853630628955, x=-50.58513581075883, y=101.84226073715965, left=3, top=-7)  # keeps its size
@example(scale=1.48, x=-48.90625, y=-17.0625, left=-20, top=30)  # the first pixel seen has a neighbour before it
@given(scale=st.floats(0.4, 1.6), x=st.floats(-120, 120), y=st.floats(-120, 120), left=st.integers(-60, 200),
       top=st.integers(-60, 200))
def test_without_rotation_pixels_lie_where_the_map_takes_them(scale: float, x: float, y: float, left: int, top: int
                                                              ) -> None:
    """Slopes show a shift: a picture is resized to whole pixels, and so no pixel is off by one or more."""
    high, wide, canvas = 120, 160, 2 * SIDE
    slopes = np.stack([np.add.outer(np.zeros(high), 1.5 * np.arange(wide)),
                       np.add.outer(2.0 * np.arange(high), np.zeros(wide)), np.full((high, wide), 200.0)], axis=2)
    tile = augment.Tile(Sample(slopes.astype(np.uint8), np.zeros((0, 4)), np.zeros(0, np.int64)), left, top)
    matrix, image = np.array([[scale, 0, x], [0, scale, y], [0, 0, 1]]), np.empty((SIDE, SIDE, 3), np.uint8)
    augment.render([tile], canvas, matrix, scale, image)
    columns, rows = (((np.arange(SIDE) + 0.5 - shift) / scale - start for shift, start in ((x, left), (y, top))))
    seen, near = [], []
    for places, start, size in ((rows, top, high), (columns, left, wide)):
        low, high_end = max(0, -start), min(size, canvas - start)
        seen.append((places > low + 2 / scale) & (places < high_end - 2 / scale))
        near.append((places > low - 2 / scale) & (places < high_end + 2 / scale))
    inside = np.ix_(*seen)
    expected = np.stack(np.broadcast_arrays(1.5 * (columns - 0.5), 2 * (rows - 0.5)[:, None]), axis=2)
    apart = np.abs(image[..., :2] - expected)[inside]
    assert (apart <= np.array([1.5, 2]) / scale + 1.5).all()
    assert (image[..., 2][inside] == 200).all()
    outside = np.ones((SIDE, SIDE), bool)
    outside[np.ix_(*near)] = False
    assert (image[outside] == 114).all()


def test_colours_change_as_hue_saturation_and_value_do() -> None:
    colours = np.array([[[200, 100, 50], [10, 200, 90], [120, 120, 120], [30, 60, 220]]], np.uint8)
    gains = np.array([1.1, 0.5, 1.2])
    found = colours.copy()
    augment.change_colours(found, gains)
    for before, after in zip(colours[0], found[0], strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before / 255)
        expected = colorsys.hsv_to_rgb(hue * gains[0] % 1, min(saturation * gains[1], 1), min(value * gains[2], 1))
        np.testing.assert_allclose(after, np.array(expected) * 255, atol=4)


@pytest.mark.parametrize(("changes", "message"), [
    ({"copy_paste": 0.1}, "copy_paste: expected 0"), ({"mosaic": 1.5}, "mosaic: expected a probability"),
    ({"fliplr": -0.1}, "fliplr: expected a probability"), ({"scale": 1.0}, "scale: expected at least 0 and less than"),
])
def test_impossible_hyper_parameters_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(SIDE, 32, "letterbox", changes)


# --- the same distribution as yolov5's

@pytest.fixture(scope="module")
def yolov5() -> Iterator[Any]:
    """yolov5's own modules, as they are."""
    from livestock.models.yolov5 import library

    library.load()
    from yolov5.utils import augmentations, dataloaders

    yield augmentations, dataloaders


@pytest.mark.parametrize("changes", [
    {}, {"mosaic": 0.0, "flipud": 0.5}, {"degrees": 20.0, "shear": 5.0}, {"perspective": 0.0005}, {"mixup": 0.5},
    {"mosaic": 0.5, "scale": 0.0, "translate": 0.0, "hsv_v": 0.0, "hsv_h": 0.0, "hsv_s": 0.0},
])
def test_statistics_are_yolov5s(yolov5: Any, images: TrainingImages, data_yaml: Path, changes: dict[str, float]
                                ) -> None:
    hyp, listed = read_hyp(**changes), str(data_yaml.parent / "list.txt")
    stock = yolov5[1].LoadImagesAndLabels(listed, SIDE, 8, augment=True, hyp=hyp, stride=32)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - yolov5 draws from the global one
    theirs = [stock[index] for _ in range(10) for index in range(N)]
    scale = torch.tensor([1, *[SIDE] * 4])
    expected = statistics([item[0] for item in theirs], [item[1][:, 1:] * scale for item in theirs])
    config = TrainConfig("", "", "", imgsz=SIDE, batch=16, epochs=10, workers=0)
    loader = make_loader(images, hyp, config, "letterbox", 32, Place("cpu"))
    ours = [batch for epoch in range(10) for batch in loader.epoch(epoch)]
    rows = [torch.cat([ids[:, None], boxes[:, :2] / 2 + boxes[:, 2:] / 2, boxes[:, 2:] - boxes[:, :2]], 1)
            for batch in ours for boxes, ids in zip(batch.boxes, batch.class_ids, strict=True)]
    found = statistics([image for batch in ours for image in batch.images], rows)
    for name, values in expected.items():
        assert ks_2samp(found[name], values).pvalue > 0.005, name


def statistics(pictures: list[torch.Tensor], rows: list[torch.Tensor]) -> dict[str, np.ndarray]:
    """Boxes an image, their classes, centres and sizes; of an image the mean, the spread, and shares of its pixels."""
    boxes, pixels = torch.cat(rows).numpy(), torch.stack(pictures).numpy()
    assert pixels.shape == (10 * N, 3, SIDE, SIDE) and pixels.dtype == np.uint8
    means = pixels.reshape(len(pixels), 3, -1).mean(axis=2)
    shares = {f"below {value}": (pixels < value).mean(axis=(1, 2, 3)) for value in (40, 80, 110, 118, 160, 200)}
    return {"boxes": np.array([len(own) for own in rows]), "x": boxes[:, 1], "y": boxes[:, 2], "w": boxes[:, 3],
            "h": boxes[:, 4], "class": boxes[:, 0], "mean": means.mean(axis=1), "red": means[:, 0],
            "deviation": pixels.std(axis=(1, 2, 3)), **shares}


@pytest.mark.parametrize("changes", [{}, {"degrees": 20.0, "shear": 5.0}, {"perspective": 0.002}])
def test_random_maps_are_yolov5s(yolov5: Any, changes: dict[str, float]) -> None:
    """Where one box comes to, over 1500 draws."""
    hyp, n, box, rng = {"scale": 0.5, "translate": 0.1, **changes}, 1500, [30.0, 30, 70, 80], np.random.default_rng(1)
    named = {name: hyp.get(name, 0) for name in ("degrees", "translate", "scale", "shear", "perspective")}
    sample = Sample(np.zeros((96, 96, 3), np.uint8), np.array([box]) - [20, 10, 20, 10], np.zeros(1, np.int64))
    image, canvas, target = np.empty((64, 64, 3), np.uint8), np.zeros((128, 128, 3), np.uint8), np.array([[0, *box]])
    random.seed(1)
    theirs = np.concatenate([yolov5[0].random_perspective(canvas, target, border=(-32, -32), **named)[1][:, 1:]
                             for _ in range(n)])
    ours = np.concatenate([augment.render([augment.Tile(sample, 20, 10)], 128,
                                          *augment.draw_warp(hyp, rng, 128, 64), image).boxes for _ in range(n)])
    assert abs(len(ours) - len(theirs)) < 0.01 * n
    for side in range(4):
        assert ks_2samp(ours[:, side], theirs[:, side]).pvalue > 0.005
    assert np.abs(ours.mean(axis=0) - theirs.mean(axis=0)).max() < 1.2  # px, some three standard errors


def test_boxes_are_kept_as_yolov5_keeps_them(yolov5: Any) -> None:
    rng = np.random.default_rng(0)
    corners, sizes = rng.uniform(0, 100, (2, 3000, 2)), rng.exponential(8, (2, 3000, 2))
    sizes *= rng.choice([0.1, 1, 40], (2, 3000, 1))
    before, after = np.concatenate([corners, corners + sizes], axis=2)
    for scale in (0.5, 1.0, 1.4):
        expected = yolov5[0].box_candidates(before.T * scale, after.T)
        assert 300 < expected.sum() < 2700
        assert (augment.is_kept(before, after, scale) == expected).all()

def test_workers_start_where_opencv_has_used_its_threads(squares: Path) -> None:
    """A fork has OpenCV's pool of threads without the threads: a worker that asks for them waits for ever."""
    script = f"""
import cv2, numpy as np, yaml
from pathlib import Path
from livestock.training.batches import make_loader, read_images
from livestock.training.settings import Place, TrainConfig
cv2.setNumThreads(4)
cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (999, 999))
cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (9, 9), 3)
config = TrainConfig({str(squares)!r}, "", "", 64, 4, 1, workers=2)
loader = make_loader(read_images(Path({str(squares)!r})), {{"mosaic": 1.0}}, config, "letterbox", 32, Place("cpu"))
print(sum(len(batch) for batch in loader.epoch(0)), cv2.getNumThreads())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)  # noqa: S603
    assert done.stdout.split() == ["12", "4"], done.stderr


# -- keypoints -------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(hyp=st.fixed_dictionaries({
    "mosaic": st.sampled_from([0.0, 1.0]), "scale": st.floats(0, 0.5), "translate": st.floats(0, 0.3),
    "degrees": st.sampled_from([0.0, 40.0]), "perspective": st.sampled_from([0.0, 0.0005]),
    "fliplr": st.sampled_from([0.0, 1.0]), "flipud": st.sampled_from([0.0, 1.0])}), seed=st.integers(0, 2**32))
def test_points_go_with_their_pixels(hyp: dict[str, float], seed: int) -> None:
    """A red and a blue disc are each other's mirror image: where one is labelled the picture has its colour, and in a
    mirrored picture that of the other. A third object has no point."""
    pixels, boxes, points = np.zeros((SIDE, 96, 3), np.uint8), [], []
    for x, y in ((14, 30), (70, 100)):
        for place, colour in (((x, y), (250, 0, 0)), ((x + 12, y), (0, 0, 250))):
            cv2.circle(pixels, place, 5, colour, -1)
        boxes.append([x - 6.0, y - 6, x + 18, y + 6])
        points.append([[x + 0.5, y + 0.5, 2], [x + 12.5, y + 0.5, 1]])
    points.append([[0, 0, 0], [0, 0, 0]])
    boxes.append([30, 60, 60, 90])
    sample = Sample(pixels, np.array(boxes), np.arange(3), np.array(points, float))
    planes, rng = np.empty((3, SIDE, SIDE), np.uint8), np.random.default_rng(seed)
    found = Augmentation(SIDE, 32, "letterbox", hyp, flips=(1, 0)).make_image(
        0, lambda k: [0] * k, lambda _: sample, rng, planes)
    assert found.points is not None and len(found.points) == len(found.boxes) == len(found.class_ids)
    for class_id, own in zip(found.class_ids, found.points, strict=True):
        if class_id == 2:
            assert (own == 0).all()
            continue
        assert set(own[:, 2]) <= {0, 1, 2} and (own[own[:, 2] == 0] == 0).all()
        colours = (2, 0) if hyp["fliplr"] != hyp["flipud"] else (0, 2)
        for (x, y, is_there), channel in zip(own, colours, strict=True):
            assert min(x, y) >= 0 and max(x, y) < SIDE
            if is_there:
                colour = planes[:, int(y), int(x)].astype(int)
                assert colour[channel] > colour[2 - channel] + 50


def test_a_point_beyond_the_canvas_is_not_labelled() -> None:
    """A mosaic's tile hangs over the canvas: what is cut off there is not seen, though the map would show the place."""
    sample = Sample(np.zeros((100, 100, 3), np.uint8), np.array([[10.0, 10, 90, 90]]), np.zeros(1, np.int64),
                    np.array([[[20.0, 50, 2], [80, 50, 2]]]))
    image = np.empty((SIDE, SIDE, 3), np.uint8)
    half = np.diag([0.5, 0.5, 1.0])
    found = augment.render([augment.Tile(sample, 60, 0)], 100, half, 0.5, image)  # the canvas ends at 40 of the tile
    assert found.points is not None
    np.testing.assert_allclose(found.points, [[[40, 25, 2], [0, 0, 0]]])


def test_boxes_alone_have_no_points() -> None:
    sample = Sample(np.zeros((100, 100, 3), np.uint8), np.array([[10.0, 10, 90, 90]]), np.zeros(1, np.int64))
    planes = np.empty((3, SIDE, SIDE), np.uint8)
    found = Augmentation(SIDE, 32, "letterbox", {"mosaic": 1.0}).make_image(
        0, lambda k: [0] * k, lambda _: sample, np.random.default_rng(0), planes)
    assert found.points is None
