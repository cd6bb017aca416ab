"""Runs the notebooks in order, keeps executed copies as HTML behind one index page, and sums up the result."""

from __future__ import annotations

import ast
import base64
import contextlib
import gc
import html
import importlib.util
import io
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import nbformat
from nbformat import NotebookNode
from PIL import Image

from ..config import REPOSITORY, require_checkout, resource
from ..files.disk import check_disk_space, used_bytes
from ..files.progress import unwatched
from ..files.write import write_bytes, write_json, write_text
from .answer import images_to_answer, score_known_truth, submitted_weights
from .expectation import expect
from .planning import describe_plan, plan_run
from .preflight import prepare_run
from .run import Run, read_kept_plan, save_settings

logger = logging.getLogger(__name__)

NOTEBOOKS_DIR = resource("notebooks")
SOURCE = Path(__file__).resolve().parents[2]  # the folder that holds the package: a checkout's `src`, or site-packages
SOURCE_NAME = "LIVESTOCK_SOURCE"  # the variable in which the notebooks' first cell looks for it
RUNS_NOTEBOOKS = ("papermill", "nbconvert", "ipykernel")  # the extra `run`: notebooks run by hand do without it
INTERRUPT_AGAIN = 30.0  # seconds after an interrupt that came to nothing; a kernel ends within 10
ANSWERS = "08_inference"  # the notebook that writes the answer
# run by themselves: they answer questions, and no competition
EXPERIMENTS = ("09_detectors", "10_heatmap", "11_pose", "12_yolo_pose")
MAIN_FIGURE = "main-figure"  # cells with this tag show their figure on the index page


def run_all(
    parameters: dict[str, Any], *, skip: Sequence[str] = (), only: Sequence[str] = (), publish: bool = False
) -> dict[str, Any]:
    """The notebooks with these parameters, then the index page and the closing lines; returns the result.

    `skip` names notebooks to leave out, such as `03_evolve`; with `only` no others run than these, such as
    `09_detectors`, an experiment that no answer needs. `publish` puts the outputs into the committed notebooks.
    Reads the data and checks all that the trainings rest on first; NotReadyError lists what is wrong with any of it.
    Then says how much disk the run is expected to take; DiskSpaceError if the disk has not so much. With a budget of
    hours the plan is shown, the first time after it was measured, and what it leaves out is skipped unless it is asked
    for with `only`: see `planning`.
    Relative paths in the parameters begin at the current directory. What the run is told is kept in the workspace's
    `run.yaml`, from which the notebooks take what they have no parameter for: hyper-parameters, overrides.
    """
    if publish:
        require_checkout("--publish")
    notebooks = choose_notebooks(parameters, skip, only)
    run, _ = prepare_run(parameters, [path.stem for path in list_notebooks() if path not in notebooks])
    save_settings(run)
    if run.profile.budget_hours:
        run, plan, pace = plan_run(run, measures=not read_kept_plan(run))
        logger.info(describe_plan(run, plan, pace))
        notebooks = {path: own for path, own in notebooks.items() if only or path.stem not in plan.skip}
    told = notebook_parameters(run)
    for own in notebooks.values():
        own.update({name: told[name] for name in own if name in told})
    run_dir = run.workspace.runs_dir / "_".join([run.profile.name, *only])
    expected = expect(run, {path.stem: own for path, own in notebooks.items()})
    logger.info(expected)
    there = sum(used_bytes(directory) for directory in (run.workspace.yolo_dir, run.workspace.runs_dir))
    check_disk_space(run.workspace.root, max(expected.disk_bytes - there, 0))
    executed = run_notebooks(notebooks, run_dir)
    result = summarise(run, parameters, executed)
    index = write_index(result, executed, run_dir)
    if publish:
        publish_outputs(executed)
    for row in result["scores"]:
        where = f"IoU {row['IoU']:g} on the {result['answered']} images, {row['scorer']} scorer"
        logger.info("mAP %.4f at %s", row["mAP"], where)
    if result["answer"]:
        logger.info("weights: %.2f MB, %s", result["weights_bytes"] / 1e6, ", ".join(result["weights"]))
        logger.info("answer: %s", result["answer"])
    logger.info("executed notebooks and figures: %s", index)
    return result


