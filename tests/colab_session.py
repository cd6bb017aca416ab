"""A stand-in for Colab: a folder like `/content`, a Drive to mount, and an address on GitHub that leads to a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from livestock.cli.home import write_home
from livestock.config import REPOSITORY
from livestock.sample import draw_sample

ADDRESS = "ada/livestock"
NOT_COPIED = {".git", ".venv", "data", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
DRIVE = """
from pathlib import Path


def mount(path):
    with open(Path(path).parent / "mounts.txt", "a") as file:
        file.write("mounted\\n")
    Path(path).symlink_to(Path(path).parent / "behind_the_mount")
"""


def make_content(content: Path) -> Path:
    """Fills the folder: raw data on the Drive, and `origin`, the project as its owner has pushed it to `ADDRESS`."""
    origin = content / "origin"
    shutil.copytree(REPOSITORY, origin, symlinks=True, ignore=_passed_over)
    write_home(ADDRESS, origin)
    git = ["git", "-C", str(origin), "-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)  # noqa: S603
    module = content / "stand_in/google/colab/drive.py"
    module.parent.mkdir(parents=True)
    module.write_text(DRIVE)
    draw_sample(kept(content) / "raw", seed=5, n_train=24, n_test=8, scale=0.15)
    return content


def _passed_over(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name in (NOT_COPIED if Path(folder) == REPOSITORY else {"__pycache__"})}


def kept(content: Path) -> Path:
    """Where results lie on the Drive."""
    return content / "behind_the_mount/MyDrive/livestock"


def run_code(content: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Runs code as a cell of a session would; `made.txt` gets what it asks `make` for, and nothing is installed."""
    tools = content / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "make").write_text(f'#!/bin/sh\necho "make $*" >>"{content}/made.txt"\n')
    (tools / "make").chmod(0o755)
    return _run(content, [sys.executable, "-c", code], str(tools / "make"))


def run_notebooks(content: Path, stems: list[str], python: str = sys.executable, **values: object) -> str:
    """Runs notebooks of `origin` by hand, with these values of parameters; returns all that they printed."""
    paths = [str(content / f"origin/notebooks/{stem}.ipynb") for stem in stems]
    literals = [f"{name}={value!r}" for name, value in values.items()]
    command = [python, str(Path(__file__).with_name("run_by_hand.py")), *paths, *literals]
    done = _run(content, command, python)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def lose_session(content: Path) -> None:
    """The machine is gone, and its disk with it."""
    shutil.rmtree(content / "livestock")
    (content / "drive").unlink()


def _run(content: Path, command: list[str], first_tool: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "COLAB_RELEASE_TAG": "stand-in",
        "LIVESTOCK_CONTENT": str(content),
        "PYTHONPATH": str(content / "stand_in"),
        "PATH": f"{Path(first_tool).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{content / 'origin'}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://github.com/{ADDRESS}",
    }
    return subprocess.run(command, cwd=content, env=environment, capture_output=True, text=True)  # noqa: S603
