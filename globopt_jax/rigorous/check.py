"""The check of a stored certificate: every piece is inspected first, then every number is computed again."""

import math
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from globopt_jax.rigorous.bounds import PRECISION, UNDERFLOW, lower_bound, polar_at, trivial_bound
from globopt_jax.rigorous.polar import BOUNDS
from globopt_jax.rigorous.relaxation import Multipliers, empty_multipliers
from globopt_jax.rigorous.scaling import up
from globopt_jax.rigorous.sizes import NORMS
from globopt_jax.rigorous.values import kind_of, objective
from globopt_jax.rigorous.words import IN_WORDS, at_most, relative, sentence

__all__ = ["CheckResult", "check_certificate", "check_records", "malformed", "refused"]


class CheckResult(NamedTuple):
    """The result of a check."""

    holds: bool
    """Whether everything that was claimed is proved."""
    objective: float
    """The objective as computed again; nan where the pieces were refused."""
    lower_bound: float
    """The lower bound of the global minimum as computed again; -inf where none is proved."""
    polar_bound: float
    """The upper bound of the polar at minus the dual point; inf where none is known."""
    reason: str
    """A sentence that says what is proved, or why the certificate is refused."""


def refused(reason: str) -> CheckResult:
    """Return the result that nothing is proved, for this reason."""
    return CheckResult(False, math.nan, -math.inf, math.inf, reason)


def malformed(problem: Any, weights: Any, V: Any, multipliers: Sequence[Multipliers], X: Any, Y: Any) -> str | None:
    """Return what is wrong with the pieces of a certificate, or None; nothing is computed from them.

    Args:
        problem: plain values: bound, loss, lam, layers, slopes, theta, norms, sizes.
        weights: W1..WK, stacked subnetworks.
        V: the dual point (m, dy), or empty.
        multipliers: all multipliers that belong to the certificate.
        X: inputs (m, dx).
        Y: targets (m, dy).

    Returns:
        A sentence about the first piece that is wrong, or None.
    """
    if reason := _unknown_problem(problem):
        return reason
    if not isinstance(weights, list | tuple):
        return f"The weights: Expected: a list of arrays. Received: {type(weights).__name__}."
    if not all(isinstance(each, Multipliers) for each in multipliers):
        return f"The multipliers: Expected: rigorous.Multipliers. Received: {[type(m).__name__ for m in multipliers]}."
    arrays = {"X": X, "Y": Y, "the dual point": V}
    arrays |= {f"W{k + 1}": w for k, w in enumerate(weights)}
    named = [*arrays.items(), *(item for each in multipliers for item in each._asdict().items())]
    for name, array in named:
        array = np.asarray(array)
        if array.dtype.kind != "f" or array.dtype.itemsize > 8:
            return f"{name}: Expected: floating-point numbers. Received: dtype {array.dtype}."
        if not np.all(np.isfinite(array)):
            return f"{name}: Expected: finite numbers. Received: some that are not finite."
    X, Y, V = (np.asarray(a) for a in (X, Y, V))
    if reason := _unfit_data(problem, V, X, Y) or _unfit_weights(problem, weights, (X.shape[1], Y.shape[1])):
        return reason
    for each in multipliers:
        mu, Vz, Vn, N = (np.shape(a) for a in each)
        cuts = len(Vz) == len(Vn) == 2 and mu == Vz[:1] == Vn[:1] == (len(X),) and (Vz[1] + Vn[1],) * 2 == N
        if not cuts and any(np.size(a) for a in each):
            return (
                f"The multipliers: Expected: mu (m,), Vz and Vn (m, .), N square to match. Received: {mu, Vz, Vn, N}."
            )
    return None


def _unknown_problem(problem: Any) -> str | None:
    """Return what is wrong with the names and numbers that describe a problem, or None."""
    keys = ("bound", "loss", "lam", "layers", "slopes", "theta", "norms", "sizes")
    if not isinstance(problem, Mapping) or any(key not in problem for key in keys):
        return f"The problem's description lacks some of {', '.join(keys)}."
    layers, norms, sizes, slopes = (problem[key] for key in ("layers", "norms", "sizes", "slopes"))
    if problem["bound"] not in BOUNDS or problem["theta"] not in ("sum_of_powers", "product_of_norms"):
        return "The problem has a kind of bound or of penalty that cannot be checked."
    try:
        _ = kind_of(problem["loss"])
    except ValueError as error:
        return str(error)
    if not (_is_number(problem["lam"]) and problem["lam"] > 0):
        return f"lam: Expected: a finite number > 0. Received: {problem['lam']!r}."
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 1:
        return f"layers: Expected: an integer >= 1. Received: {layers!r}."
    if not isinstance(sizes, list | tuple) or any(type(size) is not int for size in sizes):
        return f"sizes: Expected: an integer for each layer. Received: {sizes!r}."
    if not (isinstance(slopes, list | tuple) and len(slopes) == 2 and all(map(_is_number, slopes))):
        return f"slopes: Expected: two finite numbers. Received: {slopes!r}."
    if not (isinstance(norms, list | tuple) and len(norms) == layers and all(n in NORMS for n in norms)):
        return f"norms: Expected: {layers} of {', '.join(NORMS)}. Received: {norms!r}."
    return None