class Interrupted(KeyboardInterrupt):
    """The user has stopped a run; the message says in which notebook, and how it goes on."""


class NotebookFailed(ValueError):
    """A cell raised; the message says which notebook, what, and where its executed copy lies."""

PAGE_WIDTH = 900  # pixels of a figure with photographs in a committed notebook
LARGE_FIGURE = 100_000  # bytes of a PNG; plots stay below, grids of photographs do not


@dataclass(frozen=True)
class Executed:
    """A notebook that ran: its name, its executed copy and the seconds it took."""

    name: str
    notebook: NotebookNode
    seconds: float


def notebook_parameters(run: Run) -> dict[str, Any]:
    """What notebooks are told of a run, with whole paths; the rest they read in `run.yaml`."""
    said = run.settings
    return {"PROFILE": said.profile, "SEED": said.seed, "WORKSPACE": os.path.abspath(run.workspace.root),
            "DATA": said.data, "READER": said.reader, "COMPETITION": said.competition, "WEIGHTS": said.weights,
            "HYP": "", "FOLDS": run.folds}


def list_notebooks() -> list[Path]:
    """Every notebook, in order: the job's, from data to answer, and then the experiments."""
    return sorted(NOTEBOOKS_DIR.glob("[0-9][0-9]_*.ipynb"))


def choose_notebooks(
    parameters: Mapping[str, Any], skip: Sequence[str] = (), only: Sequence[str] = ()
) -> dict[Path, dict[str, Any]]:
    """The job's notebooks without those in `skip`, or `only` these, in order, each with its parameters.

    These are its own values, but for those in `parameters`. Raises ValueError for a name that no notebook has, for both
    `skip` and `only`, and for packages that run notebooks and are missing.
    """
    if missing := [name for name in RUNS_NOTEBOOKS if importlib.util.find_spec(name) is None]:
        raise ValueError(f"`livestock run` runs notebooks with {', '.join(missing)}, which is not installed: "
                         f"pip install {' '.join(missing)}, or run the notebooks by hand")
    import papermill

    paths = list_notebooks()
    for option, names in (("skip", skip), ("only", only)):
        if unknown := sorted(set(names) - {path.stem for path in paths}):
            raise ValueError(f"{option}: expected some of {[path.stem for path in paths]}, found {unknown[0]!r}")
    if skip and only:
        raise ValueError("expected notebooks to skip, or those to run only, found both")
    chosen = {}
    for path in paths:
        if path.stem in only or not (only or path.stem in skip or path.stem in EXPERIMENTS):
            known = papermill.inspect_notebook(str(path))  # FOLDS, say, is 04_train's alone
            own = {name: ast.literal_eval(item["default"]) for name, item in known.items()}
            chosen[path] = {name: parameters.get(name, value) for name, value in own.items()}
    return chosen


def run_notebooks(notebooks: Mapping[Path, dict[str, Any]], run_dir: Path) -> list[Executed]:
    """Executes the notebooks in order with their parameters; `run_dir` gets the copies, `.ipynb` and `.html`.

    Logs one line a notebook. Raises NotebookFailed for a cell that failed, whose copy stays in `run_dir`, and
    Interrupted for Ctrl-C: the kernel and what it started have then ended.
    """
    import papermill

    logging.getLogger("asyncio").addFilter(_is_news)
    run_dir.mkdir(parents=True, exist_ok=True)
    executed = []
    for number, (path, own) in enumerate(notebooks.items(), 1):
        started = time.monotonic()
        logger.info("[%d/%d] %s ...", number, len(notebooks), path.stem, extra={"end": " "})
        copy, interrupted = run_dir / path.name, False
        try:
            with unwatched(), insist_on_interrupts(), own_source():
                papermill.execute_notebook(
                    str(path), str(copy), parameters=own, cwd=str(Path.cwd()), kernel_name="python3",
                    progress_bar=False, log_output=False,
                )
        except papermill.PapermillExecutionError as error:
            _hide_password(copy, own)
            message = f"{path.stem}: {error.ename}: {error.evalue}\nThe cell that failed: {copy}"
            raise NotebookFailed(message) from error
        except KeyboardInterrupt:
            interrupted = True
        if interrupted:  # not above, where the error still holds what is to be forgotten
            logger.info("")
            _hide_password(copy, own)
            gc.collect()
            raise Interrupted(f"interrupted in {path.stem}; run the same command again to go on")
        _hide_password(copy, own)
        seconds = time.monotonic() - started
        logger.info("%.0f s", seconds)
        notebook = nbformat.read(copy, as_version=4)
        write_text(_to_html(notebook, path.stem), copy.with_suffix(".html"))
        executed.append(Executed(path.stem, notebook, seconds))
    return executed


