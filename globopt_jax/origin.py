"""Record the origin of a result: versions, machine, time, command line and a hash of the data."""

import datetime
import hashlib
import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from globopt_jax import __version__


def provenance(data: Mapping[str, Any] | None = None, dtype: Any = None) -> dict[str, Any]:
    """Return the facts that a reader needs to judge or to repeat a result.

    Args:
        data: arrays by their names; their `hash_arrays` is recorded. None records no hash.
        dtype: the dtype of the computation. None is JAX's default float.

    Returns:
        Versions of the libraries and of Python, platform and device, dtype, time (UTC), command line, and the hash.

    Example:
        >>> sorted(provenance())
        ['command', 'data', 'device', 'dtype', 'globopt_jax', 'jax', 'jaxlib', 'numpy', 'platform', 'python',
         'time']
    """
    return {
        "globopt_jax": __version__,
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": jax.devices()[0].device_kind,
        "dtype": np.dtype(jax.dtypes.canonicalize_dtype(np.float64) if dtype is None else dtype).name,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "data": None if data is None else hash_arrays(data),
    }


def hash_arrays(arrays: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the names, dtypes, shapes and entries of named arrays, in the order of the sorted names.

    Args:
        arrays: the arrays by their names.

    Example:
        >>> column, row = np.zeros((2, 1)), np.zeros((1, 2))
        >>> hash_arrays({"X": column, "Y": row}) == hash_arrays({"Y": row, "X": column})
        True
        >>> hash_arrays({"X": column}) == hash_arrays({"X": row})
        False
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype.str}:{np.shape(arrays[name])};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
