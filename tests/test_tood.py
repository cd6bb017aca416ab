"""TOOD: its parts against slow computations of the paper's equations, box by box and place by place."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.ops import box_iou, deform_conv2d, generalized_box_iou

from livestock.exceptions import BadData, UnsafeWeights
from livestock.models.base import Batch, load_matching
from livestock.models.registry import get_family
from livestock.models.tood import (
    STRIDES,
    WIDTH,
    LayerAttention,
    Tood,
    ToodFamily,
    deform_by_samples,
    move_sides,
)
from livestock.models.tood_assign import assign_by_alignment, assign_by_distance

FAMILY = ToodFamily()
CONFIG = FAMILY.configure(["pig", "cow"], 128)
HYP = {"lr0": 0.01, "weight_decay": 0.0005}


def build(seed: int = 0, deformable: int = 0) -> Tood:
    """A network in evaluation mode whose outputs differ from place to place."""
    torch.manual_seed(seed)
    model = FAMILY.build(replace(CONFIG, architecture={"backbone": "resnet18", "deformable": deformable})).eval()
    assert isinstance(model, Tood)
    for layer in (model.head.classes, model.head.sides, model.head.offsets[-1], model.head.alignment[-1]):
        nn.init.normal_(layer.weight, std=0.05)  # type: ignore[arg-type]
    nn.init.constant_(model.head.sides.bias, 1.0)  # type: ignore[arg-type]
    return model


def draw_batch(*, empty: bool = False, progress: float = 0.0) -> Batch:
    """Two images of noise with bright squares, and their boxes; the second has none if `empty`."""
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 0.3
    images[0, :, 32:80, 16:80] = 0.9
    images[1, 0, 40:104, 40:104] = 0.9
    boxes = [torch.tensor([[16.3, 32.1, 80, 80.9], [50.2, 51, 120, 111]]), torch.tensor([[40.3, 40.6, 104, 104.5]])]
    class_ids = [torch.tensor([0, 1]), torch.tensor([1])]
    if empty:
        boxes[1], class_ids[1] = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    return Batch(images, boxes, class_ids, progress=progress)


def draw_boxes(rng: np.random.Generator, n: int, side: float = 128) -> Tensor:
    corners = rng.uniform(0, side, (n, 2))
    sizes = rng.uniform(3, side / 2, (n, 2))
    return torch.from_numpy(np.hstack([corners, corners + sizes])).float()


def make_places(side: int = 128) -> tuple[Tensor, Tensor]:
    """Centres and strides of all places of an image."""
    points, strides = [], []
    for stride in STRIDES:
        for y in range(math.ceil(side / stride)):
            for x in range(math.ceil(side / stride)):
                points.append([(x + 0.5) * stride, (y + 0.5) * stride])
                strides.append(stride)
    return torch.tensor(points), torch.tensor(strides, dtype=torch.float32)


def test_shapes_and_places() -> None:
    model = build()
    with torch.inference_mode():
        outputs = model(torch.rand(2, 3, 96, 160))
    n = sum(math.ceil(96 / stride) * math.ceil(160 / stride) for stride in STRIDES)
    assert outputs["log_scores"].shape == (2, n, 2) and outputs["boxes"].shape == (2, n, 4)
    with torch.inference_mode():
        points, strides = make_places()
        square = model(torch.rand(1, 3, 128, 128))
    assert torch.equal(square["points"], points) and torch.equal(square["strides"], strides)


def test_a_network_has_the_papers_parts() -> None:
    """Six layers, attention 1536-32-6, one head for all levels."""
    head = build().head
    assert len(head.layers) == 6
    shapes = {name: tuple(parameter.shape[:2]) for name, parameter in head.named_parameters() if parameter.ndim == 4}
    for task in ("for_classes", "for_boxes"):
        assert (shapes[f"{task}.squeeze.weight"], shapes[f"{task}.excite.weight"], shapes[f"{task}.reduce.weight"]) == (
            (32, 1536), (6, 32), (256, 1536))
    assert shapes["alignment.2.weight"] == (1, 64) and shapes["offsets.2.weight"] == (8, 64)


def test_layer_attention_by_hand() -> None:
    """Equations 2 to 5, layer by layer."""
    torch.manual_seed(0)
    task, features = LayerAttention(), torch.rand(2, 6 * WIDTH, 3, 4)
    weights = []
    for image in features:
        pooled = image.mean((1, 2))
        hidden = (task.squeeze.weight[:, :, 0, 0] @ pooled + task.squeeze.bias).clamp(min=0)  # type: ignore[operator]
        weights.append(torch.sigmoid(task.excite.weight[:, :, 0, 0] @ hidden + task.excite.bias))  # type: ignore[operator]
    layers = features.reshape(2, 6, WIDTH, 3, 4) * torch.stack(weights)[:, :, None, None, None]
    reduced = torch.einsum("oc,bchw->bohw", task.reduce.weight[:, :, 0, 0], layers.flatten(1, 2))
    torch.testing.assert_close(task(features), torch.relu(task.norm(reduced)), atol=1e-5, rtol=1e-4)


def test_the_score_is_the_geometric_mean_of_two_sigmoids() -> None:
    """Equation 6, and finite where a sigmoid is 0 in single precision."""
    model, maps = build(), torch.rand(1, WIDTH, 4, 4)
    seen: list[Tensor] = []
    for layer in (model.head.classes, model.head.alignment):
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        log_scores, _ = model.head(0, maps)
    torch.testing.assert_close(log_scores.exp(), (seen[0].sigmoid() * seen[1].sigmoid()).sqrt())
    nn.init.constant_(model.head.classes.bias, -300.0)  # type: ignore[arg-type]
    loss = FAMILY.make_loss(model, {})(model.train(), draw_batch())
    sum(loss.values()).backward()  # type: ignore[union-attr]
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters() if parameter.grad is not None)


def test_sides_are_taken_from_other_places() -> None:
    """Equation 7, by loops: bilinear interpolation between places, nothing outside."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(2, 4, 3, 5, generator=generator)
    offsets = torch.randn(2, 8, 3, 5, generator=generator)
    expected = torch.zeros_like(boxes)
    for image, side, row, column in np.ndindex(*boxes.shape):
        y = row + float(offsets[image, 2 * side, row, column])
        x = column + float(offsets[image, 2 * side + 1, row, column])
        for near_y in (math.floor(y), math.floor(y) + 1):
            for near_x in (math.floor(x), math.floor(x) + 1):
                if 0 <= near_y < 3 and 0 <= near_x < 5:
                    share = (1 - abs(y - near_y)) * (1 - abs(x - near_x))
                    expected[image, side, row, column] += share * boxes[image, side, near_y, near_x]
    torch.testing.assert_close(move_sides(boxes, offsets), expected, atol=1e-5, rtol=1e-5)


