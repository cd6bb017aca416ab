"""Networks of keypoints: configs that are refused, loss by hand and by finite differences, places from maps."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from livestock.exceptions import BadData, UnsafeWeights
from livestock.models import pose_net
from livestock.models.base import Batch, ModelConfig, PoseFamily, load_matching
from livestock.models.checkpoint import write_checkpoint
from livestock.models.forward import load_for_inference, wrap_model
from livestock.models.heatmap import HeatMapFamily
from livestock.models.heatmap_codec import DECODERS, encode_gaussian, window_mass
from livestock.models.pose_net import PoseNet, find_map_stride
from livestock.models.registry import FAMILIES, get_family
from livestock.models.topdown import TopDownFamily

HEAT, TOP = HeatMapFamily(), TopDownFamily()
TINY = "test_efficientnet"  # timm's own for tests: 80,000 parameters
HYP = {"map": 1.0, "sigma": 8.0, "adaptive": 0.0}
EARS = {"points": ["nose", "left", "right"], "flips": [0, 2, 1]}
HEADS: dict[str, dict[str, Any]] = {
    "sigmoid": {"head": "upsample", "channels": [8, 8], "output": "sigmoid", "decode": "argmax"},
    "linear": {"head": "deconv", "channels": [8, 8, 8], "output": "linear", "decode": "dark"},
    "softmax": {"head": "upsample", "channels": [8, 8], "output": "softmax", "decode": "soft"},
    "places": {"head": "flat", "channels": [], "output": "places", "decode": "argmax"},
}


def configure(imgsz: int = 64, family: PoseFamily = TOP, **changes: object) -> ModelConfig:
    config = family.configure(["cat"], imgsz, TINY)
    return replace(config, architecture={**config.architecture, **EARS, **HEADS["linear"], **changes})


class Fixed(nn.Module):
    """Gives what it was made with, whatever it sees: a network whose maps are known."""

    def __init__(self, maps: Tensor, output: str, stride: int, decode: str = "dark") -> None:
        super().__init__()
        self.maps, self.output, self.stride, self.decode, self.n_labels = maps, output, stride, decode, 1

    def forward(self, images: Tensor) -> Tensor:
        return self.maps


def make_batch(points: list, side: int = 64, box: tuple[float, ...] = (0, 0, 64, 64)) -> Batch:
    """One object an entry of `points`, each `(K, 3)`."""
    keypoints = [torch.tensor(own, dtype=torch.float32)[None] for own in points]
    return Batch(torch.zeros(len(points), 3, side, side), [torch.tensor([box])] * len(points),
                 [torch.tensor([0])] * len(points), keypoints)


def find_loss(net: nn.Module, batch: Batch, **hyp: float) -> Tensor:
    return TOP.make_loss(net, {**HYP, **hyp})(net, batch)["maps"]


def test_both_families_are_registered_and_see_objects() -> None:
    assert {"heatmap", "topdown"} <= set(FAMILIES)
    for name in FAMILIES:
        if name not in ("rfdetr", "dfine", "yolox"):  # which need their libraries
            assert isinstance(get_family(name), PoseFamily) == (name in ("heatmap", "topdown"))


@pytest.mark.parametrize(("family", "size"), [(family, size) for family in (HEAT, TOP) for size in family.sizes])
def test_every_size_is_one_that_timm_has_and_whose_maps_have_the_stride_that_is_said(
    family: HeatMapFamily, size: str
) -> None:
    """Without memory: hundreds of MB for some."""
    config = family.configure(["cat"], 64, size)
    parts = config.architecture
    with torch.device("meta"):
        shape = tuple(PoseNet(config).eval()(torch.empty(1, 3, 64, 64)).shape)
    assert shape == ((1, 1, 2) if parts["output"] == "places" else (1, 1, *[64 // find_map_stride(parts)] * 2))


@pytest.mark.parametrize("output", HEADS)
def test_outputs_have_their_ranges_and_first_maps_are_almost_flat(output: str) -> None:
    torch.manual_seed(0)
    net = TOP.build(configure(**HEADS[output])).train()
    found = net(torch.rand(2, 3, 64, 64))
    assert found.dtype == torch.float32
    if output == "places":
        assert found.shape == (2, 3, 2) and found.min() >= 0 and found.max() <= 1
    else:
        assert found.shape == (2, 3, *[64 // net.stride] * 2)
        assert (found - (0.5 if output == "sigmoid" else 0)).abs().max() < 0.1


# --- configs from strangers

@pytest.mark.parametrize(("entry", "value"), [
    ("backbone", "no_such_network"), ("backbone", 5), ("backbone", "../resnet18"), ("backbone", "hf-hub:a/b"),
    ("backbone", "resnet18.a1_in1k"), ("head", "tail"), ("head", ["upsample"]), ("output", None), ("output", []),
    ("decode", {}), ("decode", "best"), ("crop", "round"), ("channels", 3), ("channels", [8] * 6), ("channels", [0]),
    ("channels", [True]), ("channels", [1e3]), ("channels", [4096]), ("mean", [0.5, 0.5]), ("mean", [2, 0, 0]),
    ("mean", [math.nan, 0, 0]), ("std", [0, 1, 1]), ("std", "abc"), ("points", []), ("points", ["a", "a", "b"]),
    ("points", "abc"), ("points", [1, 2, 3]), ("points", [f"{k}" for k in range(1001)]), ("flips", [1, 2, 0]),
    ("flips", [0, 2]), ("flips", [0, 1, 3]), ("flips", [0.0, 2.0, 1.0]), ("flips", ["a", 1, 2]), ("flips", 3),
    ("flips", None), ("owners", None), ("owners", [[0]]), ("owners", [[0], [0], []]), ("owners", [[0], [0], [-1]]),
    ("owners", [[0], [0], [1]]), ("owners", [[0], [0], [0, 0]]),
])
def test_a_damaged_entry_is_refused_by_name(entry: str, value: object) -> None:
    with pytest.raises(UnsafeWeights, match=f"^topdown: {entry}: expected"):
        TOP.build(configure(**{entry: value}))


@pytest.mark.parametrize(("imgsz", "changes", "message"), [
    (100, {}, "imgsz: expected a multiple of 32 from 64, found 100"),
    (32, {}, "imgsz: expected a multiple of 32"),
    (64, {"output": "places"}, "output: expected places of the head 'flat'"),
    (64, {"head": "flat", "channels": []}, "output: expected places of the head 'flat'"),
    (64, {"head": "finest", "channels": [8]}, "channels: expected"),  # maps of another stride than is said
    (64, {**HEADS["sigmoid"], "channels": [8] * 5}, "channels: expected"),  # more cells than pixels
    (64, {"backbone": "vit_giant_patch14_224"}, "backbone vit_giant_patch14_224: expected"),
    (64, {"backbone": "vit_tiny_patch16_224"}, "backbone vit_tiny_patch16_224: expected"),
    (64, {"backbone": "resnet18", "head": "finest", "channels": []}, "backbone resnet18: expected"),
    (64, {"surprise": 1}, "architecture: expected the entries"),
])
def test_an_impossible_network_is_refused(imgsz: int, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsafeWeights, match=f"^topdown: {message}"):
        TOP.build(replace(configure(**changes), imgsz=imgsz))


def test_features_of_another_stride_are_refused() -> None:
    """Squares of 16 pixels: every place would be half as far from the corner as it is."""
    with pytest.raises(UnsafeWeights, match="backbone vit_tiny_patch16_224: expected features of the stride"):
        TOP.build(configure(224, backbone="vit_tiny_patch16_224"))


@pytest.mark.parametrize(("imgsz", "changes"), [
    (64, {"backbone": "efficientnet_l2"}), (64, {"backbone": "resnet18", "channels": [2048] * 5}),
    (8192, {**HEADS["places"], "points": [f"{k}" for k in range(1000)], "flips": []}),  # 4 million features
])
def test_a_huge_network_is_refused_before_it_takes_memory(
    imgsz: int, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    class Watched(PoseNet):
        def __init__(self, config: ModelConfig) -> None:
            super().__init__(config)
            made.extend(parameter.device.type for parameter in self.parameters())

    monkeypatch.setattr(pose_net, "PoseNet", Watched)
    monkeypatch.setattr(pose_net, "MOST_PARAMETERS", 100_000_000)  # of which some would have to be made here
    with pytest.raises(UnsafeWeights, match=r"expected up to 100,000,000 parameters with its head, found \d"):
        TOP.build(replace(configure(**changes), imgsz=imgsz))
    assert set(made) == {"meta"}


def test_a_size_is_one_of_the_family_or_a_backbone() -> None:
    assert TOP.configure(["cat"], 64, "regnetx_002").architecture["head"] == "deconv"
    assert HEAT.configure(["cat"], 64, "regnetx_002").architecture["decode"] == "argmax"
    for size in ("regnetx", "resnet18.a1_in1k", "../resnet18"):
        with pytest.raises(BadData, match="heatmap: size: expected one of lite0, .*, or a backbone of timm"):
            HEAT.configure(["cat"], 64, size)
    for imgsz in (32, 100):
        with pytest.raises(BadData, match="imgsz: expected a multiple of 32 from 64"):
            HEAT.configure(["cat"], imgsz)


@pytest.mark.parametrize("output", HEADS)
def test_a_file_gives_the_network_that_was_written(output: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = configure(**HEADS[output])
    net = TOP.build(config).eval()
    nn.init.normal_(net.last.weight)
    write_checkpoint(tmp_path / "net.safetensors", config, net.state_dict())
    loaded, images = load_for_inference(tmp_path / "net.safetensors", "cpu"), torch.rand(3, 3, 64, 64)
    assert dict(loaded.architecture) == dict(config.architecture) and loaded.imgsz == 64
    found, expected = loaded(images), wrap_model(TOP, config, net, "cpu")(images)
    assert found.keypoints is not None and expected.keypoints is not None
    torch.testing.assert_close(found.keypoints, expected.keypoints, atol=1e-4, rtol=1e-4)
    assert found.keypoints.shape == (3, 1, 3, 3) and found.scores.shape == (3, 1, 1)
    assert found.boxes[:, 0].tolist() == [[0, 0, 64, 64]] * 3
    assert found.keypoints[..., 2].min() >= 0 and found.keypoints[..., 2].max() <= 1


# --- the loss

POINTS = [[[20.5, 30.25, 2], [40, 9, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [50, 60, 2]]]


def by_hand(maps: np.ndarray, points: list, output: str, sigma: float, stride: int) -> float:
    """The same loss as loops, in double precision."""
    side, total, n = maps.shape[-1], 0.0, 0
    for own, image in zip(points, maps, strict=True):
        for (x, y, visible), found in zip(own, image, strict=True):
            if not visible:
                continue
            target = np.zeros((side, side))
            for row in range(side):
                for column in range(side):
                    apart = ((column + 0.5) * stride - x) ** 2 + ((row + 0.5) * stride - y) ** 2
                    is_cell = x // stride == column and y // stride == row
                    target[row, column] = math.exp(-apart / (2 * sigma**2)) if sigma else float(is_cell)
            if output == "softmax":
                chances = np.exp(found - found.max()) / np.exp(found - found.max()).sum()
                total -= float((target / target.sum() * np.log(chances)).sum())
            else:
                total += float(((found - target) ** 2).mean())
            n += 1
    return total / n


@pytest.mark.parametrize("output", ["sigmoid", "linear", "softmax"])
@pytest.mark.parametrize("sigma", [8.0, 3.0, 0.0])
def test_the_loss_is_that_of_its_formula(output: str, sigma: float) -> None:
    maps = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    found = find_loss(Fixed(maps, output, 4), make_batch(POINTS), sigma=sigma, map=3.0)
    assert float(found) == pytest.approx(3 * by_hand(maps.double().numpy(), POINTS, output, sigma, 4), rel=1e-5)


@pytest.mark.parametrize("output", ["linear", "softmax"])
def test_a_small_object_has_a_narrow_gaussian_down_to_a_quarter(output: str) -> None:
    maps = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    for box, share in (((0, 0, 64, 64), 1.0), ((8, 0, 40, 32), 0.5), ((0, 0, 2, 2), 0.25), ((-64, 0, 128, 99), 1.0)):
        batch = make_batch(POINTS, box=tuple(map(float, box)))
        found = find_loss(Fixed(maps, output, 4), batch, adaptive=1.0)
        assert float(found) == pytest.approx(by_hand(maps.double().numpy(), POINTS, output, 8 * share, 4), rel=1e-5)


def test_a_gaussian_narrower_than_a_cell_is_still_a_target() -> None:
    """Between four cells it is nearly 0 in each of them: the loss must not vanish, and all four count alike."""
    maps = torch.zeros(1, 1, 16, 16, requires_grad=True)
    loss = find_loss(Fixed(maps, "softmax", 4), make_batch([[[20, 20, 2]]]), sigma=0.3)
    loss.backward()
    assert maps.grad is not None and float(maps.grad[0, 0, 4, 4]) == pytest.approx(-0.25, abs=0.01)
    assert float(loss.detach()) == pytest.approx(math.log(256), rel=1e-4)


def test_the_loss_of_places_is_the_squared_distance_in_shares_of_the_side() -> None:
    places = torch.tensor([[[0.5, 0.5], [0.25, 0.5], [0.9, 0.9]]])
    batch = make_batch([[[32, 48, 2], [16, 32, 1], [0, 0, 0]]])
    assert float(find_loss(Fixed(places, "places", 1), batch)) == pytest.approx((0.25**2 / 2 + 0) / 2)


@pytest.mark.parametrize(("output", "hyp"), [
    ("sigmoid", {}), ("linear", {"adaptive": 1.0}), ("softmax", {}), ("softmax", {"sigma": 0.0}), ("places", {})])
def test_gradients_are_those_of_finite_differences_and_none_comes_from_unlabelled_points(
    output: str, hyp: dict[str, float]
) -> None:
    shape = (2, 3, 2) if output == "places" else (2, 3, 6, 6)
    maps = torch.rand(shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64, requires_grad=True)
    points = [[[20.5, 30.25, 2], [40, 9, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [30, 6, 2]]]
    batch = make_batch(points, side=48)
    find_loss(Fixed(maps, output, 8), batch, **hyp).backward()
    assert maps.grad is not None
    is_labelled = torch.tensor(points)[..., 2] > 0
    assert (maps.grad[~is_labelled] == 0).all()
    assert (maps.grad[is_labelled] != 0).flatten(1).any(1).all()
    for at in torch.randint(0, maps.numel(), (12,), generator=torch.Generator().manual_seed(5)).tolist():
        ends = []
        for step in (1e-3, -1e-3):
            moved = maps.detach().clone()
            moved.view(-1)[at] += step
            ends.append(float(find_loss(Fixed(moved, output, 8), batch, **hyp)))
        assert (ends[0] - ends[1]) / 2e-3 == pytest.approx(float(maps.grad.view(-1)[at]), abs=1e-3)


@pytest.mark.parametrize("output", HEADS)
def test_a_batch_without_labelled_points_has_no_loss_and_no_gradient(output: str) -> None:
    net = TOP.build(configure(**HEADS[output])).train()
    loss = find_loss(net, make_batch([[[0, 0, 0]] * 3, [[5, 5, 0]] * 3]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in net.parameters())


# --- from maps to places

@pytest.mark.parametrize("family", [HEAT, TOP])
@pytest.mark.parametrize("decode", ["dark", "soft", "quarter"])
@pytest.mark.parametrize("stride", [1, 4])
def test_what_is_drawn_is_found_without_a_drift(family: HeatMapFamily, decode: str, stride: int) -> None:
    """With the sigma of each family; mean signed error below .05 cells on both axes."""
    side, n = 32 * stride, 600
    edge = 4 * family.defaults["sigma"] if stride > 1 else 12.0
    places = torch.rand(n, 1, 2, generator=torch.Generator().manual_seed(6)) * (side - 2 * edge) + edge
    maps = encode_gaussian(places, torch.ones(n, 1), (32, 32), stride, family.defaults["sigma"] / max(stride, 4))
    found = family.predict(Fixed(maps, "linear", stride, decode), torch.zeros(n, 3, side, side)).keypoints
    assert found is not None
    assert ((found[:, 0, :, :2] - places) / stride).mean(0).abs().max() < 0.05


def test_the_confidence_of_softmax_is_what_lies_around_the_place() -> None:
    logits = torch.full((1, 1, 32, 32), -20.0)
    logits[0, 0, 5, 5], logits[0, 0, 5, 6], logits[0, 0, 25, 25] = math.log(0.4), math.log(0.3), math.log(0.3)
    found = TOP.predict(Fixed(logits, "softmax", 4, "soft"), torch.zeros(1, 3, 128, 128)).keypoints
    assert found is not None
    assert found[0, 0, 0].tolist() == pytest.approx([22 + 4 * 3 / 7, 22, 0.7], abs=1e-3)
    random = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(7))
    sums = [[max(float(own[max(r - 4, 0) : r + 5, max(c - 4, 0) : c + 5].sum()) for r in range(20) for c in range(24))
             for own in image] for image in random]
    np.testing.assert_allclose(window_mass(random), sums, rtol=1e-4)


def test_places_come_out_in_pixels() -> None:
    found = HEAT.predict(Fixed(torch.tensor([[[0.25, 0.5]]]), "places", 1), torch.zeros(1, 3, 64, 64)).keypoints
    assert found is not None and found.tolist() == [[[[16.0, 32.0, 1.0]]]]


# --- start weights of other points

@pytest.mark.parametrize("output", HEADS)
def test_rows_of_the_last_layer_move_with_the_names_of_the_points(output: str) -> None:
    found, wanted = configure(**HEADS[output]), configure(**HEADS[output], points=["tail", "right", "nose", "ear"],
                                                          flips=[])
    old, new = TOP.build(found).eval(), TOP.build(wanted).eval()
    nn.init.normal_(old.last.bias)
    nn.init.normal_(old.last.weight)
    report = load_matching(new, TOP.adapt(old.state_dict(), found, wanted))
    assert not report.random and not report.unused
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        before, after = old(images), new(images)
    torch.testing.assert_close(after[:, [1, 2]], before[:, [2, 0]])
    rows = new.last.weight.detach().unflatten(0, (4, -1))
    assert rows[0].abs().max() < 0.01 and not torch.equal(rows[0], rows[3])  # new ones are small, and differ


def test_every_decoder_can_be_named() -> None:
    for decode in DECODERS:
        assert TOP.build(configure(decode=decode)).decode == decode
