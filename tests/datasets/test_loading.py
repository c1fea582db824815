"""Data sets in their official formats: splits, subsets, smaller images, and what is said about them."""

import pickle
import re

import jax
import numpy as np
import pytest

from globopt_jax import datasets
from tests.datasets import packages


@pytest.fixture
def mnist(tmp_path):
    """A folder with MNIST, half of it packed."""
    for name, raw in packages.MNIST.items():
        pack = name.startswith("t10k")
        (tmp_path / f"{name}{'.gz' * pack}").write_bytes(packages.packed(raw) if pack else raw)
    return tmp_path


@pytest.fixture
def cifar(tmp_path):
    """A folder with CIFAR-10's batches."""
    for name, raw in packages.CIFAR.items():
        (tmp_path / name).write_bytes(raw)
    return tmp_path


@pytest.fixture
def svhn(tmp_path):
    """A folder with SVHN's two files."""
    (tmp_path / "train_32x32.mat").write_bytes(packages.SVHN)
    (tmp_path / "test_32x32.mat").write_bytes(
        packages.mat(packages.STREETS[..., :3], packages.DIGITS[:3], compressed=False)
    )
    return tmp_path


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_both_splits_of_sets_in_the_idx_format(name, mnist):
    for split, m in (("train", 6), ("test", 2)):
        data = datasets.load(name, mnist, split=split)
        np.testing.assert_array_equal(data.X, packages.IMAGES[:m].reshape(m, 784) / 255)
        np.testing.assert_array_equal(data.labels, packages.LABELS[:m])
        assert about(data).split == split
    assert about(data).notes == ("2 images; the official test set has 10,000.",)


def about(data) -> datasets.Description:
    """The description that every loaded set has."""
    assert data.description is not None
    return data.description


def rows_of(data):
    """Records of CIFAR-10 from a loaded set."""
    planes = (data.X.reshape(-1, 32, 32, 3) * 255).round().transpose(0, 3, 1, 2).reshape(-1, 3072)
    return np.concatenate([data.labels[:, None], planes], axis=1).astype(np.uint8)


def test_cifar_10_from_a_folder_or_the_archive(cifar, tmp_path_factory):
    every = np.concatenate([*packages.BATCHES.values()])
    np.testing.assert_array_equal(rows_of(datasets.load("cifar-10", cifar)), every)
    test = datasets.load("cifar-10", cifar, split="test")
    np.testing.assert_array_equal(rows_of(test), packages.records(2, 9))
    other = tmp_path_factory.mktemp("archive")
    (other / "cifar-10-binary.tar.gz").write_bytes(packages.packed(packages.ARCHIVE))
    np.testing.assert_array_equal(rows_of(datasets.load("cifar-10", other)), every)
    # An archive that was unpacked in part: the archive has the rest.
    (other / "cifar-10-batches-bin").mkdir()
    (other / "cifar-10-batches-bin" / "data_batch_1.bin").write_bytes(packages.CIFAR["data_batch_1.bin"])
    np.testing.assert_array_equal(rows_of(datasets.load("cifar-10", other)), every)
    (other / "cifar-10-binary.tar.gz").unlink()
    np.testing.assert_array_equal(rows_of(datasets.load("cifar-10", other)), packages.BATCHES["data_batch_1.bin"])


def test_some_batches_are_enough_and_the_rest_is_named(cifar):
    for k in (3, 4, 5):
        (cifar / f"data_batch_{k}.bin").unlink()
    data = datasets.load("cifar-10", cifar)
    np.testing.assert_array_equal(rows_of(data), np.concatenate([*packages.BATCHES.values()][:2]))
    missing = "data_batch_3.bin, data_batch_4.bin and data_batch_5.bin are missing."
    assert about(data).notes == (f"3 of the 50,000 training images: {missing}",)
    assert missing in str(data)


def test_svhn(svhn):
    for split, m in (("train", 6), ("test", 3)):
        data = datasets.load("svhn", svhn, split=split)
        np.testing.assert_array_equal(data.X.reshape(m, 32, 32, 3), np.moveaxis(packages.STREETS[..., :m], 3, 0) / 255)
        np.testing.assert_array_equal(data.labels, [1, 0, 3, 9, 0, 2][:m])


def test_the_synthetic_set():
    """Its teacher again, with the standard deviations written out."""
    data = datasets.load("khk19-synthetic", key=3)
    assert data.X.shape == (5000, 10)
    assert data.Y.shape == (5000, 1)
    assert data.labels is None
    rng = np.random.default_rng(np.random.SeedSequence((0, 3), spawn_key=(0,)))
    np.testing.assert_array_equal(data.X, rng.standard_normal((5000, 10)))
    features = data.X
    for before in (10, 50, 50, 50, 50, 50, 50):
        features = np.tanh(features @ (0.2 * rng.standard_normal((before, 50))))
    np.testing.assert_allclose(data.Y, features @ (2**0.5 * rng.standard_normal((50, 1))), rtol=1e-9, atol=1e-12)
    assert abs(data.X.std() - 1) < 0.02
    assert not np.array_equal(datasets.load("khk19-synthetic", key=4).X, data.X)
    np.testing.assert_array_equal(datasets.load("khk19-synthetic").Y, datasets.load("khk19-synthetic", key=0).Y)


