"""Run folders: where a long computation keeps its configuration, its checkpoints and its result.

A folder belongs to one configuration. The same configuration resumes there, or reads the finished result;
another one is refused. Every file appears whole or not at all, so that a process killed at any moment leaves
a folder that reads: what it loses is the step in progress.

A checkpoint is one small .npz, not a sharded array tree, so that NumPy alone reads it, here and anywhere.
"""

import hashlib
import json
import os
import pathlib
import platform
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

import filelock
import numpy as np

from globopt_jax import files
from globopt_jax.files import canonical_json, write_arrays, write_bytes, write_json, write_text
from globopt_jax.npz import read_arrays
from globopt_jax.origin import hash_arrays, provenance

__all__ = ["Checkpoint", "FolderInUse", "RunFolder", "canonical_json", "default_folder", "hash_arrays", "provenance"]
__all__ += ["read_arrays", "write_arrays", "write_bytes", "write_json", "write_text"]

FORMAT = 1
"""Written into config.json; raised when the layout of a folder changes."""

_CONFIG, _RESULT, _CHECKPOINT, _LOCK = "config.json", "result.json", "checkpoint.npz", "run.lock"
_META = "__meta__"  # the checkpoint's entry that holds its meta, as JSON


class FolderInUse(RuntimeError):
    """Another process is writing the folder."""


class Checkpoint(NamedTuple):
    """What a run needs to go on: arrays by name, and numbers and words that JSON can say."""

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


