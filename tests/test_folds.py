"""The split: near-duplicates found exactly and held together, folds balanced, everything reproducible."""

import io
import itertools
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from livestock.config import REPOSITORY, Competition, read_competition
from livestock.data.archives import read_image
from livestock.data.folds import (
    Undecodable,
    assign_folds,
    baseline_folds,
    describe_leak,
    describe_split,
    fold_table,
    group_report,
    groups_by_pattern,
    leakage,
    leaky_folds,
    mini_set,
    near_duplicate_groups,
    near_pairs,
    perceptual_hashes,
    read_groups,
    split_distances,
    split_report,
    stratum_counts,
    stratum_labels,
    unite_groups,
)
from livestock.data.pictures import ERRORS, ORIENTATION, TURNS, decode, decode_small
from livestock.tables import check_images, make_boxes, make_images

COMPETITION = Competition("test", {"pig": [], "cow": []}, count_bins={"pig": [8, 13], "cow": [4, 6]})


def barn(
    n_images: int = 600, per_group: int = 6, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """Images, boxes and groups; a group's frames are alike in class, count and size."""
    rng = np.random.default_rng(seed)
    group = np.sort(rng.integers(0, max(n_images // per_group, 1), n_images))
    camera = rng.random((group.max() + 1, 3))
    is_pig = camera[group, 0] < 0.3
    ids = np.array([f"{'pig' if pig else 'cow'}_{i:05}.jpg" for i, pig in enumerate(is_pig)])
    images = make_images(
        [{"image_id": i, "archive": "", "member": i, "width": 1920, "height": 1080} for i in ids]
    )
    n_boxes = rng.poisson(np.where(is_pig, 20, 9) * camera[group, 1])
    rows = np.repeat(np.arange(n_images), n_boxes)
    width, height = rng.lognormal(4 + 1.5 * camera[group[rows], 2], 0.4, (2, len(rows))).clip(8, 900)
    left, top = rng.random((2, len(rows))) * 100
    corners = {"x_min": left, "y_min": top, "x_max": left + width, "y_max": top + height}
    label = np.where(is_pig[rows], "pig", "cow")
    boxes = make_boxes(pd.DataFrame({"image_id": ids[rows], "label": label, **corners}))
    return images, boxes, pd.Series(group, index=ids)


@pytest.fixture(scope="module")
def split() -> tuple[pd.DataFrame, pd.DataFrame]:
    images, boxes, groups = barn()
    return assign_folds(images, boxes, COMPETITION, groups=groups), boxes


hashes = st.lists(st.integers(0, 2**64 - 1), max_size=12).flatmap(
    lambda centres: st.lists(
        st.tuples(st.sampled_from(centres or [0]), st.lists(st.integers(0, 63), max_size=9)), max_size=30
    )
)


@given(hashes, st.integers(0, 20))
@settings(max_examples=150, deadline=None)
def test_near_pairs_equal_all_pairs(near, radius):
    values = np.array([centre ^ sum(1 << bit for bit in set(bits)) for centre, bits in near], dtype=np.uint64)
    distance = np.bitwise_count(values[:, None] ^ values[None])
    expected = np.argwhere(np.triu(distance <= radius, 1))
    np.testing.assert_array_equal(near_pairs(values, radius), expected)


@pytest.mark.parametrize("radius", [-1, 64])
def test_near_pairs_refuse_a_radius_that_is_none(radius):
    with pytest.raises(ValueError, match="expected 0 to 63"):
        near_pairs(np.zeros(2, dtype=np.uint64), radius)


def scenes(path: Path, n_scenes: int, n_frames: int) -> pd.DataFrame:
    """An archive of pictures, `n_frames` of each scene in two sizes, differing in noise and brightness."""
    rng = np.random.default_rng(0)
    rows = []
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(n_scenes * n_frames):
            scene, frame = number % n_scenes, number // n_scenes
            blobs = np.random.default_rng(scene).random((6, 10)) * 200
            blurred = (
                Image.fromarray(blobs.astype(np.uint8)).resize((320, 192)).filter(ImageFilter.GaussianBlur(4))
            )
            noisy = np.asarray(blurred, dtype=float) + rng.normal(8 * frame, 3, (192, 320))
            picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
            file = io.BytesIO()
            (picture if frame % 2 else picture.resize((640, 384))).save(file, "JPEG", quality=80)
            archive.writestr(f"{number:03}.jpg", file.getvalue())
            rows.append(
                {
                    "image_id": f"{number:03}.jpg",
                    "archive": str(path),
                    "member": f"{number:03}.jpg",
                    "width": 320,
                    "height": 192,
                }
            )
    return make_images(rows)


def test_frames_of_a_scene_form_a_group_whatever_their_order(tmp_path):
    images = scenes(tmp_path / "scenes.zip", n_scenes=6, n_frames=3)
    groups = near_duplicate_groups(images)
    assert groups.tolist() == [number % 6 for number in range(18)]  # numbered by first image
    shuffled = near_duplicate_groups(images.sample(frac=1, random_state=1))
    pd.testing.assert_series_equal(groups, shuffled)


BLOBS = Image.fromarray((np.random.default_rng(5).random((6, 10)) * 200).astype(np.uint8)).resize((320, 192))


def save(path: Path, picture: Image.Image, **options: object) -> dict[str, object]:
    """A row of an images table, and its file."""
    picture.save(path, **options)
    return {"image_id": path.name, "archive": str(path.parent), "member": path.name, "width": picture.width,
            "height": picture.height}


@pytest.mark.bad_input
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_copy_turned_by_exif_is_hashed_as_it_is_shown(tmp_path, suffix, orientation):
    """The file's pixels are turned so that EXIF turns them back: both show the same, as `read_image` confirms."""
    undo, quarter = TURNS.get(orientation), {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    stored = BLOBS if undo is None else BLOBS.transpose(quarter.get(orientation, undo))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"tiffinfo": {ORIENTATION: orientation}} if suffix == "tif" else {"exif": exif}
    options |= {"webp": {"lossless": True}, "jpg": {"quality": 95}}.get(suffix, {})
    rows = [save(tmp_path / "plain.png", BLOBS), save(tmp_path / f"turned.{suffix}", stored, **options)]
    plain, turned = (read_image(str(tmp_path), str(row["member"])) for row in rows)
    assert np.abs(plain.astype(int) - turned).max() <= (12 if suffix == "jpg" else 0)
    different = np.bitwise_count(np.bitwise_xor(*perceptual_hashes(make_images(rows))))
    assert different <= (2 if suffix == "jpg" else 0)


def test_a_picture_that_is_really_turned_is_another(tmp_path):
    rows = [save(tmp_path / "a.png", BLOBS), save(tmp_path / "b.png", BLOBS.transpose(Image.Transpose.ROTATE_90))]
    assert near_duplicate_groups(make_images(rows)).tolist() == [0, 1]


@pytest.mark.bad_input
def test_every_image_that_cannot_be_decoded_is_named_in_one_error(tmp_path):
    """Nine files, of which four are broken: no picture, empty, cut off, and cut off but filled up with zeros."""
    whole = io.BytesIO()
    BLOBS.save(whole, "JPEG")
    half = whole.getvalue()[: len(whole.getvalue()) // 2]
    contents = dict.fromkeys("acegi", whole.getvalue())
    contents |= {"b": b"no image", "d": b"", "f": half, "h": half + bytes(9000)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in sorted(contents.items()):
            archive.writestr(f"{name}.jpg", content)
    images = make_images([{"image_id": f"{name}.jpg", "archive": str(tmp_path / "a.zip"), "member": f"{name}.jpg",
                           "width": 320, "height": 192} for name in contents])
    with pytest.raises(Undecodable, match=r"^4 images cannot be decoded:\n.*a\.zip: b\.jpg: expected an ") as caught:
        near_duplicate_groups(images)
    assert [member for _, member, _ in caught.value.images] == ["b.jpg", "d.jpg", "f.jpg", "h.jpg"]
    assert all(archive == str(tmp_path / "a.zip") for archive, _, _ in caught.value.images)
    assert "truncated" in caught.value.images[2][2] and "truncated" in caught.value.images[3][2]
    good = images[~images["member"].isin([member for _, member, _ in caught.value.images])]
    assert near_duplicate_groups(good).tolist() == [0] * 5
    with pytest.raises(ValueError, match=r"^.*a\.zip: d\.jpg: expected an image that can be decoded: cannot identify"):
        perceptual_hashes(images[images["image_id"] == "d.jpg"])


@pytest.mark.bad_input
def test_a_disk_that_fails_is_not_taken_for_a_broken_picture(tmp_path):
    images = make_images([save(tmp_path / "a.png", BLOBS)])
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match="a.png: cannot be read: .*No such file") as caught:
        perceptual_hashes(images)
    assert not isinstance(caught.value, Undecodable)


@pytest.mark.parametrize("kind", [{}, {"progressive": True}, {"exif": b"Exif\0\0II*\0\10\0\0\0\0\0\0\0\0\0"}])
def test_a_file_cut_anywhere_is_hashed_if_and_only_if_it_can_be_read(kind):
    file = io.BytesIO()
    BLOBS.save(file, "JPEG", quality=80, **kind)
    whole = file.getvalue()
    for length in [*range(2, len(whole), len(whole) // 40), *range(len(whole) - 4, len(whole) + 1)]:
        outcomes = [_decodes(read, whole[:length]) for read in (decode, lambda it: decode_small(it, (64, 64)))]
        assert outcomes[0] == outcomes[1] == (length == len(whole))


def _decodes(read: Callable[[io.BytesIO], object], content: bytes) -> bool:
    try:
        read(io.BytesIO(content))
    except ERRORS:
        return False
    return True


def test_pictures_of_16_bits_are_not_all_alike(tmp_path):
    """Pillow clips them to white, of which all hashes are equal."""
    rng, rows = np.random.default_rng(0), []
    for name in ("a.png", "b.png"):
        small = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).resize((64, 64))
        Image.fromarray(np.asarray(small).astype(np.uint16) * 200 + 5000).save(tmp_path / name)
        rows.append({"image_id": name, "archive": str(tmp_path), "member": name, "width": 64, "height": 64})
    assert near_duplicate_groups(make_images(rows)).tolist() == [0, 1]


def test_strata_say_what_an_image_holds():
    images = make_images(
        [{"image_id": i, "archive": "", "member": "", "width": 999, "height": 999} for i in "ab"]
    )
    sizes = [(60, 40), (50, 50), (50, 50), (300, 400)]
    boxes = make_boxes(
        [{"image_id": "a", "label": "pig", "x_min": 0, "y_min": 0, "x_max": w, "y_max": h} for w, h in sizes]
    )
    counts = stratum_counts(images, boxes, COMPETITION)
    holds = {key: value for key, value in counts.loc["a"].items() if value}
    assert holds == {
        ("count", "pig", "little"): 1,
        ("ratio", "pig", "horizontal"): 1,
        ("ratio", "pig", "square"): 3,
        ("size", "pig", "small"): 3,
        ("size", "pig", "very_large"): 1,
    }
    assert {key for key, value in counts.loc["b"].items() if value} == {("count", "none", "none")}
    labels = stratum_labels(images, boxes, COMPETITION)
    assert (labels.sum(axis=1) == [5, 1]).all() and labels.dtypes.eq(bool).all()


def test_every_image_is_in_one_fold_and_no_group_in_two(split):
    images, boxes = split
    check_images(images)
    assert set(images["fold"]) == set(range(5))
    assert images.groupby("group")["fold"].nunique().max() == 1
    assert leakage(images.set_index("image_id")["group"], images.set_index("image_id")["fold"]) == 0
    assert fold_table(images, boxes, COMPETITION.labels).loc["all", "images"] == len(images)


def test_file_order_changes_nothing(split):
    images, boxes, groups = barn()
    mixed = assign_folds(
        images.sample(frac=1, random_state=1),
        boxes.sample(frac=1, random_state=2),
        COMPETITION,
        groups=groups.sample(frac=1, random_state=3),
    )
    pd.testing.assert_frame_equal(split[0], mixed)
    halves = [mini_set(split[0], split[1], COMPETITION)]
    halves.append(
        mini_set(mixed.sample(frac=1, random_state=4), boxes.sample(frac=1, random_state=5), COMPETITION)
    )
    pd.testing.assert_series_equal(*halves)


def test_the_seed_decides():
    images, boxes, groups = barn(200)
    folds = [
        assign_folds(images, boxes, COMPETITION, groups=groups, seed=seed)["fold"] for seed in (1, 1, 50)
    ]
    assert folds[0].equals(folds[1]) and not folds[0].equals(folds[2])


def test_ours_is_nearer_to_the_whole_than_random_and_does_not_leak(split):
    images, boxes = split
    splits = {"ours": images.set_index("image_id")["fold"], **baseline_folds(images, boxes, COMPETITION)}
    report = split_report(images, boxes, COMPETITION, splits)
    distances = [column for column in report if column.endswith(("_mean", "_max"))]
    assert len(distances) == 6
    assert (report.loc["ours", distances] < report.loc["random", distances]).all()
    assert (report.loc["ours", distances] < 0.5 * report.loc["random, whole groups", distances]).all()
    assert report.loc[["ours", "random, whole groups"], "leakage"].eq(0).all()
    assert report.loc[["random", "class and count", "multilabel, ungrouped"], "leakage"].gt(0.9).all()
    assert report.loc["ours", "largest_fold"] - report.loc["ours", "smallest_fold"] < 30


def test_fold_zero_is_most_like_the_whole(split):
    images, boxes, groups = barn(300, per_group=30)
    images = assign_folds(images, boxes, COMPETITION, groups=groups)
    far = split_distances(stratum_counts(images, boxes, COMPETITION), images.set_index("image_id")["fold"])
    assert far.sum(axis=1).loc[0] <= far.sum(axis=1).median()


def test_a_group_of_most_images_does_not_empty_a_fold():
    images, boxes, groups = barn(60, per_group=1)
    groups[:] = np.clip(np.arange(60) - 54, 0, None)  # one of 55 and five of one
    images = assign_folds(images, boxes, COMPETITION, groups=groups)
    assert sorted(images["fold"].value_counts()) == [1, 1, 1, 2, 55]


@pytest.mark.bad_input
def test_too_few_images_and_images_without_a_group_are_refused():
    images, boxes, groups = barn(40)
    for n_images in (0, 1):
        few = images.iloc[:n_images]
        with pytest.raises(ValueError, match=f"at least 2 images .* found images: {n_images}, folds: 5"):
            assign_folds(few, boxes[boxes["image_id"].isin(few["image_id"])], COMPETITION, groups=groups)
    with pytest.raises(ValueError, match="found images: 40, folds: 1"):
        assign_folds(images, boxes, COMPETITION, groups=groups, n_folds=1)
    with pytest.raises(ValueError, match="is missing"):
        assign_folds(images, boxes, COMPETITION, groups=groups.iloc[1:])


def show(contents: list[str], groups: list[int], n_folds: int = 5, seed: int = 42) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images with folds, and boxes: an image a text, a box of 9 px a letter (`p` pig, `c` cow, `g` goat, `s` sheep)."""
    ids = [f"{number}.jpg" for number in range(len(contents))]
    images = make_images([{"image_id": name, "archive": "", "member": name, "width": 99, "height": 99} for name in ids])
    records = [{"image_id": name, "label": FARM[letter], "x_min": 0, "y_min": 0, "x_max": 9, "y_max": 9}
               for name, content in zip(ids, contents, strict=True) for letter in content]
    boxes = make_boxes(records)
    competition = Competition("farm", {label: [] for label in FARM.values()})
    of_image = pd.Series(groups, index=ids)
    return assign_folds(images, boxes, competition, groups=of_image, n_folds=n_folds, seed=seed), boxes


FARM = {"p": "pig", "c": "cow", "g": "goat", "s": "sheep"}


def folds_of(images: pd.DataFrame, boxes: pd.DataFrame, label: str) -> set[int]:
    return set(images.loc[images["image_id"].isin(boxes.loc[boxes["label"] == label, "image_id"]), "fold"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("pc", max_size=3), min_size=5, max_size=14), st.integers(2, 5), st.data())
def test_two_classes_are_in_as_many_folds_as_their_groups_allow(group_contents, n_folds, data):
    """Possible for any two classes: groups that hold both go to different folds, what lacks one of them gets it next.

    Each group is one to three images, the first with all that the group holds.
    """
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=len(group_contents), max_size=len(group_contents)))
    contents = [text * (n == 0) for text, size in zip(group_contents, sizes, strict=True) for n in range(size)]
    images, boxes = show(contents, np.repeat(np.arange(len(sizes)), sizes).tolist(), n_folds)
    assert set(images["fold"]) == set(range(n_folds))
    assert images.groupby("group")["fold"].nunique().max() == 1
    for label in ("pig", "cow"):
        n_groups = sum(label[0] in text for text in group_contents)
        found = folds_of(images, boxes, label)
        assert len(found) == min(n_groups, n_folds)
        assert (0 in found) == (n_groups > 1)  # a class of one group is trained on rather than validated on


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sets(st.sampled_from("pcgs")), min_size=4, max_size=7), st.integers(2, 3))
@example([set(), {"c", "g", "p"}, {"c", "p", "s"}, {"g", "p", "s"}], 2)  # none is in both folds or one untrained
def test_of_many_classes_none_is_missing_needlessly(group_contents, n_folds):
    """Against all assignments there are: first that the validation fold and its training part hold what they can."""
    texts = ["".join(sorted(content)) for content in group_contents]
    images, boxes = show(texts, list(range(len(texts))), n_folds)
    fold = images.set_index("image_id")["fold"].loc[[f"{n}.jpg" for n in range(len(texts))]].to_numpy()
    costs = [lack_cost(texts, each) for each in itertools.product(range(n_folds), repeat=len(texts))
             if len(set(each)) == n_folds]
    assert lack_cost(texts, fold) == min(costs)


def lack_cost(texts: list[str], fold: Sequence[int]) -> tuple[int, int]:
    """Classes that fold 0 lacks, or holds alone (twice if of several groups); (fold, class) of others that lack one."""
    first = rest = 0
    for letter in FARM:
        found = [each for each, text in zip(fold, texts, strict=True) if letter in text]
        if len(found) == 1:
            first += 0 in found
        elif found:
            first += 2 if set(found) == {0} else 0 not in found  # never trained on: worse than not validated on
            rest += len(set(fold) - {0} - set(found))
    return first, rest


def breeds(n_groups_each: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images with folds, and boxes: 24 groups of 1 to 11 images with pigs, and five breeds in a few groups each."""
    rng, labels = np.random.default_rng(seed), ["pig", *(f"breed {number}" for number in range(5))]
    has = np.zeros((24, 6), bool)
    has[:, 0] = True
    for breed in range(1, 6):
        has[rng.choice(24, n_groups_each, replace=False), breed] = True
    group = np.repeat(np.arange(24), rng.integers(1, 12, 24))
    ids = [f"{group:03d}_{number}.jpg" for number, group in enumerate(group)]
    images = make_images([{"image_id": name, "archive": "", "member": name, "width": 99, "height": 99} for name in ids])
    boxes = make_boxes([{"image_id": name, "label": label, "x_min": 0, "y_min": 0, "x_max": 9, "y_max": 9}
                        for name, own in zip(ids, has[group], strict=True) for label in np.array(labels)[own]])
    competition = Competition("breeds", {label: [] for label in labels})
    return assign_folds(images, boxes, competition, groups=pd.Series(group, index=ids)), boxes


@pytest.mark.parametrize("seed", [15, 56])
def test_five_breeds_of_five_groups_each_are_in_all_five_folds(seed):
    """Of ten starts of the stratifier and the polish none gets there without the search for it."""
    images, boxes = breeds(5, seed)
    assert fold_table(images, boxes, boxes["label"].unique().tolist())["lacks"].eq("").all()


@pytest.mark.parametrize("seed", range(4))
def test_breeds_of_two_groups_are_trained_on_and_validated_on(seed):
    """Balance alone would leave fold 0, the most typical one, without some of them in each of these."""
    images, boxes = breeds(2, seed)
    for breed in boxes["label"].unique():
        found = folds_of(images, boxes, breed)
        assert 0 in found and len(found) >= 2


@pytest.mark.bad_input
def test_a_class_in_one_group_is_trained_on_and_named():
    images, boxes = show(["p"] * 9 + ["c"] * 3, [*range(9), 9, 9, 9])
    (fold,) = folds_of(images, boxes, "cow")
    assert fold != 0
    table = fold_table(images, boxes, ["pig", "cow"])
    assert table.loc[0, "lacks"] == "cow" and table.loc[fold, "cow boxes"] == 3 and table.loc["all", "lacks"] == ""
    assert describe_split(images, boxes, ["pig", "cow", "goat"]).splitlines() == [
        "No image has a box of goat: no model can learn that here.",
        f"cow lies in 1 group of look-alike images: only fold {fold} of 5 has boxes of it, so no model is both trained "
        "and judged on it.",
        "Fold 0, which validates, has no box of cow: its scores leave that out.",
    ]


@pytest.mark.bad_input
def test_frames_of_one_still_camera_are_split_in_blocks_and_said_to_leak():
    images, boxes = show(["pc"] * 30, [0] * 30)
    assert sorted(images["fold"].value_counts()) == [6] * 5
    assert images["group"].unique().tolist() == [0]
    for _, own in images.groupby("fold"):  # consecutive as a camera counts: 2.jpg comes before 10.jpg
        numbers = sorted(int(name.removesuffix(".jpg")) for name in own["image_id"])
        assert numbers == list(range(numbers[0], numbers[0] + 6))
    assert leaky_folds(images) == [0, 1, 2, 3, 4]
    table = fold_table(images, boxes, ["pig", "cow"])
    assert table.loc["all", ["groups", "images", "leaky images"]].tolist() == [1, 30, 30]
    words = describe_split(images, boxes, ["pig", "cow"])
    assert words.startswith("The images form 1 group of near-duplicate frames (images that look alike, mostly one ")
    assert words.endswith(describe_leak(images, range(5)) + ".")
    assert describe_leak(images, [0]) == (
        "fold 0 shares near-duplicate images with other folds, so a model has been trained on almost the same images, "
        "and its scores flatter")


def test_of_two_cameras_one_validates_and_only_the_other_is_cut():
    images, boxes = show(["pc"] * 30, [0] * 16 + [1] * 14)
    assert images.groupby("fold")["group"].unique().map(list).tolist() == [[1], [0], [0], [0], [0]]
    assert leaky_folds(images) == [1, 2, 3, 4]
    assert describe_leak(images, [0]) == ""


def test_a_camera_that_lacks_a_class_or_is_one_odd_frame_does_not_validate():
    images, boxes = show(["pc"] * 20 + ["p"] * 9, [0] * 20 + [1] * 9)
    assert folds_of(images, boxes, "cow") == {0, 1, 2, 3}
    images, _ = show(["pc"] * 29, [0] * 28 + [1])
    assert (images["fold"] == 0).sum() == 7


@pytest.mark.bad_input
@pytest.mark.parametrize(("groups", "sizes"), [([0, 0], [1, 1]), ([0, 1], [1, 1]), ([0, 1, 2], [1, 1, 1]),
                                               ([0, 0, 1, 1], [2, 1, 1]), ([0, 0, 0, 0, 0], [1, 1, 1, 1, 1])])
def test_a_handful_of_images_gives_as_many_folds_as_they_can_fill(groups, sizes):
    images, boxes = show(["pc"] * len(groups), groups)
    assert images["fold"].value_counts().sort_index().tolist() == sizes
    competition = Competition("farm", {"pig": [], "cow": []})
    assert mini_set(images, boxes, competition).groupby(images["fold"].to_numpy()).sum().tolist() == [1] * len(sizes)
    splits = {"ours": images.set_index("image_id")["fold"], **baseline_folds(images, boxes, competition)}
    report = split_report(images, boxes, competition, splits)
    assert report["smallest_fold"].eq(1).all()
    assert ("random, whole groups" in report.index) == (len(set(groups)) >= len(sizes))
    fewer = f"There are {len(sizes)} folds instead of 5: so few images cannot fill more."
    assert (fewer in describe_split(images, boxes, ["pig", "cow"])) == (len(sizes) < 5)


def test_a_good_split_is_called_one(split):
    images, boxes = split
    assert describe_split(images, boxes, COMPETITION.labels).startswith("Every fold holds every class")
    assert leaky_folds(images) == [] and describe_leak(images, [0, 1]) == ""


def test_of_many_rare_classes_a_few_have_a_sentence():
    images, boxes = show(["p"] * 6, list(range(6)))
    rare = pd.concat([boxes.iloc[:1].assign(label=f"breed {number}") for number in range(40)])
    lines = describe_split(images, pd.concat([boxes, rare]), ["pig", *rare["label"]]).splitlines()
    assert len(lines) == 8 + 1 + (images["fold"].iloc[0] != 0)
    assert lines[8] == "So do 32 more classes: `lacks` in the table of folds has them."


def test_distances_are_total_variation():
    index = pd.Index(["a", "b", "c", "d"], name="image_id")
    columns = pd.MultiIndex.from_tuples([(d, "pig", b) for d in ("count", "ratio", "size") for b in "xy"])
    counts = pd.DataFrame(
        [[1, 0] * 3, [1, 0] * 3, [0, 1] * 3, [0, 1, 0, 0, 0, 1]], index=index, columns=columns
    )
    far = split_distances(counts, pd.Series([0, 0, 1, 2], index=index))
    assert far["count"].tolist() == [0.5, 0.5, 0.5]
    assert far["ratio"].tolist() == pytest.approx([1 / 3, 2 / 3, 1])  # fold 2 holds no box


def test_the_mini_set_is_a_stratified_half_of_every_fold(split):
    images, boxes = split
    mini = mini_set(images, boxes, COMPETITION)
    fold = images.set_index("image_id")["fold"]
    assert mini.groupby(fold).mean().between(0.45, 0.55).all()
    training = images[images["fold"] != 0]
    counts = stratum_counts(training, boxes[boxes["image_id"].isin(training["image_id"])], COMPETITION)
    assert split_distances(counts, mini.astype(int)).max(axis=None) < 0.03
    with pytest.raises(ValueError, match="between 0 and 1"):
        mini_set(images, boxes, COMPETITION, share=1)


def test_the_mini_set_has_every_class_of_a_fold():
    """One image in twenty shows a breed: half of them need not be among the half that is taken."""
    images, boxes = show(["p"] * 95 + ["c", "g", "pc", "s", "s"], list(range(100)))
    competition = Competition("farm", {label: [] for label in FARM.values()})
    for seed in range(5):
        mini = mini_set(images, boxes, competition, seed=seed)
        held = boxes.merge(images, on="image_id")
        in_mini = held[held["image_id"].isin(mini.index[mini])]
        of_mini, of_all = (set(zip(table["fold"], table["label"], strict=True)) for table in (in_mini, held))
        assert of_mini == of_all
        assert 50 <= mini.sum() <= 60


def test_group_report_counts_pairs():
    groups = pd.Series([0, 0, 0, 1, 1], index=list("abcde"))
    known = pd.Series(["x", "x", "y", "y", None], index=list("abcde"))
    assert group_report(groups, known) == {"precision": 1 / 3, "recall": 1 / 2}


def test_groups_of_real_frames_hold_videos_together_and_keep_sources_apart(real_data):
    from livestock.data.readers import read_train_and_test

    root, competition = real_data / "livestock", read_competition(REPOSITORY / "competition.yaml")
    train, _ = read_train_and_test("aihub", root, competition)
    groups = near_duplicate_groups(train.images)
    names = [image_id.rpartition("/")[2] for image_id in groups.index]
    sources = pd.read_csv(root / "sources.csv").set_index("image_id").loc[names].set_axis(groups.index)
    assert group_report(groups, sources["source"])["precision"] == 1
    videos = sources["clip"][sources["source"].isin(["pen_camera", "weaner_pen"])]
    assert group_report(groups, videos) == {"precision": 1, "recall": 1}
    images = assign_folds(train.images, train.boxes, competition, groups=groups)
    assert images.groupby("group")["fold"].nunique().max() == 1
    ungrouped = baseline_folds(images, train.boxes, competition)["multilabel, ungrouped"]
    assert leakage(images.set_index("image_id")["group"], ungrouped) > 0.4


def test_a_fold_of_one_image_is_all_in_the_mini_set() -> None:
    picture = {"archive": "a", "member": "m", "width": 9, "height": 9}
    images = make_images([{"image_id": f"{i}.jpg", **picture, "fold": i // 4} for i in range(5)])
    boxes = make_boxes([{"image_id": f"{i}.jpg", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 5, "y_max": 5}
                        for i in range(5)])
    competition = Competition("x", {"pig": ["pig"]})
    assert mini_set(images, boxes, competition).groupby(images["fold"].to_numpy()).sum().tolist() == [2, 1]


def test_a_pattern_in_paths_names_groups():
    ids = ["farm1/cam2/0001.jpg", "farm1/cam10/0001.jpg", "farm1/cam2/0002.jpg", "loose.jpg"]
    found = groups_by_pattern(ids, r"(farm\d+)/(cam\d+)/")
    assert found.tolist() == [("farm1", "cam2"), ("farm1", "cam10"), ("farm1", "cam2"), None]
    assert groups_by_pattern(["a_1.jpg", "b_1.jpg"], r"^(a)?").tolist() == [("a",), None]


@pytest.mark.bad_input
def test_patterns_that_name_nothing_are_refused():
    with pytest.raises(ValueError, match="group_pattern: expected a pattern with a group"):
        groups_by_pattern(["a.jpg"], "cam")
    for pattern in ("xx(", "(a{99999999999})"):
        with pytest.raises(ValueError, match="group_pattern: expected a regular expression, found '"):
            groups_by_pattern(["a.jpg"], pattern)
    with pytest.raises(ValueError, match=r"'\(cam\)' is found in none of 2 images, such as 'a.jpg'"):
        groups_by_pattern(["a.jpg", "b.jpg"], "(cam)")


def test_a_file_names_groups(tmp_path):
    """Paths and file names, a byte order mark, more columns, blanks, a row without a group, a blank line."""
    path = tmp_path / "groups.csv"
    path.write_text("image_id, note, group\na/1.jpg, x, barn 1\n\n2.jpg,, barn 2\na/3.jpg,,\n", encoding="utf-8-sig")
    assert read_groups(path, ["a/1.jpg", "a/2.jpg", "a/3.jpg", "b/1.jpg"]).to_dict() == {
        "a/1.jpg": "barn 1", "a/2.jpg": "barn 2"}


@pytest.mark.bad_input
@pytest.mark.parametrize(("text", "words"), [
    ("image_id,cam\na/1.jpg,x\n", "line 1: missing column 'group'; expected image_id,group, found 'image_id,cam'"),
    ("", "line 1: missing column 'image_id'"),
    ("image_id,group\na/1.jpg,x\n9.jpg,y\n1.jpg,y\na/1.jpg,z\n",
     "rows that do not fit the images: 3; an image is named like 'a/1.jpg'\nline 3: no image '9.jpg'\nline 4: 2 images "
     "are called '1.jpg', such as a/1.jpg and b/1.jpg: write the path\nline 5: 'a/1.jpg' is in line 2 already"),
    ("image_id,group\na/1.jpg\n", "line 2: expected 2 values, found 1"),
    ('image_id,group\n"a/1.jpg,x\n', "expected comma-separated values: unexpected end of data"),
    ("image_id,group\n" + "".join(f"{n}.png,x\n" for n in range(50)), "line 21: no image '19.png'\nand 30 more"),
])
def test_a_file_of_groups_that_does_not_fit_is_refused_with_all_its_faults(tmp_path, text, words):
    path = tmp_path / "groups.csv"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        read_groups(path, ["a/1.jpg", "b/1.jpg"])
    assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)


@pytest.mark.bad_input
def test_a_file_of_groups_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "groups.csv").write_bytes("image_id,group\n1.jpg,소\n".encode("cp949"))
    with pytest.raises(ValueError, match="groups.csv: expected UTF-8 text"):
        read_groups(tmp_path / "groups.csv", ["1.jpg"])


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([None, "a", "b", "c"]), st.sampled_from([None, 1, 2])),
                min_size=1, max_size=12))
def test_united_groups_are_the_components_of_what_is_linked(rows):
    """Against a loop that joins any two images that agree in something, until nothing changes."""
    ids = [f"{number:02}" for number in range(len(rows))]
    near, *known = (pd.Series(column, index=ids, dtype=object) for column in zip(*rows, strict=True))
    united = unite_groups(near.astype(int), [series.dropna() if series.isna().any() else series for series in known])
    of = list(range(len(rows)))
    for _ in rows:
        for i, j in itertools.combinations(range(len(rows)), 2):
            if any(a is not None and a == b for a, b in zip(rows[i], rows[j], strict=True)):
                low = min(of[i], of[j])
                of = [low if each in (of[i], of[j]) else each for each in of]
    assert united.tolist() == pd.factorize(np.array(of))[0].tolist()
    assert united.index.tolist() == ids


def test_near_duplicates_of_two_cameras_are_one_group():
    near = pd.Series([0, 0, 1, 2], index=["cam1/1.jpg", "cam2/1.jpg", "cam2/2.jpg", "cam3/1.jpg"])
    assert unite_groups(near, [groups_by_pattern(near.index, r"(cam\d)/")]).tolist() == [0, 0, 0, 1]
    assert unite_groups(near, []).tolist() == [0, 0, 1, 2]
