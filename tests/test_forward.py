"""A model ready to predict, from files of every kind and from memory; files of strangers run nothing."""

from __future__ import annotations

import copy
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from small_models import LABELS, build_lively, draw_blobs
from torch import nn

from livestock import export
from livestock.models.base import ModelConfig, Predictions
from livestock.models.checkpoint import read_checkpoint, write_checkpoint
from livestock.models.forward import LoadedModel, load_for_inference, load_fused, wrap_model
from livestock.models.loaded import find_device
from livestock.models.metadata import METADATA, Metadata, read_metadata, write_metadata
from livestock.models.registry import get_family
from livestock.models.yolov5 import architecture as yolov5_architecture
from livestock.models.yolov5.library import STARTER
from livestock.training.settings import find_place

pytestmark = pytest.mark.usefixtures("one_thread", "few_queries")
FAMILIES = [("yolov5", 64), ("retinanet", 64), ("ssd", 64), ("tood", 64), ("yolox", 128), ("dfine", 256),
            ("rfdetr", 288)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter as `.safetensors`, `.onnx` and `.torchscript`."""
    folder = tmp_path_factory.mktemp("starter")
    starter = read_checkpoint(STARTER)
    write_checkpoint(folder / "starter.safetensors", starter.config, starter.tensors, half=True)
    export.export_onnx(STARTER, folder / "starter.onnx")
    export.export_torchscript(STARTER, folder / "starter.torchscript")
    return folder


@pytest.fixture(scope="module")
def pictures() -> list[torch.Tensor]:
    """Of two sizes, `(1, 3, H, W)`."""
    torch.manual_seed(0)
    return [draw_blobs(1, 192, 320), draw_blobs(1, 160, 256)]


def assert_equal(found: Predictions, expected: Predictions, **tolerances: Any) -> None:
    torch.testing.assert_close(found.boxes, expected.boxes, **tolerances)
    torch.testing.assert_close(found.scores, expected.scores, **tolerances)


@pytest.mark.parametrize(("family", "imgsz"), FAMILIES)
def test_a_file_gives_what_the_family_predicts(family: str, imgsz: int, tmp_path: Path) -> None:
    """Folded, in channels-last order, in a copy of a thread: all but rounding is the same."""
    config, model = build_lively(family, imgsz)
    write_checkpoint(tmp_path / "w.safetensors", config, model.state_dict())
    loaded = load_for_inference(tmp_path / "w.safetensors", "cpu")
    torch.manual_seed(0)
    images = draw_blobs(2, imgsz, imgsz)
    with torch.inference_mode():
        expected = get_family(family).predict(model, images)
    assert_equal(loaded(images), expected, rtol=1e-4, atol=2e-3 if family == "yolov5" else 1e-3)
    assert (loaded.labels, loaded.imgsz, loaded.family, loaded.device) == (LABELS, imgsz, family, "cpu")
    assert (loaded.needs_nms, loaded.resize) == {
        "dfine": (False, "stretch"), "rfdetr": (False, "stretch"),
        "yolox": (True, "top_left")}.get(family, (True, "letterbox"))


@pytest.mark.parametrize(("device", "with_gpu", "without"), [
    ("", "cuda", "cpu"), ("0", "cuda:0", "cpu"), ("1,0", "cuda:1", "cpu"), ("cpu", "cpu", "cpu"),
    ("mps", "mps", "mps"),
])
def test_what_trains_on_a_device_of_this_name_predicts_on_it(
    monkeypatch: pytest.MonkeyPatch, device: str, with_gpu: str, without: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device(device) == with_gpu
    assert device == "mps" or torch.device(with_gpu).type == torch.device(find_place(device or "0").device).type
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device(device) == without


@pytest.mark.bad_input
def test_a_gpu_by_its_full_name_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("cuda:1") == "cuda:1"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda:1': expected one of this machine, found no GPU"):
        find_device("cuda:1")


def test_numbers_of_gpus_are_read_for_weights_of_a_training(tmp_path: Path) -> None:
    config, model = build_lively("yolov5", 64)
    write_checkpoint(tmp_path / "w.safetensors", config, model.state_dict())
    assert load_for_inference(tmp_path / "w.safetensors", "0").device == find_device("0")


def test_batch_norm_is_folded_where_the_family_can() -> None:
    _, _, model = load_fused(STARTER)
    assert not [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize(("family", "imgsz"), FAMILIES)
def test_a_model_in_memory_is_as_it_is_now(family: str, imgsz: int) -> None:
    """It is not changed, and later changes of its weights count: the training loop validates with it."""
    config, model = build_lively(family, imgsz)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loaded, images = wrap_model(get_family(family), config, model, "cpu"), draw_blobs(1, imgsz, imgsz)
    first = loaded(images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
        expected = get_family(family).predict(model, images)
    assert_equal(loaded(images), expected)
    assert not torch.equal(first.scores, expected.scores)
    with pytest.raises(ValueError, match="expected a model in evaluation mode"):
        wrap_model(get_family(family), config, model.train(), "cpu")


def test_predictions_in_half_precision_come_in_float32() -> None:
    """From 1,024 on the numbers of half precision are whole ones: boxes are decoded in float32."""
    picture = torch.rand(1, 3, 64, 1280, generator=torch.Generator().manual_seed(0))
    exact, half = (load_for_inference(STARTER, "cpu", half=half)(picture) for half in (False, True))
    assert half.boxes.dtype == half.scores.dtype == torch.float32
    right = exact.boxes[..., 0] > 1100
    assert 0 < (half.boxes - exact.boxes)[right][:, 0].abs().mean() < 0.05


def test_each_thread_has_a_head_of_its_own_and_shares_the_weights(pictures: list[torch.Tensor]) -> None:
    """The head keeps a grid of the last picture's size, which another thread's picture may not have."""
    forward, both = load_for_inference(STARTER, "cpu"), Barrier(2)
    heads: list[Any] = []

    def watch(module: Any, inputs: Any) -> None:
        if hasattr(module, "anchor_grid"):
            heads.append(module)
            both.wait(60)  # both threads are between the network's last layer and its grid

    handle = torch.nn.modules.module.register_module_forward_pre_hook(watch)
    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(forward, pictures))
    handle.remove()
    assert heads[0] is not heads[1]
    assert heads[0].m[0].weight is heads[1].m[0].weight
    for picture, found in zip(pictures, at_once, strict=True):
        assert_equal(found, forward(picture))


def test_threads_are_as_before(pictures: list[torch.Tensor]) -> None:
    before = torch.get_num_threads()
    during: list[int] = []
    forward = load_for_inference(STARTER, "cpu", n_threads=before + 1)
    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: during.append(torch.get_num_threads()))
    forward(pictures[0])
    handle.remove()
    assert set(during) == {before + 1}
    assert torch.get_num_threads() == before


# -- files of the first version -------------------------------------------------------------------------------------


class FirstVersion(nn.Module):
    """The starter as the first version exported it: cx, cy, w, h, objectness and class probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.model = load_fused(STARTER)[2]
        head: Any = next(module for module in self.model.modules() if type(module).__name__ == "Detect")
        head.inplace, head.export, head.dynamic = False, True, True

    def forward(self, images: torch.Tensor) -> Any:
        return self.model(images)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".onnx", ".torchscript"])
