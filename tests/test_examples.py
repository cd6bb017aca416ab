"""The examples in the docstrings give what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import livestock

PACKAGE = Path(livestock.__file__).parent
MODULES = [".".join(["livestock", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
           for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert (found.attempted > 0, found.failed) == (True, 0)
