"""SVHN's cropped digits, in MATLAB's format 5.

SciPy reads the arrays. It trusts the sizes in a file, and a damaged file makes it allocate gigabytes or raise errors of
many kinds, so that `_check` compares all sizes with the file before.
"""

import math
import os
import pathlib
import struct
import warnings
import zlib
from typing import BinaryIO, NamedTuple

import numpy as np

from globopt_jax.datasets.description import Description
from globopt_jax.datasets.download import Remote
from globopt_jax.datasets.places import Place
from globopt_jax.datasets.source import Images, Source, counted
from globopt_jax.datasets.streams import Stream, up_to, wrong

__all__ = ["SVHN"]

FILES = {
    "train": Remote("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373", 182_040_794),
    "test": Remote("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3", 64_275_384),
}
_COUNTS = {"train": 73_257, "test": 26_032}
_SIDE, _CLASSES = 32, 10
_HEADER = 128
_CHUNK = 1 << 16
_INT8, _UINT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 2, 5, 6, 14, 15  # types of elements
_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # bytes of an entry of each numeric type
_UINT8_CLASS, _NUMERIC_CLASSES = 9, range(6, 16)
_COMPLEX, _LOGICAL = 0x0800, 0x0200


def _read_split(place: Place | None, split: str) -> Images:
    """Return the images and labels of a split.

    Raises:
        FileNotFoundError: the file is missing and is not downloaded.
        ValueError: the file is damaged, or holds other arrays than SVHN's.
    """
    assert place is not None
    (path,) = place.need([FILES[split]])
    X, y = _arrays(path)
    right = np.isin(y.ravel(), np.arange(1, _CLASSES + 1))
    if not right.all():
        first = int(np.argmin(right))
        raise ValueError(f"{path}: y[{first}]: Expected: a label from 1 to 10. Received: {y.ravel()[first]}.")
    labels = y.ravel().astype(np.int64) % _CLASSES  # the digit 0 has the label 10
    return Images(X.transpose(3, 0, 1, 2), labels, counted(len(labels), _COUNTS[split], split))


