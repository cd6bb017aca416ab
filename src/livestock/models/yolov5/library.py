"""The only door to the pip package yolov5 7.0.14 (January 2024), of which four things are used, each as it is.

These are the network `DetectionModel`, the loss `ComputeLoss`, the fitting of anchors `check_anchors`, and the model
files of the published sizes. Importing them brings in most of the package, and with it modules that are gone, ask the
network or change settings of the whole process. For as long as the import takes these are stood in for in
`sys.modules`, or the settings are put back afterwards. Nothing of yolov5, nor of any other library, is replaced.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import requests
import yaml

from ...exceptions import BadData
from ..quiet import kept_settings

SIZES = tuple(f"yolov5{size}{suffix}" for suffix in ("", "6") for size in "nsmlx")
RELEASE = "https://github.com/ultralytics/yolov5/releases/download/v7.0"
STARTER = Path(__file__).resolve().with_name("starter.safetensors")
INSTALL = "pip install --no-deps yolov5==7.0.14"

# What yolov5 imports and needs itself. Imported before, so that none of them meets a stand-in.
NEEDED = ("cv2", "numpy", "pandas", "PIL.Image", "requests", "torch", "torchvision", "tqdm", "yaml", "scipy.cluster.vq")


class Library(NamedTuple):
    """What is used of yolov5: two classes, a function, and the folder with the model files."""

    detection_model: Any
    compute_loss: Any
    check_anchors: Any
    models: Path


@cache
def load() -> Library:
    """Imports yolov5, once a process. Raises ImportError that says what to install where it is missing."""
    spec = importlib.util.find_spec("yolov5")
    if spec is None or spec.origin is None:
        raise ImportError(f"the family yolov5 needs the package yolov5, which is not installed: {INSTALL}")
    for name in NEEDED:
        importlib.import_module(name)
    # yolov5 makes a folder for its settings in the user's, unless the environment names another one.
    folder = os.environ.get("YOLOV5_CONFIG_DIR", tempfile.gettempdir())
    with kept_settings({"YOLOV5_CONFIG_DIR": folder}), _stand_ins():
        yolo, loss, autoanchor = (importlib.import_module(f"yolov5.{name}")
                                  for name in ("models.yolo", "utils.loss", "utils.autoanchor"))
    announcer = logging.getLogger("yolov5")
    if announcer.level == logging.NOTSET:
        announcer.setLevel(logging.WARNING)  # it would announce each layer of each network that is built
    return Library(yolo.DetectionModel, loss.ComputeLoss, autoanchor.check_anchors, Path(spec.origin).parent / "models")


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Puts modules into `sys.modules` under the names that yolov5 imports, and takes them out again."""
    modules = _make_stand_ins()
    before = {name: sys.modules[name] for name in modules if name in sys.modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]
        sys.modules.update(before)


def _make_stand_ins() -> dict[str, Any]:
    """The stand-ins by name. What they offer is what yolov5 calls while it is imported, by the code that is used.

    - `pkg_resources`: gone from setuptools 82; yolov5 compares versions with it.
    - `ultralytics`: asks the network when it is imported, and `check_requirements` installs packages.
    - `matplotlib`: yolov5 sets its backend to one without windows, and its font. It, seaborn and psutil serve plots
      and caches of images, which are not used.
    - `logging.config`: configuring a logger this way closes the handlers of all others.
    - `thop`: counts operations of each network that is built, to announce them. None is a module not installed.
    """
    from packaging.version import parse

    def do_nothing(*args: object, **kwargs: object) -> None: ...

    config = _module("logging.config", dictConfig=do_nothing)
    pyplot = _module("matplotlib.pyplot")
    modules = [
        _module("pkg_resources", parse_version=parse),
        _module("ultralytics"), _module("ultralytics.utils"),
        _module("ultralytics.utils.checks", check_requirements=do_nothing),
        _module("matplotlib", pyplot=pyplot, rc=do_nothing, use=do_nothing), pyplot,
        _module("seaborn"), _module("psutil"),
        _module("logging", **{**vars(logging), "config": config}), config,
    ]
    return {**{module.__name__: module for module in modules}, "thop": None}


def _module(name: str, **content: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update({**content, "__name__": name})
    return module


def read_architecture(size: str) -> dict[str, Any]:
    """The model file of a published size such as `yolov5m6`, as plain values. Raises BadData for another name."""
    if size not in SIZES:
        raise BadData(f"size {size!r}: expected one of {', '.join(SIZES)}")
    folder = load().models
    path = (folder / "hub" if size.endswith("6") else folder) / f"{size}.yaml"
    architecture: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return architecture


def find_pretrained(name: str, directory: Path) -> Path:
    """The file for a path, for `starter.safetensors`, which comes along, or for an official name: `yolov5m6.pt`.

    Official weights are downloaded once into `directory` and kept there. Raises BadData that says what to do when the
    file is not there and cannot be downloaded.
    """
    path, official = Path(name), [f"{size}.pt" for size in SIZES]
    if path.exists():
        return path
    if name == STARTER.name:
        return STARTER
    kept = directory / path.name
    if kept.exists():
        return kept
    if name not in official:
        raise BadData(f"weights {name!r}: no such file; expected a path, {STARTER.name} or one of {official}")
    return _download(f"{RELEASE}/{name}", kept)


def _download(url: str, path: Path) -> Path:
    """Writes what `url` has to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with requests.get(url, stream=True, timeout=30) as answer, open(beside, "wb") as file:
            answer.raise_for_status()
            for block in answer.iter_content(1 << 20):
                file.write(block)
        os.replace(beside, path)
    except requests.RequestException as error:
        raise BadData(
            f"weights {path.name}: not here and not downloadable ({error.__class__.__name__}). Download {url} on a "
            f"machine with internet access and put it at {path}, or name a file with --weights"
        ) from error
    finally:
        beside.unlink(missing_ok=True)
    return path
