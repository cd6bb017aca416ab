"""SSD behind the contract of a model family, compared with torchvision's own detector of the same weights."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_models import draw_squares
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18, vgg16
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from livestock.exceptions import BadData, UnsafeWeights
from livestock.models.backbones import CLASSIFIERS
from livestock.models.base import Batch, load_matching
from livestock.models.checkpoint import write_checkpoint
from livestock.models.registry import get_family
from livestock.models.ssd import ASPECT_RATIOS, SCALES, SMALLEST_VGG, SsdFamily, place_default_boxes
from livestock.training import TrainConfig
from livestock.training.start import build_start

FAMILY = SsdFamily()
CONFIG = FAMILY.configure(["pig", "cow"], 128)
HYP = {"lr0": 0.01, "weight_decay": 0.0005}


def build(size: str = "resnet18", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return FAMILY.build(FAMILY.configure(["pig", "cow"], 128, size)).eval()


def library_model(model: nn.Module, side: int) -> nn.Module:
    """torchvision's SSD300 with the same weights, told to leave images of this size as they are."""
    library = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=3, score_thresh=0.25,
                           image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    library.load_state_dict(model.state_dict())  # the same names
    library.transform.min_size, library.transform.max_size, library.transform.fixed_size = (side,), side, (side, side)
    library.anchor_generator = DefaultBoxGenerator([[2], [2, 3], [2, 3], [2, 3], [2], [2]],
                                                   scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05])
    return library


def test_predictions_are_what_torchvision_suppresses() -> None:
    model, images = build("vgg16"), torch.rand(2, 3, 320, 320, generator=torch.Generator().manual_seed(2))
    library = library_model(model, 320).eval()
    with torch.inference_mode():
        found, expected = FAMILY.predict(model, images), library(list(images))
    assert found.scores.shape[-1] == 2 and float(found.scores.sum(-1).max()) < 1
    for boxes, scores, kept in zip(found.boxes, found.scores, expected, strict=True):
        clipped = clip_boxes_to_image(boxes, (320, 320))
        every_box, every_score, every_label = [], [], []
        for label in range(2):
            places = torch.where(scores[:, label] > 0.25)[0]
            best = scores[places, label].topk(min(400, len(places)))
            every_box.append(clipped[places[best.indices]])
            every_score.append(best.values)
            every_label.append(torch.full((len(best.values),), label))
        boxes, scores, labels = torch.cat(every_box), torch.cat(every_score), torch.cat(every_label)
        keep = batched_nms(boxes, scores, labels, 0.45)[:200]
        assert len(keep) > 10
        torch.testing.assert_close(boxes[keep], kept["boxes"])
        torch.testing.assert_close(scores[keep], kept["scores"])
        assert torch.equal(labels[keep] + 1, kept["labels"])


