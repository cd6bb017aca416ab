"""The search on a run's data: which images, how a trial trains, and what the found values are worth on a fresh fold."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import torch
from scipy.special import stdtrit

from ..config import Profile, Workspace
from ..config.profile import known_profiles
from ..data import dataset
from ..data.pictures import too_thin
from ..evaluation import mean_interval
from ..files.write import write_json
from ..labels.relabel import relabels_tag
from ..search.report import add_generations, read_evolve_csv, trials_table
from ..search.search import ENDED, FITNESS, Search, best_value, count, is_spent, load, run_trials
from ..search.space import make_meta, write_hyp
from ..search.storage import is_database, locked, open_storage
from ..training import HISTORY, TrainConfig, train
from ..training.hyp import read_hyp
from .preflight import check_training
from .prepare import SplitTables, read_data, split_data
from .run import Run, find_share
from .store import run_step
from .train import MACHINE, PLACES, hyp_path, make_config, write_dataset

logger = logging.getLogger(__name__)

VALID_FOLD, FRESH_FOLD = 0, 1  # trials are judged on the first; the search never sees the second
DEFAULT_META = ("lr0", "lrf", "momentum")
DEFAULT_STUDY = "evolve"


def make_search(
    run: Run,
    data_yaml: Path,
    *,
    meta: Sequence[str] | Mapping[str, tuple[float, float, float]] = DEFAULT_META,
    start_hyp: str = "",
    n_trials: int | None = None,
    storage: str = "",
    sampler: str = "genetic",
    pruner: str = "",
    fitness: str = "AP",
    budget_minutes: float | None = None,
    backup: Path | None = None,
    study: str = DEFAULT_STUDY,
) -> Search:
    """The search of this run: space, start values, data and budget. `data_yaml` is that of `write_search_lists`.

    `start_hyp` is a file, without one the profile's. `storage` is a database's URL; without one the study is a journal
    on the local disk, and `backup`, without one a file in the workspace, its copy after every trial; see `name_study`.
    `fitness` is one of `FITNESS`; `AP` is at the competition's IoU. `pruner` is one of `PRUNERS`; without one it is
    `none`, and with a budget `halving`, which stops the worse half of the trials after the warm-up, and so on. With a
    budget no trial begins `session_hours` after the search has begun, unless `budget_minutes` says when, nor once the
    search's share of the budget is spent; what is there is judged then.
    Raises ValueError for what cannot be searched (see `space.check_meta`).
    """
    start = read_hyp(hyp_path(run, start_hyp))
    config = _trial_config(run, data_yaml, Path("hyp.yaml"), run.profile.device)
    weights = Path(config.weights) if config.weights else None
    identity = {
        "data_hash": hash_data(run, data_yaml),
        "weights_hash": hashlib.sha256(weights.read_bytes()).hexdigest() if weights else config.size,
        "training": {key: value for key, value in asdict(config).items()
                     if key not in (*PLACES, *MACHINE)} | _as_trial(run, {}),
    }
    if budget_minutes is None and run.profile.budget_hours:
        budget_minutes = 60 * run.profile.session_hours
    share = find_share(run, "03_evolve")
    study = name_study(study, run.workspace, name_plan(run.profile))
    if not storage:
        storage = str(_local_directory(run) / f"{study}.journal")
        backup = backup or run.workspace.runs_dir / "evolve" / f"{study}.journal"
    return Search(
        study=study,
        storage=storage,
        meta=make_meta(meta, start),
        start=start,
        identity=identity,
        n_trials=run.profile.trials if n_trials is None else n_trials,
        epochs=run.profile.trial_epochs,
        sampler=sampler,
        pruner=pruner or ("halving" if run.profile.budget_hours and sampler != "gp" else "none"),
        fitness=fitness,
        seed=run.seed,
        budget_minutes=budget_minutes,
        share_minutes=None if share is None else 60 * share,
        backup=backup,
    )


def name_study(study: str, workspace: Workspace, planned: str = "") -> str:
    """The study's name; the default one changes with the labels that people corrected (`livestock relabel import`).

    Trials on other labels do not compare, and a study refuses them: without this, 03_evolve would stop after an import.
    For the same reason it changes with what is `planned` of the trials.
    """
    if study != DEFAULT_STUDY:
        return study
    return "_".join(filter(None, [study, relabels_tag(workspace), planned]))


def name_plan(profile: Profile) -> str:
    """Size and epochs of a trial where they are not the profile's own, and what of the network stays; else empty.

    >>> from livestock.config import get_profile
    >>> name_plan(get_profile("demo", search_freeze=0.5)), name_plan(get_profile("demo", budget_hours=1))
    ('320px_2epochs_frozen0.5', '')
    """
    own = known_profiles().get(profile.name, profile)
    is_own = not profile.search_imgsz and profile.trial_epochs == own.trial_epochs
    if is_own and not profile.search_freeze:
        return ""
    frozen = f"_frozen{profile.search_freeze:g}" if profile.search_freeze else ""
    return f"{profile.search_imgsz or profile.imgsz}px_{profile.trial_epochs}epochs{frozen}"


def at_search_size(run: Run) -> Run:
    """The run with images of the size that its trials train on; itself where the profile names none."""
    profile = run.profile
    return replace(run, profile=replace(profile, imgsz=profile.search_imgsz)) if profile.search_imgsz else run


def write_search_lists(run: Run, split: SplitTables) -> tuple[Path, Path]:
    """The `data.yaml` that trials train with and the one that judges the result.

    Both train on the mini set without the folds 0 and 1; the first validates on all of fold 0, the second on all of
    fold 1, which the search never sees. Needs the data set that `pipeline.write_dataset` writes.
    """
    images = split.images
    if (n_folds := images["fold"].nunique()) < 3:
        raise ValueError(f"search: it trains without the folds {VALID_FOLD} and {FRESH_FOLD}, and {len(images):,} "
                         f"images fill only {n_folds}, so that nothing is left to train on; leave 03_evolve out "
                         "(--skip 03_evolve)")
    directory = dataset.dataset_dir(images, run.profile.imgsz, run.workspace.yolo_dir)
    images = images[~too_thin(images, run.profile.imgsz)]  # too thin to learn from
    is_mini = split.mini.loc[images["image_id"]].to_numpy()
    train_ids = images.loc[is_mini & ~images["fold"].isin([VALID_FOLD, FRESH_FOLD]), "image_id"]
    paths = []
    for name, fold in (("evolve", VALID_FOLD), ("evolve_fresh", FRESH_FOLD)):
        valid_ids = images.loc[images["fold"] == fold, "image_id"]
        paths.append(dataset.write_lists(directory, name, train_ids, valid_ids, run.competition.labels))
    return paths[0], paths[1]


def hash_data(run: Run, data_yaml: Path) -> str:
    """SHA-256 of the size, the classes, the image names and labels of `data_yaml`, the same on every machine."""
    content = f"{run.profile.imgsz} {run.competition.labels} {dataset.hash_lists(data_yaml)}"
    return hashlib.sha256(content.encode()).hexdigest()


def run_search(run: Run, search: Search, data_yaml: Path) -> optuna.Study:
    """Runs or goes on with the search, one worker a GPU; see `search.evolve`."""
    def objective(
        values: dict[str, float], number: int, device: str, on_epoch: Callable[[Mapping[str, float]], None]
    ) -> None:
        """A trial's training, in a folder of its own."""
        run_dir = _directory(run, search) / f"trial_{number:04d}"
        hyp = run_dir / "values.yaml"
        write_hyp(_as_trial(run, values), hyp, [f"trial {number} of study {search.study}"])
        train(_trial_config(run, data_yaml, hyp, device), run_dir, on_epoch,
              label_of=run.competition.label_of)

    return run_trials(search, objective, _devices(run))


