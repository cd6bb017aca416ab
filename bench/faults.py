"""Damage done for real: killed runs, bad inputs, random inputs, and the memory of a run at the original's size.

python bench/faults.py           an hour and more on 2 cores
python bench/faults.py --short   some six minutes: the `smoke` profile, three notebooks, 80 small images; part of CI

`kills`: the run is killed with everything it started (SIGKILL, as when a session vanishes) at random moments spread
over all notebooks, and started again each time. After each kill every table must be readable; no step that had finished
may run again; the last run must score what an undisturbed one does, within the spread of trainings of several seeds.
Whether it comes to the very same answer.csv is said too: on one machine it does, and `--short`, which learns nothing
that could be scored, asks for it.
`inputs`: bad inputs and their outcomes (`tests/corpus*.py`, and every test that is marked `bad_input`). `fuzz`: valid
files damaged at random, and readers that must neither crash nor lose anything in silence (`tests/fuzz.py`). `memory`:
see `bench/memory.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import psutil
import yaml
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[1]
MARK = "LIVESTOCK_FAULTS"  # in the environment of all that a run starts
# Kills in each notebook, and the seconds within which one comes after the notebook has begun.
KILLS = {"01_eda": (2, 8), "02_split": (2, 6), "03_evolve": (6, 30), "04_train": (4, 25), "05_errors": (2, 10),
         "06_silver": (7, 75), "07_final": (3, 30), "08_inference": (4, 25)}
# At half the demo's size, so that there is time for all kills; the spread of three seeds is what kills may change.
SETTINGS = ("--set", "imgsz=160", "--set", "n_seeds=3")
SHORT_KILLS = {"01_eda": (1, 6), "04_train": (1, 8), "08_inference": (1, 8)}
SHORT_SKIPS = ("02_split", "03_evolve", "05_errors", "06_silver", "07_final")
SHORT_SPREAD = 0.0  # it has no trainings that differ by seed
READERS = ["aihub", "coco", "cvat", "voc", "yolo", "open_images", "coco keypoints", "yolo pose", "dlc", "cat_faces",
           "points_list", "pose_json"]  # `tests/fuzz.py` has the folders of each


def main() -> None:
    """Runs the parts that are asked for; exit code 1 if one falls short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["inputs", "fuzz", "memory", "kills"])
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="for `inputs`: the JUnit report of a run of all tests")
    parser.add_argument("--calm", type=Path, help="a workspace of the same code where `make demo` ended undisturbed")
    arguments = parser.parse_args()
    parts = {"kills": partial(measure_kills, calm=arguments.calm), "fuzz": measure_fuzz,
             "inputs": partial(measure_inputs, report=arguments.report),
             "memory": measure_memory}
    if not all([parts[name](arguments.short, arguments.seed) for name in arguments.parts]):
        raise SystemExit(1)


def print_faults(name: str, figures: str, ok: bool) -> bool:
    """The line of a part; returns `ok`."""
    print(f"bench faults-{name} {figures} {'ok' if ok else 'short'}", flush=True)
    return ok


def measure_kills(short: bool, seed: int, calm: Path | None = None) -> bool:
    """Kills a run as often as the plan says, then lets it end, and compares it with one that nothing disturbed."""
    profile, plan, skip = ("smoke", SHORT_KILLS, SHORT_SKIPS) if short else ("demo", KILLS, ())
    rng, n_rerun, torn, where = random.Random(seed), 0, [], []  # noqa: S311 - moments, no secrets
    with tempfile.TemporaryDirectory(prefix="livestock_faults_") as folder:
        run_until = partial(_run_until, profile=profile, skip=skip, data=draw_small(folder) if short else None)
        killed = Path(folder, "killed")
        for name, (n_kills, within) in plan.items():
            for _ in range(n_kills):
                before = finished_steps(killed)
                where.append(run_until(killed, notebook=name, seconds=rng.uniform(0.5, within)))
                n_rerun += count_changed(before, finished_steps(killed))
                torn += unreadable(killed)
                print(f"kill {len(where)}: {where[-1]}, {len(finished_steps(killed))} steps finished", flush=True)
        before = finished_steps(killed)
        run_until(killed)
        n_rerun += count_changed(before, finished_steps(killed))
        torn += unreadable(killed)
        if calm is None:
            calm = Path(folder, "calm")
            run_until(calm)
        scores = [test_score(workspace, profile) for workspace in (killed, calm)]
        same = (killed / "answer.csv").read_bytes() == (calm / "answer.csv").read_bytes()
        print(f"{len(where)} kills, {n_rerun} reruns, {len(torn)} torn, scores {scores}")
        spread = SHORT_SPREAD if short else score_spread(calm, profile)
        print("\n".join(torn))
    apart = abs(scores[0] - scores[1])
    n_asked = sum(n_kills for n_kills, _ in plan.values())
    n_real = sum(place != "the end" for place in where)
    return print_faults(
        "kills", f"survived={n_real} of={n_asked} notebooks={len(set(where) - {'the end'})} reruns={n_rerun} "
        f"torn={len(torn)} score={scores[0]:.4f} undisturbed={scores[1]:.4f} apart={apart:.4f} spread={spread:.4f} "
        f"same_answer={'yes' if same else 'no'}",
        n_real == n_asked and not n_rerun and not torn and apart <= spread and (same or not short))


