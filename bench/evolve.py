"""Searches compared: best fitness against epochs spent, on the embedded sample, a trial in seconds on a CPU.

python bench/evolve.py [--seeds 10] [--jobs 2]     about two hours on 2 cores; cut off, it goes on where it was
python bench/evolve.py --short                     shows in some two minutes that it works; its figures say nothing

CMA-ES (`cmaes`), the original's operator (`genetic`), TPE and random search over the original's three hyper-parameters,
lr0, lrf and momentum, and YOLOv5's own evolve (`yolov5`: the operator of `genetic` over all its hyper-parameters, as
shipped, less its crash). `--samplers` also takes `gp`, Gaussian processes, and `--pruners median` stops hopeless trials
early (a Gaussian process cannot be pruned, see `search.py`). Every search spends the same number of epochs, those of
trials that diverge included; pruned ones get more trials for them. Seeds are of search and training; fitness is
YOLOv5's on the validation fold.

The warm-up is one epoch of a trial's five, so that learning rate and momentum count in the other four. YOLOv5's own
loop warms up for at least 100 batches, which was the whole of such a trial. `yolov5`, which searches the warm-up too,
may lengthen it to half of a trial.

Trials fork from a process that has imported torch, one thread each, and write no weights. They start from the starter
checkpoint with every convolution weight multiplied by 1 + 0.2 * N(0, 1): the starter itself has nothing left to learn
here, and a search on it would compare noise. Each epoch goes into its study's journal below `data/bench_evolve/`, and
each finished study adds a line to `studies.jsonl` there; delete the folder to begin again. A trial that was cut off is
run again under another number, so the trials after it draw other values than those of an unbroken search.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from common import ONE_THREAD, train_forked, warm_up

if TYPE_CHECKING:
    import optuna

    from livestock.pipeline.run import Run

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLERS = ["cmaes", "genetic", "tpe", "random", "yolov5"]
FURTHER = ["gp"]
PRUNERS = ["none", "median"]
REFUSED = {("gp", "median")}
ORIGINAL = ("genetic", "none")
STUDY = ["sampler", "pruner", "seed"]
IMGSZ, NOISE, WARMUP_EPOCHS = 160, 0.2, 1.0


@dataclass(frozen=True)
class Size:
    """How much of it is done, and in which folder."""

    root: Path
    n_trials: int  # of an unpruned search
    n_epochs: int  # of a trial
    n_seeds: int

    @property
    def budget(self) -> int:
        """Epochs of each search."""
        return self.n_trials * self.n_epochs


FULL = Size(REPOSITORY / "data/bench_evolve", n_trials=12, n_epochs=5, n_seeds=10)
SHORT = Size(REPOSITORY / "data/bench_evolve_short", n_trials=2, n_epochs=2, n_seeds=2)


def main() -> None:
    """Runs what has not run yet, then prints means, intervals and the bench lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, help="how many; ten without it")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS, choices=[*SAMPLERS, *FURTHER])
    parser.add_argument("--pruners", nargs="+", default=PRUNERS[:1], choices=PRUNERS)
    parser.add_argument("--jobs", type=int, default=2, help="searches side by side")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--one", nargs=3, metavar=("SAMPLER", "PRUNER", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size = SHORT if arguments.short else FULL
    if arguments.one:
        search_once(size, arguments.one[0], arguments.one[1], int(arguments.one[2]))
        return
    n_seeds = arguments.seeds or size.n_seeds
    wanted = [(sampler, pruner, seed) for seed in range(arguments.first_seed, arguments.first_seed + n_seeds)
              for sampler in arguments.samplers for pruner in arguments.pruners if (sampler, pruner) not in REFUSED]
    prepare(size)
    left = [study for study in wanted if study not in read_studies(size)]
    print(f"# {len(wanted)} searches of {size.budget} epochs, {len(left)} of them are left", flush=True)
    running: list[subprocess.Popen] = []
    for study in left:
        while sum(job.poll() is None for job in running) >= arguments.jobs:
            time.sleep(0.2)
        command = [sys.executable, __file__, "--one", *map(str, study), *["--short"] * arguments.short]
        running.append(subprocess.Popen(command, env={**os.environ, **ONE_THREAD}))  # noqa: S603 - this script
    if any([job.wait() for job in running]):  # all of them, so that none is left behind
        raise SystemExit("a search failed; its error is above; run again to go on")
    found = read_studies(size)
    report(pd.DataFrame([{**dict(zip(STUDY, study, strict=True)), "overhead": found[study]["overhead"], **row}
                         for study in wanted for row in found[study]["epochs"]]), size)


