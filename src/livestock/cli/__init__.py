"""The command `livestock`. Libraries are imported where they are needed, so that `--help` answers at once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .relabel import app as relabel_app


class _Group(TyperGroup):
    """Says what is wrong with an input on stderr, exit code 2, or that it was interrupted, 130: no traceback."""

    def invoke(self, ctx: Any) -> Any:
        """The command; its errors become one line and an exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            typer.echo(f"livestock: {str(error) or 'interrupted; run the same command again to go on'}", err=True)
            raise typer.Exit(130) from None  # as shells have it: 128 and the number of SIGINT
        except (ValueError, OSError, ImportError) as error:  # the last says what to install
            typer.echo(f"livestock: {error}", err=True)
            raise typer.Exit(2) from error


COMPETITION_HELP = "classes, metric, limits; default: competition.yaml here, else the livestock challenge's"
WEIGHTS_HELP = "start weights: a file, an official name like yolov5m6.pt, or a size, like resnet18, for random ones"
SET_HELP = "one value of the profile or of the hyper-parameters, as epochs=40 or hyp.lr0=0.005; again for more"
# Options that several commands have
DataOption = Annotated[Path | None, typer.Option(help="folder of the raw data; default: raw/ in the workspace")]
ReaderOption = Annotated[str, typer.Option(help="auto, aihub, coco, cvat, voc, yolo or open_images")]
FamilyOption = Annotated[str, typer.Option(help="the detector, see `livestock models`; default: the profile's")]
CompetitionOption = Annotated[Path | None, typer.Option(help=COMPETITION_HELP)]
ChangesOption = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=SET_HELP)]
WorkspaceOption = Annotated[Path, typer.Option(help="where everything is written")]

app = typer.Typer(
    cls=_Group,
    help="From raw archives to a scored answer.csv.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(relabel_app, name="relabel")


@app.callback()
def _livestock(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="more messages, each with time and the module that it is from")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="warnings and errors alone, and no progress")] = False,
) -> None:
    """Sets what is said while a command works; what it is asked for, such as scores, is printed all the same."""
    from ..files.logs import show_messages

    if verbose and quiet:
        raise typer.BadParameter("expected --verbose or --quiet, found both")
    show_messages(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)


@app.command()
def run(
    data: DataOption = None,
    reader: ReaderOption = "auto",
    profile: Annotated[str, typer.Option(help="demo, cpu or colab: model, image size, epochs")] = "demo",
    family: FamilyOption = "",
    weights: Annotated[str, typer.Option(help=WEIGHTS_HELP)] = "",
    workspace: WorkspaceOption = Path("data"),
    competition: CompetitionOption = None,
    seed: Annotated[int, typer.Option(help="of split and training")] = 42,
    hyp: Annotated[Path | None, typer.Option(help="hyper-parameters to train with, such as evolved.yaml")] = None,
    folds: Annotated[str, typer.Option(help="trainings, each without one of these folds: 0,1,2 for three")] = "0",
    ensemble: Annotated[bool, typer.Option(help="answer with the models of all these folds")] = False,
    skip: Annotated[list[str] | None, typer.Option(help="a notebook to leave out, such as 03_evolve")] = None,
    only: Annotated[list[str] | None, typer.Option(help="a notebook to run alone, such as 09_detectors")] = None,
    publish: Annotated[bool, typer.Option(help="put the outputs into the committed notebooks")] = False,
    changes: ChangesOption = None,
) -> None:
    """Runs the notebooks 01 to 08 in order, from raw data to answer.csv, and prints where it all lies."""
    from ..config import parse_overrides
    from ..pipeline.notebooks import run_all

    run_all(
        {
            "PROFILE": profile,
            "SEED": seed,
            "DATA": str(data or ""),
            "READER": reader,
            "WORKSPACE": str(workspace),
            "COMPETITION": str(competition or ""),
            "WEIGHTS": weights,
            "HYP": str(hyp or ""),
            "FOLDS": _read_folds(folds),
            "OVERRIDES": parse_overrides(_with_family(family, changes)),
            "ENSEMBLE": ensemble,
        },
        skip=skip or (),
        only=only or (),
        publish=publish,
    )


