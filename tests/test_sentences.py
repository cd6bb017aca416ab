"""Each figure's sentence is right on made-up tables: one class, none, NaN, a hundred classes."""

from __future__ import annotations

import doctest
import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from livestock import plots
from livestock.config import REPOSITORY, Competition
from livestock.evaluation import (
    confusion_matrix,
    evaluate,
    evaluate_with_intervals,
    f1_threshold,
    group_errors,
    image_errors,
    match_usual,
)
from livestock.models import checkpoint
from livestock.models.base import ModelConfig
from livestock.models.checkpoint import Checkpoint
from livestock.plots import sentences
from livestock.plots.training import epoch_noise
from livestock.tables import make_boxes, make_images

MODULES = ["plots.sentences.words", "plots.sentences.data", "plots.sentences.errors", "plots.sentences.scores",
           "plots.sentences.training", "plots.training", "plots.errors", "evaluation.confusion"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_right(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"livestock.{name}"))
    assert found.failed == 0
    assert found.attempted or name.endswith("scores")


def box(x_min: float, label: str = "pig", confidence: float = 1.0, image_id: str = "a.jpg") -> dict:
    return {"image_id": image_id, "label": label, "x_min": x_min, "y_min": 0.0, "x_max": x_min + 100, "y_max": 100.0,
            "confidence": confidence, "source": "gold" if confidence == 1 else "model"}


def images_of(groups: dict[str, int]) -> pd.DataFrame:
    return make_images([{"image_id": name, "archive": "", "member": name, "width": 640, "height": 300, "group": group,
                         "fold": 0} for name, group in groups.items()])


IMAGES = images_of({"a.jpg": 0, "b.jpg": 0, "c.jpg": 1, "d.jpg": -1})
TRUTH = make_boxes([box(0), box(200), box(400, "cow"), box(0, "cow", image_id="c.jpg")])
ANSWER = make_boxes([box(0, confidence=0.9), box(2, confidence=0.8), box(400, "pig", 0.7), box(0, "cow", 0.6, "c.jpg"),
                     box(500, "pig", 0.01, "d.jpg")])
NONE = make_boxes([])


def history(*ap: float) -> pd.DataFrame:
    return pd.DataFrame({"epoch": range(len(ap)), "AP": ap, "precision": 0.5, "recall": 0.5, "AP50": 0.5,
                         "mAP50_95": 0.4})


@pytest.mark.parametrize(("kept", "start", "begins"), [
    (0.60, 0.50, "It learns: "),
    (0.51, 0.50, "It is not shown to learn: "),
    (0.50, 0.50, "It does not learn here: "),
    (0.40, 0.50, "It does not learn here: "),
    (0.60, None, "The start weights were trained for other classes"),
])
def test_it_says_whether_a_training_learns(kept: float, start: float | None, begins: str) -> None:
    noisy = history(0.3, 0.50, 0.52, 0.50, 0.52)
    assert epoch_noise(noisy) == pytest.approx(2 * np.std([0.50, 0.52, 0.50, 0.52], ddof=1))
    assert sentences.describe_learning(noisy, kept, start).startswith(begins)


def test_start_weights_of_other_classes_are_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    from livestock.pipeline import predict

    run = SimpleNamespace(competition=SimpleNamespace(labels=["pig", "cow"], label_of=None))
    monkeypatch.setattr(predict, "read_config", lambda run, training: SimpleNamespace(weights="w.pt"))
    monkeypatch.setattr(predict, "read_oof", lambda run, folds: (IMAGES, TRUTH))
    monkeypatch.setattr(predict, "predict_boxes", lambda *given: ANSWER)
    config = ModelConfig("yolov5", (), 64)
    for names, found in ((["pig", "cow"], ANSWER), ([f"c{n}" for n in range(80)], None), (["cow", "pig"], None)):
        known = Checkpoint(replace(config, labels=tuple(names)), {}, {})
        monkeypatch.setattr(checkpoint, "read_checkpoint", {Path("w.pt"): known}.__getitem__)
        assert predict.predict_start(run, 0) is found  # type: ignore[arg-type]


def test_one_epoch_cannot_tell() -> None:
    assert sentences.describe_learning(history(0.5), 0.6, 0.5).startswith("Whether it learns cannot be told")


def test_the_start_weights_and_the_noise_are_drawn() -> None:
    axes = plots.plot_scores(history(0.3, 0.5, 0.6), 0.75, start=0.45)
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "AP of the start weights: 0.450" in texts and any(text.startswith("noise of AP") for text in texts)
    without = plots.plot_scores(history(0.3, 0.5, 0.6)).get_legend().get_texts()
    assert not any("start" in text.get_text() for text in without)
    plt.close("all")


