"""Runs notebooks cell by cell, as a person would: python tests/run_by_hand.py NOTEBOOK... NAME=LITERAL...

Started by tests in another Python too, such as one with Colab's packages: it needs nbformat and nbclient alone, and no
papermill. Prints what the cells print; a cell that fails ends it with that cell's error and exit code 1. Each of
the names, such as PROFILE='"smoke"', takes its value in the cell of parameters, where that cell has it.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import nbclient
import nbformat


def main() -> None:
    """Executed copies go to the current folder, which is the notebooks' too."""
    values = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    for path in (Path(argument) for argument in sys.argv[1:] if "=" not in argument):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if "parameters" in cell.metadata.get("tags", []):
                for name, value in values.items():
                    cell.source = re.sub(rf"^{name} = .*?(?=  #|$)", f"{name} = {value}", cell.source, flags=re.M)
        started = time.monotonic()
        try:
            nbclient.execute(notebook, cwd=".", timeout=None, kernel_name="python3")
        except nbclient.exceptions.CellExecutionError as error:
            sys.exit(f"{path.name}: {error}")
        finally:
            nbformat.write(notebook, f"executed_{path.name}")
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        print(*(output.text for output in outputs if output.get("name") == "stdout"), sep="", end="")
        print(f"{path.name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
