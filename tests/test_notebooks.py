"""The notebooks keep their rules, and run top to bottom on a stand-in for Colab, also after a lost session."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat import NotebookNode

from livestock.config import REPOSITORY
from livestock.sample import draw_sample

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb"))
URL = "https://github.com/livestock-detection/livestock"


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> NotebookNode:
    """Each committed notebook, with its file name in the metadata."""
    node = nbformat.read(request.param, as_version=4)
    node.metadata["stem"] = request.param.stem
    return node


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells with code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebooks_of_the_job_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "01_eda", "02_split", "03_evolve", "04_train", "05_errors", "06_silver", "07_final", "08_inference"]


def test_it_opens_with_purpose_and_badge(notebook: NotebookNode) -> None:
    first = notebook.cells[0].source
    assert first.startswith("# ")
    repository = "colab.research.google.com/github/livestock-detection/livestock"
    assert f"{repository}/blob/main/notebooks/{notebook.metadata.stem}.ipynb" in first
    assert "*Reads*" in first
    assert "*Writes*" in first
    assert "T4" in first


def test_set_up_is_the_same_everywhere(notebook: NotebookNode) -> None:
    own, shared = ([cell.source for cell in code_cells(node)[:3]] for node in
                   (notebook, nbformat.read(NOTEBOOKS[0], as_version=4)))
    assert (own[0], own[2]) == (shared[0], shared[2])
    assert own[1].startswith(shared[1])  # parameters of its own come after those that all share


def test_parameters_are_few_literals(notebook: NotebookNode) -> None:
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == [notebook.cells[2]]
    assignments = ast.parse(tagged[0].source).body
    assert len(assignments) <= 10
    for assignment in assignments:
        assert isinstance(assignment, ast.Assign)
        assert ast.unparse(assignment.targets[0]).isupper()
        ast.literal_eval(assignment.value)


def test_cells_are_short_and_define_nothing(notebook: NotebookNode) -> None:
    assert len(notebook.cells) <= 40
    for cell in code_cells(notebook):
        assert cell.source.count("\n") < 15, cell.source
        assert not re.search(r"^\s*(def|class)\s", cell.source, re.MULTILINE), cell.source


def test_code_stands_between_a_question_and_an_answer(notebook: NotebookNode) -> None:
    is_figure = [cell.cell_type == "code" and re.search(r"^(plots\.)?plot_\w+\(", cell.source, re.MULTILINE)
                 for cell in notebook.cells]
    figures = [index for index, found in enumerate(is_figure) if found]
    assert figures
    for index in figures:
        assert notebook.cells[index + 1].cell_type == "markdown", notebook.cells[index].source


def test_saved_outputs_are_clean(notebook: NotebookNode) -> None:
    for cell in code_cells(notebook):
        assert cell.execution_count is None
        assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in cell.outputs)


@pytest.fixture(scope="module")
def colab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like `/content`: a Drive with raw data behind the stand-in; the repository's address leads to it."""
    content = tmp_path_factory.mktemp("content of colab")  # with spaces
    origin = content / "origin"
    passed_over = shutil.ignore_patterns(".git", ".venv", "data", "*.egg-info", ".*_cache", "__pycache__")
    shutil.copytree(REPOSITORY, origin, ignore=passed_over)
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(origin), *command], check=True)  # noqa: S603, S607
    stand_in = content / "stand_in/google/colab"
    stand_in.mkdir(parents=True)
    (stand_in / "drive.py").write_text(
        "from pathlib import Path\n\n\ndef mount(path):\n"
        "    with open(Path(path).parent / 'mounts.txt', 'a') as file:\n        file.write('mounted\\n')\n"
        "    Path(path).symlink_to(Path(path).parent / 'behind_the_mount')\n"
    )
    draw_sample(content / "behind_the_mount/MyDrive/livestock/raw", seed=5, n_train=24, n_test=8, scale=0.15)
    return content


def run_on_colab(content: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """Executes notebooks as a Colab session would; returns all they printed."""
    monkeypatch.setenv("COLAB_RELEASE_TAG", "stand-in")
    monkeypatch.setenv("LIVESTOCK_CONTENT", str(content))
    monkeypatch.setenv("PYTHONPATH", str(content / "stand_in"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{content / 'origin'}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", URL)
    printed = []
    for path in paths:
        copy = content / f"executed_{path.name}"
        fewer = {"N_SEEDS": 1} if path.stem == "06_silver" else {}  # of seven trainings three
        papermill.execute_notebook(str(path), str(copy), parameters={"PROFILE": "smoke", **fewer}, cwd=str(content),
                                   kernel_name="python3", progress_bar=False)
        cells = code_cells(nbformat.read(copy, as_version=4))
        printed += [output.text for cell in cells for output in cell.outputs if output.get("name") == "stdout"]
    return "".join(printed)


def test_on_colab_results_outlive_the_session(colab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_on_colab(colab, NOTEBOOKS, monkeypatch)
    assert "train_fold0: done before" not in first
    kept = colab / "behind_the_mount/MyDrive/livestock"
    answer = (kept / "answer.csv").read_bytes()
    assert answer.startswith(b"ImageID,LabelName,Conf,XMin,XMax,YMin,YMax\n")
    assert (colab / "mounts.txt").read_text() == "mounted\n"  # once for all notebooks of a session
    assert not (kept / "yolo").exists()  # images are made again rather than sent to Drive

    shutil.rmtree(colab / "livestock")  # the session is gone, and its disk with it
    (colab / "drive").unlink()
    (kept / "answer.csv").unlink()
    again = run_on_colab(colab, NOTEBOOKS[-2:], monkeypatch)
    assert "train_full_human: done before, skipped" in again
    assert "candidates_plain_fold0_averaged: done before, skipped" in again
    assert (kept / "answer.csv").read_bytes() == answer
