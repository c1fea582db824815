"""Results on disk: NamedTuples of arrays as .npz files that say where they come from."""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from globopt_jax import runs

__all__ = ["load", "plain", "save"]

_Result = TypeVar("_Result")
_ORIGIN = "__provenance__"


def plain(result: Any) -> dict[str, Any]:
    """The fields as numbers and lists; infinities become strings, which JSON can say, and NaN becomes null."""

    def say(value: Any) -> Any:
        if isinstance(value, list):
            return [say(v) for v in value]
        if isinstance(value, float) and not np.isfinite(value):
            return None if np.isnan(value) else str(value)
        return value

    return {
        name: say([np.asarray(v).tolist() for v in value] if isinstance(value, tuple) else np.asarray(value).tolist())
        for name, value in result._asdict().items()
    }


def save(result: Any, path: str | Path) -> None:
    """Write the arrays to an .npz, atomically, with versions, machine, time and command line."""
    arrays: dict[str, np.ndarray] = {}
    for name, value in result._asdict().items():
        several = isinstance(value, tuple)  # arrays of several shapes, one a layer
        arrays |= {f"{name}.{i}": np.asarray(v) for i, v in enumerate(value)} if several else {name: np.asarray(value)}
    origin = runs.canonical_json(runs.provenance(dtype=next(iter(arrays.values())).dtype))
    runs.write_arrays(Path(path), {**arrays, _ORIGIN: np.array(origin)})


def load(kind: type[_Result], path: str | Path) -> _Result:
    """Read what `save` wrote.

    Raises:
        ValueError: the file holds another kind of result.
    """
    arrays = runs.read_arrays(Path(path))
    fields = getattr(kind, "_fields", ())
    if {name.split(".")[0] for name in arrays} != {*fields, _ORIGIN}:
        raise ValueError(f"{path}: Expected: the fields {', '.join(fields)}. Received: {', '.join(arrays)}.")
    return kind(**{name: arrays[name] if name in arrays else _several(arrays, name) for name in fields})


def _several(arrays: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, ...]:
    """The arrays of one field, in their order."""
    return tuple(arrays[f"{name}.{i}"] for i in range(sum(key.startswith(f"{name}.") for key in arrays)))