class RunFolder:
    """The folder of one run, which it creates at the first write and holds alone until it is closed.

    Opening reads and never writes. `with` locks a folder that holds an unfinished run at once, so that two
    processes do not both resume it; a fresh folder is created, and locked, by the first write. The lock
    goes when the process does, however it ends. On a file system without locks `unlocked` says why there is
    none, and nothing keeps a second process away.

    Args:
        config: the configuration, anything that JSON can say (NumPy numbers and paths included).
        path: the folder; None names it by the configuration's hash, see `default_folder`.

    Raises:
        ValueError: the folder holds a run of another configuration (each differing key is named with both
            values), or something else altogether, or the path is a file.
        FolderInUse: from `with` or from a write, if another process writes the folder.

    Example:
        >>> import tempfile
        >>> root = tempfile.TemporaryDirectory()
        >>> folder = pathlib.Path(root.name) / "first"
        >>> with RunFolder({"lam": 0.1}, folder) as run:
        ...     run.save_checkpoint({"W1": np.ones((2, 3))}, {"step": 7})
        >>> with RunFolder({"lam": 0.1}, folder) as run:
        ...     arrays, meta = run.load_checkpoint()
        ...     run.finish({"objective": 1.5})
        >>> meta, RunFolder({"lam": 0.1}, folder).result
        ({'step': 7}, {'objective': 1.5})
        >>> RunFolder({"lam": 0.2}, folder)
        Traceback (most recent call last):
        ValueError: ...: Expected: the configuration of the run in this folder. Received: another, lam is 0.1 there ...
        >>> root.cleanup()
    """

    def __init__(self, config: Mapping[str, Any], path: str | os.PathLike[str] | None = None):
        self.config: dict[str, Any] = json.loads(files.canonical_json(config))
        self.path = default_folder(config) if path is None else pathlib.Path(path)
        self.unlocked: str | None = None
        """Why a claimed folder is not locked, in the system's words; None where it is."""
        self._lock: IO[bytes] | None = None
        self._claimed = False
        self._inspect()

    @property
    def started(self) -> bool:
        """Whether the folder holds this run already."""
        return (self.path / _CONFIG).exists()

    @property
    def result(self) -> dict[str, Any] | None:
        """What `finish` stored; None while the run is unfinished."""
        path = self.path / _RESULT
        if not path.exists():
            return None
        found = self.read_json(_RESULT)
        if not isinstance(found, dict):
            raise ValueError(f"{path}: Expected: the result of a run. Received: {type(found).__name__}.")
        return found

    def __enter__(self) -> "RunFolder":
        if self.started and not (self.path / _RESULT).exists():
            self.claim()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def claim(self) -> None:
        """Create the folder if it is fresh, and lock it until `close`; every write does so first.

        Raises:
            FolderInUse: if another process, or another `RunFolder`, holds it.
            ValueError: if another run has settled there since this one was opened.
        """
        if self._claimed:
            return
        self._inspect()  # before anything is created beside what is not ours
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock, self.unlocked = _locked(self.path / _LOCK)
        self._claimed = True
        try:
            self._inspect()  # again: only now can nobody come between
            for abandoned in self.path.glob(".*.tmp"):  # of a process that was killed while it wrote
                abandoned.unlink()
            if not self.started:
                files.write_json(self.path / _CONFIG, {"globopt_jax_run": FORMAT, "config": self.config})
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others write; the folder can be claimed again."""
        if self._lock is not None:
            self._lock.close()
        self._lock, self._claimed = None, False

    def write_json(self, name: str, value: object) -> None:
        """Store a value as JSON, atomically; see `files.write_json`."""
        self.claim()
        files.write_json(self.path / name, value)

    def write_text(self, name: str, text: str) -> None:
        """Store a text, atomically."""
        self.claim()
        files.write_text(self.path / name, text)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Store bytes, a picture for instance, atomically."""
        self.claim()
        files.write_bytes(self.path / name, content)

    def write_arrays(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Store named arrays as an .npz, atomically; see `files.write_arrays`."""
        self.claim()
        files.write_arrays(self.path / name, arrays)

    def read_json(self, name: str) -> Any:
        """Read what `write_json` stored."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Read what `write_arrays` stored."""
        return read_arrays(self.path / name)

    def save_checkpoint(self, arrays: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> None:
        """Replace the checkpoint, arrays and meta in one file, so that they never come from different steps.

        Raises:
            ValueError: if an array takes the name of the meta.
        """
        if _META in arrays:
            raise ValueError(
                f"arrays: Expected: any name but {_META!r}, which is the meta's. Received: an array of that name."
            )
        self.write_arrays(_CHECKPOINT, {**arrays, _META: np.array(files.canonical_json(meta or {}))})

    def load_checkpoint(self) -> Checkpoint | None:
        """Return the last checkpoint that was written whole; None if there is none."""
        if not (self.path / _CHECKPOINT).exists():
            return None
        arrays = self.read_arrays(_CHECKPOINT)
        meta = json.loads(str(arrays.pop(_META)))
        return Checkpoint(arrays, meta)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Store the result, which marks the run as finished. Write its other files before it."""
        self.write_json(_RESULT, result)

    def _inspect(self) -> None:
        """Raise unless the folder is fresh or holds this run."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise ValueError(f"{self.path}: Expected: a folder for the run. Received: a file.")
        try:
            stored = self.read_json(_CONFIG)
            known = stored["globopt_jax_run"] == FORMAT and isinstance(stored["config"], dict)
        except (OSError, ValueError, KeyError, TypeError):
            known = False
            stored = {}
        if not known:
            # A process killed between its first lock and its configuration leaves no more than these.
            foreign = [p.name for p in self.path.iterdir() if p.name != _LOCK and not p.match(".*.tmp")]
            if foreign:
                raise ValueError(
                    f"{self.path}: Expected: a new folder, an empty one, or one that holds a run. Received: one with "
                    f"other files: {', '.join(sorted(foreign)[:5])}."
                )
        elif difference := _difference(stored["config"], self.config):
            raise ValueError(
                f"{self.path}: Expected: the configuration of the run in this folder. Received: another, {difference}."
            )


def default_folder(config: Mapping[str, Any], parent: str | os.PathLike[str] = "globopt-runs") -> pathlib.Path:
    """Name a folder by its configuration: the first 12 hex digits of the SHA-256 of its canonical JSON.

    Example:
        >>> default_folder({"lam": 0.1, "seed": 0}).as_posix()
        'globopt-runs/1c6ef0f0c689'
    """
    return pathlib.Path(parent) / hashlib.sha256(files.canonical_json(config).encode()).hexdigest()[:12]


def _locked(path: pathlib.Path) -> tuple[IO[bytes] | None, str | None]:
    """Open and lock a file: the file, or why the file system cannot lock it.

    The system drops the lock with the process: `kill -9` leaves no stale one. Hence no lock that is a file's mere
    existence, not even where there is no other.

    Raises:
        FolderInUse: another process holds the lock.
    """
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
        _ = file.seek(1)  # Windows locks the first byte against readers, too
        holder = file.read().decode(errors="replace").strip() or "another process"
        file.close()
        raise FolderInUse(f"{path.parent}: Expected: a folder that is free. Received: one in use by {holder}.")
    _ = file.truncate(0)
    _ = file.write(f"\nprocess {os.getpid()} on {platform.node()}\n".encode())
    return file, None


def _difference(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Name each key that two configurations do not share, with both values; empty if they are equal."""
    there, here = dict(_leaves(stored)), dict(_leaves(wanted))
    return "; ".join(
        f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    )


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted name and the JSON of each entry."""
    for name, value in config.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value)
