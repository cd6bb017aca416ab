"""Measures the source itself: lines, rooms, how long functions are, and how many public ones show an example.

python bench/structure.py [PATH]     PATH: another checkout's src/livestock, to compare with
"""

from __future__ import annotations

import argparse
import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

from livestock.config import REPOSITORY

Function = ast.FunctionDef | ast.AsyncFunctionDef


def find_functions(tree: ast.AST) -> Iterator[Function]:
    """Every function and method, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def count_lines(function: Function) -> int:
    """Lines of a function's body, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def is_on_arrays(function: Function) -> bool:
    """Whether a parameter or the result is an array."""
    hints = [*(argument.annotation for argument in function.args.args), function.returns]
    return any("ndarray" in ast.unparse(hint) or "Array" in ast.unparse(hint) for hint in hints if hint)


def main() -> None:
    """Prints a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?", default=REPOSITORY / "src/livestock")
    path = parser.parse_args().path
    files = sorted(path.rglob("*.py"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    trees = [ast.parse(text) for text in texts]
    functions = [function for tree in trees for function in find_functions(tree)]
    lengths = [count_lines(function) for function in functions]
    public = [node for tree in trees for node in tree.body if isinstance(node, Function) and node.name[0] != "_"]
    examples = [function for function in public if ">>>" in (ast.get_docstring(function) or "")]
    on_arrays = [function for function in public if is_on_arrays(function)]
    shown = [function for function in on_arrays if function in examples]
    comments = sum(line.lstrip().startswith("#") or "  # " in line for text in texts for line in text.splitlines())
    n_lines = sum(len(text.splitlines()) for text in texts)
    rooms = [item for item in path.iterdir() if item.name != "__pycache__"]
    print(f"structure: {n_lines:,} lines in {len(files)} files, {len(rooms)} rooms, one line in "
          f"{n_lines / max(comments, 1):.0f} has a comment")
    print(f"structure: {len(functions):,} functions, median {statistics.median(lengths):.0f} lines, nine in ten up to "
          f"{statistics.quantiles(lengths, n=10)[-1]:.0f}, the longest {max(lengths)}")
    print(f"structure: {len(examples)} of {len(public)} public functions show an example, {len(shown)} of "
          f"{len(on_arrays)} that take or give arrays")


if __name__ == "__main__":
    main()
