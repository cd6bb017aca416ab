"""The command's words and exit codes."""

import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
from PIL import Image
from safetensors import safe_open
from small_models import Sample, draw_scored_sample, write_lively
from typer.testing import CliRunner

from livestock.cli import app
from livestock.config import REPOSITORY
from livestock.data.archives import read_image
from livestock.evaluation import evaluate
from livestock.models.checkpoint import read_checkpoint
from livestock.models.yolov5.library import STARTER
from livestock.pipeline.run import make_run
from livestock.tables import XYXY, make_boxes

TRUTH_HEADER = "ImageID,LabelName,XMin,XMax,YMin,YMax\n"
HEADER = "ImageID,LabelName,Conf,XMin,XMax,YMin,YMax\n"
TRUTH = "a.jpg,cow,0,0.4,0,1\nb.jpg,cow,0,0.4,0,1\nb.jpg,pig,0.5,1,0,1\n"
RISING = "a.jpg,cow,0.2,0,0.4,0,1\na.jpg,cow,0.9,0,0.41,0,1\nb.jpg,cow,0.5,0,0.4,0,1\n"
FALLING = "a.jpg,cow,0.9,0,0.41,0,1\na.jpg,cow,0.2,0,0.4,0,1\nb.jpg,cow,0.5,0,0.4,0,1\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with truth, answers, images and weights, and in it the shell."""
    (tmp_path / "truth.csv").write_text(TRUTH_HEADER + TRUTH)
    (tmp_path / "rising.csv").write_text(HEADER + RISING)
    (tmp_path / "falling.csv").write_text(HEADER + FALLING)
    shutil.copy(REPOSITORY / "src/livestock/models/yolov5/starter.safetensors", tmp_path / "best.safetensors")
    shutil.copy(REPOSITORY / "competition.yaml", tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "test").mkdir()
    Image.new("RGB", (100, 50)).save(tmp_path / "test" / "a.jpg")
    with zipfile.ZipFile(tmp_path / "test" / "rest.zip", "w") as archive:
        archive.write(tmp_path / "test" / "a.jpg", "소/b.jpg")
        archive.writestr("소/b.json", b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_metadata(path):
    """The header of a safetensors file as it is, texts by name."""
    with safe_open(str(path), framework="pt") as file:
        return file.metadata()


def call(command: str):
    return call_with(*command.split())


def call_with(*words: str):
    result = CliRunner().invoke(app, words)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def check(options: str):
    return call(f"check {options} --images test")


def test_score_prints_both_and_what_the_order_costs(here):
    code, out, _ = call("score truth.csv rising.csv --iou 0.75")
    assert code == 0
    assert out.splitlines()[:4] == [
        "IoU 0.75          mAP       cow       pig",
        "competition  0.333333  0.666667  0.000000",
        "usual        0.500000  1.000000  0.000000",
        "truth boxes         3         2         1",
    ]
    assert "The order of the rows costs 0.166667" in out
    assert "By falling confidence this answer scores 0.500000" in out


def test_score_says_what_the_mean_is_over(here):
    (here / "more.csv").write_text(HEADER + FALLING + "b.jpg,goat,0.9,0,0.4,0,1\n")
    code, out, _ = call("score truth.csv more.csv")
    assert code == 0
    assert "goat has no true box here: the mean is over cow and pig; 1 rows count nothing." in out
    assert "usual        0.500000  1.000000  0.000000" in out


def test_score_is_silent_about_an_order_that_costs_nothing(here):
    code, out, err = call("score truth.csv falling.csv")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 4
    assert "competition  0.500000" in out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("score truth.csv truth.csv", "truth.csv: line 1: missing column 'Conf'"),
        ("score none.csv falling.csv", "No such file or directory: 'none.csv'"),
        ("score truth.csv falling.csv --iou 2", "iou_threshold: expected"),
        ("check falling.csv --images none", "No such file or directory: 'none'"),
        ("check falling.csv --images empty", "empty: expected images or zips of images, found none"),
    ],
)
def test_errors_are_one_line_on_stderr(here, command, words):
    code, out, err = call(command)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("livestock: ")
    assert words in err