def test_files_of_the_first_version_are_still_read(suffix: str, tmp_path: Path, pictures: list[torch.Tensor]) -> None:
    path, model, text = tmp_path / f"old{suffix}", FirstVersion().eval(), '{"labels": ["pig", "cow"], "stride": 32}'
    if suffix == ".onnx":
        axes = {"images": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch", 1: "boxes"}}
        torch.onnx.export(model, (torch.rand(2, 3, 96, 64),), str(path), dynamo=False, opset_version=13,
                          input_names=["images"], output_names=["output"], dynamic_axes=axes)
        content = onnx.load(path)
        helper.set_model_props(content, {METADATA: text})
        onnx.save(content, path)
    else:
        traced = torch.jit.trace(model, torch.rand(2, 3, 96, 64), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={METADATA: text})
    loaded = load_for_inference(path, "cpu", trusted=suffix == ".torchscript")
    expected = load_for_inference(STARTER, "cpu")
    for picture in pictures:
        assert_equal(loaded(picture), expected(picture), rtol=1e-3, atol=1e-3)
    assert (loaded.labels, loaded.stride, loaded.resize, loaded.needs_nms) == (LABELS, 32, "letterbox", True)
    assert (loaded.imgsz, loaded.family) == (None, "yolov5")


def test_metadata_comes_back_as_it_was_written() -> None:
    metadata = Metadata(["pig"], 64, "dfine", "stretch", 640, needs_nms=False, has_fixed_size=True)
    assert read_metadata(write_metadata(metadata), Path("w.onnx")) == metadata
    assert metadata.n_columns == 5


@pytest.mark.parametrize(("change", "message"), [
    ({"labels": ["pig", 3]}, "expected a list of labels, found labels"), ({"stride": True}, "expected a stride of"),
    ({"resize": "squash"}, "expected one of .*letterbox"), ({"imgsz": 1 << 20}, "expected a size of"),
    ({"needs_nms": 1}, "expected true or false, found needs_nms"), ({"more": 1}, "expected the keys .*, found .*more"),
    ({"family": None}, "expected the name of a family"),
])
def test_metadata_of_other_types_is_refused(change: dict[str, Any], message: str) -> None:
    content = json.loads(write_metadata(Metadata(["pig"], 32, imgsz=64)))
    with pytest.raises(ValueError, match=rf"w\.onnx: metadata 'livestock': {message}"):
        read_metadata(json.dumps({**content, **change}), Path("w.onnx"))


# -- refused ---------------------------------------------------------------------------------------------------------


@dataclass
class Parts:
    """What a file of yolov5 is made of, to change and write again."""

    tensors: dict[str, torch.Tensor]
    architecture: dict[str, Any]

    def write(self, path: Path) -> Path:
        write_checkpoint(path, ModelConfig("yolov5", tuple(LABELS), 320, 32, self.architecture), self.tensors)
        return path


@pytest.fixture
def parts() -> Parts:
    found = read_checkpoint(STARTER)
    return Parts(found.tensors, copy.deepcopy(dict(found.config.architecture)))


EVIL = "__import__('pathlib').Path('{}').touch()"


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("layer 0: module", lambda a, evil: a["backbone"][0].__setitem__(2, evil)),
        ("layer 0: argument 1", lambda a, evil: a["backbone"][0][3].__setitem__(1, evil)),
        ("layer 2: argument 0", lambda a, evil: a["backbone"][2][3].__setitem__(0, [evil])),
        ("layer 11: arguments", lambda a, evil: a["head"][1][3].__setitem__(0, evil)),
        ("layer 24: arguments", lambda a, evil: a["head"][-1][3].__setitem__(0, evil)),
        ("layer 0: from", lambda a, evil: a["backbone"][0].__setitem__(0, evil)),
        ("layer 0: number", lambda a, evil: a["backbone"][0].__setitem__(1, evil)),
        ("keys", lambda a, evil: a.__setitem__("activation", evil)),
        ("width_multiple", lambda a, evil: a.__setitem__("width_multiple", evil)),
        ("anchors", lambda a, evil: a.__setitem__("anchors", evil)),
        ("layer 0: argument 0", lambda a, evil: a["backbone"][0][3].__setitem__(0, 10**9)),
        ("layer 11: arguments", lambda a, evil: a["head"][1][3].__setitem__(1, 1000)),
        ("repeats of layers", lambda a, evil: a["backbone"][2].__setitem__(1, 300)),
        ("layers", lambda a, evil: a["head"].pop()),
        ("depth_multiple", lambda a, evil: a.__setitem__("depth_multiple", -1)),
    ],
)
def test_an_architecture_that_would_run_code_is_refused(entry: str, change: Any, parts: Parts, tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    architecture = copy.deepcopy(parts.architecture)
    change(architecture, EVIL.format(trace))
    path = Parts(parts.tensors, architecture).write(tmp_path / "evil.safetensors")
    with pytest.raises(ValueError, match=rf"evil\.safetensors: .*architecture: {entry}: refused, expected"):
        load_for_inference(path)
    assert not trace.exists()


def test_an_architecture_of_another_size_allocates_nothing(parts: Parts, tmp_path: Path) -> None:
    """Two thousand times the channels: terabytes, if the model were built before its shapes are compared."""
    parts.architecture["backbone"][7][3][0] = 8192
    parts.architecture["width_multiple"] = 4.0
    with pytest.raises(ValueError, match=r"big\.safetensors: .*refused, expected up to .* multiplications"):
        load_for_inference(parts.write(tmp_path / "big.safetensors"))


def test_an_architecture_of_other_channels_allocates_nothing(parts: Parts, tmp_path: Path) -> None:
    """Within the bounds of a pass, but not the model of these tensors."""
    parts.architecture["backbone"][7][3][0] *= 2
    with pytest.raises(ValueError, match=r"expected torch\.float32 of shape \[.*, found .* of shape \["):
        load_for_inference(parts.write(tmp_path / "other.safetensors"))


def test_a_model_that_cannot_be_built_is_refused(parts: Parts, tmp_path: Path) -> None:
    parts.architecture["backbone"][0][3] = [64, 6, 2, 2, 7]  # groups that do not divide the channels
    with pytest.raises(ValueError, match="architecture: expected a model that yolov5 can build"):
        load_for_inference(parts.write(tmp_path / "bad.safetensors"))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".onnx", ".torchscript"])
