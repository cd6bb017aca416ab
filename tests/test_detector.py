"""Training for real, on a few tiny images, and boxes in the pixels they belong to."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from livestock.config import REPOSITORY
from livestock.data.dataset import write_images, write_labels, write_lists
from livestock.models import yolov5
from livestock.models.yolov5.child import _choose_by_metric, _set_nominal_batch
from livestock.models.yolov5.training import HISTORY_COLUMNS
from livestock.models.yolov5.weights import load_checkpoint
from livestock.plots.training import best_epoch, plot_scores
from livestock.tables import make_boxes, make_images

LABELS = ["pig", "cow"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Twelve grey images in two shapes, each with one bright square."""
    folder = tmp_path_factory.mktemp("pictures")
    records = []
    for index in range(12):
        width, height = (128, 96) if index % 2 else (96, 160)
        picture = np.full((height, width, 3), 60, np.uint8)
        picture[20:60, 30:70] = (40, 200, 90)
        cv2.imwrite(str(folder / f"{index:02d}.jpg"), picture)
        records.append({"image_id": f"{index:02d}.jpg", "archive": str(folder), "member": f"{index:02d}.jpg",
                        "width": width, "height": height})
    return make_images(records)


@pytest.fixture(scope="module")
def config(images: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> yolov5.TrainConfig:
    folder = tmp_path_factory.mktemp("yolo data")
    square = {"x_min": 30, "y_min": 20, "x_max": 70, "y_max": 60}
    boxes = make_boxes([{"image_id": image_id, "label": LABELS[i % 2], **square}
                        for i, image_id in enumerate(images["image_id"])])
    write_images(images, folder, imgsz=64)
    write_labels(images, boxes, LABELS, folder)
    data_yaml = write_lists(folder, "tiny", images["image_id"][:8], images["image_id"][8:], LABELS)
    return yolov5.TrainConfig(data_yaml=str(data_yaml), weights="", cfg="yolov5n.yaml", imgsz=64, batch=4, epochs=2,
                                hyp=str(REPOSITORY / "hyp/baseline.yaml"), device="cpu", workers=0)


@pytest.fixture(scope="module")
def run_dir(config: yolov5.TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a run"  # a path with a space
    yolov5.train(config, folder)
    return folder


def test_training_leaves_history_and_weights(run_dir: Path, config: yolov5.TrainConfig) -> None:
    history = yolov5.read_history(run_dir)
    assert history["epoch"].tolist() == [0, 1]
    assert np.isfinite(history.drop(columns="epoch")).all(axis=None)
    assert json.loads((run_dir / "config.json").read_text()) == asdict(config)
    events = [json.loads(line) for line in (run_dir / "progress.jsonl").read_text().splitlines()]
    assert events[-1]["epochs_done"] == 2
    assert set(events[-1]["scores"]) == {"AP", "AP50", "AP75", "mAP50_95"}


def test_training_leaves_the_mean_of_its_last_epochs(run_dir: Path) -> None:
    weights_dir = run_dir / "weights"
    last, first = (load_checkpoint(weights_dir / f"epoch{n:04d}.pt")["model"].float().state_dict() for n in (1, 0))
    mean = load_checkpoint(weights_dir / "averaged.pt")["model"].state_dict()
    key = "model.0.conv.weight"
    assert not torch.equal(first[key], last[key])
    torch.testing.assert_close(mean[key], ((first[key] + last[key]) / 2).half())


def test_an_epoch_is_kept_with_the_averaged_weights_of_its_checkpoint(run_dir: Path) -> None:
    kept, checkpoint = (load_checkpoint(run_dir / "weights" / name)["model"] for name in ("epoch0001.pt", "last.pt"))
    assert not any(parameter.requires_grad for parameter in kept.parameters())
    assert kept.state_dict().keys() == checkpoint.state_dict().keys()
    for name, tensor in checkpoint.state_dict().items():
        assert torch.equal(kept.state_dict()[name], tensor), name


def test_submitted_weights_are_half_and_stripped(run_dir: Path, tmp_path: Path) -> None:
    written = yolov5.write_weights(run_dir / "weights/last.pt", tmp_path / "weights.pt")
    model = yolov5.load_model(written)
    checkpoint = torch.load(written, weights_only=True)
    assert {parameter.dtype for parameter in checkpoint["model"].parameters()} == {torch.float16}
    assert set(checkpoint) == {"model", "epoch"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert written.stat().st_size < 4_000_000
    assert dict(model.names) == dict(enumerate(LABELS))


def test_a_crash_leaves_this_process_alive_and_shows_the_log(config: yolov5.TrainConfig, tmp_path: Path) -> None:
    broken = replace(config, hyp=str(tmp_path / "missing.yaml"))
    with pytest.raises(RuntimeError, match=r"exit status 1; the end of .*train\.log:\n(.|\n)*missing\.yaml"):
        yolov5.train(broken, tmp_path / "run")


def test_the_nominal_batch_reaches_the_optimizer(config: yolov5.TrainConfig, tmp_path: Path) -> None:
    """yolov5 scales weight decay by batch * accumulate / nominal batch: 4 * 1 / 2, where 64 leaves it as it is."""
    yolov5.train(replace(config, epochs=1, nominal_batch=2), tmp_path / "run")
    assert "weight(decay=0.001)" in (tmp_path / "run/train.log").read_text()


def test_a_trial_reports_each_epoch_and_saves_nothing(config: yolov5.TrainConfig, tmp_path: Path) -> None:
    epochs: list[dict[str, float]] = []
    history = yolov5.train(replace(config, save=False), tmp_path / "run", epochs.append)
    reported = pd.DataFrame(epochs)
    assert {"AP", "AP75", "mAP50_95", "val_box_loss", "precision"} <= set(reported)
    shared = [name for name in history if name in reported]
    np.testing.assert_allclose(reported[shared], history[shared], rtol=1e-3, atol=1e-6)  # the file has five digits
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_what_on_epoch_raises_ends_the_training(config: yolov5.TrainConfig, tmp_path: Path) -> None:
    class EnoughError(Exception):
        pass

    def stop(scores: dict[str, float]) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        yolov5.train(replace(config, epochs=50), tmp_path / "run", stop)
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if str(tmp_path / "run") in command]


def validation(ap_per_class: Any) -> SimpleNamespace:
    """What `_choose_by_metric` changes of yolov5's training."""
    return SimpleNamespace(validate=SimpleNamespace(torch=torch, ap_per_class=ap_per_class), fitness=None)


def test_ap_is_the_mean_over_classes_with_truth() -> None:
    """At IoU 0.75 class 0 finds two of three, a wrong box between them: 1/3 * 1 + 1/3 * 2/3; class 1 nothing: 0.

    At the metric's IoU it finds the first alone: 1/3. yolov5 gets the ten columns that it knows.
    """
    yolov5_train = validation(lambda tp, *arguments, **options: tp.shape)
    latest = _choose_by_metric(yolov5_train, 0.9)
    tp = np.zeros((3, 11), bool)
    tp[[0, 2], 5], tp[0, 10] = True, True  # the sixth column is IoU 0.75, the eleventh the metric's
    confidence, predicted, true = np.array([0.9, 0.8, 0.7]), np.zeros(3), np.array([0, 0, 0, 1])
    assert yolov5_train.validate.ap_per_class(tp, confidence, predicted, true, names={}) == (3, 10)
    assert latest == {"AP": pytest.approx((1 / 3 + 0) / 2), "AP75": pytest.approx((5 / 9 + 0) / 2)}
    assert yolov5_train.fitness(np.zeros((1, 7))).tolist() == [latest["AP"]]


@pytest.mark.parametrize(("metric_iou", "expected"), [(0.3, 1.0), (0.6, 1.0), (0.62, 0.0), (0.95, 0.0)])
def test_boxes_are_matched_at_any_iou_of_a_metric(metric_iou: float, expected: float) -> None:
    """yolov5's own matching of a box of 100 x 100 px, of which the detection covers 61 %: true up to IoU 0.61."""
    from yolov5.val import process_batch

    yolov5_train = validation(lambda *arguments, **options: None)
    latest = _choose_by_metric(yolov5_train, metric_iou)
    ious = yolov5_train.validate.torch.linspace(0.5, 0.95, 10, device="cpu")
    assert len(ious) == 11
    torch.testing.assert_close(ious[:10], torch.linspace(0.5, 0.95, 10), rtol=0, atol=0)
    detections = torch.tensor([[0.0, 0.0, 100.0, 61.0, 0.9, 0.0]])
    correct = process_batch(detections, torch.tensor([[0.0, 0.0, 0.0, 100.0, 100.0]]), ious)
    yolov5_train.validate.ap_per_class(correct.numpy(), np.array([0.9]), np.zeros(1), np.zeros(1), names={})
    assert latest == {"AP": expected, "AP75": 0.0}


def test_the_kept_epoch_is_the_best_by_the_metric(run_dir: Path) -> None:
    """And the one that the figure marks; yolov5's own 0.1 AP50 + 0.9 mAP50-95 has no say."""
    history = yolov5.read_history(run_dir)
    kept, best = (load_checkpoint(run_dir / "weights" / name)["model"].state_dict()
                  for name in (f"epoch{best_epoch(history):04d}.pt", "best.pt"))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in best.items())


def test_the_marked_epoch_is_the_later_of_equals_by_the_metric() -> None:
    history = pd.DataFrame({"epoch": [0, 1, 2, 3], "AP": [0.1, 0.4, 0.4, 0.3], "AP50": [0.9, 0.5, 0.5, 0.9],
                            "mAP50_95": [0.9, 0.2, 0.2, 0.9], "precision": 0.5, "recall": 0.5})
    assert best_epoch(history) == 2
    axes = plot_scores(history, 0.6)
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "kept: epoch 2" in shown
    assert "AP at IoU 0.6" in shown


def test_scores_of_an_epoch_outlive_a_kill(tmp_path: Path) -> None:
    """A half line, then the epoch again: the last whole line of each epoch counts."""
    columns = list(HISTORY_COLUMNS)
    rows = "".join(f"{epoch}," + ",".join("0.5" for _ in columns[1:]) + "\n" for epoch in range(2))
    (tmp_path / "results.csv").write_text(",".join(columns) + "\n" + rows)
    scores = tmp_path / "scores.jsonl"
    scores.write_text('\n{"epoch": 0, "AP": 0.25, "AP75": 0.5}\n\n{"epoch": 1, "AP": 0.1, "AP75": 0.1}\n'
                      '\n{"epoch": 1, "A\n{"epoch": 1, "AP": 0.75, "AP75": 1.0}\n')
    assert yolov5.read_history(tmp_path)[["AP", "AP75"]].to_numpy().tolist() == [[0.25, 0.5], [0.75, 1.0]]
    scores.write_text('\n{"epoch": 0, "AP": 0.25, "AP75": 0.5}\n')
    with pytest.raises(ValueError, match=r"scores\.jsonl: expected the scores of epoch 1, found none"):
        yolov5.read_history(tmp_path)


def test_a_training_that_diverges_ends_and_writes_no_such_weights(
    config: yolov5.TrainConfig, tmp_path: Path
) -> None:
    hyp = (REPOSITORY / "hyp/baseline.yaml").read_text()
    (tmp_path / "wild.yaml").write_text(re.sub(r"(?m)^(lr0|warmup_bias_lr):.*$", r"\1: 1.0e+15", hyp))
    with pytest.raises(RuntimeError, match=r"last\.pt: .*: expected finite numbers, found infinity or NaN in"):
        yolov5.train(replace(config, hyp=str(tmp_path / "wild.yaml")), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_a_changed_library_is_noticed() -> None:
    changed = SimpleNamespace(train=lambda: 128)
    with pytest.raises(RuntimeError, match="expected one constant 64, found 0"):
        _set_nominal_batch(changed, 16)


def test_unsafe_start_weights_are_refused_before_training(config: yolov5.TrainConfig, tmp_path: Path) -> None:
    torch.save({"model": print}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt: refused, .*print"):
        yolov5.train(replace(config, weights=str(tmp_path / "evil.pt")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_cannot_be_had_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    def offline(*args: object, **kwargs: object) -> None:
        raise requests.ConnectionError("no network")

    monkeypatch.setattr("requests.get", offline)
    with pytest.raises(ValueError, match=r"yolov5m6\.pt: not here and not downloadable .*put it at .*--weights"):
        yolov5.find_weights("yolov5m6.pt", tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no such file"):
        yolov5.find_weights("mine.pt", tmp_path)


def test_official_weights_are_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        def __enter__(self) -> Answer:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def raise_for_status(self) -> None:
            pass

        def iter_content(self, size: int) -> list[bytes]:
            return [b"wei", b"ghts"]

    calls: list[str] = []
    monkeypatch.setattr("requests.get", lambda url, **kwargs: calls.append(url) or Answer())
    for _ in range(2):
        assert yolov5.find_weights("yolov5n.pt", tmp_path).read_bytes() == b"weights"
    assert calls == ["https://github.com/ultralytics/yolov5/releases/download/v7.0/yolov5n.pt"]
