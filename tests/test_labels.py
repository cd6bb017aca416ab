"""A model's classes: compared by name and order wherever it predicts, put into order where it begins to train."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from livestock import export
from livestock.models import yolov5
from livestock.models.yolov5.labels import check_labels, class_order, move_classes, names_of
from livestock.models.yolov5.training import TrainConfig, _prepare_start
from livestock.models.yolov5.weights import STARTER, load_checkpoint, load_model

pytestmark = pytest.mark.usefixtures("one_thread")
WEIGHTS = Path("w.pt")


@pytest.mark.parametrize(
    ("found", "labels"),
    [(["pig", "cow"], ["pig", "cow"]), (["Pig ", "COW"], ["pig", "cow"]), (["swine", "cattle"], ["pig", "cow"]),
     (["a"], ["a"]), ([], [])])
def test_the_same_classes_pass(found: list[str], labels: list[str]) -> None:
    check_labels(found, labels, WEIGHTS, {"swine": "pig", "cattle": "cow"}.get)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("found", "labels", "message"),
    [(["pig", "cow"], ["cow", "pig"], r"in the order \['cow', 'pig'\], found \['pig', 'cow'\]: each box would get an"),
     (["cattle", "swine"], ["pig", "cow"], r"in the order \['pig', 'cow'\], found \['cattle', 'swine'\]"),
     (["pig", "sheep"], ["pig", "cow"], r"of the classes \['pig', 'cow'\], found \['pig', 'sheep'\]\. If they mean"),
     (["0", "1"], ["pig", "cow"], r"of the classes \['pig', 'cow'\], found \['0', '1'\]"),
     (["pig"], ["pig", "cow"], r"of the 2 classes \['pig', 'cow'\], found 1: \['pig'\]")])
def test_other_classes_are_refused_with_both_lists(found: list[str], labels: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^w\.pt: expected a model .*{message}"):
        check_labels(found, labels, WEIGHTS, {"swine": "pig", "cattle": "cow"}.get)


def test_a_hundred_names_are_not_printed_whole() -> None:
    with pytest.raises(ValueError, match=r"w\.pt: ") as caught:
        check_labels([f"species {n}" for n in range(100)], [f"kind {n}" for n in range(100)], WEIGHTS)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    ("found", "labels", "expected"),
    [(["pig", "cow"], ["pig", "cow"], None), (["cow", "pig"], ["pig", "cow"], [1, 0]),
     (["Cattle", "swine"], ["pig", "cow"], [1, 0]), (["dog", "cat"], ["pig", "cow"], None),
     (["a", "b", "c"], ["c", "a", "b"], [2, 0, 1]), (["x", "b", "c"], ["c", "a", "b"], [2, 0, 1]),
     (["person", "cow"], ["cow"], None)])
def test_where_each_label_starts_from(found: list[str], labels: list[str], expected: list[int] | None) -> None:
    synonyms = {"swine": "pig", "Cattle": "cow"}
    assert class_order(found, labels, synonyms.get) == expected


def test_moved_classes_change_places_in_the_output_and_nothing_else() -> None:
    """Of real weights: boxes and objectness are the same, the two classes' probabilities exchanged."""
    model: Any = load_checkpoint(STARTER)["model"].float().eval()
    moved = copy.deepcopy(model)
    move_classes(moved, [1, 0], ["cow", "pig"])
    picture = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before, after = model(picture)[0], moved(picture)[0]
    assert not torch.equal(before[..., 5], before[..., 6])
    torch.testing.assert_close(after, before[..., [0, 1, 2, 3, 4, 6, 5]], rtol=1e-6, atol=1e-6)
    assert (names_of(model), names_of(moved)) == (["pig", "cow"], ["cow", "pig"])


def config_of(labels: list[str], tmp_path: Path, weights: Path = STARTER, **changes: Any) -> TrainConfig:
    """A training of these classes, as far as its start weights are concerned."""
    (tmp_path / "data.yaml").write_text("names:\n" + "".join(f"  {n}: {label}\n" for n, label in enumerate(labels)))
    return TrainConfig(data_yaml=str(tmp_path / "data.yaml"), weights=str(weights), hyp="", imgsz=64, batch=4, epochs=1,
                       **changes)


def test_start_weights_with_their_classes_elsewhere_are_moved_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = _prepare_start(config_of(["cow", "pig"], tmp_path), None)
    assert "its classes ['pig', 'cow'] are moved to the order of this competition, ['cow', 'pig']" in caplog.text
    assert names_of(moved) == ["cow", "pig"]
    rows = load_checkpoint(STARTER)["model"].model[-1].m[0].bias.view(3, 7)
    assert torch.equal(moved.model[-1].m[0].bias.view(3, 7), rows[:, [0, 1, 2, 3, 4, 6, 5]])
    assert _prepare_start(config_of(["pig", "cow"], tmp_path), None) is None
    assert _prepare_start(config_of(["hen", "duck"], tmp_path), None) is None  # other animals may begin there
    by_synonym = _prepare_start(config_of(["bovine", "hog"], tmp_path), {"cow": "bovine", "pig": "hog"}.get)
    assert names_of(by_synonym) == ["bovine", "hog"]


def test_averaged_weights_alone_are_something_to_start_from(tmp_path: Path) -> None:
    torch.save({"model": None, "ema": load_checkpoint(STARTER)["model"]}, tmp_path / "ema.pt")
    found = _prepare_start(config_of(["pig", "cow"], tmp_path, tmp_path / "ema.pt"), None)
    assert names_of(found) == ["pig", "cow"]


