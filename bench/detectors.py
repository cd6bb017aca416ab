"""One-stage detectors under control, as a table: what `09_detectors` shows in figures, with the same trainings.

python bench/detectors.py --short                       the sample, one seed, a minute or two: shows that it works
python bench/detectors.py --data DIR --workspace W      other images, three seeds, hours on 2 cores; cut off, it goes on
python bench/detectors.py --data DIR --profile colab    at 1024 px with the backbones of the project that this repeats

Prints (a) four detectors on backbones of their own and on one, (b) mosaic, (c) pseudo-labels, (d) deformable layers:
means over seeds of each setting, then each claim of that project with its gain, 95 % interval and verdict. All start
from random weights on a CPU. See `pipeline/experiment.py` for what is equal in all trainings.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd

from livestock.files.logs import show_messages
from livestock.pipeline import detectors, experiment
from livestock.pipeline.detectors import Claim
from livestock.pipeline.experiment import Arm, Lab
from livestock.pipeline.run import make_run

Question = tuple[str, list[Arm], Sequence[Claim]]
COLUMNS = ["mAP50_95", "AP50", "AP75", "small", "medium", "large", "thin", "lr0", "parameters", "megabytes", "seconds",
           "images_per_second", "gigabytes"]


def main() -> None:
    """Trains what has not been trained yet, question by question, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="")
    parser.add_argument("--workspace", default="data/bench_detectors")
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--imgsz", type=int)
    parser.add_argument("--images", type=int)
    parser.add_argument("--questions", default="abcd", help="some of a, b, c, d")
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    show_messages(logging.INFO)
    profile = "smoke" if arguments.short else arguments.profile
    run = make_run(workspace=arguments.workspace, data=arguments.data, profile=profile)
    lab = experiment.open_lab(run, detectors.find_scale(profile), {
        "n_seeds": arguments.seeds, "epochs": arguments.epochs, "imgsz": arguments.imgsz, "images": arguments.images})
    own, same = (detectors.list_detectors(own=is_own, on_gpu=run.profile.device != "cpu") for is_own in (True, False))
    print(experiment.describe_lab(lab, [*own, *same]).to_string())
    same, rates = experiment.choose_rates(lab, same)
    tables, asked = [rates], [("one backbone", same, detectors.claim_detectors(same))] * ("a" in arguments.questions)
    asked += ask_of(lab, same[-1], arguments.questions)
    if "a" in arguments.questions:  # the dearest come last
        own, rates = experiment.choose_rates(lab, own)
        tables.append(rates)
        asked.append(("own backbones", own, detectors.claim_detectors(own)))
    print(pd.concat(tables).round(4).to_string(index=False))
    claims = [answer(lab, *question) for question in asked]
    print(pd.concat(claims).round(4).to_string(index=False))


def ask_of(lab: Lab, arm: Arm, letters: str) -> list[Question]:
    """The questions (b) to (d) about one detector."""
    known: dict[str, tuple[str, Callable[[Arm], list[Arm]], Callable[[], list[Claim]]]] = {
        "b": ("mosaic", detectors.list_mosaic, detectors.claim_mosaic),
        "c": ("pseudo-labels", partial(detectors.list_silver, lab), detectors.claim_silver),
        "d": ("deformable", detectors.list_deformable, detectors.claim_deformable)}
    return [(name, arms(arm), claims()) for letter, (name, arms, claims) in known.items() if letter in letters]


def answer(lab: Lab, name: str, arms: list[Arm], claims: Sequence[Claim]) -> pd.DataFrame:
    """Trains the arms of a question, prints their table, and returns what is decided about its claims."""
    results = experiment.run_arms(lab, arms)
    judged = experiment.judge_results(lab, results)
    print(f"\n{name}: means over {lab.scale.n_seeds} seeds")
    print(experiment.tabulate(results, judged)[COLUMNS].round(3).to_string())
    winner, verdict, nearest = detectors.find_winner(judged)
    print(f"first: {winner}, {nearest['gain']:+.4f} over {nearest['other']} ({nearest['low']:+.4f} to "
          f"{nearest['high']:+.4f}), {verdict} to be the best", flush=True)
    return detectors.decide_claims(judged, claims).assign(question=name)


if __name__ == "__main__":
    main()
