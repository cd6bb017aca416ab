"""Times 1,000 bootstrap resamples of the difference between two answers against scoring each resample anew.

python bench/bootstrap.py     a minute on 2 cores

3,291 images, 100 boxes each. Stock is what a user would write: copy the rows of the drawn images and score both answers
with the competition's scorer (`map_boxes`); timed on a few resamples and multiplied.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from common import N_IMAGES, draw_boxes, print_line
from map_boxes import mean_average_precision_for_boxes

from livestock.data.submission import ANSWER_COLUMNS, BOX_NAMES, TRUTH_COLUMNS
from livestock.evaluation import draw_counts, interval, match_usual, resample
from livestock.tables import XYXY

N_RESAMPLES, N_CANDIDATES, BAR_SECONDS = 1_000, 100, 10


def main() -> None:
    """Prints the bench line; the bar is ten seconds for all resamples, matching included."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the images; 1 is all 3,291")
    n_images = max(2, round(N_IMAGES * parser.parse_args().fraction))
    truth, first = draw_boxes(n_images, N_CANDIDATES)
    rng = np.random.default_rng(1)
    second = first.assign(confidence=first["confidence"] * rng.uniform(0.8, 1, len(first)))
    images = pd.Index(sorted(first["image_id"].unique()))
    started = time.perf_counter()
    counts = draw_counts(np.random.default_rng(0), len(images), N_RESAMPLES)
    resampled = [resample(match_usual(truth, boxes, 0.75), images, counts) for boxes in (first, second)]
    low, high = interval(resampled[1] - resampled[0])
    seconds = time.perf_counter() - started
    stock = N_RESAMPLES * np.median([_time_stock(truth, (first, second), images, rng) for _ in range(3)])
    print(f"difference {low:.4f} to {high:.4f}; {N_RESAMPLES:,} resamples of {len(images):,} images in {seconds:.2f} s "
          f"(bar {BAR_SECONDS})")
    print_line("bootstrap", seconds, stock, seconds=BAR_SECONDS)


def _time_stock(truth: pd.DataFrame, answers: tuple[pd.DataFrame, ...], images: pd.Index, rng: np.random.Generator
                ) -> float:
    """Seconds for one resample."""
    tables = [_rows(truth)[TRUTH_COLUMNS], *(_rows(boxes)[ANSWER_COLUMNS] for boxes in answers)]
    drawn = rng.choice(images, len(images))
    started = time.perf_counter()
    copies = pd.DataFrame({"ImageID": drawn, "copy": np.arange(len(drawn)).astype(str)})
    true, *given = (table.merge(copies, on="ImageID") for table in tables)
    true, *given = (table.assign(ImageID=table["ImageID"] + table["copy"]).drop(columns="copy")
                    for table in (true, *given))
    for boxes in given:
        mean_average_precision_for_boxes(true, boxes, 0.75, verbose=False)
    return time.perf_counter() - started


def _rows(boxes: pd.DataFrame) -> pd.DataFrame:
    scaled = boxes.assign(**boxes[XYXY] / [1920, 1080, 1920, 1080])
    return scaled.rename(columns={box: file for file, box in BOX_NAMES.items()}).astype(
        {"ImageID": object, "LabelName": object})


if __name__ == "__main__":
    main()
