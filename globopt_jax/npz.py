"""Read an .npz that may be anything: the one reader of this package. It needs NumPy and the standard library alone.

`numpy.load` trusts a file: it allocates what a header asks for, hands out members that are no arrays as bytes, takes
the last of two members of one name, and fails on damaged bytes with the error of whichever decompressor met them.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "model.pt"
    ...     with zipfile.ZipFile(path, "w") as archive:
    ...         archive.writestr("archive/data.pkl", b"")
    ...     read_arrays(path)
    Traceback (most recent call last):
    ValueError: ...model.pt: Expected: an .npz of numbers. Received: something else (a zip with 'archive/data.pkl',
    which is no .npy).
"""

import contextlib
import errno
import math
import os
import zipfile
from collections.abc import Container, Iterator

import numpy as np

__all__ = ["names", "read_arrays"]

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_CHUNK = 1 << 20
_EMPTY = 22  # bytes of an archive without members


def read_arrays(path: str | os.PathLike[str], only: Container[str] | None = None) -> dict[str, np.ndarray]:
    """Read every array of an .npz into memory, or refuse the file.

    No more memory is taken than the file has bytes for, whatever its headers say.

    Args:
        path: the file.
        only: the names to read; other members may be anything. None: all.

    Returns:
        The arrays by their names, writable.

    Raises:
        ValueError: the file is no plain .npz of numbers or text: another format, a zip with members that are no .npy
            (as in PyTorch's and Keras's files), Python objects or records, two members of one name, an array whose
            shape does not fit its bytes, damaged, encrypted or cut off. The message says which.
        OSError: the file cannot be opened or read.
    """
    with _opened(path) as (archive, members):
        return {name: _array(archive, member) for name, member in members.items() if only is None or name in only}


def names(path: str | os.PathLike[str]) -> list[str]:
    """The names of an .npz's arrays, in their order.

    Raises:
        ValueError: no .npz. OSError: the file cannot be opened or read.
    """
    with _opened(path) as (_, members):
        return list(members)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """The archive and its members by name; what the block raises about the content becomes one ValueError."""
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members: dict[str, zipfile.ZipInfo] = {}
                for member in archive.infolist():
                    name = member.filename.removesuffix(".npy")
                    if name == member.filename:
                        raise ValueError(f"a zip with {name!r}, which is no .npy")
                    if member.comment:  # NumPy writes none, and a damaged length of one swallows the next member
                        raise ValueError(f"{member.filename}: a comment of {len(member.comment)} bytes")
                    if name in members:
                        raise ValueError(f"two arrays of the name {name!r}")
                    members[name] = member
                if not members and file.seek(0, os.SEEK_END) > _EMPTY:
                    raise ValueError("a zip whose directory is empty or damaged")
                yield archive, members
        except Exception as error:  # each decompressor and parser has errors of its own for damaged bytes
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise  # the disk's; bz2 has no number for damaged bytes, and EINVAL is a seek to before the file
            what = (str(error) or type(error).__name__).rstrip(".")
            raise ValueError(f"{path}: Expected: an .npz of numbers. Received: something else ({what}).") from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array; its header is held against the bytes that are there before it is believed."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"{member.filename}: version {version} of the .npy format, which is for records")
        shape, fortran, dtype = _HEADERS[version](stream)
        if dtype.kind in "OV" or not dtype.itemsize:  # bfloat16 is stored as records, too
            raise ValueError(f"{member.filename}: dtype {dtype}, neither numbers nor text")
        need, there = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
        if need != there or min(shape, default=0) < 0:
            raise ValueError(f"{member.filename}: {there} bytes for an array of {need}")
        raw = bytearray()  # grows with what is read, since the zip's own sizes may lie as well
        while chunk := stream.read(_CHUNK):
            raw += chunk  # the last read compares the checksum
    if len(raw) != need:
        raise ValueError(f"{member.filename}: {len(raw)} bytes for an array of {need}")
    array = np.frombuffer(raw, dtype)
    if dtype.kind == "b" and np.any(array.view(np.uint8) > 1):
        raise ValueError(f"{member.filename}: bytes other than 0 and 1 for truth values")
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
