"""What is made once is not made again: not for another notebook, not in another folder, not for a copy of the data."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from livestock import inference, training
from livestock.config import REPOSITORY
from livestock.exceptions import StaleResult
from livestock.files.write import write_text
from livestock.inference import Candidates
from livestock.models.checkpoint import read_checkpoint, write_checkpoint
from livestock.models.yolov5.library import STARTER
from livestock.pipeline import prepare
from livestock.pipeline.predict import predict_oof, read_oof, trained_folds
from livestock.pipeline.prepare import read_data, read_tables, split_data
from livestock.pipeline.run import Run
from livestock.pipeline.run import make_run as make_pipeline_run
from livestock.pipeline.silver import SILVER_VIEWS, predict_views
from livestock.pipeline.students import evaluate_training
from livestock.pipeline.train import Training, train_fold, write_dataset
from livestock.sample import draw_sample
from livestock.tables import make_boxes, write_table
from livestock.training import AVERAGED, BEST, HISTORY, TrainConfig


def make_run(root: Path, **more: object) -> Run:
    """A run whose data lies in its workspace, as on Colab."""
    return make_pipeline_run(competition=str(REPOSITORY / "competition.yaml"), profile="smoke",
                             workspace=str(root), data=str(root / "raw"), reader="auto", seed=42, **more)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "raw"
    draw_sample(path, n_train=16, n_test=4, scale=0.15)
    return path


@pytest.fixture
def run(drawn: Path, tmp_path: Path) -> Run:
    shutil.copytree(drawn, tmp_path / "work/raw")
    return make_run(tmp_path / "work")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often something is read, trained and predicted; the network is made up, all else is real."""
    n: Counter[str] = Counter()

    def train(config: TrainConfig, run_dir: Path, *_: object, **__: object) -> None:
        n["trained"] += 1
        found = read_checkpoint(STARTER)
        for name, change in ((BEST, 0), (AVERAGED, 1)):
            first, tensor = next(iter(found.tensors.items()))
            (run_dir / "weights").mkdir(parents=True, exist_ok=True)
            write_checkpoint(run_dir / "weights" / name, found.config, {**found.tensors, first: tensor + change})
        write_text(f"{config.seed}", run_dir / HISTORY)

    def predict(model: object, images: pd.DataFrame, *_: object, **options: object) -> Candidates:
        n["predicted"] += 1
        rows = [{"image_id": name, "label": "pig", "x_min": 1, "y_min": 1, "x_max": 9, "y_max": 9, "confidence": 0.5,
                 "source": "model"} for name in images["image_id"]]
        return Candidates(make_boxes(rows), pd.Series(dtype=int), 0.1)

    examine = prepare.examine

    def count_readings(*arguments: object, **options: object) -> object:
        n["read"] += 1
        return examine(*arguments, **options)

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(inference, "find_candidates", predict)
    monkeypatch.setattr(prepare, "examine", count_readings)
    return n


def train_and_predict(run: Run) -> None:
    """What 04 and 05 do."""
    tables, images = read_data(run), split_data(run).images
    train_fold(run, write_dataset(run, images, tables.boxes, 0), 0)
    for look in SILVER_VIEWS:
        predict_oof(run, look, trained_folds(run))


def test_the_same_inference_runs_once(run: Run, counted: Counter) -> None:
    train_and_predict(run)
    assert counted["predicted"] == 2  # plain and flipped: at 64 px `larger` is as large
    predict_oof(run, "plain", [0])  # 08 asks for what 05 has seen
    assert counted["predicted"] == 2
    images, _ = read_oof(run, [0])
    fold0 = Training("fold", 0)
    predict_views(run, fold0, images)  # 06, with averaged weights: teachers' labels of the validation fold
    assert counted["predicted"] == 4  # other weights
    predict_views(run, fold0, images, ("plain", "flipped"))  # its suspects
    evaluate_training(run, fold0)  # its students' score, and 07's
    predict_oof(run, "averaged", [0])  # 08's methods
    assert counted["predicted"] == 4


def move_workspace(run: Run, to: Path) -> Run:
    shutil.copytree(run.workspace.root, to)  # files get other times of change
    shutil.rmtree(run.workspace.root)
    return make_run(to)


def move_data(run: Run, to: Path) -> Run:
    shutil.copytree(run.data_dir, to)
    shutil.rmtree(run.data_dir)
    return make_pipeline_run(competition=str(REPOSITORY / "competition.yaml"), profile="smoke",
                             workspace=str(run.workspace.root), data=str(to), reader="auto", seed=42)


@pytest.mark.parametrize("move", [move_workspace, move_data])
def test_a_move_makes_nothing_again(
    run: Run, counted: Counter, tmp_path: Path, move: Callable[[Run, Path], Run]
) -> None:
    train_and_predict(run)
    before = Counter(counted)
    assert before == {"read": 1, "trained": 1, "predicted": 2}
    moved = move(run, tmp_path / "elsewhere/deep")
    train_and_predict(moved)
    assert counted == before
    images, _ = read_tables(moved)
    assert np.all([Path(archive).exists() for archive in images["archive"]])


def test_other_labels_train_again(run: Run, counted: Counter) -> None:
    train_and_predict(run)
    boxes = run.workspace.interim_dir / "boxes.parquet"
    fewer = pd.read_parquet(boxes).iloc[1:]
    write_table(fewer, boxes)
    with pytest.raises(StaleResult, match=r"fold0_averaged\.safetensors: made from another interim/boxes\.parquet"):
        trained_folds(run)
    train_fold(run, write_dataset(run, split_data(run).images, fewer, 0), 0)
    assert trained_folds(run) == [0] and counted["trained"] == 2
