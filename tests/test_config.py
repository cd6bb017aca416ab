"""A competition file is read strictly, and finds classes as it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from livestock.config import REPOSITORY, Competition, get_profile, read_competition
from livestock.config.keys import clean_keys


def test_the_repositorys_competition() -> None:
    competition = read_competition(REPOSITORY / "competition.yaml")
    assert competition.labels == ["pig", "cow"]
    assert competition.metric_iou == 0.75
    assert competition.weight_limit_bytes == 100_000_000


@pytest.mark.parametrize(
    ("source_name", "file_name", "expected"),
    [
        ("lying", "livestock_cow_bbox_000001.jpg", "cow"),  # the category is a behaviour, the file name counts
        ("Cattle", "photo.jpg", "cow"),
        ("돼지", "photo.jpg", "pig"),
        ("sheep", "photo.jpg", None),
        ("sheep", "livestock_horse_bbox_1.jpg", None),
        ("pig", "livestock_horse_bbox_1.jpg", "pig"),  # what the source itself names counts
        ("pig", "livestock_cow_bbox_1.jpg", "pig"),
        ("lying", "livestock_cow_pig_v1/train/1.jpg", None),  # a folder's name is no file's
    ],
)
def test_how_a_class_is_found(source_name: str, file_name: str, expected: str | None) -> None:
    competition = read_competition(REPOSITORY / "competition.yaml")
    assert competition.label_of(source_name, file_name) == expected


HEAD = "name: x\nclasses: {pig: [swine], cow: [cattle]}\n"


def read(folder: Path, text: str | bytes) -> Competition:
    """The competition of a file with this text."""
    path = folder / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_competition(path)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("name: x\nclasses: {pig: , cow: }\n", "classes", {"pig": [], "cow": []}),
        ("name: x\nclasses:\n  pig:\n  cow: ~\n", "classes", {"pig": [], "cow": []}),
        ("name: x\nclasses: [pig, cow]\n", "classes", {"pig": [], "cow": []}),
        ("name: x\nclasses:\n- pig: [swine]\n- cow\n", "classes", {"pig": ["swine"], "cow": []}),
        ("name: x\nclasses: {pig: swine}\n", "classes", {"pig": ["swine"]}),
        ("name: x\nclasses: {0: [pig], 1: [cow]}\n", "classes", {"0": ["pig"], "1": ["cow"]}),
        ("name: x\nclasses: {no: [pig], yes: [on]}\n", "classes", {"no": ["pig"], "yes": ["on"]}),
        ("name: x\nclasses: {pig: [7, 1.50]}\n", "classes", {"pig": ["7", "1.50"]}),
        ("name: 2026\nclasses: [pig]\n", "name", "2026"),
        (HEAD + "weight_limit_bytes: 1e8\n", "weight_limit_bytes", 100_000_000),
        (HEAD + "weight_limit_bytes: 100MB\n", "weight_limit_bytes", 100_000_000),
        (HEAD + "weight_limit_bytes: 0.5 GB\n", "weight_limit_bytes", 500_000_000),
        (HEAD + "weight_limit_bytes: 95 MiB\n", "weight_limit_bytes", 99_614_720),
        (HEAD + "weight_limit_bytes: 100_000_000\n", "weight_limit_bytes", 100_000_000),
        (HEAD + "metric_iou: '0.5'\n", "metric_iou", 0.5),
        (HEAD + "class_pattern:\n", "class_pattern", None),
        (HEAD + "count_bins: {pig: ['8', 13]}\n", "count_bins", {"pig": [8, 13]}),
        (HEAD + "count_bins:\n", "count_bins", {}),
        (HEAD + "unlabelled: leave_out\n", "unlabelled", "leave out"),
        (HEAD + "unlabelled: Background\n", "unlabelled", "background"),
        (HEAD + "answer_name: Stem\n", "answer_name", "stem"),
        (HEAD + "group_pattern: 'cam(\\d+)/'\n", "group_pattern", "cam(\\d+)/"),
        ("\ufeff" + HEAD, "name", "x"),
    ],
)
def test_what_is_meant_is_understood(tmp_path: Path, text: str, key: str, value: object) -> None:
    competition = read(tmp_path, text)
    assert getattr(competition, key) == value
    assert type(getattr(competition, key)) is type(value)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "metric: 0.5\n", "unknown key 'metric', meant is perhaps 'metric_iou'; expected some of name, "),
        (HEAD + "frobnicate: 1\n", "unknown key 'frobnicate'; expected some of"),
        ("name: x\nclasses: {}\n", "classes: expected a mapping of each label to the names"),
        ("name: x\nclasses:\n", "classes: expected a mapping of each label to the names"),
        ("name: x\nclasses: pig\n", "classes: expected a mapping of each label to the names"),
        ("name: x\nclasses: {pig: {a: b}}\n", "classes: 'pig': expected a name, found {'a': 'b'}"),
        ("name: x\nclasses: {pig: [[a]]}\n", "classes: 'pig': expected a name, found ['a']"),
        ("name: x\nclasses: {' ': [a]}\n", "classes: ' ': expected a name, found ' '"),
        ('name: x\nclasses: {"a\\u2028b": []}\n', "classes: 'a\\u2028b': expected a name of one line"),
        ("name: x\nclasses: {pig: [Swine], cow: [swine]}\n", "classes: 'swine' belongs to 'pig' and to 'cow'"),
        ("name: x\nclasses: {pig: [], cow: [PIG]}\n", "classes: 'PIG' belongs to 'pig' and to 'cow'"),
        ("name: x\nclasses: {pig: [], Pig: []}\n", "classes: 'Pig' belongs to 'pig' and to 'Pig'"),
        ("name: x\nclasses: [pig, pig]\n", "classes: 'pig': this label is there twice"),
        ("name: x\nclasses:\n  pig: [a]\n  pig: [b]\n", "line 4: the key 'pig' is there twice"),
        (HEAD + "name: y\n", "line 3: the key 'name' is there twice"),
        ("name: x\n", "classes: this key is missing; a mapping of each label"),
        ("classes: [pig]\n", "name: this key is missing"),
        ("name: []\nclasses: [pig]\n", "name: expected a name, found []"),
        (HEAD + "metric_iou: 1\n", "metric_iou: expected a number above 0 and below 1, found '1'"),
        (HEAD + "metric_iou: 0\n", "metric_iou: expected a number above 0 and below 1, found '0'"),
        (HEAD + "metric_iou: 50\n", "found '50'; write a percentage as a fraction, such as 0.5"),
        (HEAD + "metric_iou: 75 %\n", "found '75 %'; write a percentage as a fraction, such as 0.75"),
        (HEAD + "metric_iou: 0.5:0.95\n", "metric_iou: expected a number above 0 and below 1, found '0.5:0.95'"),
        (HEAD + "metric_iou: .nan\n", "metric_iou: expected a number above 0 and below 1, found '.nan'"),
        (HEAD + "metric_iou: true\n", "metric_iou: expected a number above 0 and below 1, found 'true'"),
        (HEAD + "metric_iou:\n", "metric_iou: expected a number above 0 and below 1, found ''"),
        (HEAD + "weight_limit_bytes: 100 apples\n", "weight_limit_bytes: expected a size of 1 byte or more, such as"),
        (HEAD + "weight_limit_bytes: -5\n", "weight_limit_bytes: expected a size of 1 byte or more, such as"),
        (HEAD + "weight_limit_bytes: 1e999\n", "weight_limit_bytes: expected a size of 1 byte or more, such as"),
        (HEAD + "weight_limit_bytes: 0.2\n", "weight_limit_bytes: expected a size of 1 byte or more, such as"),
        (HEAD + "weight_limit_bytes: [1]\n", "weight_limit_bytes: expected a size of 1 byte or more, such as"),
        (HEAD + "count_bins: {hen: [1, 2]}\n", "count_bins: 'hen' is not one of the classes pig, cow"),
        (HEAD + "count_bins: {pigs: [1, 2]}\n", "'pigs' is not one of the classes pig, cow, meant is perhaps 'pig'"),
        (HEAD + "count_bins: {pig: 8}\n", "count_bins: 'pig': expected two whole numbers from 1 on"),
        (HEAD + "count_bins: {pig: [8]}\n", "count_bins: 'pig': expected two whole numbers from 1 on"),
        (HEAD + "count_bins: {pig: [13, 8]}\n", "count_bins: 'pig': expected two whole numbers from 1 on"),
        (HEAD + "count_bins: {pig: [1.5, 8]}\n", "count_bins: 'pig': expected two whole numbers from 1 on"),
        (HEAD + "count_bins: {pig: [a, 8]}\n", "count_bins: 'pig': expected two whole numbers from 1 on"),
        (HEAD + "count_bins: [8, 13]\n", "count_bins: expected a mapping of a label to two numbers"),
        (HEAD + "class_pattern: no_group\n", "class_pattern: expected a pattern with a group"),
        (HEAD + "class_pattern: 'a('\n", "class_pattern: expected a regular expression, found 'a(': missing )"),
        (HEAD + "class_pattern: [a]\n", "class_pattern: expected a regular expression as a text, found ['a']"),
        (HEAD + "group_pattern: '(a{99999999999})'\n", "group_pattern: expected a regular expression, found"),
        (HEAD + "group_pattern: cam\n", "group_pattern: expected a pattern with a group"),
        (HEAD + "unlabelled: drop\n", "unlabelled: expected one of 'leave out', 'background', found 'drop'"),
        (HEAD + "answer_name: [name]\n", "answer_name: expected one of 'name', 'stem', 'path', found ['name']"),
        ("just text", "expected a mapping of keys such as `metric_iou: 0.75`, found 'just text'"),
        ("", "expected a mapping of keys such as `metric_iou: 0.75`, found an empty file"),
        ("name: x\nclasses: {pig: [p]\n", "line 3, column 1: this cannot be read as YAML: expected ',' or '}'"),
        ("name: x\nclasses: 'pig\n", "found unexpected end of stream (what is not closed may begin in line 2)"),
        ("name: x\n\tclasses: [pig]\n", "line 2, column 1: this cannot be read as YAML: "),
        ("name: \x00\n", "this cannot be read as YAML: unacceptable character"),
        ("[" * 1500, "nested too deeply"),
        (b"\xff\xfePK", "expected a text file in UTF-8"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_key(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        read(tmp_path, text)
    assert str(refusal.value).startswith(f"{tmp_path / 'mine.yaml'}: ")
    assert message in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.bad_input
def test_all_faults_of_a_file_are_listed_at_once(tmp_path: Path) -> None:
    text = "classes: {pig: [], pig: []}\nmetric_iou: 50\ncount_bins: {hen: [1, 2]}\nmetrics: 1\n"
    with pytest.raises(ValueError) as refusal:
        read(tmp_path, text)
    first, *faults = str(refusal.value).splitlines()
    assert first == f"{tmp_path / 'mine.yaml'}: 5 things to put right:"
    assert [fault.split(":")[0] for fault in faults] == [
        "- line 1", "- unknown key 'metrics', meant is perhaps 'metric_iou'; expected some of name, classes, "
        "class_pattern, metric_iou, weight_limit_bytes, count_bins, unlabelled, group_pattern, answer_name, "
            "skeleton",
        "- name", "- metric_iou", "- count_bins"]


@pytest.mark.bad_input
def test_a_file_that_is_not_there_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as refusal:
        read_competition(Path("competition.yaml"))
    assert f"found none in {tmp_path}; name yours with --competition" in str(refusal.value)
    assert str(REPOSITORY / "competition.yaml") in str(refusal.value)
    with pytest.raises(ValueError, match="expected a competition file .*, found a folder; name yours"):
        read_competition(tmp_path)


@pytest.mark.bad_input
def test_an_optional_group_that_is_empty_leaves_the_class_to_the_label() -> None:
    competition = Competition("x", {"pig": [], "cow": []}, class_pattern="img_(pig|cow)?")
    assert competition.label_of("cow", "img_7.jpg") == "cow"
    assert competition.label_of("lying", "img_pig.jpg") == "pig"


def test_a_competition_made_in_python_is_checked_too() -> None:
    assert Competition("x", {"pig": []}, weight_limit_bytes="2 MB").weight_limit_bytes == 2_000_000  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="metric_iou: expected a number above 0 and below 1, found 75"):
        Competition("x", {"pig": []}, metric_iou=75)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4),
                    st.dates())
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.text(max_size=5) | st.booleans() | st.integers() | st.none(), inner, max_size=3), max_leaves=6)
KEYS = st.sampled_from(["name", "classes", "class_pattern", "metric_iou", "weight_limit_bytes", "count_bins",
                        "unlabelled", "group_pattern", "answer_name"])


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(KEYS | st.text(max_size=6), TREES))
def test_whatever_stands_in_a_file_gives_a_competition_or_words(
    tmp_path_factory: pytest.TempPathFactory, content: dict
) -> None:
    values, faults = clean_keys(content)  # as Python has them
    assert all(isinstance(fault, str) and len(fault) < 700 for fault in faults)
    if not faults:
        assert Competition(**values).labels
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=False), encoding="utf-8")  # and as texts
    try:
        assert read_competition(path).labels
    except ValueError as refusal:
        assert str(refusal).startswith(f"{path}: ")


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from(list("{}[]:,-'\"|>&*!%@`#?\n\t abn01.~")), max_size=40) | st.text(max_size=30))
def test_whatever_text_stands_in_a_file_gives_words(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any_text.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match="any_text.yaml: "):
        read_competition(path)


def test_profiles() -> None:
    assert get_profile("colab").weights == "yolov5m6.pt"
    assert get_profile("colab").imgsz == 1280
    assert get_profile("cpu", weights="mine.pt", epochs=None).weights == "mine.pt"
    with pytest.raises(ValueError, match="expected one of"):
        get_profile("laptop")
    with pytest.raises(ValueError, match="unknown key 'epoch'"):
        get_profile("cpu", epoch=3)


def test_labels_keep_the_order_of_the_file() -> None:
    assert Competition("x", {"zebra": ["z"], "ant": ["a"]}).labels == ["zebra", "ant"]
