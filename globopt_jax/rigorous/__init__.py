"""The rigorous part of the package, in NumPy float64 alone: read this folder to trust a certificate.

The problem is ``min f(W) = loss(sum_i phi(W_i), Y) + lam sum_i theta(W_i)`` over all weights and all widths r. For a
dual point V (an array like Y) whose polar ``P(-V) = sup <-V, phi(w)> over theta(w) <= 1`` is at most lam,

    f(W) >= <V, Phi> - loss*(V) + lam Theta >= -loss*(V)        for every W and every r,

by Fenchel-Young and the definition of the polar; loss* is the conjugate of the loss, Phi the prediction and Theta the
sum of all theta(W_i). A certificate is therefore V with a proof that ``P(-V) <= lam``. This folder computes both parts:
`polar_bound` is an upper bound of P, and `dual_value` a lower bound of ``-loss*(V)``. Both include a margin for the
rounding of floating point arithmetic (u = 2^-53 is the unit roundoff), so that they are true of the stored arrays as
exact real numbers. `objective` and `gradient` return a bound of their error.

`check_certificate` trusts no stored number: it first checks the shapes, signs and domains of everything that was
stored, and then computes every number again. Run it without JAX: ``python -m globopt_jax.rigorous RUN_FOLDER``.
"""

from globopt_jax.rigorous.bounds import PRECISION, RESERVE, UNDERFLOW, lower_bound, polar_at, polar_of, trivial_bound
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
    "PRECISION",
    "RESERVE",
    "UNDERFLOW",
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
    """Return the public names, which an editor offers."""
    return __all__
