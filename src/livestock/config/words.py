"""Lists of faults and of names as a sentence has them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

NAMES_SHOWN = 4  # classes that a sentence names before it counts the others


def in_words(faults: Sequence[str]) -> str:
    """One fault as it is; several as a list, a line each, below how many there are.

    >>> print(in_words(["epochs: found 0", "batch: found -1"]))
    2 things to put right:
    - epochs: found 0
    - batch: found -1
    """
    return faults[0] if len(faults) == 1 else "\n- ".join([f"{len(faults)} things to put right:", *faults])


def join_names(names: Sequence[str]) -> str:
    """Names as a sentence has them; of many the first few, and how many others there are.

    >>> join_names(["pig", "cow", "goat"])
    'pig, cow and goat'
    """
    if len(names) > NAMES_SHOWN + 1:
        names = [*names[:NAMES_SHOWN], f"{len(names) - NAMES_SHOWN} others"]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def meant(name: str, known: Iterable[str]) -> str:
    """`, meant is perhaps 'x'` where a known name is near; else an empty text.

    >>> meant("epoch", ["epochs", "batch"])
    ", meant is perhaps 'epochs'"
    """
    by_folded = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(name[:80].casefold(), by_folded, n=1, cutoff=0.6)
    return f", meant is perhaps {by_folded[near[0]]!r}" if near else ""
