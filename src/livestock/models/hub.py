"""Official start weights of models that transformers builds: files of the Hugging Face hub, and its form of labels."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torchvision.ops import box_convert

from .base import Batch
from .common import missing_weights

WEIGHTS_FILE = "model.safetensors"


def require_transformers(family: str) -> None:
    """Raises ImportError that says what to install if transformers, which this family is built by, is not there."""
    if find_spec("transformers") is None:
        raise ImportError(f"the model family {family} needs transformers, which is not installed: "
                          "pip install transformers==5.15.0")


def download_from_hub(name: str, repository: str, directory: Path) -> Path:
    """The weights of a repository of the hub as `NAME_official.safetensors` in `directory`, unless it is there already.

    Raises ValueError that says what to fetch and where to put it where it cannot be downloaded, as with
    `HF_HUB_OFFLINE=1`.
    """
    import httpx
    from huggingface_hub import hf_hub_download

    path = directory / f"{name}_official.safetensors"
    if path.exists():
        return path
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=directory) as beside:
            os.replace(hf_hub_download(repository, WEIGHTS_FILE, local_dir=beside), path)
    except (OSError, httpx.HTTPError) as error:
        url = f"https://huggingface.co/{repository}/resolve/main/{WEIGHTS_FILE}"
        raise missing_weights(name, url, path, error) from error
    return path


def make_targets(batch: Batch) -> list[dict[str, Tensor]]:
    """The labels of transformers, of each image: `class_labels` `(n,)`, and `boxes` `(n, 4)` cxcywh in 0..1.

    >>> batch = Batch(torch.zeros(1, 3, 64, 128), [torch.tensor([[32.0, 0, 96, 32]])], [torch.tensor([1])])
    >>> [target["boxes"].tolist() for target in make_targets(batch)]
    [[[0.5, 0.25, 0.5, 0.5]]]
    """
    height, width = batch.images.shape[-2:]
    scale, device = torch.tensor([width, height, width, height]), batch.images.device
    return [
        {"class_labels": class_ids.to(device), "boxes": box_convert(boxes.float() / scale, "xyxy", "cxcywh").to(device)}
        for boxes, class_ids in zip(batch.boxes, batch.class_ids, strict=True)
    ]


def to_pixels(boxes: Tensor, images: Tensor) -> Tensor:
    """Boxes `(..., 4)` cxcywh in 0..1 as xyxy in pixels of the images `(B, 3, H, W)`, float32.

    >>> to_pixels(torch.tensor([0.5, 0.25, 0.5, 0.5]), torch.zeros(1, 3, 64, 128)).tolist()
    [32.0, 0.0, 96.0, 32.0]
    """
    height, width = images.shape[-2:]
    corners = box_convert(boxes.float(), "cxcywh", "xyxy")
    return corners * corners.new_tensor([width, height, width, height])
