"""Averaged weights are the mean of the last epochs', and one model's alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from livestock.models.yolov5.averaging import N_AVERAGED, average_weights, epoch_weights, keep_epoch
from livestock.models.yolov5.weights import STARTER, load_checkpoint, load_model


def write_scaled(factor: float, path: Path) -> Path:
    """The starter with every floating number multiplied."""
    checkpoint = load_checkpoint(STARTER)
    model = checkpoint["model"].float()
    model.load_state_dict({key: value * factor if value.is_floating_point() else value
                           for key, value in model.state_dict().items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model, "epoch": -1}, path)
    return path


def test_the_mean_of_one_and_three_is_two(tmp_path: Path) -> None:
    sources = [write_scaled(factor, tmp_path / f"{factor}.pt") for factor in (0.25, 0.75)]
    found = load_checkpoint(average_weights(sources, tmp_path / "averaged.pt"))["model"]
    expected = load_checkpoint(write_scaled(0.5, tmp_path / "half.pt"))["model"].half().state_dict()
    assert {value.dtype for value in found.parameters()} == {torch.float16}
    for key, value in found.state_dict().items():
        torch.testing.assert_close(value, expected[key])
    load_model(tmp_path / "averaged.pt")  # it is a weights file like any other


def test_the_last_epochs_are_kept(tmp_path: Path) -> None:
    model = load_checkpoint(STARTER)["model"]
    for epoch in range(N_AVERAGED + 2):
        keep_epoch(model, tmp_path, epoch)
    assert [path.name for path in epoch_weights(tmp_path)] == [f"epoch{n:04d}.pt" for n in range(2, N_AVERAGED + 2)]


def yolov5n_of(n_classes: int) -> torch.nn.Module:
    """A model as yolov5 builds it."""
    from yolov5.models.yolo import DetectionModel

    return DetectionModel({**load_checkpoint(STARTER)["model"].yaml, "nc": n_classes})


def test_nothing_and_another_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"averaged.pt: expected weights to average, found none"):
        average_weights([], tmp_path / "averaged.pt")
    torch.save({"model": yolov5n_of(3), "epoch": -1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other.pt: expected the tensors of .*starter.safetensors, found another model"):
        average_weights([STARTER, tmp_path / "other.pt"], tmp_path / "averaged.pt")
