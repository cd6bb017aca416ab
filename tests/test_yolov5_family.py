"""The family yolov5 against the package itself, number by number, and what importing the package leaves behind."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import requests
import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    unset_fake_temporarily,
)

from livestock.exceptions import BadData, UnsafeWeights
from livestock.models.base import Batch, ModelConfig, load_matching
from livestock.models.registry import get_family
from livestock.models.yolov5 import family as family_module
from livestock.models.yolov5 import library
from livestock.models.yolov5.family import YoloV5, fuse

LABELS = ["pig", "cow"]
FAMILY = YoloV5()
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return FAMILY.configure(LABELS, 320)


@pytest.fixture
def model(config: ModelConfig) -> Any:
    torch.manual_seed(0)
    return FAMILY.build(config)


def make_batch(n_boxes: list[int], height: int = 64, width: int = 128, n_classes: int = 2) -> Batch:
    """Noise, and boxes of 4 to 44 pixels. Where sides are powers of two, targets are exact whoever computes them."""
    generator = torch.Generator().manual_seed(1)
    images, boxes = torch.rand(len(n_boxes), 3, height, width, generator=generator), []
    for n in n_boxes:
        corner, size = torch.rand(2, n, 2, generator=generator)
        corner, size = (corner * torch.tensor([width - 48, height - 48])).round(), 4 + 2 * (20 * size).round()
        boxes.append(torch.cat([corner, corner + size], 1))
    ids = [torch.randint(n_classes, (n,), generator=generator) for n in n_boxes]
    return Batch(images, boxes, ids)


def make_targets(batch: Batch) -> torch.Tensor:
    """The targets that yolov5 takes, written out box by box."""
    height, width = batch.images.shape[2:]
    rows = [[index, class_id, (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
            for index, (boxes, ids) in enumerate(zip(batch.boxes, batch.class_ids, strict=True))
            for (x1, y1, x2, y2), class_id in zip(boxes.double().tolist(), ids.tolist(), strict=True)]
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 6).float()


def stock_loss(model: Any, hyp: dict[str, float], imgsz: int) -> Any:
    """As yolov5's train.py makes it."""
    n_levels, n_classes, hyp = model.model[-1].nl, model.model[-1].nc, dict(hyp)
    hyp["box"] *= 3 / n_levels
    hyp["cls"] *= n_classes / 80 * 3 / n_levels
    hyp["obj"] *= (imgsz / 640) ** 2 * 3 / n_levels
    model.hyp = hyp
    return library.load().compute_loss(model)


def read_gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


OTHERS = {"box": 0.02, "cls": 0.2, "cls_pw": 0.95, "obj": 0.2, "obj_pw": 0.5, "anchor_t": 3.0, "fl_gamma": 0.5,
          "label_smoothing": 0.1}


@pytest.mark.parametrize("hyp", [{}, OTHERS], ids=["defaults", "others"])
@pytest.mark.parametrize("n_boxes", [[3, 0, 5, 1], [2, 7, 4], [1], [0, 0]], ids=str)
def test_loss_and_gradients_are_the_packages(model: Any, hyp: dict[str, float], n_boxes: list[int]) -> None:
    other, batch = copy.deepcopy(model), make_batch(n_boxes)
    total, items = stock_loss(other, {**FAMILY.defaults, **hyp}, imgsz=320)(other(batch.images), make_targets(batch))
    total.backward()

    parts = FAMILY.make_loss(model, hyp)(model, batch)
    loss = sum(parts.values()) * len(batch)
    loss.backward()

    assert list(parts) == ["box", "obj", "cls"] and torch.equal(torch.stack(list(parts.values())), items)
    assert torch.equal(loss, total[0])
    expected, found = read_gradients(other), read_gradients(model)
    assert expected.keys() == found.keys() == {name for name, _ in model.named_parameters()}
    assert all(torch.equal(gradient, expected[name]) for name, gradient in found.items())
    assert any(gradient.abs().max() > 0 for gradient in found.values())
    assert [float(part.detach()) > 0 for part in parts.values()] == [any(n_boxes), True, any(n_boxes)]