def test_losses_that_rise_are_overfitting() -> None:
    table = pd.DataFrame({"epoch": [0, 1, 2], "train_box_loss": [4.0, 3, 2], "val_box_loss": [3.0, 2, 2.5]})
    assert sentences.describe_losses(table) == (
        "From epoch 0 to 2 the training loss fell by 50%; the validation loss is lowest in epoch 1 and ends 25% above "
        "that: overfitting.")
    assert "no overfitting" in sentences.describe_losses(table.assign(val_box_loss=[3.0, 2, 2.01]))
    assert sentences.describe_losses(table[:1]).startswith("With 1 epoch nothing")
    assert sentences.describe_losses(table.assign(train_box_loss=np.nan)).startswith("With 0 epochs")


def test_the_cut_is_where_f1_is_highest() -> None:
    truth = make_boxes([box(0), box(200), box(400)])
    answer = make_boxes([box(0, confidence=0.9), box(200, confidence=0.5), box(550, confidence=0.3),
                         *(box(600, confidence=0.1, image_id=f"{n}.jpg") for n in range(9))])
    assert f1_threshold(match_usual(truth, answer, 0.75)) == pytest.approx(0.301)  # 2 right of 2: F1 0.8
    assert f1_threshold(match_usual(truth, NONE, 0.75)) == 0.001
    assert f1_threshold(match_usual(NONE, answer, 0.75)) == 0.001


def test_every_class_weighs_the_same_in_the_cut() -> None:
    """Pigs alone would ask for 0.5, ten times as many; the one cow for 0.2."""
    truth = make_boxes([*(box(0, image_id=f"{n}.jpg") for n in range(10)), box(300, "cow")])
    answer = make_boxes([*(box(0, confidence=0.5, image_id=f"{n}.jpg") for n in range(10)),
                         box(500, confidence=0.3), box(300, "cow", 0.2)])
    assert f1_threshold(match_usual(truth, answer, 0.75)) <= 0.2


def test_confusion_counts_each_box_and_each_animal_once() -> None:
    table = confusion_matrix(TRUTH, ANSWER, ["pig", "cow"])
    assert table.to_numpy().tolist() == [[1, 0, 1], [1, 1, 0], [2, 0, 0]]
    assert table.index.tolist() == ["pig", "cow", "background"] and table.columns.tolist() == ["pig", "cow", "missed"]
    said = sentences.describe_confusion(table)
    assert said.startswith("50% of 4 true boxes") and "cow taken for pig, 1 time." in said
    assert confusion_matrix(NONE, NONE, ["pig"]).to_numpy().sum() == 0
    assert confusion_matrix(NONE, ANSWER, ["pig", "cow"]).loc["background"].tolist() == [4, 1, 0]
    assert confusion_matrix(TRUTH, NONE, ["pig", "cow"])["missed"].tolist() == [2, 2, 0]
    assert sentences.describe_confusion(confusion_matrix(NONE, NONE, ["pig"])) == "There is no true box to confuse."


def test_confusion_of_many_classes_fits_a_page() -> None:
    labels = [f"c{n}" for n in range(100)]
    truth = make_boxes([box(0, label, image_id=f"{label}.jpg") for label in labels])
    axes = plots.plot_confusion(confusion_matrix(truth, truth, labels), truth, 0.4)
    title = axes.get_title() + axes.get_title(loc="left")  # wherever the style of an earlier test puts it
    assert len(axes.get_yticklabels()) == 13 and "0.40" in axes.get_xlabel() and "12 of 100" in title
    plt.close("all")


def test_groups_are_ranked_by_errors_for_each_true_box() -> None:
    table = group_errors(IMAGES, image_errors(IMAGES, TRUTH, ANSWER, 0.75, 0.001))
    assert table["name"].tolist() == ["0", "1", "d.jpg"]
    assert table["rate"].tolist()[:2] == [4 / 3, 0] and np.isnan(table["rate"][2])
    assert table["image_id"].tolist()[0] == "a.jpg" and table["images"].tolist() == [2, 1, 1]
    assert sentences.describe_group_errors(table) == (
        "Group 0 is worst with 1.33 errors for each true box, 80% of all errors; the median of 2 groups is 0.67.")
    assert sentences.describe_group_errors(table[:0]) and sentences.describe_group_errors(table[:1])


