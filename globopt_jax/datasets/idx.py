"""Files of the IDX format: MNIST, Fashion-MNIST, and every set of the same layout in a folder of the user."""

import math
import os

import numpy as np

from globopt_jax.datasets.description import Description
from globopt_jax.datasets.download import Remote
from globopt_jax.datasets.places import Place
from globopt_jax.datasets.source import Images, Source, counted
from globopt_jax.datasets.streams import Opened, opened, up_to, wrong

__all__ = ["FASHION_MNIST", "MNIST", "read_idx"]

_SIDE, _CLASSES = 28, 10
_DIMENSIONS = 32
_COUNTS = {"train": 60_000, "test": 10_000}
#: The images and the labels of each split, with their official MD5 sums.
MNIST_FILES = {
    "train": (
        Remote("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422),
        Remote("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", 28_881),
    ),
    "test": (
        Remote("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", 1_648_877),
        Remote("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", 4_542),
    ),
}
FASHION_FILES = {
    "train": (
        Remote("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26_421_880),
        Remote("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", 29_515),
    ),
    "test": (
        Remote("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", 4_422_102),
        Remote("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", 5_148),
    ),
}


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the array of an IDX file of bytes, gzipped or not.

    The file holds the bytes 0, 0, 8, one byte with the number of dimensions, their sizes as big-endian integers of 32
    bits, and then the entries. The first bytes say whether the file is gzipped, not its name. The array takes no more
    memory than the file has bytes for, whatever its header says.

    Args:
        path: the file.

    Returns:
        An array of uint8.

    Raises:
        ValueError: the file is no IDX file of bytes, is cut off or damaged, or has more bytes than its header says. The
            message has the file and the position.
        OSError: the file cannot be opened or read.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "labels"
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]))
        ...     read_idx(path)
        array([5, 0, 4], dtype=uint8)
    """
    with opened(path, "an IDX file") as file:
        return _array(f"{os.fspath(path)}{', unpacked' * file.packed}", file)


def _array(where: str, file: Opened) -> np.ndarray:
    """Return the array; positions are those of the unpacked file."""
    head = up_to(file.stream, 4)
    if len(head) < 4 or head[:3] != b"\0\0\x08":
        raise wrong(where, 0, "an IDX file of bytes, which begins with 0, 0, 8", f"{bytes(head)!r}")
    if not 1 <= head[3] <= _DIMENSIONS:
        raise wrong(where, 3, f"1 to {_DIMENSIONS} dimensions", f"{head[3]}")
    sizes = up_to(file.stream, 4 * head[3])
    begin = 4 + len(sizes)
    if len(sizes) < 4 * head[3]:
        raise wrong(where, begin, f"an IDX file with the sizes of {head[3]} dimensions", "its end")
    shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
    count = math.prod(shape)
    if not count:
        raise wrong(where, 4 + 4 * shape.index(0), "an IDX file with sizes of at least 1", f"sizes {shape}")
    raw = up_to(file.stream, count + 1)
    if len(raw) != count:
        received = "more bytes" if len(raw) > count else f"{len(raw):,} bytes"
        expected = f"an IDX file with {shape} entries after the header"
        raise wrong(where, begin + min(len(raw), count), expected, received)
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _read_split(place: Place | None, split: str, files: dict[str, tuple[Remote, Remote]]) -> Images:
    """Return the images and labels of a split.

    Raises:
        FileNotFoundError: a file is missing and is not downloaded.
        ValueError: a file is no IDX file, or holds other shapes or labels than the layout of MNIST has.
    """
    assert place is not None
    image_path, label_path = place.need(files[split])
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.ndim != 3 or images.shape[1:] != (_SIDE, _SIDE):
        raise wrong(image_path, 3, f"images (m, {_SIDE}, {_SIDE})", f"an array {images.shape}")
    if labels.ndim != 1:
        raise wrong(label_path, 3, "labels (m,)", f"an array {labels.shape}")
    if len(images) != len(labels):
        raise wrong(label_path, 4, f"{len(images):,} labels, one for each image of {image_path}", f"{len(labels):,}")
    if labels.max() >= _CLASSES:
        first = int(np.argmax(labels >= _CLASSES))
        raise wrong(label_path, 8 + first, "labels from 0 to 9", f"{labels[first]}")
    return Images(images[..., None], labels.astype(np.int64), counted(len(labels), _COUNTS[split], split))


MNIST = Source(
    description=Description(
        name="mnist",
        about="Handwritten digits, 28 x 28 gray pixels of 0 to 255 divided by 255, row by row; one-hot labels.",
        shape=(60_000, 784, 10),
        source="https://ossci-datasets.s3.amazonaws.com/mnist/",
        licence="CC BY-SA 3.0 (Y. LeCun, C. Cortes and C. Burges)",
    ),
    side=_SIDE,
    channels=1,
    white=255.0,
    counts=_COUNTS,
    read=lambda place, split: _read_split(place, split, MNIST_FILES),
    base="https://ossci-datasets.s3.amazonaws.com/mnist/",
)
FASHION_MNIST = Source(
    description=Description(
        name="fashion-mnist",
        about="Pictures of clothes, 28 x 28 gray pixels of 0 to 255 divided by 255, row by row; one-hot labels.",
        shape=(60_000, 784, 10),
        source="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        licence="MIT (H. Xiao, K. Rasul and R. Vollgraf, Zalando SE)",
    ),
    side=_SIDE,
    channels=1,
    white=255.0,
    counts=_COUNTS,
    read=lambda place, split: _read_split(place, split, FASHION_FILES),
    base="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
