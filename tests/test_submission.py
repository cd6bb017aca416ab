"""The answer's round trip, and a fault of each kind named in words."""

import numpy as np
import pandas as pd
import pytest

from livestock.boxes import XYXY, make_boxes, make_images
from livestock.config import Competition
from livestock.metrics import competition_map, usual_map
from livestock.submission import check_answer, check_weights, read_answer, read_truth, write_answer

COMPETITION = Competition("test", {"pig": [], "cow": []}, weight_limit_bytes=1_000_000)
HEADER = "ImageID,LabelName,Conf,XMin,XMax,YMin,YMax"
TRUTH_HEADER = "ImageID,LabelName,XMin,XMax,YMin,YMax"
GOOD = ["a.jpg,cow,0.9,0.1,0.5,0.1,0.5", "a.jpg,cow,0.4,0.5,0.9,0.1,0.5", "b.jpg,pig,0.7,0.1,0.5,0.1,0.5"]


@pytest.fixture
def images() -> pd.DataFrame:
    """Two images of different sizes."""
    sizes = {"a.jpg": (200, 100), "b.jpg": (50, 400)}
    table = pd.DataFrame(sizes.values(), columns=["width", "height"]).assign(image_id=list(sizes), archive="")
    return make_images(table.assign(member=table["image_id"]))


@pytest.fixture
def boxes() -> pd.DataFrame:
    """Three boxes, lowest confidence first."""
    corners = [(20, 10, 100, 50), (0, 0, 200, 100), (5, 40, 50, 400)]
    table = pd.DataFrame(corners, columns=XYXY, dtype=float)
    table["image_id"], table["label"], table["source"] = ["a.jpg", "a.jpg", "b.jpg"], "cow", "model"
    return make_boxes(table.assign(confidence=[0.1, 0.8, 0.5]))


def write(tmp_path, *lines: str):
    path = tmp_path / "answer.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def faults(tmp_path, images, *lines: str, **options) -> list[str]:
    path = write(tmp_path, HEADER, *lines)
    return check_answer(path, images=images, competition=COMPETITION, **options)


def test_each_image_is_divided_by_its_own_size(tmp_path, images, boxes):
    path = write_answer(boxes, images, tmp_path / "new" / "answer.csv")
    assert path.read_text().splitlines() == [
        HEADER,
        "a.jpg,cow,0.8,0.0,1.0,0.0,1.0",
        "a.jpg,cow,0.1,0.1,0.5,0.1,0.5",
        "b.jpg,cow,0.5,0.1,1.0,0.1,1.0",
    ]
    assert [item.name for item in path.parent.iterdir()] == ["answer.csv"]
    assert check_answer(path, images=images, competition=COMPETITION) == []


def test_what_is_written_is_read_back_exactly(tmp_path, images, boxes):
    boxes[XYXY] /= 3
    read = read_answer(write_answer(boxes, images, tmp_path / "answer.csv", pixels=True))
    expected = boxes.iloc[[1, 0, 2]].reset_index(drop=True)
    pd.testing.assert_frame_equal(read, expected)


def test_pixels_are_checked_against_each_image(tmp_path, images, boxes):
    path = write_answer(boxes, images, tmp_path / "answer.csv", pixels=True)
    assert check_answer(path, images=images, competition=COMPETITION, pixels=True) == []
    boxes.loc[2, "x_max"] = 60
    with pytest.raises(ValueError, match=r"line 4 \(b.jpg\).*reaches outside its image"):
        write_answer(boxes, images, path, pixels=True)


def test_a_refused_answer_leaves_the_old_one(tmp_path, images, boxes):
    path = write(tmp_path, "the old one")
    with pytest.raises(ValueError, match=r"1 of 2 test images have no row .*: b.jpg"):
        write_answer(boxes[boxes["image_id"] == "a.jpg"], images, path)
    assert path.read_text() == "the old one\n"
    write_answer(boxes[boxes["image_id"] == "a.jpg"], images, path, boxless=["b.jpg"])
    assert len(read_answer(path)) == 2


def test_a_write_that_breaks_off_leaves_the_old_one(tmp_path, images, boxes, monkeypatch):
    def break_off(table, file, **options):
        file.write(HEADER)
        raise OSError("disk full")

    path = write(tmp_path, "the old one")
    monkeypatch.setattr(pd.DataFrame, "to_csv", break_off)
    with pytest.raises(OSError, match="disk full"):
        write_answer(boxes, images, path)
    assert path.read_text() == "the old one\n"


