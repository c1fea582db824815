"""Linear algebra in which every rank, projection and tolerance comes from one place.

`cutoff` says which singular values count as zero (three criteria, KHK19 appendix C); `svd`, `numerical_rank`,
`project` and `project_out` use it. `split` takes the span of orthonormal columns out of others, to rounding.
`machine_epsilon` and the tolerances beside it say what rounding may do. `matmul` has the full precision of the dtype on
every device, since a GPU's or TPU's default is not float32. `lowest_curvature` finds the lowest eigenvalue of a Hessian
that is only known by its products with vectors.

    >>> import jax.numpy as jnp
    >>> M = jnp.array([[1.0, 2.0], [2.0, 4.0], [0.0, 0.0]])
    >>> int(numerical_rank(M))
    1
"""

from globopt_jax.linalg.curvature import Curvature, lowest_curvature
from globopt_jax.linalg.factors import (
    Svd,
    matmul,
    norm,
    numerical_rank,
    project,
    project_out,
    rank_at_most,
    singular_values,
    spectral_norm,
    split,
    svd,
)
from globopt_jax.linalg.tolerances import (
    CRITERIA,
    cutoff,
    decision_tolerance,
    factorization_error,
    largest_finite,
    machine_epsilon,
    product_error,
    product_rounding,
    rounding_margin,
    smallest_normal,
)

__all__ = [
    "CRITERIA",
    "Curvature",
    "Svd",
    "cutoff",
    "decision_tolerance",
    "factorization_error",
    "largest_finite",
    "lowest_curvature",
    "machine_epsilon",
    "matmul",
    "norm",
    "numerical_rank",
    "product_error",
    "product_rounding",
    "project",
    "project_out",
    "rank_at_most",
    "rounding_margin",
    "singular_values",
    "smallest_normal",
    "spectral_norm",
    "split",
    "svd",
]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__