def test_check_all_well(here):
    code, out, _ = check("falling.csv --weights best.safetensors")
    assert (code, out) == (0, "falling.csv: all is well: 3 rows, 2 images, weights 3.6 MB\n")


@pytest.mark.bad_input
@pytest.mark.parametrize("name", ["best.pt", "best.safetensors", "best.onnx", "best.torchscript"])
@pytest.mark.parametrize(("content", "words"), [
    (b"<!DOCTYPE html><html>", "a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 4\n", "a Git LFS pointer"),
    (b"", "an empty file"),
    (b"a,b\n", "text that begins with 'a,b"),
])
def test_check_looks_into_weights(here, name, content, words):
    (here / name).write_bytes(content)
    code, out, err = check(f"falling.csv --weights {name}")
    assert (code, err) == (1, "")
    first, fault = out.splitlines()
    assert first == "falling.csv: not fit to submit"
    assert fault.startswith(f"- {name}: ")
    assert words in fault


@pytest.mark.bad_input
def test_check_refuses_weights_that_are_no_numbers(here):
    checkpoint = read_checkpoint(here / "best.safetensors")
    name, tensor = next(iter(checkpoint.tensors.items()))
    tensors = {**checkpoint.tensors, name: tensor * np.nan}
    (here / "nan.safetensors").write_bytes(safetensors.torch.save(tensors, read_metadata(here / "best.safetensors")))
    code, out, _ = check("rising.csv --weights nan.safetensors --weights best.safetensors")
    assert code == 1
    assert [line[:20] for line in out.splitlines()[1:]] == ["- line 3 (a.jpg): co", f"- nan.safetensors: {name}"[:20]]
    assert "expected finite numbers, found infinity or NaN in" in out


def test_check_says_of_which_weights_only_the_size_is_known(here):
    (here / "thresholds.yaml").write_text("pig: 0.5\n")
    code, out, _ = check("falling.csv --weights best.safetensors --weights thresholds.yaml")
    assert code == 0
    assert out.splitlines() == [
        "thresholds.yaml: only its size is checked; weights are looked into as .pt, .safetensors or .onnx",
        "falling.csv: all is well: 3 rows, 2 images, weights 3.6 MB"]


def test_check_says_what_is_wrong(here):
    code, out, _ = check("rising.csv --weights none.safetensors")
    assert code == 1
    first, order, weights = out.splitlines()
    assert first == "rising.csv: not fit to submit"
    assert order.startswith("- line 3 (a.jpg): confidence 0.9 comes after a lower one")
    assert weights.startswith("- none.safetensors: expected the weights file")


def test_check_accepts_a_missing_image_only_if_it_is_boxless(here):
    (here / "test" / "c.png").touch()
    code, out, _ = check("falling.csv")
    assert code == 1
    assert "1 of 3 test images have no row" in out
    (here / "boxless.txt").write_text("c.png\n")
    assert check("falling.csv --boxless boxless.txt")[0] == 0


@pytest.mark.bad_input
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r\n\r\n"])
def test_check_reads_the_names_of_boxless_images_as_editors_write_them(here, ending):
    (here / "test" / "c.png").touch()
    (here / "boxless.txt").write_bytes(("\ufeff c.png" + ending).encode())
    assert check("falling.csv --boxless boxless.txt")[:2] == (
        0, "falling.csv: all is well: 3 rows, 3 images, weights not checked\n")
    (here / "boxless.txt").write_bytes(b"\xff\xfe")
    assert "boxless.txt: expected names in UTF-8, one a line" in check("falling.csv --boxless boxless.txt")[2]


