"""The certificate: what is known about given weights, as arrays, as a sentence, and on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from globopt_jax import files, rigorous
from globopt_jax.npz import read_arrays
from globopt_jax.rigorous import Multipliers
from globopt_jax.shapes import Array

__all__ = ["Certificate"]


class Certificate(NamedTuple):
    """What is known about given weights; arrays only, numbers are 0-d NumPy float64.

    Rigorous, always: ``objective`` of the weights; ``lower_bound`` of the global minimum over all widths, with the gaps
    that follow; ``polar_upper`` >= polar(-G) (inf where no bound is known). Estimates, from searches: ``polar_lower``
    (attained by a subnetwork, so a true lower bound of the polar), ``lower_bound_estimate``.

    ``rigorous`` (0-d bool): a bound better than the trivial one (the loss's minimum) was proved. ``residuals`` (r,):
    first-order residual of each subnetwork, ``<-G, phi_i> / lam - theta_i`` over the sum of the thetas, 0 at
    local minima (K18 (A.10)). ``zero_subnetworks``: how many are all zero. ``resolution``: the relative gap below
    which nothing is resolved, by the dtype computed in or by the reserve that bounds are claimed with.
    ``targets_moved``: the largest change of an entry of Y that made its rows sum to 1 exactly, for softmax
    cross-entropy; objective and bounds are those of these targets.
    ``theta_proved`` (0-d bool): the penalty is nowhere negative, on which all bounds rest; False for a user's own,
    which was only tried. ``dual_point`` (m, dy) and ``multipliers`` prove the lower bound, ``polar_multipliers`` the
    bound of the polar.
    """

    objective: Array
    lower_bound: Array
    lower_bound_estimate: Array
    polar_upper: Array
    polar_lower: Array
    rigorous: Array
    lam: Array
    residuals: Array
    zero_subnetworks: Array
    resolution: Array
    targets_moved: Array
    theta_proved: Array
    bound_code: Array
    dual_point: Array
    multipliers: Multipliers
    polar_multipliers: Multipliers

    @property
    def gap(self) -> np.ndarray:
        """objective - lower_bound: no training can gain more."""
        return np.asarray(float(self.objective) - float(self.lower_bound))

    @property
    def relative_gap(self) -> np.ndarray:
        """gap / |objective|."""
        return np.asarray(rigorous.relative(float(self.gap), float(self.objective)))

    @property
    def gap_estimate(self) -> np.ndarray:
        """The gap that would be left if the search had found the polar; never negative, an estimate."""
        return np.asarray(float(self.objective) - float(self.lower_bound_estimate))

    @property
    def bound(self) -> str:
        """The kind of upper bound of the polar that was used (`rigorous.BOUNDS`)."""
        return rigorous.BOUNDS[int(self.bound_code)]

    @property
    def reason(self) -> str:
        """The certificate in a few sentences."""
        return rigorous.sentence(self._numbers())

    def __str__(self) -> str:
        return self.reason

    def _numbers(self) -> dict[str, Any]:
        skip = ("dual_point", "multipliers", "polar_multipliers", "bound_code", "residuals")
        derived = ("gap", "relative_gap", "gap_estimate")
        numbers = {name: getattr(self, name).item() for name in (*self._fields, *derived) if name not in skip}
        return {**numbers, "bound": self.bound}

    def to_json(self) -> dict[str, Any]:
        """The numbers, without the dual point and the multipliers, as plain values (inf as a string)."""
        numbers = self._numbers()
        numbers["largest_residual"] = float(np.max(np.abs(self.residuals), initial=0.0))
        plain = {k: v if not isinstance(v, float) or np.isfinite(v) else str(v) for k, v in numbers.items()}
        return {**plain, "reason": self.reason}

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays under names of one level, as files hold them."""
        plain = {name: np.asarray(a) for name, a in self._asdict().items() if not isinstance(a, Multipliers)}
        plain |= {name: np.asarray(a) for name, a in self.multipliers._asdict().items()}
        return plain | {f"polar_{name}": np.asarray(a) for name, a in self.polar_multipliers._asdict().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "Certificate":
        """The certificate that `arrays` took apart; KeyError where one is missing."""
        parts: dict[str, Any] = {name: arrays[name] for name in cls._fields if not name.endswith("multipliers")}
        for p in ("", "polar_"):
            parts[f"{p}multipliers"] = Multipliers(*(arrays[p + name] for name in Multipliers._fields))
        return cls(**parts)

    def save(self, path: str | Path) -> None:
        """Write all arrays to an .npz file, atomically."""
        files.write_arrays(path, self.arrays())

    @classmethod
    def load(cls, path: str | Path) -> "Certificate":
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds no certificate. OSError: it cannot be read.
        """
        arrays = read_arrays(path)
        try:
            return cls.from_arrays(arrays)
        except KeyError as error:
            raise ValueError(f"{path}: Expected: a certificate. Received: no array {error}.") from error
