"""Sentences about keypoints: errors beside the guess, differences of arms, what is gross."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ...evaluation.gains import Gain, decide


def describe_pose_table(table: pd.DataFrame, guess: str) -> str:
    """The best arm by pixel error, beside the guess that looks at no picture; `table` of `pose_results.tabulate_poses`.

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
        interval = f"{gain.low:+.2f} to {gain.high:+.2f}, {gain.n_seeds} seeds"
        if np.isnan(gain.low):
            interval = "one seed" if gain.n_seeds < 2 else "too few groups"
        words.append(f"{claim}: {decide([gain])}, {gain.mean:+.2f} {unit} ({interval})")
    if gains and all(gain.n_seeds < 2 for gain in gains.values()):
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


def describe_histories(histories: Mapping[str, Sequence[pd.DataFrame]], column: str = "train_maps_loss") -> str:
    """By how much a column of each arm's histories falls from its first epoch to its last, the mean over seeds.

    >>> describe_histories({"place": [pd.DataFrame({"train_maps_loss": [0.4, 0.1]})]})
    'place: to 25 % of the first epoch.'
    """
    shares = {name: np.mean([run[column].iloc[-1] / run[column].iloc[0] for run in runs])
              for name, runs in histories.items()}
    words = [f"{name}: to {100 * share:.3g} %" for name, share in shares.items()]
    return f"{', '.join(words)} of the first epoch."


def describe_colours(colours: pd.DataFrame) -> str:
    """How far the mean colours are from ImageNet's, in deviations; `colours` of `keypoints.measure_colours`."""
    away = ((colours.loc["mean here"] - colours.loc["mean of ImageNet"]) / colours.loc["deviation of ImageNet"]).abs()
    return f"The means are up to {away.max():.2f} deviations apart ({away.idxmax()})."


def describe_pose_costs(costs: pd.DataFrame) -> str:
    """The largest network beside the smallest; `costs` of `keypoints.measure_costs`.

    >>> describe_pose_costs(pd.DataFrame({"parameters": [4.0], "gflops": [0.2]}, index=["lite0"]))
    'lite0: 4.0 million parameters, 0.20 billion multiply-adds a picture.'
    """
    ordered = costs.sort_values("gflops")
    small, large = ordered.iloc[0], ordered.iloc[-1]
    words = (f"{small.name}: {small['parameters']:.1f} million parameters, {small['gflops']:.2f} billion multiply-adds "
             "a picture")
    if len(ordered) == 1:
        return f"{words}."
    return f"{words}; {large.name} has {large['gflops'] / small['gflops']:.0f} times as many multiply-adds."
