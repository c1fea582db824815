"""Let the compiler choose the layout of arrays that are computed from sharded ones, for meshes of every kind."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding

__all__ = ["on_automatic_axes", "on_automatic_mesh"]

P = ParamSpec("P")
R = TypeVar("R")


def on_automatic_mesh(function: Callable[P, R]) -> Callable[P, R]:
    """Let the compiler lay out arrays inside a function; explicit axes would ask every operation for a layout."""

    @wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        if AxisType.Explicit not in jax.sharding.get_abstract_mesh().axis_types:
            return function(*args, **kwargs)
        with jax.set_mesh(_automatic(jax.sharding.get_mesh())):
            return function(*args, **kwargs)

    return inside


def _automatic(mesh: Any) -> Mesh:
    """Return the same mesh with automatic axes, whose layout the compiler chooses."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


def on_automatic_axes(array: Any) -> Any:
    """Return an array with the same shards on a mesh with automatic axes."""
    sharding = getattr(array, "sharding", None)
    if not isinstance(sharding, NamedSharding) or AxisType.Explicit not in sharding.mesh.axis_types:
        return array
    return jax.device_put(array, NamedSharding(_automatic(sharding.mesh), sharding.spec))
