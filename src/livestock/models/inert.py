"""A pickle from anyone, unpickled with inert stand-ins: nothing that it names is called or imported.

A pickle is a program that names classes and functions and says what to call them with. Here each name is looked up in a
table of stand-ins: classes make empty instances that keep their attributes, functions check their arguments. Only what
`torch.save` writes of a detection model of YOLOv5, or of a pose model of ultralytics, is in the table; whatever else a
pickle does is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..exceptions import UnsafeWeights
from .wrong_file import describe_classes

MOST_NESTED = 20  # tuples in tuples; two or three is what torch.save writes
OPCODES = {
    "APPEND", "APPENDS", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPERSID", "BINPUT", "BINUNICODE",
    "BUILD", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "GLOBAL", "LONG1", "LONG_BINGET", "LONG_BINPUT", "MARK",
    "NEWFALSE", "NEWOBJ", "NEWTRUE", "NONE", "PROTO", "REDUCE", "SETITEM", "SETITEMS", "STOP", "TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3",
}  # what torch.save writes; none takes memory on the word of a length
DTYPES = {f"torch.{name}Storage": dtype for name, dtype in {
    "Half": torch.float16, "BFloat16": torch.bfloat16, "Float": torch.float32, "Double": torch.float64,
    "Bool": torch.bool, "Byte": torch.uint8, "Char": torch.int8, "Short": torch.int16, "Int": torch.int32,
    "Long": torch.int64}.items()}
YOLO_MODULES = {"yolo": ["Detect", "DetectionModel", "Model"], "common": [
    "Bottleneck", "BottleneckCSP", "C3", "Concat", "Conv", "DWConv", "Focus", "SPP", "SPPF"]}
POSE_MODULES = {
    "tasks": ["PoseModel"], "modules.head": ["Pose", "Pose26"], "modules.conv": ["Concat", "Conv", "DWConv"],
    "modules.block": [
        "Attention", "Bottleneck", "C2PSA", "C2f", "C3k", "C3k2", "DFL", "PSABlock", "RealNVP", "SPPF"],
}
TORCH_MODULES = {
    "activation": ["Hardswish", "LeakyReLU", "ReLU", "SiLU", "Tanh"], "batchnorm": ["BatchNorm2d"], "conv": ["Conv2d"],
    "container": ["ModuleList", "Sequential"], "linear": ["Identity", "Linear"], "padding": ["ZeroPad2d"],
    "pooling": ["MaxPool2d"], "upsampling": ["Upsample"],
}
BROKEN = (ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError, pickle.UnpicklingError)


class RefusedError(UnsafeWeights):
    """Why a checkpoint is refused, still without the name of the file."""


# -- the stand-ins ---------------------------------------------------------------------------------------------------


class Ordered(dict):
    """An OrderedDict; the attribute of state dictionaries is dropped."""

    def __setstate__(self, state: Any) -> None:
        expect(isinstance(state, dict) and set(state) <= {"_metadata"})

    def __repr__(self) -> str:
        return "OrderedDict"  # of many values in each other a text may take any memory


class Inert:
    """An array, a number of numpy or their type, or the bytes of one: nothing reads it, and it keeps nothing."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


@dataclass(frozen=True)
class Storage:
    """Numbers of one type in a record of the file."""

    dtype: torch.dtype
    n_numbers: int
    key: str


