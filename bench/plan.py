"""What the plan promises, measured: whether cheap trainings choose well, minutes of stages, what hours buy.

python bench/plan.py proxies                                       the sample on a CPU: hours; cut off, it goes on
python bench/plan.py proxies --short                               shows in a minute that it works, no more
python bench/plan.py proxies --device 0 --workers 6                six trainings side by side on a large GPU
python bench/plan.py proxies --data FOLDER_OR_YAML --weights yolov5n.pt --imgsz 640 --epochs 24 --hyp baseline.yaml

`proxies` trains settings (learning rate, momentum, augmentation ...; see bench/proxies.py) at full scale and at each
proxy: half the image size, the stratified half of the data, a third of the epochs, the first two together, the last
two (a trial of the search), all three, and a trial whose first half of the tensors is frozen. All trainings validate
on the same images. A row for each training is written to `--out` as it ends; the same command goes on from there, and
ends with the table of `search.proxies.judge_proxies` over the seeds that are whole. A training that diverges has an AP
of 0; any other failure ends the bench. `--data` takes a folder of raw data as `livestock run` does, or a `data.yaml` of
a data set written at `--imgsz` or larger.

python bench/plan.py stages --profile demo [--beside 1]            minutes that the plan says, and that `run` then takes

`stages` makes a plan in an empty workspace, from real steps, and runs the notebooks; `--beside` keeps so many other
processes busy meanwhile. A row a run is added to `stages.jsonl`. The bar is 25 % for all stages together.

python bench/plan.py hours [--pace pace.json]                      what 2, 6 and 24 hours of a T4 buy

`hours` fits the challenge (13,164 images, profile `colab`) to budgets, with a pace that was measured on a T4 (the file
that `livestock plan` leaves in `interim/`), or else with one that is assumed from the network's size, and says which.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from proxies import ROOT, add_proxies, measure_proxies

from livestock.config import get_profile


def main() -> None:
    """One part a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True, dest="part")
    add_proxies(parts.add_parser("proxies"))
    add_stages(parts.add_parser("stages"))
    add_hours(parts.add_parser("hours"))
    arguments = parser.parse_args()
    {"proxies": measure_proxies, "stages": measure_stages, "hours": show_hours}[arguments.part](arguments)


def add_stages(parser: argparse.ArgumentParser) -> None:
    """The options of `stages`."""
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--data", type=Path, help="raw data; without it the sample of the demo")
    parser.add_argument("--reader", default="auto")
    parser.add_argument("--weights", default="")
    parser.add_argument("--set", action="append", default=[], dest="changes", help="as of `livestock run`")
    parser.add_argument("--beside", type=int, default=0, help="busy processes beside")


def measure_stages(arguments: argparse.Namespace) -> None:
    """Plans, runs, and prints a line a stage."""
    workspace = ROOT / f"stages_{arguments.profile}_{arguments.beside}_{int(time.time())}"
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"])
            for _ in range(arguments.beside)]
    try:
        planned = plan_stages(arguments, workspace)
        command = [sys.executable, "-m", "livestock", "run", "--profile", arguments.profile, "--workspace",
                   str(workspace), "--reader", arguments.reader, "--weights", arguments.weights,
                   *(["--data", str(arguments.data)] if arguments.data else []),
                   *(part for change in arguments.changes for part in ("--set", change))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
    finally:
        for process in busy:
            process.kill()
            process.wait()
    result = json.loads(next(workspace.glob("runs/*/result.json")).read_text(encoding="utf-8"))
    taken = {stage: seconds / 60 for stage, seconds in result["seconds"].items()}
    row = {"profile": arguments.profile, "beside": arguments.beside, "planned": planned, "taken": taken}
    with open(ROOT / "stages.jsonl", "a", encoding="utf-8") as file:
        file.write(f"{json.dumps(row)}\n")
    for stage, minutes in taken.items():
        print(f"# {stage}: planned {planned[stage]:.1f}, taken {minutes:.1f} minutes")
    ratio = sum(planned[stage] for stage in taken) / sum(taken.values())
    print(f"bench plan-stages-{arguments.profile}-beside-{arguments.beside} planned={sum(planned.values()):.1f} "
          f"taken={sum(taken.values()):.1f} minutes ratio={ratio:.2f} bar=0.75..1.25 "
          f"{'ok' if 0.75 <= ratio <= 1.25 else 'short'}")


def plan_stages(arguments: argparse.Namespace, workspace: Path) -> dict[str, float]:
    """The minutes of each stage, none done, from steps in this workspace."""
    from livestock.config import parse_overrides
    from livestock.pipeline.pace import measure_pace
    from livestock.pipeline.planning import count_sizes
    from livestock.pipeline.prepare import read_data, split_data
    from livestock.pipeline.run import make_run
    from livestock.pipeline.stages import STAGES, list_pieces, sum_seconds

    run = make_run(workspace=workspace, profile=arguments.profile, data=arguments.data or "", reader=arguments.reader,
                   weights=arguments.weights, overrides=parse_overrides(arguments.changes), fresh=True)
    read_data(run)
    split_data(run)
    pace = measure_pace(run)
    print(f"# {pace}", flush=True)
    pieces = list_pieces(run.profile, replace(count_sizes(run), done={}))
    return {stage: sum_seconds(pieces, pace, [stage]) / 60 for stage in STAGES}


def add_hours(parser: argparse.ArgumentParser) -> None:
    """The options of `hours`."""
    parser.add_argument("--pace", type=Path, help="a pace.json that was measured on a T4 with the profile colab")
    parser.add_argument("--hours", type=float, nargs="+", default=[2, 6, 24])


def show_hours(arguments: argparse.Namespace) -> None:
    """Prints the plan of each budget."""
    from livestock.pipeline.pace import Pace, guess_pace
    from livestock.pipeline.plan import fit
    from livestock.pipeline.planning import read_proxies
    from livestock.pipeline.stages import Sizes, sum_seconds

    colab, n_parameters = get_profile("colab"), 35.7e6  # of YOLOv5m6, as published
    if arguments.pace:
        pace, how = Pace(**json.loads(arguments.pace.read_text(encoding="utf-8"))), f"measured: {arguments.pace}"
    else:
        pace, how = guess_pace(colab, n_parameters, 2, on_gpu=True), "ASSUMED from the network's size, not measured"
    print(f"# {how}: {1 / pace.train:.1f} images a second in training")
    for hours in arguments.hours:
        plan = fit(replace(colab, budget_hours=hours), Sizes(images=16455 * 0.8, test=3291), pace,
                   read_proxies(colab.family))
        print(f"bench plan-hours-{hours:g} {'' if arguments.pace else 'assumed '}"
              f"uses={sum_seconds(plan.pieces, pace) / 3600:.1f}h changes={plan.changes} skip={plan.skip}")
        for reason in plan.reasons:
            print(f"#   {reason}")


if __name__ == "__main__":
    main()
