"""Pictures that are too thin to learn from are left out of a training, by yolov5's own bound, and named."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from livestock.config import REPOSITORY
from livestock.data import dataset
from livestock.data.pictures import too_thin
from livestock.models.yolov5 import library
from livestock.pipeline.run import Run
from livestock.pipeline.run import make_run as make_pipeline_run
from livestock.pipeline.train import read_left_out, write_dataset
from livestock.tables import make_boxes, make_images, write_table

SIZES = [(64, 48), (2000, 33), (33, 2000), (64, 9), (64, 10), (1, 1), (10, 10), (9, 64), (640, 96), (640, 94), (50, 60)]
THIN_AT_64 = [False, True, True, True, False, True, False, True, False, True, False]


def save(folder: Path) -> pd.DataFrame:
    """Pictures of `SIZES`, as an images table with two folds."""
    rng, records = np.random.default_rng(0), []
    folder.mkdir()
    for number, (width, height) in enumerate(SIZES):
        name = f"{number:02d}.png"
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (height, width, 3), np.uint8))
        records.append({"image_id": name, "archive": str(folder), "member": name, "width": width, "height": height})
    return make_images(records).assign(group=range(len(SIZES)), fold=[min(n % 3, 1) for n in range(len(SIZES))])


def test_what_is_too_thin_is_what_yolov5_ignores(tmp_path: Path) -> None:
    """By its own check of the files that are written at training size."""
    library.load()
    from yolov5.utils.dataloaders import verify_image_label

    images = save(tmp_path / "pictures")
    assert too_thin(images, 64).tolist() == THIN_AT_64
    for imgsz in (64, 320):
        directory = tmp_path / str(imgsz)
        dataset.write_images(images, directory, imgsz)
        ignored = [verify_image_label((str(directory / "images" / dataset.file_name(name)), "", ""))[0] is None
                   for name in images["image_id"]]
        assert too_thin(images, imgsz).tolist() == ignored


def make_run(tmp_path: Path, images: pd.DataFrame) -> tuple[Run, pd.DataFrame]:
    """A run of the profile `smoke`, 64 px, whose images are read and split; a box in each."""
    run = make_pipeline_run(competition=str(REPOSITORY / "competition.yaml"), profile="smoke", data=str(tmp_path),
                            workspace=str(tmp_path / "work"), reader="yolo", seed=0)
    boxes = make_boxes([{"image_id": name, "label": "pig", "x_min": 0, "y_min": 0, "x_max": 1, "y_max": 1}
                        for name in images["image_id"]])
    for name, table in (("images", images), ("boxes", boxes), ("folds", images)):
        write_table(table, run.workspace.interim_dir / f"{name}.parquet")
    return run, boxes


def test_thin_images_are_in_no_list_and_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = save(tmp_path / "pictures")
    run, boxes = make_run(tmp_path, images)
    data_yaml = write_dataset(run, images, boxes)
    left_out = read_left_out(data_yaml)
    assert left_out["image_id"].tolist() == images.loc[THIN_AT_64, "image_id"].tolist()
    assert left_out["reason"][0] == "2000 x 33 px has a side below 10 px at 64 px: nothing to learn from"
    said = "fold0: left out of training, thinner than 10 px at 64 px: 6 images, 01.png, 02.png"
    assert said in capsys.readouterr().out
    listed = [line for part in ("train", "valid")
              for line in (data_yaml.parent / f"fold0_{part}.txt").read_text().splitlines()]
    whole = images.loc[~np.array(THIN_AT_64), "image_id"]
    assert sorted(listed) == sorted(f"./images/{dataset.file_name(name)}" for name in whole)


@pytest.mark.bad_input
def test_a_fold_of_thin_images_alone_is_refused_before_training(tmp_path: Path) -> None:
    images = save(tmp_path / "pictures")
    images["fold"] = [int(not thin) for thin in THIN_AT_64]
    run, boxes = make_run(tmp_path, images)
    with pytest.raises(ValueError, match=r"fold0: expected images to validate on, found 6 and all of them thinner"):
        write_dataset(run, images, boxes)
