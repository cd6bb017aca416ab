"""Experiments: settings that differ in one thing, trained with several seeds and judged on images that none has seen.

A setting is an `Arm`. All arms of a `Lab` have the same images, size, epochs, batches, schedule, augmentation and
averaged weights, except for what an arm says itself; the weights of the last epoch are judged, so that nothing is
chosen on the images that judge. What a training found is kept by all that it depends on: no training runs twice, and
what a session left unfinished goes on.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import yaml

from ..config import REPOSITORY
from ..config.profile import FAMILY_STARTS
from ..evaluation.gains import MEASURES, Judged, Measure, draw_gain_counts, judge_boxes, measure_sizes, scaled_sides
from ..files.hashing import fingerprint, hash_content
from ..files.progress import one_bar
from ..files.write import write_text
from ..postprocess import suppress
from ..tables import make_boxes, read_table, write_table
from .prepare import VALID_FOLD, read_data, split_data
from .run import Run
from .store import read_records, run_step
from .train import MACHINE, PLACES, make_config, write_lists

if TYPE_CHECKING:
    from ..inference import Candidates
    from ..models.loaded import LoadedModel
    from ..training import TrainConfig

Images = Literal["all", "half", "silver"]
TUNING_FOLD = 1  # judges learning rates, so that the validation fold does not
RATES = (0.33, 1.0, 3.0)  # times the learning rate of the family's file
RATE_SEED = 1000  # of the trainings that choose the rate; no other has it
WARMUP_SHARE = 0.2  # of the epochs: TOOD learns nothing after a short one
# Of the family's file only the loss and the learning rate are its own; the rest are RetinaNet's values for all.
SHARED = ("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr",
          "mixup", "copy_paste", "momentum", "weight_decay", "lrf", "warmup_momentum", "warmup_bias_lr")
N_TIMED = 16  # images whose prediction is timed
N_WATCHED = 4  # images that a training must have for its validation, by which nothing is chosen
DIVERGED = "diverged"  # in the message of a training whose losses are no longer finite
VERSION = 2  # of what a training's result means
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scale:
    """How big an experiment is: images to train on and to judge by, pixels, batch, epochs, trainings of each arm."""

    images: int
    judged: int
    imgsz: int
    batch: int
    epochs: int
    n_seeds: int
    rates: tuple[float, ...] = RATES
    resumes: bool = False  # long trainings write checkpoints


@dataclass(frozen=True)
class Arm:
    """One setting: a detector and in what it differs from the others.

    `size` is a size of the family, for random weights, or the name of official ones. `epochs` is a share of the
    scale's. `images` are all training images with people's boxes, half of them, or that half and the other with
    `silver` boxes: those of a model that was trained on the half alone.
    """

    name: str
    family: str
    size: str
    hyp: Mapping[str, float] = field(default_factory=dict)
    epochs: float = 1.0
    images: Images = "all"


@dataclass(frozen=True)
class Lab:
    """Where an experiment takes place: a run of its scale, its tables, and the ids of what is trained on and judged."""

    run: Run
    scale: Scale
    images: pd.DataFrame
    boxes: pd.DataFrame
    train_ids: pd.Series
    judged_ids: pd.Series

    @property
    def judged(self) -> pd.DataFrame:
        """The images that judge."""
        return self.images[self.images["image_id"].isin(self.judged_ids)].reset_index(drop=True)

    @property
    def truth(self) -> pd.DataFrame:
        """People's boxes in the images that judge."""
        return self.boxes[self.boxes["image_id"].isin(self.judged_ids)].reset_index(drop=True)


@dataclass(frozen=True)
class Result:
    """What one training came to: its boxes on the judged images, and what is known of it.

    `facts`: `parameters` (millions), `megabytes` in half precision, `seconds` an epoch, `gigabytes` at most,
    `images_per_second` at inference, `epochs`, `lr0`. A training that diverged has no boxes, and the last two alone.
    """

    arm: Arm
    seed: int
    boxes: pd.DataFrame
    facts: dict[str, float]