def test_a_file_that_is_cut_or_no_model_is_refused(suffix: str, folder: Path, tmp_path: Path) -> None:
    whole = (STARTER if suffix == ".pt" else folder / f"starter{suffix}").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no model at all"):
        (tmp_path / f"cut{suffix}").write_bytes(content)
        with pytest.raises(ValueError, match=r"cut\.\w+: "):
            load_for_inference(tmp_path / f"cut{suffix}", trusted=True)
    with pytest.raises(ValueError, match="found no such file"):
        load_for_inference(tmp_path / f"missing{suffix}", trusted=True)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    shutil.copy(STARTER, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth: expected weights ending in one of .*, found '\.pth'"):
        load_for_inference(tmp_path / "weights.pth")


def test_onnx_of_other_classes_or_of_another_hand_is_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    for metadata, message in [
        ({}, "expected metadata 'livestock' with labels and stride"),
        ({"livestock": '{"labels": ["pig", "cow"], "stride": 32}'}, r"an output \(B, N, 7\) for the labels"),
        ({"livestock": '{"labels": "pig", "stride": 32}'}, "expected a list of labels"),
        ({"livestock": '{"labels": ["pig", "cow"], "stride": 1e9}'}, "expected a stride"),
    ]:
        model = onnx.load(folder / "starter.onnx")
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, path)
        with pytest.raises(ValueError, match=message):
            load_for_inference(path)