def test_subsets_are_reproducible_nested_and_without_repetition():
    every = datasets.load("digits")
    small, large = (datasets.load("digits", samples=n, key=5) for n in (50, 300))
    np.testing.assert_array_equal(large.X[:50], small.X)
    np.testing.assert_array_equal(datasets.load("digits", samples=50, key=jax.random.key(5)).X, small.X)
    np.testing.assert_array_equal(datasets.load("digits", samples=50, key=jax.random.PRNGKey(5)).X, small.X)
    assert not np.array_equal(datasets.load("digits", samples=50, key=6).X, small.X)
    rows = datasets.subset(1797, 50, key=5)
    np.testing.assert_array_equal(datasets.load("digits").X[rows], small.X)
    np.testing.assert_array_equal(datasets.subset(1, 1, key=5), [0])
    whole = datasets.load("digits", samples=1797, key=5)
    assert sorted(whole.Y.argmax(axis=1)) == sorted(every.Y.argmax(axis=1))
    order = np.lexsort(whole.X.T), np.lexsort(every.X.T)
    np.testing.assert_array_equal(whole.X[order[0]], every.X[order[1]])
    np.testing.assert_array_equal(whole.Y.argmax(axis=1), whole.labels)
    np.testing.assert_array_equal(datasets.load("digits", samples=9, key=0, split="train").X[:, 0], 0)


def test_smaller_images(cifar):
    """The steps one by one, by the public functions and by formulas of their own."""
    colours = datasets.load("cifar-10", cifar)
    images = colours.X.reshape(-1, 32, 32, 3)
    small = datasets.load("cifar-10", cifar, crop=28, gray=True, size=14)
    luma = 0.299 * images[..., 0] + 0.587 * images[..., 1] + 0.114 * images[..., 2]
    means = luma[:, 2:30, 2:30].reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(small.X, means.reshape(-1, 196), atol=1e-14)
    np.testing.assert_allclose(datasets.gray(colours.X), luma.reshape(-1, 1024), atol=1e-14)
    np.testing.assert_allclose(datasets.shrink(datasets.gray(colours.X), 28, 14), small.X, atol=1e-14)
    each = datasets.load("cifar-10", cifar, size=12)
    for channel in range(3):
        alone = datasets.shrink(images[..., channel].reshape(-1, 1024), 32, 12)
        np.testing.assert_allclose(each.X.reshape(-1, 144, 3)[..., channel], alone, atol=1e-14)
    np.testing.assert_allclose(datasets.shrink(colours.X, 32, 12, channels=3), each.X, atol=1e-14)
    assert about(small).steps == (
        "the central 28 x 28 pixels",
        "gray by 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)",
        "averaged over 14 x 14 equal areas",
    )
    assert about(datasets.load("cifar-10", cifar, crop=32, size=32)).steps == ()
    assert about(datasets.load("digits", gray=True)).steps == ()


def test_figure_1_of_khk19(mnist, cifar, svhn):
    """The sizes of the paper; where files hold less, all of them, and a sentence."""
    found = {name: datasets.khk19(name, folder) for name, folder in (("mnist", mnist), ("cifar-10", cifar))}
    found["svhn"] = datasets.khk19("svhn", svhn)
    shapes = {name: data.X.shape for name, data in found.items()}
    assert shapes == {"mnist": (6, 64), "cifar-10": (15, 144), "svhn": (6, 144)}
    for name, data in found.items():
        assert about(data).shape == (*data.X.shape, 10)
        assert about(data).split == "train"
        assert f"10,000 samples were wanted; the files hold {len(data.X)}." in about(data).notes
        assert ("gray by" in str(data)) == (name != "mnist")
    few = datasets.khk19("mnist", mnist, samples=4, key=1)
    every = datasets.load("mnist", mnist, crop=24, size=8, samples=4, key=1)
    np.testing.assert_array_equal(few.X, every.X)
    np.testing.assert_array_equal(datasets.khk19("khk19-synthetic").X, datasets.load("khk19-synthetic", key=0).X)
    with pytest.raises(ValueError, match="one of mnist, cifar-10, svhn, khk19-synthetic. Received: 'digits'"):
        datasets.khk19("digits")