def test_the_loss_of_any_size(model: Any) -> None:
    other, batch = copy.deepcopy(model), make_batch([3, 2], 96, 160)
    _, items = stock_loss(other, dict(FAMILY.defaults), imgsz=320)(other(batch.images), make_targets(batch))
    found = torch.stack(list(FAMILY.make_loss(model, {})(model, batch).values()))
    torch.testing.assert_close(found, items, rtol=1e-6, atol=0)


def test_the_loss_of_six_strides_is_scaled_by_levels(config: ModelConfig) -> None:
    model: Any = FAMILY.build(FAMILY.configure(["pig", "cow", "goat"], 300, "yolov5n6"))
    other, batch = copy.deepcopy(model), make_batch([4, 2], 128, 128, n_classes=3)
    _, items = stock_loss(other, dict(FAMILY.defaults), imgsz=320)(other(batch.images), make_targets(batch))
    assert model.model[-1].nl == 4
    found = torch.stack(list(FAMILY.make_loss(model, {})(model, batch).values()))
    torch.testing.assert_close(found, items, rtol=1e-6, atol=0)


def test_the_loss_runs_a_wrapper_once_and_in_evaluation_too(model: Any) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module, self.calls = model, 0

        def forward(self, images: torch.Tensor) -> Any:
            self.calls += 1
            return self.module(images)

    batch, loss, wrapper = make_batch([3, 2]), FAMILY.make_loss(model, {}), Wrapper()
    expected = loss(copy.deepcopy(model), batch)
    assert all(torch.equal(part, expected[name]) for name, part in loss(wrapper, batch).items())
    assert wrapper.calls == 1
    model.eval()
    with torch.no_grad():
        evaluated = loss(model, batch)
        levels = model(batch.images)[1]
    _, items = stock_loss(model, dict(FAMILY.defaults), 320)(levels, make_targets(batch))
    torch.testing.assert_close(torch.stack(list(evaluated.values())), items, rtol=1e-6, atol=0)


def test_the_loss_is_in_single_precision_under_autocast(model: Any) -> None:
    batch, other = make_batch([3, 2]), copy.deepcopy(model)
    with torch.autocast("cpu", torch.bfloat16):
        parts = FAMILY.make_loss(model, {})(model, batch)
        levels = other(batch.images)
    assert {level.dtype for level in levels} == {torch.bfloat16}
    assert {part.dtype for part in parts.values()} == {torch.float32}
    items = stock_loss(other, dict(FAMILY.defaults), 320)([level.float() for level in levels], make_targets(batch))[1]
    torch.testing.assert_close(torch.stack(list(parts.values())), items, rtol=1e-6, atol=0)


def test_the_loss_takes_anchors_that_are_changed_after_it_was_made(model: Any) -> None:
    """Fitted, which makes a new tensor, or loaded, which writes into the old one."""
    batch, loss, state = make_batch([3, 2]), FAMILY.make_loss(model, {}), copy.deepcopy(model.state_dict())
    state["model.24.anchors"] /= 2
    found = [float(loss(model, batch)["box"].detach())]
    for change in (lambda: FAMILY.fit_boxes(model, np.random.default_rng(0).uniform(8, 12, (300, 2)) * [3, 1], 320,
                                            {"anchor_t": 1.5}),
                   lambda: model.load_state_dict(state)):
        change()
        fresh = FAMILY.make_loss(model, {})(model, batch)["box"]
        assert torch.equal(loss(model, batch)["box"], fresh)
        found.append(float(fresh.detach()))
    assert len(set(found)) == 3 and min(found) > 0


def to_fake(found: Any, fake: FakeTensorMode) -> Any:
    """A tensor or a tuple of tensors."""
    return tuple(map(fake.from_tensor, found)) if isinstance(found, tuple) else fake.from_tensor(found)


