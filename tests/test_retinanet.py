"""RetinaNet behind the contract of a model family, compared with torchvision's own detector of the same weights."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, sigmoid_focal_loss
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from livestock.exceptions import BadData, UnsafeWeights
from livestock.models.base import Batch, load_matching
from livestock.models.checkpoint import read_checkpoint
from livestock.models.common import group_parameters, move_classes
from livestock.models.registry import get_family
from livestock.models.retinanet import PRETRAINED, RetinaNetFamily

FAMILY = RetinaNetFamily()
CONFIG = FAMILY.configure(["pig", "cow"], 128)
HYP = {"lr0": 0.01, "weight_decay": 0.0005}


def build(seed: int = 0) -> nn.Module:
    """A network in evaluation mode whose class outputs and shifts differ from place to place."""
    torch.manual_seed(seed)
    model = FAMILY.build(CONFIG).eval()
    heads = model.head
    nn.init.normal_(heads.classification_head.cls_logits.weight, std=0.3)
    nn.init.constant_(heads.classification_head.cls_logits.bias, -2)
    nn.init.normal_(heads.regression_head.bbox_reg.weight, std=0.05)
    return model


def draw_batch(height: int = 128, width: int = 128, *, empty: bool = False) -> Batch:
    """Two images of noise with a bright square, and its box; the second has none if `empty`."""
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 0.3
    images[0, :, 32:80, 16:80] = 0.9
    images[1, 0, 40:104, 40:104] = 0.9
    boxes = [torch.tensor([[16.0, 32, 80, 80]]), torch.tensor([[40.0, 40, 104, 104]])]
    class_ids = [torch.tensor([0]), torch.tensor([1])]
    if empty:
        boxes[1], class_ids[1] = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    return Batch(images, boxes, class_ids)


def library_model(model: nn.Module, height: int, width: int) -> RetinaNet:
    """torchvision's detector with the same weights, told to leave images of this size as they are."""
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d,
                                   trainable_layers=5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
    library = RetinaNet(backbone, 2, min_size=min(height, width), max_size=max(height, width), score_thresh=0.2)
    library.load_state_dict(model.state_dict())  # the same names
    return library.eval()


