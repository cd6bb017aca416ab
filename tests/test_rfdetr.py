"""RF-DETR behind the contract of a model family, compared with transformers' own loss and embeddings."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers")

from safetensors.torch import save_file  # noqa: E402
from transformers.models.rf_detr.modeling_rf_detr import RfDetrDinov2Embeddings  # noqa: E402

from livestock.exceptions import BadData, UnsafeWeights  # noqa: E402
from livestock.models.base import Batch, load_matching  # noqa: E402
from livestock.models.checkpoint import read_checkpoint  # noqa: E402
from livestock.models.hub import make_targets  # noqa: E402
from livestock.models.registry import find_start, get_family  # noqa: E402
from livestock.models.rfdetr import POSITIONS, PRETRAINED, RfDetrFamily, finite_loss, resample_positions  # noqa: E402

FAMILY = RfDetrFamily()
FULL = FAMILY.configure(["pig", "cow"], 288)
CONFIG = replace(FULL, architecture={**FULL.architecture, "groups": 1})  # a thirteenth of the time
HYP = {"lr0": 1e-4, "weight_decay": 1e-4}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def model() -> Any:
    """A network with random weights none of which is zero, as some are in the beginning."""
    torch.manual_seed(0)
    made: Any = FAMILY.build(CONFIG)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return made


def draw_batch(*, empty: bool = False) -> Batch:
    images = torch.rand(2, 3, 288, 288, generator=torch.Generator().manual_seed(1))
    boxes = [torch.tensor([[32.0, 64, 160, 160], [0, 0, 20, 30]]), torch.tensor([[80.0, 80, 208, 208]])]
    class_ids = [torch.tensor([0, 1]), torch.tensor([1])]
    if empty:
        boxes, class_ids = [torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2
    return Batch(images, boxes, class_ids)


def test_the_loss_is_transformers_own_total(model: Any) -> None:
    batch, mean, std = draw_batch(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = (batch.images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    model.eval()  # without dropout
    parts = {name: part.detach() for name, part in FAMILY.make_loss(model, HYP)(model, batch).items()}
    theirs = model(pixel_values=pixels, labels=make_targets(batch)).loss
    assert set(parts) == {"ce", "bbox", "giou"}
    assert float(sum(parts.values())) == pytest.approx(float(theirs.detach()), rel=1e-5)
    doubled = FAMILY.make_loss(model, {**HYP, "giou": 2.0})(model, batch)
    assert float(doubled["giou"]) == pytest.approx(2 * float(parts["giou"]), rel=1e-5)
    assert float(doubled["bbox"]) == pytest.approx(float(parts["bbox"]), rel=1e-5)


@pytest.mark.parametrize("empty", [False, True])
def test_gradients_reach_every_parameter(model: Any, empty: bool) -> None:
    model.train().zero_grad()
    sum(FAMILY.make_loss(model, HYP)(model, draw_batch(empty=empty)).values()).backward()
    without = [name for name, parameter in model.named_parameters()
               if parameter.grad is None or not (parameter.grad != 0).any()]
    assert not [name for name in without if "bbox" not in name and "reference_point" not in name]
    assert empty or not without


def test_scores_that_are_certain_have_a_finite_loss(model: Any) -> None:
    """transformers takes the logarithm of 1 less the score, which is 0 for a logit of 40 in float32."""
    labels = [{"class_labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}]
    boxes = torch.rand(1, 300, 4).clamp(0.2, 0.6)
    logits = torch.full((1, 300, 2), 40.0)
    logits[:, 150:] = -200.0
    stacked = torch.stack([logits, logits])
    loss, parts, _ = finite_loss(logits, labels, torch.device("cpu"), boxes, model.config, stacked,
                                 torch.stack([boxes, boxes]), logits, boxes)
    assert all(math.isfinite(float(part)) for part in parts.values())
    assert float(loss) > 100  # and still a bad one


def test_first_scores_are_small() -> None:
    torch.manual_seed(0)
    fresh = FAMILY.build(CONFIG)
    parts = FAMILY.make_loss(fresh, HYP)(fresh, draw_batch())
    assert float(parts["ce"]) < 5  # transformers' own proposals begin with scores of a half, and a loss of 50


def test_predictions_are_pixels_and_each_image_has_its_own(model: Any) -> None:
    images = draw_batch().images
    model.eval()
    with torch.no_grad():
        both, second = FAMILY.predict(model, images), FAMILY.predict(model, images[1:])
    assert both.boxes.shape == (2, 300, 4)
    assert both.scores.shape == (2, 300, 2)
    assert (both.boxes[..., 2:] >= both.boxes[..., :2]).all()
    assert both.boxes.abs().max() > 20  # pixels, no shares
    torch.testing.assert_close(both.scores[1], second.scores[0], rtol=1e-3, atol=1e-4)


def test_positions_are_resampled_as_transformers_does(model: Any) -> None:
    """The same network for another size of the input: moved to it, or left to resample by itself."""
    own = model.state_dict()[POSITIONS]
    config = model.model.backbone.backbone.config
    theirs = RfDetrDinov2Embeddings(config)
    theirs.load_state_dict({name: tensor for name, tensor in
                            model.model.backbone.backbone.embeddings.state_dict().items()})
    expected = theirs.interpolate_pos_encoding(torch.zeros(1, 1 + 20 * 20, 384), 320, 320)
    torch.testing.assert_close(resample_positions(own, 20), expected)
    assert resample_positions(own, 18) is own
    ours = model.model.backbone.backbone.embeddings.interpolate_pos_encoding(torch.zeros(1, 401, 384), 320, 320)
    torch.testing.assert_close(ours, expected)
    with pytest.raises(UnsafeWeights, match="expected a square of them, found 5"):
        resample_positions(torch.zeros(1, 6, 8), 18)


def test_start_weights_move_to_other_classes_and_another_size(model: Any) -> None:
    wanted = replace(CONFIG, labels=("cow", "goat"), imgsz=320)
    moved = FAMILY.adapt(model.state_dict(), CONFIG, wanted)
    fresh = FAMILY.build(wanted)
    report = load_matching(fresh, moved)
    assert not report.random and not report.unused
    before, after = model.state_dict()["class_embed.weight"], fresh.state_dict()["class_embed.weight"]
    torch.testing.assert_close(after[0], before[1])  # cow
    torch.testing.assert_close(after[1], before.mean(0))
    unknown = FAMILY.adapt(model.state_dict(), CONFIG, replace(CONFIG, labels=("goat",)))
    assert not [name for name in unknown if "class_embed" in name]


@pytest.mark.parametrize(("size", "millions"), [("rfdetr_n", 30.5), ("rfdetr_s", 32.1), ("rfdetr_m", 33.7),
                                                ("rfdetr_l", 33.9)])
def test_sizes_have_the_published_numbers_of_parameters(size: str, millions: float) -> None:
    config = FAMILY.describe_pretrained(f"{size}_coco")
    with torch.device("meta"):
        n_parameters = sum(parameter.numel() for parameter in FAMILY.build(config).parameters())
    assert n_parameters / 1e6 == pytest.approx(millions, abs=0.05)


def test_official_labels_are_coco_by_its_ids() -> None:
    labels = FAMILY.describe_pretrained("rfdetr_m_coco").labels
    assert (len(labels), labels[1], labels[21], labels[90]) == (91, "person", "cow", "toothbrush")
    assert len(set(labels)) == 91


def test_official_weights_are_found_or_the_message_says_where(tmp_path: Path, model: Any) -> None:
    with pytest.raises(ValueError, match=r"rf-detr-nano/resolve/main/model.safetensors .*rfdetr_n_coco_official"):
        FAMILY.find_pretrained("rfdetr_n_coco", tmp_path)
    config = FAMILY.describe_pretrained("rfdetr_n_coco")
    official = FAMILY.build(replace(config, architecture={**config.architecture, "groups": 1}))
    save_file(official.state_dict(), tmp_path / "rfdetr_n_coco_official.safetensors")
    path = find_start("rfdetr", "rfdetr_n_coco", tmp_path)
    assert path is not None
    read = read_checkpoint(path)
    report = load_matching(FAMILY.build(CONFIG), FAMILY.adapt(read.tensors, read.config, CONFIG))
    assert not report.random and not report.unused
    with pytest.raises(ValueError, match=f"expected one of {', '.join(PRETRAINED)}"):
        FAMILY.find_pretrained("rfdetr_x_coco", tmp_path)


@pytest.mark.parametrize("change", [{"size": "rfdetr_x"}, {"size": ["rfdetr_n"]}, {"groups": 0}, {"groups": 10**9},
                                    {"groups": True}, {"more": 1}])
def test_impossible_architectures_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UnsafeWeights, match="rfdetr: "):
        FAMILY.build(replace(CONFIG, architecture={**CONFIG.architecture, **change}))


def test_sizes_and_sides_are_checked() -> None:
    with pytest.raises(BadData, match="size: expected one of rfdetr_n, .*found 'rfdetr_x'"):
        FAMILY.configure(["cow"], 384, "rfdetr_x")
    for imgsz in (256, 300):
        with pytest.raises(BadData, match=f"imgsz: expected a multiple of 32 from 288, found {imgsz}"):
            FAMILY.configure(["cow"], imgsz)
        with pytest.raises(UnsafeWeights, match=f"imgsz: .* found {imgsz}"):
            FAMILY.build(replace(CONFIG, imgsz=imgsz))


def test_first_layers_learn_most_slowly(model: Any) -> None:
    groups = FAMILY.parameter_groups(model, HYP)
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    named = dict(model.named_parameters())
    assert sum(len(group["params"]) for group in groups) == len(named)
    rates = [rate[id(named[f"model.backbone.backbone.encoder.layer.{layer}.norm1.weight"])] for layer in range(12)]
    assert rates[-1] == pytest.approx(1.5e-4)
    assert all(low == pytest.approx(0.8 * high) for low, high in zip(rates, rates[1:], strict=False))
    assert rate[id(named[POSITIONS])] == pytest.approx(0.8 * rates[0])
    assert rate[id(named["class_embed.weight"])] == pytest.approx(1e-4)
    decays = {name: group["weight_decay"] for group in groups for name, parameter in named.items()
              if any(parameter is other for other in group["params"])}
    assert decays["class_embed.weight"] == 1e-4
    assert decays["class_embed.bias"] == 0


def test_without_transformers_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install transformers==5.15"):
        RfDetrFamily()


def test_it_is_a_module_that_the_registry_knows() -> None:
    assert isinstance(get_family("rfdetr").build(CONFIG), nn.Module)
