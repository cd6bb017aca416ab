"""Where the project lies on GitHub: one line of `pyproject.toml`, and what the notebooks say of it on Colab.

    python -m livestock.cli.home OWNER/NAME    the address of a fork, say, in every badge and set-up cell
    python -m livestock.cli.home ""            no address: no badges, and on Colab the set-up cell asks for it

A notebook runs whatever code its address leads to, in the account of the person who opened it. So the address is
empty until the owner of a repository sets it; it never names a place that somebody else could register.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from ..config import REPOSITORY

ADDRESS = re.compile(r"(?!.*\.git$)[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}", re.ASCII)
LINE = re.compile(r'^repository = ".*"$', re.MULTILINE)
BADGE_LINES = re.compile(r"\n\n\[!\[Open in Colab\]\([^)\n]*\)\]\([^)\n]*\)", re.IGNORECASE)
BADGE = (
    "\n\n[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name})"
)
SET_UP = '''\
# Set-up, the same in every notebook and safe to run twice: on Colab it clones, installs and mounts Drive.
import os, subprocess, sys
from pathlib import Path
REPOSITORY = "{repository}"  # for Colab: the project on GitHub, owner/name, which this cell clones and runs
source = os.environ.get("LIVESTOCK_SOURCE")  # `livestock run` says which code runs this notebook
home = next((p for p in [Path.cwd(), *Path.cwd().parents] if (p / "src/livestock").exists()), Path.cwd() / "livestock")
if not source and not (home / "src/livestock").exists():
    ask = f"The project is not here: set REPOSITORY to its owner/name on GitHub, or unpack it as {{home}}"
    url = "https://github.com/" + (REPOSITORY or sys.exit(ask))
    subprocess.run(["git", "clone", "--quiet", url, str(home)], check=True)
if not source and "COLAB_RELEASE_TAG" in os.environ:
    subprocess.run(["make", "--silent", "-C", str(home), "install-colab"], check=True)
sys.path.insert(0, source or str(home / "src"))'''


def read_home(project: Path = REPOSITORY) -> str:
    """The address in `pyproject.toml`, `owner/name` on GitHub; empty where none is set."""
    content = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    return str(content["tool"]["livestock"]["repository"])


def write_home(repository: str, project: Path = REPOSITORY) -> int:
    """Writes the address into `pyproject.toml` and all notebooks; returns how many notebooks that changed.

    An empty address takes the badges away. Outputs and all other cells stay as they are. Raises ValueError, and writes
    nothing, for what is no owner/name that GitHub allows.
    """
    import nbformat

    if repository and not ADDRESS.fullmatch(repository):
        raise ValueError(f"repository: expected owner/name as on GitHub, such as ada/livestock, found {repository!r}")
    pyproject = project / "pyproject.toml"
    before = pyproject.read_text(encoding="utf-8")
    text, n_lines = LINE.subn(f'repository = "{repository}"', before)
    if n_lines != 1:
        raise ValueError(f"{pyproject}: expected one line 'repository = \"...\"', found {n_lines}")
    n_changed = 0
    for path in sorted((project / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        cells = (add_badge(notebook.cells[0].source, repository, path.name), SET_UP.format(repository=repository))
        if cells != tuple(cell.source for cell in notebook.cells[:2]):
            notebook.cells[0].source, notebook.cells[1].source = cells
            nbformat.write(notebook, path)
            n_changed += 1
    if text != before:  # else `make` would install once more
        pyproject.write_text(text, encoding="utf-8")
    return n_changed


def add_badge(source: str, repository: str, name: str) -> str:
    """A notebook's first cell with the badge that opens it from this repository; without one if that is empty.

    >>> add_badge("# Train", "", "04_train.ipynb")
    '# Train'
    """
    title, *rest = BADGE_LINES.sub("", source).split("\n", 1)
    badge = BADGE.format(repository=repository, name=name) if repository else ""
    return "\n".join([title + badge, *rest])


def main() -> None:
    """What `make home REPOSITORY=owner/name` runs; exit code 2 and one line for what is no such address."""
    if len(sys.argv) != 2:
        sys.exit('say the address: python -m livestock.cli.home OWNER/NAME, or "" for none')
    try:
        n_changed = write_home(sys.argv[1])
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"{sys.argv[1] or 'no address'}: written to pyproject.toml and {n_changed} notebooks; commit both")


if __name__ == "__main__":
    main()
