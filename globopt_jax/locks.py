"""Locks on files that the system releases when a process ends, even by `kill -9`."""

import os
import pathlib
import platform
from typing import IO

__all__ = ["Held", "take"]


class Held(RuntimeError):
    """Raised where another process, or another part of this one, holds the lock."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder
        """The process that holds the lock, in words."""


def take(path: pathlib.Path) -> tuple[IO[bytes] | None, str | None]:
    """Open and lock a file. Return the file and None, or None and the reason why the file system cannot lock it.

    A lock that consists of a file's existence would outlive a killed process, so there is no such fallback where the
    file system has no locks.

    Raises:
        Held: another process holds the lock.
    """
    import filelock  # imported here: a core installation, which locks nothing, has no filelock

    fresh = not path.exists()
    file = path.open("a+b", buffering=0)
    try:
        mine = filelock.lock_descriptor(file.fileno(), blocking=False)
    except OSError as error:  # some network file systems have no locks
        file.close()
        if fresh:
            path.unlink(missing_ok=True)
        return None, error.strerror or str(error)
    except BaseException:
        file.close()
        raise
    if not mine:
        _ = file.seek(1)  # on Windows the locked first byte cannot be read
        holder = file.read().decode(errors="replace").strip() or "another process"
        file.close()
        raise Held(holder)
    _ = file.truncate(0)
    _ = file.write(f"\nprocess {os.getpid()} on {platform.node()}\n".encode())
    return file, None
