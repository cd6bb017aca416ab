"""The recipe of our loop, number by number: rates, warm-up, gradients of a step, averaged weights, validation.

Schedules, optimizers and averages are compared with yolov5's own, gradients with sums written out in numpy.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from livestock.config import REPOSITORY
from livestock.data.training_images import read_picture
from livestock.models.base import Batch, ModelConfig, Predictions
from livestock.models.registry import get_family
from livestock.models.yolov5 import library
from livestock.training import TrainConfig, train
from livestock.training.batches import read_images
from livestock.training.ema import Average
from livestock.training.loop import State, Steps, make_optimizer
from livestock.training.schedule import Schedule, decay
from livestock.training.scores import validate
from livestock.training.settings import Place

pytestmark = pytest.mark.usefixtures("one_thread")
HYP = {"lr0": 0.01, "lrf": 0.1, "momentum": 0.937, "warmup_epochs": 3.0, "warmup_momentum": 0.8, "warmup_bias_lr": 0.1}


@pytest.fixture(scope="module")
def yolov5() -> SimpleNamespace:
    """What of yolov5's recipe is compared with ours, as it is."""
    library.load()
    from yolov5.utils.general import one_cycle
    from yolov5.utils.torch_utils import ModelEMA, smart_optimizer

    return SimpleNamespace(one_cycle=one_cycle, average=ModelEMA, make_optimizer=smart_optimizer)


# -- rates -----------------------------------------------------------------------------------------------------------


def make_groups() -> list[dict]:
    return [{"first_lr": 0.01, "warmup_lr": warmup_lr, "momentum": 0.0} for warmup_lr in (0.1, 0.0)]


def rates_of_yolov5(batch: int, n_batches: int, epochs: int, hyp: dict) -> tuple[float, float, float, int]:
    """Learning rate of biases and weights, momentum and accumulation, written down from the description of its loop."""
    n_warmup, epoch = round(hyp["warmup_epochs"] * n_batches), batch // n_batches
    factor = (1 - epoch / epochs) * (1 - hyp["lrf"]) + hyp["lrf"]
    if batch > n_warmup:
        return hyp["lr0"] * factor, hyp["lr0"] * factor, hyp["momentum"], 4
    share = batch / n_warmup
    return (0.1 + share * (hyp["lr0"] * factor - 0.1), share * hyp["lr0"] * factor,
            0.8 + share * (hyp["momentum"] - 0.8), max(1, round(1 + share * 3)))


@pytest.mark.parametrize("batch", [0, 1, 44, 89, 90, 91, 150, 449])
def test_rates_are_those_of_yolov5(batch: int) -> None:
    schedule, groups = Schedule("linear", 15, 30, 4.0, HYP), make_groups()
    schedule.set_rates(groups, batch)
    bias, weights, momentum, n_each = rates_of_yolov5(batch, 30, 15, HYP)
    assert groups[0]["lr"] == pytest.approx(bias, abs=1e-12)
    assert groups[1]["lr"] == pytest.approx(weights, abs=1e-12)
    assert groups[0]["momentum"] == pytest.approx(momentum)
    assert schedule.accumulate(batch) == n_each


@given(st.integers(1, 200), st.floats(0, 5), st.integers(0, 2000))
def test_warm_up_lasts_as_long_as_the_file_says(n_batches: int, warmup_epochs: float, batch: int) -> None:
    schedule, groups = Schedule("linear", 10, n_batches, 1.0, {**HYP, "warmup_epochs": warmup_epochs}), make_groups()
    schedule.set_rates(groups, batch)
    is_warm = batch >= round(warmup_epochs * n_batches)
    assert (groups[0]["momentum"] == HYP["momentum"]) == is_warm
    assert is_warm <= (groups[0]["lr"] == groups[1]["lr"])


def test_a_short_training_is_warm_when_the_file_says(squares: Path, tmp_path: Path) -> None:
    """Three batches an epoch and a warm-up of one and a half epochs: four batches, the third ends the first epoch.

    What is noted is the rate of the weights: that of the biases falls from .1 meanwhile. yolov5 would still be warming
    up at the end.
    """
    text = (REPOSITORY / "hyp/demo.yaml").read_text(encoding="utf-8")
    for before, after in (("lr0: 0.0003", "lr0: 0.001"), ("warmup_epochs: 1.0", "warmup_epochs: 1.5"),
                          ("warmup_bias_lr: 0.0003", "warmup_bias_lr: 0.1"), ("lrf: 0.01", "lrf: 0.1")):
        assert before in text
        text = text.replace(before, after)
    (tmp_path / "hyp.yaml").write_text(text)
    config = TrainConfig(data_yaml=str(squares), weights=str(library.STARTER), hyp=str(tmp_path / "hyp.yaml"), imgsz=64,
                         batch=4, nominal_batch=4, epochs=2, device="cpu", workers=0, save=False)
    history = train(config, tmp_path / "run")
    assert history["lr"].tolist() == pytest.approx([0.001 * 2 / 4, 0.001 * 0.55])