def test_an_unknown_image_or_class_is_not_written(tmp_path, images, boxes):
    with pytest.raises(ValueError, match=r"line 4 \(b.jpg\): not one of the test images"):
        write_answer(boxes, images[:1], tmp_path / "answer.csv")
    with pytest.raises(ValueError, match=r"line 2 \(a.jpg\): unknown class cow \(and 2 more such rows\)"):
        write_answer(boxes, images, tmp_path / "answer.csv", labels=["pig"])


def test_an_answer_without_boxes(tmp_path, images, boxes):
    path = write_answer(boxes[:0], images, tmp_path / "answer.csv", boxless=["a.jpg", "b.jpg"])
    assert read_answer(path).dtypes.equals(boxes.dtypes)
    assert len(read_answer(path)) == 0


def test_a_sound_answer_has_no_faults(tmp_path, images):
    assert faults(tmp_path, images, *GOOD) == []


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("z.jpg,pig,0.7,0.1,0.5,0.1,0.5", "line 4 (z.jpg): not one of the test images"),
        ("b.jpg,goat,0.7,0.1,0.5,0.1,0.5", "line 4 (b.jpg): unknown class goat"),
        ("b.jpg,,0.7,0.1,0.5,0.1,0.5", "line 4 (b.jpg): LabelName is empty"),
        ("b.jpg,pig,nan,0.1,0.5,0.1,0.5", "line 4 (b.jpg): Conf: expected a finite number, found 'nan'"),
        ("b.jpg,pig,0.7,,0.5,0.1,0.5", "line 4 (b.jpg): XMin: expected a finite number, found ''"),
        ("b.jpg,pig,0.7,0.1,x,0.1,0.5", "line 4 (b.jpg): XMax: expected a finite number, found 'x'"),
        ("b.jpg,pig,0.7,0.1,0.5,0.1,inf", "line 4 (b.jpg): YMax: expected a finite number, found 'inf'"),
        ("b.jpg,pig,0.7,0.1,0.5,0.1,1.5", "YMax 1.5 reaches outside [0, 1]"),
        ("b.jpg,pig,0.7,-0.1,0.5,0.1,0.5", "XMin -0.1, XMax 0.5, YMin 0.1, YMax 0.5 reaches outside [0, 1]"),
        ("b.jpg,pig,0.7,0.5,0.1,0.1,0.5", "XMin 0.5, XMax 0.1, YMin 0.1, YMax 0.5 has swapped corners"),
        ("b.jpg,pig,0.7,0.1,0.5,0.1,0.1", "YMin 0.1, YMax 0.1 has no area"),
        ("b.jpg,pig,1.2,0.1,0.5,0.1,0.5", "line 4 (b.jpg): confidence 1.2 is outside [0, 1]"),
        ("a.jpg,cow,0.40,0.5,0.9,0.1,0.5", "line 4 (a.jpg): repeats an earlier row"),
        ("a.jpg,cow,0.6,0.2,0.9,0.1,0.5", "line 4 (a.jpg): confidence 0.6 stands below a lower one"),
        ("b.jpg,pig,0.7,0.1,0.5,0.1", "line 4: expected 7 fields, found 6"),
        ("b.jpg,pig,0.7,0.1,0.5,0.1,0.5,9", "line 4: expected 7 fields, found 8"),
    ],
)
def test_each_fault_is_named(tmp_path, images, row, words):
    found = faults(tmp_path, images, *GOOD[:2], row, boxless=["b.jpg"])
    assert len(found) == 1
    assert words in found[0]


def test_all_faults_are_named_at_once(tmp_path, images):
    rows = ["z.jpg,cow,0.9,0.1,0.5,0.1,0.5", "a.jpg,cow,2,0.1,0.5,0.1,0.5", "a.jpg,cow,2,0.1,0.5,0.2,0.5"]
    assert faults(tmp_path, images, *rows) == [
        "line 2 (z.jpg): not one of the test images",
        "line 3 (a.jpg): confidence 2 is outside [0, 1] (and 1 more such rows)",
        "1 of 2 test images have no row and are not known to be without a box: b.jpg",
    ]


def test_pixels_are_recognised(tmp_path, images):
    (fault,) = faults(tmp_path, images, "a.jpg,cow,0.9,10,50,10,50", "b.jpg,pig,0.9,1,5,1,5")
    assert "line 2 (a.jpg)" in fault
    assert "these look like pixels" in fault