def open_lab(run: Run, scale: Scale, changes: Mapping[str, int | None] | None = None) -> Lab:
    """Reads and splits the data, and draws the images of the experiment with the run's seed.

    `changes` of the scale, such as `{"n_seeds": 3}`, count where they are not None. The validation fold judges and is
    never trained on; `TUNING_FOLD` judges learning rates. Raises ValueError if the data do not fill both and a third.
    """
    known = {name: value for name, value in (changes or {}).items() if value is not None}
    scale = replace(scale, **known)  # type: ignore[arg-type]  # their values are numbers, as these fields are
    tables = read_data(run)
    images = split_data(run).images
    profile = replace(run.profile, imgsz=scale.imgsz, batch=scale.batch, nominal_batch=scale.batch, epochs=scale.epochs)
    is_valid = images["fold"] == VALID_FOLD
    train_ids, judged_ids = (
        ids.sample(min(n, len(ids)), random_state=run.seed).sort_values()
        for ids, n in ((images.loc[~is_valid, "image_id"], scale.images), (images.loc[is_valid, "image_id"],
                                                                          scale.judged)))
    chosen = images[images["image_id"].isin(pd.concat([train_ids, judged_ids]))].reset_index(drop=True)
    boxes = tables.boxes[tables.boxes["image_id"].isin(chosen["image_id"])].reset_index(drop=True)
    folds = chosen.loc[chosen["image_id"].isin(boxes["image_id"]), "fold"]
    if not {VALID_FOLD, TUNING_FOLD} < set(folds):
        raise ValueError(f"experiment: expected animals in fold {VALID_FOLD}, which judges, in fold {TUNING_FOLD}, "
                         "which chooses learning rates, and in another one, found them in folds "
                         f"{sorted(set(folds))} of {len(chosen)} images")
    return Lab(replace(run, profile=profile), scale, chosen, boxes, train_ids, judged_ids)


def run_arms(lab: Lab, arms: Sequence[Arm], after: Callable[[], None] = lambda: None) -> list[Result]:
    """Trains each arm with each seed; what was trained before is read. `after` is called after each training.

    A session that ends early has one seed of every arm rather than three of the first.
    """
    seeds = [lab.run.seed + number for number in range(lab.scale.n_seeds)]
    results = []
    with one_bar("trainings", unit="training", total=len(arms) * len(seeds)) as bar:
        for seed in seeds:
            for arm in arms:
                bar.set_postfix({"now": f"{arm.name}, seed {seed}"})
                results.append(train_arm(lab, arm, seed))
                after()
                bar.update()
    return sorted(results, key=lambda result: [arm.name for arm in arms].index(result.arm.name))


def choose_rates(
    lab: Lab, arms: Sequence[Arm], after: Callable[[], None] = lambda: None
) -> tuple[list[Arm], pd.DataFrame]:
    """The arms with the best of a few learning rates each, and a table `arm, rate, mAP50_95, chosen`.

    Each rate is tried once, for a third of the epochs, on all folds but the two that judge, with the same budget for
    every arm, and judged on the tuning fold. A training that diverges scores nothing. `after` as in `run_arms`.
    """
    fold = lab.images.set_index("image_id")["fold"]
    is_tuned = lab.train_ids.map(fold) == TUNING_FOLD
    tuning = replace(lab, train_ids=lab.train_ids[~is_tuned], judged_ids=lab.train_ids[is_tuned])
    counts, rows = np.ones((1, len(tuning.judged)), int), []
    with one_bar("learning rates", unit="training", total=len(arms) * len(lab.scale.rates)) as bar:
        for arm in arms:
            for rate in lab.scale.rates:
                bar.set_postfix({"now": f"{arm.name}, {rate:g} times its rate"})
                lr0 = read_values(arm)["lr0"] * rate
                brief = replace(arm, hyp={**arm.hyp, "lr0": lr0}, epochs=arm.epochs / 3)
                boxes = train_arm(tuning, brief, RATE_SEED).boxes
                after()
                score = judge_boxes(tuning.judged, tuning.truth, boxes, counts).scores["mAP50_95"]
                rows.append({"arm": arm.name, "rate": rate, "lr0": lr0, "mAP50_95": score})
                bar.update()
    table = pd.DataFrame(rows)
    # Of equal scores the rate nearest to the file's, which all have where nothing was learnt.
    order = table.assign(away=np.abs(np.log(table["rate"]))).sort_values(["mAP50_95", "away"], ascending=[False, True])
    best = order.drop_duplicates("arm").index
    table["chosen"] = table.index.isin(best)
    lr0 = table.loc[best].set_index("arm")["lr0"]
    return [replace(arm, hyp={**arm.hyp, "lr0": float(lr0[arm.name])}) for arm in arms], table


