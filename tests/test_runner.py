"""The page behind a run, and what of a run goes into the committed notebooks."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from livestock.config import REPOSITORY
from livestock.pipeline import notebooks
from livestock.sample import draw_sample

SCORES = [{"scorer": "competition", "IoU": 0.75, "mAP": 0.54321, "pig": 0.6}]
RESULT = {"scores": SCORES, "weights_bytes": 3_760_000, "answered": "test"}


@pytest.fixture
def executed() -> notebooks.Executed:
    """A notebook with a progress bar, a printed line and two figures, one of them a main one."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "PNG")
    figure = new_output("display_data", {"image/png": base64.b64encode(content.getvalue()).decode()})
    cells = [
        new_code_cell("a", id="a", execution_count=7, outputs=[
            new_output("stream", name="stderr", text="50 %"), new_output("stream", name="stdout", text="done\n")]),
        new_code_cell("b", id="b", execution_count=8, outputs=[figure]),
        new_code_cell("c", id="c", outputs=[figure], metadata={"tags": [notebooks.MAIN_FIGURE]}),
        new_code_cell("e", id="e", outputs=[figure], metadata={"tags": [notebooks.MAIN_FIGURE]}),
        new_code_cell("d", id="d", outputs=[new_output("execute_result", {"text/plain": "1"}, execution_count=9)]),
    ]
    return notebooks.Executed("04_train", new_notebook(cells=cells), 12.3)


def test_the_index_shows_scores_size_and_main_figures(executed: notebooks.Executed, tmp_path: Path) -> None:
    page = notebooks.write_index(RESULT, [executed], tmp_path / "demo").read_text()
    assert "<b>0.5432</b>mAP at IoU 0.75<br>competition scorer" in page
    assert "<b>3.76 MB</b>" in page
    assert page.count("data:image/png;base64,") == 2
    assert 'href="04_train.html"' in page
    assert json.loads((tmp_path / "demo/result.json").read_text()) == RESULT


def test_published_outputs_are_free_of_what_changes(
    executed: notebooks.Executed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebooks, "REPOSITORY", tmp_path)
    monkeypatch.setattr(notebooks, "NOTEBOOKS_DIR", tmp_path / "notebooks")
    cells = [new_code_cell(cell.source, id=cell.id, metadata=cell.metadata) for cell in executed.notebook.cells]
    committed = new_notebook(cells=cells)
    (tmp_path / "notebooks").mkdir()
    nbformat.write(committed, tmp_path / "notebooks/04_train.ipynb")
    notebooks.publish_outputs([executed])
    published = nbformat.read(tmp_path / "notebooks/04_train.ipynb", as_version=4)
    assert [output.text for output in published.cells[0].outputs] == ["done\n"]
    assert [cell.execution_count for cell in published.cells] == [None] * 5
    assert published.cells[4].outputs[0].execution_count is None
    png = base64.b64decode(published.cells[1].outputs[0].data["image/png"])
    assert Image.open(io.BytesIO(png)).mode == "P"
    assert "image/jpeg" not in published.cells[1].outputs[0].data
    monkeypatch.setattr(notebooks, "LARGE_FIGURE", 1)
    notebooks.publish_outputs([executed])
    photographs = nbformat.read(tmp_path / "notebooks/04_train.ipynb", as_version=4).cells[1].outputs[0].data
    assert "image/png" not in photographs
    assert Image.open(io.BytesIO(base64.b64decode(photographs["image/jpeg"]))).format == "JPEG"
    assert sorted(path.name for path in (tmp_path / "docs").iterdir()) == ["04_train.png", "04_train_2.png"]


