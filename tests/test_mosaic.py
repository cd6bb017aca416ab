"""Training images are what yolov5 makes of the same random numbers; with too many for memory, of the same kind."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torch.utils.data import BatchSampler, DistributedSampler

from livestock.config import REPOSITORY
from livestock.models.yolov5 import compat, mosaic, order

SIZES = [(160, 90), (160, 120), (120, 160), (100, 57)]  # wide, high, smaller than the training size


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of soft spots, each with some boxes, of several shapes, from dark to bright."""
    folder, rng = tmp_path_factory.mktemp("yolo"), np.random.default_rng(0)
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for number in range(40):
        width, height = SIZES[number % len(SIZES)]
        spots = rng.integers(3 * number, 3 * number + 130, (height // 16, width // 16, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"images/{number:02d}.png"), cv2.resize(spots, (width, height)))
        size = rng.uniform(0.05, 0.3, (3, 2))
        centre = size / 2 + rng.random((3, 2)) * (1 - size)
        rows = np.column_stack([rng.integers(0, 2, 3), centre, size])
        np.savetxt(folder / f"labels/{number:02d}.txt", rows, fmt=["%d", *["%.6f"] * 4])
    (folder / "list.txt").write_text("".join(f"./images/{number:02d}.png\n" for number in range(40)))
    return folder


@pytest.fixture
def stock() -> Iterator[type]:
    """yolov5's class, put back afterwards as it was."""
    compat.apply()
    from yolov5.utils import dataloaders
    from yolov5.utils.dataloaders import LoadImagesAndLabels

    with pytest.MonkeyPatch.context() as patch:
        for name in ("load_image", "load_mosaic", "__getitem__", "collate_fn"):
            patch.setattr(LoadImagesAndLabels, name, vars(LoadImagesAndLabels)[name])
        patch.setattr(dataloaders, "_RepeatSampler", dataloaders._RepeatSampler)
        patch.setattr(LoadImagesAndLabels, "__getitems__", None, raising=False)
        yield LoadImagesAndLabels


def read_hyp(**changes: float) -> dict[str, Any]:
    return {**yaml.safe_load((REPOSITORY / "hyp/baseline.yaml").read_text(encoding="utf-8")), **changes}


def make_dataset(stock: Any, folder: Path, hyp: dict[str, Any]) -> Any:
    return stock(str(folder / "list.txt"), 160, 8, augment=True, hyp=hyp, stride=32, workers=0)


def draw(dataset: Any, indices: list[int]) -> list[Any]:
    """Items of a data set from one seed of all that augmentation draws from."""
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - yolov5 draws from the global one
    return [dataset[index] for index in indices]


@pytest.mark.parametrize("changes", [
    {}, {"mosaic": 0.0, "flipud": 0.5}, {"degrees": 20.0, "shear": 5.0}, {"perspective": 0.0005}, {"mixup": 0.5},
    {"scale": 0.0, "translate": 0.0}, {"mosaic": 0.5, "hsv_v": 0.0, "hsv_h": 0.0, "hsv_s": 0.0},
])
def test_an_item_is_what_yolov5_makes(stock: Any, folder: Path, changes: dict[str, float]) -> None:
    hyp = read_hyp(**changes)
    expected = draw(make_dataset(stock, folder, hyp), list(range(40)))
    mosaic.speed_up()
    found = draw(make_dataset(stock, folder, hyp), list(range(40)))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours[1], theirs[1]) and ours[2:] == theirs[2:]
        assert ours[0].dtype == torch.uint8 and ours[0].is_contiguous()
        apart = (ours[0].int() - theirs[0].int()).abs()
        # OpenCV counts in 1/32 px, and at the edge between two pictures yolov5 mixes them over one pixel.
        assert apart.float().mean() < 1.5 and (apart > 12).float().mean() < 0.03
    assert torch.equal(stock.collate_fn(expected)[0], torch.stack([item[0] for item in expected]))


def epochs_of_batches(folder: Path, *, workers: int, start_epoch: int, n_epochs: int, seed: int = 3) -> list[Any]:
    from yolov5.utils.dataloaders import create_dataloader

    order.seed_batches(seed, start_epoch)
    loader, _ = create_dataloader(str(folder / "list.txt"), 160, 16, 32, hyp=read_hyp(mosaic=0.5), augment=True,
                                  workers=workers, shuffle=True)
    return [list(loader) for _ in range(n_epochs)]


def test_an_epoch_is_the_same_whatever_came_before_and_however_many_workers_draw_it(stock: Any, folder: Path) -> None:
    mosaic.speed_up()
    expected = epochs_of_batches(folder, workers=2, start_epoch=0, n_epochs=3)
    for workers in (0, 1, 2):
        (found,) = epochs_of_batches(folder, workers=workers, start_epoch=2, n_epochs=1)
        assert len(found) == 3  # 16, 16 and 8 images
        for ours, theirs in zip(found, expected[2], strict=True):
            assert ours[2] == theirs[2] and torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    paths = [[path for batch in epoch for path in batch[2]] for epoch in expected]
    assert all(len(set(epoch)) == 40 for epoch in paths) and paths[0] != paths[1] != paths[2] != paths[0]
    (other,) = epochs_of_batches(folder, workers=0, start_epoch=2, n_epochs=1, seed=4)
    assert [path for batch in other for path in batch[2]] != paths[2]
    assert len({float(batch[0].float().mean()) for epoch in expected for batch in epoch}) == 9


def test_validation_keeps_its_order(stock: Any, folder: Path) -> None:
    from yolov5.utils.dataloaders import create_dataloader

    order.seed_batches(0, 0)
    loader, dataset = create_dataloader(str(folder / "list.txt"), 160, 16, 32, rect=True, workers=0)
    assert [path for batch in loader for path in batch[2]] == list(dataset.im_files)


def test_several_gpus_share_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        sampler = DistributedSampler(cast(Any, range(40)), num_replicas=2, rank=rank, shuffle=True)
        batches = iter(order.SeededBatches(BatchSampler(sampler, 8, drop_last=False), seed=0, start_epoch=1))
        asked.append([[next(batches) for _ in range(3)] for _ in range(2)])
    for epoch in (0, 1):
        images = [index for rank in (0, 1) for batch in asked[rank][epoch] for index in batch.indices]
        assert sorted(images) == list(range(40))
    assert asked[0][0][0].indices != asked[0][1][0].indices
    assert len({batch.seed for rank in asked for epoch in rank for batch in epoch}) == 12


def test_pixels_stand_where_their_boxes_are(stock: Any, tmp_path: Path) -> None:
    """A bright square with a box around it, on black: after the warp the box is still around all that is bright."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for number in range(4):
        picture = np.zeros((90, 160, 3), np.uint8)
        picture[27:63, 48:112] = 255
        cv2.imwrite(str(tmp_path / f"images/{number}.png"), picture)
        (tmp_path / f"labels/{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (tmp_path / "list.txt").write_text("".join(f"./images/{number}.png\n" for number in range(4)))
    mosaic.speed_up()
    hyp = read_hyp(hsv_h=0.0, hsv_s=0.0, hsv_v=0.0, scale=0.3)
    for picture, labels, *_ in draw(make_dataset(stock, tmp_path, hyp), [0, 1, 2, 3] * 5):
        bright = (picture.amin(0) > 200).numpy()
        for x, y, w, h in (labels[:, 2:] * 160).numpy():
            low, high = np.array([y - h / 2, x - w / 2]), np.array([y + h / 2, x + w / 2])
            inside, around = ([slice(*pair) for pair in np.column_stack([(low + margin).clip(0).round().astype(int),
                                                                         (high - margin).round().astype(int)])]
                              for margin in (1.5, -1.5))
            assert bright[tuple(inside)].mean() > 0.99
            bright[tuple(around)] = False
        assert bright.sum() < 60  # slivers of squares of which yolov5 drops the box


def test_with_too_many_for_memory_the_distribution_stays(stock: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
                                                         ) -> None:
    hyp, rng = read_hyp(), np.random.default_rng(2)
    order = [int(index) for _ in range(10) for index in rng.permutation(40)]
    expected = statistics(draw(make_dataset(stock, folder, hyp), order))
    monkeypatch.setattr(mosaic, "CACHE_BYTES", 12 * 160 * 120 * 3)  # of 40 pictures some 13 to 15
    monkeypatch.setattr(mosaic, "get_worker_info", lambda: SimpleNamespace(num_workers=1))
    mosaic.speed_up()
    dataset = make_dataset(stock, folder, hyp)
    found = statistics(draw(dataset, order))
    assert dataset.decoded.is_full and 10 < len(dataset.decoded.pictures) < 20
    for name, values in expected.items():
        assert ks_2samp(found[name], values).pvalue > 0.01, name


def statistics(items: list[Any]) -> dict[str, np.ndarray]:
    """Of training images: boxes an image, their sizes, places and classes, and the histogram of the pixels."""
    boxes = torch.cat([item[1] for item in items]).numpy()
    pixels = torch.stack([item[0] for item in items]).numpy()
    means = pixels.reshape(len(items), 3, -1).mean(axis=2)
    some = pixels[:, :, ::53, ::53].ravel()  # neighbours are alike
    return {"boxes": np.array([len(item[1]) for item in items]), "x": boxes[:, 2], "y": boxes[:, 3], "w": boxes[:, 4],
            "h": boxes[:, 5], "class": boxes[:, 1], "mean": means.mean(axis=1), "red": means[:, 0],
            "deviation": pixels.std(axis=(1, 2, 3)), "pixels": np.random.default_rng(0).choice(some, 1500)}


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=12), budget=st.integers(1, 150),
       asked=st.lists(st.integers(0, 11), max_size=60))
def test_what_is_held_stays_within_the_budget(sizes: list[int], budget: int, asked: list[int]) -> None:
    store, loads = mosaic.Decoded(budget), []

    def load(index: int) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
        loads.append(index)
        return np.full(sizes[index], index, np.uint8), (1, 1), (1, 1)

    for index in (index % len(sizes) for index in asked):
        before = set(store.pictures)
        assert (store.get(index, load)[0] == index).all()
        assert loads == ([] if index in before else [index])
        held = sum(picture.nbytes for picture, *_ in store.pictures.values())
        assert held == store.held and (held <= budget or len(store.pictures) == 1)
        loads.clear()
    if sum(sizes) <= budget:
        assert not store.is_full
    outside = range(1000, 1010)
    assert set(store.choose(outside, 2000)) == set(outside)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mosaic, "get_worker_info", lambda: SimpleNamespace(num_workers=1))
        assert set(store.choose(outside, 2000)) == set(store.pictures if store.is_full else outside)


@settings(max_examples=200, deadline=None)
@example(scale=0.9916853630628955, x=-50.58513581075883, y=101.84226073715965, wide=94, high=25)  # keeps its size
@example(scale=1.48, x=-48.90625, y=-17.0625, wide=94, high=76)  # the first pixel seen has a neighbour before it
@given(scale=st.floats(0.4, 1.6), x=st.floats(-120, 120), y=st.floats(-120, 120), wide=st.integers(20, 160),
       high=st.integers(20, 120))
def test_scaled_pixels_are_those_of_a_warp(scale: float, x: float, y: float, wide: int, high: int) -> None:
    """Slopes show a shift, and a pattern a loss of sharpness; a picture ends where its pixels do."""
    tile = np.stack([np.add.outer(np.zeros(high), 1.5 * np.arange(wide)), np.add.outer(2 * np.arange(high), np.zeros(
        wide)), np.add.outer(np.arange(high), np.arange(wide)) % 7 * 30], axis=2).astype(np.uint8)
    matrix = np.array([[scale, 0, x], [0, scale, y]])
    canvas = mosaic.Canvas((high, wide, 3), 114, np.uint8)
    canvas[0:high, 0:wide] = tile
    found = mosaic.warp(cv2.warpAffine, canvas, matrix, (160, 120)).astype(int)
    expected = cv2.warpAffine(tile, matrix, (160, 120), borderMode=cv2.BORDER_REPLICATE).astype(int)
    rows, columns = (np.arange(n) for n in (120, 160))
    inside = np.ix_((rows >= scale * -0.5 + y) & (rows < scale * (high - 0.5) + y),
                    (columns >= scale * -0.5 + x) & (columns < scale * (wide - 0.5) + x))
    assert (np.abs(found - expected)[inside] <= [1, 1, 18]).all()
    outside = np.ones((120, 160), bool)
    outside[inside] = False
    assert (found[outside] == 114).all()


@pytest.mark.parametrize("matrix", [
    [[0.7, 0.0, -20.0], [0.0, 0.7, -31.5]], [[1.4, 0.0, -150.2], [0.0, 1.4, 12.0]], [[0.6, 0.2, 3.0], [-0.1, 0.8, 9.0]],
    [[1.0, 0.0, 500.0], [0.0, 1.0, 0.0]], [[1.0, 0.3, -900.0], [0.0, 1.0, 0.0]],
])
def test_a_canvas_warps_as_its_pixels_do(matrix: list[list[float]]) -> None:
    """Also where nothing of it is seen."""
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 16, 3)).astype(np.uint8), (160, 120))
    canvas, pixels = mosaic.Canvas((320, 320, 3), 114, np.uint8), np.full((320, 320, 3), 114, np.uint8)
    for target in (canvas, pixels):
        target[40:160, 10:170] = smooth
    expected = cv2.warpAffine(pixels, np.array(matrix), (160, 160), borderValue=(114,) * 3)
    found = mosaic.warp(cv2.warpAffine, canvas, np.array(matrix), (160, 160), borderValue=(114,) * 3)
    assert found.shape == expected.shape
    apart = np.abs(found.astype(int) - expected).max(axis=2)
    assert (apart > 6).mean() < 0.02 and apart.mean() < 1
