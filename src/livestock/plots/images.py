"""Figures that show pictures: boxes drawn on them, and strips of near-duplicate frames."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ..config import Skeleton
from ..data.archives import read_image
from ..data.dataset import paint_grey
from ..tables import XYXY
from .common import class_palette, frequent_labels, new_grid, note, set_title, spread

HALO = [
    effects.Stroke(linewidth=2.6, foreground="black", alpha=0.6),
    effects.Normal(),
]  # seen on light and dark

MAX_SHAPE = 1.0  # height / width that a row of pictures makes room for; a taller picture is shown smaller


def choose_images(
    images: pd.DataFrame, boxes: pd.DataFrame, labels: Sequence[str], n_images: int, rng: np.random.Generator
) -> pd.DataFrame:
    """At most `n_images` rows of `images`, drawn in turn from those that show each label; sorted by id."""
    chosen: list[str] = []
    for label in np.resize(np.array(labels, dtype=object), n_images):
        left = np.setdiff1d(boxes.loc[boxes["label"] == label, "image_id"].unique(), chosen)
        if len(left):
            chosen.append(str(rng.choice(left)))
    return images[images["image_id"].isin(chosen)].sort_values("image_id")


def plot_images(
    images: pd.DataFrame,
    boxes: pd.DataFrame,
    labels: Sequence[str],
    *,
    title: str = "Images with their boxes",
    n_columns: int = 3,
    hidden: pd.DataFrame | None = None,
    keypoints: pd.DataFrame | None = None, skeleton: Skeleton | None = None,
) -> np.ndarray:
    """Draws each row of `images`, in that order, with its boxes in the colour of their class.

    Boxes of a model or silver boxes carry their confidence. Where `boxes` holds gold boxes beside others, the
    gold ones are dashed. What lies in a box of the table `hidden` is grey, as training sees it. The `keypoints` of the
    boxes are dots, hollow where the point is hidden, and the skeleton's edges lines between them. Pictures are read
    from the archives at full size; axes are in pixels of the original image.
    """
    axes = _picture_grid(
        [images.iloc[i : i + n_columns] for i in range(0, len(images), n_columns)], n_columns
    )
    of_image = dict(tuple(boxes.groupby("image_id")))
    for ax, row in zip(axes.flat, images.itertuples(), strict=False):
        own = of_image.get(row.image_id, boxes.iloc[:0])
        picture = read_image(row.archive, row.member)
        if hidden is not None:
            grey = hidden.loc[hidden["image_id"] == row.image_id, XYXY].to_numpy()
            picture = paint_grey(picture, grey, own[XYXY].to_numpy())
        show_picture(ax, picture, f"{short_name(row.image_id)}: {_describe(own)}")
        draw_boxes(ax, own, labels)
        draw_keypoints(ax, own, keypoints, labels, skeleton)
    for ax in axes.flat[len(images) :]:
        ax.set_axis_off()
    if not len(images):
        note(axes.flat[0], "no image to show")
    set_title(axes, title)
    used, _ = frequent_labels(boxes, [label for label in labels if label in set(boxes["label"])])
    handles = [Line2D([], [], color=class_palette(labels)[label], lw=2, label=label) for label in used]
    if handles:
        axes.flat[0].figure.legend(handles=handles, loc="upper right", ncols=min(len(handles), 6))
    return axes


def draw_boxes(ax: Axes, boxes: pd.DataFrame, labels: Sequence[str]) -> None:
    """Draws a boxes table as rectangles in pixels, with the confidence of those that are not gold."""
    palette, mixed = class_palette(labels), boxes["source"].nunique() > 1
    order = boxes.sort_values("confidence")  # the surest on top
    for box in order.itertuples():
        gold, colour = box.source == "gold", palette[box.label]
        ax.add_patch(
            Rectangle(
                (box.x_min, box.y_min),
                box.x_max - box.x_min,
                box.y_max - box.y_min,
                fill=False,
                lw=1.4,
                edgecolor=colour,
                ls="--" if gold and mixed else "-",
                path_effects=HALO,
            )
        )
        if not gold:
            ax.text(
                box.x_min,
                box.y_min,
                f"{box.confidence:.2f}".lstrip("0"),
                fontsize=6.5,
                color="white",
                va="bottom",
                clip_on=True,
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
            )


def draw_keypoints(
    ax: Axes, boxes: pd.DataFrame, keypoints: pd.DataFrame | None, labels: Sequence[str], skeleton: Skeleton | None
) -> None:
    """Draws the labelled points of some boxes, if any, in the colour of their class, and the edges that have both ends.

    Points are in the frame of boxes, where the first pixel's centre is (0.5, 0.5); axes of pictures have it at (0, 0).
    """
    if keypoints is None or skeleton is None:
        return
    palette = class_palette(labels)
    seen = keypoints[(keypoints["visible"] > 0) & keypoints["box_id"].isin(boxes["box_id"])]
    points = {box_id: own.set_index("keypoint")[["x", "y", "visible"]] for box_id, own in seen.groupby("box_id")}
    for box in boxes[boxes["box_id"].isin(list(points))].itertuples():
        own, colour = points[box.box_id], palette[box.label]
        x, y = own["x"] - 0.5, own["y"] - 0.5
        for edge in skeleton.edges:
            ends = [edge.first, edge.second]
            if edge.label == box.label and own.index.isin(ends).sum() == 2:
                ax.plot(x[ends], y[ends], color=colour, lw=1.2, path_effects=HALO)
        inside = np.where(own["visible"] == 2, colour, "white")
        ax.scatter(x, y, s=14, c=inside, edgecolors=colour, linewidths=0.9, zorder=3, path_effects=HALO)


def plot_groups(
    images: pd.DataFrame, groups: pd.Series, *, n_groups: int = 5, n_frames: int = 5
) -> np.ndarray:
    """Frames of the largest near-duplicate groups, a row each, evenly spaced through the group.

    `groups` holds the group of each `image_id`.
    """
    number = groups.reindex(images["image_id"]).to_numpy()
    sizes = pd.Series(number).value_counts()
    largest = sizes[sizes > 1].sort_index().sort_values(ascending=False, kind="stable").index[:n_groups]
    members = [images[number == group].sort_values("image_id") for group in largest]
    strips = [frames.iloc[spread(len(frames), n_frames)] for frames in members]
    axes = _picture_grid(strips, n_frames)
    for row, group, frames, strip in zip(axes, largest, members, strips, strict=False):
        for ax, frame in zip(row, strip.itertuples(), strict=False):
            show_picture(ax, read_image(frame.archive, frame.member), short_name(frame.image_id, 24))
        row[0].set_ylabel(f"group {group}\n{len(frames):,} images")
    for ax in axes.flat:
        if not ax.images:
            ax.set_axis_off()
    if not len(largest):
        note(axes.flat[0], "no near-duplicates")
    set_title(axes, "The largest groups of near-duplicate frames")
    return axes


def _picture_grid(rows: list[pd.DataFrame], n_columns: int, width: float = 12) -> np.ndarray:
    """Axes for rows of pictures (each an images table), each row as high as its highest picture needs."""
    shapes = [min((row["height"] / row["width"]).max(), MAX_SHAPE) for row in rows] or [0.4]
    heights = [shape * width / n_columns + 0.35 for shape in shapes]
    return new_grid(len(heights), n_columns, (width, 0.5 + sum(heights)), height_ratios=heights)


def show_picture(ax: Axes, picture: np.ndarray, title: str) -> None:
    """Shows `(H, W, 3)` under a small title, without ticks, axes in its pixels."""
    ax.imshow(picture)
    ax.set_title(title, fontsize="small", weight="normal", pad=4)
    ax.set(
        xlim=(-0.5, picture.shape[1] - 0.5),
        ylim=(picture.shape[0] - 0.5, -0.5),
        xticks=[],
        yticks=[],
        anchor="N",
    )


def short_name(name: str, longest: int = 34) -> str:
    """An image's name for a title: ASCII, as the bundled font has no Korean, one line, cut in the middle if long."""
    name = "".join(letter if letter.isprintable() else "?" for letter in name.encode("ascii", "replace").decode())
    half = (longest - 3) // 2
    return name if len(name) <= longest else f"{name[:half]}...{name[-half:]}"


def _describe(boxes: pd.DataFrame) -> str:
    """How many boxes an image has, by source where there are several."""
    if boxes["source"].nunique() > 1:
        return ", ".join(
            f"{count:,} {source}" for source, count in boxes["source"].value_counts(sort=False).items()
        )
    return "1 box" if len(boxes) == 1 else f"{len(boxes):,} boxes"
