"""Upper bounds of the polar, one class for each kind: where it applies, whether it is exact, its known directions.

`bound_of` chooses the kind. `rigorous` computes the numbers in NumPy, with margins for rounding. Files store the kind
by its name (`rigorous.BOUNDS`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from globopt_jax import rigorous
from globopt_jax.homogeneous.cones import NonNegative
from globopt_jax.homogeneous.maps import PiecewiseLinear
from globopt_jax.homogeneous.problem import Problem
from globopt_jax.homogeneous.regularizers import Layered
from globopt_jax.homogeneous.tensors import CPTensor
from globopt_jax.shapes import Params

__all__ = ["Arcs", "Known", "Linear", "PolarBound", "Product", "Relaxation", "Unfoldings", "WithoutCone"]
__all__ += ["bound_of"]


class Known(NamedTuple):
    """Directions that a bound knows: subnetworks with positive ``<U, phi(w)>``."""

    params: Params
    """The subnetworks; every layer has norm 1."""
    attain: bool
    """Whether one of them attains the polar."""


@dataclass(frozen=True)
class PolarBound:
    """The kind "none", without a bound: of a user's own map or penalty only the degree is known."""

    name = "none"
    #: Whether the bound is the polar itself, up to rounding.
    is_exact = False
    #: Whether the bound has multipliers, which are fitted (`relaxation`).
    has_multipliers = False

    @property
    def exists(self) -> bool:
        """Whether there is a bound that is not infinite."""
        return self.name != "none"

    def upper(
        self, description: Mapping[str, Any], U: np.ndarray, X: np.ndarray, multipliers: rigorous.Multipliers
    ) -> float:
        """Return an upper bound of the polar at U (m, dy) for inputs X (m, dx) and the described problem."""
        return rigorous.polar_of(description, self.name, U, multipliers, X) if self.exists else np.inf

    def directions(self, U: np.ndarray, X: np.ndarray, template: Params) -> Known | None:
        """Return the directions that are known at U, as weights of the template's shape, or None."""
        return None


@dataclass(frozen=True)
class _Catalogue(PolarBound):
    """A bound for piecewise linear subnetworks whose penalty consists of layer norms."""

    phi: PiecewiseLinear
    theta: Layered


@dataclass(frozen=True)
class Linear(_Catalogue):
    """Linear activations, or one layer of weights: exact; for l2 norms the spectral norm of ``X^T U``."""

    name = "linear"
    is_exact = True

    def directions(self, U: np.ndarray, X: np.ndarray, template: Params) -> Known | None:
        """Return the singular vectors of ``X^T U``; for one neuron with an l1 norm, coordinate vectors."""
        norms, slope, hidden = self.theta.layer_norms(template), self.phi.slopes[1], self.phi.layers - 1
        if not hidden:
            return None
        coordinates = self.phi.is_neuron and "l1" in norms
        if coordinates:
            first, last = _along_coordinates(X.T @ U * slope, norms, 0.0)
        else:
            left, sigma, right = np.linalg.svd(X.T @ U * abs(slope) ** hidden, full_matrices=False)
            first, last = left.T[sigma > 0], right[sigma > 0] * np.sign(slope) ** hidden
        return Known(self.phi.thin(first, last, template), coordinates or self.theta.is_l2) if len(first) else None


@dataclass(frozen=True)
class Arcs(_Catalogue):
    """One hidden layer, dx <= 2: exact, since every arc of constant activation pattern has a closed form."""

    name = "arcs"
    is_exact = True

    def directions(self, U: np.ndarray, X: np.ndarray, template: Params) -> Known | None:
        """Return the best directions of the arcs that are local maxima on the circle, at most 64."""
        negative, positive = self.phi.slopes
        values, angles, _ = rigorous.arcs(U, X, self.phi.slopes)
        # An arc's maximum is a local maximum on the circle iff no neighbour's is larger; arcs share their ends.
        keep = (values > 0) & (values >= np.roll(values, 1)) & (values >= np.roll(values, -1))
        order = np.argsort(-values[keep])[:64]
        t = np.unique(np.round(np.mod(angles[keep][order], 2 * np.pi), 12), return_index=True)[1]
        t = angles[keep][order][np.sort(t)]
        first = np.stack([np.cos(t), np.sin(t)], axis=1)[:, : X.shape[1]]
        a = X @ first.T
        last = np.where(a > 0, positive * a, negative * a).T @ U
        sizes = np.linalg.norm(last, axis=1, keepdims=True)
        last = last / np.where(sizes > 0, sizes, 1)
        return Known(self.phi.thin(first, last, template), self.theta.is_l2) if len(first) else None


@dataclass(frozen=True)
class Relaxation(_Catalogue):
    """One hidden layer, any dx and dy: a semidefinite relaxation in its dual."""

    name = "relaxation"
    has_multipliers = True


@dataclass(frozen=True)
class Product(_Catalogue):
    """Any depth: a product of spectral norms, which is true but often much larger than the polar."""

    name = "product"


@dataclass(frozen=True)
class Unfoldings(PolarBound):
    """Tensors of rank one: the smallest spectral norm of an unfolding of the tensor ``X^T U``."""

    name = "unfoldings"


@dataclass(frozen=True)
class WithoutCone(PolarBound):
    """The bound for all weights, of a penalty that is finite in a cone alone: it holds there too, but is not exact."""

    whole: PolarBound

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def has_multipliers(self) -> bool:
        return self.whole.has_multipliers


def bound_of(problem: Problem, dx: int) -> PolarBound:
    """Return the kind of upper bound of the polar that applies to the problem with inputs of dimension dx.

    >>> from globopt_jax import homogeneous, losses
    >>> p = homogeneous.Problem(homogeneous.relu_neuron(), homogeneous.sum_of_powers(), losses.squared, 1.0)
    >>> bound_of(p, 2).name, bound_of(p, 2).is_exact, bound_of(p, 3).name
    ('arcs', True, 'relaxation')
    """
    phi, theta = problem.phi, problem.theta
    if isinstance(theta, NonNegative):
        return WithoutCone(bound_of(Problem(phi, theta.theta, problem.loss, problem.lam), dx))
    if isinstance(phi, CPTensor) and isinstance(theta, Layered):
        return Unfoldings()
    if not (isinstance(phi, PiecewiseLinear) and isinstance(theta, Layered)):
        return PolarBound()
    if not phi.has_kinks:
        return Linear(phi, theta)
    if phi.layers > 2:
        return Product(phi, theta)
    return Arcs(phi, theta) if dx <= 2 else Relaxation(phi, theta)


def _along_coordinates(M: np.ndarray, norms: tuple[str, ...], floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Maximize ``w1^T M w2`` where one norm is l1: return coordinate vectors in that layer, and best replies to them.

    Only pairs with a value above the floor are returned, the best first.
    """
    if norms[0] != "l1":
        last, first = _along_coordinates(M.T, norms[::-1], floor)
        return first, last
    replies = {"l1": np.eye(M.shape[1])[np.abs(M).argmax(axis=1)] * np.sign(M), "l2": M, "linf": np.sign(M)}[norms[1]]
    sizes = {"l1": 1.0, "l2": np.linalg.norm(M, axis=1, keepdims=True), "linf": 1.0}[norms[1]]
    replies = replies / np.where(sizes == 0, 1.0, sizes)
    values = (M * replies).sum(axis=1)
    order = np.argsort(-values)
    order = order[values[order] > floor]
    return np.eye(len(M))[order], replies[order]