@pytest.mark.bad_input
def test_check_counts_pictures_that_nothing_here_opens(here):
    (here / "test" / "c.HEIC").touch()
    (here / "test" / "rest.7z").touch()
    code, out, _ = check("falling.csv")
    assert code == 1
    assert out.splitlines() == [
        "test/rest.7z: archive that is not read: unpack it first",
        "test/c.HEIC: a picture of a format that is not read here, 1 in all; the answer needs rows for them all the "
        "same",
        "falling.csv: not fit to submit",
        "- 1 of 3 test images have no row and are not known to be without a box: c.HEIC"]
    (here / "more.csv").write_text(HEADER + FALLING + "c.HEIC,cow,0.5,0,0.4,0,1\n")
    assert check("more.csv")[0] == 0
    assert call("check more.csv --images test --pixels")[0] == 1  # its size is not known, but the others' is


@pytest.mark.bad_input
def test_check_names_two_pictures_of_one_name(here):
    (here / "test" / "cam1").mkdir()
    shutil.copy(here / "test" / "a.jpg", here / "test" / "cam1" / "a.jpg")
    code, out, _ = check("falling.csv")
    assert code == 1
    assert "- two test images would both be called 'a.jpg' in the answer, test/a.jpg and test/cam1/a.jpg" in out
    with open(here / "competition.yaml", "a") as file:
        file.write("answer_name: path\n")
    rows = "".join(f"{image_id},cow,0.5,0,0.4,0,1\n" for image_id in ("test/a.jpg", "test/cam1/a.jpg", "test/소/b.jpg"))
    (here / "paths.csv").write_text(HEADER + rows)
    assert check("paths.csv")[0] == 0


def test_check_takes_the_test_images_of_a_whole_data_folder(here):
    (here / "train").mkdir()
    shutil.copy(here / "test" / "a.jpg", here / "train" / "x.jpg")
    code, out, _ = call("check falling.csv --images .")
    assert code == 0
    assert out.splitlines() == [".: of 3 images the 2 below a folder test are checked",
                                "falling.csv: all is well: 3 rows, 2 images, weights not checked"]


@pytest.mark.bad_input
def test_check_names_every_picture_that_cannot_be_measured(here):
    for name in ("c.png", "d.png"):
        (here / "test" / name).touch()
    (here / "pixels.csv").write_text(HEADER + "a.jpg,cow,0.9,0,100,0,50\nb.jpg,cow,0.9,0,100,0,50\n")
    (here / "boxless.txt").write_text("c.png\nd.png\n")
    code, out, _ = check("pixels.csv --pixels --boxless boxless.txt")
    assert code == 1
    assert [line.split(":")[1] for line in out.splitlines()[1:]] == [" c.png", " d.png"]


@pytest.mark.bad_input
def test_an_answer_without_a_box_is_fit_only_where_that_is_meant(here):
    (here / "none.csv").write_text(HEADER)
    (here / "boxless.txt").write_text("a.jpg\nb.jpg\n")
    code, out, _ = check("none.csv --boxless boxless.txt")
    assert code == 1
    assert "- no box at all: a model that sees nothing" in out
    code, out, _ = check("none.csv --boxless boxless.txt --allow-empty")
    assert (code, out) == (0, "none.csv: all is well: 0 rows, 2 images, weights not checked\n")


@pytest.mark.bad_input
@pytest.mark.parametrize("command", ["check falling.csv --images test", "run", "evolve", "download somewhere"])
def test_a_missing_competition_file_says_where_it_was_looked_for(here, command):
    code, out, err = call(f"{command} --competition mine.yaml")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert f"mine.yaml: expected a competition file (classes, metric, limits), found none in {here}" in err
    assert f"name yours with --competition, in a notebook as COMPETITION, such as {REPOSITORY}" in err


def test_without_a_competition_file_it_is_the_livestock_challenge_and_that_is_said(here):
    (here / "competition.yaml").unlink()
    code, out, err = check("falling.csv")
    assert code == 0
    assert f"no competition.yaml in {here}, so it is the livestock challenge" in out + err


def test_check_reads_sizes_for_pixels(here):
    (here / "pixels.csv").write_text(HEADER + "a.jpg,cow,0.9,0,100,0,50\nb.jpg,cow,0.9,0,100,0,51\n")
    code, out, _ = check("pixels.csv --pixels")
    assert code == 1
    assert out.splitlines()[1:] == [
        "- line 3 (b.jpg): box XMin 0, XMax 100, YMin 0, YMax 51 reaches outside its image"
    ]


