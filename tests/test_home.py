"""The project's address on GitHub is written to one line and to all notebooks, or nowhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from livestock.cli.home import add_badge, read_home, write_home
from livestock.config import REPOSITORY

BADGE = ("[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
         "(https://colab.research.google.com/github/ada/my.barn_2/blob/main/notebooks/01_eda.ipynb)")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The committed notebooks, without their address."""
    shutil.copytree(REPOSITORY / "notebooks", tmp_path / "notebooks")
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    write_home("", tmp_path)
    return tmp_path


def contents(project: Path) -> dict[str, bytes]:
    """Every file by its name."""
    return {path.name: path.read_bytes() for path in project.rglob("*.*") if path.is_file()}


def test_an_address_goes_to_badges_and_set_up_cells_alone_and_can_be_taken_back(project: Path) -> None:
    before = contents(project)
    assert write_home("ada/my.barn_2", project) == 12
    assert read_home(project) == "ada/my.barn_2"
    old = nbformat.reads(before["01_eda.ipynb"].decode(), as_version=4)
    new = nbformat.read(project / "notebooks/01_eda.ipynb", as_version=4)
    title, rest = old.cells[0].source.split("\n", 1)
    assert new.cells[0].source == f"{title}\n\n{BADGE}\n{rest}"
    assert new.cells[1].source == old.cells[1].source.replace('REPOSITORY = ""', 'REPOSITORY = "ada/my.barn_2"')
    assert new.cells[2:] == old.cells[2:]
    assert write_home("ada/my.barn_2", project) == 0
    assert write_home("", project) == 12
    assert contents(project) == before


@pytest.mark.parametrize("address", [
    "ada", "ada/", "/barn", "ada/barn/x", "https://github.com/ada/barn", "git@github.com:ada/barn", "-ada/barn",
    "ada-/barn", "a--b/barn", "ada/..", "ada/.", "ada/barn.git", "ada/barn ", "ada/barn\n", 'ada/"; import os',
    "ada/ba'rn", "ädä/barn", "a" * 40 + "/barn", "ada/" + "b" * 101, " ", "ada/{barn}",
])
def test_what_is_no_address_changes_nothing(project: Path, address: str) -> None:
    before = contents(project)
    with pytest.raises(ValueError, match="expected owner/name as on GitHub, such as ada/livestock, found"):
        write_home(address, project)
    assert contents(project) == before


def test_the_longest_address_is_one(project: Path) -> None:
    assert write_home("a" * 39 + "/" + "b" * 100, project) == 12


def test_a_badge_of_any_spelling_is_replaced() -> None:
    source = "# 1. Title\n\n[![Open In Colab](https://x/badge.svg)](https://x/y.ipynb)\n\nPurpose"
    assert add_badge(source, "", "01_eda.ipynb") == "# 1. Title\n\nPurpose"
    assert add_badge(source, "ada/my.barn_2", "01_eda.ipynb") == f"# 1. Title\n\n{BADGE}\n\nPurpose"


def test_the_command_says_what_is_wrong_in_one_line() -> None:
    command = [sys.executable, "-m", "livestock.cli.home", "ada"]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "repository: expected owner/name as on GitHub, such as ada/livestock, found 'ada'\n"


def test_the_committed_project_names_no_place_that_is_not_its_own() -> None:
    """Whoever registers a name that nobody owns would run code in every reader's session."""
    told = [path.name for path in [*(REPOSITORY / "notebooks").glob("*.ipynb"), REPOSITORY / "README.md"]
            if "github.com/livestock-detection" in path.read_text(encoding="utf-8")]
    assert told == []