def _unfit_data(problem: Mapping[str, Any], V: np.ndarray, X: np.ndarray, Y: np.ndarray) -> str | None:
    """Return what is wrong with the shapes of data and dual point, or with targets that do not suit the loss."""
    kind, _ = kind_of(problem["loss"])
    if X.ndim != 2 or Y.ndim != 2 or len(X) != len(Y) or not X.size or not Y.size:
        return f"X, Y: Expected: shapes (m, dx) and (m, dy). Received: {X.shape} and {Y.shape}."
    if V.size and V.shape != Y.shape:
        return f"The dual point: Expected: shape {Y.shape}, as Y. Received: {V.shape}."
    if kind == "logistic" and not np.all(np.abs(Y) == 1):
        return "Y: Expected: every entry -1 or 1 for the logistic loss. Received: others."
    if kind == "softmax_cross_entropy" and not (Y.shape[1] > 1 and np.all(Y >= 0) and np.all(Y <= 1)):
        return "Y: Expected: rows of the probability simplex for softmax cross-entropy. Received: others."
    return None


def _unfit_weights(problem: Mapping[str, Any], weights: Any, ends: tuple[int, int]) -> str | None:
    """Return what is wrong with the shapes of the weights, for `ends` = (inputs, outputs), or None."""
    layers, sizes = problem["layers"], problem["sizes"]
    shapes = [np.shape(w) for w in weights]
    if len(shapes) != layers or list(sizes) != [math.prod(s[1:]) for s in shapes]:
        return "The weights are not those of the problem described: other numbers of layers or of entries."
    same = len({s[:1] for s in shapes}) == 1 and shapes[0][:1] not in ((), (0,))
    neurons = layers == 2 and [s[1:] for s in shapes] == [ends[:1], ends[1:]]
    if "l21" in [n for n, s in zip(problem["norms"], shapes, strict=True) if len(s) != 3]:
        return "norms: Expected: l21 for kernels alone. Received: l21 for a layer of vectors."
    vectors = layers > 2 and list(problem["slopes"]) == [1, 1] and all(len(s) == 2 and s[1] for s in shapes)
    tensor = vectors and (shapes[0][1], math.prod(s[1] for s in shapes[1:])) == ends
    kernels = all(len(s) == 3 and all(s) for s in shapes)
    chain = kernels and all(a[2] == b[1] for a, b in pairwise(shapes)) and (shapes[0][1], shapes[-1][2]) == ends
    if not same or not (neurons or tensor or chain):
        wanted = f"stacked subnetworks from {ends[0]} inputs to {ends[1]} outputs"
        return f"The weights: Expected: {wanted}. Received: {shapes}."
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


class _Derived(NamedTuple):
    """The numbers of a certificate, computed from its pieces."""

    objective: float
    """The objective."""
    objective_error: float
    """A bound of the objective's rounding error."""
    lower_bound: float
    """The lower bound of the global minimum: the better one of the dual point's and the trivial one."""
    trivial: float
    """The lower bound that the dual point 0 proves."""
    polar_bound: float
    """The upper bound of the polar at minus the dual point."""
    polar_upper: float
    """The upper bound of the polar at minus the loss's gradient."""


