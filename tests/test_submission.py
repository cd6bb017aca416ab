"""The answer's round trip, and a fault of each kind named in words."""

import numpy as np
import pandas as pd
import pytest

from livestock.config import Competition
from livestock.data.submission import (
    answer_names,
    check_answer,
    check_weights,
    from_rows,
    read_answer,
    read_truth,
    to_rows,
    write_answer,
)
from livestock.evaluation import evaluate, evaluate_as_competition
from livestock.tables import XYXY, make_boxes, make_images

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
    pd.testing.assert_frame_equal(read.drop(columns="box_id"), expected.drop(columns="box_id"))
    assert read["box_id"].is_unique  # a file of the competition has no ids: the boxes get new ones


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
    options = {"boxless": ["a.jpg", "b.jpg"], "allow_empty": True}
    path = write_answer(boxes[:0], images, tmp_path / "answer.csv", **options)
    assert check_answer(path, images=images, competition=COMPETITION, **options) == []
    assert read_answer(path).dtypes.equals(boxes.dtypes)
    assert len(read_answer(path)) == 0


@pytest.mark.bad_input
def test_an_answer_without_any_box_is_a_fault_unless_it_is_meant(tmp_path, images, boxes):
    (fault,) = faults(tmp_path, images, boxless=["a.jpg", "b.jpg"])
    assert fault.startswith("no box at all: a model that sees nothing, or thresholds that nothing passes")
    assert "--allow-empty" in fault
    with pytest.raises(ValueError, match="new.csv: no box at all: a model that sees nothing"):
        write_answer(boxes[:0], images, tmp_path / "new.csv", boxless=["a.jpg", "b.jpg"])
    assert not (tmp_path / "new.csv").exists()


@pytest.fixture
def cameras() -> pd.DataFrame:
    """Images of two cameras that name their pictures alike, and one more."""
    ids = ["test/cam0/1.jpg", "test/cam1/1.jpg", "test/cam1/2.b.png"]
    return make_images([{"image_id": i, "archive": "", "member": i, "width": 10 * n, "height": 10}
                        for n, i in enumerate(ids, 1)])


def box_of(image_id: str, x_max: float, confidence: float = 1.0) -> dict:
    return {"image_id": image_id, "label": "cow", "x_min": 0.0, "y_min": 0.0, "x_max": x_max, "y_max": 10.0,
            "confidence": confidence, "source": "model"}


def test_images_are_called_as_the_competition_asks(cameras):
    others = cameras[1:]
    assert answer_names(others).to_dict() == {"test/cam1/1.jpg": "1.jpg", "test/cam1/2.b.png": "2.b.png"}
    assert answer_names(others, "stem").tolist() == ["1", "2.b"]
    assert answer_names(cameras, "path").tolist() == cameras["image_id"].tolist()


@pytest.mark.bad_input
def test_two_images_of_one_name_are_refused_with_both_paths(tmp_path, cameras):
    boxes = make_boxes([box_of(image_id, 5) for image_id in cameras["image_id"]])
    words = (r"two test images would both be called '1.jpg' in the answer, test/cam0/1.jpg and test/cam1/1.jpg: .*"
             "write `answer_name: path` into its file")
    for action in (lambda: answer_names(cameras), lambda: to_rows(boxes, cameras),
                   lambda: write_answer(boxes, cameras, tmp_path / "answer.csv")):
        with pytest.raises(ValueError, match=words):
            action()
    with pytest.raises(ValueError, match="answer_name: expected one of .*, found 'file'"):
        answer_names(cameras, "file")


def test_boxes_keep_their_image_under_its_name(tmp_path, cameras):
    boxes = make_boxes([box_of("test/cam0/1.jpg", 5), box_of("test/cam1/1.jpg", 5), box_of("test/cam1/2.b.png", 6)])
    path = write_answer(boxes, cameras, tmp_path / "answer.csv", answer_name="path")
    assert path.read_text().splitlines()[1:] == [
        "test/cam0/1.jpg,cow,1.0,0.0,0.5,0.0,1.0",  # 10, 20 and 30 px wide
        "test/cam1/1.jpg,cow,1.0,0.0,0.25,0.0,1.0",
        "test/cam1/2.b.png,cow,1.0,0.0,0.2,0.0,1.0",
    ]
    by_path = Competition("test", {"cow": []}, answer_name="path")
    assert check_answer(path, images=cameras, competition=by_path) == []
    rows = to_rows(boxes[1:], cameras[1:], answer_name="stem")
    assert rows["ImageID"].tolist() == ["1", "2.b"]
    assert from_rows(rows)["x_max"].tolist() == [0.25, 0.2]


