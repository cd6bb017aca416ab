"""Sentences about scores: by class, by bin, by threshold, by method."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ...postprocess import ALPHA
from .words import NOTHING, count, extremes

LOOSE = (" The axis of IoU is short: this network marks an object once, so that suppression could only drop copies; at "
         "1 it drops nothing.")


def describe_average_precision(scores: pd.DataFrame, iou: str) -> str:
    """The best and the worst class at one IoU, and what the step from the lowest IoU costs the worst.

    `scores` has the columns `label, iou, ap`, `iou` as text.

    >>> describe_average_precision(pd.DataFrame({"label": ["pig", "cow"], "iou": "0.75", "ap": [0.83, 0.58]}), "0.75")
    'cow AP at 0.75 is .58, .25 below pig: look at 05.'
    """
    table = scores.pivot_table(index="label", columns="iou", values="ap", sort=False)
    if iou not in table or table[iou].dropna().empty:
        return "No class has a true box here, so there is no AP."
    found = extremes(table[iou])
    if found is None:
        label = table[iou].dropna().index[0]
        words = f"{label} alone is scored: AP at {iou} is {_short(table.loc[label, iou])}"
    else:
        best, high, label, low = found
        words = (f"{label} AP at {iou} is {_short(low)}, {_short(high - low)} below {best}" if high - low >= 0.005
                 else f"All classes have nearly the same AP at {iou}, {_short(low)} to {_short(high)}")
    lowest = min(table.columns, key=float)
    loose = table.loc[label, lowest] - table.loc[label, iou]
    tight = f"; {_short(loose)} of it is lost by boxes that are found and not tight" if loose >= 0.005 else ""
    return f"{words}{tight}: look at 05."


def _short(value: float) -> str:
    """.58 for 0.58."""
    return f"{value:.2f}".removeprefix("0") if 0 <= value < 1 else f"{value:.2f}"


def describe_confidence(boxes: pd.DataFrame, threshold: float = 0.25) -> str:
    """Which share of the boxes is below a confidence."""
    if boxes.empty:
        return "The model sees no box."
    return (f"{(boxes['confidence'] < threshold).mean():.0%} of {count(len(boxes), 'candidate')} are below a "
            f"confidence "
            f"of {threshold:g}; the median is {boxes['confidence'].median():.3f}.")


def describe_methods(methods: pd.DataFrame) -> str:
    """Whether any method is shown to be better than the first; `methods` of `postprocess.Choice`."""
    others = methods.iloc[1:].dropna(subset=["gain"])
    if others.empty:
        return f"{methods.index[0]} was not compared with anything." if len(methods) else NOTHING
    shown = others[(others["p"] <= ALPHA) & (others["gain"] > 0)]
    best, gain = others["gain"].idxmax(), others["gain"].max()
    if len(shown):
        return (f"{shown['gain'].idxmax()} is shown to be better than {methods.index[0]}: "
                f"{shown['gain'].max():+.3f} mAP; "
                f"so {'is 1 method' if len(shown) == 1 else f'are {len(shown)} methods'} of {len(others)}.")
    return (f"None of {count(len(others), 'method')} is shown to be better than {methods.index[0]}; the highest, "
            f"{best}, "
            f"has {gain:+.3f} mAP.")


def describe_sweep(plateau: pd.DataFrame, chosen: Mapping[str, float], original: Mapping[str, float]) -> str:
    """How far the chosen thresholds are below the highest score, and where the original's are; as `plot_sweep`.

    The axis of IoU ends at 1 where a network marks an object once, and is short: the sentence says why.
    """
    if plateau.empty:
        return NOTHING
    score = plateau["score"]
    keys = np.array([list(key) for key in score.index], float)
    names = list(score.index.names)
    at_chosen, at_original = (
        float(score.iloc[np.abs(keys - [point[name] for name in names]).sum(axis=1).argmin()])
        for point in (chosen, original))
    return (f"Chosen: IoU {chosen['iou_threshold']:g}, confidence {chosen['conf_threshold']:g}, "
            f"{score.max() - at_chosen:.4f} below the highest score; {plateau['on_plateau'].mean():.0%} of the grid is "
            f"on the plateau. The original's thresholds differ from the chosen by {at_original - at_chosen:+.4f}."
            + LOOSE * bool(keys[:, names.index("iou_threshold")].max() == 1))


def describe_breakdown(tables: Mapping[str, pd.DataFrame], least: int = 10) -> str:
    """The class and bin with the lowest AP over all tables, of those with at least `least` true boxes."""
    rows = pd.concat([table.assign(by=by) for by, table in tables.items()], ignore_index=True)
    known = rows[rows["n_truth"] >= least].dropna(subset=["ap"])
    if known.empty:
        return f"No bin has {least} true boxes of a class, so no AP can be believed."
    worst = known.loc[known["ap"].idxmin()]
    return (f"Lowest of all bins with at least {least} true boxes: {worst['label']}, {worst['bin']} "
            f"({worst['by']}), AP "
            f"{worst['ap']:.2f} of {count(int(worst['n_truth']), 'true box')}; highest: {known['ap'].max():.2f}.")


def describe_precision_recall(curve: pd.DataFrame) -> str:
    """The class whose line ends first, and where; `curve` of `precision_recall`."""
    if curve.empty:
        return "The model finds nothing, so there is no curve."
    ends = curve.groupby("label", sort=False)["recall"].max()
    label, end = ends.idxmin(), ends.min()
    if len(ends) < 2:
        return f"{label}: {end:.0%} are found at all; the rest no threshold brings back."
    return f"Recall ends first for {label}: {end:.0%} are found at all ({ends.idxmax()}: {ends.max():.0%})."
