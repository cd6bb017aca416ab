"""Searches compared: best fitness against epochs spent, on the embedded sample, a trial in seconds on a CPU.

python bench/evolve.py [--seeds 5] [--jobs 2]     about an hour on 2 cores; cut off, it goes on where it was

The original's operator (`genetic`: lr0, lrf, momentum), YOLOv5's own evolve (`yolov5`: the same operator over all its
hyper-parameters, as shipped, less its crash), random search, TPE, Gaussian processes and CMA-ES over the original's
three, each with and without pruning (a Gaussian process cannot be pruned, see `search.py`). Every search spends the
same number of epochs; pruned ones get more trials for them. Seeds are of search and training; fitness is YOLOv5's on
the validation fold. Trials fork from a process that has loaded torch, so that the figures hold no loading. They start
from the starter checkpoint with every convolution weight multiplied by 1 + 0.2 * N(0, 1): the starter itself has
nothing left to learn here, and a search on it would compare noise.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
ROOT = REPOSITORY / "data/bench_evolve"
SAMPLERS = ["genetic", "yolov5", "random", "tpe", "gp", "cmaes"]
PRUNERS = ["none", "median"]
REFUSED = {("gp", "median")}
ORIGINAL = ("genetic", "none")
N_TRIALS, N_EPOCHS = 12, 5  # of an unpruned search
IMGSZ = 160
NOISE = 0.2
WEIGHTS = ROOT / "perturbed.pt"


def main() -> None:
    """Runs what has not run yet, then prints medians, intervals and the bench lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--one", nargs=3, metavar=("SAMPLER", "PRUNER", "SEED"))
    arguments = parser.parse_args()
    if arguments.one:
        search_once(arguments.one[0], arguments.one[1], int(arguments.one[2]))
        return
    prepare()
    wanted = [(s, p, str(seed)) for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)
              for s in arguments.samplers for p in PRUNERS if (s, p) not in REFUSED]
    running: list[subprocess.Popen] = []
    for name in (name for name in wanted if not result_path(*name).exists()):
        while sum(job.poll() is None for job in running) >= arguments.jobs:
            time.sleep(0.2)
        running.append(subprocess.Popen([sys.executable, __file__, "--one", *name]))  # noqa: S603 - this script
    if any(job.wait() for job in running):
        raise SystemExit("a search failed; its error is above")
    report(pd.concat([pd.read_json(result_path(*name)).assign(sampler=name[0], pruner=name[1], seed=int(name[2]))
                      for name in wanted]))


def result_path(sampler: str, pruner: str, seed: str | int) -> Path:
    """Where one search leaves its epochs."""
    return ROOT / f"results/{sampler}_{pruner}_{seed}.json"


def make_run(seed: int):
    """The sample at a size that makes a trial seconds; the same folds for all seeds."""
    from livestock.pipeline.run import make_run

    run = make_run(competition=str(REPOSITORY / "competition.yaml"), profile="demo", workspace=str(ROOT),
                            data=str(ROOT / "raw"), reader="aihub", seed=0, weights=str(WEIGHTS))
    profile = replace(run.profile, imgsz=IMGSZ, batch=8, nominal_batch=8, workers=0, trial_epochs=N_EPOCHS)
    return replace(run, profile=profile, seed=seed)


def prepare() -> None:
    """Start weights, sample, folds, images at training size and lists, once."""
    from livestock.pipeline import evolve
    from livestock.pipeline.prepare import read_data, split_data
    from livestock.pipeline.run import make_run
    from livestock.pipeline.train import write_dataset

    perturb_starter(WEIGHTS)
    run = make_run(0)
    tables, split = read_data(run), split_data(run)
    write_dataset(run, split.images, tables.boxes)
    evolve.write_search_lists(run, split)


def perturb_starter(path: Path, seed: int = 0) -> Path:
    """Writes the start weights: the starter, less good."""
    import torch

    from livestock.models.yolov5.weights import STARTER, load_checkpoint

    checkpoint, generator = load_checkpoint(STARTER), torch.Generator().manual_seed(seed)
    model = checkpoint["model"].float()
    for weight in model.parameters():
        if weight.ndim == 4:
            weight.data *= 1 + NOISE * torch.randn(weight.shape, generator=generator)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**checkpoint, "model": model.half()}, path)
    return path


