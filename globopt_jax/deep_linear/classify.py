"""`classify`: a point's name, with the evidence for it."""

from typing import Any, NamedTuple

import jax
import numpy as np

from globopt_jax import linalg, results
from globopt_jax.deep_linear import second_order
from globopt_jax.deep_linear.fit import Fit, proved_fit
from globopt_jax.deep_linear.inputs import check
from globopt_jax.deep_linear.judgement import ASSUMPTIONS, KINDS, Judgement, judgement_at
from globopt_jax.deep_linear.network import Weights, widths_of
from globopt_jax.deep_linear.point import Point
from globopt_jax.inputs import check_key, integer
from globopt_jax.shapes import Array, Inputs, Targets

__all__ = ["Classification", "classify", "judge", "lowest_curvature"]


class Classification(NamedTuple):
    """A verdict and its evidence; arrays only (NumPy), `.kind` and `.reason` are read off them.

    ``code``, ``loss``, ``optimum``, ``gap``, ``gap_bound``, ``rounding``, ``hidden``, ``scale``, ``tolerance``,
    ``stationarity``, ``rank``, ``kept``, ``assumptions``: see `Judgement`.
    ``singular_values`` (n,): of the fitted values. ``widths`` (H+2,).
    ``bottleneck``: p, the first layer of the smallest width k. ``angle``: the largest principal angle, in radians,
    between the row space of S_p and the span of the top k directions, pi/2 where their dimensions differ.
    ``strict``: 1 where a saddle has negative curvature by the ranks of its partial products, 0 where not, -1 where
    the point is no saddle. ``curvature``: the lowest Rayleigh quotient of the Hessian that Lanczos found, relative to
    the largest eigenvalue found; nan where the point is no saddle and nobody looked.
    """

    code: Array
    loss: Array
    optimum: Array
    gap: Array
    gap_bound: Array
    rounding: Array
    hidden: Array
    scale: Array
    tolerance: Array
    stationarity: Array
    rank: Array
    kept: Array
    assumptions: Array
    singular_values: Array
    widths: Array
    bottleneck: Array
    angle: Array
    strict: Array
    curvature: Array

    @property
    def kind(self) -> str:
        """One of "global_minimum", "saddle", "not_critical", "undecided"."""
        return KINDS[int(self.code)]

    @property
    def is_strict(self) -> bool | None:
        """Whether a saddle is strict; None where the point is no saddle."""
        return None if int(self.strict) < 0 else bool(self.strict)

    @property
    def theorem(self) -> str:
        """The theorem that speaks of this shape of network."""
        wide = int(min(self.widths)) == min(int(self.widths[0]), int(self.widths[-1]))
        return "YSJ18 Theorem 2.1" if wide else "YSJ18 Theorem 2.2"

    @property
    def failures(self) -> tuple[str, ...]:
        """The papers' assumptions that fail here, each with what that costs."""
        return tuple(
            f"{name} fails: {cost}"
            for (name, cost), holds in zip(ASSUMPTIONS, self.assumptions, strict=True)
            if not holds
        )

    @property
    def reason(self) -> str:
        """The verdict in a few sentences."""
        return " ".join(_sentences(self))

    __str__ = results.words
    to_json = results.to_json
    save = results.save
    load = classmethod(results.load)


