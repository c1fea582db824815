"""The methods that every result has: its sentence, its JSON, and an .npz file that records the result's origin.

A result is a NamedTuple of arrays. NamedTuples cannot inherit methods, so each result class assigns these functions in
its body:

    >>> from typing import NamedTuple
    >>> class Answer(NamedTuple):
    ...     value: Any
    ...     reason = property(lambda self: f"The value is {self.value}.")
    ...     __str__, to_json, save, load = words, to_json, save, classmethod(load)
    >>> print(Answer(np.float64(2)))
    The value is 2.0.
    >>> Answer(np.float64("inf")).to_json()
    {'reason': 'The value is inf.', 'value': 'inf'}
"""

from pathlib import Path
from typing import Any

import numpy as np

from globopt_jax.files import canonical_json, write_arrays
from globopt_jax.npz import read_arrays
from globopt_jax.origin import provenance

__all__ = ["load", "save", "to_json", "words"]

_ORIGIN = "__provenance__"


def words(self: Any) -> str:
    """Return the result in a few sentences, its ``reason``."""
    return self.reason


def to_json(result: Any, /) -> dict[str, Any]:
    """Return the properties and the fields of a result as a dictionary of numbers, strings and lists.

    JSON has no infinities and no NaN: infinities become the strings "inf" and "-inf", and NaN becomes None.
    """
    derived = [name for name, value in vars(type(result)).items() if isinstance(value, property)]
    return {name: _plain(getattr(result, name)) for name in (*derived, *result._fields)}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return _sayable(np.asarray(value).tolist())


def _sayable(value: Any) -> Any:
    if isinstance(value, list):
        return [_sayable(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else str(value)
    return value


def save(result: Any, /, path: str | Path) -> None:
    """Write the arrays to an .npz, atomically, together with versions, machine, time and command line.

    Args:
        result: the result.
        path: the file, in a folder that exists.

    Raises:
        ValueError: there is no such folder.
        OSError: the file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, value in result._asdict().items():
        several = isinstance(value, tuple)  # one array per layer, of different shapes
        arrays |= {f"{name}.{i}": np.asarray(v) for i, v in enumerate(value)} if several else {name: np.asarray(value)}
        if several and not value:
            arrays[f"{name}."] = np.zeros(0)  # without this entry `load` would miss the field
    if not Path(path).parent.is_dir():
        raise ValueError(f"path: Expected: a file in a folder that exists. Received: {path}.")
    origin = canonical_json(provenance(dtype=next(iter(arrays.values())).dtype))
    write_arrays(Path(path), {**arrays, _ORIGIN: np.array(origin)})


def load(kind: Any, /, path: str | Path) -> Any:
    """Return the result that `save` wrote to a file.

    Args:
        kind: the class of the result.
        path: the file.

    Raises:
        ValueError: the file holds another kind of result, or no result.
        OSError: the file cannot be opened or read.
    """
    arrays = read_arrays(path)
    fields = getattr(kind, "_fields", ())
    if {name.split(".")[0] for name in arrays} != {*fields, _ORIGIN}:
        raise ValueError(f"{path}: Expected: the fields {', '.join(fields)}. Received: {', '.join(arrays)}.")
    return kind(**{name: arrays[name] if name in arrays else _several(arrays, name) for name in fields})


def _several(arrays: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, ...]:
    """Return the arrays of one field, in their order."""
    count = sum(key.startswith(f"{name}.") and key != f"{name}." for key in arrays)
    return tuple(arrays[f"{name}.{i}"] for i in range(count))
