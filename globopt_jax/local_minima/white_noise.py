"""One hidden layer on white noise: how much of the targets a fixed activation pattern explains (KHK19 section 3.2)."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax import linalg, results
from globopt_jax.inputs import check_key, finite, integer, number
from globopt_jax.linalg import matmul, svd
from globopt_jax.shapes import Array

__all__ = ["PhaseChange", "WhiteNoiseBound", "phase_change", "smallest_pattern_value", "white_noise_bound"]
__all__ += ["white_noise_quantile"]

#: All sets of rows are tried if their entries are that many, at most.
ENTRIES = 20_000_000


class WhiteNoiseBound(NamedTuple):
    """``L <= factor 1/2 ||Y||^2`` with at least that ``probability``.

    ``regime``: 1 or 2, the part of Proposition 2 that applies; 0: neither does, and the bound is the trivial one.
    ``least`` (2,): the number of samples that part i asks for, and the product d dx that part ii asks for.
    """

    factor: Array
    probability: Array
    regime: Array
    least: Array

    @property
    def reason(self) -> str:
        """The result in a sentence."""
        if int(self.regime) == 0:
            return (
                f"Proposition 2 says nothing here: part i needs m >= {float(self.least[0]):.4g}, part ii needs d dx >= "
                f"{float(self.least[1]):.4g} and dx >= ln(d m)^2, and both need delta > 0."
            )
        bound = "(ii): L = 0" if int(self.regime) == 2 else f"(i): L <= {float(self.factor):.4g} times 1/2 ||Y||^2"
        return (
            f"Proposition 2 {bound} with probability at least "
            f"{float(self.probability):.4g}{', which every point satisfies' if float(self.factor) >= 1 else ''}."
        )

    __str__ = results.words
    to_json = results.to_json
    save = results.save
    load = classmethod(results.load)


def white_noise_bound(m: int, dx: int, d: int, delta: float, t: float = 5.0) -> WhiteNoiseBound:
    """Bound the loss of local minima on white noise, for activation patterns that were fixed before (KHK19 Prop 2).

    X (m, dx) and Y (m,) have independent standard normal entries, independent of the patterns ``Lam`` (m, d), whose
    entries lie in [-1, 1]. L is that of Lemma 5, ``1/2 ||PN[Lam_1 X, .., Lam_d X] Y||^2``.

    - i: if ``m >= 64 ln(dx d m / delta^2)^2 dx d``, and ``s_min(Lam_I) >= delta`` for all sets of at least m/2 rows:
      ``L <= (1 + 6 sqrt(t/m)) (1 - dx d / m) 1/2 ||Y||^2`` with probability
      ``1 - exp(-m / (64 ln(dx d m / delta^2))) - 2 exp(-t)``.
    - ii: if ``d dx >= 2 m ln(m d / delta)^2``, ``dx >= ln(d m)^2``, and ``s_min(Lam_I) >= delta`` for all sets of at
      most d/2 rows: ``L = 0`` with probability ``1 - 2 exp(-dx/20)``.

    Outside of these it can be false (a sample that is off in every unit is never explained), and nothing but
    ``L <= 1/2 ||Y||^2`` is returned. Within them part i is below that only if ``6 sqrt(t/m) < dx d / m``, which takes
    more than 10^11 samples. `white_noise_quantile` is exact.

    Args:
        m, dx, d: samples, inputs, hidden units. delta: >= 0, see `smallest_pattern_value`. t: > 0, of part i.

    Raises:
        ValueError: numbers that are not positive.

    Example:
        >>> found = white_noise_bound(10**14, 20_000, 20_000, 1.0)
        >>> int(found.regime), round(1 - float(found.factor), 8), round(float(found.probability), 4)
        (1, 2.66e-06, 0.9865)
        >>> print(white_noise_bound(2000, 199, 10, 1.0).reason)
        Proposition 2 says nothing here: part i needs m >= ..., part ii needs d dx >= ...
    """
    m, dx, d = integer("m", m), integer("dx", dx), integer("d", d)
    t = number("t", t, "positive", lambda v: v > 0)
    most = math.sqrt(m)  # no submatrix of entries in [-1, 1] has a larger one
    delta = number("delta", delta, f"at least 0, and below sqrt(m) = {most:.4g}", lambda v: 0 <= v < most)
    first = math.log(dx * d * m) - 2 * math.log(delta) if delta else math.inf
    second = math.log(m * d) - math.log(delta) if delta else math.inf
    least = np.array([64 * first**2 * dx * d, 2 * m * second**2])
    regime, factor, probability = 0, 1.0, 1.0
    if m >= least[0] and first > 0:
        regime, factor = 1, min((1 + 6 * math.sqrt(t / m)) * (1 - dx * d / m), 1.0)
        probability = 1 - math.exp(-m / (64 * first)) - 2 * math.exp(-t)
    elif d * dx >= least[1] and second > 0 and dx >= math.log(d * m) ** 2:
        regime, factor, probability = 2, 0.0, 1 - 2 * math.exp(-dx / 20)
    return WhiteNoiseBound(*map(np.asarray, (factor, max(probability, 0.0), regime, least)))


def smallest_pattern_value(patterns: Any, rows: int) -> float:
    """Return delta: a lower bound of the smallest singular value of every submatrix with that many rows.

    Exact to rounding, which is taken off, where there are few such sets; else from the whole matrix less the rows that
    weigh most, ``s_min(Lam)^2 - sum of the largest ||Lam_i||^2``, which is often 0. More rows have larger singular
    values as long as they are at least as many as columns, and smaller ones as long as they are fewer: `rows` =
    ceil(m/2) serves part i of Proposition 2, floor(d/2) part ii.

    Args:
        patterns: Lam (m, d), activation patterns. rows: 1..m.

    Raises:
        ValueError: a shape that is none, rows out of range.

    Example:
        >>> smallest_pattern_value([[1.0], [1.0], [0.0]], 2)
        1.0
    """
    Lam = finite("patterns", patterns).astype(np.float64)
    if Lam.ndim != 2 or not Lam.size:
        raise ValueError(f"patterns: Expected: shape (m, d). Received: {Lam.shape}.")
    m = len(Lam)
    rows = integer("rows", rows, 1, m)
    doubt = 8 * max(Lam.shape) * linalg.machine_epsilon(np.float64)  # rounding, of the largest; a bound stays below
    if Lam.shape[1] == 1:
        return float(np.sqrt(np.sum(np.sort(Lam[:, 0] ** 2)[:rows])))
    if math.comb(m, rows) * rows * Lam.shape[1] <= ENTRIES:
        import itertools  # late, with the rare case

        sets = np.array(list(itertools.combinations(range(m), rows)))
        s = np.linalg.svd(Lam[sets], compute_uv=False)
        return max(float(np.min(s[:, -1] - doubt * s[:, 0])), 0.0)
    if rows < Lam.shape[1]:
        return 0.0
    weights = np.sort(np.sum(Lam**2, axis=1))
    left = np.linalg.eigvalsh(Lam.T @ Lam)[0] - np.sum(weights[rows:]) - doubt * np.sum(weights)
    return float(np.sqrt(max(left, 0.0)))


def white_noise_quantile(m: int, rank: int, probability: float) -> float:
    """Return the quantile of ``2 L / ||Y||^2``, exactly: Beta((m - rank)/2, rank/2) for white noise Y.

    Args:
        m: samples. rank: of ``[Lam_1 X, .., Lam_d X]``, min(m, dx d) unless a sample is off in every unit.
        probability: 0..1.

    Raises:
        ValueError: out of range.

    Example:
        >>> round(white_noise_quantile(2000, 1990, 0.5), 5)
        0.00467
    """
    m = integer("m", m)
    rank = integer("rank", rank, 0, m)
    probability = number("probability", probability, "0..1", lambda v: 0 <= v <= 1)
    if rank in (0, m):
        return 1.0 if rank == 0 else 0.0
    from scipy.stats import beta  # late: scipy.stats takes a second to load

    return float(beta.ppf(probability, (m - rank) / 2, rank / 2))


class PhaseChange(NamedTuple):
    """``widths`` (w,). ``fraction`` (w, s): ``2 L / ||Y||^2`` of s draws. ``rank`` (w, s). ``expected`` (w, s): of that
    rank, ``1 - rank/m``."""

    widths: Array
    fraction: Array
    rank: Array
    expected: Array

    @property
    def reason(self) -> str:
        """The result in a sentence."""
        means = ", ".join(
            f"{d}: {f:.3g} ({e:.3g})"
            for d, f, e in zip(self.widths, self.fraction.mean(axis=1), self.expected.mean(axis=1), strict=True)
        )
        return f"Of white noise, hidden layers of these widths leave on average (expected of their ranks) {means}."

    __str__ = results.words
    to_json = results.to_json
    save = results.save
    load = classmethod(results.load)


def phase_change(key: Array, m: int, dx: int, widths: Any, draws: int = 20) -> PhaseChange:
    """Draw what a hidden layer of fixed ReLU patterns leaves of white noise, below and above dx d = m.

    The patterns are those of random units on inputs that are independent of X, as Proposition 2 asks. All widths share
    one compiled program.

    Args:
        m, dx: samples, inputs. widths: of the hidden layer. draws: for each width.

    Raises:
        TypeError: no key.
        ValueError: numbers that are not positive.

    Example:
        >>> found = phase_change(jax.random.key(0), 24, 4, (2, 14), 4)
        >>> found.rank.min(axis=1).tolist()
        [8, 24]
    """
    key = check_key(key)
    m, dx, draws = integer("m", m), integer("dx", dx), integer("draws", draws)
    if np.ndim(widths) != 1 or not len(widths):
        raise ValueError(f"widths: Expected: a sequence of numbers of units. Received: {widths}.")
    widths = np.array([integer("widths", d) for d in widths])
    keys = jax.random.split(key, (len(widths), draws))
    fraction, rank = _draws(keys, jnp.asarray(widths), m, dx, int(widths.max()))
    fraction, rank = np.asarray(fraction), np.asarray(rank)
    return PhaseChange(widths, fraction, rank, (1 - rank / m).astype(fraction.dtype))


def _draw(key: Array, width: Array, m: int, dx: int, most: int) -> tuple[Array, Array]:
    kx, ky, ku, kw = jax.random.split(key, 4)
    X, Y = jax.random.normal(kx, (m, dx)), jax.random.normal(ky, (m, 1))
    patterns = matmul(jax.random.normal(ku, (m, dx)), jax.random.normal(kw, (dx, most))) > 0
    patterns = patterns & (jnp.arange(most, dtype=width.dtype) < width)[None]
    found = svd((patterns.astype(X.dtype)[:, :, None] * X[:, None, :]).reshape(m, -1))
    left = found.project_out(Y)
    # All that is left of a full rank is rounding.
    share = jnp.sum(jnp.square(left)) / jnp.sum(jnp.square(Y))
    return jnp.where(found.rank == m, 0, share), found.rank


_draws = jax.jit(
    jax.vmap(jax.vmap(_draw, (0, None, None, None, None)), (0, 0, None, None, None)), static_argnums=(2, 3, 4)
)
