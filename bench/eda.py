"""The notebooks 01_eda and 02_split at the original's size, after reading: a minute and 1 GB each.

python bench/eda.py [--images 16455] [--runs 5]     some five minutes on 2 cores

Whole runs of a notebook with its kernel, on small images drawn for it; both hash every image and look for
near-duplicates anew each time. Then how the search for near pairs alone grows with the number of hashes, beside
comparing all pairs: hashes of cameras of forty frames, most of which differ in a few bits from the one before.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import memory
import numpy as np
from archives import CAMERA_FRAMES, N_COWS, N_PIGS, draw_archives
from common import print_line

BAR_SECONDS, BAR_MB = 60, 1000
LINES = {"eda": "01_eda", "split": "02_split"}
GROWTH = (1_000, 16_455, 100_000)
RADIUS = 8


def main() -> None:
    """Prints both lines and a line for each number of hashes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=N_COWS + N_PIGS)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    root = memory.ROOT / str(arguments.images)
    draw_archives(root / "raw", arguments.images, arguments.images // 8)
    memory.watch_stage("read", root)
    for line, notebook in LINES.items():
        runs = [time_notebook(notebook, root) for _ in range(arguments.runs)]
        seconds, peak = (statistics.median(values) for values in zip(*runs, strict=True))
        print_line(line, seconds, None, seconds=BAR_SECONDS, ok=peak < BAR_MB,
                   more=f", {peak:.0f} MB of {BAR_MB}, {arguments.images} images")
    for n in GROWTH:
        print(f"near pairs among {n:,} hashes: {time_pairs(n, is_ours=True):.2f} s, "
              f"all pairs compared {time_pairs(n, is_ours=False):.2f} s")


def time_notebook(notebook: str, root: Path) -> tuple[float, float]:
    """Seconds and the peak in MB of a run of it; what it keeps in files is forgotten first."""
    from livestock.pipeline.store import forget

    for step in ("groups", "split"):
        forget(root, step)
    started = time.perf_counter()
    peak = memory.watch_stage(notebook, root)
    return time.perf_counter() - started, peak / 1e6


def time_pairs(n: int, *, is_ours: bool) -> float:
    """Seconds to find all pairs of `n` hashes within the radius."""
    from livestock.data.folds.duplicates import near_pairs

    rng = np.random.default_rng(0)
    flips = (np.uint64(1) << rng.integers(0, 64, n).astype(np.uint64)) * (rng.random(n) < 0.7)
    flips[::CAMERA_FRAMES] = rng.integers(0, 1 << 63, len(flips[::CAMERA_FRAMES]), dtype=np.uint64)
    hashes = np.bitwise_xor.accumulate(flips)
    started = time.perf_counter()
    if is_ours:
        near_pairs(hashes, RADIUS)
    else:
        for row in range(n - 1):
            np.flatnonzero(np.bitwise_count(hashes[row + 1 :] ^ hashes[row]) <= RADIUS)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