def draw_small(folder: str) -> Path:
    """A sample that reads, trains and predicts in seconds, so that what is killed is not mostly waited for."""
    from livestock.sample import draw_sample

    draw_sample(Path(folder, "raw"), n_train=60, n_test=20, scale=0.2)
    return Path(folder, "raw")


def _run_until(
    workspace: Path, *, profile: str, skip: Sequence[str], data: Path | None, notebook: str = "", seconds: float = 0
) -> str:
    """Runs into `workspace`, until so long after this notebook has begun; returns the notebook where it was killed.

    `the end` if the run ended first, as it does without a notebook. Raises RuntimeError if the run fails by itself.
    """
    mark = f"{os.getpid()}_{time.monotonic_ns()}"
    command = [sys.executable, "-m", "livestock", "run", "--profile", profile, "--workspace", str(workspace),
               *(part for name in skip for part in ("--skip", name)), *(("--data", str(data)) if data else ()),
               *(() if profile == "smoke" else SETTINGS)]
    log = workspace.with_suffix(".log")
    with open(log, "w") as file:
        run = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, MARK: mark}, stdout=file,  # noqa: S603
                               stderr=subprocess.STDOUT)
    moment = None
    while run.poll() is None:
        begun = re.findall(r"^\[\d/\d\] (\w+)", log.read_text(), re.MULTILINE)
        if moment is None and notebook and begun and begun[-1] >= notebook:  # it may have been done before
            moment = time.monotonic() + seconds
        if moment is not None and time.monotonic() >= moment:
            kill_all(mark)
            run.wait()
            return begun[-1]
        time.sleep(0.05)
    if run.returncode:
        raise RuntimeError(f"a run failed by itself:\n{log.read_text()}")
    return "the end"


def kill_all(mark: str) -> None:
    """SIGKILL to everything that was started with this mark, also kernels and trainings in sessions of their own."""
    while found := [process for process in psutil.process_iter() if _is_marked(process, mark)]:
        for process in found:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(found, timeout=5)


def _is_marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def finished_steps(workspace: Path) -> dict[str, Any]:
    """The record of each finished step: when, from what, how long."""
    from livestock.pipeline.store import read_records

    return read_records(workspace)