def classify(
    weights: Any, X: Any, Y: Any, *, key: Any | None = None, lanczos_steps: int | None = None
) -> Classification:
    """Say whether a deep linear network sits at a global minimum, at a saddle, or is still moving.

    The loss against its closed-form optimum decides; ranks and subspaces explain. With eta the dimensionless gradient
    (`Judgement`), and sqrt(eps) the tolerance for both:

    - ``gap <= tolerance`` times what a global minimum explains, and gains on the best constant (`Judgement.scale`):
      "global_minimum", unless the point is stationary and leaves out a weak direction of the fit altogether (then it is
      a saddle);
    - else ``eta > tolerance``: "not_critical";
    - else "saddle": a critical point above the optimum is nothing else (YSJ18 Theorems 2.1, 2.2 and Lemma B.1);
    - "undecided" where a point is stationary to the tolerance, but its product is no projection of the fit, or has
      every direction of it, or there is no hidden layer: a badly conditioned neighbourhood of a global minimum; and
      where rounding may hide the gap: X explains little of Y, or a large constant and little else, or has directions
      below its numerical rank of which nobody knows what they are (`known_rank`). The reason says which.

    A saddle is called strict by the ranks of its partial products (`second_order.is_strict`), with the most negative
    curvature that Lanczos finds as a second witness. In float32 the tolerance is 3e-4, and decisions are as coarse.

    Host function: jits inside, one compilation a shape.

    Args:
        weights: kernels W_l (d_{l-1}, d_l), l = 1..H+1. X: (m, dx). Y: (m, dy).
        key: of the start of Lanczos; None: a fixed one.
        lanczos_steps: Hessian-vector products at a saddle, at least 1; None: 40, fewer above 20,000 weights (800,000
            over their number, at least 4), so that a verdict on a large network does not wait for its witness.

    Raises:
        ValueError: shapes that do not fit, NaN or inf, entries whose squares overflow, steps below 1.
        TypeError: arrays that are not real numbers, a key that is none.

    Example:
        >>> X, Y = np.eye(2), np.diag([3.0, 1.0])
        >>> found = classify([np.zeros((2, 2))] * 3, X, Y)
        >>> found.kind, round(float(found.loss), 9), round(float(found.optimum), 9), found.is_strict
        ('saddle', 5.0, 0.0, False)
    """
    weights, X, Y = check(weights, X, Y)
    key = jax.random.key(0) if key is None else check_key(key)
    size = sum(w.size for w in weights)
    steps = max(4, min(40, 800_000 // size)) if lanczos_steps is None else integer("lanczos_steps", lanczos_steps)
    judgement, point, fit = judge(weights, X, Y)
    strict, curvature = -1, np.nan
    if KINDS[int(judgement.code)] == "saddle":
        found = lowest_curvature(weights, fit, key, steps)
        strict, curvature = int(_is_strict(weights, point, fit)), float(found.value) / (float(found.scale) or 1.0)
    widths = widths_of(weights)
    bottleneck = widths.index(min(widths))
    suffix, top = np.asarray(point.after[bottleneck]), np.asarray(fit.directions)[:, : min(widths)]
    numbers = jax.tree.map(np.asarray, judgement)
    dtype = numbers.loss.dtype
    return Classification(
        **numbers._asdict(),
        singular_values=np.asarray(fit.singular_values),
        widths=np.asarray(widths),
        bottleneck=np.asarray(bottleneck),
        angle=np.asarray(_angle(suffix, int(_numerical_rank(point.after[bottleneck])), top), dtype),
        strict=np.asarray(strict),
        curvature=np.asarray(curvature, dtype),
    )


_numerical_rank = jax.jit(linalg.numerical_rank)


def judge(weights: Weights, X: Inputs, Y: Targets) -> tuple[Judgement, Point, Fit]:
    """The verdict, and what it was read off: two programs, since one would run factorizations against each other."""
    fit = proved_fit(X, Y)
    return *_judgement(weights, fit, len(X)), fit


_judgement = jax.jit(judgement_at, static_argnums=2)
_is_strict = jax.jit(second_order.is_strict)
lowest_curvature = jax.jit(second_order.lowest, static_argnums=3)


def _angle(suffix: np.ndarray, rank: int, top: np.ndarray) -> float:
    """The largest principal angle between the row space of S_p (k, dy) and the columns of U_k (dy, k)."""
    from scipy.linalg import subspace_angles  # late: scipy.linalg takes a while to load

    if rank < len(suffix) or not np.all(np.any(top, axis=0)):
        return np.pi / 2
    return float(np.max(subspace_angles(suffix.T, top)))


def _sentences(found: Classification) -> list[str]:
    """What happened, what decided, and what of the theorems' assumptions fails."""
    k, tolerance = int(min(found.widths)), float(found.tolerance)
    n, size = round(float(np.sum(found.kept))), float(found.scale)
    relative = max(float(found.gap), 0.0) / size if size else 0.0  # below 0 is rounding
    value = (
        f"The loss is {float(found.loss):.6g}, the optimum for networks whose narrowest layer has {k} units is "
        f"{float(found.optimum):.6g}"
    )
    eta = f"gradient {float(found.stationarity):.2g} (free of units)"
    words = {
        "global_minimum": [
            f"{value}: a global minimum to the tolerance ({relative:.2g} of what it explains, {tolerance:.2g} counts "
            "as zero)."
        ],
        "not_critical": [
            f"{value}, and the {eta} is above the tolerance {tolerance:.2g}: no critical point. Gradients and "
            f"residual prove that at most {float(found.gap_bound):.4g} can be gained; it is {float(found.gap):.4g}.",
            *_coarse(found),
        ],
        "undecided": [f"{value}. {_doubt(found, eta)}"],
        "saddle": [
            f"{value}, and the {eta} is below the tolerance {tolerance:.2g}: a saddle that keeps {n} directions of the "
            f"fit, {float(found.gap):.6g} above the optimum."
        ],
    }[found.kind]
    if found.kind == "saddle":
        words.append(_curvature(found))
    if found.kind in ("saddle", "global_minimum"):
        words.append(_structure(found, n))
    if found.failures:
        words.append("Of the papers' assumptions " + "; ".join(found.failures) + ".")
    return words


def _coarse(found: Classification) -> list[str]:
    """What float32 does to a critical point moves its gradient by that much."""
    if found.loss.dtype == np.float32 or float(found.stationarity) > 10 * linalg.machine_epsilon(np.float32):
        return []
    return ["Weights that were rounded to float32 come no nearer to a critical point than this: judge them in float32."]


def _doubt(found: Classification, eta: str) -> str:
    """Why a point has no name."""
    gap, rounding, size = float(found.gap), float(found.rounding), float(found.scale)
    tolerance = float(found.tolerance)
    if gap <= rounding:
        explained = float(0.5 * np.sum(np.square(found.singular_values[: int(min(found.widths))])))
        hides = f"The gap {gap:.2g} is within what rounding may do to it ({rounding:.2g}), since "
        if float(found.hidden) > 0.5 * rounding:
            return (
                f"{hides}X may have directions below its numerical rank, which could explain so much of Y. Center the "
                "inputs, leave out columns that others make up, or use float64."
            )
        if size < tolerance**0.5 * explained:
            return (
                f"{hides}the fit explains a constant ({explained:.2g}), and little besides ({size:.2g}). Center the "
                "targets and the inputs, or use float64."
            )
        return (
            f"{hides}X explains little of Y, or has columns that nearly depend on others. Center both, or use float64."
        )
    return (
        f"The {eta} is below the tolerance {float(found.tolerance):.2g}, but the product is that of no critical point, "
        f"or has every direction of the fit, and a gap of {float(found.gap):.2g} is left: most likely a badly "
        "conditioned neighbourhood of a global minimum. Train on, scale the features alike, or use float64."
    )


def _curvature(found: Classification) -> str:
    witness = f"the lowest relative curvature that Lanczos found is {float(found.curvature):.2g}"
    negative = float(found.curvature) < -float(found.tolerance)
    if bool(found.strict):
        doubt = "" if negative else " (no witness: the curvature may be too slight to be seen)"
        return f"It is a strict saddle by the ranks of its partial products; {witness}{doubt}."
    doubt = " (a contradiction: the point may only be near a degenerate saddle)" if negative else ""
    return f"It is a degenerate saddle, flat to second order, by the ranks of its partial products; {witness}{doubt}."


def _structure(found: Classification, n: int) -> str:
    k = int(min(found.widths))
    needed = found.assumptions[0] if found.theorem.endswith("2.1") else found.assumptions[1]
    if not needed:
        return f"The value says so; {found.theorem} cannot, from the structure, since an assumption fails."
    if n < k:
        return f"{found.theorem} agrees: the product keeps {n} directions where a global minimum keeps {k}."
    if found.theorem.endswith("2.1"):
        return f"{found.theorem} agrees: the product keeps all {k} directions."
    return (
        f"{found.theorem}: the product keeps {k} directions, and the row space of S_{int(found.bottleneck)} is "
        f"{float(found.angle):.2g} rad away from the span of the top {k}."
    )
