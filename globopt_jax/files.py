"""Write files atomically, so that they appear whole or not at all, and write values as JSON in one way only."""

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
    """Return a value as JSON with sorted keys and no spaces, so that equal values have equal texts.

    NumPy and JAX arrays become lists, and NumPy numbers become plain numbers. JSON has no infinities and no NaN; these
    become the strings "inf", "-inf" and "nan", which `float` reads back.

    Args:
        value: None, a number, a string, a path or an array, or mappings, lists and tuples of such values.

    Raises:
        TypeError: the value holds anything else.

    Example:
        >>> canonical_json({"widths": (2, 4), "lam": np.float64(0.5), "bound": -math.inf})
        '{"bound":"-inf","lam":0.5,"widths":[2,4]}'
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write a value as indented JSON, atomically, with numbers as in `canonical_json` and keys in their given order."""
    write_text(path, json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in UTF-8, atomically: readers see either the old or the new file, even after a power cut."""
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write bytes, such as a picture, atomically."""
    _replace(path, lambda file: file.write(content))


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write an .npz, atomically. The same arrays always give the same bytes, because the file stores no time.

    Args:
        path: the file.
        arrays: the arrays by their names.

    Raises:
        ValueError: an array holds Python objects, records or bfloat16, which NumPy alone could not read back.
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
    """Write a file under another name, flush it to the disk, and only then rename it to its destination."""
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with partial.open("xb") as file:
            _ = write(file)
            file.flush()
            os.fsync(file.fileno())
        _rename(partial, path)
    except BaseException:  # Ctrl-C removes the partial file, too
        partial.unlink(missing_ok=True)
        raise
    # The new name is an entry of the folder, so the folder has to be flushed to the disk as well. Windows cannot open
    # folders, and some network file systems cannot flush them.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _rename(partial: pathlib.Path, path: pathlib.Path) -> None:
    """Rename a file, with several tries on Windows, which refuses while another process reads the old file."""
    for wait in (0.01, 0.1, 1.0):
        try:
            return os.replace(partial, path)
        except PermissionError:
            if os.name != "nt":
                raise
            time.sleep(wait)
    os.replace(partial, path)


def _plain(value: Any) -> Any:
    """Return a value as the types that JSON has."""
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
            raise TypeError(
                "value: Expected: None, numbers, strings, paths, arrays, lists or mappings, which JSON can represent. "
                f"Received: {value!r} of type {type(value).__name__}."
            )