def test_deformation_is_torchvisions() -> None:
    """`deform_conv2d` with one group a side and an all-ones 1 x 1 weight moves sides; with 3 x 3 it is our layer."""
    generator = torch.Generator().manual_seed(0)
    boxes, offsets = torch.rand(2, 4, 6, 7, generator=generator), 2 * torch.randn(2, 8, 6, 7, generator=generator)
    torch.testing.assert_close(move_sides(boxes, offsets), deform_conv2d(boxes, offsets, torch.ones(4, 1, 1, 1)),
                               atol=1e-5, rtol=1e-5)
    maps, weight = torch.rand(2, 5, 6, 7, generator=generator), torch.rand(3, 5, 3, 3, generator=generator)
    offsets = torch.randn(2, 18, 6, 7, generator=generator)
    expected = deform_conv2d(maps, offsets, weight, padding=1)
    torch.testing.assert_close(deform_by_samples(maps, offsets, weight), expected, atol=1e-4, rtol=1e-4)


def slow_distance(points: Tensor, strides: Tensor, truth: Tensor) -> list[int]:
    """ATSS as its paper's algorithm 1 says it, box by box, in plain numbers."""
    owners: list[tuple[float, int]] = [(-1.0, -1)] * len(points)
    squares = torch.cat([points - 4 * strides[:, None], points + 4 * strides[:, None]], 1)
    for number, box in enumerate(truth):
        centre = (box[:2] + box[2:]) / 2
        candidates = []
        for stride in STRIDES:
            of_level = [place for place in range(len(points)) if strides[place] == stride]
            of_level.sort(key=lambda place: (float((points[place] - centre).norm()), place))
            candidates += of_level[:9]
        overlaps = {place: float(box_iou(squares[place][None], box[None])) for place in candidates}
        threshold = np.mean(list(overlaps.values())) + np.std(list(overlaps.values()), ddof=1)
        for place, overlap in overlaps.items():
            x, y = points[place].tolist()
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if overlap >= threshold and inside and overlap > owners[place][0]:
                owners[place] = (overlap, number)
    return [owner for _, owner in owners]


@pytest.mark.parametrize("seed", range(6))
def test_assignment_by_distance_is_that_of_a_slow_computation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, strides = make_places()
    truth = draw_boxes(rng, int(rng.integers(1, 6)))
    assert assign_by_distance(points, strides, truth).tolist() == slow_distance(points, strides, truth)


