"""The public names: imported when asked for, from a folder to `answer.csv`, and the README's example of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import livestock
from livestock.config import REPOSITORY
from livestock.sample import draw_sample

HEAVY = ("torch", "pandas", "numpy", "yaml", "optuna", "matplotlib", "cv2", "yolov5")


def example() -> str:
    """The code that the README shows."""
    found = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 1
    return found[0]


def test_every_public_name_is_there_and_documented() -> None:
    names = [name for name in livestock.__all__ if name != "__version__"]
    assert len(names) == 12
    for name in names:
        assert getattr(livestock, name).__doc__, name
    assert set(names) <= set(dir(livestock))


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'trian'; it has read_competition, make_run, "):
        livestock.trian  # noqa: B018


@pytest.mark.parametrize(("given", "found"), [
    ({}, "3000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_that_wait_spin_shortly_unless_told_otherwise(given: dict[str, str], found: str) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    code = "import os, livestock; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,  # noqa: S603
                          env={**clean, **given})
    assert done.stdout.strip() == found


def test_importing_the_package_imports_no_library() -> None:
    code = f"import sys, livestock; dir(livestock); print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout == "[]\n"


def test_the_example_of_the_readme_is_ten_lines_of_public_names() -> None:
    lines = [line for line in example().splitlines() if line.strip()]
    assert len(lines) <= 10
    assert set(re.findall(r"livestock\.(\w+)\(", example())) <= set(livestock.__all__)


@pytest.mark.long
def test_the_example_of_the_readme_writes_an_answer(tmp_path: Path) -> None:
    draw_sample(tmp_path / "barns", n_train=24, n_test=6, scale=0.15)
    code = example()
    for shown, small in (("PATH", "barns"), ('profile="cpu"', 'profile="smoke"'), ('"epochs": 40', '"epochs": 1')):
        assert shown in code
        code = code.replace(shown, small)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "my_run/answer.csv").read_text().startswith("ImageID,LabelName,Conf,XMin,XMax,YMin,YMax\n")
    assert "mAP" in done.stdout