def is_finished(search: Search, study: optuna.Study) -> bool:
    """Whether all trials that were asked for have ended, or all that the budget pays for, and one has values to judge.

    Says so if not.
    """
    n_ended = count(study, ENDED)
    if (n_ended >= search.n_trials or is_spent(search, study)) and not math.isnan(best_value(study)):
        return True
    logger.info("%d of %d trials have ended: nothing is judged yet; run again to go on", n_ended, search.n_trials)
    return False


def verify(run: Run, search: Search, study: optuna.Study, data_yaml: Path) -> pd.DataFrame:
    """Trains start values and best ones with some seeds each and judges both on the fold the search never saw.

    One row a training: `values` (`start` or `best`), `seed`, `fitness`, and the scores of its last epoch, for a fold
    that chose the epoch would have been seen. No row while the search is not finished.
    """
    columns, rows = ["values", "seed", "fitness", "AP", "AP50", "AP75", "mAP50_95"], []
    if is_finished(search, study):
        best = {**search.start, **study.best_trial.params}
        with locked(_directory(run, search) / "verify.lock"):  # every worker that sees the end comes here
            for seed in range(1, run.profile.n_verified + 1):
                for name, values in (("start", search.start), ("best", best)):
                    scores = _verify_one(run, search, values, seed, data_yaml, f"verify_{seed}_{_short_hash(values)}")
                    rows.append({"values": name, "seed": seed, "fitness": FITNESS[search.fitness](scores), **scores})
    return pd.DataFrame(rows, columns=columns)


