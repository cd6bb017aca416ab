"""Times the starter in int8 against PyTorch in float32, and scores both on the embedded sample.

Each runs with one and with two threads, and the faster counts: on two idle cores that is two.

python bench/int8.py [--images 240]     draws the sample into data/bench_int8, once
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from common import read_truth_in_pixels

from livestock import export
from livestock.config import REPOSITORY, read_competition
from livestock.data import readers
from livestock.models.yolov5.library import STARTER
from livestock.sample import draw_sample

BAR, MOST_LOST = 2, 0.5  # times as fast, and points of mAP
IMGSZ, THREADS, N_CALIBRATION = 320, 2, 48


def main() -> None:
    """Prints the table and `bench int8 ours=... stock=... ratio=... bar=2 <ok|short> (mAP lost ... points)`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=240, help="to score; the starter has seen none of them")
    parser.add_argument("--weights", type=Path, default=STARTER)
    parser.add_argument("--directory", type=Path, default=Path("data/bench_int8"))
    arguments = parser.parse_args()
    competition = read_competition(REPOSITORY / "competition.yaml")
    raw = arguments.directory / f"raw_{arguments.images}"
    if not (raw / "truth_test.csv").exists():
        draw_sample(raw, n_train=N_CALIBRATION, n_test=arguments.images)
    train, test = readers.read_train_and_test("aihub", raw, competition)
    assert test is not None  # noqa: S101 - the sample has one
    truth = read_truth_in_pixels(raw / "truth_test.csv", test.images)
    with tempfile.TemporaryDirectory() as folder:
        table = export.edge_table(
            arguments.weights, test.images, truth, competition.labels, Path(folder), calibration=train.images,
            imgsz=IMGSZ, metric_iou=competition.metric_iou, n_threads=(1, THREADS),
        )
    print(table.round({"MB": 2, "mAP": 4, "ms_1": 1, "ms_2": 1}).to_string(index=False))
    # Two threads of PyTorch wait for each other: with other work on the cores they take many times as long as one.
    times, scores = table.set_index("format")[["ms_1", f"ms_{THREADS}"]].min(axis=1), table.set_index("format")["mAP"]
    ours, stock = times["ONNX int8"], times["PyTorch float32"]
    lost = 100 * (scores["PyTorch float32"] - scores["ONNX int8"])
    verdict = "ok" if stock / ours >= BAR and lost <= MOST_LOST else "short"
    print(f"bench int8 ours={ours:.1f}ms stock={stock:.1f}ms ratio={stock / ours:.1f} bar={BAR} {verdict} "
          f"(mAP lost {lost:.2f} points)")


if __name__ == "__main__":
    main()
