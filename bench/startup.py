"""How long `livestock --help` and `import livestock` take, whole processes; a bar in seconds each.

python bench/startup.py [--runs 11]     ten seconds

Stock is what the same takes where torch and yolov5's training are imported first, as its own command line does.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import print_line

STOCK = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import stock; stock.apply()"
HELP = [sys.executable, "-m", "livestock", "--help"]


def main() -> None:
    """Prints both lines, of the command's with the other's figures behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=11)
    n_runs = parser.parse_args().runs
    empty, package = (time_command([sys.executable, "-c", code], n_runs) for code in ("pass", "import livestock"))
    stock = time_command([sys.executable, "-c", STOCK], min(n_runs, 5))
    print_line("startup-import", package, stock, seconds=0.3, more=f", Python alone {empty:.2f}s")
    print_line("startup", time_command(HELP, n_runs), stock, seconds=0.5, more=f", Python alone {empty:.2f}s")


def time_command(command: list[str], n_runs: int) -> float:
    """Median seconds of a command, after one run that does not count."""
    seconds = []
    for _ in range(n_runs + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - own
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
