"""What a run says it will need: the images that are there, the trainings that would start, their disk."""

from __future__ import annotations

import io
import logging
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
from corpus import aihub_json
from PIL import Image

from livestock.config import REPOSITORY
from livestock.exceptions import BadData
from livestock.files.disk import DiskSpaceError, images_disk_bytes, training_disk_bytes
from livestock.models.checkpoint import trained_bytes
from livestock.models.registry import get_family
from livestock.models.yolov5.library import STARTER
from livestock.pipeline import notebooks
from livestock.pipeline.expectation import count_images, expect, list_trainings
from livestock.pipeline.run import Run, make_run
from livestock.training import watch

Usage = namedtuple("Usage", ["total", "used", "free"])


def picture(width: int, height: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height)).save(content, "JPEG")
    return content.getvalue()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Four images of 640 x 360 px, three of them in a zip."""
    run = make_run(
        competition=str(REPOSITORY / "competition.yaml"), profile="demo", workspace=str(tmp_path / "work"),
        data=str(tmp_path / "raw"), reader="aihub", seed=0)
    (run.data_dir / "train").mkdir(parents=True)
    label = aihub_json(image='{"width": 640, "height": 360}')
    (run.data_dir / "train/livestock_cow_0.jpg").write_bytes(picture(640, 360))
    (run.data_dir / "train/livestock_cow_0.json").write_text(label)
    with ZipFile(run.data_dir / "train/a.zip", "w") as archive:
        for number in (1, 2, 3):
            archive.writestr(f"livestock_cow_{number}.jpg", picture(640, 360))
            archive.writestr(f"livestock_cow_{number}.json", label)
    return run


def chosen(skip: tuple[str, ...] = (), **parameters: object) -> dict[str, dict]:
    return {path.stem: own for path, own in notebooks.choose_notebooks(parameters, skip).items()}


def test_images_are_counted_in_folders_and_zips(run: Run) -> None:
    images = count_images(run.data_dir, run.workspace.root)
    assert images.to_numpy().tolist() == [[640, 360]] * 4
    run.workspace.root.mkdir()
    with pytest.raises(ValueError, match="expected images or zips of images, found none"):
        count_images(run.workspace.root, run.workspace.root / "none")


def test_the_demo_has_as_many_trainings_as_it_starts(run: Run) -> None:
    """Four trials, start and best with two seeds; one fold; two teachers and a student; the final model."""
    trainings = list_trainings(run, chosen())
    assert len(trainings) == 4 + 2 * 2 + 1 + 2 + 1 + 1
    assert [share for share, _ in trainings[-3:]] == [0.4, 0.8, 1.0]
    assert len(list_trainings(run, chosen(N_SEEDS=3))) == 4 + 2 * 2 + 1 + 2 + 5 + 1
    assert list_trainings(run, chosen(("03_evolve", "06_silver", "07_final"), FOLDS=[0, 1])) == [(0.8, 4)] * 2


def test_trainings_and_disk_follow_from_images_and_sizes(run: Run) -> None:
    found = expect(run, chosen(("03_evolve", "06_silver", "07_final")))
    assert (found.n_images, found.n_trainings, found.image_epochs) == (4, 1, pytest.approx(0.8 * 4 * 4))
    images = count_images(run.data_dir, run.workspace.root)
    assert found.disk_bytes == images_disk_bytes(images, 320) + training_disk_bytes(STARTER.stat().st_size)
    assert "4 images, 1 trainings, 13 images to train on in all" in str(found)


def test_without_a_training_no_weights_are_asked_for(run: Run) -> None:
    lost = replace(run, profile=replace(run.profile, weights="lost.safetensors"))
    with pytest.raises(BadData, match="lost.safetensors"):
        expect(lost, chosen())
    found = expect(lost, chosen(("03_evolve", "04_train", "06_silver", "07_final")))
    images = count_images(run.data_dir, run.workspace.root)
    assert (found.n_trainings, found.disk_bytes) == (0, images_disk_bytes(images, 320))


def test_the_disk_of_random_start_weights_is_that_of_such_a_network(run: Run) -> None:
    random = make_run(workspace=run.workspace.root, profile="demo", data=run.data_dir, reader="aihub",
                      competition=REPOSITORY / "competition.yaml", overrides={"family": "retinanet"})
    alone = chosen(("03_evolve", "06_silver", "07_final"))
    n_bytes = trained_bytes(get_family("retinanet").configure(["pig", "cow"], 320, "resnet18"))
    assert expect(random, alone).disk_bytes - expect(run, alone).disk_bytes == (
        training_disk_bytes(n_bytes) - training_disk_bytes(STARTER.stat().st_size))


def test_a_training_says_after_its_first_epoch_how_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock = iter([100.0, 160.0, 220.0, 280.0])
    monkeypatch.setattr(watch.time, "monotonic", lambda: next(clock))
    pace = watch.Pace(epochs=21)
    for done in (0.1, 0.6, 1.1, 1.6):  # an epoch in two minutes
        pace.see(done)
    assert caplog.messages == ["training: about 40 minutes for the other 20 epochs"]


def test_too_small_a_disk_is_told_before_anything_runs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(9, 9, 100_000_000))
    monkeypatch.setattr(notebooks, "run_notebooks", lambda *arguments: pytest.fail("a notebook was started"))
    parameters = {"PROFILE": "demo", "SEED": 0, "DATA": str(run.data_dir), "READER": "aihub", "WEIGHTS": "",
                  "WORKSPACE": str(run.workspace.root), "COMPETITION": str(REPOSITORY / "competition.yaml")}
    with pytest.raises(DiskSpaceError, match="GB of free disk, found 0.1 GB"):
        notebooks.run_all(parameters)
