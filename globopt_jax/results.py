"""What every result can do: a NamedTuple of arrays, read as words, as JSON, or from an .npz file with its origin.

NamedTuples take no base class, so each of them names these functions in its body:

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
    """The result in a few sentences."""
    return self.reason


def to_json(result: Any, /) -> dict[str, Any]:
    """What is read off the fields, and the fields, as numbers, strings and lists.

    Infinities become strings, which JSON can say, and NaN becomes null.
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
    """Write the arrays to an .npz, atomically, with versions, machine, time and command line.

    Raises:
        ValueError: no such folder.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, value in result._asdict().items():
        several = isinstance(value, tuple)  # arrays of several shapes, one a layer
        arrays |= {f"{name}.{i}": np.asarray(v) for i, v in enumerate(value)} if several else {name: np.asarray(value)}
        if several and not value:
            arrays[f"{name}."] = np.zeros(0)  # so that the file names the field
    if not Path(path).parent.is_dir():
        raise ValueError(f"path: Expected: a file in a folder that exists. Received: {path}.")
    origin = canonical_json(provenance(dtype=next(iter(arrays.values())).dtype))
    write_arrays(Path(path), {**arrays, _ORIGIN: np.array(origin)})


def load(kind: Any, /, path: str | Path) -> Any:
    """Read what `save` wrote.

    Raises:
        ValueError: the file holds another kind of result, or none.
    """
    arrays = read_arrays(path)
    fields = getattr(kind, "_fields", ())
    if {name.split(".")[0] for name in arrays} != {*fields, _ORIGIN}:
        raise ValueError(f"{path}: Expected: the fields {', '.join(fields)}. Received: {', '.join(arrays)}.")
    return kind(**{name: arrays[name] if name in arrays else _several(arrays, name) for name in fields})


def _several(arrays: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, ...]:
    """The arrays of one field, in their order."""
    count = sum(key.startswith(f"{name}.") and key != f"{name}." for key in arrays)
    return tuple(arrays[f"{name}.{i}"] for i in range(count))
