"""Read .npz files that may be damaged or may be something else. The module needs NumPy and the standard library alone.

`numpy.load` trusts a file. It allocates as much memory as a header asks for, returns members that are no arrays as
bytes, takes the last of two members of the same name, and raises different errors for damaged bytes, depending on the
decompressor. `read_arrays` refuses all such files with a ValueError that says why. This package reads every .npz by it.

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

    The arrays take no more memory than the file has bytes for, whatever its headers say.

    Args:
        path: the file.
        only: the names of the arrays to read; the content of the others is not looked at. None reads all.

    Returns:
        The arrays by their names, writable.

    Raises:
        ValueError: the file is no plain .npz of numbers or text. It has another format, members that are no .npy (as
            PyTorch's and Keras's files have), Python objects or records, two members of one name, or an array whose
            shape does not fit its bytes; or it is damaged, encrypted or cut off. The message says which.
        OSError: the file cannot be opened or read.
    """
    with _opened(path) as (archive, members):
        return {name: _array(archive, member) for name, member in members.items() if only is None or name in only}


def names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the arrays of an .npz, in the order of the file.

    Args:
        path: the file.

    Raises:
        ValueError: the file is no .npz, see `read_arrays`.
        OSError: the file cannot be opened or read.
    """
    with _opened(path) as (_, members):
        return list(members)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open the archive, with its members by name, and turn every error about its content into one ValueError."""
    try:
        opened = open(path, "rb")  # noqa: SIM115, closed by the next statement
    except (FileNotFoundError, IsADirectoryError) as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else "a folder"
        raise type(error)(f"{os.fspath(path)}: Expected: an .npz of numbers. Received: {what}.") from error
    with opened as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members: dict[str, zipfile.ZipInfo] = {}
                for member in archive.infolist():
                    name = member.filename.removesuffix(".npy")
                    if name == member.filename:
                        raise ValueError(f"a zip with {name!r}, which is no .npy")
                    if member.comment:  # NumPy writes no comments, and a damaged comment length hides the next member
                        raise ValueError(f"{member.filename}: a comment of {len(member.comment)} bytes")
                    if name in members:
                        raise ValueError(f"two arrays of the name {name!r}")
                    members[name] = member
                if not members and file.seek(0, os.SEEK_END) > _EMPTY:
                    raise ValueError("a zip whose directory is empty or damaged")
                yield archive, members
        except Exception as error:  # decompressors and parsers raise many kinds of errors for damaged bytes
            # Errors of the disk pass. For damaged bytes bz2 raises an OSError without a number, and a seek to before
            # the file is EINVAL.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            what = (str(error) or type(error).__name__).rstrip(".")
            raise ValueError(f"{path}: Expected: an .npz of numbers. Received: something else ({what}).") from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Read one array, after comparing its header with the number of bytes that the member has."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"{member.filename}: version {version} of the .npy format, which only records need")
        shape, fortran, dtype = _HEADERS[version](stream)
        if dtype.kind in "OV" or not dtype.itemsize:  # NumPy stores bfloat16 as records, too
            raise ValueError(f"{member.filename}: dtype {dtype}, neither numbers nor text")
        need, there = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
        if need != there or min(shape, default=0) < 0:
            raise ValueError(f"{member.filename}: {there} bytes for an array of {need}")
        raw = bytearray()  # grows with the bytes that were read, since the sizes in the zip may be wrong, too
        while chunk := stream.read(_CHUNK):
            raw += chunk  # zipfile compares the checksum at the last read
    if len(raw) != need:
        raise ValueError(f"{member.filename}: {len(raw)} bytes for an array of {need}")
    array = np.frombuffer(raw, dtype)
    if dtype.kind == "b" and np.any(array.view(np.uint8) > 1):
        raise ValueError(f"{member.filename}: bytes other than 0 and 1 in an array of truth values")
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