@app.command()
def plan(
    data: DataOption = None,
    reader: ReaderOption = "",
    profile: Annotated[str, typer.Option(help="demo, cpu or colab; default: the workspace's, else demo")] = "",
    family: FamilyOption = "",
    weights: Annotated[str, typer.Option(help=WEIGHTS_HELP)] = "",
    workspace: WorkspaceOption = Path("data"),
    competition: CompetitionOption = None,
    seed: Annotated[int | None, typer.Option(help="of split and training")] = None,
    hyp: Annotated[Path | None, typer.Option(help="hyper-parameters to train with, such as evolved.yaml")] = None,
    folds: Annotated[str, typer.Option(help="trainings, each without one of these folds: 0,1,2 for three")] = "",
    about: Annotated[bool, typer.Option("--about", help="from images, size and model alone, without a step")] = False,
    changes: ChangesOption = None,
) -> None:
    """Says what each stage of `run` takes here, from real steps, and what a budget affords: --set budget_hours=6.

    What is not said here is as the workspace's `run.yaml` has it.
    """
    from ..config import parse_overrides
    from ..pipeline.run import make_run
    from .plan import make_and_describe

    run = make_run(
        competition=competition or "", profile=profile, workspace=workspace, data=data or "", reader=reader, seed=seed,
        weights=weights, hyp=hyp or "", folds=_read_folds(folds) if folds else [],
        overrides=parse_overrides(_with_family(family, changes)) or None,
    )
    typer.echo(make_and_describe(run, measures=not about))


def _with_family(family: str, changes: list[str] | None) -> list[str]:
    return [*([f"family={family}"] if family else []), *(changes or [])]


def _read_folds(text: str) -> list[int]:
    """`0,1,2` as numbers. Raises ValueError for anything else than different folds, 0 to 4."""
    folds = [part.strip() for part in text.split(",")]
    if not set(folds) <= set("01234") or len(set(folds)) < len(folds):
        raise ValueError(f"folds: expected different numbers from 0 to 4 such as 0,1,2, found {text!r}")
    return [int(fold) for fold in folds]


@app.command()
def evolve(
    data: DataOption = None,
    reader: ReaderOption = "auto",
    profile: Annotated[str, typer.Option(help="demo, cpu or colab: model, image size, epochs of a trial")] = "demo",
    family: FamilyOption = "",
    weights: Annotated[str, typer.Option(help=WEIGHTS_HELP)] = "",
    workspace: WorkspaceOption = Path("data"),
    competition: CompetitionOption = None,
    seed: Annotated[int, typer.Option(help="of split, training and search")] = 42,
    meta: Annotated[str, typer.Option(help="what is searched, with commas between")] = "lr0,lrf,momentum",
    hyp: Annotated[str, typer.Option(help="start values, a file in hyp/; default: the profile's")] = "",
    trials: Annotated[int | None, typer.Option(help="trials in all, over all workers and calls")] = None,
    sampler: Annotated[str, typer.Option(help="genetic, cmaes, tpe, gp or random")] = "genetic",
    pruner: Annotated[str, typer.Option(help="none, median or halving; default: none, with a budget halving")] = "",
    fitness: Annotated[str, typer.Option(help="AP at the competition's IoU; yolov5: 0.1 AP50 + 0.9 mAP50-95")] = "AP",
    study: Annotated[str, typer.Option(help="name; another space or other data need another name")] = "evolve",
    storage: Annotated[str, typer.Option(help="postgresql://… shared by workers; default: a file here")] = "",
    budget_minutes: Annotated[float | None, typer.Option(help="end before the session does")] = None,
    backup: Annotated[Path | None, typer.Option(help="a copy of the study after every trial, on Drive say")] = None,
    evolve_csv: Annotated[Path | None, typer.Option(help="YOLOv5's evolve.csv to go on from")] = None,
    verify: Annotated[bool, typer.Option(help="judge the best on a fresh fold, three seeds")] = True,
    changes: ChangesOption = None,
) -> None:
    """Searches hyper-parameters; run it again to go on, on several machines at once with one --storage."""
    from ..config import parse_overrides
    from ..pipeline import evolve
    from ..pipeline.run import make_run

    run = make_run(
        competition=competition or "", profile=profile, workspace=workspace, data=data or "", reader=reader, seed=seed,
        weights=weights, overrides=parse_overrides(_with_family(family, changes)), fresh=True,
    )
    names = [name.strip() for name in meta.split(",") if name.strip()]
    options = {"meta": names, "start_hyp": hyp, "n_trials": trials, "sampler": sampler, "pruner": pruner,
               "fitness": fitness, "study": study, "storage": storage, "budget_minutes": budget_minutes,
               "backup": backup}
    evolve.evolve_and_report(run, options, evolve_csv=evolve_csv, verifies=verify)


