"""yolov5's own training, to compare with: `yolov5.train` 7.0.14 (January 2024), mended only so that it runs at all.

Today's numpy, Pillow, torch and huggingface_hub break it. Each entry is one function that says what breaks and mends it
inside yolov5's own modules. `apply()` runs them all, once a process; the project itself never does.
"""

from __future__ import annotations

import functools
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Modules that yolov5 imports but that a local run must not touch: they prompt for an account, phone home or are
# gigabytes of cloud clients. `None` makes the import fail, which yolov5 takes as "not installed".
ABSENT = ["wandb", "clearml", "comet_ml", "neptune", "neptune.new", "tensorboard", "torch.utils.tensorboard"]

# The module classes a detection checkpoint is made of, and nothing else: each only stores its arguments.
MODEL_CLASSES = {
    "yolo": ["Detect", "DetectionModel", "Model"],
    "common": ["Bottleneck", "BottleneckCSP", "C3", "Concat", "Conv", "DWConv", "Focus", "SPP", "SPPF"],
}
TORCH_CLASSES = ["BatchNorm2d", "Conv2d", "Hardswish", "Identity", "LeakyReLU", "MaxPool2d", "ModuleList", "ReLU",
                 "SiLU", "Sequential", "Upsample", "ZeroPad2d"]


@functools.cache
def apply() -> None:
    """Imports yolov5's modules and mends them; later calls do nothing."""
    with _stand_ins(), _kept_settings(), warnings.catch_warnings():
        # setuptools announces on each import of pkg_resources that it will go; requirements.txt pins it below 82.
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        path_before = list(sys.path)
        _module("yolov5.train")
        sys.path[:] = path_before  # yolov5 puts its package folder there, where `utils` and `models` shadow others
    _alias_bare_modules()
    for mend in MENDS:
        mend()


@contextmanager
def _stand_ins() -> Iterator[None]:
    """roboflow, and ultralytics for one function, are imported at the top of yolov5 and never needed here.

    Installing them would bring a second OpenCV, their own downgrades and, for ultralytics, a settings file in the
    home folder. The stand-ins leave `sys.modules` with the import, so a real ultralytics can still be imported.
    """
    modules: dict[str, Any] = dict.fromkeys(ABSENT)
    for name, content in {
        "roboflow": {"Roboflow": None},
        "roboflow.core": {},
        "roboflow.core.version": {"Version": None},
        "ultralytics": {},
        "ultralytics.utils": {},
        # checks the installed packages and pip-installs what it misses
        "ultralytics.utils.checks": {"check_requirements": lambda *args, **kwargs: None},
    }.items():
        modules[name] = types.ModuleType(name)
        modules[name].__dict__.update(content)
    before = {name: sys.modules[name] for name in modules if name in sys.modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]
        sys.modules.update(before)


@contextmanager
def _kept_settings() -> Iterator[None]:
    """Importing yolov5 switches figures off (backend Agg), sets their font, and how numpy and pandas print.

    In a notebook all of that is the user's: the figures after the import would simply not appear.
    """
    import matplotlib
    import pandas as pd

    use, max_columns, printing = matplotlib.use, pd.options.display.max_columns, np.get_printoptions()
    matplotlib.use = lambda *args, **kwargs: None
    try:
        with matplotlib.rc_context():
            yield
    finally:
        matplotlib.use = use
        pd.options.display.max_columns = max_columns
        np.set_printoptions(**printing)


def _alias_bare_modules() -> None:
    """Published checkpoints are pickled under `models.yolo`: the same classes, not a second copy of them."""
    for name in ["models", "models.common", "models.experimental", "models.yolo"]:
        sys.modules[name] = _module(f"yolov5.{name}")


def trapezoid() -> None:
    """`np.trapz` was renamed in numpy 2.0 and is gone from 2.4; yolov5's average precision calls it."""
    metrics = _module("yolov5.utils.metrics")
    metrics.np = overlay(np, trapz=vars(np)["trapezoid"])  # not in the stubs of Colab's numpy


def fonts() -> None:
    """`check_dataset` and the plots download Arial.ttf, and `FreeTypeFont.getsize` is gone from Pillow 10."""
    import matplotlib
    from PIL import ImageFont

    font_path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"

    def check_pil_font(font: object = None, size: int = 10) -> Any:
        loaded: Any = ImageFont.truetype(str(font_path), size)
        loaded.getsize = lambda text: loaded.getbbox(text)[2:]
        return loaded

    _module("yolov5.utils.plots").check_pil_font = check_pil_font
    for name in ("yolov5.utils.general", "yolov5.utils.plots"):
        _module(name).check_font = lambda *args, **kwargs: None


def mixed_precision() -> None:
    """The AMP check downloads yolov5n.pt and, failing, turns AMP off in silence: on CUDA it is on, elsewhere off."""
    _module("yolov5.train").check_amp = lambda model: next(model.parameters()).device.type == "cuda"


