"""One SQLite file that keeps the finished cells of a sweep, whatever happens to the process.

A cell is written in one transaction, so that after `kill -9` or a power cut it is there as a whole or not at all. The
file belongs to the settings of one sweep (data, training, package version); its axes may grow. The process that runs
the sweep is the only writer: it holds a lock beside the file, and others are told who writes. Reading needs no lock.
"""

import contextlib
import csv
import io
import json
import os
import pathlib
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from globopt_jax import files, locks, origin, runs
from globopt_jax.sweeps.plan import AXES, Row, column

if TYPE_CHECKING:
    import xarray

__all__ = ["FORMAT", "Store", "StoreInUse", "dataset"]

#: The version of the layout of the file.
FORMAT = 1
#: "gojx" as a number, which SQLite keeps in the header of the file.
_APPLICATION = 0x676F6A78
#: The quantities that are measured at each stage: the type of their columns, their units, and their meaning.
VARIABLES = {
    "J": ("REAL", "loss", "half the squared distance from the targets to the tangent space"),
    "rank": ("INTEGER", "directions", "the numerical rank of the Jacobian"),
    "loss": ("REAL", "loss", "the loss, summed over the training samples"),
    "accuracy": ("REAL", "share", "the share of training samples that are classified correctly"),
    "test_loss": ("REAL", "loss", "the loss, summed over the test samples"),
    "test_accuracy": ("REAL", "share", "the share of test samples that are classified correctly"),
    "sure": ("REAL", "0 or 1", "1 where tangent_value was sure of J; elsewhere J is from tangent_projection"),
}
#: The meaning of the coordinates.
MEANINGS = {
    "depth": "hidden layers",
    "width": "units of each hidden layer",
    "subnetworks": "parallel subnetworks, whose outputs are added",
    "penalty": "penalty: lP is lam times the sum of |w|^P over all weights",
    "lam": "strength of the penalty",
    "rate": "learning rate",
    "seed": "seed of the initial weights and of the orders of samples",
    "stage": "when the network was measured: before training, after an epoch, after training",
}
_KINDS = {"penalty": "TEXT", "lam": "REAL", "rate": "REAL"}


