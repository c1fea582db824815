"""Find the files of a data set in a folder, or download them into the cache folder.

The environment variable `GLOBOPT_JAX_DATA` names the cache folder; without it, the folder is in the user's cache. The
cache folder has a folder for each data set.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from globopt_jax.datasets.download import Remote, download, pooch_or_error

__all__ = ["VARIABLE", "Place", "place"]

VARIABLE = "GLOBOPT_JAX_DATA"
"""The environment variable that moves the cache folder."""


class Place(NamedTuple):
    """The folders in which the files of a data set may be, and the address of the missing ones."""

    name: str
    """The name of the data set."""
    folders: tuple[pathlib.Path, ...]
    """The folders in the order of the search; downloads go to the first one."""
    base: str
    """The address of the folder with the files."""
    given: bool
    """Whether the user gave the folder. Then nothing is downloaded."""

    def find(self, name: str) -> pathlib.Path | None:
        """Return the path of a file, or None. A file whose name ends with .gz may also be there unpacked."""
        for folder in self.folders:
            for path in (folder / name, folder / name.removesuffix(".gz")):
                if path.is_file():
                    return path
        return None

    def need(self, remotes: Sequence[Remote], known_as: str = "") -> list[pathlib.Path]:
        """Return the paths of files, after downloading the missing ones.

        Args:
            remotes: the files.
            known_as: the files in words, for messages; empty lists them.

        Raises:
            FileNotFoundError: files are missing in the user's folder or cannot be downloaded. The message has their
                names, their addresses and the folder to put them into.
            ValueError: the server sent another file than the official one.
        """
        paths = {remote: self.find(remote.name) for remote in remotes}
        missing = [remote for remote, path in paths.items() if path is None]
        if missing and self.given:
            either = ", gzipped or not" if all(_is_gzip(remote.name) for remote in missing) else ""
            raise FileNotFoundError(
                f"root: Expected: a folder with {known_as or _list(missing)}{either}. Received: {self.folders[0]}, "
                f"which lacks them. They are at {self._addresses(missing)}"
            )
        for remote in missing:
            try:
                paths[remote] = download(self._address(remote), remote, self.folders[0])
            except ConnectionError as error:
                still = [remote for remote in missing if paths[remote] is None]
                raise FileNotFoundError(
                    f"{self.name}: Expected: {_list(still)} in the folder {self.folders[0]}, or a connection for the "
                    f"download. Received: {error}. Put the missing files into that folder, gzipped or not, or let the "
                    f"environment variable {VARIABLE} name another folder that has them; in Python, the argument "
                    f"mirror names another server. The addresses: {self._addresses(still)}"
                ) from error
        return [path for path in paths.values() if path is not None]

    def _address(self, remote: Remote) -> str:
        return f"{self.base.rstrip('/')}/{remote.name}"

    def _addresses(self, remotes: Sequence[Remote]) -> str:
        return " and ".join(map(self._address, remotes))


def place(name: str, base: str, unpacked: str | None, root: str | os.PathLike[str] | None, mirror: str | None) -> Place:
    """Return the place of a data set's files.

    Args:
        name: the name of the data set.
        base: the address of the official folder.
        unpacked: the name of the folder that the official archive unpacks to, or None.
        root: the user's folder, or None.
        mirror: the address of another folder with the same files, or None.

    Raises:
        ValueError: the mirror is no address, or comes with a root.
        FileNotFoundError: the root is no folder.
        ImportError: the cache folder is wanted, and pooch, which knows where it is, is not installed.
    """
    if mirror is not None:
        if not (isinstance(mirror, str) and mirror.startswith(("http://", "https://"))):
            raise ValueError(
                f"mirror: Expected: an address that begins with http:// or https://. Received: {mirror!r}."
            )
        if root is not None:
            raise ValueError(
                "root, mirror: Expected: at most one of both, since nothing is downloaded with root. Received: both."
            )
    base = base if mirror is None else mirror
    if root is not None:
        folder = pathlib.Path(root)
        if not folder.is_dir():
            raise FileNotFoundError(f"root: Expected: a folder. Received: {folder}, which is no folder.")
        return Place(name, _with(folder, unpacked), base, given=True)
    cache = pathlib.Path(os.environ.get(VARIABLE) or pooch_or_error().os_cache("globopt_jax")).expanduser()
    beside = () if unpacked is None else (cache / unpacked,)
    return Place(name, _with(cache / name, unpacked) + beside, base, given=False)


def _with(folder: pathlib.Path, unpacked: str | None) -> tuple[pathlib.Path, ...]:
    return (folder,) if unpacked is None else (folder, folder / unpacked)


def _list(remotes: Sequence[Remote]) -> str:
    return ", ".join(remote.name for remote in remotes)


def _is_gzip(name: str) -> bool:
    return name.endswith(".gz") and not name.endswith(".tar.gz")
