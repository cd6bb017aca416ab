"""The package works where it was installed from a wheel, in any directory, without the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from livestock.config import REPOSITORY

pytestmark = pytest.mark.long
PARTS = ("src", "hyp", "notebooks", "competition.yaml", "keypoints.yaml", "pyproject.toml", "README.md", "LICENSE",
         "requirements.txt", "requirements-nodeps.txt")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the project, which a build fills with folders of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in PARTS:
        source, target = REPOSITORY / name, folder / "project" / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(folder / "project")], check=True)  # noqa: S603
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def command(wheel: Path) -> Path:
    """The command `livestock` of an environment that has the wheel, and all other packages from the one that tests."""
    environment = wheel.parent / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)  # noqa: S603
    python = environment / "bin/python"
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())  # noqa: S603
    (own / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files, an editable
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]  # install, are not read
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)  # noqa: S603
    return environment / "bin/livestock"


def call(command: Path, folder: Path, *arguments: str) -> str:
    """What the command prints in this folder, away from the repository."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LIVESTOCK_SOURCE")}
    shared = Path(sys.prefix) / "share/jupyter"  # nbconvert's templates, which pip puts beside the interpreter
    done = subprocess.run([str(command), *arguments], cwd=folder, capture_output=True, text=True,  # noqa: S603
                          env={**kept, "JUPYTER_PATH": str(shared)})
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def test_the_wheel_holds_what_comes_with_the_code(wheel: Path) -> None:
    held = {name.removeprefix("livestock/resources/") for name in zipfile.ZipFile(wheel).namelist()
            if name.startswith("livestock/resources/")}
    assert held == {"competition.yaml", "keypoints.yaml", "requirements.txt", "requirements-nodeps.txt",
                    *(f"hyp/{path.name}" for path in (REPOSITORY / "hyp").glob("*.yaml")),
                    *(f"notebooks/{path.name}" for path in (REPOSITORY / "notebooks").glob("*.ipynb"))}
    with zipfile.ZipFile(wheel) as content:  # the files, not links to them
        assert content.read("livestock/resources/competition.yaml") == (REPOSITORY / "competition.yaml").read_bytes()


def test_a_run_from_the_wheel_in_a_folder_of_its_own(command: Path, tmp_path: Path) -> None:
    decoy = tmp_path / "src/livestock/__init__.py"  # what a notebook by hand would take for the project
    decoy.parent.mkdir(parents=True)
    decoy.write_text("raise RuntimeError('not the installed package')\n")
    call(command, tmp_path, "sample", "barns", "--n-train", "24", "--n-test", "6", "--scale", "0.15")
    assert "24 images" in call(command, tmp_path, "read", "barns/train")
    skipped = [f"--skip={name}" for name in ("03_evolve", "05_errors", "06_silver", "07_final")]
    call(command, tmp_path, "run", "--profile=smoke", "--data=barns", "--workspace=ws", "--set=epochs=2",
         "--set=hyp.lr0=0.001", *skipped)
    assert (tmp_path / "ws/answer.csv").read_text().startswith("ImageID,LabelName,Conf,XMin,XMax,YMin,YMax\n")
    [history] = (tmp_path / "ws/runs").glob("train_fold0_*/history.jsonl")
    assert len(history.read_text().splitlines()) == 2  # a line an epoch
    [hyp] = (tmp_path / "ws/interim").glob("hyp_demo_*.yaml")
    assert "lr0: 0.001\n" in hyp.read_text()
    assert "answer.csv" in call(command, tmp_path, "trace", "--workspace=ws")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["barns", "src", "ws"]


def test_what_needs_the_repository_says_so(command: Path, tmp_path: Path) -> None:
    done = subprocess.run([str(command), "run", "--publish"], cwd=tmp_path, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 2
    assert done.stderr.startswith("livestock: --publish: expected a git checkout of the project, found the installed ")
