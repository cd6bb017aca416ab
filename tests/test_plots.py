"""Figures have a title and labelled axes, with no image, one and very many; boxes lie where they should."""

import zipfile

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from PIL import Image

from livestock import plots
from livestock.config import Competition, Edge, Keypoint, Skeleton
from livestock.data.folds import baseline_folds, split_report
from livestock.labels.silver import Thresholds
from livestock.tables import make_boxes, make_images, make_keypoints

LABELS = ["pig", "cow"]
COMPETITION = Competition(
    "test", {"pig": [], "cow": []}, class_pattern="^(pig|cow)_", count_bins={"cow": [4, 6]}
)


def tables(n_images: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    ids = [f"{LABELS[number % 2]}_{number:05}.jpg" for number in range(n_images)]
    images = make_images(
        [
            {
                "image_id": i,
                "archive": "a.zip",
                "member": i,
                "width": 640,
                "height": 360,
                "group": n // 3,
                "fold": n % 5,
            }
            for n, i in enumerate(ids)
        ]
    )
    rows = np.repeat(np.arange(n_images), rng.integers(1, 6, n_images) if n_images > 1 else 2)
    corners = rng.random((len(rows), 2)) * (300, 150)
    sizes = 5 + rng.random((len(rows), 2)) * (300, 200)
    place = dict(
        zip(["x_min", "y_min", "x_max", "y_max"], np.hstack([corners, corners + sizes]).T, strict=True)
    )
    of_image = np.array(ids, dtype=object)[rows]
    boxes = pd.DataFrame({"image_id": of_image, "label": [i[:3] for i in of_image], **place})
    return images, make_boxes(boxes)


@pytest.fixture(autouse=True)
def closed_figures():
    plots.use_style()
    yield
    plt.close("all")


FIGURES = {
    "class_counts": lambda i, b: plots.plot_class_counts(b, LABELS),
    "image_sizes": lambda i, b: plots.plot_image_sizes(i, b, LABELS),
    "box_counts": lambda i, b: plots.plot_box_counts(i, b, COMPETITION),
    "ratio_bins": lambda i, b: plots.plot_ratio_bins(b, LABELS),
    "size_bins": lambda i, b: plots.plot_size_bins(b, LABELS),
    "small_boxes": lambda i, b: plots.plot_small_boxes(b, LABELS),
    "empty_images": lambda i, b: plots.plot_empty_images(i, b, COMPETITION),
    "box_centres": lambda i, b: plots.plot_box_centres(i, b, LABELS),
    "count_against_area": lambda i, b: plots.plot_count_against_area(i, b, LABELS),
    "overlaps": lambda i, b: plots.plot_overlaps(b, LABELS),
    "group_sizes": lambda i, b: plots.plot_group_sizes(i.set_index("image_id")["group"]),
    "shares": lambda i, b: plots.plot_shares(i, b, COMPETITION, {"a": i.set_index("image_id")["fold"] == 0}),
}


@pytest.mark.parametrize("n_images", [0, 1, 20_000])
@pytest.mark.parametrize("name", FIGURES)
def test_figures_have_a_title_and_labelled_axes(name, n_images):
    drawn = FIGURES[name](*tables(n_images))
    axes = np.ravel(drawn)
    figure = axes[0].figure
    figure.canvas.draw()
    assert all(ax.get_title(loc="left") or ax.get_title() for ax in axes)
    assert len(axes) == 1 or figure.get_suptitle()
    assert all(ax.get_ylabel() for ax in axes)
    assert axes[-1].get_xlabel()


def of_classes(labels: list[str], n_images: int = 60) -> tuple[pd.DataFrame, pd.DataFrame, Competition]:
    """Images with boxes of these classes in turn, the first class most often."""
    images, boxes = tables(n_images)
    drawn = np.where(np.arange(len(boxes)) % 3 == 0, 0, np.arange(len(boxes)) % len(labels))
    competition = Competition("x", {label: [] for label in labels})
    return images, boxes.assign(label=np.array(labels, object)[drawn]), competition


CLASS_FIGURES = {
    "class_counts": lambda i, b, c: plots.plot_class_counts(b, c.labels),
    "image_sizes": lambda i, b, c: plots.plot_image_sizes(i, b, c.labels),
    "box_counts": lambda i, b, c: plots.plot_box_counts(i, b, c),
    "ratio_bins": lambda i, b, c: plots.plot_ratio_bins(b, c.labels),
    "size_bins": lambda i, b, c: plots.plot_size_bins(b, c.labels),
    "small_boxes": lambda i, b, c: plots.plot_small_boxes(b, c.labels),
    "empty_images": lambda i, b, c: plots.plot_empty_images(i, b, c),
    "box_centres": lambda i, b, c: plots.plot_box_centres(i, b, c.labels),
    "count_against_area": lambda i, b, c: plots.plot_count_against_area(i, b, c.labels),
    "overlaps": lambda i, b, c: plots.plot_overlaps(b, c.labels),
    "average_precision": lambda i, b, c: plots.plot_average_precision(
        pd.DataFrame([(label, iou, 0.5) for iou in ("0.5", "0.75") for label in c.labels],
                     columns=["label", "iou", "ap"]), c.labels),
    "confidence": lambda i, b, c: plots.plot_confidence(b.assign(confidence=0.3), c.labels),
    "count_agreement": lambda i, b, c: plots.plot_count_agreement(i, b, b[::2], c.labels),
    "shares": lambda i, b, c: plots.plot_shares(i, b, c, {"fold 0": i.set_index("image_id")["fold"] == 0}),
    "precision_recall": lambda i, b, c: plots.plot_precision_recall(
        pd.DataFrame([(label, 0.1 * n, 0.5) for label in c.labels for n in range(3)],
                     columns=["label", "recall", "precision"]), c.labels, 0.5),
    "breakdown": lambda i, b, c: plots.plot_breakdown({"by size": pd.DataFrame(
        [(size, label, 0.5, 3) for size in ("small", "large") for label in c.labels],
        columns=["bin", "label", "ap", "n_truth"])}, c.labels),
    "error_rates": lambda i, b, c: plots.plot_error_rates(pd.DataFrame(
        [("size", size, label, 0.5, 0.5, 3) for size in ("small", "large") for label in c.labels],
        columns=["what", "bin", "label", "missed", "false", "n_truth"]), "size", c.labels),
    "bands": lambda i, b, c: plots.plot_thresholds(pd.DataFrame(
        [(label, 0.5, 0.5, 0.5, True) for label in c.labels],
        columns=["label", "confidence", "share", "chance", "is_confirmed"]), {}, c.labels),
}


@pytest.mark.parametrize("n_classes", [1, 3, 100])
@pytest.mark.parametrize("name", CLASS_FIGURES)
def test_figures_of_any_number_of_classes_fit_a_page(name, n_classes):
    figure = np.ravel(CLASS_FIGURES[name](*of_classes([f"class {n}" for n in range(n_classes)])))[0].figure
    figure.canvas.draw()
    width, height = figure.get_size_inches()
    assert width <= 40 and height <= 25, (width, height)
    legends = [legend for ax in figure.axes if (legend := ax.get_legend())]
    if name not in ("image_sizes", "count_agreement"):  # of which the first shows all, and the second the sizes too
        assert all(len(legend.get_texts()) <= 12 for legend in legends)


def test_of_many_classes_those_with_most_boxes_are_shown_and_the_title_says_so():
    images, boxes, competition = of_classes([f"c{n}" for n in range(20)])
    axes = plots.plot_box_counts(images, boxes, competition)
    most = boxes["label"].value_counts().reindex(competition.labels).sort_values(ascending=False, kind="stable")[:12]
    shown = [ax.get_title(loc="left") for ax in axes.flat]
    assert shown == [label for label in competition.labels if label in most.index]
    assert "(the 12 of 20 classes with most boxes)" in axes.flat[0].figure.get_suptitle()
    assert plots.class_palette(competition.labels)["c0"] == matplotlib.colors.to_hex(
        axes.flat[0].patches[0].get_facecolor())  # a colour is by place among all classes


@pytest.mark.bad_input
@pytest.mark.parametrize("name", CLASS_FIGURES)
def test_names_with_dollars_are_drawn_as_they_are(name):
    """matplotlib takes what stands between two `$` for a formula: `$pig_$` ended the figure with a ParseException."""
    labels = ["a$\\frac{$", "$pig_$", "${}^$"]
    images, boxes, _ = of_classes(labels)
    figure = np.ravel(CLASS_FIGURES[name](images, boxes, Competition("x", {label: [] for label in labels})))[0].figure
    figure.canvas.draw()
    assert not any(text.get_parse_math() for text in figure.findobj(matplotlib.text.Text))


@pytest.mark.bad_input
def test_pictures_with_dollars_and_line_breaks_in_their_names_are_shown(archive):
    named = archive.assign(image_id=["$\\a_$.png", "b\u2028c\n$.png", "돼지$$.png"])
    boxes = make_boxes([box("$\\a_$.png"), box("b\u2028c\n$.png")])
    for axes in (plots.plot_images(named, boxes, LABELS), plots.plot_truth_and_predictions(named, boxes, boxes, LABELS),
                 plots.plot_groups(named, pd.Series(0, index=named["image_id"]))):
        axes.flat[0].figure.canvas.draw()
        titles = [ax.get_title(loc="left") or ax.get_title() for ax in axes.flat]
        assert any(title.startswith("$\\a_$.png") for title in titles)
        assert any(title.startswith("b?c?$.png") for title in titles)
        assert not any("\n" in title for title in titles)


def test_log_scales_have_plain_numbers():
    images, boxes, competition = of_classes(LABELS)
    trials = pd.DataFrame({"trial": [0, 1], "state": "complete", "fitness": [0.1, 0.2], "lr0": [1e-4, 1e-2]})
    for axes in (plots.plot_confidence(boxes.assign(confidence=0.3), LABELS), plots.plot_overlaps(boxes, LABELS),
                 plots.plot_moves(trials, {"lr0": (1e-5, 1e-1)}, {"lr0": 0.01})):
        figure = np.ravel(axes)[0].figure
        figure.canvas.draw()
        ticks = [text.get_text() for text in np.ravel(axes)[0].get_yticklabels(which="both")]
        assert any(ticks) and not any("$" in tick for tick in ticks)


def test_the_noise_of_a_training_is_a_band_around_the_start_values():
    trials = pd.DataFrame({"trial": [1, 0], "state": "complete", "fitness": [0.7, 0.5]})
    (band,) = plots.plot_trials(trials, (0.01, 0.04)).patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((0.46, 0.54))
    assert not plots.plot_trials(trials).patches  # not known with one seed
    assert not plots.plot_trials(trials.query("trial == 1"), (0.01, 0.04)).patches


def test_many_points_are_thinned_out_and_the_title_says_so():
    ax = plots.plot_count_against_area(*tables(20_000), LABELS)
    assert len(ax.collections[0].get_offsets()) == 4_000
    assert "4,000 of 20,000" in ax.get_title(loc="left")


def test_bounds_of_count_bins_are_drawn_between_counts():
    axes = plots.plot_box_counts(*tables(100), COMPETITION)
    drawn = [line.get_xdata()[0] for line in axes.flat[1].lines]
    assert drawn == [3.5, 5.5]


def test_a_split_report_is_drawn_and_styled():
    images, boxes = tables(60)
    splits = baseline_folds(images, boxes, COMPETITION)
    report = split_report(images, boxes, COMPETITION, splits)
    axes = plots.plot_distances(report)
    assert axes.flat[0].figure.get_suptitle() and all(ax.get_xlabel() and ax.get_ylabel() for ax in axes.flat)
    page = plots.style_split_report(report).to_html()
    assert "class and count" in page and page == plots.style_split_report(report).to_html()


def test_palette_is_by_place_in_the_class_order():
    assert list(plots.class_palette(LABELS)) == LABELS
    assert plots.class_palette(LABELS)["pig"] == plots.class_palette(["pig", "cow", "hen"])["pig"]
    assert len(set(plots.class_palette([str(number) for number in range(30)]).values())) == 30


@pytest.fixture
def archive(tmp_path) -> pd.DataFrame:
    """Three pictures of different sizes."""
    rows = []
    with zipfile.ZipFile(tmp_path / "돼지.zip", "w") as file:
        for number, (width, height) in enumerate([(64, 36), (40, 60), (50, 50)]):
            with file.open(f"{number}.png", "w") as member:
                Image.new("RGB", (width, height), "gray").save(member, "PNG")
            rows.append(
                {
                    "image_id": f"{number}.png",
                    "archive": str(tmp_path / "돼지.zip"),
                    "member": f"{number}.png",
                    "width": width,
                    "height": height,
                }
            )
    return make_images(rows)


def box(image_id: str, **changes) -> dict:
    corners = {"x_min": 10.0, "y_min": 5.0, "x_max": 30.0, "y_max": 25.0}
    return {"image_id": image_id, "label": "cow", **corners, **changes}


def test_boxes_are_drawn_at_their_pixels_on_their_image(archive):
    boxes = make_boxes([box("0.png"), box("1.png", x_max=40.0, label="pig"), box("1.png")])
    axes = plots.plot_images(archive, boxes, LABELS, title="Truth", n_columns=2)
    assert axes.shape == (2, 2) and axes[0, 0].figure.get_suptitle() == "Truth"
    rectangles = [[patch for patch in ax.patches if isinstance(patch, Rectangle)] for ax in axes.flat]
    assert [len(found) for found in rectangles] == [1, 2, 0, 0]
    assert rectangles[0][0].get_bbox().extents.tolist() == [10, 5, 30, 25]
    assert {patch.get_bbox().x1 for patch in rectangles[1]} == {30, 40}
    colours = {matplotlib.colors.to_hex(patch.get_edgecolor()) for patch in rectangles[1]}
    assert colours == set(plots.class_palette(LABELS).values())
    assert axes[0, 1].get_xlim() == (-0.5, 39.5) and axes[0, 1].get_ylim() == (59.5, -0.5)
    assert "1.png: 2 boxes" in axes[0, 1].get_title(loc="left")


def test_predictions_carry_their_confidence_and_gold_beside_them_is_dashed(archive):
    boxes = make_boxes([box("0.png"), box("0.png", confidence=0.87, source="model")])
    ax = plots.plot_images(archive.iloc[:1], boxes, LABELS).flat[0]
    assert [text.get_text() for text in ax.texts] == [".87"]
    assert [patch.get_linestyle() for patch in ax.patches] == ["-", "--"]
    alone = plots.plot_images(archive.iloc[:1], boxes[boxes["source"] == "gold"], LABELS).flat[0]
    assert [patch.get_linestyle() for patch in alone.patches] == ["-"] and not alone.texts


def test_crops_show_the_box_in_question_solid_and_human_ones_dashed(archive):
    crops = make_boxes([box("0.png", confidence=0.87, source="silver"), box("1.png", confidence=0.5, source="silver")])
    axes = plots.plot_crops(archive, crops.assign(frames=[0.4, np.nan]), make_boxes([box("0.png", x_max=50.0)]), LABELS)
    assert axes.shape == (1, 6) and "how many of these are right?" in axes[0, 0].figure.get_suptitle()
    titles = [ax.get_title(loc="left") for ax in axes.flat]
    assert titles == ["1: cow 0.87\nin 40% of other frames", "2: cow 0.50\nno other frames", "", "", "", ""]
    styles = [sorted((patch.get_bbox().x1, patch.get_linestyle()) for patch in ax.patches) for ax in axes[0, :2]]
    assert styles == [[(30, "-"), (50, "--")], [(30, "-")]]
    assert axes[0, 0].get_xlim() == (20 - 22, 20 + 22)  # the box, and .6 of its longer side around it
    nothing = plots.plot_crops(archive, crops.iloc[:0].assign(frames=[]), make_boxes([]), LABELS)
    assert nothing.flat[0].texts[0].get_text() == "no box would be added"


def test_no_image_and_no_group_are_said(archive):
    axes = plots.plot_images(archive.iloc[:0], make_boxes([]), LABELS)
    assert axes.flat[0].texts[0].get_text() == "no image to show"
    axes = plots.plot_groups(archive, pd.Series([0, 1, 2], index=archive["image_id"]))
    assert axes.flat[0].texts[0].get_text() == "no near-duplicates"


def test_groups_are_shown_as_strips_and_korean_names_as_ascii(archive):
    archive = archive.assign(image_id=["돼지.png", "b.png", "c.png"])
    axes = plots.plot_groups(archive, pd.Series([0, 0, 1], index=archive["image_id"]), n_frames=4)
    assert axes.shape == (1, 4)
    titles = [ax.get_title(loc="left") for ax in axes.flat]
    assert titles == ["b.png", "??.png", "", ""]
    assert "2 images" in axes[0, 0].get_ylabel()


def test_chosen_images_take_turns_between_labels():
    images, boxes = tables(50)
    chosen = plots.choose_images(images, boxes, LABELS, 6, np.random.default_rng(1))
    again = plots.choose_images(images, boxes, LABELS, 6, np.random.default_rng(1))
    assert chosen["image_id"].str[:3].value_counts().to_dict() == {"cow": 3, "pig": 3}
    pd.testing.assert_frame_equal(chosen, again)


def make_plateau() -> pd.DataFrame:
    points = pd.MultiIndex.from_product([[0.5, 0.6, 0.7], [0.001, 0.1]], names=["iou_threshold", "conf_threshold"])
    level = [False, False, True, True, False, False]
    return pd.DataFrame({"score": [0.1, 0.1, 0.3, 0.2, 0.2, 0.1], "on_plateau": level}, index=points)


def test_the_sweep_marks_its_points_and_outlines_the_plateau():
    chosen = {"iou_threshold": 0.6, "conf_threshold": 0.001}
    axes = plots.plot_sweep(make_plateau(), chosen, {"iou_threshold": 0.68, "conf_threshold": 0.001})
    assert axes.get_title(loc="left") and axes.get_xlabel() and axes.get_ylabel()
    marks = {points.get_label(): points.get_offsets()[0].tolist() for points in axes.collections if points.get_label()
             in ("chosen", "highest", "original")}
    assert marks == {"chosen": [1.5, 0.5], "highest": [1.5, 0.5], "original": [2.5, 0.5]}
    outline = {tuple(map(tuple, line.get_xydata().tolist())) for line in axes.lines}
    assert outline == {((1, 0), (2, 0)), ((1, 2), (2, 2)), *(((x, y), (x, y + 1)) for x in (1, 2) for y in (0, 1))}


def test_methods_show_their_gain_with_its_interval():
    table = pd.DataFrame({"gain": [0, 0.1, -0.1], "gain_low": [0, 0.05, -0.2], "gain_high": [0, 0.15, -0.05],
                          "p": [np.nan, 0.03, 0.03]}, index=["plain", "better", "worse"])

    def green_and_others(axes) -> list[list[list[float]]]:
        spans = [(matplotlib.colors.to_hex(lines.get_color()[0]) == "#029e73", segment[:, 0].round(3).tolist())
                 for lines in axes.collections for segment in lines.get_segments()]
        return [[span for is_green, span in spans if is_green is wanted] for wanted in (True, False)]

    axes = plots.plot_methods(table)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["worse (p 0.03)", "better (p 0.03)"]
    assert "plain" in axes.get_title(loc="left")
    assert green_and_others(axes) == [[[0.05, 0.15]], [[-0.2, -0.05]]]
    table["p"] = [np.nan, 0.06, 0.5]
    assert green_and_others(plots.plot_methods(table)) == [[], [[-0.2, -0.05], [0.05, 0.15]]]


def test_curve_and_breakdown_show_each_class():
    curve = pd.DataFrame({"label": ["pig", "pig", "cow"], "recall": [0.1, 0.4, 0.5], "precision": [1, 0.8, 0.9]})
    axes = plots.plot_precision_recall(curve, LABELS, 0.75)
    assert {line.get_label(): line.get_xdata().tolist() for line in axes.lines} == {"pig": [0.1, 0.4], "cow": [0.5]}
    table = pd.DataFrame({"bin": ["small", "small", "large"], "label": ["pig", "cow", "pig"], "ap": [0.2, 0.4, np.nan],
                          "n_truth": [3, 4, 0]})
    (ax,) = plots.plot_breakdown({"by size": table}, LABELS).flat
    assert [label.get_text() for label in ax.get_xticklabels()] == ["small"]  # a bin without truth has no bar
    assert sorted(patch.get_height() for patch in ax.patches if patch.get_height()) == [0.2, 0.4]


def test_bands_of_silver_labels_are_drawn_at_their_confidences():
    ranked = pd.DataFrame({"label": "pig", "confidence": [0.9, 0.5, 0.1], "share": [0.8, 0.5, 0.1],
                           "chance": [1, 0.25, 0.03], "is_confirmed": [True, False, False]})
    thresholds = {"pig": Thresholds(0.7, 0.3, 0.4), "cow": Thresholds(1.01, 1.01)}
    pig, cow = plots.plot_thresholds(ranked, thresholds, LABELS).flat
    assert pig.lines[0].get_xydata().tolist() == [[0.9, 0.8], [0.5, 0.5], [0.1, 0.1]]
    assert [line.get_ydata().tolist() for line in pig.lines[1:3]] == [[0.25, 0.03], [1]]
    assert [line.get_xdata()[0] for line in pig.lines[3:]] == [0.7, 0.4] and pig.patches[0].get_xy()[0] == 0.3
    titles = [ax.get_title(loc="left") for ax in (pig, cow)]
    assert titles == ["pig: label from 0.70, confirmed from 0.40, hidden from 0.30", "cow: none sure enough"]
    assert pig.get_xlabel() and pig.get_ylabel() and pig.figure.get_suptitle()


def test_students_are_joined_by_seed():
    students = pd.DataFrame([(name, seed, ap) for name, gain in (("human labels", 0), ("complete", 0.1))
                             for seed in (1, 2) for ap in (0.2 + gain, 0.4 + gain)],
                            columns=["strategy", "seed", "ap_fair"])
    axes = plots.plot_students(students)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["human labels", "complete"]
    lines = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
    assert lines == {name: pytest.approx([0.3, 0.4]) for name in ("seed 1", "seed 2", "mean")}


def test_the_learning_curve_goes_through_the_means():
    axes = plots.plot_learning_curve(pd.DataFrame({"model": ["teachers", "teachers", "students"],
                                                  "images": [78, 82, 160], "mAP": [0.2, 0.3, 0.4]}))
    assert axes.lines[0].get_xydata().tolist() == [[80, 0.25], [160, 0.4]]
    assert axes.get_title(loc="left") and axes.get_xlabel() and axes.get_ylabel()


def test_what_is_hidden_from_training_is_shown_grey(archive):
    hidden = make_boxes([{"image_id": "0.png", "label": "pig", "x_min": 0, "y_min": 0, "x_max": 9,
                          "y_max": 9, "confidence": 0.5, "source": "silver"}])
    axes = plots.plot_images(archive[:1], make_boxes([]), LABELS, hidden=hidden)
    picture = axes.flat[0].images[0].get_array()
    assert (picture[:9, :9] == 114).all() and not (picture[9:, 9:] == 114).all()


def test_keypoints_lie_on_their_pixels_and_edges_need_both_ends(archive):
    """The centre of a pixel is at 0.5 in a table and at 0 in a picture's axes; a hidden point is hollow."""
    name = archive["image_id"].iloc[0]
    boxes = make_boxes([{"image_id": name, "label": "pig", "x_min": 1, "y_min": 1, "x_max": 30, "y_max": 20}] * 2)
    records = [(0, "snout", 5.5, 6.5, 2), (0, "tail", 20.5, 9.5, 1), (0, "ear", None, None, 0), (1, "snout", 3, 4, 2)]
    points = make_keypoints([{"box_id": boxes["box_id"][box], "image_id": name, "keypoint": keypoint, "x": x, "y": y,
                              "visible": visible} for box, keypoint, x, y, visible in records])
    names = ["snout", "tail", "ear"]
    skeleton = Skeleton(tuple(Keypoint("pig", each, index) for index, each in enumerate(names)),
                        (Edge("pig", "snout", "tail"), Edge("pig", "snout", "ear")))
    ax = plots.plot_images(archive[:1], boxes, LABELS, keypoints=points, skeleton=skeleton).flat[0]
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[5, 6], [20, 9]]]
    dots = [offset for scatter in ax.collections for offset in scatter.get_offsets().tolist()]
    assert dots == [[5, 6], [20, 9], [2.5, 3.5]]
    insides = [colour for scatter in ax.collections for colour in scatter.get_facecolors().tolist()]
    assert (insides[1] == [1, 1, 1, 1]) and insides[0] == insides[2] != insides[1]
