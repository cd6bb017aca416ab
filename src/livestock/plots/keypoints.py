"""Figures of keypoints: objects with their points, heat maps over them, errors, and what training did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..config import Skeleton
from ..data.archives import read_image
from ..tables import XYXY
from .common import NEUTRAL, PLAIN, new_axes, new_grid, note, set_title, use_log_scale
from .images import HALO, short_name, show_picture

SURROUNDINGS = 0.15  # of a box, shown around it
TRUE, FOUND = "#ffd400", "#00c8ff"
EDGES = "#7fdc7f"


def plot_objects(
    images: pd.DataFrame, boxes: pd.DataFrame, keypoints: pd.DataFrame, skeleton: Skeleton, *, title: str,
    found: pd.DataFrame | None = None, notes: Mapping[int, str] | None = None, n_columns: int = 4,
) -> np.ndarray:
    """Each row of `boxes`, cut out with a little around it, with its points: seen ones filled, hidden ones hollow.

    `found`, where it is given, are a model's points, joined to the true ones by a line as long as the error; `notes`
    says something of an object by its `box_id`.
    """
    n_rows = max(-(-len(boxes) // n_columns), 1)
    axes = new_grid(n_rows, n_columns, (12, 3.1 * n_rows + 0.5))
    place = images.set_index("image_id")
    for ax, box in zip(axes.flat, boxes.itertuples(), strict=False):
        image = place.loc[box.image_id]
        picture = read_image(image["archive"], image["member"])
        shift, part = cut_surroundings(picture, np.array([getattr(box, name) for name in XYXY]))
        own = keypoints[(keypoints["box_id"] == box.box_id) & (keypoints["visible"] > 0)]
        said = (notes or {}).get(box.box_id, "")
        show_picture(ax, part, f"{short_name(box.image_id.rpartition('/')[2], 26)}{': ' if said else ''}{said}")
        other = None if found is None else found[found["box_id"] == box.box_id]
        draw_points(ax, own, skeleton, box.label, shift, other)
    for ax in axes.flat[len(boxes):]:
        ax.set_axis_off()
    if not len(boxes):
        note(axes.flat[0], "no object to show")
    set_title(axes, title)
    return axes


def cut_surroundings(picture: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upper left corner `(2,)` of a box with a little around it, and the pixels there."""
    height, width = picture.shape[:2]
    reach = SURROUNDINGS * max(box[2] - box[0], box[3] - box[1])
    left, top = np.floor(np.maximum(box[:2] - reach, 0)).astype(int)
    right, bottom = np.ceil(np.minimum(box[2:] + reach, [width, height])).astype(int)
    return np.array([left, top]), picture[top:bottom, left:right]


def draw_points(
    ax: Axes, points: pd.DataFrame, skeleton: Skeleton, label: str, shift: np.ndarray, found: pd.DataFrame | None = None
) -> None:
    """Draws an object's labelled points and the edges between them, `shift` pixels to the upper left."""
    at = {row.keypoint: (row.x - shift[0] - 0.5, row.y - shift[1] - 0.5) for row in points.itertuples()}
    for edge in skeleton.edges:
        if edge.label == label and edge.first in at and edge.second in at:
            ax.plot(*zip(at[edge.first], at[edge.second], strict=True), color=EDGES, lw=1.0, path_effects=HALO)
    for row in points.itertuples():
        ax.plot(*at[row.keypoint], "o", ms=4.5, mec=TRUE, mfc=TRUE if row.visible == 2 else "none", mew=1.2)
    if found is None:
        return
    for row in found.itertuples():
        if row.keypoint in at:
            place = row.x - shift[0] - 0.5, row.y - shift[1] - 0.5
            ax.plot(*zip(at[row.keypoint], place, strict=True), color=FOUND, lw=1.2, path_effects=HALO)
            ax.plot(*place, "x", ms=5, mec=FOUND, mew=1.6)


