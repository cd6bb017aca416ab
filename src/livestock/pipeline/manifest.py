"""`manifest.json`: what leads from `answer.csv` back to its thresholds, weights, trainings, settings and data."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ..config import REPOSITORY, Workspace
from ..files.hashing import MANIFEST_DIR, fingerprint, hash_content
from ..files.write import write_json
from .answer import Inference
from .data import Run
from .passes import candidates_path, oof_file, trained_folds

LONG = 20  # items of a list in a step's settings from which the manifest has their number and hash instead


def manifest_path(workspace: Workspace) -> Path:
    """Where the manifest lies."""
    return workspace.root / "manifest.json"


def read_manifest(workspace: Workspace) -> dict[str, Any]:
    """What `record` has written so far, nothing where there is no manifest."""
    path = manifest_path(workspace)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def record(workspace: Workspace, key: str, content: Mapping[str, Any]) -> Path:
    """Puts `content` into the manifest in the place of what was there under this key."""
    path = manifest_path(workspace)
    write_json({**read_manifest(workspace), key: content}, path)
    return path


def record_answer(run: Run, inference: Inference, weights: Iterable[Path], part: str, scores: pd.Series) -> Path:
    """Writes down where `answer.csv` came from, under `answer`; `scores` are its method's, out of fold.

    `steps` are those that led to it and no others, each with what it was made from, what it wrote and its seconds:
    hashes lead from one to the next, from the candidates to the raw data.
    """
    answer, weights = run.workspace.answer_path, list(weights)
    answered = [candidates_path(run, f"{name}_{part}{number or ''}")
                for name in inference.passes for number in range(len(weights))]
    judged = [candidates_path(run, oof_file(name, fold, bool(inference.final)))
              for name in inference.passes for fold in trained_folds(run)]
    chain = find_chain(run.workspace, [fingerprint(path) for path in [*weights, *answered, *judged]])
    rows = pd.read_csv(answer, usecols=["ImageID"])
    return record(run.workspace, "answer", {
        "file": answer.name,
        "sha256": fingerprint(answer),
        "rows": len(rows),
        "images": f"{rows['ImageID'].nunique()} {part} images with boxes",
        "inference": yaml.safe_load((run.workspace.root / "inference.yaml").read_text(encoding="utf-8")),
        "out of fold": {name: float(scores[name]) for name in ("mAP", "low", "high")},
        "weights": {path.name: {"sha256": fingerprint(path), "step": _writer(chain, fingerprint(path))}
                    for path in weights},
        "candidates": {path.name: fingerprint(path) for path in answered},
        "run": {"seed": run.seed, "reader": run.reader, "data": str(run.data_dir),
                "data_hash": fingerprint(run.data_dir, run.workspace.root),
                "profile": asdict(run.profile), "competition": asdict(run.competition)},
        "code": describe_code(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "steps": {name: {**step, "settings": _shorten(step["settings"])} for name, step in chain.items()},
    })


def find_chain(workspace: Workspace, hashes: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The records of the steps that wrote what has these hashes, of those that wrote what they read, and so on."""
    directory = workspace.interim_dir / MANIFEST_DIR
    steps = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))]
    chain: dict[str, dict[str, Any]] = {}
    wanted = set(hashes)
    while found := [step for step in steps if step["step"] not in chain and wanted & set(step["outputs"].values())]:
        for step in found:
            chain[step["step"]] = step
            wanted |= set(step["inputs"].values())
    return chain


def _writer(chain: Mapping[str, Mapping[str, Any]], content: str) -> str | None:
    return next((name for name, step in chain.items() if content in step["outputs"].values()), None)


def _shorten(settings: Any) -> Any:
    """Settings without long lists, such as the names of 16,000 images."""
    if isinstance(settings, dict):
        return {key: _shorten(value) for key, value in settings.items()}
    if isinstance(settings, list) and len(settings) > LONG:
        return {"n": len(settings), "sha256": hash_content(settings)}
    return settings


def describe_code() -> dict[str, Any]:
    """Python, the machine, the packages that the project asks for, and the commit with whether files differ from it."""
    names = [re.split(r"[\[<>=~! ]", line)[0] for file in ("requirements.txt", "requirements-nodeps.txt")
             for line in (REPOSITORY / file).read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    return {"python": platform.python_version(), "machine": platform.platform(), "commit": _git("rev-parse", "HEAD"),
            "changed": _git("status", "--porcelain", "--", "src", "hyp", "competition.yaml"),
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


def trace_answer(workspace: Workspace) -> list[str]:
    """Where `answer.csv` came from, in lines to print, from the manifest alone.

    Raises ValueError if there is no manifest of an answer, or if `answer.csv` or a weights file is another.
    """
    path, answer = manifest_path(workspace), read_manifest(workspace).get("answer")
    if answer is None:
        raise ValueError(f"{path}: says nothing of an answer yet; run 08_inference first")
    files = {answer["file"]: answer["sha256"], **{name: of["sha256"] for name, of in answer["weights"].items()}}
    for name, content in files.items():
        file = workspace.root / name
        if not file.exists() or fingerprint(file) != content:
            raise ValueError(f"{file}: expected the one that {path.name} is of, found "
                             f"{'another' if file.exists() else 'none'}; run 08_inference again")
    run, code, steps, points = answer["run"], answer["code"], answer["steps"], answer["inference"]["points"]
    thresholds = "; ".join(f"{label}: " + ", ".join(f"{name} {value:g}" for name, value in point.items())
                           for label, point in points.items())
    low, score, high = (answer["out of fold"][name] for name in ("low", "mAP", "high"))
    lines = [
        f"{answer['file']}: {answer['rows']:,} rows, {answer['images']}, {answer['sha256'][:19]}, {answer['written']}",
        f"thresholds: {answer['inference']['method']}; {thresholds}",
        f"out of fold: mAP {score:.4f}, 95 % interval {low:.4f} to {high:.4f}",
    ]
    for name, of in answer["weights"].items():
        lines.append(f"{name}: {of['sha256'][:19]}, written by {of['step']}")
    for name, step in steps.items():
        if name.startswith("train_"):
            lines.append(f"{name}: {_describe_training(step)}")
    changed = f", {len(code['changed'].splitlines())} files changed since" if code["changed"] else ""
    return [*lines, f"data: {run['data']} ({run['reader']}), {run['data_hash'][:19]}",
            f"run: profile {run['profile']['name']}, seed {run['seed']}, {len(steps)} steps, "
            f"{sum(step['seconds'] for step in steps.values()) / 60:.1f} minutes",
            f"code: commit {(code['commit'] or 'unknown')[:12]}{changed}, Python {code['python']}, "
            f"torch {code['packages']['torch']}, yolov5 {code['packages']['yolov5']}"]


def _describe_training(step: Mapping[str, Any]) -> str:
    settings = step["settings"]
    return (f"{settings['epochs']} epochs at {settings['imgsz']} px from {Path(settings['weights']).name}, "
            f"{Path(settings['hyp']).name}, seed {settings['seed']}, {step['seconds'] / 60:.1f} minutes")
