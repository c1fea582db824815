"""Load a data set by its name: find or download its files, draw a subset, and make its images smaller."""

import dataclasses
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from globopt_jax.datasets import synthetic
from globopt_jax.datasets.arrays import Dataset, one_hot
from globopt_jax.datasets.cifar import CIFAR_10
from globopt_jax.datasets.description import Description
from globopt_jax.datasets.digits import DIGITS
from globopt_jax.datasets.idx import FASHION_MNIST, MNIST
from globopt_jax.datasets.images import Steps
from globopt_jax.datasets.places import place
from globopt_jax.datasets.source import Source
from globopt_jax.datasets.svhn import SVHN
from globopt_jax.inputs import check_key, integer, one_of

__all__ = ["describe", "khk19", "load", "names"]

_SOURCES = {source.description.name: source for source in (DIGITS, MNIST, FASHION_MNIST, CIFAR_10, SVHN)}
_SYNTHETIC = synthetic.DESCRIPTION.name
_TEACHER, _SUBSET = 0, 1  # a key gives an independent generator to each purpose


def names() -> tuple[str, ...]:
    """Return the names of all data sets.

    >>> names()
    ('digits', 'mnist', 'fashion-mnist', 'cifar-10', 'svhn', 'khk19-synthetic')
    """
    return (*_SOURCES, _SYNTHETIC)


def describe(name: str) -> Description:
    """Return the description of an official data set without loading it: its content, source and licence.

    A loaded set has a description of its own, `load(name).description`, with the steps and the missing files.

    Args:
        name: one of `names()`.

    Raises:
        ValueError: the name is unknown; the message lists the known names.

    >>> describe("mnist").shape
    (60000, 784, 10)
    """
    if name == _SYNTHETIC:
        return synthetic.DESCRIPTION
    return _source(name).description


def load(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    split: str = "train",
    samples: int | None = None,
    key: Any = None,
    crop: int | None = None,
    gray: bool = False,
    size: int | None = None,
    mirror: str | None = None,
) -> Dataset:
    """Load a data set by name, a random subset of it if wanted, with smaller images if wanted.

    Images are cropped first, then made gray, then averaged over areas. `load(...).description` says in words what was
    done, and where the files differ from the official set. This is a host function.

    Args:
        name: one of `names()`.
        root: the folder that holds the official files. None takes them from the cache folder, and downloads them once
            into it; the environment variable GLOBOPT_JAX_DATA moves the cache folder. The digits and the synthetic set
            have no files.
        split: train or test. The digits and the synthetic set have train alone. Some of the five training batches of
            CIFAR-10 are enough, and the description says which are missing.
        samples: the size of a random subset, drawn without replacement. None takes all samples. A smaller subset is the
            beginning of a larger one of the same key.
        key: a `jax.random.key`, or a seed s for `jax.random.key(s)`. It draws the subset, and the synthetic set, where
            None is the seed 0. NumPy's generators draw, so that the result depends on the key's data alone.
        crop: the side of the central square that is cut out of each image. None keeps the whole image.
        gray: whether colours become gray, by 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601). Gray images stay as they are.
        size: the side of the images after averaging over equal areas, see `shrink`. None averages nothing.
        mirror: the address of a folder with the same files as the official one, to download from.

    Returns:
        A `Dataset` of NumPy arrays in float64: X (m, dx), Y (m, dy) and labels (m,); labels are None for the synthetic
        set. Colour images can be reshaped to (m, h, w, 3).

    Raises:
        ValueError: an argument is out of its range, or a file is damaged or not of the official format. Then the
            message has the file and the position in it. A download with another checksum than the official file is
            refused as well.
        FileNotFoundError: a file is not in the root, or cannot be downloaded. The message has the names of the missing
            files, their addresses, and the folder to put them into.
        ImportError: a package is missing that has the data or downloads them; the message says how to install it.
        TypeError: the key is no key.

    Example:
        >>> load("digits").X.shape
        (1797, 64)
        >>> small = load("digits", samples=100, key=0, size=4)
        >>> small.X.shape, small.description.steps
        ((100, 16), ('100 of 1,797 samples drawn at random by the key (0, 0)', 'averaged over 4 x 4 equal areas'))
    """
    wanted = _Wanted(name, root, split, samples, key, crop, gray, size, mirror)
    return _synthetic(wanted) if name == _SYNTHETIC else _images(wanted)


