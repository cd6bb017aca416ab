"""`box_id`: the number by which a box is known wherever it goes.

The n-th box of an image, counted from 0, has the number `first + n`, where `first` is a hash of the image's `image_id`
and of the table's origin: `gold` for what people labelled, a name of the pass for what a model sees, and so on. So

- the same data read again give the same numbers, on every machine;
- tables of different origins can be concatenated: of five million boxes from three passes over 13,000 images two share
  a number with a chance of about 1 in 10^7, and `check_boxes` refuses a table in which that happens;
- a number takes eight bytes in memory, and in Parquet, as the difference from the one before, hardly any.

A box keeps its number when it is filtered, suppressed, ranked, relabelled or loses confidence. A box that is fused from
others is a new box with a number of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

FIRST_BITS = 62  # first + n stays below 2^63


def first_box_id(image_id: str, origin: str) -> int:
    """The number of an image's first box in a table of this origin.

    >>> first_box_id("a/1.jpg", "gold")
    1792425863388643253
    """
    digest = hashlib.blake2b(f"{origin}\0{image_id}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - FIRST_BITS)


def new_box_ids(image_ids: Sequence[str] | np.ndarray | pd.Series, origin: str) -> np.ndarray:
    """The `box_id` of each row of a table of this origin, `(N,)` int64, from the `image_id` of each row.

    Rows of one image are numbered in their order; they need not stand together.

    >>> ids = new_box_ids(["a.jpg", "b.jpg", "a.jpg"], "gold")
    >>> int(ids[2] - ids[0])
    1
    """
    codes, names = pd.factorize(np.asarray(image_ids, object), use_na_sentinel=False)
    first = np.array([first_box_id(str(name), origin) for name in names], np.int64)
    nth = pd.Series(codes).groupby(codes).cumcount().to_numpy()
    return first[codes] + nth if len(codes) else np.zeros(0, np.int64)
