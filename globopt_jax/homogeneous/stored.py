"""A `Refinement` as named arrays and back, so that a run that was killed goes on where it stood."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax.homogeneous import dual
from globopt_jax.homogeneous.certificate import Certificate
from globopt_jax.homogeneous.grading import Refinement
from globopt_jax.homogeneous.polar import relaxation

__all__ = ["pack", "unpack"]


def pack(refinement: Refinement) -> dict[str, np.ndarray]:
    """Everything in a refinement as NumPy arrays with names of one level."""
    arrays = {"stage": np.asarray(refinement.stage)}
    arrays |= {f"certificate.{name}": a for name, a in refinement.certificate.arrays().items()}
    if refinement.point is not None:
        arrays["point"] = np.asarray(refinement.point)
    leaves = [] if refinement.state is None else jax.tree.leaves(refinement.state)
    return arrays | {f"state.{k}": np.asarray(leaf) for k, leaf in enumerate(leaves)}


def unpack(arrays: Mapping[str, Any]) -> Refinement:
    """The refinement that `pack` took apart."""
    parts = {name.removeprefix("certificate."): a for name, a in arrays.items() if name.startswith("certificate.")}
    stage = str(arrays["stage"])
    point = jnp.asarray(arrays["point"]) if "point" in arrays else None
    count = sum(name.startswith("state.") for name in arrays)
    leaves = [jnp.asarray(arrays[f"state.{k}"]) for k in range(count)]
    state = jax.tree.unflatten(_structure(stage == "joint"), leaves) if leaves else None
    return Refinement(Certificate.from_arrays(parts), stage, point, state)


def _structure(joint: bool) -> Any:
    """The tree of an `Ascent`, which depends on nothing but whether the dual point moves too."""
    zero = jnp.zeros(())
    coordinates = relaxation.Coordinates(*[zero] * len(relaxation.Coordinates._fields))
    return jax.tree.structure(dual.begin(zero, coordinates, joint=joint, steps=1))