def subset(m: int, samples: int, *, key: Any) -> np.ndarray:
    """Return the rows of a random subset, drawn without replacement: those that `load` and `khk19` take.

    Args:
        m: the number of samples that there are.
        samples: how many are taken. A smaller subset is the beginning of a larger one of the same key.
        key: a `jax.random.key`, or a seed s for `jax.random.key(s)`.

    Returns:
        Indices (samples,) from 0 to m - 1, each at most once.

    Raises:
        ValueError: `samples` is not from 1 to m.
        TypeError: the key is no key.

    Example:
        >>> X, _, _ = load("digits")
        >>> rows = subset(len(X), 100, key=0)
        >>> np.array_equal(X[rows], load("digits", samples=100, key=0).X)
        True
    """
    m = integer("m", m)
    samples = integer("samples", samples, 1, m)
    return _drawn(_numbers(key), m)[:samples]


def khk19(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    samples: int | None = None,
    key: Any = 0,
    mirror: str | None = None,
) -> Dataset:
    """Load a data set as Figure 1 of KHK19 uses it (section 4.3 and appendix C).

    MNIST is cropped to 24 x 24 pixels and averaged to 8 x 8 pixels. CIFAR-10 and SVHN are cropped to 28 x 28 pixels,
    made gray, and averaged to 12 x 12 pixels. The images are drawn at random from the training split. The paper states
    neither the weights of the colours nor how images are resized, so that the description names both.

    Where the files hold fewer samples, all are taken, and where SVHN's training file is missing while its test file is
    there, test images are taken. The description says so.

    Args:
        name: mnist, cifar-10, svhn or khk19-synthetic.
        root: as in `load`.
        samples: the number of samples. None takes the paper's: 10,000 images, or 5,000 samples of the synthetic set.
        key: as in `load`.
        mirror: as in `load`.

    Returns:
        A `Dataset`, as from `load`.

    Raises:
        ValueError: the name is none of the four, or as in `load`.
        FileNotFoundError: as in `load`.
        ImportError: as in `load`.

    Example:
        >>> khk19("khk19-synthetic").X.shape
        (5000, 10)
    """
    crop, size = _KHK19[one_of("name", name, _KHK19)]
    wanted = _Wanted(name, root, "train", samples, key, crop, crop is not None, size, mirror)
    if name == _SYNTHETIC:
        return _synthetic(wanted)
    wanted = wanted._replace(samples=10_000 if samples is None else samples)
    try:
        return _images(wanted, at_most=True)
    except FileNotFoundError:
        if name != SVHN.description.name:
            raise
        files = place(name, "", None, root, None)
        if files.find("test_32x32.mat") is None:
            raise
    found = _images(wanted._replace(split="test", mirror=None), at_most=True)
    note = (
        "train_32x32.mat is missing, so that test images stand in for training images. Neighbouring images often show "
        "the same house."
    )
    assert found.description is not None
    return found.described(dataclasses.replace(found.description, notes=(*found.description.notes, note)))


_KHK19 = {"mnist": (24, 8), "cifar-10": (28, 12), "svhn": (28, 12), _SYNTHETIC: (None, None)}  # crop and size


class _Wanted(NamedTuple):
    """The arguments of `load`."""

    name: str
    root: str | os.PathLike[str] | None
    split: str
    samples: int | None
    key: Any
    crop: int | None
    gray: bool
    size: int | None
    mirror: str | None


