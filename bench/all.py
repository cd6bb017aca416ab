"""Runs the benchmarks and writes the README's table of speed from the lines that they print.

python bench/all.py [read loader ...]     all of them take most of an hour on 2 cores that do nothing else

The lines are kept in `bench/results.txt`, the newest of each name with what machine it was; a run of some scripts
replaces theirs.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS, README = REPOSITORY / "bench/results.txt", REPOSITORY / "README.md"
SCRIPTS = ["read", "dataset", "loader", "train", "candidates", "eda", "startup", "sweep", "map", "bootstrap", "int8"]
WHAT = {  # in the table, in this order: what is timed, and what a user would otherwise run
    "read": ("archives to tables, 16,455 small images", "unpack, decode each image, parse each JSON"),
    "dataset": ("600 images to training size, Drive at 65 MB/s", "unpack, copy a split, tar to Drive, untar"),
    "loader": ("320 images into training at 1280 px, mosaic", "yolov5's loader on the full-size files"),
    "train": ("1,000 images through the demo's training, CPU", "`yolov5.train`"),
    "candidates": ("all boxes of 60 images at 1280 px, CPU", "`yolov5.detect --save-txt`"),
    "eda": ("`01_eda` on 16,455 images", ""),
    "split": ("`02_split` on 16,455 images", ""),
    "startup": ("`livestock --help`", "the same after importing `yolov5.train`"),
    "sweep": ("1,000 pairs of thresholds, 3,291 images", "what `yolov5.val` does after the network, for each"),
    "map": ("the competition's scorer", "`map-boxes`"),
    "bootstrap": ("interval of a difference, 1,000 resamples", "scoring each resample"),
    "int8": ("an image, int8 on two cores at most", "float32 in PyTorch"),
}
LINE = re.compile(r"bench (\S+) ours=(\S+) stock=(\S+) ratio=(\S+) bar=(\S+) (ok|short)(.*)")
START, END = "<!-- speed -->\n", "<!-- /speed -->\n"


def main() -> None:
    """Exit code 1 if a script fails; a bar that is not reached is a line that says so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="*", default=SCRIPTS)
    lines = read_results()
    for script in parser.parse_args().scripts:
        command = [sys.executable, str(REPOSITORY / f"bench/{script}.py")]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own scripts
        print(done.stdout, end="", flush=True)
        for line in filter(LINE.match, done.stdout.splitlines()):
            lines[line.split()[1]] = f"{line} | {describe_machine()}"
        RESULTS.write_text("".join(f"{lines[name]}\n" for name in sorted(lines)), encoding="utf-8")
    write_table(lines)


def read_results() -> dict[str, str]:
    """The newest line of each name."""
    kept = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return {line.split()[1]: line for line in kept}


def describe_machine() -> str:
    """Processor, cores, memory, Python."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "")
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (f"{model.group(1) if model else platform.machine()}, {os.cpu_count()} cores, {gigabytes:.0f} GiB, Python "
            f"{platform.python_version()}")


def without_exponent(figure: str) -> str:
    """`2.18e+04s` as `21,800s`; other figures and words as they are."""
    return re.sub(r"[\d.]+e\+\d+", lambda number: f"{float(number[0]):,.0f}", figure)


def write_table(lines: dict[str, str]) -> None:
    """Puts the table between the marks in the README."""
    rows = ["| what | instead of | ours | stock | ratio | bar | |", "|---|---|---|---|---|---|---|"]
    for name, (what, instead) in WHAT.items():
        if name in lines and (found := LINE.match(lines[name])):
            ours, stock, ratio, bar, verdict = map(without_exponent, found.groups()[1:-1])
            bar = bar if bar.endswith("s") else f"{bar} x"
            row = f"| {what} | {instead} | {ours} | {stock} | {ratio} | {bar} | {verdict} |"
            rows.append(row.replace("| none |", "| |").replace("| none |", "| |"))
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(START)
    README.write_text(f"{before}{START}{chr(10).join(rows)}\n{END}{rest.split(END)[1]}",
                      encoding="utf-8")


if __name__ == "__main__":
    main()
