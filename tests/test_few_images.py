"""Data that make a poor split: one still camera, a handful of images; and groups that people know."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from livestock.config import REPOSITORY
from livestock.data.folds import describe_leak, describe_split, leaky_folds
from livestock.pipeline import evolve
from livestock.pipeline.preflight import NotReadyError, prepare_run
from livestock.pipeline.prepare import SplitTables, read_data, read_tables, split_data
from livestock.pipeline.run import Run
from livestock.pipeline.run import make_run as make_pipeline_run
from livestock.pipeline.silver import assign_teachers
from livestock.pipeline.train import write_dataset

Draw = Callable[[dict[str, int]], Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Draws frames of cameras in YOLO's layout, a pig and a cow on each: `{"cam0": 30}` is a folder of 30 frames."""

    def draw_cameras(n_frames: dict[str, int]) -> Path:
        folder = tmp_path / "raw"
        folder.mkdir()
        (folder / "data.yaml").write_text("names: [pig, cow]\n")
        for number, (camera, n) in enumerate(n_frames.items()):
            scene = np.random.default_rng(number).random((6, 8)) * 200
            still = np.asarray(Image.fromarray(scene.astype(np.uint8)).resize((128, 96)).convert("RGB"))
            for frame in range(n):
                path = folder / "images" / camera / f"{frame}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = np.random.default_rng(frame).integers(0, 6, still.shape, np.uint8)
                Image.fromarray(still + noise).save(path, quality=95)
                label = folder / "labels" / camera / f"{frame}.txt"
                label.parent.mkdir(parents=True, exist_ok=True)
                label.write_text("0 0.3 0.5 0.3 0.4\n1 0.7 0.5 0.3 0.4\n")
        return folder

    return draw_cameras


def make_run(data: Path, competition: str = "") -> Run:
    path = data.parent / "competition.yaml"
    path.write_text(f"name: few\nclasses: {{pig: [pig], cow: [cow]}}\n{competition}")
    return make_pipeline_run(competition=str(path), profile="smoke", workspace=str(data.parent / "work"),
                             data=str(data), reader="yolo", seed=1)


def split(run: Run) -> SplitTables:
    read_data(run)
    return split_data(run)


@pytest.mark.bad_input
def test_frames_of_one_still_camera_are_split_with_a_warning(draw: Draw) -> None:
    run = make_run(draw({"cam0": 30}))
    images = split(run).images
    assert images["group"].nunique() == 1 and sorted(images["fold"].value_counts()) == [6] * 5
    _, boxes = read_tables(run)
    assert "The images form 1 group of near-duplicate frames" in describe_split(images, boxes, run.competition.labels)
    assert describe_leak(read_tables(run)[0], [0]).startswith("fold 0 shares near-duplicate images")


@pytest.mark.bad_input
def test_what_two_images_do_not_suffice_for_says_so(draw: Draw) -> None:
    run = make_run(draw({"cam0": 1, "cam1": 1}))
    found = split(run)
    images, boxes = read_tables(run)
    assert sorted(images["fold"]) == [0, 1]
    assert write_dataset(run, images, boxes).exists()
    with pytest.raises(ValueError, match="fold 4: no image lies in it; 2 images have the folds 0, 1"):
        write_dataset(run, images, boxes, fold=4)
    with pytest.raises(ValueError, match=r"2 images fill only 2, .* leave 03_evolve out \(--skip 03_evolve\)"):
        evolve.write_search_lists(run, found)
    with pytest.raises(ValueError, match=r"2 images fill only 1 beside .* leave 06_silver out \(--skip 06_silver\)"):
        assign_teachers(images, 2)


@pytest.mark.bad_input
def test_it_is_said_before_the_first_training(draw: Draw) -> None:
    run = make_run(draw({"cam0": 2}))
    asked = {"COMPETITION": str(run.data_dir.parent / "competition.yaml"), "PROFILE": "smoke", "SEED": 1,
             "READER": "yolo", "DATA": str(run.data_dir), "WORKSPACE": str(run.workspace.root), "FOLDS": [0, 1, 3]}
    with pytest.raises(NotReadyError) as refusal:
        prepare_run(asked, skip=["06_silver"])
    assert "folds: [3] to train without, but 2 images fill only the folds [0, 1]" in str(refusal.value)
    assert "2 images fill only 2, and 03_evolve needs three; leave out what cannot be done: --skip 03_evolve" in str(
        refusal.value)
    prepare_run(asked | {"FOLDS": [0]}, skip=["06_silver", "03_evolve"])
    (run.data_dir / "groups.csv").write_text("image_id,group\nx.jpg,1\n")
    with pytest.raises(NotReadyError, match="groups.csv: rows that do not fit the images: 1"):
        prepare_run(asked | {"FOLDS": [0]}, skip=["06_silver", "03_evolve"])


@pytest.mark.bad_input
def test_one_image_is_refused(draw: Draw) -> None:
    with pytest.raises(ValueError, match="at least 2 images .* found images: 1"):
        split(make_run(draw({"cam0": 1})))


def test_groups_come_from_paths_and_a_file_and_are_found_anew_when_it_changes(
    draw: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    """Six cameras that look different: each its own group, unless the pattern or the file puts some together."""
    data = draw({f"farm{number % 3}_cam{number}": 2 for number in range(6)})
    assert split(make_run(data)).images["group"].nunique() == 6
    by_farm = split(make_run(data, "group_pattern: (farm[0-9])\n")).images
    assert by_farm["group"].nunique() == 3
    assert by_farm.groupby(by_farm["image_id"].str.extract("(farm[0-9])")[0])["group"].nunique().eq(1).all()
    assert leaky_folds(by_farm) == sorted(by_farm.loc[by_farm["group"] == by_farm["group"].mode()[0], "fold"].unique())
    assert "is not found in" not in caplog.text
    split(make_run(data, "group_pattern: (farm[01])\n"))
    assert "not found in 4 of 12 images, such as 'images/farm2_cam2/0.jpg': they go by" in caplog.text
    (data / "groups.csv").write_text("image_id,group\nimages/farm0_cam0/0.jpg,x\nimages/farm1_cam1/0.jpg,x\n")
    assert split(make_run(data, "group_pattern: (farm[0-9])\n")).images["group"].nunique() == 2
    (data / "groups.csv").write_text("image_id,group\nimages/farm0_cam0/9.jpg,x\n")
    with pytest.raises(ValueError, match=r"groups.csv: rows that do not fit the images: 1.*\nline 2: no image 'im"):
        split(make_run(data))


@pytest.mark.long
@pytest.mark.bad_input
@pytest.mark.parametrize(("cameras", "skip"), [
    ({"cam0": 30}, []), ({"cam0": 1, "cam1": 1}, ["03_evolve", "06_silver"])])
def test_all_notebooks_run_on_few_images(draw: Draw, cameras: dict[str, int], skip: list[str]) -> None:
    """Whatever is there is trained on; what cannot be done with so little is left out by name."""
    run = make_run(draw(cameras))
    command = [sys.executable, "-m", "livestock", "run", "--profile", "smoke", "--data", str(run.data_dir), "--reader",
               "yolo", "--workspace", str(run.workspace.root), "--competition",
               str(run.data_dir.parent / "competition.yaml"), *(f"--skip={name}" for name in skip)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)  # noqa: S603
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert run.workspace.answer_path.exists()