def test_check_knows_the_real_test_images(here, real_data):
    """The truth itself as answer: all its images are found in the zips."""
    truth = (real_data / "livestock" / "truth_test.csv").read_text().splitlines()[1:]
    rows = [f"{image},{label},1,{corners}" for image, label, corners in (row.split(",", 2) for row in truth)]
    (here / "answer.csv").write_text(HEADER + "\n".join(rows))
    images = str(real_data / "livestock" / "test")
    result = CliRunner().invoke(app, ["check", "answer.csv", "--images", images])
    assert (result.exit_code, result.stderr) == (0, "")
    assert "all is well: 1,776 rows, 126 images" in result.stdout


def test_help_loads_no_heavy_library():
    started = time.perf_counter()
    heavy = "import sys; from livestock import cli; print({'pandas', 'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout == "set()\n"
    assert time.perf_counter() - started < 5  # 0.2 s; the bound is for a busy machine
    assert {"score", "check", "train", "predict"} <= set(call("--help")[1].split())


@pytest.mark.bad_input
def test_a_score_of_exchanged_corners_says_so(here):
    """The file has xyxy below the header, whose order is x, x, y, y."""
    (here / "truth.csv").write_text(TRUTH_HEADER + "1.jpg,pig,0.1,0.5,0.2,0.6\n2.jpg,cow,0.2,0.6,0.3,0.7\n")
    (here / "odd.csv").write_text(HEADER + "1.jpg,pig,0.9,0.1,0.2,0.5,0.6\n2.jpg,cow,0.8,0.2,0.2,0.6,0.6\n")
    code, out, _ = call("score truth.csv odd.csv")
    assert code == 0
    assert "usual        0.000000" in out
    assert "1 of 2 boxes of the answer have no area.\n" in out
    assert "With XMax and YMin exchanged this answer would score 0.500000: the columns' order is XMin, XMax, " in out
    assert "exchanged" not in call("score truth.csv falling.csv")[1]


@pytest.mark.bad_input
def test_a_score_says_which_names_differ_in_case_alone(here):
    (here / "odd.csv").write_text(HEADER + "a.JPG,Cow,0.9,0,0.4,0,1\nb.jpg,pig ,0.9,0.5,1,0,1\n")
    code, out, _ = call("score truth.csv odd.csv")
    assert code == 0
    assert "In the answer 'a.JPG' and 'a.jpg' differ in upper and lower case; it counts as another image_id.\n" in out
    assert "In the answer 'Cow' and 'cow' differ in upper and lower case; it counts as another label.\n" in out


def test_two_answers_are_compared(here):
    code, out, err = call("score truth.csv rising.csv falling.csv")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "rising.csv"
    assert "falling.csv" in lines
    assert lines[-2].startswith("second minus first, competition: +0.166667, 95 % interval +0.000000 to ")
    nothing = "+0.000000, 95 % interval +0.000000 to +0.000000; it holds 0: not shown to differ"
    assert lines[-1] == f"second minus first, usual: {nothing}"


@pytest.fixture
def cameras(here):
    """Nine test pictures of three cameras, six of the first; two answers, of which the second finds more pigs."""
    rng = np.random.default_rng(0)
    truth, answers = [], {"first": [], "second": []}
    for camera, n_frames in enumerate([6, 2, 1]):
        blobs = Image.fromarray((rng.random((6, 10)) * 200).astype(np.uint8)).resize((160, 96))
        (here / "frames" / f"cam{camera}").mkdir(parents=True)
        for frame in range(n_frames):
            name = f"{camera}{frame}"
            Image.fromarray(np.asarray(blobs) + np.uint8(frame)).save(here / "frames" / f"cam{camera}" / f"{name}.jpg")
            truth.append(f"{name}.jpg,pig,0,0.4,0,1\n")
            confidence = 0.9 - 0.01 * len(truth)
            answers["second"].append(f"{name}.jpg,pig,{confidence},0,0.4,0,1\n")
            x = 0.4 if camera == 0 and frame else 0.9
            answers["first"].append(f"{name}.jpg,pig,{confidence},0,{x},0,1\n")
    (here / "frames.csv").write_text(TRUTH_HEADER + "".join(truth))
    for name, rows in answers.items():
        (here / f"{name}.csv").write_text(HEADER + "".join(rows))
    return here