def plot_maps(pictures: Sequence[np.ndarray], maps: Sequence[np.ndarray], titles: Sequence[str], *, title: str,
              n_columns: int = 4) -> np.ndarray:
    """Heat maps `(H, W)` laid over the pictures `(S, S, 3)` that a network saw, each from 0 to its own highest."""
    n_rows = max(-(-len(pictures) // n_columns), 1)
    axes = new_grid(n_rows, n_columns, (12, 3.2 * n_rows + 0.5))
    for ax, picture, values, said in zip(axes.flat, pictures, maps, titles, strict=False):
        show_picture(ax, picture, f"{said}; highest {values.max():.2g}")
        ax.imshow(values, cmap="inferno", alpha=0.55, vmin=0, vmax=max(float(values.max()), 1e-9),
                  interpolation="bilinear", extent=(-0.5, picture.shape[1] - 0.5, picture.shape[0] - 0.5, -0.5))
    for ax in axes.flat[len(pictures):]:
        ax.set_axis_off()
    set_title(axes, title)
    return axes


def plot_errors(errors: Mapping[str, pd.DataFrame], *, title: str, gross: float = 25.0) -> Axes:
    """The share of points within so many pixels, a line an arm; `errors` are of `pixel.find_errors`, several seeds."""
    axes = new_axes(None, width=8, height=3.8)
    palette = sns.color_palette("colorblind", max(len(errors), 1))
    for colour, (name, table) in zip(palette, errors.items(), strict=False):
        values = np.sort(table["error"].dropna().to_numpy())
        if len(values):
            axes.step(np.maximum(values, 0.3), (1 + np.arange(len(values))) / len(table), where="post", color=colour,
                      label=f"{name}: median {np.median(values):.1f} px")
    axes.axvline(gross, color=NEUTRAL, lw=1, ls="--")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(PLAIN)
    axes.set(title=title, xlabel=f"error in pixels of the original image (log scale; dashed: {gross:g})",
             ylabel="share of labelled points", ylim=(0, 1.02))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return axes


def plot_histories(histories: Mapping[str, Sequence[pd.DataFrame]], column: str, *, title: str, label: str) -> Axes:
    """A column of each training's history by epoch, a line a seed, arms by colour."""
    axes = new_axes(None, width=8, height=3.6)
    palette = sns.color_palette("colorblind", max(len(histories), 1))
    for colour, (name, runs) in zip(palette, histories.items(), strict=False):
        for number, history in enumerate(runs):
            axes.plot(history["epoch"] + 1, history[column], color=colour, marker=".", label="" if number else name)
    axes.set(title=title, xlabel="epoch", ylabel=label)
    use_log_scale(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return axes


def plot_pose_arms(scores: pd.DataFrame, measure: str, *, title: str, label: str, guess: float = float("nan")) -> Axes:
    """A measure of each arm: a dot a seed, a bar their mean, the guess dashed; `scores` of `list_scores`."""
    arms = list(dict.fromkeys(scores["arm"]))
    axes = new_axes(None, width=8, height=1.2 + 0.45 * len(arms))
    sns.barplot(scores, y="arm", x=measure, errorbar=None, color="#0173b2", alpha=0.45, ax=axes)
    sns.stripplot(scores, y="arm", x=measure, jitter=False, color="#0173b2", edgecolor="0.2", linewidth=0.6, size=5,
                  ax=axes)
    if np.isfinite(guess):
        axes.axvline(guess, color=NEUTRAL, ls="--", lw=1)
        axes.text(guess, -0.55, "mean pose", ha="center", va="bottom", color=NEUTRAL, size="small")
    n_seeds = scores["seed"].nunique()
    axes.set(title=title, ylabel="", xlim=(0, None),
             xlabel=f"{label}\n({'one seed' if n_seeds == 1 else f'dots: {n_seeds} seeds'})")
    axes.title.set_y(1.04)
    return axes


def plot_by_keypoint(table: pd.DataFrame, *, title: str) -> Axes:
    """The mean error of each keypoint, seen and hidden apart; `table` has `keypoint, visible, mean`."""
    names = list(dict.fromkeys(table["keypoint"]))
    axes = new_axes(None, width=8, height=1.0 + 0.32 * len(names))
    words = {1: "hidden", 2: "seen"}
    sns.barplot(table.assign(kind=table["visible"].map(words)), y="keypoint", x="mean", hue="kind",
                hue_order=["seen", "hidden"], palette=["#0173b2", "#de8f05"], ax=axes)
    axes.set(title=title, ylabel="", xlabel="mean error in pixels of the original image", xlim=(0, None))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return axes
