"""Silver boxes become labels where the rule says so, what is uncertain is hidden, and nothing comes from nowhere."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from livestock.boxes import XYXY, make_boxes, make_images
from livestock.silver import (
    NEVER,
    Band,
    NothingSelected,
    choose_backgrounds,
    choose_bands,
    rank_silver,
    select_silver,
    without_silver,
)
from livestock.yolo_dataset import dataset_dir, paint_grey, write_images

IMAGES = make_images([{"image_id": f"{index}.jpg", "archive": "", "member": "", "width": 1000, "height": 100}
                      for index in range(8)])
BANDS = {"pig": Band(0.6, 0.3), "cow": Band(0.8, 0.5)}


def box(index: int, x_min: float, label: str = "pig", confidence: float = 1.0) -> dict:
    """100 px wide and high."""
    return {"image_id": f"{index}.jpg", "label": label, "x_min": x_min, "y_min": 0.0, "x_max": x_min + 100,
            "y_max": 100.0, "confidence": confidence, "source": "gold" if confidence == 1 else "model"}


GOLD = make_boxes([box(0, 0), box(0, 200, "cow"), box(1, 0)])
SILVER = make_boxes([
    box(0, 20, confidence=0.95),  # on the human pig
    box(0, 500, confidence=0.7),  # a pig that nobody labelled
    box(0, 700, "cow", 0.7),  # uncertain for a cow
    box(0, 850, confidence=0.2),  # not even that
    box(3, 0, confidence=0.9),  # an image without any human box
    box(3, 300, "cow", 0.6),
])


def as_rows(boxes: pd.DataFrame) -> list[tuple]:
    return [(row.image_id, row.x_min, row.source) for row in boxes.sort_values(["image_id", "x_min"]).itertuples()]


def test_complete_adds_what_is_sure_and_hides_what_is_uncertain() -> None:
    boxes, hidden = select_silver("complete", GOLD, SILVER, IMAGES, BANDS)
    assert as_rows(boxes) == [("0.jpg", 0, "gold"), ("0.jpg", 200, "gold"), ("0.jpg", 500, "silver"),
                              ("1.jpg", 0, "gold"), ("3.jpg", 0, "silver")]
    assert boxes.loc[boxes["source"] == "silver", "confidence"].tolist() == [0.7, 0.9]
    assert as_rows(hidden) == [("0.jpg", 700, "silver"), ("3.jpg", 300, "silver")]


NEW = IMAGES.iloc[3:4]


def test_new_images_have_thresholds_of_their_own() -> None:
    """Image 3 is new: its cow is sure enough there, and images with human boxes stay as they are."""
    boxes, hidden = select_silver("unlabelled", GOLD, SILVER, IMAGES[:3], BANDS, NEW,
                                  {"pig": Band(0.95, 0.9), "cow": Band(0.6, 0.3)})
    assert as_rows(boxes) == [("0.jpg", 0, "gold"), ("0.jpg", 200, "gold"), ("1.jpg", 0, "gold"),
                              ("3.jpg", 300, "silver")]
    assert as_rows(hidden) == [("3.jpg", 0, "silver")]
    boxes, _ = select_silver("complete", GOLD, SILVER, IMAGES[:3], BANDS, NEW, {"cow": Band(0.6, 0.3)})
    assert as_rows(boxes[boxes["source"] == "silver"]) == [("0.jpg", 500, "silver"), ("3.jpg", 300, "silver")]


def test_one_forgotten_animal_gets_one_label() -> None:
    """A second pig moved by a quarter and a cow on the same place are the same animal; a neighbour is not."""
    twice = make_boxes([box(0, 500, confidence=0.95), box(0, 525, confidence=0.9), box(0, 505, "cow", 0.94),
                        box(0, 560, confidence=0.8)])
    boxes, _ = select_silver("complete", GOLD, twice, IMAGES, BANDS)
    assert as_rows(boxes[boxes["source"] == "silver"]) == [("0.jpg", 500, "silver"), ("0.jpg", 560, "silver")]


def test_replace_is_the_originals_rule() -> None:
    """Image 0 has four silver boxes from a confidence of 0.05, and loses its human ones; the others keep theirs."""
    boxes, hidden = select_silver("replace", GOLD, SILVER, IMAGES, BANDS)
    assert as_rows(boxes) == [("0.jpg", 20, "silver"), ("0.jpg", 500, "silver"), ("0.jpg", 700, "silver"),
                              ("0.jpg", 850, "silver"), ("1.jpg", 0, "gold")]
    assert hidden.empty


def ranks(is_right: np.ndarray, missing: float = 0.0, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Truth, silver boxes by falling confidence, and which are labelled; a share of the right ones is not."""
    n = len(is_right)
    confidence = np.linspace(0.99, 0.01, n)
    rows = [box(i % 8, 100.0 * (i // 8), confidence=c) for i, c in enumerate(confidence)]
    is_labelled = is_right & (np.random.default_rng(seed).random(n) >= missing)
    silver = make_boxes(rows).sort_values("confidence", ascending=False, ignore_index=True)
    return silver[is_labelled].assign(confidence=1.0, source="gold"), silver, is_labelled


RIGHT = np.concatenate([np.ones(300), np.arange(100) % 2, np.zeros(200)]).astype(bool)  # to rank 300, half, none


@pytest.mark.parametrize("missing", [0.15, 0.3, 0.45])
@pytest.mark.parametrize("seed", range(3))
def test_boxes_without_a_label_hold_the_precision_asked_for(missing: float, seed: int) -> None:
    truth, silver, is_labelled = ranks(RIGHT, missing, seed)
    band = choose_bands(truth, silver)["pig"]
    chosen = RIGHT[~is_labelled & (silver["confidence"] >= band.label)]
    assert chosen.mean() >= 0.9 and chosen.sum() >= 0.35 * (~is_labelled[:300]).sum()  # the surest third alone: .2
    assert silver["confidence"].iloc[430] < band.hidden <= band.label  # nothing is right from rank 400 on


def test_where_nothing_is_forgotten_nothing_is_added() -> None:
    """All of the surest have labels, so what has none is wrong, however confident."""
    truth, silver, _ = ranks(RIGHT)
    assert choose_bands(truth, silver)["pig"] == NEVER


def test_chances_are_elkan_and_notos() -> None:
    """90 boxes of which two in three have a label, the 30 surest among them, then 90 of which one in three has one."""
    is_labelled = np.concatenate([np.tile([False, True, True], 30), np.tile([False, True, False], 30)])
    truth, silver, _ = ranks(is_labelled)
    ranked = rank_silver(truth, silver)
    assert ranked["is_labelled"].tolist() == is_labelled.tolist()
    assert ranked["share"].is_monotonic_decreasing
    assert ranked["share"].iloc[[0, 80, 110, 170]].tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3, 1 / 3])
    known = binomtest(20, 30).proportion_ci(0.682689492137, method="wilson").low  # one standard error
    assert ranked["chance"].iloc[[0, 110]].tolist() == pytest.approx([1, (1 - known) / known * (1 / 3) / (2 / 3)])


def test_hiding_alone_is_a_selection() -> None:
    boxes, hidden = select_silver("complete", GOLD, SILVER, IMAGES, {"pig": Band(NEVER.label, 0.6), "cow": NEVER})
    assert as_rows(boxes) == as_rows(GOLD)
    assert as_rows(hidden) == [("0.jpg", 500, "silver"), ("3.jpg", 0, "silver")]


def test_a_class_that_people_and_models_disagree_on_selects_nothing() -> None:
    truth, silver, _ = ranks(np.arange(100) % 3 == 0)
    assert choose_bands(truth, silver)["pig"] == NEVER


def test_a_class_without_a_right_box_selects_nothing() -> None:
    bands = choose_bands(GOLD, SILVER.iloc[:0])
    assert set(bands) == {"cow", "pig"} and min(min(band) for band in bands.values()) > 1
    with pytest.raises(NothingSelected, match="complete: no silver box was sure enough; lower the precision"):
        select_silver("complete", GOLD, SILVER, IMAGES, bands)


@pytest.mark.parametrize(("change", "words"), [
    ({"strategy": "vote"}, "strategy: expected one of .*'replace'.*, found 'vote'"),
    ({"images": IMAGES.iloc[:2]}, "silver: expected boxes of the given images, found '3.jpg'"),
    ({"gold": GOLD[GOLD["label"] == "pig"], "bands": {"pig": BANDS["pig"]}, "strategy": "replace"},
     r"silver: expected classes that people labelled, \['pig'\], found 'cow'"),
])
def test_silver_of_something_else_is_refused(change: dict, words: str) -> None:
    usual = {"strategy": "complete", "gold": GOLD, "silver": SILVER, "images": IMAGES, "bands": BANDS}
    with pytest.raises(ValueError, match=words):
        select_silver(**{**usual, **change})
    with pytest.raises(ValueError, match="precision: expected a share above 0 and below 1, found 1"):
        choose_bands(GOLD, SILVER, precision=1)
    with pytest.raises(ValueError, match="expected human boxes to judge silver ones by, found none"):
        choose_bands(GOLD.iloc[:0], SILVER)


def test_backgrounds_are_new_images_where_nobody_saw_anything() -> None:
    """Image 3 shows animals, image 5 perhaps; of the three left two make up half beside two with animals."""
    silver = pd.concat([SILVER, make_boxes([box(5, 0, confidence=0.15), box(6, 0, confidence=0.05)])])
    names = choose_backgrounds(IMAGES[3:], silver, 2, 0.5, np.random.default_rng(0))
    assert len(names) == 2 and set(names) <= {"4.jpg", "6.jpg", "7.jpg"}
    assert choose_backgrounds(IMAGES[3:], silver, 2, 0.0, np.random.default_rng(0)).empty
    with pytest.raises(ValueError, match="share: expected a number from 0 to below 1, found 1"):
        choose_backgrounds(IMAGES[3:], silver, 2, 1, np.random.default_rng(0))


def test_new_images_get_labels_of_classes_of_which_nothing_is_missing() -> None:
    truth, silver, _ = ranks(RIGHT)
    band = choose_bands(truth, silver, new_images=True)["pig"]
    assert RIGHT[silver["confidence"] >= band.label].mean() >= 0.89 and band.label < silver["confidence"].iloc[300]
    truth, silver, _ = ranks(np.arange(100) % 3 == 0)
    assert choose_bands(truth, silver, new_images=True)["pig"] == Band(NEVER.label, 0.1)  # neither label nor background


def test_what_is_hidden_is_grey_but_for_labels(tmp_path) -> None:
    picture = np.full((100, 1000, 3), 200, np.uint8)
    cv2.imwrite(str(tmp_path / "0.png"), picture)
    images = IMAGES.iloc[:1].assign(archive=str(tmp_path), member="0.png")
    hidden, label = make_boxes([box(0, 300, confidence=0.4)]), make_boxes([box(0, 350)])
    painted = paint_grey(picture, hidden[XYXY].to_numpy(), label[XYXY].to_numpy())
    assert (painted[:, 300:350] == 114).all() and (painted[:, 350:] == 200).all() and (painted[:, :300] == 200).all()
    write_images(images, tmp_path / "yolo", 500, hidden=hidden, boxes=label)
    small = cv2.imread(str(tmp_path / "yolo/images/0.jpg"))
    assert abs(int(small[25, 160].mean()) - 114) < 4 and abs(int(small[25, 200].mean()) - 200) < 4
    tables = [(), (hidden,), (label,), (label, hidden), (hidden.iloc[:0],)]
    folders = {dataset_dir(images, 500, tmp_path, *boxes) for boxes in tables}
    assert len(folders) == 4  # none hidden and an empty table are the same


def test_a_validation_fold_keeps_its_human_boxes_alone() -> None:
    boxes, hidden = select_silver("replace", GOLD, SILVER, IMAGES, BANDS)  # the human boxes of image 0 are gone
    hidden = make_boxes([box(0, 700, confidence=0.4), box(3, 300, confidence=0.4)])
    boxes, hidden = without_silver(boxes, hidden, GOLD, pd.Series(["0.jpg", "5.jpg"]))
    assert as_rows(boxes) == [("0.jpg", 0, "gold"), ("0.jpg", 200, "gold"), ("1.jpg", 0, "gold")]
    assert as_rows(hidden) == [("3.jpg", 300, "model")]


def test_boxes_badly_on_labelled_animals_say_nothing() -> None:
    loose, wrong = box(1, 50, confidence=0.99), box(0, 205, confidence=0.98)  # a pig badly, a cow as a pig
    ranked = rank_silver(GOLD, make_boxes([loose, wrong, *SILVER.to_dict("records")]))
    pigs = ranked[ranked["label"] == "pig"]
    assert pigs["confidence"].tolist() == [0.95, 0.9, 0.7, 0.2]
    assert pigs["is_labelled"].tolist() == [True, False, False, False]
    assert pigs["share"].tolist() == [0.25] * 4  # fewer boxes than say much