def read_interval(line: str) -> tuple[float, float, float]:
    gain, low, high = re.findall(r"[-+][0-9.]+", line.replace("95 % ", ""))[:3]
    return float(gain), float(low), float(high)


def test_the_interval_of_a_difference_is_over_groups_if_images_are_given(cameras):
    command = "score frames.csv first.csv second.csv"
    code, out, err = call(command)
    assert code == 0
    alone = out.splitlines()
    assert alone[-3].startswith("The interval takes images as independent of each other. Frames of one camera are not")
    code, out, err = call(f"{command} --images frames")
    assert code == 0
    grouped = out.splitlines()
    assert not any("independent" in line for line in grouped)
    # Six, two and one of nine true boxes: 1 / (36 + 4 + 1) * 81 equal groups would tell as much.
    assert " over 3 groups (2.0 effective)" in grouped[-1] and " over 3 groups (2.0 effective)" in grouped[-2]
    (gain, low, high), (same, lower, higher) = read_interval(alone[-1]), read_interval(grouped[-1])
    assert gain == same > 0
    assert lower < low and higher > high
    assert "it holds 0: not shown to differ" in grouped[-1] and "it holds 0" not in alone[-1]
    by_name = call(f"{command} --group-pattern ^([0-9])[0-9]")[1].splitlines()
    assert by_name[-2:] == grouped[-2:]
    both = call(f"{command} --images frames --group-pattern (cam)[01]/")[1].splitlines()  # paths below the folder
    assert " over 2 groups (1.2 effective)" in both[-1]


@pytest.mark.bad_input
@pytest.mark.parametrize(("options", "words"), [
    ("--images test", "test: 9 of 9 images are not there, such as '00.jpg'; the folder has 'test/a.jpg'"),
    ("--images twice", "twice: '00.jpg' is the name of 2 images, such as a/00.jpg and b/00.jpg"),
    ("--group-pattern (cam)", "group_pattern: '(cam)' is found in none of 9 images, such as '00.jpg'"),
    ("--group-pattern xx(", "group_pattern: expected a regular expression, found 'xx(': missing ), unterminated"),
    ("--images broken", "9 images cannot be decoded:"),
])
def test_images_that_do_not_fit_the_answers_are_refused(cameras, options, words):
    names = [f"{camera}{frame}.jpg" for camera, n in enumerate([6, 2, 1]) for frame in range(n)]
    for folder in ("twice/a", "twice/b", "broken"):
        (cameras / folder).mkdir(parents=True)
        for name in names:
            (cameras / folder / name).write_bytes(b"no picture")
    code, out, err = call(f"score frames.csv first.csv second.csv {options}")
    assert (code, out) == (2, "")  # no scores that hide it
    assert words in err.replace("\r", "\n").splitlines()[-1 - 9 * ("broken" in options)]


@pytest.mark.parametrize("folds", ["0,0", "a", "5", ""])
def test_folds_that_are_none_are_refused(here, folds):
    code, _, err = call(f"run --folds={folds}")
    assert code == 2
    assert f"folds: expected different numbers from 0 to 4 such as 0,1,2, found {folds!r}" in err


@pytest.mark.parametrize(("rows", "words"), [
    ("", "The answer has no row."),
    ("a,cow,0.9,0,0.4,0,1\n", "1 of 1 images of the answer are not in the truth, such as 'a'; the truth has 'a.jpg'."),
    ("a.jpg,cow,0.9,0,40,0,50\n", "The corners of the answer look like pixels, the others do not."),
])
def test_a_score_of_nothing_says_why(here, rows, words):
    (here / "odd.csv").write_text(HEADER + rows)
    code, out, _ = call("score truth.csv odd.csv")
    assert code == 0
    assert words in out.splitlines()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, Sample]:
    """The embedded sample, and its test images at two sizes with their truth in pixels."""
    folder = tmp_path_factory.mktemp("drawn") / "raw"
    return folder, draw_scored_sample(folder)