@pytest.mark.parametrize("epoch", [0, 1, 7, 19])
def test_the_cosine_is_that_of_yolov5(epoch: int, yolov5: SimpleNamespace) -> None:
    assert decay("cosine", epoch, 20, 0.1) == pytest.approx(yolov5.one_cycle(1, 0.1, 20)(epoch))


def test_the_step_schedule_falls_twice() -> None:
    assert [decay("step", epoch, 20, 0.5) for epoch in (0, 13, 14, 17, 18, 19)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


# -- the optimizer and the average -----------------------------------------------------------------------------------


def make_network() -> nn.Module:
    """Weights, a bias, and a batch norm."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


@pytest.mark.parametrize("nominal", [64, 2], ids=["accumulated", "smaller than a batch"])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_steps_are_those_of_yolov5s_optimizer(name: str, nominal: int, yolov5: SimpleNamespace) -> None:
    """It scales the weight decay by batch * accumulation / nominal batch: 4 * 16 / 64, and 4 * 1 / 2."""
    hyp = {**HYP, "weight_decay": 0.05}
    config = TrainConfig("", "", "", imgsz=64, batch=4, epochs=1, nominal_batch=nominal, optimizer=name)
    networks = [make_network(), make_network()]
    optimizers = [make_optimizer(config, get_family("yolov5"), networks[0], hyp),
                  yolov5.make_optimizer(networks[1], name, 0.01, 0.937, 0.05 * {64: 1, 2: 2}[nominal])]
    for network, optimizer in zip(networks, optimizers, strict=True):
        generator = torch.Generator().manual_seed(1)
        for _ in range(3):
            for parameter in network.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
    start = make_network().state_dict()
    for key, tensor in networks[1].state_dict().items():
        torch.testing.assert_close(networks[0].state_dict()[key], tensor, rtol=1e-6, atol=1e-7)
        assert "running" in key or "tracked" in key or not torch.equal(tensor, start[key])


def test_averaged_weights_are_those_of_yolov5(yolov5: SimpleNamespace) -> None:
    model = make_network()
    own, theirs = Average(model), yolov5.average(copy.deepcopy(model))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        model(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        own.update(model)
        theirs.update(model)
    expected = theirs.ema.state_dict()
    for name, tensor in own.model.state_dict().items():
        if tensor.dtype.is_floating_point:
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-7)
    assert own.n_steps == theirs.updates == 5
    assert not own.model.training


def test_averaged_weights_move_by_the_decay() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    average = Average(model)
    torch.nn.init.constant_(model.weight, 3.0)
    average.update(model)
    share = 1 - 0.9999 * (1 - np.exp(-1 / 2000))
    assert average.model.weight.item() == pytest.approx(1 + 2 * share, rel=1e-6)


# -- gradients of a step: a network of three numbers -----------------------------------------------------------------


START, RATE = np.array([0.5, -1.0, 2.0]), 0.05  # weights before the first step, and the learning rate


class Means(nn.Module):
    """Gives one number an image: its mean red, green and blue, weighted."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.from_numpy(START).float())

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) @ self.weights