def check_certificate(
    problem: Mapping[str, Any],
    weights: Sequence[np.ndarray],
    V: np.ndarray,
    multipliers: Multipliers,
    X: np.ndarray,
    Y: np.ndarray,
    claimed: Mapping[str, Any],
    polar_multipliers: Multipliers | None = None,
) -> CheckResult:
    """Compute objective, feasibility of the dual point and lower bound again, and compare them with the claims.

    The check accepts a claimed lower bound that is at most the proved one, and a claimed objective that agrees with the
    computed one up to the bound of its rounding error. Where this error is more than `PRECISION` of the objective, as
    for large subnetworks that cancel, the objective has to be claimed as an upper bound, error included. Pieces that do
    not fit together are refused, with the reason.

    Args:
        problem: plain values: bound, loss, lam, layers, slopes, theta, norms, sizes.
        weights: W1..WK, stacked subnetworks.
        V: the dual point (m, dy), or empty where there is none.
        multipliers: the multipliers of the polar's bound at -V.
        X: inputs (m, dx).
        Y: targets (m, dy).
        claimed: objective and lower_bound, and any other field of a certificate's record; each of them is compared,
            and names that no record has are ignored.
        polar_multipliers: the multipliers of the polar's bound at minus the loss's gradient, which prove a claimed
            ``polar_upper``.

    Returns:
        A `CheckResult`.

    Example:
        >>> problem = {"bound": "linear", "loss": "squared", "lam": 1.0, "layers": 2, "slopes": [1.0, 1.0]}
        >>> problem |= {"theta": "sum_of_powers", "norms": ["l2", "l2"], "sizes": [1, 1]}
        >>> one = np.ones((1, 1))  # f(w) = 1/2 (w1 w2 - 2)^2 + 1/2 (w1^2 + w2^2) at w = (1, 1), where it is minimal
        >>> claimed = {"objective": 1.5, "lower_bound": 1.499}
        >>> check_certificate(problem, [one, one], -0.9999 * one, empty_multipliers(), one, 2 * one, claimed).holds
        True
    """
    return check_records(
        problem, weights, V, multipliers, X, Y, {"": claimed}, polar_multipliers or empty_multipliers()
    )


def check_records(
    problem: Any,
    weights: Sequence[Any],
    V: Any,
    multipliers: Multipliers,
    X: Any,
    Y: Any,
    records: Mapping[str, Mapping[str, Any]],
    polar_multipliers: Multipliers,
) -> CheckResult:
    """Do `check_certificate` for several records of the same numbers; the keys of `records` name their places."""
    if reason := malformed(problem, weights, V, (multipliers, polar_multipliers), X, Y):
        return refused(reason)
    weights = [np.asarray(w, dtype=np.float64) for w in weights]
    X, Y, V = (np.asarray(a, dtype=np.float64) for a in (X, Y, V))
    problem = {**problem, "lam": float(problem["lam"]), "slopes": [float(s) for s in problem["slopes"]]}
    try:
        with np.errstate(all="ignore"):  # numbers that are not finite are refused below
            found = _derived(problem, weights, V, multipliers, polar_multipliers, X, Y)
    except (ArithmeticError, np.linalg.LinAlgError, MemoryError) as error:
        return refused(f"The numbers cannot be evaluated: {error or type(error).__name__}.")
    living = int(sum(np.any([np.any(w[i] != 0) for w in weights]) for i in range(len(weights[0]))))
    result = CheckResult(False, found.objective, found.lower_bound, found.polar_bound, "")
    for where, record in records.items():
        if not isinstance(record, Mapping):
            return result._replace(reason=f"The claims: Expected: a mapping. Received: {type(record).__name__}.")
        reason = _contradiction(record, found, problem, V, len(weights[0]) - living)
        if reason is not None:
            return result._replace(reason=f"{where}: {reason}" if where else reason)
    # The gap holds for the stored numbers: it includes the rounding of the objective.
    gap = up(max(found.objective + found.objective_error - found.lower_bound, 0.0))
    reason = (
        f"Proved: the objective {found.objective:.9g} is at most {at_most(gap, 6)} "
        f"({at_most(relative(gap, found.objective), 6)} of it) above the global minimum over all widths."
    )
    return result._replace(holds=True, reason=reason)


def _derived(
    problem: Mapping[str, Any],
    weights: Sequence[np.ndarray],
    V: np.ndarray,
    multipliers: Multipliers,
    polar_multipliers: Multipliers,
    X: np.ndarray,
    Y: np.ndarray,
) -> _Derived:
    value, error = objective(problem, weights, X, Y)
    trivial = trivial_bound(problem, X, Y)
    found, polar = lower_bound(problem, V, multipliers, X, Y) if V.size else (-math.inf, math.inf)
    upper = polar_at(problem, weights, polar_multipliers, X, Y)
    return _Derived(value, error, max(found, trivial), trivial, polar, upper)