def columns(identity: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of the table of cells, with their types, given the settings of a sweep."""
    return {
        **{name: f"{_KINDS.get(name, 'INTEGER')} NOT NULL" for name in AXES},
        **{column(name, stage): kind for name, (kind, _, _) in VARIABLES.items() for stage in identity["stages"]},
        "seconds": "REAL",
    }


class StoreInUse(RuntimeError):
    """Raised where another process, or another `Store` of this one, writes the file."""


class Store:
    """The finished cells of a sweep in one SQLite file.

    The constructor reads and never writes. `claim` makes the file and takes the lock, which lasts until `close`; a
    `with` block closes the store at its end.

    Args:
        path: the file; it may not exist yet.

    Raises:
        ValueError: the file is no store, or a store of another version of the package.
        OSError: the file cannot be read.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with Store(folder.name + "/cells.sqlite") as store:
        ...     store.claim({"data": "ab12", "stages": ["initial", "trained"]})
        ...     cell = dict(zip(AXES, (1, 8, 1, "none", 0.0, 0.01, 0), strict=True))
        ...     store.write([cell | {"loss_trained": 2.5}])
        >>> Store(folder.name + "/cells.sqlite").finished()
        [(1, 8, 1, 'none', 0.0, 0.01, 0)]
        >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        self.unlocked: str | None = None
        """The system's reason why the file could not be locked; None if it could, or if it was not tried yet."""
        self._lock: Any = None
        self._connection: sqlite3.Connection | None = None
        if self.path.exists():
            _ = self.identity

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def identity(self) -> dict[str, Any] | None:
        """The settings to which the cells belong; None if nothing is stored yet."""
        with self._reading() as connection:
            return None if connection is None else _identity(self.path, connection)

    def finished(self) -> list[tuple[Any, ...]]:
        """Return depth, width, subnetworks, penalty, lam, rate and seed of all finished cells."""
        return [tuple(row[name] for name in AXES) for row in self.rows()]

    def rows(self) -> list[Row]:
        """Return all finished cells, sorted by their coordinates.

        Raises:
            ValueError: the file was edited: the table lacks a column, or an entry is of another type.
            OSError: the file cannot be read.
        """
        with self._reading() as connection:
            identity = None if connection is None else _identity(self.path, connection)
            if connection is None or identity is None:
                return []
            _check_whole(self.path, connection)
            found = connection.execute(f"SELECT * FROM cells ORDER BY {', '.join(AXES)}")
            names = [column[0] for column in found.description]
            rows = [dict(zip(names, row, strict=True)) for row in found]
        for name, kind in columns(identity).items():
            if name not in names:
                raise ValueError(f"{self.path}: Expected: cells with {name}. Received: {', '.join(names)}.")
            wrong = [row[name] for row in rows if not _fits(row[name], kind)]
            if wrong:
                raise ValueError(f"{self.path}: Expected: {name} of the type {kind}. Received: {wrong[0]!r}.")
        return rows

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Take the lock, and create the file if there is none.

        Args:
            identity: the settings of the sweep, of values that JSON can represent; "stages" are the stages' names.

        Raises:
            StoreInUse: another process, or another `Store` of this one, holds the lock.
            ValueError: the file holds cells of other settings; the message names each difference.
            OSError: the file cannot be written.
        """
        if self._connection is not None:
            return
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"{self.path}: Expected: a file in a folder that exists. Received: {self.path.parent}, which is no "
                "folder."
            )
        with _errors(self.path):
            try:
                # Beside the file itself, so that all links to it have one lock.
                file = self.path.resolve()
                self._lock, self.unlocked = locks.take(file.with_name(file.name + ".lock"))
            except locks.Held as error:
                raise StoreInUse(
                    f"{self.path}: Expected: a store that is free. Received: one in use by {error}."
                ) from None
            try:
                self._begin(json.loads(files.canonical_json(identity)))
            except BaseException:
                self.close()
                raise

    def write(self, rows: Sequence[Row]) -> None:
        """Store finished cells in one transaction. A cell that is there already keeps its numbers.

        Raises:
            ValueError: `claim` was not called.
            OSError: the file cannot be written, for example since the disk is full; earlier cells are safe.
        """
        if self._connection is None:
            raise ValueError(f"{self.path}: Expected: a store that this process has claimed. Received: one it has not.")
        names = list(columns(self.identity or {}))
        marks = ", ".join("?" * len(names))
        with _errors(self.path), _transaction(self._connection) as connection:
            _ = connection.executemany(
                f"INSERT OR IGNORE INTO cells ({', '.join(names)}) VALUES ({marks})",
                [[_plain(row.get(name)) for name in names] for row in rows],
            )

    def close(self) -> None:
        """Release the file and its lock."""
        if self._connection is not None:
            self._connection.close()
        if self._lock is not None:
            self._lock.close()
        self._connection = self._lock = None

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return all finished cells as CSV, with a row for each cell, and write it to a file if a path is given.

        Raises:
            FileNotFoundError: there is no store at this path.
        """
        self._check_there()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = list(columns(self.identity or {"stages": []}))
        _ = writer.writerow(names)
        _ = writer.writerows([["" if row[name] is None else row[name] for name in names] for row in self.rows()])
        if path is not None:
            files.write_text(path, text.getvalue())
        return text.getvalue()

    def to_xarray(self) -> "xarray.Dataset":
        """Return all finished cells as a Dataset with the dimensions depth, width, seed and stage, as from `sweep`.

        Other axes are dimensions if the store has several values of them. A value of an axis appears with its first
        finished cell. Missing cells are NaN, or -1 for the rank.

        Raises:
            FileNotFoundError: there is no store at this path.
        """
        self._check_there()
        rows = self.rows()
        axes = {name: tuple(sorted({row[name] for row in rows})) for name in AXES}
        scalars = {name for name in AXES if name not in ("depth", "width", "seed") and len(axes[name]) == 1}
        return dataset(rows, axes, scalars, self.identity or {"stages": []})

    def _check_there(self) -> None:
        if not self.path.exists():
            raise FileNotFoundError(f"path: Expected: a store of a sweep. Received: {self.path}, where there is none.")

    def _begin(self, identity: dict[str, Any]) -> None:
        """Open the file for writing, create its tables, and compare its settings."""
        # The whole path, since SQLite has a meaning of its own for names such as ":memory:".
        connection = sqlite3.connect(self.path.resolve(), isolation_level=None, timeout=10)
        self._connection = connection
        stored = _identity(self.path, connection)
        if stored is not None:
            _check_whole(self.path, connection)
        if stored is None:
            with _transaction(connection):
                _ = connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                _ = connection.execute(f"PRAGMA user_version = {FORMAT}")
                _ = connection.execute("CREATE TABLE sweep (identity TEXT NOT NULL, provenance TEXT NOT NULL)")
                typed = ", ".join(f"{name} {kind}" for name, kind in columns(identity).items())
                _ = connection.execute(f"CREATE TABLE cells ({typed}, PRIMARY KEY ({', '.join(AXES)}))")
                values = files.canonical_json(identity), files.canonical_json(origin.provenance())
                _ = connection.execute("INSERT INTO sweep VALUES (?, ?)", values)
        elif difference := runs.difference_of(stored, identity):
            raise ValueError(
                f"{self.path}: Expected: the settings of the sweep in this store. Received: others, {difference}. "
                "A sweep with other settings needs a file of its own."
            )

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """Open the file for reading; None if there is none. A writer that was killed leaves a journal to roll back."""
        if self._connection is not None or not self.path.exists():
            with _errors(self.path):
                yield self._connection
            return
        if not self.path.is_file():
            raise ValueError(f"{self.path}: Expected: a store of a sweep. Received: a folder.")
        with _errors(self.path):
            address = f"{self.path.resolve().as_uri()}?mode=rw"
            with contextlib.closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=10)) as connection:
                yield connection