def test_test_images_of_svhn_stand_in_for_training_images(svhn, monkeypatch):
    (svhn / "train_32x32.mat").unlink()
    data = datasets.khk19("svhn", svhn)
    assert about(data).split == "test"
    assert "test images stand in for training images" in about(data).notes[-1]
    assert sorted(data.Y.argmax(axis=1)) == [0, 1, 3]
    (svhn / "test_32x32.mat").unlink()
    with pytest.raises(FileNotFoundError, match="train_32x32.mat"):
        datasets.khk19("svhn", svhn)


def test_a_set_is_a_pytree_of_arrays_with_words_beside_it():
    data = datasets.load("digits", samples=5, key=0)
    X, _, labels = data
    assert len(jax.tree.leaves(data)) == 3
    same = jax.jit(lambda d: d)(data)
    assert isinstance(same, datasets.Dataset)
    np.testing.assert_array_equal(same.X, X)
    assert same.description is None
    assert data._replace(X=2 * X).description is None
    assert str(same) == "X (5, 64), Y (5, 10)"
    copy = pickle.loads(pickle.dumps(data))
    assert copy.description == data.description
    np.testing.assert_array_equal(copy.labels, labels)
    assert str(data).startswith("digits, train: 5 samples with 64 inputs and 10 outputs. Handwritten digits")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"split": "test"}, "split: Expected: 'train', digits has no other split. Received: 'test'"),
        ("mnist", {"split": "valid"}, "split: Expected: 'train' or 'test', the splits. Received: 'valid'"),
        (
            "digits",
            {"samples": 1798, "key": 0},
            "samples: Expected: an integer, 1..1797, since there are 1,797 samples",
        ),
        ("digits", {"samples": 0, "key": 0}, "samples: Expected: an integer, at least 1. Received: 0"),
        ("digits", {"samples": 5}, "samples: Expected: a key= with it"),
        ("digits", {"samples": 5, "key": -1}, "key: Expected: an integer, 0..4294967295. Received: -1"),
        ("digits", {"crop": 9}, "crop: Expected: an integer, 1..8. Received: 9"),
        ("digits", {"crop": 4, "size": 5}, "size: Expected: an integer, 1..4. Received: 5"),
        ("digits", {"mirror": "http://a"}, "mirror: Expected: None for digits, since nothing is downloaded"),
        (
            "khk19-synthetic",
            {"crop": 2},
            "crop: Expected: None for khk19-synthetic, since it has no images. Received: 2",
        ),
        ("khk19-synthetic", {"split": "test"}, "split: Expected: 'train'"),
        ("mnist", {"crop": 29}, "crop: Expected: an integer, 1..28. Received: 29"),
        ("mnist", {"mirror": "ftp://a"}, "mirror: Expected: an address that begins with http:// or https://"),
    ],
)
def test_arguments_are_checked_before_files_are_read(name, options, message, tmp_path, monkeypatch):
    monkeypatch.setenv("GLOBOPT_JAX_DATA", str(tmp_path / "not there"))
    with pytest.raises(ValueError) as error:
        datasets.load(name, **options)
    assert message in str(error.value)
    assert not (tmp_path / "not there").exists()


def test_a_root_that_lacks_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="root: Expected: a folder. Received: .*nowhere"):
        datasets.load("mnist", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError) as error:
        datasets.load("mnist", tmp_path, split="test")
    for part in ("t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz, gzipped or not", str(tmp_path)):
        assert part in str(error.value)
    assert "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-labels-idx1-ubyte.gz" in str(error.value)
    for name, file in (("cifar-10", "data_batch_1.bin or cifar-10-binary.tar.gz. "), ("svhn", "train_32x32.mat. ")):
        with pytest.raises(FileNotFoundError, match=f"root: Expected: a folder with {file}"):
            datasets.load(name, tmp_path)
    with pytest.raises(ValueError, match="root, mirror: Expected: at most one of both"):
        datasets.load("mnist", tmp_path, mirror="http://a")
    with pytest.raises(TypeError, match="key: Expected: one jax.random.key"):
        datasets.load("digits", samples=2, key="a")


def test_gray_refuses_what_has_no_colours():
    with pytest.raises(ValueError, match=r"X: Expected: colour images, \(m, h w 3\). Received: \(2, 4\)"):
        datasets.gray(np.ones((2, 4)))
    assert datasets.gray(np.ones((1, 3), np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    ("m", "samples", "key", "message"),
    [
        (5, 6, 0, "samples: Expected: an integer, 1..5. Received: 6"),
        (5, 0, 0, "samples: Expected: an integer, 1..5. Received: 0"),
        (0, 1, 0, "m: Expected: an integer, at least 1. Received: 0"),
        (5, 2, 2**32, "key: Expected: an integer, 0..4294967295. Received: 4294967296"),
    ],
)
def test_rows_that_are_not_there(m, samples, key, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        _ = datasets.subset(m, samples, key=key)
