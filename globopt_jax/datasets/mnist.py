"""The training images of MNIST, from two IDX files of the official format, gzipped or not."""

import gzip
import pathlib
import zlib

import numpy as np

from globopt_jax.datasets.arrays import Dataset, one_hot
from globopt_jax.datasets.description import Description

DESCRIPTION = Description(
    name="mnist",
    about="Handwritten digits, 28 x 28 gray pixels of 0 to 255 divided by 255, row by row; one-hot labels.",
    shape=(60_000, 784, 10),
    source="https://ossci-datasets.s3.amazonaws.com/mnist/",
    licence="CC BY-SA 3.0 (Y. LeCun, C. Cortes and C. Burges)",
)
#: The training files with the MD5 sums that downloads must have.
FILES = {
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
}


def load(root: pathlib.Path | None = None) -> Dataset:
    """Return the 60,000 training images in float64.

    Args:
        root: the folder that holds the files. None downloads them once into the user's cache folder.

    Raises:
        FileNotFoundError: `root` lacks a file.
        ValueError: a file is no IDX file, or holds arrays of other shapes than images and labels have.
        ImportError: pooch, which downloads the files, is not installed; the message names the extra that installs it.
    """
    images, labels = (read_idx(_file(name, root)) for name in FILES)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise ValueError(
            f"root: Expected: images (m, h, w) and labels (m,) in the files {', '.join(FILES)}. Received: "
            f"{images.shape} and {labels.shape}."
        )
    numbers = labels.astype(np.int64)
    return Dataset(X=images.reshape(len(images), -1) / 255.0, Y=one_hot(numbers, 10), labels=numbers)


def read_idx(path: pathlib.Path) -> np.ndarray:
    """Return the array of an IDX file of bytes.

    The file holds the bytes 0, 0, 8, one byte with the number of dimensions, their sizes as big-endian int32, and then
    the entries.

    Args:
        path: the file; with the ending .gz it is decompressed.

    Raises:
        ValueError: the file is no IDX file of bytes, or is cut off.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: Expected: an IDX file. Received: {error}.") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: Expected: an IDX file of bytes. Received: a file that begins with {raw[:4]!r}.")
    begin = 4 + 4 * raw[3]
    shape = tuple(int(n) for n in np.frombuffer(raw[4:begin], ">i4")) if len(raw) >= begin else (-1,)
    if len(raw) - begin != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path}: Expected: {shape} entries after the header. Received: {len(raw) - begin} bytes.")
    return np.frombuffer(raw, np.uint8, offset=begin).reshape(shape)


def _file(name: str, root: pathlib.Path | None) -> pathlib.Path:
    """Return the path of the file in the folder, gzipped or not; without a folder, download the file to the cache."""
    if root is not None:
        for path in (root / name, root / name.removesuffix(".gz")):
            if path.is_file():
                return path
        raise FileNotFoundError(f"root: Expected: a folder with {name}, gzipped or not. Received: {root}.")
    try:
        import pooch  # imported here, since only a download needs it
    except ImportError as error:
        raise ImportError("The download needs pooch, which is missing: pip install 'globopt_jax[app]'") from error
    found = pooch.retrieve(DESCRIPTION.source + name, FILES[name], fname=name, path=pooch.os_cache("globopt_jax"))
    return pathlib.Path(found)
