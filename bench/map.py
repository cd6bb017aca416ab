"""Times `evaluate_as_competition` against the `map_boxes` package on as many images as the original validated on."""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from common import print_line
from map_boxes import mean_average_precision_for_boxes

from livestock.data.submission import ANSWER_COLUMNS, TRUTH_COLUMNS, from_rows
from livestock.evaluation import evaluate_as_competition

BAR = 20
N_IMAGES, N_PREDICTIONS, N_TRUTH = 3_291, 100, 5


def draw_rows(rng: np.random.Generator, n_images: int, n_each: int) -> pd.DataFrame:
    """Random normalised boxes of two classes; names are objects, on which `map_boxes` is fastest."""
    n = n_images * n_each
    corner, size = rng.uniform(0, 0.8, (n, 2)), rng.uniform(0.05, 0.2, (n, 2))
    rows = pd.DataFrame({"ImageID": np.repeat([f"image_{i:05d}.jpg" for i in range(n_images)], n_each)})
    rows["LabelName"] = rng.choice(["pig", "cow"], n)
    rows["Conf"] = rng.uniform(0, 1, n)
    rows[["XMin", "YMin"]], rows[["XMax", "YMax"]] = corner, corner + size
    return rows[ANSWER_COLUMNS].astype({"ImageID": object, "LabelName": object})


def main() -> None:
    """Prints `bench map ours=... stock=... ratio=... bar=20 <ok|short>`; fails if the two disagree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the images; 1 is all 3,291")
    n_images = max(1, round(N_IMAGES * parser.parse_args().fraction))
    rng = np.random.default_rng(0)
    truth, answer = draw_rows(rng, n_images, N_TRUTH)[TRUTH_COLUMNS], draw_rows(rng, n_images, N_PREDICTIONS)
    near = answer.index % (N_PREDICTIONS // N_TRUTH) == 0  # one prediction a truth box lies near it
    answer.loc[near, TRUTH_COLUMNS] = truth.to_numpy()
    answer = answer.astype(dict.fromkeys(["XMin", "XMax", "YMin", "YMax"], float))
    answer.loc[near, ["XMin", "XMax"]] += rng.normal(0, 0.005, (near.sum(), 1))
    truth_boxes, answer_boxes = from_rows(truth), from_rows(answer)
    evaluate_as_competition(truth_boxes, answer_boxes.head(), 0.75)  # what libraries load on first use is not counted
    started = time.perf_counter()
    ours = evaluate_as_competition(truth_boxes, answer_boxes, 0.75)
    between = time.perf_counter()
    stock, _ = mean_average_precision_for_boxes(truth, answer, 0.75, verbose=False)
    seconds, stock_seconds = between - started, time.perf_counter() - between
    if abs(ours.mean - stock) > 1e-9:
        raise SystemExit(f"bench map: expected {stock}, found {ours.mean}")
    print_line("map", seconds, stock_seconds, ratio=BAR)


if __name__ == "__main__":
    main()
