"""The certificate: what is known about given weights, as arrays, as a sentence, and on disk."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from globopt_jax.homogeneous import rigorous
from globopt_jax.homogeneous.polar import bound_kind
from globopt_jax.homogeneous.problem import Problem
from globopt_jax.homogeneous.regularizers import ProductOfNorms
from globopt_jax.homogeneous.rigorous import Multipliers
from globopt_jax.shapes import Array, Params

__all__ = ["Certificate", "describe"]


class Certificate(NamedTuple):
    """What is known about given weights; arrays only, numbers are 0-d NumPy float64.

    Rigorous, always: ``objective`` of the weights; ``lower_bound`` of the global minimum over all widths; ``gap`` =
    objective - lower_bound and ``relative_gap`` = gap / |objective|; ``polar_upper`` >= polar(-G) (inf where no bound
    is known). Estimates, from searches: ``polar_lower`` (attained by a subnetwork, so a true lower bound of the polar),
    ``lower_bound_estimate``, ``gap_estimate``.

    ``rigorous`` (0-d bool): a bound better than the trivial one (the loss's minimum) was proved. ``residuals`` (r,):
    first-order residual of each subnetwork, ``<-G, phi_i> / lam - theta_i`` over the sum of the thetas, 0 at
    local minima (K18 (A.10)). ``zero_subnetworks``: how many are all zero. ``resolution``: the relative gap below
    which the dtype computed in resolves nothing. ``dual_point`` (m, dy) and ``multipliers`` prove the lower bound.
    """

    objective: Array
    lower_bound: Array
    gap: Array
    relative_gap: Array
    lower_bound_estimate: Array
    gap_estimate: Array
    polar_upper: Array
    polar_lower: Array
    rigorous: Array
    lam: Array
    residuals: Array
    zero_subnetworks: Array
    resolution: Array
    bound_code: Array
    dual_point: Array
    multipliers: Multipliers

    @property
    def bound(self) -> str:
        """The kind of upper bound of the polar that was used (`rigorous.BOUNDS`)."""
        return rigorous.BOUNDS[int(self.bound_code)]

    @property
    def reason(self) -> str:
        """The certificate in a few sentences."""
        gap, estimate = (
            float(self.relative_gap),
            float(self.gap_estimate / max(abs(float(self.objective)), 1e-300)),
        )
        over = float(self.polar_lower / self.lam)
        text = (
            f"The objective is {float(self.objective):.6g}; no network of any width goes below "
            f"{float(self.lower_bound):.6g}. "
        )
        if not bool(self.rigorous):
            text += "That bound is the trivial one: nothing better was proved. "
        if gap < 0:  # rounding is clamped away before
            text += "The two contradict each other: a bound is wrong, or a penalty is negative somewhere. "
        elif gap <= float(self.resolution):
            text += f"This is a global minimum to the precision of the computation ({float(self.resolution):.1g}). "
        else:
            text += f"So at most {_percent(gap)} of it can be gained. "
        if over > 1 + 1e-4:
            text += f"A search found a direction with a polar of {over:.5g} lam: appending it goes down."
        else:
            text += (
                f"A search found no direction whose polar stands out above lam (at most {over:.7g} lam; estimated gap "
                f"{_percent(max(estimate, 0.0))})."
            )
        return text

    def __str__(self) -> str:
        return self.reason

    def to_json(self) -> dict[str, Any]:
        """The numbers, without the dual point and the multipliers, as plain values (inf as a string)."""
        skip = ("dual_point", "multipliers", "bound_code", "residuals")
        numbers = {name: getattr(self, name).item() for name in self._fields if name not in skip}
        numbers["largest_residual"] = float(np.max(np.abs(self.residuals), initial=0.0))
        plain = {k: v if not isinstance(v, float) or np.isfinite(v) else str(v) for k, v in numbers.items()}
        return {**plain, "bound": self.bound, "reason": self.reason}

    def save(self, path: str | Path) -> None:
        """Write all arrays to an .npz file."""
        arrays = {n: np.asarray(a) for n, a in self._asdict().items() if n != "multipliers"}
        np.savez(path, allow_pickle=False, **arrays, **self.multipliers._asdict())

    @classmethod
    def load(cls, path: str | Path) -> "Certificate":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            multipliers = Multipliers(*(stored[n] for n in Multipliers._fields))
            fields = {n: stored[n] for n in cls._fields if n != "multipliers"}
            return cls(**fields, multipliers=multipliers)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.3g} %"


def describe(problem: Problem, params: Params, dx: int) -> dict[str, Any]:
    """The problem in plain values, as `rigorous` and a stored certificate know it."""
    leaves = jax.tree.leaves(params)
    kind = bound_kind(problem, dx)
    plain: dict[str, Any] = {
        "bound": kind,
        "loss": problem.loss.name,
        "lam": float(problem.lam),
        "layers": len(leaves),
    }
    if kind == "none":
        return plain
    theta: Any = problem.theta
    return (
        plain
        | {
            "slopes": list(problem.phi.slopes),  # pyright: ignore[reportAttributeAccessIssue]
            "theta": "product_of_norms" if isinstance(theta, ProductOfNorms) else "sum_of_powers",
            "norms": list(theta.layer_norms(params)),
            "sizes": [int(np.prod(w.shape[1:])) for w in leaves],
        }
    )