@pytest.mark.bad_input
def test_a_table_of_formats_is_of_the_right_classes(tmp_path: Path) -> None:
    """Before minutes of exports."""
    from livestock.tables import make_boxes, make_images

    images = make_images([{"image_id": name, "archive": str(tmp_path), "member": name, "width": 64, "height": 64}
                          for name in ("a.jpg", "b.jpg")])
    with pytest.raises(ValueError, match=r"starter\.pt: expected a model with the classes in the order \['cow', 'pig'"):
        export.edge_table(STARTER, images[:1], make_boxes([]), ["cow", "pig"], tmp_path, calibration=images[1:],
                            imgsz=64)
    assert list(tmp_path.iterdir()) == []


# -- weights that ask for gradients, and weights that are no numbers -------------------------------------------------


@pytest.fixture
def without_average(tmp_path: Path) -> Path:
    """A checkpoint of a model that is still being trained, without an average."""
    model = load_checkpoint(STARTER)["model"].float()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    torch.save({"model": model}, tmp_path / "last.pt")
    return tmp_path / "last.pt"


def test_weights_that_ask_for_gradients_are_like_all_others(without_average: Path, tmp_path: Path) -> None:
    """Folded, they hung on one graph, which a second step would walk again."""
    model = load_model(without_average)
    assert all(parameter.is_leaf and parameter.grad_fn is None for parameter in model.parameters())
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found, expected = (yolov5.load_for_inference(path)(picture) for path in (without_average, STARTER))
    torch.testing.assert_close(found, expected)
    written = yolov5.write_safetensors(without_average, tmp_path / "w.safetensors")
    safe = yolov5.load_safetensors(written)
    assert all(parameter.is_leaf and parameter.grad_fn is None for parameter in safe.parameters())
    yolov5.write_weights(without_average, tmp_path / "written.pt")


def damaged(change: Any, path: Path) -> Path:
    """The starter after a change of its model."""
    model = load_checkpoint(STARTER)["model"].float()
    with torch.no_grad():
        change(model)
    torch.save({"model": model, "epoch": -1}, path)
    return path


NOT_FINITE: dict[str, Any] = {
    "model.24.m.0.bias": lambda model: model.model[-1].m[0].bias.fill_(float("nan")),
    "model.3.conv.weight": lambda model: model.model[3].conv.weight.view(-1)[7:8].fill_(float("inf")),
    "model.3.bn.running_var": lambda model: model.model[3].bn.running_var.fill_(float("-inf")),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("name", NOT_FINITE)
def test_weights_that_are_not_finite_are_refused(name: str, tmp_path: Path) -> None:
    path = damaged(NOT_FINITE[name], tmp_path / "nan.pt")
    with pytest.raises(ValueError, match=rf"nan\.pt: {name}: expected finite numbers, found infinity or NaN in"):
        yolov5.check_checkpoint(path)


@pytest.mark.bad_input
def test_every_door_refuses_weights_that_are_not_finite(tmp_path: Path) -> None:
    name = "model.24.m.0.bias"
    path = damaged(NOT_FINITE[name], tmp_path / "nan.pt")
    doors: list[Any] = [
        load_checkpoint, load_model, yolov5.load_for_inference,
        lambda path: yolov5.write_weights(path, tmp_path / "out.pt"),
        lambda path: yolov5.write_safetensors(path, tmp_path / "out.safetensors"),
        lambda path: export.export_onnx(path, tmp_path / "out.onnx"),
        lambda path: export.export_torchscript(path, tmp_path / "out.torchscript"),
        lambda path: yolov5.train(config_of(["pig", "cow"], tmp_path, path), tmp_path / "run"),
    ]
    for door in doors:
        with pytest.raises(ValueError, match=rf"nan\.pt: {name}: expected finite numbers, found infinity or NaN in"):
            door(path)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["data.yaml", "nan.pt"]


@pytest.mark.bad_input
def test_a_variance_below_zero_is_found_when_it_is_folded(tmp_path: Path) -> None:
    """Finite in the file, and the root of it is no number."""
    path = damaged(lambda model: model.model[3].bn.running_var.fill_(-1), tmp_path / "negative.pt")
    with pytest.raises(ValueError, match=r"negative\.pt: model\.3\.conv\.weight: expected finite numbers"):
        load_model(path)


@pytest.mark.bad_input
def test_weights_too_large_for_half_precision_are_not_written(tmp_path: Path) -> None:
    path = damaged(lambda model: model.model[3].bn.running_var.fill_(70_000), tmp_path / "large.pt")
    with pytest.raises(ValueError, match=r"out\.pt: model\.3\.bn\.running_var: expected finite numbers"):
        yolov5.write_weights(path, tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.bad_input
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_torchscript_file_of_no_numbers_is_refused(tmp_path: Path) -> None:
    script = export.export_torchscript(STARTER, tmp_path / "s.torchscript")
    extra = {"livestock": ""}
    module = torch.jit.load(str(script), _extra_files=extra)
    with torch.no_grad():
        next(module.parameters()).fill_(float("nan"))
    torch.jit.save(module, str(script), _extra_files=extra)
    with pytest.raises(ValueError, match=r"s\.torchscript: .*: expected finite numbers"):
        yolov5.load_for_inference(script, trusted=True)


@pytest.mark.bad_input
def test_an_output_of_no_numbers_is_an_error_and_no_empty_image() -> None:
    forward = yolov5.LoadedModel(WEIGHTS, lambda pictures: torch.full((len(pictures), 9, 7), torch.nan), ["pig", "cow"],
                               32, "cpu")
    with pytest.raises(ValueError, match=r"w\.pt: expected numbers, found NaN in the output"):
        forward(torch.zeros(1, 3, 64, 64))
