"""Raw data examined before anything is trained: what cannot be decoded, where results lie, and `livestock read`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from corpus import jpeg, zipped
from corpus_images import encode, half, noise
from typer.testing import CliRunner

from livestock.cli import app
from livestock.config import REPOSITORY, read_competition
from livestock.data.readers import clean
from livestock.pipeline.expectation import count_images
from livestock.pipeline.prepare import read_data
from livestock.pipeline.reading import UNDECODABLE, examine
from livestock.pipeline.run import Run
from livestock.pipeline.run import make_run as make_pipeline_run

COMPETITION = read_competition(REPOSITORY / "competition.yaml")
LINE = b"0 0.5 0.5 0.4 0.4\n"


def picture(seed: int) -> bytes:
    """A picture that is no near-duplicate of another."""
    from PIL import Image

    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return encode(Image.fromarray(small).resize((96, 64)), quality=95)


def write_data(folder: Path, n_images: int = 6) -> Path:
    """YOLO data in one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text("names: [pig, cow]")
    for number in range(n_images):
        (folder / f"{number}.jpg").write_bytes(picture(number))
        (folder / f"{number}.txt").write_bytes(LINE)
    return folder


def make_run(data: Path, workspace: Path) -> Run:
    """A run of the smallest profile."""
    return make_pipeline_run(competition=str(REPOSITORY / "competition.yaml"), profile="smoke", seed=1, reader="auto",
                             workspace=str(workspace), data=str(data))


@pytest.mark.bad_input
def test_every_broken_picture_is_left_out_with_its_line(tmp_path: Path) -> None:
    """Truncated files have good headers; however many there are, one reading lists them all."""
    data = write_data(tmp_path / "train", 4)
    for name, content in {"4": half(encode(noise())), "5": half(encode(noise())) + bytes(40_000), "6": b"no"}.items():
        (data / f"{name}.jpg").write_bytes(content)
        (data / f"{name}.txt").write_bytes(LINE)
    (tmp_path / "test").mkdir()
    (tmp_path / "test/0.jpg").write_bytes(picture(20))
    (tmp_path / "test/1.jpg").write_bytes(half(encode(noise())))
    found = examine("auto", tmp_path, COMPETITION)
    assert found.images["image_id"].tolist() == [f"train/{number}.jpg" for number in range(4)]
    assert found.boxes["image_id"].tolist() == found.images["image_id"].tolist() == found.hashes.index.tolist()
    assert found.test_images["image_id"].tolist() == ["test/0.jpg"]
    lines = found.left_out[found.left_out["image_id"] != ""][["image_id", "reason"]].to_numpy().tolist()
    assert sorted(lines) == sorted([
        ["train/4.jpg", UNDECODABLE], ["train/5.jpg", UNDECODABLE], ["test/1.jpg", UNDECODABLE],
        ["train/6.jpg", clean.UNREADABLE_IMAGE], ["train/6.jpg", clean.NO_IMAGE]])
    trained = [f"train/{number}.jpg" for number in range(7)]
    assert sorted(found.pictures) == sorted([*trained, "test/0.jpg", "test/1.jpg"])


@pytest.mark.bad_input
def test_data_of_which_nothing_can_be_decoded_is_refused(tmp_path: Path) -> None:
    write_data(tmp_path, 1)
    (tmp_path / "0.jpg").write_bytes(half(encode(noise())))
    with pytest.raises(ValueError, match=r"none of 1 images can be decoded; the first: .*0\.jpg: .*truncated"):
        examine("auto", tmp_path, COMPETITION)


@pytest.mark.bad_input
def test_a_workspace_in_the_data_is_not_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "farm")
    run = make_run(data, data / "out")
    first = read_data(run)
    (run.workspace.yolo_dir / "64_x/images").mkdir(parents=True)
    (run.workspace.yolo_dir / "64_x/images/0-a.jpg").write_bytes(picture(0))
    (run.workspace.yolo_dir / "64_x/images/0-a.txt").write_bytes(LINE)
    second = read_data(run)
    pd.testing.assert_frame_equal(first.images, second.images)
    assert len(second.images) == 6
    assert "read: done before, skipped" in capsys.readouterr().out
    other = read_data(make_run(data, data / "other"))
    assert len(other.images) == 6
    assert other.left_out["reason"].tolist() == [clean.RESULTS]
    assert len(count_images(data, data / "other")) == 6


