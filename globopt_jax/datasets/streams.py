"""Read files that may be packed, cut off or damaged: every error of their content is a ValueError with the position."""

import contextlib
import gzip
import os
import zlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

__all__ = ["CHUNK", "Opened", "Stream", "opened", "up_to", "wrong"]

CHUNK = 1 << 20
"""The number of bytes that are read at a time, so that memory grows with the bytes that come, not with a promise."""
_GZIP = b"\x1f\x8b"


@runtime_checkable
class Stream(Protocol):
    """Something that bytes are read from."""

    def read(self, count: int, /) -> bytes:
        """Return up to `count` bytes, and none at the end."""
        ...


class Opened(NamedTuple):
    """An opened file."""

    stream: Stream
    """The bytes, unpacked."""
    size: int
    """The number of bytes of the file, packed or not."""
    packed: bool
    """Whether the file is gzipped."""


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], kind: str) -> Iterator[Opened]:
    """Open a file; its first bytes say whether it is gzipped, not its name.

    Args:
        path: the file.
        kind: the format, for messages.

    Raises:
        ValueError: the gzip stream is damaged or cut off. The checksum at its end is compared when the end is read.
        OSError: the file cannot be opened or read.
    """
    with open(path, "rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
        size = file.seek(0, os.SEEK_END)
        _ = file.seek(0)
        try:
            if packed:
                with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                    yield Opened(stream, size, packed)
            else:
                yield Opened(file, size, packed)
        except EOFError as error:
            raise wrong(path, size, "more bytes of a gzip stream", "the end of the file") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            received = f"a damaged gzip stream at that byte or before ({str(error).rstrip('.')})"
            raise wrong(path, file.tell(), kind, received) from error


def up_to(stream: Stream, count: int) -> bytearray:
    """Return `count` bytes, or those up to the end of the stream."""
    raw = bytearray()
    while len(raw) < count and (chunk := stream.read(min(CHUNK, count - len(raw)))):
        raw += chunk
    return raw


def wrong(where: str | os.PathLike[str], offset: int, expected: str, received: str) -> ValueError:
    """Return the error for a file that differs from its format at a byte."""
    return ValueError(f"{os.fspath(where)}: byte {offset}: Expected: {expected}. Received: {received}.")
