"""What stands in for all that a checkpoint may name: classes make empty instances, functions check their arguments.

Only what `torch.save` writes of a detection model is here; whatever else a pickle does with it is refused.
"""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ...exceptions import UnsafeWeights
from . import compat

STORAGES = {f"torch.{name}Storage": dtype for name, dtype in {
    "Half": torch.float16, "BFloat16": torch.bfloat16, "Float": torch.float32, "Double": torch.float64,
    "Bool": torch.bool, "Byte": torch.uint8, "Char": torch.int8, "Short": torch.int16, "Int": torch.int32,
    "Long": torch.int64}.items()}
NUMPY_BYTES = {f"{kind}{size}": size for kind in "fiu" for size in (1, 2, 4, 8)} | {"b1": 1}
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class RefusedError(UnsafeWeights):
    """What a checkpoint holds or would do that no model needs."""


class Ordered(OrderedDict):
    """An OrderedDict, with no attribute but that of state dictionaries."""

    def __setstate__(self, state: Any) -> None:
        expect(isinstance(state, dict) and set(state) <= {"_metadata"})
        self.__dict__.update(state)


@dataclass(frozen=True)
class Storage:
    """Numbers of one type in a record of the file."""

    dtype: torch.dtype
    n_numbers: int


@dataclass(frozen=True)
class Tensor:
    """What a tensor would be. `hooks` may still be filled when it is made, so they are looked at in the end."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    hooks: tuple[Ordered, ...] = ()

    def __setstate__(self, state: object) -> None:
        raise RefusedError("it would change a tensor that it has made")


class Module:
    """What a module would be: its class and its attributes, as they are when torch would copy them."""

    original: type[torch.nn.Module]
    state: dict[str, Any] | None = None

    def __new__(cls, *arguments: object) -> Module:
        if arguments:
            raise RefusedError(f"it would make a {cls.__name__} from arguments")
        return super().__new__(cls)

    def __init__(self) -> None:
        raise RefusedError(f"it would call {type(self).__name__}")

    def __setstate__(self, state: object) -> None:
        if self.state is not None or not isinstance(state, dict):
            raise RefusedError(f"{type(self).__name__}: expected one dictionary of attributes")
        self.state = dict(state)


@dataclass
class Numpy:
    """An array, a number or their type: as many bytes as it says."""

    code: str
    n_bytes: int = 0
    built: bool = False

    def __setstate__(self, state: Any) -> None:
        expect(not self.built and isinstance(state, tuple))
        self.built = True
        if self.code in NUMPY_BYTES:
            expect(state[0] == 3 and state[1] in ("<", "|", "=", ">") and state[2:] == (None, None, None, -1, -1, 0))
        else:
            version, shape, dtype, _, content = state
            expect(version == 1 and isinstance(shape, tuple) and all(map(is_count, shape)))
            expect(dtype.code in NUMPY_BYTES and type(content) is bytes)
            expect(len(content) == math.prod(shape) * dtype.n_bytes)


@dataclass(frozen=True)
class Global:
    """A name that a checkpoint may have; where it is a function, what is called in its place."""

    name: str
    call: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self.call is None:
            raise RefusedError(f"it would call {self.name}")
        try:
            return self.call(*arguments)
        except RefusedError:
            raise
        except MALFORMED as error:
            raise RefusedError(f"it would call {self.name} with other arguments than torch.save writes") from error

    def __setstate__(self, state: object) -> None:
        raise RefusedError(f"it would change {self.name}")


def is_count(value: Any) -> bool:
    """Whether it is a whole number, 0 or more, and no bool.

    >>> is_count(3), is_count(-1), is_count(True)
    (True, False, False)
    """
    return type(value) is int and value >= 0


def expect(holds: Any) -> None:
    """Raises TypeError unless it holds; who calls knows what was asked for."""
    if not holds:
        raise TypeError("other values than torch.save writes")


@functools.cache
def all_globals() -> dict[str, Any]:
    """The stand-in of each name, `module.name`, that may be in a checkpoint."""
    calls: dict[str, Callable[..., Any] | None] = {
        "builtins.set": set, "__builtin__.set": set, "collections.OrderedDict": Ordered, "_codecs.encode": _encode,
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor, "torch._utils._rebuild_parameter": _rebuild_parameter,
        "numpy.dtype": _numpy_dtype, "numpy.ndarray": None, **dict.fromkeys(STORAGES),
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        calls |= {f"{module}.scalar": _numpy_scalar, f"{module}._reconstruct": _numpy_array}
    table: dict[str, Any] = {name: Global(name, call) for name, call in calls.items()}
    for allowed in compat.allowed_globals():
        original, name = allowed if isinstance(allowed, tuple) else (allowed, "")
        if isinstance(original, type) and issubclass(original, torch.nn.Module):
            stand_in = type(original.__name__, (Module,), {"original": original})
            table[name or f"{original.__module__}.{original.__qualname__}"] = stand_in
    return table


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any, hooks: Any) -> Tensor:
    expect(isinstance(storage, Storage) and isinstance(requires_grad, bool) and isinstance(hooks, Ordered))
    expect(isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides))
    expect(all(map(is_count, (offset, *shape, *strides))))
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    n_numbers = math.prod(shape)
    if n_numbers > storage.n_numbers or (n_numbers and last >= storage.n_numbers):
        raise RefusedError(f"it would make a tensor of shape {shape}, strides {strides} and offset {offset} out of "
                           f"{storage.n_numbers} numbers")
    return Tensor(storage.dtype, shape, (hooks,))


def _rebuild_parameter(tensor: Any, requires_grad: Any, hooks: Any) -> Tensor:
    expect(isinstance(tensor, Tensor) and isinstance(requires_grad, bool) and isinstance(hooks, Ordered))
    return Tensor(tensor.dtype, tensor.shape, (*tensor.hooks, hooks))


def _numpy_dtype(code: Any, align: Any, copy: Any) -> Numpy:
    return Numpy(code, NUMPY_BYTES[code])


def _numpy_scalar(dtype: Any, content: Any) -> Numpy:
    expect(dtype.code in NUMPY_BYTES and type(content) is bytes and dtype.n_bytes == len(content))
    return Numpy("scalar", built=True)


def _numpy_array(kind: Any, shape: Any, code: Any) -> Numpy:
    expect(kind.name == "numpy.ndarray" and shape == (0,) and code == b"b")
    return Numpy("array")


def _encode(text: Any, encoding: Any) -> bytes:
    expect(type(text) is str and encoding == "latin1")
    return text.encode("latin1")
