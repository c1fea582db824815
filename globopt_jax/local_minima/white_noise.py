"""How much of white-noise targets one hidden layer with fixed activation patterns explains (KHK19 section 3.2)."""

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

#: All sets of rows are tried if they have at most this many entries in all.
ENTRIES = 20_000_000


class WhiteNoiseBound(NamedTuple):
    """The bound ``L <= factor 1/2 ||Y||^2``, which holds with at least the given probability."""

    factor: Array
    """The factor, 0 to 1."""
    probability: Array
    """The probability with which the bound holds at least."""
    regime: Array
    """The part of Proposition 2 that applies, 1 or 2; 0 where neither does and the bound is the trivial one."""
    least: Array
    """(2,): the number of samples that part i requires, and the product d dx that part ii requires."""

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
    """Bound the loss of local minima on white noise, for activation patterns chosen before the data (KHK19 Prop 2).

    The activation pattern of a unit holds the slope of its activation for each sample. X (m, dx) and Y (m,) have
    independent standard normal entries, independent of the patterns ``Lam`` (m, d), whose entries lie in [-1, 1]. The
    loss of a differentiable local minimum with these patterns is ``L = 1/2 ||PN[Lam_1 X, .., Lam_d X] Y||^2`` (Lemma
    5). Lam_I are the rows of Lam in a set I, s_min is the smallest singular value.

    - i: if ``m >= 64 ln(dx d m / delta^2)^2 dx d``, and ``s_min(Lam_I) >= delta`` for all sets of at least m/2 rows:
      ``L <= (1 + 6 sqrt(t/m)) (1 - dx d / m) 1/2 ||Y||^2`` with probability
      ``1 - exp(-m / (64 ln(dx d m / delta^2))) - 2 exp(-t)``.
    - ii: if ``d dx >= 2 m ln(m d / delta)^2``, ``dx >= ln(d m)^2``, and ``s_min(Lam_I) >= delta`` for all sets of at
      most d/2 rows: ``L = 0`` with probability ``1 - 2 exp(-dx/20)``.

    Where neither condition holds, the bounds can be false (a sample on which every unit is off is never explained), and
    the trivial bound ``L <= 1/2 ||Y||^2`` is returned. Part i improves on the trivial bound only if
    ``6 sqrt(t/m) < dx d / m``, which takes more than 10^11 samples. `white_noise_quantile` is exact.

    Args:
        m: the number of samples.
        dx: the number of inputs.
        d: the number of hidden units.
        delta: a lower bound >= 0 of ``s_min(Lam_I)``, see `smallest_pattern_value`.
        t: the number t > 0 of part i.

    Returns:
        A `WhiteNoiseBound`.

    Raises:
        ValueError: m, dx, d or t is not positive, or delta is not in [0, sqrt(m)).

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
    """Return delta: a lower bound of the smallest singular value of every submatrix of Lam with the given rows.

    Where there are few such sets of rows, all are tried, and the result is exact up to rounding, which is subtracted.
    Otherwise the bound is ``delta^2 = s_min(Lam)^2 - sum of the largest ||Lam_i||^2`` over the rows left out, which is
    often 0.

    For part i of Proposition 2 take `rows` = ceil(m/2), for part ii floor(d/2). Other numbers of rows then need no
    check: the smallest singular value grows with the number of rows where there are at least as many rows as columns,
    and falls where there are fewer.

    Args:
        patterns: activation patterns Lam (m, d).
        rows: the number of rows of the submatrices, 1..m.

    Returns:
        The lower bound delta, >= 0.

    Raises:
        ValueError: `patterns` is no matrix or holds NaN or inf, or `rows` is out of range.
        TypeError: `patterns` does not hold real numbers.

    Example:
        >>> smallest_pattern_value([[1.0], [1.0], [0.0]], 2)
        1.0
    """
    Lam = finite("patterns", patterns).astype(np.float64)
    if Lam.ndim != 2 or not Lam.size:
        raise ValueError(f"patterns: Expected: shape (m, d). Received: {Lam.shape}.")
    m = len(Lam)
    rows = integer("rows", rows, 1, m)
    doubt = (
        8 * max(Lam.shape) * linalg.machine_epsilon(np.float64)
    )  # rounding relative to the largest value, subtracted
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
    """Return a quantile of ``2 L / ||Y||^2``, which is distributed as Beta((m - rank)/2, rank/2) for white noise.

    Args:
        m: the number of samples.
        rank: the rank of ``[Lam_1 X, .., Lam_d X]``: min(m, dx d), unless every unit is off on some sample.
        probability: the probability 0..1 of values up to the quantile.

    Returns:
        The quantile, 0 to 1.

    Raises:
        ValueError: a number is out of range.

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
    """The unexplained share of white noise for w widths of the hidden layer and s draws each."""

    widths: Array
    """(w,): the widths of the hidden layer."""
    fraction: Array
    """(w, s): ``2 L / ||Y||^2``, the share of the targets that the layer does not explain."""
    rank: Array
    """(w, s): the rank of ``[Lam_1 X, .., Lam_d X]``."""
    expected: Array
    """(w, s): the expected share at this rank, ``1 - rank/m``."""

    @property
    def reason(self) -> str:
        """The result in a sentence."""
        means = ", ".join(
            f"{d}: {f:.3g} ({e:.3g})"
            for d, f, e in zip(self.widths, self.fraction.mean(axis=1), self.expected.mean(axis=1), strict=True)
        )
        return f"The mean share of white noise left unexplained at each width (expected from the ranks) is {means}."

    __str__ = results.words
    to_json = results.to_json
    save = results.save
    load = classmethod(results.load)


def phase_change(key: Array, m: int, dx: int, widths: Any, draws: int = 20) -> PhaseChange:
    """Draw the share of white noise that a hidden layer of fixed ReLU patterns does not explain, for several widths.

    The share is about ``1 - dx d / m`` where dx d is below m, and near 0 above. The patterns are those of random units
    on inputs that are independent of X, as Proposition 2 requires. All widths share one compiled program.

    Args:
        key: a random key.
        m: the number of samples.
        dx: the number of inputs.
        widths: the widths of the hidden layer.
        draws: the number of draws for each width.

    Returns:
        A `PhaseChange`.

    Raises:
        TypeError: `key` is no key.
        ValueError: a number is not positive, or `widths` is no sequence of numbers.

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
    # At full rank the remainder is rounding.
    share = jnp.sum(jnp.square(left)) / jnp.sum(jnp.square(Y))
    return jnp.where(found.rank == m, 0, share), found.rank


_draws = jax.jit(
    jax.vmap(jax.vmap(_draw, (0, None, None, None, None)), (0, 0, None, None, None)), static_argnums=(2, 3, 4)
)
