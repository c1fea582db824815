"""Checks and conversions of the arguments of public functions: numbers, shapes, ranges, and one common dtype.

Arrays are converted by `finite` in host functions and by `real` where they may be traced. Both follow this table:

========================== ===========================================================================================
given                      result
========================== ===========================================================================================
float32, float64           unchanged; another byte order is converted exactly
float16                    float32, exactly
integers, booleans         floats: float32 if x64 is off or float32 arrays come with them and hold them; else float64
longdouble                 float64, rounded
lists, pandas, matrices    the result of `numpy.asarray`, by the same rules
masked arrays              their data if nothing is masked; otherwise refused
sparse matrices            refused: a dense array may not fit into memory, so the caller has to call `X.toarray()`
bfloat16, float8, ...      refused: they have too few digits, so the caller has to call `X.astype("float32")`
complex, text, dates, ...  refused
========================== ===========================================================================================

Host functions also refuse NaN and infinity, after the conversion. If x64 is off, float64 arrays are computed in float32
with one warning. Random keys come from `jax.random.key` or from the older `jax.random.PRNGKey`, of any implementation.
"""

import difflib
import operator
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["all_finite", "check_data", "check_key", "check_range", "common_dtype", "finite", "in_one_dtype", "integer"]
__all__ += ["is_traced", "number", "numbers", "one_of", "real", "typed_key"]


def numbers(name: str, array: Any) -> np.ndarray:
    """Return a NumPy array of real numbers in the native byte order; floats are float32 or float64.

    Raises:
        TypeError: the array does not hold real numbers, or is sparse.
        ValueError: some entries are masked.
    """
    for method in ("toarray", "todense"):  # SciPy's sparse arrays, then JAX's
        if hasattr(array, method):
            kind = type(array).__name__
            raise TypeError(f"{name}: Expected: a dense array. Received: a sparse {kind}; give {name}.{method}().")
    masked = int(np.ma.count_masked(array)) if isinstance(array, np.ma.MaskedArray) else 0
    if masked:
        raise ValueError(
            f"{name}: Expected: no masked entries. Received: {masked} masked entries; fill them, or leave their "
            "samples out."
        )
    try:
        array = np.asarray(array)
    except jax.errors.TracerArrayConversionError:  # this is a TypeError too, but callers treat it differently
        raise
    except (TypeError, ValueError) as error:  # a random key, lists of unequal lengths
        raise TypeError(f"{name}: Expected: real numbers. Received: {type(array).__name__} ({error}).") from error
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "fiub":
        hint = "; take float32" if _is_small_float(array.dtype) else ""
        raise TypeError(f"{name}: Expected: real numbers. Received: dtype {array.dtype}{hint}.")
    if kind == "f" and size not in (4, 8):
        with np.errstate(over="ignore"):
            return array.astype(np.float32 if size < 4 else np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _is_small_float(dtype: Any) -> bool:
    """Return whether a dtype is bfloat16 or another small float, which JAX knows and NumPy does not."""
    return jnp.issubdtype(dtype, jnp.floating)


def finite(name: str, array: Any) -> np.ndarray:
    """Return the array as a NumPy array of finite numbers, converted by the table above.

    Raises:
        TypeError: the array does not hold real numbers, or is traced.
        ValueError: it holds NaN, infinities or masked entries. The message has their number, and for NaN and infinities
            the position of the first.

    Example:
        >>> finite("X", np.arange(3, dtype=">f8")).dtype
        dtype('float64')
    """
    try:
        array = numbers(name, array)
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            f"{name}: Expected: numbers, since this is a host function, which cannot be traced. Received: {array}, a "
            "tracer of jit, vmap or grad."
        ) from error
    if not np.all(np.isfinite(array)):
        bad = int(array.size - np.isfinite(array).sum())
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name}: Expected: finite numbers. Received: {bad} NaN or inf, the first at {first}.")
    return array