def read_values(arm: Arm) -> dict[str, float]:
    """The hyper-parameters of an arm: the common ones, its family's own, and what it changes."""
    common, own = (yaml.safe_load((REPOSITORY / f"hyp/{name}.yaml").read_text(encoding="utf-8"))
                   for name in ("retinanet", arm.family))
    return {**own, **{name: common[name] for name in SHARED}, "mosaic": 0.0, **arm.hyp}


def train_arm(lab: Lab, arm: Arm, seed: int) -> Result:
    """One training, or what is kept of it."""
    epochs = max(round(lab.scale.epochs * arm.epochs), 1)
    values = {**read_values(arm), "warmup_epochs": WARMUP_SHARE * epochs}
    labelled, boxes = _find_labels(lab, arm, seed)
    config = replace(_configure(lab.run, arm), epochs=epochs, seed=seed, resumes=lab.scale.resumes)
    own = {name: value for name, value in asdict(config).items() if name not in (*PLACES, *MACHINE)}
    learnt = boxes[boxes["image_id"].isin(labelled)].drop(columns="box_id")
    made_from = {**own, "start": fingerprint(Path(config.weights)) if config.weights else "", "values": values,
                 "images": arm.images, "version": VERSION, "train": hash_content(list(labelled)),
                 "judged": hash_content(list(_find_watched(lab, arm))), "boxes": hash_content(learnt.to_dict("list"))}
    key = hash_content(made_from)[:16]
    kept = lab.run.workspace.interim_dir / f"experiments/{key}.parquet"
    run_step(f"arm_{key}", lambda: _train(lab, arm, config, values, labelled, boxes, kept), outputs=[kept],
             inputs=[lab.run.workspace.interim_dir / "images.parquet"], settings=made_from,
             workspace=lab.run.workspace.root, by="09_detectors", says=False)
    return Result(arm, seed, read_table(kept), read_records(lab.run.workspace.root)[f"arm_{key}"].notes)


def _find_labels(lab: Lab, arm: Arm, seed: int) -> tuple[pd.Series, pd.DataFrame]:
    """The ids that an arm trains on, and the boxes of all images, some of them silver."""
    if arm.images == "all":
        return lab.train_ids, lab.boxes
    labelled, rest = split_halves(lab)
    if arm.images == "half":  # the boxes of the others are there, and in no list: all arms but silver ones share labels
        return labelled, lab.boxes
    people = lab.boxes[~lab.boxes["image_id"].isin(rest)]
    found = train_arm(lab, as_teacher(lab, arm), seed).boxes
    silver = choose_silver(found[found["image_id"].isin(rest)], people[people["image_id"].isin(labelled)],
                           len(rest) / len(labelled))
    return lab.train_ids, pd.concat([people, silver], ignore_index=True)


def as_teacher(lab: Lab, arm: Arm) -> Arm:
    """The arm that labels the other half for this one: half of the images, for as many more epochs."""
    return replace(arm, images="half", epochs=arm.epochs * len(lab.train_ids) / len(split_halves(lab)[0]))


def split_halves(lab: Lab) -> tuple[pd.Series, pd.Series]:
    """The ids that keep their labels and the others: whole folds, so that no group of frames is in both halves."""
    fold = lab.train_ids.map(lab.images.set_index("image_id")["fold"])
    sizes = fold.value_counts().sort_index()
    n_folds = int(np.abs(sizes.cumsum() - len(fold) / 2).to_numpy().argmin()) + 1
    is_labelled = fold.isin(sizes.index[:n_folds])
    return lab.train_ids[is_labelled], lab.train_ids[~is_labelled]


