"""Ranks, projections and curvature, against LAPACK and dense eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from globopt_jax import linalg


def deficient(rng, p, q, rank):
    return rng.normal(size=(p, rank)) @ rng.normal(size=(rank, q))


@pytest.mark.parametrize("shape", [(30, 4), (5, 12), (8, 8), (1, 3)])
def test_rank_and_projections(shape, dtype):
    rng = np.random.default_rng(0)
    for rank in range(min(shape) + 1):
        M = jnp.asarray(deficient(rng, shape[0], shape[1], rank), dtype)
        B = jnp.asarray(rng.normal(size=(shape[0], 2)), dtype)
        assert int(linalg.numerical_rank(M)) == rank
        found = linalg.svd(M)
        assert int(found.rank) == rank == int(found.kept.sum())
        exact = np.asarray(M, np.float64)
        projected = exact @ np.linalg.lstsq(exact, np.asarray(B, np.float64), rcond=1e-5)[0]
        tolerance = 1e4 * linalg.machine_epsilon(dtype)
        np.testing.assert_allclose(linalg.project(M, B), projected, atol=tolerance)
        outside = linalg.project_out(M, B)
        np.testing.assert_allclose(outside, B - projected, atol=tolerance)
        np.testing.assert_allclose(M.T @ outside, 0, atol=float(tolerance * np.linalg.norm(exact)))
        np.testing.assert_allclose(linalg.spectral_norm(M), np.linalg.norm(exact, 2), rtol=tolerance)


@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_what_is_split_off_is_orthogonal_even_where_little_is_left(size, dtype):
    """B lies in the span but for a part of relative size 1e-6, which one projection would leave tilted."""
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.normal(size=(50, 8)))[0]
    U = jnp.asarray(Q[:, :5], dtype).at[:, 4].set(0)
    B = jnp.asarray(Q[:, :4] @ rng.normal(size=(4, 3)) + size * Q[:, 5:], dtype)
    outside, along = linalg.split(U, B)
    eps = linalg.machine_epsilon(dtype)
    np.testing.assert_allclose(outside + U @ along, B, atol=20 * eps)
    assert float(linalg.norm(U.T @ outside)) <= 20 * eps * float(linalg.norm(outside) + eps * linalg.norm(B))
    once = B - U @ (U.T @ B)
    assert size == 1 or float(linalg.norm(U.T @ once)) > 100 * float(linalg.norm(U.T @ outside))


def test_arrays_of_numpy_are_split_in_their_own_precision():
    with jax.enable_x64(False):
        outside, along = linalg.split(np.eye(3)[:, :1], np.full((3, 1), 1 / 3))
    assert isinstance(outside, np.ndarray)
    assert outside.dtype == along.dtype == np.float64
    np.testing.assert_array_equal(outside, [[0], [1 / 3], [1 / 3]])


def test_random_products_are_never_taken_for_more_than_their_rank():
    """1,000 random low-rank products: the default cutoff lies above the noise of product and decomposition."""
    rng = np.random.default_rng(1)
    M = np.stack([deficient(rng, 12, 7, 3) for _ in range(1000)])
    assert np.all(np.asarray(jax.jit(jax.vmap(linalg.numerical_rank))(M)) == 3)


def test_the_other_criteria_lie_lower():
    M = jnp.asarray(np.random.default_rng(0).normal(size=(400, 20)))
    s = linalg.singular_values(M)
    press, golub, lapack = (float(linalg.cutoff(M, s, name)) for name in linalg.CRITERIA)
    eps = np.finfo(np.float64).eps
    assert press == pytest.approx(0.5 * float(s[0]) * eps * np.sqrt(421))
    assert golub == pytest.approx(0.5 * eps * np.abs(np.asarray(M)).sum(axis=1).max())
    assert lapack == pytest.approx(float(s[0]) * eps)
    assert max(golub, lapack) < press
    for function in (linalg.numerical_rank, linalg.svd):
        with pytest.raises(ValueError, match="cutoff: Expected: one of press, golub, lapack"):
            function(M, "gauss")


def test_norms_neither_overflow_nor_vanish(dtype):
    for size in (1e-30, 1.0, 1e30):
        assert float(linalg.norm(jnp.asarray([[3.0, 4.0]], dtype) * size)) == pytest.approx(5 * size, rel=1e-6)
        assert float(linalg.spectral_norm(jnp.asarray([[3.0], [4.0]], dtype) * size)) == pytest.approx(
            5 * size, rel=1e-6
        )
    assert float(linalg.norm(jnp.zeros((2, 2), dtype))) == 0
    assert float(linalg.norm(jnp.zeros((0, 2), dtype))) == 0


@pytest.mark.parametrize("n", [1, 2, 5, 60])
@pytest.mark.parametrize("kind", ["zero", "rank 2", "full", "identity"])
def test_lowest_curvature(n, kind, dtype):
    """Zero and low-rank operators, where Lanczos breaks down, included."""
    rng = np.random.default_rng(n)
    B, u, w = rng.normal(size=(n, n)), rng.normal(size=(n, 1)), rng.normal(size=(n, 1))
    A = {"zero": 0 * B, "rank 2": u @ w.T + w @ u.T, "full": B + B.T, "identity": -np.eye(n)}[kind]
    found = jax.jit(lambda A: linalg.lowest_curvature(lambda v: A @ v, n, jax.random.key(0), dtype=dtype))(
        jnp.asarray(A, dtype)
    )
    size = max(float(np.linalg.norm(A, 2)), 1e-30)
    lowest = np.linalg.eigvalsh(A)[0]
    assert abs(float(found.value) - lowest) <= 1e-5 * size
    assert float(jnp.linalg.norm(found.v)) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(A @ np.asarray(found.v), lowest * np.asarray(found.v), atol=3e-3 * size)
    assert found.value.dtype == dtype


def test_the_error_of_a_product_is_bounded():
    rng = np.random.default_rng(0)
    for _ in range(100):
        A, B = rng.normal(size=(20, 40)), rng.normal(size=(40, 30))
        a, b = jnp.asarray(A, jnp.float32), jnp.asarray(B, jnp.float32)
        start = np.linalg.norm(np.asarray(a) - A)
        bound = linalg.product_error(jnp.asarray(start, jnp.float32), linalg.norm(a), linalg.norm(b), 40, jnp.float32)
        assert np.linalg.norm(np.asarray(linalg.matmul(a, b)) - A @ np.asarray(b, np.float64)) <= float(bound)


def test_ranks_that_need_no_rounding(dtype):
    """Zero rows and columns, and powers of two times another one, do not count; everything else does."""
    A = np.random.default_rng(0).normal(size=(4, 3)).astype(dtype)
    rank = jax.jit(linalg.rank_at_most)
    assert int(rank(A)) == 3
    many = np.hstack([A, -A[:, :1], 0 * A[:, :1], 4 * A[:, 1:2], 3 * A[:, 1:2]])
    assert int(rank(many)) == 4  # its rows; three times a column is left to `known_rank`
    assert int(rank(np.vstack([many, many]))) == 4
    assert int(rank(np.vstack([A, A + 1])[:, :2])) == 2
    assert int(rank(np.zeros((2, 3), dtype))) == 0
    tiny = np.finfo(dtype).tiny
    assert int(rank(np.array([[1, 2], [tiny, 2.5 * tiny]], dtype))) == 2
    assert int(rank(np.array([[tiny, 1], [0, tiny]], dtype))) == 2


def test_singular_values_of_a_tall_matrix_take_no_square_of_its_rows():
    assert linalg.singular_values(jnp.ones((200_000, 1))).shape == (1,)
