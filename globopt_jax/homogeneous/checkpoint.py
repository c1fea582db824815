"""Where a run stands, as named arrays and back: a `Progress` of the training, a `Refinement` of a certificate."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from globopt_jax.homogeneous.grading import Certificate, Refinement, dual_ascent
from globopt_jax.homogeneous.polar import relaxation
from globopt_jax.homogeneous.training import Progress, State, Trace
from globopt_jax.shapes import Params

__all__ = ["pack_progress", "pack_refinement", "unpack_progress", "unpack_refinement"]


def pack_progress(progress: Progress) -> dict[str, np.ndarray]:
    """What `iterate` goes on from, as NumPy arrays with names of one level; only where the progress is whole."""
    return _packed("state", progress.state) | {f"trace.{n}": a for n, a in progress.trace._asdict().items()}


def unpack_progress(arrays: Mapping[str, Any], params: Params) -> Progress:
    """The progress that `pack_progress` took apart; `params` are weights of the same layers, as they are now."""
    like = State(params, np.zeros(()), np.zeros((1, 1)), 0.0)
    trace = Trace(**{name: arrays[f"trace.{name}"] for name in Trace._fields})
    return Progress(params, trace, False, True, _unpacked("state", arrays, jax.tree.structure(like)))


def pack_refinement(refinement: Refinement) -> dict[str, np.ndarray]:
    """Everything in a refinement as NumPy arrays with names of one level."""
    arrays = {"stage": np.asarray(refinement.stage)}
    arrays |= {f"certificate.{name}": a for name, a in refinement.certificate.arrays().items()}
    if refinement.point is not None:
        arrays["point"] = np.asarray(refinement.point)
    return arrays | ({} if refinement.state is None else _packed("state", refinement.state))


def unpack_refinement(arrays: Mapping[str, Any]) -> Refinement:
    """The refinement that `pack_refinement` took apart."""
    parts = {name.removeprefix("certificate."): a for name, a in arrays.items() if name.startswith("certificate.")}
    stage = str(arrays["stage"])
    point = jnp.asarray(arrays["point"]) if "point" in arrays else None
    ascended = any(name.startswith("state.") for name in arrays)
    state = _unpacked("state", arrays, _ascent(stage == "joint")) if ascended else None
    return Refinement(Certificate.from_arrays(parts), stage, point, state)


def _ascent(joint: bool) -> Any:
    """The structure of an `Ascent`, which depends on nothing but whether the dual point moves too."""
    zero = jnp.zeros(())
    coordinates = relaxation.Coordinates(*[zero] * len(relaxation.Coordinates._fields))
    return jax.tree.structure(dual_ascent.begin(zero, coordinates, joint=joint, steps=1))


def _packed(name: str, tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a tree, numbered."""
    return {f"{name}.{k}": np.asarray(leaf) for k, leaf in enumerate(jax.tree.leaves(tree))}


def _unpacked(name: str, arrays: Mapping[str, Any], structure: Any) -> Any:
    """The tree of that structure with the numbered leaves."""
    # NumPy's: JAX would round the float64 numbers of a float32 run where x64 is off.
    return jax.tree.unflatten(structure, [np.asarray(arrays[f"{name}.{k}"]) for k in range(structure.num_leaves)])