def dataset(
    rows: Sequence[Row], axes: Mapping[str, Sequence[Any]], scalars: Any, identity: Mapping[str, Any]
) -> "xarray.Dataset":
    """Return cells as an xarray Dataset.

    Args:
        rows: the cells; others than those on the axes are left out.
        axes: the values of each axis.
        scalars: the axes with one value that become coordinates without a dimension.
        identity: the settings, which become attributes.

    Returns:
        A Dataset whose dimensions are the axes, in the order of `plan.AXES`, and "stage" (initial, trained). Its
        variables are those that were measured. Missing cells are NaN, or -1 for the rank.
    """
    import xarray  # imported here, since the array functions of the package do not need it

    place = {name: {value: i for i, value in enumerate(axes[name])} for name in AXES}
    inside = [row for row in rows if all(row[name] in place[name] for name in AXES)]
    where = tuple(np.array([place[name][row[name]] for row in inside], int) for name in AXES)
    sizes = tuple(len(axes[name]) for name in AXES)
    keep = tuple(slice(None) if name not in scalars else 0 for name in AXES)
    dims = tuple(name for name in AXES if name not in scalars)

    def filled(values: list[Any], kind: str) -> np.ndarray:
        missing, dtype = (-1, np.int64) if kind == "INTEGER" else (np.nan, np.float64)
        found = np.full(sizes, missing, dtype)
        found[where] = [missing if value is None else value for value in values]
        return found[keep]

    variables: dict[str, Any] = {}
    for name, (kind, units, words) in VARIABLES.items():
        stages = [[row.get(column(name, stage)) for row in inside] for stage in identity["stages"]]
        if any(value is not None for values in stages for value in values):
            array = np.stack([filled(values, kind) for values in stages], axis=-1)
            variables[name] = (*dims, "stage"), array, {"long_name": words, "units": units}
    seconds = filled([row["seconds"] for row in inside], "REAL")
    variables["seconds"] = dims, seconds, {"long_name": "share of the time that the process worked", "units": "s"}
    coordinates = {name: (name, np.array(axes[name])) if name in dims else axes[name][0] for name in AXES}
    found = xarray.Dataset(variables, {**coordinates, "stage": list(identity["stages"])})
    for name, words in MEANINGS.items():
        found[name].attrs["long_name"] = words
    settings = {n: v if isinstance(v, str | int) else files.canonical_json(v) for n, v in identity.items()}
    return found.assign_attrs(settings)


def _identity(path: pathlib.Path, connection: sqlite3.Connection) -> dict[str, Any] | None:
    """Return the settings in a store; None if the file is empty, as after a kill before the first transaction."""
    if not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
        return None
    (application,), (version,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    if application != _APPLICATION:
        raise ValueError(f"{path}: Expected: a store of a sweep. Received: an SQLite file of another application.")
    if version != FORMAT:
        raise ValueError(
            f"{path}: Expected: a store of format {FORMAT}. Received: format {version}, of another version."
        )
    try:
        ((text,),) = connection.execute("SELECT identity FROM sweep").fetchall()
        found = json.loads(text)
        if isinstance(found, dict) and _are_stages(found["stages"]):
            return found
    except (sqlite3.OperationalError, KeyError, TypeError, ValueError):  # no such table, several rows, no JSON
        pass
    raise ValueError(f"{path}: Expected: a store of a sweep. Received: one without settings.")


def _check_whole(path: pathlib.Path, connection: sqlite3.Connection) -> None:
    """Check that the table of cells is there and agrees with its index, which a file that was cut may not."""
    named = connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'cells'")
    if not named.fetchone()[0]:
        raise ValueError(f"{path}: Expected: a store of a sweep. Received: one without the table of cells.")
    ((found,), *_) = connection.execute("PRAGMA integrity_check(1)").fetchall()
    if found != "ok":
        raise ValueError(f"{path}: Expected: a store as it was written. Received: a damaged file ({found}).")


def _are_stages(found: Any) -> bool:
    """Whether these are the names of stages, which become names of columns."""
    words = isinstance(found, list) and all(isinstance(s, str) and re.fullmatch(r"\w+( \d+)?", s) for s in found)
    return words and len(set(found)) == len(found)


def _fits(value: Any, kind: str) -> bool:
    """Whether a value that SQLite returned has the type of its column; SQLite itself takes any type."""
    name, *required = kind.split(" ", 1)
    types = {"INTEGER": int, "REAL": (int, float), "TEXT": str}[name]
    return isinstance(value, types) or (value is None and not required)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Run statements as a whole or not at all."""
    _ = connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        _ = connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back by itself, after a full disk for example
            _ = connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _errors(path: pathlib.Path) -> Iterator[None]:
    """Turn SQLite's errors into errors that name the file: ValueError for foreign files, OSError for the system's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OSError(
            f"{path}: the store cannot be read or written ({error}). Finished cells in it are safe."
        ) from error
    except sqlite3.DatabaseError as error:
        raise ValueError(
            f"{path}: Expected: a store of a sweep. Received: a file that SQLite refuses ({error})."
        ) from error


def _plain(value: Any) -> Any:
    """Return a number as a type that SQLite stores; NaN becomes NULL, as it does in SQLite itself."""
    return value.item() if isinstance(value, np.generic | np.ndarray) else value