def choose_silver(found: pd.DataFrame, people: pd.DataFrame, n_times: float) -> pd.DataFrame:
    """The most confident boxes of each class, `n_times` as many as people drew of it.

    As many an image as in labelled images: a threshold that needs no further images to be chosen on.

    >>> people = pd.DataFrame({"label": ["cow"]})
    >>> found = pd.DataFrame({"label": ["cow", "cow"], "confidence": [0.2, 0.9], "source": "model"})
    >>> choose_silver(found, people, 1.0)["source"]
    1    silver
    Name: source, dtype: object
    """
    wanted = (people["label"].value_counts() * n_times).round().astype(int)
    ranked = found.sort_values("confidence", ascending=False, kind="stable")
    place = ranked.groupby("label").cumcount()
    return ranked[place < ranked["label"].map(wanted).fillna(0)].assign(confidence=1.0, source="silver").sort_index()


def _train(
    lab: Lab, arm: Arm, config: TrainConfig, values: Mapping[str, float], labelled: pd.Series, boxes: pd.DataFrame,
    kept: Path,
) -> dict[str, Any]:
    """Trains an arm, writes the boxes of its last epoch's weights and returns the facts; its folder is deleted then.

    A training that diverges would do so again: it is kept, without a box.
    """
    from ..models.checkpoint import read_checkpoint
    from ..models.forward import load_for_inference
    from ..search.space import write_hyp
    from ..training import train

    run_dir = lab.run.workspace.runs_dir / kept.stem  # a training that was cut off goes on there
    hyp = run_dir / "hyp.yaml"
    run_dir.mkdir(parents=True, exist_ok=True)
    write_hyp(values, hyp, [f"{arm.name}, seed {config.seed}"])
    data_yaml = write_lists(lab.run, f"arm_{kept.stem}", lab.images, boxes, labelled, lab.judged_ids[:N_WATCHED],
                            is_own=arm.images == "silver", says=False)
    config = replace(config, data_yaml=str(data_yaml.resolve()), hyp=str(hyp.resolve()))
    try:
        history = train(config, run_dir, label_of=lab.run.competition.label_of)
    except RuntimeError as error:
        if DIVERGED not in str(error):
            raise
        logger.warning("%s, seed %d: the training diverged, so it finds nothing: lr0 %g", arm.name, config.seed,
                       values["lr0"])
        write_table(make_boxes([]), kept)
        shutil.rmtree(run_dir)
        return {"epochs": config.epochs, "lr0": values["lr0"]}
    weights = run_dir / f"weights/epoch{config.epochs - 1:04d}.safetensors"
    loaded = load_for_inference(weights, config.device)
    watched = lab.images[lab.images["image_id"].isin(_find_watched(lab, arm))]
    write_table(suppress(_predict(lab, loaded, watched).boxes), kept)
    timed = watched[:N_TIMED]
    facts = {"parameters": sum(tensor.numel() for tensor in read_checkpoint(weights).tensors.values()) / 1e6,
             "megabytes": weights.stat().st_size / 1e6, "seconds": float(history["seconds"].median()),
             "gigabytes": float(history["gigabytes"].max()), "epochs": config.epochs, "lr0": values["lr0"],
             "images_per_second": len(timed) / _predict(lab, loaded, timed).seconds}
    shutil.rmtree(run_dir)
    return facts


def _configure(run: Run, arm: Arm) -> TrainConfig:
    """The settings of an arm's training, still without lists: the run's, with its own family and start weights."""
    own = replace(run.profile, family=arm.family, weights=arm.size, optimizer=FAMILY_STARTS[arm.family]["optimizer"])
    return make_config(replace(run, profile=own), Path("data.yaml"), Path("hyp.yaml"))


def _find_watched(lab: Lab, arm: Arm) -> pd.Series:
    """The ids that an arm's model predicts: those that judge, and those that it could label."""
    return pd.concat([lab.judged_ids, split_halves(lab)[1]]) if arm.images == "half" else lab.judged_ids


def _predict(lab: Lab, model: LoadedModel, images: pd.DataFrame) -> Candidates:
    from ..inference import find_candidates

    return find_candidates(model, images, lab.run.competition.labels, imgsz=lab.scale.imgsz,
                           label_of=lab.run.competition.label_of)