def compute_loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The square of the distance to the number of boxes, in two parts, means over the images."""
    counts = torch.tensor([float(len(boxes)) for boxes in batch.boxes])
    mean = (model(batch.images) - counts).square().mean()
    return {"near": mean / 4, "far": mean * 3 / 4}


@dataclass
class Run:
    """An epoch of plain gradient descent over images of one colour each, `(n, 3)`, and what came of it."""

    sums_loss: bool
    hyp: dict[str, float] = field(default_factory=dict)
    n_images: int = 7
    batch: int = 2
    ratio: float = 3.0
    world: int = 1
    is_clipped_by_hyp: bool = True
    scaler: Any = None
    gradients: list[np.ndarray] = field(default_factory=list)  # step by step, as the optimizer gets them
    reports: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.colours, self.counts = rng.integers(0, 256, (self.n_images, 3)), rng.integers(0, 4, self.n_images)
        hyp = {"lr0": RATE, "lrf": 1.0, "momentum": 0.0, "clip_norm": 1e9, **self.hyp}
        if not self.is_clipped_by_hyp:
            del hyp["clip_norm"]
        model = Means()
        optimizer = torch.optim.SGD([{"params": [model.weights], "first_lr": hyp["lr0"], "warmup_lr": 0.0}], RATE)
        optimizer.register_step_pre_hook(lambda *_: self.gradients.append(model.weights.grad.numpy().copy()))
        self.state = State(model, Average(model), optimizer, self.scaler or torch.amp.GradScaler("cpu", enabled=False))
        starts = range(0, self.n_images, self.batch)
        config = TrainConfig("", "", "", imgsz=32, batch=self.batch * self.world, epochs=1)
        family: Any = SimpleNamespace(sums_loss=self.sums_loss)
        steps = Steps(self.state, Schedule("linear", 1, len(starts), self.ratio, hyp), compute_loss, model, config,
                      family, hyp, Place("cpu", 0, self.world))
        self.losses = steps.run(0, [self.make_batch(start) for start in starts], self.reports.append)

    def make_batch(self, start: int) -> Batch:
        own = slice(start, start + self.batch)
        pixels = torch.from_numpy(self.colours[own].astype(np.uint8))[:, :, None, None].expand(-1, -1, 4, 4)
        n_boxes = self.counts[own].tolist()
        return Batch(pixels, [torch.zeros(n, 4) for n in n_boxes], [torch.zeros(n, dtype=torch.int64) for n in n_boxes])

    def image_gradients(self, images: slice, weights: np.ndarray) -> np.ndarray:
        """Of the loss of each image, `(n, 3)`, by hand."""
        colours = self.colours[images] / 255
        return 2 * (colours @ weights - self.counts[images])[:, None] * colours

    @property
    def weights(self) -> np.ndarray:
        return self.state.model.weights.detach().numpy()


@pytest.mark.parametrize("sums_loss", [True, False])
def test_the_gradient_of_a_step_is_that_of_its_images(sums_loss: bool) -> None:
    """Batches of two, three of them in a step: six images and, since the epoch ends there, one.

    Their sum where the family's rate is for sums; else their mean, to which the one image at the end adds as much as
    each of the six did.
    """
    run = Run(sums_loss)
    first = run.image_gradients(slice(0, 6), START).sum(axis=0) / (1 if sums_loss else 6)
    second = run.image_gradients(slice(6, 7), START - RATE * first).sum(axis=0) / (1 if sums_loss else 6)
    np.testing.assert_allclose(run.gradients, [first, second], rtol=1e-4)
    np.testing.assert_allclose(run.weights, START - RATE * (first + second), rtol=1e-4)
    assert run.state.average.n_steps == 2


@pytest.mark.parametrize("sums_loss", [True, False])
def test_of_several_processes_each_gradient_is_counted_so_that_their_mean_is_right(sums_loss: bool) -> None:
    """Each has its share of a batch, here two of its six images, and gradients are averaged over the processes."""
    shares = Run(sums_loss, n_images=2, world=3, ratio=1.0).gradients
    expected = Run(sums_loss, n_images=2).image_gradients(slice(0, 2), START).sum(axis=0) * 3
    np.testing.assert_allclose(shares, [expected / (1 if sums_loss else 6)], rtol=1e-4)


def test_losses_are_means_over_the_images() -> None:
    """The last batch has one image, and counts as one; the weights of each batch are those of its time."""
    run = Run(sums_loss=True, ratio=1.0)
    squares, weights = [], START
    for start in range(0, 7, 2):
        own = slice(start, start + 2)
        squares.extend((run.colours[own] / 255 @ weights - run.counts[own]) ** 2)
        weights = weights - RATE * run.image_gradients(own, weights).sum(axis=0)
    assert run.losses == {"train_near_loss": pytest.approx(np.mean(squares) / 4, rel=1e-4),
                          "train_far_loss": pytest.approx(np.mean(squares) * 3 / 4, rel=1e-4)}
    assert run.reports[-1]["epochs_done"] == 1.0
    assert run.reports[-1]["scores"] == pytest.approx({"near": np.mean(squares) / 4, "far": np.mean(squares) * 3 / 4})


@pytest.mark.parametrize(("is_clipped_by_hyp", "most"), [(True, 0.5), (False, 10.0)])
def test_gradients_are_clipped_to_a_norm(is_clipped_by_hyp: bool, most: float) -> None:
    """To that of the hyper-parameters, or to yolov5's 10: the sum over these images is longer, the mean is not."""
    run = Run(sums_loss=True, hyp={"clip_norm": 0.5}, is_clipped_by_hyp=is_clipped_by_hyp, ratio=100.0)
    whole = run.image_gradients(slice(0, 7), START).sum(axis=0)
    assert 10.5 < np.linalg.norm(whole) < 70
    np.testing.assert_allclose(run.gradients, [whole * most / np.linalg.norm(whole)], rtol=1e-4)
    if not is_clipped_by_hyp:
        mean = Run(sums_loss=False, is_clipped_by_hyp=False, ratio=3.5).gradients
        np.testing.assert_allclose(mean, [whole / 8], rtol=1e-4)  # four batches of two make a step