@app.command()
def train(
    data: DataOption = None,
    reader: ReaderOption = "auto",
    profile: Annotated[str, typer.Option(help="demo, cpu or colab: model, image size, epochs")] = "demo",
    family: FamilyOption = "",
    weights: Annotated[str, typer.Option(help=WEIGHTS_HELP)] = "",
    workspace: WorkspaceOption = Path("data"),
    competition: CompetitionOption = None,
    seed: Annotated[int, typer.Option(help="of split and training")] = 42,
    hyp: Annotated[str, typer.Option(help="hyper-parameters to train with, a file")] = "",
    folds: Annotated[str, typer.Option(help="trainings, each without one of these folds: 0,1,2 for three")] = "0",
    storage: Annotated[str, typer.Option(help="postgresql://… : machines with one workspace share the folds")] = "",
    changes: ChangesOption = None,
) -> None:
    """Reads, splits and trains, without a notebook; run it again to go on. `livestock predict` uses the weights."""
    from .. import api
    from ..config import parse_overrides
    from ..pipeline.run import make_run, save_settings

    run = make_run(
        competition=competition or "", profile=profile, workspace=workspace, data=data or "", reader=reader, seed=seed,
        weights=weights, hyp=hyp, folds=_read_folds(folds),
        overrides=parse_overrides(_with_family(family, changes)), fresh=True,
    )
    save_settings(run)  # for whatever else works in this workspace, such as `livestock fuse`
    for path in api.train(run, storage=storage):
        typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB; next: livestock predict --weights {path} --images DIR "
                   "--out boxes.csv")


@app.command()
def predict(
    weights: Annotated[Path, typer.Option(help="a file of weights: .safetensors, .pt or .onnx")],
    images: Annotated[Path, typer.Option(help="folder of images, or of the zips they are in")],
    out: Annotated[Path, typer.Option(help="CSV to write: image_id, label, confidence, corners; or a row a keypoint; "
                                         "in pixels, the picture's corner at (0, 0)")],
    iou: Annotated[
        float | None,
        typer.Option(help="of two boxes of a class that overlap more, the less confident goes; default: 0.6, and 1 for "
                          "D-FINE, which marks an object once"),
    ] = None,
    conf: Annotated[float, typer.Option(help="boxes of less confidence are left out")] = 0.25,
    imgsz: Annotated[int, typer.Option(help="pixels of the longer side; 0: as the model was trained")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda:0 ...; default: a GPU if there is one")] = "",
    boxes: Annotated[Path | None, typer.Option(help="of keypoints: the objects, a CSV as this writes of a detector")]
    = None,
    detector: Annotated[Path | None, typer.Option(help="of keypoints: weights that find the objects")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="of keypoints: look at the mirrored object too")] = False,
    from_centre: Annotated[bool, typer.Option("--from-centre", help="of keypoints: (0, 0) is the middle of the first "
                                              "pixel, as in lists, .cat files and DeepLabCut")] = False,
) -> None:
    """Writes the boxes that a model sees in images, as a table; `livestock run` writes a submission.

    Weights of the families heatmap and topdown give keypoints: image_id, object, keypoint, x, y, confidence. The
    objects are those of --boxes or of --detector, whose label and corners are written too, else each whole picture.
    """
    from .predict import Objects, write_predictions

    found = write_predictions(weights, images, out, iou=iou, conf=conf, imgsz=imgsz, device=device,
                              objects=Objects(boxes, detector, flip, from_centre))
    typer.echo(f"{out}: {found}")