def integer(name: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """Return an integer as a Python int.

    Raises:
        ValueError: the value is no integer, or is below `low` or above `high`.

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
    """Return a number as a Python float.

    Raises:
        ValueError: the value is no finite number, or `allowed` returns False for it. The message contains `expected`.

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


def positive_degree(degree: Any) -> int | float:
    """Return a degree of homogeneity, which is a finite number above 0.

    Raises:
        ValueError: it is something else.
    """
    given = None if isinstance(degree, bool) else degree
    found = number("degree", given, "a finite number > 0", lambda v: v > 0)
    return degree if isinstance(degree, int) else found


def one_of(name: str, value: Any, names: Iterable[str], also: str = "") -> str:
    """Return a value that is one of the names.

    Raises:
        ValueError: it is none of them. The message has all names, then `also`, and the name that the value resembles.

    Example:
        >>> one_of("loss", "sqared", ["squared", "logistic"])
        Traceback (most recent call last):
        ValueError: loss: Expected: one of squared, logistic. Received: 'sqared'. Did you mean 'squared'?
    """
    known = list(names)
    if isinstance(value, str) and value in known:
        return value
    word = value.lower() if isinstance(value, str) else ""
    near = [n for n in known if word and n.startswith(word)] or difflib.get_close_matches(word, known, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name}: Expected: one of {', '.join(known)}{also}. Received: {value!r}.{hint}")


def is_traced(value: Any) -> bool:
    """Return whether a value is an array of `jit`, `vmap` or `grad` without numbers that could be looked at.

    Example:
        >>> is_traced(jnp.ones(2)), jax.eval_shape(lambda x: jnp.zeros(1 + is_traced(x)), jnp.ones(2)).shape
        (False, (2,))
    """
    try:
        _ = np.asarray(value) if isinstance(value, jax.Array) else None
    except jax.errors.TracerArrayConversionError:
        return True
    return False


def check_key(key: Any) -> jax.Array:
    """Return a random key of the kind of `jax.random.key`, for a host function.

    Raises:
        TypeError: the key is not a single key, or is traced.

    Example:
        >>> check_key(jax.random.PRNGKey(0))
        Array((), dtype=key<fry>) overlaying:
        [0 0]
    """
    try:
        _ = np.asarray(jax.random.key_data(typed := typed_key(key)))
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            f"key: Expected: a key, since this is a host function, which cannot be traced. Received: {key}, a tracer "
            "of jit, vmap or grad."
        ) from error
    return typed


def typed_key(key: Any) -> jax.Array:
    """Return a key of the kind of `jax.random.key`, from such a key or from an older one; both may be traced.

    An older key does not name its implementation. A key of two numbers is taken as Threefry's. A key of four numbers is
    taken as one of JAX's default implementation if that has four numbers, and otherwise as one of `rbg`.

    Raises:
        TypeError: the key is not a single key.
    """
    array = key if isinstance(key, jax.Array | np.ndarray) else None
    if array is not None and jnp.issubdtype(array.dtype, jax.dtypes.prng_key) and array.shape == ():
        return jnp.asarray(array)
    if array is not None and array.dtype == np.uint32 and array.shape in ((2,), (4,)):
        default = str(jax.config.jax_default_prng_impl)  # pyright: ignore[reportAttributeAccessIssue]
        four = default if default.endswith("rbg") else "rbg"
        return jax.random.wrap_key_data(jnp.asarray(array), impl="threefry2x32" if array.shape == (2,) else four)
    received = type(key).__name__ if array is None else f"shape {array.shape} and dtype {array.dtype}"
    raise TypeError(f"key: Expected: one jax.random.key(seed). Received: {received}.")


def real(name: str, array: Any) -> jax.Array:
    """Return the array as a JAX array of floats, converted by the table above; it may be traced.

    Raises:
        TypeError: the array does not hold real numbers.
        ValueError: some entries are masked.

    Example:
        >>> real("X", np.array([1, 2], np.float16)).dtype
        dtype('float32')
    """
    if not isinstance(array, jax.Array):
        # A copy, since a caller may change an array later; `device_put`, since `jnp.asarray` compiles for every shape.
        array = jax.device_put(np.array(numbers(name, array)))
    dtype = array.dtype
    kind = getattr(dtype, "kind", "key")  # random keys have none
    if kind in "iub":
        return array.astype(jnp.zeros(()).dtype)
    if kind != "f":
        hint = "; take float32" if _is_small_float(dtype) else ""
        raise TypeError(f"{name}: Expected: real numbers. Received: dtype {dtype}{hint}.")
    return array.astype(np.float32) if dtype.itemsize < 4 else array