def count_changed(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Steps that had finished and ran again, or were no longer taken for finished."""
    changed = [name for name, record in before.items() if after.get(name) != record]
    if changed:
        print(f"ran again: {', '.join(changed)}")
    return len(changed)


def unreadable(workspace: Path) -> list[str]:
    """Tables and records that cannot be read."""
    readers = {".parquet": pd.read_parquet, ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
               ".yaml": lambda path: yaml.safe_load(path.read_text(encoding="utf-8")), ".csv": pd.read_csv}
    torn = []
    for path in workspace.rglob("*"):
        if path.suffix in readers and not path.name.startswith(".") and "raw" not in path.parts:
            try:
                readers[path.suffix](path)
            except (ValueError, OSError, yaml.YAMLError) as error:
                torn.append(f"{path}: {error}")
    return torn


def test_score(workspace: Path, profile: str) -> float:
    """The usual mAP at the competition's IoU that the run says it has."""
    scores = json.loads((workspace / "runs" / profile / "result.json").read_text())["scores"]
    return next(row["mAP"] for row in scores if row["scorer"] == "usual" and row["IoU"] == 0.75)


def score_spread(workspace: Path, profile: str) -> float:
    """The largest difference on the test images of trainings with human labels, which differ by seed alone."""
    from livestock import inference
    from livestock.data.submission import from_rows, read_truth, to_rows
    from livestock.evaluation import evaluate
    from livestock.models.forward import load_for_inference
    from livestock.pipeline.prepare import TRUTH_NAME, read_images
    from livestock.pipeline.run import make_run
    from livestock.pipeline.train import Training, weights_named
    from livestock.postprocess import suppress

    run = make_run(competition=str(REPOSITORY / "competition.yaml"), profile=profile, workspace=str(workspace),
                   data=str(workspace / "raw"), reader="aihub", seed=42)
    images = read_images(run, "test_images")
    truth = read_truth(run.data_dir / TRUTH_NAME)
    scores = []
    for training in (Training("fold", 0), Training("student", seed=43), Training("student", seed=44)):
        model = load_for_inference(weights_named(run, training, averaged=True), "cpu")
        found = inference.find_candidates(model, images, run.competition.labels, imgsz=run.profile.imgsz).boxes
        answer = from_rows(to_rows(suppress(found), images))
        scores.append(evaluate(truth, answer, run.competition.metric_iou).mean)
    return max(scores) - min(scores)


def measure_inputs(short: bool, seed: int, report: Path | None = None) -> bool:
    """How many bad inputs, of the corpus and of the tests marked `bad_input`, came to what is written down there.

    `report` is that of a run of the tests, which then need not run again.
    """
    command = [sys.executable, "-m", "pytest", "-q", "tests", "-m", "bad_input and not long"]
    with tempfile.TemporaryDirectory() as folder:
        wanted = None
        if report is None:
            report = Path(folder, "report.xml")
            subprocess.run([*command, f"--junitxml={report}"], cwd=REPOSITORY, stdout=subprocess.DEVNULL,  # noqa: S603
                           check=False)
        else:
            listed = subprocess.run([*command, "--collect-only", "-o", "addopts="], cwd=REPOSITORY,  # noqa: S603
                                    capture_output=True, text=True, check=True).stdout
            wanted = {line.removeprefix("tests/").replace(".py::", "::", 1) for line in listed.splitlines()
                      if line.startswith("tests/")}
        cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314 - pytest's own
    outcome: dict[str, bool] = {}
    for case in cases:  # a picture is tried in a folder and in a zip
        if wanted is not None and f"{case.attrib['classname'].rpartition('.')[2]}::{case.attrib['name']}" not in wanted:
            continue
        name = f"{case.attrib['classname']} {re.sub(r'(folder|zip)-', '', case.attrib['name'])}"
        outcome[name] = outcome.get(name, True) and case.find("failure") is None and case.find("error") is None
    return print_faults("inputs", f"expected={sum(outcome.values())} of={len(outcome)}",
                        bool(outcome) and all(outcome.values()))


def measure_fuzz(short: bool, seed: int) -> bool:
    """Cases tried, and those that crashed or lost something in silence."""
    from fuzz import fuzz, fuzz_pictures

    n_labels, n_pictures = (100, 1000) if short else (2000, 20_000)
    jobs = [*(partial(fuzz, reader, n_labels) for reader in READERS), partial(fuzz_pictures, n_pictures)]
    failed = []
    for job in tqdm(jobs, desc="fuzz", unit="reader"):
        try:
            job(seed)
        except AssertionError as error:  # names the case
            failed.append(str(error))
    print("\n".join(failed))
    return print_faults("fuzz", f"cases={len(READERS) * n_labels + n_pictures} crashes={len(failed)}", not failed)


def measure_memory(short: bool, seed: int) -> bool:
    """The largest peak of `bench/memory.py`."""
    script = Path(__file__).with_name("memory.py")
    command = [sys.executable, str(script), *(["--images", "1000"] if short else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - our own script
    print(done.stdout, end="")
    peak = max(float(value) for value in re.findall(r"peak=([\d.]+)", done.stdout))
    return print_faults("memory", f"peak={peak:.0f}MB bar=2000MB", peak < 2000)


if __name__ == "__main__":
    sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY / "tests")]
    main()