@app.command()
def fuse(
    workspaces: Annotated[list[Path], typer.Argument(help="two or more finished runs on the same data and seed")],
    out: Annotated[Path, typer.Option(help="folder for answer.csv, the weights and ensemble.yaml")] = Path("ensemble"),
) -> None:
    """Fuses the answers of several runs, of any families, where that is shown to beat the first one alone."""
    from .fuse import write_fused

    write_fused(workspaces, out)


@app.command()
def read(
    path: Annotated[Path, typer.Argument(help="a data folder or a zip, as downloaded")],
    reader: ReaderOption = "auto",
    out: Annotated[Path | None, typer.Option(help="folder for images, boxes, keypoints.parquet, left_out.csv")] = None,
    competition: CompetitionOption = None,
    picture: Annotated[Path | None, typer.Option(help="PNG of four images; default: in --out or temporary")] = None,
) -> None:
    """Reads data and says what is in it, and what would be left out or changed and why; trains nothing.

    Exits with 1 if no class has a box, or if an image file is neither used nor reported as left out.
    """
    import tempfile

    from ..config import find_competition, read_competition
    from .read import print_reading

    picture = picture or (out / "read.png" if out else Path(tempfile.gettempdir()) / "livestock_read.png")
    if not print_reading(path, reader, read_competition(find_competition(competition)), out, picture):
        raise typer.Exit(1)


@app.command()
def download(
    directory: Annotated[Path, typer.Argument(help="folder for the pictures and tables; a second call goes on")],
    split: Annotated[str, typer.Option(help="validation, test or train (2.3 GB of tables)")] = "validation",
    limit: Annotated[int, typer.Option(help="the most pictures to download")] = 500,
    competition: CompetitionOption = None,
) -> None:
    """Downloads pictures of the competition's classes and their boxes from Open Images (public, CC BY 2.0)."""
    from ..config import find_competition, read_competition
    from ..data.readers.open_images import download_open_images

    classes = read_competition(find_competition(competition))
    missing = download_open_images(directory, classes, split=split, limit=limit)
    if len(missing):
        typer.echo(f"{len(missing)} pictures could not be had: {directory / 'not_downloaded.csv'} says why")
    typer.echo(f"next: livestock run --data {directory} --reader open_images --profile cpu")


@app.command()
def sample(
    directory: Annotated[Path, typer.Argument(help="folder that gets train/, test/ and truth_test.csv")],
    seed: Annotated[int, typer.Option(help="another seed, other barns and animals")] = 0,
    n_train: Annotated[int, typer.Option(help="training images")] = 240,
    n_test: Annotated[int, typer.Option(help="test images")] = 60,
    scale: Annotated[float, typer.Option(help="1 draws 1920 x 1080 and 1280 x 960 px")] = 1 / 3,
    missing_cow_fraction: Annotated[float, typer.Option(help="share of cow boxes to leave out of the labels")] = 0.0,
) -> None:
    """Draws the embedded sample: barn scenes in AI Hub's own archive layout, with the test set's truth."""
    from ..sample import draw_sample

    draw_sample(
        directory, seed=seed, n_train=n_train, n_test=n_test, scale=scale, missing_cow_fraction=missing_cow_fraction
    )


