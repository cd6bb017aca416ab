"""Architectures that ask for any memory, found out by their shapes; and files in place of weights, told by name."""

from __future__ import annotations

import copy
import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from livestock.models import yolov5
from livestock.models.yolov5 import architecture as architecture_module
from livestock.models.yolov5 import compat
from livestock.models.yolov5.architecture import (
    MOST_HELD,
    MOST_IN_ONE,
    MOST_WORK,
    _find_demands,
    layers_without_numbers,
)
from livestock.models.yolov5.safe import FORMAT
from livestock.models.yolov5.weights import STARTER, check_checkpoint, load_checkpoint
from livestock.models.yolov5.wrong_file import LEGACY

compat.apply()
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.bad_input]
UPSAMPLE: list[Any] = [-1, 1, "nn.Upsample", [None, 2, "nearest"]]
DOUBLE: list[Any] = [[-1, -1], 1, "Concat", [1]]
CONV: list[Any] = [-1, 1, "Conv", [8, 1, 1]]


def of(*layers: list[Any]) -> dict[str, Any]:
    """An architecture of these layers and a head of one level, of eight numbers a pixel at most."""
    head = [[-1, 1, "Conv", [8, 1, 1]], [[-1], 1, "Detect", ["nc", "anchors"]]]
    return {"nc": 2, "depth_multiple": 1.0, "width_multiple": 1.0, "anchors": [[10, 13]], "backbone": list(layers),
            "head": head}


BOMBS = {
    "enlarges": (of(CONV, *[UPSAMPLE] * 5), "numbers"),
    "doubles": (of(CONV, *[DOUBLE] * 30), "numbers"),
    "both": (of(CONV, *[UPSAMPLE] * 2, *[DOUBLE] * 6), "numbers in a tensor"),
    "keeps": (of(*[[-1, 1, "Conv", [32, 1, 1]]] * 60), "numbers to hold"),
    "pads": (of([-1, 1, "Conv", [8, 3, 2]], *[[-1, 1, "nn.ZeroPad2d", [[64, 64, 64, 64]]]] * 30), "numbers"),
    "looks far": (of(CONV, *[[-1, 1, "nn.MaxPool2d", [64, 1, 32]]] * 50), "multiplications"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_architecture_that_asks_for_all_is_refused_before_there_is_a_number(name: str, tmp_path: Path) -> None:
    """As safetensors of some kilobytes with all the tensors that it names; and as the dictionary of a checkpoint."""
    from yolov5.models.yolo import parse_model

    architecture, message = BOMBS[name]
    with torch.device("meta"):
        layers = parse_model(copy.deepcopy(architecture), [3])[0]
    state = {f"model.{key}": torch.zeros(tensor.shape).to(torch.float16 if tensor.is_floating_point() else torch.int64)
             for key, tensor in layers.state_dict().items() if tensor.numel() < 10**6}
    path = tmp_path / "bomb.safetensors"
    save_file(state, path, {"format": FORMAT, "architecture": json.dumps(architecture), "labels": '["pig", "cow"]'})
    with pytest.raises(ValueError, match=rf"bomb\.safetensors: architecture: refused, .* {message}.* by pixel"):
        yolov5.load_for_inference(path)
    checkpoint = load_checkpoint(STARTER)
    checkpoint["model"].yaml = architecture
    torch.save(checkpoint, tmp_path / "bomb.pt")
    with pytest.raises(ValueError, match=rf"bomb\.pt: architecture: refused, .* {message}.* by pixel"):
        check_checkpoint(tmp_path / "bomb.pt")


def test_published_models_are_far_within_the_bounds() -> None:
    from yolov5.models import yolo

    folder = Path(yolo.__file__).parent
    names = ["yolov5n", "yolov5x", "hub/yolov5x6", "hub/yolov5-p2", "hub/yolov5-p7", "hub/yolov3"]
    for name in names:
        demands = _find_demands(json.dumps(yaml.safe_load((folder / f"{name}.yaml").read_text())))
        assert demands.held < MOST_HELD / 3.9, name
        assert demands.in_one <= MOST_IN_ONE / 4, name
        assert demands.work < MOST_WORK / 3.9, name


def test_demands_are_those_of_a_real_pass() -> None:
    """The starter on zeros: the outputs of its layers, and its largest tensor, by pixel."""
    model: Any = load_checkpoint(STARTER)["model"].float().eval()
    layers, counts, sizes = list(model.model), [], []
    for module in model.modules():
        if module is not model and module is not model.model and module is not layers[-1]:
            module.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel()))
    for layer in [*layers[:-1], *layers[-1].m]:
        layer.register_forward_hook(lambda module, inputs, output: counts.append(output.numel()))
    with torch.inference_mode():
        model(torch.zeros(1, 3, 256, 256))
    demands = _find_demands(json.dumps(model.yaml))
    assert demands.held == pytest.approx(sum(counts) / 256**2)
    assert demands.in_one == max(sizes) / 256**2


