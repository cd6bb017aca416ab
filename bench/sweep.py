"""Times the sweep of 1,000 thresholds against running yolov5's validation for each of them, as the original did.

python bench/sweep.py [--fraction 1] [--points 3]     about five minutes on 2 cores

3,291 images with 1,500 candidates each. Stock is what `yolov5.val` does after the network for one pair of thresholds:
its suppression (without the clock that ends it early), its matching and its AP, timed on a few pairs and multiplied by
1,000. The network, which it would run each time too, is left out: with it the ratio would be larger still.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import stock
import torch
from common import N_IMAGES, draw_boxes, print_line

from livestock.evaluation import evaluate
from livestock.postprocess import suppress, sweep
from livestock.tables import XYXY

N_CANDIDATES, N_POINTS, BAR_SECONDS, BAR_GB = 1_500, 1_000, 60, 4
IOUS, CONFS = np.linspace(0.4, 0.875, 20), np.geomspace(0.001, 0.7, 50)


def main() -> None:
    """Prints the bench lines; fails if a point of the sweep is not what suppression and scorer give for it alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the images; 1 is all 3,291")
    parser.add_argument("--points", type=int, default=4, help="pairs of thresholds that stock is timed on")
    arguments = parser.parse_args()
    truth, candidates = draw_boxes(max(2, round(N_IMAGES * arguments.fraction)), N_CANDIDATES)
    sweep(truth.head(50), candidates.head(5_000), iou_thresholds=[0.5])  # what is loaded on first use is not counted
    before = _peak_gb()
    started = time.perf_counter()
    found = sweep(truth, candidates, iou_thresholds=IOUS.tolist(), conf_thresholds=CONFS.tolist())
    seconds, peak = time.perf_counter() - started, _peak_gb()
    places = np.linspace(0, 1, arguments.points)  # from the dearest pair of thresholds to the cheapest
    pairs = [(IOUS[round(p * (len(IOUS) - 1))], CONFS[round(p * (len(CONFS) - 1))]) for p in places]
    for iou, conf in pairs:
        row = found[np.isclose(found["iou_threshold"], iou) & np.isclose(found["conf_threshold"], conf)].iloc[0]
        expected = evaluate(truth, suppress(candidates, iou_threshold=iou, conf_threshold=conf), 0.75).mean
        if abs(row["mAP"] - expected) > 1e-9:
            raise SystemExit(f"bench sweep: expected {expected}, found {row['mAP']}")
    stock = np.mean([_time_stock(truth, candidates, iou, conf) for iou, conf in pairs])
    print(f"{len(candidates):,} candidates, {truth['image_id'].nunique():,} images, {len(found):,} points: "
          f"{seconds:.1f} s (bar {BAR_SECONDS}), {peak:.2f} GB at most (bar {BAR_GB}), {before:.2f} GB before; "
          f"stock {stock:.1f} s a point")
    print_line("sweep", seconds, stock * N_POINTS, seconds=BAR_SECONDS,
               more="" if peak <= BAR_GB else f", but {peak:.2f} GB")


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _time_stock(truth: pd.DataFrame, candidates: pd.DataFrame, iou_threshold: float, conf_threshold: float) -> float:
    """Seconds that yolov5's own functions take for one pair of thresholds, in batches of 32 images."""
    stock.apply()
    from yolov5.utils.general import non_max_suppression
    from yolov5.utils.metrics import ap_per_class
    from yolov5.val import process_batch

    ious = torch.linspace(0.5, 0.95, 10)
    true = _by_image(truth, lambda boxes: np.column_stack([boxes["label"] == "cow", boxes[XYXY]]))
    seen = _by_image(candidates, _as_output)
    names, seconds, stats = list(seen), 0.0, []
    for start in range(0, len(names), 32):
        batch = names[start : start + 32]
        longest = max(len(seen[name]) for name in batch)
        output = torch.zeros(len(batch), longest, 7)
        for row, name in enumerate(batch):
            output[row, : len(seen[name])] = seen[name]
        started = time.perf_counter()
        kept = non_max_suppression(output, conf_thres=conf_threshold, iou_thres=iou_threshold, multi_label=True)
        for boxes, name in zip(kept, batch, strict=True):
            labels = true.get(name, torch.zeros(0, 5))
            stats.append((process_batch(boxes, labels, ious), boxes[:, 4], boxes[:, 5], labels[:, 0]))
        seconds += time.perf_counter() - started
    started = time.perf_counter()
    ap_per_class(*(torch.cat(parts).numpy() for parts in zip(*stats, strict=True)), names={0: "pig", 1: "cow"})
    return seconds + time.perf_counter() - started


def _as_output(boxes: pd.DataFrame) -> np.ndarray:
    """A network's rows `cx, cy, w, h, objectness, pig, cow`."""
    corners, is_cow = boxes[XYXY].to_numpy(), (boxes["label"] == "cow").to_numpy()
    return np.column_stack([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2],
                            boxes["confidence"], ~is_cow, is_cow])


def _by_image(boxes: pd.DataFrame, columns) -> dict[str, torch.Tensor]:
    return {str(name): torch.tensor(np.asarray(columns(own), np.float32)) for name, own in boxes.groupby("image_id")}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    main()
