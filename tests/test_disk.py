"""A disk that is too small is told of before the work, with numbers."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from livestock.config import REPOSITORY, Workspace, get_profile, read_competition
from livestock.files.disk import (
    SPARE_BYTES,
    DiskSpaceError,
    check_disk_space,
    images_disk_bytes,
    training_disk_bytes,
    used_bytes,
)
from livestock.models.base import ModelConfig
from livestock.models.yolov5.library import STARTER
from livestock.pipeline import train as pipeline
from livestock.pipeline.run import Run
from livestock.pipeline.train import Training, write_lists
from livestock.tables import make_boxes, make_images
from livestock.training import TrainConfig, loop, resume

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A disk with 2 GB free; the folders that were asked about."""
    asked: list[Path] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or Usage(9, 9, 2_000_000_000))
    return asked


@pytest.fixture
def run(tmp_path: Path) -> Run:
    competition = read_competition(REPOSITORY / "competition.yaml")
    return Run(competition, get_profile("smoke"), Workspace(tmp_path), tmp_path / "raw", "aihub", 0)


def test_too_little_room_is_told_with_numbers(small_disk: list[Path], tmp_path: Path) -> None:
    check_disk_space(tmp_path, 2_000_000_000 - SPARE_BYTES)
    with pytest.raises(DiskSpaceError, match=r"/runs/new: expected 2\.1 GB of free disk, found 2\.0 GB; delete"):
        check_disk_space(tmp_path / "runs/new", 1_600_000_000)
    assert small_disk == [tmp_path, tmp_path]  # a folder yet to be made is on the disk of the one above
    check_disk_space(tmp_path, 0)  # nothing to write needs nothing


def test_images_are_counted_at_training_size() -> None:
    images = make_images([{"image_id": str(n), "archive": "a", "member": "m", "width": width, "height": height}
                          for n, (width, height) in enumerate([(1920, 1080), (100, 200)])])
    assert images_disk_bytes(images, 1280) == int((1280 * 720 + 100 * 200) * 0.6)
    assert images_disk_bytes(images[:0], 1280) == 0


def test_checkpoints_are_counted_with_what_resumes_them() -> None:
    """Of a file of 1 MB in half precision: twice model, average and moments in float32, and ten files."""
    assert training_disk_bytes(1_000_000) == (2 * 6 + 10) * 1_000_000
    assert training_disk_bytes(1_000_000, "AdamW") == (2 * 8 + 10) * 1_000_000


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_training_takes_no_more_than_was_asked_for(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The most that lies in its folder at any time, seen whenever a file that is written gets its name."""
    model = torch.nn.Linear(300, 300)
    state = loop.State(model, loop.Average(model), getattr(torch.optim, optimizer)(model.parameters(), lr=0.1, **(
        {"momentum": 0.9} if optimizer == "SGD" else {})), torch.amp.GradScaler("cpu", enabled=False))
    config, most, replace_file = ModelConfig("fake", ("pig",), 64), 0, os.replace

    def replace_and_see(source: Path, target: Path) -> None:
        nonlocal most
        most = max(most, used_bytes(tmp_path))
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", replace_and_see)
    for epoch in range(8):
        model(torch.ones(1, 300)).sum().backward()
        state.optimizer.step()
        state.history.append({"epoch": epoch, "AP": epoch / 10})
        resume.keep(state, config, {}, tmp_path, saves=True)
    resume.finish(tmp_path)
    needed = training_disk_bytes((tmp_path / "weights/best.safetensors").stat().st_size, optimizer)
    assert 0.7 * needed < most <= needed
    assert 0 < used_bytes(tmp_path) < most


def test_a_training_asks_before_it_starts(
    small_disk: list[Path], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livestock.training.train", lambda *arguments, **options: pytest.fail("it started"))
    for name in ("d.yaml", "d_train.txt", "d_valid.txt", "hyp.yaml", "interim/boxes.parquet", "interim/folds.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    weights = tmp_path / "weights.safetensors"
    with open(weights, "wb") as file:
        file.truncate(73_000_000)  # 22 times that is more than there is
    config = TrainConfig(data_yaml=str(tmp_path / "d.yaml"), weights=str(weights), imgsz=64, batch=4, epochs=1,
                         hyp=str(tmp_path / "hyp.yaml"))
    with pytest.raises(DiskSpaceError, match=r"train_fold0_\w+: expected 2\.1 GB"):
        pipeline.train(run, Training("fold", 0), config)
    with pytest.raises(pytest.fail.Exception, match="it started"):
        pipeline.train(run, Training("fold", 0), replace(config, weights=str(STARTER)))


def test_a_data_set_asks_before_it_is_written(small_disk: list[Path], run: Run, tmp_path: Path) -> None:
    images = make_images([{"image_id": f"{n}.jpg", "archive": str(tmp_path), "member": f"{n}.jpg", "width": 40_000,
                           "height": 40_000} for n in range(2)]).assign(fold=0)
    for name in images["member"]:
        (tmp_path / name).touch()
    run = replace(run, profile=replace(run.profile, imgsz=40_000))
    run.workspace.interim_dir.mkdir()
    for table in ("images", "boxes", "folds"):
        (run.workspace.interim_dir / f"{table}.parquet").touch()
    with pytest.raises(DiskSpaceError, match=r"expected 2\.4 GB"):
        write_lists(run, "fold0", images, make_boxes([]), images["image_id"], images["image_id"])
    assert not run.workspace.yolo_dir.exists()
