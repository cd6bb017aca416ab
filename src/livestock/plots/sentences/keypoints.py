"""Sentences about keypoints: errors beside the guess, differences of arms, what is gross."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ...evaluation.gains import Gain, decide


def describe_pose_table(table: pd.DataFrame, guess: str) -> str:
    """The best arm by pixel error, beside the guess that looks at no picture; `table` of `pose_lab.tabulate_poses`.

    >>> table = pd.DataFrame({"pixels": [4.0, 50.0], "gross": [0.01, 0.7]}, index=["heat map", "mean pose"])
    >>> describe_pose_table(table, "mean pose")
    'Smallest error: heat map, 4.0 px on average, 1 % of the points beyond 25 px; the mean pose is 50.0 px away.'
    """
    own = table.drop(index=guess)["pixels"].dropna()
    if own.empty:
        return "No point was found, so there is nothing to compare."
    best = own.index[int(own.argmin())]
    little = " No setting is better than that guess: nothing useful has been learnt." if (
        own.min() >= table.loc[guess, "pixels"]) else ""
    gross = f"{100 * table.loc[best, 'gross']:.0f} %"
    return (f"Smallest error: {best}, {own.min():.1f} px on average, {gross} of the points beyond 25 px; the {guess} "
            f"is {table.loc[guess, 'pixels']:.1f} px away.{little}")


def describe_pose_gains(gains: Mapping[str, Gain], unit: str = "px") -> str:
    """Each comparison with its gain, interval and verdict.

    >>> describe_pose_gains({"Gaussian below one-hot": Gain(3.0, 1.0, 5.0, 3)})
    'Gaussian below one-hot: shown, +3.00 px (+1.00 to +5.00, 3 seeds)'
    """
    words = []
    for claim, gain in gains.items():
        interval = "one seed" if np.isnan(gain.low) else f"{gain.low:+.2f} to {gain.high:+.2f}, {gain.n_seeds} seeds"
        words.append(f"{claim}: {decide([gain])}, {gain.mean:+.2f} {unit} ({interval})")
    if gains and all(np.isnan(gain.low) for gain in gains.values()):
        words.append("One seed shows nothing: N_SEEDS = 3 would.")
    return "\n".join(words)


def describe_by_keypoint(table: pd.DataFrame) -> str:
    """The keypoints that are found best and worst; `table` has `keypoint, n, mean`, a row a keypoint.

    >>> describe_by_keypoint(pd.DataFrame({"keypoint": ["tail", "ear"], "n": [4, 4], "mean": [9.0, 3.0]}))
    'ear is found best (3.0 px), tail worst (9.0 px).'
    """
    known = table.dropna(subset="mean").sort_values("mean")
    if len(known) < 2:
        return "There are too few keypoints to compare."
    best, worst = known.iloc[0], known.iloc[-1]
    return (f"{best['keypoint']} is found best ({best['mean']:.1f} px), {worst['keypoint']} worst "
            f"({worst['mean']:.1f} px).")