def slow_alignment(log_scores: Tensor, boxes: Tensor, points: Tensor, truth: Tensor,
                   class_ids: Tensor) -> tuple[list[int], list[float]]:
    """Task alignment learning as section 3.2 says it: t = s * u^6, the thirteen best places of each box."""
    owners: list[tuple[float, int]] = [(-1.0, -1)] * len(points)
    iou = box_iou(boxes, truth).numpy().astype(float)
    t = np.array([[math.exp(log_scores[place, class_ids[box]]) * iou[place, box] ** 6 for box in range(len(truth))]
                  for place in range(len(points))])
    for box in range(len(truth)):
        for place in np.argsort(-t[:, box], kind="stable")[:13]:
            x, y = points[place].tolist()
            x_min, y_min, x_max, y_max = truth[box].tolist()
            inside = min(x - x_min, y - y_min, x_max - x, y_max - y) > 0.01
            if inside and t[place, box] > 0 and iou[place, box] > owners[place][0]:
                owners[place] = (iou[place, box], box)
    assigned = [box for _, box in owners]
    scores = [0.0] * len(points)
    for place, box in enumerate(assigned):
        if box >= 0:
            own = [other for other in range(len(points)) if assigned[other] == box]
            scores[place] = t[place, box] / max(t[other, box] for other in own) * max(iou[other, box] for other in own)
    return assigned, scores


@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_assignment_by_alignment_is_that_of_a_slow_computation(seed: int, n_boxes: int) -> None:
    rng = np.random.default_rng(seed)
    points, strides = make_places()
    truth, class_ids = draw_boxes(rng, n_boxes), torch.from_numpy(rng.integers(0, 2, n_boxes))
    reach = torch.from_numpy(rng.uniform(0.5, 4, (len(points), 4))).float() * strides[:, None]
    boxes = torch.cat([points - reach[:, :2], points + reach[:, 2:]], 1)
    log_scores = torch.from_numpy(rng.uniform(-5, 0, (len(points), 2))).float()
    assigned, scores = assign_by_alignment(log_scores, boxes, points, truth, class_ids)
    expected, expected_scores = slow_alignment(log_scores, boxes, points, truth, class_ids)
    assert assigned.tolist() == expected
    np.testing.assert_allclose(scores.numpy(), expected_scores, rtol=1e-3, atol=1e-6)
    for box in range(n_boxes):  # the best place of a box is taught the highest IoU of its places
        own = assigned == box
        if own.any():
            assert float(scores[own].max()) == pytest.approx(float(box_iou(boxes, truth)[own, box].max()), rel=1e-3)


@pytest.mark.parametrize("progress", [0.0, 0.34])
def test_the_loss_by_hand(progress: float) -> None:
    """Focal loss and central places in the first third of the epochs; then equations 10 and 12."""
    model, batch = build(), draw_batch(empty=True, progress=progress)
    with torch.no_grad():
        outputs = model(batch.images)
        found = FAMILY.make_loss(model, {})(model, batch)
    scores, boxes, points = outputs["log_scores"].exp().double(), outputs["boxes"].double(), outputs["points"].double()
    classes = total_weight = total_box = total_target = 0.0
    for image in range(2):
        truth, ids = batch.boxes[image].double(), batch.class_ids[image]
        if len(truth) == 0:
            assigned, target = [-1] * len(points), [0.0] * len(points)
        elif progress == 0:
            assigned = slow_distance(outputs["points"], outputs["strides"], batch.boxes[image])
            target = [float(box >= 0) for box in assigned]
        else:
            assigned, target = slow_alignment(outputs["log_scores"][image], outputs["boxes"][image],
                                              outputs["points"], batch.boxes[image], ids)
        assert not len(truth) or max(assigned) >= 0
        for place, box in enumerate(assigned):
            for label in range(2):
                p, t = float(scores[image, place, label]), target[place] if box >= 0 and ids[box] == label else 0.0
                entropy = -t * math.log(p) - (1 - t) * math.log(1 - p)
                if progress == 0:
                    entropy *= 0.25 if t else 0.75
                classes += (t - p) ** 2 * entropy
                total_target += t
            if box >= 0:
                x, y = points[place].tolist()
                before = np.array([x - truth[box, 0], y - truth[box, 1]])
                after = np.array([truth[box, 2] - x, truth[box, 3] - y])
                central = math.sqrt((np.minimum(before, after) / np.maximum(before, after)).prod())
                weight = central if progress == 0 else target[place]
                total_box += weight * (1 - float(generalized_box_iou(boxes[image, place][None], truth[box][None])))
                total_weight += weight
    assert found["cls"].item() == pytest.approx(classes / max(total_target, 1), rel=1e-3)
    assert found["box"].item() == pytest.approx(2 * total_box / max(total_weight, 1), rel=1e-3)


