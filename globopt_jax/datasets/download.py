"""Download a file with pooch: a cut connection is continued, and only the official file gets its name.

The bytes go to a partial file with a hidden name. pooch compares the checksum and then renames the file, so that a file
with the official name is always whole. A partial file stays when a connection is cut, and the next call continues it.
"""

import contextlib
import logging
import os
import pathlib
import secrets
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

__all__ = ["Remote", "download", "pooch_or_error"]

_CHUNK = 1 << 16
_SECONDS = (10, 60)  # to connect, and between two packets


class Remote(NamedTuple):
    """A file on the official server."""

    name: str
    """The name of the file."""
    md5: str
    """The official MD5 sum, in hexadecimal digits."""
    size: int
    """The number of bytes."""


class _OtherFile(ValueError):
    """Raised where the server sends another file than the official one."""


def pooch_or_error() -> Any:
    """Return the module pooch.

    Raises:
        ImportError: pooch is not installed; the message names the extra that installs it.
    """
    try:
        import pooch  # imported here, since only a download needs it
    except ImportError as error:
        raise ImportError("The download needs pooch, which is missing: pip install 'globopt_jax[app]'") from error
    return pooch


def download(url: str, remote: Remote, folder: pathlib.Path) -> pathlib.Path:
    """Download a file into a folder, and return its path.

    Two processes may ask for the same file at once: the second one waits for the first one, and takes the file of it.

    Args:
        url: the address of the file.
        remote: the official file.
        folder: the folder, which is created if it is not there.

    Raises:
        ConnectionError: there is no connection, the server refuses, or the connection was cut twice at the same byte.
        ValueError: the server sent another file than the official one; nothing of it was kept.
        ImportError: pooch is not installed.
    """
    pooch = pooch_or_error()
    folder.mkdir(parents=True, exist_ok=True)
    with _partial(folder, remote.name) as partial, _quiet(pooch):
        try:  # pooch returns at once if another process has brought the file meanwhile
            found = pooch.retrieve(
                url, f"md5:{remote.md5}", fname=remote.name, path=folder, downloader=_Resumable(partial, remote)
            )
        except ValueError as error:
            partial.unlink(missing_ok=True)
            received = error if isinstance(error, _OtherFile) else "a file of that size with another sum"
            raise ValueError(
                f"{url}: Expected: the official {remote.name} of {remote.size:,} bytes with the MD5 sum {remote.md5}. "
                f"Received: {received}. Nothing was kept."
            ) from error
        return pathlib.Path(found)


class _Resumable:
    """A downloader in pooch's sense, which continues a partial file as long as each connection brings new bytes."""

    def __init__(self, partial: pathlib.Path, remote: Remote):
        self.partial, self.remote = partial, remote

    def __call__(self, url: str, output_file: str | os.PathLike[str], pooch: Any) -> None:
        """Download the file to `output_file`; pooch compares the checksum afterwards."""
        del pooch
        size = self.remote.size
        with _progress(self.remote) as show:
            most = self._size()
            while most < size:
                failure = self._connection(url, show)
                have = self._size()
                if have <= most and have < size:  # so no server can keep this loop busy
                    raise ConnectionError(f"{failure or 'a connection that ended'} after {have:,} of {size:,} bytes")
                most = have
        os.replace(self.partial, output_file)

    def _size(self) -> int:
        """Return the number of bytes that are there."""
        have = self.partial.stat().st_size if self.partial.exists() else 0
        if have > self.remote.size:
            self.partial.unlink()
            return 0
        return have

    def _connection(self, url: str, show: Callable[[int], None]) -> str | None:
        """Add the bytes of one connection to the partial file, and return how the connection failed, if it did."""
        import requests  # pooch depends on it
        import urllib3

        begin = self._size()
        # Without compression on the way the bytes are those of the file, and their number is known.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begin}-"} if begin else {})
        try:
            with requests.get(url, headers=headers, stream=True, timeout=_SECONDS) as response:
                if response.status_code >= 400:
                    if response.status_code == 416:  # the partial file is longer than the server's file
                        self.partial.unlink(missing_ok=True)
                    raise ConnectionError(f"{url}: HTTP status {response.status_code} {response.reason}")
                more = response.status_code == 206
                if more and not response.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
                    self.partial.unlink(missing_ok=True)
                    raise ConnectionError("a server that sends other bytes than those asked for")
                self._append(response, "ab" if more else "wb", show)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            return _reason(error)
        return None

    def _append(self, response: Any, mode: str, show: Callable[[int], None]) -> None:
        with self.partial.open(mode) as file:
            length = response.headers.get("Content-Length", "")
            total = file.tell() + int(length) if length.isdigit() else self.remote.size
            if total != self.remote.size:
                raise _OtherFile(f"a file of {total:,} bytes")
            for chunk in response.raw.stream(_CHUNK, decode_content=False):
                if file.tell() + len(chunk) > self.remote.size:
                    raise _OtherFile(f"a file of more than {self.remote.size:,} bytes")
                _ = file.write(chunk)
                show(file.tell())
            file.flush()
            os.fsync(file.fileno())


def _reason(error: Exception) -> str:
    """Return the innermost reason of a failed connection, which says more in fewer words than the outer errors."""
    inner: Any = error
    while isinstance(getattr(inner, "reason", None), Exception) or (
        getattr(inner, "args", ()) and isinstance(inner.args[0], Exception)
    ):
        inner = inner.reason if isinstance(getattr(inner, "reason", None), Exception) else inner.args[0]
    return f"a failed connection ({type(inner).__name__}: {inner})"


@contextlib.contextmanager
def _partial(folder: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """Give the path of the partial file to one process at a time."""
    import filelock  # comes with the extra that brings pooch

    lock = filelock.FileLock(folder / f".{name}.lock")
    try:
        _ = lock.acquire()
    except (NotImplementedError, OSError):  # no locks on this file system: a partial file for this process alone
        path = folder / f".{name}.{secrets.token_hex(4)}.part"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
        return
    try:
        yield folder / f".{name}.part"
    finally:
        lock.release()


@contextlib.contextmanager
def _quiet(pooch: Any) -> Iterator[None]:
    """Keep pooch from writing a line for each download: the progress bar says it on terminals, and pipes stay clean."""

    def important(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    # A filter of this call alone, unlike a level, can be taken back while other threads download.
    pooch.get_logger().addFilter(important)
    try:
        yield
    finally:
        pooch.get_logger().removeFilter(important)


@contextlib.contextmanager
def _progress(remote: Remote) -> Iterator[Callable[[int], None]]:
    """Show the progress on stderr if that is a terminal, and give the function that takes the number of bytes."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich import console, progress  # comes with the extra that brings pooch

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True)) as bar:
        task = bar.add_task(remote.name, total=remote.size)
        yield lambda done: bar.update(task, completed=done)