def test_intervals_are_over_groups() -> None:
    images = images_of({f"{n}.jpg": n // 2 for n in range(8)})
    truth = make_boxes([box(0, image_id=f"{n}.jpg") for n in range(8)] + [box(300, "cow", image_id="0.jpg")])
    answer = make_boxes([box(0, confidence=0.9, image_id=f"{n}.jpg") for n in range(4)])
    table = evaluate_with_intervals(images, truth, answer, 0.75, np.random.default_rng(0)).set_index("label")
    assert table["ap"].to_dict() == evaluate(truth, answer, 0.75).per_class["ap"].to_dict()
    assert table.loc["pig", "low"] < 0.5 < table.loc["pig", "high"]
    assert np.isnan(table.loc["cow", "low"])  # one group shows nothing of other groups


def test_costs_name_the_cause_and_the_next() -> None:
    costs = pd.DataFrame({"errors": [5, 2, 0], "gain": [0.157, 0.08, 0.0]}, ["localisation", "missed", "class"])
    assert sentences.describe_causes(costs) == (
        "localisation costs most: without it mAP would be 0.157 higher (5 errors), then missed with 0.080.")
    assert "too near" in sentences.describe_causes(costs.assign(gain=[0.157, 0.15, 0]))
    assert "No error" in sentences.describe_causes(costs.assign(errors=0))
    assert "no single cause" in sentences.describe_causes(costs.assign(gain=0.0))


def test_bins_of_few_boxes_are_not_believed() -> None:
    rates = pd.DataFrame([("size", "small", "pig", 20, 0.5, 0.1), ("size", "large", "pig", 40, 0.1, 0.1),
                          ("size", "tiny", "pig", 3, 1.0, 0.1)],
                         columns=["what", "bin", "label", "n_truth", "missed", "false"])
    said = sentences.describe_error_rates(rates, "size")
    assert said.startswith("pig, small: 50% of 20 true boxes missed") and "large of the same class: 10% of 40" in said
    assert sentences.describe_error_rates(rates.assign(missed=1.0), "size").endswith("no bin of the class differs.")
    assert "no rate can be believed" in sentences.describe_error_rates(rates, "ratio")


def test_a_class_far_below_another_is_named() -> None:
    scores = pd.DataFrame({"label": ["pig", "cow"] * 2, "iou": ["0.5"] * 2 + ["0.75"] * 2,
                           "ap": [0.9, 0.9, 0.83, 0.58]})
    assert sentences.describe_average_precision(scores, "0.75") == (
        "cow AP at 0.75 is .58, .25 below pig; .32 of it is lost by boxes that are found and not tight: look at 05.")
    assert "pig alone" in sentences.describe_average_precision(scores[scores["label"] == "pig"], "0.75")
    assert "no AP" in sentences.describe_average_precision(scores.assign(ap=np.nan), "0.75")
    assert "nearly the same" in sentences.describe_average_precision(scores.assign(ap=0.5), "0.75")


def test_the_words_on_methods_follow_p() -> None:
    table = pd.DataFrame({"gain": [0.0, 0.02, 0.01], "p": [np.nan, 0.5, 0.9]}, ["first", "larger", "fused"])
    assert sentences.describe_methods(table).startswith("None of 2 methods is shown to be better than first; the high")
    assert sentences.describe_methods(table.assign(p=[np.nan, 0.01, 0.9])).startswith("larger is shown to be better")


@pytest.mark.parametrize(("ious", "is_short"), [([0.4, 0.9], False), ([0.7, 1.0], True)])
def test_a_short_axis_of_iou_is_explained(ious: list[float], is_short: bool) -> None:
    index = pd.MultiIndex.from_product([ious, [0.001, 0.5]], names=["iou_threshold", "conf_threshold"])
    plateau = pd.DataFrame({"score": [0.5, 0.4, 0.6, 0.3], "on_plateau": [False, False, True, False]}, index)
    point = {"iou_threshold": ious[1], "conf_threshold": 0.001}
    found = sentences.describe_sweep(plateau, point, {"iou_threshold": ious[0], "conf_threshold": 0.001})
    assert found.startswith(f"Chosen: IoU {ious[1]:g}, confidence 0.001, 0.0000 below the highest")
    assert "differ from the chosen by -0.1000." in found
    assert ("marks an object once" in found) == is_short


@pytest.mark.parametrize("labels", [["pig"], ["pig", "cow"], [f"c{n}" for n in range(100)]])
@pytest.mark.parametrize("n_boxes", [0, 1, 300])
def test_data_of_any_size_has_a_sentence(labels: list[str], n_boxes: int) -> None:
    names = {f"{n}.jpg": n // 3 for n in range(max(n_boxes // 3, 1))}
    images = images_of(names)
    boxes = make_boxes([box(float(n % 7), labels[n % len(labels)], image_id=f"{n % len(names)}.jpg")
                        for n in range(n_boxes)])
    competition = Competition("x", {label: [] for label in labels})
    scored = boxes.assign(confidence=0.4, source="model")
    found = [
        sentences.describe_class_counts(boxes, labels), sentences.describe_image_sizes(images),
        sentences.describe_empty_images(images, boxes), sentences.describe_box_counts(images, boxes, competition),
        sentences.describe_ratio_bins(boxes), sentences.describe_size_bins(boxes),
        sentences.describe_small_boxes(boxes), sentences.describe_box_centres(images, boxes),
        sentences.describe_count_against_area(images, boxes), sentences.describe_overlaps(boxes),
        sentences.describe_group_sizes(images.set_index("image_id")["group"]),
        sentences.describe_confidence(scored), sentences.describe_agreement(boxes, scored),
        sentences.describe_confusion(confusion_matrix(boxes, scored, labels)),
        sentences.describe_worst_images(image_errors(images, boxes, scored, 0.75), 6),
        sentences.describe_suspects(scored, scored, len(boxes)),
    ]
    for said in found:
        assert said.endswith(".") and "nan" not in said and "\n" not in said and len(said) < 320, said


def test_a_search_says_if_nothing_beats_the_start() -> None:
    trials = pd.DataFrame({"trial": [0, 1], "state": "complete", "fitness": [0.5, 0.6], "lr0": [0.01, 0.02]})
    assert "number 1 is best with 0.6000, 0.1000 above" in sentences.describe_trials(trials)
    assert "how much of that is luck is not known" in sentences.describe_trials(trials)
    three = pd.DataFrame({"trial": [0, 1, 2], "state": "complete", "fitness": [0.5, 0.53, 0.6]})
    said = sentences.describe_trials(three, (0.01, 0.04))
    assert "0.1000 above the start values. Another seed alone moves a training by 0.0100" in said
    assert "two of the same values by up to 0.0400: 1 of the 2 other trials are as near" in said
    assert "nothing beats" in sentences.describe_trials(trials.assign(fitness=[0.5, 0.4]))
    assert sentences.describe_trials(trials[:0]) == "No trial has finished yet."
    assert "lr0 0.02 (2.00 times)" in sentences.describe_moves(trials, ["lr0"], {"lr0": 0.01})
    assert "a guess" in sentences.describe_importances(pd.Series({"lr0": 0.7, "lrf": 0.3}), 6)
    assert "too few" in sentences.describe_importances(pd.Series(dtype=float), 2)
    two = pd.DataFrame({"values": ["start", "start", "best", "best"], "AP": [0.5, 0.6, 0.55, 0.7]})
    assert "overlap: not a clear gain" in sentences.describe_start_and_best(two, "AP")
    assert "not both judged" in sentences.describe_start_and_best(two[:0], "AP")


def test_students_and_images_are_compared_within_their_noise() -> None:
    students = pd.DataFrame([("human labels", 1, 0.5), ("complete", 1, 0.6)], columns=["strategy", "seed", "ap_fair"])
    assert "in 1 of 1 seed (mean +0.100): one seed shows nothing" in sentences.describe_students(students)
    assert "nothing to compare" in sentences.describe_students(students[:1])
    curve = pd.DataFrame({"model": ["t", "t", "s"], "images": [50, 50, 100], "mAP": [0.4, 0.6, 0.55]})
    assert "changes by +0.050, no more than" in sentences.describe_learning_curve(curve)
    assert "no noise is known" in sentences.describe_learning_curve(curve[1:])
    assert "no slope" in sentences.describe_learning_curve(curve[:1])


def test_a_sentence_is_printed_below_its_figure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
                                                ) -> None:
    monkeypatch.setattr(plt, "show", lambda: print("[figure]"))
    sentences.say("What it shows.")
    assert capsys.readouterr().out == "[figure]\nWhat it shows.\n"


def test_every_figure_of_the_notebooks_that_argue_has_its_sentence() -> None:
    for name in ("01_eda", "03_evolve", "04_train", "05_errors", "06_silver", "07_final", "08_inference"):
        cells = json.loads((REPOSITORY / f"notebooks/{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        for source in ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"):
            if re.search(r"^(plots\.)?plot_\w+\(", source, re.MULTILINE):
                assert "sentences.say(" in source, f"{name}: {source}"
