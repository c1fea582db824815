"""Files that appear whole or not at all, and the one way to spell a value as JSON."""

import contextlib
import json
import math
import os
import pathlib
import secrets
import time
import zipfile
from collections.abc import Callable, Mapping
from typing import IO, Any

import jax
import numpy as np


def canonical_json(value: object) -> str:
    """Spell a value as JSON in one way only: sorted keys, no spaces, NumPy numbers and arrays as plain ones.

    JSON has no infinities; they are spelled as the strings "inf", "-inf", "nan", which `float` reads back.

    Raises:
        TypeError: if JSON cannot say it.

    Example:
        >>> canonical_json({"widths": (2, 4), "lam": np.float64(0.5), "bound": -math.inf})
        '{"bound":"-inf","lam":0.5,"widths":[2,4]}'
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write readable JSON, atomically; numbers as in `canonical_json`, keys in the order given."""
    write_text(path, json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in UTF-8, atomically: readers see the old file or the new one, even after a power cut."""
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write bytes, a picture for instance, atomically."""
    _replace(path, lambda file: file.write(content))


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write an .npz, atomically; the same arrays give the same bytes, since no time of day is stored.

    Raises:
        ValueError: if an array holds what NumPy alone could not read back: Python objects, records, bfloat16.
    """
    for name, array in arrays.items():
        if np.asarray(array).dtype.kind in "OV":
            raise ValueError(f"{name}: Expected: numbers or text. Received: dtype {np.asarray(array).dtype}.")

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)

    _replace(path, write)


def _replace(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside its destination, force it to the disk, and only then give it its name."""
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with partial.open("xb") as file:
            _ = write(file)
            file.flush()
            os.fsync(file.fileno())
        _rename(partial, path)
    except BaseException:  # Ctrl-C too leaves no litter
        partial.unlink(missing_ok=True)
        raise
    # The new name is an entry of the folder, which has to reach the disk as well.
    with contextlib.suppress(OSError):  # Windows opens no folders, and some network file systems do not flush them
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _rename(partial: pathlib.Path, path: pathlib.Path) -> None:
    """Give a file its name, also where Windows refuses it for as long as somebody reads the old one."""
    for wait in (0.01, 0.1, 1.0):
        try:
            return os.replace(partial, path)
        except PermissionError:
            if os.name != "nt":
                raise
            time.sleep(wait)
    os.replace(partial, path)


def _plain(value: Any) -> Any:
    """Return a value in the types that JSON has."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Mapping():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case os.PathLike():
            return os.fspath(value)
        case np.ndarray() | np.generic() | jax.Array():
            return _plain(np.asarray(value).tolist())
        case _:
            raise TypeError(f"value: Expected: what JSON can say. Received: {value!r} of type {type(value).__name__}.")