def suppression_clock() -> None:
    """`non_max_suppression` gives up after 0.5 + 0.05 * batch seconds and leaves the other images without a box.

    Its own copy of the function runs on a stopped clock.
    """
    general = _module("yolov5.utils.general")
    stopped = overlay(general.time, time=lambda: 0.0)
    untimed = with_globals(general.non_max_suppression, time=stopped)
    for name in ("yolov5.utils.general", "yolov5.val", "yolov5.models.common", "yolov5.utils.plots"):
        module = _module(name)
        if hasattr(module, "non_max_suppression"):
            module.non_max_suppression = untimed


def hub_downloads() -> None:
    """Local weights are first looked up on the Hugging Face hub through a module that huggingface_hub 1.x dropped."""
    for name in ("yolov5.train", "yolov5.utils.downloads", "yolov5.models.common"):
        module = _module(name)
        if hasattr(module, "attempt_download_from_hub"):
            module.attempt_download_from_hub = lambda *args, **kwargs: None


class _Unchanged:
    """In place of yolov5's `Albumentations`: hands on what it is given."""

    def __init__(self, size: int = 640) -> None: ...

    def __call__(self, im: Any, labels: Any, p: float = 1.0) -> tuple[Any, Any]:
        return im, labels


def no_albumentations() -> None:
    """Where albumentations is installed, as on Colab, importing it asks pypi.org for its newest version.

    Older releases would also blur and grey some pictures there that stay as they are elsewhere.
    """
    _module("yolov5.utils.dataloaders").Albumentations = _Unchanged


def safe_checkpoints() -> None:
    """`torch.load` refuses classes since 2.6, rightly: allow the ones a detection checkpoint is made of, by name."""
    torch.serialization.add_safe_globals(allowed_globals())


def quiet_deprecations() -> None:
    """One warning for every batch: `torch.cuda.amp` was renamed, and GradScaler is off on the CPU as intended.

    The scheduler's one is of yolov5's accumulation: it may step the schedule before the first optimizer step.
    """
    for message in (r"`torch\.cuda\.amp\.", "torch.cuda.amp.GradScaler is enabled", r"Detected call of `lr_scheduler"):
        warnings.filterwarnings("ignore", message=message)


MENDS: list[Callable[[], None]] = [
    trapezoid, fonts, mixed_precision, suppression_clock, hub_downloads, no_albumentations, safe_checkpoints,
    quiet_deprecations
]


def allowed_globals() -> list[Any]:
    """The allow-list: yolov5's model classes under both names, torch's layers, and numpy's scalar for the fitness."""
    allowed: list[Any] = [getattr(torch.nn, name) for name in TORCH_CLASSES]
    for module_name, class_names in MODEL_CLASSES.items():
        module = _module(f"yolov5.models.{module_name}")
        for name in class_names:
            allowed.append(getattr(module, name))
            allowed.append((getattr(module, name), f"models.{module_name}.{name}"))
    multiarray = _module("numpy._core.multiarray")
    for name in ("scalar", "_reconstruct"):  # how numpy pickles a scalar and an array: data, no code
        function = getattr(multiarray, name)
        allowed += [(function, f"numpy.core.multiarray.{name}"), (function, f"numpy._core.multiarray.{name}")]
    return [*allowed, np.ndarray, np.dtype, type(np.dtype("float64")), type(np.dtype("float32"))]


def _module(name: str) -> Any:
    """A module to change: typed Any, for a type checker has no way to know what is put there."""
    return import_module(name)


def overlay(module: types.ModuleType, **changes: Any) -> types.ModuleType:
    """A module that is `module` but for `changes`, to hand to one importer of it."""
    overlay = types.ModuleType(module.__name__)
    overlay.__dict__.update(module.__dict__)
    overlay.__dict__.update(changes)
    return overlay


def with_globals(function: Any, **changes: Any) -> Any:
    """The same function reading some of its globals from `changes`."""
    copy = types.FunctionType(
        function.__code__, {**function.__globals__, **changes}, function.__name__, function.__defaults__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def write_pt(weights: Path, target: Path) -> Path:
    """Writes weights of this project, of the family yolov5, as yolov5 itself reads them: a pickled `DetectionModel`.

    In half precision, as yolov5 leaves a finished training, with nothing beside that its functions ask for. Returns
    `target`. Raises ValueError for weights of another family.
    """
    apply()  # first, for the modules that the family imports are stood in for where it does not need them
    from livestock.models.checkpoint import load_model

    config, model = load_model(weights)
    if config.family != "yolov5":
        raise ValueError(f"{weights}: expected weights of the family yolov5, found {config.family!r}")
    torch.save({"model": model.half(), "ema": None, "optimizer": None, "epoch": -1}, target)
    return target


def train(options_of: dict[str, Any], on_epoch: Callable[[], None]) -> None:
    """Runs `yolov5.train` with these options, its own spellings; calls `on_epoch` after each epoch's validation."""
    apply()
    yolov5_train = _module("yolov5.train")
    callbacks = yolov5_train.Callbacks()
    callbacks.register_action("on_fit_epoch_end", callback=lambda *_: on_epoch())
    sys.argv = sys.argv[:1]  # yolov5 parses the command line for its defaults
    options = yolov5_train.parse_opt(True)
    for name, value in options_of.items():
        setattr(options, name, value)
    yolov5_train.main(options, callbacks)