@app.command()
def score(
    truth: Annotated[Path, typer.Argument(help="CSV: ImageID,LabelName,XMin,XMax,YMin,YMax; keypoints: COCO's JSON, a "
                                               "CSV as `predict` writes with a column visible, or a folder with labels "
                                               "and its --competition")],
    answer: Annotated[Path, typer.Argument(help="CSV: ImageID,LabelName,Conf,XMin,XMax,YMin,YMax; keypoints: a CSV as "
                                                "`predict` writes")],
    other: Annotated[Path | None, typer.Argument(help="a second answer, to compare with the first")] = None,
    iou: Annotated[float | None, typer.Option(help="IoU from which a box counts as found; default: 0.75, and 0.5 for "
                                                   "the boxes of keypoints")] = None,
    images: Annotated[Path | None, typer.Option(help="the images, to group near-duplicates for the interval")] = None,
    group_pattern: Annotated[str | None, typer.Option(help="images whose paths agree in its (groups) are one")] = None,
    competition: Annotated[Path | None, typer.Option(help="of keypoints: the file with the skeleton")] = None,
) -> None:
    """Prints mAP as the competition's scorer has it and as is usual, with each class's AP.

    With two answers also how far apart they are, with the 95 % interval over groups of near-duplicates if the images
    are given, else over images, which is too narrow where several are frames of one camera.

    Of keypoints: errors in pixels, the share within 5 % of the diagonal of the object's box (PCK), OKS AP where
    --competition has a skeleton, and beside it what a guess is worth that looks at no image.
    """
    from ..data.point_files import holds_points
    from .score import IOU, print_scores
    from .score_points import POINTS_IOU, print_point_scores

    if truth.is_dir() or holds_points(truth):
        files = [path for path in (answer, other) if path is not None]
        print_point_scores(truth, files, competition, images, group_pattern, POINTS_IOU if iou is None else iou)
    else:
        print_scores(truth, answer, other, IOU if iou is None else iou, images, group_pattern)


@app.command()
def check(
    answer: Annotated[Path, typer.Argument(help="the submission")],
    images: Annotated[Path, typer.Option(help="folder of the test images, or of the zips they are in")],
    weights: Annotated[list[Path] | None, typer.Option(help="a file that inference loaded; again for more")] = None,
    competition: CompetitionOption = None,
    boxless: Annotated[Path | None, typer.Option(help="names of images that have no box, one a line")] = None,
    pixels: Annotated[bool, typer.Option(help="corners are in pixels, not divided by the size")] = False,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="an answer without any box is meant")] = False,
) -> None:
    """Says in words what is wrong with a submission (exit code 1), or that all is well."""
    from ..config import find_competition
    from .check import print_check

    if not print_check(answer, images, weights or [], find_competition(competition), boxless=boxless, pixels=pixels,
                       allow_empty=allow_empty):
        raise typer.Exit(1)


@app.command()
def models(competition: CompetitionOption = None) -> None:
    """Lists what can be trained: size, published AP, licence, and what fits the limit of weights."""
    from ..config import find_competition, read_competition
    from .models import print_models

    print_models(read_competition(find_competition(competition)))


@app.command()
def trace(
    file: Annotated[Path | None, typer.Argument(help="a result in the workspace; default: its answer.csv")] = None,
    workspace: Annotated[Path, typer.Option(help="where the run wrote")] = Path("data"),
) -> None:
    """Says where a result came from: thresholds, weights, trainings, labels and raw data, by their hashes."""
    from ..config import Workspace
    from ..pipeline.trace import describe_trace

    typer.echo("\n".join(describe_trace(Workspace(workspace), file)))


def main() -> None:
    """Entry point of the command."""
    app()
