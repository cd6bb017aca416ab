"""Top-down pose: a box of a detector, cut out with its surroundings, and heat maps at a quarter of its side.

The baselines of Xiao et al. (ECCV 2018, arXiv:1804.06208), any backbone of timm with three transposed convolutions, and
HRNet (Sun et al., CVPR 2019, arXiv:1902.09212). The crop keeps the object's shape: a square of 1.25 times the longer
side of its box.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Crop, Resize
from .heatmap import HeatMapFamily

DECONV = {"head": "deconv", "channels": [256, 256, 256], "output": "linear", "decode": "dark"}
FINEST = {"head": "finest", "channels": [], "output": "linear", "decode": "dark"}
LIGHT = {"head": "upsample", "channels": [128, 128], "output": "softmax", "decode": "soft"}


class TopDownFamily(HeatMapFamily):
    """Keypoints of the object in a box; its sizes are networks, and so is the name of any backbone of timm.

    `_fine` has maps at half of the side.
    """

    name = "topdown"
    crop: Crop = "fit"
    known: Mapping[str, Mapping[str, Any]] = {
        "lite0": {"backbone": "tf_efficientnet_lite0", **LIGHT},
        "lite0_fine": {"backbone": "tf_efficientnet_lite0", **LIGHT, "channels": [128, 128, 128]},
        "resnet18": {"backbone": "resnet18", **DECONV},
        "resnet50": {"backbone": "resnet50", **DECONV},
        "resnet50_fine": {"backbone": "resnet50", **DECONV, "channels": [256, 256, 256, 256]},
        "resnet101": {"backbone": "resnet101", **DECONV},
        "resnet152": {"backbone": "resnet152", **DECONV},
        "resnest50": {"backbone": "resnest50d", **DECONV},
        "resnest101": {"backbone": "resnest101e", **DECONV},
        "hrnet_w32": {"backbone": "hrnet_w32", **FINEST},
        "hrnet_w48": {"backbone": "hrnet_w48", **FINEST},
    }
    usual: Mapping[str, Any] = DECONV
    sizes = tuple(known)
    resize: Resize = "letterbox"
    defaults: Mapping[str, float] = {"map": 1.0, "sigma": 8.0, "adaptive": 0.0, "half_body": 0.0}
