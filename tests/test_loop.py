"""The loop that never waits does what yolov5's does: losses, averaged weights and steps are compared with its own."""

from __future__ import annotations

import copy
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    unset_fake_temporarily,
)

from livestock.config import REPOSITORY
from livestock.models import yolov5
from livestock.models.yolov5 import compat, loop
from livestock.models.yolov5.weights import STARTER, load_checkpoint

compat.apply()
from yolov5.utils.loss import ComputeLoss  # noqa: E402 - mended first
from yolov5.utils.torch_utils import ModelEMA, smart_optimizer  # noqa: E402

HostLoss = loop.host_loss(ComputeLoss)
IMGSZ, BATCH = 64, 2
LOSSES = ["train_box_loss", "train_obj_loss", "train_cls_loss"]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    """The starter, ready to train."""
    model = load_checkpoint(STARTER)["model"].float().train()
    model.model[-1].grid = model.model[-1].anchor_grid = [torch.empty(0)] * 3  # as before the first evaluation
    model.hyp = yaml.safe_load((REPOSITORY / "hyp/demo.yaml").read_text(encoding="utf-8"))
    return model


def draw_labels(n: int, seed: int = 0) -> torch.Tensor:
    """`(n, 6)`: number of the image, class, cx, cy, w, h."""
    rng = np.random.default_rng(seed)
    where = [rng.integers(0, BATCH, (n, 1)), rng.integers(0, 2, (n, 1)), rng.uniform(0, 1, (n, 4))]
    return torch.from_numpy(np.hstack(where)).float()


