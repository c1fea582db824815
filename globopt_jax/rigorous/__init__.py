"""The rigorous part, in NumPy float64 and nothing else: read this folder to trust a certificate.

The problem is ``min f(W) = loss(sum_i phi(W_i), Y) + lam sum_i theta(W_i)`` over all weights and all widths r. For a
dual point V (an array like Y) whose polar ``P(-V) = sup <-V, phi(w)> over theta(w) <= 1`` is at most lam,

    f(W) >= <V, Phi> - loss*(V) + lam Theta >= -loss*(V)        for every W and every r,

by Fenchel-Young and the definition of the polar. So a certificate is V with a proof that ``P(-V) <= lam``, and this
folder computes both sides: `polar_bound`, an upper bound of P, and `dual_value`, a lower bound of ``-loss*(V)``. Each
adds what floating point arithmetic can have lost (u = 2^-53 is the unit roundoff), so both are true of the
stored arrays as exact real numbers. `objective` and `gradient` come with a bound of their own error.

`check_certificate` believes nothing: it looks at the shapes, signs and domains of everything that was stored before it
computes, and derives every number anew. Run it alone, without JAX: ``python -m globopt_jax.rigorous RUN_FOLDER``.
"""

from globopt_jax.rigorous.bounds import RESERVE, lower_bound, polar_at, polar_of, trivial_bound
from globopt_jax.rigorous.check import CheckResult, check_certificate, malformed
from globopt_jax.rigorous.folder import check_folder
from globopt_jax.rigorous.polar import BOUNDS, arcs, polar_bound
from globopt_jax.rigorous.relaxation import MANY_INPUTS, Multipliers, empty_multipliers, relaxation_bound
from globopt_jax.rigorous.sizes import spectral_norm
from globopt_jax.rigorous.values import dual_value, gradient, loss_value, objective, penalty, predict
from globopt_jax.rigorous.words import at_least, at_most, relative, sentence

__all__ = [
    "BOUNDS",
    "MANY_INPUTS",
    "RESERVE",
    "CheckResult",
    "Multipliers",
    "arcs",
    "at_least",
    "at_most",
    "check_certificate",
    "check_folder",
    "dual_value",
    "empty_multipliers",
    "gradient",
    "loss_value",
    "lower_bound",
    "malformed",
    "objective",
    "penalty",
    "polar_at",
    "polar_bound",
    "polar_of",
    "predict",
    "relative",
    "relaxation_bound",
    "sentence",
    "spectral_norm",
    "trivial_bound",
]


def __dir__() -> list[str]:
    """The public names alone: what an editor offers."""
    return __all__