def test_boxless_images_may_be_named_as_in_the_data_or_as_in_the_answer(tmp_path, cameras):
    boxes, others = make_boxes([box_of("test/cam1/1.jpg", 5)]), cameras[1:]
    for name, answer_name in (("test/cam1/2.b.png", "stem"), ("2.b", "stem"), ("2.b.png", "stem"), ("2.b.png", "name")):
        path = write_answer(boxes, others, tmp_path / "answer.csv", boxless=[name], answer_name=answer_name)
        asked = Competition("test", {"cow": []}, answer_name=answer_name)
        assert check_answer(path, images=others, competition=asked, boxless=[name]) == []


@pytest.mark.bad_input
@pytest.mark.parametrize(("answer_name", "image_id", "words"), [
    ("name", "test/cam1/1.jpg", "this is an image's path, where the competition's `answer_name` asks for its name"),
    ("stem", "1.jpg", "this is an image's name, where the competition's `answer_name` asks for its stem"),
    ("path", "cam1/1.jpg", "its path begins elsewhere than that of 'test/cam1/1.jpg', which begins at the data folder"),
    ("name", "1.jpg ", "'1.jpg ' has a blank before or after it"),
    ("name", "1.JPG", "'1.JPG' and '1.jpg' differ in upper and lower case"),
])
def test_an_image_called_otherwise_says_how(tmp_path, cameras, answer_name, image_id, words):
    path = write(tmp_path, HEADER, f"{image_id},cow,0.9,0.1,0.5,0.1,0.5")
    asked = Competition("test", {"cow": []}, answer_name=answer_name)
    found = check_answer(path, images=cameras[1:2], competition=asked, boxless=["test/cam1/1.jpg"])
    assert found == [f"line 2 ({image_id}): not one of the test images: {words}"]


@pytest.mark.bad_input
def test_a_check_names_two_images_of_one_name(tmp_path, cameras):
    (fault,) = faults(tmp_path, cameras[:2], "1.jpg,cow,0.9,0.1,0.5,0.1,0.5")
    assert "both be called '1.jpg' in the answer, test/cam0/1.jpg and test/cam1/1.jpg" in fault


@pytest.mark.bad_input
@pytest.mark.parametrize(("label", "words"), [
    ("Cow", "unknown class Cow: 'Cow' and 'cow' differ in upper and lower case"),
    (" cow", "unknown class  cow: ' cow' has a blank before or after it"),
    ("{x} {Conf}", "unknown class {x} "),
])
def test_a_label_that_only_looks_the_same_says_so(tmp_path, images, label, words):
    (fault,) = faults(tmp_path, images, f"a.jpg,{label},0.9,0.1,0.5,0.1,0.5", boxless=["b.jpg"])
    assert fault.startswith(f"line 2 (a.jpg): {words}")


@pytest.mark.bad_input
def test_divided_corners_are_recognised_where_pixels_are_expected(tmp_path, images):
    (fault,) = faults(tmp_path, images, *GOOD, pixels=True)
    assert fault.startswith("line 2 (a.jpg): box XMin 0.1, XMax 0.5, YMin 0.1, YMax 0.5 lies within one pixel: these "
                            "look divided by width and height; check without --pixels (and 2 more such rows)")
    sliver = ["a.jpg,cow,0.9,0,1,0,1", "a.jpg,cow,0.4,5,50,5,50", "b.jpg,pig,0.7,1,5,1,5"]  # of which one is tiny
    assert faults(tmp_path, images, *sliver, pixels=True) == []


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
        ("a.jpg,cow,0.6,0.2,0.9,0.1,0.5", "line 4 (a.jpg): confidence 0.6 comes after a lower one"),
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
        ([TRUTH_HEADER.replace(",", ", ")], "a column is misspelt: ' LabelName' has a blank before or after it"),
        ([TRUTH_HEADER.lower()], "a column is misspelt: 'imageid' and 'ImageID' differ in upper and lower case"),
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
    for scorer in [evaluate_as_competition, evaluate]:
        assert scorer(truth, noisy).mean == 1
