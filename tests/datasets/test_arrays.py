"""Data sets: what `load` returns, and what a user's data must be."""

import gzip
import pathlib
import sys

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from globopt_jax import datasets

X, Y = np.ones((3, 2)), np.eye(3)


def test_the_digits():
    data = datasets.load("digits")
    assert data.X.shape == (1797, 64)
    assert data.Y.shape == (1797, 10)
    assert data.X.dtype == data.Y.dtype == np.float64
    assert (data.X.min(), data.X.max()) == (0, 1)
    assert data.labels is not None
    np.testing.assert_array_equal(data.Y.argmax(axis=1), data.labels)
    np.testing.assert_array_equal(data.Y.sum(axis=1), 1)


def test_a_description_is_true():
    assert [datasets.describe(name).name for name in datasets.names()] == list(datasets.names())
    data = datasets.load("digits")
    assert (*data.X.shape, data.Y.shape[1]) == datasets.describe("digits").shape


@pytest.fixture(params=["", ".gz"])
def idx(request, tmp_path):
    """Six images of 28 x 28 in MNIST's format, packed or not: a folder, the images and the labels."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (6, 28, 28), np.uint8), np.array([5, 0, 9, 1, 1, 2], np.uint8)
    pack = gzip.compress if request.param else bytes
    for name, array in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        (tmp_path / (name + request.param)).write_bytes(pack(header + array.tobytes()))
    return tmp_path, images, labels


def test_mnist_in_its_official_format(idx):
    root, images, labels = idx
    data = datasets.load("mnist", root)
    np.testing.assert_array_equal(data.X, images.reshape(6, 784) / 255)
    np.testing.assert_array_equal(data.labels, labels)
    assert data.Y.shape == (6, 10)
    small = datasets.shrink(data.X, 24, 8)
    wanted = (images[:, 2:26, 2:26] / 255).reshape(6, 8, 3, 8, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(small, wanted.reshape(6, 64), atol=1e-15)


def test_files_that_are_not_mnist_are_named(idx, tmp_path):
    root, *_ = idx
    path = next(root.glob("train-images*"))
    whole = path.read_bytes()
    for broken, message in ((whole[:-9], "Expected: "), (b"PK\x03\x04" + whole[4:], "Expected: an IDX file")):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=f"train-images.*{message}"):
            datasets.load("mnist", root)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="root: Expected: a folder with train-images-idx3-ubyte.gz"):
        datasets.load("mnist", root)


def test_areas_of_parts_of_pixels():
    """28 pixels on 12: 2 1/3 each; a constant image stays one, and the mean stays."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3, 32 * 32))
    small = datasets.shrink(X, 28, 12)
    assert small.shape == (3, 144)
    np.testing.assert_allclose(small.mean(axis=1), X.reshape(3, 32, 32)[:, 2:30, 2:30].mean(axis=(1, 2)))
    np.testing.assert_allclose(datasets.shrink(np.ones((1, 25)), 5, 3), 1)
    first = X.reshape(3, 32, 32)[:, 2:5, 2:5]
    part = np.array([1, 1, 1 / 3]) * 3 / 7
    np.testing.assert_allclose(small[:, 0], part @ first @ part)


@pytest.mark.parametrize(
    ("X", "crop", "size", "message"),
    [
        (np.ones((2, 5)), 2, 1, r"X: Expected: square images row by row, \(m, h w\). Received: \(2, 5\)"),
        (np.ones((2, 9)), 4, 1, "crop: Expected: an integer, 1..3. Received: 4"),
        (np.ones((2, 9)), 2, 3, "size: Expected: an integer, 1..2. Received: 3"),
    ],
)
def test_images_that_do_not_fit_are_named(X, crop, size, message):
    with pytest.raises(ValueError, match=message):
        datasets.shrink(X, crop, size)


@pytest.mark.parametrize("function", [datasets.load, datasets.describe])
def test_an_unknown_name_lists_the_known_ones(function):
    with pytest.raises(ValueError, match="name: Expected: one of .*digits.* Received: 'digit'"):
        function("digit")


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"globopt_jax\[app\]"):
        datasets.load("digits")


@hypothesis.given(st_np.arrays(np.int64, st.integers(1, 20), elements=st.integers(0, 6)), st.integers(7, 9))
def test_one_hot_is_undone_by_argmax(labels, classes):
    for encoded in (datasets.one_hot(labels), datasets.one_hot(labels, classes)):
        np.testing.assert_array_equal(encoded.argmax(axis=1), labels)
        np.testing.assert_array_equal(np.sort(encoded, axis=1)[:, -1], 1)
        np.testing.assert_array_equal(encoded.sum(axis=1), 1)
    assert datasets.one_hot(labels).shape == (len(labels), labels.max() + 1)
    assert datasets.one_hot(labels, classes).shape == (len(labels), classes)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 1, 5], 5, "from 0 to 4. Received: labels from 0 to 5"),
        ([-1, 1], None, "from 0 to 1. Received: labels from -1 to 1"),
        ([0.0, 1.0], None, "labels: Expected: a vector of integers. Received: shape (2,) and dtype float64"),
        ([[0, 1]], None, "Received: shape (1, 2)"),
        (np.zeros(0, int), None, "Received: shape (0,)"),
    ],
)
def test_one_hot_refuses(labels, classes, message):
    with pytest.raises(ValueError) as error:
        datasets.one_hot(labels, classes)
    assert message in str(error.value)