@contextlib.contextmanager
def own_source() -> Iterator[None]:
    """Kernels that start in the block import this very package, not another that lies where they run."""
    before = os.environ.get(SOURCE_NAME)
    os.environ[SOURCE_NAME] = str(SOURCE)
    try:
        yield
    finally:
        os.environ.pop(SOURCE_NAME)
        if before is not None:
            os.environ[SOURCE_NAME] = before


@contextlib.contextmanager
def insist_on_interrupts() -> Iterator[None]:
    """Raises KeyboardInterrupt for Ctrl-C as usual, and again after `INTERRUPT_AGAIN` seconds if the block still runs.

    Python drops an exception that is raised while a destructor or a C library's callback runs, and a notebook's client
    spends its time in such callbacks: one interrupt can come to nothing, and the run would go on.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, INTERRUPT_AGAIN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGALRM)}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_news(record: logging.LogRecord) -> bool:
    """False for a cell's error that asyncio calls "never retrieved", 160 lines after an interrupt.

    An interrupt ends the wait for a cell before its error arrives, which asyncio prints when the task is forgotten, on
    a busy machine as late as at the process's end. Errors of cells that are waited for are raised by papermill.
    """
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ != "CellExecutionError"


def _hide_password(copy: Path, own: Mapping[str, Any]) -> None:
    """Takes the password of a database's URL out of an executed copy, whose first cells hold the parameters."""
    from ..search.storage import without_password

    storage = own.get("STORAGE", "")
    hidden = without_password(storage)
    if copy.exists() and hidden != storage:
        spelt = {spell(storage)[1:-1]: spell(hidden)[1:-1] for spell in (json.dumps, repr)} | {storage: hidden}
        write_json(_replace(json.loads(copy.read_text(encoding="utf-8")), spelt), copy)


def _replace(content: Any, texts: Mapping[str, str]) -> Any:
    """What JSON holds, with these texts replaced in all of its texts."""
    if isinstance(content, dict):
        return {key: _replace(value, texts) for key, value in content.items()}
    if isinstance(content, list):
        return [_replace(value, texts) for value in content]
    if isinstance(content, str):
        for found, replacement in texts.items():
            content = content.replace(found, replacement)
    return content


def _to_html(notebook: NotebookNode, title: str) -> str:
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter().from_notebook_node(notebook, resources={"metadata": {"name": title}})
    return body


def summarise(run: Run, parameters: dict[str, Any], executed: list[Executed]) -> dict[str, Any]:
    """What a run ended with: scores where the truth is known, the weights' size, files, seconds a notebook."""
    from ..search.storage import without_password

    has_answer = any(item.name == ANSWERS for item in executed)
    _, part = images_to_answer(run)
    scores, weights = (score_known_truth(run, part), submitted_weights(run)) if has_answer else (None, [])
    return {
        "answered": part,
        "scores": [] if scores is None else scores.round(5).to_dict("records"),
        "answer": str(run.workspace.answer_path) if has_answer else "",
        "weights": [str(path) for path in weights],
        "weights_bytes": sum(path.stat().st_size for path in weights),
        "seconds": {item.name: round(item.seconds, 1) for item in executed},
        "parameters": {**parameters, **({"STORAGE": without_password(parameters["STORAGE"])}
                                        if "STORAGE" in parameters else {})},
    }


