"""Counts of neighbouring cells, by hand; missing cells and rounding count as neither."""

from typing import Any

import numpy as np
import pytest
import xarray

from globopt_jax import sweeps
from globopt_jax.sweeps.trends import averaged


def landscape(J: Any, **more: Any) -> xarray.Dataset:
    """A dataset with given J (depth, width, seed, stage)."""
    J = np.asarray(J, float)
    names = ("depth", "width", "seed")
    places: dict[str, Any] = {name: range(1, n + 1) for name, n in zip(names, J.shape, strict=False)}
    return xarray.Dataset({"J": ((*names, "stage"), J)}, {**places, "stage": ["initial", "trained"], **more})


#: Two depths, three widths, two seeds.
INITIAL = np.array([[[9, 7], [4, 4], [4, 4]], [[8, 8], [3, 5], [1, 1]]], float)
TRAINED = np.array([[[4, 4], [np.nan, 3], [4, 4]], [[8, 8], [np.nan, np.nan], [0, 2e-12]]])
FOUND = landscape(np.stack([INITIAL, TRAINED], axis=-1))


def test_counts_by_hand():
    counts = sweeps.trends(FOUND)
    np.testing.assert_array_equal(counts.width, [[3, 1, 0], [1, 0, 1]])
    np.testing.assert_array_equal(counts.depth, [[1, 2, 0], [1, 0, 1]])
    np.testing.assert_array_equal(counts.training, [3, 2, 0])
    assert counts.reason == (
        "From one width to the next, J falls in 3 of 4 cases before training (it stays the same in 1), and in 1 of 2 "
        "after it. From one depth to the next, J falls in 1 of 3 cases before training (it stays the same in 2), and "
        "in 1 of 2 after it. Training lowers J in 3 of 5 cases (it stays the same in 2)."
    )


def test_further_dimensions_are_counted_for_each_value():
    both = xarray.concat([FOUND, FOUND], dim="lam").transpose("stage", "lam", ...)
    counts, twice = sweeps.trends(FOUND), sweeps.trends(both)
    for one, two in zip(counts, twice, strict=True):
        np.testing.assert_array_equal(two, 2 * np.asarray(one))


def test_an_axis_with_one_value_has_no_sentence():
    counts = sweeps.trends(FOUND.isel(depth=[0], width=[0]))
    assert counts.reason == "Training lowers J in 1 of 1 cases."
    assert sweeps.trends(FOUND.isel(depth=[1], width=[1])).reason == ""


def test_mean_and_deviation_over_the_seeds_that_are_there():
    mean, spread = averaged(FOUND)
    np.testing.assert_allclose(mean.sel(stage="trained"), [[4, 3, 4], [8, np.nan, 1e-12]])
    np.testing.assert_allclose(spread.sel(stage="initial"), INITIAL.std(axis=-1, ddof=1))
    np.testing.assert_array_equal(np.isnan(spread.sel(stage="trained")), [[0, 1, 0], [0, 1, 0]])
    alone, none = averaged(FOUND.sel(seed=1))
    np.testing.assert_array_equal(alone, FOUND.J.sel(seed=1))
    assert bool(none.isnull().all())


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (FOUND.rename(J="loss"), "found: Expected: a dataset with J. Received: loss"),
        (FOUND.isel(width=0), "Received: none of the name width; give depths and widths as lists"),
        ([1.0], "found: Expected: a dataset with J. Received: list"),
    ],
)
def test_what_is_no_landscape_is_refused(found, message):
    with pytest.raises(ValueError, match=message):
        _ = averaged(found)