def test_a_gradient_that_overflows_mixed_precision_is_skipped_and_leaves_nothing_behind() -> None:
    """fp16 begins with a scale that may be too large. Afterwards gradients are clipped at their true size."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    run = Run(sums_loss=True, scaler=scaler, hyp={"lr0": 0.0}, ratio=100.0)
    assert run.gradients == []
    assert scaler.get_scale() == 2.0**126
    whole = run.image_gradients(slice(0, 7), START).sum(axis=0)
    after = Run(sums_loss=True, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**20), ratio=100.0,
                hyp={"clip_norm": 0.5})
    np.testing.assert_allclose(after.gradients, [whole * 0.5 / np.linalg.norm(whole)], rtol=1e-4)


def test_a_loss_that_is_not_finite_ends_the_epoch_with_what_to_do() -> None:
    with pytest.raises(FloatingPointError, match=r"epoch 0: the near loss is (nan|inf): .* A lower lr0"):
        Run(sums_loss=True, hyp={"lr0": 1e30}, ratio=1.0, n_images=40)


# -- validation ------------------------------------------------------------------------------------------------------


class Finder:
    """A family whose network is right about each square, but for a part on its right, and finds each twice."""

    resize = "letterbox"

    def __init__(self, *, needs_nms: bool) -> None:
        self.needs_nms = needs_nms

    def predict(self, model: nn.Module, images: Tensor) -> Predictions:
        """Squares are by far greener than the rest. The further to the right, the less confident."""
        found = []
        for green in images[:, 1]:
            rows, columns = (torch.nonzero((green > 0.55).any(axis)).flatten() for axis in (1, 0))
            left, width = float(columns[0]), float(columns[-1] + 1 - columns[0])
            box = [left, float(rows[0]), left + width * 5 / 8, float(rows[-1]) + 1]
            found.append([box, box])
        boxes = torch.tensor(found)
        return Predictions(boxes, (0.9 - boxes[:, :, :1] / 100 - torch.tensor([[0.0], [0.001]])))


@pytest.mark.parametrize(("metric_iou", "is_true"), [(0.6, True), (0.65, False)])
@pytest.mark.parametrize("needs_nms", [True, False])
def test_validation_scores_what_the_family_predicts(
    needs_nms: bool, metric_iou: float, is_true: bool, squares: Path
) -> None:
    """IoU is 5 / 8 in each picture. Without suppression each box is followed by a wrong one, its own copy."""
    images = read_images(squares, "val")
    family: Any = Finder(needs_nms=needs_nms)
    config = TrainConfig(str(squares), "", "", imgsz=64, batch=3, epochs=1, metric_iou=metric_iou)

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"green": batch.images[:, 1].mean(), "boxes": torch.cat(batch.boxes)[:, 0].mean()}

    found = validate(nn.Identity().eval(), ModelConfig("finder", ("pig",), 64), family, loss, images, config, "cpu")
    assert len(images) == 4  # in batches of three and one
    ap = 1.0 if needs_nms else np.mean([1 / 1, 2 / 3, 3 / 5, 4 / 7])  # precision at each of the four
    greens = [read_picture(path, (64, 64))[..., 1].mean() / 255 for path in images.paths]
    assert found == pytest.approx({
        "AP": ap if is_true else 0.0, "AP50": ap, "AP75": 0.0, "mAP50_95": ap * 3 / 10,
        "precision": 1.0 if needs_nms else 4 / 7, "recall": 1.0, "val_green_loss": np.mean(greens),
        "val_boxes_loss": np.mean([boxes[0, 0] for boxes in images.boxes])}, abs=1e-5)
