"""The page behind a run, and what of a run goes into the committed notebooks."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from livestock import runner

SCORES = [{"scorer": "competition", "IoU": 0.75, "mAP": 0.54321, "pig": 0.6}]
RESULT = {"scores": SCORES, "weights_bytes": 3_760_000, "answered": "test"}


@pytest.fixture
def executed() -> runner.Executed:
    """A notebook with a progress bar, a printed line and two figures, one of them a main one."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "PNG")
    figure = new_output("display_data", {"image/png": base64.b64encode(content.getvalue()).decode()})
    cells = [
        new_code_cell("a", id="a", execution_count=7, outputs=[
            new_output("stream", name="stderr", text="50 %"), new_output("stream", name="stdout", text="done\n")]),
        new_code_cell("b", id="b", execution_count=8, outputs=[figure]),
        new_code_cell("c", id="c", outputs=[figure], metadata={"tags": [runner.MAIN_FIGURE]}),
        new_code_cell("e", id="e", outputs=[figure], metadata={"tags": [runner.MAIN_FIGURE]}),
        new_code_cell("d", id="d", outputs=[new_output("execute_result", {"text/plain": "1"}, execution_count=9)]),
    ]
    return runner.Executed("04_train", new_notebook(cells=cells), 12.3)


def test_the_index_shows_scores_size_and_main_figures(executed: runner.Executed, tmp_path: Path) -> None:
    page = runner.write_index(RESULT, [executed], tmp_path / "demo").read_text()
    assert "<b>0.5432</b>mAP at IoU 0.75<br>competition scorer" in page
    assert "<b>3.76 MB</b>" in page
    assert page.count("data:image/png;base64,") == 2
    assert 'href="04_train.html"' in page
    assert json.loads((tmp_path / "demo/result.json").read_text()) == RESULT


def test_published_outputs_are_free_of_what_changes(
    executed: runner.Executed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "REPOSITORY", tmp_path)
    monkeypatch.setattr(runner, "NOTEBOOKS_DIR", tmp_path / "notebooks")
    cells = [new_code_cell(cell.source, id=cell.id, metadata=cell.metadata) for cell in executed.notebook.cells]
    committed = new_notebook(cells=cells)
    (tmp_path / "notebooks").mkdir()
    nbformat.write(committed, tmp_path / "notebooks/04_train.ipynb")
    runner.publish_outputs([executed])
    published = nbformat.read(tmp_path / "notebooks/04_train.ipynb", as_version=4)
    assert [output.text for output in published.cells[0].outputs] == ["done\n"]
    assert [cell.execution_count for cell in published.cells] == [None] * 5
    assert published.cells[4].outputs[0].execution_count is None
    png = base64.b64decode(published.cells[1].outputs[0].data["image/png"])
    assert Image.open(io.BytesIO(png)).mode == "P"
    assert sorted(path.name for path in (tmp_path / "docs").iterdir()) == ["04_train.png", "04_train_2.png"]


def test_a_failing_notebook_says_so_and_leaves_its_copy(tmp_path: Path) -> None:
    notebook = new_notebook(cells=[new_code_cell("raise ValueError('no pigs here')")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "01_broken.ipynb")
    message = r"01_broken: ValueError: no pigs here\nThe cell that failed: .*01_broken"
    with pytest.raises(runner.NotebookFailed, match=message):
        runner.run_notebooks({tmp_path / "01_broken.ipynb": {}}, tmp_path / "run")
    assert "no pigs here" in (tmp_path / "run/01_broken.ipynb").read_text()


def test_notebooks_get_what_they_know_of_the_parameters() -> None:
    found = runner.choose_notebooks({"SEED": 7, "FOLDS": [1, 2]}, ["03_evolve"])
    chosen = {path.stem: own for path, own in found.items()}
    assert list(chosen)[:3] == ["01_eda", "02_split", "04_train"]
    assert {own["SEED"] for own in chosen.values()} == {7}
    assert chosen["04_train"]["FOLDS"] == [1, 2]
    assert "FOLDS" not in chosen["01_eda"]
    assert chosen["06_silver"]["N_SEEDS"] == 3  # its own value


def test_a_notebook_that_is_not_there_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match="skip: expected some of .*'03_evolve'.*found '03_evolution'"):
        runner.choose_notebooks({}, ["03_evolution"])
