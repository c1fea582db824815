"""`classify`: the kind of a point (global minimum, saddle, not critical or undecided) and the evidence for it."""

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
    """The kind of a point and the evidence for it: a NamedTuple of NumPy arrays.

    The directions of the fit are the right singular vectors of the fitted values ``F = X X^+ Y``. A critical point
    keeps some of them: its predictions are ``F Pi`` with Pi the projector on the directions that it keeps.
    """

    code: Array
    """The index of the kind; ``.kind`` is its name."""
    loss: Array
    """The loss L of the weights."""
    optimum: Array
    """The global minimum L* of networks of these widths, in closed form."""
    gap: Array
    """``L - L*``, computed without subtracting the two losses."""
    gap_bound: Array
    """The upper bound of the gap that gradients and residual prove, see `suboptimality_bound`."""
    rounding: Array
    """The most by which the exact gap may differ from ``gap``."""
    hidden: Array
    """The part of ``rounding`` that comes from directions of X below its numerical rank."""
    scale: Array
    """The loss that a gap is compared with: what the optimum explains of Y, or less if that is mostly a constant."""
    tolerance: Array
    """The relative gap, and the stationarity, up to which a value counts as zero: sqrt(eps) of the dtype."""
    stationarity: Array
    """The dimensionless gradient eta, which does not depend on the units of the data."""
    rank: Array
    """The numerical rank of the product R of all kernels."""
    kept: Array
    """(n,), n = min(dx, dy): the share of each direction of the fit that the point keeps; 0 or 1 at critical points
    if the singular values are distinct."""
    assumptions: Array
    """(7,): bool, whether each of the papers' assumptions holds; ``.failures`` lists those that fail."""
    singular_values: Array
    """(n,): the singular values of the fitted values, largest first."""
    widths: Array
    """(H+2,): all widths d_0..d_{H+1}."""
    bottleneck: Array
    """p, the index in ``widths`` of the first layer of the smallest width k."""
    angle: Array
    """The largest principal angle in radians between the row space of S_p and the span of the top k directions; pi/2
    where their dimensions differ."""
    strict: Array
    """1 for a strict saddle (its Hessian has a negative eigenvalue), 0 for any other saddle, -1 for other points. The
    ranks of the partial products decide."""
    curvature: Array
    """The lowest Rayleigh quotient of the Hessian that Lanczos found, over the largest |eigenvalue| that it found; nan
    where the point is no saddle."""

    @property
    def kind(self) -> str:
        """One of "global_minimum", "saddle", "not_critical", "undecided"."""
        return KINDS[int(self.code)]

    @property
    def is_strict(self) -> bool | None:
        """Whether a saddle is strict (has negative curvature in some direction); None where the point is no saddle."""
        return None if int(self.strict) < 0 else bool(self.strict)

    @property
    def theorem(self) -> str:
        """The theorem that applies to this shape of network."""
        wide = int(min(self.widths)) == min(int(self.widths[0]), int(self.widths[-1]))
        return "YSJ18 Theorem 2.1" if wide else "YSJ18 Theorem 2.2"

    @property
    def failures(self) -> tuple[str, ...]:
        """The papers' assumptions that fail here, each with the consequence."""
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
    """Classify a point of a deep linear network: global minimum, saddle, not critical, or undecided.

    The kind follows from the loss and its closed-form optimum L*. Ranks and subspaces explain it. Let eta be the
    dimensionless gradient (``.stationarity``), let the scale be the loss that the optimum explains (``.scale``), and
    let the tolerance be sqrt(eps) of the dtype, 1.5e-8 in float64 and 3e-4 in float32. The kind is

    - "global_minimum" if ``L - L* <= tolerance * scale``. Exception: a stationary point that lacks a weak direction of
      the fit entirely is a saddle.
    - "not_critical" if the gap is larger and ``eta > tolerance``.
    - "saddle" if the gap is larger and ``eta <= tolerance``: a critical point above the optimum is always a saddle
      (YSJ18 Theorems 2.1, 2.2 and Lemma B.1).
    - "undecided" if ``eta <= tolerance`` and the gap is larger, but the point does not look like a saddle: its product
      is no projection of the fit, or keeps every direction of the fit, or there is no hidden layer. Such a point most
      likely lies near a global minimum of a badly conditioned problem.
    - "undecided" if rounding may hide the gap: X explains little of Y, or X explains a large constant and little else,
      or X may have directions below its numerical rank (`known_rank`). ``.reason`` says which case it is.

    A saddle is strict if its Hessian has a negative eigenvalue. The ranks of the partial products decide whether it is
    (Achour, Malgouyres & Gerchinovitz 2024), and the most negative curvature that Lanczos finds is a second witness.

    A host function: it compiles once for each shape.

    Args:
        weights: the kernels W_l (d_{l-1}, d_l), l = 1..H+1.
        X: inputs (m, dx).
        Y: targets (m, dy).
        key: the random key of the start of Lanczos; None is a fixed key.
        lanczos_steps: the most Hessian-vector products at a saddle, at least 1. None is 40 up to 20,000 weights, and
            800,000 over the number of weights above that (at least 4), so that large networks do not take long.

    Returns:
        A `Classification`; ``.kind`` is the kind, ``.reason`` explains it in a few sentences.

    Raises:
        ValueError: the shapes do not fit, an array has NaN or inf, squares of entries overflow, or lanczos_steps is
            below 1.
        TypeError: an array does not hold real numbers, or the key is no random key.

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
    """Return the judgement, the point and the fit.

    The fit and the judgement are two compiled programs, since in a single one the factorizations would compete for
    the processor.
    """
    fit = proved_fit(X, Y)
    return *_judgement(weights, fit, len(X)), fit


_judgement = jax.jit(judgement_at, static_argnums=2)
_is_strict = jax.jit(second_order.is_strict)
lowest_curvature = jax.jit(second_order.lowest, static_argnums=3)


def _angle(suffix: np.ndarray, rank: int, top: np.ndarray) -> float:
    """Return the largest principal angle between the row space of S_p (k, dy) and the columns of U_k (dy, k)."""
    from scipy.linalg import subspace_angles  # imported here since scipy.linalg loads slowly

    if rank < len(suffix) or not np.all(np.any(top, axis=0)):
        return np.pi / 2
    return float(np.max(subspace_angles(suffix.T, top)))


def _sentences(found: Classification) -> list[str]:
    """Return the sentences of ``.reason``: the values, the evidence, and the assumptions of the theorems that fail."""
    k, tolerance = int(min(found.widths)), float(found.tolerance)
    n, size = round(float(np.sum(found.kept))), float(found.scale)
    relative = max(float(found.gap), 0.0) / size if size else 0.0  # a negative gap is rounding
    value = (
        f"The loss is {float(found.loss):.6g}, the optimum for networks whose narrowest layer has {k} units is "
        f"{float(found.optimum):.6g}"
    )
    eta = f"dimensionless gradient {float(found.stationarity):.2g}"
    words = {
        "global_minimum": [
            f"{value}: a global minimum to the tolerance (the gap is {relative:.2g} of the loss that the optimum "
            f"explains; up to {tolerance:.2g} counts as zero)."
        ],
        "not_critical": [
            f"{value}, and the {eta} is above the tolerance {tolerance:.2g}: no critical point. The gap is "
            f"{float(found.gap):.4g}; gradients and residual prove that it is at most {float(found.gap_bound):.4g}.",
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
        words.append("Assumptions of the papers: " + "; ".join(found.failures) + ".")
    return words


def _coarse(found: Classification) -> list[str]:
    """Return a hint where the gradient is as small as that of a critical point that was rounded to float32."""
    if found.loss.dtype == np.float32 or float(found.stationarity) > 10 * linalg.machine_epsilon(np.float32):
        return []
    return ["If the weights were rounded to float32, the gradient can be no smaller than this: classify in float32."]


def _doubt(found: Classification, eta: str) -> str:
    """Explain why a point is undecided."""
    gap, rounding, size = float(found.gap), float(found.rounding), float(found.scale)
    tolerance = float(found.tolerance)
    if gap <= rounding:
        explained = float(0.5 * np.sum(np.square(found.singular_values[: int(min(found.widths))])))
        hides = f"The gap {gap:.2g} is not above its possible rounding error {rounding:.2g}, since "
        if float(found.hidden) > 0.5 * rounding:
            return (
                f"{hides}X may have directions below its numerical rank, which could explain this much of Y. Center "
                "the inputs, leave out columns that are combinations of others, or use float64."
            )
        if size < tolerance**0.5 * explained:
            return (
                f"{hides}the fit explains mostly a constant ({explained:.2g}) and little else ({size:.2g}). Center the "
                "targets and the inputs, or use float64."
            )
        return (
            f"{hides}X explains little of Y, or has columns that nearly depend on others. Center both, or use float64."
        )
    return (
        f"The {eta} is below the tolerance {float(found.tolerance):.2g}, but the gap is {float(found.gap):.2g}, and "
        "the product either is not that of a critical point or keeps every direction of the fit. Most likely the point "
        "lies near a global minimum of a badly conditioned problem. Train on, scale the features alike, or use float64."
    )


def _curvature(found: Classification) -> str:
    witness = f"the lowest relative curvature that Lanczos found is {float(found.curvature):.2g}"
    negative = float(found.curvature) < -float(found.tolerance)
    if bool(found.strict):
        doubt = "" if negative else " (which does not show it: the negative curvature may be too small to be found)"
        return f"It is a strict saddle by the ranks of its partial products; {witness}{doubt}."
    doubt = " (a contradiction: the point may only be near a degenerate saddle)" if negative else ""
    return f"It is a degenerate saddle, flat to second order, by the ranks of its partial products; {witness}{doubt}."


def _structure(found: Classification, n: int) -> str:
    k = int(min(found.widths))
    needed = found.assumptions[0] if found.theorem.endswith("2.1") else found.assumptions[1]
    if not needed:
        return f"The loss decides this alone; {found.theorem} does not apply, since one of its assumptions fails."
    if n < k:
        return f"{found.theorem} agrees: the product keeps {n} directions, and a global minimum keeps {k}."
    if found.theorem.endswith("2.1"):
        return f"{found.theorem} agrees: the product keeps all {k} directions."
    return (
        f"{found.theorem}: the product keeps {k} directions, and the row space of S_{int(found.bottleneck)} is "
        f"{float(found.angle):.2g} rad away from the span of the top {k}."
    )