def test_many_missing_images_are_counted(tmp_path):
    images = pd.DataFrame({"image_id": [f"{i}.jpg" for i in range(6)]})
    (fault,) = faults(tmp_path, images, "5.jpg,cow,0.9,0.1,0.5,0.1,0.5")
    assert fault.startswith("5 of 6 test images")
    assert fault.endswith("0.jpg, 1.jpg, 2.jpg, ...")


def test_columns_in_another_order_are_read_but_not_submitted(tmp_path, images):
    path = write(tmp_path, "LabelName,ImageID,Conf,XMin,XMax,YMin,YMax", "cow,a.jpg,0.9,0.1,0.5,0.1,0.5")
    assert read_answer(path)["label"].tolist() == ["cow"]
    found = check_answer(path, images=images[:1], competition=COMPETITION)
    assert [fault.split(",")[0] for fault in found] == ["line 1: expected columns in the order ImageID"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([""], "line 1: expected the columns ImageID,LabelName,XMin,XMax,YMin,YMax, found an empty file"),
        ([TRUTH_HEADER], "expected at least one box below the header"),
        ([TRUTH_HEADER.replace(",", ";")], "line 1: expected commas between columns, found ';'"),
        ([TRUTH_HEADER.replace(",", "\t")], "line 1: expected commas between columns, found '\\t'"),
        ([HEADER], "line 1: unknown column 'Conf'"),
        (["ImageID,LabelName,XMin,XMax,YMin"], "line 1: missing column 'YMax'"),
        (["ImageID," + TRUTH_HEADER], "line 1: a column is there twice"),
        ([TRUTH_HEADER, "a,cow,0,1,0,1", "a,cow,0,1,1,0"], "line 3 (a): box XMin 0, XMax 1, YMin 1, YMax 0"),
        ([TRUTH_HEADER, "a,cow,0,1,0,1", "", "a,cow,0.0,1,0,1"], "line 4 (a): repeats an earlier row"),
        ([TRUTH_HEADER, "a,,0,1,0,x"], "line 2 (a): LabelName is empty; and 1 other kinds of fault"),
    ],
)
def test_a_broken_file_is_refused_by_name_and_line(tmp_path, lines, words):
    path = write(tmp_path, *lines)
    with pytest.raises(ValueError) as refusal:
        read_truth(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert words in str(refusal.value)


def test_not_text(tmp_path):
    path = tmp_path / "answer.csv"
    path.write_bytes(b"\x80\x81PK")
    with pytest.raises(ValueError, match="expected a CSV file in UTF-8"):
        read_answer(path)


def test_what_spreadsheets_write_is_read(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_bytes(f'{TRUTH_HEADER}\r\n"소, 1.jpg",cow,0,1,0,1\r\n'.encode("utf-8-sig"))
    truth = read_truth(path)
    assert truth[["image_id", "confidence", "source"]].iloc[0].tolist() == ["소, 1.jpg", 1.0, "gold"]


def test_weights_up_to_the_limit(tmp_path):
    path = tmp_path / "best.pt"
    path.write_bytes(bytes(1_000))
    assert check_weights([path], 1_000) == 1_000
    path.write_bytes(bytes(1_200_000))
    with pytest.raises(ValueError, match=r"1.2 MB \(1,200,000 bytes\) is over the limit of 1 MB; save"):
        check_weights([path], 1_000_000)
    with pytest.raises(ValueError, match="none.pt: expected the weights file, found no such file"):
        check_weights([path, tmp_path / "none.pt"], 2_000_000)


def test_weights_of_several_models_are_added_up(tmp_path):
    paths = [tmp_path / "a.pt", tmp_path / "b.onnx"]
    for path in paths:
        path.write_bytes(bytes(600))
    assert check_weights(paths, 1_200) == 1_200
    with pytest.raises(ValueError, match=r"a.pt, .*b.onnx: 0.0 MB \(1,200 bytes\) is over the limit"):
        check_weights(paths, 1_199)


def test_weights_are_one_of_the_checks(tmp_path, images):
    weights = tmp_path / "best.pt"
    weights.write_bytes(bytes(1_000_001))
    (fault,) = faults(tmp_path, images, *GOOD, weights=[weights])
    assert "over the limit of 1 MB" in fault


def test_real_truth_scores_itself(real_data):
    truth = read_truth(real_data / "livestock" / "truth_test.csv")
    noisy = truth.assign(confidence=np.random.default_rng(0).uniform(size=len(truth)))
    for scorer in [competition_map, usual_map]:
        assert scorer(truth, noisy).mean == 1
