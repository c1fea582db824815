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
    """What is known about given weights: a NamedTuple of arrays, its numbers 0-d NumPy float64.

    G is the loss's gradient in the prediction at the weights. The polar is the largest ``<-G, phi(w)>`` over
    subnetworks of penalty 1; at a global minimum it is at most lam.
    """

    objective: Array
    """The objective of the weights, rigorous. Where rounding hides its digits, since large subnetworks cancel, it is an
    upper bound of theirs."""
    lower_bound: Array
    """A rigorous lower bound of the global minimum over all widths; at worst the minimum of the loss alone."""
    lower_bound_estimate: Array
    """The lower bound that would hold if the search had found the polar: an estimate."""
    polar_upper: Array
    """A rigorous upper bound of the polar; inf where none is known."""
    polar_lower: Array
    """The best value that a search found. A subnetwork attains it, so the polar is at least that."""
    rigorous: Array
    """A 0-d bool: whether a bound above the minimum of the loss was proved."""
    lam: Array
    """The strength of the regularizer."""
    residuals: Array
    """(r,): ``<-G, phi_i> / lam - theta_i`` over the sum of all thetas. Zero at local minima (K18 (A.10))."""
    zero_subnetworks: Array
    """How many subnetworks are all zero."""
    resolution: Array
    """The relative gap below which nothing is resolved, by the dtype or by the reserve that bounds are claimed with."""
    targets_moved: Array
    """The largest change of an entry of Y that made rows sum to 1 exactly (softmax cross-entropy). The objective and
    the bounds are those of the changed targets."""
    theta_proved: Array
    """A 0-d bool: whether the penalty is known to be nowhere negative, on which all bounds rest. False for a penalty of
    your own, which was only tried at some weights."""
    bound_code: Array
    """The index of the polar's bound in `rigorous.BOUNDS`; ``.bound`` is its name."""
    dual_point: Array
    """(m, dy): the point that proves the lower bound."""
    multipliers: Multipliers
    """The multipliers that prove the bound of the polar at minus the dual point."""
    polar_multipliers: Multipliers
    """The multipliers that prove ``polar_upper``."""

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
        """The name of the polar's upper bound, one of `rigorous.BOUNDS`."""
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
            ValueError: the file holds no certificate.
            OSError: the file cannot be read.
        """
        arrays = read_arrays(path)
        try:
            return cls.from_arrays(arrays)
        except KeyError as error:
            raise ValueError(f"{path}: Expected: a certificate. Received: no array {error}.") from error