def select(boxes: Tensor, scores: Tensor, sizes: list[int], shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """What torchvision does after the network, level by level: threshold, best 1,000, clip, suppression, best 300."""
    kept_boxes, kept_scores, kept_labels = [], [], []
    for level_boxes, level_scores in zip(boxes.split(sizes), scores.split(sizes), strict=True):
        places, labels = torch.where(level_scores > 0.2)
        best = level_scores[places, labels].topk(min(1000, len(places)))
        kept_boxes.append(clip_boxes_to_image(level_boxes[places[best.indices]], shape))
        kept_scores.append(best.values)
        kept_labels.append(labels[best.indices])
    all_boxes, all_scores, all_labels = torch.cat(kept_boxes), torch.cat(kept_scores), torch.cat(kept_labels)
    keep = batched_nms(all_boxes, all_scores, all_labels, 0.5)[:300]
    return all_boxes[keep], all_scores[keep], all_labels[keep]


@pytest.mark.parametrize(("height", "width"), [(128, 128), (96, 160)])
def test_predictions_are_what_torchvision_suppresses(height: int, width: int) -> None:
    model, images = build(), draw_batch(160, 160).images[:, :, :height, :width]
    with torch.inference_mode():
        found = FAMILY.predict(model, images)
        expected = library_model(model, height, width)(list(images))
    sizes = [9 * -(-height // stride) * -(-width // stride) for stride in (8, 16, 32, 64, 128)]
    assert found.boxes.shape == (2, sum(sizes), 4) and found.scores.shape == (2, sum(sizes), 2)
    for boxes, scores, library in zip(found.boxes, found.scores, expected, strict=True):
        kept_boxes, kept_scores, kept_labels = select(boxes, scores, sizes, (height, width))
        assert len(kept_boxes) > 20 and set(kept_labels.tolist()) == {0, 1}
        torch.testing.assert_close(kept_boxes, library["boxes"])
        torch.testing.assert_close(kept_scores, library["scores"])
        assert torch.equal(kept_labels, library["labels"])


def test_the_loss_is_torchvisions() -> None:
    """Compared with torchvision's own call in training, which resizes, normalises and matches by itself."""
    model, batch = build(), draw_batch(empty=True)
    library = library_model(model, 128, 128).train()
    targets = [{"boxes": boxes, "labels": ids} for boxes, ids in zip(batch.boxes, batch.class_ids, strict=True)]
    expected = library(list(batch.images), targets)
    found = FAMILY.make_loss(model, {"box": 3.0})(model.train(), batch)
    assert list(found) == ["cls", "box"]
    torch.testing.assert_close(found["cls"], expected["classification"])
    torch.testing.assert_close(found["box"], 3 * expected["bbox_regression"])


def test_the_loss_by_hand() -> None:
    """Classes count from 0; anchors from IoU .5 are trained, those between .4 and .5 ignored; means over images."""
    model, batch = build().train(), draw_batch(empty=True)
    outputs = model(batch.images)
    expected = []
    for image in range(2):
        target, valid = torch.zeros(len(outputs["anchors"]), 2), torch.ones(len(outputs["anchors"]), dtype=torch.bool)
        if image == 0:
            iou = box_iou(outputs["anchors"], batch.boxes[0])[:, 0]
            trained = (iou >= 0.5) | (iou == iou.max())
            target[trained, 0] = 1
            valid = trained | (iou < 0.4)
        focal = sigmoid_focal_loss(outputs["cls_logits"][image][valid], target[valid], reduction="sum")
        expected.append(focal / target.sum().clamp(min=1))
    found = FAMILY.make_loss(model, {})(model, batch)["cls"]
    torch.testing.assert_close(found, torch.stack(expected).mean())


@pytest.mark.parametrize("empty", [False, True])
def test_gradients_reach_every_parameter(empty: bool) -> None:
    torch.manual_seed(0)
    model = FAMILY.build(CONFIG).train()
    sum(FAMILY.make_loss(model, HYP)(model, draw_batch(empty=empty)).values()).backward()  # type: ignore[union-attr]
    without = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert without == [] and all(parameter.requires_grad for parameter in model.parameters())


def test_images_without_boxes_alone_teach_background() -> None:
    model, batch = build().train(), draw_batch()
    none = replace(batch, boxes=[torch.zeros(0, 4)] * 2, class_ids=[torch.zeros(0, dtype=torch.int64)] * 2)
    parts = FAMILY.make_loss(model, HYP)(model, none)
    assert parts["box"] == 0 and parts["cls"] > 0


def test_the_loss_falls_and_the_squares_are_found() -> None:
    torch.manual_seed(0)
    model, batch = FAMILY.build(CONFIG).train(), draw_batch()
    loss = FAMILY.make_loss(model, HYP)
    optimizer = torch.optim.AdamW(FAMILY.parameter_groups(model, {**HYP, "lr0": 1e-4}))
    totals = []
    for _ in range(15):
        total = torch.stack(list(loss(model, batch).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < totals[0] / 3
    with torch.inference_mode():
        predictions = FAMILY.predict(model, batch.images)  # still with the statistics of the batch
    for boxes, scores, truth, label in zip(predictions.boxes, predictions.scores, batch.boxes, batch.class_ids,
                                           strict=True):
        place, found = divmod(int(scores.argmax()), 2)
        assert found == int(label) and float(box_iou(boxes[place][None], truth)) > 0.5


def test_half_precision_keeps_the_anchors() -> None:
    """In bfloat16 a coordinate of 100.5 would be 100 or 101."""
    model, images = build(), draw_batch().images[:1, :, :64, :64]
    with torch.inference_mode():
        full = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(images)
    assert torch.equal(half["anchors"], full["anchors"])
    assert {output.dtype for output in half.values()} == {torch.float32}
    torch.testing.assert_close(half["cls_logits"], full["cls_logits"], atol=0.3, rtol=0.1)


def test_pixels_are_normalised_as_imagenets() -> None:
    """A picture of the mean colour is zero to the network, and so equals one without a bias in the first layer."""
    model, seen = build(), []
    model.backbone.body.conv1.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    colours = torch.tensor([[0.485, 0.456, 0.406], [0.714, 0.68, 0.631]])  # the mean, and one deviation above it
    model(colours[:, :, None, None].expand(2, 3, 32, 32))
    torch.testing.assert_close(seen[0].mean((2, 3)), torch.tensor([[0.0] * 3, [1.0] * 3]), atol=1e-5, rtol=0)


def test_boxes_without_area_and_unknown_classes_are_refused() -> None:
    model, batch = build().train(), draw_batch()
    loss = FAMILY.make_loss(model, HYP)
    with pytest.raises(BadData, match=r"expected x_min < x_max.*found \[16.0, 32.0, 16.0, 80.0\]"):
        loss(model, replace(batch, boxes=[torch.tensor([[16.0, 32, 16, 80]]), batch.boxes[1]]))
    with pytest.raises(BadData, match="class_ids: expected 0 to 1, found 2"):
        loss(model, replace(batch, class_ids=[torch.tensor([2]), batch.class_ids[1]]))


def test_start_weights_move_to_the_new_classes() -> None:
    """Three classes become two in another order: the cow's outputs stay, the pig's are the mean of all three."""
    found = FAMILY.configure(["Cow", "sheep", "goat"], 128)
    torch.manual_seed(3)
    source, model = FAMILY.build(found).eval(), build()
    report = load_matching(model, FAMILY.adapt(source.state_dict(), found, CONFIG))
    assert report.random == [] and report.unused == []
    images = draw_batch().images
    with torch.inference_mode():
        before, after = source(images)["cls_logits"], model(images)["cls_logits"]
    torch.testing.assert_close(after[..., 1], before[..., 0])
    torch.testing.assert_close(after[..., 0], before.mean(-1), atol=1e-4, rtol=1e-4)


def test_class_outputs_stay_random_where_no_class_is_known() -> None:
    found = FAMILY.configure(["dog"], 128)
    report = load_matching(build(), FAMILY.adapt(FAMILY.build(found).state_dict(), found, CONFIG))
    assert report.random == ["head.classification_head.cls_logits.bias", "head.classification_head.cls_logits.weight"]


def test_a_classifier_fills_the_backbone() -> None:
    torch.manual_seed(5)
    classifier, model = resnet18(weights=None), build()
    found = FAMILY.describe_pretrained("resnet18_imagenet")
    report = load_matching(model, FAMILY.adapt(classifier.state_dict(), found, CONFIG))
    assert report.unused == [] and all(name.startswith(("backbone.fpn.", "head.")) for name in report.random)
    assert torch.equal(model.backbone.body.layer4[1].conv2.weight, classifier.layer4[1].conv2.weight)


def test_names_of_the_official_detector_are_known() -> None:
    """The official file numbers the convolutions of a head 0, 2, 4, 6; torchvision renames them when it loads."""
    found = FAMILY.describe_pretrained("retinanet_resnet50_fpn_coco")
    assert len(found.labels) == 91 and found.labels[21] == "cow"
    model = FAMILY.build(found)
    old = {}
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if parts[0] == "head" and parts[2] == "conv":
            parts[3:5] = [str(2 * int(parts[3]))]
        old[".".join(parts)] = tensor
    assert "head.classification_head.conv.6.bias" in old
    wanted = FAMILY.configure(["cow"], 128, "resnet50")
    report = load_matching(FAMILY.build(wanted), FAMILY.adapt(old, found, wanted))
    assert report.random == [] and report.unused == []


def test_official_weights_are_found_or_the_message_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, path: str, *more: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(ValueError, match="retinanet_resnet50_fpn_coco, found|expected one of"):
        FAMILY.find_pretrained("resnet19", tmp_path)
    with pytest.raises(ValueError, match=f"Download {PRETRAINED['resnet18_imagenet'].url} .*{tmp_path}/resnet18-"):
        FAMILY.find_pretrained("resnet18_imagenet", tmp_path)
    kept = tmp_path / "resnet18-f37072fd.pth"
    torch.save(classifier := resnet18(weights=None).state_dict(), kept)
    path = FAMILY.find_pretrained("resnet18_imagenet", tmp_path)
    assert path == tmp_path / "retinanet_resnet18_imagenet.safetensors"
    start = read_checkpoint(path)
    wanted = FAMILY.configure(["pig"], 128)
    report = load_matching(model := FAMILY.build(wanted), FAMILY.adapt(start.tensors, start.config, wanted))
    assert "backbone.body.layer4.1.conv2.weight" in report.loaded and not report.unused
    assert torch.equal(model.state_dict()["backbone.body.conv1.weight"], classifier["conv1.weight"])
    kept.write_bytes(b"half")
    path.unlink()
    with pytest.raises(UnsafeWeights, match="resnet18-f37072fd.pth: expected official weights, found"):
        FAMILY.find_pretrained("resnet18_imagenet", tmp_path)


def test_the_config_is_plain_json_and_builds_again() -> None:
    architecture = json.loads(json.dumps(CONFIG.architecture))
    again = FAMILY.build(replace(CONFIG, architecture=architecture))
    backbone = 11_689_512 - 513_000  # ResNet-18 without its classifier
    pyramid = (128 + 256 + 512 + 3) * 256 + (3 + 2) * (9 * 256 + 1) * 256
    heads = 2 * 4 * (9 * 256 + 1) * 256 + (9 * 256 + 1) * 9 * (2 + 4)
    assert sum(parameter.numel() for parameter in again.parameters()) == backbone + pyramid + heads
    assert get_family("retinanet").name == "retinanet"


@pytest.mark.parametrize("change", [
    {"backbone": "resnet9000"}, {"anchor_sizes": [[32]]}, {"anchor_sizes": [[32], [64], [128], [256], [512, 600]]},
    {"aspect_ratios": [0]}, {"aspect_ratios": "1"}, {"extra": 1},
    {"anchor_sizes": [[32] * 9] * 5, "aspect_ratios": [1] * 9},  # 81 anchors a place
])
def test_impossible_architectures_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UnsafeWeights, match="retinanet: .*expected"):
        FAMILY.build(replace(CONFIG, architecture={**CONFIG.architecture, **change}))


@pytest.mark.parametrize("family", ["retinanet", "ssd", "tood", "yolox"])
def test_more_classes_than_memory_holds_are_refused_before_anything_is_built(family: str) -> None:
    """A header of four megabytes can name 800,000 of them, whose outputs would take hundreds of gigabytes."""
    known = get_family(family)
    with pytest.raises(UnsafeWeights, match="labels: expected at most 10,000, found 800,000"):
        known.build(replace(known.configure(["pig"], 128), labels=("",) * 800_000))
    many = {f"{number}": 1 for number in range(100_000)}
    with pytest.raises(UnsafeWeights) as refusal:
        known.build(replace(known.configure(["pig"], 128), architecture=many))
    assert len(str(refusal.value)) < 300


def test_sizes_and_sides_are_checked() -> None:
    with pytest.raises(BadData, match="size: expected one of resnet18, resnet50, swin_t, lite0, found 'vgg'"):
        FAMILY.configure(["pig"], 128, "vgg")
    with pytest.raises(BadData, match="imgsz: expected a multiple of 32 from 64, found 100"):
        FAMILY.configure(["pig"], 100)
    with pytest.raises(UnsafeWeights, match="labels: expected at least one"):
        FAMILY.build(replace(CONFIG, labels=()))


def test_only_weights_decay_and_biases_warm_up_from_their_own_rate() -> None:
    model = build()
    groups = FAMILY.parameter_groups(model, {**HYP, "warmup_bias_lr": 0.1})
    weights, scales, biases = groups
    assert [group["weight_decay"] for group in groups] == [0.0005, 0, 0]
    assert [group["warmup_lr"] for group in groups] == [0, 0, 0.1] and {group["lr"] for group in groups} == {0.01}
    n_norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert len(scales["params"]) == n_norms and all(parameter.ndim == 4 for parameter in weights["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    frozen = nn.Linear(2, 2).requires_grad_(False)
    assert group_parameters(frozen.named_parameters(), HYP) == []


def test_as_many_rows_as_labels_are_expected() -> None:
    with pytest.raises(UnsafeWeights, match="expected 2, one a label, found 3"):
        move_classes(torch.zeros(3, 4), ["pig", "cow"], ["pig"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")  # of the older exporter
def test_onnx_gives_the_same(tmp_path: Path) -> None:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    class Exported(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            predictions = FAMILY.predict(self.model, images)
            return predictions.boxes, predictions.scores

    model, path = build(), tmp_path / "model.onnx"
    axes = {"images": {0: "batch", 2: "height", 3: "width"}}
    torch.onnx.export(Exported(model).eval(), (torch.rand(2, 3, 96, 64),), str(path), dynamo=False, opset_version=17,
                      input_names=["images"], output_names=["boxes", "scores"], dynamic_axes=axes)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for images in (draw_batch().images, draw_batch(128, 160).images[:1]):
        with torch.inference_mode():
            expected = FAMILY.predict(model, images)
        boxes, scores = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(boxes, expected.boxes, atol=1e-2, rtol=1e-4)
        np.testing.assert_allclose(scores, expected.scores, atol=1e-4)