def predict(weights, images, *options: str):
    """Its exit code, standard output and standard error; and the table that it wrote."""
    found = call_with("predict", "--weights", str(weights), "--images", str(images), "--out", "boxes.csv", "--device",
                      "cpu", *options)
    return *found, pd.read_csv("boxes.csv") if found[0] == 0 else None


def test_predict_writes_boxes_in_pixels_of_each_image(here, drawn):
    """They lie where the animals were drawn, also in a picture of twice the size."""
    _, sample = drawn
    truths = []
    for row in sample.test.itertuples():
        picture, name = cv2.cvtColor(read_image(row.archive, row.member), cv2.COLOR_RGB2BGR), row.member.split("/")[-1]
        truth = sample.truth[sample.truth["image_id"] == row.image_id]
        for factor in (1, 2):
            image_id = f"{factor}/{Path(name).stem}.png"
            (here / "drawn" / image_id).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(here / "drawn" / image_id), cv2.resize(picture, None, fx=factor, fy=factor))
            truths.append(truth.assign(image_id=image_id, **{corner: truth[corner] * factor for corner in XYXY}))
    truth = pd.concat(truths, ignore_index=True)
    code, out, _, boxes = predict(STARTER, here / "drawn", "--conf", "0.001", "--imgsz", "320")
    assert code == 0
    assert list(boxes) == ["image_id", "label", "confidence", "x_min", "y_min", "x_max", "y_max"]
    assert out.splitlines()[-1] == f"boxes.csv: {len(boxes):,} boxes in {2 * len(sample.test)} images"
    for factor in ("1", "2"):
        own = [table[table["image_id"].str.startswith(factor)] for table in (truth, boxes)]
        assert evaluate(*own, iou_threshold=0.5).mean > 0.6
    confident = predict(STARTER, here / "drawn", "--conf", "0.25", "--imgsz", "320")[-1]
    expected = boxes[boxes["confidence"] > 0.25].reset_index(drop=True)  # suppression keeps the more confident
    pd.testing.assert_frame_equal(confident, expected, check_exact=False, rtol=1e-3)
    other = predict(STARTER, here / "drawn", "--conf", "0.25", "--imgsz", "160")[-1]
    assert len(other) != len(confident)  # the size counts


def test_predict_suppresses_at_an_iou_and_not_at_all_where_an_object_is_marked_once(here, monkeypatch):
    """Two boxes of one pig and IoU 0.8, seen by a made-up network that needs suppression, and by one that does not."""
    from livestock import inference
    from livestock.models import forward

    boxes = make_boxes([{"image_id": "test/a.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": x_max, "y_max": 10,
                         "confidence": x_max / 100} for x_max in (50, 40)])
    model = SimpleNamespace(imgsz=64, labels=["pig"], needs_nms=True, architecture={})
    monkeypatch.setattr(forward, "load_for_inference", lambda path, device: model)
    monkeypatch.setattr(inference, "find_candidates", lambda *given, keep, **options: SimpleNamespace(
        boxes=keep(boxes), keypoints=None))
    kept = [len(predict("x", here / "test", *options)[-1]) for options in ((), ("--iou", "0.85"), ("--iou", "0.75"))]
    assert kept == [1, 2, 1]
    model.needs_nms = False
    kept = [len(predict("x", here / "test", *options)[-1]) for options in ((), ("--iou", "0.85"), ("--iou", "0.75"))]
    assert kept == [2, 2, 1]


