"""The table of models: what can be trained, its size, and how good it is on COCO as its authors say."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import yaml

from ..exceptions import BadData
from .profile import FAMILIES, POSE_FAMILIES
from .resources import resource

MODELS_FILE = "hyp/models.yaml"
HALF_BYTES = 2  # of a number in half precision, as which weights are submitted
KEYS = {"M", "imgsz", "AP", "AP75", "note"}


def read_models() -> pd.DataFrame:
    """The table of `hyp/models.yaml`: `name`, `family`, `M` (millions of parameters), `MB`, `imgsz`, `AP`, `AP75`,
    `licence`, `hyp`, `note`; figures that are not known are NaN.

    Raises BadData for an unknown family or key.
    """
    path = resource(MODELS_FILE)
    content: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    rows = []
    for family, entry in content.items():
        if family not in (*FAMILIES, *POSE_FAMILIES):
            raise BadData(f"{path}: {family}: expected one of {', '.join((*FAMILIES, *POSE_FAMILIES))}")
        for name, model in entry["models"].items():
            if unknown := model.keys() - KEYS:
                raise BadData(f"{path}: {name}: expected the keys {', '.join(sorted(KEYS))}, found {sorted(unknown)}")
            rows.append({"name": name, "family": family, "licence": entry["licence"], "hyp": entry["hyp"],
                         "note": "", "imgsz": math.nan, "AP": math.nan, "AP75": math.nan, **model})
    table = pd.DataFrame(rows)
    return table.assign(MB=table["M"] * HALF_BYTES)
