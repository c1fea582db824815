"""Files that were cut off, changed or given another name: a ValueError with the file, or exactly the bytes as they are.

Each format has its own small reader here, which knows where the bytes are in the undamaged file or follows the format.
"""

import gzip
import math
import re
import struct
import tracemalloc
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from globopt_jax import datasets
from tests.datasets import packages

#: How many files a test damages: every day, and with -m slow.
often = pytest.mark.parametrize("many", [100, pytest.param(1000, marks=pytest.mark.slow)])
FOREIGN = [*packages.MNIST.values(), packages.CIFAR["data_batch_1.bin"], packages.packed(packages.ARCHIVE)]
FOREIGN += [
    packages.packed(packages.MNIST["t10k-labels-idx1-ubyte"]),
    packages.SVHN,
    packages.ARCHIVE,
    b"",
    b"\x1f\x8b",
]
FOREIGN += [
    packages.mat(packages.STREETS, packages.DIGITS, compressed=False),
    b"<!DOCTYPE html>",
    b"MATLAB 7.3 MAT-file",
]


@st.composite
def damaged(draw, original: bytes, headers: tuple[tuple[int, int], ...] = ()):
    """A file that was cut off, changed in a few bits or bytes, grown, or mistaken for another one.

    `headers` are the first and last positions of headers in the middle of the file.
    """
    raw = bytearray(original)
    kind = draw(st.sampled_from(["cut", "flip", "flip", "flips", "byte", "word", "more", "insert", "other"]))
    # Headers are few bytes of a file, so half of the damage is done there.
    spans = ((0, min(300, len(raw) - 1)), *headers)
    places = st.one_of(st.integers(0, len(raw) - 1), st.one_of([st.integers(*span) for span in spans]))
    if kind == "cut":
        del raw[draw(places) :]
    elif kind in ("flip", "flips"):
        for _ in range(1 if kind == "flip" else draw(st.integers(2, 5))):
            raw[draw(places)] ^= 1 << draw(st.integers(0, 7))
    elif kind == "byte":
        raw[draw(places)] = draw(st.integers(0, 255))
    elif kind == "word":
        begin = draw(places)
        raw[begin : begin + 4] = draw(
            st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\1\0"])
        )
    elif kind == "more":
        raw += draw(st.binary(min_size=1, max_size=20))
    elif kind == "insert":
        raw.insert(draw(places), draw(st.integers(0, 255)))
    else:
        raw = bytearray(draw(st.sampled_from(FOREIGN)))
    return bytes(raw)


def outcome(name, folder, path, raw, **options):
    """The loaded set, or None where a ValueError names the file."""
    path.write_bytes(raw)
    try:
        return datasets.load(name, folder, **options)
    except ValueError as error:
        message = str(error)
    assert str(path) in message, message
    assert re.search(r"(byte |y\[)\d+.*: Expected: .* Received: ", message), message
    return None


def read_idx(raw):
    """The array of an IDX file, or None."""
    if raw[:3] != b"\0\0\x08" or len(raw) < 4 or not 1 <= raw[3] <= 32 or len(raw) < 4 + 4 * raw[3]:
        return None
    shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
    entries = raw[4 + 4 * raw[3] :]
    return np.array([*entries], np.uint8).reshape(shape) if entries and len(entries) == math.prod(shape) else None


def check_mnist(folder, part, raw, inner):
    """Load MNIST with one damaged file, whose unpacked bytes are `inner` (None if they cannot be unpacked)."""
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (folder / name).write_bytes(packages.MNIST[name])
    data = outcome("mnist", folder, folder / part, raw)
    arrays = {name: read_idx(packages.MNIST[name] if name != part else inner or b"") for name in packages.MNIST}
    images, labels = arrays["train-images-idx3-ubyte"], arrays["train-labels-idx1-ubyte"]
    if images is None or labels is None:
        assert data is None
        return
    good = labels.ndim == 1 and labels.max() < 10 and images.shape == (len(labels), 28, 28)
    assert (data is not None) == good
    if data is not None:
        np.testing.assert_array_equal(data.X, images.reshape(len(images), 784) / 255)
        np.testing.assert_array_equal(data.labels, labels)


