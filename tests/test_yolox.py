"""YOLOX behind the contract of a model family, compared with the package's own network and loss."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import draw_squares
from torch import nn
from torchvision.models import resnet18
from torchvision.ops import box_iou

from livestock.exceptions import BadData, UnsafeWeights
from livestock.models import yolox
from livestock.models.base import load_matching
from livestock.models.checkpoint import read_checkpoint
from livestock.models.registry import get_family
from livestock.models.yolox import INSTALL, RELEASE, YoloxFamily, make_targets

FAMILY = YoloxFamily()
CONFIG = FAMILY.configure(["pig", "cow"], 128)
HYP = {"lr0": 0.01, "weight_decay": 0.0005}


def build(size: str = "yolox_nano", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return FAMILY.build(FAMILY.configure(["pig", "cow"], 128, size)).eval()


def library_model(model: nn.Module) -> nn.Module:
    """The package's own network with the same weights, which takes blue, green, red in 0..255."""
    from yolox.config import YoloxConfig

    config = YoloxConfig.get_named_config("yolox_nano")
    config.num_classes = 2
    library: nn.Module = config.get_model()
    library.load_state_dict(model.state_dict())  # the same names
    return library


@pytest.mark.parametrize("empty", [False, True])
def test_the_loss_is_the_packages(empty: bool) -> None:
    model, batch = build(), draw_squares(empty=empty)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        expected = library_model(model).train()(batch.images.flip(1) * 255, make_targets(batch))
    found = FAMILY.make_loss(model, {"cls": 2.0})(model.train(), batch)
    torch.testing.assert_close(found["box"], expected["iou_loss"])
    torch.testing.assert_close(found["obj"], expected["conf_loss"])
    torch.testing.assert_close(found["cls"], 2 * expected["cls_loss"])
    half = FAMILY.make_loss(model, {"box": 2.5})(model, batch)
    torch.testing.assert_close(half["box"], expected["iou_loss"] / 2)


