"""Silver boxes become labels where the rule says so, what is uncertain is hidden, and nothing comes from nowhere."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from scipy.stats import binomtest

from livestock.data.dataset import dataset_dir, file_name, paint_grey, write_images
from livestock.geometry import largest_iou
from livestock.labels.silver import (
    NEVER,
    NothingSelected,
    Thresholds,
    choose_backgrounds,
    choose_thresholds,
    describe_evidence,
    draw_crops,
    lowest_precision,
    match_silver,
    mirror,
    number_places,
    rank_silver,
    select_silver,
    share_of_frames,
    weigh_classes,
    without_silver,
)
from livestock.tables import XYXY, make_boxes, make_images

IMAGES = make_images([{"image_id": f"{index}.jpg", "archive": "", "member": "", "width": 1000, "height": 100}
                      for index in range(8)])
BANDS = {"pig": Thresholds(0.6, 0.3), "cow": Thresholds(0.8, 0.5)}


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
                                  {"pig": Thresholds(0.95, 0.9), "cow": Thresholds(0.6, 0.3)})
    assert as_rows(boxes) == [("0.jpg", 0, "gold"), ("0.jpg", 200, "gold"), ("1.jpg", 0, "gold"),
                              ("3.jpg", 300, "silver")]
    assert as_rows(hidden) == [("3.jpg", 0, "silver")]
    boxes, _ = select_silver("complete", GOLD, SILVER, IMAGES[:3], BANDS, NEW, {"cow": Thresholds(0.6, 0.3)})
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
def test_what_is_proposed_holds_the_precision_asked_for_if_no_mistake_is_confident(missing: float, seed: int) -> None:
    truth, silver, is_labelled = ranks(RIGHT, missing, seed)
    band = choose_thresholds(truth, silver, trust_shares=True)["pig"]
    chosen = RIGHT[~is_labelled & (silver["confidence"] >= band.label)]
    assert chosen.mean() >= 0.9 and chosen.sum() >= 0.35 * (~is_labelled[:300]).sum()  # the surest third alone: .2
    assert silver["confidence"].iloc[430] < band.hidden <= band.label  # nothing is right from rank 400 on


def test_where_nothing_is_forgotten_nothing_is_added() -> None:
    """All of the surest have labels, so what has none is wrong, however confident."""
    truth, silver, _ = ranks(RIGHT)
    assert choose_thresholds(truth, silver, trust_shares=True)["pig"] == NEVER


def test_chances_are_elkan_and_notos() -> None:
    """90 boxes of which two in three have a label, the 30 surest among them, then 90 of which one in three has one."""
    is_labelled = np.concatenate([np.tile([False, True, True], 30), np.tile([False, True, False], 30)])
    truth, silver, _ = ranks(is_labelled)
    ranked = rank_silver(truth, silver, trust_shares=True)
    assert ranked["is_labelled"].tolist() == is_labelled.tolist()
    assert ranked["share"].is_monotonic_decreasing
    assert ranked["share"].iloc[[0, 80, 110, 170]].tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3, 1 / 3])
    known = binomtest(20, 30).proportion_ci(0.682689492137, method="wilson").low  # one standard error
    assert ranked["chance"].iloc[[0, 110]].tolist() == pytest.approx([1, (1 - known) / known * (1 / 3) / (2 / 3)])


def test_boxes_keep_their_ids_as_labels_hidden_or_ranked() -> None:
    """The source changes, the box does not."""
    where = ["image_id", "label", "x_min"]
    known = pd.concat([GOLD, SILVER]).set_index(where)["box_id"]
    boxes, hidden = select_silver("complete", GOLD, SILVER, IMAGES, BANDS)
    assert {"gold", "silver"} == set(boxes["source"]) and len(hidden)
    for table in (boxes, hidden, rank_silver(GOLD, SILVER), without_silver(boxes, hidden, GOLD, IMAGES["image_id"])[0]):
        assert table["box_id"].tolist() == known.loc[[*table[where].itertuples(index=False, name=None)]].tolist()
    assert pd.concat([boxes, hidden])["box_id"].is_unique


def test_hiding_alone_is_a_selection() -> None:
    boxes, hidden = select_silver("complete", GOLD, SILVER, IMAGES, {"pig": Thresholds(NEVER.label, 0.6), "cow": NEVER})
    assert as_rows(boxes) == as_rows(GOLD)
    assert as_rows(hidden) == [("0.jpg", 500, "silver"), ("3.jpg", 0, "silver")]


def test_a_class_that_people_and_models_disagree_on_selects_nothing() -> None:
    truth, silver, _ = ranks(np.arange(100) % 3 == 0)
    assert choose_thresholds(truth, silver, trust_shares=True)["pig"] == NEVER


def test_a_class_without_a_right_box_selects_nothing() -> None:
    bands = choose_thresholds(GOLD, SILVER.iloc[:0])
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
        choose_thresholds(GOLD, SILVER, precision=1)
    with pytest.raises(ValueError, match="expected human boxes to judge silver ones by, found none"):
        choose_thresholds(GOLD.iloc[:0], SILVER)


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
    band = choose_thresholds(truth, silver, new_images=True)["pig"]
    assert RIGHT[silver["confidence"] >= band.label].mean() >= 0.89 and band.label < silver["confidence"].iloc[300]
    truth, silver, _ = ranks(np.arange(100) % 3 == 0)
    found = choose_thresholds(truth, silver, new_images=True)["pig"]
    assert found == Thresholds(NEVER.label, 0.1)  # neither label nor background


def test_what_is_hidden_is_grey_but_for_labels(tmp_path) -> None:
    picture = np.full((100, 1000, 3), 200, np.uint8)
    cv2.imwrite(str(tmp_path / "0.png"), picture)
    images = IMAGES.iloc[:1].assign(archive=str(tmp_path), member="0.png")
    hidden, label = make_boxes([box(0, 300, confidence=0.4)]), make_boxes([box(0, 350)])
    painted = paint_grey(picture, hidden[XYXY].to_numpy(), label[XYXY].to_numpy())
    assert (painted[:, 300:350] == 114).all() and (painted[:, 350:] == 200).all() and (painted[:, :300] == 200).all()
    write_images(images, tmp_path / "yolo", 500, hidden=hidden, boxes=label)
    small = cv2.imread(str(tmp_path / "yolo/images" / file_name("0.jpg")))
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
    ranked = rank_silver(GOLD, make_boxes(pd.concat([make_boxes([loose, wrong], "others"), SILVER])))
    pigs = ranked[ranked["label"] == "pig"]
    assert pigs["confidence"].tolist() == [0.95, 0.9, 0.7, 0.2]
    assert pigs["is_labelled"].tolist() == [True, False, False, False]
    assert pigs["share"].tolist() == [0.25] * 4  # fewer boxes than say much


def barn(
    forgotten: float, mistakes: float, seed: int, *, n_frames: int = 8, again: bool = False, label: str = "cow",
    places: tuple[float, ...] = (0.0, 170.0, 340.0),
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Images, animals, human boxes and what a model finds: 160 frames of still cameras, three cows that lie in each.

    So many of the confident boxes are mistakes, in the upper half, where no cow lies: anywhere, or one thing again.
    """
    rng, rows, found = np.random.default_rng(seed), [], []
    images = make_images([{"image_id": f"{n // n_frames}/{n}.jpg", "archive": "", "member": "", "width": 1000,
                           "height": 400, "group": n // n_frames} for n in range(160)])
    for name in images["image_id"]:
        rows += [{"image_id": name, "label": label, "x_min": x, "y_min": 300.0, "x_max": x + 150, "y_max": 390.0}
                 for x in places]
    animals = make_boxes(rows)
    n_wrong = round(mistakes / (1 - mistakes) * len(animals))
    names = images["image_id"].to_numpy()
    for name in names[:n_wrong] if again else rng.choice(names, n_wrong, replace=n_wrong > len(names)):
        x = 90.0 * int(name.split("/")[0]) % 800 if again else rng.uniform(0, 850)
        found.append({"image_id": name, "label": label, "x_min": x, "y_min": 20.0, "x_max": x + 150, "y_max": 110.0})
    silver = pd.concat([animals, make_boxes(found)])
    silver = make_boxes(silver.assign(confidence=rng.beta(8, 2, len(silver)), source="model"))
    return images, animals, animals[rng.random(len(animals)) >= forgotten].reset_index(drop=True), silver


def add(bands: dict[str, Thresholds], gold: pd.DataFrame, silver: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The boxes that `complete` adds; none where it selects nothing."""
    try:
        boxes, hidden = select_silver("complete", gold, silver, images, bands)
    except NothingSelected:
        return gold.iloc[:0]
    return boxes[boxes["source"] == "silver"]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("mistakes", "again"), [(0, False), (0.03, False), (0.08, False), (0.08, True)])
@pytest.mark.parametrize("n_frames", [8, 1])
def test_where_nothing_is_forgotten_confident_mistakes_are_not_added(
    mistakes: float, again: bool, n_frames: int, seed: int
) -> None:
    images, _, gold, silver = barn(0, mistakes, seed, n_frames=n_frames, again=again)
    for known in (images, None):
        bands = choose_thresholds(gold, silver, known)
        assert bands["cow"] == NEVER and add(bands, gold, silver, images).empty
    if mistakes == 0.08:  # the share of labelled boxes alone takes them for forgotten animals
        assert len(add(choose_thresholds(gold, silver, trust_shares=True), gold, silver, images)) > 20


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("forgotten", [0.15, 0.3])
def test_forgotten_animals_are_added_with_the_precision_asked_for(forgotten: float, again: bool, seed: int) -> None:
    images, animals, gold, silver = barn(forgotten, 0.05, seed, again=again)
    added = add(choose_thresholds(gold, silver, images), gold, silver, images)
    right = (largest_iou(added, animals) >= 0.5).sum()
    assert right >= 0.9 * len(added) and right >= 0.8 * (len(animals) - len(gold))
    by_shares = add(choose_thresholds(gold, silver, trust_shares=True), gold, silver, images)
    assert (largest_iou(by_shares, animals) >= 0.5).mean() < 0.9


def test_without_other_frames_a_person_must_look() -> None:
    images, animals, gold, silver = barn(0.3, 0.02, 0, n_frames=1)
    assert choose_thresholds(gold, silver, images)["cow"] == NEVER
    bands = choose_thresholds(gold, silver, images, trust_shares=True)
    added = add(bands, gold, silver, images)
    assert (largest_iou(added, animals) >= 0.5).mean() > 0.9 and len(added) > 120
    (words,) = describe_evidence(weigh_classes(match_silver(gold, silver, images), gold, images))
    assert words == ("cow: forgotten animals and confident mistakes cannot be told apart, so nothing is added: fewer "
                     "than 25 boxes lie in groups of frames; look at the crops and set ACCEPT.")


def test_people_who_forget_an_animal_in_every_frame_are_not_found_out() -> None:
    """Its place is never labelled, as a mistake's is not: nothing is added, rather than anything."""
    images, animals, _, silver = barn(0, 0.05, 0)
    gold = animals[~((animals["x_min"] == 0) & (animals["image_id"].str.split("/").str[0].astype(int) % 2 == 0))]
    assert choose_thresholds(gold.reset_index(drop=True), silver, images)["cow"] == NEVER


FRAMES = make_images([{"image_id": f"{name}.jpg", "archive": "", "member": "", "width": 1000, "height": 100,
                       "group": group} for name, group in
                      (("0", 0), ("1", 0), ("2", 0), ("3", 0), ("4", 1), ("5", 1), ("6", 2), ("7", -1))])


def test_frames_of_the_group_count_with_a_label_at_the_place() -> None:
    """Of three other frames two have a pig there, one moved by a quarter; the box's own frame does not count."""
    gold = make_boxes([box(0, 0), box(1, 0), box(2, 25), box(2, 30), box(3, 60), box(3, 0, "cow"), box(4, 300),
                       box(6, 0), box(7, 0)])
    asked = make_boxes([box(0, 0), box(3, 0), box(3, 0, "cow"), box(4, 300), box(5, 300), box(6, 0), box(7, 0)])
    shares = share_of_frames(asked, gold, FRAMES)
    assert shares.tolist() == pytest.approx([2 / 3, 1, 0, 0, 1, np.nan, np.nan], nan_ok=True)
    assert share_of_frames(make_boxes([box(9, 0)]), gold, FRAMES).tolist() == pytest.approx([np.nan], nan_ok=True)
    assert share_of_frames(asked.iloc[:0], gold, FRAMES).tolist() == []
    assert share_of_frames(asked, gold.iloc[:0], FRAMES)[:5].tolist() == [0] * 5


def test_a_place_that_is_mirrored_keeps_its_height_and_size() -> None:
    assert mirror(make_boxes([box(0, 200)]), FRAMES)[XYXY].to_numpy().tolist() == [[700, 0, 800, 100]]


def test_one_thing_in_the_frames_of_a_group_is_one_place() -> None:
    boxes = pd.DataFrame([box(0, 0, confidence=0.5), box(1, 10, confidence=0.9), box(2, 300), box(4, 0),
                          box(3, 0, "cow"), box(7, 0), box(2, 20)])
    places = number_places(boxes, FRAMES)
    assert places[0] == places[1] == places[6] and len(set(places)) == 5


def test_places_as_often_labelled_in_the_mirror_say_nothing() -> None:
    """Cows in a row of stalls: wherever a mistake lies in the row, some frame will have a cow."""
    stalls = (0.0, 200.0, 400.0, 600.0, 800.0)
    images, _, gold, silver = barn(0.15, 0.05, 0, places=stalls)
    found = weigh_classes(match_silver(gold, silver, images), gold, images).loc["cow"]
    assert found["confirmed"] > 0.95 and found["by_chance"] > 0.95 and found["why"] == "no contrast"
    assert choose_thresholds(gold, silver, images)["cow"] == NEVER


def too_low(share: float, found: float, n_errors: float, n: float) -> float:
    """Zero at the lower end of Wilson's interval: from there `found` is so many standard errors away."""
    return found - share - n_errors * np.sqrt(share * (1 - share) / n)


def test_the_share_that_is_forgotten_is_that_of_the_mixture() -> None:
    """Mirrored boxes and mistakes are never confirmed, of the forgotten as many as of the labelled."""
    images, _, gold, silver = barn(0.2, 0.05, 0, again=True)
    matched = match_silver(gold, silver, images)
    found = weigh_classes(matched, gold, images).loc["cow"]
    pool = matched.iloc[: round(len(gold) / 3)]
    places = [table["image_id"].str.split("/").str[0] + table["x_min"].map("/{:.0f}".format)
              + table["y_min"].map("/{:.0f}".format) for table in (gold, pool)]
    elsewhere = places[1].map(places[0].value_counts()).fillna(0) - pool["is_labelled"]  # of seven other frames
    of_labelled, of_free = ((elsewhere[pool["is_labelled"] == which] >= 3).mean() for which in (True, False))
    n_labelled, n_free = pool["is_labelled"].sum(), (~pool["is_labelled"]).sum()
    assert 0 < of_free < of_labelled <= 1
    names = ["labelled", "unlabelled", "confirmed", "by_chance", "unlabelled_confirmed"]
    assert found[names].tolist() == pytest.approx([n_labelled, n_free, of_labelled, 0, of_free])
    n_right = n_free * of_free / of_labelled
    assert found["forgotten"] == pytest.approx(n_right / (n_right + n_labelled))
    n_places = n_free**2 / (places[1][~pool["is_labelled"]].value_counts() ** 2).sum()
    for name, n_errors in (("careful", 1), ("low", stats.norm.ppf(0.95))):  # 95 % on one side
        low = optimize.brentq(too_low, 0, of_free, (of_free, n_errors, n_places)) * n_free / of_labelled
        assert found[f"forgotten_{name}"] == pytest.approx(low / (low + n_labelled), rel=1e-3)
    assert found["is_shown"] and found["why"] == "shown"
    (words,) = describe_evidence(found.to_frame().T)
    assert words.startswith(f"cow: people forgot about {found['forgotten']:.0%} of them, at least ")


def test_confirmed_boxes_are_right_by_bayes_rule() -> None:
    """At the top. Of forgotten animals as many are confirmed as of labelled ones, of mistakes as of mirrored boxes."""
    images, _, gold, silver = barn(0.3, 0.05, 0, places=(0.0, 170.0, 690.0))  # of three cows one has a mirror image
    ranked = rank_silver(gold, silver, images)
    found = weigh_classes(match_silver(gold, silver, images), gold, images).loc["cow"]
    free = ranked[~ranked["is_labelled"]]
    share = free["is_confirmed"].iloc[: max(25, round(free["is_confirmed"].sum() / 3))].mean()
    assert found["by_chance"] > 0.2 and found["is_shown"]
    animals = (share - found["by_chance"]) / (found["confirmed"] - found["by_chance"])  # of the boxes without a label
    top = free[free["is_confirmed"]].iloc[0]
    assert top["chance"] == pytest.approx(min(animals * found["confirmed"] / share, 1), abs=0.05)
    assert ranked.loc[ranked["is_labelled"] & ranked["is_confirmed"], "chance"].isna().all()


def test_all_labelled_and_too_few_are_said() -> None:
    images, _, gold, silver = barn(0, 0, 0)
    found = weigh_classes(match_silver(gold, silver, images), gold, images)
    assert describe_evidence(found) == ["cow: people labelled all of the 160 most confident boxes; nothing is added"]
    none = weigh_classes(match_silver(gold, silver.iloc[:0], images), gold, images)
    assert describe_evidence(none) == ["the models found no box that could be added"]
    assert choose_thresholds(gold, silver.iloc[:0], images) == {"cow": NEVER}
    assert rank_silver(gold, silver.iloc[:0]).empty
    few = images["image_id"][:3]
    tables = [table[table["image_id"].isin(few)].reset_index(drop=True) for table in (gold, silver)]
    assert weigh_classes(match_silver(*tables, images), tables[0], images).loc["cow", "why"] == "few"


def test_new_images_are_labelled_only_as_surely_as_people_label() -> None:
    """Where no forgotten animal is shown a box is right as often as people labelled such boxes, and no oftener."""
    images, _, gold, silver = barn(0, 0.08, 0)
    ranked = rank_silver(gold, silver, images)
    assert ranked["chance_new"].tolist() == ranked["share"].tolist() and ranked["chance"].isna().all()
    images, _, gold, silver = barn(0.3, 0, 0)
    ranked = rank_silver(gold, silver, images)
    found = weigh_classes(match_silver(gold, silver, images), gold, images).loc["cow"]
    assert ranked["chance_new"].iloc[0] == min(ranked["share"].iloc[0] / (1 - found["forgotten_careful"]), 1)
    assert ranked["share"].iloc[0] < 0.8 and choose_thresholds(gold, silver, images, new_images=True)["cow"].label < 0.9


@pytest.mark.parametrize(("right", "shown", "total", "lowest"), [
    (12, 12, 100, 12 / 13), (11, 12, 100, 0.80153), (0, 12, 100, 0), (7, 8, 8, 0.875), (5, 5, 5, 1), (0, 0, 0, 0)])
def test_what_twelve_crops_say_of_all(right: int, shown: int, total: int, lowest: float) -> None:
    """Wilson's interval, one standard error; where all are shown nothing is left to guess."""
    assert lowest_precision(right, shown, total) == pytest.approx(lowest, abs=1e-5)
    if shown < total:
        interval = binomtest(right, shown).proportion_ci(0.682689492137, method="wilson")
        assert lowest_precision(right, shown, total) == pytest.approx(interval.low)


@pytest.mark.bad_input
@pytest.mark.parametrize("right", [-1, 13])
def test_more_crops_than_were_shown_cannot_be_right(right: int) -> None:
    with pytest.raises(ValueError, match=f"how many of 12 crops are right, from 0 to 12, found {right}$"):
        lowest_precision(right, 12, 40)


def test_crops_are_drawn_box_by_box_and_come_again() -> None:
    boxes = make_boxes([box(0, x, confidence=0.5) for x in range(40)])
    assert draw_crops(boxes, 3).equals(draw_crops(boxes, 3)) and len(draw_crops(boxes, 3)) == 12
    assert len(draw_crops(boxes.iloc[:5], 0)) == 5 and draw_crops(boxes.iloc[:0], 0).empty
    drawn = pd.concat([draw_crops(boxes, seed) for seed in range(500)])["x_min"].value_counts()
    assert drawn.sum() == 6000 and len(drawn) == 40 and drawn.between(110, 190).all()  # 150 each, sd 10
