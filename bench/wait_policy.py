"""Measures how OpenMP's threads should wait: training steps alone and beside a process that uses a core.

python bench/wait_policy.py [--runs 5] [--imgsz 320] [--batch 8]     about six minutes on 2 cores

PyTorch's threads on a CPU wait for each other at the end of every operation. By default they spin, which is quickest as
long as each has a core to itself; beside another process a thread spins on the very core that the other one needs. Each
run is a process of its own that takes real training steps of the starter; policies take turns. Prints the median and
range of seconds a step by policy, alone and beside, and the ratio to the default.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

POLICIES: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin 3,000": {"GOMP_SPINCOUNT": "3000"},
    "spin 10,000": {"GOMP_SPINCOUNT": "10000"},
    "one thread less": {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) - 1))},
}
BUSY = "while True: pass"
STEP = """
import statistics, sys, time
import torch
from livestock.models.checkpoint import load_model
from livestock.models.yolov5.library import STARTER
imgsz, batch = map(int, sys.argv[1:])
model = load_model(STARTER)[1].train().requires_grad_(True)
pictures = torch.rand(batch, 3, imgsz, imgsz)
def step():
    started = time.perf_counter()
    torch.stack([output.square().mean() for output in model(pictures)]).sum().backward()
    return time.perf_counter() - started
print(statistics.median([step() for _ in range(7)][2:]))
"""


def measure(policy: dict[str, str], imgsz: int, batch: int) -> float:
    """Seconds of a training step in a new process under this policy."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    done = subprocess.run([sys.executable, "-c", STEP, str(imgsz), str(batch)], env={**clean, **policy},  # noqa: S603
                          capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Measures and prints a line a policy and situation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    arguments = parser.parse_args()
    for situation in ("alone", "beside"):
        found: dict[str, list[float]] = {name: [] for name in POLICIES}
        busy = subprocess.Popen([sys.executable, "-c", BUSY]) if situation == "beside" else None  # noqa: S603
        try:
            for _ in range(arguments.runs):
                for name, policy in POLICIES.items():
                    found[name].append(measure(policy, arguments.imgsz, arguments.batch))
        finally:
            if busy:
                busy.kill()
        usual = statistics.median(found["default"])
        for name, seconds in found.items():
            median = statistics.median(seconds)
            print(f"bench wait-{situation}-{name.replace(' ', '-')} {median:.3f} s a step ({min(seconds):.3f} to "
                  f"{max(seconds):.3f}), {median / usual:.2f} of the default", flush=True)


if __name__ == "__main__":
    main()
