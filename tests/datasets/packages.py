"""Small data sets in the official formats, as bytes, made without the package."""

import gzip
import io
import struct
import tarfile

import numpy as np
import scipy.io

RNG = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    """The bytes of an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def packed(raw: bytes) -> bytes:
    """The bytes of a gzip file; the same bytes at every call."""
    return gzip.compress(raw, mtime=0)


def records(count: int, seed: int) -> np.ndarray:
    """Records of CIFAR-10 (count, 3073)."""
    rng = np.random.default_rng(seed)
    labels, pixels = rng.integers(0, 10, (count, 1)), rng.integers(0, 256, (count, 3072))
    return np.concatenate([labels, pixels], axis=1).astype(np.uint8)


def tar(members: dict[str, bytes]) -> bytes:
    """The bytes of an archive as CIFAR-10's: a folder, and the files in it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        folder = tarfile.TarInfo("cifar-10-batches-bin")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def mat(X: object, y: np.ndarray, compressed: bool) -> bytes:
    """The bytes of a file in MATLAB's format 5."""
    file = io.BytesIO()
    scipy.io.savemat(file, {"X": X, "y": y}, do_compression=compressed)
    return file.getvalue()


IMAGES, LABELS = RNG.integers(0, 256, (6, 28, 28), np.uint8), np.array([5, 0, 9, 1, 1, 2], np.uint8)
MNIST = {
    "train-images-idx3-ubyte": idx(IMAGES),
    "train-labels-idx1-ubyte": idx(LABELS),
    "t10k-images-idx3-ubyte": idx(IMAGES[:2]),
    "t10k-labels-idx1-ubyte": idx(LABELS[:2]),
}
BATCHES = {f"data_batch_{k}.bin": records(k, k) for k in range(1, 6)}
CIFAR = {name: batch.tobytes() for name, batch in BATCHES.items()} | {"test_batch.bin": records(2, 9).tobytes()}
ARCHIVE = tar({"batches.meta.txt": b"airplane\n", **CIFAR})
STREETS, DIGITS = RNG.integers(0, 256, (32, 32, 3, 6), np.uint8), np.array([[1], [10], [3], [9], [10], [2]], np.uint8)
SVHN = mat(STREETS, DIGITS, compressed=True)