def _verify_one(
    run: Run, search: Search, values: Mapping[str, float], seed: int, data_yaml: Path, name: str
) -> dict[str, float]:
    run_dir = _directory(run, search) / name
    hyp, scores_path = run_dir / "values.yaml", run_dir / "scores.json"
    write_hyp(_as_trial(run, values), hyp, [f"verification of study {search.study}"])
    config = replace(_trial_config(run, data_yaml, hyp, _devices(run)[0]), seed=seed)

    def action() -> None:
        """Trains it again from the beginning, and keeps its last scores."""
        (run_dir / HISTORY).unlink(missing_ok=True)  # of a training that was cut off: nothing is saved to resume
        epochs: list[dict[str, float]] = []
        train(config, run_dir, epochs.append, label_of=run.competition.label_of)
        write_json(epochs[-1], scores_path)

    run_step(
        f"{search.study}_{name}",
        action,
        inputs=[data_yaml, hyp],
        outputs=[scores_path],
        settings={**asdict(config), "data_hash": hash_data(run, data_yaml)},
        workspace=run.workspace.root,
    )
    return json.loads(scores_path.read_text())


def name_fitness(run: Run, search: Search) -> str:
    """What the search's fitness is called in a sentence."""
    return f"AP at IoU {run.competition.metric_iou:g}" if search.fitness == "AP" else search.fitness


def gain_interval(verified: pd.DataFrame) -> tuple[float, float, float]:
    """Mean gain of best over start on the fresh fold, and its 95 % interval: Student's t over seeds, pairwise.

    NaN while nothing is judged.
    """
    if verified.empty:
        return math.nan, math.nan, math.nan
    by_seed = verified.pivot(index="seed", columns="values", values="fitness")
    return mean_interval((by_seed["best"] - by_seed["start"]).to_numpy())


def training_noise(verified: pd.DataFrame) -> tuple[float, float]:
    """How much another seed moves a training: the standard deviation of the fitness, and by how much two may differ.

    Pooled over start values and best ones of `verify`: the squares of the distances from each mean, over the trainings
    less the means. Two trainings of the same values differ by less than the second number in 95 % of cases: Student's t
    times the deviation times the root of 2. Both NaN with one seed each.

    >>> verified = pd.DataFrame({"values": ["start", "start", "best", "best"], "fitness": [0.50, 0.54, 0.60, 0.60]})
    >>> tuple(round(number, 3) for number in training_noise(verified))
    (0.02, 0.122)
    """
    known = verified.dropna(subset=["fitness"])
    by_values = known.groupby("values")["fitness"]
    free = len(known) - by_values.ngroups
    if not free:
        return math.nan, math.nan
    deviation = math.sqrt(((known["fitness"] - by_values.transform("mean")) ** 2).sum() / free)
    return deviation, float(stdtrit(free, 0.975)) * math.sqrt(2) * deviation


def describe_gain(run: Run, search: Search, gain: tuple[float, float, float]) -> str:
    """In a sentence, what the best values gained over the start values, and whether that is to be believed."""
    mean, low, high = gain
    if math.isnan(mean):
        return "nothing is judged yet: run again to go on"
    what = f"{name_fitness(run, search)} on a fresh fold, best minus start: {mean:+.4f}"
    if math.isnan(low):
        return f"{what}, one seed each: that shows nothing, n_verified = 3 trains with three"
    return f"{what} ({low:+.4f} to {high:+.4f}); " + (
        "believe it" if low > 0 else "the interval holds zero: not shown to be better")