def read_studies(size: Size) -> dict[tuple[str, str, int], dict[str, Any]]:
    """What the finished searches left: `epochs`, see `list_epochs`, and `overhead`."""
    path = size.root / "studies.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(found["sampler"], found["pruner"], found["seed"]): found for found in map(json.loads, lines)}


def make_run(size: Size, seed: int) -> Run:
    """The sample at a size that makes a trial seconds; the same folds for all seeds."""
    from livestock.pipeline.run import make_run

    run = make_run(competition=str(REPOSITORY / "competition.yaml"), profile="demo", workspace=str(size.root), seed=0,
                   data=str(size.root / "raw"), reader="aihub", weights=str(size.root / "perturbed.safetensors"))
    profile = replace(run.profile, imgsz=IMGSZ, batch=8, nominal_batch=8, workers=0, trial_epochs=size.n_epochs,
                      trials=size.n_trials, device="cpu")
    return replace(run, profile=profile, seed=seed)


def prepare(size: Size) -> None:
    """Start weights and values, sample, folds, images at training size and lists, once."""
    from livestock.pipeline import evolve
    from livestock.pipeline.prepare import read_data, split_data
    from livestock.pipeline.train import write_dataset
    from livestock.search import write_hyp
    from livestock.training.hyp import read_hyp

    if not (size.root / "perturbed.safetensors").exists():
        perturb_starter(size.root / "perturbed.safetensors")
    values = read_hyp(REPOSITORY / "hyp/baseline.yaml")
    write_hyp({**values, "warmup_epochs": WARMUP_EPOCHS}, size.root / "start.yaml", ["baseline.yaml, a short warm-up"])
    run = make_run(size, 0)
    tables, split = read_data(run), split_data(run)
    write_dataset(run, split.images, tables.boxes)
    evolve.write_search_lists(run, split)


def perturb_starter(path: Path, seed: int = 0) -> None:
    """Writes the start weights: the starter, less good."""
    import torch

    from livestock.models.checkpoint import read_checkpoint, write_checkpoint
    from livestock.models.yolov5.library import STARTER

    starter, generator = read_checkpoint(STARTER), torch.Generator().manual_seed(seed)
    tensors = dict(starter.tensors)
    for name in sorted(tensors):
        if tensors[name].ndim == 4:
            noise = torch.randn(tensors[name].shape, generator=generator)
            tensors[name] = tensors[name].float() * (1 + NOISE * noise)
    write_checkpoint(path, starter.config, tensors, half=True)