def write_index(result: dict[str, Any], executed: list[Executed], run_dir: Path) -> Path:
    """Writes `result.json` and `index.html`: scores, the weights' size, the main figures, links to the notebooks."""
    write_json(result, run_dir / "result.json")
    scores = "".join(
        f"<div class=tile><b>{row['mAP']:.4f}</b>mAP at IoU {row['IoU']:g}<br>{row['scorer']} scorer</div>"
        for row in result["scores"]
    )
    tiles = scores
    if result["weights_bytes"]:
        tiles += f"<div class=tile><b>{result['weights_bytes'] / 1e6:.2f} MB</b>weights</div>"
    rows = "".join(
        f'<li><a href="{item.name}.html">{item.name}</a> <span>{item.seconds:.0f} s</span></li>' for item in executed
    )
    figures = "".join(
        f'<figure><img alt="{item.name}" src="data:image/png;base64,{png}"><figcaption>'
        f'<a href="{item.name}.html">{item.name}</a></figcaption></figure>'
        for item in executed
        for png in _main_figures(item.notebook)
    )
    page = INDEX.format(title=html.escape(run_dir.name), tiles=tiles, rows=rows, figures=figures)
    path = run_dir / "index.html"
    write_text(page, path)
    return path


def _main_figures(notebook: NotebookNode) -> list[str]:
    return [
        output["data"]["image/png"]
        for cell in notebook.cells
        if MAIN_FIGURE in cell.metadata.get("tags", [])
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def publish_outputs(executed: list[Executed]) -> None:
    """Puts the outputs of a run into the committed notebooks, without what changes from run to run.

    Figures are reduced to 256 colours, a third of their size; the main ones also go to `docs/` for the README. What is
    still large holds photographs and becomes a JPEG, so that all notebooks together stay below 4 MB.
    """
    for item in executed:
        path, n_main = NOTEBOOKS_DIR / f"{item.name}.ipynb", 0
        committed = nbformat.read(path, as_version=4)
        ran = {cell.id: cell for cell in item.notebook.cells}
        for cell in committed.cells:
            if cell.cell_type != "code":
                continue
            cell.outputs = [output for output in ran[cell.id].outputs if output.get("name") != "stderr"]  # bars
            cell.execution_count = None
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = None
                if "image/png" not in output.get("data", {}):
                    continue
                small = _reduce_colours(base64.b64decode(output["data"]["image/png"]))
                if len(small) > LARGE_FIGURE:
                    output["data"]["image/jpeg"] = base64.b64encode(_to_jpeg(output["data"].pop("image/png"))).decode()
                else:
                    output["data"]["image/png"] = base64.b64encode(small).decode()
                if MAIN_FIGURE in cell.metadata.get("tags", []):
                    n_main += 1
                    name = f"{item.name}_{n_main}.png" if n_main > 1 else f"{item.name}.png"
                    write_bytes(small, REPOSITORY / "docs" / name)
        nbformat.write(committed, path)


def _to_jpeg(png: str) -> bytes:
    """A figure, base64, as a JPEG that is not wider than a page."""
    content = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        page = picture.convert("RGB")
        page.thumbnail((PAGE_WIDTH, 10 * PAGE_WIDTH))
        page.save(content, "JPEG", quality=60, optimize=True, progressive=True)
    return content.getvalue()


def _reduce_colours(png: bytes) -> bytes:
    """The same picture with a palette of 256 colours."""
    with Image.open(io.BytesIO(png)) as picture:
        reduced = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    content = io.BytesIO()
    reduced.save(content, "PNG", optimize=True)
    return content.getvalue()


INDEX = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222 }}
.tiles {{ display: flex; flex-wrap: wrap; gap: 1rem }}
.tile {{ background: #f3f5f7; border-radius: 8px; padding: .8rem 1.2rem; color: #555 }}
.tile b {{ display: block; font-size: 1.6rem; color: #111 }}
figure {{ margin: 2rem 0 }} img {{ max-width: 100% }} figcaption, li span {{ color: #777 }}
</style>
<h1>Run: {title}</h1>
<div class="tiles">{tiles}</div>
<h2>Notebooks</h2><ol>{rows}</ol>
<h2>Main figures</h2>{figures}
</html>
"""