def test_finding_demands_leaves_no_trace_in_other_models() -> None:
    """yolov5's activation is one object in all models: a hook that stays on it would end in their files."""
    from yolov5.models.common import Conv

    _find_demands.cache_clear()
    _find_demands(json.dumps(of(CONV, CONV)))
    assert not Conv.default_act._forward_hooks


def test_what_a_checkpoint_takes_from_where_is_compared_too(tmp_path: Path) -> None:
    """Not only classes and shapes: a layer that joins its input a thousand times needs no larger file."""
    changes: dict[str, Any] = {
        r"model\.12: expected f \[-1, 6\], found \[-1": lambda model: setattr(model.model[12], "f", [-1] * 1000),
        r"model\.11: expected f -1, found 4": lambda model: setattr(model.model[11], "f", 4),
        r"model\.12: expected d 1, found 0": lambda model: setattr(model.model[12], "d", 0),
        r"model: expected the modules \['0', '1', .*, found \['1', '2'": lambda model: model.model._modules.update(
            {"0": model.model._modules.pop("0")}),
    }
    for message, change in changes.items():
        checkpoint = load_checkpoint(STARTER)
        change(checkpoint["model"])
        torch.save(checkpoint, tmp_path / "evil.pt")
        with pytest.raises(ValueError, match=rf"evil\.pt: {message}"):
            check_checkpoint(tmp_path / "evil.pt")


def test_an_architecture_that_no_picture_goes_through_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architecture_module, "_find_demands", _find_demands.__wrapped__)
    broken = of(CONV, [[-1, 0], 1, "Concat", [1]], [-1, 1, "nn.MaxPool2d", [2, 2]], [[-1, 0], 1, "Concat", [1]])
    with pytest.raises(ValueError, match=r"w\.pt: architecture: expected a model that yolov5 can build"):
        layers_without_numbers(broken, Path("w.pt"))


# -- files that are no weights ---------------------------------------------------------------------------------------


def zipped(**entries: bytes) -> bytes:
    """A zip with these entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def scripted() -> bytes:
    """A TorchScript file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def legacy() -> bytes:
    """What torch.save wrote until 1.6."""
    buffer = io.BytesIO()
    torch.save({"model": torch.zeros(1)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


WRONG = {
    "an empty file": b"",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 14\n",
    "a web page": b"\n <!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title>",
    "a zip that ends early, after 100,000 bytes": STARTER.read_bytes()[:100_000],
    "a TorchScript file, which is a program": scripted(),
    "a file of PyTorch before 1.6": legacy(),
    "a bare pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00",
    "an HDF5 file": b"\x89HDF\r\n\x1a\n",
    "a file compressed with gzip": b"\x1f\x8b\x08\x00",
    "an archive with run/best.pt in it": zipped(**{"run/best.pt": b""}),
    "text that begins with 'Not Found'": b"Not Found",
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_told_by_name(what: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(WRONG[what])
    for door in (check_checkpoint, yolov5.load_for_inference):
        with pytest.raises(ValueError, match=rf"weights\.pt: expected a checkpoint .*, found {what}"):
            door(path)


@pytest.mark.parametrize("what", ["an empty file", "a Git LFS pointer", "a web page"])
@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".torchscript"])
def test_so_it_is_with_other_formats(what: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(WRONG[what])
    with pytest.raises(ValueError, match=rf"weights{suffix}: expected .*, found {what}"):
        yolov5.load_for_inference(path, trusted=True)


def test_other_formats_under_another_suffix_are_told_by_name(tmp_path: Path) -> None:
    safe = yolov5.write_safetensors(STARTER, tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.pt").write_bytes(safe)
    with pytest.raises(ValueError, match=r"w\.pt: .*found a safetensors file: give it a name that ends in \.safetens"):
        check_checkpoint(tmp_path / "w.pt")
    (tmp_path / "w.onnx").write_bytes(STARTER.read_bytes())
    with pytest.raises(ValueError, match=r"w\.onnx: .*found a checkpoint of torch\.save: give it a name that ends in"):
        yolov5.load_for_inference(tmp_path / "w.onnx")
    torch.save(load_checkpoint(STARTER)["model"].state_dict(), tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt: .* found the keys .*: a state_dict, weights without their model"):
        check_checkpoint(tmp_path / "state.pt")


@pytest.mark.parametrize(
    ("name", "message"),
    [("ultralytics.nn.tasks\nDetectionModel", r"found weights of YOLOv8 or a later model.*ultralytics\.nn\.tasks\.Det"),
     ("models.yolo\nSegmentationModel", r"found a segmentation model \(models\.yolo\.SegmentationModel\)")])
def test_weights_of_another_model_are_told_by_name(name: str, message: str, tmp_path: Path) -> None:
    """By what its pickle names; nothing of that name is imported."""
    path = tmp_path / "weights.pt"
    content = b"\x80\x02c" + name.encode() + b"\n)\x81."
    path.write_bytes(zipped(**{"archive/data.pkl": content, "archive/version": b"3\n"}))
    with pytest.raises(ValueError, match=rf"weights\.pt: expected a checkpoint of YOLOv5, {message}"):
        check_checkpoint(path)


def test_the_start_of_old_files_is_what_torch_writes() -> None:
    assert legacy().startswith(LEGACY)
