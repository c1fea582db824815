"""Run folders, in which a long computation keeps its configuration, its checkpoints and its result.

A folder belongs to one configuration. The same configuration resumes the run or reads the finished result; another
configuration is refused. Every file appears whole or not at all. A process that is killed at any moment therefore
leaves a folder that can be read, and loses only the step in progress.

A checkpoint is one small .npz and not a sharded array tree, so that NumPy alone can read it on any machine.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

import numpy as np

from globopt_jax import files, locks
from globopt_jax.files import canonical_json, write_arrays, write_bytes, write_json, write_text
from globopt_jax.npz import read_arrays
from globopt_jax.origin import hash_arrays, provenance

__all__ = ["Checkpoint", "FolderInUse", "RunFolder", "canonical_json", "default_folder", "hash_arrays", "provenance"]
__all__ += ["read_arrays", "write_arrays", "write_bytes", "write_json", "write_text"]

FORMAT = 2
"""The version of the layout of a run folder, stored in config.json."""

_CONFIG, _RESULT, _CHECKPOINT, _LOCK = "config.json", "result.json", "checkpoint.npz", "run.lock"
_META = "__meta__"  # the entry of the checkpoint that holds its meta as JSON


class FolderInUse(RuntimeError):
    """Raised where another process, or another `RunFolder` of this one, is writing the folder."""


class Checkpoint(NamedTuple):
    """The state from which an interrupted run goes on."""

    arrays: dict[str, np.ndarray]
    """Arrays by their names."""
    meta: dict[str, Any]
    """Other values that JSON can represent, such as step counts."""


class RunFolder:
    """The folder of one run. The first write creates and locks it, and the lock lasts until `close`.

    The constructor reads and never writes. A `with` block locks a folder with an unfinished run at its beginning, so
    that two processes cannot both resume the run. The system releases the lock when the process ends, in whichever way.
    On a file system without locks `unlocked` says so, and nothing keeps a second process from writing.

    Args:
        config: the configuration, of values that JSON can represent (NumPy numbers and paths included).
        path: the folder. None is a folder named by the configuration's hash, see `default_folder`.

    Raises:
        ValueError: the folder holds a run of another configuration (the message names each differing key with both
            values), or other files, or the path is a file.
        FolderInUse: raised by `with` and by writes, if another process writes the folder.

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
        """The system's reason why the folder could not be locked; None if it could, or if it was not tried yet."""
        self._lock: IO[bytes] | None = None
        self._claimed = False
        self._inspect()

    @property
    def started(self) -> bool:
        """Whether the folder already holds this run, finished or not."""
        return (self.path / _CONFIG).exists()

    @property
    def result(self) -> dict[str, Any] | None:
        """The result that `finish` stored; None while the run is unfinished."""
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
        """Create the folder if it does not exist, and lock it until `close`. Every write calls this method first.

        Raises:
            FolderInUse: another process, or another `RunFolder`, holds the lock.
            ValueError: another run has started in the folder since this object was made.
        """
        if self._claimed:
            return
        self._inspect()  # so that no lock file is created in a folder that holds other files
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock, self.unlocked = locks.take(self.path / _LOCK)
        except locks.Held as error:
            raise FolderInUse(
                f"{self.path}: Expected: a folder that is free. Received: one in use by {error.holder}."
            ) from None
        self._claimed = True
        try:
            self._inspect()  # again, since another process may have started a run before the lock was taken
            for abandoned in self.path.glob(".*.tmp"):  # left by a process that was killed while it wrote
                abandoned.unlink()
            if not self.started:
                files.write_json(self.path / _CONFIG, {"globopt_jax_run": FORMAT, "config": self.config})
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the lock, so that others can write. The folder can be claimed again."""
        if self._lock is not None:
            self._lock.close()
        self._lock, self._claimed = None, False

    def write_json(self, name: str, value: object) -> None:
        """Write a value as JSON, atomically; see `files.write_json`."""
        self.claim()
        files.write_json(self.path / name, value)

    def write_text(self, name: str, text: str) -> None:
        """Write a text, atomically."""
        self.claim()
        files.write_text(self.path / name, text)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write bytes, such as a picture, atomically."""
        self.claim()
        files.write_bytes(self.path / name, content)

    def write_arrays(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Write named arrays as an .npz, atomically; see `files.write_arrays`."""
        self.claim()
        files.write_arrays(self.path / name, arrays)

    def read_json(self, name: str) -> Any:
        """Return the value that `write_json` wrote, as plain JSON types.

        Raises:
            ValueError: the file is no JSON.
            OSError: the file cannot be read.
        """
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:  # also bytes that are no UTF-8
            raise ValueError(f"{path}: Expected: JSON. Received: a damaged file ({error}).") from error

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return the arrays that `write_arrays` wrote."""
        return read_arrays(self.path / name)

    def save_checkpoint(self, arrays: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> None:
        """Replace the checkpoint. Arrays and meta share one file, so that they always come from the same step.

        Args:
            arrays: arrays by their names.
            meta: other values that JSON can represent; None is an empty mapping.

        Raises:
            ValueError: an array has the name under which the file stores the meta.
        """
        if _META in arrays:
            raise ValueError(
                f"arrays: Expected: any name but {_META!r}, which is reserved. Received: an array of that name."
            )
        self.write_arrays(_CHECKPOINT, {**arrays, _META: np.array(files.canonical_json(meta or {}))})

    def load_checkpoint(self) -> Checkpoint | None:
        """Return the last complete checkpoint, or None if there is none."""
        if not (self.path / _CHECKPOINT).exists():
            return None
        arrays = self.read_arrays(_CHECKPOINT)
        meta = json.loads(str(arrays.pop(_META)))
        return Checkpoint(arrays, meta)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Store the result, which marks the run as finished. Write all other files of the run before."""
        self.write_json(_RESULT, result)

    def _inspect(self) -> None:
        """Raise ValueError unless the folder is missing, empty, or holds this run."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise ValueError(f"{self.path}: Expected: a folder for the run. Received: a file.")
        try:
            stored = self.read_json(_CONFIG)
            known = stored["globopt_jax_run"] == FORMAT and isinstance(stored["config"], dict)
        except (OSError, ValueError, KeyError, TypeError):
            known, stored = False, {}
        if not known:
            # A process that was killed before it wrote its configuration leaves only a lock and partial files.
            foreign = [p.name for p in self.path.iterdir() if p.name != _LOCK and not p.match(".*.tmp")]
            if "globopt_jax_run" in stored:
                raise ValueError(
                    f"{self.path}: Expected: a run of this version of the package. Received: a run of another one, by "
                    f"{_CONFIG}."
                )
            if foreign:
                raise ValueError(
                    f"{self.path}: Expected: a new folder, an empty one, or one that holds a run. Received: one with "
                    f"other files: {', '.join(sorted(foreign)[:5])}."
                )
        elif difference := difference_of(stored["config"], self.config):
            raise ValueError(
                f"{self.path}: Expected: the configuration of the run in this folder. Received: another, {difference}."
            )


def default_folder(config: Mapping[str, Any], parent: str | os.PathLike[str] = "globopt-runs") -> pathlib.Path:
    """Return the folder of a configuration, named by the first 12 hex digits of the SHA-256 of its `canonical_json`.

    Args:
        config: the configuration, of values that JSON can represent.
        parent: the folder that holds the run folders.

    Example:
        >>> default_folder({"lam": 0.1, "seed": 0}).as_posix()
        'globopt-runs/1c6ef0f0c689'
    """
    return pathlib.Path(parent) / hashlib.sha256(files.canonical_json(config).encode()).hexdigest()[:12]


def difference_of(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Return each key in which two configurations differ, with both values; an empty string if they are equal."""
    there, here = dict(_leaves(stored)), dict(_leaves(wanted))
    return "; ".join(
        f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    )


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted name and the JSON of each entry of a nested configuration."""
    for name, value in config.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value)
