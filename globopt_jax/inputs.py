"""What every host function checks before it computes anything: numbers, shapes, ranges, one dtype."""

import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["check_data", "check_key", "check_range", "common_dtype", "finite", "integer", "number", "real"]


def finite(name: str, array: Any) -> np.ndarray:
    """The array as NumPy has it.

    Raises:
        TypeError: it does not hold real numbers, or is traced.
        ValueError: it holds NaN or infinities; the message says how many, and where the first is.
    """
    try:
        array = np.asarray(array)
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            f"{name}: Expected: numbers, since this is a host function, which jits inside. Received: {array}, from "
            "under jit, vmap or grad."
        ) from error
    except (TypeError, ValueError) as error:  # a random key, lists of unequal lengths
        raise TypeError(f"{name}: Expected: real numbers. Received: {type(array).__name__} ({error}).") from error
    if array.dtype.kind not in "fiub":
        hint = "; take float32" if array.dtype.kind == "V" else ""  # bfloat16 and the like
        raise TypeError(f"{name}: Expected: real numbers. Received: dtype {array.dtype}{hint}.")
    if not np.all(np.isfinite(array)):
        bad = int(array.size - np.isfinite(array).sum())
        first = tuple(int(i[0]) for i in np.nonzero(~np.isfinite(array)))
        raise ValueError(f"{name}: Expected: finite numbers. Received: {bad} NaN or inf, the first at {first}.")
    return array


def integer(name: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """The number as Python has it.

    Raises:
        ValueError: no integer, or one out of range.

    Example:
        >>> integer("n", np.int64(3))
        3
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        span = f"at least {low}" if high is None else f"{low}..{high}"
        raise ValueError(f"{name}: Expected: an integer, {span}. Received: {value!r}.")
    return number


def number(name: str, value: Any, expected: str, allowed: Callable[[float], bool]) -> float:
    """The number as Python has it.

    Raises:
        ValueError: no finite number, or one that is not allowed; `expected` says which are.

    Example:
        >>> number("radius", np.float32(2), "a positive number", lambda v: v > 0)
        2.0
    """
    try:
        found = float(value) if np.ndim(value) == 0 and not isinstance(value, str | bytes) else np.nan
    except (TypeError, ValueError, OverflowError):
        found = np.nan
    if not np.isfinite(found) or not allowed(found):
        raise ValueError(f"{name}: Expected: {expected}. Received: {value!r}.")
    return found


def check_key(key: Any) -> None:
    """Raise TypeError unless it is one key of `jax.random.key`, or one of the older kind, and not traced.

    Example:
        >>> check_key(jax.random.key(0))
    """
    array = key if isinstance(key, jax.Array | np.ndarray) else None
    typed = array is not None and jnp.issubdtype(array.dtype, jax.dtypes.prng_key) and array.shape == ()
    raw = array is not None and array.dtype == np.uint32 and array.shape == (2,)
    if not (typed or raw):
        received = type(key).__name__ if array is None else f"shape {array.shape} and dtype {array.dtype}"
        raise TypeError(f"key: Expected: one jax.random.key(seed). Received: {received}.")
    try:
        _ = np.asarray(jax.random.key_data(key))
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            f"key: Expected: a key, since this is a host function, which jits inside. Received: {key}, from under jit, "
            "vmap or grad."
        ) from error


def real(name: str, array: Any) -> jax.Array:
    """The array as JAX has it, traced or not, with integers made floats.

    Raises:
        TypeError: it does not hold real numbers.
    """
    try:
        array = jnp.asarray(array)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: Expected: an array of real numbers. Received: {type(array).__name__}.") from error
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{name}: Expected: real numbers. Received: dtype {array.dtype}.")
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.zeros(()).dtype)


def check_data(X: Any, Y: Any) -> None:
    """Raise ValueError unless X and Y have shapes (m, dx) and (m, dy), neither of them empty."""
    if X.ndim != 2 or Y.ndim != 2 or len(X) != len(Y) or not X.size or not Y.size:
        hint = " Labels need one-hot rows, scalar targets Y.reshape(m, 1)." if Y.ndim == 1 else ""
        raise ValueError(f"X, Y: Expected: shapes (m, dx) and (m, dy). Received: {X.shape} and {Y.shape}.{hint}")


def common_dtype(arrays: Sequence[Any], *, stacklevel: int = 4) -> Any:
    """float64 if any array has it and x64 is on, else float32; a warning where float64 would be lost silently."""
    wanted = any(np.asarray(a).dtype == np.float64 for a in arrays)
    if wanted and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        warnings.warn(
            "float64 arrays are computed in float32 because x64 is off; with jax.enable_x64(True): ... keeps them.",
            UserWarning,
            stacklevel=stacklevel,
        )
        return np.dtype(np.float32)
    wide = wanted or not any(np.asarray(a).dtype.kind == "f" for a in arrays)
    return jax.dtypes.canonicalize_dtype(np.float64 if wide else np.float32)


def check_range(name: str, array: np.ndarray, dtype: Any, *, tiny: bool) -> None:
    """Squares of products of the data must neither overflow nor vanish.

    Raises:
        ValueError: the largest entry is above 1e75 (1e12 in float32) or, with `tiny`, below the inverse and not 0; with
            `tiny`, an entry other than 0 is below 1e-150 (1e-30 in float32).
    """
    wide = dtype == np.float64
    high, least = (1e75, 1e-150) if wide else (1e12, 1e-30)
    low = 1 / high if tiny else 0.0
    size = max(float(np.max(array, initial=0)), -float(np.min(array, initial=0)))  # without a copy of the data
    if size > high or 0 < size < low:
        raise ValueError(
            f"{name}: Expected: a largest entry of 0 or between {low:.1g} and {high:.1g} in {np.dtype(dtype)}; scale "
            f"the data. Received: {size:.3g}."
        )
    if not tiny:
        return
    smallest = min(float(np.min(array, initial=1, where=array > 0)), -float(np.max(array, initial=-1, where=array < 0)))
    if smallest < least:
        raise ValueError(
            f"{name}: Expected: entries that are 0 or at least {least:.1g} in {np.dtype(dtype)}, since squares of "
            f"smaller ones vanish; set them to 0 or scale their rows. Received: {smallest:.3g}."
        )