@pytest.mark.bad_input
def test_a_workspace_on_top_of_the_data_is_refused(tmp_path: Path) -> None:
    data = write_data(tmp_path / "farm")
    with pytest.raises(ValueError, match="the data folder is the workspace too"):
        read_data(make_run(data, data))


@pytest.mark.bad_input
def test_data_without_a_box_is_refused_with_the_reasons(tmp_path: Path) -> None:
    data = write_data(tmp_path / "farm", 2)
    (data / "0.txt").write_bytes(b"")
    (data / "1.txt").write_bytes(b"2 0.5 0.5 0.4 0.4")
    (data / "data.yaml").write_text("names: [pig, cow, goat]")
    with pytest.raises(ValueError, match="no box of any class in 2 images, read as yolo.*does not know: goat"):
        read_data(make_run(data, tmp_path / "work"))


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def test_read_says_what_is_there_and_writes_tables(tmp_path: Path) -> None:
    write_data(tmp_path / "farm/train", 5)
    (tmp_path / "farm/train/5.jpg").write_bytes(picture(5))
    write_data(tmp_path / "farm/valid", 2)
    (tmp_path / "farm/test").mkdir()
    (tmp_path / "farm/test/0.jpg").write_bytes(picture(9))
    out = tmp_path / "out"
    code, printed, _ = call("read", str(tmp_path / "farm"), "--out", str(out), "--competition",
                            str(REPOSITORY / "competition.yaml"))
    lines = [line.split() for line in printed.splitlines()]
    assert code == 0
    assert lines[0][:6] == [f"{tmp_path}/farm:", "read", "as", "yolo,", "7", "text"]
    assert ["train", "5", "0", "5", "0"] in lines  # images, without box, pig and cow boxes
    assert ["valid", "2", "0", "2", "0"] in lines
    assert ["test,", "to", "be", "answered", "1", "-", "-", "-"] in lines
    assert "image sizes: 96 x 64 (8)" in printed
    assert f"1 x {clean.NO_LABEL}" in printed
    images, boxes = pd.read_parquet(out / "images.parquet"), pd.read_parquet(out / "boxes.parquet")
    assert (len(images), len(boxes)) == (8, 7)
    assert pd.read_csv(out / "left_out.csv")["image_id"].tolist() == ["train/5.jpg"]
    assert (out / "read.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.bad_input
def test_read_ends_with_what_is_wrong(tmp_path: Path) -> None:
    competition = ("--competition", str(REPOSITORY / "competition.yaml"))
    (tmp_path / "a.jpg").write_bytes(jpeg())
    code, _, error = call("read", str(tmp_path), *competition)
    assert (code, len(error.splitlines())) == (2, 1)
    assert "no label format recognised" in error
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "classes.txt").write_bytes(b"pig")
    code, printed, _ = call("read", str(tmp_path), *competition)
    assert code == 1
    assert "no box of any class: nothing could be trained on this" in printed


@pytest.mark.bad_input
def test_read_writes_nothing_into_the_data(tmp_path: Path) -> None:
    data = write_data(tmp_path / "farm", 2)
    for option in ("--picture", "--out"):
        code, _, error = call("read", str(data), option, str(data / "seen"), "--competition",
                              str(REPOSITORY / "competition.yaml"))
        assert code == 2
        assert "lies in the data" in error
    assert sorted(path.name for path in data.iterdir()) == ["0.jpg", "0.txt", "1.jpg", "1.txt", "data.yaml"]


def test_read_takes_a_zip(tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in write_data(tmp_path / "farm", 3).iterdir()}
    (tmp_path / "farm.zip").write_bytes(zipped(files))
    code, printed, _ = call("read", str(tmp_path / "farm.zip"), "--competition", str(REPOSITORY / "competition.yaml"),
                            "--picture", str(tmp_path / "seen.png"))
    assert code == 0
    assert "read as yolo" in printed
    assert (tmp_path / "seen.png").exists()