def test_validate_keeps_what_can_be_computed_with(dtype):
    good = datasets.validate(jnp.asarray(X, dtype), jnp.asarray(Y, dtype))
    for array, original in zip(good, (X, Y), strict=True):
        np.testing.assert_array_equal(array, original.astype(dtype), strict=True)


@pytest.mark.parametrize("other", [np.int8, np.uint64, bool, np.float16])
def test_validate_turns_other_real_numbers_into_float64(other):
    for array in datasets.validate(X.astype(other), Y.astype(other)):
        assert array.dtype == np.float64


def with_entry(array, index, value):
    """Return a copy with one entry, or a slice, changed."""
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("bad_X", "bad_Y", "message"),
    [
        (X[0], Y, "X, Y: Expected: shapes (m, dx) and (m, dy). Received: (2,) and (3, 3)"),
        (X[None], Y, "Received: (1, 3, 2) and (3, 3)"),
        (X, np.array([0, 1, 2]), "Labels need one-hot rows, datasets.one_hot(Y)"),
        (X, np.array([0.5, 1.5, 2.5]), "scalar targets Y.reshape(m, 1)"),
        (X, Y[None], "Received: (3, 2) and (1, 3, 3)"),
        (X, Y[:2], "Received: (3, 2) and (2, 3)"),
        (X[:0], Y[:0], "Received: (0, 2) and (0, 3)"),
        (X, Y[:, :0], "Received: (3, 2) and (3, 0)"),
        (
            with_entry(X, (1, slice(None)), np.nan),
            Y,
            "X: Expected: finite numbers. Received: 2 NaN or inf, the first at (1, 0)",
        ),
        (
            X,
            with_entry(Y, (2, 1), -np.inf),
            "Y: Expected: finite numbers. Received: 1 NaN or inf, the first at (2, 1)",
        ),
        (X * 1j, Y, "X: Expected: real numbers. Received: dtype complex128"),
        (X.astype(object), Y, "dtype object"),
        (X, Y.astype(str), "Y: Expected: real numbers. Received: dtype <U"),
        (jnp.asarray(X, jnp.bfloat16), Y, "dtype bfloat16"),
    ],
)
def test_validate_says_what_is_wrong(bad_X, bad_Y, message):
    with pytest.raises(ValueError) as error:
        datasets.validate(bad_X, bad_Y)
    assert message in str(error.value)


def test_a_file_of_the_users_own(tmp_path):
    np.savez(tmp_path / "mine.npz", X=X.astype(np.float32), Y=Y, extra=np.ones(1))
    data = datasets.load_npz(tmp_path / "mine.npz")
    np.testing.assert_array_equal(data.X, X.astype(np.float32), strict=True)
    np.testing.assert_array_equal(data.Y, Y, strict=True)
    assert data.labels is not None
    np.testing.assert_array_equal(data.labels, [0, 1, 2])


@pytest.mark.parametrize("targets", [2 * Y, Y + Y[::-1], Y - 1, Y[:, :1], np.ones((3, 1))])
def test_targets_that_are_not_one_hot_have_no_labels(tmp_path, targets):
    np.savez(tmp_path / "mine.npz", X=X, Y=targets)
    assert datasets.load_npz(tmp_path / "mine.npz").labels is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X, "Y": Y}, "without X, but with the keys: x, Y"),
        ({"W1": X}, "without X and Y, but with the keys: W1"),
        ({}, "with the keys: none"),
        ({"X": X, "Y": np.array([0, 1, 2])}, "one_hot"),
        ({"X": X, "Y": np.array([{}])}, "Expected: an .npz of numbers"),
    ],
)
def test_a_file_that_lacks_what_is_needed(tmp_path, arrays, message):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(ValueError) as error:
        datasets.load_npz(tmp_path / "mine.npz")
    assert message in str(error.value)


@pytest.mark.parametrize("content", ["text", "nothing", "npy", "half"])
def test_a_file_that_is_no_npz(tmp_path, content):
    path: pathlib.Path = tmp_path / "mine.npz"
    if content == "npy":
        with path.open("wb") as file:
            np.save(file, X)
    else:
        np.savez(path, X=X, Y=Y)
        half = path.read_bytes()[: path.stat().st_size // 2]
        path.write_bytes({"text": b"X,Y\n1,2\n", "nothing": b"", "half": half}[content])
    with pytest.raises(ValueError, match="Expected: an .npz of numbers"):
        datasets.load_npz(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        datasets.load_npz(tmp_path / "mine.npz")