def check_data(X: Any, Y: Any, *, flat: bool = True, targets: str = "Y") -> None:
    """Check the shapes of inputs and targets.

    Args:
        X: inputs (m, dx), or (m, ...) if `flat` is False.
        Y: targets (m, dy).
        flat: whether X has to be a matrix.
        targets: the name of Y in messages.

    Raises:
        ValueError: X or Y has another shape or is empty. If Y is a vector, the message explains how to convert it.
    """
    fits = X.ndim == 2 and X.size if flat else X.ndim >= 1
    if not fits or Y.ndim != 2 or len(X) != len(Y) or not Y.size:
        hint = " Labels need one-hot rows, datasets.one_hot(Y); scalar targets Y.reshape(m, 1)."
        hint = hint if Y.ndim == 1 and targets == "Y" else ""
        shape = "(m, dx)" if flat else "(m, ...)"
        raise ValueError(
            f"X, {targets}: Expected: shapes {shape} and (m, dy). Received: {X.shape} and {Y.shape}.{hint}"
        )


def all_finite(named: Iterable[tuple[str, Any]]) -> dict[str, np.ndarray]:
    """Apply `finite` to several arrays, each with the name that messages use."""
    return {name: finite(name, array) for name, array in named}


def in_one_dtype(host: Mapping[str, np.ndarray]) -> list[jax.Array]:
    """Return NumPy arrays as JAX arrays of their common dtype.

    Args:
        host: the arrays by name. Squares of entries must not overflow. For the data, which are named X and Y, they must
            not underflow either.

    Raises:
        ValueError: entries are out of range, see `check_range`.
    """
    dtype = common_dtype([*host.values()])
    for name, array in host.items():
        check_range(name, array, dtype, tiny=name in ("X", "Y"))
    # Copies, since a caller may change an array later; `device_put`, since `jnp.asarray` compiles for every new shape.
    return [jax.device_put(np.array(array, dtype)) for array in host.values()]


#: The package, and what may lie between two of its functions on the stack.
_INSIDE = {"globopt_jax", "beartype", "contextlib", "jax", "jaxtyping"}


def common_dtype(arrays: Sequence[Any]) -> Any:
    """Return float64 if any array needs it and x64 is on, else float32; warn if x64 is off and float64 is lost."""
    arrays = [np.asarray(a) for a in arrays]
    # Integers above 2^24 need float64 even beside float32 arrays, since float32 does not hold them.
    wanted = any(
        a.dtype.itemsize > 4 if a.dtype.kind == "f" else a.size and max(-int(a.min()), int(a.max())) > 2**24
        for a in arrays
    )
    if wanted and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        level, frame = 1, sys._getframe()
        while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
            level, frame = level + 1, frame.f_back
        warnings.warn(
            "float64 arrays are computed in float32 because x64 is off; call inside `with jax.enable_x64(True):`.",
            UserWarning,
            stacklevel=level,  # the line that called the package
        )
        return np.dtype(np.float32)
    wide = wanted or not any(a.dtype.kind == "f" for a in arrays)
    return jax.dtypes.canonicalize_dtype(np.float64 if wide else np.float32)


def check_range(name: str, array: np.ndarray, dtype: Any, *, tiny: bool) -> None:
    """Check that squares of products of the data neither overflow nor underflow.

    Raises:
        ValueError: the largest |entry| is above 1e75 (1e12 in float32). With `tiny` also: the largest |entry| is below
            1e-75 (1e-12 in float32) and not 0, or a nonzero |entry| is below 1e-150 (1e-30 in float32).
    """
    wide = dtype == np.float64
    high, least = (1e75, 1e-150) if wide else (1e12, 1e-30)
    low = 1 / high if tiny else 0.0
    size = max(float(np.max(array, initial=0)), -float(np.min(array, initial=0)))  # np.abs would copy the data
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
            f"smaller ones underflow; set them to 0 or scale their rows. Received: {smallest:.3g}."
        )