def test_how_long_places_are_assigned_by_distance_is_a_setting() -> None:
    model = build()
    with torch.no_grad():
        late, early = (FAMILY.make_loss(model, {"atss_share": n})(model, draw_batch(progress=0.5)) for n in (0.5, 0.6))
        first = FAMILY.make_loss(model, {})(model, draw_batch(progress=0))
    assert torch.equal(early["cls"], first["cls"]) and not torch.equal(late["cls"], first["cls"])


@pytest.mark.parametrize("progress", [0.0, 0.34])
@pytest.mark.parametrize("deformable", [0, 2])
def test_gradients_reach_every_parameter(progress: float, deformable: int) -> None:
    model = build(deformable=deformable).train()
    sum(FAMILY.make_loss(model, HYP)(model, draw_batch(progress=progress)).values()).backward()  # type: ignore[union-attr]
    without = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert without == []


def test_a_deformable_layer_begins_as_a_plain_one() -> None:
    torch.manual_seed(0)
    head = FAMILY.build(replace(CONFIG, architecture={"backbone": "resnet18", "deformable": 1})).head
    layer, maps = head.layers[0][0], torch.rand(1, WIDTH, 5, 6)  # type: ignore[union-attr,index]
    plain = nn.functional.conv2d(maps, layer.conv.weight, padding=1)
    torch.testing.assert_close(layer(maps), plain, atol=1e-4, rtol=1e-4)


def test_images_without_boxes_alone_teach_background() -> None:
    for progress in (0.0, 0.34):
        batch = replace(draw_batch(progress=progress), boxes=[torch.zeros(0, 4)] * 2,
                        class_ids=[torch.zeros(0, dtype=torch.int64)] * 2)
        parts = FAMILY.make_loss(build(), HYP)(build().train(), batch)
        assert parts["box"] == 0 and parts["cls"] > 0


def test_the_loss_falls_and_the_squares_are_found() -> None:
    torch.manual_seed(0)
    model, batch = FAMILY.build(CONFIG).train(), draw_batch()
    loss = FAMILY.make_loss(model, HYP)
    optimizer = torch.optim.AdamW(FAMILY.parameter_groups(model, {**HYP, "lr0": 3e-4}))
    for step in range(36):
        total = torch.stack(list(loss(model, replace(batch, progress=step / 36)).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    with torch.inference_mode():
        predictions = FAMILY.predict(model, batch.images)  # still with the statistics of the batch
    for boxes, scores, truth, ids in zip(predictions.boxes, predictions.scores, batch.boxes, batch.class_ids,
                                         strict=True):
        for box, label in zip(truth, ids, strict=True):
            best = int(scores[:, label].argmax()) if len(ids) == 1 else int(
                (scores[:, label] * (box_iou(boxes, box[None])[:, 0] > 0.5)).argmax())
            assert float(box_iou(boxes[best][None], box[None])) > 0.5


def test_start_weights_move_to_the_new_classes() -> None:
    found = FAMILY.configure(["Cow", "sheep", "goat"], 128)
    torch.manual_seed(3)
    source, model = FAMILY.build(found).eval(), build()
    report = load_matching(model, FAMILY.adapt(source.state_dict(), found, CONFIG))
    assert report.random == [] and report.unused == []
    rows, moved = source.head.classes.weight, model.head.classes.weight  # type: ignore[union-attr]
    assert torch.equal(moved[1], rows[0])  # type: ignore[index]
    torch.testing.assert_close(moved[0], rows.mean(0))  # type: ignore[index,operator]


def test_a_classifier_fills_the_backbone() -> None:
    classifier, model = resnet18(weights=None), build()
    report = load_matching(model, FAMILY.adapt(classifier.state_dict(), CONFIG, CONFIG))
    assert report.unused == [] and all(name.startswith(("backbone.fpn.", "head.")) for name in report.random)


@pytest.mark.parametrize("change", [{"backbone": "vgg16"}, {"deformable": 7}, {"deformable": "2"}, {"extra": 1}])
def test_impossible_architectures_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UnsafeWeights, match="tood: .*expected"):
        FAMILY.build(replace(CONFIG, architecture={**CONFIG.architecture, **change}))


def test_sizes_and_sides_are_checked() -> None:
    with pytest.raises(BadData, match="size: expected one of resnet18, .*, lite0_dcn, found 'vgg16'"):
        FAMILY.configure(["pig"], 128, "vgg16")
    with pytest.raises(BadData, match="imgsz: expected a multiple of 32 from 64, found 100"):
        FAMILY.configure(["pig"], 100)
    with pytest.raises(ValueError, match="weights 'x': expected one of resnet18_imagenet"):
        get_family("tood").find_pretrained("x", FAMILY.sizes)  # type: ignore[arg-type]
    assert json.loads(json.dumps(CONFIG.architecture)) == CONFIG.architecture