def judge_results(lab: Lab, results: Sequence[Result]) -> dict[str, list[Judged]]:
    """The scores of trainings by arm, in the order of their seeds, all on the same resampled groups of images."""
    images, truth, judged = lab.judged, lab.truth, dict[str, list[Judged]]()
    counts, measures = draw_gain_counts(images, lab.run.seed), make_measures(lab)
    for result in sorted(results, key=lambda result: result.seed):
        boxes = result.boxes[result.boxes["image_id"].isin(images["image_id"])]
        judged.setdefault(result.arm.name, []).append(judge_boxes(images, truth, boxes, counts, measures))
    return {arm: judged[arm] for arm in dict.fromkeys(result.arm.name for result in results)}


def make_measures(lab: Lab) -> dict[str, Measure]:
    """The measures of a lab: all, at some IoU, thin, and by size."""
    return {**MEASURES, **measure_sizes(_find_scales(lab), find_size_bounds(lab))}


def find_size_bounds(lab: Lab) -> tuple[float, float]:
    """The square roots of areas, in pixels of the network's input, that cut the animals to train on into thirds.

    COCO's bounds, 32 and 96 pixels of the image, would leave a third or two empty in most barns.
    """
    boxes = lab.boxes[lab.boxes["image_id"].isin(lab.train_ids)]
    if boxes.empty:
        raise ValueError("experiment: expected labelled animals among the images to train on, found none")
    low, high = np.quantile(scaled_sides(boxes, _find_scales(lab)), (1 / 3, 2 / 3))
    return float(low), float(high)


def _find_scales(lab: Lab) -> pd.Series:
    """How much each image is scaled for the network, by `image_id`."""
    return lab.scale.imgsz / lab.images.set_index("image_id")[["width", "height"]].max(axis=1)


def list_scores(judged: Mapping[str, Sequence[Judged]], seed: int = 0) -> pd.DataFrame:
    """A row a training: `arm`, `seed`, counted from `seed`, and every measure."""
    return pd.DataFrame([{"arm": arm, "seed": seed + number, **one.scores}
                         for arm, runs in judged.items() for number, one in enumerate(runs)])


def tabulate(results: Sequence[Result], judged: Mapping[str, Sequence[Judged]]) -> pd.DataFrame:
    """A row an arm: means over seeds of every measure and of the facts of its trainings; index `arm`."""
    facts = pd.DataFrame([{"arm": result.arm.name, **result.facts} for result in results])
    means = list_scores(judged).groupby("arm", sort=False).mean().drop(columns="seed")
    return means.join(facts.groupby("arm").mean())


def describe_lab(lab: Lab, arms: Sequence[Arm]) -> pd.DataFrame:
    """The control table: what is equal for all of these arms, and in which they differ; columns `value`, `equal`."""
    people = lab.boxes[lab.boxes["image_id"].isin(lab.judged_ids)]
    equal = {"images to train on": f"{len(lab.train_ids):,}",
             "images that judge": f"{len(lab.judged_ids):,}, in no training", "animals that judge": f"{len(people):,}",
             "image size": f"{lab.scale.imgsz} px",
             "small, large (root of area)": "below {:.0f}, from {:.0f} px".format(*find_size_bounds(lab)),
             "batch": str(lab.scale.batch), "epochs": str(lab.scale.epochs),
             "seeds": str(lab.scale.n_seeds),
             "augmentation, momentum, decay": "of hyp/retinanet.yaml", "schedule": lab.run.profile.schedule,
             "warm-up": f"{WARMUP_SHARE:.0%} of the epochs", "weights that judge": "averaged, of the last epoch",
             "learning rate": f"the best of {len(lab.scale.rates)}, on another fold"}
    differs = {"family": [arm.family for arm in arms], "backbone or start weights": [arm.size for arm in arms]}
    rows = {name: {"value": value, "equal": True} for name, value in equal.items()} | {
        name: {"value": ", ".join(dict.fromkeys(values)), "equal": len(set(values)) == 1}
        for name, values in differs.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def write_claims(lab: Lab, claims: pd.DataFrame) -> Path:
    """Writes the verdicts as a CSV into the workspace, `claims.csv`."""
    path = lab.run.workspace.root / "claims.csv"
    write_text(claims.round(6).to_csv(index=False), path)
    return path
