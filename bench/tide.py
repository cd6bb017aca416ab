"""Compares the causes of errors and what they cost with the package of TIDE's authors, on made boxes of known seeds.

pip install --no-deps tidecv==1.0.1 pycocotools appdirs
python bench/tide.py [seeds]

Prints a line a seed and IoU with the largest difference of a count and of a cost in points of mAP; all are 0 but for
rounding, once both average over the same recalls: tidecv has k / 100, COCO and we k * 0.01, which differ in the last
bit, and so by a bar of 101 where a recall lies just there. `tests/test_errors.py` holds the numbers of seed 0.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from livestock.evaluation import precision
from livestock.evaluation.causes import cost_of_causes, find_errors

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from test_errors import draw_farm

NAMES = {"Cls": "class", "Loc": "localisation", "Both": "both", "Dupe": "duplicate", "Bkg": "background",
         "Miss": "missed"}


def run_tide(truth: pd.DataFrame, answer: pd.DataFrame, iou_threshold: float) -> pd.DataFrame:
    """Errors and cost of each cause from tidecv, without its limit of 100 boxes an image."""
    from tidecv import TIDE, Data

    labels = sorted(set(truth["label"]) | set(answer["label"]))
    gold, found = Data("gold", max_dets=1_000_000), Data("found", max_dets=1_000_000)
    images = {name: number for number, name in enumerate(sorted({*truth["image_id"], *answer["image_id"]}))}
    for name, number in images.items():
        gold.add_image(number, name)
    for side, boxes in ((gold, truth), (found, answer)):
        for row in boxes.itertuples():
            box = [row.x_min, row.y_min, row.x_max - row.x_min, row.y_max - row.y_min]
            where = (images[row.image_id], labels.index(row.label))
            if side is gold:
                side.add_ground_truth(*where, box)
            else:
                side.add_detection(*where, row.confidence, box)
    run = TIDE().evaluate(gold, found, pos_threshold=iou_threshold, mode=TIDE.BOX)
    counts, costs = run.count_errors(), run.fix_main_errors()
    return pd.DataFrame({NAMES[kind.short_name]: {"errors": counts[kind], "points": costs[kind]} for kind in counts}).T


def main() -> None:
    """A line a seed and IoU; exit code 1 if a number differs."""
    precision.RECALLS = np.arange(101) / 100  # tidecv's
    wrong = False
    for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 10):
        truth, answer = draw_farm(seed)
        for iou in (0.5, 0.75):
            theirs = run_tide(truth, answer, iou)
            ours = cost_of_causes(truth, answer, find_errors(truth, answer, iou), iou).loc[theirs.index]
            # tidecv counts a true box that localisation or class cost as no error of its own
            false = find_errors(truth, answer, iou).query("row >= 0 or cause == 'missed'")["cause"].value_counts()
            counts = (false.reindex(theirs.index, fill_value=0) - theirs["errors"]).abs().max()
            points = (100 * ours["gain"] - theirs["points"]).abs().max()
            wrong |= counts > 0 or points > 1e-9
            print(f"seed {seed}, IoU {iou}: counts differ by {counts:.0f}, costs by {points:.1g} points; "
                  + ", ".join(f"{cause} {points:.4f}" for cause, points in theirs["points"].items()))
    sys.exit(int(wrong))


if __name__ == "__main__":
    main()
