"""What a checkpoint would make, found out with stand-ins that do nothing, before torch makes any of it.

`torch.load` with `weights_only=True` calls whatever is on its list with any arguments. That is too much: a model class
called with a dictionary runs `eval` on its strings, and a tensor may claim more than its file holds.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ...exceptions import UnsafeWeights
from .stand_ins import STORAGES, Global, Module, Numpy, Ordered, RefusedError, Storage, Tensor, all_globals, is_count
from .wrong_file import describe_classes, describe_wrong_file

MOST_PICKLE_BYTES = 1 << 23  # the largest published model has less than a tenth of that
MOST_NESTED = 20  # two or three is what torch.save writes
OPCODES = {
    "APPEND", "APPENDS", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPERSID", "BINPUT", "BINUNICODE",
    "BUILD", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "GLOBAL", "LONG1", "LONG_BINGET", "LONG_BINPUT", "MARK",
    "NEWFALSE", "NEWOBJ", "NEWTRUE", "NONE", "PROTO", "REDUCE", "SETITEM", "SETITEMS", "STOP", "TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3",
}  # what torch.save writes; none takes memory on the word of a length
BROKEN = (ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError, pickle.UnpicklingError)
DATA = (type(None), bool, int, float, str, bytes, list, tuple, dict, set, Module, Tensor, Numpy)


def read_stand_ins(path: Path) -> Any:
    """What `torch.load` would return, with stand-ins for modules, tensors and arrays. Runs nothing of the file.

    Raises UnsafeWeights naming the file and what is refused: code, a tensor beyond the file's bytes, a broken file.
    """
    if what := describe_wrong_file(path):
        raise UnsafeWeights(f"{path}: expected a checkpoint written by torch.save (a zip), found {what}")
    try:
        content, sizes = _read_zip(path)
        names = _names_in(content)
        _check_tuples(content)
    except (*BROKEN, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UnsafeWeights(f"{path}: expected a checkpoint written by torch.save (a zip), found {error}") from error
    if unknown := names - all_globals().keys():
        if what := describe_classes(unknown):
            raise RefusedError(f"{path}: expected a checkpoint of YOLOv5, found {what}")
        raise RefusedError(f"{path}: refused, it would run or load {', '.join(sorted(unknown))}")
    try:
        found = _Unpickler(content, sizes).load()
        for value in _values(found):
            _check_value(value)
    except RefusedError as error:
        raise RefusedError(f"{path}: refused, {error}") from error
    except BROKEN as error:
        raise RefusedError(f"{path}: refused, its pickle is broken: {error}") from error
    return found


def _read_zip(path: Path) -> tuple[bytes, dict[str, int]]:
    """The pickle, and the bytes of each record; none is compressed, so that all that they hold is in the file."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(entries) != len(archive.infolist()) or len(pickles) != 1:
            raise ValueError(f"{len(pickles)} entries data.pkl, or entries of one name")
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size
               for entry in entries.values()):
            raise ValueError("compressed entries")
        if sum(entry.file_size for entry in entries.values()) > path.stat().st_size:
            raise ValueError("entries that lie over each other")
        if entries[pickles[0]].file_size > MOST_PICKLE_BYTES:
            raise ValueError(f"{entries[pickles[0]].file_size} bytes of pickle, more than {MOST_PICKLE_BYTES}")
        content = archive.read(pickles[0])
    # Two programs may see two files in one zip: what is checked here is what torch will read.
    if torch._C.PyTorchFileReader(str(path)).get_record("data.pkl") != content:
        raise ValueError("a zip that torch reads differently")
    prefix = pickles[0].removesuffix("data.pkl")
    return content, {name.removeprefix(prefix): entry.file_size for name, entry in entries.items()}


def _names_in(content: bytes) -> set[str]:
    names = set()
    for n, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in OPCODES:
            raise ValueError(f"the opcode {opcode.name}, which torch.save does not write")
        if opcode.name == "GLOBAL":
            names.add(str(argument).replace(" ", "."))
        elif opcode.name in ("BINPUT", "LONG_BINPUT") and int(argument or 0) > n:
            raise ValueError(f"a pickle that remembers {argument} values when it has had {n}")
    return names


def _check_tuples(content: bytes) -> None:
    """Raises ValueError for tuples in tuples in tuples: Python hashes them by recursion until the process dies.

    Follows the stack of the pickle, with the depth of each value in its place and None for a mark.
    """
    stack: list[int | None] = []
    memo: dict[Any, int | None] = {}
    for opcode, argument, _ in pickletools.genops(content):
        before, taken = opcode.stack_before, []
        if pickletools.markobject in before:
            while (depth := stack.pop()) is not None:
                taken.append(depth)
            before = before[: before.index(pickletools.markobject)]
        taken += [stack.pop() or 0 for _ in before]
        if opcode.name == "MARK":
            stack.append(None)
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif opcode.name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        else:
            stack += [1 + max(taken, default=0) if "TUPLE" in opcode.name else 0] * len(opcode.stack_after)
        if stack and (stack[-1] or 0) > MOST_NESTED:
            raise ValueError(f"tuples nested more than {MOST_NESTED} times")


class _Unpickler(pickle.Unpickler):
    """Reads a pickle whose names are all known; storages are read by no one."""

    def __init__(self, content: bytes, sizes: dict[str, int]) -> None:
        super().__init__(io.BytesIO(content), fix_imports=False)
        self._sizes = sizes
        self._storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        return all_globals()[f"{module}.{name}"]

    def persistent_load(self, saved: Any) -> Storage:
        kind, storage, key, _, n_numbers = saved
        dtype, n_bytes = STORAGES[storage.name], self._sizes.get(f"data/{key}")
        if kind != "storage" or type(key) is not str or not is_count(n_numbers) or (
                n_bytes != n_numbers * dtype.itemsize):
            raise RefusedError(f"it would read {n_numbers} numbers of {dtype} from record {key}, which has {n_bytes} "
                               "bytes")
        found = self._storages.setdefault(key, Storage(dtype, n_numbers))
        if found.dtype != dtype:
            raise RefusedError(f"it would read record {key} as {found.dtype} and as {dtype}")
        return found


def _values(root: Any) -> Iterator[Any]:
    """Every value once, however they hold each other."""
    seen, waiting = set(), [root]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, dict):
            waiting += [*value, *value.values(), *(vars(value).values() if isinstance(value, Ordered) else ())]
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, Module) and value.state is not None:
            waiting += [*value.state, *value.state.values()]


def _check_value(value: Any) -> None:
    """Raises RefusedError for what is no data, and for what torch would call one day: hooks, modules as attributes."""
    if not isinstance(value, DATA):
        name = value.name if isinstance(value, Global) else getattr(value, "__name__", type(value).__name__)
        raise RefusedError(f"it would load {name} as a value")
    if isinstance(value, Tensor) and any(value.hooks):
        raise RefusedError("a tensor has hooks")
    if isinstance(value, Module):
        for name, attribute in (value.state or {}).items():
            if isinstance(attribute, Module) or ("hooks" in str(name) and attribute):
                raise RefusedError(f"{type(value).__name__}: it would put its own {name!r} in place")