def _contradiction(
    record: Mapping[str, Any], found: _Derived, problem: Mapping[str, Any], V: np.ndarray, zeros: int
) -> str | None:
    """Return the first contradiction between a record and the computed numbers, or None."""
    if not math.isfinite(found.objective) or not math.isfinite(found.objective_error):
        return "The weights give an objective that is not finite."
    if not math.isfinite(found.lower_bound):
        return "No lower bound is proved: neither the dual point nor 0 is feasible."
    claim = {}
    for name, value in record.items():
        if name in ("reason", "bound"):
            claim[name] = value
        elif name in _CHECKED:
            try:
                claim[name] = float(value)
            except (TypeError, ValueError, OverflowError):
                return f"{name}: Expected: a number. Received: {value!r}."
    return (
        _unproved(claim, found, problem, V)
        or _not_derived(record, claim, found, problem, zeros)
        or _out_of_order(claim, found)
        or _wrong_words(record, claim)
    )


def _unproved(claim: Mapping[str, Any], found: _Derived, problem: Mapping[str, Any], V: np.ndarray) -> str | None:
    """Return why the claimed objective or lower bound is not proved, or None."""
    value, bound = claim.get("objective", math.nan), claim.get("lower_bound", math.nan)
    error = found.objective_error
    if not -error <= value - found.objective <= 3 * error:  # an upper bound is twice the error above
        return f"Weights and data do not have the claimed objective {value:.17g}: it is {found.objective:.17g}."
    if not found.objective + error <= value + 2 * PRECISION * abs(value) + UNDERFLOW:
        return (
            f"The objective is claimed to be {value:.9g}, and rounding leaves it known only to be at most "
            f"{at_most(up(found.objective + error))}: subnetworks cancel."
        )
    if not bound <= found.lower_bound:
        why = (
            f"the dual point is not feasible: its polar is bounded by {found.polar_bound:.9g} > lam = "
            f"{problem['lam']:.9g}"
            if V.size and not found.polar_bound <= problem["lam"]
            else "the dual point does not give it"
        )
        return f"The claimed lower bound is not proved: {why}."
    if found.lower_bound > found.objective + found.objective_error:
        return "The lower bound exceeds the objective: the two contradict."
    return None


def _not_derived(
    record: Mapping[str, Any], claim: Mapping[str, Any], found: _Derived, problem: Mapping[str, Any], zeros: int
) -> str | None:
    """Return which claimed number differs from the number that follows from others, or None."""
    value, bound = claim["objective"], claim["lower_bound"]
    expected = {
        "lam": problem["lam"],
        "bound": problem["bound"],
        "gap": value - bound,
        "relative_gap": relative(value - bound, value),
        "rigorous": float(bound > found.trivial),
        "zero_subnetworks": zeros,
        "gap_estimate": value - claim.get("lower_bound_estimate", value),
        "theta_proved": 1.0,
        "bound_code": BOUNDS.index(problem["bound"]),
    }
    for name, right in expected.items():
        if name in claim and claim[name] != right:
            return f"{name} is said to be {record[name]}; it is {right}."
    return None


def _out_of_order(claim: Mapping[str, Any], found: _Derived) -> str | None:
    """Return which claimed number lies outside its possible range, or None."""
    value, bound = claim["objective"], claim["lower_bound"]
    if not claim.get("polar_upper", math.inf) >= found.polar_upper:
        return f"polar_upper is said to be {claim['polar_upper']:.9g}; the proved bound is {found.polar_upper:.9g}."
    if not bound <= claim.get("lower_bound_estimate", value) <= value:
        return "The estimate of the lower bound does not lie between the bound and the objective."
    if not claim.get("polar_lower", 0.0) <= claim.get("polar_upper", math.inf):
        return "The polar that a search found exceeds the polar's upper bound."
    if not 0 <= claim.get("targets_moved", 0.0) <= 1:
        return f"targets_moved is said to be {claim['targets_moved']}; no entry of a simplex moves so far."
    if claim.get("resolution", _RESOLUTIONS[0]) not in _RESOLUTIONS:
        return f"resolution is said to be {claim['resolution']}; it is one of {_RESOLUTIONS}."
    return None


def _wrong_words(record: Mapping[str, Any], claim: Mapping[str, Any]) -> str | None:
    """Return that the sentence does not say what the numbers say, or None if it does."""
    if "reason" in claim and (not record.keys() >= IN_WORDS or claim["reason"] != sentence(record)):
        return "The sentence does not say what the numbers say."
    return None


#: The values of ``resolution`` in float64 and in float32.
_RESOLUTIONS = (PRECISION, 2.0**-17)
_CHECKED = ("objective", "lower_bound", "gap", "relative_gap", "lower_bound_estimate", "gap_estimate", "polar_upper")
_CHECKED += ("polar_lower", "rigorous", "lam", "zero_subnetworks", "resolution", "theta_proved", "targets_moved")
_CHECKED += ("bound_code",)
