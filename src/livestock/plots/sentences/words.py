"""Helpers of all sentences: print below a figure, count, name."""

from __future__ import annotations

import warnings

import matplotlib.pyplot as plt
import pandas as pd

NOTHING = "There is nothing to show here."


def say(sentence: str) -> None:
    """Shows the open figures, then prints the sentence below them; a notebook would print it above."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*non-interactive.*")  # outside a notebook nothing is shown
        plt.show()
    print(sentence)


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "box"), count(1200, "box"), count(2, "image")
    ('1 box', '1,200 boxes', '2 images')
    """
    many = f"{noun}es" if noun.endswith(("x", "s")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else many}"


def extremes(values: pd.Series) -> tuple[str, float, str, float] | None:
    """The names and values of the highest and the lowest, NaN left out; None for fewer than two.

    >>> extremes(pd.Series({"pig": 0.8, "cow": 0.5, "goat": float("nan")}))
    ('pig', 0.8, 'cow', 0.5)
    """
    known = values.dropna()
    if len(known) < 2:
        return None
    high, low = known.idxmax(), known.idxmin()
    return str(high), float(known[high]), str(low), float(known[low])