def draw_layers(device: str = "cpu") -> list[torch.Tensor]:
    """What the network gives of a batch of 64 x 64 px."""
    sizes = (IMGSZ // stride for stride in (8, 16, 32))
    return [torch.randn(BATCH, 3, size, size, 7, device=device, requires_grad=True) for size in sizes]


@settings(deadline=None)  # the first call takes seconds
@given(n=st.integers(0, 40), seed=st.integers(0, 1000))
def test_the_loss_is_that_of_yolov5_number_by_number(model: Any, n: int, seed: int) -> None:
    layers, labels, found = draw_layers(), draw_labels(n, seed), []
    for loss, given_labels in ((ComputeLoss(model), labels), (HostLoss(model), labels.as_subclass(loop.HostTensor))):
        leaves = [layer.detach().clone().requires_grad_() for layer in layers]
        value, items = loss(leaves, given_labels.to("cpu"))
        value.backward()
        found.append([value, items, *(leaf.grad for leaf in leaves)])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    assert type(found[1][0]) is torch.Tensor


def to_fake(found: Any, fake: FakeTensorMode) -> Any:
    """A tensor or a tuple of tensors."""
    return tuple(map(fake.from_tensor, found)) if isinstance(found, tuple) else fake.from_tensor(found)


@pytest.mark.parametrize("n", [0, 30])
def test_the_loss_asks_a_gpu_for_nothing(model: Any, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a make-believe GPU, which has no numbers to give: whatever depends on one is an error there."""
    monkeypatch.setattr(loop, "_send", lambda tensor, device: tensor.to(device))  # no memory to pin
    labels = draw_labels(n)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        head = model.model[-1]
        on_gpu = types.SimpleNamespace(
            hyp=model.hyp, parameters=lambda: iter([torch.empty(1, device="cuda")]),
            model=[types.SimpleNamespace(nl=head.nl, na=head.na, nc=head.nc, anchors=head.anchors.to("cuda"))])
        layers, stock, ours = draw_layers("cuda"), ComputeLoss(on_gpu), HostLoss(on_gpu)
        if n:
            with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
                stock(layers, labels.to("cuda"))
        match = ours.match
        match.args[0].anchors = head.anchors

        def match_for_real(p: Any, targets: torch.Tensor) -> Any:
            with unset_fake_temporarily():  # the CPU's part has numbers
                found = match(p, targets)
            return tuple([to_fake(layer, fake) for layer in part] for part in found)

        ours.match = match_for_real
        value, items = ours(layers, labels.as_subclass(loop.HostTensor).to("cuda"))
        assert value.device.type == items.device.type == "cuda"


def test_averaged_weights_are_those_of_yolov5_number_by_number(model: Any) -> None:
    network = copy.deepcopy(model)
    averages = [ModelEMA(network), loop.quick_average(ModelEMA)(network)]
    for _ in range(3):
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.add_(torch.rand(tensor.shape) if tensor.is_floating_point() else 1)
        for average in averages:
            average.update(network)
    theirs, ours = (average.ema.state_dict() for average in averages)
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())
    assert averages[1].updates == 3


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_fused_steps_are_those_of_yolov5(model: Any, name: str) -> None:
    networks = [copy.deepcopy(model), copy.deepcopy(model)]
    makers = [smart_optimizer, loop._make_optimizer(smart_optimizer, compiler="")]
    for network, make in zip(networks, makers, strict=True):
        optimizer = make(network, name, 0.01, 0.9, 0.0005)
        assert {group.get("fused") for group in optimizer.param_groups} == {make is not smart_optimizer or None}
        rng = torch.Generator().manual_seed(0)
        for _ in range(3):
            for tensor in network.parameters():
                tensor.grad = torch.randn(tensor.shape, generator=rng)  # not in channels-last order
            optimizer.step()
        assert all(value.stride() == tensor.stride() for tensor in network.parameters()
                   for value in optimizer.state[tensor].values() if value.dim())
    for theirs, ours in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_a_first_step_with_an_infinite_gradient_leaves_nothing_behind(name: str) -> None:
    """Mixed precision begins with a scale that is too large: the step is skipped, on the GPU, by the fused step itself.

    With PyTorch's own SGD the moments were whatever lay in memory, for good.
    """
    networks = [torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 4, 3)]
    networks[1].load_state_dict(networks[0].state_dict())
    gradients = [torch.randn(tensor.shape) for tensor in networks[0].parameters()]
    for network, skips in zip(networks, (False, True), strict=True):
        optimizer: Any = loop._make_optimizer(smart_optimizer, compiler="")(network, name, 0.01, 0.9, 0.0005)
        for skipped in (True, False, False) if skips else (False, False):
            for tensor, gradient in zip(network.parameters(), gradients, strict=True):
                tensor.grad = gradient * (torch.inf if skipped else 1)
            optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(float(skipped))  # as GradScaler does
            optimizer.step()
    for usual, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(other, usual)


def test_a_checkpoint_of_steps_that_were_not_fused_goes_on_fused(model: Any) -> None:
    before, after = copy.deepcopy(model), copy.deepcopy(model)
    plain = smart_optimizer(before, "AdamW", 0.01, 0.9, 0.0005)
    for tensor in before.parameters():
        tensor.grad = torch.ones_like(tensor)
    plain.step()
    optimizer = loop._make_optimizer(smart_optimizer, compiler="")(after, "AdamW", 0.01, 0.9, 0.0005)
    optimizer.load_state_dict(copy.deepcopy(plain.state_dict()))
    after.load_state_dict(before.state_dict())
    for network, each in ((before, plain), (after, optimizer)):
        for tensor in network.parameters():
            tensor.grad = torch.full_like(tensor, 2)
        each.step()
    assert all(group["fused"] for group in optimizer.param_groups)
    for theirs, ours in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_another_train_is_refused() -> None:
    with pytest.raises(RuntimeError, match="expected the bar's text .* once, found it 0 times"):
        loop._print_no_losses(types.SimpleNamespace(train=draw_labels))


@pytest.fixture(scope="module")
def config(squares: Path) -> yolov5.TrainConfig:
    """Three steps, the last of a smaller batch."""
    return yolov5.TrainConfig(
        data_yaml=str(squares), weights=str(STARTER), imgsz=IMGSZ, batch=5, nominal_batch=5, epochs=1, device="cpu",
        hyp=str(REPOSITORY / "hyp/demo.yaml"), workers=0)


@pytest.fixture(scope="module")
def losses(config: yolov5.TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Of the usual training."""
    return yolov5.train(config, tmp_path_factory.mktemp("usual") / "run")[LOSSES]


@pytest.mark.parametrize(("changes", "rtol"), [
    pytest.param({"compiler": "aot_eager"}, 1e-4, marks=pytest.mark.long),  # it compiles for a minute
    ({"bf16": True}, 0.02),
])
def test_compiled_or_in_bf16_it_is_the_same_training(
    config: yolov5.TrainConfig, losses: pd.DataFrame, tmp_path: Path, changes: dict[str, Any], rtol: float
) -> None:
    """For real; the compiler is one that is there everywhere."""
    found = yolov5.train(replace(config, **changes), tmp_path / "run")[LOSSES]
    np.testing.assert_allclose(found, losses, rtol=rtol, atol=1e-6)
    if "bf16" in changes:
        assert not found.equals(losses)  # it was in bf16 at all