def _arrays(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Return X (32, 32, 3, m) and y (m, 1)."""
    import scipy.io  # imported here: only this data set needs it

    with path.open("rb") as file:
        found = _check(path, file)
    (X_at, X_shape), (y_at, y_shape) = found["X"], found["y"]
    if X_shape[:3] != (_SIDE, _SIDE, 3) or len(X_shape) != 4 or not X_shape[3]:
        raise wrong(path, X_at, f"X of the shape ({_SIDE}, {_SIDE}, 3, m)", f"{X_shape}")
    if y_shape != (X_shape[3], 1):
        raise wrong(path, y_at, f"y of the shape ({X_shape[3]}, 1), a label for each image", f"{y_shape}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", scipy.io.matlab.MatReadWarning)
            arrays = scipy.io.loadmat(path, variable_names=["X", "y"], appendmat=False)
        X, y = np.asarray(arrays["X"]), np.asarray(arrays["y"])
    except Exception as error:  # SciPy raises many kinds of errors for damaged bytes
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise  # the machine's errors are not the file's
        raise wrong(path, _HEADER, "arrays that SciPy can read", f"{type(error).__name__}: {error}") from error
    if X.dtype != np.uint8 or X.shape != X_shape or y.shape != y_shape or y.dtype.kind not in "iuf":
        raise wrong(path, _HEADER, "bytes X and numbers y", f"{X.dtype} {X.shape} and {y.dtype} {y.shape}")
    return X, y


class _Section:
    """A part of a file, as a stream that ends with it."""

    def __init__(self, file: BinaryIO, count: int):
        self.file, self.left = file, count

    def read(self, count: int, /) -> bytes:
        """Return up to `count` bytes."""
        chunk = self.file.read(min(count, self.left))
        self.left -= len(chunk)
        return chunk


class _Inflated:
    """The unpacked bytes of a section."""

    def __init__(self, section: _Section):
        self.section, self.unpack = section, zlib.decompressobj()

    def read(self, count: int, /) -> bytes:
        """Return up to `count` bytes, and none after the end of the compressed bytes."""
        while count and not self.unpack.eof:
            packed = self.unpack.unconsumed_tail or self.section.read(_CHUNK)
            chunk = self.unpack.decompress(packed, count)
            if chunk or not packed:
                return chunk
        return b""


class _Variable(NamedTuple):
    """The header of a variable, and the number of bytes of its entries."""

    name: str
    shape: tuple[int, ...]


class _Damaged(Exception):
    """Raised with the expectation and with what was there; the caller knows the position in the file."""


def _check(path: pathlib.Path, file: BinaryIO) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Return position and shape of X and y, after comparing every size in the file with the bytes that are there.

    Raises:
        ValueError: the file is not in format 5, lacks X or y, or has sizes that do not fit its bytes.
    """
    size = file.seek(0, os.SEEK_END)
    _ = file.seek(0)
    header = file.read(_HEADER)
    order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
    # A zero among the first four bytes means format 4 to SciPy.
    if order is None or 0 in header[:4] or struct.unpack(f"{order}H", header[124:126]) != (0x0100,):
        hint = " (a file of MATLAB 7.3 is HDF5; save it with -v7)" if b"MATLAB 7.3" in header else ""
        received = f"{len(header)} bytes that begin with {header[:20]!r}{hint}"
        raise wrong(path, 0, "the header of MATLAB's format 5", received)
    found: dict[str, tuple[int, tuple[int, ...]]] = {}
    position = _HEADER
    while position < size:
        tag = file.read(8)
        kind, count = struct.unpack(f"{order}II", tag) if len(tag) == 8 else (0, 0)
        if kind not in (_MATRIX, _COMPRESSED) or not 0 < count <= size - position - 8:
            there = max(size - position - 8, 0)
            received = f"type {kind} with {count:,} bytes, where {there:,} bytes are left"
            raise wrong(path, position, "a variable of 1 byte or more (type 14 or 15)", received)
        section = _Section(file, count)
        try:
            variable = _variable(section, count, order) if kind == _MATRIX else _compressed(section, order)
        except (_Damaged, zlib.error) as error:
            expected, received = error.args if isinstance(error, _Damaged) else ("a zlib stream", f"damage ({error})")
            raise wrong(path, position, f"{expected} in the variable at that byte", received) from error
        if variable.name in found:
            raise wrong(path, position, "variables with different names", f"a second {variable.name}")
        found[variable.name] = position, variable.shape
        position += 8 + count
        _ = file.seek(position)
    for name in ("X", "y"):
        if name not in found:
            raise wrong(path, size, "the variables X and y", f"the end, after {', '.join(found) or 'none'}")
    return found


def _compressed(section: _Section, order: str) -> _Variable:
    """Check a compressed variable; its checksum is compared at the end."""
    stream = _Inflated(section)
    kind, count = struct.unpack(f"{order}II", _exactly(stream, 8))
    if kind != _MATRIX:
        raise _Damaged("a matrix (type 14)", f"type {kind}")
    variable = _variable(stream, count, order)
    if stream.read(1) or not stream.unpack.eof or stream.unpack.unused_data or section.left:
        raise _Damaged("the end of the zlib stream after the entries", "more bytes, or none of its checksum")
    return variable


def _variable(stream: Stream, count: int, order: str) -> _Variable:
    """Check a variable of `count` bytes: flags, sizes, name, and entries, which are read over."""
    kind, raw, used = _element(stream, order, 8)
    if kind != _UINT32 or len(raw) != 8:
        raise _Damaged("flags", f"type {kind} with {len(raw)} bytes")
    flags = struct.unpack(f"{order}II", raw)[0]
    if flags & 0xFF not in _NUMERIC_CLASSES or flags & (_COMPLEX | _LOGICAL):
        raise _Damaged("an array of real numbers", f"an array of class {flags & 0xFF} with flags {flags:#x}")
    kind, raw, more = _element(stream, order, 4 * 32)
    used += more
    if kind != _INT32 or len(raw) % 4 or len(raw) < 8:
        raise _Damaged("the sizes of at least 2 dimensions", f"type {kind} with {len(raw)} bytes")
    shape = struct.unpack(f"{order}{len(raw) // 4}i", raw)
    kind, raw, more = _element(stream, order, 64)
    used += more
    name = raw.decode("latin1")
    if kind != _INT8 or not name:
        raise _Damaged("a name", f"type {kind} with {len(raw)} bytes")
    kind, entries, more, small = _tag(stream, order)
    used += more
    need = math.prod(max(side, 0) for side in shape) * _WIDTHS.get(kind, 0)
    right = kind in _WIDTHS and (name != "X" or (kind == _UINT8 and flags & 0xFF == _UINT8_CLASS))
    left = count - used  # the entries, unless they are in the tag, and up to 7 bytes of padding
    outside = entries if small is None else 0
    if not right or entries != need or min(shape) < 0 or not 0 <= left - outside < 8:
        wanted = "bytes" if name == "X" else "numbers"
        received = f"type {kind} with {entries:,} bytes, in a variable of {count:,} bytes"
        raise _Damaged(f"{wanted} of the shape {shape} for {name}", received)
    while left:
        left -= len(_exactly(stream, min(left, _CHUNK)))
    return _Variable(name, shape)


def _tag(stream: Stream, order: str) -> tuple[int, int, int, bytes | None]:
    """Return the type of an element, its number of bytes, those read so far, and the bytes if they are in the tag."""
    raw = _exactly(stream, 8)
    kind, count = struct.unpack(f"{order}II", raw)
    if kind >> 16:  # a small element: the bytes stand in the tag
        kind, count = kind & 0xFFFF, kind >> 16
        if count > 4:
            raise _Damaged("a small element of at most 4 bytes", f"{count}")
        return kind, count, 8, raw[4 : 4 + count]
    return kind, count, 8, None


def _element(stream: Stream, order: str, most: int) -> tuple[int, bytes, int]:
    """Return the type of an element, its bytes, and the number of bytes read, with the padding to multiples of 8."""
    kind, count, used, raw = _tag(stream, order)
    if raw is not None:
        return kind, raw, used
    if count > most:
        raise _Damaged(f"an element of at most {most} bytes", f"type {kind} with {count:,} bytes")
    padded = -(-count // 8) * 8
    return kind, _exactly(stream, padded)[:count], used + padded


def _exactly(stream: Stream, count: int) -> bytes:
    raw = up_to(stream, count)
    if len(raw) < count:
        raise _Damaged(f"{count - len(raw):,} more bytes", "the end")
    return bytes(raw)


SVHN = Source(
    description=Description(
        name="svhn",
        about="House numbers in street views, cropped around a digit, 32 x 32 pixels of 0 to 255 divided by 255, row "
        "by row, the red, green and blue of a pixel side by side; one-hot labels.",
        shape=(73_257, 3072, 10),
        source="http://ufldl.stanford.edu/housenumbers/",
        licence="non-commercial use only (Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu and A. Y. Ng, 2011)",
    ),
    side=_SIDE,
    channels=3,
    white=255.0,
    counts=_COUNTS,
    read=_read_split,
    base="http://ufldl.stanford.edu/housenumbers/",
)