@pytest.mark.parametrize("size", ["vgg16", "resnet18", "lite0"])
def test_the_loss_by_hand(size: str) -> None:
    """Equation 1: matched from IoU .5 and each box's best; three times as many of the background, the worst ones."""
    model, batch = build(size), draw_squares(empty=True)
    with torch.no_grad():
        outputs = model(batch.images)
        found = FAMILY.make_loss(model, {"box": 3.0})(model, batch)
    anchors, truth = outputs["anchors"], batch.boxes[0]
    iou = box_iou(anchors, truth)[:, 0]
    matched = (iou >= 0.5) | (iou == iou.max())
    assert int(matched.sum()) >= 1
    log_p = outputs["cls_logits"][0].log_softmax(-1)
    background = (-log_p[~matched, 0]).topk(3 * int(matched.sum())).values.sum()
    expected = (background - log_p[matched, 1].sum()) / matched.sum()
    torch.testing.assert_close(found["cls"], expected)
    centres = (truth[:, :2] + truth[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2
    sizes = anchors[:, 2:] - anchors[:, :2]
    wanted = torch.cat([10 * centres / sizes, 5 * torch.log((truth[:, 2:] - truth[:, :2]) / sizes)], 1)[matched]
    box = functional.smooth_l1_loss(outputs["bbox_regression"][0][matched], wanted, reduction="sum") / matched.sum()
    torch.testing.assert_close(found["box"], 3 * box)


def test_default_boxes_are_torchvisions() -> None:
    maps = [torch.zeros(1, 1, side, side) for side in (20, 10, 5, 3, 2, 1)]
    library = DefaultBoxGenerator(ASPECT_RATIOS, scales=SCALES)
    [expected] = library(ImageList(torch.zeros(1, 3, 160, 160), [(0, 0)]), maps)
    found = torch.cat([place_default_boxes(level, number, 160, 160) for number, level in enumerate(maps)])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_a_default_box_is_the_same_where_grey_was_cut_off() -> None:
    """Training lays pictures on squares, prediction on the smallest canvas; what is learnt is relative to the boxes."""
    square, wide = (place_default_boxes(torch.zeros(1, 1, rows, 20), 0, 8 * rows, 160) for rows in (20, 12))
    torch.testing.assert_close(wide, square[:len(wide)])


def test_boxes_of_a_wide_image_go_as_far_as_it_does() -> None:
    """Default boxes are shares of both sides; a VGG's too small side is filled up, and coordinates stay."""
    for size in ("resnet18", "vgg16"):
        with torch.inference_mode():
            anchors = build(size)(torch.rand(1, 3, 96, 352))["anchors"]
        middle = (anchors[:, :2] + anchors[:, 2:]) / 2
        height = SMALLEST_VGG if size == "vgg16" else 96
        assert 330 < float(middle[:, 0].max()) < 352 and 0.9 * height < float(middle[:, 1].max()) < height


@pytest.mark.parametrize("size", ["vgg16", "resnet18", "lite0"])
def test_gradients_reach_every_parameter(size: str) -> None:
    """Of a whole batch: boxes of all sizes, so that each map's outputs are trained."""
    model = build(size).train()
    sides = torch.tensor([8.0, 20, 42, 66, 88, 112])
    boxes = torch.stack([torch.tensor([2.0, 2, 2 + side, 2 + side]) for side in sides])
    if size == "vgg16":
        boxes = boxes * 288 / 128
    images = torch.rand(2, 3, 288, 288) if size == "vgg16" else draw_squares().images
    batch = Batch(images, [boxes, boxes.flip(0)], [torch.zeros(6, dtype=torch.int64), torch.ones(6, dtype=torch.int64)])
    sum(FAMILY.make_loss(model, HYP)(model, batch).values()).backward()  # type: ignore[union-attr]
    without = [name for name, parameter in model.named_parameters()
               if parameter.grad is None or not parameter.grad.abs().sum() > 0]
    assert without == []


def test_one_small_image_can_be_trained_on() -> None:
    """The last batch of an epoch may have one image, and the last map of a small image has one place."""
    model = build().train()
    batch = Batch(torch.rand(1, 3, 64, 64), [torch.tensor([[3.0, 3, 40, 40]])], [torch.tensor([0])])
    assert all(part.isfinite() for part in FAMILY.make_loss(model, HYP)(model, batch).values())


def test_images_without_boxes_alone_add_nothing() -> None:
    model, batch = build().train(), draw_squares()
    none = replace(batch, boxes=[torch.zeros(0, 4)] * 2, class_ids=[torch.zeros(0, dtype=torch.int64)] * 2)
    assert {part.item() for part in FAMILY.make_loss(model, HYP)(model, none).values()} == {0.0}


def test_the_loss_falls_and_the_squares_are_found() -> None:
    torch.manual_seed(0)
    model, batch = FAMILY.build(CONFIG).train(), draw_squares()
    loss = FAMILY.make_loss(model, HYP)
    optimizer = torch.optim.AdamW(FAMILY.parameter_groups(model, {**HYP, "lr0": 3e-4}))
    for _ in range(25):
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


def test_start_weights_move_to_the_new_classes() -> None:
    """The background's outputs stay, a known class keeps its own, another one is the mean of all but the background."""
    found = FAMILY.configure(["Cow", "sheep", "goat"], 128)
    torch.manual_seed(3)
    source, model = FAMILY.build(found).eval(), build()
    report = load_matching(model, FAMILY.adapt(source.state_dict(), found, CONFIG))
    assert report.random == [] and report.unused == []
    images = draw_squares().images
    with torch.inference_mode():
        before, after = source(images)["cls_logits"], model(images)["cls_logits"]
    torch.testing.assert_close(after[..., 2], before[..., 1])
    torch.testing.assert_close(after[..., 0], before[..., 0])
    torch.testing.assert_close(after[..., 1], before[..., 1:].mean(-1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("size", "classifier"), [("resnet18", resnet18), ("vgg16", vgg16)])
def test_a_classifier_fills_the_backbone(size: str, classifier: type[nn.Module]) -> None:
    model, images = build(size), torch.rand(1, 3, 320, 320)
    source = classifier(weights=None).eval()
    found = FAMILY.describe_pretrained(f"{size}_imagenet")
    report = load_matching(model, FAMILY.adapt(source.state_dict(), found, CONFIG))
    assert report.unused == [] and not [name for name in report.random if ".body." in name or ".features." in name]
    if size == "vgg16":  # the layers before and after the fourth pooling, in the same order
        with torch.inference_mode():
            maps = model.backbone.features(images)  # type: ignore[union-attr,operator]
            deeper = model.backbone.extra[0][:7](maps)  # type: ignore[union-attr,index]
            torch.testing.assert_close(maps, source.features[:23](images))  # type: ignore[index]
            torch.testing.assert_close(deeper, source.features[:30](images))  # type: ignore[index]


def test_the_official_detector_is_known_with_its_own_pixels(tmp_path: Path) -> None:
    config = FAMILY.describe_pretrained("ssd300_vgg16_coco")
    assert len(config.labels) == 90 and config.labels[20] == "cow"
    library = ssd300_vgg16(weights=None, weights_backbone=None).eval()
    model = FAMILY.build(config).eval()
    report = load_matching(model, FAMILY.adapt(library.state_dict(), config, config))
    assert report.random == [] and report.unused == []
    image = torch.rand(3, 300, 300)
    transformed, _ = library.transform([image])
    torch.testing.assert_close(model.normalise(image[None]), transformed.tensors, atol=1e-3, rtol=1e-4)  # type: ignore[operator]
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"half")
    assert CLASSIFIERS["vgg16_imagenet"].url.endswith("vgg16-397923af.pth")
    with pytest.raises(UnsafeWeights, match="vgg16-397923af.pth: expected official weights, found"):
        FAMILY.find_pretrained("vgg16_imagenet", tmp_path)
    with pytest.raises(ValueError, match="weights 'vgg19': expected one of resnet18_imagenet"):
        FAMILY.find_pretrained("vgg19", tmp_path)


@pytest.mark.bad_input
@pytest.mark.parametrize(("tensors", "words"), [
    ({"classifier.0.weight": torch.zeros(1), "x": torch.zeros(1)}, "expected tensors of a ssd model, found others"),
    ({"head.classification_head.module_list.0.bias": torch.zeros(7)}, "expected tensors of a ssd model, found others"),
    ({"nonsense": torch.zeros(1)}, "expected tensors of a ssd model, found none that fits"),
])
def test_start_weights_that_are_no_such_model_are_refused(
    tensors: dict[str, Tensor], words: str, tmp_path: Path
) -> None:
    config, path = FAMILY.configure(["pig", "cow"], 128, "vgg16"), tmp_path / "w.safetensors"
    write_checkpoint(path, config, tensors)
    asked = TrainConfig(data_yaml="", weights=str(path), hyp="", imgsz=128, batch=2, epochs=1, family="ssd")
    images = SimpleNamespace(labels=["pig", "cow"], box_sizes=lambda imgsz: [])
    with pytest.raises(UnsafeWeights, match=words):
        build_start(asked, FAMILY, images, HYP)  # type: ignore[arg-type]


def test_tensors_that_do_not_fit_other_classes_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A head of two unknown classes where three are wanted: it stays random, and what is dropped is said."""
    found = FAMILY.configure(["horse", "dog"], 128)
    path = tmp_path / "w.safetensors"
    write_checkpoint(path, found, FAMILY.build(found).state_dict())
    asked = TrainConfig(data_yaml="", weights=str(path), hyp="", imgsz=128, batch=2, epochs=1, family="ssd")
    images = SimpleNamespace(labels=["pig", "cow", "hen"], box_sizes=lambda imgsz: [])
    with caplog.at_level(logging.INFO):
        build_start(asked, FAMILY, images, HYP)  # type: ignore[arg-type]
    said, head = caplog.messages[-1], r"12 \(head\.classification_head\.module_list\.0\.bias, .*\.\.\.\)"
    assert re.search(f"tensors fit this model, {head} stay random, {head} of the file are dropped$", said), said


@pytest.mark.parametrize("change", [
    {"backbone": "resnet9000"}, {"mean": [0.5]}, {"std": [0, 0.2, 0.2]}, {"std": "1"}, {"extra": 1}])
def test_impossible_architectures_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UnsafeWeights, match="ssd: .*expected"):
        FAMILY.build(replace(CONFIG, architecture={**CONFIG.architecture, **change}))


def test_sizes_and_sides_are_checked() -> None:
    with pytest.raises(BadData, match="size: expected one of resnet18, resnet50, vgg16, lite0, found 'swin_t'"):
        FAMILY.configure(["pig"], 128, "swin_t")
    with pytest.raises(BadData, match="imgsz: expected a multiple of 32 from 64, found 100"):
        FAMILY.configure(["pig"], 100)
    assert json.loads(json.dumps(CONFIG.architecture)) == CONFIG.architecture
    assert get_family("ssd").name == "ssd"


def test_a_batch_that_cannot_be_learnt_from_is_refused() -> None:
    model, batch = build().train(), draw_squares()
    loss = FAMILY.make_loss(model, HYP)
    with pytest.raises(BadData, match="expected x_min < x_max"):
        loss(model, replace(batch, boxes=[torch.tensor([[16.0, 32, 16, 80]]), batch.boxes[1]]))
    with pytest.raises(BadData, match="class_ids: expected 0 to 1, found 2"):
        loss(model, replace(batch, class_ids=[torch.tensor([2]), batch.class_ids[1]]))


def test_pixels_are_normalised_as_imagenets() -> None:
    colours = torch.tensor([[0.485, 0.456, 0.406], [0.714, 0.68, 0.631]])[:, :, None, None]  # one deviation above
    pixels: Tensor = build().normalise(colours)  # type: ignore[operator]
    torch.testing.assert_close(pixels[:, :, 0, 0], torch.tensor([[0.0] * 3, [1.0] * 3]), atol=1e-5, rtol=0)
