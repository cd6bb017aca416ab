"""The notebooks keep their rules."""

from __future__ import annotations

import ast
import re

import nbformat
import papermill
import pytest
from nbformat import NotebookNode

from livestock.cli.home import SET_UP, add_badge, read_home
from livestock.config import REPOSITORY
from livestock.pipeline.notebooks import EXPERIMENTS

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb"))


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
        "01_eda", "02_split", "03_evolve", "04_train", "05_errors", "06_silver", "07_final", "08_inference",
        "09_detectors", "10_heatmap", "11_pose", "12_yolo_pose"]


def test_it_opens_with_purpose_and_a_badge_if_the_project_has_an_address(notebook: NotebookNode) -> None:
    first = notebook.cells[0].source
    assert first.startswith("# ")
    assert first == add_badge(first, read_home(), f"{notebook.metadata.stem}.ipynb")
    assert "*Reads*" in first
    assert "*Writes*" in first
    assert "T4" in first


def test_set_up_is_the_same_everywhere(notebook: NotebookNode) -> None:
    own, shared = ([cell.source for cell in code_cells(node)[:3]] for node in
                   (notebook, nbformat.read(NOTEBOOKS[0], as_version=4)))
    assert own[0] == SET_UP.format(repository=read_home())
    plan = ["from livestock.pipeline.planning import show_plan\n", "\nrun = show_plan(run)"]  # of the job's notebooks
    assert own[2] == (shared[2].replace(plan[0], "").replace(plan[1], "") if notebook.metadata.stem in EXPERIMENTS
                      else shared[2])
    assert all(line in shared[2] for line in plan)
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


def test_papermill_reads_every_parameter(notebook: NotebookNode) -> None:
    """It reads lines by a pattern, and passes over one whose comment holds an equals sign, say."""
    assigned = {ast.unparse(line.targets[0]) for line in ast.parse(notebook.cells[2].source).body}
    path = REPOSITORY / f"notebooks/{notebook.metadata.stem}.ipynb"
    assert set(papermill.inspect_notebook(str(path))) == assigned


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


def test_committed_notebooks_are_small() -> None:
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 4_000_000


def test_saved_outputs_are_clean(notebook: NotebookNode) -> None:
    for cell in code_cells(notebook):
        assert cell.execution_count is None
        assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in cell.outputs)
        said = "".join(output.get("text", "") for output in cell.outputs)
        assert not re.search(r"(?<![\w.~:/-])/[\w.-]+/", said), "a place of the machine that ran it"
