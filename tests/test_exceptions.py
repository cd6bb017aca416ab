"""Which error is raised for what: a caller can tell bad data from a step that is missing, stale or unsafe."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from livestock import exceptions, export
from livestock.config import REPOSITORY, Workspace, read_competition
from livestock.data import archives, readers
from livestock.data.folds.groups import read_groups
from livestock.data.submission import read_answer
from livestock.exceptions import BadData, MissingResult, StaleResult, UnsafeWeights
from livestock.labels.relabel import import_labels
from livestock.labels.relabel.export import read_suspects, upright_picture
from livestock.labels.relabel.store import current_labels
from livestock.models.forward import load_for_inference
from livestock.models.yolov5.library import STARTER
from livestock.sample import draw_sample
from livestock.tables import make_boxes, make_images
from livestock.training.hyp import read_hyp

COMPETITION = read_competition(REPOSITORY / "competition.yaml")
KINDS = (BadData, MissingResult, StaleResult, UnsafeWeights)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_value_error_that_says_when_it_is_raised(kind: type[ValueError]) -> None:
    assert issubclass(kind, ValueError)
    assert "Raised " in (kind.__doc__ or "")


def test_kinds_are_told_apart() -> None:
    assert not [(one, other) for one in KINDS for other in KINDS if one is not other and issubclass(one, other)]
    assert {name for name, value in vars(exceptions).items() if isinstance(value, type)} == {
        kind.__name__ for kind in KINDS}


BAD = {
    "competition.yaml": read_competition,
    "groups.csv": lambda path: read_groups(path, ["a.jpg"]),
    "answer.csv": read_answer,
    "hyp.yaml": read_hyp,
    "images.zip": archives.list_members,
    "labels.xml": lambda path: readers.read("cvat", path.parent, COMPETITION),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_of_other_content_is_bad_data(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"\xff\xfe nothing of the kind")
    with pytest.raises(BadData, match=str(tmp_path)):
        BAD[name](path)


def test_a_wrong_argument_is_not_bad_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reader: expected one of") as caught:
        readers.read("nonesuch", tmp_path, COMPETITION)
    assert not isinstance(caught.value, KINDS)


MISSING: dict[str, Callable[[Path], object]] = {
    "run 01_eda first": lambda root: current_labels(Workspace(root)),
    "run 05_errors first": lambda root: read_suspects(root / "suspects.csv", make_images([]), ["cow"]),
    "run `livestock relabel export` first": lambda root: import_labels(root, Workspace(root), COMPETITION),
}


@pytest.mark.parametrize("words", MISSING)
def test_a_step_that_has_not_run_is_named(words: str, tmp_path: Path) -> None:
    with pytest.raises(MissingResult, match=words):
        MISSING[words](tmp_path)


def test_a_picture_that_has_changed_since_is_stale_and_a_broken_one_is_bad(tmp_path: Path) -> None:
    draw_sample(tmp_path, n_train=8, n_test=2, scale=0.1)
    archive = next((tmp_path / "train").glob("*.zip"))
    member = next(each for each in archives.list_members(archive) if each.name.endswith(".jpg"))
    with pytest.raises(StaleResult, match="expected 1 x 1 px as 01_eda read it"):
        upright_picture(str(archive), member.raw, (1, 1))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(BadData, match="cannot be exported"):
        upright_picture(str(tmp_path), "broken.jpg", (1, 1))


@pytest.mark.parametrize(("name", "content"), [
    ("program.pt", pickle.dumps(print)), ("text.onnx", b"no model"), ("text.safetensors", b"no model"),
    ("program.torchscript", b"PK"),
])
def test_weights_that_are_not_a_model_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnsafeWeights, match=name):
        load_for_inference(path)


def test_weights_that_are_not_there_are_a_wrong_argument(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file") as caught:
        load_for_inference(tmp_path / "none.pt")
    assert not isinstance(caught.value, KINDS)


def test_a_table_of_formats_for_other_classes_is_refused_before_the_exports(tmp_path: Path) -> None:
    images = make_images([{"image_id": name, "archive": str(tmp_path), "member": name, "width": 64, "height": 64}
                          for name in ("a.jpg", "b.jpg")])
    with pytest.raises(BadData, match=r"starter\.safetensors: expected a model with the classes in the order \['cow'"):
        export.edge_table(STARTER, images[:1], make_boxes([]), ["cow", "pig"], tmp_path, calibration=images[1:],
                          imgsz=64)
    assert list(tmp_path.iterdir()) == []