@pytest.mark.bad_input
def test_predict_names_pictures_that_cannot_be_read_and_predicts_the_others(here):
    folder = here / "mixed"
    folder.mkdir()
    shutil.copy(here / "test/rest.zip", folder / "whole.zip")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 300, 3), np.uint8)).save(folder / "half.jpg")
    content = (folder / "half.jpg").read_bytes()
    (folder / "half.jpg").write_bytes(content[: len(content) // 2])  # whose header is whole
    (folder / "none.png").touch()
    (folder / "phone.HEIC").touch()
    code, out, _, boxes = predict(STARTER, folder, "--conf", "0")
    assert code == 0
    assert [line.split(": ")[:2] for line in out.splitlines()[:3]] == [
        [str(folder), "half.jpg"], [str(folder), "none.png"],
        ["phone.HEIC", "a picture of a format that is not read here"]]
    assert set(boxes["image_id"]) == {"소/b.jpg"}


@pytest.mark.bad_input
@pytest.mark.parametrize(("weights", "images", "words"), [
    (STARTER, "empty", "empty: expected images or zips of images, found none"),
    (STARTER, "none", "No such file or directory: 'none'"),
    (STARTER, "broken", "broken: expected pictures ending in .bmp, "),
    ("none.safetensors", "test", "none.safetensors: expected the weights file, found no such file"),
    ("truth.csv", "test", "truth.csv: expected weights ending in one of ['.pt', '.safetensors', "),
])
def test_predict_says_what_is_missing_and_writes_nothing(here, weights, images, words):
    (here / "broken").mkdir()
    (here / "broken/a.png").touch()
    code, out, err, _ = predict(weights, images)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert words in err
    assert not (here / "boxes.csv").exists()


@pytest.mark.parametrize(("options", "family"), [
    ((), "yolov5"), *(pytest.param(("--family", name), name, marks=[] if name == "ssd" else pytest.mark.long)
                      for name in ("ssd", "retinanet", "tood", "yolox"))])
def test_train_says_where_the_weights_are_and_predict_takes_them(here, drawn, options, family):
    raw, _ = drawn
    command = ("train", "--profile", "smoke", "--data", str(raw), "--workspace", "ws", "--folds", "1", *options)
    code, out, err = call_with(*command)
    assert code == 0, err
    path = Path("ws/weights/fold1.safetensors")
    assert out.splitlines()[-1] == (f"{path}: {path.stat().st_size / 1e6:.1f} MB; next: livestock predict --weights "
                                    f"{path} --images DIR --out boxes.csv")
    found = read_checkpoint(path).config
    assert (found.family, found.labels, found.imgsz) == (family, ("pig", "cow"), 64)
    assert make_run(workspace="ws").profile.family == family  # from run.yaml
    assert make_run(workspace="ws").data_dir == raw
    written = path.stat().st_mtime_ns
    assert call_with(*command)[0] == 0
    assert path.stat().st_mtime_ns == written  # done before
    code, out, _, boxes = predict(path, raw / "test", "--conf", "0")
    assert code == 0
    assert out.splitlines()[-1] == f"boxes.csv: {len(boxes):,} boxes in 4 images"


@pytest.mark.bad_input
def test_train_refuses_weights_of_another_family_with_what_to_say_instead(here, drawn):
    weights = write_lively("retinanet", here / "other.safetensors", imgsz=64)
    command = ("train", "--profile", "smoke", "--data", str(drawn[0]), "--workspace", "ws", "--weights", str(weights))
    code, out, err = call_with(*command)
    assert code == 2
    assert "expected weights of the family yolov5, found retinanet; name that one: --family retinanet" in err
    assert not (here / "ws/weights").exists()


@pytest.mark.bad_input
def test_a_family_that_is_not_known_or_not_installed_is_one_line(here, drawn, monkeypatch):
    code, _, err = call_with("train", "--family", "yolov8", "--workspace", "ws")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "family: expected one of 'yolov5', 'retinanet', 'ssd', 'tood', 'yolox', 'dfine', 'rfdetr', found " in err

    def missing(name):
        raise ImportError(f"the model family {name} needs a library, which is not installed: pip install it")

    monkeypatch.setattr("livestock.models.registry.get_family", missing)
    code, _, err = call_with("train", "--family", "dfine", "--workspace", "ws", "--set", "hyp.lr0=0.1")
    assert (code, err) == (2, "livestock: the model family dfine needs a library, which is not installed: pip install "
                              "it\n")
