"""The sizes of D-FINE as configs of transformers, and the authors' start weights."""

from __future__ import annotations

from typing import Any

from ..exceptions import UnsafeWeights
from .base import ModelConfig
from .common import check_entries

ALL_STRIDES = (8, 16, 32)  # of the feature maps
STRIDES: dict[str, tuple[int, ...]] = {"dfine_n": (16, 32)}  # where they differ
# What differs between the sizes, as in the authors' configs: the backbone (HGNetV2-B0, B2 or B4), then the rest.
_B0 = {"stem_channels": [3, 16, 16], "stage_in_channels": [16, 64, 256, 512], "stage_mid_channels": [16, 32, 64, 128],
       "stage_out_channels": [64, 256, 512, 1024], "stage_num_blocks": [1, 1, 2, 1],
       "stage_numb_of_layers": [3, 3, 3, 3], "use_learnable_affine_block": True}
_B2 = {"stem_channels": [3, 24, 32], "stage_in_channels": [32, 96, 384, 768], "stage_mid_channels": [32, 64, 128, 256],
       "stage_out_channels": [96, 384, 768, 1536], "stage_num_blocks": [1, 1, 3, 1],
       "stage_numb_of_layers": [4, 4, 4, 4], "use_learnable_affine_block": True}
_B4 = {"stem_channels": [3, 32, 48], "stage_in_channels": [48, 128, 512, 1024],
       "stage_mid_channels": [48, 96, 192, 384], "stage_out_channels": [128, 512, 1024, 2048],
       "stage_num_blocks": [1, 1, 3, 1], "stage_numb_of_layers": [6, 6, 6, 6], "use_learnable_affine_block": False}
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dfine_n": (_B0, {"decoder_layers": 3, "depth_mult": 0.5, "hidden_expansion": 0.34, "decoder_n_points": [6, 6],
                      "d_model": 128, "encoder_hidden_dim": 128, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512,
                      "decoder_in_channels": [128, 128], "encode_proj_layers": [1], "num_feature_levels": 2}),
    "dfine_s": (_B0, {"decoder_layers": 3, "depth_mult": 0.34, "hidden_expansion": 0.5}),
    "dfine_m": (_B2, {"decoder_layers": 4, "depth_mult": 0.67}),
    "dfine_l": (_B4, {"decoder_layers": 6, "depth_mult": 1.0}),
}
# Official start weights and their repositories below huggingface.co/ustc-community; obj2coco: Objects365, then COCO.
PRETRAINED = {
    "dfine_n_coco": "dfine-nano-coco", "dfine_s_coco": "dfine-small-coco", "dfine_m_coco": "dfine-medium-coco",
    "dfine_l_coco": "dfine-large-coco", "dfine_s_obj365": "dfine-small-obj365", "dfine_m_obj365": "dfine-medium-obj365",
    "dfine_l_obj365": "dfine-large-obj365", "dfine_s_obj2coco": "dfine-small-obj2coco",
    "dfine_m_obj2coco": "dfine-medium-obj2coco", "dfine_l_obj2coco": "dfine-large-obj2coco-e25",
}


def make_config(config: ModelConfig) -> Any:
    """The `DFineConfig` of a config of the family. Raises UnsafeWeights for an impossible one."""
    from transformers import DFineConfig, HGNetV2Config

    size, n_queries, n_denoising = _check_architecture(config)
    backbone, rest = SIZES[size]
    strides, channels = STRIDES.get(size, ALL_STRIDES), backbone["stage_out_channels"]
    # `channels` also as hidden_sizes: the projections after the backbone are built by them. Stage 1 has stride 4.
    stages = {"hidden_sizes": channels, "out_indices": [stride.bit_length() - 2 for stride in strides]}
    return DFineConfig(**{
        "backbone_config": HGNetV2Config(**backbone, **stages), "num_labels": len(config.labels),
        "feat_strides": list(strides), "encoder_in_channels": channels[-len(strides):], "decoder_n_points": [3, 6, 3],
        "freeze_backbone_batch_norms": False, "initializer_bias_prior_prob": 0.01,
        "num_queries": n_queries, "num_denoising": n_denoising, **rest,
    })


def smallest_side(size: str, n_queries: int = 300) -> int:
    """The smallest square input in pixels, a multiple of 32, whose feature maps have a place for every query.

    >>> smallest_side("dfine_n"), smallest_side("dfine_s")
    (256, 128)
    """
    strides = STRIDES.get(size, ALL_STRIDES)
    return next(side for side in range(32, 1024, 32) if sum((side // stride) ** 2 for stride in strides) >= n_queries)


def _check_architecture(config: ModelConfig) -> tuple[str, int, int]:
    """Size, number of queries and of denoising queries. Raises UnsafeWeights."""
    entries = check_entries(config, ("size", "num_queries", "num_denoising"))
    if str(entries["size"]) not in SIZES:
        raise UnsafeWeights(f"dfine: size: expected one of {', '.join(SIZES)}, found {str(entries['size'])[:80]!r}")
    counts = entries["num_queries"], entries["num_denoising"]
    if not all(type(count) is int and least <= count <= 1000 for count, least in zip(counts, (1, 0), strict=True)):
        raise UnsafeWeights(f"dfine: expected 1 to 1000 queries and 0 to 1000 for denoising, found {str(counts)[:80]}")
    smallest = smallest_side(entries["size"], counts[0])
    if config.imgsz < smallest:
        raise UnsafeWeights(f"dfine: imgsz: expected at least {smallest} for {counts[0]} queries, found {config.imgsz}")
    return entries["size"], *counts
