"""Architectures that ask for any memory, found out by their shapes; and files in place of weights, told by name."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from livestock import export
from livestock.exceptions import UnsafeWeights
from livestock.models.base import ModelConfig
from livestock.models.checkpoint import load_model, read_checkpoint, write_checkpoint
from livestock.models.forward import load_for_inference
from livestock.models.metadata import METADATA
from livestock.models.yolov5 import architecture as architecture_module
from livestock.models.yolov5 import library
from livestock.models.yolov5.architecture import (
    MOST_HELD,
    MOST_IN_ONE,
    MOST_WORK,
    _find_demands,
    layers_without_numbers,
)
from livestock.models.yolov5.library import STARTER

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
    """As safetensors of some kilobytes with all the tensors that it names."""
    library.load()
    from yolov5.models.yolo import parse_model

    architecture, message = BOMBS[name]
    with torch.device("meta"):
        layers = parse_model(copy.deepcopy(architecture), [3])[0]
    state = {f"model.{key}": torch.zeros(tensor.shape).to(torch.float16 if tensor.is_floating_point() else torch.int64)
             for key, tensor in layers.state_dict().items() if tensor.numel() < 10**6}
    path = tmp_path / "bomb.safetensors"
    write_checkpoint(path, ModelConfig("yolov5", ("pig", "cow"), 640, 32, architecture), state)
    with pytest.raises(ValueError, match=rf"bomb\.safetensors: .*architecture: refused, .* {message}.* by pixel"):
        load_model(path)


def test_published_models_are_far_within_the_bounds() -> None:
    folder = library.load().models
    names = ["yolov5n", "yolov5x", "hub/yolov5x6", "hub/yolov5-p2", "hub/yolov5-p7", "hub/yolov3"]
    for name in names:
        demands = _find_demands(json.dumps(yaml.safe_load((folder / f"{name}.yaml").read_text())))
        assert demands.held < MOST_HELD / 3.9, name
        assert demands.in_one <= MOST_IN_ONE / 4, name
        assert demands.work < MOST_WORK / 3.9, name


def test_demands_are_those_of_a_real_pass() -> None:
    """The starter on zeros: the outputs of its layers, and its largest tensor, by pixel."""
    config, starter = load_model(STARTER)
    model: Any = copy.deepcopy(starter)  # with an activation of its own, for the hooks
    layers, counts, sizes = list(model.model), [], []
    for module in model.modules():
        if module is not model and module is not model.model and module is not layers[-1]:
            module.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel()))
    for layer in [*layers[:-1], *layers[-1].m]:
        layer.register_forward_hook(lambda module, inputs, output: counts.append(output.numel()))
    with torch.inference_mode():
        model(torch.zeros(1, 3, 256, 256))
    demands = _find_demands(json.dumps(dict(config.architecture)))
    assert demands.held == pytest.approx(sum(counts) / 256**2)
    assert demands.in_one == max(sizes) / 256**2


def test_finding_demands_leaves_no_trace_in_other_models() -> None:
    """yolov5's activation is one object in all models: a hook that stays on it would end in their files."""
    library.load()
    from yolov5.models.common import Conv

    _find_demands.cache_clear()
    _find_demands(json.dumps(of(CONV, CONV)))
    assert not Conv.default_act._forward_hooks


def test_an_architecture_that_no_picture_goes_through_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architecture_module, "_find_demands", _find_demands.__wrapped__)
    broken = of(CONV, [[-1, 0], 1, "Concat", [1]], [-1, 1, "nn.MaxPool2d", [2, 2]], [[-1, 0], 1, "Concat", [1]])
    with pytest.raises(ValueError, match=r"w\.pt: architecture: expected a model that yolov5 can build"):
        layers_without_numbers(broken, Path("w.pt"))


# -- files that are no weights ---------------------------------------------------------------------------------------

WRONG = {
    "an empty file": b"",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 14\n",
    "a web page": b"\n <!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title>",
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".onnx", ".torchscript"])
def test_a_wrong_file_of_any_suffix_is_told_by_name(what: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(WRONG[what])
    with pytest.raises(ValueError, match=rf"weights{suffix}: expected .*, found {what}"):
        load_for_inference(path, trusted=True)


def test_other_formats_under_another_suffix_are_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(STARTER.read_bytes())
    with pytest.raises(ValueError, match=r"w\.pt: .*found a safetensors file: give it a name that ends in \.safetens"):
        read_checkpoint(tmp_path / "w.pt")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    for suffix in (".onnx", ".safetensors"):
        path = tmp_path / f"w{suffix}"
        path.write_bytes(buffer.getvalue())
        with pytest.raises(ValueError, match=rf"w{suffix}: .*found a checkpoint of torch\.save: give it a name"):
            load_for_inference(path)


# -- numbers that only show when a model is used ---------------------------------------------------------------------


def test_weights_that_overflow_when_batch_norm_is_folded_in_are_refused(tmp_path: Path) -> None:
    """Each is finite in the file; their product is not, and such a model would see nothing, in silence."""
    starter = read_checkpoint(STARTER)
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor
               for name, tensor in starter.tensors.items()}
    for name in ("conv.weight", "bn.weight"):
        tensors[f"model.3.{name}"] = torch.full_like(tensors[f"model.3.{name}"], 1e30)
    path = tmp_path / "large.safetensors"
    write_checkpoint(path, starter.config, tensors)
    load_model(path)
    with pytest.raises(UnsafeWeights, match=r"large\.safetensors: model\.3\.conv\.weight: expected finite numbers"):
        load_for_inference(path, "cpu")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_torchscript_file_of_no_numbers_is_refused(tmp_path: Path) -> None:
    script = export.export_torchscript(STARTER, tmp_path / "s.torchscript")
    extra = {METADATA: ""}
    module = torch.jit.load(str(script), _extra_files=extra)
    with torch.no_grad():
        next(iter(module.parameters())).fill_(float("nan"))
    torch.jit.save(module, str(script), _extra_files=extra)
    with pytest.raises(UnsafeWeights, match=r"s\.torchscript: .*: expected finite numbers"):
        load_for_inference(script, "cpu", trusted=True)
