"""What leads from `answer.csv`, or any other result, back to thresholds, weights, trainings, labels and raw data."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ..config import REPOSITORY, Workspace
from ..exceptions import MissingResult, StaleResult
from ..files.hashing import fingerprint
from .answer import images_to_answer, source_weights
from .predict import answer_paths, prediction_paths, trained_folds
from .run import Run
from .select import Inference
from .store import LINEAGE, Record, add_record, find_record, place_of, trace

ANSWER = "answer"


def record_answer(run: Run, inference: Inference, weights: list[Path], part: str, scores: pd.Series) -> Path:
    """Adds to the lineage where `answer.csv` came from; `scores` are its method's, out of fold. Returns its file."""
    root, answer = run.workspace.root, run.workspace.answer_path
    to_answer, _ = images_to_answer(run)
    inputs = [*source_weights(run, inference), *answer_paths(run, inference.passes, to_answer, weights),
              *prediction_paths(run, inference.passes, trained_folds(run), averaged=bool(inference.final))]
    rows = pd.read_csv(answer, usecols=["ImageID"])
    settings = yaml.safe_load((root / "inference.yaml").read_text(encoding="utf-8"))
    add_record(root, Record(
        ANSWER, fingerprint(answer), {place_of(path, root): fingerprint(path) for path in (answer, *weights)},
        {place_of(path, root): fingerprint(path) for path in inputs}, settings=settings, by="08_inference",
        notes={
            "rows": len(rows), "images": f"{rows['ImageID'].nunique()} {part} images with boxes",
            "out of fold": {name: float(scores[name]) for name in ("mAP", "low", "high")},
            "run": {"seed": run.seed, "reader": run.reader, "profile": asdict(run.profile),
                    "competition": asdict(run.competition)},
            "code": describe_code(),
        }))
    return root / LINEAGE


def describe_code() -> dict[str, Any]:
    """Python, the machine, the packages that the project asks for, and the commit with whether files differ from it."""
    names = [re.split(r"[\[<>=~! ]", line)[0] for file in ("requirements.txt", "requirements-nodeps.txt")
             for line in (REPOSITORY / file).read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    return {"python": platform.python_version(), "machine": platform.platform(), "commit": _git("rev-parse", "HEAD"),
            "changed": _git("status", "--porcelain", "--", "src", "hyp", "competition.yaml", "keypoints.yaml"),
            "packages": {name: _version(name) for name in sorted(names)}}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:  # two packages bring cv2, and one of them is enough
        return None


def _git(*arguments: str) -> str | None:
    """What git prints; None without git, or where the project was not cloned."""
    git = shutil.which("git")
    if git is None or not (REPOSITORY / ".git").exists():
        return None
    done = subprocess.run(  # noqa: S603 - fixed arguments
        [git, "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def describe_trace(workspace: Workspace, path: Path | None = None) -> list[str]:
    """Where a result came from, `answer.csv` if none is named, in lines to print, from the lineage alone.

    A line a step, from the last one back to the raw data. Raises MissingResult if the lineage says nothing of it, and
    StaleResult if the file, or the weights of an answer, are others than the ones that were recorded.
    """
    root, path = workspace.root, path or workspace.answer_path
    record = find_record(root, path)
    if record is None:
        raise MissingResult(f"{root / LINEAGE}: says nothing of {path.name} yet; run "
                            f"{'08_inference' if path == workspace.answer_path else 'what writes it'} first")
    for place, content in record.outputs.items():
        file = root / place
        if not file.exists() or fingerprint(file) != content:
            raise StaleResult(f"{file}: expected the one that {LINEAGE} is of, found "
                              f"{'another' if file.exists() else 'none'}; run {record.by or 'its step'} again")
    steps = trace(root, [place_of(path, root)])
    lines = _describe_answer(record) if record.step == ANSWER else []
    return [*lines, *(_describe_step(step) for step in steps if step.step != ANSWER)]


def _describe_answer(record: Record) -> list[str]:
    notes, run, code = record.notes, record.notes["run"], record.notes["code"]
    thresholds = "; ".join(f"{label}: " + ", ".join(f"{name} {value:g}" for name, value in point.items())
                           for label, point in record.settings["points"].items())
    low, score, high = (notes["out of fold"][name] for name in ("low", "mAP", "high"))
    changed = f", {len(code['changed'].splitlines())} files changed since" if code["changed"] else ""
    return [
        f"answer.csv: {notes['rows']:,} rows, {notes['images']}, {record.outputs['answer.csv'][:19]}, "
        f"{record.finished}",
        f"thresholds: {record.settings['method']}; {thresholds}",
        f"out of fold: mAP {score:.4f}, 95 % interval {low:.4f} to {high:.4f}",
        f"run: profile {run['profile']['name']}, seed {run['seed']}, reader {run['reader']}",
        f"code: commit {(code['commit'] or 'unknown')[:12]}{changed}, Python {code['python']}, "
        f"torch {code['packages']['torch']}, yolov5 {code['packages']['yolov5']}",
    ]


def _describe_step(record: Record) -> str:
    """One step: what it wrote, from what, and for a training with which settings."""
    wrote = ", ".join(f"{place} ({content[:15]})" for place, content in record.outputs.items())
    sources = ", ".join(f"{place} ({content[:15]})" for place, content in record.inputs.items())
    more = f"; {_describe_training(record)}" if "training" in record.notes else ""
    return f"{record.step}: {wrote} from {sources or 'nothing'}{more}"


def _describe_training(record: Record) -> str:
    settings: Mapping[str, Any] = record.notes["config"]
    return (f"{settings['epochs']} epochs at {settings['imgsz']} px from {Path(settings['weights']).name}, "
            f"{Path(settings['hyp']).name}, seed {settings['seed']}, {record.seconds / 60:.1f} minutes")
