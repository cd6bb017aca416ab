"""How big a run is: model, image size and budget."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Profile:
    """How big a run is: model, image size and budget. `yolov5m6.pt` and the like are downloaded when online."""

    name: str
    weights: str
    imgsz: int
    batch: int
    epochs: int
    hyp: str
    device: str = ""
    workers: int = 2
    optimizer: str = "SGD"
    cos_lr: bool = False
    nominal_batch: int = 64  # images an optimizer step; less means more steps, which short trainings lack
    compiler: str = ""  # "inductor": PyTorch writes kernels for the model, which takes minutes at the start
    bf16: bool = False  # instead of fp16, on GPUs from 2020 on; these two were not measured on any yet
    trials: int = 40  # of the search, and epochs of each
    trial_epochs: int = 7
    n_verified: int = 3  # seeds with which its best values are trained again, and the start values


PROFILES = {
    # learns nothing: shows within a minute whether everything runs, on these data and this machine
    "smoke": Profile("smoke", "starter.pt", imgsz=64, batch=4, epochs=1, hyp="demo.yaml", device="cpu", workers=0,
                     trials=2, trial_epochs=1, n_verified=1),
    "demo": Profile("demo", "starter.pt", imgsz=320, batch=8, epochs=8, hyp="demo.yaml", device="cpu",
                    trials=6, trial_epochs=2),
    "cpu": Profile("cpu", "yolov5n.pt", imgsz=416, batch=16, epochs=24, hyp="baseline.yaml", device="cpu",
                   nominal_batch=16, trials=12, trial_epochs=3),
    "colab": Profile("colab", "yolov5m6.pt", imgsz=1280, batch=10, epochs=20, hyp="competition.yaml"),
}


def get_profile(name: str, **changes: Any) -> Profile:
    """The profile of this name with some of its fields changed; None leaves a field as it is.

    Raises ValueError for an unknown profile or field.
    """
    if name not in PROFILES:
        raise ValueError(f"profile: expected one of {sorted(PROFILES)}, found {name!r}")
    _reject_unknown("profile", changes, Profile)
    return replace(PROFILES[name], **{key: value for key, value in changes.items() if value is not None})


def _reject_unknown(what: str, content: dict[str, Any], of: type) -> None:
    known = {item.name for item in fields(of)}
    if unknown := sorted(set(content) - known):
        raise ValueError(f"{what}: unknown key {unknown[0]!r}; expected one of {sorted(known)}")