@often
@pytest.mark.parametrize("part", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_damaged_idx(many, part, tmp_path):
    @hypothesis.settings(max_examples=many)
    @hypothesis.given(damaged(packages.MNIST[part]))
    def check(raw):
        inner = raw
        if raw[:2] == b"\x1f\x8b":
            inner = unpacked(raw)
        check_mnist(tmp_path, part, raw, inner)

    check()


def unpacked(raw):
    """The content of a gzip file of one member, or None."""
    stream = zlib.decompressobj(31)
    try:
        content = stream.decompress(raw)
    except zlib.error:
        return None
    return content if stream.eof and not any(stream.unused_data) else None


@often
@pytest.mark.parametrize("part", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_damaged_idx_inside_of_gzip(many, part, tmp_path):
    @hypothesis.settings(max_examples=many)
    @hypothesis.given(damaged(packages.MNIST[part]))
    def check(inner):
        check_mnist(tmp_path, part, packages.packed(inner), inner)

    check()


@often
@pytest.mark.parametrize("part", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_damaged_gzip(many, part, tmp_path):
    """The checksum of gzip lets no other content pass; its header has fields that say nothing."""
    original = packages.packed(packages.MNIST[part])

    @hypothesis.settings(max_examples=many)
    @hypothesis.given(damaged(original))
    def check(raw):
        for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
            (tmp_path / name).write_bytes(packages.MNIST[name])
        data = outcome("mnist", tmp_path, tmp_path / part, raw)
        assert data is not None or raw != original
        if data is not None:
            np.testing.assert_array_equal(data.X, packages.IMAGES.reshape(6, 784) / 255)
            np.testing.assert_array_equal(data.labels, packages.LABELS)

    check()


def check_cifar(data, rows):
    np.testing.assert_array_equal(data.labels, rows[:, 0])
    colours = data.X.reshape(-1, 32, 32, 3)
    np.testing.assert_array_equal(colours.transpose(0, 3, 1, 2).reshape(-1, 3072), rows[:, 1:] / 255)


@often
def test_damaged_batches(many, tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(packages.CIFAR["data_batch_1.bin"])

    @hypothesis.settings(max_examples=many)
    @hypothesis.given(damaged(packages.CIFAR["data_batch_2.bin"]))
    def check(raw):
        data = outcome("cifar-10", tmp_path, tmp_path / "data_batch_2.bin", raw)
        whole, rest = divmod(len(raw), 3073)
        good = whole > 0 and not rest and all(label < 10 for label in raw[::3073])
        assert (data is not None) == good
        if data is not None:
            first = packages.BATCHES["data_batch_1.bin"]
            check_cifar(data, np.concatenate([first, np.array([*raw], np.uint8).reshape(-1, 3073)]))

    check()


#: The headers of the archive's members.
HEADERS = tuple(
    (begin, begin + 511)
    for begin in (packages.ARCHIVE.index(f"cifar-10-batches-bin/{n}".encode()) for n in packages.CIFAR)
)


def in_archive(raw):
    """The training records at their places in an archive."""
    found = []
    for name in packages.BATCHES:
        begin = packages.ARCHIVE.index(packages.CIFAR[name])
        found.append(np.frombuffer(raw[begin : begin + len(packages.CIFAR[name])], np.uint8).reshape(-1, 3073))
    return np.concatenate(found)


@often
@pytest.mark.parametrize("pack", [packages.packed, bytes], ids=["tar in gzip", "tar"])
def test_damaged_archive_inside(many, pack, tmp_path):
    """What was damaged before the packing: only entries that the headers do not protect may differ."""

    @hypothesis.settings(max_examples=many)
    @hypothesis.given(damaged(packages.ARCHIVE, HEADERS))
    def check(inner):
        data = outcome("cifar-10", tmp_path, tmp_path / "cifar-10-binary.tar.gz", pack(inner))
        assert data is not None or inner != packages.ARCHIVE
        if data is not None:
            content = unpacked(inner) if inner[:2] == b"\x1f\x8b" else inner
            check_cifar(data, in_archive(content))
            assert data.description is not None
            assert data.description.notes == ("15 images; the official training set has 50,000.",)

    check()


@often
def test_damaged_archive(many, tmp_path):
    original = packages.packed(packages.ARCHIVE)

    @hypothesis.settings(max_examples=many)
    @hypothesis.given(damaged(original))
    def check(raw):
        data = outcome("cifar-10", tmp_path, tmp_path / "cifar-10-binary.tar.gz", raw)
        assert data is not None or raw != original
        if data is not None:
            check_cifar(data, in_archive(packages.ARCHIVE))

    check()


def check_svhn(data, X, y):
    np.testing.assert_array_equal(data.X.reshape(-1, 32, 32, 3), np.moveaxis(X, 3, 0) / 255)
    np.testing.assert_array_equal(data.labels, y.ravel() % 10)


def compress(raw: bytes, middle: int) -> bytes:
    """A file of MATLAB's format 5 with its variables packed; the second one begins at `middle`."""
    parts = [zlib.compress(raw[128:middle]), zlib.compress(raw[middle:])]
    return raw[:128] + b"".join(struct.pack("<II", 15, len(part)) + part for part in parts)


@often
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("count", [3, 6])
def test_damaged_mat(many, packed, count, tmp_path):
    """Three labels stand in the tag of their element, six stand after it; compressed variables have the same inside."""
    X, y = np.asfortranarray(packages.STREETS[..., :count]), packages.DIGITS[:count]
    original = packages.mat(X, y, compressed=False)
    X_at, y_at = original.index(X.tobytes("F")), original.rindex(y.tobytes())
    middle = X_at + X.size

    @hypothesis.settings(max_examples=many)
    @hypothesis.given(damaged(original, ((128, X_at - 1), (middle, y_at + count - 1), (middle, y_at + count - 1))))
    def check(raw):
        data = outcome("svhn", tmp_path, tmp_path / "train_32x32.mat", compress(raw, middle) if packed else raw)
        assert data is not None or raw != original
        if data is None:
            return
        if raw in FOREIGN:
            check_svhn(data, packages.STREETS, packages.DIGITS)
            return
        entries = np.frombuffer(raw[X_at : X_at + X.size], np.uint8).reshape(X.shape, order="F")
        check_svhn(data, entries, np.frombuffer(raw[y_at : y_at + count], np.uint8))

    check()


@often
def test_damaged_mat_compressed(many, tmp_path):
    @hypothesis.settings(max_examples=many)
    @hypothesis.given(damaged(packages.SVHN))
    def check(raw):
        data = outcome("svhn", tmp_path, tmp_path / "train_32x32.mat", raw)
        assert data is not None or raw != packages.SVHN
        if data is not None:
            check_svhn(data, packages.STREETS, packages.DIGITS)

    check()


# -- promises that no file keeps --------------------------------------------------------------------------


def peak(function):
    """The largest number of bytes that were allocated while the function ran, and its error."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as error:
            function()
        return tracemalloc.get_traced_memory()[1], str(error.value)
    finally:
        tracemalloc.stop()


def test_a_size_of_zero_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(bytes([0, 0, 8, 2, 0, 0, 0, 3, 0, 0, 0, 0]))
    with pytest.raises(
        ValueError, match=r"byte 8: Expected: an IDX file with sizes of at least 1. Received: .*\(3, 0\)"
    ):
        datasets.read_idx(tmp_path / "a")


@pytest.mark.parametrize("pack", [packages.packed, bytes])
def test_a_header_that_promises_too_much_allocates_nothing(pack, tmp_path):
    path = tmp_path / "a"
    for sizes in ((2**30, 2**30), (2**32 - 1,) * 32, (2**31,), (1000, 28, 28)):
        header = bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)
        path.write_bytes(pack(header + bytes(100)))
        most, message = peak(lambda: datasets.read_idx(path))
        assert most < 2**21, sizes
        assert f"byte {len(header) + 100}: Expected: an IDX file with {sizes} entries after the header" in message


def test_bombs_are_not_unpacked(tmp_path):
    """A small file that unpacks to 256 MiB: one byte more than promised is enough to refuse it."""
    zeros = gzip.compress(bytes(2**28), 1)
    for name, header in (("images", packages.idx(packages.IMAGES)), ("sizes", b"\0\0\x08\x03" + b"\0\0\1\0" * 3)):
        (tmp_path / name).write_bytes(gzip.compress(header) + zeros)
        most, message = peak(lambda name=name: datasets.read_idx(tmp_path / name))
        assert most < 2**24 + 2**23, name
        assert "more bytes" in message
    raw = packages.mat(packages.STREETS, packages.DIGITS, compressed=False)
    bomb = zlib.compress(raw[128:] + bytes(2**28), 1)
    (tmp_path / "train_32x32.mat").write_bytes(raw[:128] + struct.pack("<II", 15, len(bomb)) + bomb)
    most, message = peak(lambda: datasets.load("svhn", tmp_path))
    assert most < 2**22
    assert "the end of the zlib stream" in message


@pytest.mark.parametrize("size", [10**6, 2**30, 8**11 - 1])
def test_members_of_an_archive_that_promise_too_much(size, tmp_path):
    raw = bytearray(packages.ARCHIVE)
    begin = raw.index(b"cifar-10-batches-bin/data_batch_5.bin")
    raw[begin + 124 : begin + 136] = b"%011o\0" % size
    raw[begin + 148 : begin + 156] = b" " * 8
    raw[begin + 148 : begin + 156] = b"%06o\0 " % sum(raw[begin : begin + 512])
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(packages.packed(bytes(raw)))
    most, message = peak(lambda: datasets.load("cifar-10", tmp_path))
    assert most < 2**22
    assert "more bytes" in message or "members of at most 30,730,000 bytes" in message


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("value", [0x7FFFFFFF, 0xFFFFFFF8])
def test_sizes_in_a_mat_that_promise_too_much(packed, value, tmp_path):
    """The size of the variable, the number of images and the size of the entries: refused before SciPy allocates."""
    raw = packages.mat(np.asfortranarray(packages.STREETS), packages.DIGITS, compressed=False)
    begin = raw.index(packages.STREETS.tobytes("F"))
    middle = begin + packages.STREETS.size
    for place in (132, begin - 4, raw.index(struct.pack("<4I", 32, 32, 3, 6)) + 12):
        changed = raw[:place] + struct.pack("<I", value) + raw[place + 4 :]
        (tmp_path / "train_32x32.mat").write_bytes(compress(changed, middle) if packed else changed)
        most, message = peak(lambda: datasets.load("svhn", tmp_path))
        assert most < 2**21
        assert "byte 128: Expected: " in message
        assert "SciPy" not in message
    changed = raw[:middle] + struct.pack("<I", 13) + raw[middle + 4 :]
    (tmp_path / "train_32x32.mat").write_bytes(compress(changed, middle) if packed else changed)
    with pytest.raises(ValueError, match=r"Expected: a (matrix|variable of 1 byte or more).*type 1[35]"):
        datasets.load("svhn", tmp_path)


def test_names_that_come_twice_and_headers_that_are_gone(tmp_path):
    archive, begin = tmp_path / "cifar-10-binary.tar.gz", HEADERS[2][0]
    double = packages.tar({"data_batch_1.bin": packages.CIFAR["data_batch_1.bin"]}).rstrip(b"\0")
    double += bytes(-len(double) % 512) + packages.ARCHIVE[512:]
    for raw, message in (
        (packages.ARCHIVE[:begin] + bytes(512) + packages.ARCHIVE[begin + 512 :], "zeros after the last member"),
        (
            packages.ARCHIVE[:begin] + b"\1" + packages.ARCHIVE[begin + 1 :],
            f"byte {begin}: Expected: a header of the tar",
        ),
        (double, "members with different names. Received: a second data_batch_1.bin"),
        (packages.tar({"readme": b"text"}), "an archive with data_batch_1.bin. Received: one without"),
    ):
        archive.write_bytes(packages.packed(raw))
        with pytest.raises(ValueError, match=message):
            datasets.load("cifar-10", tmp_path)
    raw = packages.mat(packages.STREETS, packages.DIGITS, compressed=True)
    (tmp_path / "train_32x32.mat").write_bytes(raw + raw[128:])
    with pytest.raises(
        ValueError, match=f"byte {len(raw)}: Expected: variables with different names. Received: a second X"
    ):
        datasets.load("svhn", tmp_path)


def test_files_with_arrays_of_other_sets(tmp_path):
    path = tmp_path / "train_32x32.mat"
    for X, y, message in (
        (packages.STREETS[:31], packages.DIGITS, r"X of the shape \(32, 32, 3, m\). Received: \(31, 32, 3, 6\)"),
        (packages.STREETS, packages.DIGITS[:5], r"y of the shape \(6, 1\), a label for each image. Received: \(5, 1\)"),
        (packages.STREETS, packages.DIGITS.T, r"y of the shape \(6, 1\)"),
        (packages.STREETS.astype(float), packages.DIGITS, r"bytes of the shape \(32, 32, 3, 6\) for X"),
        (packages.STREETS, packages.DIGITS.astype(complex), "an array of real numbers"),
        (packages.STREETS, packages.DIGITS + 1.5, r"y\[0\]: Expected: a label from 1 to 10. Received: 2.5"),
        (packages.STREETS, packages.DIGITS - 1, r"y\[0\]: Expected: a label from 1 to 10. Received: 0"),
        (packages.STREETS, packages.DIGITS * np.nan, r"y\[0\]: Expected: a label from 1 to 10. Received: nan"),
        ({"field": 1.0}, packages.DIGITS, "an array of real numbers"),
    ):
        for compressed in (False, True):
            path.write_bytes(packages.mat(X, y, compressed))
            with pytest.raises(ValueError, match=message):
                datasets.load("svhn", tmp_path)
    path.write_bytes(packages.mat(packages.STREETS, packages.DIGITS.astype(float), compressed=True))
    check_svhn(datasets.load("svhn", tmp_path), packages.STREETS, packages.DIGITS)


def test_mnist_of_another_size_is_refused(tmp_path):
    for name, array in (("images-idx3", packages.IMAGES[:, :27]), ("labels-idx1", packages.LABELS)):
        (tmp_path / f"train-{name}-ubyte").write_bytes(packages.idx(array))
    with pytest.raises(ValueError, match=r"train-images.*byte 3: Expected: images \(m, 28, 28\)"):
        datasets.load("mnist", tmp_path)