def test_a_failing_notebook_says_so_and_leaves_its_copy(tmp_path: Path) -> None:
    notebook = new_notebook(cells=[new_code_cell("raise ValueError('no pigs here')")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "01_broken.ipynb")
    message = r"01_broken: ValueError: no pigs here\nThe cell that failed: .*01_broken"
    with pytest.raises(notebooks.NotebookFailed, match=message):
        notebooks.run_notebooks({tmp_path / "01_broken.ipynb": {}}, tmp_path / "run")
    assert "no pigs here" in (tmp_path / "run/01_broken.ipynb").read_text()


def test_executed_notebooks_draw_no_bars(tmp_path: Path) -> None:
    code = ("from livestock.files.logs import show_messages; from livestock.files.progress import progress\n"
            "show_messages(); print(len(list(progress(range(300), 'hashes', unit='image'))))")
    notebook = new_notebook(cells=[new_code_cell(code)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "01_eda.ipynb")
    executed = notebooks.run_notebooks({tmp_path / "01_eda.ipynb": {}}, tmp_path / "run")
    said = {name: "".join(output.text for output in executed[0].notebook.cells[-1].outputs if output.name == name)
            for name in ("stdout", "stderr")}
    assert said["stdout"] == "300\n"
    assert [line.rpartition(", ")[0] or line for line in said["stderr"].splitlines()] == [
        "hashes: 300 images ...", "hashes: 300 images"]


def test_a_databases_password_does_not_stay_in_executed_copies(tmp_path: Path) -> None:
    cell = new_code_cell("STORAGE = ''", metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[cell, new_code_cell("print(len(STORAGE))")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "03_evolve.ipynb")
    storage = 'postgresql://me:s3cr"t@host/db'
    executed = notebooks.run_notebooks({tmp_path / "03_evolve.ipynb": {"STORAGE": storage}}, tmp_path / "run")
    assert executed[0].notebook.cells[-1].outputs[0].text == f"{len(storage)}\n"  # the kernel had the whole of it
    assert "me:***@host" in (tmp_path / "run/03_evolve.ipynb").read_text()
    for path in (tmp_path / "run").iterdir():
        assert "s3cr" not in path.read_text()


WAITS = """
import subprocess, sys
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
Path({pid!r}).write_text(str(child.pid))
try:
    child.wait()
finally:  # as a training ends with its notebook
    child.terminate()
    child.wait()
"""
COMMAND = """
from pathlib import Path
import typer
from livestock.pipeline import notebooks
from livestock.cli import _Group
from livestock.files.logs import show_messages
app = typer.Typer(cls=_Group)
app.callback()(show_messages)
app.command("go")(lambda: notebooks.run_notebooks({{Path({notebook!r}): {{}}}}, Path({run!r})))
app()
"""


def interrupt(command: list[str], is_time: Callable[[], bool], folder: Path) -> tuple[int, str, str]:
    """Starts a command, sends what Ctrl-C sends to its process group, and returns its exit code and what it printed."""
    with open(folder / "out", "w+") as out, open(folder / "err", "w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)  # noqa: S603
        try:
            deadline = time.monotonic() + 400
            while not is_time() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            assert process.poll() is None, (folder / "err").read_text()
            os.killpg(process.pid, signal.SIGINT)
            return process.wait(timeout=60), (folder / "out").read_text(), (folder / "err").read_text()
        finally:
            process.kill()


@pytest.mark.bad_input
def test_an_interrupt_is_one_line_and_leaves_no_process(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    notebook = new_notebook(cells=[new_code_cell(WAITS.format(pid=str(pid)))])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "04_train.ipynb")
    command = COMMAND.format(notebook=str(tmp_path / "04_train.ipynb"), run=str(tmp_path / "run"))
    code, out, err = interrupt([sys.executable, "-c", command, "go"], lambda: pid.exists() and pid.read_text() != "",
                               tmp_path)
    assert (code, out) == (130, "[1/1] 04_train ... \n")
    assert err == "livestock: interrupted in 04_train; run the same command again to go on\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


class InterruptsInItsDestructor:
    """Where Python reports an exception and drops it."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebooks, "INTERRUPT_AGAIN", 0.2)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
    dropped = False
    with pytest.raises(KeyboardInterrupt), notebooks.insist_on_interrupts():
        InterruptsInItsDestructor()
        dropped = True
        time.sleep(20)
    assert dropped
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.long
def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    draw_sample(tmp_path / "raw", n_train=16, n_test=4, scale=0.15)
    skipped = [f"--skip={name}" for name in ("03_evolve", "05_errors", "06_silver", "07_final")]
    command = [sys.executable, "-m", "livestock", "run", "--profile=smoke", "--data", str(tmp_path / "raw"),
               "--workspace", str(tmp_path / "ws"), "--competition", str(REPOSITORY / "competition.yaml"), *skipped]
    code, out, err = interrupt(command, lambda: any((tmp_path / "ws/runs").glob("train_fold0_*/progress.jsonl")),
                               tmp_path)
    assert code == 130
    assert out.endswith("04_train ... \n")
    *bars, last = err.splitlines()  # of the images that were read before the notebooks
    assert last == "livestock: interrupted in 04_train; run the same command again to go on"
    assert all("image/s]" in line or not line for line in bars), err
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)  # noqa: S607
    assert str(tmp_path) not in running.stdout
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert "read: done before, skipped" in done.stdout
    assert (tmp_path / "ws/answer.csv").exists()


def draw_squares(folder: Path, names: list[str], n_images: int) -> None:
    """YOLO data: bright squares of these classes in turn, three an image, and two test images."""
    rng = np.random.default_rng(0)
    for number in range(n_images + 2):
        part = "train" if number < n_images else "test"
        for below in ("images", "labels"):
            (folder / part / below).mkdir(parents=True, exist_ok=True)
        picture, lines = rng.integers(0, 90, (120, 160, 3), np.uint8), []
        for box in range(3):
            x, y = int(rng.integers(0, 115)), int(rng.integers(0, 80))
            picture[y : y + 40, x : x + 45] = rng.integers(100, 255, 3)
            label = (3 * number + box) % len(names)
            lines.append(f"{label} {(x + 22.5) / 160} {(y + 20) / 120} {45 / 160} {40 / 120}\n")
        Image.fromarray(picture).save(folder / part / f"images/{number:03d}.png")
        if part == "train":
            (folder / part / f"labels/{number:03d}.txt").write_text("".join(lines))
    (folder / "data.yaml").write_text(f"names: {names}\n")


@pytest.mark.long
@pytest.mark.parametrize(("n_classes", "metric_iou"), [(1, 0.95), (3, 0.5), (100, 0.75)])
def test_all_notebooks_run_for_other_metrics_and_numbers_of_classes(
    n_classes: int, metric_iou: float, tmp_path: Path
) -> None:
    names = [f"bird {number}" for number in range(n_classes)]
    draw_squares(tmp_path / "raw", names, 36 if n_classes < 100 else 170)  # five boxes of each class, one a fold
    (tmp_path / "birds.yaml").write_text(f"name: birds\nclasses: {names}\nmetric_iou: {metric_iou}\n")
    command = [sys.executable, "-m", "livestock", "run", "--profile=smoke", "--data", str(tmp_path / "raw"),
               "--reader=yolo", "--workspace", str(tmp_path / "ws"), "--competition", str(tmp_path / "birds.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(notebooks.choose_notebooks({}))}/" in done.stdout
    assert (tmp_path / "ws/answer.csv").read_text().startswith("ImageID,LabelName,Conf,XMin,XMax,YMin,YMax\n")


def test_notebooks_get_what_they_know_of_the_parameters() -> None:
    found = notebooks.choose_notebooks({"SEED": 7, "FOLDS": [1, 2]}, ["03_evolve"])
    chosen = {path.stem: own for path, own in found.items()}
    assert list(chosen)[:3] == ["01_eda", "02_split", "04_train"]
    assert {own["SEED"] for own in chosen.values()} == {7}
    assert chosen["04_train"]["FOLDS"] == [1, 2]
    assert "FOLDS" not in chosen["01_eda"]
    assert chosen["06_silver"]["STRATEGIES"] == ["complete"]  # its own value


def test_an_experiment_runs_when_it_is_asked_for_and_alone() -> None:
    assert [path.stem for path in notebooks.choose_notebooks({}, only=["09_detectors"])] == ["09_detectors"]
    assert not {path.stem for path in notebooks.choose_notebooks({})} & set(notebooks.EXPERIMENTS)
    with pytest.raises(ValueError, match="only: expected some of .*, found '09_detector'"):
        notebooks.choose_notebooks({}, only=["09_detector"])
    with pytest.raises(ValueError, match="expected notebooks to skip, or those to run only, found both"):
        notebooks.choose_notebooks({}, ["01_eda"], ["09_detectors"])


def test_a_notebook_that_is_not_there_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match="skip: expected some of .*'03_evolve'.*found '03_evolution'"):
        notebooks.choose_notebooks({}, ["03_evolution"])
