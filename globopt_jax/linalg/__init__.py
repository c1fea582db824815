"""Linear algebra: the only place in the package that defines ranks, projections and tolerances.

`cutoff` returns the value below which singular values count as zero, by one of three criteria (KHK19 appendix C).
`svd`, `numerical_rank`, `project` and `project_out` use it. `lowest_curvature` finds the lowest eigenvalue of a Hessian
from its products with vectors. `matmul` multiplies with ``precision="highest"``, since GPUs and TPUs round float32
products to fewer digits by default.
`split` removes the span of orthonormal columns from other columns, to rounding. `machine_epsilon` and the tolerances
beside it say how large rounding errors can be.

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
    product_at_most,
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
    "product_at_most",
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
    """The public names alone, which editors offer."""
    return __all__
