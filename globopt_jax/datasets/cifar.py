"""CIFAR-10 in its binary version: files of records, in a folder or in the official archive. No pickle is read."""

import pathlib
import tarfile

import numpy as np

from globopt_jax.datasets.description import Description
from globopt_jax.datasets.download import Remote
from globopt_jax.datasets.places import Place
from globopt_jax.datasets.source import Images, Source, counted
from globopt_jax.datasets.streams import CHUNK, Stream, opened, up_to, wrong

__all__ = ["CIFAR_10"]

ARCHIVE = Remote("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", 170_052_171)
BATCHES = {"train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "test": ("test_batch.bin",)}
_UNPACKED = "cifar-10-batches-bin"
_COUNTS = {"train": 50_000, "test": 10_000}
_SIDE, _CLASSES = 32, 10
_RECORD = 1 + 3 * _SIDE * _SIDE
_LARGEST = 10_000 * _RECORD  # bytes of a batch
_OTHERS = 1 << 24  # bytes that other members of the archive may have; its readme has 88
_BLOCK = 512


def _read_split(place: Place | None, split: str) -> Images:
    """Return the images of the batches that are there: all from the folder, else from the archive, else some.

    Raises:
        FileNotFoundError: there is no batch of the split, and none is downloaded.
        ValueError: a batch or the archive is damaged.
    """
    assert place is not None
    names = BATCHES[split]
    paths = {name: path for name in names if (path := place.find(name)) is not None}
    archive = place.find(ARCHIVE.name)
    if len(paths) < len(names) and (archive is not None or not paths):
        if archive is None:
            (archive,) = place.need([ARCHIVE], f"{names[0]} or {ARCHIVE.name}" if place.given else "")
        found = _from_archive(archive, names)
    else:
        found = {name: _batch(str(path), _content(path)) for name, path in paths.items()}
    records = np.concatenate(list(found.values())) if len(found) > 1 else next(iter(found.values()))
    # The planes of red, green and blue become the channels of each pixel.
    pixels = records[:, 1:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return Images(pixels, records[:, 0].astype(np.int64), _note([n for n in names if n not in found], records, split))


def _note(missing: list[str], records: np.ndarray, split: str) -> tuple[str, ...]:
    if not missing:
        return counted(len(records), _COUNTS[split], split)
    kind = "training" if split == "train" else "test"
    verb = "is" if len(missing) == 1 else "are"
    return (f"{len(records):,} of the {_COUNTS[split]:,} {kind} images: {_listed(missing)} {verb} missing.",)


def _listed(names: list[str]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]


def _content(path: pathlib.Path) -> bytes:
    size = path.stat().st_size
    if size > _LARGEST:
        raise wrong(str(path), _LARGEST, f"the end of at most {_LARGEST // _RECORD:,} records", f"{size:,} bytes")
    return path.read_bytes()


def _batch(where: str, raw: bytes | bytearray) -> np.ndarray:
    """Return the records (m, 3073) of a batch: a label byte, and 1024 bytes each of red, green and blue."""
    whole = len(raw) - len(raw) % _RECORD
    if len(raw) != whole or not raw:
        raise wrong(where, whole, f"a record of {_RECORD} bytes", f"{len(raw) - whole} bytes")
    records = np.frombuffer(raw, np.uint8).reshape(-1, _RECORD)
    bad = records[:, 0] >= _CLASSES
    if bad.any():
        first = int(np.argmax(bad))
        raise wrong(where, first * _RECORD, "a label from 0 to 9", f"{records[first, 0]}")
    return records


def _from_archive(path: pathlib.Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the batches of an archive by their names, in the order of `names`.

    The archive is read to its end, since the checksum of the compression stands there.
    """
    with opened(path, "a .tar.gz") as file:
        found = _members(path, file.stream, names)
    if not found:
        raise wrong(str(path), 0, f"an archive with {names[0]}", "one without")
    return {name: found[name] for name in names if name in found}


def _members(path: pathlib.Path, stream: Stream, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the batches; positions are those of the unpacked archive.

    `tarfile.open` takes a damaged header in the middle for the end, and then members are missing without a word. So the
    headers are read one by one.
    """
    found: dict[str, np.ndarray] = {}
    begin = 0
    while True:
        where = f"{path}, unpacked"
        block = _exactly(where, stream, begin, _BLOCK)
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if any(block):
                raise wrong(where, begin, "a header of the tar format", str(error)) from error
            return _ended(where, stream, begin + _BLOCK, found)
        begin += _BLOCK
        padded = -(-member.size // _BLOCK) * _BLOCK
        name = pathlib.PurePosixPath(member.name).name
        regular = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
        wanted = regular and name in names
        if not 0 <= member.size <= (_LARGEST if regular else _OTHERS):
            raise wrong(where, begin - _BLOCK, f"members of at most {_LARGEST:,} bytes", f"{name}: {member.size:,}")
        if wanted and name in found:
            raise wrong(where, begin - _BLOCK, "members with different names", f"a second {name}")
        if wanted:
            raw = _exactly(where, stream, begin, padded)
            del raw[member.size :]
            found[name] = _batch(f"{path}, {name}", raw)
        else:
            _skip(where, stream, begin, padded)
        begin += padded


def _ended(where: str, stream: Stream, begin: int, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Read the zeros after the last member up to the end of the stream."""
    while chunk := stream.read(CHUNK):
        if any(chunk):
            raise wrong(where, begin, "zeros after the last member", "other bytes")
        begin += len(chunk)
        if begin > len(BATCHES["train"]) * _LARGEST + 4 * _OTHERS + _LARGEST:
            raise wrong(where, begin, "the end of the archive", "more zeros")
    return found


def _skip(where: str, stream: Stream, begin: int, count: int) -> None:
    while count:
        step = min(count, CHUNK)
        _ = _exactly(where, stream, begin, step)
        begin, count = begin + step, count - step


def _exactly(where: str, stream: Stream, begin: int, count: int) -> bytearray:
    raw = up_to(stream, count)
    if len(raw) < count:
        raise wrong(where, begin + len(raw), f"{count - len(raw):,} more bytes", "the end")
    return raw


CIFAR_10 = Source(
    description=Description(
        name="cifar-10",
        about="Photographs of ten kinds of things, 32 x 32 pixels of 0 to 255 divided by 255, row by row, the red, "
        "green and blue of a pixel side by side; one-hot labels.",
        shape=(50_000, 3072, 10),
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated (A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009)",
    ),
    side=_SIDE,
    channels=3,
    white=255.0,
    counts=_COUNTS,
    read=_read_split,
    base="https://www.cs.toronto.edu/~kriz/",
    unpacked=_UNPACKED,
)