def search_once(sampler: str, pruner: str, seed: int) -> None:
    """One search; writes a row an epoch: `trial`, `epoch`, `best` of the trial so far, `ended` and `overhead` in s."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.cpu_count = lambda: 1  # type: ignore[method-assign] # two searches share two cores
    import yolov5.train  # noqa: F401 - trials fork from here

    from livestock.models.yolov5 import training
    from livestock.pipeline import evolve
    from livestock.search import FITNESS, GENES, load, make_meta, read_hyp, run_trials, write_hyp
    from livestock.search.search import Search

    run = make_run(seed)
    data_yaml = next(ROOT.glob(f"yolo/{IMGSZ}_*/evolve.yaml"))
    start = {**read_hyp(REPOSITORY / "hyp/baseline.yaml"), "warmup_epochs": 0.0}  # it would outlast the trial
    names = [name for name in GENES if start[name] != 0] if sampler == "yolov5" else list(evolve.DEFAULT_META)
    rows: list[dict[str, float]] = []
    directory = ROOT / f"trials/{sampler}_{pruner}_{seed}"

    class SpentError(KeyboardInterrupt):
        """All epochs are spent."""

    def objective(
        values: dict[str, float], number: int, device: str, on_epoch: Callable[[Mapping[str, float]], None]
    ) -> None:
        if len(rows) >= N_TRIALS * N_EPOCHS:
            raise SpentError
        run_dir = directory / f"{number:04d}"
        write_hyp(values, run_dir / "values.yaml", ["a trial of the bench"])
        config = evolve._trial_config(run, data_yaml, run_dir / "values.yaml", "cpu")
        best = -1.0

        def keep(scores: Mapping[str, float]) -> None:
            nonlocal best
            best = max(best, FITNESS["yolov5"](scores))
            rows.append({"trial": number, "epoch": scores["epoch"], "best": best})
            if len(rows) > N_TRIALS * N_EPOCHS:
                raise SpentError
            on_epoch(scores)

        train_forked(training, config, run_dir, keep)

    search = Search(
        study="bench", storage=str(directory / "journal"), meta=make_meta(names, start), start=start, identity={},
        n_trials=10**6, epochs=N_EPOCHS, sampler="genetic" if sampler == "yolov5" else sampler, pruner=pruner,
        fitness="yolov5", seed=seed,
    )
    (directory / "journal").unlink(missing_ok=True)
    with contextlib.suppress(SpentError):
        run_trials(search, objective)
    table = pd.DataFrame(rows[: N_TRIALS * N_EPOCHS]).assign(overhead=overhead(load(search)))
    result_path(sampler, pruner, seed).parent.mkdir(parents=True, exist_ok=True)
    table.to_json(result_path(sampler, pruner, seed), orient="records")


def overhead(study) -> float:
    """Seconds a finished trial between one training and the next: asking, sampling, writing down."""
    trials = [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]
    between = [(later.datetime_start - trial.datetime_start).total_seconds() - trial.user_attrs["seconds"]
               for trial, later in itertools.pairwise(trials)]
    return float(np.median(between))


class Forked:
    """A forked training, with the two things of a subprocess that its watcher asks for."""

    returncode: int | None = None

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def train_forked(training, config, run_dir: Path, on_epoch) -> None:
    """What `yolov5.train` does, in a fork instead of a new process."""
    from dataclasses import asdict

    from livestock.models.yolov5 import child

    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.json").write_text(json.dumps(asdict(config)))
    (run_dir / "progress.jsonl").write_text("")
    pid = os.fork()
    if pid == 0:
        with open(run_dir / "train.log", "wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        status = 1
        try:
            child.main(run_dir)
            status = 0
        except SystemExit as error:
            status = int(error.code or 0)
        finally:
            os._exit(status)
    process = Forked(pid)
    try:
        with open(run_dir / "progress.jsonl", encoding="utf-8") as lines:
            while True:
                running = process.poll() is None
                for event in training._events(lines):
                    if "epoch" in event:
                        on_epoch(event["epoch"])
                if not running:
                    break
                time.sleep(0.02)
    finally:
        if process.poll() is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if process.returncode:
        raise RuntimeError((run_dir / "train.log").read_text()[-500:])


def report(epochs: pd.DataFrame) -> None:
    """Medians over seeds at equal epochs, what each search needs to reach the original's final fitness, bench lines."""
    epochs["spent"] = epochs.groupby(["sampler", "pruner", "seed"]).cumcount() + 1
    epochs["so_far"] = epochs.groupby(["sampler", "pruner", "seed"])["best"].cummax()
    final = epochs.groupby(["sampler", "pruner", "seed"])["so_far"].last().unstack("seed")
    target = final.loc[ORIGINAL]
    needed = {}
    for (sampler, pruner, seed), curve in epochs.groupby(["sampler", "pruner", "seed"]):
        reached = curve.loc[curve["so_far"] >= target[seed], "spent"]
        needed[sampler, pruner, seed] = reached.iloc[0] if len(reached) else np.inf
    spent = pd.Series(needed).unstack()
    trials = epochs.groupby(["sampler", "pruner", "seed"])["trial"].max().unstack("seed") + 1
    start = epochs.query("trial == 0").groupby("seed")["so_far"].max()
    table = pd.DataFrame({
        "median fitness": final.median(axis=1), "lowest": final.min(axis=1), "highest": final.max(axis=1),
        "gain over start": final.sub(start, axis=1).median(axis=1), "trials": trials.median(axis=1),
        "no worse than original": (final >= target - 1e-12).sum(axis=1),
        "epochs to its final": spent.median(axis=1),
        "share of its epochs": spent.median(axis=1) / (N_TRIALS * N_EPOCHS),
        "overhead": epochs.groupby(["sampler", "pruner"])["overhead"].median(),
    })
    print(table.round(4).sort_values("median fitness", ascending=False).to_string())
    n_seeds = final.shape[1]
    for name, row in table.iterrows():
        share, wins = row["share of its epochs"], row["no worse than original"]
        ok = wins >= 0.8 * n_seeds and share <= 0.5
        print(f"bench evolve-{name[0]}-{name[1]} ours={row['median fitness']:.4f} stock={target.median():.4f} "
              f"ratio={1 / share:.2f} bar=2 {'ok' if ok else 'short'} (no worse in {wins:.0f} of {n_seeds} seeds)")
    print(f"seconds between two trainings, of the slowest sampler: {table['overhead'].max():.2f} (to be under 1)")


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY / "src"))
    from livestock.models.yolov5 import compat

    compat.apply()
    main()