@dataclass(frozen=True, eq=False, repr=False)
class Stored:
    """Where a tensor lies in a record. `hooks` may still be filled when it is made, so they are looked at in the end.

    Offset and strides count numbers.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    hooks: tuple[Ordered, ...]

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.storage.dtype.itemsize

    def __setstate__(self, state: object) -> None:
        raise RefusedError("refused, it would change a tensor that it has made")


class Module:
    """What a module would be: the name of its class, and its attributes."""

    state: dict[str, Any] | None = None

    def __new__(cls, *arguments: object) -> Module:
        if arguments:
            raise RefusedError(f"refused, it would make a {cls.__name__} from arguments")
        return super().__new__(cls)

    def __init__(self) -> None:
        raise RefusedError(f"refused, it would call {type(self).__name__}")

    def __setstate__(self, state: object) -> None:
        if self.state is not None or not isinstance(state, dict):
            raise RefusedError(f"refused, {type(self).__name__}: expected one dictionary of attributes")
        self.state = dict(state)


@dataclass(frozen=True)
class Global:
    """A name that a checkpoint may have; where it is a function, what is called in its place."""

    name: str
    call: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self.call is None:
            raise RefusedError(f"refused, it would call {self.name}")
        try:
            return self.call(*arguments)
        except RefusedError:
            raise
        except BROKEN as error:
            raise RefusedError(f"refused, it would call {self.name} with other arguments than torch.save "
                               "writes") from error

    def __setstate__(self, state: object) -> None:
        raise RefusedError(f"refused, it would change {self.name}")


def is_count(value: Any) -> bool:
    """Whether it is a whole number, 0 or more, and no bool.

    >>> is_count(3), is_count(-1), is_count(True)
    (True, False, False)
    """
    return type(value) is int and value >= 0


def expect(holds: object) -> None:
    """Raises TypeError unless it holds; who calls knows what was asked for."""
    if not holds:
        raise TypeError("other values than torch.save writes")


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any, hooks: Any) -> Stored:
    expect(isinstance(storage, Storage) and isinstance(requires_grad, bool) and isinstance(hooks, Ordered))
    expect(isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides))
    expect(all(map(is_count, (offset, *shape, *strides))))
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    n_numbers = math.prod(shape)
    # Strides are bounded one by one too: that of a side of 1 counts for nothing in the sum, and torch takes 64 bits.
    if max((n_numbers, *shape)) > storage.n_numbers or (
            n_numbers and max((last + 1, *strides)) > storage.n_numbers):
        raise RefusedError(f"refused, it would make a tensor of shape {shape}, strides {strides} and offset {offset} "
                           f"out of {storage.n_numbers} numbers")
    return Stored(storage, offset, shape, strides, (hooks,))


def _rebuild_parameter(tensor: Any, requires_grad: Any, hooks: Any) -> Stored:
    expect(isinstance(tensor, Stored) and isinstance(requires_grad, bool) and isinstance(hooks, Ordered))
    return Stored(tensor.storage, tensor.offset, tensor.shape, tensor.strides, (*tensor.hooks, hooks))


def _make_table() -> dict[str, Any]:
    """The stand-in of each name, `module.name`, that may be in a checkpoint."""
    calls: dict[str, Callable[..., Any] | None] = {
        "builtins.set": set, "__builtin__.set": set, "collections.OrderedDict": Ordered, "_codecs.encode": Inert,
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor, "torch._utils._rebuild_parameter": _rebuild_parameter,
        "numpy.dtype": Inert, "numpy.ndarray": None, **dict.fromkeys(DTYPES),
        "ultralytics.utils.IterableSimpleNamespace": Inert,  # the settings of a training
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        calls |= {f"{module}.scalar": Inert, f"{module}._reconstruct": Inert}
    modules = {f"torch.nn.modules.{module}": names for module, names in TORCH_MODULES.items()}
    for package in ("models", "yolov5.models"):  # of yolov5's repository, and of the package on PyPI
        modules |= {f"{package}.{module}": names for module, names in YOLO_MODULES.items()}
    modules |= {f"ultralytics.nn.{module}": names for module, names in POSE_MODULES.items()}
    classes = {f"{module}.{name}": type(name, (Module,), {}) for module, names in modules.items() for name in names}
    return {**{name: Global(name, call) for name, call in calls.items()}, **classes}


TABLE = _make_table()
DATA = (type(None), bool, int, float, str, list, tuple, dict, set, Module, Stored, Inert)


# -- the pickle ------------------------------------------------------------------------------------------------------


def unpickle(content: bytes, sizes: dict[str, int]) -> Any:
    """What a pickle makes, of plain values and stand-ins. `sizes` has the bytes of each record, such as `data/0`.

    Raises RefusedError for what would run or load anything else, ValueError for a pickle that torch.save did not write.
    """
    names = _scan(content)
    if unknown := names - TABLE.keys():
        if what := describe_classes(unknown):
            raise RefusedError(f"expected a checkpoint of YOLOv5, found {what}")
        raise RefusedError(f"refused, it would run or load {', '.join(sorted(unknown))}")
    try:
        found = _Unpickler(content, sizes).load()
    except RefusedError:
        raise
    except BROKEN as error:
        raise RefusedError(f"refused, its pickle is broken: {error}") from error
    for value in _values(found):
        _check_value(value)
    return found


def _scan(content: bytes) -> set[str]:
    """The names that a pickle loads, found without running it. Raises ValueError for one that takes any memory or time.

    Tuples in tuples in tuples are hashed by recursion until the process dies. So the stack of the pickle is followed,
    with the depth of each value in its place and None for a mark.
    """
    names: set[str] = set()
    stack: list[int | None] = []
    memo: dict[Any, int | None] = {}
    for n, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in OPCODES:
            raise ValueError(f"the opcode {opcode.name}, which torch.save does not write")
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
            if int(argument or 0) > n:  # Python would make room for as many
                raise ValueError(f"a pickle that remembers {argument} values when it has had {n}")
            memo[argument] = stack[-1]
        else:
            stack += [1 + max(taken, default=0) if "TUPLE" in opcode.name else 0] * len(opcode.stack_after)
        if opcode.name == "GLOBAL":
            names.add(str(argument).replace(" ", "."))
        if stack and (stack[-1] or 0) > MOST_NESTED:
            raise ValueError(f"tuples nested more than {MOST_NESTED} times")
    return names


class _Unpickler(pickle.Unpickler):
    """Knows the names of the table alone, and imports none of them."""

    def __init__(self, content: bytes, sizes: dict[str, int]) -> None:
        super().__init__(io.BytesIO(content), fix_imports=False)
        self._sizes = sizes
        self._storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        return TABLE[f"{module}.{name}"]

    def persistent_load(self, saved: Any) -> Storage:
        """The storage that a tensor names, without its numbers; refuses one whose size is not the file's."""
        kind, storage, key, _, n_numbers = saved
        dtype, n_bytes = DTYPES[storage.name], self._sizes.get(f"data/{key}")
        if kind != "storage" or type(key) is not str or not is_count(n_numbers) or (
                n_bytes != n_numbers * dtype.itemsize):
            raise RefusedError(f"refused, it would read {n_numbers} numbers of {dtype} from record {key}, which has "
                               f"{n_bytes} bytes")
        found = self._storages.setdefault(key, Storage(dtype, n_numbers, key))
        if found.dtype != dtype:
            raise RefusedError(f"refused, it would read record {key} as {found.dtype} and as {dtype}")
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
            waiting += [*value, *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, Module) and value.state is not None:
            waiting += [*value.state, *value.state.values()]


def _check_value(value: Any) -> None:
    """Raises RefusedError for what is no data, and for what torch would call one day: hooks, modules as attributes."""
    if not isinstance(value, DATA):
        name = value.name if isinstance(value, Global) else getattr(value, "__name__", type(value).__name__)
        raise RefusedError(f"refused, it would load {name} as a value")
    if isinstance(value, Stored) and any(value.hooks):
        raise RefusedError("refused, a tensor has hooks")
    if isinstance(value, Module):
        for name, attribute in (value.state or {}).items():
            if isinstance(attribute, Module) or ("hooks" in str(name) and attribute):
                raise RefusedError(f"refused, {type(value).__name__}: it would put its own {name!r} in place")