def search_once(size: Size, sampler: str, pruner: str, seed: int) -> None:
    """One search, from where it had come to; adds its line to `studies.jsonl`."""
    from livestock.pipeline import evolve
    from livestock.search import GENES, load, run_trials
    from livestock.search.search import ENDED, count
    from livestock.training.hyp import read_hyp

    warm_up()
    run, directory = make_run(size, seed), size.root / f"studies/{sampler}_{pruner}_{seed}"
    data_yaml = next(size.root.glob(f"yolo/{IMGSZ}_*/evolve.yaml"))
    meta: Any = evolve.DEFAULT_META
    if sampler == "yolov5":
        start = read_hyp(size.root / "start.yaml")
        meta = {name: gene for name, gene in GENES.items() if start[name] != 0}
        meta["warmup_epochs"] = GENES["warmup_epochs"]._replace(high=size.n_epochs / 2)
    directory.mkdir(parents=True, exist_ok=True)
    search = evolve.make_search(
        run, data_yaml, meta=meta, start_hyp=str(size.root / "start.yaml"), storage=str(directory / "journal"),
        sampler="genetic" if sampler == "yolov5" else sampler, pruner=pruner, fitness="yolov5", study="bench")

    def objective(
        values: dict[str, float], number: int, device: str, on_epoch: Callable[[Mapping[str, float]], None]
    ) -> None:
        from livestock.search import write_hyp

        run_dir = directory / f"{number:04d}"
        run_dir.mkdir(exist_ok=True)
        write_hyp(values, run_dir / "values.yaml", ["a trial of the bench"])
        train_forked(evolve._trial_config(run, data_yaml, run_dir / "values.yaml", "cpu"), run_dir, on_epoch)

    study = load(search)
    while (n_spent := len(list_epochs(study))) < size.budget:  # again and again where trials are pruned
        n_more = -(-(size.budget - n_spent) // size.n_epochs)
        study = run_trials(replace(search, n_trials=count(study, ENDED) + n_more), objective)
    line = json.dumps({"sampler": sampler, "pruner": pruner, "seed": seed, "overhead": find_overhead(study),
                       "epochs": list_epochs(study)[: size.budget]})
    with open(size.root / "studies.jsonl", "ab", buffering=0) as file:  # whole, whoever else writes
        file.write(f"{line}\n".encode())


def list_epochs(study: optuna.Study) -> list[dict[str, Any]]:
    """A row for each epoch that was spent: `trial`, `epoch` and `best`, the trial's fitness so far.

    Epochs of trials that diverged are spent, with a `best` of None. Those that a kill cut off are not: such a trial is
    run again, as another one.
    """
    from livestock.search.search import ENDED
    from livestock.search.study import ERROR_KEY

    rows = []
    for trial in study.trials:
        if trial.state in ENDED or ERROR_KEY in trial.user_attrs:
            rows += [{"trial": trial.number, "epoch": step - 1, "best": best if trial.state in ENDED else None}
                     for step, best in sorted(trial.intermediate_values.items())]
    return rows


def find_overhead(study: optuna.Study) -> float:
    """Median seconds between one training and the next: asking, sampling, writing down."""
    between = [(later.datetime_start - trial.datetime_start).total_seconds() - trial.user_attrs["seconds"]
               for trial, later in itertools.pairwise(study.trials)  # none where a kill came in between
               if trial.state.name in ("COMPLETE", "PRUNED") and trial.datetime_start and later.datetime_start]
    return float(np.median(between)) if between else float("nan")


def report(epochs: pd.DataFrame, size: Size) -> None:
    """Best fitness by search with its 95 % interval over seeds (Student's t), and the bench lines.

    `gain` is over the original's operator, pairwise by seed. `epochs to its final` is how many a search needs to reach
    the final fitness of the original's operator with the same seed, in the median.
    """
    from livestock.evaluation import mean_interval

    epochs["spent"] = epochs.groupby(STUDY).cumcount() + 1
    epochs["so_far"] = epochs.groupby(STUDY)["best"].cummax().groupby([epochs[name] for name in STUDY]).ffill()
    final = epochs.groupby(STUDY)["so_far"].last().unstack("seed")
    start = epochs[epochs["trial"] == 0].groupby("seed")["so_far"].max()
    has_target = ORIGINAL in final.index
    target = final.loc[ORIGINAL] if has_target else start
    needed: dict[tuple[str, str, int], float] = {}
    for key, curve in epochs.groupby(STUDY):
        reached = curve.loc[curve["so_far"] >= target[key[-1]], "spent"]
        needed[key] = float(reached.iloc[0]) if len(reached) else np.inf
    spent = pd.Series(needed).unstack()
    rows = {}
    for name, own in final.iterrows():
        values = [*mean_interval(own.to_numpy()), *mean_interval((own - target).to_numpy())]
        rows[name] = dict(zip(["mean", "low", "high", "gain", "gain low", "gain high"], values, strict=True))
    table = pd.DataFrame(rows).T.assign(**{
        "median": final.median(axis=1), "over start": final.sub(start, axis=1).mean(axis=1),
        "trials": epochs.groupby(STUDY)["trial"].nunique().unstack("seed").median(axis=1),
        "no worse": (final >= target - 1e-12).sum(axis=1),
        "epochs to its final": spent.median(axis=1), "overhead": epochs.groupby(STUDY[:2])["overhead"].median()})
    print(f"best fitness after {size.budget} epochs, mean over {final.shape[1]} seeds with its 95 % interval; gain "
          f"over {'the original' if has_target else 'the start values'}")
    with pd.option_context("display.width", 250, "display.max_columns", 30):
        print(table.round(4).sort_values("mean", ascending=False).to_string())
    for (sampler, pruner), row in table.iterrows() if has_target else ():
        share, wins = row["epochs to its final"] / size.budget, row["no worse"]
        ok = wins >= 0.8 * final.shape[1] and share <= 0.5
        print(f"bench evolve-{sampler}-{pruner} ours={row['median']:.4f} stock={target.median():.4f} "
              f"ratio={1 / share:.2f} bar=2 {'ok' if ok else 'short'} "
              f"(no worse in {wins:.0f} of {final.shape[1]} seeds)")
    print(f"seconds between two trainings, of the slowest sampler: {table['overhead'].max():.2f} (to be under 1)")


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY / "src"))
    main()