@pytest.mark.parametrize("n_boxes", [[0, 0], [20, 10]], ids=str)
def test_the_loss_asks_a_gpu_for_nothing(model: Any, n_boxes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a make-believe GPU, which has no numbers to give: whatever depends on one is an error there."""
    monkeypatch.setattr(family_module, "_send", lambda tensor, device: tensor.to(device))  # no memory to pin
    head, targets, stock = model.model[-1], make_targets(make_batch(n_boxes)), library.load().compute_loss
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        on_gpu = SimpleNamespace(
            hyp=dict(FAMILY.defaults), parameters=lambda: iter([torch.empty(1, device="cuda")]),
            model=[SimpleNamespace(nl=head.nl, na=head.na, nc=head.nc, anchors=head.anchors.to("cuda"))])
        levels = [torch.randn(2, 3, 64 // stride, 128 // stride, 7, device="cuda", requires_grad=True)
                  for stride in (8, 16, 32)]
        theirs, ours = stock(on_gpu), family_module._host_loss(stock)(on_gpu)
        if any(n_boxes):
            with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
                theirs(levels, targets.to("cuda"))
        match = ours.match
        match.args[0].anchors = head.anchors

        def match_for_real(p: Any, given: torch.Tensor) -> Any:
            with unset_fake_temporarily():  # the CPU's part has numbers
                found = match(p, given)
            return tuple([to_fake(level, fake) for level in part] for part in found)

        monkeypatch.setattr(ours, "match", match_for_real)
        value, items = ours(levels, targets)
        assert value.device.type == items.device.type == "cuda"


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_parameter_groups_are_those_of_the_packages_optimizer(model: Any, name: str) -> None:
    from yolov5.utils.torch_utils import smart_optimizer

    hyp = {"lr0": 0.009, "momentum": 0.94, "weight_decay": 0.001, "warmup_bias_lr": 0.0004}
    expected = smart_optimizer(model, name, hyp["lr0"], hyp["momentum"], hyp["weight_decay"]).param_groups
    groups = FAMILY.parameter_groups(model, hyp)
    assert [[id(one) for one in group["params"]] for group in groups] == [
        [id(one) for one in group["params"]] for group in expected]
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        (group["lr"], group["weight_decay"]) for group in expected]
    assert [group["warmup_lr"] for group in groups] == [0.0004, 0.0, 0.0]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def decode(output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The package's decoded output: centre, size, objectness, classes."""
    x, y, width, height = output[..., :4].unbind(-1)
    boxes = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], -1)
    return boxes, output[..., 4:5] * output[..., 5:]


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (2, 3, 96, 160), (3, 3, 320, 32)], ids=str)
def test_predictions_are_the_packages_decoded(model: Any, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        boxes, scores = decode(copy.deepcopy(model).eval()(images)[0])
        model.eval()
        found = FAMILY.predict(model, images)
    assert torch.equal(found.boxes, boxes) and torch.equal(found.scores, scores)
    cells = sum((shape[2] // stride) * (shape[3] // stride) for stride in (8, 16, 32))
    assert found.boxes.shape == (shape[0], 3 * cells, 4) and found.scores.shape == (shape[0], 3 * cells, 2)


def test_predictions_after_other_anchors_are_loaded_are_of_these(model: Any, config: ModelConfig) -> None:
    """The package keeps those of the last picture's size."""
    images, state = torch.rand(1, 3, 64, 64), copy.deepcopy(model.state_dict())
    state["model.24.anchors"] *= 2
    with torch.inference_mode():
        before = FAMILY.predict(model.eval(), images).boxes
        model.load_state_dict(state)
        after = FAMILY.predict(model, images).boxes
    sizes = [boxes[..., 2:] - boxes[..., :2] for boxes in (before, after)]
    torch.testing.assert_close(sizes[1], sizes[0] * 2)


def test_predictions_under_autocast_are_decoded_in_single_precision(model: Any) -> None:
    images = torch.rand(1, 3, 64, 1280)
    with torch.inference_mode():
        exact = FAMILY.predict(model.eval(), images)
        with torch.autocast("cpu", torch.bfloat16):
            found = FAMILY.predict(model, images)
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert (found.boxes - exact.boxes).abs().max() < 1  # in bfloat16 1,280 is followed by 1,288


class Exported(nn.Module):
    """As an export has it: a module with tensors in and out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = FAMILY.predict(self.model, images)
        return found.boxes, found.scores


@pytest.mark.filterwarnings("ignore")
def test_predictions_as_onnx_for_any_size(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    from livestock.models.graph import make_bound, read_graph

    exported, path = Exported(model).eval(), tmp_path / "model.onnx"
    axes = {"images": {0: "batch", 2: "height", 3: "width"}, **dict.fromkeys(("boxes", "scores"), {0: "batch", 1: "n"})}
    torch.onnx.export(exported, (torch.rand(2, 3, 96, 64),), str(path), dynamo=False, opset_version=17,
                      input_names=["images"], output_names=["boxes", "scores"], dynamic_axes=axes)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for shape in [(2, 3, 96, 64), (1, 3, 64, 160), (3, 3, 128, 32)]:
        images = torch.rand(shape)
        with torch.inference_mode():
            expected = exported(images)
        for one, other in zip(session.run(None, {"images": images.numpy()}), expected, strict=True):
            np.testing.assert_allclose(one, other.numpy(), atol=1e-3, rtol=1e-4)
    make_bound(read_graph(path.read_bytes(), path), path)((1, 3, 320, 256))  # passes as a stranger's, too


@pytest.mark.filterwarnings("ignore")
def test_predictions_as_torchscript_for_any_size(model: Any) -> None:
    exported = Exported(model).eval()
    with torch.inference_mode():
        model(torch.rand(2, 3, 96, 64))  # whose grid the package keeps: it must not get into the trace
        traced = torch.jit.trace(exported, torch.rand(2, 3, 96, 64), check_trace=False)
        for shape in [(2, 3, 96, 64), (1, 3, 64, 160), (3, 3, 128, 32)]:
            images = torch.rand(shape)
            with torch.jit.optimized_execution(False):
                found = traced(images)
            for one, other in zip(found, exported(images), strict=True):
                torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_fused_networks_predict_the_same(model: Any) -> None:
    for module in model.modules():  # as after some training, not as they begin
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        expected = FAMILY.predict(model.eval(), images)
    fused = fuse(model.train().to(memory_format=torch.channels_last))
    with torch.inference_mode():
        found = FAMILY.predict(fused, images)
    torch.testing.assert_close(found.boxes, expected.boxes, atol=1e-2, rtol=1e-4)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=1e-4)
    assert not fused.training and not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())


def make_dataset(sizes: np.ndarray, imgsz: int) -> Any:
    """One square image a box, as yolov5's function takes them."""
    labels = [np.array([[0, 0.5, 0.5, width / imgsz, height / imgsz]]) for width, height in sizes]
    return SimpleNamespace(shapes=np.full((len(sizes), 2), imgsz), labels=labels)


def best_possible_recall(model: Any, sizes: np.ndarray, anchor_t: float) -> float:
    head = model.model[-1]
    anchors = (head.anchors * head.stride.view(-1, 1, 1)).view(-1, 2).double().numpy()
    ratios = sizes[:, None] / anchors[None]
    return float((np.maximum(ratios, 1 / ratios).max(2).min(1) < anchor_t).mean())


def test_anchors_stay_where_recall_is_fine(model: Any) -> None:
    sizes = np.random.default_rng(0).uniform(20, 120, (200, 2))
    before = model.model[-1].anchors.clone()
    FAMILY.fit_boxes(model, sizes, 320, {})
    assert torch.equal(model.model[-1].anchors, before.half().float())


def test_anchors_change_as_the_packages_do(model: Any, capfd: pytest.CaptureFixture[str]) -> None:
    from yolov5.utils.autoanchor import check_anchors

    sizes = np.random.default_rng(0).uniform(8, 12, (300, 2)) * [20, 1]
    other, states = copy.deepcopy(model), (random.getstate(), np.random.get_state()[1].copy())  # noqa: NPY002
    assert best_possible_recall(model, sizes, 4.0) < 0.98
    FAMILY.fit_boxes(model, sizes, 320, {"anchor_t": 4.0})
    assert capfd.readouterr() == ("", "")
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    check_anchors(make_dataset(sizes, 320), other, thr=4.0, imgsz=320)
    other.half().float()
    assert torch.equal(model.model[-1].anchors, other.model[-1].anchors)
    assert best_possible_recall(model, sizes, 4.0) > 0.98
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_anchors_of_few_or_no_boxes(model: Any) -> None:
    """Fewer boxes than anchors, for which the package draws anchors at random; and a training without any."""
    before = model.model[-1].anchors.clone()
    FAMILY.fit_boxes(model, np.zeros((0, 2)), 320, {})
    assert torch.equal(model.model[-1].anchors, before.half().float())
    FAMILY.fit_boxes(model, np.array([[300.0, 3.0], [3.0, 300.0]]), 320, {})
    assert torch.isfinite(model.model[-1].anchors).all()


def test_an_error_in_the_fitting_of_anchors_is_not_swallowed(model: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        FAMILY.fit_boxes(model, np.ones((5, 2)), 320, {"anchor_t": 0})


@pytest.mark.parametrize(("size", "labels", "n_parameters", "stride"), [
    # YOLOv5 7.0's own summaries for 80 classes, and its table for m6: 35.7 M
    ("yolov5n", 80, 1_872_157, 32), ("yolov5s", 80, 7_235_389, 32), ("yolov5m6", 80, 35_7, 64),
])
def test_published_sizes(size: str, labels: int, n_parameters: int, stride: int) -> None:
    config = FAMILY.configure([f"class {index}" for index in range(labels)], 1280, size)
    model: Any = FAMILY.build(config)
    found = sum(parameter.numel() for parameter in model.parameters())
    assert (found // 100_000 if size == "yolov5m6" else found) == n_parameters
    assert (config.stride, config.imgsz, int(model.stride.max())) == (stride, 1280, stride)


def test_a_network_begins_as_the_packages_and_has_its_names(model: Any, config: ModelConfig) -> None:
    yolov5 = library.load()
    torch.manual_seed(0)
    stock = yolov5.detection_model(str(yolov5.models / "yolov5n.yaml"), nc=2)
    expected, found = stock.state_dict(), model.state_dict()
    assert list(found) == list(expected) and "model.0.conv.weight" in found
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert (model.names, model.imgsz) == ({0: "pig", 1: "cow"}, 320)
    assert stock.yaml == {**config.architecture}


def test_configs_are_plain_values(config: ModelConfig, capfd: pytest.CaptureFixture[str]) -> None:
    again = replace(config, architecture=json.loads(json.dumps(dict(config.architecture))))
    assert again == config
    assert config == FAMILY.configure(LABELS, 320, "yolov5n")
    assert (config.architecture["nc"], config.architecture["ch"]) == (2, 3)
    assert FAMILY.configure(LABELS, 1000, "yolov5x6").imgsz == 1024
    assert all(FAMILY.configure(LABELS, 64, size).stride == 32 * (1 + size.endswith("6")) for size in FAMILY.sizes)
    FAMILY.build(again)
    assert capfd.readouterr() == ("", "")


def test_a_network_has_as_many_classes_as_labels(config: ModelConfig) -> None:
    """Also where the architecture is that of start weights with other classes."""
    model: Any = FAMILY.build(replace(config, architecture={**config.architecture, "nc": 80}))
    assert (model.model[-1].nc, model.names) == (2, {0: "pig", 1: "cow"})


@pytest.mark.parametrize(("change", "message"), [
    ({"labels": tuple(map(str, range(1001)))}, "nc: refused, expected a whole number above 0, up to 1000"),
    ({"stride": 64}, "expected a stride of 32"),
    ({"architecture": {"depth_multiple": "__import__('os')"}}, "depth_multiple"),
    ({"architecture": {"width_multiple": 4, "depth_multiple": 4}}, "about four times the most of a published model"),
    ({"architecture": {"backbone": [[-1, 1, "exit", [3]]] * 2}}, "module"),
])
def test_impossible_configs_are_refused(config: ModelConfig, change: dict[str, Any], message: str) -> None:
    if "architecture" in change:
        change = {"architecture": {**config.architecture, **change["architecture"]}}
    with pytest.raises(UnsafeWeights, match=message):
        FAMILY.build(replace(config, **change))


@pytest.mark.parametrize("call", [
    lambda: FAMILY.configure(LABELS, 320, "yolov5z"), lambda: FAMILY.configure([], 320),
    lambda: FAMILY.configure(LABELS, 0), lambda: library.read_architecture("../yolov5n"),
])
def test_impossible_sizes_are_refused(call: Any) -> None:
    with pytest.raises(BadData, match="expected"):
        call()


def last_layer(model: Any, n_classes: int) -> list[torch.Tensor]:
    """Weights and biases by anchor and output."""
    return [tensor.detach().reshape(3, 5 + n_classes, -1) for layer in model.model[-1].m
            for tensor in (layer.weight, layer.bias)]


def start_from(state: dict[str, torch.Tensor], found: list[str], wanted: list[str]) -> tuple[Any, Any]:
    """A network of the classes `wanted` before and after it got the weights of one of `found`."""
    configs = [FAMILY.configure(labels, 320) for labels in (found, wanted)]
    before: Any = FAMILY.build(configs[1])
    after = copy.deepcopy(before)
    load_matching(after, FAMILY.adapt(state, *configs))
    return before, after


@pytest.mark.parametrize(("wanted", "order"), [
    (["pig", "cow"], [0, 1]), (["cow", "pig"], [1, 0]), (["Cow ", "goat"], [1, 0]), (["goat", "sheep"], [0, 1]),
])
def test_known_classes_move_to_their_places(model: Any, wanted: list[str], order: list[int]) -> None:
    state = model.state_dict()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    _, after = start_from(state, LABELS, wanted)
    for found, expected in zip(last_layer(after, 2), last_layer(model, 2), strict=True):
        assert torch.equal(found[:, :5], expected[:, :5])
        assert torch.equal(found[:, 5:], expected[:, [5 + place for place in order]])
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())


def test_known_classes_are_kept_among_more(model: Any) -> None:
    _, after = start_from(model.half().state_dict(), LABELS, ["goat", "cow", "hen"])
    for found, expected in zip(last_layer(after, 3), last_layer(model.float(), 2), strict=True):
        assert torch.equal(found[:, :5], expected[:, :5]) and torch.equal(found[:, 6], expected[:, 6])
        new = found[:, [5, 7]]
        if found.shape[2] == 1:  # yolov5's own start, log(.6 / (classes - .99999))
            torch.testing.assert_close(new, torch.full_like(new, np.log(0.6 / 2.00001)), atol=1e-3, rtol=0)
        else:  # PyTorch's: uniform, up to one over the root of the inputs
            assert 0.9 < float(new.abs().max()) * found.shape[2] ** 0.5 <= 1.001
            assert not torch.equal(new[:, 0], new[:, 1])


@pytest.mark.parametrize(("found", "wanted"), [(["pig"], ["pig", "cow"]), (["pig", "cow"], ["pig"])])
def test_the_only_class_of_a_network_is_not_taken_for_trained(found: list[str], wanted: list[str]) -> None:
    start: Any = FAMILY.build(FAMILY.configure(found, 320))
    for layer in start.model[-1].m:
        layer.bias.data.fill_(3.0)
    _, after = start_from(start.state_dict(), found, wanted)
    biases = [one for one in last_layer(after, len(wanted)) if one.shape[2] == 1]
    assert all((bias[:, :5] == 3).all() and (bias[:, 5:] != 3).all() for bias in biases)


def test_without_a_known_class_and_with_another_number_the_last_layer_is_random(model: Any) -> None:
    before, after = start_from(model.state_dict(), LABELS, ["goat", "sheep", "hen"])
    assert all(map(torch.equal, last_layer(before, 3), last_layer(after, 3)))
    assert torch.equal(after.model[0].conv.weight, model.model[0].conv.weight)


def test_a_last_layer_of_another_shape_is_refused(model: Any, config: ModelConfig) -> None:
    with pytest.raises(UnsafeWeights, match=r"model\.24\.m\.0\.weight: expected 24 rows"):
        FAMILY.adapt(model.state_dict(), FAMILY.configure(["pig", "cow", "hen"], 320), config)


class Answer:
    """What `requests.get` gives: a file in two blocks."""

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *error: object) -> None: ...

    def raise_for_status(self) -> None: ...

    def iter_content(self, size: int) -> list[bytes]:
        return [b"weig", b"hts"]


def test_start_weights_are_found_or_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(requests, "get", lambda url, **options: asked.append(url) or Answer())
    own = tmp_path / "own.pt"
    own.touch()
    assert FAMILY.find_pretrained(str(own), tmp_path) == own
    starter = FAMILY.find_pretrained("starter.safetensors", tmp_path)
    assert starter.is_file() and starter.parent.name == "yolov5"
    for _ in range(2):
        path = FAMILY.find_pretrained("yolov5m6.pt", tmp_path / "weights")
        assert path.read_bytes() == b"weights" and os.listdir(path.parent) == ["yolov5m6.pt"]
    assert asked == ["https://github.com/ultralytics/yolov5/releases/download/v7.0/yolov5m6.pt"]


def test_start_weights_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, **options: object) -> None:
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(BadData, match=rf"not downloadable \(ConnectionError\).*yolov5n.pt .*put it at {tmp_path}"):
        FAMILY.find_pretrained("yolov5n.pt", tmp_path)
    with pytest.raises(BadData, match="'yolov9.pt': no such file"):
        FAMILY.find_pretrained("yolov9.pt", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_registry_finds_it() -> None:
    family = get_family("yolov5")
    assert isinstance(family, YoloV5)
    assert (family.name, family.needs_nms, family.resize, family.sums_loss) == ("yolov5", True, "letterbox", True)


def test_threads_predict_with_one_network(model: Any) -> None:
    pictures = [torch.rand(1, 3, 64, 32 * (1 + index)) for index in range(4)]
    expected = [FAMILY.predict(model.eval(), picture).boxes for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda index: FAMILY.predict(model, pictures[index % 4]).boxes, range(40)))
    assert all(torch.equal(boxes, expected[index % 4]) for index, boxes in enumerate(found))


def test_predictions_leave_a_network_ready_for_all_else(model: Any) -> None:
    """The package's grids, once made, cannot be put into channels-last order."""
    with torch.inference_mode():
        FAMILY.predict(model.eval(), torch.rand(1, 3, 64, 64))
    model.to(memory_format=torch.channels_last)
    copy.deepcopy(model)
    assert FAMILY.make_loss(model, {})(model.train(), make_batch([2]))["box"].requires_grad
    assert all(module.training for module in model.modules())


def test_predictions_in_training_mode_are_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="expected a network in evaluation mode"):
        FAMILY.predict(model.train(), torch.rand(1, 3, 64, 64))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps yolov5==7.0.14"):
        library.load.__wrapped__()


# Run in a process of its own, for an import is done once. `FIRST` is before it, and may use what the package uses.
FIRST = """
import copy, logging, os, socket, sys, types, warnings
import cv2, matplotlib, numpy as np, pandas as pd, PIL.Image, requests, torch, torchvision, tqdm, yaml
import matplotlib.pyplot, scipy.cluster.vq
from torch._tensor_str import get_printoptions
from livestock.models.yolov5 import library

def refuse(*args, **kwargs):
    raise AssertionError(f"a socket: {args}")

socket.socket.__init__ = socket.getaddrinfo = refuse
matplotlib.use("svg"); matplotlib.rcParams["font.size"] = 7
np.set_printoptions(precision=3, linewidth=99); pd.options.display.max_columns = 77
torch.set_printoptions(precision=6, edgeitems=2)
cv2.setNumThreads(2); os.environ["OMP_NUM_THREADS"] = "1"; os.environ.pop("NUMEXPR_MAX_THREADS", None)
logging.basicConfig(filename=sys.argv[1] + "/log.txt", filemode="w", level="INFO")
sys.modules["seaborn"] = there = types.ModuleType("seaborn")

def settings():
    return copy.deepcopy(dict(
        backend=matplotlib.get_backend(), rc=dict(matplotlib.rcParams), path=sys.path, environment=dict(os.environ),
        threads=(cv2.getNumThreads(), torch.get_num_threads()), numpy=np.get_printoptions(), torch=get_printoptions(),
        pandas=pd.options.display.max_columns, filters=warnings.filters, level=logging.root.level,
        random=np.random.get_state()[1].tolist(), torch_random=torch.get_rng_state().tolist()))

before, modules, handlers = settings(), dict(sys.modules), logging.root.handlers[:]
"""

UNTOUCHED = FIRST + """
yolov5 = library.load()
after = settings()
assert after == before, [key for key in after if after[key] != before[key]]
logging.info("still written")
assert logging.root.handlers == handlers
assert open(sys.argv[1] + "/log.txt").read().endswith("still written\\n")
assert os.listdir(os.environ["HOME"]) == [".config"] and not os.listdir(os.environ["HOME"] + "/.config")

# Stand-ins are gone: what was there is again, the rest is not, and nobody but the package has one.
assert sys.modules["seaborn"] is there
stand_ins = set(library._make_stand_ins())
assert not [name for name in modules if sys.modules.get(name) is not modules[name]]
assert not [name for name in stand_ins if name not in modules and name in sys.modules], sys.modules.keys() & stand_ins
for name, module in list(sys.modules.items()):
    if not name.startswith("yolov5"):
        for value in list(vars(module).values()) if issubclass(type(module), types.ModuleType) else []:
            if issubclass(type(value), types.ModuleType) and value.__name__ in stand_ins:
                assert value is sys.modules[value.__name__], (name, value)
assert not {"wandb", "ultralytics", "roboflow", "pkg_resources", "yolov5.train"} & sys.modules.keys()
"""

OWN = """
import inspect, types
from pathlib import Path

def codes(code):
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield one
            yield from codes(one)

n_checked = 0
for name, module in list(sys.modules.items()):
    if name.partition(".")[0] != "yolov5":
        continue
    compiled = compile(Path(module.__file__).read_bytes(), module.__file__, "exec")
    known = set(codes(compiled))
    owners = [module, *(kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == name)]
    for key, value in [pair for owner in owners for pair in vars(owner).items()]:
        function = inspect.unwrap(value) if callable(value) else None
        if isinstance(function, types.FunctionType) and function.__module__ == name:
            is_made = not hasattr(function, "__wrapped__") and function.__code__.co_filename != module.__file__
            assert is_made or (function.__code__ in known and function.__globals__ is vars(module)), (name, key)
            n_checked += not is_made
        elif isinstance(function, types.FunctionType):
            assert not function.__module__.startswith("livestock") or key == "check_requirements", (name, key)
assert n_checked > 200, n_checked
"""


def run_apart(code: str, folder: Path) -> None:
    (folder / "home/.config").mkdir(parents=True)
    environment = {**os.environ, "HOME": str(folder / "home"), "MPLCONFIGDIR": str(folder), "TMPDIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", code, str(folder)], env=environment,  # noqa: S603
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


USED = """
model = yolov5.detection_model(str(yolov5.models / "yolov5n.yaml"), nc=2)
from livestock.models.yolov5.family import YoloV5
from livestock.models.base import Batch
family, model.imgsz = YoloV5(), 320
model.hyp = dict(family.defaults)
family.fit_boxes(model, np.full((30, 2), [200, 2.0]), 320, {})
batch = Batch(torch.rand(1, 3, 64, 64), [torch.tensor([[1.0, 2, 30, 40]])], [torch.tensor([1])])
sum(family.make_loss(model, {})(model, batch).values()).backward()
family.predict(model.eval(), batch.images)
"""


def test_the_import_leaves_the_process_and_the_package_as_they_were(tmp_path: Path) -> None:
    run_apart(UNTOUCHED + USED + OWN, tmp_path)


def test_functions_of_the_package_stay_its_own_when_a_config_is_built(tmp_path: Path) -> None:
    build = """
from livestock.models.yolov5.family import YoloV5
family = YoloV5()
model = family.build(family.configure(["pig", "cow"], 320))
"""
    run_apart(FIRST + build + OWN, tmp_path)