def test_predictions_are_the_packages() -> None:
    model, images = build(), torch.rand(2, 3, 96, 160, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        found, expected = FAMILY.predict(model, images), library_model(model).eval()(images.flip(1) * 255)
    n = sum(96 * 160 // stride**2 for stride in (8, 16, 32))
    assert found.boxes.shape == (2, n, 4) and found.scores.shape == (2, n, 2)
    lower, upper = found.boxes[..., :2], found.boxes[..., 2:]
    torch.testing.assert_close((lower + upper) / 2, expected[..., :2], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(upper - lower, expected[..., 2:4], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found.scores, expected[..., 5:] * expected[..., 4:5])


def test_the_loss_on_validation_images_changes_no_statistics() -> None:
    """In evaluation mode the head computes its loss all the same, and its batch norms stay as they are."""
    model, batch = build(), draw_squares()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        FAMILY.make_loss(model, HYP)(model, batch)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("size", ["yolox_nano", "resnet18", "lite0"])
def test_gradients_reach_every_parameter(size: str) -> None:
    """Of boxes of all sizes, small ones spread out, so that SimOTA assigns places of each level."""
    model = build(size).train()
    boxes = torch.tensor([[x, y, x + side, y + side] for side in (6.0, 30.0, 110.0)
                          for x in (3.0, 120 - side) for y in (3.0, 120 - side)])
    batch = replace(draw_squares(), boxes=[boxes] * 2, class_ids=[torch.arange(len(boxes)) % 2] * 2)
    sum(FAMILY.make_loss(model, HYP)(model, batch).values()).backward()  # type: ignore[union-attr]
    without = [name for name, parameter in model.named_parameters()
               if parameter.grad is None or not parameter.grad.abs().sum() > 0]
    assert without == []


def test_images_without_boxes_alone_teach_background() -> None:
    model, batch = build().train(), draw_squares()
    none = replace(batch, boxes=[torch.zeros(0, 4)] * 2, class_ids=[torch.zeros(0, dtype=torch.int64)] * 2)
    parts = FAMILY.make_loss(model, HYP)(model, none)
    assert parts["box"] == 0 and parts["cls"] == 0 and parts["obj"] > 0


def test_the_loss_falls_and_the_squares_are_found() -> None:
    torch.manual_seed(0)
    model, batch = build().train(), draw_squares()
    loss = FAMILY.make_loss(model, HYP)
    optimizer = torch.optim.AdamW(FAMILY.parameter_groups(model, {**HYP, "lr0": 3e-3}))
    for _ in range(40):
        total = torch.stack(list(loss(model, batch).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    with torch.inference_mode():
        predictions = FAMILY.predict(model, batch.images)  # still with the statistics of the batch
    for boxes, scores, truth, label in zip(predictions.boxes, predictions.scores, batch.boxes, batch.class_ids,
                                           strict=True):
        place, found = divmod(int(scores.argmax()), 2)
        assert found == int(label) and float(box_iou(boxes[place][None], truth)) > 0.5


def test_half_precision_keeps_the_pixels() -> None:
    """In bfloat16 a coordinate of 100.5 would be 100 or 101; the head computes in single precision."""
    model, images = build(), draw_squares().images
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = FAMILY.predict(model, images)
    assert found.boxes.dtype == found.scores.dtype == torch.float32


def test_start_weights_move_to_the_new_classes() -> None:
    found = FAMILY.configure(["Cow", "sheep", "goat"], 128)
    torch.manual_seed(3)
    source, model = FAMILY.build(found).eval(), build()
    report = load_matching(model, FAMILY.adapt(source.state_dict(), found, CONFIG))
    assert report.random == [] and report.unused == []
    for level in range(3):
        rows, moved = (network.head.cls_preds[level].weight for network in (source, model))  # type: ignore[union-attr,index]
        assert torch.equal(moved[1], rows[0])
        torch.testing.assert_close(moved[0], rows.mean(0))
    other = FAMILY.configure(["dog"], 128)
    report = load_matching(build(), FAMILY.adapt(FAMILY.build(other).state_dict(), other, CONFIG))
    assert len(report.random) == 6 and all(name.startswith("head.cls_preds.") for name in report.random)


def test_a_classifier_fills_the_backbone() -> None:
    report = load_matching(build("resnet18"), FAMILY.adapt(resnet18(weights=None).state_dict(), CONFIG, CONFIG))
    assert report.unused == [] and all(name.startswith(("backbone.fpn.", "head.")) for name in report.random)


def test_official_weights_are_found_or_the_message_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authors' file holds more than tensors; of it the tensors alone are read, and nothing is executed."""
    def refuse(url: str, path: str, *more: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(ValueError, match=f"Download {RELEASE}/yolox_nano.pth .*{tmp_path}/yolox_nano.pth"):
        FAMILY.find_pretrained("yolox_nano_coco", tmp_path)
    with pytest.raises(ValueError, match="weights 'yolox_pico': expected one of yolox_nano_coco"):
        FAMILY.find_pretrained("yolox_pico", tmp_path)
    coco = FAMILY.describe_pretrained("yolox_nano_coco")
    assert len(coco.labels) == 80 and coco.labels[19] == "cow"
    official = FAMILY.build(coco)
    torch.save({"start_epoch": 300, "model": official.state_dict(), "optimizer": {}}, tmp_path / "yolox_nano.pth")
    path = FAMILY.find_pretrained("yolox_nano_coco", tmp_path)
    start = read_checkpoint(path)
    report = load_matching(model := build(), FAMILY.adapt(start.tensors, start.config, CONFIG))
    assert report.random == [] and report.unused == []
    rows, moved = (network.head.cls_preds[0].weight for network in (official, model))  # type: ignore[union-attr,index]
    torch.testing.assert_close(moved[1], rows[19])


@pytest.mark.bad_input
@pytest.mark.parametrize("content", [
    {"model": {"a": 3}}, {}, {"model": {}}, [], None, torch.zeros(3), {1: torch.zeros(3)},
    {"a": torch.zeros(2, 2).to_sparse()}, {"a": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)},
    {"a": torch.zeros(3, device="meta")}])
def test_official_weights_are_tensors_by_name_or_are_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "yolox_nano.pth")
    with pytest.raises(UnsafeWeights, match="yolox_nano.pth: expected official weights"):
        FAMILY.find_pretrained("yolox_nano_coco", tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.bad_input
def test_a_small_file_of_a_huge_tensor_is_refused(tmp_path: Path) -> None:
    """A view of one number, 1,500 bytes on disk, would be 1.2 GB when it is written out."""
    torch.save({"a": torch.zeros(1).expand(3 * 10**8)}, tmp_path / "yolox_nano.pth")
    with pytest.raises(UnsafeWeights, match="found tensors of 1,200,000,000 bytes in a file of 1,"):
        FAMILY.find_pretrained("yolox_nano_coco", tmp_path)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    yolox._load.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "yolox"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "loguru", None)  # as where it is not installed
    with pytest.raises(ImportError, match="the model family yolox needs loguru") as caught:
        YoloxFamily()
    assert INSTALL in str(caught.value)
    yolox._load.cache_clear()


@pytest.mark.parametrize("change", [{"size": "yolox_pico"}, {"size": 3}, {"extra": 1}])
def test_impossible_architectures_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UnsafeWeights, match="yolox: .*expected"):
        FAMILY.build(replace(CONFIG, architecture={**CONFIG.architecture, **change}))


def test_sizes_and_sides_are_checked() -> None:
    with pytest.raises(BadData, match="size: expected one of yolox_nano, .*, found 'swin_t'"):
        FAMILY.configure(["pig"], 128, "swin_t")
    with pytest.raises(BadData, match="imgsz: expected a multiple of 32 from 64, found 100"):
        FAMILY.configure(["pig"], 100)
    assert json.loads(json.dumps(CONFIG.architecture)) == CONFIG.architecture
    assert get_family("yolox").name == "yolox"
