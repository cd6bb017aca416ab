"""How often a split lacks a class that it could have: ours, and what balance alone gives.

python bench/folds.py [data sets]     200 take two minutes

Each data set has 8 to 40 groups of 1 to 60 images, pigs in most of them and one to seven breeds in 2 to 7 groups each.
`fold 0`: the share of data sets in which the validation fold lacks a class that lies in two groups or more. `any fold`:
the share in which a fold lacks a class although the class lies in more groups than there are folds that have it. Beside
ours the stratifier over groups alone (iterative-stratification, one seed), and random folds of whole groups.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from livestock.config import Competition
from livestock.data.folds import assign_folds, baseline_folds, stratum_counts
from livestock.data.folds.assign import _fill_empty, _stratify
from livestock.tables import make_boxes, make_images

N_FOLDS = 5


def draw_farm(rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series, Competition]:
    """Images, boxes, the group of each image, and the competition."""
    n_classes, n_groups = rng.integers(2, 9), rng.integers(8, 41)
    has = np.zeros((n_groups, n_classes), bool)
    has[:, 0] = rng.random(n_groups) < 0.8
    for breed in range(1, n_classes):
        has[rng.choice(n_groups, rng.integers(2, 8), replace=False), breed] = True
    group = np.repeat(np.arange(n_groups), np.ceil(2 * rng.pareto(1, n_groups) + 0.5).clip(1, 60).astype(int))
    labels = np.array(["pig", *(f"breed {number}" for number in range(1, n_classes))])
    ids = [f"{own:03}_{number:05}.jpg" for number, own in enumerate(group)]
    images = make_images([{"image_id": name, "archive": "", "member": name, "width": 99, "height": 99} for name in ids])
    boxes = make_boxes([{"image_id": name, "label": label, "x_min": 0, "y_min": 0, "x_max": 9, "y_max": 9}
                        for name, own in zip(ids, group, strict=True) for label in labels[has[own]]])
    return images, boxes, pd.Series(group, index=ids), Competition("farm", {str(label): [] for label in labels})


def find_lacks(images: pd.DataFrame, boxes: pd.DataFrame, fold: pd.Series) -> tuple[bool, bool]:
    """Whether fold 0, and whether any fold, lacks a class that it could have."""
    held = boxes.merge(images[["image_id", "group"]], on="image_id")
    held = held.assign(fold=held["image_id"].map(fold)).groupby("label")
    n_groups, folds = held["group"].nunique(), held["fold"].agg(set)
    first = any(0 not in own for own in folds[n_groups > 1])
    return first, bool((folds.map(len) < n_groups.clip(upper=N_FOLDS)).any())


def main() -> None:
    """A line a split."""
    n_sets = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    rows = []
    for seed in range(n_sets):
        images, boxes, group, competition = draw_farm(np.random.default_rng(seed))
        ours = assign_folds(images, boxes, competition, groups=group, n_folds=N_FOLDS, seed=seed)
        number = ours["group"].to_numpy()
        by_group = stratum_counts(ours, boxes, competition).groupby(number).sum()
        sizes = np.unique(number, return_counts=True)[1]
        of_group = _fill_empty(_stratify(by_group > 0, sizes, N_FOLDS, seed), sizes, N_FOLDS)
        splits = {"ours": ours.set_index("image_id")["fold"],
                  "stratifier over groups": pd.Series(of_group[number], index=ours["image_id"]),
                  "random, whole groups": baseline_folds(ours, boxes, competition, seed=seed)["random, whole groups"]}
        for name, fold in splits.items():
            first, any_fold = find_lacks(ours, boxes, fold)
            rows.append({"split": name, "fold 0": first, "any fold": any_fold})
    print(f"{n_sets} data sets, share in which a class is lacking needlessly")
    print(pd.DataFrame(rows).groupby("split", sort=False).mean().map("{:.1%}".format).to_string())


if __name__ == "__main__":
    main()