def _images(wanted: _Wanted, at_most: bool = False) -> Dataset:
    """Load a set of images. With `at_most`, all images are taken where the files hold fewer than wanted."""
    source = _source(wanted.name)
    _check_split(wanted, tuple(source.counts))
    steps = Steps.checked(source.side, source.channels, wanted.crop, wanted.gray, wanted.size)
    seeds = _seeds(wanted)
    if source.base is None:
        _no_files(wanted, ("mirror",))
        where = None
    else:
        where = place(wanted.name, source.base, source.unpacked, wanted.root, wanted.mirror)
    images = source.read(where, wanted.split)
    chosen, notes, said = _subset(wanted, seeds, len(images.labels), at_most)
    pixels, labels = (
        (images.pixels, images.labels) if chosen is None else (images.pixels[chosen], images.labels[chosen])
    )
    X, Y = steps.apply(pixels, source.white), one_hot(labels, 10)
    about = dataclasses.replace(
        source.description,
        shape=(len(X), X.shape[1], Y.shape[1]),
        split=wanted.split,
        steps=(*said, *steps.words),
        notes=(*images.notes, *notes),
    )
    return Dataset(X, Y, labels).described(about)


def _synthetic(wanted: _Wanted) -> Dataset:
    """Draw the synthetic set."""
    _check_split(wanted, ("train",))
    _no_files(wanted, ("crop", "size", "mirror"))
    seeds = _seeds(wanted._replace(key=0 if wanted.key is None else wanted.key))
    assert seeds is not None
    X, Y = synthetic.draw(_generator(seeds, _TEACHER))
    chosen, _, said = _subset(wanted, seeds, len(X), at_most=False)
    X, Y = (X, Y) if chosen is None else (X[chosen], Y[chosen])
    about = dataclasses.replace(
        synthetic.DESCRIPTION,
        shape=(len(X), X.shape[1], Y.shape[1]),
        steps=(f"inputs and teacher drawn by the key {seeds}", *said),
    )
    return Dataset(X, Y, None).described(about)


def _subset(
    wanted: _Wanted, seeds: tuple[int, ...] | None, m: int, at_most: bool
) -> tuple[np.ndarray | None, tuple[str, ...], tuple[str, ...]]:
    """Return the indices of the subset, or None for all samples; and notes and steps in words."""
    if wanted.samples is None:
        return None, (), ()
    samples, notes = wanted.samples, ()
    if samples > m:
        if not at_most:
            raise ValueError(
                f"samples: Expected: an integer, 1..{m}, since there are {m:,} samples. Received: {samples}."
            )
        notes = (f"{samples:,} samples were wanted; the files hold {m:,}.",)
        samples = m
    assert seeds is not None
    return _drawn(seeds, m)[:samples], notes, (f"{samples:,} of {m:,} samples drawn at random by the key {seeds}",)


def _seeds(wanted: _Wanted) -> tuple[int, ...] | None:
    """Return the numbers of the key, after checking key and samples."""
    if wanted.samples is not None:
        _ = integer("samples", wanted.samples, 1)
        if wanted.key is None:
            raise ValueError("samples: Expected: a key= with it, which draws the subset. Received: no key.")
    return None if wanted.key is None else _numbers(wanted.key)


def _numbers(key: Any) -> tuple[int, ...]:
    """Return the numbers of a key or a seed."""
    if isinstance(key, int | np.integer):
        key = jax.random.key(integer("key", key, 0, 2**32 - 1))
    return tuple(int(number) for number in np.asarray(jax.random.key_data(check_key(key))))


def _drawn(seeds: tuple[int, ...], m: int) -> np.ndarray:
    """Return the numbers 0..m-1 in the order in which subsets take them."""
    return _generator(seeds, _SUBSET).permutation(m)


def _generator(seeds: tuple[int, ...], purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seeds, spawn_key=(purpose,)))


def _check_split(wanted: _Wanted, splits: tuple[str, ...]) -> None:
    if wanted.split not in splits:
        only = f"{wanted.name} has no other split" if len(splits) == 1 else "the splits"
        raise ValueError(f"split: Expected: {' or '.join(map(repr, splits))}, {only}. Received: {wanted.split!r}.")


def _no_files(wanted: _Wanted, refused: tuple[str, ...]) -> None:
    """Refuse arguments that the set has no use for."""
    for name in refused:
        value = getattr(wanted, name)
        if value is not None:
            why = "nothing is downloaded" if name == "mirror" else "it has no images"
            raise ValueError(f"{name}: Expected: None for {wanted.name}, since {why}. Received: {value!r}.")


def _source(name: str) -> Source:
    return _SOURCES[one_of("name", name, names())]