@pytest.mark.parametrize(("boxes", "scores"), [((2, 9, 4), (2, 9, 3)), ((2, 9, 5), (2, 9, 2)), ((2, 9, 4), (2, 8, 2)),
                                                ((1, 9, 4), (1, 9, 2)), ((9, 4), (9, 2))])
def test_predictions_of_another_shape_are_refused(boxes: tuple[int, ...], scores: tuple[int, ...]) -> None:
    odd = LoadedModel(Path("odd.pt"), lambda images: Predictions(torch.zeros(boxes), torch.zeros(scores)), LABELS, 32)
    with pytest.raises(ValueError, match=r"odd\.pt: expected boxes \(2, N, 4\) and scores \(2, N, 2\) .*, found"):
        odd(torch.zeros(2, 3, 64, 64))


@pytest.mark.parametrize("where", ["boxes", "scores"])
def test_nan_is_no_box(where: str) -> None:
    whole = Predictions(torch.zeros(1, 3, 4), torch.zeros(1, 3, 2))
    broken = replace(whole, **{where: torch.full_like(getattr(whole, where), float("nan"))})
    with pytest.raises(ValueError, match=r"w\.pt: expected numbers, found NaN in the output"):
        LoadedModel(Path("w.pt"), lambda images: broken, LABELS, 32)(torch.zeros(1, 3, 64, 64))


def test_a_file_whose_output_turns_out_otherwise_is_refused(tmp_path: Path) -> None:
    """Where a file does not declare the shape of its output, the first pass tells."""
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "height", "width"])]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["a", "b", "c"])]
    nodes = [helper.make_node("Flatten", ["images"], ["flat"]),
             helper.make_node("Unsqueeze", ["flat", "axis"], ["output"])]
    model = helper.make_model(
        helper.make_graph(nodes, "odd", inputs, outputs, [helper.make_tensor("axis", TensorProto.INT64, [1], [1])]),
        opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7
    helper.set_model_props(model, {METADATA: write_metadata(Metadata(LABELS, 32))})
    (tmp_path / "odd.onnx").write_bytes(model.SerializeToString())
    loaded = load_for_inference(tmp_path / "odd.onnx", "cpu")
    with pytest.raises(ValueError, match=r"odd\.onnx: expected an output \(1, N, 6\) .*, found \(1, 1, 12288\)"):
        loaded(torch.zeros(1, 3, 64, 64))


def test_torchscript_is_loaded_only_where_it_is_ours(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"starter\.torchscript: refused, a TorchScript file is a program"):
        load_for_inference(folder / "starter.torchscript", "cpu")


def test_every_published_architecture_is_known() -> None:
    """What yolov5's own files of detection models hold passes, but for those with modules that no checkpoint may."""
    import yaml
    from yolov5.models import yolo

    for name in [*"nsmlx", *(f"hub/yolov5{size}6" for size in "nsmlx")]:
        path = Path(yolo.__file__).with_name("hub") / f"{name[4:]}.yaml" if "/" in name else \
            Path(yolo.__file__).with_name(f"yolov5{name}.yaml")
        yolov5_architecture.check_architecture(yaml.safe_load(path.read_text()), path)
