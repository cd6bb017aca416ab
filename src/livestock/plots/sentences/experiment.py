"""Sentences about experiments: rates, costs, claims, the winner."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .words import NOTHING, extremes

LITTLE = 0.1  # mAP below which a detector has hardly begun


def describe_rates(rates: pd.DataFrame) -> str:
    """Which rates were taken, and whether a better one may lie outside of those tried.

    >>> describe_rates(pd.DataFrame({"arm": ["SSD"] * 3, "lr0": [0.003, 0.01, 0.03], "mAP50_95": [0.0, 0.1, 0.2],
    ...                              "chosen": [False, False, True]}))
    'Taken are SSD 0.03; the best rate of SSD is at an end of those tried, so a better one may lie beyond.'
    """
    best = rates[rates["chosen"]].set_index("arm")
    words = f"Taken are {', '.join(f'{arm} {row.lr0:.2g}' for arm, row in best.iterrows())}"
    ends = rates.groupby("arm")["lr0"].agg(["min", "max", "nunique"])
    at_end = [arm for arm, row in best.iterrows()
              if ends.loc[arm, "nunique"] > 2 and row["lr0"] in tuple(ends.loc[arm, ["min", "max"]])]
    if not best["mAP50_95"].max() > 0:
        return f"{words}: no rate has learnt anything in so few epochs."
    if not at_end:
        return f"{words}."
    rate, are = ("rate", "is") if len(at_end) == 1 else ("rates", "are")
    return (f"{words}; the best {rate} of {', '.join(at_end)} {are} at an end of those tried, so a better one may lie "
            "beyond.")


def describe_costs(table: pd.DataFrame) -> str:
    """The cheapest and the dearest arm by seconds an epoch, and the sizes; `table` as `plot_costs` takes it."""
    found = extremes(table["seconds"])
    if found is None:
        return NOTHING
    dear, most, cheap, least = found
    return (f"An epoch of {dear} takes {most / max(least, 1e-9):.1f} times as long as one of {cheap} ({most:.1f} s and "
            f"{least:.1f} s); in half precision they have {table.loc[dear, 'megabytes']:.0f} MB and "
            f"{table.loc[cheap, 'megabytes']:.0f} MB.")


def describe_claims(claims: pd.DataFrame) -> str:
    """Each claim with its gain, interval and verdict."""
    words = []
    for claim in claims.itertuples():
        gain = "there is no such animal to score by" if np.isnan(claim.gain) else f"{claim.gain:+.3f}"
        interval = "" if np.isnan(claim.low) else f" ({claim.low:+.3f} to {claim.high:+.3f}, {claim.seeds} seeds)"
        words.append(f"{claim.claim}: {claim.verdict}, {gain}{interval}")
    ending = "\nOne seed shows nothing: N_SEEDS = 3 would." if (claims["seeds"] < 2).all() else ""
    return "\n".join(words) + ending


def describe_winner(winner: str, verdict: str, nearest: pd.Series) -> str:
    """Which arm is first, and whether that is more than luck; the three of `detectors.find_winner`.

    >>> describe_winner("TOOD", "shown", pd.Series({"other": "SSD", "score": 0.3, "gain": 0.1, "low": 0.05,
    ...                                             "high": 0.15}))
    'TOOD is shown to be the best, with 0.300: +0.100 over SSD (+0.050 to +0.150, widened for the best of several).'
    """
    if np.isnan(nearest["score"]):
        return "There is no such animal to score by, so none is first."
    interval = "one seed, which shows nothing" if np.isnan(nearest["low"]) else \
        f"{nearest['low']:+.3f} to {nearest['high']:+.3f}, widened for the best of several"
    said = "is shown to be the best" if verdict == "shown" else "is first, and not shown to be the best"
    little = " In so few steps little has been learnt." if nearest["score"] < LITTLE else ""
    return (f"{winner} {said}, with {nearest['score']:.3f}: {nearest['gain']:+.3f} over {nearest['other']} "
            f"({interval}).{little}")
