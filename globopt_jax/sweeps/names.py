"""Names that tell functions apart, for stores: a function of the caller can change under its name."""

import functools
import hashlib
import re
import types
from typing import Any

import jax
import numpy as np

from globopt_jax.origin import hash_arrays

__all__ = ["digest", "function_named"]

#: The kinds of global values that a hash covers.
_TOLD = (int, float, complex, str, bytes, tuple, list, dict, set, frozenset, type(None))
_TOLD += (np.ndarray, np.generic, jax.Array, types.FunctionType, functools.partial)

#: Packages whose functions keep their meaning under their names.
_PACKAGES = frozenset({"flax", "globopt_jax", "jax", "numpy", "optax"})


def function_named(function: Any) -> str:
    """Return the module and the name of a function, with a hash where the name alone does not tell the function.

    Functions of jax, optax and similar packages are told by their names. Lambdas share one name, and a function of the
    caller can change under its name. The hash covers the code of the function, its defaults, the local variables that
    it takes from around it, and the global numbers, strings, containers, arrays and functions that it names.

    Example:
        >>> function_named(np.linalg.norm)
        'numpy.linalg.norm'
        >>> function_named(lambda z: z**2) == function_named(lambda z: z**3)
        False
    """
    kind = type(function)
    module = getattr(function, "__module__", None) or kind.__module__
    name = f"{module}.{getattr(function, '__qualname__', kind.__qualname__)}"
    return name if _is_known(module, name) else f"{name}#{digest(function)}"


def digest(value: Any) -> str:
    """Return a short hash that differs for different values, as far as they can be looked into.

    Example:
        >>> digest(functools.partial(max, default=1)) == digest(functools.partial(max, default=2))
        False
    """
    return hashlib.sha256(_told(value).encode()).hexdigest()[:8]


def _told(value: Any, above: tuple[int, ...] = ()) -> str:
    """Return the content of a value in words."""
    if id(value) in above:  # a function that calls itself
        return "itself"
    inside = _content(value)
    if inside is not None:
        return f"({', '.join(_told(v, (*above, id(value))) for v in inside)})"
    if isinstance(value, np.ndarray | jax.Array):
        return hash_arrays({"": np.asarray(value)})
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # the address of an object says nothing of it


def _content(value: Any) -> tuple[Any, ...] | None:
    """Return the parts of a value; None if it has none that can be looked into."""
    match value:
        case tuple() | list():
            return (*value,)
        case set() | frozenset():
            return (*sorted(value, key=repr),)
        case dict():
            return (*value.items(),)
        case functools.partial():
            return "partial", value.func, value.args, value.keywords
        case types.CodeType():
            return value.co_code, value.co_names, value.co_consts
        case types.FunctionType() if _is_known(value.__module__, value.__qualname__):
            return value.__module__, value.__qualname__
        case types.FunctionType():
            around = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
            return value.__code__, value.__defaults__, value.__kwdefaults__, around, _globals(value)
    if hasattr(value, "__wrapped__"):
        return (value.__wrapped__,)
    if hasattr(value, "__dict__") and not isinstance(value, type):
        return type(value).__qualname__, vars(value), vars(type(value)).get("__call__")
    return None


def _globals(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Return the global values that the code of a function names; of other objects their kinds alone."""
    names, codes = set[str](), [function.__code__]
    for code in codes:  # grows by the functions inside
        names.update(code.co_names)
        codes.extend(c for c in code.co_consts if isinstance(c, types.CodeType))
    found = [(name, function.__globals__[name]) for name in sorted(names & function.__globals__.keys())]
    # Jitted functions and the like have the function that they wrap.
    told = [isinstance(value, _TOLD) or hasattr(value, "__wrapped__") for _, value in found]
    return [(name, v if yes else type(v).__qualname__) for (name, v), yes in zip(found, told, strict=True)]


def _is_known(module: Any, name: str) -> bool:
    return "<" not in name and str(module).partition(".")[0] in _PACKAGES