def write_evolved(run: Run, search: Search, study: optuna.Study, gain: tuple[float, float, float]) -> Path | None:
    """Start values with the best trial's in their places to `evolved.yaml` in the workspace, with their origin.

    None while no trial has finished.
    """
    if math.isnan(best_value(study)):
        return None
    path, best = run.workspace.root / "evolved.yaml", study.best_trial
    judged = "not yet judged on a fold the search never saw" if math.isnan(gain[0]) else (
        describe_gain(run, search, gain))
    write_hyp({**search.start, **best.params}, path, [
        f"Found by `livestock evolve`: study {search.study}, {search.sampler} over {', '.join(search.meta)}.",
        f"source: trial {best.number} of {len(study.trials)}, fitness ({search.fitness}) {best.value:.5f};",
        f"{judged}.",
        f"data {study.user_attrs['data_hash'][:12]}, {datetime.now(UTC):%Y-%m-%d}",
    ])
    return path


def start_and_best(search: Search, trials: pd.DataFrame) -> pd.DataFrame:
    """The finished rows of `trials_table` with the start values and the best ones; a column `values` says which."""
    finished = trials[trials["state"] == "complete"]
    is_start = (finished[list(search.meta)] == pd.Series(search.start)[list(search.meta)]).all(axis=1)
    start, best = finished[is_start].head(1), finished.sort_values("fitness", ascending=False).head(1)
    return pd.concat([start.assign(values="start"), best.assign(values="best")])


def evolve_and_report(run: Run, options: Mapping[str, Any], *, evolve_csv: Path | None, verifies: bool) -> None:
    """The command `livestock evolve`: everything from raw data to `evolved.yaml`; see `make_search` for `options`."""
    check_training(run, options["start_hyp"])  # what cannot work says so at once
    make_meta(options["meta"], read_hyp(hyp_path(run, options["start_hyp"])))
    if is_database(options["storage"]):
        open_storage(options["storage"])
    tables, split = read_data(run), split_data(run)
    run = at_search_size(run)
    write_dataset(run, split.images, tables.boxes)
    data_yaml, fresh_yaml = write_search_lists(run, split)
    search = make_search(run, data_yaml, **options)
    if evolve_csv is not None:
        generations = read_evolve_csv(evolve_csv, search)
        n_added = add_generations(load(search), search.storage, generations)
        logger.info("%d generations read from %s", n_added, evolve_csv)
    study = run_search(run, search, data_yaml)
    columns = ["trial", "state", "fitness", "epochs", "seconds", "generation", "parents", "changed", "error"]
    logger.info(trials_table(study, search.meta)[columns].to_string(index=False))
    verified = verify(run, search, study, fresh_yaml) if verifies else pd.DataFrame()
    gain = gain_interval(verified)
    if len(verified):
        logger.info(verified.round(4).to_string(index=False))
        logger.info("best against start on a fold the search never saw: %+.4f (%+.4f to %+.4f)", *gain)
    logger.info("best values: %s", write_evolved(run, search, study, gain))


def _local_directory(run: Run) -> Path:
    """A folder on the local disk for this workspace, which may itself lie on a Drive mount, where locks need not hold.

    A number in the workspace leads there, so that an emptied workspace starts a new one.
    """
    name = run.workspace.runs_dir / "evolve" / "journal_id"
    name.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), open(name, "x", encoding="ascii") as file:
        file.write(uuid.uuid4().hex)
    return Path(tempfile.gettempdir()) / f"livestock-{os.getuid()}" / name.read_text(encoding="ascii")


def _directory(run: Run, search: Search) -> Path:
    return run.workspace.runs_dir / "evolve" / search.study


def _trial_config(run: Run, data_yaml: Path, hyp: Path, device: str) -> TrainConfig:
    """As `make_config`, shorter, without a compiler, which takes longer than a trial gains, and without weights."""
    return replace(make_config(run, data_yaml, hyp), epochs=run.profile.trial_epochs, device=device, compiler="",
                   save=False, loggers=())


def _as_trial(run: Run, values: Mapping[str, float]) -> dict[str, float]:
    """The hyper-parameters that a trial of these values trains with: some of the network may stay as it was."""
    return {**values, **({"freeze": run.profile.search_freeze} if run.profile.search_freeze else {})}


def _devices(run: Run) -> list[str]:
    """One name a worker: the profile's device, or each GPU by the name that this session may see it under."""
    n_gpus = torch.cuda.device_count()
    if run.profile.device or n_gpus < 2:
        return [run.profile.device]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:n_gpus] if visible else [str(index) for index in range(n_gpus)]


def _short_hash(values: Mapping[str, float]) -> str:
    return hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:6]
